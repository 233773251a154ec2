"""The connection of the page that sent a request."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from flask_pusher import Pusher


@pytest.mark.parametrize(
    ("sent", "socket_id"),
    [
        ({"headers": {"X-Socket-ID": "1.2"}}, "1.2"),
        ({"data": {"socket_id": "1.2"}}, "1.2"),
        ({"headers": {"X-Socket-ID": "1.2"}, "data": {"socket_id": "3.4"}}, "1.2"),
        ({"headers": {"X-Socket-ID": "undefined"}, "data": {"socket_id": "3.4"}}, "3.4"),
        ({"headers": {"X-Socket-ID": "1.2"}, "json": {}}, "1.2"),
        ({"headers": {"X-Socket-ID": "undefined"}}, None),
        ({"headers": {"X-Socket-ID": ""}}, None),
        ({"headers": {"X-Socket-ID": "1.2, 3.4"}}, None),
        ({"data": {"socket_id": "\u0661.\u0662"}}, None),
        ({"data": {"socket_id": ""}}, None),
        ({"json": {"socket_id": "1.2"}}, None),
        ({"query_string": {"socket_id": "1.2"}}, None),
        ({}, None),
    ],
)
def test_it_comes_from_the_header_or_the_form(
    app: Flask, pusher: Pusher, sent: dict[str, Any], socket_id: str | None
) -> None:
    with app.test_request_context("/", method="POST", **sent):
        assert pusher.socket_id == socket_id


def test_it_spares_the_page_that_caused_an_event(app: Flask, api: Any) -> None:
    pusher = Pusher(app)

    @app.post("/rename")
    def rename() -> str:
        pusher.client.trigger("room", "renamed", {}, pusher.socket_id)
        return ""

    browser = app.test_client()
    browser.post("/rename", headers={"X-Socket-ID": "1.2"})
    browser.post("/rename")
    assert api.calls[0].body["socket_id"] == "1.2"
    assert "socket_id" not in api.calls[1].body

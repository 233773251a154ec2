"""A deferred event reaches pages when the request that deferred it has succeeded, not before."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from flask import Flask, Response

from flask_pusher import Pusher

from . import WAIT_SECONDS
from .conftest import NewName, OpenPage, Serve
from .servers import Site

POST = "url => fetch(url, { method: 'POST' }).then((response) => response.status)"

POST_AND_READ_FIRST_PART = """async (url) => {
    const response = await fetch(url, { method: "POST" });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const { value } = await reader.read();
    globalThis.secondPart = reader.read().then(({ value }) => value);
    return value;
}"""


def test_deferred_events_arrive_in_order_after_the_response(
    app: Flask, serve: Serve, open_page: OpenPage, new_name: NewName
) -> None:
    pusher = Pusher(app)
    orders, audit = new_name("orders"), new_name("audit")

    @app.post("/ship")
    def ship() -> str:
        pusher.defer(orders, "packed", 1)
        pusher.defer([orders, audit], "shipped", {"by": "truck"})
        pusher.defer(orders, "billed", 3)
        return ""

    serve(app)
    page = open_page()
    page.subscribe(orders, audit)

    assert page.run(POST, "/ship") == 200
    page.event(orders, "billed")

    assert page.events(orders) == [["packed", 1], ["shipped", {"by": "truck"}], ["billed", 3]]
    assert page.event(audit, "shipped") == {"by": "truck"}
    page.wait_until("performance.getEntriesByName(location.origin + '/ship').length === 1")
    answered = page.run("performance.getEntriesByName(location.origin + '/ship')[0].responseEnd")
    assert all(one["at"] > answered for one in page.told if one["event"] == "packed")


def test_a_deferred_event_waits_for_the_end_of_a_streamed_response(
    app: Flask, serve: Serve, open_page: OpenPage, new_name: NewName
) -> None:
    pusher = Pusher(app)
    orders = new_name("orders")
    may_end = threading.Event()

    @app.post("/ship")
    def ship() -> Response:
        pusher.defer(orders, "shipped", {"by": "truck"})

        def parts() -> Iterator[str]:
            yield "under way"
            assert may_end.wait(WAIT_SECONDS)
            yield "there"

        return Response(parts())

    serve(app)
    page = open_page()
    page.subscribe(orders)

    assert page.run(POST_AND_READ_FIRST_PART, "/ship") == "under way"
    app.extensions["pusher"].trigger(orders, "meanwhile", "another event")
    page.event(orders, "meanwhile")
    assert page.events(orders) == [["meanwhile", "another event"]]

    may_end.set()
    assert page.run("secondPart") == "there"
    assert page.event(orders, "shipped") == {"by": "truck"}


@pytest.mark.parametrize("status", [400, 404, 500])
def test_no_page_hears_of_what_failed(
    app: Flask, serve: Serve, site: Site, open_page: OpenPage, new_name: NewName, status: int
) -> None:
    pusher = Pusher(app)
    orders = new_name("orders")

    @app.post("/ship")
    def ship() -> tuple[str, int]:
        pusher.defer(orders, "shipped", {"by": "truck"})
        return "", status

    @app.post("/break")
    def break_down() -> str:
        pusher.defer(orders, "shipped", {"by": "truck"})
        raise RuntimeError("The truck broke down.")

    serve(app)
    page = open_page()
    page.subscribe(orders)

    assert page.run(POST, "/ship") == status
    assert page.run(POST, "/break") == 500
    site.wait_until_idle()
    app.extensions["pusher"].trigger(orders, "later", "another event")

    page.event(orders, "later")
    assert page.events(orders) == [["later", "another event"]]

"""A server whose paths all begin with another: the API's calls are signed for the whole path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask
from pusher.http import GET, Request

from flask_pusher import Pusher, PusherError

from .conftest import NewName, OpenPage
from .servers import APP_ID, KEY, SECRET, Soketi
from .tools import Node


@pytest.fixture
def server() -> str:
    return "soketi"


@pytest.fixture
def settings(node: Node, packages: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    soketi = Soketi(node.node, packages, tmp_path, [], path="/realtime/channels")
    yield {
        "PUSHER_URL": f"http://{KEY}:{SECRET}@127.0.0.1:{soketi.port}{soketi.path}/apps/{APP_ID}",
    }
    soketi.stop()


def test_events_and_questions_go_through(
    pusher: Pusher, app: Flask, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.channel_data(lambda channel_name, socket_id: {"user_id": "ana"})
    room = new_name("presence-room")
    page = open_page()
    page.subscribe(room)

    client = app.extensions["pusher"]
    client.trigger(room, "one", {"n": 1})
    client.trigger_batch([{"channel": room, "name": "two", "data": {"n": 2}}])

    assert page.event(room, "two") == {"n": 2}
    assert page.events(room) == [["one", {"n": 1}], ["two", {"n": 2}]]
    assert client.users_info(room) == {"users": [{"id": "ana"}]}


def test_without_the_path_nothing_is_there(pusher: Pusher, app: Flask, make_app: Any) -> None:
    host, port, _ = app.extensions["pusher"].address
    bare = make_app()
    bare.config.update(
        PUSHER_URL=None,
        PUSHER_APP_ID=APP_ID,
        PUSHER_KEY=KEY,
        PUSHER_SECRET=SECRET,
        PUSHER_HOST=host,
        PUSHER_PORT=port,
        PUSHER_SSL=False,
    )
    Pusher(bare)
    with pytest.raises(PusherError):
        bare.extensions["pusher"].channels_info()


def test_a_call_that_is_signed_for_the_path_without_it_is_refused(
    pusher: Pusher, app: Flask
) -> None:
    client = app.extensions["pusher"]
    bare = Request(client._pusher_client, GET, f"/apps/{APP_ID}/channels", {})
    url = f"{bare.base_url}{client.path}{bare.signed_path}"
    assert requests.get(url, timeout=20).json()["code"] == 401

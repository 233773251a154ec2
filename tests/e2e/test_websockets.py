"""What Flask-Sock's views and Flask-SocketIO's handlers defer, in servers that run them."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest
import simple_websocket
import socketio

from . import WAIT_SECONDS
from .conftest import unavailable
from .servers import WsgiServer, settings_for
from .test_publishing_servers import Api
from .tools import MissingToolError


@pytest.fixture(scope="module")
def running_api() -> Iterator[Api]:
    api = Api()
    yield api
    api.stop()


@pytest.fixture
def api(running_api: Api) -> Api:
    running_api.forget()
    return running_api


@pytest.fixture(scope="module", params=["gthread", "gevent", "flask"])
def port(request: pytest.FixtureRequest, running_api: Api) -> Iterator[int]:
    kind: str = request.param
    mode = "gevent" if kind == "gevent" else "threading"
    try:
        server = WsgiServer(kind, "sockets", settings_for(running_api.port, ASYNC_MODE=mode))
    except MissingToolError as error:
        unavailable(error)
    yield server.port
    server.stop()


@pytest.mark.parametrize(("end", "published"), [("well", True), ("fails", False)])
def test_a_view_of_flask_sock_publishes_when_it_is_over(
    api: Api, port: int, end: str, published: bool
) -> None:
    client = simple_websocket.Client.connect(f"ws://127.0.0.1:{port}/sock/{end}")
    client.send(end)
    api.names_until(f"now-{end}")  # while the connection lasts
    client.send("that is all")
    with pytest.raises(simple_websocket.ConnectionClosed):
        client.receive(WAIT_SECONDS)
    if published:  # the client hears that it is over before the server has ended the request
        api.names_until(f"deferred-{end}")
    names = names_so_far(api, port)
    assert names == [f"now-{end}"] + [f"deferred-{end}"] * published


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_a_handler_of_flask_socketio_publishes_when_it_is_over(
    api: Api, port: int, transport: str
) -> None:
    client = socketio.Client(request_timeout=WAIT_SECONDS)
    client.connect(f"http://127.0.0.1:{port}", transports=[transport], wait_timeout=WAIT_SECONDS)
    try:
        api.names_until("connected")
        client.emit("say", "nonsense")
        client.emit("say", "sense")
        assert "said-nonsense" not in api.names_until("said-sense")
    finally:
        client.disconnect()


def names_so_far(api: Api, port: int) -> list[str]:
    """The events that have come: those of a later request come behind them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/last", timeout=WAIT_SECONDS):
        return api.names_until("last")

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from flask import Flask

from _flask_pusher.local import LocalServer, console, local_server
from flask_pusher import Client, Pusher

from .peers import APP_ID, KEY, SECRET, Api, Browser, Connect


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.config.update(
        PUSHER_APP_ID=APP_ID, PUSHER_KEY=KEY, PUSHER_SECRET=SECRET, PUSHER_CLUSTER="eu"
    )
    Pusher(app)
    return app


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs a moment may need a busy machine many of them."""
    monkeypatch.setattr(LocalServer.wait_for, "__defaults__", (1, 60))
    monkeypatch.setattr(LocalServer.wait_for_webhook, "__defaults__", (None, 60))
    monkeypatch.setattr(console, "FLUSH_SECONDS", 60)


@pytest.fixture(autouse=True)
def what_happens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flask_pusher.local")


@pytest.fixture
def client(app: Flask) -> Client:
    client: Client = app.extensions["pusher"]
    return client


@pytest.fixture
def server(app: Flask) -> Iterator[LocalServer]:
    with local_server(app) as server:
        yield server


@pytest.fixture
def connect(client: Client) -> Iterator[Connect]:
    """Connects browsers to wherever the client points, and closes them when the test is over."""
    browsers: list[Browser] = []

    def connect(
        path: str = f"/app/{KEY}?protocol=7&client=js&version=8.6.0",
        established: bool = True,
        receive_buffer: int = 0,
    ) -> Browser:
        browser = Browser((client.host, client.port), path, receive_buffer)
        browsers.append(browser)
        return browser.established() if established else browser

    yield connect
    for browser in browsers:
        browser.close()


@pytest.fixture
def api(server: LocalServer) -> Api:
    return Api(server.url)

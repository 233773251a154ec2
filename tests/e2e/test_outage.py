"""What becomes of events while a service restarts, and behind a proxy that forgets connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from _flask_pusher.publisher import publisher
from _flask_pusher.transport import Backend
from flask_pusher import Pusher, RecordedEvent, publish_failed, published

from . import WAIT_SECONDS
from .servers import APP_ID, KEY, SECRET, Soketi, free_port
from .tools import Node


class Told:
    """The names of the events that the two signals told."""

    def __init__(self) -> None:
        self.published: list[str] = []
        self.lost: list[str] = []

    def on_published(self, sender: Flask, events: list[RecordedEvent], **_: Any) -> None:
        self.published += [event.name for event in events]

    def on_failed(self, sender: Flask, events: list[RecordedEvent], **_: Any) -> None:
        self.lost += [event.name for event in events]


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    with published.connected_to(told.on_published), publish_failed.connected_to(told.on_failed):
        yield told


def make(port: int) -> tuple[Flask, Pusher]:
    app = Flask("shop")
    app.config.update(PUSHER_APP_ID=APP_ID, PUSHER_KEY=KEY, PUSHER_SECRET=SECRET)
    app.config.update(PUSHER_HOST="127.0.0.1", PUSHER_PORT=port, PUSHER_SSL=False)
    return app, Pusher(app)


def test_a_service_that_restarts_under_load_loses_nothing(
    node: Node, packages: Path, tmp_path: Path, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="shop")
    port = free_port()
    app, pusher = make(port)
    names = [str(number) for number in range(150)]

    def work() -> None:
        for name in names:
            with app.app_context():
                pusher.trigger(f"orders-{int(name) % 5}", name, {}, wait=False)
            time.sleep(0.02)

    soketi = Soketi(node.node, packages, tmp_path, [], port=port)
    worker = threading.Thread(target=work)
    worker.start()
    time.sleep(0.5)
    soketi.kill()
    worker.join()
    soketi = Soketi(node.node, packages, tmp_path, [], port=port)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while len(told.published) < len(names) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        publisher().flush()
        soketi.stop()
    assert sorted(told.published, key=int) == names
    assert told.lost == []
    of_channel = [name for name in told.published if int(name) % 5 == 0]
    assert of_channel == sorted(of_channel, key=int)
    assert f"http://127.0.0.1:{port} gave no answer" in caplog.text
    assert f"http://127.0.0.1:{port} answers again" in caplog.text


class ForgetfulProxy:
    """Carries connections to a port, and forgets, without a word, those that are idle for long."""

    def __init__(self, port: int, seconds: float) -> None:
        self.target = port
        self.seconds = seconds
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.open = [self.listener]
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                near = self.listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.target))
                self.open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        one.settimeout(self.seconds)
        with suppress(OSError):  # forgotten: what comes later is not read, nor answered
            while content := one.recv(65536):
                other.sendall(content)

    def stop(self) -> None:
        for one in self.open:
            with suppress(OSError):  # the other side has hung up
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def test_a_proxy_that_forgets_idle_connections_loses_nothing(
    node: Node, packages: Path, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backend, "idle_seconds", 0.5)
    soketi = Soketi(node.node, packages, tmp_path, [])
    proxy = ForgetfulProxy(soketi.port, 0.8)
    try:
        app, pusher = make(proxy.port)
        for round_ in range(3):
            with app.app_context():
                for number in range(20):
                    pusher.defer(f"orders-{number}", f"{round_}-{number}", {})
            time.sleep(1.2)
    finally:
        publisher().flush()
        proxy.stop()
        soketi.stop()
    assert (len(told.published), told.lost) == (60, [])

"""What becomes of events while a service restarts, and behind a proxy that forgets connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from _flask_pusher.publisher import publisher
from _flask_pusher.transport import Backend
from flask_pusher import Pusher, RecordedEvent, publish_failed, published

from . import WAIT_SECONDS
from .cable import Cable
from .live import until
from .servers import APP_ID, KEY, SECRET, Soketi, free_port
from .tools import Node


class Told:
    """The names of the events that the two signals told."""

    def __init__(self) -> None:
        self.published: list[str] = []
        self.lost: list[str] = []

    def has_published(self, count: int) -> bool:
        return len(self.published) == count

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
    app.config["PUSHER_TIMEOUT"] = WAIT_SECONDS
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


def test_a_proxy_that_forgets_idle_connections_loses_nothing(
    node: Node, packages: Path, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backend, "idle_seconds", 0.5)
    soketi = Soketi(node.node, packages, tmp_path, [])
    proxy = Cable()
    proxy.server = ("127.0.0.1", soketi.port)
    try:
        app, pusher = make(proxy.port)
        for round_ in range(3):
            with app.app_context():
                for number in range(20):
                    pusher.defer(f"orders-{number}", f"{round_}-{number}", {})
            until(partial(told.has_published, 20 * (round_ + 1)), "a round")
            time.sleep(0.5)
            proxy.deaden()
    finally:
        publisher().flush()
        proxy.close()
        soketi.stop()
    assert (len(told.published), told.lost) == (60, [])

"""An application whose requests publish, for real servers to run: its settings are FLASK_PUSHER_*.

Its events are named by the process and a number, which count up in each of the process's channels,
and the answer is the event's name. What is lost is noted in a file.
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from pathlib import Path

from flask import Flask

from _flask_pusher import desk
from _flask_pusher.publisher import publisher
from flask_pusher import Pusher, RecordedEvent, publish_failed

CHANNELS = 20


def create_app() -> Flask:
    app = Flask("production")
    app.config.from_prefixed_env()
    pusher = Pusher(app)
    numbers = itertools.count()
    lost = Path(os.environ["LOST_EVENTS"])
    if "ENDS_IN_ORDER" in os.environ:
        sys.path.append(str(Path(__file__).parents[2] / "docs" / "recipes"))
        importlib.import_module("ends_in_order")
    desk.QUEUE_BYTES = int(os.environ.get("QUEUE_BYTES", desk.QUEUE_BYTES))

    @app.get("/defer")
    def defer() -> str:
        number = next(numbers)
        name = f"{os.getpid()}-{number}"
        pusher.defer(f"orders-{os.getpid()}-{number % CHANNELS}", name, {"order": number})
        return name

    @app.get("/process")
    def process() -> str:
        return str(os.getpid())

    @app.get("/queue")
    def queue() -> str:
        return str(sum(one.size for one in list(publisher().desks.values())))

    @publish_failed.connect_via(app, weak=False)
    def note(sender: Flask, events: list[RecordedEvent], error: Exception) -> None:
        with lost.open("a", encoding="utf-8") as file:
            file.write("".join(f"{event.name}\n" for event in events))

    return app

"""An application with views and handlers that speak WebSocket, and defer: its settings are
FLASK_PUSHER_*.

Flask-SocketIO wraps the application before the extension does, as it is often written.
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, abort
from flask_sock import Sock
from flask_socketio import SocketIO

from flask_pusher import Pusher


def create_app() -> Flask:
    app = Flask("sockets")
    app.config.from_prefixed_env()
    sock = Sock(app)
    socketio = SocketIO(app, async_mode=os.environ["ASYNC_MODE"])
    pusher = Pusher(app)

    @sock.route("/sock/<end>")  # type: ignore[untyped-decorator]
    def speak(ws: Any, end: str) -> None:
        said = ws.receive()
        pusher.trigger("sock", f"now-{said}", {}, wait=False)
        pusher.defer("sock", f"deferred-{said}", {})
        ws.receive()
        if end == "fails":
            raise LookupError("no such order")
        if end == "refuses":
            abort(409)

    @socketio.on("connect")  # type: ignore[untyped-decorator]
    def connect() -> None:
        pusher.defer("socketio", "connected", {})

    @socketio.on("say")  # type: ignore[untyped-decorator]
    def say(said: str) -> None:
        pusher.defer("socketio", f"said-{said}", {})
        if said == "nonsense":
            raise LookupError("no such order")

    @app.get("/last")
    def last() -> str:
        pusher.defer("sock", "last", {})
        return ""

    return app

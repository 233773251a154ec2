"""One of several machines that serve the same application: run by gunicorn, set by variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flask import Flask, render_template, request, send_from_directory, session
from werkzeug import Response

from flask_pusher import Pusher

app = Flask("machine", root_path=str(Path(__file__).parent))
app.config.from_prefixed_env()
pusher = Pusher(app)


@pusher.auth
def may_subscribe(channel_name: str, socket_id: str) -> bool:
    return "user" in session


@pusher.channel_data
def member(channel_name: str, socket_id: str) -> dict[str, Any]:
    return {"user_id": session["user"]}


@pusher.webhooks.event("channel_occupied")
@pusher.webhooks.event("member_added")
def note(event: dict[str, Any]) -> None:
    key = request.headers["X-Pusher-Key"]
    with Path(os.environ["HEARD"]).open("a") as heard:
        heard.write(f"{event['name']} {event['channel']} {event.get('user_id', '')} {key}\n")


@app.post("/publish/<channel>/<text>")
def publish(channel: str, text: str) -> Any:
    pusher.defer(channel, "told", text)
    return "", 204


@app.get("/npm/<path:file>")
def npm(file: str) -> Response:
    return send_from_directory(os.environ["PACKAGES"], file)


@app.get("/page.html/as/<user>")
def page(user: str) -> str:
    session["user"] = user
    return render_template("page.html")

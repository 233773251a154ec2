"""A chat: what is said is kept by the server, and Turbo sends what is written."""

from __future__ import annotations

from flask import Flask, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from flask_pusher import Pusher

app = Flask(__name__)
app.config.from_object("settings")
app.config.from_prefixed_env()
pusher = Pusher(app)
said: dict[str, list[tuple[str, str]]] = {"lobby": [], "garden": []}


@pusher.auth("private-room-<room>")
def may_listen(channel_name: str, socket_id: str, room: str) -> bool:
    return "user" in session and room in said


@app.get("/")
def index() -> ResponseReturnValue:
    session["user"] = request.args.get("user", "ana")  # in place of a login
    return redirect(url_for("show_room", room="lobby"))


@app.get("/rooms/<any(lobby, garden):room>")
def show_room(room: str) -> str:
    return render_template("chat.html", rooms=list(said), room=room, messages=said[room])


@app.post("/rooms/<any(lobby, garden):room>")
def say(room: str) -> ResponseReturnValue:
    said[room].append((session["user"], request.form["text"]))
    # The page that said it shows the answer, and is spared the event.
    pusher.defer(f"private-room-{room}", "said", {}, pusher.socket_id)
    return redirect(url_for("show_room", room=room))

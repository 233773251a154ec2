"""Who is here: the members of a presence channel, of which the application keeps nothing."""

from __future__ import annotations

from flask import Flask, redirect, render_template, session, url_for
from flask.typing import ResponseReturnValue

from flask_pusher import Pusher

app = Flask(__name__)
app.config.from_object("settings")
app.config.from_prefixed_env()
pusher = Pusher(app)


@pusher.auth("presence-document-<int:number>")
def may_open(channel_name: str, socket_id: str, number: int) -> bool:
    return "user" in session


@pusher.channel_data("presence-document-<int:number>")
def member(channel_name: str, socket_id: str, number: int) -> dict[str, str]:
    user = session["user"]
    avatar = url_for("static", filename="avatar.svg", _external=True)
    return {"user_id": user.lower(), "name": user, "avatar": avatar}


@app.get("/as/<user>")
def log_in(user: str) -> ResponseReturnValue:
    session["user"] = user  # in place of a login
    return redirect(url_for("show_document", number=7))


@app.get("/documents/<int:number>")
def show_document(number: int) -> str:
    return render_template("here.html", number=number)

"""Notices to one user, on all their pages, with HTMX for what they click."""

from __future__ import annotations

from collections import defaultdict

from flask import Flask, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from flask_pusher import Pusher

app = Flask(__name__)
app.config.from_object("settings")
app.config.from_prefixed_env()
pusher = Pusher(app)
notices: defaultdict[str, list[str]] = defaultdict(list)


@pusher.user_auth
def who_is_it(socket_id: str) -> dict[str, str] | None:
    return {"id": session["user"]} if "user" in session else None


@app.get("/as/<user>")
def log_in(user: str) -> ResponseReturnValue:
    session["user"] = user  # in place of a login
    return redirect(url_for("index"))


@app.get("/")
def index() -> str:
    user = session.get("user", "")
    return render_template("notices.html", user=user, notices=notices[user])


@app.post("/notices")
def send_notice() -> ResponseReturnValue:
    to = request.form["to"]
    notices[to].append(request.form["text"])
    pusher.defer(pusher.user(to), "notice", {})
    return redirect(url_for("index"))


@app.delete("/notices")
def read_notices() -> str:
    notices[session["user"]].clear()
    pusher.defer(pusher.user(session["user"]), "notice", {}, pusher.socket_id)
    return index()

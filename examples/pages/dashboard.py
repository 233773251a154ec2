"""A dashboard: each tile has a view of its own, and is fetched for its own events alone."""

from __future__ import annotations

from flask import Flask, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from flask_pusher import Pusher

app = Flask(__name__)
app.config.from_object("settings")
app.config.from_prefixed_env()
pusher = Pusher(app)
numbers = {"sales": 0, "visits": 0, "faults": 0}


@app.get("/")
def show_dashboard() -> str:
    return render_template("dashboard.html", numbers=numbers)


@app.get("/tiles/<any(sales, visits, faults):tile>")
def show_tile(tile: str) -> str:
    return f"<b>{numbers[tile]}</b> {tile}"


@app.post("/count")
def count() -> ResponseReturnValue:
    tile = request.form["tile"]
    numbers[tile] += 1
    pusher.defer("dashboard", tile, {})
    return redirect(url_for("show_dashboard"))

"""Orders, which a shop's people see change: a table, kept up to date by its view."""

from __future__ import annotations

from flask import Flask, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from flask_pusher import Pusher

app = Flask(__name__)
app.config.from_object("settings")
app.config.from_prefixed_env()
pusher = Pusher(app)
orders = {1: "paid", 2: "paid", 3: "shipped"}  # in a database, for more than one process


@pusher.auth("private-orders")
def may_see_orders(channel_name: str, socket_id: str) -> bool:
    return "user" in session


@app.get("/")
def show_orders() -> str:
    session.setdefault("user", "ana")  # in place of a login
    return render_template("orders.html", orders=orders)


@app.post("/orders")
def add_order() -> ResponseReturnValue:
    orders[len(orders) + 1] = "paid"
    pusher.defer("private-orders", "added", {})
    return redirect(url_for("show_orders"))


@app.post("/orders/<int:number>")
def change_order(number: int) -> ResponseReturnValue:
    orders[number] = request.form["state"]
    pusher.defer("private-orders", "changed", {"order": number})
    return redirect(url_for("show_orders"))

"""The views: what is fetched, and the event that says when to fetch it again."""

from __future__ import annotations

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from flask_pusher import Pusher

pusher = Pusher()
shop = Blueprint("shop", __name__, template_folder=".")
orders = {"coffee": "ordered", "tea": "ordered"}  # in a database, for more than one process


@shop.put("/orders/<name>")
def change_order(name: str) -> ResponseReturnValue:
    orders[name] = request.form["state"]
    pusher.defer("orders", "changed", {})  # when the change is saved, and only then
    return "", 204


@shop.get("/orders.json")
def orders_as_json() -> ResponseReturnValue:
    return orders


@shop.get("/orders")
def orders_as_fragment() -> str:
    return render_template("catching_up_orders.html", orders=orders)


@shop.get("/")
def show_page() -> str:
    return render_template("catching_up_htmx.html", orders=orders)

"""An application whose pages show orders. No page has JavaScript, and no view publishes: the model
says who hears of a row. Its settings are FLASK_*."""

from __future__ import annotations

from typing import Any

from flask import Flask, redirect, render_template_string, session
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_pusher import Pusher


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)
pusher = Pusher()
pusher.follow(db.session)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Orders</title>
<link rel="icon" href="data:,">{{ pusher_scripts() }}</head><body>
<ul id="orders" data-pusher="{{ channel }}" data-pusher-src="">
  {% for order in orders %}
  <li>Order {{ order.id }} of {{ order.user }} is {{ order.state }}.</li>
  {% endfor %}
</ul>
<form method="post" action="{{ url_for("pay") }}"><button>Pay</button></form>
</body></html>
"""


class Order(db.Model):  # type: ignore[name-defined, misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped[str]
    state: Mapped[str]


@pusher.broadcasts(Order)
def channels_of(order: Order) -> list[str]:
    return ["private-orders", f"private-user-{order.user}"]


@pusher.auth
def may_listen(channel_name: str, socket_id: str) -> bool:
    return channel_name in ("private-orders", f"private-user-{session['user']}")


def create_app(**settings: Any) -> Flask:
    app = Flask(__name__)
    app.config.from_prefixed_env()
    app.config.update(settings)
    db.init_app(app)
    pusher.init_app(app)

    @app.get("/orders")
    def all_orders() -> str:
        session["user"] = "staff"
        orders = db.session.scalars(db.select(Order).order_by(Order.id))
        return render_template_string(PAGE, orders=orders, channel="private-orders")

    @app.get("/orders/of/<user>")
    def my_orders(user: str) -> str:
        session["user"] = user
        orders = db.session.scalars(db.select(Order).filter_by(user=user).order_by(Order.id))
        return render_template_string(PAGE, orders=orders, channel=f"private-user-{user}")

    @app.post("/orders/pay")
    def pay() -> ResponseReturnValue:
        for order in db.session.scalars(db.select(Order)):
            order.state = "paid"
        db.session.commit()
        return redirect("/orders")

    return app

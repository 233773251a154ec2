"""A program each marked line of which is wrong, and none beside: type checkers must find these."""
# pyright: strict

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from flask import Flask

import flask_pusher
from flask_pusher import Client, LocalServer, Pusher, RecordedEvent, local_server, publish_failed

app = Flask(__name__)

print(flask_pusher.no_such_name)  # wrong
Pusher("shop")  # wrong
Pusher(app, prefix="/realtime")  # wrong
Pusher(app, url_prefix=None)  # wrong

pusher = Pusher(app)
pusher.init_app(None)  # wrong
pusher.no_such_method()  # wrong
pusher.trigger_batch([])  # wrong


# Who may subscribe.


@pusher.auth  # wrong
def takes_no_socket_id(channel_name: str) -> bool:
    return True


@pusher.auth  # wrong
def takes_too_much(channel_name: str, socket_id: str, order_id: int) -> bool:
    return True


@pusher.auth  # wrong
def takes_numbers(channel_name: int, socket_id: int) -> bool:
    return True


@pusher.auth  # wrong
def forgets_to_return(channel_name: str, socket_id: str) -> None:
    print(channel_name)


@pusher.auth  # wrong
def returns_text(channel_name: str, socket_id: str) -> str:
    return "yes"


@pusher.auth  # wrong
async def forgets_to_return_soon(channel_name: str, socket_id: str) -> None:
    print(channel_name)


@pusher.auth  # wrong
def asks_and_is_told(channel_name: str, socket_id: str) -> Iterator[bool]:
    yield True


@pusher.auth  # wrong
async def asks_and_is_told_soon(channel_name: str, socket_id: str) -> AsyncIterator[bool]:
    yield True


@pusher.auth("private-order-<int:order_id>")  # wrong
def takes_only_the_variable(order_id: int) -> bool:
    return True


@pusher.auth("private-order-<int:order_id>")  # wrong
def takes_a_number_for_a_name(channel_name: int, socket_id: str, order_id: int) -> bool:
    return True


@pusher.auth("private-order-<int:order_id>")  # wrong
def returns_nothing(channel_name: str, socket_id: str, order_id: int) -> None:
    print(order_id)


@pusher.auth("private-order-<int:order_id>")
def may_follow_order(channel_name: str, socket_id: str, order_id: int) -> bool:
    return True


class Shop:
    def may_follow(self, channel_name: str, socket_id: str) -> bool:
        return True


may_follow_order("private-order-1", "1.2", "1")  # wrong
pusher.auth(Shop.may_follow)  # wrong
pusher.auth(7)  # wrong
pusher.auth()  # wrong
pusher.auth(lambda channel_name: True)  # wrong
pusher.auth(lambda channel_name, socket_id: "yes")  # wrong
pusher.auth("private-shop", may_follow_order)  # wrong
pusher.auth("private-shop")("private-order")  # wrong
pusher.auth(pusher.auth)  # wrong


# Presence data, and users who sign in.


@pusher.channel_data  # wrong
def is_no_data(channel_name: str, socket_id: str) -> bool:
    return True


@pusher.channel_data  # wrong
def takes_no_socket(channel_name: str) -> dict[str, str]:
    return {}


@pusher.channel_data("presence-room-<room>")  # wrong
def takes_the_room_only(room: str) -> dict[str, str]:
    return {"room": room}


@pusher.channel_data("presence-room-<room>")  # wrong
async def is_a_list(channel_name: str, socket_id: str, room: str) -> list[str]:
    return [room]


@pusher.user_auth  # wrong
def takes_a_channel(channel_name: str, socket_id: str) -> dict[str, str]:
    return {"id": "7"}


@pusher.channel_data  # wrong
def is_text(channel_name: str, socket_id: str) -> tuple[str, str]:
    return "name", "Ana"


@pusher.user_auth  # wrong
async def is_an_id_soon(socket_id: str) -> str:
    return "7"


@pusher.user_auth  # wrong
def is_an_id(socket_id: str) -> str:
    return "7"


pusher.user_auth("user")  # wrong
pusher.channel_data(None)  # wrong


# Webhooks.


@pusher.webhooks.presence  # wrong
def takes_an_event(event: dict[str, Any]) -> None:
    print(event)


@pusher.webhooks.event("member_added")  # wrong
def takes_nothing() -> None:
    pass


@pusher.webhooks.event("member_added")  # wrong
def takes_more_than_an_event(event: dict[str, Any], more: int) -> None:
    print(event)


@pusher.webhooks.event("member_added")  # wrong
def takes_text(event: str) -> None:
    print(event)


@pusher.webhooks.event("member_added", "presence-<int:room>")  # wrong
def takes_the_variable_only(room: int) -> None:
    print(room)


@pusher.webhooks.event("member_added", "presence-<int:room>")
def joined(event: dict[str, Any], room: int) -> None:
    print(event, room)


joined({}, "7")  # wrong
pusher.webhooks.event("member_added", 7)  # wrong
pusher.webhooks.event("member_added", "presence-<x>", joined)  # wrong


@pusher.auth  # wrong
def returns_a_dict(channel_name: str, socket_id: str) -> dict[str, bool]:
    return {"ok": True}


@pusher.auth  # wrong
def returns_a_reason(channel_name: str, socket_id: str) -> tuple[bool, str]:
    return True, "why"


@pusher.webhooks.event  # wrong
def has_no_name(event: dict[str, Any]) -> None:
    print(event)


pusher.webhooks.member_added(takes_nothing)  # wrong
pusher.webhooks.client("client_event")  # wrong


# Publishing.

pusher.trigger("news", "posted")  # wrong
pusher.trigger(7, "posted", {})  # wrong
pusher.trigger("news", "posted", {}, socket=None)  # wrong
pusher.trigger("news", "posted", {}, info=7)  # wrong
pusher.trigger("news", "posted", {}, info=["user_count"], wait=False)  # wrong
pusher.trigger("news", "posted", {}, wait=False)["channels"]  # wrong
pusher.user(None)  # wrong
pusher.defer("news", 7, {})  # wrong
pusher.defer("news", "posted", {}, socket_id=1.2)  # wrong
pusher.defer("news", "posted", {}, info=["user_count"])  # wrong
pusher.publish("calls")  # wrong
pusher.publish([("news", "posted")])  # wrong
pusher.follow()  # wrong


class Order:
    user_id: int


@pusher.broadcasts(Order)  # wrong
def takes_an_id(order_id: int) -> str:
    return f"private-order-{order_id}"


@pusher.broadcasts(Order)  # wrong
def takes_nothing_of_the_row() -> str:
    return "private-orders"


@pusher.broadcasts(Order)  # wrong
def names_nobody(order: Order) -> None:
    print(order.user_id)


@pusher.broadcasts(Order)  # wrong
def gives_ids(order: Order) -> list[int]:
    return [order.user_id]


@pusher.broadcasts(Order)  # wrong
async def names_them_soon(order: Order) -> list[str]:
    return ["private-orders"]


@pusher.broadcasts  # wrong
def has_no_model(order: Order) -> str:
    return "private-orders"


pusher.broadcasts(Order())  # wrong
pusher.broadcasts("Order")  # wrong
pusher.broadcasts(Order, event_name=7)  # wrong
pusher.no_broadcasts(Order)  # wrong


@pusher.hand_over  # wrong
def takes_no_calls() -> None:
    pass


@pusher.hand_over  # wrong
def takes_one_call(call: dict[str, Any]) -> None:
    print(call)


Client()  # wrong
Client("1", "key", "secret", max_event_bytes="10240")  # wrong
Client.from_url()  # wrong
client: Client = pusher.client
client.triger("news", "posted", {})  # wrong
client.trigger("news", "posted", {}, to="1.2")  # wrong
client.trigger(["news", 7], "posted", {})  # wrong
client.trigger_batch({"channel": "news", "name": "posted", "data": 1})  # wrong
client.trigger_batch(["news"])  # wrong
client.send_to_user("7", "paid")  # wrong
client.send_to_user(b"7", "paid", {})  # wrong
client.send_to_user(None, "paid", {})  # wrong
client.terminate_user_connections()  # wrong
client.terminate_user_connections(7.5)  # wrong
client.channels_info(attributes=7)  # wrong
client.channel_info()  # wrong
client.channel_info("news", attribute=["user_count"])  # wrong
client.users_info(7)  # wrong
client.authenticate("private-news")  # wrong
client.authenticate("private-news", 1.2)  # wrong
client.authenticate("presence-news", "1.2", "data")  # wrong
client.authenticate_user(7, {"id": "7"})  # wrong
client.authenticate_user("1.2", "7")  # wrong
client.validate_webhook("key", "signature")  # wrong
client.key.no_such_method()  # wrong


def assign(pusher: Pusher, client: Client, server: LocalServer) -> None:
    pusher.client = client  # wrong
    pusher.socket_id = "1.2"  # wrong
    client.app_id = "1"  # wrong
    client.key = "key"  # wrong
    client.secret = "secret"  # wrong
    client.host = "other"  # wrong
    client.port = 443  # wrong
    client.path = "/channels"  # wrong
    client.scheme = "http"  # wrong
    client.ssl = True  # wrong
    client.timeout = 30  # wrong
    client.http = None  # wrong
    client.address = "127.0.0.1:6001"  # wrong
    server.url = "http://127.0.0.1:6001"  # wrong


# Tests of an application.

publish_failed.conect(print)  # wrong
pusher.sign_webhook({"events": []})  # wrong
pusher.record_events(["news"])  # wrong
pusher.record_events(channels={"news": "many"})  # wrong
RecordedEvent("news")  # wrong
local_server()  # wrong
local_server("app")  # wrong
local_server(app, port="6001")  # wrong
local_server(app, timeout=5)  # wrong

with pusher.record_events() as events:
    print(events[0].title)  # wrong
    events.pop().name.no_such_method()  # wrong


def wait(server: LocalServer) -> None:
    server.wait_for()  # wrong
    server.wait_for("news", subscribers="one")  # wrong
    server.no_such_method()  # wrong
    server.disconnect(code="4200")  # wrong

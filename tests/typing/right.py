"""A program that uses all of Flask-Pusher rightly: no type checker may find a fault in it."""
# pyright: strict

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from enum import Enum
from functools import partial
from typing import Any, TypedDict
from uuid import UUID

from flask import Blueprint, Flask, Response, abort, current_app, request
from typing_extensions import assert_type

from flask_pusher import (
    Client,
    LocalServer,
    NoAnswer,
    Pusher,
    PusherError,
    RecordedEvent,
    Webhooks,
    local_server,
    publish_failed,
    published,
)

app = Flask(__name__)
pusher = Pusher(app, url_prefix="/realtime")
later = Pusher()
later.init_app(app)

assert_type(pusher.client, Client)
assert_type(Client.from_url("https://key:secret@api-eu.pusher.com/apps/1", timeout=3), Client)
assert_type(Client.from_env(), Client)
Client("1", "key", "secret", cluster="eu", max_event_bytes=None, path="/channels")
assert_type(pusher.blueprint, Blueprint)
assert_type(pusher.socket_id, "str | None")
assert_type(pusher.webhooks, Webhooks)


# Who may subscribe: without a pattern and with one, a function and a coroutine function.


@pusher.auth
def may_follow(channel_name: str, socket_id: str) -> bool:
    return channel_name == "private-shop"


@pusher.auth
async def may_follow_soon(channel_name: str, socket_id: str) -> bool:
    return channel_name == "private-shop"


@pusher.auth("private-order-<int:order_id>")
def may_follow_order(channel_name: str, socket_id: str, order_id: int) -> bool:
    return order_id == 1


@pusher.auth("private-shop-<shop>-<int:order_id>")
async def may_follow_in_shop(
    channel_name: str, socket_id: str, *, shop: str, order_id: int
) -> bool:
    return shop == "main" and order_id == 1


@pusher.auth("private-any-<path:rest>")
def may_follow_any(channel_name: str, socket_id: str, **variables: Any) -> bool:
    return bool(variables["rest"])


@pusher.auth("private-everywhere-<name>")
def may_follow_by_any_name(*arguments: str, **variables: str) -> bool:
    return "name" in variables


@pusher.auth("private-signed-in")
def may_follow_signed_in(channel_name: str, socket_id: str) -> bool | tuple[str, int]:
    return True if request.authorization else ("Sign in first.", 401)


@pusher.auth("private-member")
async def may_follow_as_member(channel_name: str, socket_id: str) -> bool | Response:
    return Response(status=402)


@pusher.auth("private-nobody")
def nobody(channel_name: str, socket_id: str) -> bool:
    abort(410)


# The decorators return what they were given.
assert_type(may_follow(channel_name="private-shop", socket_id="1.2"), bool)
assert_type(may_follow_order("private-order-1", "1.2", 1), bool)


class Shop:
    """Methods of an object are handlers as well, and so is an object that can be called."""

    def may_follow(self, channel_name: str, socket_id: str) -> bool:
        return True

    async def may_follow_order(self, channel_name: str, socket_id: str, order_id: int) -> bool:
        return True

    @staticmethod
    def member(channel_name: str, socket_id: str) -> dict[str, str]:
        return {"user_id": socket_id, "of": channel_name}

    @classmethod
    def user(cls, socket_id: str) -> dict[str, str]:
        return {"id": socket_id}

    def __call__(self, channel_name: str, socket_id: str) -> bool:
        return True

    def happened(self) -> None:
        pass

    def arrived(self, event: dict[str, Any]) -> None:
        pass


shop = Shop()
pusher.auth(shop)
pusher.auth(shop.may_follow)
pusher.auth("private-<int:order_id>")(shop.may_follow_order)
pusher.channel_data(Shop.member)
pusher.user_auth(Shop.user)
pusher.webhooks.presence(shop.happened)
pusher.webhooks.event("member_added")(shop.arrived)

# What a lambda takes is known to pyright by a type that is declared.
allow: Callable[[str, str], bool] = lambda channel_name, socket_id: channel_name == "private-shop"
allow_order: Callable[[str, str, int], bool] = lambda channel_name, socket_id, order_id: True
describe: Callable[[str, str], dict[str, str]] = lambda channel_name, socket_id: {"user_id": "7"}
identify: Callable[[str], dict[str, str]] = lambda socket_id: {"id": "7"}
see: Callable[[dict[str, Any]], None] = lambda event: print(event["channel"])
pusher.auth(allow)
pusher.auth("private-a-<int:order_id>")(allow_order)
pusher.channel_data(describe)
pusher.user_auth(identify)
pusher.webhooks.cache(lambda: None)
pusher.webhooks.event("cache_miss")(see)


def may_follow_as(role: str, channel_name: str, socket_id: str, **variables: Any) -> bool:
    return role == "admin"


pusher.auth(partial(may_follow_as, "admin"))
pusher.auth("private-b-<int:order_id>")(partial(may_follow_as, "admin"))


def signed_in(
    handler: Callable[[str, str], bool | Awaitable[bool]],
) -> Callable[[str, str], bool | Awaitable[bool]]:
    return handler


@pusher.auth
@signed_in
def may_follow_signed(channel_name: str, socket_id: str) -> bool:
    return True


# Presence data, and users who sign in.


@pusher.channel_data
def member(channel_name: str, socket_id: str) -> dict[str, object]:
    return {"user_id": 7, "name": "Ana"}


@pusher.channel_data("presence-room-<room>")
async def member_of_room(channel_name: str, socket_id: str, room: str) -> Mapping[str, Any] | None:
    return {"user_id": 7, "user_info": {"name": "Ana", "room": room}} if room else None


@pusher.channel_data("presence-list")
def member_of_list(channel_name: str, socket_id: str) -> dict[str, str] | tuple[str, int]:
    return "Nobody is signed in.", 401


class Channel(str, Enum):
    NEWS = "news"


class User(TypedDict):
    id: int
    watchlist: list[str]


@pusher.user_auth
def user(socket_id: str) -> dict[str, Any] | None:
    return {"id": 7, "user_info": {"name": "Ana"}, "watchlist": [8, 9]}


@later.user_auth
async def user_soon(socket_id: str) -> User | Response:
    return User(id=7, watchlist=["8"]) if socket_id else Response(status=401)


assert_type(member("presence-shop", "1.2"), "dict[str, object]")
assert_type(user("1.2"), "dict[str, Any] | None")


# Webhooks: what a handler of theirs returns is not looked at.


@pusher.webhooks.channel_existence
def existence() -> None:
    print(request.json)


@pusher.webhooks.presence
async def presence() -> None:
    print(request.json)


@pusher.webhooks.client
def client_event() -> str:
    return "seen"


@pusher.webhooks.cache
def cache_miss() -> None:
    pass


@pusher.webhooks.subscription_count
def counted() -> None:
    pass


@pusher.webhooks.event("member_added")
def added(event: dict[str, Any]) -> None:
    print(event["user_id"])


@pusher.webhooks.event("member_removed")
async def removed(event: Mapping[str, object]) -> int:
    return len(event)


@pusher.webhooks.event("member_added", "presence-board-<int:board_id>")
def joined(event: dict[str, Any], board_id: int) -> None:
    print(event["user_id"], board_id)


@pusher.webhooks.event("member_removed", "presence-<room>")
async def left(event: Mapping[str, object], *, room: str) -> tuple[str, int]:
    return room, 503


assert_type(added({}), None)
assert_type(joined({}, 7), None)
assert_type(client_event(), str)


# Publishing, now and when the request has succeeded.


def publish() -> None:
    client = pusher.client
    pusher.trigger("news", "posted", {"title": "Hello"})
    pusher.trigger(["news", "sport"], "posted", "text", socket_id=pusher.socket_id)
    pusher.trigger({"news"}, "posted", [1, 2], "1.2", info=["subscription_count"])
    pusher.trigger("news", "posted", {"title": "Hello"}, pusher.socket_id, wait=False)
    pusher.trigger("news", "posted", {"title": "Hello"}, info=None, wait=False)
    pusher.trigger(assert_type(pusher.user(7), str), "notice", {}, wait=True)
    pusher.defer([pusher.user("ana"), pusher.user(UUID(int=1)), "news"], "notice", {})
    pusher.defer("news", "posted", {"title": "Hello"})
    pusher.defer(("news", "sport"), "posted", None, socket_id=pusher.socket_id)

    client.trigger("news", "posted", {"title": "Hello"}, socket_id="1.2", info=("user_count",))
    client.trigger_batch([{"channel": "news", "name": "posted", "data": 1}])
    client.trigger_batch(
        ({"channel": name, "name": "posted", "data": "{}"} for name in "ab"), already_encoded=True
    )
    client.send_to_user(7, "paid", {"order": 1})
    client.send_to_user("7", "paid", {"order": 1})
    client.terminate_user_connections(7)
    client.terminate_user_connections("7")
    client.send_to_user(UUID(int=7), "paid", {"order": 1})
    client.terminate_user_connections(UUID(int=7))
    client.trigger([Channel.NEWS, "sport"], "posted", {"title": "Hello"})
    client.channels_info(prefix_filter="presence-", attributes=["user_count"])
    client.channel_info("presence-room", attributes=("user_count", "subscription_count"))
    client.users_info("presence-room")
    client.validate_webhook("key", "signature", "body")
    given = request.headers
    client.validate_webhook(
        given.get("X-Pusher-Key"), given.get("X-Pusher-Signature"), request.data
    )
    client.channels_info("presence-", None)
    print(client.channels_info()["channels"])
    signed = client.authenticate("presence-room", "1.2", {"user_id": "7"})
    assert_type(signed, "dict[str, str]")
    assert_type(client.authenticate("private-room", "1.2")["auth"], str)
    assert_type(client.authenticate_user("1.2", {"id": "7"}), "dict[str, str]")

    assert_type(client.app_id, str)
    assert_type(client.key, str)
    assert_type(client.secret, str)
    assert_type(client.host, str)
    assert_type(client.port, int)
    assert_type(client.path, str)
    assert_type(client.scheme, str)
    assert_type(client.ssl, bool)
    assert_type(client.timeout, float)
    assert_type(client.address, "tuple[str, int, bool]")
    client.address = ("127.0.0.1", 6001, False)

    kept: Client = current_app.extensions["pusher"]
    kept.trigger("news", "posted", {})


async def publish_soon() -> None:
    await pusher.client.trigger("news", "posted", {})


def careful() -> bool:
    try:
        pusher.trigger("news", "posted", {})
    except NoAnswer as error:
        return assert_type(error.timed_out, bool)
    except PusherError as error:
        print(error)
    return True


@pusher.hand_over
def enqueue(calls: list[dict[str, Any]]) -> None:
    pusher.publish(calls)


@later.hand_over
def enqueue_in_words(calls: list[dict[str, object]]) -> int:
    return len(calls)


def tell(sender: Flask, **details: Any) -> None:
    print(details["error"])


publish_failed.connect(tell)
publish_failed.connect(tell, sender=app)
published.connect(tell)
pusher.follow(object())


# Models that tell pages of their changes: the function is given a row of the model.


class Order:
    user_id: int


class GiftOrder(Order):
    pass


@pusher.broadcasts(Order)
def channels_of_order(order: Order) -> list[str]:
    return ["private-orders", f"private-user-{order.user_id}"]


@pusher.broadcasts(GiftOrder, event_name="given")
def channel_of_gift(order: Order) -> str:
    return pusher.user(order.user_id)


@later.broadcasts(Order)
def channels_in_turn(order: Order) -> Iterator[str]:
    yield "private-orders"


pusher.broadcasts(Order)(lambda order: f"private-user-{order.user_id}")
assert_type(channels_of_order(Order()), list[str])
assert_type(channel_of_gift(GiftOrder()), str)

with pusher.no_broadcasts():
    pass


# Tests of an application.


def test_recording() -> None:
    with pusher.record_events() as events:
        publish()
    assert_type(events, list[RecordedEvent])
    event = events[0]
    assert_type(event.channels, list[str])
    assert_type(event.name, str)
    assert_type(event.socket_id, "str | None")
    channels, name, data, socket_id = event
    print(channels, name, data, socket_id)
    with pusher.record_events(channels={"news": 3, "presence-room": ["ana", "ben"]}) as events:
        publish()
    with pusher.record_events(channels={"news": 3}):
        publish()


def test_webhook() -> None:
    headers = pusher.sign_webhook('{"events": []}')
    assert_type(headers, "dict[str, str]")
    app.test_client().post("/realtime/events", data=b"{}", headers=pusher.sign_webhook(b"{}"))


def channels() -> Iterator[LocalServer]:
    with local_server(app) as server:
        yield server
    hooks = [{"url": "http://127.0.0.1:5000", "event_types": ["member_added"], "batch": False}]
    with local_server(app, "127.0.0.1", 6001, webhooks=hooks, activity_timeout=0.5) as server:
        yield server


def test_local_server(server: LocalServer) -> None:
    assert_type(server.host, str)
    assert_type(server.port, int)
    assert_type(server.url, str)
    server.wait_for("private-orders", subscribers=2, timeout=5)
    server.wait_for("private-orders")
    print(server.channels["private-orders"], len(server.connections))
    server.advance(seconds=1.5)
    server.disconnect(code=4200)
    server.stop()


def test_context_manager() -> None:
    manager: AbstractContextManager[list[RecordedEvent]] = pusher.record_events()
    with manager:
        pass

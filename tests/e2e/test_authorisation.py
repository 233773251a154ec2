"""Pages join the channels that the application's handlers grant them."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, abort, request, session

from flask_pusher import Pusher

from .conftest import NewName, OpenPage

REFUSED = {"type": "AuthError", "status": 403}


def without_text(error: dict[str, Any]) -> dict[str, Any]:
    """What pusher-js tells of a refused subscription, but for its words."""
    return {key: error[key] for key in error if key != "error"}


def test_a_private_channel_is_joined_by_whom_the_handler_accepts(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    orders = new_name("private-orders")

    @pusher.auth
    def may_follow(channel_name: str, socket_id: str) -> bool:
        return channel_name == orders and session.get("user") == "ana"

    page = open_page("/page.html/as/ana")
    stranger = open_page("/page.html/as/ben")
    page.subscribe(orders)
    stranger.subscribe(orders)
    pusher.client.trigger(orders, "shipped", {"by": "truck"})

    assert page.event(orders, "shipped") == {"by": "truck"}
    assert without_text(stranger.event(orders, "pusher:subscription_error")) == REFUSED
    assert not stranger.has_joined(orders)
    assert stranger.events(orders) == []


def test_a_handler_refuses_with_a_status_of_its_own(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    @pusher.auth
    def may_follow(channel_name: str, socket_id: str) -> bool:
        abort(451)

    orders = new_name("private-orders")
    page = open_page()
    page.subscribe(orders)

    assert page.event(orders, "pusher:subscription_error")["status"] == 451


def test_without_a_handler_nobody_joins(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    orders, room = new_name("private-orders"), new_name("presence-room")
    page = open_page()
    page.subscribe(orders, room)

    for channel in (orders, room):
        assert without_text(page.event(channel, "pusher:subscription_error")) == REFUSED


def test_a_member_of_a_presence_channel_is_its_socket_unless_told_otherwise(
    server: str, pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    room = new_name("presence-room")
    page = open_page()
    page.subscribe(room)

    members = page.event(room, "pusher:subscription_succeeded")
    # soketi leaves a member without info out of what pusher-js looks for itself in.
    assert members["me"] == (None if server == "soketi" else {"id": page.socket_id, "info": None})
    assert members["count"] == 1


def test_members_see_the_id_and_the_values_that_each_other_were_given(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    people: dict[str, dict[str, Any]] = {
        "ana": {"user_id": 7, "name": "Ana"},
        "ben": {"user_id": "b", "user_info": {"name": "Ben"}, "unseen": True},
    }
    pusher.channel_data(lambda channel_name, socket_id: people[session["user"]])
    room = new_name("presence-room")

    ana = open_page("/page.html/as/ana")
    ana.subscribe(room)
    ben = open_page("/page.html/as/ben")
    ben.subscribe(room)

    added = ana.event(room, "pusher:member_added")
    assert added == {"id": "b", "info": {"name": "Ben"}}
    members = ben.event(room, "pusher:subscription_succeeded")
    assert members["me"] == {"id": "b", "info": {"name": "Ben"}}
    assert members["members"] == {"7": {"name": "Ana"}, "b": {"name": "Ben"}}

    ben.close()
    assert ana.event(room, "pusher:member_removed") == {"id": "b", "info": {"name": "Ben"}}


def test_patterns_choose_the_handler(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    asked = []

    @pusher.auth
    def any_other(channel_name: str, socket_id: str) -> bool:
        asked.append(channel_name)
        return False

    @pusher.auth("private-order-<int:order_id>")
    def may_follow(channel_name: str, socket_id: str, order_id: int) -> bool:
        return order_id == 7

    page = open_page()
    page.subscribe("private-order-7", "private-order-8", "private-order-x")

    assert page.has_joined("private-order-7")
    for channel in ("private-order-8", "private-order-x"):
        assert without_text(page.event(channel, "pusher:subscription_error")) == REFUSED
    assert asked == ["private-order-x"]


def test_patterns_choose_the_presence_data(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    @pusher.auth("presence-room-<room>")
    def may_enter(channel_name: str, socket_id: str, room: str) -> bool:
        return True

    @pusher.channel_data("presence-room-<room>")
    def who(channel_name: str, socket_id: str, room: str) -> dict[str, Any]:
        return {"user_id": "ana", "seat": room.upper()}

    page = open_page()
    page.subscribe("presence-room-attic")

    members = page.event("presence-room-attic", "pusher:subscription_succeeded")
    assert members["me"] == {"id": "ana", "info": {"seat": "ATTIC"}}


@pytest.fixture
def bodies(app: Flask) -> list[str]:
    """The bodies that the application was posted, with their types."""
    bodies = []

    @app.before_request
    def remember() -> None:
        if request.method == "POST" and "/events" not in request.path:
            bodies.append(f"{request.mimetype} {request.get_data(as_text=True)}")

    return bodies


def test_a_batch_of_the_plugin_is_answered_channel_by_channel(
    bodies: list[str], pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    orders, closed = new_name("private-orders"), new_name("private-closed")
    room, hall = new_name("presence-room"), new_name("presence-hall")
    pusher.auth(lambda channel_name, socket_id: channel_name != closed)
    pusher.channel_data(lambda channel_name, socket_id: {"user_id": "ana", "in": channel_name})

    page = open_page("/batch.html")
    page.subscribe(orders, closed, room, hall)
    pusher.client.trigger(orders, "shipped", 1)

    assert page.event(orders, "shipped") == 1
    assert page.event(closed, "pusher:subscription_error") == {"type": "AuthError"}
    for channel in (room, hall):
        members = page.event(channel, "pusher:subscription_succeeded")
        assert members["me"] == {"id": "ana", "info": {"in": channel}}
    assert len(bodies) == 1


def test_an_authorisation_may_be_asked_for_in_json(
    bodies: list[str], pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: "closed" not in channel_name)
    orders, closed = new_name("private-orders"), new_name("private-closed")
    room = new_name("presence-room")

    page = open_page("/axios.html")
    page.subscribe(orders, closed, room)

    assert page.has_joined(orders)
    assert page.event(closed, "pusher:subscription_error")["error"].endswith("status code 403")
    assert page.event(room, "pusher:subscription_succeeded")["myID"] == page.socket_id
    assert {body.split(" ")[0] for body in bodies} == {"application/json"}


def test_laravel_echo_joins_private_and_presence_channels(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.channel_data(lambda channel_name, socket_id: {"user_id": 7, "name": "Ana"})
    order, room = new_name("order"), new_name("room")
    page = open_page("/echo.html")

    here = page.run(
        """([order, room]) => new Promise((resolve, reject) => {
            globalThis.shipped = new Promise((told) => echo.private(order).listen(".shipped", told));
            echo.private(order).error(reject);
            echo.private(order).subscribed(() => echo.join(room).here(resolve).error(reject));
        })""",
        [order, room],
    )
    pusher.client.trigger(f"private-{order}", "shipped", {"by": "truck"})

    assert here == [{"name": "Ana"}]
    assert page.run("shipped") == {"by": "truck"}

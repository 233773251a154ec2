"""What pusher-js does not show: the frames themselves, and a client written by others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pysher
import pytest
import requests
from flask import request

from flask_pusher import Pusher

from . import WAIT_SECONDS
from .conftest import NewName
from .connection import Connection
from .inbox import Inbox
from .servers import Site

Connect = Callable[..., Connection]


@pytest.fixture
def connect(pusher: Pusher) -> Iterator[Connect]:
    connections = []

    def connect(**options: Any) -> Connection:
        connections.append(Connection(pusher.client, **options))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.close()


@pytest.fixture
def join(pusher: Pusher, connect: Connect, site: Site) -> Callable[..., Connection]:
    """Connect and subscribe, as the application authorises it over HTTP."""
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.channel_data(
        lambda channel_name, socket_id: {"user_id": request.form["user"], "name": "A name"}
    )

    def join(channel: str, user: str) -> Connection:
        connection = connect()
        fields = {"socket_id": connection.established(), "channel_name": channel, "user": user}
        answer = requests.post(f"{site.url}/pusher/auth", data=fields, timeout=WAIT_SECONDS)
        connection.send("pusher:subscribe", {"channel": channel, **answer.json()})
        return connection

    return join


def test_a_connection_is_welcomed_and_its_pings_are_answered(connect: Connect) -> None:
    connection = connect()

    welcome = connection.frame()
    assert welcome["event"] == "pusher:connection_established"
    data = json.loads(welcome["data"])
    assert re.fullmatch("[0-9]+\\.[0-9]+", data["socket_id"])
    assert data["activity_timeout"] > 0

    connection.send("pusher:ping", {})
    assert connection.frame()["event"] == "pusher:pong"


def test_a_key_of_no_app_is_refused_for_good(connect: Connect) -> None:
    connection = connect(key="no-such-key")

    assert connection.frame_of("pusher:error")["data"]["code"] == 4001
    assert connection.close_code() == 4001


# soketi accepts any protocol version, and none.
@pytest.mark.parametrize("server", ["local"], indirect=True)
@pytest.mark.parametrize(
    ("query", "code"), [("protocol=x", 4006), ("protocol=999", 4007), ("", 4008)]
)
def test_a_version_that_the_server_does_not_speak_is_refused_for_good(
    connect: Connect, query: str, code: int
) -> None:
    connection = connect(query=query)

    assert connection.frame_of("pusher:error")["data"]["code"] == code
    assert connection.close_code() == code


def test_data_travels_as_text(pusher: Pusher, connect: Connect, new_name: NewName) -> None:
    news = new_name("news")
    connection = connect()
    connection.established()
    connection.send("pusher:subscribe", {"channel": news})
    connection.frame_of("pusher_internal:subscription_succeeded")

    pusher.client.trigger(news, "headline", {"n": 1})

    frame = connection.frame_of("headline")
    assert frame["channel"] == news
    assert json.loads(frame["data"]) == {"n": 1}


def test_nothing_comes_after_unsubscribing(
    pusher: Pusher, connect: Connect, new_name: NewName
) -> None:
    news, sport = new_name("news"), new_name("sport")
    connection = connect()
    connection.established()
    for channel in (news, sport):
        connection.send("pusher:subscribe", {"channel": channel})
        connection.frame_of("pusher_internal:subscription_succeeded")

    connection.send("pusher:unsubscribe", {"channel": news})
    connection.send("pusher:ping", {})
    connection.frame_of("pusher:pong")
    pusher.client.trigger([news, sport], "headline", {})

    assert connection.frame()["channel"] == sport


@pytest.mark.parametrize("kind", ["private-orders", "presence-room", "private-encrypted-diary"])
def test_a_signature_for_another_connection_is_refused(
    pusher: Pusher, connect: Connect, new_name: NewName, kind: str
) -> None:
    channel = new_name(kind)
    data = {"user_id": "ana"} if kind.startswith("presence-") else None
    connection = connect()
    connection.established()

    answer = pusher.client.authenticate(channel, "1.1", data)
    connection.send("pusher:subscribe", {"channel": channel, **answer})

    refusal = connection.frame_of("pusher:subscription_error")
    assert refusal["channel"] == channel
    assert (refusal["data"]["type"], refusal["data"]["status"]) == ("AuthError", 401)
    assert not pusher.client.channel_info(channel)["occupied"]


def test_a_user_is_added_once_and_removed_with_the_last_connection(
    join: Callable[..., Connection], new_name: NewName
) -> None:
    room = new_name("presence-room")
    watcher = join(room, "watcher")
    joined = watcher.frame_of("pusher_internal:subscription_succeeded")
    assert json.loads(joined["data"]) == {
        "presence": {"ids": ["watcher"], "hash": {"watcher": {"name": "A name"}}, "count": 1}
    }

    ana, ana_again = join(room, "ana"), join(room, "ana")
    ana_again.frame_of("pusher_internal:subscription_succeeded")
    ana.close()
    ben = join(room, "ben")
    ben.frame_of("pusher_internal:subscription_succeeded")
    ana_again.close()

    news = [watcher.frame() for _ in range(3)]
    assert [(one["event"], json.loads(one["data"])["user_id"]) for one in news] == [
        ("pusher_internal:member_added", "ana"),
        ("pusher_internal:member_added", "ben"),
        ("pusher_internal:member_removed", "ana"),
    ]


def test_a_client_event_names_its_user_on_a_presence_channel(
    join: Callable[..., Connection], new_name: NewName
) -> None:
    room = new_name("presence-room")
    ana, ben = join(room, "ana"), join(room, "ben")
    for connection in (ana, ben):
        connection.frame_of("pusher_internal:subscription_succeeded")

    ben.send("client-typing", {"n": 1}, channel=room)

    assert ana.frame_of("client-typing")["user_id"] == "ben"


# soketi passes them on, and is silent about those on channels that the sender is not on.
@pytest.mark.parametrize("server", ["local"], indirect=True)
def test_a_client_event_on_a_public_channel_is_refused(
    connect: Connect, new_name: NewName
) -> None:
    news = new_name("news")
    connection = connect()
    connection.established()
    connection.send("pusher:subscribe", {"channel": news})

    connection.send("client-typing", {}, channel=news)

    assert connection.frame_of("pusher:error")["data"]["code"] == 4301


def test_a_client_written_by_others_subscribes_and_receives(
    pusher: Pusher, site: Site, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    news, orders = new_name("news"), new_name("private-orders")
    received = Inbox()
    host, port, _ = pusher.client.address
    client = pysher.Pusher(
        pusher.client.key,
        custom_host=host,
        port=port,
        secure=False,
        auth_endpoint=f"{site.url}/pusher/auth",
    )

    def keep(data: str, channel: str, event: str) -> None:
        received.put({"channel": channel, "event": event, "data": data})

    def subscribe(_: str) -> None:
        for name in (news, orders):
            channel = client.subscribe(name)
            for event in ("pusher_internal:subscription_succeeded", "headline"):
                channel.bind(event, keep, name, event)

    client.connection.bind("pusher:connection_established", subscribe)
    client.connect()
    try:
        for name in (news, orders):
            received.wait_for({"channel": name, "event": "pusher_internal:subscription_succeeded"})
        pusher.client.trigger([news, orders], "headline", {"n": 1})
        for name in (news, orders):
            headline = received.wait_for({"channel": name, "event": "headline"})
            assert json.loads(headline["data"]) == {"n": 1}
    finally:
        client.disconnect(timeout=0)  # its thread may take 10 s to see that the socket is closed

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask

from _flask_pusher.local import LocalServer, local_server
from _flask_pusher.local import state as state_room
from flask_pusher import Client

from .peers import KEY, Api, Browser, Connect, eventually, lines, refusals, sign

pytestmark = pytest.mark.usefixtures("server")

PRESENT = {"user_id": "ana", "user_info": {"name": "Ana"}}

EVERY_KIND: list[tuple[str, object]] = [
    ("news", None),
    ("private-news", None),
    ("presence-news", PRESENT),
    ("private-encrypted-news", None),
    ("cache-news", None),
    ("private-cache-news", None),
    ("presence-cache-news", PRESENT),
    ("private-encrypted-cache-news", None),
]


@pytest.mark.parametrize(("channel", "channel_data"), EVERY_KIND)
def test_a_channel_of_any_kind_is_subscribed_to_and_unsubscribed_from(
    client: Client, connect: Connect, channel: str, channel_data: object
) -> None:
    browser = connect()
    data = browser.subscribe(channel, channel_data)
    if channel_data is None:
        assert data == {}
    if "cache-" in channel:
        browser.expect("pusher:cache_miss")
    api_data = json.dumps({"x": 1})
    client.trigger_batch([{"channel": channel, "name": "heard", "data": api_data}], True)
    assert browser.receive() == {"event": "heard", "channel": channel, "data": api_data}
    browser.send("pusher:unsubscribe", {"channel": channel})
    client.trigger_batch([{"channel": channel, "name": "after", "data": api_data}], True)
    browser.expect_nothing()
    assert client.channels_info() == {"channels": {}}


@pytest.mark.parametrize("channel", ["a b", "", "x" * 201, "naïve", "news\n", "#news", "é"])
def test_a_name_that_is_none_is_refused(connect: Connect, channel: str) -> None:
    browser = connect()
    browser.ask_to_subscribe(channel)
    message, data = browser.expect("pusher:subscription_error")
    assert message["channel"] == channel
    assert data["type"] == "InvalidChannel"
    assert data["status"] == 400
    assert "Invalid channel name" in data["error"]
    browser.expect_nothing()


def test_a_second_subscription_to_a_channel_is_an_error(connect: Connect) -> None:
    browser = connect()
    browser.subscribe("news")
    browser.ask_to_subscribe("news")
    assert browser.expect_error()["message"] == "Existing subscription to channel news"
    browser.expect_nothing()


def refused(browser: Browser, caplog: pytest.LogCaptureFixture) -> str:
    """The reason of the refusal that the browser gets, which the developer sees as well."""
    message, data = browser.expect("pusher:subscription_error")
    assert (data["type"], data["status"]) == ("AuthError", 401)
    expected = f"{browser.socket_id}: subscription to {message['channel']}: {data['error']}"
    assert refusals(caplog)[-1] == expected[:300] + ("..." if len(expected) > 300 else "")
    browser.expect_nothing()
    reason: str = data["error"]
    return reason


def ask(browser: Browser, channel: str, **fields: object) -> None:
    browser.send("pusher:subscribe", {"channel": channel, **fields})


@pytest.mark.parametrize("auth", [None, "", 7, {"auth": "x"}])
def test_a_subscription_without_auth_is_refused(
    connect: Connect, caplog: pytest.LogCaptureFixture, auth: object
) -> None:
    browser = connect()
    ask(browser, "private-news", auth=auth)
    assert "carries no auth" in refused(browser, caplog)


def test_a_signature_for_another_key_is_told_apart(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    browser = connect()
    signature = sign(f"{browser.socket_id}:private-news")
    ask(browser, "private-news", auth=f"other:{signature}")
    reason = refused(browser, caplog)
    assert reason == f"auth is for key other, this server's application has {KEY}"
    ask(browser, "private-news", auth=signature)
    assert "auth is for key ," in refused(browser, caplog)


def test_a_signature_for_another_socket_id_is_told_apart(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    before, browser = connect(), connect()
    before.close()
    auth = f"{KEY}:{sign(f'{before.socket_id}:private-news')}"
    ask(browser, "private-news", auth=auth)
    assert refused(browser, caplog) == (
        f"The signature is for another socket id, {before.socket_id}, not {browser.socket_id}"
    )


def test_a_signature_for_another_channel_is_told_apart(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    browser = connect()
    browser.subscribe("private-other")
    auth = f"{KEY}:{sign(f'{browser.socket_id}:private-other')}"
    ask(browser, "private-news", auth=auth)
    assert refused(browser, caplog) == "The signature is for another channel, private-other"


def test_a_signature_that_leaves_channel_data_out_is_told_apart(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    browser = connect()
    auth = f"{KEY}:{sign(f'{browser.socket_id}:presence-news')}"
    ask(browser, "presence-news", auth=auth, channel_data=json.dumps(PRESENT))
    reason = refused(browser, caplog)
    assert reason == "The signature does not cover the channel_data that came with it"


def test_presence_without_channel_data_is_refused(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    browser = connect()
    auth = f"{KEY}:{sign(f'{browser.socket_id}:presence-news')}"
    ask(browser, "presence-news", auth=auth)
    assert "needs channel_data, or a sign-in" in refused(browser, caplog)
    covered = sign(f"{browser.socket_id}:presence-news:{json.dumps(PRESENT)}")
    ask(browser, "presence-news", auth=f"{KEY}:{covered}")
    assert "presence-news without channel_data by this" in refused(browser, caplog)


def test_a_signature_by_another_secret_is_told_apart(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    browser = connect()
    browser.subscribe("private-other")
    text = f"{browser.socket_id}:private-news"
    for signature in (sign(text, "other"), sign(text)[:-1], sign(text).upper(), "", "é\ud800"):
        ask(browser, "private-news", auth=f"{KEY}:{signature}")
        reason = refused(browser, caplog)
        assert reason.startswith(f"The signature is not the HMAC-SHA256 of {text} by this")
        assert sign(text) not in reason


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("channel_data", "words"),
    [
        ("{", "channel_data is not JSON"),
        ("[" * 5000, "channel_data is not JSON"),
        ("[]", "not a JSON object"),
        ('"ana"', "not a JSON object"),
        ("{}", "needs a user_id"),
        ('{"user_id": null}', "needs a user_id"),
        ('{"user_id": ""}', "needs a user_id"),
        ('{"user_id": true}', "needs a user_id"),
        ('{"user_id": 1.5}', "needs a user_id"),
        ('{"user_id": ["ana"]}', "needs a user_id"),
        (json.dumps({"user_id": "x" * 129}), "needs a user_id: a text of 1 to 128 characters"),
        ('{"user_id": "ana", "user_info": "Ana"}', "user_info is not a JSON object"),
        ('{"user_id": "ana", "user_info": ["Ana"]}', "user_info is not a JSON object"),
        ('{"user_id": "ana", "user_info": 7}', "user_info is not a JSON object"),
    ],
)
def test_channel_data_that_names_no_user_is_refused(
    connect: Connect, caplog: pytest.LogCaptureFixture, channel_data: str, words: str
) -> None:
    browser = connect()
    auth = f"{KEY}:{sign(f'{browser.socket_id}:presence-news:{channel_data}')}"
    ask(browser, "presence-news", auth=auth, channel_data=channel_data)
    assert words in refused(browser, caplog)


def test_channel_data_that_is_no_text_is_refused(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    browser = connect()
    ask(browser, "presence-news", auth=f"{KEY}:x", channel_data=PRESENT)
    assert refused(browser, caplog) == "channel_data is not a string of JSON"


def test_channel_data_on_a_private_channel_is_covered_by_the_signature(connect: Connect) -> None:
    assert connect().subscribe("private-news", {"any": "thing"}) == {}


# Presence


def test_a_member_sees_the_others_and_hears_of_them(connect: Connect) -> None:
    ana, ben = connect(), connect()
    assert ana.subscribe("presence-room", PRESENT) == {
        "presence": {"ids": ["ana"], "hash": {"ana": {"name": "Ana"}}, "count": 1}
    }
    assert ben.subscribe("presence-room", {"user_id": 7}) == {
        "presence": {"ids": ["ana", "7"], "hash": {"ana": {"name": "Ana"}, "7": None}, "count": 2}
    }
    message, data = ana.expect("pusher_internal:member_added")
    assert message["channel"] == "presence-room"
    assert data == {"user_id": "7", "user_info": None}
    ben.close()
    message, data = ana.expect("pusher_internal:member_removed")
    assert message["channel"] == "presence-room"
    assert data == {"user_id": "7"}
    ana.expect_nothing()


def test_a_user_is_added_once_and_removed_with_the_last_connection(
    client: Client, connect: Connect
) -> None:
    watching, tab, other_tab = connect(), connect(), connect()
    watching.subscribe("presence-room", {"user_id": "ben"})
    tab.subscribe("presence-room", PRESENT)
    watching.expect("pusher_internal:member_added")
    data = other_tab.subscribe("presence-room", {"user_id": "ana", "user_info": {"new": 1}})
    assert data["presence"]["count"] == 2
    assert data["presence"]["hash"]["ana"] == {"name": "Ana"}
    watching.expect_nothing()
    info = client.channel_info("presence-room", ["user_count", "subscription_count"])
    assert info == {"occupied": True, "user_count": 2, "subscription_count": 3}
    tab.send("pusher:unsubscribe", {"channel": "presence-room"})
    tab.expect_nothing()
    watching.expect_nothing()
    other_tab.close()
    watching.expect("pusher_internal:member_removed")
    assert client.users_info("presence-room") == {"users": [{"id": "ben"}]}


def test_presence_channels_have_members_and_no_subscription_count(connect: Connect) -> None:
    browser = connect()
    browser.subscribe("presence-room", PRESENT)
    browser.expect_nothing()


def test_user_info_arrives_as_it_was(connect: Connect) -> None:
    shapes: list[Any] = [None, {}, {"é \ud800": "<b>"}, {"a": [1.5, -0.0, 10**40, True, None]}]
    watching = connect()
    watching.subscribe("presence-room", {"user_id": "w"})
    for number, shape in enumerate(shapes):
        connect().subscribe("presence-room", {"user_id": number, "user_info": shape})
        _, data = watching.expect("pusher_internal:member_added")
        assert data == {"user_id": str(number), "user_info": shape}


def test_a_list_of_members_as_long_as_it_may_be_arrives(connect: Connect) -> None:
    infos = {f"{number:0128}": {"text": "x" * 1_013} for number in range(100)}
    for user_id, info in infos.items():
        browser = connect()
        data = browser.subscribe("presence-room", {"user_id": user_id, "user_info": info})
    assert data["presence"] == {"ids": list(infos), "hash": infos, "count": 100}


def limited(browser: Browser) -> str:
    """The reason of a refusal that is none of authorisation."""
    _, data = browser.expect("pusher:subscription_error")
    assert data["type"] == "LimitReached"
    reason: str = data["error"]
    return reason


def test_a_presence_channel_has_a_hundred_members(connect: Connect) -> None:
    for number in range(100):
        member = connect()
        member.ask_to_subscribe("presence-room", {"user_id": number})
    late = connect()
    late.ask_to_subscribe("presence-room", {"user_id": "late"})
    assert limited(late) == "presence-room has 100 members, and no more are allowed"
    second_tab = connect()
    assert second_tab.subscribe("presence-room", {"user_id": 7})["presence"]["count"] == 100
    member.close()
    second_tab.expect("pusher_internal:member_removed")
    assert late.subscribe("presence-room", {"user_id": "late"})["presence"]["count"] == 100


@pytest.mark.parametrize("character", ["x", "é"])
def test_user_info_has_a_kilobyte(connect: Connect, character: str) -> None:
    largest = {"name": character * (1_013 // len(character.encode()))}
    assert connect().subscribe("presence-room", {"user_id": "ana", "user_info": largest})
    browser = connect()
    too_large = {"name": largest["name"] + character}
    browser.ask_to_subscribe("presence-room", {"user_id": "ben", "user_info": too_large})
    assert limited(browser).startswith("user_info of ben is 102")


def test_a_signed_in_users_info_has_a_kilobyte_too(connect: Connect) -> None:
    browser = connect()
    browser.sign_in(id="ana", user_info={"name": "x" * 1_014})
    browser.ask_to_subscribe("presence-room")
    assert limited(browser) == "user_info of ana is 1025 bytes, over 1024"


def test_a_name_that_the_hosted_service_does_not_take_is_warned_of(
    client: Client, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    browser = connect()
    browser.subscribe("x" * 164)
    client.trigger("x" * 164, "e", {})
    assert lines(caplog, "warning") == []
    browser.expect("e")
    browser.subscribe("y" * 165)
    client.trigger("y" * 165, "e", {})
    warning = "has 165 characters, and the hosted service takes 164"
    assert [warning in line for line in lines(caplog, "warning")] == [True, True]


# Subscription counts


def test_everyone_hears_how_many_they_are(connect: Connect) -> None:
    first, second = connect(), connect()
    first.subscribe("news")
    second.ask_to_subscribe("news")
    second.expect("pusher_internal:subscription_succeeded")
    for browser in (first, second):
        message, data = browser.expect("pusher_internal:subscription_count")
        assert message["channel"] == "news"
        assert data == {"subscription_count": 2}
    second.close()
    _, data = first.expect("pusher_internal:subscription_count")
    assert data == {"subscription_count": 1}


def test_a_large_channel_hears_its_count_at_intervals(
    server: LocalServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_room, "SMALL_CHANNEL", 3)
    first = connect()
    first.subscribe("news")
    for _ in range(6):
        browser = connect()
        browser.ask_to_subscribe("news")
        browser.expect("pusher_internal:subscription_succeeded")
    server.advance(5)
    counts = [
        first.expect("pusher_internal:subscription_count")[1]["subscription_count"]
        for _ in range(4)
    ]
    assert counts == [2, 3, 4, 7]
    server.advance(5)
    first.expect_nothing()  # nothing has changed, nothing is said


# Cache channels


def test_a_cache_channel_begins_with_its_last_event(client: Client, connect: Connect) -> None:
    first, second = connect(), connect()
    first.subscribe("cache-score")
    message, _ = first.expect("pusher:cache_miss")
    assert message["channel"] == "cache-score"
    client.trigger("cache-score", "goal", {"home": 1})
    client.trigger("cache-score", "goal", {"home": 2})
    second.subscribe("cache-score")
    assert second.receive() == {
        "event": "goal",
        "channel": "cache-score",
        "data": '{"home": 2}',
    }
    second.expect_nothing()


def test_the_last_event_outlives_the_subscribers_but_not_its_time(
    server: LocalServer, client: Client, connect: Connect
) -> None:
    client.trigger("cache-score", "goal", "1")
    first = connect()
    first.subscribe("cache-score")
    first.expect("goal")
    first.close()
    server.advance(29 * 60)
    second = connect()
    second.subscribe("cache-score")
    second.until("goal")
    server.advance(60)
    third = connect()
    third.subscribe("cache-score")
    third.until("pusher:cache_miss")


def test_the_last_event_is_remembered_as_long_as_was_asked_for(
    app: Flask, client: Client, connect: Connect
) -> None:
    with local_server(app, cache_seconds=5) as server:
        client.trigger("cache-score", "goal", "1")
        server.advance(6)
        browser = connect()
        browser.subscribe("cache-score")
        assert browser.receive() == {"event": "pusher:cache_miss", "channel": "cache-score"}


def test_the_oldest_cached_events_make_room(
    client: Client, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_room, "MAX_CACHED", 2)
    for name in ("a", "b", "a", "c"):
        client.trigger(f"cache-{name}", "last", name)
    browser = connect()
    for name, event in (("a", "last"), ("b", "pusher:cache_miss"), ("c", "last")):
        browser.subscribe(f"cache-{name}")
        browser.expect(event)


# Client events


@pytest.mark.parametrize("channel", ["private-chat", "private-cache-chat"])
@pytest.mark.parametrize(
    "data",
    [{"n": [1, "é"]}, '{"n": 1}', "text", None, 7],
)
def test_a_client_event_reaches_everyone_but_its_sender(
    connect: Connect, channel: str, data: object
) -> None:
    sender, other = connect(), connect()
    for browser in (other, sender):
        browser.ask_to_subscribe(channel)
        browser.expect("pusher_internal:subscription_succeeded")
    sender.send("client-typing", data, channel)
    message = other.until("client-typing")
    assert message == {"event": "client-typing", "channel": channel, "data": data}
    sender.send("pusher:ping")
    assert sender.until("pusher:pong")


def test_a_client_event_on_a_presence_channel_says_whose_it_is(connect: Connect) -> None:
    sender, other = connect(), connect()
    other.subscribe("presence-chat", {"user_id": "ben"})
    sender.subscribe("presence-chat", PRESENT)
    sender.send("client-typing", {}, "presence-chat")
    message = other.until("client-typing")
    assert message == {
        "event": "client-typing",
        "channel": "presence-chat",
        "data": {},
        "user_id": "ana",
    }


@pytest.mark.parametrize(
    ("channel", "event", "data", "words"),
    [
        ("news", "client-x", {}, "Client events are for private and presence channels"),
        ("private-encrypted-x", "client-x", {}, "for private and presence channels"),
        ("private-x", "client-x", "x" * 10_241, "data is over 10240 bytes"),
        ("private-x", "client-x", "é" * 5_121, "data is over 10240 bytes"),
        ("private-x", "client-x", ["x" * 10_237], "data is over 10240 bytes"),
        ("private-x", "client-" + "x" * 194, {}, "name has over 200 characters"),
        ("private-x", "typing", {}, "begin with client-"),
    ],
)
def test_a_client_event_that_breaks_a_rule_is_refused(
    connect: Connect, channel: str, event: str, data: object, words: str
) -> None:
    sender, other = connect(), connect()
    for browser in (sender, other):
        browser.ask_to_subscribe(channel)
        browser.expect("pusher_internal:subscription_succeeded")
    sender.until("pusher_internal:subscription_count")
    sender.expect("pusher_internal:subscription_count")
    other.expect("pusher_internal:subscription_count")
    sender.send(event, data, channel)
    error = sender.expect_error()
    assert error["code"] == 4301
    assert words in error["message"]
    other.expect_nothing()


@pytest.mark.parametrize("data", ["x" * 10_240, "é" * 5_120, ["x" * 10_236]])
def test_a_client_event_may_be_as_large_as_the_limit(connect: Connect, data: object) -> None:
    sender, other = connect(), connect()
    for browser in (sender, other):
        browser.ask_to_subscribe("private-x")
        browser.expect("pusher_internal:subscription_succeeded")
    sender.send("client-" + "x" * 193, data, "private-x")
    message = other.until("client-" + "x" * 193)
    assert message["data"] == data


@pytest.mark.parametrize("channel", ["private-x", None])
def test_only_subscribers_trigger_client_events(connect: Connect, channel: str | None) -> None:
    other, outsider = connect(), connect()
    other.subscribe("private-x")
    outsider.send("client-x", {}, channel)
    error = outsider.expect_error()
    assert error["code"] == 4301
    assert error["message"] == f"Client event on {channel}, which this connection is not on"
    other.expect_nothing()


def test_more_than_ten_client_events_in_a_second_are_refused(
    server: LocalServer, connect: Connect
) -> None:
    sender, other = connect(), connect()
    for browser in (sender, other):
        browser.ask_to_subscribe("private-x")
        browser.until("pusher_internal:subscription_count")
    sender.expect("pusher_internal:subscription_count")
    sender.send_together(*[("client-x", number, "private-x") for number in range(12)])
    for _ in range(2):
        assert sender.expect_error() == {
            "code": 4301,
            "message": "Over 10 client events in a second",
        }
    assert [other.expect("client-x")[1] for _ in range(10)] == list(range(10))
    server.advance(1)
    sender.send("client-x", "rested", "private-x")
    assert other.expect("client-x")[1] == "rested"


def test_what_happens_is_told_in_lines(
    client: Client, connect: Connect, caplog: pytest.LogCaptureFixture, api: Api
) -> None:
    browser = connect(f"/app/{KEY}?protocol=7&client=js%1b[2J&version=8")
    browser.subscribe("presence-room", {"user_id": "ana\x1b[31m\n"})
    client.trigger("presence-room", "hello", {"x": "\u202e" + "y" * 300})
    browser.close()
    eventually(lambda: lines(caplog, "disconnect"))
    assert lines(caplog, "connect") == [f"{browser.socket_id} from 127.0.0.1 (js\\x1b[2J 8)"]
    who = f"{browser.socket_id} {{}} presence-room as user ana\\x1b[31m\\n"
    assert lines(caplog, "subscribe") == [who.format("to")]
    assert lines(caplog, "unsubscribe") == [who.format("from")]
    (event,) = lines(caplog, "event")
    assert event.startswith('hello to presence-room (1 subscriber): {"x": "\\u202eyyy')
    assert event.endswith("yyy...")
    assert api.get("/channels").json() == {"channels": {}}

from __future__ import annotations

import hashlib
import json
import time

import pytest
from pusher.errors import PusherBadAuth, PusherBadRequest

from flask_pusher import Client

from .peers import APP_ID, KEY, Api, Connect, refusals, sign

EVENT = {"name": "e", "channel": "news", "data": "{}"}


def test_an_event_reaches_the_subscribers_of_its_channels(
    client: Client, api: Api, connect: Connect
) -> None:
    sports, news = connect(), connect()
    sports.subscribe("sports")
    news.subscribe("news")
    assert client.trigger(["news", "sports", "empty"], "e", {"n": "é\ud800\u2028"}) == {}
    for browser, channel in ((sports, "sports"), (news, "news")):
        message, data = browser.expect("e")
        assert message["channel"] == channel
        assert isinstance(message["data"], str)
        assert data == {"n": "é\ud800\u2028"}
        browser.expect_nothing()


@pytest.mark.parametrize("size", [0, 1, 60, 125, 126, 127, 10_000, 10_240])
def test_data_of_any_length_arrives(client: Client, api: Api, connect: Connect, size: int) -> None:
    browser = connect()
    browser.subscribe("news")
    client.trigger("news", "e", "x" * size)
    assert browser.receive() == {"event": "e", "channel": "news", "data": "x" * size}
    client.trigger("news", "e", "\x00" * size)  # each of them six bytes of JSON
    assert browser.receive()["data"] == "\x00" * size


def test_one_connection_is_spared(client: Client, api: Api, connect: Connect) -> None:
    sender, other = connect(), connect()
    for browser in (other, sender):
        browser.ask_to_subscribe("news")
        browser.expect("pusher_internal:subscription_succeeded")
        browser.until("pusher_internal:subscription_count")
    other.expect("pusher_internal:subscription_count")
    client.trigger("news", "e", {}, sender.socket_id)
    other.expect("e")
    sender.expect_nothing()
    client.trigger_batch([{"channel": "news", "name": "b", "data": {}, "socket_id": "1.1"}])
    other.expect("b")
    sender.expect("b")


def test_a_batch_arrives_in_order(client: Client, api: Api, connect: Connect) -> None:
    browser = connect()
    browser.subscribe("news")
    batch = [{"channel": "news", "name": f"e{n}", "data": {"n": n}} for n in range(10)]
    assert client.trigger_batch(batch) == {}
    for number in range(10):
        assert browser.expect(f"e{number}")[1] == {"n": number}


def test_an_event_can_ask_what_its_channels_are_like(api: Api, connect: Connect) -> None:
    first, second = connect(), connect()
    first.subscribe("presence-room", {"user_id": "ana"})
    second.subscribe("presence-room", {"user_id": "ana"})
    second.subscribe("news")
    info = "user_count,subscription_count"
    event = {"name": "e", "channels": ["presence-room", "presence-empty"], "data": "1"}
    assert api.post("/events", {**event, "info": info}).json() == {
        "channels": {
            "presence-room": {"user_count": 1, "subscription_count": 2},
            "presence-empty": {"user_count": 0, "subscription_count": 0},
        }
    }
    event = {"name": "e", "channels": ["news", "empty"], "data": "1"}
    assert api.post("/events", {**event, "info": "subscription_count"}).json() == {
        "channels": {"news": {"subscription_count": 1}, "empty": {"subscription_count": 0}}
    }
    batch = [{**EVENT, "info": "subscription_count"}, {**EVENT, "channel": "presence-room"}]
    assert api.post("/batch_events", {"batch": batch}).json() == {
        "batch": [{"subscription_count": 1}, {}]
    }


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"name": None}, 400, "name is not a text"),
        ({"name": ""}, 400, "name is not a text"),
        ({"name": 7}, 400, "name is not a text"),
        ({"name": "x" * 201}, 400, "name is not a text of 1 to 200 characters"),
        ({"data": None}, 400, "data is not a text"),
        ({"data": {}}, 400, "data is not a text: serialise it"),
        ({"data": "x" * 10_241}, 413, "data of e is 10241 bytes, over 10240"),
        ({"data": "é" * 5_121}, 413, "data of e is 10242 bytes, over 10240"),
        ({"channel": None}, 400, "Not a channel name: None"),
        ({"channel": "a b"}, 400, "Not a channel name: a b"),
        ({"channel": "\ud800\x1b"}, 400, "Not a channel name: \\ud800\\x1b"),
        ({"name": "\ud800", "data": "x" * 10_241}, 413, "data of \\ud800 is 10241 bytes"),
        ({"channel": "x" * 201}, 400, "Not a channel name: xxx"),
        ({"channel": "#server-to-user-"}, 400, "Not a channel name: #server-to-user-"),
        ({"channels": []}, 400, "channels is not a list"),
        ({"channels": "news"}, 400, "channels is not a list"),
        ({"channels": {"news": 1}}, 400, "channels is not a list"),
        ({"channels": ["news", 7]}, 400, "Not a channel name: 7"),
        ({"channels": ["news"] * 101}, 400, "101 channels, over 100"),
        ({"socket_id": 7}, 400, "socket_id is not like 123.456: 7"),
        ({"socket_id": "1.1\n"}, 400, "socket_id is not like"),
        ({"socket_id": "\u0661.\u0661"}, 400, "socket_id is not like"),
        ({"info": "color"}, 400, "info knows no color"),
        ({"info": ["user_count"]}, 400, "info knows no ['user_count']"),
        ({"info": "cache"}, 400, "info knows no cache"),
        ({"info": "user_count"}, 400, "user_count is for presence channels, and news is none"),
    ],
)
def test_an_event_that_breaks_a_rule_is_refused_and_reaches_nobody(
    api: Api,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, object],
    status: int,
    words: str,
) -> None:
    browser = connect()
    browser.subscribe("news")
    event = {**EVENT, **change}
    answer = api.post("/events", event)
    assert answer.status_code == status
    assert words in answer.text
    assert words[:30] in refusals(caplog)[0]
    assert refusals(caplog)[0].startswith("POST /apps/3/events: ")
    answer = api.post("/batch_events", {"batch": [EVENT, event]})
    assert answer.status_code == status
    assert (words if "channels" not in change else "has one channel") in answer.text
    browser.expect_nothing()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"name": "x" * 200}, "x" * 200),
        ({"channel": "news", "channels": ["news"]}, "e"),
        ({"socket_id": None}, "e"),
        ({"info": None}, "e"),
        ({"info": ""}, "e"),
        ({"channels": ["news"] + ["other"] * 99}, "e"),
    ],
)
def test_an_event_at_the_limit_is_sent(
    api: Api, connect: Connect, change: dict[str, object], wanted: str
) -> None:
    browser = connect()
    browser.subscribe("news")
    assert api.post("/events", {**EVENT, **change}).json() == {}
    browser.expect(wanted)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "The body is not JSON"),
        (b"{", "The body is not JSON"),
        (b"\xff", "The body is not JSON"),
        (b"[" * 100_000, "The body is not JSON: nested too deeply"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "The body is not JSON: nested too deeply"),
        (b"[]", "The body is not a JSON object"),
        (b"null", "The body is not a JSON object"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(api: Api, body: bytes, words: str) -> None:
    for path in ("/events", "/batch_events"):
        answer = api.post(path, body)
        assert answer.status_code == 400
        assert words in answer.text


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (None, "batch is not a list"),
        ({}, "batch is not a list"),
        ([7], "An event is not a JSON object"),
        ([EVENT] * 11, "A batch of 11 events, over 10"),
    ],
)
def test_a_batch_that_breaks_a_rule_is_refused(api: Api, batch: object, words: str) -> None:
    answer = api.post("/batch_events", {"batch": batch})
    assert answer.status_code == 400
    assert words in answer.text


def test_a_body_over_a_mebibyte_is_refused(api: Api, connect: Connect) -> None:
    answer = api.post("/events", b" " * (1024 * 1024 + 1))
    assert answer.status_code == 413
    connect().expect_nothing()


def test_the_largest_legal_batch_is_accepted(api: Api) -> None:
    event = {"name": "x" * 200, "channel": "y" * 200, "data": "\x00" * 10_240}
    assert api.post("/batch_events", {"batch": [event] * 10}).json() == {}


# State


def test_channels_are_listed_by_prefix_with_what_is_asked(
    client: Client, api: Api, connect: Connect
) -> None:
    browser, other = connect(), connect()
    for channel in ("news", "private-a"):
        browser.subscribe(channel)
    browser.subscribe("presence-room", {"user_id": "ana"})
    other.subscribe("presence-room", {"user_id": "ben"})
    assert client.channels_info() == {
        "channels": {"news": {}, "private-a": {}, "presence-room": {}}
    }
    assert client.channels_info("pr", ["subscription_count"]) == {
        "channels": {
            "private-a": {"subscription_count": 1},
            "presence-room": {"subscription_count": 2},
        }
    }
    assert client.channels_info("presence-", ["user_count"]) == {
        "channels": {"presence-room": {"user_count": 2}}
    }
    assert client.channels_info("none") == {"channels": {}}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"info": "user_count"}, "user_count needs filter_by_prefix to begin with presence-"),
        ({"info": "user_count", "filter_by_prefix": "private-"}, "user_count needs"),
        ({"info": "color"}, "info knows no color"),
        ({"info": "cache"}, "info knows no cache"),
        ({"info": "subscription_count,"}, "info knows no "),
    ],
)
def test_a_list_of_channels_asked_for_the_impossible_is_refused(
    api: Api, query: dict[str, str], words: str
) -> None:
    answer = api.get("/channels", **query)
    assert answer.status_code == 400
    assert words in answer.text


def test_a_channel_is_described(client: Client, api: Api, connect: Connect) -> None:
    browser = connect()
    browser.subscribe("presence-room", {"user_id": "ana"})
    assert client.channel_info("presence-room") == {"occupied": True}
    assert client.channel_info("presence-room", ["user_count", "subscription_count"]) == {
        "occupied": True,
        "user_count": 1,
        "subscription_count": 1,
    }
    assert client.channel_info("presence-none", ["user_count", "subscription_count"]) == {
        "occupied": False,
        "user_count": 0,
        "subscription_count": 0,
    }


def test_a_cache_channels_last_event_can_be_asked_for(client: Client, api: Api) -> None:
    assert client.channel_info("cache-score", ["cache"]) == {"occupied": False, "cache": None}
    client.trigger("cache-score", "goal", {"home": 1})
    info = client.channel_info("cache-score", ["cache"])
    assert info["cache"]["data"] == '{"home": 1}'
    assert 1790 <= info["cache"]["ttl"] <= 1800


@pytest.mark.parametrize(
    ("path", "query", "words"),
    [
        ("/channels/news", {"info": "user_count"}, "news is none"),
        ("/channels/news", {"info": "cache"}, "cache is for cache channels, and news is none"),
        ("/channels/news", {"info": "color"}, "info knows no color"),
        ("/channels/a:b", {}, "Not a channel name: a:b"),
        ("/channels/" + "x" * 201, {}, "Not a channel name: xxx"),
        ("/channels/news/users", {}, "Users are on presence channels, and news is none"),
        ("/channels/a:b/users", {}, "Not a channel name: a:b"),
    ],
)
def test_a_channel_asked_for_the_impossible_is_refused(
    api: Api, path: str, query: dict[str, str], words: str
) -> None:
    answer = api.get(path, **query)
    assert answer.status_code == 400
    assert words in answer.text


def test_a_presence_channel_names_its_users(client: Client, api: Api, connect: Connect) -> None:
    assert client.users_info("presence-room") == {"users": []}
    for user_id in ("ana", "ben", "ana"):
        connect().subscribe("presence-room", {"user_id": user_id})
    assert client.users_info("presence-room") == {"users": [{"id": "ana"}, {"id": "ben"}]}


@pytest.mark.parametrize("path", ["/nothing", "/channels/a/b", "/users/ana", ""])
def test_a_path_that_is_none_is_not_found(api: Api, path: str) -> None:
    assert api.get(path).status_code == 404
    assert api.post(path, {}).status_code == 404


# Signatures


def test_every_character_of_a_channel_can_be_in_a_path(api: Api, client: Client) -> None:
    assert client.channel_info("aZ0_-=@,.;") == {"occupied": False}


def test_a_quoted_path_may_be_signed_quoted_or_not(api: Api) -> None:
    assert api.get("/channels/%23server-to-user-ana").json() == {"occupied": False}
    timestamp = str(int(time.time()))
    query = f"auth_key={KEY}&auth_timestamp={timestamp}&auth_version=1.0"
    text = f"GET\n/apps/3/channels/#server-to-user-ana\n{query}"
    answer = api.get(
        "/channels/%23server-to-user-ana", auth_timestamp=timestamp, auth_signature=sign(text)
    )
    assert answer.status_code == 401  # it does not cover the body_md5 that came with it
    query = f"auth_key={KEY}&auth_timestamp={timestamp}&auth_version=1.0&body_md5="
    query += hashlib.md5(b"", usedforsecurity=False).hexdigest()
    text = f"GET\n/apps/3/channels/#server-to-user-ana\n{query}"
    answer = api.get(
        "/channels/%23server-to-user-ana", auth_timestamp=timestamp, auth_signature=sign(text)
    )
    assert answer.json() == {"occupied": False}


def test_a_get_needs_no_body_md5_and_a_post_with_a_body_does(api: Api) -> None:
    assert api.call("GET", "/channels", b"", {}, omit="body_md5").status_code == 200
    assert (
        api.call("POST", "/users/x/terminate_connections", b"", {}, omit="body_md5").status_code
        == 200
    )
    body = json.dumps(EVENT).encode()
    answer = api.call("POST", "/events", body, {}, omit="body_md5")
    assert (answer.status_code, answer.text) == (401, "body_md5 is missing\n")


def test_another_app_is_not_found(api: Api) -> None:
    answer = api.call("GET", "/channels", b"", {}, app_id="4")
    assert (answer.status_code, answer.text) == (404, "No app 4 here, only 3\n")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"auth_key": "other"}, "auth_key is other, this app's key is a-key"),
        ({"auth_version": "2.0"}, "auth_version is not 1.0"),
        ({"auth_timestamp": "now"}, "auth_timestamp is not a time in seconds"),
        ({"auth_timestamp": ""}, "auth_timestamp is not a time in seconds"),
        ({"auth_timestamp": "1e9"}, "auth_timestamp is not a time in seconds"),
        ({"auth_timestamp": "9" * 13}, "auth_timestamp is not a time in seconds"),
        ({"auth_timestamp": "\u0661\u0662"}, "auth_timestamp is not a time in seconds"),
        ({"auth_timestamp": "0"}, "seconds off, at most 600 are allowed"),
        ({"auth_timestamp": "9" * 12}, "seconds off, at most 600 are allowed"),
        ({"body_md5": "0" * 32}, "body_md5 is not the MD5 of the body"),
        ({"body_md5": "é"}, "body_md5 is not the MD5 of the body"),
        ({"auth_signature": "0" * 64}, "do both sides have the same secret?"),
        ({"auth_signature": ""}, "do both sides have the same secret?"),
        ({"auth_signature": "é"}, "do both sides have the same secret?"),
    ],
)
def test_a_request_signed_wrongly_is_refused_and_says_why(
    api: Api, connect: Connect, query: dict[str, str], words: str
) -> None:
    browser = connect()
    browser.subscribe("news")
    answer = api.post("/events", EVENT, **query)
    assert answer.status_code == 401
    assert words in answer.text
    browser.expect_nothing()


@pytest.mark.parametrize("omit", ["auth_key", "auth_version", "auth_timestamp"])
def test_a_request_with_a_part_of_the_signature_missing_is_refused(api: Api, omit: str) -> None:
    answer = api.call("GET", "/channels", b"", {}, omit=omit)
    assert answer.status_code == 401
    assert answer.text.startswith(omit)


@pytest.mark.parametrize(("seconds", "status"), [(590, 200), (610, 401)])
def test_clocks_may_differ_by_ten_minutes(api: Api, seconds: int, status: int) -> None:
    for sign_ in (1, -1):
        timestamp = str(int(time.time()) + sign_ * seconds)
        assert api.get("/channels", auth_timestamp=timestamp).status_code == status


def test_a_wrong_secret_fails_as_it_would_in_production(client: Client, api: Api) -> None:
    answer = api.call("GET", "/channels", b"", {}, secret="other")
    assert answer.status_code == 401
    text = "GET\\n/apps/3/channels\\nauth_key=a-key&auth_timestamp="
    assert answer.text.startswith(f"auth_signature is not the HMAC-SHA256 of '{text}")
    assert "a-secret" not in answer.text
    client._pusher_client._secret = "other"
    with pytest.raises(PusherBadAuth, match="do both sides have the same secret"):
        client.trigger("news", "e", {})


def test_a_signature_does_not_hold_for_another_request(api: Api) -> None:
    timestamp = str(int(time.time()))
    query = f"auth_key={KEY}&auth_timestamp={timestamp}&auth_version=1.0&body_md5="
    query += hashlib.md5(b"", usedforsecurity=False).hexdigest()
    signature = sign(f"GET\n/apps/{APP_ID}/channels\n{query}")
    good = {"auth_timestamp": timestamp, "auth_signature": signature}
    assert api.get("/channels", **good).status_code == 200
    assert api.get("/channels", info="subscription_count", **good).status_code == 401
    assert api.get("/channels/news", **good).status_code == 401


def test_the_client_raises_what_it_raises_in_production(client: Client, api: Api) -> None:
    with pytest.raises(PusherBadRequest, match="Users are on presence channels"):
        client.users_info("news")
    answer = api.post("/events", {**EVENT, "data": "x" * 20_000})
    assert (answer.status_code, answer.text) == (413, "data of e is 20000 bytes, over 10240\n")

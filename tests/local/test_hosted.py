"""What the documentation of the hosted service says, line by line, and what comes of it here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from flask import Flask, abort

from _flask_pusher import rules
from _flask_pusher.local import LocalServer, WebhookView, local_server
from flask_pusher import Client, Pusher

from .peers import APP_ID, KEY, SECRET, Api, Browser, Connect, eventually, lines, refusals, sign

ROOM = {"channel": "presence-room"}
ANA = {**ROOM, "user_id": "ana"}
MISS = {"name": "cache_miss", "channel": "cache-score"}
COUNT = "pusher_internal:subscription_count"
Start = Callable[..., LocalServer]


@pytest.fixture
def pusher() -> Pusher:
    return Pusher()


@pytest.fixture
def app(pusher: Pusher) -> Flask:
    app = Flask(__name__)
    app.config.update(PUSHER_APP_ID=APP_ID, PUSHER_KEY=KEY, PUSHER_SECRET=SECRET)
    pusher.init_app(app)
    return app


@pytest.fixture
def told(pusher: Pusher) -> list[dict[str, Any]]:
    """What the application takes by webhooks, but for counts."""
    told: list[dict[str, Any]] = []
    for name in ("channel_occupied", "channel_vacated", "member_added", "member_removed"):
        pusher.webhooks.event(name)(told.append)
    pusher.webhooks.event("cache_miss")(told.append)
    return told


@pytest.fixture
def start(app: Flask) -> Iterator[Start]:
    servers: list[LocalServer] = []

    def start(**options: Any) -> LocalServer:
        servers.append(local_server(app, **{"webhooks": True, **options}))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def leave(server: LocalServer, browser: Browser, *channels: str) -> None:
    browser.close()
    for channel in channels:
        server.wait_for(channel, subscribers=0)


# Webhooks of those who leave are late


def test_a_page_that_is_loaded_anew_neither_leaves_nor_comes(
    start: Start, connect: Connect, told: list[dict[str, Any]]
) -> None:
    server = start(webhook_delay=3000)  # of which none passes by itself
    page = connect()
    page.subscribe("presence-room", {"user_id": "ana"})
    server.wait_for_webhook("member_added", "presence-room")
    leave(server, page, "presence-room")
    server.advance(2000)
    connect().subscribe("presence-room", {"user_id": "ana"})
    server.advance(60_000)
    connect().subscribe("news")
    server.wait_for_webhook("channel_occupied", "news")
    assert told == [
        {"name": "channel_occupied", **ROOM},
        {"name": "member_added", **ANA},
        {"name": "channel_occupied", "channel": "news"},
    ]


def test_who_leaves_is_told_after_three_seconds(
    start: Start, connect: Connect, told: list[dict[str, Any]]
) -> None:
    assert rules.WEBHOOK_DELAY_SECONDS == 3
    server = start(webhook_delay=3000)  # of which none passes by itself
    page = connect()
    page.subscribe("presence-room", {"user_id": "ana"})
    server.wait_for_webhook("member_added", "presence-room")
    told.clear()
    leave(server, page, "presence-room")
    server.advance(2000)
    with pytest.raises(TimeoutError) as late:
        server.wait_for_webhook("member_removed", timeout=0.2)
    assert str(late.value) == (
        "No member_removed was posted within 0.2 seconds; it is posted 3000 s late, which"
        " advance(3000) skips"
    )
    server.advance(1000)
    server.wait_for_webhook("channel_vacated", "presence-room")
    assert told == [{"name": "member_removed", **ANA}, {"name": "channel_vacated", **ROOM}]
    connect().subscribe("presence-room", {"user_id": "ana"})
    server.wait_for_webhook("member_added", "presence-room")
    assert told[2:] == [{"name": "channel_occupied", **ROOM}, {"name": "member_added", **ANA}]


def test_another_member_is_told_at_once_of_who_leaves(start: Start, connect: Connect) -> None:
    start()
    ana, ben = connect(), connect()
    ana.subscribe("presence-room", {"user_id": "ana"})
    ben.subscribe("presence-room", {"user_id": "ben"})
    ana.close()
    assert ben.expect("pusher_internal:member_removed")[1] == {"user_id": "ana"}


def test_a_member_who_is_back_is_one_and_the_other_has_left(
    start: Start, connect: Connect, told: list[dict[str, Any]]
) -> None:
    server = start(webhook_delay=3000)  # of which none passes by itself
    pages = {name: connect() for name in ("ana", "ben")}
    for name, page in pages.items():
        page.subscribe("presence-room", {"user_id": name})
        server.wait_for_webhook("member_added", "presence-room")
    told.clear()
    for page in pages.values():
        page.close()
    server.wait_for("presence-room", subscribers=0)
    connect().subscribe("presence-room", {"user_id": "ana"})
    server.advance(3000)
    event = server.wait_for_webhook("member_removed")
    assert told == [event] == [{"name": "member_removed", **ROOM, "user_id": "ben"}]


@pytest.mark.parametrize("delay", [0, 0.001])
def test_the_delay_is_as_long_as_a_test_wants(
    start: Start, connect: Connect, told: list[dict[str, Any]], delay: float
) -> None:
    server = start(webhook_delay=delay)
    page = connect()
    page.subscribe("news")
    page.close()
    server.wait_for_webhook("channel_vacated", "news")


@pytest.mark.parametrize(
    ("delay", "error"), [(-1, ValueError), (float("nan"), ValueError), (False, TypeError)]
)
def test_a_delay_that_cannot_be_is_an_error_that_names_it(
    start: Start, delay: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"^webhook_delay is a number of seconds"):
        start(webhook_delay=delay)


# Cache channels


def test_any_number_of_pages_on_an_empty_cache_channel_are_one_cache_miss(
    start: Start, client: Client, connect: Connect, told: list[dict[str, Any]]
) -> None:
    server = start()
    for _ in range(3):
        page = connect()
        page.subscribe("cache-score")
        assert page.until("pusher:cache_miss")["channel"] == "cache-score"
    connect().subscribe("news")
    server.wait_for_webhook("channel_occupied", "news")
    assert told.count(MISS) == 1


def test_a_cache_channel_that_is_empty_again_is_another_cache_miss(
    start: Start, client: Client, connect: Connect, told: list[dict[str, Any]]
) -> None:
    server = start()
    connect().subscribe("cache-score")
    server.wait_for_webhook("cache_miss", "cache-score")
    client.trigger("cache-score", "goal", {})
    server.advance(1800)
    page = connect()
    page.subscribe("cache-score")
    server.wait_for_webhook("cache_miss", "cache-score")


def test_a_cache_channel_that_everyone_left_is_another_cache_miss(
    start: Start, connect: Connect, told: list[dict[str, Any]]
) -> None:
    server = start()
    for _ in range(2):
        page = connect()
        page.subscribe("cache-score")
        server.wait_for_webhook("cache_miss", "cache-score")
        leave(server, page, "cache-score")


# Users


def test_of_a_long_watchlist_the_first_hundred_are_watched_and_an_error_says_so(
    start: Start, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    start()
    ana, first, late = connect(), connect(), connect()
    ana.sign_in(id="ana", watchlist=[f"user-{number}" for number in range(101)])
    reason = "A watchlist of 101 users: the first 100 are watched"
    assert ana.expect_error() == {"code": 4302, "message": reason}
    (offline,) = ana.expect("pusher_internal:watchlist_events")[1]["events"]
    assert len(offline["user_ids"]) == 100
    late.sign_in(id="user-100")
    first.sign_in(id="user-0")
    events = ana.expect("pusher_internal:watchlist_events")[1]["events"]
    assert events == [{"name": "online", "user_ids": ["user-0"]}]
    assert lines(caplog, "warning") == [f"{ana.socket_id}: {reason}"]


def test_a_watchlist_of_a_hundred_is_no_error(start: Start, connect: Connect) -> None:
    start()
    ana = connect()
    ana.sign_in(id="ana", watchlist=[f"user-{number}" for number in range(100)])
    ana.expect("pusher_internal:watchlist_events")
    ana.expect_nothing()


def test_signing_in_again_as_the_same_user_is_no_error_and_the_watchlist_is_the_new_one(
    start: Start, connect: Connect
) -> None:
    server = start()
    ana, ben, cem = connect(), connect(), connect()
    ana.sign_in(id="ana", watchlist=["ben"])
    ana.expect("pusher_internal:watchlist_events")
    ana.sign_in(id="ana", watchlist=["cem"])
    ana.expect("pusher_internal:watchlist_events")
    ben.sign_in(id="ben")
    cem.sign_in(id="cem")
    events = ana.expect("pusher_internal:watchlist_events")[1]["events"]
    assert events == [{"name": "online", "user_ids": ["cem"]}]
    assert server.connections[ana.socket_id].user_id == "ana"
    ana.close()
    server.disconnect()


def test_signing_in_as_another_user_is_an_error(
    start: Start, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    ana = connect()
    ana.sign_in(id="ana")
    ana.ask_to_sign_in(id="ben")
    reason = "This connection is signed in already, as user ana"
    assert ana.expect_error() == {"code": None, "message": reason}
    assert server.connections[ana.socket_id].user_id == "ana"
    assert refusals(caplog) == [f"{ana.socket_id}: {reason}"]


def test_user_ids_are_text_in_every_answer(
    start: Start, client: Client, connect: Connect, told: list[dict[str, Any]]
) -> None:
    server = start()
    ben, ana = connect(), connect()
    ben.subscribe("presence-room", {"user_id": "ben"})
    presence = ana.subscribe("presence-room", {"user_id": 7})["presence"]
    assert presence == {"ids": ["ben", "7"], "hash": {"ben": None, "7": None}, "count": 2}
    assert ben.expect("pusher_internal:member_added")[1]["user_id"] == "7"
    assert client.users_info("presence-room") == {"users": [{"id": "ben"}, {"id": "7"}]}
    ana.send("client-hi", {}, "presence-room")
    assert ben.expect("client-hi")[0]["user_id"] == "7"
    ana.close()
    assert ben.expect("pusher_internal:member_removed")[1] == {"user_id": "7"}
    server.advance(3)
    assert server.wait_for_webhook("member_removed")["user_id"] == "7"
    assert {view.event.get("user_id") for view in server.webhooks} <= {None, "ben", "7"}


# What has to be switched on


def test_without_subscription_counts_none_is_told(
    start: Start, client: Client, connect: Connect, told: list[dict[str, Any]]
) -> None:
    server = start(without=(name for name in ["subscription-count"]))
    page = connect()
    page.ask_to_subscribe("news")
    page.expect("pusher_internal:subscription_succeeded")
    page.expect_nothing()
    asked = client.trigger("news", "e", {}, info=["subscription_count"])
    assert asked == {"channels": {"news": {}}}
    assert client.channel_info("news", ["subscription_count"]) == {"occupied": True}
    server.wait_for_webhook("channel_occupied")
    assert [view.event["name"] for view in server.webhooks] == ["channel_occupied"]


def test_without_client_events_none_is_passed_on(start: Start, connect: Connect) -> None:
    start(without="client-events")
    ana, ben = connect(), connect()
    ana.subscribe("private-room")
    ben.ask_to_subscribe("private-room")
    ben.until(COUNT)
    ana.expect(COUNT)
    ana.send("client-hi", {}, "private-room")
    reason = "Client events are not switched on for this app"
    assert ana.expect_error() == {"code": 4301, "message": reason}
    ben.expect_nothing()


def test_without_watchlist_events_nobody_watches(start: Start, connect: Connect) -> None:
    start(without=["watchlist-events"])
    ana, ben = connect(), connect()
    ana.sign_in(id="ana", watchlist=[f"user-{number}" for number in range(101)])
    ben.sign_in(id="user-1")
    ana.expect_nothing()


def test_without_cache_events_the_application_hears_of_no_cache_miss(
    start: Start, connect: Connect, told: list[dict[str, Any]]
) -> None:
    server = start(without=["cache-events"])
    page = connect()
    page.subscribe("cache-score")
    page.expect("pusher:cache_miss")
    page.subscribe("news")
    server.wait_for_webhook("channel_occupied", "news")
    assert MISS not in told


def test_what_has_to_be_switched_on_is_said_once_when_it_is_used(
    start: Start, client: Client, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    start()
    ana = connect()
    ana.subscribe("private-room")
    assert lines(caplog, "hosted") == []
    for _ in range(2):
        client.channel_info("private-room", ["subscription_count"])
        ana.send("client-hi", {}, "private-room")
        ana.sign_in(id="ana", watchlist=["ben"])
        ana.expect("pusher_internal:watchlist_events")
        ana.subscribe("cache-score")
        ana.expect("pusher:cache_miss")
        ana.send("pusher:unsubscribe", {"channel": "cache-score"})
    ana.expect_nothing()
    first = "On the hosted service, {} have to be switched on in the app's settings"
    assert lines(caplog, "hosted") == [
        first.format("subscription counts"),
        first.format("events that pages send to each other"),
        first.format("watchlist events"),
        first.format("cache_miss webhooks"),
    ]


def test_a_feature_that_is_none_is_an_error_that_names_all(start: Start) -> None:
    with pytest.raises(ValueError, match=r"^without: cache, count is none of client-events, sub"):
        start(without="client-events, count,cache")


@pytest.mark.parametrize("without", [None, 7, {"client-events": True}])
def test_features_of_the_wrong_type_are_an_error_that_says_so(start: Start, without: Any) -> None:
    with pytest.raises(TypeError, match=r"without is a list of client-events, .*, not "):
        start(without=without)


# The HTTP API


def test_an_entry_of_a_batch_has_one_channel(
    start: Start, client: Client, connect: Connect
) -> None:
    server = start()
    page = connect()
    page.subscribe("news")
    event = {"name": "e", "data": "{}", "channels": ["news"]}
    answer = Api(server.url).post("/batch_events", {"batch": [event]})
    reason = "Each entry of a batch has one channel, named by channel\n"
    assert (answer.status_code, answer.text) == (400, reason)
    page.expect_nothing()


def test_a_channel_that_is_named_twice_gets_the_event_once(start: Start, connect: Connect) -> None:
    server = start()
    page = connect()
    page.subscribe("news")
    event = {"name": "e", "data": "{}", "channels": ["news", "news"]}
    assert Api(server.url).post("/events", event).status_code == 200
    page.expect("e")
    page.expect_nothing()


def test_an_event_may_stand_in_the_query_string(start: Start, connect: Connect) -> None:
    server = start()
    page = connect()
    page.subscribe("news")
    query = {"name": "e", "data": "text", "channel": "news", "info": "subscription_count"}
    answer = Api(server.url).post("/events", b"", **query)
    assert answer.json() == {"channels": {"news": {"subscription_count": 1}}}
    assert page.expect("e")[1] == "text"
    answer = Api(server.url).post("/events", {"data": "body"}, name="e", channel="news")
    assert answer.status_code == 200
    assert page.expect("e")[1] == "body"


def test_channels_may_stand_in_the_query_string(start: Start, connect: Connect) -> None:
    server = start()
    page = connect()
    page.subscribe("news")
    page.subscribe("sport")
    timestamp = int(time.time())
    signed = (
        f"auth_key={KEY}&auth_timestamp={timestamp}&auth_version=1.0"
        "&channels[]=sport&channels[]=news&data=1&name=e"
    )
    signature = sign(f"POST\n/apps/{APP_ID}/events\n{signed}")
    with requests.Session() as session:
        session.trust_env = False
        url = f"{server.url}/apps/{APP_ID}/events?{signed}&auth_signature={signature}"
        assert session.post(url, timeout=10).json() == {}
    assert [page.expect("e")[0]["channel"] for _ in range(2)] == ["sport", "news"]


def test_names_of_parameters_are_signed_in_lower_case(start: Start) -> None:
    server = start()
    timestamp = int(time.time())
    signed = f"auth_key={KEY}&auth_timestamp={timestamp}&auth_version=1.0&filter_by_prefix=x"
    signature = sign(f"GET\n/apps/{APP_ID}/channels\n{signed}")
    query = signed.replace("filter_by_prefix", "Filter_By_Prefix").replace("auth_key", "AUTH_KEY")
    with requests.Session() as session:
        session.trust_env = False
        url = f"{server.url}/apps/{APP_ID}/channels?{query}&Auth_Signature={signature}"
        assert session.get(url, timeout=10).json() == {"channels": {}}


@pytest.mark.parametrize(
    ("channel", "info"),
    [("news", "user_count"), ("private-room", "user_count"), ("cache-score", "user_count")],
)
def test_info_that_does_not_apply_to_the_channel_is_refused(
    start: Start, connect: Connect, channel: str, info: str
) -> None:
    api = Api(start().url)
    page = connect()
    page.subscribe("news")
    event = {"name": "e", "data": "{}", "info": info}
    for answer in (
        api.get(f"/channels/{channel}", info=info),
        api.post("/events", {**event, "channels": ["news", channel]}),
        api.post("/batch_events", {"batch": [{**event, "channel": channel}]}),
    ):
        assert answer.status_code == 400
        assert "is for presence channels, and " in answer.text
    page.expect_nothing()


def test_without_info_no_attribute_is_in_the_answer(start: Start, connect: Connect) -> None:
    api = Api(start().url)
    page = connect()
    page.subscribe("presence-room", {"user_id": "ana"})
    assert api.get("/channels/presence-room").json() == {"occupied": True}
    assert api.get("/channels").json() == {"channels": {"presence-room": {}}}
    event = {"name": "e", "data": "{}", "channel": "presence-room"}
    assert api.post("/events", event).json() == {}
    assert api.post("/batch_events", {"batch": [event]}).json() == {}


WEBSOCKET = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"/app/{KEY}?protocol=7", {}),
        (f"/app/{KEY}?protocol=7", {**WEBSOCKET, "Sec-WebSocket-Version": "8"}),
        (f"/app/{KEY}?protocol=7", WEBSOCKET),
        ("/", {**WEBSOCKET, "Sec-WebSocket-Version": "8"}),
    ],
)
def test_what_speaks_no_websocket_is_told_what_is_there(
    start: Start, path: str, headers: dict[str, str]
) -> None:
    server = start()
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(server.url + path, headers=headers, timeout=10)
    assert answer.status_code == 426
    assert answer.text == (
        "Here pages connect by WebSocket, of version 13, with a complete handshake, as pusher-js"
        " does. What happens is shown at /\n"
    )
    assert (answer.headers["Upgrade"], answer.headers["Sec-WebSocket-Version"]) == (
        "websocket",
        "13",
    )


# What a test hears of webhooks


def test_a_webhook_is_waited_for_and_each_is_answered_once(
    start: Start, connect: Connect, told: list[dict[str, Any]]
) -> None:
    server = start()
    for name in ("news", "sport"):
        connect().subscribe(name)
    assert server.wait_for_webhook("channel_occupied", "sport")["channel"] == "sport"
    assert server.wait_for_webhook("channel_occupied")["channel"] == "news"
    with pytest.raises(TimeoutError) as late:
        server.wait_for_webhook("channel_occupied", "news", timeout=0.05)
    assert str(late.value) == ("No other channel_occupied of news was posted within 0.05 seconds")


def test_a_webhook_that_is_not_taken_is_an_error_that_says_what_was_answered(
    start: Start, pusher: Pusher, connect: Connect
) -> None:
    @pusher.webhooks.event("channel_occupied")
    def refuse(event: dict[str, Any]) -> None:
        abort(500)

    server = start()
    connect().subscribe("news")
    eventually(lambda: server.webhooks)
    with pytest.raises(TimeoutError) as late:
        server.wait_for_webhook("channel_occupied", "news", timeout=0.2)
    assert str(late.value) == (
        "channel_occupied of news was not taken within 0.2 seconds: it answered 500"
    )
    event = {"name": "channel_occupied", "channel": "news"}
    assert server.webhooks[0] == WebhookView(event, 500, "it answered 500")


def test_a_webhook_that_cannot_come_is_an_error_at_once(app: Flask, start: Start) -> None:
    with pytest.raises(ValueError, match="No event of webhooks is named member_add; there are"):
        start().wait_for_webhook("member_add")
    with pytest.raises(ValueError, match="Webhooks go nowhere: start it by"):
        start(webhooks=None).wait_for_webhook("member_added")
    with pytest.raises(ValueError, match="timeout is a number of seconds above 0"):
        start().wait_for_webhook("member_added", timeout=0)

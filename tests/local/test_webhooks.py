from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from flask import Flask, request

from _flask_pusher.local import LocalServer, WebhookView, local_server
from _flask_pusher.local import webhooks as webhooks_room
from flask_pusher import Client, Pusher

from .peers import APP_ID, KEY, SECRET, Browser, Connect, eventually, lines, sign


class Receiver(ThreadingHTTPServer):
    """An HTTP server that keeps what is posted to it, and answers what it is told to."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.statuses: list[int] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for _, body in self.posts for event in body["events"]]

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        assert self.headers["X-Pusher-Key"] == KEY
        assert self.headers["X-Pusher-Signature"] == sign(body)
        assert self.server.may_answer.wait(60)
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200:
            self.server.posts.append((self.path, json.loads(body)))
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks_room, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(webhooks_room, "LAST_PAUSE", 0.1)


Start = Callable[[object], LocalServer]


@pytest.fixture
def start(app: Flask) -> Iterator[Start]:
    servers: list[LocalServer] = []

    def start(webhooks: Any) -> LocalServer:
        servers.append(local_server(app, webhooks=webhooks))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def test_all_seven_kinds_are_told(
    start: Start, client: Client, connect: Connect, receiver: Receiver
) -> None:
    server = start(receiver.url + "/hooks?x=1")
    before = time.time() * 1000
    browser, other = connect(), connect()
    browser.subscribe("presence-cache-room", {"user_id": "ana"})
    other.subscribe("presence-cache-room", {"user_id": "ben"})
    browser.send("client-typing", {"n": 1}, "presence-cache-room")
    browser.send("pusher:unsubscribe", {"channel": "presence-cache-room"})
    other.until("pusher_internal:member_removed")
    other.subscribe("private-news")
    other.send("client-typing", "text", "private-news")
    other.send("pusher:unsubscribe", {"channel": "private-news"})
    room, news = {"channel": "presence-cache-room"}, {"channel": "private-news"}
    expected: list[dict[str, Any]] = [
        {"name": "channel_occupied", **room},
        {"name": "member_added", **room, "user_id": "ana"},
        {"name": "cache_miss", **room},
        {"name": "member_added", **room, "user_id": "ben"},
        {
            "name": "client_event",
            **room,
            "event": "client-typing",
            "data": '{"n":1}',
            "socket_id": browser.socket_id,
            "user_id": "ana",
        },
        {"name": "member_removed", **room, "user_id": "ana"},
        {"name": "channel_occupied", **news},
        {"name": "subscription_count", **news, "subscription_count": 1},
        {
            "name": "client_event",
            **news,
            "event": "client-typing",
            "data": "text",
            "socket_id": other.socket_id,
        },
        {"name": "subscription_count", **news, "subscription_count": 0},
        {"name": "channel_vacated", **news},
    ]
    server.wait_for("private-news", subscribers=0)
    server.advance(3)
    eventually(lambda: len(receiver.events) >= len(expected))

    def of(channel: str, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [event for event in events if event["channel"] == channel]

    for channel in ("presence-cache-room", "private-news"):  # two connections, two orders
        assert of(channel, receiver.events) == of(channel, expected)
    for path, body in receiver.posts:
        assert path == "/hooks?x=1"
        assert set(body) == {"time_ms", "events"}
        assert before - 1 <= body["time_ms"] <= time.time() * 1000


def test_a_dropped_connection_vacates_its_channels(
    start: Start, connect: Connect, receiver: Receiver
) -> None:
    left = ["channel_vacated", "member_removed"]
    server = start([{"url": receiver.url + "/", "event_types": left}])
    browser = connect()
    browser.subscribe("news")
    browser.subscribe("presence-room", {"user_id": "ana"})
    browser.sign_in(id="ana")
    browser.subscribe("#server-to-user-ana")
    browser.close()
    server.wait_for("presence-room", subscribers=0)
    server.advance(3)
    eventually(lambda: len(receiver.events) == 3)
    assert receiver.events == [
        {"name": "channel_vacated", "channel": "news"},
        {"name": "member_removed", "channel": "presence-room", "user_id": "ana"},
        {"name": "channel_vacated", "channel": "presence-room"},
    ]


def test_events_of_one_moment_are_one_post_unless_told_otherwise(
    start: Start, connect: Connect, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_room, "WINDOW", 60)
    occupied = ["channel_occupied"]
    server = start(
        [
            {"url": receiver.url + "/batch", "event_types": occupied},
            {"url": receiver.url + "/single", "event_types": occupied, "batch": False},
        ]
    )
    browser = connect()
    for number in range(5):
        browser.subscribe(f"news-{number}")
    server.advance(60)
    eventually(lambda: len(receiver.events) == 10)
    assert [len(body["events"]) for path, body in receiver.posts if path == "/batch"] == [5]
    single = [body["events"] for path, body in receiver.posts if path == "/single"]
    assert [[event["channel"] for event in events] for events in single] == [
        [f"news-{number}"] for number in range(5)
    ]


def test_a_very_large_batch_is_split(
    start: Start, connect: Connect, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_room, "MAX_BATCH", 2)
    monkeypatch.setattr(webhooks_room, "WINDOW", 60)
    server = start(receiver.url + "/x")
    browser = connect()
    for number in range(2):
        browser.subscribe(f"news-{number}")
    server.advance(60)
    eventually(lambda: len(receiver.events) == 4)
    assert [len(body["events"]) for _, body in receiver.posts] == [2, 2]


def test_a_large_batch_is_told_of_in_a_line_that_can_be_read(
    start: Start,
    connect: Connect,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhooks_room, "MAX_NAMED", 2)
    monkeypatch.setattr(webhooks_room, "WINDOW", 60)
    server = start([{"url": receiver.url + "/x", "event_types": ["channel_occupied"]}])
    browser = connect()
    for number in range(5):
        browser.subscribe(f"news-{number}")
    server.advance(60)
    eventually(lambda: lines(caplog, "webhook"))
    assert lines(caplog, "webhook") == [
        f"channel_occupied news-0, channel_occupied news-1, 3 more to {receiver.url}/x"
    ]


@pytest.mark.parametrize("status", [500, 404, 301])
def test_a_webhook_is_posted_again_until_it_is_taken_and_the_next_one_waits(
    start: Start,
    connect: Connect,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    receiver.statuses = [status, status, status]
    start([{"url": receiver.url + "/x", "event_types": ["channel_occupied"], "batch": False}])
    browser = connect()
    browser.subscribe("first")
    browser.subscribe("second")
    eventually(lambda: len(receiver.events) == 2)
    assert [event["channel"] for event in receiver.events] == ["first", "second"]
    to = f"channel_occupied {{}} to {receiver.url}/x"
    eventually(lambda: len(lines(caplog, "webhook")) == 2)
    assert lines(caplog, "webhook") == [to.format("first"), to.format("second")]
    assert lines(caplog, "undelivered") == [
        f"again in 0.05 s, it answered {status}: {to.format('first')}",
        f"again in 0.1 s, it answered {status}: {to.format('first')}",
        f"again in 0.1 s, it answered {status}: {to.format('first')}",
    ]


def test_webhooks_wait_while_the_application_restarts(
    start: Start, connect: Connect, caplog: pytest.LogCaptureFixture, closed_port: int
) -> None:
    start(f"http://127.0.0.1:{closed_port}/x")
    browser = connect()
    browser.subscribe("news")
    eventually(
        lambda: any("ClientConnectorError" in line for line in lines(caplog, "undelivered"))
    )
    receiver = Receiver(closed_port)
    eventually(lambda: len(receiver.events) == 2)
    receiver.close()
    assert [event["name"] for event in receiver.events] == [
        "channel_occupied",
        "subscription_count",
    ]


def test_a_webhook_is_given_up_after_a_while_and_the_next_one_is_posted(
    start: Start,
    connect: Connect,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks_room, "RETRY_SECONDS", 0.3)
    receiver.statuses = [500] * 5
    start([{"url": receiver.url + "/x", "event_types": ["channel_occupied"], "batch": False}])
    browser = connect()
    browser.subscribe("lost")
    eventually(lambda: any("given up" in line for line in lines(caplog, "undelivered")))
    assert lines(caplog, "undelivered")[-1] == (
        f"given up, it answered 500: channel_occupied lost to {receiver.url}/x"
    )
    receiver.statuses = []
    browser.subscribe("news")
    eventually(lambda: [event["channel"] for event in receiver.events] == ["news"])


def test_an_application_that_takes_its_time_holds_nobody(
    start: Start,
    client: Client,
    connect: Connect,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhooks_room, "ANSWER_SECONDS", 60)
    receiver.may_answer.clear()
    with closing(Receiver()) as prompt:
        start([receiver.url + "/slow", prompt.url + "/prompt"])
        browser = connect()
        browser.subscribe("news")
        client.trigger("news", "e", {})
        browser.expect("e")
        eventually(lambda: len(prompt.events) == 2)
    assert receiver.events == []
    assert lines(caplog, "undelivered") == []
    receiver.may_answer.set()
    eventually(lambda: len(receiver.events) == 2)


def test_an_application_that_does_not_answer_in_time_is_told_again(
    start: Start,
    connect: Connect,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhooks_room, "ANSWER_SECONDS", 0.3)
    receiver.may_answer.clear()
    start(receiver.url + "/slow")
    connect().subscribe("news")
    eventually(lambda: any("TimeoutError" in line for line in lines(caplog, "undelivered")))
    receiver.may_answer.set()
    eventually(lambda: lines(caplog, "webhook"))


def test_too_many_waiting_webhooks_lose_the_oldest(
    start: Start,
    connect: Connect,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhooks_room, "MAX_PENDING", 3)
    monkeypatch.setattr(webhooks_room, "WINDOW", 60)
    server = start([{"url": receiver.url + "/x", "event_types": ["channel_occupied"]}])
    browser = connect()
    for number in range(5):
        browser.subscribe(f"news-{number}")
    server.advance(60)
    eventually(lambda: receiver.events)
    assert [event["channel"] for event in receiver.events] == ["news-2", "news-3", "news-4"]
    assert lines(caplog, "undelivered") == [
        f"lost, too many wait: channel_occupied news-0 to {receiver.url}/x",
        f"lost, too many wait: channel_occupied news-1 to {receiver.url}/x",
    ]


class Told:
    """An application that keeps what its webhooks tell, and fails as often as it is told to."""

    def __init__(self, matching: dict[str, Any] | None = None, **config: object) -> None:
        self.app = Flask(__name__, **(matching or {}))
        self.app.config.update(PUSHER_APP_ID=APP_ID, PUSHER_KEY=KEY, PUSHER_SECRET=SECRET)
        self.app.config.update(config)
        self.failures: list[BaseException] = []
        self.events: list[tuple[str, str]] = []
        self.pusher = Pusher(self.app)
        self.pusher.webhooks.event("channel_occupied")(self.occupied)

    def occupied(self, event: dict[str, Any]) -> None:
        if self.failures:
            raise self.failures.pop()
        self.events.append((event["channel"], request.script_root + request.path))
        self.pusher.client.trigger(event["channel"], "welcome", {})


def visit(server: LocalServer) -> Browser:
    return Browser((server.host, server.port), f"/app/{KEY}?protocol=7").established()


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({}, "/pusher/events"),
        ({"APPLICATION_ROOT": "/shop"}, "/shop/pusher/events"),
        ({"APPLICATION_ROOT": "/shop/"}, "/shop/pusher/events"),
        ({"TRUSTED_HOSTS": ["example.com"]}, "/pusher/events"),
        ({"TRUSTED_HOSTS": [".example.com"]}, "/pusher/events"),
        ({"SERVER_NAME": "example.com:8000"}, "/pusher/events"),
        ({"SERVER_NAME": "example.com", "TRUSTED_HOSTS": ["example.com"]}, "/pusher/events"),
        ({"PREFERRED_URL_SCHEME": "https", "SERVER_NAME": "a.example"}, "/pusher/events"),
    ],
)
def test_the_application_gets_its_webhooks_in_this_process(
    config: dict[str, Any], path: str
) -> None:
    told = Told(**config)
    with local_server(told.app, webhooks=True) as server:
        browser = visit(server)
        browser.subscribe("news")
        browser.expect("welcome")
        browser.close()
    assert told.events == [("news", path)]


@pytest.mark.parametrize(
    ("matching", "config"),
    [
        ({"host_matching": True, "static_host": "example.com"}, {}),
        ({"host_matching": True, "static_host": "example.com"}, {"TRUSTED_HOSTS": ["a.example"]}),
        ({"subdomain_matching": True}, {"SERVER_NAME": "example.com"}),
    ],
)
def test_the_application_gets_its_webhooks_whatever_hosts_it_matches(
    matching: dict[str, Any], config: dict[str, Any]
) -> None:
    told = Told(matching, **config)
    with local_server(told.app, webhooks=True) as server:
        browser = visit(server)
        browser.subscribe("news")
        browser.expect("welcome")
        browser.close()
    assert told.events == [("news", "/pusher/events")]


@pytest.mark.parametrize("error", [RuntimeError, StopIteration, SystemExit])
def test_what_a_handler_raises_is_warned_of_with_its_traceback_and_it_is_called_again(
    caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    told = Told(TESTING=True)
    told.failures = [error("not yet")]
    with local_server(told.app, webhooks=True) as server:
        browser = visit(server)
        browser.subscribe("news")
        browser.expect("welcome")
        browser.close()
    (record,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert record.getMessage() == (
        f"undelivered: again in 0.05 s, it failed with {error.__name__} not yet:"
        " channel_occupied news, subscription_count news to /pusher/events"
    )
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "not yet"


def test_stopping_does_not_wait_for_a_handler() -> None:
    told, entered, leave = Told(), threading.Event(), threading.Event()

    @told.pusher.webhooks.event("subscription_count")
    def linger(event: dict[str, Any]) -> None:
        entered.set()
        leave.wait(60)

    try:
        with local_server(told.app, webhooks=True) as server:
            browser = visit(server)
            browser.subscribe("news")
            assert entered.wait(20)
        assert not leave.is_set()
        browser.close()
    finally:
        leave.set()


def test_a_handler_may_stop_the_server() -> None:
    told, stopped = Told(), threading.Event()

    @told.pusher.webhooks.event("subscription_count")
    def stop(event: dict[str, Any]) -> None:
        server.stop()
        stopped.set()

    server = local_server(told.app, webhooks=True)
    browser = visit(server)
    browser.subscribe("news")
    assert stopped.wait(20)
    assert browser.until_closed().code == 4200
    browser.close()


def test_what_was_posted_and_answered_can_be_asked_for(
    start: Start, connect: Connect, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    server = start([{"url": receiver.url + "/x", "event_types": ["channel_occupied"]}])
    assert server.webhooks == []
    browser = connect()
    browser.subscribe("news")
    event = server.wait_for_webhook("channel_occupied", "news")
    assert event == {"name": "channel_occupied", "channel": "news"}
    server.stop()
    assert server.webhooks == [
        WebhookView(event, 500, "it answered 500"),
        WebhookView(event, 200, ""),
    ]


def test_pauses_pass_as_fast_as_a_test_lets_time_pass(
    start: Start,
    connect: Connect,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhooks_room, "FIRST_PAUSE", 100)
    monkeypatch.setattr(webhooks_room, "LAST_PAUSE", 100)
    receiver.statuses = [500] * 4
    server = start([{"url": receiver.url + "/x", "event_types": ["channel_occupied"]}])

    def failed_times(count: int) -> bool:
        return len(lines(caplog, "undelivered")) == count

    connect().subscribe("news")
    for times in range(1, 3):
        eventually(partial(failed_times, times))
        server.advance(100)
    eventually(partial(failed_times, 3))
    assert "given up, it answered 500" in lines(caplog, "undelivered")[-1]


@pytest.mark.parametrize("webhooks", [None, False, "", [], ()])
def test_no_webhooks_go_nowhere(
    start: Start, connect: Connect, caplog: pytest.LogCaptureFixture, webhooks: object
) -> None:
    start(webhooks)
    connect().subscribe("news")
    assert lines(caplog, "webhook") == []


def test_a_url_without_a_path_gets_that_of_the_applications_route(
    start: Start, connect: Connect, receiver: Receiver
) -> None:
    start([receiver.url, receiver.url + "/"])
    connect().subscribe("news")
    eventually(lambda: len(receiver.events) == 4)
    assert {path for path, _ in receiver.posts} == {"/pusher/events"}


@pytest.mark.parametrize(
    ("webhooks", "words"),
    [
        ("localhost:5000", "'localhost:5000' is not a URL"),
        ("ftp://localhost/x", "is not a URL"),
        ("http://", "is not a URL"),
        ([{"event_types": ["cache_miss"]}], "'' is not a URL"),
        ([{"url": "http://x/", "event_types": ["cache_mist"]}], "no event is named cache_mist"),
        ([{"url": "http://x/", "colour": "red"}], "colour is nothing a webhook has"),
        ([{"url": None}], "'None' is not a URL"),
        ([7], "'7' is not a URL"),
    ],
)
def test_webhooks_that_cannot_be_posted_are_an_error_at_once(
    app: Flask, webhooks: Any, words: str
) -> None:
    threads = set(threading.enumerate())
    with pytest.raises(ValueError, match=words):
        local_server(app, webhooks=webhooks)
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize(
    ("webhooks", "words"),
    [
        (7, "7 is not True, a URL, nor a list of them"),
        ({"url": "http://x/"}, "'http://x/'} is not True, a URL, nor a list of them"),
        ([{"url": "http://x/", "event_types": "channel_occupied"}], "not 'channel_occupied'"),
        ([{"url": "http://x/", "event_types": None}], "a list of events' names, not None"),
    ],
)
def test_webhooks_of_the_wrong_type_are_an_error_that_says_so(
    app: Flask, webhooks: Any, words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        local_server(app, webhooks=webhooks)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"APPLICATION_ROOT": "/shop"}, "/shop/pusher/events"),
        ({"TRUSTED_HOSTS": ["example.com"]}, "/pusher/events"),
        ({"SERVER_NAME": "example.com"}, "/pusher/events"),
    ],
)
def test_a_url_without_a_path_gets_that_of_the_route_whatever_the_hosts_are(
    receiver: Receiver, config: dict[str, Any], path: str
) -> None:
    with local_server(Told(**config).app, webhooks=receiver.url) as server:
        browser = visit(server)
        browser.subscribe("news")
        eventually(lambda: receiver.posts)
        browser.close()
    assert {posted for posted, _ in receiver.posts} == {path}


def test_stopping_does_not_wait_for_an_application_that_is_down(
    start: Start, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver()
    server = start(receiver.url)
    receiver.close()
    connect().subscribe("news")
    eventually(lambda: lines(caplog, "undelivered"))
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 20

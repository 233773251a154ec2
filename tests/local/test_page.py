from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from aiohttp import web
from flask import Flask

from _flask_pusher.local import LocalServer, local_server
from _flask_pusher.local import page as page_room
from flask_pusher import Client

from .peers import KEY, SECRET, Connect


@pytest.fixture
def session(server: LocalServer) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


class Stream:
    """What the page's ``EventSource`` reads."""

    def __init__(self, session: requests.Session, url: str) -> None:
        self.response = session.get(f"{url}/page/stream", stream=True, timeout=20)
        assert self.response.headers["Content-Type"] == "text/event-stream"
        self._lines = self.response.iter_lines(chunk_size=65536)

    def next(self, event: str) -> Any:
        """The data of the next message of this name."""
        for line in self._lines:
            if line == b"event: " + event.encode():
                data = next(self._lines)
                assert data.startswith(b"data: ")
                return json.loads(data[6:])
        raise AssertionError("the stream has ended")

    def until(self, kind: str) -> list[dict[str, Any]]:
        """All that happened, until something of this kind did."""
        happened: list[dict[str, Any]] = []
        while not any(one["kind"] == kind for one in happened):
            happened += self.next("happened")
        return happened


FILES = {
    "/": "text/html; charset=utf-8",
    "/page.css": "text/css; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
}


@pytest.mark.parametrize(("path", "content_type"), FILES.items())
def test_the_page_runs_no_script_but_its_own(
    server: LocalServer, session: requests.Session, path: str, content_type: str
) -> None:
    answer = session.get(server.url + path, timeout=20)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Cache-Control"] == "no-store"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert SECRET not in answer.text


def test_the_page_loads_nothing_from_elsewhere(
    server: LocalServer, session: requests.Session
) -> None:
    page = session.get(server.url + "/", timeout=20).text
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', page)) - {"data:,"} == {
        "/page.css",
        "/page.js",
    }
    assert "innerHTML" not in session.get(server.url + "/page.js", timeout=20).text


def test_the_page_is_told_of_all_that_happens(
    server: LocalServer, session: requests.Session, client: Client, connect: Connect
) -> None:
    stream = Stream(session, server.url)
    assert stream.next("about") == {"app_id": "3", "key": KEY}
    assert stream.next("state") == {
        "counts": {"connections": 0, "channels": 0},
        "connections": [],
        "channels": [],
    }
    assert stream.next("happened") == []
    browser = connect()
    browser.sign_in(id="ana")
    info = {"user_id": "ana", "user_info": {"name": "Ana"}}
    browser.subscribe("presence-room", info)
    client.trigger("presence-room", "hello", {"text": "<b>&\u2028"})
    happened = stream.until("event")
    assert [one["kind"] for one in happened] == ["connect", "sign in", "subscribe", "event"]
    assert {one["socket_id"] for one in happened[:3]} == {browser.socket_id}
    assert happened[2]["channel"] == "presence-room"
    assert happened[3] == {
        "number": 4,
        "at": happened[3]["at"],
        "kind": "event",
        "wrong": False,
        "text": "hello to presence-room (1 subscriber)",
        "socket_id": None,
        "channel": "presence-room",
        "event": "hello",
        "data": '{"text": "<b>&\u2028"}',
    }
    stream.response.close()
    later = Stream(session, server.url)
    state = later.next("state")
    assert state["counts"] == {"connections": 1, "channels": 1}
    assert state["connections"] == [
        {"socket_id": browser.socket_id, "user_id": "ana", "channels": ["presence-room"]}
    ]
    assert state["channels"] == [
        {"name": "presence-room", "subscribers": 1, "members": {"ana": {"name": "Ana"}}}
    ]
    assert later.next("happened") == happened
    browser.close()
    assert later.next("state")["counts"] == {"connections": 0, "channels": 0}
    assert later.until("disconnect")[-1]["number"] == 6
    later.response.close()


def test_what_happens_while_a_browser_reads_slowly_is_told_next(
    server: LocalServer,
    session: requests.Session,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writing, may_go_on = threading.Event(), threading.Event()
    write = web.StreamResponse.write

    async def write_slowly(response: Any, data: bytes) -> None:
        if b"first" in data:
            writing.set()
            while not may_go_on.is_set():
                await asyncio.sleep(0.01)
        await write(response, data)

    monkeypatch.setattr(web.StreamResponse, "write", write_slowly)
    stream = Stream(session, server.url)
    client.trigger("news", "first", {})
    assert writing.wait(20)
    client.trigger("news", "second", {})
    may_go_on.set()
    happened = stream.until("event")
    client.trigger("news", "third", {})
    while happened[-1]["event"] != "third":
        happened += stream.next("happened")
    assert [one["event"] for one in happened] == ["first", "second", "third"]
    stream.response.close()


def test_what_is_refused_is_told_with_the_channel_and_the_connection(
    server: LocalServer, session: requests.Session, connect: Connect
) -> None:
    browser = connect()
    browser.send("pusher:subscribe", {"channel": "private-x"})
    browser.expect("pusher:subscription_error")
    stream = Stream(session, server.url)
    refused = stream.until("refused")[-1]
    assert (refused["wrong"], refused["channel"]) == (True, "private-x")
    assert refused["socket_id"] == browser.socket_id
    assert "carries no auth" in refused["text"]
    stream.response.close()


def test_a_page_that_is_closed_is_forgotten(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_room, "INTERVAL", 0.01)
    with socket.create_connection((server.host, server.port), timeout=20) as page:
        page.sendall(b"GET /page/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in page.recv(1000)
    server.stop()  # within its time, as nothing is left to wait for


def test_the_page_shows_no_more_than_it_can(
    server: LocalServer,
    session: requests.Session,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_room, "ROWS", 3)
    browsers = [connect() for _ in range(5)]
    for number, browser in enumerate(browsers):
        browser.subscribe(f"news-{number}")
        browser.subscribe("presence-room", {"user_id": number})
    for number in range(600):
        browsers[0].send(f"nonsense-{number}")
    browsers[0].until("pusher_internal:member_added")
    for _ in range(600):
        browsers[0].until("pusher:error")
    stream = Stream(session, server.url)
    state, happened = stream.next("state"), stream.next("happened")
    stream.response.close()
    assert state["counts"] == {"connections": 5, "channels": 6}
    assert len(state["connections"]) == len(state["channels"]) == 3
    assert list(state["channels"][1]["members"]) == ["0", "1", "2"]
    assert len(happened) == 500
    assert "nonsense-599" in happened[-1]["text"]


def own(server: LocalServer) -> dict[str, str]:
    return {"Origin": server.url, "Content-Type": "application/json"}


def test_the_page_triggers_events(
    server: LocalServer, session: requests.Session, connect: Connect
) -> None:
    browser = connect()
    browser.subscribe("news")
    event = {"channel": "news", "name": "e", "data": "{}"}
    answer = session.post(
        server.url + "/page/trigger", json=event, headers=own(server), timeout=20
    )
    assert (answer.status_code, answer.json()) == (200, {"subscribers": 1})
    browser.expect("e")
    wrong = {**event, "channel": "a b"}
    answer = session.post(
        server.url + "/page/trigger", json=wrong, headers=own(server), timeout=20
    )
    assert (answer.status_code, answer.text) == (400, "Not a channel name: a b\n")
    cached = {**event, "channel": "cache-news"}
    session.post(server.url + "/page/trigger", json=cached, headers=own(server), timeout=20)
    browser.subscribe("cache-news")
    browser.expect("e")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": ""},
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": "127.0.0.1.evil.example", "Origin": "http://127.0.0.1.evil.example"},
        {"Host": "", "Origin": "http://"},
        {"Host": "[", "Origin": "http://["},
        {"Host": "\xff", "Origin": "http://\xff"},
        {"Host": "192.0.2.1", "Origin": "http://192.0.2.1"},
    ],
)
def test_no_other_page_reads_or_triggers_anything(
    server: LocalServer,
    session: requests.Session,
    connect: Connect,
    headers: dict[str, str],
) -> None:
    browser = connect()
    browser.subscribe("news")
    event = json.dumps({"channel": "news", "name": "e", "data": "{}"})
    forged = {**own(server), **headers}
    answer = session.post(server.url + "/page/trigger", data=event, headers=forged, timeout=20)
    assert answer.status_code == 403
    for path in (*FILES, "/page/stream"):
        answer = session.get(server.url + path, headers=headers, timeout=20)
        assert answer.status_code == 403
    browser.expect_nothing()


@pytest.mark.parametrize("lacking", ["Origin", "Content-Type"])
def test_a_form_of_another_page_triggers_nothing(
    server: LocalServer,
    session: requests.Session,
    connect: Connect,
    lacking: str,
) -> None:
    browser = connect()
    browser.subscribe("news")
    headers = {name: value for name, value in own(server).items() if name != lacking}
    event = json.dumps({"channel": "news", "name": "e", "data": "{}"})
    answer = session.post(server.url + "/page/trigger", data=event, headers=headers, timeout=20)
    assert (answer.status_code, answer.text) == (403, "Events are triggered by this page only\n")
    browser.expect_nothing()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.0.0.2", "[::1]", "LOCALHOST"])
def test_the_page_answers_to_the_names_of_this_machine(
    server: LocalServer, session: requests.Session, name: str
) -> None:
    headers = {"Host": f"{name}:{server.port}"}
    assert session.get(server.url + "/", headers=headers, timeout=20).status_code == 200


def own_address() -> str:
    """An address of this machine that is not a loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent
        address: str = probe.getsockname()[0]
        return address


def test_the_page_is_not_for_other_machines(app: Flask) -> None:
    address = own_address()
    with local_server(app, "0.0.0.0") as server, requests.Session() as session:  # noqa: S104
        session.trust_env = False
        for path in (*FILES, "/page/stream"):
            answer = session.get(f"http://{address}:{server.port}{path}", timeout=20)
            assert answer.status_code == 403
            assert answer.text == "This page is for browsers on the server's machine\n"


def test_other_paths_are_not_found(server: LocalServer, session: requests.Session) -> None:
    for path in ("/favicon.ico", "/app", "/page", "/index.html"):
        answer = session.get(server.url + path, timeout=20)
        assert (answer.status_code, answer.text) == (404, "Nothing is here, the page is at /\n")
    assert session.post(server.url + "/x", timeout=20).status_code == 404

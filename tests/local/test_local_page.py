from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from flask import Flask

import flask_pusher_local
from flask_pusher import Client

from .peers import KEY, SECRET, Connect


@pytest.fixture
def session(server: flask_pusher_local.LocalServer) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


class Stream:
    """What the page's ``EventSource`` reads."""

    def __init__(self, session: requests.Session, url: str) -> None:
        self.response = session.get(f"{url}/page/state", stream=True, timeout=5)
        assert self.response.headers["Content-Type"] == "text/event-stream"
        self._lines = self.response.iter_lines(chunk_size=1)

    def until(self, words: str) -> dict[str, Any]:
        for line in self._lines:
            if words.encode() in line:
                assert line.startswith(b"data: ")
                state: dict[str, Any] = json.loads(line[6:])
                return state
        raise AssertionError("the stream has ended")


def test_the_page_is_one_file_that_runs_no_script_but_its_own(
    server: flask_pusher_local.LocalServer, session: requests.Session
) -> None:
    page = session.get(server.url + "/", timeout=5)
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-store"
    policy = page.headers["Content-Security-Policy"]
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.text.count(f'nonce="{nonce}"') == 2
    assert nonce not in session.get(server.url + "/", timeout=5).text
    assert not re.search(r"\b(src|href)=", page.text)
    assert "innerHTML" not in page.text
    assert SECRET not in page.text


def test_the_page_is_told_of_all_that_happens(
    server: flask_pusher_local.LocalServer,
    session: requests.Session,
    client: Client,
    connect: Connect,
) -> None:
    stream = Stream(session, server.url)
    assert stream.until("counts") == {
        "connections": [],
        "channels": [],
        "counts": [0, 0],
        "recent": [],
    }
    browser = connect()
    browser.sign_in(id="ana")
    browser.subscribe("presence-room", {"user_id": "ana"})
    client.trigger("presence-room", "hello", {"text": "<b>&\u2028"})
    state = stream.until("hello to presence-room")
    assert state["counts"] == [1, 1]
    assert state["connections"] == [{"id": browser.socket_id, "user": "ana", "on": 1}]
    assert state["channels"] == [{"name": "presence-room", "subscribers": 1, "members": ["ana"]}]
    assert [event["kind"] for event in state["recent"]] == [
        "connect",
        "sign in",
        "subscribe",
        "event",
    ]
    browser.close()
    assert stream.until("disconnect")["counts"] == [0, 0]
    stream.response.close()


def test_a_page_that_is_closed_is_forgotten(
    server: flask_pusher_local.LocalServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flask_pusher_local, "PAGE_INTERVAL", 0.01)
    with socket.create_connection((server.host, server.port), timeout=5) as page:
        page.sendall(b"GET /page/state HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in page.recv(1000)
    server.stop()  # within its time, as nothing is left to wait for


def test_the_page_shows_no_more_than_it_can(
    server: flask_pusher_local.LocalServer,
    session: requests.Session,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flask_pusher_local, "PAGE_ROWS", 3)
    browsers = [connect() for _ in range(5)]
    for number, browser in enumerate(browsers):
        browser.subscribe(f"news-{number}")
        browser.subscribe("presence-room", {"user_id": number})
    for number in range(120):
        browsers[0].send(f"nonsense-{number}")
    stream = Stream(session, server.url)
    state = stream.until("nonsense-119")
    stream.response.close()
    assert state["counts"] == [5, 6]
    assert len(state["connections"]) == len(state["channels"]) == 3
    assert state["channels"][1]["members"] == ["0", "1", "2"]
    assert len(state["recent"]) == 100


def own(server: flask_pusher_local.LocalServer) -> dict[str, str]:
    return {"Origin": server.url, "Content-Type": "application/json"}


def test_the_page_triggers_events(
    server: flask_pusher_local.LocalServer, session: requests.Session, connect: Connect
) -> None:
    browser = connect()
    browser.subscribe("news")
    event = {"channel": "news", "name": "e", "data": "{}"}
    answer = session.post(server.url + "/page/trigger", json=event, headers=own(server), timeout=5)
    assert answer.status_code == 200
    browser.expect("e")
    wrong = {**event, "channel": "a b"}
    answer = session.post(server.url + "/page/trigger", json=wrong, headers=own(server), timeout=5)
    assert (answer.status_code, answer.text) == (400, "Not a channel name: a b\n")
    cached = {**event, "channel": "cache-news"}
    session.post(server.url + "/page/trigger", json=cached, headers=own(server), timeout=5)
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
    server: flask_pusher_local.LocalServer,
    session: requests.Session,
    connect: Connect,
    headers: dict[str, str],
) -> None:
    browser = connect()
    browser.subscribe("news")
    event = json.dumps({"channel": "news", "name": "e", "data": "{}"})
    forged = {**own(server), **headers}
    answer = session.post(server.url + "/page/trigger", data=event, headers=forged, timeout=5)
    assert answer.status_code == 403
    for path in ("/", "/page/state"):
        answer = session.get(server.url + path, headers=headers, timeout=5)
        assert answer.status_code == 403
    browser.expect_nothing()


@pytest.mark.parametrize("lacking", ["Origin", "Content-Type"])
def test_a_form_of_another_page_triggers_nothing(
    server: flask_pusher_local.LocalServer,
    session: requests.Session,
    connect: Connect,
    lacking: str,
) -> None:
    browser = connect()
    browser.subscribe("news")
    headers = {name: value for name, value in own(server).items() if name != lacking}
    event = json.dumps({"channel": "news", "name": "e", "data": "{}"})
    answer = session.post(server.url + "/page/trigger", data=event, headers=headers, timeout=5)
    assert (answer.status_code, answer.text) == (403, "Events are triggered by this page only\n")
    browser.expect_nothing()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.0.0.2", "[::1]", "LOCALHOST"])
def test_the_page_answers_to_the_names_of_this_machine(
    server: flask_pusher_local.LocalServer, session: requests.Session, name: str
) -> None:
    headers = {"Host": f"{name}:{server.port}"}
    assert session.get(server.url + "/", headers=headers, timeout=5).status_code == 200


def own_address() -> str:
    """An address of this machine that is not a loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent
        address: str = probe.getsockname()[0]
        return address


def test_the_page_is_not_for_other_machines(app: Flask) -> None:
    address = own_address()
    with flask_pusher_local.start(app, "0.0.0.0") as server, requests.Session() as session:  # noqa: S104
        session.trust_env = False
        for path in ("/", "/page/state"):
            answer = session.get(f"http://{address}:{server.port}{path}", timeout=5)
            assert answer.status_code == 403
            assert answer.text == "This page is for browsers on the server's machine\n"


def test_other_paths_are_not_found(
    server: flask_pusher_local.LocalServer, session: requests.Session
) -> None:
    for path in ("/favicon.ico", f"/app/{KEY}?protocol=7", "/page", "/index.html"):
        answer = session.get(server.url + path, timeout=5)
        assert (answer.status_code, answer.text) == (404, "Nothing is here, the page is at /\n")
    assert session.post(server.url + "/x", timeout=5).status_code == 404

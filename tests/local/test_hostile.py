"""Whatever a peer sends, the server answers that peer and serves everybody else."""

from __future__ import annotations

import gc
import json
import os
import socket
import threading
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from _flask_pusher.local import LocalServer, local_server
from flask_pusher import Client

from .peers import APP_ID, KEY, Api, Browser, Closed, sign

PATH = f"/app/{KEY}?protocol=7"

texts = st.text(st.characters(exclude_categories=()), max_size=20)  # half characters as well
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
channels = st.sampled_from(
    [
        "news",
        "private-a",
        "presence-a",
        "cache-a",
        "private-encrypted-cache-a",
        "#server-to-user-a",
    ]
)
names = st.sampled_from(
    ["pusher:subscribe", "pusher:unsubscribe", "pusher:signin", "pusher:ping", "client-x", "x"]
)


@st.composite
def likely_frames(draw: st.DrawFn) -> dict[str, Any]:
    """Frames that are nearly right."""
    data: Any = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "channel": channels | json_values,
                "auth": st.just("sign") | json_values,
                "channel_data": json_values.map(json.dumps) | json_values,
                "user_data": json_values.map(json.dumps)
                | st.just('{"id": "a", "watchlist": ["b"]}')
                | json_values,
            },
        )
        | json_values
    )
    frame = {"event": draw(names | json_values), "data": data}
    if draw(st.booleans()):
        frame["channel"] = draw(channels | json_values)
    return frame


def signed(frame: dict[str, Any], socket_id: str) -> dict[str, Any]:
    """The frame with a right signature, where it asks for one, so that it gets further."""
    data = frame["data"]
    if isinstance(data, dict) and data.get("auth") == "sign":
        text = f"{socket_id}:{data.get('channel')}"
        if frame["event"] == "pusher:signin":
            text = f"{socket_id}::user::{data.get('user_data')}"
        elif data.get("channel_data") is not None:
            text += f":{data['channel_data']}"
        data["auth"] = f"{KEY}:{sign(text)}"
    return frame


@pytest.fixture
def bystander(server: LocalServer) -> Any:
    browser = Browser((server.host, server.port), PATH).established()
    yield browser
    browser.close()


# The first text of all is made of a table of Unicode, which takes long on a machine that is busy.
hostile = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=40,
)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@hostile
@given(frames=st.lists(likely_frames(), max_size=8))
def test_frames_that_are_nearly_right(
    server: LocalServer,
    bystander: Browser,
    caplog: pytest.LogCaptureFixture,
    frames: list[dict[str, Any]],
) -> None:
    browser = Browser((server.host, server.port), PATH).established()
    code = None
    with suppress(ConnectionError):
        for frame in frames:
            browser.send_text(json.dumps(signed(frame, browser.socket_id)))
        browser.send("pusher:ping")
    try:
        browser.until("pusher:pong")
    except Closed as closed:
        code = closed.code
    assert code in (None, 4009)
    browser.close()
    bystander.expect_nothing()
    assert errors(caplog) == []


@hostile
@given(text=st.text() | st.binary(max_size=300), opcode=st.integers(0, 15))
def test_frames_of_anything(
    server: LocalServer,
    bystander: Browser,
    caplog: pytest.LogCaptureFixture,
    text: str | bytes,
    opcode: int,
) -> None:
    browser = Browser((server.host, server.port), PATH).established()
    browser.send_text(text, opcode)
    browser.close()
    bystander.expect_nothing()
    assert errors(caplog) == []


@hostile
@given(data=st.binary(max_size=500))
def test_bytes_of_anything(
    server: LocalServer,
    bystander: Browser,
    caplog: pytest.LogCaptureFixture,
    data: bytes,
) -> None:
    browser = Browser((server.host, server.port), PATH).established()
    browser.socket.sendall(data)
    browser.close()
    with socket.create_connection((server.host, server.port), timeout=20) as peer:
        peer.sendall(data)
    bystander.expect_nothing()
    assert errors(caplog) == []


def test_a_stop_under_load_tells_everyone_and_leaves_nothing(
    app: Flask, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    files = len(os.listdir("/proc/self/fd"))
    outcomes: list[tuple[int | None, int | None]] = []

    def flood(browser: Browser) -> None:
        code = None
        try:
            while True:  # each frame is answered with an error, and the stop comes between
                with suppress(ConnectionError):  # hung up on: what it was told is read below
                    for number in range(20):
                        browser.send("client-x", number, "private-none")
                for _ in range(20):
                    code = browser.receive(timeout=30)["data"]["code"]
        except Closed as closed:
            outcomes.append((code, closed.code))
        browser.close()

    with local_server(app) as server:
        browsers = [Browser((server.host, server.port), PATH).established() for _ in range(10)]
        threads = [threading.Thread(target=flood, args=[browser]) for browser in browsers]
        for thread in threads:
            thread.start()
        for number in range(20):
            client.trigger("news", "e", number)
    for thread in threads:
        thread.join(60)
    assert outcomes == [(4200, 4200)] * 10
    assert errors(caplog) == []
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files + 1  # the client keeps a connection


event_fields = st.fixed_dictionaries(
    {},
    optional={
        "name": texts | st.text(max_size=210) | json_values,
        "data": st.text(max_size=200) | json_values,
        "channel": channels | json_values,
        "channels": st.lists(channels | st.text(max_size=5), max_size=3) | json_values,
        "socket_id": st.just("1.1") | json_values,
        "info": st.sampled_from(["user_count", "subscription_count,user_count"]) | json_values,
    },
)


@hostile
@given(
    body=event_fields.map(json.dumps).map(str.encode)
    | st.lists(event_fields).map(lambda batch: json.dumps({"batch": batch}).encode())
    | json_values.map(json.dumps).map(str.encode)
    | st.binary(),
    path=st.sampled_from(["/events", "/batch_events", "/users/a/terminate_connections"]),
)
def test_signed_bodies_of_anything(
    api: Api, bystander: Browser, caplog: pytest.LogCaptureFixture, body: bytes, path: str
) -> None:
    assert api.call("POST", path, body, {}).status_code in (200, 400, 413)
    bystander.expect_nothing()
    assert errors(caplog) == []


@hostile
@given(
    query=st.dictionaries(
        st.sampled_from(
            ["auth_key", "auth_timestamp", "auth_version", "body_md5", "auth_signature", "info"]
        )
        | st.text(max_size=5),
        st.text(max_size=70).filter(lambda text: text < "\ud800"),
        min_size=1,
    ),
    path=st.sampled_from(["/channels", "/channels/news", "/channels/presence-a/users"]),
)
def test_queries_of_anything(
    api: Api, caplog: pytest.LogCaptureFixture, query: dict[str, str], path: str
) -> None:
    assert api.call("GET", path, b"", query).status_code in (200, 400, 401)
    assert errors(caplog) == []


@pytest.mark.parametrize("path", [f"/apps/{APP_ID}/events", "/page/trigger"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_is_not_packed_as_it_says_is_refused(
    server: LocalServer, caplog: pytest.LogCaptureFixture, path: str, encoding: str
) -> None:
    with socket.create_connection((server.host, server.port), timeout=20) as peer:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        packed = f"Content-Encoding: {encoding}\r\nContent-Length: 7\r\n\r\nnot zip"
        peer.sendall(f"{head}X-Requested-By: flask-pusher\r\n{packed}".encode())
        status = int(peer.recv(1000).split(b" ")[1])
        assert 400 <= status < 500
    assert errors(caplog) == []


@hostile
@given(target=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=80))
def test_targets_of_anything(
    server: LocalServer, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    for method in ("GET", "POST", "PUT"):
        with socket.create_connection((server.host, server.port), timeout=20) as peer:
            request = (
                f"{method} /{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            peer.sendall(request.encode())
            status = int(peer.recv(1000).split(b" ")[1])
            assert status < 500
    assert errors(caplog) == []

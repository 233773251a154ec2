from __future__ import annotations

import gc
import socket
import struct
from contextlib import suppress

import pytest
from aiohttp import web
from flask import Flask

from _flask_pusher.local import LocalServer, local_server
from _flask_pusher.local import api as api_room
from _flask_pusher.local import connection as connection_room
from _flask_pusher.local import wire as wire_room
from _flask_pusher.local.connection import Connection
from flask_pusher import Client

from .peers import KEY, Api, Closed, Connect, eventually, lines, refusals

pytestmark = pytest.mark.usefixtures("server")

HTTP_OBJECTS = (web.BaseRequest, web.RequestHandler, web.StreamResponse)


def test_a_connection_is_told_its_socket_id_and_the_activity_timeout(connect: Connect) -> None:
    first, second = connect(), connect()
    assert first.activity_timeout == 120
    assert first.socket_id != second.socket_id
    assert all(part.isdigit() for part in first.socket_id.split("."))


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        (f"/app/{KEY}x?protocol=7", 4001, f"No application has the key {KEY}x"),
        ("/app/?protocol=7", 4001, "No application has the key"),
        (f"/app/{KEY}/more?protocol=7", 4005, f"Path /app/{KEY}/more not found"),
        ("/", 4005, "Path / not found"),
        (f"/apps/{KEY}?protocol=7", 4005, "not found"),
        (f"/app/{KEY}?protocol=seven", 4006, "Protocol version seven is not a number"),
        (f"/app/{KEY}?protocol=%D9%A7", 4006, "is not a number"),
        (f"/app/{KEY}?protocol=", 4006, "is not a number"),
        (f"/app/{KEY}?protocol=8", 4007, "Protocol version 8 is not supported, use 7"),
        (f"/app/{KEY}?protocol=4", 4007, "Protocol version 4 is not supported, use 7"),
        (f"/app/{KEY}", 4008, "No protocol version supplied"),
    ],
)
def test_a_connection_that_cannot_be_served_is_told_why_and_closed(
    connect: Connect, caplog: pytest.LogCaptureFixture, path: str, code: int, words: str
) -> None:
    browser = connect(path, established=False)
    error = browser.expect_error()
    assert error["code"] == code
    assert words in error["message"]
    closed = browser.expect_closed()
    assert closed.code == code
    assert closed.reason == error["message"]
    assert refusals(caplog) == [f"connection from 127.0.0.1: {error['message']} ({code})"]


def test_a_reason_too_long_for_a_close_frame_is_cut_between_characters(connect: Connect) -> None:
    browser = connect("/" + "%C3%A9" * 100, established=False)
    message = browser.expect_error()["message"]
    assert "é" * 100 in message
    reason = browser.expect_closed().reason
    assert message.startswith(reason)
    assert 118 <= len(reason.encode()) <= 123


@pytest.mark.parametrize("protocol", ["5", "6", "7"])
def test_protocols_that_servers_cannot_tell_apart_are_all_served(
    connect: Connect, protocol: str
) -> None:
    connect(f"/app/{KEY}?protocol={protocol}")


def test_a_ping_is_answered(connect: Connect) -> None:
    browser = connect()
    browser.send("pusher:ping", {})
    assert browser.receive() == {"event": "pusher:pong", "data": "{}"}


def test_a_websocket_ping_is_answered(connect: Connect) -> None:
    browser = connect()
    browser.send_text("are you there?", opcode=9)
    assert browser._frame() == (10, b"are you there?")


def test_a_silent_connection_is_pinged_and_stays_if_it_answers(
    server: LocalServer, connect: Connect
) -> None:
    browser = connect()
    for _ in range(3):
        server.advance(120)
        assert browser.receive() == {"event": "pusher:ping", "data": "{}"}
        browser.send("pusher:pong", {})
        browser.expect_nothing()
    server.advance(60)
    browser.expect_nothing()


@pytest.mark.parametrize("opcode", [9, 10], ids=["ping", "pong"])
def test_websocket_pings_and_pongs_are_signs_of_life(
    server: LocalServer, connect: Connect, opcode: int
) -> None:
    browser = connect()
    for _ in range(5):
        server.advance(100)
        browser.send_text(b"", opcode)
        browser.send_text(b"seen?", opcode=9)
        while browser._frame() != (10, b"seen?"):
            pass
    browser.expect_nothing()


def test_a_connection_that_sends_is_not_pinged(server: LocalServer, connect: Connect) -> None:
    browser = connect()
    for _ in range(8):
        browser.send("pusher:unsubscribe", {"channel": "none"})
        assert browser.expect_error()["message"] == "No subscription to channel none"
        server.advance(100)
    browser.expect_nothing()


def test_a_half_open_connection_is_closed_and_leaves_its_channels(
    server: LocalServer, client: Client, connect: Connect
) -> None:
    gone, stays = connect(), connect()
    gone.ask_to_subscribe("presence-room", {"user_id": "gone"})
    server.wait_for("presence-room")
    stays.subscribe("presence-room", {"user_id": "stays"})
    server.advance(120)
    stays.expect("pusher:ping")
    stays.send("pusher:pong")
    stays.expect_nothing()
    server.advance(30)  # `gone` reads nothing and answers nothing
    assert stays.expect("pusher_internal:member_removed")[1] == {"user_id": "gone"}
    assert client.users_info("presence-room") == {"users": [{"id": "stays"}]}
    for name in ("pusher_internal:subscription_succeeded", "pusher_internal:member_added"):
        gone.expect(name)
    gone.expect("pusher:ping")
    assert gone.expect_error() == {
        "code": 4201,
        "message": "Pong reply not received in 30 seconds",
    }
    assert gone.expect_closed().code == 4201


def test_the_times_are_those_that_were_asked_for(app: Flask, connect: Connect) -> None:
    with local_server(app, activity_timeout=0.5, pong_timeout=2) as server:
        browser = connect()
        assert browser.activity_timeout == 0.5
        server.advance(0.5)
        browser.expect("pusher:ping")
        server.advance(1.9)
        browser.send_text(b"", opcode=9)
        assert browser._frame() == (10, b"")
        server.advance(0.5)
        browser.expect("pusher:ping")
        server.advance(2)
        assert browser.expect_error()["message"] == "Pong reply not received in 2 seconds"
        assert browser.expect_closed().code == 4201


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", None, "not JSON"),
        ("{", None, "not JSON"),
        ("null", None, "not a JSON object"),
        ("7", None, "not a JSON object"),
        ("[]", None, "not a JSON object"),
        ("{}", None, "with an event's name"),
        ('{"event": 7}', None, "with an event's name"),
        ('{"event": "pusher:ping", "data": NaN}', None, "NaN is no number"),
        ('{"event": "pusher:ping", "data": 1e999}', None, "1e999 is no number"),
        ("[" * 5000 + "]" * 5000, None, "nested too deeply"),
        ('{"event":' * 60000, None, "not"),
        ('{"event":"client-x","data":' + "[" * 200 + "]" * 200 + "}", None, "nested too deeply"),
        ('{"event": "pusher:subscribe"}', None, "data of pusher:subscribe is not a JSON object"),
        ('{"event": "pusher:subscribe", "data": "{}"}', None, "is not a JSON object"),
        ('{"event": "pusher:subscribe", "data": {}}', None, "names no channel"),
        ('{"event": "pusher:subscribe", "data": {"channel": 7}}', None, "names no channel"),
        ('{"event": "pusher:unsubscribe", "data": []}', None, "is not a JSON object"),
        ('{"event": "pusher:unsubscribe", "data": {}}', None, "No subscription to channel None"),
        ('{"event": "pusher:signin"}', None, "is not a JSON object"),
        ('{"event": "order-created", "data": {}}', 4301, "begin with client-"),
        ('{"event": "pusher:error", "data": {}}', 4301, "begin with client-"),
    ],
)
def test_a_frame_that_means_nothing_is_answered_with_an_error_and_the_connection_stays(
    connect: Connect, text: str, code: int | None, words: str
) -> None:
    if len(text) > 65536:
        text = text[:65000]
    browser = connect()
    browser.send_text(text)
    error = browser.expect_error()
    assert error["code"] == code
    assert words in error["message"]
    browser.expect_nothing()


def test_many_brackets_that_nest_little_are_no_attack(connect: Connect) -> None:
    browser = connect()
    browser.send("pusher:ping", [[{}]] * 500)
    browser.expect("pusher:pong")


def test_a_binary_frame_is_answered_with_an_error(connect: Connect) -> None:
    browser = connect()
    browser.send_text('{"event": "pusher:ping"}', opcode=2)
    assert browser.expect_error()["message"] == "Binary frames are not supported, send text"
    browser.expect_nothing()


@pytest.mark.parametrize(
    ("data", "opcode", "code"),
    [
        ("x" * 70_000, 1, 1009),
        (b"\xff\xfe", 1, 1007),
        ("x", 3, 1002),
        ("", 0, 1002),
        (struct.pack("!H", 99), 8, 1002),
    ],
    ids=["too long", "not UTF-8", "reserved opcode", "continues nothing", "bad close code"],
)
def test_what_breaks_the_websocket_protocol_closes_that_connection_only(
    connect: Connect, caplog: pytest.LogCaptureFixture, data: str | bytes, opcode: int, code: int
) -> None:
    bystander, browser = connect(), connect()
    browser.send_text(data, opcode)
    assert browser.expect_closed().code == code
    bystander.expect_nothing()
    assert len(refusals(caplog)) == 1


def test_a_frame_in_pieces_is_one_frame(connect: Connect) -> None:
    browser = connect()
    first, second = b'{"event": "pusher', b':ping"}'
    browser.socket.sendall(bytes([0x01, 0x80 | len(first)]) + bytes(4) + first)
    browser.socket.sendall(bytes([0x80, 0x80 | len(second)]) + bytes(4) + second)
    browser.expect("pusher:pong")


def test_frames_right_behind_the_handshake_are_read(server: LocalServer) -> None:
    """A client should wait for the answer; those that do not are served all the same."""
    frame = b'{"event": "pusher:ping"}'
    with socket.create_connection((server.host, server.port), timeout=20) as peer:
        peer.sendall(
            f"GET /app/{KEY}?protocol=7 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            + (bytes([0x81, 0x80 | len(frame)]) + bytes(4) + frame) * 3
        )
        received = b""
        while received.count(b"pusher:pong") < 3:
            part = peer.recv(4096)
            assert part, received
            received += part


def test_a_connection_keeps_nothing_of_the_http_server(connect: Connect) -> None:
    """It is what most of an idle connection's memory was."""

    def count() -> int:
        gc.collect()
        return sum(isinstance(o, HTTP_OBJECTS) for o in gc.get_objects())

    before = count()
    browsers = [connect() for _ in range(20)]
    eventually(lambda: count() <= before)
    for browser in browsers:
        browser.expect_nothing()


def test_a_closing_browser_is_answered_and_forgotten(connect: Connect, api: Api) -> None:
    browser = connect()
    browser.subscribe("news")
    browser.send_text(struct.pack("!H", 1000), opcode=8)
    assert browser.expect_closed().code == 1000
    eventually(lambda: api.get("/channels").json() == {"channels": {}})


def test_a_reset_connection_is_forgotten(connect: Connect, api: Api) -> None:
    browser = connect()
    browser.subscribe("news")
    browser.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    browser.close()
    eventually(lambda: api.get("/channels").json() == {"channels": {}})


def test_a_socket_that_hangs_up_at_any_point_of_the_handshake_does_no_harm(
    server: LocalServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    handshake = (
        f"GET /app/{KEY}?protocol=7 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    bystander = connect()
    for length in range(0, len(handshake) + 1, 3):
        with socket.create_connection((server.host, server.port)) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.sendall(handshake[:length])
    bystander.expect_nothing()
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []


def test_a_request_that_is_none_gets_an_answer_and_a_line(
    server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    for garbage in (b"GET\r\n\r\n", b"GET / HTTP/\x1b[2J\r\n\r\n", b"G=T / HTTP/1.1\r\n\r\n"):
        with socket.create_connection((server.host, server.port), timeout=20) as peer:
            peer.sendall(garbage)
            assert b" 400 " in peer.recv(1000).split(b"\r\n")[0]
    assert refusals(caplog)
    for record in caplog.records:
        assert record.levelname == "WARNING"
        assert record.getMessage().startswith("refused: no HTTP request: ")
        assert record.getMessage().isprintable()
        assert record.exc_info is None


@pytest.mark.parametrize("frames", [50, 5000])
def test_the_reason_of_a_refusal_arrives_however_much_is_under_way(
    connect: Connect, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_room, "CLOSE_SECONDS", 60)
    for _ in range(20 if frames == 50 else 2):
        browser = connect()
        browser.send("pusher:signin", {"auth": f"{KEY}:wrong", "user_data": "{}"})
        for number in range(frames):  # a connection that is reset meanwhile fails here
            browser.send("pusher:subscribe", {"channel": f"news-{number}"})
        assert browser.expect_error()["code"] == 4009
        closed = browser.expect_closed()
        assert (closed.code, closed.reason[:13]) == (4009, "Unauthorised:")


def test_a_connection_that_cannot_be_served_is_told_why_however_much_it_sends(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_room, "CLOSE_SECONDS", 60)
    browser = connect("/app/other?protocol=7", established=False)
    for _ in range(500):
        browser.send("pusher:ping", "x" * 1000)
    assert browser.expect_error()["code"] == 4001
    assert browser.expect_closed().code == 4001


def test_a_frame_too_long_is_answered_though_more_of_it_is_under_way(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_room, "CLOSE_SECONDS", 60)
    browser = connect()
    browser.send("pusher:ping", "x" * 5_000_000)
    browser.send("pusher:ping")
    assert browser.expect_closed().code == 1009


def test_a_peer_that_never_closes_is_left_after_a_while(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_room, "CLOSE_SECONDS", 0.1)
    browser = connect("/app/other?protocol=7", established=False)
    assert browser.until_closed().code == 4001
    with pytest.raises(Closed):
        browser.receive(timeout=20)


def test_what_a_refused_peer_sends_means_nothing_any_more(
    server: LocalServer, connect: Connect
) -> None:
    browser = connect()
    browser.send("pusher:signin", {})
    browser.ask_to_subscribe("news")
    assert browser.until_closed().code == 4009
    assert server.channels == {}


def test_a_slow_reader_is_closed_and_the_others_get_everything(
    client: Client, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    slow = connect(receive_buffer=4096)
    others = [connect() for _ in range(3)]
    for browser in (slow, *others):
        browser.ask_to_subscribe("news")
    for browser in others:
        browser.until("pusher_internal:subscription_count")
    eventually(
        lambda: client.channel_info("news", ["subscription_count"])["subscription_count"] == 4
    )
    filling = "x" * 10_000
    sent = 0
    while not lines(caplog, "close"):
        client.trigger("news", f"event-{sent}", filling)
        sent += 1
        assert sent < 2000, "the slow reader is held on to"
        for browser in others:
            browser.until(f"event-{sent - 1}")
    assert client.channel_info("news", ["subscription_count"])["subscription_count"] == 3
    client.trigger("news", "after", filling)
    for browser in others:
        browser.until("after")
    assert slow.until_closed().code in (4100, None)


def test_a_flood_of_frames_from_a_peer_that_reads_nothing_is_bounded(
    client: Client, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    flood, bystander = connect(receive_buffer=4096), connect()
    with suppress(ConnectionError):
        for _ in range(500):
            flood.send("x" * 50_000)  # which the answer, an error, repeats
            if lines(caplog, "close"):
                break
    bystander.expect_nothing()
    assert lines(caplog, "close") == [
        f"{flood.socket_id}: Too slow: more than 1 MiB of events are waiting to be read (4100)"
    ]


def test_many_slow_readers_of_a_presence_channel_are_closed_together(
    client: Client, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each one's leaving is told to the others, which finds the next one slow."""
    monkeypatch.setattr(wire_room, "MAX_UNREAD", -1)
    browsers = [connect(established=False) for _ in range(100)]
    for browser in browsers:
        assert browser.receive()["event"] == "pusher:error"
    monkeypatch.undo()
    connect().expect_nothing()


def test_a_reader_found_slow_gets_no_more_of_the_same_call(
    client: Client, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, bystander = connect(), connect()
    for channel in ("a", "b"):
        slow.subscribe(channel)
    monkeypatch.setattr(wire_room, "MAX_UNREAD", -1)
    client.trigger(["a", "b"], "e", {})
    monkeypatch.undo()
    assert slow.expect_error()["code"] == 4100
    assert slow.expect_closed().code == 4100
    bystander.expect_nothing()


def test_a_fault_of_the_server_itself_is_logged_with_its_traceback(
    api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(info: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(api_room, "_parse_info", fail)
    assert api.get("/channels").status_code == 500
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_connections_leave_nothing_behind(server: LocalServer, connect: Connect) -> None:
    def count() -> int:
        gc.collect()
        return sum(isinstance(o, Connection) for o in gc.get_objects())

    for _ in range(50):
        browser = connect()
        browser.ask_to_subscribe("presence-room", {"user_id": browser.socket_id})
        browser.ask_to_sign_in(id="ana", watchlist=["ben"])
        browser.close()
    eventually(lambda: count() == 0)

"""JSON, frames, and who writes them."""

from __future__ import annotations

import json
import struct

import pytest

from _flask_pusher.local import wire


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", "1e999", "nul", "[" * 5000])
def test_what_is_not_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
        wire.parse_json(text)


@pytest.mark.parametrize(("depth", "is_taken"), [(100, True), (101, False)])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_json_may_be_a_hundred_deep(begin: str, end: str, depth: int, is_taken: bool) -> None:
    text = begin * (depth - 1) + "[]" + end * (depth - 1)
    if is_taken:
        assert wire.parse_json(text) == json.loads(text)
    else:
        with pytest.raises(ValueError, match="nested too deeply"):
            wire.parse_json(text)


@pytest.mark.parametrize(
    ("data", "length"),
    [("é", 2), ("\ud800", 3), (None, 4), ({"a": "é"}, 10), ([1, 2], 5), (7, 1)],
)
def test_data_is_measured_as_text_or_as_its_shortest_json(data: object, length: int) -> None:
    assert wire.byte_length(data) == length


@pytest.mark.parametrize("size", [0, 80, 81, 125, 126, 65_000, 65_500, 65_536, 100_000])
def test_a_frame_says_how_long_it_is(size: int) -> None:
    frame = wire.message("e", "news", data="x" * size)
    payload = json.dumps({"event": "e", "data": "x" * size, "channel": "news"}).replace(": ", ":")
    payload = payload.replace(", ", ",")
    assert frame[0] == 0x81
    if len(payload) <= 125:
        length, rest = frame[1], frame[2:]
    elif len(payload) <= 65_535:
        assert frame[1] == 126
        length, rest = struct.unpack("!H", frame[2:4])[0], frame[4:]
    else:
        assert frame[1] == 127
        length, rest = struct.unpack("!Q", frame[2:10])[0], frame[10:]
    assert length == len(rest)
    assert rest.decode() == payload


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (4200, "Bye", b"\x10\x68Bye"),
        (0, "", b""),
        (4200, "x" * 200, b"\x10\x68" + b"x" * 123),
        (4200, "é" * 100, b"\x10\x68" + "é".encode() * 61),
        (4200, "\ud800", b"\x10\x68?"),
    ],
)
def test_a_closing_frame_holds_what_fits(code: int, reason: str, payload: bytes) -> None:
    assert wire.close(code, reason) == bytes([0x88, len(payload)]) + payload


class Transport:
    """Keeps what is written, or does not get rid of it."""

    def __init__(self, unread: int = 0) -> None:
        self.written = b""
        self.unread = unread
        self.is_gone = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.is_gone

    def abort(self) -> None:
        self.is_gone = True


def test_a_refusal_is_the_last_that_is_written() -> None:
    transport = Transport()
    outgoing = wire.Wire(transport)
    assert outgoing.send(wire.PUSHER_PONG)
    outgoing.refuse(4009, "No")
    outgoing.refuse(4200, "Again")
    outgoing.close(1000)
    assert outgoing.send(wire.PUSHER_PING)
    expected = wire.PUSHER_PONG + wire.error(4009, "No") + wire.close(4009, "No")
    assert transport.written == expected


def test_a_reader_with_a_mebibyte_unread_is_slow_and_still_told_why() -> None:
    transport = Transport(unread=1024 * 1024)
    outgoing = wire.Wire(transport)
    assert outgoing.send(wire.PUSHER_PING)
    transport.unread += 1
    assert not outgoing.send(wire.PUSHER_PING)
    assert not outgoing.is_flushed
    outgoing.refuse(4100, "Too slow")
    assert transport.written.endswith(wire.close(4100, "Too slow"))


def test_nothing_is_written_to_a_connection_that_is_lost() -> None:
    transport = Transport()
    outgoing = wire.Wire(transport)
    outgoing.hang_up()
    assert outgoing.is_lost
    assert outgoing.is_flushed
    assert outgoing.send(wire.PUSHER_PING)
    outgoing.refuse(4200, "Bye")
    assert transport.written == b""

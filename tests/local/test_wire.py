"""JSON, frames, and who writes them."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import pytest
from wsproto.frame_protocol import Opcode

from _flask_pusher.local import wire


@pytest.mark.usefixtures("no_collection")
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
        (1005, "", b""),
        (4200, "x" * 200, b"\x10\x68" + b"x" * 123),
        (4200, "é" * 100, b"\x10\x68" + "é".encode() * 61),
        (4200, "\ud800", b"\x10\x68?"),
    ],
)
def test_a_closing_frame_holds_what_fits(code: int, reason: str, payload: bytes) -> None:
    assert wire.close(code, reason) == bytes([0x88, len(payload)]) + payload


HANDSHAKE = {
    "Upgrade": "WebSocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_a_handshake_is_answered_as_in_the_example_of_rfc_6455() -> None:
    answer = wire.handshake(HANDSHAKE)
    assert answer is not None
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n" in answer


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upgrade", "h2c"),
        ("Connection", "keep-alive"),
        ("Sec-WebSocket-Version", "12"),
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Key", "short"),
        ("Sec-WebSocket-Key", "\udcff" * 24),
    ],
)
def test_what_is_no_whole_handshake_gets_no_websocket(name: str, value: str) -> None:
    assert wire.handshake({**HANDSHAKE, name: value}) is None
    assert wire.handshake({key: HANDSHAKE[key] for key in HANDSHAKE if key != name}) is None


def frame(payload: bytes, opcode: int = Opcode.TEXT, is_last: bool = True) -> bytes:
    """A frame of a client, whose length is written in the shortest way."""
    size = len(payload)
    if size <= 125:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = struct.pack("!BH", 0xFE, size)
    else:
        length = struct.pack("!BQ", 0xFF, size)
    mask = b"\x01\x80\x00\xff"
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return bytes([0x80 * is_last | opcode]) + length + mask + masked


@pytest.mark.parametrize("size", [0, 1, 3, 4, 125, 126, 65_535, 65_536])
def test_a_frame_is_read_whatever_its_length(size: int) -> None:
    text = "".join(chr(ord("a") + place % 26) for place in range(size))
    assert list(wire.Reader().feed(frame(text.encode()))) == [(Opcode.TEXT, text)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_messages_are_read_from_pieces_of_any_size(size: int) -> None:
    heart = "❤".encode()
    data = b"".join(
        [
            frame(b"first"),
            frame(heart[:1], is_last=False),
            frame(b"are you there?", Opcode.PING),
            frame(b"", Opcode.CONTINUATION, is_last=False),
            frame(heart[1:] + b"!", Opcode.CONTINUATION),
            frame(b"x" * 200, Opcode.BINARY),
            frame(b"third"),
            frame(b"\x0f\xa0Bye", Opcode.CLOSE),
        ]
    )
    reader = wire.Reader()
    messages: list[tuple[Opcode, Any]] = []
    for start in range(0, len(data), size):
        messages += reader.feed(data[start : start + size])
    assert messages == [
        (Opcode.TEXT, "first"),
        (Opcode.PING, b"are you there?"),
        (Opcode.TEXT, "❤!"),
        (Opcode.BINARY, ""),
        (Opcode.TEXT, "third"),
        (Opcode.CLOSE, (4000, "Bye")),
    ]


def test_a_closing_frame_without_a_code_is_read() -> None:
    assert list(wire.Reader().feed(frame(b"", Opcode.CLOSE))) == [(Opcode.CLOSE, (1005, ""))]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1\x80" + bytes(4), 1002),  # reserved bits
        (frame(b"", 3), 1002),
        (frame(b"", 11), 1002),
        (b"\x81\x00", 1002),  # not masked
        (frame(b"x" * 126, Opcode.PING), 1002),
        (frame(b"x", Opcode.PING, is_last=False), 1002),
        (frame(b"x", Opcode.CONTINUATION), 1002),
        (frame(b"x", is_last=False) + frame(b"y"), 1002),
        (frame(b"\xff"), 1007),
        (frame(b"\x03", Opcode.CLOSE), 1002),
        *[
            (frame(struct.pack("!H", number), Opcode.CLOSE), 1002)
            for number in (0, 999, 1005, 1006, 1015, 2999, 5000)
        ],
        (frame(b"\x03\xe8\xff", Opcode.CLOSE), 1007),
        (frame(b"x" * (wire.MAX_MESSAGE + 1)), 1009),
        (frame(b"x" * (wire.MAX_MESSAGE + 1), Opcode.BINARY), 1009),
        (
            frame(b"x" * wire.MAX_MESSAGE, is_last=False) + frame(b"x", Opcode.CONTINUATION),
            1009,
        ),
    ],
)
def test_what_is_no_frame_is_found_after_all_that_was_one(data: bytes, code: int) -> None:
    messages = wire.Reader().feed(frame(b"before") + data)
    assert next(messages) == (Opcode.TEXT, "before")
    with pytest.raises(wire.BrokenError) as broken:
        list(messages)
    assert broken.value.code == code


def test_what_never_ends_is_not_kept() -> None:
    reader = wire.Reader()
    assert list(reader.feed(b"\x81\xff" + struct.pack("!Q", 2**40) + bytes(4))) == []
    for _ in range(wire.MAX_MESSAGE // 4096):
        assert list(reader.feed(b"x" * 4096)) == []
    with pytest.raises(wire.BrokenError) as broken:
        list(reader.feed(b"x"))
    assert broken.value.code == 1009


@pytest.mark.parametrize("begin", [frame(b"x", is_last=False), frame(b"\xf0", is_last=False)])
def test_pieces_of_nothing_take_no_memory(begin: bytes) -> None:
    reader = wire.Reader()
    pieces = frame(b"", Opcode.CONTINUATION, is_last=False) * 1000
    assert list(reader.feed(begin + pieces)) == []
    tracemalloc.start()
    try:
        for _ in range(10):
            assert list(reader.feed(pieces)) == []
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 10_000


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

    def get_protocol(self) -> object:
        return None if self.is_gone else self

    def is_closing(self) -> bool:
        return self.is_gone

    def close(self) -> None:
        self.is_gone = self.unread == 0

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

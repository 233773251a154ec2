"""What travels: JSON, WebSocket frames, who reads them, and the one hand that writes them."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Protocol

MAX_DEPTH = 100  # of JSON
MAX_UNREAD = 1024 * 1024  # bytes that wait for a slow reader before it is closed
MAX_MESSAGE = 64 * 1024  # bytes, from a peer

# By RFC 6455:
MAX_CONTROL = 125  # bytes of a control frame
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
CLOSE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


# -- JSON -----------------------------------------------------------------------------------------


def parse_json(text: str) -> Any:
    """Parse what a peer sent into what :func:`to_json` can write again.

    :raises ValueError: it is not JSON, or holds a number or a depth that no application needs.
    """
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
        raise ValueError("nested too deeply")
    return value


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number")
    return number


_decoder = json.JSONDecoder(parse_float=_parse_finite, parse_constant=_parse_finite)
_encoder = json.JSONEncoder(separators=(",", ":"))


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        dicts = [item for item in level if isinstance(item, dict)]
        lists = [item for item in level if isinstance(item, list)]
        level = [*chain.from_iterable(lists), *chain.from_iterable(d.values() for d in dicts)]
    return bool(level)


def to_json(value: object) -> str:
    """Make JSON in ASCII, which carries even half a surrogate pair."""
    return _encoder.encode(value)


def byte_length(data: object) -> int:
    """How many bytes a text has in UTF-8, or else what is written as JSON, at its shortest."""
    if not isinstance(data, str):
        data = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return len(data.encode("utf-8", "surrogatepass"))


# -- Frames ---------------------------------------------------------------------------------------


def message(event: str, channel: str | None = None, **fields: object) -> bytes:
    """Build the frame of one event, whose bytes many connections can share.

    :param fields: ``data`` above all, which travels as it is: it is a string where the protocol
        has JSON inside of JSON.
    """
    content: dict[str, object] = {"event": event, **fields}
    if channel is not None:
        content["channel"] = channel
    return _frame(TEXT, to_json(content).encode("ascii"))


def error(code: int | None, reason: str, channel: str | None = None) -> bytes:
    return message("pusher:error", channel, data={"code": code, "message": reason})


def pong(payload: bytes) -> bytes:
    """Answer a WebSocket ping, which is not the protocol's ``pusher:ping``."""
    return _frame(PONG, payload)


def close(code: int, reason: str = "") -> bytes:
    """Build a closing frame, whose reason is cut to what fits, between characters.

    :param code: 0 for none, as a peer may close as well.
    """
    if code == 0:
        return _frame(CLOSE, b"")
    text = reason.encode("utf-8", "replace")[: MAX_CONTROL - 2].decode("utf-8", "ignore")
    return _frame(CLOSE, struct.pack("!H", code) + text.encode())


def _frame(opcode: int, payload: bytes) -> bytes:
    first, length = 0x80 | opcode, len(payload)
    if length <= MAX_CONTROL:
        return struct.pack("!BB", first, length) + payload
    if length < 65536:
        return struct.pack("!BBH", first, 126, length) + payload
    return struct.pack("!BBQ", first, 127, length) + payload


# -- Reading --------------------------------------------------------------------------------------


def handshake(headers: Mapping[str, str]) -> bytes | None:
    """Answer a request for a WebSocket, if these are the headers of one."""
    key = headers.get("Sec-WebSocket-Key", "")
    if (
        headers.get("Upgrade", "").lower() != "websocket"
        or "upgrade" not in headers.get("Connection", "").lower()
        or headers.get("Sec-WebSocket-Version") != "13"
        or re.fullmatch("[A-Za-z0-9+/]{22}==", key) is None
    ):
        return None
    digest = hashlib.sha1((key + MAGIC).encode(), usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


class BrokenError(Exception):
    """What a peer sent is no WebSocket, and nothing behind it can be read."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Reader:
    """The incoming half of one connection: it makes messages of the bytes that come."""

    __slots__ = ("_message", "_opcode", "_unread")

    def __init__(self) -> None:
        self._unread = b""  # of a frame
        self._opcode = CONTINUATION  # of a message that comes in several frames,
        self._message = b""  # and what there is of it

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield each message's opcode and payload.

        :raises BrokenError: by the iterator, which has yielded what came before.
        """
        data, start = self._unread + data, 0
        while (frame := self._frame(data, start)) is not None:
            is_last, opcode, payload, start = frame
            if opcode >= CLOSE:
                yield opcode, payload
                continue
            if (opcode == CONTINUATION) != (self._opcode != CONTINUATION):
                raise BrokenError(1002, "A message is continued that has not begun, or not ended")
            self._opcode |= opcode
            self._message += payload
            if is_last:
                opcode, payload = self._opcode, self._message
                self._opcode, self._message = CONTINUATION, b""
                yield opcode, payload
        self._unread = data[start:]

    def _frame(self, data: bytes, start: int) -> tuple[bool, int, bytes, int] | None:
        """Take a frame apart, and answer where it ends as well, or nothing before that came."""
        if len(data) < start + 2:
            return None
        first, second, start = data[start], data[start + 1], start + 2
        is_last, opcode, length = first >= 0x80, first & 0x0F, second & 0x7F
        if first & 0x70 or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise BrokenError(1002, f"A frame has reserved bits, or the opcode {opcode}")
        if second < 0x80:
            raise BrokenError(1002, "A frame is not masked, as those of a client are")
        if opcode >= CLOSE and (length > MAX_CONTROL or not is_last):
            raise BrokenError(1002, f"A control frame has over {MAX_CONTROL} bytes, or pieces")
        if length > MAX_CONTROL:
            size = 2 if length == 126 else 8
            if len(data) < start + size:
                return None
            length, start = int.from_bytes(data[start : start + size], "big"), start + size
        if opcode < CLOSE and len(self._message) + length > MAX_MESSAGE:
            raise BrokenError(1009, f"A message has over {MAX_MESSAGE} bytes")
        mask, start, end = data[start : start + 4], start + 4, start + 4 + length
        if len(data) < end:
            return None
        return is_last, opcode, _unmask(data[start:end], mask), end


def _unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def decode(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise BrokenError(1007, "A text is not UTF-8") from None


def close_code(payload: bytes) -> int:
    """Read the code of a closing frame, or 0 where it has none."""
    if not payload:
        return 0
    code = int.from_bytes(payload[:2], "big")
    if code not in CLOSE_CODES:
        raise BrokenError(1002, f"A closing frame has the code {code}")
    decode(payload[2:])
    return code


# -- Writing --------------------------------------------------------------------------------------


class Transport(Protocol):
    """What is used of an :class:`asyncio.Transport`."""

    def write(self, data: bytes) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def is_closing(self) -> bool: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Wire:
    """The outgoing half of one connection; nothing else writes to its transport.

    Frames go straight to the transport, which keeps what the peer has not read yet: an event to
    a thousand subscribers is serialised once and awaits nobody.
    """

    __slots__ = ("_transport", "is_closed")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.is_closed = False

    @property
    def is_lost(self) -> bool:
        """Whether the connection itself is gone, or about to be."""
        return self._transport.is_closing()

    @property
    def is_flushed(self) -> bool:
        """Whether the machine has taken all that was written, and will deliver it."""
        return self.is_lost or self._transport.get_write_buffer_size() == 0

    def send(self, frame: bytes) -> bool:
        """Hand the peer a frame without waiting, and answer whether it reads what it is sent."""
        transport = self._transport
        if self.is_closed or transport.is_closing():
            return True
        if transport.get_write_buffer_size() > MAX_UNREAD:
            return False
        transport.write(frame)
        return True

    def refuse(self, code: int, reason: str) -> None:
        """Say why, in the protocol's words and in the closing frame, and close."""
        self._write_last(error(code, reason) + close(code, reason))

    def close(self, code: int, reason: str = "") -> None:
        """Close as WebSockets do, where the protocol above them has nothing to say."""
        self._write_last(close(code, reason))

    def _write_last(self, frames: bytes) -> None:
        if not (self.is_closed or self.is_lost):
            self._transport.write(frames)
        self.is_closed = True

    def close_back(self, code: int) -> None:
        """Answer a peer that closes, and hang up when it has what was written."""
        self.close(code)
        self._transport.close()

    def hang_up(self) -> None:
        """Give the connection up, and whatever the peer has not read."""
        self._transport.abort()


PUSHER_PING = message("pusher:ping", data="{}")
PUSHER_PONG = message("pusher:pong", data="{}")

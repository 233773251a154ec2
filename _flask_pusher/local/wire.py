"""What travels: JSON, WebSocket frames, and the one hand that writes them to a connection."""

from __future__ import annotations

import json
import math
import struct
from itertools import chain
from typing import Any, Protocol

MAX_DEPTH = 100  # of JSON
MAX_UNREAD = 1024 * 1024  # bytes that wait for a slow reader before it is closed
MAX_CONTROL = 125  # bytes of a control frame, by RFC 6455

TEXT, CLOSE, PONG = 0x1, 0x8, 0xA


# -- JSON -----------------------------------------------------------------------------------------


def parse_json(text: str) -> Any:
    """Parse what a peer sent into what :func:`to_json` can write again.

    :raises ValueError: it is not JSON, or holds a number or a depth that no application needs.
    """
    try:
        value = json.loads(text, parse_float=_parse_finite, parse_constant=_parse_finite)
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


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        dicts = [item for item in level if isinstance(item, dict)]
        lists = [item for item in level if isinstance(item, list)]
        level = [*chain.from_iterable(lists), *chain.from_iterable(d.values() for d in dicts)]
    return bool(level)


def to_json(value: object) -> str:
    """Make JSON in ASCII, which carries even half a surrogate pair."""
    return json.dumps(value, separators=(",", ":"))


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


# -- Writing --------------------------------------------------------------------------------------


class Transport(Protocol):
    """What is used of an :class:`asyncio.Transport`."""

    def write(self, data: bytes) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def is_closing(self) -> bool: ...
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

    def hang_up(self) -> None:
        """Give the connection up, and whatever the peer has not read."""
        self._transport.abort()


PUSHER_PING = message("pusher:ping", data="{}")
PUSHER_PONG = message("pusher:pong", data="{}")

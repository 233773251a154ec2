"""What travels: JSON, WebSocket frames, who reads them, and the one hand that writes them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Protocol

from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed
from wsproto.utilities import generate_accept_token

MAX_DEPTH = 100  # of JSON
MAX_UNREAD = 1024 * 1024  # bytes that wait for a slow reader before it is closed
MAX_MESSAGE = 64 * 1024  # characters, from a peer


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
    return bytes(_frames().send_data(to_json(content)))


def error(code: int | None, reason: str, channel: str | None = None) -> bytes:
    return message("pusher:error", channel, data={"code": code, "message": reason})


def pong(payload: bytes) -> bytes:
    """Answer a WebSocket ping, which is not the protocol's ``pusher:ping``."""
    return bytes(_frames().pong(payload))


def close(code: int, reason: str = "") -> bytes:
    """Build a closing frame, whose reason is cut to what fits, between characters.

    :param code: 1005 for none, as a peer may close as well.
    """
    if code == CloseReason.NO_STATUS_RCVD:
        return bytes(_frames().close())
    return bytes(_frames().close(code, reason.encode("utf-8", "replace").decode()))


def _frames() -> FrameProtocol:
    """Make what reads and writes frames. It has a state, that of a message that is not whole yet."""
    return FrameProtocol(client=False, extensions=[])


# -- Reading --------------------------------------------------------------------------------------


def is_for_websocket(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for a WebSocket, of whichever version."""
    return headers.get("Upgrade", "").lower() == "websocket"


def handshake(headers: Mapping[str, str]) -> bytes | None:
    """Answer a request for a WebSocket, if these are the headers of one."""
    key = headers.get("Sec-WebSocket-Key", "")
    if (
        not is_for_websocket(headers)
        or "upgrade" not in headers.get("Connection", "").lower()
        or headers.get("Sec-WebSocket-Version") != "13"
        or re.fullmatch("[A-Za-z0-9+/]{22}==", key) is None
    ):
        return None
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + generate_accept_token(key.encode()) + b"\r\n\r\n"
    )


class BrokenError(Exception):
    """What a peer sent is no WebSocket, and nothing behind it can be read."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Reader:
    """The incoming half of one connection: it makes messages of the bytes that come."""

    __slots__ = ("_frames", "_pieces", "_size")

    def __init__(self) -> None:
        self._frames = _frames()
        self._pieces: list[str] = []  # of a message that has not come whole,
        self._size = 0  # and how long they are

    def feed(self, data: bytes) -> Iterator[tuple[Opcode, Any]]:
        """Yield each message's opcode, and its payload: a text; the bytes of a ping or pong; the
        code and the reason of a closing frame. Of binary ones, which are of no use, the opcode is
        enough.

        :raises BrokenError: by the iterator, which has yielded what came before.
        """
        self._frames.receive_bytes(data)
        try:
            for frame in self._frames.received_frames():
                if frame.opcode.iscontrol():
                    yield frame.opcode, frame.payload
                    continue
                self._size += len(frame.payload)
                if self._size > MAX_MESSAGE:
                    raise BrokenError(1009, f"A message has over {MAX_MESSAGE} characters")
                if frame.opcode is Opcode.TEXT and frame.payload:
                    self._pieces.append(str(frame.payload))
                if frame.message_finished:
                    text = "".join(self._pieces)
                    self._pieces, self._size = [], 0
                    yield frame.opcode, text
        except ParseFailed as error:
            raise BrokenError(error.code, str(error)) from None


# -- Writing --------------------------------------------------------------------------------------


class Transport(Protocol):
    """What is used of an :class:`asyncio.Transport`."""

    def write(self, data: bytes) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def get_protocol(self) -> object: ...
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
        """Whether the connection itself is gone, or about to be.

        Before Python 3.11, one by TLS tells no other way that the peer has gone than by having no
        protocol any more, and its buffer cannot be asked for its size then.
        """
        return self._transport.is_closing() or self._transport.get_protocol() is None

    @property
    def is_flushed(self) -> bool:
        """Whether the machine has taken all that was written, and will deliver it."""
        return self.is_lost or self._transport.get_write_buffer_size() == 0

    def send(self, frame: bytes) -> bool:
        """Hand the peer a frame without waiting, and answer whether it reads what it is sent."""
        if self.is_closed or self.is_lost:
            return True
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            return False
        self._transport.write(frame)
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

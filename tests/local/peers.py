"""The other sides of the server: a browser and the application, in the least code."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

APP_ID, KEY, SECRET = "3", "a-key", "a-secret"


def sign(text: str | bytes, secret: str = SECRET) -> str:
    message = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


class Closed(Exception):  # noqa: N818 - it is no error that a connection closes
    """The server closed the connection, with this code, or without one."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Browser:
    """A WebSocket client of nothing but a socket, so that it can misbehave as it likes."""

    def __init__(
        self,
        address: tuple[str, int],
        path: str,
        receive_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(address)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=address[0])
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self._unread = b""
        while b"\r\n\r\n" not in self._unread:
            self._read()
        head, self._unread = self._unread.split(b"\r\n\r\n", 1)
        self.status = int(head.split()[1])

    def established(self) -> Browser:
        event, data = self.expect("pusher:connection_established")
        assert event["event"] == "pusher:connection_established"
        self.socket_id: str = data["socket_id"]
        self.activity_timeout: float = data["activity_timeout"]
        return self

    def send(self, event: str, data: object = None, channel: str | None = None) -> None:
        self.send_together((event, data, channel))

    def send_together(self, *events: tuple[str, object, str | None]) -> None:
        """Send events that the server hears in one moment, however slow this machine is."""
        frames = b""
        for event, data, channel in events:
            frame = {"event": event, "data": data}
            if channel is not None:
                frame["channel"] = channel
            frames += self._frame_of(json.dumps(frame))
        self.socket.sendall(frames)

    def send_text(self, text: str | bytes, opcode: int = 1) -> None:
        self.socket.sendall(self._frame_of(text, opcode))

    @staticmethod
    def _frame_of(text: str | bytes, opcode: int = 1) -> bytes:
        payload = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        if len(payload) < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | len(payload))
        elif len(payload) < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 0xFE, len(payload))
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0xFF, len(payload))
        return head + bytes(4) + payload  # a mask of zeros changes nothing

    def receive(self, timeout: float = 20) -> dict[str, Any]:
        """The next event's frame.

        :raises Closed: the server has closed.
        :raises TimeoutError: nothing came.
        """
        self.socket.settimeout(timeout)
        opcode, payload = self._frame()
        if opcode == 8:
            raise Closed(struct.unpack("!H", payload[:2])[0], payload[2:].decode())
        assert opcode == 1, (opcode, payload)
        message: dict[str, Any] = json.loads(payload)
        return message

    def expect(self, *names: str, timeout: float = 20) -> tuple[dict[str, Any], Any]:
        """The next event's frame and its data; anything but one of these names is a failure."""
        message = self.receive(timeout)
        assert message["event"] in names, message
        data = message.get("data")
        if isinstance(data, str):
            with contextlib.suppress(ValueError):  # as pusher-js does it
                data = json.loads(data)
        return message, data

    def expect_error(self) -> dict[str, Any]:
        """The next frame, an error, whose data is an object and no text."""
        message = self.receive()
        assert message["event"] == "pusher:error", message
        assert set(message["data"]) == {"code", "message"}
        data: dict[str, Any] = message["data"]
        return data

    def expect_closed(self) -> Closed:
        with pytest.raises(Closed) as closed:
            self.receive()
        return closed.value

    def expect_nothing(self) -> None:
        """Nothing comes before the answer to a ping."""
        self.send("pusher:ping")
        self.expect("pusher:pong")

    def until(self, event: str) -> dict[str, Any]:
        """Read on until there is an event of this name."""
        while True:
            message = self.receive()
            if message["event"] == event:
                return message

    def until_closed(self) -> Closed:
        with pytest.raises(Closed) as closed:
            self.until("")
        return closed.value

    def subscribe(self, channel: str, channel_data: object = None, **fields: object) -> Any:
        """Subscribe with the signature that the channel needs, and answer the data of success."""
        self.ask_to_subscribe(channel, channel_data, **fields)
        message, data = self.expect("pusher_internal:subscription_succeeded")
        assert message["channel"] == channel
        if not channel.startswith(("presence-", "#")):
            self.expect("pusher_internal:subscription_count")
        return data

    def ask_to_subscribe(
        self, channel: str, channel_data: object = None, **fields: object
    ) -> None:
        data = {"channel": channel}
        text = f"{self.socket_id}:{channel}"
        if channel_data is not None:
            data["channel_data"] = json.dumps(channel_data)
            text += ":" + data["channel_data"]
        if channel.startswith(("private-", "presence-")):
            data["auth"] = f"{KEY}:{sign(text)}"
        self.send("pusher:subscribe", {**data, **fields})

    def sign_in(self, **user: object) -> None:
        self.ask_to_sign_in(**user)
        _, data = self.expect("pusher:signin_success")
        assert json.loads(data["user_data"]) == user

    def ask_to_sign_in(self, **user: object) -> None:
        user_data = json.dumps(user)
        auth = f"{KEY}:{sign(f'{self.socket_id}::user::{user_data}')}"
        self.send("pusher:signin", {"auth": auth, "user_data": user_data})

    def close(self) -> None:
        self.socket.close()

    def _frame(self) -> tuple[int, bytes]:
        first, length = self._take(2)
        assert first & 0x80, "the server fragments no frame"
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return first & 0x0F, self._take(length)

    def _take(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._read()
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    def _read(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        except socket.timeout as error:  # two classes in Python 3.9
            raise TimeoutError from error
        if not data:
            raise Closed(None)
        self._unread += data


Connect = Callable[..., Browser]


class Api:
    """Calls the HTTP API, rightly signed unless told otherwise."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> requests.Response:
        return self.call("GET", path, b"", query)

    def post(self, path: str, body: object, **query: str) -> requests.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.call("POST", path, content, query)

    def call(
        self,
        method: str,
        path: str,
        body: bytes,
        query: dict[str, str],
        app_id: str = APP_ID,
        secret: str = SECRET,
        omit: str = "",
    ) -> requests.Response:
        """:param query: these win over what is right."""
        path = f"/apps/{app_id}{path}"
        signed = {
            "auth_key": KEY,
            "auth_timestamp": str(int(time.time())),
            "auth_version": "1.0",
            "body_md5": hashlib.md5(body, usedforsecurity=False).hexdigest(),
            **query,
        }
        signed.pop(omit, None)
        text = "&".join(f"{key}={signed[key]}" for key in sorted(signed))
        signed.setdefault("auth_signature", sign(f"{method}\n{path}\n{text}", secret))
        url = f"{self.url}{path}?{urlencode(signed)}"
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, url, data=body, timeout=30)


def eventually(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for a condition to be true, and answer what it answered."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def lines(caplog: pytest.LogCaptureFixture, kind: str) -> list[str]:
    """What the server told of this kind."""
    messages = [record.getMessage() for record in caplog.records]
    return [line[len(kind) + 2 :] for line in messages if line.startswith(kind + ": ")]


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == len(lines(caplog, "refused"))
    return lines(caplog, "refused")

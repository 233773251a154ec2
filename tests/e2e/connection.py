"""A WebSocket to the server, for what only the frames show."""

from __future__ import annotations

import json
import struct
from typing import Any

import websocket

from flask_pusher import Client

from . import WAIT_SECONDS


class Connection:
    """Protocol 7, a frame at a time."""

    def __init__(self, client: Client, key: str | None = None, query: str = "protocol=7") -> None:
        host, port, _ = client.address
        self._websocket = websocket.create_connection(
            f"ws://{host}:{port}/app/{key or client.key}?client=test&version=1&{query}",
            timeout=WAIT_SECONDS,
        )

    def send(self, event: str, data: Any, **more: Any) -> None:
        self._websocket.send(json.dumps({"event": event, "data": data, **more}))

    def read(self) -> tuple[int, bytes]:
        """The opcode and the payload of the next frame, of whatever kind."""
        opcode, payload = self._websocket.recv_data(control_frame=True)
        return opcode, payload

    def send_text(self, text: str) -> None:
        self._websocket.send(text)

    def frame(self) -> dict[str, Any]:
        """The next frame."""
        frame: dict[str, Any] = json.loads(self._websocket.recv())
        return frame

    def frame_of(self, event: str) -> dict[str, Any]:
        """The next frame of an event, skipping others."""
        seen: list[dict[str, Any]] = []
        while True:
            try:
                frame = self.frame()
            except websocket.WebSocketTimeoutException:
                raise AssertionError(f"{event} did not come, but {seen}") from None
            if frame["event"] == event:
                return frame
            seen.append(frame)

    def established(self) -> str:
        """Wait for the welcome, and return the socket id."""
        socket_id: str = json.loads(self.frame_of("pusher:connection_established")["data"])[
            "socket_id"
        ]
        return socket_id

    def close_code(self) -> int:
        """Wait until the server closes, and return why."""
        while True:
            opcode, payload = self._websocket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                (code,) = struct.unpack("!H", payload[:2])
                return int(code)

    def close(self) -> None:
        self._websocket.close()
        # Where the server closed, the line above left the socket open.
        self._websocket.shutdown()  # type: ignore[no-untyped-call]

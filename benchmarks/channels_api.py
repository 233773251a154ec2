"""A stand-in for the HTTP API of Channels, that sees what a client does on the wire."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar, final

T = TypeVar("T")

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SECONDS = 30


@final
class ChannelsApi:
    """Takes every event, in a thread of its own, while the ``with`` statement lasts."""

    def __init__(self) -> None:
        self.round_trip = 0.0
        """The seconds between a request and its answer."""
        self.answers = True
        """Whether a request is answered; if not, its connection is closed."""
        self.hangs = ""
        """The name of an event whose call is not answered as long as it stands here."""
        self.connections = 0
        self.calls = 0
        self.deliveries: list[tuple[str, str]] = []
        """Each event's channel and name, in the order in which they came."""
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="channels-api")

    def __enter__(self) -> ChannelsApi:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.close()
        self.drop_connections()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def events(self) -> list[str]:
        """The names of the events, in the order in which they came."""
        return [name for _, name in self.deliveries]

    def forget(self) -> None:
        """Begin anew to count calls and events."""
        self.calls, self.deliveries = 0, []

    def drop_connections(self) -> None:
        """Close what is open, as a server does with a connection that was idle too long."""
        self._run(self._drop_connections())

    async def _drop_connections(self) -> None:
        for connection in list(self._open):
            connection.close()
        while self._open:
            await asyncio.sleep(0.001)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._open.discard(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; tells whether there may be another."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        content = json.loads(await reader.readexactly(int(length)))
        self.calls += 1
        self.deliveries += [
            (channel, event["name"])
            for event in content.get("batch", [content])
            for channel in event.get("channels", [event.get("channel")])
        ]
        while self.hangs and self.hangs in str(content):
            await asyncio.sleep(0.01)
        if self.round_trip:
            await asyncio.sleep(self.round_trip)
        if self.answers:
            writer.write(ANSWER)
        return self.answers

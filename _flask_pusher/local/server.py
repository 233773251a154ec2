"""The server: one event loop that owns all of the state, so that nothing takes a lock."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from . import wire
from .api import Api
from .connection import CLOSE_SECONDS, Connection
from .console import logger
from .page import Page
from .printable import printable
from .state import Credentials, Happening, Limits, State
from .views import WebhookView
from .webhooks import Destination, Webhook

MAX_BODY = 1024 * 1024  # bytes, of an API request
QUIET_SECONDS = 0.1  # in which a peer has sent nothing when the server stops
LATE = ("channel_vacated", "member_removed")  # webhooks that wait for who may be back
MAX_POSTED = 10_000  # events of webhooks that are kept for tests


class Clock:
    """The loop's time, which can be moved on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ahead = 0.0
        self._timers: dict[Timer, None] = {}

    def time(self) -> float:
        return self._loop.time() + self._ahead

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        timer = Timer(self.time() + seconds, callback, self._timers)
        timer.handle = self._loop.call_later(seconds, timer.fire)
        return timer

    def advance(self, seconds: float) -> None:
        """Let time jump: what has become due happens once, in order, and the rest is nearer."""
        self._ahead += seconds
        now = self.time()
        for timer in sorted(self._timers, key=lambda timer: timer.due):
            if timer not in self._timers:
                continue  # one before it has cancelled it
            timer.handle.cancel()
            if timer.due <= now:
                timer.fire()
            else:
                timer.handle = self._loop.call_later(timer.due - now, timer.fire)


class Timer:
    __slots__ = ("_callback", "_timers", "due", "handle")

    handle: asyncio.TimerHandle

    def __init__(
        self, due: float, callback: Callable[[], object], timers: dict[Timer, None]
    ) -> None:
        self.due = due
        self._callback = callback
        self._timers = timers
        timers[self] = None

    def fire(self) -> None:
        del self._timers[self]
        self._callback()

    def cancel(self) -> None:
        if self in self._timers:
            del self._timers[self]
            self.handle.cancel()


class Server:
    """Puts the state, the connections, the API, the webhooks and the page together."""

    def __init__(
        self,
        credentials: Credentials,
        destinations: Sequence[Destination],
        limits: Limits,
        report: Callable[[Happening], None],
        host: str,
    ) -> None:
        self.clock = Clock()
        self.state = State(self.clock, self, limits)
        self.posted: deque[WebhookView] = deque(maxlen=MAX_POSTED)
        self._taken: deque[dict[str, Any]] = deque(maxlen=MAX_POSTED)  # and not waited for yet
        self._credentials = credentials
        self._api = Api(self.state, credentials)
        self._page = Page(self.state, self._api, credentials, host)
        self._webhooks = [
            Webhook(destination, credentials, self.clock, self.happened, self._answered)
            for destination in destinations
        ]
        self._report = report
        self._changed = asyncio.Event()
        self._refused: deque[Happening] = deque(maxlen=100)
        self._connections: set[Connection] = set()
        self._all_lost = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(
        self, listener: socket.socket, backlog: int, tls: ssl.SSLContext | None
    ) -> AsyncIterator[None]:
        """Serve the listening socket for as long as the context lasts."""
        application = web.Application(client_max_size=MAX_BODY)
        application.add_routes(self._api.routes())
        application.add_routes(self._page.routes())
        application.router.add_route("*", "/{path:.*}", self._connect)
        runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            logger=_http_logger(),
            shutdown_timeout=CLOSE_SECONDS,
        )
        await runner.setup()
        await web.SockSite(runner, listener, backlog=backlog, ssl_context=tls).start()
        try:
            async with contextlib.AsyncExitStack() as stack:
                for webhook in self._webhooks:
                    await stack.enter_async_context(webhook.running())
                yield
        finally:
            await self._stop()
            await _end(runner)

    async def _stop(self) -> None:
        """Let peers close, but do not wait for those that do nothing: they may be waiting for us."""
        self._page.close()
        deadline = self.clock.time() + CLOSE_SECONDS
        while self._connections and self.clock.time() < deadline:
            self.disconnect(4200, "The server is stopping, connect again")
            self._all_lost.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_lost.wait(), QUIET_SECONDS)
            for connection in self._connections:
                if connection.can_hang_up(QUIET_SECONDS):
                    connection.hang_up()
        for connection in self._connections:
            connection.hang_up()

    async def _connect(self, request: web.Request) -> web.Response:
        """Begin a WebSocket, and show the page to whom asks for none."""
        answer = wire.handshake(request.headers)
        if request.method != "GET" or answer is None:
            return await self._page.show(request)
        transport = request.transport
        # By TLS, a connection has no protocol a moment before aiohttp hears that it is lost.
        if transport is not None and transport.get_protocol() is not None:
            transport.write(answer)
            connection = Connection(
                self.state, self._credentials, self.clock, transport, self._lose
            )
            self._connections.add(connection)
            connection.begin(request)
            _take_over(transport, request.protocol, connection)
        return web.Response()  # to nobody

    def _lose(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_lost.set()

    # What the state tells

    def happened(self, happening: Happening) -> None:
        self._page.happened(happening)
        self._report(happening)
        if happening.kind == "refused":
            self._refused.append(happening)
        self._changed.set()

    def tell_application(self, event: dict[str, object]) -> None:
        for webhook in self._webhooks:
            webhook.add(event)

    def _answered(self, views: Sequence[WebhookView]) -> None:
        self.posted.extend(views)
        self._taken.extend(view.event for view in views if not view.problem)
        self._changed.set()

    # What a test asks for

    def disconnect(self, code: int, reason: str) -> None:
        for connection in list(self.state.peers.values()):
            if isinstance(connection, Connection):
                connection.close(code, reason)

    async def wait_for(self, name: str, subscribers: int) -> bool:
        """Wait until a channel has as many subscribers."""
        while not (self._count(name) >= subscribers > 0 or self._count(name) == subscribers):
            await self._change()
        return True

    async def why_not(self, name: str, subscribers: int, seconds: float) -> str:
        """How many subscribers a channel has instead, and what was last refused on it."""
        reasons = [each.text for each in self._refused if each.channel == name]
        refused = f"; last refused: {reasons[-1]}" if reasons else ""
        return (
            f"{name} has {self._count(name)} subscribers after {seconds:g} seconds, not"
            f" {subscribers}{refused}"
        )

    async def wait_for_webhook(self, name: str, channel: str | None) -> dict[str, Any]:
        """Wait until an event was taken that nobody has waited for yet."""
        while True:
            for event in self._taken:
                if event["name"] == name and channel in (None, event["channel"]):
                    self._taken.remove(event)
                    return event
            await self._change()

    async def why_no_webhook(self, name: str, channel: str | None, seconds: float) -> str:
        """What became of an event instead of being taken."""
        what = name if channel is None else f"{name} of {channel}"
        problems = [
            view.problem
            for view in self.posted
            if view.event["name"] == name and channel in (None, view.event["channel"])
        ]
        if problems and problems[-1]:
            return f"{what} was not taken within {seconds:g} seconds: {problems[-1]}"
        other, delay = "other " if problems else "", self.state.limits.webhook_delay
        late = f"; it is posted {delay:g} s late, which advance({delay:g}) skips"
        return (
            f"No {other}{what} was posted within {seconds:g} seconds"
            f"{late if name in LATE and delay else ''}"
        )

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _count(self, name: str) -> int:
        channel = self.state.channels.get(name)
        return 0 if channel is None else len(channel.subscribers)


def _take_over(
    transport: asyncio.Transport, http: web.RequestHandler, connection: Connection
) -> None:
    """Take a connection from aiohttp, to which it is lost, with the 10 kB that it kept for it."""
    behind = _Behind()
    http.set_parser(behind)  # type: ignore[arg-type]
    http.transport = None
    http.connection_lost(None)
    transport.set_protocol(connection)
    if behind.data:
        connection.data_received(behind.data)


class _Behind:
    """What came right behind the handshake, before anybody could read frames."""

    data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Nothing is left."""


async def _end(runner: web.AppRunner) -> None:
    """Finish what is being answered, and keep no socket for peers that say no goodbye by TLS."""
    server = runner.server
    transports = [] if server is None else [peer.transport for peer in server.connections]
    await runner.cleanup()
    for transport in transports:
        if transport is not None:
            transport.abort()
    await asyncio.sleep(0)


def _http_logger() -> logging.Logger:
    """A logger for aiohttp, to which a request that is no HTTP is an error with a traceback."""
    http_logger = logger.getChild("http")
    http_logger.addFilter(_shorten)
    return http_logger


def _shorten(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
        what = getattr(error, "message", str(error))
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = "refused: no HTTP request: %s", (printable(what),)
        record.exc_info = None
    return True

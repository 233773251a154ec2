"""A Channels server for development and tests, on this machine, for one Flask application.

A realtime page needs three parties: the application, the browser, and a Channels service between
them. This module is the third, so that developing and testing take no account, no network and no
quota. It speaks what the hosted service speaks, protocol 7 over WebSocket and the signed HTTP API,
holds both sides to the same rules, and says in plain words what it refused and why.

In an application's tests it takes three lines, and the application's own client and
``pusher_options()`` point at it for as long as it runs::

    @pytest.fixture
    def channels(app):
        with flask_pusher_local.start(app) as server:
            yield server

While developing, it runs in a terminal of its own and prints what happens::

    $ flask pusher serve

Its address, opened in a browser, shows connections, channels, members and events live.

One event loop owns all of the state, so nothing here takes a lock. The module reads from the
outside in: the two functions above, the thread that runs the server, and then the server itself:
its state, one connection, the HTTP API, webhooks, and the page.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import hmac
import ipaddress
import json
import logging
import math
import re
import secrets
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, Protocol, Union, cast, final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from aiohttp.http import HttpProcessingError
from flask import Flask, url_for

__all__ = ["LocalServer", "serve", "start"]

logger = logging.getLogger(__name__)

Webhooks = Union[None, bool, str, Sequence[Union[str, Mapping[str, Any]]]]
Report = Callable[[str, str], None]


# -- Starting and stopping ------------------------------------------------------------------------


def start(
    app: Flask,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    webhooks: Webhooks = None,
    activity_timeout: float = 120,
) -> LocalServer:
    """Start a Channels server for an application, in a background thread.

    It accepts connections when this returns. Until it is stopped, the application's client and
    ``pusher_options()`` point at it. What it refuses is logged as warnings of this module's
    logger, everything else as information.

    :param app: an application with a configured :class:`flask_pusher.Pusher`; its credentials are
        the only ones that the server knows.
    :param host: the address to listen on, loopback unless told otherwise.
    :param port: the port to listen on; 0 takes a free one.
    :param webhooks: where webhooks go; nowhere by default. ``True`` hands them to the application in this process, at
        its ``pusher.events`` route. A URL, or a list of URLs or of dicts with a ``url`` and
        optionally ``event_types`` (names of events; all of them by default) and ``batch``
        (``False`` posts each event by itself), posts them there; a URL without a path gets the
        path of the ``pusher.events`` route.
    :param activity_timeout: seconds of silence after which either side pings the other.
    :raises RuntimeError: the application has no Flask-Pusher extension.
    :raises OSError: the address cannot be listened on, because the port is in use for example.
    :raises ValueError: ``webhooks`` is none of the above, or ``port`` is none.
    """
    return LocalServer(app, host, port, webhooks, _log, activity_timeout)


def serve(
    app: Flask,
    host: str = "127.0.0.1",
    port: int = 6001,
    quiet: bool = False,
    *,
    webhooks: Webhooks = None,
) -> None:
    """Run a Channels server for an application until Ctrl-C or SIGTERM, printing what happens.

    Takes what :func:`start` takes, and has to be called in the main thread, where signals arrive.

    :param quiet: print how to reach the server, but not what happens.
    :raises SystemExit: with the reason, where :func:`start` raises an :exc:`OSError` or a
        :exc:`ValueError`.
    """
    stopped = threading.Event()
    with _on_signals(stopped.set):
        try:
            server = LocalServer(app, host, port, webhooks, _ignore if quiet else _print_report)
        except (OSError, ValueError) as error:
            raise SystemExit(str(error)) from error
        with server:
            _print_welcome(server, host)
            while not stopped.is_set():
                stopped.wait(0.5)  # Windows runs signal handlers only between waits
        _print("Stopped.")


@final
class LocalServer:
    """A running server, as :func:`start` returns it, and a context manager that stops it."""

    #: The host and the port to reach it at.
    host: str
    port: int

    def __init__(
        self,
        app: Flask,
        host: str,
        port: int,
        webhooks: Webhooks,
        report: Report,
        activity_timeout: float = 120,
    ) -> None:
        self._client = _client_of(app)
        self._destinations = destinations = _parse_webhooks(webhooks, app)
        listener = _listen(host, port)
        self.host = _reachable(host)
        self.port = listener.getsockname()[1]
        self._stop = self._start_thread(
            lambda: _Server(self._client, destinations, activity_timeout, report, host), listener
        )
        self._address_before = self._client.address
        self._client.address = (self.host, self.port, False)

    @property
    def url(self) -> str:
        """The address of the page that shows what happens, and the base of the HTTP API."""
        return f"http://{self.host}:{self.port}"

    def stop(self) -> None:
        """Close every connection, stop the thread, and point the client where it pointed before.

        Browsers are told to connect again (code 4200). Webhooks not delivered yet are dropped.
        Stopping a stopped server does nothing.
        """
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # another thread has just stopped it
                self._stop()
            self._thread.join()
            self._client.address = self._address_before

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _start_thread(
        self, make_server: Callable[[], _Server], listener: socket.socket
    ) -> Callable[[], object]:
        started: concurrent.futures.Future[Callable[[], object]] = concurrent.futures.Future()

        async def main() -> None:
            stopping = asyncio.Event()
            loop = asyncio.get_running_loop()
            async with make_server().running(listener):
                started.set_result(partial(loop.call_soon_threadsafe, stopping.set))
                await stopping.wait()

        def run() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:  # noqa: BLE001 (whichever, the caller raises it)
                listener.close()
                started.set_exception(error)

        self._thread = threading.Thread(target=run, name="flask-pusher-local", daemon=True)
        self._thread.start()
        return started.result()


class _Client(Protocol):
    """What is used of the application's client."""

    address: tuple[str, int, bool]

    @property
    def app_id(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def secret(self) -> str: ...


def _client_of(app: Flask) -> _Client:
    try:
        client: _Client = app.extensions["pusher"]
    except KeyError:
        raise RuntimeError(
            f"The application {app.name!r} has no Flask-Pusher extension, so there are no"
            " credentials to serve. Did you forget to call 'init_app'?"
        ) from None
    return client


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ValueError(f"Port {port} is not from 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"Cannot listen on {host} port {port}: {reason}") from error


def _reachable(host: str) -> str:
    """The host of a URL that reaches a server listening on ``host``."""
    if not host or _has(host, "is_unspecified"):
        host = "::1" if ":" in host else "127.0.0.1"
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def _on_signals(callback: Callable[[], None]) -> Iterator[None]:
    before = {
        number: signal.signal(number, lambda *_: callback())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_welcome(server: LocalServer, host: str) -> None:
    client = server._client
    _print(f"A local Channels server for app {client.app_id}, key {client.key}, is running.")
    _print("It is for development: do not use it in production. Point the application at it with")
    _print(f'  PUSHER_HOST = "{server.host}"')
    _print(f"  PUSHER_PORT = {server.port}")
    _print("  PUSHER_SSL = False")
    if not _is_loopback(host):
        _print(f"WARNING: it listens on {host or 'every address'}, where others can reach it.")
    urls = ", ".join(destination.url for destination in server._destinations)
    _print(f"It posts webhooks {'to ' + urls if urls else 'nowhere, having no URL for them'}.")
    _print(f"What happens is shown at {server.url}/ too. Press Ctrl-C to stop.")


def _is_loopback(host: str) -> bool:
    return host == "localhost" or _has(host, "is_loopback")


def _has(host: str, quality: str) -> bool:
    try:
        return bool(getattr(ipaddress.ip_address(host), quality))
    except ValueError:
        return False


def _log(kind: str, text: str) -> None:
    logger.log(logging.WARNING if kind == "refused" else logging.INFO, "%s: %s", kind, text)


def _ignore(kind: str, text: str) -> None:
    pass


def _print_report(kind: str, text: str) -> None:
    _print(f"{time.strftime('%H:%M:%S')} {kind:<11} {text}")


def _print(line: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    with contextlib.suppress(OSError):  # nobody reads the pipe any more: no reason to stop serving
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


# -- The rules of Channels ------------------------------------------------------------------------

PROTOCOLS = ("5", "6", "7")  # they differ in nothing that a server does
MAX_CHANNEL_NAME = 200
MAX_EVENT_NAME = 200
MAX_EVENT_DATA = 10 * 1024  # bytes
MAX_CHANNELS = 100  # of one event
MAX_BATCH = 10  # events
MAX_CLIENT_EVENTS = 10  # a second, from one connection
MAX_WATCHLIST = 100  # users
MAX_USER_ID = 200
MAX_CLOCK_SKEW = 600  # seconds
CACHE_SECONDS = 30 * 60
PONG_SECONDS = 30
SMALL_CHANNEL = 100  # subscribers; above that, the count is announced at intervals
COUNT_INTERVAL = 5  # seconds
WEBHOOK_RETRY_SECONDS = 5 * 60
WEBHOOK_FIRST_PAUSE = 0.5
WEBHOOK_LAST_PAUSE = 30
WEBHOOK_ANSWER_SECONDS = 10
WEBHOOK_WINDOW = 0.05  # seconds in which events become one batch
MAX_WEBHOOK_BATCH = 500  # events

# The server's own limits, which keep one peer from holding the others.

BACKLOG = 1024  # connections not accepted yet
MAX_MESSAGE = 64 * 1024  # bytes, from a browser
MAX_BODY = 1024 * 1024  # bytes, of an API request
MAX_UNREAD = 1024 * 1024  # bytes that wait for a slow reader before it is closed
CLOSE_SECONDS = 1  # that a peer is given to close its side
MAX_CACHED = 1000  # channels
MAX_DEPTH = 100  # of JSON
MAX_PENDING_WEBHOOKS = 10_000  # events

USER_CHANNEL = "#server-to-user-"

CHANNEL_NAME = re.compile(rf"(?:{USER_CHANNEL})?[A-Za-z0-9_\-=@,.;]+", re.ASCII)
CACHE_CHANNEL = re.compile(r"(?:private-encrypted-|private-|presence-)?cache-")
SOCKET_ID = re.compile(r"[0-9]+\.[0-9]+")


def _is_channel_name(name: object) -> bool:
    return (
        isinstance(name, str)
        and len(name) <= MAX_CHANNEL_NAME
        and CHANNEL_NAME.fullmatch(name) is not None
    )


def _is_presence(channel: str) -> bool:
    return channel.startswith("presence-")


def _needs_authorisation(channel: str) -> bool:
    return channel.startswith(("private-", "presence-"))


def _allows_client_events(channel: str) -> bool:
    return _needs_authorisation(channel) and not channel.startswith("private-encrypted-")


def _is_cache(channel: str) -> bool:
    return CACHE_CHANNEL.match(channel) is not None


def _parse_json(text: str) -> Any:
    """Parse what a peer sent into what :func:`_to_json` can write again.

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


def _to_json(value: object) -> str:
    """Make JSON in ASCII, which carries even half a surrogate pair."""
    return json.dumps(value, separators=(",", ":"))


def _text_frame(text: str) -> bytes:
    """Build the WebSocket frame of an ASCII text, so that many connections can share its bytes."""
    payload = text.encode("ascii")
    if len(payload) < 126:
        return struct.pack("!BB", 0x81, len(payload)) + payload
    if len(payload) < 65536:
        return struct.pack("!BBH", 0x81, 126, len(payload)) + payload
    return struct.pack("!BBQ", 0x81, 127, len(payload)) + payload


def _message(event: str, data: object, channel: str | None = None, **more: str) -> bytes:
    """Build the frame of one event.

    :param data: travels as it is, so it is a string where the protocol has JSON inside of JSON.
    """
    message: dict[str, object] = {"event": event, "data": data, **more}
    if channel is not None:
        message["channel"] = channel
    return _text_frame(_to_json(message))


PING = _message("pusher:ping", "{}")
PONG = _message("pusher:pong", "{}")


class _Signatures:
    """Signs and verifies with the application's secret."""

    def __init__(self, key: str, secret: str) -> None:
        self.key = key
        self._hmac = hmac.new(secret.encode(), digestmod=hashlib.sha256)

    def sign(self, text: str | bytes) -> str:
        signer = self._hmac.copy()
        signer.update(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return signer.hexdigest()

    def verify(self, text: str | bytes, signature: str) -> bool:
        return hmac.compare_digest(
            self.sign(text).encode(), signature.encode("utf-8", "surrogatepass")
        )

    def verify_token(self, text: str, token: str) -> bool:
        """Verify ``KEY:SIGNATURE``, as the authorisation route answers it."""
        return token.startswith(self.key + ":") and self.verify(text, token[len(self.key) + 1 :])


# -- The state ------------------------------------------------------------------------------------


class _Member:
    """A user on a presence channel, there by one or several connections."""

    __slots__ = ("connections", "user_info")

    def __init__(self, user_info: object) -> None:
        self.user_info = user_info
        self.connections = 0


class _Channel:
    """A channel that somebody is subscribed to."""

    __slots__ = ("announcement", "members", "name", "subscribers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscribers: dict[_Connection, None] = {}
        self.members: dict[str, _Member] = {}
        self.announcement: asyncio.TimerHandle | None = None


class _CachedEvent(NamedTuple):
    name: str
    data: str
    expires: float


class _Server:
    """Connections, channels and users, and what happens when they change."""

    def __init__(
        self,
        client: _Client,
        destinations: Sequence[_Destination],
        activity_timeout: float,
        report: Report,
        host: str,
    ) -> None:
        self.app_id = client.app_id
        self.signatures = _Signatures(client.key, client.secret)
        self.activity_timeout = activity_timeout
        self.loop = asyncio.get_running_loop()
        self.connections: dict[str, _Connection] = {}
        self.recent_socket_ids: deque[str] = deque(maxlen=100)
        self.channels: dict[str, _Channel] = {}
        self.cache: dict[str, _CachedEvent] = {}
        self.users: dict[str, set[_Connection]] = {}
        self.watchers: dict[str, set[_Connection]] = {}
        self.webhooks = [_Webhook(self, destination) for destination in destinations]
        self.page = _Page(self, host)
        self._report = report
        self._closing: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self, listener: socket.socket) -> AsyncIterator[None]:
        """Serve the listening socket for as long as the context lasts."""
        application = web.Application(client_max_size=MAX_BODY)
        application.add_routes(_Api(self).routes())
        application.add_routes(self.page.routes())
        application.router.add_route("*", "/{path:.*}", self.connect)
        runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            logger=_http_logger(),
            shutdown_timeout=CLOSE_SECONDS,
        )
        await runner.setup()
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
        try:
            async with contextlib.AsyncExitStack() as stack:
                for webhook in self.webhooks:
                    await stack.enter_async_context(webhook.running())
                yield
        finally:
            await self._close_connections()
            self.page.close()
            await runner.cleanup()

    async def _close_connections(self) -> None:
        for connection in list(self.connections.values()):
            connection.close(4200, "The server is stopping, connect again")
        if self._closing:
            await asyncio.wait(self._closing, timeout=2 * CLOSE_SECONDS)

    def finish(self, closing: Awaitable[None]) -> None:
        """Let a connection close by itself, however long its peer takes."""
        task = asyncio.ensure_future(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def note(self, kind: str, text: str) -> None:
        """Tell the developer what happened."""
        text = _printable(text)
        self.page.add(kind, text)
        self._report(kind, text)

    # Connections

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serve a WebSocket until it closes, and the page to whom asks for no WebSocket."""
        websocket = web.WebSocketResponse(
            compress=False, max_msg_size=MAX_MESSAGE, timeout=CLOSE_SECONDS
        )
        if request.method != "GET" or not websocket.can_prepare(request):
            return await self.page.show(request)
        await websocket.prepare(request)
        connection = _Connection(self, websocket, request)
        code, reason = self._why_not_connect(request)
        if code is None:
            connection.open()
        else:
            self.note("refused", f"connection from {request.remote}: {reason} ({code})")
            connection.close(code, reason)
        await connection.serve()
        return websocket

    def _why_not_connect(self, request: web.Request) -> tuple[int | None, str]:
        path = request.path
        protocol = request.query.get("protocol")
        if not path.startswith("/app/") or "/" in path[5:]:
            return 4005, f"Path {path} not found, connect to /app/KEY"
        if path[5:] != self.signatures.key:
            return 4001, f"No application has the key {path[5:]}, it is {self.signatures.key} here"
        if protocol is None:
            return 4008, "No protocol version supplied"
        if not protocol.isdecimal() or not protocol.isascii():
            return 4006, f"Protocol version {protocol} is not a number"
        if protocol not in PROTOCOLS:
            return 4007, f"Protocol version {protocol} is not supported, use 7"
        return None, ""

    def add(self, connection: _Connection) -> None:
        self.connections[connection.socket_id] = connection
        self.recent_socket_ids.append(connection.socket_id)

    def remove(self, connection: _Connection) -> None:
        """Forget a connection that is gone, and tell who needs to know."""
        if self.connections.pop(connection.socket_id, None) is None:
            return
        for name in list(connection.channels):
            self.unsubscribe(connection, name)
        self.sign_out(connection)
        self.note("disconnect", connection.socket_id)

    # Channels

    def subscribe(
        self, connection: _Connection, name: str, user_id: str | None, user_info: object
    ) -> None:
        """Add an authorised connection to a channel; as a user, where that is a presence one."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = _Channel(name)
            self.tell_webhooks("channel_occupied", name)
        channel.subscribers[connection] = None
        connection.channels[name] = user_id
        self.note("subscribe", f"{connection.socket_id} to {name}{_as_user(user_id)}")
        if user_id is None:
            connection.send(_message("pusher_internal:subscription_succeeded", "{}", name))
        else:
            self._add_member(channel, connection, user_id, user_info)
        self._announce_count(channel)
        if _is_cache(name):
            self._replay(name, connection)

    def unsubscribe(self, connection: _Connection, name: str) -> None:
        """Take a subscribed connection from a channel."""
        channel = self.channels[name]
        user_id = connection.channels.pop(name)
        del channel.subscribers[connection]
        self.note("unsubscribe", f"{connection.socket_id} from {name}{_as_user(user_id)}")
        if user_id is not None:
            self._remove_member(channel, user_id)
        self._announce_count(channel)
        if not channel.subscribers:
            del self.channels[name]
            self.tell_webhooks("channel_vacated", name)

    def _add_member(
        self, channel: _Channel, connection: _Connection, user_id: str, user_info: object
    ) -> None:
        member = channel.members.get(user_id)
        if member is None:
            member = channel.members[user_id] = _Member(user_info)
            self.tell_webhooks("member_added", channel.name, user_id=user_id)
            data = _to_json({"user_id": user_id, "user_info": user_info})
            added = _message("pusher_internal:member_added", data, channel.name)
            self._send(channel, added, sparing=connection.socket_id)
        member.connections += 1
        infos = {id_: member.user_info for id_, member in channel.members.items()}
        presence = {"ids": list(infos), "hash": infos, "count": len(infos)}
        data = _to_json({"presence": presence})
        connection.send(_message("pusher_internal:subscription_succeeded", data, channel.name))

    def _remove_member(self, channel: _Channel, user_id: str) -> None:
        member = channel.members[user_id]
        member.connections -= 1
        if member.connections == 0:
            del channel.members[user_id]
            self.tell_webhooks("member_removed", channel.name, user_id=user_id)
            data = _to_json({"user_id": user_id})
            self._send(channel, _message("pusher_internal:member_removed", data, channel.name))

    def _announce_count(self, channel: _Channel) -> None:
        """Tell a channel's subscribers how many they are, less often when they are many."""
        if _is_presence(channel.name) or channel.name.startswith(USER_CHANNEL):
            return
        if not channel.subscribers and channel.announcement is not None:
            channel.announcement.cancel()
            channel.announcement = None
        if channel.announcement is None:
            self._announce_count_now(channel)
            if len(channel.subscribers) > SMALL_CHANNEL:
                channel.announcement = self.loop.call_later(
                    COUNT_INTERVAL, self._announce_count_late, channel, len(channel.subscribers)
                )

    def _announce_count_now(self, channel: _Channel) -> None:
        count = {"subscription_count": len(channel.subscribers)}
        frame = _message("pusher_internal:subscription_count", _to_json(count), channel.name)
        self._send(channel, frame)
        self.tell_webhooks("subscription_count", channel.name, **count)

    def _announce_count_late(self, channel: _Channel, announced: int) -> None:
        channel.announcement = None
        if len(channel.subscribers) != announced:
            self._announce_count(channel)

    def trigger(self, event: _Event) -> None:
        """Send what the application has triggered."""
        for name in event.channels:
            if _is_cache(name):
                self._remember(name, event)
            self.publish(name, event.name, event.data, sparing=event.socket_id)

    def publish(
        self,
        name: str,
        event: str,
        data: str,
        sparing: str | None = None,
        user_id: str | None = None,
    ) -> None:
        """Send an event to a channel's subscribers, except for one socket id."""
        channel = self.channels.get(name)
        if channel is not None:
            by_user = {} if user_id is None else {"user_id": user_id}
            self._send(channel, _message(event, data, name, **by_user), sparing)
        subscribers = len(channel.subscribers) if channel is not None else 0
        self.note("event", f"{event} to {name} ({_count(subscribers, 'subscriber')}): {data}")

    def _send(self, channel: _Channel, frame: bytes, sparing: str | None = None) -> None:
        for connection in channel.subscribers:
            if connection.socket_id != sparing:
                connection.send(frame)

    # Cache channels

    def _remember(self, name: str, event: _Event) -> None:
        """Keep the last event of a cache channel for those who subscribe later."""
        self.cache.pop(name, None)
        expires = time.monotonic() + CACHE_SECONDS
        self.cache[name] = _CachedEvent(event.name, event.data, expires)
        if len(self.cache) > MAX_CACHED:
            del self.cache[next(iter(self.cache))]

    def recall(self, name: str) -> _CachedEvent | None:
        cached = self.cache.get(name)
        if cached is not None and cached.expires <= time.monotonic():
            del self.cache[name]
            return None
        return cached

    def _replay(self, name: str, connection: _Connection) -> None:
        cached = self.recall(name)
        if cached is not None:
            connection.send(_message(cached.name, cached.data, name))
        else:
            connection.send(_message("pusher:cache_miss", "{}", name))
            self.note("cache miss", f"{connection.socket_id} on {name}")
            self.tell_webhooks("cache_miss", name)

    # Users

    def sign_in(self, connection: _Connection, user_id: str, watchlist: list[str]) -> None:
        """Make an authenticated connection a user's, and tell those who watch that user."""
        connection.user_id = user_id
        connection.watchlist = watchlist
        if user_id not in self.users:
            self._tell_watchers(user_id, "online")
        self.users.setdefault(user_id, set()).add(connection)
        for watched in watchlist:
            self.watchers.setdefault(watched, set()).add(connection)
        self.note("sign in", f"{connection.socket_id}{_as_user(user_id)}")

    def sign_out(self, connection: _Connection) -> None:
        user_id = connection.user_id
        if user_id is None:
            return
        for watched in connection.watchlist:
            self.watchers[watched].discard(connection)
            if not self.watchers[watched]:
                del self.watchers[watched]
        self.users[user_id].discard(connection)
        if not self.users[user_id]:
            del self.users[user_id]
            self._tell_watchers(user_id, "offline")

    def watchlist_events(self, watchlist: list[str]) -> bytes:
        """Tell a user who has signed in which of the watched are online, and which are not."""
        online = [user_id for user_id in watchlist if user_id in self.users]
        offline = [user_id for user_id in watchlist if user_id not in self.users]
        return _watchlist_frame(online=online, offline=offline)

    def _tell_watchers(self, user_id: str, change: str) -> None:
        frame = _watchlist_frame(**{change: [user_id]})
        for connection in self.watchers.get(user_id, ()):
            connection.send(frame)

    def tell_webhooks(self, name: str, channel: str, **fields: object) -> None:
        if not channel.startswith(USER_CHANNEL):
            for webhook in self.webhooks:
                webhook.add({"name": name, "channel": channel, **fields})


def _http_logger() -> logging.Logger:
    """A logger for aiohttp, to which a request that is no HTTP is an error with a traceback."""
    http_logger = logger.getChild("http")
    http_logger.addFilter(_shorten)
    return http_logger


def _shorten(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = "refused: no HTTP request: %s", (_printable(error.message),)
        record.exc_info = None
    return True


def _watchlist_frame(**changes: list[str]) -> bytes:
    events = [{"name": name, "user_ids": ids} for name, ids in changes.items() if ids]
    return _message("pusher_internal:watchlist_events", _to_json({"events": events}))


def _as_user(user_id: str | None) -> str:
    return "" if user_id is None else f" as user {user_id}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _printable(text: str, length: int = 300) -> str:
    """Make one short line of what came from the network, with nothing that commands a terminal."""
    if len(text) > length:
        text = text[:length] + "..."
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


# -- One connection -------------------------------------------------------------------------------


class _FrameError(Exception):
    """A frame that is refused, with the reason as its text."""

    def __init__(self, reason: str, code: int | None = None, channel: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.channel = channel


class _SubscriptionError(Exception):
    """A subscription that is refused, with the reason as its text."""

    def __init__(self, reason: str, kind: str = "AuthError", status: int = 401) -> None:
        super().__init__(reason)
        self.kind = kind
        self.status = status


class _SignInError(Exception):
    """A sign-in that is refused, which ends the connection."""


class _Connection:
    """One browser, or whatever else speaks the protocol.

    Frames are written straight to the transport, which keeps what the peer has not read yet: an
    event to a thousand subscribers is serialised once and awaits nobody.
    """

    __slots__ = (
        "_client_events",
        "_client_events_since",
        "_closing",
        "_heard",
        "_pinged",
        "_request",
        "_server",
        "_timer",
        "_transport",
        "_user_info",
        "_websocket",
        "channels",
        "socket_id",
        "user_id",
        "watchlist",
    )

    def __init__(
        self, server: _Server, websocket: web.WebSocketResponse, request: web.Request
    ) -> None:
        self.socket_id = f"{secrets.randbelow(10**9)}.{secrets.randbelow(10**9)}"
        self.channels: dict[str, str | None] = {}  # and the user id on presence channels
        self.user_id: str | None = None
        self.watchlist: list[str] = []
        self._user_info: object = None
        self._server = server
        self._websocket = websocket
        self._transport = cast(asyncio.Transport, request.transport)  # the handshake went over it
        self._request = request
        self._closing = False
        self._heard = server.loop.time()
        self._pinged = False
        self._timer: asyncio.TimerHandle | None = None
        self._client_events = 0
        self._client_events_since = 0.0

    def open(self) -> None:
        """Welcome the peer."""
        server = self._server
        server.add(self)
        version = (
            f"{self._request.query.get('client', '?')} {self._request.query.get('version', '?')}"
        )
        server.note("connect", f"{self.socket_id} from {self._request.remote} ({version})")
        welcome = {"socket_id": self.socket_id, "activity_timeout": server.activity_timeout}
        self.send(_message("pusher:connection_established", _to_json(welcome)))
        self._timer = server.loop.call_later(server.activity_timeout, self._check_activity)

    async def serve(self) -> None:
        """Handle what the peer sends, until either side closes."""
        try:
            async for message in self._websocket:
                if not self._closing:
                    self._receive(message)
        finally:
            self._closing = True
            self._cancel_timer()
            self._server.remove(self)

    def send(self, frame: bytes) -> None:
        """Hand the peer a frame without waiting, or give up on a peer that has stopped reading."""
        if self._closing or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            self.close(4100, "Too slow: more than 1 MiB of events are waiting to be read")
        else:
            self._transport.write(frame)

    def close(self, code: int, reason: str) -> None:
        """Tell the peer why and close; the state forgets it when the current event is out."""
        if self._closing:
            return
        self._closing = True
        self._cancel_timer()
        if not self._transport.is_closing():
            error = {"code": code, "message": reason}
            self._transport.write(_message("pusher:error", error))
        if self.socket_id in self._server.connections:
            self._server.note("close", f"{self.socket_id}: {reason} ({code})")
        self._server.loop.call_soon(self._server.remove, self)
        self._server.finish(self._finish(code, reason))

    async def _finish(self, code: int, reason: str) -> None:
        text = reason.encode("utf-8", "replace")[:120].decode("utf-8", "ignore")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(
                self._websocket.close(code=code, message=text.encode()), CLOSE_SECONDS
            )
        self._server.loop.call_later(CLOSE_SECONDS, self._transport.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_activity(self) -> None:
        """Ping a silent peer, and give up on one that stays silent after that."""
        server = self._server
        silent = server.loop.time() - self._heard
        if self._pinged:
            self.close(4201, f"Pong reply not received in {PONG_SECONDS} seconds")
            return
        wait = server.activity_timeout - silent
        if wait <= 0:
            self._pinged = True
            self.send(PING)
            wait = PONG_SECONDS
        self._timer = server.loop.call_later(wait, self._check_activity)

    # What the peer sends

    def _receive(self, message: aiohttp.WSMessage) -> None:
        self._heard = self._server.loop.time()
        self._pinged = False
        try:
            if message.type is aiohttp.WSMsgType.TEXT:
                self._handle(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                raise _FrameError("Binary frames are not supported, send text")
            else:
                self._note_refused(str(message.data))  # the connection is closed already
        except _FrameError as refusal:
            self._note_refused(str(refusal))
            error = {"code": refusal.code, "message": str(refusal)}
            self.send(_message("pusher:error", error, refusal.channel))

    def _note_refused(self, reason: str) -> None:
        self._server.note("refused", f"{self.socket_id}: {reason}")

    def _handle(self, text: str) -> None:
        frame = self._parse(text)
        event: str = frame["event"]
        data = frame.get("data")
        if event == "pusher:ping":
            self.send(PONG)
        elif event == "pusher:pong":
            pass  # having been heard is all that counts
        elif event == "pusher:subscribe":
            self._subscribe(_fields(event, data))
        elif event == "pusher:unsubscribe":
            self._unsubscribe(_fields(event, data))
        elif event == "pusher:signin":
            self._sign_in(_fields(event, data))
        elif event.startswith("client-"):
            self._relay(event, frame.get("channel"), data)
        else:
            raise _FrameError(f"Clients send no event {event}: their own begin with client-", 4301)

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            frame = _parse_json(text)
        except ValueError as error:
            raise _FrameError(f"The frame is not JSON: {error}") from None
        if not isinstance(frame, dict) or not isinstance(frame.get("event"), str):
            raise _FrameError("The frame is not a JSON object with an event's name in event")
        return frame

    def _subscribe(self, data: dict[str, Any]) -> None:
        name = data.get("channel")
        if not isinstance(name, str):
            raise _FrameError("pusher:subscribe names no channel")
        if name in self.channels:
            raise _FrameError(f"Existing subscription to channel {name}", channel=name)
        try:
            user_id, user_info = self._authorise(name, data)
        except _SubscriptionError as refusal:
            self._note_refused(f"subscription to {name}: {refusal}")
            error = {"type": refusal.kind, "error": str(refusal), "status": refusal.status}
            self.send(_message("pusher:subscription_error", error, name))
        else:
            self._server.subscribe(self, name, user_id, user_info)

    def _unsubscribe(self, data: dict[str, Any]) -> None:
        name = data.get("channel")
        if not isinstance(name, str) or name not in self.channels:
            raise _FrameError(f"No subscription to channel {name}")
        self._server.unsubscribe(self, name)

    def _authorise(self, name: str, data: dict[str, Any]) -> tuple[str | None, object]:
        """Check that the peer may subscribe, and find out as which user and with what info."""
        if not _is_channel_name(name):
            raise _SubscriptionError(
                f"Invalid channel name {name[:MAX_CHANNEL_NAME]}: up to {MAX_CHANNEL_NAME} of"
                " letters, digits and _-=@,.; make one",
                "InvalidChannel",
                400,
            )
        if name.startswith(USER_CHANNEL):
            if self.user_id is None or name != USER_CHANNEL + self.user_id:
                raise _SubscriptionError(f"Only user {name[len(USER_CHANNEL) :]}, signed in, may")
            return None, None
        if not _needs_authorisation(name):
            return None, None
        channel_data = data.get("channel_data")
        if channel_data is not None and not isinstance(channel_data, str):
            raise _SubscriptionError("channel_data is not a string of JSON")
        self._verify(name, data.get("auth"), channel_data)
        return self._member(channel_data) if _is_presence(name) else (None, None)

    def _verify(self, name: str, auth: object, channel_data: str | None) -> None:
        covered = name if channel_data is None else f"{name}:{channel_data}"
        if not isinstance(auth, str) or not auth:
            raise _SubscriptionError(
                "The channel needs authorisation, and the subscription carries no auth"
            )
        if not self._server.signatures.verify_token(f"{self.socket_id}:{covered}", auth):
            raise _SubscriptionError(self._why_invalid(name, channel_data, covered, auth))

    def _why_invalid(self, name: str, channel_data: str | None, covered: str, auth: str) -> str:
        """Find out what the signature would have been right for."""
        server = self._server
        key, _, signature = auth.rpartition(":")
        if key != server.signatures.key:
            return f"auth is for key {key}, this server's application has {server.signatures.key}"

        def is_for(text: str) -> bool:
            return server.signatures.verify(text, signature)

        for socket_id in server.recent_socket_ids:
            if is_for(f"{socket_id}:{covered}"):
                return f"The signature is for another socket id, {socket_id}, not {self.socket_id}"
        if channel_data is not None and is_for(f"{self.socket_id}:{name}"):
            return "The signature does not cover the channel_data that came with it"
        for other in list(server.channels)[:100]:
            if is_for(f"{self.socket_id}:{other}"):
                return f"The signature is for another channel, {other}"
        without = " without channel_data" if _is_presence(name) and channel_data is None else ""
        return (
            f"The signature is not the HMAC-SHA256 of {self.socket_id}:{covered}{without} by this"
            " application's secret: do both sides have the same secret?"
        )

    def _member(self, channel_data: str | None) -> tuple[str, object]:
        """Read who joins a presence channel: a signed-in user may leave it to the sign-in."""
        if channel_data is None:
            if self.user_id is None:
                raise _SubscriptionError("A presence channel needs channel_data, or a sign-in")
            return self.user_id, self._user_info
        try:
            member = _parse_json(channel_data)
        except ValueError as error:
            raise _SubscriptionError(f"channel_data is not JSON: {error}") from None
        if not isinstance(member, dict):
            raise _SubscriptionError("channel_data is not a JSON object")
        user_id = member.get("user_id")
        if isinstance(user_id, int) and not isinstance(user_id, bool):
            user_id = str(user_id)
        if not isinstance(user_id, str) or not 0 < len(user_id) <= MAX_USER_ID:
            raise _SubscriptionError(
                f"channel_data needs a user_id: a text of 1 to {MAX_USER_ID} characters"
            )
        return user_id, member.get("user_info")

    def _relay(self, event: str, name: object, data: object) -> None:
        """Pass a client event on to the channel's other subscribers."""
        if not isinstance(name, str) or name not in self.channels:
            raise _FrameError(f"Client event on {name}, which this connection is not on", 4301)
        if not _allows_client_events(name):
            raise _FrameError("Client events are for private and presence channels", 4301, name)
        if len(event) > MAX_EVENT_NAME:
            raise _FrameError(f"The event's name has over {MAX_EVENT_NAME} characters", 4301, name)
        text = data if isinstance(data, str) else _to_json(data)
        if _byte_length(text) > MAX_EVENT_DATA:
            raise _FrameError(f"The event's data is over {MAX_EVENT_DATA} bytes", 4301, name)
        if self._is_hasty():
            raise _FrameError(f"Over {MAX_CLIENT_EVENTS} client events in a second", 4301, name)
        user_id = self.channels[name]
        self._server.publish(name, event, text, sparing=self.socket_id, user_id=user_id)
        by_user = {} if user_id is None else {"user_id": user_id}
        self._server.tell_webhooks(
            "client_event", name, event=event, data=text, socket_id=self.socket_id, **by_user
        )

    def _is_hasty(self) -> bool:
        if self._heard - self._client_events_since >= 1:
            self._client_events_since = self._heard
            self._client_events = 0
        self._client_events += 1
        return self._client_events > MAX_CLIENT_EVENTS

    def _sign_in(self, data: dict[str, Any]) -> None:
        if self.user_id is not None:
            raise _FrameError(f"This connection is signed in already, as user {self.user_id}")
        try:
            user = self._authenticate(data.get("auth"), data.get("user_data"))
        except _SignInError as refusal:
            self._note_refused(f"sign-in: {refusal}")
            self.close(4009, f"Unauthorised: {refusal}")
            return
        self._user_info = user.get("user_info")
        watchlist = list(dict.fromkeys(user.get("watchlist", ())))
        self._server.sign_in(self, user["id"], watchlist)
        self.send(_message("pusher:signin_success", _to_json({"user_data": data["user_data"]})))
        if watchlist:
            self.send(self._server.watchlist_events(watchlist))

    def _authenticate(self, auth: object, user_data: object) -> dict[str, Any]:
        if not isinstance(auth, str) or not isinstance(user_data, str):
            raise _SignInError("pusher:signin needs auth and user_data, both text")
        if not self._server.signatures.verify_token(f"{self.socket_id}::user::{user_data}", auth):
            raise _SignInError(self._why_unauthenticated(user_data, auth))
        try:
            user = _parse_json(user_data)
        except ValueError as error:
            raise _SignInError(f"user_data is not JSON: {error}") from None
        if not isinstance(user, dict) or not _is_user_id(user.get("id")):
            raise _SignInError("user_data needs an id that can be part of a channel's name")
        if not _is_watchlist(user.get("watchlist", [])):
            raise _SignInError(f"watchlist is not a list of up to {MAX_WATCHLIST} user ids")
        return user

    def _why_unauthenticated(self, user_data: str, auth: str) -> str:
        server = self._server
        for socket_id in server.recent_socket_ids:
            if server.signatures.verify_token(f"{socket_id}::user::{user_data}", auth):
                return f"the signature is for another socket id, {socket_id}"
        return "the signature is not by this key and secret"


def _fields(event: str, data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _FrameError(f"The data of {event} is not a JSON object")
    return data


def _is_user_id(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= MAX_USER_ID
        and not value.startswith("#")
        and CHANNEL_NAME.fullmatch(value) is not None
    )


def _is_watchlist(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MAX_WATCHLIST and all(map(_is_user_id, value))


def _byte_length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# -- The HTTP API ---------------------------------------------------------------------------------


class _Event(NamedTuple):
    name: str
    channels: list[str]
    data: str
    socket_id: str | None
    info: frozenset[str]


class _Api:
    """What the application's client calls, every request signed with the application's secret.

    A refusal is an :exc:`aiohttp.web.HTTPException` whose text says what is wrong.
    """

    def __init__(self, server: _Server) -> None:
        self._server = server

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        app = "/apps/{app_id}"
        return [
            web.post(app + "/events", self._signed(self.trigger)),
            web.post(app + "/batch_events", self._signed(self.trigger_batch)),
            web.get(app + "/channels", self._signed(self.channels)),
            web.get(app + "/channels/{channel}", self._signed(self.channel)),
            web.get(app + "/channels/{channel}/users", self._signed(self.users)),
            web.post(app + "/users/{user_id}/terminate_connections", self._signed(self.terminate)),
        ]

    # Signatures

    def _signed(
        self, answer: Callable[[web.Request], Awaitable[dict[str, Any]]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                self._authenticate(request, await request.read())
                return web.json_response(await answer(request))
            except web.HTTPException as refusal:
                reason = str(refusal.text).rstrip()
                self._server.note("refused", f"{request.method} {request.path}: {reason}")
                raise

        return handle

    def _authenticate(self, request: web.Request, body: bytes) -> None:
        app_id = request.match_info["app_id"]
        if app_id != self._server.app_id:
            raise web.HTTPNotFound(text=_line(f"No app {app_id} here, only {self._server.app_id}"))
        query = request.query
        key = self._server.signatures.key
        if query.get("auth_key") != key:
            raise _unauthorised(f"auth_key is {query.get('auth_key')}, this app's key is {key}")
        if query.get("auth_version") != "1.0":
            raise _unauthorised("auth_version is not 1.0")
        self._check_time(query.get("auth_timestamp", ""))
        self._check_body(query.get("body_md5"), body)
        self._check_signature(request)

    def _check_time(self, timestamp: str) -> None:
        if not re.fullmatch("[0-9]{1,12}", timestamp):
            raise _unauthorised("auth_timestamp is not a time in seconds")
        off = int(timestamp) - time.time()
        if abs(off) > MAX_CLOCK_SKEW:
            raise _unauthorised(
                f"auth_timestamp is {abs(off):.0f} seconds off, at most {MAX_CLOCK_SKEW} are"
                " allowed: do both clocks agree?"
            )

    def _check_body(self, body_md5: str | None, body: bytes) -> None:
        if body_md5 is None:
            if body:
                raise _unauthorised("body_md5 is missing")
        elif not hmac.compare_digest(
            hashlib.md5(body, usedforsecurity=False).hexdigest().encode(),
            body_md5.encode("utf-8", "surrogatepass"),
        ):
            raise _unauthorised("body_md5 is not the MD5 of the body")

    def _check_signature(self, request: web.Request) -> None:
        pairs = sorted(request.query.items(), key=lambda pair: pair[0])
        query = "&".join(f"{key}={value}" for key, value in pairs if key != "auth_signature")
        signature = request.query.get("auth_signature", "")
        # Clients differ in whether they sign the path before they quote it, or after.
        paths = {request.path, request.rel_url.raw_path}
        texts = {f"{request.method}\n{path}\n{query}" for path in paths}
        if not any(self._server.signatures.verify(text, signature) for text in texts):
            raise _unauthorised(
                f"auth_signature is not the HMAC-SHA256 of {min(texts)!r} by this app's secret:"
                " do both sides have the same secret?"
            )

    # Events

    async def trigger(self, request: web.Request) -> dict[str, Any]:
        event = _parse_event(await _parse_body(request))
        self._server.trigger(event)
        return {"channels": self._info_of(event)} if event.info else {}

    async def trigger_batch(self, request: web.Request) -> dict[str, Any]:
        batch = (await _parse_body(request)).get("batch")
        if not isinstance(batch, list):
            raise _bad_request("batch is not a list of events")
        if len(batch) > MAX_BATCH:
            raise _bad_request(f"A batch of {len(batch)} events, over {MAX_BATCH}")
        events = [_parse_event(fields) for fields in batch]
        for event in events:
            self._server.trigger(event)
        if not any(event.info for event in events):
            return {}
        return {"batch": [next(iter(self._info_of(event).values())) for event in events]}

    def _info_of(self, event: _Event) -> dict[str, dict[str, Any]]:
        return {
            name: self._attributes(
                name, event.info if _is_presence(name) else event.info - {"user_count"}
            )
            for name in event.channels
        }

    # State

    async def channels(self, request: web.Request) -> dict[str, Any]:
        prefix = request.query.get("filter_by_prefix", "")
        info = _parse_info(request.query.get("info", ""))
        if "user_count" in info and not _is_presence(prefix):
            raise _bad_request("user_count needs filter_by_prefix to begin with presence-")
        return {
            "channels": {
                name: self._attributes(name, info)
                for name in self._server.channels
                if name.startswith(prefix) and not name.startswith(USER_CHANNEL)
            }
        }

    async def channel(self, request: web.Request) -> dict[str, Any]:
        name = _channel_in(request)
        info = _parse_info(request.query.get("info", ""), also="cache")
        if "user_count" in info and not _is_presence(name):
            raise _bad_request(f"user_count is for presence channels, and {name} is none")
        if "cache" in info and not _is_cache(name):
            raise _bad_request(f"cache is for cache channels, and {name} is none")
        return {"occupied": name in self._server.channels, **self._attributes(name, info)}

    async def users(self, request: web.Request) -> dict[str, Any]:
        name = _channel_in(request)
        if not _is_presence(name):
            raise _bad_request(f"Users are on presence channels, and {name} is none")
        channel = self._server.channels.get(name)
        members = channel.members if channel is not None else ()
        return {"users": [{"id": user_id} for user_id in members]}

    def _attributes(self, name: str, info: frozenset[str]) -> dict[str, Any]:
        channel = self._server.channels.get(name)
        attributes: dict[str, Any] = {}
        if "user_count" in info:
            attributes["user_count"] = len(channel.members) if channel is not None else 0
        if "subscription_count" in info:
            count = len(channel.subscribers) if channel is not None else 0
            attributes["subscription_count"] = count
        if "cache" in info:
            attributes["cache"] = self._cached(name)
        return attributes

    def _cached(self, name: str) -> dict[str, Any] | None:
        cached = self._server.recall(name)
        if cached is None:
            return None
        return {"data": cached.data, "ttl": int(cached.expires - time.monotonic())}

    async def terminate(self, request: web.Request) -> dict[str, Any]:
        for connection in self._server.users.get(request.match_info["user_id"], ()):
            connection.close(4009, "Closed by the application")
        return {}


def _unauthorised(reason: str) -> web.HTTPException:
    return web.HTTPUnauthorized(text=_line(reason))


def _bad_request(reason: str) -> web.HTTPException:
    return web.HTTPBadRequest(text=_line(reason))


def _line(text: str) -> str:
    return _printable(text, length=1000) + "\n"


async def _parse_body(request: web.Request) -> dict[str, Any]:
    try:
        fields = _parse_json((await request.read()).decode())
    except ValueError as error:
        raise _bad_request(f"The body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise _bad_request("The body is not a JSON object")
    return fields


def _parse_event(fields: object) -> _Event:
    if not isinstance(fields, dict):
        raise _bad_request("An event is not a JSON object")
    name, data, socket_id = fields.get("name"), fields.get("data"), fields.get("socket_id")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_EVENT_NAME:
        raise _bad_request(f"name is not a text of 1 to {MAX_EVENT_NAME} characters")
    if not isinstance(data, str):
        raise _bad_request("data is not a text: serialise it, as every client does")
    size = _byte_length(data)
    if size > MAX_EVENT_DATA:
        reason = _line(f"data of {name} is {size} bytes, over {MAX_EVENT_DATA}")
        raise web.HTTPRequestEntityTooLarge(MAX_EVENT_DATA, size, text=reason)
    if socket_id is not None and not _is_socket_id(socket_id):
        raise _bad_request(f"socket_id is not like 123.456: {socket_id}")
    return _Event(name, _parse_channels(fields), data, socket_id, _parse_info(fields.get("info")))


def _parse_channels(fields: dict[str, Any]) -> list[str]:
    names = fields.get("channels", [fields["channel"]] if "channel" in fields else None)
    if not isinstance(names, list) or not names:
        raise _bad_request("channels is not a list of channels, nor channel one")
    if len(names) > MAX_CHANNELS:
        raise _bad_request(f"{len(names)} channels, over {MAX_CHANNELS}")
    for name in names:
        if not _is_channel_name(name):
            raise _bad_request(f"Not a channel name: {name}")
    return names


def _parse_info(info: object, also: str = "user_count") -> frozenset[str]:
    if info is None or info == "":
        return frozenset()
    known = {"user_count", "subscription_count", also}
    asked = frozenset(info.split(",")) if isinstance(info, str) else frozenset([str(info)])
    if not asked <= known:
        raise _bad_request(f"info knows no {', '.join(sorted(asked - known))}")
    return asked


def _channel_in(request: web.Request) -> str:
    name = request.match_info["channel"]
    if not _is_channel_name(name):
        raise _bad_request(f"Not a channel name: {name}")
    return name


def _is_socket_id(value: object) -> bool:
    return isinstance(value, str) and SOCKET_ID.fullmatch(value) is not None


# -- Webhooks -------------------------------------------------------------------------------------

WEBHOOK_EVENTS = frozenset(
    {
        "channel_occupied",
        "channel_vacated",
        "member_added",
        "member_removed",
        "client_event",
        "cache_miss",
        "subscription_count",
    }
)


class _Destination(NamedTuple):
    """Where webhooks go, and which."""

    url: str
    event_types: frozenset[str] = WEBHOOK_EVENTS
    batch: bool = True
    app: Flask | None = None  # in this process, instead of over HTTP


def _parse_webhooks(webhooks: Webhooks, app: Flask) -> list[_Destination]:
    if not webhooks:
        return []
    if webhooks is True:
        return [_Destination(_events_path(app), app=app)]
    if isinstance(webhooks, str):
        webhooks = [webhooks]
    return [_parse_destination(webhook, app) for webhook in webhooks]


def _parse_destination(webhook: str | Mapping[str, Any], app: Flask) -> _Destination:
    options = {"url": webhook} if isinstance(webhook, str) else dict(webhook)
    url = str(options.pop("url", ""))
    event_types = frozenset(options.pop("event_types", WEBHOOK_EVENTS))
    batch = bool(options.pop("batch", True))
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"webhooks: {url!r} is not a URL that begins with http:// or https://")
    if options or not event_types <= WEBHOOK_EVENTS:
        unknown = sorted({*options, *(event_types - WEBHOOK_EVENTS)})
        raise ValueError(f"webhooks: {', '.join(unknown)} is nothing a webhook has")
    if parts.path in ("", "/"):
        url = parts._replace(path=_events_path(app)).geturl()
    return _Destination(url, event_types, batch)


def _events_path(app: Flask) -> str:
    with app.test_request_context():
        return url_for("pusher.events")


class _Webhook:
    """Posts events to one destination: signed, in order, again while the application is down.

    Events of the same moment go out together. A destination that stays down costs nobody else
    anything, and its oldest events when there are too many.
    """

    def __init__(self, server: _Server, destination: _Destination) -> None:
        self._server = server
        self._destination = destination
        self._pending: deque[dict[str, object]] = deque()
        self._added = asyncio.Event()

    def add(self, event: dict[str, object]) -> None:
        if event["name"] in self._destination.event_types:
            if len(self._pending) == MAX_PENDING_WEBHOOKS:
                lost = self._pending.popleft()
                self._server.note("webhook", f"lost, too many wait: {_describe([lost])}")
            self._pending.append(event)
            self._added.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver for as long as the context lasts."""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=WEBHOOK_ANSWER_SECONDS)
        ) as session:
            task = asyncio.create_task(self._run(session))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])

    async def _run(self, session: aiohttp.ClientSession) -> None:
        while True:
            await self._added.wait()
            await asyncio.sleep(WEBHOOK_WINDOW)
            self._added.clear()
            while self._pending:
                await self._deliver(session, self._take())

    def _take(self) -> list[dict[str, object]]:
        size = MAX_WEBHOOK_BATCH if self._destination.batch else 1
        return [self._pending.popleft() for _ in range(min(size, len(self._pending)))]

    async def _deliver(
        self, session: aiohttp.ClientSession, events: list[dict[str, object]]
    ) -> None:
        body = _to_json({"time_ms": int(time.time() * 1000), "events": events}).encode()
        give_up = self._server.loop.time() + WEBHOOK_RETRY_SECONDS
        pause = WEBHOOK_FIRST_PAUSE
        what = f"{_describe(events)} to {self._destination.url}"
        while True:
            answer = await self._post(session, body)
            if answer == "":
                self._server.note("webhook", what)
                return
            if self._server.loop.time() + pause > give_up:
                self._server.note("webhook", f"given up, {answer}: {what}")
                return
            self._server.note("webhook", f"again in {pause:g} s, {answer}: {what}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, WEBHOOK_LAST_PAUSE)

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> str:
        """Post once, and answer what went wrong, or nothing."""
        signatures = self._server.signatures
        headers = {
            "Content-Type": "application/json",
            "X-Pusher-Key": signatures.key,
            "X-Pusher-Signature": signatures.sign(body),
        }
        try:
            if self._destination.app is not None:
                status = await self._server.loop.run_in_executor(
                    None, self._call, self._destination.app, body, headers
                )
            else:
                async with session.post(
                    self._destination.url, data=body, headers=headers, allow_redirects=False
                ) as response:
                    status = response.status
        except Exception as error:  # noqa: BLE001 (an application may fail in every way)
            return f"it failed with {type(error).__name__} {error}".rstrip()
        return "" if 200 <= status < 300 else f"it answered {status}"

    def _call(self, app: Flask, body: bytes, headers: dict[str, str]) -> int:
        client = app.test_client(use_cookies=False)
        return client.post(self._destination.url, data=body, headers=headers).status_code


def _describe(events: Sequence[Mapping[str, object]]) -> str:
    return ", ".join(f"{event['name']} {event['channel']}" for event in events)


# -- The page -------------------------------------------------------------------------------------


class _Page:
    """The page at ``/``, for a browser on this machine and for nobody else.

    It shows what private channels carry and can trigger events, so it must not be reachable from
    other machines, nor from other web pages: not by a request they forge, and not by a name of
    theirs that they let resolve to this machine.
    """

    def __init__(self, server: _Server, host: str) -> None:
        self._server = server
        self._host = host
        self._recent: deque[dict[str, object]] = deque(maxlen=100)
        self._revision = 0
        self._closed = asyncio.Event()

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.get("/page/state", self.stream),
            web.post("/page/trigger", self.trigger),
        ]

    def add(self, kind: str, text: str) -> None:
        self._revision += 1
        at = time.strftime("%H:%M:%S")
        self._recent.append({"number": self._revision, "at": at, "kind": kind, "text": text})

    def close(self) -> None:
        self._closed.set()

    async def show(self, request: web.Request) -> web.Response:
        if request.path != "/":
            raise web.HTTPNotFound(text="Nothing is here, the page is at /\n")
        self._check(request)
        nonce = secrets.token_urlsafe()
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}';"
            " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return web.Response(
            text=PAGE.replace("NONCE", nonce),
            content_type="text/html",
            headers={**PAGE_HEADERS, "Content-Security-Policy": policy},
        )

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send the state as a server-sent event, now and after every change."""
        self._check(request)
        response = web.StreamResponse(
            headers={**PAGE_HEADERS, "Content-Type": "text/event-stream"}
        )
        await response.prepare(request)
        sent = -1
        with contextlib.suppress(ConnectionError):  # the page was closed
            while not self._closed.is_set():
                changed = sent != self._revision
                sent = self._revision
                await response.write(self._state() if changed else b":\n\n")
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), PAGE_INTERVAL)
        return response

    def _state(self) -> bytes:
        server = self._server
        connections = [
            {
                "id": connection.socket_id,
                "user": connection.user_id or "",
                "on": len(connection.channels),
            }
            for connection in list(server.connections.values())[:PAGE_ROWS]
        ]
        channels = [
            {
                "name": channel.name,
                "subscribers": len(channel.subscribers),
                "members": list(channel.members)[:PAGE_ROWS],
            }
            for channel in list(server.channels.values())[:PAGE_ROWS]
        ]
        state = {
            "connections": connections,
            "channels": channels,
            "counts": [len(server.connections), len(server.channels)],
            "recent": list(self._recent),
        }
        return b"data: " + _to_json(state).encode() + b"\n\n"

    async def trigger(self, request: web.Request) -> web.Response:
        self._check(request)
        # Only this page's own script can send both: another page's would have to ask first.
        if request.headers.get("Origin") is None or request.content_type != "application/json":
            raise web.HTTPForbidden(text="Events are triggered by this page only\n")
        self._server.trigger(_parse_event(await _parse_body(request)))
        return web.json_response({})

    def _check(self, request: web.Request) -> None:
        if not _is_loopback(request.remote or ""):
            raise web.HTTPForbidden(text="This page is for browsers on the server's machine\n")
        if not self._is_own_name(request.host):
            raise web.HTTPForbidden(text=_line(f"This page is not at {request.host}"))
        if request.headers.get("Origin", f"http://{request.host}") != f"http://{request.host}":
            raise web.HTTPForbidden(text="This page is not for other pages\n")

    def _is_own_name(self, authority: str) -> bool:
        try:
            host = urlsplit(f"//{authority}").hostname or ""
        except ValueError:
            return False
        return _is_loopback(host) or host == self._host.lower() != ""


PAGE_INTERVAL = 0.5  # seconds between updates
PAGE_ROWS = 200  # shown of each kind

PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Local Channels server</title>
<style nonce="NONCE">
  :root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
  body { margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem; }
  h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 1.5rem 0 .3rem; }
  table { border-collapse: collapse; width: 100%; }
  th, td { border-bottom: 1px solid #8886; padding: .15rem .8rem .15rem 0; text-align: left;
           vertical-align: top; overflow-wrap: anywhere; }
  td { font-family: ui-monospace, monospace; font-size: .85rem; }
  #recent td:not(:last-child) { white-space: nowrap; }
  tr.refused td { color: #c33; }
  form { display: flex; flex-wrap: wrap; gap: .6rem; align-items: end; }
  label { display: grid; } input { font: inherit; } label.wide { flex: 1; }
</style>
<h1>Local Channels server</h1>
<p role="status" id="status">Connecting...</p>
<h2>Trigger an event</h2>
<form id="trigger">
  <label>Channel <input name="channel" required maxlength="200"></label>
  <label>Event <input name="name" required maxlength="200"></label>
  <label class="wide">Data, JSON <input name="data" value="{}"></label>
  <button>Trigger</button> <output id="answer"></output>
</form>
<h2>Channels</h2>
<table><thead><tr><th>Channel<th>Subscribers<th>Members<tbody id="channels"></table>
<h2>Connections</h2>
<table><thead><tr><th>Socket id<th>User<th>Channels<tbody id="connections"></table>
<h2>Latest events</h2>
<table><thead><tr><th>Time<th>What<th><tbody id="recent"></table>
<script nonce="NONCE">
  const byId = id => document.getElementById(id);
  function row(cells, kind) {
    const tr = document.createElement("tr");
    if (kind === "refused") tr.className = kind;
    for (const cell of cells) tr.insertCell().textContent = cell;
    return tr;
  }
  const fill = (id, rows) => byId(id).replaceChildren(...rows);
  const stream = new EventSource("/page/state");
  stream.onmessage = message => {
    const state = JSON.parse(message.data);
    const [connections, channels] = state.counts;
    byId("status").textContent = `Connections: ${connections}, channels: ${channels}.`;
    fill("channels", state.channels.map(c => row([c.name, c.subscribers, c.members.join(", ")])));
    fill("connections", state.connections.map(c => row([c.id, c.user, c.on])));
    fill("recent", state.recent.reverse().map(e => row([e.at, e.kind, e.text], e.kind)));
  };
  stream.onerror = () => { byId("status").textContent = "The server does not answer."; };
  byId("trigger").onsubmit = async event => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(event.target));
    const answer = await fetch("/page/trigger", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields),
    });
    byId("answer").textContent = answer.ok ? "Triggered." : await answer.text();
  };
</script>
</html>
"""

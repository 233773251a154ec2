"""A Channels server for development and tests, on this machine, for one Flask application.

A realtime page needs three parties: the application, the browser, and a Channels service between
them. Here is the third, so that developing and testing take no account, no network and no quota.
It speaks what the hosted service speaks, protocol 7 over WebSocket and the signed HTTP API, holds
both sides to the same rules, and says in plain words what it refused and why.

:func:`local_server` starts it for tests, in a thread, and :func:`serve` for a developer, in a
terminal. Nothing that takes long is imported before that.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, final

from _flask_pusher import rules

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine

    from flask import Flask

    from .server import Server
    from .state import Happening
    from .webhooks import Webhooks

__all__ = ["ChannelView", "ConnectionView", "LocalServer", "local_server", "serve"]

_T = TypeVar("_T")
_addresses = threading.Lock()  # while it is decided where an application's client points

BACKLOG = 1024  # connections not accepted yet


class ChannelView(NamedTuple):
    """A channel that somebody is subscribed to, as it was when a test asked."""

    #: The socket ids of its subscribers.
    subscribers: tuple[str, ...]
    #: On a presence channel, each member's id and ``user_info``.
    members: dict[str, Any]


class ConnectionView(NamedTuple):
    """A connection, as it was when a test asked."""

    #: The id of the user who has signed in, if one has.
    user_id: str | None
    #: The names of the channels that it is subscribed to.
    channels: tuple[str, ...]


# -- Starting and stopping ------------------------------------------------------------------------


def local_server(
    app: Flask,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    webhooks: Webhooks = None,
    activity_timeout: float = rules.ACTIVITY_SECONDS,
    pong_timeout: float = rules.PONG_SECONDS,
    cache_seconds: float = rules.CACHE_SECONDS,
    event_bytes: int = rules.EVENT_BYTES,
    client_events_per_second: int = rules.CLIENT_EVENTS_PER_SECOND,
    members_per_channel: int = rules.MEMBERS_PER_CHANNEL,
    user_info_bytes: int = rules.USER_INFO_BYTES,
    certificate: str | None = None,
    private_key: str | None = None,
) -> LocalServer:
    """Start a Channels server for an application, in a background thread.

    It accepts connections when this returns. Until it is stopped, the application's client and
    ``pusher_options()`` point at it. What it refuses is logged as warnings of the logger
    ``flask_pusher.local``, everything else as information. In tests, it is a fixture::

        @pytest.fixture
        def channels(app):
            with local_server(app) as server:
                yield server

    :param app: an application with a configured :class:`flask_pusher.Pusher`; its credentials are
        the only ones that the server knows.
    :param host: the address to listen on, loopback unless told otherwise.
    :param port: the port to listen on; 0 takes a free one.
    :param webhooks: where webhooks go; nowhere by default. ``True`` hands them to the application
        in this process, at its ``pusher.events`` route. A URL, or a list of URLs or of dicts with
        a ``url`` and optionally ``event_types`` (names of events; all of them by default) and
        ``batch`` (``False`` posts each event by itself), posts them there; a URL without a path
        gets the path of the ``pusher.events`` route.
    :param activity_timeout: seconds of silence after which either side pings the other.
    :param pong_timeout: seconds that the other side may take to answer.
    :param cache_seconds: how long a cache channel remembers its last event.
    :param event_bytes: the most bytes of an event's data.
    :param client_events_per_second: the most client events of one connection.
    :param members_per_channel: the most members of a presence channel.
    :param user_info_bytes: the most bytes of a member's ``user_info``, as JSON.
    :param certificate: the file of a certificate, by which the server speaks TLS.
    :param private_key: the file of its key, if the first does not hold it.
    :raises ImportError: the extra ``local`` is not installed.
    :raises RuntimeError: the application has no Flask-Pusher extension.
    :raises OSError: the address cannot be listened on, because the port is in use for example, or
        the certificate cannot be read.
    :raises TypeError: an argument is of the wrong type.
    :raises ValueError: an argument cannot be.
    """
    limits = {
        "members_per_channel": _whole("members_per_channel", members_per_channel),
        "user_info_bytes": _whole("user_info_bytes", user_info_bytes),
        "event_bytes": _whole("event_bytes", event_bytes),
        "client_events_per_second": _whole("client_events_per_second", client_events_per_second),
        "cache_seconds": _seconds("cache_seconds", cache_seconds),
        "activity_timeout": _seconds("activity_timeout", activity_timeout),
        "pong_timeout": _seconds("pong_timeout", pong_timeout),
    }
    files = _files(certificate, private_key)
    return LocalServer(app, host, port, webhooks, limits, files)


def serve(
    app: Flask,
    host: str = "127.0.0.1",
    port: int = 6001,
    *,
    quiet: bool = False,
    webhooks: Webhooks = None,
    certificate: str | None = None,
    private_key: str | None = None,
) -> None:
    """Run a Channels server for an application until Ctrl-C or SIGTERM, printing what happens.

    Takes and raises what :func:`local_server` does, and nothing is printed before it is sure that
    the server runs. It has to be called in the main thread, where signals arrive.

    :param quiet: print how to reach the server, but not what happens.
    """
    _import_the_extra()
    from .console import Console, ignore

    files = _files(certificate, private_key)
    stopped = threading.Event()
    with _on_signals(stopped.set), contextlib.closing(Console()) as console:
        report = ignore if quiet else console.show
        with LocalServer(app, host, port, webhooks, {}, files, report) as server:
            for line in server._welcome(host):
                console.print(line)
            while not stopped.is_set():
                stopped.wait(0.5)  # Windows runs signal handlers only between waits
        console.print("Stopped.")


@final
class LocalServer:
    """A running server, as :func:`local_server` returns it, and a context manager that stops it.

    Its methods can be called from every thread, and so from a webhook's handler.
    """

    #: The host and the port to reach it at.
    host: str
    port: int

    def __init__(
        self,
        app: Flask,
        host: str,
        port: int,
        webhooks: Webhooks,
        limits: Mapping[str, Any],
        certificate: tuple[str, str | None] | None,
        report: Callable[[Happening], None] | None = None,
    ) -> None:
        _import_the_extra()
        from .console import log
        from .server import Server
        from .state import Credentials, Limits
        from .webhooks import parse_webhooks

        self._client = client = _client_of(app)
        destinations = parse_webhooks(webhooks, app)
        credentials = Credentials(client.app_id, client.key, client.secret)
        tls = None if certificate is None else _tls(*certificate)
        listener = _listen(host, port)
        self.host = _reachable(host)
        self.port = listener.getsockname()[1]
        self._destinations = [destination.url for destination in destinations]
        self._server = self._start(
            lambda: Server(credentials, destinations, Limits(**limits), report or log, host),
            listener,
            tls,
        )
        self._address = (self.host, self.port, tls is not None)
        with _addresses:
            self._address_before = client.address
            client.address = self._address
            self._running: list[LocalServer] = app.extensions.setdefault("pusher_local", [])
            self._running.append(self)

    @property
    def url(self) -> str:
        """The address of the page that shows what happens, and the base of the HTTP API."""
        _, _, tls = self._address
        return f"{'https' if tls else 'http'}://{self.host}:{self.port}"

    def stop(self) -> None:
        """Close every connection, stop the thread, and point the client where it pointed before.

        Browsers are told to connect again (code 4200). Webhooks not delivered yet are dropped, and
        a handler that is still running is not waited for. Stopping a stopped server does nothing.
        """
        with contextlib.suppress(RuntimeError):  # it has stopped
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        with _addresses:
            if self in self._running:
                self._give_address_back()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _give_address_back(self) -> None:
        """Take this server out of the row of those that the client was pointed at."""
        place = self._running.index(self)
        self._running.remove(self)
        if place < len(self._running):
            self._running[place]._address_before = self._address_before
        elif self._client.address == self._address:
            self._client.address = self._address_before

    def _start(
        self,
        make_server: Callable[[], Server],
        listener: socket.socket,
        tls: ssl.SSLContext | None,
    ) -> Server:
        import asyncio
        from concurrent.futures import Future

        started: Future[Server] = Future()
        self._ended: Future[None] = Future()

        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._stopping = asyncio.Event()
            server = make_server()
            async with server.running(listener, BACKLOG, tls):
                started.set_result(server)
                await self._stopping.wait()

        def run() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:  # noqa: BLE001 (whichever, the caller raises it)
                listener.close()
                started.set_exception(error)
            finally:
                self._ended.set_result(None)

        self._thread = threading.Thread(target=run, name="flask-pusher-local", daemon=True)
        self._thread.start()
        return started.result()

    # For tests

    @property
    def channels(self) -> dict[str, ChannelView]:
        """The channels that somebody is subscribed to, by name."""
        return self._ask(self._channels())

    async def _channels(self) -> dict[str, ChannelView]:
        return {
            name: ChannelView(
                tuple(peer.socket_id for peer in channel.subscribers), dict(channel.members)
            )
            for name, channel in self._server.state.channels.items()
        }

    @property
    def connections(self) -> dict[str, ConnectionView]:
        """The connections, by socket id."""
        return self._ask(self._connections())

    async def _connections(self) -> dict[str, ConnectionView]:
        return {
            socket_id: ConnectionView(peer.user and peer.user.user_id, tuple(peer.channels))
            for socket_id, peer in self._server.state.peers.items()
        }

    @property
    def webhooks(self) -> list[dict[str, Any]]:
        """The events that the application has taken by webhooks, in the order of delivery.

        Each is a dict as a webhook's handler gets it. The last 10,000 are kept.
        """
        return list(self._server.delivered.copy())

    def wait_for(self, channel: str, subscribers: int = 1, timeout: float = 5) -> None:
        """Wait until a channel has subscribers.

        :param subscribers: at least so many; 0 waits until nobody is left.
        :param timeout: the most seconds to wait.
        :raises TimeoutError: they did not come; the message says how many there are, and what was
            last refused on the channel.
        :raises ValueError: fewer than no subscribers, or no number of seconds above 0.
        """
        count, seconds = _whole("subscribers", subscribers), _seconds("timeout", timeout)
        problem = self._ask(self._server.wait_for(channel, count, seconds))
        if problem:
            raise TimeoutError(problem)

    def disconnect(self, code: int = 4200) -> None:
        """Close every connection, so that a test sees what a page makes of that.

        :param code: the closing code. By 4200 to 4299 a browser connects again at once, by 4100 to
            4199 after a pause, and by 4000 to 4099 not at all.
        :raises ValueError: a code below 4000 or above 4999.
        """
        if not 4000 <= _whole("code", code) <= 4999:
            raise ValueError(f"code is from 4000 to 4999, not {code}")
        self._ask(self._disconnect(code))

    async def _disconnect(self, code: int) -> None:
        self._server.disconnect(code, "Disconnected by a test")
        await _other_callbacks()

    def advance(self, seconds: float) -> None:
        """Let the server's time jump, for what expires: cached events, silence, pauses.

        What has become due happens once. A connection that was silent for the activity timeout
        is asked for a sign of life, and has its time to answer from then on.

        :raises ValueError: not a number of seconds above 0.
        """
        self._ask(self._advance(_seconds("seconds", seconds)))

    async def _advance(self, seconds: float) -> None:
        self._server.clock.advance(seconds)
        await _other_callbacks()

    def _ask(self, answer: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine where the state is, in the server's thread."""
        import asyncio
        from concurrent import futures

        try:
            future = asyncio.run_coroutine_threadsafe(answer, self._loop)
            # The loop drops what it is given between its last turn and its end.
            either: list[futures.Future[Any]] = [future, self._ended]
            futures.wait(either, return_when=futures.FIRST_COMPLETED)
            return future.result(0)
        except (futures.CancelledError, futures.TimeoutError, RuntimeError):
            answer.close()
            raise RuntimeError("The server is stopped") from None

    def _welcome(self, host: str) -> Iterator[str]:
        from .page import is_loopback

        yield (
            f"A local Channels server for app {self._client.app_id}, key {self._client.key}, is"
            " running."
        )
        yield "It is for development: do not use it in production. Point the application at it with"
        yield f'  PUSHER_HOST = "{self.host}"'
        yield f"  PUSHER_PORT = {self.port}"
        yield f"  PUSHER_SSL = {self._address[2]}"
        if not is_loopback(host):
            yield f"WARNING: it listens on {host or 'every address'}, where others can reach it."
        urls = ", ".join(self._destinations)
        yield f"It posts webhooks {'to ' + urls if urls else 'nowhere, having no URL for them'}."
        yield f"What happens is shown at {self.url}/ too. Press Ctrl-C to stop."


async def _other_callbacks() -> None:
    """Let what was called soon happen first."""
    import asyncio

    await asyncio.sleep(0)


# -- What they are given --------------------------------------------------------------------------


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


def _import_the_extra() -> None:
    try:
        import aiohttp  # noqa: F401
        import wsproto  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError(
            f'The local server needs {error.name}: pip install "Flask-Pusher[local]"',
            name=error.name,
        ) from None


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {value!r}")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} is a number of seconds above 0, not {value!r}")
    return value


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} is not negative, as {value} is")
    return value


def _listen(host: str, port: int) -> socket.socket:
    if not isinstance(host, str):
        raise TypeError(f"host is a text, not {host!r}")
    if not 0 <= _whole("port", port) <= 65535:
        raise ValueError(f"port is from 0 to 65535, not {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while ")[0]
        raise OSError(error.errno, f"Cannot listen on {host} port {port}: {reason}") from error


def _reachable(host: str) -> str:
    """The host of a URL that reaches a server listening on ``host``."""
    from .page import has

    if not host or has(host, "is_unspecified"):
        host = "::1" if ":" in host else "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _files(certificate: str | None, private_key: str | None) -> tuple[str, str | None] | None:
    if certificate is not None:
        return certificate, private_key
    if private_key is not None:
        raise ValueError("A private key needs its certificate, or the server would speak no TLS")
    return None


def _tls(certificate: str, private_key: str | None) -> ssl.SSLContext:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, private_key)
    except OSError as error:
        files = certificate if private_key is None else f"{certificate} with {private_key}"
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"Cannot use the certificate {files}: {reason}") from error
    return context


@contextlib.contextmanager
def _on_signals(callback: Callable[[], None]) -> Iterator[None]:
    import signal

    before = {
        number: signal.signal(number, lambda *_: callback())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

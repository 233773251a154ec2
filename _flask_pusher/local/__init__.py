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
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, final, overload

from flask import Flask

from _flask_pusher import rules

from . import options
from .options import Webhooks
from .views import ChannelView, ConnectionView, WebhookView

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Coroutine

    from .server import Server
    from .state import Happening

__all__ = [
    "ChannelView",
    "ConnectionView",
    "LocalServer",
    "WebhookView",
    "local_server",
    "serve",
]

_T = TypeVar("_T")
_addresses = threading.Lock()  # while it is decided where an application's client points


# freezegun replaces what ``time`` holds, and may have done so before this is imported.
_clock = getattr(sys.modules.get("freezegun.api"), "real_monotonic", time.monotonic)


def _real_time(clock: Callable[[], float] = _clock) -> float:
    """The time that passes, also in a test that has frozen it."""
    return clock()


# -- Starting and stopping ------------------------------------------------------------------------


def local_server(
    app: Flask,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    webhooks: Webhooks = None,
    webhook_delay: float = rules.WEBHOOK_DELAY_SECONDS,
    without: str | Iterable[str] = (),
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
    ``pusher_options()`` point at it, whatever ``PUSHER_CLIENT_OPTIONS`` says of the address. What
    it refuses is logged as warnings of the logger ``flask_pusher.local``, everything else as
    information. In tests, it is a fixture::

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
    :param webhook_delay: seconds after which ``channel_vacated`` and ``member_removed`` are told;
        nothing is told of who is back by then. A test skips them by ``server.advance(3)``.
    :param without: what the hosted service does only for apps in whose settings it is switched on,
        and this server is not to do: ``"client-events"``, ``"subscription-count"``,
        ``"watchlist-events"``, ``"cache-events"``, which are ``cache_miss`` webhooks.
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
    :raises ValueError: an argument cannot be, or ``PUSHER_BACKEND`` is ``"log"``.
    """
    limits: dict[str, Any] = {
        "webhook_delay": options.pause("webhook_delay", webhook_delay),
        "without": options.features(without),
        "members_per_channel": options.whole("members_per_channel", members_per_channel),
        "user_info_bytes": options.whole("user_info_bytes", user_info_bytes),
        "event_bytes": options.whole("event_bytes", event_bytes),
        "client_events_per_second": options.whole(
            "client_events_per_second", client_events_per_second
        ),
        "cache_seconds": options.seconds("cache_seconds", cache_seconds),
        "activity_timeout": options.seconds("activity_timeout", activity_timeout),
        "pong_timeout": options.seconds("pong_timeout", pong_timeout),
    }
    files = options.files(certificate, private_key)
    return LocalServer(app, host, port, webhooks, limits, files)


def serve(
    app: Flask,
    host: str | None = None,
    port: int | None = None,
    *,
    quiet: bool = False,
    webhooks: Webhooks = None,
    webhook_delay: float = rules.WEBHOOK_DELAY_SECONDS,
    without: str | Iterable[str] = (),
    certificate: str | None = None,
    private_key: str | None = None,
) -> None:
    """Run a Channels server for an application until Ctrl-C or SIGTERM, printing what happens.

    Takes and raises what :func:`local_server` does, and nothing is printed before it is sure that
    the server runs. It has to be called in the main thread, where signals arrive.

    :param host: the address to listen on. Unless told otherwise, it listens where the settings
        point, if that is this machine, and else on 127.0.0.1 and port 6001.
    :param port: the port to listen on; 0 takes a free one.
    :param quiet: print how to reach the server, but not what happens.
    """
    options.import_the_extra()
    from .console import Console, ignore

    limits: dict[str, Any] = {
        "webhook_delay": options.pause("webhook_delay", webhook_delay),
        "without": options.features(without),
    }
    files = options.files(certificate, private_key)
    host, port = options.place(options.client_of(app)[0], host, port)
    stopped = threading.Event()
    with _on_signals(stopped.set), contextlib.closing(Console()) as console:
        report = ignore if quiet else console.show
        with LocalServer(app, host, port, webhooks, limits, files, report) as server:
            for line in server._welcome(app, host):
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
        options.import_the_extra()
        from .console import log
        from .server import Server
        from .state import Credentials, Limits
        from .webhooks import parse_webhooks

        self._client, self._settings = client, settings = options.client_of(app)
        destinations = parse_webhooks(webhooks, app)
        credentials = Credentials(client.app_id, client.key, client.secret, client.path)
        tls = None if certificate is None else options.tls(*certificate)
        listener = options.listen(host, port)
        self.host = options.reachable(host)
        self.port = listener.getsockname()[1]
        self._destinations = [destination.url for destination in destinations]
        self._server = self._start(
            lambda: Server(credentials, destinations, Limits(**limits), report or log, host),
            listener,
            tls,
        )
        self._address = (self.host, self.port, tls is not None)
        with _addresses:
            self._address_before, client.address = client.address, self._address
            # Those of the application may say where pages find the server that is used else.
            self._options_before = given = settings.client_options
            settings.client_options = {key: given[key] for key in given.keys() - options.WHERE}
            self._running: list[LocalServer] = app.extensions.setdefault("pusher_local", [])
            self._running.append(self)

    @property
    def url(self) -> str:
        """The address of the page that shows what happens, and the base of the HTTP API."""
        return options.url_of(self._address)

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
            self._running[place]._options_before = self._options_before
            return
        self._settings.client_options = self._options_before
        if self._client.address == self._address:
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
            self._loop = loop = asyncio.get_running_loop()
            loop.time = _real_time  # type: ignore[method-assign]
            self._stopping = asyncio.Event()
            server = make_server()
            async with server.running(listener, options.BACKLOG, tls):
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
        """The channels that somebody is subscribed to, by name.

        Each has ``subscribers``, the socket ids, and ``members``: on a presence channel, each
        member's id and ``user_info``.
        """
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
        """The connections, by socket id.

        Each has ``user_id``, that of the user who has signed in, or None, and ``channels``, the
        names of those that it is subscribed to.
        """
        return self._ask(self._connections())

    async def _connections(self) -> dict[str, ConnectionView]:
        return {
            socket_id: ConnectionView(peer.user and peer.user.user_id, tuple(peer.channels))
            for socket_id, peer in self._server.state.peers.items()
        }

    @property
    def webhooks(self) -> list[WebhookView]:
        """The events that were posted by webhooks, in that order, and what was answered.

        Each has ``event``, as a webhook's handler gets it, ``status``, None where there was no
        answer or a handler raised, and ``problem``: in words what was wrong, or nothing where the
        webhook was taken. One that is posted again is there again. The last 10,000 are kept.
        """
        return list(self._server.posted.copy())

    def wait_for(self, channel: str, subscribers: int = 1, timeout: float = 5) -> None:
        """Wait until a channel has subscribers.

        :param subscribers: at least so many; 0 waits until nobody is left.
        :param timeout: the most seconds to wait.
        :raises TimeoutError: they did not come; the message says how many there are, and what was
            last refused on the channel.
        :raises ValueError: fewer than no subscribers, or no number of seconds above 0.
        """
        count = options.whole("subscribers", subscribers)
        seconds = options.seconds("timeout", timeout)
        if not self._ask(self._server.wait_for(channel, count), seconds):
            raise TimeoutError(self._ask(self._server.why_not(channel, count, seconds)))

    def wait_for_webhook(
        self, name: str, channel: str | None = None, timeout: float = 5
    ) -> dict[str, Any]:
        """Wait until the application has taken an event by a webhook, and answer that event.

        One that was taken before counts, and each is answered once for each URL that it is posted
        to: who calls it twice gets two.

        :param name: the event's name, ``"member_added"`` for one.
        :param channel: the event's channel; any by default.
        :param timeout: the most seconds to wait.
        :raises TimeoutError: it was not taken; the message says what was answered to it.
        :raises ValueError: webhooks have no event of this name, or go nowhere; or no number of
            seconds above 0.
        """
        if name not in rules.WEBHOOK_EVENTS:
            known = ", ".join(rules.WEBHOOK_EVENTS)
            raise ValueError(f"No event of webhooks is named {name}; there are {known}")
        if not self._destinations:
            raise ValueError("Webhooks go nowhere: start it by local_server(app, webhooks=True)")
        seconds = options.seconds("timeout", timeout)
        event = self._ask(self._server.wait_for_webhook(name, channel), seconds)
        if event is None:
            raise TimeoutError(self._ask(self._server.why_no_webhook(name, channel, seconds)))
        return event

    def disconnect(self, code: int = 4200) -> None:
        """Close every connection, so that a test sees what a page makes of that.

        :param code: the closing code. By 4200 to 4299 a browser connects again at once, by 4100 to
            4199 after a pause, and by 4000 to 4099 not at all.
        :raises ValueError: a code below 4000 or above 4999.
        """
        if not 4000 <= options.whole("code", code) <= 4999:
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
        self._ask(self._advance(options.seconds("seconds", seconds)))

    async def _advance(self, seconds: float) -> None:
        self._server.clock.advance(seconds)
        await _other_callbacks()

    @overload
    def _ask(self, answer: Coroutine[Any, Any, _T]) -> _T: ...
    @overload
    def _ask(self, answer: Coroutine[Any, Any, _T], seconds: float) -> _T | None: ...

    def _ask(self, answer: Coroutine[Any, Any, _T], seconds: float | None = None) -> _T | None:
        """Run a coroutine where the state is, in the server's thread; for so long, and not more.

        The time is a lock's own, which passes where a test has frozen all clocks.
        """
        import asyncio
        from concurrent import futures

        try:
            future = asyncio.run_coroutine_threadsafe(answer, self._loop)
            # The loop drops what it is given between its last turn and its end.
            either: list[futures.Future[Any]] = [future, self._ended]
            done, _ = futures.wait(either, seconds, futures.FIRST_COMPLETED)
            if not done and future.cancel():
                return None
            return future.result(0)
        except (futures.CancelledError, futures.TimeoutError, RuntimeError):
            answer.close()
            raise RuntimeError("The server is stopped") from None

    def _welcome(self, app: Flask, host: str) -> Iterator[str]:
        yield f"A local Channels server for the application {app.name!r} runs at {self.url},"
        yield f"for app {self._client.app_id}, key {self._client.key}. Do not use it in production."
        if options.is_same_place(self._address_before, self._address):
            yield "The application's settings point at it."
        else:
            elsewhere = options.url_of(self._address_before)
            yield f"WARNING: the application's settings point at {elsewhere}. Point them here with"
            yield f'  PUSHER_HOST = "{self.host}"'
            yield f"  PUSHER_PORT = {self.port}"
            yield f"  PUSHER_SSL = {self._address[2]}"
        if not options.is_loopback(host):
            yield f"WARNING: it listens on {host or 'every address'}, where others can reach it."
        urls = ", ".join(self._destinations)
        yield f"It posts webhooks {'to ' + urls if urls else 'nowhere, having no URL for them'}."
        yield f"What happens is shown at {self.url}/ too. Press Ctrl-C to stop."


async def _other_callbacks() -> None:
    """Let what was called soon happen first."""
    import asyncio

    await asyncio.sleep(0)


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

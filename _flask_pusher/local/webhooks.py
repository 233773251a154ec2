"""Webhooks: what the application is told, signed, in order, and again while it is down."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp
from flask import Flask

from _flask_pusher import rules

from . import wire
from .options import Webhooks
from .state import Clock, Credentials, Happening
from .views import WebhookView

RETRY_SECONDS = 5 * 60
FIRST_PAUSE = 0.5
LAST_PAUSE = 30
ANSWER_SECONDS = 10
WINDOW = 0.05  # seconds in which events become one batch
MAX_BATCH = 500  # events
MAX_PENDING = 10_000  # events
MAX_NAMED = 10  # events, where a delivery is told of in one line

_T = TypeVar("_T")

EVENT_TYPES = frozenset(rules.WEBHOOK_EVENTS)


# -- Where they go --------------------------------------------------------------------------------


class Destination(NamedTuple):
    """Where webhooks go, and which."""

    url: str
    event_types: frozenset[str] = EVENT_TYPES
    batch: bool = True
    app: Flask | None = None  # in this process, instead of over HTTP


def parse_webhooks(webhooks: Webhooks, app: Flask) -> list[Destination]:
    """Read what :func:`local_server` takes.

    :raises TypeError: it is nothing that webhooks can be posted to.
    :raises ValueError: it is not a URL, or names an event that is none.
    """
    if not webhooks:
        return []
    if webhooks is True:
        return [Destination(_route(app), app=app)]
    if isinstance(webhooks, str):
        webhooks = [webhooks]
    if not isinstance(webhooks, (list, tuple, set, frozenset)):
        raise TypeError(f"webhooks: {webhooks!r} is not True, a URL, nor a list of them")
    return [_parse_destination(webhook, app) for webhook in webhooks]


def _parse_destination(webhook: object, app: Flask) -> Destination:
    options = dict(webhook) if isinstance(webhook, Mapping) else {"url": webhook}
    url = str(options.pop("url", ""))
    event_types = _parse_event_types(options.pop("event_types", rules.WEBHOOK_EVENTS))
    batch = bool(options.pop("batch", True))
    if options:
        raise ValueError(f"webhooks: {', '.join(sorted(options))} is nothing a webhook has")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"webhooks: {url!r} is not a URL that begins with http:// or https://")
    if parts.path in ("", "/"):
        root: str = app.config["APPLICATION_ROOT"].rstrip("/")
        url = parts._replace(path=root + _route(app)).geturl()
    return Destination(url, event_types, batch)


def _parse_event_types(names: object) -> frozenset[str]:
    if not isinstance(names, (list, tuple, set, frozenset)):
        raise TypeError(f"webhooks: event_types is a list of events' names, not {names!r}")
    unknown = [str(name) for name in names if name not in EVENT_TYPES]
    if unknown:
        known = ", ".join(rules.WEBHOOK_EVENTS)
        raise ValueError(f"webhooks: no event is named {', '.join(unknown)}; there are {known}")
    return frozenset(names)


def _route(app: Flask) -> str:
    """The path of the route for all kinds, by its rule alone: no host needs to be known."""
    return next(app.url_map.iter_rules("pusher.events")).rule


def _own_host(app: Flask) -> str:
    """A host by which the application lets itself be called."""
    trusted = app.config.get("TRUSTED_HOSTS") or ["localhost"]
    return str(app.config["SERVER_NAME"] or trusted[0].lstrip("."))


# -- How they get there ---------------------------------------------------------------------------


class Webhook:
    """Posts events to one destination.

    Events of the same moment go out together. A destination that stays down costs nobody else
    anything, and its oldest events when there are too many.
    """

    def __init__(
        self,
        destination: Destination,
        credentials: Credentials,
        clock: Clock,
        happened: Callable[[Happening], None],
        answered: Callable[[list[WebhookView]], None],
    ) -> None:
        self._destination = destination
        self._credentials = credentials
        self._clock = clock
        self._happened = happened
        self._answered = answered
        self._pending: deque[dict[str, object]] = deque()
        self._added = asyncio.Event()

    def add(self, event: dict[str, object]) -> None:
        if event["name"] in self._destination.event_types:
            if len(self._pending) == MAX_PENDING:
                lost = self._pending.popleft()
                self._note("undelivered", "lost, too many wait", [lost])
            self._pending.append(event)
            self._added.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver for as long as the context lasts."""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)
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
            await self._sleep(WINDOW)
            self._added.clear()
            while self._pending:
                await self._deliver(session, self._take())

    def _take(self) -> list[dict[str, object]]:
        size = MAX_BATCH if self._destination.batch else 1
        return [self._pending.popleft() for _ in range(min(size, len(self._pending)))]

    async def _deliver(
        self, session: aiohttp.ClientSession, events: list[dict[str, object]]
    ) -> None:
        body = wire.to_json({"time_ms": int(time.time() * 1000), "events": events}).encode()
        give_up = self._clock.time() + RETRY_SECONDS
        pause = FIRST_PAUSE
        while True:
            status, failure, error = await self._post(session, body)
            if not failure:
                self._note("webhook", "", events)
            self._answered([WebhookView(event, status, failure) for event in events])
            if not failure:
                return
            if self._clock.time() + pause > give_up:
                self._note("undelivered", f"given up, {failure}", events, error)
                return
            self._note("undelivered", f"again in {pause:g} s, {failure}", events, error)
            await self._sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    async def _post(
        self, session: aiohttp.ClientSession, body: bytes
    ) -> tuple[int | None, str, BaseException | None]:
        """Post once, and answer the status, what went wrong, and what the application raised."""
        headers = {
            "Content-Type": "application/json",
            "X-Pusher-Key": self._credentials.key,
            "X-Pusher-Signature": self._credentials.sign(body),
        }
        url, app = self._destination.url, self._destination.app
        try:
            if app is not None:
                answer = await _in_thread(lambda: _call(app, url, body, headers))
            else:
                async with session.post(
                    url, data=body, headers=headers, allow_redirects=False
                ) as response:
                    answer = response.status
        except Exception as error:  # noqa: BLE001 (HTTP may fail in every way)
            return None, _failure(error), None
        if isinstance(answer, BaseException):
            return None, _failure(answer), answer
        return answer, "" if 200 <= answer < 300 else f"it answered {answer}", None

    async def _sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        timer = self._clock.call_later(seconds, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    def _note(
        self,
        kind: str,
        reason: str,
        events: Sequence[Mapping[str, object]],
        error: BaseException | None = None,
    ) -> None:
        names = [f"{event['name']} {event['channel']}" for event in events[:MAX_NAMED]]
        if len(events) > MAX_NAMED:
            names.append(f"{len(events) - MAX_NAMED} more")
        text = f"{reason}: " * bool(reason) + ", ".join(names)
        channels = {str(event["channel"]) for event in events}
        self._happened(
            Happening(
                kind,
                f"{text} to {self._destination.url}",
                channel=channels.pop() if len(channels) == 1 else None,
                data=wire.to_json(events),
                error=error,
            )
        )


def _failure(error: BaseException) -> str:
    return f"it failed with {type(error).__name__} {error}".rstrip()


def _call(app: Flask, path: str, body: bytes, headers: dict[str, str]) -> int | BaseException:
    """Answer the status, or what the application raised: an event loop ends by ``SystemExit``."""
    client = app.test_client(use_cookies=False)
    base_url = f"http://{_own_host(app)}{app.config['APPLICATION_ROOT']}"
    try:
        return client.post(path, base_url=base_url, data=body, headers=headers).status_code
    except BaseException as error:  # noqa: BLE001 (whichever, it is told)
        return error


def _in_thread(function: Callable[[], _T]) -> asyncio.Future[_T]:
    """Run a function that never raises, in a thread that nobody waits for at the end."""
    future: concurrent.futures.Future[_T] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        future.set_result(function())

    threading.Thread(target=run, name="flask-pusher-webhook", daemon=True).start()
    return asyncio.wrap_future(future)

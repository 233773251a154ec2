"""Webhooks: how their handlers are declared, and the views that the service calls."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from flask import Flask, abort, request
from werkzeug.exceptions import BadRequest

from _flask_pusher import rules
from _flask_pusher.handlers import Handler, Slot, expect_callable, finished
from _flask_pusher.settings import Settings
from _flask_pusher.warning import warn

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

G = TypeVar("G", bound=Callable[[], Any])
E = TypeVar("E", bound="Callable[[dict[str, Any]], Any]")

_IN_3_0 = ("channel_existence", "presence", "client")


class Webhooks:
    """Declares the handlers of webhooks: what Channels tells the application.

    Each group has a route below ``/pusher/events/`` and one handler, called once a request, which
    reads ``flask.request.json``: ``{"time_ms": ..., "events": [{"name": ..., ...}, ...]}``. Look
    at the names: a service may send events of other kinds beside those of the group. The route
    ``/pusher/events`` takes all kinds, and calls the groups whose events it got. A handler by
    :meth:`event` is called for each event of one name, whichever route it came to. Every field is
    text unless another type is named.

    A handler is run only for what carries the application's key and signature. Channels sends
    again what was not answered by a 2xx status, so an event may come more than once.
    """

    def __init__(self) -> None:
        self._groups = {
            group: Slot(f"@pusher.webhooks.{group}", keeps_the_first=group not in _IN_3_0)
            for group in rules.WEBHOOK_GROUPS
        }
        self._events: dict[str, tuple[Handler, ...]] = {}

    def channel_existence(self, handler: G) -> G:
        """At ``/events/channel_existence``: ``channel_occupied`` and ``channel_vacated``, each
        with ``channel``, when a channel gets its first subscriber and loses its last."""
        return self._declare("channel_existence", handler)

    def presence(self, handler: G) -> G:
        """At ``/events/presence``: ``member_added`` and ``member_removed``, each with ``channel``
        and ``user_id``."""
        return self._declare("presence", handler)

    def client(self, handler: G) -> G:
        """At ``/events/client``: ``client_event``, with ``channel``, ``event``, ``data``,
        ``socket_id`` and, on presence channels, ``user_id``."""
        return self._declare("client", handler)

    def cache(self, handler: G) -> G:
        """At ``/events/cache``: ``cache_miss``, with ``channel``, when someone subscribes to a
        cache channel that holds no event.

        .. versionadded:: 4.0
        """
        return self._declare("cache", handler)

    def subscription_count(self, handler: G) -> G:
        """At ``/events/subscription_count``: ``subscription_count``, with ``channel`` and
        ``subscription_count``, a number.

        .. versionadded:: 4.0
        """
        return self._declare("subscription_count", handler)

    def _declare(self, group: str, handler: G) -> G:
        self._groups[group].declare(handler)
        return handler

    def event(self, name: str) -> Callable[[E], E]:
        """Declare a handler of every event of one name; there may be several of the same name::

            @pusher.webhooks.event("member_added")
            def arrived(event):
                print(event["user_id"], "joined", event["channel"])

        A name that is none of Channels' is allowed, and warned about where it is nearly one.

        .. versionadded:: 4.0
        """
        if not isinstance(name, str):
            raise TypeError('Name the event: @pusher.webhooks.event("member_added")')
        _warn_of_near_miss(name)

        def decorator(handler: E) -> E:
            expect_callable(handler, f"@pusher.webhooks.event({name!r})")
            handlers = self._events.get(name, ())
            if not any(other is handler for other in handlers):
                self._events[name] = (*handlers, handler)
            return handler

        return decorator

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            is_event = name in rules.WEBHOOK_EVENTS
            hint = f' Write @pusher.webhooks.event("{name}").' if is_event else ""
            raise AttributeError(f"'Webhooks' object has no attribute {name!r}.{hint}")


def _warn_of_near_miss(name: str) -> None:
    if name in rules.WEBHOOK_EVENTS:
        return
    from difflib import get_close_matches

    for known in get_close_matches(name, rules.WEBHOOK_EVENTS, n=1, cutoff=0.75):
        warn(f"Channels sends no webhook event {name!r}. Is {known!r} meant?")


class WebhookViews:
    """What the webhook routes answer in one application."""

    def __init__(self, app: Flask, settings: Settings, webhooks: Webhooks) -> None:
        self.app = app
        self.tokens = settings.tokens
        self.max_age = settings.webhook_max_age
        self.webhooks = webhooks

    def view(self, group: str | None) -> Callable[[], ResponseReturnValue]:
        """The view of a group's route; None: of the one for all."""

        def webhook() -> ResponseReturnValue:
            if not self._serves(group):
                self.app.logger.debug("No handler is declared for webhooks at %s.", request.path)
                abort(404, "This application handles no webhooks here.")
            events = self._verified_events()
            # All are known before the first runs, which may change what it is given.
            for handler, arguments in list(self._calls(group, events)):
                finished(self.app.ensure_sync(handler)(*arguments), handler)
            return "OK"

        return webhook

    def _serves(self, group: str | None) -> bool:
        slots = self.webhooks._groups
        if self.webhooks._events:
            return True
        return any(slot.handler for name, slot in slots.items() if group in (None, name))

    def _calls(
        self, group: str | None, events: list[dict[str, Any]]
    ) -> Iterator[tuple[Handler, tuple[dict[str, Any], ...]]]:
        """What is to be called for a webhook on the route of a group, or on the one of all."""
        names = {event["name"] for event in events}
        for candidate, slot in self.webhooks._groups.items():
            is_asked = candidate == group or (
                group is None and names.intersection(rules.WEBHOOK_GROUPS[candidate])
            )
            if slot.handler and is_asked:
                yield slot.handler, ()
        for event in events:
            for handler in self.webhooks._events.get(event["name"], ()):
                yield handler, (dict(event),)

    def _verified_events(self) -> list[dict[str, Any]]:
        secret = self._secret()
        try:
            body = request.get_data()
        except OSError:  # its chunks are none, or it stopped coming
            self._refuse(400, "its body cannot be read")
        self._expect_signature(secret, body)
        try:
            # Kept, so that a handler's request.json finds it whatever type the service says.
            content = request.get_json(force=True)
        except (BadRequest, RecursionError):
            content = None
        events = content.get("events", []) if isinstance(content, dict) else None
        if not isinstance(events, list) or not all(map(_is_event, events)):
            self._refuse(400, "its body is not that of a webhook")
        self._expect_recent(content.get("time_ms", _now_ms()))
        return events

    def _secret(self) -> str:
        """The secret of the key that the webhook was sent with."""
        given = self._header("X-Pusher-Key")
        found = None
        for key, secret in self.tokens.items():
            if hmac.compare_digest(given, key.encode()):
                found = secret
        if found is None:
            self._refuse(403, "its X-Pusher-Key is none of this application's")
        return found

    def _expect_signature(self, secret: str, body: bytes) -> None:
        given = self._header("X-Pusher-Signature")
        if not hmac.compare_digest(given, _signature(secret, body).encode()):
            self._refuse(403, "its X-Pusher-Signature is not by this application's secret")

    def _header(self, name: str) -> bytes:
        found = request.headers.get(name)
        if found is None:
            self._refuse(403, f"it has no {name}")
        return found.encode(errors="replace")

    def _expect_recent(self, time_ms: Any) -> None:
        if isinstance(time_ms, bool) or not isinstance(time_ms, (int, float, Decimal)):
            self._refuse(400, "its time_ms is not a number")
        if self.max_age is None:
            return
        try:
            # NaN, which Python's JSON knows, is not greater than anything.
            is_recent = time_ms >= _now_ms() - int(self.max_age * 1000)
        except ArithmeticError:  # a Decimal that is no number
            is_recent = False
        if not is_recent:
            self._refuse(403, f"it is older than PUSHER_WEBHOOK_MAX_AGE, {self.max_age} seconds")

    def _refuse(self, status: int, reason: str) -> NoReturn:
        self.app.logger.warning("Refused a webhook at %s: %s.", request.path, reason)
        abort(status, f"This webhook is refused: {reason}.")


def webhook_headers(key: str, secret: str, body: str | bytes) -> dict[str, str]:
    """The headers with which Channels sends a webhook."""
    if not isinstance(body, (str, bytes)):
        raise TypeError(
            "sign_webhook takes the body that is posted, as text or bytes, because its very bytes"
            f" are signed; this is of type {type(body).__name__}. Pass json.dumps(...) of it, and"
            " post the same text."
        )
    return {
        "Content-Type": "application/json",
        "X-Pusher-Key": key,
        "X-Pusher-Signature": _signature(secret, body.encode() if isinstance(body, str) else body),
    }


def _signature(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, "sha256").hexdigest()


def _is_event(event: Any) -> bool:
    return isinstance(event, Mapping) and isinstance(event.get("name"), str)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""Webhooks: how their handlers are declared, and the views that the service calls."""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from itertools import chain
from typing import Any, NoReturn, TypeVar, overload

from flask import Flask, abort, request
from werkzeug.exceptions import HTTPException

from _flask_pusher import handlers, rules
from _flask_pusher.codec import posted_object
from _flask_pusher.settings import Settings
from _flask_pusher.warning import warn

G = TypeVar("G", bound=Callable[[], Any])
E = TypeVar("E", bound="Callable[[dict[str, Any]], Any]")


class Webhooks:
    """Declares the handlers of webhooks: what Channels tells the application.

    Each group has a route below ``/pusher/events/`` and one handler, called once a request, which
    reads ``flask.request.json``: ``{"time_ms": ..., "events": [{"name": ..., ...}, ...]}``. Look
    at the names: a service may send events of other kinds beside those of the group. The route
    ``/pusher/events`` takes all kinds, and calls the groups whose events it got. A handler by
    :meth:`event` is called for each event of one name, whichever route it came to. Every field is
    text unless another type is named.

    A handler is run only for what carries the application's key and signature. Channels sends
    again what was not answered by a 2xx status, so an event may come more than once. It is not
    where a handler raises, or returns what a view refuses with: a response or tuple of status 400
    or more. What else it returns means nothing.
    """

    def __init__(self, declared: handlers.Handlers) -> None:
        self._declared = declared

    def channel_existence(self, handler: G = handlers.NOTHING) -> G:
        """At ``/events/channel_existence``: ``channel_occupied`` and ``channel_vacated``, each
        with ``channel``, when a channel gets its first subscriber and loses its last."""
        return self._declared.groups["channel_existence"].declare(handler)

    def presence(self, handler: G = handlers.NOTHING) -> G:
        """At ``/events/presence``: ``member_added`` and ``member_removed``, each with ``channel``
        and ``user_id``."""
        return self._declared.groups["presence"].declare(handler)

    def client(self, handler: G = handlers.NOTHING) -> G:
        """At ``/events/client``: ``client_event``, with ``channel``, ``event``, ``data``,
        ``socket_id`` and, on presence channels, ``user_id``."""
        return self._declared.groups["client"].declare(handler)

    def cache(self, handler: G = handlers.NOTHING) -> G:
        """At ``/events/cache``: ``cache_miss``, with ``channel``, when someone subscribes to a
        cache channel that holds no event.

        .. versionadded:: 4.0
        """
        return self._declared.groups["cache"].declare(handler)

    def subscription_count(self, handler: G = handlers.NOTHING) -> G:
        """At ``/events/subscription_count``: ``subscription_count``, with ``channel`` and
        ``subscription_count``, a number.

        .. versionadded:: 4.0
        """
        return self._declared.groups["subscription_count"].declare(handler)

    @overload
    def event(self, name: str) -> Callable[[E], E]: ...

    @overload
    def event(
        self, name: str, pattern: str
    ) -> Callable[[handlers.PatternEvent], handlers.PatternEvent]: ...

    def event(self, name: str, pattern: str | None = None) -> Any:
        """Declare a handler of every event of one name; there may be several of the same name::

            @pusher.webhooks.event("member_added")
            def arrived(event):
                print(event["user_id"], "joined", event["channel"])

        With a pattern it is called for the channels that match, whatever other handlers there are,
        and is given the variables too, by name. Patterns are those of ``@pusher.auth``, of any
        kind of channel::

            @pusher.webhooks.event("member_added", "presence-board-<int:board_id>")
            def joined(event, board_id):
                print(event["user_id"], "joined board", board_id)

        A name that is none of Channels' is allowed, and warned about where it is nearly one.

        :raises ValueError: for a pattern that can match no channel.
        :raises TypeError: for a handler that takes something else.

        .. versionadded:: 4.0
        """
        if not isinstance(name, str):
            raise TypeError('Name the event: @pusher.webhooks.event("member_added")')
        near = get_close_matches(name, rules.WEBHOOK_EVENTS, n=1, cutoff=0.75)
        if near and name not in near:
            warn(f"Channels sends no webhook event {name!r}. Is {near[0]!r} meant?")
        arguments = repr(name) if pattern is None else f"{name!r}, {pattern!r}"
        declaration = f"@pusher.webhooks.event({arguments})"
        channels = None if pattern is None else handlers.Pattern(pattern, declaration)

        def decorator(handler: handlers.Handler) -> handlers.Handler:
            variables = channels.names if channels else ()
            handlers.expect_handler(handler, declaration, ("event",), variables)
            self._declared.declare_event(name, channels, handler)
            return handler

        return decorator


class WebhookViews:
    """What the webhook routes answer in one application."""

    def __init__(self, app: Flask, settings: Settings, declared: handlers.Handlers) -> None:
        self.app = app
        self.tokens = {**settings.extra_tokens, settings.key: settings.secret}
        self.max_age = settings.webhook_max_age
        self.declared = declared
        for pattern, _ in chain.from_iterable(declared.events.values()):
            self._variables(pattern, None)  # a converter that is unknown is told at the start

    def answer(self, group: str | None = None) -> str:
        """The view of a group's route; None: of the one for all."""
        if not (self.declared.events or self._of_groups(group)):
            self.app.logger.debug("No handler is declared for webhooks at %s.", request.path)
            abort(404, "This application handles no webhooks here.")
        events = self._verified_events(group)
        # All are known before the first runs, which may change what it is given.
        for handler, arguments, variables in list(self._calls(group, events)):
            name, log = handlers.name_of(handler), self.app.logger.debug
            try:
                returned = self.app.ensure_sync(handler)(*arguments, **variables)
            except Exception as error:
                log("%s() refused a webhook: it raised %s.", name, type(error).__name__)
                raise
            answer = handlers.answer_in(handlers.finished(returned, handler), self.app)
            if answer and handlers.is_refusal(answer):
                log("%s() refused a webhook: %s.", name, answer.status)
                abort(answer)
        return "OK"

    def _of_groups(self, group: str | None) -> dict[str, handlers.Handler]:
        """The handlers of the groups that a route is for, by their groups' names."""
        slots = self.declared.groups.items()
        return {name: one.handler for name, one in slots if one.handler and group in (None, name)}

    def _calls(
        self, group: str | None, events: list[dict[str, Any]]
    ) -> Iterator[tuple[handlers.Handler, tuple[dict[str, Any], ...], dict[str, Any]]]:
        """What is to be called for a webhook on the route of a group, or on the one of all."""
        names = {event["name"] for event in events}
        for name, handler in self._of_groups(group).items():
            if group or names.intersection(rules.WEBHOOK_GROUPS[name]):
                yield handler, (), {}
        for event in events:
            for pattern, handler in self.declared.events.get(event["name"], ()):
                variables = self._variables(pattern, event.get("channel"))
                if variables is not None:
                    yield handler, (dict(event),), variables

    def _variables(self, pattern: handlers.Pattern | None, channel: Any) -> dict[str, Any] | None:
        """What a handler's pattern finds in an event's channel; None where it does not match."""
        if pattern is None:
            return {}
        match = pattern.compile(self.app.url_map).match
        with suppress(HTTPException):  # of a converter that finds no such row
            return match(channel) if rules.is_channel_name(channel) else None
        return None

    def _verified_events(self, group: str | None) -> list[dict[str, Any]]:
        try:
            body = request.get_data()
        except (OSError, HTTPException) as error:  # broken chunks, no more of it, too much
            self._refuse(getattr(error, "code", 400), "its body cannot be read, or is too long")
        self._expect_signature(body)
        content = posted_object()  # kept, for a handler's request.json
        if content is None:
            self._refuse(400, "its body is no JSON object")
        # Tests that were written for 3.0 send none to its routes, and no name of an event's either.
        is_of_3_0 = group in handlers.IN_3_0 and "name" not in content
        events = content.get("events", [] if is_of_3_0 else None)
        if not isinstance(events, list) or not all(map(_has_name, events)):
            self._refuse(400, "its body has no list of events with a name each")
        self._expect_recent(content.get("time_ms", math.inf))  # one without it passes
        return events

    def _expect_signature(self, body: bytes) -> None:
        """That of the key which the webhook names, of all that are known to have sent it."""
        key, signature = map(request.headers.get, ("X-Pusher-Key", "X-Pusher-Signature"))
        secrets = [one for known, one in self.tokens.items() if _are_equal(key, known)]
        if not secrets:
            self._refuse(403, "its X-Pusher-Key is missing, or none of this application's")
        if not _are_equal(signature, _signature(secrets[0], body)):
            self._refuse(403, "its X-Pusher-Signature is missing, or not by its key's secret")

    def _expect_recent(self, time_ms: Any) -> None:
        try:
            sent = float(str(time_ms))  # some servers send text
        except ValueError:
            self._refuse(400, "its time_ms is not a number")
        # NaN, which Python's JSON knows, is not greater than anything.
        if self.max_age is not None and not sent >= (time.time() - self.max_age) * 1000:
            self._refuse(403, f"it is older than PUSHER_WEBHOOK_MAX_AGE, {self.max_age} seconds")

    def _refuse(self, status: int, reason: str) -> NoReturn:
        self.app.logger.warning("Refused a webhook at %s: %s.", request.path, reason)
        abort(status, f"This webhook is refused: {reason}.")


def webhook_headers(key: str, secret: str, body: str | bytes) -> dict[str, str]:
    """The headers with which Channels sends a webhook."""
    return {
        "Content-Type": "application/json",
        "X-Pusher-Key": key,
        "X-Pusher-Signature": _signature(secret, body.encode() if isinstance(body, str) else body),
    }


def _signature(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, "sha256").hexdigest()


def _are_equal(given: str | None, known: str) -> bool:
    """In a time that says nothing about where they differ."""
    return hmac.compare_digest((given or "").encode(errors="replace"), known.encode())


def _has_name(event: Any) -> bool:
    return isinstance(event, dict) and isinstance(event.get("name"), str)

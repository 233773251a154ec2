"""What is deferred, and the rule of when it leaves.

===============================================  ==============================================
where ``defer`` is called                        when the event leaves
===============================================  ==============================================
anywhere in a request of the application, in     when the server has closed the response, unless
copies of its context and teardown too           its status is 400 or more, or an exception left
                                                 the application
while a streamed response is produced            when that is closed, unless the stream raised
after the response was closed, in a copy of its  when that copy's context ends, unless an exception
context                                          ended it
in a process that was forked meanwhile           at once: nothing there tells how it ends
in an application context outside of a request   when that context ends, unless an exception ended
                                                 it
===============================================  ==============================================

One place knows how a request ended: the middleware around ``app.wsgi_app``, which sees the final
status, the exceptions and the close. A client that leaves is no failure.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import click
from flask import Flask, g, has_app_context, has_request_context, request
from flask.signals import appcontext_tearing_down

from _flask_pusher.client import Client
from _flask_pusher.handlers import Slot
from _flask_pusher.publisher import Publisher, Wire, is_telling, publish_here, publisher
from _flask_pusher.recording import Recording, Recordings
from _flask_pusher.transactions import Fate, Followed

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_call: ContextVar[Outbox | None] = ContextVar("flask_pusher_call", default=None)
"""The outbox of the WSGI call that runs, for functions whose request's context is gone, and for
copies of the context that outlive the request: some servers clear ``environ`` at its end."""

_is_handing_over: ContextVar[bool] = ContextVar("flask_pusher_is_handing_over", default=False)
"""Whether the application's ``hand_over`` function runs, whose own events are not handed over."""

_INHERITED = "_flask_pusher_inherited"
"""What marks ``g`` of an application context that a forked process has from its parent."""


def _mark_inherited() -> None:
    with suppress(RuntimeError):  # there is none
        setattr(g, _INHERITED, True)


with suppress(AttributeError):  # this system does not fork
    os.register_at_fork(after_in_child=_mark_inherited)


def places() -> tuple[object, ...]:
    """The request and the application context that code runs in, those that there are."""
    context = g._get_current_object() if has_app_context() else None
    return tuple(place for place in (_call.get(), context) if place is not None)


class Entry:
    """A deferred event, the recordings it belongs to, and the transaction whose fate it shares."""

    __slots__ = ("event", "fate", "recordings")

    def __init__(self, event: Wire, recordings: list[Recording] | None, fate: Fate | None) -> None:
        self.event = event
        self.recordings = recordings
        """Where it goes in place of the service; None: to the service."""
        self.fate = fate

    @property
    def may_leave(self) -> bool:
        return self.fate is None or self.fate.allows()


class Outboxes:
    """What one application defers."""

    def __init__(
        self,
        app: Flask,
        client: Client,
        mode: str,
        recordings: Recordings,
        followed: Followed,
        hand_over: Slot,
    ) -> None:
        self.app = app
        self.client = client
        self.has_thread = mode == "thread"
        self.recordings = recordings
        self.followed = followed
        self.hand_over = hand_over
        self.key = f"flask_pusher.outbox.{id(self)}"

    def watch(self) -> None:
        """See how each request of the application ends."""
        self.app.wsgi_app = Middleware(self, self.app.wsgi_app)  # type: ignore[method-assign]

    def defer(self, events: Iterable[Wire], *, is_decided: bool = False) -> None:
        """Let events leave when this place has succeeded.

        :param is_decided: they tell what has been committed. No transaction decides about them,
            and outside of a request nothing does: they leave now.
        """
        recordings = self.recordings.of(self.client) or None
        fate = None if is_decided else self.followed.in_progress()
        is_now = is_decided and _call.get() is None and not has_request_context()
        for event in events:
            entry = Entry(event, recordings and list(recordings), fate)
            for outbox in () if is_now else self._here():
                if outbox.add(entry):
                    outbox.prepare()
                    break
            else:
                self.leave([entry], here=not is_now)

    def _here(self) -> Iterator[Outbox]:
        """The outboxes that an event of this place may go into, the first that is open. None is,
        where the response was closed and a copy of its context, as ``contextvars`` makes it, goes
        on, nor where a forked process has its parent's: nothing tells when that ends."""
        outbox = _call.get()
        if outbox is not None and outbox.owner is self:
            yield outbox
            return
        if has_request_context():
            # Another thread, in a copy of the request's context, has no more than that.
            outbox = request.environ.get(self.key)
            if outbox is not None:
                yield outbox
        if _INHERITED in g:
            return
        if self.key not in g:
            setattr(g, self.key, Outbox(self, is_of_request=False))
            appcontext_tearing_down.connect(self._end_context, self.app)
        yield g.get(self.key)

    def _end_context(self, _app: Flask, exc: BaseException | None = None, **_extra: Any) -> None:
        """An application context ends, with what was deferred in it outside of a request."""
        outbox: Outbox | None = g.pop(self.key, None)
        if outbox is not None:
            if exc is not None and not _is_success(exc):
                outbox.fail()
            outbox.close(here=True)

    def leave(self, entries: list[Entry], *, here: bool) -> None:
        """Let events go where they belong.

        :param here: publish in this thread, which waits for the answer.
        """
        events = []
        for entry in entries:
            if not entry.may_leave:
                name, channels = entry.event["name"], " ".join(entry.event["channels"])
                self.app.logger.debug("Dropped with its transaction: %r on %s.", name, channels)
                continue
            if entry.recordings is None:
                events.append(entry.event)
            for recording in entry.recordings or ():
                recording.add(self.client, entry.event)
        if not events:
            return
        if is_telling():
            publish_here(self.app, self.client, events)
            return
        is_taken = False
        try:
            is_taken = self._handed_over(events)
        finally:  # it may end by what is no Exception, such as gevent.Timeout
            if not is_taken:
                self._publish(events, here)

    def _handed_over(self, events: list[Wire]) -> bool:
        handler = self.hand_over.handler
        if handler is None or _is_handing_over.get():
            return False
        calls = [dict(event) for event in events]
        token = _is_handing_over.set(True)
        try:
            with self.app.app_context():
                self.app.ensure_sync(handler)(calls)
        except Exception:
            self.app.logger.exception(
                "@pusher.hand_over raised an exception, so that deferred events are published"
                " by the publisher."
            )
            return False
        finally:
            _is_handing_over.reset(token)
        return True

    def _publish(self, events: list[Wire], here: bool) -> None:
        if here or not self.has_thread or not publisher().start():
            publish_here(self.app, self.client, events)
        else:
            publisher().submit(self.app, self.client, events)


class Outbox:
    """The events that one WSGI call, or one application context, has deferred so far."""

    __slots__ = (
        "__weakref__",
        "_entries",
        "_lock",
        "_was_ended_by_error",
        "is_closed",
        "is_of_request",
        "may_be_streamed",
        "owner",
        "pid",
        "publisher",
        "status",
    )

    def __init__(self, owner: Outboxes, *, is_of_request: bool) -> None:
        self.owner = owner
        self.pid = os.getpid()
        self.is_of_request = is_of_request
        self.status = ""
        self.may_be_streamed = False
        """Whether the response has no length, and may defer when the application has returned."""
        self.is_closed = False
        self.publisher: Publisher | None = None
        """Who runs what a garbage collector must not; None where nothing was deferred."""
        self._was_ended_by_error = False
        self._entries: list[Entry] = []
        # Another thread may defer in a copy of the context while the response is closed.
        self._lock = threading.Lock()

    @property
    def is_empty(self) -> bool:
        return not self._entries

    @property
    def has_failed(self) -> bool:
        """Whether nothing leaves from here."""
        return self._was_ended_by_error or self.status >= "400"

    def add(self, entry: Entry) -> bool:
        """Take an event, unless it is too late."""
        with self._lock:
            if self.is_closed or self.pid != os.getpid():
                return False
            self._entries.append(entry)
        for recording in entry.recordings or ():
            recording.at_end[id(self)] = self.settle
        return True

    def prepare(self) -> None:
        """Have the publisher run before a response could be dropped."""
        if self.is_of_request and self.owner.has_thread and publisher().start():
            self.publisher = publisher()

    def fail(self) -> None:
        self._was_ended_by_error = True

    def settle(self, recording: Recording) -> None:
        """A recording ends, and has what is undecided by then."""
        with self._lock:
            found = [
                (entry, entry.recordings)
                for entry in self._entries
                if entry.recordings and recording in entry.recordings
            ]
        for entry, recordings in found:
            if entry.may_leave and not self.has_failed:
                recording.add(self.owner.client, entry.event)
            recordings.remove(recording)

    def answer(self) -> None:
        """The response is ready, or its stream has ended: what is not for the publisher leaves."""
        is_handed_over = self.owner.hand_over.handler is not None
        self._leave(lambda entry: is_handed_over or entry.recordings is not None)

    def close_if_empty(self) -> bool:
        with self._lock:
            self.is_closed = not self._entries
        return self.is_closed

    def close(self, *, here: bool = False) -> None:
        """It is over, and what is left leaves."""
        self.is_closed = True
        self._leave(lambda _entry: True, here=here)

    def _leave(self, is_asked: Callable[[Entry], bool], *, here: bool = False) -> None:
        with self._lock:
            entries = [entry for entry in self._entries if is_asked(entry)]
            self._entries = [entry for entry in self._entries if not is_asked(entry)]
        if entries and not self.has_failed and self.pid == os.getpid():
            self.owner.leave(entries, here=here)


class Middleware:
    """Around the application: the place that knows how a request ended."""

    def __init__(self, outboxes: Outboxes, wsgi_app: WSGIApplication) -> None:
        self.outboxes = outboxes
        self.wsgi_app = wsgi_app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        outbox = environ[self.outboxes.key] = Outbox(self.outboxes, is_of_request=True)

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            outbox.status = status
            outbox.may_be_streamed = "Content-Length" not in dict(headers)
            return start_response(status, headers, *error)

        token = _call.set(outbox)
        try:
            body = self.wsgi_app(environ, start)
        except BaseException:
            outbox.fail()
            outbox.close()
            raise
        finally:
            _call.reset(token)
        if not outbox.may_be_streamed:
            if outbox.close_if_empty():
                return body
            outbox.answer()
        return _Body(body, outbox)


class _Body:
    """The response's body, whose end and close the outbox is told of."""

    def __init__(self, body: Iterable[bytes], outbox: Outbox) -> None:
        self._body = body
        self._next = iter(body).__next__
        self._outbox = outbox

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = _call.set(self._outbox)
        try:
            return self._next()
        except StopIteration:
            self._outbox.answer()
            raise
        except BaseException:
            self._outbox.fail()
            raise
        finally:
            _call.reset(token)

    def close(self) -> None:
        token = _call.set(self._outbox)
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        except BaseException:
            self._outbox.fail()
            raise
        finally:
            _call.reset(token)
            self._outbox.close()

    def __del__(self) -> None:
        """Some servers drop the response to a client that left, without closing it: Werkzeug's
        development server does. Python may do this in the midst of anything, so that no lock can
        be taken; a queue's ``put`` takes none. A forked process drops its parent's responses, too:
        to that process's publisher, which does not run there."""
        outbox = self._outbox
        if outbox.is_closed or outbox.is_empty:
            return
        if outbox.publisher is not None:
            outbox.publisher.jobs.put(outbox.close)
        else:
            outbox.close()


def _is_success(error: BaseException) -> bool:
    """Whether this is only how a command or a stream ends early, and nothing went wrong."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code == 0
    if isinstance(error, SystemExit):
        return not error.code
    return isinstance(error, GeneratorExit)

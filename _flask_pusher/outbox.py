"""What is deferred, and the rule of when it leaves.

===============================================  ==============================================
where ``defer`` is called                        when the event leaves
===============================================  ==============================================
anywhere in a request of the application, in     when the server has closed the response, unless
copies of its context and teardown too           its status is 400 or more, or an exception left
                                                 the application
while a streamed response is produced            when that is closed, unless the stream raised
in a request that came round the middleware      when its context ends, unless Flask finished it
                                                 with a status of 400 or more, or it raised
after the response was closed, in a copy of its  when that copy's context ends, unless an exception
context                                          ended it
in a process that was forked meanwhile           at once: nothing there tells how it ends
in an application context outside of a request,  when that context ends, unless an exception ended
of a handler of Flask-SocketIO's too             it
===============================================  ==============================================

One place knows how a request ended: the middleware around ``app.wsgi_app``, which sees the final
status, the exceptions and the close. A client that leaves is no failure. A context that began
inside a thread of another one, or a copy of it, is its own.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import ref

import click
from flask import Flask, Response, g, has_app_context, has_request_context, request
from flask.signals import appcontext_tearing_down, request_finished, request_tearing_down

from _flask_pusher.client import Client, api_of
from _flask_pusher.desk import Event, Wire
from _flask_pusher.handlers import Slot, context_for, is_ending
from _flask_pusher.publisher import Delivery, is_telling, named, publish_here, publisher, submit
from _flask_pusher.recording import Recording, Recordings
from _flask_pusher.transactions import Followed, Transaction

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_call: ContextVar[Outbox | None] = ContextVar("flask_pusher_call", default=None)
"""The outbox of the WSGI call that runs, for functions whose request's context is gone, and for
copies of the context that outlive the request: some servers clear ``environ`` at its end."""

_is_handing_over: ContextVar[bool] = ContextVar("flask_pusher_is_handing_over", default=False)
"""Whether the application's ``hand_over`` function runs, whose own events are not handed over."""

_INHERITED = "_flask_pusher_inherited"
"""What marks ``g`` of an application context that a forked process has from its parent."""

_process = [os.getpid()]
"""The id of this process, which is not to be asked for with each request."""

WAITING_SECONDS = 60
"""After which an event that has not left is spoken of."""


def places() -> tuple[object, ...]:
    """The request and the application context that code runs in, those that there are."""
    call = _call.get()
    found = [call] if call is not None and call.is_here() else []
    return (*found, g._get_current_object()) if has_app_context() else tuple(found)


@dataclass(eq=False, repr=False)
class Entry(Event):
    """A deferred event, the recordings it belongs to, and the transactions that decide about it."""

    recordings: list[Recording] | None = None
    """Where it goes in place of the service; None: to the service."""
    fate: Sequence[Transaction] = ()

    def is_allowed(self) -> bool:
        """Whether its transactions let it leave, asked when it would."""
        return all(transaction.allows() for transaction in self.fate)


@dataclass(eq=False)
class Outboxes:
    """What one application defers."""

    app: Flask
    client: Client
    has_thread: bool
    """Whether a thread of the publisher's publishes, and not that of the request."""
    recordings: Recordings
    followed: Followed
    hand_over: Slot

    def watch(self) -> None:
        """See how each request of the application ends."""
        self.key = f"flask_pusher.outbox.{id(self)}"
        self.wsgi_app: WSGIApplication = self.app.wsgi_app
        self.app.wsgi_app = self._run  # type: ignore[method-assign]
        self.app.url_value_preprocessor(self._begin)

    def _run(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Around the application: the place that knows how a request ended."""
        outbox = environ[self.key] = Outbox(self, "request")

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            outbox.status = status
            outbox.may_be_streamed = "Content-Length" not in dict(headers)
            if environ.get("HTTP_X_PUSHER_LIVE") == "1":
                # A page fetches this by itself: it writes into no session, and keeps none alive.
                headers = [header for header in headers if header[0].lower() != "set-cookie"]
            return start_response(status, headers, *error)

        try:
            with outbox:
                body = self.wsgi_app(environ, start)
        except BaseException as error:
            # By StopIteration a view that has spoken WebSocket lets go of gunicorn's connection.
            if environ.get("HTTP_UPGRADE", "").lower() != "websocket":
                outbox.fail(error)
            outbox.close()
            raise
        is_over = not outbox.may_be_streamed and outbox.responded()
        return body if is_over else _Body(body, outbox)

    def _begin(self, _endpoint: str | None, _values: dict[str, Any] | None) -> None:
        """Flask takes the request of a WSGI call: of one that is Flask-SocketIO's it does not."""
        call = _call.get()
        if call is not None and call.owner is self and call.context is None:
            call.context = ref(g._get_current_object())

    def defer(self, events: Iterable[Wire], *, is_decided: bool = False) -> None:
        """Let events leave when this place has succeeded.

        What a receiver or the hand-over defers leaves now, whatever becomes of the place.

        :param is_decided: they tell what has been committed. No transaction decides about them,
            and outside of a request nothing does: they leave now.
        """
        recordings = self.recordings.of(self.client)
        is_aside = is_telling() or _is_handing_over.get()
        fate = [] if is_decided or is_aside else self.followed.in_progress()
        is_now = is_aside or (is_decided and not _is_in_request())
        entries = [
            Entry(self.app, self.client, event, recordings=[*recordings] or None, fate=fate)
            for event in events
        ]
        if not is_now:
            entries = [one for one in entries if not any(box.add(one) for box in self._here())]
        self.leave(entries, self._expect)

    def _expect(self, delivery: Delivery) -> None:
        if not any(box.expect(delivery) for box in self._here()):
            delivery.wait()  # nothing tells when this place ends

    def send(self, wires: Sequence[Wire]) -> None:
        """Let events leave now, whatever becomes of this place. Where the thread of a request
        publishes, that is when it has its response."""
        if self.record(wires):
            return
        events = [Event(self.app, self.client, wire) for wire in wires]
        is_kept = not self.has_thread and _is_in_request()
        if not (is_kept and any(box.keep(events) for box in self._here())):
            self.publish(events)

    def record(self, wires: Sequence[Wire]) -> bool:
        """Let events go into the recordings that are in force. Returns whether there are any."""
        recordings = self.recordings.of(self.client)
        for recording in recordings:
            recording.add(api_of(self.client), wires)
        return bool(recordings)

    def _here(self) -> Iterator[Outbox]:
        """The outboxes that an event of this place may go into, the first that is open. None is,
        where the response was closed and a copy of its context, as ``contextvars`` makes it, goes
        on, nor where a forked process has its parent's: nothing tells when that ends."""
        outbox, status = _call.get(), ""
        if outbox is not None and outbox.owner is self:
            if outbox.is_here():
                yield outbox
                return
        elif has_request_context():
            # Another thread, in a copy of the request's context, has no more than that.
            outbox = request.environ.get(self.key)
            if outbox is not None and outbox.context is not None:
                yield outbox
                status = outbox.status and "200"  # it is over, and decides nothing here
        if _INHERITED in g:
            return
        kind = "request" if has_request_context() else "application context"
        if self.key + kind not in g:
            setattr(g, self.key + kind, Outbox(self, kind, status))
            request_finished.connect(self._finish, self.app)
            # An application context around the request has the same g, and goes on.
            request_tearing_down.connect(self._end_request, self.app)
            appcontext_tearing_down.connect(self._end_context, self.app)
        yield g.get(self.key + kind)

    def _finish(self, _app: Flask, response: Response, **_extra: Any) -> None:
        """A request has its response. It came round the middleware, or this was deferred before
        Flask said so."""
        if self.key + "request" in g:
            g.get(self.key + "request").status = response.status

    def _end_context(self, app: Flask, exc: BaseException | None = None, **_extra: Any) -> None:
        self._end_request(app, exc)
        self._end("application context", exc)

    def _end_request(self, _app: Flask, exc: BaseException | None = None, **_extra: Any) -> None:
        self._end("request", exc)

    def _end(self, kind: str, exc: BaseException | None) -> None:
        """A context ends, with what was deferred in it."""
        outbox: Outbox | None = g.pop(self.key + kind, None)
        if outbox is None:
            return
        if exc is not None and not _is_success(exc):
            outbox.fail(exc)
        # Nobody waits in a collector, which closes a generator and the context in it, nor where
        # somebody waits for a response.
        is_waited_for = bool(outbox.status) or _is_handing_over.get()
        token = is_ending.set(True)
        try:
            outbox.close(waits=not is_waited_for and not isinstance(exc, GeneratorExit))
        finally:
            is_ending.reset(token)

    def leave(self, entries: Iterable[Entry], expect: Callable[[Delivery], object]) -> None:
        """Let events go where they belong.

        :param expect: told of what is on its way to the service.
        """
        events: list[Event] = []
        for entry in entries:
            if not entry.is_allowed():
                self.app.logger.debug("Dropped with its transaction: %s.", entry)
            elif entry.recordings is None:
                events.append(entry)
            else:
                for recording in entry.recordings:
                    recording.add(api_of(self.client), [entry.wire])
        is_taken = not events
        try:
            is_taken = is_taken or self._handed_over(events)
        finally:  # it may end by what is no Exception, such as gevent.Timeout
            delivery = None if is_taken else self.publish(events)
            if delivery:
                expect(delivery)

    def _handed_over(self, events: list[Event]) -> bool:
        handler = self.hand_over.handler
        if handler is None or is_telling() or _is_handing_over.get():
            return False
        token = _is_handing_over.set(True)
        try:
            with context_for(self.app):
                self.app.ensure_sync(handler)([dict(event.wire) for event in events])
        except Exception:
            self.app.logger.exception("@pusher.hand_over raised: the publisher takes the events.")
            return False
        finally:
            _is_handing_over.reset(token)
        return True

    def publish(self, events: Sequence[Event]) -> Delivery | None:
        """Let events go to the service. Returns what is on its way, unless this thread sent it."""
        if is_telling() or not self.has_thread:
            publish_here(events)
            return None
        return submit(events)


def _is_in_request() -> bool:
    call = _call.get()
    return has_request_context() or (call is not None and call.is_here())


class Outbox:
    """The events that one WSGI call, or one application context, has deferred so far. What runs
    ``with`` that of a call is the call, and fails by an exception."""

    context: ref[object] | None = None
    """``g`` of Flask's request in this call; None: Flask has none."""
    may_be_streamed = True
    """Whether the response has no length, and may defer when the application has returned."""
    is_closed = False
    since = 0.0
    """When the first event came."""
    _certain: tuple[Event, ...] = ()
    _on_the_way: tuple[Delivery, ...] = ()
    """What the end of this waits for, though it has left."""
    _failure = ""
    _thread = 0
    """The one in which the server calls."""

    def __init__(self, owner: Outboxes, of: str, status: str = "") -> None:
        self.owner = owner
        self.of = of
        """What it is that of, in words."""
        self.status = status
        """Of its request's response, as soon as that has one."""
        self.pid = _process[0]
        self._entries: list[Entry] = []
        # Another thread may defer in a copy of the context while the response is closed.
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._thread = threading.get_ident()
        self._token: Token[Outbox | None] = _call.set(self)

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        _call.reset(self._token)
        if error is not None and not isinstance(error, StopIteration):
            self.fail(error)

    @property
    def failure(self) -> str:
        """With what everything here is dropped; empty: with nothing."""
        refusal = f"its request, which was answered with {self.status}"
        return self._failure or (refusal if self.status >= "400" else "")

    @property
    def is_empty(self) -> bool:
        return not self._entries and not self._certain

    @property
    def _is_open(self) -> bool:
        return not self.is_closed and self.pid == _process[0]

    def is_here(self) -> bool:
        """Whether code runs in this call's request: in its thread, or in a copy of its context. In
        a thread that inherited that, and in a copy, another context may have begun."""
        if self.context is None:
            return False
        if self._is_open and self._thread == threading.get_ident():
            return True
        return has_app_context() and self.context() is g._get_current_object()

    def add(self, entry: Entry) -> bool:
        """Take an event, unless it is too late."""
        with self._lock:
            if not self._is_open:
                return False
            self._entries.append(entry)
        for recording in entry.recordings or ():
            recording.at_end[id(self)] = self.settle
        if not self.since:
            self.since = time.monotonic()
            _hold(self)
            if self.owner.has_thread:
                publisher().start()  # before the response could be dropped
        return True

    def keep(self, events: Iterable[Event]) -> bool:
        """Take events that leave however this ends, unless it is too late."""
        with self._lock:
            if self._is_open:
                self._certain += tuple(events)
            return self._is_open

    def expect(self, delivery: Delivery) -> bool:
        """Wait for events at the end of this, unless it is too late."""
        self._on_the_way = (*(one for one in self._on_the_way if one.left), delivery)
        return self._is_open

    def fail(self, error: BaseException) -> None:
        self._failure = f"its {self.of}, which ended by {type(error).__name__}"

    def settle(self, recording: Recording) -> None:
        """A recording ends, and has what is undecided by then."""
        with self._lock:
            found = [entry for entry in self._entries if recording in (entry.recordings or ())]
        for entry in found:
            if entry.is_allowed() and not self.failure:
                recording.add(api_of(self.owner.client), [entry.wire])
            entry.recordings = [one for one in entry.recordings or () if one is not recording]
        self._leave(lambda entry: entry.recordings != [])

    def responded(self) -> bool:
        """The response is ready, or its stream has ended: what is not for the publisher leaves.
        Returns whether it is over: nothing is left, and nothing comes."""
        if self._entries:
            is_for_queue = self.owner.hand_over.handler is not None
            self._leave(lambda entry: entry.recordings is None and not is_for_queue)
        with self._lock:
            self.is_closed = self.is_empty and not self.may_be_streamed
        return self.is_closed

    def close(self, *, waits: bool = False) -> None:
        """It is over, and what is left leaves."""
        with self._lock:
            self.is_closed, certain, self._certain = True, self._certain, ()
        try:
            try:  # it came before what waits for the end
                if certain and self.pid == _process[0]:
                    self.owner.publish(certain)
            finally:
                self._leave(lambda _entry: False)
        finally:
            for delivery in self._on_the_way if waits else ():
                delivery.wait()

    def _leave(self, stays: Callable[[Entry], bool]) -> None:
        with self._lock:
            entries = [entry for entry in self._entries if not stays(entry)]
            self._entries = [entry for entry in self._entries if stays(entry)]
        if not self._entries:
            _held.discard(self)
        if not entries or self.pid != _process[0]:
            return
        if failure := self.failure:
            self.owner.app.logger.debug("Dropped with %s: %s.", failure, named(entries))
        else:
            self.owner.leave(entries, self.expect)

    def warn(self, what: str) -> None:
        """Say of events that have not left what they wait for."""
        self.owner.app.logger.warning(
            f"%s for the end of their {self.of}: %s. Let each job have a context, 'with"
            " app.app_context():', and a test close its responses; pusher.trigger(..., wait=False)"
            " waits for neither.",
            *(what, named(self._entries)),
        )


_held: set[Outbox] = set()
"""Those that hold events, some of which wait for an end that does not come."""
_timers: list[threading.Timer] = []
"""The one that looks after them, if there are any."""


def _hold(outbox: Outbox) -> None:
    _held.add(outbox)
    if outbox.owner.has_thread and not _timers:
        timer = threading.Timer(WAITING_SECONDS / 4, _speak_of_held)
        timer.daemon = True
        _timers.append(timer)
        with suppress(RuntimeError):  # the interpreter ends
            timer.start()


def _speak_of_held() -> None:
    _timers.clear()
    for outbox in list(_held):
        if time.monotonic() - outbox.since < WAITING_SECONDS:
            _hold(outbox)
        else:
            _held.discard(outbox)  # once is enough
            outbox.warn(f"Deferred events have waited for {WAITING_SECONDS} s")


@atexit.register
def _speak_at_exit() -> None:
    for outbox in list(_held):
        outbox.warn("The process ended, and deferred events had waited")


def _inherit() -> None:
    """A forked process has what its parent had, and no end of that."""
    _process[0] = os.getpid()
    _held.clear()
    _timers.clear()
    with suppress(RuntimeError):  # there is no context
        setattr(g, _INHERITED, True)


with suppress(AttributeError):  # this system does not fork
    os.register_at_fork(after_in_child=_inherit)


class _Body:
    """The response's body, whose end and close the outbox is told of."""

    def __init__(self, body: Iterable[bytes], outbox: Outbox) -> None:
        self._body = body
        self._parts = chain.from_iterable((body,))  # some middleware begins its work by iter()
        self._outbox = outbox

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with self._outbox:
                return next(self._parts)
        except StopIteration:
            self._outbox.responded()
            raise

    def close(self) -> None:
        try:
            with self._outbox:
                if hasattr(self._body, "close"):
                    self._body.close()
        finally:
            self._outbox.close()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Some servers drop the response to a client that left, without closing it: Werkzeug's
        development server does. Python may do this in the midst of anything, so that nothing is
        waited for. A forked process drops its parent's, too; and at the interpreter's end Python
        3.13 has taken this module's names away."""
        outbox = self._outbox
        outbox.is_closed |= outbox.is_empty or is_finalizing()
        if outbox.is_closed or outbox.pid != _process[0]:
            return
        if outbox.owner.has_thread:
            publisher().run(outbox.close)
        else:
            outbox.close()


def _is_success(error: BaseException) -> bool:
    """Whether this is only how a command or a stream ends early, and nothing went wrong."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code == 0
    return isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code)

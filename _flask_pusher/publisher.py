"""The publisher: a background worker that each process has, started by the first event.

One thread, the dispatcher, owns all that the publisher knows, and does nothing but decide. Four
others, the senders, each make one call of the API at a time, and one more tells what became of
events. They speak by queues, so nothing here waits for a lock that a garbage collector could want.

What waits for a client is at its desk, see ``desk.py``; what an answer means is in ``policy.py``.
The applications take turns; the last idle sender is for one whose service answers and has no call.
"""

from __future__ import annotations

import atexit
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import Context, ContextVar
from functools import partial
from typing import Any

import blinker
from flask import Flask
from pusher.errors import PusherError

from _flask_pusher import policy
from _flask_pusher.client import Client, api_of
from _flask_pusher.desk import Address, Call, Desk, Event, Lost, Wire
from _flask_pusher.handlers import context_for
from _flask_pusher.recording import recorded
from _flask_pusher.transport import NoAnswer

_signals = blinker.Namespace()

publish_failed = _signals.signal("publish_failed")
"""Sent after deferred events were lost, and after that was logged.

The sender is the application, ``events`` a list of :class:`RecordedEvent`, and ``error`` the first
exception. It is sent in an application context, by a thread of the publisher's, or by the one that
published, with ``PUSHER_PUBLISHER="request"`` and ``publish()``.
``client.trigger(*event)`` tries an event again; so does ``pusher.defer(*event)``, once, and what
is lost then is only logged.

.. versionadded:: 4.0
"""

published = _signals.signal("published")
"""Sent after a call of the API has published events that this process deferred, or triggered with
``wait=False``; never while they are recorded.

The sender is the application, ``events`` a list of :class:`RecordedEvent`. Of the one that waited
longest, ``seconds`` is how long ago it left its request, and ``tries`` in how many calls it was.
It is sent as :data:`publish_failed` is, and costs nothing where nobody receives it.

.. versionadded:: 4.0
"""

Key = tuple[Client, Address]
"""Where events go: a client, and its address when they left."""

SENDERS = 4
WAKING_SECONDS = 0.003
PATIENCE_SECONDS = 30
EXIT_SECONDS, EXIT_SECONDS_WITHOUT_ANSWER, LAST_TRY_SECONDS = 10, 2, 1
WAITING_SECONDS_WITHOUT_ANSWER = 1
GRACE_SECONDS = 0.5
"""A wait as long as a call's own timeout would end just before the loss is known."""


# -- In the thread that waits ---------------------------------------------------------------------


def publish_here(events: Sequence[Event]) -> None:
    """Publish events in this thread, which is patient for ``PUSHER_TIMEOUT``; and tell what became
    of them. Where a receiver of the signals runs, they are tried once."""
    client = events[0].client
    desk = _desk_of(client, events, 0 if is_telling() else client.timeout)
    try:
        for call, error in _calls_of(desk):
            if error is None:
                tell_published(call.events)
            if news := _news_of(desk, call, error):
                news()
    except BaseException as error:
        desk.give_up(error)
        raise
    finally:
        tell_lost(desk.lost)


def publish_or_raise(app: Flask, client: Client, wires: Sequence[Wire]) -> None:
    """Publish events in this thread; tell what is refused, and raise what a retry can mend."""
    desk = _desk_of(client, [Event(app, client, wire) for wire in wires], 0)
    try:
        for _ in _calls_of(desk):
            for _, error in desk.lost:
                if not policy.is_refusal_of_an_event(error):
                    raise error
    finally:
        tell_lost([one for one in desk.lost if policy.is_refusal_of_an_event(one[1])])


def _desk_of(client: Client, events: Sequence[Event], patience: float) -> Desk:
    desk = Desk(client, client.address, patience, is_queue=False)
    for event in events:
        event.since = time.monotonic()
        desk.add(event)
    return desk


def _calls_of(desk: Desk) -> Iterator[tuple[Call, BaseException | None]]:
    """Make all calls of a desk, one after another."""
    while (call := desk.next(time.monotonic())) != math.inf:
        if not isinstance(call, Call):
            time.sleep(max(call - time.monotonic(), 0))
            continue
        error = desk.post(call.events)
        if error is not None and not isinstance(error, Exception):
            raise error  # that of a server's timeout, say
        desk.answered(call, error, time.monotonic())
        yield call, error


def _is_call(one: Any) -> bool:
    channels = one.get("channels") if isinstance(one, Mapping) else None
    if not channels or not isinstance(channels, (list, tuple)):
        return False
    return all(isinstance(text, str) for text in (*channels, one.get("name"), one.get("data")))


def checked_calls(calls: Any) -> list[Wire]:
    """What a task queue gives back of the calls that were handed over.

    :raises ValueError: for what was not.
    """
    if isinstance(calls, (list, tuple)) and all(map(_is_call, calls)):
        return list(calls)
    raise ValueError("publish() takes the list of dicts that was handed over, and nothing else.")


# -- What became of events ------------------------------------------------------------------------

_is_telling: ContextVar[bool] = ContextVar("flask_pusher_is_telling", default=False)
_NAMED = 100


def is_telling() -> bool:
    """Whether a receiver of the signals runs, so that what it defers is tried only once."""
    return _is_telling.get()


def named(events: Sequence[Event]) -> str:
    """Events in words, by name and channels; a hundred at most."""
    names = [*map(str, events[:_NAMED])]
    return ", ".join(names) + f", and {len(events) - _NAMED} more" * (len(events) > _NAMED)


def tell_lost(lost: Lost) -> None:
    """Log the events that an application lost, and send the signal."""
    if lost:
        events, error = [event for event, _ in lost], lost[0][1]
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        events[0].app.logger.error("Deferred events were lost: %s. %s", named(events), what)
        _send_signal(publish_failed, events, error=error)


def tell_published(events: Sequence[Event]) -> None:
    first = events[0]
    if published.has_receivers_for(first.app):
        seconds = time.monotonic() - first.since
        _send_signal(published, events, seconds=seconds, tries=first.tries)


def _send_signal(signal: blinker.NamedSignal, events: Sequence[Event], **told: Any) -> None:
    if is_telling():
        return
    app = events[0].app
    token = _is_telling.set(True)
    try:
        found = [recorded(api_of(event.client), event.wire) for event in events]
        with context_for(app):
            signal.send(app, _async_wrapper=app.ensure_sync, events=found, **told)
    except Exception:
        app.logger.exception("A receiver of %s raised an exception.", signal.name)
    finally:
        _is_telling.reset(token)


def _news_of(desk: Desk, call: Call, error: BaseException | None) -> Callable[[], None] | None:
    """What is to be logged of the service itself."""
    logger = call.events[0].app.logger
    address = f"{desk.api.scheme}://{desk.api.host}:{desk.api.port}"
    if error is not None and desk.failures and not desk.has_warned and desk.tries_again:
        desk.has_warned = True
        what = str(error) if isinstance(error, NoAnswer) else f"{address} answers: {error}"
        then = f"Deferred events are tried again until they are {desk.patience:g} seconds old."
        return partial(logger.warning, "%s %s", " ".join(what.split()), then)
    if desk.has_warned and not desk.failures and not desk.tries_again:
        desk.has_warned = False
        return partial(logger.info, "%s answers again: no deferred event waits for it.", address)
    return None


# -- The publisher --------------------------------------------------------------------------------


class Delivery:
    """Events on their way, for whoever waits until they are settled: published, or told as lost."""

    def __init__(self, publisher: Publisher, key: Key, left: int) -> None:
        self.publisher = publisher
        self.key = key
        self.left = left
        self.news: queue.SimpleQueue[None] = queue.SimpleQueue()

    def settle(self) -> None:
        self.left -= 1
        if self.news.empty():  # it is woken once for the events of a call
            self.news.put(None)

    def wait(self) -> None:
        """Wait until the events are settled: no longer than ``PUSHER_TIMEOUT`` without any being
        settled, a second where the service does not answer, and not where that is known."""
        last = time.monotonic()
        while self.left:
            until = last + self.key[0].timeout + GRACE_SECONDS
            desk = self.publisher.desks.get(self.key)
            if desk is not None and desk.failures:
                until = min(until, desk.failing_since + WAITING_SECONDS_WITHOUT_ANSWER)
            if time.monotonic() >= until:
                return
            with suppress(queue.Empty):
                self.news.get(timeout=0.1)
                last = time.monotonic()


class Publisher:
    """The dispatcher, the senders and the teller of this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        # Looked up here and not at import: gevent replaces them.
        self.inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.posts: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.chores: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.starting = threading.RLock()  # a collector may come here meanwhile
        self.is_started = False
        self.desks: dict[Key, Desk] = {}
        """The one whose turn is next comes first."""
        self.is_shared = False
        """Whether several applications were here at once."""
        self.idle = SENDERS
        self.has_answers = False
        self.ends: list[threading.Event] = []
        """What the end of the process waits for."""
        self.ending_since = 0.0

    def start(self) -> bool:
        """Start the threads, unless they run. False where none can be started any more, as when
        the interpreter ends."""
        with self.starting:
            if self.is_started:
                return True
            self.is_started = True
            work = [partial(self._work, jobs) for jobs in (*[self.posts] * SENDERS, self.chores)]
            try:
                for target in (*work, partial(self._dispatch)):
                    # In no context of whoever comes first: some Pythons hand it down to threads.
                    run = partial(Context().run, target)
                    threading.Thread(target=run, name="flask-pusher", daemon=True).start()
            except RuntimeError:
                self.is_started = False
                return False
            self._at_exit()
        return True

    def _at_exit(self) -> None:
        """A process that ends sends what waits: as its threads end, multiprocessing's too, by
        atexit below, and as Celery's workers end, which call neither."""
        with suppress(AttributeError, RuntimeError):  # too late, where only a thread still runs
            # Before the pools of concurrent.futures close, which asyncio resolves names with.
            threading._register_atexit(self.flush)  # type: ignore[attr-defined]
        if celery := sys.modules.get("celery.signals"):
            celery.worker_process_shutdown.connect(self.flush, weak=False)

    # -- Called by any thread --

    def run(self, function: Callable[[], None]) -> None:
        """Have a thread of the publisher's call this. A garbage collector may ask for it."""
        self.chores.put(function)

    def flush(self, *_sender: Any, **_extra: Any) -> None:
        """Wait until everything is published: 10 seconds at most, and 2 where the service does not
        answer. What is not is told."""
        if os.getpid() != self.pid or not self.is_started:
            return
        done = threading.Event()
        self.run(lambda: self.inbox.put(partial(self._end, done)))
        done.wait(EXIT_SECONDS + 1)

    # -- The senders and the teller --

    @staticmethod
    def _work(jobs: queue.SimpleQueue[Callable[[], None]]) -> None:
        while True:
            try:
                jobs.get()()
            except BaseException:  # noqa: BLE001, PERF203 - that of a hand-over or a receiver, say
                traceback.print_exc()

    def _send(self, desk: Desk, call: Call, events: Sequence[Event]) -> None:
        self.inbox.put(partial(self._answered, desk, call, desk.post(events)))

    def _tell(self, desk: Desk, tell: Callable[[], None], events: list[Event]) -> None:
        def tell_and_settle() -> None:
            try:
                tell()
            finally:
                self.inbox.put(partial(desk.settle, events))

        self.run(tell_and_settle)

    # -- The dispatcher --

    def _dispatch(self) -> None:
        when = math.inf
        while True:
            try:
                with suppress(queue.Empty):
                    patience = None if when == math.inf else max(when - time.monotonic(), 0)
                    self.inbox.get(timeout=patience)()
                when = self._decide()
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            if not self.has_answers:
                # Each wake-up takes the interpreter from a request, and few of them change much.
                time.sleep(WAKING_SECONDS)
            self.has_answers = False

    def _decide(self) -> float:
        """Start the calls that may start. Returns when there is something to do again."""
        with suppress(queue.Empty):
            while True:
                self.inbox.get_nowait()()
        now = time.monotonic()
        when = min(self._give_up(now), self._start_calls(now))
        for key, desk in list(self.desks.items()):
            if desk.lost:
                lost, desk.lost = desk.lost, []
                self._tell(desk, partial(tell_lost, lost), [event for event, _ in lost])
            if desk.is_over(now):
                del self.desks[key]
        if not any(desk.unsettled for desk in self.desks.values()):
            for done in self.ends:
                done.set()
            self.ends.clear()
        return when

    def _start_calls(self, now: float) -> float:
        when = math.inf
        turns = deque(self.desks.items())
        while turns and self.idle:
            key, desk = turns.popleft()
            is_kept = self.is_shared and self.idle == 1 and (desk.under_way or desk.failures)
            call = math.inf if is_kept else desk.next(now, is_hasty=bool(self.ends))
            if isinstance(call, Call):
                self.idle -= 1
                self.posts.put(partial(self._send, desk, call, call.events))
                self.desks[key] = self.desks.pop(key)
                turns.append((key, desk))
            else:
                when = min(when, call)
        return when

    def take(self, key: Key, events: Sequence[Event]) -> None:
        if key not in self.desks:
            self.is_shared |= bool(self.desks)
            self.desks[key] = Desk(*key, PATIENCE_SECONDS, is_queue=True)
        for event in events:
            self.desks[key].add(event)

    def _answered(self, desk: Desk, call: Call, error: BaseException | None) -> None:
        self.idle += 1
        self.has_answers = True
        desk.answered(call, error, time.monotonic())
        if not call.events:  # they were given up
            return
        if news := _news_of(desk, call, error):
            self.run(news)
        if error is None and (news or published.receivers):  # who waits goes on when it is told
            self._tell(desk, partial(tell_published, call.events), call.events)
        elif error is None:
            desk.settle(call.events)

    # -- The end --

    def _end(self, done: threading.Event) -> None:
        if not self.ends:
            self.ending_since = time.monotonic()
            for desk in self.desks.values():
                desk.hurry()
        self.ends.append(done)

    def _give_up(self, now: float) -> float:
        """Lose what the end of the process waits for too long. Returns when that will be so."""
        if not self.ends:
            return math.inf
        times = []
        for desk in self.desks.values():
            until = self.ending_since + EXIT_SECONDS
            if desk.failures:
                silent = desk.failing_since + EXIT_SECONDS_WITHOUT_ANSWER
                until = max(silent, self.ending_since + LAST_TRY_SECONDS)
            if now >= until:
                why = f" {desk.error}" if desk.failures else ""
                desk.give_up(PusherError(f"The process ended before they were published.{why}"))
            times.append(until)
        return min(times, default=math.inf)


_publishers: dict[int, Publisher] = {}

with suppress(AttributeError):  # this system does not fork
    os.register_at_fork(after_in_child=_publishers.clear)


def publisher() -> Publisher:
    """This process's publisher. A forked process makes its own."""
    pid = os.getpid()
    return _publishers.get(pid) or _publishers.setdefault(pid, Publisher())


# Registered here, it is called after the application's own functions, which may publish, too.
atexit.register(lambda: publisher().flush())


def submit(events: Sequence[Event]) -> Delivery:
    """Have the publisher publish events, all of one client, to its present address. This neither
    waits nor raises; where no thread can be started, it publishes in this one."""
    here, client = publisher(), events[0].client
    delivery = Delivery(here, (client, client.address), len(events))
    for event in events:
        event.since, event.settle = time.monotonic(), delivery.settle
    if here.start():
        here.inbox.put(partial(here.take, delivery.key, events))
    else:
        publish_here(events)
        delivery.left = 0
    return delivery

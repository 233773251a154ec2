"""Publishing what was deferred: in a thread behind the responses, or in the thread that waits.

The publisher is one for a process, started by the first event. One thread, the dispatcher, owns
all that it knows, and does nothing but decide; four others, the senders, each make one call at a
time. They speak by queues, so nothing here waits for a lock that a garbage collector could want.

When an event is sent, by what is under way for its application:

==============================================  ================================================
no call is under way                            at once
calls are                                       with ten events, their answer, or after 30 ms
a call with one of its channels is              after that one's answer: a channel keeps its order
the last call failed for now                    when a pause is over, one call at a time
==============================================  ================================================

What becomes of a call, by its answer:

==============================================  ================================================
200                                             it is done
400, 413; and 404 for a batch                   its events are sent singly, and the refused is lost
401, 402, 403                                   it is lost, with all that waits for this application
429, 5xx, or nobody took it                     it is tried again, until its events are 30 s old
anything else, a timeout too                    it is lost
==============================================  ================================================
"""

from __future__ import annotations

import atexit
import inspect
import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import blinker
from flask import Flask
from pusher.errors import PusherError
from pusher.http import POST

from _flask_pusher import rules
from _flask_pusher.client import Client, api_of
from _flask_pusher.recording import recorded
from _flask_pusher.transport import NoAnswer, status_of

publish_failed = blinker.Namespace().signal("pusher-publish-failed")
"""Sent after deferred events were lost, and after that was logged.

The sender is the application, ``events`` a list of :class:`RecordedEvent`, and ``error`` the first
exception. It is sent in an application context, by the thread that found out.
``client.trigger(*event)`` tries an event again; so does ``pusher.defer(*event)``, once, and what
is lost then is only logged.

.. versionadded:: 4.0
"""

Wire = Mapping[str, Any]
"""An event as the HTTP API takes it, with its ``channels``."""

SENDERS = 4
GATHERING_SECONDS = 0.03
WAKING_SECONDS = 0.003
PATIENCE_SECONDS = 30
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
EXIT_SECONDS = 10
QUEUE_BYTES = 64 * 1024 * 1024
CHANNEL_BYTES = 1000
"""About how many bytes an event takes beside its data, while it waits, for each channel."""

_OF_THE_EVENT = (400, 413)
_OF_THE_APP = (401, 402, 403)


# -- One call -------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What became of a call."""

    refused: list[tuple[Wire, Exception]]
    """Events that the service does not take, each with its refusal."""
    left: list[Wire]
    """Events that were not published."""
    error: Exception | None
    """Why they were not."""


def complete(answer: Any) -> Any:
    """An answer of the API: itself, or what a coroutine or future of it comes to."""
    if not inspect.isawaitable(answer):
        return answer
    import asyncio  # which takes long, and hardly any application needs

    async def wait() -> Any:
        return await answer

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    # A loop runs in this thread, and is not to be waited in: another thread gets one of its own.
    from concurrent.futures import ThreadPoolExecutor  # not sooner: as Python ends, it cannot be

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, wait()).result()


def calls_of(events: Iterable[Wire]) -> list[list[Wire]]:
    """The events by the calls that they go into, in order."""
    calls: list[list[Wire]] = []
    room = 0
    for event in events:
        entries = len(event["channels"])
        if entries > room:
            calls.append([])
            room = rules.EVENTS_PER_BATCH
        calls[-1].append(event)
        room -= entries
    return calls


def post(client: Client, events: Sequence[Wire]) -> None:
    """Publish events by one call."""
    call = api_of(client).call
    if len(events) == 1:
        complete(call(POST, "events", events[0]))
        return
    batch = [
        {"channel": channel, **{key: event[key] for key in event if key != "channels"}}
        for event in events
        for channel in event["channels"]
    ]
    complete(call(POST, "batch_events", {"batch": batch}))


def deliver(client: Client, events: list[Wire]) -> Outcome:
    """Publish events by one call; or singly where one was refused, which takes the others along."""
    try:
        post(client, events)
    except Exception as error:  # noqa: BLE001 - the caller finds out what it means
        status = status_of(error)
        # A server may not know batches; singly its events are known.
        if not (status in _OF_THE_EVENT or (status == 404 and len(events) > 1)):
            return Outcome([], events, error)
        if len(events) == 1:
            return Outcome([(events[0], error)], [], None)
    else:
        return Outcome([], [], None)
    return deliver_all(client, [[event] for event in events])


def deliver_all(client: Client, calls: Sequence[list[Wire]]) -> Outcome:
    """Publish the events of each call, in order, until one fails."""
    refused: list[tuple[Wire, Exception]] = []
    for number, events in enumerate(calls):
        outcome = deliver(client, events)
        refused += outcome.refused
        if outcome.left:
            rest = [event for later in calls[number + 1 :] for event in later]
            return Outcome(refused, [*outcome.left, *rest], outcome.error)
    return Outcome(refused, [], None)


def publish_here(app: Flask, client: Client, events: list[Wire]) -> None:
    """Publish events in this thread, and tell what is lost."""
    outcome = deliver_all(client, calls_of(events))
    lost = [(event, outcome.error) for event in outcome.left if outcome.error]
    tell(app, client, [*outcome.refused, *lost])


def publish_or_raise(app: Flask, client: Client, events: list[Wire]) -> None:
    """Publish events in this thread; tell what is refused, and raise what a retry can mend."""
    outcome = deliver_all(client, calls_of(events))
    tell(app, client, outcome.refused)
    if outcome.error is not None:
        raise outcome.error


def checked_calls(calls: Any) -> list[Wire]:
    """What a task queue gives back of the calls that were handed over.

    :raises ValueError: for what was not.
    """
    is_list = isinstance(calls, (list, tuple))
    if is_list and all(map(_is_wire, calls)):
        return list(calls)
    raise ValueError(
        "publish() takes the list of dicts that the function under @pusher.hand_over was called"
        f" with; this is of type {type(calls).__name__}{' and holds others' if is_list else ''}."
    )


def _is_wire(call: Any) -> bool:
    return (
        isinstance(call, Mapping)
        and isinstance(call.get("name"), str)
        and isinstance(call.get("data"), str)
        and isinstance(call.get("channels"), list)
        and bool(call["channels"])
    )


# -- What is lost ---------------------------------------------------------------------------------

_is_telling: ContextVar[bool] = ContextVar("flask_pusher_is_telling", default=False)
_NAMED = 100


def is_telling() -> bool:
    """Whether a receiver of ``publish_failed`` runs, so that what it defers is tried only once."""
    return _is_telling.get()


def tell(app: Flask, client: Client, lost: Sequence[tuple[Wire, Exception]]) -> None:
    """Log the events that were lost, and send the signal."""
    if not lost:
        return
    error = lost[0][1]
    names = [f"{event['name']!r} on {' '.join(event['channels'])}" for event, _ in lost[:_NAMED]]
    if len(lost) > _NAMED:
        names.append(f"and {len(lost) - _NAMED} more")
    text = " ".join(str(error).split())
    app.logger.error(
        "Deferred events were lost: %s. %s: %s", ", ".join(names), type(error).__name__, text
    )
    if is_telling():
        return
    token = _is_telling.set(True)
    try:
        events = [recorded(client, event) for event, _ in lost]
        with app.app_context():
            publish_failed.send(app, _async_wrapper=app.ensure_sync, events=events, error=error)
    except Exception:
        app.logger.exception("A receiver of publish_failed raised an exception.")
    finally:
        _is_telling.reset(token)


# -- The publisher --------------------------------------------------------------------------------


class _Waiting:
    """An event that waits, and since when."""

    __slots__ = ("app", "channels", "event", "since", "size")

    def __init__(self, app: Flask, event: Wire) -> None:
        self.app = app
        self.event = event
        self.channels: list[str] = event["channels"]
        self.since = time.monotonic()
        self.size = len(event["data"]) + CHANNEL_BYTES * len(self.channels)


class _Call:
    """Events that leave together, and hold their channels until that is over."""

    __slots__ = ("channels", "due", "events", "pause", "started")

    def __init__(self, events: list[_Waiting], channels: set[str]) -> None:
        self.events = events
        self.channels = channels
        self.started = self.due = 0.0
        self.pause = FIRST_PAUSE


class _Desk:
    """What waits for one client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.lanes: dict[str, deque[_Waiting]] = {}
        """Each channel's events, in order. A call keeps its channels' lanes, if empty, until it is
        over."""
        self.ready: deque[_Waiting] = deque()
        """Events that are first in all their lanes, none of which is held."""
        self.held: set[str] = set()
        self.under_way: set[_Call] = set()
        self.is_silent = False
        """Whether the last call got no answer."""
        self.retries: list[_Call] = []
        """Calls to be tried again, the first one due first."""
        self.pause = 0.0
        """How long the pause after the last call was that failed for now; 0 after a success."""
        self.quiet_until = self.failed_at = 0.0
        self.has_retried = False
        """Whether the call that failed last had failed before, so that another is to be next."""

    def add(self, waiting: _Waiting) -> None:
        for channel in waiting.channels:
            self.lanes.setdefault(channel, deque()).append(waiting)
        if self._is_free(waiting):
            self.ready.append(waiting)

    def _is_free(self, waiting: _Waiting) -> bool:
        return self.held.isdisjoint(waiting.channels) and all(
            self.lanes[channel][0] is waiting for channel in waiting.channels
        )

    def _heads(self, channels: Iterable[str]) -> list[_Waiting]:
        """The events that come to be free when these channels move on."""
        heads = {id(lane[0]): lane[0] for channel in channels if (lane := self.lanes.get(channel))}
        return [head for head in heads.values() if self._is_free(head)]

    def next_call(self, now: float, is_hasty: bool) -> _Call | None:
        """What is to be sent now; None: nothing yet."""
        if now < self.quiet_until or (self.pause and self.under_way):
            return None
        is_turn = not (self.pause and self.has_retried and self.ready)
        if is_turn and self.retries and self.retries[0].due <= now:
            return self.retries.pop(0)
        if not self.ready:
            return None
        lanes = (self.lanes[one.channels[0]] for one in islice(self.ready, rules.EVENTS_PER_BATCH))
        is_time = (
            is_hasty
            or not self.under_way
            or sum(map(len, lanes)) >= rules.EVENTS_PER_BATCH
            or now >= self.ready[0].since + GATHERING_SECONDS
        )
        return self._compose() if is_time else None

    def _compose(self) -> _Call:
        events: list[_Waiting] = []
        mine: set[str] = set()
        room = rules.EVENTS_PER_BATCH
        while self.ready and (not events or len(self.ready[0].channels) <= room):
            waiting = self.ready.popleft()
            events.append(waiting)
            room -= len(waiting.channels)
            for channel in waiting.channels:
                self.lanes[channel].popleft()
            mine.update(waiting.channels)
            self.ready.extendleft(self._heads(waiting.channels))
        self.held |= mine
        while self.ready and not mine.isdisjoint(self.ready[0].channels):
            self.ready.popleft()  # what follows on these channels waits for the answer
        events.sort(key=lambda one: one.since)
        return _Call(events, mine)

    def release(self, call: _Call) -> None:
        self.held -= call.channels
        for channel in call.channels:
            if not self.lanes[channel]:
                del self.lanes[channel]
        self.ready.extend(self._heads(call.channels))

    def when(self) -> float | None:
        """When there may be something to send, if nothing happens until then."""
        if self.pause and self.under_way:
            return None
        times = [self.retries[0].due] if self.retries else []
        if self.ready:
            times.append(self.ready[0].since + GATHERING_SECONDS if self.under_way else 0.0)
        return max(min(times), self.quiet_until) if times else None

    def clear(self) -> list[_Waiting]:
        """Take all that waits, but what is under way."""
        found = {id(one): one for lane in self.lanes.values() for one in lane}
        for call in self.retries:
            found.update((id(one), one) for one in call.events)
            self.held -= call.channels
        self.retries.clear()
        self.ready.clear()
        self.lanes = {channel: deque() for channel in self.held}
        return sorted(found.values(), key=lambda one: one.since)


class Publisher:
    """The dispatcher and the senders of this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        # Looked up here and not at import: gevent replaces them.
        self.inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.starting = threading.Lock()
        self.is_started = False
        self.room = threading.Condition()
        self.size = 0
        self.desks: dict[Client, _Desk] = {}
        self.idle = SENDERS
        self.flushing: list[threading.Event] = []
        self.has_given_up = False
        """Whether the process ends, and has waited long enough."""

    def start(self) -> bool:
        """Start the threads, unless they run. False where none can be started any more, as when
        the interpreter ends."""
        with self.starting:
            if self.is_started:
                return True
            try:
                for number in range(SENDERS):
                    self._start_thread(self._send, f"flask-pusher-{number}")
                self._start_thread(self._dispatch, "flask-pusher")
            except RuntimeError:
                return False
            self._at_exit()
            self.is_started = True
        return True

    @staticmethod
    def _start_thread(target: Callable[[], None], name: str) -> None:
        threading.Thread(target=target, name=name, daemon=True).start()

    def _at_exit(self) -> None:
        """A process that ends sends what waits: by its own end, by multiprocessing's, and by that
        of Celery's workers, which each call other functions."""
        atexit.register(self.flush)
        with suppress(AttributeError, RuntimeError):  # too late, where only a thread still runs
            # Before the pools of concurrent.futures close, which asyncio resolves names with.
            threading._register_atexit(self.flush)  # type: ignore[attr-defined]
        celery = sys.modules.get("celery.signals")
        if celery is not None:
            celery.worker_process_shutdown.connect(self.flush, weak=False)

    # -- Called by any thread --

    def submit(self, app: Flask, client: Client, events: list[Wire]) -> None:
        """Take events over. Where the queue is full this waits for room, as long as the service
        answers; what finds none is lost."""
        waiting = [_Waiting(app, event) for event in events]
        size = sum(one.size for one in waiting)
        with self.room:
            has_room = self.room.wait_for(
                lambda: self._has_room(size) or self._is_silent(client), client.timeout
            ) and self._has_room(size)
            if has_room:
                self.size += size
        if has_room:
            self.inbox.put(partial(self._take, client, waiting))
        else:
            full = PusherError("The queue of the publisher is full.")
            tell(app, client, [(event, full) for event in events])

    def _has_room(self, size: int) -> bool:
        return not self.size or self.size + size <= QUEUE_BYTES

    def _is_silent(self, client: Client) -> bool:
        desk = self.desks.get(client)
        return desk is not None and desk.is_silent

    def flush(self, *_sender: Any, **_extra: Any) -> None:
        """Wait until everything is published, for at most 10 seconds, and tell what is not."""
        if os.getpid() != self.pid or not self.size or self.has_given_up:
            return
        done = threading.Event()
        self.inbox.put(partial(self.flushing.append, done))
        if not done.wait(EXIT_SECONDS):
            self.has_given_up = True
            given_up = threading.Event()
            self.inbox.put(partial(self._give_up_at_exit, given_up))
            given_up.wait(1)

    # -- The senders --

    def _send(self) -> None:
        while True:
            try:
                self.jobs.get()()
            except BaseException:  # noqa: BLE001, PERF203 - that of a hand-over, say
                traceback.print_exc()

    def _carry_out(self, desk: _Desk, call: _Call) -> None:
        outcome = deliver(desk.client, [one.event for one in call.events])
        self._tell(desk.client, call.events, outcome.refused)
        self.inbox.put(partial(self._answered, desk, call, outcome))

    def _lose(self, client: Client, events: list[_Waiting], error: Exception) -> None:
        self._tell(client, events, [(one.event, error) for one in events])
        self.inbox.put(partial(self._finished, events))

    @staticmethod
    def _tell(
        client: Client, events: Sequence[_Waiting], lost: Sequence[tuple[Wire, Exception]]
    ) -> None:
        """Tell each application what it has lost."""
        apps = {id(one.event): one.app for one in events}
        for app in dict.fromkeys(apps.values()):
            try:
                tell(app, client, [one for one in lost if apps[id(one[0])] is app])
            except BaseException:  # noqa: BLE001, PERF203 - a logging filter's, say
                traceback.print_exc()

    # -- The dispatcher --

    def _dispatch(self) -> None:
        while True:
            with suppress(queue.Empty):
                self.inbox.get(timeout=self._patience())()
            self._decide()
            # Each wake-up takes the interpreter from a request, and few of them change much.
            time.sleep(WAKING_SECONDS)

    def _decide(self) -> None:
        with suppress(queue.Empty):
            while True:
                self.inbox.get_nowait()()
        now = time.monotonic()
        for desk in list(self.desks.values()):
            self._start_calls(desk, now)
        if self.flushing and not self.size:
            for done in self.flushing:
                done.set()
            self.flushing.clear()

    def _patience(self) -> float | None:
        """How long nothing is to be done, in seconds; None: until something happens."""
        if not self.idle:
            return None
        times = [when for desk in self.desks.values() if (when := desk.when()) is not None]
        return max(min(times) - time.monotonic(), 0) if times else None

    def _start_calls(self, desk: _Desk, now: float) -> None:
        while self.idle and (call := desk.next_call(now, bool(self.flushing))):
            self.idle -= 1
            desk.under_way.add(call)
            call.started = now
            self.jobs.put(partial(self._carry_out, desk, call))
        if not desk.lanes:
            del self.desks[desk.client]

    def _take(self, client: Client, waiting: list[_Waiting]) -> None:
        desk = self.desks.get(client)
        if desk is None:
            desk = self.desks[client] = _Desk(client)
        for one in waiting:
            desk.add(one)

    def _answered(self, desk: _Desk, call: _Call, outcome: Outcome) -> None:
        self.idle += 1
        desk.under_way.discard(call)
        desk.is_silent = isinstance(outcome.error, NoAnswer)
        before = call.events
        left = {id(event) for event in outcome.left}
        call.events = [one for one in before if id(one.event) in left]
        lost: list[_Waiting] = []
        if outcome.error is None:
            desk.pause = 0.0
        elif is_temporary(outcome.error):
            lost = self._put_off(desk, call)
        else:
            lost, call.events = call.events, []
            if status_of(outcome.error) in _OF_THE_APP:
                lost += desk.clear()
        if not call.events:
            desk.release(call)
        if lost and outcome.error:
            self.jobs.put(partial(self._lose, desk.client, lost, outcome.error))
        self._finished([one for one in before if id(one.event) not in left])

    def _put_off(self, desk: _Desk, call: _Call) -> list[_Waiting]:
        """Let a call wait for a while. Returns the events that have waited long enough."""
        now = time.monotonic()
        if call.started > desk.failed_at:  # not one of several that failed together
            desk.pause = min(desk.pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        desk.failed_at, desk.quiet_until = now, now + desk.pause
        desk.has_retried = bool(call.due)
        too_old = [one for one in call.events if now - one.since >= PATIENCE_SECONDS]
        call.events = [one for one in call.events if now - one.since < PATIENCE_SECONDS]
        if call.events:
            call.due, call.pause = now + call.pause, min(call.pause * 2, LONGEST_PAUSE)
            desk.retries.append(call)
            desk.retries.sort(key=lambda one: one.due)
        return too_old

    def _finished(self, events: Sequence[_Waiting]) -> None:
        with self.room:
            self.size -= sum(one.size for one in events)
            self.room.notify_all()

    def _give_up_at_exit(self, given_up: threading.Event) -> None:
        ended = PusherError(f"The process ended, and they were not published in {EXIT_SECONDS} s.")
        for desk in self.desks.values():
            lost = [one for call in desk.under_way for one in call.events] + desk.clear()
            self._tell(desk.client, lost, [(one.event, ended) for one in lost])
        given_up.set()


def is_temporary(error: Exception) -> bool:
    """Whether the call is worth trying again: nobody took it, or the service put it off."""
    if isinstance(error, NoAnswer):
        return not error.timed_out
    status = status_of(error)
    return status is not None and (status == 429 or status >= 500)


_publishers: dict[int, Publisher] = {}


def publisher() -> Publisher:
    """This process's publisher. A forked process makes its own."""
    pid = os.getpid()
    return _publishers.get(pid) or _publishers.setdefault(pid, Publisher())

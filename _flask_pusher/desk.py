"""What waits for one client: which events leave next, in which call, and when.

An event waits in the lanes of its channels, and leaves when it is the first of all of them. When:

==============================================  ================================================
what is under way for this client               when an event leaves
==============================================  ================================================
no call                                         at once
calls                                           with ten events, their answer, or after 30 ms
a call with one of its channels                 after that one's answer: a channel keeps its order
the last call failed                            when a pause is over, one call at a time; and not
                                                at all when it is 30 s old by then
==============================================  ================================================

What failed and is to be tried again goes back to the front of its lanes, with a time before which
it does not leave, and perhaps a mark that it leaves alone. :mod:`policy` decides that. Nothing
here knows threads, nor what time it is.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Any

from flask import Flask
from pusher.errors import PusherError
from pusher.http import POST

from _flask_pusher import policy, rules
from _flask_pusher.client import Client, api_of
from _flask_pusher.transport import complete, retry_after_of

Wire = Mapping[str, Any]
"""An event as the HTTP API takes it, with its ``channels``."""

Address = tuple[str, int, bool]

GATHERING_SECONDS = 0.03
REMEMBERING_SECONDS = 60
"""How long a service is known not to answer, where nothing is sent to it."""
QUEUE_BYTES = 64 * 1024 * 1024
"""How much waits in the publisher at most."""
CHANNEL_BYTES = 1000
"""About how many bytes an event takes beside its data, while it waits, for each channel."""


@dataclass(eq=False, repr=False)
class Event:
    """One event, from the call that deferred it to the answer of the service."""

    app: Flask
    client: Client
    wire: Wire
    since: float = 0.0
    """When it left its request."""
    due: float = 0.0
    """When it may be tried again."""
    tries: int = 0
    """In how many calls it was."""
    is_alone: bool = False
    room: int = 0
    """How many bytes it takes at its desk; none where it found no room."""
    settle: Callable[[], None] = field(init=False)
    """What the publisher calls when it is published, or told as lost."""

    @property
    def channels(self) -> list[str]:
        channels: list[str] = self.wire["channels"]
        return channels

    def __str__(self) -> str:
        return f"{self.wire['name']!r} on {' '.join(self.channels)}"

    @property
    def size(self) -> int:
        return len(self.wire["data"]) + CHANNEL_BYTES * len(self.channels)

    def entries(self) -> list[dict[str, Any]]:
        """What a batch has of it: an entry for each channel."""
        wire = {key: value for key, value in self.wire.items() if key != "channels"}
        return [{"channel": channel, **wire} for channel in self.channels]


Lost = list[tuple[Event, BaseException]]


@dataclass(eq=False)
class Call:
    """Events that leave together, and hold their channels until the answer."""

    events: list[Event]
    channels: list[str]
    failures: int
    """How many calls had failed in a row when it started."""


class Desk:
    """What waits for one client at one address, and what is known of the service there."""

    def __init__(self, client: Client, address: Address, patience: float, is_queue: bool) -> None:
        self.api = api_of(client).settled(address)
        self.patience = patience
        """How many seconds an event is tried again while calls fail."""
        self.most = QUEUE_BYTES if is_queue else math.inf
        """How many bytes may wait; what finds no room is lost at once."""
        self.lanes: OrderedDict[str, deque[Event]] = OrderedDict()
        """Each channel's events, oldest first, but those under way. The channels take turns."""
        self.held: set[str] = set()
        """The channels of calls under way."""
        self.under_way: set[Call] = set()
        self.size = self.unsettled = 0
        """How many bytes and events are here, until they are published, or told as lost."""
        self.lost: Lost = []
        """Events that were given up, until they are taken from here and told."""
        self.failures = 0
        """How many calls in a row found that the service does not answer."""
        self.failing_since = self.quiet_until = 0.0
        self.error: BaseException = PusherError("No call was made.")
        """The last failure."""
        self.is_trusted = True
        """Whether the last call was taken, so that several may be under way."""
        self.takes_batches = True
        self.has_warned = False

    @property
    def tries_again(self) -> bool:
        """Whether there are events that are tried again."""
        calls = (event.tries > 1 for call in self.under_way for event in call.events)
        return any(lane[0].tries for lane in self.lanes.values()) or any(calls)

    def is_over(self, now: float) -> bool:
        """Whether nothing waits, and nothing is known of the service that is to be remembered."""
        is_failing = self.failures > 0 and now < self.quiet_until + REMEMBERING_SECONDS
        return not self.unsettled and self.takes_batches and not is_failing

    def add(self, event: Event) -> None:
        self.unsettled += 1
        if self.size and self.size + event.size > self.most:
            self._lose([event], PusherError("The queue of the publisher is full."))
            return
        event.room = event.size
        self.size += event.room
        for channel in event.channels:
            self.lanes.setdefault(channel, deque()).append(event)

    def next(self, now: float, *, is_hasty: bool = False) -> Call | float:
        """The call to be started now; or when to ask again, if nothing happens until then."""
        if self.under_way and not self.is_trusted:
            return math.inf
        if self.failures:
            self._lose_old(now)
            if self.lanes and now < self.quiet_until:
                oldest = min(lane[0].since for lane in self.lanes.values())
                return min(self.quiet_until, oldest + self.patience)
        due = list(islice((one for one in self._free() if one.due <= now), rules.EVENTS_PER_BATCH))
        if not due:
            return min((event.due for event in self._free()), default=math.inf)
        if self.under_way and not is_hasty:
            until = min(max(event.since, event.due) for event in due) + GATHERING_SECONDS
            lanes = (self.lanes[event.channels[0]] for event in due)
            if until > now and sum(map(len, lanes)) < rules.EVENTS_PER_BATCH:
                return until
        return self._compose(due, now)

    def _compose(self, due: list[Event], now: float) -> Call:
        events: list[Event] = []
        first, waiting = due[0], deque(due)
        room = 0 if first.is_alone or not self.takes_batches else rules.EVENTS_PER_BATCH
        while waiting:
            event = waiting.popleft()
            if events and (event.is_alone or len(event.channels) > room):
                break
            event.tries += 1
            events.append(event)
            room -= len(event.channels)
            self._leave(event)
            lanes = (self.lanes[channel] for channel in event.channels if channel in self.lanes)
            heads = [head for head in dict.fromkeys(lane[0] for lane in lanes) if head.due <= now]
            waiting.extendleft(head for head in reversed(heads) if self._is_free(head))
        mine = dict.fromkeys(channel for event in events for channel in event.channels)
        self.held.update(mine)
        for channel in filter(self.lanes.__contains__, mine):
            self.lanes.move_to_end(channel)  # it is the others' turn
        events.sort(key=attrgetter("since"))
        call = Call(events, list(mine), self.failures)
        self.under_way.add(call)
        return call

    def answered(self, call: Call, error: BaseException | None, now: float) -> None:
        """A call has its answer; None: its events are published."""
        self.under_way.discard(call)
        self.held.difference_update(call.channels)
        self._learn(call, error, now)
        again = self._judge(call, error, now) if error else []
        for channel in (channel for event in again for channel in event.channels):
            self.lanes.setdefault(channel, deque())
        for event in reversed(again):
            for channel in event.channels:
                self.lanes[channel].appendleft(event)
                if not event.is_alone:  # which may fail again, and would delay the others
                    self.lanes.move_to_end(channel, last=False)

    def _learn(self, call: Call, error: BaseException | None, now: float) -> None:
        is_alone = any(event.is_alone for event in call.events)
        if error is None or not policy.is_outage(error):
            self.failures, self.quiet_until = 0, 0.0
            self.is_trusted = error is None or policy.is_refusal_of_an_event(error)
        elif self.failures or not (is_alone and policy.may_be_of_an_event(error)):
            self.failing_since = self.failing_since if self.failures else now
            self.failures = call.failures + 1  # calls that fail together count once
            pause = max(policy.pause_after(self.failures), retry_after_of(error))
            self.quiet_until = now + pause
            self.is_trusted = False
        if error is not None:
            self.error = error
            self.takes_batches &= len(call.events) < 2 or not policy.knows_no_batches(error)

    def _judge(self, call: Call, error: BaseException, now: float) -> list[Event]:
        """The events that are to be tried again; all others are lost."""
        again, verdict = [], policy.Verdict()
        of_batch = len(call.events) > 1
        for event in call.events:
            left = event.since + self.patience - now
            verdict = policy.judge(error, of_batch=of_batch, tries=event.tries, left=left)
            event.due = now + verdict.pause
            event.is_alone |= verdict.is_alone
            if verdict.is_lost:
                self._lose([event], error)
                is_followed = not self.lanes.keys().isdisjoint(event.channels)
                if is_followed and event.is_alone and policy.may_be_of_an_event(error):
                    self.failures = 0  # what waited for it is old, too, and may be well
            else:
                again.append(event)
        if verdict.takes_all_along:
            self._lose(self._clear(), error)
        return again

    def settle(self, events: Iterable[Event]) -> None:
        """These are published, or were told as lost."""
        for event in events:
            self.size -= event.room
            self.unsettled -= 1
            event.settle()

    def give_up(self, error: BaseException) -> None:
        """Lose all that waits, and what is under way."""
        for call in self.under_way:
            self._lose(call.events, error)
            call.events = []
        self._lose(self._clear(), error)

    def hurry(self) -> None:
        """Try again now what is to be tried again, and soon after that."""
        self.failures, self.quiet_until = min(self.failures, 1), 0.0
        for event in self._waiting():
            event.due = 0.0

    def _lose(self, events: Iterable[Event], error: BaseException) -> None:
        self.lost += [(event, error) for event in events]

    def _lose_old(self, now: float) -> None:
        """Lose the events that have waited long enough for a service that does not answer."""
        limit = now - self.patience
        while old := [lane[0] for lane in self.lanes.values() if lane[0].since <= limit]:
            self._lose(dict.fromkeys(old), self.error)
            for event in dict.fromkeys(old):
                self._leave(event)

    def _waiting(self) -> list[Event]:
        """All that waits, but what is under way."""
        found = dict.fromkeys(event for lane in self.lanes.values() for event in lane)
        return sorted(found, key=attrgetter("since"))

    def _clear(self) -> list[Event]:
        found = self._waiting()
        self.lanes.clear()
        return found

    def _free(self) -> Iterator[Event]:
        """The events that are first in all their lanes, none of which is held."""
        for channel, lane in self.lanes.items():
            if lane[0].channels[0] == channel and self._is_free(lane[0]):
                yield lane[0]

    def _is_free(self, event: Event) -> bool:
        return self.held.isdisjoint(event.channels) and all(
            self.lanes[channel][0] is event for channel in event.channels
        )

    def _leave(self, event: Event) -> None:
        for channel in event.channels:
            self.lanes[channel].remove(event)
            if not self.lanes[channel]:
                del self.lanes[channel]

    # -- The call itself --

    def post(self, events: Sequence[Event]) -> BaseException | None:
        """Publish events by one call of the API. Returns what it raised, for the policy."""
        try:
            resource, params = "events", events[0].wire
            if len(events) > 1:
                batch = [entry for one in events for entry in one.entries()]
                resource, params = "batch_events", {"batch": batch}
            complete(self.api.call(POST, resource, params))
        except BaseException as error:  # noqa: BLE001 - a sender goes on, whatever it is
            return error
        return None

"""The publisher: what leaves in which call and when, what becomes of a call, and what is lost."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import blinker
import pytest
import requests
from flask import Flask, Response, stream_with_context
from pusher.errors import PusherBadRequest, PusherError

from _flask_pusher import publisher as room
from _flask_pusher.desk import Event, Wire
from _flask_pusher.publisher import EXIT_SECONDS, SENDERS, Publisher, publisher
from flask_pusher import NoAnswer, Pusher, RecordedEvent, publish_failed

MakeApp = Callable[..., Flask]

CREDENTIALS = {"PUSHER_APP_ID": "1", "PUSHER_KEY": "a-key", "PUSHER_SECRET": "a-secret"}
NOBODY = requests.ConnectionError(ConnectionRefusedError())
TIMEOUT = requests.ReadTimeout()


def refusal(status: int) -> PusherError:
    return PusherBadRequest("no") if status == 400 else PusherError(f"{status}: no")


class Service:
    """An HTTP adapter that notes each call's events by name, and answers as it is told."""

    def __init__(self, client: Any) -> None:
        self.calls: list[str] = []
        self.answers: deque[Exception | None] = deque()

    def send_request(self, request: Any) -> dict[str, Any]:
        self.calls.append(" ".join(one["name"] for one in events_of(request.params)))
        answer = self.answers.popleft() if self.answers else None
        if answer is not None:
            raise answer
        return {}


def events_of(params: Any) -> list[Any]:
    found: list[Any] = params.get("batch", [params])
    return found


class Clock:
    """Stands in for the module ``time``: it stands still, but for a trifle."""

    sleep = staticmethod(time.sleep)

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += 1e-9
        return self.now


class Driven:
    """A publisher without threads: the test is the dispatcher, and the senders."""

    def __init__(self, app: Flask, clock: Clock) -> None:
        self.app = app
        self.clock = clock
        self.client = app.extensions["pusher"]
        self.service: Service = self.client.http
        self.publisher = Publisher()
        self.under_way: list[Any] = []
        self.when = math.inf

    def submit(self, *events: str) -> None:
        """Each event is a name and channels: ``"1 a b"``."""
        self.submit_wires(
            *(
                {"name": name, "channels": channels, "data": "{}"}
                for name, *channels in map(str.split, events)
            )
        )

    def submit_wires(self, *wires: Wire) -> None:
        self.publisher.submit([Event(self.app, self.client, wire) for wire in wires])
        self.decide()

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.decide()

    def decide(self) -> None:
        self.when = self.publisher._decide()
        while not self.publisher.calls.empty():
            self.under_way.append(self.publisher.calls.get())
        while not self.publisher.chores.empty():
            self.publisher.chores.get()()
            self.when = self.publisher._decide()

    @property
    def calls(self) -> list[str]:
        """The calls under way, by their events' names."""
        return [" ".join(one.wire["name"] for one in job.args[2]) for job in self.under_way]

    def answer(self, error: Exception | None = None, *, of: int = 0) -> None:
        """Let a call under way, by default the oldest, come to its answer."""
        if error is not None:
            self.service.answers.append(error)
        self.under_way.pop(of)()
        self.decide()

    @property
    def patience(self) -> float | None:
        """How long the dispatcher sleeps."""
        if self.when == math.inf or not self.publisher.idle:
            return None
        return round(max(self.when - self.clock.now, 0), 6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(room, "time", clock)
    return clock


@pytest.fixture
def driven(make_app: MakeApp, clock: Clock) -> Driven:
    return Driven(make_app(Pusher(), PUSHER_BACKEND=Service), clock)


@pytest.fixture
def lost() -> Iterator[list[tuple[list[str], Exception]]]:
    """The names of the events that were told as lost, and why."""
    told: list[tuple[list[str], Exception]] = []

    def receive(sender: Flask, events: list[RecordedEvent], error: Exception) -> None:
        told.append(([event.name for event in events], error))

    with publish_failed.connected_to(receive):
        yield told


def numbered(count: int, channel: str = "") -> list[str]:
    """Events of the names 0, 1, ..., each on a channel of its own, or all on one."""
    return [f"{number} {channel or f'c{number}'}" for number in range(count)]


class TestWhatLeaves:
    def test_at_once_where_no_call_is_under_way(self, driven: Driven) -> None:
        driven.submit("0 a")
        assert driven.calls == ["0"]
        assert driven.patience is None

    def test_with_the_events_of_all_requests_at_the_next_answer(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.submit("1 b")
        driven.submit("2 c")
        assert driven.calls == ["0"]
        driven.answer()
        assert driven.calls == ["1 2"]

    def test_with_the_last_answer_where_several_calls_are_under_way(self, driven: Driven) -> None:
        driven.submit(*numbered(20))
        driven.submit("20 a")
        driven.answer()
        driven.submit("21 b")
        assert len(driven.calls) == 1
        driven.answer()
        assert driven.calls == ["20 21"]

    def test_with_ten_events(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.submit(*numbered(9))
        assert driven.calls == ["0"]
        driven.submit("9 c9")
        assert driven.calls == ["0", "0 1 2 3 4 5 6 7 8 9"]

    def test_with_ten_events_of_one_channel(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.submit(*numbered(9, "b"))
        assert driven.calls == ["0"]
        driven.submit("9 b")
        assert driven.calls == ["0", "0 1 2 3 4 5 6 7 8 9"]

    def test_after_30_milliseconds(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.wait(1)
        driven.submit("1 b")
        assert driven.patience == 0.03
        driven.wait(0.02)
        assert driven.patience == 0.01
        driven.clock.now += 1
        assert driven.patience == 0
        driven.decide()
        assert driven.calls == ["0", "1"]

    def test_in_four_calls_at_most(self, driven: Driven) -> None:
        driven.submit(*numbered(60))
        assert [len(call.split()) for call in driven.calls] == [10, 10, 10, 10]
        assert driven.patience is None
        driven.answer()
        assert len(driven.calls) == 4

    def test_a_channel_waits_for_its_own_answer_and_no_other_does(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.submit("1 a", "2 b", "3 a")
        driven.wait(0.03)
        assert driven.calls == ["0", "2"]
        driven.answer(of=1)
        assert driven.calls == ["0"]
        driven.answer()
        assert driven.calls == ["1 3"]

    def test_one_call_that_hangs_delays_no_other_channel(self, driven: Driven) -> None:
        driven.submit("hangs a")
        for number in range(100):
            driven.submit(f"{number} b")
            driven.wait(0.03)
            assert driven.calls == ["hangs", str(number)]
            driven.answer(of=1)

    def test_events_of_one_channel_leave_together_in_order(self, driven: Driven) -> None:
        driven.submit(*numbered(12, "a"))
        assert driven.calls == ["0 1 2 3 4 5 6 7 8 9"]
        driven.answer()
        assert driven.calls == ["10 11"]

    def test_a_long_queue_is_not_looked_through_for_each_call(self, driven: Driven) -> None:
        class Lanes(dict[str, Any]):
            asked = 0

            def __getitem__(self, channel: str) -> Any:
                self.asked += 1
                return super().__getitem__(channel)

        driven.submit(*numbered(1000))
        (desk,) = driven.publisher.desks.values()
        desk.lanes = lanes = Lanes(desk.lanes)
        driven.answer()
        assert driven.calls[-1] == " ".join(map(str, range(40, 50)))
        assert lanes.asked < 100

    def test_an_event_waits_for_all_of_its_channels(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.submit("1 b")
        driven.wait(0.03)
        driven.submit("2 a b", "3 b")
        driven.answer()
        driven.wait(1)
        assert driven.calls == ["1"]
        driven.answer()
        assert driven.calls == ["2 3"]

    def test_an_event_on_many_channels_is_a_call_of_its_own(self, driven: Driven) -> None:
        many = " ".join(f"m{number}" for number in range(100))
        driven.submit("0 a", f"1 {many}", "2 b", "3 m7")
        assert driven.calls == ["0"]
        driven.wait(0.03)
        assert driven.calls == ["0", "1", "2"]
        driven.answer(of=1)
        assert driven.calls == ["0", "2", "3"]

    def test_an_entry_for_each_channel_of_an_event(self, driven: Driven) -> None:
        driven.submit("0 a b c d", "1 e f g h", "2 i j k", "3 l")
        driven.wait(0.03)
        assert driven.calls == ["0 1", "2 3"]

    def test_each_application_has_its_own_calls(
        self, driven: Driven, make_app: MakeApp, clock: Clock
    ) -> None:
        other = Driven(make_app(Pusher(), PUSHER_BACKEND=Service), clock)
        other.publisher, other.under_way = driven.publisher, driven.under_way
        driven.submit("0 a")
        other.submit("1 a")
        assert driven.calls == ["0", "1"]
        driven.answer()
        driven.answer()
        assert (driven.service.calls, other.service.calls) == (["0"], ["1"])
        assert driven.publisher.desks == {}


class TestWhatBecomesOfACall:
    def test_what_nobody_took_is_tried_again_with_growing_pauses(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a")
        pauses = []
        for _ in range(7):
            driven.answer(NOBODY)
            assert driven.calls == []
            pauses.append(driven.patience)
            driven.wait(driven.patience or 0)
            assert driven.calls == ["0"]
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2, 2]
        driven.answer()
        assert (lost, driven.publisher.size, driven.patience) == ([], 0, None)

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_what_the_service_puts_off_is_tried_again_in_order(
        self, driven: Driven, status: int
    ) -> None:
        driven.submit("0 a")
        driven.submit("1 a")
        driven.answer(refusal(status))
        driven.submit("2 a")
        driven.wait(0.1)
        assert driven.calls == ["0"]
        driven.answer()
        assert driven.calls == ["1 2"]

    def test_one_call_at_a_time_finds_out_that_the_service_is_back(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.answer(NOBODY)
        driven.submit(*numbered(30))
        assert (driven.calls, driven.patience) == ([], 0.1)
        driven.wait(0.1)
        assert (driven.calls, driven.patience) == (["0"], None)
        driven.wait(10)
        assert driven.calls == ["0"]
        driven.answer()
        assert [len(call.split()) for call in driven.calls] == [10, 10, 10]

    def test_calls_that_fail_together_lengthen_the_pause_once(self, driven: Driven) -> None:
        driven.submit(*numbered(40))
        for _ in range(4):
            driven.answer(NOBODY)
        assert driven.patience == 0.1

    def test_calls_are_tried_again_in_turn_and_new_events_between_them(
        self, driven: Driven
    ) -> None:
        driven.submit("0 a")
        driven.submit("1 b")
        driven.wait(0.03)
        driven.answer(NOBODY)
        driven.answer(NOBODY)
        driven.submit("2 c")
        tried = []
        for _ in range(4):
            driven.wait(driven.patience or 0)
            tried += driven.calls
            driven.answer(NOBODY)
        assert tried == ["0", "2", "1", "0"]
        while driven.publisher.desks:
            driven.wait(driven.patience or 0)
            driven.answer()
        assert driven.service.calls == ["0", "1", *tried, "2", "1", "0"]

    def test_a_call_that_the_service_always_puts_off_delays_no_other_channel_for_long(
        self, driven: Driven
    ) -> None:
        driven.submit("0 a")
        tries, waits = 0, 0
        for _ in range(100):
            while driven.calls:
                tries += driven.calls == ["0"]
                driven.answer(refusal(500) if driven.calls == ["0"] else None)
            driven.submit("1 b")
            waits += not driven.calls
            driven.wait(0.1)
        assert 7 <= tries <= 9
        assert waits <= 12

    def test_an_event_is_given_up_when_it_is_30_seconds_old(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a")
        driven.wait(1)
        driven.submit("1 a")
        driven.wait(28.9)
        driven.answer(NOBODY)
        driven.wait(0.2)
        assert (lost, driven.calls) == ([], ["0"])
        driven.answer(NOBODY)
        ((names, error),) = lost
        assert (names, type(error)) == (["0"], NoAnswer)
        driven.wait(2)
        driven.answer()
        assert driven.service.calls == ["0", "0", "1"]
        assert (len(lost), driven.publisher.size) == (1, 0)

    @pytest.mark.parametrize("error", [TIMEOUT, refusal(405), refusal(404)])
    def test_anything_else_gives_up_the_call_and_no_other(
        self, driven: Driven, lost: list[Any], error: Exception
    ) -> None:
        driven.submit("0 a")
        driven.submit("1 a", "2 a")
        driven.answer(error)
        assert [names for names, _ in lost] == [["0"]]
        assert driven.calls == ["1 2"]
        driven.answer()
        assert driven.publisher.size == 0

    @pytest.mark.parametrize("status", [401, 402, 403])
    def test_a_refusal_of_the_app_gives_up_what_waits(
        self, driven: Driven, lost: list[Any], status: int
    ) -> None:
        driven.submit(*numbered(3))
        driven.answer(NOBODY)
        driven.submit("3 c0", "4 x", "5 y")
        driven.wait(0.1)
        assert driven.calls == ["0 1 2"]
        driven.answer(refusal(status))
        assert sorted(lost[0][0]) == ["0", "1", "2", "3", "4", "5"]
        assert (len(lost), driven.publisher.size, driven.publisher.desks) == (1, 0, {})
        driven.submit("6 a")
        assert driven.calls == ["6"]

    def test_a_refusal_of_the_app_leaves_alone_what_is_under_way(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a")
        driven.submit("1 b")
        driven.wait(0.03)
        driven.submit("2 a", "3 b")
        driven.answer(refusal(402), of=1)
        assert [sorted(names) for names, _ in lost] == [["1", "2", "3"]]
        driven.submit("4 a", "5 b")
        driven.wait(0.03)
        assert driven.calls == ["0", "5"]
        driven.answer()
        driven.answer()
        assert driven.service.calls == ["1", "0", "5"]
        assert driven.calls == ["4"]

    def test_a_refusal_of_the_app_gives_up_calls_that_wait_to_be_tried_again(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        for event in ("0 a", "1 b", "2 c"):
            driven.submit(event)
            driven.wait(0.03)
        driven.answer(NOBODY)
        driven.answer(refusal(401))
        assert [names for names, _ in lost] == [["1", "0"]]
        driven.wait(10)
        driven.answer()
        assert (driven.service.calls, driven.calls) == (["0", "1", "2"], [])
        assert driven.publisher.desks == {}

    @pytest.mark.parametrize("status", [400, 413, 404])
    def test_the_refusal_of_an_event_is_undone_for_the_others(
        self, driven: Driven, lost: list[Any], status: int
    ) -> None:
        driven.submit("0 a", "1 b", "2 a")
        driven.service.answers += [refusal(status), None, refusal(413), None]
        driven.answer()
        assert driven.service.calls == ["0 1 2", "0", "1", "2"]
        assert [names for names, _ in lost] == [["1"]]
        assert driven.publisher.size == 0

    def test_what_could_not_be_sent_singly_is_tried_again_together(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a", "1 b", "2 a", "3 c")
        driven.service.answers += [refusal(400), refusal(400), None, refusal(503)]
        driven.answer()
        driven.wait(0.1)
        assert driven.calls == ["2 3"]
        driven.answer()
        assert driven.service.calls == ["0 1 2 3", "0", "1", "2", "2 3"]
        assert [names for names, _ in lost] == [["0"]]
        assert driven.publisher.size == 0


class TestTheQueue:
    @pytest.fixture(autouse=True)
    def _small_queue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(room, "QUEUE_BYTES", 200_000)

    @staticmethod
    def fill(driven: Driven) -> None:
        event = {"name": "big", "channels": ["a"], "data": "x" * room.QUEUE_BYTES}
        driven.publisher.submit([Event(driven.app, driven.client, one) for one in [event]])
        driven.decide()
        assert driven.calls == ["big"]

    def test_a_request_waits_for_room(self, driven: Driven, lost: list[Any]) -> None:
        driven.client._pusher_client._timeout = 600
        self.fill(driven)
        wire = {"name": "next", "channels": ["a"], "data": "{}"}
        thread = threading.Thread(
            target=driven.publisher.submit, args=[driven.app, driven.client, [wire]]
        )
        thread.start()
        assert thread.is_alive()
        driven.answer()
        thread.join(30)
        driven.decide()
        assert (driven.calls, lost) == (["next"], [])

    def test_a_request_waits_no_longer_than_for_the_service(
        self, driven: Driven, lost: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        driven.client._pusher_client._timeout = 0.05
        self.fill(driven)
        driven.submit("next a")
        assert [(names, str(error)) for names, error in lost] == [
            (["next"], "The queue of the publisher is full.")
        ]
        assert "'next' on a. PusherError: The queue" in caplog.text

    def test_a_request_does_not_wait_while_the_service_is_silent(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.client._pusher_client._timeout = 600
        driven.submit("0 b")
        self.fill_behind(driven)
        driven.answer(NOBODY)
        driven.submit("next a")
        assert [names for names, _ in lost] == [["next"]]

    def test_a_request_waits_while_the_service_puts_events_off(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.client._pusher_client._timeout = 600
        self.fill(driven)
        driven.answer(refusal(503))
        wire = {"name": "next", "channels": ["a"], "data": "{}"}
        thread = threading.Thread(
            target=driven.publisher.submit, args=[driven.app, driven.client, [wire]]
        )
        thread.start()
        driven.wait(0.1)
        driven.answer()
        thread.join(30)
        driven.decide()
        assert (driven.calls, lost) == (["next"], [])

    @staticmethod
    def fill_behind(driven: Driven) -> None:
        event = {"name": "big", "channels": ["a"], "data": "x" * (room.QUEUE_BYTES - 3000)}
        driven.publisher.submit([Event(driven.app, driven.client, one) for one in [event]])

    def test_each_channel_counts(self, driven: Driven) -> None:
        driven.submit(f"0 {' '.join(f'c{number}' for number in range(100))}")
        assert driven.publisher.size >= 100 * 200
        driven.answer()
        assert driven.publisher.size == 0

    def test_an_event_that_is_larger_than_the_queue_is_taken_when_it_is_empty(
        self, driven: Driven
    ) -> None:
        self.fill(driven)
        driven.answer()
        assert driven.service.calls == ["big"]


class TestTheEnd:
    def test_what_waits_is_sent_without_gathering(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.submit("1 b")
        flush = threading.Thread(target=driven.publisher.flush)
        flush.start()
        deadline = time.monotonic() + 30
        while driven.calls != ["0", "1"] and time.monotonic() < deadline:
            driven.decide()
        assert driven.calls == ["0", "1"]
        driven.answer()
        assert flush.is_alive()
        driven.answer()
        flush.join(30)
        assert not flush.is_alive()

    def test_what_could_not_be_sent_is_told(
        self, make_app: MakeApp, api: Any, lost: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "EXIT_SECONDS", 0.2)
        app = make_app(Pusher(), PUSHER_HOST="127.0.0.1", PUSHER_PORT=1, PUSHER_SSL=False)
        publisher = Publisher()
        assert publisher.start()
        wires: list[Wire] = [{"name": str(n), "channels": ["a"], "data": "{}"} for n in range(30)]
        publisher.submit([Event(app, app.extensions["pusher"], one) for one in wires])
        publisher.flush()
        ((names, error),) = lost
        assert names == [str(number) for number in range(30)]
        assert "The process ended" in str(error)
        started = time.monotonic()
        monkeypatch.setattr(room, "EXIT_SECONDS", 600)
        publisher.flush()
        assert time.monotonic() - started < 300
        assert len(lost) == 1

    def test_what_is_under_way_at_the_end_is_told(
        self, app: Flask, api: Any, lost: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "EXIT_SECONDS", 0.2)
        may_answer = threading.Event()
        api.answer = lambda call: (200 if may_answer.wait(30) else 500, "{}")
        Pusher(app)
        publisher = Publisher()
        assert publisher.start()
        wires: list[Wire] = [{"name": n, "channels": ["a"], "data": "{}"} for n in ("0", "1")]
        for wire in wires:
            publisher.submit([Event(app, app.extensions["pusher"], one) for one in [wire]])
            api.until(lambda: bool(api.calls))
        publisher.flush()
        may_answer.set()
        assert [names for names, _ in lost] == [["0", "1"]]

    def test_a_worker_of_celery_that_ends_sends_what_waits(
        self, driven: Driven, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flushed: list[Any] = []
        signals = SimpleNamespace(worker_process_shutdown=blinker.Signal())
        monkeypatch.setitem(sys.modules, "celery.signals", signals)
        monkeypatch.setattr(driven.publisher, "flush", lambda *sender: flushed.append(sender))
        driven.publisher._at_exit()
        signals.worker_process_shutdown.send("the worker")
        assert flushed == [("the worker",)]

    def test_a_process_that_has_nothing_to_send_does_not_wait(self, driven: Driven) -> None:
        driven.publisher.flush()
        assert driven.publisher.inbox.empty()
        assert EXIT_SECONDS == 10

    def test_a_forked_process_does_not_send_what_its_parent_has(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.publisher.pid += 1
        driven.publisher.flush()
        assert driven.publisher.inbox.empty()


PROGRAM = """
import multiprocessing, os, sys, threading, time, types
{before}
from flask import Flask
from flask_pusher import Pusher
{after}
app = Flask("program")
app.config.update({config})
pusher = Pusher(app)

@app.get("/<name>")
def view(name):
    pusher.defer("a", name, {{}})
    return ""

def get(name):
    app.test_client().get("/" + name).close()

def flush():
    from _flask_pusher.publisher import publisher
    publisher().flush()

def get_when_main_has_ended(name):
    while threading.main_thread().is_alive():
        time.sleep(0.01)
    get(name)

def run_in_a_process(method, target, *args):
    process = multiprocessing.get_context(method).Process(target=target, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0

if __name__ == "__main__":
    {main}
"""


class Program(NamedTuple):
    main: str
    published: list[str]
    status: int = 0
    is_put_off: bool = True
    before: str = ""
    after: str = ""


PATCH = "import gevent.monkey; gevent.monkey.patch_all()"
CELERY = """
import blinker
signals = types.ModuleType("celery.signals")
signals.worker_process_shutdown = blinker.Signal()
sys.modules["celery.signals"] = signals
"""
ASYNCHRONOUS = """
from _flask_pusher.transport import Backend
send = Backend.send_request
async def send_request(self, request):
    return send(self, request)
Backend.send_request = send_request
"""
PROGRAMS = {
    "ends": Program("get('1')", ["1"]),
    "exits": Program("get('1'); sys.exit(3)", ["1"], status=3),
    "fails": Program("get('1'); 1 / 0", ["1"], status=1),
    "has a thread that publishes when main has ended": Program(
        "threading.Thread(target=get_when_main_has_ended, args=['1']).start()",
        ["1"],
        # Python 3.12 starts no threads any more then, and the event is sent by its own, once.
        is_put_off=sys.version_info[:2] != (3, 12),
    ),
    "has published before a thread does when main has ended": Program(
        "get('1'); threading.Thread(target=get_when_main_has_ended, args=['2']).start()",
        ["1", "2"],
    ),
    "has a forked child": Program("run_in_a_process('fork', get, '1')", ["1"]),
    "has a spawned child": Program("run_in_a_process('spawn', get, '1')", ["1"]),
    "forks between two events": Program(
        "get('1'); run_in_a_process('fork', get, '2'); get('3')", ["1", "2", "3"]
    ),
    "forks children of children": Program(
        "get('1'); run_in_a_process('fork', run_in_a_process, 'fork', get, '2')", ["1", "2"]
    ),
    "forks by hand": Program(
        "get('1'); child = os.fork(); get('3' if child else '2')", ["1", "2", "3"]
    ),
    # gevent resolves names in threads, of which some Pythons start none at the end.
    "is patched by gevent": Program("get('1'); flush(); get('2')", ["1", "2"], before=PATCH),
    "is patched by gevent after the import": Program(
        "get('1'); flush(); get('2')", ["1", "2"], after=PATCH
    ),
    "has an asynchronous backend": Program("get('1')", ["1"], after=ASYNCHRONOUS),
    "is a child of Celery": Program(
        "get('1'); signals.worker_process_shutdown.send(); os._exit(0)", ["1"], before=CELERY
    ),
}


class TestTheEndOfAProcess:
    """The first answer puts the event off: a process that did not wait would lose it."""

    @pytest.mark.parametrize("name", PROGRAMS)
    def test_a_program_loses_nothing_that(
        self, tmp_path: Path, app: Flask, api: Any, name: str
    ) -> None:
        program = PROGRAMS[name]
        if PATCH in (program.before, program.after):
            pytest.importorskip("gevent")
        if "fork" in program.main and not hasattr(os, "fork"):
            pytest.skip("this system does not fork")
        if program.is_put_off:
            api.answers.append((503, "later"))
        file = tmp_path / "program.py"
        file.write_text(
            PROGRAM.format(
                main=program.main,
                before=program.before,
                after=program.after,
                config={**CREDENTIALS, **api.config},
            )
        )
        ran = run(str(file))
        assert ran.returncode == program.status, ran.stderr
        put_off = events_of(api.calls[0].body) if program.is_put_off else []
        names = [name for _, name, _ in api.events[len(put_off) :]]
        assert sorted(names) == program.published


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )


class TestThreads:
    """The publisher as it runs."""

    @pytest.fixture
    def pusher(self, app: Flask, api: Any) -> Pusher:
        return Pusher(app)

    @pytest.fixture
    def publish(self, app: Flask, pusher: Pusher) -> Callable[[str, str], None]:
        @app.get("/<channel>/<name>")
        def view(channel: str, name: str) -> str:
            pusher.defer(channel, name, {})
            return ""

        return lambda channel, name: app.test_client().get(f"/{channel}/{name}").close()

    def test_many_requests_lose_double_and_disorder_nothing(
        self, publish: Callable[[str, str], None], api: Any
    ) -> None:
        def work(channel: str) -> None:
            for number in range(50):
                publish(channel, str(number))

        threads = [threading.Thread(target=work, args=[f"c{n}"]) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        publisher().flush()
        by_channel: dict[str, list[str]] = {}
        for channel, name, _ in api.events:
            by_channel.setdefault(channel, []).append(name)
        assert by_channel == {f"c{n}": [str(number) for number in range(50)] for n in range(8)}
        assert api.connections <= SENDERS

    def test_an_idle_publisher_sleeps(self, publish: Callable[[str, str], None], api: Any) -> None:
        publish("a", "one")
        publisher().flush()
        spent = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - spent < 0.1

    def test_a_publisher_in_a_pause_sleeps(
        self, publish: Callable[[str, str], None], api: Any
    ) -> None:
        api.answers += [(503, "later")] * 2
        publish("a", "one")
        spent = time.process_time()
        publisher().flush()
        assert time.process_time() - spent < 0.15
        assert len(api.calls) == 3

    def test_a_publisher_that_has_a_call_under_way_does_not_wake_for_each_event(
        self, app: Flask, pusher: Pusher, api: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "WAKING_SECONDS", 0.5)
        may_answer = threading.Event()
        api.answer = lambda call: (200 if may_answer.wait(30) else 500, "{}")
        publisher, decisions = Publisher(), 0

        def decide() -> None:
            nonlocal decisions
            decisions += 1
            Publisher._decide(publisher)

        monkeypatch.setattr(publisher, "_decide", decide)
        assert publisher.start()
        for number in range(100):
            wire = {"name": str(number), "channels": ["a"], "data": "{}"}
            publisher.submit([Event(app, app.extensions["pusher"], one) for one in [wire]])
            time.sleep(0.001)
        assert decisions < 50
        monkeypatch.setattr(room, "WAKING_SECONDS", 0)
        may_answer.set()
        publisher.flush()
        assert [name for _, name, _ in api.events] == [str(number) for number in range(100)]

    def test_it_starts_with_the_first_event_of_a_request(
        self, make_app: MakeApp, api: Any
    ) -> None:
        code = f"""import threading
from flask import Flask, Response, stream_with_context
from flask_pusher import Pusher
app = Flask("idle")
app.config.update({ {**CREDENTIALS, **api.config} })
pusher = Pusher(app)
app.add_url_rule("/", view_func=lambda: pusher.defer("a", "one", {{}}) or "")
with app.app_context():
    pusher.defer("a", "of a context", {{}})
print(threading.active_count())
app.test_client().get("/").close()
print(threading.active_count())
"""
        assert run("-c", code).stdout.split() == ["1", str(1 + 1 + SENDERS)]
        assert [name for _, name, _ in api.events] == ["of a context", "one"]

    def test_where_no_thread_can_be_started_the_request_publishes(
        self,
        publish: Callable[[str, str], None],
        api: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def refuse(*_: Any) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

        monkeypatch.setattr(room, "_publishers", {})
        monkeypatch.setattr(Publisher, "_start_thread", refuse)
        publish("a", "one")
        assert [name for _, name, _ in api.events] == ["one"]


class TestInThisThread:
    """Where the thread that deferred waits for the answer: outside of requests."""

    @pytest.fixture
    def pusher(self, app: Flask, api: Any) -> Pusher:
        app.config["PUSHER_ENCRYPTION_MASTER_KEY_BASE64"] = "A" * 43 + "="
        return Pusher(app)

    @pytest.mark.parametrize(
        ("events", "calls"),
        [
            ([1], ["events"]),
            ([5], ["events"]),
            ([100], ["events"]),
            ([101], ["events", "events"]),
            ([1] * 5, ["batch_events"]),
            ([1] * 10, ["batch_events"]),
            ([1] * 11, ["batch_events", "events"]),
            ([1] * 25, ["batch_events"] * 3),
            ([2] * 6, ["batch_events", "events"]),
            ([3, 3, 3, 3], ["batch_events", "events"]),
            ([12, 1], ["events", "events"]),
            ([1, 100, 1], ["events"] * 3),
            ([9, 100], ["events", "events"]),
        ],
    )
    def test_events_leave_in_order_in_few_calls(
        self, app: Flask, pusher: Pusher, api: Any, events: list[int], calls: list[str]
    ) -> None:
        expected = []
        with app.app_context():
            for number, count in enumerate(events):
                channels = [f"c{channel}" for channel in range(count)]
                pusher.defer(channels, f"event-{number}", {"n": number}, "1.2")
                expected += [(channel, f"event-{number}", {"n": number}) for channel in channels]
        assert api.events == expected
        assert [call.path.rpartition("/")[2] for call in api.calls] == calls
        for call in api.calls:
            assert all(e["socket_id"] == "1.2" for e in call.body.get("batch", [call.body]))

    def test_encrypted_events_are_encrypted(self, app: Flask, pusher: Pusher, api: Any) -> None:
        with app.app_context():
            pusher.defer("private-encrypted-a", "one", {"n": 1})
            pusher.defer("b", "two", {"n": 2})
        assert [set(data) for _, _, data in api.events] == [{"nonce", "ciphertext"}, {"n"}]

    def test_a_refused_event_takes_no_others_along(
        self, app: Flask, pusher: Pusher, api: Any, lost: list[Any]
    ) -> None:
        api.answers += [(413, "too large"), (200, "{}"), (413, "too large")]
        with app.app_context():
            for number in range(12):
                pusher.defer(f"c{number}", str(number), {})
        assert [names for names, _ in lost] == [["1"]]
        names = [one[1] for one in api.events[10:]]
        assert names == [str(number) for number in range(12)]

    def test_where_nothing_is_known_at_the_address_the_rest_is_given_up(
        self, app: Flask, pusher: Pusher, api: Any, lost: list[Any]
    ) -> None:
        api.answer = lambda call: (404, "no such page")
        with app.app_context():
            for number in range(12):
                pusher.defer("a", str(number), {})
        assert [call.path.rpartition("/")[2] for call in api.calls] == ["batch_events", "events"]
        assert [names for names, _ in lost] == [[str(number) for number in range(12)]]

    def test_without_an_answer_the_rest_is_given_up(
        self, make_app: MakeApp, caplog: pytest.LogCaptureFixture, lost: list[Any]
    ) -> None:
        pusher = Pusher()
        app = make_app(pusher, PUSHER_HOST="127.0.0.1", PUSHER_PORT="1", PUSHER_SSL="false")
        with app.app_context():
            for number in range(12):
                pusher.defer("private-x", f"event-{number}", {"private": "matter"})
        (record,) = [record for record in caplog.records if record.name == app.name]
        assert "'event-0' on private-x, 'event-1'" in record.message
        assert "'event-11' on private-x. NoAnswer" in record.message
        for secret in ("matter", "auth_signature", "a-secret"):
            assert secret not in record.message
        ((names, error),) = lost
        assert names == [f"event-{number}" for number in range(12)]
        assert isinstance(error, NoAnswer)

    def test_an_asynchronous_backend_is_awaited(self, make_app: MakeApp) -> None:
        app = make_app(pusher := Pusher(), PUSHER_BACKEND=AsyncBackend)
        with app.app_context():
            pusher.defer("a", "one", {})
        assert app.extensions["pusher"].http.sent == ["one"]

    def test_an_asynchronous_backend_is_awaited_inside_a_running_loop(
        self, make_app: MakeApp, lost: list[Any]
    ) -> None:
        app = make_app(pusher := Pusher(), PUSHER_BACKEND=AsyncBackend)

        async def work() -> None:
            with app.app_context():
                pusher.defer("a", "one", {})
            with app.app_context():
                pusher.defer("a", "refused", {})

        asyncio.run(work())
        assert app.extensions["pusher"].http.sent == ["one", "refused"]
        assert [names for names, _ in lost] == [["refused"]]


class AsyncBackend:
    """An HTTP adapter whose answers are awaited, as the client's for aiohttp is."""

    def __init__(self, client: Any) -> None:
        self.sent: list[str] = []

    async def send_request(self, request: Any) -> Any:
        await asyncio.sleep(0)
        self.sent.append(request.params["name"])
        if request.params["name"] == "refused":
            raise PusherError("405: no")
        return {}


class TestTelling:
    @pytest.fixture
    def pusher(self, app: Flask, api: Any) -> Pusher:
        return Pusher(app)

    def test_a_loss_is_logged_and_told_once(
        self, app: Flask, pusher: Pusher, api: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[Any] = []

        def receive(sender: Flask, events: list[RecordedEvent], error: Exception) -> None:
            told.append((sender, events, error))

        api.answers.append((403, "over\nquota"))
        with publish_failed.connected_to(receive, app), app.app_context():
            for number in range(12):
                pusher.defer(f"c{number}", f"event-{number}", {"private": "matter"})
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert "'event-0' on c0, 'event-1' on c1" in record.message
        assert "'event-11' on c11. PusherForbidden: over quota" in record.message
        assert "matter" not in record.message
        ((sender, events, error),) = told
        assert sender is app
        assert events[0] == RecordedEvent(["c0"], "event-0", {"private": "matter"}, None)
        assert (len(events), type(error).__name__) == (12, "PusherForbidden")

    def test_the_log_names_a_hundred_and_counts_the_others(
        self, app: Flask, pusher: Pusher, api: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        api.answers.append((403, "over quota"))
        with app.app_context():
            for number in range(103):
                pusher.defer("a", f"event-{number}", {})
        (record,) = caplog.records
        assert "'event-99' on a, and 3 more. PusherForbidden" in record.message

    def test_a_lost_event_can_be_sent_again(self, app: Flask, pusher: Pusher, api: Any) -> None:
        def again(sender: Flask, events: list[RecordedEvent], error: Exception) -> None:
            for event in events:
                pusher.client.trigger(*event)

        api.answers.append((503, "later"))
        with publish_failed.connected_to(again, app), app.app_context():
            pusher.defer(["a", "b"], "one", {"n": 1}, "1.2")
        assert api.calls[0].body == api.calls[1].body

    @pytest.mark.parametrize("in_a_request", [False, True])
    def test_what_a_receiver_defers_is_tried_once_and_only_logged(
        self,
        app: Flask,
        pusher: Pusher,
        api: Any,
        caplog: pytest.LogCaptureFixture,
        in_a_request: bool,
    ) -> None:
        told: list[str] = []

        def again(sender: Flask, events: list[RecordedEvent], error: Exception) -> None:
            for event in events:
                told.append(event.name)
                pusher.defer(*event)

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {"n": 1})
            return ""

        api.answers += [(403, "over quota")] * 5
        with publish_failed.connected_to(again, app):
            if in_a_request:
                app.test_client().get("/").close()
                publisher().flush()
            else:
                with app.app_context():
                    pusher.defer("a", "one", {"n": 1})
        assert told == ["one"]
        assert [call.body["name"] for call in api.calls] == ["one", "one"]
        assert [record.message.count("'one' on a") for record in caplog.records] == [1, 1]

    def test_a_receiver_has_a_context_and_may_be_a_coroutine_function(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        pytest.importorskip("asgiref", reason="coroutine functions need Flask[async]")
        told: list[Any] = []

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return ""

        async def receive(sender: Flask, events: list[RecordedEvent], **_: Any) -> None:
            told.append((pusher.client.key, len(events)))

        api.answers.append((403, "over quota"))
        with publish_failed.connected_to(receive, app):
            app.test_client().get("/").close()
            publisher().flush()
        assert told == [("a-key", 1)]

    def test_an_error_of_a_receiver_is_logged_and_stops_nothing(
        self, app: Flask, pusher: Pusher, api: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        @app.get("/<name>")
        def view(name: str) -> str:
            pusher.defer("a", name, {})
            return "fine"

        def fail(sender: Flask, **_: Any) -> None:
            raise KeyError

        api.answers.append((403, "over quota"))
        with publish_failed.connected_to(fail, app):
            answer = app.test_client().get("/one")
            assert answer.text == "fine"
            answer.close()
            publisher().flush()
            app.test_client().get("/two").close()
            publisher().flush()
        assert "A receiver of publish_failed raised an exception" in caplog.text
        assert [name for _, name, _ in api.events] == ["one", "two"]

    @pytest.mark.parametrize("who", ["a logging filter", "a receiver"])
    def test_what_ends_a_thread_elsewhere_ends_none_here(
        self,
        app: Flask,
        pusher: Pusher,
        api: Any,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        who: str,
    ) -> None:
        @app.get("/<name>")
        def view(name: str) -> str:
            pusher.defer("a", name, {})
            return ""

        def fail(*args: Any, **_: Any) -> None:
            raise RuntimeError("no request") if who == "a logging filter" else SystemExit("no")

        if who == "a logging filter":
            monkeypatch.setattr(app.logger, "filters", [fail])
        else:
            publish_failed.connect(fail, app)
        names = [str(number) for number in range(SENDERS + 1)]
        api.answers += [(403, "over quota")] * SENDERS
        for name in names:
            app.test_client().get(f"/{name}").close()
            publisher().flush()
        assert [name for _, name, _ in api.events] == names
        assert capfd.readouterr().err.count("no") >= SENDERS

    def test_an_application_is_told_of_its_own_events(
        self, driven: Driven, make_app: MakeApp, lost: list[Any]
    ) -> None:
        other = make_app()
        wire = {"name": "other's", "channels": ["b"], "data": "{}"}
        driven.submit("0 a")
        driven.publisher.submit([Event(other, driven.client, one) for one in [wire]])
        driven.submit("1 c")
        driven.answer()
        driven.answer(refusal(403))
        assert [names for names, _ in lost] == [["other's"], ["1"]]


class TestHandOver:
    @pytest.fixture
    def pusher(self, app: Flask, api: Any) -> Pusher:
        app.config["PUSHER_ENCRYPTION_MASTER_KEY_BASE64"] = "A" * 43 + "="
        return Pusher(app)

    @pytest.fixture
    def queued(self, pusher: Pusher) -> list[str]:
        """What was handed over, as a queue carries it."""
        queued: list[str] = []

        @pusher.hand_over
        def enqueue(calls: list[dict[str, Any]]) -> None:
            assert pusher.client.key == "a-key"
            queued.append(json.dumps(calls))

        return queued

    def test_it_has_the_events_before_the_response_leaves(
        self, app: Flask, pusher: Pusher, api: Any, queued: list[str]
    ) -> None:
        order: list[str] = []
        app.teardown_request(lambda error: order.append(f"teardown, {len(queued)} on the queue"))

        @app.get("/<int:status>")
        def view(status: int) -> tuple[str, int]:
            pusher.defer(["a", "b"], "one", {"n": 1}, "1.2")
            pusher.defer("private-encrypted-a", "two", "secret")
            return "", status

        app.test_client().get("/500").close()
        assert queued == []
        answer = app.test_client().get("/200")
        assert order[-1] == "teardown, 0 on the queue"
        (calls,) = map(json.loads, queued)
        answer.close()
        assert [call["name"] for call in calls] == ["one", "two"]
        assert calls[0]["channels"] == ["a", "b"]
        assert "secret" not in queued[0]
        publisher().flush()
        assert (api.calls, len(queued)) == ([], 1)

    def test_it_has_a_streams_events_before_that_ends(
        self, app: Flask, pusher: Pusher, queued: list[str]
    ) -> None:
        @app.get("/")
        def view() -> Response:
            def body() -> Iterator[str]:
                yield "a"
                pusher.defer("a", "streamed", {})
                yield "b"

            pusher.defer("a", "before", {})
            return Response(stream_with_context(body()))

        answer = app.test_client().get("/")
        on_the_queue = [len(queued) for _ in answer.iter_encoded()]
        assert on_the_queue == [0, 0]
        (calls,) = map(json.loads, queued)
        assert [call["name"] for call in calls] == ["before", "streamed"]
        answer.close()
        assert len(queued) == 1

    def test_it_has_the_events_of_a_context_when_that_ends(
        self, app: Flask, pusher: Pusher, api: Any, queued: list[str]
    ) -> None:
        with app.app_context():
            pusher.defer("a", "one", {})
            assert queued == []
        assert [call["name"] for call in json.loads(queued[0])] == ["one"]
        assert api.calls == []

    def test_where_it_raises_the_publisher_takes_the_events(
        self, app: Flask, pusher: Pusher, api: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        @pusher.hand_over
        def enqueue(calls: list[dict[str, Any]]) -> None:
            calls.clear()
            raise ConnectionError("no broker")

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {"n": 1})
            return "fine"

        answer = app.test_client().get("/")
        assert answer.text == "fine"
        answer.close()
        publisher().flush()
        assert api.events == [("a", "one", {"n": 1})]
        assert "@pusher.hand_over raised an exception" in caplog.text
        assert "no broker" in caplog.text

    def test_where_it_is_broken_off_the_publisher_takes_the_events(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        @pusher.hand_over
        def enqueue(calls: list[dict[str, Any]]) -> None:
            raise SystemExit

        with pytest.raises(SystemExit), app.app_context():
            pusher.defer("a", "one", {"n": 1})
        assert api.events == [("a", "one", {"n": 1})]

    def test_where_it_is_broken_off_for_a_response_that_was_dropped_no_sender_ends(
        self, app: Flask, pusher: Pusher, api: Any, capfd: pytest.CaptureFixture[str]
    ) -> None:
        @pusher.hand_over
        def enqueue(calls: list[dict[str, Any]]) -> None:
            raise SystemExit("no broker")

        @app.get("/<name>")
        def view(name: str) -> Response:
            def chunks() -> Iterator[str]:
                pusher.defer("a", name, {})
                yield "one"
                yield "two"

            return Response(stream_with_context(chunks()))

        names = [str(number) for number in range(SENDERS + 1)]
        for name in names:
            app.test_client().get(f"/{name}")  # dropped, and not closed
            gc.collect()
            until = time.monotonic() + 10
            while name not in (sent for _, sent, _ in api.events) and time.monotonic() < until:
                time.sleep(0.01)
        assert [name for _, name, _ in api.events] == names
        assert "SystemExit: no broker" in capfd.readouterr().err

    def test_what_it_defers_itself_is_not_handed_over_again(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        queued: list[Any] = []

        @pusher.hand_over
        def enqueue(calls: list[dict[str, Any]]) -> None:
            queued.extend(calls)
            pusher.defer("a", "queued", {})

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return "fine"

        app.test_client().get("/").close()
        publisher().flush()
        assert [call["name"] for call in queued] == ["one"]
        assert api.events == [("a", "queued", {})]

    def test_it_may_be_a_coroutine_function(self, app: Flask, pusher: Pusher, api: Any) -> None:
        pytest.importorskip("asgiref", reason="coroutine functions need Flask[async]")
        queued: list[Any] = []

        @pusher.hand_over
        async def enqueue(calls: list[dict[str, Any]]) -> None:
            queued.extend(calls)

        with app.app_context():
            pusher.defer("a", "one", {})
        assert [call["name"] for call in queued] == ["one"]
        assert api.calls == []

    def test_the_worker_publishes_what_came_through_the_queue(
        self, app: Flask, pusher: Pusher, api: Any, queued: list[str]
    ) -> None:
        with app.app_context():
            for number in range(12):
                pusher.defer(["a", "b"], str(number), {"n": number}, "1.2")
        with app.app_context():
            pusher.publish(json.loads(queued[0]))
        assert api.events == [
            (channel, str(number), {"n": number}) for number in range(12) for channel in "ab"
        ]
        assert len(api.calls) == 3

    def test_the_worker_is_told_of_a_refusal_and_raises_none(
        self, app: Flask, pusher: Pusher, api: Any, queued: list[str], lost: list[Any]
    ) -> None:
        with app.app_context():
            pusher.defer("a", "one", {})
        api.answers.append((413, "too large"))
        with app.app_context():
            pusher.publish(json.loads(queued[0]))
        assert [names for names, _ in lost] == [["one"]]

    @pytest.mark.parametrize("status", [401, 403, 429, 503])
    def test_the_worker_raises_what_a_retry_can_mend(
        self, app: Flask, pusher: Pusher, api: Any, queued: list[str], lost: list[Any], status: int
    ) -> None:
        with app.app_context():
            pusher.defer("a", "one", {})
        api.answers.append((status, "later"))
        with app.app_context(), pytest.raises(PusherError, match="later"):
            pusher.publish(json.loads(queued[0]))
        assert lost == []

    @pytest.mark.parametrize(
        "calls",
        [None, {}, "calls", ["a"], [{}], [{"name": "a", "data": "b", "channels": []}]],
    )
    def test_what_was_not_handed_over_is_refused(
        self, app: Flask, pusher: Pusher, api: Any, calls: Any
    ) -> None:
        with app.app_context(), pytest.raises(ValueError, match="takes the list of dicts"):
            pusher.publish(calls)
        assert api.calls == []

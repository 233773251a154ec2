"""What the publisher decides: what leaves in which call and when, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import requests
from flask import Flask
from pusher.errors import PusherError

from _flask_pusher import desk
from _flask_pusher import publisher as room
from _flask_pusher.desk import Event, Wire
from _flask_pusher.publisher import SENDERS, Publisher, published, submit
from flask_pusher import NoAnswer, Pusher, RecordedEvent

if TYPE_CHECKING:
    from tests.conftest import MakeApp


NOBODY = requests.ConnectionError(ConnectionRefusedError())
TIMEOUT = requests.ReadTimeout()


def refusal(status: int, retry_after: float = 0.0) -> PusherError:
    error = PusherError(f"{status}: no")
    error.status, error.retry_after = status, retry_after
    return error


class Service:
    """An HTTP adapter that notes each call's events by name, and answers as it is told."""

    def __init__(self, client: Any) -> None:
        self.calls: list[str] = []
        self.addresses: list[str] = []
        self.answers: deque[BaseException | None] = deque()

    def send_request(self, request: Any) -> dict[str, Any]:
        self.calls.append(" ".join(one["name"] for one in events_of(request.params)))
        self.addresses.append(request.base_url)
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

    def __init__(self, make_app: MakeApp, clock: Clock) -> None:
        self.pusher = Pusher()
        self.app = app = make_app(self.pusher, PUSHER_BACKEND=Service)
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
        submit([Event(self.app, self.client, wire) for wire in wires])
        self.decide()

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.decide()

    def decide(self) -> None:
        self.when = self.publisher._decide()
        while not self.publisher.posts.empty():
            self.under_way.append(self.publisher.posts.get())
        while not self.publisher.chores.empty():
            self.publisher.chores.get()()
            self.when = self.publisher._decide()

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return sum(one.size for one in self.publisher.desks.values())

    @property
    def calls(self) -> list[str]:
        """The calls under way, by their events' names."""
        return [" ".join(one.wire["name"] for one in job.args[2]) for job in self.under_way]

    def answer(self, error: BaseException | None = None, *, of: int = 0) -> None:
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
def driven(make_app: MakeApp, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Driven:
    driven = Driven(make_app, clock)
    driven.publisher.is_started = True
    monkeypatch.setattr(room, "publisher", lambda: driven.publisher)
    return driven


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
        class Lanes(OrderedDict[str, Any]):
            asked = 0

            def __getitem__(self, channel: str) -> Any:
                self.asked += 1
                return super().__getitem__(channel)

        driven.submit(*numbered(1000))
        (its,) = driven.publisher.desks.values()
        its.lanes = lanes = Lanes(its.lanes)
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
        other = Driven(make_app, clock)
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
        assert (lost, driven.size, driven.patience) == ([], 0, None)

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_what_the_service_puts_off_is_tried_again_in_order(
        self, driven: Driven, status: int
    ) -> None:
        driven.submit("0 a")
        driven.submit("1 a", "2 b")
        driven.answer(refusal(status))
        driven.submit("3 a")
        driven.wait(0.1)
        assert driven.calls == ["0 1 2 3"]
        driven.answer()
        assert (driven.calls, driven.size) == ([], 0)

    def test_it_is_tried_again_no_sooner_than_the_service_asks(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.answer(refusal(429, retry_after=7))
        driven.submit("1 b")
        assert (driven.calls, driven.patience) == ([], 7)
        driven.wait(7)
        assert driven.calls == ["0 1"]

    def test_what_the_service_asks_to_send_later_than_an_event_lives_is_lost(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a")
        driven.answer(refusal(503, retry_after=3600))
        assert [names for names, _ in lost] == [["0"]]
        driven.submit("1 b")
        assert (driven.calls, driven.patience) == ([], 30)
        driven.wait(30)
        assert [names for names, _ in lost] == [["0"], ["1"]]
        assert (driven.service.calls, driven.size) == (["0"], 0)

    def test_one_call_at_a_time_finds_out_that_the_service_is_back(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.answer(NOBODY)
        driven.submit(*numbered(30))
        assert (driven.calls, driven.patience) == ([], 0.1)
        driven.wait(0.1)
        assert (len(driven.calls), driven.patience) == (1, None)
        driven.wait(10)
        assert len(driven.calls) == 1
        driven.answer()
        assert [len(call.split()) for call in driven.calls] == [10, 10, 1]

    def test_calls_that_fail_together_lengthen_the_pause_once(self, driven: Driven) -> None:
        driven.submit(*numbered(40))
        for _ in range(4):
            driven.answer(NOBODY)
        assert driven.patience == 0.1

    def test_an_event_that_is_always_put_off_takes_no_other_along_and_delays_none(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("bad b", *numbered(9))
        tries, waits = 0, 0
        for number in range(400):
            while driven.calls:
                is_bad = "bad" in driven.calls[0].split()
                tries += is_bad
                driven.answer(refusal(500) if is_bad else None)
            driven.submit(f"later-{number} c")
            waits += not driven.calls
            driven.wait(0.1)
        while driven.under_way:
            driven.answer()
        assert [names for names, _ in lost] == [["bad"]]
        sent = [name for call in driven.service.calls for name in call.split()]
        assert {*map(str, range(9)), *(f"later-{n}" for n in range(400))} <= set(sent)
        assert 15 <= tries <= 25
        assert waits <= 3

    def test_what_waits_behind_an_event_that_is_always_put_off_is_not_lost_with_it(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("bad a", "good a")
        driven.submit("0 b")
        for _ in range(330):
            while driven.calls:
                driven.answer(refusal(500) if "bad" in driven.calls[0].split() else None)
            driven.wait(0.1)
            driven.submit("0 b")
        assert [names for names, _ in lost] == [["bad"]]
        assert "good" in driven.service.calls

    @pytest.mark.parametrize("is_last", [False, True])
    def test_nor_where_nothing_else_is_published(
        self, driven: Driven, lost: list[Any], is_last: bool
    ) -> None:
        """What waits behind it is as old as it is."""
        driven.submit(*["bad a"] * (not is_last), *numbered(9, "a"), *["bad a"] * is_last)
        for _ in range(330):
            while driven.calls:
                driven.answer(refusal(500) if "bad" in driven.calls[0].split() else None)
            driven.wait(0.1)
        assert [names for names, _ in lost] == [["bad"]]
        sent = [name for call in driven.service.calls for name in call.split()]
        assert sent[-9:] == [*map(str, range(9))] if not is_last else sent[-1] == "bad"
        assert {*map(str, range(9))} < set(driven.service.calls)
        assert driven.size == 0

    def test_in_an_outage_what_waited_behind_an_event_is_tried_once_more_at_most(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit(*numbered(200, "a"))
        for _ in range(330):
            while driven.calls:
                driven.answer(refusal(500))
            driven.wait(0.1)
        assert sum(len(names) for names, _ in lost) == 200
        assert len(driven.service.calls) < 50
        assert driven.size == 0

    def test_an_event_is_given_up_when_it_is_30_seconds_old(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a")
        driven.wait(1)
        driven.submit("1 b")
        driven.answer(NOBODY)
        while not lost:
            driven.wait(driven.patience or 0)
            driven.answer(NOBODY)
        ((names, error),) = lost
        assert (names, type(error)) == (["0"], NoAnswer)
        assert 27.9 < driven.clock.now - 1000 <= 30
        driven.wait(2)
        driven.answer()
        assert driven.service.calls[-1] == "1"
        assert (len(lost), driven.size) == (1, 0)

    def test_after_an_outage_of_a_minute_nothing_leaves_that_is_older_than_30_seconds(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        born: dict[str, float] = {}
        for number in range(1200):
            born[str(number)] = driven.clock.now
            driven.submit(f"{number} c{number % 7}")
            driven.wait(0.05)
            while driven.calls:
                driven.answer(NOBODY)
        tried = len(driven.service.calls)
        while driven.size:
            driven.wait(0.01)
            while driven.calls:
                driven.answer()
        arrived = [name for call in driven.service.calls[tried:] for name in call.split()]
        told = [name for names, _ in lost for name in names]
        assert sorted([*arrived, *told], key=int) == list(born)
        assert all(born[name] >= 1060 - 30.1 for name in arrived)
        assert len(arrived) > 500
        for number in range(7):
            of_channel = [name for name in arrived if int(name) % 7 == number]
            assert of_channel == sorted(of_channel, key=int)

    def test_a_service_that_answers_loses_nothing_for_its_age(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a", *numbered(60, "a"))
        for _ in range(6):
            driven.wait(10)
            driven.answer()
        driven.answer()
        assert (lost, driven.size) == ([], 0)

    @pytest.mark.parametrize("error", [TIMEOUT, refusal(405), asyncio.CancelledError()])
    def test_anything_else_gives_up_the_call_and_no_other(
        self, driven: Driven, lost: list[Any], error: BaseException
    ) -> None:
        driven.submit("0 a")
        driven.submit("1 a", "2 a")
        driven.answer(error)
        assert [names for names, _ in lost] == [["0"]]
        driven.wait(0.1)
        assert driven.calls == ["1 2"]
        driven.answer()
        assert driven.size == 0

    @pytest.mark.parametrize("status", [401, 402, 403])
    def test_a_refusal_of_the_app_gives_up_what_waits(
        self, driven: Driven, lost: list[Any], status: int
    ) -> None:
        driven.submit(*numbered(3))
        driven.answer(NOBODY)
        driven.submit("3 c0", "4 x", "5 y")
        driven.wait(0.1)
        driven.answer(refusal(status))
        assert sorted(lost[0][0]) == ["0", "1", "2", "3", "4", "5"]
        assert (len(lost), driven.size, driven.publisher.desks) == (1, 0, {})
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
        assert [names for names, _ in lost] == [["1", "2", "3"]]
        driven.submit("4 a", "5 b")
        driven.wait(0.03)
        assert driven.calls == ["0"]
        driven.answer()
        assert (driven.service.calls, driven.calls) == (["1", "0"], ["4 5"])

    def test_a_refusal_of_the_app_gives_up_what_waits_to_be_tried_again(
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
        driven.answer(refusal(status))
        while driven.calls:
            driven.answer(refusal(413) if driven.calls[0] == "1" else None)
        assert driven.service.calls[0] == "0 1 2"
        assert sorted(driven.service.calls[1:]) == ["0", "1", "2"]
        assert driven.service.calls.index("0") < driven.service.calls.index("2")
        assert [names for names, _ in lost] == [["1"]]
        assert driven.size == 0

    def test_an_address_that_knows_no_batches_is_not_sent_a_second(self, driven: Driven) -> None:
        driven.submit("0 a", "1 b")
        driven.answer(refusal(404))
        while driven.calls:
            driven.answer()
        driven.submit("2 a", "3 b", "4 a")
        while driven.calls:
            driven.answer()
        assert driven.service.calls == ["0 1", "0", "1", "2", "3", "4"]

    def test_where_nothing_is_known_at_the_address_all_is_told_once_after_two_calls(
        self, driven: Driven, lost: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        driven.submit(*numbered(10))
        driven.submit(*numbered(10, "a"))
        driven.answer(refusal(404))
        driven.answer(refusal(404))
        driven.answer(refusal(404))
        assert (driven.calls, driven.size) == ([], 0)
        assert len(lost) <= 2
        assert len(caplog.records) <= 2

    def test_what_left_goes_to_the_address_of_then_and_into_no_later_recording(
        self, driven: Driven
    ) -> None:
        driven.submit("0 a")
        driven.client.address = ("127.0.0.1", 1, False)
        with driven.app.app_context(), driven.pusher.record_events() as events:
            driven.answer(NOBODY)
            driven.wait(0.1)
            driven.answer()
        driven.submit("1 a")
        driven.answer()
        assert events == []
        api = "https://api.pusherapp.com:443"
        assert driven.service.addresses == [api, api, "http://127.0.0.1:1"]


class TestWhatIsLoggedOfTheService:
    def test_one_that_stops_answering_is_warned_about_at_once_and_once(
        self, driven: Driven, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, driven.app.name)
        driven.submit("0 a")
        driven.answer(NOBODY)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "https://api.pusherapp.com:443 gave no answer: nothing listens" in record.message
        assert "Are PUSHER_HOST and PUSHER_PORT right?" in record.message
        for _ in range(3):
            driven.wait(2)
            driven.submit("1 b")
            driven.answer(NOBODY)
        assert len(caplog.records) == 1
        driven.wait(2)
        while driven.calls:
            driven.answer()
        assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]
        assert "https://api.pusherapp.com:443 answers again" in caplog.messages[1]

    def test_one_that_puts_off_is_named_with_what_it_says(
        self, driven: Driven, caplog: pytest.LogCaptureFixture
    ) -> None:
        driven.submit("0 a")
        driven.answer(refusal(503))
        assert "https://api.pusherapp.com:443 answers: 503: no" in caplog.text

    def test_it_is_known_when_the_next_event_comes_and_forgotten_after_a_minute(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a")
        driven.answer(TIMEOUT)
        driven.submit("1 a")
        assert (driven.calls, driven.patience) == ([], 0.1)
        driven.wait(0.1)
        driven.answer(TIMEOUT)
        assert len(driven.publisher.desks) == 1
        driven.wait(61)
        assert driven.publisher.desks == {}


class TestTurns:
    @pytest.fixture
    def other(self, driven: Driven, make_app: MakeApp, clock: Clock) -> Driven:
        other = Driven(make_app, clock)
        other.publisher, other.under_way = driven.publisher, driven.under_way
        driven.submit("first a")
        other.submit("first a")
        while driven.calls:
            driven.answer()
        driven.service.calls.clear()
        other.service.calls.clear()
        return other

    def test_the_last_idle_sender_is_for_an_application_that_has_no_call_under_way(
        self, driven: Driven, other: Driven
    ) -> None:
        driven.submit(*numbered(400))
        assert len(driven.calls) == 3
        other.submit("quiet a")
        assert driven.calls[3:] == ["quiet"]

    def test_applications_take_turns(self, driven: Driven, other: Driven) -> None:
        driven.submit(*numbered(400))
        other.submit(*(f"quiet-{number} q{number}" for number in range(40)))
        for _ in range(12):
            driven.answer()
        assert len(other.service.calls) == 4

    def test_one_whose_service_does_not_answer_holds_one_sender(
        self, driven: Driven, other: Driven, lost: list[Any]
    ) -> None:
        driven.submit(*numbered(400))
        for _ in range(3):
            driven.answer(TIMEOUT)
        driven.wait(0.1)
        assert len(driven.calls) == 1
        other.submit(*numbered(40))
        assert len(driven.calls) == 3
        driven.wait(10)
        assert len(driven.calls) == 3


class TestTheQueue:
    @pytest.fixture(autouse=True)
    def _small_queue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(desk, "QUEUE_BYTES", 200_000)

    @staticmethod
    def fill(driven: Driven) -> None:
        driven.submit_wires({"name": "big", "channels": ["a"], "data": "x" * desk.QUEUE_BYTES})
        assert driven.calls == ["big"]

    def test_what_finds_no_room_is_lost_at_once(
        self, driven: Driven, lost: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        self.fill(driven)
        full = driven.size
        submit([Event(driven.app, driven.client, {"name": "next", "channels": ["b"], "data": ""})])
        driven.publisher.inbox.get()()
        assert driven.size == full  # nor does it take any while it is told
        driven.decide()
        assert [(names, str(error)) for names, error in lost] == [
            (["next"], "The queue of the publisher is full.")
        ]
        assert "'next' on b. PusherError: The queue" in caplog.text
        driven.answer()
        driven.submit("after b")
        assert (driven.calls, driven.service.calls) == (["after"], ["big"])
        driven.answer()
        assert driven.size == 0

    def test_one_application_takes_no_room_of_another(
        self, driven: Driven, make_app: MakeApp, clock: Clock, lost: list[Any]
    ) -> None:
        other = Driven(make_app, clock)
        other.publisher, other.under_way = driven.publisher, driven.under_way
        self.fill(driven)
        driven.answer(NOBODY)
        other.submit("0 a", "1 a")
        assert (driven.calls, lost) == (["0 1"], [])

    def test_each_channel_counts(self, driven: Driven) -> None:
        driven.submit(f"0 {' '.join(f'c{number}' for number in range(100))}")
        assert driven.size >= 100 * 200
        driven.answer()
        assert driven.size == 0


class TestTheEnd:
    @staticmethod
    def end(driven: Driven) -> threading.Event:
        done = threading.Event()
        driven.publisher.inbox.put(partial(driven.publisher._end, done))
        driven.decide()
        return done

    def test_what_waits_is_sent_without_gathering(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.submit("1 b")
        done = self.end(driven)
        assert driven.calls == ["0", "1"]
        driven.answer()
        assert not done.is_set()
        driven.answer()
        assert done.is_set()

    def test_a_service_that_answers_has_ten_seconds(self, driven: Driven, lost: list[Any]) -> None:
        driven.submit("0 a", "1 a")
        driven.submit("2 a")
        done = self.end(driven)
        driven.wait(9.9)
        assert (lost, done.is_set(), driven.patience) == ([], False, 0.1)
        driven.wait(0.1)
        ((names, error),) = lost
        assert (names, done.is_set()) == (["0", "1", "2"], True)
        assert str(error) == "The process ended before they were published."
        driven.answer()
        assert (driven.size, driven.publisher.idle) == (0, SENDERS)

    def test_one_that_does_not_answer_has_two_and_why_is_told(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a")
        driven.answer(NOBODY)
        driven.submit("1 b")
        started = driven.clock.now
        done = self.end(driven)
        assert driven.calls == ["0 1"]
        while not done.is_set():
            if driven.calls:
                driven.answer(NOBODY)
            driven.wait(driven.patience or 0)
        assert driven.clock.now - started <= 2.01
        ((names, error),) = lost
        assert names == ["0", "1"]
        assert "The process ended before they were published." in str(error)
        assert "gave no answer: nothing listens there" in str(error)
        assert len(driven.service.calls) >= 4

    def test_one_that_has_not_answered_for_long_has_one(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a")
        for _ in range(6):
            driven.answer(NOBODY)
            driven.wait(2)
        done = self.end(driven)
        driven.wait(0.9)
        assert not done.is_set()
        driven.wait(0.1)
        assert (done.is_set(), [names for names, _ in lost]) == (True, [["0"]])

    def test_a_service_that_comes_back_meanwhile_gets_them(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a")
        for _ in range(6):
            driven.answer(NOBODY)
            driven.wait(2)
        driven.answer(NOBODY)
        done = self.end(driven)
        assert driven.calls == ["0"]
        driven.answer()
        assert (lost, done.is_set()) == ([], True)

    def test_a_second_way_to_end_waits_no_longer_than_the_first(
        self, driven: Driven, lost: list[Any]
    ) -> None:
        driven.submit("0 a")
        first = self.end(driven)
        driven.wait(9)
        second = self.end(driven)
        driven.wait(1)
        assert (first.is_set(), second.is_set(), len(lost)) == (True, True, 1)

    def test_a_process_that_has_nothing_to_send_does_not_wait(self, driven: Driven) -> None:
        assert self.end(driven).is_set()

    def test_a_forked_process_does_not_send_what_its_parent_has(self, driven: Driven) -> None:
        driven.submit("0 a")
        driven.publisher.pid += 1
        driven.publisher.flush()
        assert driven.publisher.chores.empty()


class TestWhatIsPublished:
    def test_is_told_with_how_long_it_took(self, driven: Driven) -> None:
        told: list[Any] = []

        def receive(sender: Flask, **what: Any) -> None:
            told.append((sender, what))

        with published.connected_to(receive):
            driven.submit("0 a")
            driven.answer(NOBODY)
            driven.wait(0.1)
            driven.submit("1 b")
            driven.wait(2)
            driven.answer()
            driven.submit("2 a")
        driven.answer()
        ((sender, what),) = told[:1]
        assert sender is driven.app
        assert [event.name for event in what["events"]] == ["0"]
        assert what["events"][0] == RecordedEvent(["a"], "0", {}, None)
        assert (round(what["seconds"], 3), what["tries"]) == (2.1, 2)

    def test_is_not_looked_at_where_nobody_listens(
        self, driven: Driven, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "recorded", None)
        driven.submit("0 a")
        driven.answer()
        assert driven.size == 0

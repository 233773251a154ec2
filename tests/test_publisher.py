"""The publisher as it runs: its threads, the end of a process, what waits for it, what it tells."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import blinker
import pytest
from flask import Flask
from pusher.errors import PusherError

from _flask_pusher import publisher as room
from _flask_pusher.desk import Event
from _flask_pusher.publisher import SENDERS, Publisher, published, publisher, submit
from _flask_pusher.transport import Backend
from flask_pusher import Pusher, RecordedEvent, publish_failed

if TYPE_CHECKING:
    from tests.conftest import MakeApp


CREDENTIALS = {"PUSHER_APP_ID": "1", "PUSHER_KEY": "a-key", "PUSHER_SECRET": "a-secret"}
NOBODY = {"PUSHER_HOST": "127.0.0.1", "PUSHER_SSL": False}


def events_of(params: Any) -> list[Any]:
    found: list[Any] = params.get("batch", [params])
    return found


class TestTheEnd:
    def test_what_could_not_be_sent_is_told(
        self, make_app: MakeApp, lost: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "EXIT_SECONDS_WITHOUT_ANSWER", 0.2)
        monkeypatch.setattr(room, "LAST_TRY_SECONDS", 0.1)
        app = make_app(Pusher(), PUSHER_HOST="127.0.0.1", PUSHER_PORT=1, PUSHER_SSL=False)
        monkeypatch.setattr(room, "_publishers", {})
        submit([event(app, str(number)) for number in range(30)])
        publisher().flush()
        ((names, error),) = lost
        assert names == [str(number) for number in range(30)]
        assert "The process ended" in str(error)
        assert "nothing listens there" in str(error)
        started = time.monotonic()
        publisher().flush()
        assert time.monotonic() - started < room.EXIT_SECONDS / 2
        assert len(lost) == 1

    def test_what_is_under_way_at_the_end_is_told(
        self, app: Flask, api: Any, lost: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "EXIT_SECONDS", 0.2)
        may_answer = threading.Event()
        api.answer = lambda call: (200 if may_answer.wait(30) else 500, "{}")
        Pusher(app)
        monkeypatch.setattr(room, "_publishers", {})
        for name in ("0", "1"):
            submit([event(app, name)])
            api.until(lambda: bool(api.calls))
        publisher().flush()
        api.until(lambda: bool(lost))
        may_answer.set()
        assert [names for names, _ in lost] == [["0", "1"]]

    def test_a_worker_of_celery_that_ends_sends_what_waits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flushed: list[Any] = []
        signals = SimpleNamespace(worker_process_shutdown=blinker.Signal())
        monkeypatch.setitem(sys.modules, "celery.signals", signals)
        here = Publisher()
        monkeypatch.setattr(here, "flush", lambda *sender: flushed.append(sender))
        here._at_exit()
        signals.worker_process_shutdown.send("the worker")
        assert flushed == [("the worker",)]

    def test_a_publisher_that_never_started_has_nothing_to_wait_for(self) -> None:
        Publisher().flush()


def event(app: Flask, name: str, channel: str = "a") -> Event:
    wire = {"name": name, "channels": [channel], "data": "{}"}
    return Event(app, app.extensions["pusher"], wire)


PROGRAM = """
import atexit, faulthandler, multiprocessing, os, signal, sys, threading, time, types
{before}
def tell_where_it_hangs():
    signal.alarm(120)

if hasattr(os, "fork"):
    faulthandler.register(signal.SIGALRM, chain=True)
    os.register_at_fork(after_in_child=tell_where_it_hangs)
    tell_where_it_hangs()
from flask import Flask
from flask_pusher import Pusher
from _flask_pusher import publisher as room
room.EXIT_SECONDS = room.EXIT_SECONDS_WITHOUT_ANSWER = 60  # what it puts off, it sends, in time
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
    "publishes as it ends": Program(
        "atexit.register(get, '1')", ["1"], is_put_off=sys.version_info[:2] != (3, 12)
    ),
    "has published before it does as it ends": Program(
        "atexit.register(get, '2'); get('1')", ["1", "2"]
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
        timeout=180,
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

    @pytest.fixture
    def decisions(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """When each decision of a new publisher's says that the next is due."""
        monkeypatch.setattr(room, "_publishers", {})
        here, made = publisher(), list[float]()

        def decide() -> float:
            made.append(Publisher._decide(here))
            return made[-1]

        monkeypatch.setattr(here, "_decide", decide)
        return made

    def test_an_idle_publisher_sleeps(
        self, publish: Callable[[str, str], None], decisions: list[float]
    ) -> None:
        publish("a", "one")
        publisher().flush()
        decisions.clear()
        time.sleep(0.5)
        assert len(decisions) < 5

    def test_a_publisher_in_a_pause_sleeps(
        self, publish: Callable[[str, str], None], api: Any, decisions: list[float]
    ) -> None:
        api.answers += [(503, "later")] * 2
        publish("a", "one")
        publisher().flush()
        assert len(decisions) < 20
        assert len(api.calls) == 3

    def test_a_publisher_that_has_a_call_under_way_does_not_wake_for_each_event(
        self,
        app: Flask,
        pusher: Pusher,
        api: Any,
        decisions: list[float],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(room, "WAKING_SECONDS", 0.5)
        may_answer = threading.Event()
        api.answer = lambda call: (200 if may_answer.wait(30) else 500, "{}")
        for number in range(100):
            submit([event(app, str(number))])
            time.sleep(0.001)
        assert len(decisions) < 50
        monkeypatch.setattr(room, "WAKING_SECONDS", 0)
        may_answer.set()
        publisher().flush()
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
def count():
    return sum("flask-pusher" in thread.name for thread in threading.enumerate())
print(count())
app.test_client().get("/").close()
print(count())
"""
        assert run("-c", code).stdout.split() == ["0", str(SENDERS + 2)]
        assert [name for _, name, _ in api.events] == ["one"]

    def test_nothing_that_fails_in_it_ends_it(
        self,
        publish: Callable[[str, str], None],
        api: Any,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        def fail() -> None:
            raise SystemExit("no more")

        assert publisher().start()
        publisher().inbox.put(fail)
        for _ in range(SENDERS):
            publisher().posts.put(fail)
        publisher().run(fail)
        publish("a", "one")
        publisher().flush()
        assert [name for _, name, _ in api.events] == ["one"]
        told: list[str] = []  # by each thread for itself, some of them later than others

        def is_told() -> bool:
            told.append(capfd.readouterr().err)
            return "".join(told).count("SystemExit: no more") == SENDERS + 2

        api.until(is_told)

    def test_where_no_thread_can_be_started_the_request_publishes(
        self,
        publish: Callable[[str, str], None],
        api: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name == "flask-pusher":
                raise RuntimeError("can't create new thread at interpreter shutdown")
            start(thread)

        monkeypatch.setattr(room, "_publishers", {})
        monkeypatch.setattr(threading.Thread, "start", refuse)
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
        assert sorted(api.events) == sorted(expected)
        assert sorted(call.path.rpartition("/")[2] for call in api.calls) == sorted(calls)
        for channel in {channel for channel, _, _ in expected}:
            names = [
                [name for one, name, _ in found if one == channel]
                for found in (api.events, expected)
            ]
            assert names[0] == names[1]
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
        def answer(call: Any) -> tuple[int, str]:
            names = [one["name"] for one in call.body.get("batch", [call.body])]
            return (413, "too large") if "1" in names else (200, "{}")

        api.answer = answer
        with app.app_context():
            for number in range(12):
                pusher.defer(f"c{number}", str(number), {})
        assert [names for names, _ in lost] == [["1"]]
        arrived = [one.body["name"] for one in api.calls if "name" in one.body]
        assert {*map(str, range(10))} == set(arrived)

    def test_where_nothing_is_known_at_the_address_the_rest_is_given_up(
        self, app: Flask, pusher: Pusher, api: Any, lost: list[Any]
    ) -> None:
        api.answer = lambda call: (404, "no such page")
        with app.app_context():
            for number in range(12):
                pusher.defer("a", str(number), {})
        assert [call.path.rpartition("/")[2] for call in api.calls] == ["batch_events", "events"]
        ((names, error),) = lost
        assert names == [str(number) for number in range(12)]
        assert "Are PUSHER_HOST, PUSHER_PATH and PUSHER_APP_ID right?" in str(error)

    def test_one_refusal_that_is_over_at_once_loses_nothing(
        self, app: Flask, pusher: Pusher, api: Any, lost: list[Any]
    ) -> None:
        api.answers.append((503, "later"))
        with app.app_context():
            pusher.defer("a", "one", {})
        assert [name for _, name, _ in api.events] == ["one", "one"]
        assert lost == []

    def test_two_thousand_events_leave_by_four_calls_at_a_time(
        self, app: Flask, pusher: Pusher, api: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        under_way: set[int] = set()
        most: list[int] = []
        are_four = threading.Event()

        def answer(call: Any) -> tuple[int, str]:
            under_way.add(id(call))
            most.append(len(under_way))
            if len(under_way) == SENDERS:
                are_four.set()
            are_four.wait(10)
            under_way.remove(id(call))
            return 200, "{}"

        api.answer = answer
        monkeypatch.setattr(room, "_publishers", {})
        with app.app_context():
            for number in range(2000):
                pusher.defer(f"c{number % 100}", str(number), {})
        assert len(api.events) == 2000
        assert (len(api.calls), max(most)) == (200, 4)

    def test_a_job_waits_a_second_where_nobody_answers_and_then_not_at_all(
        self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = make_app(pusher := Pusher(), PUSHER_PORT="1", PUSHER_TIMEOUT=90, **NOBODY)
        waited = []
        for _ in range(6):
            with app.app_context():
                pusher.defer("private-x", "one", {})
                started = time.monotonic()
            waited.append(time.monotonic() - started)
        monkeypatch.setattr(room, "EXIT_SECONDS_WITHOUT_ANSWER", 0)
        monkeypatch.setattr(room, "LAST_TRY_SECONDS", 0)
        publisher().flush()
        assert 0.9 < waited[0] < 60
        assert min(waited[1:]) < 0.9

    def test_a_job_waits_for_one_that_is_silent_until_the_loss_is_known(
        self, make_app: MakeApp, lost: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "GRACE_SECONDS", 30)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            app = make_app(pusher := Pusher(), PUSHER_PORT=port, PUSHER_TIMEOUT=0.2, **NOBODY)
            with app.app_context():
                pusher.defer("a", "one", {})
        assert [names for names, _ in lost] == [["one"]]

    def test_a_job_goes_on_when_nothing_was_settled_for_the_timeout(
        self, app: Flask, api: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "GRACE_SECONDS", 0)
        may_answer = threading.Event()
        app.config["PUSHER_TIMEOUT"] = 0.2
        api.answer = lambda call: (200 if may_answer.wait(90) else 500, "{}")
        pusher = Pusher(app)
        with app.app_context():
            pusher.defer("a", "one", {})
            started = time.monotonic()
        assert 0.1 < time.monotonic() - started < 60
        may_answer.set()
        publisher().flush()

    def test_an_asynchronous_backend_is_awaited(self, make_app: MakeApp) -> None:
        app = make_app(pusher := Pusher(), PUSHER_BACKEND=AsyncBackend)
        with app.app_context():
            pusher.defer("a", "one", {})
        assert app.extensions["pusher"].http.sent == ["one"]

    def test_a_request_inside_a_running_loop_awaits_an_asynchronous_backend_elsewhere(
        self, make_app: MakeApp
    ) -> None:
        pusher = Pusher()
        app = make_app(pusher, PUSHER_BACKEND=AsyncBackend, PUSHER_PUBLISHER="request")

        async def work() -> None:
            with app.app_context():
                pusher.defer("a", "one", {})

        asyncio.run(work())
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


class TestInTheThreadOfTheRequest:
    """``PUSHER_PUBLISHER="request"``."""

    @pytest.fixture(autouse=True)
    def pauses(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """The seconds that this thread slept, by a clock of which no more pass."""
        slept: list[float] = []
        here = threading.get_ident()

        def sleep(seconds: float) -> None:
            if threading.get_ident() == here:  # and not a publisher's, of another test
                slept.append(seconds)

        clock = SimpleNamespace(monotonic=lambda: 1000 + sum(slept), sleep=sleep)
        monkeypatch.setattr(room, "time", clock)
        return slept

    @pytest.fixture
    def publish(self, app: Flask, api: Any) -> Callable[[str], None]:
        app.config.update(PUSHER_PUBLISHER="request", PUSHER_TIMEOUT=2)
        pusher = Pusher(app)

        @app.get("/<names>")
        def view(names: str) -> str:
            for name in names.split("-"):
                pusher.defer(f"on-{name}", name, {})
            return ""

        return lambda names: app.test_client().get(f"/{names}").close()

    def test_it_is_patient_as_the_publisher_is(
        self, publish: Callable[[str], None], api: Any, lost: list[Any]
    ) -> None:
        api.answers += [(503, "later"), (429, "later")]
        publish("a-b")
        assert [name for _, name, _ in api.events] == ["a", "b"] * 3
        assert lost == []

    def test_it_sends_singly_what_a_bad_event_would_take_along(
        self, publish: Callable[[str], None], api: Any, lost: list[Any]
    ) -> None:
        def answer(call: Any) -> tuple[int, str]:
            names = [one["name"] for one in call.body.get("batch", [call.body])]
            return (500, "oh") if "bad" in names else (200, "{}")

        api.answer = answer
        publish("a-bad-b")
        assert [names for names, _ in lost] == [["bad"]]
        singly = [call.body["name"] for call in api.calls if "name" in call.body]
        assert {"a", "b"} <= set(singly)

    def test_it_goes_on_after_the_timeout_and_tells_what_is_lost(
        self,
        publish: Callable[[str], None],
        api: Any,
        lost: list[Any],
        pauses: list[float],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        api.answer = lambda call: (503, "later")
        publish("a-b")
        assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 0.5])
        assert [names for names, _ in lost] == [["a", "b"]]
        assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
        assert "until they are 2 seconds old" in caplog.messages[0]

    def test_it_tells_what_is_published(self, publish: Callable[[str], None], api: Any) -> None:
        told: list[Any] = []

        def receive(sender: Flask, events: list[RecordedEvent], tries: int, **_: Any) -> None:
            told.append(([event.name for event in events], tries))

        api.answers.append((503, "later"))
        with published.connected_to(receive):
            publish("a-b")
        assert told == [(["a", "b"], 2)]

    def test_what_breaks_it_off_is_raised_and_told(
        self,
        publish: Callable[[str], None],
        lost: list[Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        class Timeout(BaseException):
            """As gevent's is."""

        def fail(*_: Any) -> None:
            raise Timeout("30 seconds")

        monkeypatch.setattr(Backend, "send_request", fail)
        with pytest.raises(Timeout):
            publish("a-b")
        assert [(names, str(error)) for names, error in lost] == [(["a", "b"], "30 seconds")]


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
            for number in range(10):
                pusher.defer(f"c{number}", f"event-{number}", {"private": "matter"})
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert "'event-0' on c0, 'event-1' on c1" in record.message
        assert "'event-9' on c9. PusherForbidden: over quota" in record.message
        assert "matter" not in record.message
        ((sender, events, error),) = told
        assert sender is app
        assert events[0] == RecordedEvent(["c0"], "event-0", {"private": "matter"}, None)
        assert (len(events), type(error).__name__) == (10, "PusherForbidden")

    @pytest.mark.parametrize(
        ("way", "is_this"), [("thread", False), ("request", True), ("publish", True)]
    )
    def test_a_loss_is_told_in_the_publishers_thread_or_in_the_one_that_published(
        self, make_app: MakeApp, api: Any, way: str, is_this: bool
    ) -> None:
        told: list[int] = []

        def receive(sender: Flask, events: list[RecordedEvent], error: Exception) -> None:
            told.append(threading.get_ident())

        setting = "thread" if way == "publish" else way
        app = make_app(pusher := Pusher(), **api.config, PUSHER_PUBLISHER=setting)
        api.answers.append((413, "too large"))
        with publish_failed.connected_to(receive, app):
            with app.app_context():
                if way == "publish":
                    pusher.publish([{"name": "one", "data": "{}", "channels": ["a"]}])
                else:
                    pusher.defer("a", "one", {})
            api.until(lambda: bool(told))
        assert [ident == threading.get_ident() for ident in told] == [is_this]

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

    def test_whoever_waits_goes_on_when_it_is_logged_that_a_service_answers_again(
        self,
        app: Flask,
        pusher: Pusher,
        api: Any,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def take_a_while(record: logging.LogRecord) -> bool:
            time.sleep(0.2)
            return True

        caplog.set_level(logging.INFO)
        monkeypatch.setattr(app.logger, "filters", [take_a_while])
        api.answers.append((503, "later"))
        with app.app_context():
            pusher.defer("a", "one", {})
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        assert "answers again" in caplog.messages[1]

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

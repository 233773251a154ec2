"""Deferred events inside ``record_events()``: when they are in the list, and that none leaves."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, current_app, send_file, stream_with_context
from flask.testing import FlaskClient

from _flask_pusher.publisher import publisher
from flask_pusher import Pusher, RecordedEvent, local_server


@pytest.fixture
def pusher(app: Flask, api: Any) -> Pusher:
    return Pusher(app)


@pytest.fixture(autouse=True)
def sent(app: Flask, api: Any) -> Iterator[list[str]]:
    """The names of the events that are to have left the process after all."""
    sent: list[str] = []
    yield sent
    publisher().flush()
    assert [name for _, name, _ in api.events] == sent


def names(events: list[RecordedEvent]) -> list[str]:
    return [event.name for event in events]


def test_they_are_there_when_the_test_client_returns(
    app: Flask, pusher: Pusher, browser: FlaskClient
) -> None:
    @app.post("/<int:status>")
    def view(status: int) -> tuple[str, int]:
        pusher.defer(["a", "b"], "one", {"n": 1})
        pusher.defer("c", "two", {"n": 2}, "1.2")
        return "", status

    with app.app_context(), pusher.record_events() as events:
        browser.post("/500")
        assert events == []
        answer = browser.post("/200")
        assert events == [
            RecordedEvent(["a", "b"], "one", {"n": 1}, None),
            RecordedEvent(["c"], "two", {"n": 2}, "1.2"),
        ]
    answer.close()
    assert len(events) == 2


@pytest.mark.parametrize("end", ["read", "close"])
def test_those_of_a_stream_are_there_when_it_was_read_or_closed(
    app: Flask, pusher: Pusher, browser: FlaskClient, end: str
) -> None:
    @app.get("/")
    def view() -> Response:
        def body() -> Iterator[str]:
            pusher.defer("a", "streamed", {})
            yield "a"

        pusher.defer("a", "before", {})
        return Response(stream_with_context(body()))

    with app.app_context(), pusher.record_events() as events:
        answer = browser.get("/")
        assert names(events) == []
        if end == "read":
            assert answer.text == "a"
        else:
            answer.close()
        assert names(events) == ["before", "streamed"]
    answer.close()
    assert len(events) == 2


def test_a_stream_that_raises_records_nothing(
    app: Flask, pusher: Pusher, browser: FlaskClient
) -> None:
    @app.get("/")
    def view() -> Response:
        def body() -> Iterator[str]:
            yield "a"
            raise KeyError

        pusher.defer("a", "before", {})
        return Response(body())

    with app.app_context(), pusher.record_events() as events:
        answer = browser.get("/")
        with pytest.raises(KeyError):
            _ = answer.text
        answer.close()
    assert events == []


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("kind", ["text", "file", "stream"])
def test_a_response_that_is_closed_after_the_recording_sends_nothing(
    app: Flask, pusher: Pusher, browser: FlaskClient, kind: str, status: int
) -> None:
    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        pusher.defer("a", "teardown", {})

    @app.get("/")
    def view() -> Any:
        pusher.defer("a", "view", {})
        if kind == "file":
            return send_file(io.BytesIO(b"a file"), mimetype="text/plain"), status
        return Response(iter("stream")) if kind == "stream" else "text", status

    with app.app_context(), pusher.record_events() as events:
        answer = browser.get("/")
    expected = ["view", "teardown"] if status == 200 else []
    assert names(events) == expected
    answer.close()
    assert names(events) == expected


@pytest.mark.parametrize("fails", [False, True])
def test_those_of_a_context_are_there_when_it_ends(
    app: Flask, pusher: Pusher, fails: bool
) -> None:
    def work() -> None:
        with app.app_context():
            pusher.defer("a", "one", {})
            assert events == []
            if fails:
                raise KeyError

    with pusher.record_events() as events:
        if fails:
            with pytest.raises(KeyError):
                work()
        else:
            work()
        assert names(events) == ["one"] * (not fails)


def test_what_is_undecided_when_the_recording_ends_is_there_then(
    app: Flask, pusher: Pusher
) -> None:
    with app.app_context():
        with pusher.record_events() as events:
            pusher.defer("a", "one", {})
            assert events == []
        assert names(events) == ["one"]
    assert names(events) == ["one"]


def test_each_part_of_an_event_on_many_channels_is_there_then(app: Flask, pusher: Pusher) -> None:
    channels = [f"c{number}" for number in range(101)]
    with app.app_context(), pusher.record_events() as events:
        pusher.defer(channels, "one", {})
    assert [event.channels for event in events] == [channels[:100], channels[100:]]


def test_events_go_where_they_were_deferred(app: Flask, pusher: Pusher, sent: list[str]) -> None:
    with app.app_context():
        pusher.defer("a", "before", {})
        with pusher.record_events() as first:
            pusher.defer("a", "in the first", {})
        pusher.defer("a", "between", {})
        with pusher.record_events() as second:
            pusher.defer("a", "in the second", {})
    assert (names(first), names(second)) == (["in the first"], ["in the second"])
    sent += ["before", "between"]


def test_recordings_can_be_nested(app: Flask, pusher: Pusher) -> None:
    with pusher.record_events() as outer, app.app_context():
        pusher.defer("a", "one", {})
        with pusher.record_events() as inner:
            pusher.defer("a", "two", {})
        pusher.defer("a", "three", {})
    assert names(inner) == ["two"]
    assert names(outer) == ["one", "two", "three"]


def test_nothing_is_handed_over(app: Flask, pusher: Pusher, browser: FlaskClient) -> None:
    queued: list[Any] = []
    pusher.hand_over(queued.append)

    @app.get("/")
    def view() -> str:
        pusher.defer("a", "one", {})
        return ""

    with app.app_context(), pusher.record_events() as events:
        browser.get("/").close()
    assert (names(events), queued) == (["one"], [])


def test_an_event_is_handed_over_though_another_is_recorded(
    app: Flask, pusher: Pusher, browser: FlaskClient
) -> None:
    queued: list[Any] = []
    pusher.hand_over(queued.append)

    @app.get("/")
    def view() -> str:
        pusher.defer("a", "handed over", {})
        with pusher.record_events() as events:
            pusher.defer("a", "recorded", {})
        return " ".join(names(events))

    assert browser.get("/").text == "recorded"
    assert [call["name"] for (call,) in queued] == ["handed over"]


def test_what_a_queues_worker_publishes_is_recorded(
    app: Flask, pusher: Pusher, browser: FlaskClient
) -> None:
    queued: list[Any] = []
    pusher.hand_over(queued.append)
    with app.app_context():
        pusher.defer("a", "one", {})
    with app.app_context(), pusher.record_events() as events:
        pusher.publish(queued.pop())
    assert names(events) == ["one"]


class TestWhereOthersRecordedNothing:
    """What left before a recording, or before a test's server, is not theirs."""

    @pytest.fixture
    def app(self, app: Flask) -> Flask:
        app.add_url_rule("/<name>", view_func=self.view, methods=["POST"])
        return app

    @staticmethod
    def view(name: str) -> str:
        pusher = current_app.extensions["a pusher"]
        pusher.defer("a", name, {})
        pusher.trigger("a", f"{name} now", {}, wait=False)
        return ""

    @pytest.fixture
    def pusher(self, app: Flask, api: Any) -> Pusher:
        app.extensions["a pusher"] = pusher = Pusher(app)
        return pusher

    def test_a_test_that_records_has_only_its_own(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, sent: list[str]
    ) -> None:
        """The service is down, or slow: what two tests before have deferred waits for it."""
        may_answer = threading.Event()

        def answer(call: Any) -> tuple[int, str]:
            assert may_answer.wait(30)
            return 200, "{}"

        api.answer = answer
        for name in ("first", "second"):
            browser.post(f"/{name}").close()
        with app.app_context(), pusher.record_events() as events:
            browser.post("/third").close()
            may_answer.set()
            publisher().flush()
        assert sorted(names(events)) == ["third", "third now"]
        assert sorted(name for _, name, _ in api.events) == [
            "first",
            "first now",
            "second",
            "second now",
        ]
        sent += [name for _, name, _ in api.events]

    def test_a_tests_server_hears_nothing_of_before(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, sent: list[str]
    ) -> None:
        may_answer = threading.Event()

        def answer(call: Any) -> tuple[int, str]:
            assert may_answer.wait(30)
            return 200, "{}"

        api.answer = answer
        browser.post("/first").close()
        with local_server(app):
            browser.post("/second").close()
            may_answer.set()
            publisher().flush()
        assert sorted(name for _, name, _ in api.events) == ["first", "first now"]
        sent += ["first now", "first"]

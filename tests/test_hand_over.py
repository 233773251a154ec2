"""The hand-over: what a task queue is given, and what its worker publishes."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response, stream_with_context

from _flask_pusher import desk
from _flask_pusher.publisher import SENDERS, publisher
from flask_pusher import NoAnswer, Pusher, PusherError

if TYPE_CHECKING:
    from tests.conftest import MakeApp


@pytest.fixture
def pusher(app: Flask, api: Any) -> Pusher:
    app.config["PUSHER_ENCRYPTION_MASTER_KEY_BASE64"] = "A" * 43 + "="
    return Pusher(app)


@pytest.fixture
def queued(pusher: Pusher) -> list[str]:
    """What was handed over, as a queue carries it."""
    queued: list[str] = []

    @pusher.hand_over
    def enqueue(calls: list[dict[str, Any]]) -> None:
        assert pusher.client.key == "a-key"
        queued.append(json.dumps(calls))

    return queued


def test_it_has_the_events_before_the_response_leaves(
    app: Flask, pusher: Pusher, api: Any, queued: list[str]
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
    app: Flask, pusher: Pusher, queued: list[str]
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
    app: Flask, pusher: Pusher, api: Any, queued: list[str]
) -> None:
    with app.app_context():
        pusher.defer("a", "one", {})
        assert queued == []
    assert [call["name"] for call in json.loads(queued[0])] == ["one"]
    assert api.calls == []


def test_where_it_raises_the_publisher_takes_the_events(
    app: Flask, pusher: Pusher, api: Any, caplog: pytest.LogCaptureFixture
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
    assert "@pusher.hand_over raised: the publisher takes the events" in caplog.text
    assert "no broker" in caplog.text


def test_where_it_is_broken_off_the_publisher_takes_the_events(
    app: Flask, pusher: Pusher, api: Any
) -> None:
    @pusher.hand_over
    def enqueue(calls: list[dict[str, Any]]) -> None:
        raise SystemExit

    with pytest.raises(SystemExit), app.app_context():
        pusher.defer("a", "one", {"n": 1})
    assert api.events == [("a", "one", {"n": 1})]


def test_where_it_is_broken_off_for_a_response_that_was_dropped_no_sender_ends(
    app: Flask, pusher: Pusher, api: Any, capfd: pytest.CaptureFixture[str]
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
    app: Flask, pusher: Pusher, api: Any
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


def test_it_may_be_a_coroutine_function(app: Flask, pusher: Pusher, api: Any) -> None:
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
    app: Flask, pusher: Pusher, api: Any, queued: list[str]
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


def test_the_worker_publishes_more_than_the_publishers_queue_would_take(
    app: Flask, pusher: Pusher, api: Any, queued: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "QUEUE_BYTES", 10_000)
    with app.app_context():
        for number in range(50):
            pusher.defer("a", str(number), {})
    with app.app_context():
        pusher.publish(json.loads(queued[0]))
    assert [name for _, name, _ in api.events] == [str(number) for number in range(50)]


def test_a_worker_that_is_given_no_event_publishes_none(
    app: Flask, pusher: Pusher, api: Any
) -> None:
    with app.app_context():
        pusher.publish([])
    assert api.calls == []


def test_the_worker_is_told_of_a_refusal_and_raises_none(
    app: Flask, pusher: Pusher, api: Any, queued: list[str], lost: list[Any]
) -> None:
    with app.app_context():
        pusher.defer("a", "one", {})
    api.answers.append((413, "too large"))
    with app.app_context():
        pusher.publish(json.loads(queued[0]))
    assert [names for names, _ in lost] == [["one"]]


@pytest.mark.parametrize("key", [None, "B" * 42 + "A="])
def test_a_worker_with_another_key_or_none_is_told_of_encrypted_events_as_they_are(
    app: Flask,
    pusher: Pusher,
    make_app: MakeApp,
    api: Any,
    queued: list[str],
    lost: list[Any],
    key: str | None,
) -> None:
    with app.app_context():
        pusher.defer("a", "one", {"n": 1})
        pusher.defer("private-encrypted-a", "two", "secret")
    calls = json.loads(queued[0])
    settings = {**api.config, "PUSHER_ENCRYPTION_MASTER_KEY_BASE64": key}
    worker = make_app(there := Pusher(), **settings)
    api.answers += [(400, "no")] * 3
    with worker.app_context():
        there.publish(calls)
        with there.record_events() as events:
            there.publish(calls)
    assert [names for names, _ in lost] == [["one", "two"]]
    assert events[1].data == json.loads(calls[1]["data"])


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_the_worker_raises_what_a_retry_can_mend(
    app: Flask, pusher: Pusher, api: Any, queued: list[str], lost: list[Any], status: int
) -> None:
    with app.app_context():
        pusher.defer("a", "one", {})
    api.answers.append((status, "later"))
    with app.app_context(), pytest.raises(PusherError, match="later"):
        pusher.publish(json.loads(queued[0]))
    assert lost == []


def test_the_worker_raises_a_timeout_too(
    app: Flask, pusher: Pusher, make_app: MakeApp, api: Any, queued: list[str], lost: list[Any]
) -> None:
    with app.app_context():
        pusher.defer("a", "one", {})
    worker = make_app(there := Pusher(), **{**api.config, "PUSHER_TIMEOUT": 0.1})
    is_over = threading.Event()
    api.answer = lambda call: (200, "{}" * is_over.wait(30))
    with worker.app_context(), pytest.raises(NoAnswer) as raised:
        there.publish(json.loads(queued[0]))
    is_over.set()
    assert raised.value.timed_out
    assert lost == []


@pytest.mark.parametrize(
    "calls",
    [
        *(None, {}, "calls", ["a"], [{}]),
        [{"name": "a", "data": "b", "channels": []}],
        [{"name": "a", "data": "b", "channels": "news"}],
        [{"name": "a", "data": "b", "channels": [1]}],
        [{"name": "a", "data": {"b": 1}, "channels": ["news"]}],
        [{"name": 1, "data": "b", "channels": ["news"]}],
    ],
)
def test_what_was_not_handed_over_is_refused(
    app: Flask, pusher: Pusher, api: Any, calls: Any
) -> None:
    with app.app_context(), pytest.raises(ValueError, match="takes the list of dicts"):
        pusher.publish(calls)
    assert api.calls == []

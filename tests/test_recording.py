"""Recording events, for an application's own tests."""

from __future__ import annotations

import asyncio
import base64
import copy
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

from flask_pusher import Client, NoAnswer, Pusher, RecordedEvent

if TYPE_CHECKING:
    from tests.conftest import MakeApp

MASTER_KEY = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
CHANNELS: dict[str, Any] = {
    "news": 3,
    "empty": 0,
    "presence-room": ["ana", 7],
    "presence-counted": 2,
}
INFO = ["user_count", "subscription_count"]


@pytest.fixture
def pusher(app: Flask, api: Any) -> Pusher:
    app.config["PUSHER_ENCRYPTION_MASTER_KEY_BASE64"] = MASTER_KEY
    return Pusher(app)


@pytest.fixture
def client(app: Flask, pusher: Pusher) -> Client:
    client: Client = app.extensions["pusher"]
    return client


def test_every_kind_of_event_is_listed_in_order(
    app: Flask, pusher: Pusher, client: Client, api: Any
) -> None:
    with app.app_context(), pusher.record_events() as events:
        client.trigger(["a", "b"], "one", {"n": 1}, "1.2")
        client.trigger_batch(
            [
                {"channel": "c", "name": "two", "data": [2]},
                {"channel": "d", "name": "three", "data": 3, "socket_id": "3.4"},
            ]
        )
        client.send_to_user("ana", "four", "text")
    assert events == [
        RecordedEvent(["a", "b"], "one", {"n": 1}, "1.2"),
        RecordedEvent(["c"], "two", [2], None),
        RecordedEvent(["d"], "three", 3, "3.4"),
        RecordedEvent(["#server-to-user-ana"], "four", "text", None),
    ]
    assert events[0].channels == ["a", "b"]
    assert (events[0].name, events[0].data, events[0].socket_id) == ("one", {"n": 1}, "1.2")
    assert api.calls == []


@pytest.mark.parametrize(
    ("published", "seen"),
    [
        ({"a": [1, None, True]}, {"a": [1, None, True]}),
        (None, None),
        ("text", "text"),
        ("", ""),
        ('{"is": "JSON"}', {"is": "JSON"}),
        ("NaN", "NaN"),
        ("[1, Infinity]", "[1, Infinity]"),
        ("é", "é"),
    ],
)
@pytest.mark.parametrize("channel", ["private-x", "private-encrypted-x"])
def test_data_is_as_the_browser_sees_it(
    app: Flask, pusher: Pusher, client: Client, channel: str, published: Any, seen: Any
) -> None:
    with app.app_context(), pusher.record_events() as events:
        client.trigger(channel, "flash", published)
        client.trigger_batch([{"channel": channel, "name": "flash", "data": published}])
    assert [event.data for event in events] == [seen, seen]


def test_what_is_refused_for_real_is_refused(app: Flask, pusher: Pusher, client: Client) -> None:
    with app.app_context(), pusher.record_events() as events:
        with pytest.raises(ValueError, match="A channel's name has"):
            client.trigger("a b", "flash", {})
        with pytest.raises(TypeError, match="not JSON serializable"):
            client.trigger("a", "flash", object())
        with pytest.raises(ValueError, match="has 10241 bytes in UTF-8"):
            client.trigger("a", "flash", "x" * 10241)
        with pytest.raises(ValueError, match="A user's id is"):
            client.send_to_user("a b", "flash", {})
        with pytest.raises(ValueError, match="A channel's name has"):
            client.trigger_batch([{"channel": "a b", "name": "flash", "data": {}}])
    assert events == []


def test_the_state_is_that_of_an_empty_app(
    app: Flask, pusher: Pusher, client: Client, api: Any
) -> None:
    with app.app_context(), pusher.record_events() as events:
        assert client.channels_info() == {"channels": {}}
        assert client.channels_info("presence-", ["user_count"]) == {"channels": {}}
        assert client.channel_info("events") == {"occupied": False}
        assert client.channel_info("presence-x", INFO) == {
            "occupied": False,
            "user_count": 0,
            "subscription_count": 0,
        }
        assert client.users_info("presence-x") == {"users": []}
        assert client.terminate_user_connections("ana") == {}
        assert client.trigger("a", "b", {}) == {}
    assert len(events) == 1
    assert api.calls == []


def test_questions_are_answered_by_the_channels_that_a_test_names(
    app: Flask, pusher: Pusher, client: Client
) -> None:
    with app.app_context(), pusher.record_events(channels=CHANNELS):
        assert client.channel_info("news", INFO) == {"occupied": True, "subscription_count": 3}
        assert client.channel_info("news") == {"occupied": True}
        assert client.channel_info("empty", INFO) == {"occupied": False, "subscription_count": 0}
        assert client.channel_info("presence-room", INFO) == {
            "occupied": True,
            "user_count": 2,
            "subscription_count": 2,
        }
        assert client.users_info("presence-room") == {"users": [{"id": "ana"}, {"id": "7"}]}
        assert client.users_info("presence-counted") == {"users": []}
        assert client.channels_info("presence-", ["user_count"]) == {
            "channels": {"presence-room": {"user_count": 2}, "presence-counted": {"user_count": 2}}
        }
        assert "empty" not in client.channels_info()["channels"]
        assert "news" in client.channels_info()["channels"]


def test_what_is_asked_with_an_event_is_answered(
    app: Flask, pusher: Pusher, client: Client
) -> None:
    with app.app_context(), pusher.record_events(channels=CHANNELS) as events:
        assert client.trigger(["presence-room", "news", "none"], "flash", {}, info=INFO) == {
            "channels": {
                "presence-room": {"user_count": 2, "subscription_count": 2},
                "news": {"subscription_count": 3},
                "none": {"subscription_count": 0},
            }
        }
        batch: list[dict[str, Any]] = [
            {"channel": name, "name": "flash", "data": {}} for name in ("news", "none")
        ]
        assert client.trigger_batch([{**batch[0], "info": "subscription_count"}, batch[1]]) == {
            "batch": [{"subscription_count": 3}, {}]
        }
        assert client.trigger_batch(batch) == {}
    assert len(events) == 5


def test_inner_recordings_answer_before_outer_ones(
    app: Flask, pusher: Pusher, client: Client
) -> None:
    with app.app_context(), pusher.record_events(channels={"a": 1, "b": 1}):
        with pusher.record_events(channels={"a": 2}):
            found = [client.channel_info(name, INFO)["subscription_count"] for name in "ab"]
        assert found == [2, 1]
        assert client.channel_info("a", INFO)["subscription_count"] == 1


@pytest.mark.usefixtures("no_collection")
def test_an_event_that_is_too_deep_to_decode_is_recorded_as_text(
    app: Flask, pusher: Pusher, client: Client
) -> None:
    with app.app_context(), pusher.record_events() as events:
        client.trigger("news", "flash", "[" * 5000)
    assert events[0].data == "[" * 5000


def test_what_only_looks_encrypted_is_recorded_as_it_is(
    app: Flask, pusher: Pusher, client: Client
) -> None:
    event = {"channel": "private-encrypted-x", "name": "flash", "data": "sealed elsewhere"}
    with app.app_context(), pusher.record_events() as events:
        client.trigger_batch([event], already_encoded=True)
    assert events[0].data == "sealed elsewhere"


def test_more_than_a_call_takes_is_recorded_as_it_would_be_sent(
    app: Flask, pusher: Pusher, client: Client
) -> None:
    names = [f"room-{number}" for number in range(101)]
    with app.app_context(), pusher.record_events() as events:
        client.trigger(names, "flash", {})
    assert [event.channels for event in events] == [names[:100], names[100:]]


def test_an_application_below_a_path_is_recorded(make_app: MakeApp) -> None:
    app = make_app(pusher := Pusher(), PUSHER_PATH="/channels")
    with app.app_context(), pusher.record_events(channels={"a": 1}) as events:
        pusher.trigger("a", "one", {})
        assert pusher.client.channel_info("a") == {"occupied": True}
    assert [event.name for event in events] == ["one"]


def test_recordings_can_be_nested(app: Flask, pusher: Pusher, client: Client, api: Any) -> None:
    with app.app_context(), pusher.record_events() as outer:
        client.trigger("a", "one", {})
        with pusher.record_events() as inner:
            client.trigger("a", "two", {})
        client.trigger("a", "three", {})
    client.trigger("a", "four", {})
    assert [event.name for event in outer] == ["one", "two", "three"]
    assert [event.name for event in inner] == ["two"]
    assert [call.body["name"] for call in api.calls] == ["four"]


def test_recordings_may_end_in_any_order(app: Flask, pusher: Pusher, client: Client) -> None:
    first, second = pusher.record_events(), pusher.record_events()
    with app.app_context():
        outer, inner = first.__enter__(), second.__enter__()
        first.__exit__(None, None, None)
        client.trigger("a", "one", {})
        second.__exit__(None, None, None)
    assert (outer, [event.name for event in inner]) == ([], ["one"])


def test_an_exception_ends_a_recording(
    app: Flask, pusher: Pusher, client: Client, api: Any
) -> None:
    backend = client.http
    with app.app_context(), pytest.raises(KeyError), pusher.record_events():
        raise KeyError
    client.trigger("a", "one", {})
    assert len(api.calls) == 1
    assert client.http is backend


def test_all_threads_of_the_application_are_recorded(
    app: Flask, pusher: Pusher, client: Client, api: Any
) -> None:
    with app.app_context(), pusher.record_events() as events:
        threads = [
            threading.Thread(target=client.trigger, args=("a", f"event-{number}", {}))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(event.name for event in events) == [f"event-{number}" for number in range(8)]
    assert api.calls == []


def test_other_applications_of_the_extension_publish_for_real(
    app: Flask, pusher: Pusher, client: Client, api: Any, make_app: MakeApp
) -> None:
    other = make_app(pusher, **api.config).extensions["pusher"]
    with app.app_context(), pusher.record_events() as events:
        other.trigger("a", "real", {})
        client.trigger("a", "recorded", {})
    assert [event.name for event in events] == ["recorded"]
    assert [call.body["name"] for call in api.calls] == ["real"]


def test_without_a_context_all_applications_are_recorded(
    app: Flask, pusher: Pusher, client: Client, api: Any, make_app: MakeApp
) -> None:
    other = make_app(pusher, **api.config).extensions["pusher"]
    with pusher.record_events() as events:
        other.trigger("a", "one", {})
        client.trigger("a", "two", {})
    assert [event.name for event in events] == ["one", "two"]
    assert api.calls == []


def test_an_application_without_the_extension_cannot_record(pusher: Pusher) -> None:
    recording = pusher.record_events()
    with Flask("bare").app_context(), pytest.raises(RuntimeError, match="has no Pusher"):
        recording.__enter__()


class AsyncBackend:
    """An HTTP adapter whose answers are awaited, as the client's for aiohttp is."""

    def __init__(self, client: Any) -> None: ...

    async def send_request(self, request: Any) -> Any:
        raise AssertionError("nothing leaves the process")


def test_an_answer_that_is_awaited_for_real_is_awaited(make_app: MakeApp) -> None:
    app = make_app(pusher := Pusher(), PUSHER_BACKEND=AsyncBackend)
    client = app.extensions["pusher"]
    with app.app_context(), pusher.record_events() as events:
        assert asyncio.run(client.trigger("a", "one", {})) == {}
        assert asyncio.run(client.channels_info()) == {"channels": {}}
    assert [event.name for event in events] == ["one"]


@pytest.mark.parametrize("is_in_context", [True, False])
def test_a_client_of_ones_own_is_recorded_too(
    app: Flask, pusher: Pusher, is_in_context: bool
) -> None:
    key = base64.b64encode(b"another-key-of-32-bytes-in-all..").decode()
    nobody: dict[str, Any] = {"host": "127.0.0.1", "port": 1, "ssl": False}
    tenant = Client("2", "b-key", "b-secret", encryption_master_key_base64=key, **nobody)
    context = app.app_context() if is_in_context else nullcontext()
    with context, pusher.record_events(CHANNELS) as events:
        tenant.trigger("private-encrypted-a", "flash", {"n": 1})
        copy.deepcopy(tenant).trigger("news", "flash", "text")
        answer = tenant.channel_info("news", ["subscription_count"])
    assert [event[:3] for event in events] == [
        (["private-encrypted-a"], "flash", {"n": 1}),
        (["news"], "flash", "text"),
    ]
    assert answer["subscription_count"] == 3
    with pytest.raises(NoAnswer):
        tenant.trigger("news", "flash", "text")

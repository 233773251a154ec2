"""Sizes, and what is more than one call takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from pusher.errors import PusherBadStatus

from _flask_pusher.transport import complete
from flask_pusher import Client, Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp


@pytest.fixture
def pusher(encrypting: Pusher) -> Pusher:
    return encrypting


# -- Sizes ----------------------------------------------------------------------------------------

Publish = Callable[[Any, str, Any], Any]


def by_trigger(pusher: Any, channel: str, data: Any) -> Any:
    return pusher.client.trigger(channel, "flash", data)


def by_batch(pusher: Any, channel: str, data: Any) -> Any:
    return pusher.client.trigger_batch([{"channel": channel, "name": "flash", "data": data}])


def by_encoded_batch(pusher: Any, channel: str, data: Any) -> Any:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    batch = [{"channel": channel, "name": "flash", "data": text}]
    return pusher.client.trigger_batch(batch, already_encoded=True)


def while_recording(pusher: Any, channel: str, data: Any) -> Any:
    with pusher.record_events():
        return pusher.client.trigger(channel, "flash", data)


def by_deferring(pusher: Any, channel: str, data: Any) -> Any:
    return pusher.defer(channel, "flash", data)


TAKEN = [
    "a" * 10240,
    "a" * 7690 + "🦄",
    "ü" * 5120,
    "a" * 10236 + "🦄",
    {"t": "ü" * 5115 + "a"},  # which has nine characters round it
]
REFUSED = ["a" * 10241, "a" * 30_000, "ü" * 5121, "a" * 10237 + "🦄", {"t": "ü" * 5116}]


@pytest.mark.parametrize(
    "publish", [by_trigger, by_batch, by_encoded_batch, while_recording, by_deferring]
)
class TestSizes:
    @pytest.mark.parametrize("data", TAKEN)
    def test_10240_bytes_in_utf_8_are_taken(
        self, app: Flask, pusher: Pusher, publish: Publish, data: Any
    ) -> None:
        with app.app_context():
            publish(pusher, "news", data)

    @pytest.mark.parametrize("data", REFUSED)
    def test_one_more_is_refused_before_anything_is_sent(
        self, app: Flask, pusher: Pusher, api: Any, publish: Publish, data: Any
    ) -> None:
        told = r"The data of the event 'flash' has [0-9]+ bytes in UTF-8\. At most 10240 are taken"
        with app.app_context(), pytest.raises(ValueError, match=told):
            publish(pusher, "news", data)
        assert api.calls == []

    @pytest.mark.parametrize("data", REFUSED)
    def test_none_leaves_them_to_the_server(
        self, make_app: MakeApp, api: Any, publish: Publish, data: Any
    ) -> None:
        app = make_app(pusher := Pusher(), PUSHER_MAX_EVENT_BYTES=None, **api.config)
        with app.app_context():
            publish(pusher, "news", data)

    def test_another_limit_holds(self, make_app: MakeApp, api: Any, publish: Publish) -> None:
        app = make_app(pusher := Pusher(), PUSHER_MAX_EVENT_BYTES="100", **api.config)
        with app.app_context():
            publish(pusher, "news", "a" * 100)
            with pytest.raises(ValueError, match=r"has 101 bytes in UTF-8\. At most 100 are"):
                publish(pusher, "news", "a" * 101)


@pytest.mark.parametrize("publish", [by_trigger, by_batch, while_recording, by_deferring])
def test_encrypted_data_takes_a_third_more(app: Flask, pusher: Pusher, publish: Publish) -> None:
    with app.app_context():
        publish(pusher, "private-encrypted-x", "a" * 7500)
        with pytest.raises(ValueError, match="At most 10240 are taken"):
            publish(pusher, "private-encrypted-x", "a" * 7680)


# -- Splitting ------------------------------------------------------------------------------------


class TestSplitting:
    @pytest.fixture
    def client(self, make_app: MakeApp, api: Any, backend: Any) -> Client:
        app = make_app(Pusher(), PUSHER_BACKEND=backend, **api.config)
        client: Client = app.extensions["pusher"]
        return client

    @pytest.mark.parametrize(
        ("count", "sizes"), [(100, [100]), (101, [100, 1]), (250, [100, 100, 50])]
    )
    def test_more_than_100_channels_are_several_calls_in_order(
        self, client: Client, api: Any, count: int, sizes: list[int]
    ) -> None:
        names = [f"room-{number}" for number in range(count)]
        api.answer = lambda call: (
            200,
            json.dumps(
                {
                    "ok": True,
                    "channels": {
                        name: {"subscription_count": int(name[5:])}
                        for name in call.body["channels"]
                    },
                }
            ),
        )
        answer = complete(client.trigger(names, "flash", {"n": 1}, "1.2", ["subscription_count"]))
        assert [len(call.body["channels"]) for call in api.calls] == sizes
        assert [name for call in api.calls for name in call.body["channels"]] == names
        assert {call.body["info"] for call in api.calls} == {"subscription_count"}
        assert {call.body["socket_id"] for call in api.calls} == {"1.2"}
        assert answer == {
            "ok": True,
            "channels": {name: {"subscription_count": int(name[5:])} for name in names},
        }

    @pytest.mark.parametrize(("count", "sizes"), [(10, [10]), (11, [10, 1]), (25, [10, 10, 5])])
    def test_more_than_10_events_are_several_calls_in_order(
        self, client: Client, api: Any, count: int, sizes: list[int]
    ) -> None:
        batch = [
            {"channel": f"room-{number}", "name": "flash", "data": number}
            for number in range(count)
        ]
        api.answer = lambda call: (200, '{"ok": true}')
        assert complete(client.trigger_batch(iter(batch))) == {"ok": True}
        assert [len(call.body["batch"]) for call in api.calls] == sizes
        assert api.events == [(f"room-{n}", "flash", n) for n in range(count)]

    def test_the_answer_to_several_batches_has_an_entry_for_each_event(
        self, client: Client, api: Any
    ) -> None:
        def answer(call: Any) -> tuple[int, str]:
            counted = [event for event in call.body["batch"] if "info" in event]
            entries = [
                {"subscription_count": int(event["channel"][5:])} if "info" in event else {}
                for event in call.body["batch"]
            ]
            return 200, json.dumps({"batch": entries} if counted else {})

        api.answer = answer
        batch: list[dict[str, Any]] = [
            {"channel": f"room-{number}", "name": "flash", "data": {}} for number in range(23)
        ]
        for number in (3, 21):
            batch[number]["info"] = ["subscription_count"]
        entries = complete(client.trigger_batch(batch))["batch"]
        assert entries == [
            {"subscription_count": number} if number in (3, 21) else {} for number in range(23)
        ]

    def test_a_refusal_ends_it(self, client: Client, api: Any) -> None:
        api.answers += [(200, "{}"), (413, "too large")]
        names = [f"room-{number}" for number in range(250)]
        with pytest.raises(PusherBadStatus, match="413: too large"):
            complete(client.trigger(names, "flash", {}))
        assert len(api.calls) == 2

    def test_no_events_are_one_call_as_with_the_official_client(
        self, client: Client, api: Any
    ) -> None:
        complete(client.trigger_batch([]))
        assert [call.body for call in api.calls] == [{"batch": []}]

    def test_a_channel_that_is_named_twice_gets_the_event_once(
        self, client: Client, api: Any
    ) -> None:
        complete(client.trigger(["a", "b", "a"], "flash", {}))
        assert api.calls[0].body["channels"] == ["a", "b"]

    def test_encrypted_channels_are_not_split(self, client: Client, api: Any) -> None:
        with pytest.raises(ValueError, match="must be an event's only one; here are 2: trigger"):
            client.trigger(["news", "private-encrypted-x"], "flash", {})
        assert api.calls == []

    def test_a_running_loop_can_await_every_method(
        self, client: Client, api: Any, backend: Any
    ) -> None:
        async def ask() -> list[Any]:
            answers = [
                client.trigger("news", "one", {}),
                client.trigger_batch([{"channel": "news", "name": "two", "data": {}}]),
                client.send_to_user("7", "three", {}),
                client.terminate_user_connections("7"),
                client.channels_info(),
                client.channel_info("news"),
                client.users_info("presence-x"),
            ]
            return [await one if backend else one for one in answers]

        api.answer = lambda call: (200, json.dumps({"path": call.path}))
        assert [answer["path"].removeprefix("/apps/1/") for answer in asyncio.run(ask())] == [
            "events",
            "batch_events",
            "events",
            "users/7/terminate_connections",
            "channels",
            "channels/news",
            "channels/presence-x/users",
        ]

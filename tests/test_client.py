"""The client: what it publishes and asks, and what it says of arguments that cannot be."""

from __future__ import annotations

import asyncio
import base64
import copy
import enum
import json
import pickle
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider, JSONProvider
from flask.testing import FlaskClient
from nacl.secret import SecretBox
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus, PusherForbidden

from _flask_pusher.transport import complete
from flask_pusher import Client, NoAnswer, Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

Sign = Callable[[str], str]
MASTER_KEY = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@pytest.fixture
def pusher(app: Flask, api: Any) -> Pusher:
    app.config["PUSHER_ENCRYPTION_MASTER_KEY_BASE64"] = MASTER_KEY
    return Pusher(app)


@pytest.fixture
def client(app: Flask, pusher: Pusher) -> Client:
    client: Client = app.extensions["pusher"]
    return client


class TestTrigger:
    def test_it_publishes_on_one_channel(self, client: Client, api: Any) -> None:
        assert client.trigger("news", "flash", {"a": 1}, "1.2") == {}
        (call,) = api.calls
        assert (call.method, call.path) == ("POST", "/apps/1/events")
        assert call.body == {
            "name": "flash",
            "channels": ["news"],
            "data": '{"a": 1}',
            "socket_id": "1.2",
        }

    @pytest.mark.parametrize("channels", [["a", "b"], ("a", "b"), {"a": 1, "b": 2}.keys()])
    def test_it_publishes_on_many_channels(self, client: Client, api: Any, channels: Any) -> None:
        client.trigger(channels, "flash", None)
        assert api.calls[0].body["channels"] == ["a", "b"]

    def test_a_generator_of_channels_is_a_list_of_channels(self, client: Client, api: Any) -> None:
        client.trigger((f"room-{number}" for number in range(2)), "flash", None)
        assert api.calls[0].body["channels"] == ["room-0", "room-1"]

    def test_text_is_sent_as_it_is(self, client: Client, api: Any) -> None:
        client.trigger("news", "flash", "not JSON")
        assert api.calls[0].body["data"] == "not JSON"

    @pytest.mark.parametrize(
        ("channels", "error"),
        [
            ([], ValueError),
            ("", ValueError),
            ("a b", ValueError),
            ("private-" + "x" * 193, ValueError),
            ("#server-to-user-", ValueError),
            (["a", 5], TypeError),
            (b"\xff", ValueError),
            ({"a": 1}, TypeError),
            (5, TypeError),
            (None, TypeError),
        ],
    )
    def test_channels_that_are_none_are_refused(
        self, client: Client, api: Any, channels: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            client.trigger(channels, "flash", {})
        assert api.calls == []

    def test_a_refusal_of_the_server_is_raised(self, client: Client, api: Any) -> None:
        api.answers.append((400, "no such thing"))
        with pytest.raises(PusherBadRequest, match="no such thing"):
            client.trigger("news", "flash", {})


class TestTriggerBatch:
    def test_it_publishes_several_events(self, client: Client, api: Any) -> None:
        client.trigger_batch(
            [
                {"channel": "a", "name": "one", "data": {"n": 1}},
                {"channel": "b", "name": "two", "data": {"n": 2}, "socket_id": "1.2"},
            ]
        )
        assert api.calls[0].path == "/apps/1/batch_events"
        assert api.events == [("a", "one", {"n": 1}), ("b", "two", {"n": 2})]
        assert api.calls[0].body["batch"][1]["socket_id"] == "1.2"

    def test_the_batch_that_was_passed_stays_as_it_was(self, client: Client, api: Any) -> None:
        batch = [{"channel": "private-encrypted-a", "name": "one", "data": {"n": 1}}]
        client.trigger_batch(batch)
        assert batch == [{"channel": "private-encrypted-a", "name": "one", "data": {"n": 1}}]

    def test_data_that_is_encoded_already_is_left_alone(self, client: Client, api: Any) -> None:
        batch = [{"channel": "a", "name": "one", "data": "as is"}]
        client.trigger_batch(batch, already_encoded=True)
        assert api.calls[0].body["batch"][0]["data"] == "as is"


class TestMended:
    def test_the_connections_of_a_user_are_terminated_at_the_apps_path(
        self, client: Client, api: Any
    ) -> None:
        client.terminate_user_connections("ana@example")
        assert api.calls[0].method == "POST"
        assert api.calls[0].path == "/apps/1/users/ana@example/terminate_connections"

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            (400, PusherBadRequest),
            (401, PusherBadAuth),
            (403, PusherForbidden),
            (404, PusherBadStatus),
            (413, PusherBadStatus),
        ],
    )
    @pytest.mark.parametrize("is_soketi", [False, True])
    def test_each_refusal_has_its_exception(
        self, client: Client, api: Any, code: int, error: type[Exception], is_soketi: bool
    ) -> None:
        body = json.dumps({"error": "refused", "code": code})
        api.answers.append((200 if is_soketi else code, body))
        with pytest.raises(error, match="refused"):
            client.trigger("news", "flash", {})

    @pytest.mark.parametrize("user_id", [7, Decimal(7), "7", uuid.UUID(int=7)])
    def test_a_users_id_may_be_a_number(self, client: Client, api: Any, user_id: Any) -> None:
        client.send_to_user(user_id, "hello", {"n": 1})
        client.terminate_user_connections(user_id)
        assert api.calls[0].body["channels"] == [f"#server-to-user-{user_id}"]
        assert api.calls[1].path == f"/apps/1/users/{user_id}/terminate_connections"

    @pytest.mark.parametrize(
        "user_id",
        ["a/b", "", "x" * 185, None, True, ["7"], float("nan"), Decimal("-inf")],
    )
    def test_a_user_that_cannot_be_is_refused(
        self, client: Client, api: Any, user_id: Any
    ) -> None:
        with pytest.raises(ValueError, match="A user's id is a number, or text of 1 to 184"):
            client.terminate_user_connections(user_id)
        with pytest.raises(ValueError, match="A user's id is a number, or text of 1 to 184"):
            client.send_to_user(user_id, "hello", {})
        assert api.calls == []

    def test_a_shared_secret_is_text_and_opens_what_was_published(
        self, client: Client, api: Any
    ) -> None:
        answer = client.authenticate("private-encrypted-x", "1.2")
        box = SecretBox(base64.b64decode(json.loads(json.dumps(answer))["shared_secret"]))
        client.trigger("private-encrypted-x", "flash", {"a": 1})
        sealed = json.loads(api.calls[0].body["data"])
        opened = box.decrypt(
            base64.b64decode(sealed["ciphertext"]), base64.b64decode(sealed["nonce"])
        )
        assert json.loads(opened) == {"a": 1}


class TestAuthenticate:
    def test_a_private_channel_is_signed(self, client: Client, sign: Sign) -> None:
        answer = client.authenticate("private-x", "1.2")
        assert answer == {"auth": f"a-key:{sign('1.2:private-x')}"}

    def test_a_presence_channel_is_signed_with_its_data(self, client: Client, sign: Sign) -> None:
        answer = client.authenticate("presence-x", "1.2", {"user_id": "7"})
        assert json.loads(answer["channel_data"]) == {"user_id": "7"}
        signature = sign(f"1.2:presence-x:{answer['channel_data']}")
        assert answer["auth"] == f"a-key:{signature}"

    @pytest.mark.parametrize(
        ("channel", "socket_id", "named"),
        [
            ("a b", "1.2", "A channel's name has 1 to 200 .*'a b'"),
            ("#server-to-user-7", "1.2", "valid channel"),
            ("private-x", "1", "A socket id is two numbers .*'1'"),
            ("private-x", "\u0661.\u0662", "A socket id"),
            ("private-x", "1." + "2" * 21, "at most 20 digits"),
        ],
    )
    def test_what_is_no_channel_or_socket_id_is_refused(
        self, client: Client, channel: str, socket_id: str, named: str
    ) -> None:
        with pytest.raises(ValueError, match=named):
            client.authenticate(channel, socket_id)

    def test_an_encrypted_channel_needs_a_master_key(self, make_app: MakeApp) -> None:
        client = make_app(Pusher()).extensions["pusher"]
        with pytest.raises(ValueError, match="needs PUSHER_ENCRYPTION_MASTER_KEY_BASE64"):
            client.authenticate("private-encrypted-x", "1.2")
        with pytest.raises(ValueError, match="needs PUSHER_ENCRYPTION_MASTER_KEY_BASE64"):
            client.trigger("private-encrypted-x", "flash", {})
        assert not client.can_encrypt

    def test_a_user_is_signed_with_the_data(self, client: Client, sign: Sign) -> None:
        answer = client.authenticate_user("1.2", {"id": "7"})
        assert answer["auth"] == f"a-key:{sign('1.2::user::' + answer['user_data'])}"
        with pytest.raises(ValueError, match="A socket id"):
            client.authenticate_user("1", {"id": "7"})


def test_a_client_made_by_hand_is_a_whole_client(sign: Sign) -> None:
    client = Client.from_url("https://a-key:a-secret@api.pusherapp.com/apps/7")
    assert client.app_id == "7"
    assert client.authenticate("presence-x", "1.2", {"user_id": "é"})["channel_data"] == (
        '{"user_id": "\\u00e9"}'
    )


def test_state_of_channels_can_be_asked_for(client: Client, api: Any) -> None:
    api.answers.append((200, '{"channels": {"presence-x": {"user_count": 2}}}'))
    found = client.channels_info("presence-", ["user_count"])
    assert found["channels"]["presence-x"]["user_count"] == 2
    assert api.calls[0].query["filter_by_prefix"] == "presence-"


def test_questions_are_asked_at_their_paths(client: Client, api: Any) -> None:
    client.channel_info("presence-x", ["user_count", "subscription_count"])
    client.channel_info("news", "subscription_count")
    client.users_info("presence-x")
    paths = [(call.method, call.path, call.query.get("info")) for call in api.calls]
    assert paths == [
        ("GET", "/apps/1/channels/presence-x", "user_count,subscription_count"),
        ("GET", "/apps/1/channels/news", "subscription_count"),
        ("GET", "/apps/1/channels/presence-x/users", None),
    ]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.channel_info("a b"),
        lambda client: client.users_info("a/b"),
        lambda client: client.channels_info(5),
        lambda client: client.channel_info("news", [5]),
        lambda client: client.channel_info(".."),
        lambda client: client.channel_info("#server-to-user-7"),
        lambda client: client.users_info("."),
        lambda client: client.terminate_user_connections(".."),
    ],
)
def test_questions_that_cannot_be_are_refused(
    client: Client, api: Any, ask: Callable[[Client], Any]
) -> None:
    with pytest.raises(
        (ValueError, TypeError), match=r"should be text|A channel's name has|no path"
    ):
        ask(client)
    assert api.calls == []


class Names(str, enum.Enum):
    """Names in one place, as applications keep them. ``str()`` of one is no name."""

    ROOM = "presence-room"
    EVENT = "paid"
    SOCKET = "1.2"
    USER = "ana"


class Ids(enum.IntEnum):
    USER = 7


def test_a_member_of_an_enumeration_is_its_value_everywhere(client: Client, api: Any) -> None:
    client.trigger(Names.ROOM, Names.EVENT, {}, Names.SOCKET)
    client.users_info(Names.ROOM)
    client.send_to_user(Names.USER, Names.EVENT, {})
    client.terminate_user_connections(Ids.USER)
    assert api.calls[0].body["channels"] == ["presence-room"]
    assert [call.path for call in api.calls] == [
        "/apps/1/events",
        "/apps/1/channels/presence-room/users",
        "/apps/1/events",
        "/apps/1/users/7/terminate_connections",
    ]
    assert api.calls[2].body["channels"] == ["#server-to-user-ana"]


def test_a_member_of_an_enumeration_is_signed_as_its_value(client: Client) -> None:
    data = {"user_id": "ana"}
    answer = client.authenticate("presence-room", "1.2", data)
    assert client.authenticate(Names.ROOM, Names.SOCKET, data) == answer
    answer = client.authenticate_user("1.2", {"id": "ana"})
    assert client.authenticate_user(Names.SOCKET, {"id": Names.USER}) == answer


def test_its_address_can_be_changed(client: Client) -> None:
    assert client.address == (client.host, client.port, False)
    client.address = ("ws.example", 6001, True)
    assert (client.host, client.port, client.scheme) == ("ws.example", 6001, "https")


def test_a_validated_webhook_is_decoded_by_the_application(app: Flask, sign: Sign) -> None:
    class Decimals(DefaultJSONProvider):
        def loads(self, s: str | bytes, **kwargs: Any) -> Any:
            return json.loads(s, parse_float=Decimal, **kwargs)

    Pusher(app)
    app.json = Decimals(app)
    body = json.dumps({"time_ms": time.time_ns() // 10**6, "events": [{"cost": 1.5}]})
    content = app.extensions["pusher"].validate_webhook("a-key", sign(body), body)
    assert content["events"] == [{"cost": Decimal("1.5")}]
    assert isinstance(content["events"][0]["cost"], Decimal)


@pytest.mark.parametrize("signature", ["", "00", "\xe9" * 64])
def test_a_webhook_with_another_signature_is_none(client: Client, signature: str) -> None:
    assert client.validate_webhook("a-key", signature, "{}") is None


@dataclass
class Order:
    number: int
    total: Decimal


class Money(DefaultJSONProvider):
    """A provider as an application extends Flask's."""

    @staticmethod
    def default(o: Any) -> Any:
        return f"{o.amount} EUR" if isinstance(o, Amount) else DefaultJSONProvider.default(o)


class Amount:
    def __init__(self, amount: int) -> None:
        self.amount = amount


class Minimal(JSONProvider):
    """A provider as one is made of another library: it knows only the two methods."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return json.dumps(obj, separators=(",", ":"), default=lambda o: f"<{type(o).__name__}>")

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return json.loads(s)


class Plain(DefaultJSONProvider):
    def dumps(self, obj: Any) -> str:  # type: ignore[override]
        return super().dumps(obj)


class Indenting(DefaultJSONProvider):
    def dumps(self, obj: Any, *, indent: int = 1) -> str:  # type: ignore[override]
        return json.dumps(obj, indent=indent)


class Sorting(DefaultJSONProvider):
    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return super().dumps(obj, sort_keys=True, **kwargs)


class InBytes(DefaultJSONProvider):
    """As orjson and msgspec write JSON."""

    def dumps(self, obj: Any, **kwargs: Any) -> Any:
        return super().dumps(obj, **kwargs).encode()


PROVIDERS = [Plain, Indenting, Sorting, InBytes]


class LegacyEncoder(json.JSONEncoder):
    def default(self, o: Any) -> Any:
        return f"legacy {type(o).__name__}"


class LegacyDecoder(json.JSONDecoder):
    def __init__(self) -> None:
        super().__init__(object_hook=lambda found: {**found, "legacy": True})


class TestJson:
    """What the application can serialise, it can publish and put into presence data."""

    def published(self, app: Flask, api: Any, data: Any) -> Any:
        app.extensions["pusher"].trigger("news", "flash", data)
        return api.calls[-1].body["data"]

    def test_flasks_own_provider_publishes_dataclasses_and_decimals(
        self, app: Flask, api: Any
    ) -> None:
        Pusher(app)
        text = self.published(app, api, Order(7, Decimal("9.90")))
        assert json.loads(text) == {"number": 7, "total": "9.90"}

    def test_a_provider_set_after_init_app_is_used(self, app: Flask, api: Any) -> None:
        Pusher(app)
        app.json = Money(app)
        assert self.published(app, api, [Amount(3)]) == '["3 EUR"]'

    def test_text_is_as_long_for_the_limits_as_with_the_official_client(
        self, app: Flask, api: Any
    ) -> None:
        Pusher(app)
        assert self.published(app, api, {"t": "汉"}) == '{"t": "汉"}'
        app.extensions["pusher"].trigger_batch(
            [{"channel": "a", "name": "b", "data": {"t": "汉" * 3000}}]
        )

    def test_an_old_encoder_publishes_text_as_short(self, app: Flask, api: Any) -> None:
        app.json_encoder = LegacyEncoder  # type: ignore[attr-defined]
        Pusher(app)
        assert self.published(app, api, {"t": "汉"}) == '{"t": "汉"}'

    def test_a_provider_that_knows_only_two_methods_is_enough(
        self, app: Flask, api: Any, browser: FlaskClient
    ) -> None:
        app.json = Minimal(app)
        pusher = Pusher(app)
        pusher.auth(lambda channel_name, socket_id: True)
        pusher.channel_data(lambda channel_name, socket_id: {"user_id": 7, "of": Amount(3)})
        assert self.published(app, api, {"a": Amount(3)}) == '{"a":"<Amount>"}'
        answer = browser.post(
            "/pusher/auth", json={"socket_id": "1.2", "channel_name": "presence-x"}
        )
        data = answer.get_json()["channel_data"]
        assert data == '{"user_id": "7", "of": "<Amount>", "user_info": {"of":"<Amount>"}}'

    def test_a_json_encoder_as_before_flask_2_3_is_used(self, app: Flask, api: Any) -> None:
        app.json_encoder = LegacyEncoder  # type: ignore[attr-defined]
        pusher = Pusher(app)
        assert self.published(app, api, Amount(3)) == '"legacy Amount"'
        pusher.user_auth(lambda socket_id: {"id": 1, "of": Amount(3)})
        answer = app.test_client().post("/pusher/user-auth", data={"socket_id": "1.2"})
        assert json.loads(answer.get_json()["user_data"]) == {"id": "1", "of": "legacy Amount"}

    def test_a_json_encoder_and_decoder_of_the_application_are_the_clients(
        self, app: Flask, sign: Sign
    ) -> None:
        app.json_encoder = LegacyEncoder  # type: ignore[attr-defined]
        app.json_decoder = LegacyDecoder  # type: ignore[attr-defined]
        Pusher(app)
        client = app.extensions["pusher"]
        assert client._json_encoder is LegacyEncoder
        assert client._json_decoder is LegacyDecoder
        body = json.dumps({"time_ms": time.time_ns() // 10**6})
        assert client.validate_webhook("a-key", sign(body), body)["legacy"] is True

    @pytest.mark.parametrize("provider", PROVIDERS)
    def test_a_providers_dumps_may_have_any_signature(
        self, app: Flask, api: Any, provider: type[JSONProvider]
    ) -> None:
        app.json = provider(app)
        Pusher(app)
        client = app.extensions["pusher"]
        assert json.loads(self.published(app, api, {"a": "é"})) == {"a": "é"}
        answer = client.authenticate("presence-x", "1.2", {"user_id": "é"})
        assert json.loads(answer["channel_data"]) == {"user_id": "é"}
        answer = client.authenticate_user("1.2", {"id": "7"})
        assert json.loads(answer["user_data"]) == {"id": "7"}

    def test_keys_of_two_types_are_published(self, app: Flask, api: Any) -> None:
        Pusher(app)
        assert self.published(app, api, {2: "x", "b": 1}) == '{"2": "x", "b": 1}'

    def test_what_the_application_cannot_serialise_is_its_error(
        self, app: Flask, api: Any
    ) -> None:
        Pusher(app)
        with pytest.raises(TypeError, match="Amount"):
            app.extensions["pusher"].trigger("news", "flash", Amount(3))
        assert api.calls == []


BAD_NUMBERS = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("number", BAD_NUMBERS)
@pytest.mark.parametrize("legacy", [False, True], ids=["provider", "json_encoder"])
class TestNumbersThatAreNotJson:
    @pytest.fixture
    def pusher(self, app: Flask, api: Any, legacy: bool) -> Pusher:
        if legacy:
            app.json_encoder = LegacyEncoder  # type: ignore[attr-defined]
        app.config["PUSHER_ENCRYPTION_MASTER_KEY_BASE64"] = MASTER_KEY
        return Pusher(app)

    def test_they_are_not_published(
        self, app: Flask, pusher: Pusher, api: Any, number: float
    ) -> None:
        client, data = app.extensions["pusher"], {"n": [number]}
        with app.app_context():
            for publish in (
                lambda: client.trigger("news", "flash", data),
                lambda: client.trigger("private-encrypted-x", "flash", data),
                lambda: client.trigger_batch([{"channel": "a", "name": "b", "data": data}]),
                lambda: client.send_to_user("7", "flash", data),
                lambda: pusher.defer("news", "flash", data),
            ):
                with pytest.raises(ValueError, match="is not JSON: no browser could read it"):
                    publish()
        assert api.calls == []

    def test_they_are_not_signed(self, app: Flask, pusher: Pusher, number: float) -> None:
        client = app.extensions["pusher"]
        with pytest.raises(ValueError, match="is not JSON: no browser could read it"):
            client.authenticate("presence-x", "1.2", {"user_id": "7", "user_info": {"n": number}})
        with pytest.raises(ValueError, match="is not JSON: no browser could read it"):
            client.authenticate_user("1.2", {"id": "7", "n": number})


def test_text_that_speaks_of_them_is_published(client: Client, api: Any) -> None:
    client.trigger("news", "flash", {"text": "NaN and Infinity"})
    assert api.events == [("news", "flash", {"text": "NaN and Infinity"})]


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


# -- Arguments that cannot be ---------------------------------------------------------------------

GOOD = {"channel": "news", "name": "flash", "data": {}}


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            {"channel": "news", "event": "flash", "data": {}},
            "if wanted socket_id and info; one has 'channel', 'event', 'data'.",
        ),
        ({"name": "flash", "data": {}}, "one has 'name', 'data'."),
        ({"channel": "news", "name": "flash"}, "one has 'channel', 'name'."),
        ({**GOOD, "socket": "1.2"}, "one has 'channel', 'name', 'data', 'socket'."),
        ({**GOOD, "channel": ["news"]}, "A channel's name should be text; this is of type list"),
        ({**GOOD, "name": 5}, "An event's name should be text; this is of type int"),
        ({**GOOD, "name": ""}, "An event's name has 1 to 200 characters; this has 0"),
        ({**GOOD, "name": "x" * 201}, "this has 201"),
        ({**GOOD, "socket_id": "1"}, "A socket id is two numbers"),
        ({**GOOD, "info": [5]}, "Each attribute should be text; this is of type int"),
        (["news", "flash", {}], "Each event of a batch should be a dict; one is of type list"),
    ],
)
def test_an_event_of_another_shape_is_refused_with_the_rest_of_its_batch(
    client: Client, api: Any, event: Any, told: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(told)):
        client.trigger_batch([GOOD, event])
    assert api.calls == []


def test_data_that_is_said_to_be_encoded_has_to_be_text(client: Client, api: Any) -> None:
    with pytest.raises(TypeError, match="data should be text; this is of type dict"):
        client.trigger_batch([GOOD], already_encoded=True)
    assert api.calls == []


@pytest.mark.parametrize("name", ["", "x" * 201, None, 5])
def test_an_events_name_that_cannot_be_is_refused(client: Client, api: Any, name: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="An event's name"):
        client.trigger("news", name, {})
    assert api.calls == []


def test_an_events_name_of_200_characters_is_taken(client: Client, api: Any) -> None:
    client.trigger("news", "é" * 200, {})
    assert api.events == [("news", "é" * 200, {})]


@pytest.mark.parametrize("name", ["Private-x", "PRESENCE-x", "Cache-x", "privatE-encrypted-x"])
def test_a_public_channel_that_looks_like_another_kind_is_warned_about(
    client: Client, api: Any, name: str
) -> None:
    with pytest.warns(UserWarning, match=f"'{name}' is a public channel: capitals count") as told:
        client.trigger(name, "flash", {})
    assert f"of the kind that '{name.lower()}' is" in str(told[0].message)
    assert len(api.calls) == 1


@pytest.mark.parametrize(
    "publish",
    [
        lambda pusher: pusher.trigger("Private-x", "flash", {}),
        lambda pusher: pusher.defer("Private-x", "flash", {}),
        lambda pusher: pusher.client.trigger_batch(
            [{"channel": "Private-x", "name": "flash", "data": {}}]
        ),
    ],
    ids=["trigger", "defer", "trigger_batch"],
)
def test_that_warning_names_the_line_of_the_application(
    app: Flask, pusher: Pusher, publish: Callable[[Pusher], Any]
) -> None:
    warning = pytest.warns(UserWarning, match="capitals count")
    with app.app_context(), pusher.record_events(), warning as told:
        publish(pusher)
    assert told[0].filename == __file__


def test_asking_about_the_channels_in_the_same_call(client: Client, api: Any) -> None:
    api.answers.append((200, '{"channels": {"presence-x": {"user_count": 2}}}'))
    answer = client.trigger("presence-x", "flash", {}, info=["user_count", "subscription_count"])
    assert answer == {"channels": {"presence-x": {"user_count": 2}}}
    assert api.calls[0].body["info"] == "user_count,subscription_count"


# -- The client as an object ----------------------------------------------------------------------

ATTRIBUTES = [
    "app_id",
    "key",
    "secret",
    "host",
    "port",
    "ssl",
    "scheme",
    "path",
    "timeout",
    "http",
]


@pytest.mark.parametrize("name", [*ATTRIBUTES, "can_encrypt"])
def test_its_configuration_can_be_read_and_not_assigned(client: Client, name: str) -> None:
    before = getattr(client, name)
    with pytest.raises(AttributeError):
        setattr(client, name, "other")
    assert getattr(client, name) == before


def test_what_it_does_not_have_is_an_attribute_error(client: Client) -> None:
    assert not hasattr(client, "no_such_thing")


@pytest.mark.parametrize("name", ["defer", "record_events", "auth", "webhooks"])
def test_a_name_that_the_extension_has_is_told(client: Client, name: str) -> None:
    with pytest.raises(AttributeError, match=f"the extension has: pusher.{name}"):
        getattr(client, name)


def test_an_attribute_error_inside_of_a_property_is_the_one_that_is_seen() -> None:
    class Own(Client):
        @property
        def region(self) -> str:
            return self.host.no_such_method()  # type: ignore[attr-defined, no-any-return]

    with pytest.raises(AttributeError, match="no_such_method"):
        _ = Own("1", "a-key", "a-secret").region


def test_an_assigned_address_is_published_to(client: Client, api: Any) -> None:
    before = client.address
    client.address = ("127.0.0.1", 1, False)
    with pytest.raises(NoAnswer, match=r"^http://127\.0\.0\.1:1 gave no answer"):
        client.trigger("news", "flash", {})
    client.address = before
    client.trigger("news", "flash", {})
    assert len(api.calls) == 1


def shallow(client: Client) -> Client:
    return copy.copy(client)


def deep(client: Client) -> Client:
    return copy.deepcopy(client)


def pickled(client: Client) -> Any:
    return pickle.loads(pickle.dumps(client))  # noqa: S301 - as multiprocessing does


@pytest.mark.parametrize("copied", [shallow, deep, pickled])
@pytest.mark.parametrize("was_used", [False, True])
def test_a_copy_publishes(
    client: Client, api: Any, copied: Callable[[Client], Client], was_used: bool
) -> None:
    if was_used:
        client.trigger("news", "flash", {})
        api.calls.clear()
    other = copied(client)
    assert (other.key, other.secret, other.address) == ("a-key", "a-secret", client.address)
    other.trigger("news", "flash", {"n": Decimal("1.5")})
    assert api.events == [("news", "flash", {"n": "1.5"})]


@pytest.mark.parametrize("copied", [deep, pickled])
def test_a_copys_address_is_its_own(client: Client, copied: Callable[[Client], Client]) -> None:
    before = client.address
    copied(client).address = ("other.example", 1, True)
    assert client.address == before


def test_a_copy_is_recorded_with_the_client(
    app: Flask, pusher: Pusher, client: Client, api: Any
) -> None:
    with app.app_context(), pusher.record_events() as events:
        copy.deepcopy(client).trigger("news", "flash", {})
    assert len(events) == 1
    assert api.calls == []


def test_a_copied_client_keeps_its_applications_json(app: Flask, client: Client) -> None:
    app.json = Money(app)
    signed = copy.deepcopy(client).authenticate_user("1.2", {"id": "7", "of": Amount(3)})
    assert '"3 EUR"' in signed["user_data"]


def test_a_pickled_client_takes_the_current_applications_json(app: Flask, client: Client) -> None:
    app.json = Money(app)
    other = pickled(client)
    with app.app_context():
        assert (
            '"3 EUR"' in other.authenticate_user("1.2", {"id": "7", "of": Amount(3)})["user_data"]
        )


class TestMadeByHand:
    @pytest.mark.parametrize("app_id", [7, "", "a/b", "a b", None])
    def test_an_app_id_that_cannot_be_is_refused(self, app_id: Any) -> None:
        with pytest.raises(ValueError, match="An app's id is text of A-Z a-z 0-9 _ -; this is"):
            Client(app_id, "a-key", "a-secret")

    def test_options_that_requests_does_not_have_are_refused(self) -> None:
        with pytest.raises(TypeError, match="'pool' is none of auth, cert, cookies, hooks, prox"):
            Client("1", "a-key", "a-secret", pool=3)

    def test_a_backend_of_ones_own_is_made_once(self) -> None:
        made: list[Any] = []
        Client("1", "a-key", "a-secret", backend=made.append)
        assert len(made) == 1

    def test_the_warning_of_a_deprecated_key_comes_once(self) -> None:
        with pytest.warns(UserWarning, match="deprecated") as told:
            Client("1", "a-key", "a-secret", encryption_master_key="k" * 32)
        assert len(told) == 1


class TestPatchedByTests:
    """Applications' tests for 3.0 patch the official client's methods."""

    def test_a_patched_trigger_takes_the_event(self, client: Client, api: Any) -> None:
        with mock.patch("pusher.Pusher.trigger") as trigger:
            client.trigger("news", "flash", {"n": 1})
            client.trigger(["a"], "flash", {"n": 1}, "1.2")
        assert trigger.mock_calls == [
            mock.call("news", "flash", {"n": 1}),
            mock.call(["a"], "flash", {"n": 1}, "1.2"),
        ]
        assert api.calls == []

    def test_a_patched_trigger_takes_what_the_extension_triggers(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        with app.app_context(), mock.patch("pusher.Pusher.trigger") as trigger:
            pusher.trigger("news", "flash", {"n": 1}, info=["user_count"])
        trigger.assert_called_once_with("news", "flash", {"n": 1})
        assert api.calls == []

    def test_a_patched_batch_takes_the_events(self, client: Client, api: Any) -> None:
        with mock.patch("pusher.Pusher.trigger_batch") as trigger_batch:
            client.trigger_batch([GOOD])
        trigger_batch.assert_called_once_with([GOOD])
        assert api.calls == []

    def test_a_patched_authenticate_answers_the_browser(self, app: Flask, pusher: Pusher) -> None:
        pusher.auth(lambda channel_name, socket_id: True)
        form = {"socket_id": "1.2", "channel_name": "private-x"}
        with mock.patch("pusher.Pusher.authenticate", return_value={"auth": "patched"}) as signs:
            answer = app.test_client().post("/pusher/auth", data=form)
        signs.assert_called_once_with("private-x", "1.2")
        assert answer.get_json() == {"auth": "patched"}

    @pytest.mark.parametrize("method", ["send_to_user", "authenticate_user", "validate_webhook"])
    def test_each_other_method_can_be_patched(self, client: Client, method: str) -> None:
        arguments = {"authenticate_user": ("1.2", {"id": "7"})}.get(method, ("7", "b", "c"))
        with mock.patch(f"pusher.Pusher.{method}") as patched:
            getattr(client, method)(*arguments)
        patched.assert_called_once_with(*arguments)

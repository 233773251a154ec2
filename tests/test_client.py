"""The client: what it publishes and asks, and what it says of arguments that cannot be."""

from __future__ import annotations

import base64
import enum
import json
import re
import time
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider
from nacl.secret import SecretBox
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus, PusherForbidden

from flask_pusher import Client, Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

Sign = Callable[[str], str]


@pytest.fixture
def pusher(encrypting: Pusher) -> Pusher:
    return encrypting


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
        lambda client: client.channels_info("a&info=x"),
        lambda client: client.channels_info("#server-to-user-"),
        lambda client: client.channel_info("news", [5]),
        lambda client: client.channel_info("news", ["user_count&a=b"]),
        lambda client: client.channels_info("presence-", "user_count,subscription_count é"),
        lambda client: client.trigger("news", "flash", {}, info=["user count"]),
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
        (ValueError, TypeError),
        match=r"should be text|A channel's name has|no path|An attribute is user_count, for example",
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
    client.trigger("news", "paid", Names.USER)
    client.trigger_batch([{"channel": "news", "name": "paid", "data": Names.USER}])
    assert api.calls[0].body["channels"] == ["presence-room"]
    assert [api.calls[-2].body["data"], api.calls[-1].body["batch"][0]["data"]] == ["ana", "ana"]
    assert [call.path for call in api.calls] == [
        "/apps/1/events",
        "/apps/1/channels/presence-room/users",
        "/apps/1/events",
        "/apps/1/users/7/terminate_connections",
        "/apps/1/events",
        "/apps/1/batch_events",
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


@pytest.mark.parametrize("signature", ["", "00", "\xe9" * 64, None])
def test_a_webhook_with_another_signature_is_none(client: Client, signature: str | None) -> None:
    assert client.validate_webhook("a-key", signature, "{}") is None


def test_a_webhook_without_a_key_is_none(client: Client, sign: Sign) -> None:
    assert client.validate_webhook(None, sign("{}"), b"{}") is None


def test_no_attributes_are_asked_for_by_none(client: Client, api: Any) -> None:
    client.channels_info("presence-", None)
    client.channel_info("news", None)
    assert [call.query.get("info") for call in api.calls] == [None, None]


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
        (["news", "flash", {}], "A batch's event should be a dict; one is of type list"),
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
    assert f"Is '{name.lower()}' meant?" in str(told[0].message)
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

"""The client: what it publishes, with the application's JSON, and what is mended in it."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider, JSONProvider
from flask.testing import FlaskClient
from nacl.secret import SecretBox
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus, PusherForbidden

from flask_pusher import Client, Pusher

MakeApp = Callable[..., Flask]
Sign = Callable[[str], str]
MASTER_KEY = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@pytest.fixture
def client(app: Flask, api: Any) -> Client:
    app.config["PUSHER_ENCRYPTION_MASTER_KEY_BASE64"] = MASTER_KEY
    Pusher(app)
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
            ([f"c{number}" for number in range(101)], ValueError),
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
    def test_a_refusal_with_status_200_as_soketi_sends_it_is_a_refusal(
        self, client: Client, api: Any, code: int, error: type[Exception]
    ) -> None:
        api.answers.append((200, json.dumps({"error": "refused", "code": code})))
        with pytest.raises(error, match="refused"):
            client.trigger("news", "flash", {})

    @pytest.mark.parametrize(
        "body",
        ['{"error": "x"}', '{"code": 401}', "[]", '{"error": "", "code": 200}'],
    )
    def test_any_other_answer_is_given_as_it_is(self, client: Client, api: Any, body: str) -> None:
        api.answers.append((200, body))
        assert client.trigger("news", "flash", {}) == json.loads(body)

    def test_a_user_that_cannot_be_is_refused(self, client: Client, api: Any) -> None:
        with pytest.raises(ValueError, match="Invalid user id"):
            client.terminate_user_connections("a/b")
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
            ("a b", "1.2", "channel: 'a b'"),
            ("#server-to-user-7", "1.2", "channel"),
            ("private-x", "1", "socket id: '1'"),
            ("private-x", "\u0661.\u0662", "socket id"),
        ],
    )
    def test_what_is_no_channel_or_socket_id_is_refused(
        self, client: Client, channel: str, socket_id: str, named: str
    ) -> None:
        with pytest.raises(ValueError, match=f"Invalid {named}"):
            client.authenticate(channel, socket_id)

    def test_an_encrypted_channel_needs_a_master_key(self, make_app: MakeApp) -> None:
        client = make_app(Pusher()).extensions["pusher"]
        with pytest.raises(ValueError, match="master key"):
            client.authenticate("private-encrypted-x", "1.2")


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


def test_threads_that_publish_at_once_keep_a_connection_each(client: Client, api: Any) -> None:
    together = threading.Barrier(20, timeout=30)

    def publish() -> None:
        for number in range(5):
            together.wait()
            client.trigger("news", "flash", {"n": number})

    threads = [threading.Thread(target=publish) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(api.events) == 100
    assert api.connections <= 20


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
        assert data == '{"user_id":"7","of":"<Amount>","user_info":{"of":"<Amount>"}}'

    def test_a_json_encoder_as_before_flask_2_3_is_used(self, app: Flask, api: Any) -> None:
        app.json_encoder = LegacyEncoder  # type: ignore[attr-defined]
        pusher = Pusher(app)
        assert self.published(app, api, Amount(3)) == '"legacy Amount"'
        pusher.user_auth(lambda socket_id: {"id": 1, "of": Amount(3)})
        answer = app.test_client().post("/pusher/user-auth", data={"socket_id": "1.2"})
        assert json.loads(answer.get_json()["user_data"]) == {"id": "1", "of": "legacy Amount"}

    def test_a_json_decoder_as_before_flask_2_3_is_used(
        self, app: Flask, pusher: Pusher, post_webhook: Callable[..., Any]
    ) -> None:
        app.json_decoder = LegacyDecoder  # type: ignore[attr-defined]
        events: list[dict[str, Any]] = []
        pusher.webhooks.event("cache_miss")(events.append)
        post_webhook("/pusher/events", {"events": [{"name": "cache_miss"}]})
        assert events == [{"name": "cache_miss", "legacy": True}]

    def test_what_the_application_cannot_serialise_is_its_error(
        self, app: Flask, api: Any
    ) -> None:
        Pusher(app)
        with pytest.raises(TypeError, match="Amount"):
            app.extensions["pusher"].trigger("news", "flash", Amount(3))
        assert api.calls == []

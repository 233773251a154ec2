"""JSON by the application's provider: what it can serialise is published and signed."""

from __future__ import annotations

import copy
import json
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider, JSONProvider
from flask.testing import FlaskClient

from flask_pusher import Client, Pusher

Sign = Callable[[str], str]


@pytest.fixture
def pusher(encrypting: Pusher) -> Pusher:
    return encrypting


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
    def pusher(self, app: Flask, legacy: bool, request: pytest.FixtureRequest) -> Pusher:
        if legacy:
            app.json_encoder = LegacyEncoder  # type: ignore[attr-defined]
        encrypting: Pusher = request.getfixturevalue("encrypting")
        return encrypting

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


def pickled(client: Client) -> Any:
    return pickle.loads(pickle.dumps(client))  # noqa: S301 - as multiprocessing does


def test_a_copied_client_keeps_its_applications_json(app: Flask, client: Client) -> None:
    app.json = Money(app)
    signed = copy.copy(client).authenticate_user("1.2", {"id": "7", "of": Amount(3)})
    assert '"3 EUR"' in signed["user_data"]


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_one_without_an_application_takes_the_current_ones_json(
    app: Flask, client: Client, copied: Callable[[Client], Any]
) -> None:
    app.json = Money(app)
    other = copied(client)
    with app.app_context():
        assert (
            '"3 EUR"' in other.authenticate_user("1.2", {"id": "7", "of": Amount(3)})["user_data"]
        )

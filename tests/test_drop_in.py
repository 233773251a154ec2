"""An application written for Flask-Pusher 3.0, as its manual shows, runs unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import MappingProxyType
from typing import Any
from unittest import mock

import pytest
from flask import Flask, current_app, jsonify, render_template_string, request, url_for
from flask.testing import FlaskClient

from flask_pusher import Pusher

Sign = Callable[[bytes], str]


@pytest.fixture
def heard() -> list[Any]:
    return []


@pytest.fixture
def old_browser(api: Any, heard: list[Any]) -> FlaskClient:
    app = Flask("old")
    app.config["PUSHER_APP_ID"] = "1"
    app.config["PUSHER_KEY"] = "a-key"
    app.config["PUSHER_SECRET"] = "a-secret"
    app.config["PUSHER_HOST"] = "127.0.0.1"
    app.config["PUSHER_PORT"] = api.port
    app.config["PUSHER_SSL"] = False
    pusher = Pusher(app, url_prefix="/rt")

    @pusher.auth
    def pusher_auth(channel_name: str, socket_id: str) -> bool:
        return "foo" not in channel_name

    @pusher.channel_data
    def pusher_channel_data(channel_name: str, socket_id: str) -> dict[str, str]:
        return {"name": "Ana"}

    @pusher.webhooks.channel_existence
    def channel_existence_webhook() -> None:
        heard.append(request.json)

    @pusher.webhooks.presence
    def presence_webhook() -> None:
        heard.append(request.json)

    @pusher.webhooks.client
    def client_webhook() -> None:
        heard.append(request.json)

    @app.route("/publish")
    def publish() -> Any:
        client = current_app.extensions["pusher"]
        assert pusher.client is client
        client.trigger("channel_name", "event", {"message": "hi"})
        return jsonify(key=pusher.client.key, host=client.host, port=client.port, ssl=client.ssl)

    @app.route("/page")
    def page() -> str:
        return render_template_string("new Pusher('{{ PUSHER_KEY }}')")

    @app.route("/urls")
    def urls() -> Any:
        names = ["auth", "channel_existence_event", "presence_event", "client_event"]
        return jsonify([url_for(f"pusher.{name}") for name in names])

    return app.test_client()


def test_it_publishes_and_reads_the_clients_configuration(
    old_browser: FlaskClient, api: Any
) -> None:
    content = old_browser.get("/publish").get_json()
    assert content == {"key": "a-key", "host": "127.0.0.1", "port": api.port, "ssl": False}
    assert api.events == [("channel_name", "event", {"message": "hi"})]


def test_it_authorises_its_channels(old_browser: FlaskClient) -> None:
    for channel, status in (("private-a", 200), ("private-foo", 403)):
        form = {"socket_id": "1.2", "channel_name": channel}
        assert old_browser.post("/rt/auth", data=form).status_code == status
    form = {"socket_id": "1.2", "channel_name[0]": "presence-a", "channel_name[1]": "private-foo"}
    content = old_browser.post("/rt/auth", data=form).get_json()
    assert json.loads(content["presence-a"]["data"]["channel_data"])["name"] == "Ana"
    assert content["private-foo"] == {"status": 403}


def test_it_hears_webhooks(old_browser: FlaskClient, heard: list[Any], sign: Sign) -> None:
    body = b'{"hello": "world"}'
    headers = {
        "Content-Type": "application/json",
        "X-Pusher-Key": "a-key",
        "X-Pusher-Signature": sign(body),
    }
    for group in ("channel_existence", "presence", "client"):
        answer = old_browser.post(f"/rt/events/{group}", data=body, headers=headers)
        assert (answer.status_code, answer.text) == (200, "OK")
    assert heard == [{"hello": "world"}] * 3


def test_its_templates_and_urls_are_as_they_were(old_browser: FlaskClient) -> None:
    assert old_browser.get("/page").text == "new Pusher('a-key')"
    assert old_browser.get("/urls").get_json() == [
        "/rt/auth",
        "/rt/events/channel_existence",
        "/rt/events/presence",
        "/rt/events/client",
    ]


# -- What applications' tests did with 3.0 ---------------------------------------------------------


@pytest.fixture
def bare_app() -> Flask:
    """An application that an extension is given in the test."""
    app = Flask("bare")
    app.config.update(PUSHER_APP_ID="1", PUSHER_KEY="a-key", PUSHER_SECRET="a-secret")
    return app


def test_an_application_without_extensions_gets_them(bare_app: Flask) -> None:
    del bare_app.extensions
    extension = Pusher(bare_app)
    with bare_app.app_context():
        assert bare_app.extensions["pusher"] is extension.client


def test_the_client_has_the_json_encoder_that_the_application_set(
    bare_app: Flask,
) -> None:
    class Encoder(json.JSONEncoder): ...

    class Decoder(json.JSONDecoder): ...

    bare_app.json_encoder = Encoder  # type: ignore[attr-defined]
    bare_app.json_decoder = Decoder  # type: ignore[attr-defined]
    Pusher(bare_app)
    client = bare_app.extensions["pusher"]
    assert client._json_encoder is Encoder
    assert client._json_decoder is Decoder


def test_it_signs_as_3_0_did(bare_app: Flask, sign: Sign) -> None:
    extension = Pusher(bare_app)
    with bare_app.app_context():
        assert extension._sign("1.2:private-a") == sign(b"1.2:private-a")


def test_a_webhook_that_a_test_signs_with_it_is_believed(bare_app: Flask) -> None:
    extension = Pusher(bare_app)
    told: list[Any] = []
    extension.webhooks.presence(lambda: told.append(request.json))
    with bare_app.app_context():
        headers = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": extension._sign("{}")}
    browser = bare_app.test_client()
    post = browser.post
    assert post("/pusher/events/presence", data="{}", headers=headers).status_code == 200
    assert told == [{}]
    assert post("/pusher/events/client", data="{}", headers=headers).status_code == 404
    headers["X-Pusher-Signature"] = "wrong"
    assert post("/pusher/events/presence", data="{}", headers=headers).status_code == 403
    headers["X-Pusher-Key"] = "wrong"
    assert post("/pusher/events/presence", data="{}", headers=headers).status_code == 403
    assert post("/pusher/events/presence", data="{}").status_code == 403


@pytest.mark.parametrize("fields", [{}, {"socket_id": "1.2"}, {"channel_name": "private-a"}])
def test_without_an_auth_handler_all_is_forbidden(bare_app: Flask, fields: dict[str, str]) -> None:
    Pusher(bare_app)
    assert bare_app.test_client().post("/pusher/auth", data=fields).status_code == 403


def test_a_member_without_a_handler_is_the_socket_and_no_more(bare_app: Flask) -> None:
    extension = Pusher(bare_app)
    extension.auth(lambda channel_name, socket_id: True)
    form = {"socket_id": "1.2", "channel_name": "presence-a"}
    content = bare_app.test_client().post("/pusher/auth", data=form).get_json()
    assert content["channel_data"] == '{"user_id": "1.2"}'


def test_handlers_may_answer_with_any_true_object_and_any_mapping(bare_app: Flask) -> None:
    extension = Pusher(bare_app)
    extension.auth(lambda channel_name, socket_id: object())  # type: ignore[type-var]
    data = MappingProxyType({"user_id": "ana", "user_info": {"name": "Ana"}})
    extension.channel_data(lambda channel_name, socket_id: data)
    form = {"socket_id": "1.2", "channel_name": "presence-a"}
    content = bare_app.test_client().post("/pusher/auth", data=form).get_json()
    assert json.loads(content["channel_data"]) == dict(data)


def test_decorators_can_be_applied_again_and_the_last_one_holds(bare_app: Flask) -> None:
    """As a test does that replaces a handler."""
    extension = Pusher(bare_app)
    extension.auth(lambda channel_name, socket_id: False)
    with pytest.warns(UserWarning, match="is declared again"):
        extension.auth(lambda channel_name, socket_id: True)
    form = {"socket_id": "1.2", "channel_name": "private-a"}
    assert bare_app.test_client().post("/pusher/auth", data=form).status_code == 200


# -- What they patched -----------------------------------------------------------------------------


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., mock.MagicMock]:
    def patched(name: str, **options: Any) -> mock.MagicMock:
        double = mock.MagicMock(**options)
        monkeypatch.setattr(f"pusher.Pusher.{name}", double)
        return double

    return patched


Patched = Callable[..., mock.MagicMock]


def test_a_patched_trigger_catches_what_is_published(
    old_browser: FlaskClient, api: Any, patched: Patched
) -> None:
    trigger = patched("trigger")
    assert old_browser.get("/publish").status_code == 200
    trigger.assert_called_once_with("channel_name", "event", {"message": "hi"})
    assert api.calls == []


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (("a", "e", {"n": 1}), mock.call("a", "e", {"n": 1})),
        ((["a", "b"], "e", "text"), mock.call(["a", "b"], "e", "text")),
        (("a", "e", {}, "1.2"), mock.call("a", "e", {}, "1.2")),
    ],
)
def test_it_is_called_as_the_application_called(
    bare_app: Flask, patched: Patched, arguments: tuple[Any, ...], call: Any
) -> None:
    trigger = patched("trigger", return_value={"of": "the mock"})
    extension = Pusher(bare_app)
    with bare_app.app_context():
        assert bare_app.extensions["pusher"].trigger(*arguments) == {"of": "the mock"}
        assert extension.trigger(*arguments) == {"of": "the mock"}
    assert trigger.mock_calls == [call, call]


def test_a_patched_trigger_batch_catches_what_is_published(
    bare_app: Flask, patched: Patched
) -> None:
    trigger_batch = patched("trigger_batch")
    Pusher(bare_app)
    batch = [{"channel": "a", "name": "e", "data": {"n": 1}}]
    bare_app.extensions["pusher"].trigger_batch(batch)
    bare_app.extensions["pusher"].trigger_batch(batch, True)
    assert trigger_batch.mock_calls == [mock.call(batch), mock.call(batch, True)]


def test_a_patched_authenticate_catches_what_is_signed(bare_app: Flask, patched: Patched) -> None:
    authenticate = patched("authenticate", return_value={"auth": "of the mock"})
    extension = Pusher(bare_app)
    extension.auth(lambda channel_name, socket_id: True)
    extension.channel_data(lambda channel_name, socket_id: {"user_id": 7, "user_info": {}})
    browser = bare_app.test_client()
    for channel in ("private-a", "presence-a"):
        form = {"socket_id": "1.2", "channel_name": channel}
        assert browser.post("/pusher/auth", data=form).get_json() == {"auth": "of the mock"}
    assert authenticate.mock_calls == [
        mock.call("private-a", "1.2"),
        mock.call("presence-a", "1.2", {"user_id": "7", "user_info": {}}),
    ]


class Fake:
    """What a test puts in the client's place: it has these and nothing else."""

    key = "fake-key"

    def __init__(self) -> None:
        self.events: list[Any] = []

    def trigger(
        self, channels: Any, event_name: str, data: Any, socket_id: str | None = None
    ) -> None:
        self.events.append((channels, event_name, data, socket_id))

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the fake was asked for {name}")


def test_a_fake_in_the_clients_place_is_asked_only_what_the_application_asks(
    bare_app: Flask, sign: Sign
) -> None:
    extension = Pusher(bare_app)
    extension.auth(lambda channel_name, socket_id: True)
    extension.user_auth(lambda socket_id: {"id": 7})
    extension.webhooks.presence(lambda: None)
    fake: Any = Fake()
    bare_app.extensions["pusher"] = fake

    @bare_app.get("/publish")
    def publish() -> str:
        current_app.extensions["pusher"].trigger("a", "e", {})
        extension.trigger("b", "e", {}, "1.2")
        return ""

    @bare_app.get("/page")
    def page() -> str:
        return render_template_string("{{ PUSHER_KEY }} {{ pusher_options().cluster }}")

    @bare_app.get("/defer")
    def defer() -> str:
        extension.defer("a", "e", {})
        return ""

    bare_app.config["PROPAGATE_EXCEPTIONS"] = True
    browser = bare_app.test_client()
    assert browser.get("/publish").status_code == 200
    assert browser.get("/page").status_code == 200
    with extension.record_events() as events:
        assert browser.get("/defer").status_code == 200
    assert [event.channels for event in events] == [["a"]]
    form = {"socket_id": "1.2", "channel_name": "presence-a"}
    answer = browser.post("/pusher/auth", data=form)
    assert answer.get_json()["auth"].startswith("a-key:")
    assert browser.post("/pusher/user-auth", data={"socket_id": "1.2"}).status_code == 200
    headers = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": sign(b"{}")}
    answer = browser.post("/pusher/events/presence", data=b"{}", headers=headers)
    assert answer.status_code == 200
    with bare_app.app_context():
        assert extension._sign("a") == sign(b"a")
        assert extension.sign_webhook("{}")["X-Pusher-Signature"] == sign(b"{}")
        assert fake.events == [("a", "e", {}, None), ("b", "e", {}, "1.2")]
        assert extension.client is fake

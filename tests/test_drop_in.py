"""An application written for Flask-Pusher 3.0, as its manual shows, runs unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

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

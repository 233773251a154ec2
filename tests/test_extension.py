"""Giving applications the extension: one or many, before handlers are declared or after."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint, Flask, url_for
from flask.testing import FlaskClient
from pusher import Pusher as OfficialClient

from flask_pusher import Client, Pusher

FORM = {"socket_id": "1.1", "channel_name": "private-news"}
MakeApp = Callable[..., Flask]


def test_an_application_gets_a_configured_client(app: Flask) -> None:
    pusher = Pusher(app)
    with app.app_context():
        assert pusher.client is app.extensions["pusher"]
        assert isinstance(pusher.client, Client)
        assert isinstance(pusher.client, OfficialClient)
        assert pusher.client.key == "a-key"


def test_handlers_may_be_declared_before_an_application_is_there(make_app: MakeApp) -> None:
    pusher = Pusher()

    @pusher.auth
    def may_subscribe(channel_name: str, socket_id: str) -> bool:
        return True

    app = make_app(pusher)
    assert app.test_client().post("/pusher/auth", data=FORM).status_code == 200


def test_handlers_may_be_declared_after_the_first_request(
    pusher: Pusher, browser: FlaskClient
) -> None:
    assert browser.post("/pusher/auth", data=FORM).status_code == 403
    pusher.auth(lambda channel_name, socket_id: True)
    assert browser.post("/pusher/auth", data=FORM).status_code == 200


def test_decorators_return_the_function_unchanged(pusher: Pusher) -> None:
    def handler(*args: object) -> Any: ...

    assert pusher.auth(handler) is handler
    assert pusher.auth("private-<x>")(handler) is handler
    assert pusher.channel_data(handler) is handler
    assert pusher.channel_data("presence-<x>")(handler) is handler
    assert pusher.user_auth(handler) is handler
    assert pusher.webhooks.channel_existence(handler) is handler
    assert pusher.webhooks.presence(handler) is handler
    assert pusher.webhooks.client(handler) is handler
    assert pusher.webhooks.cache(handler) is handler
    assert pusher.webhooks.subscription_count(handler) is handler
    assert pusher.webhooks.event("member_added")(handler) is handler


def test_one_extension_serves_several_applications_with_their_own_settings(
    make_app: MakeApp,
) -> None:
    pusher = Pusher()
    pusher.auth(lambda channel_name, socket_id: True)
    first = make_app(pusher, PUSHER_KEY="first")
    second = make_app(pusher, PUSHER_KEY="second", PUSHER_AUTH="/other")
    with first.app_context():
        assert pusher.client.key == "first"
    with second.app_context():
        assert pusher.client.key == "second"
    answer = first.test_client().post("/pusher/auth", data=FORM).get_json()
    assert answer["auth"].startswith("first:")
    answer = second.test_client().post("/pusher/other", data=FORM).get_json()
    assert answer["auth"].startswith("second:")
    assert second.test_client().post("/pusher/auth", data=FORM).status_code == 404


def test_a_factory_that_declares_its_handlers_may_be_called_again(make_app: MakeApp) -> None:
    pusher = Pusher()
    members = []

    def create_app() -> Flask:
        app = make_app(pusher)

        @pusher.auth("private-<name>")
        def may_subscribe(channel_name: str, socket_id: str, name: str) -> bool:
            return name == "news"

        @pusher.webhooks.presence
        def presence() -> None:
            members.append("group")

        @pusher.webhooks.event("member_added")
        def member_added(event: dict[str, str]) -> None:
            members.append(event["user_id"])

        return app

    for app in (create_app(), create_app()):
        assert app.test_client().post("/pusher/auth", data=FORM).status_code == 200
        body = b'{"events": [{"name": "member_added", "user_id": "7"}]}'
        with app.app_context():
            headers = pusher.sign_webhook(body)
        app.test_client().post("/pusher/events/presence", data=body, headers=headers)
    assert members == ["group", "7", "group", "7"]


def test_a_second_pusher_on_an_application_is_an_error(app: Flask) -> None:
    Pusher(app)
    with pytest.raises(RuntimeError, match="has a Pusher already"):
        Pusher(app)


def test_init_app_twice_is_an_error(app: Flask) -> None:
    pusher = Pusher(app)
    with pytest.raises(RuntimeError, match=r"'an_app' has a Pusher already"):
        pusher.init_app(app)


def test_init_app_can_be_repeated_after_a_setting_was_mended(app: Flask) -> None:
    pusher = Pusher()
    app.config["PUSHER_PORT"] = "http"
    with pytest.raises(ValueError, match="PUSHER_PORT"):
        pusher.init_app(app)
    app.config["PUSHER_PORT"] = "8080"
    pusher.init_app(app)
    assert app.extensions["pusher"].port == 8080


def test_the_client_of_an_application_without_the_extension_is_an_error() -> None:
    with Flask("bare").app_context(), pytest.raises(RuntimeError, match=r"call init_app\(app\)"):
        _ = Pusher().client


def test_the_client_outside_an_application_is_flasks_own_error(pusher: Pusher) -> None:
    with pytest.raises(RuntimeError, match="outside of application context"):
        _ = pusher.client


@pytest.mark.parametrize(
    ("prefix", "path"),
    [("/live", "/live/auth"), ("/a/b/", "/a/b/auth"), ("", "/auth"), ("/", "/auth")],
)
def test_the_routes_are_below_the_prefix(app: Flask, prefix: str, path: str) -> None:
    Pusher(app, url_prefix=prefix).auth(lambda channel_name, socket_id: True)
    assert app.test_client().post(path, data=FORM).status_code == 200


def test_a_prefix_without_a_slash_is_an_error() -> None:
    with pytest.raises(ValueError, match="'live'"):
        Pusher(url_prefix="live")


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("pusher.auth", "/pusher/auth"),
        ("pusher.user_auth", "/pusher/user-auth"),
        ("pusher.channel_existence_event", "/pusher/events/channel_existence"),
        ("pusher.presence_event", "/pusher/events/presence"),
        ("pusher.client_event", "/pusher/events/client"),
        ("pusher.cache_event", "/pusher/events/cache"),
        ("pusher.subscription_count_event", "/pusher/events/subscription_count"),
        ("pusher.events", "/pusher/events"),
    ],
)
def test_each_endpoint_has_its_route(
    app: Flask, pusher: Pusher, browser: FlaskClient, endpoint: str, path: str
) -> None:
    with app.test_request_context():
        assert url_for(endpoint) == path
    assert browser.get(path).status_code == 405


def test_the_blueprint_is_that_of_the_routes(app: Flask, pusher: Pusher) -> None:
    assert isinstance(pusher.blueprint, Blueprint)
    assert app.blueprints["pusher"] is pusher.blueprint


def test_a_copy_of_a_client_can_be_made(app: Flask, pusher: Pusher) -> None:
    assert copy.copy(app.extensions["pusher"]).key == "a-key"


def test_neither_client_nor_extension_shows_the_secret(app: Flask, pusher: Pusher) -> None:
    shown = f"{app.extensions['pusher']!r} {pusher!r} {app.extensions['pusher']}"
    assert "a-secret" not in shown

"""What templates get: the key, and the options of ``new Pusher(...)``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, render_template_string
from jinja2 import DictLoader
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client as Browser

from flask_pusher import Pusher

MakeApp = Callable[..., Flask]
PAGE = "{{ pusher_options()|tojson }}"
SELF_HOSTED = {"PUSHER_HOST": "ws.example", "PUSHER_PORT": "6001", "PUSHER_SSL": "false"}


@pytest.fixture
def options_of(make_app: MakeApp) -> Callable[..., Any]:
    """The options that a page of an application with these settings gives to pusher-js."""

    def options_of(**config: Any) -> Any:
        app = make_app(Pusher(), **config)
        with app.test_request_context():
            return json.loads(render_template_string(PAGE))

    return options_of


def test_the_key_is_in_every_template(app: Flask, pusher: Pusher) -> None:
    with app.test_request_context():
        assert render_template_string("{{ PUSHER_KEY }}") == "a-key"


def test_a_template_that_does_not_ask_for_options_renders_outside_a_request(
    app: Flask, pusher: Pusher
) -> None:
    with app.app_context():
        assert render_template_string("{{ PUSHER_KEY }}") == "a-key"


@pytest.mark.parametrize(
    ("config", "cluster"),
    [
        ({}, "mt1"),
        ({"PUSHER_CLUSTER": "eu"}, "eu"),
        ({"PUSHER_HOST": "api-us2.pusher.com"}, "us2"),
        ({"PUSHER_HOST": "api.pusherapp.com", "PUSHER_PORT": "80"}, "mt1"),
    ],
)
def test_the_hosted_service_is_told_by_its_cluster(
    options_of: Callable[..., Any], config: dict[str, str], cluster: str
) -> None:
    assert options_of(**config) == {
        "cluster": cluster,
        "channelAuthorization": {"endpoint": "/pusher/auth", "headers": {}},
        "userAuthentication": {"endpoint": "/pusher/user-auth", "headers": {}},
    }


@pytest.mark.parametrize(("ssl", "tls"), [("false", False), ("true", True)])
def test_a_server_of_ones_own_is_told_by_its_address(
    options_of: Callable[..., Any], ssl: str, tls: bool
) -> None:
    assert options_of(**{**SELF_HOSTED, "PUSHER_SSL": ssl}) == {
        "cluster": "mt1",
        "wsHost": "ws.example",
        "wsPort": 6001,
        "wssPort": 6001,
        "forceTLS": tls,
        "enabledTransports": ["ws", "wss"],
        "channelAuthorization": {"endpoint": "/pusher/auth", "headers": {}},
        "userAuthentication": {"endpoint": "/pusher/user-auth", "headers": {}},
    }


def test_a_changed_address_is_followed(app: Flask, pusher: Pusher) -> None:
    app.extensions["pusher"].address = ("127.0.0.1", 7001, False)
    with app.test_request_context():
        options = json.loads(render_template_string(PAGE))
    assert (options["wsHost"], options["wsPort"], options["forceTLS"]) == (
        "127.0.0.1",
        7001,
        False,
    )


def test_changed_routes_and_prefix_are_followed(make_app: MakeApp) -> None:
    app = make_app(PUSHER_AUTH="/subscribe", PUSHER_USER_AUTH="/sign-in")
    Pusher(app, url_prefix="/live")
    with app.test_request_context():
        options = json.loads(render_template_string(PAGE))
    assert options["channelAuthorization"]["endpoint"] == "/live/subscribe"
    assert options["userAuthentication"]["endpoint"] == "/live/sign-in"


def test_an_application_below_a_path_is_followed(app: Flask, pusher: Pusher) -> None:
    app.route("/")(lambda: render_template_string(PAGE))
    mounted = DispatcherMiddleware(Flask("outer"), {"/shop": app})
    options = Browser(mounted).get("/shop/").get_json(force=True)
    assert options["channelAuthorization"]["endpoint"] == "/shop/pusher/auth"


def test_client_options_are_merged_over_the_others(options_of: Callable[..., Any]) -> None:
    options = options_of(
        PUSHER_CLUSTER="eu",
        PUSHER_CLIENT_OPTIONS={
            "cluster": "us2",
            "activityTimeout": 1000,
            "channelAuthorization": {"headers": {"X-CSRFToken": "t"}},
            "userAuthentication": None,
        },
    )
    assert options == {
        "cluster": "us2",
        "activityTimeout": 1000,
        "channelAuthorization": {"endpoint": "/pusher/auth", "headers": {"X-CSRFToken": "t"}},
        "userAuthentication": None,
    }


def test_a_servers_path_is_told_to_the_browser_too(options_of: Callable[..., Any]) -> None:
    assert options_of(**SELF_HOSTED, PUSHER_PATH="/channels")["wsPath"] == "/channels"
    assert "wsPath" not in options_of(**SELF_HOSTED)
    assert "wsPath" not in options_of(PUSHER_CLUSTER="eu", PUSHER_PATH="/channels")


def test_an_ipv6_address_keeps_its_brackets(options_of: Callable[..., Any]) -> None:
    assert options_of(PUSHER_HOST="::1")["wsHost"] == "[::1]"


@pytest.mark.parametrize("how", ["import", "from"])
def test_a_macro_that_is_imported_without_context_knows_them(
    app: Flask, pusher: Pusher, how: str
) -> None:
    macro = "{% macro head() %}{{ PUSHER_KEY }} {{ pusher_options()|tojson }}{% endmacro %}"
    app.jinja_loader = DictLoader({"macros.html": macro})
    pages = {
        "import": "{% import 'macros.html' as macros %}{{ macros.head() }}",
        "from": "{% from 'macros.html' import head %}{{ head() }}",
    }
    with app.test_request_context():
        key, _, options = render_template_string(pages[how]).partition(" ")
    assert key == "a-key"
    assert json.loads(options)["channelAuthorization"]["endpoint"] == "/pusher/auth"


def test_an_applications_own_variable_of_the_name_stays(app: Flask, pusher: Pusher) -> None:
    app.context_processor(lambda: {"PUSHER_KEY": "own"})
    with app.test_request_context():
        assert render_template_string("{{ PUSHER_KEY }}") == "own"


def test_a_page_may_change_its_options_for_itself(app: Flask, pusher: Pusher) -> None:
    page = "{% set _ = pusher_options().update(cluster='eu') %}" + PAGE
    with app.test_request_context():
        assert json.loads(render_template_string(page))["cluster"] == "mt1"

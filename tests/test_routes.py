"""The routes: where they are, at which hosts, and what else may be in their place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Blueprint, Flask, render_template_string, url_for
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client as Browser

from flask_pusher import Pusher

FORM = {"socket_id": "1.1", "channel_name": "private-news"}


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


# -- Hosts ----------------------------------------------------------------------------------------

ENDPOINT = "{{ pusher_options().channelAuthorization.endpoint }}"


CREDENTIALS = {"PUSHER_APP_ID": "1", "PUSHER_KEY": "a-key", "PUSHER_SECRET": "a-secret"}


class TestHostMatching:
    @pytest.fixture
    def app(self) -> Flask:
        app = Flask("an_app", host_matching=True, static_host="static.example")
        app.config.update(CREDENTIALS)
        Pusher(app).auth(lambda channel_name, socket_id: True)
        for host in ("shop.example", "<name>.example:5000"):
            app.add_url_rule(
                "/page",
                host,
                lambda **variables: render_template_string(ENDPOINT),
                host=host,
            )
        return app

    @pytest.mark.parametrize("host", ["shop.example", "ana.example:5000"])
    def test_a_page_asks_its_own_host(self, app: Flask, host: str) -> None:
        browser = app.test_client()
        endpoint = browser.get("/page", base_url=f"http://{host}").text
        assert endpoint == "/pusher/auth"
        answer = browser.post(endpoint, base_url=f"http://{host}", data=FORM)
        assert answer.status_code == 200

    def test_other_endpoints_are_left_alone(self, app: Flask) -> None:
        with app.test_request_context("/", base_url="http://shop.example"):
            url = url_for("static", filename="a.js")
        assert url == "http://static.example/static/a.js"

    def test_an_url_outside_of_a_request_names_its_host(self, app: Flask) -> None:
        app.config["SERVER_NAME"] = "shop.example"
        with app.app_context():
            url = url_for("pusher.auth", _pusher_host="shop.example")
        assert url == "http://shop.example/pusher/auth"


class TestEveryHost:
    """Whatever host a page is of, it asks its own."""

    def check(self, app: Flask, bases: list[str]) -> None:
        extension = Pusher()
        extension.auth(lambda channel_name, socket_id: "open" in channel_name)
        extension.user_auth(lambda socket_id: {"id": 7})
        told: list[str] = []
        extension.webhooks.cache(lambda: told.append("cache"))
        extension.init_app(app)
        browser = app.test_client()
        for base in bases:
            fields = {"socket_id": "1.1", "channel_name": "private-open"}
            assert browser.post("/pusher/auth", base, data=fields).status_code == 200
            del fields["channel_name"]
            assert browser.post("/pusher/user-auth", base, data=fields).status_code == 200
            body = '{"events": []}'
            with app.app_context():
                headers = extension.sign_webhook(body)
            for path in ("/pusher/events", "/pusher/events/cache"):
                answer = browser.post(path, base, data=body, headers=headers)
                assert answer.status_code == 200
            with app.test_request_context("/", base):
                assert url_for("pusher.auth") == "/pusher/auth"
                options = json.loads(render_template_string("{{ pusher_options()|tojson }}"))
            assert options["channelAuthorization"]["endpoint"] == "/pusher/auth"
            assert options["userAuthentication"]["endpoint"] == "/pusher/user-auth"
        assert told == ["cache"] * len(bases)

    def test_under_host_matching(self) -> None:
        app = Flask("hosts", host_matching=True, static_host="static.example")
        app.config.update(CREDENTIALS)
        self.check(app, ["http://a.example", "http://b.example:8080", "http://static.example"])

    def test_under_subdomain_matching(self) -> None:
        app = Flask("subdomains", subdomain_matching=True)
        app.config.update(CREDENTIALS, SERVER_NAME="a.example")
        self.check(app, ["http://a.example", "http://shop.a.example"])

    def test_with_a_server_name_only(self) -> None:
        app = Flask("server_name")
        app.config.update(CREDENTIALS, SERVER_NAME="a.example")
        self.check(app, ["http://a.example"])

    def test_the_applications_own_routes_are_given_what_they_were(self) -> None:
        app = Flask("hosts", host_matching=True, static_host="static.example")
        app.config.update(CREDENTIALS)
        Pusher(app)
        app.add_url_rule("/<x>", "own", lambda x, host: f"{x} {host}", host="<host>")
        assert app.test_client().get("/a", "http://b.example").text == "a b.example"


class TestSubdomains:
    @pytest.fixture
    def app(self) -> Flask:
        app = Flask("an_app", subdomain_matching=True)
        app.config.update(CREDENTIALS, SERVER_NAME="shop.example")
        Pusher(app).auth(lambda channel_name, socket_id: True)
        for subdomain in (None, "<tenant>"):
            app.add_url_rule(
                "/page",
                f"page_{subdomain}",
                lambda **variables: render_template_string(ENDPOINT),
                subdomain=subdomain,
            )
        return app

    @pytest.mark.parametrize("host", ["shop.example", "ana.shop.example"])
    def test_a_page_asks_its_own_subdomain(self, app: Flask, host: str) -> None:
        browser = app.test_client()
        endpoint = browser.get("/page", base_url=f"http://{host}").text
        assert endpoint == "/pusher/auth"
        answer = browser.post(endpoint, base_url=f"http://{host}", data=FORM)
        assert answer.status_code == 200

    def test_an_url_outside_of_a_request_is_at_the_servers_name(self, app: Flask) -> None:
        with app.app_context():
            assert url_for("pusher.auth") == "http://shop.example/pusher/auth"


def test_a_handler_is_given_nothing_of_the_host() -> None:
    app = Flask("an_app", host_matching=True, static_host="static.example")
    app.config.update(CREDENTIALS)
    asked: list[Any] = []
    pusher = Pusher(app)

    @pusher.auth("private-<name>")
    def may_subscribe(channel_name: str, socket_id: str, **variables: Any) -> bool:
        asked.append(variables)
        return True

    app.test_client().post("/pusher/auth", base_url="http://shop.example", data=FORM)
    assert asked == [{"name": "news"}]


def test_an_application_below_a_path_has_them_there(app: Flask, pusher: Pusher) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    browser = Browser(DispatcherMiddleware(Flask("outer"), {"/shop": app}))
    assert browser.post("/shop/pusher/auth", data=FORM).status_code == 200
    assert browser.post("/pusher/auth", data=FORM).status_code == 404


# -- Collisions -----------------------------------------------------------------------------------


TWICE = r"of 'an_app' holds an object of type Client already\. Make one Pusher"


def test_a_second_pusher_on_an_application_is_an_error(app: Flask) -> None:
    Pusher(app)
    with pytest.raises(RuntimeError, match=TWICE):
        Pusher(app)


def test_init_app_twice_is_an_error(app: Flask) -> None:
    pusher = Pusher(app)
    with pytest.raises(RuntimeError, match=TWICE):
        pusher.init_app(app)


def test_a_client_of_the_applications_own_is_an_error_that_says_what_to_do(app: Flask) -> None:
    app.extensions["pusher"] = OwnClient()
    told = r"holds an object of type OwnClient already\. .*keep a client of your own under another"
    with pytest.raises(RuntimeError, match=told):
        Pusher(app)
    assert isinstance(app.extensions["pusher"], OwnClient)


class OwnClient:
    """As ``pusher.Pusher`` is, where an application has made it by hand."""


def test_a_blueprint_of_the_applications_own_is_an_error_and_changes_nothing(app: Flask) -> None:
    app.register_blueprint(Blueprint("pusher", __name__))
    with pytest.raises(ValueError, match="name 'pusher' is already registered"):
        Pusher(app)
    assert "pusher" not in app.extensions


def test_registering_the_blueprint_by_hand_is_an_error_that_says_what_to_do(app: Flask) -> None:
    with pytest.raises(RuntimeError, match=r"init_app\(app\) in place of app\.register_blueprint"):
        app.register_blueprint(Pusher().blueprint)

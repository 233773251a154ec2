"""The page's script, as browsers get it."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from flask import Flask, url_for
from flask.testing import FlaskClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client as Browser

from flask_pusher import Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp


@pytest.fixture
def address(app: Flask, pusher: Pusher) -> str:
    with app.test_request_context():
        return url_for("pusher.page")


def test_browsers_keep_the_script_for_ever_by_its_address(
    address: str, browser: FlaskClient
) -> None:
    answer = browser.get(address)
    assert answer.status_code == 200
    assert answer.mimetype == "text/javascript"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert b"data-pusher" in answer.data


@pytest.mark.parametrize("query", ["", "?v=an-older-one"])
def test_by_another_address_browsers_ask_each_time(
    address: str, browser: FlaskClient, query: str
) -> None:
    answer = browser.get(urlsplit(address).path + query)
    assert answer.headers["Cache-Control"] == "no-cache"

    again = browser.get(address, headers={"If-None-Match": answer.headers["ETag"]})

    assert again.status_code == 304
    assert again.data == b""


def test_the_script_is_small(address: str, browser: FlaskClient) -> None:
    assert len(gzip.compress(browser.get(address).data)) <= 5_000


def test_the_script_is_below_the_prefix_and_where_the_application_is_mounted(
    make_app: MakeApp,
) -> None:
    app = make_app()
    Pusher(app, url_prefix="/live")
    app.route("/")(lambda: url_for("pusher.page"))
    mounted = Browser(DispatcherMiddleware(Flask("outer"), {"/shop": app}))

    address = mounted.get("/shop/").text

    assert address.startswith("/shop/live/page.js?v=")
    assert mounted.get(address).status_code == 200


def test_the_script_is_at_every_host_that_the_application_answers_at() -> None:
    app = Flask("an_app", host_matching=True, static_host="static.example")
    app.config.update(PUSHER_APP_ID="1", PUSHER_KEY="a-key", PUSHER_SECRET="a-secret")
    Pusher(app)
    app.add_url_rule("/", view_func=lambda: url_for("pusher.page"), endpoint="home", host="<_>")
    app.url_value_preprocessor(lambda _endpoint, values: (values or {}).pop("_", None))
    for host in ("one.example", "two.example"):
        address = app.test_client().get("/", base_url=f"http://{host}").text
        assert app.test_client().get(address, base_url=f"http://{host}").status_code == 200


def test_the_script_is_found_outside_of_a_request_by_the_servers_name(make_app: MakeApp) -> None:
    app = make_app(Pusher(), SERVER_NAME="shop.example")
    with app.app_context():
        assert url_for("pusher.page").startswith("http://shop.example/pusher/page.js?v=")

"""A page needs no more than ``new Pusher(PUSHER_KEY, pusher_options())``, wherever the routes are."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, request
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_pusher import Pusher

from .conftest import NewName, OpenPage, Serve
from .inbox import Inbox


def accept_everyone(pusher: Pusher) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.user_auth(lambda socket_id: {"id": "ana"})


def assert_joins_and_signs_in(open_page: OpenPage, path: str, channel: str) -> None:
    page = open_page(path)
    page.subscribe(channel)
    assert page.has_joined(channel)
    page.run("signIn()")
    page.wait_until("pusher.user.user_data?.id === 'ana'")


def test_another_prefix_and_other_routes_are_followed(
    make_app: Callable[..., Flask], serve: Serve, open_page: OpenPage, new_name: NewName
) -> None:
    app = make_app(PUSHER_AUTH="/channels", PUSHER_USER_AUTH="/me")
    accept_everyone(Pusher(app, url_prefix="/realtime"))
    paths = Inbox()
    app.before_request(lambda: paths.put({"path": request.path}))
    serve(app)

    assert_joins_and_signs_in(open_page, "/page.html", new_name("private-orders"))
    paths.wait_for({"path": "/realtime/channels"})
    paths.wait_for({"path": "/realtime/me"})


def test_an_application_below_a_path_is_followed(
    app: Flask, serve: Serve, open_page: OpenPage, new_name: NewName
) -> None:
    accept_everyone(Pusher(app))
    serve(app, DispatcherMiddleware(NotFound(), {"/shop": app}))

    assert_joins_and_signs_in(open_page, "/shop/page.html", new_name("private-orders"))


def test_options_of_the_application_are_added(
    make_app: Callable[..., Flask], serve: Serve, open_page: OpenPage, new_name: NewName
) -> None:
    app = make_app(PUSHER_CLIENT_OPTIONS={"channelAuthorization": {"headers": {"X-From": "page"}}})
    pusher = Pusher(app)
    pusher.auth(lambda channel_name, socket_id: request.headers.get("X-From") == "page")
    serve(app)
    orders = new_name("private-orders")

    page = open_page()
    page.subscribe(orders)

    assert page.has_joined(orders)

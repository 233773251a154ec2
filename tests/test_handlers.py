"""Handlers: how they are declared, and what is no handler."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import BaseConverter, Map, UnicodeConverter

from flask_pusher import Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

Ask = Callable[[str], Any]


@pytest.fixture
def ask(browser: FlaskClient) -> Ask:
    def ask(channel: str) -> Any:
        form = {"socket_id": "1.2", "channel_name": channel}
        return browser.post("/pusher/auth", data=form)

    return ask


def allow(*users: str) -> Callable[..., Any]:
    """A function that makes handlers, all of one code."""
    return lambda channel_name, socket_id, **variables: "guest" in users


class Handler:
    """An object that can be called, and its method."""

    def __call__(self, channel_name: str, socket_id: str, x: str = "") -> bool:
        return True

    def handle(self, channel_name: str, socket_id: str, x: str = "") -> bool:
        return True


PAIRS: list[Callable[[], tuple[Callable[..., Any], Callable[..., Any]]]] = [
    lambda: (allow("admin"), allow("admin", "guest")),
    lambda: (allow("admin"), allow("admin")),
    lambda: (partial(allow("guest")), partial(allow("guest"))),
    lambda: (Handler(), Handler()),
    lambda: (Handler().handle, Handler().handle),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_two_objects_are_two_handlers_whatever_their_code(
    pair: Callable[[], tuple[Callable[..., Any], Callable[..., Any]]],
) -> None:
    one, other = pair()
    pusher = Pusher()
    pusher.auth("private-<x>")(one)
    with pytest.raises(ValueError, match=r"@pusher\.auth\('private-<x>'\) is declared twice"):
        pusher.auth("private-<x>")(other)
    pusher.channel_data("presence-<x>")(one)
    with pytest.raises(ValueError, match=r"\('presence-<x>'\) is declared twice"):
        pusher.channel_data("presence-<x>")(other)


def test_a_second_handler_of_users_is_an_error() -> None:
    pusher = Pusher()
    pusher.user_auth(lambda socket_id: None)
    with pytest.raises(ValueError, match=r"@pusher\.user_auth is declared twice"):
        pusher.user_auth(lambda socket_id: None)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_same_object_again_is_no_second_handler(
    pair: Callable[[], tuple[Callable[..., Any], Callable[..., Any]]], recwarn: Any
) -> None:
    handler, _ = pair()
    pusher = Pusher()
    for _time in range(2):
        assert pusher.auth("private-<x>")(handler) is handler
        assert pusher.auth(handler) is handler
        assert pusher.channel_data(handler) is handler
    assert len(pusher._handlers.auth.patterns) == 1


def test_a_stricter_handler_is_not_replaced_by_a_laxer_one(
    app: Flask, pusher: Pusher, ask: Ask
) -> None:
    pusher.auth("private-<x>")(allow("admin"))
    with pytest.raises(ValueError, match="make the Pusher in the factory too"):
        pusher.auth("private-<x>")(allow("admin", "guest"))
    assert ask("private-a").status_code == 403


def test_a_factory_that_runs_twice_is_told_and_changes_nothing(make_app: MakeApp) -> None:
    pusher = Pusher()

    def create_app(is_open: bool) -> Flask:
        app = make_app(pusher)
        pusher.auth("private-<x>")(lambda channel_name, socket_id, x: is_open)
        return app

    first = create_app(is_open=False)
    with pytest.raises(ValueError, match="Declare it at module level"):
        create_app(is_open=True)
    form = {"socket_id": "1.2", "channel_name": "private-a"}
    assert first.test_client().post("/pusher/auth", data=form).status_code == 403


@pytest.mark.parametrize("decorator", ["auth", "channel_data"])
def test_the_decorators_of_3_0_take_the_last_handler(decorator: str) -> None:
    pusher = Pusher()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _time in range(2):
            handler = allow("guest")
            getattr(pusher, decorator)(handler)
    assert getattr(pusher._handlers, decorator).bare.handler is handler


def test_replacing_a_handler_that_is_asked_already_is_warned_about_there(
    pusher: Pusher, ask: Ask
) -> None:
    pusher.auth(lambda channel_name, socket_id: False)
    with pytest.warns(UserWarning, match=r"@pusher\.auth is declared again") as told:
        pusher.auth(lambda channel_name, socket_id: True)
    assert told[0].filename == __file__
    assert ask("private-a").status_code == 200
    pusher.channel_data(lambda channel_name, socket_id: {"user_id": 7})
    with pytest.warns(UserWarning, match=r"@pusher\.channel_data is declared again") as told:
        pusher.channel_data(lambda channel_name, socket_id: {"user_id": 8})
    assert told[0].filename == __file__
    assert json.loads(ask("presence-a").get_json()["channel_data"])["user_id"] == "8"


@pytest.mark.parametrize("decorator", ["auth", "channel_data"])
def test_parentheses_around_nothing_are_an_error_that_says_what_to_write(decorator: str) -> None:
    with pytest.raises(TypeError, match=rf"Write @pusher\.{decorator} above it, without"):
        getattr(Pusher(), decorator)()


@pytest.mark.parametrize("handler", [7, b"private-<x>", ["private-<x>"]])
def test_what_cannot_be_called_is_no_handler(handler: Any) -> None:
    for declare in (
        Pusher().auth,
        Pusher().channel_data,
        Pusher().user_auth,
        Pusher().hand_over,
        Pusher().auth("private-<x>"),
    ):
        with pytest.raises(TypeError, match="is given a function; this is of type"):
            declare(handler)


class Called:
    def __init__(self, channel_name: str, socket_id: str) -> None: ...

    def one(self) -> bool:
        return True

    def both(self, channel_name: str, socket_id: str) -> bool:
        return True


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (lambda: True, "too many positional arguments"),
        (lambda channel: True, "too many positional arguments"),
        (lambda channel, socket, order: True, "missing a required argument: 'order'"),
        (lambda *, channel_name, socket_id: True, "too many positional arguments"),
        (Called("", "").one, "too many positional arguments"),
        (Called.both, "missing a required argument"),
        (partial(lambda role, channel_name: True, "admin"), "too many positional arguments"),
    ],
)
def test_a_handler_that_does_not_fit_is_an_error_where_it_is_declared(
    handler: Any, said: str
) -> None:
    for declare in (Pusher().auth, Pusher().channel_data, Pusher().auth("private-a")):
        with pytest.raises(TypeError, match=said) as error:
            declare(handler)
        assert "is called with channel_name, socket_id: " in str(error.value)


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (lambda channel_name, socket_id: True, "unexpected keyword argument 'order_id'"),
        (lambda channel_name, socket_id, order: True, "'order'"),
        (lambda order_id, socket_id: True, "'order_id'"),
        (lambda channel_name, socket_id, order_id, /: True, "order_id"),
        (lambda order_id, socket_id: True, "multiple values"),
    ],
)
def test_a_handler_takes_its_patterns_variables_by_name(handler: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said) as error:
        Pusher().auth("private-order-<int:order_id>")(handler)
    assert "channel_name, socket_id, order_id=...: " in str(error.value)


def test_handlers_of_other_decorators_have_to_fit_as_well() -> None:
    pusher = Pusher()
    wrong: Any = lambda: None
    with pytest.raises(TypeError, match=r"@pusher\.user_auth: .* is called with socket_id: too"):
        pusher.user_auth(wrong)
    with pytest.raises(TypeError, match=r"@pusher\.hand_over: .* is called with calls: too"):
        pusher.hand_over(wrong)


def _needs_user(handler: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(handler)
    def asked(*arguments: Any, **variables: Any) -> Any:
        return handler(*arguments, user="ana", **variables)

    return asked


@pytest.mark.parametrize(
    "handler",
    [
        lambda *arguments: True,
        lambda *arguments, **variables: True,
        lambda channel, socket: True,
        lambda channel_name, socket_id, order_id=None: True,
        _needs_user(lambda channel_name, socket_id, user: True),
        partial(lambda role, channel_name, socket_id: True, "admin"),
        Called("", "").both,
        Called,
        max,
        dict,
    ],
)
def test_what_cannot_be_known_to_fail_is_a_handler(handler: Any) -> None:
    assert Pusher().auth(handler) is handler


@pytest.mark.parametrize(
    ("decorator", "written"),
    [("user_auth", "@pusher.user_auth"), ("hand_over", "@pusher.hand_over")],
)
def test_parentheses_say_what_to_write(decorator: str, written: str) -> None:
    with pytest.raises(TypeError, match=f"Write {written} above it, without parentheses"):
        getattr(Pusher(), decorator)()


def test_a_converter_that_is_nearly_one_is_told(app: Flask) -> None:
    pusher = Pusher()
    pusher.auth("private-<integer:n>")(lambda channel_name, socket_id, n: True)
    with pytest.raises(LookupError, match=r"no converter 'integer'\. Is 'int' meant\?"):
        pusher.init_app(app)


def test_a_converter_that_is_unknown_at_a_late_declaration_is_told_at_the_request(
    app: Flask, pusher: Pusher, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    pusher.auth("private-<weekday:d>")(lambda channel_name, socket_id, d: True)
    assert ask("private-monday").status_code == 500
    assert "@pusher.auth('private-<weekday:d>'): there is no converter 'weekday'" in caplog.text
    assert "Add it to app.url_map.converters" in caplog.text
    app.url_map.converters["weekday"] = UnicodeConverter
    assert ask("private-monday").status_code == 200


def test_an_own_converters_arguments_are_checked_when_it_is_known(app: Flask) -> None:
    class Strict(BaseConverter):
        def __init__(self, url_map: Map) -> None:
            super().__init__(url_map)

    app.url_map.converters["strict"] = Strict
    pusher = Pusher()
    pusher.auth("private-<strict(bad=1):n>")(lambda channel_name, socket_id, n: True)
    with pytest.raises(ValueError, match=r"@pusher\.auth\('private-<strict.* is malformed"):
        pusher.init_app(app)


def test_an_own_converters_expression_that_is_none_is_an_error(app: Flask) -> None:
    class Broken(BaseConverter):
        regex = "["

    app.url_map.converters["broken"] = Broken
    pusher = Pusher()
    pusher.auth("private-<broken:n>")(lambda channel_name, socket_id, n: True)
    with pytest.raises(ValueError, match=r"@pusher\.auth\('private-<broken:n>'\) is malformed"):
        pusher.init_app(app)


def test_handlers_can_be_declared_while_requests_run(app: Flask, pusher: Pusher) -> None:
    """Each request finds all that was declared before it, and nothing that is half done."""
    pusher.auth("private-first-<x>")(lambda channel_name, socket_id, x: True)
    statuses: list[int] = []
    is_over = threading.Event()

    def browse() -> None:
        browser = app.test_client()
        while not is_over.is_set():
            form = {"socket_id": "1.2", "channel_name": "private-first-a"}
            statuses.append(browser.post("/pusher/auth", data=form).status_code)

    threads = [threading.Thread(target=browse) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        browser = app.test_client()
        for number in range(60):
            pattern = f"private-kind{number}-<x>"
            pusher.auth(pattern)(lambda channel_name, socket_id, x: True)
            form = {"socket_id": "1.2", "channel_name": f"private-kind{number}-a"}
            assert browser.post("/pusher/auth", data=form).status_code == 200
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}

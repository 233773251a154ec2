"""What a handler's answer means: consent, a refusal, or a mistake of the application's."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from flask import Flask, Response, abort, redirect, request, session
from flask.testing import FlaskClient
from markupsafe import Markup
from sqlalchemy import Column, Integer, create_engine, select
from sqlalchemy.orm import Session, declarative_base
from werkzeug.exceptions import Forbidden
from werkzeug.local import LocalProxy
from werkzeug.routing import RequestRedirect

from flask_pusher import Pusher

SOCKET_ID = "123.456"
Post = Callable[..., Any]
Base: Any = declarative_base()


class Order(Base):  # type: ignore[misc]
    __tablename__ = "orders"
    id = Column(Integer, primary_key=True)


class User:
    """As most classes of users are: true, and nothing else."""


class Anonymous:
    """As Flask-Login's and Django's users are for whom nobody has logged in."""

    def __init__(self, is_authenticated: Any = False) -> None:
        self.is_authenticated = is_authenticated


class Account:
    @property
    def is_admin(self) -> bool:
        return False


class Numbered:
    """Can be iterated as before there was ``__iter__``."""

    def __getitem__(self, number: int) -> int:
        raise IndexError


class Row(NamedTuple):
    is_allowed: bool
    reason: str


LOOP = asyncio.new_event_loop()


def _raise(error: Exception) -> Any:
    raise error


async def refuse_later() -> bool:
    raise AssertionError("never awaited")


def refuse_by_yielding() -> Iterator[bool]:
    yield False


async def refuse_by_yielding_later() -> AsyncIterator[bool]:
    yield False


def query() -> Any:
    return Session(create_engine("sqlite://")).query(Order).filter_by(id=7)


def row_of_sqlite() -> Any:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    row = connection.execute("SELECT 0 AS is_allowed, 'why' AS reason").fetchone()
    connection.close()
    return row


def row_of_sqlalchemy() -> Any:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT 0 AS is_allowed, 'why' AS reason").one()
    engine.dispose()
    return row


@pytest.fixture
def post(browser: FlaskClient) -> Post:
    """Asks at a route as a page does."""

    def post(path: str = "auth", **fields: Any) -> Any:
        return browser.post(f"/pusher/{path}", data={"socket_id": SOCKET_ID, **fields})

    return post


def answers(pusher: Pusher, post: Post, handler: Callable[..., Any]) -> list[int]:
    """The status with which each of the decorators' handlers is answered, and a batch's."""
    pusher.auth("private-<x>")(lambda channel_name, socket_id, x: handler())
    pusher.auth("presence-<x>")(lambda channel_name, socket_id, x: True)
    pusher.channel_data(lambda channel_name, socket_id: handler())
    pusher.user_auth(lambda socket_id: handler())
    batch = post(**{"channel_name[0]": "private-a", "channel_name[1]": "presence-a"})
    return [
        post(channel_name="private-a").status_code,
        post(channel_name="presence-a").status_code,
        post("user-auth").status_code,
        *([part["status"] for part in batch.get_json().values()] if batch.is_json else []),
    ]


def warnings_in(reasons: pytest.LogCaptureFixture) -> list[str]:
    found = [record for record in reasons.records if record.levelno >= logging.WARNING]
    return [record.getMessage() for record in found]


# -- No -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [False, 0, 0.0, "", b"", (), [], set(), LocalProxy(set)])
def test_what_is_false_or_empty_is_a_no(
    pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture, returned: Any
) -> None:
    assert answers(pusher, post, lambda: returned) == [403] * 5
    assert warnings_in(reasons) == []
    assert reasons.text.count(") returned ") + reasons.text.count("returned (") >= 5


@pytest.mark.parametrize(
    "returned", [Anonymous(), Anonymous(None), Anonymous(""), LocalProxy(Anonymous)]
)
def test_a_user_who_is_not_authenticated_is_a_no(
    pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture, returned: Any
) -> None:
    assert answers(pusher, post, lambda: returned) == [403] * 5
    assert warnings_in(reasons) == []
    assert reasons.text.count("Anonymous object at") >= 5


@pytest.mark.parametrize("returned", [None, {}, LocalProxy(lambda: None), LocalProxy(dict)])
def test_nothing_and_an_empty_dict_are_a_no_but_for_presence_data(
    pusher: Pusher, post: Post, returned: Any
) -> None:
    assert answers(pusher, post, lambda: returned) == [403, 200, 403, 403, 200]


def test_a_forgotten_return_is_told(
    pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture
) -> None:
    @pusher.auth
    def may_subscribe(channel_name: str, socket_id: str) -> Any:
        channel_name.startswith("private-")

    assert post(channel_name="private-news").status_code == 403
    assert reasons.text.endswith(
        ".may_subscribe() returned None for 'private-news'. Is a return missing?\n"
    )


def test_what_a_handler_returned_is_told_and_not_to_the_page(
    pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture
) -> None:
    class Gate:
        def __call__(self, channel_name: str, socket_id: str) -> bool:
            return False

    pusher.auth(Gate())
    answer = post(channel_name="private-news")
    assert answer.status_code == 403
    assert "Gate() returned False for 'private-news'.\n" in reasons.text
    assert "missing" not in reasons.text
    assert "Gate" not in answer.text


# -- What a view could answer with ----------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: "Unauthorized",
        lambda: b"Unauthorized",
        lambda: bytearray(b"Unauthorized"),
        lambda: Markup("<form>"),
        lambda: ["no"],
        lambda: deque(["no"]),
        lambda: (0, "why"),
        lambda: (False, "why"),
        lambda: (None, "why", 7),
        lambda: (True, "why"),
        lambda: (False, 403),
        lambda: (1, 2, 3, 4),
        lambda: ("ana", 7),
        lambda: ("ana", ["a", "b"]),
        lambda: ("ana", datetime(2026, 1, 1)),
        lambda: ("ana", Decimal("9.5")),
        lambda: ("ana", UUID(int=1)),
        lambda: ("ana", 1.5),
        lambda: ("ana", None, {1: 2}),
        lambda: Row(False, "why"),
        lambda: Row(True, ""),
        row_of_sqlalchemy,
        lambda: Response("not a signature", 200),
        lambda: redirect("/login"),
        lambda: ("see", 303, {"Location": "/login"}),
        lambda: ("fine", 200),
        lambda: ("fine", "200 OK"),
        lambda: (Response("fine"), {"X-Reason": "none"}),
        lambda: RequestRedirect("http://localhost/login"),
        lambda: abort(redirect("/login")),
        lambda: abort(Response("not a signature", 200)),
        lambda: _raise(RequestRedirect("http://localhost/login")),
        lambda: LocalProxy(lambda: "Unauthorized"),
        lambda: LocalProxy(lambda: LocalProxy(lambda: ["no"])),
    ],
)
def test_what_a_view_could_answer_with_is_never_consent(
    pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture, make: Callable[[], Any]
) -> None:
    assert answers(pusher, post, make) == [403] * 5
    told = warnings_in(reasons)
    assert len(told) == 5
    assert "Return True or False" in told[0]
    assert "Return a dict, or None" in told[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"error": "log in"},
        row_of_sqlite,
        lambda: session._get_current_object(),  # type: ignore[attr-defined]
        lambda: session,
    ],
)
def test_a_dict_is_data_and_no_consent(
    app: Flask,
    pusher: Pusher,
    post: Post,
    reasons: pytest.LogCaptureFixture,
    make: Callable[[], Any],
) -> None:
    @app.before_request
    def fill() -> None:
        session["id"] = 7

    statuses = answers(pusher, post, lambda: make())
    assert [statuses[0], statuses[3]] == [403, 403]
    assert [statuses[1], statuses[4]] == [200, 200]
    told = [line for line in warnings_in(reasons) if "Return True or False" in line]
    assert len(told) == 2
    assert all("answers strangers with such a thing" in line for line in told)


def test_the_warning_says_who_returned_what_and_nothing_of_what_is_in_it(
    pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture
) -> None:
    @pusher.auth
    def may_subscribe(channel_name: str, socket_id: str) -> Any:
        return 7, "ana", "a hash of a password"

    assert post(channel_name="private-news").status_code == 403
    (told,) = warnings_in(reasons)
    assert "may_subscribe() returned a tuple." in told
    assert "bool(...)" in told
    assert "password" not in reasons.text


@pytest.mark.parametrize(
    ("returned", "status", "body"),
    [
        (("no", 400), 400, "no"),
        (("no", 401), 401, "no"),
        (("no", 599), 599, "no"),
        (("no", "409 Conflict"), 409, "no"),
        (("no", 401, {"X-Reason": "none"}), 401, "no"),
        (({"error": "no"}, 409), 409, "error"),
        (Forbidden("not yours"), 403, "not yours"),
        (Response("gone", 410), 410, "gone"),
        ((Response("gone", 410), {"X-Reason": "none"}), 410, "gone"),
        (LocalProxy(lambda: ("no", 401)), 401, "no"),
    ],
)
def test_what_a_view_refuses_with_is_the_answer(
    pusher: Pusher,
    post: Post,
    reasons: pytest.LogCaptureFixture,
    returned: Any,
    status: int,
    body: str,
) -> None:
    assert answers(pusher, post, lambda: returned) == [status] * 5
    assert body in post(channel_name="private-news").text
    assert f"() refused with status {status}." in reasons.text
    assert warnings_in(reasons) == []


@pytest.mark.parametrize("status", [400, 401, 402, 503])
def test_a_handler_may_abort_with_a_status_of_its_own(
    pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture, status: int
) -> None:
    refusal = Response("no", 402) if status == 402 else status
    assert answers(pusher, post, lambda: abort(refusal)) == [status] * 5
    assert reasons.text.count(f"() refused with status {status}.") == 5


def test_a_status_that_is_none_is_no_answer(pusher: Pusher, post: Post) -> None:
    assert answers(pusher, post, lambda: ("ana", 1000)) == [403] * 5


def test_an_applications_error_handler_words_an_abort(
    app: Flask, pusher: Pusher, post: Post
) -> None:
    app.register_error_handler(401, lambda error: ({"error": "log in"}, 401))
    pusher.auth(lambda channel_name, socket_id: abort(401))
    assert post(channel_name="private-news").get_json() == {"error": "log in"}


# -- What has not run, or is always true ----------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: refuse_later(), "coroutine, and has not run"),
        (lambda: refuse_by_yielding(), "generator, and has not run"),
        (lambda: (order for order in [7]), "generator, and has not run"),
        (lambda: refuse_by_yielding_later(), "async_generator, and has not run"),
        (lambda: asyncio.Future(loop=LOOP), "Future, and has not run"),
        (lambda: asyncio.Task(asyncio.sleep(0), loop=LOOP), "Task, and has not run"),
        (Future, "Future, which is true whatever"),
        (lambda: filter(None, [0]), "filter, which is true whatever"),
        (lambda: lambda: False, "function, which is true whatever"),
        (lambda: partial(bool, 0), "partial, which is true whatever"),
        (lambda: [].append, "builtin_function_or_method, which is true whatever"),
        (lambda: Forbidden, "type, which is true whatever"),
        (lambda: vars(Account)["is_admin"], "property, which is true whatever"),
        (Numbered, "Numbered, which is true whatever"),
        (lambda: PermissionError("no"), "PermissionError, which is true whatever"),
        (query, "Query, which is true whatever"),
        (lambda: LocalProxy(query), "Query, which is true whatever"),
        (lambda: select(Order), "Boolean value of this clause is not defined"),
    ],
)
def test_it_is_an_error_that_says_so_and_no_consent(
    app: Flask, pusher: Pusher, post: Post, make: Callable[[], Any], said: str
) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = True
    returned = make()
    pusher.auth(lambda channel_name, socket_id: returned)
    pusher.auth("presence-<x>")(lambda channel_name, socket_id, x: True)
    pusher.channel_data(lambda channel_name, socket_id: returned)
    pusher.user_auth(lambda socket_id: returned)
    for fields in (
        {"channel_name": "private-news"},
        {"channel_name": "presence-news"},
        {"channel_name[0]": "private-news"},
        {"path": "user-auth"},
    ):
        with pytest.raises(TypeError, match=said):
            post(**fields)
    if isinstance(returned, asyncio.Task):
        LOOP.run_until_complete(returned)
    elif hasattr(returned, "close"):
        returned.close()


def test_a_coroutine_function_is_asked_as_any_other(pusher: Pusher, post: Post) -> None:
    pytest.importorskip("asgiref")

    @pusher.auth
    async def may_subscribe(channel_name: str, socket_id: str) -> bool:
        return channel_name == "private-news"

    assert post(channel_name="private-news").status_code == 200
    assert post(channel_name="private-olds").status_code == 403


# -- Yes ------------------------------------------------------------------------------------------


class Flag:
    """Can be called and iterated, and has a truth of its own."""

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("not asked")

    __call__ = __iter__


@pytest.mark.parametrize(
    "consent",
    [
        *(True, 1, 7.5, User(), object(), {"admin"}, frozenset({1}), {1: 2}.keys(), Flag()),
        re.match("private-(.*)", "private-news"),
    ],
)
def test_any_other_true_object_is_consent_and_no_data(
    app: Flask, pusher: Pusher, post: Post, consent: Any
) -> None:
    assert answers(pusher, post, lambda: consent)[:3] == [200, 500, 500]
    pusher.auth(lambda channel_name, socket_id: LocalProxy(lambda: consent))
    assert post(channel_name="private-news").status_code == 200


def test_an_error_in_a_handler_is_the_applications_own(pusher: Pusher, post: Post) -> None:
    assert answers(pusher, post, lambda: 1 // 0 > 0) == [500, 500, 500]


def test_a_handler_sees_the_request(pusher: Pusher, post: Post) -> None:
    pusher.auth(lambda channel_name, socket_id: request.path == "/pusher/auth")
    assert post(channel_name="private-news").status_code == 200


# -- Errors that the application handles ----------------------------------------------------------


class QuotaError(Exception):
    """An application's own."""


THREE = {f"channel_name[{n}]": f"private-{n}" for n in range(3)}


class TestHandledErrors:
    @pytest.fixture
    def pusher(self, pusher: Pusher) -> Pusher:
        """The extension of an application that raises for the second channel."""

        @pusher.auth
        def may_subscribe(channel_name: str, socket_id: str) -> bool:
            if channel_name == "private-1":
                raise QuotaError
            return True

        return pusher

    def statuses(self, answer: Any) -> list[int]:
        assert answer.status_code == 200
        return [part["status"] for part in answer.get_json().values()]

    @pytest.mark.parametrize("status", [400, 403, 429, 503])
    @pytest.mark.parametrize("kind", [QuotaError, Exception])
    def test_a_refusal_is_for_the_channel(
        self,
        app: Flask,
        pusher: Pusher,
        post: Post,
        reasons: pytest.LogCaptureFixture,
        status: int,
        kind: type[Exception],
    ) -> None:
        app.register_error_handler(kind, lambda error: ("no", status))
        assert self.statuses(post(**THREE)) == [200, status, 200]
        assert post(channel_name="private-1").status_code == status
        assert "QuotaError was raised for the channel 'private-1'" in reasons.text
        assert warnings_in(reasons) == []

    @pytest.mark.parametrize("page", ["Sorry!", ("Sorry!", 200), redirect("/login")])
    def test_no_page_makes_a_grant(
        self,
        app: Flask,
        pusher: Pusher,
        post: Post,
        reasons: pytest.LogCaptureFixture,
        page: Any,
    ) -> None:
        app.register_error_handler(QuotaError, lambda error: page)
        answer = post(**THREE)
        assert self.statuses(answer) == [200, 403, 200]
        assert "data" not in answer.get_json()["private-1"]
        assert post(channel_name="private-1").status_code == 403
        assert len(warnings_in(reasons)) == 2

    def test_one_of_the_blueprint_is_asked_first(
        self, make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture
    ) -> None:
        pusher = Pusher()
        pusher.blueprint.register_error_handler(QuotaError, lambda error: ("no", 418))

        @pusher.auth
        def may_subscribe(channel_name: str, socket_id: str) -> bool:
            raise QuotaError

        app = make_app(pusher)
        app.register_error_handler(QuotaError, lambda error: ("no", 403))
        fields = {"socket_id": SOCKET_ID, "channel_name[0]": "private-a"}
        answer = app.test_client().post("/pusher/auth", data=fields)
        assert self.statuses(answer) == [418]

    def test_a_bug_stays_a_500(self, pusher: Pusher, post: Post) -> None:
        answer = post(**THREE)
        assert answer.status_code == 500
        assert "auth" not in answer.text

    @pytest.mark.parametrize("failure", [ZeroDivisionError(), Forbidden(), QuotaError()])
    def test_an_error_handler_that_fails_is_one(
        self, app: Flask, pusher: Pusher, post: Post, failure: Exception
    ) -> None:
        app.register_error_handler(QuotaError, lambda error: _raise(failure))
        assert post(**THREE).status_code == 500
        assert post(channel_name="private-1").status_code == 500

"""User authentication: what ``pusher.signin()`` gets."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, abort
from flask.testing import FlaskClient

from flask_pusher import Pusher

Sign = Callable[[str], str]
Post = Callable[..., Any]


@pytest.fixture(params=["form", "json"])
def sign_in(request: pytest.FixtureRequest, browser: FlaskClient) -> Post:
    def sign_in(**fields: Any) -> Any:
        fields.setdefault("socket_id", "1.2")
        return browser.post("/pusher/user-auth", **{"data" if as_form else "json": fields})

    as_form = request.param == "form"
    return sign_in


@pytest.mark.parametrize(
    ("returned", "user_data"),
    [
        ({"id": "ana"}, {"id": "ana"}),
        ({"id": 7}, {"id": "7"}),
        ({"id": 0}, {"id": "0"}),
        ({"id": uuid.UUID(int=7)}, {"id": "00000000-0000-0000-0000-000000000007"}),
        ({"id": "ana@a.example"}, {"id": "ana@a.example"}),
        (
            {"id": 7, "user_info": {"name": "Ana"}, "watchlist": ["8", "9"]},
            {"id": "7", "user_info": {"name": "Ana"}, "watchlist": ["8", "9"]},
        ),
    ],
)
def test_a_user_is_signed_in(
    pusher: Pusher, sign_in: Post, sign: Sign, returned: Any, user_data: Any
) -> None:
    seen: list[str] = []

    @pusher.user_auth
    def user(socket_id: str) -> Any:
        seen.append(socket_id)
        return returned

    answer = sign_in()
    assert answer.status_code == 200
    content = answer.get_json()
    assert json.loads(content["user_data"]) == user_data
    assert content["auth"] == f"a-key:{sign('1.2::user::' + content['user_data'])}"
    assert seen == ["1.2"]


@pytest.mark.parametrize("returned", [None, False])
def test_nobody_is_signed_in_where_the_handler_gives_nobody(
    pusher: Pusher, sign_in: Post, returned: Any
) -> None:
    pusher.user_auth(lambda socket_id: returned)
    assert sign_in().status_code == 403


def test_nobody_is_signed_in_without_a_handler(pusher: Pusher, sign_in: Post) -> None:
    assert sign_in().status_code == 403


@pytest.mark.parametrize(
    "refuse", [lambda socket_id: abort(401), lambda socket_id: Response("Log in", 401)]
)
def test_a_handler_may_refuse_with_a_status_of_its_own(
    pusher: Pusher, sign_in: Post, refuse: Callable[[str], Any]
) -> None:
    pusher.user_auth(refuse)
    assert sign_in().status_code == 401


@pytest.mark.parametrize("socket_id", ["", "1", "1.2 ", "a.b", "\u0661.\u0662"])
def test_a_socket_id_of_another_form_is_400(pusher: Pusher, sign_in: Post, socket_id: str) -> None:
    pusher.user_auth(lambda socket_id: {"id": 7})
    assert sign_in(socket_id=socket_id).status_code == 400


@pytest.mark.parametrize("body", [b"[]", b"5", b"[" * 5000, b"\xff", b""])
def test_json_that_is_no_object_is_400(pusher: Pusher, browser: FlaskClient, body: bytes) -> None:
    pusher.user_auth(lambda socket_id: {"id": 7})
    answer = browser.post("/pusher/user-auth", data=body, content_type="application/json")
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("returned", "error", "said"),
    [
        ({}, ValueError, "'id' is a number, or text.* is None"),
        ({"name": "Ana"}, ValueError, "is None"),
        ({"id": None}, ValueError, "is None"),
        ({"id": "a b"}, ValueError, "is 'a b'"),
        ({"id": ""}, ValueError, "is ''"),
        ({"id": "a" * 201}, ValueError, "1 to 200"),
        ({"id": ["7"]}, ValueError, r"is \['7'\]"),
        ({"id": False}, ValueError, "is False"),
        ({"id": True}, ValueError, "is True"),
        (True, TypeError, "returned bool"),
        ("ana", TypeError, "returned str"),
    ],
)
def test_a_user_that_cannot_be_is_an_error_that_says_so(
    app: Flask,
    pusher: Pusher,
    sign_in: Post,
    returned: Any,
    error: type[Exception],
    said: str,
) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = True
    pusher.user_auth(lambda socket_id: returned)
    with pytest.raises(error, match=said):
        sign_in()

"""Who the user of a page is, and which connection a request came from."""

from __future__ import annotations

import enum
import json
import uuid
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response, abort, request
from flask.testing import FlaskClient
from werkzeug.local import LocalProxy

from flask_pusher import Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

Sign = Callable[[str], str]
Post = Callable[..., Any]

ANA = {"name": "Ana"}
NAN = float("nan")


class Users(str, enum.Enum):
    ANA = "ana"


class Numbers(enum.IntEnum):
    ANA = 7


NINE = "00000000-0000-0000-0000-000000000009"


class TestUsers:
    """Who is behind ``pusher.signin()``."""

    @pytest.fixture(params=["form", "json"])
    def sign_in(self, request: pytest.FixtureRequest, browser: FlaskClient) -> Post:
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
            ({"id": "a" * 184}, {"id": "a" * 184}),
            ({"id": Users.ANA, "watchlist": [Numbers.ANA]}, {"id": "ana", "watchlist": ["7"]}),
            ({"id": 7, "user_info": MappingProxyType(ANA)}, {"id": "7", "user_info": ANA}),
            (LocalProxy(lambda: {"id": 7}), {"id": "7"}),
            ({"id": 7, "user_info": None, "watchlist": None}, {"id": "7"}),
            (MappingProxyType({"id": 7}), {"id": "7"}),
            ({"id": 7, "watchlist": [8, uuid.UUID(int=9)]}, {"id": "7", "watchlist": ["8", NINE]}),
            ({"id": 7, "watchlist": (8,)}, {"id": "7", "watchlist": ["8"]}),
            ({"id": 7, "watchlist": {8}}, {"id": "7", "watchlist": ["8"]}),
            (
                {"id": 7, "user_info": {"name": "Ana"}, "watchlist": ["8", "9"]},
                {"id": "7", "user_info": {"name": "Ana"}, "watchlist": ["8", "9"]},
            ),
        ],
    )
    def test_a_user_is_signed_in(
        self, pusher: Pusher, sign_in: Post, sign: Sign, returned: Any, user_data: Any
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

    @pytest.mark.parametrize("length", [100, 101])
    def test_a_watchlist_that_is_too_long_is_warned_of(
        self, pusher: Pusher, sign_in: Post, caplog: pytest.LogCaptureFixture, length: int
    ) -> None:
        @pusher.user_auth
        def user(socket_id: str) -> Any:
            return {"id": "ana", "watchlist": list(range(length))}

        watchlist = json.loads(sign_in().get_json()["user_data"])["watchlist"]
        assert len(watchlist) == length
        warnings = [record.getMessage() for record in caplog.records]
        assert len(warnings) == (length > 100)
        assert all("user() returned a 'watchlist' of 101 ids" in warning for warning in warnings)

    @pytest.mark.parametrize("returned", [None, False, {}, (False, "why"), (None, "why"), "ana"])
    def test_nobody_is_signed_in_where_the_handler_gives_nobody(
        self, pusher: Pusher, sign_in: Post, returned: Any
    ) -> None:
        pusher.user_auth(lambda socket_id: returned)
        assert sign_in().status_code == 403

    def test_nobody_is_signed_in_without_a_handler_and_that_is_told(
        self, pusher: Pusher, sign_in: Post, reasons: pytest.LogCaptureFixture
    ) -> None:
        assert sign_in().status_code == 403
        (told,) = reasons.messages
        assert told == "Refused at /pusher/user-auth: no @pusher.user_auth handler is declared."

    @pytest.mark.parametrize(
        "refuse", [lambda socket_id: abort(401), lambda socket_id: Response("Log in", 401)]
    )
    def test_a_handler_may_refuse_with_a_status_of_its_own(
        self, pusher: Pusher, sign_in: Post, refuse: Callable[[str], Any]
    ) -> None:
        pusher.user_auth(refuse)
        assert sign_in().status_code == 401

    @pytest.mark.parametrize("field", ["channel_name", "channel_name[0]", "channel_name[7]"])
    @pytest.mark.parametrize("channel", ["private-a", "presence-a", ""])
    def test_one_that_asks_for_a_channel_is_told_where_to_ask(
        self,
        pusher: Pusher,
        sign_in: Post,
        reasons: pytest.LogCaptureFixture,
        field: str,
        channel: str,
    ) -> None:
        pusher.user_auth(lambda socket_id: {"id": 7})
        answer = sign_in(**{field: channel})
        assert answer.status_code == 400
        assert "/pusher/auth" in answer.text
        (told,) = reasons.messages
        assert told.startswith("Refused at /pusher/user-auth: Users sign in here")

    @pytest.mark.parametrize("socket_id", ["", "1", "1.2 ", "a.b", "\u0661.\u0662"])
    def test_a_socket_id_of_another_form_is_400(
        self, pusher: Pusher, sign_in: Post, socket_id: str
    ) -> None:
        pusher.user_auth(lambda socket_id: {"id": 7})
        assert sign_in(socket_id=socket_id).status_code == 400

    @pytest.mark.usefixtures("no_collection")
    @pytest.mark.parametrize("body", [b"[]", b"5", b"[" * 5000, b"\xff", b""])
    def test_json_that_is_no_object_is_400(
        self, pusher: Pusher, browser: FlaskClient, body: bytes
    ) -> None:
        pusher.user_auth(lambda socket_id: {"id": 7})
        answer = browser.post("/pusher/user-auth", data=body, content_type="application/json")
        assert answer.status_code == 400

    @pytest.mark.parametrize(
        ("returned", "error", "said"),
        [
            ({"user_id": 7}, ValueError, "as 'id' a number, or text of 1 to 184 .* returned None"),
            ({"id": None}, ValueError, "as 'id' a number, or text of 1 to 184 .* returned None"),
            ({"id": "a b"}, ValueError, "returned 'a b'"),
            ({"id": "é"}, ValueError, "A-Z a-z 0-9"),
            ({"id": ""}, ValueError, "returned ''"),
            ({"id": "a" * 185}, ValueError, "1 to 184"),
            ({"id": ["7"]}, ValueError, r"returned \['7'\]"),
            ({"id": False}, ValueError, "returned False"),
            ({"id": True}, ValueError, "returned True"),
            (True, TypeError, "should return a dict, or None; it returned a bool"),
            (7, TypeError, "it returned a int"),
            ({"id": 7, "user_info": "Ana"}, TypeError, "'user_info' that is a dict"),
            ({"id": 7, "watchlist": "8"}, TypeError, "a 'watchlist' that is a list of ids"),
            ({"id": NAN}, ValueError, "returned nan"),
            ({"id": 7, "watchlist": [8, ""]}, ValueError, "as each id of 'watchlist' a number"),
            ({"id": 7, "score": float("nan")}, ValueError, "is not JSON"),
        ],
    )
    def test_a_user_that_cannot_be_is_an_error_that_says_so(
        self,
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


class TestSocketId:
    """The connection of the page that sent a request."""

    @pytest.mark.usefixtures("no_collection")
    @pytest.mark.parametrize(
        ("sent", "socket_id"),
        [
            ({"headers": {"X-Socket-ID": "1.2"}}, "1.2"),
            ({"data": {"socket_id": "1.2"}}, "1.2"),
            ({"data": {"socket_id": "1.2"}, "content_type": "multipart/form-data"}, "1.2"),
            ({"json": {"socket_id": "1.2"}}, "1.2"),
            ({"headers": {"X-Socket-ID": "1.2"}, "data": {"socket_id": "3.4"}}, "1.2"),
            ({"headers": {"X-Socket-ID": "1.2"}, "json": {}}, "1.2"),
            ({"headers": {"X-Socket-ID": "undefined"}, "data": {"socket_id": "3.4"}}, "3.4"),
            ({"headers": {"X-Socket-ID": ""}, "json": {"socket_id": "3.4"}}, "3.4"),
            ({"headers": {"X-Socket-ID": "null"}, "data": {"socket_id": "null"}}, None),
            ({"headers": {"X-Socket-ID": ""}}, None),
            ({"headers": {"X-Socket-ID": "1.2, 3.4"}}, None),
            ({"data": {"socket_id": "\u0661.\u0662"}}, None),
            ({"data": {"socket_id": ""}}, None),
            ({"data": {"socket_id": "1." + "1" * 21}}, None),
            ({"json": {"socket_id": 1.2}}, None),
            ({"json": ["1.2"]}, None),
            ({"json": {}}, None),
            ({"data": b"{", "content_type": "application/json"}, None),
            ({"data": b"[" * 100_000, "content_type": "application/json"}, None),
            ({"data": b'{"socket_id": "1.2"}', "content_type": "application/octet-stream"}, None),
            ({"query_string": {"socket_id": "1.2"}}, None),
            ({}, None),
        ],
    )
    def test_it_comes_from_the_header_or_else_from_the_form_or_json_object(
        self, app: Flask, pusher: Pusher, sent: dict[str, Any], socket_id: str | None
    ) -> None:
        with app.test_request_context("/", method="POST", **sent):
            assert pusher.socket_id == socket_id

    @pytest.mark.parametrize("headers", [{}, {"X-Socket-ID": "1.2"}])
    def test_the_view_can_read_the_body_as_without_it(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, headers: dict[str, str]
    ) -> None:
        @app.post("/form")
        def form() -> Any:
            assert pusher.socket_id == "1.2"
            return [request.get_data(as_text=True), request.form["text"]]

        @app.post("/json")
        def json_object() -> Any:
            assert pusher.socket_id == "1.2"
            return [request.get_data(as_text=True), request.json["text"]]

        fields = {"socket_id": "1.2", "text": "a"}
        answer = browser.post("/form", data=fields, headers=headers)
        assert answer.get_json() == ["socket_id=1.2&text=a", "a"]
        answer = browser.post("/json", json=fields, headers=headers)
        assert answer.get_json() == ['{"socket_id": "1.2", "text": "a"}', "a"]

    def test_a_raw_upload_is_left_to_the_view(
        self, app: Flask, pusher: Pusher, browser: FlaskClient
    ) -> None:
        @app.post("/upload")
        def upload() -> bytes:
            assert pusher.socket_id is None
            return request.stream.read()

        answer = browser.post("/upload", data=b"raw", content_type="application/octet-stream")
        assert answer.data == b"raw"

    @pytest.mark.parametrize(
        "sent", [{"data": {"text": "a" * 2000}}, {"json": {"text": "a" * 2000}}]
    )
    def test_what_is_too_long_to_be_read_is_the_views_to_refuse(
        self, make_app: MakeApp, sent: dict[str, Any]
    ) -> None:
        pusher = Pusher()
        app = make_app(pusher, MAX_CONTENT_LENGTH=1000)

        @app.post("/late")
        def late() -> Any:
            assert pusher.socket_id is None
            return request.get_data()

        @app.post("/never")
        def never() -> str:
            return str(pusher.socket_id)

        assert app.test_client().post("/never", **sent).text == "None"
        assert app.test_client().post("/late", **sent).status_code == 413

    def test_a_body_that_cannot_be_read_has_none(self, app: Flask, pusher: Pusher) -> None:
        class Broken:
            def read(self, *_size: int) -> bytes:
                raise OSError("Invalid chunk header")

        environ = {"wsgi.input": Broken(), "wsgi.input_terminated": True}
        with app.test_request_context(
            "/", method="POST", content_type="application/json", environ_overrides=environ
        ):
            assert pusher.socket_id is None

    def test_a_form_beyond_its_limit_has_its_bytes_still(self, make_app: MakeApp) -> None:
        pusher = Pusher()
        app = make_app(pusher, MAX_FORM_MEMORY_SIZE=1000)

        @app.post("/")
        def view() -> Any:
            return [pusher.socket_id, len(request.get_data())]

        browser = app.test_client()
        fields = {"socket_id": "1.2", "text": "a" * 2000}
        answer = browser.post("/", data=fields, headers={"X-Socket-ID": "1.2"})
        assert answer.get_json() == ["1.2", 2019]
        assert browser.post("/", data=fields).get_json()[1] == 2019

    def test_it_spares_the_page_that_caused_an_event(self, app: Flask, api: Any) -> None:
        pusher = Pusher(app)

        @app.post("/rename")
        def rename() -> str:
            pusher.client.trigger("room", "renamed", {}, pusher.socket_id)
            return ""

        browser = app.test_client()
        browser.post("/rename", headers={"X-Socket-ID": "1.2"})
        browser.post("/rename")
        assert api.calls[0].body["socket_id"] == "1.2"
        assert "socket_id" not in api.calls[1].body

"""What pages are told that ask: may this page subscribe, and who is its user."""

from __future__ import annotations

import asyncio
import base64
import enum
import hashlib
import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from flask import Flask, Response, abort, redirect, request, url_for
from flask.testing import FlaskClient
from werkzeug.exceptions import Forbidden
from werkzeug.routing import RequestRedirect

from flask_pusher import Pusher

MakeApp = Callable[..., Flask]
Sign = Callable[[str], str]
MASTER_KEY = b"0123456789abcdef0123456789abcdef"
SOCKET_ID = "123.456"
CREDENTIALS = {"PUSHER_APP_ID": "1", "PUSHER_KEY": "a-key", "PUSHER_SECRET": "a-secret"}
Post = Callable[..., Any]


@pytest.fixture(params=["form", "json"])
def post(request: pytest.FixtureRequest, browser: FlaskClient) -> Post:
    """Posts fields as pusher-js does, and as axios does."""

    def post(**fields: Any) -> Any:
        fields.setdefault("socket_id", SOCKET_ID)
        return browser.post("/pusher/auth", **{"data" if as_form else "json": fields})

    as_form = request.param == "form"
    return post


@pytest.fixture
def friendly(pusher: Pusher) -> Pusher:
    """The extension of an application that refuses only channels with ``secret`` in the name."""

    @pusher.auth
    def may_subscribe(channel_name: str, socket_id: str) -> bool:
        assert socket_id == SOCKET_ID
        return "secret" not in channel_name

    return pusher


class User(NamedTuple):
    id: str
    name: str


LOOP = asyncio.new_event_loop()


def _raise(error: Exception) -> None:
    raise error


async def refuse_later() -> bool:
    raise AssertionError("never awaited")


def refuse_by_yielding() -> Iterator[bool]:
    yield False


async def refuse_by_yielding_later() -> AsyncIterator[bool]:
    yield False


@pytest.fixture
def reasons(app: Flask, caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged at DEBUG, as ``flask run --debug`` shows it."""
    with caplog.at_level(logging.DEBUG, logger=app.logger.name):
        yield caplog


class TestPrivateChannels:
    def test_one_is_signed_for_the_connection(
        self, friendly: Pusher, post: Post, sign: Sign
    ) -> None:
        answer = post(channel_name="private-news")
        assert answer.status_code == 200
        assert answer.get_json() == {"auth": f"a-key:{sign('123.456:private-news')}"}

    @pytest.mark.parametrize("verdict", [False, None, 0, "", []])
    def test_one_is_refused_where_the_handler_does_not_agree(
        self, pusher: Pusher, post: Post, verdict: Any
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: verdict)
        assert post(channel_name="private-news").status_code == 403

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"channel_name=private-news"])
    def test_without_any_handler_all_is_refused_whatever_was_posted(
        self,
        pusher: Pusher,
        browser: FlaskClient,
        reasons: pytest.LogCaptureFixture,
        body: bytes,
    ) -> None:
        for content_type in ("", "application/json", "application/x-www-form-urlencoded"):
            answer = browser.post("/pusher/auth", data=body, content_type=content_type)
            assert answer.status_code == 403
        assert "Refused at /pusher/auth: no @pusher.auth handler is declared." in reasons.text

    def test_one_is_refused_where_no_handler_is_for_it(
        self, pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture
    ) -> None:
        pusher.auth("private-order-<int:n>")(lambda channel_name, socket_id, n: True)
        assert post(channel_name="private-news").status_code == 403
        assert "no @pusher.auth handler is for the channel 'private-news'." in reasons.text

    def test_a_forgotten_return_is_told(
        self, pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture
    ) -> None:
        @pusher.auth
        def may_subscribe(channel_name: str, socket_id: str) -> Any:
            channel_name.startswith("private-")

        assert post(channel_name="private-news").status_code == 403
        assert reasons.text.endswith(
            ".may_subscribe() returned None for the channel 'private-news'. Is a return missing?\n"
        )

    def test_what_a_handler_returned_is_told(
        self, pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture
    ) -> None:
        class Gate:
            def __call__(self, channel_name: str, socket_id: str) -> bool:
                return False

        pusher.auth(Gate())
        assert post(channel_name="private-news").status_code == 403
        assert "Gate() returned False for the channel 'private-news'.\n" in reasons.text
        assert "missing" not in reasons.text
        assert "Gate" not in post(channel_name="private-news").text

    @pytest.mark.parametrize("status", [400, 401, 503])
    def test_a_handler_may_refuse_with_a_status_of_its_own(
        self, pusher: Pusher, post: Post, status: int
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: abort(status))
        assert post(channel_name="private-news").status_code == status

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
        ],
    )
    def test_what_a_view_refuses_with_is_the_answer(
        self, pusher: Pusher, post: Post, returned: Any, status: int, body: str
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: returned)
        answer = post(channel_name="private-news")
        assert answer.status_code == status
        assert body in answer.text
        pusher.auth("presence-<x>")(lambda channel_name, socket_id, x: True)
        pusher.channel_data(lambda channel_name, socket_id: returned)
        answer = post(channel_name="presence-news")
        assert answer.status_code == status
        assert body in answer.text

    @pytest.mark.parametrize(
        ("returned", "status"),
        [
            (Response("not a signature", 200), 200),
            (redirect("/login"), 302),
            (("see", 303, {"Location": "/login"}), 303),
            (("fine", 200), 200),
            (("fine", "200 OK"), 200),
            ((Response("fine"), {"X-Reason": "none"}), 200),
            (RequestRedirect("http://localhost/login"), 308),
        ],
    )
    def test_any_other_response_is_a_403_because_a_browser_would_take_it_for_an_answer(
        self,
        pusher: Pusher,
        post: Post,
        reasons: pytest.LogCaptureFixture,
        returned: Any,
        status: int,
    ) -> None:
        @pusher.auth
        def may_subscribe(channel_name: str, socket_id: str) -> Any:
            return returned

        answer = post(channel_name="private-news")
        assert answer.status_code == 403
        assert "Location" not in answer.headers
        assert f"may_subscribe() returned a response of status {status}" in reasons.text

    @pytest.mark.parametrize(
        "leave",
        [
            lambda: abort(redirect("/login")),
            lambda: abort(Response("not a signature", 200)),
            lambda: _raise(RequestRedirect("http://localhost/login")),
        ],
    )
    def test_a_handler_that_aborts_with_no_refusal_is_a_403(
        self, pusher: Pusher, post: Post, leave: Callable[[], Any]
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: leave())
        answer = post(channel_name="private-news")
        assert answer.status_code == 403
        assert "Location" not in answer.headers

    def test_an_applications_error_handler_words_an_abort(
        self, app: Flask, pusher: Pusher, post: Post
    ) -> None:
        app.register_error_handler(401, lambda error: ({"error": "log in"}, 401))
        pusher.auth(lambda channel_name, socket_id: abort(401))
        assert post(channel_name="private-news").get_json() == {"error": "log in"}

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
            (lambda: [].append, "builtin_function_or_method, which is true whatever"),
            (lambda: Forbidden, "type, which is true whatever"),
            (lambda: PermissionError("no"), "PermissionError, which is true whatever"),
        ],
    )
    def test_what_has_not_run_or_is_always_true_is_an_error_and_no_consent(
        self, app: Flask, pusher: Pusher, post: Post, make: Callable[[], Any], said: str
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        returned = make()
        pusher.auth(lambda channel_name, socket_id: returned)
        with pytest.raises(TypeError, match=f"returned a {said}"):
            post(channel_name="private-news")
        if isinstance(returned, asyncio.Task):
            LOOP.run_until_complete(returned)
        elif hasattr(returned, "close"):
            returned.close()

    @pytest.mark.parametrize("make", [lambda: refuse_later(), lambda: refuse_by_yielding()])
    def test_the_same_holds_in_a_batch_and_for_data_and_for_users(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, make: Callable[[], Any]
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        returned = make()
        pusher.auth("private-<x>")(lambda channel_name, socket_id, x: returned)
        pusher.auth("presence-<x>")(lambda channel_name, socket_id, x: True)
        pusher.channel_data(lambda channel_name, socket_id: returned)
        pusher.user_auth(lambda socket_id: returned)
        for path, field, channel in (
            ("auth", "channel_name[0]", "private-a"),
            ("auth", "channel_name", "presence-a"),
            ("user-auth", "any", ""),
        ):
            with pytest.raises(TypeError, match="and has not run"):
                browser.post(f"/pusher/{path}", data={"socket_id": SOCKET_ID, field: channel})
        returned.close()

    def test_a_coroutine_function_is_asked_as_any_other(self, pusher: Pusher, post: Post) -> None:
        pytest.importorskip("asgiref")

        @pusher.auth
        async def may_subscribe(channel_name: str, socket_id: str) -> bool:
            return channel_name == "private-news"

        assert post(channel_name="private-news").status_code == 200
        assert post(channel_name="private-olds").status_code == 403

    @pytest.mark.parametrize(
        "consent",
        ["yes", 1, {"id": 7}, User("7", "Ana"), [0], (True, "why"), ("a", {"b": 1}), (1, 2, 3, 4)],
    )
    def test_anything_else_that_is_true_is_consent(
        self, pusher: Pusher, post: Post, consent: Any
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: consent)
        assert post(channel_name="private-news").status_code == 200

    @pytest.mark.parametrize("refusal", [(False, "why"), (None, "why", 7), (False, 403), (False,)])
    def test_a_no_with_its_reason_beside_it_is_a_refusal(
        self, pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture, refusal: Any
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: refusal)
        assert post(channel_name="private-news").status_code == 403
        assert f"returned {refusal}" in reasons.text

    def test_an_error_in_a_handler_is_the_applications_own(
        self, pusher: Pusher, post: Post
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: 1 // 0 > 0)
        assert post(channel_name="private-news").status_code == 500

    def test_a_handler_sees_the_request(self, pusher: Pusher, post: Post) -> None:
        pusher.auth(lambda channel_name, socket_id: request.path == "/pusher/auth")
        assert post(channel_name="private-news").status_code == 200


ANA = {"name": "Ana"}
NAN = float("nan")


class Users(str, enum.Enum):
    ANA = "ana"


class Numbers(enum.IntEnum):
    ANA = 7


class TestPresenceChannels:
    def data(self, answer: Any, sign: Sign) -> Any:
        content = answer.get_json()
        signature = sign(f"123.456:presence-room:{content['channel_data']}")
        assert content["auth"] == f"a-key:{signature}"
        return json.loads(content["channel_data"])

    def test_a_member_is_the_connection_by_default(
        self, friendly: Pusher, post: Post, sign: Sign
    ) -> None:
        data = self.data(post(channel_name="presence-room"), sign)
        assert data == {"user_id": SOCKET_ID}

    @pytest.mark.parametrize(
        ("returned", "expected"),
        [
            ({"user_id": "ana"}, {"user_id": "ana", "user_info": {}}),
            ({"user_id": 7}, {"user_id": "7", "user_info": {}}),
            ({"user_id": 7.5}, {"user_id": "7.5", "user_info": {}}),
            (
                {"user_id": uuid.UUID(int=7)},
                {"user_id": "00000000-0000-0000-0000-000000000007", "user_info": {}},
            ),
            ({"user_id": None}, {"user_id": SOCKET_ID, "user_info": {}}),
            ({}, {"user_id": SOCKET_ID, "user_info": {}}),
            ([("user_id", 7), ("name", "Ana")], {"user_id": "7", **ANA, "user_info": ANA}),
            ({"user_id": Decimal(7)}, {"user_id": "7", "user_info": {}}),
            ({"user_id": Users.ANA}, {"user_id": "ana", "user_info": {}}),
            ({"user_id": Numbers.ANA}, {"user_id": "7", "user_info": {}}),
            ({"user_info": MappingProxyType(ANA)}, {"user_id": SOCKET_ID, "user_info": ANA}),
            ({"user_id": "a" * 184}, {"user_id": "a" * 184, "user_info": {}}),
            ({"user_id": "Ana é"}, {"user_id": "Ana é", "user_info": {}}),
            (
                {"name": "Ana"},
                {"user_id": SOCKET_ID, "name": "Ana", "user_info": {"name": "Ana"}},
            ),
            (
                {"user_id": 7, "name": "Ana"},
                {"user_id": "7", "name": "Ana", "user_info": {"name": "Ana"}},
            ),
            (
                {"user_id": 7, "name": "Ana", "user_info": {"nick": "A"}},
                {"user_id": "7", "name": "Ana", "user_info": {"nick": "A"}},
            ),
        ],
    )
    def test_the_handlers_data_is_completed(
        self, friendly: Pusher, post: Post, sign: Sign, returned: Any, expected: Any
    ) -> None:
        friendly.channel_data(lambda channel_name, socket_id: returned)
        assert self.data(post(channel_name="presence-room"), sign) == expected

    def test_the_handlers_own_dict_stays_as_it_is(self, friendly: Pusher, post: Post) -> None:
        returned = {"user_id": 7, "name": "Ana"}
        friendly.channel_data(lambda channel_name, socket_id: returned)
        post(channel_name="presence-room")
        assert returned == {"user_id": 7, "name": "Ana"}

    def test_a_refused_one_gets_no_data(self, friendly: Pusher, post: Post) -> None:
        asked: list[str] = []
        friendly.channel_data(lambda channel_name, socket_id: asked.append(channel_name))
        assert post(channel_name="presence-secret").status_code == 403
        assert asked == []

    def test_other_channels_get_no_data(self, friendly: Pusher, post: Post) -> None:
        friendly.channel_data(lambda channel_name, socket_id: {"user_id": 7})
        assert "channel_data" not in post(channel_name="private-room").get_json()

    def test_a_handler_may_refuse(self, friendly: Pusher, post: Post) -> None:
        friendly.channel_data(lambda channel_name, socket_id: abort(409))
        assert post(channel_name="presence-room").status_code == 409

    def test_a_handler_that_returns_none_lets_the_signed_in_user_stand_for_the_member(
        self, friendly: Pusher, post: Post, sign: Sign
    ) -> None:
        friendly.channel_data(lambda channel_name, socket_id: None)
        answer = post(channel_name="presence-room")
        assert answer.get_json() == {"auth": f"a-key:{sign('123.456:presence-room')}"}

    @pytest.mark.parametrize(
        "user_id",
        ["", "a" * 185, True, False, [7], (7,), {"id": 7}, b"7", 10**200, NAN, Decimal("-inf")],
    )
    def test_a_user_id_that_cannot_be_is_an_error_that_says_so(
        self, app: Flask, friendly: Pusher, post: Post, user_id: Any
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        friendly.channel_data(lambda channel_name, socket_id: {"user_id": user_id})
        with pytest.raises(ValueError, match="as 'user_id' a number, or text of 1 to 184"):
            post(channel_name="presence-room")

    @pytest.mark.parametrize("user_info", ["Ana", ["Ana"], 7, None, [("name", "Ana")]])
    def test_user_info_that_is_no_dict_is_an_error_that_says_so(
        self, app: Flask, friendly: Pusher, post: Post, user_info: Any
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        friendly.channel_data(lambda channel_name, socket_id: {"user_info": user_info})
        with pytest.raises(TypeError, match="'user_info' that is a dict"):
            post(channel_name="presence-room")

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_a_number_that_is_no_json_is_an_error(
        self, app: Flask, friendly: Pusher, post: Post, number: float
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        friendly.channel_data(lambda channel_name, socket_id: {"score": number})
        with pytest.raises(ValueError, match="is not JSON"):
            post(channel_name="presence-room")

    @pytest.mark.parametrize(
        ("returned", "warned"),
        [
            ({"id": 7}, 1),
            ({"id": 7, "user_id": None}, 1),
            ({"id": 7, "user_id": 7}, 0),
            ({"name": "Ana"}, 0),
        ],
    )
    def test_an_id_where_a_user_id_is_meant_is_warned_about(
        self,
        friendly: Pusher,
        post: Post,
        caplog: pytest.LogCaptureFixture,
        returned: Any,
        warned: int,
    ) -> None:
        @friendly.channel_data
        def member(channel_name: str, socket_id: str) -> Any:
            return returned

        assert post(channel_name="presence-room").status_code == 200
        assert caplog.text.count("member() returned an 'id' and no 'user_id'") == warned

    def test_data_that_is_a_mapping_but_no_dict_will_do(
        self, friendly: Pusher, post: Post, sign: Sign
    ) -> None:
        friendly.channel_data(lambda channel_name, socket_id: MappingProxyType({"user_id": 7}))
        assert self.data(post(channel_name="presence-room"), sign)["user_id"] == "7"

    def test_data_that_is_no_dict_is_an_error_that_says_so(
        self, app: Flask, friendly: Pusher, post: Post
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        returned: Any = "Ana"
        friendly.channel_data(lambda channel_name, socket_id: returned)
        with pytest.raises(TypeError, match="should return a dict, or None; it returned a str"):
            post(channel_name="presence-room")


class TestEncryptedChannels:
    @pytest.mark.parametrize("channel", ["private-encrypted-x", "private-encrypted-cache-x"])
    def test_one_gets_its_shared_secret(self, make_app: MakeApp, sign: Sign, channel: str) -> None:
        pusher = Pusher()
        pusher.auth(lambda channel_name, socket_id: True)
        key = base64.b64encode(MASTER_KEY).decode()
        app = make_app(pusher, PUSHER_ENCRYPTION_MASTER_KEY_BASE64=key)
        form = {"socket_id": SOCKET_ID, "channel_name": channel}
        answer = app.test_client().post("/pusher/auth", data=form)
        secret = hashlib.sha256(channel.encode() + MASTER_KEY).digest()
        assert answer.get_json() == {
            "auth": f"a-key:{sign(f'123.456:{channel}')}",
            "shared_secret": base64.b64encode(secret).decode(),
        }

    def test_without_a_master_key_there_are_none(self, friendly: Pusher, post: Post) -> None:
        answer = post(channel_name="private-encrypted-x")
        assert answer.status_code == 404
        assert "PUSHER_ENCRYPTION_MASTER_KEY_BASE64" in answer.text


class TestRefusals:
    @pytest.mark.parametrize(
        "socket_id",
        [
            "",
            "1",
            "1.",
            ".1",
            "1.2.3",
            "a.b",
            "-1.2",
            "1.2\n",
            " 1.2",
            "1,2",
            "\u0661.\u0662",  # Arabic digits one and two
            "\u00b9.\u00b2",  # superscript one and two
            "1.2:private-x",
            "1" * 21 + ".2",
            "1." + "2" * 21,
        ],
    )
    def test_a_socket_id_of_another_form_is_400(
        self, friendly: Pusher, post: Post, socket_id: str
    ) -> None:
        answer = post(channel_name="private-news", socket_id=socket_id)
        assert answer.status_code == 400
        assert "socket_id" in answer.text

    def test_no_socket_id_is_400(self, friendly: Pusher, browser: FlaskClient) -> None:
        assert browser.post("/pusher/auth", data={"channel_name": "private-x"}).status_code == 400
        assert browser.post("/pusher/auth", json={"channel_name": "private-x"}).status_code == 400
        assert browser.post("/pusher/auth").status_code == 400

    @pytest.mark.parametrize(
        "channel",
        [
            "",
            "private-a b",
            "private-a\n",
            "private-" + "a" * 193,
            "private-é",
            "private-/../x",
            "#server-to-user-7",
            "private-x:y",
        ],
    )
    def test_a_name_that_no_channel_has_is_400(
        self, friendly: Pusher, post: Post, channel: str
    ) -> None:
        answer = post(channel_name=channel)
        assert answer.status_code == 400
        assert "channel_name" in answer.text

    def test_the_longest_name_is_authorised(self, friendly: Pusher, post: Post) -> None:
        assert post(channel_name="private-" + "a" * 192).status_code == 200

    def test_no_channel_is_400(self, friendly: Pusher, post: Post) -> None:
        assert post().status_code == 400

    @pytest.mark.parametrize("channel", ["news", "cache-news", "Private-news", "privatenews"])
    def test_a_channel_that_needs_no_authorisation_is_404(
        self, friendly: Pusher, post: Post, channel: str
    ) -> None:
        assert post(channel_name=channel).status_code == 404

    @pytest.mark.parametrize(
        "body",
        [b"[]", b"5", b"null", b'"x"', b"{", b"", b"\xff\xfe", b"[" * 5000, b'{"a":' * 100000],
    )
    @pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
    def test_a_body_that_is_neither_a_form_nor_a_json_object_is_400(
        self, friendly: Pusher, browser: FlaskClient, body: bytes, content_type: str
    ) -> None:
        answer = browser.post("/pusher/auth", data=body, content_type=content_type)
        assert answer.status_code == 400
        assert "should be a form" in answer.text
        assert (content_type or "not given") in answer.text

    @pytest.mark.parametrize("value", [None, 5, 1.5, [], {}, ["private-x"]])
    def test_json_fields_that_are_no_text_are_400(
        self, friendly: Pusher, browser: FlaskClient, value: Any
    ) -> None:
        for fields in (
            {"socket_id": SOCKET_ID, "channel_name": value},
            {"socket_id": value, "channel_name": "private-x"},
            {"socket_id": SOCKET_ID, "channel_name[0]": value},
            {"socket_id": SOCKET_ID, "channel_name[0]": "private-x", "channel_name[1]": value},
        ):
            assert browser.post("/pusher/auth", json=fields).status_code == 400

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
    def test_another_method_is_405(
        self, friendly: Pusher, browser: FlaskClient, method: str
    ) -> None:
        assert browser.open("/pusher/auth", method=method).status_code == 405


class TestBatches:
    """As the plugin pusher-js-auth sends them."""

    def fields(self, *channels: str) -> dict[str, str]:
        return {f"channel_name[{number}]": name for number, name in enumerate(channels)}

    def test_each_channel_is_answered_on_its_own_merits(
        self, friendly: Pusher, post: Post, sign: Sign
    ) -> None:
        answer = post(**self.fields("private-a", "private-secret", "presence-b", "news", "a b"))
        assert answer.status_code == 200
        content = answer.get_json()
        assert content["private-a"] == {
            "status": 200,
            "data": {"auth": f"a-key:{sign('123.456:private-a')}"},
        }
        assert content["presence-b"]["status"] == 200
        data = content["presence-b"]["data"]
        signature = sign("123.456:presence-b:" + data["channel_data"])
        assert data["auth"] == f"a-key:{signature}"
        assert content["private-secret"] == {"status": 403}
        assert content["news"] == {"status": 404}
        assert content["a b"] == {"status": 400}

    def test_a_channel_sent_twice_is_answered_once(self, pusher: Pusher, post: Post) -> None:
        asked: list[str] = []

        @pusher.auth
        def may_subscribe(channel_name: str, socket_id: str) -> bool:
            asked.append(channel_name)
            return True

        content = post(**self.fields("private-a", "private-a", "private-b")).get_json()
        assert asked == ["private-a", "private-b"]
        assert list(content) == ["private-a", "private-b"]

    @pytest.mark.parametrize(
        ("refusal", "status"),
        [
            (lambda: abort(401), 401),
            (lambda: abort(Response("no", 402)), 402),
            (lambda: Response("Log in", 302), 403),
            (lambda: redirect("/login"), 403),
            (lambda: abort(redirect("/login")), 403),
            (lambda: ("no", 404), 404),
            (lambda: abort(Response("not a signature", 200)), 403),
            (lambda: abort(Response("nor this", 204)), 403),
        ],
    )
    def test_a_handlers_own_refusal_is_for_its_channel(
        self, pusher: Pusher, post: Post, refusal: Callable[[], Any], status: int
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: channel_name == "private-a" or refusal())
        content = post(**self.fields("private-a", "private-b")).get_json()
        assert content["private-a"]["status"] == 200
        assert content["private-b"] == {"status": status}

    @pytest.mark.parametrize(
        "fields",
        [{"channel_name[1]": "private-a"}, {"channel_name[0]": ""}, {"channel_name[]": "x"}],
    )
    def test_one_without_a_first_channel_is_400(
        self, friendly: Pusher, post: Post, fields: dict[str, str]
    ) -> None:
        assert post(**fields).status_code == 400

    def test_its_limit_is_500_channels(self, friendly: Pusher, post: Post) -> None:
        names = [f"private-{number}" for number in range(501)]
        content = post(**self.fields(*names[:500])).get_json()
        assert [content[name]["status"] for name in names[:500]] == [200] * 500
        assert post(**self.fields(*names)).status_code == 413

    @pytest.mark.parametrize("limit", [2, "2"])
    def test_its_limit_can_be_set(self, make_app: MakeApp, limit: Any) -> None:
        pusher = Pusher()
        pusher.auth(lambda channel_name, socket_id: True)
        browser = make_app(pusher, PUSHER_AUTH_MAX_CHANNELS=limit).test_client()
        fields = {"socket_id": SOCKET_ID, **self.fields("private-a", "private-b")}
        assert browser.post("/pusher/auth", data=fields).status_code == 200
        fields["channel_name[2]"] = "private-c"
        assert browser.post("/pusher/auth", data=fields).status_code == 413


class TestBodies:
    """Of the clients that are not pusher-js."""

    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json",
            "application/vnd.api+json",
            "text/plain",
            "text/plain;charset=UTF-8",
            "application/octet-stream",
            "",
        ],
    )
    def test_json_is_read_whatever_its_type_says(
        self, friendly: Pusher, browser: FlaskClient, content_type: str
    ) -> None:
        friendly.user_auth(lambda socket_id: {"id": 7})
        body = json.dumps({"socket_id": SOCKET_ID, "channel_name": "private-a"})
        for path in ("auth", "user-auth"):
            answer = browser.post(f"/pusher/{path}", data=body, content_type=content_type)
            assert answer.status_code == 200

    def test_a_form_may_be_a_multipart_one(self, friendly: Pusher, browser: FlaskClient) -> None:
        fields = {"socket_id": SOCKET_ID, "channel_name": "private-a"}
        answer = browser.post("/pusher/auth", data=fields, content_type="multipart/form-data")
        assert answer.status_code == 200

    @pytest.mark.parametrize("path", ["auth", "user-auth"])
    def test_one_that_is_too_long_is_413(self, make_app: MakeApp, path: str) -> None:
        pusher = Pusher()
        pusher.auth(lambda channel_name, socket_id: True)
        pusher.user_auth(lambda socket_id: {"id": 7})
        browser = make_app(pusher, MAX_CONTENT_LENGTH=1000).test_client()
        fields = {"socket_id": "1" * 2000}
        assert browser.post(f"/pusher/{path}", data=fields).status_code == 413
        assert browser.post(f"/pusher/{path}", json=fields).status_code == 413


class TestCost:
    def test_an_answer_is_as_long_as_its_request_and_no_multiple(
        self, pusher: Pusher, post: Post
    ) -> None:
        """The longest socket id is what is repeated, once for each channel."""
        pusher.auth(lambda channel_name, socket_id: True)
        lengths = []
        for count in (1, 500):
            names = {f"channel_name[{n}]": f"presence-{n:03}" for n in range(count)}
            answer = post(socket_id=f"{'1' * 20}.{'2' * 20}", **names)
            assert [one["status"] for one in answer.get_json().values()] == [200] * count
            lengths.append(len(answer.data))
        assert lengths[1] < 500 * lengths[0]

    @pytest.mark.parametrize("digits", [300_000, 21])
    def test_a_socket_id_of_any_length_is_not_repeated(
        self, friendly: Pusher, post: Post, digits: int
    ) -> None:
        names = {f"channel_name[{n}]": f"presence-{n}" for n in range(500)}
        answer = post(socket_id="1." + "1" * digits, **names)
        assert answer.status_code == 400
        assert len(answer.data) < 1000

    def test_a_content_type_is_not_repeated_whole(
        self, friendly: Pusher, browser: FlaskClient
    ) -> None:
        answer = browser.post("/pusher/auth", data=b"x", content_type="a/" + "b" * 10_000)
        assert answer.status_code == 400
        assert len(answer.data) < 1000

    def test_a_refused_name_is_not_logged_whole(
        self, pusher: Pusher, post: Post, reasons: pytest.LogCaptureFixture
    ) -> None:
        pusher.auth("private-a")(lambda channel_name, socket_id: True)
        names = {f"channel_name[{n}]": "private-" + "x" * 10_000 + str(n) for n in range(10)}
        assert set(map(str, post(**names).get_json().values())) == {"{'status': 400}"}
        assert len(reasons.text) < 1000


class TestLoginRequired:
    """Of Flask-Login, around a handler."""

    @pytest.fixture(params=["/login", None])
    def login_view(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    def test_nobody_who_has_not_logged_in_is_let_in(
        self,
        app: Flask,
        pusher: Pusher,
        post: Post,
        browser: FlaskClient,
        login_view: str | None,
    ) -> None:
        flask_login = pytest.importorskip("flask_login")
        manager = flask_login.LoginManager(app)
        manager.login_view = login_view
        manager.user_loader(lambda user_id: flask_login.UserMixin())
        app.add_url_rule("/login", "login", lambda: "Log in")
        asked: list[str] = []

        @pusher.auth
        @flask_login.login_required  # type: ignore[untyped-decorator]
        def may_subscribe(channel_name: str, socket_id: str) -> bool:
            asked.append(channel_name)
            return True

        @pusher.user_auth
        @flask_login.login_required  # type: ignore[untyped-decorator]
        def sign_in(socket_id: str) -> dict[str, int]:
            return {"id": 7}

        refused = 403 if login_view else 401  # without a page to log in it aborts
        assert post(channel_name="private-a").status_code == refused
        content = post(**{"channel_name[0]": "private-a", "channel_name[1]": "presence-b"})
        assert content.get_json() == {
            "private-a": {"status": refused},
            "presence-b": {"status": refused},
        }
        answer = browser.post("/pusher/user-auth", data={"socket_id": SOCKET_ID})
        assert answer.status_code == refused
        assert asked == []
        with browser.session_transaction() as session:
            session["_user_id"] = "7"
        assert post(channel_name="private-a").status_code == 200
        answer = browser.post("/pusher/user-auth", data={"socket_id": SOCKET_ID})
        assert answer.status_code == 200


class TestHosts:
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
            fields = {"socket_id": SOCKET_ID, "channel_name": "private-open"}
            for path in ("/pusher/auth", "/pusher/user-auth"):
                assert browser.post(path, base, data=fields).status_code == 200
            body = '{"events": []}'
            with app.app_context():
                headers = extension.sign_webhook(body)
            for path in ("/pusher/events", "/pusher/events/cache"):
                answer = browser.post(path, base, data=body, headers=headers)
                assert answer.status_code == 200
            with app.test_request_context("/", base):
                assert url_for("pusher.auth") == "/pusher/auth"
                context: dict[str, Any] = {}
                app.update_template_context(context)
                options = context["pusher_options"]()
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
            ([("id", 7)], {"id": "7"}),
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

    @pytest.mark.parametrize("returned", [None, False])
    def test_nobody_is_signed_in_where_the_handler_gives_nobody(
        self, pusher: Pusher, sign_in: Post, returned: Any
    ) -> None:
        pusher.user_auth(lambda socket_id: returned)
        assert sign_in().status_code == 403

    def test_nobody_is_signed_in_without_a_handler(self, pusher: Pusher, sign_in: Post) -> None:
        assert sign_in().status_code == 403

    @pytest.mark.parametrize(
        "refuse", [lambda socket_id: abort(401), lambda socket_id: Response("Log in", 401)]
    )
    def test_a_handler_may_refuse_with_a_status_of_its_own(
        self, pusher: Pusher, sign_in: Post, refuse: Callable[[str], Any]
    ) -> None:
        pusher.user_auth(refuse)
        assert sign_in().status_code == 401

    @pytest.mark.parametrize("socket_id", ["", "1", "1.2 ", "a.b", "\u0661.\u0662"])
    def test_a_socket_id_of_another_form_is_400(
        self, pusher: Pusher, sign_in: Post, socket_id: str
    ) -> None:
        pusher.user_auth(lambda socket_id: {"id": 7})
        assert sign_in(socket_id=socket_id).status_code == 400

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
            ({}, ValueError, r"a dict with an 'id'; it has \[\]\."),
            # What is in it may be a whole row of a database, with a password's hash.
            ({"user_id": 7}, ValueError, r"a dict with an 'id'; it has \['user_id'\]\."),
            ({"id": None}, ValueError, "as 'id' a number, or text of 1 to 184 .* returned None"),
            ({"id": "a b"}, ValueError, "returned 'a b'"),
            ({"id": "é"}, ValueError, "A-Z a-z 0-9"),
            ({"id": ""}, ValueError, "returned ''"),
            ({"id": "a" * 185}, ValueError, "1 to 184"),
            ({"id": ["7"]}, ValueError, r"returned \['7'\]"),
            ({"id": False}, ValueError, "returned False"),
            ({"id": True}, ValueError, "returned True"),
            (True, TypeError, "should return a dict, or None; it returned a bool"),
            ("ana", TypeError, "it returned a str"),
            (7, TypeError, "it returned a int"),
            ({"id": 7, "user_info": "Ana"}, TypeError, "'user_info' that is a dict"),
            ({"id": 7, "watchlist": "8"}, TypeError, "a 'watchlist' that is a list of ids"),
            ({"id": 7, "watchlist": None}, TypeError, "a 'watchlist' that is a list of ids"),
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

    @pytest.mark.parametrize(
        ("sent", "socket_id"),
        [
            ({"headers": {"X-Socket-ID": "1.2"}}, "1.2"),
            ({"data": {"socket_id": "1.2"}}, "1.2"),
            ({"data": {"socket_id": "1.2"}, "content_type": "multipart/form-data"}, "1.2"),
            ({"json": {"socket_id": "1.2"}}, "1.2"),
            ({"headers": {"X-Socket-ID": "1.2"}, "data": {"socket_id": "3.4"}}, "1.2"),
            ({"headers": {"X-Socket-ID": "1.2"}, "json": {}}, "1.2"),
            ({"headers": {"X-Socket-ID": "undefined"}, "data": {"socket_id": "3.4"}}, None),
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

"""What pages are told that ask: may this page subscribe, and who is its user."""

from __future__ import annotations

import base64
import enum
import hashlib
import json
import logging
import uuid
from collections.abc import Callable
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response, abort, redirect
from flask.json.provider import DefaultJSONProvider
from flask.testing import FlaskClient

from flask_pusher import Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

Sign = Callable[[str], str]
MASTER_KEY = b"0123456789abcdef0123456789abcdef"
SOCKET_ID = "123.456"
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


ANA = {"name": "Ana"}
KEYS_AS_TEXT = {"3": 4, "null": 5, "true": 6}
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
            ({"user_id": 7, **ANA, "user_info": None}, {"user_id": "7", **ANA, "user_info": ANA}),
            ({"user_info": None}, {"user_id": SOCKET_ID, "user_info": {}}),
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
            (
                {"user_id": 7, 3: 4, None: 5, True: 6},
                {"user_id": "7", **KEYS_AS_TEXT, "user_info": KEYS_AS_TEXT},
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

    @pytest.mark.parametrize("user_info", ["Ana", ["Ana"], 7, [("name", "Ana")]])
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

    def test_data_that_is_a_mapping_but_no_dict_will_do(
        self, friendly: Pusher, post: Post, sign: Sign
    ) -> None:
        friendly.channel_data(lambda channel_name, socket_id: MappingProxyType({"user_id": 7}))
        assert self.data(post(channel_name="presence-room"), sign)["user_id"] == "7"

    @pytest.mark.parametrize("returned", [True, 7, object(), {"Ana"}])
    def test_data_that_is_no_dict_is_an_error_that_says_so(
        self, app: Flask, friendly: Pusher, post: Post, returned: Any
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        friendly.channel_data(lambda channel_name, socket_id: returned)
        with pytest.raises(TypeError, match="should return a dict, or None; it returned a"):
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

    @pytest.mark.usefixtures("no_collection")
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
        for path, more in (("auth", {"channel_name": "private-a"}), ("user-auth", {})):
            body = json.dumps({"socket_id": SOCKET_ID, **more})
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
        assert max(map(len, reasons.messages)) < 300


class CamelCase(DefaultJSONProvider):
    """Writes all keys as JavaScript has them."""

    def dumps(self, obj: Any, **options: Any) -> str:
        return super().dumps(self.renamed(obj), **options)

    def renamed(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.renamed(one) for one in value]
        if isinstance(value, dict):
            return {
                "".join(part.title() if at else part for at, part in enumerate(key.split("_"))): (
                    self.renamed(one)
                )
                for key, one in value.items()
            }
        return value


class TestKeys:
    """Those of the protocol stay what they are, whatever the JSON provider does to keys."""

    @pytest.fixture
    def post(self, make_app: MakeApp) -> Post:
        pusher = Pusher()
        pusher.auth(lambda channel_name, socket_id: "secret" not in channel_name)
        user = {"first_name": "Ana"}
        pusher.channel_data(lambda channel_name, socket_id: {"user_id": 7, "user_info": user})
        pusher.user_auth(lambda socket_id: {"id": 7, "user_info": user, "watchlist": [8]})
        key = base64.b64encode(MASTER_KEY).decode()
        app = make_app(pusher, PUSHER_ENCRYPTION_MASTER_KEY_BASE64=key)
        app.json = CamelCase(app)

        def post(path: str = "auth", **fields: str) -> Any:
            form = {"socket_id": SOCKET_ID, **fields}
            return json.loads(app.test_client().post(f"/pusher/{path}", data=form).data)

        return post

    def test_of_a_presence_channel(self, post: Post) -> None:
        answer = post(channel_name="presence-first_room")
        assert answer.keys() == {"auth", "channel_data"}
        data = json.loads(answer["channel_data"])
        assert data == {"user_id": "7", "user_info": {"firstName": "Ana"}}

    def test_of_an_encrypted_channel(self, post: Post) -> None:
        assert post(channel_name="private-encrypted-a").keys() == {"auth", "shared_secret"}

    def test_of_a_user(self, post: Post) -> None:
        answer = post("user-auth")
        assert answer.keys() == {"auth", "user_data"}
        data = json.loads(answer["user_data"])
        assert data == {"id": "7", "user_info": {"firstName": "Ana"}, "watchlist": ["8"]}

    def test_of_a_batch(self, post: Post) -> None:
        answer = post(**{"channel_name[0]": "private-a_b", "channel_name[1]": "presence-secret_b"})
        assert answer["private-a_b"].keys() == {"status", "data"}
        assert answer["presence-secret_b"] == {"status": 403}

    def test_of_what_the_client_signs_by_hand(self, app: Flask) -> None:
        pusher = Pusher(app)
        app.json = CamelCase(app)
        with app.app_context():
            user = pusher.client.authenticate_user("1.2", {"id": "7", "user_info": {"a_b": 1}})
        assert json.loads(user["user_data"]) == {"id": "7", "user_info": {"aB": 1}}


class TestReasons:
    """Why a request was refused is in the log, at DEBUG, and what it asked for is there by name."""

    @pytest.mark.parametrize(
        ("fields", "status", "said"),
        [
            ({"channel_name": "private-a", "socket_id": "1"}, 400, "socket_id should be two"),
            ({"channel_name": "private a"}, 400, "channel_name should be 1 to 200"),
            ({"channel_name": "news"}, 404, "Only private and presence channels are authorised"),
            ({"channel_name": "private-encrypted-a"}, 404, "need PUSHER_ENCRYPTION_MASTER_KEY_BA"),
            ({"channel_name": "private-secret"}, 403, "may_subscribe() returned False for 'priv"),
            ({}, 400, "Name the channel in channel_name"),
            ({f"channel_name[{n}]": "private-a" for n in range(501)}, 413, "At most 500 channels"),
        ],
    )
    def test_one_request_has_one_line(
        self,
        friendly: Pusher,
        post: Post,
        reasons: pytest.LogCaptureFixture,
        fields: dict[str, str],
        status: int,
        said: str,
    ) -> None:
        assert post(**fields).status_code == status
        (told,) = reasons.records
        assert told.levelno == logging.DEBUG
        assert told.getMessage().startswith("Refused at /pusher/auth: ")
        assert said in told.getMessage()

    def test_each_channel_of_a_batch_has_its_own(
        self, friendly: Pusher, post: Post, reasons: pytest.LogCaptureFixture
    ) -> None:
        names = ["a b", "news", "private-encrypted-a", "private-secret", "private-a"]
        post(**{f"channel_name[{number}]": name for number, name in enumerate(names)})
        assert len(reasons.messages) == 4
        for name, told in zip(names, reasons.messages):
            assert repr(name) in told

    def test_so_has_a_body_that_is_too_long(
        self, make_app: MakeApp, caplog: pytest.LogCaptureFixture
    ) -> None:
        pusher = Pusher()
        pusher.auth(lambda channel_name, socket_id: True)
        app = make_app(pusher, MAX_CONTENT_LENGTH=100)
        app.logger.setLevel(logging.DEBUG)
        fields = {"socket_id": "1.2", "channel_name": "private-" + "a" * 150}
        assert app.test_client().post("/pusher/auth", data=fields).status_code == 413
        assert "Refused at /pusher/auth: " in caplog.text

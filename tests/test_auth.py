"""Channel authorisation: what each request gets, and what the browser is told."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from flask import Flask, Response, abort, request
from flask.testing import FlaskClient
from werkzeug.exceptions import Forbidden

from flask_pusher import Pusher

MakeApp = Callable[..., Flask]
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


class User(NamedTuple):
    id: str
    name: str


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

    def test_one_is_refused_where_there_is_no_handler(self, pusher: Pusher, post: Post) -> None:
        assert post(channel_name="private-news").status_code == 403

    def test_a_handler_may_refuse_with_a_status_of_its_own(
        self, pusher: Pusher, post: Post
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: abort(401))
        assert post(channel_name="private-news").status_code == 401

    def test_a_response_that_a_handler_returns_is_no_consent(
        self, pusher: Pusher, post: Post
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: Response("Log in first", 302))
        answer = post(channel_name="private-news")
        assert (answer.status_code, answer.text) == (302, "Log in first")

    @pytest.mark.parametrize(
        ("returned", "status"),
        [
            (("no", 401), 401),
            (({"error": "no"}, 409), 409),
            (Forbidden(), 403),
            (Response("not a signature", 200), 200),
        ],
    )
    def test_what_a_view_refuses_with_is_no_consent(
        self, pusher: Pusher, post: Post, returned: Any, status: int
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: returned)
        pusher.channel_data(lambda channel_name, socket_id: returned)
        answer = post(channel_name="private-news")
        assert answer.status_code == status
        assert "auth" not in answer.text
        pusher.auth(lambda channel_name, socket_id: True)
        assert "auth" not in post(channel_name="presence-news").text

    def test_what_was_not_awaited_is_no_consent(
        self, app: Flask, pusher: Pusher, post: Post
    ) -> None:
        async def refuse() -> bool:
            raise AssertionError("never awaited")

        def generate() -> Iterator[bool]:
            yield False

        app.config["PROPAGATE_EXCEPTIONS"] = True
        unrun: Any
        for unrun, kind in ((refuse(), "coroutine"), (generate(), "generator")):
            pusher.auth(lambda *args, _unrun=unrun: _unrun)
            with pytest.raises(TypeError, match=f"returned a {kind} and has not run"):
                post(channel_name="private-news")
            unrun.close()

    @pytest.mark.parametrize("consent", ["yes", 1, {"id": 7}, User("7", "Ana"), [0]])
    def test_anything_else_that_is_true_is_consent(
        self, pusher: Pusher, post: Post, consent: Any
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: consent)
        assert post(channel_name="private-news").status_code == 200

    def test_an_error_in_a_handler_is_the_applications_own(
        self, pusher: Pusher, post: Post
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: bool(1 / 0))
        assert post(channel_name="private-news").status_code == 500

    def test_a_handler_sees_the_request(self, pusher: Pusher, post: Post) -> None:
        pusher.auth(lambda channel_name, socket_id: request.path == "/pusher/auth")
        assert post(channel_name="private-news").status_code == 200

    def test_a_handler_that_is_declared_again_replaces_the_first_as_in_3_0(
        self, pusher: Pusher, post: Post
    ) -> None:
        pusher.auth(lambda channel_name, socket_id: False)
        pusher.auth(lambda channel_name, socket_id: True)
        assert post(channel_name="private-news").status_code == 200


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
        assert data == {"user_id": SOCKET_ID, "user_info": {}}

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
            (None, {"user_id": SOCKET_ID, "user_info": {}}),
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
            ({"user_info": None}, {"user_id": SOCKET_ID, "user_info": None}),
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

    @pytest.mark.parametrize("user_id", [True, False, [7], (7,), {"id": 7}])
    def test_a_user_id_that_cannot_be_is_an_error_that_says_so(
        self, app: Flask, friendly: Pusher, post: Post, user_id: Any
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        friendly.channel_data(lambda channel_name, socket_id: {"user_id": user_id})
        with pytest.raises(TypeError, match="a user_id that is text or a number"):
            post(channel_name="presence-room")

    def test_data_that_is_a_mapping_but_no_dict_will_do(
        self, friendly: Pusher, post: Post, sign: Sign
    ) -> None:
        friendly.channel_data(lambda channel_name, socket_id: MappingProxyType({"user_id": 7}))
        assert self.data(post(channel_name="presence-room"), sign)["user_id"] == "7"

    def test_data_that_is_no_dict_is_an_error_that_says_so(
        self, app: Flask, friendly: Pusher, post: Post
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        data: Any = "Ana"
        friendly.channel_data(lambda channel_name, socket_id: data)
        with pytest.raises(TypeError, match=r"'presence-room' should return a dict.* str"):
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
    def test_json_that_is_no_object_is_400(
        self, friendly: Pusher, browser: FlaskClient, body: bytes
    ) -> None:
        answer = browser.post("/pusher/auth", data=body, content_type="application/json")
        assert answer.status_code == 400
        assert "JSON object" in answer.text

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
            (lambda: Response("Log in", 302), 302),
            (lambda: abort(Response("not a signature", 200)), 403),
            (lambda: abort(Response("nor this", 204)), 204),
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

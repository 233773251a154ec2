"""Whatever is sent: a clear refusal, no error of ours, and nobody let in.

Hypothesis makes the requests up. The inputs that broke Flask-Pusher 3.0 are named as examples.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flask_pusher import Pusher

Sign = Callable[[bytes], str]

# What pytest's fixtures make here holds no state of a request.
settings.register_profile(
    "hostile", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("hostile")

GROUPS = ["channel_existence", "presence", "client", "cache", "subscription_count"]
PATHS = ["/pusher/auth", "/pusher/user-auth", "/pusher/events"]
PATHS += [f"/pusher/events/{group}" for group in GROUPS]
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "X"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
socket_ids = st.sampled_from(["1.2", "123.456", "", "1", "a.b", "1.2\n", "\u0661.\u0662"])
channels = st.one_of(
    st.sampled_from(
        [
            "private-open",
            "private-closed",
            "presence-open",
            "presence-closed",
            "private-encrypted-open",
            "private-order-7",
            "private-order-8",
            "news",
            "",
        ]
    ),
    st.text(max_size=20),
    st.text(max_size=20).map("private-".__add__),
    st.from_regex(r"\A(private|presence)-[A-Za-z0-9_\-=@,.;]{0,200}\Z"),
)
fields = st.dictionaries(
    st.sampled_from(["channel_name", "socket_id", *(f"channel_name[{n}]" for n in range(4))])
    | st.text(max_size=10),
    channels | socket_ids,
    max_size=6,
)
headers = st.dictionaries(
    st.sampled_from(["X-Pusher-Key", "X-Pusher-Signature", "X-Socket-ID", "Content-Type"]),
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=70),
)


class Shop:
    """An application that lets in ``open`` channels and order 7, and remembers whom it asked."""

    def __init__(self, app: Flask, pusher: Pusher) -> None:
        self.browser = app.test_client()
        self.agreed: set[tuple[str, str]] = set()
        self.users: set[str] = set()
        self.told: list[Any] = []
        app.config["PROPAGATE_EXCEPTIONS"] = True  # an error of ours fails the test by itself

        @pusher.auth
        def may_subscribe(channel_name: str, socket_id: str) -> bool:
            agrees = channel_name.endswith("open")
            if agrees:
                self.agreed.add((channel_name, socket_id))
            return agrees

        @pusher.auth("private-order-<int:order_id>")
        def may_follow(channel_name: str, socket_id: str, order_id: int) -> bool:
            if order_id == 7:
                self.agreed.add((channel_name, socket_id))
            return order_id == 7

        @pusher.auth("presence-<a>-<path:b>-<int:c>-end")
        @pusher.auth("private-<a>-<path:b>-<int:c>-end")
        def may_enter(channel_name: str, socket_id: str, a: str, b: str, c: int) -> bool:
            self.agreed.add((channel_name, socket_id))
            return True

        @pusher.channel_data("presence-<room>-open")
        def member(channel_name: str, socket_id: str, room: str) -> dict[str, str]:
            return {"room": room}

        @pusher.user_auth
        def sign_in(socket_id: str) -> dict[str, str] | None:
            self.users.add(socket_id)
            return {"id": socket_id}

        for group in GROUPS:
            getattr(pusher.webhooks, group)(lambda _group=group: self.told.append(_group))
        pusher.webhooks.event("member_added")(self.told.append)

    def open(self, path: str, **request: Any) -> Any:
        self.agreed.clear()
        self.users.clear()
        self.told.clear()
        return self.browser.open(path, **request)


@pytest.fixture
def shop(app: Flask, pusher: Pusher) -> Shop:
    return Shop(app, pusher)


def check_authorisation(answer: Any, agreed: set[tuple[str, str]], sign: Sign) -> None:
    """Only what the handler agreed to is signed, and for the connection that it was told of."""
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500
        assert agreed == set()
        return
    content = answer.get_json()
    signed = [content] if "auth" in content else [c.get("data") for c in content.values()]
    valid = set()
    for channel, socket_id in agreed:
        for data in filter(None, signed):
            text = f"{socket_id}:{channel}"
            if "channel_data" in data:
                text += f":{data['channel_data']}"
            valid.add(f"a-key:{sign(text.encode())}")
    assert {data["auth"] for data in signed if data} <= valid
    assert len([data for data in signed if data]) == len(agreed)


@given(fields)
@example({"socket_id": "1.2", "channel_name": "private-open"})
@example({"socket_id": "\u0661.\u0662", "channel_name": "private-open"})
@example({"socket_id": "1.2", "channel_name": "private open"})
@example({"socket_id": "1.2", "channel_name": "private-open\n"})
@example({"socket_id": "1.2", "channel_name": ""})
@example({"socket_id": "1.2", "channel_name": "private-" + "x" * 300})
@example({"socket_id": "1.2", "channel_name": "private-encrypted-open"})
@example(
    {"socket_id": "1.2", "channel_name[0]": "private-open", "channel_name[1]": "private-open"}
)
@example({"channel_name[0]": "private-open"})
@example({})
def test_any_form_and_any_json_object_is_answered(
    shop: Shop, sign: Sign, fields: dict[str, str]
) -> None:
    form = urlencode(fields, errors="surrogatepass").encode()
    answer = shop.open(
        "/pusher/auth",
        method="POST",
        data=form,
        content_type="application/x-www-form-urlencoded",
    )
    check_authorisation(answer, shop.agreed, sign)
    for content_type in (JSON, "text/plain", ""):
        body = json.dumps(fields)
        answer = shop.open("/pusher/auth", method="POST", data=body, content_type=content_type)
        check_authorisation(answer, shop.agreed, sign)


JSON, FORM = "application/json", "application/x-www-form-urlencoded"


@given(fields)
@example({"socket_id": "1.2"})
@example({"socket_id": "1." + "2" * 300})
@example({"socket_id": "\u0661.\u0662"})
def test_only_a_socket_that_can_be_is_signed_in(
    shop: Shop, sign: Sign, fields: dict[str, str]
) -> None:
    form = urlencode(fields, errors="surrogatepass").encode()
    for body, content_type in (
        (form, "application/x-www-form-urlencoded"),
        (json.dumps(fields).encode(), JSON),
        (json.dumps(fields).encode(), ""),
    ):
        answer = shop.open(
            "/pusher/user-auth", method="POST", data=body, content_type=content_type
        )
        if shop.users:
            (socket_id,) = shop.users
            content = answer.get_json()
            assert json.loads(content["user_data"]) == {"id": socket_id}
            signature = sign(f"{socket_id}::user::{content['user_data']}".encode())
            assert content["auth"] == f"a-key:{signature}"
        else:
            assert answer.status_code == 400


@given(st.sampled_from(PATHS[:2]), json_values)
@example("/pusher/auth", [])
@example("/pusher/auth", 5)
@example("/pusher/auth", {"socket_id": 1.2, "channel_name": ["private-open"]})
@example("/pusher/auth", {"socket_id": "1.2", "channel_name": "private-\ud800open"})
def test_any_json_is_answered(shop: Shop, path: str, value: Any) -> None:
    answer = shop.open(path, method="POST", data=json.dumps(value), content_type=JSON)
    assert 400 <= answer.status_code < 500
    assert shop.agreed == set()


@pytest.mark.usefixtures("no_collection")
@given(
    st.sampled_from(PATHS),
    st.sampled_from(METHODS),
    st.binary(max_size=300),
    headers,
    st.sampled_from(
        [
            JSON,
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "multipart/form-data; boundary=b",
            "multipart/form-data; boundary=\xe9",
            "application/json; charset=utf-16",
            "text/plain",
            "",
        ]
    ),
)
@example("/pusher/auth", "POST", b"\xff\xfe\xfd", {}, "application/x-www-form-urlencoded")
@example("/pusher/auth", "POST", b"[" * 5000, {}, JSON)
@example("/pusher/auth", "POST", b'{"a":' * 100000, {}, JSON)
@example("/pusher/auth", "POST", b"9" * 5000, {}, JSON)
@example("/pusher/auth", "POST", b"--b\r\n\r\n", {}, "multipart/form-data; boundary=b")
@example("/pusher/events", "POST", b"{}", {"X-Pusher-Signature": "\xe9"}, JSON)
@example("/pusher/events", "POST", b"{}", {"X-Pusher-Key": "\xe9"}, JSON)
def test_any_bytes_with_any_method_and_headers_are_answered(
    shop: Shop, path: str, method: str, body: bytes, headers: dict[str, str], content_type: str
) -> None:
    request = {"data": body, "headers": headers, "content_type": content_type}
    answer = shop.open(path, method=method, **request)
    assert answer.status_code == 200 if method == "OPTIONS" else 400 <= answer.status_code < 500
    assert shop.agreed == set()
    assert shop.users == set()
    assert shop.told == []


class Broken:
    """What a server reads of a body whose chunks are malformed, or whose client is gone."""

    def read(self, *_size: int) -> bytes:
        raise OSError("Invalid chunk header")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("content_type", [JSON, FORM, "multipart/form-data; boundary=b", ""])
def test_a_body_that_cannot_be_read_is_400(shop: Shop, path: str, content_type: str) -> None:
    answer = shop.open(
        path,
        method="POST",
        headers={"X-Pusher-Key": "a-key"},
        content_type=content_type,
        environ_overrides={"wsgi.input": Broken(), "wsgi.input_terminated": True},
    )
    assert answer.status_code == 400
    assert "cannot be read" in answer.text


webhook_bodies = st.one_of(
    st.binary(max_size=100),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"events": json_values},
        optional={"time_ms": json_values | st.just(time.time() * 1000)},
    ).map(lambda value: json.dumps(value).encode()),
    st.lists(
        st.dictionaries(
            st.just("name"), st.sampled_from(["member_added", "cache_miss"]) | json_values
        )
    ).map(lambda events: json.dumps({"events": events}).encode()),
)


@pytest.mark.usefixtures("no_collection")
@given(st.sampled_from(PATHS[2:]), webhook_bodies)
@example("/pusher/events", b"[]")
@example("/pusher/events", b"5")
@example("/pusher/events", b"[" * 5000)
@example("/pusher/events", b"\xff\xfe\xfd")
@example("/pusher/events", b'{"events": [{"name": ["member_added"]}]}')
@example("/pusher/events", b'{"events": [], "time_ms": 1e999}')
@example("/pusher/events", b'{"events": [], "time_ms": ' + b"9" * 4000 + b"}")
def test_any_signed_body_is_answered(shop: Shop, sign: Sign, path: str, body: bytes) -> None:
    headers = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": sign(body)}
    answer = shop.open(path, method="POST", data=body, headers=headers, content_type=JSON)
    assert answer.status_code in (200, 400, 403)
    if answer.status_code != 200:
        assert shop.told == []


@given(st.binary(max_size=60), st.text(alphabet="0123456789abcdefABCDEF\xe9 ", max_size=64))
def test_no_handler_runs_on_a_bad_signature(
    shop: Shop, sign: Sign, body: bytes, signature: str
) -> None:
    for wrong in (signature, sign(body)[:-1], sign(body) + "0", sign(body).upper(), sign(b"")):
        if wrong == sign(body):
            continue
        headers = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": wrong}
        answer = shop.open("/pusher/events", method="POST", data=body, headers=headers)
        assert answer.status_code == 403
        assert shop.told == []


def test_a_batch_costs_in_proportion_to_its_length(shop: Shop) -> None:
    """Counted in what the handlers are asked, which no noise of a machine changes."""
    for count in (10, 100, 500):
        names = {f"channel_name[{n}]": f"private-{n}-open" for n in range(count)}
        shop.open("/pusher/auth", method="POST", data={"socket_id": "1.2", **names})
        assert len(shop.agreed) == count


@given(st.from_regex(r"\A(private|presence)-[A-Za-z0-9_\-=@,.;]{0,200}\Z"))
@example("private-" + "-" * 192)
@example("presence-" + "1-" * 95)
def test_any_channel_finds_its_handler_or_none(shop: Shop, sign: Sign, channel: str) -> None:
    form = {"socket_id": "1.2", "channel_name": channel}
    answer = shop.open("/pusher/auth", method="POST", data=form)
    check_authorisation(answer, shop.agreed, sign)

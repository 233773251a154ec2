"""Webhooks: which are believed, and whom they are told to."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response, abort, request
from flask.json.provider import DefaultJSONProvider
from flask.testing import FlaskClient
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.local import LocalProxy

from flask_pusher import Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

PostWebhook = Callable[..., Any]
Sign = Callable[[bytes], str]

GROUPS = {
    "channel_existence": ["channel_occupied", "channel_vacated"],
    "presence": ["member_added", "member_removed"],
    "client": ["client_event"],
    "cache": ["cache_miss"],
    "subscription_count": ["subscription_count"],
}


def webhook(*names: str, **more: Any) -> dict[str, Any]:
    events = [{"name": name, "channel": "a"} for name in names]
    return {"time_ms": time.time_ns() // 10**6, "events": events, **more}


@pytest.fixture
def told(pusher: Pusher) -> list[Any]:
    """What the handlers of all groups, and those of each event, were told."""
    told: list[Any] = []
    for group, names in GROUPS.items():
        getattr(pusher.webhooks, group)(lambda _group=group: told.append(_group))
        for name in names:
            pusher.webhooks.event(name)(lambda event: told.append(event["name"]))
    return told


class TestWhatIsBelieved:
    @pytest.mark.parametrize("path", ["", *(f"/{group}" for group in GROUPS)])
    def test_a_signed_webhook_is(
        self, told: list[Any], post_webhook: PostWebhook, path: str
    ) -> None:
        answer = post_webhook(f"/pusher/events{path}", webhook("member_added"))
        assert (answer.status_code, answer.text) == (200, "OK")
        assert "member_added" in told

    @pytest.mark.parametrize(
        ("headers", "reason"),
        [
            (
                {"X-Pusher-Key": "another"},
                "X-Pusher-Key is missing, or none of this application's",
            ),
            ({"X-Pusher-Key": ""}, "X-Pusher-Key is missing, or none of this application's"),
            ({"X-Pusher-Key": "\xe9"}, "X-Pusher-Key is missing, or none of this application's"),
            (
                {"X-Pusher-Signature": "0" * 64},
                "X-Pusher-Signature is missing, or not by its key's secret",
            ),
            (
                {"X-Pusher-Signature": ""},
                "X-Pusher-Signature is missing, or not by its key's secret",
            ),
            (
                {"X-Pusher-Signature": "\xe9" * 64},
                "X-Pusher-Signature is missing, or not by its key's secret",
            ),
        ],
    )
    @pytest.mark.parametrize("path", ["", *(f"/{group}" for group in GROUPS)])
    def test_one_with_another_key_or_signature_is_not(
        self,
        told: list[Any],
        post_webhook: PostWebhook,
        caplog: pytest.LogCaptureFixture,
        path: str,
        headers: dict[str, str],
        reason: str,
    ) -> None:
        answer = post_webhook(f"/pusher/events{path}", webhook("member_added"), headers)
        assert answer.status_code == 403
        assert told == []
        assert reason in caplog.text
        assert "a-secret" not in caplog.text

    @pytest.mark.parametrize("missing", ["X-Pusher-Key", "X-Pusher-Signature"])
    def test_one_without_its_headers_is_not(
        self,
        told: list[Any],
        browser: FlaskClient,
        sign: Sign,
        caplog: pytest.LogCaptureFixture,
        missing: str,
    ) -> None:
        body = json.dumps(webhook("member_added")).encode()
        headers = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": sign(body)}
        del headers[missing]
        answer = browser.post("/pusher/events", data=body, headers=headers)
        assert answer.status_code == 403
        assert told == []
        assert f"its {missing} is missing" in caplog.text

    def test_the_raw_bytes_are_what_is_signed(
        self, told: list[Any], post_webhook: PostWebhook, browser: FlaskClient, sign: Sign
    ) -> None:
        raw = '{"events" : [ {"name":"cache_miss","channel":"é"} ]}\r\n'.encode()
        assert post_webhook("/pusher/events", raw).status_code == 200
        reordered = json.dumps(json.loads(raw)).encode()
        headers = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": sign(raw)}
        answer = browser.post("/pusher/events", data=reordered, headers=headers)
        assert answer.status_code == 403

    @pytest.mark.usefixtures("no_collection")
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"5",
            b"null",
            b'"text"',
            b"\xff\xfe\x00",
            b"[" * 5000,
            b'{"events":' * 100000,
            b"{}",
            b'{"time_ms": 1}',
            b'{"name": "channel_vacated", "channel": "news"}',
            b'{"events": {}}',
            b'{"events": null}',
            b'{"events": [1]}',
            b'{"events": [{}]}',
            b'{"events": [{"name": 5}]}',
            b'{"events": [{"name": ["member_added"]}]}',
            b'{"events": [{"name": "member_added"}, null]}',
            b'{"events": [{"name": "member_added"}], "time_ms": null}',
            b'{"events": [{"name": "member_added"}], "time_ms": "now"}',
            b'{"events": [{"name": "member_added"}], "time_ms": [1]}',
            b'{"events": [{"name": "member_added"}], "time_ms": true}',
            b'{"events": [{"name": "member_added"}], "time_ms": false}',
        ],
    )
    def test_a_signed_body_that_is_no_webhook_is_400(
        self,
        told: list[Any],
        post_webhook: PostWebhook,
        caplog: pytest.LogCaptureFixture,
        body: bytes,
    ) -> None:
        assert post_webhook("/pusher/events", body).status_code == 400
        assert told == []
        assert "Refused a webhook at /pusher/events" in caplog.text

    def test_one_that_is_too_long_is_413_and_told(
        self, make_app: MakeApp, caplog: pytest.LogCaptureFixture
    ) -> None:
        pusher = Pusher()
        pusher.webhooks.presence(lambda: None)
        browser = make_app(pusher, MAX_CONTENT_LENGTH=100).test_client()
        assert browser.post("/pusher/events", data=b"x" * 101).status_code == 413
        assert "Refused a webhook at /pusher/events: its body cannot be read, or is" in caplog.text

    @pytest.mark.parametrize("group", GROUPS)
    def test_a_single_event_is_none(
        self, told: list[Any], post_webhook: PostWebhook, group: str
    ) -> None:
        body = {"name": GROUPS[group][0], "channel": "news", "time_ms": time.time() * 1000}
        assert post_webhook(f"/pusher/events/{group}", body).status_code == 400
        assert told == []

    @pytest.mark.parametrize("group", ["cache", "subscription_count"])
    def test_what_has_no_events_is_none_at_the_routes_that_3_0_had_not(
        self, told: list[Any], post_webhook: PostWebhook, group: str
    ) -> None:
        assert post_webhook(f"/pusher/events/{group}", {"hello": "world"}).status_code == 400
        assert told == []


class TestAge:
    def post(self, post_webhook: PostWebhook, time_ms: Any) -> int:
        body = json.dumps(webhook("cache_miss", time_ms=time_ms))
        status: int = post_webhook("/pusher/events", body.encode()).status_code
        return status

    @pytest.mark.parametrize(
        ("seconds", "status"), [(0, 200), (590, 200), (610, 403), (-600, 200), (10**9, 403)]
    )
    def test_a_webhook_stays_valid_for_ten_minutes(
        self, told: list[Any], post_webhook: PostWebhook, seconds: int, status: int
    ) -> None:
        time_ms = time.time_ns() // 10**6 - seconds * 1000
        assert self.post(post_webhook, time_ms) == status
        assert bool(told) is (status == 200)

    @pytest.mark.parametrize(
        ("time_ms", "status"),
        [
            ("now", 200),
            ("4000000000123", 200),
            ("4000000000123.5", 200),
            ("1700000000123", 403),
            ("nan", 403),
            ("9" * 5000, 200),
            ("", 400),
            ("1.2.3", 400),
            ("0x1", 400),
        ],
    )
    def test_the_time_may_be_text(
        self, told: list[Any], post_webhook: PostWebhook, time_ms: str, status: int
    ) -> None:
        now = str(time.time_ns() // 10**6)
        assert self.post(post_webhook, now if time_ms == "now" else time_ms) == status

    @pytest.mark.parametrize(
        ("max_age", "seconds", "status"),
        [
            (500, 300, 200),
            (500, 700, 403),
            ("500", 700, 403),
            (0.5, 3, 403),
            ("", 500, 200),
            ("", 610, 403),
            (None, 10**9, 200),
            ("None", 10**9, 200),
            ("null", 10**9, 200),
        ],
    )
    def test_that_time_can_be_set(
        self, make_app: MakeApp, sign: Sign, max_age: Any, seconds: int, status: int
    ) -> None:
        pusher = Pusher()
        pusher.webhooks.cache(lambda: None)
        app = make_app(pusher, PUSHER_WEBHOOK_MAX_AGE=max_age)
        time_ms = time.time_ns() // 10**6 - seconds * 1000
        body = json.dumps(webhook("cache_miss", time_ms=time_ms)).encode()
        headers = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": sign(body)}
        answer = app.test_client().post("/pusher/events/cache", data=body, headers=headers)
        assert answer.status_code == status

    def test_a_webhook_without_a_time_passes(
        self, told: list[Any], post_webhook: PostWebhook
    ) -> None:
        body = {"events": [{"name": "cache_miss"}]}
        assert post_webhook("/pusher/events", body).status_code == 200
        assert told == ["cache", "cache_miss"]

    @pytest.mark.parametrize(
        ("time_ms", "status"),
        [
            (float("nan"), 403),
            (float("inf"), 200),
            (float("-inf"), 403),
            (10**400, 200),
            (-(10**400), 403),
        ],
    )
    def test_the_numbers_that_json_knows_are_compared(
        self, told: list[Any], post_webhook: PostWebhook, time_ms: Any, status: int
    ) -> None:
        assert self.post(post_webhook, time_ms) == status

    def test_a_provider_may_make_decimals_of_numbers(
        self, app: Flask, told: list[Any], post_webhook: PostWebhook
    ) -> None:
        class Decimals(DefaultJSONProvider):
            def loads(self, s: str | bytes, **kwargs: Any) -> Any:
                return json.loads(s, parse_int=Decimal, parse_float=Decimal, **kwargs)

        app.json = Decimals(app)
        assert self.post(post_webhook, time.time() * 1000) == 200
        assert self.post(post_webhook, 1.5) == 403
        assert self.post(post_webhook, 10**400) == 200

    @pytest.mark.parametrize("number", ["NaN", "-NaN", "-Infinity"])
    def test_a_decimal_that_is_no_number_is_no_time(
        self, app: Flask, told: list[Any], post_webhook: PostWebhook, number: str
    ) -> None:
        class Decimals(DefaultJSONProvider):
            def loads(self, s: str | bytes, **kwargs: Any) -> Any:
                return json.loads(s, parse_constant=lambda _name: Decimal(number), **kwargs)

        app.json = Decimals(app)
        assert self.post(post_webhook, float("nan")) == 403
        assert told == []


class TestWhoIsTold:
    @pytest.mark.parametrize("group", GROUPS)
    def test_a_groups_route_tells_its_handler_once_and_each_event(
        self, told: list[Any], post_webhook: PostWebhook, group: str
    ) -> None:
        names = GROUPS[group] * 2
        post_webhook(f"/pusher/events/{group}", webhook(*names))
        assert told == [group, *names]

    @pytest.mark.parametrize("group", GROUPS)
    def test_the_route_for_all_tells_the_groups_whose_events_it_got(
        self, told: list[Any], post_webhook: PostWebhook, group: str
    ) -> None:
        names = GROUPS[group] * 2
        post_webhook("/pusher/events", webhook(*names))
        assert told == [group, *names]

    def test_kinds_may_be_mixed_at_the_route_for_all(
        self, told: list[Any], post_webhook: PostWebhook
    ) -> None:
        post_webhook("/pusher/events", webhook("cache_miss", "member_added", "cache_miss"))
        assert sorted(told[:2]) == ["cache", "presence"]
        assert told[2:] == ["cache_miss", "member_added", "cache_miss"]

    def test_kinds_may_be_mixed_at_a_groups_route(
        self, told: list[Any], post_webhook: PostWebhook
    ) -> None:
        post_webhook("/pusher/events/presence", webhook("cache_miss", "member_added"))
        assert told == ["presence", "cache_miss", "member_added"]

    def test_several_handlers_of_one_event_are_all_told(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        told: list[str] = []

        @pusher.webhooks.event("member_added")
        def count(event: dict[str, Any]) -> None:
            told.append("count")

        @pusher.webhooks.event("member_added")
        def greet(event: dict[str, Any]) -> None:
            told.append("greet " + event["user_id"])

        body = {"events": [{"name": "member_added", "user_id": "7"}]}
        post_webhook("/pusher/events", body)
        assert told == ["count", "greet 7"]

    def test_what_a_handler_changes_is_its_own(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        told: list[dict[str, Any]] = []
        pusher.webhooks.presence(lambda: request.get_json()["events"].clear())
        pusher.webhooks.event("member_added")(lambda event: event.clear())
        pusher.webhooks.event("member_added")(told.append)
        assert post_webhook("/pusher/events", webhook("member_added")).status_code == 200
        assert [event["name"] for event in told] == ["member_added"]

    def test_an_event_that_nobody_handles_is_fine(
        self, told: list[Any], post_webhook: PostWebhook
    ) -> None:
        assert post_webhook("/pusher/events", webhook("of_tomorrow")).status_code == 200
        assert told == []

    def test_an_event_of_a_name_of_tomorrow_can_be_handled(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        told: list[Any] = []
        pusher.webhooks.event("of_tomorrow")(told.append)
        post_webhook("/pusher/events", webhook("of_tomorrow"))
        assert told == [{"name": "of_tomorrow", "channel": "a"}]

    @pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
    def test_a_group_handler_reads_the_request_whatever_type_it_says(
        self, pusher: Pusher, browser: FlaskClient, sign: Sign, content_type: str
    ) -> None:
        told: list[Any] = []
        pusher.webhooks.client(lambda: told.append((request.json, request.data)))
        raw = json.dumps(webhook("client_event")).encode()
        headers = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": sign(raw)}
        answer = browser.post(
            "/pusher/events/client", data=raw, headers=headers, content_type=content_type
        )
        assert answer.status_code == 200
        assert told == [(json.loads(raw), raw)]

    @pytest.mark.parametrize("path", ["", *(f"/{group}" for group in GROUPS)])
    def test_without_a_handler_a_route_is_404_and_told(
        self,
        pusher: Pusher,
        post_webhook: PostWebhook,
        browser: FlaskClient,
        reasons: pytest.LogCaptureFixture,
        path: str,
    ) -> None:
        if path:
            other = "client" if path == "/presence" else "presence"
            getattr(pusher.webhooks, other)(lambda: None)
        assert post_webhook(f"/pusher/events{path}", webhook()).status_code == 404
        assert browser.post(f"/pusher/events{path}").status_code == 404
        line = f"No handler is declared for webhooks at /pusher/events{path}."
        assert reasons.messages == [line] * 2

    def test_an_event_handler_alone_serves_a_groups_route(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        told: list[Any] = []
        pusher.webhooks.event("member_added")(told.append)
        answer = post_webhook("/pusher/events/presence", webhook("member_added"))
        assert answer.status_code == 200
        assert len(told) == 1

    def test_a_handler_that_fails_makes_channels_send_again(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        attempts: list[int] = []

        @pusher.webhooks.event("cache_miss")
        def fill(event: dict[str, Any]) -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise ConnectionError

        assert post_webhook("/pusher/events", webhook("cache_miss")).status_code == 500
        assert post_webhook("/pusher/events", webhook("cache_miss")).status_code == 200
        assert len(attempts) == 2

    def test_a_handler_that_has_not_run_makes_channels_send_again(
        self, pusher: Pusher, post_webhook: PostWebhook, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def fill() -> None:
            raise AssertionError("never awaited")

        def fill_each() -> Iterator[None]:
            yield

        async def fill_each_later() -> AsyncIterator[None]:
            yield

        unrun = fill()
        pusher.webhooks.cache(lambda: unrun)
        pusher.webhooks.presence(fill_each)
        pusher.webhooks.client(fill_each_later)
        for group in ("cache", "presence", "client"):
            assert post_webhook(f"/pusher/events/{group}", webhook()).status_code == 500
        unrun.close()
        for kind in ("coroutine", "generator", "async_generator"):
            assert f"returned a {kind}, and has not run" in caplog.text

    def test_coroutine_functions_are_called_as_others(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        pytest.importorskip("asgiref")
        told: list[Any] = []

        @pusher.webhooks.cache
        async def fill() -> None:
            told.append(request.json["events"])

        @pusher.webhooks.event("cache_miss")
        async def fill_one(event: dict[str, Any]) -> None:
            told.append(event)

        body = webhook("cache_miss")
        assert post_webhook("/pusher/events/cache", body).status_code == 200
        assert told == [body["events"], body["events"][0]]

    @pytest.mark.parametrize(
        "returned",
        [
            *(None, False, "no", {"status": 500}, ("yes", 200), Response("yes"), (7, 500)),
            LocalProxy(lambda: None),
        ],
    )
    def test_what_a_handler_returns_is_no_matter_unless_it_refuses(
        self, pusher: Pusher, post_webhook: PostWebhook, returned: Any
    ) -> None:
        pusher.webhooks.cache(lambda: returned)
        pusher.webhooks.event("cache_miss")(lambda event: returned)
        assert post_webhook("/pusher/events/cache", webhook("cache_miss")).status_code == 200

    @pytest.mark.parametrize(
        ("returned", "status"),
        [
            (("later", 503), 503),
            (("later", "500 Oh"), 500),
            (Response("no", 400), 400),
            (({"a": 1}, 409, {"X-Reason": "none"}), 409),
            (ServiceUnavailable(), 503),
            (LocalProxy(lambda: ("later", 503)), 503),
        ],
    )
    def test_a_handler_that_returns_a_refusal_makes_channels_send_again(
        self,
        pusher: Pusher,
        post_webhook: PostWebhook,
        reasons: pytest.LogCaptureFixture,
        returned: Any,
        status: int,
    ) -> None:
        pusher.webhooks.presence(lambda: returned)
        pusher.webhooks.event("cache_miss")(lambda event: returned)
        assert post_webhook("/pusher/events/presence", webhook()).status_code == status
        assert post_webhook("/pusher/events", webhook("cache_miss")).status_code == status
        assert reasons.text.count(f"<lambda>() refused a webhook: {status} ") == 2

    def test_a_handler_may_answer_with_a_status_of_its_own(
        self, pusher: Pusher, post_webhook: PostWebhook, reasons: pytest.LogCaptureFixture
    ) -> None:
        pusher.webhooks.cache(lambda: abort(503))
        assert post_webhook("/pusher/events/cache", webhook()).status_code == 503
        assert "<lambda>() refused a webhook: it raised ServiceUnavailable.\n" in reasons.text

    def test_so_may_an_exception_of_the_applications_own(
        self,
        app: Flask,
        pusher: Pusher,
        post_webhook: PostWebhook,
        reasons: pytest.LogCaptureFixture,
    ) -> None:
        app.register_error_handler(KeyError, lambda error: ("no", 404))
        pusher.webhooks.event("cache_miss")(lambda event: event["nothing"])
        assert post_webhook("/pusher/events", webhook("cache_miss")).status_code == 404
        assert "<lambda>() refused a webhook: it raised KeyError.\n" in reasons.text


class TestExtraTokens:
    """While a key is rotated, webhooks come with the old one and the new one."""

    @pytest.fixture
    def post(self, make_app: MakeApp) -> PostWebhook:
        pusher = Pusher()
        pusher.webhooks.cache(lambda: None)
        tokens = {"old-key": "old-secret", "older-key": "older-secret"}
        browser = make_app(pusher, PUSHER_EXTRA_TOKENS=tokens).test_client()

        def post(key: str, secret: str) -> Any:
            body = json.dumps(webhook("cache_miss")).encode()
            signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            headers = {"X-Pusher-Key": key, "X-Pusher-Signature": signature}
            return browser.post("/pusher/events/cache", data=body, headers=headers)

        return post

    @pytest.mark.parametrize("name", ["a", "old", "older"])
    def test_each_key_is_believed_with_its_own_secret(self, post: PostWebhook, name: str) -> None:
        assert post(f"{name}-key", f"{name}-secret").status_code == 200

    @pytest.mark.parametrize(
        ("key", "secret"),
        [
            ("a-key", "old-secret"),
            ("old-key", "a-secret"),
            ("old-key", "older-secret"),
            ("oldest-key", "old-secret"),
        ],
    )
    def test_and_with_no_other(self, post: PostWebhook, key: str, secret: str) -> None:
        assert post(key, secret).status_code == 403

    def test_keys_and_signatures_are_compared_in_constant_time_as_bytes(
        self, post: PostWebhook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compared: list[tuple[Any, Any]] = []

        def compare(one: Any, other: Any) -> bool:
            compared.append((one, other))
            return bool(one == other)

        monkeypatch.setattr("_flask_pusher.webhooks.hmac.compare_digest", compare)
        assert post("a-key", "a-secret").status_code == 200
        assert {type(one) for pair in compared for one in pair} == {bytes}
        assert [pair[1] for pair in compared[:3]] == [b"old-key", b"older-key", b"a-key"]
        assert len(compared) == 4


def test_a_test_signs_its_own_webhooks(app: Flask, pusher: Pusher, browser: FlaskClient) -> None:
    told: list[Any] = []
    pusher.webhooks.event("cache_miss")(told.append)
    for body in ('{"events": [{"name": "cache_miss", "channel": "é"}]}', b'{"events": []}'):
        with app.app_context():
            headers = pusher.sign_webhook(body)
        assert headers["Content-Type"] == "application/json"
        answer = browser.post("/pusher/events", data=body, headers=headers)
        assert answer.status_code == 200
    assert told == [{"name": "cache_miss", "channel": "é"}]

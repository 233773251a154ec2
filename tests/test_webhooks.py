"""Webhooks: which are believed, and whom they are told to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial, wraps
from typing import Any

import pytest
from flask import Flask, abort, request
from flask.json.provider import DefaultJSONProvider
from flask.testing import FlaskClient

from flask_pusher import Pusher

MakeApp = Callable[..., Flask]
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
            ({"X-Pusher-Key": "another"}, "X-Pusher-Key is not"),
            ({"X-Pusher-Key": ""}, "X-Pusher-Key is not"),
            ({"X-Pusher-Key": "\xe9"}, "X-Pusher-Key is not"),
            ({"X-Pusher-Signature": "0" * 64}, "X-Pusher-Signature is not"),
            ({"X-Pusher-Signature": ""}, "X-Pusher-Signature is not"),
            ({"X-Pusher-Signature": "\xe9" * 64}, "X-Pusher-Signature is not"),
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
        assert f"it has no {missing}" in caplog.text

    def test_the_raw_bytes_are_what_is_signed(
        self, told: list[Any], post_webhook: PostWebhook, browser: FlaskClient, sign: Sign
    ) -> None:
        raw = '{"events" : [ {"name":"cache_miss","channel":"é"} ]}\r\n'.encode()
        assert post_webhook("/pusher/events", raw).status_code == 200
        reordered = json.dumps(json.loads(raw)).encode()
        headers = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": sign(raw)}
        answer = browser.post("/pusher/events", data=reordered, headers=headers)
        assert answer.status_code == 403

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
        ("max_age", "seconds", "status"),
        [
            (5, 3, 200),
            (5, 7, 403),
            ("5", 7, 403),
            (0.5, 3, 403),
            ("", 590, 200),
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
            (True, 403),
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

    def test_a_group_handler_reads_the_request(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        told: list[Any] = []
        pusher.webhooks.client(lambda: told.append((request.json, request.data)))
        body = webhook("client_event")
        post_webhook("/pusher/events/client", body)
        assert told == [(body, json.dumps(body).encode())]

    @pytest.mark.parametrize("path", ["", *(f"/{group}" for group in GROUPS)])
    def test_without_a_handler_a_route_is_404(
        self, pusher: Pusher, post_webhook: PostWebhook, browser: FlaskClient, path: str
    ) -> None:
        if path:
            other = "client" if path == "/presence" else "presence"
            getattr(pusher.webhooks, other)(lambda: None)
        assert post_webhook(f"/pusher/events{path}", webhook()).status_code == 404
        assert browser.post(f"/pusher/events{path}").status_code == 404

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

    def test_a_handler_that_was_not_awaited_makes_channels_send_again(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        async def fill() -> None:
            raise AssertionError("never awaited")

        unrun = fill()
        pusher.webhooks.cache(lambda: unrun)
        assert post_webhook("/pusher/events/cache", webhook()).status_code == 500
        unrun.close()

    def test_what_a_handler_returns_is_no_matter(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        pusher.webhooks.cache(lambda: ("no", 500))
        assert post_webhook("/pusher/events/cache", webhook()).status_code == 200

    def test_a_handler_may_answer_with_a_status_of_its_own(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        pusher.webhooks.cache(lambda: abort(503))
        assert post_webhook("/pusher/events/cache", webhook()).status_code == 503


class TestDeclarations:
    @pytest.mark.parametrize("group", GROUPS)
    def test_a_second_handler_of_a_group_is_an_error(self, pusher: Pusher, group: str) -> None:
        getattr(pusher.webhooks, group)(lambda: None)
        with pytest.raises(ValueError, match=f"{group} is declared twice"):
            getattr(pusher.webhooks, group)(lambda: 1)

    def test_handlers_in_one_decorator_are_not_one(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        told: list[str] = []

        def plain(handler: Callable[..., Any]) -> Callable[..., Any]:
            return lambda event: handler(event)

        pusher.webhooks.event("cache_miss")(plain(lambda event: told.append("one")))
        pusher.webhooks.event("cache_miss")(plain(lambda event: told.append("two")))
        post_webhook("/pusher/events", webhook("cache_miss"))
        assert told == ["one", "two"]

    def test_methods_of_two_objects_are_not_one(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        logs: tuple[list[Any], list[Any]] = ([], [])
        for log in logs:
            pusher.webhooks.event("cache_miss")(log.append)

        class Counter:
            count = 0

            def add(self, event: Any) -> None:
                self.count += 1

        counters = Counter(), Counter()
        for counter in counters:
            pusher.webhooks.event("cache_miss")(counter.add)
        post_webhook("/pusher/events", webhook("cache_miss"))
        assert [len(log) for log in logs] == [1, 1]
        assert [counter.count for counter in counters] == [1, 1]

    def test_a_factory_may_declare_any_kind_of_function_again(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        told: list[Any] = []

        def recursive(handler: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(event: Any, depth: int = 1) -> Any:
                return wrapper(event, depth - 1) if depth else handler(event)

            return wrapper

        def create_app() -> None:
            def handler(where: str, event: Any) -> None:
                told.append(where)

            pusher.webhooks.event("cache_miss")(partial(handler, "partial"))
            pusher.webhooks.event("cache_miss")(recursive(lambda event: told.append("wrapped")))
            pusher.webhooks.event("cache_miss")(wraps(handler)(lambda event: handler("w", event)))
            unset()

        def unset() -> None:
            def early(event: Any) -> Any:
                return late(event)

            pusher.webhooks.event("cache_miss")(early)

            def late(event: Any) -> None:
                told.append("late")

        create_app()
        create_app()
        post_webhook("/pusher/events", webhook("cache_miss"))
        assert told == ["wrapped", "w", "late"]

    def test_an_event_handler_without_a_name_is_an_error(self, pusher: Pusher) -> None:
        with pytest.raises(TypeError, match="Name the event"):

            @pusher.webhooks.event  # type: ignore[arg-type]
            def handler(event: dict[str, Any]) -> None: ...


def test_a_test_signs_its_own_webhooks(app: Flask, pusher: Pusher, browser: FlaskClient) -> None:
    told: list[Any] = []
    pusher.webhooks.event("cache_miss")(told.append)
    for body in ('{"events": [{"name": "cache_miss", "channel": "é"}]}', b'{"events": []}'):
        with app.app_context():
            headers = pusher.sign_webhook(body)
        answer = browser.post("/pusher/events", data=body, headers=headers)
        assert answer.status_code == 200
    assert told == [{"name": "cache_miss", "channel": "é"}]

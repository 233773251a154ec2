"""Handlers of webhooks: how they are declared, and the channels that they are for."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, abort
from werkzeug.routing import BaseConverter

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


class TestPatterns:
    """An event's handler for the channels of one form."""

    @pytest.fixture
    def boards(self, pusher: Pusher) -> list[Any]:
        """What the handlers of boards were told."""
        boards: list[Any] = []

        @pusher.webhooks.event("member_added", "presence-board-<int:board_id>")
        def joined(event: dict[str, Any], board_id: int) -> None:
            boards.append((board_id, event["user_id"]))

        @pusher.webhooks.event("member_added", "presence-<anything>")
        def joined_anything(event: dict[str, Any], *, anything: str) -> None:
            boards.append(anything)

        @pusher.webhooks.event("member_added")
        def joined_all(event: dict[str, Any]) -> None:
            boards.append("all")

        return boards

    @pytest.mark.parametrize(
        ("channel", "told"),
        [
            ("presence-board-7", [(7, "ana"), "board-7", "all"]),
            ("presence-board-x", ["board-x", "all"]),
            ("private-board-7", ["all"]),
            ("presence-board-7" + "7" * 200, ["all"]),
            ("", ["all"]),
            (None, ["all"]),
            (["presence-board-7"], ["all"]),
        ],
    )
    def test_each_that_matches_is_called_in_order_and_given_the_variables(
        self, boards: list[Any], post_webhook: PostWebhook, channel: Any, told: list[Any]
    ) -> None:
        event = {"name": "member_added", "channel": channel, "user_id": "ana"}
        body = {"time_ms": time.time_ns() // 10**6, "events": [event]}
        assert post_webhook("/pusher/events", body).status_code == 200
        assert boards == told

    def test_a_converter_that_finds_no_row_keeps_no_other_handler_from_being_called(
        self, app: Flask, post_webhook: PostWebhook
    ) -> None:
        class Board(BaseConverter):
            def to_python(self, value: str) -> Any:
                return value if value == "1" else abort(404)

        app.url_map.converters["board"] = Board
        pusher, told = Pusher(), []
        pusher.webhooks.event("cache_miss")(lambda event: told.append(event["channel"]))
        pattern = pusher.webhooks.event("cache_miss", "cache-<board:board>")
        pattern(lambda event, board: told.append(board))
        pusher.init_app(app)
        body = {"events": [{"name": "cache_miss", "channel": f"cache-{n}"} for n in "12"]}
        assert post_webhook("/pusher/events", body).status_code == 200
        assert told == ["cache-1", "1", "cache-2"]

    def test_any_kind_of_channel_may_be_asked_for(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        told: list[Any] = []
        for pattern in ("<x>", "news-<x>", "cache-<x>"):
            pusher.webhooks.event("cache_miss", pattern)(lambda event, x: told.append(x))
        names = ("cache-a", "news-b", "private-c")
        body = {"events": [{"name": "cache_miss", "channel": name} for name in names]}
        assert post_webhook("/pusher/events", body).status_code == 200
        assert told == ["cache-a", "a", "news-b", "b", "private-c"]

    @pytest.mark.parametrize(
        "pattern", ["", "a b", "<x", "<x>-<x>", "private-<int(bad=1):x>", "a" * 201]
    )
    def test_one_that_cannot_work_is_an_error_where_it_is_declared(
        self, pusher: Pusher, pattern: str
    ) -> None:
        with pytest.raises(ValueError, match=r"@pusher\.webhooks\.event\('cache_miss', "):
            pusher.webhooks.event("cache_miss", pattern)

    def test_an_unknown_converter_is_an_error_of_init_app(self, app: Flask) -> None:
        pusher = Pusher()
        pusher.webhooks.event("cache_miss", "cache-<integer:n>")(lambda event, n: None)
        with pytest.raises(LookupError, match="Is 'int' meant"):
            pusher.init_app(app)

    def test_the_same_object_again_is_told_once_for_each_pattern(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        told: list[Any] = []

        def fill(event: dict[str, Any], **variables: str) -> None:
            told.append(variables)

        for _time in range(2):
            pusher.webhooks.event("cache_miss", "cache-<x>")(fill)
            pusher.webhooks.event("cache_miss", "<y>")(fill)
            pusher.webhooks.event("cache_miss")(fill)
        post_webhook("/pusher/events", {"events": [{"name": "cache_miss", "channel": "cache-a"}]})
        assert told == [{"x": "a"}, {"y": "cache-a"}, {}]


class TestDeclarations:
    @pytest.mark.parametrize("group", GROUPS)
    def test_parentheses_around_nothing_say_what_to_write(
        self, pusher: Pusher, group: str
    ) -> None:
        with pytest.raises(TypeError, match=f"Write @pusher.webhooks.{group} above it, without"):
            getattr(pusher.webhooks, group)()

    @pytest.mark.parametrize("group", GROUPS)
    def test_a_groups_handler_is_given_nothing(self, pusher: Pusher, group: str) -> None:
        with pytest.raises(TypeError, match=r"is called with no argument: missing a required"):
            getattr(pusher.webhooks, group)(lambda event: None)

    @pytest.mark.parametrize(
        ("pattern", "handler", "given"),
        [
            (None, lambda: None, "event"),
            (None, lambda event, board_id: None, "event"),
            ("presence-<int:board_id>", lambda event: None, "event, board_id=..."),
            ("presence-<int:board_id>", lambda board_id: None, "event, board_id=..."),
            ("presence-<event>", lambda event: None, "event, event=..."),
        ],
    )
    def test_an_events_handler_is_given_it_and_the_patterns_variables(
        self, pusher: Pusher, pattern: Any, handler: Any, given: str
    ) -> None:
        with pytest.raises(TypeError, match=f"is called with {given}: "):
            pusher.webhooks.event("member_added", pattern)(handler)

    def test_a_factory_that_runs_again_is_warned_that_its_handlers_add_up(
        self, make_app: MakeApp
    ) -> None:
        pusher = Pusher()

        def create_app() -> Flask:
            app = make_app(pusher)

            @pusher.webhooks.event("member_added")
            def arrived(event: dict[str, Any]) -> None: ...

            return app

        create_app()
        with pytest.warns(
            UserWarning, match=r"arrived\(\) is declared again for .*'member_added'"
        ):
            create_app()

    def test_several_handlers_of_one_event_are_not_warned_about(
        self, pusher: Pusher, recwarn: Any
    ) -> None:
        def count(event: dict[str, Any]) -> None: ...

        def show(event: dict[str, Any]) -> None: ...

        pusher.webhooks.event("member_added")(count)
        pusher.webhooks.event("member_added")(show)
        pusher.webhooks.event("member_added", "presence-<x>")(lambda event, x: None)
        pusher.webhooks.event("member_added", "presence-<y>")(lambda event, y: None)
        assert recwarn.list == []

    @pytest.mark.parametrize("group", ["cache", "subscription_count"])
    def test_a_second_handler_of_a_group_is_an_error(self, pusher: Pusher, group: str) -> None:
        getattr(pusher.webhooks, group)(lambda: None)
        with pytest.raises(ValueError, match=f"{group} is declared twice"):
            getattr(pusher.webhooks, group)(lambda: 1)

    @pytest.mark.parametrize("group", ["channel_existence", "presence", "client"])
    def test_the_groups_of_3_0_take_the_last_handler(
        self, make_app: MakeApp, sign: Sign, group: str
    ) -> None:
        told: list[str] = []
        pusher = Pusher()
        declare = getattr(pusher.webhooks, group)
        declare(lambda: told.append("first"))
        declare(lambda: told.append("second"))
        browser = make_app(pusher).test_client()
        with pytest.warns(UserWarning, match=f"@pusher.webhooks.{group} is declared again") as at:
            declare(lambda: told.append("third"))
        assert at[0].filename == __file__
        headers = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": sign(b"{}")}
        answer = browser.post(f"/pusher/events/{group}", data=b"{}", headers=headers)
        assert answer.status_code == 200
        assert told == ["third"]

    @pytest.mark.parametrize("group", GROUPS)
    def test_decorators_give_the_function_back(self, pusher: Pusher, group: str) -> None:
        def handler() -> None: ...

        for _time in range(2):  # the same one is no second
            assert getattr(pusher.webhooks, group)(handler) is handler

    @pytest.mark.parametrize("handler", [None, "member_added", 7])
    def test_what_cannot_be_called_is_no_handler(self, pusher: Pusher, handler: Any) -> None:
        with pytest.raises(TypeError, match=r"@pusher\.webhooks\.cache is given a function"):
            pusher.webhooks.cache(handler)
        with pytest.raises(TypeError, match=r"@pusher\.webhooks\.event\('cache_miss'\) is given"):
            pusher.webhooks.event("cache_miss")(handler)

    @pytest.mark.parametrize(
        ("name", "known"),
        [
            ("member_add", "member_added"),
            ("members_added", "member_added"),
            ("channel_ocupied", "channel_occupied"),
            ("client-event", "client_event"),
            ("cache_misses", "cache_miss"),
        ],
    )
    def test_a_name_that_is_nearly_one_of_channels_is_warned_about(
        self, pusher: Pusher, name: str, known: str
    ) -> None:
        with pytest.warns(UserWarning, match=f"no webhook event {name!r}. Is {known!r}") as told:
            pusher.webhooks.event(name)
        assert told[0].filename == __file__

    @pytest.mark.parametrize(
        "name", ["of_tomorrow", "", *(n for names in GROUPS.values() for n in names)]
    )
    def test_any_other_name_is_not(self, pusher: Pusher, name: str, recwarn: Any) -> None:
        pusher.webhooks.event(name)
        assert recwarn.list == []

    def test_handlers_in_one_decorator_are_not_one(
        self, app: Flask, post_webhook: PostWebhook
    ) -> None:
        pusher = Pusher()
        told: list[str] = []

        def plain(handler: Callable[..., Any]) -> Callable[..., Any]:
            return lambda event: handler(event)

        pusher.webhooks.event("cache_miss")(plain(lambda event: told.append("one")))
        pusher.webhooks.event("cache_miss")(plain(lambda event: told.append("two")))
        pusher.init_app(app)
        post_webhook("/pusher/events", webhook("cache_miss"))
        assert told == ["one", "two"]

    def test_methods_of_two_objects_are_not_one(
        self, app: Flask, post_webhook: PostWebhook
    ) -> None:
        pusher = Pusher()
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
        pusher.init_app(app)
        post_webhook("/pusher/events", webhook("cache_miss"))
        assert [len(log) for log in logs] == [1, 1]
        assert [counter.count for counter in counters] == [1, 1]

    def test_handlers_of_one_code_are_all_told(
        self, app: Flask, post_webhook: PostWebhook
    ) -> None:
        pusher = Pusher()
        told: list[str] = []

        def forward_to(where: str) -> Callable[..., None]:
            return lambda event: told.append(where)

        def tell(where: str, event: dict[str, Any]) -> None:
            told.append(where)

        for where in ("a", "b"):
            pusher.webhooks.event("cache_miss")(forward_to(where))
            pusher.webhooks.event("cache_miss")(partial(tell, f"partial {where}"))
            pusher.webhooks.event("cache_miss")(lambda event, _where=where: told.append(_where))
        pusher.init_app(app)
        post_webhook("/pusher/events", webhook("cache_miss"))
        assert told == ["a", "partial a", "a", "b", "partial b", "b"]

    def test_the_same_object_again_is_told_once(
        self, pusher: Pusher, post_webhook: PostWebhook
    ) -> None:
        told: list[Any] = []

        def fill(event: dict[str, Any]) -> None:
            told.append(event)

        for _time in range(2):
            assert pusher.webhooks.event("cache_miss")(fill) is fill
        post_webhook("/pusher/events", webhook("cache_miss"))
        assert len(told) == 1

    def test_an_event_handler_without_a_name_is_an_error(self, pusher: Pusher) -> None:
        with pytest.raises(TypeError, match="Name the event"):

            @pusher.webhooks.event  # type: ignore[call-overload]
            def handler(event: dict[str, Any]) -> None: ...

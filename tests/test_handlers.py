"""Channel patterns: which handler a channel finds, and which patterns are errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import BaseConverter, ValidationError

from flask_pusher import Pusher

MakeApp = Callable[..., Flask]
Ask = Callable[[str], Any]


@pytest.fixture
def ask(browser: FlaskClient) -> Ask:
    def ask(channel: str) -> Any:
        form = {"socket_id": "1.2", "channel_name": channel}
        return browser.post("/pusher/auth", data=form)

    return ask


def test_variables_are_converted_and_passed_by_name(pusher: Pusher, ask: Ask) -> None:
    seen: list[Any] = []

    @pusher.auth("private-order-<int:order_id>-of-<who>")
    def may_follow(channel_name: str, socket_id: str, *, who: str, order_id: int) -> bool:
        seen.append((channel_name, socket_id, order_id, who))
        return True

    assert ask("private-order-7-of-ana").status_code == 200
    assert seen == [("private-order-7-of-ana", "1.2", 7, "ana")]


@pytest.mark.parametrize("channel", ["private-order-x", "private-order-", "private-order-7x"])
def test_a_channel_that_no_pattern_matches_is_refused(
    pusher: Pusher, ask: Ask, channel: str
) -> None:
    pusher.auth("private-order-<int:order_id>")(lambda channel_name, socket_id, order_id: True)
    assert ask(channel).status_code == 403


def test_the_bare_handler_is_asked_about_what_no_pattern_matches(pusher: Pusher, ask: Ask) -> None:
    asked: list[str] = []

    @pusher.auth
    def may_subscribe(channel_name: str, socket_id: str) -> bool:
        asked.append(channel_name)
        return True

    pusher.auth("private-order-<int:order_id>")(lambda channel_name, socket_id, order_id: False)
    assert ask("private-order-7").status_code == 403
    assert ask("private-order-x").status_code == 200
    assert ask("presence-x").status_code == 200
    assert asked == ["private-order-x", "presence-x"]


def test_the_most_specific_pattern_wins_whatever_the_order(make_app: MakeApp) -> None:
    patterns = [
        "private-<name>",
        "private-order-<name>",
        "private-order-<int:number>",
        "private-order-7",
        "private-<first>-<second>",
        "private-order-<int:number>-<part>",
    ]
    expected = {
        "private-x": "private-<name>",
        "private-order-x": "private-order-<name>",
        "private-order-8": "private-order-<int:number>",
        "private-order-7": "private-order-7",
        "private-a-b": "private-<first>-<second>",
        "private-order-8-lid": "private-order-<int:number>-<part>",
    }
    for ordered in (patterns, patterns[::-1]):
        pusher = Pusher()
        for pattern in ordered:
            pusher.auth("presence" + pattern[7:])(lambda *args, **variables: True)
            pusher.channel_data("presence" + pattern[7:])(
                lambda *args, _pattern=pattern, **variables: {"user_id": _pattern}
            )
        browser = make_app(pusher).test_client()
        for channel, pattern in expected.items():
            form = {"socket_id": "1.2", "channel_name": "presence" + channel[7:]}
            answer = browser.post("/pusher/auth", data=form).get_json()
            assert json.loads(answer["channel_data"])["user_id"] == pattern


@pytest.mark.parametrize(
    ("pattern", "channel", "variables"),
    [
        ("private-<x>", "private-a-b.c;d,e=f@g_h", {"x": "a-b.c;d,e=f@g_h"}),
        ("private-<path:x>", "private-a", {"x": "a"}),
        ("private-<float:x>", "private-1.5", {"x": 1.5}),
        ("private-<any(red,blue):x>", "private-blue", {"x": "blue"}),
        ("private-<string(length=2):x>", "private-ab", {"x": "ab"}),
        ("private-encrypted-<x>", "private-encrypted-a", {"x": "a"}),
        ("presence-<x>", "presence-a", {"x": "a"}),
        ("private-a;b=c@d", "private-a;b=c@d", {}),
    ],
)
def test_patterns_know_werkzeugs_converters(
    make_app: MakeApp, pattern: str, channel: str, variables: dict[str, Any]
) -> None:
    pusher = Pusher()
    seen: list[dict[str, Any]] = []

    @pusher.auth(pattern)
    def may_subscribe(channel_name: str, socket_id: str, **found: Any) -> bool:
        seen.append(found)
        return True

    app = make_app(pusher, PUSHER_ENCRYPTION_MASTER_KEY_BASE64="A" * 43 + "=")
    form = {"socket_id": "1.2", "channel_name": channel}
    assert app.test_client().post("/pusher/auth", data=form).status_code == 200
    assert seen == [variables]


class EvenConverter(BaseConverter):
    """An application's own: even numbers."""

    regex = "[0-9]+"

    def to_python(self, value: str) -> int:
        if int(value) % 2:
            raise ValidationError
        return int(value)


@pytest.mark.parametrize("declared", ["before", "after"])
def test_patterns_know_the_applications_converters(app: Flask, ask: Ask, declared: str) -> None:
    app.url_map.converters["even"] = EvenConverter
    pusher = Pusher()
    if declared == "after":
        pusher.init_app(app)
    pusher.auth("private-<even:n>")(lambda channel_name, socket_id, n: n == 4)
    if declared == "before":
        pusher.init_app(app)
    assert ask("private-4").status_code == 200
    assert ask("private-5").status_code == 403


def test_a_converter_that_the_application_lacks_is_an_error_of_init_app(app: Flask) -> None:
    pusher = Pusher()
    pusher.auth("private-<even:n>")(lambda channel_name, socket_id, n: True)
    with pytest.raises(LookupError, match=r"@pusher\.auth\('private-<even:n>'\).*'even'"):
        pusher.init_app(app)


def test_channel_data_has_patterns_too(pusher: Pusher, ask: Ask) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.channel_data(lambda channel_name, socket_id: {"user_id": "bare"})

    @pusher.channel_data("presence-room-<room>")
    def member(channel_name: str, socket_id: str, room: str) -> dict[str, str]:
        return {"user_id": "ana", "room": room}

    data = json.loads(ask("presence-room-blue").get_json()["channel_data"])
    assert data == {"user_id": "ana", "room": "blue", "user_info": {"room": "blue"}}
    data = json.loads(ask("presence-lobby").get_json()["channel_data"])
    assert data["user_id"] == "bare"


def test_one_handler_may_have_several_patterns(pusher: Pusher, ask: Ask) -> None:
    @pusher.auth("private-room-<room>")
    @pusher.auth("presence-room-<room>")
    def may_enter(channel_name: str, socket_id: str, room: str) -> bool:
        return room == "blue"

    assert ask("private-room-blue").status_code == 200
    assert ask("presence-room-blue").status_code == 200
    assert ask("presence-room-red").status_code == 403


@pytest.mark.parametrize(
    "pattern",
    [
        "news-<x>",
        "<kind>-x",
        "cache-<x>",
        "private",
        "",
        "private-a b",
        "private-a/<x>",
        "private-<x",
        "private-x>",
        "private-<int:x>é",
        "private-" + "a" * 200,
        "private-<>",
        "private-<x>-<x>",
        "private-<int(bad=1):x>",
        "private-<channel_name>",
        "presence-<socket_id>",
    ],
)
def test_a_pattern_that_cannot_work_is_an_error_when_it_is_declared(pattern: str) -> None:
    pusher = Pusher()
    with pytest.raises(ValueError, match=r"@pusher\.auth\("):
        pusher.auth(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "private-<a>-<b>-<c>-<int:d>",
        "private-<a>-<b>-<c>-end",
        "private-<a>-<string:b>.<c>",
        "private-<a>-<b>-<c>x",
    ],
)
def test_a_pattern_that_could_take_long_is_an_error_when_it_is_declared(pattern: str) -> None:
    with pytest.raises(ValueError, match="could take long to match"):
        Pusher().auth(pattern)


@pytest.mark.parametrize(
    ("pattern", "channel"),
    [
        ("private-<a>-<b>-<c>-<d>-<e>", "private-a-b-c-d-e"),
        ("private-<a>-<b>-<int:c>", "private-a-b-7"),
        ("private-<int:a>-<b>-<int:c>-<d>", "private-1-b-7-d"),
    ],
)
def test_many_variables_are_fine_where_they_match_fast(
    pusher: Pusher, ask: Ask, pattern: str, channel: str
) -> None:
    pusher.auth(pattern)(lambda *args, **variables: True)
    assert ask(channel).status_code == 200
    assert ask("private" + "-" * 190).status_code in (200, 403)


@pytest.mark.parametrize("pattern", ["private-<x>", "room-<x>"])
def test_channel_data_is_for_presence_channels(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"@pusher\.channel_data\(.*Start .* with presence-"):
        Pusher().channel_data(pattern)


@pytest.mark.parametrize(
    "again", ["private-<x>", "private-<y>", "private-<string:x>", "private-<default:z>"]
)
def test_a_pattern_declared_twice_is_an_error(again: str) -> None:
    pusher = Pusher()

    @pusher.auth("private-<x>")
    def one(channel_name: str, socket_id: str, x: str) -> bool:
        return True

    with pytest.raises(ValueError, match="is declared twice"):

        @pusher.auth(again)
        def two(channel_name: str, socket_id: str, **variables: str) -> bool:
            return True


def test_patterns_of_other_converters_are_others() -> None:
    pusher = Pusher()
    pusher.auth("private-<x>")(lambda channel_name, socket_id, x: True)
    pusher.auth("private-<int:x>")(lambda channel_name, socket_id, x: True)
    pusher.auth("presence-<x>")(lambda channel_name, socket_id, x: True)


def test_a_class_that_handles_can_be_declared_once_only() -> None:
    class Handler:
        def __call__(self, channel_name: str, socket_id: str, x: str) -> bool:
            return True

    pusher = Pusher()
    handler = Handler()
    pusher.auth("private-<x>")(handler)
    pusher.auth("private-<x>")(handler)
    with pytest.raises(ValueError, match="is declared twice"):
        pusher.auth("private-<x>")(Handler())

"""Patterns: which channels they match, which one is asked, and that no name takes long."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import BaseConverter, Map, UnicodeConverter, ValidationError

from _flask_pusher.handlers import Compiled, Pattern
from flask_pusher import Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

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


KINDS_FROM_NARROW_TO_WIDE = [
    ("any(admin,staff)", "admin"),
    ("uuid", "00000000-0000-0000-0000-000000000009"),
    ("int", "7"),
    ("float", "7.5"),
    ("string(length=2)", "ab"),
    ("own", "own"),
    ("default", "other"),
    ("path", "other"),
]


class OwnConverter(UnicodeConverter):
    """An application's own, of Werkzeug's usual weight."""


class NarrowConverter(BaseConverter):
    weight = 1


class WideConverter(BaseConverter):
    weight = 300


def narrowest(app: Flask, declared: list[str], channel: str) -> str:
    """The converter of the pattern whose handler has the channel."""
    pusher = Pusher()
    asked: list[str] = []
    for kind in declared:

        def may_subscribe(channel_name: str, socket_id: str, x: Any, _kind: str = kind) -> bool:
            asked.append(_kind)
            return True

        pusher.auth(f"private-<{kind}:x>")(may_subscribe)
    pusher.init_app(app)
    form = {"socket_id": "1.2", "channel_name": channel}
    assert app.test_client().post("/pusher/auth", data=form).status_code == 200
    return asked[0]


@pytest.mark.parametrize(("narrow", "wide"), [*combinations(KINDS_FROM_NARROW_TO_WIDE, 2)])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_narrower_converter_answers_in_either_order(
    app: Flask, narrow: tuple[str, str], wide: tuple[str, str], is_reversed: bool
) -> None:
    app.url_map.converters["own"] = OwnConverter
    declared = [narrow[0], wide[0]]
    found = narrowest(app, declared[::-1] if is_reversed else declared, f"private-{narrow[1]}")
    assert found == narrow[0]


@pytest.mark.parametrize(
    ("narrow", "wide", "channel"),
    [
        ("int(max=99)", "int", "private-7"),
        ("int(fixed_digits=1)", "int", "private-7"),
        ("int(1)", "int", "private-7"),
        ("int(min=0,signed=True)", "int(signed=True)", "private-7"),
        ("int", "int(signed=True)", "private-7"),
        ("float(max=9)", "float", "private-7.5"),
        ("any(staff)", "any(admin,staff)", "private-staff"),
        ("any(admin,staff)", "any(a,b,staff)", "private-staff"),
    ],
)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_so_does_one_kind_of_converter_with_a_limit(
    app: Flask, narrow: str, wide: str, channel: str, is_reversed: bool
) -> None:
    declared = [wide, narrow] if is_reversed else [narrow, wide]
    assert narrowest(app, declared, channel) == narrow


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        (["any(a,b)", "narrow"], "narrow"),
        (["path", "wide"], "path"),
        (["default", "string(minlength=1)"], "string(minlength=1)"),
        (["string(maxlength=9)", "string(length=1)"], "string(length=1)"),
        (["any(a,b)", "any(a)"], "any(a)"),
    ],
)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_an_own_converter_stands_by_its_weight_and_ties_do_not_depend_on_the_order(
    app: Flask, declared: list[str], found: str, is_reversed: bool
) -> None:
    app.url_map.converters.update(narrow=NarrowConverter, wide=WideConverter)
    ordered = declared[::-1] if is_reversed else declared
    assert narrowest(app, ordered, "private-a") == found


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
        "private-<string(length=99999999999):x>",
    ],
)
def test_a_pattern_that_cannot_work_is_an_error_when_it_is_declared(pattern: str) -> None:
    pusher = Pusher()
    with pytest.raises(ValueError, match=r"@pusher\.auth\("):
        pusher.auth(pattern)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("news-<x>", "Start the pattern with private- or presence-"),
        ("private-<x", "a variable is <name> or <converter:name>"),
        ("private-x>", "a variable is <name> or <converter:name>"),
        ("private-a b", "A name has 1 to 200 of the characters"),
        ("private-<x>-<int:x>", "is malformed: redefinition of group name 'x'"),
    ],
)
def test_the_error_says_what_a_pattern_should_be(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Pusher().auth(pattern)


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


# -- How a variable reaches -----------------------------------------------------------------------


class TagsConverter(BaseConverter):
    """As most applications' own are: with Werkzeug's expression, ``[^/]+``."""

    def to_python(self, value: str) -> list[str]:
        return value.split(",")


class MonthConverter(BaseConverter):
    regex = r"\d{4}-\d{2}"


class SlugConverter(UnicodeConverter):
    """A subclass of a converter of Werkzeug's, with an expression of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.regex = "[a-z0-9]+(?:-[a-z0-9]+)*"


class DigitsConverter(BaseConverter):
    regex = "[0-9]+"


class AllConverter(BaseConverter):
    regex = ".*"


class PlusConverter(BaseConverter):
    """Ends in what only looks like a repetition."""

    regex = r"[a-z]=\="


CONVERTERS = {
    "tags": TagsConverter,
    "month": MonthConverter,
    "slug": SlugConverter,
    "digits": DigitsConverter,
    "all": AllConverter,
    "plus": PlusConverter,
    "even": EvenConverter,
}


def compiled(pattern: str) -> Compiled:
    declared = Pattern(pattern, f"@pusher.auth({pattern!r})", ("private-",))
    return declared.compile(Map(converters=CONVERTERS))


@pytest.mark.parametrize(
    ("pattern", "channel", "variables"),
    [
        ("<a>-<b>", "x-y-z", {"a": "x", "b": "y-z"}),
        ("<a>-<b>-<c>-<d>-<e>", "a-b-c-d-e", {"a": "a", "b": "b", "c": "c", "d": "d", "e": "e"}),
        ("<a><b>", "xyz", {"a": "x", "b": "yz"}),
        ("<a>-end", "x-end-end", {"a": "x-end"}),
        ("<slug>-<int:id>", "my-shop-7", {"slug": "my-shop", "id": 7}),
        ("<slug><int:id>", "shop12", {"slug": "shop", "id": 12}),
        ("<slug>-<int:y>-<int:m>", "top-10-2024-05", {"slug": "top-10", "y": 2024, "m": 5}),
        ("<a>-<slug>-<int:id>", "x-my-shop-7", {"a": "x", "slug": "my-shop", "id": 7}),
        ("<a>-<b>-<int:c>-<d>", "x-y-z-7-w", {"a": "x", "b": "y-z", "c": 7, "d": "w"}),
        ("<path:a>-<path:b>-<int:n>", "x-y-z-7", {"a": "x", "b": "y-z", "n": 7}),
        ("<int:a><b>", "12x", {"a": 12, "b": "x"}),
        ("<int:a>-<int:b>", "1-2", {"a": 1, "b": 2}),
        ("<slug>-<int(signed=True):n>", "a-b--7", {"slug": "a-b", "n": -7}),
        ("<slug>-<float:x>-<y>", "a-b-1.5-c-d", {"slug": "a-b", "x": 1.5, "y": "c-d"}),
        ("<string(length=2):a><string(length=2):b>", "abcd", {"a": "ab", "b": "cd"}),
        ("<string(minlength=3):a>-<b>", "a-b-c-d", {"a": "a-b", "b": "c-d"}),
        ("<string(maxlength=3):a>-<b>", "abcd-e", None),
        ("<any(red,'red-ish'):c>-<int:n>", "red-ish-7", {"c": "red-ish", "n": 7}),
        ("<slug>-<any(red,blue):c>", "my-red-blue", {"slug": "my-red", "c": "blue"}),
        ("<slug>-<even:n>", "my-shop-4", {"slug": "my-shop", "n": 4}),
        ("<slug>-<even:n>", "my-shop-5", None),
        ("<tags:a>-<int:n>-orders", "x,y-7-orders", {"a": ["x", "y"], "n": 7}),
        ("<tags:a>-<b>", "x-y-z", {"a": ["x"], "b": "y-z"}),
        ("<tags:a>-<tags:b>-<x>-<y>", "a-b-c-d", {"a": ["a"], "b": ["b"], "x": "c", "y": "d"}),
        ("<tags:a>-<tags:b>-<tags:c>-x", "a-b-c-x", {"a": ["a"], "b": ["b"], "c": ["c"]}),
        ("<month:m>-<x>", "2024-05-foo-bar", {"m": "2024-05", "x": "foo-bar"}),
        ("<x>-<month:m>", "foo-bar-2024-05", {"x": "foo-bar", "m": "2024-05"}),
        ("<slug:s>-<int:n>", "my-shop-7", {"s": "my-shop", "n": 7}),
        ("<all:a>-<all:b>-end", "x-y-z-end", {"a": "x", "b": "y-z"}),
        ("<plus:a>-<b>", "x==-y", {"a": "x==", "b": "y"}),
        ("<a>-<b>", "x", None),
        ("<a>-<int:b>", "x-y", None),
        ("<uuid:u>", "00000000-0000-0000-0000-00000000000", None),
    ],
)
def test_a_variable_reaches_to_the_first_place_where_what_follows_matches_too(
    pattern: str, channel: str, variables: dict[str, Any] | None
) -> None:
    assert compiled(f"private-{pattern}").match(f"private-{channel}") == variables


UNITS = ["-", "a", "1", "a-", "1-", "1a", "1.", "-1", "aa-", "1.1-"]
KINDS = [
    "",
    "path:",
    "string(minlength=1):",
    "string(minlength=1,maxlength=150):",
    "int:",
    "int(signed=True):",
    "float:",
    "uuid:",
    "any(a,aa,1,11):",
    "any('-','--'):",
    "tags:",
    "slug:",
    "digits:",
    "all:",
]


def hostile_patterns() -> Iterator[str]:
    """Each kind of variable in a row with each other, joined and ended by what may mislead it."""
    for number, first in enumerate(KINDS):
        for second in KINDS:
            for joint in ("-", "", "a"):
                kinds = [first, second, first]
                variables = [f"<{kind}v{index}>" for index, kind in enumerate(kinds)]
                yield "private-" + joint.join(variables) + ("-end", "=", "-<int:z>")[number % 3]


def seconds_of(match: Callable[[str], Any], channel: str) -> float:
    """The processor's time of one match, the shortest of several."""

    def once() -> float:
        start = time.thread_time()
        match(channel)
        return time.thread_time() - start

    return min(once() for _ in range(5))


TRIES = 20
"""A machine that does other things makes a match slow, now and then; a slow pattern always is."""


def test_no_channel_makes_a_pattern_slow() -> None:
    """The longest name takes at most its length times what it takes to be read once; what begins
    again for each variable would take that times its length once more."""
    names = ["private-" + unit * (190 // len(unit)) for unit in UNITS]
    read = compiled("private-<x>").match

    def is_slow(match: Callable[[str], Any], name: str) -> bool:
        return seconds_of(match, name) > 190 * max(seconds_of(read, one) for one in names)

    for pattern in hostile_patterns():
        match = compiled(pattern).match
        slow = [name for name in names if all(is_slow(match, name) for _ in range(TRIES))]
        assert not slow, pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "<path:a>-<path:b>-<path:c>-<path:d>-end",
        "<a>-<b>-<c>-<d>-end",
        "<tags:a>-<tags:b>-<tags:c>-<tags:d>-end",
        "<all:a><all:b><all:c><all:d>=",
        "<string(minlength=1):a>-<string(minlength=1):b>-<string(minlength=1):c>-<int:d>",
    ],
)
def test_twice_the_name_takes_four_times_as_long_at_most(pattern: str) -> None:
    """With room for the machine's noise: one more loop would make it eight times."""
    match = compiled(f"private-{pattern}").match

    def ratio(unit: str) -> float:
        half, whole = ("private-" + unit * (length // len(unit)) for length in (95, 190))
        return seconds_of(match, whole) / seconds_of(match, half)

    for unit in UNITS:
        assert any(ratio(unit) < 7 for _ in range(TRIES)), unit

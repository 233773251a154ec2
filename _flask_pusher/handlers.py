"""Declared handlers, patterns, and which handler a channel has.

How a handler is declared:

===================================  =======================================================
``auth``, ``channel_data`` and the   the last one declared is called, as in Flask-Pusher 3.0;
webhook groups that 3.0 had          replacing one when an application is served is warned about
a pattern, the other webhook         one handler each; another one is a ``ValueError``
groups, ``user_auth``, ``hand_over``
``webhooks.event(name, pattern)``    any number, called in order
===================================  =======================================================

The same object again is no second one. Two objects are never taken for one another. A handler that
cannot be called with what it is given, by place or by name, is a ``TypeError``.

How a pattern matches: a variable reaches to the first place where what follows it in the pattern
matches too: the text behind it, numbers, and the next variable that is none.
``private-<slug>-<int:id>`` finds the last number of ``private-my-shop-7``, and ``private-<a>-<b>``
divides ``private-x-y-z`` into ``x`` and ``y-z``. A number is taken whole. No variable that was
found is given up again, so that no channel's name makes a pattern slow.

Which of several patterns is the most specific, in whatever order they are declared: the one with the
longest text before its first variable; then the one with most text; then, variable by variable, the
one with the narrower converter. From narrow to wide: ``any`` (10), ``uuid`` (20), ``int`` (50),
``float`` (60), ``string`` with a length (90), the default and ``string`` (110), ``path`` (200). An
application's own converter stands between them by its ``weight``, which is 100 unless it says
otherwise. A number with a limit comes before one without, and of two ``any`` the one with fewer
words.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, Union

from flask import Flask, current_app, has_app_context
from werkzeug import routing
from werkzeug.exceptions import HTTPException
from werkzeug.local import LocalProxy
from werkzeug.wrappers import Response

from _flask_pusher import rules
from _flask_pusher.warning import warn

if TYPE_CHECKING:
    from typing_extensions import Concatenate

# What handlers take and return. What they may return instead, a view refuses with.
Refusal = Union["Response", "HTTPException", tuple[Any, int], tuple[Any, int, Any]]
Consent = Union[bool, Refusal, Awaitable[Union[bool, Refusal]]]
Data = Union[Mapping[str, Any], Refusal, Awaitable[Union[Mapping[str, Any], Refusal, None]], None]

AuthHandler = TypeVar("AuthHandler", bound="Callable[[str, str], Consent]")
DataHandler = TypeVar("DataHandler", bound="Callable[[str, str], Data]")
UserHandler = TypeVar("UserHandler", bound="Callable[[str], Data]")
HandOver = TypeVar("HandOver", bound="Callable[[list[dict[str, Any]]], object]")
PatternAuth = TypeVar("PatternAuth", bound="Callable[Concatenate[str, str, ...], Consent]")
PatternData = TypeVar("PatternData", bound="Callable[Concatenate[str, str, ...], Data]")
PatternEvent = TypeVar("PatternEvent", bound="Callable[Concatenate[dict[str, Any], ...], Any]")
H = TypeVar("H", bound="Handler")
Handler = Callable[..., Any]
NOTHING: Any = None
"""What a decorator is given that has parentheses around nothing. Its own error says so."""

_VARIABLE = (  # compiled where a pattern is declared, and nowhere else
    r"<(?:(?P<converter>[A-Za-z_][A-Za-z0-9_]*)(?:\((?P<arguments>[^<>]*)\))?:)?"
    r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)>"
)
_NUMBERS = (routing.IntegerConverter, routing.FloatConverter, routing.UUIDConverter)
_TEXT = ("", "default", "string")  # the first is that of <slug>
_WIDTHS = {"any": 10, "uuid": 20, "int": 50, "float": 60, **dict.fromkeys(_TEXT, 110), "path": 200}
_CHANNEL = ("channel_name", "socket_id")
IN_3_0 = ("channel_existence", "presence", "client")


class Handlers:
    """What one extension was given: all its applications have it in common."""

    def __init__(self) -> None:
        self.is_served = False
        """Whether an application is given them: a handler that is replaced now was in use."""
        self.auth = ChannelHandlers(self, "@pusher.auth", rules.AUTHORISED)
        self.channel_data = ChannelHandlers(self, "@pusher.channel_data", (rules.PRESENCE,))
        self.user_auth = Slot(self, "@pusher.user_auth", ("socket_id",), keeps_the_first=True)
        self.hand_over = Slot(self, "@pusher.hand_over", ("calls",), keeps_the_first=True)
        self.groups = {
            group: Slot(self, f"@pusher.webhooks.{group}", (), keeps_the_first=group not in IN_3_0)
            for group in rules.WEBHOOK_GROUPS
        }
        self.events: dict[str, tuple[tuple[Pattern | None, Handler], ...]] = {}
        """Those of each webhook event, in order, with the channels that they are for."""

    def declare_event(self, name: str, pattern: Pattern | None, handler: Handler) -> None:
        declared = self.events.get(name, ())
        text = pattern and pattern.text
        alike = [other for to, other in declared if (to and to.text) == text]
        if any(other is handler for other in alike):
            return
        if self.is_served and name_of(handler) in map(name_of, alike):
            warn(
                f"{name_of(handler)}() is declared again for the webhook event {name!r} when an"
                " application is served already. Every application of this Pusher calls both."
            )
        self.events[name] = (*declared, (pattern, handler))


@dataclass(eq=False)
class Slot:
    """The place of one handler, which is called with these arguments."""

    of: Handlers
    decorator: str
    arguments: tuple[str, ...]
    keeps_the_first: bool
    handler: Handler | None = None

    def declare(self, handler: H) -> H:
        expect_handler(handler, self.decorator, self.arguments)
        if self.handler is not None and self.handler is not handler:
            if self.keeps_the_first:
                raise declared_twice(self.decorator)
            if self.of.is_served:
                warn(
                    f"{self.decorator} is declared again when an application is served already."
                    " The new handler answers for every application of this Pusher."
                )
        self.handler = handler
        return handler


def expect_handler(
    handler: Any, decorator: str, arguments: tuple[str, ...], variables: Iterable[str] = ()
) -> None:
    """Let pass what can be called with the arguments by place and the variables by name, and what
    does not say: a C function, a decorator's ``*args``.

    :raises TypeError: for anything else.
    """
    if not callable(handler):
        hint = f" Write {decorator} above it, without parentheses." if handler is None else ""
        kind = type(handler).__name__
        raise TypeError(f"{decorator} is given a function; this is of type {kind}.{hint}")
    try:
        # As it is called: what a decorator wraps may take more, and be given that by it.
        signature = inspect.signature(handler, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    named = dict.fromkeys(variables)
    try:
        signature.bind(*arguments, **named)
    except TypeError as error:
        given = ", ".join((*arguments, *(f"{name}=..." for name in named))) or "no argument"
        call = f"{name_of(handler)}() is called with {given}"
        raise TypeError(f"{decorator}: {call}: {error}.") from None


def name_of(handler: Handler) -> str:
    return getattr(handler, "__qualname__", None) or type(handler).__qualname__


def object_of(value: Any) -> Any:
    """The object itself, where it may be a proxy of it, as ``current_app`` is."""
    while isinstance(value, LocalProxy):
        value = value._get_current_object()
    return value


def finished(returned: Any, handler: Handler) -> Any:
    """What a handler returned. To a decorator that knows no coroutines, the call of a coroutine
    function is something true, and has run nothing yet.

    :raises TypeError: for a coroutine or a generator.
    """
    returned = object_of(returned)
    if isinstance(returned, (Awaitable, Generator, AsyncGenerator)):
        raise TypeError(
            f"{name_of(handler)}() returned a {type(returned).__name__}, and has not run. Is there"
            " a 'yield' in it, or a decorator around it that does not await it?"
        )
    return returned


is_ending: ContextVar[bool] = ContextVar("flask_pusher_is_ending", default=False)
"""Whether the context that code runs in ends."""


def context_for(app: Flask) -> AbstractContextManager[object]:
    """Where what the application declared runs outside of a request: in the application context
    that is here, as the end of another one would take sessions from it; or in one of its own."""
    is_here = has_app_context() and object_of(current_app) is app and not is_ending.get()
    return nullcontext() if is_here else app.app_context()


def answer_in(returned: Any, app: Flask) -> Response | None:
    """The response in what a handler returned, as Flask finds it in what a view returns: in a
    response, an exception of Werkzeug's, or a tuple. None where there is none."""
    with suppress(Exception):  # for a row of a database, or (False, "why")
        if isinstance(returned, (Response, HTTPException, tuple)):
            return app.make_response(returned)
    return None


def is_refusal(response: Response) -> bool:
    return 400 <= response.status_code <= 599


def declared_twice(decorator: str) -> ValueError:
    return ValueError(
        f"{decorator} is declared twice, and has one handler. Declare it at module level, where it"
        " runs once; or, if it belongs to one application, make the Pusher in the factory too."
    )


class ChannelHandlers:
    """The handlers that one decorator was given: one without a pattern, and one for each."""

    def __init__(self, of: Handlers, decorator: str, beginnings: tuple[str, ...]) -> None:
        self.decorator = decorator
        self.beginnings = beginnings
        self.bare = Slot(of, decorator, _CHANNEL, keeps_the_first=False)
        self.patterns: dict[tuple[str, ...], tuple[Pattern, Handler]] = {}
        """Each shape's pattern and handler. Replaced, and never changed."""

    @property
    def is_empty(self) -> bool:
        return self.bare.handler is None and not self.patterns

    def declare(self, pattern_or_handler: Any) -> Any:
        if isinstance(pattern_or_handler, str):
            declaration = f"{self.decorator}({pattern_or_handler!r})"
            pattern = Pattern(pattern_or_handler, declaration, self.beginnings)

            def decorator(handler: Handler) -> Handler:
                expect_handler(handler, declaration, _CHANNEL, pattern.names)
                known = self.patterns.get(pattern.shape, (pattern, handler))
                if known[1] is not handler:
                    raise declared_twice(declaration)
                self.patterns = {**self.patterns, pattern.shape: known}
                return handler

            return decorator
        return self.bare.declare(pattern_or_handler)


class Pattern:
    """The form of some channels' names, as a decorator was given it.

    :raises ValueError: for one that can match no channel.
    """

    def __init__(self, text: str, declaration: str, beginnings: tuple[str, ...] = ("",)) -> None:
        self.text = text
        self.declaration = declaration
        # In turn: text, and of the variable behind it the converter, its arguments and the name.
        parts = [part or "" for part in re.split(_VARIABLE, text)]
        self.literals, self.kinds, self.arguments, self.names = (parts[at::4] for at in range(4))
        alike = ["" if kind in _TEXT else kind for kind in self.kinds]
        self.shape = (*self.literals, *alike, *self.arguments)
        """All but the variables' names: one shape matches the same channels."""
        wanted = ""
        if not text.startswith(beginnings):
            wanted = f"Start the pattern with {' or '.join(beginnings)}"
        elif not rules.is_channel_name("x".join(self.literals)):
            wanted = f"A name has {rules.NAME}, a variable is <name> or <converter:name>"
        if wanted:
            raise ValueError(f"{declaration} can match no channel here. {wanted}.")
        with suppress(LookupError):  # for an application's own converter, which init_app looks for
            self.compile(routing.Map())

    def compile(self, url_map: routing.Map) -> Compiled:
        """What it matches, with the converters of an application.

        :raises LookupError: for a converter that the application does not have.
        """
        try:
            return Compiled(self, url_map)
        except LookupError as error:
            near = get_close_matches(error.args[0], url_map.converters, n=1)
            meant = f" Is {near[0]!r} meant?" if near else ""
            raise LookupError(
                f"{self.declaration}: there is no converter {error.args[0]!r}.{meant} Add it to"
                " app.url_map.converters before init_app(app)."
            ) from None
        except (TypeError, ValueError, OverflowError, re.error) as error:
            raise ValueError(f"{self.declaration} is malformed: {error}.") from None


# -- Matching -------------------------------------------------------------------------------------

Piece = tuple[str, routing.BaseConverter, str]
"""A variable's name and converter, and the text behind it."""


class Compiled:
    """A pattern for one application: what it matches, and how its variables are converted."""

    def __init__(self, pattern: Pattern, url_map: routing.Map) -> None:
        converters: list[routing.BaseConverter] = []
        widths = []
        for kind, arguments in zip(pattern.kinds, pattern.arguments):
            given, options = routing.parse_converter_args(arguments)
            converter = url_map.converters[kind or "default"](url_map, *given, **options)
            converters.append(converter)
            limits = len(given) + len(options.keys() - {"signed"})
            width = 90 if kind in _TEXT and limits else _WIDTHS.get(kind, converter.weight)
            widths.append((width, len(given) if kind == "any" else not limits))
        self.beginning, *behind = pattern.literals
        self.pieces = list(zip(pattern.names, converters, behind))
        expression = re.escape(self.beginning) + _expression(self.pieces)
        self.fullmatch = re.compile(expression).fullmatch
        self.rank = (-len("".join(pattern.literals)), widths, pattern.shape)
        """Sorts before the patterns of the same beginning that are less specific."""

    def match(self, channel: str) -> dict[str, Any] | None:
        """The variables' values; None where the channel does not match."""
        if found := self.fullmatch(channel):
            with suppress(routing.ValidationError):
                return {name: one.to_python(found[name]) for name, one, _ in self.pieces}
        return None


def _expression(pieces: list[Piece]) -> str:
    """A regular expression for the variables, from the first on, and the texts behind them.

    Of ``private-<slug>-<int:id>`` the pieces are ``("slug", ..., "-")`` and ``("id", ..., "")``.
    With ``(?>...)`` for what is found once, as Python 3.11 can write it, they become::

        (?>  (?P<slug>[^/]{1,}?)-   (?=  (?>(?:[0-9]+))\\Z  )  )    slug: ahead are a number and the end
        (?>  (?P<id>[0-9]+)         (?=  \\Z  )  )                   id: ahead is the end

    so that in ``private-my-shop-7`` the slug goes on to the last dash, which a number follows.
    """
    numbers = count()

    def once(expression: str) -> str:
        """Found once and never given up: Python writes it ``(?>...)`` from 3.11 on."""
        number = next(numbers)
        return f"(?=(?P<_{number}>{expression}))(?P=_{number})"

    def ahead(rest: list[Piece]) -> str:
        """What has to follow: the numbers, and the next variable that is none."""
        expression = ""
        for position, (_, converter, literal) in enumerate(rest, start=1):
            piece = f"(?:{_short(converter)}){re.escape(literal)}"
            if not isinstance(converter, _NUMBERS):
                return expression + piece + (r"\Z" if position == len(rest) else "")
            expression += once(piece)
        return expression + r"\Z"

    return "".join(
        once(f"(?P<{name}>{_short(converter)}){re.escape(literal)}(?={ahead(pieces[position:])})")
        for position, (name, converter, literal) in enumerate(pieces, start=1)
    )


def _short(converter: routing.BaseConverter) -> str:
    """A converter's expression, which prefers the shortest text; numbers are as long as they are.

    Python writes that with a question mark behind a repetition.
    """
    ends_in_repetition = re.search(r"[^\\+*?}][+*}]\Z", converter.regex)
    if isinstance(converter, _NUMBERS) or not ends_in_repetition:
        return converter.regex
    return converter.regex + "?"


class Found(NamedTuple):
    """The handler of a channel, and the values of its pattern's variables."""

    handler: Handler
    call: Handler
    """The handler, as a function that is no coroutine function."""
    variables: Mapping[str, Any]


class Matcher:
    """Finds the handler of a channel, with the converters of one application: made from what is
    declared at one time, and never changed.

    The longest text that patterns have before their first variable is tried first, as Flask tries
    the literal parts of a path before the variable ones.
    """

    def __init__(self, declared: ChannelHandlers, app: Flask) -> None:
        self.patterns = declared.patterns
        self.bare = declared.bare.handler
        self.by_beginning: dict[str, list[tuple[Compiled, Handler, Handler]]] = {}
        known = [(pattern.compile(app.url_map), one) for pattern, one in self.patterns.values()]
        for compiled, handler in sorted(known, key=lambda one: one[0].rank):
            alike = self.by_beginning.setdefault(compiled.beginning, [])
            alike.append((compiled, handler, app.ensure_sync(handler)))
        self.lengths = sorted(set(map(len, self.by_beginning)), reverse=True)
        self.of_the_rest = Found(self.bare, app.ensure_sync(self.bare), {}) if self.bare else None

    def find(self, channel: str) -> Found | None:
        for length in self.lengths:
            for compiled, handler, call in self.by_beginning.get(channel[:length], ()):
                variables = compiled.match(channel)
                if variables is not None:
                    return Found(handler, call, variables)
        return self.of_the_rest

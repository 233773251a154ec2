"""Declared handlers, patterns, and which handler a channel has.

How a handler is declared:

===================================  =======================================================
``auth``, ``channel_data`` and the   the last one declared is called, as in Flask-Pusher 3.0;
webhook groups that 3.0 had          replacing one when an application is served is warned about
a pattern, the other webhook         one handler each; another one is a ``ValueError``
groups, ``user_auth``, ``hand_over``
``webhooks.event(name)``             any number, called in order
===================================  =======================================================

The same object again is no second one. Two objects are never taken for one another.

How a pattern matches: a variable reaches to the first place where what follows it in the pattern
matches too: the text behind it, numbers, and the next variable that is none.
``private-<slug>-<int:id>`` finds the last number of ``private-my-shop-7``, and ``private-<a>-<b>``
divides ``private-x-y-z`` into ``x`` and ``y-z``. A number is taken whole. No variable that was
found is given up again, so that no channel's name makes a pattern slow.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Union

from flask import Flask
from werkzeug.routing import (
    BaseConverter,
    FloatConverter,
    IntegerConverter,
    Map,
    UUIDConverter,
    ValidationError,
    parse_converter_args,
)

from _flask_pusher import rules
from _flask_pusher.warning import warn

if TYPE_CHECKING:
    from typing_extensions import Concatenate
    from werkzeug.exceptions import HTTPException
    from werkzeug.wrappers import Response

    # What handlers take and return. What they may return instead, a view refuses with.
    Refusal = Union["Response", "HTTPException", tuple[Any, int], tuple[Any, int, Any]]
    Consent = Union[bool, Refusal, Awaitable[Union[bool, Refusal]]]
    Data = Union[
        Mapping[str, Any], Refusal, Awaitable[Union[Mapping[str, Any], Refusal, None]], None
    ]

    AuthHandler = TypeVar("AuthHandler", bound="Callable[[str, str], Consent]")
    DataHandler = TypeVar("DataHandler", bound="Callable[[str, str], Data]")
    UserHandler = TypeVar("UserHandler", bound="Callable[[str], Data]")
    HandOver = TypeVar("HandOver", bound="Callable[[list[dict[str, Any]]], object]")
    PatternAuth = TypeVar("PatternAuth", bound="Callable[Concatenate[str, str, ...], Consent]")
    PatternData = TypeVar("PatternData", bound="Callable[Concatenate[str, str, ...], Data]")

    class AuthDecorator(Protocol):
        """Declares a handler that is also given its pattern's variables."""

        def __call__(self, handler: PatternAuth, /) -> PatternAuth: ...

    class DataDecorator(Protocol):
        """Declares a handler that is also given its pattern's variables."""

        def __call__(self, handler: PatternData, /) -> PatternData: ...


Handler = Callable[..., Any]

_VARIABLE = (  # compiled where a pattern is declared, and nowhere else
    r"<(?:(?P<converter>[A-Za-z_][A-Za-z0-9_]*)(?:\((?P<arguments>[^<>]*)\))?:)?"
    r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)>"
)
_TEXT = ("default", "string")
_NUMBERS = (IntegerConverter, FloatConverter, UUIDConverter)


class Slot:
    """The place of one handler."""

    def __init__(self, decorator: str, *, keeps_the_first: bool) -> None:
        self.decorator = decorator
        self.keeps_the_first = keeps_the_first
        self.is_served = False
        self.handler: Handler | None = None

    def declare(self, handler: Handler) -> None:
        expect_callable(handler, self.decorator)
        if self.handler is not None and self.handler is not handler:
            if self.keeps_the_first:
                raise declared_twice(self.decorator)
            if self.is_served:
                warn(
                    f"{self.decorator} is declared again when an application is served already."
                    " The new handler answers for every application of this Pusher."
                )
        self.handler = handler


def expect_callable(handler: Any, decorator: str) -> None:
    if not callable(handler):
        raise TypeError(
            f"{decorator} is given a function; this is of type {type(handler).__name__}."
        )


def name_of(handler: Handler) -> str:
    return getattr(handler, "__qualname__", None) or type(handler).__qualname__


def finished(returned: Any, handler: Handler) -> Any:
    """What a handler returned. To a decorator that knows no coroutines, the call of a coroutine
    function is something true, and has run nothing yet.

    :raises TypeError: for a coroutine or a generator.
    """
    if (
        inspect.isawaitable(returned)
        or inspect.isgenerator(returned)
        or inspect.isasyncgen(returned)
    ):
        raise TypeError(
            f"{name_of(handler)}() returned a {type(returned).__name__}, and has not run. Is there"
            " a 'yield' in it, or a decorator around it that does not await it?"
        )
    return returned


def declared_twice(decorator: str) -> ValueError:
    return ValueError(
        f"{decorator} is declared twice, and has one handler. Declare it at module level, where it"
        " runs once; or, if it belongs to one application, make the Pusher in the factory too."
    )


class ChannelHandlers:
    """The handlers that one decorator was given: one without a pattern, and one for each."""

    def __init__(self, decorator: str, prefixes: tuple[str, ...]) -> None:
        self.decorator = decorator
        self.prefixes = prefixes
        self.bare = Slot(decorator, keeps_the_first=False)
        self.patterns: dict[str, tuple[str, Handler]] = {}
        """What each shape was declared as, and its handler. Replaced, and never changed."""

    def declare(self, handler: Any) -> Any:
        if isinstance(handler, str):
            self._check(handler)

            def decorator(function: Handler) -> Handler:
                self._declare_pattern(handler, function)
                return function

            return decorator
        if handler is None:
            raise TypeError(
                f"{self.decorator}() is given nothing. Write {self.decorator} without parentheses,"
                f' or a pattern: {self.decorator}("{self.prefixes[-1]}room-<room>").'
            )
        self.bare.declare(handler)
        return handler

    def _declare_pattern(self, text: str, handler: Handler) -> None:
        expect_callable(handler, self._declaration(text))
        shape = _shape(text)
        if shape not in self.patterns:
            self.patterns = {**self.patterns, shape: (text, handler)}
        elif self.patterns[shape][1] is not handler:
            raise declared_twice(self._declaration(text))

    def _check(self, text: str) -> None:
        if not text.startswith(self.prefixes):
            raise ValueError(
                f"{self._declaration(text)} can match no channel that is asked about. Start the"
                f" pattern with {' or '.join(self.prefixes)}."
            )
        literal = re.sub(_VARIABLE, "", text)
        if "<" in literal or ">" in literal:
            raise ValueError(
                f"{self._declaration(text)} is malformed: a variable is <name> or <converter:name>."
            )
        if not rules.is_channel_name(literal):
            raise ValueError(
                f"{self._declaration(text)} can match no channel. A name has 1 to"
                f" {rules.NAME_LENGTH} of the characters {rules.CHARACTERS}."
            )
        names = [variable["name"] for variable in _variables(text)]
        if len(set(names)) < len(names):
            raise ValueError(f"{self._declaration(text)} is malformed: each name is used once.")
        if not {"channel_name", "socket_id"}.isdisjoint(names):
            raise ValueError(
                f"{self._declaration(text)}: the handler is given channel_name and socket_id"
                " already, name the variable otherwise."
            )
        known = Map.default_converters
        if all((variable["converter"] or "default") in known for variable in _variables(text)):
            self.compile(text, Map())  # the others are an application's own: init_app looks there

    def compile(self, text: str, url_map: Map) -> Compiled:
        """What a pattern matches, with the converters of an application.

        :raises LookupError: for a converter that the application does not have.
        """
        try:
            return Compiled(text, url_map)
        except LookupError as error:
            raise LookupError(
                f"{self._declaration(text)}: there is no converter {error.args[0]!r}. Add it to"
                " app.url_map.converters before init_app(app)."
            ) from None
        except (TypeError, ValueError, OverflowError, re.error) as error:
            raise ValueError(f"{self._declaration(text)} is malformed: {error}.") from None

    def _declaration(self, text: str) -> str:
        return f"{self.decorator}({text!r})"


def _variables(text: str) -> Iterator[re.Match[str]]:
    return re.finditer(_VARIABLE, text)


def _shape(text: str) -> str:
    """A pattern without its variables' names: patterns of one shape match the same channels."""

    def without_name(variable: re.Match[str]) -> str:
        converter = variable["converter"] or "default"
        arguments = variable["arguments"] or ""
        return f"<{'' if converter in _TEXT and not arguments else converter}({arguments})>"

    return re.sub(_VARIABLE, without_name, text)


# -- Matching -------------------------------------------------------------------------------------


class Compiled:
    """A pattern for one application: what it matches, and how its variables are converted."""

    def __init__(self, text: str, url_map: Map) -> None:
        self.converters: dict[str, BaseConverter] = {}
        pieces: list[tuple[str, str]] = []  # each variable's name, and the literal text behind it
        beginning, position = text.partition("<")[0], 0
        for variable in _variables(text):
            if pieces:
                pieces[-1] = (pieces[-1][0], text[position : variable.start()])
            position = variable.end()
            self.converters[variable["name"]] = _converter(variable, url_map)
            pieces.append((variable["name"], text[position:]))
        expression = re.escape(beginning) + _expression(pieces, self.converters)
        self.fullmatch = re.compile(expression).fullmatch
        literal = len(re.sub(_VARIABLE, "", text))
        self.rank = (-literal, [converter.weight for converter in self.converters.values()])
        """Sorts before the patterns of the same beginning that are less specific."""

    def match(self, channel: str) -> dict[str, Any] | None:
        """The variables' values; None where the channel does not match."""
        found = self.fullmatch(channel)
        if found is None:
            return None
        try:
            return {
                name: converter.to_python(found[name])
                for name, converter in self.converters.items()
            }
        except ValidationError:
            return None


def _converter(variable: re.Match[str], url_map: Map) -> BaseConverter:
    name = variable["converter"] or "default"
    arguments, options = parse_converter_args(variable["arguments"] or "")
    return url_map.converters[name](url_map, *arguments, **options)


def _expression(pieces: list[tuple[str, str]], converters: Mapping[str, BaseConverter]) -> str:
    """A regular expression for the variables, from the first on, and the texts behind them."""
    numbers = count()

    def once(expression: str) -> str:
        """Found once and never given up: Python writes it ``(?>...)`` from 3.11 on."""
        number = next(numbers)
        return f"(?=(?P<_{number}>{expression}))(?P=_{number})"

    def ahead(rest: list[tuple[str, str]]) -> str:
        """What has to follow: the numbers, and the next variable that is none."""
        expression = ""
        for position, (name, literal) in enumerate(rest, start=1):
            piece = f"(?:{_short(converters[name])}){re.escape(literal)}"
            if not isinstance(converters[name], _NUMBERS):
                return expression + piece + (r"\Z" if position == len(rest) else "")
            expression += once(piece)
        return expression + r"\Z"

    return "".join(
        once(
            f"(?P<{name}>{_short(converters[name])}){re.escape(literal)}"
            f"(?={ahead(pieces[position:])})"
        )
        for position, (name, literal) in enumerate(pieces, start=1)
    )


def _short(converter: BaseConverter) -> str:
    """A converter's expression, which prefers the shortest text; numbers are as long as they are.

    Python writes that with a question mark behind a repetition.
    """
    ends_in_repetition = re.search(r"[^\\+*?}][+*}]\Z", converter.regex)
    if isinstance(converter, _NUMBERS) or not ends_in_repetition:
        return converter.regex
    return converter.regex + "?"


class Found:
    """The handler of a channel, and the values of its pattern's variables."""

    __slots__ = ("call", "handler", "variables")

    def __init__(self, handler: Handler, call: Handler, variables: Mapping[str, Any]) -> None:
        self.handler = handler
        self.call = call
        """The handler, as a function that is no coroutine function."""
        self.variables = variables


class _Table:
    """What one application's channels find: made once from what is declared, and never changed.

    The longest text that patterns have before their first variable is tried first, as Flask tries
    the literal parts of a path before the variable ones.
    """

    def __init__(self, declared: ChannelHandlers, app: Flask) -> None:
        self.patterns = declared.patterns
        self.bare = declared.bare.handler
        self.by_beginning: dict[str, list[tuple[Compiled, Handler, Handler]]] = {}
        for text, handler in self.patterns.values():
            compiled = declared.compile(text, app.url_map)
            alike = self.by_beginning.setdefault(text.partition("<")[0], [])
            alike.append((compiled, handler, app.ensure_sync(handler)))
        for alike in self.by_beginning.values():
            alike.sort(key=lambda one: one[0].rank)
        self.lengths = sorted(set(map(len, self.by_beginning)), reverse=True)
        self.of_the_rest = Found(self.bare, app.ensure_sync(self.bare), {}) if self.bare else None


class Matcher:
    """Finds the handler of a channel, with the converters of one application."""

    def __init__(self, declared: ChannelHandlers, app: Flask) -> None:
        self.declared = declared
        self.app = app
        self._table = _Table(declared, app)

    def find(self, channel: str) -> Found | None:
        table = self._table
        declared = self.declared
        if table.patterns is not declared.patterns or table.bare is not declared.bare.handler:
            table = self._table = _Table(declared, self.app)
        for length in table.lengths:
            for compiled, handler, call in table.by_beginning.get(channel[:length], ()):
                variables = compiled.match(channel)
                if variables is not None:
                    return Found(handler, call, variables)
        return table.of_the_rest

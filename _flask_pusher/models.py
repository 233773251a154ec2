"""Models that tell pages of their changes.

A function is declared for a model, and names the channels that hear of a row. What becomes of a
row in a transaction is told once the session has committed it:

==========================================  ======================================================
what the transaction did with the row       what is told, and on which channels
==========================================  ======================================================
inserted it                                 ``created``, on those that it is for now
changed it, or deleted and inserted it      ``updated``, on those that it was for as it was loaded,
again                                       and those that it is for now
deleted it                                  ``deleted``, on those that it was for
inserted and deleted it                     nothing
gave it another primary key                 ``deleted`` and ``created``
==========================================  ======================================================

Several flushes and savepoints that were released count as one change, from the first to the last.
What a savepoint or a transaction rolled back is forgotten. A row has changed where SQLAlchemy's
``is_modified`` says so: a column, or a relationship that is in memory.

Functions are asked in the flush: before it about a row that it deletes, and else when it has
written all rows. Relationships can be loaded then, and no flush begins. The row as it was loaded is
an object of its own, with what was in memory: a function that needs more of it knows no channel.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, Union

from flask import current_app, has_app_context

from _flask_pusher import expect
from _flask_pusher.client import api_of
from _flask_pusher.handlers import declared_twice, expect_handler, name_of
from _flask_pusher.transactions import Followed

if TYPE_CHECKING:
    from sqlalchemy.orm import InstanceState, Session

Row = TypeVar("Row")
Channels = TypeVar("Channels", bound=Union[str, Iterable[str]])


class ModelDecorator(Protocol[Row]):
    """Declares the function that names the channels of a model's rows."""

    def __call__(self, function: Callable[[Row], Channels], /) -> Callable[[Row], Channels]: ...


Names = tuple[str, ...]
Key = tuple[Any, ...]

KEYS_PER_EVENT = 100
"""Of how many rows an event says which they are."""
_KINDS = {(False, True): "created", (True, True): "updated", (True, False): "deleted"}

_silent: ContextVar[tuple[Models, ...]] = ContextVar("flask_pusher_silent", default=())
"""Whose models tell nothing of what is flushed here."""


class Change(NamedTuple):
    """What became of a row: whether it was and is there, and which channels it was and is for."""

    was_there: bool
    is_there: bool
    before: Names
    after: Names

    def then(self, later: Change) -> Change:
        return Change(self.was_there, later.is_there, self.before, later.after)


class Declared(NamedTuple):
    """A model, and the function that names the channels of its rows."""

    model: type
    event_name: str
    function: Callable[[Any], Any]


class Models:
    """The models that one extension tells of."""

    def __init__(self, followed: Followed) -> None:
        self.declared: dict[type, Declared] = {}
        self._followed = followed
        followed.listeners.update(
            before_flush=self._begins_flush,
            after_flush_postexec=self._flushed,
            after_commit=self._committed,
        )

    # -- Declaring --

    def broadcasts(self, model: Any, event_name: str) -> Any:
        from sqlalchemy import inspect
        from sqlalchemy.orm import Mapper

        if not self._followed.follows_any:
            raise RuntimeError(
                "@pusher.broadcasts tells what followed sessions commit, and none is followed:"
                " write pusher.follow(db.session) above it."
            )
        if not isinstance(inspect(model, raiseerr=False), Mapper):
            raise TypeError(
                "@pusher.broadcasts takes a class that SQLAlchemy maps, as in"
                f" @pusher.broadcasts(Order), not {model!r:.100}."
            )
        expect.event_name(event_name)

        def decorator(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            self._declare(Declared(model, event_name, function))
            return function

        return decorator

    def _declare(self, declared: Declared) -> None:
        from sqlalchemy import event, inspect

        decorator = f"@pusher.broadcasts({declared.model.__name__})"
        expect_handler(declared.function, decorator, ("row",))
        if self.declared.setdefault(declared.model, declared) != declared:
            raise declared_twice(decorator)

        def wrote(_mapper: object, _connection: object, row: Any) -> None:
            self._note(declared, row)

        def updated(_mapper: object, _connection: object, row: Any) -> None:
            session = inspect(row).session
            if session.is_modified(row):  # SQLAlchemy says so of rows that are only seen, too
                self._note(declared, row)

        event.listen(declared.model, "after_insert", wrote, propagate=True)
        event.listen(declared.model, "after_update", updated, propagate=True)
        event.listen(declared.model, "after_delete", wrote, propagate=True)

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Tell nothing of what is flushed inside, in this context."""
        token = _silent.set((*_silent.get(), self))
        try:
            yield
        finally:
            _silent.reset(token)

    # -- In a flush --

    def _begins_flush(self, session: Session, *_: object) -> None:
        """Ask about rows that are deleted while all that they are related to is there."""
        self._followed.innermost(session).flushed.clear()
        failed: set[Declared] = set()
        for row in session.deleted if self not in _silent.get() else ():
            for declared in self.declared.values():
                if isinstance(row, declared.model):
                    self._note(declared, row, self._names(declared, row, failed))

    def _note(self, declared: Declared, row: Any, names: Names = ()) -> None:
        """Note what is written: nothing can be asked before all of it is.

        :param names: the channels that are known by now.
        """
        from sqlalchemy import inspect

        state = inspect(row)
        if self not in _silent.get():
            loaded = None if state.identity is None else _as_loaded(state)
            flushed = self._followed.innermost(state.session).flushed
            flushed.setdefault((declared, state), (row, state.identity, names, loaded))

    def _flushed(self, session: Session, _: object) -> None:
        """Ask about what was written, and keep what became of each row."""
        transaction = self._followed.innermost(session)
        flushed, transaction.flushed = transaction.flushed, {}
        failed: set[Declared] = set()
        for (declared, state), (row, key, names, loaded) in flushed.items():
            before = names if loaded is None else names + self._names(declared, loaded, failed)
            key_now = None if state.was_deleted else state.identity
            if key is not None and key != key_now:
                transaction.keep((declared, key), Change(True, False, before, ()))
                key, before = None, ()
            if key_now is not None:
                after = self._names(declared, row, failed)
                transaction.keep((declared, key_now), Change(key is not None, True, before, after))

    def _names(self, declared: Declared, row: Any, failed: set[Declared]) -> Names:
        """The channels of a row. That a function fails does not fail the flush; but that the
        database refuses a statement of its does: PostgreSQL takes back all that was written."""
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.orm import object_session
        from sqlalchemy.orm.exc import DetachedInstanceError

        try:
            names = declared.function(row)
            return tuple(dict.fromkeys([names] if isinstance(names, str) else names))
        except DBAPIError:
            raise
        except Exception as error:  # noqa: BLE001 - the application's function may raise any
            is_unknown = isinstance(error, DetachedInstanceError) and object_session(row) is None
            if not is_unknown and declared not in failed:
                failed.add(declared)
                _logger().exception(
                    "Nobody is told of a change: %s(), which is to name the channels of %s, failed.",
                    name_of(declared.function),
                    declared.model.__name__,
                )
            return ()

    # -- After the commit --

    def _committed(self, session: Session) -> None:
        transaction = self._followed.innermost(session)
        if transaction.outer is not None or transaction.rolled_back or not transaction.changes:
            return
        changes, transaction.changes = transaction.changes, {}
        binding = current_app.extensions.get("flask_pusher") if has_app_context() else None
        if binding is None:
            _logger().warning(
                "Nobody is told of a change of %s: it was committed outside of an application"
                " context. Commit inside of 'with app.app_context():', of an application that has"
                " this Pusher.",
                ", ".join(sorted({declared.model.__name__ for declared, _ in changes})),
            )
        elif binding.models is self:  # another Pusher tells of its own
            events = api_of(binding.client).events
            told = [
                event for what in _told(changes) for event in _as_far_as_possible(events, *what)
            ]
            binding.outboxes.defer(told, is_decided=True)


def _told(changes: Mapping[tuple[Declared, Key], Change]) -> Iterator[tuple[list[str], str, Any]]:
    """The events of a transaction, one a channel, and one for all that are told the same: the
    channels, the event's name, and the primary keys of the rows by model and what became of them."""
    concerned = defaultdict(list)
    for (declared, key), change in changes.items():
        for channel in dict.fromkeys(change.before + change.after):
            told = (declared.model.__name__, _KINDS[change[:2]], key)
            concerned[declared.event_name, channel].append(told)
    alike = defaultdict(list)
    for (event_name, channel), rows in concerned.items():
        alike[event_name, tuple(rows) if len(rows) <= KEYS_PER_EVENT else ()].append(channel)
    for (event_name, those), channels in alike.items():
        data: dict[str, dict[str, list[Any]]] = {}
        for name, kind, key in those:
            kinds = data.setdefault(name, {kind: [] for kind in _KINDS.values()})
            kinds[kind].append(key[0] if len(key) == 1 else list(key))
        yield channels, event_name, data


def _as_far_as_possible(
    events: Callable[..., list[Any]], channels: list[str], event_name: str, data: Any
) -> list[Any]:
    """An event as it is published; what makes it impossible is left out."""
    try:
        return events(channels, event_name, data)
    except Exception as error:  # noqa: BLE001 - a JSON provider may raise any
        if len(channels) > 1:  # one of them may be none, or must be an event's only one
            singly = [_as_far_as_possible(events, [one], event_name, data) for one in channels]
            return [event for found in singly for event in found]
        if data:  # it may be too long, or no JSON
            return _as_far_as_possible(events, channels, event_name, {})
        _logger().error("Nobody is told on %r of a change: %s", channels[0], error)
        return []


def _as_loaded(state: InstanceState[Any]) -> Any:
    """The row as it was loaded: an object that no session has, and that can load nothing."""
    from sqlalchemy.orm import attributes, make_transient_to_detached

    loaded = state.mapper.class_manager.new_instance()
    unmodified, attrs = state.unmodified, state.attrs
    for attribute in (*state.mapper.column_attrs, *state.mapper.relationships):
        key = attribute.key
        if key in unmodified:
            if key in state.dict:
                vars(loaded)[key] = state.dict[key]
        elif not getattr(attribute, "uselist", False):
            vars(loaded).update((key, value) for value in attrs[key].history.non_added()[:1])
        elif key in state.dict:
            attributes.set_committed_value(loaded, key, attrs[key].history.non_added())
    make_transient_to_detached(loaded)
    return loaded


def _logger() -> logging.Logger:
    return current_app.logger if has_app_context() else logging.getLogger("flask_pusher")

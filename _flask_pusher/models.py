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
==========================================  ======================================================

Several flushes and savepoints that were released count as one change, from the first to the last.
What a savepoint or a transaction rolled back is forgotten. A row has changed where SQLAlchemy's
history of an attribute says so: of a column, or of a relationship that is in memory.

Functions are asked in the flush: before it about a row that it deletes, and else when it has
written all rows. Relationships can be loaded then, and no flush begins. The row as it was loaded is
an object of its own, with the old values of what has changed, as far as they were in memory. Where
the function needs one that was not, the row's old channels are not known.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, Union

from flask import current_app, has_app_context

from _flask_pusher import expect
from _flask_pusher.api import Api
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


_logger = logging.getLogger("flask_pusher")

KEYS_PER_EVENT = 100
"""Of how many rows an event says which they are."""
_KINDS = {(False, True): "created", (True, True): "updated", (True, False): "deleted"}

_silent: ContextVar[tuple[Models, ...]] = ContextVar("flask_pusher_silent", default=())
"""Whose models tell nothing of what is flushed here."""


class Change(NamedTuple):
    """What became of a row: whether it was and is there, and which channels it was and is for."""

    was_there: bool
    is_there: bool
    before: tuple[str, ...]
    after: tuple[str, ...]

    def then(self, later: Change) -> Change:
        # Where it is not known whom a row was for as it was loaded, and it is deleted in the end.
        known = later.before if self.was_there and not later.is_there else ()
        return Change(self.was_there, later.is_there, self.before or known, later.after)


class Declared(NamedTuple):
    """A model, and the function that names the channels of its rows."""

    model: type
    event_name: str
    function: Callable[[Any], Any]

    def __hash__(self) -> int:
        return hash(self.model)  # the function may be an object that has no hash


Changes = Mapping[tuple[Declared, tuple[Any, ...]], Change]


class Models:
    """The models that one extension tells of."""

    def __init__(self, followed: Followed) -> None:
        self.declared: dict[type, Declared] = {}
        self._followed = followed
        followed.committed = self._committed
        followed.listeners["before_flush"] = self._begins_flush
        followed.listeners["after_flush_postexec"] = self._flushed

    def broadcasts(self, model: type[Row], event_name: str) -> ModelDecorator[Row]:
        from sqlalchemy import event, inspect
        from sqlalchemy.orm import Mapper

        if not self._followed.follows_any:
            raise RuntimeError("Write pusher.follow(db.session) above @pusher.broadcasts.")
        if not isinstance(inspect(model, raiseerr=False), Mapper):
            raise TypeError(f"@pusher.broadcasts takes a mapped class, not {model!r:.100}.")
        expect.event_name(event_name)

        def decorator(function: Callable[[Row], Channels]) -> Callable[[Row], Channels]:
            declaration = f"@pusher.broadcasts({model.__name__})"
            expect_handler(function, declaration, ("row",))
            declared = Declared(model, event_name, function)
            if self.declared.setdefault(model, declared) != declared:
                raise declared_twice(declaration)

            def writes(_mapper: object, _connection: object, row: Any) -> None:
                self._note(declared, row)

            for moment in ("before_insert", "before_update", "before_delete", "after_update"):
                event.listen(model, moment, writes, propagate=True)
            return function

        return decorator

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Tell nothing of what is flushed inside, in this context."""
        _silent.set((*_silent.get(), self))
        try:
            yield
        finally:  # of two generators the first may end first
            at = _silent.get().index(self)
            _silent.set(_silent.get()[:at] + _silent.get()[at + 1 :])

    # -- In a flush --

    def _begins_flush(self, session: Session, *_: object) -> None:
        """Ask about rows that are deleted while all that they are related to is there."""
        for row in session.deleted if self not in _silent.get() else ():
            for declared in self.declared.values():
                if isinstance(row, declared.model):
                    failed = self._followed.innermost(session).failed
                    self._note(declared, row, _names(declared, row, failed))

    def _note(self, declared: Declared, row: Any, names: tuple[str, ...] | None = None) -> None:
        """Note what is written: nothing can be asked before all of it is.

        :param names: the channels, where somebody was asked by now.
        """
        from sqlalchemy import inspect

        if self not in _silent.get():
            state = inspect(row)
            unmodified, attributes = state.unmodified, state.attrs.items()
            histories = {key: a.history for key, a in attributes if key not in unmodified}
            old = {key: one.non_added() for key, one in histories.items() if one.has_changes()}
            flushed = self._followed.innermost(state.session).flushed
            # A listener of the application's may have changed it since, or undone its deletion.
            *_, asked, known = flushed.get((declared, state), (names, {}))
            flushed[declared, state] = (row, state.identity is not None, asked, {**old, **known})

    def _flushed(self, session: Session, _: object) -> None:
        """Ask about what was written, and keep what became of each row."""
        transaction = self._followed.innermost(session)
        flushed, transaction.flushed = transaction.flushed, {}
        for (declared, state), (row, was_there, before, old) in flushed.items():
            is_there = not state.was_deleted
            if old or not (was_there and is_there):  # SQLAlchemy looks at what is as it was, too
                after = _names(declared, row, transaction.failed) if is_there else ()
                if was_there:  # now what both need is in memory
                    # Of an orphan that a flush deletes, nobody was asked before.
                    failed = transaction.failed if before is None and not is_there else None
                    before = (before or ()) + _names(declared, _as_loaded(state, old), failed)
                change = Change(was_there, is_there, before or (), after)
                transaction.keep((declared, state.key), change)

    # -- After the commit --

    def _committed(self, changes: Changes) -> None:
        binding: Any = current_app.extensions.get("flask_pusher") if has_app_context() else None
        if binding is None:
            names = ", ".join(sorted({declared.model.__name__ for declared, _ in changes}))
            _logger.warning("Commit %s in 'with app.app_context():', or nobody is told.", names)
        elif binding.models is self:  # another Pusher tells of its own
            binding.outboxes.defer(_events(api_of(binding.client), changes), is_decided=True)


def _names(declared: Declared, row: Any, failed: set[Any] | None) -> tuple[str, ...]:
    """The channels of a row. That a function fails does not fail the flush; but that the database
    refuses a statement of its does: PostgreSQL takes back all that was written.

    :param failed: the functions that were spoken of in this transaction; None: this row is as it
        was loaded, and not all of it is known.
    """
    from sqlalchemy.exc import DBAPIError

    try:
        names = declared.function(row)
        return tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    except DBAPIError:
        raise
    except Exception:
        if failed is not None and declared not in failed:
            failed.add(declared)
            name, model = name_of(declared.function), declared.model.__name__
            _logger.exception("Nobody is told of a change of %s: %s() failed.", model, name)
        return ()


def _as_loaded(state: InstanceState[Any], old: Mapping[str, list[Any]]) -> Any:
    """The row as it was loaded: an object that no session has, and that can load nothing.

    :param old: the values of the attributes that have changed; none where they are not known.
    """
    from sqlalchemy.orm import make_transient_to_detached
    from sqlalchemy.orm.attributes import set_committed_value

    loaded = state.mapper.class_manager.new_instance()
    for attribute in (*state.mapper.column_attrs, *state.mapper.relationships):
        key = attribute.key
        if key not in old:
            vars(loaded).update({key: state.dict[key]} if key in state.dict else {})
        elif not getattr(attribute, "uselist", False):
            vars(loaded).update((key, value) for value in old[key])
        elif isinstance(state.dict.get(key), list):  # whose own append may write to what is in it
            vars(loaded)[key] = old[key]
        elif attribute.lazy not in ("dynamic", "write_only"):
            with suppress(Exception):  # what a collection of the application's raises
                set_committed_value(loaded, key, old[key])
    make_transient_to_detached(loaded)
    return loaded


def _events(api: Api, changes: Changes) -> list[dict[str, Any]]:
    """An event for each channel, which says which rows, by model and by what became of them."""
    told = defaultdict(list)
    for (declared, (_, key, *_)), change in changes.items():
        for channel in dict.fromkeys(change.before + change.after):
            what = (declared.model.__name__, _KINDS[change[:2]], key)
            told[declared.event_name, channel].append(what)
    events = []
    for (event_name, channel), rows in told.items():
        data: dict[str, dict[str, list[Any]]] = {}
        for name, kind, key in rows if len(rows) <= KEYS_PER_EVENT else ():
            keys = data.setdefault(name, {kind: [] for kind in _KINDS.values()})
            keys[kind].append(key[0] if len(key) == 1 else list(key))
        events += _event(api, channel, event_name, data)
    return events


def _event(api: Api, channel: str, event_name: str, data: Any) -> list[dict[str, Any]]:
    try:
        return api.events(channel, event_name, data)
    except Exception as error:  # noqa: BLE001 - a JSON provider may raise any
        if data:  # it may be too long, or no JSON
            return _event(api, channel, event_name, {})
        _logger.error("Nobody is told on %r of a change: %s", channel, error)
        return []

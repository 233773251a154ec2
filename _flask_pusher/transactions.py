"""Deferred events that follow a SQLAlchemy session.

An event that is deferred while a followed session is in a transaction shares the fate of that
transaction, or of the savepoint that is the innermost then:

=============================================  ==================================================
the transaction or savepoint                   the event
=============================================  ==================================================
was committed                                  leaves
is a savepoint, and was released               shares the fate of what is around the savepoint
was rolled back: by the application, by a      is dropped
flush that failed, or by PostgreSQL, where a
statement had failed before the commit
was neither, when the event would leave, and   is dropped
wrote
was neither, and only read                     leaves; of a savepoint, as what is around it
=============================================  ==================================================

It wrote when a statement changed something, whoever ran it: a flush, ``session.execute``, or the
session's connection; or when one failed. A row that was added counts as well before any flush, and
so does one that had been changed or deleted when the event was deferred. Savepoints that were
rolled back do not count. A ``SELECT`` reads, whatever functions it calls. What goes past the
session is not seen: a cursor of the driver's, a savepoint that is begun on the connection. That
PostgreSQL rolls back at COMMIT is seen with psycopg, and not with asyncpg.

The session is in a transaction from its first use to its next commit, rollback or close, and there
where it began: in that thread, greenlet or task, in copies of its context, and in the same request,
or application context outside of one. What a request left open decides about no later one. Where
several followed sessions are, all of their transactions must let the event go.

What is kept of the rows that a transaction changed shares its fate, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

if TYPE_CHECKING:
    from sqlalchemy import Connection, ExceptionContext
    from sqlalchemy.orm import Session, SessionTransaction

_begun_here: ContextVar[tuple[ref[Any], ...]] = ContextVar("flask_pusher_begun", default=())
"""The transactions, savepoints apart, that began in this context; they may have ended."""

_IN_ERROR = 3
"""What libpq calls a transaction in which a statement failed: PQTRANS_INERROR."""

_FLAGS = re.VERBOSE | re.IGNORECASE | re.DOTALL
_WRITES = (  # compiled where a session is followed, and nowhere else
    r"""(?:\s | --[^\n]*\n | /\*(?:[^*] | \*(?!/))*\*/)*  # white space and comments
    (?:
        (?:INSERT | UPDATE | DELETE | MERGE | REPLACE | TRUNCATE | COPY | LOAD
        | CALL | DO | EXEC | EXECUTE | CREATE | ALTER | DROP)\b
        # WITH a AS (INSERT ...) SELECT ..., WITH a AS (SELECT ...) INSERT ...
        | WITH\b .* [()]\s* (?:INSERT | UPDATE | DELETE | MERGE)\b
    )"""
)


class Transaction:
    """What became of a transaction, or of a savepoint, which has an ``outer`` one."""

    def __init__(self, outer: Transaction | None, places: tuple[object, ...] = ()) -> None:
        self.outer = outer
        self.wrote = False
        self.committed = False
        self.rolled_back = False
        self.flushed: dict[Any, Any] = {}
        """What a flush that goes on has changed, for whoever asks when it is over."""
        self.changes: dict[Any, Any] = {}
        """What is kept of each row that was changed; a later change goes on with an earlier one."""
        self.failed: set[Any] = outer.failed if outer else set()
        """Who has failed in it, or in a savepoint of it, and need not be spoken of again."""
        self._places = tuple(map(ref, places))

    def allows(self) -> bool:
        if self.rolled_back or (self.wrote and not self.committed):
            return False
        return self.outer is None or self.outer.allows()

    def is_of(self, places: tuple[object, ...]) -> bool:
        """Whether it began in one of these, or outside of all requests and contexts."""
        return not self._places or any(place() in places for place in self._places)

    def keep(self, row: Any, change: Any) -> None:
        self.changes[row] = self.changes[row].then(change) if row in self.changes else change


class Followed:
    """The sessions that an extension follows, and their transactions that are in progress.

    :param places: gives the request and the application context that code runs in, those that
        there are.
    """

    committed: Callable[[dict[Any, Any]], None]
    """Told of what was kept of a transaction, when that has been committed and is over."""

    def __init__(self, places: Callable[[], tuple[object, ...]]) -> None:
        self.follows_any = False
        self.listeners: dict[str, Callable[..., None]] = {
            "after_transaction_create": self._began,
            "after_begin": self._connected,
            "transient_to_pending": self._added,
            "after_commit": self._committed,
            "after_rollback": self._rolled_back,
            "after_transaction_end": self._ended,
        }
        """Who hears which events of SQLAlchemy's, of every session."""
        self._places = places
        self._known: WeakKeyDictionary[SessionTransaction, Transaction] = WeakKeyDictionary()
        self._sessions: WeakKeyDictionary[Connection, ref[Session]] = WeakKeyDictionary()

    def follow(self, session: Any) -> None:
        """Follow the transactions that begin from now on.

        :param session: Flask-SQLAlchemy's ``db.session`` or another ``scoped_session`` of a
            ``sessionmaker``, a ``sessionmaker``, or a ``Session``; of an ``async_sessionmaker``, the
            ``sessionmaker`` that is its ``sync_session_class``. Following it twice is following
            it once.
        :raises TypeError: for anything else.
        """
        from sqlalchemy import event
        from sqlalchemy.orm import Session, scoped_session, sessionmaker

        target = session.session_factory if isinstance(session, scoped_session) else session
        if not isinstance(target, (Session, sessionmaker)):
            raise TypeError(
                "follow() takes Flask-SQLAlchemy's db.session, or a scoped_session of a sessionmaker, a"
                f" sessionmaker or a Session of SQLAlchemy, not a {type(session).__name__}"
            )
        for name, listener in self.listeners.items():
            event.listen(target, name, listener)
        self.follows_any = True

    def in_progress(self) -> list[Transaction]:
        """What decides about an event that is deferred now and here."""
        known, places = self._known, self._places()
        begun = [one for one in (ref() for ref in _begun_here.get()) if one]
        found = [(one.session, known.get(one)) for one in begun]  # another thread may end one
        sessions = [session for session, one in found if session and one and one.is_of(places)]
        for session in sessions:
            transaction = self.innermost(session)
            if not transaction.wrote:  # of thousands of rows it is not to be asked for each event
                is_modified = any(map(session.is_modified, session.dirty))
                transaction.wrote = is_modified or bool(session.deleted)
        return [self.innermost(session) for session in sessions]

    def innermost(self, session: Session) -> Transaction:
        """The session's savepoint that is in progress, or else its transaction."""
        transaction = session.get_nested_transaction() or session.get_transaction()
        known = self._known.get(transaction) if transaction else None
        return known or Transaction(None)  # it began before it was followed: nobody asks this one

    def _began(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            self._known[transaction] = Transaction(None, self._places()[:1])
            here = [begun for begun in _begun_here.get() if begun() is not None]
            _begun_here.set((*here, ref(transaction)))
        elif transaction.nested:
            self._known[transaction] = Transaction(self.innermost(session))

    def _connected(self, session: Session, _: SessionTransaction, connection: Connection) -> None:
        from sqlalchemy import event

        self._sessions[connection] = ref(session)
        if not event.contains(connection.engine, "commit", self._commits):
            event.listen(connection.engine, "after_cursor_execute", self._executed)
            event.listen(connection.engine, "handle_error", self._failed)
            event.listen(connection.engine, "commit", self._commits)

    def _executed(self, connection: Connection, _: Any, statement: str, *__: Any) -> None:
        if re.match(_WRITES, statement, _FLAGS):
            self._on(connection).wrote = True

    def _failed(self, context: ExceptionContext) -> None:
        self._on(context.connection).wrote = True

    def _commits(self, connection: Connection) -> None:
        """After a statement has failed, PostgreSQL answers COMMIT with ROLLBACK, and its drivers
        let that pass for success."""
        info = getattr(connection.connection.driver_connection, "info", None)
        has_failed = getattr(info, "transaction_status", None) == _IN_ERROR
        self._on(connection).rolled_back |= has_failed  # a session may have several

    def _on(self, connection: Any) -> Transaction:
        """The innermost transaction of the session that has this connection."""
        session = self._sessions[connection]() if connection in self._sessions else None
        return self.innermost(session) if session is not None else Transaction(None)

    def _added(self, session: Session, _: Any) -> None:
        self.innermost(session).wrote = True

    def _committed(self, session: Session) -> None:
        self.innermost(session).committed = True

    def _rolled_back(self, session: Session) -> None:
        self.innermost(session).rolled_back = True

    def _ended(self, _: Session, transaction: SessionTransaction) -> None:
        """What was committed is told here: in the midst of a commit nobody may use the session."""
        ended = self._known.pop(transaction, None)
        if ended is None or ended.rolled_back:
            return
        if ended.outer is not None:
            ended.outer.wrote |= ended.wrote
            for row, change in ended.changes.items():
                ended.outer.keep(row, change)
        elif ended.committed and ended.changes:
            self.committed(ended.changes)

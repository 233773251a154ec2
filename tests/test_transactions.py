"""Deferred events that follow a SQLAlchemy session: of Flask-SQLAlchemy, and others.

Each test runs on SQLite, and on a PostgreSQL that the tests start. Most write a row and defer an
event of its name: whatever becomes of them, the events that leave are those of the rows.
"""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response, stream_with_context
from flask_sqlalchemy import SQLAlchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Connection,
    Engine,
    ForeignKey,
    create_engine,
    delete,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.pool import NullPool

from _flask_pusher.transactions import _FLAGS, _WRITES, _begun_here
from flask_pusher import Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

NewUrl = Callable[[], str]
ENGINE_OPTIONS: dict[str, Any] = {"poolclass": NullPool}  # every connection starts anew


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="new")


class Parcel(Base):
    """That there is the order is checked by COMMIT, and not before."""

    __tablename__ = "parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    order: Mapped[str] = mapped_column(
        ForeignKey("orders.name", deferrable=True, initially="DEFERRED")
    )


def prepare(engine: Engine) -> None:
    """Create the tables; on SQLite, let SQLAlchemy begin transactions and not the driver."""
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def connected(connection: Any, _: object) -> None:
            connection.isolation_level = None
            connection.execute("PRAGMA foreign_keys=ON")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

    Base.metadata.create_all(engine)


@pytest.fixture
def new_engine(new_url: NewUrl) -> Callable[[], Engine]:
    """Makes an engine of an empty database."""

    def new_engine() -> Engine:
        engine = create_engine(new_url(), **ENGINE_OPTIONS)
        prepare(engine)
        return engine

    return new_engine


class Shop:
    """An application with a database, which follows its session."""

    def __init__(self, app: Flask, url: str) -> None:
        app.config.update(SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_ENGINE_OPTIONS=ENGINE_OPTIONS)
        self.app = app
        self.db = SQLAlchemy(app)
        with app.app_context():
            self.engine = self.db.engine
        prepare(self.engine)
        self.session = self.db.session
        self.pusher = Pusher(app)
        self.pusher.follow(self.session)
        self._views: list[Callable[[], object]] = []
        app.add_url_rule("/", view_func=self._answer, methods=["POST"])

    def _answer(self) -> str:
        self._views.pop()()
        return "done"

    def post(self, view: Callable[[], object]) -> list[str]:
        """The events that a request publishes whose view does this, and that answers with 200."""
        self._views.append(view)
        with self.pusher.record_events() as events:
            assert self.app.test_client().post("/").text == "done"
        return [event.name for event in events]

    def defer(self, name: str) -> None:
        self.pusher.defer("orders", name, {})

    def place(self, name: str) -> None:
        """Write an order, and defer an event of its name."""
        self.session.add(Order(name=name))
        self.session.flush()
        self.defer(name)

    def have(self, *names: str) -> None:
        """Have some orders from before."""
        with self.app.app_context():
            self.session.add_all(Order(name=name) for name in names)
            self.session.commit()

    @property
    def orders(self) -> list[str]:
        """Those in the database, by their names."""
        with self.engine.connect() as connection:
            return list(connection.scalars(select(Order.name).order_by(Order.name)))


@pytest.fixture
def shop(app: Flask, new_url: NewUrl) -> Shop:
    return Shop(app, new_url())


class TestTransaction:
    def test_what_is_committed_is_published(self, shop: Shop) -> None:
        def view() -> None:
            shop.place("a")
            shop.session.commit()

        assert shop.post(view) == shop.orders == ["a"]

    def test_a_rollback_that_the_view_caught_publishes_nothing(self, shop: Shop) -> None:
        def view() -> None:
            try:
                shop.place("a")
                raise KeyError
            except KeyError:
                shop.session.rollback()

        assert shop.post(view) == shop.orders == []

    def test_what_is_dropped_is_logged(self, shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
        def view() -> None:
            shop.place("a")
            shop.session.rollback()
            shop.defer("rolled back")

        caplog.set_level("DEBUG", logger=shop.app.name)
        assert shop.post(view) == ["rolled back"]
        said = [record.getMessage() for record in caplog.records if record.name == shop.app.name]
        assert said == ["Dropped with its transaction: 'a' on orders."]

    @pytest.mark.parametrize("rolls_back", [True, False])
    def test_a_commit_whose_flush_fails_publishes_nothing(
        self, shop: Shop, rolls_back: bool
    ) -> None:
        def view() -> None:
            shop.place("b")
            shop.session.add(Order(name="a"))
            with pytest.raises(IntegrityError):
                shop.session.commit()
            if rolls_back:
                shop.session.rollback()

        shop.have("a")
        assert shop.post(view) == []
        assert shop.orders == ["a"]

    @pytest.mark.parametrize("rolls_back", [True, False])
    def test_a_commit_that_the_database_refuses_publishes_nothing(
        self, shop: Shop, rolls_back: bool
    ) -> None:
        def view() -> None:
            shop.place("a")
            shop.session.add(Parcel(order="nobody's"))
            with pytest.raises(IntegrityError):
                shop.session.commit()
            if rolls_back:
                shop.session.rollback()

        assert shop.post(view) == shop.orders == []

    def test_a_commit_after_a_statement_that_failed_publishes_what_it_wrote(
        self, shop: Shop
    ) -> None:
        """SQLite commits what was before it; PostgreSQL rolls all of it back, without an error."""

        def view() -> None:
            shop.place("b")
            with suppress(IntegrityError):
                shop.session.execute(insert(Order).values(name="a"))
            shop.session.commit()
            shop.place("c")
            shop.session.commit()

        shop.have("a")
        assert ["a", *shop.post(view)] == shop.orders
        assert shop.orders[-1] == "c"

    def test_a_model_tells_of_what_it_wrote_then(self, shop: Shop) -> None:
        def view() -> None:
            shop.session.add(Order(name="b"))
            shop.session.flush()
            with suppress(IntegrityError):
                shop.session.execute(insert(Order).values(name="a"))
            shop.session.commit()
            shop.session.add(Order(name="c"))
            shop.session.commit()

        shop.have("a")
        shop.pusher.broadcasts(Order)(lambda order: order.name)
        with shop.pusher.record_events() as events, shop.app.app_context():
            view()
        assert ["a", *(event.channels[0] for event in events)] == shop.orders

    def test_a_flush_that_fails_in_a_transaction_that_reads_publishes_nothing(
        self, shop: Shop
    ) -> None:
        def view() -> None:
            shop.session.scalars(select(Order)).all()
            shop.defer("a")
            shop.session.execute(text("SELECT 1"))
            shop.session.add(Order(name="a"))
            with suppress(IntegrityError):
                shop.session.flush()

        shop.have("a")
        assert shop.post(view) == []

    @pytest.mark.parametrize(
        "statement",
        ["INSERT INTO orders (name, state) VALUES ('a', 'new')", "SELECT nothing FROM nowhere"],
    )
    def test_a_statement_that_failed_counts_as_one_that_wrote(
        self, shop: Shop, statement: str
    ) -> None:
        def view() -> None:
            with suppress(IntegrityError, OperationalError, ProgrammingError):
                shop.session.execute(text(statement))
            shop.defer("a")

        shop.have("a")
        assert shop.post(view) == []

    @pytest.mark.parametrize("teardown", ["teardown_request", "teardown_appcontext"])
    def test_a_teardown_function_may_commit(self, shop: Shop, teardown: str) -> None:
        getattr(shop.app, teardown)(lambda _: shop.session.commit())
        assert shop.post(lambda: shop.place("a")) == shop.orders == ["a"]

    @pytest.mark.parametrize("teardown", ["teardown_request", "teardown_appcontext"])
    def test_a_commit_that_fails_in_a_teardown_function_publishes_nothing(
        self, shop: Shop, teardown: str
    ) -> None:
        def commit(_: object) -> None:
            shop.session.add(Order(name="a"))
            with suppress(IntegrityError):
                shop.session.commit()

        getattr(shop.app, teardown)(commit)
        shop.have("a")
        assert shop.post(lambda: shop.place("b")) == []
        assert shop.orders == ["a"]

    def test_a_savepoint_shares_the_fate_of_its_transaction(self, shop: Shop) -> None:
        def view() -> None:
            with shop.session.begin_nested():
                shop.place("a")
            with shop.session.begin_nested(), shop.session.begin_nested():
                shop.place("b")
            shop.session.rollback()

        assert shop.post(view) == shop.orders == []

    def test_before_a_transaction_no_transaction_decides(self, shop: Shop) -> None:
        def view() -> None:
            shop.defer("a")
            shop.place("b")
            shop.session.rollback()

        assert shop.post(view) == ["a"]

    def test_a_listener_of_the_commit_may_defer(self, shop: Shop) -> None:
        @event.listens_for(shop.session, "after_commit")
        def committed(_: Session) -> None:
            shop.defer("committed")

        def view() -> None:
            shop.place("a")
            shop.session.commit()

        assert shop.post(view) == ["a", "committed"]

    def test_a_listener_of_the_flush_may_defer(self, shop: Shop) -> None:
        def inserted(_mapper: object, _connection: object, order: Order) -> None:
            shop.defer(order.name)

        def view(end: Callable[[], None]) -> None:
            shop.session.add(Order(name="a"))
            end()

        event.listen(Order, "after_insert", inserted)
        try:
            assert shop.post(lambda: view(shop.session.rollback)) == []
            assert shop.post(lambda: view(shop.session.commit)) == shop.orders == ["a"]
        finally:
            event.remove(Order, "after_insert", inserted)

    def test_an_error_status_publishes_nothing_of_what_was_committed(self, shop: Shop) -> None:
        @shop.app.get("/missing")
        def missing() -> tuple[str, int]:
            shop.place("a")
            shop.session.commit()
            return "", 404

        with shop.pusher.record_events() as events:
            shop.app.test_client().get("/missing")
        assert events == []
        assert shop.orders == ["a"]


def add(session: Any) -> None:
    session.add(Order(name="new"))


def flush(session: Any) -> None:
    session.add(Order(name="new"))
    session.flush()


def merge(session: Any) -> None:
    session.merge(Order(name="new"))


def change(session: Any) -> None:
    session.get(Order, "old").state = "paid"


def change_and_query(session: Any) -> None:
    session.get(Order, "old").state = "paid"
    session.scalars(select(Order)).all()


def remove(session: Any) -> None:
    session.delete(session.get(Order, "old"))


def insert_by_statement(session: Any) -> None:
    session.execute(insert(Order).values(name="new"))


def insert_many(session: Any) -> None:
    session.execute(insert(Order), [{"name": "new"}, {"name": "newer"}])


def insert_in_bulk(session: Any) -> None:
    session.bulk_save_objects([Order(name="new")])


def update_by_statement(session: Any) -> None:
    session.execute(update(Order).values(state="paid"))


def update_by_query(session: Any) -> None:
    session.query(Order).update({"state": "paid"})


def delete_by_statement(session: Any) -> None:
    session.execute(delete(Order))


def write_as_text(session: Any) -> None:
    session.execute(text("  -- changes\n /* all * of them */ Update orders SET state = 'paid'"))


def write_on_the_connection(session: Any) -> None:
    session.connection().execute(insert(Order).values(name="new"))


def write_by_the_driver(session: Any) -> None:
    session.connection().exec_driver_sql("DELETE FROM orders")


def write_with(session: Any) -> None:
    session.execute(
        text(
            "WITH news AS (SELECT 'new' AS name, 'new' AS state)\n"
            " INSERT INTO orders (name, state) SELECT name, state FROM news"
        )
    )


def create_a_table(session: Any) -> None:
    session.execute(text("CREATE TABLE more (id INTEGER)"))


writes = pytest.mark.parametrize(
    "write",
    [
        add,
        flush,
        merge,
        change,
        change_and_query,
        remove,
        insert_by_statement,
        insert_many,
        insert_in_bulk,
        update_by_statement,
        update_by_query,
        delete_by_statement,
        write_as_text,
        write_on_the_connection,
        write_by_the_driver,
        write_with,
        create_a_table,
    ],
)


def read_nothing(_: Any) -> None:
    """Leave the session alone."""


def read_rows(session: Any) -> None:
    assert session.scalars(select(Order)).all()


def get(session: Any) -> None:
    assert session.get(Order, "old").state == "new"


def read_as_text(session: Any) -> None:
    session.execute(text("SELECT name, replace(state, 'INSERT', '') FROM orders"))


def read_with(session: Any) -> None:
    session.execute(text("WITH updates AS (SELECT name FROM orders) SELECT * FROM updates"))


def read_and_lock(session: Any) -> None:
    session.scalars(select(Order).with_for_update()).all()


def read_in_a_savepoint(session: Any) -> None:
    with session.begin_nested():
        get(session)


def change_nothing(session: Any) -> None:
    order = session.get(Order, "old")
    order.state = str(order.state)


def change_nothing_and_query(session: Any) -> None:
    change_nothing(session)
    session.scalars(select(Order)).all()


def take_the_change_back(session: Any) -> None:
    session.execute(text("SELECT 1"))
    with session.begin_nested() as savepoint:
        flush(session)
        savepoint.rollback()


def fail_to_insert(session: Any) -> None:
    session.execute(text("SELECT 1"))
    with pytest.raises(IntegrityError), session.begin_nested():
        session.execute(insert(Order).values(name="old"))


def begin(session: Any) -> None:
    session.begin()


reads = pytest.mark.parametrize(
    "read",
    [
        read_nothing,
        read_rows,
        get,
        read_as_text,
        read_with,
        read_and_lock,
        read_in_a_savepoint,
        change_nothing,
        change_nothing_and_query,
        take_the_change_back,
        fail_to_insert,
        begin,
    ],
)


class TestNeverCommitted:
    @writes
    def test_what_wrote_publishes_nothing(self, shop: Shop, write: Callable[[Any], None]) -> None:
        def view() -> None:
            write(shop.session)
            shop.defer("a")

        shop.have("old")
        assert shop.post(view) == []
        assert shop.orders == ["old"]

    @writes
    def test_what_wrote_publishes_when_it_is_committed(
        self, shop: Shop, write: Callable[[Any], None]
    ) -> None:
        def view() -> None:
            write(shop.session)
            shop.defer("a")
            shop.session.commit()

        shop.have("old")
        assert shop.post(view) == ["a"]

    @pytest.mark.parametrize("write", [add, flush, change_and_query, update_by_statement])
    def test_what_writes_after_the_call_publishes_nothing(
        self, shop: Shop, write: Callable[[Any], None]
    ) -> None:
        def view() -> None:
            shop.session.scalars(select(Order)).all()
            shop.defer("a")
            write(shop.session)

        shop.have("old")
        assert shop.post(view) == []

    @reads
    def test_what_only_read_publishes(self, shop: Shop, read: Callable[[Any], None]) -> None:
        def view() -> None:
            read(shop.session)
            shop.defer("a")

        shop.have("old")
        assert shop.post(view) == ["a"]

    def test_what_only_read_publishes_nothing_when_it_is_rolled_back(self, shop: Shop) -> None:
        def view() -> None:
            get(shop.session)
            shop.defer("a")
            shop.session.rollback()

        shop.have("old")
        assert shop.post(view) == []

    def test_a_login_that_loads_the_user_drops_nothing(self, shop: Shop) -> None:
        @shop.app.before_request
        def log_in() -> None:
            shop.session.get(Order, "old")

        shop.have("old")
        assert shop.post(lambda: shop.defer("a")) == ["a"]

    def test_data_that_is_read_from_the_committed_row_drops_nothing(self, shop: Shop) -> None:
        def view() -> None:
            order = Order(name="a")
            shop.session.add(order)
            shop.session.commit()
            shop.pusher.defer("orders", order.name, {"state": order.state})
            shop.pusher.defer("orders", f"{order.name} too", {"state": order.state})

        assert shop.post(view) == ["a", "a too"]

    def test_what_follows_the_commit_and_is_never_committed_publishes_nothing(
        self, shop: Shop
    ) -> None:
        def view() -> None:
            shop.place("a")
            shop.session.commit()
            shop.place("b")

        assert shop.post(view) == shop.orders == ["a"]

    def test_a_savepoint_that_was_released_publishes_nothing(self, shop: Shop) -> None:
        def view() -> None:
            shop.session.execute(text("SELECT 1"))
            shop.defer("before")
            with shop.session.begin_nested():
                shop.place("a")
            shop.defer("after")

        assert shop.post(view) == shop.orders == []

    def test_a_savepoint_that_only_read_publishes_nothing_where_the_transaction_wrote(
        self, shop: Shop
    ) -> None:
        def view() -> None:
            with shop.session.begin_nested():
                shop.session.execute(text("SELECT 1"))
                shop.defer("a")
            flush(shop.session)

        assert shop.post(view) == []


@pytest.mark.parametrize(
    "statement",
    [
        "MERGE INTO orders USING news ON orders.name = news.name WHEN MATCHED THEN DELETE",
        "REPLACE INTO orders (name) VALUES ('new')",
        "TRUNCATE orders",
        "COPY orders FROM STDIN",
        "LOAD DATA INFILE 'orders' INTO TABLE orders",
        "CALL place('new')",
        "DO $$ BEGIN PERFORM place('new'); END $$",
        "EXEC place 'new'",
        "EXECUTE place('new')",
        "ALTER TABLE orders ADD COLUMN more TEXT",
        "DROP TABLE orders",
        "WITH gone AS MATERIALIZED (\n DELETE FROM orders RETURNING name) SELECT * FROM gone",
        "with news as (select 1) merge into orders using news on true when matched then delete",
    ],
)
def test_databases_that_are_not_here_write_by_other_statements(statement: str) -> None:
    assert re.match(_WRITES, statement, _FLAGS)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "DOWN",
        "SHOW TABLES",
        "PRAGMA foreign_keys=ON",
        "WITH a AS (SELECT count(updates) AS update FROM b) SELECT * FROM a",
    ],
)
def test_what_does_not_begin_with_a_word_that_writes_reads(statement: str) -> None:
    assert not re.match(_WRITES, statement, _FLAGS)


class TestSavepoints:
    def test_only_the_one_that_is_rolled_back_publishes_nothing(self, shop: Shop) -> None:
        def view() -> None:
            shop.place("a")
            with shop.session.begin_nested():
                shop.place("b")
            savepoint = shop.session.begin_nested()
            shop.place("c")
            savepoint.rollback()
            shop.place("d")
            shop.session.commit()

        assert shop.post(view) == shop.orders == ["a", "b", "d"]

    def test_an_inner_one_that_is_rolled_back_takes_nothing_with_it(self, shop: Shop) -> None:
        def view() -> None:
            with shop.session.begin_nested():
                shop.place("a")
                with suppress(KeyError), shop.session.begin_nested():
                    shop.place("b")
                    with shop.session.begin_nested():
                        shop.place("c")
                    raise KeyError
                shop.place("d")
            shop.session.commit()

        assert shop.post(view) == shop.orders == ["a", "d"]

    def test_an_outer_one_that_is_rolled_back_takes_the_inner_ones_with_it(
        self, shop: Shop
    ) -> None:
        def view() -> None:
            shop.place("a")
            outer = shop.session.begin_nested()
            shop.place("b")
            with shop.session.begin_nested():
                shop.place("c")
            shop.session.begin_nested()
            shop.place("d")
            outer.rollback()
            shop.session.commit()

        assert shop.post(view) == shop.orders == ["a"]

    def test_a_flush_that_fails_takes_its_savepoint_with_it(self, shop: Shop) -> None:
        def view() -> None:
            shop.place("b")
            with suppress(IntegrityError), shop.session.begin_nested():
                shop.place("c")
                shop.session.execute(text("SELECT 1"))
                shop.session.add(Order(name="a"))
            shop.place("d")
            shop.session.commit()

        shop.have("a")
        assert shop.post(view) == ["b", "d"]
        assert shop.orders == ["a", "b", "d"]

    def test_commit_commits_those_that_are_open(self, shop: Shop) -> None:
        def view() -> None:
            shop.session.begin_nested()
            shop.place("a")
            shop.session.begin_nested()
            shop.place("b")
            shop.session.commit()

        assert shop.post(view) == shop.orders == ["a", "b"]


class TestTwoTransactions:
    def test_each_decides_about_its_own(self, shop: Shop) -> None:
        def view() -> None:
            shop.place("a")
            shop.session.commit()
            shop.place("b")
            shop.session.rollback()
            shop.place("c")
            shop.session.commit()

        assert shop.post(view) == shop.orders == ["a", "c"]

    def test_each_request_has_its_own(self, shop: Shop) -> None:
        def first() -> None:
            shop.place("a")
            shop.session.rollback()

        def second() -> None:
            shop.place("b")
            shop.session.commit()

        assert shop.post(first) == []
        assert shop.post(second) == shop.orders == ["b"]

    @pytest.mark.parametrize("way", [add, flush])
    def test_what_a_request_left_open_decides_about_no_later_one(
        self, shop: Shop, new_engine: Callable[[], Engine], way: Callable[[Any], None]
    ) -> None:
        sessions = sessionmaker(new_engine())
        shop.pusher.follow(sessions)
        left: list[Session] = []

        def first() -> None:
            left.append(sessions())
            way(left[-1])
            shop.defer("first")

        def second() -> None:
            shop.place("b")
            shop.session.commit()

        assert shop.post(first) == []
        assert shop.post(second) == shop.orders == ["b"]
        left[-1].close()

    def test_what_a_job_left_open_decides_about_no_later_one(
        self, shop: Shop, new_engine: Callable[[], Engine]
    ) -> None:
        sessions = sessionmaker(new_engine())
        shop.pusher.follow(sessions)
        with shop.pusher.record_events() as events:
            with shop.app.app_context():
                left = sessions()
                flush(left)
                shop.defer("first")
            with shop.app.app_context():
                shop.place("b")
                shop.session.commit()
        assert [event.name for event in events] == shop.orders == ["b"]
        left.close()

    def test_one_that_another_request_left_decides_nothing_inside_of_one_context(
        self, shop: Shop
    ) -> None:
        """A test suite's fixture pushes a context, and each request's transaction is its own."""
        left = Session(shop.engine)
        shop.pusher.follow(left)

        def leave() -> None:
            flush(left)

        with shop.app.app_context():
            assert shop.post(leave) == []
            assert shop.post(lambda: shop.defer("a")) == ["a"]
        left.close()

    def test_one_that_began_in_the_context_around_a_request_decides(self, shop: Shop) -> None:
        """A test suite's fixture pushes a context, and the request has the same session."""

        def view() -> None:
            shop.place("a")
            shop.session.rollback()
            shop.place("b")

        with shop.app.app_context():
            shop.session.execute(text("SELECT 1"))
            assert shop.post(view) == []


def test_the_service_gets_what_was_committed_and_nothing_else(
    app: Flask, api: Any, new_url: NewUrl
) -> None:
    app.config["PUSHER_PUBLISHER"] = "request"
    shop = Shop(app, new_url())

    @app.post("/order")
    def order() -> str:
        for name, end in [("a", "commit"), ("b", "rollback"), ("c", "commit"), ("d", "flush")]:
            shop.place(name)
            getattr(shop.session, end)()
        return ""

    app.test_client().post("/order").close()
    assert [name for _, name, _ in api.events] == shop.orders == ["a", "c"]


def test_a_task_queue_gets_what_was_committed_and_nothing_else(shop: Shop) -> None:
    names: list[str] = []

    @shop.pusher.hand_over
    def enqueue(calls: list[dict[str, Any]]) -> None:
        names.extend(call["name"] for call in calls)

    @shop.app.post("/order")
    def order() -> str:
        shop.place("a")
        shop.session.commit()
        shop.place("b")
        return ""

    shop.app.test_client().post("/order")
    assert names == shop.orders == ["a"]


def test_a_stream_publishes_what_it_committed(shop: Shop) -> None:
    @shop.app.post("/orders")
    def order() -> Response:
        def place() -> Iterator[str]:
            for name, end in [("a", "commit"), ("b", "rollback"), ("c", "commit"), ("d", "flush")]:
                shop.place(name)
                getattr(shop.session, end)()
                yield name

        return Response(stream_with_context(place()))

    with shop.pusher.record_events() as events:
        assert shop.app.test_client().post("/orders").text == "abcd"
    assert [event.name for event in events] == shop.orders == ["a", "c"]


class TestOutsideOfRequests:
    @pytest.mark.parametrize("end", ["commit", "rollback", "close"])
    def test_a_command_publishes_what_it_committed(self, shop: Shop, end: str) -> None:
        @shop.app.cli.command("place")
        def place() -> None:
            shop.place("a")
            getattr(shop.session, end)()

        with shop.pusher.record_events() as events:
            assert shop.app.test_cli_runner().invoke(args=["place"]).exit_code == 0
        assert [event.name for event in events] == shop.orders
        assert shop.orders == (["a"] if end == "commit" else [])

    def test_each_job_of_a_worker_publishes_what_it_committed(self, shop: Shop) -> None:
        with shop.pusher.record_events() as events:
            for name, end in [("a", "commit"), ("b", "rollback"), ("c", "close"), ("d", "commit")]:
                with shop.app.app_context():
                    shop.place(name)
                    getattr(shop.session, end)()
        assert [event.name for event in events] == shop.orders == ["a", "d"]

    def test_a_job_that_begins_before_its_context_is_followed(self, shop: Shop) -> None:
        sessions = sessionmaker(shop.engine)
        shop.pusher.follow(sessions)
        with shop.pusher.record_events() as events, sessions() as session:
            session.add(Order(name="a"))
            with shop.app.app_context():
                shop.defer("a")
        assert [event.name for event in events] == shop.orders == []


class TestOuterTransaction:
    """A test suite's, in which the application's commits are undone when the test is over."""

    @pytest.mark.parametrize("mode", ["create_savepoint", "rollback_only", "control_fully"])
    def test_what_is_committed_within_is_recorded(self, shop: Shop, mode: Any) -> None:
        engine = shop.engine
        with engine.connect() as connection:
            outer = connection.begin()
            session = scoped_session(sessionmaker(bind=connection, join_transaction_mode=mode))
            shop.pusher.follow(session)

            def view() -> None:
                session.add(Order(name="a"))
                session.flush()
                shop.defer("a")
                session.commit()
                session.remove()
                session.execute(insert(Order).values(name="b"))
                shop.defer("b")
                session.remove()

            assert shop.post(view) == ["a"]
            if mode != "control_fully":
                outer.rollback()
        assert shop.orders == (["a"] if mode == "control_fully" else [])

    def test_flask_sqlalchemys_session_may_be_bound_to_it(self, shop: Shop) -> None:
        def view() -> None:
            shop.place("a")
            shop.session.commit()
            shop.place("b")
            shop.session.rollback()
            shop.place("c")

        shop.session.session_factory.configure(join_transaction_mode="create_savepoint")
        with shop.engine.connect() as connection, connection.begin() as outer:
            with shop.app.app_context():
                engines: Any = shop.db.engines
                engines[None] = connection
            assert shop.post(view) == ["a"]
            outer.rollback()
        assert shop.orders == []


def place(shop: Shop, session: Any, name: str) -> None:
    session.add(Order(name=name))
    session.flush()
    shop.defer(name)


class TestSessions:
    @pytest.mark.parametrize("end", ["commit", "rollback", "close"])
    def test_a_sessionmaker(self, shop: Shop, end: str) -> None:
        sessions = sessionmaker(shop.engine)
        shop.pusher.follow(sessions)

        def view() -> None:
            with sessions() as session:
                place(shop, session, "a")
                getattr(session, end)()
            shop.defer("after")

        assert shop.post(view) == [*shop.orders, "after"]
        assert shop.orders == (["a"] if end == "commit" else [])

    def test_a_sessionmaker_with_begin(self, shop: Shop) -> None:
        sessions = sessionmaker(shop.engine)
        shop.pusher.follow(sessions)

        def view() -> None:
            with sessions.begin() as session:
                place(shop, session, "a")
            with suppress(KeyError), sessions.begin() as session:
                place(shop, session, "b")
                raise KeyError

        assert shop.post(view) == shop.orders == ["a"]

    @pytest.mark.parametrize("end", ["commit", "rollback", "remove"])
    def test_a_scoped_session(self, shop: Shop, end: str) -> None:
        session = scoped_session(sessionmaker(shop.engine))
        shop.pusher.follow(session)

        def view() -> None:
            place(shop, session, "a")
            getattr(session, end)()

        assert shop.post(view) == shop.orders == (["a"] if end == "commit" else [])

    @pytest.mark.parametrize("end", ["commit", "rollback", "close"])
    def test_a_session(self, shop: Shop, end: str) -> None:
        session = Session(shop.engine)
        shop.pusher.follow(session)

        def view() -> None:
            place(shop, session, "a")
            getattr(session, end)()

        assert shop.post(view) == shop.orders == (["a"] if end == "commit" else [])

    def test_a_session_with_several_databases(
        self, shop: Shop, new_engine: Callable[[], Engine]
    ) -> None:
        other = new_engine()
        sessions = sessionmaker(binds={Order: shop.engine, Parcel: other})
        shop.pusher.follow(sessions)

        def view() -> None:
            for end in ("commit", "close"):
                with sessions() as session:
                    session.scalars(select(Order)).all()
                    shop.defer(end)
                    session.execute(delete(Parcel))
                    getattr(session, end)()

        assert shop.post(view) == ["commit"]

    def test_a_session_with_several_databases_of_which_one_rolls_back(
        self, shop: Shop, new_engine: Callable[[], Engine]
    ) -> None:
        sessions = sessionmaker(binds={Order: shop.engine, Parcel: new_engine()})
        shop.pusher.follow(sessions)

        def view() -> None:
            for name in "bcdefghi":  # which of the databases commits first differs
                with sessions() as session:
                    session.execute(delete(Parcel))
                    place(shop, session, name)
                    with suppress(IntegrityError):
                        session.execute(insert(Order).values(name="a"))
                    session.commit()

        shop.have("a")
        assert ["a", *shop.post(view)] == shop.orders

    def test_an_asynchronous_sessionmaker(self, app: Flask, new_schema: NewUrl) -> None:
        from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

        shop = Shop(app, new_schema())
        followed = sessionmaker()
        shop.pusher.follow(followed)

        async def place_all() -> None:
            engine = create_async_engine(shop.engine.url, **ENGINE_OPTIONS)
            sessions = async_sessionmaker(engine, sync_session_class=followed)
            for end in ("commit", "rollback", "close"):
                async with sessions() as session:
                    session.add(Order(name=end))
                    await session.flush()
                    shop.defer(end)
                    await getattr(session, end)()

        # Playwright may have an event loop in this thread, beside which no other can run.
        with ThreadPoolExecutor(1) as thread:
            events = thread.submit(shop.post, lambda: asyncio.run(place_all())).result()
        assert events == shop.orders == ["commit"]

    def test_all_that_are_in_a_transaction_decide(
        self, shop: Shop, new_engine: Callable[[], Engine]
    ) -> None:
        other = sessionmaker(new_engine())
        shop.pusher.follow(other)

        def view() -> None:
            for first in ("commit", "rollback"):
                for second in ("commit", "rollback"):
                    with other() as session:
                        flush(session)
                        place(shop, shop.session, f"{first}, {second}")
                        getattr(shop.session, first)()
                        getattr(session, second)()
                        session.execute(delete(Order))
                        session.commit()

        assert shop.post(view) == ["commit, commit"]

    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_what_is_not_followed_decides_nothing(self, shop: Shop, end: str) -> None:
        def view() -> None:
            shop.place("a")
            shop.session.commit()
            with Session(shop.engine) as session:
                place(shop, session, "b")
                getattr(session, end)()

        assert shop.post(view) == ["a", "b"]

    def test_following_twice_is_following_once(self, shop: Shop) -> None:
        session = scoped_session(sessionmaker(shop.engine))
        for followed in (session, session, session.session_factory, session(), shop.session):
            shop.pusher.follow(followed)

        def view() -> None:
            place(shop, session, "a")
            with session.begin_nested() as savepoint:
                place(shop, session, "b")
                savepoint.rollback()
            session.commit()
            session.remove()

        assert shop.post(view) == shop.orders == ["a"]

    def test_a_transaction_that_began_before_is_not_followed(self, shop: Shop) -> None:
        sessions = sessionmaker(shop.engine)

        def view() -> None:
            with sessions() as session:
                flush(session)
                shop.pusher.follow(sessions)
                shop.defer("before")
                with session.begin_nested():
                    shop.defer("within")
                session.rollback()
                place(shop, session, "after")
                session.rollback()

        assert shop.post(view) == ["before", "within"]

    @pytest.mark.parametrize("what", [None, object(), SQLAlchemy(), Session, "db.session"])
    def test_anything_else_is_an_error_that_says_what_it_takes(
        self, shop: Shop, what: Any
    ) -> None:
        with pytest.raises(TypeError, match="takes Flask-SQLAlchemy's db"):
            shop.pusher.follow(what)


class TestApplications:
    def test_each_has_its_own_session(
        self, shop: Shop, make_app: MakeApp, new_url: NewUrl
    ) -> None:
        other = Shop(make_app(), new_url())

        def view() -> None:
            shop.place("a")
            with other.app.app_context():
                other.place("b")
                other.session.rollback()
            shop.session.commit()

        with other.pusher.record_events() as others:
            assert shop.post(view) == shop.orders == ["a"]
        assert others == []
        assert other.orders == []

    def test_one_extension_follows_for_all_of_its_applications(
        self, shop: Shop, make_app: MakeApp, new_url: NewUrl
    ) -> None:
        other = make_app()
        other.config.update(
            SQLALCHEMY_DATABASE_URI=new_url(), SQLALCHEMY_ENGINE_OPTIONS=ENGINE_OPTIONS
        )
        shop.db.init_app(other)
        shop.pusher.init_app(other)
        with other.app_context():
            prepare(shop.db.engine)
        with shop.pusher.record_events() as events:
            for app in (shop.app, other):
                with app.app_context():
                    shop.place(f"{app is other}")
                    shop.session.commit()
                    shop.place("b")
        assert [event.name for event in events] == ["False", "True"]


class TestThreads:
    def test_a_thread_decides_about_its_own_events(
        self, shop: Shop, new_engine: Callable[[], Engine]
    ) -> None:
        sessions = sessionmaker(new_engine())
        shop.pusher.follow(sessions)
        wrote, deferred = threading.Event(), threading.Event()

        def run() -> None:
            with shop.app.app_context(), sessions() as session:
                flush(session)
                wrote.set()
                assert deferred.wait(20)
                shop.defer("thread's")
                session.rollback()

        with shop.pusher.record_events() as events:
            thread = threading.Thread(target=run)
            thread.start()
            assert wrote.wait(20)
            with shop.app.app_context():
                shop.defer("first")
                shop.place("second")
                shop.session.commit()
            deferred.set()
            thread.join()
        assert [event.name for event in events] == ["first", "second"]

    def test_many_threads_publish_what_they_committed(self, shop: Shop) -> None:
        shop.have()

        def run(thread: int) -> None:
            for number in range(4):
                with shop.app.app_context():
                    shop.session.execute(text("SELECT 1"))
                    shop.defer(f"{thread} {number}")
                    if number % 2:
                        shop.session.rollback()

        with shop.pusher.record_events() as events:
            threads = [threading.Thread(target=run, args=[number]) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert {event.name for event in events} == {f"{t} {n}" for t in range(8) for n in (0, 2)}

    def test_a_copy_of_the_context_is_in_the_transaction(self, shop: Shop) -> None:
        def view() -> None:
            shop.place("a")
            thread = threading.Thread(target=copy_context().run, args=[shop.defer, "b"])
            thread.start()
            thread.join()
            shop.session.rollback()
            copy_context().run(shop.defer, "c")

        assert shop.post(view) == ["c"]

    def test_a_transaction_that_is_over_decides_about_no_later_one(self, shop: Shop) -> None:
        session = Session(shop.engine)
        shop.pusher.follow(session)

        def view() -> None:
            transaction = session.begin()
            session.commit()
            thread = threading.Thread(target=session.execute, args=[text("SELECT 1")])
            thread.start()
            thread.join()
            shop.defer("a")
            session.rollback()
            assert transaction is not session.begin()

        assert shop.post(view) == ["a"]
        session.close()

    def test_a_session_may_be_ended_elsewhere(self, shop: Shop) -> None:
        session = Session(shop.engine)
        shop.pusher.follow(session)

        def view() -> None:
            session.execute(text("SELECT 1"))
            shop.defer("a")
            copy_context().run(session.rollback)
            shop.defer("b")

        assert shop.post(view) == ["b"]


def test_rows_that_were_changed_make_an_event_no_dearer(shop: Shop) -> None:
    shop.have(*map(str, range(1000)))

    def seconds_of_a_loop() -> float:
        """The shortest of several: the machine may do other things, now and then."""
        gc.disable()  # it would look at all that other tests have left
        seconds = []
        for _ in range(10):
            start = time.thread_time()
            for order in orders:
                shop.defer(order.name)
            seconds.append(time.thread_time() - start)
        gc.enable()
        return min(seconds)

    with shop.pusher.record_events(), shop.app.app_context():
        orders = shop.session.scalars(select(Order)).all()
        before = seconds_of_a_loop()
        for order in orders:
            order.state = "paid"
        assert seconds_of_a_loop() < 4 * before
        shop.session.rollback()


def test_nothing_is_kept_of_a_session_that_is_over(shop: Shop) -> None:
    seen: list[weakref.ref[Any]] = []

    def view() -> None:
        shop.place("a")
        with shop.session.begin_nested():
            shop.place("b")
        session = shop.session()
        kept = [session, session.get_transaction(), session.connection()]
        seen.extend(map(weakref.ref, kept))
        shop.session.commit()

    with shop.pusher.record_events():
        shop.post(view)
        gc.collect()
        assert [reference() for reference in seen] == [None, None, None]


def test_nothing_is_kept_of_a_session_that_is_dropped_in_a_transaction(shop: Shop) -> None:
    sessions = sessionmaker(shop.engine)
    shop.pusher.follow(sessions)
    session = sessions()
    flush(session)
    seen: list[weakref.ref[Any]] = [weakref.ref(session), weakref.ref(session.get_transaction())]
    del session
    gc.collect()
    assert [reference() for reference in seen] == [None, None]


def test_a_thread_that_goes_on_keeps_nothing_of_its_transactions(shop: Shop) -> None:
    with shop.app.app_context():
        for _ in range(10):
            shop.session.execute(text("SELECT 1"))
            shop.session.rollback()
    assert len(_begun_here.get()) == 1


def test_nobody_imports_sqlalchemy_who_does_not_follow() -> None:
    program = """
import sys
from flask import Flask, Response, stream_with_context
from flask_pusher import Pusher

app = Flask("an_app")
app.config.update(PUSHER_APP_ID="1", PUSHER_KEY="a-key", PUSHER_SECRET="a-secret")
pusher = Pusher(app)

@app.get("/")
def view():
    pusher.defer("a", "b", {})
    return ""

with pusher.record_events() as events:
    app.test_client().get("/")
assert len(events) == 1
assert "sqlalchemy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.sampled_from(["place", "place", "savepoint", "release", "undo", "commit", "rollback"]),
        max_size=20,
    )
)
def test_whatever_is_done_the_events_are_those_of_the_rows(shop: Shop, steps: list[str]) -> None:
    def view() -> None:
        names = count()
        savepoints: list[Any] = []
        for step in steps:
            if step == "place":
                shop.place(f"{next(names):02}")
            elif step == "savepoint":
                savepoints.append(shop.session.begin_nested())
            elif step == "release" and savepoints:
                savepoints.pop().commit()
            elif step == "undo" and savepoints:
                savepoints.pop().rollback()
            elif step in {"commit", "rollback"}:
                getattr(shop.session, step)()
                savepoints.clear()

    events = shop.post(view)
    assert events == shop.orders
    with shop.app.app_context():
        shop.session.execute(delete(Order))
        shop.session.commit()

"""Models that tell pages of their changes: what is told of a transaction, to whom, and what is not."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    Table,
    create_engine,
    delete,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.orderinglist import ordering_list
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    Session,
    WriteOnlyMapped,
    attribute_keyed_dict,
    composite,
    mapped_column,
    relationship,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import StaticPool

from flask_pusher import Pusher, RecordedEvent

if TYPE_CHECKING:
    from tests.conftest import MakeApp


class Base(DeclarativeBase):
    pass


readers = Table(
    "readers",
    Base.metadata,
    Column("document_id", ForeignKey("documents.id"), primary_key=True),
    Column("user_id", ForeignKey("users.id"), primary_key=True),
)


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    documents: Mapped[list[Document]] = relationship(secondary=readers, back_populates="readers")


class Document(Base):
    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True)
    readers: Mapped[list[User]] = relationship(secondary=readers, back_populates="documents")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="order")
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    state: Mapped[str] = mapped_column(default="new")
    note: Mapped[str] = mapped_column(default="", deferred=True)
    version: Mapped[int] = mapped_column()
    user: Mapped[User] = relationship()
    lines: Mapped[list[Line]] = relationship(back_populates="order", cascade="all, delete-orphan")
    __mapper_args__ = {  # noqa: RUF012 - as SQLAlchemy has it
        "polymorphic_on": "kind",
        "polymorphic_identity": "order",
        "version_id_col": version,
    }

    @property
    def owner(self) -> str:
        return f"private-user-{self.user_id}"


class ExpressOrder(Order):
    """One of the same table."""

    __mapper_args__ = {"polymorphic_identity": "express"}  # noqa: RUF012


class GiftOrder(Order):
    """One of a table of its own."""

    __tablename__ = "gift_orders"
    id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    greeting: Mapped[str] = mapped_column(default="")
    __mapper_args__ = {"polymorphic_identity": "gift"}  # noqa: RUF012


class Line(Base):
    __tablename__ = "lines"
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=1)
    order: Mapped[Order] = relationship(back_populates="lines")


class Letter(Base):
    __tablename__ = "letters"
    id: Mapped[int] = mapped_column(primary_key=True)


class Telegram(Letter):
    """One of another table, with keys of its own."""

    __tablename__ = "telegrams"
    id: Mapped[int] = mapped_column(primary_key=True)
    __mapper_args__ = {"concrete": True}  # noqa: RUF012


class Ticket(Base):
    __tablename__ = "tickets"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class Day(Base):
    __tablename__ = "days"
    day: Mapped[date] = mapped_column(primary_key=True)


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __composite_values__(self) -> tuple[int, int]:
        return self.x, self.y


class Pin(Base):
    __tablename__ = "pins"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[Point] = composite(mapped_column("x", Integer), mapped_column("y", Integer))


def new_engine() -> Engine:
    """An empty database, on which savepoints work as in others."""
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    Base.metadata.create_all(engine)
    return engine


Told = dict[str, Any]


class Shop:
    """An application, a session that it follows, and orders that tell their owners."""

    def __init__(self, app: Flask, engine: Engine) -> None:
        self.app = app
        self.pusher = Pusher(app)
        self.engine = engine
        self.session = scoped_session(sessionmaker(engine))
        self.pusher.follow(self.session)
        self.asked: list[Any] = []
        app.teardown_appcontext(lambda _: self.session.remove())

    def broadcast_orders(self) -> None:
        @self.pusher.broadcasts(Order)
        def channels_of(order: Order) -> list[str]:
            self.asked.append(order)
            return ["private-orders", order.owner]

    def have(self, *rows: Any) -> None:
        """Have rows from before, of which nobody is told."""
        with Session(self.engine) as session:
            session.add_all(rows)
            session.commit()

    def events_of(self, do: Callable[[], object]) -> list[RecordedEvent]:
        """The events that a job publishes which does this."""
        with self.pusher.record_events() as events, self.app.app_context():
            do()
        return events

    def told(self, do: Callable[[], object]) -> Told:
        """What each channel is told of a job that does this. No channel is told twice."""
        told: Told = {}
        for one in self.events_of(do):
            for channel in one.channels:
                assert channel not in told
                told[channel] = one.data
        return told

    def commit(self, do: Callable[[], object]) -> Told:
        """What is told of a transaction in which this is done."""

        def job() -> None:
            do()
            self.session.commit()

        return self.told(job)


NewShop = Callable[..., Shop]


@pytest.fixture
def new_shop(make_app: MakeApp) -> Iterator[NewShop]:
    """Makes a shop of its own, with the settings that are given."""
    shops: list[Shop] = []

    def new_shop(**config: Any) -> Shop:
        shops.append(Shop(make_app(**config), new_engine()))
        return shops[-1]

    yield new_shop
    for shop in shops:
        shop.session.remove()
        shop.engine.dispose()


@pytest.fixture
def shop(new_shop: NewShop) -> Shop:
    shop = new_shop()
    shop.have(User(id=1), User(id=2), User(id=3), Order(id=7, user_id=1), Order(id=8, user_id=2))
    return shop


@pytest.fixture
def orders(shop: Shop) -> Shop:
    """A shop whose orders tell their owners."""
    shop.broadcast_orders()
    return shop


def of(
    created: tuple[Any, ...] = (),
    updated: tuple[Any, ...] = (),
    deleted: tuple[Any, ...] = (),
    model: str = "Order",
) -> dict[str, Any]:
    return {model: {"created": [*created], "updated": [*updated], "deleted": [*deleted]}}


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


class TestTransaction:
    def test_a_new_row_is_told_to_its_channels_when_it_is_committed(self, orders: Shop) -> None:
        new = of(created=(9,))
        told = orders.commit(lambda: orders.session.add(Order(id=9, user_id=1)))
        assert told == {"private-orders": new, "private-user-1": new}

    def test_a_key_that_the_database_gives_is_told(self, orders: Shop) -> None:
        told = orders.commit(lambda: orders.session.add(Order(user_id=3)))
        assert told["private-user-3"] == of(created=(9,))

    def test_a_changed_row_is_told(self, orders: Shop) -> None:
        def change() -> None:
            orders.session.get_one(Order, 7).state = "paid"

        changed = of(updated=(7,))
        assert orders.commit(change) == {"private-orders": changed, "private-user-1": changed}

    def test_a_deleted_row_is_told(self, orders: Shop) -> None:
        gone = of(deleted=(7,))
        told = orders.commit(lambda: orders.session.delete(orders.session.get_one(Order, 7)))
        assert told == {"private-orders": gone, "private-user-1": gone}

    @pytest.mark.parametrize("end", ["rollback", "remove", "flush"])
    def test_what_is_not_committed_tells_nobody(self, orders: Shop, end: str) -> None:
        def job() -> None:
            orders.session.get_one(Order, 7).state = "paid"
            orders.session.flush()
            getattr(orders.session, end)()

        assert orders.told(job) == {}

    def test_what_changes_nothing_tells_nobody(self, orders: Shop) -> None:
        def read() -> None:
            order = orders.session.get_one(Order, 7)
            order.state = str(order.state)
            orders.session.add(Line(order_id=7, number=1))

        assert orders.commit(read) == {}
        assert orders.asked == []

    def test_several_flushes_tell_once(self, orders: Shop) -> None:
        def change() -> None:
            for state in ("paid", "packed", "shipped"):
                orders.session.get_one(Order, 7).state = state
                orders.session.flush()

        changed = of(updated=(7,))
        assert orders.commit(change) == {"private-orders": changed, "private-user-1": changed}

    def test_several_rows_and_models_tell_a_channel_once(self, orders: Shop) -> None:
        @orders.pusher.broadcasts(User)
        def channels_of_user(user: User) -> str:
            return "private-orders"

        def change() -> None:
            orders.session.add_all([Order(id=9, user_id=3), User(id=4)])
            orders.session.get_one(Order, 7).state = "paid"
            orders.session.flush()
            orders.session.delete(orders.session.get_one(Order, 8))

        assert orders.commit(change) == {
            "private-orders": {
                **of(created=(9,), updated=(7,), deleted=(8,)),
                **of(created=(4,), model="User"),
            },
            "private-user-1": of(updated=(7,)),
            "private-user-2": of(deleted=(8,)),
            "private-user-3": of(created=(9,)),
        }

    def test_each_commit_tells_of_its_own(self, orders: Shop) -> None:
        def job() -> None:
            for number in (9, 10):
                orders.session.add(Order(id=number, user_id=3))
                orders.session.commit()

        told = [one.data for one in orders.events_of(job) if one.channels == ["private-orders"]]
        assert told == [of(created=(9,)), of(created=(10,))]

    def test_what_was_created_and_deleted_is_not_told(self, orders: Shop) -> None:
        def change() -> None:
            order = Order(id=9, user_id=3)
            orders.session.add(order)
            orders.session.flush()
            orders.session.delete(order)

        assert orders.commit(change) == {}

    def test_what_was_created_and_updated_is_created(self, orders: Shop) -> None:
        def change() -> None:
            order = Order(id=9, user_id=3)
            orders.session.add(order)
            orders.session.flush()
            order.user_id = 1

        new = of(created=(9,))
        assert orders.commit(change) == {"private-orders": new, "private-user-1": new}

    def test_what_was_updated_and_deleted_is_deleted(self, orders: Shop) -> None:
        def change() -> None:
            order = orders.session.get_one(Order, 7)
            order.user_id = 3
            orders.session.flush()
            orders.session.delete(order)

        gone = of(deleted=(7,))
        assert orders.commit(change) == {"private-orders": gone, "private-user-1": gone}

    @pytest.mark.parametrize("flushes", [True, False])
    def test_what_was_deleted_and_created_again_is_updated(
        self, orders: Shop, flushes: bool
    ) -> None:
        def change() -> None:
            orders.session.delete(orders.session.get_one(Order, 7))
            if flushes:
                orders.session.flush()
            orders.session.add(Order(id=7, user_id=3))

        changed = of(updated=(7,))
        assert orders.commit(change) == {
            "private-orders": changed,
            "private-user-1": changed,
            "private-user-3": changed,
        }

    def test_a_row_that_gets_another_primary_key_is_told_by_it(self, orders: Shop) -> None:
        def change() -> None:
            orders.session.get_one(Order, 7).id = 70

        changed = of(updated=(70,))
        assert orders.commit(change) == {"private-orders": changed, "private-user-1": changed}

    def test_a_failed_flush_that_was_rolled_back_leaves_nothing_behind(self, orders: Shop) -> None:
        def change() -> None:
            orders.session.add(Order(id=7, user_id=3))
            with pytest.raises(IntegrityError):
                orders.session.flush()
            orders.session.rollback()
            orders.session.get_one(Order, 8).state = "paid"

        changed = of(updated=(8,))
        assert orders.commit(change) == {"private-orders": changed, "private-user-2": changed}

    def test_a_version_that_is_stale_tells_nobody(self, orders: Shop) -> None:
        def change() -> None:
            order = orders.session.get_one(Order, 7)
            orders.session.execute(text("UPDATE orders SET version = 100"))
            order.state = "paid"
            with pytest.raises(StaleDataError):
                orders.session.flush()
            orders.session.rollback()

        assert orders.commit(change) == {}

    def test_what_is_merged_is_told(self, orders: Shop) -> None:
        def merge() -> None:
            orders.session.merge(Order(id=7, user_id=3))
            orders.session.merge(Order(id=9, user_id=3))

        told = orders.commit(merge)
        assert told["private-orders"] == told["private-user-3"] == of(created=(9,), updated=(7,))
        assert told["private-user-1"] == of(updated=(7,))


class TestSavepoints:
    def test_one_that_was_released_is_told(self, orders: Shop) -> None:
        def change() -> None:
            with orders.session.begin_nested(), orders.session.begin_nested():
                orders.session.get_one(Order, 7).state = "paid"

        assert orders.commit(change)["private-user-1"] == of(updated=(7,))

    def test_one_that_was_rolled_back_is_not(self, orders: Shop) -> None:
        def change() -> None:
            orders.session.get_one(Order, 8).state = "paid"
            savepoint = orders.session.begin_nested()
            orders.session.get_one(Order, 7).state = "paid"
            with orders.session.begin_nested():
                orders.session.get_one(Order, 8).user_id = 3
            savepoint.rollback()

        changed = of(updated=(8,))
        assert orders.commit(change) == {"private-orders": changed, "private-user-2": changed}

    def test_a_flush_that_fails_in_one_takes_only_it_along(self, orders: Shop) -> None:
        def change() -> None:
            orders.session.get_one(Order, 8).state = "paid"
            with suppress(IntegrityError), orders.session.begin_nested():
                orders.session.get_one(Order, 7).state = "paid"
                orders.session.flush()
                orders.session.execute(select(1))
                orders.session.add(User(id=1))
            orders.session.add(Order(id=9, user_id=3))

        assert orders.commit(change)["private-orders"] == of(created=(9,), updated=(8,))

    def test_releasing_one_tells_nothing_yet(self, orders: Shop) -> None:
        def job() -> None:
            with orders.session.begin_nested():
                orders.session.get_one(Order, 7).state = "paid"
            orders.session.rollback()

        assert orders.told(job) == {}


class TestWhoHears:
    def test_the_old_owner_and_the_new_one(self, orders: Shop) -> None:
        def move() -> None:
            orders.session.get_one(Order, 7).user_id = 2

        changed = of(updated=(7,))
        assert orders.commit(move) == {
            "private-orders": changed,
            "private-user-1": changed,
            "private-user-2": changed,
        }

    def test_of_several_moves_the_first_owner_and_the_last(self, orders: Shop) -> None:
        def move() -> None:
            for user in (2, 3):
                orders.session.get_one(Order, 7).user_id = user
                orders.session.flush()

        assert set(orders.commit(move)) == {"private-orders", "private-user-1", "private-user-3"}

    def test_an_owner_that_was_set_by_a_relationship(self, orders: Shop) -> None:
        def move() -> None:
            orders.session.get_one(Order, 7).user = orders.session.get_one(User, 2)

        assert set(orders.commit(move)) == {"private-orders", "private-user-1", "private-user-2"}

    def test_an_old_value_that_was_not_in_memory_is_not_known(self, orders: Shop) -> None:
        def move() -> None:
            order = orders.session.get_one(Order, 7)
            orders.session.expire(order)
            order.user_id = 2

        assert set(orders.commit(move)) == {"private-orders", "private-user-2"}

    def test_a_deletion_is_told_where_the_old_value_was_not_known(self, orders: Shop) -> None:
        order = orders.session.get_one(Order, 7)
        orders.session.commit()

        def change() -> None:
            order.user_id = 3
            orders.session.flush()
            orders.session.delete(order)

        gone = of(deleted=(7,))
        assert orders.commit(change) == {"private-orders": gone, "private-user-3": gone}

    def test_a_row_that_is_expired_is_loaded_for_the_function(self, orders: Shop) -> None:
        def change() -> None:
            order = orders.session.get_one(Order, 7)
            orders.session.expire(order)
            order.state = "paid"

        assert set(orders.commit(change)) == {"private-orders", "private-user-1"}

    @pytest.mark.parametrize("is_expired", [True, False])
    def test_a_row_that_is_deleted_is_asked_about_while_it_is_there(
        self, shop: Shop, is_expired: bool
    ) -> None:
        @shop.pusher.broadcasts(Line)
        def channels_of(line: Line) -> str:
            return line.order.owner

        def remove() -> None:
            line = shop.session.get_one(Line, (7, 1))
            order = shop.session.get_one(Order, 7)
            if is_expired:
                shop.session.expire_all()
            shop.session.delete(line)
            shop.session.delete(order)

        shop.have(Line(order_id=7, number=1))
        assert shop.commit(remove) == {
            "private-user-1": of(deleted=([7, 1],), model="Line"),
        }

    def test_an_orphan_is_told_to_whom_it_was_for(self, shop: Shop) -> None:
        @shop.pusher.broadcasts(Line)
        def channels_of(line: Line) -> str:
            return line.order.owner

        def remove() -> None:
            order = shop.session.get_one(Order, 7)
            order.lines.clear()
            shop.session.flush()

        shop.have(Line(order_id=7, number=1))
        assert shop.commit(remove)["private-user-1"] == of(deleted=([7, 1],), model="Line")

    def test_an_orphan_of_which_too_little_is_known_is_spoken_of(
        self, shop: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        @shop.pusher.broadcasts(Line)
        def channels_of(line: Line) -> str:
            raise LookupError

        def remove() -> None:
            order = shop.session.get_one(Order, 7)
            order.lines.clear()
            shop.session.flush()

        shop.have(Line(order_id=7, number=1))
        caplog.clear()
        assert set(shop.commit(remove)) <= {"private-user-1"}
        (line,) = (one for one in caplog.messages if "channels_of() failed" in one)
        assert "a change of Line" in line

    def test_a_relationship_that_is_not_loaded_is_loaded_after_the_flush(self, shop: Shop) -> None:
        """In its midst that could find rows that the session does not know yet."""

        @shop.pusher.broadcasts(Line)
        def channels_of(line: Line) -> list[str]:
            return [f"private-line-{one.number}" for one in line.order.lines]

        def change() -> None:
            shop.session.add_all([Line(order_id=7, number=2), Line(order_id=7, number=3)])
            shop.session.get_one(Line, (7, 1)).count = 5

        shop.have(Line(order_id=7, number=1))
        told = shop.commit(change)
        assert set(told) == {"private-line-1", "private-line-2", "private-line-3"}

    def test_what_the_function_reads_of_the_row_as_it_was_is_loaded(self, shop: Shop) -> None:
        """What has not changed is the same for the row as it is, which is asked about first."""

        @shop.pusher.broadcasts(Order)
        def channels_of(order: Order) -> list[str]:
            return [f"{order.owner}{order.note}", *(f"line-{one.number}" for one in order.lines)]

        def move() -> None:
            shop.session.get_one(Order, 7).user_id = 2

        shop.have(Line(order_id=7, number=1))
        assert set(shop.commit(move)) == {"private-user-1", "private-user-2", "line-1"}

    def test_what_a_listener_of_the_applications_changes_in_the_flush(self, orders: Shop) -> None:
        """As it stamps a row, or gives it to somebody: only the note and the owner are written."""

        def pass_on(_mapper: object, _connection: object, order: Order) -> None:
            order.user_id, order.note = 2, "passed on"

        event.listen(Order, "before_update", pass_on)
        try:
            told = orders.commit(lambda: flag_modified(orders.session.get_one(Order, 7), "state"))
        finally:
            event.remove(Order, "before_update", pass_on)
        assert set(told) == {"private-orders", "private-user-1", "private-user-2"}

    def test_a_deletion_that_a_listener_of_the_applications_undoes(self, orders: Shop) -> None:
        """As where rows are marked, and not deleted. It is asked after the models are."""

        @event.listens_for(orders.session, "before_flush")
        def mark(session: Session, *_: object) -> None:
            for order in session.deleted:
                session.add(order)
                order.state = "gone"

        told = orders.commit(lambda: orders.session.delete(orders.session.get_one(Order, 7)))
        updated = {"Order": {"created": [], "updated": [7], "deleted": []}}
        assert told == {"private-orders": updated, "private-user-1": updated}

    def test_a_value_that_the_database_computes(self, orders: Shop) -> None:
        def move() -> None:
            order: Any = orders.session.get_one(Order, 7)
            order.user_id = Order.user_id + 1

        assert set(orders.commit(move)) == {"private-orders", "private-user-1", "private-user-2"}

    def test_relationships_that_are_never_loaded_are_no_hindrance(self, shop: Shop) -> None:
        class Posts(DeclarativeBase):
            pass

        class Post(Posts):
            __tablename__ = "posts"
            id: Mapped[int] = mapped_column(primary_key=True)
            replies: WriteOnlyMapped[Any] = relationship("Reply")
            likes: DynamicMapped[Any] = relationship("Like")

        class Reply(Posts):
            __tablename__ = "replies"
            id: Mapped[int] = mapped_column(primary_key=True)
            post_id: Mapped[int] = mapped_column(ForeignKey("posts.id"))

        class Like(Posts):
            __tablename__ = "likes"
            id: Mapped[int] = mapped_column(primary_key=True)
            post_id: Mapped[int] = mapped_column(ForeignKey("posts.id"))

        def add() -> None:
            post = shop.session.get_one(Post, 1)
            post.replies.add(Reply())
            post.likes.append(Like())

        Posts.metadata.create_all(shop.engine)
        shop.have(Post(id=1))
        shop.pusher.broadcasts(Post)(lambda post: f"post-{post.id}")
        assert shop.commit(add) == {"post-1": of(updated=(1,), model="Post")}

    def test_who_is_added_to_a_relationship_and_who_is_removed(self, shop: Shop) -> None:
        @shop.pusher.broadcasts(Document)
        def channels_of(document: Document) -> list[str]:
            return [f"private-user-{user.id}" for user in document.readers]

        def change() -> None:
            shop.session.get_one(Document, 5).readers = [shop.session.get_one(User, 2)]

        with Session(shop.engine) as session:
            session.add(Document(id=5, readers=[session.get_one(User, 1)]))
            session.commit()
        changed = of(updated=(5,), model="Document")
        assert shop.commit(change) == {"private-user-1": changed, "private-user-2": changed}

    @pytest.mark.parametrize("is_declared", [True, False])
    def test_an_ordered_list_writes_what_it_does_else(self, shop: Shop, is_declared: bool) -> None:
        """It numbers what is appended to it, and the row as it was loaded has such a list."""

        class Boards(DeclarativeBase):
            pass

        class Card(Boards):
            __tablename__ = "cards"
            id: Mapped[int] = mapped_column(primary_key=True)
            place: Mapped[Any] = mapped_column(Integer, nullable=True)
            board_id: Mapped[Any] = mapped_column(ForeignKey("boards.id"), nullable=True)

        class Board(Boards):
            __tablename__ = "boards"
            id: Mapped[int] = mapped_column(primary_key=True)
            cards: Mapped[list[Card]] = relationship(
                order_by=Card.place, collection_class=ordering_list("place")
            )

        def take_out() -> None:
            board = shop.session.get_one(Board, 1)
            board.cards.pop(0).place = None

        Boards.metadata.create_all(shop.engine)
        shop.have(Board(id=1, cards=[Card(id=1), Card(id=2)]))
        if is_declared:
            shop.pusher.broadcasts(Board)(lambda board: [f"card-{one.id}" for one in board.cards])
        told = shop.commit(take_out)
        assert set(told) == ({"card-1", "card-2"} if is_declared else set())
        found = shop.session.execute(select(Card.id, Card.board_id, Card.place)).all()
        assert found == [(1, None, None), (2, 1, 0)]

    def test_what_a_collection_of_the_applications_raises_fails_no_commit(
        self, shop: Shop
    ) -> None:
        """A dict of rows asks each for its key, which one that has left the session cannot tell."""

        class Files(DeclarativeBase):
            pass

        class Page(Files):
            __tablename__ = "pages"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]
            file_id: Mapped[int] = mapped_column(ForeignKey("files.id"))

        class File(Files):
            __tablename__ = "files"
            id: Mapped[int] = mapped_column(primary_key=True)
            pages: Mapped[dict[str, Page]] = relationship(
                collection_class=attribute_keyed_dict("title"), passive_deletes="all"
            )

        def take_out() -> None:
            file = shop.session.get_one(File, 1)
            page = file.pages["one"]
            shop.session.expire(page)
            shop.session.expunge(page)
            file.pages.pop("one")
            file.pages["two"] = Page(title="two")

        Files.metadata.create_all(shop.engine)
        shop.have(File(id=1, pages={"one": Page(title="one")}))
        shop.pusher.broadcasts(File)(lambda file: f"file-{file.id}")
        assert shop.commit(take_out) == {"file-1": of(updated=(1,), model="File")}

    def test_a_composite_is_that_of_the_values_as_they_were(self, shop: Shop) -> None:
        @shop.pusher.broadcasts(Pin)
        def channels_of(pin: Pin) -> str:
            return f"area-{pin.at.x}"

        def move() -> None:
            shop.session.get_one(Pin, 1).at = Point(5, 6)

        shop.have(Pin(id=1, at=Point(3, 4)))
        assert set(shop.commit(move)) == {"area-3", "area-5"}

    def test_a_function_may_be_a_generator_and_name_one_twice(self, shop: Shop) -> None:
        @shop.pusher.broadcasts(Order)
        def channels_of(order: Order) -> Iterator[str]:
            yield from ("news", "news", f"private-{order.state}")

        told = shop.commit(lambda: shop.session.add(Order(id=9, user_id=3)))
        assert set(told) == {"news", "private-new"}

    @pytest.mark.parametrize("nobody", [[], (), iter(())])
    def test_a_function_may_name_nobody(
        self, shop: Shop, nobody: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        shop.pusher.broadcasts(Order)(lambda _: nobody)
        assert shop.commit(lambda: shop.session.add(Order(id=9, user_id=3))) == {}
        assert failures(caplog) == []

    def test_a_user_who_is_signed_in_and_an_encrypted_channel(self, new_shop: NewShop) -> None:
        shop = new_shop(PUSHER_ENCRYPTION_MASTER_KEY_BASE64=b64encode(b"m" * 32).decode())
        channels = ["private-encrypted-a", "#server-to-user-7", "news", "private-encrypted-b"]
        shop.pusher.broadcasts(Order)(lambda _: channels)
        new = of(created=(9,))
        told = shop.commit(lambda: shop.session.add(Order(id=9, user_id=3)))
        assert told == dict.fromkeys(channels, new)


class TestWhichRows:
    def test_a_key_of_several_columns_is_a_list(self, shop: Shop) -> None:
        shop.pusher.broadcasts(Line)(lambda _: "lines")
        told = shop.commit(lambda: shop.session.add(Line(order_id=7, number=2)))
        assert told == {"lines": of(created=([7, 2],), model="Line")}

    def test_keys_are_what_the_applications_json_makes_of_them(self, shop: Shop) -> None:
        shop.pusher.broadcasts(Ticket)(lambda _: "tickets")
        shop.pusher.broadcasts(Day)(lambda _: "days")

        def add() -> None:
            shop.session.add_all([Ticket(id=uuid.UUID(int=7)), Day(day=date(2026, 1, 2))])

        told = shop.commit(add)
        ticket = "00000000-0000-0000-0000-000000000007"
        assert told["tickets"] == of(created=(ticket,), model="Ticket")
        assert told["days"] == of(created=("Fri, 02 Jan 2026 00:00:00 GMT",), model="Day")

    def test_of_a_hundred_rows_it_is_told_which(self, orders: Shop) -> None:
        def add(count: int) -> Callable[[], None]:
            return lambda: orders.session.add_all(Order(user_id=1) for _ in range(count))

        assert len(orders.commit(add(100))["private-user-1"]["Order"]["created"]) == 100
        assert orders.commit(add(101)) == {"private-orders": {}, "private-user-1": {}}

    def test_a_channel_with_few_of_many_rows_is_told_which(self, orders: Shop) -> None:
        def add() -> None:
            orders.session.add_all(Order(id=100 + n, user_id=1) for n in range(150))
            orders.session.add(Order(id=90, user_id=2))

        told = orders.commit(add)
        assert told["private-orders"] == told["private-user-1"] == {}
        assert told["private-user-2"] == of(created=(90,))

    def test_where_it_would_be_too_long_it_is_not_told_which(
        self, new_shop: NewShop, caplog: pytest.LogCaptureFixture
    ) -> None:
        shop = new_shop(PUSHER_MAX_EVENT_BYTES=100)
        shop.broadcast_orders()

        def add() -> None:
            shop.session.add_all(Order(user_id=1) for _ in range(50))

        assert shop.commit(add) == {"private-orders": {}, "private-user-1": {}}
        assert failures(caplog) == []

    @pytest.mark.parametrize("model", [ExpressOrder, GiftOrder])
    def test_subclasses_are_told_by_the_name_of_the_declared_one(
        self, orders: Shop, model: type[Order]
    ) -> None:
        told = orders.commit(lambda: orders.session.add(model(id=9, user_id=3)))
        assert told["private-user-3"] == of(created=(9,))

        def change() -> None:
            orders.session.get_one(Order, 9).user_id = 1

        assert orders.commit(change)["private-user-3"] == of(updated=(9,))
        told = orders.commit(lambda: orders.session.delete(orders.session.get_one(Order, 9)))
        assert told["private-user-1"] == of(deleted=(9,))

    def test_a_subclass_with_keys_of_its_own_is_told_beside_its_base(self, shop: Shop) -> None:
        shop.pusher.broadcasts(Letter)(lambda row: type(row).__name__)
        told = shop.commit(lambda: shop.session.add_all([Letter(id=1), Telegram(id=1)]))
        new = of(created=(1,), model="Letter")
        assert told == {"Letter": new, "Telegram": new}

    def test_a_subclass_may_be_declared_as_well(self, orders: Shop) -> None:
        orders.pusher.broadcasts(GiftOrder)(lambda _: "gifts")
        told = orders.commit(lambda: orders.session.add(GiftOrder(id=9, user_id=3)))
        assert told["private-user-3"] == of(created=(9,))
        assert told["gifts"] == of(created=(9,), model="GiftOrder")
        told = orders.commit(lambda: orders.session.add(Order(id=10, user_id=3)))
        assert "gifts" not in told

    def test_each_model_may_have_an_events_name_of_its_own(self, orders: Shop) -> None:
        orders.pusher.broadcasts(User, event_name="user-changed")(lambda _: "private-orders")

        def job() -> None:
            orders.session.add_all([User(id=4), Order(id=9, user_id=3)])
            orders.session.commit()

        heard = {one.name for one in orders.events_of(job) if "private-orders" in one.channels}
        assert heard == {"changed", "user-changed"}


BULK: dict[str, Callable[[Any], object]] = {
    "update": lambda session: session.execute(update(Order).values(state="paid")),
    "delete": lambda session: session.execute(delete(Order)),
    "insert": lambda session: session.execute(insert(Order), [{"user_id": 1, "version": 1}]),
    "query": lambda session: session.query(Order).update({"state": "paid"}),
    "bulk_save_objects": lambda session: session.bulk_save_objects([Order(user_id=1)]),
    "text": lambda session: session.execute(text("DELETE FROM orders")),
}


class TestNotTold:
    @pytest.mark.parametrize("way", BULK)
    def test_statements_that_change_rows_in_bulk_are_not_seen(
        self, orders: Shop, way: str
    ) -> None:
        assert orders.commit(lambda: BULK[way](orders.session)) == {}

    def test_a_session_that_is_not_followed_tells_nothing(self, orders: Shop) -> None:
        def job() -> None:
            with Session(orders.engine) as session:
                session.add(Order(id=9, user_id=3))
                session.commit()

        assert orders.told(job) == {}

    def test_nothing_is_told_within_no_broadcasts(self, orders: Shop) -> None:
        def seed() -> None:
            with orders.pusher.no_broadcasts():
                orders.session.delete(orders.session.get_one(Order, 7))
                orders.session.add(Order(id=9, user_id=3))
                orders.session.commit()

        assert orders.told(seed) == {}
        assert orders.asked == []

    def test_what_is_flushed_before_and_after_is_told(self, orders: Shop) -> None:
        def change() -> None:
            orders.session.get_one(Order, 7).state = "paid"
            orders.session.flush()
            with suppress(KeyError), orders.pusher.no_broadcasts():
                orders.session.add(Order(id=9, user_id=3))
                orders.session.flush()
                raise KeyError
            orders.session.get_one(Order, 8).state = "paid"

        assert orders.commit(change)["private-orders"] == of(updated=(7, 8))

    def test_no_broadcasts_is_for_its_own_context(self, orders: Shop) -> None:
        def elsewhere() -> None:
            with orders.app.app_context():
                orders.session.get_one(Order, 7).state = "paid"
                orders.session.commit()

        def job() -> None:
            with orders.pusher.no_broadcasts():
                thread = threading.Thread(target=elsewhere)
                thread.start()
                thread.join()
                copy_context().run(orders.session.rollback)

        assert orders.told(job)["private-user-1"] == of(updated=(7,))

    def test_no_broadcasts_is_over_when_the_last_has_ended(self, orders: Shop) -> None:
        def read(rows: int) -> Iterator[int]:
            with orders.pusher.no_broadcasts():
                yield from range(rows)

        def job() -> None:
            for _ in zip(read(1), read(2)):  # the first ends first
                pass
            orders.session.get_one(Order, 7).state = "paid"

        assert orders.commit(job)["private-user-1"] == of(updated=(7,))

    def test_no_broadcasts_is_for_one_extension(self, orders: Shop, new_shop: NewShop) -> None:
        other = new_shop()
        other.broadcast_orders()

        def job() -> None:
            with orders.pusher.no_broadcasts(), other.app.app_context():
                other.session.add(Order(user_id=3))
                other.session.commit()

        with orders.pusher.record_events() as events:
            assert other.told(job)["private-user-3"] == of(created=(1,))
        assert events == []


class TestPlaces:
    def test_a_request_tells_when_it_has_succeeded(self, orders: Shop) -> None:
        @orders.app.post("/<int:status>")
        def pay(status: int) -> tuple[str, int]:
            orders.session.add(Order(user_id=3))
            orders.session.commit()
            assert events == []
            return "", status

        with orders.pusher.record_events() as events:
            orders.app.test_client().post("/200")
        heard = [channel for one in events for channel in one.channels]
        assert heard == ["private-orders", "private-user-3"]
        del events[:]
        with orders.pusher.record_events() as events:
            orders.app.test_client().post("/409")
        assert events == []

    def test_a_context_that_does_not_end_tells_at_the_commit(self, orders: Shop) -> None:
        """A shell has such a context, and so have workers that push one for all of their jobs."""
        with orders.app.app_context(), orders.pusher.record_events() as events:
            orders.session.get_one(Order, 7).state = "paid"
            orders.session.commit()
            assert [one.data for one in events] == [of(updated=(7,))] * 2

    def test_a_job_that_fails_after_its_commit_has_told(self, orders: Shop) -> None:
        def job() -> None:
            orders.session.get_one(Order, 7).state = "paid"
            orders.session.commit()
            raise KeyError

        with orders.pusher.record_events() as events, suppress(KeyError), orders.app.app_context():
            job()
        assert [one.data for one in events] == [of(updated=(7,))] * 2

    @pytest.mark.parametrize("mode", ["thread", "request"])
    def test_the_service_is_told(self, new_shop: NewShop, api: Any, mode: str) -> None:
        shop = new_shop(PUSHER_PUBLISHER=mode, **api.config)
        shop.broadcast_orders()

        @shop.app.post("/")
        def order() -> str:
            shop.session.add(Order(id=9, user_id=3))
            shop.session.commit()
            return ""

        shop.app.test_client().post("/").close()
        with shop.app.app_context():
            shop.session.delete(shop.session.get_one(Order, 9))
            shop.session.commit()
        api.until(lambda: len(api.events) == 4)
        assert {channel for channel, _, _ in api.events} == {"private-orders", "private-user-3"}
        assert len(api.calls) <= 2  # a transaction's are a batch

    @pytest.mark.parametrize("mode", ["thread", "request"])
    def test_what_the_service_refuses_is_told_as_lost(
        self, new_shop: NewShop, api: Any, lost: list[Any], mode: str
    ) -> None:
        shop = new_shop(PUSHER_PUBLISHER=mode, **api.config)
        shop.broadcast_orders()
        api.answers = [(401, "No such key.")]
        with shop.app.app_context():
            shop.session.add(Order(id=9, user_id=3))
            shop.session.commit()
        api.until(lambda: bool(lost))
        ((names, error),) = lost
        assert names == ["changed", "changed"]
        assert "No such key." in str(error)

    def test_the_end_of_a_job_waits_until_the_service_has_been_told(
        self, new_shop: NewShop, api: Any
    ) -> None:
        """Some workers end a job's process at once."""
        shop = new_shop(**api.config)
        shop.broadcast_orders()
        api.answers = [(503, "Later.")]
        with shop.app.app_context():
            for user in (1, 2):
                shop.session.add(Order(user_id=user))
                shop.session.commit()
        assert {channel for channel, _, _ in api.events} == {
            "private-orders",
            "private-user-1",
            "private-user-2",
        }

    def test_a_task_queue_is_told_in_one_call(
        self, orders: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        calls: list[list[str]] = []
        orders.pusher.broadcasts(User)(lambda user: f"private-user-{user.id}")

        @orders.pusher.hand_over
        def enqueue(events: list[dict[str, Any]]) -> None:
            calls.append(sorted(channel for event in events for channel in event["channels"]))

        @orders.app.post("/<int:user_id>")
        def order(user_id: int) -> str:
            orders.session.add_all([Order(user_id=3), User(id=user_id)])
            orders.session.commit()
            return ""

        orders.app.test_client().post("/4")
        assert calls == [["private-orders", "private-user-3", "private-user-4"]]
        with orders.app.app_context():
            ben = User(id=6)
            orders.session.add(ben)
            order(5)
            assert calls[1:] == [
                ["private-orders", "private-user-3", "private-user-5", "private-user-6"]
            ]
            assert ben in orders.session  # which the end of a context removes
        assert failures(caplog) == []

    def test_outside_of_a_context_it_is_not_lost_in_silence(
        self, orders: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        with orders.pusher.record_events() as events:
            orders.session.get_one(Order, 7).state = "paid"
            orders.session.commit()
        assert events == []
        (said,) = failures(caplog)
        assert said == "Commit Order in 'with app.app_context():', or nobody is told."

    def test_another_extension_that_follows_the_session_tells_only_its_own(
        self, orders: Shop, make_app: MakeApp, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A factory that makes the Pusher was called twice."""
        other = make_app()
        pusher = Pusher(other)
        pusher.follow(orders.session)
        pusher.broadcasts(Order)(lambda _: "others")
        told = orders.commit(lambda: orders.session.add(Order(user_id=3)))
        assert set(told) == {"private-orders", "private-user-3"}
        with pusher.record_events() as events, other.app_context():
            orders.session.add(Order(user_id=3))
            orders.session.commit()
        assert [one.channels for one in events] == [["others"]]
        assert failures(caplog) == []


class TestSessions:
    def test_flask_sqlalchemys(self, app: Flask) -> None:
        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
        app.config["SQLALCHEMY_BINDS"] = {"other": "sqlite://"}
        db = SQLAlchemy(app)
        pusher = Pusher(app)
        pusher.follow(db.session)

        class Post(db.Model):  # type: ignore[name-defined,misc]
            id = db.Column(db.Integer, primary_key=True)

        class Reply(db.Model):  # type: ignore[name-defined,misc]
            __bind_key__ = "other"
            id = db.Column(db.Integer, primary_key=True)

        pusher.broadcasts(Post)(lambda _: "posts")
        pusher.broadcasts(Reply)(lambda _: "posts")
        with pusher.record_events() as events, app.app_context():
            db.create_all()
            db.session.add_all([Post(), Reply()])
            db.session.commit()
            db.session.delete(db.session.get(Reply, 1))
            db.session.rollback()
            for engine in db.engines.values():
                engine.dispose()
        assert [one.data for one in events] == [
            {**of(created=(1,), model="Post"), **of(created=(1,), model="Reply")}
        ]

    @pytest.mark.parametrize("ends", [("commit", "rollback"), ("rollback", "commit")])
    def test_of_two_each_tells_what_it_committed(
        self, orders: Shop, ends: tuple[str, str]
    ) -> None:
        other = sessionmaker(orders.engine)()
        orders.pusher.follow(other)

        def job() -> None:
            sessions: list[Any] = [orders.session(), other]
            for number, session in enumerate(sessions):
                session.add(Order(id=10 + number, user_id=3))
            for session, end in zip(sessions, ends):
                getattr(session, end)()
                session.close()

        committed = 10 + ends.index("commit")
        assert orders.told(job)["private-user-3"] == of(created=(committed,))

    def test_one_that_is_followed_later_is_told_of(self, orders: Shop) -> None:
        sessions = sessionmaker(orders.engine)
        orders.pusher.follow(sessions)

        def job() -> None:
            with sessions.begin() as session:
                session.add(Order(id=9, user_id=3))

        assert orders.told(job)["private-user-3"] == of(created=(9,))

    def test_an_async_ones(self, orders: Shop, tmp_path: Any) -> None:
        asyncio_ = pytest.importorskip("sqlalchemy.ext.asyncio")
        pytest.importorskip("aiosqlite")
        sync_sessions = sessionmaker()
        orders.pusher.follow(sync_sessions)

        async def job() -> None:
            engine = asyncio_.create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            sessions = asyncio_.async_sessionmaker(engine, sync_session_class=sync_sessions)
            async with sessions() as session:
                session.add_all([User(id=5), Order(id=9, user_id=5)])
                await session.commit()
                (await session.get(Order, 9)).user_id = 6
                await session.commit()
                await session.delete(await session.get(Order, 9))
                await session.rollback()
            await engine.dispose()

        events = orders.events_of(lambda: asyncio.run(job()))
        assert [one.data for one in events if one.channels == ["private-orders"]] == [
            of(created=(9,)),
            of(updated=(9,)),
        ]

    def test_a_test_suites_outer_transaction(self, shop: Shop) -> None:
        with shop.engine.connect() as connection:
            outer = connection.begin()
            session = Session(connection, join_transaction_mode="create_savepoint")
            shop.pusher.follow(session)
            shop.broadcast_orders()

            def job() -> None:
                session.add(Order(id=9, user_id=3))
                session.commit()

            assert shop.told(job)["private-user-3"] == of(created=(9,))
            session.close()
            outer.rollback()


class TestFailures:
    def test_a_function_that_raises_fails_no_commit(
        self, shop: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        @shop.pusher.broadcasts(Order)
        def channels_of(order: Order) -> str:
            if order.user_id == 3:
                raise KeyError("no such shop")
            return order.owner

        def add() -> None:
            shop.session.add_all([Order(id=9, user_id=3), Order(id=10, user_id=2)])

        assert shop.commit(add) == {"private-user-2": of(created=(10,))}
        (said,) = caplog.records
        assert said.getMessage().startswith("Nobody is told of a change of Order: ")
        assert said.getMessage().endswith("channels_of() failed.")
        assert "no such shop" in str(said.exc_info)
        assert shop.commit(lambda: shop.session.delete(shop.session.get_one(Order, 9))) == {}

    def test_one_that_raises_for_many_rows_is_logged_once_a_transaction(
        self, shop: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        @shop.pusher.broadcasts(User)
        def channels_of_user(user: User) -> str:
            raise KeyError(user.id)

        @shop.pusher.broadcasts(Order)
        def channels_of(order: Order) -> str:
            raise KeyError(order.id)

        def job() -> None:
            for start in (100, 200):
                with shop.session.begin_nested():
                    shop.session.add_all(Order(id=start + n, user_id=3) for n in range(20))
                shop.session.add(User(id=start))
                shop.session.delete(shop.session.get_one(Order, start))
                shop.session.commit()

        assert shop.told(job) == {}
        said = [one.partition(":")[0].rpartition(" ")[2] for one in failures(caplog)]
        assert said == ["Order", "User"] * 2

    @pytest.mark.parametrize("returned", [None, 7, [["a"]]])
    def test_so_does_one_that_returns_no_names(
        self, shop: Shop, returned: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        shop.pusher.broadcasts(Order)(lambda _: returned)
        assert shop.commit(lambda: shop.session.add(Order(id=9, user_id=3))) == {}
        assert len(failures(caplog)) == 1
        assert shop.session.get(Order, 9)

    @pytest.mark.parametrize("name", ["private orders", "", "a" * 201, 7, None, "private-\u00e4"])
    def test_a_channel_that_is_none_keeps_no_other_from_being_told(
        self, shop: Shop, name: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        shop.pusher.broadcasts(Order)(lambda _: ["a", name, "b"])
        told = shop.commit(lambda: shop.session.add(Order(id=9, user_id=3)))
        assert told == {"a": of(created=(9,)), "b": of(created=(9,))}
        (said,) = failures(caplog)
        assert said.startswith(f"Nobody is told on {name!r} of a change: ")

    def test_a_key_that_is_no_json_is_not_told(self, new_shop: NewShop) -> None:
        class Dumped(DeclarativeBase):
            pass

        class Blob(Dumped):
            __tablename__ = "blobs"
            id: Mapped[bytes] = mapped_column(primary_key=True)

        shop = new_shop()
        Dumped.metadata.create_all(shop.engine)
        shop.pusher.broadcasts(Blob)(lambda _: "blobs")
        assert shop.commit(lambda: shop.session.add(Blob(id=b"\xff"))) == {"blobs": {}}

    def test_a_function_that_flushes_is_told_that_it_cannot(
        self, shop: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        @shop.pusher.broadcasts(Order)
        def channels_of(order: Order) -> str:
            shop.session.flush()
            return order.owner

        assert shop.commit(lambda: shop.session.add(Order(id=9, user_id=3))) == {}
        assert "already flushing" in str(caplog.records[0].exc_info)

    def test_a_statement_of_a_function_that_the_database_refuses_fails_the_flush(
        self, shop: Shop
    ) -> None:
        """PostgreSQL has rolled back all by then, and would not say so at the commit."""

        @shop.pusher.broadcasts(Order)
        def channels_of(order: Order) -> str:
            return str(shop.session.scalar(text("SELECT nothing FROM nowhere")))

        def add() -> None:
            with pytest.raises(OperationalError):
                shop.commit(lambda: shop.session.add(Order(id=9, user_id=3)))

        assert shop.told(add) == {}


class TestDeclaring:
    def test_it_returns_the_function(self, shop: Shop) -> None:
        def channels_of(order: Order) -> str:
            return order.owner

        assert shop.pusher.broadcasts(Order)(channels_of) is channels_of

    def test_the_same_function_again_is_no_second_one(self, shop: Shop) -> None:
        def channels_of(order: Order) -> str:
            return order.owner

        shop.pusher.broadcasts(Order)(channels_of)
        shop.pusher.broadcasts(Order)(channels_of)
        told = shop.commit(lambda: shop.session.add(Order(id=9, user_id=3)))
        assert told == {"private-user-3": of(created=(9,))}

    def test_an_object_that_can_be_called_need_have_no_hash(self, shop: Shop) -> None:
        @dataclass
        class To:
            prefix: str

            def __call__(self, order: Order) -> str:
                return f"{self.prefix}-{order.id}"

        shop.pusher.broadcasts(Order)(To("private-order"))
        told = shop.commit(lambda: shop.session.add(Order(id=9, user_id=3)))
        assert told == {"private-order-9": of(created=(9,))}

    def test_a_second_function_is_an_error(self, orders: Shop) -> None:
        with pytest.raises(ValueError, match=r"broadcasts\(Order\) is declared twice"):
            orders.pusher.broadcasts(Order)(lambda _: "orders")

    def test_without_a_session_that_is_followed_it_is_an_error(self, pusher: Pusher) -> None:
        with pytest.raises(RuntimeError, match=r"Write pusher.follow\(db.session\) above"):
            pusher.broadcasts(Order)

    @pytest.mark.parametrize("model", [None, "Order", int, Base, Order(id=7), lambda _: "orders"])
    def test_what_is_no_mapped_class_is_an_error(self, shop: Shop, model: Any) -> None:
        with pytest.raises(TypeError, match="takes a mapped class, not "):
            shop.pusher.broadcasts(model)

    @pytest.mark.parametrize("name", ["", "a" * 201, 7])
    def test_an_events_name_that_is_none_is_an_error(self, shop: Shop, name: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="An event's name"):
            shop.pusher.broadcasts(Order, event_name=name)

    def test_what_is_no_function_is_an_error(self, shop: Shop) -> None:
        decorator: Any = shop.pusher.broadcasts(Order)
        with pytest.raises(TypeError, match=r"broadcasts\(Order\) is given a function"):
            decorator("private-orders")

    def test_classes_that_it_is_related_to_may_come_later(self, shop: Shop) -> None:
        class Later(DeclarativeBase):
            pass

        class Parent(Later):
            __tablename__ = "parents"
            id: Mapped[int] = mapped_column(primary_key=True)
            children: Mapped[list[Any]] = relationship("Child")

        shop.pusher.broadcasts(Parent)(lambda _: "parents")

        class Child(Later):
            __tablename__ = "children"
            id: Mapped[int] = mapped_column(primary_key=True)
            parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"))

        class Step(Parent):
            """A subclass that is mapped later is told of, too."""

        Later.metadata.create_all(shop.engine)
        told = shop.commit(lambda: shop.session.add(Step(id=1, children=[Child(id=1)])))
        assert told == {"parents": of(created=(1,), model="Parent")}

    def test_the_command_check_lists_them(self, orders: Shop) -> None:
        with orders.pusher.record_events():
            shown = orders.app.test_cli_runner().invoke(args=["pusher", "check"]).output
        assert "Order" in shown
        assert "channels_of" in shown


STEPS = [
    "add",
    "move",
    "touch",
    "delete",
    "flush",
    "savepoint",
    "release",
    "undo",
    "commit",
    "end",
]
Rows = dict[int, tuple[int, str]]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([*STEPS, "commit"]), st.integers(1, 3), st.integers(1, 3)),
        max_size=30,
    )
)
def test_whatever_is_done_pages_that_fetch_when_they_are_told_are_right(  # noqa: C901
    new_shop: NewShop, steps: list[tuple[str, int, int]]
) -> None:
    """Each user has a page that shows the user's orders, and that fetches them when it is told of
    a change. After each commit it shows what is in the database."""
    shop = new_shop()
    shop.broadcast_orders()
    session, savepoints = shop.session, []
    pages: dict[str, Rows] = {f"private-user-{user}": {} for user in (1, 2, 3)}

    def rows() -> Rows:
        with shop.engine.connect() as connection:
            found = connection.execute(select(Order.id, Order.user_id, Order.state))
            return {number: (user, state) for number, user, state in found}

    def of_user(channel: str) -> Rows:
        return {n: row for n, row in rows().items() if f"private-user-{row[0]}" == channel}

    with shop.pusher.record_events() as events, shop.app.app_context():
        before = rows()
        for step, number, user in steps:
            order = session.get(Order, number)
            if step == "add" and order is None:
                session.add(Order(id=number, user_id=user))
            elif step == "move" and order is not None and order.user_id != user:
                order.user_id = user
            elif step == "touch" and order is not None:
                order.state = f"{order.state[:4]}{user}"
            elif step == "delete" and order is not None:
                session.delete(order)
            elif step == "flush":
                session.flush()
            elif step == "savepoint":
                savepoints.append(session.begin_nested())
            elif step in ("release", "undo") and savepoints:
                savepoint = savepoints.pop()
                savepoint.commit() if step == "release" else savepoint.rollback()
            elif step in ("commit", "end"):
                session.commit() if step == "commit" else session.rollback()
                savepoints.clear()
                after = rows()
                for one in events:
                    for channel in one.channels:
                        if channel == "private-orders":
                            keys = one.data["Order"]
                            assert set(keys["created"]) == after.keys() - before.keys()
                            assert set(keys["deleted"]) == before.keys() - after.keys()
                            assert set(keys["updated"]) <= before.keys() & after.keys()
                        else:
                            pages[channel] = of_user(channel)
                assert all(page == of_user(channel) for channel, page in pages.items())
                events.clear()
                before = after
        session.remove()
    shop.engine.dispose()

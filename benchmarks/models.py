"""Models that tell pages of their changes, and the same by hand: a commit that defers one event."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from flask import Flask
from sqlalchemy import create_engine, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.pool import StaticPool

from benchmarks.measuring import Report, compare
from flask_pusher import Pusher

ROWS = 4000
COMMITS = 20


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    state: Mapped[str]
    address: Mapped[str] = mapped_column(default="")
    note: Mapped[str] = mapped_column(default="")


class Visit(Base):
    """A model of which nobody is told."""

    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    page: Mapped[str]


class Shop:
    """An application, and a session of its own that it follows."""

    def __init__(self, *, follows: bool = True) -> None:
        self.app = Flask("shop")
        self.app.config.update(PUSHER_APP_ID="1", PUSHER_KEY="a-key", PUSHER_SECRET="a-secret")
        self.pusher = Pusher(self.app)
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(self.engine)
        with Session(self.engine) as session:
            session.add_all(Order(user_id=number % 7, state="new") for number in range(ROWS))
            session.add(Visit(id=1, page="/"))
            session.commit()
        self.session = scoped_session(sessionmaker(self.engine))
        self.app.teardown_appcontext(lambda _: self.session.remove())
        self.numbers = count()
        if follows:
            self.pusher.follow(self.session)

    def broadcasting(self) -> Shop:
        @self.pusher.broadcasts(Order)
        def channels_of(order: Order) -> list[str]:
            return ["private-orders", f"private-user-{order.user_id}"]

        return self

    def repeated(self, do: Callable[[], object]) -> Callable[[], None]:
        """Do it in some contexts, whose events go into a recording."""

        def run() -> None:
            with self.pusher.record_events():
                for _ in range(COMMITS):
                    with self.app.app_context():
                        do()

        return run

    def pay(self) -> None:
        """Commit a change of a row, without a word of publishing."""
        self.session.get_one(Order, 7).state = f"paid {next(self.numbers)}"
        self.session.commit()

    def pay_and_defer(self) -> None:
        """What a view does that publishes by hand."""
        order = self.session.get_one(Order, 7)
        order.state = f"paid {next(self.numbers)}"
        channels = ["private-orders", f"private-user-{order.user_id}"]
        data = {"Order": {"created": [], "updated": [order.id], "deleted": []}}
        self.pusher.defer(channels, "changed", data)
        self.session.commit()

    def visit(self) -> None:
        self.session.get_one(Visit, 1).page = f"/{next(self.numbers)}"
        self.session.commit()


def measure_commits(report: Report) -> None:
    hand, ours = Shop(), Shop().broadcasting()
    base, action = hand.repeated(hand.pay_and_defer), ours.repeated(ours.pay)
    assert told_by(hand, hand.pay_and_defer) == told_by(ours, ours.pay)
    report.ratio("a commit that tells of a row / by hand", compare(base, action, seconds=20), 1.25)
    base, action = hand.repeated(hand.visit), ours.repeated(ours.visit)
    ratio = compare(base, action, seconds=20)
    report.ratio("a commit of another model / without broadcasts", ratio, 1.03)


def told_by(shop: Shop, do: Callable[[], object]) -> list[Any]:
    with shop.pusher.record_events() as events, shop.app.app_context():
        do()
    return [(channel, one.name, one.data) for one in events for channel in one.channels]


def measure_many_rows(report: Report) -> None:
    def loop(shop: Shop) -> Callable[[], None]:
        def run() -> None:
            with shop.pusher.record_events(), shop.app.app_context():
                for order in shop.session.scalars(select(Order)).all():
                    order.state = f"paid {next(shop.numbers)}"
                    shop.pusher.defer("private-orders", "paid", {"order": order.id})
                shop.session.commit()

        return run

    ratio = compare(loop(Shop(follows=False)), loop(Shop()), seconds=20)
    report.ratio(f"an event for each of {ROWS} changed rows / without follow", ratio, 2)


def main() -> None:
    report = Report("Models")
    measure_commits(report)
    measure_many_rows(report)
    report.exit()


if __name__ == "__main__":
    main()

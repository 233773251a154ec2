"""Two browsers show what is in a database, whoever changed it: SQLite's, and PostgreSQL's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect
from sqlalchemy.pool import NullPool

from . import WAIT_SECONDS, orders
from .conftest import NewTab, Serve
from .live import listens
from .servers import Site
from .tools import HERE


class Shell:
    """``flask shell``, a process of its own that goes on, in which a developer types."""

    def __init__(self, app: Flask) -> None:
        client = app.extensions["pusher"]
        env = {
            "PUSHER_APP_ID": client.app_id,
            "PUSHER_KEY": client.key,
            "PUSHER_SECRET": client.secret,
            "PUSHER_HOST": client.host,
            "PUSHER_PORT": str(client.port),
            "PUSHER_SSL": "false",
            "SQLALCHEMY_DATABASE_URI": app.config["SQLALCHEMY_DATABASE_URI"],
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "tests.e2e.orders:create_app()", "shell"],
            cwd=HERE.parents[1],
            env={**os.environ, **{f"FLASK_{name}": value for name, value in env.items()}},
            stdin=subprocess.PIPE,
            text=True,
        )
        self.type("from tests.e2e.orders import Order, db")

    def type(self, *lines: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.writelines(f"{line}\n" for line in lines)
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.communicate(timeout=WAIT_SECONDS)


@pytest.fixture
def app(settings: dict[str, Any], serve: Serve, new_url: Callable[[], str]) -> Flask:
    """The application, served, with two orders of Ana's and one of Ben's."""
    app = orders.create_app(
        **settings,
        SECRET_KEY="signs the session",
        SQLALCHEMY_DATABASE_URI=new_url(),
        SQLALCHEMY_ENGINE_OPTIONS={"poolclass": NullPool},
    )
    with app.app_context(), orders.pusher.no_broadcasts():
        orders.db.create_all()
        orders.db.session.add_all(
            orders.Order(user=user, state="new") for user in ("ana", "ana", "ben")
        )
        orders.db.session.commit()
    serve(app)
    return app


@pytest.fixture
def shell(app: Flask) -> Iterator[Shell]:
    with closing(Shell(app)) as shell:
        yield shell


def shows(tab: Tab, *rows: str) -> None:
    expect(tab.locator("#orders li")).to_have_text([f"Order {row}." for row in rows])


def test_pages_show_what_is_committed_and_nothing_else(
    app: Flask, shell: Shell, site: Site, new_tab: NewTab
) -> None:
    staff, ana = new_tab(), new_tab()
    staff.goto(f"{site.url}/orders")
    ana.goto(f"{site.url}/orders/of/ana")
    for tab in (staff, ana):
        listens(tab, "#orders")

    staff.get_by_role("button", name="Pay").click()  # a view
    shows(ana, "1 of ana is paid", "2 of ana is paid")
    listens(staff, "#orders")

    shell.type("db.session.get(Order, 1).state = 'sent'", "db.session.commit()")
    shows(ana, "1 of ana is sent", "2 of ana is paid")
    shows(staff, "1 of ana is sent", "2 of ana is paid", "3 of ben is paid")

    shell.type(
        "db.session.get(Order, 2).state = 'lost'", "db.session.flush()", "db.session.rollback()"
    )
    shell.type("order = db.session.get(Order, 1)", "order.user", "order.user = 'ben'")
    shell.type("db.session.commit()")
    shows(ana, "2 of ana is paid")
    shows(staff, "1 of ben is sent", "2 of ana is paid", "3 of ben is paid")

    shell.type("db.session.delete(db.session.get(Order, 2))", "db.session.commit()")
    shows(ana)
    shows(staff, "1 of ben is sent", "3 of ben is paid")

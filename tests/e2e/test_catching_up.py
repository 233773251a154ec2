"""Nobody misses an event: a page that slept shows what happened meanwhile."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Page as Tab
from playwright.sync_api import Route, expect

from .cable import Cable
from .conftest import RECIPES, NewTab, Serve
from .servers import Site

PAGES = {"JavaScript": "/catching_up.html", "HTMX": "/"}
FETCHES = {"JavaScript": "**/orders.json", "HTMX": "**/orders"}
LISTENS = "pusher.channel('orders')?.subscribed"
NOTE_EVENTS = """
    globalThis.heard = [];
    pusher.channel("orders").bind("changed", () => heard.push("changed"));
"""
NOTE_DELAYS = """
    Math.random = () => 0.01; // the page waits for a hundredth of what it may
    globalThis.delays = [];
    const { setTimeout } = globalThis;
    globalThis.setTimeout = (callback, delay, ...rest) => {
        delays.push(delay);
        return setTimeout(callback, delay, ...rest);
    };
"""

expect.set_options(timeout=20_000)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A fresh copy of the recipe's views."""
    monkeypatch.syspath_prepend(RECIPES)
    monkeypatch.delitem(sys.modules, "catching_up", raising=False)
    return importlib.import_module("catching_up")


@pytest.fixture
def cable() -> Iterator[Cable]:
    cable = Cable()
    yield cable
    cable.close()


@pytest.fixture
def app(make_app: Callable[..., Flask], recipe: ModuleType, cable: Cable, serve: Serve) -> Flask:
    """The recipe's application. Its pages reach the Channels server by the cable.

    A change has been published when the request is over, so that a test knows who missed it.
    """
    app = make_app(PUSHER_CLIENT_OPTIONS={"wsPort": cable.port}, PUSHER_PUBLISHER="request")
    app.register_blueprint(recipe.shop)
    recipe.pusher.init_app(app)
    serve(app)
    host, port, _ = app.extensions["pusher"].address
    cable.server = (host, port)
    return app


@pytest.fixture(params=list(PAGES))
def kind(request: pytest.FixtureRequest) -> str:
    """How the page is written."""
    kind: str = request.param
    return kind


@pytest.fixture
def tab(new_tab: NewTab) -> Tab:
    tab = new_tab()
    tab.add_init_script(NOTE_DELAYS)
    return tab


def open_page(tab: Tab, site: Site, kind: str) -> None:
    """Open the recipe's page, and wait until it listens and has fetched what it shows."""
    with tab.expect_response(FETCHES[kind]):
        tab.goto(site.url + PAGES[kind])
        tab.wait_for_function(LISTENS)
    expect(shown(tab)).to_have_text(["coffee: ordered", "tea: ordered"])


def shown(tab: Tab) -> Any:
    return tab.locator("#orders li")


def change(app: Flask, name: str, state: str) -> None:
    """Somebody changes an order, and the event is published."""
    answer = app.test_client().put(f"/orders/{name}", data={"state": state})
    assert answer.status_code == 204


def test_a_page_that_listens_shows_a_change(app: Flask, site: Site, tab: Tab, kind: str) -> None:
    open_page(tab, site, kind)

    change(app, "tea", "served")

    expect(shown(tab)).to_have_text(["coffee: ordered", "tea: served"])


def test_a_page_that_was_without_a_network_shows_what_it_missed(
    app: Flask, site: Site, tab: Tab, kind: str, cable: Cable
) -> None:
    open_page(tab, site, kind)
    tab.evaluate(NOTE_EVENTS)
    cable.pull()
    tab.context.set_offline(True)
    tab.wait_for_function("pusher.connection.state !== 'connected'")

    change(app, "tea", "served")
    change(app, "coffee", "paid")
    cable.plug_in()
    tab.context.set_offline(False)

    expect(shown(tab)).to_have_text(["coffee: paid", "tea: served"])
    assert tab.evaluate("heard") == []


def test_a_page_shows_what_happened_while_it_was_loading(
    app: Flask, site: Site, tab: Tab, kind: str, cable: Cable
) -> None:
    cable.pull()
    tab.goto(site.url + PAGES[kind])
    tab.context.set_offline(True)
    change(app, "tea", "served")

    cable.plug_in()
    tab.context.set_offline(False)  # pusher-js tries at once when the browser is online again

    expect(shown(tab)).to_have_text(["coffee: ordered", "tea: served"])


def test_pages_do_not_all_come_back_at_once(
    app: Flask, site: Site, tab: Tab, kind: str, cable: Cable
) -> None:
    open_page(tab, site, kind)
    assert 50 not in tab.evaluate("delays")  # a page that was just opened does not wait

    with tab.expect_request(FETCHES[kind]):
        cable.pull()
        cable.plug_in()

    assert tab.evaluate("delays").count(50) == 1


def test_an_answer_that_is_too_old_is_followed_by_another(
    app: Flask, site: Site, tab: Tab, kind: str
) -> None:
    open_page(tab, site, kind)
    tab.evaluate(NOTE_EVENTS)

    def answer_late(route: Route) -> None:
        too_old = route.fetch()
        change(app, "tea", "paid")
        tab.wait_for_function("heard.length === 2")
        route.fulfill(response=too_old)

    tab.route(FETCHES[kind], answer_late, times=1)
    change(app, "tea", "served")

    expect(shown(tab)).to_have_text(["coffee: ordered", "tea: paid"])


@pytest.mark.parametrize("failure", ["no answer", "an error"])
def test_a_page_that_could_not_fetch_tries_again(
    app: Flask, site: Site, tab: Tab, kind: str, failure: str
) -> None:
    open_page(tab, site, kind)
    fail: dict[str, Callable[[Route], None]] = {
        "no answer": lambda route: route.abort(),
        "an error": lambda route: route.fulfill(status=503),
    }
    tab.route(FETCHES[kind], fail[failure], times=2)

    change(app, "tea", "served")

    expect(shown(tab)).to_have_text(["coffee: ordered", "tea: served"])
    assert tab.evaluate("delays").count(50) == 2

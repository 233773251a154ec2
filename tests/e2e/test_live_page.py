"""A page is kept up to date by its attributes alone, and without a line of JavaScript in it."""

from __future__ import annotations

import itertools

import pytest
from flask import Flask
from playwright.sync_api import expect

from flask_pusher import Pusher

from .conftest import NewName, NewTab, Serve
from .live import Live, heard, hears, listens
from .servers import Site


@pytest.fixture
def live(app: Flask, serve: Serve, site: Site, new_tab: NewTab) -> Live:
    live = Live(app, Pusher(app), site, new_tab)
    serve(app)
    return live


@pytest.fixture
def channel(new_name: NewName) -> str:
    return new_name("private-orders")


def test_events_are_dispatched_on_the_elements_that_name_their_channels(
    live: Live, channel: str, new_name: NewName
) -> None:
    news = new_name("news")
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}  {news}"></p><p id="other" data-pusher="{news}"></p>',
    )
    tab = live.open("page")
    listens(tab)
    listens(tab, "#other")

    live.trigger(channel, "shipped", {"by": "truck"})
    live.trigger(news, "snow", [1])

    assert hears(tab, "pusher:shipped") == {"by": "truck"}
    assert hears(tab, "pusher:snow") == [1]
    assert hears(tab, "pusher:snow", "other") == [1]
    assert ["pusher:shipped", {"by": "truck"}] not in heard(tab, "other")


def test_an_element_shows_what_its_url_answers_after_each_event(live: Live, channel: str) -> None:
    numbers = itertools.count(1)
    live.view("rows", lambda: f"<li>{next(numbers)}</li>")
    live.page("page", f'<ul id="live" data-pusher="{channel}" data-pusher-src="rows"></ul>')
    tab = live.open("page")
    expect(tab.locator("li")).to_have_text("1")

    live.trigger(channel, "changed")

    expect(tab.locator("li")).to_have_text("2")
    assert tab.evaluate("errors") == []

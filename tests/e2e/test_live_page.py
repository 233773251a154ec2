"""A page is kept up to date by its attributes alone, and without a line of JavaScript in it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, redirect, request
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect

from flask_pusher import Pusher

from . import WAIT_SECONDS
from .conftest import NewName, NewTab, Serve
from .live import Live, console, heard, hears, hide, html, listens, stop_clock, until
from .servers import Site


@pytest.fixture
def live(app: Flask, serve: Serve, site: Site, new_tab: NewTab) -> Live:
    live = Live(app, Pusher(app), site, new_tab)
    serve(app)
    return live


@pytest.fixture
def channel(new_name: NewName) -> str:
    return new_name("private-orders")


@pytest.fixture
def room(new_name: NewName) -> str:
    return new_name("presence-room")


def counting() -> Callable[[], str]:
    """A view that answers 1, then 2, and so on."""
    numbers = itertools.count(1)
    return lambda: f"<b>{next(numbers)}</b>"


def no_error(tab: Tab) -> bool:
    return bool(tab.evaluate("errors.length === 0"))


# -- Events ---------------------------------------------------------------------------------------


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
    tab.evaluate("document.body.addEventListener('pusher:snow', () => errors.push('bubbles'))")

    live.trigger(channel, "shipped", {"by": "truck"})
    live.trigger(news, "snow", [1])

    assert hears(tab, "pusher:shipped") == {"by": "truck"}
    assert hears(tab, "pusher:snow") == [1]
    assert hears(tab, "pusher:snow", "other") == [1]
    assert ["pusher:shipped", {"by": "truck"}] not in heard(tab, "other")
    assert no_error(tab)


def test_an_element_is_stale_when_it_begins_to_listen_and_when_the_page_is_shown(
    live: Live, channel: str
) -> None:
    live.page("page", f'<p id="live" data-pusher="{channel}"></p>')
    tab = live.open("page")
    hears(tab, "pusher:stale")

    for is_hidden in (True, False):
        hide(tab, is_hidden)

    assert [name for name, _ in heard(tab)] == ["pusher:stale"] * 2
    tab.evaluate("dispatchEvent(new Event('online'))")
    assert [name for name, _ in heard(tab)] == ["pusher:stale"] * 3


def test_an_element_that_comes_later_listens_and_one_that_goes_is_left(
    live: Live, channel: str
) -> None:
    live.page("page", "<main></main>")
    tab = live.open("page")
    assert tab.evaluate("globalThis.Pusher.instances.length") == 0

    element = f'<p id="live" data-pusher="{channel}"></p>'
    tab.evaluate("(html) => { document.querySelector('main').innerHTML = html }", element)
    listens(tab)
    live.trigger(channel, "shipped")
    hears(tab, "pusher:shipped")

    tab.evaluate("document.querySelector('main').innerHTML = ''")
    tab.wait_for_function("Pusher.instances[0].allChannels().length === 0")
    assert no_error(tab)


def test_an_element_follows_its_attributes(live: Live, channel: str, new_name: NewName) -> None:
    other = new_name("news")
    live.page("page", f'<p id="live" data-pusher="{channel}"></p>')
    tab = live.open("page")
    listens(tab)

    tab.evaluate("(name) => { live.dataset.pusher = name }", other)

    tab.wait_for_function("(name) => Pusher.instances[0].channel(name)?.subscribed", arg=other)
    tab.wait_for_function("(name) => !Pusher.instances[0].channel(name)", arg=channel)
    live.trigger(other, "snow")
    hears(tab, "pusher:snow")


def test_a_channel_that_is_left_while_it_is_being_subscribed_stays_left(
    live: Live, channel: str
) -> None:
    live.page("page", f'<p id="live" data-pusher="{channel}"></p><p id="b" data-pusher="b"></p>')
    tab = live.open("page")
    listens(tab, "#b")
    tab.evaluate(
        "() => { const fresh = live.cloneNode(); fresh.dataset.pusher += 'x'; live.after(fresh);"
        " setTimeout(() => fresh.remove(), 0) }"
    )
    tab.wait_for_function("Pusher.instances[0].allChannels().length === 2")
    assert no_error(tab)


def test_what_the_page_itself_subscribed_or_bound_stays(
    live: Live, channel: str, new_name: NewName
) -> None:
    own, bound = new_name("own"), new_name("bound")
    names = f"{channel} {own} {bound}"
    connect = "new Pusher({{ PUSHER_KEY|tojson }}, {{ pusher_options()|tojson }})"
    live.page(
        "page",
        f'<p id="live" data-pusher="{names}"></p>',
        head=f"<script type=module>globalThis.mine = {connect}; mine.subscribe('{own}')</script>",
    )
    tab = live.open("page")
    listens(tab)
    assert tab.evaluate("Pusher.instances.length") == 1
    tab.evaluate("(name) => { mine.channel(name).bind('x', () => {}) }", bound)

    tab.evaluate("live.remove()")

    tab.wait_for_function("(name) => !mine.channel(name)", arg=channel)
    assert tab.evaluate("mine.allChannels().map((one) => one.name)") == [own, bound]
    assert tab.evaluate("(name) => mine.channel(name).global_callbacks.length", own) == 0


def test_nothing_inside_of_what_is_off_is_looked_at(live: Live, channel: str) -> None:
    live.view("rows", '<i data-pusher="evil" data-pusher-src="evil" id="evil"></i>')
    live.page(
        "page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows" data-pusher-off></p>'
    )
    tab = live.open("page")
    listens(tab)
    expect(tab.locator("i")).to_be_attached()
    live.wait_for_times("rows", 1)
    assert tab.locator("i").get_attribute("data-pusher-state") is None


# -- What a URL answers ---------------------------------------------------------------------------


def test_an_element_shows_what_its_url_answers_after_each_event(live: Live, channel: str) -> None:
    live.view("rows", counting())
    live.page("page", f'<ul id="live" data-pusher="{channel}" data-pusher-src="rows"></ul>')
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("1")
    hears(tab, "pusher:swapped")

    live.trigger(channel, "changed")

    expect(tab.locator("b")).to_have_text("2")
    _, headers = live.fetched[0]
    assert headers["X-Pusher-Live"] == "1"
    assert headers["X-Socket-Id"] == tab.evaluate("Pusher.instances[0].connection.socket_id")
    assert no_error(tab)


@pytest.mark.parametrize(
    "answer",
    [
        '<table><tbody id="live"><tr><td>new</td></tr></tbody></table>',
        "<tr><td>new</td></tr>",
        (
            "<!-- a page --><!doctype html><html><head><title>x</title></head><body><table>"
            '<tbody id="live"><tr><td>new</td></tr></table></body></html>'
        ),
    ],
)
def test_rows_elements_and_whole_pages_are_taken(live: Live, channel: str, answer: str) -> None:
    live.view("rows", answer)
    live.page(
        "page",
        f'<table><tbody id="live" data-pusher="{channel}" data-pusher-src="rows">'
        "<tr><td>old</td></tr></tbody></table>",
    )
    tab = live.open("page")
    expect(tab.locator("#live > tr > td")).to_have_text("new")
    assert tab.locator("title").text_content() == "page"


def test_with_an_empty_url_it_is_the_page_itself(live: Live, channel: str) -> None:
    numbers = itertools.count(1)
    body = '<p id="live" data-pusher="{{ channel }}" data-pusher-src="">{{ number() }}</p>'
    live.page("page", body, channel=channel, number=lambda: next(numbers))
    tab = live.open("page?x=1#part")
    expect(tab.locator("#live")).to_have_text("2")
    tab.evaluate("history.pushState({}, '', 'elsewhere')")

    live.trigger(channel, "changed")

    expect(tab.locator("#live")).to_have_text("3")
    assert live.times("page") == 2


def test_only_events_that_are_named_cause_a_fetch(live: Live, room: str) -> None:
    live.view("rows", counting())
    live.page(
        "page",
        f'<p id="live" data-pusher="{room}" data-pusher-src="rows"'
        ' data-pusher-on="shipped pusher:member_added"></p>',
        member={"user_id": "ana"},
    )
    live.page("bob", f'<p id="live" data-pusher="{room}"></p>', member={"user_id": "bob"})
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("1")

    live.trigger(room, "other")
    hears(tab, "pusher:other")
    live.open("bob")
    expect(tab.locator("b")).to_have_text("2")
    live.trigger(room, "shipped")
    expect(tab.locator("b")).to_have_text("3")


@pytest.mark.parametrize("leaves", [True, False])
def test_what_is_planned_is_not_fetched_for_nobody(
    live: Live, channel: str, new_tab: NewTab, leaves: bool
) -> None:
    """The element has left, or the page is hidden, before the pause is over."""
    live.view("rows", counting())
    live.page(
        "page",
        f'<main><p id="live" data-pusher="{channel}" data-pusher-src="rows"'
        ' data-pusher-spread="1"></p></main>',
        head="<script>Math.random = () => 0.9</script>",
    )
    tab = new_tab()
    tab.clock.install()
    live.open("page", tab)
    expect(tab.locator("b")).to_have_text("1")
    stop_clock(tab)
    live.trigger(channel, "changed")
    hears(tab, "pusher:changed")
    if leaves:
        tab.evaluate("(globalThis.gone = live).remove()")
    else:
        hide(tab, True)
    tab.clock.run_for(1_500)
    tab.wait_for_timeout(400)
    assert live.times("rows") == 1
    tab.clock.resume()
    if leaves:
        tab.evaluate("document.querySelector('main').append(gone)")
    else:
        hide(tab, False)
    expect(tab.locator("b")).to_have_text("2")


def test_an_event_that_comes_while_a_refusal_is_under_way_asks_no_more(
    live: Live, channel: str
) -> None:
    may_answer = threading.Event()

    def refuse() -> Any:
        may_answer.wait(WAIT_SECONDS)
        return html("no", 403)

    live.view("rows", refuse)
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>')
    tab = live.open("page")
    live.wait_for_times("rows", 1)
    listens(tab)
    live.trigger(channel, "changed")
    hears(tab, "pusher:changed")
    may_answer.set()
    hears(tab, "pusher:refused")
    tab.wait_for_timeout(600)
    assert live.times("rows") == 1
    assert [name for name, _ in heard(tab)].count("pusher:refused") == 1


def test_what_another_page_sends_causes_no_fetch(live: Live, channel: str) -> None:
    live.view("rows", counting())
    element = f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"'
    live.page("page", f'{element} data-pusher-on="client-x"></p>')
    tab, evil = live.open("page"), live.open("page")
    listens(tab)
    listens(evil)
    expect(tab.locator("b")).to_be_visible()
    expect(evil.locator("b")).to_be_visible()

    evil.evaluate(
        "(name) => { Pusher.instances[0].channel(name).trigger('client-x', {}) }", channel
    )

    assert hears(tab, "pusher:client-x") == {}
    time.sleep(0.3)
    assert live.times("rows") == 2


def test_a_burst_of_fifty_events_is_three_fetches_at_most(live: Live, channel: str) -> None:
    live.view("rows", counting())
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>'
        f'<p id="b" data-pusher="{channel}" data-pusher-src="rows"></p>',
    )
    tab = live.open("page")
    expect(tab.locator("b")).to_have_count(2)
    tab.evaluate(
        "() => { globalThis.came = [];"
        " live.addEventListener('pusher:changed', () => came.push(Date.now())) }"
    )
    before = live.times("rows")
    live.trigger_all([(channel, "changed", number) for number in range(50)])
    tab.wait_for_function("heard.filter(([, name]) => name === 'pusher:changed').length === 100")
    time.sleep(0.6)
    until(
        lambda: tab.locator("b").all_text_contents() == [str(live.times("rows"))] * 2,
        "the last answer",
        tab,
    )
    # They come in five calls, which a busy machine makes one after the other.
    assert live.times("rows") - before <= 3 + tab.evaluate("came.at(-1) - came[0]") // 240


ASKED = """<script>
    globalThis.asked = [];
    const ask = globalThis.fetch;
    globalThis.fetch = (...request) => {
        if (request[0].endsWith("/rows")) asked.push(Date.now());
        return ask(...request);
    };
</script>"""
"""Notes when the script fetches."""


def test_events_that_go_on_and_on_are_four_fetches_a_second_at_most(
    live: Live, channel: str, new_tab: NewTab
) -> None:
    live.view("rows", counting())
    live.page(
        "page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>', head=ASKED
    )
    tab = new_tab()
    tab.clock.install()
    live.open("page", tab)
    expect(tab.locator("b")).to_have_text("1")
    stop_clock(tab)  # or a pause of the machine would be one between the fetches, or none

    def is_fetched_often() -> bool:
        live.trigger(channel, "changed")
        tab.clock.run_for(20)
        return live.times("rows") >= 5

    until(is_fetched_often, "fetches")
    asked = tab.evaluate("asked")
    assert min(after - before for before, after in zip(asked, asked[1:])) >= 240


@pytest.mark.parametrize(("spread", "pause"), [("", 0), ('data-pusher-spread="20"', 10_000)])
def test_a_spread_that_is_written_delays_the_fetch_for_an_event(
    live: Live, channel: str, new_tab: NewTab, spread: str, pause: int
) -> None:
    live.view("rows", counting())
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" data-pusher-src="rows" {spread}></p>',
        head=f"{ASKED}<script>Math.random = () => 0.5</script>",
    )
    tab = new_tab()
    tab.clock.install()
    live.open("page", tab)
    expect(tab.locator("b")).to_have_text("1")
    stop_clock(tab)
    tab.evaluate(
        "live.addEventListener('pusher:changed', () => { globalThis.began = Date.now() })"
    )

    live.trigger(channel, "changed")

    hears(tab, "pusher:changed")
    tab.clock.run_for(pause + 100)
    expect(tab.locator("b")).to_have_text("2")
    assert abs(tab.evaluate("asked[1] - began") - pause) < 1_000


def test_an_element_that_goes_and_comes_while_it_is_fetched_shows_the_last_answer(
    live: Live, channel: str
) -> None:
    state = ["1"]
    live.slow_view("rows", state)
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>')
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("1")
    live.trigger(channel, "changed")
    assert live.page_is_asked.wait(WAIT_SECONDS)
    tab.evaluate("globalThis.gone = live; gone.remove()")
    tab.wait_for_timeout(100)
    state[0] = "2"
    tab.evaluate("document.body.append(gone)")
    listens(tab)
    tab.wait_for_timeout(300)

    live.may_answer.set()

    live.wait_for_times("rows", 3)
    expect(tab.locator("b")).to_have_text("2")
    tab.wait_for_timeout(300)
    assert tab.locator("b").text_content() == "2"
    assert live.times("rows") == 3


def test_nothing_is_fetched_again_for_an_element_that_is_gone(live: Live, channel: str) -> None:
    def rows() -> Any:
        live.page_is_asked.set()
        assert live.may_answer.wait(WAIT_SECONDS)
        return html("later", 503)

    live.view("rows", rows)
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>')
    tab = live.open("page")
    assert live.page_is_asked.wait(WAIT_SECONDS)
    tab.evaluate("live.remove()")
    tab.wait_for_timeout(100)
    live.may_answer.set()
    tab.wait_for_timeout(2500)
    assert live.times("rows") == 1


def test_an_equal_answer_and_none_change_nothing(live: Live, channel: str) -> None:
    answers: Any = iter([html("<b>1</b>"), html("<b>1</b>"), html("", 204), html("<b>2</b>")])
    live.view("rows", lambda: next(answers))
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>')
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("1")
    for times in (2, 3, 4):
        live.trigger(channel, "changed")
        live.wait_for_times("rows", times)
    expect(tab.locator("b")).to_have_text("2")
    assert [name for name, _ in heard(tab)].count("pusher:swapped") == 2


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (lambda: html("<b>no</b>", 401), 401),
        (lambda: html("<b>no</b>", 403), 403),
        (lambda: html("<b>no</b>", 404), 404),
        (lambda: html("<b>no</b>", 410), 410),
        (lambda: redirect("/live/login"), 0),
        (lambda: redirect("https://elsewhere.example/"), 0),
        (lambda: {"b": "no"}, 200),
        (lambda: html("<!doctype html><b>a page without the id</b>"), 200),
    ],
)
def test_a_refusal_is_told_and_nothing_is_fetched_until_the_page_is_shown(
    live: Live, channel: str, new_tab: NewTab, answer: Callable[[], Any], status: int
) -> None:
    live.view("login", "<b>log in</b>")
    live.view("rows", answer)
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows">old</p>')
    tab = new_tab()
    lines = console(tab)
    live.open("page", tab)
    assert hears(tab, "pusher:refused") == {"status": status}
    until(lambda: len(lines) == 1, "a line", tab)
    told = f"{live.root}/rows is not shown: {status or 'a redirect'}, or no HTML of this id"
    assert told in lines[0]
    expect(tab.locator("#live")).to_have_text("old")
    expect(tab.locator("#live")).to_have_attribute("data-pusher-state", "refused")
    assert live.times("login") == 0

    live.trigger(channel, "changed")
    hears(tab, "pusher:changed")
    assert live.times("rows") == 1
    live.view("rows", "<b>new</b>")
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    expect(tab.locator("#live")).to_have_text("new")
    listens(tab)


def test_an_answer_that_failed_is_asked_for_again(live: Live, channel: str) -> None:
    answers: Any = iter([html("oops", 500), html("busy", 429), html("<b>1</b>")])
    live.view("rows", lambda: next(answers))
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" data-pusher-src="rows">old</p>',
        head="<script>Math.random = () => -0.9</script>",  # pauses of a tenth
    )
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("1")
    assert live.times("rows") == 3
    assert no_error(tab)


def test_fetches_that_fail_are_told_by_one_line_until_one_succeeds(
    live: Live, channel: str, new_tab: NewTab
) -> None:
    answers: Any = iter([("", 500), ("", 502), "<b>1</b>", ("", 500), "<b>2</b>"])
    live.view("rows", lambda: next(answers))
    element = f'data-pusher="{channel}" data-pusher-src="rows"'
    live.page(
        "page",
        f'<p id="live" {element}></p><p id="other" {element}></p>',
        head="<script>Math.random = () => -0.9</script>",
    )
    tab = new_tab()
    lines = console(tab)
    live.open("page", tab)
    expect(tab.locator("#live b")).to_have_text("1")
    failures = [["pusher:failed", {"status": 500}], ["pusher:failed", {"status": 502}]]
    for place in ("live", "other"):
        assert [one for one in heard(tab, place) if one[0] == "pusher:failed"] == failures
    assert len(lines) == 1

    live.trigger(channel, "changed")

    expect(tab.locator("#live b")).to_have_text("2")
    until(lambda: len(lines) == 2, "a line", tab)
    for line in lines:
        assert f"{live.site.url}{live.root}/rows is not shown: 500. See the " in line
    assert no_error(tab)


def test_events_do_not_hammer_a_view_that_fails(live: Live, channel: str) -> None:
    live.view("rows", lambda: html("oops", 503))
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" data-pusher-src="rows">old</p>',
        head="<script>Math.random = () => 60</script>",  # pauses of a minute and more
    )
    tab = live.open("page")
    live.wait_for_times("rows", 1)
    for _ in range(10):
        live.trigger(channel, "changed")
    tab.wait_for_function("heard.filter(([, name]) => name === 'pusher:changed').length === 10")
    time.sleep(0.4)
    assert live.times("rows") == 1
    live.view("rows", "<b>well</b>")
    tab.evaluate("dispatchEvent(new Event('online'))")
    expect(tab.locator("b")).to_have_text("well")


def test_a_view_that_hangs_is_given_up(live: Live, channel: str, new_tab: NewTab) -> None:
    hung = threading.Event()

    def rows() -> str:
        if live.times("rows") == 1:
            hung.wait(WAIT_SECONDS)
        return "<b>1</b>"

    live.view("rows", rows)
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" data-pusher-src="rows">old</p>',
        head="<script>Math.random = () => -0.9; const { timeout } = AbortSignal, first = [150];"
        " AbortSignal.timeout = (ms) => timeout.call(AbortSignal, first.pop() ?? ms)</script>",
    )
    tab = new_tab()
    lines = console(tab)
    live.open("page", tab)
    expect(tab.locator("b")).to_have_text("1")
    hung.set()
    assert hears(tab, "pusher:failed") == {}
    assert len(lines) == 1
    assert f"{live.root}/rows is not shown: no answer." in lines[0]


def test_another_origin_is_not_asked(live: Live, channel: str) -> None:
    live.page(
        "page", f'<p id="live" data-pusher="{channel}" data-pusher-src="//elsewhere.example/"></p>'
    )
    tab = live.open("page")
    lines = console(tab)
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.reload()
    listens(tab)
    hears(tab, "pusher:stale")
    assert not [url for url in asked if "elsewhere" in url]
    assert [line for line in lines if "this origin" in line]


# -- Swaps ----------------------------------------------------------------------------------------

FORM = """
<p>{{ number }}</p>
<form>
  <input id="typed" name="typed" value="default"><input name="untyped" value="{{ number }}">
  <input type="hidden" name="token" value="{{ number }}">
  <textarea name="area">default {{ number }}</textarea>
  <input type="checkbox" name="box"><input type="checkbox" name="other"
    {% if number > 1 %}checked{% endif %}>
  <input type="radio" name="r" value="a" checked><input type="radio" name="r" value="b">
  <select name="one"><option>a<option>b<option {% if number > 1 %}selected{% endif %}>c</select>
  <select name="plain"><option>a<option {% if number > 1 %}selected{% endif %}>b</select>
  <select name="many" multiple><option>a<option>b</select>
</form>
<details><summary>more</summary>{{ number }}</details>
<div id="scroll" style="height: 50px; overflow: auto"><p style="height: 500px">{{ number }}</p></div>
"""


def test_what_a_user_has_done_outlives_a_swap(live: Live, channel: str) -> None:
    numbers = itertools.count(1)
    live.page(
        "page",
        f'<div id="live" data-pusher="{channel}" data-pusher-src="">'
        f"{{% set number = count() %}}{FORM}</div>",
        count=lambda: next(numbers),
    )
    tab = live.open("page")
    expect(tab.locator("#live > p")).to_have_text("2")
    tab.locator("[name=area]").fill("written")
    tab.locator("[name=box]").check()
    tab.locator("[value=b]").check()
    tab.locator("[name=one]").select_option("b")
    tab.locator("[name=many]").select_option(["b"])
    tab.locator("details summary").click()
    tab.locator("#scroll").evaluate("(element) => { element.scrollTop = 100 }")
    tab.locator("#typed").fill("hello")
    tab.evaluate("typed.setSelectionRange(1, 3)")

    live.trigger(channel, "changed")

    expect(tab.locator("#live > p")).to_have_text("3")
    expect(tab.locator("#typed")).to_have_value("hello")
    expect(tab.locator("#typed")).to_be_focused()
    assert tab.evaluate("[typed.selectionStart, typed.selectionEnd]") == [1, 3]
    expect(tab.locator("[name=area]")).to_have_value("written")
    expect(tab.locator("[name=box]")).to_be_checked()
    expect(tab.locator("[value=b]")).to_be_checked()
    expect(tab.locator("[name=one]")).to_have_value("b")
    expect(tab.locator("[name=many]")).to_have_values(["b"])
    expect(tab.locator("details")).to_have_attribute("open", "")
    assert (
        tab.evaluate("scroll.scrollTop") == 100
        or tab.evaluate("document.getElementById('scroll').scrollTop") == 100
    )
    # What nobody touched is the server's.
    expect(tab.locator("[name=untyped]")).to_have_value("3")
    expect(tab.locator("[name=token]")).to_have_value("3")
    expect(tab.locator("[name=other]")).to_be_checked()
    expect(tab.locator("[name=plain]")).to_have_value("b")
    assert no_error(tab)


@pytest.mark.parametrize(
    ("field", "old", "new", "shown"),
    [
        ("datetime-local", "2026-01-02T10:00:00", "2026-05-05T11:00:00", "2026-05-05T11:00"),
        ("color", "#FF0000", "#00FF00", "#00ff00"),
        ("range", "", "7", "7"),
        ("number", "1,5", "2", "2"),
        ("email", " a@example.com", " b@example.com", "b@example.com"),
    ],
)
def test_a_field_whose_value_the_browser_reads_in_its_own_way_is_touched_by_nobody(
    live: Live, channel: str, field: str, old: str, new: str, shown: str
) -> None:
    answers = iter([old, new])
    live.view("rows", lambda: f'<input id="field" type="{field}" value="{next(answers)}">')
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>')
    tab = live.open("page")
    hears(tab, "pusher:swapped")
    live.trigger(channel, "changed")
    expect(tab.locator("#field")).to_have_value(shown)
    assert no_error(tab)


@pytest.mark.parametrize("kind", ["multiple", 'size="3"'])
def test_that_the_first_of_a_list_was_chosen_is_a_choice(
    live: Live, channel: str, kind: str
) -> None:
    numbers = itertools.count(1)
    live.view(
        "rows",
        lambda: (
            f"<b>{next(numbers)}</b><select {kind}><option>a</option><option>b</option></select>"
        ),
    )
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>')
    tab = live.open("page")
    tab.locator("select").select_option("a")
    tab.locator("select").blur()
    live.trigger(channel, "changed")
    expect(tab.locator("b")).to_have_text("2")
    expect(tab.locator("select")).to_have_value("a")
    assert no_error(tab)


def test_fields_that_nobody_touched_are_the_servers(live: Live, channel: str) -> None:
    """One that is checked by a swap unchecks another, whom nobody touched either."""
    answers = itertools.cycle("yxy")

    def rows() -> str:
        chosen = next(answers)
        boxes = "".join(
            f'<input type="radio" name="one" value="{value}"{" checked" * (value == chosen)}>'
            for value in "xy"
        )
        options = "<option disabled>choose</option><option>a</option>" + "<option>b</option>" * (
            chosen == "x"
        )
        return f'{boxes}<select>{options}</select><input type="file" value="old.png">'

    live.view("rows", rows)
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>')
    tab = live.open("page")
    for number, (chosen, options) in enumerate([("y", 2), ("x", 3), ("y", 2)], start=1):
        if number > 1:
            live.trigger(channel, "changed")
        expect(tab.locator("option")).to_have_count(options)
        expect(tab.locator(f"[value={chosen}]")).to_be_checked()
    assert no_error(tab)


@pytest.mark.parametrize("name", ["matches", "querySelectorAll", "validity"])
def test_a_form_in_an_element_may_have_a_field_of_any_name(
    live: Live, channel: str, name: str
) -> None:
    numbers = itertools.count(1)
    live.view("rows", lambda: f'<form><input name="{name}"></form><b>{next(numbers)}</b>')
    live.page("page", f'<div id="live" data-pusher="{channel}" data-pusher-src="rows"></div>')
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("1")
    listens(tab)
    live.trigger(channel, "changed")
    expect(tab.locator("b")).to_have_text("2")
    assert no_error(tab)


@pytest.mark.parametrize("name", ["origin", "name", "status"])
def test_a_script_of_the_page_may_have_a_constant_of_any_name(
    live: Live, channel: str, name: str
) -> None:
    live.view("rows", counting())
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>',
        head=f"<script>const {name} = {{ lat: 52.5 }}</script>",
    )
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("1")


@pytest.mark.parametrize(
    "content",
    [
        "<html-view>new</html-view>",
        '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd"><b>new</b>',
    ],
)
def test_a_fragment_may_begin_like_a_page(live: Live, channel: str, content: str) -> None:
    """By an element of the application's own, or the file of a picture."""
    live.view("rows", content)
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows">old</p>')
    tab = live.open("page")
    expect(tab.locator("#live > *")).to_have_text("new")


def test_a_radio_button_that_was_chosen_stays_when_the_servers_choice_changes(
    live: Live, channel: str
) -> None:
    chosen = ["a"]

    def rows() -> str:
        return (
            "".join(
                f'<input type="radio" name="size" value="{one}" {"checked" * (one == chosen[0])}>'
                for one in "abc"
            )
            + f"<b>{chosen[0]}</b>"
        )

    live.view("rows", rows)
    live.page("page", f'<form id="live" data-pusher="{channel}" data-pusher-src="rows"></form>')
    tab = live.open("page")
    tab.locator("[value=b]").check()
    listens(tab)
    chosen[0] = "c"
    live.trigger(channel, "changed")
    expect(tab.locator("b")).to_have_text("c")
    expect(tab.locator("[value=b]")).to_be_checked()
    assert no_error(tab)


def test_a_form_may_have_a_field_of_any_name(live: Live, channel: str) -> None:
    numbers = itertools.count(1)
    live.page(
        "page",
        f'<form id="live" data-pusher="{channel}" data-pusher-src=""><input type="hidden" name="id">'
        "<b>{{ next() }}</b></form>",
        next=lambda: next(numbers),
    )
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("2")
    listens(tab)
    assert no_error(tab)


def test_what_users_wrote_stands_for_no_element(live: Live, channel: str) -> None:
    live.view(
        "rows",
        '<div data-pusher-off><p id="live"><b>a user</b></p></div><p id="live"><b>the page</b></p>',
    )
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>')
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("the page")


@pytest.mark.parametrize("morph", ["true", "false"])
def test_an_equal_answer_with_a_live_element_in_it_changes_nothing(
    live: Live, channel: str, morph: str
) -> None:
    """Of the same URL, it would be fetched for each other for ever."""
    live.scripts = f"{{{{ pusher_scripts(morph={morph}) }}}}"
    element = f'data-pusher="{channel}" data-pusher-src="rows"'
    live.view("rows", f'<input name="typed"><p id="in" {element}>old</p>')
    live.page("page", f'<div id="live" {element}></div>')
    tab = live.open("page")
    listens(tab, "#in")
    hears(tab, "pusher:swapped", "in")  # by the fetch that its beginning causes
    tab.wait_for_timeout(1_000)
    asked = live.times("rows")
    tab.locator("#live > input").fill("typed")
    live.trigger(channel, "changed")
    live.wait_for_times("rows", asked + 1)
    tab.wait_for_timeout(1_000)
    assert live.times("rows") == asked + 1
    expect(tab.locator("#live > input")).to_have_value("typed")


@pytest.mark.parametrize("morph", ["true", "false"])
def test_an_equal_answer_is_not_swapped_for_the_state_of_an_element_in_it(
    live: Live, channel: str, morph: str
) -> None:
    live.scripts = f"{{{{ pusher_scripts(morph={morph}) }}}}"
    live.view("rows", f'<p id="in" data-pusher="{channel}">the same</p>')
    live.page("page", f'<div id="live" data-pusher="{channel}" data-pusher-src="rows"></div>')
    tab = live.open("page")
    listens(tab, "#in")
    live.trigger(channel, "changed")
    live.wait_for_times("rows", 2)
    tab.wait_for_timeout(500)
    assert [name for name, _ in heard(tab)].count("pusher:swapped") == 1


def test_a_live_element_inside_of_another_keeps_what_it_shows(
    live: Live, channel: str, new_name: NewName
) -> None:
    inner = new_name("inner")
    numbers = itertools.count(1)
    live.view("inner", counting())
    live.view(
        "rows",
        lambda: (
            f'<p>{next(numbers)}</p><div id="in" data-pusher="{inner}" data-pusher-src="inner">'
            f'loading</div><i id="listener" data-pusher="{inner}">{next(numbers)}</i>'
        ),
    )
    live.page("page", f'<div id="live" data-pusher="{channel}" data-pusher-src="rows"></div>')
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("1")
    tab.evaluate("globalThis.before = document.getElementById('in')")

    live.trigger(channel, "changed")

    expect(tab.locator("#live > p")).to_have_text("3")
    expect(tab.locator("#in")).to_have_text("1")
    expect(tab.locator("#listener")).to_have_text("4")
    listens(tab, "#in")
    listens(tab, "#listener")
    assert tab.evaluate("before === document.getElementById('in')")
    assert live.times("inner") == 1
    live.trigger(inner, "changed")
    expect(tab.locator("#in")).to_have_text("2")


@pytest.mark.parametrize("room_is_in", ["members", "count"])
def test_members_inside_of_an_element_that_is_swapped_are_still_shown(
    live: Live, channel: str, room: str, room_is_in: str
) -> None:
    numbers = itertools.count(1)
    inner = {
        "members": f'<ul id="in" data-pusher-members="{room}"><template>'
        '<li data-pusher-text="name"></li></template></ul>',
        "count": f'<p id="in" data-pusher-count="{room}">?</p>',
    }[room_is_in]
    live.view("rows", lambda: f"<b>{next(numbers)}</b>{inner}")
    live.page(
        "page",
        f'<div id="live" data-pusher="{channel}" data-pusher-src="rows"></div>',
        member={"user_id": "ana", "name": "1"},
    )
    tab = live.open("page")
    expect(tab.locator("#in")).to_have_text("1")

    live.trigger(channel, "changed")

    expect(tab.locator("b")).to_have_text("2")
    assert tab.locator("#in").inner_text() == "1"
    assert no_error(tab)


@pytest.mark.parametrize("morph", ["true", "false"])
def test_attributes_of_the_element_itself_stay(live: Live, channel: str, morph: str) -> None:
    live.scripts = f"{{{{ pusher_scripts(morph={morph}) }}}}"
    live.view("rows", '<p id="live" class="new" title="new"><b>new</b></p>')
    live.page(
        "page", f'<p id="live" class="old" data-pusher="{channel}" data-pusher-src="rows"></p>'
    )
    tab = live.open("page")
    expect(tab.locator("#live > b")).to_have_text("new")
    expect(tab.locator("#live")).to_have_attribute("class", "old")
    assert tab.locator("#live").get_attribute("title") is None
    listens(tab)


@pytest.mark.parametrize(
    "throws",
    [
        """const { morph } = Idiomorph; Idiomorph.morph = (element, ...rest) =>
            element.id === "live" ? undefined.x : morph(element, ...rest)""",
        """globalThis.htmx = { process: (element) => element.id === "live" && undefined.x }""",
    ],
    ids=["idiomorph", "htmx"],
)
def test_a_swap_that_throws_stops_no_other_and_is_no_failed_fetch(
    live: Live, channel: str, new_tab: NewTab, throws: str
) -> None:
    live.view("rows", counting())
    element = f'data-pusher="{channel}" data-pusher-src="rows"'
    live.page(
        "page",
        f'<p id="live" {element}></p><p id="other" {element}></p>',
        head="<script>Math.random = () => -0.9;"
        f"addEventListener('DOMContentLoaded', () => {{ {throws} }})</script>",
    )
    tab = new_tab()
    tab.clock.install()  # both are stale at one time
    live.open("page", tab)
    expect(tab.locator("#other b")).to_have_text("1")
    assert "undefined" in tab.wait_for_function("errors[0]").json_value()
    tab.wait_for_timeout(400)  # a failed fetch is made again within 250 ms
    assert live.times("rows") == 1
    live.trigger(channel, "changed")
    expect(tab.locator("#other b")).to_have_text("2")
    assert "pusher:failed" not in [name for name, _ in heard(tab)]


def test_without_idiomorph_the_content_is_replaced(live: Live, channel: str) -> None:
    live.scripts = "{{ pusher_scripts(morph=false) }}"
    live.view("rows", counting())
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>')
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("1")
    live.trigger(channel, "changed")
    expect(tab.locator("b")).to_have_text("2")
    assert tab.evaluate("typeof Idiomorph") == "undefined"


# -- Who is there ---------------------------------------------------------------------------------

MEMBERS = """
<ul id="live" data-pusher-members="{{ room }}"><li>Who is here:</li><template><li>
  <b data-pusher-text="name"></b>
  <img data-pusher-text-src="picture" data-pusher-text-alt="name" data-pusher-text-title="name">
  <span data-pusher-text-src="picture" data-pusher-text="constructor"></span>
</li></template></ul>
<p id="count" data-pusher-count="{{ room }}">?</p>
"""


def test_a_member_of_any_id_is_shown_once(live: Live, room: str) -> None:
    live.page("eve", MEMBERS, member={"user_id": "eve\0", "name": "Eve"}, room=room)
    tab = live.open("eve")
    listens(tab)
    for number in range(5):
        live.trigger(room, f"chat-{number}")
        hears(tab, f"pusher:chat-{number}")
    expect(tab.locator("#live b")).to_have_text(["Eve"])
    expect(tab.locator("#count")).to_have_text("1")


def test_members_are_shown_and_counted(live: Live, room: str) -> None:
    ana = {"user_id": "ana", "name": "Ana", "picture": "https://pictures.example/ana.png"}
    live.page("ana", MEMBERS, member=ana, room=room)
    live.page("bob", MEMBERS, member={"user_id": "bob", "name": "Bob"}, room=room)
    tab = live.open("ana")
    expect(tab.locator("#live b")).to_have_text(["Ana"])
    expect(tab.locator("img")).to_have_attribute("src", "https://pictures.example/ana.png")
    expect(tab.locator("img")).to_have_attribute("alt", "Ana")
    expect(tab.locator("img")).to_have_attribute("title", "Ana")
    expect(tab.locator("#count")).to_have_text("1")
    tab.evaluate("globalThis.first = document.querySelector('#live b')")

    bob = live.open("bob")
    expect(tab.locator("#live b")).to_have_text(["Ana", "Bob"])
    expect(tab.locator("#count")).to_have_text("2")
    hears(tab, "pusher:member_added")

    bob.close()
    expect(tab.locator("#live b")).to_have_text(["Ana"])
    expect(tab.locator("#count")).to_have_text("1")
    assert tab.evaluate("first === document.querySelector('#live b')")
    assert no_error(tab)


def test_members_are_shown_again_after_a_morph_of_the_page_in_place(live: Live, room: str) -> None:
    """As Turbo and htmx may make it, with what the server wrote."""
    live.page("ana", MEMBERS, member={"user_id": "ana", "name": "Ana"}, room=room)
    tab = live.open("ana")
    expect(tab.locator("#live b")).to_have_text(["Ana"])
    expect(tab.locator("#count")).to_have_text("1")

    tab.evaluate(
        "async () => Idiomorph.morph(document.body, await (await fetch('')).text(),"
        " { morphStyle: 'innerHTML' })"
    )

    expect(tab.locator("#live b")).to_have_text(["Ana"])
    expect(tab.locator("#count")).to_have_text("1")
    assert no_error(tab)


@pytest.mark.parametrize(
    "picture",
    ["javascript:alert(1)", "data:text/html,<script>alert(1)</script>", "//e.example", ""],
)
def test_nothing_that_a_member_says_becomes_markup_or_a_script(
    live: Live, room: str, picture: str
) -> None:
    markup = "<img src=x onerror=errors.push(1)>" + "x" * 300
    evil = {"user_id": "e", "name": markup, "picture": picture, "__proto__": {"a": 1}}
    live.page("page", MEMBERS, member=evil, room=room)
    tab = live.open("page")
    expect(tab.locator("#live b")).to_have_text(markup)
    assert not tab.locator("img").get_attribute("src")
    expect(tab.locator("span")).to_have_text("")
    assert tab.locator("span").get_attribute("src") is None
    assert no_error(tab)


def test_what_a_member_has_in_place_of_text_is_not_shown_and_stops_nothing(
    live: Live, room: str
) -> None:
    evil = {"user_id": "e", "name": {"toString": 0}, "picture": [{"valueOf": 0}]}
    live.page("evil", MEMBERS, member=evil, room=room)
    live.page("ana", MEMBERS, member={"user_id": "ana", "name": 7}, room=room)
    listens(live.open("evil"))
    tab = live.open("ana")
    expect(tab.locator("#live b")).to_have_text(["", "7"])
    expect(tab.locator("#count")).to_have_text("2")
    live.trigger(room, "hello")
    hears(tab, "pusher:hello", "count")
    assert no_error(tab)


# -- The user -------------------------------------------------------------------------------------


def test_a_page_hears_what_is_sent_to_its_user(live: Live, new_name: NewName) -> None:
    user = new_name("user")
    live.view("inbox", counting())
    live.page(
        "page",
        '<p id="live" data-pusher-user="{{ user }}" data-pusher-src="inbox"></p>',
        user=user,
    )
    tab = live.open("page")
    listens(tab)
    expect(tab.locator("b")).to_have_text("1")

    live.send(user, "letter", {"from": "Bob"})

    assert hears(tab, "pusher:letter") == {"from": "Bob"}
    expect(tab.locator("b")).to_have_text("2")


def test_a_page_of_nobodys_hears_nothing_of_the_last_user(live: Live, new_name: NewName) -> None:
    ana, bob = new_name("ana"), new_name("bob")
    live.page("page", '<p id="live" data-pusher-user="{{ user }}"></p>', user=ana)
    live.page("bob", "", user=bob)
    live.page("nobody", "", user="")
    tab = live.open("page")
    listens(tab)
    first = tab.evaluate("Pusher.instances[0].connection.socket_id")

    assert tab.evaluate("fetch('bob').then((answer) => answer.ok)")
    tab.evaluate("(bob) => { live.dataset.pusherUser = bob }", bob)
    tab.wait_for_function(
        "(bob) => Pusher.instances[0].user.serverToUserChannel?.name.endsWith(bob)", arg=bob
    )
    listens(tab)
    assert tab.evaluate("Pusher.instances[0].connection.socket_id") != first
    live.send(ana, "letter", "for Ana")
    live.send(bob, "letter", "for Bob")
    assert hears(tab, "pusher:letter") == "for Bob"

    tab.evaluate("fetch('nobody').then((answer) => answer.ok)")
    tab.evaluate("live.removeAttribute('data-pusher-user')")
    tab.wait_for_function("Pusher.instances[0].connection.state === 'connected'")
    tab.wait_for_function("Pusher.instances[0].user.user_data === null")
    assert tab.evaluate("Pusher.instances[0].user.signin_requested") is False


# -- What can be seen when it fails ---------------------------------------------------------------


def test_a_refused_channel_is_told_and_all_else_goes_on(
    live: Live, channel: str, new_name: NewName, new_tab: NewTab
) -> None:
    refused = new_name("private-refused")
    live.page(
        "page",
        f'<p id="live" data-pusher="{refused}"></p><p id="other" data-pusher="{channel}"></p>',
    )
    tab = new_tab()
    lines = console(tab)
    live.open("page", tab)
    assert hears(tab, "pusher:refused") == {"channel": refused, "status": 403}
    expect(tab.locator("#live")).to_have_attribute("data-pusher-state", "refused")
    listens(tab, "#other")
    until(lambda: len(lines) == 1, "a line", tab)
    assert f"{refused} was refused with status 403" in lines[0]
    assert no_error(tab)


def test_an_authorisation_that_fails_is_asked_for_again(live: Live, channel: str) -> None:
    statuses = iter([500, 429])

    def fail() -> Any:
        if request.path == "/pusher/auth":
            return next(((("busy", status)) for status in statuses), None)
        return None

    live.before = fail
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}"></p>',
        head="<script>Math.random = () => -0.9</script>",
    )
    tab = live.open("page")
    listens(tab)
    assert no_error(tab)


def test_a_user_who_is_refused_is_told(live: Live) -> None:
    live.page("page", '<p id="live" data-pusher-user="7"></p>', user="")
    tab = live.open("page")
    assert hears(tab, "pusher:refused") == {"channel": "#server-to-user", "status": 403}


@pytest.mark.parametrize(
    ("head", "body", "line"),
    [
        ("", '<p data-pusher-src="rows"></p>', "needs a channel"),
        ("", '<p data-pusher="a" data-pusher-src></p>', "where it is empty an id"),
        ("", '<p data-pusher-members="presence-a"></p>', "needs a <template>"),
        ("", '<p data-pusher="#a"></p>', '"#a"'),
        ("<script>globalThis.Pusher = null</script>", '<p data-pusher="a"></p>', ""),
    ],
)
def test_what_is_wrong_in_a_page_is_one_line_in_the_console(
    live: Live, new_tab: NewTab, head: str, body: str, line: str, channel: str
) -> None:
    live.page("page", f'{body}<p id="live" data-pusher="{channel}"></p>', head=head, member={})
    tab = new_tab()
    lines = console(tab)
    live.open("page", tab)
    listens(tab)
    expect(tab.locator("#live")).to_be_attached()
    until(lambda: len(lines) == (1 if line else 0), line, tab)
    assert line in "".join(lines)
    assert no_error(tab)


@pytest.mark.parametrize("head", ['<p id="Pusher"></p>', ""])
def test_without_pusher_js_the_page_says_so_and_goes_on(
    live: Live, new_tab: NewTab, head: str, channel: str
) -> None:
    live.app.extensions["flask_pusher"].templates.settings.js_url = ""
    live.view("rows", counting())
    live.page("page", f'{head}<p id="live" data-pusher="{channel}" data-pusher-src="rows">old</p>')
    tab = new_tab()
    tab.clock.install()
    lines = console(tab)
    live.open("page", tab)
    until(lambda: len(lines) == 1, "a line", tab)
    assert "PUSHER_JS_URL" in lines[0]

    tab.clock.run_for(16_000)  # without a connection it is refreshed now and then
    expect(tab.locator("b")).to_have_text("1")
    assert no_error(tab)


def test_an_encrypted_channel_works(live: Live, new_name: NewName) -> None:
    name = new_name("private-encrypted-orders")
    live.page("page", f'<p id="live" data-pusher="{name}"></p>')
    tab = live.open("page")
    listens(tab)
    live.trigger(name, "shipped", {"by": "truck"})
    assert hears(tab, "pusher:shipped") == {"by": "truck"}


def test_an_encrypted_channel_with_the_plain_build_is_told(
    live: Live, new_name: NewName, new_tab: NewTab, channel: str
) -> None:
    live.app.extensions[
        "flask_pusher"
    ].templates.settings.js_url = "/npm/pusher-js/dist/web/pusher.js"
    name = new_name("private-encrypted-orders")
    live.page("page", f'<p data-pusher="{name}"></p><p id="live" data-pusher="{channel}"></p>')
    tab = new_tab()
    lines = console(tab)
    live.open("page", tab)
    listens(tab)
    assert "build with encryption" in lines[0]


def test_pusher_js_may_come_later(live: Live, channel: str) -> None:
    """As a copy of the page's own does that is loaded by ``async``."""
    live.app.extensions["flask_pusher"].templates.settings.js_url = ""
    live.view("rows", counting())
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>')
    tab = live.open("page")
    expect(tab.locator("#live")).to_have_attribute("data-pusher-state", "connecting")
    tab.add_script_tag(url="/npm/pusher-js/dist/web/pusher.js")
    tab.evaluate("document.body.append(document.createElement('i'))")
    listens(tab)
    expect(tab.locator("b")).to_have_text("1")
    live.trigger(channel, "changed")
    expect(tab.locator("b")).to_have_text("2")


def test_loaded_twice_it_does_nothing_more(live: Live, channel: str) -> None:
    live.scripts = "{{ pusher_scripts() }}{{ pusher_scripts() }}"
    live.page("page", f'<p id="live" data-pusher="{channel}"></p>')
    tab = live.open("page")
    listens(tab)
    live.trigger(channel, "shipped")
    hears(tab, "pusher:shipped")
    assert [name for name, _ in heard(tab)].count("pusher:shipped") == 1
    assert tab.evaluate("Pusher.instances.length") == 1

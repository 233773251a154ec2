"""The page's script beside htmx, Alpine, Stimulus and Turbo, and under a Content-Security-Policy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request
from playwright.sync_api import Route, expect

from flask_pusher import Pusher

from . import WAIT_SECONDS
from .conftest import NewName, NewTab, Serve
from .live import Live, console, heard, hears, html, listens, until
from .servers import Site

HTMX = {2: "htmx.org/dist/htmx.js", 4: "htmx-4/dist/htmx.js"}


@pytest.fixture
def live(app: Flask, serve: Serve, site: Site, new_tab: NewTab) -> Live:
    live = Live(app, Pusher(app), site, new_tab)
    serve(app)
    return live


@pytest.fixture
def channel(new_name: NewName) -> str:
    return new_name("private-orders")


@pytest.fixture(params=list(HTMX), ids=lambda version: f"htmx-{version}")
def htmx(request: pytest.FixtureRequest) -> str:
    """The script of one of htmx's versions."""
    return script(HTMX[request.param])


def script(file: str) -> str:
    return f'<script src="/npm/{file}" defer></script>'


def counting() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"<b>{next(numbers)}</b>"


# -- htmx -----------------------------------------------------------------------------------------


def test_htmx_hears_events_and_that_an_element_is_stale(
    live: Live, channel: str, htmx: str
) -> None:
    live.view("rows", counting())
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" hx-get="rows"'
        ' hx-trigger="pusher:shipped, pusher:stale"></p>',
        head=htmx,
    )
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("1")

    live.trigger(channel, "shipped")

    expect(tab.locator("b")).to_have_text("2")
    assert tab.evaluate("errors") == []


def test_an_element_that_htmx_swaps_in_hears_that_it_is_stale(
    live: Live, channel: str, htmx: str
) -> None:
    live.view("rows", counting())
    live.view(
        "part", f'<p id="in" data-pusher="{channel}" hx-get="rows" hx-trigger="pusher:stale">?</p>'
    )
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}"></p><button hx-get="part" hx-target="next main">'
        "more</button><main></main>",
        head=htmx,
    )
    tab = live.open("page")
    listens(tab)
    tab.locator("button").click()
    expect(tab.locator("#in b")).to_have_text("1")


def test_htmx_processes_what_was_swapped_in(live: Live, channel: str, htmx: str) -> None:
    live.view("more", "<i>more</i>")
    live.view("rows", '<button hx-get="more" hx-swap="outerHTML">more</button>')
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>',
        head=htmx,
    )
    tab = live.open("page")
    tab.locator("button").click()
    expect(tab.locator("i")).to_have_text("more")


def test_requests_of_htmx_carry_the_socket_id_and_spare_the_page(
    live: Live, channel: str, htmx: str
) -> None:
    def act() -> str:
        live.pusher.trigger(channel, "shipped", {}, live.pusher.socket_id)
        return "done"

    live.view("act", act)
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}"></p><button hx-post="act">act</button>',
        head=htmx,
    )
    other, tab = live.open("page"), live.open("page")
    listens(other)
    listens(tab)
    tab.locator("button").click()
    hears(other, "pusher:shipped")
    expect(tab.locator("button")).to_have_text("done")
    assert "pusher:shipped" not in [name for name, _ in heard(tab)]


def show_rows_that_an_act_changes(live: Live, answer: Callable[[], Any]) -> None:
    state = ["old"]

    def act() -> Any:
        state[0] = "new"
        return answer()

    live.slow_view("rows", state)
    live.view("act", act)


@pytest.mark.parametrize("had_ended", [False, True])
def test_what_was_being_fetched_when_htmx_changed_something_is_fetched_again(
    live: Live, channel: str, htmx: str, had_ended: bool
) -> None:
    show_rows_that_an_act_changes(live, lambda: "<b>new</b>")
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>'
        '<button hx-post="act" hx-target="#live">act</button>',
        head=htmx,
    )
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("old")
    if had_ended:  # when nothing was being fetched
        tab.evaluate("dispatchEvent(new CustomEvent('htmx:afterRequest'))")
    live.trigger(channel, "changed")
    assert live.page_is_asked.wait(WAIT_SECONDS)
    tab.locator("button").click()
    expect(tab.locator("b")).to_have_text("new")
    tab.evaluate(
        "new MutationObserver(() => document.querySelector('b')?.textContent === 'old'"
        " && errors.push('old')).observe(live, {childList: true, subtree: true})"
    )

    live.may_answer.set()

    live.wait_for_times("rows", 3)
    expect(tab.locator("b")).to_have_text("new")
    assert tab.evaluate("errors") == []


def test_boosted_pages_of_htmx_listen_to_what_they_hold(
    live: Live, new_name: NewName, htmx: str
) -> None:
    first, second = new_name("first"), new_name("second")
    numbers = itertools.count(1)
    for path, other, name in (("one", "two", first), ("two", "one", second)):
        live.page(
            path,
            f'<a href="{other}" hx-boost="true">go</a>'
            f'<p id="{path}" data-pusher="{name}" data-pusher-src="">{path} {{{{ count() }}}}</p>',
            head=htmx,
            count=lambda: next(numbers),
        )
    tab = live.open("one")
    listens(tab, "#one")
    tab.evaluate("globalThis.isOnePage = true")
    tab.locator("a").click()
    listens(tab, "#two")
    assert tab.evaluate("globalThis.isOnePage")
    tab.wait_for_function("Pusher.instances[0].allChannels().length === 1")
    live.wait_for_times("two", 1)
    before = live.times("two")

    live.trigger(second, "changed")

    live.wait_for_times("two", before + 1)
    expect(tab.locator("#two")).to_contain_text("two")
    tab.go_back()
    listens(tab, "#one")


def test_a_boosted_page_that_is_another_users_hears_as_that_user(
    live: Live, new_name: NewName, htmx: str
) -> None:
    ana, bob = new_name("ana"), new_name("bob")
    element = '<p id="live" data-pusher-user="{{ user }}"></p>'
    boosted = '<a href="bob" hx-boost="true">go</a>'
    live.page("ana", element + boosted, head=htmx, user=ana)
    live.page("bob", f"{element}<i>Bob's</i>", head=htmx, user=bob)
    tab = live.open("ana")
    listens(tab)
    first = tab.evaluate("globalThis.first = Pusher.instances[0].connection.socket_id")

    tab.locator("a").click()

    expect(tab.locator("i")).to_be_visible()
    tab.wait_for_function(
        "(bob) => Pusher.instances[0].user.serverToUserChannel?.name.endsWith(bob)", arg=bob
    )
    listens(tab)
    live.send(ana, "letter", "for Ana")
    live.send(bob, "letter", "for Bob")
    assert hears(tab, "pusher:letter") == "for Bob"
    assert tab.evaluate("first") == first  # it is the same page
    assert tab.evaluate("Pusher.instances[0].connection.socket_id") != first


# -- Alpine and Stimulus --------------------------------------------------------------------------


def test_alpine_hears_events(live: Live, channel: str) -> None:
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" x-data="{{by: 0}}" x-text="by"'
        ' @pusher:shipped="by = $event.detail.by"></p>',
        head=script("alpinejs/dist/cdn.js"),
    )
    tab = live.open("page")
    listens(tab)
    live.trigger(channel, "shipped", {"by": "truck"})
    expect(tab.locator("#live")).to_have_text("truck")


def test_stimulus_hears_events(live: Live, channel: str) -> None:
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" data-controller="order"'
        ' data-action="pusher:shipped->order#show"></p>',
        head=script("@hotwired/stimulus/dist/stimulus.umd.js")
        + """<script type="module">
          Stimulus.Application.start().register("order", class extends Stimulus.Controller {
            show({ detail }) { this.element.textContent = detail.by; }
          });
        </script>""",
    )
    tab = live.open("page")
    listens(tab)
    live.trigger(channel, "shipped", {"by": "truck"})
    expect(tab.locator("#live")).to_have_text("truck")


# -- Turbo ----------------------------------------------------------------------------------------

TURBO = script("@hotwired/turbo/dist/turbo.es2017-umd.js")


def test_pages_of_turbo_listen_to_what_they_hold_by_one_connection(
    live: Live, new_name: NewName
) -> None:
    first, second, both = new_name("first"), new_name("second"), new_name("both")
    for path, other, name in (("one", "two", first), ("two", "one", second)):
        live.page(
            path,
            f'<a href="{other}">go</a><p id="{path}" data-pusher="{name} {both}"'
            f' data-pusher-src="">{path}</p>',
            head=TURBO,
        )
    tab = live.open("one")
    listens(tab, "#one")
    socket_id = tab.evaluate("Pusher.instances[0].connection.socket_id")
    tab.evaluate(
        "(name) => Pusher.instances[0].channel(name).bind('pusher:subscription_succeeded',"
        " () => errors.push('subscribed again'))",
        both,
    )

    tab.locator("a").click()

    listens(tab, "#two")
    tab.wait_for_function("(name) => !Pusher.instances[0].channel(name)", arg=first)
    live.wait_for_times("two", 1)
    tab.go_back()  # first a preview, or what Turbo kept
    listens(tab, "#one")
    live.trigger(first, "changed")
    hears(tab, "pusher:changed", "one")
    assert tab.evaluate("Pusher.instances[0].connection.socket_id") == socket_id
    assert tab.evaluate("Pusher.instances.length") == 1
    assert tab.evaluate("errors") == []


def test_a_page_of_turbos_that_is_another_users_hears_as_that_user(
    live: Live, new_name: NewName
) -> None:
    ana = new_name("ana")
    element = '<p id="live" data-pusher-user="{{ user }}"></p>'
    live.page("ana", f'{element}<a href="out">log out</a>', head=TURBO, user=ana)
    live.page("out", f"{element}<p>bye</p>", head=TURBO, user="")
    tab = live.open("ana")
    listens(tab)
    live.send(ana, "letter")
    hears(tab, "pusher:letter")

    tab.locator("a").click()

    expect(tab.locator("p").last).to_have_text("bye")
    tab.wait_for_function("Pusher.instances[0].connection.state === 'connected'")
    tab.wait_for_function("Pusher.instances[0].user.user_data === null")


def test_forms_of_turbo_carry_the_socket_id(live: Live, channel: str) -> None:
    asked: list[str | None] = []

    def act() -> Any:
        asked.append(request.headers.get("X-Socket-ID"))
        return html("", 204)

    live.view("act", act)
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}"></p>'
        '<form action="act" method="post"><button>act</button></form>',
        head=TURBO,
    )
    tab = live.open("page")
    listens(tab)
    tab.locator("button").click()
    until(lambda: bool(asked), "the form")
    assert asked == [tab.evaluate("Pusher.instances[0].connection.socket_id")]


def test_what_was_being_fetched_when_turbo_changed_something_is_fetched_again(
    live: Live, channel: str
) -> None:
    show_rows_that_an_act_changes(live, lambda: html("", 204))
    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>'
        '<form action="act" method="post"><button>act</button></form>',
        head=TURBO,
    )
    tab = live.open("page")
    expect(tab.locator("b")).to_have_text("old")
    tab.evaluate(
        "addEventListener('turbo:before-fetch-response', () => { globalThis.hasEnded = true })"
    )
    live.trigger(channel, "changed")
    assert live.page_is_asked.wait(WAIT_SECONDS)
    tab.locator("button").click()
    tab.wait_for_function("globalThis.hasEnded")

    live.may_answer.set()

    live.wait_for_times("rows", 3)
    expect(tab.locator("b")).to_have_text("new")


@pytest.mark.parametrize("library", [*HTMX.values(), "@hotwired/turbo/dist/turbo.es2017-umd.js"])
def test_no_other_origin_is_told_the_socket_id(
    live: Live, channel: str, new_tab: NewTab, library: str
) -> None:
    elsewhere = "http://elsewhere.example/part"
    asked: list[dict[str, str]] = []

    def answer(route: Route) -> None:
        asked.append(route.request.headers)
        route.fulfill(body="", headers={"Access-Control-Allow-Origin": "*"})

    live.page(
        "page",
        f'<p id="live" data-pusher="{channel}"></p><button hx-get="{elsewhere}">ask</button>'
        '<turbo-frame id="frame"></turbo-frame>',
        head='<meta name="htmx-config" content=\'{"selfRequestsOnly": false, "mode": "cors"}\'>'
        + script(library),
    )
    tab = new_tab()
    tab.route(elsewhere, answer)
    live.open("page", tab)
    listens(tab)
    if "turbo" in library:
        tab.evaluate("(url) => { document.getElementById('frame').src = url }", elsewhere)
    else:
        tab.locator("button").click()
    until(lambda: bool(asked), "the request", tab)
    assert "x-socket-id" not in asked[0]


def test_a_preview_of_turbos_is_no_page(live: Live, channel: str) -> None:
    live.page("page", f'<p id="live" data-pusher="{channel}"></p>')
    tab = live.open("page")
    listens(tab)
    tab.evaluate(
        "() => { document.documentElement.setAttribute('data-turbo-preview', '');"
        " live.outerHTML = '<p id=preview data-pusher=other></p>' }"
    )
    assert tab.evaluate("(name) => Pusher.instances[0].channel(name).subscribed", channel)
    tab.evaluate(
        "() => { document.documentElement.removeAttribute('data-turbo-preview');"
        " document.body.append('the page') }"
    )
    listens(tab, "#preview")


# -- The Content-Security-Policy ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scripts", "policy"),
    [
        ("{{ pusher_scripts() }}", "script-src 'self' https://cdn.jsdelivr.net"),
        ("{{ pusher_scripts(nonce='r4nd0m') }}", "script-src 'nonce-r4nd0m' 'strict-dynamic'"),
    ],
)
def test_it_runs_under_a_strict_policy(
    live: Live, channel: str, scripts: str, policy: str
) -> None:
    live.scripts = scripts
    others = (
        "default-src 'none'; connect-src 'self' ws://127.0.0.1:*; base-uri 'none'; img-src data:"
    )
    live.headers["Content-Security-Policy"] = f"{policy}; {others}"
    live.view("rows", counting())
    live.page("page", f'<p id="live" data-pusher="{channel}" data-pusher-src="rows"></p>')
    tab = live.open("page")
    violations = console(tab, "Content Security")
    tab.reload()
    expect(tab.locator("b")).to_be_visible()
    shown = tab.locator("b").inner_text()
    live.trigger(channel, "changed")
    expect(tab.locator("b")).not_to_have_text(shown)
    assert violations == []


def test_it_is_accessible(live: Live, channel: str) -> None:
    live.view("rows", "<li>new</li>")
    live.page(
        "page",
        f'<main><h1>Orders</h1><ul id="live" data-pusher="{channel}" data-pusher-src="rows">'
        "<li>old</li></ul></main>",
        head=script("axe-core/axe.js"),
    )
    tab = live.open("page")
    expect(tab.locator("li")).to_have_text("new")
    found: Any = tab.evaluate("axe.run().then(({violations}) => violations.map(({id}) => id))")
    assert found == []

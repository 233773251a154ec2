"""The six pages of the documentation, each in two windows, and right again after what may happen."""

from __future__ import annotations

import importlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from werkzeug.serving import make_server

from flask_pusher import LocalServer, local_server

from .. import WAIT_SECONDS
from ..conftest import NewTab
from ..live import until
from . import TREE

EXAMPLES = TREE / "examples" / "pages"
NAMES = ["orders", "chat", "notices", "here", "job", "dashboard"]
SCRIPTS_OF_OTHERS = re.compile(r"<script[^>]+src=\"https://cdn\.jsdelivr\.net/[^\"]+\"></script>")


class Site:
    """One of the six, served, with its Channels server."""

    def __init__(self, module: ModuleType, channels: LocalServer, address: str) -> None:
        self.module: Any = module
        self.channels = channels
        self.address = address

    def post(self, path: str, **form: str) -> None:
        answer = self.module.app.test_client().post(path, data=form)
        assert answer.status_code == 302

    def lose(self, channel: str) -> None:
        """Cut all connections, and wait until a page listens again."""
        self.channels.disconnect()
        self.channels.wait_for(channel, timeout=WAIT_SECONDS)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Site]]:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("FLASK_PUSHER_TIMEOUT", str(WAIT_SECONDS))
    for name in [*NAMES, "settings"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    stops: list[Callable[[], object]] = []

    def serve(name: str) -> Site:
        module = importlib.import_module(name)
        server = local_server(module.app)
        channels = server.__enter__()
        site = make_server("127.0.0.1", 0, module.app, threaded=True)
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        stops.extend(
            [
                lambda: server.__exit__(None, None, None),
                site.server_close,
                thread.join,
                site.shutdown,
            ]
        )
        return Site(module, channels, f"http://127.0.0.1:{site.port}")

    yield serve
    for stop in reversed(stops):
        stop()
    for name in [*NAMES, "settings"]:
        sys.modules.pop(name, None)


def open_page(new_tab: NewTab, address: str) -> Page:
    """Open a page, and wait until all of its elements are live, and have fetched because they are.
    It must throw nothing."""
    tab = new_tab()
    tab.on("pageerror", lambda error: pytest.fail(f"{address}: {error}"))
    fetched = count_fetches(tab)
    tab.goto(address)
    wait_until_live(tab)
    sources = tab.locator("[data-pusher-src]").evaluate_all(
        "(all) => all.map((one) => new URL(one.dataset.pusherSrc || location.href, location.href).href)"
    )
    until(lambda: set(sources) <= set(fetched), f"{sources} to be fetched", tab)
    return tab


def wait_until_live(tab: Page) -> None:
    live, waiting = (
        "[data-pusher-state='live']",
        "[data-pusher-state]:not([data-pusher-state='live'])",
    )
    expect(tab.locator(live).first).to_be_attached()
    expect(tab.locator(waiting)).to_have_count(0)


def count_fetches(tab: Page) -> list[str]:
    """The addresses that elements fetch from now on."""
    fetched: list[str] = []
    tab.on(
        "request",
        lambda request: (
            fetched.append(request.url) if "x-pusher-live" in request.headers else None
        ),
    )
    return fetched


def burst(site: Site, tab: Page, channel: str, event: str) -> None:
    """Fifty events at once are at most three fetches of a page; and one more for each quarter of a
    second that a busy machine takes to bring them."""
    fetched = count_fetches(tab)
    tab.evaluate(
        """(event) => {
          globalThis.moments = [];
          document.querySelector("[data-pusher-src]")
            .addEventListener(event, () => moments.push(Date.now()));
        }""",
        f"pusher:{event}",
    )
    with site.module.app.app_context():
        for _ in range(50):
            site.module.pusher.defer(channel, event, {})
    tab.wait_for_function("() => moments.length === 50")
    until(lambda: bool(fetched), "a fetch", tab)
    tab.wait_for_timeout(500)
    lasted = tab.evaluate("() => moments[49] - moments[0]")
    assert len(fetched) <= 3 + lasted // 250


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("templates/*.html")), ids=lambda path: path.stem
)
def test_there_is_no_javascript_in_them(path: Path) -> None:
    text = SCRIPTS_OF_OTHERS.sub("", path.read_text(encoding="utf-8"))
    assert not re.search(r"<script|\son\w+=|hx-on|hx-vals=.js:|hx-headers=.js:|javascript:", text)


def test_orders(serve: Callable[[str], Site], new_tab: NewTab) -> None:
    site = serve("orders")
    ana, ben = (open_page(new_tab, site.address) for _ in range(2))
    ana.get_by_role("button", name="Ship order 1").click()
    for tab in (ana, ben):
        expect(tab.locator("#order-1")).to_contain_text("shipped")
    ben.get_by_role("button", name="New order").click()
    expect(ana.locator("#order-4")).to_contain_text("paid")

    wait_until_live(ben)
    site.module.orders[2] = "lost"  # and no event says so
    site.channels.disconnect()
    expect(ana.locator("#order-2")).to_contain_text("lost")

    wait_until_live(ana)
    ana.wait_for_timeout(500)
    site.module.orders[3] = "returned"
    burst(site, ana, "private-orders", "changed")
    expect(ana.locator("#order-3")).to_contain_text("returned")


def test_a_chat(serve: Callable[[str], Site], new_tab: NewTab) -> None:
    site = serve("chat")
    ana = open_page(new_tab, site.address + "/?user=ana")
    ben = open_page(new_tab, site.address + "/?user=ben")
    ben.get_by_label("Message").fill("not sent yet")
    ana.get_by_label("Message").fill("Hello")
    ana.get_by_role("button", name="Send").click()
    for tab in (ana, ben):
        expect(tab.get_by_role("listitem")).to_have_text(["ana Hello"])
    expect(ben.get_by_label("Message")).to_have_value("not sent yet")

    # Turbo goes to another room, and back, and the list listens to the room that is shown.
    ana.evaluate("window.isOnePage = true")
    ana.get_by_role("link", name="Garden").click()
    expect(ana.get_by_role("heading", name="Garden")).to_be_visible()
    site.channels.wait_for("private-room-garden", timeout=WAIT_SECONDS)
    wait_until_live(ana)
    ben.get_by_role("button", name="Send").click()
    expect(ben.get_by_role("listitem")).to_have_count(2)
    expect(ana.get_by_role("listitem")).to_have_count(0)
    ana.go_back()
    expect(ana.get_by_role("listitem")).to_have_text(["ana Hello", "ben not sent yet"])
    assert ana.evaluate("window.isOnePage")

    site.lose("private-room-lobby")
    wait_until_live(ana)
    ben.get_by_label("Message").fill("Again")
    ben.get_by_role("button", name="Send").click()
    expect(ana.get_by_role("listitem").last).to_have_text("ben Again")


def test_notifications(serve: Callable[[str], Site], new_tab: NewTab) -> None:
    site = serve("notices")
    ana = open_page(new_tab, site.address + "/as/ana")
    ben = open_page(new_tab, site.address + "/as/ben")
    ben.get_by_label("To").fill("ana")
    ben.get_by_label("Text").fill("Lunch?")
    ben.get_by_role("button", name="Send").click()
    expect(ana.get_by_role("listitem")).to_have_text(["Lunch?"])
    expect(ben.get_by_role("listitem")).to_have_count(0)
    second = ana.context.new_page()
    second.goto(site.address)
    wait_until_live(second)
    second.get_by_role("button", name="All read").click()
    for tab in (ana, second):
        expect(tab.get_by_text("No unread")).to_be_visible()

    for user in ("ana", "ben"):
        site.module.notices[user].append("Missed")
    site.channels.disconnect()
    for tab in (ana, ben):  # each at a random moment of its own
        expect(tab.get_by_role("listitem")).to_have_text(["Missed"])

    burst(site, ben, "#server-to-user-ben", "notice")


def test_who_is_here(serve: Callable[[str], Site], new_tab: NewTab) -> None:
    site = serve("here")
    ana = open_page(new_tab, site.address + "/as/Ana")
    ben = open_page(new_tab, site.address + "/as/<b>Ben")
    for tab in (ana, ben):
        expect(tab.get_by_role("listitem")).to_have_count(2)
        expect(tab.locator("[data-pusher-count]")).to_have_text("2")
    expect(ana.get_by_role("listitem").filter(has_text="<b>Ben")).to_be_visible()
    site.lose("presence-document-7")
    expect(ana.get_by_role("listitem")).to_have_count(2)
    ben.close()
    expect(ana.get_by_role("listitem")).to_have_text(["Ana"])
    expect(ana.locator("[data-pusher-count]")).to_have_text("1")


def test_a_job(serve: Callable[[str], Site], new_tab: NewTab) -> None:
    site = serve("job")
    ana = new_tab()
    ana.goto(site.address)
    ana.get_by_role("button", name="Start").click()
    ben = new_tab()
    ben.goto(ana.url)
    for tab in (ana, ben):
        expect(tab.get_by_text("Done.")).to_be_visible()
        expect(tab.get_by_role("progressbar")).to_have_attribute("value", "100")


def test_a_dashboard(serve: Callable[[str], Site], new_tab: NewTab) -> None:
    site = serve("dashboard")
    ana, ben = (open_page(new_tab, site.address) for _ in range(2))
    fetched = count_fetches(ana)
    ben.get_by_role("button", name="Count sales").click()
    for tab in (ana, ben):
        expect(tab.locator("#sales")).to_have_text(re.compile("1 +sales"))
    assert {address.rpartition("/")[2] for address in fetched} == {"sales"}

    site.module.numbers.update(sales=5, visits=6, faults=7)
    site.channels.disconnect()
    for tile, number in site.module.numbers.items():  # each at a random moment of its own
        expect(ana.locator(f"#{tile}")).to_have_text(re.compile(f"{number} +{tile}"))
    wait_until_live(ana)
    burst(site, ana, "dashboard", "visits")

"""The local server's own page, in a browser.

``FLASK_PUSHER_SCREENSHOTS`` names a folder that the pictures go to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

from _flask_pusher.local import page as page_room
from flask_pusher import Client, LocalServer, Pusher, local_server

from . import WAIT_SECONDS
from .connection import Connection
from .servers import APP_ID, KEY, SECRET

SIZES = {"desk": {"width": 1200, "height": 820}, "phone": {"width": 390, "height": 844}}

OpenPage = Callable[..., Page]


@pytest.fixture
def app() -> Flask:
    app = Flask("shop")
    app.config.update(PUSHER_APP_ID=APP_ID, PUSHER_KEY=KEY, PUSHER_SECRET=SECRET)
    pusher = Pusher(app)
    pusher.webhooks.event("member_added")(lambda event: None)
    return app


@pytest.fixture
def client(app: Flask) -> Client:
    client: Client = app.extensions["pusher"]
    return client


@pytest.fixture
def local(app: Flask) -> Iterator[LocalServer]:
    with local_server(app, webhooks=True) as server:
        yield server


@pytest.fixture
def open_page(chromium: Browser, local: LocalServer) -> Iterator[OpenPage]:
    """Opens the page, which has to load without a complaint in the browser's console."""
    contexts, complaints = [], []

    def complain(message: ConsoleMessage) -> None:
        if "400 (Bad Request)" not in message.text:  # which a wrong channel's name is answered by
            complaints.append(message.text)

    def open_page(size: str = "desk", scheme: Any = "light") -> Page:
        context = chromium.new_context(viewport=SIZES[size], color_scheme=scheme)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_SECONDS * 1000)
        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(local.url)
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


class Visitor:
    """A page of the application, as the server sees it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.connection = Connection(client)
        self.socket_id = self.connection.established()

    def sign_in(self, **user: object) -> None:
        self.connection.send("pusher:signin", self.client.authenticate_user(self.socket_id, user))
        self.connection.frame_of("pusher:signin_success")

    def subscribe(self, channel: str, data: dict[str, Any] | None = None) -> None:
        auth: dict[str, Any] = {}
        if channel.startswith(("private-", "presence-")):
            auth = dict(self.client.authenticate(channel, self.socket_id, data))
        self.connection.send("pusher:subscribe", {"channel": channel, **auth})
        self.connection.frame_of("pusher_internal:subscription_succeeded")

    def be_refused(self, channel: str, socket_id: str) -> None:
        """Subscribe with the authorisation of another connection."""
        auth = self.client.authenticate(channel, socket_id)
        self.connection.send("pusher:subscribe", {"channel": channel, **auth})
        self.connection.frame_of("pusher:subscription_error")


@pytest.fixture
def visit(client: Client, local: LocalServer) -> Iterator[Callable[[], Visitor]]:
    visitors: list[Visitor] = []

    def visit() -> Visitor:
        visitors.append(Visitor(client))
        return visitors[-1]

    yield visit
    for visitor in visitors:
        visitor.connection.close()


Visit = Callable[[], Visitor]


def log(page: Page) -> Locator:
    return page.locator("#log > li")


def happen(client: Client, visit: Visit) -> Visitor:
    """Let a little of everything happen, and return a visitor who was refused something."""
    ana, ben = visit(), visit()
    ana.sign_in(id="ana", user_info={"name": "Ana"})
    ana.subscribe("presence-support", {"user_id": "ana", "user_info": {"name": "Ana"}})
    ana.subscribe("private-orders-1001")
    ben.subscribe("presence-support", {"user_id": "ben", "user_info": {"name": "Ben"}})
    ben.be_refused("private-orders-1001", ana.socket_id)
    ben.subscribe("news")
    ana.connection.send("client-typing", {"in": "support"}, channel="presence-support")
    ben.connection.frame_of("client-typing")
    client.trigger(
        "private-orders-1001", "shipped", {"order": 1001, "by": {"carrier": "Otto", "days": 2}}
    )
    client.trigger("news", "headline", {"title": "The bakery opens at five"})
    return ben


def test_a_connections_story_is_told_from_its_beginning_to_its_end(
    open_page: OpenPage, client: Client, visit: Visit
) -> None:
    page = open_page()
    ben = happen(client, visit)
    ben.connection.close()
    page.get_by_text("1 gone", exact=True).click()
    page.get_by_role("button", name=f"{ben.socket_id} gone").click()
    expect(page.locator("#log .kind")).to_have_text(
        [
            "connect",
            "subscribe",
            "refused",
            "subscribe",
            "unsubscribe",
            "unsubscribe",
            "disconnect",
        ]
    )
    expect(log(page).nth(2)).to_contain_text("The signature is for another socket id")
    expect(page.locator("#selection")).to_contain_text("This connection has ended.")
    page.get_by_role("button", name="Show all again").click()
    expect(log(page).filter(has_text="headline to news")).to_be_visible()


def test_connections_that_are_gone_make_room_for_those_that_are_there(
    open_page: OpenPage, visit: Visit
) -> None:
    page = open_page()
    for _ in range(3):
        visit().connection.close()
    here = visit()
    gone = page.get_by_text("3 gone", exact=True)
    expect(gone).to_be_visible()
    rows = page.get_by_role("region", name="Connections").get_by_role("listitem")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(here.socket_id)
    gone.click()
    expect(rows).to_have_count(4)


def test_a_channel_shows_its_members_its_last_event_and_all_its_events(
    open_page: OpenPage, client: Client, visit: Visit
) -> None:
    page = open_page()
    happen(client, visit)
    support = page.get_by_role("button", name="presence-support")
    expect(support).to_contain_text("2 subscribers")
    expect(support).to_contain_text("Ana (ana), Ben (ben)")
    expect(support).to_contain_text("last: client-typing at")
    support.click()
    expect(page.locator("#members")).to_contain_text(
        'Ana (ana){"name":"Ana"}Ben (ben){"name":"Ben"}'
    )
    expect(log(page).filter(has_text="client-typing to presence-support")).to_be_visible()
    expect(log(page).filter(has_text="headline")).to_have_count(0)
    expect(page.locator("#log .kind").filter(has_text="subscribe")).to_have_count(2)


def test_what_happened_is_filtered_by_kind_and_by_channel(
    open_page: OpenPage, client: Client, visit: Visit
) -> None:
    page = open_page()
    happen(client, visit)
    expect(log(page).filter(has_text="headline to news")).to_be_visible()
    page.get_by_label("Kind").select_option("Events")
    expect(page.locator("#log .kind")).to_have_text(["event"] * 3)
    page.locator(".filters").get_by_label("Channel").fill("orders")
    expect(log(page)).to_have_count(1)
    page.get_by_label("Kind").select_option("What went wrong")
    expect(log(page)).to_have_count(1)
    expect(log(page)).to_contain_text("another socket id")


def see_all_of_it(page: Page, client: Client, visit: Visit) -> None:
    """Let it happen, and wait until the page shows it, with the webhooks, which come later."""
    happen(client, visit)
    expect(log(page).filter(has_text="headline to news")).to_be_visible()
    expect(log(page).filter(has_text="client_event presence-support")).to_be_visible()


def test_the_data_of_an_event_is_formatted(
    open_page: OpenPage, client: Client, visit: Visit
) -> None:
    page = open_page()
    see_all_of_it(page, client, visit)
    log(page).filter(has_text="shipped to private-orders-1001").locator("summary").click()
    data = {"order": 1001, "by": {"carrier": "Otto", "days": 2}}
    expect(page.locator("#log pre")).to_have_text(json.dumps(data, indent=2))
    client.trigger("news", "plain", "no <b>JSON</b>")
    page.get_by_role("button", name="Go on (1 new)").click()
    log(page).filter(has_text="plain to news").locator("summary").click()
    expect(page.locator("#log pre").first).to_have_text("no <b>JSON</b>")


def test_what_is_typed_is_triggered_if_it_is_json_or_said_to_be_text(
    open_page: OpenPage, visit: Visit
) -> None:
    page = open_page()
    reader = visit()
    reader.subscribe("news")
    form = page.locator("#trigger")
    form.get_by_label("Channel").fill("news")
    form.get_by_label("Event").fill("headline")
    form.get_by_label("Data").fill('{"title": "Rain}')
    expect(form.get_by_text("This is not JSON")).to_be_visible()
    expect(form.get_by_label("Data")).to_have_attribute("aria-invalid", "true")
    form.get_by_role("button", name="Trigger").click()
    expect(form.get_by_label("Data")).to_be_focused()

    form.get_by_label("Data").fill('{"title": "Rain"}')
    expect(form.get_by_text("This is not JSON")).to_have_count(0)
    form.get_by_role("button", name="Trigger").click()
    expect(form.get_by_text("Triggered, for 1 subscriber.")).to_be_visible()
    assert json.loads(reader.connection.frame_of("headline")["data"]) == {"title": "Rain"}

    form.get_by_label("Data").fill("Rain")
    form.get_by_label("It is text, not JSON").check()
    form.get_by_label("Data").press("Control+Enter")
    assert reader.connection.frame_of("headline")["data"] == "Rain"
    form.get_by_label("Channel").fill("no channel")
    form.get_by_role("button", name="Trigger").click()
    expect(form.get_by_text("Not a channel name: no channel")).to_be_visible()


def test_a_pause_keeps_the_list_still(open_page: OpenPage, client: Client, visit: Visit) -> None:
    page = open_page()
    see_all_of_it(page, client, visit)
    page.get_by_role("button", name="Pause").click()
    before = log(page).count()
    client.trigger("news", "while-paused", {})
    page.get_by_role("button", name="Go on (1 new)").click()
    expect(log(page)).to_have_count(before + 1)
    expect(log(page).first).to_contain_text("while-paused to news")


def test_a_flood_takes_away_neither_what_is_read_nor_what_is_rare(
    open_page: OpenPage, client: Client, visit: Visit
) -> None:
    page = open_page()
    happen(client, visit)
    log(page).filter(has_text="shipped to private-orders-1001").locator("summary").click()
    for _ in range(250):
        client.trigger_batch([{"channel": "news", "name": "e", "data": {}}] * 10)
    client.trigger("news", "last", {})
    expect(page.get_by_role("button", name="news")).to_contain_text("last: last at")
    expect(page.locator("#log pre")).to_contain_text("Otto")
    page.get_by_role("button", name="Go on").click()
    expect(log(page).first).to_contain_text("last to news")
    for each in (page, open_page()):
        each.get_by_label("Kind").select_option("What went wrong")
        expect(log(each)).to_have_count(1)
        expect(log(each)).to_contain_text("another socket id")


def test_a_filter_that_nothing_passes_says_so(
    open_page: OpenPage, client: Client, visit: Visit
) -> None:
    page = open_page()
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    visit()
    expect(log(page)).to_have_count(1)
    page.get_by_label("Kind").select_option("Events")
    expect(page.get_by_text("Nothing of what is kept here is like that.")).to_be_visible()


def test_the_keyboard_is_enough_and_keeps_its_place_while_things_happen(
    open_page: OpenPage, client: Client, visit: Visit
) -> None:
    page = open_page()
    happen(client, visit)
    news = page.get_by_role("button", name="news")
    expect(news).to_contain_text("headline")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="What happened")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Kind")).to_be_focused()
    news.focus()
    page.keyboard.press("Enter")
    expect(news).to_have_attribute("aria-pressed", "true")
    visit().subscribe("news")
    client.trigger("news", "late-headline", {})
    expect(news).to_contain_text("2 subscribers")
    expect(news).to_contain_text("late-headline")
    expect(news).to_be_focused()
    page.keyboard.press("Enter")
    expect(news).to_have_attribute("aria-pressed", "false")
    summary = log(page).filter(has_text="late-headline").locator("summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#log pre")).to_have_text("{}")


def test_hundreds_of_events_a_second_are_shown_and_do_not_fill_the_page(
    open_page: OpenPage, client: Client, visit: Visit
) -> None:
    page = open_page()
    visit().subscribe("news")
    for number in range(100):
        client.trigger_batch(
            [{"channel": "news", "name": f"e{number}-{n}", "data": {"n": n}} for n in range(10)]
        )
    expect(page.get_by_role("button", name="news")).to_contain_text("last: e99-9 at")
    expect(log(page).first).to_contain_text("e99-9 to news")
    assert log(page).count() <= 300
    page.locator(".filters").get_by_label("Channel").fill("other")
    expect(log(page)).to_have_count(0)


def test_what_came_too_fast_for_the_page_is_counted(
    app: Flask, client: Client, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_room, "RECENT", 4)
    page = chromium.new_context().new_page()
    with local_server(app) as server:
        page.goto(server.url)
        client.trigger("news", "before", {})
        expect(log(page)).to_have_count(1)
        batch = [{"channel": "news", "name": f"e{number}", "data": {}} for number in range(10)]
        client.trigger_batch(batch)
        expect(log(page).first).to_contain_text("e9 to news")
        expect(log(page).nth(4)).to_contain_text("6 things more, too fast to be shown")
        expect(log(page)).to_have_count(6)
    page.context.close()


def test_a_server_that_comes_back_is_shown_again(
    app: Flask, chromium: Browser, client: Client
) -> None:
    page = chromium.new_context().new_page()
    page.set_default_timeout(WAIT_SECONDS * 1000)
    with local_server(app) as first:
        page.goto(first.url)
        client.trigger("news", "before", {})
        expect(log(page)).to_have_count(1)
    expect(page.get_by_text("The server does not answer.")).to_be_visible()
    with local_server(app, port=first.port):
        expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=WAIT_SECONDS * 1000)
        client.trigger("news", "after", {})
        expect(log(page)).to_have_count(1)
        expect(log(page)).to_contain_text("after to news")
    page.context.close()


@pytest.fixture(scope="module")
def axe(packages: Path) -> str:
    return (packages / "axe-core/axe.min.js").read_text(encoding="utf-8")


def violations(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    found: list[str] = page.evaluate(
        """async () => (await axe.run({resultTypes: ["violations"]})).violations.flatMap(
            one => one.nodes.map(node => `${one.id}: ${node.html}: ${node.failureSummary}`))"""
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_is_accessible(
    open_page: OpenPage, client: Client, visit: Visit, axe: str, size: str, scheme: str
) -> None:
    page = open_page(size, scheme)
    assert violations(page, axe) == []
    ben = happen(client, visit)
    expect(log(page).filter(has_text="headline to news")).to_be_visible()
    assert violations(page, axe) == []
    if size == "phone":
        page.get_by_role("heading", name="Trigger an event").click()
    page.get_by_label("Data").fill("{")
    log(page).filter(has_text="shipped").locator("summary").click()
    page.get_by_role("button", name="presence-support").click()
    expect(page.locator("#members")).to_be_visible()
    assert violations(page, axe) == []
    ben.connection.close()
    page.get_by_text("1 gone", exact=True).click()
    page.get_by_role("button", name=f"{ben.socket_id} gone").click()
    assert violations(page, axe) == []


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("FLASK_PUSHER_SCREENSHOTS")
    return Path(folder) if folder else tmp_path_factory.mktemp("pictures")


@pytest.mark.parametrize(
    ("picture", "size", "scheme"),
    [
        ("local-server-light", "desk", "light"),
        ("local-server-dark", "desk", "dark"),
        ("local-server-phone", "phone", "light"),
    ],
)
def test_it_fits_the_screen_and_has_its_picture_taken(
    open_page: OpenPage,
    client: Client,
    visit: Visit,
    pictures: Path,
    picture: str,
    size: str,
    scheme: str,
) -> None:
    page = open_page(size, scheme)
    happen(client, visit)
    expect(page.locator("#log .webhook").first).to_be_visible()
    expect(log(page).filter(has_text="headline to news")).to_be_visible()
    log(page).filter(has_text="shipped").locator("summary").click()
    expect(page.locator("#log pre")).to_be_visible()
    page.screenshot(path=pictures / f"{picture}.png", full_page=size == "phone")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= SIZES[size]["width"]

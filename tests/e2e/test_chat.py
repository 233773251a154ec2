"""The example of a chat, as one command starts it, in browsers of several people.

``FLASK_PUSHER_SCREENSHOTS`` names a folder that the pictures go to; see the README.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, WebSocketRoute, expect

from .servers import APP_ID, KEY, SECRET, Soketi, _free_port
from .tools import Node

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHAT = Path(__file__).parents[2] / "examples" / "chat"
WAIT_SECONDS = 20
MARKUP = "<img src=x onerror=\"document.title='run'\">"
AXE = "axe-core@4.14.1"
WEBHOOKS = [
    "channel_occupied",
    "channel_vacated",
    "member_added",
    "member_removed",
    "client_event",
    "cache_miss",
    "subscription_count",
]


class Chat:
    """A chat that ``run.py`` has started, with its own terminal."""

    def __init__(self, folder: Path, log: Path, *arguments: str, **settings: str) -> None:
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PUSHER_", "CHAT_"))
        }
        self._log = log
        with log.open("wb") as terminal:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", folder / "run.py", *arguments],
                env={**inherited, **settings},
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=subprocess.STDOUT,
            )
        try:
            self.url = self._wait_for(r"Open (http://\S+)/ in two tabs")
        except BaseException:
            self.stop()
            raise

    @property
    def said(self) -> str:
        return self._log.read_text()

    def _wait_for(self, pattern: str) -> str:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            found = re.search(pattern, self.said)
            if found:
                return found[1]
            time.sleep(0.05)
        raise AssertionError(f"The chat did not start:\n{self.said}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self._process.send_signal(number)
        try:
            return self._process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise


StartChat = Callable[..., Chat]


@pytest.fixture(scope="module")
def start_chat(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartChat]:
    """Start a chat with npm's copy of pusher-js, on a port of its own."""
    chats = []
    pusher_js = packages / "pusher-js/dist/web/pusher-with-encryption.min.js"

    def start_chat(port: int = 0, **settings: str) -> Chat:
        log = tmp_path_factory.mktemp("chat") / "log"
        settings = {"CHAT_PUSHER_JS": str(pusher_js), **settings}
        chats.append(Chat(CHAT, log, f"--port={port}", **settings))
        return chats[-1]

    yield start_chat
    for chat in chats:
        chat.stop()
        print(chat.said)


@pytest.fixture(scope="module")
def local_chat(start_chat: StartChat) -> Chat:
    """The chat with its own Channels server, as a newcomer starts it."""
    return start_chat()


@pytest.fixture(scope="module", params=["soketi", "local"])
def chat(
    request: pytest.FixtureRequest,
    start_chat: StartChat,
    start_soketi: Callable[[list[dict[str, Any]]], Soketi],
) -> Chat:
    """The chat, with either Channels server."""
    if request.param == "local":
        chat: Chat = request.getfixturevalue("local_chat")
        return chat
    port = _free_port()
    webhooks = {"url": f"http://127.0.0.1:{port}/pusher/events", "event_types": WEBHOOKS}
    soketi = start_soketi([webhooks])
    return start_chat(
        port,
        PUSHER_URL=f"http://{KEY}:{SECRET}@127.0.0.1:{soketi.port}/apps/{APP_ID}",
    )


class Person:
    """Somebody in a room, with a tab open."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name
        self.errors: list[str] = []
        page.set_default_timeout(WAIT_SECONDS * 1000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._keep_error)

    def _keep_error(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def come_in(self, chat: Chat) -> Person:
        self.page.goto(chat.url)
        self.page.get_by_label("Your name").fill(self.name)
        self.page.get_by_role("button", name="Come in").click()
        self.wait_to_be_in()
        return self

    def wait_to_be_in(self) -> None:
        expect(self.page.get_by_text("Connected", exact=True)).to_be_visible()
        expect(self.people.filter(has_text="(you)")).to_be_visible()

    def enter(self, room: str) -> None:
        self.page.get_by_role("navigation").get_by_role("link", name=room).click()
        expect(self.page.get_by_role("heading", level=1)).to_have_text(room)

    def say(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.get_by_role("button", name="Send", exact=True).click()

    def write_note(self, to: str, text: str) -> None:
        self.page.get_by_role("button", name=f"Note to {to}").click()
        self.page.get_by_role("dialog").get_by_label("Note").fill(text)
        self.page.get_by_role("button", name="Send note").click()

    @property
    def messages(self) -> Locator:
        return self.page.get_by_role("log", name="Messages").get_by_role("listitem")

    @property
    def people(self) -> Locator:
        return self.page.get_by_role("region", name="Here now").get_by_role("listitem")

    @property
    def webhooks(self) -> Locator:
        return self.page.get_by_role("log", name="Webhooks").get_by_role("listitem")


Meet = Callable[..., Person]


@pytest.fixture
def open_browser(chromium: Browser) -> Iterator[Callable[..., BrowserContext]]:
    contexts = []

    def open_browser(**options: Any) -> BrowserContext:
        contexts.append(chromium.new_context(locale="en-GB", **options))
        return contexts[-1]

    yield open_browser
    for context in contexts:
        context.close()


@pytest.fixture
def meet(open_browser: Callable[..., BrowserContext]) -> Iterator[Meet]:
    """Make somebody come into the lobby, in a browser of their own; it must log no error."""
    people = []

    def meet(chat: Chat, name: str, **options: Any) -> Person:
        people.append(Person(open_browser(**options).new_page(), name))
        return people[-1].come_in(chat)

    yield meet
    assert [person.errors for person in people] == [[] for _ in people]


def test_two_people_see_each_other_come_type_speak_and_leave(chat: Chat, meet: Meet) -> None:
    ana = meet(chat, "Ana")
    expect(ana.people).to_have_text([re.compile("Ana")])

    ben = meet(chat, "Ben")
    expect(ana.messages.filter(has_text="Ben came in.")).to_be_visible()
    for person in (ana, ben):
        expect(person.people).to_have_text([re.compile("Ana"), re.compile("Ben")])

    ben.page.get_by_label("Message", exact=True).press_sequentially("Hello")
    expect(ana.page.get_by_text("Ben is typing…")).to_be_visible()

    ben.say("Hello Ana!")
    expect(ana.messages.filter(has_text="Hello Ana!")).to_have_text(re.compile("Ben"))
    expect(ana.page.get_by_text("Ben is typing…")).to_have_count(0)
    ana.say("Hello Ben!")
    expect(ben.messages.filter(has_text="Hello Ben!")).to_have_count(1)
    for person in (ana, ben):
        assert person.messages.filter(has_text="Hello").count() == 2

    ben.page.close()
    expect(ana.messages.filter(has_text="Ben left.")).to_be_visible()
    expect(ana.people).to_have_text([re.compile("Ana")])


def test_two_tabs_of_one_browser_are_two_people(
    chat: Chat, open_browser: Callable[..., BrowserContext]
) -> None:
    browser = open_browser()
    ana = Person(browser.new_page(), "Ana").come_in(chat)
    ben = Person(browser.new_page(), "Ben").come_in(chat)

    ana.say("I am in the first tab")
    ben.say("And I in the second")

    expect(ana.messages.filter(has_text="second")).to_have_text(re.compile("Ben"))
    expect(ben.messages.filter(has_text="first")).to_have_text(re.compile("Ana"))


def test_what_somebody_types_is_never_markup(chat: Chat, meet: Meet) -> None:
    name = "<img src=x onerror=x()>"
    ana, mallory = meet(chat, "Ana"), meet(chat, name)
    mallory.page.get_by_label("Message", exact=True).press_sequentially("x")
    expect(ana.page.get_by_text(f"{name} is typing…")).to_be_visible()

    mallory.say(MARKUP)
    mallory.write_note("Ana", f"{MARKUP} for you")

    expect(ana.messages.filter(has_text=MARKUP)).to_have_count(2)
    expect(ana.messages.filter(has_text=f"{name} came in.")).to_be_visible()
    expect(ana.people.filter(has_text=name)).to_be_visible()
    expect(ana.webhooks.filter(has_text="client_event").first).to_be_visible()
    for person in (ana, mallory):
        assert person.page.locator("section img, main img, dialog img").count() == 0
        expect(person.page).to_have_title("Lobby · Chat")


def test_a_note_reaches_one_user_alone(chat: Chat, meet: Meet) -> None:
    ana, ben, cleo = meet(chat, "Ana"), meet(chat, "Ben"), meet(chat, "Cleo")
    ben.enter("Garden")
    expect(ana.people.filter(has_text="Ben")).to_have_count(0)
    cleo.enter("Garden")
    cleo.wait_to_be_in()

    cleo.write_note("Ben", "Just between us")
    expect(ben.messages.filter(has_text="Just between us")).to_have_text(
        re.compile("Cleo to you alone")
    )
    expect(cleo.messages.filter(has_text="Just between us")).to_have_text(
        re.compile("You to Ben alone")
    )

    cleo.say("And this is for all")
    expect(ben.messages.filter(has_text="for all")).to_be_visible()
    assert ana.messages.filter(has_text="Just between us").count() == 0


def test_a_note_to_somebody_who_left_is_refused(chat: Chat, meet: Meet) -> None:
    ana, ben = meet(chat, "Ana"), meet(chat, "Ben")
    ana.page.get_by_role("button", name="Note to Ben").click()
    ben.page.close()
    expect(ana.messages.filter(has_text="Ben left.")).to_be_visible()

    dialog = ana.page.get_by_role("dialog")
    dialog.get_by_label("Note").fill("Too late")
    dialog.get_by_role("button", name="Send note").click()

    expect(dialog.get_by_role("alert")).to_have_text("Not sent: they have left.")
    assert ana.errors.pop().endswith("404 (NOT FOUND)")


def test_in_the_vault_the_service_carries_no_text(chat: Chat, meet: Meet) -> None:
    ana, ben = meet(chat, "Ana"), meet(chat, "Ben")
    frames: list[str] = []
    ben.page.on(
        "websocket",
        lambda socket: socket.on("framereceived", lambda frame: frames.append(str(frame))),
    )
    for person in (ana, ben):
        person.enter("Vault")
        person.wait_to_be_in()
    expect(ana.people).to_have_count(2)

    ana.say("The key is under the mat")

    expect(ben.messages.filter(has_text="The key is under the mat")).to_be_visible()
    assert "ciphertext" in "".join(frames)
    assert "under the mat" not in "".join(frames)


def test_a_newcomer_is_given_the_last_message(chat: Chat, meet: Meet) -> None:
    ana = meet(chat, "Ana")
    ana.enter("Garden")
    ana.wait_to_be_in()
    ana.say("The roses are out")
    expect(ana.messages.filter(has_text="roses")).to_be_visible()

    ben = meet(chat, "Ben")
    ben.enter("Garden")

    expect(ben.messages.filter(has_text="The roses are out")).to_have_text(re.compile("Ana"))


def test_webhooks_are_shown_as_they_arrive(chat: Chat, meet: Meet) -> None:
    ana = meet(chat, "Ana")
    ben = meet(chat, "Ben")
    ben.page.get_by_label("Message", exact=True).press_sequentially("x")
    expect(ana.webhooks.filter(has_text="client-typing").first).to_be_visible()
    ben.page.close()

    for name in ("member_added", "member_removed"):
        shown = ana.webhooks.filter(has_text=name).filter(has_text="user_id: ben")
        expect(shown.first).to_contain_text("presence-room-lobby")


def test_signing_out_ends_all_tabs_of_the_user(
    chat: Chat, open_browser: Callable[..., BrowserContext]
) -> None:
    browser = open_browser()
    first = Person(browser.new_page(), "Ana").come_in(chat)
    second = Person(browser.new_page(), "Ana").come_in(chat)

    first.page.get_by_role("button", name="Sign out").click()

    expect(first.page.get_by_label("Your name")).to_be_focused()
    expect(second.page.get_by_text("Disconnected. Sign in again.")).to_be_visible()
    second.say("Still here?")
    expect(second.page.get_by_role("alert")).to_have_text("You signed out.")
    expect(second.page.get_by_label("Message", exact=True)).to_have_value("Still here?")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("...", "A name needs a letter or a digit."),
        ("A\u202ena", "A name cannot have invisible characters."),
        ("\U0001d11e1" * 12, "This name is too long. 24 letters are the most."),
        ("ANA", "There is a ANA here already. Take another name."),
    ],
)
def test_a_refused_name_is_told_and_can_be_mended(
    chat: Chat, meet: Meet, open_browser: Callable[..., BrowserContext], name: str, reason: str
) -> None:
    meet(chat, "Ana")
    page = open_browser().new_page()
    page.goto(chat.url)
    page.get_by_label("Your name").fill(name)
    page.keyboard.press("Enter")

    expect(page.get_by_role("alert")).to_have_text(reason)
    field = page.get_by_label("Your name")
    expect(field).to_be_focused()
    expect(field).to_have_value(name)
    expect(field).to_have_accessible_description(reason)

    field.fill("Zoë ~%=")
    page.keyboard.press("Enter")
    Person(page, "Zoë ~%=").wait_to_be_in()


def test_a_closed_room_says_so(chat: Chat, meet: Meet) -> None:
    ana = meet(chat, "Ana")
    ana.enter("Attic")

    expect(ana.page.get_by_role("alert")).to_have_text("This room is closed. Choose another.")
    expect(ana.page.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    # pusher-js asked, and the browser's console shows that it was refused.
    assert {error.split(":")[0] for error in ana.errors} == {"Failed to load resource"}
    ana.errors.clear()
    ana.enter("Lobby")
    ana.wait_to_be_in()


def test_an_unknown_room_says_so(local_chat: Chat, meet: Meet) -> None:
    ana = meet(local_chat, "Ana")
    ana.page.goto(f"{local_chat.url}/rooms/cellar?user=ana")
    expect(ana.page.get_by_text("There is no such room.")).to_be_visible()
    assert ana.errors.pop().endswith("404 (NOT FOUND)")


def test_who_is_not_signed_in_is_led_to_the_door(
    local_chat: Chat, open_browser: Callable[..., BrowserContext]
) -> None:
    page = open_browser().new_page()
    page.goto(f"{local_chat.url}/rooms/lobby?user=ana")
    expect(page.get_by_label("Your name")).to_be_focused()


def test_a_lost_connection_is_told_and_mended(
    local_chat: Chat, open_browser: Callable[..., BrowserContext]
) -> None:
    sockets: list[WebSocketRoute] = []
    page = open_browser().new_page()

    def connect(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    page.route_web_socket("**/app/*", connect)
    ana = Person(page, "Ana").come_in(local_chat)
    ana.say("Before")

    with page.expect_request(f"{local_chat.url}/pusher/auth"):
        sockets[0].close()
        expect(page.get_by_text("Connection lost. Trying again…")).to_be_visible()
    ana.wait_to_be_in()
    assert ana.messages.filter(has_text="Before").count() == 1
    assert len(sockets) == 2


def test_a_message_that_cannot_be_sent_is_kept(local_chat: Chat, meet: Meet) -> None:
    ana = meet(local_chat, "Ana")
    ana.page.route("**/messages", lambda route: route.abort())
    ana.say("Do you hear me?")
    expect(ana.page.get_by_role("alert")).to_have_text(
        "Not sent: the application does not answer."
    )
    expect(ana.page.get_by_label("Message", exact=True)).to_have_value("Do you hear me?")
    ana.errors.clear()

    ana.page.unroute("**/messages")
    ana.page.keyboard.press("Tab")
    ana.page.keyboard.press("Enter")
    expect(ana.messages.filter(has_text="Do you hear me?")).to_be_visible()
    expect(ana.page.get_by_role("alert")).to_have_text("")

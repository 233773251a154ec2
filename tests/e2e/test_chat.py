"""The example of a chat, as one command starts it, in browsers of several people.

``FLASK_PUSHER_SCREENSHOTS`` names a folder that the pictures go to; see the README.
"""

from __future__ import annotations

import copy
import errno
import itertools
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, WebSocketRoute, expect

from . import WAIT_SECONDS
from .live import until
from .servers import APP_ID, KEY, SECRET, Soketi, free_port
from .tools import INSTALL_SECONDS, Node

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHAT = Path(__file__).resolve().parents[2] / "examples" / "chat"
PUSHER_JS = "pusher-js/dist/web/pusher-with-encryption.min.js"
MARKUP = "<img src=x onerror=\"document.title='run'\">"
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
        deadline = time.monotonic() + WAIT_SECONDS + INSTALL_SECONDS  # its first start may fetch
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

    def start_chat(port: object = 0, **settings: str) -> Chat:
        log = tmp_path_factory.mktemp("chat") / "log"
        settings = {"CHAT_PUSHER_JS": str(packages / PUSHER_JS), **settings}
        arguments = [] if port is None else [f"--port={port}"]
        chats.append(Chat(CHAT, log, *arguments, **settings))
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
    port = free_port()
    webhooks = {"url": f"http://127.0.0.1:{port}/pusher/events", "event_types": WEBHOOKS}
    soketi = start_soketi([webhooks])
    return start_chat(
        port,
        PUSHER_URL=f"http://{KEY}:{SECRET}@127.0.0.1:{soketi.port}/apps/{APP_ID}",
    )


def unique() -> str:
    """Part of a name that nobody had before, of whom pages may still be told that they left."""
    return uuid.uuid4().hex[:6]


class Person:
    """Somebody in a room, with a tab open."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name
        self.errors: list[str] = []
        page.set_default_timeout(WAIT_SECONDS * 1000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._keep_error)

    def followed_by(self, name: str) -> Person:
        """Who has this tab next, and its errors, too."""
        person = copy.copy(self)
        person.name = name
        return person

    def _keep_error(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def come_in(self, chat: Chat) -> Person:
        """A name is free again as soon as Channels knows that its last bearer's page is closed."""
        connected = self.page.get_by_text("Connected", exact=True)
        is_taken = self.page.get_by_text(f"There is a {self.name} here already.")
        deadline = time.monotonic() + WAIT_SECONDS
        self.page.goto(chat.url)
        while True:
            self.page.get_by_label("Your name").fill(self.name)
            self.page.get_by_role("button", name="Come in").click()
            expect(connected.or_(is_taken)).to_be_visible()
            if not is_taken.is_visible() or time.monotonic() > deadline:
                break
            self.errors.clear()  # the browser's line about the refusal
        self.wait_to_be_in()
        return self

    def wait_to_be_in(self) -> None:
        expect(self.page.get_by_text("Connected", exact=True)).to_be_visible()
        expect(self.people.filter(has_text="(you)")).to_be_visible()

    def wait_to_hear(self) -> None:
        """Wait until the page has signed in and subscribed."""
        script = "!!pusher.user.user_data && pusher.allChannels().every((one) => one.subscribed)"
        # What `wait_for_function` asks again, the chat's Content-Security-Policy forbids.
        until(lambda: self.page.evaluate(script), "what the page hears", self.page)

    def type_until(self, shown: Locator) -> None:
        """Go on typing until somebody sees it, who does for some seconds only."""

        def is_seen() -> bool:
            self.box.press_sequentially("x")
            self.box.press("Backspace")
            return shown.is_visible()

        until(is_seen, "somebody to see who types", self.page)

    def enter(self, room: str) -> None:
        self.page.get_by_role("navigation").get_by_role("link", name=room).click()
        expect(self.page.get_by_role("heading", level=1)).to_have_text(room)

    def say(self, text: str) -> None:
        self.box.fill(text)
        self.page.get_by_role("button", name="Send", exact=True).click()

    def begin_note(self, to: str, text: str) -> Locator:
        """Write a note, and do not send it yet."""
        self.page.get_by_role("button", name=f"Note to {to}").click()
        dialog = self.page.get_by_role("dialog", name=f"A note to {to}")
        dialog.get_by_label("Note").fill(text)
        return dialog

    def write_note(self, to: str, text: str) -> None:
        dialog = self.begin_note(to, text)
        dialog.get_by_role("button", name="Send note").click()
        expect(dialog).to_be_hidden()  # nothing else can be typed into

    @property
    def box(self) -> Locator:
        return self.page.get_by_label("Message", exact=True)

    @property
    def messages(self) -> Locator:
        return self.page.get_by_role("log", name="Messages").get_by_role("listitem")

    @property
    def people(self) -> Locator:
        return self.page.get_by_role("region", name="Here now").get_by_role("listitem")

    @property
    def webhooks(self) -> Locator:
        return self.page.get_by_role("log", name="Webhooks").get_by_role("listitem")


class Line:
    """The line between a page and the Channels server, which a test can cut."""

    def __init__(self, page: Page) -> None:
        self._sockets: list[WebSocketRoute] = []
        self._is_whole = True
        self._page = page
        page.route_web_socket("**/app/*", self._connect)

    def _connect(self, socket: WebSocketRoute) -> None:
        if self._is_whole:
            socket.connect_to_server()
        self._sockets.append(socket)

    def cut(self) -> None:
        self._is_whole = False
        self._sockets[-1].close()
        expect(self._page.get_by_text("Connection lost. Trying again…")).to_be_visible()

    def mend(self) -> None:
        self._is_whole = True
        self._sockets[-1].close()


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
    expect(ana.people).to_have_text([re.compile(r"Ana.*\(you\)"), re.compile("Ben")])
    expect(ben.people).to_have_text([re.compile(r"Ben.*\(you\)"), re.compile("Ana")])

    ben.type_until(ana.page.get_by_text("Ben is typing…"))

    ben.say("Hello Ana!")
    expect(ana.messages.filter(has_text="Hello Ana!")).to_have_text(re.compile("Ben"))
    expect(ana.page.get_by_text("Ben is typing…")).to_have_count(0)
    ana.say("Hello Ben!")
    expect(ben.messages.filter(has_text="Hello Ben!")).to_have_count(1)
    for person in (ana, ben):
        expect(person.messages.filter(has_text="Hello")).to_have_count(2)

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
    mallory.type_until(ana.page.get_by_text(f"{name} is typing…"))

    mallory.say(MARKUP)
    mallory.write_note("Ana", f"{MARKUP} for you")

    expect(ana.messages.filter(has_text=MARKUP)).to_have_count(2)
    expect(ana.messages.filter(has_text=f"{name} came in.")).to_be_visible()
    expect(ana.people.filter(has_text=name)).to_be_visible()
    expect(ana.webhooks.filter(has_text="client_event").first).to_be_visible()
    for person in (ana, mallory):
        assert person.page.locator("img[onerror], img[src=x]").count() == 0
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


def test_a_note_that_was_given_up_reaches_nobody_else(chat: Chat, meet: Meet) -> None:
    ana, cleo = meet(chat, "Ana"), meet(chat, "Cleo")
    meet(chat, "Ben")
    dialog = ana.begin_note("Ben", "Cleo must never know")
    ana.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)

    dialog = ana.begin_note("Cleo", "")
    expect(dialog.get_by_label("Note")).to_have_value("")
    dialog.get_by_label("Note").fill("Hello Cleo")
    dialog.get_by_role("button", name="Cancel").click()
    dialog = ana.begin_note("Ben", "")
    expect(dialog.get_by_label("Note")).to_have_value("")
    ana.page.keyboard.press("Escape")

    ana.write_note("Cleo", "Nothing secret")
    expect(cleo.messages.filter(has_text="Nothing secret")).to_be_visible()
    assert cleo.messages.filter(has_text="never know").count() == 0


def test_a_slow_note_stays_with_whom_it_is_for(local_chat: Chat, meet: Meet) -> None:
    ana = meet(local_chat, "Ana")
    meet(local_chat, "Ben")
    meet(local_chat, "Cleo")
    notes: list[Route] = []
    ana.page.route("**/notes", lambda route: notes.append(route))

    with ana.page.expect_request("**/notes"):
        dialog = ana.begin_note("Ben", "For Ben")
        dialog.get_by_role("button", name="Send note").click()
        expect(dialog.get_by_role("button", name="Send note")).to_be_disabled()
        ana.page.keyboard.press("Enter")  # an impatient second time
    ana.page.keyboard.press("Escape")
    dialog = ana.begin_note("Cleo", "For Cleo")
    notes.pop().continue_()

    expect(ana.messages.filter(has_text="For Ben")).to_have_text(re.compile("You to Ben alone"))
    expect(dialog.get_by_label("Note")).to_have_value("For Cleo")
    assert notes == []


def test_a_slow_note_that_fails_says_whose_it_was(local_chat: Chat, meet: Meet) -> None:
    ana = meet(local_chat, "Ana")
    meet(local_chat, "Ben")
    meet(local_chat, "Cleo")
    notes: list[Route] = []
    ana.page.route("**/notes", lambda route: notes.append(route))

    with ana.page.expect_request("**/notes"):
        ana.begin_note("Ben", "For Ben").get_by_role("button", name="Send note").click()
    ana.page.keyboard.press("Escape")
    dialog = ana.begin_note("Cleo", "For Cleo")
    notes.pop().abort()

    expect(ana.page.locator("#problem")).to_have_text(
        "Not sent: the application does not answer. Your note to Ben was: For Ben"
    )
    expect(dialog.get_by_role("alert")).to_have_text("")
    expect(dialog.get_by_label("Note")).to_have_value("For Cleo")
    ana.errors.clear()


def test_a_note_to_somebody_who_left_is_refused(chat: Chat, meet: Meet) -> None:
    name = f"Ben {unique()}"
    ana, ben = meet(chat, "Ana"), meet(chat, name)
    dialog = ana.begin_note(name, "Too late")
    ben.page.close()
    expect(ana.messages.filter(has_text=f"{name} left.")).to_be_visible()

    dialog.get_by_role("button", name="Send note").click()

    expect(dialog.get_by_role("alert")).to_have_text("Not sent: they have left.")
    dialog.get_by_role("button", name="Cancel").click()
    expect(ana.box).to_be_focused()
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
    ben.wait_to_hear()

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
    # Of somebody who has just left nobody is told: each run has a Ben of its own.
    ana, name = meet(chat, "Ana"), f"Ben {uuid.uuid4().hex[:6]}"
    ben = meet(chat, name)
    ben.box.press_sequentially("x")
    expect(ana.webhooks.filter(has_text="client-typing").first).to_be_visible()
    ben.page.close()

    for told in ("member_added", "member_removed"):
        shown = ana.webhooks.filter(has_text=told).filter(has_text=name[4:])
        expect(shown.first).to_contain_text("presence-room-lobby")


def test_the_log_of_webhooks_does_not_tell_of_itself(local_chat: Chat, meet: Meet) -> None:
    ana = meet(local_chat, "Ana")
    meet(local_chat, "Ben")
    for name in ("subscription_count", "member_added"):
        expect(ana.webhooks.filter(has_text=name).filter(has_text="lobby").first).to_be_visible()

    assert ana.webhooks.filter(has_text="private-webhooks").count() == 0


def test_the_log_of_webhooks_goes_along_from_room_to_room(chat: Chat, meet: Meet) -> None:
    ana, name = meet(chat, "Ana"), f"Ben {uuid.uuid4().hex[:6]}"
    meet(chat, name).enter("Garden")
    of_ben = ana.webhooks.filter(has_text=name[4:])
    for told in ("member_added", "member_removed"):
        expect(of_ben.filter(has_text=told).filter(has_text="lobby")).to_have_count(1)
    expect(of_ben.filter(has_text="garden")).to_have_count(1)
    seen = of_ben.all_inner_texts()

    ana.enter("Vault")
    ana.wait_to_be_in()

    expect(of_ben).to_have_text([re.compile(re.escape(text.split("\n")[0][6:])) for text in seen])
    # The page was not there any more when its own leaving was told.
    left = ana.webhooks.filter(has_text="member_removed").filter(has_text="user_id: ana")
    expect(left.first).to_contain_text("presence-room-lobby")


def test_the_log_of_webhooks_carries_nothing_that_was_said(chat: Chat, meet: Meet) -> None:
    ana, ben = meet(chat, "Ana"), meet(chat, "Ben")
    ben.page.evaluate("people.trigger('client-whisper', {text: 'psst' + 'x'.repeat(10200)})")

    whisper = ana.webhooks.filter(has_text="client-whisper").first
    expect(whisper).to_contain_text("user_id: ben")
    expect(whisper).not_to_contain_text("psst")
    expect(whisper).not_to_contain_text("socket_id")


def test_a_room_that_one_comes_back_to_is_as_it_was_left(local_chat: Chat, meet: Meet) -> None:
    ana, ben = meet(local_chat, "Ana"), meet(local_chat, "Ben")
    ana.say("Story first")
    ben.say("Story second")
    expect(ana.messages.filter(has_text="Story second")).to_be_visible()
    ben.write_note("Ana", "Story third")
    expect(ana.messages.filter(has_text="Story third")).to_be_visible()
    ana.box.fill("Story four")

    ana.enter("Garden")
    ana.wait_to_be_in()
    expect(ana.box).to_have_value("")
    assert ana.messages.filter(has_text="Story").count() == 0
    ana.enter("Lobby")

    expect(ana.messages.filter(has_text="Story first")).to_have_text(re.compile("You"))
    expect(ana.messages.filter(has_text="Story second")).to_have_text(re.compile("Ben"))
    expect(ana.messages.filter(has_text="Story third")).to_have_text(
        re.compile("Ben to you alone")
    )
    expect(ana.box).to_have_value("Story four")
    with ana.page.expect_request_finished(lambda request: request.method == "POST"):
        ana.box.press("Enter")
    expect(ben.messages.filter(has_text="Story four")).to_be_visible()
    ana.page.reload()
    ana.wait_to_be_in()
    expect(ana.box).to_have_value("")
    assert ana.messages.filter(has_text="Story four").count() == 1


def test_nobody_finds_what_another_read_in_the_same_tab(local_chat: Chat, meet: Meet) -> None:
    ana, ben = meet(local_chat, "Ana"), meet(local_chat, "Ben")
    ben.write_note("Ana", "For your eyes alone")
    expect(ana.messages.filter(has_text="eyes alone")).to_be_visible()
    ana.box.fill("Dear diary")

    for next_name in ("Mallory", "Ana"):
        ana.page.get_by_role("button", name="Sign out").click()
        mallory = ana.followed_by(next_name).come_in(local_chat)
        expect(mallory.box).to_have_value("")
        assert mallory.messages.filter(has_text="eyes alone").count() == 0


def test_going_back_after_signing_out_leads_nowhere(local_chat: Chat, meet: Meet) -> None:
    ana = meet(local_chat, "Ana")
    ana.say("For those who are in")
    expect(ana.messages.filter(has_text="who are in")).to_be_visible()
    ana.page.get_by_role("button", name="Sign out").click()
    expect(ana.page.get_by_label("Your name")).to_be_focused()

    ana.page.go_back()

    expect(ana.page.get_by_label("Your name")).to_be_focused()
    expect(ana.page.get_by_text("For those who are in")).to_have_count(0)


def test_nobody_finds_what_another_wrote_in_the_same_tab(local_chat: Chat, meet: Meet) -> None:
    ana = meet(local_chat, "Ana")
    ana.box.fill("Dear diary")

    mallory = ana.followed_by("Mallory").come_in(local_chat)

    expect(mallory.box).to_have_value("")


def test_signing_out_ends_all_tabs_of_the_user(
    chat: Chat, open_browser: Callable[..., BrowserContext], meet: Meet
) -> None:
    ben = meet(chat, "Ben")
    browser = open_browser()
    name = f"Ana {unique()}"
    first = Person(browser.new_page(), name).come_in(chat)
    second = Person(browser.new_page(), name).come_in(chat)
    second.box.fill("Half a sent")
    dialog = second.begin_note("Ben", "Half a note")

    first.page.get_by_role("button", name="Sign out").click()

    expect(first.page.get_by_label("Your name")).to_be_focused()
    expect(second.page.get_by_text("Disconnected", exact=True)).to_be_visible()
    expect(dialog).to_have_count(0)
    assert_is_signed_out(second)
    expect(second.box).to_have_value("Half a sent")
    expect(ben.messages.filter(has_text=f"{name} left.")).to_be_visible()

    second.page.keyboard.press("Shift+Tab")
    expect(second.page.get_by_role("link", name="Sign in again")).to_be_focused()
    second.page.keyboard.press("Enter")
    expect(second.page.get_by_label("Your name")).to_be_focused()


def assert_is_signed_out(person: Person) -> None:
    """The page says so, offers the way back, and nothing can be written any more."""
    expect(person.page.get_by_role("alert")).to_have_text("You signed out. Sign in again.")
    expect(person.page.get_by_role("link", name="Sign in again")).to_be_visible()
    expect(person.box).not_to_be_editable()
    for button in person.page.locator("main button, section button").all():
        expect(button).to_be_disabled()


def test_a_page_that_was_asleep_when_its_user_signed_out_is_told(
    local_chat: Chat, open_browser: Callable[..., BrowserContext]
) -> None:
    browser = open_browser()
    page = browser.new_page()
    line = Line(page)
    ana = Person(page, "Ana").come_in(local_chat)
    line.cut()

    browser.request.post(f"{local_chat.url}/sign-out", form={"user": "ana"})
    line.mend()

    assert_is_signed_out(ana)
    expect(page.get_by_text("Disconnected", exact=True)).to_be_visible()


def let_elements_hear_nothing(person: Person) -> None:
    """What they fetch would tell the page, before it sends anything, that its user is gone."""
    person.wait_to_hear()
    for fetched in ("**/messages?*", "**/webhooks?*"):
        person.page.route(fetched, lambda route: route.abort())


def test_a_message_of_a_user_who_signed_out_is_refused(
    local_chat: Chat, open_browser: Callable[..., BrowserContext]
) -> None:
    browser = open_browser()
    ana = Person(browser.new_page(), "Ana").come_in(local_chat)
    let_elements_hear_nothing(ana)
    browser.clear_cookies()

    ana.say("Still here?")

    assert_is_signed_out(ana)
    expect(ana.box).to_have_value("Still here?")


def test_a_note_of_a_user_who_signed_out_is_refused(
    local_chat: Chat, meet: Meet, open_browser: Callable[..., BrowserContext]
) -> None:
    meet(local_chat, "Ben")
    browser = open_browser()
    ana = Person(browser.new_page(), "Ana").come_in(local_chat)
    let_elements_hear_nothing(ana)
    browser.clear_cookies()

    ana.write_note("Ben", "Still here?")

    assert_is_signed_out(ana)


@pytest.mark.parametrize("user", ["ana", "ben", "nobody", "", "no one\n", None])
def test_whoever_signs_out_comes_to_the_door(
    chat: Chat, open_browser: Callable[..., BrowserContext], user: str | None
) -> None:
    requests = open_browser().request
    requests.post(f"{chat.url}/sign-in", form={"name": "Ana"})
    form: dict[str, str | float | bool] = {} if user is None else {"user": user}

    answer = requests.post(f"{chat.url}/sign-out", form=form, max_redirects=0)

    assert (answer.status, answer.headers["location"]) == (302, "/")


def test_without_a_channels_service_one_can_sign_out_and_is_told_when_coming_in(
    open_browser: Callable[..., BrowserContext], start_chat: StartChat
) -> None:
    key = "signs the cookies of both, which all ports of a host share"
    nowhere = f"http://{KEY}:{SECRET}@127.0.0.1:{free_port()}/apps/{APP_ID}"
    chat, stranded = start_chat(SECRET_KEY=key), start_chat(SECRET_KEY=key, PUSHER_URL=nowhere)
    browser = open_browser()
    browser.request.post(f"{chat.url}/sign-in", form={"name": "Ana"})
    page = browser.new_page()
    page.goto(stranded.url)
    expect(page.get_by_role("link", name="Ana")).to_be_visible()

    browser.request.post(f"{stranded.url}/sign-out", form={"user": "ana"})
    page.reload()
    expect(page.get_by_role("link", name="Ana")).to_have_count(0)

    page.get_by_label("Your name").fill("Ana")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The Channels service failed.")).to_be_visible()
    assert "Channels: " in stranded.said


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("...", "A name needs a letter or a digit."),
        ("A\u202ena", "A name cannot have invisible characters."),
        ("\u540d" * 24, "This name is too long. 24 letters are the most."),
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

    accepted = f"Zoë ~%= {unique()}"
    field.fill(accepted)
    page.keyboard.press("Enter")
    Person(page, accepted).wait_to_be_in()


def test_a_closed_room_says_so(chat: Chat, meet: Meet) -> None:
    ana = meet(chat, "Ana")
    ana.enter("Attic")

    expect(ana.page.get_by_role("alert")).to_have_text("This room is closed. Choose another.")
    expect(ana.page.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    ana.enter("Lobby")
    ana.wait_to_be_in()
    # pusher-js asked, and the browser's console shows, sooner or later, that it was refused.
    assert {error.split(":")[0] for error in ana.errors} == {"Failed to load resource"}
    ana.errors.clear()


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
    local_chat: Chat, meet: Meet, open_browser: Callable[..., BrowserContext]
) -> None:
    page = open_browser().new_page()
    line = Line(page)
    ana = Person(page, "Ana").come_in(local_chat)
    ana.say("Before")
    expect(ana.messages.filter(has_text="Before")).to_be_visible()

    line.cut()
    meet(local_chat, "Zoe").enter("Garden")
    line.mend()
    ana.wait_to_be_in()

    # What the webhooks told meanwhile is there, and the service repeats the last message.
    expect(ana.webhooks.filter(has_text="user_id: zoe").first).to_be_visible()
    meet(local_chat, "Ben").say("After")
    expect(ana.messages.filter(has_text="After")).to_be_visible()
    assert ana.messages.filter(has_text="Before").count() == 1


def test_a_message_that_cannot_be_sent_is_kept(local_chat: Chat, meet: Meet) -> None:
    ana = meet(local_chat, "Ana")
    ana.page.route("**/messages", lambda route: route.abort())
    ana.say("Do you hear me?")
    expect(ana.page.get_by_role("alert")).to_have_text(
        "Not sent: the application does not answer."
    )
    expect(ana.box).to_have_value("Do you hear me?")

    ana.page.unroute("**/messages")
    ana.box.press("Enter")
    expect(ana.messages.filter(has_text="Do you hear me?")).to_be_visible()
    expect(ana.page.get_by_role("alert")).to_have_text("")
    ana.errors.clear()


def test_who_comes_in_can_write_at_once(chat: Chat, meet: Meet) -> None:
    ana, ben = meet(chat, "Ana"), meet(chat, "Ben")
    expect(ana.box).to_be_focused()
    for person in (ana, ben):
        person.enter("Garden")
        person.wait_to_be_in()
    expect(ana.people).to_have_count(2)

    expect(ana.box).to_be_focused()
    ana.page.keyboard.type("Here I am")
    ana.page.keyboard.press("Enter")

    expect(ben.messages.filter(has_text="Here I am")).to_be_visible()
    expect(ana.box).to_be_focused()


def test_the_focus_stays_where_people_come_and_go(
    local_chat: Chat, meet: Meet, open_browser: Callable[..., BrowserContext]
) -> None:
    page = open_browser().new_page()
    line = Line(page)
    ana = Person(page, "Ana").come_in(local_chat)
    ben = meet(local_chat, "Ben")
    note = page.get_by_role("button", name="Note to Ben")
    note.focus()

    line.cut()
    line.mend()
    ana.wait_to_be_in()
    meet(local_chat, "Cleo")
    expect(ana.people).to_have_count(3)
    expect(note).to_be_focused()

    ben.page.close()
    expect(ana.people).to_have_count(2)
    expect(page.get_by_role("heading", name="Here now")).to_be_focused()


def test_nobody_is_told_that_they_type_themselves(
    local_chat: Chat, open_browser: Callable[..., BrowserContext]
) -> None:
    browser = open_browser()
    first = Person(browser.new_page(), "Ana").come_in(local_chat)
    second = Person(browser.new_page(), "Ana").come_in(local_chat)
    ben = Person(browser.new_page(), "Ben").come_in(local_chat)

    second.page.evaluate(
        """() => {
          const line = document.getElementById("typing");
          globalThis.seen = [];
          new MutationObserver(() => seen.push(line.textContent)).observe(line, {childList: true});
        }"""
    )

    first.type_until(ben.page.get_by_text("Ana is typing…"))
    ben.type_until(second.page.get_by_text("Ben is typing…"))

    assert set(second.page.evaluate("seen")) - {""} == {"Ben is typing…"}


def test_faces_can_be_told_apart(start_chat: StartChat, meet: Meet) -> None:
    names = [
        "ana",
        "ben",
        "cleo",
        "dan",
        "eva",
        "finn",
        "gina",
        "hugo",
        "ida",
        "jan",
        "kim",
        "lea",
    ]
    page = meet(start_chat(), "Ana").page
    colours = page.evaluate(COLOURS_OF_FACES, names)

    assert page.evaluate(COLOURS_OF_FACES, names) == colours  # everybody keeps theirs
    for colour, other in itertools.combinations(colours, 2):
        assert math.dist(colour, other) > 24
    for colour in colours:
        assert contrast_with_white(colour) >= 4.5


COLOURS_OF_FACES = """names => Promise.all(names.map(async (name) => {
    const face = new Image(32, 32);
    face.src = `/faces/${name}.svg?name=${name}`;
    await face.decode();
    const canvas = new OffscreenCanvas(32, 32).getContext("2d");
    canvas.drawImage(face, 0, 0, 32, 32);
    return [...canvas.getImageData(16, 2, 1, 1).data].slice(0, 3);
}))"""


def contrast_with_white(colour: list[int]) -> float:
    """The ratio that WCAG 2 defines."""
    red, green, blue = (linear(channel / 255) for channel in colour)
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)


def linear(channel: float) -> float:
    light: float = ((channel + 0.055) / 1.055) ** 2.4
    return channel / 12.92 if channel <= 0.04045 else light


def test_the_keyboard_alone_is_enough(
    local_chat: Chat, meet: Meet, open_browser: Callable[..., BrowserContext]
) -> None:
    ben = meet(local_chat, "Ben")
    page = open_browser().new_page()
    ana = Person(page, f"Ana {unique()}")
    keyboard = page.keyboard
    page.goto(local_chat.url)
    expect(page.get_by_label("Your name")).to_be_focused()
    keyboard.type(ana.name)
    keyboard.press("Enter")
    ana.wait_to_be_in()

    skip = page.get_by_role("link", name="Skip to writing")
    press_until_focused(page, "Shift+Tab", skip)
    expect(skip).to_be_in_viewport()
    keyboard.press("Enter")
    keyboard.type("No mouse here")
    keyboard.press("Enter")
    expect(ben.messages.filter(has_text="No mouse here")).to_be_visible()

    note = page.get_by_role("button", name="Note to Ben")
    press_until_focused(page, "Tab", note)
    keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="A note to Ben")).to_be_visible()
    keyboard.type("Nor here")
    keyboard.press("Enter")
    expect(ben.messages.filter(has_text="Nor here")).to_be_visible()
    expect(note).to_be_focused()

    keyboard.press("Enter")
    keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(note).to_be_focused()

    garden = page.get_by_role("link", name="Garden")
    press_until_focused(page, "Shift+Tab", garden)
    keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Garden")
    press_until_focused(page, "Tab", page.get_by_role("log", name="Webhooks"))


def press_until_focused(page: Page, key: str, wanted: Locator) -> None:
    for _ in range(20):
        page.keyboard.press(key)
        if wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{key} never comes to {wanted}")


@pytest.fixture(scope="module")
def axe(packages: Path) -> str:
    """The source of axe-core, which finds what is not accessible."""
    return (packages / "axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desk", "phone"])
def test_every_page_is_accessible(
    local_chat: Chat, meet: Meet, axe: str, size: str, scheme: str
) -> None:
    ana = meet(local_chat, "Ana")
    options = {"viewport": SIZES[size], "color_scheme": scheme, "reduced_motion": "reduce"}
    ben = meet(local_chat, "Ben", **options)
    page = ben.page
    have_a_talk(ana, ben)
    turn_to(ben, ana)
    assert violations(page, axe) == []

    dialog = ben.begin_note("Ana", "x" * 501)
    dialog.get_by_label("Note").evaluate("field => { field.value += 'x'.repeat(501) }")
    dialog.get_by_role("button", name="Send note").click()
    expect(dialog.get_by_role("alert")).not_to_be_empty()
    assert violations(page, axe) == []
    page.keyboard.press("Escape")
    ben.enter("Vault")
    ben.wait_to_be_in()
    assert violations(page, axe) == []
    ben.enter("Attic")
    expect(page.get_by_role("alert")).not_to_be_empty()
    assert violations(page, axe) == []

    page.goto(f"{local_chat.url}/rooms/cellar?user=ben")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not Found")
    assert violations(page, axe) == []
    page.goto(local_chat.url)
    assert violations(page, axe) == []
    page.get_by_label("Your name").fill("!")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page, axe) == []

    page.get_by_role("link", name="Ben").click()
    ben.wait_to_be_in()
    page.context.request.post(f"{local_chat.url}/sign-out", form={"user": "ben"})
    assert_is_signed_out(ben)
    assert violations(page, axe) == []
    ben.errors.clear()


def violations(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    found: list[str] = page.evaluate(
        """async () => (await axe.run({resultTypes: ["violations"]})).violations.flatMap(
            one => one.nodes.map(node => `${one.id}: ${node.html}: ${node.failureSummary}`))"""
    )
    return found


def have_a_talk(ana: Person, ben: Person) -> None:
    said = [
        (ana, "Good morning! Is anybody up?"),
        (ben, "Since five. The bread is out of the oven."),
        (ana, "I can smell it from here."),
        (ben, "Bring butter, and come over. Here it is all set up for a long breakfast."),
    ]
    for speaker, text in said:
        speaker.say(text)
        for person in (ana, ben):
            expect(person.messages.filter(has_text=text).last).to_be_visible()


def turn_to(ben: Person, ana: Person) -> None:
    ana.write_note("Ben", "Shall I bring honey too?")
    expect(ben.messages.filter(has_text="honey")).to_be_visible()
    ana.box.fill("On my")
    ana.type_until(ben.page.get_by_text("Ana is typing…"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("FLASK_PUSHER_SCREENSHOTS")
    return Path(folder) if folder else tmp_path_factory.mktemp("pictures")


SIZES = {"desk": {"width": 1200, "height": 840}, "phone": {"width": 390, "height": 760}}


@pytest.mark.parametrize(
    ("picture", "size", "scheme"),
    [
        ("chat", "desk", "light"),
        ("chat-dark", "desk", "dark"),
        ("chat-phone", "phone", "light"),
        ("chat-phone-dark", "phone", "dark"),
    ],
)
def test_it_fits_the_screen_and_has_its_picture_taken(
    start_chat: StartChat, meet: Meet, pictures: Path, picture: str, size: str, scheme: str
) -> None:
    chat = start_chat()
    ana = meet(chat, "Ana")
    is_phone = size == "phone"
    ben = meet(
        chat,
        "Ben",
        reduced_motion="reduce",
        viewport=SIZES[size],
        color_scheme=scheme,
        has_touch=is_phone,
        is_mobile=is_phone,
    )
    page = ben.page
    have_a_talk(ana, ben)
    meet(chat, "Cleo")
    expect(ben.messages.filter(has_text="Cleo came in.")).to_be_visible()
    turn_to(ben, ana)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(18, 22, 27)" if scheme == "dark" else "rgb(243, 239, 230)")
    assert_fits(page)

    path = pictures / f"{picture}.png"
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size < 150_000

    ana.say("unbreakable" * 40)
    expect(ben.messages.filter(has_text="unbreakable")).to_be_visible()
    assert_fits(page)
    page.set_viewport_size({"width": 320, "height": 560})
    assert_fits(page)


def assert_fits(page: Page) -> None:
    """Nothing is wider than the screen."""
    width = page.viewport_size and page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_server_checks_what_it_is_sent(
    local_chat: Chat, open_browser: Callable[..., BrowserContext]
) -> None:
    requests = open_browser().request
    requests.post(f"{local_chat.url}/sign-in", form={"name": "Ana"})

    def post(path: str, origin: str = local_chat.url, **form: str | float | bool) -> int:
        url, headers = f"{local_chat.url}{path}", {"Origin": origin}
        return requests.post(url, form={"user": "ana", **form}, headers=headers).status

    assert post("/rooms/lobby/messages", text="x" * 500) == 204
    assert post("/rooms/lobby/messages", text="x" * 501) == 422
    assert post("/rooms/lobby/messages", text=" \n ") == 422
    assert post("/rooms/lobby/messages") == 422
    assert post("/rooms/lobby/messages", text="x", user="ben") == 401
    assert post("/rooms/attic/messages", text="x") == 403
    assert post("/rooms/cellar/messages", text="x") == 403
    assert post("/notes", text="x", to="nobody") == 404
    assert post("/notes", text="x", to="no one\n") == 404
    for stranger in ("https://evil.example", "null", f"{local_chat.url}0"):
        assert post("/rooms/lobby/messages", stranger, text="x") == 403
        assert post("/sign-in", stranger, name="Ana") == 403
        assert post("/pusher/auth", stranger) == 403


def test_a_channel_is_for_who_is_signed_in_and_an_open_room(
    local_chat: Chat, open_browser: Callable[..., BrowserContext]
) -> None:
    requests = open_browser().request
    requests.post(f"{local_chat.url}/sign-in", form={"name": "Ana"})

    def subscribe(channel: str, user: str = "ana") -> int:
        return requests.post(
            f"{local_chat.url}/pusher/auth",
            form={"user": user, "socket_id": "1.2", "channel_name": channel},
        ).status

    for channel in (
        "presence-room-lobby",
        "private-room-lobby",
        "private-encrypted-room-vault",
        "private-webhooks",
    ):
        assert subscribe(channel) == 200
        assert subscribe(channel, user="ben") == 401
    for channel in ("presence-room-attic", "presence-room-cellar", "private-other"):
        assert subscribe(channel) == 403


def copy_of_the_chat(folder: Path) -> Path:
    return shutil.copytree(CHAT, folder, ignore=shutil.ignore_patterns("node_modules"))


def test_the_first_start_fetches_pusher_js_and_the_next_needs_no_network(
    node: Node, tmp_path: Path, open_browser: Callable[..., BrowserContext]
) -> None:
    folder = copy_of_the_chat(tmp_path / "chat")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    first = Chat(folder, tmp_path / "first", "--port=0", PATH=path)
    first.stop()
    assert "Fetching pusher-js with npm, once." in first.said

    again = Chat(folder, tmp_path / "again", "--port=0", PATH="")
    try:
        browser = open_browser()
        asked: list[str] = []
        browser.on("request", lambda request: asked.append(request.url))
        Person(browser.new_page(), "Ana").come_in(again)
        assert f"{again.url}/pusher.js" in asked
        assert [url for url in asked if not url.startswith(again.url)] == []
    finally:
        again.stop()
    assert "Fetching" not in again.said


def answer_as_cdn(route: Route, packages: Path) -> None:
    route.fulfill(path=packages / PUSHER_JS, headers={"Access-Control-Allow-Origin": "*"})


def test_without_npm_the_page_takes_pusher_js_from_the_cdn(
    packages: Path, tmp_path: Path, open_browser: Callable[..., BrowserContext]
) -> None:
    chat = Chat(copy_of_the_chat(tmp_path / "chat"), tmp_path / "log", "--port=0", PATH="")
    try:
        browser = open_browser()
        page = browser.new_page()
        at_cdn = "https://cdn.jsdelivr.net/npm/pusher-js@8.6.0/dist/web/*"
        browser.route(at_cdn, lambda route: route.abort())
        page.goto(chat.url)
        page.get_by_label("Your name").fill("Ana")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text(
            "pusher-js could not be loaded. Is there a network?"
        )

        browser.route(at_cdn, lambda route: answer_as_cdn(route, packages))
        Person(page, "Ana").come_in(chat)
    finally:
        chat.stop()


def test_a_file_of_pusher_js_is_found_from_where_one_is(
    packages: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_chat: StartChat,
    open_browser: Callable[..., BrowserContext],
) -> None:
    shutil.copy(packages / PUSHER_JS, tmp_path / "own.js")
    monkeypatch.chdir(tmp_path)
    chat = start_chat(CHAT_PUSHER_JS="own.js")
    answer = open_browser().request.get(f"{chat.url}/pusher.js")
    assert answer.body() == (packages / PUSHER_JS).read_bytes()


def test_a_file_of_pusher_js_that_is_not_there_is_named(
    tmp_path: Path, start_chat: StartChat
) -> None:
    with pytest.raises(AssertionError, match=r"CHAT_PUSHER_JS: there is no file .*none\.js"):
        start_chat(CHAT_PUSHER_JS=str(tmp_path / "none.js"))


def test_ctrl_c_stops_all_of_it(start_chat: StartChat, meet: Meet) -> None:
    chat = start_chat()
    ana = meet(chat, "Ana")  # an open page keeps nothing from stopping
    # The last that her coming caused; what is deferred later finds no service.
    expect(ana.webhooks.first).to_contain_text("subscription_count")
    status = chat.stop(signal.SIGINT)
    assert status == 0
    started, *rest = chat.said.splitlines()[1:]
    assert started.startswith("Open ")
    assert rest == ["Stopped."]
    expect(ana.page.get_by_text("Connection lost. Trying again…")).to_be_visible()
    ana.errors.clear()


def test_it_ends_with_who_started_it_where_that_is_wanted(tmp_path: Path, packages: Path) -> None:
    """As tox is stopped by SIGTERM: it tells nobody."""
    starter = "import subprocess, sys; subprocess.Popen(sys.argv[1:]).wait()"
    command = [sys.executable, str(CHAT / "run.py"), "--port=0", "--end-with-parent"]
    with subprocess.Popen(
        [sys.executable, "-c", starter, *command],
        env={**os.environ, "CHAT_PUSHER_JS": str(packages / PUSHER_JS)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "in two tabs" not in process.stdout.readline():
            assert process.poll() is None
        process.kill()
        assert process.stdout.read() == "Stopped.\n"  # to the end: nobody holds it any more


def test_a_port_that_was_asked_for_and_is_busy_is_an_error(
    start_chat: StartChat, local_chat: Chat
) -> None:
    port = local_chat.url.rsplit(":", 1)[1]
    with pytest.raises(AssertionError) as failure:
        start_chat(port)
    said = str(failure.value).splitlines()[1:]
    assert said == [f"Port {port}: {os.strerror(errno.EADDRINUSE)}. Choose another --port."]


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_cannot_be_is_an_error(start_chat: StartChat, port: str) -> None:
    with pytest.raises(AssertionError, match="error: argument --port: invalid"):
        start_chat(port)


def test_without_a_port_a_free_one_is_taken_and_told(start_chat: StartChat) -> None:
    with ExitStack() as held:
        with suppress(OSError):  # somebody else holds it
            held.enter_context(socket.create_server(("127.0.0.1", 8000)))
        chat = start_chat(port=None)
        port = urlsplit(chat.url).port
        assert port != 8000
        assert f"Port 8000 is in use, so the chat takes port {port}." in chat.said


def test_a_setting_that_is_missing_is_named(start_chat: StartChat) -> None:
    with pytest.raises(AssertionError, match=r"did not start:\nPUSHER_APP_ID should be"):
        start_chat(PUSHER_KEY="a-key")

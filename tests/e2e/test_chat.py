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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, WebSocketRoute, expect

from .servers import APP_ID, KEY, SECRET, Soketi, _free_port
from .tools import Node

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHAT = Path(__file__).resolve().parents[2] / "examples" / "chat"
PUSHER_JS = "pusher-js/dist/web/pusher-with-encryption.min.js"
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

expect.set_options(timeout=WAIT_SECONDS * 1000)


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

    def start_chat(port: int = 0, **settings: str) -> Chat:
        log = tmp_path_factory.mktemp("chat") / "log"
        settings = {"CHAT_PUSHER_JS": str(packages / PUSHER_JS), **settings}
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
        expect(self.page.get_by_role("dialog")).to_be_hidden()  # nothing else can be typed into

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
    expect(ana.people).to_have_text([re.compile(r"Ana.*\(you\)"), re.compile("Ben")])
    expect(ben.people).to_have_text([re.compile(r"Ben.*\(you\)"), re.compile("Ana")])

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
    local_chat: Chat, meet: Meet, open_browser: Callable[..., BrowserContext]
) -> None:
    sockets: list[WebSocketRoute] = []
    is_reachable = True

    def connect(socket: WebSocketRoute) -> None:
        if is_reachable:
            socket.connect_to_server()
        sockets.append(socket)

    page = open_browser().new_page()
    page.route_web_socket("**/app/*", connect)
    ana = Person(page, "Ana").come_in(local_chat)
    ana.say("Before")
    expect(ana.messages.filter(has_text="Before")).to_be_visible()

    is_reachable = False
    sockets[-1].close()
    expect(page.get_by_text("Connection lost. Trying again…")).to_be_visible()
    is_reachable = True
    sockets[-1].close()
    ana.wait_to_be_in()

    # The service repeats the last message to who comes back.
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
    expect(ana.page.get_by_label("Message", exact=True)).to_have_value("Do you hear me?")
    ana.errors.clear()

    ana.page.unroute("**/messages")
    ana.page.get_by_label("Message", exact=True).press("Enter")
    expect(ana.messages.filter(has_text="Do you hear me?")).to_be_visible()
    expect(ana.page.get_by_role("alert")).to_have_text("")


def test_the_keyboard_alone_is_enough(
    local_chat: Chat, meet: Meet, open_browser: Callable[..., BrowserContext]
) -> None:
    ben = meet(local_chat, "Ben")
    page = open_browser().new_page()
    ana = Person(page, "Ana")
    keyboard = page.keyboard
    page.goto(local_chat.url)
    keyboard.type("Ana")
    keyboard.press("Enter")
    ana.wait_to_be_in()

    keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to writing")).to_be_in_viewport()
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
def axe(node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, which finds what is not accessible."""
    folder = tmp_path_factory.mktemp("axe")
    command = [
        "install",
        "--prefix",
        str(folder),
        "--prefer-offline",
        "--no-audit",
        "--no-fund",
        AXE,
    ]
    path = os.pathsep.join([str(Path(node.node[0]).parent), os.environ.get("PATH", "")])
    subprocess.run(
        [*node.npm, *command], env={**os.environ, "PATH": path}, check=True, timeout=120
    )
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible(local_chat: Chat, meet: Meet, axe: str, scheme: str) -> None:
    ana = meet(local_chat, "Ana", color_scheme=scheme)
    ben = meet(local_chat, "Ben", color_scheme=scheme, reduced_motion="reduce")
    page = ben.page
    have_a_talk(ana, ben)
    turn_to(ben, ana)
    assert violations(page, axe) == []

    page.get_by_role("button", name="Note to Ana").click()
    assert violations(page, axe) == []
    page.keyboard.press("Escape")
    ben.enter("Attic")
    expect(page.get_by_role("alert")).not_to_be_empty()
    assert violations(page, axe) == []
    ben.errors.clear()

    page.goto(local_chat.url)
    page.get_by_label("Your name").fill("!")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
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
    ana.page.get_by_label("Message", exact=True).press_sequentially("On my")
    expect(ben.page.get_by_text("Ana is typing…")).to_be_visible()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("FLASK_PUSHER_SCREENSHOTS")
    return Path(folder) if folder else tmp_path_factory.mktemp("pictures")


DESK = {"width": 1200, "height": 840}
PHONE = {"width": 360, "height": 740}


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        ("screenshot", {"viewport": DESK}),
        ("dark", {"viewport": DESK, "color_scheme": "dark"}),
        ("phone", {"viewport": PHONE, "has_touch": True, "is_mobile": True}),
        ("phone-dark", {"viewport": PHONE, "is_mobile": True, "color_scheme": "dark"}),
    ],
)
def test_it_fits_the_screen_and_has_its_picture_taken(
    start_chat: StartChat, meet: Meet, pictures: Path, picture: str, options: dict[str, Any]
) -> None:
    chat = start_chat()
    ana = meet(chat, "Ana")
    ben = meet(chat, "Ben", reduced_motion="reduce", **options)
    page = ben.page
    have_a_talk(ana, ben)
    meet(chat, "Cleo")
    expect(ben.messages.filter(has_text="Cleo came in.")).to_be_visible()
    turn_to(ben, ana)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    is_dark = options.get("color_scheme") == "dark"
    assert background == ("rgb(18, 22, 27)" if is_dark else "rgb(243, 239, 230)")
    width = options["viewport"]["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width

    path = pictures / f"{picture}.png"
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size < 150_000

    ana.say("unbreakable" * 40)
    expect(ben.messages.filter(has_text="unbreakable")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_server_checks_what_it_is_sent(
    local_chat: Chat, open_browser: Callable[..., BrowserContext]
) -> None:
    requests = open_browser().request
    requests.post(f"{local_chat.url}/sign-in", form={"name": "Ana"})

    def post(path: str, origin: str = local_chat.url, **form: str | float | bool) -> int:
        url, headers = f"{local_chat.url}{path}", {"Origin": origin}
        return requests.post(url, form={"user": "ana", **form}, headers=headers).status

    assert post("/rooms/lobby/messages", text="x" * 500) == 200
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
        "private-cache-room-lobby",
        "private-encrypted-cache-room-vault",
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

        browser.route(at_cdn, lambda route: route.fulfill(path=packages / PUSHER_JS))
        Person(page, "Ana").come_in(chat)
    finally:
        chat.stop()


def test_ctrl_c_stops_all_of_it(start_chat: StartChat) -> None:
    chat = start_chat()
    status = chat.stop(signal.SIGINT)
    assert status == 0
    assert chat.said.splitlines()[-1] == "Stopped."


def test_a_busy_port_is_replaced_by_a_free_one(start_chat: StartChat, local_chat: Chat) -> None:
    port = int(local_chat.url.rsplit(":", 1)[1])
    assert start_chat(port).url != local_chat.url


def test_a_setting_that_is_missing_is_named(start_chat: StartChat) -> None:
    with pytest.raises(AssertionError, match=r"did not start:\nPUSHER_APP_ID should be"):
        start_chat(PUSHER_KEY="a-key")

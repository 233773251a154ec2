"""What the README shows is true: each of its examples is run here, as it is printed."""

from __future__ import annotations

import asyncio
import base64
import configparser
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial, wraps
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import aiohttp
import pytest
import requests
from docutils import nodes
from docutils.core import publish_doctree
from flask import Config, Flask, render_template, render_template_string, session
from flask.testing import FlaskClient
from pusher.requests import RequestsBackend
from werkzeug.serving import make_server
from werkzeug.test import Client as WsgiClient
from werkzeug.test import TestResponse

import flask_pusher_local
from flask_pusher import Pusher, RecordedEvent, Webhooks

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Route

TREE = Path(__file__).parents[1]
README = TREE / "README.rst"
SOCKET_ID = "123.456"
MASTER_KEY = base64.b64encode(b"m" * 32).decode()
NEEDED = {"PUSHER_APP_ID": "1", "PUSHER_KEY": "a-key", "PUSHER_SECRET": "a-secret"}
CDN = re.compile(r"https://cdn\.jsdelivr\.net/npm/([\w-]+)@([\d.]+)/([\w./-]+)")
WAIT_SECONDS = 15
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Test = TypeVar("Test", bound=Callable[..., None])


# -- The README, taken apart ----------------------------------------------------------------------


class Example(NamedTuple):
    """A block of code, and the titles of the sections that it is in, the innermost last."""

    sections: tuple[str, ...]
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that its first line names."""
        named = re.match(r"# (\w+\.py)\n", self.text)
        return named[1] if named else None

    @property
    def goes_on(self) -> bool:
        """Whether it is to be added to the application of the first example."""
        return self.language == "python" and not self.file and "Recipes" not in self.sections


def parse_readme() -> nodes.document:
    """As package indexes do it; anything that is wrong with the text is an error."""
    settings = {
        "file_insertion_enabled": False,
        "halt_level": 2,
        "raw_enabled": False,
        "report_level": 2,
        "syntax_highlight": "none",
    }
    return publish_doctree(README.read_text(encoding="utf-8"), settings_overrides=settings)


def examples_in(document: nodes.document) -> list[Example]:
    return [
        Example(sections_around(block), language_of(block), block.astext() + "\n")
        for block in document.findall(nodes.literal_block)
    ]


def language_of(block: nodes.Element) -> str:
    (language,) = (name for name in block["classes"] if name != "code")
    return str(language)


def sections_around(node: nodes.Element) -> tuple[str, ...]:
    titles: list[str] = []
    parent = node.parent
    while parent is not None:
        if isinstance(parent, nodes.section):
            titles.insert(0, parent[0].astext())
        parent = parent.parent
    return tuple(titles)


DOCUMENT = parse_readme()
EXAMPLES = examples_in(DOCUMENT)
proven: list[tuple[str, str]] = []


def proves(section: str, *languages: str) -> Callable[[Test], Test]:
    """Declare that a test proves the examples of a section, which are in these languages."""
    proven.extend((section, language) for language in languages)
    return lambda test: test


def examples(section: str, language: str) -> list[Example]:
    return [
        example
        for example in EXAMPLES
        if example.sections[-1] == section and example.language == language
    ]


def example(section: str, language: str) -> Example:
    (only,) = examples(section, language)
    return only


def in_file(file: str) -> Example:
    (only,) = (example for example in EXAMPLES if example.file == file)
    return only


def table(section: str) -> list[list[str]]:
    """The rows of a section's table, without its head."""
    (found,) = (
        table for table in DOCUMENT.findall(nodes.table) if sections_around(table)[-1] == section
    )
    (body,) = found.findall(nodes.tbody)
    return [[entry.astext() for entry in row.findall(nodes.entry)] for row in body.children]


def commands(section: str) -> list[list[str]]:
    """The commands of a section's blocks for the shell, one a line."""
    return [
        shlex.split(line) for block in examples(section, "sh") for line in block.text.splitlines()
    ]


def test_each_example_is_proven() -> None:
    shown = [(example.sections[-1], example.language) for example in EXAMPLES]
    assert sorted(proven) == sorted(shown)


# -- What a reader makes of it --------------------------------------------------------------------


class Project:
    """A reader's folder: the first application and its page, and all Python that goes on with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: list[ModuleType] = []
        going_on = [example.text for example in EXAMPLES if example.goes_on]
        self.write("app.py", in_file("app.py").text + "".join(going_on))
        self.write("templates/index.html", example("A first application", "html").text)
        self.module = self.run("app.py")
        self.app: Flask = self.module.app
        self.pusher: Pusher = self.module.pusher

    def write(self, file: str, text: str) -> None:
        path = self.folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run(self, file: str) -> Any:
        """Import a file of the folder."""
        spec = importlib.util.spec_from_file_location(file[: -len(".py")], self.folder / file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module
        self.modules.append(module)
        spec.loader.exec_module(module)
        return module

    def run_example(self, file: str) -> Any:
        """Import an example that is a file of its own."""
        self.write(file, in_file(file).text)
        return self.run(file)

    def add(self, example: Example) -> None:
        """Add an example to the end of the application."""
        code = compile(example.text, f"README.rst, {example.sections[-1]}", "exec")
        exec(code, vars(self.module))  # noqa: S102 - what this file is for

    def browser(self) -> FlaskClient:
        return self.app.test_client()

    def render(self, template: str) -> str:
        with self.app.test_request_context():
            return render_template_string(template)

    @contextmanager
    def recording(self) -> Iterator[list[RecordedEvent]]:
        with self.app.app_context(), self.pusher.record_events() as events:
            yield events


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("FLASK_PUSHER_ENCRYPTION_MASTER_KEY_BASE64", MASTER_KEY)
    project = Project(tmp_path)
    yield project
    for module in project.modules:
        del sys.modules[module.__name__]


def subscribe(browser: FlaskClient | WsgiClient, channel: str, path: str = "") -> TestResponse:
    """Ask for a channel as pusher-js does."""
    form = {"socket_id": SOCKET_ID, "channel_name": channel}
    return browser.post(f"{path}/pusher/auth", data=form)


def log_in(browser: FlaskClient, user: str) -> FlaskClient:
    assert browser.post("/login", data={"user": user}).status_code == 302
    return browser


def channel_data(answer: TestResponse) -> Any:
    assert answer.json is not None
    return json.loads(answer.json["channel_data"])


def environment(**variables: object) -> dict[str, str]:
    """This process's, with the commands of its Python first, and without settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLASK_", "PUSHER_", "COV_"))
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    more = {name: str(value) for name, value in variables.items()}
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", **more}


def run(command: Sequence[str], folder: Path, env: dict[str, str]) -> str:
    """Run a command that must succeed, and return what it printed."""
    finished = subprocess.run(
        [shutil.which(command[0], path=env["PATH"]) or command[0], *command[1:]],
        cwd=folder,
        env=env,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


@contextmanager
def running(
    command: Sequence[str], folder: Path, env: dict[str, str], ready: str
) -> Iterator[re.Match[str]]:
    """Run a server until the block ends, which begins when the server has printed a line.

    :param ready: a pattern in that line, whose match is given.
    """
    process = subprocess.Popen(
        [shutil.which(command[0], path=env["PATH"]) or command[0], *command[1:]],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    killer = threading.Timer(120, process.kill)
    killer.start()
    assert process.stdout is not None
    with process.stdout as output:
        try:
            said = ""
            for line in output:
                said += line
                found = re.search(ready, line)
                if found:
                    yield found
                    break
            else:
                pytest.fail(f"{command} ended: {said}")
        finally:
            process.terminate()
            output.read()
            process.wait()
            killer.cancel()


def in_its_own_thread(test: Test) -> Test:
    """Run a test with an event loop where none runs: Playwright's may run in the main thread."""

    @wraps(test)
    def run_in_thread(**fixtures: Any) -> None:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(test, **fixtures).result()

    return run_in_thread  # type: ignore[return-value]


def refusing_address() -> tuple[str, int, bool]:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return ("127.0.0.1", listener.getsockname()[1], False)


# -- The two commands, and the installation -------------------------------------------------------


def tox_environments() -> set[str]:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(TREE / "tox.ini")
    return {section[len("testenv:") :] for section in tox.sections()}


@proves("Two commands", "sh", "sh")
def test_the_two_commands_are_those_of_tox_and_of_the_continuous_integration() -> None:
    chat, tests = (block.text.strip() for block in examples("Two commands", "sh"))
    assert chat == "pip install tox && tox -e chat"
    assert "chat" in tox_environments()
    assert tests in (TREE / ".ci" / "run").read_text().splitlines()


@proves("Installation", "sh", "sh")
def test_what_is_installed_exists() -> None:
    metadata = importlib.metadata.metadata("Flask-Pusher")
    for _pip, install, requirement in commands("Installation"):
        assert install == "install"
        name, extra = re.fullmatch(r"([\w-]+)(?:\[(\w+)\])?", requirement, re.ASCII).groups()  # type: ignore[union-attr]
        assert name == metadata["Name"]
        assert extra is None or extra in metadata.get_all("Provides-Extra", [])


@proves("The chat", "sh", "sh")
def test_the_chat_takes_the_settings_and_the_test_takes_the_pictures() -> None:
    service, pictures = (shlex.split(block.text) for block in examples("The chat", "sh"))
    *settings, tox, e, environment = service
    assert [tox, e, environment] == ["tox", "-e", "chat"]
    app = Flask("app")
    for setting in settings:
        key, _, value = setting.partition("=")
        app.config[key] = value
    Pusher(app)
    assert app.extensions["pusher"].host == "api-eu.pusher.com"
    folder, *run = pictures
    assert run[:4] == ["tox", "-e", "e2e", "--"]
    test = (TREE / run[4]).read_text(encoding="utf-8")
    assert folder.partition("=")[0] in test
    assert re.search(rf"^def test_\w*{run[6]}", test, re.MULTILINE)
    assert (TREE / "examples/chat/screenshot.png").stat().st_size < 150_000


@proves("Development", "sh")
def test_tox_knows_the_parts() -> None:
    for tox, e, parts in commands("Development"):
        assert (tox, e) == ("tox", "-e")
        for part in parts.split(","):
            assert part in tox_environments() or re.fullmatch(r"py3\d+-latest", part)


# -- The first application ------------------------------------------------------------------------


class PusherCall(NamedTuple):
    """What a page passes to ``new Pusher(...)``."""

    key: str
    options: dict[str, Any]

    @classmethod
    def in_page(cls, page: str) -> PusherCall:
        found = re.search(r'new Pusher\(("[^"]*"), ', page)
        assert found, page
        options, _end = json.JSONDecoder().raw_decode(page, found.end())
        return cls(json.loads(found[1]), options)

    @property
    def url(self) -> str:
        """Where pusher-js connects to."""
        assert self.options["forceTLS"] is False
        host = f"{self.options['wsHost']}:{self.options['wsPort']}"
        return f"ws://{host}/app/{self.key}?protocol=7&client=js&version=8.6.0"


async def next_event(connection: Any, name: str) -> Any:
    while True:
        message = await connection.receive_json(timeout=WAIT_SECONDS)
        if message["event"] == name:
            return json.loads(message["data"])


@in_its_own_thread
@proves("A first application", "python", "html", "sh", "sh", "sh")
def test_the_first_application_waves(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "app.py").write_text(in_file("app.py").text)
    page = tmp_path / "templates" / "index.html"
    page.write_text(example("A first application", "html").text)
    serve, flask_run, trigger = commands("A first application")

    async def see_waves(site: str, env: dict[str, str]) -> list[Any]:
        async with aiohttp.ClientSession(site) as session:
            async with session.get("/") as answer:
                call = PusherCall.in_page(await answer.text())
            async with session.ws_connect(call.url) as tab:
                await next_event(tab, "pusher:connection_established")
                await tab.send_json(
                    {"event": "pusher:subscribe", "data": {"channel": "greetings"}}
                )
                await next_event(tab, "pusher_internal:subscription_succeeded")
                async with session.post("/wave") as answer:
                    assert answer.status == 204
                first = await next_event(tab, "wave")
                run(trigger, tmp_path, env)
                return [first, await next_event(tab, "wave")]

    # The ports that are printed may be in use.
    env = environment(FLASK_PUSHER_SERVE_PORT=0, FLASK_RUN_PORT=0)
    with running(serve, tmp_path, env, r"PUSHER_PORT = (\d+)") as port:
        env["FLASK_PUSHER_PORT"] = port[1]
        with running(flask_run, tmp_path, env, r"Running on (http://\S+)") as site:
            waves = asyncio.run(see_waves(site[1], env))

    assert waves == [{"from": "the server"}, {"from": "the terminal"}]


# -- Configuration --------------------------------------------------------------------------------


class WatchedConfig(Config):
    """Remembers which settings were asked for."""

    asked: set[str]

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


class WatchedFlask(Flask):
    config_class = WatchedConfig


def test_the_table_lists_the_settings_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()
    monkeypatch.setattr(WatchedConfig, "asked", asked, raising=False)
    app = WatchedFlask("app")
    app.config.update(NEEDED)
    Pusher(app)
    assert {key for key, _default, _meaning in table("Configuration")} == {
        key for key in asked if key.startswith("PUSHER_")
    }


def test_the_table_has_the_defaults() -> None:
    app = Flask("app")
    app.config.update(NEEDED)
    pusher = Pusher(app)
    with app.app_context(), pusher.record_events():
        report = app.test_cli_runner().invoke(args=["pusher", "check"]).output
        assert isinstance(pusher.client.http, RequestsBackend)
    in_force = dict(re.findall(r"^(PUSHER_\w+) +(.+)$", report, re.MULTILINE))
    for route in ("PUSHER_AUTH", "PUSHER_USER_AUTH"):
        in_force[route] = in_force[route].replace("/pusher", "", 1)
    in_force["PUSHER_BACKEND"] = "requests"
    in_force.update(dict.fromkeys(NEEDED, "required"))
    not_reported = ("PUSHER_URL", "PUSHER_ENCRYPTION_MASTER_KEY")
    in_force.update(dict.fromkeys(not_reported, "(not set)"))
    assert {key: default for key, default, _meaning in table("Configuration")} == {
        key: value.strip("()") for key, value in in_force.items()
    }


@pytest.mark.parametrize("key", NEEDED)
def test_what_is_required_is_missed(key: str) -> None:
    app = Flask("app")
    app.config.update({**NEEDED, key: None})
    with pytest.raises(ValueError, match=key):
        Pusher(app)


SHOW_CLIENT = """
from flask import Flask
from flask_pusher import Pusher

app = Flask("app")
app.config.from_prefixed_env()
client = Pusher(app) and app.extensions["pusher"]
print(client.app_id, client.key, client.secret, client.host, client.timeout)
print(app.config["PUSHER_CLIENT_OPTIONS"])
"""


@proves("Environment variables", "sh", "python", "python")
def test_the_environment_configures(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    exports = example("Environment variables", "sh").text
    show = f"{exports}exec {shlex.join([sys.executable, '-c', SHOW_CLIENT])}"
    said = run(["sh", "-ec", show], tmp_path, environment())
    assert said.splitlines() == [
        "1234 12e45 my-secret api-eu.pusher.com 2.5",
        "{'activityTimeout': 30000}",
    ]

    monkeypatch.setenv("PUSHER_URL", "https://a-key:a-secret@api-eu.pusher.com/apps/7")
    client = project.run_example("heroku.py").app.extensions["pusher"]
    assert (client.app_id, client.key, client.secret) == ("7", "a-key", "a-secret")
    assert client.address == ("api-eu.pusher.com", 443, True)

    own = project.run_example("own_server.py").app
    assert own.extensions["pusher"].address == ("channels.internal", 6001, False)
    with own.test_request_context():
        options = json.loads(render_template_string("{{ pusher_options()|tojson }}"))
    assert options["wsHost"] == "channels.example.com"
    assert options["wssPort"] == 443
    assert options["forceTLS"] is True


def test_an_unquoted_key_of_digits_and_an_e_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_PUSHER_KEY", "12e45")
    app = Flask("app")
    app.config.update(NEEDED)
    app.config.from_prefixed_env()
    with pytest.raises(ValueError, match="PUSHER_KEY"):
        Pusher(app)


@proves("Several applications", "python")
def test_a_factory_makes_applications(project: Project) -> None:
    shop = project.run_example("shop.py")
    for key in ("first", "second"):
        app = shop.create_app(**{**NEEDED, "PUSHER_KEY": key})
        answer = subscribe(app.test_client(), "private-a")
        assert answer.json is not None
        assert answer.json["auth"].startswith(f"{key}:")
    with pytest.raises(RuntimeError):
        shop.pusher.init_app(app)
    with pytest.raises(RuntimeError):
        Pusher(app)


# -- Publishing -----------------------------------------------------------------------------------


@proves("Publishing", "python", "python")
def test_publishing(project: Project) -> None:
    with project.recording() as events:
        assert project.browser().post("/publish").status_code == 204
        client = project.pusher.client
        client.channels_info("presence-", ["user_count"])
        client.channel_info("presence-room-7", ["user_count"])
        client.users_info("presence-room-7")
        client.trigger("news", "tags", {2, 1})
    assert [(event.channels, event.name) for event in events] == [
        (["news"], "flash"),
        (["news", "sport"], "flash"),
        (["news"], "flash"),
        (["prices"], "changed"),
        (["diary"], "added"),
        (["news"], "tags"),
    ]
    assert events[3].data == {"tea": "2.40"}
    assert events[4].data == {"day": "Thu, 31 Jan 2030 00:00:00 GMT"}
    assert events[5].data == [1, 2]


@proves("Sparing the page that asked", "python", "javascript")
def test_the_page_that_asked_is_spared(project: Project) -> None:
    with project.recording() as events:
        headers = {"X-Socket-ID": SOCKET_ID}
        answer = project.browser().post("/messages", data={"text": "Hi"}, headers=headers)
    assert answer.json == {"text": "Hi"}
    assert events == [(["greetings"], "message", {"text": "Hi"}, SOCKET_ID)]


@proves("When publishing fails", "python")
def test_what_is_raised_where_publishing_fails(project: Project) -> None:
    announce = "/announce"
    client = project.app.extensions["pusher"]
    with flask_pusher_local.start(project.app):
        assert project.browser().post(announce).json == {"published": True}
    client.address = refusing_address()
    answer = project.browser().post(announce)
    assert answer.json == {"published": False, "reason": "ConnectionError"}
    assert answer.status_code == 502

    stranger = Flask("stranger")
    stranger.config.update(NEEDED, PUSHER_KEY=client.key)
    Pusher(stranger)
    with flask_pusher_local.start(stranger) as server:
        client.address = (server.host, server.port, False)
        answer = project.browser().post(announce)
    assert answer.json == {"published": False, "reason": "PusherBadAuth"}


@proves("Publishing after the response", "python", "python")
def test_deferred_events_leave_after_success(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    with project.recording() as events:
        assert project.browser().post("/orders/1001/ship").status_code == 404
        assert events == []
        assert project.browser().post("/orders/7/ship").status_code == 204
    shipped = [
        (["private-order-7"], "shipped", {"by": "truck"}, None),
        (["private-orders"], "shipped", {"order": 7}, None),
    ]
    assert events == shipped

    project.app.extensions["pusher"].address = refusing_address()
    with project.browser().post("/orders/7/ship") as answer:
        assert answer.status_code == 204
    assert project.module.lost == shipped
    assert "'shipped' on private-order-7" in caplog.text
    assert "truck" not in caplog.text


# -- Authorisation --------------------------------------------------------------------------------


@proves("Private channels", "python", "html", "javascript")
def test_who_has_logged_in_may_subscribe(project: Project) -> None:
    assert subscribe(project.browser(), "private-orders").status_code == 403
    form = project.render(example("Private channels", "html").text)
    assert 'action="/login"' in form
    assert 'name="user"' in form
    browser = log_in(project.browser(), "ana")
    answer = subscribe(browser, "private-orders")
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json.keys() == {"auth"}


@proves("Patterns", "python")
def test_patterns_decide_for_their_channels(project: Project) -> None:
    browser = log_in(project.browser(), "ana")
    with browser.session_transaction() as session:
        session["orders"] = [7]
    expected = {
        "private-order-7": 200,
        "private-order-8": 403,
        "private-user-ana": 200,
        "private-user-ben": 403,
        "private-order-seven": 200,  # no pattern matches
    }
    assert {channel: subscribe(browser, channel).status_code for channel in expected} == expected
    with pytest.raises(ValueError, match="can match no channel"):
        project.pusher.auth("public-<name>")
    with pytest.raises(ValueError, match="declared twice"):
        project.pusher.auth("private-user-<name>")(lambda **_: True)


def test_each_request_gets_what_the_table_says(project: Project) -> None:
    def post(browser: FlaskClient, **fields: str) -> TestResponse:
        return browser.post("/pusher/auth", json=fields)

    ana, stranger = log_in(project.browser(), "ana"), project.browser()
    assert post(ana, socket_id="1.2", channel_name="private-a").status_code == 200
    encrypted = post(ana, socket_id="1.2", channel_name="private-encrypted-a").json
    assert encrypted is not None
    assert encrypted.keys() == {"auth", "shared_secret"}
    assert post(stranger, socket_id="1.2", channel_name="private-a").status_code == 403
    assert post(ana, socket_id="1", channel_name="private-a").status_code == 400
    assert post(ana, socket_id="1.2", channel_name="private a").status_code == 400
    assert post(ana, socket_id="1.2").status_code == 400
    assert post(ana, socket_id="1.2", channel_name="public").status_code == 404
    many = {f"channel_name[{n}]": "private-a" for n in range(501)}
    assert post(ana, socket_id="1.2", **many).status_code == 413


@proves("Many channels in one request", "html")
def test_many_channels_are_answered_at_once(project: Project) -> None:
    page = project.render(example("Many channels in one request", "html").text)
    assert json.dumps({"endpoint": "/pusher/auth"}) in page
    form = {
        "socket_id": SOCKET_ID,
        "channel_name[0]": "private-user-ana",
        "channel_name[1]": "private-user-ben",
    }
    answer = log_in(project.browser(), "ana").post("/pusher/auth", data=form).json
    assert answer is not None
    assert answer["private-user-ana"]["status"] == 200
    assert answer["private-user-ana"]["data"].keys() == {"auth"}
    assert answer["private-user-ben"] == {"status": 403}


@proves("Presence channels", "python", "javascript")
def test_members_have_a_name(project: Project) -> None:
    browser = log_in(project.browser(), "ana")
    assert channel_data(subscribe(browser, "presence-room-7")) == {
        "user_id": "ana",
        "name": "Ana",
        "user_info": {"name": "Ana"},
    }


@proves("Encrypted channels", "sh", "python", "html")
def test_encrypted_channels(project: Project, tmp_path: Path) -> None:
    (command,) = commands("Encrypted channels")
    key = run(command, tmp_path, environment()).strip()
    app = Flask("app")
    app.config.update(NEEDED, PUSHER_ENCRYPTION_MASTER_KEY_BASE64=key)
    Pusher(app)

    with project.recording() as events:
        assert project.browser().post("/diagnosis").status_code == 204
    assert events == [(["private-encrypted-ward"], "diagnosis", {"text": "measles"}, None)]
    page = project.render(example("Encrypted channels", "html").text)
    assert PusherCall.in_page(page).key == "any-key"


@proves("Users", "python", "javascript")
def test_users_are_signed_in_and_reached(project: Project) -> None:
    browser = project.browser()
    form = {"socket_id": SOCKET_ID}
    assert browser.post("/pusher/user-auth", data=form).status_code == 403
    answer = log_in(browser, "ana").post("/pusher/user-auth", data=form).json
    assert answer is not None
    assert json.loads(answer["user_data"]) == {"id": "ana"}
    with project.recording() as events:
        assert browser.post("/users/ana/note", data={"text": "Hi"}).status_code == 204
        assert browser.post("/logout").status_code == 302
    assert events == [(["#server-to-user-ana"], "note", {"text": "Hi"}, None)]
    assert browser.post("/pusher/user-auth", data=form).status_code == 403


# -- Webhooks, the page, tests --------------------------------------------------------------------


def deliver(app: Flask, pusher: Pusher, path: str, **event: str) -> int:
    """Send a webhook as Channels does, and return the answer's status."""
    body = json.dumps({"time_ms": round(time.time() * 1000), "events": [event]})
    with app.app_context():
        headers = pusher.sign_webhook(body)
    return app.test_client().post(path, data=body, headers=headers).status_code


@proves("Webhooks", "python", "python")
def test_webhooks_are_heard(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    def hear(path: str, **event: str) -> None:
        assert deliver(project.app, project.pusher, path, **event) == 200

    ana = {"channel": "presence-room-7", "user_id": "ana"}
    for _ in range(2):
        hear("/pusher/events", name="member_added", **ana)
    assert project.module.members == {"presence-room-7": {"ana"}}
    hear("/pusher/events/channel_existence", name="member_removed", **ana)
    assert project.module.members == {"presence-room-7": set()}

    for path in ("/pusher/events", "/pusher/events/channel_existence"):
        caplog.clear()
        hear(path, name="channel_vacated", channel="news")
        hear(path, name="channel_occupied", channel="news")
        assert [message for message in caplog.messages if "news" in message] == [
            "Nobody listens to news"
        ]


def test_the_groups_of_webhooks_are_those_of_the_table() -> None:
    rows = table("Webhooks")
    groups = {name for name in vars(Webhooks) if not name.startswith("_")} - {"event"}
    assert {row[0] for row in rows} == groups
    for group, path, names, _fields in rows:
        calls: list[str] = []
        pusher = Pusher()
        getattr(pusher.webhooks, group)(partial(calls.append, group))
        app = Flask(group)
        app.config.update(NEEDED)
        pusher.init_app(app)
        for name in names.split(", "):
            calls.clear()
            assert deliver(app, pusher, path, name=name, channel="a") == 200
            assert deliver(app, pusher, "/pusher/events", name=name, channel="a") == 200
            assert calls == [group, group]


@proves("The page", "python", "python")
def test_the_page_has_options(project: Project) -> None:
    app = project.run_example("options.py").app
    with app.test_request_context():
        assert json.loads(render_template_string("{{ pusher_options()|tojson }}")) == {
            "cluster": "eu",
            "activityTimeout": 30_000,
            "channelAuthorization": {"endpoint": "/pusher/auth", "headers": {"X-Page": "orders"}},
            "userAuthentication": {"endpoint": "/pusher/user-auth"},
        }
    answer = project.browser().get("/pusher.json").json
    assert answer is not None
    assert answer["key"] == "any-key"
    assert answer["options"]["wsPort"] == 6001


def run_pytest(project: Project, *arguments: str) -> str:
    env = environment(FLASK_PUSHER_ENCRYPTION_MASTER_KEY_BASE64=MASTER_KEY)
    command = [sys.executable, "-m", "pytest", "-W", "error", "--rootdir", ".", *arguments]
    return run(command, project.folder, env)


@proves("Testing your application", "python")
def test_the_tests_of_an_application_pass(project: Project) -> None:
    tests = in_file("test_app.py").text
    project.write("test_app.py", tests)
    assert f"{tests.count('def test_')} passed" in run_pytest(project)


SITE_IS_SERVED = """
import requests


def test_the_site_is_served(address, channels):
    assert f'"wsPort": {channels.port}' in requests.get(address, timeout=15).text
"""


def test_the_fixtures_for_a_browser_serve_the_site(project: Project) -> None:
    project.write("conftest.py", in_file("conftest.py").text)
    project.write("test_site.py", SITE_IS_SERVED)
    assert "1 passed" in run_pytest(project)


# -- Commands and the local server ----------------------------------------------------------------


@proves("Commands", "sh")
def test_the_commands_work(project: Project) -> None:
    said = {}
    with flask_pusher_local.start(project.app) as server:
        env = environment(FLASK_PUSHER_PORT=server.port)
        for command in commands("Commands"):
            said[command[2]] = run(command, project.folder, env)
    assert "accepts these credentials" in said["check"]
    assert "/pusher/events/channel_existence" in said["check"]
    assert "any-secret" not in said["check"]
    assert said.keys() == {"check", "trigger", "channels", "users"}


def test_a_command_that_is_refused_says_so_in_one_line(project: Project) -> None:
    project.app.extensions["pusher"].address = refusing_address()
    refused = project.app.test_cli_runner().invoke(args=["pusher", "channels"])
    assert refused.exit_code != 0
    assert len(refused.output.splitlines()) == 1


@proves("The local server", "sh")
def test_the_local_server_serves(project: Project) -> None:
    (command,) = commands("The local server")
    env = environment(FLASK_PUSHER_SERVE_PORT=0)
    with running(command, project.folder, env, "It posts webhooks to (.*)") as line:
        assert line[1] == "http://127.0.0.1:5000/pusher/events."


# -- Recipes --------------------------------------------------------------------------------------


@proves("Flask-Login", "python")
def test_the_recipe_for_flask_login(project: Project) -> None:
    from flask_login import FlaskLoginClient

    project.add(example("Flask-Login", "python"))
    assert subscribe(project.browser(), "private-orders").status_code == 403
    project.app.test_client_class = FlaskLoginClient
    browser = project.app.test_client(user=project.module.User("ana"))
    assert subscribe(browser, "private-orders").status_code == 200
    assert channel_data(subscribe(browser, "presence-room-7"))["user_id"] == "ana"
    signed_in = browser.post("/pusher/user-auth", data={"socket_id": SOCKET_ID}).json
    assert signed_in is not None
    assert json.loads(signed_in["user_data"])["id"] == "ana"


@proves("Flask-WTF", "python")
def test_the_recipe_for_flask_wtf(project: Project) -> None:
    project.add(example("Flask-WTF", "python"))
    browser = project.browser()
    with browser.session_transaction() as session:
        session["user"] = "ana"
    assert subscribe(browser, "private-orders").status_code == 200
    event = {"name": "channel_vacated", "channel": "news"}
    assert deliver(project.app, project.pusher, "/pusher/events", **event) == 200
    assert browser.post("/wave").status_code == 400


@proves("Flask-CORS", "python", "javascript")
def test_the_recipe_for_flask_cors(project: Project) -> None:
    browser = project.run_example("api.py").app.test_client()
    headers = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "Authorization",
    }
    answer = browser.options("/pusher/auth", headers=headers)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert answer.headers["Access-Control-Allow-Headers"] == "Authorization"


@proves("Flask-Limiter", "python")
def test_the_recipe_for_flask_limiter(project: Project) -> None:
    project.add(example("Flask-Limiter", "python"))
    browser = project.browser()
    statuses = [subscribe(browser, "private-orders").status_code for _ in range(61)]
    assert statuses == [403] * 60 + [429]


@in_its_own_thread
@proves("Coroutine functions", "python")
def test_the_recipe_for_coroutines(project: Project) -> None:
    project.add(example("Coroutine functions", "python"))
    assert subscribe(log_in(project.browser(), "ana"), "private-project-7").status_code == 200
    assert subscribe(log_in(project.browser(), "eve"), "private-project-7").status_code == 403


@proves("gunicorn", "sh")
def test_the_recipe_for_gunicorn(project: Project) -> None:
    (command,) = commands("gunicorn")
    env = environment(GUNICORN_CMD_ARGS="--bind 127.0.0.1:0")
    with running(command, project.folder, env, r"Listening at: (http://\S+)") as line:
        form = {"socket_id": SOCKET_ID, "channel_name": "private-orders"}
        answer = requests.post(f"{line[1]}/pusher/auth", form, timeout=WAIT_SECONDS)
    assert answer.status_code == 403


@proves("Mounted below a path", "python")
def test_the_recipe_for_a_mounted_application(project: Project) -> None:
    browser = WsgiClient(project.run_example("mounted.py").application)
    options = PusherCall.in_page(browser.get("/shop/").text).options
    assert options["channelAuthorization"] == {"endpoint": "/shop/pusher/auth"}
    assert subscribe(browser, "private-orders", "/shop").status_code == 403


@proves("Laravel Echo and axios", "html", "html")
def test_the_recipe_for_echo_and_axios(project: Project) -> None:
    for page in examples("Laravel Echo and axios", "html"):
        assert json.dumps({"endpoint": "/pusher/auth"}) in project.render(page.text)
    fields = {"socket_id": SOCKET_ID, "channel_name": "private-orders"}
    browser = log_in(project.browser(), "ana")
    assert browser.post("/pusher/auth", json=fields).status_code == 200


# -- In the browser -------------------------------------------------------------------------------


class Scripts(HTMLParser):
    """The scripts of a page, those that stand in it and the addresses of the others."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.addresses: list[str] = []
        self.is_inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get("src")
        self.is_inside = tag == "script" and address is None
        if address is not None:
            self.addresses.append(address)

    def handle_endtag(self, tag: str) -> None:
        self.is_inside = False

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            self.inline.append(data)


def test_the_javascript_is_javascript(project: Project) -> None:
    scripts = [example.text for example in EXAMPLES if example.language == "javascript"]
    for page in (example.text for example in EXAMPLES if example.language == "html"):
        scripts += Scripts(project.render(page)).inline
    node = shutil.which("node")
    if node is None:
        unavailable("There is no Node.js to parse it")
    parse = f"for (const script of {json.dumps(scripts)}) new vm.Script(script)"
    run([node, "-e", parse], project.folder, environment())


def test_the_scripts_that_pages_load_are_the_ones_that_are_tested() -> None:
    manifest = json.loads((TREE / "tests" / "e2e" / "package.json").read_text())
    loaded = [
        CDN.fullmatch(address)
        for example in EXAMPLES
        if example.language == "html"
        for address in Scripts(example.text).addresses
    ]
    assert loaded
    for script in loaded:
        assert script
        assert manifest["dependencies"][script[1]] == script[2]


def unavailable(reason: object) -> NoReturn:
    if os.environ.get("FLASK_PUSHER_NO_SKIP") == "1":
        pytest.fail(str(reason))
    pytest.skip(str(reason))


class Tools(NamedTuple):
    """The file of Chromium, and the folder of the scripts that pages load."""

    chromium: str
    packages: Path


@pytest.fixture(scope="session")
def tools(pytestconfig: pytest.Config) -> Tools:
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("Playwright is not installed here: tox -e e2e")
    e2e: Any = import_module("e2e.tools")
    try:
        cache = pytestconfig.cache.mkdir("flask-pusher")
        return Tools(e2e.find_chromium(), e2e.install_packages(e2e.find_node(), cache))
    except e2e.MissingToolError as error:
        unavailable(error)


class Tab:
    """A page of the site, in a browser profile of its own, with the CDN's files at hand."""

    def __init__(self, context: BrowserContext, packages: Path) -> None:
        def fulfill(route: Route) -> None:
            script = CDN.fullmatch(route.request.url)
            assert script
            route.fulfill(path=packages / script[1] / script[3])

        context.route(CDN, fulfill)
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_SECONDS * 1000)
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))

    def has_said(self, text: str) -> None:
        """Wait until a script has written a line to the console."""
        assert self.waits_until(lambda: text in self.said), f"no {text!r} in {self.said}"

    def waits_until(self, is_so: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_so() and time.monotonic() < deadline:
            self.page.wait_for_timeout(20)
        return is_so()


OpenTab = Callable[[str], Tab]


@contextmanager
def browser(tools: Tools) -> Iterator[OpenTab]:
    """Start Chromium, and give what opens a tab in it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=tools.chromium, args=CHROMIUM_ARGUMENTS
        )

        def open_tab(address: str) -> Tab:
            tab = Tab(chromium.new_context(), tools.packages)
            tab.page.goto(address)
            return tab

        yield open_tab
        chromium.close()


@pytest.fixture
def site(project: Project) -> Iterator[str]:
    """The reader's site, served, and the local server beside it."""
    local_server = flask_pusher_local.start(project.app, webhooks=True)
    with local_server, make_server("127.0.0.1", 0, project.app, threaded=True) as site:
        threading.Thread(target=site.serve_forever).start()
        yield f"http://127.0.0.1:{site.port}"
        site.shutdown()


def page_of_all_examples() -> str:
    """The first page, with all that the README says to add to it."""
    page = example("A first application", "html").text
    form = example("Private channels", "html").text
    scripts = "".join(
        example.text
        for example in EXAMPLES
        if example.language == "javascript" and "Recipes" not in example.sections
    )
    page = page.replace("<script", f"{form}<script", 1)
    before, end, after = page.rpartition("</script>")
    return before + scripts + end + after


@in_its_own_thread
def test_two_tabs_see_what_the_readme_says(project: Project, site: str, tools: Tools) -> None:
    project.write("templates/index.html", page_of_all_examples())
    with browser(tools) as open_tab:
        use_two_tabs(project, site, open_tab)


def use_two_tabs(project: Project, site: str, open_tab: OpenTab) -> None:
    def open_as(user: str) -> Tab:
        tab = open_tab(site)
        tab.has_said("refused 403")
        tab.page.get_by_label("Name").fill(user)
        tab.page.get_by_role("button", name="Log in").click()
        tab.has_said("subscribed to private-orders")
        return tab

    ana = open_as("ana")
    ana.has_said("I am Ana and we are 1")
    ben = open_as("ben")
    ben.has_said("I am Ben and we are 2")
    ben.has_said("ana Ana")
    ana.has_said("Ben came")

    ana.page.get_by_role("button", name="Wave").click()
    for tab in (ana, ben):
        tab.page.get_by_text("A wave from the server").wait_for()

    requests.post(f"{site}/orders/7/ship", timeout=WAIT_SECONDS).raise_for_status()
    ana.has_said("shipped {order: 7}")

    ana.page.wait_for_function("() => pusher.user.user_data")
    note = {"text": "Hello"}
    requests.post(f"{site}/users/ana/note", note, timeout=WAIT_SECONDS).raise_for_status()
    ana.has_said("a note: Hello")
    assert "a note: Hello" not in ben.said

    for tab in (ana, ben):
        tab.page.evaluate("greetings.bind('message', (data) => console.log('read', data.text))")
    ben.page.evaluate("send('Hi')")
    ana.has_said("read Hi")
    assert "read Hi" not in ben.said

    ben.page.context.close()
    ana.has_said("Ben left")
    assert ana.waits_until(lambda: project.module.members["presence-room-7"] == {"ana"})


@pytest.fixture
def publish_page(project: Project, site: str) -> Callable[[Example], str]:
    """Put an example that is a page on the site, for Ana, and return its address."""

    @project.app.get("/as-ana/<page>")
    def as_ana(page: str) -> str:
        session["user"] = "ana"
        return render_template(page)

    def publish_page(example: Example) -> str:
        page = f"{EXAMPLES.index(example)}.html"
        project.write(f"templates/{page}", "<!doctype html>" + example.text)
        return f"{site}/as-ana/{page}"

    return publish_page


@in_its_own_thread
def test_a_page_decrypts(site: str, publish_page: Callable[[Example], str], tools: Tools) -> None:
    address = publish_page(example("Encrypted channels", "html"))
    with browser(tools) as open_tab:
        tab = open_tab(address)
        tab.page.wait_for_function("() => ward.subscribed")
        requests.post(f"{site}/diagnosis", timeout=WAIT_SECONDS).raise_for_status()
        tab.has_said("measles")


@in_its_own_thread
def test_a_page_asks_for_many_channels_at_once(
    publish_page: Callable[[Example], str], tools: Tools
) -> None:
    names = [f"private-{number}" for number in range(20)]
    asked: list[str] = []
    address = publish_page(example("Many channels in one request", "html"))
    with browser(tools) as open_tab:
        tab = open_tab(address)
        tab.page.on("request", lambda request: asked.append(request.url))
        tab.page.evaluate("names => names.forEach((name) => pusher.subscribe(name))", names)
        tab.page.wait_for_function(
            "names => names.every((name) => pusher.channel(name).subscribed)", arg=names
        )
    assert len([url for url in asked if url.endswith("/pusher/auth")]) == 1


@in_its_own_thread
def test_pages_with_echo_and_axios_subscribe(
    project: Project, publish_page: Callable[[Example], str], tools: Tools
) -> None:
    echo, axios = map(publish_page, examples("Laravel Echo and axios", "html"))
    with browser(tools) as open_tab:
        tab = open_tab(echo)
        tab.page.wait_for_function("() => echo.connector.pusher.channel('greetings').subscribed")
        project.browser().post("/wave")
        tab.has_said("the server")

        tab = open_tab(axios)
        tab.page.evaluate("pusher.subscribe('private-orders')")
        tab.page.wait_for_function("() => pusher.channel('private-orders').subscribed")


IN_CHROMIUM = """
import re
from pathlib import Path

from playwright.sync_api import sync_playwright


@pytest.fixture
def page():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path={path!r}, args={arguments!r})
        page = browser.new_page()
        script = Path({packages!r}, "pusher-js/dist/web/pusher.min.js")
        page.route(re.compile("https://cdn"), lambda route: route.fulfill(path=script))
        yield page
        browser.close()
"""


@proves("In a real browser", "python", "python")
def test_the_test_in_a_real_browser_passes(project: Project, tools: Tools) -> None:
    page = IN_CHROMIUM.format(
        path=tools.chromium, arguments=CHROMIUM_ARGUMENTS, packages=str(tools.packages)
    )
    project.write("conftest.py", in_file("conftest.py").text + page)
    project.write("test_page.py", in_file("test_page.py").text)
    assert "1 passed" in run_pytest(project)

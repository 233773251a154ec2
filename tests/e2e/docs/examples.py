"""What a reader makes of the examples, block by block, in a folder of his own.

The folder begins with the first application, which the README prints. On a page with JavaScript, its
page is the first one that *A script of your own* prints. Then each block counts:

========== ==========================================================================================
python     is added to the end of ``app.py``, and the application starts anew
html       is put above the end of the body of ``templates/index.html``, or its first script
javascript is added to the end of that page's script
sh         is run, line by line
json, ini  can be parsed
text       is only shown
========== ==========================================================================================

A block whose first line is a comment that names a file is that file. A ``test_*.py`` has to pass, and
another module has to start.

What an example came to is asserted in ``checks/``, a file for each page that has examples, so that the
pages read well as they are. ``# -- after: LINE`` begins what is checked after the example in which that
line is, and ``# -- first`` what comes before all. A check has the names of the application and of
:meth:`Project.names`.
"""

from __future__ import annotations

import configparser
import importlib.util
import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import requests
from docutils import nodes
from docutils.core import publish_doctree
from flask import Flask, render_template, session
from flask.testing import FlaskClient
from sybil import Document, Example, Region
from sybil.parsers.rest.lexers import DirectiveLexer
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from flask_pusher import Pusher, RecordedEvent, local_server

from .. import WAIT_SECONDS
from ..conftest import BROWSER_ARGUMENTS
from . import TREE
from .browser import Browser, Tab
from .terminal import Terminal

README = TREE / "README.rst"
BY_HAND = TREE / "docs" / "javascript.rst"
INDEX = "templates/index.html"
PARSED = attrgetter("parsed")
PAGES = sorted(TREE.joinpath("docs").rglob("*.rst"))
SOCKET_ID = "123.456"
CHECKS = Path(__file__).with_name("checks")
HEADING = re.compile(r"^# -- (first|after: .+)$", re.MULTILINE)
FILE_NAMED = re.compile(r"(?:# |// |\{# |<!-- )([\w./-]+\.\w+)(?: #\}| -->)?\n")


def blocks(document: Document) -> Iterator[Region]:
    """A parser for Sybil: each block of code."""
    for region in DirectiveLexer("code-block")(document):
        region.parsed = region.lexemes["source"].rstrip() + "\n"
        region.evaluator = lambda example: example.namespace["project"].take(example)
        yield region


def examples_of(path: Path) -> list[Example]:
    return list(Document.parse(str(path), blocks))


class Check(NamedTuple):
    path: Path
    line: int
    text: str


def checks_of(path: Path, examples: Sequence[Example]) -> dict[int, Check]:
    """The checks of a page, by the number of the example that they come after; -1 comes first."""
    file = CHECKS / f"{path.stem}.py"
    checks: dict[int, Check] = {}
    if not file.exists():
        return checks
    # Each heading, between what is above and what is below.
    above, *parts = HEADING.split(file.read_text(encoding="utf-8"))
    line = above.count("\n") + 1
    for heading, text in zip(parts[::2], parts[1::2]):
        number = -1
        if heading != "first":
            wanted = heading.removeprefix("after: ")
            found = [
                number
                for number, example in enumerate(examples)
                if wanted in map(str.strip, example.parsed.splitlines())
            ]
            assert len(found) == 1, f"{file}: {heading!r} is in {len(found)} examples"
            (number,) = found
        assert number not in checks, f"{file}: {heading!r} is a second one"
        checks[number] = Check(file, line, text)
        line += text.count("\n")
    return checks


def file_of(text: str) -> str | None:
    """The file that a block's first line names."""
    named = FILE_NAMED.match(text)
    return named[1] if named else None


class Project:
    """A reader's folder, and what runs in it."""

    def __init__(self, folder: Path, packages: Path, open_browser: Callable[[], Browser]) -> None:
        self.folder = folder
        self.packages = packages
        self.open_browser = open_browser
        self.terminal = Terminal(folder)
        self.module: Any = None
        self._modules: list[ModuleType] = []
        self._application = ExitStack()
        self._tabs = ExitStack()
        self._has_unseen_script = False
        self._site: str | None = None
        self._html: list[str] = []
        self._scripts: list[str] = []
        for example in examples_of(README):
            if file_of(example.parsed) in ("app.py", INDEX):
                self.write(file_of(example.parsed) or "", example.parsed)
        self.load()

    # -- Each kind of block -----------------------------------------------------------------------

    def take(self, example: Example) -> None:
        text, language = example.parsed, example.region.lexemes["arguments"]
        if language == "sh":
            for line in filter(None, text.replace("\\\n", " ").splitlines()):
                self.run_line(line)
        elif language == "json":
            json.loads(text)
        elif language == "ini":
            configparser.ConfigParser().read_string(text)
        elif language == "text":
            return
        elif file := file_of(text):
            self.write(file, text)
            self.start(file)
        else:
            add = {"python": self.add_python, "javascript": self.add_script, "html": self.add_html}
            add[language](text)

    def check(self, check: Check) -> None:
        code = compile("\n" * (check.line - 1) + check.text, check.path, "exec")
        with ExitStack() as self._tabs:
            exec(code, {**vars(self.module), **self.names()})  # noqa: S102 - what this file is for

    def names(self) -> dict[str, Any]:
        """What checks may use beside the names of the application."""
        return {
            "anybody": lambda: self.app.test_client(),
            "channel_data": channel_data,
            "deliver": self.deliver,
            "log_in": self.log_in,
            "logged": self.logged,
            "new_app": new_app,
            "open_as": self.open_as,
            "open_tab": self.open_tab,
            "post": self.post,
            "printed": self.terminal.printed,
            "project": self,
            "recording": self.recording,
            "requests": requests,
            "say_hello": self.say_hello,
            "subscribe": subscribe,
            "table_in": table_in,
            "json": json,
            "pytest": pytest,
        }

    def write(self, file: str, text: str) -> None:
        path = self.folder / file
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text, encoding="utf-8")

    def read(self, file: str) -> str:
        return (self.folder / file).read_text(encoding="utf-8")

    def start(self, file: str) -> None:
        name = Path(file).name
        if name == "app.py":
            self.load()
        elif name.startswith("test_"):
            self.terminal.run(
                sys.executable, "-m", "pytest", "-W", "error", "--rootdir", ".", file
            )
        elif name.endswith(".py") and name != "conftest.py":
            self.import_file(file)

    def add_python(self, text: str) -> None:
        self.write("app.py", f"{self.read('app.py')}\n\n{text}")
        self.load()

    def add_html(self, text: str) -> None:
        self._html.append(text)
        self._write_index()

    def add_script(self, text: str) -> None:
        self._has_unseen_script = True
        self._scripts.append(text)
        self._write_index()

    def _write_index(self) -> None:
        page = BY_HAND if self._scripts else README
        (index,) = [text for text in map(PARSED, examples_of(page)) if file_of(text) == INDEX]
        begin = "<script" if self._scripts else "</body>"
        index = index.replace(begin, "".join([*self._html, begin]), 1)
        before, end, after = index.rpartition("</script>")
        self.write(INDEX, "".join([before, *self._scripts, end, after]))

    # -- The application --------------------------------------------------------------------------

    @property
    def app(self) -> Flask:
        app: Flask = self.module.app
        return app

    @property
    def pusher(self) -> Pusher:
        pusher: Pusher = self.module.pusher
        return pusher

    def load(self) -> None:
        """Start the application anew, as it now stands in ``app.py``."""
        self._application.close()
        self._site = None
        settings = {
            name: value for name, value in self.terminal.env.items() if name.startswith("FLASK_")
        }
        with patch.dict(os.environ, settings):
            self.module = self.import_file("app.py")
        self.app.jinja_env.auto_reload = True
        self.app.secret_key = self.app.secret_key or "signs the session"
        self.app.add_url_rule("/as/<user>/<page>", view_func=page_of_user)

    def import_file(self, file: str) -> Any:
        name = Path(file).stem
        spec = importlib.util.spec_from_file_location(name, self.folder / file)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        self._modules.append(module)
        exec(compile(self.read(file), self.folder / file, "exec"), vars(module))  # noqa: S102
        return module

    def follow(self, page: str, *, scripts: bool = True) -> None:
        """Add what another page shows, which the one at hand goes on with."""
        languages = ["python", "html", *(["javascript"] if scripts else [])]
        for example in examples_of(TREE / page):
            if example.region.lexemes["arguments"] in languages:
                self.take(example)

    def channels(self) -> None:
        """Have a Channels server, which the application and the commands publish to."""
        env = self.terminal.env
        if "FLASK_PUSHER_PORT" not in env:
            server = self._application.enter_context(local_server(self.app, webhooks=True))
            env["FLASK_PUSHER_PORT"] = str(server.port)
            self._application.callback(env.pop, "FLASK_PUSHER_PORT")

    def publish_to(self, port: int) -> None:
        """Start the application anew with this port of a Channels server."""
        self._application.close()
        self.terminal.env["FLASK_PUSHER_PORT"] = str(port)
        self.load()

    def lose_channels(self) -> None:
        """Start the application anew with a port where no Channels server is."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.publish_to(port)

    @property
    def site(self) -> str:
        """Where the application is served."""
        if self._site is None:
            self.channels()
            site = make_server("127.0.0.1", 0, self.app, threaded=True)
            thread = threading.Thread(target=site.serve_forever)
            thread.start()
            self._application.callback(site.server_close)
            self._application.callback(thread.join)
            self._application.callback(site.shutdown)
            self._site = f"http://127.0.0.1:{site.port}"
        return self._site

    def open_tab(self, path: str = "/") -> Tab:
        tab = self.open_browser().open(self.site.rstrip("/") + path)
        self._tabs.callback(tab.close)
        self._has_unseen_script = False
        return tab

    def open_as(self, user: str, page: str = "index.html") -> Tab:
        """Open a template in a browser where this user has logged in."""
        return self.open_tab(f"/as/{user}/{page}")

    def wait_for_subscriber(self, channel: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        with self.app.app_context():
            while not self.pusher.client.channel_info(channel)["occupied"]:
                assert time.monotonic() < deadline, f"Nobody subscribed to {channel}"
                time.sleep(0.02)

    def post(self, path: str, **form: str) -> requests.Response:
        """Post a form to the application that is served."""
        return requests.post(self.site + path, form, timeout=WAIT_SECONDS)

    def say_hello(self) -> None:
        with self.app.app_context():
            self.pusher.trigger("greetings", "hello", {"from": "The server"})

    def log_in(self, user: str) -> FlaskClient:
        browser = self.app.test_client()
        assert browser.post("/login", data={"user": user}).status_code == 302
        return browser

    @contextmanager
    def recording(self) -> Iterator[list[RecordedEvent]]:
        with self.app.app_context(), self.pusher.record_events() as events:
            yield events

    def deliver(
        self, path: str, app: Flask | None = None, pusher: Pusher | None = None, **event: object
    ) -> int:
        """Send a webhook as Channels does, and return the answer's status."""
        app, pusher = app or self.app, pusher or self.pusher
        body = json.dumps({"time_ms": round(time.time() * 1000), "events": [event]})
        with app.app_context():
            headers = pusher.sign_webhook(body)
        return app.test_client().post(path, data=body, headers=headers).status_code

    @contextmanager
    def logged(self) -> Iterator[list[str]]:
        """The messages that the application logs meanwhile."""
        said: list[str] = []
        handler = logging.Handler(logging.DEBUG)
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        self.app.logger.addHandler(handler)
        try:
            yield said
        finally:
            self.app.logger.removeHandler(handler)

    def give_tests_a_page(self) -> None:
        """Add fixtures as pytest-playwright's to ``conftest.py``."""
        browser = self.open_browser()
        fixture = PAGE_FIXTURES.format(
            arguments=BROWSER_ARGUMENTS,
            chromium=browser.path,
            packages=str(browser.packages),
            seconds=WAIT_SECONDS,
        )
        self.write("conftest.py", self.read("conftest.py") + fixture)

    # -- Commands ---------------------------------------------------------------------------------

    def run_line(self, line: str) -> None:
        """Run a line in the reader's terminal, where ``flask pusher`` finds what runs here."""
        starts_server = line.startswith(("flask pusher serve", "flask run"))
        if line.startswith("flask ") and not starts_server:
            self.channels()
        if "http://127.0.0.1:5000" in line and not starts_server:
            line = line.replace("http://127.0.0.1:5000", self.site)
        self.terminal.run_line(line)
        self._site = self.terminal.site or self._site

    def finish(self) -> None:
        """Run the scripts that no check has run."""
        if self._has_unseen_script:
            self.open_tab()
            self._tabs.close()

    def close(self) -> None:
        self._application.close()
        self.terminal.close()
        for module in self._modules:
            sys.modules.pop(module.__name__, None)


PAGE_FIXTURES = """

import re
from pathlib import Path

from flask_pusher import LocalServer
from playwright.sync_api import expect, sync_playwright

# What a reader's machine does within the five seconds that are usual, a busy one may not.
expect.set_options(timeout={seconds} * 1000)
LocalServer.wait_for.__defaults__ = (1, {seconds})
LocalServer.wait_for_webhook.__defaults__ = (None, {seconds})

CDN = re.compile("https://cdn[^/]*/npm/([^@]+)@[^/]+/(.*)")


def answer_as_cdn(route):
    package, file = CDN.fullmatch(route.request.url).groups()
    everyone = {{"Access-Control-Allow-Origin": "*"}}
    route.fulfill(path=Path({packages!r}, package, file), headers=everyone)


@pytest.fixture
def context():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path={chromium!r}, args={arguments!r})
        context = browser.new_context()
        context.route(CDN, answer_as_cdn)
        yield context
        browser.close()


@pytest.fixture
def page(context):
    return context.new_page()
"""


def page_of_user(user: str, page: str) -> str:
    session["user"] = user
    return render_template(page)


def new_app(pusher: Pusher, **settings: object) -> Flask:
    """An application with credentials of its own."""
    app = Flask("another")
    app.config.update(PUSHER_APP_ID="1", PUSHER_KEY="a-key", PUSHER_SECRET="a-secret")
    app.config.update(settings)
    pusher.init_app(app)
    return app


def table_in(page: str, number: int = 0) -> list[list[str]]:
    """The rows of a page's table, without its head."""
    settings = {"report_level": 5, "file_insertion_enabled": False}
    text = (TREE / page).read_text(encoding="utf-8")
    found = list(publish_doctree(text, settings_overrides=settings).findall(nodes.table))
    (body,) = found[number].findall(nodes.tbody)
    return [[entry.astext() for entry in row.findall(nodes.entry)] for row in body.children]


def subscribe(browser: FlaskClient, channel: str, path: str = "") -> TestResponse:
    """Ask for a channel as pusher-js does."""
    form = {"socket_id": SOCKET_ID, "channel_name": channel}
    return browser.post(f"{path}/pusher/auth", data=form)


def channel_data(answer: TestResponse) -> Any:
    assert answer.json is not None
    return json.loads(answer.json["channel_data"])

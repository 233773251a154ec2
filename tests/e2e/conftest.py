"""An application, a page of it in a browser, and a Channels server between them.

Each test runs twice: with soketi, an independent server, and with the local server. Where the
two differ, the test says so, and which of them does as the hosted service and pusher-js do.
"""

from __future__ import annotations

import base64
import itertools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from flask import Flask, render_template, send_from_directory, session
from playwright.sync_api import Browser, Route, expect, sync_playwright
from playwright.sync_api import Page as BrowserPage
from pusher import Pusher as OfficialClient
from werkzeug import Response

from flask_pusher import Pusher, local_server

from . import WAIT_SECONDS
from .live import until
from .pages import Page
from .servers import APP_ID, KEY, SECRET, Redis, Site, Soketi
from .tools import (
    HERE,
    MissingToolError,
    Node,
    find_chromium,
    find_node,
    find_redis,
    install_packages,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

RECIPES = HERE.parents[1] / "docs" / "recipes"
CDN = "https://cdn.jsdelivr.net/npm/"
BROWSER_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

expect.set_options(timeout=WAIT_SECONDS * 1000)

Serve = Callable[..., None]
OpenPage = Callable[..., Page]
NewTab = Callable[..., BrowserPage]
NewName = Callable[..., str]


def unavailable(reason: object) -> NoReturn:
    if os.environ.get("FLASK_PUSHER_NO_SKIP") == "1":
        pytest.fail(str(reason))
    pytest.skip(str(reason))


@pytest.fixture(scope="session")
def node() -> Node:
    try:
        return find_node()
    except MissingToolError as error:
        unavailable(error)


@pytest.fixture(scope="session")
def packages(
    node: Node, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder ``node_modules`` of what package.json names, kept in pytest's cache."""
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)  # -p no:cacheprovider
    folder = cache.mkdir("flask-pusher") if cache else tmp_path_factory.mktemp("npm")
    try:
        return install_packages(node, folder)
    except MissingToolError as error:
        unavailable(error)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    try:
        path = find_chromium()
    except MissingToolError as error:
        unavailable(error)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    try:
        program = find_redis()
    except MissingToolError as error:
        unavailable(error)
    redis = Redis(program, tmp_path_factory.mktemp("redis"))
    yield redis
    redis.stop()


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.stop()


@pytest.fixture(scope="session")
def start_soketi(
    node: Node, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[list[dict[str, Any]]], Soketi]]:
    """Start soketi for webhooks to some URLs; the same ones get the same soketi."""
    running: dict[str, Soketi] = {}

    def start(webhooks: list[dict[str, Any]]) -> Soketi:
        key = json.dumps(webhooks)
        if key not in running:
            folder = tmp_path_factory.mktemp("soketi")
            running[key] = Soketi(node.node, packages, folder, webhooks)
        return running[key]

    yield start
    for soketi in running.values():
        soketi.stop()


@pytest.fixture
def webhooks(site: Site) -> list[dict[str, Any]]:
    """Where the server posts webhooks: each group to its route, one event at a time."""
    groups = {
        "channel_existence": ["channel_occupied", "channel_vacated"],
        "presence": ["member_added", "member_removed"],
        "client": ["client_event"],
        "cache": ["cache_miss"],
        "subscription_count": ["subscription_count"],
    }
    return [
        {"url": f"{site.url}/pusher/events/{group}", "event_types": names, "batch": False}
        for group, names in groups.items()
    ]


@pytest.fixture(params=["soketi", "local"])
def server(request: pytest.FixtureRequest) -> str:
    """The name of the Channels server that the test runs with."""
    name: str = request.param
    return name


@pytest.fixture
def settings(
    server: str,
    webhooks: list[dict[str, Any]],
    start_soketi: Callable[[list[dict[str, Any]]], Soketi],
    caplog: pytest.LogCaptureFixture,
) -> Iterator[dict[str, Any]]:
    """The configuration of an application that uses the server; its log is shown on failure."""
    settings = {
        "PUSHER_APP_ID": APP_ID,
        "PUSHER_KEY": KEY,
        "PUSHER_SECRET": SECRET,
        "PUSHER_TIMEOUT": WAIT_SECONDS,
        "PUSHER_ENCRYPTION_MASTER_KEY_BASE64": base64.b64encode(b"m" * 32).decode(),
    }
    if server == "local":
        caplog.set_level(logging.INFO, logger="flask_pusher.local")
        yield settings
    else:
        soketi = start_soketi(webhooks)
        address = {"PUSHER_HOST": "127.0.0.1", "PUSHER_PORT": soketi.port, "PUSHER_SSL": False}
        with soketi.log.open(encoding="utf-8") as log:
            log.seek(0, os.SEEK_END)
            yield {**settings, **address}
            wait_until_nobody_is_there(soketi)
            print(log.read())


def wait_until_nobody_is_there(soketi: Soketi) -> None:
    """Let it see that a test's tabs are closed, or they were still there for the next test."""
    address = {"host": "127.0.0.1", "port": soketi.port, "ssl": False}
    client = OfficialClient(APP_ID, KEY, SECRET, **address, timeout=WAIT_SECONDS)
    until(lambda: not client.channels_info()["channels"], "the channels to be empty")


@pytest.fixture
def make_app(settings: dict[str, Any], packages: Path) -> Callable[..., Flask]:
    """Make an application that has pages, and no extension yet."""

    def make_app(**more_settings: Any) -> Flask:
        app = Flask("e2e", root_path=str(HERE))
        app.config.update(settings, SECRET_KEY="signs-the-session", **more_settings)

        @app.get("/npm/<path:file>")
        def npm(file: str) -> Response:
            return send_from_directory(packages, file)

        @app.get("/recipes/<name>")
        def recipe(name: str) -> Response:
            return send_from_directory(RECIPES, name)

        @app.get("/<name>.html")
        def page(name: str) -> str:
            return render_template(f"{name}.html")

        @app.get("/<name>.html/as/<user>")
        def page_of_user(name: str, user: str) -> str:
            session["user"] = user
            return render_template(f"{name}.html")

        return app

    return make_app


@pytest.fixture
def serve(server: str, site: Site, webhooks: list[dict[str, Any]]) -> Iterator[Serve]:
    """Put an application on the site, and the local server in front of it where that is used."""
    with ExitStack() as running:

        def serve(app: Flask, wsgi: WSGIApplication | None = None) -> None:
            # Its first request may be a webhook of an earlier test's: nothing is set up after this.
            app.test_client().get("/first")
            if server == "local":
                running.enter_context(local_server(app, webhooks=webhooks, webhook_delay=0.1))
            site.application = wsgi or app

        yield serve
    site.wait_until_idle()
    site.application = None


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()


@pytest.fixture
def pusher(app: Flask, serve: Serve) -> Iterator[Pusher]:
    """The extension of an application that is being served; its client can be used."""
    pusher = Pusher(app)
    serve(app)
    with app.app_context():
        yield pusher


@pytest.fixture
def open_page(chromium: Browser, site: Site, serve: Serve) -> Iterator[OpenPage]:
    """Open a page of the application, in a browser profile of its own."""
    pages = []

    def open_page(path: str = "/page.html") -> Page:
        page = Page(chromium.new_context().new_page())
        pages.append(page)
        page.browser_page.goto(site.url + path)
        return page

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture
def new_tab(chromium: Browser, packages: Path) -> Iterator[NewTab]:
    """Open an empty tab, in a browser profile of its own. It finds npm's packages at the CDN."""
    contexts = []

    def answer_as_cdn(route: Route) -> None:
        asked = re.fullmatch(f"{CDN}(@?[^@]+)@([^/]+)/(.*)", route.request.url)
        assert asked is not None
        name, version, file = asked.groups()
        manifest = json.loads((packages / name / "package.json").read_text(encoding="utf-8"))
        assert manifest["version"] == version
        # As the CDN does, or an `integrity` could not be compared.
        everyone = {"Access-Control-Allow-Origin": "*"}
        route.fulfill(path=packages / name / file, headers=everyone)

    def new_tab(browser: Browser = chromium) -> BrowserPage:
        contexts.append(browser.new_context())
        contexts[-1].route(f"{CDN}**", answer_as_cdn)
        tab = contexts[-1].new_page()
        tab.set_default_timeout(WAIT_SECONDS * 1000)
        return tab

    yield new_tab
    for context in contexts:
        context.close()


_numbers = itertools.count(1)


@pytest.fixture
def new_name() -> NewName:
    """Make a channel's name, or a user's, that no other test uses."""

    def new_name(kind: str) -> str:
        return f"{kind}-{os.getpid()}-{next(_numbers)}"

    return new_name

"""Chromium in a thread of its own, so that examples may have an event loop in theirs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

from playwright.sync_api import Page, Route, sync_playwright

from .. import WAIT_SECONDS
from ..conftest import BROWSER_ARGUMENTS

CDN = re.compile(r"https://cdn\.jsdelivr\.net/npm/([\w.-]+)@([\d.]+)/([\w./-]+)")
T = TypeVar("T")
Colours = Literal["light", "dark"]


class Browser:
    """A browser for which the CDN's files are those that npm installed."""

    def __init__(self, chromium: str, packages: Path) -> None:
        self.path = chromium
        self.packages = packages
        self._thread = ThreadPoolExecutor(1)
        self._playwright = self.run(lambda: sync_playwright().start())
        self._chromium = self.run(
            lambda: self._playwright.chromium.launch(
                executable_path=chromium, args=BROWSER_ARGUMENTS
            )
        )

    def run(self, action: Callable[[], T]) -> T:
        return self._thread.submit(action).result()

    def open(self, address: str, *, width: int = 1280, colours: Colours = "light") -> Tab:
        """Open an address in a profile of its own."""
        return self.run(lambda: self._open(address, width, colours))

    def _open(self, address: str, width: int, colours: Colours) -> Tab:
        context = self._chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=colours
        )
        context.route(CDN, self._answer_as_cdn)
        tab = Tab(self, context.new_page())
        tab.page.goto(address)
        return tab

    def _answer_as_cdn(self, route: Route) -> None:
        file = CDN.fullmatch(route.request.url)
        assert file
        package = self.packages / file[1]
        if json.loads((package / "package.json").read_text())["version"] == file[2]:
            # As the CDN does, or an `integrity` could not be compared.
            everyone = {"Access-Control-Allow-Origin": "*"}
            route.fulfill(path=package / file[3], headers=everyone)
        else:
            route.abort()  # a page should load what the tests run with

    def close(self) -> None:
        self.run(self._chromium.close)
        self.run(self._playwright.stop)
        self._thread.shutdown()


class Tab:
    """A page, and what its scripts have written to the console."""

    def __init__(self, browser: Browser, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self._browser = browser
        page.set_default_timeout(WAIT_SECONDS * 1000)
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(f"pageerror: {error}"))

    def do(self, action: Callable[[Page], T]) -> T:
        """Do something with Playwright's page, which only the browser's thread may touch."""
        return self._browser.run(lambda: action(self.page))

    def has_said(self, text: str) -> None:
        """Wait until a script has written a line to the console."""
        self.waits_until(lambda: text in self.said, f"no {text!r} in {self.said}")

    def waits_until(self, is_so: Callable[[], bool], otherwise: str = "") -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, otherwise
            self.do(lambda page: page.wait_for_timeout(20))

    def has(self, expression: str) -> None:
        """Wait until a JavaScript expression is true in the page, or in the one that comes next,
        whose scripts may not have run yet."""
        script = f"""() => {{
          try {{ return {expression}; }}
          catch (error) {{ if (error instanceof ReferenceError) return false; throw error; }}
        }}"""
        self.do(lambda page: page.wait_for_function(script))

    def evaluate(self, expression: str) -> object:
        return self.do(lambda page: page.evaluate(expression))

    def shows(self, text: str) -> None:
        self.do(lambda page: page.get_by_text(text).first.wait_for())

    def press(self, button: str) -> None:
        self.do(lambda page: page.get_by_role("button", name=button).click())

    def fill(self, label: str, text: str) -> None:
        self.do(lambda page: page.get_by_label(label).fill(text))

    def close(self) -> None:
        self.do(lambda page: page.context.close())
        assert not [text for text in self.said if text.startswith("pageerror")], self.said

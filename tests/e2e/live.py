"""An application whose pages keep themselves up to date, for the tests of the page's script."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, render_template_string, request, session
from playwright.sync_api import ConsoleMessage, expect
from playwright.sync_api import Page as Tab

from flask_pusher import Pusher

from . import WAIT_SECONDS
from .servers import Site

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ path }}</title>
<link rel="icon" href="data:,">
"""
NOTE = """
    globalThis.heard = [];
    globalThis.errors = [];
    addEventListener("error", (event) => errors.push(event.message));
    addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
    for (const name of ["visibilitychange", "online"]) {
        addEventListener(name, (event) => event.isTrusted && event.stopImmediatePropagation(), true);
    }
    const dispatch = EventTarget.prototype.dispatchEvent;
    EventTarget.prototype.dispatchEvent = function (event) {
        if (event.type.startsWith("pusher:")) {
            heard.push([this.id, event.type, JSON.parse(JSON.stringify(event.detail ?? null))]);
        }
        return dispatch.call(this, event);
    };
"""
"""Notes what is dispatched on elements, by their id, and what goes wrong in the page. When it is
shown and online is its test's to say, and not the browser's."""

View = Callable[[], Any]
_numbers = itertools.count(1)


class Live:
    """The application, what browsers asked of it, and the tabs that are open."""

    def __init__(self, app: Flask, pusher: Pusher, site: Site, new_tab: Callable[[], Tab]) -> None:
        self.app = app
        self.pusher = pusher
        self.site = site
        self.scripts = "{{ pusher_scripts() }}"
        self.fetched: list[tuple[str, dict[str, str]]] = []
        """The path and the headers of each request that the script made."""
        self.page_is_asked = threading.Event()
        self.may_answer = threading.Event()
        """For a view that is slow as long as its test wants."""
        self.before: View = lambda: None
        """What is asked before each request; its answer, where it has one, is the request's."""
        self.headers: dict[str, str] = {}
        """What each answer has besides its own."""
        self._views: dict[str, View] = {}
        self._new_tab = new_tab
        self._lock = threading.Lock()
        # A tab of an earlier test may have asked for something that only comes now.
        self.root = f"/live/{next(_numbers)}"
        rule = f"{self.root}/<path:path>"
        app.add_url_rule(rule, "live", self._answer, methods=["GET", "POST"])
        app.before_request(lambda: self.before())
        app.after_request(self._add_headers)
        pusher.auth(lambda channel_name, socket_id: "refused" not in channel_name)
        pusher.channel_data(lambda channel_name, socket_id: session["member"])
        pusher.user_auth(
            lambda socket_id: {"id": session["user"]} if session.get("user") else None
        )

    def _answer(self, path: str) -> Any:
        if request.headers.get("X-Pusher-Live"):
            with self._lock:
                self.fetched.append((path, dict(request.headers)))
        return self._views[path]()

    def _add_headers(self, response: Response) -> Response:
        response.headers.update(self.headers)
        return response

    def page(self, path: str, body: str, head: str = "", **variables: Any) -> None:
        """A page whose template has this in its body, and this in its head."""
        template = f"{HEAD}{self.scripts}{head}</head><body>{body}</body></html>"

        def view() -> str:
            if "user" in variables:
                session["user"] = variables["user"]
            if "member" in variables:
                session["member"] = variables["member"]
            return render_template_string(template, path=path, **variables)

        self._views[path] = view

    def view(self, path: str, answer: View | str) -> None:
        """A view that answers with a text, or with what a function returns."""
        self._views[path] = answer if callable(answer) else lambda: answer

    def slow_view(self, path: str, state: list[str]) -> None:
        """A view that answers with the state of when it is asked: the second time, when it may."""

        def answer() -> str:
            shown = state[0]
            if self.times(path) == 2:
                self.page_is_asked.set()
                assert self.may_answer.wait(WAIT_SECONDS)
            return f"<b>{shown}</b>"

        self.view(path, answer)

    def open(self, path: str, tab: Tab | None = None) -> Tab:
        tab = tab or self._new_tab()
        tab.add_init_script(NOTE)
        tab.goto(f"{self.site.url}{self.root}/{path}")
        return tab

    def trigger(self, channel: str, event: str, data: Any = None) -> None:
        with self.app.app_context():
            self.pusher.client.trigger(channel, event, data)

    def trigger_all(self, events: list[tuple[str, str, Any]]) -> None:
        """Publish them in as few calls as there can be."""
        batch = [
            {"channel": channel, "name": name, "data": data} for channel, name, data in events
        ]
        with self.app.app_context():
            self.pusher.client.trigger_batch(batch)

    def send(self, user: str, event: str, data: Any = None) -> None:
        with self.app.app_context():
            self.pusher.client.send_to_user(user, event, data)

    def times(self, path: str) -> int:
        """How often the script has fetched this."""
        with self._lock:
            return sum(one == path for one, _ in self.fetched)

    def wait_for_times(self, path: str, times: int) -> None:
        until(lambda: self.times(path) >= times, f"{times} fetches of {path}, not {self.fetched}")


def until(is_so: Callable[[], bool], wanted: str = "", tab: Tab | None = None) -> None:
    """Wait for something; where a tab is to tell of it, while the tab is listened to."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"waited too long for {wanted}"
        if tab:
            tab.wait_for_timeout(10)
        else:
            time.sleep(0.01)


def listens(tab: Tab, selector: str = "#live") -> None:
    """Wait until an element listens."""
    locator = tab.locator(selector)
    expect(locator).to_have_attribute("data-pusher-state", "live", timeout=WAIT_SECONDS * 1000)


def heard(tab: Tab, element: str = "live") -> list[list[Any]]:
    """The names and the data of the events on an element, the protocol's own left out."""
    told: list[list[Any]] = tab.evaluate("heard")
    return [[name, data] for id_, name, data in told if id_ == element and "subscri" not in name]


def hears(tab: Tab, name: str, element: str = "live") -> Any:
    """Wait until an event is dispatched on an element, and return its data."""
    script = "([id, name]) => heard.find((one) => one[0] === id && one[1] === name)"
    return tab.wait_for_function(script, arg=[element, name], polling=20).json_value()[2]


def hide(tab: Tab, is_hidden: bool) -> None:
    """Let a page be in the background, or be shown."""
    tab.evaluate(
        "(hide) => { Object.defineProperty(document, 'hidden', {value: hide, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')) }",
        is_hidden,
    )


def stop_clock(tab: Tab) -> None:
    """From now on the page's time passes as its clock is told to."""
    # Seconds; ahead, or a machine that stands still meanwhile would have it in the past.
    tab.clock.pause_at(tab.evaluate("Date.now()") / 1_000 + 20)


def html(text: str, status: int = 200, **headers: str) -> Response:
    return Response(text, status, headers, mimetype="text/html")


def console(tab: Tab, containing: str = "Flask-Pusher: ") -> list[str]:
    """The lines of the console that contain this, as they come."""
    lines: list[str] = []

    def note(line: ConsoleMessage) -> None:
        if containing in line.text:
            lines.append(line.text)

    tab.on("console", note)
    return lines

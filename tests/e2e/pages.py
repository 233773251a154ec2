"""What a test does in a browser, and what it waits for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page as BrowserPage
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

WAIT_SECONDS = 10
OUTCOMES = ["pusher:subscription_succeeded", "pusher:subscription_error"]

logger = logging.getLogger(__name__)


class Page:
    """A page in a browser of its own, with pusher-js running in it; see static/page.js."""

    def __init__(self, browser_page: BrowserPage) -> None:
        self.browser_page = browser_page
        browser_page.set_default_timeout(WAIT_SECONDS * 1000)
        browser_page.on("console", lambda message: logger.warning("console: %s", message.text))
        browser_page.on("pageerror", lambda error: logger.error("page error: %s", error))

    def run(self, script: str, argument: Any = None) -> Any:
        """Evaluate JavaScript in the page; a promise is waited for."""
        return self.browser_page.evaluate(script, argument)

    @property
    def socket_id(self) -> str:
        self._wait("() => pusher.connection.state === 'connected'", None, "a connection")
        socket_id: str = self.run("pusher.connection.socket_id")
        return socket_id

    def subscribe(self, *channels: str) -> None:
        """Subscribe to channels at once, and wait until each was granted or refused."""
        self.run("names => names.forEach(subscribe)", channels)
        for channel in channels:
            self._wait("find", [channel, OUTCOMES], f"an answer about {channel}")

    def has_joined(self, channel: str) -> bool:
        subscribed: bool = self.run("name => pusher.channel(name).subscribed", channel)
        return subscribed

    def event(self, channel: str, name: str) -> Any:
        """Wait until a channel brings an event, and return its data."""
        return self._wait("find", [channel, [name]], f"{name} on {channel}")["data"]

    def events(self, channel: str) -> list[list[Any]]:
        """The name and the data of each event of a channel so far; the protocol's own left out."""
        return [
            [one["event"], one["data"]]
            for one in self.told
            if one["channel"] == channel and not one["event"].startswith("pusher:")
        ]

    @property
    def told(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self.run("told")
        return told

    def close(self) -> None:
        self.browser_page.context.close()

    def _wait(self, function: str, argument: Any, wanted: str) -> Any:
        try:
            found = self.browser_page.wait_for_function(function, arg=argument, polling=20)
            return found.json_value()
        except PlaywrightTimeoutError:
            raise AssertionError(
                f"The page waited {WAIT_SECONDS} s for {wanted}; it was told {self.told}"
            ) from None


class Inbox:
    """A list that one thread fills and another waits for."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._changed = threading.Condition()

    def put(self, item: Any) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    @property
    def items(self) -> list[Any]:
        with self._changed:
            return list(self._items)

    def wait_for(self, is_wanted: Callable[[Any], bool]) -> Any:
        with self._changed:
            found = self._changed.wait_for(
                lambda: [item for item in self._items if is_wanted(item)], WAIT_SECONDS
            )
            assert found, f"{WAIT_SECONDS} s brought only {self._items}"
            return found[0]

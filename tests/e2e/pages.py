"""What a test does in a browser, and what it waits for."""

from __future__ import annotations

import logging
from typing import Any

from playwright.sync_api import Page as BrowserPage
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from . import WAIT_SECONDS

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
        self.wait_until("pusher.connection.state === 'connected'")
        socket_id: str = self.run("pusher.connection.socket_id")
        return socket_id

    def wait_until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true in the page."""
        self._wait(condition, None, condition)

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

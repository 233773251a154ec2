"""The change of an app's key, step by step as the documentation has it, with pages and webhooks.

soketi knows both keys of an app, but checks calls of the API by the first. So it takes two nodes:
one for the processes that have the old key, and one for those that have the new.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser

from flask_pusher import Client, PusherError

from . import WAIT_SECONDS
from .conftest import NewName
from .pages import Page
from .servers import APP_ID, KEY, SECRET, Redis, Soketi, free_port, machine
from .tools import Node

OLD = {KEY: SECRET}
NEW = {"new-key": "new-secret"}
AS_EXTRA = "FLASK_PUSHER_EXTRA_TOKENS"
WITH_NEW = {"FLASK_PUSHER_KEY": "new-key", "FLASK_PUSHER_SECRET": "new-secret"}
LOAD_ANEW = "pusher.subscribe('pages').bind('load-anew', () => location.reload())"

Run = Callable[..., None]
StartNode = Callable[[Mapping[str, str]], Soketi]


class Site:
    """Where the application is, whatever its credentials are."""

    def __init__(self, heard: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.heard = heard
        heard.touch()

    def publish(self, channel: str, text: str) -> None:
        requests.post(f"{self.url}/publish/{channel}/{text}", timeout=30).raise_for_status()

    def wait_until_heard(self, channel: str, key: str) -> None:
        """Wait until the application has believed a webhook that was signed with this key."""
        webhook = f"channel_occupied {channel}  {key}"
        deadline = time.monotonic() + WAIT_SECONDS * 2
        while webhook not in self.heard.read_text().splitlines():
            assert time.monotonic() < deadline, (webhook, self.heard.read_text())
            time.sleep(0.05)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "heard")


@pytest.fixture
def start_node(
    site: Site, node: Node, packages: Path, redis: Redis, tmp_path: Path
) -> Iterator[StartNode]:
    """Start a node for an app with these keys. All nodes are one service."""
    webhooks = [{"url": f"{site.url}/pusher/events", "event_types": ["channel_occupied"]}]
    with ExitStack() as running:

        def start_node(tokens: Mapping[str, str]) -> Soketi:
            folder = tmp_path / "-".join(tokens)
            folder.mkdir()
            soketi = Soketi(node.node, packages, folder, webhooks, redis.port, tokens=tokens)
            running.callback(soketi.stop)
            return soketi

        yield start_node


@pytest.fixture
def run(site: Site, packages: Path) -> Iterator[Run]:
    """Run the application with these variables, in place of the one that runs."""
    with ExitStack() as running:

        def run(soketi: Soketi, **variables: str) -> None:
            running.close()
            running.enter_context(
                machine(site.port, soketi.port, packages, site.heard, **variables)
            )

        yield run


@pytest.fixture
def open_page(chromium: Browser, site: Site) -> Iterator[Callable[[], Page]]:
    with ExitStack() as opened:

        def open_page() -> Page:
            page = Page(chromium.new_context().new_page())
            opened.callback(page.close)
            page.browser_page.goto(f"{site.url}/page.html/as/ana")
            return page

        yield open_page


def trigger(soketi: Soketi, token: Mapping[str, str], channel: str, event: str) -> None:
    """Publish as a process that has these credentials."""
    ((key, secret),) = token.items()
    client = Client(
        APP_ID, key, secret, host="127.0.0.1", port=soketi.port, ssl=False, timeout=WAIT_SECONDS
    )
    client.trigger(channel, event, {})


def status_of_webhook(site: Site, token: Mapping[str, str]) -> int:
    ((key, secret),) = token.items()
    body = b'{"events": []}'
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Pusher-Key": key, "X-Pusher-Signature": signature}
    url = f"{site.url}/pusher/events"
    return requests.post(url, data=body, headers=headers, timeout=30).status_code


def test_nothing_is_refused_until_the_old_key_is_deleted(
    site: Site,
    start_node: StartNode,
    run: Run,
    open_page: Callable[[], Page],
    new_name: NewName,
) -> None:
    channel, later = new_name("private-room"), new_name("private-room")

    # Both keys are good, and every process believes webhooks by both.
    old_node, new_node = start_node({**OLD, **NEW}), start_node({**NEW, **OLD})
    run(old_node, **{AS_EXTRA: json.dumps(NEW)})
    old_page = open_page()
    old_page.subscribe(channel)
    old_page.run(LOAD_ANEW)
    site.wait_until_heard(channel, KEY)
    socket_id = old_page.socket_id

    with pytest.raises(PusherError):
        trigger(new_node, OLD, channel, "by-the-old")

    # The processes exchange them. A page that is loaded now has the new one.
    run(new_node, **WITH_NEW, **{AS_EXTRA: json.dumps(OLD)})
    new_page = open_page()
    new_page.subscribe(channel)
    assert [page.run("pusher.key") for page in (old_page, new_page)] == [KEY, "new-key"]
    assert all(page.has_joined(channel) for page in (old_page, new_page))
    site.publish(channel, "by-the-new")
    trigger(old_node, OLD, channel, "by-the-old")
    for page in (old_page, new_page):
        assert page.event(channel, "told") == "by-the-new"
        assert page.event(channel, "by-the-old") == {}
    for page, key in ((old_page, KEY), (new_page, "new-key")):
        public = new_name("room")
        page.subscribe(public)
        site.wait_until_heard(public, key)
    assert old_page.socket_id == socket_id

    # What an old page newly asks for is signed with the new key, until it loads anew.
    old_page.subscribe(later)
    assert not old_page.has_joined(later)
    with old_page.browser_page.expect_navigation():
        trigger(new_node, NEW, "pages", "load-anew")
    assert old_page.run("pusher.key") == "new-key"
    old_page.subscribe(later)
    assert old_page.has_joined(later)

    # The old key is deleted, and later nothing is believed by it.
    old_node.kill()
    new_node.kill()
    last_node = start_node(NEW)
    run(last_node, **WITH_NEW)
    page = open_page()
    page.subscribe(channel)
    assert page.has_joined(channel)
    site.publish(channel, "after")
    assert page.event(channel, "told") == "after"
    with pytest.raises(PusherError):
        trigger(last_node, OLD, channel, "by-the-old")
    assert [status_of_webhook(site, token) for token in (OLD, NEW)] == [403, 200]

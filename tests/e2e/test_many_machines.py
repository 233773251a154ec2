"""Several machines: two processes of one application, behind two nodes of one Channels service."""

from __future__ import annotations

import json
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser

from . import WAIT_SECONDS
from .conftest import NewName, unavailable
from .pages import Page
from .servers import KEY, Nginx, Redis, Soketi, free_port, machine, soketi_config
from .tools import MissingToolError, Node, find_nginx

DEPLOYMENT = Path(__file__).parents[2] / "docs" / "deployment.rst"
APPS = "appManager.array.apps"


class Balancer:
    """Passes each connection on to the first node that takes it, as a balancer before them does."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client = self.listener.accept()[0]
                threading.Thread(target=self._pass_on, args=[client], daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, suppress(OSError), self._connected() as node:
            while True:
                for source in select.select([client, node], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    (node if source is client else client).sendall(data)

    def _connected(self) -> socket.socket:
        for port in self.ports:
            with suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", port))
        raise ConnectionRefusedError("No node takes it.")


class Cluster:
    """Two nodes of soketi, a balancer that prefers each, and an application behind each of these."""

    def __init__(self, nodes: list[Soketi], sites: list[str], heard: Path) -> None:
        self.nodes = nodes
        self.sites = sites
        self._heard = heard

    def publish(self, site: int, channel: str, text: str) -> None:
        url = f"{self.sites[site]}/publish/{channel}/{text}"
        requests.post(url, timeout=30).raise_for_status()

    def wait_until_heard(self, webhook: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS * 2
        while f"{webhook} {KEY}" not in self._heard.read_text().splitlines():
            assert time.monotonic() < deadline, (webhook, self._heard.read_text())
            time.sleep(0.05)


def nginx_program() -> str:
    try:
        return find_nginx()
    except MissingToolError as error:
        unavailable(error)


@pytest.fixture
def cluster(node: Node, packages: Path, redis: Redis, tmp_path: Path) -> Iterator[Cluster]:
    heard = tmp_path / "heard"
    heard.touch()
    ports = [free_port(), free_port()]
    sites = [f"http://127.0.0.1:{port}" for port in ports]
    with ExitStack() as running:
        nodes = []
        for number, site in enumerate(sites):
            folder = tmp_path / f"node-{number}"
            folder.mkdir()
            kinds = ["channel_occupied", "member_added"]
            webhooks = [{"url": f"{site}/pusher/events", "event_types": kinds}]
            nodes.append(Soketi(node.node, packages, folder, webhooks, redis.port))
            running.callback(nodes[-1].stop)
        for number, port in enumerate(ports):
            preferred, other = nodes[number].port, nodes[1 - number].port
            balancer = Balancer(preferred, other)
            running.callback(balancer.listener.close)
            running.enter_context(machine(port, balancer.port, packages, heard))
        yield Cluster(nodes, sites, heard)


@pytest.fixture
def open_pages(chromium: Browser, cluster: Cluster) -> Iterator[list[Page]]:
    """Ana's page, from the first machine, and Ben's, from the second."""
    pages = []
    for site, user in zip(cluster.sites, ("ana", "ben")):
        pages.append(Page(chromium.new_context().new_page()))
        pages[-1].browser_page.goto(f"{site}/page.html/as/{user}")
    yield pages
    for page in pages:
        page.close()


def test_the_nodes_have_the_configuration_that_the_documentation_shows() -> None:
    (block,) = re.findall(r"code-block:: json\n\n((?: .*\n|\n)+)", DEPLOYMENT.read_text())
    shown = json.loads(block)
    used = soketi_config([1, 2, 3], [], 6379, {"my-key": "my-secret"})
    (shown_app,), (used_app,) = shown.pop(APPS), used.pop(APPS)
    assert shown_app.keys() == used_app.keys()
    assert shown.keys() <= used.keys()
    drivers = {key for key in used if key.endswith(".driver")}
    assert {key: shown[key] for key in drivers} == {key: used[key] for key in drivers}


def test_two_machines_and_two_nodes_are_one_service(
    cluster: Cluster, open_pages: list[Page], new_name: NewName
) -> None:
    channel = new_name("presence-room")
    for page in open_pages:
        page.subscribe(channel)

    # A browser at one node gets what a view behind the other published.
    cluster.publish(0, channel, "from-the-first")
    cluster.publish(1, channel, "from-the-second")
    for page in open_pages:
        page.wait_until(
            f"told.filter(one => one.channel === '{channel}' && one.event === 'told').length === 2"
        )
        assert sorted(page.events(channel)) == [
            ["told", "from-the-first"],
            ["told", "from-the-second"],
        ]

    # Presence is one list.
    for page in open_pages:
        page.wait_until(f"pusher.channel('{channel}').members.count === 2")
        members = page.run("name => Object.keys(pusher.channel(name).members.members)", channel)
        assert sorted(members) == ["ana", "ben"]

    # Webhooks come from both nodes.
    for user in ("ana", "ben"):
        cluster.wait_until_heard(f"member_added {channel} {user}")


def test_a_node_that_is_killed_loses_its_browsers_to_the_other(
    cluster: Cluster, open_pages: list[Page], new_name: NewName
) -> None:
    channel, another = new_name("presence-room"), new_name("private-room")
    for page in open_pages:
        page.subscribe(channel)
    before = [page.socket_id for page in open_pages]

    cluster.nodes[0].kill()

    ana, ben = open_pages
    ana.wait_until(
        f"pusher.connection.state === 'connected' && pusher.connection.socket_id !== '{before[0]}'"
        f" && pusher.channel('{channel}').subscribed"
    )
    assert ben.socket_id == before[1]
    for site in (0, 1):
        cluster.publish(site, channel, f"after-{site}")
    for page in open_pages:
        page.wait_until("told.filter(one => one.event === 'told').length === 2")
    ben.wait_until(f"pusher.channel('{channel}').members.count === 2")
    ana.subscribe(another)
    cluster.wait_until_heard(f"channel_occupied {another} ")


def test_nginx_passes_pages_their_connections_and_the_api_on(
    cluster: Cluster, chromium: Browser, packages: Path, tmp_path: Path, new_name: NewName
) -> None:
    channel, site = new_name("presence-room"), free_port()
    with ExitStack() as running:
        nginx = Nginx(nginx_program(), tmp_path, site, [node.port for node in cluster.nodes])
        running.callback(nginx.stop)
        running.enter_context(machine(site, nginx.port, packages, tmp_path / "heard"))
        pages = []
        for user in ("ana", "ben"):
            pages.append(Page(chromium.new_context().new_page()))
            running.callback(pages[-1].close)
            pages[-1].browser_page.goto(f"{nginx.url}/page.html/as/{user}")
            pages[-1].subscribe(channel)
        for text in ("one", "two"):
            requests.post(f"{nginx.url}/publish/{channel}/{text}", timeout=30).raise_for_status()
        for page in pages:
            page.wait_until(f"pusher.channel('{channel}').members.count === 2")
            page.wait_until("told.filter(one => one.event === 'told').length === 2")

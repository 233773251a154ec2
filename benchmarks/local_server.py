"""The local Channels server, beside soketi: idle connections, and one event for many of them."""

from __future__ import annotations

import json
import os
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pusher

from benchmarks.measuring import Ratio, Report
from tests.e2e.servers import APP_ID, KEY, SECRET, Soketi
from tests.e2e.tools import find_node, install_packages

CONNECTIONS, SUBSCRIBERS = 2000, 1000
EVENTS = 60
AT_ONCE = 50
PATIENCE_SECONDS = 20
CACHE = Path(__file__).parents[1] / ".pytest_cache/d/flask-pusher"

SERVE = f"""
import sys
from flask import Flask
from flask_pusher import Pusher, local_server
app = Flask("local")
app.config.update(PUSHER_APP_ID="{APP_ID}", PUSHER_KEY="{KEY}", PUSHER_SECRET="{SECRET}")
Pusher(app)
with local_server(app) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


class Crowd:
    """Connections to a Channels server, read as cheaply as Python can."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.members: list[socket.socket] = []
        self.selector = selectors.DefaultSelector()
        self.client = pusher.Pusher(
            APP_ID, KEY, SECRET, host="127.0.0.1", port=port, ssl=False, timeout=PATIENCE_SECONDS
        )

    def close(self) -> None:
        self.selector.close()
        for member in self.members:
            member.close()

    def connect(self, count: int) -> None:
        upgrade = (
            f"GET /app/{KEY}?protocol=7&client=benchmark&version=1 HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{self.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        while len(self.members) < count:
            newcomers = [
                socket.create_connection(("127.0.0.1", self.port)) for _ in range(AT_ONCE)
            ]
            for member in newcomers:
                member.setblocking(False)
                self.selector.register(member, selectors.EVENT_READ)
                member.sendall(upgrade)
            self.members += newcomers
            self.receive(b"pusher:connection_established", AT_ONCE)

    def subscribe(self, count: int, channel: str) -> None:
        message = {"event": "pusher:subscribe", "data": {"channel": channel}}
        for start in range(0, count, AT_ONCE):
            for member in self.members[start : start + AT_ONCE]:
                member.sendall(_masked(json.dumps(message)))
            self.receive(b"pusher_internal:subscription_succeeded", AT_ONCE)

    def receive(self, mark: bytes, count: int) -> None:
        """Wait until as many connections have received something with the mark in it."""
        received: dict[int, bytes] = {}
        found = 0
        deadline = time.monotonic() + PATIENCE_SECONDS
        while found < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{mark!r} reached {found} of {count} connections.")
            for key, _ in self.selector.select(1):
                part = key.fileobj.recv(65536)  # type: ignore[union-attr]  # they are sockets
                if not part:
                    raise ConnectionError("The server closed a connection.")
                before = received.get(key.fd, b"")
                received[key.fd] = before + part
                found += mark in received[key.fd] and mark not in before

    def seconds_to_last_delivery(self, channel: str, name: str) -> float:
        trigger = threading.Thread(target=self.client.trigger, args=[channel, name, {"order": 7}])
        start = time.perf_counter()
        trigger.start()
        self.receive(f'"{name}"'.encode(), SUBSCRIBERS)
        spent = time.perf_counter() - start
        trigger.join()
        return spent


def _masked(text: str) -> bytes:
    """A frame of text as a client sends it, up to 125 bytes long, with a mask that is zero."""
    payload = text.encode()
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


class Server(Soketi):
    """soketi, as it comes: it does not log each message."""

    @property
    def pid(self) -> int:
        return self._process.pid


@contextmanager
def running_soketi() -> Iterator[tuple[int, int]]:
    """The port and the process id of a soketi."""
    os.environ["SOKETI_DEBUG"] = "false"
    CACHE.mkdir(parents=True, exist_ok=True)
    node = find_node()
    with TemporaryDirectory() as folder:
        server = Server(node.node, install_packages(node, CACHE), Path(folder), [])
        try:
            yield server.port, server.pid
        finally:
            server.stop()


@contextmanager
def running_local_server() -> Iterator[tuple[int, int]]:
    """The port and the process id of a local server, which stops when its input ends."""
    command = [sys.executable, "-c", SERVE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        yield int(process.stdout.readline()), process.pid
        process.stdin.close()


def megabytes(pid: int) -> float:
    """The memory of a process that is in use, without what is swapped out."""
    answer = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], check=True, capture_output=True, text=True
    )
    return int(answer.stdout) / 1024


def allow_open_files() -> None:
    """For this process and the servers that it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONNECTIONS + 500
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def measure_memory(report: Report, pids: list[int], crowds: list[Crowd]) -> None:
    """How much memory connections take that say nothing; opens them."""
    before = [megabytes(pid) for pid in pids]
    for crowd in crowds:
        crowd.connect(CONNECTIONS)
    after = [megabytes(pid) for pid in pids]
    for name, start, end in zip(("the local server", "soketi"), before, after):
        report.number(f"megabytes of {name} without connections", round(start))
        report.number(f"and with {CONNECTIONS} idle ones", round(end))
    report.number("the local server's / soketi's", round(after[0] / after[1], 2), 0.69)


def measure_deliveries(report: Report, crowds: list[Crowd]) -> None:
    """How long an event is on its way to many subscribers, most of whom wait for others."""
    for crowd in crowds:
        crowd.subscribe(SUBSCRIBERS, "orders")
    spent: list[list[float]] = [[], []]
    for number in range(EVENTS):
        for which in (0, 1) if number % 2 else (1, 0):
            seconds = crowds[which].seconds_to_last_delivery("orders", f"shipped-{number}")
            spent[which].append(seconds)
    for name, seconds_of_events in zip(("the local server", "soketi"), spent):
        milliseconds = round(statistics.median(seconds_of_events) * 1000, 1)
        report.number(f"ms to the last of {SUBSCRIBERS} deliveries by {name}", milliseconds)
    ratio = Ratio.of(ours / other for ours, other in zip(*spent))
    report.ratio("the local server's / soketi's", ratio)


def main() -> None:
    report = Report("The local server / soketi")
    allow_open_files()
    with running_local_server() as local, running_soketi() as soketi, ExitStack() as stack:
        crowds = [stack.enter_context(closing(Crowd(port))) for port, _ in (local, soketi)]
        measure_memory(report, [local[1], soketi[1]], crowds)
        measure_deliveries(report, crowds)
    report.exit()


if __name__ == "__main__":
    main()

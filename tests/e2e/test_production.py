"""Servers that are stopped, recycled and killed under load, and an API that goes away: what of the
events that clients had an answer for has come, is counted."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .conftest import unavailable
from .servers import Soketi, WsgiServer, settings_for
from .tools import GUNICORN, MissingToolError, Node

CLIENTS = 4
WAIT_SECONDS = 60


class Api:
    """An HTTP API that is some way off, and notes the events of the calls that it accepted."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        """Channel and name, in the order in which they came."""
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.soketi: Soketi | None = None
        """Where it passes the calls on to, as a proxy does; without one they are accepted."""
        self.is_proxy = False
        self.link_seconds = 0.02
        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])
        self._thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = api.answer(self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                with suppress(ConnectionError):  # it took too long
                    self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
                pass

        return Handler

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if not self.may_answer.is_set():
            self.may_answer.wait(WAIT_SECONDS)
            return 503, b"Try again"
        time.sleep(self.link_seconds)
        status, answer = self._pass_on(path, body) if self.is_proxy else (200, b"{}")
        if status == 200:
            content = json.loads(body)
            with self._lock:
                self.events += [
                    (channel, event["name"])
                    for event in content.get("batch", [content])
                    for channel in event.get("channels", [event.get("channel")])
                ]
        return status, answer

    def _pass_on(self, path: str, body: bytes) -> tuple[int, bytes]:
        if self.soketi is None:
            return 502, b"Bad gateway"
        url = f"http://127.0.0.1:{self.soketi.port}{path}"
        call = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(call, timeout=WAIT_SECONDS) as answer:  # noqa: S310
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 502, b"Bad gateway"

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.events]

    @property
    def is_in_order(self) -> bool:
        """Whether each channel's events came once and in order."""
        channels: dict[str, list[int]] = {}
        for channel, name in list(self.events):
            channels.setdefault(channel, []).append(int(name.partition("-")[2]))
        return all(numbers == sorted(set(numbers)) for numbers in channels.values())

    def stop(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


class Site:
    """A server that runs the application, and the clients that ask it."""

    def __init__(self, server: WsgiServer, lost: Path) -> None:
        self._server = server
        self._lost = lost
        self.answers: list[str] = []
        """The names of the events that clients had an answer for."""
        self._is_over = threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def get(self, path: str) -> str:
        """A complete answer.

        :raises OSError: where there is none.
        """
        with socket.create_connection(
            ("127.0.0.1", self._server.port), timeout=WAIT_SECONDS
        ) as one:
            one.sendall(
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
            )
            answer = b""
            while part := one.recv(4096):
                answer += part
        head, end, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head or not end:
            raise ConnectionError(answer)
        return body.decode()

    def _ask(self) -> None:
        while not self._is_over.is_set():
            with suppress(OSError):  # it is being stopped
                self.answers.append(self.get("/defer"))

    def ask(self, *, until: Callable[[], bool]) -> None:
        """Let the clients ask, again and again, until something is so and beyond."""
        for client in self._clients:
            client.start()
        wait_until(until)

    def stop_asking(self) -> None:
        self._is_over.set()
        for client in self._clients:
            if client.ident:
                client.join()

    def reload(self) -> None:
        self._server.reload()

    def stop(self) -> None:
        """Tell the server to stop, wait until it has, and let the clients stop."""
        try:
            self._server.stop()
        finally:
            self.stop_asking()

    @property
    def processes(self) -> set[str]:
        """The workers that have answered."""
        return {name.partition("-")[0] for name in list(self.answers)}

    @property
    def lost(self) -> list[str]:
        """The names of the events that the application was told the loss of."""
        return self._lost.read_text(encoding="utf-8").split() if self._lost.exists() else []


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.02)


Run = Callable[..., Site]


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.stop()


@pytest.fixture
def run(api: Api, tmp_path: Path) -> Iterator[Run]:
    """Run the application in a server: a kind of gunicorn's workers, or uWSGI."""
    sites: list[Site] = []

    def run(kind: str, *arguments: str, **environ: str) -> Site:
        lost = tmp_path / "lost"
        settings = settings_for(api.port, LOST_EVENTS=str(lost), **environ)
        try:
            sites.append(Site(WsgiServer(kind, "production", settings, *arguments), lost))
        except MissingToolError as error:
            unavailable(error)
        return sites[-1]

    yield run
    for site in sites:
        site.stop()


@pytest.mark.parametrize("kind", [*GUNICORN, "uwsgi"])
def test_a_server_that_is_stopped_under_load_loses_nothing(api: Api, run: Run, kind: str) -> None:
    site = run(kind, *(["--processes=2"] if kind == "uwsgi" else []))
    site.ask(until=lambda: len(site.answers) > 300)
    site.stop()
    assert set(site.answers) <= set(api.names)
    assert api.is_in_order
    assert site.lost == []


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_workers_that_are_recycled_under_load_lose_nothing(api: Api, run: Run, kind: str) -> None:
    site = run(kind, "--max-requests=100")
    site.ask(until=lambda: len(site.processes) > 3)
    site.stop()
    assert set(site.answers) <= set(api.names)
    assert api.is_in_order
    assert site.lost == []


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_workers_that_are_reloaded_under_load_lose_nothing(api: Api, run: Run, kind: str) -> None:
    site = run(kind)
    site.ask(until=lambda: len(site.answers) > 100)
    site.reload()
    wait_until(lambda: len(site.processes) > 1)
    site.stop()
    assert set(site.answers) <= set(api.names)
    assert api.is_in_order
    assert site.lost == []


@pytest.mark.parametrize("kind", ["flask", "waitress", "uvicorn"])
@pytest.mark.parametrize("is_mended", [False, True])
def test_a_server_that_lets_sigterm_kill_it_loses_what_waits_unless_two_lines_mend_it(
    api: Api, run: Run, kind: str, is_mended: bool
) -> None:
    api.link_seconds = 0.5 if is_mended else WAIT_SECONDS  # none comes before the server has ended
    site = run(kind, **({"ENDS_IN_ORDER": "yes"} if is_mended else {}))
    site.answers += [site.get("/defer") for _ in range(10)]
    site.stop()
    assert (set(site.answers) <= set(api.names)) is is_mended
    assert site.lost == []


def run_reloading(run: Run, tmp_path: Path, **environ: str) -> tuple[Site, Callable[[], None]]:
    """``flask run --reload``, and what changes a file that it watches."""
    watched = tmp_path / "watched"
    watched.touch()
    site = run("flask", "--reload", "--extra-files", str(watched), **environ)
    return site, lambda: os.utime(watched, (time.time() + 60, time.time() + 60))


def test_a_reload_of_flask_run_waits_and_loses_nothing(api: Api, run: Run, tmp_path: Path) -> None:
    site, change = run_reloading(run, tmp_path)
    api.may_answer.clear()
    site.answers += [site.get("/defer") for _ in range(10)]
    (before,) = site.processes
    change()
    time.sleep(2)  # it looks once a second, and then ends
    api.may_answer.set()
    wait_until(lambda: before not in next_answer(site))
    os.kill(int(site.answers[-1].partition("-")[0]), signal.SIGTERM)
    assert set(site.answers[:10]) <= set(api.names)
    assert site.lost == []


def test_a_reload_of_flask_run_without_a_service_is_soon_over_and_tells_what_was_lost(
    run: Run, tmp_path: Path
) -> None:
    site, change = run_reloading(run, tmp_path, FLASK_PUSHER_PORT="1")

    def process() -> str:
        """The one that answers; empty: none does."""
        with suppress(OSError):
            return site.get("/process")
        return ""

    def reload_seconds() -> float:
        before = process()
        started = time.monotonic()
        change()
        wait_until(lambda: process() not in {before, ""})
        return time.monotonic() - started

    def reload_with_events_seconds() -> float:
        site.answers += [site.get("/defer") for _ in range(10)]
        return reload_seconds()

    usual = reload_seconds()
    # It waits for two seconds, where for a service that is there it would wait for ten.
    assert any(reload_with_events_seconds() - usual < 8 for _ in range(3))
    os.kill(int(process()), signal.SIGTERM)
    assert set(site.answers) <= set(site.lost)


def test_gunicorn_has_its_eventlet_worker_until_26() -> None:
    gunicorn = pytest.importorskip("gunicorn")
    has_one = importlib.util.find_spec("gunicorn.workers.geventlet") is not None
    assert has_one is (gunicorn.version_info[0] < 26)


def next_answer(site: Site) -> str:
    with suppress(OSError):
        site.answers.append(site.get("/defer"))
    return site.answers[-1]


def test_a_worker_that_is_killed_loses_only_its_newest_events(api: Api, run: Run) -> None:
    site = run("sync")
    site.ask(until=lambda: len(site.answers) > 300)
    killed = site.answers[-1].partition("-")[0]
    os.kill(int(killed), signal.SIGKILL)
    wait_until(lambda: site.answers[-1].partition("-")[0] != killed)
    site.stop()
    assert api.is_in_order
    for channel in {channel for channel, _ in api.events}:
        come = [name for one, name in api.events if one == channel]
        place = int(channel.rpartition("-")[2])
        answered = sorted(
            int(name.partition("-")[2])
            for name in site.answers
            if name.partition("-")[0] == channel.split("-")[1]
            and int(name.partition("-")[2]) % 20 == place
        )
        newest = int(come[-1].partition("-")[2])
        assert {number for number in answered if number <= newest} <= {
            int(name.partition("-")[2]) for name in come
        }
        if channel.split("-")[1] != killed:
            assert newest >= answered[-1]


def test_a_soketi_that_is_away_for_ten_seconds_loses_nothing(
    api: Api, run: Run, node: Node, packages: Path, tmp_path: Path
) -> None:
    api.is_proxy = True
    site = run("sync")
    with soketi(node, packages, tmp_path / "first") as api.soketi:
        site.ask(until=lambda: len(api.events) > 300)
    api.soketi = None
    away = time.monotonic()
    asked = len(site.answers)
    wait_until(lambda: len(site.answers) > asked and time.monotonic() > away + 10)
    site.stop_asking()
    with soketi(node, packages, tmp_path / "second") as api.soketi:
        wait_until(lambda: len(api.events) >= len(site.answers))
        site.stop()
    assert sorted(api.names) == sorted(site.answers)
    assert api.is_in_order
    assert site.lost == []


@contextmanager
def soketi(node: Node, packages: Path, folder: Path) -> Iterator[Soketi]:
    folder.mkdir()
    running = Soketi(node.node, packages, folder, [])
    try:
        yield running
    finally:
        running.stop()


def test_an_api_that_times_out_leaves_the_site_answering(api: Api, run: Run) -> None:
    site = run("sync", FLASK_PUSHER_TIMEOUT="0.5", QUEUE_BYTES=str(200 * 1000))
    wait_until(lambda: bool(site.get("/queue")))
    api.may_answer.clear()
    names = rate(site, "/defer", 1)  # fills the queue
    counts = {"/process": 0, "/defer": 0}
    for _ in range(8):
        for path in counts:
            found = rate(site, path, 0.4)
            counts[path] += len(found)
            names += found if path == "/defer" else []
        assert int(site.get("/queue")) <= 200 * 1000
    assert counts["/defer"] >= 0.3 * counts["/process"]
    api.may_answer.set()
    wait_until(lambda: site.get("/queue") == "0")
    site.stop()
    # What a call that timed out asked for may have been done: it is told as lost, and comes.
    assert {*api.names, *site.lost} == set(names)
    assert all(len(each) == len(set(each)) for each in (api.names, site.lost))


def rate(site: Site, path: str, seconds: float) -> list[str]:
    """What a client is answered for so long."""
    deadline = time.monotonic() + seconds
    found = []
    while time.monotonic() < deadline:
        found.append(site.get(path))
    return found

"""What a worker can answer while it publishes: gunicorn, clients, and an API that is far away.

Each is a process of its own. In the worker are three views: one publishes nothing, one defers an
event to one of 100 channels, and one defers all to one channel.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from flask import Flask

from benchmarks.channels_api import ChannelsApi
from flask_pusher import Pusher

CLIENTS = 4
CHANNELS = 100
SECONDS_TO_DRAIN = 60


def create_app() -> Flask:
    """The application, in the worker."""
    app = Flask("load")
    app.config.from_prefixed_env()
    pusher = Pusher(app)
    numbers = itertools.count()

    @app.get("/nothing")
    def nothing() -> str:
        return str(next(numbers))

    @app.get("/<int:channels>")
    def defer(channels: int) -> str:
        number = next(numbers)
        pusher.defer(f"orders-{number % channels}", f"event-{number}", {"order": number})
        return str(number)

    return app


class Api:
    """The API, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._ask(""))

    def _ask(self, question: str) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        if question:
            self._process.stdin.write(f"{question}\n")
            self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def count(self) -> int:
        """How many events have come."""
        return int(self._ask("count"))

    def take(self) -> dict[str, Any]:
        """What came since the last time: ``calls``, and ``events`` as channels and names."""
        taken: dict[str, Any] = self._ask("take")
        return taken


def serve_api(round_trip: float) -> None:
    with ChannelsApi() as api:
        api.round_trip = round_trip
        print(api.port, flush=True)
        for question in sys.stdin:
            if question == "count\n":
                print(len(api.events), flush=True)
            else:
                print(json.dumps({"calls": api.calls, "events": api.deliveries}), flush=True)
                api.forget()


@contextmanager
def running_api(round_trip: float) -> Iterator[Api]:
    code = f"from benchmarks.load import serve_api; serve_api({round_trip})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Api(process)
    finally:
        process.communicate(timeout=30)


def settings_for(port: int) -> dict[str, str]:
    """The application's settings, in its environment, with the API's port on this machine."""
    return {
        "FLASK_PUSHER_APP_ID": "1",
        "FLASK_PUSHER_KEY": "a-key",
        "FLASK_PUSHER_SECRET": "a-secret",
        "FLASK_PUSHER_HOST": "127.0.0.1",
        "FLASK_PUSHER_PORT": str(port),
        "FLASK_PUSHER_SSL": "false",
    }


@contextmanager
def running_worker(api: Api) -> Iterator[int]:
    """The port of one gunicorn worker, which serves one request at a time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [
            *(sys.executable, "-m", "gunicorn", "benchmarks.load:create_app()"),
            *("--bind", f"fd://{listener.fileno()}", "--log-level", "critical"),
        ]
        environ = {**os.environ, **settings_for(api.port)}
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], env=environ)
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.wait(timeout=30)


def get(port: int, path: str) -> int:
    """The number that the view answers with."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(4096):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head, answer
    return int(body)


class Load(NamedTuple):
    """What became of some seconds of requests."""

    numbers: set[int]
    """What the clients were answered."""
    seconds: float
    """How long that took, until the last event had come to the API."""
    calls: int
    events: list[tuple[str, str]]

    @property
    def rate(self) -> float:
        return len(self.numbers) / self.seconds

    @property
    def is_complete(self) -> bool:
        """Whether each event came, once, and in each channel in order."""
        numbers: dict[str, list[int]] = {}
        for channel, name in self.events:
            numbers.setdefault(channel, []).append(int(name.partition("-")[2]))
        came = sorted(itertools.chain.from_iterable(numbers.values()))
        return came == sorted(self.numbers) and all(
            of_channel == sorted(of_channel) for of_channel in numbers.values()
        )


def load(port: int, api: Api, path: str, seconds: float) -> Load:
    """Let the clients ask for a path, each again and again."""
    found: list[list[int]] = [[] for _ in range(CLIENTS)]
    start = time.perf_counter()

    def ask(answers: list[int]) -> None:
        while time.perf_counter() < start + seconds:
            answers.append(get(port, path))

    threads = [threading.Thread(target=ask, args=[answers]) for answers in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = set(itertools.chain.from_iterable(found))
    if path != "/nothing":
        wait_until_all_came(api, len(numbers))
    spent = time.perf_counter() - start
    taken = api.take()
    return Load(numbers, spent, taken["calls"], [(one[0], one[1]) for one in taken["events"]])


def wait_until_all_came(api: Api, count: int) -> None:
    deadline = time.monotonic() + SECONDS_TO_DRAIN
    while api.count() < count and time.monotonic() < deadline:
        time.sleep(0.005)

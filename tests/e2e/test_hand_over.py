"""The recipes that hand deferred events to Celery and to RQ, as they are in the documentation.

Each runs over a real Redis, in processes that the tests kill as no program can expect.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Client

from .servers import Redis, free_port
from .tools import find_redis

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
WAIT_SECONDS = 60
MASTER_KEY = base64.b64encode(b"m" * 32).decode()

# A recipe that also has a channel whose events are encrypted.
WITH_SECRETS = """
from {recipe} import *

@app.post("/secret")
def secret():
    pusher.defer("private-encrypted-orders", "shipped", {{"to": "the moon"}})
    return ""
"""

# Celery's, whose worker takes over a dead one's tasks after seconds, and not after minutes.
IMPATIENT = """
from celery_app import celery

celery.conf.broker_transport_options.update(visibility_timeout=3, unacked_restore_interval=1)
"""


def wait_for(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


class Service:
    """The HTTP API of Channels, on a port that it keeps while it is down."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.status = 200
        self.events: list[tuple[str, Any]] = []
        """The names and data of events, with those that were not answered with 200."""
        self.times: list[float] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = service.status
                service.times.append(time.monotonic())
                service.events += [
                    (event["name"], json.loads(event["data"]))
                    for event in body.get("batch", [body])
                ]
                service.may_answer.wait(WAIT_SECONDS)
                with suppress(OSError):  # who asked may be dead
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(b"{}")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
                """Keep the tests' output to the tests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=[0.01]).start()

    def stop(self) -> None:
        if self._server is not None:
            self.may_answer.set()
            self._server.shutdown()
            self._server.server_close()


class Process:
    """A program, with the processes that it starts."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=log.parent,
                env={**os.environ, **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def children(self) -> list[int]:
        return _children(self._process.pid)

    def kill(self) -> None:
        """Kill them all, at once and without a word."""
        for pid in [self._process.pid, *self.children]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def kill_newest(self) -> None:
        """Kill only the one that it started last."""
        os.kill(max(self.children, key=_started), signal.SIGKILL)


def _started(pid: int) -> int:
    """When a process was started, in clock ticks since the machine was."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _children(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        of_threads = Path(f"/proc/{pid}/task").glob("*/children")
        children = [int(child) for file in of_threads for child in file.read_text().split()]
        return [one for child in children for one in (child, *_children(child))]
    return []


class Relay:
    """Stands between a client and Redis; counts the round trips, and can hold back what Redis says."""

    def __init__(self, redis_port: int) -> None:
        self.round_trips = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._redis_port = redis_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._redis_port))
                threading.Thread(target=self._ask, args=[client, server], daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        answered = threading.Event()
        answered.set()
        threading.Thread(target=self._answer, args=[client, server, answered], daemon=True).start()
        with suppress(OSError):
            while data := client.recv(65536):
                if answered.is_set():
                    self.round_trips += 1
                    answered.clear()
                server.sendall(data)
        server.close()

    def _answer(
        self, client: socket.socket, server: socket.socket, answered: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                self.may_answer.wait(WAIT_SECONDS)
                answered.set()
                client.sendall(data)
        client.close()

    def close(self) -> None:
        self.may_answer.set()
        self._listener.close()


class Deployment:
    """A recipe: a web server, workers, Redis and the service, each to be started and killed."""

    def __init__(self, recipe: str, folder: Path, redis: Redis) -> None:
        self.recipe = recipe
        self.service = Service(free_port())
        self._folder = folder
        self._web_port = free_port()
        self._cleanup = ExitStack()
        self._cleanup.callback(self.service.stop)
        self.use(redis)
        self.redis.flushall()

    def close(self) -> None:
        self._cleanup.close()

    def use(self, redis: Redis) -> None:
        """Have what starts from now on speak to this Redis."""
        self.broker_port = redis.port
        self.redis: Any = Client(port=redis.port)
        self._cleanup.callback(self.redis.close)

    def relay(self) -> Relay:
        """Have what starts from now on speak to Redis through a relay."""
        relay = Relay(self.broker_port)
        self._cleanup.callback(relay.close)
        self.broker_port = relay.port
        return relay

    def start_web(self, module: str | None = None) -> Process:
        flask = [sys.executable, "-m", "flask", "--app", module or self.recipe]
        process = self._start([*flask, "run", "--port", str(self._web_port)], "web")
        wait_for(lambda: is_listening(self._web_port), "the web server")
        return process

    def start_worker(self) -> Process:
        if self.recipe == "celery_app":
            worker = self._celery("celery_app")
        else:
            worker = ["rq.cli", "worker", "--serializer", "json", "--with-scheduler"]
            worker += ["--maintenance-interval", "1", "--url", self._env["RQ_REDIS_URL"], "events"]
        return self._start([sys.executable, "-m", *worker], "worker")

    def start_heir(self) -> Process:
        """Start a worker that does not wait for minutes until it takes another for dead."""
        if self.recipe == "celery_app":
            self.write("impatient", IMPATIENT)
            return self._start([sys.executable, "-m", *self._celery("impatient")], "heir")
        # RQ's minute cannot be set: what Redis keeps of it is changed as if it had passed.
        self.redis.delete("rq:scheduler-lock:events")
        for job in self.redis.zrange("rq:wip:events", 0, -1):
            self.redis.zadd("rq:wip:events", {job: 1})
        return self.start_worker()

    def _celery(self, module: str) -> list[str]:
        options = ["--loglevel", "INFO", "--concurrency", "1"]
        return ["celery", "--app", f"{module}.celery", "worker", *options]

    def write(self, module: str, text: str) -> None:
        (self._folder / f"{module}.py").write_text(text)

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def post(self, path: str = "/orders/7/ship") -> int:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self._web_port}{path}", data=b"", timeout=WAIT_SECONDS
        ) as answer:
            status: int = answer.status
            return status

    @property
    def waiting(self) -> list[Any]:
        """The arguments of the tasks in Redis, none of which any worker has had, from their JSON."""
        if self.recipe == "celery_app":
            messages = [json.loads(message) for message in self.redis.lrange("celery", 0, -1)]
            assert {message["content-type"] for message in messages} <= {"application/json"}
            return [json.loads(base64.b64decode(message["body"]))[0] for message in messages]
        jobs = [f"rq:job:{job.decode()}" for job in self.redis.lrange("rq:queue:events", 0, -1)]
        return [json.loads(zlib.decompress(self.redis.hget(job, "data")))[2] for job in jobs]

    @property
    def is_put_off(self) -> bool:
        """Whether a task has failed, and is to be tried again."""
        if self.recipe == "celery_app":
            return "Retry in" in self.log("worker")
        return bool(self.redis.zcard("rq:scheduled:events"))

    @property
    def pauses(self) -> list[int]:
        """The seconds from one try of the newest task to the next."""
        if self.recipe == "celery_app":
            return [int(pause) for pause in re.findall(r"Retry in (\d+)s", self.log("worker"))]
        (job,) = self.redis.keys("rq:job:*")
        pauses: list[int] = json.loads(self.redis.hget(job, "retry_intervals"))
        return pauses

    @property
    def is_done(self) -> bool:
        """Whether no task waits or is under way."""
        if self.recipe == "celery_app":
            return not self.redis.exists("celery", "unacked")
        return not any(self.redis.scan_iter("rq:job:*"))

    @property
    def _env(self) -> dict[str, str]:
        broker = f"redis://127.0.0.1:{self.broker_port}"
        return {
            "FLASK_PUSHER_APP_ID": "1",
            "FLASK_PUSHER_ENCRYPTION_MASTER_KEY_BASE64": MASTER_KEY,
            "FLASK_PUSHER_HOST": "127.0.0.1",
            "FLASK_PUSHER_KEY": "a-key",
            "FLASK_PUSHER_PORT": str(self.service.port),
            "FLASK_PUSHER_SECRET": "a-secret",
            "FLASK_PUSHER_SSL": "false",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join([str(RECIPES), str(self._folder), *sys.path]),
            "REDIS_URL": broker,
            "RQ_REDIS_URL": broker,
        }

    def _start(self, command: list[str], name: str) -> Process:
        process = Process(command, self._folder / f"{name}.log", self._env)
        self._cleanup.callback(process.kill)
        return process


@pytest.fixture(params=["celery_app", "rq_app"])
def deployment(
    request: pytest.FixtureRequest, tmp_path: Path, redis: Redis
) -> Iterator[Deployment]:
    deployment = Deployment(request.param, tmp_path, redis)
    yield deployment
    deployment.close()
    for log in tmp_path.glob("*.log"):
        print(f"-- {log.name}\n{log.read_text()}")


SHIPPED = ("shipped", {"order": 7})


def test_an_event_outlives_all_but_the_broker(deployment: Deployment) -> None:
    web = deployment.start_web()
    assert deployment.post() == 200
    web.kill()
    worker = deployment.start_worker()
    wait_for(lambda: deployment.is_put_off, "the worker to find no service")
    assert "NoAnswer" in deployment.log("worker")
    worker.kill()
    deployment.service.start()
    deployment.start_heir()
    wait_for(lambda: deployment.service.events, "the event, at least once")
    assert deployment.service.events[0] == SHIPPED


def test_a_worker_tries_again_with_growing_pauses(deployment: Deployment) -> None:
    deployment.start_web()
    deployment.start_worker()
    deployment.service.start()
    deployment.service.status = 503
    deployment.post()
    wait_for(lambda: len(deployment.service.times) == 4, "four tries")
    assert deployment.pauses[:3] == [1, 2, 4]
    _, _, third, fourth = deployment.service.times
    assert fourth - third > 3  # RQ knows seconds; a busy machine only makes pauses longer
    deployment.service.status = 200
    wait_for(lambda: len(deployment.service.times) == 5, "a fifth")
    wait_for(lambda: deployment.is_done, "the queue to be empty")
    assert deployment.service.events == [SHIPPED] * 5


@pytest.mark.parametrize("who", ["all of it", "the process with the task"])
def test_a_worker_killed_in_the_midst_delivers_at_least_once(
    deployment: Deployment, who: str
) -> None:
    deployment.start_web()
    deployment.service.start()
    deployment.service.may_answer.clear()
    worker = deployment.start_worker()
    deployment.post()
    wait_for(lambda: deployment.service.events, "the worker to publish")
    if who == "all of it":
        worker.kill()
        deployment.start_heir()
    else:
        worker.kill_newest()
    deployment.service.may_answer.set()
    wait_for(lambda: len(deployment.service.events) >= 2, "the event, once more")
    wait_for(lambda: deployment.is_done, "the queue to be empty")
    assert all(event == SHIPPED for event in deployment.service.events)


@pytest.mark.parametrize("was_up", [True, False])
def test_without_the_broker_the_publisher_takes_over(
    deployment: Deployment, tmp_path: Path, was_up: bool
) -> None:
    deployment.service.start()
    mortal = Redis(find_redis(), tmp_path)
    deployment.use(mortal)
    if was_up:
        deployment.start_web()
        deployment.post()
        assert len(deployment.waiting) == 1
        mortal.stop()
    else:
        mortal.stop()
        deployment.start_web()
    assert deployment.service.events == []
    assert deployment.post() == 200
    wait_for(lambda: deployment.service.events, "the event")
    assert deployment.service.events == [SHIPPED]
    assert "@pusher.hand_over raised: the publisher takes the events" in deployment.log("web")


def test_what_waits_is_json_and_encrypted_where_the_channel_is(deployment: Deployment) -> None:
    deployment.write("with_secrets", WITH_SECRETS.format(recipe=deployment.recipe))
    deployment.start_web("with_secrets")
    deployment.post()
    deployment.post("/secret")
    calls = [call for arguments in deployment.waiting for call in arguments[0]]
    assert [call["channels"] for call in calls] in (
        [["orders"], ["private-encrypted-orders"]],
        [["private-encrypted-orders"], ["orders"]],
    )
    data = {call["channels"][0]: json.loads(call["data"]) for call in calls}
    assert data["orders"] == {"order": 7}
    assert data["private-encrypted-orders"].keys() == {"nonce", "ciphertext"}
    deployment.service.start()
    deployment.start_worker()
    wait_for(lambda: len(deployment.service.events) == 2, "the events")
    assert ("shipped", data["private-encrypted-orders"]) in deployment.service.events


def test_the_response_leaves_when_the_broker_has_the_event(deployment: Deployment) -> None:
    relay = deployment.relay()
    deployment.start_web()
    deployment.post()
    relay.may_answer.clear()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(deployment.post)
        wait_for(lambda: len(deployment.waiting) == 2, "the broker to have the event")
        assert not wait([answer], timeout=0.5).done
        relay.may_answer.set()
        assert answer.result() == 200


def test_a_response_costs_one_round_trip_to_the_broker(deployment: Deployment) -> None:
    relay = deployment.relay()
    deployment.start_web()
    deployment.post()  # connects, and asks Redis who it is
    before = relay.round_trips
    for number in range(1, 6):
        deployment.post()
        assert relay.round_trips - before == number
    assert len(deployment.waiting) == 6

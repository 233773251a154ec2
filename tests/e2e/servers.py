"""The servers: soketi, which is a real Channels server, and those that run applications."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import ServiceUnavailable
from werkzeug.serving import WSGIRequestHandler, make_server

from . import WAIT_SECONDS
from .tools import GUNICORN, HERE, find_wsgi_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

APP_ID, KEY, SECRET = "7", "a-key", "a-secret"
STOP_WITH_TESTS = Path(__file__).with_name("stop_with_tests.js")
RECIPE = Path(__file__).parents[2] / "docs" / "recipes" / "nginx.conf"
START_SECONDS = 30
STOP_SECONDS = 30


class Soketi:
    """A running soketi, with one app, that posts webhooks to the URLs it was started with."""

    def __init__(
        self,
        node: Sequence[str],
        packages: Path,
        folder: Path,
        webhooks: list[dict[str, Any]],
        redis_port: int | None = None,
        path: str = "",
        tokens: Mapping[str, str] = {KEY: SECRET},
        port: int | None = None,
    ) -> None:
        """
        :param redis_port: the Redis by which it is one service with its other nodes.
        :param path: what all its paths begin with.
        :param tokens: the app's keys, each with its secret.
        :param port: where it listens; None: anywhere.
        """
        ports = [port or free_port(), free_port(), free_port()]
        self.port = ports[0]
        self.path = path
        self.log = folder / "soketi.log"
        config = folder / "soketi.json"
        options = soketi_config(ports, webhooks, redis_port, tokens)
        config.write_text(json.dumps({**options, "pathPrefix": path}))
        program = packages / "@soketi/soketi/bin/server.js"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*node, "--require", STOP_WITH_TESTS, program, "start", f"--config={config}"],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"soketi did not start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}{self.path}/ready", timeout=5
            ) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def stop(self) -> None:
        self._process.communicate(timeout=STOP_SECONDS)

    def kill(self) -> None:
        self._process.kill()
        self.stop()


def soketi_config(
    ports: list[int],
    webhooks: list[dict[str, Any]],
    redis_port: int | None,
    tokens: Mapping[str, str],
) -> dict[str, Any]:
    port, metrics_port, cluster_port = ports
    return {
        "host": "127.0.0.1",
        "port": port,
        "metrics.host": "127.0.0.1",
        "metrics.port": metrics_port,
        # It looks for other soketis, of which there are none for this one.
        "cluster.hostname": "127.0.0.1",
        "cluster.unicast": "127.0.0.1",
        "cluster.port": cluster_port,
        "debug": True,
        "shutdownGracePeriod": 0,
        "webhooks.batching.enabled": any(webhook.get("batch", True) for webhook in webhooks),
        "appManager.array.apps": [
            {
                "id": APP_ID,
                "key": key,
                "secret": secret,
                "enableClientMessages": True,
                "enableUserAuthentication": True,
                "maxBackendEventsPerSecond": -1,
                "webhooks": webhooks,
            }
            for key, secret in tokens.items()
        ],
        **_shared(redis_port),
    }


def _shared(redis_port: int | None) -> dict[str, Any]:
    """What makes several nodes one service."""
    if redis_port is None:
        return {}
    drivers = ("adapter", "cache", "rateLimiter", "queue")
    return {
        **{f"{driver}.driver": "redis" for driver in drivers},
        "database.redis.host": "127.0.0.1",
        "database.redis.port": redis_port,
    }


@contextmanager
def machine(port: int, api_port: int, packages: Path, heard: Path, **more: str) -> Iterator[None]:
    """Run the application of machine.py, as one of its machines does.

    :param api_port: the node that it publishes at.
    :param heard: the file in which it notes webhooks.
    :param more: variables of its environment.
    """
    environ = {
        **os.environ,
        **settings_for(api_port),
        "FLASK_SECRET_KEY": "signs-the-session",
        "PACKAGES": str(packages),
        "HEARD": str(heard),
        **more,
    }
    command = [sys.executable, "-m", "gunicorn", "--threads", "4", "--bind", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "machine:app"], cwd=Path(__file__).parent, env=environ)
    try:
        wait_for_port(port, process)
        yield
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS * 3)


class Redis:
    """A running Redis that keeps nothing on the disk."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port = free_port()
        self._process = subprocess.Popen(
            [program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""],
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        wait_for_port(self.port, self._process)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(STOP_SECONDS)


class Nginx:
    """A running nginx with the configuration of the documentation, for servers on these ports."""

    def __init__(self, program: str, folder: Path, site: int, nodes: Sequence[int]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        text = RECIPE.read_text()
        for shown, used in (
            ("listen 80;", f"listen 127.0.0.1:{self.port};"),
            ("127.0.0.1:8000", f"127.0.0.1:{site}"),
            ("10.0.0.6:6001", f"127.0.0.1:{nodes[0]}"),
            ("10.0.0.7:6001", f"127.0.0.1:{nodes[1]}"),
        ):
            assert shown in text
            text = text.replace(shown, used)
        config = folder / "nginx.conf"
        config.write_text(f"pid {folder}/nginx.pid; events {{}} http {{ {text} }}")
        options = f"daemon off; master_process off; error_log {folder}/nginx.log;"
        self._process = subprocess.Popen([program, "-c", config, "-p", folder, "-g", options])
        wait_for_port(self.port, self._process)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(STOP_SECONDS)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process listens."""
    deadline = time.monotonic() + START_SECONDS
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Nothing listens on port {port}")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


PORTS = itertools.count(11_000 + secrets.randbelow(19_000))
"""None of them is among those that the system gives to whoever asks for any port."""


def free_port() -> int:
    while True:
        port = next(PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Site:
    """An HTTP server that stays where it is, for one application after the other.

    soketi is told once, when it starts, where webhooks go.
    """

    def __init__(self) -> None:
        self.application: WSGIApplication | None = None
        self._handled: list[str] = []
        self._changed = threading.Condition()
        self._server = make_server(
            "127.0.0.1", 0, self, threaded=True, request_handler=_RequestHandler
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="site")
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return (self.application or ServiceUnavailable())(environ, start_response)

    @contextmanager
    def handling(self, path: str) -> Iterator[None]:
        with self._changed:
            self._handled.append(path)
        try:
            yield
        finally:
            with self._changed:
                self._handled.remove(path)
                self._changed.notify_all()

    def wait_until_idle(self) -> None:
        """Wait until each request is over, and with it what the application does at its end."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._handled, WAIT_SECONDS), self._handled

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _RequestHandler(WSGIRequestHandler):
    def run_wsgi(self) -> None:
        site = self.server.app
        assert isinstance(site, Site)
        with site.handling(self.path):
            super().run_wsgi()


def settings_for(api_port: int, **others: str) -> dict[str, str]:
    """The environment of an application that publishes to an API on this machine."""
    return {
        "FLASK_PUSHER_APP_ID": APP_ID,
        "FLASK_PUSHER_KEY": KEY,
        "FLASK_PUSHER_SECRET": SECRET,
        "FLASK_PUSHER_HOST": "127.0.0.1",
        "FLASK_PUSHER_PORT": str(api_port),
        "FLASK_PUSHER_SSL": "false",
        "FLASK_PUSHER_TIMEOUT": str(WAIT_SECONDS),
        **others,
    }


class WsgiServer:
    """A server of a kind that ``find_wsgi_server`` knows, which runs an application of a module here.

    The socket listens before gunicorn and uWSGI start: early requests wait for it.
    """

    def __init__(self, kind: str, module: str, settings: dict[str, str], *arguments: str) -> None:
        command = find_wsgi_server(kind)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        address, factory = f"fd://{self._listener.fileno()}", f"{module}:create_app"
        if kind == "uwsgi":
            command += ["--http-socket", address, "--module", f"{factory}()"]
        elif kind in GUNICORN:
            command += ["--bind", address, f"{factory}()"]
        else:
            self._listener.close()
            command += {
                "flask": ["--app", factory, "run", f"--port={self.port}"],
                "uvicorn": ["--factory", "--interface=wsgi", f"--port={self.port}", factory],
                "waitress": ["--call", f"--listen=127.0.0.1:{self.port}", factory],
            }[kind]
        is_ours = kind == "uwsgi" or kind in GUNICORN
        self._process = subprocess.Popen(
            [*command, *(["--pythonpath", str(HERE)] if is_ours else []), *arguments],
            cwd=HERE,
            pass_fds=[self._listener.fileno()] if is_ours else [],
            env={**os.environ, **settings},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if not is_ours:
            wait_for_port(self.port, self._process)

    def reload(self) -> None:
        """Tell gunicorn to replace its workers."""
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Tell it to stop, and wait until it has."""
        self._process.terminate()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._listener.close()  # a client that waits there hears of it

"""What the tests share: an application with the extension, a browser, and an API to publish to."""

from __future__ import annotations

import base64
import gc
import hashlib
import hmac
import itertools
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import parse_qsl, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pusher.version import VERSION

from flask_pusher import Client, Pusher, RecordedEvent, publish_failed

MASTER_KEY = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
CREDENTIALS = {"PUSHER_APP_ID": "1", "PUSHER_KEY": "a-key", "PUSHER_SECRET": "a-secret"}


def sign(text: str | bytes) -> str:
    message = text.encode() if isinstance(text, str) else text
    return hmac.new(b"a-secret", message, hashlib.sha256).hexdigest()


MakeApp = Callable[..., Flask]


@pytest.fixture
def make_app() -> MakeApp:
    """Makes an application with credentials, the settings given, and, if given, an extension."""

    def make(pusher: Pusher | None = None, **config: Any) -> Flask:
        app = Flask("an_app")
        app.config.update(CREDENTIALS, SECRET_KEY="signs the session")
        app.config.update(config)
        if pusher is not None:
            pusher.init_app(app)
        return app

    return make


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture(scope="module")
def no_collection() -> Iterator[None]:
    """Collect no garbage where a recursion is at its limit: to Python 3.11 that fails by it, too."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nothing listens, which nobody is given meanwhile; a server may be told it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def lost() -> Iterator[list[tuple[list[str], Exception]]]:
    """The names of the events that were told as lost, and why."""
    told: list[tuple[list[str], Exception]] = []

    def receive(sender: Flask, events: list[RecordedEvent], error: Exception) -> None:
        told.append(([event.name for event in events], error))

    with publish_failed.connected_to(receive):
        yield told


@pytest.fixture
def pusher(app: Flask) -> Pusher:
    return Pusher(app)


@pytest.fixture
def encrypting(app: Flask, api: Api) -> Pusher:
    """An extension that publishes to the API, and has a master key."""
    app.config["PUSHER_ENCRYPTION_MASTER_KEY_BASE64"] = MASTER_KEY
    return Pusher(app)


@pytest.fixture
def client(app: Flask, pusher: Pusher) -> Client:
    client: Client = app.extensions["pusher"]
    return client


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def reasons(app: Flask, caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged at DEBUG, as ``flask run --debug`` shows it."""
    with caplog.at_level(logging.DEBUG, logger=app.logger.name):
        yield caplog


@pytest.fixture(name="sign")
def sign_fixture() -> Callable[[str | bytes], str]:
    """Signs with the application's secret, by Channels' rule and not by our code."""
    return sign


@pytest.fixture
def post_webhook(app: Flask) -> Callable[..., Any]:
    """Posts a webhook as Channels does; ``headers`` replaces some of its headers."""

    def post(path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        signed = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": sign(raw), **(headers or {})}
        return app.test_client().post(
            path, data=raw, headers=signed, content_type="application/json"
        )

    return post


class Call(NamedTuple):
    """A call of the HTTP API: the request's method and path, its query and its JSON body."""

    method: str
    path: str
    query: dict[str, str]
    body: Any


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # many threads connect at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        # That a client goes away, or does not trust the certificate, is what a test is about.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Api:
    """Takes the calls of the HTTP API and answers each with the next of ``answers``, or 200; or
    with what ``answer`` makes of the call."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: list[tuple[int, str]] = []
        self.answer: Callable[[Call], tuple[int, str]] = self._next_answer
        self.connections = 0
        self.server = Server(("127.0.0.1", 0), self._handler())
        self.port = self.server.server_port

    @property
    def config(self) -> dict[str, Any]:
        return {
            "PUSHER_HOST": "127.0.0.1",
            "PUSHER_PORT": self.port,
            "PUSHER_SSL": False,
            "PUSHER_TIMEOUT": 60,  # a busy machine may stand still for longer than usual
        }

    @property
    def events(self) -> list[tuple[str, str, Any]]:
        """Every event published, as channel, name and data, in order."""
        return [
            (channel, event["name"], json.loads(event["data"]))
            for call in self.calls
            for event in call.body.get("batch", [call.body])
            for channel in event.get("channels", [event.get("channel")])
        ]

    def _next_answer(self, call: Call) -> tuple[int, str]:
        return self.answers.pop(0) if self.answers else (200, "{}")

    @staticmethod
    def until(is_so: Callable[[], bool]) -> None:
        """Wait for what the publisher does behind the responses."""
        deadline = time.monotonic() + 30
        while not is_so():
            assert time.monotonic() < deadline, "waited for too long"
            time.sleep(0.005)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                api.connections += 1

            def do_POST(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                query = dict(parse_qsl(url.query))
                api.check_signature(self.command, url.path, query, body)
                content = json.loads(body) if body else None
                call = Call(self.command, url.path, query, content)
                api.calls.append(call)
                status, text = api.answer(call)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST  # noqa: N815 - the names that BaseHTTPRequestHandler looks for

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
                """Keep the tests' output to the tests."""

        return Handler

    @staticmethod
    def check_signature(method: str, path: str, query: dict[str, str], body: bytes) -> None:
        signed = {name: value for name, value in query.items() if name != "auth_signature"}
        pairs = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
        assert query["auth_signature"] == sign(f"{method}\n{path}\n{pairs}")
        assert query["body_md5"] == hashlib.md5(body).hexdigest()  # noqa: S324 - the API's rule


@pytest.fixture(
    params=[
        None,
        pytest.param(
            "pusher.aiohttp.AsyncIOBackend",
            marks=pytest.mark.skipif(
                VERSION == "3.3.3",
                reason="the client's asyncio backend needs a Python before 3.11",
            ),
        ),
    ],
    ids=["requests", "aiohttp"],
)
def backend(request: pytest.FixtureRequest) -> str | None:
    """``PUSHER_BACKEND``: the one that waits, and the one whose answers are awaited."""
    path: str | None = request.param
    return path


@pytest.fixture
def api(app: Flask) -> Iterator[Api]:
    """An HTTP API that the application, if it is given a Pusher after this, publishes to."""
    api = Api()
    app.config.update(api.config)
    thread = threading.Thread(target=api.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield api
    api.server.shutdown()
    api.server.server_close()
    thread.join()


# -- Databases ------------------------------------------------------------------------------------

START_SECONDS, STOP_SECONDS = 60, 30
STOP_WITH_TESTS = '"$@" & cat >/dev/null; kill -INT $!; wait'
"""Runs a program until the standard input ends."""


def unavailable(reason: str) -> NoReturn:
    if os.environ.get("FLASK_PUSHER_NO_SKIP") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def postgresql(programs: Path, folder: Path) -> Iterator[int]:
    """The port of a PostgreSQL that asks for no password, and that ends however the tests end."""
    user = None
    if os.getuid() == 0:  # for whom it does not run
        user = "nobody"
        shutil.chown(folder, user)
    options = ["--username=postgres", "--no-sync", "--locale=C", "--encoding=UTF8"]
    subprocess.run(
        [programs / "initdb", "-D", "data", *options],
        cwd=folder,
        user=user,
        check=True,
        capture_output=True,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    server = [str(programs / "postgres"), "-D", "data", "-k", str(folder), "-h", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", STOP_WITH_TESTS, "sh", *server, "-p", str(port), "-c", "fsync=off"],
            cwd=folder,
            user=user,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while "ready to accept connections" not in (folder / "log").read_text():
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield port
    finally:
        process.communicate(timeout=STOP_SECONDS)


@pytest.fixture(scope="session")
def new_schema() -> Iterator[Callable[[], str]]:
    """Makes an empty schema in a PostgreSQL, which is as good as a database and much faster."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs:
        unavailable("There is no PostgreSQL: apt-get install postgresql")
    if find_spec("psycopg") is None:
        unavailable("There is no psycopg: pip install 'psycopg[binary]'")
    from sqlalchemy import create_engine, text  # the tests of the packages have none
    from sqlalchemy.pool import NullPool

    with (
        tempfile.TemporaryDirectory() as name,
        postgresql(programs[-1].parent, Path(name)) as port,
    ):
        url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        numbers = itertools.count()

        def new_schema() -> str:
            schema = f"schema_{next(numbers)}"
            with engine.connect() as connection:
                connection.execute(text(f"CREATE SCHEMA {schema}"))
            return f"{url}?options=-csearch_path%3D{schema}"

        yield new_schema


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes an empty database, and gives its URL."""
    if request.param == "sqlite":
        numbers = itertools.count()
        return lambda: f"sqlite:///{tmp_path}/{next(numbers)}.db"
    new_schema: Callable[[], str] = request.getfixturevalue("new_schema")
    return new_schema

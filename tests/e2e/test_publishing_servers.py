"""The table of ``defer``, row by row, in the servers that applications run in.

Where events leave, the API does not answer before the browser has the last byte of the response: a
response that waited for it would come after that answer, and not at all if nothing gave up waiting.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from . import deferring
from .conftest import unavailable
from .deferring import WAIT_SECONDS
from .servers import WsgiServer, settings_for
from .tools import MissingToolError

HOLD_SECONDS = 10


class Api:
    """The API of Channels, that answers when it is allowed to."""

    def __init__(self, port: int = 0) -> None:
        self.names: list[str] = []
        """The events that have come, in order."""
        self.taken = self.answered = 0
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])
        self._thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                api._take(json.loads(body))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
                pass

        return Handler

    def _take(self, content: dict[str, Any]) -> None:
        with self._changed:
            self.taken += 1
            self.names += [event["name"] for event in content.get("batch", [content])]
            self._changed.notify_all()
        self._may_answer.wait(HOLD_SECONDS)
        with self._changed:
            self.answered += 1
            self._changed.notify_all()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Answer nothing as long as this lasts."""
        self._may_answer.clear()
        try:
            yield
        finally:
            self._may_answer.set()

    def names_until(self, name: str) -> list[str]:
        """The events that come until this one."""
        with self._changed:
            assert self._changed.wait_for(lambda: name in self.names, WAIT_SECONDS)
            return self.names[: self.names.index(name)]

    def forget(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.answered == self.taken, WAIT_SECONDS)
            self.names, self.taken, self.answered = [], 0, 0

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Server(NamedTuple):
    port: int
    keeps_connections: bool


@pytest.fixture(scope="module")
def running_api() -> Iterator[Api]:
    api = Api()
    yield api
    api.stop()


@pytest.fixture(scope="module", params=["werkzeug", "sync", "gthread", "gevent", "uwsgi"])
def server(request: pytest.FixtureRequest, running_api: Api) -> Iterator[Server]:
    """A server of the application: the development server, gunicorn with one kind of worker, or
    uWSGI."""
    name: str = request.param
    settings = settings_for(running_api.port, FLASK_PUSHER_TIMEOUT=str(WAIT_SECONDS))
    with run_werkzeug(settings) if name == "werkzeug" else run(name, settings) as port:
        yield Server(port, keeps_connections=name in ("gthread", "gevent"))


@contextmanager
def run_werkzeug(settings: dict[str, str]) -> Iterator[int]:
    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - its name there
            pass

    with mock.patch.dict(os.environ, settings):
        app = deferring.create_app()
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def run(kind: str, settings: dict[str, str]) -> Iterator[int]:
    arguments = [] if kind == "uwsgi" else ["--keep-alive=30", "--graceful-timeout=5"]
    try:
        server = WsgiServer(kind, "deferring", settings, *arguments)
    except MissingToolError as error:
        unavailable(error)
    try:
        yield server.port
    finally:
        server.stop()


class Browser:
    """Sends one request after the other, on one connection as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections = 0
        self._socket: socket.socket | None = None
        self._is_kept = False

    def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        """The status and the body of the response, as soon as its last byte is here."""
        if not self._is_kept:
            self._connect()
        assert self._socket
        self._socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        response = HTTPResponse(self._socket, method=method)
        self._is_kept = False
        response.begin()
        body = response.read()
        self._is_kept = not response.will_close
        return response.status, body

    def _connect(self) -> None:
        self.close()
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_SECONDS)
        self.connections += 1

    def wait_until_over(self) -> None:
        """Wait until the server has done with the response: it then closes the connection, if it
        does not keep it for a request that it will take only then."""
        assert self._socket
        if not self._is_kept:
            while self._socket.recv(4096):
                pass

    def reset(self) -> None:
        """Break the connection off, as a client does that crashes."""
        assert self._socket
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()
        self._is_kept = False

    def leave(self, path: str) -> None:
        """Break off in the midst of the response."""
        self._connect()
        assert self._socket
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert self._socket.recv(1)
        self.reset()

    def close(self) -> None:
        if self._socket:
            self._socket.close()


@pytest.fixture
def api(running_api: Api) -> Api:
    """The API, that has not been called."""
    running_api.forget()
    return running_api


@pytest.fixture
def browser(server: Server) -> Iterator[Browser]:
    browser = Browser(server.port)
    yield browser
    browser.close()


def names_so_far(api: Api, browser: Browser) -> list[str]:
    """The events that the last response led to: those of another come behind them."""
    browser.wait_until_over()
    browser.get("/last")
    return api.names_until("last")


SUCCESSES = [
    ("GET", "/text", 200, b"An answer"),
    ("HEAD", "/text", 200, b""),
    ("GET", "/answer/204", 204, b""),
    ("GET", "/answer/302", 302, b"An answer"),
    ("GET", "/file", 200, b"A file"),
    ("GET", "/stored-file", 200, Path(deferring.__file__).read_bytes()),
    ("HEAD", "/stored-file", 200, b""),
    ("GET", "/stream", 200, b"An answer"),
    ("GET", "/stream-that-defers", 200, b"An answer"),
    ("GET", "/after-this-request", 200, b"An answer"),
    ("GET", "/found-by-teardown/200", 200, b"An answer"),
    ("GET", "/thread/200", 200, b"An answer"),
    ("GET", "/pool/200", 200, b"An answer"),
]


@pytest.mark.parametrize(("method", "path", "status", "body"), SUCCESSES)
def test_the_last_byte_is_here_before_the_api_has_answered(
    api: Api, browser: Browser, method: str, path: str, status: int, body: bytes
) -> None:
    with api.silent():
        answer = browser.get(path, method)
        answered_before = api.answered
    assert answer == (status, body)
    assert answered_before == 0
    assert names_so_far(api, browser) == ["shipped"]


def test_several_events_leave_in_order(api: Api, browser: Browser) -> None:
    browser.get("/several")
    assert names_so_far(api, browser) == [f"shipped-{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/abort/403", 403),
        ("/answer/404", 404),
        ("/abort/503", 503),
        ("/raise", 500),
        ("/found-by-teardown/404", 404),
        ("/thread/500", 500),
        ("/pool/500", 500),
    ],
)
def test_an_error_publishes_nothing(api: Api, browser: Browser, path: str, status: int) -> None:
    assert browser.get(path)[0] == status
    assert names_so_far(api, browser) == []


def test_a_teardown_function_that_raises_publishes_nothing(api: Api, browser: Browser) -> None:
    with suppress(HTTPException, OSError):  # not every server answers then
        assert browser.get("/teardown-fails")[0] == 500
    assert names_so_far(api, browser) == []


def test_a_stream_that_fails_publishes_nothing(api: Api, browser: Browser) -> None:
    with suppress(HTTPException, OSError):  # uWSGI ends it as if it were complete
        browser.get("/stream-that-fails")
    assert names_so_far(api, browser) == []


@pytest.mark.parametrize("path", ["/works-on-in-a-thread", "/works-on-in-a-pool"])
def test_a_copy_of_the_context_may_work_on_after_the_response(
    api: Api, browser: Browser, path: str
) -> None:
    browser.get(path)
    assert names_so_far(api, browser) == []
    browser.get("/go-on")
    assert api.names_until("later") == ["last"]


@pytest.mark.parametrize("path", ["/text", "/stream", "/file"])
def test_a_connection_that_is_reset_behind_the_response_loses_no_event(
    api: Api, browser: Browser, path: str
) -> None:
    browser.get(path)
    browser.reset()
    assert api.names_until("shipped") == []


def test_a_client_that_leaves_a_stream_is_no_failure(api: Api, browser: Browser) -> None:
    browser.leave("/endless")
    assert api.names_until("shipped") == []


def test_each_request_of_a_connection_publishes_its_own(
    api: Api, server: Server, browser: Browser
) -> None:
    for path in ("/text", "/stream", "/abort/403", "/answer/204"):
        browser.get(path)
        browser.wait_until_over()
    assert names_so_far(api, browser) == ["shipped"] * 3
    assert (browser.connections == 1) == server.keeps_connections

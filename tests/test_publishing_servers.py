"""Deferred publishing in the servers that applications run in: no response waits for it.

The API of Channels does not answer before the browser has the last byte of the response. A response
that waited for it would come after that answer, and not at all if nothing gave up waiting.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    after_this_request,
    send_file,
    stream_with_context,
)
from flask.typing import ResponseReturnValue
from werkzeug.serving import WSGIRequestHandler, make_server

from flask_pusher import Pusher

HOLD_SECONDS = 10
WAIT_SECONDS = 30

GUNICORN = """
import os, signal, sys, threading
from gunicorn.app.wsgiapp import run

def stop_with_the_tests():
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop_with_the_tests, daemon=True).start()
run()
"""


pusher = Pusher()
views = Blueprint("views", __name__)


def create_app(api_port: int) -> Flask:
    """An application whose every view defers an event of the name ``shipped``, or several."""
    app = Flask(__name__)
    app.config.update(
        PUSHER_APP_ID="1",
        PUSHER_KEY="a-key",
        PUSHER_SECRET="a-secret",
        PUSHER_HOST="127.0.0.1",
        PUSHER_PORT=api_port,
        PUSHER_SSL=False,
        PUSHER_TIMEOUT=WAIT_SECONDS,
    )
    pusher.init_app(app)
    app.register_blueprint(views)
    return app


def ship(name: str = "shipped") -> None:
    pusher.defer("private-orders", name, {"by": "truck"})


@views.get("/text")
def text() -> ResponseReturnValue:
    ship()
    return "An answer"


@views.get("/last")
def last() -> ResponseReturnValue:
    ship("last")
    return "An answer"


@views.get("/several")
def several() -> ResponseReturnValue:
    for number in range(5):
        ship(f"shipped-{number}")
    return "An answer"


@views.get("/answer/<int:status>")
def answer_with_status(status: int) -> ResponseReturnValue:
    ship()
    return "An answer", status


@views.get("/file")
def file() -> ResponseReturnValue:
    ship()
    return send_file(BytesIO(b"A file"), mimetype="text/plain")


@views.get("/stored-file")
def stored_file() -> ResponseReturnValue:
    ship()
    return send_file(__file__)


@views.get("/stream")
def stream() -> ResponseReturnValue:
    ship()
    return Response(part for part in ("An ", "answer"))


@views.get("/stream-that-defers")
def stream_that_defers() -> ResponseReturnValue:
    def parts() -> Iterator[str]:
        yield "An "
        ship()
        yield "answer"

    return Response(stream_with_context(parts()))


@views.get("/after-this-request")
def deferred_by_a_callback() -> ResponseReturnValue:
    @after_this_request
    def callback(response: Response) -> Response:
        ship()
        return response

    return "An answer"


@views.get("/abort/<int:status>")
def refuse(status: int) -> ResponseReturnValue:
    ship()
    abort(status)


@views.get("/raise")
def fail() -> ResponseReturnValue:
    ship()
    raise LookupError("no such order")


@views.get("/stream-that-fails")
def stream_that_fails() -> ResponseReturnValue:
    def parts() -> Iterator[str]:
        yield "An "
        ship()
        raise LookupError("no such order")

    return Response(stream_with_context(parts()))


class Api:
    """The API of Channels, that answers when it is allowed to."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        """The names of the events of each call."""
        self.answered = 0
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
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
            self.calls.append([event["name"] for event in content.get("batch", [content])])
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

    def calls_until(self, name: str) -> list[list[str]]:
        """The calls that came until one with this event; they are forgotten then."""

        def is_over() -> bool:
            return [name] in self.calls and self.answered == len(self.calls)

        with self._changed:
            self._changed.wait_for(is_over, WAIT_SECONDS)
            return self.forget()

    def forget(self) -> list[list[str]]:
        calls, self.calls, self.answered = self.calls, [], 0
        return calls

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


@pytest.fixture(scope="module", params=["werkzeug", "sync", "gthread", "gevent"])
def server(request: pytest.FixtureRequest, running_api: Api) -> Iterator[Server]:
    """A server of the application: the development server, or gunicorn with one kind of worker."""
    name: str = request.param
    api_port = running_api.port
    with run_werkzeug(api_port) if name == "werkzeug" else run_gunicorn(api_port, name) as port:
        yield Server(port, keeps_connections=name in ("gthread", "gevent"))


@contextmanager
def run_werkzeug(api_port: int) -> Iterator[int]:
    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - its name there
            pass

    server = make_server(
        "127.0.0.1", 0, create_app(api_port), threaded=True, request_handler=Quiet
    )
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def run_gunicorn(api_port: int, worker: str) -> Iterator[int]:
    for package in {"gunicorn", worker} - {"sync", "gthread"}:
        if not find_spec(package):
            pytest.skip(f"There is no {package}: pip install {package}")
    here = Path(__file__)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [
            *(sys.executable, "-c", GUNICORN, f"{here.stem}:create_app({api_port})"),
            *("--pythonpath", str(here.parent), "--bind", f"fd://{listener.fileno()}"),
            *("--worker-class", worker, "--threads", "2" if worker == "gthread" else "1"),
            *("--keep-alive", "30", "--graceful-timeout", "5", "--log-level", "critical"),
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()], env=os.environ
        )
        try:
            yield listener.getsockname()[1]
        finally:
            try:
                process.communicate(timeout=WAIT_SECONDS)
            finally:
                process.kill()


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
            assert self._socket.recv(1) == b""

    def reset(self) -> None:
        """Break the connection off, as a client does that crashes."""
        assert self._socket
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()
        self._is_kept = False

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


def calls_so_far(api: Api, browser: Browser) -> list[list[str]]:
    """The API calls that the last response led to, which are over when those of another are."""
    browser.wait_until_over()
    browser.get("/last")
    *calls, last = api.calls_until("last")
    assert last == ["last"]
    return calls


SUCCESSES = [
    ("GET", "/text", 200, b"An answer"),
    ("HEAD", "/text", 200, b""),
    ("GET", "/answer/204", 204, b""),
    ("GET", "/answer/302", 302, b"An answer"),
    ("GET", "/file", 200, b"A file"),
    ("GET", "/stored-file", 200, Path(__file__).read_bytes()),
    ("HEAD", "/stored-file", 200, b""),
    ("GET", "/stream", 200, b"An answer"),
    ("GET", "/stream-that-defers", 200, b"An answer"),
    ("GET", "/after-this-request", 200, b"An answer"),
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
    assert calls_so_far(api, browser) == [["shipped"]]


def test_several_events_leave_in_one_call(api: Api, browser: Browser) -> None:
    with api.silent():
        browser.get("/several")
        answered_before = api.answered
    assert answered_before == 0
    assert calls_so_far(api, browser) == [[f"shipped-{number}" for number in range(5)]]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/abort/403", 403),
        ("/answer/404", 404),
        ("/answer/422", 422),
        ("/abort/503", 503),
        ("/answer/500", 500),
        ("/raise", 500),
    ],
)
def test_an_error_publishes_nothing(api: Api, browser: Browser, path: str, status: int) -> None:
    assert browser.get(path)[0] == status
    assert calls_so_far(api, browser) == []


def test_a_stream_that_fails_publishes_nothing(api: Api, browser: Browser) -> None:
    with pytest.raises(HTTPException):
        browser.get("/stream-that-fails")
    assert calls_so_far(api, browser) == []


@pytest.mark.parametrize("path", ["/text", "/stream", "/file"])
def test_a_connection_that_is_reset_behind_the_response_loses_no_event(
    api: Api, browser: Browser, path: str
) -> None:
    browser.get(path)
    browser.reset()
    assert api.calls_until("shipped") == [["shipped"]]


def test_each_request_of_a_connection_publishes_its_own(
    api: Api, server: Server, browser: Browser
) -> None:
    for path in ("/text", "/stream", "/abort/403", "/answer/204"):
        browser.get(path)
        browser.wait_until_over()
    assert calls_so_far(api, browser) == [["shipped"]] * 3
    assert (browser.connections == 1) == server.keeps_connections

"""The transport, on real sockets: forks, connections that break, certificates, errors in words."""

from __future__ import annotations

import gzip
import json
import logging
import pickle
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests
import trustme
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus, PusherForbidden
from urllib3.util import connection as urllib3_connection

from _flask_pusher import transport
from _flask_pusher.transport import READ_BYTES, complete, retry_after_of, status_of
from flask_pusher import Client, NoAnswer, Pusher, PusherError

if TYPE_CHECKING:
    from tests.conftest import MakeApp

ClientOf = Callable[..., Client]
WAIT_SECONDS = 30


@pytest.fixture
def client_of(make_app: MakeApp) -> ClientOf:
    """The client of an application with these settings."""

    def client_of(**config: Any) -> Client:
        client: Client = make_app(Pusher(), **config).extensions["pusher"]
        return client

    return client_of


def publish(client: Client, name: str = "flash") -> Any:
    return complete(client.trigger("news", name, {"n": 1}))


# -- Servers that do what they are told -----------------------------------------------------------


class Scripted:
    """A server with a script for each connection: what it does with each request, in order.

    It answers with what the script says, or does ``hang up`` without an answer, ``reset`` the
    connection, or stays ``silent``; ``both`` waits for a request on another connection first. An
    ``endless`` answer goes on as long as it is read.
    """

    def __init__(self, *scripts: list[Any], context: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(WAIT_SECONDS)
        self.port: int = self.listener.getsockname()[1]
        self.requests: list[str] = []
        self.over = threading.Event()
        self._scripts = scripts
        self._context = context
        self._connections: list[socket.socket] = []
        self._both = threading.Barrier(2, timeout=WAIT_SECONDS)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def config(self) -> dict[str, Any]:
        return {"PUSHER_HOST": "127.0.0.1", "PUSHER_PORT": self.port, "PUSHER_SSL": False}

    @property
    def names(self) -> list[str]:
        """The names of the events that came, in order."""
        return [json.loads(one.partition("\r\n\r\n")[2])["name"] for one in self.requests]

    def until_requests(self, count: int) -> None:
        """Wait until so many have been read; more is a failure. A client whose time is short may
        have given up before this server's thread has read anything."""
        until = time.monotonic() + WAIT_SECONDS
        while len(self.requests) < count and time.monotonic() < until:
            time.sleep(0.005)
        assert len(self.requests) == count

    def _serve(self) -> None:
        followers = []
        with self.listener:
            for script in self._scripts:
                connection, _ = self.listener.accept()
                if self.over.is_set():
                    connection.close()
                    break
                self._connections.append(connection)
                followers.append(threading.Thread(target=self._follow, args=(script, connection)))
                followers[-1].start()
        for follower in followers:
            follower.join(WAIT_SECONDS)

    def _follow(self, script: list[Any], connection: socket.socket) -> None:
        connection.settimeout(WAIT_SECONDS)
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection, connection.makefile("rb") as stream:
            for action in script:
                head = b"".join(iter(stream.readline, b"\r\n")) if stream.peek(1) else b""
                if not head:
                    return
                length = re.search(rb"Content-Length: ([0-9]+)", head)
                body = stream.read(int(length[1]) if length else 0)
                self.requests.append(f"{head.decode()}\r\n{body.decode()}")
                if action == "both":
                    self._both.wait()
                    connection.sendall(answer().encode())
                elif action == "silent":
                    self.over.wait(WAIT_SECONDS)
                elif action == "endless":
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    with suppress(OSError):  # the client has hung up
                        while not self.over.wait(0.001):
                            connection.sendall(bytes(READ_BYTES))
                elif action == "reset":
                    # Closed with no time to linger, a connection is reset.
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                elif action != "hang up":
                    connection.sendall(action if isinstance(action, bytes) else action.encode())

    def stop(self) -> None:
        self.over.set()
        with socket.socket() as last:  # so that a server that waits for a connection ends
            last.connect_ex(("127.0.0.1", self.port))
        for connection in self._connections:
            with suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(WAIT_SECONDS)


def answer(body: str = "{}", head: str = "") -> str:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{head}\r\n{body}"


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    servers: list[Scripted] = []

    def start(*scripts: list[Any], context: ssl.SSLContext | None = None) -> Scripted:
        servers.append(Scripted(*scripts, context=context))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port at which nobody takes connections, nor refuses them."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(8)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for each in waiting:
            each.close()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every name under ``.example`` be this machine's, and no other name be known."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name.endswith(".example"):
            return real("127.0.0.1", *args, **kwargs)
        if re.fullmatch(r"[0-9.]+", name):
            return real(name, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


class Authority:
    """A private certificate authority, in a file."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.file)

    def context(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls(api: Any, authority: Authority) -> dict[str, Any]:
    """The settings for an API that speaks TLS, with a certificate of the private authority."""
    speak_tls(api, authority.context("127.0.0.1"))
    return {**api.config, "PUSHER_SSL": True}


def speak_tls(api: Any, context: ssl.SSLContext) -> None:
    # The handshake is left to the thread that serves the connection.
    api.server.socket = context.wrap_socket(
        api.server.socket, server_side=True, do_handshake_on_connect=False
    )


@pytest.fixture(autouse=True)
def _environment_without_proxies_and_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


# -- Processes ------------------------------------------------------------------------------------

SIX_FORKED_PROCESSES = """
import os, sys, traceback
from flask_pusher import Client

port, authority = int(sys.argv[1]), sys.argv[2]
options = {"verify": authority} if authority else {}
client = Client("1", "a-key", "a-secret", host="127.0.0.1", port=port, ssl=bool(authority),
                **options)

def publish(who):
    for number in range(20):
        answer = client.trigger("news", who, number)
        assert answer == {"name": who, "data": str(number)}, (who, number, answer)

publish("parent, before")
start, go = os.pipe()
children = []
for number in range(6):
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(go)
            os.read(start, 1)  # until the parent closes its end
            publish(f"child {number}")
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    children.append(child)
os.close(go)
publish("parent")
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


@pytest.mark.parametrize("speaks_tls", [False, True], ids=["plain", "tls"])
def test_forked_processes_that_publish_at_once_get_their_own_answers(
    request: pytest.FixtureRequest, api: Any, authority: Authority, speaks_tls: bool
) -> None:
    if speaks_tls:
        speak_tls(api, authority.context("127.0.0.1"))
    api.answer = lambda call: (
        200,
        json.dumps({"name": call.body["name"], "data": call.body["data"]}),
    )
    arguments = [str(api.port), authority.file if speaks_tls else ""]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SIX_FORKED_PROCESSES, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    publishers = ["parent, before", "parent", *(f"child {number}" for number in range(6))]
    assert Counter(api.events) == {
        ("news", who, number): 1 for who in publishers for number in range(20)
    }
    assert api.connections == 7


def test_threads_that_publish_at_once_keep_a_connection_each(
    client_of: ClientOf, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Session(requests.Session):
        """Takes so long to be made that all threads have begun to make one."""

        def __init__(self) -> None:
            time.sleep(0.1)
            super().__init__()

    monkeypatch.setattr(requests, "Session", Session)
    client = client_of(**api.config)
    together = threading.Barrier(20, timeout=WAIT_SECONDS)

    def publish_five() -> None:
        for number in range(5):
            together.wait()
            client.trigger("news", "flash", {"n": number})

    threads = [threading.Thread(target=publish_five) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(api.events) == 100
    assert api.connections <= 20


# -- Connections that break -----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["hang up", "reset"])
@pytest.mark.parametrize("speaks_tls", [False, True], ids=["plain", "tls"])
def test_a_server_that_hangs_up_as_the_next_request_comes_is_asked_once_more(
    client_of: ClientOf,
    scripted: Callable[..., Scripted],
    authority: Authority,
    way: str,
    speaks_tls: bool,
) -> None:
    context = authority.context("127.0.0.1") if speaks_tls else None
    server = scripted([answer(), way], [answer('{"second": 1}'), answer()], context=context)
    client = client_of(
        **{**server.config, "PUSHER_SSL": speaks_tls},
        PUSHER_BACKEND_OPTIONS={"verify": authority.file},
    )
    publish(client, "one")
    assert publish(client, "two") == {"second": 1}
    publish(client, "three")
    assert server.names == ["one", "two", "two", "three"]


def test_a_server_that_hangs_up_on_idle_connections_gets_no_event_twice(
    client_of: ClientOf, scripted: Callable[..., Scripted]
) -> None:
    server = scripted([answer()], [answer()], [answer()])
    client = client_of(**server.config)
    for name in ("one", "two", "three"):
        publish(client, name)
    assert server.names == ["one", "two", "three"]


def test_a_server_that_hangs_up_on_all_kept_connections_is_asked_on_a_new_one(
    client_of: ClientOf, scripted: Callable[..., Scripted]
) -> None:
    server = scripted([answer(), "both", "hang up"], ["both", "hang up"], [answer()])
    client = client_of(**server.config)
    publish(client, "first")
    threads = [threading.Thread(target=publish, args=(client,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert publish(client, "third") == {}
    assert server.names == ["first", "flash", "flash", "third", "third"]


def test_a_server_that_hangs_up_again_is_not_asked_a_third_time(
    client_of: ClientOf, scripted: Callable[..., Scripted]
) -> None:
    server = scripted(["hang up"], ["hang up"], [answer()])
    with pytest.raises(NoAnswer, match="the connection broke") as raised:
        publish(client_of(**server.config))
    assert len(server.requests) == 2
    assert not raised.value.timed_out


def test_an_answer_that_breaks_off_is_not_asked_for_again(
    client_of: ClientOf, scripted: Callable[..., Scripted]
) -> None:
    server = scripted(["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"], [answer()])
    with pytest.raises(NoAnswer, match="the connection broke"):
        publish(client_of(**server.config))
    assert len(server.requests) == 1


@pytest.mark.parametrize("script", [["silent"], [answer(), "silent"]], ids=["new", "kept"])
def test_a_timeout_is_not_tried_again(
    client_of: ClientOf, scripted: Callable[..., Scripted], script: list[str], backend: Any
) -> None:
    server = scripted(*([one] for one in script)) if backend else scripted(script)
    # Long enough for the answer that does come, on a machine that is busy.
    seconds = 0.3 if len(script) == 1 else 3
    client = client_of(**server.config, PUSHER_TIMEOUT=seconds, PUSHER_BACKEND=backend)
    for _ in script[1:]:
        publish(client)
    with pytest.raises(NoAnswer, match=rf"it took longer than {seconds:g} seconds\.") as raised:
        publish(client)
    assert raised.value.timed_out
    server.until_requests(len(script))


@pytest.mark.parametrize("handled", [ConnectionResetError, ConnectionRefusedError, TimeoutError])
def test_what_the_caller_was_handling_is_no_reason(
    client_of: ClientOf, scripted: Callable[..., Scripted], handled: type[OSError], backend: Any
) -> None:
    server = scripted(["silent"], ["silent"])
    client = client_of(**server.config, PUSHER_TIMEOUT=0.3, PUSHER_BACKEND=backend)
    nobody = client_of(**{**server.config, "PUSHER_PORT": 1}, PUSHER_BACKEND=backend)
    try:
        raise handled
    except OSError:
        with pytest.raises(NoAnswer, match=r"it took longer than 0\.3 seconds\."):
            publish(client)
        with pytest.raises(NoAnswer, match="nothing listens there") as raised:
            publish(nobody)
    assert not raised.value.timed_out
    server.until_requests(1)


def test_the_page_of_an_error_is_told_in_short(client_of: ClientOf, api: Any) -> None:
    api.answers.append((500, "<p>no\n</p>" * 10_000))
    with pytest.raises(PusherBadStatus, match="500: <p>no </p><p>no </p>") as raised:
        publish(client_of(**api.config))
    assert len(str(raised.value)) < 400


def test_an_answer_that_never_ends_takes_no_longer_than_a_timeout(
    client_of: ClientOf, scripted: Callable[..., Scripted]
) -> None:
    server = scripted(["endless"], [answer()])
    client = client_of(**server.config, PUSHER_TIMEOUT=3)
    with pytest.raises(NoAnswer, match=r"it took longer than 3 seconds\.") as raised:
        publish(client)
    assert raised.value.timed_out
    assert publish(client) == {}


def test_an_answer_that_would_fill_the_memory_is_an_error_of_the_server(
    client_of: ClientOf, scripted: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MOST_BYTES", 100_000)
    server = scripted(["endless"], [answer()])
    client = client_of(**server.config)
    with pytest.raises(PusherError, match="not one of Channels, but of more than 100000 bytes"):
        publish(client)
    assert publish(client) == {}


def test_a_short_answer_that_is_long_when_it_is_unpacked_is_one_too(
    client_of: ClientOf, scripted: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MOST_BYTES", 100_000)
    packed = gzip.compress(bytes(10_000_000))
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(packed)}\r\nContent-Encoding: gzip\r\n\r\n"
    server = scripted([head.encode() + packed])
    client = client_of(**server.config)
    tracemalloc.start()
    with pytest.raises(PusherError, match="not one of Channels, but of more than 100000 bytes"):
        publish(client)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    unpacks_in_parts = tuple(map(int, version("urllib3").split(".")[:2])) >= (2, 6)
    assert most < 5_000_000 or not unpacks_in_parts


def test_an_answer_that_is_not_packed_as_it_says_is_one_too(
    client_of: ClientOf, scripted: Callable[..., Scripted]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\n"
    server = scripted([head + b"{}"])
    with pytest.raises(PusherError, match="The answer is not one of Channels, but") as raised:
        publish(client_of(**server.config))
    assert not isinstance(raised.value, NoAnswer)  # it came, and nothing is to be tried again


@pytest.mark.parametrize(
    ("status", "error"), [(400, PusherBadRequest), (401, PusherBadAuth), (503, PusherBadStatus)]
)
def test_a_refusal_that_a_hook_of_requests_raises_is_one(
    client_of: ClientOf, api: Any, status: int, error: type[PusherError]
) -> None:
    api.answers.append((status, "no"))
    hooks = {"response": lambda response, **_: response.raise_for_status()}
    client = client_of(**api.config, PUSHER_BACKEND_OPTIONS={"hooks": hooks})
    with pytest.raises(error, match="no") as raised:
        publish(client)
    assert status_of(raised.value) == status


def test_a_long_answer_is_read_whole(client_of: ClientOf, api: Any) -> None:
    channels: dict[str, Any] = {f"channel-{number}": {} for number in range(10_000)}
    api.answers.append((200, json.dumps({"channels": channels})))
    assert client_of(**api.config).channels_info() == {"channels": channels}


def test_a_netrc_file_is_not_read(
    client_of: ClientOf,
    scripted: Callable[..., Scripted],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "netrc"
    file.write_text("default login ana password hers")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    server = scripted([answer()])
    publish(client_of(**server.config))
    assert "Authorization" not in server.requests[0]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_refusal_and_not_followed(
    client_of: ClientOf, scripted: Callable[..., Scripted], status: int
) -> None:
    elsewhere = scripted([answer()])
    moved = f"HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:{elsewhere.port}/\r\n"
    server = scripted([f"{moved}Content-Length: 9\r\n\r\nelsewhere"])
    with pytest.raises(
        PusherBadStatus, match=f"{status}: The API is not here, but at http:.*PUSHER_SSL"
    ):
        publish(client_of(**server.config))
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        ("", 0),
        ("Retry-After: 7\r\n", 7),
        ("Retry-After: Sat, 01 Jan 2050 00:00:00 GMT\r\n", 3600),
        ("Retry-After: Sat, 01 Jan 2000 00:00:00 GMT\r\n", 0),
        (f"Retry-After: {'9' * 400}\r\n", 3600),
        ("Retry-After: Sat, 01 Jan 0001 00:00:00 GMT\r\n", 0),
        ("Retry-After: soon\r\n", 0),
        ("Retry-After: \u0667\r\n", 0),
        ("Retry-After: -7\r\n", 0),
    ],
)
def test_a_refusal_has_its_status_and_how_long_it_asks_to_wait(
    client_of: ClientOf, scripted: Callable[..., Scripted], head: str, seconds: float
) -> None:
    server = scripted([f"HTTP/1.1 503 Later\r\nContent-Length: 5\r\n{head}\r\nlater"])
    with pytest.raises(PusherBadStatus, match=r"^503: later$") as raised:
        publish(client_of(**server.config))
    assert status_of(raised.value) == 503
    assert retry_after_of(raised.value) == seconds


@pytest.mark.parametrize("status", [400, 401, 403, 413, 500])
def test_a_refusal_has_its_status_with_any_backend(
    client_of: ClientOf, api: Any, backend: Any, status: int
) -> None:
    api.answers.append((status, "418: no"))
    with pytest.raises(PusherError, match="418: no") as raised:
        publish(client_of(**api.config, PUSHER_BACKEND=backend))
    assert status_of(raised.value) == status


def test_what_is_known_nowhere_names_the_settings_that_say_where(
    client_of: ClientOf, api: Any
) -> None:
    api.answers.append((404, "<html>\n<h1>no such page</h1>"))
    with pytest.raises(PusherBadStatus) as raised:
        publish(client_of(**api.config))
    assert str(raised.value) == (
        "404: <html> <h1>no such page</h1> Are PUSHER_HOST, PUSHER_PATH and PUSHER_APP_ID right?"
    )


# -- How long connections are kept, and what sends ------------------------------------------------


def test_a_connection_without_a_call_for_20_seconds_is_not_used_again(
    client_of: ClientOf, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr("_flask_pusher.transport.time", clock)
    client = client_of(**api.config)
    for seconds in (0, 19, 19, 21, 0):
        now += seconds
        publish(client)
    assert (len(api.events), api.connections) == (5, 2)


def test_one_that_others_went_on_without_is_not_used_again_either(
    client_of: ClientOf, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr("_flask_pusher.transport.time", clock)
    client = client_of(**api.config)
    together = threading.Barrier(2, timeout=WAIT_SECONDS)

    def publish_at_once() -> None:
        def answer(call: Any) -> tuple[int, str]:
            together.wait()
            return 200, "{}"

        api.answer = answer
        threads = [threading.Thread(target=publish, args=[client]) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        api.answer = lambda call: (200, "{}")

    publish_at_once()
    for _ in range(3):
        now += 15
        publish(client)
    assert api.connections == 2
    publish_at_once()
    assert api.connections == 3


def test_tcp_keeps_connections_alive(
    client_of: ClientOf, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []
    real = urllib3_connection.create_connection

    def create_connection(*args: Any, **options: Any) -> socket.socket:
        made.append(real(*args, **options))
        return made[-1]

    monkeypatch.setattr(urllib3_connection, "create_connection", create_connection)
    publish(client_of(**api.config))
    (one,) = made
    assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("watched", [requests.Session, requests.adapters.HTTPAdapter])
def test_what_watches_the_sessions_or_adapters_of_requests_sees_each_call(
    client_of: ClientOf, api: Any, monkeypatch: pytest.MonkeyPatch, watched: Any
) -> None:
    seen: list[Any] = []
    real = watched.send

    def send(sender: Any, prepared: Any, **options: Any) -> Any:
        seen.append(prepared)
        prepared.headers["traceparent"] = "00-1"
        return real(sender, prepared, **options)

    monkeypatch.setattr(watched, "send", send)
    client = client_of(**api.config)
    publish(client)
    publish(client)
    assert [prepared.method for prepared in seen] == ["POST", "POST"]
    assert json.loads(seen[1].body)["name"] == "flash"
    assert seen[1].headers["content-type"] == "application/json"
    assert seen[1].headers["Content-Length"] == str(len(seen[1].body))
    assert seen[1].headers["User-Agent"].startswith("python-requests")
    assert len(api.calls) == 2


def test_each_call_has_the_headers_of_its_own(
    client_of: ClientOf, scripted: Callable[..., Scripted]
) -> None:
    """A question is no JSON, and what is published is, whatever was asked first."""
    server = scripted([answer()] * 3)
    client = client_of(**server.config)
    client.users_info("presence-room")
    publish(client)
    client.users_info("presence-room")
    types = [re.findall("content-type: (.*)\r", one, re.IGNORECASE) for one in server.requests]
    assert types == [[], ["application/json"], []]


def test_the_options_of_requests_are_sent_with_each_call(
    client_of: ClientOf, scripted: Callable[..., Scripted]
) -> None:
    seen: list[Any] = []
    options = {
        "auth": ("ana", "secret"),
        "cookies": {"sticky": "7"},
        "hooks": {
            "response": lambda response, **_: seen.append((response.status_code, response.text))
        },
    }
    server = scripted([answer(head="Set-Cookie: other=8\r\n"), answer(), answer()])
    client = client_of(**server.config, PUSHER_BACKEND_OPTIONS=options)
    assert publish(client, "one") == {}
    publish(client, "two")
    client.channels_info("presence-", ["user_count"])
    for request in server.requests:
        assert "Authorization: Basic YW5hOnNlY3JldA==" in request
        assert "Cookie: sticky=7" in request
    assert server.requests[2].startswith("GET /apps/1/channels?")
    assert "filter_by_prefix=presence-&info=user_count" in server.requests[2]
    assert "Content-Length" not in server.requests[2]
    assert seen == [(200, "{}")] * 3


def test_what_an_authentication_hooks_into_a_call_is_of_that_call_alone(
    client_of: ClientOf, scripted: Callable[..., Scripted]
) -> None:
    seen: list[str] = []

    def authentication(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        # As requests.auth.HTTPDigestAuth does.
        prepared.hooks["response"].append(lambda response, **_: seen.append(response.url))
        return prepared

    server = scripted([answer(), answer(), answer()])
    client = client_of(**server.config, PUSHER_BACKEND_OPTIONS={"auth": authentication})
    for name in ("one", "two", "three"):
        publish(client, name)
    assert len(seen) == 3


# -- Certificates ---------------------------------------------------------------------------------


def test_an_authority_of_ones_own_is_trusted_by_verify(
    client_of: ClientOf, api: Any, tls: dict[str, Any], authority: Authority
) -> None:
    client = client_of(**tls, PUSHER_BACKEND_OPTIONS={"verify": authority.file})
    assert publish(client) == {}
    assert len(api.calls) == 1


def test_a_certificate_of_the_client_is_shown_to_a_server_that_asks(
    client_of: ClientOf, scripted: Callable[..., Scripted], authority: Authority, tmp_path: Path
) -> None:
    context = authority.context("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    server = scripted([answer()], context=context)
    own = tmp_path / "own.pem"
    authority.ca.issue_cert("shop.example").private_key_and_cert_chain_pem.write_to_path(str(own))
    options = {"verify": authority.file, "cert": str(own)}
    config = {**server.config, "PUSHER_SSL": True, "PUSHER_BACKEND_OPTIONS": options}
    assert publish(client_of(**config)) == {}


def test_an_unknown_authority_is_refused(
    client_of: ClientOf, api: Any, tls: dict[str, Any], backend: Any
) -> None:
    with pytest.raises(NoAnswer, match="its certificate is not trusted") as raised:
        publish(client_of(**tls, PUSHER_BACKEND=backend))
    assert 'PUSHER_BACKEND_OPTIONS={"verify": "ca.pem"}' in str(raised.value)
    assert api.calls == []


def test_an_authority_of_ones_own_is_trusted_by_the_environment(
    client_of: ClientOf,
    api: Any,
    tls: dict[str, Any],
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.file)
    publish(client_of(**tls))
    assert len(api.calls) == 1


def test_verify_wins_over_the_environment(
    client_of: ClientOf,
    tls: dict[str, Any],
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", Authority(tmp_path / "other").file)
    assert publish(client_of(**tls, PUSHER_BACKEND_OPTIONS={"verify": authority.file})) == {}


def test_no_certificate_is_looked_at_where_verify_is_false(
    client_of: ClientOf, tls: dict[str, Any]
) -> None:
    client = client_of(**tls, PUSHER_BACKEND_OPTIONS={"verify": False})
    with pytest.warns(match="Unverified HTTPS request"):
        assert publish(client) == {}


def test_a_certificate_for_another_name_is_refused_with_that_reason(
    client_of: ClientOf, api: Any, authority: Authority
) -> None:
    speak_tls(api, authority.context("shop.example"))
    client = client_of(
        **{**api.config, "PUSHER_SSL": True}, PUSHER_BACKEND_OPTIONS={"verify": authority.file}
    )
    with pytest.raises(NoAnswer, match=r"not trusted \(.*(not valid for|hostname) '127\.0\.0\.1'"):
        publish(client)


def test_a_bundle_of_the_environment_that_is_missing_is_named(
    client_of: ClientOf, tls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/ca.pem")
    with pytest.raises(NoAnswer, match=r"/no/such/ca\.pem.* Is REQUESTS_CA_BUNDLE"):
        publish(client_of(**tls))


def test_a_bundle_of_the_settings_that_is_missing_stops_init_app(make_app: MakeApp) -> None:
    app = make_app(PUSHER_BACKEND_OPTIONS={"verify": "/no/such/ca.pem"})
    told = "PUSHER_BACKEND_OPTIONS should be .*'verify' is a bool or a file that exists; it holds"
    with pytest.raises(ValueError, match=told):
        Pusher(app)


# -- Proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "[::1]"])
def test_a_proxy_of_the_environment_is_not_asked_for_loopback_addresses(
    client_of: ClientOf,
    api: Any,
    scripted: Callable[..., Scripted],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    host: str,
) -> None:
    proxy = scripted([answer()])
    monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
    client = client_of(**{**api.config, "PUSHER_HOST": host})
    if host in ("127.0.0.1", "localhost"):
        publish(client)
        assert len(api.calls) == 1
    else:  # which are this machine too, but where nothing listens
        with pytest.raises(NoAnswer):
            publish(client)
    assert proxy.requests == []


@pytest.mark.parametrize("host", ["api.example", "127.evil.example"])
def test_a_proxy_of_the_environment_is_asked_for_other_addresses(
    client_of: ClientOf,
    scripted: Callable[..., Scripted],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
) -> None:
    proxy = scripted([answer()])
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    publish(client_of(PUSHER_HOST=host, PUSHER_SSL=False))
    assert proxy.requests[0].startswith(f"POST http://{host}:80/apps/1/events?")


def test_a_proxy_of_the_environment_is_asked_when_the_address_is_no_loopback_one_any_more(
    client_of: ClientOf,
    api: Any,
    scripted: Callable[..., Scripted],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = scripted([answer()])
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    client = client_of(**api.config)
    publish(client, "one")
    client.address = ("api.example", 80, False)
    publish(client, "two")
    assert [name for _, name, _ in api.events] == ["one"]
    assert proxy.names == ["two"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_takes_no_calls_is_named(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch, closed_port: int, scheme: str
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{closed_port}")
    client = client_of(PUSHER_HOST="ws.example", PUSHER_PORT=81, PUSHER_SSL=scheme == "https")
    with pytest.raises(NoAnswer) as raised:
        publish(client)
    assert str(raised.value) == (
        f"{scheme}://ws.example:81 gave no answer: the proxy takes no calls. Are HTTPS_PROXY and"
        " NO_PROXY right?"
    )


def test_a_proxy_of_the_settings_is_asked_for_any_address(
    client_of: ClientOf, scripted: Callable[..., Scripted], closed_port: int
) -> None:
    proxy = scripted([answer()])
    client = client_of(
        PUSHER_HOST="127.0.0.1",
        PUSHER_PORT=closed_port,
        PUSHER_SSL=False,
        PUSHER_BACKEND_OPTIONS={"proxies": {"http": f"http://127.0.0.1:{proxy.port}"}},
    )
    publish(client)
    assert proxy.requests[0].startswith(f"POST http://127.0.0.1:{closed_port}/apps/1/events?")


# -- Answers --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("<html>Welcome\n  to nginx</html>", "Welcome"),
        ("", ""),
        ("[]", "of type list"),
        ('"ok"', "of type str"),
        ("null", "of type NoneType"),
        ("5", "of type int"),
        ("[" * 100_000, ""),
    ],
)
def test_what_is_no_answer_of_channels_is_an_error_of_the_server(
    client_of: ClientOf, api: Any, backend: Any, body: str, found: str
) -> None:
    api.answers.append((200, body))
    with pytest.raises(PusherError, match="The answer is not one of Channels") as raised:
        publish(client_of(**api.config, PUSHER_BACKEND=backend))
    assert not isinstance(raised.value, (ValueError, NoAnswer))
    if not backend:
        assert found in str(raised.value)
    assert "PUSHER_HOST and PUSHER_PORT" in str(raised.value)


@pytest.mark.parametrize("body", ['{"error": "x"}', '{"code": 401}', '{"error": "", "code": 200}'])
def test_an_answer_of_another_form_is_given_as_it_is(
    client_of: ClientOf, api: Any, backend: Any, body: str
) -> None:
    api.answers.append((200, body))
    assert publish(client_of(**api.config, PUSHER_BACKEND=backend)) == json.loads(body)


@pytest.mark.parametrize("error", ['"refused"', '{"message": "refused"}'])
def test_a_refusal_with_status_200_as_soketi_sends_it_is_a_refusal(
    client_of: ClientOf, api: Any, backend: Any, error: str
) -> None:
    api.answers.append((200, f'{{"error": {error}, "code": 403}}'))
    with pytest.raises(PusherForbidden, match="refused"):
        publish(client_of(**api.config, PUSHER_BACKEND=backend))


# -- Errors in words ------------------------------------------------------------------------------


def test_a_local_server_that_does_not_run_is_told_by_name(
    client_of: ClientOf, closed_port: int, backend: Any
) -> None:
    client = client_of(
        PUSHER_HOST="127.0.0.1",
        PUSHER_PORT=closed_port,
        PUSHER_SSL=False,
        PUSHER_BACKEND=backend,
    )
    with pytest.raises(NoAnswer) as raised:
        publish(client)
    assert str(raised.value) == (
        f"http://127.0.0.1:{closed_port} gave no answer: nothing listens there. Is the local"
        " server running? 'flask pusher serve' starts it."
    )
    assert raised.value.__cause__ is not None
    assert not raised.value.timed_out


@pytest.mark.usefixtures("resolve")
def test_another_machine_that_refuses_is_told_with_its_settings(
    client_of: ClientOf, closed_port: int, backend: Any
) -> None:
    client = client_of(
        PUSHER_HOST="ws.example",
        PUSHER_PORT=closed_port,
        PUSHER_SSL=False,
        PUSHER_BACKEND=backend,
    )
    with pytest.raises(NoAnswer, match="nothing listens there") as raised:
        publish(client)
    assert str(raised.value).endswith("Are PUSHER_HOST and PUSHER_PORT right?")


@pytest.mark.usefixtures("resolve")
def test_a_cluster_that_does_not_exist_is_told_by_its_hosts_name(
    client_of: ClientOf, backend: Any
) -> None:
    with pytest.raises(NoAnswer) as raised:
        publish(client_of(PUSHER_CLUSTER="zz9", PUSHER_BACKEND=backend))
    assert str(raised.value) == (
        "https://api-zz9.pusher.com:443 gave no answer: the name api-zz9.pusher.com is not known."
        " Are PUSHER_HOST and PUSHER_CLUSTER right, and is this machine connected?"
    )


def test_a_connection_that_is_not_taken_in_time_is_told_and_may_be_tried_again(
    client_of: ClientOf, full_port: int
) -> None:
    client = client_of(
        PUSHER_HOST="127.0.0.1", PUSHER_PORT=full_port, PUSHER_SSL=False, PUSHER_TIMEOUT=0.3
    )
    with pytest.raises(NoAnswer, match=r"it took longer than 0\.3 seconds") as raised:
        publish(client)
    assert not raised.value.timed_out


@pytest.mark.parametrize("name", ["ConnectTimeout", "ConnectionTimeoutError"])
def test_nor_is_one_of_another_library_a_call_that_was_taken(
    client_of: ClientOf, name: str
) -> None:
    """That of httpx, and that of aiohttp."""
    kind = type(name, (TimeoutError,), {})

    class Other:
        def __init__(self, client: Any) -> None:
            pass

        def send_request(self, request: Any) -> Any:
            raise kind("too long")

    with pytest.raises(NoAnswer, match=r"it took longer than 5 seconds") as raised:
        publish(client_of(PUSHER_BACKEND=Other))
    assert not raised.value.timed_out


def test_a_connection_that_breaks_is_told(
    client_of: ClientOf, scripted: Callable[..., Scripted], backend: Any
) -> None:
    server = scripted(["hang up"], ["hang up"])
    with pytest.raises(NoAnswer, match="the connection broke") as raised:
        publish(client_of(**server.config, PUSHER_BACKEND=backend))
    assert "does PUSHER_SSL fit it?" in str(raised.value)


def test_a_server_without_tls_is_told(client_of: ClientOf, api: Any, backend: Any) -> None:
    config = {**api.config, "PUSHER_SSL": True, "PUSHER_BACKEND": backend}
    with pytest.raises(NoAnswer, match=r"TLS failed \(.*WRONG_VERSION") as raised:
        publish(client_of(**config))
    assert "PUSHER_SSL should be false" in str(raised.value)


def test_any_other_error_is_told_as_it_is(client_of: ClientOf, api: Any) -> None:
    options = {"proxies": {"http": "socks9://127.0.0.1:1"}}
    with pytest.raises(NoAnswer) as raised:
        publish(client_of(**api.config, PUSHER_BACKEND_OPTIONS=options))
    text = f"{type(raised.value.__cause__).__name__}: "
    assert text in str(raised.value)
    assert str(raised.value).endswith("Are PUSHER_HOST, PUSHER_PORT and PUSHER_SSL right?")


def test_no_answer_is_an_error_of_requests_too_and_can_be_pickled(
    client_of: ClientOf, closed_port: int
) -> None:
    client = client_of(PUSHER_HOST="127.0.0.1", PUSHER_PORT=closed_port, PUSHER_SSL=False)
    with pytest.raises(requests.RequestException) as raised:
        publish(client)
    assert isinstance(raised.value, PusherError)
    copied = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - as a task queue does
    assert (type(copied), str(copied)) == (NoAnswer, str(raised.value))


# -- Signatures stay in the process ---------------------------------------------------------------


@pytest.mark.parametrize("setting", ["closed", "hang up", "silent", "untrusted", "unknown"])
@pytest.mark.usefixtures("resolve")
def test_no_error_tells_a_signature(
    client_of: ClientOf,
    request: pytest.FixtureRequest,
    scripted: Callable[..., Scripted],
    caplog: pytest.LogCaptureFixture,
    backend: Any,
    setting: str,
) -> None:
    config: dict[str, Any] = {"PUSHER_BACKEND": backend, "PUSHER_TIMEOUT": 0.5}
    if setting == "closed":
        port = request.getfixturevalue("closed_port")
        config.update(PUSHER_HOST="127.0.0.1", PUSHER_PORT=port, PUSHER_SSL=False)
    elif setting == "untrusted":
        config.update(request.getfixturevalue("tls"))
    elif setting == "unknown":
        config.update(PUSHER_CLUSTER="zz9")
    else:
        config.update(scripted([setting], [setting]).config)
    client = client_of(**config)
    with caplog.at_level(logging.DEBUG), pytest.raises(NoAnswer) as raised:
        publish(client)
    told = "".join(traceback.format_exception(raised.type, raised.value, raised.tb)) + caplog.text
    assert "auth_signature" not in told
    assert "a-secret" not in told


def test_no_log_tells_a_signature(
    client_of: ClientOf, api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        publish(client_of(**api.config))
    assert 'POST /apps/1/events?... HTTP/1.1" 200' in caplog.text
    assert "auth_signature" not in caplog.text


def test_a_log_of_another_form_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("urllib3.connectionpool").debug("at %(host)s", {"host": "here"})
    assert caplog.messages == ["at here"]


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_page_that_repeats_the_url_tells_no_signature(
    client_of: ClientOf, api: Any, backend: Any, status: int
) -> None:
    api.answer = lambda call: (status, f"Cannot POST {call.path}?auth_signature=abc&x=y")
    with pytest.raises(PusherError) as raised:
        publish(client_of(**api.config, PUSHER_BACKEND=backend))
    assert "Cannot POST /apps/1/events?..." in str(raised.value)
    assert "auth_signature" not in str(raised.value)


class UnreadableBackend:
    """Parses what is no JSON, as an adapter of the client's does."""

    def __init__(self, client: Any) -> None:
        """Take what each adapter is given."""

    def send_request(self, request: Any) -> Any:
        return json.loads("<html>")


def test_what_a_backend_cannot_read_is_an_error_of_the_server(client_of: ClientOf) -> None:
    client = client_of(PUSHER_BACKEND=UnreadableBackend)
    with pytest.raises(PusherError, match="but this: '<html>'") as raised:
        publish(client)
    assert not isinstance(raised.value, NoAnswer)


class TalkativeError(Exception):
    """As an HTTP library has it that keeps the URL out of its exception's arguments."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def __str__(self) -> str:
        return f"something is wrong with {self.url}"


class TalkativeBackend:
    def __init__(self, client: Any) -> None: ...

    def send_request(self, request: Any) -> Any:
        raise TalkativeError(request.url)


def test_an_error_that_tells_the_url_in_another_way_is_no_cause(client_of: ClientOf) -> None:
    with pytest.raises(
        NoAnswer, match=r"something is wrong with https://.*/events\?\.\.\.\."
    ) as r:
        publish(client_of(PUSHER_BACKEND=TalkativeBackend))
    assert "auth_signature" not in "".join(traceback.format_exception(r.type, r.value, r.tb))

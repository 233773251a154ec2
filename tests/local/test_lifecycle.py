from __future__ import annotations

import errno
import gc
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, render_template_string
from freezegun import freeze_time

from _flask_pusher.local import connection as connection_room
from _flask_pusher.local import local_server, options, serve
from _flask_pusher.local import server as server_room
from flask_pusher import Client, Pusher

from .peers import APP_ID, KEY, SECRET, Browser, Connect, eventually


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_client_and_the_pages_point_at_the_server_while_it_runs(
    app: Flask, client: Client
) -> None:
    def page_host() -> str:
        with app.test_request_context():
            return render_template_string("{{ pusher_options().get('wsHost') }}")

    before = client.address
    with local_server(app) as server:
        assert client.address == (server.host, server.port, False)
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert page_host() == "127.0.0.1"
        assert client.trigger("news", "e", {}) == {}
    assert client.address == before
    assert page_host() == "None"


def test_what_the_application_says_of_where_pages_find_the_server_holds_again_afterwards(
    make_app: Callable[..., Flask],
) -> None:
    address = {"wsHost": "channels.example.com", "wssPort": 443, "forceTLS": True}
    app = make_app(PUSHER_CLIENT_OPTIONS={**address, "activityTimeout": 1000})
    Pusher(app)

    def options() -> dict[str, Any]:
        with app.test_request_context():
            found = json.loads(render_template_string("{{ pusher_options()|tojson }}"))
        return {name: found[name] for name in (*address, "activityTimeout")}

    before = options()
    assert before == {**address, "activityTimeout": 1000}
    servers = [local_server(app), local_server(app)]
    for server in reversed(servers):
        here = {"wsHost": server.host, "wssPort": server.port, "forceTLS": False}
        assert options() == {**here, "activityTimeout": 1000}
        server.stop()
    assert options() == before
    with local_server(app) as first, local_server(app):
        first.stop()
        assert options()["wsHost"] == "127.0.0.1"
    assert options() == before


def test_where_nothing_is_sent_it_is_an_error_that_says_so() -> None:
    app = Flask("an_app")
    app.config["PUSHER_BACKEND"] = "log"
    Pusher(app)
    with pytest.raises(ValueError, match="PUSHER_BACKEND is 'log', by which nothing is sent"):
        local_server(app)


def test_stopping_twice_is_stopping_once(app: Flask, client: Client) -> None:
    server = local_server(app)
    server.stop()
    client.address = ("elsewhere", 1, True)
    server.stop()
    assert client.address == ("elsewhere", 1, True)
    with pytest.raises(ConnectionError):
        socket.create_connection((server.host, server.port), timeout=20)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1]])
def test_servers_of_one_application_are_stopped_in_any_order(
    app: Flask, client: Client, order: list[int]
) -> None:
    before = client.address
    servers = [local_server(app) for _ in range(3)]
    running = list(servers)
    for number in order:
        servers[number].stop()
        running.remove(servers[number])
        if running:
            assert client.port == running[-1].port
            assert client.trigger("news", "e", {}) == {}
    assert client.address == before


def test_a_client_that_was_pointed_elsewhere_meanwhile_stays_there(
    app: Flask, client: Client
) -> None:
    with local_server(app):
        client.address = ("elsewhere", 1, True)
    assert client.address == ("elsewhere", 1, True)


NOT_SECONDS = ["120", None, True, [120]]
NO_TIME = [float("nan"), float("inf"), float("-inf"), 0, -1]
TIMES = ["activity_timeout", "pong_timeout", "cache_seconds"]  # and webhook_delay, if it is not 0
NUMBERS = ["members_per_channel", "user_info_bytes", "event_bytes", "client_events_per_second"]


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [*NOT_SECONDS, *NO_TIME], ids=repr)
def test_a_time_that_is_none_is_an_error_that_names_it(app: Flask, name: str, value: Any) -> None:
    error = TypeError if value in NOT_SECONDS else ValueError
    with pytest.raises(error, match=f"^{name} is a number of seconds"):
        local_server(app, **{name: value})


@pytest.mark.parametrize("name", [*NUMBERS, "port"])
@pytest.mark.parametrize("value", ["8080", None, 1.5, float("nan"), False], ids=repr)
def test_a_number_that_is_none_is_an_error_that_names_it(
    app: Flask, name: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=f"^{name} is a whole number, not {value!r}"):
        local_server(app, **{name: value})


@pytest.mark.parametrize("name", [*NUMBERS, "port"])
def test_a_negative_number_is_an_error_that_names_it(app: Flask, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is not negative, as -1 is"):
        local_server(app, **{name: -1})  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["é" * 64, "a..b"])
def test_a_host_that_cannot_be_is_an_error_that_names_it(app: Flask, host: str) -> None:
    with pytest.raises(ValueError, match=r"^host is a name or an address, not '"):
        local_server(app, host=host)


def test_a_host_that_is_no_text_is_an_error_that_names_it(app: Flask) -> None:
    with pytest.raises(TypeError, match=r"^host is a text, not None"):
        local_server(app, host=None)  # type: ignore[arg-type]


def test_threads_may_stop_a_server_together(app: Flask) -> None:
    server = local_server(app)
    threads = [threading.Thread(target=server.stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_a_server_is_stopped_when_its_block_raises(app: Flask, client: Client) -> None:
    def fail() -> None:
        with local_server(app):
            assert client.port != 443
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert client.port == 443


def test_who_connects_while_the_server_stops_is_told_as_well(
    app: Flask, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (server_room, connection_room):
        monkeypatch.setattr(room, "CLOSE_SECONDS", 20)
    # Nobody is hung up on meanwhile, however long this thread takes to connect again.
    monkeypatch.setattr(connection_room.Connection, "can_hang_up", lambda *_: False)
    server = local_server(app)
    early = connect()
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert early.until_closed().code == 4200
    late = connect(established=False)  # `early` has not closed its side, which is waited for
    assert late.until_closed().code == 4200
    early.close()
    late.close()
    stopping.join(20)
    assert not stopping.is_alive()


def test_connections_are_told_to_come_back_when_the_server_stops(
    app: Flask, connect: Connect
) -> None:
    with local_server(app):
        browsers = [connect() for _ in range(50)]
        browsers[0].subscribe("news")
    for browser in browsers:
        error = browser.expect_error()
        assert error == {"code": 4200, "message": "The server is stopping, connect again"}
        closed = browser.expect_closed()
        assert (closed.code, closed.reason) == (4200, error["message"])


def test_stopping_does_not_wait_for_peers_that_do_not_close(
    app: Flask, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (server_room, connection_room):
        monkeypatch.setattr(room, "CLOSE_SECONDS", 0.2)
    server = local_server(app)
    silent = connect()
    half = socket.create_connection((server.host, server.port))
    half.sendall(b"GET /app/x HTTP/1.1\r\n")
    posting = socket.create_connection((server.host, server.port))
    posting.sendall(b"POST /apps/3/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
    stream = socket.create_connection((server.host, server.port))
    stream.sendall(b"GET /page/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200 OK" in stream.recv(1000)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 20
    for peer in (half, posting, stream):
        peer.close()
    assert silent.until_closed().code == 4200


def test_a_port_in_use_is_an_error_that_names_it(app: Flask, client: Client) -> None:
    before, threads = client.address, set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"Cannot listen on 127.0.0.1 port {port}: ") as raised:
            local_server(app, port=port)
    assert raised.value.errno == errno.EADDRINUSE
    assert client.address == before
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_a_host_that_is_not_this_machine_is_an_error_that_names_it(app: Flask, host: str) -> None:
    with pytest.raises(OSError, match=f"Cannot listen on {host} port 0: "):
        local_server(app, host)


def test_without_its_extra_it_says_what_to_install(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("_flask_pusher.local.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    for start in (local_server, serve):
        with pytest.raises(ImportError) as raised:
            start(app)
        assert str(raised.value) == (
            'The local server needs aiohttp: pip install "Flask-Pusher[local]"'
        )


def test_importing_it_imports_nothing_that_takes_long() -> None:
    script = (
        "import sys, flask, pusher; before = set(sys.modules); import _flask_pusher.local;"
        "print(*sorted(set(sys.modules) - before))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    house = "_flask_pusher"
    mine = [f"{house}.local{room}" for room in ("", ".options", ".views")]
    assert said.stdout.split() == [house, *mine, f"{house}.rules"]


def test_an_extension_in_place_of_the_application_is_an_error_that_says_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"as local_server\(app\), and not a Pusher$"):
        local_server(Pusher())  # type: ignore[arg-type]


def test_an_application_without_the_extension_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="'bare' has no Flask-Pusher extension"):
        local_server(Flask("bare"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # asyncio's own
def test_a_thread_that_cannot_start_is_an_error_for_the_caller(app: Flask, client: Client) -> None:
    """An event loop needs three files; here is room for one socket and one more."""
    before, threads = client.address, set(threading.enumerate())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 2, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            local_server(app)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    eventually(lambda: set(threading.enumerate()) <= threads)
    assert client.address == before
    gc.collect()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "reached_at"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104
        ("", "127.0.0.1"),
        *([("::1", "[::1]"), ("::", "[::1]")] if has_ipv6() else []),  # few containers have it
    ],
)
def test_a_server_is_reached_at_its_host(
    app: Flask, client: Client, host: str, reached_at: str
) -> None:
    with local_server(app, host) as server:
        assert server.host == reached_at
        assert client.trigger("news", "e", {}) == {}


def test_servers_of_two_applications_know_their_own_credentials_only(app: Flask) -> None:
    from flask_pusher import Pusher

    other = Flask("other")
    other.config.update(PUSHER_APP_ID="4", PUSHER_KEY="other", PUSHER_SECRET="x")
    Pusher(other)
    with local_server(app), local_server(other):
        ours, theirs = app.extensions["pusher"], other.extensions["pusher"]
        assert ours.port != theirs.port
        assert ours.trigger("news", "e", {}) == theirs.trigger("news", "e", {}) == {}
        browser = Browser(("127.0.0.1", ours.port), "/app/other?protocol=7")
        assert browser.expect_error()["code"] == 4001
        browser.close()


def test_starting_and_stopping_many_times_leaves_nothing(app: Flask, client: Client) -> None:
    def once(leaves: bool) -> None:
        with local_server(app) as server:
            path = f"/app/{KEY}?protocol=7"
            browser = Browser((server.host, server.port), path).established()
            browser.subscribe("news")
            if leaves:
                browser.close()
        if not leaves:
            assert browser.until_closed().code == 4200
            browser.close()

    once(leaves=True)
    gc.collect()  # what other tests have left
    threads, files = set(threading.enumerate()), open_files()
    for number in range(50):
        once(leaves=number % 10 > 0)
    assert set(threading.enumerate()) <= threads
    assert open_files() == files
    assert client.port == 443


@pytest.mark.parametrize("when", ["2000-01-01", "2050-01-01"])
def test_waiting_ends_where_a_test_has_frozen_the_time(when: str) -> None:
    app, pusher = Flask(__name__), Pusher()
    app.config.update(PUSHER_APP_ID=APP_ID, PUSHER_KEY=KEY, PUSHER_SECRET=SECRET)
    pusher.init_app(app)
    pusher.webhooks.event("channel_occupied")(lambda event: None)
    with freeze_time(when), local_server(app, webhooks=True) as server:
        with pytest.raises(TimeoutError):
            server.wait_for("news", timeout=0.05)
        browser = Browser((server.host, server.port), f"/app/{KEY}?protocol=7").established()
        browser.subscribe("news")
        server.wait_for("news")
        assert server.wait_for_webhook("channel_occupied", "news", timeout=20)
        browser.close()


def test_its_time_passes_where_it_is_imported_when_the_time_is_frozen() -> None:
    """As where a fixture that freezes it comes before the one that imports the application."""
    program = f"""from freezegun import freeze_time
with freeze_time("2000-01-01"):
    from flask import Flask
    from flask_pusher import Pusher, local_server
    app = Flask("app")
    app.config.update(PUSHER_APP_ID={APP_ID!r}, PUSHER_KEY={KEY!r}, PUSHER_SECRET={SECRET!r})
    pusher = Pusher(app)
    pusher.webhooks.event("channel_occupied")(lambda event: None)
    with local_server(app, webhooks=True) as server:
        from tests.local.peers import Browser
        browser = Browser((server.host, server.port), "/app/{KEY}?protocol=7").established()
        browser.subscribe("news")
        print(server.wait_for_webhook("channel_occupied", "news", timeout=20)["channel"])
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "news\n"


def test_it_is_the_extensions_client_that_points_at_it(app: Flask, client: Client) -> None:
    """The application may have put an object of its own in its place."""

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

    app.extensions["pusher"] = Counting()
    before = client.address
    with local_server(app) as server:
        assert client.address == (server.host, server.port, False)
        assert app.extensions["pusher"].trigger("news", "e", {}) == {}
    assert client.address == before


def test_it_works_from_a_zip_file(tmp_path: Path) -> None:
    """As a wheel is one, which few put on the path, but packers of applications do."""
    here, house = Path(__file__).parents[2], tmp_path / "house.zip"
    with zipfile.ZipFile(house, "w") as packed:
        packed.write(here / "flask_pusher.py", "flask_pusher.py")
        for file in (here / "_flask_pusher").rglob("*"):
            if "__pycache__" not in file.parts:
                packed.write(file, file.relative_to(here))
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", ZIPPED],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(house), "NO_PROXY": "*"},
    )
    where, *statuses = said.stdout.split()
    assert where.startswith(str(house))
    assert statuses == ["200", "200", "200"]


ZIPPED = """
import requests
from flask import Flask
import flask_pusher

app = Flask("example")
app.config.update(PUSHER_APP_ID="3", PUSHER_KEY="a-key", PUSHER_SECRET="a-secret")
flask_pusher.Pusher(app)
print(flask_pusher.__file__)
with flask_pusher.local_server(app) as server:
    for path in ("/", "/page.js", "/page.css"):
        print(requests.get(server.url + path, timeout=20).status_code)
"""


# In the foreground

ELSEWHERE = "WARNING: the application's settings point at"
SCRIPT = """
import sys
from flask import Flask
from flask_pusher import Pusher
from _flask_pusher.local import serve

app = Flask("example")
app.config.update(PUSHER_APP_ID="3", PUSHER_KEY="a-key", PUSHER_SECRET="a-secret")
app.config.from_prefixed_env("EXAMPLE")
Pusher(app)
serve(app, **eval(sys.argv[1]))
"""


class Terminal:
    """A process that serves, and the lines that it prints."""

    def __init__(self, env: dict[str, str] | None = None, **arguments: object) -> None:
        here = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SCRIPT, repr(arguments)],
            bufsize=0,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONIOENCODING": "ascii",
                "PYTHONPATH": str(here),
                **(env or {}),
            },
        )
        self.lines: list[str] = []

    def until(self, pattern: str) -> str:
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline().decode("ascii")
            assert line, (self.lines, self.process.communicate())
            self.lines.append(line.rstrip("\n"))
            if re.search(pattern, line):
                return line

    def serving(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.until("PUSHER_PORT = ").split("=")[1])

    def stop(self, number: int = signal.SIGINT) -> str:
        self.process.send_signal(number)
        return self.output()

    def output(self) -> str:
        out, err = self.process.communicate(timeout=30)
        self.lines += out.decode("ascii").splitlines()
        return err.decode()


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    terminals: list[Terminal] = []
    yield terminals
    for terminal in terminals:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.output()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serving_tells_what_happens_and_stops_cleanly(
    terminals: list[Terminal], number: int
) -> None:
    terminal = Terminal(port=0)
    terminals.append(terminal)
    address = terminal.serving()
    terminal.until("Ctrl-C")
    browser = Browser(address, f"/app/{KEY}?protocol=7&client=js&version=%C3%A9").established()
    browser.subscribe("news")
    browser.ask_to_subscribe("private-x", auth="nonsense")
    error = browser.expect("pusher:subscription_error")[1]["error"]
    assert terminal.stop(number) == ""
    assert browser.until_closed().code == 4200
    browser.close()
    assert terminal.process.returncode == 0
    port, socket_id = address[1], browser.socket_id
    assert terminal.lines[:8] == [
        f"A local Channels server for the application 'example' runs at http://127.0.0.1:{port},",
        "for app 3, key a-key. Do not use it in production.",
        f"{ELSEWHERE} https://api.pusherapp.com:443. Point them here with",
        '  PUSHER_HOST = "127.0.0.1"',
        f"  PUSHER_PORT = {port}",
        "  PUSHER_SSL = False",
        "It posts webhooks nowhere, having no URL for them.",
        f"What happens is shown at http://127.0.0.1:{port}/ too. Press Ctrl-C to stop.",
    ]
    happened = [line.split(maxsplit=1)[1] for line in terminal.lines[8:-1]]
    assert happened == [
        f"connect     {socket_id} from 127.0.0.1 (js \\xe9)",
        f"subscribe   {socket_id} to news",
        f"refused     {socket_id}: subscription to private-x: {error}",
        f"close       {socket_id}: The server is stopping, connect again (4200)",
        f"unsubscribe {socket_id} from news",
        f"disconnect  {socket_id}",
    ]
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in terminal.lines[8:-1])
    assert terminal.lines[-1] == "Stopped."
    assert SECRET not in "\n".join(terminal.lines)


def test_serving_quietly_tells_only_how_to_reach_it(terminals: list[Terminal]) -> None:
    terminal = Terminal(port=0, quiet=True, webhooks="http://127.0.0.1:9")
    terminals.append(terminal)
    browser = Browser(terminal.serving(), f"/app/{KEY}?protocol=7").established()
    browser.subscribe("news")
    assert terminal.stop() == ""
    browser.close()
    assert len(terminal.lines) == 9
    assert "It posts webhooks to http://127.0.0.1:9/pusher/events." in terminal.lines


def test_it_serves_where_the_settings_point(terminals: list[Terminal], closed_port: int) -> None:
    port = str(closed_port)
    settings = {"PUSHER_HOST": "localhost", "PUSHER_PORT": port, "PUSHER_SSL": "false"}
    terminals.append(Terminal({f"EXAMPLE_{key}": value for key, value in settings.items()}))
    terminals[0].until("Ctrl-C")
    address = f"http://localhost:{port}"
    assert terminals[0].lines == [
        f"A local Channels server for the application 'example' runs at {address},",
        "for app 3, key a-key. Do not use it in production.",
        "The application's settings point at it.",
        "It posts webhooks nowhere, having no URL for them.",
        f"What happens is shown at {address}/ too. Press Ctrl-C to stop.",
    ]
    assert terminals[0].stop() == ""


@pytest.mark.parametrize(
    ("settings", "is_here"),
    [
        (("127.0.0.1", 6001, False), True),
        (("localhost", 6001, False), True),
        (("[::1]", 6001, False), True),
        (("127.0.0.1", 6001, True), False),
        (("127.0.0.1", 6002, False), False),
        (("192.0.2.1", 6001, False), False),
        (("api-eu.pusher.com", 443, True), False),
    ],
)
def test_settings_point_here_by_whichever_name_of_this_machine(
    settings: tuple[str, int, bool], is_here: bool
) -> None:
    assert options.is_same_place(settings, ("127.0.0.1", 6001, False)) == is_here


@pytest.mark.parametrize(
    ("settings", "given", "place"),
    [
        (("127.0.0.1", 6002, False), (None, None), ("127.0.0.1", 6002)),
        (("[::1]", 6002, False), (None, None), ("::1", 6002)),
        (("localhost", 6002, True), ("0.0.0.0", None), ("0.0.0.0", 6002)),  # noqa: S104
        (("localhost", 6002, True), (None, 0), ("localhost", 0)),
        (("api-eu.pusher.com", 443, True), (None, None), ("127.0.0.1", 6001)),
        (("192.0.2.1", 6002, False), (None, 7000), ("127.0.0.1", 7000)),
    ],
)
def test_a_place_that_was_not_told_is_the_settings_if_it_is_this_machine(
    client: Client,
    settings: tuple[str, int, bool],
    given: tuple[str | None, int | None],
    place: tuple[str, int],
) -> None:
    client.address = settings
    assert options.place(client, *given) == place


def test_serving_on_every_address_is_warned_of(terminals: list[Terminal]) -> None:
    terminal = Terminal(host="0.0.0.0", port=0)  # noqa: S104
    terminals.append(terminal)
    terminal.until("WARNING: it listens on 0.0.0.0, where others can reach it")
    assert '  PUSHER_HOST = "127.0.0.1"' in terminal.lines
    assert terminal.stop() == ""


def test_serving_goes_on_when_nobody_reads_what_it_prints(terminals: list[Terminal]) -> None:
    terminal = Terminal(port=0)
    terminals.append(terminal)
    address = terminal.serving()
    terminal.until("Ctrl-C")
    assert terminal.process.stdout is not None
    assert terminal.process.stderr is not None
    terminal.process.stdout.close()
    for _ in range(2):
        browser = Browser(address, f"/app/{KEY}?protocol=7").established()
        browser.subscribe("news")
        browser.close()
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(f"http://127.0.0.1:{address[1]}/", timeout=20).status_code == 200
    terminal.process.terminate()
    assert b"Traceback" not in terminal.process.stderr.read()
    terminal.process.stderr.close()
    terminal.process.wait(20)


def test_serving_goes_on_when_nobody_empties_the_pipe(terminals: list[Terminal]) -> None:
    terminal = Terminal(port=0)
    terminals.append(terminal)
    address = terminal.serving()
    terminal.until("Ctrl-C")
    browser = Browser(address, f"/app/{KEY}?protocol=7").established()
    for number in range(3000):  # 300 kB; a pipe holds 64
        browser.send("nonsense" + "x" * 50 + str(number))
        browser.expect_error()
    browser.close()
    terminal.until("[0-9]+ lines are missing here: they were not read in time.")
    assert terminal.stop() == ""
    assert terminal.lines[-1] == "Stopped."


def test_stopping_goes_on_when_nobody_empties_the_pipe(terminals: list[Terminal]) -> None:
    terminal = Terminal(port=0)
    terminals.append(terminal)
    address = terminal.serving()
    terminal.until("Ctrl-C")
    browser = Browser(address, f"/app/{KEY}?protocol=7").established()
    for _ in range(3000):
        browser.send("nonsense" + "x" * 50)
        browser.expect_error()
    terminal.process.terminate()
    assert browser.until_closed().code == 4200
    browser.close()
    assert terminal.process.wait(20) == 0
    assert terminal.output() == ""


@pytest.mark.parametrize(("host", "quiet"), [("", False), ("127.0.0.1", True)])
def test_serving_in_this_process_gives_the_signals_back(
    app: Flask, client: Client, capsys: pytest.CaptureFixture[str], host: str, quiet: bool
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def visit_and_stop() -> None:
        eventually(lambda: client.port != 443)
        browser = Browser(("127.0.0.1", client.port), f"/app/{KEY}?protocol=7").established()
        browser.close()
        assert signal.getsignal(signal.SIGTERM) != before[1]
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=visit_and_stop)
    thread.start()
    serve(app, host=host, port=0, quiet=quiet)
    thread.join()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    out, err = capsys.readouterr()
    assert out.endswith("Stopped.\n")
    warning = "WARNING: it listens on every address, where others can reach it."
    assert (warning in out) == (host == "")
    assert (" connect " in out) == (not quiet)
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ({"host": "192.0.2.1"}, OSError, r"Cannot listen on 192\.0\.2\.1 port 6001: [^(]*$"),
        ({"port": 65536}, ValueError, "port is from 0 to 65535, not 65536"),
        ({"webhooks": ["localhost:5000"]}, ValueError, "'localhost:5000' is not a URL"),
        ({"private_key": "key.pem"}, ValueError, "A private key needs its certificate"),
        ({"certificate": "no-such.pem"}, OSError, "Cannot use the certificate no-such.pem: No "),
    ],
)
def test_serving_what_cannot_be_served_raises_and_prints_nothing(
    app: Flask,
    capsys: pytest.CaptureFixture[str],
    arguments: dict[str, Any],
    error: type[Exception],
    reason: str,
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(error, match=reason):
        serve(app, **arguments)
    assert signal.getsignal(signal.SIGTERM) == before
    assert capsys.readouterr().out == ""


def test_serving_on_a_port_in_use_raises_and_prints_nothing(
    app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="Cannot listen on") as raised,
    ):
        serve(app, port=taken.getsockname()[1])
    assert raised.value.errno == errno.EADDRINUSE
    assert capsys.readouterr().out == ""

"""Publishing, by this extension's client and by the official one that it is made of."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pusher
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import EnvironBuilder

from _flask_pusher.publisher import publisher
from benchmarks.channels_api import ChannelsApi
from benchmarks.load import Api, Load, get, load, running_api, running_worker, settings_for
from benchmarks.measuring import Ratio, Report, compare
from flask_pusher import NoAnswer, Pusher

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

APP_ID, KEY, SECRET = "1", "a-key", "a-secret"
THREADS, EVENTS = 32, 20
DATA = {"order": 7, "by": "truck"}
LINK_SECONDS = 0.02
TIMEOUT_SECONDS = 5
LOAD_ROUNDS, LOAD_SECONDS = 8, 1


def by_hand(api: ChannelsApi) -> pusher.Pusher:
    return pusher.Pusher(APP_ID, KEY, SECRET, host="127.0.0.1", port=api.port, ssl=False)


def by_extension(api: ChannelsApi | Api) -> tuple[Flask, Pusher]:
    app = Flask("by_extension")
    app.config.update(
        PUSHER_APP_ID=APP_ID,
        PUSHER_KEY=KEY,
        PUSHER_SECRET=SECRET,
        PUSHER_HOST="127.0.0.1",
        PUSHER_PORT=api.port,
        PUSHER_SSL=False,
        PUSHER_TIMEOUT=TIMEOUT_SECONDS,
    )
    return app, Pusher(app)


def measure_cost(report: Report) -> None:
    with ChannelsApi() as api:
        hand, ours = by_hand(api), by_extension(api)[0].extensions["pusher"]

        def trigger(client: pusher.Pusher) -> Callable[[], object]:
            return lambda: client.trigger("private-orders", "shipped", DATA)

        ratio = compare(trigger(hand), trigger(ours), seconds=20)
        report.ratio("an event / by the official client", ratio, 0.65)


def measure_connections(report: Report) -> None:
    for name, bound in (("the official client", None), ("this extension", THREADS)):
        with ChannelsApi() as api:
            api.round_trip = LINK_SECONDS
            ours = by_extension(api)[0].extensions["pusher"]
            publish_in_threads(by_hand(api) if bound is None else ours)
            report.number(f"connections of {THREADS} threads with {name}", api.connections, bound)
            report.fact(
                f"each of their {THREADS * EVENTS} events came once",
                sorted(api.events)
                == sorted(f"{t}-{n}" for t in range(THREADS) for n in range(EVENTS)),
            )


def publish_in_threads(client: pusher.Pusher) -> None:
    ready = threading.Barrier(THREADS)

    def publish(thread: int) -> None:
        ready.wait()
        for n in range(EVENTS):
            client.trigger("private-orders", f"{thread}-{n}", DATA)

    threads = [threading.Thread(target=publish, args=[n]) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure_drops(report: Report) -> None:
    names = [f"event-{n}" for n in range(100)]
    with ChannelsApi() as api:
        client = by_extension(api)[0].extensions["pusher"]
        for name in names:
            client.trigger("private-orders", name, DATA)
            api.drop_connections()
        report.fact("connections dropped when idle lost and doubled nothing", api.events == names)
    with ChannelsApi() as api:
        client = by_extension(api)[0].extensions["pusher"]
        api.answers = False
        told = [name for name in names if is_told(client, name)]
        report.fact("where no answer comes, the caller is told each time", told == names)
        twice = [name for name in names for _ in range(2)]
        report.fact("and each is tried once more, on a new connection", api.events == twice)


def is_told(client: pusher.Pusher, name: str) -> bool:
    try:
        client.trigger("private-orders", name, DATA)
    except NoAnswer:
        return True
    return False


def measure_deferring(report: Report) -> None:
    with ChannelsApi() as api, serving(api) as port:
        api.round_trip = LINK_SECONDS
        spent: dict[str, list[float]] = {"nothing": [], "trigger": [], "defer": []}
        for _ in range(40):
            for what, found in spent.items():
                found.append(seconds_to_last_byte(port, what))
                wait_for(api, 0 if what == "nothing" else 5)
                api.forget()
    medians = {what: statistics.median(found) for what, found in spent.items()}
    for what, bound in (("trigger", None), ("defer", 0.1)):
        trips = (medians[what] - medians["nothing"]) / LINK_SECONDS
        report.number(f"round trips that a user waits for 5 of {what}", round(trips, 3), bound)


@contextmanager
def serving(api: ChannelsApi) -> Iterator[int]:
    """The port of an application that publishes five events, or none, and answers."""
    app, extension = by_extension(api)

    @app.get("/<what>")
    def order(what: str) -> str:
        if what not in ("nothing", "trigger", "defer"):
            extension.defer(f"orders-{what}", f"event-{what}", DATA)
            return "shipped"
        ways = {"trigger": extension.client.trigger, "defer": extension.defer}
        for n in range(5 if what in ways else 0):
            ways[what]("private-orders", f"event-{n}", DATA)
        return "shipped"

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def seconds_to_last_byte(port: int, what: str) -> float:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        start = time.perf_counter()
        connection.sendall(f"GET /{what} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"shipped"):
            answer += connection.recv(4096) or b"the connection ended before: shipped"
        return time.perf_counter() - start


def wait_for(api: ChannelsApi, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(api.events) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} events should have come; there came {api.events}.")
        time.sleep(0.001)


def measure_load(report: Report) -> None:
    """Each round of a view that defers stands between two of the one that publishes nothing."""
    bounds = {"/100": 0.6, "/1": 0.3}
    loads: dict[str, list[Load]] = {path: [] for path in bounds}
    ratios: dict[str, list[float]] = {path: [] for path in bounds}
    with running_api(LINK_SECONDS) as api, running_worker(api) as port:
        load(port, api, "/100", 0.5)
        before = load(port, api, "/nothing", LOAD_SECONDS)
        for _ in range(LOAD_ROUNDS):
            for path, found in loads.items():
                one = load(port, api, path, LOAD_SECONDS)
                after = load(port, api, "/nothing", LOAD_SECONDS)
                found.append(one)
                ratios[path].append(one.rate / (before.rate + after.rate) * 2)
                before = after
        trips = statistics.median(seconds_behind_the_answer(port, api) for _ in range(40))
    for path, found in loads.items():
        what = f"requests that defer to {path[1:]} channels / that publish nothing"
        report.ratio(what, Ratio.of(ratios[path]), least=bounds[path])
        report.fact("and each event came once, in order", all(one.is_complete for one in found))
        calls, events = sum(one.calls for one in found), sum(len(one.events) for one in found)
        report.number("calls of the API for an event", round(calls / events, 3), 0.2)
    report.number(
        "round trips from an idle worker's response to the API's",
        round(1 + trips / LINK_SECONDS, 3),
        1.5,
    )


def seconds_behind_the_answer(port: int, api: Api) -> float:
    """How long after the response the API is asked."""
    api.take()
    time.sleep(2 * LINK_SECONDS)
    get(port, "/100")
    start = time.perf_counter()
    while not api.count():
        pass
    return time.perf_counter() - start


def measure_hanging(report: Report) -> None:
    with ChannelsApi() as api, serving(api) as port:
        api.hangs = "event-hangs"
        seconds_to_last_byte(port, "hangs")
        wait_for(api, 1)
        start = time.monotonic()
        for number in range(100):
            seconds_to_last_byte(port, f"passes-{number}")
        wait_for(api, 101)
        is_hanging_still = time.monotonic() - start < TIMEOUT_SECONDS
        report.fact("a call that hangs delays no other channel", is_hanging_still)
        api.hangs = ""
        publisher().flush()


def measure_jobs(report: Report) -> None:
    """A round trip is what one call takes, in the same run."""
    with running_api(LINK_SECONDS) as api:
        app, extension = by_extension(api)
        trip = statistics.median(seconds_of_a_trigger(app.extensions["pusher"]) for _ in range(40))
        api.take()
        start = time.monotonic()
        with app.app_context():
            for number in range(2000):
                extension.defer(f"orders-{number % 100}", f"event-{number}", DATA)
        trips = (time.monotonic() - start) / trip
        report.number("round trips that a job waits for its 2,000 events", round(trips), 60)
        report.fact("and each came once", api.count() == 2000)
        with app.app_context():
            start = time.monotonic()
            for number in range(200):
                extension.trigger("orders", f"event-{number}", DATA, wait=False)
            trips = (time.monotonic() - start) / 200 / trip
        report.number("round trips that a caller waits for wait=False", round(trips, 4), 0.1)
        publisher().flush()


def seconds_of_a_trigger(client: pusher.Pusher) -> float:
    start = time.monotonic()
    client.trigger("orders", "event", DATA)
    return time.monotonic() - start


SCRIPT = """
import time
from flask import Flask
from flask_pusher import Pusher
app = Flask("script")
app.config.update(PUSHER_APP_ID="1", PUSHER_KEY="key", PUSHER_SECRET="secret",
                  PUSHER_HOST="127.0.0.1", PUSHER_PORT=1, PUSHER_SSL=False)
pusher = Pusher(app)
print(time.time(), flush=True)
with app.app_context():
    pusher.defer("orders", "shipped", {})
"""


def measure_end(report: Report) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=False, capture_output=True, text=True
    )
    seconds = time.time() - float(done.stdout)
    report.number("seconds that a script without a server ends later", round(seconds, 2), 2.5)
    report.fact("and it says what was lost, and why", "The process ended" in done.stderr)


def measure_reload(report: Report) -> None:
    seconds = seconds_of_a_reload("/1") - seconds_of_a_reload("/nothing")
    report.number("seconds that a reload without a server takes longer", round(seconds, 2), 3)


def seconds_of_a_reload(path: str) -> float:
    """How long ``flask run`` takes to serve a changed application, which has answered at a path."""
    with TemporaryDirectory() as folder, running_flask(Path(folder) / "watched") as port:
        while True:
            with suppress(OSError):  # it starts
                get(port, "/nothing")
                break
        get(port, path)
        os.utime(Path(folder) / "watched", (time.time() + 60, time.time() + 60))
        start = time.monotonic()
        is_new = False
        while not is_new:
            with suppress(OSError):
                is_new = get(port, "/nothing") == 0
        return time.monotonic() - start


@contextmanager
def running_flask(watched: Path) -> Iterator[int]:
    watched.touch()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    command = [
        *(sys.executable, "-m", "flask", "--app", "benchmarks.load:create_app", "run", "--reload"),
        *("--extra-files", str(watched), "--port", str(port)),
    ]
    environ = {**os.environ, **settings_for(1)}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environ, start_new_session=True, **quiet)
    try:
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def measure_neighbours(report: Report) -> None:
    """Of 20 events that a quiet application publishes, how long the middle one took."""
    for what, seconds in (("busy", 4 * LINK_SECONDS), ("silent", 3.0)):
        with ChannelsApi() as api, ChannelsApi() as others:
            api.round_trip = others.round_trip = LINK_SECONDS
            others.hangs = "" if what == "busy" else "event"
            quiet, noisy = by_extension(api), by_extension(others)
            took = sorted(seconds_beside(api, quiet, noisy) for _ in range(20))
            report.fact(f"all events of a quiet application beside a {what} one", len(took) == 20)
            report.number("the seconds that the middle one took", round(took[10], 3), seconds)
            others.hangs = ""
            publisher().flush()


def seconds_beside(
    api: ChannelsApi, quiet: tuple[Flask, Pusher], noisy: tuple[Flask, Pusher]
) -> float:
    api.forget()
    for number in range(40):
        with noisy[0].app_context():
            noisy[1].trigger(f"orders-{number}", "event", DATA, wait=False)
    start = time.monotonic()
    with quiet[0].app_context():
        quiet[1].trigger("orders", "quiet", DATA, wait=False)
    wait_for(api, 1)
    took = time.monotonic() - start
    time.sleep(0.1)
    return took


def measure_middleware(report: Report) -> None:
    with ChannelsApi() as api:
        app, _ = by_extension(api)
        watched = app.wsgi_app

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            return ()

        app.extensions["flask_pusher"].outboxes.wsgi_app = answer
        environ = EnvironBuilder().get_environ()

        def start(status: str, headers: object, exc_info: object = None) -> Callable[..., object]:
            return print

        count = 10_000
        spent: dict[WSGIApplication, float] = {watched: 0.0, answer: 0.0}
        for _ in range(10):
            for wsgi in spent:
                began = time.thread_time()
                for _ in range(count):
                    wsgi(environ, start)
                spent[wsgi] += time.thread_time() - began
        cost = (spent[watched] - spent[answer]) / 10 / count
        report.number("microseconds for a request that defers nothing", round(cost * 1e6, 2))


def main() -> None:
    report = Report("Publishing: this extension, and the official client")
    measure_cost(report)
    measure_connections(report)
    measure_drops(report)
    measure_deferring(report)
    measure_load(report)
    measure_hanging(report)
    measure_jobs(report)
    measure_end(report)
    measure_reload(report)
    measure_neighbours(report)
    measure_middleware(report)
    report.exit()


if __name__ == "__main__":
    main()

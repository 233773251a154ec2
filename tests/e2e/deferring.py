"""An application whose every view defers an event of the name ``shipped``, or several, for real
servers to run: its settings are FLASK_PUSHER_*.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from io import BytesIO

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    after_this_request,
    copy_current_request_context,
    g,
    send_file,
    stream_with_context,
)
from flask.typing import ResponseReturnValue

from flask_pusher import Pusher

WAIT_SECONDS = 30

pusher = Pusher()
views = Blueprint("views", __name__)


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_prefixed_env()
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


@views.get("/found-by-teardown/<int:status>")
def found_by_teardown(status: int) -> ResponseReturnValue:
    g.defers_in_teardown = True
    return "An answer", status


@views.get("/teardown-fails")
def teardown_fails() -> ResponseReturnValue:
    ship()
    g.fails_in_teardown = True
    return "An answer"


@views.teardown_request
def teardown(error: BaseException | None) -> None:
    if g.get("defers_in_teardown"):
        ship()
    if g.get("fails_in_teardown"):
        raise LookupError("the commit failed")


@views.get("/thread/<int:status>")
def copied_into_a_thread(status: int) -> ResponseReturnValue:
    thread = threading.Thread(target=copy_current_request_context(ship))
    thread.start()
    thread.join()
    return "An answer", status


@views.get("/pool/<int:status>")
def copied_into_a_pool(status: int) -> ResponseReturnValue:
    with ThreadPoolExecutor() as pool:
        pool.submit(copy_context().run, ship).result()
    return "An answer", status


may_go_on = threading.Event()


@views.get("/works-on-in-a-thread")
def works_on_in_a_thread() -> ResponseReturnValue:
    may_go_on.clear()
    threading.Thread(target=copy_current_request_context(work_on)).start()
    return "An answer"


@views.get("/works-on-in-a-pool")
def works_on_in_a_pool() -> ResponseReturnValue:
    may_go_on.clear()
    threading.Thread(target=copy_context().run, args=[work_on]).start()
    return "An answer"


def work_on() -> None:
    assert may_go_on.wait(WAIT_SECONDS)
    ship("later")


@views.get("/go-on")
def go_on() -> ResponseReturnValue:
    may_go_on.set()
    return "An answer"


@views.get("/endless")
def endless() -> ResponseReturnValue:
    ship()

    def parts() -> Iterator[str]:
        while True:
            yield "An answer" * 1000

    return Response(parts())

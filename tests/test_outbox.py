"""When deferred events leave: the table of ``defer``, row by row."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from contextvars import Context, copy_context
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import Result
from flask import (
    Flask,
    Response,
    abort,
    after_this_request,
    copy_current_request_context,
    g,
    request,
    send_file,
    session,
    stream_with_context,
)
from flask.signals import request_started
from flask.testing import FlaskClient
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import StaticPool
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client as WsgiClient
from werkzeug.test import EnvironBuilder, run_wsgi_app
from werkzeug.wsgi import FileWrapper

from _flask_pusher import outbox as room
from _flask_pusher import publisher as publisher_room
from _flask_pusher.publisher import publisher
from flask_pusher import Pusher, publish_failed

if TYPE_CHECKING:
    from tests.conftest import MakeApp


@pytest.fixture
def pusher(app: Flask, api: Any) -> Pusher:
    app.config["PUSHER_ENCRYPTION_MASTER_KEY_BASE64"] = "A" * 43 + "="
    return Pusher(app)


class Kept:
    """Middleware that keeps the body that the server is given."""

    def __init__(self, application: Any) -> None:
        self.application = application

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self.body = self.application(environ, start_response)
        return self.body


def leave_by_click(exit_code: int) -> Callable[[], None]:
    def leave() -> None:
        raise click.exceptions.Exit(exit_code)

    return leave


def in_a_pool(function: Callable[[], Any]) -> Callable[[], Any]:
    """As an executor's worker runs a function in a copy of the context."""
    context = copy_context()

    def run() -> None:
        with ThreadPoolExecutor() as pool:
            pool.submit(context.run, function).result()

    return run


def names(api: Any) -> list[str]:
    """The names of the events that have left, when the API has them all."""
    publisher().flush()
    return [name for _, name, _ in api.events]


class TestInARequest:
    def test_events_leave_when_the_response_is_closed(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.post("/")
        def view() -> str:
            pusher.defer("a", "one", {"n": 1}, "1.2")
            return "done"

        answer = browser.post("/")
        assert answer.text == "done"
        assert names(api) == []
        answer.close()
        assert names(api) == ["one"]
        assert api.events == [("a", "one", {"n": 1})]
        assert api.calls[0].body["socket_id"] == "1.2"

    @pytest.mark.parametrize("status", [200, 201, 204, 302, 304])
    def test_a_success_publishes(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, status: int
    ) -> None:
        @app.route("/")
        def view() -> tuple[str, int]:
            pusher.defer("a", "one", {})
            return "", status

        browser.get("/").close()
        browser.head("/").close()
        assert names(api) == ["one", "one"]

    @pytest.mark.parametrize("status", [400, 403, 404, 499, 500, 503])
    def test_an_error_status_publishes_nothing(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, status: int
    ) -> None:
        @app.get("/")
        def view() -> tuple[str, int]:
            pusher.defer("a", "one", {})
            return "", status

        browser.get("/").close()
        assert names(api) == []

    @pytest.mark.parametrize("propagate", [True, False])
    def test_an_exception_publishes_nothing(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, propagate: bool
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = propagate

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            raise KeyError

        if propagate:
            with pytest.raises(KeyError):
                browser.get("/")
        else:
            browser.get("/").close()
        assert names(api) == []

    def test_an_abort_publishes_nothing(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            abort(409)

        browser.get("/").close()
        assert names(api) == []

    def test_an_error_that_is_handled_well_publishes(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            raise KeyError

        app.register_error_handler(KeyError, lambda error: "never mind")
        browser.get("/").close()
        assert names(api) == ["one"]

    def test_a_request_that_fails_does_not_publish_with_the_context_around_it(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/")
        def view() -> tuple[str, int]:
            pusher.defer("a", "one", {})
            return "", 500

        with app.app_context():
            browser.get("/").close()
        assert names(api) == []

    def test_what_comes_after_the_view_is_published_too(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.after_request
        def after(response: Response) -> Response:
            pusher.defer("a", "after_request", {})
            return response

        @app.teardown_request
        def teardown(error: BaseException | None) -> None:
            pusher.defer("a", "teardown", {})

        @app.get("/")
        def view() -> str:
            @after_this_request
            def after_this(response: Response) -> Response:
                pusher.defer("a", "after_this_request", {})
                return response

            pusher.defer("a", "view", {})
            return ""

        browser.get("/").close()
        assert names(api) == ["view", "after_this_request", "after_request", "teardown"]

    def test_a_context_inside_a_request_is_part_of_it(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/<int:status>")
        def view(status: int) -> tuple[str, int]:
            with app.app_context():
                pusher.defer("a", "inside", {})
            return "", status

        browser.get("/500").close()
        assert names(api) == []
        browser.get("/200").close()
        assert names(api) == ["inside"]

    def test_another_applications_context_inside_a_request_is_its_own(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, make_app: MakeApp
    ) -> None:
        other = make_app(pusher, **api.config, PUSHER_APP_ID="2")

        @app.get("/")
        def view() -> tuple[str, int]:
            with other.app_context():
                pusher.defer("a", "other", {})
            assert names(api) == ["other"]
            return "", 500

        browser.get("/").close()
        assert [call.path for call in api.calls] == ["/apps/2/events"]

    def test_a_handler_of_a_request_that_found_no_route_may_defer(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        app.before_request(lambda: pusher.defer("a", "lost", {}))
        app.register_error_handler(404, lambda error: "found after all")
        browser.get("/nowhere").close()
        assert names(api) == ["lost"]

    def test_a_handler_of_a_missing_page_may_defer_for_another_application(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, make_app: MakeApp
    ) -> None:
        other = make_app(pusher, **api.config, PUSHER_APP_ID="2")

        @app.errorhandler(404)
        def missing(error: Exception) -> tuple[str, int]:
            with other.app_context():
                pusher.defer("a", "missed", {})
            return "", 404

        browser.get("/nowhere").close()
        assert names(api) == ["missed"]
        assert api.calls[0].path == "/apps/2/events"

    @pytest.mark.parametrize("status", [200, 404])
    @pytest.mark.parametrize("kind", ["teardown_request", "teardown_appcontext"])
    def test_the_first_event_may_come_from_teardown(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, kind: str, status: int
    ) -> None:
        getattr(app, kind)(lambda error: pusher.defer("a", "torn down", {}))
        app.add_url_rule("/", view_func=lambda: ("", status))
        browser.get("/").close()
        assert names(api) == ["torn down"] * (status == 200)

    @pytest.mark.parametrize("kind", ["teardown_request", "teardown_appcontext"])
    def test_a_teardown_function_that_raises_publishes_nothing(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, kind: str
    ) -> None:
        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return ""

        def commit(error: BaseException | None) -> None:
            raise KeyError

        getattr(app, kind)(commit)
        with pytest.raises(KeyError):
            browser.get("/")
        assert names(api) == []

    @pytest.mark.parametrize(
        ("outer", "inner", "published"),
        [(200, 500, ["outer"]), (500, 200, ["inner"]), (200, 200, ["inner", "outer"])],
    )
    def test_a_request_inside_a_request_has_its_own_outcome(
        self,
        app: Flask,
        pusher: Pusher,
        browser: FlaskClient,
        api: Any,
        outer: int,
        inner: int,
        published: list[str],
    ) -> None:
        @app.get("/inner")
        def view_inner() -> tuple[str, int]:
            pusher.defer("a", "inner", {})
            return "", inner

        @app.get("/outer")
        def view_outer() -> tuple[str, int]:
            app.test_client().get("/inner").close()
            pusher.defer("a", "outer", {})
            return "", outer

        browser.get("/outer").close()
        assert names(api) == published

    @pytest.mark.parametrize("status", [200, 500])
    def test_a_context_that_is_made_up_inside_a_request_is_part_of_it(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, status: int
    ) -> None:
        @app.get("/")
        def view() -> tuple[str, int]:
            with app.test_request_context("/elsewhere"):
                pusher.defer("a", "made up", {})
            return "", status

        browser.get("/").close()
        assert names(api) == ["made up"] * (status == 200)

    def test_the_thread_of_the_request_publishes_where_the_setting_says_so(
        self, make_app: MakeApp, api: Any
    ) -> None:
        app = make_app(pusher := Pusher(), **api.config, PUSHER_PUBLISHER="request")

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return ""

        answer = app.test_client().get("/")
        assert api.events == []
        answer.close()
        assert api.events == [("a", "one", {})]

    def test_middleware_inside_may_give_a_body_that_cannot_be_closed(
        self, app: Flask, api: Any
    ) -> None:
        inner = app.wsgi_app
        app.wsgi_app = lambda *arguments: list(inner(*arguments))  # type: ignore[method-assign]
        pusher = Pusher(app)

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return "done"

        answer = app.test_client().get("/")
        assert names(api) == []
        assert answer.text == "done"
        answer.close()
        assert names(api) == ["one"]

    def test_a_response_that_no_server_asked_for_publishes_when_its_context_ends(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return "done"

        with app.test_request_context("/"):
            assert app.full_dispatch_request().get_data() == b"done"
            assert names(api) == []
        assert names(api) == ["one"]

    def test_the_fate_of_a_transaction_is_asked_for_when_the_event_would_leave(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        decided: dict[str, bool] = {}

        class Fate:
            def __init__(self, name: str) -> None:
                self.name = name

            def allows(self) -> bool:
                return decided[self.name]

        @app.get("/")
        def view() -> str:
            followed = app.extensions["flask_pusher"].outboxes.followed
            for name in ("committed", "rolled back"):
                followed.in_progress = partial(list, [Fate(name)])
                pusher.defer("a", name, {})
            return ""

        answer = browser.get("/")
        decided.update({"committed": True, "rolled back": False})
        answer.close()
        assert names(api) == ["committed"]

    def test_what_is_refused_is_refused_at_the_call(self, app: Flask, pusher: Pusher) -> None:
        with app.app_context():
            for channels, name, data, error in (
                ("a b", "one", {}, ValueError),
                ([], "one", {}, ValueError),
                ("a", "n" * 201, {}, ValueError),
                ("a", "one", object(), TypeError),
                ("a", "one", "x" * 10241, ValueError),
            ):
                with pytest.raises(error):
                    pusher.defer(channels, name, data)
            with pytest.raises(ValueError, match="socket id"):
                pusher.defer("a", "one", {}, "no socket id")

    def test_data_is_what_it_was_at_the_call(self, app: Flask, pusher: Pusher, api: Any) -> None:
        with app.app_context():
            data = {"n": 1}
            channels = ["a"]
            pusher.defer(channels, "one", data)
            data["n"] = 2
            channels.append("b")
        assert api.events == [("a", "one", {"n": 1})]


class TestStreams:
    def test_a_stream_publishes_what_it_defers_when_it_is_closed(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/")
        def view() -> Response:
            def body() -> Iterator[str]:
                yield "a"
                pusher.defer("a", "streamed", {})
                yield "b"

            return Response(stream_with_context(body()))

        answer = browser.get("/")
        assert answer.text == "ab"
        assert names(api) == []
        answer.close()
        assert names(api) == ["streamed"]

    @pytest.mark.parametrize("fails", [False, True])
    def test_a_stream_that_names_its_length_publishes_at_the_end_of_its_context(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, fails: bool
    ) -> None:
        @app.get("/")
        def view() -> Response:
            def body() -> Iterator[str]:
                yield "a"
                pusher.defer("a", "streamed", {})
                if fails:
                    raise KeyError
                yield "b"

            answer = Response(stream_with_context(body()))
            answer.content_length = 2
            return answer

        answer = browser.get("/")
        with pytest.raises(KeyError) if fails else nullcontext():
            assert answer.text == "ab"
        answer.close()
        assert names(api) == ([] if fails else ["streamed"])

    @pytest.mark.parametrize("status", [200, 500])
    def test_an_exception_or_an_error_status_publishes_nothing(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, status: int
    ) -> None:
        @app.get("/")
        def view() -> Response:
            pusher.defer("a", "before", {})

            def body() -> Iterator[str]:
                yield "a"
                pusher.defer("a", "streamed", {})
                if status == 200:
                    raise KeyError

            return Response(stream_with_context(body()), status)

        answer = browser.get("/")
        if status == 200:
            with pytest.raises(KeyError):
                _ = answer.text
        answer.close()
        assert names(api) == []

    @pytest.mark.parametrize("fails", [False, True])
    @pytest.mark.parametrize("kind", ["teardown_request", "teardown_appcontext"])
    def test_what_the_end_of_a_streams_context_defers_belongs_to_the_request(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, kind: str, fails: bool
    ) -> None:
        torn_down: list[str] = []  # as often as this Flask does it

        @getattr(app, kind)  # type: ignore[untyped-decorator]
        def teardown(error: BaseException | None) -> None:
            torn_down.append("torn down")
            pusher.defer("a", "torn down", {})

        @app.get("/")
        def view() -> Response:
            def body() -> Iterator[str]:
                yield "a"
                yield "b"
                if fails:
                    raise KeyError

            return Response(stream_with_context(body()))

        answer = browser.get("/")
        with pytest.raises(KeyError) if fails else nullcontext():
            assert answer.text == "ab"
        assert names(api) == []
        answer.close()
        assert torn_down
        assert names(api) == torn_down * (not fails)

    def test_a_stream_may_open_a_context_of_its_own(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/<int:fails>")
        def view(fails: int) -> Response:
            def body() -> Iterator[str]:
                yield "a"
                with app.app_context():
                    pusher.defer("a", "streamed", {})
                if fails:
                    raise KeyError

            return Response(body())

        failed = browser.get("/1")
        with pytest.raises(KeyError):
            _ = failed.text
        failed.close()
        assert names(api) == []
        answer = browser.get("/0")
        assert answer.text == "a"
        assert names(api) == []
        answer.close()
        assert names(api) == ["streamed"]

    def test_a_stream_that_nobody_reads_to_its_end_publishes(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        closed: list[bool] = []

        @app.get("/")
        def view() -> Response:
            pusher.defer("a", "before", {})

            def body() -> Iterator[str]:
                try:
                    yield "a"
                    yield "b"
                finally:
                    closed.append(True)

            return Response(body())

        browser.get("/").close()
        assert closed == [True]
        assert names(api) == ["before"]

    def test_a_stream_that_a_timeout_ends_publishes_nothing(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        class Timeout(BaseException):
            """As gevent's is."""

        @app.get("/")
        def view() -> Response:
            pusher.defer("a", "before", {})

            def body() -> Iterator[str]:
                yield "a"
                raise Timeout

            return Response(body())

        answer = browser.get("/")
        with pytest.raises(Timeout):
            _ = answer.text
        answer.close()
        assert names(api) == []

    def test_a_stream_that_fails_to_close_publishes_nothing(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        class Body:
            def __iter__(self) -> Iterator[str]:
                return iter("a")

            def close(self) -> None:
                raise KeyError

        @app.get("/")
        def view() -> Response:
            pusher.defer("a", "one", {})
            return Response(Body())

        answer = browser.get("/")
        with pytest.raises(KeyError):
            answer.close()
        assert names(api) == []

    def test_a_stream_that_is_left_while_it_is_read_publishes(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        app.wsgi_app = kept = Kept(app.wsgi_app)  # type: ignore[method-assign]

        @app.get("/")
        def view() -> Response:
            pusher.defer("a", "one", {})
            return Response(iter("abc"))

        answer = browser.get("/")
        assert next(iter(answer.iter_encoded())) == b"a"
        kept.body.close()
        assert names(api) == ["one"]

    def test_a_stream_that_cannot_be_closed_publishes(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/")
        def view() -> Response:
            pusher.defer("a", "one", {})
            return Response(map(str, range(3)))

        answer = browser.get("/")
        assert answer.text == "012"
        answer.close()
        assert names(api) == ["one"]

    def test_a_file_publishes_when_it_is_closed(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/")
        def view() -> Response:
            pusher.defer("a", "sent", {})
            return send_file(io.BytesIO(b"a file"), mimetype="text/plain")

        answer = browser.get("/")
        assert answer.text == "a file"
        answer.close()
        assert names(api) == ["sent"]

    def test_a_file_is_left_alone_where_nothing_is_deferred(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/")
        def view() -> Response:
            return send_file(io.BytesIO(b"a file"), mimetype="text/plain")

        @app.get("/defer")
        def defer() -> str:
            pusher.defer("a", "one", {})
            return ""

        bodies: list[Any] = []
        app.wsgi_app = kept = Kept(app.wsgi_app)  # type: ignore[method-assign]
        for _ in range(2):  # before the application's first deferred event, and after
            browser.get("/").close()
            bodies.append(kept.body)
            browser.get("/defer").close()
        assert [type(body) for body in bodies] == [FileWrapper, FileWrapper]
        assert names(api) == ["one", "one"]


class TestOutsideARequest:
    def test_events_leave_at_the_end_of_the_context(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        with app.app_context():
            pusher.defer("a", "one", {})
            assert names(api) == []
        assert names(api) == ["one"]

    def test_the_end_of_a_context_waits_until_they_are_published(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        api.answers = [(503, "Later.")]
        with app.app_context():
            pusher.defer("a", "one", {})
        assert [call.body["name"] for call in api.calls] == ["one", "one"]

    def test_a_context_in_a_generator_that_is_closed_waits_for_nothing(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        """A garbage collector closes one, in the midst of anything."""
        may_answer = threading.Event()

        def answer(call: Any) -> tuple[int, str]:
            assert may_answer.wait(30)
            return 200, "{}"

        def parts() -> Iterator[None]:
            with app.app_context():
                pusher.defer("a", "one", {})
                yield

        api.answer = answer
        generator = parts()
        next(generator)
        del generator
        gc.collect()
        may_answer.set()
        assert names(api) == ["one"]

    def test_an_error_that_ends_the_context_publishes_nothing(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        def fail() -> None:
            with app.app_context():
                pusher.defer("a", "one", {})
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert names(api) == []

    @pytest.mark.parametrize(
        ("end", "left"),
        [
            (SystemExit(), ["one"]),
            (SystemExit(0), ["one"]),
            (SystemExit(1), []),
            (SystemExit("no"), []),
            (click.exceptions.Exit(0), ["one"]),
            (click.exceptions.Exit(1), []),
        ],
    )
    def test_an_early_end_publishes_where_it_is_no_failure(
        self, app: Flask, pusher: Pusher, api: Any, end: BaseException, left: list[str]
    ) -> None:
        def work() -> None:
            with app.app_context():
                pusher.defer("a", "one", {})
                raise end

        with pytest.raises(type(end)):
            work()
        assert names(api) == left

    def test_an_error_that_is_being_handled_around_the_context_is_another(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        try:
            raise KeyError
        except KeyError:
            with app.app_context():
                pusher.defer("a", "one", {})
        assert names(api) == ["one"]

    def test_a_context_that_ends_well_inside_the_handling_of_an_error_publishes(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        try:
            raise KeyError
        except KeyError:
            with app.app_context():
                try:
                    raise ValueError
                except ValueError:
                    pusher.defer("a", "one", {})
        assert names(api) == ["one"]

    def test_a_context_that_is_popped_by_hand_inside_the_handling_of_an_error_ended_by_it(
        self, app: Flask, pusher: Pusher, api: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG", logger=app.name)
        context = app.app_context()
        context.push()
        pusher.defer("a", "one", {})
        try:
            raise KeyError
        except KeyError:
            context.pop()
        assert names(api) == []
        assert "its application context, which ended by KeyError: 'one' on a." in caplog.text

    def test_a_thread_beside_a_request_has_a_context_of_its_own(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        def work() -> None:
            with app.app_context():
                pusher.defer("a", "worked", {})

        @app.get("/")
        def view() -> tuple[str, int]:
            thread = threading.Thread(target=Context().run, args=[work])
            thread.start()
            thread.join()
            assert names(api) == ["worked"]
            return "", 500

        browser.get("/").close()
        assert names(api) == ["worked"]

    def test_a_request_context_without_a_response_is_like_that(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        def defer(error: type[Exception] | None) -> None:
            with app.test_request_context():
                pusher.defer("a", "one", {})
                if error:
                    raise error

        with pytest.raises(KeyError):
            defer(KeyError)
        assert names(api) == []
        defer(None)
        assert names(api) == ["one"]

    def test_a_context_that_defers_nothing_publishes_nothing(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        with app.app_context():
            pusher.defer("a", "one", {})
        with app.app_context():
            assert "pusher" not in g
        with app.test_request_context():
            pass
        assert names(api) == ["one"]

    @pytest.mark.parametrize(
        ("end", "published"),
        [
            (lambda: None, True),
            (sys.exit, True),
            (lambda: sys.exit(0), True),
            (lambda: sys.exit(1), False),
            (lambda: click.get_current_context().exit(0), True),
            (lambda: click.get_current_context().fail("no"), False),
            (leave_by_click(0), True),
            (leave_by_click(3), False),
            (lambda: abort(500), False),
        ],
    )
    def test_a_command_publishes_where_it_succeeds(
        self,
        app: Flask,
        pusher: Pusher,
        api: Any,
        end: Callable[[], None],
        published: bool,
    ) -> None:
        if not published and version("click") < "8.2":
            pytest.skip("Click before 8.2 hides the exception from the context")

        @app.cli.command("work")
        def work() -> None:
            pusher.defer("a", "worked", {})
            end()

        result: Result = app.test_cli_runner().invoke(args=["work"])
        assert (result.exit_code == 0) is published
        assert names(api) == ["worked"] * published


class TestContextsThatLiveOn:
    """Copies of a request's context, a test client's block, and environments used again."""

    def test_a_copied_context_leaves_the_events_of_its_request_to_it(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/<int:status>")
        def view(status: int) -> tuple[str, int]:
            pusher.defer("a", "view", {})
            work = copy_current_request_context(lambda: pusher.defer("a", "copy", {}))
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            assert names(api) == []
            return "", status

        browser.get("/500").close()
        assert names(api) == []
        browser.get("/200").close()
        assert names(api) == ["view", "copy"]

    @pytest.mark.parametrize("status", [200, 500])
    @pytest.mark.parametrize("copy", [copy_current_request_context, in_a_pool])
    def test_a_copied_context_that_ends_inside_the_view_is_part_of_the_request(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, copy: Any, status: int
    ) -> None:
        @app.get("/")
        def view() -> tuple[str, int]:
            copy(lambda: pusher.defer("a", "copy", {}))()
            assert names(api) == []
            return "", status

        browser.get("/").close()
        assert names(api) == ["copy"] * (status == 200)

    def test_a_copied_context_that_serialises_while_the_response_closes_loses_nothing(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        serialises, may_go_on = threading.Event(), threading.Event()
        threads: list[threading.Thread] = []

        class Slow:
            def __html__(self) -> str:
                serialises.set()
                assert may_go_on.wait(30)
                return "slow"

        @app.get("/")
        def view() -> str:
            work = copy_current_request_context(lambda: pusher.defer("a", "slow", Slow()))
            threads.append(threading.Thread(target=work))
            threads[0].start()
            assert serialises.wait(30)
            return ""

        browser.get("/").close()
        assert names(api) == []
        may_go_on.set()
        threads[0].join()
        assert names(api) == ["slow"]

    @pytest.mark.parametrize("server_clears", [False, True])
    def test_a_pool_that_works_on_after_the_response_publishes_at_once(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, server_clears: bool
    ) -> None:
        """uWSGI clears the environment when a request is over."""
        work: list[Callable[[], Any]] = []
        environs: list[Any] = []

        @app.get("/")
        def view() -> str:
            work.append(in_a_pool(lambda: pusher.defer("a", "later", {})))
            environs.append(request.environ)
            return ""

        browser.get("/").close()
        if server_clears:
            environs[0].clear()
        assert names(api) == []
        work[0]()
        assert names(api) == ["later"]

    @pytest.mark.parametrize("status", [200, 409])
    @pytest.mark.parametrize("fails", [False, True])
    def test_a_copied_context_that_outlives_the_response_publishes_at_its_end(
        self,
        app: Flask,
        pusher: Pusher,
        browser: FlaskClient,
        api: Any,
        fails: bool,
        status: int,
    ) -> None:
        work: list[Callable[[], None]] = []

        @app.get("/")
        def view() -> tuple[str, int]:
            pusher.defer("a", "view", {})

            @copy_current_request_context
            def later() -> None:
                pusher.defer("a", "later", {})
                if fails:
                    raise KeyError

            work.append(later)
            return "", status

        browser.get("/").close()
        view_is_told = ["view"] * (status == 200)
        assert names(api) == view_is_told
        with suppress(KeyError):
            work[0]()
        assert names(api) == view_is_told + ["later"] * (not fails)

    def test_a_copied_context_that_outlives_a_request_that_raised_publishes_at_its_end(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        may_go_on = threading.Event()
        threads: list[threading.Thread] = []

        @app.get("/")
        def view() -> str:
            @copy_current_request_context
            def work() -> None:
                assert may_go_on.wait(30)
                pusher.defer("a", "later", {})

            threads.append(threading.Thread(target=work))
            threads[0].start()
            pusher.defer("a", "one", {})
            raise KeyError

        with pytest.raises(KeyError):
            browser.get("/")
        may_go_on.set()
        threads[0].join()
        assert names(api) == ["later"]

    def test_a_copy_of_a_context_that_defers_nothing_publishes_nothing(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/defer")
        def defer() -> str:
            pusher.defer("a", "one", {})
            return ""

        @app.get("/")
        def view() -> str:
            copy_current_request_context(lambda: None)()
            return ""

        browser.get("/defer").close()
        browser.get("/").close()
        assert names(api) == ["one"]

    def test_a_clients_block_may_defer_after_the_response(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        app.add_url_rule("/", view_func=lambda: "")
        with app.test_client() as browser:
            browser.get("/").close()
            pusher.defer("a", "later", {})
        assert names(api) == ["later"]

    def test_a_failed_request_in_a_clients_block_stays_unpublished(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        app.add_url_rule("/plain", view_func=lambda: "", endpoint="plain")

        @app.get("/fail")
        def fail() -> str:
            pusher.defer("a", "failed", {})
            raise KeyError

        with app.test_client() as browser:
            with pytest.raises(KeyError):
                browser.get("/fail")
            browser.get("/plain").close()
        assert names(api) == []

    def test_an_exception_without_deferred_events_forgets_nothing(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/<kind>")
        def view(kind: str) -> str:
            if kind == "fail":
                raise KeyError
            pusher.defer("a", "one", {})
            return ""

        browser.get("/defer").close()
        browser.get("/fail").close()
        assert names(api) == ["one"]

    def test_another_application_may_be_given_the_same_environment(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, make_app: MakeApp
    ) -> None:
        other = make_app(pusher, **api.config)

        @other.get("/")
        def inner() -> tuple[str, int]:
            pusher.defer("a", "inner", {})
            return "", 500

        @app.get("/")
        def outer() -> str:
            pusher.defer("a", "outer", {})
            _, status, _ = run_wsgi_app(other, request.environ)
            return status

        answer = browser.get("/")
        assert answer.text == "500 INTERNAL SERVER ERROR"
        answer.close()
        assert names(api) == ["outer"]

    def test_middleware_may_try_a_failed_request_again(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        attempts: list[int] = []
        application = app.wsgi_app

        def retry(environ: Any, start_response: Any) -> Any:
            try:
                return application(environ, start_response)
            except KeyError:
                return application(environ, start_response)

        app.config["PROPAGATE_EXCEPTIONS"] = True
        app.wsgi_app = retry  # type: ignore[method-assign]

        @app.get("/")
        def view() -> str:
            attempts.append(1)
            pusher.defer("a", f"attempt-{len(attempts)}", {})
            if len(attempts) == 1:
                raise KeyError
            return ""

        browser.get("/").close()
        assert names(api) == ["attempt-2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*use of fork")
class TestForkedProcesses:
    """A process that is forked has a copy of what waits, and no end of what it waits for."""

    @staticmethod
    def in_a_child(work: Callable[[], None]) -> None:
        child = os.fork()
        if not child:
            try:
                work()
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    @pytest.fixture
    def defer(self, app: Flask, pusher: Pusher) -> Callable[[str], None]:
        return lambda name: pusher.defer("a", name, {})

    @pytest.fixture
    def defer_in_a_context(self, app: Flask, pusher: Pusher) -> Callable[[str], None]:
        def defer(name: str) -> None:
            with app.app_context():
                pusher.defer("a", name, {})

        return defer

    @pytest.mark.parametrize("way", ["defer", "defer_in_a_context"])
    def test_what_a_child_of_a_request_defers_leaves_at_once(
        self,
        app: Flask,
        browser: FlaskClient,
        api: Any,
        request: pytest.FixtureRequest,
        way: str,
    ) -> None:
        defer = request.getfixturevalue(way)

        @app.get("/")
        def view() -> tuple[str, int]:
            defer("parent's")
            self.in_a_child(partial(defer, "child's"))
            return "", 500

        browser.get("/").close()
        assert names(api) == ["child's"]

    def test_a_context_of_a_childs_own_decides_there_whoever_forked_it(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        def fail() -> None:
            with app.app_context():
                pusher.defer("a", "of a job that fails", {})
                raise ValueError

        def succeed() -> None:
            with app.app_context():
                pusher.defer("a", "of a job", {})

        @app.get("/")
        def view() -> str:
            self.in_a_child(fail)
            self.in_a_child(succeed)
            return ""

        browser.get("/").close()
        assert names(api) == ["of a job"]

    @pytest.mark.parametrize("way", ["defer", "defer_in_a_context"])
    def test_what_a_child_of_a_command_defers_leaves_and_no_event_of_its_parent_does(
        self, app: Flask, api: Any, request: pytest.FixtureRequest, way: str
    ) -> None:
        defer = request.getfixturevalue(way)
        context = app.app_context()
        context.push()
        request.getfixturevalue("defer")("parent's")

        def work() -> None:
            defer("child's")
            context.pop()

        self.in_a_child(work)
        assert names(api) == ["child's"]
        context.pop()
        assert names(api) == ["child's", "parent's"]

    @pytest.mark.parametrize("way", ["defer", "defer_in_a_context"])
    def test_what_a_child_defers_leaves_where_its_parent_has_deferred_nothing(
        self, app: Flask, api: Any, request: pytest.FixtureRequest, way: str
    ) -> None:
        defer = request.getfixturevalue(way)
        with app.app_context():
            self.in_a_child(partial(defer, "child's"))
            assert names(api) == ["child's"]

    def test_what_is_deferred_in_a_context_of_the_parents_leaves_at_once(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        with app.app_context():
            room._inherit()  # as a fork does it
            pusher.defer("a", "one", {})
            assert names(api) == ["one"]

    def test_what_a_model_tells_in_a_context_of_the_parents_has_left_when_the_commit_ends(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        class Base(DeclarativeBase):
            pass

        class Order(Base):
            __tablename__ = "orders"
            id: Mapped[int] = mapped_column(primary_key=True)

        engine = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(engine)
        sessions = sessionmaker(engine)
        pusher.follow(sessions)
        pusher.broadcasts(Order)(lambda order: "a")
        with app.app_context():
            room._inherit()  # as a fork does it
            with sessions.begin() as session:
                session.add(Order())
            assert names(api) == ["changed"]
        engine.dispose()


class TestBesidesTheView:
    """What is deferred before Flask takes a request, behind its response, and in copies of its
    context that outlive it."""

    @pytest.fixture
    def pusher(self, app: Flask, api: Any) -> Pusher:
        app.config["PUSHER_TIMEOUT"] = 30
        return Pusher(app)

    @pytest.fixture
    def may_answer(self) -> threading.Event:
        return threading.Event()

    @pytest.fixture
    def answered(self, api: Any, may_answer: threading.Event) -> list[Any]:
        """The calls that an API has answered which waits until it may."""
        calls: list[Any] = []

        def answer(call: Any) -> tuple[int, str]:
            may_answer.wait(20)
            calls.append(call)
            return 200, "{}"

        api.answer = answer
        return calls

    @pytest.mark.parametrize(("path", "told"), [("/well", ["started"]), ("/409", []), ("/x", [])])
    def test_a_signal_before_the_view_shares_the_fate_of_its_request(
        self, app: Flask, pusher: Pusher, api: Any, path: str, told: list[str]
    ) -> None:
        app.add_url_rule("/well", view_func=lambda: "done", endpoint="well")
        app.add_url_rule("/409", view_func=lambda: abort(409), endpoint="conflict")

        def started(*_: Any, **__: Any) -> None:
            pusher.defer("a", "started", {})

        with request_started.connected_to(started, app):
            app.test_client().get(path).close()
        publisher().flush()
        assert names(api) == told

    def test_nobody_who_waits_for_an_answer_waits_for_the_service(
        self,
        app: Flask,
        pusher: Pusher,
        api: Any,
        answered: list[Any],
        may_answer: threading.Event,
    ) -> None:
        def stream() -> Iterator[str]:
            yield "a"
            pusher.defer("a", "streamed", {})
            yield "b"

        @app.get("/")
        def view() -> Response:
            return Response(stream_with_context(stream()), headers={"Content-Length": "2"})

        def started(*_: Any, **__: Any) -> None:
            pusher.defer("b", "started", {})

        with request_started.connected_to(started, app):
            answer = app.test_client().get("/")
            assert answer.data == b"ab"
            answer.close()
        assert answered == []
        may_answer.set()
        publisher().flush()
        assert sorted(names(api)) == ["started", "streamed"]

    @pytest.mark.parametrize("fails", [False, True])
    def test_a_context_of_its_own_in_a_copy_that_outlives_the_request_decides_for_itself(
        self, app: Flask, pusher: Pusher, api: Any, fails: bool
    ) -> None:
        copies: list[Context] = []

        @app.get("/")
        def view() -> str:
            copies.append(copy_context())
            return "done"

        def job() -> None:
            with app.app_context():
                pusher.defer("a", "one", {})
                assert names(api) == []
                if fails:
                    raise ValueError

        app.test_client().get("/").close()
        with suppress(ValueError):
            copies[0].run(job)  # in the same thread as the request
        assert names(api) == ([] if fails else ["one"])

    def test_a_hand_over_that_defers_keeps_nobody_waiting(
        self, app: Flask, pusher: Pusher, answered: list[Any], may_answer: threading.Event
    ) -> None:
        @pusher.hand_over
        def enqueue(calls: list[dict[str, Any]]) -> None:
            pusher.defer("a", "enqueued", {})

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return "done"

        assert app.test_client().get("/").text == "done"
        assert answered == []
        may_answer.set()
        publisher().flush()

    def test_streams_that_are_dropped_and_deferred_nothing_leave_nothing_behind(
        self, app: Flask, pusher: Pusher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("_flask_pusher.publisher._publishers", {})

        @app.get("/")
        def view() -> Response:
            return Response(iter("done"))

        for _ in range(3):
            TestServersThatDoNotClose.drop_a_response(app)
        assert publisher().chores.empty()


class TestServersThatDoNotClose:
    """As Werkzeug's does not, where the client resets the connection behind the response."""

    @staticmethod
    def drop_a_response(app: Flask) -> None:
        body = app(EnvironBuilder("/").get_environ(), lambda *_: lambda _: None)
        assert b"".join(body) == b"done"
        del body
        gc.collect()

    @pytest.mark.parametrize("streams", [False, True])
    def test_a_response_that_is_dropped_publishes(
        self, app: Flask, pusher: Pusher, api: Any, streams: bool
    ) -> None:
        @app.get("/")
        def view() -> Response:
            pusher.defer("a", "one", {})
            return Response(iter("done")) if streams else Response("done")

        self.drop_a_response(app)
        api.until(lambda: names(api) == ["one"])

    def test_a_response_that_is_dropped_publishes_without_a_thread(
        self, make_app: MakeApp, api: Any
    ) -> None:
        app = make_app(pusher := Pusher(), **api.config, PUSHER_PUBLISHER="request")

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return "done"

        self.drop_a_response(app)
        assert api.events == [("a", "one", {})]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_process_leaves_its_parents_responses_alone(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return "done"

        body = app(EnvironBuilder("/").get_environ(), lambda *_: lambda _: None)
        child = os.fork()
        if not child:
            del body
            gc.collect()
            publisher().flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert names(api) == []
        body.close()  # type: ignore[attr-defined]
        assert names(api) == ["one"]

    def test_what_leaves_in_any_case_leaves_its_process_once(
        self, make_app: MakeApp, api: Any
    ) -> None:
        app = make_app(pusher := Pusher(), **api.config, PUSHER_PUBLISHER="request")

        @app.get("/")
        def view() -> str:
            pusher.trigger("a", "one", {}, wait=False)
            return "done"

        body = app(EnvironBuilder("/").get_environ(), lambda *_: lambda _: None)
        room._process[0] += 1  # as in a forked process, which has a copy of it
        body.close()  # type: ignore[attr-defined]
        room._process[0] -= 1
        assert names(api) == []

    @pytest.mark.parametrize("defers", [False, True])
    def test_a_response_that_is_dropped_publishes_no_failure(
        self, app: Flask, pusher: Pusher, api: Any, defers: bool
    ) -> None:
        @app.get("/")
        def view() -> Response:
            if defers:
                pusher.defer("a", "one", {})
            return Response(iter("done"), 500 if defers else 200)

        self.drop_a_response(app)
        assert names(api) == []


class TestRoundTheMiddleware:
    """What was made of ``app.wsgi_app`` before ``init_app``, and goes on calling that."""

    @pytest.fixture
    def served(self, app: Flask) -> ProxyFix:
        return ProxyFix(app.wsgi_app)

    @pytest.fixture
    def pusher(self, app: Flask, api: Any, served: ProxyFix) -> Pusher:
        return Pusher(app)

    @pytest.mark.parametrize(
        ("status", "published"), [(200, ["one"]), (302, ["one"]), (409, []), (500, [])]
    )
    def test_the_status_that_flask_finished_it_with_decides(
        self,
        app: Flask,
        pusher: Pusher,
        api: Any,
        served: ProxyFix,
        status: int,
        published: list[str],
    ) -> None:
        @app.get("/")
        def view() -> tuple[str, int]:
            pusher.defer("a", "one", {})
            return "", status

        for _ in range(2):  # the application's first deferred event, and another
            assert WsgiClient(served).get("/").status_code == status
        assert names(api) == published * 2

    def test_each_request_inside_an_application_context_has_its_own_outcome(
        self, app: Flask, pusher: Pusher, api: Any, served: ProxyFix
    ) -> None:
        """As tests ask, which push one for ``record_events()``: it is not torn down with each."""

        @app.get("/<int:status>")
        def view(status: int) -> tuple[str, int]:
            pusher.defer("a", f"of-{status}", {})
            return "", status

        with app.app_context():
            pusher.defer("a", "outer", {})
            for status in (409, 200, 500):
                WsgiClient(served).get(f"/{status}")
            assert names(api) == ["of-200"]
        assert names(api) == ["of-200", "outer"]
        with app.app_context(), pusher.record_events() as events:
            for status in (409, 201):
                WsgiClient(served).get(f"/{status}")
                assert [event.name for event in events] == ["of-201"] * (status == 201)

    @pytest.mark.parametrize("propagate", [True, False])
    def test_an_exception_publishes_nothing(
        self, app: Flask, pusher: Pusher, api: Any, served: ProxyFix, propagate: bool
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = propagate

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            raise KeyError

        with pytest.raises(KeyError) if propagate else nullcontext():
            WsgiClient(served).get("/")
        assert names(api) == []

    def test_an_error_that_is_handled_well_publishes(
        self, app: Flask, pusher: Pusher, api: Any, served: ProxyFix
    ) -> None:
        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            abort(409)

        app.register_error_handler(409, lambda error: "never mind")
        assert WsgiClient(served).get("/").status_code == 200
        assert names(api) == ["one"]

    def test_a_stream_publishes_when_its_context_ends(
        self, app: Flask, pusher: Pusher, api: Any, served: ProxyFix
    ) -> None:
        @app.get("/")
        def view() -> Response:
            def body() -> Iterator[str]:
                yield "a"
                pusher.defer("a", "streamed", {})
                yield "b"

            return Response(stream_with_context(body()))

        assert WsgiClient(served).get("/").text == "ab"
        assert names(api) == ["streamed"]

    def test_no_response_waits_for_the_service(
        self, app: Flask, pusher: Pusher, api: Any, served: ProxyFix
    ) -> None:
        may_answer = threading.Event()

        def answer(call: Any) -> tuple[int, str]:
            assert may_answer.wait(30)
            return 200, "{}"

        api.answer = answer

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return "done"

        assert WsgiClient(served).get("/").text == "done"
        may_answer.set()
        assert names(api) == ["one"]

    @pytest.mark.parametrize(("status", "published"), [(200, ["one"]), (404, [])])
    @pytest.mark.parametrize("is_class", [False, True])
    def test_middleware_that_begins_when_it_is_read_decides_nothing(
        self, app: Flask, api: Any, status: int, published: list[str], is_class: bool
    ) -> None:
        application = app.wsgi_app

        def generator(environ: Any, start_response: Any) -> Iterator[bytes]:
            yield from application(environ, start_response)

        class Lazy:
            def __init__(self, *call: Any) -> None:
                self.call = call

            def __iter__(self) -> Iterator[bytes]:
                return iter(application(*self.call))

        app.wsgi_app = Lazy if is_class else generator  # type: ignore[assignment, method-assign]
        pusher = Pusher(app)

        @app.get("/")
        def view() -> tuple[str, int]:
            pusher.defer("a", "one", {})
            return "read", status

        answer = app.test_client().get("/")
        assert (answer.status_code, answer.text) == (status, "read")
        assert names(api) == []
        answer.close()
        assert names(api) == published


class TestWebSockets:
    """What speaks WebSocket through a server for WSGI."""

    @pytest.mark.parametrize(
        ("upgrade", "published"), [({"Upgrade": "WebSocket"}, ["one"]), ({}, [])]
    )
    def test_the_end_of_a_view_under_gunicorn_is_no_failure(
        self,
        app: Flask,
        pusher: Pusher,
        browser: FlaskClient,
        api: Any,
        upgrade: dict[str, str],
        published: list[str],
    ) -> None:
        """Flask-Sock ends it by the exception that gunicorn takes for a connection let go."""

        class Done(Response):
            def __call__(self, *call: Any) -> Any:
                raise StopIteration

        @app.get("/")
        def view() -> Response:
            pusher.defer("a", "one", {})
            return Done()

        with pytest.raises(StopIteration):
            browser.get("/", headers=upgrade)
        assert names(api) == published

    @pytest.mark.parametrize("in_its_thread", [True, False])
    def test_what_a_handler_in_the_connections_call_defers_leaves_when_the_handler_is_over(
        self, app: Flask, api: Any, in_its_thread: bool
    ) -> None:
        """Flask-SocketIO's middleware, made before ``init_app``, pushes a context for each handler
        as long as the connection lasts."""
        application = app.wsgi_app

        def handle(environ: Any, name: str) -> None:
            with app.request_context(environ.copy()):
                pusher.defer("a", name, {})

        def middleware(environ: Any, start_response: Any) -> Any:
            if environ["PATH_INFO"] != "/socket":
                return application(environ, start_response)
            for name in ("connected", "said"):
                if in_its_thread:
                    handle(environ, name)
                else:
                    thread = threading.Thread(target=Context().run, args=[handle, environ, name])
                    thread.start()
                    thread.join()
                seen.append(names(api))
            raise KeyError

        seen: list[list[str]] = []
        app.wsgi_app = middleware  # type: ignore[method-assign]
        pusher = Pusher(app)
        with pytest.raises(KeyError):
            app.test_client().get("/socket")
        assert seen == [["connected"], ["connected", "said"]]


class TestThreadsThatInherit:
    """A thread with a copy of the context, as free-threaded Python starts each."""

    @staticmethod
    def start(work: Callable[[], None]) -> None:
        thread = threading.Thread(target=copy_context().run, args=[work])
        thread.start()
        thread.join()

    @pytest.mark.parametrize("status", [200, 500])
    def test_what_it_defers_in_the_requests_context_is_the_requests(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, status: int
    ) -> None:
        @app.get("/")
        def view() -> tuple[str, int]:
            self.start(lambda: pusher.defer("a", "inherited", {}))
            return "", status

        browser.get("/").close()
        assert names(api) == ["inherited"] * (status == 200)

    def test_the_publishers_threads_are_in_no_context_of_whoever_started_them(
        self, app: Flask, pusher: Pusher, api: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Inheriting(threading.Thread):
            def __init__(self, target: Callable[[], None], **options: Any) -> None:
                super().__init__(target=copy_context().run, args=[target], **options)

        def receive(sender: Flask, **_: Any) -> None:
            told.append(g.get("job"))

        told: list[Any] = []
        monkeypatch.setattr(threading, "Thread", Inheriting)
        monkeypatch.setattr(publisher_room, "_publishers", {})
        api.answers.append((400, "no"))
        with publish_failed.connected_to(receive, app), app.app_context():
            g.job = 7
            pusher.trigger("a", "step", {}, wait=False)
            publisher().flush()
        assert told == [None]

    @pytest.mark.parametrize("outer", ["request", "context"])
    def test_a_context_that_it_begins_is_its_own(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, outer: str
    ) -> None:
        def work() -> None:
            with app.app_context():
                pusher.defer("a", "own", {})

        def fail() -> None:
            with suppress(KeyError), app.app_context():
                pusher.defer("a", "own", {})
                raise KeyError

        def work_and_fail() -> str:
            self.start(work)
            self.start(fail)
            assert names(api) == ["own"]
            raise LookupError

        app.add_url_rule("/", view_func=work_and_fail)
        if outer == "request":
            browser.get("/").close()
        else:
            with pytest.raises(LookupError), app.app_context():
                work_and_fail()
        assert names(api) == ["own"]

    def test_a_requests_own_context_inside_it_stays_part_of_it(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/")
        def view() -> tuple[str, int]:
            with app.app_context():
                pusher.defer("a", "inside", {})
            return "", 500

        browser.get("/").close()
        assert names(api) == []


class TestWhatIsSaid:
    """Of what is dropped, and of what waits for an end that does not come."""

    @pytest.fixture
    def said(self, app: Flask, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
        caplog.set_level("DEBUG", logger=app.name)
        return lambda: [
            f"{record.levelname}: {record.getMessage()}"
            for record in caplog.records
            if record.name == app.name and record.levelname != "ERROR"
        ]

    def test_what_is_dropped_with_its_request_is_named_with_the_reason(
        self,
        app: Flask,
        pusher: Pusher,
        browser: FlaskClient,
        said: Callable[[], list[str]],
    ) -> None:
        @app.get("/<int:status>")
        def view(status: int) -> tuple[str, int]:
            pusher.defer("a", "one", {"secret": "x"})
            pusher.defer(["b", "c"], "two", {})
            if not status:
                raise KeyError("a secret")
            return "", status

        app.config["PROPAGATE_EXCEPTIONS"] = True
        browser.get("/409").close()
        with pytest.raises(KeyError):
            browser.get("/0")
        assert said() == [
            f"DEBUG: Dropped with its request, which {end}: 'one' on a, 'two' on b c."
            for end in ("was answered with 409 CONFLICT", "ended by KeyError")
        ]

    def test_what_is_dropped_with_its_context_is_named_with_the_reason(
        self, app: Flask, pusher: Pusher, said: Callable[[], list[str]]
    ) -> None:
        def work() -> None:
            with app.app_context():
                pusher.defer("a", "one", {})
                raise KeyError

        with pytest.raises(KeyError):
            work()
        assert said() == [
            "DEBUG: Dropped with its application context, which ended by KeyError: 'one' on a."
        ]

    def test_a_context_that_does_not_end_is_spoken_of_once(
        self,
        app: Flask,
        pusher: Pusher,
        api: Any,
        said: Callable[[], list[str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A worker pushes one as it imports the application."""
        monkeypatch.setattr(room, "WAITING_SECONDS", 0.2)
        room._timers.clear()
        context = app.app_context()
        context.push()
        pusher.defer("a", "one", {})
        api.until(lambda: bool(said()))
        pusher.defer("a", "two", {})
        with app.app_context():
            pusher.defer("a", "three", {})
        api.until(lambda: not room._timers)
        (line,) = said()
        assert line == (
            "WARNING: Deferred events have waited for 0.2 s for the end of their application"
            " context: 'one' on a. Let each job have a context, 'with app.app_context():', and a"
            " test close its responses; pusher.trigger(..., wait=False) waits for neither."
        )
        context.pop()
        assert names(api) == ["three", "one", "two"]

    def test_a_response_that_nobody_closed_is_spoken_of_when_the_process_ends(
        self,
        app: Flask,
        pusher: Pusher,
        browser: FlaskClient,
        api: Any,
        said: Callable[[], list[str]],
    ) -> None:
        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return ""

        answer = browser.get("/")
        room._speak_at_exit()
        (line,) = said()
        assert line.startswith(
            "WARNING: The process ended, and deferred events had waited for the end of their"
            " request: 'one' on a. Let each job"
        )
        answer.close()
        room._speak_at_exit()
        assert len(said()) == 1
        assert names(api) == ["one"]

    @pytest.mark.parametrize(
        "then",
        [
            "",
            pytest.param(
                "import os; child = os.fork(); child and os.waitpid(child, 0)",
                marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="does not fork"),
            ),
        ],
        ids=["by itself", "after a child of its own"],
    )
    @pytest.mark.parametrize("answer", ["'done'", "iter(['done'])"])
    def test_a_process_that_ends_speaks_of_its_responses_that_nobody_closed_and_of_no_parents(
        self, answer: str, then: str
    ) -> None:
        (line,) = said_by(answer, f"answer = app.test_client().get('/')\n{then}")
        assert "The process ended, and deferred events had waited for the end of their" in line
        assert "request: 'one' on a." in line

    def test_a_process_that_ends_does_not_speak_of_what_was_recorded(self) -> None:
        main = "with pusher.record_events() as events:\n    answer = app.test_client().get('/')\n"
        assert said_by("iter(['done'])", main + "assert events[0].name == 'one'") == []


def said_by(answer: str, main: str) -> list[str]:
    """What a program says at its end whose view defers an event and gives this answer."""
    program = (
        "from flask import Flask; from flask_pusher import Pusher; app = Flask('a')\n"
        "app.config['PUSHER_BACKEND'] = 'log'; pusher = Pusher(app)\n"
        f"app.add_url_rule('/', view_func=lambda: pusher.defer('a', 'one', {{}}) or {answer})\n"
    )
    # Python 3.12 warns of a fork beside threads, the publisher's.
    command = [sys.executable, "-W", "ignore", "-c", program + main]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return ran.stderr.splitlines()


class TestCookies:
    """Of answers to what a page fetches by itself."""

    @pytest.mark.parametrize(
        ("headers", "has_cookies"),
        [({"X-Pusher-Live": "1"}, False), ({"X-Pusher-Live": "0"}, True), ({}, True)],
    )
    def test_the_pages_own_fetches_write_no_session(
        self,
        app: Flask,
        pusher: Pusher,
        browser: FlaskClient,
        headers: dict[str, str],
        has_cookies: bool,
    ) -> None:
        @app.get("/")
        def view() -> Response:
            session["visits"] = session.get("visits", 0) + 1
            answer = Response("a page")
            answer.set_cookie("seen", "yes")
            return answer

        answer = browser.get("/", headers=headers)
        assert len(answer.headers.getlist("Set-Cookie")) == 2 * has_cookies
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"

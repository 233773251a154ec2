"""Deferred publishing: when events leave, in how many calls, and what becomes of the lost."""

from __future__ import annotations

import gc
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

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
    stream_with_context,
)
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder, run_wsgi_app
from werkzeug.wsgi import FileWrapper

from flask_pusher import Pusher, RecordedEvent, publish_failed

MakeApp = Callable[..., Flask]


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


def names(api: Any) -> list[str]:
    return [name for _, name, _ in api.events]


class TestWhen:
    def test_events_leave_when_the_response_is_closed(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.post("/")
        def view() -> str:
            pusher.defer("a", "one", {"n": 1}, "1.2")
            return "done"

        answer = browser.post("/")
        assert answer.text == "done"
        assert api.calls == []
        answer.close()
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
        assert api.calls == []

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
        assert api.calls == []

    def test_an_abort_publishes_nothing(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            abort(409)

        browser.get("/").close()
        assert api.calls == []

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
        assert api.calls == []

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
        assert api.calls == []
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
        assert api.calls == []
        answer.close()
        assert names(api) == ["streamed"]

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
        assert api.calls == []

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
        assert api.calls == []

    def test_a_stream_that_fails_to_close_publishes(
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
        assert names(api) == ["one"]

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
            assert api.calls == []
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
        assert api.calls == []

    def test_an_error_that_the_context_is_not_told_of_publishes_nothing(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        """Click before 8.2 closes the contexts of a command that failed as of one that did not."""

        def command() -> None:
            stack = ExitStack()
            try:
                stack.enter_context(app.app_context())
                pusher.defer("a", "one", {})
                raise KeyError
            finally:
                stack.close()

        with pytest.raises(KeyError):
            command()
        assert api.calls == []

    def test_an_error_that_is_being_handled_around_the_context_is_another(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        try:
            raise KeyError
        except KeyError:
            with app.app_context():
                pusher.defer("a", "one", {})
        assert names(api) == ["one"]

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
        assert api.calls == []
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
        @app.cli.command("work")
        def work() -> None:
            pusher.defer("a", "worked", {})
            end()

        result: Result = app.test_cli_runner().invoke(args=["work"])
        assert (result.exit_code == 0) is published
        assert names(api) == ["worked"] * published


class TestHow:
    def test_arguments_are_checked_at_the_call(self, app: Flask, pusher: Pusher) -> None:
        with app.app_context():
            for channels, name, data, error in (
                ("a b", "one", {}, ValueError),
                ([], "one", {}, ValueError),
                ("a", "n" * 201, {}, ValueError),
                ("a", "one", object(), TypeError),
                ("a", "one", "x" * 40000, ValueError),
            ):
                with pytest.raises(error):
                    pusher.defer(channels, name, data)
            with pytest.raises(ValueError, match="socket ID"):
                pusher.defer("a", "one", {}, "no socket id")

    def test_data_is_what_it_was_at_the_call(self, app: Flask, pusher: Pusher, api: Any) -> None:
        with app.app_context():
            data = {"n": 1}
            channels = ["a"]
            pusher.defer(channels, "one", data)
            data["n"] = 2
            channels.append("b")
        assert api.events == [("a", "one", {"n": 1})]

    @pytest.mark.parametrize(
        ("events", "calls"),
        [
            ([1], ["events"]),
            ([5], ["events"]),
            ([100], ["events"]),
            ([1] * 5, ["batch_events"]),
            ([1] * 10, ["batch_events"]),
            ([1] * 11, ["batch_events", "events"]),
            ([1] * 25, ["batch_events"] * 3),
            ([2] * 5, ["batch_events"]),
            ([2] * 6, ["batch_events", "events"]),
            ([3, 3, 3, 3], ["batch_events", "events"]),
            ([12, 1], ["events", "events"]),
            ([1, 100, 1], ["batch_events", "events", "events"]),
            ([1, 12, 1], ["batch_events", "batch_events"]),
            ([100, 100, 100], ["events"] * 3),
            ([9, 100], ["batch_events", "events"]),
        ],
    )
    def test_events_leave_in_order_in_as_few_calls_as_can_be(
        self, app: Flask, pusher: Pusher, api: Any, events: list[int], calls: list[str]
    ) -> None:
        expected = []
        with app.app_context():
            for number, count in enumerate(events):
                channels = [f"c{channel}" for channel in range(count)]
                pusher.defer(channels, f"event-{number}", {"n": number}, "1.2")
                expected += [(channel, f"event-{number}", {"n": number}) for channel in channels]
        assert api.events == expected
        assert [call.path.rpartition("/")[2] for call in api.calls] == calls
        for call in api.calls:
            assert all(e["socket_id"] == "1.2" for e in call.body.get("batch", [call.body]))

    @pytest.mark.parametrize(
        ("channels", "calls"), [(50, ["events"]), (100, ["events"]), (101, ["events", "events"])]
    )
    def test_the_same_event_to_many_channels_is_one_call(
        self, app: Flask, pusher: Pusher, api: Any, channels: int, calls: list[str]
    ) -> None:
        expected = []
        with app.app_context():
            for number in range(channels):
                pusher.defer(f"room-{number}", "tick", {"n": 1})
                expected.append((f"room-{number}", "tick", {"n": 1}))
        assert api.events == expected
        assert [call.path.rpartition("/")[2] for call in api.calls] == calls

    def test_the_same_event_twice_to_a_channel_comes_twice(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        with app.app_context():
            pusher.defer(["a", "b"], "tick", {})
            pusher.defer(["b", "a"], "tick", {})
            pusher.defer("a", "tick", {}, "1.2")
        assert [channel for channel, _, _ in api.events] == ["a", "b", "b", "a", "a"]
        assert len(api.calls) == 1

    def test_a_channel_named_twice_for_one_event_gets_it_once(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        with app.app_context():
            pusher.defer(["a", "a"], "tick", {})
            pusher.defer("b", "tock", {})
        assert api.events == [("a", "tick", {}), ("b", "tock", {})]

    def test_encrypted_events_are_encrypted(self, app: Flask, pusher: Pusher, api: Any) -> None:
        with app.app_context():
            pusher.defer("private-encrypted-a", "one", {"n": 1})
            pusher.defer("b", "two", {"n": 2})
        assert [set(data) for _, _, data in api.events] == [{"nonce", "ciphertext"}, {"n"}]

    def test_recorded_events_are_there_when_the_test_client_returns(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.post("/<int:status>")
        def view(status: int) -> tuple[str, int]:
            pusher.defer(["a", "b"], "one", {"n": 1})
            pusher.defer("c", "two", {"n": 2})
            return "", status

        with app.app_context(), pusher.record_events() as events:
            browser.post("/500")
            assert events == []
            browser.post("/200")
            assert events == [
                RecordedEvent(["a", "b"], "one", {"n": 1}, None),
                RecordedEvent(["c"], "two", {"n": 2}, None),
            ]
        assert api.calls == []

    def test_recorded_events_of_a_stream_are_there_when_it_has_been_read(
        self, app: Flask, pusher: Pusher, browser: FlaskClient
    ) -> None:
        @app.get("/")
        def view() -> Response:
            def body() -> Iterator[str]:
                yield "a"
                pusher.defer("a", "streamed", {})

            return Response(stream_with_context(body()))

        with app.app_context(), pusher.record_events() as events:
            assert browser.get("/").text == "a"
            assert [event.name for event in events] == ["streamed"]

    @pytest.mark.parametrize("kind", ["text", "file", "stream"])
    def test_nothing_of_a_recording_leaves_the_process_when_the_response_is_closed_late(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, kind: str
    ) -> None:
        @app.teardown_request
        def teardown(error: BaseException | None) -> None:
            pusher.defer("a", "teardown", {})

        @app.get("/")
        def view() -> Any:
            pusher.defer("a", "view", {})
            if kind == "file":
                return send_file(io.BytesIO(b"a file"), mimetype="text/plain")
            return Response(iter("stream")) if kind == "stream" else "text"

        with app.app_context(), pusher.record_events() as events:
            answer = browser.get("/")
            assert [event.name for event in events] == ["view"]
        answer.close()
        assert [event.name for event in events] == ["view", "teardown"]
        assert api.calls == []

    def test_a_response_closed_inside_a_recording_is_recorded_once(
        self, app: Flask, pusher: Pusher, browser: FlaskClient
    ) -> None:
        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return ""

        with app.app_context(), pusher.record_events() as events:
            browser.get("/").close()
        assert len(events) == 1


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
            assert api.calls == []
            return "", status

        browser.get("/500").close()
        assert api.calls == []
        browser.get("/200").close()
        assert names(api) == ["view", "copy"]

    @pytest.mark.parametrize("fails", [False, True])
    def test_a_copied_context_that_outlives_the_response_publishes_at_its_end(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, fails: bool
    ) -> None:
        work: list[Callable[[], None]] = []

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "view", {})

            @copy_current_request_context
            def later() -> None:
                pusher.defer("a", "later", {})
                if fails:
                    raise KeyError

            work.append(later)
            return ""

        browser.get("/").close()
        assert names(api) == ["view"]
        with suppress(KeyError):
            work[0]()
        assert names(api) == ["view"] + ["later"] * (not fails)

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
        assert api.calls == []

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


class TestServersThatDoNotClose:
    """As Werkzeug's does not, where the client resets the connection behind the response."""

    @staticmethod
    def drop_a_response(app: Flask) -> None:
        body = app(EnvironBuilder("/").get_environ(), lambda *_: lambda _: None)
        assert b"".join(body) == b"done"
        del body
        gc.collect()
        for thread in threading.enumerate():
            if thread.name == "flask-pusher-deferred":
                thread.join()

    @pytest.mark.parametrize("streams", [False, True])
    def test_a_response_that_is_dropped_publishes(
        self, app: Flask, pusher: Pusher, api: Any, streams: bool
    ) -> None:
        @app.get("/")
        def view() -> Response:
            pusher.defer("a", "one", {})
            return Response(iter("done")) if streams else Response("done")

        self.drop_a_response(app)
        assert names(api) == ["one"]

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
        assert api.calls == []


class TestLosses:
    @pytest.fixture
    def lost(self, app: Flask) -> Iterator[list[Any]]:
        told: list[Any] = []

        def receive(sender: Flask, events: list[RecordedEvent], error: Exception) -> None:
            told.append((sender, events, error))

        with publish_failed.connected_to(receive, app):
            yield told

    def test_a_refusal_is_logged_and_told_once_and_the_others_are_sent(
        self,
        app: Flask,
        pusher: Pusher,
        api: Any,
        lost: list[Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        api.answers.append((400, "too many"))
        with app.app_context():
            for number in range(12):
                pusher.defer(f"c{number}", f"event-{number}", {"private": "matter"})
        assert [call.path.rpartition("/")[2] for call in api.calls] == ["batch_events"] * 2
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert "'event-0' on c0, 'event-1' on c1" in record.message
        assert "event-10" not in record.message
        assert "PusherBadRequest: too many" in record.message
        assert "matter" not in record.message
        ((sender, events, error),) = lost
        assert sender is app
        assert events[0] == RecordedEvent(["c0"], "event-0", {"private": "matter"}, None)
        assert len(events) == 10
        assert type(error).__name__ == "PusherBadRequest"

    def test_without_an_answer_the_rest_is_given_up(
        self,
        make_app: MakeApp,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        pusher = Pusher()
        app = make_app(pusher, PUSHER_HOST="127.0.0.1", PUSHER_PORT="1", PUSHER_SSL="false")
        with app.app_context():
            for number in range(12):
                pusher.defer("private-x", f"event-{number}", {"private": "matter"})
        (record,) = [record for record in caplog.records if record.name == app.name]
        assert "'event-0' on private-x, 'event-1'" in record.message
        assert "'event-11' on private-x. " in record.message
        assert "ConnectionError" in record.message
        for secret in ("matter", "auth_signature", "a-secret"):
            assert secret not in record.message

    def test_a_lost_event_can_be_sent_again(self, app: Flask, pusher: Pusher, api: Any) -> None:
        def again(sender: Flask, events: list[RecordedEvent], error: Exception) -> None:
            for event in events:
                pusher.client.trigger(*event)

        api.answers.append((503, "later"))
        with publish_failed.connected_to(again, app), app.app_context():
            pusher.defer(["a", "b"], "one", {"n": 1}, "1.2")
        assert api.calls[0].body == api.calls[1].body

    def test_a_loss_does_not_break_the_response(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return "fine"

        def fail(sender: Flask, **_: Any) -> None:
            raise KeyError

        api.answers.append((500, "broken"))
        with publish_failed.connected_to(fail, app):
            answer = browser.get("/")
            assert answer.text == "fine"
            answer.close()
        assert len(api.calls) == 1

    def test_a_receiver_has_a_context_and_may_be_a_coroutine_function(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        pytest.importorskip("asgiref", reason="coroutine functions need Flask[async]")
        told: list[Any] = []

        @app.get("/")
        def view() -> str:
            pusher.defer("a", "one", {})
            return ""

        async def receive(sender: Flask, events: list[RecordedEvent], **_: Any) -> None:
            told.append((pusher.client.key, len(events)))

        api.answers.append((500, "broken"))
        with publish_failed.connected_to(receive, app):
            browser.get("/").close()
        assert told == [("a-key", 1)]

    def test_an_error_of_a_receiver_is_logged(
        self, app: Flask, pusher: Pusher, api: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(sender: Flask, **_: Any) -> None:
            raise KeyError

        api.answers.append((500, "broken"))
        with publish_failed.connected_to(fail, app), app.app_context():
            pusher.defer("a", "one", {})
        assert "A receiver of publish_failed raised an exception" in caplog.text


class AsyncBackend:
    """An HTTP adapter whose answers are awaited, as the client's for aiohttp is."""

    sent: list[str] = []  # noqa: RUF012 - emptied by the test

    def __init__(self, client: Any) -> None: ...

    async def send_request(self, request: Any) -> Any:
        self.sent.append(request.params["name"])
        return {}


def test_an_asynchronous_backend_is_awaited(make_app: MakeApp) -> None:
    app = make_app(pusher := Pusher(), PUSHER_BACKEND=AsyncBackend)
    AsyncBackend.sent.clear()
    with app.app_context():
        pusher.defer("a", "one", {})
    assert AsyncBackend.sent == ["one"]

"""The commands of ``flask pusher``."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import Result
from flask import Flask, redirect
from werkzeug.routing import BaseConverter
from werkzeug.serving import make_server

from _flask_pusher import local
from flask_pusher import Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

PRESENCE_HANDLERS = f"{__name__}.on_presence, {__name__}.on_event"
Run = Callable[..., Result]


@pytest.fixture
def run(app: Flask, api: Any) -> Run:
    """Runs ``flask pusher ...``, and holds it to never showing a secret or a traceback."""

    def run(*arguments: str) -> Result:
        if "pusher" not in app.extensions:
            Pusher(app)
        result = app.test_cli_runner().invoke(args=["pusher", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        for secret in ("a-secret", "auth_signature"):
            assert secret not in result.output
        return result

    return run


class TestCheck:
    def test_it_asks_for_the_routes_at_a_host_that_is_trusted(
        self, app: Flask, api: Any, run: Run
    ) -> None:
        app.config["TRUSTED_HOSTS"] = [".example.com"]
        api.answers.append((200, '{"channels": {}}'))
        result = run("check")
        assert result.exit_code == 0
        assert "http://YOUR-SITE/pusher/auth" in result.output

    def test_it_shows_what_is_in_force_and_that_the_server_accepts_it(
        self, app: Flask, api: Any, run: Run
    ) -> None:
        app.config.update(
            PUSHER_CLUSTER="eu",
            PUSHER_TIMEOUT=None,
            PUSHER_AUTH="/subscribe",
            PUSHER_ENCRYPTION_MASTER_KEY_BASE64="A" * 43 + "=",
            PUSHER_CLIENT_OPTIONS={"activityTimeout": 1000},
            PUSHER_EXTRA_TOKENS={"old-key": "old-secret"},
        )
        api.answers.append((200, '{"channels": {}}'))
        result = run("check")
        assert result.exit_code == 0
        settings, _, _ = result.output.partition("\n\n")
        assert dict(line.split(maxsplit=1) for line in settings.splitlines()) == {
            "PUSHER_APP_ID": "1",
            "PUSHER_KEY": "a-key",
            "PUSHER_SECRET": "(set, not shown)",
            "PUSHER_CLUSTER": "eu",
            "PUSHER_HOST": "127.0.0.1",
            "PUSHER_PORT": str(api.port),
            "PUSHER_PATH": "(not set)",
            "PUSHER_SSL": "False",
            "PUSHER_TIMEOUT": "5",
            "PUSHER_BACKEND": "requests",
            "PUSHER_BACKEND_OPTIONS": "(not set)",
            "PUSHER_MAX_EVENT_BYTES": "10240",
            "PUSHER_PUBLISHER": "thread",
            "PUSHER_ENCRYPTION_MASTER_KEY_BASE64": "(set, not shown)",
            "PUSHER_ENCRYPTION_MASTER_KEY": "(not set)",
            "PUSHER_AUTH": "/subscribe",
            "PUSHER_USER_AUTH": "/user-auth",
            "PUSHER_WEBHOOK_MAX_AGE": "600",
            "PUSHER_EXTRA_TOKENS": "(set, not shown)",
            "PUSHER_AUTH_MAX_CHANNELS": "500",
            "PUSHER_JS_URL": "(not set)",
            "PUSHER_IDIOMORPH_URL": "(not set)",
            "PUSHER_CLIENT_OPTIONS": "{'activityTimeout': 1000}",
        }
        assert "old-" not in result.output
        assert result.output.endswith(
            f"\n\nhttp://127.0.0.1:{api.port} accepts these credentials.\n"
        )
        assert api.calls[0].path == "/apps/1/channels"

    def test_it_lists_what_is_declared(self, app: Flask, run: Run) -> None:
        app.config["APPLICATION_ROOT"] = "/shop"
        pusher = Pusher(app)
        pusher.auth("private-order-<int:order_id>")(may_follow)
        pusher.auth("private-<name>")(may_subscribe)
        pusher.auth(may_subscribe)
        pusher.channel_data("presence-<room>")(member)
        pusher.user_auth(user)
        pusher.webhooks.presence(on_presence)
        pusher.webhooks.event("member_added")(on_event)
        listed = run("check").output.partition("\n\n")[2].partition("\nA page does")[0]
        assert listed.splitlines() == [
            "Who may subscribe, asked at http://YOUR-SITE/shop/pusher/auth:",
            f"  private-order-<int:order_id>          {__name__}.may_follow",
            f"  private-<name>                        {__name__}.may_subscribe",
            f"  (every other channel)                 {__name__}.may_subscribe",
            "What members see of each other:",
            f"  presence-<room>                       {__name__}.member",
            "Who the user is, asked at http://YOUR-SITE/shop/pusher/user-auth:",
            f"  {__name__}.user",
            "Webhooks, every kind at one URL, or each group at its own:",
            "  http://YOUR-SITE/shop/pusher/events",
            "  http://YOUR-SITE/shop/pusher/events/channel_existence  (no handler)",
            f"  http://YOUR-SITE/shop/pusher/events/presence  {PRESENCE_HANDLERS}",
            "  http://YOUR-SITE/shop/pusher/events/client  (no handler)",
            "  http://YOUR-SITE/shop/pusher/events/cache  (no handler)",
            "  http://YOUR-SITE/shop/pusher/events/subscription_count  (no handler)",
        ]

    def test_an_event_that_channels_does_not_send_is_not_well(
        self, pusher: Pusher, run: Run
    ) -> None:
        pusher.webhooks.event("order_paid")(on_event)
        pusher.webhooks.event("member_added")(on_event)
        result = run("check")
        assert (
            "\nNot well: @pusher.webhooks.event('order_paid'): Channels sends no event of this name.\n"
            in result.output
        )
        assert result.output.count("Not well") == 1
        assert result.exit_code == 1

    def test_it_says_what_is_missing(self, run: Run) -> None:
        output = run("check").output
        assert "\n  nobody: declare @pusher.auth\n" in output
        assert (
            "\n  the socket id, so each tab is a member of its own: declare @pusher.channel_data\n"
            in output
        )
        assert "\n  nobody signs in: declare @pusher.user_auth\n" in output
        assert output.count("(no handler)") == 5

    def test_a_handler_without_a_name_is_shown_as_it_is(self, app: Flask, run: Run) -> None:
        Pusher(app).auth(partial(may_subscribe))
        assert (
            "(every other channel)                 functools.partial(<fun" in run("check").output
        )

    def test_it_shows_what_a_page_is_given(self, app: Flask, api: Any, run: Run) -> None:
        app.config["APPLICATION_ROOT"] = "/shop"
        line = next(
            line for line in run("check").output.splitlines() if line.startswith("A page does")
        )
        assert line.startswith('A page does: new Pusher("a-key", {"cluster": "mt1", "channelAuth')
        options = json.loads(line.partition(", ")[2].removesuffix(")"))
        assert options["channelAuthorization"]["endpoint"] == "/shop/pusher/auth"
        assert (options["wsHost"], options["wsPort"]) == ("127.0.0.1", api.port)

    @pytest.mark.parametrize(
        ("status", "body", "said"),
        [
            (401, "Invalid\n\nsignature\n", "PusherBadAuth: Invalid signature"),
            (200, '{"error": "no such key", "code": 401}', "PusherBadAuth: no such key"),
            (403, "disabled", "PusherForbidden: disabled"),
            (404, "no app 1", "404: no app 1"),
            (500, "", "500"),
            (200, "<html>", "not one of Channels, but this: '<html>'"),
            (200, "", "not one of Channels, but this: ''"),
            (200, "[]", "not one of Channels, but of type list"),
            (200, '"ok"', "not one of Channels, but of type str"),
            (200, "null", "not one of Channels, but of type NoneType"),
            (200, '{"ok": true}', "gave an answer of another form than Channels' is."),
        ],
    )
    def test_a_refusal_is_one_line_and_a_failure(
        self, api: Any, run: Run, status: int, body: str, said: str
    ) -> None:
        api.answers.append((status, body))
        result = run("check")
        assert result.exit_code == 1
        last = result.output.splitlines()[-1]
        assert last.startswith("Error: ")
        assert said in last
        assert "accepts" not in result.output

    def test_a_server_that_does_not_answer_is_one_line_and_a_failure(
        self, app: Flask, run: Run
    ) -> None:
        app.config["PUSHER_PORT"] = "1"
        result = run("check")
        assert result.exit_code == 1
        assert result.output.splitlines()[-1] == (
            "Error: http://127.0.0.1:1 gave no answer: nothing listens there. Is the local server"
            " running? 'flask pusher serve' starts it."
        )

    def test_what_to_look_at_is_told_where_credentials_are_refused(
        self, api: Any, run: Run
    ) -> None:
        api.answers.append((401, "unknown auth_key"))
        assert run("check").output.splitlines()[-1] == (
            f"Error: http://127.0.0.1:{api.port} refuses: PusherBadAuth: unknown auth_key (Are"
            " PUSHER_KEY and PUSHER_SECRET each in its place? Is the clock right?)"
        )

    def test_a_converter_that_is_unknown_is_told_and_a_failure(
        self, app: Flask, api: Any, run: Run
    ) -> None:
        Pusher(app).auth("private-x-<integer:order_id>")(may_follow)
        api.answers.append((200, '{"channels": {}}'))
        result = run("check")
        assert result.exit_code == 1
        assert (
            "\nNot well: @pusher.auth('private-x-<integer:order_id>'): there is no"
            in result.output
        )
        assert "Is 'int' meant?" in result.output

    def test_so_is_a_pattern_of_a_webhook_and_arguments_that_a_converter_does_not_take(
        self, app: Flask, api: Any, run: Run
    ) -> None:
        class Code(BaseConverter):
            def __init__(self, url_map: Any) -> None:
                super().__init__(url_map)

        app.url_map.converters["code"] = Code
        pusher = Pusher(app)
        pusher.webhooks.event("member_added", "presence-x-<integer:n>")(on_event_of)
        pusher.auth("private-x-<code(3):n>")(may_follow_code)
        api.answers.append((200, '{"channels": {}}'))
        result = run("check")
        assert result.exit_code == 1
        event = "@pusher.webhooks.event('member_added', 'presence-x-<integer:n>')"
        assert f"\nNot well: {event}: there is no converter 'integer'" in result.output
        assert "\nNot well: @pusher.auth('private-x-<code(3):n>') is malformed" in result.output

    @pytest.mark.filterwarnings("ignore:PUSHER_SCHEME")
    def test_a_setting_of_another_library_is_told_and_a_failure(
        self, app: Flask, api: Any, run: Run
    ) -> None:
        app.config["PUSHER_SCHEME"] = "http"
        api.answers.append((200, '{"channels": {}}'))
        result = run("check")
        assert result.exit_code == 1
        assert (
            "\nNot well: PUSHER_SCHEME is no setting of Flask-Pusher. Is PUSHER_SSL meant?\n"
            in result.output
        )

    def test_it_shows_the_whole_url_where_the_application_knows_its_name(
        self, app: Flask, run: Run
    ) -> None:
        app.config.update(SERVER_NAME="shop.example", PREFERRED_URL_SCHEME="https")
        output = run("check").output
        assert " https://shop.example/pusher/events/presence  (no handler)\n" in output
        assert " https://shop.example/pusher/auth:\n" in output

    def test_it_knows_the_older_form_of_the_master_key(self, app: Flask, run: Run) -> None:
        app.config["PUSHER_ENCRYPTION_MASTER_KEY"] = "k" * 32
        with pytest.warns(UserWarning, match="deprecated"):
            Pusher(app)
        output = run("check").output
        assert "PUSHER_ENCRYPTION_MASTER_KEY          (set, not shown)\n" in output
        assert "k" * 32 not in output

    def test_a_value_that_is_empty_and_no_default_is_shown(self, app: Flask, run: Run) -> None:
        app.config.update(PUSHER_MAX_EVENT_BYTES=None, PUSHER_JS_URL="", PUSHER_BACKEND="log")
        output = run("check").output
        assert "PUSHER_MAX_EVENT_BYTES                None\n" in output
        assert "PUSHER_JS_URL                         ''\n" in output
        assert "PUSHER_CLIENT_OPTIONS                 (not set)\n" in output
        assert "PUSHER_BACKEND                        log\n" in output

    def test_it_names_another_backend(self, app: Flask, run: Run) -> None:
        app.config["PUSHER_BACKEND"] = AsyncBackend
        app.config["PUSHER_BACKEND_OPTIONS"] = {"answer": "a-secret"}
        output = run("check").output
        assert "PUSHER_BACKEND                        AsyncBackend\n" in output
        assert "PUSHER_BACKEND_OPTIONS                (set, not shown)\n" in output

    def test_it_shows_what_is_in_force_where_options_are_arguments_of_the_client(
        self, app: Flask, api: Any, run: Run
    ) -> None:
        app.config["PUSHER_BACKEND_OPTIONS"] = {"timeout": 9, "path": "/channels"}
        output = run("check").output
        assert "PUSHER_TIMEOUT                        9\n" in output
        assert "PUSHER_PATH                           /channels\n" in output
        assert "PUSHER_BACKEND_OPTIONS                (not set)\n" in output


class TestProbe:
    """``flask pusher check --webhooks URL``, from the service's side."""

    @pytest.fixture
    def pusher(self, app: Flask, api: Any) -> Pusher:
        return Pusher(app)

    @pytest.fixture
    def url(self, app: Flask, pusher: Pusher) -> Iterator[str]:
        """The address of the application, which is served."""
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.port}"
        server.shutdown()
        thread.join()
        server.server_close()

    def test_a_route_that_takes_webhooks_is_told(
        self, api: Any, pusher: Pusher, url: str, run: Run
    ) -> None:
        pusher.webhooks.presence(on_presence)
        for path in ("/pusher/events", "/pusher/events/presence"):
            api.answers.append((200, '{"channels": {}}'))
            result = run("check", "--webhooks", url + path)
            assert f"\n{url}{path} takes webhooks (status 200).\n" in result.output
            assert result.exit_code == 0

    def test_a_route_without_a_handler_is_told(self, url: str, run: Run) -> None:
        for path, meaning in (
            ("/pusher/events", "This application handles no webhooks here"),
            ("/nowhere", "no webhook route is there"),
        ):
            result = run("check", "--webhooks", url + path)
            assert result.exit_code == 1
            last = result.output.splitlines()[-1]
            assert last == f"Error: {url}{path} answers 404: {meaning}."

    def test_a_success_that_is_not_the_routes_is_told(
        self, app: Flask, pusher: Pusher, url: str, run: Run
    ) -> None:
        pusher.webhooks.presence(on_presence)
        routes = app.wsgi_app

        def gate(environ: Any, start_response: Any) -> Any:
            if environ["PATH_INFO"].startswith("/pusher"):
                start_response("200 OK", [("Content-Type", "text/html")])
                return [b"Please log in."]
            return routes(environ, start_response)

        app.wsgi_app = gate  # type: ignore[method-assign]
        result = run("check", "--webhooks", f"{url}/pusher/events")
        assert result.output.splitlines()[-1] == (
            f"Error: {url}/pusher/events answers 200: something else does, a login page for one, and"
            " the service takes that for a yes."
        )
        assert result.exit_code == 1

    def test_what_answers_in_the_routes_place_is_told(
        self, app: Flask, pusher: Pusher, url: str, run: Run
    ) -> None:
        pusher.webhooks.presence(on_presence)
        answers: Iterator[Any] = iter([("a login page", 200), redirect("/login")])
        app.before_request(answers.__next__)
        result = run("check", "--webhooks", f"{url}/pusher/events")
        assert " answers 503: This webhook was not delivered: " in result.output.splitlines()[-1]
        result = run("check", "--webhooks", f"{url}/pusher/events")
        assert result.output.splitlines()[-1] == (
            f"Error: {url}/pusher/events answers 302: it redirects to /login, and the service does"
            " not follow."
        )

    def test_an_application_with_other_credentials_is_told(
        self, app: Flask, api: Any, make_app: MakeApp, url: str
    ) -> None:
        app.extensions["flask_pusher"].handlers.groups["presence"].declare(on_presence)
        other = make_app(Pusher(), **{**api.config, "PUSHER_SECRET": "another"})
        result = other.test_cli_runner().invoke(
            args=["pusher", "check", "--webhooks", f"{url}/pusher/events"]
        )
        assert result.output.splitlines()[-1] == (
            f"Error: {url}/pusher/events answers 403: This webhook is refused: its"
            " X-Pusher-Signature is missing, or not by its key's secret."
        )

    @pytest.mark.parametrize(
        ("status", "meaning"),
        [
            (302, "it redirects to /login, and the service does not follow"),
            (
                400,
                "something before it refuses, CSRF protection for one. Exempt pusher.blueprint",
            ),
            (
                401,
                "something before it refuses, CSRF protection for one. Exempt pusher.blueprint",
            ),
            (405, "no webhook route is there"),
            (500, "only 2xx counts; the service sends it again"),
        ],
    )
    def test_any_other_status_is_told(
        self, app: Flask, url: str, run: Run, status: int, meaning: str
    ) -> None:
        headers = {"Location": "/login"} if status == 302 else {}
        app.route("/page", methods=["POST"])(lambda: ("", status, headers))
        result = run("check", "--webhooks", f"{url}/page")
        assert result.output.splitlines()[-1] == f"Error: {url}/page answers {status}: {meaning}."

    def test_a_host_that_is_not_there_is_told_and_no_proxy_asked(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
        last = run("check", "--webhooks", "http://127.0.0.1:1/x").output.splitlines()[-1]
        assert last == "Error: http://127.0.0.1:1/x cannot be reached: nothing listens there."

    @pytest.mark.parametrize("wrong", ["127.0.0.1:5000", "shop.example", "http://", "http://[::x"])
    def test_what_is_no_url_is_refused(self, api: Any, run: Run, wrong: str) -> None:
        result = run("check", "--webhooks", wrong)
        assert result.exit_code == 1
        assert f"Error: {wrong} cannot be reached: " in result.output
        assert " URL" in result.output or " schema" in result.output
        assert api.calls == []


class TestTrigger:
    @pytest.mark.parametrize(
        ("data", "sent"), [((), {}), (('{"n": 1}',), {"n": 1}), (("[1]",), [1])]
    )
    def test_it_publishes(self, api: Any, run: Run, data: tuple[str, ...], sent: Any) -> None:
        assert run("trigger", "news", "flash", *data).exit_code == 0
        assert api.events == [("news", "flash", sent)]

    def test_where_nothing_is_sent_it_says_so(self, make_app: MakeApp) -> None:
        app = make_app(Pusher(), PUSHER_BACKEND="log")
        output = app.test_cli_runner().invoke(args=["pusher", "trigger", "news", "flash"]).output
        assert output.endswith("Nothing was sent: PUSHER_BACKEND is 'log'.\n")
        assert "ublished to" not in output

    def test_text_is_published_as_it_is(self, api: Any, run: Run) -> None:
        assert run("trigger", "news", "flash", "hello there").exit_code == 0
        assert api.calls[0].body["data"] == "hello there"

    def test_a_refusal_is_one_line_and_a_failure(self, api: Any, run: Run) -> None:
        result = run("trigger", "a b", "flash")
        assert (result.exit_code, api.calls) == (1, [])
        assert result.output.startswith("Error: A channel's name has 1 to 200 of the characters")

    def test_it_says_how_many_were_subscribed(self, api: Any, run: Run) -> None:
        for count, said in ((0, "0 subscribers"), (1, "1 subscriber"), (2, "2 subscribers")):
            answer = {"channels": {"news": {"subscription_count": count}}}
            api.answers.append((200, json.dumps(answer)))
            assert run("trigger", "news", "flash").output == f"Published to {said}.\n"
            assert api.calls[-1].body["info"] == "subscription_count"

    def test_a_server_that_does_not_count_leaves_the_count_out(self, api: Any, run: Run) -> None:
        api.answers.append((200, "{}"))
        assert run("trigger", "news", "flash").output == "Published.\n"
        assert len(api.calls) == 1

    @pytest.mark.parametrize("channels", [None, [], {"news": None}])
    def test_an_answer_of_another_kind_is_one_line_and_a_failure(
        self, api: Any, run: Run, channels: Any
    ) -> None:
        api.answers.append((200, json.dumps({"channels": channels})))
        result = run("trigger", "news", "flash")
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert "gave an answer of another form" in result.output

    def test_nothing_is_asked_about_an_encrypted_channel(
        self, app: Flask, api: Any, run: Run
    ) -> None:
        app.config["PUSHER_ENCRYPTION_MASTER_KEY_BASE64"] = "A" * 43 + "="
        assert run("trigger", "private-encrypted-x", "flash").output == "Published.\n"
        assert "info" not in api.calls[0].body

    def test_a_refusal_of_the_server_is_not_tried_again(self, api: Any, run: Run) -> None:
        api.answers.append((403, "over quota"))
        result = run("trigger", "news", "flash")
        assert (result.exit_code, len(api.calls)) == (1, 1)
        assert result.output.endswith("refuses: PusherForbidden: over quota\n")

    @pytest.mark.usefixtures("no_collection")
    @pytest.mark.parametrize(
        "data",
        ['{"n": 1', "[1,", "[NaN]", '{"n": -Infinity}', '"text', "{'n': 1}", " {", "[" * 100_000],
    )
    def test_what_looks_like_json_and_is_none_is_refused(
        self, api: Any, run: Run, data: str
    ) -> None:
        result = run("trigger", "news", "flash", data)
        assert (result.exit_code, api.calls) == (2, [])
        assert "it looks like JSON and is none (" in " ".join(result.output.split())
        assert "--text" in result.output

    def test_it_is_sent_as_text_if_that_is_asked_for(self, api: Any, run: Run) -> None:
        assert run("trigger", "--text", "news", "flash", "{'n': 1}").exit_code == 0
        assert api.calls[0].body["data"] == "{'n': 1}"


class TestChannels:
    def test_it_lists_the_channels(self, api: Any, run: Run) -> None:
        api.answers.append((200, '{"channels": {"b": {}, "a": null}}'))
        assert run("channels").output == "a\nb\n"

    def test_it_counts_the_members_of_presence_channels(self, api: Any, run: Run) -> None:
        api.answers.append((200, '{"channels": {"presence-x": {"user_count": 2}}}'))
        assert run("channels", "--prefix", "presence-").output == "presence-x  2\n"
        query = api.calls[0].query
        assert (query["filter_by_prefix"], query["info"]) == ("presence-", "user_count")

    def test_a_prefix_that_no_channel_has_is_refused(self, api: Any, run: Run) -> None:
        result = run("channels", "--prefix", "a&info=x")
        assert (result.exit_code, api.calls) == (1, [])
        assert "A-Z a-z 0-9" in result.output

    def test_a_refusal_is_one_line_and_a_failure(self, api: Any, run: Run) -> None:
        api.answers.append((401, "no"))
        result = run("channels")
        assert (result.exit_code, result.output.count("\n")) == (1, 1)


class TestUsers:
    def test_it_lists_the_users(self, api: Any, run: Run) -> None:
        api.answers.append((200, '{"users": [{"id": "ana"}, {"id": "ben"}]}'))
        assert run("users", "presence-x").output == "ana\nben\n"
        assert api.calls[0].path == "/apps/1/channels/presence-x/users"

    def test_no_users_id_hides_another_or_commands_the_terminal(self, api: Any, run: Run) -> None:
        ids = ["Жук", "a\ud800", "x\ny", "\x1b]0;owned\x07", "ana"]
        api.answers.append((200, json.dumps({"users": [{"id": one} for one in ids]})))
        result = run("users", "presence-x")
        assert result.output.splitlines() == [
            *("Жук", r"a\ud800", r"x\ny", r"\x1b]0;owned\x07", "ana")
        ]
        assert result.exit_code == 0

    def test_an_answer_of_another_kind_is_one_line_and_a_failure(self, api: Any, run: Run) -> None:
        for arguments in (("users", "presence-x"), ("channels",)):
            api.answers.append((200, '{"users": null, "channels": {"a": 5}}'))
            result = run(*arguments)
            assert (result.exit_code, result.output.count("\n")) == (1, 1)

    def test_a_refusal_is_one_line_and_a_failure(self, api: Any, run: Run) -> None:
        api.answers.append((400, "not a presence channel"))
        result = run("users", "news")
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert "not a presence channel" in result.output


class TestServe:
    @pytest.fixture
    def served(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """What the local server was asked for, in place of running it."""
        served: list[dict[str, Any]] = []
        monkeypatch.setattr(local, "serve", lambda app, **options: served.append(options))
        return served

    def test_it_serves_the_application(
        self, run: Run, served: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        assert run("serve").exit_code == 0
        assert served == [
            {
                "host": None,
                "port": None,
                "quiet": False,
                "webhooks": None,
                "webhook_delay": 3,
                "without": "",
                "certificate": None,
                "private_key": None,
            }
        ]

    def test_each_option_is_followed(
        self, run: Run, served: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        url, file = "http://127.0.0.1:5000", tmp_path / "a.pem"
        file.write_text("")
        options = ["--host", "::1", "--port", "0", "--quiet", "--webhooks", url]
        options += ["--webhook-delay", "0.5", "--without", "client-events"]
        assert run("serve", *options, "--cert", str(file), "--key", str(file)).exit_code == 0
        assert served == [
            {
                "host": "::1",
                "port": 0,
                "quiet": True,
                "webhooks": (url,),
                "webhook_delay": 0.5,
                "without": "client-events",
                "certificate": str(file),
                "private_key": str(file),
            }
        ]

    def test_a_port_that_cannot_be_is_refused(self, run: Run) -> None:
        result = run("serve", "--port", "70000")
        assert result.exit_code == 2
        assert "0<=x<=65535" in result.output

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (ImportError("needs aiohttp"), "Error: needs aiohttp\n"),
            (ValueError("no such URL"), "Error: no such URL\n"),
            (OSError(errno.ENOENT, "No such file"), "Error: [Errno 2] No such file\n"),
        ],
    )
    def test_what_keeps_it_from_running_is_one_line(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
    ) -> None:
        def serve(app: Flask, **options: Any) -> None:
            raise error

        monkeypatch.setattr(local, "serve", serve)
        result = run("serve")
        assert (result.exit_code, result.output) == (1, said)


def test_the_commands_describe_themselves(app: Flask, run: Run) -> None:
    run("--help")
    shown = app.test_cli_runner().invoke(args=["--help"]).output
    assert "pusher  Pusher Channels: look at it, publish, run a local server." in shown


def may_follow(channel_name: str, socket_id: str, order_id: int) -> bool:
    return True


def may_follow_code(channel_name: str, socket_id: str, n: str) -> bool:
    return True


def may_subscribe(channel_name: str, socket_id: str, name: str = "") -> bool:
    return True


def member(channel_name: str, socket_id: str, room: str) -> dict[str, Any]:
    return {}


def user(socket_id: str) -> None: ...


def on_presence() -> None: ...


def on_event(event: dict[str, Any]) -> None: ...


def on_event_of(event: dict[str, Any], n: int) -> None: ...


class AsyncBackend:
    """An HTTP adapter whose answers are awaited, as the client's for aiohttp is."""

    def __init__(self, client: Any, answer: Any) -> None:
        self.answer = answer

    async def send_request(self, request: Any) -> Any:
        return self.answer


REFUSAL = {"error": "no", "code": 403}
NO_ANSWER = "The answer is not one of Channels, but"
IS_IT = "Do PUSHER_HOST and PUSHER_PORT name a Channels server?"
REFUSED = "http://127.0.0.1:1 refuses: PusherForbidden: no\n"


@pytest.mark.parametrize(
    ("command", "answer", "said"),
    [
        ("channels", {"channels": {"a": {}}}, "a\n"),
        ("users presence-x", {"users": [{"id": "ana"}]}, "ana\n"),
        ("trigger news flash", {}, "Published.\n"),
        ("check", {"channels": {}}, "http://127.0.0.1:1 accepts these credentials.\n"),
        ("check", None, f"{NO_ANSWER} of type NoneType. {IS_IT}\n"),
        ("check", [], f"{NO_ANSWER} of type list. {IS_IT}\n"),
        ("channels", REFUSAL, REFUSED),
        ("users presence-x", REFUSAL, REFUSED),
        ("trigger news flash", REFUSAL, REFUSED),
        ("check", REFUSAL, REFUSED),
    ],
)
def test_an_asynchronous_backend_is_awaited(
    make_app: MakeApp, command: str, answer: Any, said: str
) -> None:
    app = make_app(
        Pusher(),
        PUSHER_HOST="127.0.0.1",
        PUSHER_PORT=1,
        PUSHER_SSL=False,
        PUSHER_BACKEND=AsyncBackend,
        PUSHER_BACKEND_OPTIONS={"answer": answer},
    )
    output = app.test_cli_runner().invoke(args=["pusher", *command.split()]).output
    last = "".join(output.splitlines(keepends=True)[-1:])
    assert last.removeprefix("Error: ") == said

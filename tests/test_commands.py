"""The commands of ``flask pusher``."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_pusher import Pusher

MakeApp = Callable[..., Flask]
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
    def test_it_shows_what_is_in_force_and_that_the_server_accepts_it(
        self, app: Flask, api: Any, run: Run
    ) -> None:
        app.config.update(
            PUSHER_CLUSTER="eu",
            PUSHER_AUTH="/subscribe",
            PUSHER_ENCRYPTION_MASTER_KEY_BASE64="A" * 43 + "=",
            PUSHER_CLIENT_OPTIONS={"activityTimeout": 1000},
        )
        api.answers.append((200, '{"channels": {}}'))
        result = run("check")
        assert result.exit_code == 0
        shown = dict(line.split(maxsplit=1) for line in result.output.splitlines()[:16])
        assert shown == {
            "PUSHER_APP_ID": "1",
            "PUSHER_KEY": "a-key",
            "PUSHER_SECRET": "(set, not shown)",
            "PUSHER_CLUSTER": "eu",
            "PUSHER_HOST": "127.0.0.1",
            "PUSHER_PORT": str(api.port),
            "PUSHER_SSL": "False",
            "PUSHER_TIMEOUT": "5",
            "PUSHER_BACKEND": "requests",
            "PUSHER_BACKEND_OPTIONS": "(not set)",
            "PUSHER_ENCRYPTION_MASTER_KEY_BASE64": "(set, not shown)",
            "PUSHER_AUTH": "/pusher/subscribe",
            "PUSHER_USER_AUTH": "/pusher/user-auth",
            "PUSHER_WEBHOOK_MAX_AGE": "600",
            "PUSHER_AUTH_MAX_CHANNELS": "500",
            "PUSHER_CLIENT_OPTIONS": '{"activityTimeout": 1000}',
        }
        urls = dict(line.strip().rsplit(maxsplit=1) for line in result.output.splitlines()[18:24])
        assert urls == {
            "every kind": "https://YOUR-SITE/pusher/events",
            "channel_occupied, channel_vacated": (
                "https://YOUR-SITE/pusher/events/channel_existence"
            ),
            "member_added, member_removed": "https://YOUR-SITE/pusher/events/presence",
            "client_event": "https://YOUR-SITE/pusher/events/client",
            "cache_miss": "https://YOUR-SITE/pusher/events/cache",
            "subscription_count": "https://YOUR-SITE/pusher/events/subscription_count",
        }
        assert result.output.endswith(f"http://127.0.0.1:{api.port} accepts these credentials.\n")
        assert api.calls[0].path == "/apps/1/channels"

    @pytest.mark.parametrize(
        ("status", "body", "said"),
        [
            (401, "Invalid\n\nsignature\n", "PusherBadAuth: Invalid signature"),
            (200, '{"error": "no such key", "code": 401}', "PusherBadAuth: no such key"),
            (403, "disabled", "PusherForbidden: disabled"),
            (404, "no app 1", "404: no app 1"),
            (500, "", "500"),
            (200, "<html>", "JSONDecodeError"),
        ],
    )
    def test_a_refusal_is_one_line_and_a_failure(
        self, api: Any, run: Run, status: int, body: str, said: str
    ) -> None:
        api.answers.append((status, body))
        result = run("check")
        assert result.exit_code == 1
        last = result.output.splitlines()[-1]
        assert last.startswith(f"Error: http://127.0.0.1:{api.port}")
        assert said in last
        assert "accepts" not in result.output

    def test_a_server_that_does_not_answer_is_one_line_and_a_failure(
        self, app: Flask, run: Run
    ) -> None:
        app.config["PUSHER_PORT"] = "1"
        result = run("check")
        assert result.exit_code == 1
        assert "Error: http://127.0.0.1:1: ConnectionError: " in result.output.splitlines()[-1]

    def test_it_shows_the_whole_url_where_the_application_knows_its_name(
        self, app: Flask, run: Run
    ) -> None:
        app.config.update(SERVER_NAME="shop.example", PREFERRED_URL_SCHEME="https")
        output = run("check").output
        assert " https://shop.example/pusher/events/presence\n" in output
        assert "PUSHER_AUTH                         /pusher/auth\n" in output

    def test_it_knows_the_older_form_of_the_master_key(self, app: Flask, run: Run) -> None:
        app.config["PUSHER_ENCRYPTION_MASTER_KEY"] = "k" * 32
        with pytest.warns(UserWarning, match="deprecated"):
            Pusher(app)
        assert "MASTER_KEY_BASE64 (set, not shown)\n" in run("check").output

    def test_it_names_another_backend(self, app: Flask, run: Run) -> None:
        app.config["PUSHER_BACKEND"] = "pusher.requests.RequestsBackend"
        assert "pusher.requests.RequestsBackend" in run("check").output


class TestTrigger:
    @pytest.mark.parametrize(
        ("data", "sent"), [((), {}), (('{"n": 1}',), {"n": 1}), (("[1]",), [1])]
    )
    def test_it_publishes(self, api: Any, run: Run, data: tuple[str, ...], sent: Any) -> None:
        assert run("trigger", "news", "flash", *data).exit_code == 0
        assert api.events == [("news", "flash", sent)]

    def test_text_is_published_as_it_is(self, api: Any, run: Run) -> None:
        assert run("trigger", "news", "flash", "hello there").exit_code == 0
        assert api.calls[0].body["data"] == "hello there"

    def test_a_refusal_is_one_line_and_a_failure(self, api: Any, run: Run) -> None:
        result = run("trigger", "a b", "flash")
        assert (result.exit_code, api.calls) == (1, [])
        assert result.output == "Error: ValueError: Invalid Channel: a b\n"


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
        assert (result.exit_code, api.calls) == (2, [])
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
    def test_it_serves_the_application(
        self, app: Flask, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served: list[Any] = []
        local = ModuleType("_flask_pusher.local")
        local.serve = lambda *args, **options: served.append((args, options))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "_flask_pusher.local", local)
        assert run("serve").exit_code == 0
        url = "http://127.0.0.1:5000"
        options = ["--host", "::1", "--port", "0", "--quiet", "--webhooks", url]
        assert run("serve", *options).exit_code == 0
        assert served == [
            ((app,), {"host": "127.0.0.1", "port": 6001, "quiet": False, "webhooks": None}),
            ((app,), {"host": "::1", "port": 0, "quiet": True, "webhooks": (url,)}),
        ]

    def test_a_port_that_cannot_be_is_refused(self, run: Run) -> None:
        result = run("serve", "--port", "70000")
        assert result.exit_code == 2
        assert "0<=x<=65535" in result.output

    def test_without_its_extra_it_says_what_to_install(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def without_aiohttp(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "aiohttp":
                raise ModuleNotFoundError(name="aiohttp")
            return real_import(name, *args, **kwargs)

        real_import = builtins.__import__
        monkeypatch.setattr(builtins, "__import__", without_aiohttp)
        result = run("serve")
        assert result.exit_code == 1
        assert 'needs aiohttp: pip install "Flask-Pusher[local]"' in result.output


class AsyncBackend:
    """An HTTP adapter whose answers are awaited, as the client's for aiohttp is."""

    def __init__(self, client: Any, answer: Any) -> None:
        self.answer = answer

    async def send_request(self, request: Any) -> Any:
        return self.answer


REFUSAL = {"error": "no", "code": 403}
REFUSED = "http://127.0.0.1:1 refuses: PusherForbidden: no\n"


@pytest.mark.parametrize(
    ("command", "answer", "said"),
    [
        ("channels", {"channels": {"a": {}}}, "a\n"),
        ("users presence-x", {"users": [{"id": "ana"}]}, "ana\n"),
        ("trigger news flash", {}, ""),
        ("check", {}, "http://127.0.0.1:1 accepts these credentials.\n"),
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

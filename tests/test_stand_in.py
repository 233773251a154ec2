"""An application without a service: ``PUSHER_BACKEND = "log"``."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, render_template_string

from flask_pusher import Client, Pusher

INFO = ["subscription_count"]


@pytest.fixture
def pusher() -> Pusher:
    return Pusher()


@pytest.fixture
def app(pusher: Pusher, caplog: pytest.LogCaptureFixture) -> Flask:
    """An application as it is on a developer's machine, with no credentials at all."""
    app = Flask("an_app")
    app.config.update(PUSHER_BACKEND="log", PUSHER_PUBLISHER="request")
    pusher.init_app(app)
    caplog.set_level(logging.INFO)

    @app.post("/ship/<int:status>")
    def ship(status: int) -> tuple[str, int]:
        pusher.defer("private-order-7", "shipped", {"by": "truck"})
        return "", status

    return app


@pytest.fixture
def client(app: Flask) -> Client:
    client: Client = app.extensions["pusher"]
    return client


def test_an_event_is_logged_by_the_application_and_not_sent(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.trigger(["a", "b"], "flash", {"n": 1}) == {}
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("an_app", """Not published, PUSHER_BACKEND is 'log': 'flash' on a b: {"n": 1}""")
    ]


def test_a_copy_of_the_client_logs_as_a_client_does_that_no_application_has(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    copy.deepcopy(client).trigger("a", "flash", {})
    assert [record.name for record in caplog.records] == ["flask_pusher"]


def test_each_event_of_a_batch_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    batch = [{"channel": name, "name": "flash", "data": "text"} for name in "ab"]
    client.trigger_batch(batch)
    assert [record.getMessage().rpartition("'log': ")[2] for record in caplog.records] == [
        "'flash' on a: text",
        "'flash' on b: text",
    ]


@pytest.mark.parametrize(
    ("ask", "logged", "answer"),
    [
        (lambda c: c.channels_info(), "GET /apps/log/channels", {"channels": {}}),
        (
            lambda c: c.channel_info("news", INFO),
            "GET /apps/log/channels/news",
            {"occupied": False, "subscription_count": 0},
        ),
        (
            lambda c: c.users_info("presence-x"),
            "GET /apps/log/channels/presence-x/users",
            {"users": []},
        ),
        (
            lambda c: c.terminate_user_connections(7),
            "POST /apps/log/users/7/terminate_connections",
            {},
        ),
    ],
)
def test_a_question_is_logged_and_answered_as_by_an_empty_service(
    client: Client,
    caplog: pytest.LogCaptureFixture,
    ask: Callable[[Client], Any],
    logged: str,
    answer: Any,
) -> None:
    assert ask(client) == answer
    assert caplog.messages == [f"Not asked, PUSHER_BACKEND is 'log': {logged}"]


def test_what_would_be_refused_for_real_is_refused(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="A channel's name has"):
        client.trigger("a b", "flash", {})
    assert caplog.messages == []


def test_what_a_request_defers_is_logged_if_it_succeeded(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    browser = app.test_client()
    browser.post("/ship/500")
    assert caplog.messages == []
    browser.post("/ship/200")
    assert caplog.messages == [
        "Not published, PUSHER_BACKEND is 'log': 'shipped' on private-order-7: {\"by\": \"truck\"}"
    ]


def test_browsers_are_authorised_and_signed_in(app: Flask, pusher: Pusher) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.user_auth(lambda socket_id: {"id": 7})
    browser = app.test_client()
    form = {"socket_id": "1.2", "channel_name": "presence-x"}
    assert browser.post("/pusher/auth", data=form).get_json()["auth"].startswith("log:")
    form = {"socket_id": "1.2"}
    assert browser.post("/pusher/user-auth", data=form).get_json()["auth"].startswith("log:")


def test_a_page_can_be_rendered(app: Flask) -> None:
    with app.test_request_context():
        page = render_template_string("{{ PUSHER_KEY }} {{ pusher_options()|tojson }}")
    key, _, options = page.partition(" ")
    assert key == "log"
    assert json.loads(options)["channelAuthorization"]["endpoint"] == "/pusher/auth"


def test_nobody_can_guess_the_secret_by_which_webhooks_are_accepted() -> None:
    secrets = set()
    for _ in range(2):
        app = Flask("an_app")
        app.config["PUSHER_BACKEND"] = "log"
        Pusher(app)
        secrets.add(app.extensions["pusher"].secret)
    assert len(secrets) == 2
    assert all(len(secret) == 64 for secret in secrets)


def test_credentials_that_are_set_are_used() -> None:
    app = Flask("an_app")
    app.config.update(
        PUSHER_BACKEND="log", PUSHER_URL="https://a-key:a-secret@h.example/apps/7", PUSHER_KEY="b"
    )
    Pusher(app)
    client = app.extensions["pusher"]
    assert (client.app_id, client.key, client.secret) == ("7", "b", "a-secret")


def test_check_says_that_nothing_is_sent(app: Flask) -> None:
    result = app.test_cli_runner().invoke(args=["pusher", "check"])
    assert result.exit_code == 0
    assert result.output.endswith("\nNothing is sent: PUSHER_BACKEND is 'log'.\n")
    assert "accepts these credentials" not in result.output


def test_a_client_made_by_hand_logs_as_flask_pusher(caplog: pytest.LogCaptureFixture) -> None:
    from _flask_pusher.stand_in import LogBackend

    caplog.set_level(logging.INFO)
    Client("1", "a-key", "a-secret", backend=LogBackend).trigger("news", "flash", {})
    assert [record.name for record in caplog.records] == ["flask_pusher"]

"""``flask pusher`` tells what a running server says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask

from flask_pusher import Pusher

from .conftest import NewName, OpenPage


@pytest.fixture
def stranger(pusher: Pusher, make_app: Callable[..., Flask]) -> Flask:
    """An application that has the wrong secret."""
    app = make_app()
    app.config["PUSHER_SECRET"] = "another secret"
    Pusher(app)
    app.extensions["pusher"].address = pusher.client.address
    return app


def test_events_and_queries_go_through(
    server: str, app: Flask, pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.channel_data(lambda channel_name, socket_id: {"user_id": "ana"})
    room = new_name("presence-room")
    page = open_page()
    page.subscribe(room)

    # soketi counts members only where it is asked about one channel.
    listed = f"{room}\n" if server == "soketi" else f"{room}  1\n"
    # It does not say either how many an event reached.
    published = "Published.\n" if server == "soketi" else "Published to 1 subscriber.\n"
    flask = app.test_cli_runner()
    for arguments, output in [
        (["trigger", room, "headline", '{"n": 1}'], published),
        (["channels", "--prefix", room], listed),
        (["users", room], "ana\n"),
    ]:
        result = flask.invoke(args=["pusher", *arguments])
        assert (result.exit_code, result.output) == (0, output)
    assert page.event(room, "headline") == {"n": 1}


def test_check_says_that_the_server_accepts_the_credentials(app: Flask, pusher: Pusher) -> None:
    result = app.test_cli_runner().invoke(args=["pusher", "check"])

    assert result.exit_code == 0
    assert result.output.endswith("accepts these credentials.\n")


@pytest.mark.parametrize("arguments", [["check"], ["trigger", "news", "headline"], ["channels"]])
def test_a_wrong_secret_is_one_line_and_an_exit_code(
    server: str, stranger: Flask, arguments: list[str]
) -> None:
    with stranger.app_context():
        result = stranger.test_cli_runner().invoke(args=["pusher", *arguments])

    assert result.exit_code == 1
    complaint = result.output.splitlines()[-1]
    assert complaint.startswith("Error: http://127.0.0.1:")
    why = "secret authentication failed" if server == "soketi" else "have the same secret?"
    assert why in complaint
    assert "accepts" not in result.output

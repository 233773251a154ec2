"""What a test may ask of the server."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from _flask_pusher.local import ChannelView, ConnectionView, LocalServer, local_server
from flask_pusher import Client, Pusher

from .peers import APP_ID, KEY, SECRET, Browser, Connect


def test_who_subscribes_is_waited_for(server: LocalServer, connect: Connect) -> None:
    first, second = connect(), connect()

    def subscribe() -> None:
        first.ask_to_subscribe("news")
        second.ask_to_subscribe("news")

    later = threading.Timer(0.1, subscribe)
    later.start()
    server.wait_for("news", subscribers=2, timeout=20)
    assert set(server.channels["news"].subscribers) == {first.socket_id, second.socket_id}
    server.wait_for("news")
    first.close()
    second.close()
    server.wait_for("news", subscribers=0, timeout=20)
    assert server.channels == {}


def test_who_does_not_come_is_an_error_that_says_who_is_there(
    server: LocalServer, connect: Connect
) -> None:
    browser = connect()
    browser.ask_to_subscribe("private-news")
    server.wait_for("private-news")
    with pytest.raises(TimeoutError) as raised:
        server.wait_for("private-news", subscribers=2, timeout=0.05)
    assert str(raised.value) == "private-news has 1 subscribers after 0.05 seconds, not 2"


def test_who_was_refused_is_an_error_that_says_why(server: LocalServer, connect: Connect) -> None:
    browser = connect()
    browser.send("pusher:subscribe", {"channel": "private-news"})
    browser.expect("pusher:subscription_error")
    with pytest.raises(TimeoutError, match=r"not 1; last refused: .* carries no auth"):
        server.wait_for("private-news", timeout=0.05)


def test_what_there_is_can_be_asked_for(server: LocalServer, connect: Connect) -> None:
    assert (server.channels, server.connections) == ({}, {})
    ana, ben = connect(), connect()
    ana.sign_in(id="ana")
    ana.subscribe("presence-room", {"user_id": "ana", "user_info": {"name": "Ana"}})
    ben.subscribe("presence-room", {"user_id": "ben"})
    ben.subscribe("news")
    assert server.channels == {
        "presence-room": ChannelView(
            (ana.socket_id, ben.socket_id), {"ana": {"name": "Ana"}, "ben": None}
        ),
        "news": ChannelView((ben.socket_id,), {}),
    }
    assert server.connections == {
        ana.socket_id: ConnectionView("ana", ("presence-room",)),
        ben.socket_id: ConnectionView(None, ("presence-room", "news")),
    }


@pytest.mark.parametrize("code", [4200, 4001, 4100])
def test_connections_are_closed_with_the_code_that_a_test_wants(
    server: LocalServer, connect: Connect, code: int
) -> None:
    browsers = [connect() for _ in range(3)]
    browsers[0].subscribe("news")
    server.disconnect(code)
    assert (server.channels, server.connections) == ({}, {})
    for browser in browsers:
        assert browser.expect_error() == {"code": code, "message": "Disconnected by a test"}
        assert browser.expect_closed().code == code
    connect().subscribe("news")


@pytest.mark.parametrize("code", [0, 1000, 3999, 5000])
def test_a_code_that_is_none_of_channels_is_an_error(server: LocalServer, code: int) -> None:
    with pytest.raises(ValueError, match=f"code is from 4000 to 4999, not {code}"):
        server.disconnect(code)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_time_only_moves_on(server: LocalServer, seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds is a number of seconds above 0"):
        server.advance(seconds)


def test_time_that_jumps_leaves_a_connection_its_time_to_answer(
    server: LocalServer, connect: Connect
) -> None:
    browser = connect()
    server.advance(100_000)
    browser.expect("pusher:ping")
    browser.send("pusher:pong")
    browser.expect_nothing()
    assert list(server.connections) == [browser.socket_id]


ASKING: list[Callable[[LocalServer], Any]] = [
    lambda server: server.channels,
    lambda server: server.connections,
    lambda server: server.wait_for("news"),
    lambda server: server.disconnect(),
    lambda server: server.advance(1),
]


@pytest.mark.parametrize("ask", ASKING)
def test_a_stopped_server_answers_no_more(app: Flask, ask: Callable[[LocalServer], Any]) -> None:
    with local_server(app) as server:
        pass
    with pytest.raises(RuntimeError, match="The server is stopped"):
        ask(server)


def test_who_waits_for_a_server_that_is_stopped_waits_no_longer(app: Flask) -> None:
    server = local_server(app)
    later = threading.Timer(0.1, server.stop)
    later.start()
    with pytest.raises(RuntimeError, match="The server is stopped"):
        server.wait_for("news", timeout=60)
    later.join()


def test_who_asks_while_the_server_stops_is_answered_or_told(app: Flask) -> None:
    """An event loop drops what it is given between its last turn and its end."""

    def ask(server: LocalServer) -> None:
        with contextlib.suppress(RuntimeError):
            while True:
                server.channels  # noqa: B018

    for _ in range(30):
        with local_server(app) as server:
            threads = [threading.Thread(target=ask, args=[server], daemon=True) for _ in range(3)]
            for thread in threads:
                thread.start()
            server.wait_for("news", subscribers=0)
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda server: server.wait_for("news", timeout=float("nan")), ValueError),
        (lambda server: server.wait_for("news", timeout=0), ValueError),
        (lambda server: server.wait_for("news", timeout="1"), TypeError),
        (lambda server: server.wait_for("news", subscribers=-1), ValueError),
        (lambda server: server.wait_for("news", subscribers="1"), TypeError),
        (lambda server: server.disconnect(4200.5), TypeError),
        (lambda server: server.disconnect("4200"), TypeError),
    ],
)
def test_what_makes_no_sense_is_an_error_and_not_waited_for(
    server: LocalServer, ask: Callable[[LocalServer], Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ask(server)


def test_an_application_whose_settings_have_a_path_is_served_below_it() -> None:
    app = Flask(__name__)
    app.config.update(
        PUSHER_URL=f"https://{KEY}:{SECRET}@channels.example/real/time/apps/{APP_ID}"
    )
    pusher = Pusher(app)
    with local_server(app) as server, app.app_context():
        address = (server.host, server.port)
        browser = Browser(address, f"/real/time/app/{KEY}?protocol=7").established()
        browser.subscribe("news")
        pusher.client.trigger("news", "e", {})
        browser.expect("e")
        browser.close()
        elsewhere = Browser(address, f"/app/{KEY}?protocol=7")
        assert elsewhere.expect_error() == {
            "code": 4005,
            "message": f"Path /app/{KEY} not found, connect to /real/time/app/KEY",
        }
        elsewhere.close()


def test_limits_are_those_that_were_asked_for(
    app: Flask, client: Client, connect: Connect
) -> None:
    with local_server(
        app,
        members_per_channel=1,
        user_info_bytes=10,
        event_bytes=5,
        client_events_per_second=1,
    ):
        ana, ben = connect(), connect()
        ana.ask_to_subscribe("presence-a", {"user_id": "ana", "user_info": {"name": "Ana"}})
        assert "is 14 bytes, over 10" in ana.expect("pusher:subscription_error")[1]["error"]
        ana.subscribe("presence-a", {"user_id": "ana"})
        ben.ask_to_subscribe("presence-a", {"user_id": "ben"})
        assert "has 1 members" in ben.expect("pusher:subscription_error")[1]["error"]
        with pytest.raises(Exception, match="data of e is 6 bytes, over 5"):
            client.trigger("news", "e", "123456")
        ana.send("client-x", "123456", "presence-a")
        assert "over 5 bytes" in ana.expect_error()["message"]
        ana.send_together(*[("client-x", "12345", "presence-a")] * 2)
        assert ana.expect_error()["message"] == "Over 1 client events in a second"

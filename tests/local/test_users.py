from __future__ import annotations

import json

import pytest

from flask_pusher import Client

from .peers import KEY, Api, Connect, eventually, refusals, sign

pytestmark = pytest.mark.usefixtures("server")


def test_a_signed_in_user_gets_what_is_sent_to_that_user(client: Client, connect: Connect) -> None:
    ana, ben = connect(), connect()
    for browser, name in ((ana, "ana"), (ben, "ben")):
        browser.sign_in(id=name)
        assert browser.subscribe(f"#server-to-user-{name}") == {}
    client.send_to_user("ana", "note", {"text": "for you"})
    assert ana.receive() == {
        "event": "note",
        "channel": "#server-to-user-ana",
        "data": '{"text": "for you"}',
    }
    ben.expect_nothing()
    assert client.channels_info() == {"channels": {}}


def test_the_longest_user_id_is_reached(client: Client, connect: Connect) -> None:
    browser, user_id = connect(), "x" * 128
    browser.sign_in(id=user_id)
    browser.subscribe(f"#server-to-user-{user_id}")
    client.send_to_user(user_id, "note", {})
    browser.expect("note")


@pytest.mark.parametrize("user", [None, "ben"])
def test_nobody_else_gets_a_users_events(connect: Connect, user: str | None) -> None:
    browser = connect()
    if user is not None:
        browser.sign_in(id=user)
    browser.ask_to_subscribe("#server-to-user-ana")
    _, data = browser.expect("pusher:subscription_error")
    assert data == {"type": "AuthError", "error": "Only user ana, signed in, may", "status": 401}


def test_a_user_signs_in_once_on_a_connection(connect: Connect) -> None:
    browser = connect()
    browser.sign_in(id="ana")
    browser.ask_to_sign_in(id="ben")
    error = browser.expect_error()
    assert error == {
        "code": None,
        "message": "This connection is signed in already, as user ana",
    }
    browser.ask_to_subscribe("#server-to-user-ben")
    browser.expect("pusher:subscription_error")


@pytest.mark.parametrize(
    ("user_data", "words"),
    [
        ("{", "user_data is not JSON"),
        ("[]", "user_data needs an id"),
        ("{}", "user_data needs an id"),
        ('{"id": 7}', "user_data needs an id"),
        ('{"id": ""}', "user_data needs an id"),
        ('{"id": "a b"}', "user_data needs an id"),
        ('{"id": "#server-to-user-a"}', "user_data needs an id"),
        (json.dumps({"id": "x" * 129}), "user_data needs an id: up to 128 of"),
        ('{"id": "ana", "user_info": "Ana"}', "user_info is not a JSON object"),
        ('{"id": "ana", "watchlist": "ben"}', "watchlist is not a list"),
        ('{"id": "ana", "watchlist": [7]}', "watchlist is not a list"),
    ],
)
def test_user_data_that_names_no_user_ends_the_connection(
    connect: Connect, caplog: pytest.LogCaptureFixture, user_data: str, words: str
) -> None:
    browser = connect()
    auth = f"{KEY}:{sign(f'{browser.socket_id}::user::{user_data}')}"
    browser.send("pusher:signin", {"auth": auth, "user_data": user_data})
    error = browser.expect_error()
    assert error["code"] == 4009
    assert words in error["message"]
    assert browser.expect_closed().code == 4009
    assert words in refusals(caplog)[0]


@pytest.mark.parametrize(
    ("signed", "words"),
    [
        ("1.1::user::{user_data}", "the signature is not by this key and secret"),
        ("{other}::user::{user_data}", "the signature is for another socket id, {other}"),
        ("{own}:{user_data}", "the signature is not by this key and secret"),
    ],
)
def test_a_sign_in_with_a_wrong_signature_ends_the_connection(
    connect: Connect, signed: str, words: str
) -> None:
    other, browser = connect(), connect()
    user_data = '{"id": "ana"}'
    ids = {"other": other.socket_id, "own": browser.socket_id}
    auth = f"{KEY}:{sign(signed.format(user_data=user_data, **ids))}"
    browser.send("pusher:signin", {"auth": auth, "user_data": user_data})
    assert browser.expect_error() == {
        "code": 4009,
        "message": "Unauthorised: " + words.format(**ids),
    }
    assert browser.expect_closed().code == 4009
    other.expect_nothing()


@pytest.mark.parametrize("data", [{}, {"auth": "x"}, {"user_data": "{}"}, {"auth": 1}])
def test_a_sign_in_with_parts_missing_ends_the_connection(
    connect: Connect, data: dict[str, object]
) -> None:
    browser = connect()
    browser.send("pusher:signin", data)
    assert "needs auth and user_data, both text" in browser.expect_error()["message"]
    assert browser.expect_closed().code == 4009


def test_a_signed_in_user_joins_presence_channels_as_that_user(
    client: Client, connect: Connect
) -> None:
    browser = connect()
    browser.sign_in(id="ana", user_info={"name": "Ana"})
    data = browser.subscribe("presence-room")
    assert data["presence"]["hash"] == {"ana": {"name": "Ana"}}
    assert client.users_info("presence-room") == {"users": [{"id": "ana"}]}


def test_a_users_connections_are_closed_at_the_applications_command(
    client: Client, connect: Connect, api: Api
) -> None:
    tab, other_tab, ben, nobody = (connect() for _ in range(4))
    for browser, name in ((tab, "ana"), (other_tab, "ana"), (ben, "ben")):
        browser.sign_in(id=name)
    other_tab.subscribe("news")
    assert client.terminate_user_connections("ana") == {}
    for browser in (tab, other_tab):
        assert browser.expect_error() == {"code": 4009, "message": "Closed by the application"}
        assert browser.expect_closed().code == 4009
    ben.expect_nothing()
    nobody.expect_nothing()
    assert client.channels_info() == {"channels": {}}
    assert api.post("/users/nobody/terminate_connections", {}).json() == {}


def test_a_user_hears_who_on_the_watchlist_is_online(connect: Connect) -> None:
    ben = connect()
    ben.sign_in(id="ben")
    ana = connect()
    ana.sign_in(id="ana", watchlist=["ben", "cem", "ben"])
    message, data = ana.expect("pusher_internal:watchlist_events")
    assert "channel" not in message
    assert data == {
        "events": [
            {"name": "online", "user_ids": ["ben"]},
            {"name": "offline", "user_ids": ["cem"]},
        ]
    }
    cem, second_cem = connect(), connect()
    cem.sign_in(id="cem")
    second_cem.sign_in(id="cem")
    _, data = ana.expect("pusher_internal:watchlist_events")
    assert data == {"events": [{"name": "online", "user_ids": ["cem"]}]}
    ana.expect_nothing()
    cem.close()
    second_cem.close()
    _, data = ana.expect("pusher_internal:watchlist_events")
    assert data == {"events": [{"name": "offline", "user_ids": ["cem"]}]}
    ben.expect_nothing()


def test_a_user_who_has_left_watches_nobody(connect: Connect, client: Client) -> None:
    ana, other = connect(), connect()
    ana.sign_in(id="ana", watchlist=["ben", "ana"])
    _, data = ana.expect("pusher_internal:watchlist_events")
    assert [event["name"] for event in data["events"]] == ["online", "offline"]
    other.sign_in(id="other", watchlist=["ben"])
    other.expect("pusher_internal:watchlist_events")
    ana.subscribe("news")
    ana.close()
    eventually(lambda: client.channels_info() == {"channels": {}})
    connect().sign_in(id="ben")
    other.expect("pusher_internal:watchlist_events")
    other.expect_nothing()

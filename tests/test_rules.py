"""Channels' rules: what is a name, an id, and of which kind a channel is."""

from __future__ import annotations

from typing import Any

import pytest

from _flask_pusher import rules


@pytest.mark.parametrize("name", ["a", "x" * 200, "Az09_-=@,.;", "private-x"])
def test_a_channels_name_has_1_to_200_of_the_characters(name: str) -> None:
    assert rules.is_channel_name(name)


@pytest.mark.parametrize(
    "name", ["", "x" * 201, "a b", "a/b", "#a", "é", "a\n", "\n", "\u0661", b"a", None, 5, ["a"]]
)
def test_anything_else_is_no_channels_name(name: Any) -> None:
    assert not rules.is_channel_name(name)


@pytest.mark.parametrize("user_id", ["7", "ana@shop.example", "x" * 184])
def test_a_users_id_leaves_room_for_what_its_channel_begins_with(user_id: str) -> None:
    assert rules.is_user_id(user_id)
    assert len(rules.SERVER_TO_USER + user_id) <= rules.NAME_LENGTH


@pytest.mark.parametrize("user_id", ["", "x" * 185, "a b", 7, None])
def test_anything_else_is_no_users_id(user_id: Any) -> None:
    assert not rules.is_user_id(user_id)


@pytest.mark.parametrize("socket_id", ["1.2", "0.0", f"{'1' * 20}.{'2' * 20}"])
def test_a_socket_id_is_digits_a_dot_and_digits(socket_id: str) -> None:
    assert rules.is_socket_id(socket_id)


@pytest.mark.parametrize(
    "socket_id",
    ["", "1", "1.", ".2", "1.2.3", "1.2\n", " 1.2", "\u0661.\u0662", "1" * 21 + ".2", 1.2, None],
)
def test_anything_else_is_no_socket_id(socket_id: Any) -> None:
    assert not rules.is_socket_id(socket_id)


@pytest.mark.parametrize("app_id", ["7", "app-id", "App_1"])
def test_an_apps_id_is_what_self_hosted_servers_have_too(app_id: str) -> None:
    assert rules.is_app_id(app_id)


@pytest.mark.parametrize("app_id", ["", "a b", "a/b", "a?b", 7, None])
def test_anything_else_is_no_apps_id(app_id: Any) -> None:
    assert not rules.is_app_id(app_id)


KINDS = [
    # channel, presence, encrypted, cache, needs authorisation
    ("news", False, False, False, False),
    ("cache-news", False, False, True, False),
    ("private-x", False, False, False, True),
    ("private-cache-x", False, False, True, True),
    ("private-encrypted-x", False, True, False, True),
    ("private-encrypted-cache-x", False, True, True, True),
    ("presence-x", True, False, False, True),
    ("presence-cache-x", True, False, True, True),
    ("Private-x", False, False, False, False),
    ("x-private-", False, False, False, False),
    ("privately", False, False, False, False),
]


@pytest.mark.parametrize(("channel", "presence", "encrypted", "cache", "authorised"), KINDS)
def test_a_channel_is_of_the_kind_that_its_name_begins_with(
    channel: str, presence: bool, encrypted: bool, cache: bool, authorised: bool
) -> None:
    assert rules.is_presence(channel) is presence
    assert rules.is_encrypted(channel) is encrypted
    assert rules.is_cache(channel) is cache
    assert rules.needs_authorisation(channel) is authorised


@pytest.mark.parametrize(
    ("channel", "carries"),
    [
        ("private-x", True),
        ("presence-x", True),
        ("private-cache-x", True),
        ("private-encrypted-x", False),
        ("news", False),
        ("cache-x", False),
    ],
)
def test_pages_send_events_to_each_other_where_a_server_knows_and_can_read_them(
    channel: str, carries: bool
) -> None:
    assert rules.carries_client_events(channel) is carries


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("#server-to-user-7", True),
        ("#server-to-user-ana@shop.example", True),
        ("#server-to-user-", False),
        ("#server-to-user-a b", False),
        (f"#server-to-user-{'x' * 185}", False),
        ("server-to-user-7", False),
        ("news", False),
    ],
)
def test_a_users_channel_ends_with_an_id(name: str, is_one: bool) -> None:
    assert rules.is_user_channel(name) is is_one


def test_each_event_of_a_webhook_is_of_one_group() -> None:
    assert len(set(rules.WEBHOOK_EVENTS)) == len(rules.WEBHOOK_EVENTS) == 7

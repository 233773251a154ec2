"""An application that entered one URL for all webhooks, which come in batches of mixed kinds."""

from __future__ import annotations

from typing import Any

import pytest
from flask import request

from flask_pusher import Pusher

from .conftest import NewName, OpenPage
from .inbox import Inbox
from .servers import Site


@pytest.fixture
def webhooks(site: Site) -> list[dict[str, Any]]:
    names = [
        "channel_occupied",
        "channel_vacated",
        "member_added",
        "member_removed",
        "client_event",
        "cache_miss",
    ]
    return [{"url": f"{site.url}/pusher/events", "event_types": names, "batch": True}]


def test_each_handler_hears_what_is_for_it_in_a_batch(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    room = new_name("presence-room")
    batches, added, told_of_clients = Inbox(), Inbox(), Inbox()

    def names() -> list[str]:
        """The events' names, without those of earlier tests."""
        return [one["name"] for one in request.get_json()["events"] if one["channel"] == room]

    @pusher.webhooks.presence
    def members() -> None:
        batches.put({"names": names()})

    @pusher.webhooks.client
    def client_events() -> None:
        if found := names():
            told_of_clients.put({"names": found})

    pusher.webhooks.event("member_added")(added.put)
    page = open_page()
    page.subscribe(room)

    batches.wait_for({"names": ["channel_occupied", "member_added"]})
    added.wait_for({"name": "member_added", "channel": room, "user_id": page.socket_id})
    assert told_of_clients.items == []


def test_members_can_be_counted_from_webhooks_alone(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    room = new_name("presence-room")
    counts = Inbox()
    present: set[str] = set()

    @pusher.webhooks.event("member_added")
    def arrived(event: dict[str, Any]) -> None:
        if event["channel"] == room:
            present.add(event["user_id"])
            counts.put({"count": len(present)})

    @pusher.webhooks.event("member_removed")
    def left(event: dict[str, Any]) -> None:
        if event["channel"] == room:
            present.discard(event["user_id"])
            counts.put({"count": len(present)})

    pages = [open_page(), open_page()]
    for page in pages:
        page.subscribe(room)
    counts.wait_for({"count": 2})
    for page in pages:
        page.close()
    counts.wait_for({"count": 0})

"""What the server tells of pages reaches the application's handlers, a route for each group."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request

from flask_pusher import Pusher

from .conftest import NewName, OpenPage, Serve
from .inbox import Inbox


def keep_events(inbox: Inbox) -> Callable[[], None]:
    """A group's handler that puts each event into an inbox."""

    def handler() -> None:
        assert request.json is not None
        for event in request.json["events"]:
            inbox.put(event)

    return handler


def test_the_application_hears_that_a_channel_is_occupied_and_vacated(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    heard = Inbox()
    pusher.webhooks.channel_existence(keep_events(heard))
    news = new_name("news")
    page = open_page()

    page.subscribe(news)
    heard.wait_for({"name": "channel_occupied", "channel": news})
    page.close()
    heard.wait_for({"name": "channel_vacated", "channel": news})


def test_the_application_hears_of_members(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.channel_data(lambda channel_name, socket_id: {"user_id": 7})
    heard = Inbox()
    pusher.webhooks.presence(keep_events(heard))
    room = new_name("presence-room")
    pages = [open_page(), open_page()]

    for page in pages:
        page.subscribe(room)
    heard.wait_for({"name": "member_added", "channel": room, "user_id": "7"})
    for page in pages:
        page.close()
    heard.wait_for({"name": "member_removed", "channel": room, "user_id": "7"})
    assert len([event for event in heard.items if event["channel"] == room]) == 2


def test_the_application_hears_what_pages_tell_each_other(
    server: str, pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.channel_data(lambda channel_name, socket_id: {"user_id": "ana"})
    heard = Inbox()
    pusher.webhooks.client(keep_events(heard))
    room, chat = new_name("presence-room"), new_name("private-chat")
    page, other = open_page(), open_page()
    for each in (page, other):
        each.subscribe(room, chat)

    for channel in (room, chat):
        page.run("name => pusher.channel(name).trigger('client-typing', {n: 1})", channel)
        assert other.event(channel, "client-typing") == {"n": 1}

    # soketi passes on what the page sent; the hosted service has the data as text, as elsewhere.
    data = {"n": 1} if server == "soketi" else '{"n":1}'
    for channel, user in ((room, {"user_id": "ana"}), (chat, {})):
        event = heard.wait_for({"name": "client_event", "channel": channel})
        assert event == {
            "name": "client_event",
            "channel": channel,
            "event": "client-typing",
            "data": data,
            "socket_id": page.socket_id,
            **user,
        }
    assert page.events(room) == page.events(chat) == []


def test_the_application_hears_that_a_cache_is_empty(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    heard = Inbox()
    pusher.webhooks.cache(keep_events(heard))
    scores = new_name("cache-scores")
    page = open_page()

    page.subscribe(scores)

    heard.wait_for({"name": "cache_miss", "channel": scores})


# soketi 1.6.1 does not know these events.
@pytest.mark.parametrize("server", ["local"], indirect=True)
def test_the_application_and_the_page_hear_how_many_subscribe(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    heard = Inbox()
    pusher.webhooks.subscription_count(keep_events(heard))
    news = new_name("news")
    page, other = open_page(), open_page()

    page.subscribe(news)
    heard.wait_for({"name": "subscription_count", "channel": news, "subscription_count": 1})
    other.subscribe(news)
    heard.wait_for({"name": "subscription_count", "channel": news, "subscription_count": 2})

    page.wait_until(f"pusher.channel('{news}').subscriptionCount === 2")


# The local server knows the application's own secret.
@pytest.mark.parametrize("server", ["soketi"], indirect=True)
def test_a_webhook_signed_with_another_secret_is_not_heard(
    make_app: Callable[..., Flask],
    serve: Serve,
    open_page: OpenPage,
    new_name: NewName,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app()
    app.config["PUSHER_SECRET"] = "another secret"
    pusher = Pusher(app)
    heard, refused = Inbox(), Inbox()
    pusher.webhooks.channel_existence(keep_events(heard))

    @app.after_request
    def keep_refusal(response: Any) -> Any:
        if response.status_code == 403:
            for event in request.get_json()["events"]:
                refused.put({"path": request.path, **event})
        return response

    serve(app)
    news = new_name("news")
    page = open_page()
    with caplog.at_level(logging.WARNING, logger=app.logger.name):
        page.subscribe(news)
        path = "/pusher/events/channel_existence"
        refused.wait_for({"path": path, "name": "channel_occupied", "channel": news})

    assert "X-Pusher-Signature is missing, or not by its key's secret" in caplog.text
    assert heard.items == []

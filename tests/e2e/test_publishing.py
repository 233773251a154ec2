"""What the application publishes reaches the pages that it is for, and no others."""

from __future__ import annotations

import pytest
from flask import Flask, request
from pusher.errors import PusherBadAuth

from flask_pusher import Client, Pusher

from .conftest import NewName, OpenPage, Serve


def test_an_event_on_a_public_channel_reaches_the_page(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    news = new_name("news")
    page = open_page()
    page.subscribe(news)

    pusher.client.trigger(news, "headline", {"text": "Ålesund ☂", "stars": [1, None]})

    assert page.event(news, "headline") == {"text": "Ålesund ☂", "stars": [1, None]}


def test_one_trigger_reaches_several_channels_and_none_else(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    news, sport, music = new_name("news"), new_name("sport"), new_name("music")
    page = open_page()
    page.subscribe(news, sport, music)

    pusher.client.trigger([news, sport], "headline", "a text")
    pusher.client.trigger(music, "song", "another")

    assert page.event(music, "song") == "another"
    assert page.events(news) == page.events(sport) == [["headline", "a text"]]
    assert page.events(music) == [["song", "another"]]


def test_a_batch_reaches_its_channels_in_order(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    news, sport = new_name("news"), new_name("sport")
    page = open_page()
    page.subscribe(news, sport)

    pusher.client.trigger_batch(
        [
            {"channel": news, "name": "first", "data": {"n": 1}},
            {"channel": sport, "name": "second", "data": {"n": 2}},
            {"channel": news, "name": "third", "data": {"n": 3}},
        ]
    )

    page.event(news, "third")
    assert page.events(news) == [["first", {"n": 1}], ["third", {"n": 3}]]
    assert page.events(sport) == [["second", {"n": 2}]]


def test_an_encrypted_event_is_decrypted_in_the_page(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    diary = new_name("private-encrypted-diary")
    page = open_page("/encrypted.html")
    page.subscribe(diary)

    pusher.client.trigger(diary, "entry", {"text": "Ålesund ☂"})

    assert page.event(diary, "entry") == {"text": "Ålesund ☂"}


def test_a_cache_channel_gives_its_last_event_to_those_who_come_later(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    scores = new_name("cache-scores")
    early, late = open_page(), open_page()
    early.subscribe(scores)
    assert early.event(scores, "pusher:cache_miss") in (None, {})

    pusher.client.trigger(scores, "goal", {"n": 1})
    pusher.client.trigger(scores, "goal", {"n": 2})
    late.subscribe(scores)

    assert late.event(scores, "goal") == {"n": 2}


@pytest.fixture
def chat(app: Flask, serve: Serve) -> Pusher:
    """An application with a view that publishes what a page posted, sparing that page."""
    pusher = Pusher(app)

    @app.post("/say/<channel>")
    def say(channel: str) -> str:
        pusher.client.trigger(channel, "said", request.args["text"], pusher.socket_id)
        return ""

    serve(app)
    return pusher


SAY_WITH = {
    "a form": """([url]) => fetch(url, {
        method: "POST",
        body: new URLSearchParams({ socket_id: pusher.connection.socket_id }),
    })""",
    "a header": """([url]) => fetch(url, {
        method: "POST",
        headers: { "X-Socket-ID": pusher.connection.socket_id },
    })""",
    "Laravel Echo": "([url]) => axios.post(url)",
}


@pytest.mark.parametrize("way", SAY_WITH)
def test_the_page_that_caused_an_event_is_spared_it(
    chat: Pusher, app: Flask, open_page: OpenPage, new_name: NewName, way: str
) -> None:
    room = new_name("room")
    sender, other = open_page("/echo.html"), open_page()
    sender.subscribe(room)
    other.subscribe(room)

    sender.run(SAY_WITH[way], [f"/say/{room}?text=hello"])
    app.extensions["pusher"].trigger(room, "said", "to all")

    assert other.event(room, "said") == "hello"
    assert sender.event(room, "said") == "to all"


def test_queries_tell_who_is_where(pusher: Pusher, open_page: OpenPage, new_name: NewName) -> None:
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.channel_data(lambda channel_name, socket_id: {"user_id": 7})
    room, news = new_name("presence-room"), new_name("news")
    for page in (open_page(), open_page()):
        page.subscribe(room, news)

    assert pusher.client.users_info(room) == {"users": [{"id": "7"}]}

    rooms = pusher.client.channels_info(room, ["user_count"])["channels"]
    assert list(rooms) == [room]

    about_room = pusher.client.channel_info(room, ["user_count", "subscription_count"])
    assert about_room == {"occupied": True, "user_count": 1, "subscription_count": 2}
    assert pusher.client.channel_info(news, ["subscription_count"]) == {
        "occupied": True,
        "subscription_count": 2,
    }
    assert not pusher.client.channel_info(new_name("empty"))["occupied"]


def test_a_client_with_another_secret_is_refused(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    host, port, ssl = pusher.client.address
    stranger = Client(
        pusher.client.app_id, pusher.client.key, "another secret", host=host, port=port, ssl=ssl
    )
    news = new_name("news")
    page = open_page()
    page.subscribe(news)

    # soketi means 401, but sends its CORS headers before the status, and with them a 200.
    with pytest.raises(PusherBadAuth):
        stranger.trigger(news, "forged", {})
    pusher.client.trigger(news, "genuine", {})

    page.event(news, "genuine")
    assert page.events(news) == [["genuine", {}]]

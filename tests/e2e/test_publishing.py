"""What the application publishes reaches the pages that it is for."""

from __future__ import annotations

from flask_pusher import Pusher

from .conftest import NewName, OpenPage


def test_an_event_on_a_public_channel_reaches_the_page(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    news = new_name("news")
    page = open_page()
    page.subscribe(news)

    pusher.client.trigger(news, "headline", {"text": "Ålesund ☂", "stars": [1, None]})

    assert page.event(news, "headline") == {"text": "Ålesund ☂", "stars": [1, None]}

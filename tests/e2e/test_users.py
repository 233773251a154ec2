"""Users sign in from their pages, are sent events, and are shut out."""

from __future__ import annotations

from typing import Any

import pytest
from flask import session

from flask_pusher import Pusher

from .conftest import NewName, OpenPage
from .pages import Page


def sign_in(page: Page) -> None:
    page.run("signIn()")
    page.wait_until("pusher.user.serverToUserChannel?.subscribed")


def test_an_event_for_a_user_reaches_that_users_pages_only(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    @pusher.user_auth
    def who(socket_id: str) -> dict[str, Any]:
        return {"id": session["user"], "user_info": {"name": session["user"].title()}}

    ana, ben = new_name("ana"), new_name("ben")
    desk, phone = open_page(f"/page.html/as/{ana}"), open_page(f"/page.html/as/{ana}")
    other = open_page(f"/page.html/as/{ben}")
    for page in (desk, phone, other):
        sign_in(page)

    pusher.client.send_to_user(ana, "note", {"text": "for Ana"})
    pusher.client.send_to_user(ben, "note", {"text": "for Ben"})

    assert desk.run("pusher.user.user_data") == {"id": ana, "user_info": {"name": ana.title()}}
    assert desk.event("user", "note") == phone.event("user", "note") == {"text": "for Ana"}
    assert other.event("user", "note") == {"text": "for Ben"}
    for page in (desk, phone, other):
        assert len(page.events("user")) == 1


def test_an_id_may_be_a_number(pusher: Pusher, open_page: OpenPage) -> None:
    pusher.user_auth(lambda socket_id: {"id": 2007})
    page = open_page()
    sign_in(page)

    pusher.client.send_to_user("2007", "note", "for you")

    assert page.event("user", "note") == "for you"


def test_who_is_refused_is_not_signed_in(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    asked: list[str] = []
    pusher.user_auth(asked.append)
    page = open_page()

    with page.browser_page.expect_response("**/pusher/user-auth") as response:
        page.run("signIn()")

    assert response.value.status == 403
    assert asked == [page.socket_id]
    assert page.run("pusher.user.user_data") is None


def test_a_users_connections_are_closed_and_stay_closed(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    pusher.user_auth(lambda socket_id: {"id": session["user"]})
    ana, ben = new_name("ana"), new_name("ben")
    desk, phone = open_page(f"/page.html/as/{ana}"), open_page(f"/page.html/as/{ana}")
    other = open_page(f"/page.html/as/{ben}")
    for page in (desk, phone, other):
        sign_in(page)

    pusher.client.terminate_user_connections(ana)

    for page in (desk, phone):
        page.wait_until("pusher.connection.state === 'disconnected'")
    pusher.client.send_to_user(ben, "note", "still here")
    assert other.event("user", "note") == "still here"
    assert other.run("pusher.connection.state") == "connected"


# soketi 1.6.1 has no watchlists.
@pytest.mark.parametrize("server", ["local"], indirect=True)
def test_a_page_hears_whether_those_it_watches_are_online(
    pusher: Pusher, open_page: OpenPage, new_name: NewName
) -> None:
    ana, ben = new_name("ana"), new_name("ben")
    pusher.user_auth(lambda socket_id: {"id": session["user"], "watchlist": [ben]})
    page, watched = open_page(f"/page.html/as/{ana}"), open_page(f"/page.html/as/{ben}")
    page.run("listen('watchlist', pusher.user.watchlist)")
    sign_in(page)

    sign_in(watched)
    assert page.event("watchlist", "online")["user_ids"] == [ben]
    watched.close()
    assert page.event("watchlist", "offline")["user_ids"] == [ben]

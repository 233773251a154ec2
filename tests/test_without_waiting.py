"""``trigger(..., wait=False)``: now, by the publisher, whatever becomes of the place."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from flask import Flask, g
from flask.testing import FlaskClient

from _flask_pusher.publisher import publisher
from flask_pusher import Pusher, RecordedEvent, publish_failed

if TYPE_CHECKING:
    from tests.conftest import MakeApp


@pytest.fixture
def pusher(app: Flask, api: Any) -> Pusher:
    return Pusher(app)


def names(api: Any) -> list[str]:
    publisher().flush()
    return [name for _, name, _ in api.events]


def test_nobody_waits_for_the_answer(app: Flask, pusher: Pusher, api: Any) -> None:
    may_answer = threading.Event()

    def answer(call: Any) -> tuple[int, str]:
        assert may_answer.wait(30)
        return 200, "{}"

    api.answer = answer
    with app.app_context():
        for number in range(5):
            # What it returns is nothing, which type checkers know.
            found: Any = pusher.trigger("a", f"step-{number}", {}, wait=False)
            assert found is None
        may_answer.set()
        assert names(api) == [f"step-{number}" for number in range(5)]


@pytest.mark.parametrize("fails", [False, True])
def test_the_outcome_of_a_request_does_not_matter(
    app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, fails: bool
) -> None:
    @app.get("/")
    def view() -> tuple[str, int]:
        pusher.defer("a", "deferred", {})
        pusher.trigger("a", "now", {}, "1.2", wait=False)
        assert names(api) == ["now"]
        return "", 500 if fails else 200

    browser.get("/").close()
    assert names(api) == ["now"] + ["deferred"] * (not fails)
    assert api.calls[0].body["socket_id"] == "1.2"


def test_a_job_goes_on_where_the_service_takes_nothing_and_what_is_lost_is_told(
    app: Flask, pusher: Pusher, api: Any
) -> None:
    lost: list[Any] = []

    @publish_failed.connect_via(app)
    def remember(sender: Any, events: list[RecordedEvent], **extra: Any) -> None:
        lost.extend(event.name for event in events)

    api.answer = lambda call: (401, "Unauthorized")
    with app.app_context():
        pusher.trigger("a", "step", {}, wait=False)
    publisher().flush()
    api.until(lambda: lost == ["step"])


def test_what_is_refused_is_refused_at_the_call(app: Flask, pusher: Pusher, api: Any) -> None:
    with app.app_context():
        for channels, name, data, error in (
            ("a b", "one", {}, ValueError),
            ([], "one", {}, ValueError),
            ("a", "one", object(), TypeError),
            ("a", "one", float("nan"), ValueError),
        ):
            with pytest.raises(error):
                pusher.trigger(channels, name, data, wait=False)
        with pytest.raises(ValueError, match="info asks for one"):
            pusher.trigger("a", "one", {}, info=["user_count"], wait=False)  # type: ignore[call-overload]
    assert names(api) == []


def test_it_is_past_hand_over(app: Flask, pusher: Pusher, browser: FlaskClient, api: Any) -> None:
    queued: list[Any] = []
    pusher.hand_over(queued.append)

    @app.get("/")
    def view() -> str:
        pusher.trigger("a", "now", {}, wait=False)
        return ""

    browser.get("/").close()
    assert (names(api), queued) == (["now"], [])


def test_it_is_recorded_at_once(
    app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
) -> None:
    @app.get("/")
    def view() -> tuple[str, int]:
        pusher.trigger("a", "now", {"n": 1}, wait=False)
        assert [event.name for event in events] == ["now"]
        return "", 500

    with app.app_context(), pusher.record_events() as events:
        browser.get("/")
    assert events == [RecordedEvent(["a"], "now", {"n": 1}, None)]
    assert names(api) == []


class TestWhereTheRequestPublishes:
    """``PUSHER_PUBLISHER="request"``."""

    @pytest.fixture
    def app(self, make_app: MakeApp) -> Flask:
        return make_app(PUSHER_PUBLISHER="request")

    @pytest.mark.parametrize("status", [200, 500])
    def test_it_leaves_when_the_request_ends_whatever_the_outcome(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any, status: int
    ) -> None:
        queued: list[Any] = []
        pusher.hand_over(queued.append)

        @app.get("/")
        def view() -> tuple[str, int]:
            pusher.trigger("a", "now", {}, wait=False)
            return "", status

        answer = browser.get("/")
        assert api.events == []
        answer.close()
        assert api.events == [("a", "now", {})]
        assert queued == []

    def test_an_exception_that_leaves_the_application_takes_nothing_along(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True

        @app.get("/")
        def view() -> str:
            pusher.trigger("a", "now", {}, wait=False)
            raise KeyError

        with pytest.raises(KeyError):
            browser.get("/")
        assert api.events == [("a", "now", {})]

    def test_outside_of_a_request_it_leaves_at_once(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        with app.app_context():
            pusher.trigger("a", "now", {}, wait=False)
            assert api.events == [("a", "now", {})]

    def test_it_comes_before_what_was_deferred_and_once(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/")
        def view() -> str:
            pusher.trigger("a", "piece", {}, wait=False)
            pusher.defer("a", "answered", {})
            return ""

        answer = browser.get("/")
        answer.close()
        answer.close()
        assert [name for _, name, _ in api.events] == ["piece", "answered"]

    def test_a_loss_that_is_told_ends_no_context_of_the_job(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        """As the end of one would take its session from it, and what that has not committed."""
        ends: list[str] = []
        app.teardown_appcontext(lambda _: ends.append("end"))
        told: list[Any] = []

        def receive(sender: Flask, events: list[RecordedEvent], **_: Any) -> None:
            told.append((g.job, ends[:]))
            pusher.defer("a", "again", {})
            assert api.events[-1] == ("a", "again", {})

        api.answers += [(400, "no")] * 2
        with publish_failed.connected_to(receive, app), app.app_context():
            g.job = 7
            pusher.trigger("a", "step", {}, wait=False)
            assert told == [(7, [])]
        assert (told, ends) == ([(7, [])], ["end"])
        assert [name for _, name, _ in api.events] == ["step", "again"]

    def test_at_the_end_of_a_job_it_is_told_in_a_context_of_its_own(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        """What the job's own context has is gone by then, and what is new there would never end."""
        ends: list[str] = []
        app.teardown_appcontext(lambda _: ends.append(g.pop("who", "the teller")))
        api.answers.append((400, "no"))
        with publish_failed.connected_to(lambda *_, **__: g.get("who"), app), app.app_context():
            g.who = "the job"
            pusher.defer("a", "one", {})
        assert ends == ["the job", "the teller"]

    def test_behind_the_response_it_leaves_at_once(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        app.add_url_rule("/", view_func=lambda: "")
        with app.test_client() as browser:
            browser.get("/").close()
            pusher.trigger("a", "later", {}, wait=False)
        assert api.events == [("a", "later", {})]


class TestUsers:
    """``pusher.user(id)``, a channel for all that publishes."""

    @pytest.mark.parametrize(
        ("user_id", "channel"),
        [
            (7, "#server-to-user-7"),
            ("ana", "#server-to-user-ana"),
            (UUID(int=1), f"#server-to-user-{UUID(int=1)}"),
        ],
    )
    def test_it_is_the_channel_of_a_signed_in_user(
        self, pusher: Pusher, user_id: Any, channel: str
    ) -> None:
        assert pusher.user(user_id) == channel

    @pytest.mark.parametrize("user_id", ["", "a b", None, "x" * 185, "#server-to-user-7", True])
    def test_what_is_no_id_has_none(self, pusher: Pusher, user_id: Any) -> None:
        with pytest.raises(ValueError, match="A user's id is"):
            pusher.user(user_id)

    @pytest.mark.parametrize("channel", ["#server-to-user-", "#server-to-user-a b", "#other", "#"])
    def test_no_other_name_may_begin_so(self, app: Flask, pusher: Pusher, channel: str) -> None:
        with app.app_context(), pytest.raises(ValueError, match="A channel's name has"):
            pusher.defer(channel, "notice", {})

    def test_every_way_takes_it(self, app: Flask, pusher: Pusher, api: Any) -> None:
        with app.app_context():
            ana = pusher.user("ana")
            pusher.defer([ana, "news"], "deferred", {})
            pusher.trigger(ana, "now", {})
            pusher.trigger(ana, "soon", {}, wait=False)
            assert names(api) == ["now", "soon"]
        assert names(api) == ["now", "soon", "deferred", "deferred"]
        with app.app_context(), pusher.record_events(channels={ana: 1}) as events:
            asked = pusher.trigger(ana, "now", {}, info=["subscription_count"])
        assert events == [RecordedEvent(["#server-to-user-ana"], "now", {}, None)]
        assert asked == {"channels": {ana: {"subscription_count": 1}}}

    def test_a_notice_follows_the_request(
        self, app: Flask, pusher: Pusher, browser: FlaskClient, api: Any
    ) -> None:
        @app.get("/<int:status>")
        def view(status: int) -> tuple[str, int]:
            pusher.defer(pusher.user(7), "notice", {})
            return "", status

        browser.get("/409").close()
        assert names(api) == []
        browser.get("/200").close()
        assert names(api) == ["notice"]
        assert api.calls[0].body["channels"] == ["#server-to-user-7"]

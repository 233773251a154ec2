"""Only the extension's own answer is a success on its routes, whatever else the application answers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response, abort, make_response, redirect, request, send_file
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from werkzeug.exceptions import Unauthorized

from flask_pusher import Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

PostWebhook = Callable[..., Any]

PAGES = ("/pusher/auth", "/pusher/user-auth")
LOGIN = "<h1>Log in</h1>"


class RefusedError(Exception):
    """An application's own."""


def to_login(*_error: Any) -> Any:
    return redirect("/login?next=secret")


def login_page(*_error: Any) -> Any:
    return LOGIN


def replaced(response: Response) -> Response:
    return make_response(LOGIN) if response.status_code == 200 else response


def changed(status: int) -> Callable[[Response], Response]:
    """Makes another answer of ours, and not another object."""

    def change(response: Response) -> Response:
        response.status_code = status
        response.headers["Location"] = "/login"
        return response

    return change


@pytest.fixture
def told(pusher: Pusher) -> list[str]:
    """What the handlers of an application were asked and told, which lets everybody in."""
    told: list[str] = []

    @pusher.auth
    def may_subscribe(channel_name: str, socket_id: str) -> bool:
        told.append(channel_name)
        return True

    @pusher.user_auth
    def user(socket_id: str) -> dict[str, int]:
        told.append(socket_id)
        return {"id": 7}

    @pusher.webhooks.presence
    def presence() -> None:
        told.append("presence")

    return told


def ask(browser: FlaskClient, path: str) -> Any:
    channel = {"channel_name": "private-a"} if path == "/pusher/auth" else {}
    return browser.post(path, data={"socket_id": "1.2", **channel})


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


def login_page_for_a_failure(app: Flask) -> None:
    """What sees the response raises, and so the last one of it is never asked."""
    app.register_error_handler(500, login_page)
    app.after_request(lambda response: response.missing)


ANSWERS: list[tuple[Callable[[Flask], Any], Exception | None, str]] = [
    (lambda app: app.before_request(to_login), None, "answers it with 302 FOUND /login"),
    (lambda app: app.before_request(login_page), None, "answers it with 200 OK"),
    (lambda app: app.before_request(lambda: ("", 204)), None, "answers it with 204 NO CONTENT"),
    (lambda app: app.after_request(replaced), None, "answers it with 200 OK"),
    (lambda app: app.after_request(changed(302)), None, "answers it with 302 FOUND /login"),
    (lambda app: app.after_request(changed(204)), None, "answers it with 204 NO CONTENT /login"),
    (lambda app: app.register_error_handler(401, to_login), Unauthorized(), "answers it with 302"),
    (lambda app: app.register_error_handler(401, login_page), Unauthorized(), "answers it with"),
    (
        lambda app: app.register_error_handler(RefusedError, to_login),
        RefusedError(),
        "answers it with 302 FOUND",
    ),
    (lambda app: app.register_error_handler(RefusedError, login_page), RefusedError(), "answers"),
    (lambda app: app.register_error_handler(Exception, login_page), KeyError(), "answers it with"),
    (lambda app: app.register_error_handler(500, login_page), ZeroDivisionError(), "answers it"),
    (login_page_for_a_failure, None, "answers it with 200 OK"),
]


@pytest.mark.parametrize(("answer_instead", "error", "said"), ANSWERS)
@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("is_before", [True, False])
def test_no_other_answer_is_an_authorisation(
    make_app: MakeApp,
    caplog: pytest.LogCaptureFixture,
    answer_instead: Callable[[Flask], Any],
    error: Exception | None,
    said: str,
    path: str,
    is_before: bool,
) -> None:
    def decide(*_arguments: str) -> Any:
        if error:
            raise error
        return {"id": 7} if path == "/pusher/user-auth" else True

    pusher, app = Pusher(), make_app()
    pusher.auth(decide)
    pusher.user_auth(decide)
    if is_before:
        answer_instead(app)
    pusher.init_app(app)
    if not is_before:
        answer_instead(app)
    answer = ask(app.test_client(), path)
    assert (answer.status_code, answer.text) == (403, "This user may not do that.")
    assert answer.mimetype == "text/plain"
    assert "Location" not in answer.headers
    (told,) = warnings_in(caplog)
    assert told.startswith(f"Refused at {path}: ")
    assert said in told
    assert "secret" not in told


class NoSessions(SecureCookieSessionInterface):
    """As where sessions are kept, and that is down."""

    def open_session(self, app: Flask, request: Any) -> Any:
        raise ConnectionError


def test_nor_is_a_page_for_a_session_that_cannot_be_opened(
    app: Flask, told: list[str], browser: FlaskClient, post_webhook: PostWebhook
) -> None:
    app.session_interface = NoSessions()
    app.register_error_handler(500, login_page)
    for path in PAGES:
        answer = ask(browser, path)
        assert (answer.status_code, answer.text) == (403, "This user may not do that.")
    assert post_webhook("/pusher/events/presence", BODY).status_code == 503
    assert told == []
    for path in ("/", "/pusher/page.js"):
        assert browser.get(path).text == LOGIN


def test_nor_is_a_page_for_a_host_that_is_not_trusted(
    app: Flask, told: list[str], post_webhook: PostWebhook, caplog: pytest.LogCaptureFixture
) -> None:
    if tuple(map(int, version("flask").split(".")[:2])) < (3, 1):
        pytest.skip("Flask has TRUSTED_HOSTS from 3.1 on")
    app.config["TRUSTED_HOSTS"] = ["shop.example"]
    app.register_error_handler(400, login_page)
    browser = app.test_client()
    for path in PAGES:
        answer = ask(browser, path)
        assert (answer.status_code, answer.text) == (403, "This user may not do that.")
    assert post_webhook("/pusher/events/presence", BODY).status_code == 503
    assert told == []
    assert len(warnings_in(caplog)) == 3
    for path in ("/", "/pusher/page.js"):
        assert browser.get(path).text == LOGIN


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize("path", PAGES)
def test_what_else_refuses_is_left_as_it_is(
    app: Flask,
    told: list[str],
    browser: FlaskClient,
    reasons: pytest.LogCaptureFixture,
    status: int,
    path: str,
) -> None:
    app.before_request(lambda: (LOGIN, status))
    answer = ask(browser, path)
    assert (answer.status_code, answer.text) == (status, LOGIN)
    assert told == []
    assert f"Refused at {path}: before the view the application answers it with" in (reasons.text)
    assert warnings_in(reasons) == []


def test_csrf_protection_that_refuses_is_warned_about(
    app: Flask, told: list[str], browser: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    app.extensions["csrf"] = "as Flask-WTF has it"
    app.before_request(lambda: ("The CSRF token is missing.", 400))
    assert ask(browser, "/pusher/auth").status_code == 400
    (warning,) = warnings_in(caplog)
    assert "csrf.exempt(pusher.blueprint)" in warning


def test_a_file_in_place_of_the_answer_is_closed(
    app: Flask, told: list[str], browser: FlaskClient, tmp_path: Path
) -> None:
    page = tmp_path / "login.html"
    page.write_text(LOGIN)
    opened: list[Any] = []

    @app.before_request
    def login() -> Any:
        response = send_file(page)
        opened.append(response.response)
        return response

    answer = ask(browser, "/pusher/auth")
    assert (answer.status_code, answer.text) == (403, "This user may not do that.")
    assert opened[0].file.closed


def test_a_compressed_page_is_no_compressed_refusal(
    app: Flask, told: list[str], browser: FlaskClient
) -> None:
    app.before_request(lambda: Response(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}))
    answer = ask(browser, "/pusher/auth")
    assert answer.text == "This user may not do that."
    assert "Content-Encoding" not in answer.headers


def test_what_is_refused_keeps_its_other_headers(
    app: Flask, told: list[str], browser: FlaskClient
) -> None:
    app.before_request(to_login)

    @app.after_request
    def allow(response: Response) -> Response:
        response.headers["Access-Control-Allow-Origin"] = "https://shop.example"
        return response

    answer = ask(browser, "/pusher/auth")
    assert answer.status_code == 403
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"


def test_our_answer_may_be_changed_as_long_as_it_is_the_same_one(
    app: Flask, told: list[str], browser: FlaskClient
) -> None:
    @app.after_request
    def sign(response: Response) -> Response:
        response.headers["X-Frame-Options"] = "DENY"
        response.set_cookie("seen", "yes")
        response.set_data(response.get_data() + b"\n")
        return response

    for path in PAGES:
        answer = ask(browser, path)
        assert answer.status_code == 200
        assert "auth" in answer.get_json()
        assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("path", [*PAGES, "/pusher/events", "/pusher/events/presence"])
def test_a_preflight_is_anybodys_to_answer(
    app: Flask, told: list[str], browser: FlaskClient, path: str
) -> None:
    app.before_request(lambda: ("", 204) if "X-Own" in request.headers else None)
    assert browser.options(path).status_code == 200
    assert browser.options(path, headers={"X-Own": "yes"}).status_code == 204


def test_other_routes_are_the_applications_own(
    app: Flask, told: list[str], browser: FlaskClient
) -> None:
    app.add_url_rule("/login", view_func=login_page)
    app.add_url_rule("/away", view_func=to_login)
    assert browser.get("/login").text == LOGIN
    assert browser.get("/away").status_code == 302
    assert browser.get("/nowhere").status_code == 404
    assert browser.get("/pusher/auth").status_code == 405


# -- Webhooks -------------------------------------------------------------------------------------

BODY = {"events": [{"name": "member_added", "channel": "presence-a", "user_id": "7"}]}


@pytest.mark.parametrize("path", ["/pusher/events", "/pusher/events/presence"])
@pytest.mark.parametrize(
    ("answer_instead", "status", "said"),
    [
        (
            lambda: redirect("https://localhost/pusher/events", 301),
            301,
            "with 301 MOVED PERMANENTLY https://localhost/pusher/events",
        ),
        (
            lambda: redirect("https://shop.example/?a=b", 308),
            308,
            "with 308 PERMANENT REDIRECT https://shop.example/",
        ),
        (to_login, 302, "answers it with 302 FOUND /login"),
        (login_page, 503, "answers it with 200 OK"),
        (lambda: ("", 204), 503, "answers it with 204 NO CONTENT"),
        (lambda: (LOGIN, 401), 401, "answers it with 401 UNAUTHORIZED"),
        (lambda: abort(400), 400, "answers it with 400 BAD REQUEST"),
    ],
)
def test_a_webhook_that_no_handler_saw_is_not_delivered(
    app: Flask,
    told: list[str],
    post_webhook: PostWebhook,
    caplog: pytest.LogCaptureFixture,
    path: str,
    answer_instead: Callable[[], Any],
    status: int,
    said: str,
) -> None:
    app.before_request(answer_instead)
    answer = post_webhook(path, BODY)
    assert answer.status_code == status
    assert told == []
    (warning,) = warnings_in(caplog)
    assert warning.startswith(f"Refused at {path}: before the view the application ")
    assert said in warning
    if status < 400:
        assert "Location" in answer.headers
    if status == 503:
        assert answer.text.startswith("This webhook was not delivered: ")
        assert re.search(said, answer.text)


def test_nor_is_one_whose_error_an_error_handler_makes_a_page_of(
    app: Flask, pusher: Pusher, post_webhook: PostWebhook, caplog: pytest.LogCaptureFixture
) -> None:
    @pusher.webhooks.presence
    def presence() -> None:
        raise RefusedError

    app.register_error_handler(RefusedError, login_page)
    app.register_error_handler(403, login_page)
    assert post_webhook("/pusher/events/presence", BODY).status_code == 503
    headers = {"X-Pusher-Signature": "0"}
    assert post_webhook("/pusher/events/presence", BODY, headers).status_code == 503
    assert "in an error handler or after the view" in warnings_in(caplog)[-1]


def test_nor_is_one_whose_answer_was_lost_by_what_sees_the_response(
    app: Flask, told: list[str], post_webhook: PostWebhook
) -> None:
    login_page_for_a_failure(app)
    for path in ("/pusher/events", "/pusher/events/presence"):
        answer = post_webhook(path, BODY)
        assert answer.status_code == 503
        assert answer.text.startswith("This webhook was not delivered: ")


@pytest.mark.parametrize("after", [changed(406), lambda _response: make_response(LOGIN, 406)])
def test_a_refusal_in_place_of_our_answer_is_told(
    app: Flask,
    told: list[str],
    browser: FlaskClient,
    post_webhook: PostWebhook,
    reasons: pytest.LogCaptureFixture,
    after: Callable[[Response], Response],
) -> None:
    """As a page's in vain, and as a mistake where a service tries again."""
    app.after_request(after)
    happened = "after the view the application answers it with 406 NOT ACCEPTABLE"
    for path in PAGES:
        assert ask(browser, path).status_code == 406
        assert happened in reasons.messages[-1]
    assert warnings_in(reasons) == []
    assert post_webhook("/pusher/events", BODY).status_code == 406
    (warning,) = warnings_in(reasons)
    assert happened in warning


def test_a_refusal_of_ours_is_told_once(
    told: list[str], post_webhook: PostWebhook, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"X-Pusher-Signature": "0"}
    assert post_webhook("/pusher/events/presence", BODY, headers).status_code == 403
    assert len(warnings_in(caplog)) == 1


def test_a_webhook_that_is_delivered_is_no_matter(
    told: list[str], post_webhook: PostWebhook, caplog: pytest.LogCaptureFixture
) -> None:
    assert post_webhook("/pusher/events/presence", json.dumps(BODY).encode()).status_code == 200
    assert told == ["presence"]
    assert warnings_in(caplog) == []

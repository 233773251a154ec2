"""The extensions and the server that applications use beside this one, as they are."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from flask import Flask, redirect, render_template_string
from flask.testing import FlaskClient
from flask_cors import CORS
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from flask_sqlalchemy import SQLAlchemy
from flask_talisman import Talisman
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from flask_pusher import Pusher

KEY, SECRET = "a-key", "a-secret"
SOCKET_ID = "123.456"
SHOP = "https://shop.example"


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.config.update(
        PUSHER_APP_ID="1",
        PUSHER_KEY=KEY,
        PUSHER_SECRET=SECRET,
        SECRET_KEY="signs-the-session",
        TESTING=True,
    )
    return app


@pytest.fixture
def pusher() -> Pusher:
    return Pusher()


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    return app.test_client()


def signature(text: str) -> str:
    return hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()


def subscribe(browser: FlaskClient, channel: str, **options: Any) -> TestResponse:
    """Ask for a channel as pusher-js does."""
    form = {"socket_id": SOCKET_ID, "channel_name": channel}
    return browser.post("/pusher/auth", data=form, **options)


def assert_authorises(answer: TestResponse, channel: str) -> None:
    assert answer.status_code == 200
    assert answer.json == {"auth": f"{KEY}:{signature(f'{SOCKET_ID}:{channel}')}"}


def deliver(
    browser: FlaskClient, group: str, *events: dict[str, str], **options: Any
) -> TestResponse:
    """Send a webhook as a Channels server does."""
    body = json.dumps({"time_ms": round(time.time() * 1000), "events": events})
    headers = {"X-Pusher-Key": KEY, "X-Pusher-Signature": signature(body)}
    path, content_type = f"/pusher/events/{group}", "application/json"
    return browser.post(path, data=body, headers=headers, content_type=content_type, **options)


class User(UserMixin):  # type: ignore[misc]  # it has no types
    def __init__(self, name: str) -> None:
        self.id = name


@pytest.fixture
def ana(app: Flask, pusher: Pusher, browser: FlaskClient) -> FlaskClient:
    """The browser of Ana, who has logged in, in an application where handlers ask who calls."""
    pusher.init_app(app)
    LoginManager(app).user_loader(User)

    @app.post("/login/<name>")
    def login(name: str) -> str:
        login_user(User(name))
        return "welcome"

    @pusher.auth("private-user-<name>")
    def may_follow(channel_name: str, socket_id: str, name: str) -> bool:
        return bool(current_user.is_authenticated and current_user.id == name)

    @pusher.auth("presence-lobby")
    def may_join(channel_name: str, socket_id: str) -> bool:
        return bool(current_user.is_authenticated)

    @pusher.channel_data
    def who(channel_name: str, socket_id: str) -> dict[str, str]:
        return {"user_id": current_user.id, "name": current_user.id.title()}

    @pusher.user_auth
    def user(socket_id: str) -> dict[str, str] | None:
        return {"id": current_user.id} if current_user.is_authenticated else None

    browser.post("/login/ana")
    return browser


def test_flask_login_says_who_may_follow_a_channel(ana: FlaskClient) -> None:
    assert_authorises(subscribe(ana, "private-user-ana"), "private-user-ana")
    assert subscribe(ana, "private-user-ben").status_code == 403


def test_flask_login_knows_a_stranger(ana: FlaskClient, app: Flask) -> None:
    stranger = app.test_client()
    assert subscribe(stranger, "private-user-ana").status_code == 403
    assert subscribe(stranger, "presence-lobby").status_code == 403
    form = {"socket_id": SOCKET_ID}
    assert stranger.post("/pusher/user-auth", data=form).status_code == 403


def test_flask_login_names_the_member(ana: FlaskClient) -> None:
    answer = subscribe(ana, "presence-lobby").json
    assert answer is not None
    member = json.loads(answer["channel_data"])
    assert member["user_id"] == "ana"
    assert member["user_info"] == {"name": "Ana"}
    signed = f"{SOCKET_ID}:presence-lobby:{answer['channel_data']}"
    assert answer["auth"] == f"{KEY}:{signature(signed)}"


def test_flask_login_signs_its_user_in(ana: FlaskClient) -> None:
    answer = ana.post("/pusher/user-auth", data={"socket_id": SOCKET_ID}).json
    assert answer is not None
    assert json.loads(answer["user_data"])["id"] == "ana"
    assert answer["auth"] == f"{KEY}:{signature(f'{SOCKET_ID}::user::' + answer['user_data'])}"


@pytest.fixture
def csrf(app: Flask, pusher: Pusher) -> CSRFProtect:
    """Protection of an application that authorises all who ask, and hears of empty channels."""
    csrf = CSRFProtect(app)
    pusher.init_app(app)
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.webhooks.channel_existence(lambda: None)

    @app.get("/token")
    def token() -> str:
        return render_template_string("{{ csrf_token() }}")

    @app.post("/pay")
    def pay() -> str:
        return "paid"

    return csrf


def test_csrf_protection_refuses_routes_that_are_not_exempt(
    csrf: CSRFProtect, browser: FlaskClient
) -> None:
    assert "CSRF token is missing" in subscribe(browser, "private-a").text
    assert subscribe(browser, "private-a").status_code == 400
    assert deliver(browser, "channel_existence").status_code == 400


def test_an_exempt_blueprint_passes_csrf_protection(
    csrf: CSRFProtect, pusher: Pusher, browser: FlaskClient
) -> None:
    csrf.exempt(pusher.blueprint)
    assert_authorises(subscribe(browser, "private-a"), "private-a")


def test_a_webhook_of_an_exempt_blueprint_passes_csrf_protection(
    csrf: CSRFProtect, pusher: Pusher, browser: FlaskClient
) -> None:
    csrf.exempt(pusher.blueprint)
    assert deliver(browser, "channel_existence").status_code == 200


def test_of_several_routes_one_can_be_exempt(
    csrf: CSRFProtect, app: Flask, pusher: Pusher, browser: FlaskClient
) -> None:
    """Flask-WTF, as others, knows a view by the names of its module and of its function."""
    csrf.exempt(app.view_functions["pusher.channel_existence_event"])
    assert deliver(browser, "channel_existence").status_code == 200
    assert deliver(browser, "presence").status_code == 400
    assert subscribe(browser, "private-a").status_code == 400


@pytest.fixture
def offline(app: Flask) -> None:
    app.config["PUSHER_BACKEND"] = "log"


@pytest.mark.parametrize(
    ("exempts", "said"),
    [
        (False, "answers 400: something before it refuses, CSRF protection for one."),
        (True, "takes webhooks (status 200)."),
    ],
)
def test_check_tells_whether_csrf_protection_lets_webhooks_through(
    offline: None, app: Flask, csrf: CSRFProtect, pusher: Pusher, exempts: bool, said: str
) -> None:
    if exempts:
        csrf.exempt(pusher.blueprint)
    server = make_server("127.0.0.1", 0, app)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.port}/pusher/events/channel_existence"
    try:
        result = app.test_cli_runner().invoke(args=["pusher", "check", "--webhooks", url])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert f"{url} {said}" in result.output
    assert result.exit_code == (0 if exempts else 1)


def test_an_exempt_blueprint_leaves_other_routes_protected(
    csrf: CSRFProtect, pusher: Pusher, browser: FlaskClient
) -> None:
    csrf.exempt(pusher.blueprint)
    assert browser.post("/pay").status_code == 400


def test_a_csrf_token_among_the_headers_needs_no_exemption(
    csrf: CSRFProtect, browser: FlaskClient
) -> None:
    headers = {"X-CSRFToken": browser.get("/token").text}
    assert_authorises(subscribe(browser, "private-a", headers=headers), "private-a")


@pytest.fixture
def cors(app: Flask, pusher: Pusher, browser: FlaskClient) -> FlaskClient:
    """A browser whose pages come from elsewhere; the shop's may ask for channels."""
    CORS(pusher.blueprint, origins=[SHOP], supports_credentials=True)
    pusher.init_app(app)
    pusher.auth(lambda channel_name, socket_id: channel_name == "private-a")

    @app.get("/elsewhere")
    def elsewhere() -> str:
        return "not for the shop"

    return browser


def preflight(browser: FlaskClient, origin: str) -> TestResponse:
    return browser.options(
        "/pusher/auth",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "X-CSRFToken",
        },
    )


def test_cors_answers_the_preflight_of_an_authorisation(cors: FlaskClient) -> None:
    answer = preflight(cors, SHOP)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == "X-CSRFToken"


def test_cors_lets_the_page_read_its_authorisation(cors: FlaskClient) -> None:
    answer = subscribe(cors, "private-a", headers={"Origin": SHOP})
    assert_authorises(answer, "private-a")
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP


@pytest.mark.parametrize(("channel", "status"), [("private-b", 403), ("private b", 400)])
def test_cors_lets_the_page_read_why_it_was_refused(
    cors: FlaskClient, channel: str, status: int
) -> None:
    answer = subscribe(cors, channel, headers={"Origin": SHOP})
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP


def test_cors_answers_no_other_origin(cors: FlaskClient) -> None:
    origin = "https://thief.example"
    assert "Access-Control-Allow-Origin" not in preflight(cors, origin).headers
    answer = subscribe(cors, "private-a", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_cors_of_the_blueprint_is_not_that_of_the_application(cors: FlaskClient) -> None:
    answer = cors.get("/elsewhere", headers={"Origin": SHOP})
    assert "Access-Control-Allow-Origin" not in answer.headers


# -- As their own documentation has it ------------------------------------------------------------


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


ANSWERS_TO_STRANGERS: list[tuple[Any, int]] = [
    ("Unauthorized", 403),
    (("Unauthorized", 401), 401),
    (("<h1>Log in</h1>", 200), 403),
    (redirect("/login"), 403),
]


@pytest.fixture(params=ANSWERS_TO_STRANGERS)
def login(request: pytest.FixtureRequest, app: Flask, pusher: Pusher) -> int:
    """The status with which Flask-Login's ``unauthorized_handler`` refuses strangers, in an
    application whose handlers are all below ``login_required``."""
    returned, status = request.param
    manager = LoginManager(app)
    manager.user_loader(User)
    manager.unauthorized_handler(lambda: returned)

    @app.post("/login/<name>")
    def log_in(name: str) -> str:
        login_user(User(name))
        return "welcome"

    @pusher.auth
    @login_required  # type: ignore[untyped-decorator]
    def may_follow(channel_name: str, socket_id: str) -> bool:
        return True

    @pusher.channel_data
    @login_required  # type: ignore[untyped-decorator]
    def who(channel_name: str, socket_id: str) -> dict[str, str]:
        return {"user_id": current_user.id}

    @pusher.user_auth
    @login_required  # type: ignore[untyped-decorator]
    def user(socket_id: str) -> dict[str, str]:
        return {"id": current_user.id}

    pusher.init_app(app)
    return int(status)


def test_whatever_flask_login_answers_strangers_with_lets_none_in(
    login: int, browser: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    for channel in ("private-a", "presence-a"):
        answer = subscribe(browser, channel)
        assert answer.status_code == login
        assert '"auth"' not in answer.text
    form = {"socket_id": SOCKET_ID}
    assert browser.post("/pusher/user-auth", data=form).status_code == login
    batch = {**form, "channel_name[0]": "private-a", "channel_name[1]": "presence-a"}
    parts = browser.post("/pusher/auth", data=batch).json
    assert parts == {"private-a": {"status": login}, "presence-a": {"status": login}}
    assert len(warnings_in(caplog)) == (5 if login == 403 else 0)
    browser.post("/login/ana")
    assert_authorises(subscribe(browser, "private-a"), "private-a")
    assert subscribe(browser, "presence-a").status_code == 200
    assert browser.post("/pusher/user-auth", data=form).status_code == 200


def test_a_dict_for_strangers_is_no_consent_and_no_user(
    app: Flask, pusher: Pusher, browser: FlaskClient
) -> None:
    manager = LoginManager(app)
    manager.user_loader(User)
    manager.unauthorized_handler(lambda: {"error": "log in"})
    pusher.auth(login_required(lambda channel_name, socket_id: True))
    pusher.user_auth(login_required(lambda socket_id: {"id": 7}))
    pusher.init_app(app)
    assert subscribe(browser, "private-a").status_code == 403
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(ValueError, match="should return as 'id' a number"):
        browser.post("/pusher/user-auth", data={"socket_id": SOCKET_ID})


def test_flask_logins_current_user_is_consent_when_it_is_a_user(
    app: Flask, pusher: Pusher, browser: FlaskClient
) -> None:
    LoginManager(app).user_loader(User)
    app.add_url_rule("/login", view_func=lambda: str(login_user(User("ana"))), methods=["POST"])
    pusher.auth(lambda channel_name, socket_id: current_user)
    pusher.init_app(app)
    assert subscribe(browser, "private-a").status_code == 403
    browser.post("/login")
    assert_authorises(subscribe(browser, "private-a"), "private-a")


@pytest.mark.parametrize(
    ("page", "status", "status_of_webhooks"),
    [
        (lambda error: (f"<p>{error.description}", 400), 400, 400),
        (lambda error: ("<p>Sorry", 403), 403, 403),
        (lambda error: "<p>Sorry", 403, 503),
    ],
)
def test_a_page_of_csrf_errors_is_no_authorisation_and_no_delivery(
    app: Flask,
    csrf: CSRFProtect,
    browser: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    page: Any,
    status: int,
    status_of_webhooks: int,
) -> None:
    app.register_error_handler(CSRFError, page)
    assert subscribe(browser, "private-a").status_code == status
    assert deliver(browser, "channel_existence").status_code == status_of_webhooks
    told = warnings_in(caplog)
    assert len(told) == 2
    assert all("csrf.exempt(pusher.blueprint)" in line for line in told)


@pytest.fixture
def strict(app: Flask, pusher: Pusher, browser: FlaskClient) -> FlaskClient:
    """A browser of an application that Flask-Talisman, as it is by default, keeps on https."""
    Talisman(app)
    pusher.init_app(app)
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.webhooks.presence(lambda: None)
    return browser


def test_talisman_redirects_to_https_which_is_no_authorisation_and_no_delivery(
    strict: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert subscribe(strict, "private-a").status_code == 403
    answer = deliver(strict, "presence")
    assert answer.status_code in (301, 302)
    assert answer.headers["Location"] == "https://localhost/pusher/events/presence"
    told = warnings_in(caplog)
    assert "FOUND https://localhost/pusher/auth" in told[0]
    assert "FOUND https://localhost/pusher/events/presence" in told[1]


def test_talisman_lets_https_through_and_adds_its_headers(strict: FlaskClient) -> None:
    https = {"X-Forwarded-Proto": "https"}
    answer = subscribe(strict, "private-a", headers=https)
    assert_authorises(answer, "private-a")
    assert "Content-Security-Policy" in answer.headers
    answer = deliver(strict, "presence", base_url="https://localhost")
    assert answer.status_code == 200


@pytest.fixture
def secured(app: Flask, pusher: Pusher, browser: FlaskClient) -> Iterator[FlaskClient]:
    """A browser of an application with Flask-Security's users, of whom Ana is an admin."""
    pytest.importorskip("flask_security")
    from flask_security import Security, SQLAlchemyUserDatastore, auth_required, roles_required
    from flask_security.models import fsqla_v3

    app.config.update(
        SECURITY_PASSWORD_HASH="plaintext",
        SECURITY_PASSWORD_SALT="salt",
        SQLALCHEMY_DATABASE_URI="sqlite://",
        WTF_CSRF_ENABLED=False,
    )
    db = SQLAlchemy(app)
    models: Any = fsqla_v3
    models.FsModels.set_db_info(db)
    role = type("Role", (db.Model, models.FsRoleMixin), {})
    user = type("User", (db.Model, models.FsUserMixin), {})
    users = SQLAlchemyUserDatastore(db, user, role)
    Security(app, users)
    with app.app_context():
        db.create_all()
        users.find_or_create_role("admin")
        users.create_user(email="ana@a.example", password="ana", roles=["admin"])
        users.create_user(email="ben@a.example", password="ben")
        db.session.commit()

    @pusher.auth("private-admin")
    @auth_required("session")
    @roles_required("admin")
    def may_administrate(channel_name: str, socket_id: str) -> bool:
        return True

    @pusher.auth
    @auth_required()
    def may_follow(channel_name: str, socket_id: str) -> bool:
        return True

    @pusher.user_auth
    @auth_required()
    def who(socket_id: str) -> dict[str, int]:
        return {"id": current_user.id}

    pusher.init_app(app)
    yield browser
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize("accept", ["*/*", "text/html", "application/json"])
def test_flask_security_lets_in_whom_its_decorators_do(secured: FlaskClient, accept: str) -> None:
    def statuses() -> list[int]:
        headers = {"Accept": accept}
        user = secured.post("/pusher/user-auth", data={"socket_id": SOCKET_ID}, headers=headers)
        channels = ("private-admin", "private-a")
        answers = [subscribe(secured, channel, headers=headers) for channel in channels]
        return [answer.status_code for answer in (*answers, user)]

    assert all(status in (401, 403) for status in statuses())
    secured.post("/login", data={"email": "ben@a.example", "password": "ben"})
    assert statuses() == [403, 200, 200]
    secured.post("/logout")
    secured.post("/login", data={"email": "ana@a.example", "password": "ana"})
    assert statuses() == [200, 200, 200]


def test_cors_of_a_whole_application_answers_preflights_and_refusals(
    app: Flask, pusher: Pusher, browser: FlaskClient
) -> None:
    CORS(app)
    pusher.init_app(app)
    pusher.auth(lambda channel_name, socket_id: channel_name == "private-a")
    app.register_error_handler(403, lambda error: "<p>Sorry")
    assert preflight(browser, SHOP).status_code == 200
    answer = subscribe(browser, "private-a", headers={"Origin": SHOP})
    assert_authorises(answer, "private-a")
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", SHOP)
    answer = subscribe(browser, "private-b", headers={"Origin": SHOP})
    assert answer.status_code == 403
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", SHOP)


def test_a_limiter_counts_the_requests_of_the_blueprint(
    app: Flask, pusher: Pusher, browser: FlaskClient
) -> None:
    limiter = Limiter(get_remote_address, app=app, storage_uri="memory://")
    pusher.init_app(app)
    pusher.auth(lambda channel_name, socket_id: True)
    limiter.limit("2/hour")(pusher.blueprint)
    answers = [subscribe(browser, "private-a").status_code for _ in range(3)]
    assert answers == [200, 200, 429]


def test_coroutines_authorise_and_describe_members(
    app: Flask, pusher: Pusher, browser: FlaskClient
) -> None:
    @pusher.auth("presence-<name>")
    async def may_join(channel_name: str, socket_id: str, name: str) -> bool:
        return name == "lobby"

    @pusher.channel_data
    async def who(channel_name: str, socket_id: str) -> dict[str, str]:
        return {"user_id": "7"}

    pusher.init_app(app)
    answer = subscribe(browser, "presence-lobby").json
    assert answer is not None
    assert json.loads(answer["channel_data"])["user_id"] == "7"
    assert subscribe(browser, "presence-cellar").status_code == 403


def test_a_coroutine_signs_a_user_in(app: Flask, pusher: Pusher, browser: FlaskClient) -> None:
    @pusher.user_auth
    async def user(socket_id: str) -> dict[str, str]:
        return {"id": socket_id}

    pusher.init_app(app)
    answer = browser.post("/pusher/user-auth", data={"socket_id": SOCKET_ID}).json
    assert answer is not None
    assert json.loads(answer["user_data"])["id"] == SOCKET_ID


def test_coroutines_hear_webhooks(app: Flask, pusher: Pusher, browser: FlaskClient) -> None:
    heard: list[object] = []

    @pusher.webhooks.presence
    async def presence() -> None:
        heard.append("presence")

    @pusher.webhooks.event("member_added")
    async def added(event: dict[str, object]) -> None:
        heard.append(event["user_id"])

    pusher.init_app(app)
    joined = {"name": "member_added", "channel": "presence-lobby", "user_id": "7"}
    assert deliver(browser, "presence", joined).status_code == 200
    assert heard == ["presence", "7"]


MANY = 400
GUEST_BOOK = f"""
import os
import time

from flask import Flask, request
from flask_pusher import Pusher

app = Flask(__name__)
app.config.update(PUSHER_APP_ID="1", PUSHER_KEY="{KEY}", PUSHER_SECRET="{SECRET}")
pusher = Pusher(app)


@pusher.auth("presence-room-<int:room>")
def may_join(channel_name, socket_id, room):
    time.sleep(0.005)  # as a database would, so that requests overlap
    return request.headers["X-Room"] == str(room)


@pusher.channel_data
def who(channel_name, socket_id):
    time.sleep(0.005)
    return {{"user_id": request.headers["X-Room"], "worker": os.getpid(), "socket": socket_id}}
"""


@contextmanager
def gunicorn(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Two workers of eight threads each, at an address that is served from now on.

    The socket listens before gunicorn starts, so that nothing else can take its port and early
    requests wait instead of failing.
    """
    (folder / "guest_book.py").write_text(GUEST_BOOK)
    with socket.create_server(("127.0.0.1", 0), backlog=MANY) as listener:
        command = [sys.executable, "-m", "gunicorn", "guest_book:app"]
        command += ["--bind", f"fd://{listener.fileno()}", "--graceful-timeout", "10"]
        command += ["--worker-class", "gthread", "--workers", "2", "--threads", "8"]
        server = subprocess.Popen(command, cwd=folder, pass_fds=[listener.fileno()])
        try:
            yield server, "http://{}:{}".format(*listener.getsockname())
        finally:
            server.terminate()
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(timeout=30)
                raise


def workers_of(answers: list[requests.Response]) -> set[int]:
    """Who answered, each of them as asked."""
    assert [answer.status_code for answer in answers] == [403, 200] * (MANY // 2)
    workers = set()
    for number in range(1, MANY, 2):
        answer = answers[number].json()
        signed = f"{number}.{number}:presence-room-{number}:{answer['channel_data']}"
        assert answer["auth"] == f"{KEY}:{signature(signed)}"
        member = json.loads(answer["channel_data"])
        assert member["user_id"] == str(number)
        assert member["user_info"]["socket"] == f"{number}.{number}"
        workers.add(member["user_info"]["worker"])
    return workers


def test_gunicorn_authorises_hundreds_at_once_each_as_asked(tmp_path: Path) -> None:
    with gunicorn(tmp_path) as (server, address):

        def join(number: int) -> requests.Response:
            """Every second one asks for the room of another."""
            room = number if number % 2 else number + 1
            return requests.post(
                f"{address}/pusher/auth",
                {"socket_id": f"{number}.{number}", "channel_name": f"presence-room-{room}"},
                headers={"X-Room": str(number)},
                timeout=60,
            )

        workers: set[int] = set()
        until = time.monotonic() + 60
        with ThreadPoolExecutor(32) as browsers:
            # One worker may have served all before the other has begun.
            while len(workers) < 2 and time.monotonic() < until:
                answers = list(browsers.map(join, range(MANY)))
                workers |= workers_of(answers)
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert server.returncode == 0

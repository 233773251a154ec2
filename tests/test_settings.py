"""Settings: what each means, as a value and as text, and what is said of those that are wrong."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from pusher.requests import RequestsBackend

from flask_pusher import Client, Pusher

MakeApp = Callable[..., Flask]
MASTER_KEY = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@pytest.fixture
def client_of(make_app: MakeApp) -> Callable[..., Client]:
    def client_of(**config: Any) -> Client:
        client: Client = make_app(Pusher(), **config).extensions["pusher"]
        return client

    return client_of


ClientOf = Callable[..., Client]


class Backend:
    """An HTTP adapter of an application's own."""

    def __init__(self, client: Any, **options: Any) -> None:
        self.client = client
        self.options = options


class OptionlessBackend:
    def __init__(self, client: Any) -> None: ...


def test_the_credentials_alone_are_enough_for_the_hosted_service(client_of: ClientOf) -> None:
    client = client_of()
    assert (client.app_id, client.key, client.secret) == ("1", "a-key", "a-secret")
    assert (client.host, client.port, client.ssl) == ("api.pusherapp.com", 443, True)
    assert (client.scheme, client.timeout) == ("https", 5)
    assert isinstance(client.http, RequestsBackend)


@pytest.mark.parametrize("key", ["PUSHER_APP_ID", "PUSHER_KEY", "PUSHER_SECRET"])
@pytest.mark.parametrize("missing", [None, "", "  "])
def test_a_missing_credential_is_named(make_app: MakeApp, key: str, missing: str | None) -> None:
    with pytest.raises(ValueError, match=f"{key} should be .*; it is not set"):
        Pusher(make_app(**{key: missing}))


def test_without_any_setting_the_first_credential_is_named() -> None:
    with pytest.raises(ValueError, match="PUSHER_APP_ID"):
        Pusher(Flask("bare"))


@pytest.mark.parametrize(
    ("key", "value", "attribute", "expected"),
    [
        ("PUSHER_APP_ID", 1234, "app_id", "1234"),
        ("PUSHER_APP_ID", " 1234\n", "app_id", "1234"),
        ("PUSHER_KEY", 278425, "key", "278425"),
        ("PUSHER_KEY", b"a-key", "key", "a-key"),
        ("PUSHER_SECRET", 7, "secret", "7"),
        ("PUSHER_SECRET", "é & ü", "secret", "é & ü"),
        ("PUSHER_HOST", "ws.example", "host", "ws.example"),
        ("PUSHER_HOST", "[::1]", "host", "[::1]"),
        ("PUSHER_HOST", "", "host", "api.pusherapp.com"),
        ("PUSHER_CLUSTER", "eu", "host", "api-eu.pusher.com"),
        ("PUSHER_PORT", 8080, "port", 8080),
        ("PUSHER_PORT", "8080", "port", 8080),
        ("PUSHER_PORT", "", "port", 443),
        ("PUSHER_SSL", False, "scheme", "http"),
        ("PUSHER_SSL", False, "port", 80),
        ("PUSHER_SSL", "false", "ssl", False),
        ("PUSHER_SSL", "0", "ssl", False),
        ("PUSHER_SSL", 0, "ssl", False),
        ("PUSHER_SSL", "off", "ssl", False),
        ("PUSHER_SSL", "True", "ssl", True),
        ("PUSHER_SSL", "", "ssl", True),
        ("PUSHER_PORT", 80, "ssl", False),
        ("PUSHER_PORT", "80", "scheme", "http"),
        ("PUSHER_PORT", 443, "ssl", True),
        ("PUSHER_TIMEOUT", 2, "timeout", 2),
        ("PUSHER_TIMEOUT", 0.5, "timeout", 0.5),
        ("PUSHER_TIMEOUT", "2.5", "timeout", 2.5),
        ("PUSHER_TIMEOUT", None, "timeout", 5),
    ],
)
def test_a_setting_works_as_a_value_and_as_text(
    client_of: ClientOf, key: str, value: Any, attribute: str, expected: Any
) -> None:
    assert getattr(client_of(**{key: value}), attribute) == expected


def test_host_wins_over_cluster(client_of: ClientOf) -> None:
    assert client_of(PUSHER_HOST="ws.example", PUSHER_CLUSTER="eu").host == "ws.example"


def test_port_80_speaks_tls_where_that_is_asked_for(client_of: ClientOf) -> None:
    assert client_of(PUSHER_PORT="80", PUSHER_SSL="true").scheme == "https"


WRONG = [
    ("PUSHER_APP_ID", "an-app"),
    ("PUSHER_APP_ID", 12e45),
    ("PUSHER_KEY", 12e45),
    ("PUSHER_KEY", True),
    ("PUSHER_KEY", "a key"),
    ("PUSHER_KEY", "a&key"),
    ("PUSHER_SECRET", 1.5),
    ("PUSHER_SECRET", ["a-secret"]),
    ("PUSHER_SECRET", "lone \ud800"),
    ("PUSHER_SECRET", b"\xff\xfe"),
    ("PUSHER_CLUSTER", "eu.pusher.com"),
    ("PUSHER_CLUSTER", 1.0),
    ("PUSHER_HOST", "https://ws.example"),
    ("PUSHER_HOST", "ws.example:6001"),
    ("PUSHER_HOST", 1.2),
    ("PUSHER_PORT", 0),
    ("PUSHER_PORT", -1),
    ("PUSHER_PORT", 65536),
    ("PUSHER_PORT", "http"),
    ("PUSHER_PORT", 80.0),
    ("PUSHER_PORT", True),
    ("PUSHER_PORT", "8" * 5000),
    ("PUSHER_SSL", "maybe"),
    ("PUSHER_SSL", 2),
    ("PUSHER_SSL", []),
    ("PUSHER_TIMEOUT", 0),
    ("PUSHER_TIMEOUT", -1),
    ("PUSHER_TIMEOUT", "soon"),
    ("PUSHER_TIMEOUT", "nan"),
    ("PUSHER_TIMEOUT", float("inf")),
    ("PUSHER_TIMEOUT", True),
    ("PUSHER_TIMEOUT", [5]),
    ("PUSHER_BACKEND", "no.such.Backend"),
    ("PUSHER_BACKEND", 5),
    ("PUSHER_BACKEND", "json"),
    ("PUSHER_BACKEND", "."),
    ("PUSHER_BACKEND_OPTIONS", "{"),
    ("PUSHER_BACKEND_OPTIONS", "[]"),
    ("PUSHER_BACKEND_OPTIONS", "[" * 100000),
    ("PUSHER_BACKEND_OPTIONS", 5),
    ("PUSHER_URL", "https://api.pusherapp.com/apps/1"),
    ("PUSHER_URL", "ftp://a-key:a-secret@api.pusherapp.com/apps/1"),
    ("PUSHER_URL", "https://a-key:a-secret@api.pusherapp.com:99999/apps/1"),
    ("PUSHER_URL", "https://a-key:a-secret@api.pusherapp.com/apps/one"),
    ("PUSHER_ENCRYPTION_MASTER_KEY_BASE64", "c2hvcnQ="),
    ("PUSHER_ENCRYPTION_MASTER_KEY_BASE64", "not base64"),
    ("PUSHER_ENCRYPTION_MASTER_KEY_BASE64", MASTER_KEY[:-2] + "Z="),
    ("PUSHER_ENCRYPTION_MASTER_KEY", "short"),
    ("PUSHER_ENCRYPTION_MASTER_KEY", "é" * 32),
    ("PUSHER_ENCRYPTION_MASTER_KEY", 5),
    ("PUSHER_ENCRYPTION_MASTER_KEY", "\ud800" + "k" * 31),
    ("PUSHER_AUTH", 1.5),
    ("PUSHER_AUTH", "/"),
    ("PUSHER_AUTH", "/auth/<tenant>"),
    ("PUSHER_AUTH", "/events"),
    ("PUSHER_USER_AUTH", "/events/presence"),
    ("PUSHER_USER_AUTH", "/a b"),
    ("PUSHER_USER_AUTH", "/auth"),
    ("PUSHER_WEBHOOK_MAX_AGE", 0),
    ("PUSHER_WEBHOOK_MAX_AGE", "for ever"),
    ("PUSHER_WEBHOOK_MAX_AGE", False),
    ("PUSHER_AUTH_MAX_CHANNELS", 0),
    ("PUSHER_AUTH_MAX_CHANNELS", "many"),
    ("PUSHER_AUTH_MAX_CHANNELS", 1.5),
    ("PUSHER_CLIENT_OPTIONS", "cluster"),
    ("PUSHER_CLIENT_OPTIONS", ["cluster"]),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_an_impossible_setting_stops_init_app(make_app: MakeApp, key: str, value: Any) -> None:
    app = make_app(**{key: value})
    with pytest.raises(ValueError, match=f"^{key} should be ") as raised:
        Pusher(app)
    assert "a-secret" not in str(raised.value)
    assert "pusher" not in app.extensions


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_an_error_shows_what_it_found_unless_that_is_secret(
    make_app: MakeApp, key: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=key) as raised:
        Pusher(make_app(**{key: value}))
    secret = ("PUSHER_SECRET", "PUSHER_URL", "PUSHER_BACKEND_OPTIONS")
    hidden = key in secret or key.startswith("PUSHER_ENCRYPTION")
    assert (repr(value) in str(raised.value)) is not hidden
    assert ("not shown" in str(raised.value)) is hidden


@pytest.mark.parametrize("key", ["PUSHER_HOST", "PUSHER_KEY", "PUSHER_CLUSTER"])
def test_a_secret_in_the_wrong_setting_is_not_shown(make_app: MakeApp, key: str) -> None:
    url = "https://a-key:a-secret@api.pusherapp.com/apps/1"
    with pytest.raises(ValueError, match=key) as raised:
        Pusher(make_app(**{key: url}))
    assert "it is 'https://...@api.pusherapp.com/apps/1'." in str(raised.value)


def test_a_number_that_an_environment_variable_lost_is_an_error_that_says_what_to_do() -> None:
    program = (
        "from flask import Flask; from flask_pusher import Pusher; app = Flask('a');"
        "app.config.from_prefixed_env(); pusher = Pusher(app);"
        "print(app.extensions['pusher'].key, app.extensions['pusher'].app_id)"
    )

    def run(key: str) -> subprocess.CompletedProcess[str]:
        variables = {"PUSHER_APP_ID": "1234", "PUSHER_SECRET": "0042", "PUSHER_KEY": key}
        env = {**os.environ, **{f"FLASK_{name}": value for name, value in variables.items()}}
        return subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
        )

    lost = run("12e45")
    assert "PUSHER_KEY should be the app's key, of " in lost.stderr
    assert "quote it twice" in lost.stderr
    assert run('"12e45"').stdout.split() == ["12e45", "1234"]
    assert run("1245").stdout.split() == ["1245", "1234"]


class TestUrl:
    @pytest.fixture
    def bare(self) -> Callable[..., Client]:
        """The client of an application that has no credentials but those in these settings."""

        def bare(**config: Any) -> Client:
            app = Flask("bare")
            app.config.update(config)
            Pusher(app)
            client: Client = app.extensions["pusher"]
            return client

        return bare

    def test_it_gives_everything(self, bare: ClientOf) -> None:
        client = bare(PUSHER_URL="https://a-key:a-secret@api-eu.pusher.com/apps/7")
        assert (client.app_id, client.key, client.secret) == ("7", "a-key", "a-secret")
        assert (client.host, client.port, client.ssl) == ("api-eu.pusher.com", 443, True)

    def test_a_port_and_plain_http_are_followed(self, bare: ClientOf) -> None:
        client = bare(PUSHER_URL="http://a-key:a-secret@127.0.0.1:6001/apps/7")
        assert client.address == ("127.0.0.1", 6001, False)

    def test_plain_http_without_a_port_is_port_80(self, bare: ClientOf) -> None:
        client = bare(PUSHER_URL="http://a-key:a-secret@127.0.0.1/apps/7")
        assert client.address == ("127.0.0.1", 80, False)

    def test_a_secret_in_it_is_decoded(self, bare: ClientOf) -> None:
        assert bare(PUSHER_URL="https://a-key:a%2Fb%3A@h.example/apps/7").secret == "a/b:"

    @pytest.mark.parametrize(
        ("key", "value", "attribute", "expected"),
        [
            ("PUSHER_APP_ID", "8", "app_id", "8"),
            ("PUSHER_KEY", "other", "key", "other"),
            ("PUSHER_SECRET", "other", "secret", "other"),
            ("PUSHER_HOST", "ws.example", "host", "ws.example"),
            ("PUSHER_CLUSTER", "us2", "host", "api-us2.pusher.com"),
            ("PUSHER_PORT", "8443", "port", 8443),
            ("PUSHER_PORT", "80", "ssl", False),
            ("PUSHER_SSL", "false", "ssl", False),
        ],
    )
    def test_a_single_key_wins_over_it(
        self, bare: ClientOf, key: str, value: str, attribute: str, expected: Any
    ) -> None:
        url = "https://a-key:a-secret@api-eu.pusher.com/apps/7"
        assert getattr(bare(PUSHER_URL=url, **{key: value}), attribute) == expected

    def test_a_cluster_for_pusher_js_leaves_a_server_of_ones_own(self, bare: ClientOf) -> None:
        url = "http://a-key:a-secret@127.0.0.1:6001/apps/7"
        client = bare(PUSHER_URL=url, PUSHER_CLUSTER="mt1", PUSHER_PORT=6002)
        assert client.address == ("127.0.0.1", 6002, False)


class TestBackend:
    def test_it_may_be_a_class_with_options(self, client_of: ClientOf) -> None:
        client = client_of(PUSHER_BACKEND=Backend, PUSHER_BACKEND_OPTIONS={"pool": 3})
        assert isinstance(client.http, Backend)
        assert client.http.options == {"pool": 3}

    def test_it_may_be_the_path_of_a_class_with_options_as_json(self, client_of: ClientOf) -> None:
        client = client_of(
            PUSHER_BACKEND="pusher.requests.RequestsBackend",
            PUSHER_BACKEND_OPTIONS='{"proxies": {"https": "http://proxy.example"}}',
        )
        assert type(client.http) is RequestsBackend
        assert client.http.options["proxies"] == {"https": "http://proxy.example"}

    def test_options_that_it_does_not_take_are_an_error(self, make_app: MakeApp) -> None:
        app = make_app(PUSHER_BACKEND=OptionlessBackend, PUSHER_BACKEND_OPTIONS={"pool": 3})
        with pytest.raises(ValueError, match=r"PUSHER_BACKEND_OPTIONS.*'pool'"):
            Pusher(app)

    def test_options_that_the_client_refuses_are_an_error(self, make_app: MakeApp) -> None:
        with pytest.raises(ValueError, match=r"PUSHER_BACKEND_OPTIONS.*Invalid app id"):
            Pusher(make_app(PUSHER_BACKEND_OPTIONS={"app_id": "x"}))

    def test_options_may_be_arguments_of_the_client_as_in_3_0(self, client_of: ClientOf) -> None:
        assert client_of(PUSHER_BACKEND_OPTIONS={"timeout": 9}).timeout == 9


class TestMasterKey:
    def test_the_older_raw_form_works_and_warns(self, make_app: MakeApp) -> None:
        raw = base64.b64decode(MASTER_KEY).decode()
        app = make_app(PUSHER_ENCRYPTION_MASTER_KEY=raw)
        with pytest.warns(UserWarning, match="deprecated"):
            pusher = Pusher(app)
        pusher.auth(lambda channel_name, socket_id: True)
        form = {"socket_id": "1.1", "channel_name": "private-encrypted-x"}
        older = app.test_client().post("/pusher/auth", data=form).get_json()

        app = make_app(pusher := Pusher(), PUSHER_ENCRYPTION_MASTER_KEY_BASE64=MASTER_KEY)
        pusher.auth(lambda channel_name, socket_id: True)
        assert app.test_client().post("/pusher/auth", data=form).get_json() == older

    def test_both_forms_are_an_error(self, make_app: MakeApp) -> None:
        raw = base64.b64decode(MASTER_KEY).decode()
        app = make_app(
            PUSHER_ENCRYPTION_MASTER_KEY=raw, PUSHER_ENCRYPTION_MASTER_KEY_BASE64=MASTER_KEY
        )
        with pytest.raises(ValueError, match="are both set") as raised:
            Pusher(app)
        assert raw not in str(raised.value)


def test_the_settings_that_3_0_gave_defaults_can_be_read(make_app: MakeApp) -> None:
    app = make_app(Pusher())
    assert (app.config["PUSHER_HOST"], app.config["PUSHER_PORT"]) == ("", "")
    assert app.config["PUSHER_AUTH"] == "/auth"


def test_settings_of_the_push_notifications_that_were_are_ignored(client_of: ClientOf) -> None:
    client = client_of(PUSHER_NOTIFICATION_HOST="n.example", PUSHER_NOTIFICATION_SSL=True)
    assert client.host == "api.pusherapp.com"


@pytest.mark.parametrize("path", ["/subscribe", "subscribe"])
def test_the_routes_can_be_changed(make_app: MakeApp, path: str) -> None:
    app = make_app(pusher := Pusher(), PUSHER_AUTH=path, PUSHER_USER_AUTH="/sign-in")
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.user_auth(lambda socket_id: {"id": 1})
    browser = app.test_client()
    form = {"socket_id": "1.1", "channel_name": "private-x"}
    assert browser.post("/pusher/subscribe", data=form).status_code == 200
    assert browser.post("/pusher/sign-in", data=form).status_code == 200
    assert browser.post("/pusher/auth", data=form).status_code == 404


def test_client_options_may_be_json(make_app: MakeApp) -> None:
    options = json.dumps({"activityTimeout": 1000})
    app = make_app(Pusher(), PUSHER_CLIENT_OPTIONS=options)
    with app.test_request_context():
        context: dict[str, Any] = {}
        app.update_template_context(context)
        assert context["pusher_options"]()["activityTimeout"] == 1000

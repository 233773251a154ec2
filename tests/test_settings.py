"""Settings: what each means, as a value and as text, and what is said of those that are wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, render_template_string, url_for
from pusher.requests import RequestsBackend
from pusher.tornado import TornadoBackend

from _flask_pusher.settings import TABLE, read_settings
from flask_pusher import Client, Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

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

    def send_request(self, request: Any) -> Any: ...


class OptionlessBackend:
    def __init__(self, client: Any) -> None: ...

    def send_request(self, request: Any) -> Any: ...


def test_the_credentials_alone_are_enough_for_the_hosted_service(client_of: ClientOf) -> None:
    client = client_of()
    assert (client.app_id, client.key, client.secret) == ("1", "a-key", "a-secret")
    assert (client.host, client.port, client.ssl) == ("api.pusherapp.com", 443, True)
    assert (client.scheme, client.timeout) == ("https", 5)
    assert isinstance(client.http, RequestsBackend)


@pytest.mark.parametrize("key", ["PUSHER_APP_ID", "PUSHER_KEY", "PUSHER_SECRET"])
@pytest.mark.parametrize("missing", [None, "", "  "])
def test_a_missing_credential_is_named(make_app: MakeApp, key: str, missing: str | None) -> None:
    with pytest.raises(ValueError, match=f"{key} should be .*; it is not set. .* FLASK_{key} "):
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
        ("PUSHER_HOST", "::1", "host", "[::1]"),
        ("PUSHER_HOST", "2001:db8::7", "host", "[2001:db8::7]"),
        ("PUSHER_HOST", "::ffff:10.0.0.7", "host", "[::ffff:10.0.0.7]"),
        ("PUSHER_HOST", "ws.example.", "host", "ws.example."),
        ("PUSHER_HOST", "channels_server", "host", "channels_server"),
        ("PUSHER_HOST", "bücher.example", "host", "bücher.example"),
        ("PUSHER_APP_ID", "app-id", "app_id", "app-id"),
        ("PUSHER_APP_ID", "App_1", "app_id", "App_1"),
        ("PUSHER_PATH", "/channels", "path", "/channels"),
        ("PUSHER_PATH", "", "path", ""),
        ("PUSHER_PORT", 0, "port", 443),
        ("PUSHER_PORT", "0", "port", 443),
        ("PUSHER_HOST", "", "host", "api.pusherapp.com"),
        ("PUSHER_CLUSTER", "eu", "host", "api-eu.pusher.com"),
        ("PUSHER_CLUSTER", "EU", "host", "api-eu.pusher.com"),
        ("PUSHER_HOST", "API-EU.pusher.com", "host", "api-eu.pusher.com"),
        ("PUSHER_HOST", "WS.Example", "host", "ws.example"),
        ("PUSHER_PORT", 8080, "port", 8080),
        ("PUSHER_PORT", "8080", "port", 8080),
        ("PUSHER_PORT", 1, "port", 1),
        ("PUSHER_PORT", 65535, "port", 65535),
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


REFUSED = object()
# Of each: text, what it means, and what None and empty text mean.
MEANT: dict[str, tuple[str, Any, Any, Any]] = {
    "PUSHER_APP_ID": ("42", "42", REFUSED, REFUSED),
    "PUSHER_KEY": ("42", "42", REFUSED, REFUSED),
    "PUSHER_SECRET": ("42", "42", REFUSED, REFUSED),
    "PUSHER_CLUSTER": ("eu", "eu", None, None),
    "PUSHER_HOST": ("ws.example", "ws.example", None, None),
    "PUSHER_PORT": ("6001", 6001, None, None),
    "PUSHER_PATH": ("/channels", "/channels", "", ""),
    "PUSHER_SSL": ("false", False, True, True),
    "PUSHER_TIMEOUT": ("2.5", 2.5, 5, 5),
    "PUSHER_BACKEND": (f"{__name__}.Backend", Backend, RequestsBackend, RequestsBackend),
    "PUSHER_BACKEND_OPTIONS": ('{"verify": false}', {"verify": False}, {}, {}),
    "PUSHER_MAX_EVENT_BYTES": ("2000", 2000, None, 10240),
    "PUSHER_PUBLISHER": ("request", "request", "thread", "thread"),
    "PUSHER_ENCRYPTION_MASTER_KEY_BASE64": (MASTER_KEY, MASTER_KEY, None, None),
    "PUSHER_ENCRYPTION_MASTER_KEY": ("7" * 32, b"7" * 32, None, None),
    "PUSHER_AUTH": ("/ask", "/ask", "/auth", REFUSED),
    "PUSHER_USER_AUTH": ("/ask", "/ask", "/user-auth", REFUSED),
    "PUSHER_WEBHOOK_MAX_AGE": ("60", 60, None, 600),
    "PUSHER_EXTRA_TOKENS": ('{"old-key": "7"}', {"old-key": "7"}, {}, {}),
    "PUSHER_AUTH_MAX_CHANNELS": ("7", 7, 500, 500),
    "PUSHER_JS_URL": ("/static/pusher.js", "/static/pusher.js", None, ""),
    "PUSHER_IDIOMORPH_URL": ("/static/morph.js", "/static/morph.js", None, ""),
    "PUSHER_CLIENT_OPTIONS": ('{"wsPath": "/ws"}', {"wsPath": "/ws"}, {}, {}),
}


@pytest.mark.parametrize("key", [row.key for row in TABLE])
def test_each_setting_takes_text_none_and_empty_text_from_the_environment(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    text, meaning, none, empty = MEANT[key]
    texts = [(text, meaning), (json.dumps(text), meaning), (f" {text} ", meaning)]
    if key == "PUSHER_ENCRYPTION_MASTER_KEY":  # raw, so that spaces are of it
        texts.pop()
    for value, expected in (*texts, ("null", none), ("", empty), ('""', empty)):
        monkeypatch.setenv(f"FLASK_{key}", value)
        app = make_app()
        app.config.from_prefixed_env()
        if expected is REFUSED:
            with pytest.raises(ValueError, match=f"^{key} should be "):
                read_settings(app)
        else:
            assert vars(read_settings(app))[key[len("PUSHER_") :].lower()] == expected


def test_host_wins_over_cluster(client_of: ClientOf) -> None:
    assert client_of(PUSHER_HOST="ws.example", PUSHER_CLUSTER="eu").host == "ws.example"


def test_port_80_speaks_tls_where_that_is_asked_for(client_of: ClientOf) -> None:
    assert client_of(PUSHER_PORT="80", PUSHER_SSL="true").scheme == "https"


WRONG = [
    ("PUSHER_APP_ID", "an app"),
    ("PUSHER_APP_ID", "a/b"),
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
    ("PUSHER_CLUSTER", "api-eu"),
    ("PUSHER_CLUSTER", "API-EU"),
    ("PUSHER_CLUSTER", 1.0),
    ("PUSHER_HOST", "https://ws.example"),
    ("PUSHER_HOST", "https://a-key:SEC/RET@host/apps/1"),
    ("PUSHER_HOST", "a-key:a-secret@host"),
    ("PUSHER_HOST", "[ws.example]"),
    ("PUSHER_KEY", "a-key:a-secret"),
    ("PUSHER_CLUSTER", "a-key:a-secret@eu"),
    ("PUSHER_PORT", "a-key:a-secret"),
    ("PUSHER_AUTH", "a-key:a-secret@host /"),
    ("PUSHER_TIMEOUT", "a-secret@5"),
    ("PUSHER_HOST", "ws.example:6001"),
    ("PUSHER_HOST", ":::::"),
    ("PUSHER_HOST", "fe80::1%eth0"),
    ("PUSHER_HOST", "1:2:3:4:5:6:7:8:9"),
    ("PUSHER_HOST", "[...:]"),
    ("PUSHER_HOST", "."),
    ("PUSHER_HOST", "ws..example"),
    ("PUSHER_HOST", "-ws.example"),
    ("PUSHER_HOST", 1.2),
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
    ("PUSHER_TIMEOUT", 1e308),
    ("PUSHER_TIMEOUT", 10**400),
    ("PUSHER_PORT", b"80:a-secret"),
    ("PUSHER_PORT", {"a-key": "a-secret"}),
    ("PUSHER_BACKEND", "no.such.Backend"),
    ("PUSHER_BACKEND", 5),
    ("PUSHER_BACKEND", "json"),
    ("PUSHER_BACKEND", "."),
    ("PUSHER_BACKEND_OPTIONS", "{"),
    ("PUSHER_BACKEND_OPTIONS", "[]"),
    ("PUSHER_BACKEND_OPTIONS", "[" * 100000),
    ("PUSHER_BACKEND_OPTIONS", 5),
    ("PUSHER_URL", 5),
    ("PUSHER_URL", "https://api.pusherapp.com/apps/1"),
    ("PUSHER_URL", "ftp://a-key:a-secret@api.pusherapp.com/apps/1"),
    ("PUSHER_URL", "https://a-key:a-secret@api.pusherapp.com:99999/apps/1"),
    ("PUSHER_URL", "https://a-key:a-secret@api.pusherapp.com/apps/a one"),
    ("PUSHER_URL", "https://a-key:a-secret@api.pusherapp.com/apps/"),
    ("PUSHER_URL", "https://a-key:a-secret@[:::]/apps/1"),
    ("PUSHER_URL", "https://a-key:a-secret@api.pusherapp.com/../apps/1"),
    ("PUSHER_PATH", "channels"),
    ("PUSHER_PATH", "/channels/"),
    ("PUSHER_PATH", "/"),
    ("PUSHER_PATH", "/a?b"),
    ("PUSHER_PATH", "//channels"),
    ("PUSHER_PATH", "/a//b"),
    ("PUSHER_PATH", "/../channels"),
    ("PUSHER_PATH", "/a/./b"),
    ("PUSHER_MAX_EVENT_BYTES", 0),
    ("PUSHER_MAX_EVENT_BYTES", "10k"),
    ("PUSHER_MAX_EVENT_BYTES", True),
    ("PUSHER_MAX_EVENT_BYTES", 10240.0),
    ("PUSHER_PUBLISHER", "process"),
    ("PUSHER_PUBLISHER", True),
    ("PUSHER_EXTRA_TOKENS", ["a-key"]),
    ("PUSHER_EXTRA_TOKENS", {"a-key": 1.5}),
    ("PUSHER_EXTRA_TOKENS", {"a-key": None}),
    ("PUSHER_EXTRA_TOKENS", {"": "a-secret"}),
    ("PUSHER_EXTRA_TOKENS", {"lone \ud800": "a-secret"}),
    ("PUSHER_EXTRA_TOKENS", {"a-key": "lone \ud800"}),
    ("PUSHER_EXTRA_TOKENS", {"a key": "a-secret"}),
    ("PUSHER_EXTRA_TOKENS", '{"a-key": ""}'),
    ("PUSHER_BACKEND_OPTIONS", {"verify": "/no/such/ca.pem"}),
    ("PUSHER_ENCRYPTION_MASTER_KEY_BASE64", "c2hvcnQ="),
    ("PUSHER_ENCRYPTION_MASTER_KEY_BASE64", "not base64"),
    ("PUSHER_ENCRYPTION_MASTER_KEY_BASE64", MASTER_KEY[:-2] + "Z="),
    ("PUSHER_ENCRYPTION_MASTER_KEY", "short"),
    ("PUSHER_ENCRYPTION_MASTER_KEY", "é" * 32),
    ("PUSHER_ENCRYPTION_MASTER_KEY", 5),
    ("PUSHER_ENCRYPTION_MASTER_KEY", "\ud800" + "k" * 31),
    ("PUSHER_AUTH", 1.5),
    ("PUSHER_AUTH", "/auth/<tenant>"),
    ("PUSHER_AUTH", ""),
    ("PUSHER_AUTH", "  "),
    ("PUSHER_AUTH", "/auth?x=1"),
    ("PUSHER_AUTH", "/lone \ud800"),
    ("PUSHER_AUTH", "https://shop.example/pusher/auth"),
    ("PUSHER_AUTH", "/auth#x"),
    ("PUSHER_AUTH", "/a/../events/presence"),
    ("PUSHER_AUTH", "/auth/."),
    ("PUSHER_AUTH", "/a\\b"),
    ("PUSHER_AUTH", "/a\x00"),
    ("PUSHER_USER_AUTH", ""),
    ("PUSHER_USER_AUTH", "/sign-in?x=1"),
    ("PUSHER_USER_AUTH", "/a b"),
    ("PUSHER_WEBHOOK_MAX_AGE", 0),
    ("PUSHER_WEBHOOK_MAX_AGE", "for ever"),
    ("PUSHER_WEBHOOK_MAX_AGE", False),
    ("PUSHER_WEBHOOK_MAX_AGE", 1e308),
    ("PUSHER_AUTH_MAX_CHANNELS", 0),
    ("PUSHER_AUTH_MAX_CHANNELS", "many"),
    ("PUSHER_AUTH_MAX_CHANNELS", 1.5),
    ("PUSHER_AUTH_MAX_CHANNELS", 500.0),
    ("PUSHER_CLIENT_OPTIONS", "cluster"),
    ("PUSHER_CLIENT_OPTIONS", ["cluster"]),
    ("PUSHER_CLIENT_OPTIONS", '{"activityTimeout": NaN}'),
    ("PUSHER_CLIENT_OPTIONS", {"auth": {"params": {"of": {1, 2}}}}),
    ("PUSHER_TIMEOUT", Decimal("sNaN")),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_an_impossible_setting_stops_init_app(make_app: MakeApp, key: str, value: Any) -> None:
    app = make_app(**{key: value})
    with pytest.raises(ValueError, match=f"^{key} should be ") as raised:
        Pusher(app)
    assert "a-secret" not in str(raised.value)
    assert "SEC/RET" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert "pusher" not in app.extensions
    assert "pusher" not in app.blueprints


# Nobody puts a credential into these by mistake.
SHOWN = (
    "PUSHER_PORT",
    "PUSHER_SSL",
    "PUSHER_TIMEOUT",
    "PUSHER_MAX_EVENT_BYTES",
    "PUSHER_PUBLISHER",
    "PUSHER_AUTH",
    "PUSHER_USER_AUTH",
    "PUSHER_WEBHOOK_MAX_AGE",
    "PUSHER_AUTH_MAX_CHANNELS",
)


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_an_error_shows_what_it_found_where_that_is_no_credential(
    make_app: MakeApp, key: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=key) as raised:
        Pusher(make_app(**{key: value}))
    told = str(raised.value)
    if key in SHOWN and not set("@:") & set(str(value)):
        assert told.endswith(f"; it is {repr(value)[:100]}.")
    else:
        assert told.endswith(f"; it holds a {type(value).__name__}, which is not shown.")


@pytest.mark.parametrize(
    "config",
    [
        {"PUSHER_AUTH": "/events"},
        {"PUSHER_AUTH": "events/cache/"},
        {"PUSHER_USER_AUTH": "/auth"},
        {"PUSHER_USER_AUTH": "/events/presence"},
        {"PUSHER_USER_AUTH": "/", "PUSHER_AUTH": "/"},
    ],
)
def test_routes_that_would_be_the_same_are_an_error(
    make_app: MakeApp, config: dict[str, Any]
) -> None:
    told = "PUSHER_AUTH and PUSHER_USER_AUTH should be two paths, and no webhooks'"
    with pytest.raises(ValueError, match=told):
        Pusher(make_app(**config))


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("PUSHER_CLUSTR", "PUSHER_CLUSTER"),
        ("PUSHER_APPID", "PUSHER_APP_ID"),
        ("PUSHER_KEYS", "PUSHER_KEY"),
        ("PUSHER_TIME_OUT", "PUSHER_TIMEOUT"),
        ("PUSHER_WEBHOOKS_MAX_AGE", "PUSHER_WEBHOOK_MAX_AGE"),
        ("PUSHER_ENCRYPTION_MASTERKEY_BASE64", "PUSHER_ENCRYPTION_MASTER_KEY_BASE64"),
    ],
)
def test_a_key_that_is_nearly_a_setting_is_warned_about(
    make_app: MakeApp, key: str, meant: str
) -> None:
    app = make_app(**{key: "a-value"})
    with pytest.warns(UserWarning, match=f"^{key} is no setting .* Is {meant} meant") as told:
        Pusher(app)
    assert len(told) == 1
    assert "a-value" not in str(told[0].message)
    assert told[0].filename == __file__


def test_the_warning_names_the_line_that_called_init_app(make_app: MakeApp) -> None:
    with pytest.warns(UserWarning, match="PUSHER_CLUSTR") as told:
        Pusher().init_app(make_app(PUSHER_CLUSTR="eu"))
    assert told[0].filename == __file__


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("PUSHER_APP_KEY", "PUSHER_KEY"),
        ("PUSHER_APP_SECRET", "PUSHER_SECRET"),
        ("PUSHER_APP_CLUSTER", "PUSHER_CLUSTER"),
        ("PUSHER_SCHEME", "PUSHER_SSL"),
        ("PUSHER_USE_TLS", "PUSHER_SSL"),
        ("PUSHER_ENCRYPTION_KEY", "PUSHER_ENCRYPTION_MASTER_KEY_BASE64"),
    ],
)
def test_a_setting_of_another_library_is_warned_about(
    make_app: MakeApp, key: str, meant: str
) -> None:
    with pytest.warns(UserWarning, match=f"^{key} is no setting .* Is {meant} meant") as told:
        Pusher(make_app(**{key: "a-value"}))
    assert len(told) == 1
    assert "a-value" not in str(told[0].message)


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("PUSHER_KEY", "PUSHER_APP_KEY"),
        ("PUSHER_SECRET", "PUSHER_APP_SECRET"),
        ("PUSHER_APP_ID", "PUSHER_APPID"),
    ],
)
def test_a_missing_credential_that_has_another_name_is_told_so(
    make_app: MakeApp, key: str, other: str
) -> None:
    told = f"^{key} should be .* it is not set, but {other} is, which is no setting here"
    with pytest.raises(ValueError, match=told) as raised:
        Pusher(make_app(**{key: None, other: "a-value"}))
    assert "a-value" not in str(raised.value)


def test_settings_that_come_behind_pusher_are_told_to_come_before() -> None:
    with pytest.raises(
        ValueError, match=r"Settings come before Pusher\(app\) and init_app\(app\)"
    ):
        Pusher(Flask("early"))


def test_a_key_that_is_the_secret_is_an_error_that_does_not_show_it(make_app: MakeApp) -> None:
    with pytest.raises(ValueError, match="PUSHER_KEY and PUSHER_SECRET hold the same") as raised:
        Pusher(make_app(PUSHER_KEY="a-secret"))
    assert "a-secret" not in str(raised.value)


@pytest.mark.parametrize("backend", ["requests", "log"])
def test_the_applications_log_is_not_settled_before_it_is_set_up(
    make_app: MakeApp, backend: str
) -> None:
    assert "logger" not in vars(make_app(Pusher(), PUSHER_BACKEND=backend))


@pytest.mark.parametrize("key", ["PUSHER_DASHBOARD_URL", "PUSHER_BEAMS_INSTANCE", "PUSHERKEY"])
def test_other_keys_are_the_applications_own(make_app: MakeApp, key: str) -> None:
    app = make_app(Pusher(), **{key: "a-value"})
    assert app.config[key] == "a-value"


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
    assert "PUSHER_KEY should be given as text: in an environment variable, quote it twice" in (
        lost.stderr
    )
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

    def test_a_url_of_https_is_never_plain_http(self, bare: ClientOf) -> None:
        client = bare(PUSHER_URL="https://a-key:a-secret@127.0.0.1:80/apps/7")
        assert client.address == ("127.0.0.1", 80, True)

    def test_plain_http_without_a_port_is_port_80(self, bare: ClientOf) -> None:
        client = bare(PUSHER_URL="http://a-key:a-secret@127.0.0.1/apps/7")
        assert client.address == ("127.0.0.1", 80, False)

    def test_a_path_and_an_ipv6_address_are_followed(self, bare: ClientOf) -> None:
        client = bare(PUSHER_URL="https://a-key:a-secret@[::1]:6001/a/channels/apps/app-id/")
        assert client.address == ("[::1]", 6001, True)
        assert (client.path, client.app_id) == ("/a/channels", "app-id")

    def test_what_it_gives_can_be_read_in_the_configuration(self) -> None:
        app = Flask("bare")
        app.config["PUSHER_URL"] = "https://a-key:a-secret@api-eu.pusher.com/apps/7"
        Pusher(app)
        names = ("APP_ID", "KEY", "SECRET")
        assert [app.config[f"PUSHER_{name}"] for name in names] == ["7", "a-key", "a-secret"]

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
            ("PUSHER_PATH", "/channels", "path", "/channels"),
        ],
    )
    def test_a_single_key_wins_over_it(
        self, bare: ClientOf, key: str, value: str, attribute: str, expected: Any
    ) -> None:
        url = "https://a-key:a-secret@api-eu.pusher.com/apps/7"
        assert getattr(bare(PUSHER_URL=url, **{key: value}), attribute) == expected

    def test_a_cluster_wins_over_the_services_first_host_too(self, bare: ClientOf) -> None:
        url = "https://a-key:a-secret@api.pusherapp.com/apps/7"
        assert bare(PUSHER_URL=url).host == "api.pusherapp.com"
        assert bare(PUSHER_URL=url, PUSHER_CLUSTER="eu").host == "api-eu.pusher.com"

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
            PUSHER_BACKEND=f"{__name__}.Backend",
            PUSHER_BACKEND_OPTIONS='{"proxies": {"https": "http://proxy.example"}}',
        )
        assert type(client.http).__name__ == "Backend"
        assert client.http.options["proxies"] == {"https": "http://proxy.example"}

    def test_options_that_it_does_not_take_are_an_error(self, make_app: MakeApp) -> None:
        app = make_app(PUSHER_BACKEND=OptionlessBackend, PUSHER_BACKEND_OPTIONS={"pool": 3})
        with pytest.raises(ValueError, match=r"PUSHER_BACKEND_OPTIONS.*'pool'"):
            Pusher(app)

    def test_options_that_requests_does_not_have_are_an_error(self, make_app: MakeApp) -> None:
        with pytest.raises(ValueError, match=r"PUSHER_BACKEND_OPTIONS.*'pool' is none of auth"):
            Pusher(make_app(PUSHER_BACKEND_OPTIONS={"pool": 3}))

    @pytest.mark.parametrize("backend", [None, "", "requests", RequestsBackend])
    def test_the_default_is_the_official_one_with_connections_that_last(
        self, client_of: ClientOf, backend: Any
    ) -> None:
        client = client_of(PUSHER_BACKEND=backend)
        assert isinstance(client.http, RequestsBackend)
        assert client.http.connections == 1000

    @pytest.mark.parametrize(
        ("backend", "reason"),
        [
            ("os.getcwd", "takes no arguments"),
            ("builtins.repr", "a str has no method send_request"),
            ("json.JSONEncoder", "positional argument"),
            ("flask.Flask", "has no attribute"),
        ],
    )
    def test_what_is_no_backend_is_an_error_that_names_the_setting(
        self, make_app: MakeApp, backend: str, reason: str
    ) -> None:
        told = r"^PUSHER_BACKEND should be 'requests', 'log', or an adapter class or its import"
        app = make_app(PUSHER_BACKEND=backend)
        with pytest.raises(ValueError, match=told) as raised:
            Pusher(app)
        assert reason in str(raised.value)
        assert "pusher" not in app.extensions

    def test_an_error_of_a_backend_without_options_names_the_setting_and_has_its_cause(
        self, make_app: MakeApp
    ) -> None:
        def broken(client: Any) -> None:
            raise TypeError("broken")

        with pytest.raises(ValueError, match=r"^PUSHER_BACKEND should be .*: broken\.$") as raised:
            Pusher(make_app(PUSHER_BACKEND=broken))
        assert isinstance(raised.value.__cause__, TypeError)

    @pytest.mark.parametrize("kind", ["class", "subclass", "path"])
    def test_tornados_is_refused_because_nothing_would_be_sent(
        self, make_app: MakeApp, kind: str
    ) -> None:
        class Subclass(TornadoBackend):  # type: ignore[misc]
            pass

        backends = {
            "class": TornadoBackend,
            "subclass": Subclass,
            "path": "pusher.tornado.TornadoBackend",
        }
        told = "^PUSHER_BACKEND should be .* import path, not Tornado's;"
        with pytest.raises(ValueError, match=told):
            Pusher(make_app(PUSHER_BACKEND=backends[kind]))

    def test_options_may_be_arguments_of_the_client_as_in_3_0(self, make_app: MakeApp) -> None:
        options = {"timeout": "9", "host": "ws.example", "secret": "other", "cluster": "eu"}
        app = make_app(pusher := Pusher(), PUSHER_BACKEND_OPTIONS=options)
        client = app.extensions["pusher"]
        assert (client.timeout, client.host, client.secret) == (9, "ws.example", "other")
        settings = app.extensions["flask_pusher"].settings
        assert (settings.timeout, settings.host) == (9, "ws.example")
        assert settings.backend_options == {}
        pusher.webhooks.event("cache_miss")(lambda event: None)
        body = b'{"events": []}'
        signature = hmac.new(b"other", body, hashlib.sha256).hexdigest()
        headers = {"X-Pusher-Key": "a-key", "X-Pusher-Signature": signature}
        browser = app.test_client()
        assert browser.post("/pusher/events", data=body, headers=headers).status_code == 200

    @pytest.mark.parametrize(("name", "value"), [("timeout", 0), ("host", "a b"), ("port", "x")])
    def test_such_an_option_is_checked_as_the_setting_is(
        self, make_app: MakeApp, name: str, value: Any
    ) -> None:
        with pytest.raises(ValueError, match=f"^PUSHER_{name.upper()} should be"):
            Pusher(make_app(PUSHER_BACKEND_OPTIONS={name: value}))


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


@pytest.mark.parametrize(
    ("path", "url"),
    [(None, "/pusher/auth"), ("/", "/pusher/"), ("/auth/", "/pusher/auth/")],
)
def test_the_auth_route_is_where_3_0_had_it(make_app: MakeApp, path: str | None, url: str) -> None:
    app = make_app(pusher := Pusher(), PUSHER_AUTH=path)
    pusher.auth(lambda channel_name, socket_id: True)
    form = {"socket_id": "1.1", "channel_name": "private-x"}
    assert app.test_client().post(url, data=form).status_code == 200
    with app.test_request_context():
        assert url_for("pusher.auth") == url


@pytest.mark.parametrize("value", [None, "none", "None", "null"])
def test_a_limit_may_be_none_also_as_text(client_of: ClientOf, value: Any) -> None:
    client = client_of(PUSHER_MAX_EVENT_BYTES=value)
    assert client._pusher_client.max_event_bytes is None


@pytest.mark.parametrize("value", [" 2000 ", 2000, b"2000"])
def test_a_limit_may_be_text(client_of: ClientOf, value: Any) -> None:
    assert client_of(PUSHER_MAX_EVENT_BYTES=value)._pusher_client.max_event_bytes == 2000


def test_a_limit_that_is_empty_is_the_default(client_of: ClientOf) -> None:
    assert client_of(PUSHER_MAX_EVENT_BYTES="")._pusher_client.max_event_bytes == 10240


@pytest.mark.parametrize(
    ("tokens", "key", "secret"),
    [
        ('{"old-key": "old-secret"}', "old-key", "old-secret"),
        ({"old-key": 12345}, "old-key", "12345"),
        ({"old-key": "old-secret\n"}, "old-key", "old-secret"),
        ({" old-key": b"old-secret\n"}, "old-key", "old-secret"),
        ({12345: "old-secret"}, "12345", "old-secret"),
    ],
)
def test_extra_tokens_are_read_as_key_and_secret_are(
    make_app: MakeApp, tokens: Any, key: str, secret: str
) -> None:
    app = make_app(pusher := Pusher(), PUSHER_EXTRA_TOKENS=tokens)
    pusher.webhooks.event("cache_miss")(lambda event: None)
    body = b'{"events": [{"name": "cache_miss"}]}'
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Pusher-Key": key, "X-Pusher-Signature": signature}
    assert app.test_client().post("/pusher/events", data=body, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/subscribe", "subscribe"])
def test_the_routes_can_be_changed(make_app: MakeApp, path: str) -> None:
    app = make_app(pusher := Pusher(), PUSHER_AUTH=path, PUSHER_USER_AUTH="/sign-in")
    pusher.auth(lambda channel_name, socket_id: True)
    pusher.user_auth(lambda socket_id: {"id": 1})
    browser = app.test_client()
    form = {"socket_id": "1.1", "channel_name": "private-x"}
    assert browser.post("/pusher/subscribe", data=form).status_code == 200
    assert browser.post("/pusher/sign-in", data={"socket_id": "1.1"}).status_code == 200
    assert browser.post("/pusher/auth", data=form).status_code == 404


def test_client_options_may_be_json(make_app: MakeApp) -> None:
    options = json.dumps({"activityTimeout": 1000})
    app = make_app(Pusher(), PUSHER_CLIENT_OPTIONS=options)
    with app.test_request_context():
        assert render_template_string("{{ pusher_options().activityTimeout }}") == "1000"

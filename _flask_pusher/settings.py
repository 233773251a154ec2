"""``app.config`` in, checked :class:`Settings` out: one table of key, reader, default."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from flask import Flask
from pusher.requests import RequestsBackend
from werkzeug.utils import import_string

from _flask_pusher import rules
from _flask_pusher.api import MASTER_KEY
from _flask_pusher.client import Client
from _flask_pusher.codec import Codec
from _flask_pusher.stand_in import LogBackend
from _flask_pusher.warning import warn

_KEY = r"[A-Za-z0-9_.~-]+"
_ANY_TEXT = r"[^\ud800-\udfff]+"
_HOST = r"\w[\w-]*(?:\.\w[\w-]*)*\.?|\[[0-9A-Fa-f:.]+\]"
_PATH = "(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+"
_URL_FORM = "https://KEY:SECRET@HOST[:PORT][/PATH]/apps/APP_ID"
_URL = (
    rf"(?P<scheme>https?)://(?P<key>{_KEY}):(?P<secret>[^:@/\s]+)@(?P<host>{_HOST})"
    rf"(?::(?P<port>[0-9]{{1,5}}))?(?P<path>{_PATH})?/apps/(?P<app_id>{rules.APP_ID})/?"
)
ROUTE = r"(?!(.*/)?\.\.?(/|$))[^<>\s?#\\\x00-\x1f\ud800-\udfff]+"
"""A path that browsers ask for as it is written, and without variables."""
_BASE64_OF_32_BYTES = "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="
_FLAGS = dict.fromkeys(("true", "1", "yes", "on"), True)
_FLAGS.update(dict.fromkeys(("false", "0", "no", "off"), False))
BACKENDS = {"requests": RequestsBackend, "log": LogBackend}
"""Those that have a name."""
_HOSTED = r"api(?:-(?P<cluster>[a-z0-9-]+))?\.pusher(?:app)?\.com\.?"


class Settings:
    """An application's configuration, checked. The fields are named as the keys are."""

    app_id: str
    key: str
    secret: str
    cluster: str | None
    host: str | None
    port: int | None
    path: str
    ssl: bool
    timeout: float
    backend: Any
    backend_options: Mapping[str, Any]
    max_event_bytes: int | None
    publisher: str
    encryption_master_key_base64: str | None
    encryption_master_key: bytes | None
    auth: str
    user_auth: str
    webhook_max_age: float | None
    extra_tokens: Mapping[str, str]
    auth_max_channels: int
    js_url: str | None
    idiomorph_url: str | None
    client_options: Mapping[str, Any]

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


# -- Readers: each takes a value that is set, and gives what it means, or raises -------------------


def _trimmed(value: Any) -> Any:
    """Text as environment variables and files of secrets have it."""
    text = value.decode() if isinstance(value, bytes) else value
    return text.strip() if isinstance(text, str) else text


def _text(pattern: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # digits that from_prefixed_env took for JSON
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return read


def _cluster(value: Any) -> str:
    return _text("(?i:(?!api-)[a-z0-9-]+)")(value).lower()


def _host(value: Any) -> str:
    host = _text(rf"{_HOST}|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")(value).lower()
    if ":" not in host:
        return host
    from ipaddress import IPv6Address

    return f"[{IPv6Address(found := host.strip('[]')) and found}]"  # or it is none, and raises


def _flag(value: Any) -> bool:
    return _FLAGS[str(value).lower()]


def _whole_number(most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = int(_text("[0-9]{1,10}")(value))
        if not 1 <= number <= most:
            raise ValueError
        return number

    return read


_count = _whole_number(10**9)
_port = _whole_number(65535)


def _seconds(value: Any) -> float:
    number = value if isinstance(value, int) else float(value)
    if isinstance(value, bool) or not 0 < number <= 10**9:  # which sockets and clocks can count
        raise ValueError
    return number


def _or_none(reader: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For settings in which None has a meaning, and is ``none`` or ``null`` as text."""
    return lambda value: None if str(value).lower() in ("none", "null") else reader(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return {**(json.loads(value) if isinstance(value, str) else value)}


def _tokens(value: Any) -> Mapping[str, str]:
    key, secret = _text(_KEY), _text(_ANY_TEXT)
    return {key(_trimmed(one)): secret(_trimmed(of)) for one, of in _mapping(value).items()}


def _backend_options(value: Any) -> Mapping[str, Any]:
    options = _mapping(value)
    verify = options.get("verify")
    if isinstance(verify, (str, os.PathLike)) and not os.path.exists(verify):
        raise ValueError
    return options


def _client_options(value: Any) -> Mapping[str, Any]:
    options = _mapping(value)
    json.dumps(options, allow_nan=False)  # as pages are given them
    return options


def _backend(value: Any) -> Any:
    if isinstance(value, str):
        value = BACKENDS.get(value) or import_string(value)
    kinds = getattr(value, "__mro__", ())
    # The futures of Tornado's need its loop, which no Flask application runs: nothing would be sent.
    if not callable(value) or any(kind.__module__ == "pusher.tornado" for kind in kinds):
        raise ValueError
    return value


def _url(value: Any) -> Mapping[str, Any]:
    parts = re.fullmatch(_URL, value)
    if parts is None:
        raise ValueError
    readers = {"host": _host, "port": _port, "secret": unquote}
    return {name: readers.get(name, str)(part) for name, part in parts.groupdict().items() if part}


def _raw_key(value: Any) -> bytes:
    raw: bytes = value if isinstance(value, bytes) else _text(_ANY_TEXT)(value).encode()
    if len(raw) != 32:
        raise ValueError
    return raw


# -- The table ------------------------------------------------------------------------------------

ALWAYS, CHECKED, NEVER = "always", "checked", "never"


class Row(NamedTuple):
    """A setting."""

    key: str
    read: Callable[[Any], Any]
    default: Any
    """What it is where it is not set."""
    wanted: str
    """What it should be, for the error where it is something else."""
    shown: str
    """When its value may be seen: ``ALWAYS``, in errors too; ``CHECKED``, because what is wrong
    here may carry a credential; ``NEVER``, for it is one."""
    unset: tuple[Any, ...] = (None, "")
    """The values that mean that it is not set."""

    @property
    def field(self) -> str:
        return self.key[len("PUSHER_") :].lower()


_A_NUMBER, _A_DICT = "a whole number from 1 on", "a dict that is JSON, or a JSON object as text"
_A_LIMIT = f"{_A_NUMBER}, or None"
_A_BACKEND = "'requests', 'log', or an adapter class or its import path, not Tornado's"
_ITS_OPTIONS = "what the backend takes, a dict or JSON; 'verify' is a bool or a file that exists"
_SECONDS = "seconds, more than 0 and up to 10**9"
_A_ROUTE = "a path below the prefix, such as /auth, without ? and #"
_IS_ROUTE = _text(rf"(?!\w+://){ROUTE}")
_A_PORT = "a whole number from 1 to 65535"
_A_SCRIPT = "a script's https://... or a path with a slash in front; empty: the page loads its own"
_IS_SCRIPT = _text(r"((https?:/)?/\S+)?")
URL = Row("PUSHER_URL", _url, {}, f"of the form {_URL_FORM}, with a port up to 65535", NEVER)
TABLE = (
    Row("PUSHER_APP_ID", _text(rules.APP_ID), None, "the app's id, of A-Z a-z 0-9 _ -", CHECKED),
    Row("PUSHER_KEY", _text(_KEY), None, "the app's key, of A-Z a-z 0-9 . _ ~ -", CHECKED),
    Row("PUSHER_SECRET", _text(_ANY_TEXT), None, "the app's secret", NEVER),
    Row("PUSHER_CLUSTER", _cluster, None, "a cluster's name, such as eu", CHECKED),
    Row("PUSHER_HOST", _host, None, "a host's name: no scheme, credentials or port", CHECKED),
    Row("PUSHER_PORT", _port, None, _A_PORT, ALWAYS, (None, "", 0, "0")),  # 0 as in 3.0
    Row("PUSHER_PATH", _text(_PATH), "", "a path such as /channels, not /channels/", CHECKED),
    Row("PUSHER_SSL", _flag, None, "true or false", ALWAYS),
    Row("PUSHER_TIMEOUT", _seconds, 5, _SECONDS, ALWAYS),
    Row("PUSHER_BACKEND", _backend, RequestsBackend, _A_BACKEND, CHECKED),
    Row("PUSHER_BACKEND_OPTIONS", _backend_options, {}, _ITS_OPTIONS, NEVER),
    Row("PUSHER_MAX_EVENT_BYTES", _or_none(_count), rules.EVENT_BYTES, _A_LIMIT, ALWAYS, ("",)),
    Row("PUSHER_PUBLISHER", _text("thread|request"), "thread", "'thread' or 'request'", ALWAYS),
    Row(MASTER_KEY, _text(_BASE64_OF_32_BYTES), None, "32 bytes in base64", NEVER),
    Row("PUSHER_ENCRYPTION_MASTER_KEY", _raw_key, None, f"32 bytes (better: {MASTER_KEY})", NEVER),
    Row("PUSHER_AUTH", _IS_ROUTE, "/auth", _A_ROUTE, ALWAYS, (None,)),
    Row("PUSHER_USER_AUTH", _IS_ROUTE, "/user-auth", _A_ROUTE, ALWAYS, (None,)),
    Row("PUSHER_WEBHOOK_MAX_AGE", _or_none(_seconds), 600, f"{_SECONDS}, or None", ALWAYS, ("",)),
    Row("PUSHER_EXTRA_TOKENS", _tokens, {}, "a dict of keys and their secrets", NEVER),
    Row("PUSHER_AUTH_MAX_CHANNELS", _count, 500, _A_NUMBER, ALWAYS),
    Row("PUSHER_JS_URL", _IS_SCRIPT, None, _A_SCRIPT, CHECKED, (None,)),
    Row("PUSHER_IDIOMORPH_URL", _IS_SCRIPT, None, _A_SCRIPT, CHECKED, (None,)),
    Row("PUSHER_CLIENT_OPTIONS", _client_options, {}, _A_DICT, CHECKED),
)
"""Every setting but ``PUSHER_URL``, which is several in one."""


_ROWS = {row.key: row for row in (URL, *TABLE)}
_OF_THE_APP = ("app_id", "key", "secret")
_OF_THE_CLIENT = (
    *(*_OF_THE_APP, "cluster", "host", "port", "path", "ssl", "timeout", "backend"),
    *("max_event_bytes", "encryption_master_key", "encryption_master_key_base64"),
)
_OF_OTHER_LIBRARIES = {
    **dict.fromkeys(("PUSHER_ID", "PUSHER_APP"), "PUSHER_APP_ID"),
    **dict.fromkeys(("PUSHER_APP_KEY", "PUSHER_API_KEY"), "PUSHER_KEY"),
    **dict.fromkeys(("PUSHER_APP_SECRET", "PUSHER_API_SECRET"), "PUSHER_SECRET"),
    **dict.fromkeys(("PUSHER_APP_CLUSTER", "PUSHER_REGION"), "PUSHER_CLUSTER"),
    **dict.fromkeys(("PUSHER_SCHEME", "PUSHER_USE_TLS", "PUSHER_ENCRYPTED"), "PUSHER_SSL"),
    **dict.fromkeys(("PUSHER_MASTER_KEY", "PUSHER_ENCRYPTION_KEY"), MASTER_KEY),
}


def read_settings(app: Flask) -> Settings:
    """Check an application's ``PUSHER_*`` settings.

    :raises ValueError: for one that is missing or impossible.
    """
    config = _with_arguments_of_the_client(app.config)
    url = _read(URL, config)
    found = {row.field: _read(row, config) for row in TABLE}
    if found["backend"] is LogBackend:
        url = {"app_id": "log", "key": "log", "secret": secrets.token_hex(32), **url}
    for field in _OF_THE_APP:
        found[field] = found[field] or url.get(field)
        if found[field] is None:
            raise _missing(_ROWS[f"PUSHER_{field.upper()}"], config)
    if not found["cluster"] or hosted_cluster(url.get("host", "")) is None:
        found["host"] = found["host"] or url.get("host")
    if found["ssl"] is None:  # before the URL's port: `https://...:80` says what it speaks
        found["ssl"] = found["port"] != 80 and url.get("scheme") != "http"
    found["port"] = found["port"] or url.get("port")
    found["path"] = found["path"] or url.get("path", "")
    settings = Settings(**found)
    _expect_compatible(settings)
    for key, meant in strangers(app.config).items():
        warn(f"{key} is no setting of Flask-Pusher. Is {meant} meant?")
    # Applications for Flask-Pusher 3.0 may read these, whichever way they were set.
    for field in (*_OF_THE_APP, "auth", "host", "port"):
        app.config.setdefault(f"PUSHER_{field.upper()}", getattr(settings, field) or "")
    return settings


def _with_arguments_of_the_client(config: Mapping[str, Any]) -> dict[str, Any]:
    """In 3.0 the backend's options could hold arguments of the client. They are settings."""
    options = dict(_read(_ROWS["PUSHER_BACKEND_OPTIONS"], config))
    given = {name: options.pop(name) for name in _OF_THE_CLIENT if name in options}
    settings = {f"PUSHER_{name.upper()}": value for name, value in given.items()}
    return {**config, **settings, "PUSHER_BACKEND_OPTIONS": options}


def _read(row: Row, config: Mapping[str, Any]) -> Any:
    value = config.get(row.key, row.unset[0])
    try:
        value = value if row.read is _raw_key else _trimmed(value)
        return row.default if value in row.unset else row.read(value)
    except (ValueError, TypeError, LookupError, ImportError, ArithmeticError, RecursionError):
        raise _error(row, config[row.key]) from None


def _error(row: Row, value: Any) -> ValueError:
    wanted = row.wanted
    # Such as 12e45: from_prefixed_env takes it for JSON, and its digits are lost.
    if isinstance(value, float) and row.shown != ALWAYS:
        wanted = "given as text: in an environment variable, quote it twice"
    found = f"it holds a {type(value).__name__}, which is not shown"
    if row.shown == ALWAYS and not re.search("[@:]", str(value)):
        found = f"it is {value!r:.100}"
    return ValueError(f"{row.key} should be {wanted}; {found}.")


def _missing(row: Row, config: Mapping[str, Any]) -> ValueError:
    others = [key for key, meant in strangers(config).items() if meant == row.key]
    but = f", but {' and '.join(others)} is, which is no setting here" if others else ""
    return ValueError(
        f"{row.key} should be {row.wanted}, from the service's page about the app, or any for the"
        f" local server; it is not set{but}. Settings come before Pusher(app) and init_app(app);"
        f" app.config.from_prefixed_env() takes FLASK_{row.key} from the environment."
    )


def strangers(config: Mapping[str, Any]) -> dict[str, str]:
    """The keys that are no settings, but misspelt ones or those of other libraries, each with the
    key that is meant. All others are the application's own."""
    unknown = [key for key in config if str(key).startswith("PUSHER_") and key not in _ROWS]
    meant = {key: _OF_OTHER_LIBRARIES.get(key) or _nearest(key) for key in unknown}
    return {key: known for key, known in meant.items() if known}


def _nearest(key: str) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(key, _ROWS, n=1, cutoff=0.92)), None)


def _expect_compatible(settings: Settings) -> None:
    if settings.key == settings.secret:
        raise ValueError("PUSHER_KEY and PUSHER_SECRET hold the same, and pages carry the key.")
    if settings.encryption_master_key and settings.encryption_master_key_base64:
        both = f"PUSHER_ENCRYPTION_MASTER_KEY and {MASTER_KEY} are both set. Keep the latter."
        raise ValueError(both)
    paths = [settings.auth.strip("/"), settings.user_auth.strip("/"), "events"]
    paths += (f"events/{group}" for group in rules.WEBHOOK_GROUPS)
    if len(set(paths)) < len(paths):
        raise ValueError("PUSHER_AUTH and PUSHER_USER_AUTH should be two paths, and no webhooks'.")


def make_client(app: Flask, settings: Settings) -> Client:
    """The client that these settings describe.

    :raises ValueError: for options that the backend does not take, and for what is no backend.
    """
    arguments = {name: getattr(settings, name) for name in _OF_THE_CLIENT}
    # An application's own classes, as Flask had them before 2.3, or what goes through its app.json.
    for name in ("json_encoder", "json_decoder"):
        arguments[name] = getattr(app, name, None) or Codec(app)
    arguments.update(settings.backend_options)
    if settings.backend is LogBackend:
        arguments["app"] = app
    try:
        client = Client(**arguments)
        if not callable(getattr(client.http, "send_request", None)):
            raise TypeError(f"a {type(client.http).__name__} has no method send_request")
    except Exception as error:
        row = _ROWS["PUSHER_BACKEND_OPTIONS" if settings.backend_options else "PUSHER_BACKEND"]
        raise ValueError(f"{row.key} should be {row.wanted}: {error}.") from error
    return client


def hosted_cluster(host: str) -> str | None:
    """The cluster that a host of the hosted service is of, empty for its first one; None for a
    host of one's own."""
    hosted = re.fullmatch(_HOSTED, host)
    return hosted and (hosted["cluster"] or "")

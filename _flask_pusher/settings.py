"""``app.config`` in, checked :class:`Settings` out: one table of key, reader, default."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from flask import Flask
from pusher.requests import RequestsBackend
from werkzeug.utils import import_string

from _flask_pusher import rules
from _flask_pusher.api import MASTER_KEY
from _flask_pusher.client import Client
from _flask_pusher.codec import json_classes
from _flask_pusher.stand_in import LogBackend
from _flask_pusher.warning import warn

LOG = "log"
"""The backend that sends nothing and needs no credentials."""

_KEY = r"[A-Za-z0-9_.~-]+"
_ANY_TEXT = r"[^\ud800-\udfff]+"
_HOST = r"\w[\w-]*(?:\.\w[\w-]*)*\.?|\[[0-9A-Fa-f:.]+\]"
_PATH = "(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+"
_URL_FORM = "https://KEY:SECRET@HOST[:PORT][/PATH]/apps/APP_ID"
_URL = (
    rf"(?P<scheme>https?)://(?P<key>{_KEY}):(?P<secret>[^:@/\s]+)@(?P<host>{_HOST})"
    rf"(?::(?P<port>[0-9]{{1,5}}))?(?P<path>{_PATH})?/apps/(?P<app_id>{rules.APP_ID})/?"
)
_BASE64_OF_32_BYTES = "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="
_FLAGS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_HOSTED = r"api(?:-(?P<cluster>[a-z0-9-]+))?\.pusher(?:app)?\.com"
_LONGEST = 10**9
"""Seconds, which sockets and clocks can count."""


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
    client_options: Mapping[str, Any]

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    @property
    def tokens(self) -> dict[str, str]:
        """The secrets by which webhooks are accepted, by their keys."""
        return {**self.extra_tokens, self.key: self.secret}


class _WrongError(Exception):
    """A value that a setting cannot have. The reader says what it should be, if it knows better."""


# -- Readers: each takes a value that is set, and gives what it means -----------------------------


def _text(pattern: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # digits that from_prefixed_env took for JSON
        if isinstance(value, float):
            raise _WrongError("given as text: in an environment variable, quote it twice")
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise _WrongError
        return value

    return read


def _host(value: Any) -> str:
    if not isinstance(value, str) or ":" not in value:
        return _text(_HOST)(value)
    from ipaddress import IPv6Address

    address = value.strip("[]")
    try:
        IPv6Address(address)
    except ValueError:
        raise _WrongError from None
    if "%" in address:
        raise _WrongError("an address without a zone, which HTTP libraries cannot ask")
    return f"[{address}]"  # as URLs have it


def _flag(value: Any) -> bool:
    try:
        return _FLAGS[str(value).lower()]
    except KeyError:
        raise _WrongError from None


def _whole_number(most: int, least: int = 1) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch("[0-9]{1,10}", value):
            value = int(value)
        if type(value) is not int or not least <= value <= most:
            raise _WrongError
        return int(value)

    return read


def _port(value: Any) -> int | None:
    return _whole_number(65535, least=0)(value) or None  # 0 is not set, as for Flask-Pusher 3.0


def _seconds(value: Any) -> float:
    with suppress(ValueError):
        number = float(value) if isinstance(value, str) else value
        if type(number) in (int, float) and 0 < number <= _LONGEST:
            return float(number) if type(number) is float else number
    raise _WrongError


def _or_none(reader: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For settings in which None has a meaning, and is ``none`` or ``null`` as text."""

    def read(value: Any) -> Any:
        is_none = value is None or (isinstance(value, str) and value.lower() in ("none", "null"))
        return None if is_none else reader(value)

    return read


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):  # then it is no mapping either
            value = json.loads(value)
    if not isinstance(value, Mapping):
        raise _WrongError
    return value


def _tokens(value: Any) -> Mapping[str, str]:
    tokens = _mapping(value)
    for key, secret in tokens.items():
        if not (isinstance(key, str) and isinstance(secret, str)):
            raise _WrongError
        if not (re.fullmatch(_KEY, key) and re.fullmatch(_ANY_TEXT, secret)):
            raise _WrongError
    return tokens


def _backend_options(value: Any) -> Mapping[str, Any]:
    options = _mapping(value)
    verify = options.get("verify")
    if isinstance(verify, (str, os.PathLike)) and not os.path.exists(verify):
        raise _WrongError("a dict whose 'verify' is a bool or a file of certificates that exists")
    return options


def _backend(value: Any) -> Any:
    if value == LOG:
        return LogBackend
    if isinstance(value, str):
        try:
            value = import_string(value)
        except (ImportError, ValueError) as error:
            raise _WrongError("'log', or a class or its import path that imports") from error
    if not callable(value):
        raise _WrongError
    if any(base.__module__ == "pusher.tornado" for base in getattr(value, "__mro__", ())):
        raise _WrongError(
            "another backend than Tornado's: its futures need Tornado's loop, which no Flask"
            " application runs, so nothing would be sent"
        )
    return value


def _publisher(value: Any) -> str:
    if value not in ("thread", "request"):
        raise _WrongError
    return str(value)


def _route(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[^<>\s]*", value):
        raise _WrongError
    return value


def _url(value: Any) -> Mapping[str, str]:
    parts = re.fullmatch(_URL, _text(r"\S+")(value))
    if parts is None or (parts["port"] and not 1 <= int(parts["port"]) <= 65535):
        raise _WrongError
    found = {name: part for name, part in parts.groupdict().items() if part}
    return {**found, "host": _host(found["host"]), "secret": unquote(found["secret"])}


def _raw_key(value: Any) -> bytes:
    raw = value.encode(errors="surrogatepass") if isinstance(value, str) else value
    if not isinstance(raw, bytes) or len(raw) != 32:
        raise _WrongError
    return raw


# -- The table ------------------------------------------------------------------------------------


class Setting:
    """One row: the key, how its value is read, what it is where it is not set, and what it should
    be, for the error where it is something else.

    :param is_public: whether a wrong value may be shown: nobody puts a credential there by mistake.
    :param unset: the values that mean that the setting is not set.
    """

    def __init__(
        self,
        key: str,
        read: Callable[[Any], Any],
        default: Any,
        wanted: str,
        is_public: bool = False,
        unset: tuple[Any, ...] = (None, ""),
    ) -> None:
        self.key = key
        self.field = key[len("PUSHER_") :].lower()
        self.read = read
        self.default = default
        self.wanted = wanted
        self.is_public = is_public
        self.unset = unset


URL = Setting("PUSHER_URL", _url, {}, f"of the form {_URL_FORM}, with a port up to 65535")
TABLE = (
    Setting("PUSHER_APP_ID", _text(rules.APP_ID), None, "the app's id, of A-Z a-z 0-9 _ -"),
    Setting("PUSHER_KEY", _text(_KEY), None, "the app's key, of A-Z a-z 0-9 . _ ~ -"),
    Setting("PUSHER_SECRET", _text(_ANY_TEXT), None, "the app's secret"),
    Setting("PUSHER_CLUSTER", _text("[A-Za-z0-9-]+"), None, "a cluster's name, such as eu"),
    Setting("PUSHER_HOST", _host, None, "a host's name, without scheme, credentials and port"),
    Setting("PUSHER_PORT", _port, None, "a whole number from 1 to 65535", True),
    Setting(
        "PUSHER_PATH", _text(_PATH), "", "a path such as /channels, without a slash at its end"
    ),
    Setting("PUSHER_SSL", _flag, None, "true or false", True),
    Setting("PUSHER_TIMEOUT", _seconds, 5, "seconds, more than 0 and up to 10**9", True),
    Setting("PUSHER_BACKEND", _backend, None, "'log', or an adapter class or its import path"),
    Setting("PUSHER_BACKEND_OPTIONS", _backend_options, {}, "a dict, or a JSON object as text"),
    Setting(
        "PUSHER_MAX_EVENT_BYTES",
        _or_none(_whole_number(10**9)),
        rules.EVENT_BYTES,
        "a whole number from 1 on, or None",
        is_public=True,
        unset=("",),
    ),
    Setting("PUSHER_PUBLISHER", _publisher, "thread", "'thread' or 'request'", True),
    Setting(MASTER_KEY, _text(_BASE64_OF_32_BYTES), None, "32 bytes in base64"),
    Setting("PUSHER_ENCRYPTION_MASTER_KEY", _raw_key, None, f"32 bytes (better: {MASTER_KEY})"),
    Setting(
        "PUSHER_AUTH", _route, "/auth", "a path below the prefix, such as /auth", True, (None,)
    ),
    Setting("PUSHER_USER_AUTH", _route, "/user-auth", "a path, such as /user-auth", True),
    Setting(
        "PUSHER_WEBHOOK_MAX_AGE",
        _or_none(_seconds),
        600,
        "seconds, more than 0 and up to 10**9, or None",
        is_public=True,
        unset=("",),
    ),
    Setting("PUSHER_EXTRA_TOKENS", _tokens, {}, "a dict of keys and their secrets"),
    Setting(
        "PUSHER_AUTH_MAX_CHANNELS",
        _whole_number(10**9),
        500,
        "a whole number from 1 on",
        is_public=True,
    ),
    Setting("PUSHER_CLIENT_OPTIONS", _mapping, {}, "a dict, or a JSON object as text"),
)
_OF_THE_APP = ("app_id", "key", "secret")
# Flask-Pusher 3.0 had them; the client has no push notifications any more.
_GONE = ("PUSHER_NOTIFICATION_HOST", "PUSHER_NOTIFICATION_SSL")


def read_settings(app: Flask) -> Settings:
    """Check an application's ``PUSHER_*`` settings.

    :raises ValueError: for one that is missing or impossible.
    """
    _warn_of_near_misses(app)
    url = _read(URL, app.config) or {}
    found = {row.field: _read(row, app.config) for row in TABLE}
    if found["backend"] is LogBackend:
        url = {"app_id": "log", "key": "log", "secret": secrets.token_hex(32), **url}
    for row in TABLE:
        if row.field in _OF_THE_APP:
            found[row.field] = found[row.field] or url.get(row.field)
            if found[row.field] is None:
                raise _error(
                    row,
                    app.config,
                    f"{row.wanted}, from the service's page about the app, or any for the local"
                    " server",
                )
    if found["host"] is None and not (
        found["cluster"] and re.fullmatch(_HOSTED, url.get("host", ""))
    ):
        found["host"] = url.get("host")
    if found["ssl"] is None:  # before the URL's port: `https://...:80` says what it speaks
        found["ssl"] = found["port"] != 80 and url.get("scheme") != "http"
    found["port"] = found["port"] or (int(url["port"]) if "port" in url else None)
    found["path"] = found["path"] or url.get("path", "")
    settings = Settings(**found)
    _expect_compatible(settings)
    _leave_for_the_application(app, settings)
    return settings


def _read(row: Setting, config: Mapping[str, Any]) -> Any:
    if row.key not in config:
        return row.default
    value = config[row.key]
    if isinstance(value, bytes) and row.read is not _raw_key:
        with suppress(UnicodeDecodeError):
            value = value.decode()
    if isinstance(value, str) and row.read is not _raw_key:
        value = value.strip()
    if value in row.unset:
        return row.default
    try:
        return row.read(value)
    except _WrongError as wrong:
        raise _error(row, config, str(wrong) or row.wanted) from None


def _error(row: Setting, config: Mapping[str, Any], wanted: str) -> ValueError:
    value = config.get(row.key)
    if value is None or (isinstance(value, str) and not value.strip()):
        found = (
            "it is not set. app.config.from_prefixed_env() takes"
            f" FLASK_{row.key} from the environment"
        )
    elif row.is_public and not re.search("[@:]", str(value)):
        found = f"it is {value!r:.100}"
    elif isinstance(value, str):
        found = f"it holds text of {len(value)} characters, which is not shown"
    else:
        found = f"it holds a {type(value).__name__}, which is not shown"
    return ValueError(f"{row.key} should be {wanted}; {found}.")


def _expect_compatible(settings: Settings) -> None:
    if settings.encryption_master_key and settings.encryption_master_key_base64:
        raise ValueError(
            f"PUSHER_ENCRYPTION_MASTER_KEY and {MASTER_KEY} are both set. Keep the latter."
        )
    routes = {"", "events", *(f"events/{group}" for group in rules.WEBHOOK_GROUPS)}
    auth, user_auth = settings.auth.strip("/"), settings.user_auth.strip("/")
    if auth and auth in routes:
        raise ValueError("PUSHER_AUTH should be another path than those of webhooks have.")
    if user_auth in {auth, *routes}:
        raise ValueError(
            "PUSHER_USER_AUTH should be another path than PUSHER_AUTH and webhooks have."
        )


def _leave_for_the_application(app: Flask, settings: Settings) -> None:
    """Applications for Flask-Pusher 3.0 may read these, whichever way they were set."""
    defaults = {"HOST": "", "PORT": "", "AUTH": settings.auth}
    credentials = {"APP_ID": settings.app_id, "KEY": settings.key, "SECRET": settings.secret}
    for name, value in {**defaults, **credentials}.items():
        app.config.setdefault(f"PUSHER_{name}", value)


def _warn_of_near_misses(app: Flask) -> None:
    known = {row.key for row in (URL, *TABLE)}
    unknown = [
        key
        for key in app.config
        if isinstance(key, str) and key.startswith("PUSHER_") and key not in {*known, *_GONE}
    ]
    if not unknown:
        return
    from difflib import get_close_matches

    names = {key[len("PUSHER_") :]: key for key in known}
    for key in unknown:
        for name in get_close_matches(key[len("PUSHER_") :], names, n=1, cutoff=0.8):
            warn(f"{key} is no setting of Flask-Pusher. Is {names[name]} meant?")


def make_client(app: Flask, settings: Settings) -> Client:
    """The client that these settings describe.

    :raises ValueError: for options that the backend does not take.
    """
    arguments: dict[str, Any] = {
        **json_classes(app),
        "key": settings.key,
        "secret": settings.secret,
        "cluster": settings.cluster,
        "host": settings.host,
        "port": settings.port,
        "path": settings.path,
        "ssl": settings.ssl,
        "timeout": settings.timeout,
        "backend": settings.backend,
        "max_event_bytes": settings.max_event_bytes,
        "encryption_master_key": settings.encryption_master_key,
        "encryption_master_key_base64": settings.encryption_master_key_base64,
    }
    options = dict(settings.backend_options)
    if settings.backend is LogBackend:
        options["logger"] = app.logger
    try:
        return Client(settings.app_id, **{**arguments, **options})
    except (TypeError, ValueError) as error:
        if not settings.backend_options:
            raise
        raise ValueError(
            f"PUSHER_BACKEND_OPTIONS should be what PUSHER_BACKEND takes: {error}."
        ) from None


def hosted_cluster(host: str) -> str | None:
    """The cluster that a host of the hosted service is of, empty for its first one; None for a
    host of one's own."""
    hosted = re.fullmatch(_HOSTED, host)
    return hosted and (hosted["cluster"] or "")


def is_default_backend(settings: Settings) -> bool:
    return settings.backend in (None, RequestsBackend)

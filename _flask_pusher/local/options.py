"""What a server is given: checked, and turned into what it works with."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Union

from flask import Flask

if TYPE_CHECKING:
    import ssl

PORT = 6001  # where `serve` listens, unless it is told otherwise
Webhooks = Union[None, bool, str, Sequence[Union[str, Mapping[str, Any]]]]
BACKLOG = 1024  # connections not accepted yet

FEATURES = {
    "client-events": "events that pages send to each other",
    "subscription-count": "subscription counts",
    "watchlist-events": "watchlist events",
    "cache-events": "cache_miss webhooks",
}
"""What the hosted service does only for apps in whose settings it is switched on."""


WHERE = frozenset({"cluster", "forceTLS", "wsHost", "wsPort", "wssPort", "wsPath"}) | frozenset(
    {"httpHost", "httpPort", "httpsPort", "httpPath"}
)
"""The options of pusher-js that say where the server is."""


class Settings(Protocol):
    """What is used of the application's settings."""

    client_options: Mapping[str, Any]


class Client(Protocol):
    """What is used of the application's client."""

    address: tuple[str, int, bool]

    @property
    def app_id(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def secret(self) -> str: ...

    @property
    def path(self) -> str: ...


def client_of(app: Flask) -> tuple[Client, Settings]:
    """An application's client, and its settings."""
    if not isinstance(app, Flask):
        raise TypeError(
            f"The local server takes the Flask application, as local_server(app), and not a"
            f" {type(app).__name__}"
        )
    try:
        binding = app.extensions["flask_pusher"]
    except KeyError:
        raise RuntimeError(
            f"The application {app.name!r} has no Flask-Pusher extension, so there are no"
            " credentials to serve. Did you forget to call 'init_app'?"
        ) from None
    if getattr(binding.client.http, "sends_nothing", False):
        raise ValueError(
            "PUSHER_BACKEND is 'log', by which nothing is sent, nor to a local server: leave it out"
        )
    return binding.client, binding.settings


def import_the_extra() -> None:
    try:
        import aiohttp  # noqa: F401
        import wsproto  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError(
            f'The local server needs {error.name}: pip install "Flask-Pusher[local]"',
            name=error.name,
        ) from None


def seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {value!r}")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} is a number of seconds above 0, not {value!r}")
    return value


def pause(name: str, value: Any) -> float:
    """Read a number of seconds that may be 0."""
    return 0 if value == 0 and not isinstance(value, bool) else seconds(name, value)


def features(without: str | Iterable[str]) -> frozenset[str]:
    """Read names of features, which may be one text with commas."""
    names = without.split(",") if isinstance(without, str) else without
    if isinstance(names, (bytes, Mapping)) or not isinstance(names, Iterable):
        raise TypeError(f"without is a list of {', '.join(FEATURES)}, not {names!r}")
    asked = frozenset(str(name).strip() for name in names) - {""}
    if not asked <= set(FEATURES):
        unknown = ", ".join(sorted(asked - set(FEATURES)))
        raise ValueError(f"without: {unknown} is none of {', '.join(FEATURES)}")
    return asked


def whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} is not negative, as {value} is")
    return value


def place(client: Client, host: str | None, port: int | None) -> tuple[str, int]:
    """Where to listen, unless it was said: where the settings point, if that is this machine."""
    set_host, set_port, _ = client.address
    if not is_loopback(set_host):
        set_host, set_port = "127.0.0.1", PORT
    return (set_host.strip("[]") if host is None else host, set_port if port is None else port)


def listen(host: str, port: int) -> socket.socket:
    if not isinstance(host, str):
        raise TypeError(f"host is a text, not {host!r}")
    if not 0 <= whole("port", port) <= 65535:
        raise ValueError(f"port is from 0 to 65535, not {port}")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"host is a name or an address, not {host!r:.200}") from None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while ")[0]
        raise OSError(error.errno, f"Cannot listen on {host} port {port}: {reason}") from error


def reachable(host: str) -> str:
    """The host of a URL that reaches a server listening on ``host``."""
    if not host or _has(host, "is_unspecified"):
        host = "::1" if ":" in host else "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def files(certificate: str | None, private_key: str | None) -> tuple[str, str | None] | None:
    if certificate is not None:
        return certificate, private_key
    if private_key is not None:
        raise ValueError("A private key needs its certificate, or the server would speak no TLS")
    return None


def tls(certificate: str, private_key: str | None) -> ssl.SSLContext:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, private_key)
    except OSError as error:
        files = certificate if private_key is None else f"{certificate} with {private_key}"
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"Cannot use the certificate {files}: {reason}") from error
    return context


def is_same_place(one: tuple[str, int, bool], other: tuple[str, int, bool]) -> bool:
    """Whether two addresses are one: this machine has several names."""
    is_same_host = one[0] == other[0] or (is_loopback(one[0]) and is_loopback(other[0]))
    return is_same_host and one[1:] == other[1:]


def url_of(address: tuple[str, int, bool]) -> str:
    host, port, is_tls = address
    return f"{'https' if is_tls else 'http'}://{host}:{port}"


def is_loopback(host: str) -> bool:
    return host == "localhost" or _has(host.strip("[]"), "is_loopback")


def _has(host: str, quality: str) -> bool:
    """Whether a host is an address of this quality, and no name."""
    import ipaddress

    try:
        return bool(getattr(ipaddress.ip_address(host), quality))
    except ValueError:
        return False

"""What a client sends through: connections that last, answers that are checked, errors in words."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import math
import os
import re
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, NamedTuple

import requests
from pusher import errors
from pusher.errors import PusherError
from pusher.http import Request
from pusher.requests import RequestsBackend
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.exceptions import DecodeError, ProtocolError
from urllib3.util import Timeout
from urllib3.util.ssl_match_hostname import CertificateError

Observer = Callable[[Request], Any]
Prepared = requests.PreparedRequest

READ_BYTES = 16 * 1024
MOST_BYTES = 64 * 1024 * 1024
"""The longest answer that is read: that of a million channels, about."""


class NoAnswer(PusherError, requests.RequestException):  # type: ignore[misc]  # noqa: N818
    """No answer came from the HTTP API: nothing listens there, the connection broke, or it took
    longer than ``PUSHER_TIMEOUT``.

    The message names the address, says what happened and what to look at. The exception of the
    HTTP library is the ``__cause__``.

    .. versionadded:: 4.0
    """

    timed_out: bool = False
    """Whether the API took the call and was silent for ``PUSHER_TIMEOUT`` seconds. It may have
    done what it was asked for."""
    broke: bool = False
    """Whether the connection broke before the answer, twice. It may have done it, too."""


class Transport:
    """What a client sends through: the backend, whose answers and errors it checks; or an observer
    that answers in its place, while events are recorded."""

    observers: Callable[[], Observer | None] | None = None
    """Who answers at present, if anybody does."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __getstate__(self) -> dict[str, Any]:
        return {"backend": self.backend}  # a copy has no application

    def send_request(self, request: Request) -> Any:
        observer = self.observers() if self.observers else None
        if observer is not None:
            answer = observer(request)
            is_async = inspect.iscoroutinefunction(self.backend.send_request)
            return _result(answer) if is_async else answer
        handled = sys.exc_info()[1]
        try:
            answer = self.backend.send_request(request)
        except Exception as error:  # noqa: BLE001 - each backend has its own
            raise _told(error, request, handled) from _cause(error, handled)
        return self._awaited(answer, request) if inspect.isawaitable(answer) else _accepted(answer)

    async def _awaited(self, answer: Awaitable[Any], request: Request) -> Any:
        handled = sys.exc_info()[1]
        try:
            found = await answer
        except Exception as error:  # noqa: BLE001 - each backend has its own
            raise _told(error, request, handled) from _cause(error, handled)
        return _accepted(found)


async def _result(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


def complete(answer: Any) -> Any:
    """An answer of the API: itself, or what a coroutine or future of it comes to."""
    if not inspect.isawaitable(answer):
        return answer
    import asyncio  # which takes long, and hardly any application needs

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_result(answer))
    # A loop runs in this thread, and is not to be waited in: another thread gets one of its own.
    from concurrent.futures import ThreadPoolExecutor  # not sooner: as Python ends, it cannot be

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _result(answer)).result()


# -- The backend ----------------------------------------------------------------------------------


class Backend(RequestsBackend):  # type: ignore[misc]
    """The client's adapter for ``requests``, for processes that fork and servers that hang up.

    A connection is kept for each thread that publishes at once, and not for longer than balancers
    remember it. A forked process opens its own, and one that breaks before an answer is tried once
    more, on a new connection: the server may have had the event already, and then has it twice. A
    timeout is not tried again.
    """

    connections: ClassVar[int] = 1000
    """How many connections are kept at most; for a further one, the oldest is closed."""
    idle_seconds: ClassVar[float] = 20
    """How long a connection is kept without a call."""
    takes: ClassVar[tuple[str, ...]] = ("auth", "cert", "cookies", "hooks", "proxies", "verify")
    """The options, which are those of ``requests``; what else that has is the client's."""

    def __init__(self, client: Any, **options: Any) -> None:
        if unknown := sorted(set(options).difference(self.takes)):
            raise TypeError(f"{unknown[0]!r} is none of {', '.join(self.takes)}")
        self.client = client
        self.options = options
        self._kept: dict[tuple[int, str], _Kept] = {}
        """By the process and the address; those of others are dropped."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def send_request(self, request: Request) -> Any:
        at, handled = (os.getpid(), request.base_url), sys.exc_info()[1]
        kept = self._kept.get(at)
        if kept is None:
            # Where several threads come here at once, all take those of the first.
            kept = self._kept.setdefault(at, self._new_kept(request))
            for other in set(self._kept) - {at}:
                self._kept.pop(other, None)
        try:
            return self._answer(kept, request)
        except requests.ConnectionError as error:
            if not _broke(_causes(error, handled)):
                raise
            kept.close(math.inf)
            return self._answer(kept, request)

    def _answer(self, kept: _Kept, request: Request) -> Any:
        kept.close(time.monotonic() - self.idle_seconds)
        try:
            session = kept.idle.pop()[1]
        except IndexError:
            session = _Session()
        prepared = self._prepared(kept.sample, request)
        response = session.send(prepared, allow_redirects=False, **kept.options)
        body = _read(response, self.client.timeout)
        kept.idle.append((time.monotonic(), session))
        text = body.decode("utf-8", "replace")
        if response.status_code not in (200, 202):
            raise _refusal(response.status_code, text, response.headers)
        return json.loads(text)

    def _new_kept(self, request: Request) -> _Kept:
        """What the environment says of proxies and certificates is read here, and not for each
        call, as that takes a third of its time."""
        given = {**dict.fromkeys(self.takes), **proxies_for(request.client.host), **self.options}
        url = f"{request.base_url}/"
        options = requests.Session().merge_environment_settings(
            url, dict(given["proxies"] or {}), True, given["verify"], given["cert"]
        )
        how = {name: given[name] for name in ("cookies", "hooks")}
        sample = _Session().prepare_request(requests.Request("GET", url, **how))
        timeout = Timeout(connect=self.client.timeout, read=self.client.timeout)
        return _Kept(deque(maxlen=self.connections), {**options, "timeout": timeout}, sample)

    def _prepared(self, sample: Prepared, request: Request) -> Prepared:
        prepared = copy.copy(sample)
        prepared.hooks = {event: [*hooks] for event, hooks in sample.hooks.items()}
        prepared.headers = sample.headers.copy()
        prepared.headers.update(request.headers)
        prepared.method = request.method
        prepared.url = f"{str(sample.url)[:-1]}{request.signed_path}"
        if request.body:
            prepared.body = request.body
            prepared.headers["Content-Length"] = str(len(request.body))
        if auth := self.options.get("auth"):
            prepared.prepare_auth(auth, request.url)
        return prepared


class _Kept(NamedTuple):
    """The connections of one process to one address."""

    idle: deque[tuple[float, requests.Session]]
    """Each in a session of its own, with the time of its last call; the last one last."""
    options: dict[str, Any]
    """How a request is sent."""
    sample: Prepared
    """A request that lacks its method, path and body, and the headers of its own."""

    def close(self, until: float) -> None:
        """Close the connections that have had no call since then."""
        with suppress(IndexError):  # there is none, or another thread took it
            while self.idle[0][0] <= until:
                self.idle.popleft()[1].close()


class _Session(requests.Session):
    """One connection to one address, by which no redirect is followed."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        for name in ("Accept", "Connection"):  # each says what HTTP/1.1 has without it
            del self.headers[name]
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def resolve_redirects(self, *_args: Any, **_options: Any) -> Iterator[Any]:
        """None, for which requests would take the address apart."""
        return iter(())


class _Adapter(HTTPAdapter):
    """What TCP itself keeps alive."""

    _pool: Any = None

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        alive = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        options["socket_options"] = [*HTTPConnection.default_socket_options, alive]
        super().init_poolmanager(*args, **options)

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        """The pool of connections, which requests looks up for each call, and is always the same."""
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **options)
        return self._pool

    def request_url(self, request: Prepared, proxies: Mapping[str, str] | None) -> str:
        """The path; to a proxy, it may be the whole address."""
        return super().request_url(request, proxies) if proxies else request.path_url


def proxies_for(host: str) -> dict[str, Any]:
    """The option of ``requests`` by which no proxy of the environment is asked for this machine."""
    return {"proxies": {"http": None, "https": None, "all": None}} if is_loopback(host) else {}


def is_loopback(host: str) -> bool:
    return bool(re.fullmatch(r"localhost|\[?::1\]?|127(\.[0-9]+){3}", host))


def _broke(causes: Iterable[BaseException]) -> bool:
    """Whether a connection was there, and broke before an answer came."""
    return any(
        isinstance(one, (ProtocolError, ssl.SSLEOFError, ConnectionResetError, BrokenPipeError))
        or type(one).__name__ == "ServerDisconnectedError"  # aiohttp's
        for one in causes
    )


# -- Answers --------------------------------------------------------------------------------------


def _read(response: requests.Response, timeout: float) -> bytes:
    """A body, which may neither go on for ever nor fill the memory."""
    deadline = time.monotonic() + timeout
    raw, body = response.raw, bytearray()
    raw.enforce_content_length = True  # urllib3 1.26 does not by itself
    # What says that it is short is read as a whole, which takes less; compressed, it may be long.
    is_short = (raw.length_remaining or math.inf) <= READ_BYTES
    is_short &= "Content-Encoding" not in response.headers
    with response:
        while part := raw.read(None if is_short else READ_BYTES, decode_content=True):
            body += part
            if len(body) > MOST_BYTES:
                raise _no_answer_of_channels(f"of more than {MOST_BYTES} bytes")
            if time.monotonic() > deadline:
                raise requests.ReadTimeout
    return bytes(body) or response.content  # of which a hook may have read it


def _accepted(answer: Any) -> dict[str, Any]:
    """An answer of the API that is no refusal.

    soketi's refusals have status 200, and the status that they should have in their body.

    :raises PusherError: for a refusal, and for what is no answer of Channels.
    """
    if not isinstance(answer, dict):
        raise _no_answer_of_channels(f"of type {type(answer).__name__}")
    status = answer.get("code") if "error" in answer else None
    if isinstance(status, int) and status >= 400:
        raise _refusal(status, str(answer["error"]), {})
    return answer


def _no_answer_of_channels(found: str) -> PusherError:
    look = "Do PUSHER_HOST and PUSHER_PORT name a Channels server?"
    return PusherError(f"The answer is not one of Channels, but {found}. {look}")


_REFUSALS = {400: errors.PusherBadRequest, 401: errors.PusherBadAuth, 403: errors.PusherForbidden}


def _refusal(status: int, text: str, headers: Mapping[str, str]) -> PusherError:
    """The client's exception for an answer, with its status, and how long it asks to wait."""
    text = " ".join(text.split())[:300]
    if 300 <= status < 400:
        text = f"The API is not here, but at {_scrubbed(headers.get('Location', '?'))}."
        text += " Are PUSHER_HOST, PUSHER_PORT and PUSHER_SSL right?"
    if status == 404:
        text = text[:100] + " Are PUSHER_HOST, PUSHER_PATH and PUSHER_APP_ID right?"
    kind = _REFUSALS.get(status)
    error = errors.PusherBadStatus(f"{status}: {text}") if kind is None else kind(text)
    error.status = status
    error.retry_after = _seconds(headers.get("Retry-After", ""))
    return error


def _seconds(text: str) -> float:
    """How long ``Retry-After`` asks to wait, in seconds or by a date: for an hour at most."""
    if text.isascii() and text.isdigit():
        return min(float(text), 3600.0)
    with suppress(TypeError, ValueError, OverflowError):
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
        return min(max(seconds, 0.0), 3600.0)
    return 0.0


def status_of(error: BaseException) -> int | None:
    """The HTTP status of a refusal; None where the error has none.

    Another adapter's error has it by the official client's rule: in its class, or before its text.
    """
    status: int | None = getattr(error, "status", None)
    if status is None and isinstance(error, PusherError):
        kinds = [status for status, kind in _REFUSALS.items() if isinstance(error, kind)]
        found = re.match(r"([1-5][0-9][0-9]): ", str(error))
        status = kinds[0] if kinds else int(found[1]) if found else None
    return status


def retry_after_of(error: BaseException) -> float:
    """For how many seconds the service asked not to be asked again."""
    return getattr(error, "retry_after", 0.0)


# -- Errors, in words and without signatures ------------------------------------------------------


def _told(error: Exception, request: Request, handled: BaseException | None) -> PusherError:
    """What a backend's exception is to the caller, who may have been handling another one."""
    if isinstance(error, PusherError):
        return error
    if isinstance(error, requests.HTTPError) and error.response is not None:  # a hook's
        return _refusal(error.response.status_code, error.response.text, error.response.headers)
    is_unreadable = isinstance(error, (ValueError, RecursionError, DecodeError))
    if is_unreadable and not isinstance(error, OSError):  # requests has some that are both
        found = " ".join(_scrubbed(str(getattr(error, "doc", error))).split())
        return _no_answer_of_channels(f"this: {found[:100]!r}")
    happened, look = in_words(error, request.client.host, request.client.timeout, handled)
    told = NoAnswer(f"{request.base_url} gave no answer: {happened}. {look}")
    causes = _causes(error, handled)
    told.timed_out = _timed_out(causes)
    told.broke = not told.timed_out and _broke(causes)
    return told


def in_words(  # noqa: C901 - each cause has its words
    error: Exception, host: str, timeout: float, handled: BaseException | None = None
) -> tuple[str, str]:
    """What happened, and what to look at, where an HTTP library raised this."""
    causes = _causes(error, handled)

    def found(*kinds: type[BaseException]) -> Any:
        return next((one for one in reversed(causes) if isinstance(one, kinds)), None)

    if untrusted := found(ssl.SSLCertVerificationError, CertificateError):
        why = getattr(untrusted, "verify_message", untrusted)
        happened = f"its certificate is not trusted ({why})"
        look = 'Name the file of its authority: PUSHER_BACKEND_OPTIONS={"verify": "ca.pem"}.'
    elif found(requests.exceptions.ProxyError):
        happened, look = "the proxy takes no calls", "Are HTTPS_PROXY and NO_PROXY right?"
    elif found(socket.gaierror):
        happened = f"the name {host} is not known"
        look = "Are PUSHER_HOST and PUSHER_CLUSTER right, and is this machine connected?"
    elif found(ConnectionRefusedError):
        happened, look = "nothing listens there", "Are PUSHER_HOST and PUSHER_PORT right?"
        if is_loopback(host):
            look = "Is the local server running? 'flask pusher serve' starts it."
    elif _timed_out(causes) or found(requests.Timeout, TimeoutError):
        happened = f"it took longer than {timeout:g} seconds"
        look = "PUSHER_TIMEOUT is how long to wait."
    elif _broke(causes) or found(ConnectionError):
        happened = "the connection broke"
        look = "Is it a Channels server, and does PUSHER_SSL fit it?"
    elif failed := found(ssl.SSLError):
        happened = f"TLS failed ({failed.reason})"
        look = "PUSHER_SSL should be false for a server that speaks plain HTTP."
    else:
        happened = " ".join(_scrubbed(f"{type(error).__name__}: {error}").split())
        look = "Are PUSHER_HOST, PUSHER_PORT and PUSHER_SSL right?"
        if "TLS CA certificate bundle" in happened:
            look = "Is REQUESTS_CA_BUNDLE, or the option 'verify', the file of an authority?"
    return happened, look


def _timed_out(causes: list[BaseException]) -> bool:
    if any(type(one).__name__ in ("ConnectTimeout", "ConnectionTimeoutError") for one in causes):
        return False
    return any("Timeout" in type(one).__name__ or isinstance(one, TimeoutError) for one in causes)


def _causes(error: BaseException, handled: BaseException | None) -> list[BaseException]:
    """An exception and all that it was made of: requests' and urllib3's wrap each other.

    :param handled: what the caller was handling when it called, which is none of these.
    """
    found: list[BaseException] = [error]
    for one in found:
        inner = [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
        known = (*found, handled)
        found += [each for each in inner if isinstance(each, BaseException) and each not in known]
    return found


def _cause(error: Exception, handled: BaseException | None) -> Exception | None:
    """A backend's exception without the query of the signed URL, which is good for ten minutes.
    None for a refusal, which is raised again as it is."""
    causes = _causes(error, handled)
    for one in causes:
        one.args = tuple(_scrubbed(arg) if isinstance(arg, str) else arg for arg in one.args)
    is_clean = not any("auth_signature" in str(one) for one in causes)
    return error if is_clean and not isinstance(error, PusherError) else None


def _scrubbed(text: str) -> str:
    return re.sub(r"\?[^\s'\"]*auth_signature=[^\s'\"]*", "?...", text)


def _scrub_record(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(_scrubbed(arg) if isinstance(arg, str) else arg for arg in record.args)
    return True


for _name in ("urllib3.connectionpool", "urllib3.util.retry"):  # they tell whole URLs at DEBUG
    logging.getLogger(_name).addFilter(_scrub_record)

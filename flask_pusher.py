"""Realtime for Flask: binds an application to Pusher Channels.

A *channel* is a name that browsers subscribe to; an *event* is a name and some data that a server
sends to a channel. A Channels service, hosted by Pusher or run by yourself, carries the events to
the browsers. This module publishes them, and answers what browsers and the service ask::

    from flask import Flask, session
    from flask_pusher import Pusher

    app = Flask(__name__)
    app.config.from_prefixed_env()  # FLASK_PUSHER_APP_ID, FLASK_PUSHER_KEY, FLASK_PUSHER_SECRET
    pusher = Pusher(app)

    @app.post("/orders/<int:order_id>/ship")
    def ship(order_id):
        pusher.client.trigger(f"private-order-{order_id}", "shipped", {"by": "truck"})
        return "", 204

    @pusher.auth("private-order-<int:order_id>")
    def may_follow(channel_name, socket_id, order_id):
        return order_id in session.get("orders", ())

:class:`Pusher` is the extension, :class:`Client` what ``app.extensions["pusher"]`` holds, and
:class:`Webhooks` what ``pusher.webhooks`` is.
"""

from __future__ import annotations

import base64
import hmac
import inspect
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import partial
from numbers import Number
from types import CellType
from typing import Any, NamedTuple, NoReturn, TypeVar, overload
from urllib.parse import unquote
from uuid import UUID

import blinker
import click
import pusher
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    g,
    has_app_context,
    has_request_context,
    request,
    url_for,
)
from flask.blueprints import BlueprintSetupState
from flask.cli import with_appcontext
from flask.json.provider import DefaultJSONProvider
from flask.signals import (
    appcontext_tearing_down,
    got_request_exception,
    request_finished,
    request_tearing_down,
)
from flask.typing import ResponseReturnValue
from nacl.secret import SecretBox
from pusher.crypto import generate_shared_secret, is_encrypted_channel
from pusher.errors import PusherError
from pusher.http import POST, Request, process_response
from pusher.requests import RequestsBackend
from pusher.util import validate_user_id
from requests.adapters import HTTPAdapter
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import BaseConverter, Map, MapAdapter, Rule, ValidationError
from werkzeug.utils import import_string
from werkzeug.wrappers import Response as BaseResponse

__all__ = ["Client", "Pusher", "RecordedEvent", "Webhooks", "publish_failed"]

Handler = Callable[..., Any]
F = TypeVar("F", bound=Handler)

# What a channel and a socket id may be is Channels' rule:
# https://pusher.com/docs/channels/using_channels/channels/#channel-naming-conventions
_CHANNEL_CHARACTERS = r"A-Za-z0-9_\-=@,.;"
_is_channel_name = re.compile(rf"[{_CHANNEL_CHARACTERS}]{{1,200}}").fullmatch
_CHARACTERS = "A-Z a-z 0-9 _ - = @ , . ;"
_is_socket_id = re.compile(r"[0-9]+\.[0-9]+").fullmatch
_PRESENCE = "presence-"
_AUTHORISED = ("private-", _PRESENCE)

publish_failed = blinker.Namespace().signal("pusher-publish-failed")
"""Sent after deferred events could not be published, and after that was logged.

The sender is the application, ``events`` a list of :class:`RecordedEvent`, and ``error`` the first
exception. ``client.trigger(*event)`` tries an event again.

.. versionadded:: 4.0
"""


# -- The client -----------------------------------------------------------------------------------


class RecordedEvent(NamedTuple):
    """One event, with its fields in the order of ``Client.trigger``'s arguments.

    .. versionadded:: 4.0
    """

    channels: list[str]
    """The names of the channels, one to 100."""
    name: str
    """The event's name."""
    data: Any
    """The data as a browser's handler is given it: decoded, and decrypted where it was encrypted."""
    socket_id: str | None
    """The connection that does not get the event, or None."""


class Client(pusher.Pusher):  # type: ignore[misc]
    """The official client of the Channels HTTP API, mended, and with its configuration readable.

    An application's own is ``app.extensions["pusher"]``. What is not described here is as in
    https://github.com/pusher/pusher-http-python: ``send_to_user(user_id, event_name, data)``,
    ``channels_info(prefix_filter, attributes)``, ``channel_info(channel, attributes)``,
    ``users_info(channel)`` and ``authenticate_user(socket_id, user_data)``.

    A method that calls the API raises ``ValueError`` or ``TypeError`` for arguments that Channels
    does not take, ``pusher.errors.PusherError`` where the server refuses, and an exception of the
    HTTP library (by default ``requests.RequestException``) where no answer comes.

    The configuration can be read: ``app_id``, ``key``, ``secret``, ``host``, ``port``, ``ssl``,
    ``scheme`` and ``timeout``, in seconds.

    .. versionchanged:: 4.0
        ``terminate_user_connections`` works, ``authenticate`` gives ``shared_secret`` as text, an
        empty list of channels is a ``ValueError``, a batch that was passed stays as it was, and a
        refusal that a server sends with status 200, as soketi does, is an error.
    """

    app_id: str
    key: str
    secret: str
    host: str
    port: int
    ssl: bool
    scheme: str
    timeout: float

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pusher_client.http = self._adapter = _Adapter(self._pusher_client.http, self)
        self._mac = hmac.new(self.secret.encode(), digestmod="sha256")
        self._dumps = (self._json_encoder or json.JSONEncoder)().encode
        self._loads: Callable[[Any], Any] = (self._json_decoder or json.JSONDecoder)().decode
        self._deferred_key = f"flask_pusher.deferred.{id(self)}"
        self._has_deferred = False

    def __getattr__(self, name: str) -> Any:
        if name == "_pusher_client":  # an instance that never ran __init__, as copy makes one
            raise AttributeError(name)
        return getattr(self._pusher_client, name)

    @property
    def http(self) -> Any:
        """The HTTP adapter: an instance of ``PUSHER_BACKEND``."""
        return self._adapter.backend

    @property
    def address(self) -> tuple[str, int, bool]:
        """Where the HTTP API is: host, port, and whether it speaks TLS. It can be assigned, and
        holds from the next call on, for what ``pusher_options()`` tells browsers too.

        .. versionadded:: 4.0
        """
        return self.host, self.port, self.ssl

    @address.setter
    def address(self, address: tuple[str, int, bool]) -> None:
        inner = self._pusher_client
        inner._host, inner._port, inner._ssl = address

    def trigger(
        self,
        channels: str | Iterable[str],
        event_name: str,
        data: Any,
        socket_id: str | None = None,
    ) -> Any:
        """Publish one event.

        :param channels: a channel's name, or up to 100 names. A name has 1 to 200 characters, of
            ``A-Z a-z 0-9 _ - = @ , . ;``. An encrypted channel must be the only one.
        :param event_name: at most 200 characters.
        :param data: what the application's JSON provider can serialise, at most 10 kB of it on
            the hosted service; text is sent as it is.
        :param socket_id: a connection that does not get the event, usually ``pusher.socket_id``.
        :return: the server's answer, a dict.
        """
        return self._pusher_client.trigger(_names(channels), event_name, data, socket_id)

    def trigger_batch(
        self, batch: Iterable[Mapping[str, Any]] = (), already_encoded: bool = False
    ) -> Any:
        """Publish up to 10 events in one call.

        :param batch: dicts of ``channel``, ``name``, ``data`` and, if wanted, ``socket_id``, each
            as in :meth:`trigger`.
        :param already_encoded: each ``data`` is text that is to be sent as it is, unchecked.
        :return: the server's answer, a dict.
        """
        return self._pusher_client.trigger_batch([dict(event) for event in batch], already_encoded)

    def terminate_user_connections(self, user_id: str) -> Any:
        """Close every connection on which this user is signed in.

        :param user_id: the ``id`` that the ``user_auth`` handler gave, as text.
        """
        return self._post(f"users/{validate_user_id(user_id)}/terminate_connections", {})

    def authenticate(
        self, channel: str, socket_id: str, custom_data: Mapping[str, Any] | None = None
    ) -> dict[str, str]:
        """Sign a connection's subscription to a channel.

        :param channel: a name that starts with ``private-`` or ``presence-``.
        :param socket_id: the connection, two numbers joined by a dot.
        :param custom_data: presence data: ``user_id`` and, for the other members, ``user_info``.
        :return: what pusher-js expects: ``auth``, with ``channel_data`` on presence channels and
            ``shared_secret`` on encrypted ones.
        :raises ValueError: for a channel or socket id of another form, or an encrypted channel
            where no master key is set.
        """
        if not _is_channel_name(channel):
            raise ValueError(f"Invalid channel: {channel!r}")
        if not _is_socket_id(socket_id):
            raise ValueError(f"Invalid socket id: {socket_id!r}")
        return self._authorisation(channel, socket_id, custom_data)

    def _authorisation(
        self, channel: str, socket_id: str, channel_data: Mapping[str, Any] | None
    ) -> dict[str, str]:
        answer = {}
        text = f"{socket_id}:{channel}"
        if channel_data:
            answer["channel_data"] = self._dumps(channel_data)
            text += ":" + answer["channel_data"]
        if is_encrypted_channel(channel):
            answer["shared_secret"] = base64.b64encode(self._shared_secret(channel)).decode()
        answer["auth"] = f"{self._pusher_client.key}:{self._sign(text.encode())}"
        return answer

    def _sign(self, message: bytes) -> str:
        mac = self._mac.copy()
        mac.update(message)
        return mac.hexdigest()

    def _shared_secret(self, channel: str) -> bytes:
        secret: bytes = generate_shared_secret(channel.encode(), self._encryption_master_key)
        return secret

    def _event(
        self, channels: str | Iterable[str], event_name: str, data: Any, socket_id: str | None
    ) -> dict[str, Any]:
        """The checked and serialised event that :meth:`trigger` would post."""
        request = self._pusher_client.trigger.make_request(
            _names(channels), event_name, data, socket_id
        )
        event: dict[str, Any] = request.params
        return event

    def _post(self, path: str, params: Mapping[str, Any]) -> Any:
        request = Request(self._pusher_client, POST, f"/apps/{self.app_id}/{path}", params)
        return self._pusher_client.http.send_request(request)

    def _record(self, event: Mapping[str, Any], recordings: list[_Recording]) -> None:
        recorded = self._recorded(event)
        for recording in recordings:
            recording.events.append(recorded)

    def _recorded(self, event: Mapping[str, Any]) -> RecordedEvent:
        channels = event["channels"] if "channels" in event else [event["channel"]]
        data = _as_in_browser(event["data"])
        if is_encrypted_channel(channels[0]) and isinstance(data, dict) and "nonce" in data:
            box = SecretBox(self._shared_secret(channels[0]))
            nonce, ciphertext = (base64.b64decode(data[part]) for part in ("nonce", "ciphertext"))
            data = _as_in_browser(box.decrypt(ciphertext, nonce).decode())
        return RecordedEvent(channels, event["name"], data, event.get("socket_id"))


def _names(channels: str | Iterable[str]) -> Any:
    """The channels as a list, or untouched where the client has an error for what they are."""
    if isinstance(channels, str):
        return [channels]
    if isinstance(channels, Mapping) or not isinstance(channels, Iterable):
        return channels
    names = list(channels)
    if not names:
        raise ValueError("No channels to publish to: name at least one")
    return names


def _as_in_browser(data: str) -> Any:
    """What pusher-js makes of an event's data: the JSON value, or the text where it is not JSON."""
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except ValueError:
        return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class _Backend(RequestsBackend):  # type: ignore[misc]
    """The client's own adapter, that keeps a connection for every thread that publishes at once.

    Without that, requests keeps ten: each further thread would open one for every event.
    """

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=1000))


class _Recording:
    """A list of events, and the client that it is for: None for any."""

    def __init__(self, client: Client | None) -> None:
        self.client = client
        self.events: list[RecordedEvent] = []


class _Adapter:
    """The HTTP adapter that a client sends through: its backend, or what records in its place."""

    def __init__(self, backend: Any, client: Client) -> None:
        self.backend = backend
        self.client = client
        self.active: list[_Recording] = []

    @property
    def recordings(self) -> list[_Recording]:
        return [one for one in self.active if one.client is None or one.client is self.client]

    def send_request(self, request: Request) -> Any:
        recordings = self.recordings
        if not recordings:
            answer = self.backend.send_request(request)
            return _awaited(answer) if inspect.iscoroutine(answer) else _accepted(answer)
        resource = request.path.split("/")[3:]
        if request.method == POST:
            answer = {}
            for event in _events_in(resource, request.params):
                self.client._record(event, recordings)
        else:
            answer = _answer_of_an_empty_app(resource, request.params)
        if inspect.iscoroutinefunction(self.backend.send_request):
            return _later(answer)
        return answer


def _accepted(answer: Any) -> Any:
    """An answer of the API that is no refusal.

    soketi's refusals have status 200, and the status that they should have in their body.

    :raises PusherError: for a refusal.
    """
    refusal = isinstance(answer, dict) and "error" in answer and answer.get("code")
    if isinstance(refusal, int) and refusal >= 400:
        process_response(refusal, answer["error"])
    return answer


async def _awaited(answer: Any) -> Any:
    return _accepted(await answer)


async def _later(answer: Any) -> Any:
    return answer


def _events_in(resource: list[str], params: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if resource == ["batch_events"]:
        return list(params["batch"])
    return [params] if resource == ["events"] else []


def _answer_of_an_empty_app(resource: list[str], params: Mapping[str, Any]) -> dict[str, Any]:
    if resource == ["channels"]:
        return {"channels": {}}
    if resource[2:] == ["users"]:
        return {"users": []}
    counts = {"user_count", "subscription_count"}.intersection(params.get("info", "").split(","))
    return {"occupied": False, **dict.fromkeys(counts, 0)}


# -- The extension --------------------------------------------------------------------------------


class Pusher:
    """The extension: gives an application a Channels client and the routes that Channels calls.

    :param app: the application; or leave it out and call :meth:`init_app` later. One instance
        serves any number of applications, which have its handlers in common.
    :param url_prefix: the path that the routes are below.
    :raises ValueError: as :meth:`init_app`, and for a prefix that has no slash in front.

    A handler runs in the context of the request, may be a coroutine function (then install
    ``Flask[async]``), and may be declared before or after :meth:`init_app`. Decorators return the
    function as it was. A request with anything wrong in it gets a 4xx status and no handler runs.
    """

    def __init__(self, app: Flask | None = None, url_prefix: str = "/pusher") -> None:
        if url_prefix and not url_prefix.startswith("/"):
            raise ValueError(f"url_prefix should start with a slash; it is {url_prefix!r}.")
        self.blueprint = Blueprint("pusher", __name__, url_prefix=url_prefix)
        """The blueprint that holds the routes, for ``csrf.exempt(pusher.blueprint)`` and the like.
        What adds to it, as ``CORS(pusher.blueprint)`` does, has to come before ``init_app``."""
        self.webhooks = Webhooks()
        """Where handlers of webhooks are declared: see :class:`Webhooks`."""
        self._auth = _ChannelHandlers("auth", _AUTHORISED)
        self._channel_data = _ChannelHandlers("channel_data", (_PRESENCE,))
        self._user_auth: Handler | None = None
        self._recordings: list[_Recording] = []
        self.blueprint.record(_add_routes)
        for command in _commands:
            self.blueprint.cli.add_command(command)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give an application its client, its routes and its templates' variables.

        Settings are keys of ``app.config``, and each works as text, too:

        - ``PUSHER_APP_ID``, ``PUSHER_KEY``, ``PUSHER_SECRET``: the credentials, required; or
          ``PUSHER_URL``, ``https://KEY:SECRET@HOST[:PORT]/apps/APP_ID``, which single keys win over
        - ``PUSHER_CLUSTER``; or ``PUSHER_HOST``, ``PUSHER_PORT`` and ``PUSHER_SSL``, of the HTTP API
        - ``PUSHER_TIMEOUT``: seconds, 5; ``PUSHER_BACKEND`` and ``PUSHER_BACKEND_OPTIONS``: the
          HTTP adapter, a class or its import path, and its arguments, a dict
        - ``PUSHER_ENCRYPTION_MASTER_KEY_BASE64``: 32 bytes in base64, for encrypted channels
        - ``PUSHER_AUTH``, ``/auth``, and ``PUSHER_USER_AUTH``, ``/user-auth``: paths of routes
        - ``PUSHER_AUTH_MAX_CHANNELS``: most channels in one request, 500
        - ``PUSHER_WEBHOOK_MAX_AGE``: seconds that a webhook stays valid, 600; None: for ever
        - ``PUSHER_CLIENT_OPTIONS``: a dict, laid over what ``pusher_options()`` gives

        Templates get ``PUSHER_KEY`` and ``pusher_options()``, the arguments of pusher-js::

            new Pusher({{ PUSHER_KEY|tojson }}, {{ pusher_options()|tojson }})

        :raises ValueError: for a ``PUSHER_*`` setting that is missing or impossible. It names the
            setting, what that holds (never a secret) and what it should be.
        :raises LookupError: for a pattern's converter that the application does not have.
        :raises RuntimeError: where the application has a ``Pusher`` already.
        """
        if "pusher" in app.extensions:
            raise RuntimeError(
                f"The application {app.name!r} has a Pusher already. Make one Pusher, call its"
                " init_app(app) once for each application, and import it where it is needed."
            )
        settings = _read_settings(app)
        client = _make_client(app)
        client._adapter.active = self._recordings
        views = _Views(self, app, client, settings)
        app.register_blueprint(self.blueprint, views=views)
        app.context_processor(views.template_context)
        request_finished.connect(_publish_after_response, app)
        app.extensions["pusher"] = client

    @property
    def client(self) -> Client:
        """The current application's client, the same as ``current_app.extensions["pusher"]``.

        :raises RuntimeError: outside an application context, or in one of an application that
            this extension was not given.
        """
        try:
            client: Client = current_app.extensions["pusher"]
        except KeyError:
            raise RuntimeError(
                f"The application {current_app.name!r} has no Pusher. Did you forget to call"
                " init_app(app)?"
            ) from None
        return client

    @property
    def socket_id(self) -> str | None:
        """The connection that the page behind this request has to Channels, so that
        ``client.trigger(channel, event, data, pusher.socket_id)`` spares the page that caused the
        event. From the header ``X-Socket-ID``, as Laravel Echo sends it, or the form's field
        ``socket_id``; None where neither has the form of a socket id.

        .. versionadded:: 4.0
        """
        for values in (request.headers.get("X-Socket-ID"), request.form.get("socket_id")):
            if values and _is_socket_id(values):
                return values
        return None

    @overload
    def auth(self, handler: F) -> F: ...

    @overload
    def auth(self, handler: str) -> Callable[[F], F]: ...

    def auth(self, handler: Any) -> Any:
        """Declare who may subscribe to private and presence channels.

        The handler is given the channel's name and the socket id, both text. It returns whether
        the user of this request may subscribe. To refuse with a status of its own it calls
        ``abort()``, or returns a response or a tuple as a view does::

            @pusher.auth
            def may_subscribe(channel_name, socket_id):
                return current_user.is_authenticated

        With a pattern it is asked about the channels that match, and is given the variables too,
        by name. Patterns are as in Flask's routes, with the same converters. The most specific one
        wins: the one with most text before its first variable, and among those with the same text
        the one that Flask would take. The handler without a pattern is asked about the rest::

            @pusher.auth("private-order-<int:order_id>")
            def may_follow(channel_name, socket_id, order_id):
                return current_user.owns(order_id)

        Without any handler for a channel, nobody may subscribe.

        :raises ValueError: for a pattern that can match no channel, that could take long to match
            (three variables of any text, which other variables or texts follow), or that is
            declared already. A converter that the application lacks is a ``LookupError``, at
            ``init_app``, or at a request if the handler is declared later.

        .. versionchanged:: 4.0
            Patterns.
        """
        return self._auth.declare(handler)

    @overload
    def channel_data(self, handler: F) -> F: ...

    @overload
    def channel_data(self, handler: str) -> Callable[[F], F]: ...

    def channel_data(self, handler: Any) -> Any:
        """Declare what the members of a presence channel see of each other.

        The handler is called as that of :meth:`auth`, after it, and patterns work the same. It
        returns a dict. ``user_id``, text or a number, says who this is; several connections of one
        id are one member. It is the socket id unless it is given. ``user_info`` is what the
        others see; left out, it is all the other values::

            @pusher.channel_data
            def member(channel_name, socket_id):
                return {"user_id": current_user.id, "name": current_user.name}

        In the page, ``channel.bind("pusher:member_added", member => member.info.name)``.

        :raises ValueError: as :meth:`auth`.

        .. versionchanged:: 4.0
            Patterns; ``user_info`` made of the other values.
        """
        return self._channel_data.declare(handler)

    def user_auth(self, handler: F) -> F:
        """Declare who the user is, for ``pusher.signin()`` in the page.

        The handler is given the socket id. It returns a dict with ``id``, text or a number, and
        if wanted ``user_info``, a dict, and ``watchlist``, a list of ids; or None to refuse::

            @pusher.user_auth
            def sign_in(socket_id):
                return {"id": current_user.id} if current_user.is_authenticated else None

        ``client.send_to_user(id, event, data)`` and ``client.terminate_user_connections(id)``
        reach whom it signed in. An id has 1 to 200 characters of ``A-Z a-z 0-9 _ - = @ , . ;``.

        .. versionadded:: 4.0
        """
        self._user_auth = handler
        return handler

    def defer(
        self,
        channels: str | Iterable[str],
        event_name: str,
        data: Any,
        socket_id: str | None = None,
    ) -> None:
        """Publish an event when this request has succeeded and its response has been sent.

        Takes and checks what :meth:`Client.trigger` does, at once: a later change of the data is
        not seen. All events that a request defers leave together, in order, in as few API calls
        as Channels allows. Where the response's status is 400 or more, or an exception ends the
        request, nothing is published. Outside a request they leave when the application context
        ends without an error; a command fails for it by an exception or ``sys.exit(1)``. A test
        client's request publishes when its response is closed, or at once in
        :meth:`record_events`.

        What could not be published is logged, and told by the signal :data:`publish_failed`.

        :raises ValueError: or ``TypeError``, as :meth:`Client.trigger` does.

        .. versionadded:: 4.0
        """
        client = self.client
        _deferred_here(client).events.append(client._event(channels, event_name, data, socket_id))

    @contextmanager
    def record_events(self) -> Iterator[list[RecordedEvent]]:
        """Record what is published instead of sending it, for an application's tests.

        Inside, everything is checked and serialised as it always is, nothing leaves the process,
        and the state of every channel is that of an empty app::

            with app.app_context(), pusher.record_events() as events:
                app.test_client().post("/orders/7/ship")
            assert events[0].channels == ["private-order-7"]

        It holds for the current application and all its threads; outside an application context,
        for all applications of this extension. It can be nested: every list gets the events.

        .. versionadded:: 4.0
        """
        recording = _Recording(self.client if has_app_context() else None)
        self._recordings.append(recording)
        try:
            yield recording.events
        finally:
            self._recordings.remove(recording)

    def sign_webhook(self, body: str | bytes) -> dict[str, str]:
        """The headers with which Channels would send this webhook, for an application's tests::

            body = '{"events": [{"name": "channel_vacated", "channel": "news"}]}'
            app.test_client().post("/pusher/events", data=body, headers=pusher.sign_webhook(body))

        :param body: exactly what is posted, as bytes or as text that is sent in UTF-8.

        .. versionadded:: 4.0
        """
        message = body.encode() if isinstance(body, str) else body
        return {
            "Content-Type": "application/json",
            "X-Pusher-Key": self.client.key,
            "X-Pusher-Signature": self.client._sign(message),
        }


# -- Webhooks -------------------------------------------------------------------------------------


class Webhooks:
    """Declares the handlers of webhooks: what Channels tells the application.

    Each group has a route below ``/pusher/events/`` and one handler, called once a request, which
    reads ``flask.request.json``: ``{"time_ms": ..., "events": [{"name": ..., ...}, ...]}``. Look
    at the names: a service may send events of other kinds beside those of the group. The route
    ``/pusher/events`` takes all kinds, and calls the groups whose events it got. A handler by
    :meth:`event` is called for each event of one name, whichever route it came to. Every field is
    text unless another type is named.

    A handler is run only for what carries the application's key and signature. Channels sends
    again what was not answered by a 2xx status, so an event may come more than once.
    """

    def __init__(self) -> None:
        self._groups: dict[str, Handler] = {}
        self._events: dict[str, list[Handler]] = {}

    def channel_existence(self, handler: F) -> F:
        """At ``/events/channel_existence``: ``channel_occupied`` and ``channel_vacated``, each
        with ``channel``, when a channel gets its first subscriber and loses its last."""
        return self._declare_group("channel_existence", handler)

    def presence(self, handler: F) -> F:
        """At ``/events/presence``: ``member_added`` and ``member_removed``, each with ``channel``
        and ``user_id``."""
        return self._declare_group("presence", handler)

    def client(self, handler: F) -> F:
        """At ``/events/client``: ``client_event``, with ``channel``, ``event``, ``data``,
        ``socket_id`` and, on presence channels, ``user_id``."""
        return self._declare_group("client", handler)

    def cache(self, handler: F) -> F:
        """At ``/events/cache``: ``cache_miss``, with ``channel``, when someone subscribes to a
        cache channel that holds no event.

        .. versionadded:: 4.0
        """
        return self._declare_group("cache", handler)

    def subscription_count(self, handler: F) -> F:
        """At ``/events/subscription_count``: ``subscription_count``, with ``channel`` and
        ``subscription_count``, a number.

        .. versionadded:: 4.0
        """
        return self._declare_group("subscription_count", handler)

    def event(self, name: str) -> Callable[[F], F]:
        """Declare a handler of every event of one name; there may be several of the same name::

            @pusher.webhooks.event("member_added")
            def arrived(event):
                print(event["user_id"], "joined", event["channel"])

        .. versionadded:: 4.0
        """
        if not isinstance(name, str):
            raise TypeError('Name the event: @pusher.webhooks.event("member_added")')
        return partial(self._declare_event, name)

    def _declare_group(self, group: str, handler: F) -> F:
        if group in self._groups and not _is_same(self._groups[group], handler):
            raise ValueError(
                f"@pusher.webhooks.{group} is declared twice. It has one handler: join the two, or"
                " use @pusher.webhooks.event(...), of which there may be several."
            )
        self._groups[group] = handler
        return handler

    def _declare_event(self, name: str, handler: F) -> F:
        handlers = self._events.setdefault(name, [])
        handlers[:] = [other for other in handlers if not _is_same(other, handler)] + [handler]
        return handler

    def _serves(self, group: str | None) -> bool:
        return bool(self._events or (self._groups if group is None else group in self._groups))

    def _calls(
        self, group: str | None, events: list[dict[str, Any]]
    ) -> Iterator[tuple[Handler, tuple[dict[str, Any], ...]]]:
        """What is to be called for a webhook on the route of a group, or on the one of all."""
        names = {event["name"] for event in events}
        for candidate, handler in self._groups.items():
            if candidate == group or (group is None and names.intersection(_GROUPS[candidate])):
                yield handler, ()
        for event in events:
            for handler in self._events.get(event["name"], ()):
                yield handler, (event,)


_GROUPS = {
    "channel_existence": ("channel_occupied", "channel_vacated"),
    "presence": ("member_added", "member_removed"),
    "client": ("client_event",),
    "cache": ("cache_miss",),
    "subscription_count": ("subscription_count",),
}


# -- Which handler a channel has ------------------------------------------------------------------


class _ChannelHandlers:
    """The handlers that one decorator was given: one without a pattern, and one for each."""

    def __init__(self, decorator: str, prefixes: tuple[str, ...]) -> None:
        self.decorator = decorator
        self.prefixes = prefixes
        self.bare: Handler | None = None
        self.patterns: dict[str, tuple[str, Handler]] = {}
        self.version = 0

    def declare(self, handler: Any) -> Any:
        if isinstance(handler, str):
            self._check(handler)
            return partial(self._declare_pattern, handler)
        self.bare = handler
        self.version += 1
        return handler

    def _declare_pattern(self, pattern: str, handler: F) -> F:
        shape = _shape(pattern)
        if shape in self.patterns and not _is_same(self.patterns[shape][1], handler):
            raise ValueError(
                f"{self._declaration(pattern)} is declared twice. One handler answers for a"
                " channel: join the two."
            )
        self.patterns[shape] = pattern, handler
        self.version += 1
        return handler

    def _check(self, pattern: str) -> None:
        if not pattern.startswith(self.prefixes):
            raise ValueError(
                f"{self._declaration(pattern)} can match no channel that is asked about. Start the"
                f" pattern with {' or '.join(self.prefixes)}."
            )
        shape = _shape(pattern)
        if not _is_channel_name(re.sub(r"<[^<>]*>", "", shape)):
            raise ValueError(
                f"{self._declaration(pattern)} can match no channel. A name has 1 to 200 of"
                f" the characters {_CHARACTERS}."
            )
        if shape.count("<>") > 2 and not re.fullmatch(r"[^<>]*<>([^<>]+)<>(?:\1<>)*", shape):
            raise ValueError(
                f"{self._declaration(pattern)} could take long to match. Use at most two variables"
                " of any text beside others, and a converter such as int for the rest."
            )
        with suppress(LookupError):  # a converter of some application's own: init_app looks there
            self.compile([pattern], {})

    def compile(
        self, patterns: list[str], converters: Mapping[str, Any]
    ) -> _OnlyRoute | MapAdapter:
        """The patterns as Werkzeug's routes, each with itself as endpoint and a slash in front."""
        routes = Map(converters=converters, redirect_defaults=False)
        for pattern in patterns:
            rule = _Pattern("/" + pattern, endpoint=pattern)
            try:
                routes.add(rule)
            except (SyntaxError, TypeError, ValueError) as error:
                raise ValueError(f"{self._declaration(pattern)} is malformed: {error}") from None
            except LookupError as error:
                raise LookupError(f"{self._declaration(pattern)}: {error.args[0]}") from None
            if not rule.arguments.isdisjoint(("channel_name", "socket_id")):
                raise ValueError(
                    f"{self._declaration(pattern)}: the handler is given channel_name and"
                    " socket_id already, name the variable otherwise."
                )
        return _OnlyRoute(rule) if len(patterns) == 1 else routes.bind("")

    def _declaration(self, pattern: str) -> str:
        return f"@pusher.{self.decorator}({pattern!r})"


def _shape(pattern: str) -> str:
    """A pattern without its variables' names: patterns of one shape match the same channels."""
    bare = re.sub(r"<(?:([^<>]*):)?[^<>:]*>", lambda variable: f"<{variable[1] or ''}>", pattern)
    return re.sub("<(default|string)>", "<>", bare)


def _is_same(handler: Handler, other: Handler, within: tuple[Any, ...] = ()) -> bool:
    """Whether these are one function, which a factory that runs again declares again.

    It has the same code then. A decorator gives all that it wraps the same code, so the functions
    that these close over have to be the same as well.
    """
    one, two = _function(handler), _function(other)
    code = getattr(one, "__code__", None)
    if code is None or code is not getattr(two, "__code__", None):
        return one is two
    if getattr(one, "__self__", None) is not getattr(two, "__self__", None):
        return False
    return code in within or all(
        _is_same(first, second, (*within, code))
        for first, second in zip(_closed_over(one), _closed_over(two))
        if inspect.isfunction(first) and inspect.isfunction(second)
    )


def _function(handler: Handler) -> Any:
    return inspect.unwrap(handler.func if isinstance(handler, partial) else handler)


def _closed_over(function: Any) -> list[Any]:
    return [_content(cell) for cell in getattr(function, "__closure__", None) or ()]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # what comes later in the factory is not there yet
        return None


class _Pattern(Rule):
    """A pattern as Werkzeug's route, that keeps the converters of its variables."""

    def __init__(self, string: str, endpoint: str) -> None:
        super().__init__(string, endpoint=endpoint)
        self.converters: dict[str, BaseConverter] = {}

    def get_converter(self, variable_name: str, *arguments: Any) -> BaseConverter:
        converter = super().get_converter(variable_name, *arguments)
        self.converters[variable_name] = converter
        return converter


class _OnlyRoute:
    """Matches as a map with one pattern in it does, in a tenth of the time."""

    def __init__(self, rule: _Pattern) -> None:
        self.pattern: str = rule.endpoint
        self.converters = {f"_{name}": rule.converters[name] for name in rule.converters}
        first, *others = map(re.escape, re.split("<[^<>]*>", self.pattern))
        variables = (f"(?P<{name}>{one.regex})" for name, one in self.converters.items())
        regex = first + "".join(map("".join, zip(variables, others)))
        self.fullmatch = re.compile(regex).fullmatch

    def match(self, path: str) -> tuple[str, dict[str, Any]]:
        found = self.fullmatch(path, 1)  # behind the slash
        if found is None:
            raise NotFound
        try:
            return self.pattern, {
                name[1:]: converter.to_python(found[name])
                for name, converter in self.converters.items()
            }
        except ValidationError:
            raise NotFound from None


class _Matcher:
    """Finds the handler of a channel, with the converters of one application."""

    def __init__(self, handlers: _ChannelHandlers, app: Flask) -> None:
        self.handlers = handlers
        self.app = app
        self._compile()

    def _compile(self) -> None:
        """Make a map of routes for each text that patterns have before their first variable.

        The longest such text is tried first, as Flask tries the literal parts of a path before the
        variable ones. It also spares trying patterns that begin with another text.
        """
        version = self.handlers.version
        bare, patterns = self.handlers.bare, dict(self.handlers.patterns.values())
        self.bare = bare and self.app.ensure_sync(bare)
        self.by_pattern = {
            pattern: self.app.ensure_sync(patterns[pattern]) for pattern in patterns
        }
        beginnings: dict[str, list[str]] = {}
        for pattern in patterns:
            beginnings.setdefault(pattern.partition("<")[0], []).append(pattern)
        converters = self.app.url_map.converters
        self.maps = {
            beginning: self.handlers.compile(alike, converters)
            for beginning, alike in beginnings.items()
        }
        self.lengths = sorted(set(map(len, beginnings)), reverse=True)
        self.version = version

    def find(self, channel: str) -> tuple[Handler, Mapping[str, Any]] | None:
        """The handler for a channel, and the values of its pattern's variables."""
        if self.version != self.handlers.version:
            self._compile()
        for length in self.lengths:
            routes = self.maps.get(channel[:length])
            if routes is not None:
                try:
                    pattern, variables = routes.match("/" + channel)
                except NotFound:
                    continue
                return self.by_pattern[pattern], variables
        return (self.bare, {}) if self.bare else None


# -- What the routes answer -----------------------------------------------------------------------


class _Views:
    """What the routes answer in one application."""

    def __init__(self, extension: Pusher, app: Flask, client: Client, settings: _Settings) -> None:
        self.extension = extension
        self.app = app
        self.client = client
        self.settings = settings
        self.auth_handlers = _Matcher(extension._auth, app)
        self.data_handlers = _Matcher(extension._channel_data, app)

    def auth(self) -> ResponseReturnValue:
        """Authorise one channel, or the channels of a batch as pusher-js-auth sends it."""
        fields = _posted_fields()
        socket_id = _posted_socket_id(fields)
        if "channel_name" in fields:
            answer: Any = self._authorise(fields["channel_name"], socket_id)
        else:
            answer = {name: self._answer(name, socket_id) for name in self._batch(fields)}
        return self.app.json.response(answer)

    def _batch(self, fields: Mapping[str, Any]) -> Iterable[str]:
        """The channels of a batch, each once."""
        names: list[Any] = []
        while (field := f"channel_name[{len(names)}]") in fields:
            names.append(fields[field])
            if len(names) > self.settings.auth_max_channels:
                abort(413, f"At most {self.settings.auth_max_channels} channels in one request.")
        if not names or not names[0]:
            abort(400, "Name the channel in channel_name, or several in channel_name[0] and on.")
        if not all(isinstance(name, str) for name in names):
            abort(400, "Each channel_name should be text.")
        return dict.fromkeys(names)

    def _answer(self, channel: str, socket_id: str) -> dict[str, Any]:
        """One channel's part of the answer to a batch."""
        try:
            return {"status": 200, "data": self._authorise(channel, socket_id)}
        except HTTPException as refusal:
            response = refusal.response
            status = refusal.code if response is None else response.status_code
            return {"status": 403 if status == 200 else status}

    def _authorise(self, channel: Any, socket_id: str) -> dict[str, str]:
        if not isinstance(channel, str) or not _is_channel_name(channel):
            abort(400, f"channel_name should be 1 to 200 of the characters {_CHARACTERS}.")
        if not channel.startswith(_AUTHORISED):
            abort(404, "Only private and presence channels are authorised.")
        if is_encrypted_channel(channel) and self.client._encryption_master_key is None:
            abort(404, "Encrypted channels need PUSHER_ENCRYPTION_MASTER_KEY_BASE64.")
        found = self.auth_handlers.find(channel)
        consent = found and found[0](channel, socket_id, **found[1])
        if consent is not True and not self._unless_refusal(consent):
            abort(403, "This user may not subscribe to this channel.")
        channel_data = None
        if channel.startswith(_PRESENCE):
            channel_data = self._presence_data(channel, socket_id)
        return self.client._authorisation(channel, socket_id, channel_data)

    def _presence_data(self, channel: str, socket_id: str) -> dict[str, Any]:
        """The handler's data, completed: servers and pusher-js need a ``user_id`` that is text,
        and carry only ``user_info`` to the other members."""
        found = self.data_handlers.find(channel)
        given = found[0](channel, socket_id, **found[1]) if found else {}
        if not isinstance(given, dict):
            given = self._unless_refusal({} if given is None else given)
        if not isinstance(given, Mapping):
            raise TypeError(
                f"The channel_data handler of {channel!r} should return a dict; it returned"
                f" {type(given).__name__}."
            )
        data = {"user_id": socket_id, **given}
        if not isinstance(data["user_id"], str):
            data["user_id"] = socket_id if data["user_id"] is None else _as_id(data["user_id"])
        if isinstance(data["user_id"], (bool, list, tuple, dict)):
            raise TypeError(
                f"The channel_data handler of {channel!r} should return a user_id that is text or"
                f" a number; it returned {data['user_id']!r}."
            )
        if "user_info" not in data:
            data["user_info"] = {key: data[key] for key in given if key != "user_id"}
        return data

    def user_auth(self) -> ResponseReturnValue:
        """Sign a user in."""
        socket_id = _posted_socket_id(_posted_fields())
        handler = self.extension._user_auth
        user = self._unless_refusal(handler and self.app.ensure_sync(handler)(socket_id))
        if user is None or user is False:
            abort(403, "There is no user to sign in.")
        if not isinstance(user, Mapping):
            raise TypeError(
                "The user_auth handler should return a dict, or None to refuse; it returned"
                f" {type(user).__name__}."
            )
        user_id = _as_id(user.get("id"))
        if not isinstance(user_id, str) or not _is_channel_name(user_id):
            raise ValueError(
                "The user_auth handler should return a dict whose 'id' is a number, or text of 1"
                f" to 200 of the characters {_CHARACTERS}; the id it returned is {user_id!r}."
            )
        return self.app.json.response(
            self.client.authenticate_user(socket_id, {**user, "id": user_id})
        )

    def _unless_refusal(self, returned: Any) -> Any:
        """What a handler returned, unless it is what a view refuses with, as a ``login_required``
        around the handler may do: then the request is answered with that."""
        is_response = isinstance(returned, (BaseResponse, HTTPException))
        if is_response or type(returned) is tuple:  # a named tuple may be a user
            abort(self.app.make_response(returned))
        return _finished(returned)

    def webhook(self, group: str | None) -> Callable[[], ResponseReturnValue]:
        """The view of a group's route; None: of the one for all."""

        def view() -> ResponseReturnValue:
            if not self.extension.webhooks._serves(group):
                abort(404, "This application handles no webhooks here.")
            events = self._verified_events()
            for handler, arguments in self.extension.webhooks._calls(group, events):
                _finished(self.app.ensure_sync(handler)(*arguments))
            return "OK"

        view.__name__ = "webhook" if group is None else f"{group}_webhook"
        return view

    def _verified_events(self) -> list[dict[str, Any]]:
        self._expect_header("X-Pusher-Key", self.client.key)
        body = request.get_data()
        self._expect_header("X-Pusher-Signature", self.client._sign(body))
        try:
            content = self.client._loads(body)
        except (ValueError, RecursionError):
            content = None
        events = content.get("events", []) if isinstance(content, dict) else None
        if not isinstance(events, list) or not all(map(_is_event, events)):
            self._refuse(400, "its body is not that of a webhook")
        self._expect_recent(content.get("time_ms", _now_ms()))
        return events

    def _expect_header(self, name: str, value: str) -> None:
        found = request.headers.get(name)
        if found is None:
            self._refuse(403, f"it has no {name}")
        elif not hmac.compare_digest(found.encode(), value.encode()):
            self._refuse(403, f"its {name} is not by this application's credentials")

    def _expect_recent(self, time_ms: Any) -> None:
        if not isinstance(time_ms, (int, float, Decimal)):
            self._refuse(400, "its time_ms is not a number")
        max_age = self.settings.webhook_max_age
        # NaN, which Python's JSON knows, is not greater than anything.
        if max_age is not None and not time_ms >= _now_ms() - max_age * 1000:
            self._refuse(403, f"it is older than PUSHER_WEBHOOK_MAX_AGE, {max_age} seconds")

    def _refuse(self, status: int, reason: str) -> NoReturn:
        self.app.logger.warning("Refused a webhook at %s: %s.", request.path, reason)
        abort(status, f"This webhook is refused: {reason}.")

    def template_context(self) -> dict[str, Any]:
        return {"PUSHER_KEY": self.client.key, "pusher_options": self.pusher_options}

    def pusher_options(self) -> dict[str, Any]:
        """The second argument of ``new Pusher(...)`` in a page of this application."""
        host, port, ssl = self.client.address
        hosted = _is_hosted(host)
        options: dict[str, Any] = {
            "cluster": self.settings.cluster or (hosted and hosted["cluster"]) or "mt1",
            "channelAuthorization": {"endpoint": url_for("pusher.auth")},
            "userAuthentication": {"endpoint": url_for("pusher.user_auth")},
        }
        if not hosted:
            options.update(
                wsHost=host,
                wsPort=port,
                wssPort=port,
                forceTLS=ssl,
                enabledTransports=["ws", "wss"],
            )
        return _merged(options, self.settings.client_options)


def _add_routes(state: BlueprintSetupState) -> None:
    views: _Views = state.options["views"]
    routes: list[tuple[str, str, Callable[[], ResponseReturnValue]]] = [
        (views.settings.auth_path, "auth", views.auth),
        (views.settings.user_auth_path, "user_auth", views.user_auth),
        ("/events", "events", views.webhook(None)),
    ]
    routes += [(f"/events/{group}", f"{group}_event", views.webhook(group)) for group in _GROUPS]
    for path, endpoint, view in routes:
        state.add_url_rule(path, endpoint, view, methods=["POST"])


def _posted_fields() -> Mapping[str, Any]:
    """The form of pusher-js, or the JSON object of axios and Laravel Echo."""
    posted = request._get_current_object()  # type: ignore[attr-defined]  # the proxy costs each time
    form: Mapping[str, Any] = posted.form
    if form or not posted.is_json:
        return form
    try:
        fields = posted.get_json(silent=True)
    except RecursionError:
        fields = None
    if not isinstance(fields, dict):
        abort(400, "The body should be a form or a JSON object.")
    return fields


def _posted_socket_id(fields: Mapping[str, Any]) -> str:
    socket_id = fields.get("socket_id")
    if not isinstance(socket_id, str) or not _is_socket_id(socket_id):
        abort(400, "socket_id should be two numbers joined by a dot, as Channels gave it.")
    return socket_id


def _finished(returned: Any) -> Any:
    """What a handler returned. To a decorator that knows no coroutines, the call of a coroutine
    function is something true, and has run nothing yet.

    :raises TypeError: for a coroutine or a generator.
    """
    if inspect.isawaitable(returned) or inspect.isgenerator(returned):
        raise TypeError(
            f"A handler returned a {type(returned).__name__} and has not run. Is there a decorator"
            " around it that does not await it?"
        )
    return returned


def _as_id(value: Any) -> Any:
    """Ids are text to Channels, and often numbers to an application."""
    if isinstance(value, (str, bool)) or not isinstance(value, (Number, UUID)):
        return value
    return str(value)


def _is_event(event: Any) -> bool:
    return isinstance(event, dict) and isinstance(event.get("name"), str)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


_is_hosted = re.compile(r"api(?:-(?P<cluster>[a-z0-9-]+))?\.pusher(?:app)?\.com").fullmatch


def _merged(options: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping laid over another, and the mappings in it over those in the other."""
    merged = dict(options)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping):
            value = _merged(below, value)
        merged[key] = value
    return merged


# -- Publishing after the response ----------------------------------------------------------------


class _Deferred:
    """The events that a request, or an application context, publishes if it ends well."""

    def __init__(self, app: Flask, client: Client) -> None:
        self.app = app
        self.client = client
        self.events: list[dict[str, Any]] = []
        self.recordings = client._adapter.recordings
        self.context = g._get_current_object()
        self.handled = sys.exc_info()[1]
        self.is_answered = False
        self.is_sent = False

    def follow(self, response: Response) -> None:
        """Publish after a response, unless it is an error's."""
        self.is_answered = True
        if response.status_code >= 400:
            self.events.clear()
            return
        if response.is_streamed:
            response.response = _Stream(response.response, _Receipt(self))
        else:
            response.call_on_close(_Receipt(self))
        if self.recordings:  # a test looks before it closes the response
            self.publish()

    def sent(self) -> None:
        """The response was sent."""
        self.is_sent = True
        self.publish()

    def end(self, error: BaseException | None) -> None:
        """Publish now, unless an error ended what the events were deferred in.

        Click before 8.2 does not tell the context of a command that an error ended it, but then
        Python is handling one that it was not when the first event was deferred.
        """
        handling = sys.exc_info()[1]
        if error is None and handling is not self.handled:
            error = handling
        if error is None or _is_success(error):
            self.publish()
        else:
            self.events.clear()

    def publish(self) -> None:
        """Publish the events in order; log and tell what could not be."""
        events, self.events = self.events, []
        if self.recordings:
            for event in events:
                self.client._record(event, self.recordings)
            return
        lost: list[tuple[str, dict[str, Any]]] = []
        errors: list[Exception] = []
        calls = _calls(events)
        for position, call in enumerate(calls):
            error = self._failure(*call)
            if isinstance(error, PusherError):  # the server refuses this call, not the others
                lost.append(call)
                errors.append(error)
            elif error:  # no answer comes, and none would to the others
                lost += calls[position:]
                errors.append(error)
                break
        if errors:
            self._tell(lost, errors[0])

    def _failure(self, path: str, params: dict[str, Any]) -> Exception | None:
        try:
            _completed(self.client._post(path, params))
        except Exception as error:  # noqa: BLE001 - told by _tell; the response must not break
            return error
        return None

    def _tell(self, lost: list[tuple[str, dict[str, Any]]], error: Exception) -> None:
        events = [
            self.client._recorded(event)
            for path, params in lost
            for event in _events_in([path], params)
        ]
        names = ", ".join(f"{event.name!r} on {' '.join(event.channels)}" for event in events)
        self.app.logger.error("Deferred events were lost: %s. %s", names, _reason(error))
        try:
            with self.app.app_context():
                publish_failed.send(
                    self.app, _async_wrapper=self.app.ensure_sync, events=events, error=error
                )
        except Exception:
            self.app.logger.exception("A receiver of publish_failed raised an exception.")


class _Receipt:
    """Says that a response was sent: when a server closes it, or drops it without.

    Werkzeug's development server drops the response to a client that resets the connection.
    """

    def __init__(self, deferred: _Deferred) -> None:
        self.deferred = deferred

    def __call__(self) -> None:
        self.deferred.sent()

    def __del__(self) -> None:
        if self.deferred.events and not self.deferred.is_sent:
            # Python may drop it in the midst of anything. A thread of its own meets no lock that
            # is held there.
            threading.Thread(target=self.deferred.sent, name="flask-pusher-deferred").start()


class _Stream:
    """A streamed body, whose end publishes what was deferred, unless it ends in an exception."""

    def __init__(self, body: Any, receipt: _Receipt) -> None:
        self.body = body
        self.receipt = receipt
        self.deferred = receipt.deferred

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.body
        except GeneratorExit:  # nobody reads on; what was done is done
            raise
        except BaseException:
            self.deferred.events.clear()
            raise
        if self.deferred.recordings:
            self.deferred.publish()

    def close(self) -> None:
        try:
            if hasattr(self.body, "close"):
                self.body.close()
        finally:
            self.receipt()


def _deferred_here(client: Client) -> _Deferred:
    """What the current request, or else the current application context, has deferred so far."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    holder = request.environ if _is_in_request_of(app) else g
    deferred: _Deferred | None = holder.get(client._deferred_key)
    if deferred is None:
        client._has_deferred = True
        deferred = holder.setdefault(client._deferred_key, _Deferred(app, client))
        got_request_exception.connect(_forget_after_exception, app)
        request_tearing_down.connect(_publish_after_request, app)
        appcontext_tearing_down.connect(_publish_after_context, app)
    return deferred


def _is_in_request_of(app: Flask) -> bool:
    """Whether a request of this application is handled. One of another application can be, around
    a context of this one, and tells by the URL map that its rule is from."""
    if not has_request_context():
        return False
    return request.url_rule is None or request.url_rule.map is app.url_map


def _deferred_in_request(app: Flask) -> _Deferred | None:
    deferred: _Deferred | None = request.environ.get(app.extensions["pusher"]._deferred_key)
    return deferred


def _publish_after_response(app: Flask, response: Response, **_extra: Any) -> None:
    client: Client = app.extensions["pusher"]
    may_defer_yet = response.is_streamed and not response.direct_passthrough
    if not (client._has_deferred or may_defer_yet):
        return
    deferred = _deferred_in_request(app)
    if deferred is None:
        if not may_defer_yet:
            return
        # The stream itself may defer events, when it is too late to follow the response.
        deferred = request.environ[client._deferred_key] = _Deferred(app, client)
    deferred.follow(response)


def _forget_after_exception(app: Flask, **_extra: Any) -> None:
    """For contexts and environments that live on: of a test client's block, of a retry."""
    deferred = _deferred_in_request(app)
    if deferred is not None:
        deferred.events.clear()


def _publish_after_request(app: Flask, exc: BaseException | None = None, **_extra: Any) -> None:
    """For what no response follows: a context that ``app.test_request_context`` made, or a copy of
    a request's, by ``copy_current_request_context``, that lives longer than the response."""
    deferred = _deferred_in_request(app)
    if deferred is None:
        return
    is_no_copy = deferred.context is g._get_current_object()
    if deferred.is_sent or (is_no_copy and not deferred.is_answered):
        deferred.end(exc)


def _publish_after_context(app: Flask, exc: BaseException | None = None, **_extra: Any) -> None:
    deferred: _Deferred | None = g.pop(app.extensions["pusher"]._deferred_key, None)
    if deferred is not None:
        deferred.end(exc)


def _is_success(error: BaseException) -> bool:
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code == 0
    return isinstance(error, SystemExit) and not error.code


def _calls(events: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The fewest API calls that publish these events in order.

    One call carries either one event to up to 100 channels, or 10 events to a channel each. The
    call that reaches furthest is always right, because what is left never takes more calls than
    more of it would.
    """
    entries = [
        ({key: event[key] for key in event if key != "channels"}, channel)
        for event in events
        for channel in dict.fromkeys(event["channels"])
    ]
    calls: list[tuple[str, dict[str, Any]]] = []
    while entries:
        event = entries[0][0]
        alike = _count_alike(entries[:100])
        part, entries = entries[: max(alike, 10)], entries[max(alike, 10) :]
        if len(part) <= alike:
            calls.append(("events", {**event, "channels": [channel for _, channel in part]}))
        else:
            batch = [{"channel": channel, **event} for event, channel in part]
            calls.append(("batch_events", {"batch": batch}))
    return calls


def _count_alike(entries: list[tuple[dict[str, Any], str]]) -> int:
    """How many of the entries, from the first, are the same event, each to another channel."""
    channels: set[str] = set()
    for event, channel in entries:
        if event != entries[0][0] or channel in channels:
            break
        channels.add(channel)
    return len(channels)


def _reason(error: Exception) -> str:
    """What an exception says, on one line, without the signed query of a URL that it may name."""
    text = str(error) if isinstance(error, PusherError) else re.sub(r"\?\S*", "", str(error))
    return f"{type(error).__name__}: {' '.join(text.split())}"


# -- Settings -------------------------------------------------------------------------------------


class _Settings(NamedTuple):
    """An application's configuration, checked."""

    cluster: str | None
    auth_path: str
    user_auth_path: str
    webhook_max_age: float | None
    auth_max_channels: int
    client_options: Mapping[str, Any]


def _read_settings(app: Flask) -> _Settings:
    """Check an application's ``PUSHER_*`` settings.

    :raises ValueError: for one that is missing or impossible.
    """
    for key, default in (("PUSHER_HOST", ""), ("PUSHER_PORT", ""), ("PUSHER_AUTH", "/auth")):
        app.config.setdefault(key, default)  # applications for Flask-Pusher 3.0 may read them
    config = _Config(app.config)
    auth_path = config.path("PUSHER_AUTH", "/auth")
    user_auth_path = config.path("PUSHER_USER_AUTH", "/user-auth")
    taken = ["/events", *(f"/events/{group}" for group in _GROUPS)]
    if auth_path in taken:
        raise config.error("PUSHER_AUTH", "another path than those of webhooks")
    if user_auth_path in (auth_path, *taken):
        raise config.error("PUSHER_USER_AUTH", "another path than PUSHER_AUTH and webhooks have")
    return _Settings(
        cluster=config.cluster(),
        auth_path=auth_path,
        user_auth_path=user_auth_path,
        webhook_max_age=config.webhook_max_age(),
        auth_max_channels=config.whole_number("PUSHER_AUTH_MAX_CHANNELS") or 500,
        client_options=config.mapping("PUSHER_CLIENT_OPTIONS"),
    )


def _make_client(app: Flask) -> Client:
    config = _Config(app.config)
    arguments = {**_json_classes(app), **config.client_arguments()}
    options = config.mapping("PUSHER_BACKEND_OPTIONS")
    if not options:
        return Client(**arguments)
    try:
        return Client(**{**arguments, **options})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"PUSHER_BACKEND_OPTIONS should be what PUSHER_BACKEND takes: {error}."
        ) from None


class _Config:
    """Reads settings, given as Python values or as the text of environment variables.

    A setting that is None or empty text is not set.
    """

    secrets = (
        "PUSHER_SECRET",
        "PUSHER_URL",
        "PUSHER_BACKEND_OPTIONS",
        "PUSHER_ENCRYPTION_MASTER_KEY",
        "PUSHER_ENCRYPTION_MASTER_KEY_BASE64",
    )

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def client_arguments(self) -> dict[str, Any]:
        url = self.url()
        cluster = self.cluster()
        host = self.text("PUSHER_HOST", _HOST, "a host's name, without scheme and port")
        port = self.whole_number("PUSHER_PORT", 65535)
        if host is None and not (cluster and _is_hosted(url.get("host", ""))):
            host = url.get("host")
        ssl = self.flag("PUSHER_SSL")
        if ssl is None:
            ssl = port != 80 and url.get("scheme") != "http"
        return {
            "app_id": self.required("PUSHER_APP_ID", "[0-9]+", "the app's id, digits", url),
            "key": self.required("PUSHER_KEY", _KEY, "the app's key, of A-Z a-z 0-9 . _ ~ -", url),
            "secret": self.required(
                "PUSHER_SECRET", r"[^\ud800-\udfff]+", "the app's secret", url
            ),
            "cluster": cluster,
            "host": host,
            "port": port or (int(url["port"]) if url.get("port") else None),
            "ssl": ssl,
            "timeout": self.number("PUSHER_TIMEOUT") or 5,
            "backend": self.backend() or _Backend,
            **self.master_key(),
        }

    def url(self) -> dict[str, str]:
        """The parts of ``PUSHER_URL``; none where it is not set."""
        form = "https://KEY:SECRET@HOST[:PORT]/apps/APP_ID"
        text = self.text("PUSHER_URL", _URL.pattern, f"of the form {form}")
        parts = _URL.fullmatch(text) if text else None
        if parts is None:
            return {}
        if parts["port"] and not 1 <= int(parts["port"]) <= 65535:
            raise self.error("PUSHER_URL", f"of the form {form}, with a port up to 65535")
        return {**parts.groupdict(""), "secret": unquote(parts["secret"])}

    def required(self, key: str, pattern: str, wanted: str, url: Mapping[str, str]) -> str:
        value = self.text(key, pattern, wanted) or url.get(key[len("PUSHER_") :].lower())
        if not value:
            raise self.error(key, f"{wanted}, from the service's page about the app")
        return value

    def cluster(self) -> str | None:
        return self.text("PUSHER_CLUSTER", "[A-Za-z0-9-]+", "a cluster's name, such as eu")

    def path(self, key: str, default: str) -> str:
        path = self.text(key, r"/*[^<>\s/][^<>\s]*", "a path below the prefix, such as /auth")
        return "/" + (path or default).lstrip("/")

    def master_key(self) -> dict[str, Any]:
        base64_key = "PUSHER_ENCRYPTION_MASTER_KEY_BASE64"
        raw_key = "PUSHER_ENCRYPTION_MASTER_KEY"
        encoded = self.text(base64_key, _BASE64_OF_32_BYTES, "32 bytes in base64")
        raw = self.config.get(raw_key)
        if not raw:
            return {"encryption_master_key_base64": encoded}
        if encoded:
            raise ValueError(f"{raw_key} and {base64_key} are both set. Keep the latter.")
        raw_bytes = raw.encode(errors="surrogatepass") if isinstance(raw, str) else raw
        if not isinstance(raw_bytes, bytes) or len(raw_bytes) != 32:
            raise self.error(raw_key, f"32 bytes (better: use {base64_key})")
        return {"encryption_master_key": raw_bytes}

    def backend(self) -> Any:
        backend = self.value("PUSHER_BACKEND")
        if isinstance(backend, str):
            try:
                backend = import_string(backend)
            except (ImportError, ValueError) as error:
                raise self.error("PUSHER_BACKEND", "a class or its import path") from error
        if backend is not None and not callable(backend):
            raise self.error("PUSHER_BACKEND", "a class or its import path")
        return backend

    def webhook_max_age(self) -> float | None:
        key = "PUSHER_WEBHOOK_MAX_AGE"
        forever = self.config.get(key, 600)
        if forever is None or (isinstance(forever, str) and forever.lower() in ("none", "null")):
            return None
        return self.number(key) or 600

    def value(self, key: str) -> Any:
        value = self.config.get(key)
        if isinstance(value, bytes):
            with suppress(UnicodeDecodeError):
                value = value.decode()
        if isinstance(value, str):
            value = value.strip()
        return None if value == "" else value

    def text(self, key: str, pattern: str, wanted: str) -> str | None:
        value = self.value(key)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # digits that from_prefixed_env took for JSON
        if isinstance(value, float):
            raise self.error(key, f"{wanted}, as text: in an environment variable, quote it twice")
        if value is not None and not (isinstance(value, str) and re.fullmatch(pattern, value)):
            raise self.error(key, wanted)
        return value

    def flag(self, key: str) -> bool | None:
        value = self.value(key)
        if value is None:
            return None
        try:
            return _FLAGS[str(value).lower()]
        except KeyError:
            raise self.error(key, "true or false") from None

    def number(self, key: str) -> float | None:
        """A number of seconds: above zero, whole or not."""
        value = self.value(key)
        try:
            number = float(value) if isinstance(value, str) else value
            if number is None or (type(number) in (int, float) and 0 < number < float("inf")):
                return number
        except ValueError:
            pass
        raise self.error(key, "a number of seconds, more than 0")

    def whole_number(self, key: str, most: int = 10**9) -> int | None:
        """A whole number from one on."""
        value = self.value(key)
        if isinstance(value, str) and re.fullmatch("[0-9]{1,10}", value):
            value = int(value)
        if value is None or (type(value) is int and 1 <= value <= most):
            return value
        raise self.error(key, f"a whole number from 1 to {most}")

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.value(key)
        if isinstance(value, str):
            with suppress(ValueError, RecursionError):  # then it is no mapping either
                value = json.loads(value)
        if value is not None and not isinstance(value, Mapping):
            raise self.error(key, "a dict, or a JSON object as text")
        return value or {}

    def error(self, key: str, wanted: str) -> ValueError:
        value = self.value(key)
        if value is None:
            found = "it is not set"
        elif key in self.secrets:
            found = f"it holds a {type(value).__name__}, which is not shown"
        else:  # without the credentials of a URL that was put into the wrong setting
            found = f"it is {re.sub(r'//[^/]*@', '//...@', repr(value))}"
        return ValueError(f"{key} should be {wanted}; {found}.")


_KEY = r"[A-Za-z0-9_.~-]+"
_HOST = r"[\w.-]+|\[[0-9A-Fa-f:.]+\]"
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<key>{_KEY}):(?P<secret>[^:@/\s]+)@(?P<host>{_HOST})"
    r"(?::(?P<port>[0-9]{1,5}))?/apps/(?P<app_id>[0-9]+)/?"
)
_BASE64_OF_32_BYTES = "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="
_FLAGS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def _json_classes(app: Flask) -> dict[str, Any]:
    """The client's encoder and decoder: the application's JSON provider.

    An ``app.json_encoder`` or ``app.json_decoder``, as Flask had before 2.3, comes first.
    """

    class Encoder(json.JSONEncoder):
        def encode(self, o: Any) -> str:
            encoder = getattr(app, "json_encoder", None)
            if encoder:
                return json.dumps(o, cls=encoder, ensure_ascii=self.ensure_ascii)
            if self.ensure_ascii or not isinstance(app.json, DefaultJSONProvider):
                return app.json.dumps(o)
            # The client asks for it where the length counts: in events.
            return app.json.dumps(o, ensure_ascii=False)

    class Decoder(json.JSONDecoder):
        def decode(self, s: Any, *_positions: Any) -> Any:
            decoder = getattr(app, "json_decoder", None)
            return json.loads(s, cls=decoder) if decoder else app.json.loads(s)

    return {"json_encoder": Encoder, "json_decoder": Decoder}


# -- Commands -------------------------------------------------------------------------------------


_commands: list[click.Command] = []


def _command(function: Callable[..., None]) -> click.Command:
    command = click.command(function.__name__.strip("_"))(with_appcontext(function))
    _commands.append(command)
    return command


@_command
def _check() -> None:
    """Show the settings in force, and try them on the server."""
    client: Client = current_app.extensions["pusher"]
    settings = _read_settings(current_app._get_current_object())  # type: ignore[attr-defined]
    secrets = {
        "PUSHER_BACKEND_OPTIONS": current_app.config.get("PUSHER_BACKEND_OPTIONS"),
        "PUSHER_ENCRYPTION_MASTER_KEY_BASE64": client._encryption_master_key,
    }
    in_force = {
        "PUSHER_APP_ID": client.app_id,
        "PUSHER_KEY": client.key,
        "PUSHER_SECRET": "(set, not shown)",
        "PUSHER_CLUSTER": settings.cluster or "(not set)",
        "PUSHER_HOST": client.host,
        "PUSHER_PORT": client.port,
        "PUSHER_SSL": client.ssl,
        "PUSHER_TIMEOUT": client.timeout,
        "PUSHER_BACKEND": "requests" if type(client.http) is _Backend else client.http,
        **{key: "(set, not shown)" if secrets[key] else "(not set)" for key in secrets},
        "PUSHER_AUTH": _route("pusher.auth"),
        "PUSHER_USER_AUTH": _route("pusher.user_auth"),
        "PUSHER_WEBHOOK_MAX_AGE": settings.webhook_max_age,
        "PUSHER_AUTH_MAX_CHANNELS": settings.auth_max_channels,
        "PUSHER_CLIENT_OPTIONS": current_app.json.dumps(settings.client_options),
    }
    for key, value in in_force.items():
        click.echo(f"{key:36}{value}")
    click.echo("\nThe URL for webhooks, or one for each group of them:")
    click.echo(f"  {'every kind':36}{_url('pusher.events')}")
    for group, names in _GROUPS.items():
        click.echo(f"  {', '.join(names):36}{_url(f'pusher.{group}_event')}")
    with _api_errors(client):
        _completed(client.channels_info())
    click.echo(f"\n{_base_url(client)} accepts these credentials.")


@_command
@click.argument("channel")
@click.argument("event")
@click.argument("data", default="{}")
def _trigger(channel: str, event: str, data: str) -> None:
    """Publish EVENT on CHANNEL. DATA is JSON, or just text; an empty object if left out."""
    client: Client = current_app.extensions["pusher"]
    with _api_errors(client):
        _completed(client.trigger(channel, event, data))


@_command
@click.option("--prefix", default="", help="Only channels whose names start with this.")
def _channels(prefix: str) -> None:
    """List the channels that have subscribers, with the members of presence channels counted."""
    client: Client = current_app.extensions["pusher"]
    if prefix and not _is_channel_name(prefix):
        raise click.BadParameter(f"a channel's name has only the characters {_CHARACTERS}")
    attributes = ["user_count"] if prefix.startswith(_PRESENCE) else []
    with _api_errors(client):
        channels = _completed(client.channels_info(prefix, attributes))["channels"]
        for name in sorted(channels):
            count = (channels[name] or {}).get("user_count")
            click.echo(name if count is None else f"{name}  {count}")


@_command
@click.argument("channel")
def _users(channel: str) -> None:
    """List the ids of the users on the presence channel CHANNEL."""
    client: Client = current_app.extensions["pusher"]
    with _api_errors(client):
        for user in _completed(client.users_info(channel))["users"]:
            click.echo(user["id"])


@_command
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=6001,
    show_default=True,
    help="The port; 0 for a free one.",
)
@click.option(
    "--webhooks",
    metavar="URL",
    multiple=True,
    help="Post webhooks there, to the route for all kinds where the URL has no path.",
)
@click.option("--quiet", is_flag=True, help="Print no line for each thing that happens.")
def _serve(host: str, port: int, webhooks: tuple[str, ...], quiet: bool) -> None:
    """Run a Channels server for this application on this machine, for development."""
    try:
        from flask_pusher_local import serve
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f'The local server needs {error.name}: pip install "Flask-Pusher[local]"'
        ) from None
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    serve(app, host=host, port=port, quiet=quiet, webhooks=webhooks or None)


def _route(endpoint: str) -> str:
    return next(current_app.url_map.iter_rules(endpoint)).rule


def _url(endpoint: str) -> str:
    """The URL of a route, whose beginning an application knows if ``SERVER_NAME`` is set."""
    if current_app.config["SERVER_NAME"]:
        return url_for(endpoint)
    return f"https://YOUR-SITE{_route(endpoint)}"


def _base_url(client: Client) -> str:
    return f"{client.scheme}://{client.host}:{client.port}"


def _completed(answer: Any) -> Any:
    """An answer of the API; an asynchronous backend gives a coroutine in its place."""
    if not inspect.iscoroutine(answer):
        return answer
    import asyncio  # which takes long, and hardly any application needs

    return asyncio.run(answer)


@contextmanager
def _api_errors(client: Client) -> Iterator[None]:
    """Turn whatever goes wrong with a call to the API into one line for the terminal."""
    try:
        yield
    except PusherError as error:
        raise click.ClickException(f"{_base_url(client)} refuses: {_reason(error)}") from None
    except (OSError, json.JSONDecodeError) as error:  # no answer, or not that of such an API
        raise click.ClickException(f"{_base_url(client)}: {_reason(error)}") from None
    except Exception as error:  # noqa: BLE001 - arguments, or whatever a backend raises
        raise click.ClickException(_reason(error)) from None

"""The official client of the Channels HTTP API, mended."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any
from uuid import UUID

import flask
import pusher
from pusher.crypto import encrypt
from pusher.http import GET, POST, Request
from pusher.pusher_client import PusherClient
from pusher.requests import RequestsBackend

from _flask_pusher import rules
from _flask_pusher.transport import Backend, Transport
from _flask_pusher.warning import warn

if TYPE_CHECKING:
    from typing_extensions import Self

MYPY = False
if MYPY:

    class _Official:
        """The official client, which has no types: to mypy every method of a subclass would be
        right. Declared are those that the subclass has by inheritance alone."""

        @classmethod
        def from_url(cls, url: str, **options: Any) -> Self:
            raise NotImplementedError

        @classmethod
        def from_env(cls, env: str = "PUSHER_URL", **options: Any) -> Self:
            raise NotImplementedError

else:
    _Official = pusher.Pusher

MASTER_KEY = "PUSHER_ENCRYPTION_MASTER_KEY_BASE64"
_KINDS = (*rules.AUTHORISED, "cache-")


class Client(_Official):
    """The official client of the Channels HTTP API, mended, and with its configuration readable.

    An application's own is ``app.extensions["pusher"]``, and what ``pusher.client`` gives. Its
    arguments are those of https://github.com/pusher/pusher-http-python, and two more, which the
    settings ``PUSHER_PATH`` and ``PUSHER_MAX_EVENT_BYTES`` are for.

    A method that calls the API raises ``ValueError`` or ``TypeError`` for arguments that Channels
    does not take, before anything is sent. It raises :class:`PusherError` where the server
    refuses or gives what is no answer of Channels, and :class:`NoAnswer` where no answer comes.
    With an asynchronous backend it returns a coroutine, which has to be awaited.

    .. versionchanged:: 4.0
        Sizes are those of the data in UTF-8; more than 100 channels or 10 events are sent in
        several calls; ``terminate_user_connections`` works; ``authenticate`` gives
        ``shared_secret`` as text; connections are kept, and never shared with a forked process.
    """

    def __init__(
        self,
        app_id: str,
        *arguments: Any,
        backend: Any = None,
        path: str = "",
        max_event_bytes: int | None = rules.EVENT_BYTES,
        **options: Any,
    ) -> None:
        if not rules.is_app_id(app_id):
            raise ValueError(f"An app's id is text of A-Z a-z 0-9 _ -; this is {app_id!r:.100}.")
        # The official client takes digits only for an id; self-hosted servers take more.
        super().__init__("0", *arguments, backend=_no_backend, **options)  # type: ignore[call-arg]
        adapter = Backend if backend in (None, RequestsBackend) else backend
        self._pusher_client = _Api("0", *arguments, backend=adapter, **options)
        self._pusher_client._app_id = app_id
        self._pusher_client.path = path
        self._pusher_client.max_event_bytes = max_event_bytes
        self._transport = self._pusher_client.http = Transport(self._pusher_client.http)

    if not TYPE_CHECKING:  # to a type checker every misspelt name would be right

        def __getattr__(self, name):
            if name.startswith("__") or name == "_pusher_client":  # nothing is there yet: a copy
                raise AttributeError(name)
            return getattr(self._pusher_client, name)

    @property
    def app_id(self) -> str:
        return str(self._pusher_client.app_id)

    @property
    def key(self) -> str:
        """The public half of the credentials, which pages carry."""
        return str(self._pusher_client.key)

    @property
    def secret(self) -> str:
        return str(self._pusher_client.secret)

    @property
    def host(self) -> str:
        """The HTTP API's host, with brackets around an IPv6 address."""
        return str(self._pusher_client.host)

    @property
    def port(self) -> int:
        return int(self._pusher_client.port)

    @property
    def ssl(self) -> bool:
        """Whether the HTTP API speaks TLS."""
        return bool(self._pusher_client.ssl)

    @property
    def scheme(self) -> str:
        return "https" if self.ssl else "http"

    @property
    def path(self) -> str:
        """What the HTTP API's paths have before ``/apps``; usually nothing."""
        return self._pusher_client.path

    @property
    def timeout(self) -> float:
        """How long to wait for the HTTP API, in seconds."""
        return float(self._pusher_client.timeout)

    @property
    def can_encrypt(self) -> bool:
        """Whether a master key is set, which encrypted channels need."""
        return self._pusher_client._encryption_master_key is not None

    @property
    def http(self) -> Any:
        """The HTTP adapter: an instance of ``PUSHER_BACKEND``."""
        return self._transport.backend

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
        info: Iterable[str] | None = None,
    ) -> Any:
        """Publish one event, now.

        :param channels: a channel's name, or several; more than 100 are sent in several calls. A
            name has 1 to 200 characters (164 on the hosted service) of
            ``A-Z a-z 0-9 _ - = @ , . ;``. An encrypted channel must be the only one.
        :param event_name: at most 200 characters.
        :param data: what the application's JSON provider can serialise, at most
            ``PUSHER_MAX_EVENT_BYTES`` of it in UTF-8; text is sent as it is.
        :param socket_id: a connection that does not get the event, usually ``pusher.socket_id``.
        :param info: what to ask about the channels in the same call: ``"user_count"`` (presence
            channels) and ``"subscription_count"``.
        :return: the server's answer, a dict; with ``info`` it is
            ``{"channels": {name: {"subscription_count": 3}}}``.
        :raises ValueError: or ``TypeError``, for what Channels does not take.
        :raises PusherError: for a refusal; :class:`NoAnswer` where no answer comes.

        .. versionchanged:: 4.0
            ``info``, and any number of channels.
        """
        names = channels if info is None else _ChannelsWithInfo(channel_list(channels), info)
        sparing = () if socket_id is None else (socket_id,)
        return super().trigger(names, event_name, data, *sparing)  # type: ignore[misc]

    def trigger_batch(
        self, batch: Iterable[Mapping[str, Any]] = (), already_encoded: bool = False
    ) -> Any:
        """Publish several events, ten in a call, in order.

        :param batch: dicts of ``channel``, ``name``, ``data`` and, if wanted, ``socket_id`` and
            ``info``, each as in :meth:`trigger`, to one channel each.
        :param already_encoded: each ``data`` is text that is to be sent as it is.
        :return: the server's answer, a dict; with ``info`` it has one entry for each event in
            ``"batch"``.
        :raises ValueError: for a key that is missing or unknown too; else as :meth:`trigger`.
        """
        events = batch if isinstance(batch, list) else list(batch)
        encoded = (True,) if already_encoded else ()
        return super().trigger_batch(events, *encoded)  # type: ignore[misc]

    def send_to_user(self, user_id: str | int | UUID, event_name: str, data: Any) -> Any:
        """Publish an event to every connection on which a user is signed in.

        :param user_id: the ``id`` that the ``user_auth`` handler gave, text, a number or a UUID.
        """
        return super().send_to_user(_user_id(user_id), event_name, data)  # type: ignore[misc]

    def terminate_user_connections(self, user_id: str | int | UUID) -> Any:
        """Close every connection on which a user is signed in. pusher-js does not connect again
        by itself then: the connection's state is ``disconnected``.

        :param user_id: the ``id`` that the ``user_auth`` handler gave, text, a number or a UUID.
        """
        inner = self._pusher_client
        user = _part_of_path(_user_id(user_id))
        return inner.call(POST, f"users/{user}/terminate_connections", {})

    def channels_info(
        self, prefix_filter: str | None = None, attributes: Iterable[str] = ()
    ) -> Any:
        """Which channels have subscribers: ``{"channels": {name: {attribute: value}}}``.

        :param prefix_filter: only channels whose names begin so.
        :param attributes: ``"user_count"``, which needs the prefix ``presence-``, and
            ``"subscription_count"``.
        """
        params = _info(attributes)
        if prefix_filter:
            params["filter_by_prefix"] = _text(prefix_filter, "prefix_filter")
        return self._pusher_client.call(GET, "channels", params)

    def channel_info(self, channel: str, attributes: Iterable[str] = ()) -> Any:
        """The state of one channel: ``{"occupied": True, attribute: value}``.

        :param attributes: ``"user_count"`` for presence channels, ``"subscription_count"``, and
            ``"cache"`` for cache channels.
        """
        name = _part_of_path(_channel(channel))
        return self._pusher_client.call(GET, f"channels/{name}", _info(attributes))

    def users_info(self, channel: str) -> Any:
        """Who is on a presence channel: ``{"users": [{"id": "7"}, ...]}``."""
        name = _part_of_path(_channel(channel))
        return self._pusher_client.call(GET, f"channels/{name}/users", {})

    def authenticate(
        self, channel: str, socket_id: str, custom_data: Mapping[str, Any] | None = None
    ) -> dict[str, str]:
        """Sign a connection's subscription to a channel.

        :param channel: a name that starts with ``private-`` or ``presence-``.
        :param socket_id: the connection: two numbers of at most 20 digits, joined by a dot.
        :param custom_data: presence data: ``user_id`` and, for the other members, ``user_info``.
        :return: what pusher-js expects: ``auth``, with ``channel_data`` on presence channels and
            ``shared_secret`` on encrypted ones.
        :raises ValueError: for a channel or socket id of another form, data that is not JSON, or
            an encrypted channel where no master key is set.
        """
        name = _channel(channel)
        if rules.is_encrypted(name):
            self._pusher_client.expect_master_key(name)
        return self.sign_subscription(name, expect_socket_id(socket_id), custom_data)

    def sign_subscription(
        self, channel: str, socket_id: str, custom_data: Mapping[str, Any] | None = None
    ) -> dict[str, str]:
        """What :meth:`authenticate` does when it has checked the channel and the socket id."""
        if custom_data is None:
            answer: dict[str, Any] = super().authenticate(channel, socket_id)  # type: ignore[misc]
        else:
            answer = super().authenticate(channel, socket_id, Keys(custom_data))  # type: ignore[misc]
            refuse_nan(answer.get("channel_data", ""))
        if "shared_secret" in answer:
            answer["shared_secret"] = _text(answer["shared_secret"], "A shared secret")
        return answer

    def authenticate_user(
        self, socket_id: str, user_data: Mapping[str, Any] | None = None
    ) -> dict[str, str]:
        """Sign a connection in as a user.

        :param socket_id: the connection, as in :meth:`authenticate`.
        :param user_data: ``id``, which is text, and if wanted ``user_info`` and ``watchlist``.
        :return: what pusher-js expects: ``auth`` and ``user_data``.
        :raises ValueError: for a socket id of another form, and data without an id or not JSON.
        """
        socket_id = expect_socket_id(socket_id)
        data = Keys(user_data) if isinstance(user_data, Mapping) else user_data
        answer: dict[str, str] = super().authenticate_user(socket_id, data)  # type: ignore[misc]
        refuse_nan(answer["user_data"])
        return answer

    def validate_webhook(self, key: str, signature: str, body: str) -> Any:
        """A webhook's content where key, signature and time are right, else None. The routes of
        the extension do this by themselves."""
        if not signature.isascii():  # no signature, and an error in comparing it
            return None
        return super().validate_webhook(key, signature, body)  # type: ignore[misc]


def _no_backend(_client: Any, **_options: Any) -> None:
    """The official client makes two of its own, which are not used."""


class _ChannelsWithInfo(list):  # type: ignore[type-arg]
    """Carries ``info`` through ``pusher.Pusher.trigger``, which has no argument for it and which
    tests of applications patch."""

    def __init__(self, channels: list[str], info: Iterable[str]) -> None:
        super().__init__(channels)
        self.info = info


class _Api(PusherClient):  # type: ignore[misc]
    """What the official client calls the API with: checks, sizes, splitting and paths are ours."""

    path: str = ""
    max_event_bytes: int | None = rules.EVENT_BYTES

    def trigger(
        self, channels: str | Iterable[str], event_name: str, data: Any, socket_id: Any = None
    ) -> Any:
        info = getattr(channels, "info", None)
        return self.publish(
            [
                ("events", event)
                for event in self.events(channels, event_name, data, socket_id, info)
            ]
        )

    def trigger_batch(
        self, batch: Iterable[Mapping[str, Any]] = (), already_encoded: bool = False
    ) -> Any:
        events = [self._batched(event, already_encoded) for event in batch]
        size = rules.EVENTS_PER_BATCH
        parts = [events[start : start + size] for start in range(0, len(events), size)] or [[]]
        return self.publish([("batch_events", {"batch": part}) for part in parts])

    def events(
        self,
        channels: str | Iterable[str],
        event_name: str,
        data: Any,
        socket_id: str | None = None,
        info: Iterable[str] | None = None,
    ) -> list[dict[str, Any]]:
        """The checked and serialised event, as often as its channels take calls."""
        names = [_channel(name) for name in channel_list(channels)]
        if len(names) > 1 and any(map(rules.is_encrypted, names)):
            raise ValueError(
                f"An encrypted channel must be an event's only one; here are {len(names)}:"
                " trigger the event for each channel."
            )
        event = self._event(event_name, self._serialised(names[0], data), socket_id, info)
        size = rules.CHANNELS_PER_EVENT
        return [
            {**event, "channels": names[start : start + size]}
            for start in range(0, len(names), size)
        ]

    def _batched(self, event: Mapping[str, Any], already_encoded: bool) -> dict[str, Any]:
        if not isinstance(event, Mapping):
            raise TypeError(f"Each event of a batch should be a dict; one is {_kind(event)}.")
        for key in ("channel", "name", "data"):
            if key not in event:
                raise ValueError(
                    f"An event of a batch lacks {key!r}; it has {', '.join(map(repr, event))}."
                )
        for key in event:
            if key not in ("channel", "name", "data", "socket_id", "info"):
                raise ValueError(
                    f"An event of a batch has the unknown key {key!r}. The keys are channel,"
                    " name, data, socket_id and info."
                )
        channel, data = _channel(event["channel"]), event["data"]
        text = _text(data, "data") if already_encoded else self._serialised(channel, data)
        others = self._event(event["name"], text, event.get("socket_id"), event.get("info"))
        return {"channel": channel, **others}

    def _event(
        self, name: str, text: str, socket_id: str | None, info: Iterable[str] | None
    ) -> dict[str, Any]:
        event = {"name": _event_name(name), "data": self._expect_size(name, text)}
        if socket_id:
            event["socket_id"] = expect_socket_id(socket_id)
        return {**event, **_info(info or ())}

    def _serialised(self, channel: str, data: Any) -> str:
        text = data if isinstance(data, str) else self._dumps(data)
        return self._encrypted(channel, text) if rules.is_encrypted(channel) else text

    def _dumps(self, data: Any) -> str:
        return refuse_nan(json.dumps(data, cls=self._json_encoder, ensure_ascii=False))

    def _encrypted(self, channel: str, text: str) -> str:
        self.expect_master_key(channel)
        return json.dumps(encrypt(channel, text, self._encryption_master_key))

    def expect_master_key(self, channel: str) -> None:
        if self._encryption_master_key is None:
            raise ValueError(
                f"The encrypted channel {channel!r} needs {MASTER_KEY}; it is not set."
            )

    def _expect_size(self, event_name: str, text: str) -> str:
        most = self.max_event_bytes
        # No character takes more than four bytes, so most texts need no counting.
        if most is not None and len(text) * 4 > most:
            size = len(text.encode("utf-8", "surrogatepass"))
            if size > most:
                raise ValueError(
                    f"The data of the event {event_name!r} has {size} bytes in UTF-8. At most"
                    f" {most} are taken: PUSHER_MAX_EVENT_BYTES."
                )
        return text

    def publish(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
        """Make several calls, in order, and give one answer; a coroutine if the backend does."""
        first = self.call(POST, *calls[0])
        if inspect.isawaitable(first):
            return self._publish_rest(first, calls)
        return _joined(calls, [first, *(self.call(POST, *call) for call in calls[1:])])

    async def _publish_rest(
        self, first: Awaitable[Any], calls: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> Any:
        answers = [await first, *[await self.call(POST, *call) for call in calls[1:]]]
        return _joined(calls, answers)

    def call(self, method: str, resource: str, params: Mapping[str, Any]) -> Any:
        path = f"{self.path}/apps/{self.app_id}/{resource}"
        return self.http.send_request(Request(self, method, path, params))


def channel_list(channels: Any) -> list[Any]:
    """The channels of an event, each once, as a list.

    :raises ValueError: for none, and ``TypeError`` for what is no text and no iterable of it.
    """
    if isinstance(channels, (str, bytes)):
        return [channels]
    if isinstance(channels, Mapping) or not isinstance(channels, Iterable):
        raise TypeError(
            f"The channels should be a name or several names; this is {_kind(channels)}."
        )
    names = list(dict.fromkeys(channels))
    if not names:
        raise ValueError("There are no channels to publish to: name at least one.")
    return names


def _channel(name: Any) -> str:
    text = _text(name, "A channel's name")
    bare = text.removeprefix(rules.SERVER_TO_USER)
    if len(text) > rules.NAME_LENGTH or not rules.is_channel_name(bare):
        raise ValueError(
            f"A channel's name has 1 to {rules.NAME_LENGTH} of the characters"
            f" {rules.CHARACTERS}; this is {text[: rules.NAME_LENGTH]!r}."
        )
    if not text.startswith(_KINDS) and text.lower().startswith(_KINDS):
        warn(
            f"{text!r} is a public channel: capitals count, so it is not of the kind that"
            f" {text.lower()!r} is."
        )
    return text


def _user_id(value: Any) -> str:
    user_id = text_id(value)
    if not rules.is_user_id(user_id):
        raise ValueError(
            f"A user's id is a number, or text of 1 to {rules.USER_ID_LENGTH} of the characters"
            f" {rules.CHARACTERS}; this is {user_id!r:.300}."
        )
    return str(user_id)


def _part_of_path(name: str) -> str:
    """A name that the API's paths can carry: ``#`` would end them, and dots lead elsewhere."""
    if name.startswith("#") or name in (".", ".."):
        raise ValueError(f"The HTTP API has no path for {name!r}.")
    return name


def text_id(value: Any) -> Any:
    """An id as Channels has it, text, where an application has a number or a UUID; anything else
    as it is, NaN and the infinities too."""
    if isinstance(value, str):
        return _text(value, "An id")
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)  # of an enumeration's member its value, as of text
    if isinstance(value, UUID):
        return str(value)
    is_finite = isinstance(value, Number) and re.search("[0-9]", str(value))
    return str(value) if is_finite else value


def _event_name(name: Any) -> str:
    text = _text(name, "An event's name")
    if not 1 <= len(text) <= rules.EVENT_NAME_LENGTH:
        raise ValueError(
            f"An event's name has 1 to {rules.EVENT_NAME_LENGTH} characters; this has {len(text)}."
        )
    return text


def expect_socket_id(value: Any) -> str:
    text = _text(value, "A socket id")
    if not rules.is_socket_id(text):
        raise ValueError(
            "A socket id is two numbers of at most"
            f" {rules.SOCKET_ID_DIGITS} digits, joined by a dot; this is {text!r:.100}."
        )
    return text


def _info(attributes: Iterable[str]) -> dict[str, str]:
    names = [attributes] if isinstance(attributes, str) else list(attributes)
    return {"info": ",".join(_text(name, "Each attribute") for name in names)} if names else {}


def _text(value: Any, what: str) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError(f"{what} should be text; this is {_kind(value)}.")
    return str.__str__(value)  # of an enumeration's member its value, which its own str() is not


def _kind(value: Any) -> str:
    return f"of type {type(value).__name__}"


def refuse_nan(text: str) -> str:
    """A JSON text without the numbers that Python writes and no other parser reads.

    :raises ValueError: for NaN and the infinities.
    """
    if "NaN" in text or "Infinity" in text:
        json.loads(text, parse_constant=refuse_constant)
    return text


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON: no browser could read it. Send None or text instead.")


def _joined(
    calls: Sequence[tuple[str, Mapping[str, Any]]], answers: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The answers of several calls, as one call would have answered."""
    if any("batch" in answer for answer in answers):  # one without info has no entries
        for (_, params), answer in zip(calls, answers):
            answer.setdefault("batch", [{} for _ in params["batch"]])
    joined: dict[str, Any] = {}
    for answer in answers:
        for key, value in answer.items():
            if isinstance(value, dict):
                joined[key] = {**joined.get(key, {}), **value}
            elif isinstance(value, list):
                joined[key] = [*joined.get(key, []), *value]
            else:
                joined[key] = value
    return joined


# -- JSON by the application's provider -----------------------------------------------------------


def json_classes(app: flask.Flask) -> dict[str, Any]:
    """The client's encoder and decoder: the application's own ``json_encoder`` and
    ``json_decoder``, as Flask had them before 2.3, or what goes through its ``app.json``."""
    codec = _Codec(app)
    return {
        "json_encoder": getattr(app, "json_encoder", None) or codec,
        "json_decoder": getattr(app, "json_decoder", None) or codec,
    }


class Keys(dict):  # type: ignore[type-arg]
    """A dict whose keys are the protocol's, whatever the provider does to keys. Its values are the
    provider's."""


class _Codec:
    """What ``json.dumps`` and ``json.loads`` take for an encoder's or decoder's class, and for its
    instance: an application's JSON provider, which a copy keeps and a pickle leaves behind."""

    def __init__(self, app: flask.Flask | None, ensure_ascii: bool = True) -> None:
        self.app = app
        self.ensure_ascii = ensure_ascii

    def __deepcopy__(self, memo: Any) -> _Codec:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"app": None, "ensure_ascii": self.ensure_ascii}

    def __call__(self, ensure_ascii: bool = True, **_options: Any) -> _Codec:
        return self if ensure_ascii else _Codec(self.app, ensure_ascii)

    def encode(self, value: Any) -> str:
        if isinstance(value, Keys):
            pairs = (f"{json.dumps(key)}: {self.encode(one)}" for key, one in value.items())
            return f"{{{', '.join(pairs)}}}"
        provider = (self.app or flask).json  # unpickled, it is the current application's
        try:
            # Keys of two types cannot be sorted, and escapes count against an event's size.
            text = provider.dumps(value, ensure_ascii=self.ensure_ascii, sort_keys=False)
        except TypeError:  # a provider may take no options, or not these
            try:
                text = provider.dumps(value)
            except TypeError as error:
                raise TypeError(
                    f"{error}. Give what app.json can serialise, such as a dict, or teach app.json."
                ) from None
        return text if isinstance(text, str) else _text(text, "What the JSON provider gives")

    def decode(self, text: str) -> Any:
        return (self.app or flask).json.loads(text)

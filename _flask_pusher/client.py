"""The official client of the Channels HTTP API, mended."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import pusher
from pusher.http import GET, POST

from _flask_pusher import expect, rules
from _flask_pusher.api import Api
from _flask_pusher.codec import Keys

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


_OF_THE_EXTENSION = ("auth", "channel_data", "defer", "record_events", "user_auth", "webhooks")


def _held(name: str, text: str = "") -> Any:
    """What the client was made with, which can be read and not assigned."""
    return property(attrgetter(f"_pusher_client.{name}"), doc=text)


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
        path: str = "",
        max_event_bytes: int | None = rules.EVENT_BYTES,
        **options: Any,
    ) -> None:
        api = Api(app_id, path, max_event_bytes, *arguments, **options)
        # As pusher.Pusher's own does, which would make a client for each of its halves.
        self._pusher_client = self._authentication_client = api

    if not TYPE_CHECKING:  # to a type checker every misspelt name would be right

        def __getattr__(self, name):
            # The official client's own parts, and of a copy before it has anything nothing.
            if re.match("_[a-z]", name) and "_pusher_client" in self.__dict__:
                return getattr(self._pusher_client, name)
            if name in _OF_THE_EXTENSION:
                hint = f"The client has no {name!r}; the extension has: pusher.{name}."
                raise AttributeError(hint)
            return super().__getattribute__(name)  # raises, and what a property raised too

    app_id: Final[str] = _held("app_id")
    key: Final[str] = _held("key", "The public half of the credentials, which pages carry.")
    secret: Final[str] = _held("secret")
    host: Final[str] = _held("host", "The HTTP API's host, with brackets around an IPv6 address.")
    port: Final[int] = _held("port")
    ssl: Final[bool] = _held("ssl", "Whether the HTTP API speaks TLS.")
    scheme: Final[str] = _held("scheme")
    path: Final[str] = _held("path", "What its paths have before ``/apps``; usually nothing.")
    timeout: Final[float] = _held("timeout", "How long to wait for the HTTP API, in seconds.")
    http: Final[Any] = _held("http.backend", "The adapter: an instance of ``PUSHER_BACKEND``.")

    @property
    def can_encrypt(self) -> bool:
        """Whether a master key is set, which encrypted channels need."""
        return self._pusher_client.master_key is not None

    @property
    def address(self) -> tuple[str, int, bool]:
        """Where the HTTP API is: host, port, and whether it speaks TLS. It can be assigned, and
        holds from the next call on, for what ``pusher_options()`` tells browsers too.

        .. versionadded:: 4.0
        """
        return self.host, self.port, self.ssl

    @address.setter
    def address(self, address: tuple[str, int, bool]) -> None:
        self._pusher_client.move(*address)

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
        client = self
        if info is not None:
            client = copy.copy(self)
            client._pusher_client = self._pusher_client.asking(info)
        sparing = () if socket_id is None else (socket_id,)
        return super(Client, client).trigger(channels, event_name, data, *sparing)  # type: ignore[misc]

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
        encoded = (True,) if already_encoded else ()
        return super().trigger_batch(list(batch), *encoded)  # type: ignore[misc]

    def send_to_user(self, user_id: str | int | UUID, event_name: str, data: Any) -> Any:
        """Publish an event to every connection on which a user is signed in.

        :param user_id: the ``id`` that the ``user_auth`` handler gave, text, a number or a UUID.
        """
        return super().send_to_user(expect.user_id(user_id), event_name, data)  # type: ignore[misc]

    def terminate_user_connections(self, user_id: str | int | UUID) -> Any:
        """Close every connection on which a user is signed in. pusher-js does not connect again
        by itself then: the connection's state is ``disconnected``.

        :param user_id: the ``id`` that the ``user_auth`` handler gave, text, a number or a UUID.
        """
        user = expect.part_of_path(expect.user_id(user_id))
        return self._pusher_client.call(POST, f"users/{user}/terminate_connections", {})

    def channels_info(
        self, prefix_filter: str | None = None, attributes: Iterable[str] | None = ()
    ) -> Any:
        """Which channels have subscribers: ``{"channels": {name: {attribute: value}}}``.

        :param prefix_filter: only channels whose names begin so.
        :param attributes: ``"user_count"``, which needs the prefix ``presence-``, and
            ``"subscription_count"``.
        """
        params = expect.info(attributes or ())
        if prefix_filter:
            params["filter_by_prefix"] = expect.part_of_path(expect.channel(prefix_filter))
        return self._pusher_client.call(GET, "channels", params)

    def channel_info(self, channel: str, attributes: Iterable[str] | None = ()) -> Any:
        """The state of one channel: ``{"occupied": True, attribute: value}``.

        :param attributes: ``"user_count"`` for presence channels, ``"subscription_count"``, and
            ``"cache"`` for cache channels.
        """
        name = expect.part_of_path(expect.channel(channel))
        return self._pusher_client.call(GET, f"channels/{name}", expect.info(attributes or ()))

    def users_info(self, channel: str) -> Any:
        """Who is on a presence channel: ``{"users": [{"id": "7"}, ...]}``."""
        name = expect.part_of_path(expect.channel(channel))
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
        name = expect.channel(channel)
        if rules.is_encrypted(name):
            self._pusher_client.expect_master_key(name)
        return self.sign_subscription(name, expect.socket_id(socket_id), custom_data)

    def sign_subscription(
        self, channel: str, socket_id: str, custom_data: Mapping[str, Any] | None = None
    ) -> dict[str, str]:
        """What :meth:`authenticate` does when it has checked the channel and the socket id."""
        data = () if custom_data is None else (Keys(custom_data),)
        answer: dict[str, Any] = super().authenticate(channel, socket_id, *data)  # type: ignore[misc]
        if data:
            expect.no_nan(answer.get("channel_data", ""))
        if "shared_secret" in answer:
            answer["shared_secret"] = expect.text(answer["shared_secret"], "A shared secret")
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
        socket_id = expect.socket_id(socket_id)
        data = Keys(user_data) if isinstance(user_data, Mapping) else user_data
        answer: dict[str, str] = super().authenticate_user(socket_id, data)  # type: ignore[misc]
        expect.no_nan(answer["user_data"])
        return answer

    def validate_webhook(self, key: str | None, signature: str | None, body: str | bytes) -> Any:
        """A webhook's content where key, signature and time are right, else None. The routes of
        the extension do this by themselves."""
        if not (key and signature and signature.isascii()):  # else it is none, or an error
            return None
        return super().validate_webhook(key, signature, body)  # type: ignore[misc]


def api_of(client: Client) -> Api:
    """What a client calls the API with, for the rooms that publish, defer and record."""
    return client._pusher_client

"""Who is connected, subscribed, present and signed in, and what happens when that changes.

Nothing here reads or writes a socket, looks at the time, or runs by itself: a clock and an observer
are given to it, and each peer brings a way to be sent a frame.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from _flask_pusher import rules

from . import wire
from .options import FEATURES

SMALL_CHANNEL = 100  # subscribers; above that, the count is announced at intervals
COUNT_INTERVAL = 5  # seconds
MAX_CACHED = 1000  # channels


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def time(self) -> float: ...
    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer: ...


class Happening(NamedTuple):
    """Something that a developer wants to see.

    ``data`` is what belongs to it and is long: an event's data, or a webhook's events.
    """

    kind: str
    text: str
    socket_id: str | None = None
    channel: str | None = None
    event: str | None = None
    data: str | None = None
    error: BaseException | None = None


WARNINGS = frozenset({"refused", "warning", "undelivered"})
"""The kinds of happenings that tell of something wrong."""


class Observer(Protocol):
    """Who is told what happens."""

    def happened(self, happening: Happening) -> None:
        """Show it to the developer."""

    def tell_application(self, event: dict[str, object]) -> None:
        """Send the event of a webhook."""


class Limits(NamedTuple):
    """What the hosted service allows, unless a test wants less or more."""

    members_per_channel: int = rules.MEMBERS_PER_CHANNEL
    user_info_bytes: int = rules.USER_INFO_BYTES
    event_bytes: int = rules.EVENT_BYTES
    client_events_per_second: int = rules.CLIENT_EVENTS_PER_SECOND
    cache_seconds: float = rules.CACHE_SECONDS
    activity_timeout: float = rules.ACTIVITY_SECONDS
    pong_timeout: float = rules.PONG_SECONDS
    webhook_delay: float = rules.WEBHOOK_DELAY_SECONDS
    without: frozenset[str] = frozenset()  # of FEATURES


class Credentials:
    """The one application that a server knows, and what its secret signs.

    ``path`` is what the paths of its requests have before ``/apps`` and ``/app``: usually nothing.
    """

    def __init__(self, app_id: str, key: str, secret: str, path: str = "") -> None:
        self.app_id = app_id
        self.key = key
        self.path = path
        self._hmac = hmac.new(secret.encode(), digestmod=hashlib.sha256)

    def sign(self, text: str | bytes) -> str:
        signer = self._hmac.copy()
        signer.update(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return signer.hexdigest()

    def verify(self, text: str | bytes, signature: str) -> bool:
        return hmac.compare_digest(
            self.sign(text).encode(), signature.encode("utf-8", "surrogatepass")
        )

    def verify_token(self, text: str, token: str) -> bool:
        """Verify ``KEY:SIGNATURE``, as the authorisation route answers it."""
        return token.startswith(self.key + ":") and self.verify(text, token[len(self.key) + 1 :])


class Peer:
    """A connection, as far as the state is concerned."""

    __slots__ = ("channels", "socket_id", "user", "watchlist")

    def __init__(self, socket_id: str) -> None:
        self.socket_id = socket_id
        self.channels: dict[str, str | None] = {}  # and the user id on presence channels
        self.user: Member | None = None
        self.watchlist: list[str] = []

    def send(self, frame: bytes) -> None:
        """Hand over a frame, without waiting and without changing the state meanwhile."""
        raise NotImplementedError


class Member(NamedTuple):
    """A user, and what the others on a channel may know of that user."""

    user_id: str
    user_info: object


class RefusedError(Exception):
    """A subscription that is refused, with the reason as its text."""

    def __init__(self, reason: str, kind: str = "AuthError", status: int = 401) -> None:
        super().__init__(reason)
        self.kind = kind
        self.status = status


class Event(NamedTuple):
    """What an application triggers."""

    name: str
    channels: list[str]
    data: str
    socket_id: str | None = None
    info: frozenset[str] = frozenset()


class _CachedEvent(NamedTuple):
    name: str
    data: str
    expires: float


class Channel:
    """A channel that somebody is subscribed to."""

    __slots__ = ("announcement", "connections", "members", "name", "subscribers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscribers: dict[Peer, None] = {}
        self.members: dict[str, object] = {}  # and their user_info
        self.connections: dict[str, int] = {}  # of each member
        self.announcement: Timer | None = None


class State:
    """Connections, channels and users of one application."""

    def __init__(self, clock: Clock, observer: Observer, limits: Limits) -> None:
        self.limits = limits
        self.peers: dict[str, Peer] = {}
        self.recent_socket_ids: deque[str] = deque(maxlen=100)
        self.channels: dict[str, Channel] = {}
        self.users: dict[str, dict[Peer, None]] = {}
        self._clock = clock
        self._observer = observer
        self._cache: dict[str, _CachedEvent] = {}
        self._missed: set[str] = set()  # empty cache channels that the application knows of
        self._leaving: dict[tuple[str, str | None], Timer] = {}  # channels, and members of them
        self._watchers: dict[str, dict[Peer, None]] = {}
        self._used: set[str] = set()  # of FEATURES

    def note(self, kind: str, text: str, peer: Peer | None = None, **about: Any) -> None:
        """Tell the developer what happened."""
        socket_id = None if peer is None else peer.socket_id
        self._observer.happened(Happening(kind, text, socket_id, **about))

    def use(self, feature: str) -> bool:
        """Whether the server has a feature, of whose first use the developer is told."""
        is_there = feature not in self.limits.without
        if is_there and feature not in self._used:
            self._used.add(feature)
            text = f"{FEATURES[feature]} have to be switched on in the app's settings"
            self.note("hosted", f"On the hosted service, {text}")
        return is_there

    def _tell_application(self, name: str, channel: str, **fields: object) -> None:
        if not rules.is_user_channel(channel):
            self._observer.tell_application({"name": name, "channel": channel, **fields})

    def _tell_later(self, name: str, channel: str, user_id: str | None = None) -> None:
        """Tell the application that a channel or a member is gone, who may be back by then."""

        def tell() -> None:
            del self._leaving[channel, user_id]
            self._tell_application(name, channel, **_by(user_id))

        timer = self._clock.call_later(self.limits.webhook_delay, tell)
        self._leaving[channel, user_id] = timer

    def _is_back(self, channel: str, user_id: str | None = None) -> bool:
        """Whether the application has not been told yet that they were gone, and will not be."""
        timer = self._leaving.pop((channel, user_id), None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    # Connections

    def connect(self, peer: Peer, whence: str) -> None:
        self.peers[peer.socket_id] = peer
        self.recent_socket_ids.append(peer.socket_id)
        self.note("connect", f"{peer.socket_id} from {whence}", peer)

    def disconnect(self, peer: Peer) -> None:
        """Forget a connection that is gone, and tell who needs to know."""
        if self.peers.pop(peer.socket_id, None) is None:
            return
        for name in list(peer.channels):
            self.unsubscribe(peer, name)
        self._sign_out(peer)
        self.note("disconnect", peer.socket_id, peer)

    # Channels

    def subscribe(self, peer: Peer, name: str, member: Member | None = None) -> None:
        """Add an authorised connection to a channel; as a member, where it is a presence one.

        :raises RefusedError: the channel or the member would break a limit.
        """
        if member is not None:
            self._check_member(name, member)
        self.warn_of_length(name, peer)
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name)
            if not self._is_back(name):
                self._tell_application("channel_occupied", name)
        user_id = None if member is None else member.user_id
        channel.subscribers[peer] = None
        peer.channels[name] = user_id
        self.note("subscribe", f"{peer.socket_id} to {name}{_as(user_id)}", peer, channel=name)
        if member is None:
            peer.send(wire.message("pusher_internal:subscription_succeeded", name, data="{}"))
        else:
            self._add_member(channel, peer, member)
        self._announce_count(channel)
        if rules.is_cache(name):
            self._replay(name, peer)

    def unsubscribe(self, peer: Peer, name: str) -> None:
        """Take a subscribed connection from a channel."""
        channel = self.channels[name]
        user_id = peer.channels.pop(name)
        del channel.subscribers[peer]
        text = f"{peer.socket_id} from {name}{_as(user_id)}"
        self.note("unsubscribe", text, peer, channel=name)
        if user_id is not None:
            self._remove_member(channel, user_id)
        self._announce_count(channel)
        if not channel.subscribers:
            del self.channels[name]
            self._missed.discard(name)
            self._tell_later("channel_vacated", name)

    def warn_of_length(self, name: str, peer: Peer | None = None) -> None:
        if len(name) > rules.HOSTED_NAME_LENGTH and not rules.is_user_channel(name):
            text = (
                f"The name of {name} has {len(name)} characters, and the hosted service takes"
                f" {rules.HOSTED_NAME_LENGTH}"
            )
            self.note("warning", text, peer, channel=name)

    def _check_member(self, name: str, member: Member) -> None:
        size = 0 if member.user_info is None else wire.byte_length(member.user_info)
        if size > self.limits.user_info_bytes:
            raise RefusedError(
                f"user_info of {member.user_id} is {size} bytes, over"
                f" {self.limits.user_info_bytes}",
                "LimitReached",
                4301,
            )
        channel = self.channels.get(name)
        members = channel.members if channel else {}
        if member.user_id not in members and len(members) >= self.limits.members_per_channel:
            raise RefusedError(
                f"{name} has {len(members)} members, and no more are allowed",
                "LimitReached",
                4100,
            )

    def _add_member(self, channel: Channel, peer: Peer, member: Member) -> None:
        user_id = member.user_id
        if user_id not in channel.members:
            channel.members[user_id] = member.user_info
            if not self._is_back(channel.name, user_id):
                self._tell_application("member_added", channel.name, user_id=user_id)
            data = wire.to_json({"user_id": user_id, "user_info": member.user_info})
            added = wire.message("pusher_internal:member_added", channel.name, data=data)
            _send(channel, added, sparing=peer.socket_id)
        channel.connections[user_id] = channel.connections.get(user_id, 0) + 1
        infos = channel.members
        presence = {"ids": list(infos), "hash": infos, "count": len(infos)}
        data = wire.to_json({"presence": presence})
        event = "pusher_internal:subscription_succeeded"
        peer.send(wire.message(event, channel.name, data=data))

    def _remove_member(self, channel: Channel, user_id: str) -> None:
        channel.connections[user_id] -= 1
        if channel.connections[user_id] == 0:
            del channel.connections[user_id]
            del channel.members[user_id]
            self._tell_later("member_removed", channel.name, user_id)
            data = wire.to_json({"user_id": user_id})
            _send(channel, wire.message("pusher_internal:member_removed", channel.name, data=data))

    # Subscription counts

    def _announce_count(self, channel: Channel) -> None:
        """Tell a channel's subscribers how many they are, less often when they are many."""
        if (
            rules.is_presence(channel.name)
            or rules.is_user_channel(channel.name)
            or "subscription-count" in self.limits.without
        ):
            return
        if not channel.subscribers and channel.announcement is not None:
            channel.announcement.cancel()
            channel.announcement = None
        if channel.announcement is None:
            count = len(channel.subscribers)
            self._announce(channel, count)
            if count > SMALL_CHANNEL:
                channel.announcement = self._clock.call_later(
                    COUNT_INTERVAL, lambda: self._announce_count_late(channel, count)
                )

    def _announce(self, channel: Channel, count: int) -> None:
        data = wire.to_json({"subscription_count": count})
        _send(channel, wire.message("pusher_internal:subscription_count", channel.name, data=data))
        self._tell_application("subscription_count", channel.name, subscription_count=count)

    def _announce_count_late(self, channel: Channel, announced: int) -> None:
        channel.announcement = None
        if len(channel.subscribers) != announced:
            self._announce_count(channel)

    # Events

    def trigger(self, event: Event) -> None:
        """Send what the application has triggered."""
        for name in event.channels:
            self.warn_of_length(name)
            if rules.is_cache(name):
                self._remember(name, event)
            frame = wire.message(event.name, name, data=event.data)
            self._publish(name, event.name, event.data, frame, sparing=event.socket_id)

    def relay(self, peer: Peer, name: str, event: str, fields: dict[str, Any]) -> None:
        """Pass a client event on to the channel's other subscribers.

        :param fields: ``data``, as it came, if any came.
        """
        user_id = peer.channels[name]
        by_user = _by(user_id)
        data = fields.get("data")
        text = data if isinstance(data, str) else wire.to_json(data)
        frame = wire.message(event, name, **fields, **by_user)
        self._publish(name, event, text, frame, sparing=peer.socket_id, peer=peer)
        self._tell_application(
            "client_event", name, event=event, data=text, socket_id=peer.socket_id, **by_user
        )

    def _publish(
        self,
        name: str,
        event: str,
        data: str,
        frame: bytes,
        sparing: str | None,
        peer: Peer | None = None,
    ) -> None:
        channel = self.channels.get(name)
        if channel is not None:
            _send(channel, frame, sparing)
        count = 0 if channel is None else len(channel.subscribers)
        text = f"{event} to {name} ({count} subscriber{'' if count == 1 else 's'})"
        self.note("event", text, peer, channel=name, event=event, data=data)

    # Cache channels

    def _remember(self, name: str, event: Event) -> None:
        """Keep the last event of a cache channel for those who subscribe later."""
        self._cache.pop(name, None)
        self._missed.discard(name)
        expires = self._clock.time() + self.limits.cache_seconds
        self._cache[name] = _CachedEvent(event.name, event.data, expires)
        if len(self._cache) > MAX_CACHED:
            del self._cache[next(iter(self._cache))]

    def cached(self, name: str) -> dict[str, Any] | None:
        """The data of a cache channel's last event, and the seconds for which it is kept."""
        cached = self._recall(name)
        if cached is None:
            return None
        return {"data": cached.data, "ttl": int(cached.expires - self._clock.time())}

    def _recall(self, name: str) -> _CachedEvent | None:
        cached = self._cache.get(name)
        if cached is not None and cached.expires <= self._clock.time():
            del self._cache[name]
            return None
        return cached

    def _replay(self, name: str, peer: Peer) -> None:
        cached = self._recall(name)
        if cached is not None:
            peer.send(wire.message(cached.name, name, data=cached.data))
        else:
            peer.send(wire.message("pusher:cache_miss", name))
            self.note("cache miss", f"{peer.socket_id} on {name}", peer, channel=name)
            if name not in self._missed and self.use("cache-events"):
                self._missed.add(name)
                self._tell_application("cache_miss", name)

    # Users

    def sign_in(self, peer: Peer, user: Member, watchlist: Iterable[str]) -> None:
        """Make an authenticated connection a user's, and tell those who watch that user."""
        self._unwatch(peer)
        peer.user = user
        peer.watchlist = list(dict.fromkeys(watchlist))
        if user.user_id not in self.users:
            self._tell_watchers(user.user_id, "online")
        self.users.setdefault(user.user_id, {})[peer] = None
        for watched in peer.watchlist:
            self._watchers.setdefault(watched, {})[peer] = None
        self.note("sign in", f"{peer.socket_id}{_as(user.user_id)}", peer)

    def tell_watched(self, peer: Peer) -> None:
        """Tell a user who has signed in which of the watched are online, and which are not."""
        if peer.watchlist:
            online = [user_id for user_id in peer.watchlist if user_id in self.users]
            offline = [user_id for user_id in peer.watchlist if user_id not in self.users]
            peer.send(_watchlist_events(online=online, offline=offline))

    def _sign_out(self, peer: Peer) -> None:
        if peer.user is None:
            return
        self._unwatch(peer)
        user_id = peer.user.user_id
        del self.users[user_id][peer]
        if not self.users[user_id]:
            del self.users[user_id]
            self._tell_watchers(user_id, "offline")

    def _unwatch(self, peer: Peer) -> None:
        for watched in peer.watchlist:
            del self._watchers[watched][peer]
            if not self._watchers[watched]:
                del self._watchers[watched]

    def _tell_watchers(self, user_id: str, change: str) -> None:
        frame = _watchlist_events(**{change: [user_id]})
        for peer in self._watchers.get(user_id, ()):
            peer.send(frame)


def _send(channel: Channel, frame: bytes, sparing: str | None = None) -> None:
    for peer in channel.subscribers:
        if peer.socket_id != sparing:
            peer.send(frame)


def _watchlist_events(**changes: list[str]) -> bytes:
    events = [{"name": name, "user_ids": ids} for name, ids in changes.items() if ids]
    return wire.message("pusher_internal:watchlist_events", data=wire.to_json({"events": events}))


def _by(user_id: str | None) -> dict[str, str]:
    """The field of a webhook or a frame that names a member."""
    return {} if user_id is None else {"user_id": user_id}


def _as(user_id: str | None) -> str:
    return "" if user_id is None else f" as user {user_id}"

"""One connection, from its welcome to its end: what a peer sends, and what that means."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from aiohttp import web
from wsproto.frame_protocol import Opcode

from _flask_pusher import rules

from . import wire
from .state import Clock, Credentials, Member, Peer, RefusedError, State, Timer

PROTOCOLS = ("5", "6", "7")  # they differ in nothing that a server does
CLOSE_SECONDS = 1  # that a peer is given to close its side


class _FrameError(Exception):
    """A frame that is refused, with the reason as its text."""

    def __init__(self, reason: str, code: int | None = None, channel: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.channel = channel


class _SignInError(Exception):
    """A sign-in that is refused, which ends the connection."""


class Connection(Peer, asyncio.Protocol):
    """One browser, or whatever else speaks the protocol."""

    __slots__ = (
        "_client_events",
        "_client_events_since",
        "_clock",
        "_credentials",
        "_heard",
        "_limits",
        "_loop",
        "_lost",
        "_pinged",
        "_reader",
        "_state",
        "_timer",
        "_wire",
    )

    def __init__(
        self,
        state: State,
        credentials: Credentials,
        clock: Clock,
        transport: wire.Transport,
        lost: Callable[[Connection], object],
    ) -> None:
        super().__init__(f"{secrets.randbelow(10**9)}.{secrets.randbelow(10**9)}")
        self._state = state
        self._limits = state.limits
        self._credentials = credentials
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._reader: wire.Reader | None = wire.Reader()
        self._wire = wire.Wire(transport)
        self._lost = lost
        self._heard = clock.time()
        self._pinged = False
        self._timer: Timer | None = None
        self._client_events = 0
        self._client_events_since = 0.0

    def begin(self, request: web.Request) -> None:
        """Welcome the peer, or say why not."""
        refusal = self._why_not(request)
        if refusal is None:
            self._welcome(request)
        else:
            code, reason = refusal
            self._state.note("refused", f"connection from {request.remote}: {reason} ({code})")
            self.close(code, reason)

    def data_received(self, data: bytes) -> None:
        self._heard = self._clock.time()
        self._pinged = False
        if self._reader is None:
            return
        try:
            for opcode, payload in self._reader.feed(data):
                if opcode is Opcode.CLOSE:
                    self._wire.close_back(payload[0])
                    self._reader = None
                    self._end()
                    break
                if not self._wire.is_closed:
                    self._receive(opcode, payload)
        except wire.BrokenError as error:
            self._break_off(error)

    def connection_lost(self, _: Exception | None) -> None:
        self.hang_up()  # which TLS wants from this side too, before Python 3.11
        self._stop_timer()
        self._state.disconnect(self)
        self._lost(self)

    def _why_not(self, request: web.Request) -> tuple[int, str] | None:
        path, key = request.path, self._credentials.key
        base = self._credentials.path + "/app/"
        protocol = request.query.get("protocol")
        asked = path[len(base) :]
        if not path.startswith(base) or "/" in asked:
            return 4005, f"Path {path} not found, connect to {base}KEY"
        if asked != key:
            return 4001, f"No application has the key {asked}, it is {key} here"
        if protocol is None:
            return 4008, "No protocol version supplied"
        if not protocol.isdecimal() or not protocol.isascii():
            return 4006, f"Protocol version {protocol} is not a number"
        if protocol not in PROTOCOLS:
            return 4007, f"Protocol version {protocol} is not supported, use 7"
        return None

    def _welcome(self, request: web.Request) -> None:
        query, seconds = request.query, self._limits.activity_timeout
        version = f"{query.get('client', '?')} {query.get('version', '?')}"
        self._state.connect(self, f"{request.remote} ({version})")
        welcome = wire.to_json({"socket_id": self.socket_id, "activity_timeout": seconds})
        self.send(wire.message("pusher:connection_established", data=welcome))
        self._timer = self._clock.call_later(seconds, self._check_activity)

    # What is sent, and the end

    def send(self, frame: bytes) -> None:
        """Hand the peer a frame without waiting, or give up on a peer that has stopped reading."""
        if not self._wire.send(frame):
            self.close(4100, "Too slow: more than 1 MiB of events are waiting to be read")

    def close(self, code: int, reason: str) -> None:
        """Tell the peer why and close; the state forgets it when the current event is out."""
        if not self._wire.is_closed:
            self._wire.refuse(code, reason)
            self._end()
            if self.socket_id in self._state.peers:
                self._state.note("close", f"{self.socket_id}: {reason} ({code})", self)

    def can_hang_up(self, quiet_seconds: float) -> bool:
        """Whether the reason is out, and the peer sends nothing that would collide with the end."""
        is_told = self._wire.is_closed and self._wire.is_flushed
        return is_told and self._clock.time() - self._heard >= quiet_seconds

    def hang_up(self) -> None:
        self._wire.hang_up()

    def _break_off(self, error: wire.BrokenError) -> None:
        """Close on a peer that speaks no WebSocket, whose frames nobody can read any more."""
        self._reader = None
        if not self._wire.is_closed:
            self._wire.close(error.code, str(error))
            self._end()
            self._refuse(str(error))

    def _end(self) -> None:
        """Leave the peer some time to read the reason; what it still sends is read and dropped."""
        self._stop_timer()
        self._loop.call_soon(self._state.disconnect, self)
        self._loop.call_later(CLOSE_SECONDS, self.hang_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_activity(self) -> None:
        """Ping a silent peer, and give up on one that stays silent after that."""
        if self._pinged:
            seconds = self._limits.pong_timeout
            self.close(4201, f"Pong reply not received in {seconds:g} seconds")
            return
        wait = self._limits.activity_timeout - (self._clock.time() - self._heard)
        self._pinged = wait <= 0
        if self._pinged:
            wait = self._limits.pong_timeout
        self._timer = self._clock.call_later(wait, self._check_activity)
        if self._pinged:
            self.send(wire.PUSHER_PING)

    # What the peer sends

    def _receive(self, opcode: Opcode, payload: Any) -> None:
        try:
            if opcode is Opcode.TEXT:
                self._handle(payload)
            elif opcode is Opcode.BINARY:
                raise _FrameError("Binary frames are not supported, send text")
            elif opcode is Opcode.PING:
                self.send(wire.pong(payload))
        except _FrameError as refusal:
            self._refuse(str(refusal), refusal.channel)
            self.send(wire.error(refusal.code, str(refusal), refusal.channel))

    def _refuse(self, reason: str, channel: str | None = None) -> None:
        self._state.note("refused", f"{self.socket_id}: {reason}", self, channel=channel)

    def _handle(self, text: str) -> None:
        frame = _parse(text)
        event: str = frame["event"]
        data = frame.get("data")
        if event == "pusher:ping":
            self.send(wire.PUSHER_PONG)
        elif event == "pusher:pong":
            pass  # having been heard is all that counts
        elif event == "pusher:subscribe":
            self._subscribe(_fields(event, data))
        elif event == "pusher:unsubscribe":
            self._unsubscribe(_fields(event, data))
        elif event == "pusher:signin":
            self._sign_in(_fields(event, data))
        elif event.startswith("client-"):
            self._relay(event, frame)
        else:
            raise _FrameError(f"Clients send no event {event}: their own begin with client-", 4301)

    # Channels

    def _subscribe(self, data: dict[str, Any]) -> None:
        name = data.get("channel")
        if not isinstance(name, str):
            raise _FrameError("pusher:subscribe names no channel")
        if name in self.channels:
            raise _FrameError(f"Existing subscription to channel {name}", channel=name)
        try:
            self._state.subscribe(self, name, self._authorise(name, data))
        except RefusedError as refusal:
            self._refuse(f"subscription to {name}: {refusal}", name)
            error = {"type": refusal.kind, "error": str(refusal), "status": refusal.status}
            self.send(wire.message("pusher:subscription_error", name, data=error))

    def _unsubscribe(self, data: dict[str, Any]) -> None:
        name = data.get("channel")
        if not isinstance(name, str) or name not in self.channels:
            raise _FrameError(f"No subscription to channel {name}")
        self._state.unsubscribe(self, name)

    def _authorise(self, name: str, data: dict[str, Any]) -> Member | None:
        """Check that the peer may subscribe, and find out as which member of a presence channel.

        :raises RefusedError: it may not.
        """
        if rules.is_user_channel(name):
            user_id = name[len(rules.SERVER_TO_USER) :]
            if self.user is None or self.user.user_id != user_id:
                raise RefusedError(f"Only user {user_id}, signed in, may")
            return None
        if not rules.is_channel_name(name):
            raise RefusedError(
                f"Invalid channel name {name[: rules.NAME_LENGTH]}: up to {rules.NAME_LENGTH} of"
                f" {rules.CHARACTERS} make one",
                "InvalidChannel",
                400,
            )
        if not rules.needs_authorisation(name):
            return None
        channel_data = data.get("channel_data")
        if channel_data is not None and not isinstance(channel_data, str):
            raise RefusedError("channel_data is not a string of JSON")
        self._verify(name, data.get("auth"), channel_data)
        return self._member(channel_data) if rules.is_presence(name) else None

    def _verify(self, name: str, auth: object, channel_data: str | None) -> None:
        covered = name if channel_data is None else f"{name}:{channel_data}"
        if not isinstance(auth, str) or not auth:
            raise RefusedError(
                "The channel needs authorisation, and the subscription carries no auth"
            )
        if not self._credentials.verify_token(f"{self.socket_id}:{covered}", auth):
            raise RefusedError(self._why_invalid(name, channel_data, covered, auth))

    def _why_invalid(self, name: str, channel_data: str | None, covered: str, auth: str) -> str:
        """Find out what the signature would have been right for."""
        key, _, signature = auth.rpartition(":")
        if key != self._credentials.key:
            return f"auth is for key {key}, this server's application has {self._credentials.key}"

        def is_for(text: str) -> bool:
            return self._credentials.verify(text, signature)

        for socket_id in self._state.recent_socket_ids:
            if is_for(f"{socket_id}:{covered}"):
                return f"The signature is for another socket id, {socket_id}, not {self.socket_id}"
        if channel_data is not None and is_for(f"{self.socket_id}:{name}"):
            return "The signature does not cover the channel_data that came with it"
        for other in list(self._state.channels)[:100]:
            if is_for(f"{self.socket_id}:{other}"):
                return f"The signature is for another channel, {other}"
        without = " without channel_data" if rules.is_presence(name) and not channel_data else ""
        return (
            f"The signature is not the HMAC-SHA256 of {self.socket_id}:{covered}{without} by this"
            " application's secret: do both sides have the same secret?"
        )

    def _member(self, channel_data: str | None) -> Member:
        """Read who joins a presence channel: a signed-in user may leave it to the sign-in."""
        if channel_data is None:
            if self.user is None:
                raise RefusedError("A presence channel needs channel_data, or a sign-in")
            return self.user
        try:
            member = wire.parse_json(channel_data)
        except ValueError as error:
            raise RefusedError(f"channel_data is not JSON: {error}") from None
        if not isinstance(member, dict):
            raise RefusedError("channel_data is not a JSON object")
        user_id = member.get("user_id")
        if isinstance(user_id, int) and not isinstance(user_id, bool):
            user_id = str(user_id)
        longest = rules.HOSTED_USER_ID_LENGTH
        if not isinstance(user_id, str) or not 0 < len(user_id) <= longest:
            raise RefusedError(
                f"channel_data needs a user_id: a text of 1 to {longest} characters"
            )
        return Member(user_id, _user_info(member, RefusedError))

    def _relay(self, event: str, frame: dict[str, Any]) -> None:
        """Pass a client event on, if it keeps the rules."""
        name = frame.get("channel")
        fields = {"data": frame["data"]} if "data" in frame else {}
        if not isinstance(name, str) or name not in self.channels:
            raise _FrameError(f"Client event on {name}, which this connection is not on", 4301)
        if not self._state.use("client-events"):
            raise _FrameError("Client events are not switched on for this app", 4301, name)
        if not rules.carries_client_events(name):
            raise _FrameError("Client events are for private and presence channels", 4301, name)
        if len(event) > rules.EVENT_NAME_LENGTH:
            longest = rules.EVENT_NAME_LENGTH
            raise _FrameError(f"The event's name has over {longest} characters", 4301, name)
        if wire.byte_length(frame.get("data")) > self._limits.event_bytes:
            largest = self._limits.event_bytes
            raise _FrameError(f"The event's data is over {largest} bytes", 4301, name)
        if self._is_hasty():
            most = self._limits.client_events_per_second
            raise _FrameError(f"Over {most} client events in a second", 4301, name)
        self._state.relay(self, name, event, fields)

    def _is_hasty(self) -> bool:
        if self._heard - self._client_events_since >= 1:
            self._client_events_since = self._heard
            self._client_events = 0
        self._client_events += 1
        return self._client_events > self._limits.client_events_per_second

    # Users

    def _sign_in(self, data: dict[str, Any]) -> None:
        try:
            user = self._authenticate(data.get("auth"), data.get("user_data"))
            member = Member(user["id"], _user_info(user, _SignInError))
        except _SignInError as refusal:
            self._refuse(f"sign-in: {refusal}")
            self.close(4009, f"Unauthorised: {refusal}")
            return
        if self.user is not None and self.user.user_id != member.user_id:
            user_id = self.user.user_id
            raise _FrameError(f"This connection is signed in already, as user {user_id}")
        watchlist, most = user.get("watchlist", []), rules.USERS_PER_WATCHLIST
        is_watching = bool(watchlist) and self._state.use("watchlist-events")
        self._state.sign_in(self, member, watchlist[:most] if is_watching else ())
        success = wire.to_json({"user_data": data["user_data"]})
        self.send(wire.message("pusher:signin_success", data=success))
        if is_watching and len(watchlist) > most:
            reason = f"A watchlist of {len(watchlist)} users: the first {most} are watched"
            self._state.note("warning", f"{self.socket_id}: {reason}", self)
            self.send(wire.error(4302, reason))
        self._state.tell_watched(self)

    def _authenticate(self, auth: object, user_data: object) -> dict[str, Any]:
        if not isinstance(auth, str) or not isinstance(user_data, str):
            raise _SignInError("pusher:signin needs auth and user_data, both text")
        if not self._credentials.verify_token(f"{self.socket_id}::user::{user_data}", auth):
            raise _SignInError(self._why_unauthenticated(user_data, auth))
        try:
            user = wire.parse_json(user_data)
        except ValueError as error:
            raise _SignInError(f"user_data is not JSON: {error}") from None
        if not isinstance(user, dict) or not _is_user_id(user.get("id")):
            raise _SignInError(
                f"user_data needs an id: up to {rules.HOSTED_USER_ID_LENGTH} of {rules.CHARACTERS}"
            )
        if not _is_watchlist(user.get("watchlist", [])):
            raise _SignInError("watchlist is not a list of user ids")
        return user

    def _why_unauthenticated(self, user_data: str, auth: str) -> str:
        for socket_id in self._state.recent_socket_ids:
            if self._credentials.verify_token(f"{socket_id}::user::{user_data}", auth):
                return f"the signature is for another socket id, {socket_id}"
        return "the signature is not by this key and secret"


def _parse(text: str) -> dict[str, Any]:
    try:
        frame = wire.parse_json(text)
    except ValueError as error:
        raise _FrameError(f"The frame is not JSON: {error}") from None
    if not isinstance(frame, dict) or not isinstance(frame.get("event"), str):
        raise _FrameError("The frame is not a JSON object with an event's name in event")
    return frame


def _fields(event: str, data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _FrameError(f"The data of {event} is not a JSON object")
    return data


def _user_info(user: dict[str, Any], refusal: type[Exception]) -> object:
    user_info = user.get("user_info")
    if user_info is not None and not isinstance(user_info, dict):
        raise refusal("user_info is not a JSON object")
    return user_info


def _is_user_id(value: object) -> bool:
    return rules.is_user_id(value) and len(str(value)) <= rules.HOSTED_USER_ID_LENGTH


def _is_watchlist(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_user_id, value))

"""The HTTP API: what the application's client calls, each request signed with its secret."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from operator import itemgetter
from typing import Any

from aiohttp import web

from _flask_pusher import rules

from . import wire
from .connection import Connection
from .printable import printable
from .state import Credentials, Event, State


class Api:
    """The routes below ``/apps/APP_ID``, and before it the path that the settings have.

    A refusal is an :exc:`aiohttp.web.HTTPException` whose text says what is wrong.
    """

    def __init__(self, state: State, credentials: Credentials) -> None:
        self._state = state
        self._credentials = credentials

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        app = self._credentials.path + "/apps/{app_id}"
        return [
            web.post(app + "/events", self._signed(self.trigger)),
            web.post(app + "/batch_events", self._signed(self.trigger_batch)),
            web.get(app + "/channels", self._signed(self.channels)),
            web.get(app + "/channels/{channel}", self._signed(self.channel)),
            web.get(app + "/channels/{channel}/users", self._signed(self.users)),
            web.post(app + "/users/{user_id}/terminate_connections", self._signed(self.terminate)),
        ]

    # Signatures

    def _signed(
        self, answer: Callable[[web.Request], Awaitable[dict[str, Any]]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                self._authenticate(request, await _read(request))
                return web.json_response(await answer(request))
            except web.HTTPException as refusal:
                reason = str(refusal.text).rstrip()
                self._state.note("refused", f"{request.method} {request.path}: {reason}")
                raise

        return handle

    def _authenticate(self, request: web.Request, body: bytes) -> None:
        query, credentials = _query(request), self._credentials
        app_id = request.match_info["app_id"]
        if app_id != credentials.app_id:
            raise web.HTTPNotFound(text=line(f"No app {app_id} here, only {credentials.app_id}"))
        if query.get("auth_key") != credentials.key:
            given = query.get("auth_key")
            raise _unauthorised(f"auth_key is {given}, this app's key is {credentials.key}")
        if query.get("auth_version") != "1.0":
            raise _unauthorised("auth_version is not 1.0")
        _check_time(query.get("auth_timestamp", ""))
        _check_body(query.get("body_md5"), body)
        self._check_signature(request)

    def _check_signature(self, request: web.Request) -> None:
        pairs = sorted(_pairs(request), key=itemgetter(0))
        query = "&".join(f"{key}={value}" for key, value in pairs if key != "auth_signature")
        signature = _query(request).get("auth_signature", "")
        # Clients differ in whether they sign the path before they quote it, or after.
        paths = {request.path, request.rel_url.raw_path}
        texts = {f"{request.method}\n{path}\n{query}" for path in paths}
        if not any(self._credentials.verify(text, signature) for text in texts):
            raise _unauthorised(
                f"auth_signature is not the HMAC-SHA256 of {min(texts)!r} by this app's secret:"
                " do both sides have the same secret?"
            )

    # Events

    async def trigger(self, request: web.Request) -> dict[str, Any]:
        fields = _event_in_query(request)
        if not fields or await request.read():
            fields.update(await parse_body(request))
        event = self.parse_event(fields)
        self._state.trigger(event)
        return {"channels": self._info_of(event)} if event.info else {}

    async def trigger_batch(self, request: web.Request) -> dict[str, Any]:
        batch = (await parse_body(request)).get("batch")
        if not isinstance(batch, list):
            raise _bad_request("batch is not a list of events")
        if len(batch) > rules.EVENTS_PER_BATCH:
            raise _bad_request(f"A batch of {len(batch)} events, over {rules.EVENTS_PER_BATCH}")
        if any(isinstance(fields, dict) and "channels" in fields for fields in batch):
            raise _bad_request("Each entry of a batch has one channel, named by channel")
        events = [self.parse_event(fields) for fields in batch]
        for event in events:
            self._state.trigger(event)
        if not any(event.info for event in events):
            return {}
        return {"batch": [next(iter(self._info_of(event).values())) for event in events]}

    def parse_event(self, fields: object) -> Event:
        if not isinstance(fields, dict):
            raise _bad_request("An event is not a JSON object")
        name, data, socket_id = fields.get("name"), fields.get("data"), fields.get("socket_id")
        if not isinstance(name, str) or not 0 < len(name) <= rules.EVENT_NAME_LENGTH:
            raise _bad_request(f"name is not a text of 1 to {rules.EVENT_NAME_LENGTH} characters")
        if not isinstance(data, str):
            raise _bad_request("data is not a text: serialise it, as every client does")
        size, largest = wire.byte_length(data), self._state.limits.event_bytes
        if size > largest:
            reason = line(f"data of {name} is {size} bytes, over {largest}")
            raise web.HTTPRequestEntityTooLarge(largest, size, text=reason)
        if socket_id is not None and not rules.is_socket_id(socket_id):
            raise _bad_request(f"socket_id is not like 123.456: {socket_id}")
        channels, info = _parse_channels(fields), _parse_info(fields.get("info"))
        for channel in channels:
            _check_info(channel, info)
        return Event(name, channels, data, socket_id, info)

    def _info_of(self, event: Event) -> dict[str, dict[str, Any]]:
        return {name: self._attributes(name, event.info) for name in event.channels}

    # State

    async def channels(self, request: web.Request) -> dict[str, Any]:
        query = _query(request)
        prefix, info = query.get("filter_by_prefix", ""), _parse_info(query.get("info"))
        if "user_count" in info and not rules.is_presence(prefix):
            raise _bad_request("user_count needs filter_by_prefix to begin with presence-")
        return {
            "channels": {
                name: self._attributes(name, info)
                for name in self._state.channels
                if name.startswith(prefix) and not rules.is_user_channel(name)
            }
        }

    async def channel(self, request: web.Request) -> dict[str, Any]:
        name = _channel_in(request)
        info = _parse_info(_query(request).get("info"), also="cache")
        _check_info(name, info)
        return {"occupied": name in self._state.channels, **self._attributes(name, info)}

    async def users(self, request: web.Request) -> dict[str, Any]:
        name = _channel_in(request)
        if not rules.is_presence(name):
            raise _bad_request(f"Users are on presence channels, and {name} is none")
        channel = self._state.channels.get(name)
        members = channel.members if channel is not None else ()
        return {"users": [{"id": user_id} for user_id in members]}

    def _attributes(self, name: str, info: frozenset[str]) -> dict[str, Any]:
        channel = self._state.channels.get(name)
        attributes: dict[str, Any] = {}
        if "user_count" in info:
            attributes["user_count"] = len(channel.members) if channel is not None else 0
        if "subscription_count" in info and self._state.use("subscription-count"):
            count = len(channel.subscribers) if channel is not None else 0
            attributes["subscription_count"] = count
        if "cache" in info:
            attributes["cache"] = self._state.cached(name)
        return attributes

    async def terminate(self, request: web.Request) -> dict[str, Any]:
        for peer in self._state.users.get(request.match_info["user_id"], ()):
            if isinstance(peer, Connection):
                peer.close(4009, "Closed by the application")
        return {}


def line(text: str) -> str:
    """The one line that an answer holds."""
    return printable(text, length=1000) + "\n"


def _unauthorised(reason: str) -> web.HTTPException:
    return web.HTTPUnauthorized(text=line(reason))


def _bad_request(reason: str) -> web.HTTPException:
    return web.HTTPBadRequest(text=line(reason))


def _check_time(timestamp: str) -> None:
    if not re.fullmatch("[0-9]{1,12}", timestamp):
        raise _unauthorised("auth_timestamp is not a time in seconds")
    off = int(timestamp) - time.time()
    if abs(off) > rules.CLOCK_SKEW_SECONDS:
        raise _unauthorised(
            f"auth_timestamp is {abs(off):.0f} seconds off, at most {rules.CLOCK_SKEW_SECONDS} are"
            " allowed: do both clocks agree?"
        )


def _check_body(body_md5: str | None, body: bytes) -> None:
    if body_md5 is None:
        if body:
            raise _unauthorised("body_md5 is missing")
    elif not hmac.compare_digest(
        hashlib.md5(body, usedforsecurity=False).hexdigest().encode(),
        body_md5.encode("utf-8", "surrogatepass"),
    ):
        raise _unauthorised("body_md5 is not the MD5 of the body")


def _pairs(request: web.Request) -> list[tuple[str, str]]:
    """The parameters of the query string, whose names are signed in lower case."""
    return [(key.lower(), value) for key, value in request.query.items()]


def _query(request: web.Request) -> dict[str, str]:
    """The parameters of the query string; of one that is there twice, the first."""
    return dict(reversed(_pairs(request)))


def _event_in_query(request: web.Request) -> dict[str, Any]:
    """What the query string says of an event, as it may instead of the body."""
    fields: dict[str, Any] = {
        key: value
        for key, value in _query(request).items()
        if key in ("name", "data", "channel", "socket_id", "info")
    }
    channels = [value for key, value in _pairs(request) if key == "channels[]"]
    return {**fields, "channels": channels} if channels else fields


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except (web.RequestPayloadError, ConnectionError) as error:
        raise _bad_request(f"The body cannot be read: {error}") from None


async def parse_body(request: web.Request) -> dict[str, Any]:
    try:
        fields = wire.parse_json((await _read(request)).decode())
    except ValueError as error:
        raise _bad_request(f"The body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise _bad_request("The body is not a JSON object")
    return fields


def _parse_channels(fields: dict[str, Any]) -> list[str]:
    names = fields.get("channels", [fields["channel"]] if "channel" in fields else None)
    if not isinstance(names, list) or not names:
        raise _bad_request("channels is not a list of channels, nor channel one")
    if len(names) > rules.CHANNELS_PER_EVENT:
        raise _bad_request(f"{len(names)} channels, over {rules.CHANNELS_PER_EVENT}")
    for name in names:
        _check_name(name)
    return list(dict.fromkeys(names))


def _check_info(name: str, info: frozenset[str]) -> None:
    if "user_count" in info and not rules.is_presence(name):
        raise _bad_request(f"info: user_count is for presence channels, and {name} is none")
    if "cache" in info and not rules.is_cache(name):
        raise _bad_request(f"info: cache is for cache channels, and {name} is none")


def _parse_info(info: object, also: str = "user_count") -> frozenset[str]:
    if info is None or info == "":
        return frozenset()
    known = {"user_count", "subscription_count", also}
    asked = frozenset(info.split(",")) if isinstance(info, str) else frozenset([str(info)])
    if not asked <= known:
        raise _bad_request(f"info knows no {', '.join(sorted(asked - known))}")
    return asked


def _channel_in(request: web.Request) -> str:
    name = request.match_info["channel"]
    _check_name(name)
    return name


def _check_name(name: object) -> None:
    if not (
        rules.is_channel_name(name) or (isinstance(name, str) and rules.is_user_channel(name))
    ):
        raise _bad_request(f"Not a channel name: {name}")

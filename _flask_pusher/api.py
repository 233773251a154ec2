"""What calls the HTTP API and signs: the official client's two halves as one object, with checks,
sizes, splitting and paths of our own."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any

from pusher.authentication_client import AuthenticationClient
from pusher.crypto import encrypt
from pusher.http import POST, Request
from pusher.pusher_client import PusherClient
from pusher.requests import RequestsBackend

from _flask_pusher import expect, rules
from _flask_pusher.transport import Backend, Transport

MASTER_KEY = "PUSHER_ENCRYPTION_MASTER_KEY_BASE64"

_REQUIRED = {"channel", "name", "data"}
_KEYS = {*_REQUIRED, "socket_id", "info"}
Post = tuple[str, Mapping[str, Any]]
"""A resource of the API, and what is posted there."""


class Api(PusherClient, AuthenticationClient):  # type: ignore[misc]
    """``pusher.Pusher`` is a front of two clients, one that publishes and one that signs. Both are
    of one base, and take the same arguments: this is both."""

    def __init__(
        self, app_id: str, path: str, max_event_bytes: int | None, *arguments: Any, **options: Any
    ) -> None:
        if not rules.is_app_id(app_id):
            raise ValueError(f"An app's id is text of A-Z a-z 0-9 _ -; this is {app_id!r:.100}.")
        if options.get("backend") in (None, RequestsBackend):
            options["backend"] = Backend
        # The official client takes digits only for an id; self-hosted servers take more.
        super().__init__("0", *arguments, **options)
        self._app_id = app_id
        self.path = path
        self.max_event_bytes = max_event_bytes
        self.master_key: bytes | None = self._encryption_master_key
        self.info: dict[str, str] = {}
        """What is asked about the channels of a triggered event."""
        self.http: Transport = Transport(self.http)

    def expect_master_key(self, channel: str) -> bytes:
        if self.master_key is None:
            raise ValueError(f"{channel!r} needs {MASTER_KEY}, which is not set.")
        return self.master_key

    def move(self, host: str, port: int, ssl: bool) -> None:
        """Call another address from now on."""
        self._host, self._port, self._ssl = host, port, ssl

    def settled(self, address: tuple[str, int, bool]) -> Api:
        """The same at one address, whatever this one's comes to be, and unseen by observers."""
        other = copy.copy(self)
        other.move(*address)
        other.http = Transport(self.http.backend)
        other.http.observers = None
        return other

    def asking(self, info: Iterable[str]) -> Api:
        """The same, but what it triggers asks about the channels too: the official client's
        ``trigger`` has no argument for that."""
        other = copy.copy(self)
        other.info = expect.info(info)
        return other

    def trigger(
        self, channels: str | Iterable[str], event_name: str, data: Any, socket_id: Any = None
    ) -> Any:
        events = self.events(channels, event_name, data, socket_id)
        return self.publish([("events", {**event, **self.info}) for event in events])

    def trigger_batch(
        self, batch: Iterable[Mapping[str, Any]] = (), already_encoded: bool = False
    ) -> Any:
        events = [self._batched(event, already_encoded) for event in batch]
        parts = _parts(events, rules.EVENTS_PER_BATCH) or [[]]
        return self.publish([("batch_events", {"batch": part}) for part in parts])

    def events(
        self,
        channels: str | Iterable[str],
        event_name: str,
        data: Any,
        socket_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """The checked and serialised event, as often as its channels take calls."""
        names = list(dict.fromkeys(map(expect.channel, expect.channels(channels))))
        if len(names) > 1 and any(map(rules.is_encrypted, names)):
            raise ValueError(
                f"An encrypted channel must be an event's only one; here are {len(names)}:"
                " trigger the event for each channel."
            )
        event = self._event(event_name, self._serialised(names[0], data), socket_id)
        return [{**event, "channels": part} for part in _parts(names, rules.CHANNELS_PER_EVENT)]

    def _batched(self, event: Mapping[str, Any], already_encoded: bool) -> dict[str, Any]:
        if not isinstance(event, Mapping):
            raise TypeError(f"A batch's event should be a dict; one is {expect.kind(event)}.")
        if not _REQUIRED <= event.keys() <= _KEYS:
            raise ValueError(
                "An event of a batch has the keys channel, name and data, and if wanted socket_id"
                f" and info; one has {', '.join(map(repr, event))}."
            )
        channel, data = expect.channel(event["channel"]), event["data"]
        text = expect.text(data, "data") if already_encoded else self._serialised(channel, data)
        others = self._event(event["name"], text, event.get("socket_id"))
        return {"channel": channel, **others, **expect.info(event.get("info") or ())}

    def _event(self, name: str, text: str, socket_id: str | None) -> dict[str, Any]:
        event = {"name": expect.event_name(name), "data": self._expect_size(name, text)}
        if socket_id:
            event["socket_id"] = expect.socket_id(socket_id)
        return event

    def _serialised(self, channel: str, data: Any) -> str:
        if not isinstance(data, str):
            data = expect.no_nan(json.dumps(data, cls=self._json_encoder, ensure_ascii=False))
        if rules.is_encrypted(channel):
            data = json.dumps(encrypt(channel, data, self.expect_master_key(channel)))
        return expect.text(data, "data")

    def _expect_size(self, event_name: str, text: str) -> str:
        size, most = len(text.encode("utf-8", "surrogatepass")), self.max_event_bytes
        if most is not None and size > most:
            raise ValueError(
                f"The data of the event {event_name!r} has {size} bytes in UTF-8. At most"
                f" {most} are taken: PUSHER_MAX_EVENT_BYTES."
            )
        return text

    def publish(self, calls: Sequence[Post]) -> Any:
        """Make several calls, in order, and give one answer; a coroutine if the backend does."""
        first = self.call(POST, *calls[0])
        if inspect.isawaitable(first):
            return self._publish_rest(first, calls)
        return _joined(calls, [first, *(self.call(POST, *call) for call in calls[1:])])

    async def _publish_rest(self, first: Awaitable[Any], calls: Sequence[Post]) -> Any:
        answers = [await first, *[await self.call(POST, *call) for call in calls[1:]]]
        return _joined(calls, answers)

    def call(self, method: str, resource: str, params: Mapping[str, Any]) -> Any:
        return self.http.send_request(self.request(method, resource, params))

    def request(self, method: str, resource: str, params: Mapping[str, Any]) -> Request:
        return Request(self, method, f"{self.path}/apps/{self.app_id}/{resource}", params)


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _joined(calls: Sequence[Post], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
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

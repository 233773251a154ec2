"""Recording what is published instead of sending it, for an application's tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from pusher.crypto import generate_shared_secret
from pusher.http import Request

from _flask_pusher import expect, rules
from _flask_pusher.client import Client, api_of
from _flask_pusher.stand_in import Channels, answer_of, events_of
from _flask_pusher.transport import Observer


class RecordedEvent(NamedTuple):
    """One event, with its fields in the order of ``Client.trigger``'s arguments.

    .. versionadded:: 4.0
    """

    channels: list[str]
    """The names of the channels, one to 100."""
    name: str
    """The event's name."""
    data: Any
    """The data as a browser's handler is given it: decoded, and decrypted by this application's key."""
    socket_id: str | None
    """The connection that does not get the event, or None."""


@dataclass(eq=False)
class Recording:
    """A list of events; the client that it is for, None for any; and what is occupied meanwhile."""

    client: Client | None
    channels: Channels
    events: list[RecordedEvent] = field(default_factory=list)
    at_end: dict[int, Callable[[Recording], None]] = field(default_factory=dict)
    """Called when the recording ends, for events whose fate is undecided by then."""

    def add(self, client: Client, event: Mapping[str, Any]) -> None:
        self.events.append(recorded(client, event))


class Recordings:
    """The recordings that one extension's applications are in."""

    def __init__(self) -> None:
        self._active: list[Recording] = []

    def of(self, client: Client) -> list[Recording]:
        return [one for one in list(self._active) if one.client in (None, client)]

    def watch(self, client: Client) -> None:
        """Let what a client sends go to the recordings while there are any."""
        api_of(client).http.observers = lambda: self._observer(client)

    def _observer(self, client: Client) -> Observer | None:
        recordings = self.of(client)
        if not recordings:
            return None

        def observe(request: Request) -> dict[str, Any]:
            known = [channel for one in recordings for channel in one.channels.items()]
            answer = answer_of(request, dict(known))
            for event in events_of(request):
                for recording in recordings:
                    recording.add(client, event)
            return answer

        return observe

    @contextmanager
    def record(self, client: Client | None, channels: Channels | None) -> Iterator[Recording]:
        recording = Recording(client, channels or {})
        self._active.append(recording)
        try:
            yield recording
        finally:
            self._active.remove(recording)
            for settle in list(recording.at_end.values()):
                settle(recording)


def recorded(client: Client, event: Mapping[str, Any]) -> RecordedEvent:
    """An event of the HTTP API, as a browser would see it."""
    channels, data = event["channels"], _as_in_browser(event["data"])
    if rules.is_encrypted(channels[0]):
        with suppress(LookupError, TypeError, ValueError, CryptoError):  # it was sealed elsewhere
            secret = generate_shared_secret(channels[0].encode(), api_of(client).master_key)
            nonce, ciphertext = (base64.b64decode(data[part]) for part in ("nonce", "ciphertext"))
            data = _as_in_browser(SecretBox(secret).decrypt(ciphertext, nonce).decode())
    return RecordedEvent(list(channels), event["name"], data, event.get("socket_id"))


def _as_in_browser(data: str) -> Any:
    """What pusher-js makes of an event's data: the JSON value, or the text where it is not JSON."""
    try:
        return json.loads(data, parse_constant=expect.no_constant)
    except (ValueError, RecursionError):
        return data

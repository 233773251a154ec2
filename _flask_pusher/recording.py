"""Recording what is published instead of sending it, for an application's tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from pusher.crypto import generate_shared_secret
from pusher.http import Request

from _flask_pusher import expect, rules
from _flask_pusher.api import Api
from _flask_pusher.client import Client, api_of
from _flask_pusher.stand_in import Channels, answer_of, events_of
from _flask_pusher.transport import Observer, Transport


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

    of: Recordings
    client: Client | None
    channels: Channels
    events: list[RecordedEvent] = field(default_factory=list)
    at_end: dict[int, Callable[[Recording], None]] = field(default_factory=dict)
    """Called when the recording ends, for events whose fate is undecided by then."""

    def add(self, api: Api, events: Iterable[Mapping[str, Any]]) -> None:
        self.events += [recorded(api, event) for event in events]


_in_force: list[Recording] = []


class Recordings:
    """The recordings that one extension's applications are in."""

    def of(self, client: Client) -> list[Recording]:
        return [one for one in list(_in_force) if one.of is self and one.client in (None, client)]

    def watch(self, client: Client) -> None:
        """Let what a client sends go to the recordings while there are any."""
        api_of(client).http.observers = lambda: _observer(self.of(client))

    @contextmanager
    def record(self, client: Client | None, channels: Channels | None) -> Iterator[Recording]:
        recording = Recording(self, client, channels or {})
        _in_force.append(recording)
        try:
            yield recording
        finally:
            _in_force.remove(recording)
            for settle in list(recording.at_end.values()):
                settle(recording)


def _observer(recordings: list[Recording]) -> Observer | None:
    if not recordings:
        return None

    def observe(request: Request) -> dict[str, Any]:
        known = [channel for one in recordings for channel in one.channels.items()]
        answer = answer_of(request, dict(known))
        for recording in recordings:
            recording.add(request.client, events_of(request))
        return answer

    return observe


# A client that an application makes beside the extension's is of no application, and each hears it.
Transport.observers = staticmethod(lambda: _observer(list(_in_force)))


def recorded(api: Api, event: Mapping[str, Any]) -> RecordedEvent:
    """An event of the HTTP API, as a browser would see it."""
    channels, data = event["channels"], _as_in_browser(event["data"])
    if rules.is_encrypted(channels[0]):
        with suppress(LookupError, TypeError, ValueError, CryptoError):  # it was sealed elsewhere
            secret = generate_shared_secret(channels[0].encode(), api.master_key)
            nonce, ciphertext = (base64.b64decode(data[part]) for part in ("nonce", "ciphertext"))
            data = _as_in_browser(SecretBox(secret).decrypt(ciphertext, nonce).decode())
    return RecordedEvent(list(channels), event["name"], data, event.get("socket_id"))


def _as_in_browser(data: str) -> Any:
    """What pusher-js makes of an event's data: the JSON value, or the text where it is not JSON."""
    try:
        return json.loads(data, parse_constant=expect.no_constant)
    except (ValueError, RecursionError):
        return data

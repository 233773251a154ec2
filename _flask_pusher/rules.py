"""The rules of Pusher Channels: names, ids, limits and kinds of channels.

The extension keeps them, and so does the local server. They are Channels', not ours:
https://pusher.com/docs/channels/using_channels/channels/#channel-naming-conventions and
https://pusher.com/docs/channels/library_auth_reference/rest-api/.
"""

from __future__ import annotations

import re
from typing import Any

APP_ID = "[A-Za-z0-9_-]+"
"""The pattern of an app's id. The hosted service's are digits."""
CHARACTERS = "A-Z a-z 0-9 _ - = @ , . ;"
"""What the name of a channel and the id of a user are made of, in words."""
NAME_LENGTH = 200
NAME = f"1 to {NAME_LENGTH} of the characters {CHARACTERS}"
"""What a name is, in words."""
HOSTED_NAME_LENGTH = 164
"""The longest channel name that the hosted service takes; other servers take ``NAME_LENGTH``."""
EVENT_NAME_LENGTH = 200
CHANNELS_PER_EVENT = 100
EVENTS_PER_BATCH = 10
EVENT_BYTES = 10240
"""The most bytes, in UTF-8, of one event's data."""
MEMBERS_PER_CHANNEL = 100
USER_INFO_BYTES = 1024
HOSTED_USER_ID_LENGTH = 128
SOCKET_ID_DIGITS = 20
"""The most digits on either side of the dot in a socket id."""
SOCKET_ID = f"two numbers of at most {SOCKET_ID_DIGITS} digits, joined by a dot"
"""What a socket id is, in words."""
CLIENT_EVENTS_PER_SECOND = 10
USERS_PER_WATCHLIST = 100
CACHE_SECONDS = 30 * 60
"""How long a cache channel remembers its last event."""
ACTIVITY_SECONDS = 120
"""The silence after which either side of a connection asks whether the other is there."""
PONG_SECONDS = 30
"""How long the other side may take to answer that."""
WEBHOOK_DELAY_SECONDS = 3
"""How long the service waits, at most, before it tells by a webhook that somebody has left: who is
back by then, as after loading a page anew, has not."""
CLOCK_SKEW_SECONDS = 600
"""The most by which the clocks of an application and of the service may differ."""

PRIVATE = "private-"
PRESENCE = "presence-"
ENCRYPTED = "private-encrypted-"
SERVER_TO_USER = "#server-to-user-"
"""How the channel begins that carries the events for one signed-in user."""
USER_ID_LENGTH = NAME_LENGTH - len(SERVER_TO_USER)
"""The longest id of a user that events can reach."""

CACHE = ("cache-", "private-cache-", "presence-cache-", "private-encrypted-cache-")
AUTHORISED = (PRIVATE, PRESENCE)

WEBHOOK_GROUPS = {
    "channel_existence": ("channel_occupied", "channel_vacated"),
    "presence": ("member_added", "member_removed"),
    "client": ("client_event",),
    "cache": ("cache_miss",),
    "subscription_count": ("subscription_count",),
}
"""The events that a service tells by webhooks, by the group that they are switched on in."""
WEBHOOK_EVENTS = tuple(name for names in WEBHOOK_GROUPS.values() for name in names)

_is_name = re.compile(rf"[A-Za-z0-9_\-=@,.;]{{1,{NAME_LENGTH}}}").fullmatch
_DIGITS = rf"[0-9]{{1,{SOCKET_ID_DIGITS}}}"
_is_socket_id = re.compile(rf"{_DIGITS}\.{_DIGITS}").fullmatch


def is_app_id(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(APP_ID, value))


def is_channel_name(value: Any) -> bool:
    """Whether a page may subscribe to a channel of this name."""
    return isinstance(value, str) and _is_name(value) is not None


def is_user_id(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= USER_ID_LENGTH and bool(_is_name(value))


def is_socket_id(value: Any) -> bool:
    """Whether this is how Channels names a connection: digits, a dot, digits, in ASCII."""
    return isinstance(value, str) and bool(_is_socket_id(value))


def is_presence(channel: str) -> bool:
    return channel.startswith(PRESENCE)


def is_encrypted(channel: str) -> bool:
    return channel.startswith(ENCRYPTED)


def is_cache(channel: str) -> bool:
    return channel.startswith(CACHE)


def needs_authorisation(channel: str) -> bool:
    return channel.startswith(AUTHORISED)


def is_user_channel(name: Any) -> bool:
    """Whether this channel carries the events for one signed-in user."""
    is_one = isinstance(name, str) and name.startswith(SERVER_TO_USER)
    return is_one and is_user_id(name[len(SERVER_TO_USER) :])


def carries_client_events(channel: str) -> bool:
    """Whether pages may send events to each other here: a server cannot read encrypted ones."""
    return needs_authorisation(channel) and not is_encrypted(channel)

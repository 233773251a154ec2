"""What a test sees of a running server."""

from __future__ import annotations

from typing import Any, NamedTuple


class ChannelView(NamedTuple):
    """A channel that somebody is subscribed to, as it was when a test asked."""

    #: The socket ids of its subscribers.
    subscribers: tuple[str, ...]
    #: On a presence channel, each member's id and ``user_info``.
    members: dict[str, Any]


class ConnectionView(NamedTuple):
    """A connection, as it was when a test asked."""

    #: The id of the user who has signed in, if one has.
    user_id: str | None
    #: The names of the channels that it is subscribed to.
    channels: tuple[str, ...]


class WebhookView(NamedTuple):
    """An event that was posted by a webhook, once, and what the application answered."""

    #: The event, as a webhook's handler gets it.
    event: dict[str, Any]
    #: The answer's status; None where there was no answer, or a handler raised.
    status: int | None
    #: What was wrong with that, in words; nothing where the webhook was taken.
    problem: str

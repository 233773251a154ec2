"""The checks of what Channels is told: names, ids, and JSON that each parser reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from numbers import Number
from typing import Any
from uuid import UUID

from _flask_pusher import rules
from _flask_pusher.warning import warn

_KINDS = (*rules.AUTHORISED, "cache-")


def channels(channels: Any) -> list[Any]:
    """The channels of an event, as a list.

    :raises ValueError: for none, and ``TypeError`` for what is no text and no iterable of it.
    """
    if isinstance(channels, (str, bytes)):
        return [channels]
    if isinstance(channels, Mapping) or not isinstance(channels, Iterable):
        raise TypeError(f"The channels should be one name or several; this is {kind(channels)}.")
    names = list(channels)
    if not names:
        raise ValueError("There are no channels to publish to: name at least one.")
    return names


def channel(name: Any) -> str:
    """The name of a channel, which a signed-in user's may be too.

    :raises ValueError: for a name that no channel has; ``TypeError`` for what is no text.
    """
    found = text(name, "A channel's name")
    if not rules.is_channel_name(found) and not rules.is_user_channel(found):
        raise ValueError(f"A channel's name has {rules.NAME}; this is {found!r:.200}.")
    if not found.startswith(_KINDS) and found.lower().startswith(_KINDS):
        warn(f"{found!r} is a public channel: capitals count. Is {found.lower()!r} meant?")
    return found


def part_of_path(name: str) -> str:
    """A name that the API's paths can carry: ``#`` would end them, and dots lead elsewhere."""
    if name.startswith("#") or name in (".", ".."):
        raise ValueError(f"The HTTP API has no path for {name!r}.")
    return name


def user_id(value: Any) -> str:
    found = text_id(value)
    if not rules.is_user_id(found):
        raise ValueError(
            f"A user's id is a number, or text of 1 to {rules.USER_ID_LENGTH} of the characters"
            f" {rules.CHARACTERS}; this is {found!r:.300}."
        )
    return str(found)


def text_id(value: Any) -> Any:
    """An id as Channels has it, text, where an application has a number or a UUID; anything else
    as it is, NaN and the infinities too."""
    if isinstance(value, str):
        return text(value, "An id")
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)  # of an enumeration's member its value, as of text
    is_finite = isinstance(value, Number) and re.search("[0-9]", str(value))
    return str(value) if is_finite or isinstance(value, UUID) else value


def event_name(name: Any) -> str:
    found = text(name, "An event's name")
    if not 1 <= len(found) <= rules.EVENT_NAME_LENGTH:
        most = rules.EVENT_NAME_LENGTH
        raise ValueError(f"An event's name has 1 to {most} characters; this has {len(found)}.")
    return found


def socket_id(value: Any) -> str:
    found = text(value, "A socket id")
    if not rules.is_socket_id(found):
        raise ValueError(f"A socket id is {rules.SOCKET_ID}; this is {found!r:.100}.")
    return found


def info(attributes: Iterable[str]) -> dict[str, str]:
    """The parameter by which the API is asked for attributes of channels."""
    names = [attributes] if isinstance(attributes, str) else list(attributes)
    texts = [text(name, "Each attribute") for name in names]
    if strange := [one for one in texts if not re.fullmatch("[a-z_,]+", one)]:
        raise ValueError(f"An attribute is user_count, for example; this is {strange[0]!r:.100}.")
    return {"info": ",".join(texts)} if texts else {}


def text(value: Any, what: str) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError(f"{what} should be text; this is {kind(value)}.")
    return str.__str__(value)  # of an enumeration's member its value, which its own str() is not


def kind(value: Any) -> str:
    return f"of type {type(value).__name__}"


def no_nan(text: str) -> str:
    """A JSON text without the numbers that Python writes and no other parser reads.

    :raises ValueError: for NaN and the infinities.
    """
    if "NaN" in text or "Infinity" in text:
        json.loads(text, parse_constant=no_constant)
    return text


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON: no browser could read it. Send None or text instead.")

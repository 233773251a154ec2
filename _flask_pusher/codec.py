"""JSON by the application's provider, as the official client takes it."""

from __future__ import annotations

import json
from typing import Any

import flask

from _flask_pusher import expect


def posted_object() -> dict[str, Any] | None:
    """The JSON object that was posted, whatever its type says; None where it is none."""
    try:
        found = flask.request.get_json(force=True, silent=True)
    except RecursionError:
        return None
    return found if isinstance(found, dict) else None


_quoted = {is_ascii: json.JSONEncoder(ensure_ascii=is_ascii).encode for is_ascii in (True, False)}


def _key(key: Any) -> str:
    """As JSON has it, where a number's is text."""
    return _quoted[True](key) if isinstance(key, str) else json.dumps({key: 0})[1:-4]


class Keys(dict):  # type: ignore[type-arg]
    """A dict whose keys are the protocol's, whatever the provider does to keys. Its values are the
    provider's."""


class Codec:
    """What ``json.dumps`` and ``json.loads`` take for an encoder's or decoder's class, and for its
    instance: an application's JSON provider, which a deep copy and a pickle leave behind."""

    def __init__(self, app: flask.Flask | None, ensure_ascii: bool = True) -> None:
        self.app = app
        self.ensure_ascii = ensure_ascii

    def __getstate__(self) -> dict[str, Any]:
        return {"app": None, "ensure_ascii": self.ensure_ascii}

    def __call__(self, ensure_ascii: bool = True, **_options: Any) -> Codec:
        return self if ensure_ascii else Codec(self.app, ensure_ascii)

    def encode(self, value: Any) -> str:
        if isinstance(value, Keys):
            pairs = [f"{_key(key)}: {self.encode(one)}" for key, one in value.items()]
            return f"{{{', '.join(pairs)}}}"
        if type(value) is str:  # an id, most often
            return _quoted[self.ensure_ascii](value)
        provider = (self.app or flask).json  # unpickled, it is the current application's
        try:
            # Keys of two types cannot be sorted, and escapes count against an event's size.
            text = provider.dumps(value, ensure_ascii=self.ensure_ascii, sort_keys=False)
        except TypeError:  # a provider may take no options, or not these
            text = provider.dumps(value)
        return expect.text(text, "What the JSON provider gives")

    def decode(self, text: str) -> Any:
        return (self.app or flask).json.loads(text)

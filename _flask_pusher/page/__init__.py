"""The script that keeps a page up to date, ``page.js``, and the view that serves it.

The script is served as it is written. It looks at the whole page after each batch of changes and
compares: for each element a *place*, for each name a *channel* with the places that listen to it,
for each URL a *source* with what is to be fetched when. It joins before it parts, so that a swap
that takes an element out and puts it in again unsubscribes nothing. A channel whose subscription is
pending is left when the outcome is known, or pusher-js would subscribe it again.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from flask import Response, request

_FOREVER = "public, max-age=31536000, immutable"


def add_version(endpoint: str, values: dict[str, Any]) -> None:
    """Let ``url_for("pusher.page")`` say which script: a changed one has another address."""
    if endpoint == "pusher.page":
        values.setdefault("v", _script()[1])


def page() -> Response:
    """The view: browsers keep the script for ever by its address, and ask each time without."""
    text, version = _script()
    response = Response(text, mimetype="text/javascript")
    response.set_etag(version)
    is_this = request.args.get("v") == version
    response.headers["Cache-Control"] = _FOREVER if is_this else "no-cache"
    response.make_conditional(request)
    return response


@cache
def _script() -> tuple[bytes, str]:
    """The script, read when a page first asks for it, from a zip file too; and its hash."""
    text = files(__name__).joinpath("page.js").read_bytes()
    return text, hashlib.sha256(text).hexdigest()[:16]

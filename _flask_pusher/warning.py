"""A warning that names the line of the application which is to be changed."""

from __future__ import annotations

import sys
import warnings

_OURS = ("flask_pusher", "_flask_pusher", "pusher")


def warn(message: str) -> None:
    """Warn of the first line above this call that is not this library's, nor the client's."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)

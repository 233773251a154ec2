"""What came from the network, as a terminal can show it. Needs nothing of the extra ``local``."""

from __future__ import annotations


def printable(text: str, length: int = 300) -> str:
    """Make one short line of it, with nothing that commands a terminal."""
    if len(text) > length:
        text = text[:length] + "..."
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )

"""What server threads put in, and a test waits for."""

from __future__ import annotations

import threading
from typing import Any

from . import WAIT_SECONDS


class Inbox:
    """A list of dicts."""

    def __init__(self) -> None:
        self._items: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    def put(self, item: dict[str, Any]) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    @property
    def items(self) -> list[dict[str, Any]]:
        with self._changed:
            return list(self._items)

    def wait_for(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Wait for a dict that has all of these keys and values."""

        def find() -> list[dict[str, Any]]:
            return [item for item in self._items if wanted.items() <= item.items()]

        with self._changed:
            assert self._changed.wait_for(find, WAIT_SECONDS), f"{wanted} not in {self._items}"
            return find()[0]

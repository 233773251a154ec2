"""What is printed and logged: one line for each thing that happens."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time

from .printable import printable
from .state import WARNINGS, Happening

logger = logging.getLogger("flask_pusher.local")

MAX_WAITING = 1000  # lines that nobody has read
FLUSH_SECONDS = 1


def _text_of(happening: Happening) -> str:
    text = happening.text
    return printable(text if happening.event is None else f"{text}: {happening.data}")


def log(happening: Happening) -> None:
    level = logging.WARNING if happening.kind in WARNINGS else logging.INFO
    text = _text_of(happening)
    logger.log(level, "%s: %s", happening.kind, text, exc_info=happening.error)


def ignore(_: Happening) -> None:
    """Say nothing."""


class Console:
    """Prints lines in a thread of its own, so that a terminal that is not read stops nobody."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="flask-pusher-console", daemon=True)
        self._thread.start()

    def show(self, happening: Happening) -> None:
        now = time.strftime("%H:%M:%S")
        self.print(f"{now} {happening.kind:<11} {_text_of(happening)}")

    def print(self, line: str) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Print what waits, for as long as somebody reads it."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=FLUSH_SECONDS)
            self._thread.join(FLUSH_SECONDS)

    def _run(self) -> None:
        for line in iter(self._lines.get, None):
            _write(line)
            if self._lost and self._lines.empty():
                lost, self._lost = self._lost, 0
                _write(f"{lost} lines are missing here: they were not read in time.")


def _write(line: str) -> None:
    """Print without a lock that the interpreter would wait for at its end."""
    if sys.stdout is None:  # it was closed before the process began
        return
    encoding = sys.stdout.encoding or "utf-8"
    data = (line + os.linesep).encode(encoding, "backslashreplace")
    with contextlib.suppress(OSError):  # nobody reads the pipe any more: no reason to stop serving
        try:
            descriptor = sys.stdout.fileno()
        except (AttributeError, OSError, ValueError):  # no file, but a test's
            sys.stdout.write(data.decode(encoding).replace(os.linesep, "\n"))
            return
        while data:
            data = data[os.write(descriptor, data) :]

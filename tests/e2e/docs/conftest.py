"""A browser for the examples and for the built pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..conftest import unavailable
from ..tools import MissingToolError, find_chromium
from .browser import Browser


@pytest.fixture(scope="session")
def open_browser(packages: Path) -> Iterator[Callable[[], Browser]]:
    """Start the browser when it is first asked for."""
    opened: list[Browser] = []

    def open_browser() -> Browser:
        if not opened:
            try:
                opened.append(Browser(find_chromium(), packages))
            except MissingToolError as error:
                unavailable(error)
        return opened[0]

    yield open_browser
    for browser in opened:
        browser.close()

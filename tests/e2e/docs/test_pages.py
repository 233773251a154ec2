"""The built documentation can be read, on a desk and on a phone, by eye and by screen reader."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from . import TREE
from .browser import Browser, Tab
from .examples import PAGES

HTML = TREE / "docs" / "_build" / "html"
NAMES = [page.relative_to(TREE / "docs").with_suffix(".html").as_posix() for page in PAGES]
WIDTHS = {"desk": 1280, "phone": 390}


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Keep the tests' output to the tests."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the built pages are served."""
    if not HTML.exists():
        pytest.skip("There are no built pages: tox -e docs")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=HTML)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(params=list(WIDTHS.values()), ids=list(WIDTHS))
def open_page(
    request: pytest.FixtureRequest, address: str, open_browser: Callable[[], Browser]
) -> Iterator[Callable[[str], Tab]]:
    tabs = []

    def open_page(name: str) -> Tab:
        tabs.append(open_browser().open(f"{address}/{name}", width=request.param))
        return tabs[-1]

    yield open_page
    for tab in tabs:
        tab.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_can_be_read(name: str, open_page: Callable[[str], Tab], packages: Path) -> None:
    tab = open_page(name)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    tab.do(lambda page: page.add_script_tag(path=packages / "axe-core" / "axe.min.js"))
    found: Any = tab.evaluate("axe.run()")
    assert [(fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]] == []

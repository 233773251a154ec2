"""The built documentation can be read, on a desk and on a phone, by eye and by screen reader.

The phone's reader has asked for dark colours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from . import TREE
from .browser import Browser, Colours, Tab
from .examples import PAGES

HTML = TREE / "docs" / "_build" / "html"
NAMES = [page.relative_to(TREE / "docs").with_suffix(".html").as_posix() for page in PAGES]
READERS: dict[str, tuple[int, Colours]] = {"desk": (1280, "light"), "phone": (390, "dark")}


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


@pytest.fixture(params=list(READERS.values()), ids=list(READERS))
def open_page(
    request: pytest.FixtureRequest, address: str, open_browser: Callable[[], Browser]
) -> Iterator[Callable[[str], Tab]]:
    width, colours = request.param
    tabs = []

    def open_page(name: str) -> Tab:
        tab = open_browser().open(f"{address}/{name}", width=width, colours=colours)
        tabs.append(tab)
        return tab

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


def test_every_page_is_in_the_sidebar_and_has_a_line_in_the_index(
    open_page: Callable[[str], Tab],
) -> None:
    tab = open_page("index.html")
    links = """(places) => [...document.querySelectorAll(places)].map((link) =>
      link.getAttribute("href").replace(/^#$/, "index.html"))"""
    in_sidebar: Any = tab.do(lambda page: page.evaluate(links, ".sidebar-tree a"))
    assert sorted([*in_sidebar, "index.html"]) == NAMES
    explained: Any = tab.do(lambda page: page.evaluate(links, "dl:has(dd) dt a.reference"))
    assert sorted([*explained, "index.html"]) == NAMES


def test_what_is_cut_says_that_it_scrolls(open_page: Callable[[str], Tab]) -> None:
    tab = open_page("configuration.html")
    unmarked = """[...document.querySelectorAll("article *")].filter((element) =>
      element.scrollWidth > element.clientWidth + 1
      && getComputedStyle(element).overflowX === "auto"
      && !getComputedStyle(element).backgroundImage.includes("gradient")).length"""
    assert tab.evaluate(unmarked) == 0

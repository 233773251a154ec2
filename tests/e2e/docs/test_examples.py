"""Each example of the README and of the documentation does what its page says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from playwright.sync_api import Page

from . import TREE
from .browser import Browser
from .examples import CHECKS, PAGES, README, Project, checks_of, examples_of

TEXTS = [README, TREE / "CONTRIBUTING.rst", *PAGES]


@pytest.fixture
def project(
    tmp_path: Path, packages: Path, open_browser: Callable[[], Browser]
) -> Iterator[Project]:
    project = Project(tmp_path, packages, open_browser)
    yield project
    project.close()


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: str(path.relative_to(TREE)))
def test_the_examples_run(page: Path, project: Project) -> None:
    def follow() -> None:
        examples = examples_of(page)
        checks = checks_of(page, examples)
        if -1 in checks:
            project.check(checks[-1])
        for number, example in enumerate(examples):
            example.namespace["project"] = project
            example.evaluate()
            if number in checks:
                project.check(checks[number])
        project.finish()

    # Playwright may have an event loop in this thread, beside which a coroutine cannot be run.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(follow).result()


def test_a_reader_finds_no_tests_between_the_lines() -> None:
    assert [page.name for page in TEXTS if "invisible-code-block" in page.read_text("utf-8")] == []


def test_each_check_is_of_a_page() -> None:
    pages = {page.stem for page in TEXTS}
    assert [file.name for file in CHECKS.glob("*.py") if file.stem not in pages] == []


WINDOWS = """
  <body style="margin: 0; padding: 12px; display: flex; gap: 12px; background: #d8dee9; font: 13px sans-serif">
    <style>
      figure { margin: 0; flex: 1; background: white; border-radius: 8px; overflow: hidden }
      figcaption { padding: 6px 12px; background: #eceff4; color: #333 }
      iframe { border: 0; width: 100%; height: 330px }
    </style>
    <figure><figcaption>Ana's window</figcaption><iframe src="/"></iframe></figure>
    <figure><figcaption>Ben's window</figcaption><iframe src="/"></iframe></figure>
  </body>"""


def test_the_picture_shows_the_first_application(project: Project, tmp_path: Path) -> None:
    """``FLASK_PUSHER_SCREENSHOTS`` names the folder that it is taken into."""

    def take(page: Page) -> None:
        page.set_viewport_size({"width": 1000, "height": 384})
        page.set_content(WINDOWS)
        ana, ben = page.frame_locator("iframe >> nth=0"), page.frame_locator("iframe >> nth=1")
        for window in (ana, ben):
            window.locator('#waves[data-pusher-state="live"]').wait_for()
        for window, name in ((ana, "Ana"), (ben, "Ben")):
            window.get_by_label("Your name").fill(name)
            window.get_by_role("button", name="Wave").click()
            for other in (ana, ben):
                other.get_by_text(f"{name} waves").wait_for()
            window.locator('#waves[data-pusher-state="live"]').wait_for()
        folder = Path(os.environ.get("FLASK_PUSHER_SCREENSHOTS", tmp_path))
        page.screenshot(path=folder / "waves.png")

    tab = project.open_tab()
    tab.do(take)
    tab.close()


def test_the_readme_can_be_shown() -> None:
    settings = {
        "file_insertion_enabled": False,
        "halt_level": 2,
        "raw_enabled": False,
        "report_level": 2,
        "syntax_highlight": "none",
    }
    document = publish_doctree(README.read_text("utf-8"), settings_overrides=settings)
    addresses = [link["refuri"] for link in document.findall(nodes.reference)]
    assert addresses
    assert all(address.startswith(("https://", "http://127.0.0.1")) for address in addresses)
    (picture,) = document.findall(nodes.image)  # which a package index is not given
    assert (TREE / picture["uri"]).exists()

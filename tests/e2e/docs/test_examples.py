"""Each example of the README and of the documentation does what its page says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree

from . import TREE
from .browser import Browser
from .examples import PAGES, README, Project, checks_of, examples_of

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

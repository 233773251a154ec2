"""How Sphinx builds the documentation: ``tox -e docs``."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

from sphinx.application import Sphinx

project = "Flask-Pusher"
author = "The Flask-Pusher authors"
project_copyright = author
release = version_of("Flask-Pusher")
version = ".".join(release.split(".")[:2])

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
default_role = "code"
nitpicky = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"

html_theme = "furo"
html_title = f"Flask-Pusher {version}"
# Both can be read on their ground: axe says of most others that they are too pale.
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False
html_show_sourcelink = False
html_domain_indices = False


def setup(app: Sphinx) -> None:
    app.connect("html-page-context", make_what_scrolls_reachable)


def make_what_scrolls_reachable(
    _app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object
) -> None:
    """Let the keyboard scroll what may be wider than a screen."""
    if "body" in context:
        context["body"] = (
            context["body"]
            .replace("<pre>", '<pre tabindex="0">')
            .replace("<table ", '<table tabindex="0" ')
        )

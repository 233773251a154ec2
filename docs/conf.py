"""How Sphinx builds the documentation: ``tox -e docs``."""

from __future__ import annotations

from typing import Any

from pallets_sphinx_themes import get_version
from sphinx.application import Sphinx

project = "Flask-Pusher"
author = "The Flask-Pusher authors"
project_copyright = author
release, version = get_version("Flask-Pusher")

extensions = ["sphinx.ext.autodoc", "pallets_sphinx_themes"]
exclude_patterns = ["_build"]
default_role = "code"
nitpicky = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"

html_theme = "flask"
version_banner = False  # no page asks another site
html_sidebars = {"**": ["localtoc.html", "relations.html", "searchbox.html"]}
templates_path = ["_templates"]
# The theme's own has colours that are too pale to read.
pygments_style = "xcode"
html_title = f"Flask-Pusher {version}"
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

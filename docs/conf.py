"""How Sphinx builds the documentation: ``tox -e docs``."""

from __future__ import annotations

from pallets_sphinx_themes import get_version

project = "Flask-Pusher"
author = "The Flask-Pusher authors"
project_copyright = author
release, version = get_version("Flask-Pusher")

extensions = ["sphinx.ext.autodoc", "pallets_sphinx_themes"]
exclude_patterns = ["_build"]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"

html_theme = "flask"
html_title = f"Flask-Pusher {version}"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False
html_show_sourcelink = False
html_domain_indices = False

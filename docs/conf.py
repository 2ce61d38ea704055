"""Settings of Sphinx, with which ``make docs`` builds the documentation site from the pages alone."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).parent.parent
[VERSION] = re.findall(r'__version__ = "(.*)"', (ROOT / "airflow_provider_browseract" / "__init__.py").read_text())

project = "airflow-provider-browseract"
author = "The airflow-provider-browseract developers"
copyright = author
version = release = VERSION

extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_logo = html_favicon = "logo.svg"
# Pages name these in HTML, which GitHub shows too.
html_extra_path = ["panel_steps.png", "panel_steps_dark.png"]
html_title = f"airflow-provider-browseract {VERSION}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
# The theme's own style for dark mode underlines imported modules, which hides the underscores in their names.
pygments_dark_style = "monokai"
html_theme_options = {
    "dark_css_variables": {"picture-filter": "brightness(0.8)"},
}

# Addresses of headings are those that GitHub gives them, so that links work there too.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

linkcheck_ignore = [r"http://127\.0\.0\.1.*"]


class SearchWords(SphinxTransform):
    """Let the search find a page first by words that its title does not have: ``<!-- search: TaskFlow, ... -->``."""

    default_priority = 800  # Sphinx collects the index at 850.

    def apply(self, **kwargs: Any) -> None:
        for comment in list(self.document.findall(nodes.raw)):
            if words := re.match(r"<!-- search: (.*) -->", comment.astext()):
                entries = [("single", word, "", "main", None) for word in words[1].split(", ")]
                comment.replace_self(addnodes.index(entries=entries))


def describe(app: Any, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Show search engines and chats the first sentences of a page, up to 300 characters."""
    if doctree is None:
        return
    text = ""
    for paragraph in doctree.findall(nodes.paragraph):
        # Neither a table nor badges.
        if isinstance(paragraph.parent, nodes.section) and not paragraph.next_node(nodes.image) and len(text) < 50:
            text += paragraph.astext().replace("\n", " ") + " "
    sentences = re.match(r".{,299}[.?!](?= )", text)
    description = escape(sentences[0] if sentences else text.rstrip(": "))
    context["metatags"] += f"""
        <meta name="description" content="{description}">
        <meta property="og:title" content="{escape(context["title"])}">
        <meta property="og:description" content="{description}">"""


def setup(app: Any) -> None:
    app.connect("html-page-context", describe)
    app.add_transform(SearchWords)

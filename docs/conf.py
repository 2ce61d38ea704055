"""Settings of Sphinx, with which ``make docs`` builds the documentation site.

The reference is made from the source without importing it, so that no Airflow is needed.
"""

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

extensions = ["myst_parser", "autoapi.extension", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # These belong to Python and Airflow, whose inventories would have to be downloaded for each build.
    ("py:.*", r"(airflow\.|airflow_provider_browseract\.compat\.|collections\.abc\.|datetime|requests\.|httpx\.).*"),
    ("py:.*", r"(str|int|float|bool|bytes|dict|list|tuple|type|object|None|True|False|Exception|ValueError|TypeError)"),
    ("py:exc", "Airflow.*"),
    # These are not meant for users, or are described in tables.
    ("py:.*", r"airflow_provider_browseract\.(api\.client|queue\.queueing|hooks|sensors|emulator|api\.models).*"),
]

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

autoapi_dirs = [str(ROOT / "airflow_provider_browseract")]
autoapi_generate_api_docs = False
autoapi_add_toctree_entry = False
autoapi_keep_files = False
autoapi_options = ["members", "show-inheritance"]
autoapi_python_class_content = "class"
autodoc_typehints = "none"
python_maximum_signature_line_length = 100
# What compat.py imports is defined in Airflow, and differs from version to version.
suppress_warnings = ["autoapi.python_import_resolution"]


def show_all_arguments(app: Any) -> None:
    """Describe the arguments that the operators hand to their base classes where users import them from."""
    objects = app.env.autoapi_all_objects
    module = re.compile(r"\w+\.(operators|decorators)\.browseract\.\w+$")
    operators = {name: each for name, each in objects.items() if module.match(name) and each.type == "class"}
    arguments = {name: all_arguments(objects, name) for name in operators}
    texts: dict[str, str] = {}
    for name, shown in operators.items():
        # RunWorkflowOperator comes first, and describes what most of them have.
        texts = {**parameters(qualified(shown.docstring, name)), **texts}
    for name, shown in operators.items():
        if "kwargs" not in arguments[name]:
            continue
        without = re.findall(r"without ``(\w+)``", shown.docstring)
        taken = {argument: each for argument, each in arguments[name].items() if argument not in without}
        described = parameters(shown.docstring)
        described.pop("kwargs", None)
        described |= {argument: texts[argument] for argument in taken if argument not in described}
        head, *fields = re.split(r"^(?=:[\w ]+: )", shown.docstring, flags=re.MULTILINE)
        others = (field for field in fields if not field.startswith(":param "))
        shown.docstring = "\n".join([head, "", *described.values(), *others, ""])
        shown.constructor.obj = {**shown.constructor.obj, "args": [("*", None, None, None), *taken.values()]}


LITERAL = re.compile(r"None|True|False|[\d.]+|(['\"]).*\1")


def all_arguments(objects: Any, name: str) -> dict[str, Any]:
    """Return the arguments of a class and of its base classes, with ``kwargs`` as the last one.

    A default that is no literal is left to the text.
    """
    shown = objects[name]
    arguments = {
        argument: (prefix, argument, annotation, default and (default if LITERAL.fullmatch(default) else "..."))
        for prefix, argument, annotation, default in (shown.constructor.obj["args"] if shown.constructor else ())
        if argument
    }
    for base in (base if base in objects else f"{name.rpartition('.')[0]}.{base}" for base in shown.bases):
        if base in objects:
            arguments.pop("kwargs", None)
            arguments |= all_arguments(objects, base)
    return arguments


def parameters(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each parameter."""
    return {found[1]: found[0] for found in re.finditer(r"^:param (\w+):.*(\n(?!:).*)*", docstring, re.MULTILINE)}


def qualified(docstring: str, name: str) -> str:
    """Return the docstring of an object with whole names of classes, which also mean them in another module."""
    return re.sub(r":class:`(\w+)`", rf":class:`~{name.rpartition('.')[0]}.\1`", docstring)


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
    app.connect("builder-inited", show_all_arguments, priority=900)
    app.connect("html-page-context", describe)
    app.add_transform(SearchWords)

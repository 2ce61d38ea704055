"""Settings of Sphinx, with which ``make docs`` builds the documentation site.

The reference is made from the source without importing it, so that no Airflow is needed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://github.com/browseract-ai/airflow-provider-browseract"
[VERSION] = re.findall(r'__version__ = "(.*)"', (ROOT / "airflow_provider_browseract" / "__init__.py").read_text())

project = "airflow-provider-browseract"
author = "The airflow-provider-browseract developers"
copyright = author
version = release = VERSION

extensions = ["myst_parser", "autoapi.extension"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # These belong to Python and Airflow, whose inventories would have to be downloaded for each build.
    ("py:.*", r"(airflow\.|airflow_provider_browseract\.compat\.|collections\.abc\.|datetime|requests\.|httpx\.).*"),
    ("py:.*", r"(str|int|float|bool|bytes|dict|list|tuple|type|object|None|True|False|Exception|ValueError|TypeError)"),
    ("py:exc", "Airflow.*"),
    # These are not meant for users, so the reference does not describe them.
    ("py:.*", r"airflow_provider_browseract\.(api\.(client|exchange)|runs\.(queueing|resuming|waiting)).*"),
    # The reference describes the names of the emulator where users import them from, not where they are defined.
    (
        "py:class",
        r"airflow_provider_browseract\.emulator\.\w+\.\w+|RequestFaultKind|CallbackFaultKind|Outcome|Behaviour",
    ),
]

html_theme = "furo"
html_logo = html_favicon = "logo.svg"
html_title = f"airflow-provider-browseract {VERSION}"
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
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

RESPONSES = ("models", "workflows", "bots")
SOURCES = [(ROOT / f"airflow_provider_browseract/api/{name}.py").read_text() for name in ("fields", *RESPONSES)]
FIELD_TYPES = dict(
    re.findall(r"^(\w+) = Annotated\[(.+?), (?:Field|PlainValidator)\(", "\n".join(SOURCES), re.MULTILINE)
)


def plain(annotation: str) -> str:
    """Return the type of a field without what reads it."""
    annotation = annotation.replace("airflow_provider_browseract.api.fields.", "")
    if annotated := re.match(r"Annotated\[(.+?), \w+\(", annotation):
        annotation = annotated[1]
    return plain(FIELD_TYPES[annotation]) if annotation in FIELD_TYPES else annotation


def show_plain_types(app: Any) -> None:
    for name, shown in app.env.autoapi_all_objects.items():
        if re.match(rf"\w+\.api\.({'|'.join(RESPONSES)})\.", name) and getattr(shown, "annotation", None):
            shown.annotation = plain(shown.annotation)


def setup(app: Any) -> None:
    app.connect("builder-inited", show_plain_types, priority=900)

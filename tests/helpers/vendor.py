"""The vendor's own OpenAPI documents, which are not part of this project."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion

VARIABLES = {ApiVersion.V2: "BROWSERACT_OPENAPI", ApiVersion.V3: "BROWSERACT_OPENAPI_V3"}
"""The variables that name copies of the documents."""

MISSING = "the vendor's OpenAPI documents are missing; set {} and {} to the paths of copies of them".format(
    *VARIABLES.values()
)


@cache
def document(version: ApiVersion) -> dict[str, Any]:
    """Return the document of a version of the API, or skip the test or module that needs it.

    All skips come from one line with one reason, so the summary of pytest counts them in one line.
    """
    path = os.environ.get(VARIABLES[version])
    if not path:
        pytest.skip(MISSING, allow_module_level=True)
    read: dict[str, Any] = json.loads(Path(path).read_text())
    return read

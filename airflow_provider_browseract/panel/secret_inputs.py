"""Secret inputs of a run, which its agent may quote in goals of steps and in the reason of a failure.

The worker masks them in the log because it has sent them. The pages find them in what BrowserAct says about the run.
"""

from __future__ import annotations

import re

from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.compat import is_secret
from airflow_provider_browseract.hooks.hiding import longest_first
from airflow_provider_browseract.runs.request import without_secrets

MAX_INPUTS = 4_000
"""Characters of all inputs together. Of longer ones, no secrets are looked for, and no texts are shown."""

SEPARATOR = "; "

MAX_PARTS = 5
"""How often a value may contain the separator."""

_NAME = re.compile(r"(?:^|; )([^=;]+)=")


def secrets_of(task: Task) -> list[str] | None:
    """Return the texts under which secret inputs of a run can appear, the longest first.

    :returns: None if they are not known, or if there are too many.
    """
    if task.api_version is ApiVersion.V2:
        return None if task.input_parameters is None else secret_texts(task.input_parameters)
    if task.input is None:
        return None
    found: set[str] = set()
    try:
        without_secrets(task.input, is_secret, found)
    except RecursionError:
        return None
    # It is not documented whether BrowserAct itself hides inputs.
    return None if any(text and not text.strip("*") for text in found) else longest_first(found)


def secret_texts(inputs: str) -> list[str] | None:
    """Return the texts under which secret inputs can appear, the longest first; None if they cannot be found.

    :param inputs: the inputs as BrowserAct lists them: ``name=value; name=value``.
    """
    if len(inputs) > MAX_INPUTS:
        return None
    found: set[str] = set()
    for name in _NAME.finditer(inputs):
        # A value may contain the separator, so each of its possible ends counts.
        parts = inputs[name.end() :].split(SEPARATOR)[:MAX_PARTS]
        for number in range(1, len(parts) + 1):
            value = SEPARATOR.join(parts[:number])
            if is_secret(name[1]) or value.lstrip()[:1] in ("{", "["):
                without_secrets({name[1]: value}, is_secret, found)
    return longest_first(found)

"""Hide what is secret in the arguments of a run."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from airflow.sdk.log import mask_secret

from airflow_provider_browseract.compat import is_secret
from airflow_provider_browseract.runs.request import secret_parts, without_secrets


def mask_inputs(inputs: Any, *callback_urls: Any) -> bool:
    """Mask secret inputs, and the paths of the user's callback addresses, in the log and in Airflow's UI.

    :param inputs: the inputs, whatever their form.
    :returns: whether there are secret inputs.
    """
    found: set[str] = set()
    # The checks of the arguments report whatever fails here.
    with suppress(Exception):
        without_secrets(inputs, is_secret, found)
    secret_inputs = bool(found)
    for url in callback_urls:
        found |= secret_parts(url)
    if found:
        mask_secret([*sorted(found)])
    return secret_inputs

"""Prove that a task instance has stored what people can edit: an entry of its task state, or its XCom ``task``.

A proof is an HMAC over what must not be changed, and over the task instance, so that it is of no use to another one.
Its key comes from the API key, which only workers, triggerers and API servers have.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_browseract.api.settings import derived_key

OF_RUN = ("connection", "api_version", "task_id", "follows", "hidden")
"""Keys of the XCom ``task`` that its proof covers."""


def keyed_digest(api_key: str, value: Any) -> str:
    """Return a digest of a JSON value that nobody can compute without the API key."""
    return hmac.new(derived_key(api_key), json.dumps(value, sort_keys=True).encode(), "sha256").hexdigest()


def prove(api_key: str, label: str, of: Mapping[str, Any], *facts: Any) -> str:
    """Return the proof of facts.

    :param label: what kind of facts they are.
    :param of: what identifies the task instance.
    """
    return keyed_digest(api_key, [label, of, facts])


def prove_run(api_key: str, of: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """Return the proof of an XCom ``task``."""
    return prove(api_key, "run", of, *map(shown.get, OF_RUN))


def is_proven(proof: Any, given: Any) -> bool:
    """Return whether a stored proof is the right one."""
    return isinstance(given, str) and hmac.compare_digest(str(proof).encode(), given.encode(errors="replace"))

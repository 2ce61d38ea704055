"""A start as the tests of starting and of orphans want it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.runs.ledger import Entry
from airflow_provider_browseract.runs.orphans import OnOrphan
from airflow_provider_browseract.runs.request import RunRequest, Source
from airflow_provider_browseract.runs.starting import Start

SOURCE = Source(SourceKind.WORKFLOW, "70")
KEY_DIGEST = "0123456789abcdef"
ENTRY = Entry(SOURCE, "f" * 64, 1000.0, 8200.0, "0" * 64, "7", "9", ("5", "6"), 3, KEY_DIGEST)

PATIENCE = 100.0

PENS_LISTED = "keyword=pens"
"""How the API lists the inputs of the starts."""


def request(keyword: str = "pens", kind: str = "deferred", **other: Any) -> RunRequest:
    source = Source(SourceKind.TEMPLATE, "70") if kind == "template" else SOURCE
    profile_id = "9" if kind == "with a profile" else None
    given = {"inputs": {"keyword": keyword}, "callback_url": f"https://x.example/{keyword}", **other}
    return RunRequest(source, profile_id=profile_id, **given)


def start(
    keyword: str = "pens",
    max_tries: int = 3,
    kind: str = "deferred",
    patience: float = PATIENCE,
    on_orphan: OnOrphan = OnOrphan.FAIL,
    **other: Any,
) -> Start:
    """A start of workflow or template 70.

    :param kind: how it is waited for, or what is special about it.
    """
    wanted = request(keyword, kind, **other)
    return Start(
        wanted,
        3600.0,
        patience,
        on_orphan,
        max_tries=max_tries,
        deferred=kind != "in the worker",
        api_key="app-key",
        key_digest=KEY_DIGEST,
    )


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


SAME = replace(ENTRY, fingerprint=start().fingerprint, deadline=1000.0 + start().timeout)
"""What an earlier try, at second 1000, has written down of a run with the same inputs."""

"""A start as the tests of starting and of orphans want it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
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


KINDS = {"template": SourceKind.TEMPLATE, "bot": SourceKind.BOT, "bot template": SourceKind.BOT_TEMPLATE}
"""What is run instead of a workflow, by how the tests name it."""


def request(keyword: str = "pens", kind: str = "deferred", **other: Any) -> RunRequest:
    source = Source(KINDS[kind], "70") if kind in KINDS else SOURCE
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
    """A start of workflow, template or bot 70.

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


AT_1000 = at(1000.0)


def bot_run(task_id: str, created_at: datetime | None = AT_1000, **fields: Any) -> Task:
    """A run of bot 70 as the API lists it."""
    given = {"status": TaskStatus.RUNNING, "bot_id": "70", "input": {"keyword": "pens"}, **fields}
    return Task(task_id, created_at=created_at, api_version=ApiVersion.V3, **given)


SAME = replace(ENTRY, fingerprint=start().fingerprint, deadline=1000.0 + start().timeout)
"""What an earlier try, at second 1000, has written down of a run with the same inputs."""

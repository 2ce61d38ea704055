"""Report a run to OpenLineage. Only the OpenLineage provider triggers the import of this module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import Dataset
from openlineage.client.facet_v2 import RunFacet

from airflow_provider_browseract.runs.report import facts

if TYPE_CHECKING:
    from airflow_provider_browseract.runs.request import Source
    from airflow_provider_browseract.worker.conclude import Conclusion

FACET = "browseract_task"
"""Name of the run's facet."""


@attrs.define
class BrowserActTaskFacet(RunFacet):  # type: ignore[misc,unused-ignore]
    """The facts about the BrowserAct task, without its data.

    :param task: see :func:`~airflow_provider_browseract.runs.report.facts`.
    """

    task: dict[str, Any]


def lineage_of(source: Source, base_url: str, conclusion: Conclusion | None) -> OperatorLineage[Any, Any]:
    """Return the workflow, bot or template as input, the folder of the results as output, and the facts about the run.

    :param conclusion: the conclusion of the run, if it has ended.
    """
    results = conclusion.results if conclusion else None
    return OperatorLineage(
        inputs=[Dataset(namespace=f"browseract://{urlsplit(base_url).netloc}", name=f"{source.kind}/{source.id}")],
        outputs=[_dataset(results.path)] if results else [],
        run_facets={FACET: BrowserActTaskFacet(facts(conclusion.task))} if conclusion else {},
    )


def _dataset(path: str) -> Dataset:
    """Name a folder as OpenLineage does: the store is the namespace, and the path in the store is the name."""
    parts = urlsplit(path)
    if parts.scheme in ("", "file", "local"):
        return Dataset(namespace="file", name=parts.path)
    bucket = parts.netloc.rpartition("@")[2]
    return Dataset(namespace=f"{parts.scheme}://{bucket}", name=parts.path.lstrip("/") or "/")

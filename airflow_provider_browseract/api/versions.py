"""What is called in which version of the API: how a run is started, and how it is followed.

Everything that starts or follows runs goes through these two tables, so another version of the API is another row.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, CreatedTask, Page, SourceInfo, Word

APIS: dict[ApiVersion, ModuleType] = {ApiVersion.V2: v2, ApiVersion.V3: v3}
"""The functions with which a run is followed, by the version of the API that has started it."""


class SourceKind(Word):
    """What can be run: a workflow or a bot of the account, or an official template, as a workflow or as a bot."""

    WORKFLOW, TEMPLATE, BOT, BOT_TEMPLATE = "workflow", "template", "bot", "bot_template"


class SourceCalls(NamedTuple):
    """The calls with which one kind of source is found and run.

    :param start: takes the id of the source, the inputs, and the other arguments of the run by their names.
    :param read: takes the id of the source, and reads its declaration.
    :param list: takes ``limit``, which is optional, and reads the sources without their declarations.
    """

    api_version: ApiVersion
    start: Callable[..., Call[CreatedTask]]
    read: Callable[[str], Call[SourceInfo]]
    list: Callable[..., Call[Page[SourceInfo]]]


SOURCES = {
    SourceKind.WORKFLOW: SourceCalls(ApiVersion.V2, v2.run, v2.get_source, v2.list_sources),
    SourceKind.TEMPLATE: SourceCalls(ApiVersion.V2, v2.run_template, v2.get_template, v2.list_templates),
    SourceKind.BOT: SourceCalls(ApiVersion.V3, v3.run, v3.get_source, v3.list_sources),
    SourceKind.BOT_TEMPLATE: SourceCalls(ApiVersion.V3, v3.run_template, v3.get_template, v3.list_templates),
}
"""How each kind of source is found and run."""

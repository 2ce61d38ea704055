"""Buttons on the page of an Airflow task instance that open BrowserAct or the panel.

Airflow reads the address of a button from an XCom, and writes that XCom itself only after the worker has finished the
task. The operator therefore pushes it right after the start, with :meth:`PushedLink.push`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs
from airflow.sdk import BaseOperatorLink

from airflow_provider_browseract.compat import xcom
from airflow_provider_browseract.runs.routes import PANEL

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


@attrs.define()
class PushedLink(BaseOperatorLink):
    """A button that opens the address that was pushed last."""

    def push(self, ti: Any, url: str) -> None:
        """Set the address that the button opens."""
        ti.xcom_push(key=self.xcom_key, value=url)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address that was pushed, or an empty string before there is one."""
        return xcom().get_value(ti_key=ti_key, key=self.xcom_key) or ""


def stop_airflow_pushing_links(operator: BaseOperator) -> None:
    """Prevent Airflow from reading and pushing the addresses of our links again at the end of a task.

    Airflow would log an error for each address that was not pushed because no run was started. Links that are not ours
    stay. The buttons in the UI stay too, because the UI reads the links of a task from the stored DAG. If a subclass
    defines its links as a property, Airflow still reads them.

    :param operator: the operator, in the process that executes it.
    """
    others = [link for link in operator.operator_extra_links if not isinstance(link, PushedLink)]
    with suppress(AttributeError):
        operator.operator_extra_links = others


@attrs.define()
class BrowserActTaskLink(PushedLink):
    """Open the log of the BrowserAct task."""

    name = "BrowserAct task"


@attrs.define()
class LiveViewLink(PushedLink):
    """Open the live view of the browser while the run is active, and later the log of the run."""

    name = "Live view"


@attrs.define()
class PanelLink(PushedLink):
    """Open the page of the task instance in the panel: its run, its place in the queue, or why it has failed."""

    name = "Run in the panel"

    def push_for(self, ti: Any) -> None:
        """Set the address to the page of a task instance. The UI reads it as relative to ``[api] base_url``."""
        ids = (ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index))
        page = "/".join(quote(each, safe="") for each in ids)
        self.push(ti, f"{PANEL}/open/ti/{page}".lstrip("/"))


BUTTONS = (BrowserActTaskLink(), LiveViewLink(), PanelLink())
"""The buttons of every task that starts or follows a run."""

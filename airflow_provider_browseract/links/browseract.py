"""Buttons on the page of an Airflow task instance that lead to BrowserAct."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


@attrs.define()
class BrowserActTaskLink(BaseOperatorLink):
    """Leads to the log of the BrowserAct task.

    Airflow shows the address that it finds in an XCom, and writes that XCom itself only when a worker is done with
    the task. The operator therefore pushes it right after the start, with :meth:`push`.
    """

    @property
    def name(self) -> str:
        """Label of the button."""
        return "BrowserAct task"

    def push(self, ti: Any, url: str) -> None:
        """Make the button lead to an address.

        :param ti: the running Airflow task instance.
        :param url: the task's page in BrowserAct.
        """
        ti.xcom_push(key=self.xcom_key, value=url)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Give the address that was pushed, or an empty string before there is one."""
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""

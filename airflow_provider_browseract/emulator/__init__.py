"""An emulated BrowserAct to develop and test DAGs with, offline and without credits.

It implements API v2 and v3 as the vendor's OpenAPI documents describe them. For what they do not describe, see
:mod:`~airflow_provider_browseract.emulator.account`.

In a test::

    def test_my_dag(browseract_emulator):                 # a fixture of this package's pytest plugin
        browseract_emulator.next_run(SEARCH.id, duration=0.1)
        browseract_emulator.fault("run-task", RequestFault.lost_response(), times=1)
        ...
        assert [task.status for task in browseract_emulator.tasks] == ["finished"]

To start it from the command line, run ``python -m airflow_provider_browseract.emulator``.
"""

from __future__ import annotations

from airflow_provider_browseract.emulator.catalogue import (
    AGENT_HUMAN,
    CONTACTS,
    ENDLESS,
    EXPORT,
    HUMAN,
    LOG_IN,
    ORDERS,
    SEARCH,
    TEMPLATE_SEARCH,
)
from airflow_provider_browseract.emulator.control import Emulator
from airflow_provider_browseract.emulator.faults import CallbackFault, RequestFault
from airflow_provider_browseract.emulator.records import DeliveryRecord, RequestRecord, Response, TaskRecord
from airflow_provider_browseract.emulator.workflow import (
    EmulatedFile,
    EmulatedWorkflow,
    Output,
    RunContext,
    RunFailed,
    WorkflowInput,
)

__all__ = [
    "AGENT_HUMAN",
    "CONTACTS",
    "ENDLESS",
    "EXPORT",
    "HUMAN",
    "LOG_IN",
    "ORDERS",
    "SEARCH",
    "TEMPLATE_SEARCH",
    "CallbackFault",
    "DeliveryRecord",
    "EmulatedFile",
    "EmulatedWorkflow",
    "Emulator",
    "Output",
    "RequestFault",
    "RequestRecord",
    "Response",
    "RunContext",
    "RunFailed",
    "TaskRecord",
    "WorkflowInput",
]

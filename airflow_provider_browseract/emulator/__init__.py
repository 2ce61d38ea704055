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

from airflow_provider_browseract.emulator.account import Emulator as Emulator
from airflow_provider_browseract.emulator.catalogue import AGENT_HUMAN as AGENT_HUMAN
from airflow_provider_browseract.emulator.catalogue import CONTACTS as CONTACTS
from airflow_provider_browseract.emulator.catalogue import ENDLESS as ENDLESS
from airflow_provider_browseract.emulator.catalogue import EXPORT as EXPORT
from airflow_provider_browseract.emulator.catalogue import HUMAN as HUMAN
from airflow_provider_browseract.emulator.catalogue import LOG_IN as LOG_IN
from airflow_provider_browseract.emulator.catalogue import ORDERS as ORDERS
from airflow_provider_browseract.emulator.catalogue import SEARCH as SEARCH
from airflow_provider_browseract.emulator.catalogue import TEMPLATE_SEARCH as TEMPLATE_SEARCH
from airflow_provider_browseract.emulator.faults import CallbackFault as CallbackFault
from airflow_provider_browseract.emulator.faults import RequestFault as RequestFault
from airflow_provider_browseract.emulator.records import DeliveryRecord as DeliveryRecord
from airflow_provider_browseract.emulator.records import RequestRecord as RequestRecord
from airflow_provider_browseract.emulator.records import Response as Response
from airflow_provider_browseract.emulator.runs import Run as Run
from airflow_provider_browseract.emulator.workflow import EmulatedFile as EmulatedFile
from airflow_provider_browseract.emulator.workflow import EmulatedWorkflow as EmulatedWorkflow
from airflow_provider_browseract.emulator.workflow import Output as Output
from airflow_provider_browseract.emulator.workflow import RunContext as RunContext
from airflow_provider_browseract.emulator.workflow import RunFailed as RunFailed
from airflow_provider_browseract.emulator.workflow import WorkflowInput as WorkflowInput

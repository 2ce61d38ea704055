"""What Airflow's database has of secret inputs."""

from __future__ import annotations

import json

from airflow.models.renderedtifields import RenderedTaskInstanceFields

from airflow_provider_browseract.emulator import LOG_IN
from tests.conftest import DagResult

SECRET = "hunter2ofthistest"
FILE = f"""
from airflow.sdk import DAG, task

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

INPUTS = [{{"name": "username", "value": "bob"}}, {{"name": "password", "value": {SECRET!r}}}]

with DAG("secrets", schedule=None):
    RunWorkflowOperator.partial(task_id="mapped", workflow_id={LOG_IN.id!r}, poll_interval=0.1).expand(
        input_parameters=[INPUTS]
    )

    @task.browseract(workflow_id={LOG_IN.id!r}, poll_interval=0.1)
    def decorated():
        return INPUTS

    decorated()
"""


def test_secret_inputs_of_mapped_and_decorated_tasks_are_hidden_in_airflows_database(
    parse, add_dag_bundle, tmp_path, browseract_emulator, short_timings
):
    browseract_emulator.set_workflow(LOG_IN.id, duration=0.2)
    add_dag_bundle(tmp_path)
    file = tmp_path / "secrets.py"
    file.write_text(FILE)
    result = DagResult(parse(file)["secrets"].test())
    assert result.state == "success"
    assert [dict(task.inputs)["password"] for task in browseract_emulator.tasks] == [SECRET, SECRET]
    for task in (result.task("mapped", 0), result.task("decorated")):
        fields = json.dumps(RenderedTaskInstanceFields.get_templated_fields(task))
        assert "bob" in fields
        assert SECRET not in fields

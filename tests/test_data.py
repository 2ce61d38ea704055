"""What docs/data.md says of Airflow's database is compared with a database after runs."""

from __future__ import annotations

import json

import pytest

from airflow_provider_browseract.emulator import LOG_IN, SEARCH
from airflow_provider_browseract.runs import timings

DAG_FILE = """
from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

with DAG("stored", default_args={"do_xcom_push": %s}):
    RunWorkflowOperator(
        task_id="search",
        workflow_id="71002814653029437",
        input_parameters={"keyword": "{{ var.value.given }}"},
        deferrable=True,
    )
    RunWorkflowOperator(
        task_id="log_in",
        workflow_id="71002814653029411",
        input_parameters={"username": "ada", "password": "{{ conn.shop.password }}"},
    )
"""


def columns_with(*words: str) -> dict[str, set[str]]:
    """Return the columns of Airflow's database that have each word."""
    from airflow.utils.session import create_session
    from sqlalchemy import inspect, text

    found: dict[str, set[str]] = {word: set() for word in words}
    with create_session() as session:
        for table in inspect(session.get_bind()).get_table_names():
            for row in session.execute(text(f'SELECT * FROM "{table}"')).mappings():
                for column, value in row.items():
                    for word in words:
                        if word in str(value):
                            found[word].add(f"{table}.{column}")
    return found


@pytest.mark.parametrize("do_xcom_push", [True, False])
def test_database_has_inputs_in_rendered_fields_and_outputs_in_xcoms_only(
    do_xcom_push, browseract_emulator, parse, add_dag_bundle, tmp_path, short_timings, monkeypatch, capsys
):
    # The tests share a database.
    given, secret, output = (f"{word}-{do_xcom_push}" for word in ("given", "secret", "output"))
    monkeypatch.setattr(timings, "DEFAULT_POLL_INTERVAL", 0.2)
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "generic", "password": secret}))
    monkeypatch.setenv("AIRFLOW_VAR_GIVEN", given)
    emulator = browseract_emulator
    emulator.set_workflow(SEARCH.id, duration=0.2, output=json.dumps([output]))
    emulator.set_workflow(LOG_IN.id, duration=0.2)
    (tmp_path / "stored.py").write_text(DAG_FILE % do_xcom_push)
    add_dag_bundle(tmp_path)

    assert str(parse(tmp_path / "stored.py")["stored"].test().state) == "success"

    assert columns_with(given, secret, output) == {
        given: {"rendered_task_instance_fields.rendered_fields"},
        secret: set(),
        output: {"xcom.value"} if do_xcom_push else set(),
    }
    logged = "".join(capsys.readouterr())
    assert secret not in logged
    assert output not in logged
    sent = [value for task in emulator.tasks for _, value in task.inputs]
    assert {given, secret} <= set(sent)

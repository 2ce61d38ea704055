"""Where Airflow's database has inputs, secrets and outputs after runs, as docs/security.md describes it."""

import json

import pytest
from airflow.utils.session import create_session
from sqlalchemy import MetaData, select

from airflow_provider_browseract.compat import AIRFLOW_V_3_4_PLUS
from airflow_provider_browseract.emulator import LOG_IN, SEARCH
from airflow_provider_browseract.runs import timings

FILE = """
from airflow.sdk import DAG, task

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

INPUTS = [{{"name": "username", "value": "bob"}}, {{"name": "password", "value": {literal!r}}}]

with DAG("stored", default_args={{"do_xcom_push": {do_xcom_push}}}):
    RunWorkflowOperator(
        task_id="search",
        workflow_id="71002814653029437",
        input_parameters={{"keyword": "{{{{ var.value.given }}}}"}},
        deferrable=True,
    )
    RunWorkflowOperator(
        task_id="log_in",
        workflow_id="71002814653029411",
        input_parameters={{"username": "ada", "password": "{{{{ conn.shop.password }}}}"}},
    )
    RunWorkflowOperator.partial(task_id="mapped", workflow_id="71002814653029411").expand(input_parameters=[INPUTS])

    @task.browseract(workflow_id="71002814653029411")
    def decorated():
        return INPUTS

    decorated()
"""

RTIF, XCOM = ("rtif_v2", "xcom_v2") if AIRFLOW_V_3_4_PLUS else ("rendered_task_instance_fields", "xcom")
RENDERED = f"{RTIF}.rendered_fields"


def columns_with(*words: str) -> dict[str, set[str]]:
    """Return the columns of Airflow's database that have each word."""
    found: dict[str, set[str]] = {word: set() for word in words}
    with create_session() as session:
        metadata = MetaData()
        metadata.reflect(session.get_bind())
        for table in metadata.sorted_tables:
            for row in session.execute(select(table)).mappings():
                for column, value in row.items():
                    for word in words:
                        if word in str(value):
                            found[word].add(f"{table.name}.{column}")
    return found


@pytest.mark.parametrize("do_xcom_push", [True, False])
def test_database_has_inputs_in_rendered_fields_outputs_in_xcoms_only_and_no_secrets(
    do_xcom_push, browseract_emulator, parse, add_dag_bundle, tmp_path, short_timings, monkeypatch, capsys
):
    # The tests share a database.
    given, secret, literal, output = (f"{word}-{do_xcom_push}" for word in ("given", "secret", "literal", "output"))
    monkeypatch.setattr(timings, "DEFAULT_POLL_INTERVAL", 0.2)
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "generic", "password": secret}))
    monkeypatch.setenv("AIRFLOW_VAR_GIVEN", given)
    emulator = browseract_emulator
    emulator.set_workflow(SEARCH.id, duration=0.2, output=json.dumps([output]))
    emulator.set_workflow(LOG_IN.id, duration=0.2)
    (tmp_path / "stored.py").write_text(FILE.format(literal=literal, do_xcom_push=do_xcom_push))
    add_dag_bundle(tmp_path)

    assert str(parse(tmp_path / "stored.py")["stored"].test().state) == "success"

    found = columns_with(given, secret, output, literal, "bob")
    assert found[given] == {RENDERED}
    assert found[secret] == set()
    assert found[output] == ({f"{XCOM}.value"} if do_xcom_push else set())
    # Airflow may store what the DAG file itself has.
    assert RENDERED not in found[literal]
    assert RENDERED in found["bob"]
    logged = "".join(capsys.readouterr())
    assert all(hidden not in logged for hidden in (secret, literal, output))
    sent = [value for task in emulator.tasks for _, value in task.inputs]
    assert {given, secret} <= set(sent)
    assert sent.count(literal) == 2

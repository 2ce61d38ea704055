"""Log in once a week, and use the login every day.

The DAG keeps the browser profile of its newest login in an Airflow Variable, which it creates. The password comes from
the connection `shop`:

    airflow connections add shop --conn-type generic --conn-password ...

Replace before you use it:

- `LOG_IN_WORKFLOW`: the id of your workflow that logs in. This id belongs to the emulator.
- `ORDERS_WORKFLOW`: the id of your workflow that needs the login. This id belongs to the emulator.
- `LOGIN`: the name of the Variable.
- `LOGIN_LASTS`: after how long to log in again.
- `schedule`: `"@daily"`.
- `total`: how to see in the output whether the site has asked for a login.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Variable, task

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

LOG_IN_WORKFLOW = "71002814653029411"
ORDERS_WORKFLOW = "71002814653029423"
LOGIN = "shop_login"
LOGIN_LASTS = timedelta(days=7)

with DAG(
    "example_browseract_profile",
    schedule=None,
    # Two logins at once could keep the profile of the older one.
    max_active_runs=1,
    params={"username": "ada"},
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):
    # Skips only log_in: newest_profile runs in any case.
    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def login_is_due(dag_run: Any = None) -> bool:
        """Return whether the login that is kept is too old for this DAG run."""
        kept = Variable.get(LOGIN, default=None, deserialize_json=True)
        return kept is None or dag_run.run_after - datetime.fromisoformat(kept["of"]) >= LOGIN_LASTS

    log_in = RunWorkflowOperator(
        task_id="log_in",
        workflow_id=LOG_IN_WORKFLOW,
        input_parameters={"username": "{{ params.username }}", "password": "{{ conn.shop.password }}"},
        save_browser_data=True,
        deferrable=True,
    )

    @task(trigger_rule="none_failed")
    def newest_profile(ti: Any = None, dag_run: Any = None) -> str:
        """Keep the profile of this DAG run, unless a later DAG run has kept one, and return the one that is kept."""
        kept = Variable.get(LOGIN, default=None, deserialize_json=True)
        profile_id = ti.xcom_pull(task_ids="log_in", key="profile_id")
        if profile_id and (kept is None or dag_run.run_after >= datetime.fromisoformat(kept["of"])):
            kept = {"profile_id": profile_id, "of": dag_run.run_after.isoformat()}
            Variable.set(LOGIN, kept, serialize_json=True)
        return str(kept["profile_id"])

    profile = newest_profile()
    orders = RunWorkflowOperator(
        task_id="orders",
        workflow_id=ORDERS_WORKFLOW,
        profile_id=profile,
        deferrable=True,
    )

    @task
    def total(found: Any) -> float:
        """Add up the orders. Without a login, the workflow returns a dict instead of a list."""
        if not isinstance(found, list):
            raise ValueError(f"The login has expired. Delete the Variable {LOGIN}, and clear this DAG run.")
        return sum(order["total"] for order in found)

    login_is_due() >> log_in >> profile
    total(orders.output)

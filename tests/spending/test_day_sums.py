import json

from tests.conftest import DagResult

FILE = """
import logging
from datetime import date

from airflow.sdk import DAG, task

from airflow_provider_browseract.spending.budget import Budget
from airflow_provider_browseract.spending.day_sums import read_day_sums, write_day_sums

log, shop, key = logging.getLogger(__name__), Budget("shop", monthly_credits=9), "0123456789abcdef"

with DAG("sums", schedule=None):

    @task
    def count():
        write_day_sums(shop, key, {date(2026, 11, 25): 0, date(2026, 11, 26): 1840}, log)

    @task
    def read():
        sums = read_day_sums(shop, key, date(2026, 11, 27), log)
        return {str(day): credits for day, credits in sums.items()}

    count() >> read()
"""


def test_sums_that_a_task_has_stored_are_read_by_another_task_with_the_key(parse, add_dag_bundle, tmp_path):
    from airflow.models import Variable

    add_dag_bundle(tmp_path)
    file = tmp_path / "sums.py"
    file.write_text(FILE)
    try:
        ended = DagResult(parse(file)["sums"].test())
        stored = json.loads(Variable.get("browseract_spend_shop"))
    finally:
        Variable.delete("browseract_spend_shop")
    days = {"2026-11-25": 0, "2026-11-26": 1840}
    assert ended.xcom("read") == days
    assert stored == {"key_digest": "0123456789abcdef", "days": days}

"""Each example, as it stands, run to its end against the emulator."""

import json
import re
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models import Variable
from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

from airflow_provider_browseract.emulator import EXPORT, HUMAN, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH, EmulatedFile
from airflow_provider_browseract.emulator.catalogue import results_for
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from tests.conftest import EXAMPLES, DagResult, somebody_resumes
from tests.helpers.cases import cases
from tests.helpers.local_airflow import wait_for
from tests.helpers.warehouse.sqlite_provider import CONN_TYPE

pytestmark = pytest.mark.usefixtures("airflow_database")

NEXT_YEAR = datetime.now(timezone.utc).year + 1


@pytest.fixture
def warehouse(tmp_path, monkeypatch) -> Path:
    """A SQLite file behind the connection ``warehouse``."""
    file = tmp_path / "warehouse.db"
    connection = {"conn_type": CONN_TYPE, "host": str(file)}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    return file


@pytest.fixture
def login(monkeypatch):
    """The connection with the password of the shop, and the Variable in which the profile example keeps its login."""
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", '{"conn_type": "generic", "password": "hunter2"}')
    yield Variable
    Variable.delete("shop_login")


@pytest.fixture
def prepared(parse, run_dag, browseract_emulator, warehouse, login):
    """Parse an example whose runs take less than the grace, so that its retries begin at once."""
    browseract_emulator.set_workflow("*", duration=0.2)

    def prepare(name: str, dag_id: str = ""):
        dag = parse(EXAMPLES / f"example_browseract_{name}.py")[f"example_browseract_{dag_id or name}"]
        for task in dag.tasks:
            task.retry_delay = timedelta(0)
        return dag

    return prepare


@pytest.fixture
def run(prepared):
    """Run an example without a logical date, and check how its DAG run ends."""

    def run_(name: str, conf: dict | None = None, state: str = "success", run_after: datetime | None = None):
        result = DagResult(prepared(name).test(run_conf=conf, logical_date=None, run_after=run_after))
        assert result.state == state
        return result

    return run_


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_has_two_retries_and_names_the_ids_to_replace_in_its_docs(example, parse):
    dags = parse(example)
    assert example.stem in dags
    constants = re.findall(r"^([A-Z_]+) = ", example.read_text(), re.MULTILINE)
    assert constants
    for dag in dags.values():
        assert {task.retries for task in dag.tasks} == {2}
        replaced = dag.doc_md.partition("\n\nReplace before you use it:\n\n")[2]
        assert all(f"- `{name}`: " in replaced for name in constants)


def test_recipes_list_the_nine_examples():
    recipes = (EXAMPLES.parent / "docs" / "recipes.md").read_text()
    listed = re.findall(r"^\| [^|]+ \| \[(\w+)\]\(\.\./example_dags/\1\.py\) \| \[", recipes, re.MULTILINE)
    assert sorted(listed) == [path.stem for path in sorted(EXAMPLES.glob("*.py"))]
    assert len(listed) == 9


@cases(
    ("many", "many", SEARCH),
    ("person", "person", HUMAN),
    ("log in", "profile", LOG_IN),
    ("use of the login", "profile", ORDERS),
)
def test_failed_runs_of_an_example_fail_its_dag_run(run, browseract_emulator, name, workflow):
    browseract_emulator.set_workflow(workflow.id, outcome="failed", duration=0.2, pause_at=None)
    run(name, {"keywords": ["laptops"]} if name == "many" else None, "failed")
    runs = [task for task in browseract_emulator.tasks if task.workflow_id == workflow.id]
    assert {task.status for task in runs} == {"failed"}


def test_search_example_passes_its_output_to_next_task(run, browseract_emulator):
    result = run("search")
    assert len(result.xcom("search")) == 3
    assert result.xcom("cheapest") == min(result.xcom("search"), key=lambda row: row["price"])


class TestCallbackExample:
    def test_callback_example_has_its_run_call_airflow(self, run, browseract_emulator):
        result = run("callback")
        [task] = browseract_emulator.tasks
        assert "/browseract/callback/" in task.callback_url
        assert len(result.xcom("search")) == 3

    def test_callback_example_without_an_address_starts_no_run(self, run, browseract_emulator, connect):
        connect({})
        run("callback", state="failed")
        assert browseract_emulator.tasks == []

    def test_callback_example_stops_a_run_above_its_cap_and_starts_no_other(
        self, run, browseract_emulator, short_timings
    ):
        browseract_emulator.set_workflow(SEARCH.id, step_every=0.2)
        run("callback", state="failed")
        [task] = browseract_emulator.tasks
        assert task.status == "canceled"
        assert task.credit > 100


class TestProfileExample:
    WEEK = timedelta(days=7)

    @staticmethod
    def profile_of(workflow_id: str, **inputs: str) -> str:
        """Run a workflow without Airflow, and return the profile that the run has saved."""
        hook = BrowserActHook()
        created = hook.run_task(workflow_id, inputs, save_browser_data=True)
        wait_for("The end of the run", lambda: hook.get_task_status(created.id).ended, timeout=60)
        profile_id = hook.get_task(created.id).profile_id
        assert profile_id
        return profile_id

    def log_in(self) -> str:
        return self.profile_of(LOG_IN.id, username="ada", password="hunter2")

    @staticmethod
    def keep(login, profile_id: str, of: datetime) -> None:
        login.set("shop_login", {"profile_id": profile_id, "of": of.isoformat()}, serialize_json=True)

    @staticmethod
    def kept(login) -> dict:
        return login.get("shop_login", deserialize_json=True)

    def test_first_dag_run_logs_in_with_the_password_of_the_connection(self, run, browseract_emulator, login):
        now = datetime.now(timezone.utc)
        result = run("profile", run_after=now)
        log_in, orders = browseract_emulator.tasks
        assert dict(log_in.inputs) == {"username": "ada", "password": "hunter2"}
        assert orders.profile_id == log_in.profile_id
        assert {order["customer"] for order in result.xcom("orders")} == {"ada"}
        assert result.xcom("total") == sum(order["total"] for order in result.xcom("orders"))
        assert self.kept(login) == {"profile_id": log_in.profile_id, "of": now.isoformat()}

    @cases(
        ("a day", timedelta(days=1), False),
        ("almost a week", WEEK - timedelta(seconds=1), False),
        ("a week", WEEK, True),
        ("earlier than the login", -WEEK, False),
    )
    def test_login_is_used_for_a_week(self, run, browseract_emulator, login, age, again):
        now = datetime.now(timezone.utc)
        self.keep(login, self.log_in(), now - age)
        run("profile", run_after=now)
        first, *later, orders = browseract_emulator.tasks
        assert [task.workflow_id for task in later] == [LOG_IN.id] * again
        assert orders.workflow_id == ORDERS.id
        newest = later[0] if again else first
        assert orders.profile_id == self.kept(login)["profile_id"] == newest.profile_id

    def test_newer_login_is_not_replaced_by_an_older_one(self, prepared, browseract_emulator, login):
        now, newer = datetime.now(timezone.utc), self.log_in()
        dag = prepared("profile")

        def keep_newer(context) -> None:
            self.keep(login, newer, now + timedelta(days=1))

        dag.get_task("log_in").on_success_callback = [keep_newer]
        result = DagResult(dag.test(logical_date=None, run_after=now))
        assert (result.state, result.task("log_in").state) == ("success", "success")
        assert browseract_emulator.tasks[-1].profile_id == self.kept(login)["profile_id"] == newer

    def test_expired_login_fails_the_dag_run(self, run, browseract_emulator, login, caplog, capfd):
        self.keep(login, self.profile_of(ORDERS.id), datetime.now(timezone.utc))
        result = run("profile", state="failed")
        assert result.task("total").state == "failed"
        assert "Delete the Variable shop_login" in caplog.text + "".join(capfd.readouterr())
        # One run for the orders, although the last task was tried three times.
        assert [task.workflow_id for task in browseract_emulator.tasks] == [ORDERS.id] * 2


def test_many_example_starts_a_run_for_each_keyword_of_its_dag_runs_year_and_collects_the_titles(
    run, browseract_emulator
):
    result = run("many", {"keywords": ["laptops", "phones"]}, run_after=datetime(NEXT_YEAR, 1, 1, tzinfo=timezone.utc))
    # Airflow runs mapped task instances in any order.
    inputs = sorted((dict(task.inputs) for task in browseract_emulator.tasks), key=lambda each: each["keyword"])
    assert inputs == [{"keyword": f"{each} {NEXT_YEAR}", "max_items": "2"} for each in ("laptops", "phones")]
    rows = [row for index in range(2) for row in result.xcom("search", map_index=index)]
    assert result.xcom("titles") == [row["title"] for row in rows]
    assert len(rows) == 4


def test_template_example_runs_the_template_as_a_workflow_and_as_a_bot(run, browseract_emulator):
    result = run("template")
    started = {(str(task.api_version), task.workflow_id, task.proxy_region) for task in browseract_emulator.tasks}
    assert started == {("v2", TEMPLATE_SEARCH.id, "DE"), ("v3", TEMPLATE_SEARCH.id, "DE")}
    assert result.xcom("search") == result.xcom("search_as_bot")
    assert len(result.xcom("search")) == 3


def test_bot_example_sends_an_integer_for_a_rendered_text_and_passes_a_value_of_the_output_on(run, browseract_emulator):
    result = run("bot")
    assert dict(browseract_emulator.tasks[0].inputs) == {"company_name": "Example Corp", "max_pages": 2}
    assert result.xcom("website") == result.xcom("find")["official_website_url"]


def test_person_example_notifies_with_links_and_succeeds_after_resume(run, browseract_emulator, caplog):
    browseract_emulator.set_workflow(HUMAN.id, duration=0.4, pause_limit=600.0)
    with somebody_resumes(browseract_emulator, lambda: "Help at" in caplog.text):
        run("person")
    # The log of the Airflow UI makes a link of everything up to the next space.
    assert re.search(rf"Help at http://\S+/live/{browseract_emulator.tasks[0].id} and answer at ", caplog.text)


class TestOtherRunsExample:
    @cases(("run finishes", "finished", "success"), ("run fails", "failed", "failed"))
    def test_other_runs_example_ends_as_the_run_whose_id_it_gets(self, run, browseract_emulator, outcome, state):
        browseract_emulator.set_workflow(ORDERS.id, outcome=outcome)
        created = BrowserActHook().run_task(ORDERS.id)
        result = run("other_runs", {"browseract_task_id": created.id}, state)
        [task] = browseract_emulator.tasks
        assert task.status == outcome
        assert result.xcom("use") == (json.loads(task.output) if outcome == "finished" else None)

    def test_other_runs_example_needs_an_id(self, prepared):
        with pytest.raises(Exception, match="browseract_task_id"):  # whose class depends on the version of Airflow
            prepared("other_runs").test(run_conf={"browseract_task_id": ""})

    def test_outside_example_reads_the_runs_that_finished(self, prepared, browseract_emulator):
        dag = prepared("other_runs", "outside")
        [orders] = dag.schedule
        [watcher] = orders.watchers
        assert watcher.trigger.status == ["finished"]
        created = BrowserActHook().run_task(ORDERS.id)
        browseract_emulator.wait_until(lambda: browseract_emulator.tasks[0].status == "finished")
        # Airflow passes the events only to DAG runs that its scheduler has created.
        extra = {"from_trigger": True, "payload": {"tasks": [{"task_id": created.id}]}}
        event: Any = SimpleNamespace(asset=orders, source_aliases=[], extra=extra)
        read = dag.get_task("read").python_callable(TriggeringAssetEventsAccessor.build([event]))
        assert read == {created.id: browseract_emulator.tasks[0].output}


class TestExportExample:
    @staticmethod
    def rows(warehouse: Path) -> list[tuple]:
        with closing(sqlite3.connect(warehouse)) as database:
            return database.execute("SELECT run, title, price FROM prices ORDER BY rowid").fetchall()

    def test_export_example_loads_the_rows_of_its_file_into_the_database(self, run, warehouse, tmp_path):
        store = f"file://{tmp_path}/results"
        result = run("export", {"store": store})
        manifest, run_id = result.xcom("export"), result.xcom("export", "task_id")
        assert manifest["path"] == f"{store}/{run_id}"
        [file] = manifest["files"]
        assert Path(file["path"].removeprefix("file://")).stat().st_size == file["size"]
        expected = [(run_id, row["title"], row["price"]) for row in results_for("laptops", 3)]
        assert self.rows(warehouse) == expected
        assert result.xcom("load") == 3

    def test_later_try_of_the_export_example_replaces_rows_and_keeps_those_of_other_runs(
        self, prepared, warehouse, tmp_path
    ):
        dag = prepared("export")
        load = dag.get_task("load")
        loaded, tries = load.python_callable, count()

        def load_twice(*arguments):
            loaded(*arguments)
            if next(tries) == 0:
                raise OSError("The database has restarted")

        load.python_callable = load_twice
        for _ in range(2):
            assert str(dag.test(run_conf={"store": f"file://{tmp_path}/results"}).state) == "success"
        runs = [run for run, _, _ in self.rows(warehouse)]
        assert [runs.count(run) for run in dict.fromkeys(runs)] == [3, 3]

    def test_export_example_loads_files_with_unusual_names_from_s3(self, run, s3, browseract_emulator, warehouse):
        files = (
            EmulatedFile("rows [1].csv", b"rank,title,price\n1,a pen,2.5\n"),
            EmulatedFile("a#b%20c&d.csv", b'rank,title,price\n2,"ink, blue",3\n'),
        )
        browseract_emulator.set_workflow(EXPORT.id, files=(), downloads=files)
        result = run("export", {"store": "s3://local_s3@results/browseract"})
        run_id = result.xcom("export", "task_id")
        assert self.rows(warehouse) == [(run_id, "a pen", 2.5), (run_id, "ink, blue", 3)]
        listed = s3.list_objects_v2(Bucket="results", Prefix=f"browseract/{run_id}/")["Contents"]
        names = {each["Key"].rpartition("/")[2] for each in listed}
        assert names == {"rows [1].csv", "a#b%20c&d.csv", "task.json"}

    def test_export_example_with_missing_s3_bucket_fails_without_starting_a_run(self, run, s3, browseract_emulator):
        run("export", {"store": "s3://local_s3@nowhere/browseract"}, "failed")
        assert browseract_emulator.tasks == []

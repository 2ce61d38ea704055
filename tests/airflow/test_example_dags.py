"""Each example, as it stands, run to its end against the emulator."""

import re
from pathlib import Path

import pytest
from airflow.models import Pool

from airflow_provider_browseract.emulator import (
    CONTACTS,
    EXPORT,
    HUMAN,
    LOG_IN,
    ORDERS,
    SEARCH,
    TEMPLATE_SEARCH,
    EmulatedFile,
)
from tests.conftest import EXAMPLES, somebody_resumes
from tests.helpers.cases import cases

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture
def run(run_dag, browseract_emulator):
    """Run an example against workflows that take less than the grace, and check how its run ends."""
    Pool.create_or_update_pool("browseract", slots=5, description="", include_deferred=True)
    for workflow in (CONTACTS, EXPORT, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH):
        browseract_emulator.set_workflow(workflow.id, duration=0.2)

    def run_(name: str, conf: dict | None = None, state: str = "success"):
        result = run_dag(f"example_browseract_{name}", conf)
        assert result.state == state
        return result

    return run_


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_has_two_retries_and_names_the_ids_to_replace_in_its_docs(example, parse):
    [dag] = parse(example).values()
    assert {task.retries for task in dag.tasks} == {2}
    constants = re.findall(r"^([A-Z_]+) = ", example.read_text(), re.MULTILINE)
    assert constants
    _, heading, replaced = dag.doc_md.partition("\n\nReplace before you use it:\n\n")
    assert heading
    assert all(f"- `{name}`: " in replaced for name in constants)


def test_every_example_is_in_the_gallery():
    gallery = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    listed = re.findall(r"^\| [^|]+ \| \[(\w+)\] \| \[", gallery, re.MULTILINE)
    addresses = dict(re.findall(r"^\[(\w+)\]: (\S+)$", gallery, re.MULTILINE))
    assert sorted(listed) == sorted(addresses) == [path.stem for path in sorted(EXAMPLES.glob("*.py"))]
    assert all(address.endswith(f"/example_dags/{name}.py") for name, address in addresses.items())


def test_search_example_passes_its_output_to_next_task(run, browseract_emulator):
    result = run("search")
    assert len(result.xcom("search")) == 3
    assert result.xcom("cheapest") == min(result.xcom("search"), key=lambda row: row["price"])


def test_profile_example_reuses_login_profile_in_two_runs(run, browseract_emulator):
    result = run("profile")
    profile = result.xcom("log_in", "profile_id")
    tasks = browseract_emulator.tasks
    assert [task.profile_id for task in tasks] == [profile, profile, profile]
    assert result.xcom("orders") == result.xcom("orders_again")
    assert {order["customer"] for order in result.xcom("orders")} == {"ada"}


@cases(
    ("keywords", "keywords", {"keywords": ["laptops", "phones"]}, [2, 2]),
    ("template", "template", None, [3]),
    ("bot template", "bot_template", None, [3, 3]),
    ("decorated", "decorated", None, [2, 2]),
)
def test_example_starts_one_run_for_each_input_and_returns_its_rows(run, browseract_emulator, name, conf, rows_of_runs):
    result = run(name, conf)
    assert len(browseract_emulator.tasks) == len(rows_of_runs)
    indexes = [-1] if len(rows_of_runs) == 1 else range(len(rows_of_runs))
    assert [len(result.xcom("search", map_index=index)) for index in indexes] == rows_of_runs


def test_bot_example_sends_an_integer_for_a_rendered_text_and_passes_a_value_of_the_output_on(run, browseract_emulator):
    result = run("bot")
    assert dict(browseract_emulator.tasks[0].inputs) == {"company_name": "Example Corp", "max_pages": 2}
    assert result.xcom("website") == result.xcom("find")["official_website_url"]


def test_elsewhere_example_starts_run_in_one_task_and_waits_in_another(run, browseract_emulator):
    result = run("elsewhere")
    [task] = browseract_emulator.tasks
    assert result.xcom("orders")["logged_in"] is False
    assert result.xcom("stop") == {task.id: "ended"}


def test_elsewhere_example_fails_with_its_run_although_the_last_task_succeeds(run, browseract_emulator):
    browseract_emulator.set_workflow(ORDERS.id, outcome="failed")
    result = run("elsewhere", state="failed")
    assert (result.task("orders").state, result.task("stop").state) == ("failed", "success")


def test_person_example_notifies_with_links_and_succeeds_after_resume(run, browseract_emulator, caplog):
    browseract_emulator.set_workflow(HUMAN.id, duration=0.4, pause_limit=600.0)
    with somebody_resumes(browseract_emulator, lambda: "Help at" in caplog.text):
        run("person")
    # The log of the Airflow UI makes a link of everything up to the next space.
    assert re.search(rf"Help at http://\S+/live/{browseract_emulator.tasks[0].id} and answer at ", caplog.text)


def test_outside_example_watches_for_runs_that_finished(parse):
    dag = parse(EXAMPLES / "example_browseract_outside.py")["example_browseract_outside"]
    [orders] = dag.schedule
    [watcher] = orders.watchers
    assert watcher.trigger.status == ["finished"]


class TestExportExample:
    def test_export_example_writes_to_folder_and_loads_each_file(self, run, tmp_path):
        store = f"file://{tmp_path}/results"
        result = run("export", {"store": store})
        manifest = result.xcom("export")
        assert manifest["path"] == f"{store}/{result.xcom('export', 'task_id')}"
        [file] = manifest["files"]
        assert Path(file["path"].removeprefix("file://")).stat().st_size == file["size"]
        assert [row["rank"] for row in result.xcom("load", map_index=0)] == ["1", "2", "3"]

    def test_export_example_writes_files_with_unusual_names_to_s3_and_loads_each(self, run, s3, browseract_emulator):
        files = (EmulatedFile("rows [1].csv", b"rank\n1\n"), EmulatedFile("a#b%20c&d.csv", b"rank\n2\n"))
        browseract_emulator.set_workflow(EXPORT.id, files=(), downloads=files)
        result = run("export", {"store": "s3://local_s3@results/browseract"})
        assert [result.xcom("load", map_index=index) for index in range(2)] == [[{"rank": "1"}], [{"rank": "2"}]]
        manifest = result.xcom("export")
        folder = manifest["path"].removeprefix("s3://local_s3@results/")
        found = {each["Key"]: each["Size"] for each in s3.list_objects_v2(Bucket="results", Prefix=folder)["Contents"]}
        assert found.keys() == {f"{folder}/{name}" for name in (*(each.name for each in files), "task.json")}
        assert all(found[f"{folder}/{file['name']}"] == file["size"] for file in manifest["files"])

    def test_export_example_with_missing_s3_bucket_fails_without_starting_a_run(self, run, s3, browseract_emulator):
        run("export", {"store": "s3://local_s3@nowhere/browseract"}, "failed")
        assert browseract_emulator.tasks == []

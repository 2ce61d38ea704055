"""The examples, as they stand. Those without people and stores run only in `tests/e2e`, in a real Airflow."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_browseract.emulator import EXPORT, HUMAN, LOG_IN, ORDERS, SEARCH, EmulatedFile
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from tests.conftest import EXAMPLES
from tests.e2e.local_airflow import wait_for

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture
def run(run_dag, browseract_emulator):
    """Run an example against workflows that take less than the grace."""
    from airflow.models import Pool

    Pool.create_or_update_pool("browseract", slots=5, description="", include_deferred=True)
    for workflow in (EXPORT, LOG_IN, ORDERS, SEARCH):
        browseract_emulator.emulator.set_workflow(workflow.id, duration=0.2)
    return run_dag


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_names_the_ids_to_replace_in_its_docs(example, parse):
    [dag] = parse(example).values()
    constants = re.findall(r"^([A-Z_]+) = ", example.read_text(), re.MULTILINE)
    assert constants
    _, heading, replaced = dag.doc_md.partition("\n\nReplace before you use it:\n\n")
    assert heading
    assert all(f"- `{name}`: " in replaced for name in constants)


def test_person_example_notifies_with_links_and_succeeds_after_resume(run, browseract_emulator, caplog):
    emulator = browseract_emulator.emulator
    emulator.set_workflow(HUMAN.id, duration=0.4, pause_limit=600.0)

    def help_the_run() -> None:
        wait_for("The notification", lambda: "Help at" in caplog.text, timeout=120)
        BrowserActHook().resume_task(emulator.tasks[0].id)

    with ThreadPoolExecutor(1) as person:
        helping = person.submit(help_the_run)
        result = run("example_browseract_person")
        helping.result()
    assert result.state == "success"
    # The log of the Airflow UI makes a link of everything up to the next space.
    assert re.search(rf"Help at http://\S+/live/{browseract_emulator.emulator.tasks[0].id} and answer at ", caplog.text)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_every_task_of_example_dag_has_two_retries(parse, file):
    assert {task.retries for task in parse(file)[file.stem].tasks} == {2}


def test_outside_example_watches_for_runs_that_finished(parse):
    dag = parse(EXAMPLES / "example_browseract_outside.py")["example_browseract_outside"]
    [orders] = dag.schedule
    [watcher] = orders.watchers
    assert watcher.trigger.status == ["finished"]


class TestExportExample:
    def test_export_example_loads_files_with_unusual_names_from_s3(self, run, s3, browseract_emulator):
        files = (EmulatedFile("rows [1].csv", b"rank\n1\n"), EmulatedFile("a#b%20c&d.csv", b"rank\n2\n"))
        browseract_emulator.emulator.set_workflow(EXPORT.id, files=(), downloads=files)
        result = run("example_browseract_export", {"store": "s3://local_s3@results/browseract"})
        assert result.state == "success"
        assert [result.xcom("load", map_index=index) for index in range(2)] == [[{"rank": "1"}], [{"rank": "2"}]]

    def test_export_example_writes_to_s3_and_loads_each_file(self, run, s3, capsys):
        store = "s3://local_s3@results/browseract"
        result = run("example_browseract_export", {"store": store})
        assert result.state == "success"
        assert [row["rank"] for row in result.xcom("load", map_index=0)] == ["1", "2", "3"]
        manifest = result.xcom("export")
        assert manifest["path"] == f"{store}/{result.xcom('export', 'task_id')}"
        folder = manifest["path"].removeprefix("s3://local_s3@results/")
        listed = s3.list_objects_v2(Bucket="results", Prefix=folder)["Contents"]
        found = {each["Key"]: each["Size"] for each in listed}
        assert found.keys() == {f"{folder}/results.csv", f"{folder}/task.json"}
        assert [file["size"] for file in manifest["files"]] == [found[f"{folder}/results.csv"]]
        with capsys.disabled():
            print("\nManifest of a run whose results lie in S3:", json.dumps(manifest, indent=2))

    def test_export_example_with_missing_s3_bucket_fails_without_starting_a_run(self, run, s3, browseract_emulator):
        result = run("example_browseract_export", {"store": "s3://local_s3@nowhere/browseract"})
        assert result.state == "failed"
        assert browseract_emulator.emulator.tasks == []

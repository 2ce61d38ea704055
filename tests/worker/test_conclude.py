"""A finished run whose output is late, whose results are written, or cannot be: no result is lost or paid twice."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from airflow.sdk import Asset

from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.compat import AirflowFailException, AirflowTaskTimeout
from airflow_provider_browseract.emulator import CONTACTS, EXPORT, ORDERS, SEARCH, EmulatedFile, RequestFault
from airflow_provider_browseract.exceptions import ResultError, StorageError
from airflow_provider_browseract.operators.browseract import RunBotOperator
from airflow_provider_browseract.results.folder import Folder
from airflow_provider_browseract.results.store import Results, ResultStore
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.worker import conclude, showing
from airflow_provider_browseract.worker.conclude import read_again
from airflow_provider_browseract.worker.lineage import lineage_of
from tests.conftest import connect
from tests.helpers.cases import cases, raising
from tests.helpers.catalogue import DOWNLOAD, PLAIN_TEXT
from tests.helpers.workers import BOTH_WAYS, PENS, calls_of, emulator, worker

__all__ = ["connect", "emulator", "worker"]

pytestmark = pytest.mark.usefixtures("short_patience", "short_timings")

TEXT: dict[str, Any] = {"workflow_id": PLAIN_TEXT.id}
DOWN = RequestFault.status(503)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def export(worker, folder):
    return partial(worker, workflow_id=EXPORT.id, input_parameters=PENS, output_path=str(folder))


@pytest.fixture
def download(worker, emulator, folder):
    def make(*files, **arguments):
        emulator.set_workflow(DOWNLOAD.id, downloads=files)
        return worker(workflow_id=DOWNLOAD.id, input_parameters=PENS, output_path=str(folder), **arguments)

    return make


class TestLateOutput:
    @cases({"not remembered": (False, 1), "last try": (True, 0), "next try": (True, 1)})
    def test_kill_leaves_late_output_to_the_next_try_if_it_can_read_it(
        self, search, emulator, store, logs, remembered, retries
    ):
        emulator.set_workflow(SEARCH.id, output_after=0.2)
        attempt = search(store=store if remembered else None, max_tries=retries)

        def killed_and_following(*given):
            attempt.made.on_kill()
            return read_again(*given)

        with patch.object(conclude, "read_again", killed_and_following):
            if remembered and retries:
                with pytest.raises(ResultError, match="process was ended before its results were complete"):
                    attempt.run()
            else:
                assert len(attempt.run()) == 2
        # The run has ended, so there is nothing to decide.
        assert calls_of(emulator, "stop-task") == 0
        assert "Killed" not in logs()


def test_kill_while_files_are_in_preparation_leaves_them_to_the_next_try(download, emulator, store):
    run = download(EmulatedFile("late.csv", b"a,b", prepared_after=600.0), store=store, max_tries=1)
    reads = []

    def kill_at_the_third_read_after_the_end(operator) -> None:
        if emulator.tasks and emulator.tasks[0].finished_at:
            reads.append(1)
        if len(reads) == 3:
            operator.on_kill()

    run.at_calls(before=kill_at_the_third_read_after_the_end)
    with pytest.raises(ResultError, match=r"before its results were complete\.\nBrowserAct still has its output\."):
        run.run()


OVER, EXPIRED = AirflowTaskTimeout("Timeout"), "execution_timeout expired while its results were"


class TestErrors:
    @cases(
        ("time is over at a read", conclude, "read_again", OVER, f"{EXPIRED} being read"),
        ("time is over at a write", ResultStore, "save", OVER, f"{EXPIRED} being written"),
        ("unexpected", conclude, "read_output", MemoryError("too much"), "could not be read: MemoryError: too much"),
        ("full store", ResultStore, "save", StorageError("no space left"), "could not be written: no space left"),
    )
    def test_error_after_the_end_allows_a_retry_only_if_the_run_is_remembered(
        self, worker, export, emulator, store, where, name, error, words
    ):
        make = export if where is ResultStore else partial(worker, workflow_id=ORDERS.id)
        match = rf"{words}\.\nBrowserAct still has its output\.\nLog: http"
        for kept, raised in ((None, AirflowFailException), (store, ResultError)):
            with patch.object(where, name, raising(error)), pytest.raises(raised, match=match):
                make(store=kept).run()
        assert make(store=store).run()
        assert len(emulator.tasks) == 2

    def test_path_that_is_empty_after_the_deferral_is_an_error_and_the_output_is_not_returned_instead(self, export):
        run = export(deferrable=True)
        deferred = run.defer()
        event = run.wait_in_triggerer(deferred)
        run.arguments["output_path"] = ""
        with pytest.raises(AirflowFailException, match=r"its results could not be written: .*output_path"):
            run.resume(deferred, event)

    def test_failed_download_raises_and_a_retry_fetches_only_that_file(self, download, emulator, store, monkeypatch):
        counted = []
        monkeypatch.setattr(showing, "count_in_task", lambda name, **how: counted.append(name))
        run = partial(download, EmulatedFile("a.csv", b"a"), EmulatedFile("b.csv", b"bb"), store=store)
        emulator.fault("download-file", DOWN, times=None, skip=1)
        missing = r"(?s)1 of 2 files are missing \(.*HTTP 503\).*BrowserAct still has its output"
        with pytest.raises(ResultError, match=missing):
            run().run()
        # The retry counts the run.
        assert counted == []
        emulator.clear_faults()
        before = calls_of(emulator, "download-file")
        manifest = run().run()
        assert sorted(file["size"] for file in manifest["files"]) == [1, 2]
        assert calls_of(emulator, "download-file") == before + 1
        assert len(emulator.tasks) == 1
        assert counted == ["browseract.runs", "browseract.credits"]

    def test_file_that_browseract_lacks_is_named_and_fails_without_a_retry(self, download, emulator, folder, store):
        broken = EmulatedFile("b.pdf", b"", broken="404 at the shop")
        with pytest.raises(AirflowFailException, match=r"b\.pdf: 404 at the shop.*The others are in"):
            download(EmulatedFile("good.csv", b"a"), broken, store=store).run()
        assert (folder / emulator.tasks[0].id / "good.csv").read_bytes() == b"a"

    def test_text_in_the_wrong_format_is_still_written_and_reported_with_its_path(self, worker, emulator, folder):
        emulator.set_workflow(PLAIN_TEXT.id, output="No results")
        stored = rf"(?s)is not json: Expecting .* stored in {folder}/.*output\.txt"
        with pytest.raises(AirflowFailException, match=stored):
            worker(**TEXT, output_format="json", output_path=str(folder)).run()
        assert (folder / emulator.tasks[0].id / "output.txt").read_text() == "No results"


class TestOutputPath:
    @BOTH_WAYS
    def test_output_path_gets_all_results_and_a_manifest_is_returned(self, export, emulator, folder, logs, deferrable):
        content = b"a" * (20 * 1024 - 6)
        emulator.set_workflow(EXPORT.id, output="[1, 2]", files=(EmulatedFile("results.csv", content, "text/csv"),))
        manifest = export(output_path=f"file://{folder}", deferrable=deferrable).run()
        task_id = emulator.tasks[0].id
        path = f"file://{folder}/{task_id}"

        def described(name, size, media_type):
            return {"name": name, "path": f"{path}/{name}", "size": size, "media_type": media_type}

        output = described("output.json", 6, "application/json")
        file = described("results.csv", len(content), "text/csv")
        assert manifest == {"path": path, "task": f"{path}/task.json", "output": output, "files": [file]}
        log = logs()
        assert f"Writing 1 file to {path}." in log
        assert f"Wrote 2 files (20.0 KiB) to {path}." in log
        assert (folder / task_id / "results.csv").read_bytes() == content
        assert json.loads((folder / task_id / "output.json").read_text()) == [1, 2]
        assert json.loads((folder / task_id / "task.json").read_text())["status"] == "finished"
        assert not any(request.with_key for request in emulator.requests if request.endpoint == "download-file")

    def test_expired_link_of_a_bot_is_read_again_in_its_version_of_the_api(self, worker, emulator, folder):
        emulator.fault("download-file", RequestFault.status(403), times=1)
        bot = {"operator_class": RunBotOperator, "bot_id": CONTACTS.id, "input": {"company_name": "Example Corp"}}
        returned = worker(**bot, output_path=str(folder)).run()
        path = Path(returned["path"])
        assert json.loads((path / "output.json").read_text())["company_name"] == "Example Corp"
        assert [file["name"] for file in returned["files"]] == [
            f"result.{each}" for each in ("json", "md", "csv", "xml")
        ]
        assert "Example Corp" not in (path / "task.json").read_text()
        endpoints = [request.endpoint for request in emulator.requests]
        assert "query-run" in endpoints[endpoints.index("download-file") :]
        assert "get-task" not in endpoints

    def test_unreachable_output_path_does_not_prevent_a_reattach(self, worker, emulator, folder, store, monkeypatch):
        emulator.set_workflow(ORDERS.id, duration=0.5)
        arguments = {"workflow_id": ORDERS.id, "output_path": str(folder), "store": store}
        worker(deferrable=True, **arguments).defer()
        monkeypatch.setattr(Folder, "check", raising(StorageError("no network")))
        assert worker(**arguments).run()["output"]["name"] == "output.json"
        assert len(emulator.tasks) == 1

    def test_output_path_is_checked_before_each_start(self, worker, emulator, folder):
        emulator.fault("run-task", RequestFault.refused(10118), times=3)
        with patch.object(Folder, "check", autospec=True, side_effect=Folder.check) as check:
            for deferrable in (True, False):
                worker(workflow_id=ORDERS.id, output_path=str(folder), deferrable=deferrable).run()
        assert (calls_of(emulator, "run-task"), check.call_count) == (5, 5)


def test_outlet_event_and_openlineage_have_the_run_its_facts_and_its_paths(export, emulator, folder):
    asset, event = Asset("pens"), SimpleNamespace(extra={})
    run = export(outlets=[asset])
    run.context["outlet_events"] = {asset: event}
    operator = run.operator()
    before = operator.get_openlineage_facets_on_complete(None)
    assert (len(before.inputs), before.outputs, before.run_facets) == (1, [], {})
    manifest = operator.execute(run.context)
    assert event.extra == {
        "browseract_task_id": emulator.tasks[0].id,
        "counts": {"steps": 3, "output_files": 1, "download_files": 0},
        "path": manifest["path"],
        "files": [file["path"] for file in manifest["files"]],
    }
    lineage = operator.get_openlineage_facets_on_complete(None)
    [workflow] = lineage.inputs
    assert workflow.name == f"workflow/{EXPORT.id}"
    assert f"http://{workflow.namespace.removeprefix('browseract://')}" == operator.hook.settings.base_url
    assert [dataset.name for dataset in lineage.outputs] == [f"{folder}/{emulator.tasks[0].id}"]
    assert lineage.run_facets["browseract_task"].task["status"] == "finished"


@cases(
    ("s3", "s3://aws@bucket/a/b", SourceKind.WORKFLOW, ("s3://bucket", "a/b/7"), "workflow/82"),
    ("gs", "gs://bucket", SourceKind.TEMPLATE, ("gs://bucket", "7"), "template/82"),
    ("file", "file:///data/x", SourceKind.BOT, ("file", "/data/x/7"), "bot/82"),
    ("plain path", "/data/x", SourceKind.BOT_TEMPLATE, ("file", "/data/x/7"), "bot_template/82"),
)
def test_openlineage_names_what_was_run_and_the_storage_of_output_path(path, kind, dataset, name):
    done: Any = SimpleNamespace(results=Results(f"{path}/7"), task=Task(id="7", status=TaskStatus.FINISHED))
    lineage = lineage_of(Source(kind, "82"), "https://api.browseract.com", done)
    named = [(each.namespace, each.name) for each in (*lineage.inputs, *lineage.outputs)]
    assert named == [("browseract://api.browseract.com", name), dataset]

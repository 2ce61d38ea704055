"""The output of a run: the returned value, the written files, and the reports about the run."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.bases.xcom import BaseXCom

from airflow_provider_browseract import loops as steps
from airflow_provider_browseract.api import models
from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.compat import AirflowFailException, AirflowTaskTimeout, TaskDeferred
from airflow_provider_browseract.emulator import EXPORT, ORDERS, SEARCH, EmulatedFile, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow import showing
from airflow_provider_browseract.in_airflow.links import LiveViewLink
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.outcome import ResultError, RunFailedError, RunTimedOutError, StorageError
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.worker import conclusion
from airflow_provider_browseract.worker import results as storing
from airflow_provider_browseract.worker.download import Interrupted
from airflow_provider_browseract.worker.object_store import Folder
from airflow_provider_browseract.worker.results import ResultStore
from tests.catalogue import DOWNLOAD, FAILING, PLAIN_TEXT
from tests.workers import BOTH_WAYS, PENS, FakeTaskInstance, calls_of, refuse_xcoms

pytestmark = pytest.mark.usefixtures("short_patience", "short_timings")

LIVE, TASK, PANEL = "_link_LiveViewLink", "_link_BrowserActTaskLink", "_link_PanelLink"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where results are written."""
    return tmp_path / "results"


def with_an_outage(emulator):
    """Return the function that follows steps, with an API that is down from then on."""
    run_steps = steps.run_steps

    def follow_during_outage(*arguments, **options):
        emulator.fault("*", RequestFault.status(503), times=None)
        return run_steps(*arguments, **options)

    return follow_during_outage


def every_value_of(run, xcom: str) -> list:
    """Return a list that records the values of an XCom of a worker."""
    values, push = [], run.ti.xcom_push

    def noting(key, value):
        if key == xcom:
            values.append(value)
        push(key, value)

    run.ti.xcom_push = noting
    return values


class TestOutputFormat:
    def test_csv_output_is_returned_as_rows(self, worker, emulator):
        emulator.set_workflow(PLAIN_TEXT.id, output="\ufeffname,price\r\npen,1\r\n")
        run = worker(workflow_id=PLAIN_TEXT.id, output_format="csv", deferrable=True)
        assert run.run() == [{"name": "pen", "price": "1"}]

    def test_output_in_the_wrong_format_is_kept_in_an_xcom_and_fails_without_a_retry(self, worker, emulator):
        emulator.set_workflow(PLAIN_TEXT.id, output='[{"name": "pen",')
        run = worker(workflow_id=PLAIN_TEXT.id, output_format="json", deferrable=True)
        with pytest.raises(AirflowFailException, match=r"is not json: Expecting .* stored in the XCom output_text"):
            run.run()
        assert run.ti.xcoms["output_text"] == '[{"name": "pen",'
        assert "output_files" not in run.ti.xcoms

    def test_output_in_the_wrong_format_keeps_the_file_links_in_an_xcom(self, worker, emulator):
        emulator.set_workflow(EXPORT.id, output="{")
        run = worker(workflow_id=EXPORT.id, input_parameters=PENS, output_format="json")
        with pytest.raises(AirflowFailException, match="stored in the XCom output_files"):
            run.run()
        assert len(run.ti.xcoms["output_files"]) == 1

    @BOTH_WAYS
    @pytest.mark.parametrize(
        ("output_format", "text", "why"),
        [
            ("json", '[{"__id__": "a1"}]', "it has the key __id__, which Airflow reserves"),
            ("auto", '[{"__id__": "a1"}]', "it has the key __id__, which Airflow reserves"),
            ("csv", "__id__,b\n1,2\n", "it has the key __id__, which Airflow reserves"),
            ("json", "[" * 260 + "]" * 260, "it is nested more than 64 levels deep"),
            ("auto", '{"__type": "set", "__var": [1]}', "it has the key __type, which Airflow reserves"),
        ],
        ids=["json with __id__", "auto with __id__", "csv with __id__", "json too deep", "auto with __type"],
    )
    def test_value_that_airflow_cannot_store_is_returned_as_text_with_a_warning(
        self, worker, emulator, capfd, deferrable, output_format, text, why
    ):
        emulator.set_workflow(PLAIN_TEXT.id, output=text)
        run = worker(workflow_id=PLAIN_TEXT.id, output_format=output_format, deferrable=deferrable)
        returned = run.run()
        assert returned == text
        # What Airflow does next with the value.
        assert BaseXCom.serialize_value(returned) == text
        assert f"because Airflow cannot store the parsed value: {why}" in "".join(capfd.readouterr())

    def test_wrong_output_format_is_reported_even_if_the_text_cannot_be_kept(self, worker, emulator):
        emulator.set_workflow(PLAIN_TEXT.id, output="{")
        run = worker(workflow_id=PLAIN_TEXT.id, output_format="json", deferrable=True)
        refuse_xcoms(run, "output_text", reason="SlowDown")
        with pytest.raises(AirflowFailException, match=r"is not json: .* pushed as an XCom \(OSError: SlowDown\)"):
            run.run()

    @BOTH_WAYS
    def test_output_that_comes_after_the_status_is_returned_and_not_none(self, worker, emulator, deferrable, capfd):
        emulator.set_workflow(PLAIN_TEXT.id, output="All is well.", output_after=0.4)
        assert worker(workflow_id=PLAIN_TEXT.id, deferrable=deferrable).run() == "All is well."
        assert "has finished without output or files" in "".join(capfd.readouterr())

    def test_execution_timeout_while_output_is_late_does_not_pay_for_another_run(
        self, worker, emulator, store, monkeypatch
    ):
        emulator.set_workflow(PLAIN_TEXT.id, output="")

        def timed_out(*_, **__):
            raise AirflowTaskTimeout("Timeout")

        with monkeypatch.context() as patched:
            patched.setattr(conclusion, "run_steps", timed_out)
            with pytest.raises(
                AirflowFailException, match="execution_timeout expired while its results were being read"
            ):
                worker(workflow_id=PLAIN_TEXT.id).run()
            with pytest.raises(ResultError, match="execution_timeout expired while its results were being read"):
                worker(workflow_id=PLAIN_TEXT.id, store=store).run()
        assert worker(workflow_id=PLAIN_TEXT.id, store=store).run() is None
        assert len(emulator.tasks) == 2

    def test_output_that_cannot_be_read_at_last_is_an_error_and_not_none(self, worker, emulator, store, monkeypatch):
        emulator.next_run(PLAIN_TEXT.id, output="late", output_after=0.2)
        with monkeypatch.context() as patched:
            patched.setattr(conclusion, "run_steps", with_an_outage(emulator))
            with pytest.raises(ResultError, match="its results could not be read"):
                worker(workflow_id=PLAIN_TEXT.id, store=store).run()
        emulator.clear_faults()
        assert worker(workflow_id=PLAIN_TEXT.id, store=store).run() == "late"
        assert len(emulator.tasks) == 1

    @pytest.fixture
    def killed_while_output_is_late(self, worker, emulator, store, monkeypatch):
        """Run a try, and kill it when it begins to wait for output that comes some seconds after the end of its run."""
        run_steps = steps.run_steps

        def run(after: float, **arguments):
            emulator.set_workflow(SEARCH.id, output_after=after)
            made = worker(workflow_id=SEARCH.id, input_parameters=PENS, store=store, **arguments)
            made.ti.max_tries = arguments.get("retries", 0)
            # It decides by the class of the error.
            made.ti.task = SimpleNamespace(
                retry_policy=SimpleNamespace(
                    evaluate=lambda exception, **_: SimpleNamespace(
                        action="default" if isinstance(exception, ResultError) else "fail"
                    )
                )
            )
            operator = made.operator()

            def killed_and_following(*given, **options):
                operator.on_kill()
                return run_steps(*given, **options)

            monkeypatch.setattr(conclusion, "run_steps", killed_and_following)
            try:
                return operator.execute(made.context)
            finally:
                monkeypatch.setattr(conclusion, "run_steps", run_steps)

        return run

    @pytest.mark.parametrize("output_format", ["auto", "json", "text"])
    def test_kill_while_output_is_late_leaves_it_to_the_next_try_which_returns_it(
        self, killed_while_output_is_late, worker, emulator, store, output_format
    ):
        with pytest.raises(
            ResultError, match=r"finished, but its process was ended while its output was not available"
        ):
            killed_while_output_is_late(0.4, retries=1, output_format=output_format)
        run = worker(workflow_id=SEARCH.id, input_parameters=PENS, store=store, output_format=output_format)
        run.ti.try_number = 2
        assert run.run()
        assert len(emulator.tasks) == 1

    def test_kill_in_the_last_try_while_output_is_late_returns_the_output_if_it_comes_in_time(
        self, killed_while_output_is_late, emulator, capfd
    ):
        assert len(killed_while_output_is_late(0.2)) == 2
        # The run has ended, so there is nothing to decide.
        assert calls_of(emulator, "stop-task") == 0
        assert "Killed while" not in "".join(capfd.readouterr())

    def test_kill_in_the_last_try_fails_with_the_link_to_the_output_if_it_does_not_come_in_time(
        self, killed_while_output_is_late, emulator, monkeypatch
    ):
        monkeypatch.setattr(timings, "KILL_LIMIT", 0.3)
        monkeypatch.setattr(timings, "LATE_OUTPUT_PAUSES", (60.0,))
        with pytest.raises(
            ResultError, match=r"was not available yet\. Its output is still available in BrowserAct: http"
        ):
            killed_while_output_is_late(60.0)

    def test_kill_while_files_are_in_preparation_reports_that_they_are_not_kept(
        self, worker, emulator, folder, monkeypatch
    ):
        monkeypatch.setattr(timings, "KILL_LIMIT", 0.3)
        late = (EmulatedFile("late.csv", b"a,b", prepared_after=600.0),)
        emulator.set_workflow(DOWNLOAD.id, downloads=late)
        run = worker(workflow_id=DOWNLOAD.id, input_parameters=PENS, output_path=str(folder))
        operator = run.operator()

        def kill() -> None:
            emulator.wait_until(lambda: emulator.tasks and emulator.tasks[0].finished_at)
            read = calls_of(emulator, "get-task")
            emulator.wait_until(lambda: calls_of(emulator, "get-task") > read + 3)
            operator.on_kill()

        killing = threading.Thread(target=kill)
        killing.start()
        with pytest.raises(AirflowFailException, match="process was ended before all of its files were written"):
            operator.execute(run.context)
        killing.join()

    def test_kill_ends_a_download_and_reports_that_files_are_not_kept(self, worker, emulator, folder, monkeypatch):
        under_way, ended = threading.Event(), threading.Event()

        def fetch_until_stopped(store, *_) -> int:
            under_way.set()
            store._stop.wait(60)
            ended.set()
            raise Interrupted

        monkeypatch.setattr(ResultStore, "_fetch_once", fetch_until_stopped)
        emulator.set_workflow(DOWNLOAD.id, downloads=(EmulatedFile("a.csv", b"a,b"),))
        run = worker(workflow_id=DOWNLOAD.id, input_parameters=PENS, output_path=str(folder))
        operator = run.operator()
        killing = threading.Thread(target=lambda: under_way.wait(30) and operator.on_kill())
        killing.start()
        with pytest.raises(AirflowFailException, match="process was ended before all of its files were written"):
            operator.execute(run.context)
        assert ended.wait(10)
        killing.join()

    @pytest.mark.parametrize("with_path", [False, True], ids=["returned", "written"])
    def test_run_that_has_only_downloads_needs_no_text_in_the_declared_format(
        self, worker, emulator, folder, with_path
    ):
        emulator.set_workflow(DOWNLOAD.id, downloads=(EmulatedFile("a.csv", b"a", prepared_after=0.2),))
        given = {"output_path": str(folder)} if with_path else {}
        result = worker(workflow_id=DOWNLOAD.id, input_parameters=PENS, output_format="json", **given).run()
        assert (result["output"], len(result["files"])) == (None, 1 if with_path else 0)

    def test_run_without_output_is_read_again_before_none_is_returned(self, worker, emulator):
        emulator.set_workflow(PLAIN_TEXT.id, output="")
        before = calls_of(emulator, "get-task")
        assert worker(workflow_id=PLAIN_TEXT.id).run() is None
        assert calls_of(emulator, "get-task") - before > len(timings.LATE_OUTPUT_PAUSES)

    def test_ready_downloads_are_returned_and_the_log_names_the_number_of_those_that_are_not(
        self, worker, emulator, capfd
    ):
        files = (EmulatedFile("a.csv", b"a"), EmulatedFile("late.csv", b"b", prepared_after=600.0))
        emulator.set_workflow(DOWNLOAD.id, downloads=files)
        [url] = worker(workflow_id=DOWNLOAD.id, input_parameters=PENS).run()["files"]
        assert "/a.csv" in url
        assert "still preparing 1 of the run's files" in "".join(capfd.readouterr())

    def test_empty_output_fails_the_task_instance_if_json_is_expected(self, worker, emulator):
        emulator.set_workflow(PLAIN_TEXT.id, output="")
        run = worker(workflow_id=PLAIN_TEXT.id, output_format="json")
        with pytest.raises(AirflowFailException, match=r"is not json: the output is empty\. Fix output_format"):
            run.run()
        assert "output_text" not in run.ti.xcoms

    def test_retry_with_the_right_output_format_reads_the_same_run_and_starts_none(self, worker, emulator, store):
        emulator.set_workflow(PLAIN_TEXT.id, output="plain")
        with pytest.raises(AirflowFailException):
            worker(workflow_id=PLAIN_TEXT.id, output_format="json", store=store).run()
        assert worker(workflow_id=PLAIN_TEXT.id, output_format="text", store=store).run() == "plain"
        assert len(emulator.tasks) == 1

    @pytest.mark.parametrize(
        ("length", "warned"), [(1024 * 1024, False), (1024 * 1024 + 1, True)], ids=["at the limit", "over the limit"]
    )
    def test_value_over_the_size_limit_is_returned_with_a_warning_about_output_path(
        self, worker, emulator, capfd, length, warned
    ):
        emulator.set_workflow(PLAIN_TEXT.id, output="x" * length)
        assert worker(workflow_id=PLAIN_TEXT.id).run() == "x" * length
        assert (
            "Set output_path to write it to object storage and pass on only its path" in "".join(capfd.readouterr())
        ) is warned


class TestDoubtfulCsv:
    @BOTH_WAYS
    @pytest.mark.parametrize(
        ("text", "rows", "why"),
        [
            ("No results", [], "has a header line without any values"),
            ("name;price\npen;1\n", [{"name;price": "pen;1"}], "has a semicolon in its name"),
        ],
        ids=["message", "semicolons"],
    )
    def test_text_that_is_probably_not_csv_is_reported_and_kept_in_an_xcom(
        self, worker, emulator, capfd, deferrable, text, rows, why
    ):
        emulator.set_workflow(PLAIN_TEXT.id, output=text)
        run = worker(workflow_id=PLAIN_TEXT.id, output_format="csv", deferrable=deferrable)
        assert run.run() == rows
        assert run.ti.xcoms["output_text"] == text
        log = "".join(capfd.readouterr())
        assert why in log
        assert "The text is stored in the XCom output_text." in log

    def test_doubt_is_reported_even_if_the_text_cannot_be_kept(self, worker, emulator, capfd):
        emulator.set_workflow(PLAIN_TEXT.id, output="No results")
        run = worker(workflow_id=PLAIN_TEXT.id, output_format="csv")
        refuse_xcoms(run, "output_text", reason="SlowDown")
        assert run.run() == []
        assert "could not be pushed as an XCom (OSError: SlowDown)" in "".join(capfd.readouterr())

    def test_text_that_is_probably_not_csv_is_reported_with_the_path_where_it_was_written(
        self, worker, emulator, folder, capfd
    ):
        emulator.set_workflow(PLAIN_TEXT.id, output="No results")
        run = worker(workflow_id=PLAIN_TEXT.id, output_format="csv", output_path=str(folder))
        path = run.run()["output"]["path"]
        assert f"has a header line without any values. The text is stored in {path}." in "".join(capfd.readouterr())
        assert "output_text" not in run.ti.xcoms


class TestRunThatIsTooLarge:
    @pytest.fixture(autouse=True)
    def _small_limit(self, monkeypatch):
        monkeypatch.setattr("airflow_provider_browseract.api.bodies.MAX_RESPONSE", 100_000)

    @pytest.mark.parametrize("remembered", [False, True], ids=["not remembered", "remembered"])
    def test_output_that_is_too_large_fails_without_a_retry_and_names_where_it_is(
        self, worker, emulator, store, remembered
    ):
        emulator.next_run(PLAIN_TEXT.id, output="x" * 200_000, duration=0.3)
        run = worker(workflow_id=PLAIN_TEXT.id, deferrable=True, store=store if remembered else None)
        with pytest.raises(AirflowFailException) as caught:
            run.run()
        message = str(caught.value)
        assert f"BrowserAct task {emulator.tasks[0].id} finished, but its output was not read" in message
        assert "The response to get-task is larger than 100000 bytes, and a worker reads no more." in message
        assert f"still available at {run.ti.xcoms[TASK]}" in message
        assert "Let the workflow return less" in message
        assert len(emulator.tasks) == 1
        # The page of the run, which was pushed after the start.
        assert emulator.tasks[0].id in run.ti.xcoms[TASK]

    def test_retry_finds_the_run_that_is_too_large_and_pays_for_no_other(self, worker, emulator, store):
        emulator.set_workflow(PLAIN_TEXT.id, output="x" * 200_000)
        for _ in range(2):
            with pytest.raises(AirflowFailException, match="its output was not read"):
                worker(workflow_id=PLAIN_TEXT.id, store=store).run()
        assert len(emulator.tasks) == 1

    def test_late_output_that_is_too_large_fails_without_a_retry(self, worker, emulator):
        emulator.next_run(PLAIN_TEXT.id, output="x" * 200_000, output_after=0.3)
        with pytest.raises(AirflowFailException, match="its output was not read"):
            worker(workflow_id=PLAIN_TEXT.id).run()


class TestRunWithVeryManyFiles:
    @pytest.fixture(autouse=True)
    def _few_files(self, monkeypatch, emulator):
        monkeypatch.setattr(models, "MAX_FILES", 2)
        files = tuple(EmulatedFile(f"{number}.csv", b"a") for number in range(5))
        emulator.set_workflow(DOWNLOAD.id, downloads=files, output="words")

    def test_too_many_files_to_return_fail_without_a_retry_and_keep_what_was_read(self, worker, emulator):
        run = worker(workflow_id=DOWNLOAD.id, input_parameters=PENS, deferrable=True)
        with pytest.raises(AirflowFailException, match=r"3 of its files were not read.* still available at http"):
            run.run()
        assert (run.ti.xcoms["output_text"], len(run.ti.xcoms["output_files"])) == ("words", 2)

    def test_too_many_files_to_write_fail_without_a_retry_and_the_first_are_written(self, worker, emulator, folder):
        run = worker(workflow_id=DOWNLOAD.id, input_parameters=PENS, output_path=str(folder))
        with pytest.raises(AirflowFailException, match=rf"3 of its files were not read.* are in {folder}"):
            run.run()
        written = {path.name for path in (folder / emulator.tasks[0].id).iterdir()}
        assert written == {"0.csv", "1.csv", "output.txt", "task.json"}


LARGE_RUN = """
import json, logging, os, resource, sys, tempfile
from airflow.sdk import ObjectStoragePath
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs.outputs import OutputFormat
from airflow_provider_browseract.worker.conclusion import Conclusion

class TaskInstance:
    def xcom_push(self, key, value): pass

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def conclude(task_id):
    task, path = hook.get_task(task_id), folder if sys.argv[3] == "written" else None
    context, log = {"ti": TaskInstance()}, logging.getLogger("airflow.task")
    return Conclusion(task, context, OutputFormat(sys.argv[4]), path, hook, [], False, "", log).result()

with tempfile.TemporaryDirectory() as folder:
    hook = BrowserActHook()
    conclude(sys.argv[1])
    before = peak()
    result = conclude(sys.argv[2])
    size = result["output"]["size"] if sys.argv[3] == "written" else len(result)
    print(json.dumps({"before": before, "after": peak(), "size": size}))
"""
"""Concludes a run with a small output, and then one with a large output, in a separate process."""


class TestMemory:
    @pytest.mark.parametrize("how", ["returned", "written"])
    @pytest.mark.parametrize(
        ("text", "output_format"),
        [
            ("name,price\n" + "ballpoint pen blue,1.50\n" * 2_000_000, "csv"),
            ("[" + "[]," * 7_000_000 + "1]", "json"),
        ],
        ids=["50 MB of CSV", "21 MB of empty lists"],
    )
    def test_large_output_needs_only_a_few_times_its_size(
        self, emulator, browseract_emulator, how, text, output_format
    ):
        small = {"csv": "name,price\npen,1.50\n", "json": "[1]"}[output_format]
        ids = []
        for each in (small, text):
            emulator.next_run(PLAIN_TEXT.id, output=each, duration=0.0)
            ids.append(BrowserActHook().run_task(PLAIN_TEXT.id).id)
        emulator.wait_until(lambda: all(task.finished_at for task in emulator.tasks))
        connection = json.dumps(browseract_emulator.connection)
        process = subprocess.run(
            [sys.executable, "-c", LARGE_RUN, *ids, how, output_format],
            env={**os.environ, "AIRFLOW_CONN_BROWSERACT_DEFAULT": connection},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        measured = json.loads(process.stdout.splitlines()[-1])
        assert measured["size"] == len(text)
        # In MiB. The bytes of the response, and its text twice.
        assert measured["after"] - measured["before"] < 3.5 * len(text) / 1024**2 + 10


class TestOutputPath:
    @BOTH_WAYS
    def test_output_path_gets_all_results_and_their_paths_are_returned(self, worker, emulator, folder, deferrable):
        emulator.set_workflow(EXPORT.id, output="[1, 2]")
        run = worker(
            workflow_id=EXPORT.id, input_parameters=PENS, output_path=f"file://{folder}", deferrable=deferrable
        )
        manifest = run.run()
        task_id = emulator.tasks[0].id
        assert manifest["path"] == f"file://{folder}/{task_id}"
        [file] = manifest["files"]
        assert (file["name"], file["media_type"]) == ("results.csv", "text/csv")
        assert file["path"] == f"{manifest['path']}/results.csv"
        assert (folder / task_id / "results.csv").stat().st_size == file["size"]
        assert json.loads((folder / task_id / "output.json").read_text()) == [1, 2]
        assert json.loads((folder / task_id / "task.json").read_text())["status"] == "finished"
        assert not any(request.with_key for request in emulator.requests if request.endpoint == "download-file")

    def test_files_that_browseract_still_prepares_are_waited_for(self, worker, emulator, folder):
        emulator.set_workflow(DOWNLOAD.id, downloads=(EmulatedFile("late.csv", b"a,b", prepared_after=0.6),))
        manifest = worker(workflow_id=DOWNLOAD.id, input_parameters=PENS, output_path=str(folder)).run()
        assert [file["name"] for file in manifest["files"]] == ["late.csv"]

    def test_download_refused_with_403_is_repeated_with_the_link_of_a_new_response(self, worker, emulator, folder):
        emulator.set_workflow(DOWNLOAD.id, downloads=(EmulatedFile("a.csv", b"a,b"),))
        emulator.fault("download-file", RequestFault.status(403), times=1)
        manifest = worker(workflow_id=DOWNLOAD.id, input_parameters=PENS, output_path=str(folder)).run()
        assert [file["size"] for file in manifest["files"]] == [3]
        assert calls_of(emulator, "download-file") == 2
        endpoints = [request.endpoint for request in emulator.requests]
        first = endpoints.index("download-file")
        assert "get-task" in endpoints[first : endpoints.index("download-file", first + 1)]

    @pytest.mark.parametrize(
        "fault",
        [RequestFault.status(503), RequestFault.status(429), RequestFault.reset(), RequestFault.lost_response()],
        ids=["failing", "too many requests", "reset", "broken off"],
    )
    def test_temporary_download_failure_does_not_lose_the_file(self, worker, emulator, folder, fault):
        emulator.fault("download-file", fault, times=2)
        manifest = worker(workflow_id=EXPORT.id, input_parameters=PENS, output_path=str(folder)).run()
        assert len(manifest["files"]) == 1

    def test_failed_download_raises_and_the_retry_fetches_only_the_missing_file(self, worker, emulator, folder, store):
        files = (EmulatedFile("a.csv", b"a"), EmulatedFile("b.csv", b"bb"))
        emulator.set_workflow(DOWNLOAD.id, downloads=files)
        emulator.fault("download-file", RequestFault.status(503), times=None, skip=1)
        arguments = {"workflow_id": DOWNLOAD.id, "input_parameters": PENS, "output_path": str(folder), "store": store}
        with pytest.raises(ResultError, match=r"1 of 2 files are missing \(.*HTTP 503\).*available in BrowserAct"):
            worker(**arguments).run()
        emulator.clear_faults()
        before = calls_of(emulator, "download-file")
        manifest = worker(**arguments).run()
        assert sorted(file["size"] for file in manifest["files"]) == [1, 2]
        assert calls_of(emulator, "download-file") == before + 1
        assert len(emulator.tasks) == 1

    def test_files_with_special_characters_are_stored_under_safe_names(self, worker, emulator, folder):
        emulator.set_workflow(
            DOWNLOAD.id, downloads=(EmulatedFile("a [1]*.csv", b"a"), EmulatedFile("../a?.csv", b"bb"))
        )
        manifest = worker(workflow_id=DOWNLOAD.id, input_parameters=PENS, output_path=str(folder)).run()
        assert [file["name"] for file in manifest["files"]] == ["a [1]_.csv", "a_.csv"]

    def test_execution_timeout_while_writing_results_does_not_pay_for_another_run(
        self, worker, emulator, folder, store, monkeypatch
    ):
        def timed_out(*_):
            raise AirflowTaskTimeout("Timeout")

        save = storing.ResultStore.save
        monkeypatch.setattr(storing.ResultStore, "save", timed_out)
        arguments = {"workflow_id": EXPORT.id, "input_parameters": PENS, "output_path": str(folder)}
        with pytest.raises(
            AirflowFailException, match="execution_timeout expired while its results were being written"
        ):
            worker(**arguments).run()
        with pytest.raises(ResultError, match="execution_timeout expired while its results were being written"):
            worker(**arguments, store=store).run()
        monkeypatch.setattr(storing.ResultStore, "save", save)
        assert len(worker(**arguments, store=store).run()["files"]) == 1
        assert len(emulator.tasks) == 2

    @pytest.mark.parametrize("remembered", [False, True], ids=["not remembered", "remembered"])
    def test_unexpected_result_error_allows_a_retry_only_if_the_run_is_remembered(
        self, worker, emulator, store, monkeypatch, remembered
    ):
        def broken(*_):
            raise MemoryError("too much")

        run = partial(worker, workflow_id=ORDERS.id, store=store if remembered else None)
        expected = ResultError if remembered else AirflowFailException
        with monkeypatch.context() as while_broken:
            while_broken.setattr("airflow_provider_browseract.worker.conclusion.read_output", broken)
            with pytest.raises(expected, match="its results could not be read: MemoryError: too much"):
                run().run()
        if remembered:
            assert run().run()["logged_in"] is False
        assert len(emulator.tasks) == 1

    def test_unreachable_output_path_after_a_failed_run_raises_and_starts_no_run(
        self, worker, emulator, folder, store, monkeypatch
    ):
        emulator.set_workflow(ORDERS.id, outcome="failed")
        arguments = {"workflow_id": ORDERS.id, "output_path": str(folder), "store": store}
        with pytest.raises(RunFailedError):
            worker(**arguments).run()

        def away(self, consequence):
            raise StorageError(f"no network. {consequence}")

        monkeypatch.setattr(Folder, "check", away)
        with pytest.raises(StorageError, match=r"^no network\. No run was started\.$"):
            worker(**arguments).run()
        assert len(emulator.tasks) == 1

    def test_output_path_is_checked_once_per_start_and_not_while_waiting_for_a_slot(
        self, worker, emulator, folder, store, monkeypatch
    ):
        tried = []
        check = Folder.check

        def noted(self, consequence):
            tried.append(self)
            check(self)

        monkeypatch.setattr(Folder, "check", noted)
        emulator.set_workflow(ORDERS.id, outcome="failed")
        arguments = {"workflow_id": ORDERS.id, "output_path": str(folder), "store": store}
        for _ in range(2):
            with pytest.raises(RunFailedError):
                worker(**arguments).run()
        assert len(tried) == 2
        emulator.concurrency = 1
        emulator.next_run(SEARCH.id, duration=3.0)
        worker(workflow_id=SEARCH.id, input_parameters=PENS, wait_for_completion=False).run()
        with pytest.raises(RunFailedError):
            worker(**arguments, deferrable=True).run()
        assert calls_of(emulator, "run-task") > 4
        assert len(tried) == 3

    def test_missing_files_fail_without_a_retry_if_the_run_is_not_remembered(self, worker, emulator, folder):
        emulator.fault("download-file", RequestFault.status(503), times=None)
        with pytest.raises(AirflowFailException, match="1 of 1 files are missing"):
            worker(workflow_id=EXPORT.id, input_parameters=PENS, output_path=str(folder)).run()

    def test_file_that_browseract_cannot_provide_is_named_and_fails_without_a_retry(
        self, worker, emulator, folder, store
    ):
        files = (EmulatedFile("good.csv", b"a"), EmulatedFile("bad.pdf", b"", broken="404 at the shop"))
        emulator.set_workflow(DOWNLOAD.id, downloads=files)
        with pytest.raises(AirflowFailException, match=r"bad\.pdf: 404 at the shop.*The others are in"):
            worker(workflow_id=DOWNLOAD.id, input_parameters=PENS, output_path=str(folder), store=store).run()
        assert (folder / emulator.tasks[0].id / "good.csv").read_bytes() == b"a"

    def test_output_in_the_wrong_format_is_still_written_to_output_path(self, worker, emulator, folder):
        emulator.set_workflow(PLAIN_TEXT.id, output="{")
        with pytest.raises(AirflowFailException, match=rf"is not json: .* stored in {folder}/.*output\.txt"):
            worker(workflow_id=PLAIN_TEXT.id, output_format="json", output_path=str(folder)).run()
        assert (folder / emulator.tasks[0].id / "output.txt").read_text() == "{"

    def test_unreachable_output_path_check_does_not_prevent_a_reattach(
        self, worker, emulator, folder, store, monkeypatch
    ):
        emulator.set_workflow(ORDERS.id, duration=0.5)
        arguments = {"workflow_id": ORDERS.id, "output_path": str(folder), "store": store}
        first = worker(deferrable=True, **arguments)
        with pytest.raises(TaskDeferred):
            first.operator().execute(first.context)

        def away(self, consequence):
            raise StorageError("no network")

        monkeypatch.setattr(Folder, "check", away)
        assert worker(**arguments).run()["output"]["name"] == "output.json"
        assert len(emulator.tasks) == 1


class TestRunReport:
    @pytest.mark.usefixtures("documented_responses")
    def test_xcom_task_has_the_facts_of_the_run_while_it_runs_and_after_its_end(self, worker, emulator):
        emulator.next_run(SEARCH.id, duration=1.0)
        run = worker(workflow_id=SEARCH.id, input_parameters=PENS, deferrable=True)
        told = every_value_of(run, "task")
        run.run()
        assert [facts["status"] for facts in told] in (["running", "finished"], ["created", "finished"])
        assert told[-1]["credits"] == 20
        assert told[-1]["counts"] == {"steps": 4, "output_files": 0, "download_files": 0}
        assert "pens" not in json.dumps(told)

    def test_failed_push_of_links_and_facts_does_not_lose_the_result(self, worker, emulator, capfd):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        refuse_xcoms(run, "task", LIVE, TASK, PANEL, reason="SlowDown")
        assert run.run()["logged_in"] is False
        assert [task.status for task in emulator.tasks] == ["finished"]
        assert "could not be pushed (OSError: SlowDown)" in "".join(capfd.readouterr())

    @pytest.mark.parametrize(
        ("credit", "counted"),
        [(3, [("browseract.runs", 1), ("browseract.credits", 3)]), (0, [("browseract.runs", 1)])],
        ids=["with credits", "without"],
    )
    def test_ended_run_is_counted_with_its_credits_if_it_took_any(self, monkeypatch, credit, counted):
        seen = []
        monkeypatch.setattr(showing, "count_in_task", lambda name, by=1, **_: seen.append((name, by)))
        showing.count_run(Task("7", TaskStatus.FINISHED, credit=credit))
        assert seen == counted

    def test_run_without_urls_has_only_the_button_to_the_panel(self):
        ti = FakeTaskInstance()
        showing.show_run(
            ti, Task("7", TaskStatus.RUNNING), "second account", ("live_view",), logging.getLogger(__name__)
        )
        assert list(ti.xcoms) == [PANEL, "task"]
        assert ti.xcoms["task"]["connection"] == "second account"
        assert ti.xcoms["task"]["hidden"] == ["live_view"]

    @pytest.mark.usefixtures("documented_responses")
    def test_end_of_a_run_is_logged_with_its_steps_and_credits(self, worker, emulator, capfd):
        worker(workflow_id=SEARCH.id, input_parameters=PENS).run()
        log = "".join(capfd.readouterr())
        assert "ended as finished after " in log
        assert "20 credits used, 4 steps." in log
        assert log.count("step 2: Search for the keyword (succeed)") == 1

    @pytest.mark.usefixtures("documented_responses")
    def test_credits_and_runs_are_counted_once_per_concluded_run(self, worker, emulator, monkeypatch):
        counted = []
        monkeypatch.setattr(showing, "count_in_task", lambda name, **how: counted.append((name, how)))
        worker(workflow_id=SEARCH.id, input_parameters=PENS).run()
        with pytest.raises(RunFailedError):
            worker(workflow_id=FAILING.id).run()
        assert counted == [
            ("browseract.runs", {"tags": {"status": "finished"}}),
            ("browseract.credits", {"by": 20}),
            ("browseract.runs", {"tags": {"status": "failed"}}),
            ("browseract.credits", {"by": 10}),
        ]

    @pytest.mark.usefixtures("documented_responses")
    def test_run_is_counted_by_the_retry_that_writes_its_results(self, worker, emulator, monkeypatch, folder, store):
        counted = []
        monkeypatch.setattr(showing, "count_in_task", lambda name, **how: counted.append(name))
        emulator.fault("download-file", RequestFault.status(503), times=None)
        arguments = {"workflow_id": EXPORT.id, "input_parameters": PENS, "output_path": str(folder), "store": store}
        with pytest.raises(ResultError):
            worker(**arguments).run()
        assert counted == []
        emulator.clear_faults()
        worker(**arguments).run()
        assert counted == ["browseract.runs", "browseract.credits"]

    @pytest.mark.usefixtures("documented_responses")
    def test_failed_run_error_names_the_code_step_screenshot_log_and_remedy(self, worker, emulator):
        with pytest.raises(RunFailedError) as failed:
            worker(workflow_id=FAILING.id).run()
        logged = str(failed.value)
        for part in ("(code 1011)", "At step 2: Get past the captcha", "Screenshot: http", "Log: http", "pause for a"):
            assert part in logged

    def test_live_view_link_is_pushed_at_the_start_and_marked_as_over_at_the_end(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=0.5)
        run = worker(workflow_id=ORDERS.id)
        links = every_value_of(run, LIVE)
        run.run()
        assert emulator.tasks[0].id in links[0]
        assert links[-1] == LiveViewLink.OVER == "browseract/run-is-over"
        assert emulator.tasks[0].id in run.ti.xcoms[TASK]

    def test_live_view_link_is_marked_as_over_when_the_run_times_out(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, timeout=0.3)
        with pytest.raises(RunTimedOutError, match="did not end within"):
            run.run()
        assert run.ti.xcoms[LIVE] == LiveViewLink.OVER

    def test_outlet_event_has_the_browseract_task_id_counts_and_paths(self, worker, emulator, folder):
        asset = Asset("pens")
        run = worker(workflow_id=EXPORT.id, input_parameters=PENS, output_path=str(folder), outlets=[asset])

        class Events:
            extra: dict = {}

            def __getitem__(self, key):
                assert key == asset
                return self

        run.context["outlet_events"] = Events()
        manifest = run.run()
        assert Events.extra == {
            "browseract_task_id": emulator.tasks[0].id,
            "counts": {"steps": 3, "output_files": 1, "download_files": 0},
            "path": manifest["path"],
            "files": [file["path"] for file in manifest["files"]],
        }

    @pytest.mark.parametrize("events", [{}, None], ids=["unknown asset", "no events"])
    def test_outlet_events_that_cannot_be_changed_do_not_cost_the_result(self, worker, emulator, capfd, events):
        run = worker(workflow_id=ORDERS.id, outlets=[AssetAlias("pens"), Asset("pens")])
        run.context["outlet_events"] = events
        assert run.run()["logged_in"] is False
        assert "The run could not be added to the asset events" in "".join(capfd.readouterr())

    def test_store_that_fails_leaves_the_results_to_a_later_try_or_names_their_log(
        self, worker, emulator, folder, store, monkeypatch
    ):
        def fails(*_):
            raise StorageError("no space left")

        monkeypatch.setattr(storing.ResultStore, "save", fails)
        arguments = {"workflow_id": EXPORT.id, "input_parameters": PENS, "output_path": str(folder)}
        with pytest.raises(ResultError, match="its results could not be written: no space left"):
            worker(**arguments, store=store).run()
        with pytest.raises(AirflowFailException, match=r"is still available in BrowserAct: http.*/(logs|live)/"):
            worker(**arguments).run()


class TestOpenLineage:
    @pytest.mark.parametrize(
        ("path", "dataset"),
        [
            ("s3://aws@bucket/a/b", ("s3://bucket", "a/b/7")),
            ("gs://bucket", ("gs://bucket", "7")),
            ("file:///data/x", ("file", "/data/x/7")),
            ("/data/x", ("file", "/data/x/7")),
        ],
        ids=["s3", "gs", "file", "plain path"],
    )
    def test_openlineage_output_is_named_after_the_storage_of_output_path(self, path, dataset):
        from airflow_provider_browseract.worker.lineage import lineage_of

        done: Any = SimpleNamespace(results=storing.Results(f"{path}/7"), task=Task("7", TaskStatus.FINISHED))
        source = Source(SourceKind.WORKFLOW, "70")
        [output] = lineage_of(source, "https://api.browseract.com", done).outputs
        assert (output.namespace, output.name) == dataset

    @pytest.mark.parametrize(
        ("kind", "name"),
        [*zip(SourceKind, ["workflow/82", "template/82", "bot/82", "bot_template/82"], strict=True)],
    )
    def test_openlineage_input_is_named_after_what_was_run(self, kind, name):
        from airflow_provider_browseract.worker.lineage import lineage_of

        [dataset] = lineage_of(Source(kind, "82"), "https://api.browseract.com", None).inputs
        assert (dataset.namespace, dataset.name) == ("browseract://api.browseract.com", name)

    def test_openlineage_has_the_workflow_as_input_and_the_facts_as_a_facet(self, worker, emulator, folder):
        run = worker(workflow_id=EXPORT.id, input_parameters=PENS, output_path=str(folder))
        operator = run.operator()
        before = operator.get_openlineage_facets_on_complete(None)
        assert (len(before.inputs), before.outputs, before.run_facets) == (1, [], {})
        operator.execute(run.context)
        lineage = operator.get_openlineage_facets_on_complete(None)
        [workflow] = lineage.inputs
        assert workflow.name == f"workflow/{EXPORT.id}"
        assert f"http://{workflow.namespace.removeprefix('browseract://')}" == operator.hook.settings.client.base_url
        assert [dataset.name for dataset in lineage.outputs] == [f"{folder}/{emulator.tasks[0].id}"]
        assert lineage.run_facets["browseract_task"].task["status"] == "finished"

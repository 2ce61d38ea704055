"""What a worker returns, writes and reports of a run of a bot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import CONTACTS, EmulatedFile
from airflow_provider_browseract.operators.browseract import RunBotOperator, RunBotTemplateOperator
from airflow_provider_browseract.runs.outcome import RunFailedError
from tests.catalogue import PLAIN_TEXT, TEMPLATE_EXPORT
from tests.demos import show_defaults
from tests.workers import BOTH_WAYS, Worker, calls_of

pytestmark = pytest.mark.usefixtures("short_patience", "short_timings", "documented_responses")

COMPANY = {"company_name": "Example Corp"}
REPORT = EmulatedFile("report.pdf", b"%PDF", "application/pdf")


@pytest.fixture
def contacts(worker):
    """Return a function that makes a worker of the bot CONTACTS."""

    def make(**arguments: Any) -> Worker:
        made: Worker = worker(operator_class=RunBotOperator, bot_id=CONTACTS.id, input=COMPANY, **arguments)
        return made

    return make


class TestReturnedValue:
    @BOTH_WAYS
    @pytest.mark.parametrize(
        ("output", "value"),
        [
            ({"a": None, "b": [1.5, True]}, {"a": None, "b": [1.5, True]}),
            ([], []),
            (12, 12),
            (False, False),
            ("12", "12"),
            ("007", "007"),
            ('{"a": 1}', {"a": 1}),
            ("words", "words"),
        ],
        ids=repr,
    )
    def test_value_is_returned_with_its_type_although_there_are_files_of_it(
        self, contacts, emulator, deferrable, output, value
    ):
        emulator.set_workflow(CONTACTS.id, output=output)
        returned = contacts(deferrable=deferrable).run()
        assert (returned, type(returned)) == (value, type(value))

    def test_output_that_is_only_in_files_is_returned_as_their_addresses(self, contacts, emulator):
        # In the vendor's example, the output is null beside its files.
        emulator.as_in_the_demos = True
        returned = contacts().run()
        assert returned["output"] is None
        assert sorted(url.rpartition("/")[2].partition("?")[0] for url in returned["files"]) == [
            "result.csv",
            "result.json",
            "result.md",
            "result.xml",
        ]

    def test_downloads_are_returned_beside_the_value(self, contacts, emulator):
        emulator.set_workflow(CONTACTS.id, output=[1], downloads=(REPORT,))
        returned = contacts().run()
        assert returned["output"] == [1]
        assert ["report.pdf" in url for url in returned["files"]] == [True]

    @BOTH_WAYS
    def test_output_of_a_run_without_steps_that_comes_after_the_status_is_returned(
        self, contacts, emulator, deferrable, capfd
    ):
        # In the vendor's example, a finished run has no steps.
        emulator.as_in_the_demos = True
        emulator.set_workflow(CONTACTS.id, files=(), output=[1], output_after=0.4)
        assert contacts(deferrable=deferrable).run() == [1]
        assert "has finished without output or files" in "".join(capfd.readouterr())

    def test_csv_of_a_workflow_built_bot_is_returned_as_rows(self, worker, emulator):
        emulator.set_workflow(PLAIN_TEXT.id, output="name,price\npen,1\n")
        run = worker(operator_class=RunBotOperator, bot_id=PLAIN_TEXT.id, output_format="csv")
        assert run.run() == [{"name": "pen", "price": "1"}]

    def test_output_of_the_wrong_format_is_kept_with_the_addresses_of_its_other_formats(self, contacts, emulator):
        emulator.set_workflow(CONTACTS.id, output=[1])
        run = contacts(output_format="csv")
        with pytest.raises(AirflowFailException) as failed:
            run.run()
        assert f"of bot {CONTACTS.id} finished, but its output is not csv: the output is JSON." in str(failed.value)
        assert "Fix output_format or the bot." in str(failed.value)
        assert run.ti.xcoms["output_text"] == "[1]"
        assert len(run.ti.xcoms["output_files"]) == 4

    def test_value_that_airflow_cannot_store_is_returned_as_text(self, contacts, emulator, capfd):
        emulator.set_workflow(CONTACTS.id, output={"__id__": 1})
        assert contacts().run() == '{"__id__": 1}'
        assert "the key __id__, which Airflow reserves" in "".join(capfd.readouterr())


class TestStore:
    def test_value_and_all_formats_are_written_with_their_names(self, contacts, emulator, tmp_path):
        emulator.set_workflow(CONTACTS.id, downloads=(REPORT, EmulatedFile("RESULT.csv", b"other", "text/csv")))
        returned = contacts(output_path=str(tmp_path)).run()
        folder = Path(returned["path"])
        assert json.loads((folder / "output.json").read_text())["company_name"] == "Example Corp"
        names = [file["name"] for file in returned["files"]]
        assert names[0] == "report.pdf"
        assert names[1].startswith("RESULT (")
        assert names[2:] == ["result.json", "result.md", "result (csv).csv", "result.xml"]
        assert all((folder / file["name"]).stat().st_size == file["size"] for file in returned["files"])
        assert (folder / "result (csv).csv").read_text().startswith("official_website_url")
        facts = json.loads((folder / "task.json").read_text())
        assert (facts["bot_id"], facts["counts"]["output_files"], facts["missing"]) == (CONTACTS.id, 4, {})
        assert "Example Corp" not in (folder / "task.json").read_text()

    @pytest.mark.parametrize(("output", "name"), [(12, "output.json"), ("12", "output.txt")], ids=repr)
    def test_text_is_written_as_text_and_value_as_json(self, contacts, emulator, tmp_path, output, name):
        emulator.set_workflow(CONTACTS.id, output=output, files=())
        returned = contacts(output_path=str(tmp_path)).run()
        assert returned["output"]["name"] == name
        assert Path(returned["output"]["path"]).read_text() == "12"

    def test_expired_links_of_formats_are_read_again_in_the_version_of_the_run(self, contacts, emulator, tmp_path):
        emulator.set_workflow(CONTACTS.id, file_lifetime=0.0)
        with pytest.raises(AirflowFailException, match="4 of 4 files are missing"):
            contacts(output_path=str(tmp_path)).run()
        assert calls_of(emulator, "get-task") == 0
        assert "query-run" in [request.endpoint for request in emulator.requests][-5:]


def test_runs_of_bots_and_bot_templates_are_named_in_the_error_of_a_failed_run(worker, contacts, emulator):
    for source in (CONTACTS, TEMPLATE_EXPORT):
        emulator.set_workflow(source.id, outcome="failed", failure=(1, "gone"))
    template = {"template_id": TEMPLATE_EXPORT.id, "input": {"keyword": "pens"}}
    for run, named in (
        (contacts(), f" of bot {CONTACTS.id}"),
        (worker(operator_class=RunBotTemplateOperator, **template), ""),
    ):
        with pytest.raises(RunFailedError) as failed:
            run.run()
        assert str(failed.value).startswith(f"BrowserAct task {emulator.tasks[-1].id}{named} failed: gone")
        assert str(failed.value).endswith("Fix the bot or its input, and clear the Airflow task that started it.")


@BOTH_WAYS
def test_secret_default_of_a_bot_that_its_agent_quotes_is_in_no_log_and_no_xcom(
    contacts, emulator, capfd, deferrable, tmp_path
):
    secret = "hunter2ofthisbot"
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"company_name": {"type": "string"}, "password": {"type": "string", "default": secret}},
    }
    show_defaults(emulator)
    emulator.set_workflow(CONTACTS.id, input_schema=schema, steps=(f"Type {secret}", "Wait"), duration=0.6)
    run = contacts(deferrable=deferrable, output_path=str(tmp_path))
    run.run()
    [facts] = tmp_path.glob("*/task.json")
    logged = "".join(capfd.readouterr())
    assert "Type ***" in logged
    for text in (logged, facts.read_text(), json.dumps([run.ti.xcoms, run.events])):
        assert secret not in text

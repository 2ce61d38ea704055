from __future__ import annotations

import json
import re
import socket
from typing import Any

import pytest

from airflow_provider_browseract.emulator import (
    DOWNLOAD,
    EXPORT,
    FAILING,
    HUMAN,
    LOG_IN,
    ORDERS,
    PLAIN_TEXT,
    SEARCH,
    TEMPLATE_SEARCH,
    UNPUBLISHED,
    EmulatedFile,
    EmulatedWorkflow,
    RunContext,
)
from airflow_provider_browseract.emulator.catalogue import orders_of, results_for

PAPER = {"keyword": "paper"}


def resolve(monkeypatch: Any, addresses: dict[str, list[str]]) -> None:
    """Let names have these addresses, and no other name an address."""

    def getaddrinfo(host: str, *_: Any, **__: Any) -> Any:
        if host not in addresses:
            raise socket.gaierror("not found")
        return [(None, None, None, "", (address, 0)) for address in addresses[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def log_in(account: Any, username: str, **fields: Any) -> Any:
    return account.start(LOG_IN, {"username": username, "password": "secret"}, **fields)


class TestTaskLifecycle:
    def test_task_runs_for_its_duration_and_then_finishes(self, account: Any) -> None:
        task_id = account.run(SEARCH, PAPER)
        assert account.status(task_id) == "running"
        account.pass_time(1.99)
        assert account.status(task_id) == "running"
        account.pass_time(0.01)
        assert account.status(task_id) == "finished"

    def test_queued_task_has_status_created_before_it_runs(self, account: Any) -> None:
        account.setting(SEARCH, queued=5.0)
        task_id = account.run(SEARCH, PAPER)
        assert account.status(task_id) == "created"
        assert account.task(task_id)["steps"] == []
        assert account.task(task_id)["credit"] == 0
        account.pass_time(5)
        assert account.status(task_id) == "running"

    def test_speed_setting_shortens_every_duration_of_a_task(self, make_account: Any) -> None:
        account = make_account(speed=4)
        account.setting(HUMAN, queued=4.0, duration=8.0, pause_limit=12.0)
        task_id = account.run(HUMAN)
        account.pass_time(100)
        moments = [moment.timestamp() for _, moment in account.emulator.tasks[0].history]
        assert [later - moments[0] for later in moments] == [0, 1, 2, 5, 6]
        assert account.status(task_id) == "finished"

    def test_change_of_speed_applies_to_later_runs_only(self, account: Any) -> None:
        before = account.run(SEARCH, PAPER)
        account.emulator.speed = 2
        after = account.run(SEARCH, PAPER)
        account.pass_time(1)
        assert (account.status(before), account.status(after)) == ("running", "finished")

    def test_status_changes_are_reported_once_and_in_order(self, account: Any) -> None:
        account.setting(SEARCH, duration=3.0)
        long = account.run(SEARCH, PAPER)
        short = account.run(PLAIN_TEXT)
        account.pass_time(60)
        changes = [(change.task_id, change.status) for change in account.emulator.take_transitions()]
        assert changes == [(long, "running"), (short, "running"), (short, "finished"), (long, "finished")]
        assert account.emulator.take_transitions() == []

    def test_status_change_carries_the_get_task_response_of_that_time(self, account: Any) -> None:
        task_id = account.run(SEARCH, PAPER)
        as_running = account.task(task_id)
        account.pass_time(60)
        running, finished = account.emulator.take_transitions()
        assert running.payload == as_running
        assert finished.payload == account.task(task_id)

    def test_service_reports_the_time_of_its_next_change(self, account: Any) -> None:
        assert account.emulator.next_change() is None
        account.run(SEARCH, PAPER)
        account.emulator.take_transitions()
        assert account.emulator.next_change() == account.now + 2

    def test_finished_task_has_output_times_credits_and_log_link(self, account: Any) -> None:
        account.emulator.base_url = "http://emulator"
        account.pass_time(-0.25)
        task_id = account.run(SEARCH, {"keyword": "paper", "max_items": "3"})
        account.pass_time(2)
        task = account.task(task_id)
        assert json.loads(task["output"]["string"]) == results_for("paper", 3)
        assert task["created_at"] == "2026-05-28T20:26:40Z"
        assert task["finished_at"] == "2026-05-28T20:26:42Z"
        assert task["input_parameters"] == "keyword=paper; max_items=3"
        assert task["workflow_id"] == SEARCH.id
        assert task["credit"] == 20
        assert task["log_detail_url"] == f"http://emulator/logs/{task_id}"
        assert "task_failure_info" not in task
        assert "download_files" not in task

    def test_running_task_has_no_output_end_time_or_failure(self, account: Any) -> None:
        task = account.task(account.run(SEARCH, PAPER))
        assert task.keys().isdisjoint({"output", "finished_at", "task_failure_info"})

    def test_live_view_exists_only_while_a_task_is_running_or_paused(self, account: Any) -> None:
        account.setting(HUMAN, queued=1.0, pause_limit=10.0)
        task_id = account.run(HUMAN)
        seen = []
        for seconds in (0, 1, 1, 10, 1):
            account.pass_time(seconds)
            task = account.task(task_id)
            seen.append((task["status"], "live_url_info" in task, "live_url" in task))
        assert seen == [
            ("created", False, False),
            ("running", True, True),
            ("paused", True, True),
            ("running", True, True),
            ("finished", False, False),
        ]

    def test_steps_are_spread_over_the_duration_of_a_task(self, account: Any) -> None:
        task_id = account.run(SEARCH, PAPER)
        seen = []
        for _ in range(5):
            steps = account.task(task_id)["steps"]
            assert [step["step_goal"] for step in steps] == list(SEARCH.steps[: len(steps)])
            assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
            assert len({step["id"] for step in steps}) == len({step["screenshots_url"] for step in steps})
            assert account.task(task_id)["credit"] == 5 * len(steps)
            seen.append([step["status"] for step in steps])
            account.pass_time(0.5)
        assert seen == [
            ["running"],
            ["succeed", "running"],
            ["succeed", "succeed", "running"],
            ["succeed", "succeed", "succeed", "running"],
            ["succeed", "succeed", "succeed", "succeed"],
        ]

    def test_run_with_zero_duration_finishes_at_once(self, account: Any) -> None:
        account.setting(SEARCH, duration=0.0)
        task_id = account.run(SEARCH, PAPER)
        assert account.status(task_id) == "finished"
        assert account.task(task_id)["credit"] == 20

    def test_ids_are_17_digit_texts_that_a_float_cannot_represent(self, account: Any) -> None:
        account.emulator.concurrency = 50
        ids = [account.run(PLAIN_TEXT) for _ in range(50)]
        assert len(set(ids)) == 50
        for number in (*ids, *account.emulator.workflows, *account.emulator.templates):
            assert re.fullmatch(r"[1-9]\d{16}", number)
            assert f"{float(number):.0f}" != number


class TestOutcomes:
    def test_failing_workflow_reports_the_reason_and_the_failed_step(self, account: Any) -> None:
        task_id = account.run(FAILING)
        account.pass_time(2)
        task = account.task(task_id)
        assert task["status"] == "failed"
        assert task["task_failure_info"] == {"code": 1011, "message": FAILING.failure[1]}
        assert [step["status"] for step in task["steps"]] == ["succeed", "failed"]
        assert task["steps"][1]["step_goal"] == FAILING.steps[1]
        assert task["output"] == {"string": "", "files": []}

    def test_workflow_can_be_set_to_fail_with_a_chosen_code(self, account: Any) -> None:
        account.setting(SEARCH, outcome="failed", failure=(4711, "out of paper"), duration=1.0)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(1)
        task = account.task(task_id)
        assert task["task_failure_info"] == {"code": 4711, "message": "out of paper"}
        assert [step["status"] for step in task["steps"]] == ["succeed"] * 3 + ["failed"]

    def test_workflow_can_be_set_to_end_as_canceled(self, account: Any) -> None:
        account.setting(SEARCH, outcome="canceled")
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2)
        assert account.status(task_id) == "canceled"
        assert account.emulator.tasks[0].ended_by == "workflow"

    def test_settings_for_the_next_run_apply_to_one_run_only(self, account: Any) -> None:
        account.emulator.next_run(SEARCH.id, output="first")
        account.emulator.next_run(SEARCH.id, output="second")
        ids = [account.run(SEARCH, PAPER) for _ in range(3)]
        account.pass_time(2)
        texts = [account.task(task_id)["output"]["string"] for task_id in ids]
        assert texts == ["first", "second", json.dumps(results_for("paper"))]

    def test_refused_start_does_not_use_up_settings_for_the_next_run(self, account: Any, code_of: Any) -> None:
        account.emulator.next_run(SEARCH.id, output="planned")
        assert code_of(lambda: account.run(SEARCH)) == 10142
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2)
        assert account.task(task_id)["output"]["string"] == "planned"

    def test_settings_for_the_next_run_are_merged_with_later_workflow_changes(self, account: Any) -> None:
        account.emulator.next_run(SEARCH.id, output="planned")
        account.setting(SEARCH, duration=7.0)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(6.9)
        assert account.status(task_id) == "running"

    def test_undocumented_status_can_be_reported_for_a_run(self, account: Any) -> None:
        account.emulator.next_run(SEARCH.id, status="dreaming")
        task_id = account.run(SEARCH, PAPER)
        assert account.status(task_id) == account.task(task_id)["status"] == "dreaming"
        assert account.get("list-tasks")["items"][0]["status"] == "dreaming"
        assert [change.status for change in account.emulator.take_transitions()] == ["dreaming"]
        assert account.emulator.tasks[0].status == "running"

    @pytest.mark.parametrize(
        "settings",
        [
            {"duration": -1.0},
            {"duration": float("nan")},
            {"outcome": "exploded"},
            {"pause_at": 1.5},
            {"failed_step": 9},
            {"steps": ()},
            {"step_every": 0.0},
            {"step_every": float("inf")},
            {"credits_per_step": -1},
            {"credits_per_step": 2.5},
            {"extra_credits": True},
            {"extra_credits": "5"},
            {"extra_credits": None},
        ],
        ids=[
            "negative duration",
            "NaN duration",
            "unknown outcome",
            "pause after the end",
            "failed step out of range",
            "no steps",
            "no time for a step",
            "infinite time for a step",
            "negative credits of a step",
            "fraction of a credit",
            "flag as credits",
            "text as credits",
            "null credits",
        ],
    )
    def test_invalid_settings_for_the_next_run_are_refused(self, account: Any, settings: Any) -> None:
        with pytest.raises(ValueError, match=next(iter(settings)).replace("steps", "step")):
            account.emulator.next_run(SEARCH.id, **settings)

    def test_unknown_setting_or_workflow_for_the_next_run_is_refused(self, account: Any) -> None:
        with pytest.raises(TypeError, match="colour"):
            account.emulator.next_run(SEARCH.id, colour="red")
        with pytest.raises(KeyError, match="12345"):
            account.emulator.next_run("12345", duration=1.0)

    def test_error_in_a_behaviour_function_fails_only_its_own_run(self, account: Any) -> None:
        def broken(_: RunContext) -> Any:
            raise ZeroDivisionError("oops")

        account.setting(SEARCH, behaviour=broken)
        broken_id, good_id = account.run(SEARCH, PAPER), account.run(PLAIN_TEXT)
        account.pass_time(2)
        failure = account.task(broken_id)["task_failure_info"]
        assert failure == {"code": 10000, "message": "ZeroDivisionError: oops"}
        assert account.status(good_id) == "finished"


class TestPauses:
    def test_run_pauses_for_a_person_until_it_is_resumed(self, account: Any) -> None:
        task_id = account.run(HUMAN)
        account.pass_time(1)
        assert account.status(task_id) == "paused"
        account.pass_time(599)
        assert account.status(task_id) == "paused"
        assert account.get("resume-task", task_id=task_id) is None
        assert account.status(task_id) == "running"
        account.pass_time(0.99)
        assert account.status(task_id) == "running"
        account.pass_time(0.01)
        assert account.status(task_id) == "finished"
        assert account.output(task_id) == {"confirmed": True}

    def test_pause_without_a_resume_ends_after_its_time_limit(self, account: Any) -> None:
        task_id = account.run(HUMAN)
        account.pass_time(1 + 600)
        assert account.status(task_id) == "running"
        account.pass_time(1)
        assert account.output(task_id) == {"confirmed": False}

    def test_pause_without_a_time_limit_does_not_end_by_itself(self, account: Any) -> None:
        account.setting(HUMAN, pause_limit=None)
        task_id = account.run(HUMAN)
        account.pass_time(1_000_000)
        assert account.status(task_id) == "paused"

    def test_steps_do_not_advance_during_a_pause(self, account: Any) -> None:
        task_id = account.run(HUMAN)
        account.pass_time(1)
        steps = account.task(task_id)["steps"]
        account.pass_time(300)
        assert account.task(task_id)["steps"] == steps
        assert [step["status"] for step in steps] == ["succeed", "running"]

    def test_workflow_can_be_set_to_pause(self, account: Any) -> None:
        account.setting(SEARCH, pause_at=0.25)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(0.5)
        assert account.status(task_id) == "paused"

    def test_resume_is_refused_for_a_task_that_is_not_paused(self, account: Any, code_of: Any) -> None:
        task_id = account.run(SEARCH, PAPER)
        assert code_of(lambda: account.get("resume-task", task_id=task_id)) == 10127
        account.pass_time(2)
        assert code_of(lambda: account.get("resume-task", task_id=task_id)) == 10127
        assert code_of(lambda: account.get("resume-task", task_id="1")) == 10112


class TestStopping:
    @pytest.mark.parametrize(("seconds", "before"), [(0, "created"), (1, "running"), (2, "paused")])
    def test_stop_cancels_a_created_running_or_paused_task_at_once(
        self, account: Any, seconds: int, before: str
    ) -> None:
        account.setting(HUMAN, queued=1.0)
        task_id = account.run(HUMAN)
        account.pass_time(seconds)
        assert account.status(task_id) == before
        assert account.get("stop-task", task_id=task_id, biz_code=7) is None
        assert account.status(task_id) == "canceled"
        record = account.emulator.tasks[0]
        assert (record.ended_by, record.biz_code) == ("stop-task", 7)
        assert record.finished_at.timestamp() == account.now

    def test_canceled_task_stays_canceled_and_cannot_be_resumed(self, account: Any, code_of: Any) -> None:
        task_id = account.run(HUMAN)
        account.pass_time(1)
        account.get("stop-task", task_id=task_id)
        credit = account.task(task_id)["credit"]
        account.pass_time(1000)
        assert account.status(task_id) == "canceled"
        assert account.task(task_id)["credit"] == credit == 10
        assert code_of(lambda: account.get("resume-task", task_id=task_id)) == 10127

    def test_stop_of_an_ended_task_is_refused(self, account: Any, code_of: Any) -> None:
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2)
        assert code_of(lambda: account.get("stop-task", task_id=task_id)) == 10121
        assert account.status(task_id) == "finished"

    def test_stop_of_an_ended_task_can_be_set_to_succeed(self, make_account: Any) -> None:
        account = make_account(stop_ended_is_ok=True)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2)
        assert account.get("stop-task", task_id=task_id) is None
        assert account.status(task_id) == "finished"

    def test_stop_of_an_unknown_task_is_refused(self, account: Any, code_of: Any) -> None:
        assert code_of(lambda: account.get("stop-task", task_id="16429034742537847")) == 10112

    @pytest.mark.parametrize("biz_code", ["x", "2147483648", "1.0", "", " 1", "+1", "\N{FULLWIDTH DIGIT ONE}"])
    def test_stop_with_a_biz_code_that_is_not_a_32_bit_integer_is_refused(
        self, account: Any, code_of: Any, biz_code: str
    ) -> None:
        task_id = account.run(SEARCH, PAPER)
        assert code_of(lambda: account.get("stop-task", task_id=task_id, biz_code=biz_code)) == 99001
        assert account.status(task_id) == "running"


class TestProfiles:
    def test_profile_saved_by_a_log_in_gives_access_to_its_orders(self, account: Any) -> None:
        profile_id = log_in(account, "ada", save_browser_data=True)["profile_id"]
        account.pass_time(2)
        task_id = account.run(ORDERS, profile_id=profile_id)
        account.pass_time(2)
        assert account.output(task_id) == orders_of("ada")
        assert account.task(task_id)["profile_id"] == profile_id

    def test_two_saved_profiles_keep_their_own_log_ins(self, account: Any) -> None:
        for workflow in (LOG_IN, ORDERS):
            account.setting(workflow, one_at_a_time=False)
        profiles = [log_in(account, name, save_browser_data=True)["profile_id"] for name in ("ada", "bob")]
        account.pass_time(2)
        ids = [account.run(ORDERS, profile_id=profile_id) for profile_id in profiles]
        account.pass_time(2)
        assert [account.output(task_id) for task_id in ids] == [orders_of("ada"), orders_of("bob")]
        assert orders_of("ada") != orders_of("bob")

    @pytest.mark.parametrize(
        "fields",
        [{}, {"profile_id": ""}, {"save_browser_data": True}],
        ids=["no profile", "empty profile id", "new profile"],
    )
    def test_run_without_a_saved_profile_is_not_logged_in(self, account: Any, fields: Any) -> None:
        log_in(account, "ada", save_browser_data=True)
        account.pass_time(2)
        task_id = account.run(ORDERS, **fields)
        account.pass_time(2)
        assert account.status(task_id) == "finished"
        assert account.output(task_id)["logged_in"] is False

    def test_profile_id_is_returned_only_when_browser_data_is_saved(self, account: Any) -> None:
        account.setting(LOG_IN, one_at_a_time=False)
        assert log_in(account, "ada").keys() == {"id"}
        assert log_in(account, "ada", save_browser_data=False).keys() == {"id"}
        assert log_in(account, "ada", save_browser_data=True).keys() == {"id", "profile_id"}

    def test_profile_that_was_not_saved_is_refused(self, account: Any, code_of: Any) -> None:
        shown = account.task(log_in(account, "ada")["id"])["profile_id"]
        account.pass_time(2)
        assert code_of(lambda: account.run(ORDERS, profile_id=shown)) == 99001

    def test_unknown_profile_is_refused_and_starts_nothing(self, account: Any, code_of: Any) -> None:
        assert code_of(lambda: account.run(ORDERS, profile_id="16429034742537847")) == 99001
        assert account.emulator.tasks == []

    def test_profile_is_not_saved_before_its_run_has_finished(self, account: Any) -> None:
        profile_id = log_in(account, "ada", save_browser_data=True)["profile_id"]
        account.pass_time(1)
        too_early = account.run(ORDERS, profile_id=profile_id)
        account.pass_time(2)
        assert account.output(too_early)["logged_in"] is False

    @pytest.mark.parametrize("outcome", ["failed", "canceled"])
    def test_failed_or_canceled_run_saves_no_profile(self, account: Any, outcome: str) -> None:
        account.emulator.next_run(LOG_IN.id, outcome=outcome)
        profile_id = log_in(account, "ada", save_browser_data=True)["profile_id"]
        account.pass_time(2)
        task_id = account.run(ORDERS, profile_id=profile_id)
        account.pass_time(2)
        assert account.output(task_id)["logged_in"] is False

    def test_later_run_changes_a_profile_only_if_it_saves_browser_data(self, account: Any) -> None:
        profile_id = log_in(account, "ada", save_browser_data=True)["profile_id"]
        account.pass_time(2)
        log_in(account, "bob", profile_id=profile_id)
        account.pass_time(2)
        unchanged = account.run(ORDERS, profile_id=profile_id)
        again = log_in(account, "bob", profile_id=profile_id, save_browser_data=True)
        assert again["profile_id"] == profile_id
        account.pass_time(2)
        changed = account.run(ORDERS, profile_id=profile_id)
        account.pass_time(2)
        assert account.output(unchanged) == orders_of("ada")
        assert account.output(changed) == orders_of("bob")

    def test_log_in_with_a_wrong_password_fails(self, account: Any) -> None:
        task_id = account.run(LOG_IN, {"username": "ada", "password": "wrong"})
        account.pass_time(2)
        assert account.status(task_id) == "failed"
        assert "ada" in account.task(task_id)["task_failure_info"]["message"]

    def test_different_failures_have_different_codes(self, account: Any) -> None:
        account.setting(ORDERS, outcome="failed")
        refused = account.run(LOG_IN, {"username": "ada", "password": "wrong"})
        words = account.run(SEARCH, {"keyword": "pens", "max_items": "three"})
        not_loaded, blocked = account.run(ORDERS), account.run(FAILING)
        account.pass_time(3)
        failures = [account.task(task_id)["task_failure_info"] for task_id in (refused, words, not_loaded, blocked)]
        assert len({failure["code"] for failure in failures}) == 4


class TestTheCatalogue:
    def test_search_results_depend_on_the_keyword(self, account: Any) -> None:
        ids = [account.run(SEARCH, {"keyword": word}) for word in ("paper", "stone", "paper")]
        account.pass_time(2)
        paper, stone, again = (account.output(task_id) for task_id in ids)
        assert paper == again != stone
        assert len(paper) == 10

    def test_output_of_the_plain_text_workflow_is_not_json(self, account: Any) -> None:
        task_id = account.run(PLAIN_TEXT)
        account.pass_time(2)
        with pytest.raises(ValueError, match="Expecting value"):
            account.output(task_id)

    def test_export_workflow_outputs_a_file_and_no_text(self, account: Any) -> None:
        account.emulator.base_url = "http://emulator"
        task_id = account.run(EXPORT, PAPER)
        account.pass_time(2)
        task = account.task(task_id)
        assert task["output"]["string"] == ""
        (link,) = task["output"]["files"]
        assert "download_files" not in task
        assert link.startswith("http://emulator/files/")
        content = account.emulator.file(link.split("/")[4]).content
        assert content.startswith(b"\xef\xbb\xbfrank,title,price,url\r\n")
        assert content.count(b"\n") == 11

    def test_download_workflow_has_a_download_and_no_output(self, account: Any) -> None:
        task_id = account.run(DOWNLOAD, PAPER)
        account.pass_time(2)
        task = account.task(task_id)
        assert task["output"] == {"string": "", "files": []}
        (download,) = task["download_files"]
        content = account.emulator.file(download["downloadUrl"].split("/")[4]).content
        assert (download["fileName"], download["fileSize"]) == ("results.csv", len(content))

    def test_file_link_expires_after_its_lifetime(self, account: Any) -> None:
        account.setting(DOWNLOAD, file_lifetime=60.0)
        task_id = account.run(DOWNLOAD, PAPER)
        account.pass_time(2)
        task = account.task(task_id)
        token = task["download_files"][0]["downloadUrl"].split("/")[4]
        expires = int(1000 * (account.now + 60))
        assert task["files_expires_at"] == task["download_files"][0]["expiresAt"] == expires
        account.pass_time(59)
        assert account.emulator.file(token) is not None
        account.pass_time(1)
        assert account.emulator.file(token) is None
        assert account.emulator.file("guessed") is None

    @pytest.mark.parametrize(
        ("workflow", "link_of"),
        [
            (EXPORT, lambda task: task["output"]["files"][0]),
            (DOWNLOAD, lambda task: task["download_files"][0]["downloadUrl"]),
        ],
        ids=["output file", "download"],
    )
    def test_expired_file_link_is_replaced_by_a_new_one(self, account: Any, workflow: Any, link_of: Any) -> None:
        account.setting(workflow, file_lifetime=60.0)
        task_id = account.run(workflow, PAPER)
        account.pass_time(2)
        old = link_of(account.task(task_id))
        account.pass_time(30)
        assert link_of(account.task(task_id)) == old
        account.pass_time(30)
        new = link_of(account.task(task_id))
        assert new != old
        assert account.emulator.file(new.split("/")[4]) is not None
        assert account.emulator.file(old.split("/")[4]) is None

    def test_file_can_still_be_in_preparation_when_its_run_has_ended(self, account: Any) -> None:
        late = (EmulatedFile("a.txt", b"A", prepared_after=30.0),)
        account.setting(DOWNLOAD, files=late, downloads=late)
        task_id = account.run(DOWNLOAD, PAPER)
        account.pass_time(2)
        task = account.task(task_id)
        assert task["status"] == "finished"
        assert task["output"]["files"] == []
        assert task["download_files"][0]["status"] == "uploading"
        assert "downloadUrl" not in task["download_files"][0]
        account.pass_time(30)
        task = account.task(task_id)
        assert task["download_files"][0]["downloadUrl"]
        assert task["output"]["files"]

    def test_file_can_be_broken_or_announced_with_another_size(self, account: Any) -> None:
        files = (EmulatedFile("a.txt", b"", broken="gone"), EmulatedFile("b.txt", b"BB", announced=7))
        account.setting(DOWNLOAD, downloads=files)
        task_id = account.run(DOWNLOAD, PAPER)
        account.pass_time(2)
        broken, other = account.task(task_id)["download_files"]
        assert (broken["status"], broken["errorMessage"]) == ("failed", "gone")
        assert other["fileSize"] == 7

    def test_run_can_be_set_to_have_given_files_and_downloads(self, account: Any) -> None:
        files = (EmulatedFile("a b.txt", b"A"), EmulatedFile("b.txt", b"BB"))
        account.emulator.next_run(SEARCH.id, files=files, downloads=files, output="")
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2)
        task = account.task(task_id)
        assert [file["fileSize"] for file in task["download_files"]] == [1, 2]
        assert "/a%20b.txt?" in task["output"]["files"][0]

    def test_start_of_an_unpublished_workflow_is_refused(self, account: Any, code_of: Any) -> None:
        assert code_of(lambda: account.run(UNPUBLISHED)) == 10020
        assert "publish_at" not in account.get("get-workflow", workflow_id=UNPUBLISHED.id)

    def test_get_workflow_returns_a_workflow_and_refuses_unknown_ids(self, account: Any, code_of: Any) -> None:
        assert account.get("get-workflow", workflow_id=SEARCH.id) == {
            "id": SEARCH.id,
            "name": "Search",
            "description": SEARCH.description,
            "create_at": SEARCH.created_at,
            "publish_at": SEARCH.published_at,
            "input_parameters": [
                {"name": "keyword", "default_enabled": False},
                {"name": "max_items", "default_enabled": True},
            ],
        }
        assert code_of(lambda: account.get("get-workflow", workflow_id="1")) == 10111
        assert code_of(lambda: account.get("get-workflow", workflow_id=TEMPLATE_SEARCH.id)) == 10111

    def test_custom_workflow_can_be_added_and_run(self, account: Any) -> None:
        account.emulator.add_workflow(EmulatedWorkflow(id="81002814653029411", name="Mine", output="mine"))
        task_id = account.run(account.emulator.workflows["81002814653029411"])
        account.pass_time(2)
        assert account.task(task_id)["output"]["string"] == "mine"

    def test_regions_are_returned_as_a_plain_list(self, account: Any) -> None:
        regions = account.get("get-region-list")
        assert [region["code"] for region in regions] == ["US", "UK", "DE", "JP"]


class TestTemplates:
    def run(self, account: Any, **fields: Any) -> Any:
        body = {
            "workflow_template_id": TEMPLATE_SEARCH.id,
            "input_parameters": [{"name": "keyword", "value": "paper"}],
            **fields,
        }
        return account.post("run-task-by-template", body)

    def test_template_runs_like_a_workflow_but_without_a_profile(self, account: Any) -> None:
        created = self.run(account)
        assert created.keys() == {"id"}
        account.pass_time(2)
        task = account.task(created["id"])
        assert json.loads(task["output"]["string"]) == results_for("paper")
        assert "profile_id" not in task
        record = account.emulator.tasks[0]
        assert (record.from_template, record.proxy_region) == (True, "US")

    def test_template_runs_in_the_given_region_and_refuses_unknown_ones(self, account: Any, code_of: Any) -> None:
        self.run(account, proxyRegion="JP")
        assert account.emulator.tasks[0].proxy_region == "JP"
        assert code_of(lambda: self.run(account, proxyRegion="XX")) == 10013

    @pytest.mark.parametrize("field", ["profile_id", "save_browser_data", "proxy_region"])
    def test_template_start_refuses_fields_of_workflows_and_of_api_v3(
        self, account: Any, code_of: Any, field: str
    ) -> None:
        assert code_of(lambda: self.run(account, **{field: "1"})) == 99001

    def test_template_and_workflow_ids_are_not_interchangeable(self, account: Any, code_of: Any) -> None:
        assert code_of(lambda: self.run(account, workflow_template_id=SEARCH.id)) == 10176
        assert code_of(lambda: account.run(TEMPLATE_SEARCH, PAPER)) == 10111
        assert code_of(lambda: self.run(account, workflow_template_id="")) == 99001
        assert code_of(lambda: self.run(account, input_parameters=[])) == 10142

    def test_get_template_returns_a_template_and_refuses_unknown_ids(self, account: Any, code_of: Any) -> None:
        template = account.get("get-official-workflow-template", workflow_template_id=TEMPLATE_SEARCH.id)
        assert template["id"] == TEMPLATE_SEARCH.id
        assert template["recommendDesc"] == TEMPLATE_SEARCH.recommendation
        assert [one["name"] for one in template["input_parameters"]] == ["keyword", "max_items"]
        unknown = {"workflow_template_id": "1"}
        assert code_of(lambda: account.get("get-official-workflow-template", **unknown)) == 10176

    def test_templates_are_found_by_keyword_in_name_or_description(self, account: Any) -> None:
        def found(**query: Any) -> list[str]:
            page = account.get("list-official-workflow-templates", limit=50, **query)
            assert page["total_count"] == len(page["items"])
            return [item["name"] for item in page["items"]]

        assert found() == ["Product export", "Page summary", "Product search"]
        assert found(keyword="PRODUCT") == ["Product export", "Product search"]
        assert found(keyword="sentence") == ["Page summary"]
        assert found(keyword="zebra") == []


class TestLists:
    def test_page_has_one_item_when_no_limit_is_sent(self, account: Any) -> None:
        page = account.get("list-workflows")
        assert (page["limit"], len(page["items"]), page["page"]) == (1, 1, 1)
        assert page["total_count"] == page["total_pages"] == 10

    def test_pages_list_every_task_once_and_newest_first(self, account: Any) -> None:
        ids = [account.run(PLAIN_TEXT) for _ in range(5)]
        pages = [account.get("list-tasks", limit=2, page=page) for page in (1, 2, 3, 4)]
        assert [item["id"] for page in pages for item in page["items"]] == ids[::-1]
        assert [len(page["items"]) for page in pages] == [2, 2, 1, 0]
        assert {page["total_pages"] for page in pages} == {3}
        assert {page["total_count"] for page in pages} == {5}

    def test_empty_task_list_has_no_pages(self, account: Any) -> None:
        page = account.get("list-tasks")
        assert (page["items"], page["total_pages"], page["total_count"]) == ([], 0, 0)

    @pytest.mark.parametrize(
        "query",
        [{"limit": 0}, {"limit": 501}, {"page": 0}, {"page": "x"}, {"limit": ""}],
        ids=["limit 0", "limit 501", "page 0", "text as page", "empty limit"],
    )
    @pytest.mark.parametrize("endpoint", ["list-tasks", "list-workflows", "list-official-workflow-templates"])
    def test_list_with_an_invalid_page_or_limit_is_refused(
        self, account: Any, code_of: Any, endpoint: str, query: Any
    ) -> None:
        assert code_of(lambda: account.get(endpoint, **query)) == 99001

    def test_listed_task_has_no_steps_download_files_or_log_link(self, account: Any) -> None:
        task_id = account.run(DOWNLOAD, PAPER)
        account.pass_time(2)
        (listed,) = account.get("list-tasks")["items"]
        task = account.task(task_id)
        missing = {"steps", "download_files", "files_expires_at", "log_detail_url"}
        assert listed == {name: value for name, value in task.items() if name not in missing}
        assert missing <= task.keys()

    def test_listed_task_has_its_whole_output_once_it_has_ended(self, account: Any) -> None:
        account.setting(PLAIN_TEXT, output="x" * 10_000)
        ids = [account.run(PLAIN_TEXT) for _ in range(3)]
        assert all("output" not in item for item in account.get("list-tasks", limit=500)["items"])
        account.pass_time(2)
        items = account.get("list-tasks", limit=500)["items"]
        assert [item["id"] for item in items] == ids[::-1]
        assert {item["output"]["string"] for item in items} == {"x" * 10_000}

    def test_tasks_are_filtered_by_status_and_workflow(self, account: Any, code_of: Any) -> None:
        searching = account.run(SEARCH, PAPER)
        account.setting(PLAIN_TEXT, duration=10.0)
        reading = account.run(PLAIN_TEXT)
        account.pass_time(2)

        def found(**query: Any) -> list[str]:
            return [item["id"] for item in account.get("list-tasks", limit=9, **query)["items"]]

        assert found(status="finished") == [searching]
        assert found(status="running") == [reading]
        assert found(status="pausing") == []
        assert found(workflow_id=SEARCH.id) == [searching]
        assert found(workflow_id="1") == []
        assert found(workflow_name="sEaRc") == [searching]
        assert found(workflow_name="A page", status="running") == [reading]
        assert code_of(lambda: found(status="stopped")) == 99001

    def test_tasks_are_filtered_by_creation_time_including_the_bounds(self, account: Any) -> None:
        first = account.run(PLAIN_TEXT)
        account.pass_time(10)
        second = account.run(PLAIN_TEXT)
        times = [account.task(task_id)["created_at"] for task_id in (first, second)]

        def found(**query: Any) -> list[str]:
            return [item["id"] for item in account.get("list-tasks", limit=9, **query)["items"]]

        assert found(created_at_from=times[0], created_at_to=times[1]) == [second, first]
        assert found(created_at_from=times[1]) == [second]
        assert found(created_at_to=times[0]) == [first]
        assert found(created_at_from="2026-05-28T22:26:50+02:00") == [second]
        assert found(created_at_from=times[1].replace("Z", ".001Z")) == []
        assert found(created_at_to="2026-01-01T00:00:00Z") == []

    @pytest.mark.parametrize(
        "moment",
        [
            "",
            "today",
            "2026-05-28",
            "2026-05-28T20:26:50",
            "2026-13-01T00:00:00Z",
            "1780000000",
            "0000-01-01T00:00:00Z",
        ],
    )
    def test_list_with_an_invalid_creation_time_is_refused(self, account: Any, code_of: Any, moment: str) -> None:
        assert code_of(lambda: account.get("list-tasks", created_at_from=moment)) == 99001


class TestConcurrency:
    def test_start_beyond_the_slots_of_the_plan_is_refused(self, make_account: Any, code_of: Any) -> None:
        account = make_account(concurrency=2)
        account.run(HUMAN)
        account.run(SEARCH, PAPER)
        assert code_of(lambda: account.run(SEARCH, PAPER)) == 10118
        assert code_of(lambda: TestTemplates().run(account)) == 10118
        assert len(account.emulator.tasks) == 2

    def test_paused_task_holds_a_slot_and_an_ended_one_does_not(self, make_account: Any, code_of: Any) -> None:
        account = make_account(concurrency=1)
        task_id = account.run(HUMAN)
        account.pass_time(1)
        assert account.status(task_id) == "paused"
        assert code_of(lambda: account.run(SEARCH, PAPER)) == 10118
        account.get("stop-task", task_id=task_id)
        account.run(SEARCH, PAPER)
        account.pass_time(2)
        account.run(SEARCH, PAPER)


class TestInvalidRequests:
    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"workflow_id": ""},
            {"workflow_id": 71002814653029451},
            {"workflow_id": None},
            {"workflow_id": PLAIN_TEXT.id, "inputParameters": []},
            {"workflow_id": PLAIN_TEXT.id, "input_parameters": {"topic": "x"}},
            {"workflow_id": PLAIN_TEXT.id, "input_parameters": ["topic"]},
            {"workflow_id": PLAIN_TEXT.id, "input_parameters": [{"name": "topic"}]},
            {"workflow_id": PLAIN_TEXT.id, "input_parameters": [{"name": "topic", "value": 1}]},
            {"workflow_id": PLAIN_TEXT.id, "input_parameters": [{"name": "unheard of", "value": "1"}]},
            {"workflow_id": PLAIN_TEXT.id, "input_parameters": [{"name": "topic", "value": "1"}] * 2},
            {"workflow_id": PLAIN_TEXT.id, "save_browser_data": "true"},
            {"workflow_id": PLAIN_TEXT.id, "save_browser_data": 1},
            {"workflow_id": PLAIN_TEXT.id, "profile_id": None},
            {"workflow_id": PLAIN_TEXT.id, "proxyRegion": "US"},
            {"workflow_id": PLAIN_TEXT.id, "callback_url": ""},
            [],
            "text",
        ],
        ids=[
            "empty object",
            "empty id",
            "numeric id",
            "null id",
            "unknown field",
            "inputs as dict",
            "input as text",
            "input without value",
            "numeric input value",
            "unknown input",
            "duplicate input",
            "text flag",
            "numeric flag",
            "null profile",
            "field of templates",
            "empty callback url",
            "list",
            "text",
        ],
    )
    def test_start_with_a_body_of_another_shape_is_refused(self, account: Any, code_of: Any, body: Any) -> None:
        assert code_of(lambda: account.post("run-task", body)) == 99001
        assert account.emulator.tasks == []

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"{",
            b"\xff",
            b'{"workflow_id": NaN}',
            b'{"workflow_id": "71002814653029451", "workflow_id": "71002814653029451"}',
            b'{"workflow_id": "\\ud800"}',
            b"[" * 100_000,
        ],
        ids=["empty", "broken off", "invalid UTF-8", "NaN", "duplicate field", "surrogate escape", "nested too deep"],
    )
    def test_start_with_a_body_of_invalid_json_is_refused(self, account: Any, code_of: Any, raw: bytes) -> None:
        request = {"body": raw, "content_type": "application/json"}
        assert code_of(lambda: account.raw("run-task", **request)) == 99001

    def test_start_with_another_content_type_is_refused(self, account: Any, code_of: Any) -> None:
        body = json.dumps({"workflow_id": PLAIN_TEXT.id}).encode()
        for wrong in ("", "text/plain", "application/x-www-form-urlencoded"):
            assert code_of(lambda: account.raw("run-task", body=body, content_type=wrong)) == 99001  # noqa: B023
        account.raw("run-task", body=body, content_type="Application/JSON; charset=utf-8")

    @pytest.mark.parametrize(
        "query", [b"", b"task_id=", b"task_id", b"taskId=1", b"task_id=1&task_id=1", b"task_id=%ff", b"task_id=1&x=1"]
    )
    @pytest.mark.parametrize("endpoint", ["get-task", "get-task-status", "stop-task", "resume-task"])
    def test_call_about_a_task_with_an_invalid_query_is_refused(
        self, account: Any, code_of: Any, endpoint: str, query: bytes
    ) -> None:
        assert code_of(lambda: account.raw(endpoint, query=query)) == 99001

    def test_start_of_an_unknown_workflow_is_refused(self, account: Any, code_of: Any) -> None:
        assert code_of(lambda: account.post("run-task", {"workflow_id": "1"})) == 10111

    @pytest.mark.parametrize(
        "inputs",
        [{}, {"username": "ada"}, {"username": "ada", "password": ""}],
        ids=["no inputs", "password missing", "password empty"],
    )
    def test_start_without_a_required_input_is_refused(self, account: Any, code_of: Any, inputs: Any) -> None:
        assert code_of(lambda: account.run(LOG_IN, inputs)) == 10142

    @pytest.mark.parametrize(
        "url",
        [
            "ftp://example.com/x",
            "example.com/x",
            "http://",
            "http:///path",
            "http://example.com:99999/",
            "http://[::1/",
            "https://example.com/with space",
            "https://example.com/" + "x" * 2048,
            "javascript:alert(1)",
        ],
        ids=[
            "other scheme",
            "no scheme",
            "no host",
            "path without host",
            "invalid port",
            "broken IPv6 address",
            "space",
            "too long",
            "javascript",
        ],
    )
    @pytest.mark.parametrize("field", ["callback_url", "status_change_callback_url"])
    def test_start_with_an_invalid_callback_url_is_refused(
        self, account: Any, code_of: Any, field: str, url: str
    ) -> None:
        assert code_of(lambda: account.run(PLAIN_TEXT, **{field: url})) == 99001
        assert account.emulator.tasks == []

    def test_callback_url_of_2048_characters_is_accepted(self, account: Any) -> None:
        url = "https://example.com/".ljust(2048, "x")
        account.run(PLAIN_TEXT, callback_url=url)
        assert account.emulator.tasks[0].callback_url == url

    @pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.1.1", "::1", "fd00::1"])
    def test_callback_url_resolving_to_a_private_address_can_be_refused(
        self, make_account: Any, code_of: Any, monkeypatch: Any, address: str
    ) -> None:
        resolve(monkeypatch, {"here": ["93.184.216.34", address], "there": ["93.184.216.34"]})
        account = make_account(allow_private_callbacks=False)
        assert code_of(lambda: account.run(PLAIN_TEXT, callback_url="https://here/x")) == 99001
        account.run(PLAIN_TEXT, callback_url="https://there/x")

    def test_callback_url_with_an_unknown_host_can_be_refused(
        self, make_account: Any, code_of: Any, monkeypatch: Any
    ) -> None:
        resolve(monkeypatch, {})
        account = make_account(allow_private_callbacks=False)
        assert code_of(lambda: account.run(PLAIN_TEXT, callback_url="https://nowhere/x")) == 99001


class TestTheRecord:
    def test_task_record_has_the_request_and_the_history_of_the_run(self, account: Any) -> None:
        created = log_in(account, "ada", save_browser_data=True, callback_url="https://example.com/x")
        account.pass_time(2)
        (record,) = account.emulator.tasks
        assert record.id == created["id"]
        assert record.inputs == [("username", "ada"), ("password", "secret")]
        assert record.profile_id == created["profile_id"]
        assert record.save_browser_data
        assert record.callback_url == "https://example.com/x"
        assert [status for status, _ in record.history] == ["created", "running", "finished"]
        assert (record.finished_at - record.created_at).total_seconds() == 2
        assert (record.ended_by, record.credit) == ("workflow", 15)
        assert json.loads(record.output)["logged_in"] is True

    def test_task_record_is_a_snapshot_that_does_not_change(self, account: Any) -> None:
        account.run(SEARCH, PAPER)
        (before,) = account.emulator.tasks
        account.pass_time(2)
        (after,) = account.emulator.tasks
        assert (before.status, after.status) == ("running", "finished")

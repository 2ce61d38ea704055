from __future__ import annotations

import json
import re
from typing import Any

import pytest

from airflow_provider_browseract.emulator import (
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


def log_in(account: Any, username: str, **fields: Any) -> Any:
    return account.start(LOG_IN, {"username": username, "password": "secret"}, **fields)


class TestALifeOfATask:
    def test_a_task_runs_for_its_duration_and_then_is_finished(self, account: Any) -> None:
        task_id = account.run(SEARCH, PAPER)
        assert account.status(task_id) == "running"
        account.pass_time(1.99)
        assert account.status(task_id) == "running"
        account.pass_time(0.01)
        assert account.status(task_id) == "finished"

    def test_a_task_that_is_queued_is_created_first(self, account: Any) -> None:
        account.setting(SEARCH, queued=5.0)
        task_id = account.run(SEARCH, PAPER)
        assert account.status(task_id) == "created"
        assert account.task(task_id)["steps"] == []
        assert account.task(task_id)["credit"] == 0
        account.pass_time(5)
        assert account.status(task_id) == "running"

    def test_speed_shortens_every_duration(self, make_account: Any) -> None:
        account = make_account(speed=4)
        account.setting(HUMAN, queued=4.0, duration=8.0, pause_limit=12.0)
        task_id = account.run(HUMAN)
        account.pass_time(100)
        moments = [moment.timestamp() for _, moment in account.service.tasks()[0].history]
        assert [later - moments[0] for later in moments] == [0, 1, 2, 5, 6]
        assert account.status(task_id) == "finished"

    def test_a_change_of_speed_concerns_later_runs_only(self, account: Any) -> None:
        before = account.run(SEARCH, PAPER)
        account.service.speed = 2
        after = account.run(SEARCH, PAPER)
        account.pass_time(1)
        assert (account.status(before), account.status(after)) == ("running", "finished")

    def test_changes_are_told_once_in_the_order_in_which_they_happened(self, account: Any) -> None:
        account.setting(SEARCH, duration=3.0)
        long = account.run(SEARCH, PAPER)
        short = account.run(PLAIN_TEXT)
        account.pass_time(60)
        told = [(change.task_id, change.status) for change in account.service.advance()]
        assert told == [(long, "running"), (short, "running"), (short, "finished"), (long, "finished")]
        assert account.service.advance() == []

    def test_a_change_tells_what_get_task_said_at_that_time(self, account: Any) -> None:
        task_id = account.run(SEARCH, PAPER)
        as_running = account.task(task_id)
        account.pass_time(60)
        running, finished = account.service.advance()
        assert running.payload == as_running
        assert finished.payload == account.task(task_id)

    def test_the_service_tells_when_it_will_change_next(self, account: Any) -> None:
        assert account.service.next_change() is None
        account.run(SEARCH, PAPER)
        account.service.advance()
        assert account.service.next_change() == account.now + 2

    def test_a_finished_task_has_text_times_credits_and_its_links(self, account: Any) -> None:
        account.service.base_url = "http://emulator"
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

    def test_output_and_end_are_absent_until_the_task_has_ended(self, account: Any) -> None:
        task = account.task(account.run(SEARCH, PAPER))
        assert task.keys().isdisjoint({"output", "finished_at", "task_failure_info"})

    def test_the_live_view_is_there_only_while_there_is_something_to_see(self, account: Any) -> None:
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

    def test_steps_are_spread_over_the_run(self, account: Any) -> None:
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

    def test_a_run_without_duration_ends_at_once(self, account: Any) -> None:
        account.setting(SEARCH, duration=0.0)
        task_id = account.run(SEARCH, PAPER)
        assert account.status(task_id) == "finished"
        assert account.task(task_id)["credit"] == 20

    def test_ids_are_text_of_17_digits_that_no_floating_point_number_holds(self, account: Any) -> None:
        account.service.concurrency = 50
        ids = [account.run(PLAIN_TEXT) for _ in range(50)]
        assert len(set(ids)) == 50
        for number in (*ids, *account.service.workflows, *account.service.templates):
            assert re.fullmatch(r"[1-9]\d{16}", number)
            assert f"{float(number):.0f}" != number


class TestOutcomes:
    def test_a_failing_workflow_tells_why_and_at_which_step(self, account: Any) -> None:
        task_id = account.run(FAILING)
        account.pass_time(2)
        task = account.task(task_id)
        assert task["status"] == "failed"
        assert task["task_failure_info"] == {"code": 1011, "message": FAILING.failure[1]}
        assert [step["status"] for step in task["steps"]] == ["succeed", "failed"]
        assert task["steps"][1]["step_goal"] == FAILING.steps[1]
        assert task["output"] == {"string": "", "files": []}

    def test_any_workflow_can_be_made_to_fail_with_a_code_of_ones_own(self, account: Any) -> None:
        account.setting(SEARCH, outcome="failed", failure=(4711, "out of paper"), duration=1.0)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(1)
        task = account.task(task_id)
        assert task["task_failure_info"] == {"code": 4711, "message": "out of paper"}
        assert [step["status"] for step in task["steps"]] == ["succeed"] * 3 + ["failed"]

    def test_a_run_can_be_canceled_as_if_from_the_dashboard(self, account: Any) -> None:
        account.setting(SEARCH, outcome="canceled")
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2)
        assert account.status(task_id) == "canceled"
        assert account.service.tasks()[0].ended_by == "workflow"

    def test_settings_for_the_next_run_concern_one_run_only(self, account: Any) -> None:
        account.service.plan_run(SEARCH.id, {"output": "first"})
        account.service.plan_run(SEARCH.id, {"output": "second"})
        ids = [account.run(SEARCH, PAPER) for _ in range(3)]
        account.pass_time(2)
        texts = [account.task(task_id)["output"]["string"] for task_id in ids]
        assert texts == ["first", "second", json.dumps(results_for("paper"))]

    def test_a_refused_request_does_not_use_up_settings_for_the_next_run(self, account: Any, code_of: Any) -> None:
        account.service.plan_run(SEARCH.id, {"output": "planned"})
        assert code_of(lambda: account.run(SEARCH)) == 10142
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2)
        assert account.task(task_id)["output"]["string"] == "planned"

    def test_settings_for_the_next_run_stand_on_what_the_workflow_is_by_then(self, account: Any) -> None:
        account.service.plan_run(SEARCH.id, {"output": "planned"})
        account.setting(SEARCH, duration=7.0)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(6.9)
        assert account.status(task_id) == "running"

    def test_a_status_that_nobody_knows_can_be_reported(self, account: Any) -> None:
        account.service.plan_run(SEARCH.id, {"status": "dreaming"})
        task_id = account.run(SEARCH, PAPER)
        assert account.status(task_id) == account.task(task_id)["status"] == "dreaming"
        assert account.get("list-tasks")["items"][0]["status"] == "dreaming"
        assert [change.status for change in account.service.advance()] == ["dreaming"]
        assert account.service.tasks()[0].status == "running"

    @pytest.mark.parametrize(
        "settings",
        [
            {"duration": -1.0},
            {"duration": float("nan")},
            {"outcome": "exploded"},
            {"pause_at": 1.5},
            {"failed_step": 9},
            {"steps": ()},
        ],
    )
    def test_settings_that_make_no_sense_are_refused(self, account: Any, settings: Any) -> None:
        with pytest.raises(ValueError, match=next(iter(settings)).replace("steps", "step")):
            account.service.plan_run(SEARCH.id, settings)

    def test_settings_that_do_not_exist_are_refused(self, account: Any) -> None:
        with pytest.raises(TypeError, match="colour"):
            account.service.plan_run(SEARCH.id, {"colour": "red"})
        with pytest.raises(KeyError, match="12345"):
            account.service.plan_run("12345", {"duration": 1.0})

    def test_an_error_in_a_behaviour_fails_its_run_and_nothing_else(self, account: Any) -> None:
        def broken(_: RunContext) -> Any:
            raise ZeroDivisionError("oops")

        account.setting(SEARCH, behaviour=broken)
        broken_id, good_id = account.run(SEARCH, PAPER), account.run(PLAIN_TEXT)
        account.pass_time(2)
        failure = account.task(broken_id)["task_failure_info"]
        assert failure == {"code": 10000, "message": "ZeroDivisionError: oops"}
        assert account.status(good_id) == "finished"


class TestPauses:
    def test_a_run_for_a_human_pauses_until_it_is_resumed(self, account: Any) -> None:
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

    def test_a_pause_that_nobody_ends_is_over_after_its_time_limit(self, account: Any) -> None:
        task_id = account.run(HUMAN)
        account.pass_time(1 + 600)
        assert account.status(task_id) == "running"
        account.pass_time(1)
        assert account.output(task_id) == {"confirmed": False}

    def test_a_pause_without_a_limit_lasts_for_ever(self, account: Any) -> None:
        account.setting(HUMAN, pause_limit=None)
        task_id = account.run(HUMAN)
        account.pass_time(1_000_000)
        assert account.status(task_id) == "paused"

    def test_steps_stand_still_during_a_pause(self, account: Any) -> None:
        task_id = account.run(HUMAN)
        account.pass_time(1)
        steps = account.task(task_id)["steps"]
        account.pass_time(300)
        assert account.task(task_id)["steps"] == steps
        assert [step["status"] for step in steps] == ["succeed", "running"]

    def test_any_workflow_can_be_made_to_pause(self, account: Any) -> None:
        account.setting(SEARCH, pause_at=0.25)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(0.5)
        assert account.status(task_id) == "paused"

    def test_only_a_paused_task_can_be_resumed(self, account: Any, code_of: Any) -> None:
        task_id = account.run(SEARCH, PAPER)
        assert code_of(lambda: account.get("resume-task", task_id=task_id)) == 10127
        account.pass_time(2)
        assert code_of(lambda: account.get("resume-task", task_id=task_id)) == 10127
        assert code_of(lambda: account.get("resume-task", task_id="1")) == 10112


class TestStopping:
    @pytest.mark.parametrize(("seconds", "before"), [(0, "created"), (1, "running"), (2, "paused")])
    def test_a_task_under_way_is_canceled_at_once(self, account: Any, seconds: int, before: str) -> None:
        account.setting(HUMAN, queued=1.0)
        task_id = account.run(HUMAN)
        account.pass_time(seconds)
        assert account.status(task_id) == before
        assert account.get("stop-task", task_id=task_id, biz_code=7) is None
        assert account.status(task_id) == "canceled"
        record = account.service.tasks()[0]
        assert (record.ended_by, record.biz_code) == ("stop-task", 7)
        assert record.finished_at.timestamp() == account.now

    def test_a_canceled_task_stays_canceled(self, account: Any, code_of: Any) -> None:
        task_id = account.run(HUMAN)
        account.pass_time(1)
        account.get("stop-task", task_id=task_id)
        credit = account.task(task_id)["credit"]
        account.pass_time(1000)
        assert account.status(task_id) == "canceled"
        assert account.task(task_id)["credit"] == credit == 10
        assert code_of(lambda: account.get("resume-task", task_id=task_id)) == 10127

    def test_stopping_a_task_that_has_ended_is_an_error(self, account: Any, code_of: Any) -> None:
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2)
        assert code_of(lambda: account.get("stop-task", task_id=task_id)) == 10121
        assert account.status(task_id) == "finished"

    def test_stopping_a_task_that_has_ended_can_be_made_to_succeed(self, make_account: Any) -> None:
        account = make_account(stop_ended_is_ok=True)
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2)
        assert account.get("stop-task", task_id=task_id) is None
        assert account.status(task_id) == "finished"

    def test_a_task_that_does_not_exist_cannot_be_stopped(self, account: Any, code_of: Any) -> None:
        assert code_of(lambda: account.get("stop-task", task_id="16429034742537847")) == 10112

    @pytest.mark.parametrize("biz_code", ["x", "2147483648", "1.0", "", " 1", "+1", "\N{FULLWIDTH DIGIT ONE}"])
    def test_a_business_code_is_a_32_bit_integer(self, account: Any, code_of: Any, biz_code: str) -> None:
        task_id = account.run(SEARCH, PAPER)
        assert code_of(lambda: account.get("stop-task", task_id=task_id, biz_code=biz_code)) == 99001
        assert account.status(task_id) == "running"


class TestProfiles:
    def test_orders_are_found_with_the_profile_of_an_earlier_log_in(self, account: Any) -> None:
        profile_id = log_in(account, "ada", save_browser_data=True)["profile_id"]
        account.pass_time(2)
        task_id = account.run(ORDERS, profile_id=profile_id)
        account.pass_time(2)
        assert account.output(task_id) == orders_of("ada")
        assert account.task(task_id)["profile_id"] == profile_id

    def test_two_profiles_do_not_mix(self, account: Any) -> None:
        profiles = [log_in(account, name, save_browser_data=True)["profile_id"] for name in ("ada", "bob")]
        account.pass_time(2)
        ids = [account.run(ORDERS, profile_id=profile_id) for profile_id in profiles]
        account.pass_time(2)
        assert [account.output(task_id) for task_id in ids] == [orders_of("ada"), orders_of("bob")]
        assert orders_of("ada") != orders_of("bob")

    @pytest.mark.parametrize("fields", [{}, {"profile_id": ""}, {"save_browser_data": True}])
    def test_without_a_profile_there_are_nobodys_orders(self, account: Any, fields: Any) -> None:
        log_in(account, "ada", save_browser_data=True)
        account.pass_time(2)
        task_id = account.run(ORDERS, **fields)
        account.pass_time(2)
        assert account.status(task_id) == "finished"
        assert account.output(task_id)["logged_in"] is False

    def test_a_profile_id_is_answered_only_when_browser_data_is_saved(self, account: Any) -> None:
        assert log_in(account, "ada").keys() == {"id"}
        assert log_in(account, "ada", save_browser_data=False).keys() == {"id"}
        assert log_in(account, "ada", save_browser_data=True).keys() == {"id", "profile_id"}

    def test_a_profile_that_was_not_saved_cannot_be_used(self, account: Any, code_of: Any) -> None:
        shown = account.task(log_in(account, "ada")["id"])["profile_id"]
        account.pass_time(2)
        assert code_of(lambda: account.run(ORDERS, profile_id=shown)) == 99001

    def test_a_profile_that_does_not_exist_is_refused_and_nothing_is_run(self, account: Any, code_of: Any) -> None:
        assert code_of(lambda: account.run(ORDERS, profile_id="16429034742537847")) == 99001
        assert account.service.tasks() == []

    def test_a_profile_is_saved_only_when_its_run_has_finished(self, account: Any) -> None:
        profile_id = log_in(account, "ada", save_browser_data=True)["profile_id"]
        account.pass_time(1)
        too_early = account.run(ORDERS, profile_id=profile_id)
        account.pass_time(2)
        assert account.output(too_early)["logged_in"] is False

    @pytest.mark.parametrize("outcome", ["failed", "canceled"])
    def test_a_run_that_does_not_finish_saves_nothing(self, account: Any, outcome: str) -> None:
        account.service.plan_run(LOG_IN.id, {"outcome": outcome})
        profile_id = log_in(account, "ada", save_browser_data=True)["profile_id"]
        account.pass_time(2)
        task_id = account.run(ORDERS, profile_id=profile_id)
        account.pass_time(2)
        assert account.output(task_id)["logged_in"] is False

    def test_a_later_run_changes_a_profile_only_if_it_saves_browser_data(self, account: Any) -> None:
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

    def test_a_wrong_password_fails_the_log_in(self, account: Any) -> None:
        task_id = account.run(LOG_IN, {"username": "ada", "password": "wrong"})
        account.pass_time(2)
        assert account.status(task_id) == "failed"
        assert "ada" in account.task(task_id)["task_failure_info"]["message"]


class TestTheCatalogue:
    def test_a_search_depends_on_the_keyword(self, account: Any) -> None:
        ids = [account.run(SEARCH, {"keyword": word}) for word in ("paper", "stone", "paper")]
        account.pass_time(2)
        paper, stone, again = (account.output(task_id) for task_id in ids)
        assert paper == again != stone
        assert len(paper) == 10

    def test_plain_text_is_not_json(self, account: Any) -> None:
        task_id = account.run(PLAIN_TEXT)
        account.pass_time(2)
        with pytest.raises(ValueError, match="Expecting value"):
            account.output(task_id)

    def test_an_export_puts_out_a_file_and_no_text(self, account: Any) -> None:
        account.service.base_url = "http://emulator"
        task_id = account.run(EXPORT, PAPER)
        account.pass_time(2)
        task = account.task(task_id)
        assert task["output"]["string"] == ""
        (link,) = task["output"]["files"]
        (download,) = task["download_files"]
        assert download["downloadUrl"] == link
        assert download["fileName"] == "results.csv"
        assert link.startswith("http://emulator/files/")
        token = link.split("/")[4]
        content = account.service.file(token).content
        assert content.startswith(b"\xef\xbb\xbfrank,title,price,url\r\n")
        assert download["fileSize"] == len(content)
        assert content.count(b"\n") == 11

    def test_links_to_files_expire(self, account: Any) -> None:
        account.setting(EXPORT, file_lifetime=60.0)
        task_id = account.run(EXPORT, PAPER)
        account.pass_time(2)
        task = account.task(task_id)
        token = task["output"]["files"][0].split("/")[4]
        expires = int(1000 * (account.now + 60))
        assert task["files_expires_at"] == task["download_files"][0]["expiresAt"] == expires
        account.pass_time(59)
        assert account.service.file(token) is not None
        account.pass_time(1)
        assert account.service.file(token) is None
        assert account.service.file("guessed") is None

    def test_a_link_that_has_expired_is_followed_by_a_new_one(self, account: Any) -> None:
        account.setting(EXPORT, file_lifetime=60.0)
        task_id = account.run(EXPORT, PAPER)
        account.pass_time(2)
        old = account.task(task_id)["output"]["files"][0]
        account.pass_time(30)
        assert account.task(task_id)["output"]["files"][0] == old
        account.pass_time(30)
        task = account.task(task_id)
        new = task["output"]["files"][0]
        assert new == task["download_files"][0]["downloadUrl"] != old
        assert account.service.file(new.split("/")[4]) is not None
        assert account.service.file(old.split("/")[4]) is None

    def test_a_file_may_still_be_prepared_when_its_run_has_ended(self, account: Any) -> None:
        account.setting(EXPORT, files=(EmulatedFile("a.txt", b"A", prepared_after=30.0),))
        task_id = account.run(EXPORT, PAPER)
        account.pass_time(2)
        task = account.task(task_id)
        assert task["status"] == "finished"
        assert task["output"]["files"] == []
        assert task["download_files"][0]["status"] == "uploading"
        assert "downloadUrl" not in task["download_files"][0]
        account.pass_time(30)
        task = account.task(task_id)
        assert task["download_files"][0]["downloadUrl"] == task["output"]["files"][0]

    def test_a_file_may_never_come_or_be_announced_with_another_size(self, account: Any) -> None:
        files = (EmulatedFile("a.txt", b"", broken="gone"), EmulatedFile("b.txt", b"BB", announced=7))
        account.setting(EXPORT, files=files)
        task_id = account.run(EXPORT, PAPER)
        account.pass_time(2)
        broken, other = account.task(task_id)["download_files"]
        assert (broken["status"], broken["errorMessage"]) == ("failed", "gone")
        assert other["fileSize"] == 7

    def test_files_of_ones_own_can_be_put_out(self, account: Any) -> None:
        files = (EmulatedFile("a b.txt", b"A"), EmulatedFile("b.txt", b"BB"))
        account.service.plan_run(SEARCH.id, {"files": files, "output": ""})
        task_id = account.run(SEARCH, PAPER)
        account.pass_time(2)
        task = account.task(task_id)
        assert [file["fileSize"] for file in task["download_files"]] == [1, 2]
        assert "/a%20b.txt?" in task["output"]["files"][0]

    def test_an_unpublished_workflow_cannot_be_run(self, account: Any, code_of: Any) -> None:
        assert code_of(lambda: account.run(UNPUBLISHED)) == 10020
        assert "publish_at" not in account.get("get-workflow", workflow_id=UNPUBLISHED.id)

    def test_workflows_can_be_looked_up(self, account: Any, code_of: Any) -> None:
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

    def test_workflows_of_ones_own_can_be_added(self, account: Any) -> None:
        account.service.put(EmulatedWorkflow(id="81002814653029411", name="Mine", output="mine"))
        task_id = account.run(account.service.workflows["81002814653029411"])
        account.pass_time(2)
        assert account.task(task_id)["output"]["string"] == "mine"

    def test_regions_come_as_a_bare_list(self, account: Any) -> None:
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

    def test_a_template_runs_like_a_workflow_but_without_a_profile(self, account: Any) -> None:
        created = self.run(account)
        assert created.keys() == {"id"}
        account.pass_time(2)
        task = account.task(created["id"])
        assert json.loads(task["output"]["string"]) == results_for("paper")
        assert "profile_id" not in task
        record = account.service.tasks()[0]
        assert (record.from_template, record.proxy_region) == (True, "US")

    def test_a_template_runs_in_the_region_that_is_asked_for(self, account: Any, code_of: Any) -> None:
        self.run(account, proxyRegion="JP")
        assert account.service.tasks()[0].proxy_region == "JP"
        assert code_of(lambda: self.run(account, proxyRegion="XX")) == 10013

    @pytest.mark.parametrize("field", ["profile_id", "save_browser_data", "proxy_region"])
    def test_a_template_knows_no_fields_of_workflows_or_of_api_v3(self, account: Any, code_of: Any, field: str) -> None:
        assert code_of(lambda: self.run(account, **{field: "1"})) == 99001

    def test_templates_and_workflows_are_not_the_same(self, account: Any, code_of: Any) -> None:
        assert code_of(lambda: self.run(account, workflow_template_id=SEARCH.id)) == 10176
        assert code_of(lambda: account.run(TEMPLATE_SEARCH, PAPER)) == 10111
        assert code_of(lambda: self.run(account, workflow_template_id="")) == 99001
        assert code_of(lambda: self.run(account, input_parameters=[])) == 10142

    def test_templates_can_be_looked_up(self, account: Any, code_of: Any) -> None:
        template = account.get("get-official-workflow-template", workflow_template_id=TEMPLATE_SEARCH.id)
        assert template["id"] == TEMPLATE_SEARCH.id
        assert template["recommendDesc"] == TEMPLATE_SEARCH.recommendation
        assert [one["name"] for one in template["input_parameters"]] == ["keyword", "max_items"]
        unknown = {"workflow_template_id": "1"}
        assert code_of(lambda: account.get("get-official-workflow-template", **unknown)) == 10176

    def test_templates_are_found_by_name_and_description(self, account: Any) -> None:
        def found(**query: Any) -> list[str]:
            page = account.get("list-official-workflow-templates", limit=50, **query)
            assert page["total_count"] == len(page["items"])
            return [item["name"] for item in page["items"]]

        assert found() == ["Product export", "Page summary", "Product search"]
        assert found(keyword="PRODUCT") == ["Product export", "Product search"]
        assert found(keyword="sentence") == ["Page summary"]
        assert found(keyword="zebra") == []


class TestLists:
    def test_a_page_has_one_item_unless_a_limit_is_sent(self, account: Any) -> None:
        page = account.get("list-workflows")
        assert (page["limit"], len(page["items"]), page["page"]) == (1, 1, 1)
        assert page["total_count"] == page["total_pages"] == 8

    def test_pages_hold_everything_once_newest_first(self, account: Any) -> None:
        ids = [account.run(PLAIN_TEXT) for _ in range(5)]
        pages = [account.get("list-tasks", limit=2, page=page) for page in (1, 2, 3, 4)]
        assert [item["id"] for page in pages for item in page["items"]] == ids[::-1]
        assert [len(page["items"]) for page in pages] == [2, 2, 1, 0]
        assert {page["total_pages"] for page in pages} == {3}
        assert {page["total_count"] for page in pages} == {5}

    def test_an_empty_list_has_no_pages(self, account: Any) -> None:
        page = account.get("list-tasks")
        assert (page["items"], page["total_pages"], page["total_count"]) == ([], 0, 0)

    @pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 501}, {"page": 0}, {"page": "x"}, {"limit": ""}])
    @pytest.mark.parametrize("endpoint", ["list-tasks", "list-workflows", "list-official-workflow-templates"])
    def test_a_page_that_cannot_be_is_refused(self, account: Any, code_of: Any, endpoint: str, query: Any) -> None:
        assert code_of(lambda: account.get(endpoint, **query)) == 99001

    def test_a_listed_task_lacks_steps_files_and_log(self, account: Any) -> None:
        task_id = account.run(EXPORT, PAPER)
        account.pass_time(2)
        (listed,) = account.get("list-tasks")["items"]
        task = account.task(task_id)
        missing = {"steps", "download_files", "files_expires_at", "log_detail_url"}
        assert listed == {name: value for name, value in task.items() if name not in missing}
        assert missing <= task.keys()

    def test_tasks_are_found_by_status_and_workflow(self, account: Any, code_of: Any) -> None:
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

    def test_tasks_are_found_by_time_of_creation_bounds_included(self, account: Any) -> None:
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
    def test_a_time_that_is_none_is_refused(self, account: Any, code_of: Any, moment: str) -> None:
        assert code_of(lambda: account.get("list-tasks", created_at_from=moment)) == 99001


class TestConcurrency:
    def test_one_task_more_than_the_plan_allows_is_refused(self, make_account: Any, code_of: Any) -> None:
        account = make_account(concurrency=2)
        account.run(HUMAN)
        account.run(SEARCH, PAPER)
        assert code_of(lambda: account.run(SEARCH, PAPER)) == 10118
        assert code_of(lambda: TestTemplates().run(account)) == 10118
        assert len(account.service.tasks()) == 2

    def test_a_paused_task_counts_and_an_ended_one_does_not(self, make_account: Any, code_of: Any) -> None:
        account = make_account(concurrency=1)
        task_id = account.run(HUMAN)
        account.pass_time(1)
        assert account.status(task_id) == "paused"
        assert code_of(lambda: account.run(SEARCH, PAPER)) == 10118
        account.get("stop-task", task_id=task_id)
        account.run(SEARCH, PAPER)
        account.pass_time(2)
        account.run(SEARCH, PAPER)


class TestWhatCannotBeUnderstood:
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
    )
    def test_a_body_of_another_shape_is_refused(self, account: Any, code_of: Any, body: Any) -> None:
        assert code_of(lambda: account.post("run-task", body)) == 99001
        assert account.service.tasks() == []

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
    )
    def test_a_body_that_is_no_proper_json_is_refused(self, account: Any, code_of: Any, raw: bytes) -> None:
        request = {"body": raw, "content_type": "application/json"}
        assert code_of(lambda: account.raw("run-task", **request)) == 99001

    def test_a_body_of_another_content_type_is_refused(self, account: Any, code_of: Any) -> None:
        body = json.dumps({"workflow_id": PLAIN_TEXT.id}).encode()
        for wrong in ("", "text/plain", "application/x-www-form-urlencoded"):
            assert code_of(lambda: account.raw("run-task", body=body, content_type=wrong)) == 99001  # noqa: B023
        account.raw("run-task", body=body, content_type="Application/JSON; charset=utf-8")

    @pytest.mark.parametrize(
        "query", [b"", b"task_id=", b"task_id", b"taskId=1", b"task_id=1&task_id=1", b"task_id=%ff", b"task_id=1&x=1"]
    )
    @pytest.mark.parametrize("endpoint", ["get-task", "get-task-status", "stop-task", "resume-task"])
    def test_a_query_that_cannot_be_understood_is_refused(
        self, account: Any, code_of: Any, endpoint: str, query: bytes
    ) -> None:
        assert code_of(lambda: account.raw(endpoint, query=query)) == 99001

    def test_a_workflow_that_does_not_exist_cannot_be_run(self, account: Any, code_of: Any) -> None:
        assert code_of(lambda: account.post("run-task", {"workflow_id": "1"})) == 10111

    @pytest.mark.parametrize("inputs", [{}, {"username": "ada"}, {"username": "ada", "password": ""}])
    def test_a_required_input_must_be_given(self, account: Any, code_of: Any, inputs: Any) -> None:
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
    )
    @pytest.mark.parametrize("field", ["callback_url", "status_change_callback_url"])
    def test_a_callback_url_must_be_a_web_address(self, account: Any, code_of: Any, field: str, url: str) -> None:
        assert code_of(lambda: account.run(PLAIN_TEXT, **{field: url})) == 99001
        assert account.service.tasks() == []

    def test_a_callback_url_may_have_2048_characters(self, account: Any) -> None:
        url = "https://example.com/".ljust(2048, "x")
        account.run(PLAIN_TEXT, callback_url=url)
        assert account.service.tasks()[0].callback_url == url

    @pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.1.1", "::1", "fd00::1"])
    def test_a_callback_url_that_leads_to_a_private_address_can_be_refused(
        self, make_account: Any, code_of: Any, address: str
    ) -> None:
        account = make_account(resolve_host={"here": ["93.184.216.34", address], "there": ["93.184.216.34"]}.get)
        assert code_of(lambda: account.run(PLAIN_TEXT, callback_url="https://here/x")) == 99001
        account.run(PLAIN_TEXT, callback_url="https://there/x")

    def test_a_callback_url_whose_host_is_not_found_can_be_refused(self, make_account: Any, code_of: Any) -> None:
        def not_found(_: str) -> Any:
            raise OSError("not found")

        account = make_account(resolve_host=not_found)
        assert code_of(lambda: account.run(PLAIN_TEXT, callback_url="https://nowhere/x")) == 99001


class TestTheRecord:
    def test_a_task_is_recorded_as_it_was_asked_for(self, account: Any) -> None:
        created = log_in(account, "ada", save_browser_data=True, callback_url="https://example.com/x")
        account.pass_time(2)
        (record,) = account.service.tasks()
        assert record.id == created["id"]
        assert record.inputs == [("username", "ada"), ("password", "secret")]
        assert record.profile_id == created["profile_id"]
        assert record.save_browser_data
        assert record.callback_url == "https://example.com/x"
        assert [status for status, _ in record.history] == ["created", "running", "finished"]
        assert (record.finished_at - record.created_at).total_seconds() == 2
        assert (record.ended_by, record.credit) == ("workflow", 15)
        assert json.loads(record.output)["logged_in"] is True

    def test_a_record_does_not_change_any_more(self, account: Any) -> None:
        account.run(SEARCH, PAPER)
        (before,) = account.service.tasks()
        account.pass_time(2)
        (after,) = account.service.tasks()
        assert (before.status, after.status) == ("running", "finished")

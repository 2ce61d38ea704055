"""Wait for the run of an operator, in the worker or in the triggerer, until it has ended."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.compat import AirflowFailException, at_end_of_task, count_in_task, in_dag_test
from airflow_provider_browseract.exceptions import (
    BrowserActError,
    RunLostError,
    RunTimedOutError,
)
from airflow_provider_browseract.in_airflow.showing import count_run, show_run, show_wait
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.loops import run_steps
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.cap import over_cap_text
from airflow_provider_browseract.runs.options import RunOptions
from airflow_provider_browseract.runs.report import IF_NO_LINE_FOLLOWS, end_line, log_url, polling_line
from airflow_provider_browseract.runs.resuming import (
    Answered,
    Conclude,
    Decision,
    GiveUp,
    Paused,
    WaitAgain,
    WaitEvent,
    after_wait,
)
from airflow_provider_browseract.runs.stored import to_json
from airflow_provider_browseract.runs.waiting import End, Wait, WokenBy, wait_for_end
from airflow_provider_browseract.worker.owned_run import STOPPED, OwnedRun
from airflow_provider_browseract.worker.pauses import act_on_answer, handle_pause, required_action_url
from airflow_provider_browseract.worker.reading import decide_after_deferral, get_task_or_error

if TYPE_CHECKING:
    from airflow.sdk import Context


@dataclass(frozen=True, repr=False)
class Waiter:
    """Wait for a run as the arguments of the operator say."""

    run: OwnedRun
    context: Context
    options: RunOptions
    defer: Callable[..., Any]

    def until_end(self, decision: Decision) -> Task:
        """Act on a decision, wait as often as needed, and return the run when it has ended.

        :raises TaskDeferred: the wait continues in the triggerer.
        :raises RunError: there is no result to wait for.
        :raises AirflowFailException: the run was stopped by a person, at its pause, or over its cap.
        """
        while True:
            match decision:
                case Conclude(task):
                    return task
                case WaitAgain(wait):
                    decision = self._wait(wait)
                case Paused():
                    decision = handle_pause(decision, self.context, self.run, self.options.on_paused_callback)
                case Answered():
                    decision = act_on_answer(decision, self.run)
                case GiveUp(wait, task=Task() as task):
                    decision = self._end_over_cap(wait, task)
                case GiveUp():
                    raise self._no_result(decision)

    def resume(self, event: WaitEvent, resumed_at: float) -> Decision:
        """Read the run after a deferral, and decide what to do next, with the options as they are now.

        :param resumed_at: when this process began, in seconds since the epoch.
        """
        # The secrets of inputs that a function has returned are not known any more.
        unknown = event.wait.policy.hide_goals and not self.run.hook.hiding.secret_inputs
        self.run.hook.hiding = replace(self.run.hook.hiding, texts=unknown)
        stored = event.wait.policy
        # For a run that was stopped, use the cap that it exceeded. An older triggerer returns a wait without a cap.
        cap = stored.max_credits if event.end is End.MAX_CREDITS else self.options.cap
        cost = stored.credits_per_step
        with tolerate_errors():
            cost = self.run.hook.settings.credits_per_step
        policy = replace(self.options.policy, hide_goals=unknown, max_credits=cap, credits_per_step=cost)
        event = replace(event, wait=replace(event.wait, policy=policy))
        if stored.hide_goals and not unknown:
            # The triggerer has logged the steps without their goals.
            event = replace(event, wait=replace(event.wait, steps_logged=0))
        decision, seen = decide_after_deferral(self.run.hook, event, self.run.log)
        if not isinstance(seen, BrowserActError):
            self.run.url = log_url(seen)
        if isinstance(decision, Conclude):
            self._report_what_woke(event, decision.task, resumed_at)
        return decision

    def _wait(self, wait: Wait) -> Decision:
        """Wait for the run, and decide what to do next."""
        if self.options.deferrable or wait.required_action is not None:
            self._defer(wait)
        steps = wait_for_end(wait.begun(time.time()), time.time, random.random)
        self.run.raise_if_killed()
        over = run_steps(steps, self.run.hook.client, self.run.log, check=self.run.raise_if_killed)
        # After a kill during the last request, raise the error of the kill, which names the reason.
        self.run.raise_if_killed()
        if over.end is End.MAX_CREDITS:
            # The run may have finished before the stop arrived.
            return decide_after_deferral(self.run.hook, WaitEvent(over.wait, over.end), self.run.log)[0]
        return after_wait(over)

    def _defer(self, wait: Wait) -> NoReturn:
        from airflow_provider_browseract.triggers.run import TaskTrigger

        if not in_dag_test():
            self.run.kill_if_not_running()
        self.run.raise_if_killed()
        if self.run.hook.hiding.secret_inputs:
            # The triggerer does not know them, so it cannot mask them.
            wait = replace(wait, policy=replace(wait.policy, hide_goals=True))
        planned = wait.deferred(time.time())
        self._log_wait(planned)
        shown = {"waits_for": planned.waits_for.value, "poll_interval": planned.interval}
        show_wait(self.context["ti"], shown, self.run.log)
        # Again, because the request to Airflow may have taken seconds, and the grace counts from the deferral.
        now = time.time()
        wait = wait.deferred(now)
        conn_id = self.run.hook.browseract_conn_id
        self.run.raise_if_killed()
        self.run.handed_over = True
        if not in_dag_test():
            at_end_of_task(self.run.stop_if_deferral_was_refused)
        self.defer(
            trigger=TaskTrigger(browseract_conn_id=conn_id, wait=wait, cancel_on_kill=self.options.cancel_on_kill),
            method_name="execute_complete",
            kwargs={"wait": to_json(wait)},
            timeout=timedelta(seconds=max(0.0, wait.deadline - now) + timings.TIMEOUT_BACKSTOP),
        )
        raise AssertionError("defer has raised")

    def _log_wait(self, wait: Wait) -> None:
        log = self.run.log
        if wait.waits_for is WokenBy.PERSON:
            where = required_action_url(self.context)
            log.info("Waiting in the triggerer for a person's answer at %s. %s", where, IF_NO_LINE_FOLLOWS)
        elif wait.waits_for is WokenBy.POLL:
            log.info("%s", polling_line(wait.interval))
        else:
            first, longest = wait.until_next(wait.began_at), wait.interval
            often = f"at intervals that grow from {first:g} to" if first < longest else "every"
            log.info(
                "Waiting in the triggerer for BrowserAct's callback. In case the callback is lost, the triggerer also "
                "polls the run %s %g seconds. %s",
                often,
                longest,
                IF_NO_LINE_FOLLOWS,
            )

    def _report_what_woke(self, event: WaitEvent, task: Task, resumed_at: float) -> None:
        wait = event.wait
        # Airflow may end the trigger of this wait only now. The trigger then reads these two keys (is_resumed_wait).
        shown: dict[str, Any] = {"woken_by": event.woken_by.value, "first_poll_at": wait.first_poll_at}
        after = ""
        missed = event.woken_by is WokenBy.POLL and wait.callback_token_sha256 is not None
        if task.finished_at is not None:
            ended = task.finished_at.timestamp()
            # The two moments come from BrowserAct's clock and ours. A negative difference means that the clocks differ.
            shown["seconds_after_end"] = seconds = round(max(0.0, resumed_at - ended), 1)
            after = f", {seconds:g} seconds after the end of the run"
            # A callback that arrives right after the deferral is refused, and one may still be on its way.
            missed = missed and ended > wait.first_poll_at and seconds >= timings.CALLBACK_DELAY
        if missed:
            count_in_task("browseract.callbacks_missed")
            self.run.log.warning(
                "Woken by a poll%s; no callback arrived.\nIf this happens often, run `python -m "
                "airflow_provider_browseract check %s`: it sends a callback through webhook_base_url. API servers log "
                "callbacks that they could not handle.",
                after,
                self.run.hook.browseract_conn_id,
            )
        else:
            self.run.log.info("Woken by a %s%s.", event.woken_by, after)
        show_wait(self.context["ti"], shown, self.run.log)

    def _no_result(self, over: GiveUp) -> Exception:
        """Stop the run or leave it running, and return the error that explains why there is no result."""
        task_id, run = over.wait.browseract_task_id, self.run
        if over.error is None and over.end is End.DEADLINE:
            return RunTimedOutError(
                f"BrowserAct task {task_id} did not end within {self.options.timeout:g} seconds.\n"
                f"{run.describe(run.stop_if('cancel_on_timeout', task_id))}\n"
                "Raise timeout if the run needs longer."
            )
        if over.error is None and over.end is End.NOT_STARTED:
            return RunTimedOutError(
                f"BrowserAct task {task_id} still has the status 'created' after "
                f"start_timeout={self.options.start_timeout:g} seconds.\n"
                f"{run.describe(run.stop_if('cancel_on_timeout', task_id))}\n"
                "Check in the BrowserAct dashboard whether runs leave this status at all. Raise start_timeout if they "
                "need longer."
            )
        if over.error is None and over.end is End.PAUSED:
            fate = run.stop(task_id)
            why = (
                f"BrowserAct task {task_id} paused for a person, and on_paused='fail' does not wait for one.\n"
                f"{run.describe(fate)}"
            )
            if fate.error is not None and run.leave_to_next_try(RunLostError(why)):
                return RunLostError(f"{why}\nThe next try reattaches to the run, and tries again to stop it.")
            # A retry would only pay for a run that pauses again.
            return AirflowFailException(f"{why}\nTo let a person help, set on_paused='ask' or on_paused='wait'.")
        return run.give_up(task_id, over.why, remedy=over.remedy, unknown=over.unknown)

    def _end_over_cap(self, wait: Wait, task: Task) -> Conclude:
        """Make sure that a run over ``max_credits`` is stopped, and fail, unless it has finished in the meantime.

        :raises AirflowFailException: the run did not finish. There is no retry, which would use as many credits again.
        :raises RunLostError: the run could not be stopped, and the next try can reattach to it.
        """
        run, fate = self.run, STOPPED
        if not task.status.ended:
            fate = run.stop(task.id)
            seen = get_task_or_error(run.hook, task.id, wait.api_version)
            task = seen if isinstance(seen, Task) else task
            if task.status in (TaskStatus.FINISHED, TaskStatus.FAILED):
                return Conclude(task)
        run.task_id = None
        show_run(self.context["ti"], task, run.hook.browseract_conn_id, run.hook.hiding.hidden, run.log)
        if task.status.ended:
            count_run(task)
            run.log.info("%s", end_line(task))
        running = None if task.status.ended or fate == STOPPED else run.describe(fate)
        retried = running is not None and run.leave_to_next_try(RunLostError(running)) is not None
        message = over_cap_text(
            task,
            wait.credits_used(task),
            wait.policy.max_credits or 0,
            earlier=wait.spent_before,
            fate=running,
            shared=run.tries is not None and run.tries.remembered,
            retried=retried,
        )
        if retried:
            raise RunLostError(message)
        count_in_task("browseract.runs.over_max_credits")
        raise AirflowFailException(message)

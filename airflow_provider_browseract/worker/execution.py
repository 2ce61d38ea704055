"""A run from top to bottom: what a worker does for one task instance, in the order in which it happens.

1. Read what an earlier try has left (`ledger.py`), and check the arguments (`checks.py`).
2. Reattach to the run of that try, or start a new one (`start.py`).
3. Wait if BrowserAct accepts no further run (`slots.py`) or the budget allows none (`budget.py`), then begin again.
4. Poll, and act on what each poll shows, until the run has ended. Between two polls, wait in this worker or, by raising
   a deferral, in the triggerer.
5. Conclude: return the result of the run, or raise its error (`conclude.py`).

If a step before the wait fails, see `failed_start.py`; if the wait ends without a result, `no_result.py`.

A task instance can pass through several processes on its way. All ways into one lead to the same loop:
:meth:`Execution.execute`, :meth:`~Execution.resume_from_queue`, :meth:`~Execution.resume_from_wait`, and
:meth:`~Execution.end_with_airflow` if Airflow itself has ended a deferral. A kill, at any moment, reaches only the
:class:`~airflow_provider_browseract.worker.own_run.OwnRun`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.compat import (
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
    at_end_of_task,
    in_dag_test,
)
from airflow_provider_browseract.exceptions import BrowserActError, NoSlotError, ResultError
from airflow_provider_browseract.in_airflow.required_action import close, read_event
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.queue.queueing import Queued
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer, RunOptions
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.wait import End, Wait, WokenBy, no_such_end
from airflow_provider_browseract.worker.checks import check_before_start, end_dry_run, with_callback
from airflow_provider_browseract.worker.failed_start import end_unknown_start, fail_to_start, report_unknown_start
from airflow_provider_browseract.worker.ledger import Entry, Ledger, id_of
from airflow_provider_browseract.worker.no_result import accounted_for, end_over_cap, give_up, lost
from airflow_provider_browseract.worker.own_run import OwnRun
from airflow_provider_browseract.worker.pauses import act_on_answer, handle_pause
from airflow_provider_browseract.worker.showing import (
    id_or_none,
    log_wait,
    proven_run,
    push_profile,
    show_run,
    show_wait,
    show_what_woke,
)
from airflow_provider_browseract.worker.start import NotNowError, Start, Started

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.runs.log import Log
    from airflow_provider_browseract.runs.request import RunRequest


class Execution:
    """The run of one task instance in this process.

    :param operator: the operator, whose templates are rendered.
    :param run: the run that this process answers for. A kill may already have reached it.
    """

    # The type is not RunOperator, because its module imports this one.
    def __init__(self, operator: Any, context: Context, run: OwnRun) -> None:
        self.operator, self.context, self.run = operator, context, run
        self.ti: Any = context["ti"]
        self.hook: BrowserActHook = operator.hook
        self.log: Log = operator.log
        # The options are checked later, where an error also states what happens to the run of an earlier try.
        self.ledger = Ledger(context, durable=operator.durable is True)
        run.begin(operator.source, self.hook, self.log, self.ledger, cancel_on_kill=operator.cancel_on_kill)

    @cached_property
    def options(self) -> RunOptions:
        """The checked options."""
        return RunOptions.of(self.operator)

    # The ways in

    def execute(self) -> Any:
        """Begin a try."""
        self.ledger.show_max_tries()
        now = time.time()
        dag_run_began = getattr(self.context.get("dag_run"), "start_date", None)
        since = dag_run_began.timestamp() if dag_run_began else now
        return self._start_and_wait(Queued(since, now, 0, self.operator.priority_weight, self.ti.map_index))

    def resume_from_queue(self, event: Mapping[str, Any]) -> Any:
        """Continue after a wait for a slot."""
        return self._start_and_wait(from_json(Queued, event))

    def resume_from_wait(self, payload: Any, wait: dict[str, Any] | None) -> Any:
        """Continue after a wait for the run. What ended it is only a hint: the run is read again."""
        resumed_at = time.time()
        try:
            event = read_event(payload, wait)
        except ValueError as error:
            return self._end_without_event(
                f"The trigger's event cannot be read: {error}.",
                remedy="Check that all components of Airflow have the same version of this provider.",
            )
        task_id = event.wait.browseract_task_id
        self.run.follow(task_id, event.wait.api_version or self.run.source.api_version)
        self.run.source_name = event.wait.source_name
        with accounted_for(self.run, task_id):
            event = replace(event, wait=self._continued(event.wait))
            seen = self.run.look(task_id)
            again = event.wait
            if isinstance(seen, Task) and seen.status.ended:
                show_what_woke(self.ti, event, seen, resumed_at, self.log)
            elif event.answer is not None:
                again, seen = act_on_answer(event, self.run, seen)
            elif event.woken_by is WokenBy.CALLBACK or event.end is End.ENDED:
                text = "Woken by a %s, but the run has not ended, or cannot be read. Waiting again."
                self.log.warning(text, event.woken_by)
                again = replace(again, callbacks_in_vain=again.callbacks_in_vain + 1)
            return self._until_end(again, seen)

    def end_with_airflow(self, error: Exception, *, overdue: bool) -> Any:
        """Conclude the run, or stop waiting for it, after Airflow itself has ended the deferral."""
        why, remedy = str(error).rstrip("."), "Check that a triggerer is running, and check its log."
        if self.ledger.own_xcom("task_id") is None:
            why = f"Airflow ended the wait before the start: {why}. No run was started."
            raise NoSlotError(f"{why}\n{remedy}") from None
        return self._end_without_event(f"Airflow ended the deferral: {why}.", remedy=remedy, overdue=overdue)

    def failure_facts(self) -> dict[str, Any] | None:
        """Return what the XCom ``failure`` has of this try; None for a try that is killed.

        A kill leaves no time for it, and another try, whose XComs they would be, may have begun.
        """
        run, source = self.run, self.run.source
        if run.killed:
            return None
        return {
            "connection": self.hook.browseract_conn_id,
            "source": {"kind": source.kind.value, "id": id_or_none(source.id), "name": run.source_name},
            "task_id": run.known_id,
            "started": run.known_id is not None or run.unproven is not None or run.start_unknown,
        }

    # Start, or reattach

    def _start_and_wait(self, queued: Queued) -> Any:
        while isinstance(started := self._start_or_reattach(), NotNowError):
            queued = self._wait_to_start(started, queued)
        with accounted_for(self.run, started.task_id):
            return self._wait_for_result(started)

    def _start_or_reattach(self) -> Started | NotNowError:
        """Carry out the steps 1 and 2. If that fails, state what happens to the run of an earlier try."""
        entry, run = None, self.run
        try:
            # Until it is known what an earlier try has left.
            run.start_unknown = True
            entry = self.ledger.read()
            run.start_unknown = False
            run.unproven = id_of(entry.task_id) if entry is not None else None
            proven = entry is not None and entry.is_proven(self.hook.settings, self.ti)
            if self.operator._dry is True:
                self._dry_run(entry)
            if entry is not None and proven:
                # Whatever fails from here on, this process answers for that run.
                run.follow(entry.task_id, entry.source.api_version)
                run.starting = entry.task_id is None
            return self._wanted().begin(entry)
        except NotNowError as refused:
            return refused
        except AirflowSkipException:
            raise
        except Exception as error:  # noqa: BLE001 - raised again, with what happens to the run of an earlier try
            fail_to_start(error, run, entry)
        except AirflowTaskTimeout:
            end_unknown_start(run)
            raise
        finally:
            if (failure := sys.exc_info()[1]) is not None:
                report_unknown_start(failure, run, entry)

    def _wanted(self) -> Start:
        """Check everything that needs no other service, and return what is to be run."""
        options = self.options
        request = self._request()
        if options.wait_for_completion and not options.deferrable:
            # This process needs it at the end of the run, perhaps hours later, when another version may be installed.
            from airflow_provider_browseract.worker import conclude  # noqa: F401
        check = partial(check_before_start, self.operator.check_inputs, self.run, options)
        return Start(self.run, request, options.max_credits, check)

    def _request(self) -> RunRequest:
        request = self.operator.read_request(self.context)
        return with_callback(request, self.ti, self.hook, self.options, self.log)

    def _dry_run(self, entry: Entry | None) -> NoReturn:
        """Check everything, and start nothing."""
        from airflow_provider_browseract.worker.budget import log_forecast

        if entry is not None:
            text = "A run of an earlier try may be active and using credits (%s). A dry run does not stop it."
            self.log.warning(text, f"BrowserAct task {named}" if (named := id_of(entry.task_id)) else entry.source)
        request = check_before_start(self.operator.check_inputs, self.run, self.options, self._request())
        log_forecast(self.run, self.options.max_credits, request)
        end_dry_run(self.run, request)

    # Wait for a slot, or for the next day or month of the budget

    def _wait_to_start(self, refused: NotNowError, queued: Queued) -> Queued:
        """Wait until a start may be possible; deferred, the wait ends with :meth:`resume_from_queue`."""
        options = self.options
        limit = options.queue_timeout or options.timeout
        if not isinstance(refused.why, BrowserActError):
            from airflow_provider_browseract.worker.budget import wait_for_budget

            wait_for_budget(self.run, refused.why, options.on_budget, queued, limit)
        from airflow_provider_browseract.worker.slots import wait_for_slot

        queued = queued.refused()
        wait_for_slot(self.run, refused.why, queued, limit, deferrable=options.deferrable)
        return queued

    # Wait for the run

    def _wait_for_result(self, started: Started) -> Any:
        """Push the XComs that later tasks need, and wait for the run if ``wait_for_completion`` is set."""
        task_id, run = started.task_id, self.run
        self.ti.xcom_push(key="task_id", value=task_id)
        # With its proof, before anything else can fail: without a stored entry, it shows which run it is.
        created = Task(id=task_id, status=TaskStatus.CREATED, api_version=run.api_version)
        show_run(self.ti, started.task or created, self.hook, self.log)
        push_profile(self.ti, profile_id := self.operator.profile_of(started.entry.profile_id, None), self.log)
        run.check()
        # Read a new run at once, for its links and, if the response to the start had none, for its profile.
        first = started.task or run.look(task_id)
        # A new run may not be known everywhere yet, so an error does not count as a poll.
        seen = first if isinstance(first, Task) else None
        if isinstance(first, Task):
            self.hook.hiding = self.hook.hiding.of_run(first)
            show_run(self.ti, first, self.hook, self.log)
            if (found := self.operator.profile_of(started.entry.profile_id, first)) != profile_id:
                push_profile(self.ti, found, self.log)
        else:
            if run.api_version is ApiVersion.V3:
                # The input that BrowserAct returns also has defaults, and they may be secret.
                self.hook.hiding = replace(self.hook.hiding, secret_inputs=True)
            self.log.warning("The run cannot be read yet: %s", first.brief)
        run.check()
        if self.options.wait_for_completion:
            return self._until_end(self._wait_of(started), seen)
        run.task_id = None
        self.log.info(
            "Not waiting for the run, because wait_for_completion=False. This task returns the id of the BrowserAct "
            "task. TaskSensor waits for its output."
        )
        return task_id

    def _wait_of(self, started: Started) -> Wait:
        entry, request, options = started.entry, started.request, self.options
        return Wait(
            started.task_id,
            entry.written_at + options.timeout,
            entry.source.api_version,
            request.callback_token_sha256 if request else None,
            request.source_name if request else None,
            self.ti.max_tries,
            options.poll_interval,
            options.watches_pauses,
            options.default_answer,
            options.show_live_view,
            max_credits=options.max_credits,
            spent_before=entry.spent,
        )

    def _continued(self, wait: Wait) -> Wait:
        """Return the wait of a deferral as it continues in this process."""
        secret_inputs = self.operator.hide_secrets()
        # This process does not know the secrets in inputs that a decorated function has returned.
        unknown = wait.hide_goals and not secret_inputs
        self.hook.hiding = replace(self.hook.hiding, secret_inputs=secret_inputs, texts=unknown)
        # The triggerer has logged the steps without their goals.
        steps_logged = 0 if wait.hide_goals and not unknown else wait.steps_logged
        answer = self.options.default_answer
        return replace(wait, hide_goals=unknown, steps_logged=steps_logged, default_answer=answer)

    def _until_end(self, wait: Wait, seen: Task | BrowserActError | None) -> Any:
        """Act on a poll, wait, and poll again until the run has ended; return its result.

        :param seen: what the first poll has returned; None if there was none yet.
        :raises TaskDeferred: the wait continues in the triggerer.
        :raises RunError: there is no result to wait for.
        :raises AirflowFailException: the run was stopped by a person, at its pause, or over its cap.
        """
        run = self.run
        while True:
            ended: Task | None = None
            if seen is not None:
                wait, end = wait.after_poll(seen, time.time(), self.log)
                if end is not None and wait.required_action is not None:
                    with tolerate_errors():
                        close(wait.required_action, Answer.RESUME if end.lets_it_run else Answer.STOP)
                    wait = wait.unasked()
                wait, ended = self._act_on(end, wait, seen)
            if ended is not None:
                return self._conclude(ended)
            run.check()
            if self.options.deferrable or wait.required_action is not None:
                self._defer(wait)
            run.sleep(wait.pause(time.time()))
            seen = run.look(wait.browseract_task_id)
            run.check()

    def _act_on(self, end: End | None, wait: Wait, seen: Task | BrowserActError) -> tuple[Wait, Task | None]:
        """Act on how a poll ends the wait, and return the wait that continues, or the run that has ended."""
        # Each end but those of the first two cases comes from a run that was read.
        task = cast("Task", seen)
        match end:
            case None | End.NO_LONGER_PAUSED:
                return wait, None
            case End.GIVEN_UP | End.DEADLINE:
                return wait, give_up(self.run, wait, end, seen, self.options.timeout)
            case End.PAUSED:
                self.run.check()
                return handle_pause(wait, task, self.context, self.run, self.options)
            case End.ENDED | End.MAX_CREDITS:
                over_cap = task.status is TaskStatus.CANCELED or end is End.MAX_CREDITS
                return wait, end_over_cap(self.run, wait, task) if over_cap and wait.is_over_cap(task) else task
            case _:
                no_such_end(end)

    def _defer(self, wait: Wait) -> None:
        """Wait in the triggerer, by raising the deferral, unless a kill has found that the run has ended."""
        from airflow_provider_browseract.triggers.task import TaskTrigger

        run = self.run
        # The triggerer does not know secret inputs, so it cannot mask them.
        wait = replace(wait, hide_goals=wait.hide_goals or self.hook.hiding.secret_inputs)
        log_wait(self.ti, wait, self.log)
        show_wait(self.ti, {"waits_for": wait.waits_for.value, "poll_interval": wait.longest_pause}, self.log)
        if not in_dag_test():
            run.stop_if_unwanted()
        if run.check():
            return
        run.handed_over = True
        if self.options.cancel_on_kill and not in_dag_test():
            at_end_of_task(run.stop_if_nobody_waits)
        wait = replace(wait, began_at=time.time())
        raise TaskDeferred(
            trigger=TaskTrigger(
                browseract_conn_id=self.hook.browseract_conn_id,
                wait=wait,
                cancel_on_kill=self.options.cancel_on_kill,
            ),
            method_name="execute_complete",
            kwargs={"wait": to_json(wait)},
            timeout=timedelta(seconds=max(0.0, wait.deadline - wait.began_at) + timings.TIMEOUT_BACKSTOP),
        )

    # The end

    def _conclude(self, task: Task) -> Any:
        """Return the result of a run that has ended, or raise the error with which it ended."""
        # The process that starts a run and defers needs none of it.
        from airflow_provider_browseract.worker.conclude import READ_AGAIN, Conclusion, Output

        run = self.run
        run.has_ended(task)
        output = Output(self.options.output_format, self.options.output_path, self.operator.outlets)
        run.conclusion = Conclusion(
            task, self.context, self.hook, self.log, output, self.ledger.is_kept, READ_AGAIN, self._leaves_results
        )
        return run.conclusion.conclude()

    def _leaves_results(self) -> bool:
        """Return whether this process is being killed, and the next try can read the results of its run."""
        return self.run.killed and self.ledger.another_try(ResultError("The process was ended."))

    def _end_without_event(self, why: str, *, remedy: str, overdue: bool = False) -> Any:
        """Return the result if the run has ended although Airflow's part of the wait failed, or stop waiting for it."""
        run = self.run
        seen: Task | BrowserActError | None = None
        # People can edit both. During the deferral, the operator may have been replaced by one of the other version.
        with tolerate_errors(self.log.warning, "The run cannot be read: %s"):
            entry, settings = self.ledger.read(), self.hook.settings
            if entry is not None and entry.task_id is not None and entry.is_proven(settings, self.ti):
                run.follow(entry.task_id, entry.source.api_version)
            elif found := proven_run(self.ledger.own_xcom("task"), settings.api_key, self.ti):
                run.follow(*found)
            if run.task_id is not None and isinstance(seen := run.look(run.task_id), BrowserActError):
                # The failed wait is reported instead.
                raise seen
        if isinstance(seen, Task) and seen.status.ended:
            self.log.warning("%s The run has ended, so its result is read.", why)
            hiding = replace(self.hook.hiding, secret_inputs=self.operator.hide_secrets())
            self.hook.hiding = hiding.of_run(seen)
            return self._conclude(seen)
        raise lost(run, run.task_id, why, remedy=remedy, overdue=overdue, seen=seen)

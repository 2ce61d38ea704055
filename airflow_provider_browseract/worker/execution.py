"""A run from top to bottom: what a worker does for one task instance, in the order in which it happens.

1. Read what an earlier try has left (`tries.py`).
2. Check the arguments (`checks.py`).
3. Reattach to the run of that try, or start a new one (`runs/starting.py`).
4. Wait if BrowserAct accepts no further run (`slots.py`) or the budget allows none (`budget.py`), then begin again.
5. Wait for the run, in this worker or in the triggerer (`waiter.py`).
6. Conclude: return the result of the run, or raise its error (`conclusion.py`).

A task instance can pass through several processes on its way. The ways into one are :meth:`RunExecution.execute`,
:meth:`~RunExecution.resume_from_queue` and :meth:`~RunExecution.resume_from_wait`; Airflow ends a deferral itself with
:meth:`~RunExecution.end_with_airflow`. A kill, at any moment, reaches only the
:class:`~airflow_provider_browseract.worker.owned_run.OwnedRun`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_browseract.api.arguments import read_credits
from airflow_provider_browseract.exceptions import BrowserActError, InputError
from airflow_provider_browseract.hooks.connection import budget_of
from airflow_provider_browseract.in_airflow.required_action import read_event
from airflow_provider_browseract.loops import run_steps
from airflow_provider_browseract.runs.budget import BudgetStep, forecast_run
from airflow_provider_browseract.runs.options import RunOptions
from airflow_provider_browseract.runs.queueing import Queued
from airflow_provider_browseract.runs.starting import (
    BeforeStart,
    BudgetUsedUp,
    Start,
    Started,
    StartedRun,
    StartRefused,
    TriesStep,
    begin,
    stop_if_over_budget,
)
from airflow_provider_browseract.runs.waiting import is_hopeless
from airflow_provider_browseract.worker.budget import BudgetWait, carry_out
from airflow_provider_browseract.worker.callback import with_callback
from airflow_provider_browseract.worker.checks import (
    Operator,
    check_before_start,
    end_dry_run,
    read_request,
)
from airflow_provider_browseract.worker.conclusion import READ_AGAIN, Conclusion
from airflow_provider_browseract.worker.first_read import push_ids, read_first
from airflow_provider_browseract.worker.owned_run import (
    EndedBeforeKillError,
    OwnedRun,
    started_task_id,
    started_version,
)
from airflow_provider_browseract.worker.slots import SlotWait, queue_left
from airflow_provider_browseract.worker.start_errors import failing_to_start
from airflow_provider_browseract.worker.tries import Tries
from airflow_provider_browseract.worker.waiter import Waiter

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.api.models import Task


class RunExecution:
    """The run of one task instance in this process.

    :param operator: the operator, whose templates are rendered.
    :param run: the run that this process is responsible for. A kill may already have reached it.
    """

    def __init__(self, operator: Operator, context: Context, run: OwnedRun) -> None:
        self.operator, self.context, self.run = operator, context, run
        self.ti: Any = context["ti"]
        self.hook, self.log, self.kind = operator.hook, operator.log, operator.kind
        # The options are checked later, where an error also states what happens to the run of an earlier try.
        self.tries = Tries(context, durable=operator.durable is True)
        run.belong_to(self.kind.source, self.hook, self.log, self.tries)
        run.cancel_on_kill, run.cancel_on_timeout = operator.cancel_on_kill, operator.cancel_on_timeout

    @cached_property
    def options(self) -> RunOptions:
        """The checked options."""
        return RunOptions.of(self.operator)

    # The ways in

    def execute(self) -> Any:
        """Begin a try."""
        self.tries.show_max_tries()
        now = time.time()
        return self._start_and_wait(Queued(now, now, priority=self.operator.priority_weight))

    def resume_from_queue(self, event: Mapping[str, Any]) -> Any:
        """Continue after a wait for a slot."""
        return self._start_and_wait(Queued.read(event))

    def resume_from_wait(self, event: Any, wait: dict[str, Any] | None) -> Any:
        """Continue after a wait for the run. Read the run from the API instead of trusting the event."""
        resumed_at = time.time()
        try:
            read = read_event(event, wait)
        except ValueError as error:
            return self._end_without_event(
                f"the trigger's event cannot be read: {error}",
                remedy="Check that all components of Airflow have the same version of this provider.",
            )
        task_id = read.wait.browseract_task_id
        self.run.follow(task_id, read.wait.api_version or self.kind.source.api_version)

        def result() -> Any:
            # The arguments may have changed since the deferral.
            self._keep_cap(read.wait.policy.max_credits)
            self._hide_inputs(self.operator.hide_secrets())
            waiter = self._waiter()
            return self._conclude(waiter.until_end(waiter.resume(read, resumed_at)))

        return self._accounted_for(task_id, result)

    def _hide_inputs(self, secret_inputs: bool) -> None:
        """Remember whether the run has secret inputs, which is known once the arguments were read."""
        self.hook.hiding = replace(self.hook.hiding, secret_inputs=secret_inputs)

    def _keep_cap(self, cap: int | None) -> None:
        """Keep the cap of the wait if the template now renders to no valid value, so that no result is lost."""
        try:
            if self.operator.max_credits is not None:
                read_credits("max_credits", self.operator.max_credits)
                return
        except InputError as error:
            self.log.warning("%s The cap of this run stays max_credits=%s.", error, cap)
        self.operator.max_credits = cap

    def end_with_airflow(self, error: Exception, *, overdue: bool) -> Any:
        """Conclude the run, or stop waiting for it, after Airflow itself has ended the deferral."""
        why, remedy = str(error).rstrip("."), "Check that a triggerer is running, and check its log."
        if started_task_id(self.ti) is None:
            raise queue_left(self.tries, f"{why}. No run was started.\n{remedy}", overdue=overdue) from None
        return self._end_without_event(f"Airflow ended the deferral: {why}", remedy=remedy, overdue=overdue)

    # The run

    def _start_and_wait(self, queued: Queued) -> Any:
        while not isinstance(started := self._begin(queued), StartedRun):
            queued = self._wait_to_start(started, queued)
        return self._accounted_for(started.task_id, lambda: self._wait_for_result(started, queued))

    def _accounted_for(self, task_id: str, result: Callable[[], Any]) -> Any:
        """Return the result of a started run. Every error that ends the wait states what happens to the run."""
        with self.run.accounted_for(task_id):
            try:
                return result()
            except EndedBeforeKillError:
                return self._conclude(self.run.read(task_id))

    def _begin(self, queued: Queued) -> Started:
        """Carry out the steps 1 to 3."""
        with failing_to_start(self.run, self.tries):
            if self.operator._dry is True:
                self._dry_run()
            if (entry := self.tries.read()) is not None:
                self.run.follow(entry.task_id, entry.source.api_version)
            return self._reattach_or_start(self._check(), queued)

    # 2. Check the arguments

    def _check(self) -> Start:
        """Check everything that needs no other service, and return the wanted start."""
        options = self.options
        request, secret_inputs = read_request(self.operator, self.context)
        self._hide_inputs(secret_inputs)
        client = self.hook.settings
        return Start(
            with_callback(request, self.ti, self.hook, options, self.log),
            options.timeout,
            patience=client.longest_call,
            on_orphan=options.on_orphan,
            max_tries=self.ti.max_tries,
            deferred=options.waits_deferred,
            api_key=client.api_key,
            key_digest=client.key_digest,
            max_credits=options.cap,
            credits_per_step=self.hook.settings.credits_per_step,
            budget=budget_of(self.hook.settings),
        )

    # 3. Reattach to the run of an earlier try, or start a new one

    def _reattach_or_start(self, start: Start, queued: Queued) -> Started:
        do = partial(self._do, queued)
        started = run_steps(begin(start, self.tries.earlier, time.time), self.hook.client, self.log, do)
        if not isinstance(started, StartedRun):
            return started
        self.run.follow(started.task_id, started.entry.source.api_version)
        if started.task is None:
            self.log.info("Started BrowserAct task %s of %s.", started.task_id, self.kind.source)
        else:
            self.log.info("Reattaching to BrowserAct task %s that an earlier try started.", started.task_id)
        return started

    def _do(self, queued: Queued, step: BeforeStart | TriesStep | BudgetStep) -> Any:
        if isinstance(step, BudgetStep):
            return carry_out(step, self.run, self.ti)
        if not isinstance(step, BeforeStart):
            return self.run.carry_out(step)
        # No run of an earlier try is running any more. While one is, a missing store must not fail the task.
        self.run.task_id = None
        validate, again = self.options.validate_inputs, queued.refusals > 0
        return check_before_start(self.operator, self.run, step.request, validate_inputs=validate, again=again)

    def _dry_run(self) -> NoReturn:
        """Check everything, and start nothing."""
        options = self.options
        request, _ = read_request(self.operator, self.context)
        with_callback(request, self.ti, self.hook, options, self.log)
        request = check_before_start(self.operator, self.run, request, validate_inputs=options.validate_inputs)
        forecast = forecast_run(budget_of(self.hook.settings), request.source, options.cap, time.time)
        run_steps(forecast, self.hook.client, self.log, lambda step: carry_out(step, self.run, self.ti))
        end_dry_run(self.operator, request)

    # 4. Wait for a slot, or for the next day or month of the budget

    def _wait_to_start(self, why: StartRefused | BudgetUsedUp, queued: Queued) -> Queued:
        """Wait until a start may be possible; deferred, the wait ends with :meth:`resume_from_queue`."""
        if queued.has_not_waited:
            queued = replace(queued, since=self.tries.keep_place(queued.since))
        limit = self.options.queue_timeout or self.options.timeout
        defer = self.operator.defer
        if isinstance(why, BudgetUsedUp):
            BudgetWait(self.run, self.ti, why, self.options.on_budget, queued, limit, defer).wait()
        queued = queued.refused()
        SlotWait(self.run, self.ti, why, queued, limit, defer if self.options.deferrable else None).wait()
        return queued

    def _check_budget_again(self, started: StartedRun, queued: Queued) -> None:
        """If runs that were started at the same time exceed the budget, stop the new run, and wait or fail."""
        do, check = partial(self._do, queued), self.run.raise_if_killed
        used_up = run_steps(stop_if_over_budget(started, time.time), self.hook.client, self.log, do, check)
        if used_up is not None:
            self.ti.xcom_push(key="task_id", value=None)
            self._wait_to_start(used_up, queued)

    # 5. Wait for the run

    def _wait_for_result(self, started: StartedRun, queued: Queued) -> Any:
        """Push the XComs that later tasks need, and wait for the run if ``wait_for_completion`` is set."""
        push_ids(self.ti, self.kind, started, self.log)
        self._check_budget_again(started, queued)
        if not queued.has_not_waited or self.ti.try_number > 1:
            self.tries.give_up_place()
        self.run.raise_if_killed()
        first = read_first(self.run, self.ti, self.kind, started, self.options)
        self.run.raise_if_killed()
        if not self.options.wait_for_completion:
            self.run.task_id = None
            self.log.info(
                "Not waiting for BrowserAct task %s, because wait_for_completion=False. This task returns its id, not "
                "its output. TaskSensor waits for the output.",
                started.task_id,
            )
            return started.task_id
        return self._conclude(self._waiter().until_end(first))

    def _waiter(self) -> Waiter:
        return Waiter(self.run, self.context, self.options, self.operator.defer)

    # 6. Conclude

    def _conclude(self, task: Task) -> Any:
        """Return the result of a run that has ended, or raise the error with which it ended."""
        self.run.has_ended(task)
        self.run.conclusion = Conclusion(
            task,
            self.context,
            output_format=self.options.output_format,
            output_path=self.operator.output_path,
            hook=self.hook,
            outlets=self.operator.outlets,
            another_try_reads_it=self.tries.remembered,
            advice=READ_AGAIN,
            log=self.log,
            must_end=self.run.must_end,
            check_output=partial(self.kind.check_output, hook=self.hook, log=self.log),
        )
        return self.run.conclusion.result()

    def _end_without_event(self, why: str, *, remedy: str, overdue: bool = False) -> Any:
        """Return the result if the run has ended although Airflow's part of the wait failed, or stop waiting for it.

        :param why: what failed, as a clause.
        :param remedy: what the user can do, as a sentence.
        :param overdue: the time of the run is over.
        """
        task_id = started_task_id(self.ti)
        # During the deferral, the operator may have been replaced by one of the other version.
        self.run.follow(task_id, started_version(self.ti) or self.kind.source.api_version)
        unknown = False
        if task_id is not None:
            try:
                task = self.run.read(task_id)
            except Exception as error:  # noqa: BLE001 - the failed wait is reported instead
                unknown = isinstance(error, BrowserActError) and is_hopeless(error)
                self.log.warning("BrowserAct task %s cannot be read: %s", task_id, error)
            else:
                if task.status.ended:
                    self.log.warning("The run has ended, so its result is read, although %s.", why.rstrip("."))
                    self._hide_inputs(self.operator.hide_secrets())
                    self.hook.hiding = self.hook.hiding.of_run(task)
                    return self._conclude(task)
        raise self.run.give_up(task_id, why, remedy=remedy, overdue=overdue, unknown=unknown)

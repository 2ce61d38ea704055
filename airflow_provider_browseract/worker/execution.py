"""A run from top to bottom: what a worker does for one task instance, in the order in which it happens.

1. Read what an earlier try has left (`tries.py`).
2. Check the arguments (`checks.py`).
3. Reattach to the run of that try, or start a new one (`runs/starting.py`).
4. Wait for a slot if BrowserAct accepts no further run, then begin again (`slots.py`).
5. Wait for the run, in this worker or in the triggerer (`waiter.py`).
6. Conclude: return the result of the run, or raise its error (`conclusion.py`).

A task instance can pass through several processes on its way. The ways into one are :meth:`RunExecution.execute`,
:meth:`~RunExecution.resume_from_queue` and :meth:`~RunExecution.resume_from_wait`; Airflow ends a deferral itself with
:meth:`~RunExecution.end_with_airflow`. A kill, at any moment, reaches only the
:class:`~airflow_provider_browseract.worker.owned_run.OwnedRun`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.compat import (
    AIRFLOW_V_3_3_PLUS,
    CLEAR_KEEPS_STATE,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralTimeout,
)
from airflow_provider_browseract.in_airflow.required_action import read_event
from airflow_provider_browseract.loops import run_steps, sleep
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.ledger import Entry
from airflow_provider_browseract.runs.options import RunOptions
from airflow_provider_browseract.runs.orphans import AskClaimed, Claim
from airflow_provider_browseract.runs.outcome import NoSlotError, RunCanceledError
from airflow_provider_browseract.runs.queueing import Queued
from airflow_provider_browseract.runs.report import log_url
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.runs.resuming import Conclude, WaitAgain
from airflow_provider_browseract.runs.starting import BeforeStart, Start, StartedRun, StartRefused, Write, begin
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.waiting import Wait
from airflow_provider_browseract.worker.callback import register, with_callback
from airflow_provider_browseract.worker.checks import (
    Operator,
    check_before_start,
    dry_run_ended,
    read_request,
)
from airflow_provider_browseract.worker.conclusion import Conclusion
from airflow_provider_browseract.worker.first_read import push_ids, read_first
from airflow_provider_browseract.worker.owned_run import EndedBeforeKillError, OwnedRun, started_task_id
from airflow_provider_browseract.worker.reading import get_run
from airflow_provider_browseract.worker.slots import SlotWait
from airflow_provider_browseract.worker.start_errors import (
    connection_may_change,
    fail_to_start,
    report_unknown_start,
    timed_out_during_start,
    why_not_connected,
)
from airflow_provider_browseract.worker.tries import Kill, Tries
from airflow_provider_browseract.worker.waiter import Waiter

if TYPE_CHECKING:
    from airflow.sdk import Context

READ_AGAIN = (
    "On Airflow 3.3, clearing the task reads the same run again; durable=False starts a new one."
    if CLEAR_KEEPS_STATE
    else "Clearing the task with 'Keep task state and resume' reads the same run again; without it, a new run starts."
)
"""How to read a run again after the error is fixed."""


class RunExecution:
    """The run of one task instance in this process.

    :param operator: the operator, whose templates are rendered.
    :param run: the run that this process is responsible for. A kill may already have reached it.
    """

    def __init__(self, operator: Operator, context: Context, run: OwnedRun) -> None:
        self.operator, self.context, self.run = operator, context, run
        self.ti: Any = context["ti"]
        self.hook, self.log, self.kind = operator.hook, operator.log, operator.kind
        self.secret_inputs = False
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
        if self.operator.durable is True and not AIRFLOW_V_3_3_PLUS:
            self.log.warning(
                "durable=True has no effect: before 3.3, Airflow keeps no state of a run for the next try."
            )
        now = time.time()
        return self._start_and_wait(Queued(now, now, priority=self.operator.priority_weight))

    def resume_from_queue(self, event: Mapping[str, Any]) -> Any:
        """Continue after a wait for a slot."""
        return self._start_and_wait(from_json(Queued, event))

    def resume_from_wait(self, event: Any, wait: dict[str, Any] | None) -> Any:
        """Continue after a wait for the run. Read the run from the API instead of trusting the event."""
        resumed_at = time.time()
        try:
            read = read_event(event, from_json(Wait, wait) if wait else None)
        except ValueError as error:
            return self._end_without_event(
                f"the trigger's event cannot be read: {error}",
                remedy="Check that all components of Airflow have the same version of this provider.",
            )
        task_id = self.run.task_id = read.wait.browseract_task_id
        with self.run.accounted_for(task_id):
            try:
                self.secret_inputs = self.operator.hide_secrets()
                waiter = self._waiter()
                # The arguments may have changed since the deferral. The secrets of inputs that a function has returned
                # are not known any more.
                unknown = read.wait.policy.hide_goals and not self.secret_inputs
                self.hook.hiding = replace(self.hook.hiding, texts=unknown)
                policy = replace(self.options.policy, hide_goals=unknown)
                resumed = replace(read, wait=replace(read.wait, policy=policy, api_version=self.run.source.api_version))
                return self._conclude(waiter.until_end(waiter.resume(resumed, resumed_at)))
            except EndedBeforeKillError:
                return self._conclude(self._read(task_id))

    def end_with_airflow(self, error: Exception) -> Any:
        """Conclude the run, or stop waiting for it, after Airflow itself has ended the deferral."""
        overdue = isinstance(error, TaskDeferralTimeout)
        why, remedy = str(error).rstrip("."), "Check that a triggerer is running, and check its log."
        if started_task_id(self.ti) is None:
            if overdue:
                self.tries.give_up_place()
            raise NoSlotError(f"Airflow ended the wait for a slot: {why}. No run was started.\n{remedy}") from None
        return self._end_without_event(f"Airflow ended the deferral: {why}", remedy=remedy, overdue=overdue)

    # The run

    def _start_and_wait(self, queued: Queued) -> Any:
        while isinstance(started := self._begin(queued), StartRefused):
            queued = self._wait_for_slot(started, queued)
        with self.run.accounted_for(started.task_id):
            try:
                return self._wait_for_result(started, queued)
            except EndedBeforeKillError:
                return self._conclude(self._read(started.task_id))

    def _begin(self, queued: Queued) -> StartedRun | StartRefused:
        """Carry out the steps 1 to 3, again if someone may be changing the connection right now."""
        for pause in (*timings.RECHECK_PAUSES, None):
            entry = None
            try:
                if self.operator._dry is True:
                    raise self._dry_run()
                entry = self.tries.read()
                self.run.task_id = entry.task_id if entry else None
                return self._reattach_or_start(self._check(), entry, queued)
            except Exception as error:  # noqa: BLE001 - tried again, or raised by fail_to_start
                if pause is None or not connection_may_change(error):
                    fail_to_start(error, self.run, self.tries, entry)
                self.log.warning(
                    "%s\nTrying again in %g seconds, because someone may be changing the connection right now, or "
                    "Airflow could not read it.",
                    why_not_connected(error, self.hook.browseract_conn_id),
                    pause,
                )
                sleep(pause, self.run.raise_if_killed)
            except AirflowTaskTimeout:
                if self.tries.remembered or not self.run.start_under_way:
                    raise
                raise timed_out_during_start(self.run) from None
            except KeyboardInterrupt:
                self.run.kill(Kill("interrupted (Ctrl-C)", wanted=True))
                raise
            finally:
                report_unknown_start(self.run, self.tries)
        raise AssertionError("the last round has returned or raised")

    # 2. Check the arguments

    def _check(self) -> Start:
        """Check everything that needs no other service, and return the wanted start."""
        options = self.options
        request, self.secret_inputs = read_request(self.operator, self.context)
        called = self._with_callback(request)
        client = self.hook.settings.client
        return Start(
            called if register(called, self.ti, self.log) else request,
            options.timeout,
            patience=client.longest_call,
            on_orphan=options.on_orphan,
            max_tries=self.ti.max_tries,
            deferred=options.waits_deferred,
            api_key=client.api_key,
            key_digest=client.key_digest,
        )

    def _with_callback(self, request: RunRequest) -> RunRequest:
        """Return the request with our callback address, if BrowserAct is to call back."""
        if self.options.webhook is False or not self.options.waits_deferred:
            return request
        return with_callback(request, self.ti, self.hook, self.log, demanded=self.options.webhook is True)

    # 3. Reattach to the run of an earlier try, or start a new one

    def _reattach_or_start(self, start: Start, entry: Entry | None, queued: Queued) -> StartedRun | StartRefused:
        do = partial(self._do, queued)
        started = run_steps(begin(start, entry, time.time), self.hook.client, self.log, do)
        if isinstance(started, StartRefused):
            return started
        self.run.task_id = started.task_id
        if started.task is None:
            self.log.info("Started BrowserAct task %s of %s.", started.task_id, self.kind.source)
        else:
            self.log.info("Reattaching to BrowserAct task %s that an earlier try started.", started.task_id)
        return started

    def _do(self, queued: Queued, step: BeforeStart | Write | AskClaimed | Claim) -> Any:
        match step:
            case AskClaimed():
                return self.tries.claimed()
            case Claim():
                return self.tries.claim(step.task_id)
            case Write():
                return self.run.write(step)
            case BeforeStart(request):
                # No run of an earlier try is running any more. While one is, a missing store must not fail the task.
                self.run.task_id = None
                if queued.refusals == 0:
                    return check_before_start(self.operator, request, validate_inputs=self.options.validate_inputs)
                return request

    def _dry_run(self) -> AirflowSkipException:
        """Check everything, and start nothing."""
        options = self.options
        request, _ = read_request(self.operator, self.context)
        self._with_callback(request)
        request = check_before_start(self.operator, request, validate_inputs=options.validate_inputs)
        return dry_run_ended(self.operator, request)

    # 4. Wait for a slot

    def _wait_for_slot(self, refused: StartRefused, queued: Queued) -> Queued:
        """Wait until there may be a free slot; deferred, the wait ends with :meth:`resume_from_queue`."""
        if queued.refusals == 0:
            queued = replace(queued, since=self.tries.keep_place(queued.since))
        queued = queued.refused()
        limit = self.options.queue_timeout or self.options.timeout
        defer = self.operator.defer if self.options.deferrable else None
        SlotWait(self.run, self.ti, refused, queued, limit, defer).wait()
        return queued

    # 5. Wait for the run

    def _wait_for_result(self, started: StartedRun, queued: Queued) -> Any:
        """Push the XComs that later tasks need, and wait for the run if ``wait_for_completion`` is set."""
        push_ids(self.ti, self.kind, started, self.log)
        if queued.refusals or self.ti.try_number > 1:
            self.tries.give_up_place()
        self.run.raise_if_killed()
        limit = self.options.start_timeout
        wait = Wait(
            started.task_id,
            started.entry.deadline,
            started.entry.callback_token_sha256,
            start_by=None if limit is None else started.entry.written_at + limit,
            policy=self.options.policy,
            key_digest=self.hook.settings.client.key_digest,
            api_version=started.entry.source.api_version,
        )
        task, wait = read_first(self.run, self.ti, self.kind, started, wait)
        self.run.raise_if_killed()
        if not self.options.wait_for_completion:
            self.run.task_id = None
            self.log.info("Not waiting for BrowserAct task %s.", started.task_id)
            return started.task_id
        first = Conclude(task) if task is not None and task.status.ended else WaitAgain(wait)
        return self._conclude(self._waiter().until_end(first))

    def _waiter(self) -> Waiter:
        return Waiter(self.run, self.context, self.options, self.operator.defer, self.secret_inputs)

    # 6. Conclude

    def _read(self, task_id: str) -> Task:
        return get_run(self.hook, task_id, self.run.source.api_version)

    def _conclude(self, task: Task) -> Any:
        """Return the result of a run that has ended, or raise the error with which it ended."""
        if task.status is TaskStatus.CANCELED:
            self.run.await_decision()
            if isinstance(self.run.kill_error, RunCanceledError):
                # This error states why this process stopped the run.
                raise self.run.kill_error
        self.run.task_id = None
        self.run.url = log_url(task)
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
        )
        return self.run.conclusion.result()

    def _end_without_event(self, why: str, *, remedy: str, overdue: bool = False) -> Any:
        """Return the result if the run has ended although Airflow's part of the wait failed, or stop waiting for it.

        :param why: what failed, as a clause.
        :param remedy: what the user can do, as a sentence.
        :param overdue: the time of the run is over.
        """
        task_id = self.run.task_id = started_task_id(self.ti)
        task = None
        try:
            task = self._read(task_id) if task_id else None
        except Exception as error:  # noqa: BLE001 - the failed wait is reported instead
            self.log.warning("BrowserAct task %s cannot be read: %s", task_id, error)
        if task is not None:
            self.run.url = log_url(task)
            if task.status.ended:
                self.log.warning("The run has ended, so its result is read, although %s.", why.rstrip("."))
                return self._conclude(task)
        raise self.run.give_up(task_id, why, remedy=remedy, overdue=overdue)

"""What an operator does with its run once that is started: wait, conclude, and let nothing of it be lost."""

from __future__ import annotations

import random
import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator

from airflow_provider_browseract.api.errors import BrowserActError, TaskNotPausedError
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.compat import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
    count_in_task,
    in_dag_test,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import unreadable
from airflow_provider_browseract.hooks.following import follow
from airflow_provider_browseract.hooks.required_action import ask, read_event
from airflow_provider_browseract.links.browseract import LiveViewLink
from airflow_provider_browseract.links.showing import show_run
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.inputs import InputError, read_choice, read_seconds
from airflow_provider_browseract.runs.outcome import (
    NoSlotError,
    RunCanceledError,
    RunError,
    RunLostError,
    RunPausedError,
    RunTimedOutError,
)
from airflow_provider_browseract.runs.outputs import OutputFormat
from airflow_provider_browseract.runs.report import describe, log_url, not_stopped
from airflow_provider_browseract.runs.waiting import (
    RESUMES,
    Answer,
    End,
    Next,
    OnPaused,
    RunWait,
    WaitEvent,
    WokenBy,
    next_after,
    wait_for_end,
)
from airflow_provider_browseract.webhook.callback import TOKEN_KEY, WAIT_XCOM
from airflow_provider_browseract.worker.conclusion import Conclusion
from airflow_provider_browseract.worker.pauses import (
    PauseCallbacks,
    read_callbacks,
    required_action_url,
    tell_pause,
)
from airflow_provider_browseract.worker.tries import NEXT_TRY, Kill, Tries

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_browseract.api.models import Task

HAD_ENDED = "The run had already ended."


class _EndedBeforeKill(RunError):
    """The infrastructure has ended a try whose run had ended before, so that only its result is left to read."""


class WaitingOperator(BaseOperator):
    """Waits for a run that it has started; the part of :class:`~airflow_provider_browseract.operators.run.RunOperator`
    that begins with the id of a BrowserAct task. There the arguments are described, too.
    """

    output_format: str
    output_path: str | ObjectStoragePath | None
    browseract_conn_id: str
    wait_for_completion: bool
    deferrable: bool
    poll_interval: float | timedelta | None
    timeout: float | timedelta
    start_timeout: float | timedelta | None
    reattach: bool
    on_paused: str
    on_paused_timeout: float | timedelta | None
    on_paused_default: str
    on_paused_callback: PauseCallbacks
    cancel_on_kill: bool
    cancel_on_timeout: bool

    # Of the run that is running, as far as it is known: on_kill, which may come at any moment, needs it.
    _browseract_task_id: str | None = None
    _url: str | None = None
    _start_under_way = False
    _killed = False
    _kill_error: RunError | None = None
    _tries: Tries | None = None
    _conclusion: Conclusion | None = None

    @property
    @abstractmethod
    def source(self) -> tuple[str, str]:
        """What is run: its kind, such as ``workflow``, and its id."""

    @property
    def _what(self) -> str:
        return " ".join(self.source)

    @cached_property
    def hook(self) -> BrowserActHook:
        """The hook for the operator's connection."""
        return BrowserActHook(self.browseract_conn_id)

    def execute_complete(self, context: Context, event: Any, wait: dict[str, Any] | None = None) -> Any:
        """Continue after the deferral: ask the API what became of the run, whatever the event says.

        :param event: the payload of a :class:`~airflow_provider_browseract.runs.waiting.WaitEvent`, from the trigger or
            from the callback route; or the answer of a person, from Airflow.
        :param wait: the arguments of the :class:`~airflow_provider_browseract.runs.waiting.RunWait` that it ended;
            ``dag.test()`` does not keep them.
        """
        resumed_at = time.time()
        self._tries = Tries(context, reattach=self.reattach is True)
        waited = RunWait(**wait) if wait else None
        try:
            told = read_event(event, waited)
        except ValueError as error:
            return self._end_with_airflow(
                context, self._started_task_id(context), f"the trigger cannot be understood: {error}"
            )
        task_id = told.browseract_task_id
        return self._account_for(context, task_id, lambda: self._resume(context, told, told.wait(waited), resumed_at))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after the deferral, also when Airflow ended it: then the run must not be left running unseen."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            task_id = self._started_task_id(context)
            if task_id is None:
                raise NoSlotError(f"Airflow ended the wait for a slot: {error}. No run was started.") from None
            self._tries = Tries(context, reattach=self.reattach is True)
            overdue = isinstance(error, TaskDeferralTimeout)
            return self._end_with_airflow(context, task_id, f"Airflow ended the deferral: {error}", overdue=overdue)

    def on_kill(self) -> None:
        """Stop the run if a person, or ``execution_timeout``, ends the Airflow task.

        Airflow calls this in a signal handler for each SIGTERM, also for one that the infrastructure sends. A run that
        the next try can reattach to is then left running.
        """
        if self._killed:
            return
        # Airflow calls this while it handles the exception of the timeout. It then sets no time limit for the stop.
        overdue = isinstance(sys.exc_info()[1], AirflowTaskTimeout)
        kill = Kill("execution_timeout ended the Airflow task", wanted=True) if overdue else None
        self._end_killed(kill, hurried=not overdue)

    def _end_killed(self, kill: Kill | None = None, *, hurried: bool = True) -> None:
        """Stop the run of a try that is being killed, unless another try reattaches to it; and prepare the error.

        :param kill: why it is killed; None to ask Airflow.
        :param hurried: Airflow ends the process after a few seconds.
        """
        self._killed = True
        task_id = self._browseract_task_id
        if task_id is None:
            if self._start_under_way:
                self.log.warning(
                    "Killed during the start of a run of %s. If no line below names its BrowserAct task, a run may be "
                    "running and using credits. A later try looks for it. If there is none, look at the newest tasks "
                    "in the BrowserAct dashboard.",
                    self._what,
                )
            return
        began = time.monotonic()
        if kill is None and self._tries:
            left = RunLostError(f"BrowserAct task {task_id} keeps running.")
            kill = self._tries.why_killed(left, within=timings.KILL_LIMIT / 2)
        kill = kill or Kill("the Airflow task was killed")
        said = f"Killed while waiting for BrowserAct task {task_id}: {kill.reason}."
        if kill.continued_by is not None:
            self._browseract_task_id = None
            self._kill_error = RunLostError(f"{said}\n{self._keeps_running(kill.continued_by)}")
        elif not self.cancel_on_kill:
            self._browseract_task_id = None
            self._kill_error = RunLostError(f"{said}\n{self._stop(task_id, wanted=False, unwanted='cancel_on_kill')}")
        else:
            within = timings.KILL_LIMIT - (time.monotonic() - began) if hurried else None
            stopped = self._stop(task_id, within=within)
            if stopped == HAD_ENDED and not kill.wanted:
                self._kill_error = _EndedBeforeKill(f"{said}\n{stopped} Its result is read.")
            else:
                self._kill_error = RunCanceledError(f"{said}\n{stopped}")
        self.log.warning("%s", self._kill_error)

    def _raise_if_killed(self) -> None:
        """End what Airflow lets continue after its signal handler."""
        if self._killed:
            raise self._kill_error or RunCanceledError("Killed before a run was started.")

    def _keeps_running(self, continued_by: str) -> str:
        """Return a sentence that the run keeps running, and who continues to wait for it."""
        return f"The run keeps running, and {continued_by}{f' ({self._url})' if self._url else ''}."

    def _leave_to_next_try(self, error: BaseException) -> str | None:
        """Return a sentence that the next try reattaches to the run, if one will; None if the run is to be stopped.

        :param error: what this try raises.
        """
        if self._tries is None or not self._tries.another(error):
            return None
        self._browseract_task_id = None
        return self._keeps_running(NEXT_TRY)

    def _check_pauses(self) -> None:
        asks = read_choice("on_paused", self.on_paused, OnPaused) is OnPaused.ASK
        default = read_choice("on_paused_default", self.on_paused_default, Answer)
        if self.on_paused_timeout is not None:
            read_seconds("on_paused_timeout", self.on_paused_timeout)
        if not asks and (self.on_paused_timeout is not None or default is not Answer.STOP):
            raise InputError(
                "on_paused_timeout and on_paused_default are about the answer of a person, and with "
                f"on_paused={self.on_paused!r} nobody is asked. Give on_paused='ask', or leave them out."
            )
        callbacks = read_callbacks(self.on_paused_callback)
        if not self.wait_for_completion and (asks or callbacks):
            raise InputError(
                "on_paused='ask' and on_paused_callback need wait_for_completion=True: a run that is not waited for is "
                "not seen to pause."
            )

    def _poll_interval(self, default: float) -> float:
        return default if self.poll_interval is None else read_seconds("poll_interval", self.poll_interval)

    @property
    def _tells_pauses(self) -> bool:
        """Whether a pause ends the wait, for a worker to do something."""
        return self.on_paused != OnPaused.WAIT or bool(read_callbacks(self.on_paused_callback))

    def _wait(
        self,
        context: Context,
        wait: RunWait,
        *,
        tell_pauses_from: float | None = None,
        pause_told: bool = False,
    ) -> Any:
        """Wait for the run in the way asked for.

        :param wait: the wait.
        :param tell_pauses_from: moment before which no pause ends the wait, where there is one.
        :param pause_told: the pause that the run is in is known already.
        """
        if self.deferrable:
            self._defer(context, wait, tell_pauses_from=tell_pauses_from, pause_told=pause_told)
        return self._wait_here(context, wait, tell_pauses_from=tell_pauses_from, pause_told=pause_told)

    def _defer(
        self,
        context: Context,
        wait: RunWait,
        *,
        tell_pauses_from: float | None = None,
        pause_told: bool = False,
    ) -> NoReturn:
        from airflow_provider_browseract.triggers.browseract import TaskTrigger

        if self._tries is not None and not in_dag_test() and not self._tries.is_running():
            # Airflow would refuse the deferral, and would notify neither this process nor a trigger.
            self._end_killed()
        self._raise_if_killed()
        callback_token_sha256 = wait.callback_token_sha256
        waits_for = WokenBy.POLL if callback_token_sha256 is None else WokenBy.CALLBACK
        if wait.question is not None:
            waits_for, pause_told = WokenBy.PERSON, True
            poll_interval, grace = (
                self._poll_interval(timings.DEFAULT_POLL_INTERVAL),
                timings.CORE_RACE_GRACE + timings.CALLBACK_GRACE,
            )
            self.log.info("Waiting in the triggerer for the answer of a person: %s", required_action_url(context))
        elif callback_token_sha256 is None:
            poll_interval, grace = self._poll_interval(timings.DEFAULT_POLL_INTERVAL), timings.CORE_RACE_GRACE
            self.log.info("Waiting in the triggerer, which polls the run every %g seconds.", poll_interval)
        else:
            only_polls_tell = self._tells_pauses or wait.callback_missed
            safety = timings.DEFAULT_POLL_INTERVAL if only_polls_tell else timings.SAFETY_POLL_INTERVAL
            poll_interval, grace = self._poll_interval(safety), timings.CORE_RACE_GRACE + timings.CALLBACK_GRACE
            self.log.info(
                "Waiting in the triggerer for BrowserAct's callback. In case the callback is lost, the triggerer also "
                "polls the run every %g seconds.",
                poll_interval,
            )
        self._show_wait(context, callback_token_sha256, {"waits_for": waits_for.value, "poll_interval": poll_interval})
        now = time.time()
        wait = replace(wait, first_poll_at=now + grace)
        self.defer(
            trigger=TaskTrigger(
                browseract_task_id=wait.browseract_task_id,
                browseract_conn_id=self.browseract_conn_id,
                poll_interval=poll_interval,
                first_poll_at=wait.first_poll_at,
                deadline=wait.deadline,
                deferred_at=now,
                callback_token_sha256=callback_token_sha256,
                last_seen=wait.last_seen,
                steps_told=wait.steps_told,
                pauses=wait.pauses,
                hints_in_vain=wait.hints_in_vain,
                start_by=wait.start_by,
                on_paused=self.on_paused,
                tell_pauses_from=(tell_pauses_from or now) if self._tells_pauses else None,
                pause_told=pause_told,
                question=wait.question,
                answer_by=wait.answer_by,
                answer_default=self.on_paused_default,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
            kwargs={"wait": asdict(wait)},
            timeout=timedelta(seconds=max(0.0, wait.deadline - now) + timings.TIMEOUT_BACKSTOP),
        )

    def _wait_here(
        self,
        context: Context,
        wait: RunWait,
        *,
        tell_pauses_from: float | None = None,
        pause_told: bool = False,
    ) -> Any:
        poll_interval = self._poll_interval(timings.DEFAULT_POLL_INTERVAL)
        steps = wait_for_end(
            wait,
            poll_interval=poll_interval,
            first_poll_at=min(time.time() + poll_interval, wait.deadline),
            clock=time.time,
            chance=random.random,
            tell_pauses_from=(tell_pauses_from or time.time()) if self._tells_pauses else None,
            pause_told=pause_told,
        )
        self._raise_if_killed()
        over = follow(steps, self.hook.client, self.log, check=self._raise_if_killed)
        # After a kill during the last request, raise the error of the kill, which names the reason.
        self._raise_if_killed()
        if over.end is End.ENDED and over.task is not None:
            return self._conclude(context, over.task)
        if over.end is End.PAUSED and over.task is not None:
            return self._see_to_pause(context, over.wait, over.task)
        self._end_without_result(wait.browseract_task_id, over.end, over.error.brief if over.error else None)

    def _resume(self, context: Context, told: WaitEvent, wait: RunWait, resumed_at: float) -> Any:
        task_id = self._browseract_task_id = told.browseract_task_id
        seen: Task | BrowserActError
        try:
            seen = self.hook.get_task(task_id)
        except BrowserActError as error:
            seen = error
        except AirflowNotFoundException as error:
            seen = unreadable(self.browseract_conn_id, error)
        else:
            self._url = log_url(seen)
        then = next_after(told, seen, time.time())
        if then is Next.CONCLUDE and not isinstance(seen, BrowserActError):
            if told.answer is not None:
                self.log.info("The run has ended, so the answer %s has no effect.", told.answer.option)
            self._tell_what_woke(context, told, wait, seen, resumed_at)
            return self._conclude(context, seen)
        if not isinstance(seen, BrowserActError):
            wait = self._log_news(wait, seen)
        if told.end is End.WENT_ON:
            wait = wait.unasked()
        if told.end is End.ENDED and told.woken_by is WokenBy.POLL:
            wait = replace(wait, callback_missed=True)
        if then is Next.PAUSE and told.answer is not None:
            if wait.question is None:
                # Airflow shows a question that is still open in later tries too.
                self.log.warning("The answer %s was to an earlier question. Waiting on.", told.answer.option)
                self._defer(context, wait)
            return self._do_as_answered(context, wait, told.answer, told.answered_by)
        if isinstance(seen, BrowserActError):
            if then is Next.END:
                self._end_without_result(task_id, End.GIVEN_UP, seen.brief)
            self.log.warning("BrowserAct task %s cannot be read yet: %s", task_id, seen.brief)
            self._defer(context, wait)
        if then is Next.PAUSE:
            return self._see_to_pause(context, wait, seen)
        if then is Next.END:
            self._end_without_result(task_id, told.end, told.reason)
        if told.end is End.WENT_ON:
            self.log.info("BrowserAct task %s is no longer paused, so no answer is needed.", task_id)
            return self._wait(context, wait)
        if told.end is End.NOT_STARTED:
            self._defer(context, wait)
        if told.end is End.GIVEN_UP:
            if wait.question is not None:
                self.log.warning("The answer of a person cannot be used: %s", told.reason)
                wait = wait.unasked()
            else:
                self.log.warning("The triggerer could not poll the run (%s). Deferring again.", told.reason)
            self._defer(context, wait)
        self.log.warning(
            "%s is %s, and not %s as a %s reported. Waiting again.",
            describe(seen),
            seen.status,
            told.end,
            told.woken_by,
        )
        if told.woken_by is WokenBy.CALLBACK:
            wait = replace(wait, hints_in_vain=wait.hints_in_vain + 1)
        self._defer(context, wait)

    def _log_news(self, wait: RunWait, task: Task) -> RunWait:
        """Log what the log does not have yet of a run, and return the wait that knows of it."""
        lines, wait = wait.news(task)
        for line in lines:
            self.log.info("%s", line)
        return wait

    def _see_to_pause(self, context: Context, wait: RunWait, task: Task) -> Any:
        """Do what is wanted when the run has paused for a person."""
        wait = replace(wait, pauses=wait.pauses + 1)
        show_run(context["ti"], task, self.log)
        on_paused = OnPaused(self.on_paused)
        if on_paused is OnPaused.ASK and in_dag_test():
            self.log.warning("dag.test() has nobody to ask. Resume the run in BrowserAct: %s", task.live_url)
        elif on_paused is OnPaused.ASK:
            # Before anybody is told where to answer.
            given = self.on_paused_timeout
            limit = None if given is None else read_seconds("on_paused_timeout", given)
            question = ask(context["ti"], task, Answer(self.on_paused_default), limit)
            wait = replace(wait, question=question, answer_by=None if limit is None else time.time() + limit)
        tell_pause(read_callbacks(self.on_paused_callback), context, task, self.log)
        if wait.question is not None:
            self._defer(context, wait)
        if on_paused is OnPaused.FAIL:
            self._end_without_result(task.id, End.PAUSED, None)
        if on_paused is OnPaused.RESUME and wait.pauses <= RESUMES:
            self.log.info("Resuming BrowserAct task %s, %d of %d times.", task.id, wait.pauses, RESUMES)
            return self._let_go_on(context, wait)
        return self._wait(context, wait, pause_told=True)

    def _do_as_answered(self, context: Context, wait: RunWait, answer: Answer, answered_by: str | None) -> Any:
        """Resume or stop the paused run, as a person or the lack of one has decided."""
        task_id = wait.browseract_task_id
        if answered_by is None:
            limit = read_seconds("on_paused_timeout", self.on_paused_timeout or self.timeout)
            who = f"nobody answered within {limit:g} seconds"
        else:
            who = f"{answered_by} has chosen {answer.option}"
        if answer is Answer.RESUME:
            self.log.info("BrowserAct task %s is to go on: %s.", task_id, who)
            return self._let_go_on(context, wait)
        said = f"BrowserAct task {task_id} paused for a person, and {who}.\n{self._stop(task_id)}"
        if answered_by is None:
            raise RunPausedError(said)
        # No retry: what a person has decided of this run would only have to be decided again.
        raise AirflowFailException(said)

    def _let_go_on(self, context: Context, wait: RunWait) -> Any:
        wait = wait.unasked()
        try:
            self.hook.resume_task(wait.browseract_task_id)
        except TaskNotPausedError:
            self.log.info("BrowserAct task %s is not paused any more.", wait.browseract_task_id)
        except BrowserActError as error:
            self.log.warning("BrowserAct task %s could not be resumed: %s", wait.browseract_task_id, error.brief)
            return self._wait(context, wait)
        else:
            self.log.info("BrowserAct task %s was resumed.", wait.browseract_task_id)
        return self._wait(context, wait, tell_pauses_from=time.time() + timings.RESUME_GRACE)

    def _tell_what_woke(self, context: Context, told: WaitEvent, wait: RunWait, task: Task, resumed_at: float) -> None:
        # The trigger of this wait may be told to end only now, and then looks for these two (is_resumed_wait).
        shown: dict[str, Any] = {"woken_by": told.woken_by.value, "first_poll_at": wait.first_poll_at}
        after = ""
        if task.finished_at is not None:
            # Two clocks, ours and BrowserAct's: less than nothing means that they differ.
            shown["seconds_after_end"] = seconds = round(max(0.0, resumed_at - task.finished_at.timestamp()), 1)
            after = f", {seconds:g} seconds after the end of the run"
        missed = told.woken_by is WokenBy.POLL and told.callback_token_sha256 is not None
        # A callback that comes right after the deferral is turned away.
        if missed and (task.finished_at is None or task.finished_at.timestamp() > wait.first_poll_at):
            count_in_task("browseract.callbacks_missed")
            self.log.warning(
                "Woken by a poll%s, and by no callback.\nIf that happens often, test connection %r: the test says "
                "whether webhook_base_url leads to the callback route. API servers log callbacks that they could not "
                "handle.",
                after,
                self.browseract_conn_id,
            )
        else:
            self.log.info("Woken by a %s%s.", told.woken_by, after)
        self._show_wait(context, wait.callback_token_sha256, shown)

    def _show_wait(self, context: Context, callback_token_sha256: str | None, shown: dict[str, Any]) -> bool:
        """Push the XCom that shows how the task waits or what woke it, and by which the route knows the token.

        :param callback_token_sha256: digest of the token; None without callbacks.
        :param shown: what it shows.
        :returns: whether it could be stored.
        """
        token = {TOKEN_KEY: callback_token_sha256} if callback_token_sha256 else {}
        try:
            context["ti"].xcom_push(key=WAIT_XCOM, value={**shown, **token})
        except Exception as error:  # noqa: BLE001 - what is only shown must not end a run
            self.log.warning("The XCom 'wait' could not be stored (%s: %s).", type(error).__name__, error)
            return False
        return True

    def _conclude(self, context: Context, task: Task) -> Any:
        if task.status is TaskStatus.CANCELED and isinstance(self._kill_error, RunCanceledError):
            # It names who stopped the run and why.
            raise self._kill_error
        self._browseract_task_id = None
        self._url = log_url(task)
        self._conclusion = Conclusion(
            task,
            context,
            output_format=OutputFormat(self.output_format),
            output_path=self.output_path,
            hook=self.hook,
            outlets=self.outlets,
            another_try_reads_it=self._tries is not None and self._tries.remembered,
            advice="On Airflow 3.3 clearing the task reads the same run anew; reattach=False makes that a new run.",
            log=self.log,
            killed=lambda: self._killed,
        )
        return self._conclusion.draw()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Tell OpenLineage, whose provider calls this, what was run and where its results are."""
        from airflow_provider_browseract.worker.lineage import lineage_of

        done = self._conclusion
        task, results = (done.task, done.results) if done else (None, None)
        return lineage_of(self.source, self.hook.settings.client.base_url, task, results)

    def _end_without_result(self, browseract_task_id: str, end: End, reason: str | None) -> NoReturn:
        if end is End.DEADLINE:
            raise RunTimedOutError(
                f"BrowserAct task {browseract_task_id} did not end within {read_seconds('timeout', self.timeout):g} "
                "seconds.\n"
                f"{self._stop(browseract_task_id, wanted=self.cancel_on_timeout, unwanted='cancel_on_timeout')}\n"
                "Raise timeout if the workflow needs longer."
            )
        if end is End.NOT_STARTED:
            limit = read_seconds("start_timeout", self.start_timeout)
            raise RunTimedOutError(
                f"BrowserAct task {browseract_task_id} still has the status 'created' after start_timeout={limit:g} "
                "seconds.\n"
                f"{self._stop(browseract_task_id, wanted=self.cancel_on_timeout, unwanted='cancel_on_timeout')}\n"
                "Check in the BrowserAct dashboard whether runs leave this status at all. Raise start_timeout if they "
                "need longer."
            )
        if end is End.PAUSED:
            raise RunPausedError(
                f"BrowserAct task {browseract_task_id} paused for a person, which on_paused='fail' does not wait for.\n"
                f"{self._stop(browseract_task_id)}"
            )
        self._give_up(browseract_task_id, f"its status could not be learned: {reason or 'it stayed unknown'}")

    def _end_with_airflow(
        self, context: Context, browseract_task_id: str | None, why: str, *, overdue: bool = False
    ) -> Any:
        """Take the result that there may be although Airflow's part of the wait failed, or give the run up."""
        task = None
        try:
            task = self.hook.get_task(browseract_task_id) if browseract_task_id else None
        except Exception as error:  # noqa: BLE001 - the wait has failed already, and that is what is reported
            self.log.warning("BrowserAct task %s cannot be read: %s", browseract_task_id, error)
        if task is not None and task.status.ended:
            self.log.warning("%s. The run has ended meanwhile.", why.rstrip("."))
            return self._conclude(context, task)
        self._give_up(browseract_task_id, why, overdue=overdue)

    def _give_up(self, browseract_task_id: str | None, why: str, *, overdue: bool = False) -> NoReturn:
        """Leave the run to the next try; or stop it, if there is none or if its time is over."""
        if browseract_task_id is None:
            raise RunLostError(
                f"A run of {self._what} was started but its id is not known here: {why.rstrip('.')}.\n"
                "Look at the newest tasks in the BrowserAct dashboard."
            )
        said = f"BrowserAct task {browseract_task_id} was given up: {why.rstrip('.')}."
        left = None if overdue else self._leave_to_next_try(RunLostError(said))
        raise RunLostError(
            f"{said}\n"
            f"{left or self._stop(browseract_task_id, wanted=self.cancel_on_timeout, unwanted='cancel_on_timeout')}"
        )

    def _stop(
        self, browseract_task_id: str, *, wanted: bool = True, unwanted: str = "", within: float | None = None
    ) -> str:
        """Stop a run, if that is wanted, and return a sentence about what came of it.

        :param unwanted: the argument whose ``False`` makes the stop unwanted.
        :param within: seconds that it may take; None for the patience of the connection.
        """
        if not wanted:
            self._browseract_task_id = None
            where = f" ({self._url})" if self._url else ""
            return f"The run keeps running and using credits because {unwanted}=False{where}."
        try:
            # Whoever ends this, such as execution_timeout, calls on_kill, which then stops the run.
            stopped = self.hook.stop_task(browseract_task_id, within=within)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not be left running unsaid
            self._browseract_task_id = None
            return f"The run {not_stopped(error, self._url)}"
        self._browseract_task_id = None
        if within is None and self._tries is not None:
            with suppress(Exception):
                LiveViewLink().push(self._tries.ti, LiveViewLink.OVER)
        return "The run was stopped." if stopped else HAD_ENDED

    def _account_for(self, context: Context, browseract_task_id: str, see_through: Callable[[], Any]) -> Any:
        """Do what is left to do for a started run, and let nothing end it unsaid.

        Whatever goes wrong, the run is left to a later try or, if there is none, stopped.

        :param see_through: waits for the run and returns its result.
        """
        try:
            try:
                return see_through()
            except _EndedBeforeKill:
                return self._conclude(context, self.hook.get_task(browseract_task_id))
        except (RunError, AirflowFailException):
            raise
        except KeyboardInterrupt:
            # As in dag.test(), where no one calls on_kill.
            self._end_killed(Kill("interrupted (Ctrl-C)", wanted=True))
            raise
        except Exception as error:  # noqa: BLE001 - it becomes one that says what becomes of the run
            said = (
                f"BrowserAct task {browseract_task_id} was given up after an error in Airflow "
                f"({type(error).__name__}: {error})."
            )
            lost = RunLostError(said)
            what = self._leave_to_next_try(lost) or self._stop(browseract_task_id)
            # One traceback: that of the error.
            raise RunLostError(f"{said}\n{what}").with_traceback(error.__traceback__) from None

    def _started_task_id(self, context: Context) -> str | None:
        ti = context["ti"]
        found = ti.xcom_pull(task_ids=self.task_id, key="task_id", map_indexes=ti.map_index)
        return found if isinstance(found, str) else None

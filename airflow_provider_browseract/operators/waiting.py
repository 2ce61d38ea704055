"""What an operator does with its run once that is started: wait, conclude, and let nothing of it be lost."""

from __future__ import annotations

import random
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator

from airflow_provider_browseract.api.errors import BrowserActError, TaskNotPausedError
from airflow_provider_browseract.compat import AirflowFailException, TaskDeferralError, TaskDeferralTimeout
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.following import follow
from airflow_provider_browseract.hooks.required_action import ask, is_asked_in_vain, read_event
from airflow_provider_browseract.links.browseract import LiveViewLink
from airflow_provider_browseract.links.telling import show_run
from airflow_provider_browseract.operators.conclusion import Conclusion
from airflow_provider_browseract.operators.pauses import (
    PauseCallbacks,
    read_callbacks,
    required_action_url,
    tell_pause,
)
from airflow_provider_browseract.operators.tries import Tries
from airflow_provider_browseract.runs.inputs import InputError, read_choice, read_seconds
from airflow_provider_browseract.runs.outcome import (
    NoSlotError,
    RunError,
    RunLostError,
    RunPausedError,
    RunTimedOutError,
)
from airflow_provider_browseract.runs.outputs import OutputFormat
from airflow_provider_browseract.runs.report import describe, log_url
from airflow_provider_browseract.runs.waiting import (
    BACKSTOP,
    CALLBACK_GRACE,
    CORE_RACE_GRACE,
    DEFAULT_POLL_INTERVAL,
    RESUME_GRACE,
    RESUMES,
    SAFETY_POLL_INTERVAL,
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

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_browseract.api.models import Task

KILL_GRACE = 4.0
"""Seconds within which a killed task has to have stopped its run; Airflow ends the process after 5."""


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
    reattach: bool
    on_paused: str
    on_paused_timeout: float | timedelta | None
    on_paused_default: str
    on_paused_callback: PauseCallbacks
    cancel_on_kill: bool
    cancel_on_timeout: bool

    # Of the run that goes on, as far as it is known: on_kill, which may come at any moment, needs it.
    _browseract_task_id: str | None = None
    _url: str | None = None
    _killed = False
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
        """Go on after the deferral: ask the API what became of the run, whatever the event says.

        :param event: the payload of a :class:`~airflow_provider_browseract.runs.waiting.WaitEvent`, from the trigger or
            from the callback route; or the answer of a person, from Airflow.
        :param wait: the arguments of the :class:`~airflow_provider_browseract.runs.waiting.RunWait` that it ended.
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
        with self._accounting_for(told.browseract_task_id):
            going_on = waited or RunWait(told.browseract_task_id, told.deadline, told.callback_token_sha256)
            return self._resume(context, told, going_on, resumed_at)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the deferral, also when Airflow ended it: then the run must not be left going unseen."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            task_id = self._started_task_id(context)
            if task_id is None:
                raise NoSlotError(f"Airflow ended the wait for room: {error}. No run was started.") from error
            self._tries = Tries(context, reattach=self.reattach is True)
            overdue = isinstance(error, TaskDeferralTimeout)
            return self._end_with_airflow(context, task_id, f"Airflow ended the deferral: {error}", overdue=overdue)

    def on_kill(self) -> None:
        """Stop the run, since the Airflow task that waits for it is being killed; but not if a later try wants it."""
        self._killed = True
        if (task_id := self._browseract_task_id) is not None:
            self.log.warning("Killed while waiting for BrowserAct task %s. %s", task_id, self._end_killed(task_id))

    def _end_killed(self, browseract_task_id: str) -> str:
        """Stop the run of a task that is being killed, unless a later try wants it; and say so in a sentence."""
        began = time.monotonic()
        if self.cancel_on_kill and self._tries and (why := self._tries.taken_over(within=KILL_GRACE / 2)):
            self._browseract_task_id = None
            return f"It goes on: {why}."
        within = KILL_GRACE - (time.monotonic() - began)
        return self._stop(browseract_task_id, wanted=self.cancel_on_kill, within=within)

    def _leave_to_next_try(self) -> str | None:
        """Say that the next try takes up the run, if one will: no trouble of Airflow's own is worth a second run."""
        if self._tries is None or not self._tries.another:
            return None
        self._browseract_task_id = None
        return "It goes on, and the next try takes it up."

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
        return self.on_paused in (OnPaused.FAIL, OnPaused.ASK) or bool(read_callbacks(self.on_paused_callback))

    def _wait(
        self,
        context: Context,
        wait: RunWait,
        seen: Task | None,
        *,
        tell_pauses_from: float | None = None,
        pause_told: bool = False,
    ) -> Any:
        """Wait for the run in the way asked for.

        :param wait: the wait.
        :param seen: the run as the log has told it.
        :param tell_pauses_from: moment before which no pause is told, where there is one.
        :param pause_told: the pause that the run is in has been told already.
        """
        if self.deferrable:
            self._defer(context, wait, seen, tell_pauses_from=tell_pauses_from, pause_told=pause_told)
        return self._wait_here(context, wait, seen, tell_pauses_from=tell_pauses_from, pause_told=pause_told)

    def _defer(
        self,
        context: Context,
        wait: RunWait,
        seen: Task | None,
        *,
        tell_pauses_from: float | None = None,
        pause_told: bool = False,
    ) -> NoReturn:
        from airflow_provider_browseract.triggers.browseract import TaskTrigger

        callback_token_sha256 = wait.callback_token_sha256
        waits_for = WokenBy.POLL if callback_token_sha256 is None else WokenBy.CALLBACK
        if wait.question is not None:
            waits_for, pause_told = WokenBy.PERSON, True
            poll_interval, grace = self._poll_interval(DEFAULT_POLL_INTERVAL), CORE_RACE_GRACE + CALLBACK_GRACE
            self.log.info("Waiting without a worker for the answer of a person: %s", required_action_url(context))
        elif callback_token_sha256 is None:
            poll_interval, grace = self._poll_interval(DEFAULT_POLL_INTERVAL), CORE_RACE_GRACE
            self.log.info("Waiting without a worker; the status is asked for every %g seconds.", poll_interval)
        else:
            safety = DEFAULT_POLL_INTERVAL if self._tells_pauses else SAFETY_POLL_INTERVAL
            poll_interval, grace = self._poll_interval(safety), CORE_RACE_GRACE + CALLBACK_GRACE
            self.log.info(
                "Waiting without a worker for BrowserAct's callback. Should it get lost: the status is asked for every "
                "%g seconds.",
                poll_interval,
            )
        self._show_wait(context, {"waits_for": waits_for.value, "poll_interval": poll_interval})
        now = time.time()
        self.defer(
            trigger=TaskTrigger(
                browseract_task_id=wait.browseract_task_id,
                browseract_conn_id=self.browseract_conn_id,
                poll_interval=poll_interval,
                first_poll_at=now + grace,
                deadline=wait.deadline,
                deferred_at=now,
                callback_token_sha256=callback_token_sha256,
                last_seen=seen.status.value if seen else None,
                steps_told=len(seen.steps) if seen else 0,
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
            timeout=timedelta(seconds=max(0.0, wait.deadline - now) + BACKSTOP),
        )

    def _wait_here(
        self,
        context: Context,
        wait: RunWait,
        seen: Task | None,
        *,
        tell_pauses_from: float | None = None,
        pause_told: bool = False,
    ) -> Any:
        task_id, deadline = wait.browseract_task_id, wait.deadline
        poll_interval = self._poll_interval(DEFAULT_POLL_INTERVAL)
        over = follow(
            wait_for_end(
                task_id,
                poll_interval=poll_interval,
                first_poll_at=min(time.time() + poll_interval, deadline),
                deadline=deadline,
                clock=time.time,
                chance=random.random,
                last_seen=seen.status if seen else None,
                steps_told=len(seen.steps) if seen else 0,
                on_paused=OnPaused(self.on_paused),
                tell_pauses_from=(tell_pauses_from or time.time()) if self._tells_pauses else None,
                pause_told=pause_told,
            ),
            self.hook.client,
            self.log,
        )
        if over.end is End.ENDED and over.task is not None:
            return self._conclude(context, over.task)
        if over.end is End.PAUSED and over.task is not None:
            return self._see_to_pause(context, wait, over.task)
        self._end_without_result(task_id, over.end, str(over.error) if over.error else None)

    def _resume(self, context: Context, told: WaitEvent, wait: RunWait, resumed_at: float) -> Any:
        task_id = self._browseract_task_id = told.browseract_task_id
        seen: Task | BrowserActError
        try:
            seen = self.hook.get_task(task_id)
        except BrowserActError as error:
            seen = error
        then = next_after(told, seen, time.time())
        if told.end is End.WENT_ON:
            wait = wait.unasked()
        if then is Next.PAUSE and told.answer is not None:
            known = None if isinstance(seen, BrowserActError) else seen
            if wait.question is None:
                # Airflow shows a question that is still open in later tries too.
                self.log.warning("The answer %s was to an earlier question. Waiting on.", told.answer.option)
                self._defer(context, wait, known)
            return self._do_as_answered(context, wait, told.answer, told.answered_by, known)
        if isinstance(seen, BrowserActError):
            if then is Next.END:
                self._end_without_result(task_id, End.GIVEN_UP, str(seen))
            self.log.warning("The result of BrowserAct task %s cannot be read yet: %s", task_id, seen)
            self._defer(context, wait, None)
        if then is Next.CONCLUDE:
            if told.answer is not None:
                self.log.info("The run has ended, so that the answer %s changes nothing.", told.answer.option)
            self._tell_what_woke(context, told, seen, resumed_at)
            return self._conclude(context, seen)
        self._url = log_url(seen)
        if then is Next.PAUSE:
            return self._see_to_pause(context, wait, seen)
        if told.end is End.WENT_ON and then is Next.DEFER:
            self.log.info("BrowserAct task %s goes on, so nobody has to answer any more.", task_id)
            return self._wait(context, wait, seen)
        if then is Next.DEFER:
            self.log.warning(
                "%s is %s, and not %s as a %s told. Waiting on.", describe(seen), seen.status, told.end, told.woken_by
            )
            self._defer(context, wait, seen)
        if then is Next.WAIT_HERE and wait.question is not None:
            self.log.warning("The answer of a person cannot be used: %s", told.reason)
            self._defer(context, wait.unasked(), seen)
        if then is Next.WAIT_HERE:
            self.log.warning("The triggerer could not follow the run (%s). Waiting here.", told.reason)
            return self._wait_here(context, wait, seen)
        self._end_without_result(task_id, told.end, told.reason)

    def _see_to_pause(self, context: Context, wait: RunWait, task: Task) -> Any:
        """Do what is wanted when the run has paused for a person."""
        wait = replace(wait, pauses=wait.pauses + 1)
        show_run(context["ti"], task)
        on_paused = OnPaused(self.on_paused)
        if on_paused is OnPaused.ASK and is_asked_in_vain():
            self.log.warning("dag.test() has nobody to ask. Resume the run in BrowserAct: %s", task.live_url)
        elif on_paused is OnPaused.ASK:
            # Before anybody is told where to answer.
            question = ask(context["ti"], task, Answer(self.on_paused_default))
            limit = self.on_paused_timeout
            answer_by = None if limit is None else time.time() + read_seconds("on_paused_timeout", limit)
            wait = replace(wait, question=question, answer_by=answer_by)
        tell_pause(read_callbacks(self.on_paused_callback), context, task, self.log)
        if wait.question is not None:
            self._defer(context, wait, task)
        if on_paused is OnPaused.FAIL:
            self._end_without_result(task.id, End.PAUSED, None)
        if on_paused is OnPaused.RESUME and wait.pauses <= RESUMES:
            return self._let_go_on(context, wait, task)
        return self._wait(context, wait, task, pause_told=True)

    def _do_as_answered(
        self, context: Context, wait: RunWait, answer: Answer, answered_by: str | None, seen: Task | None
    ) -> Any:
        """Resume or stop the paused run, as a person or the lack of one has decided."""
        task_id = wait.browseract_task_id
        if answered_by is None:
            limit = read_seconds("on_paused_timeout", self.on_paused_timeout or self.timeout)
            who = f"nobody answered within {limit:g} seconds"
        else:
            who = f"{answered_by} has chosen {answer.option}"
        if answer is Answer.RESUME:
            self.log.info("BrowserAct task %s is to go on: %s.", task_id, who)
            return self._let_go_on(context, wait, seen)
        said = f"BrowserAct task {task_id} paused for a person, and {who}. {self._stop(task_id)}"
        if answered_by is None:
            raise RunPausedError(said)
        # No retry: what a person has decided of this run would only have to be decided again.
        raise AirflowFailException(said)

    def _let_go_on(self, context: Context, wait: RunWait, seen: Task | None) -> Any:
        wait = wait.unasked()
        try:
            self.hook.resume_task(wait.browseract_task_id)
        except TaskNotPausedError:
            self.log.info("BrowserAct task %s is not paused any more.", wait.browseract_task_id)
        except BrowserActError as error:
            self.log.warning("BrowserAct task %s could not be resumed: %s", wait.browseract_task_id, error)
            return self._wait(context, wait, seen)
        else:
            self.log.info("BrowserAct task %s was resumed.", wait.browseract_task_id)
        return self._wait(context, wait, seen, tell_pauses_from=time.time() + RESUME_GRACE)

    def _tell_what_woke(self, context: Context, told: WaitEvent, task: Task, resumed_at: float) -> None:
        shown: dict[str, Any] = {"woken_by": told.woken_by.value}
        after = ""
        if task.finished_at is not None:
            # Two clocks, ours and BrowserAct's: less than nothing means that they differ.
            shown["seconds_after_end"] = seconds = round(max(0.0, resumed_at - task.finished_at.timestamp()), 1)
            after = f", {seconds:g} seconds after the end of the run"
        no_callback = ""
        if told.woken_by is WokenBy.POLL and told.callback_token_sha256 is not None:
            no_callback = " No callback had resumed it."
        self.log.info("Woken by a %s%s.%s", told.woken_by, after, no_callback)
        self._show_wait(context, shown)

    def _show_wait(self, context: Context, shown: dict[str, Any]) -> None:
        """Let the XComs of the task instance say how it waits, or what woke it."""
        try:
            context["ti"].xcom_push(key="wait", value=shown)
        except Exception:
            self.log.warning("How the task waits could not be kept as an XCom.", exc_info=True)

    def _conclude(self, context: Context, task: Task) -> Any:
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
        )
        return self._conclusion.draw()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Tell OpenLineage, whose provider calls this, what was run and where its results are."""
        from airflow_provider_browseract.operators.lineage import lineage_of

        done = self._conclusion
        task, results = (done.task, done.results) if done else (None, None)
        return lineage_of(self.source, self.hook.settings.client.base_url, task, results)

    def _end_without_result(self, browseract_task_id: str, end: End, reason: str | None) -> NoReturn:
        if end is End.DEADLINE:
            raise RunTimedOutError(
                f"BrowserAct task {browseract_task_id} did not end within {read_seconds('timeout', self.timeout):g} "
                f"seconds. {self._stop(browseract_task_id, wanted=self.cancel_on_timeout)} Raise timeout if the "
                "workflow needs longer."
            )
        if end is End.PAUSED:
            raise RunPausedError(
                f"BrowserAct task {browseract_task_id} paused for a person, which on_paused='fail' does not wait for. "
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
        except Exception as error:  # noqa: BLE001 - the wait has failed already, and that is what is told
            self.log.warning("BrowserAct task %s cannot be read: %s", browseract_task_id, error)
        if task is not None and task.status.ended:
            self.log.warning("%s. The run has ended meanwhile.", why.rstrip("."))
            return self._conclude(context, task)
        self._give_up(browseract_task_id, why, None if overdue else self._leave_to_next_try())

    def _give_up(self, browseract_task_id: str | None, why: str, goes_on: str | None = None) -> NoReturn:
        if browseract_task_id is None:
            raise RunLostError(
                f"A run of {self._what} was started but its id is not known here: {why.rstrip('.')}. "
                "Look at the newest tasks in the BrowserAct dashboard."
            )
        raise RunLostError(
            f"BrowserAct task {browseract_task_id} was given up: {why.rstrip('.')}. "
            f"{goes_on or self._stop(browseract_task_id, wanted=self.cancel_on_timeout)}"
        )

    def _stop(self, browseract_task_id: str, *, wanted: bool = True, within: float | None = None) -> str:
        """Stop a run, if that is wanted, and say in a sentence what came of it."""
        self._browseract_task_id = None
        where = f" ({self._url})" if self._url else ""
        if not wanted:
            return f"It goes on, and costs credits, as it was asked for{where}."
        try:
            stopped = self.hook.stop_task(browseract_task_id, within=within)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not go on unsaid
            return (
                f"It could not be stopped ({str(error).rstrip('.')}): it may go on, and cost credits, until someone "
                f"stops it in the BrowserAct dashboard{where}."
            )
        if within is None and self._tries is not None:
            with suppress(Exception):
                LiveViewLink().push(self._tries.ti, LiveViewLink.OVER)
        return "It was stopped." if stopped else "It had already ended."

    @contextmanager
    def _accounting_for(self, browseract_task_id: str) -> Iterator[None]:
        """Let nothing leave a started run behind unsaid: it is left to a later try or, if there is none, stopped."""
        try:
            yield
        except (RunError, AirflowFailException):
            raise
        except KeyboardInterrupt:
            # As in dag.test(), where no one calls on_kill.
            self.on_kill()
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise RunLostError(
                f"BrowserAct task {browseract_task_id} was given up after an error in Airflow ({reason}). "
                f"{self._leave_to_next_try() or self._stop(browseract_task_id)}"
            ) from error

    def _started_task_id(self, context: Context) -> str | None:
        ti = context["ti"]
        found = ti.xcom_pull(task_ids=self.task_id, key="task_id", map_indexes=ti.map_index)
        return found if isinstance(found, str) else None

"""The errors of this package, one class for each kind of error that a user can act on. Import them from here.

No error contains a secret, such as the API key, the body of a request or a callback address.
"""

from __future__ import annotations

from typing import Any

THE_CONNECTION = "the Airflow connection"
"""How a remedy refers to the connection. The text of an error adds the connection's id if it is known."""

KEY_FIELD = f"the API key (password) field of {THE_CONNECTION}"
CHECK_NEWEST = (
    "Check the newest tasks of the workflow or bot in the BrowserAct dashboard (or BrowserActHook.iter_tasks, or "
    "iter_bot_tasks for runs of bots), and stop the one that no Airflow task waits for."
)
"""The remedy where it is not known whether BrowserAct started a run."""
AGAIN = f"If the call only reads, try again. Do not repeat a start at once. {CHECK_NEWEST}"
"""The remedy where it is not known whether BrowserAct processed a call."""


class InputError(ValueError):
    """An argument cannot be used. The message names it, and the valid values or what to change."""


class ConnectionFieldError(InputError):
    """A field of the connection cannot be used. The message names it, and what to change."""


class BrowserActError(Exception):
    """A call to BrowserAct failed. This is the base class of all errors of calls.

    ``str(error)`` has up to three lines: the reason, the remedy, and the codes. :attr:`brief` is one line.

    :param message: what happened, in one sentence.
    :param facts: values for the attributes below; ``None`` for the default of the class.
    """

    http_status: int | None = None
    """HTTP status of the response, if there was one."""
    code: int | None = None
    """BrowserAct's own code from the error envelope, if there was one."""
    msg: str | None = None
    """BrowserAct's own message from the error envelope."""
    trace_id: str | None = None
    """The id that BrowserAct's support asks for."""
    retry_after: float | None = None
    """Seconds to wait before the next call, as the response requires."""
    connection: str | None = None
    """Id of the Airflow connection that was used. The clients set it."""
    remedy: str = ""
    """What the user can do."""
    temporary: bool = False
    """Whether the same call may succeed a little later without any change."""
    not_processed: bool = False
    """Whether BrowserAct certainly did not process the call, so that a start has started no run."""
    resent: bool = False
    """Whether the request was sent more than once, so that an earlier one may already have taken effect."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        vars(self).update({name: fact for name, fact in facts.items() if fact is not None})

    @property
    def brief(self) -> str:
        """Reason and codes in one line, without the remedy and without a full stop, for use in a sentence."""
        reason = self.message.rstrip(".")
        return f"{reason} ({self.codes})" if self.codes else reason

    @property
    def advice(self) -> str:
        """The remedy, with the id of the connection where it refers to the connection."""
        if self.connection is None:
            return self.remedy
        return self.remedy.replace(THE_CONNECTION, f"{THE_CONNECTION} {self.connection!r}")

    def __str__(self) -> str:
        reason = self.message if self.message.endswith((".", "!", "?")) else f"{self.message}."
        return "\n".join(filter(None, (reason, self.advice, self.codes)))

    @property
    def codes(self) -> str:
        """BrowserAct's code, the HTTP status and the trace id, as far as they are known."""
        named = (("code", self.code), ("HTTP", self.http_status), ("traceId", self.trace_id))
        return ", ".join(f"{name} {value}" for name, value in named if value is not None)


class AuthenticationError(BrowserActError):
    """The API key is missing, wrong or deleted."""

    remedy = f"Put a valid API key (BrowserAct dashboard: Integrations, Manage API Keys) into {KEY_FIELD}."


class PermissionDeniedError(BrowserActError):
    """The API key is valid, but may not do this."""

    remedy = f"Put an API key of the account that owns the workflow or bot into {KEY_FIELD}."


class NotFoundError(BrowserActError):
    """An id does not exist, or is not visible to this API key."""

    remedy = "Check the id, and that it belongs to the account of the API key."


class TaskNotFoundError(NotFoundError):
    """There is no such BrowserAct task, or it is not visible to this API key."""

    remedy = (
        "Check the id. It must be the id of a BrowserAct task, not Airflow's task_id, and the API key must be of the "
        "account of that task."
    )


class InvalidRequestError(BrowserActError):
    """BrowserAct refused the content of a call, such as an input that is missing, or a workflow or bot that cannot run.

    The remedy depends on BrowserAct's code.
    """

    remedy = (
        "Fix the arguments that the message names. A profile (profile_id) must have been saved by a run of the same "
        "account."
    )


class UnknownRefusalError(BrowserActError):
    """BrowserAct refused a call with a code that its documentation does not list, or without a code.

    A start that is refused like this is not sent again. If the response is BrowserAct's error envelope with an HTTP
    status of 4xx, nothing was started. Otherwise this is not known, and operators look the run up first.
    """

    remedy = "Read BrowserAct's reason above, or contact BrowserAct's support with the traceId."


class InsufficientCreditsError(UnknownRefusalError):
    """BrowserAct refused a start, and its message is about credits. No code for this is documented."""

    remedy = "If the account has no credits left, add some in the BrowserAct dashboard."


class ConcurrencyLimitError(BrowserActError):
    """The plan has no free slot, so no run was started."""

    remedy = "Limit the runs with an Airflow pool of the plan's size (include deferred tasks), or upgrade the plan."
    temporary = True


class RateLimitError(BrowserActError):
    """There were too many calls; wait before the next one."""

    remedy = "Poll less often (poll_interval), or let fewer Airflow tasks run at once."
    temporary = True


class TaskEndedError(BrowserActError):
    """The task has already ended, so it cannot be stopped or resumed."""


class TaskNotPausedError(BrowserActError):
    """Only a paused task can be resumed."""


class ResumeNotSupportedError(BrowserActError):
    """BrowserAct resumes this task itself, so a call cannot resume it. That is so for runs of agent-built bots."""

    remedy = "Help the bot in the live view of the run. BrowserAct then continues the run by itself."


class ServerError(BrowserActError):
    """BrowserAct failed. It is not known whether it processed the call."""

    remedy = f"{AGAIN} If the error persists, contact BrowserAct's support."
    temporary = True


class ConnectionFailedError(BrowserActError):
    """No connection to the API could be opened, so the call was not sent."""

    remedy = f"Check the host of {THE_CONNECTION} (field API address), and DNS, proxy and firewall of this machine."
    temporary = True
    not_processed = True


class ResponseLostError(BrowserActError):
    """The call was sent, but the complete response did not arrive. It is not known whether the call was processed."""

    remedy = f"{AGAIN} If responses need more time, raise read_timeout in the extra of {THE_CONNECTION}."
    temporary = True


class ResponseTooLargeError(BrowserActError):
    """A triggerer or an API server cannot read a response: it is too large, or has what only a worker reads."""

    remedy = "A worker reads it. Let the workflow return less, for example by writing its output to a file."


class UnexpectedResponseError(BrowserActError):
    """The response is not what the API documents for this call, or it is not from BrowserAct's API at all."""

    remedy = "If BrowserAct changed its API, a newer version of the provider may understand the response."
    unusable: str | None = None
    """Why the content of a successful response cannot be used. ``None`` if there was no such response of the API."""


class RunStartUnknownError(BrowserActError):
    """A call that starts a run got no usable response. A run may be running and using credits with an unknown id."""

    remedy = f"{CHECK_NEWEST} Do so before you clear the Airflow task."

    @classmethod
    def after(cls, error: BrowserActError, message: str) -> RunStartUnknownError:
        """Return the error of a start whose result is not known because of another error, with its codes."""
        names = ("http_status", "code", "msg", "trace_id", "connection")
        return cls(message, **{name: getattr(error, name) for name in names})


class RunError(Exception):
    """A run has no result. This is the base class of all errors of a run. Airflow's retries apply."""


class RunFailedError(RunError):
    """BrowserAct reports that the run failed. The message has the failed step and a screenshot.

    Fix the workflow or its inputs, and clear the Airflow task. A retry starts a new run.
    """


class RunCanceledError(RunError):
    """The run was stopped: in BrowserAct, through its API, or because the Airflow task was killed.

    Clear the Airflow task to start a new run, as a retry does.
    """


class RunTimedOutError(RunError):
    """The run took longer than the operator's ``timeout``.

    Raise ``timeout``, or make the workflow shorter. A retry starts a new run.
    """


class RunPausedError(RunError):
    """The run paused for a person, and nobody answered in time.

    Give people more time (``AskPerson``).
    """


class NoSlotError(RunError):
    """BrowserAct had no free slot for as long as the operator may wait for one. No run was started.

    Raise ``queue_timeout``, limit the runs with a pool, or upgrade the plan.
    """


class BudgetUnknownError(RunError):
    """The credits of the account cannot be counted, so its budget does not allow a start. No run was started.

    A retry counts again. To start runs without a budget, remove it from the extra of the connection.
    """


class RunLostError(RunError):
    """The task no longer waits for its run, for example because the status of the run could not be read.

    The message states whether the run was stopped or keeps running.

    Check the network and the API key. On Airflow 3.3, a retry reattaches to a run that keeps running.
    """


class ResultError(RunError):
    """The run finished, but not all of its results could be read and stored. BrowserAct still has them.

    Fix the store that the message names. On Airflow 3.3, the next try reads the same run again.
    """


class StorageError(RunError):
    """The store of ``output_path`` does not respond as expected. This is checked before a start or a wait.

    Check the store and its Airflow connection, and that the workers reach the store.
    """

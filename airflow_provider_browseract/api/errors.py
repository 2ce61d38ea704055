"""What can go wrong with a call: one exception class per thing that a user can act on.

Nothing here carries a secret: not the API key, not a request's body, not a callback address.
"""

from __future__ import annotations


class BrowserActError(Exception):
    """A call to BrowserAct did not succeed.

    :param message: what happened, in one sentence.
    :param http_status: HTTP status of the answer, if there was one.
    :param code: BrowserAct's own code from the error envelope, if there was one.
    :param msg: BrowserAct's own words from the error envelope.
    :param trace_id: id that BrowserAct's support asks for.
    :param retry_after: seconds after which the service asked to be called again.
    """

    remedy: str = ""
    """What the user can do about it."""

    temporary: bool = False
    """Whether the same call may succeed a little later without anyone doing anything."""

    not_processed: bool = False
    """Whether it is sure that BrowserAct did not carry the call out, so that even a start may be sent again."""

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        code: int | None = None,
        msg: str | None = None,
        trace_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        self.code = code
        self.msg = msg
        self.trace_id = trace_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        facts = [
            f"{name} {value}"
            for name, value in (
                ("code", self.code),
                ("HTTP", self.http_status),
                ("traceId", self.trace_id),
            )
            if value is not None
        ]
        return " ".join(
            part for part in (self.message.rstrip("."), f"({', '.join(facts)})." if facts else ".", self.remedy) if part
        ).replace(" .", ".")


class AuthenticationError(BrowserActError):
    """The API key is missing, wrong or deleted."""

    remedy = (
        "Put a valid API key (BrowserAct dashboard: Integrations, Manage API Keys) into the password field of the "
        "Airflow connection."
    )
    not_processed = True


class PermissionDeniedError(BrowserActError):
    """The API key is valid but may not do this."""

    remedy = "Use an API key of the account that owns the workflow."
    not_processed = True


class NotFoundError(BrowserActError):
    """What an id names does not exist, or not for this API key."""

    remedy = "Check the id, and that it belongs to the account of the API key."
    not_processed = True


class WorkflowNotFoundError(NotFoundError):
    """No such workflow, or not visible to this API key."""

    remedy = "Check workflow_id (dashboard, or BrowserActHook.iter_workflows), and that the API key is of its account."


class WorkflowNotPublishedError(BrowserActError):
    """The workflow exists but was never published."""

    remedy = "Publish the workflow in the BrowserAct dashboard."
    not_processed = True


class TemplateNotFoundError(NotFoundError):
    """No such official template."""

    remedy = "Check workflow_template_id (BrowserActHook.iter_official_workflow_templates)."


class TaskNotFoundError(NotFoundError):
    """No such task, or not visible to this API key."""


class RegionNotFoundError(NotFoundError):
    """No such proxy region."""

    remedy = "Take a code from BrowserActHook.get_region_list."


class InvalidRequestError(BrowserActError):
    """BrowserAct refused the content of a call."""

    remedy = "Correct the arguments that the message names."
    not_processed = True


class MissingInputError(InvalidRequestError):
    """An input that the workflow requires was not given."""

    remedy = "Add the missing name to input_parameters; BrowserActHook.get_workflow lists what a workflow takes."


class ConcurrencyLimitError(BrowserActError):
    """As many tasks run as the plan allows, so nothing was started."""

    remedy = "Limit the runs with an Airflow pool of the plan's size (include deferred tasks), or enlarge the plan."
    temporary = True
    not_processed = True


class RateLimitError(BrowserActError):
    """Too many calls; the service asks for a pause."""

    temporary = True
    not_processed = True


class TaskEndedError(BrowserActError):
    """The task has already ended, so it cannot be stopped or resumed."""

    not_processed = True


class TaskNotPausedError(BrowserActError):
    """Only a paused task can be resumed."""

    not_processed = True


class ServerError(BrowserActError):
    """BrowserAct failed; whether it carried the call out is not known."""

    temporary = True


class ConnectionFailedError(BrowserActError):
    """No connection to the API, so the call did not arrive."""

    remedy = "Check the host of the Airflow connection, and that this machine reaches it (DNS, proxy, firewall)."
    temporary = True
    not_processed = True


class AnswerLostError(BrowserActError):
    """The call was sent but no whole answer came back; whether it was carried out is not known."""

    temporary = True


class UnexpectedAnswerError(BrowserActError):
    """The answer is JSON, but not what the API documents for this call."""

    remedy = "If BrowserAct changed its API, a newer version of the provider may know the answer."


class NotTheApiError(UnexpectedAnswerError):
    """The host answered, but with a page or a redirect: it is not BrowserAct's API."""

    remedy = "Set the host of the Airflow connection to the address of BrowserAct's API, or leave it empty."


class RunStartUnknownError(BrowserActError):
    """A call that starts a run ended without a usable answer: a run may go on, and may cost, without its id known."""

    remedy = (
        "Look at the newest tasks of the workflow in the BrowserAct dashboard (or BrowserActHook.iter_tasks) and stop "
        "the one that nobody waits for, before the Airflow task is cleared."
    )


NOTHING_TO_STOP = (TaskEndedError, TaskNotFoundError)
"""What BrowserAct answers where a task need not be stopped, since it does not go on."""

BY_CODE: dict[int, type[BrowserActError]] = {
    401: AuthenticationError,
    10013: RegionNotFoundError,
    10020: WorkflowNotPublishedError,
    10021: InvalidRequestError,
    10111: WorkflowNotFoundError,
    10112: TaskNotFoundError,
    10118: ConcurrencyLimitError,
    10121: TaskEndedError,
    10127: TaskNotPausedError,
    10142: MissingInputError,
    10143: MissingInputError,
    10176: TemplateNotFoundError,
    99001: InvalidRequestError,
    99002: PermissionDeniedError,
}
"""Which exception a code of the error envelope means."""


def error_class(http_status: int, code: int | None) -> type[BrowserActError]:
    """Choose the exception for an answer: by BrowserAct's code if it is a known one, else by the HTTP status."""
    if code in BY_CODE:
        return BY_CODE[code]
    if http_status == 401:
        return AuthenticationError
    if http_status == 403:
        return PermissionDeniedError
    if http_status == 429:
        return RateLimitError
    if http_status >= 500 or http_status == 408:
        return ServerError
    return NotTheApiError if code is None else InvalidRequestError

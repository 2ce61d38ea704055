"""What can go wrong with a call: one exception class per thing that a user can act on.

Nothing here carries a secret: not the API key, not a request's body, not a callback address.
"""

from __future__ import annotations

THE_CONNECTION = "the Airflow connection"
"""How a remedy refers to the connection. The text of an error adds the connection's id where that is known."""


class BrowserActError(Exception):
    """A call to BrowserAct did not succeed.

    ``str(error)`` has up to three lines: the reason, the remedy, and the codes. :attr:`brief` is one line.

    :param message: what happened, in one sentence.
    :param http_status: HTTP status of the answer, if there was one.
    :param code: BrowserAct's own code from the error envelope, if there was one.
    :param msg: BrowserAct's own words from the error envelope.
    :param trace_id: id that BrowserAct's support asks for.
    :param retry_after: seconds after which the service asked to be called again.
    :param remedy: what the user can do, in place of what the class says.
    :param connection: id of the Airflow connection that was used. The clients set it.
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
        remedy: str | None = None,
        connection: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        self.code = code
        self.msg = msg
        self.trace_id = trace_id
        self.retry_after = retry_after
        self.connection = connection
        if remedy is not None:
            self.remedy = remedy

    @property
    def started_nothing(self) -> bool:
        """Whether a start that failed with this error has surely started no run."""
        return self.not_processed

    @property
    def brief(self) -> str:
        """Reason and codes in one line, without the remedy and without a full stop, to be embedded in a sentence."""
        reason = self._reason.rstrip(".")
        return f"{reason} ({self._codes})" if self._codes else reason

    def __str__(self) -> str:
        reason = self._reason
        if not reason.endswith((".", "!", "?")):
            reason += "."
        remedy = self.remedy
        if self.connection is not None:
            remedy = remedy.replace(THE_CONNECTION, f"{THE_CONNECTION} {self.connection!r}")
        return "\n".join(line for line in (reason, remedy, self._codes) if line)

    @property
    def _reason(self) -> str:
        return " ".join(self.message.split())

    @property
    def _codes(self) -> str:
        named = (("code", self.code), ("HTTP", self.http_status), ("traceId", self.trace_id))
        return ", ".join(f"{name} {value}" for name, value in named if value is not None)


class AuthenticationError(BrowserActError):
    """The API key is missing, wrong or deleted."""

    remedy = (
        "Put a valid API key (BrowserAct dashboard: Integrations, Manage API Keys) into the API key (password) field "
        f"of {THE_CONNECTION}."
    )
    not_processed = True


class PermissionDeniedError(BrowserActError):
    """The API key is valid but may not do this."""

    remedy = (
        f"Put an API key of the account that owns the workflow into the API key (password) field of {THE_CONNECTION}."
    )
    not_processed = True


class NotFoundError(BrowserActError):
    """What an id names does not exist, or not for this API key."""

    remedy = "Check the id, and that it belongs to the account of the API key."
    not_processed = True


class WorkflowNotFoundError(NotFoundError):
    """No such workflow, or not visible to this API key."""

    remedy = (
        "Check workflow_id (dashboard, or BrowserActHook.iter_workflows), and that the API key is of the account that "
        "owns the workflow. If it is the id of an official template, use RunTemplateOperator."
    )


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


class UnknownRefusalError(BrowserActError):
    """BrowserAct refused a call with a code that its documentation does not list, or without any.

    It is not known whether BrowserAct carried out a part of the call, so a start is looked up and not sent again.
    """

    remedy = (
        "This version of the provider does not know the code. Read BrowserAct's reason above, or ask BrowserAct's "
        "support and quote the traceId."
    )


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

    remedy = (
        f"Check the host of {THE_CONNECTION} (field API address), and that this machine reaches it (DNS, proxy, "
        "firewall)."
    )
    temporary = True
    not_processed = True


class PlainHttpError(ConnectionFailedError):
    """The host does not speak TLS, although the address begins with ``https://``."""

    remedy = f"If the host does not use HTTPS, write http:// in front of the host of {THE_CONNECTION}."
    temporary = False


class UntrustedCertificateError(ConnectionFailedError):
    """This machine does not trust the certificate of the host."""

    remedy = (
        f"Check the host of {THE_CONNECTION} (field API address). If a private authority issued the certificate, set "
        "SSL_CERT_FILE or REQUESTS_CA_BUNDLE to a file with the certificates to trust, for workers, triggerers and API "
        "servers."
    )
    temporary = False


class ResponseLostError(BrowserActError):
    """The call was sent but no whole answer came back; whether it was carried out is not known."""

    temporary = True


class ResponseTooLargeError(BrowserActError):
    """The answer is larger than the caller accepts, so the rest of it was not read."""

    remedy = "Raise max_response, or make a call whose answer is smaller, such as get_task_status."


class UnexpectedResponseError(BrowserActError):
    """The answer is JSON, but not what the API documents for this call."""

    remedy = "If BrowserAct changed its API, a newer version of the provider may know the answer."


class NotTheApiError(UnexpectedResponseError):
    """The host answered, but with a page or a redirect: it is not BrowserAct's API."""

    remedy = (
        f"Set the host of {THE_CONNECTION} (field API address) to the address of BrowserAct's API, or leave it empty. "
        "If it is right, a proxy or a firewall between this machine and BrowserAct has answered."
    )

    @property
    def started_nothing(self) -> bool:
        """Return ``True``: whoever answered, it was not BrowserAct."""
        return True


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


def error_class(http_status: int, code: int | None, *, is_envelope: bool, is_page: bool) -> type[BrowserActError]:
    """Choose the exception for an answer: by BrowserAct's code if it is documented, else by the HTTP status.

    :param http_status: HTTP status of the answer.
    :param code: the code of the error envelope, where it is a number.
    :param is_envelope: whether the answer has anything of BrowserAct's error envelope, such as a code or a trace id.
    :param is_page: whether the answer is a web page, as of a firewall that knows nothing of API keys.
    """
    if code in BY_CODE:
        return BY_CODE[code]
    if http_status in (401, 403) and is_page:
        return NotTheApiError
    if http_status == 401:
        return AuthenticationError
    if http_status == 403:
        return PermissionDeniedError
    if http_status == 429:
        return RateLimitError
    if http_status >= 500 or http_status == 408:
        return ServerError
    return UnknownRefusalError if is_envelope else NotTheApiError

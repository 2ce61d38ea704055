"""Exceptions of the API: one class for each kind of error that a user can act on.

No exception contains a secret, such as the API key, the body of a request or a callback address.
"""

from __future__ import annotations

from urllib.parse import urlsplit

THE_CONNECTION = "the Airflow connection"
"""How a remedy refers to the connection. The text of an error adds the connection's id if it is known."""

AGAIN = (
    "If the call only reads, try again. Before you repeat a start, check the newest tasks (BrowserActHook.iter_tasks, "
    "or iter_bot_tasks for runs of bots)."
)
"""The remedy where it is not known whether BrowserAct processed a call."""


class BrowserActError(Exception):
    """A call to BrowserAct failed.

    ``str(error)`` has up to three lines: the reason, the remedy, and the codes. :attr:`brief` is one line.

    :param message: what happened, in one sentence.
    :param http_status: HTTP status of the response, if there was one.
    :param code: BrowserAct's own code from the error envelope, if there was one.
    :param msg: BrowserAct's own message from the error envelope.
    :param trace_id: id that BrowserAct's support asks for.
    :param retry_after: seconds to wait before the next call, as the response requires.
    :param remedy: what the user can do, instead of the remedy of the class.
    :param connection: id of the Airflow connection that was used. The clients set it.
    """

    remedy: str = ""
    """What the user can do."""

    temporary: bool = False
    """Whether the same call may succeed a little later without any change."""

    not_processed: bool = False
    """Whether BrowserAct certainly did not process the call, so that even a start may be sent again."""

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
        """Whether a start that failed with this error certainly started no run."""
        return self.not_processed

    @property
    def brief(self) -> str:
        """Reason and codes in one line, without the remedy and without a full stop, for use in a sentence."""
        reason = self._reason.rstrip(".")
        return f"{reason} ({self._codes})" if self._codes else reason

    @property
    def advice(self) -> str:
        """The remedy, with the id of the connection where it refers to the connection."""
        if self.connection is None:
            return self.remedy
        return self.remedy.replace(THE_CONNECTION, f"{THE_CONNECTION} {self.connection!r}")

    def __str__(self) -> str:
        reason = self._reason
        if not reason.endswith((".", "!", "?")):
            reason += "."
        return "\n".join(line for line in (reason, self.advice, self._codes) if line)

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
    """The id does not exist, or is not visible to this API key."""

    remedy = "Check the id, and that it belongs to the account of the API key."
    not_processed = True


class WorkflowNotFoundError(NotFoundError):
    """There is no such workflow, or it is not visible to this API key."""

    remedy = (
        "Check workflow_id (dashboard, or BrowserActHook.iter_workflows), and that the API key is of the account that "
        "owns the workflow. If it is the id of an official template, use RunTemplateOperator; if it is the id of a "
        "bot, use RunBotOperator."
    )


class WorkflowNotPublishedError(BrowserActError):
    """The workflow exists but was never published."""

    remedy = "Publish the workflow in the BrowserAct dashboard."
    not_processed = True


class TemplateNotFoundError(NotFoundError):
    """There is no such official template."""

    remedy = "Check workflow_template_id (BrowserActHook.iter_official_workflow_templates)."


class TaskNotFoundError(NotFoundError):
    """There is no such task, or it is not visible to this API key."""


class RegionNotFoundError(NotFoundError):
    """There is no such proxy region."""

    remedy = "Use a code from BrowserActHook.get_region_list."


class InvalidRequestError(BrowserActError):
    """BrowserAct refused the content of a call."""

    remedy = "Fix the arguments that the message names."
    not_processed = True


class UnknownRefusalError(BrowserActError):
    """BrowserAct refused a call with a code that its documentation does not list, or without a code.

    A start that is refused like this is not sent again. If the response is BrowserAct's error envelope with an HTTP
    status of 4xx, nothing was started. Otherwise this is not known, and operators look the run up first.
    """

    remedy = (
        "This version of the provider does not know the code. Read BrowserAct's reason above, or contact BrowserAct's "
        "support with the traceId."
    )


class InsufficientCreditsError(UnknownRefusalError):
    """BrowserAct refused a start, and its message is about credits. No code for this is documented."""

    remedy = (
        "If the account has no credits left, add some in the BrowserAct dashboard. Until then, BrowserAct refuses "
        "every start."
    )


class MissingInputError(InvalidRequestError):
    """An input that the workflow requires was not given."""

    remedy = "Add the missing name to input_parameters. BrowserActHook.get_workflow lists the inputs of a workflow."


class ConcurrencyLimitError(BrowserActError):
    """The plan has no free slot, so no run was started."""

    remedy = "Limit the runs with an Airflow pool of the plan's size (include deferred tasks), or upgrade the plan."
    temporary = True
    not_processed = True


class RateLimitError(BrowserActError):
    """There were too many calls; wait before the next one."""

    remedy = "Poll less often (poll_interval), or let fewer Airflow tasks run at once."
    temporary = True
    not_processed = True


class TaskEndedError(BrowserActError):
    """The task has already ended, so it cannot be stopped or resumed."""

    not_processed = True


class TaskNotPausedError(BrowserActError):
    """Only a paused task can be resumed."""

    not_processed = True


class ResumeNotSupportedError(BrowserActError):
    """BrowserAct resumes this task itself, so a call cannot resume it. That is so for runs of agent-built bots."""

    remedy = "Help the bot in the live view of the run. BrowserAct then continues the run by itself."
    not_processed = True


class BotNotReadyError(InvalidRequestError):
    """The language model of an agent-built bot is not configured."""

    remedy = "Open the bot in the BrowserAct dashboard, choose its language model, and test the bot there."


class ServerError(BrowserActError):
    """BrowserAct failed. It is not known whether it processed the call."""

    remedy = f"{AGAIN} If the error persists, contact BrowserAct's support."
    temporary = True


class ConnectionFailedError(BrowserActError):
    """No connection to the API could be opened, so the call was not sent."""

    remedy = (
        f"Check the host of {THE_CONNECTION} (field API address), and that this machine can reach it (DNS, proxy, "
        "firewall)."
    )
    temporary = True
    not_processed = True


class PlainHttpError(ConnectionFailedError):
    """The host does not use TLS, although the address begins with ``https://``."""

    remedy = f"If the host does not use HTTPS, write http:// in front of the host of {THE_CONNECTION}."
    temporary = False


class UntrustedCertificateError(ConnectionFailedError):
    """This machine does not trust the certificate of the host."""

    remedy = (
        f"Check the host of {THE_CONNECTION} (field API address). If a private authority issued the certificate, set "
        "REQUESTS_CA_BUNDLE on workers, triggerers and API servers to a file with all certificates to trust, also the "
        "public ones."
    )
    temporary = False


class ResponseLostError(BrowserActError):
    """The call was sent, but the complete response did not arrive. It is not known whether the call was processed."""

    remedy = f"{AGAIN} If responses need more time, raise read_timeout in the extra of {THE_CONNECTION}."
    temporary = True


class ResponseTooLargeError(BrowserActError):
    """The response is larger than the caller accepts, so the rest of it was not read."""

    remedy = (
        "Use a call with a smaller response, such as get_task_status, or let the workflow return less, for example by "
        "writing its output to a file."
    )


class UnexpectedResponseError(BrowserActError):
    """The response is not what the API documents for this call."""

    remedy = "If BrowserAct changed its API, a newer version of the provider may understand the response."


class NotTheApiError(UnexpectedResponseError):
    """The response is a page or a redirect, so it is not from BrowserAct's API."""

    remedy = (
        f"Set the host of {THE_CONNECTION} (field API address) to the address of BrowserAct's API, or leave it empty. "
        "If it is right, the response comes from a proxy or a firewall between this machine and BrowserAct."
    )

    @property
    def started_nothing(self) -> bool:
        """``True``, because the response is not from BrowserAct."""
        return True

    def name_address(self, base_url: str) -> None:
        """Add the address that was called to the message, and its path, if it has one, to the remedy."""
        self.message = f"{self.message} (API address {base_url})"
        if path := urlsplit(base_url).path.rstrip("/"):
            self.remedy = (
                f"Remove {path!r} from the host of {THE_CONNECTION} (field API address). If it is the path of a proxy "
                "of yours, check the proxy, because the response comes from there."
            )


class RunStartUnknownError(BrowserActError):
    """A call that starts a run got no usable response. A run may be running and using credits with an unknown id."""

    remedy = (
        "Check the newest tasks of the workflow or bot in the BrowserAct dashboard (or BrowserActHook.iter_tasks, or "
        "iter_bot_tasks for runs of bots), and stop the one that no Airflow task waits for, before you clear the "
        "Airflow task."
    )


NOTHING_TO_STOP = (TaskEndedError, TaskNotFoundError)
"""Errors of a stop that mean that the task is not running, so it need not be stopped."""

BY_CODE: dict[int, type[BrowserActError]] = {
    401: AuthenticationError,
    10013: RegionNotFoundError,
    10020: WorkflowNotPublishedError,
    10021: BotNotReadyError,
    10111: WorkflowNotFoundError,
    10112: TaskNotFoundError,
    10118: ConcurrencyLimitError,
    10121: TaskEndedError,
    10127: TaskNotPausedError,
    10142: MissingInputError,
    10143: MissingInputError,
    10176: TemplateNotFoundError,
    10879: ResumeNotSupportedError,
    99001: InvalidRequestError,
    99002: PermissionDeniedError,
}
"""The exception for each code of the error envelope."""


def error_class(http_status: int, code: int | None, *, is_envelope: bool, is_page: bool) -> type[BrowserActError]:
    """Return the exception class for a response, by BrowserAct's code if it is documented, or by the HTTP status.

    :param code: the code of the error envelope, if it is a number.
    :param is_envelope: whether the response has any part of BrowserAct's error envelope, such as a code or a trace id.
    :param is_page: whether the response is a web page, for example of a firewall.
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

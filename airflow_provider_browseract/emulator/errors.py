"""The errors of the API."""

from __future__ import annotations

from enum import Enum


class Code(Enum):
    """The codes of errors, each with its message on API v2 and, if that differs, on API v3."""

    UNAUTHORIZED = 401, "Invalid authorization"
    TOO_MANY_REQUESTS = 429, "Too many requests."
    REGION_UNKNOWN = 10013, "Proxy region does not exist."
    NOT_PUBLISHED = 10020, "Workflow is not published.", "Bot is not published"
    NOT_CONFIGURED = 10021, "Agent bot LLM configuration is incomplete"
    WORKFLOW_UNKNOWN = 10111, "Workflow does not exist or is not visible.", "Bot does not exist or is not visible"
    TASK_UNKNOWN = 10112, "Task is not exist."
    TOO_MANY_RUNNING = 10118, "Running tasks number exceeds."
    TASK_ENDED = 10121, "Task has completed."
    NOT_PAUSED = 10127, "Task resume only use for paused task"
    INPUT_MISSING = 10142, "Required input is missing.", "Required Bot input is missing"
    AGENT_INPUT_MISSING = 10143, "Required agent bot input is missing"
    TEMPLATE_UNKNOWN = 10176, "Workflow template does not exist.", "Bot template does not exist"
    RESUME_NOT_SUPPORTED = 10879, "Agent bot runs do not support resume"
    # The next two codes and messages are invented, because they are not documented.
    BROWSER_BUSY = 90001, "A Standard Browser allows only one active task at a time."
    NO_CREDITS = 90002, "Insufficient credits."
    PARAMETER_ERROR = 99001, "Request parameter error"
    NOT_PERMITTED = 99002, "No operation permission"


class ApiError(Exception):
    """An error for which the response is the error envelope of the API: a code, and what follows its message."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


def parameter_error(message: str) -> ApiError:
    """Return the error for a request that cannot be understood."""
    return ApiError(Code.PARAMETER_ERROR, f": {message}")


def message_of(code: int, version: str) -> str | None:
    """Return the message that a version of the API (``v2`` or ``v3``) has for a code, if the code is known."""
    known = next((each.value for each in Code if each.value[0] == code), None)
    return None if known is None else known[-1] if version == "v3" else known[1]

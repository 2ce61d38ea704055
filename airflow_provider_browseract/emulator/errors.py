"""The errors of the API."""

from __future__ import annotations

import secrets
from typing import Any

from airflow_provider_browseract.emulator.times import iso, milliseconds, utc

UNAUTHORIZED = 401
TOO_MANY_REQUESTS = 429
REGION_UNKNOWN = 10013
NOT_PUBLISHED = 10020
NOT_CONFIGURED = 10021
WORKFLOW_UNKNOWN = 10111
TASK_UNKNOWN = 10112
TOO_MANY_RUNNING = 10118
TASK_ENDED = 10121
NOT_PAUSED = 10127
INPUT_MISSING = 10142
AGENT_INPUT_MISSING = 10143
TEMPLATE_UNKNOWN = 10176
RESUME_NOT_SUPPORTED = 10879
BROWSER_BUSY = 90001
NO_CREDITS = 90002
PARAMETER_ERROR = 99001

MESSAGES = {
    UNAUTHORIZED: "Invalid authorization",
    TOO_MANY_REQUESTS: "Too many requests.",
    REGION_UNKNOWN: "Proxy region does not exist.",
    NOT_CONFIGURED: "Agent bot LLM configuration is incomplete",
    NOT_PUBLISHED: "Workflow is not published.",
    WORKFLOW_UNKNOWN: "Workflow does not exist or is not visible.",
    TASK_UNKNOWN: "Task is not exist.",
    TOO_MANY_RUNNING: "Running tasks number exceeds.",
    TASK_ENDED: "Task has completed.",
    NOT_PAUSED: "Task resume only use for paused task",
    INPUT_MISSING: "Required input is missing.",
    AGENT_INPUT_MISSING: "Required agent bot input is missing",
    TEMPLATE_UNKNOWN: "Workflow template does not exist.",
    RESUME_NOT_SUPPORTED: "Agent bot runs do not support resume",
    # The next two codes and messages are invented, because they are not documented.
    BROWSER_BUSY: "A Standard Browser allows only one active task at a time.",
    NO_CREDITS: "Insufficient credits.",
    PARAMETER_ERROR: "Request parameter error",
    99002: "No operation permission",
}
BOT_MESSAGES = {
    **MESSAGES,
    NOT_PUBLISHED: "Bot is not published",
    WORKFLOW_UNKNOWN: "Bot does not exist or is not visible",
    INPUT_MISSING: "Required Bot input is missing",
    TEMPLATE_UNKNOWN: "Bot template does not exist",
}
"""Messages of API v3."""


class ApiError(Exception):
    """An error for which the response is the error envelope of the API.

    :param code: the ``code`` of the envelope
    :param message: its ``msg``. Default: the message that BrowserAct has for the code
    """

    def __init__(self, code: int, message: str | None = None) -> None:
        self.code = code
        self.message = MESSAGES[code] if message is None else message
        super().__init__(f"{code}: {self.message}")


def parameter_error(message: str) -> ApiError:
    """Return the error for a request that cannot be understood."""
    return ApiError(PARAMETER_ERROR, f"{MESSAGES[PARAMETER_ERROR]}: {message}")


def error_envelope(code: int, message: str, now: float, *, as_in_the_demos: bool = False) -> dict[str, Any]:
    """Return the body of an error response, in the form of the vendor's examples or of its document."""
    return {
        "code": code,
        "msg": message,
        "data": None if as_in_the_demos else {},
        "ts": milliseconds(now),
        "time": f"{utc(now):%Y-%m-%d %H:%M:%S}" if as_in_the_demos else iso(now),
        "traceId": secrets.token_hex(16),
    }

import inspect
import pickle

import pytest

from airflow_provider_browseract import exceptions as errors
from tests.helpers.cases import cases

EVERY_CLASS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.BrowserActError)
]


REASON = "BrowserAct refused run-task: Invalid authorization"
REMEDY = (
    "Put a valid API key (BrowserAct dashboard: Integrations, Manage API Keys) into the API key (password) field of "
    "the Airflow connection"
)
CODES = "code 401, HTTP 401, traceId abc"


def refused(**facts) -> errors.AuthenticationError:
    return errors.AuthenticationError(REASON, http_status=401, code=401, trace_id="abc", **facts)


@cases(
    ("all parts", refused(), f"{REASON}.\n{REMEDY}.\n{CODES}", f"{REASON} ({CODES})"),
    ("connection", refused(connection="prod"), f"{REASON}.\n{REMEDY} 'prod'.\n{CODES}", f"{REASON} ({CODES})"),
    ("lines", errors.TaskEndedError("Already\nended."), "Already ended.", "Already ended"),
    ("HTTP status", errors.TaskEndedError("No", http_status=503), "No.\nHTTP 503", "No (HTTP 503)"),
    ("other remedy", errors.ConnectionFailedError("Refused", remedy="Wait."), "Refused.\nWait.", "Refused"),
    ("question", errors.TaskEndedError("Really?"), "Really?", "Really?"),
)
def test_error_text_has_reason_remedy_and_codes_and_the_brief_one_no_remedy_and_no_full_stop(error, text, brief):
    assert (str(error), error.brief) == (text, brief)


@pytest.mark.parametrize("kind", EVERY_CLASS)
def test_every_error_survives_pickling(kind):
    error = kind("words", http_status=400, code=7, remedy="Do that.", connection="browseract_prod")
    assert error.args == ("words",)
    error.not_processed = not kind.not_processed
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.not_processed) == (kind, str(error), error.not_processed)

from __future__ import annotations

import inspect
import pickle

import pytest

from airflow_provider_browseract.api import errors

EVERY_CLASS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.BrowserActError)
]


def refused_key(**facts) -> errors.AuthenticationError:
    facts = {"http_status": 401, "code": 401, "trace_id": "abc", **facts}
    return errors.AuthenticationError("BrowserAct refused run-task: Invalid authorization", **facts)


def test_error_text_has_reason_remedy_and_codes_on_separate_lines():
    assert str(refused_key()).splitlines() == [
        "BrowserAct refused run-task: Invalid authorization.",
        "Put a valid API key (BrowserAct dashboard: Integrations, Manage API Keys) into the API key (password) field "
        "of the Airflow connection.",
        "code 401, HTTP 401, traceId abc",
    ]


def test_error_remedy_names_the_connection_when_it_is_known():
    error = refused_key(connection="browseract_prod")
    assert "field of the Airflow connection 'browseract_prod'." in str(error)
    error.connection = "browseract_test"
    assert "field of the Airflow connection 'browseract_test'." in str(error)
    assert error.advice in str(error)
    assert refused_key().advice == errors.AuthenticationError.remedy


def test_brief_error_text_is_one_line_without_remedy_and_full_stop():
    assert refused_key().brief == (
        "BrowserAct refused run-task: Invalid authorization (code 401, HTTP 401, traceId abc)"
    )
    assert errors.ResponseLostError("No whole\nanswer.").brief == "No whole answer"


def test_missing_parts_of_an_error_text_leave_no_empty_line():
    assert str(errors.TaskEndedError("Already\nended.")) == "Already ended."
    assert str(errors.TaskEndedError("Failed", http_status=503)) == "Failed.\nHTTP 503"
    assert str(errors.InvalidRequestError("Really?")).splitlines()[0] == "Really?"
    assert str(errors.InvalidRequestError("Really!")).splitlines()[0] == "Really!"


def test_explicit_remedy_replaces_the_remedy_of_the_error_class():
    assert str(errors.ConnectionFailedError("Refused", remedy="Wait.")) == "Refused.\nWait."


@pytest.mark.parametrize("kind", EVERY_CLASS)
def test_every_error_survives_pickling(kind):
    error = kind("words", http_status=400, code=7, remedy="Do that.", connection="browseract_prod")
    assert error.args == ("words",)
    error.not_processed = not kind.not_processed
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.not_processed) == (kind, str(error), error.not_processed)


@pytest.mark.parametrize("kind", EVERY_CLASS)
def test_no_remedy_names_the_password_field_by_another_label(kind):
    assert "password field" not in kind.remedy.replace("API key (password) field", "")


def test_unknown_refusal_is_mapped_to_no_documented_error_code():
    assert errors.UnknownRefusalError not in errors.BY_CODE.values()
    assert errors.UnknownRefusalError.not_processed is False
    assert errors.UnknownRefusalError.temporary is False

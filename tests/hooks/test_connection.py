from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.models.connection import Connection as ModelConnection
from airflow.sdk import Connection

from airflow_provider_browseract.hooks import connection
from airflow_provider_browseract.hooks.connection import (
    ConnectionFieldError,
    connection_type,
    extra_fields,
    no_connection,
    read_settings,
)
from airflow_provider_browseract.runs.budget import Budget, BudgetAction
from tests.cases import cases


def read_all(**fields):
    extra = fields.pop("extra", None)
    stored = Connection(
        conn_type="browseract",
        extra=json.dumps(extra) if extra else None,
        **{"conn_id": "browseract_default", "password": "app-key", **fields},
    )
    return read_settings(stored, user_agent="test")


def read(**fields):
    return read_all(**fields).client


def test_connection_with_only_api_key_uses_default_host_and_timeouts():
    settings = read()
    assert (settings.api_key, settings.base_url) == ("app-key", "https://api.browseract.com")
    assert (settings.connect_timeout, settings.read_timeout, settings.retries.budget) == (10, 30, 60)


@cases(
    ("fields", "url"),
    {
        "host": ({"host": "https://api.example.com"}, "https://api.example.com"),
        "trailing slash": ({"host": "https://api.example.com/"}, "https://api.example.com"),
        "host without scheme": ({"host": "api.example.com"}, "https://api.example.com"),
        "host with port": ({"host": "http://127.0.0.1:8010"}, "http://127.0.0.1:8010"),
        "separate host, port and schema": (
            {"host": "127.0.0.1", "port": 8010, "schema": "http"},
            "http://127.0.0.1:8010",
        ),
        "host with path, and port": (
            {"host": "https://gateway.example.com/browseract", "port": 8443},
            "https://gateway.example.com:8443/browseract",
        ),
        "default port": ({"port": 443}, "https://api.browseract.com"),
        "port 0": ({"port": 0}, "https://api.browseract.com"),
        "other port": ({"port": 8443}, "https://api.browseract.com:8443"),
        "port in host before port 443": ({"host": "http://127.0.0.1:8010", "port": 443}, "http://127.0.0.1:8010"),
        "http with port 80": ({"host": "http://gateway.example.com", "port": 80}, "http://gateway.example.com"),
    },
)
def test_host_port_and_schema_fields_set_the_api_address(fields, url):
    assert read(**fields).base_url == url


@pytest.mark.parametrize(
    "host",
    [
        "ftp://x.example",
        "https://",
        "https://a:b@x.example",
        "https://:b@x.example",
        "https://x.example?y=1",
        "x example",
        "http://x:port",
    ],
)
def test_invalid_host_raises_error_naming_the_host_field(host):
    with pytest.raises(
        ConnectionFieldError, match=r"(?s)the host is not an http or https address.*API address \(host\) field"
    ):
        read(host=host)


@pytest.mark.parametrize("password", [None, "", "  "], ids=["no password", "empty", "spaces"])
def test_missing_api_key_raises_error_saying_where_to_create_one(password):
    expected = r"(?s)'browseract_default' has no API key.*Manage API Keys\) into its API key \(password\) field"
    with pytest.raises(ConnectionFieldError, match=expected):
        read(password=password)


@cases("password", {"Bearer prefix": "Bearer app-key", "line break": "app\nkey", "non-ASCII": "schlüssel"})
def test_malformed_api_key_is_refused_and_not_repeated_in_the_error(password):
    with pytest.raises(ConnectionFieldError, match=r"API key \(password\) field is not an API key") as caught:
        read(password=password)
    assert password not in str(caught.value)


def test_missing_connection_message_names_the_api_key_form_field():
    assert "'nowhere'.\nAdd one of type BrowserAct with the API key in its API key (password) field" in no_connection(
        "nowhere"
    )


@pytest.fixture
def fresh_process(monkeypatch):
    """Forget the warnings that this process has logged."""
    monkeypatch.setattr(connection, "_warned", set())


def logged(caplog):
    return [record.getMessage() for record in caplog.records if record.name == connection.__name__]


class TestSizeLimits:
    def test_size_limits_default_to_those_of_browseract(self):
        client = read()
        assert (client.max_file_size, client.max_run_size) == (50 * 1024 * 1024, 100 * 50 * 1024 * 1024)

    @pytest.mark.parametrize("value", [1000, "1000"], ids=["number", "text"])
    def test_size_limits_in_bytes_are_read_from_number_or_text(self, value):
        client = read(extra={"max_file_size": value, "max_run_size": value})
        assert (client.max_file_size, client.max_run_size) == (1000, 1000)

    @pytest.mark.parametrize("value", [0, -1, 1.5, True, "1e3", "50 MB"])
    def test_invalid_max_file_size_raises_error_naming_the_extra_field(self, value):
        with pytest.raises(ConnectionFieldError, match=r"extra 'max_file_size' is .* positive whole number of bytes"):
            read(extra={"max_file_size": value})


class TestBudget:
    def test_connection_without_budget_has_none_and_the_documented_cost_of_a_step(self):
        settings = read_all(extra={"budget_action": "warn"})
        assert (settings.budget, settings.credits_per_step) == (None, 5)

    @pytest.mark.parametrize("value", [2000, "2000"], ids=["number", "text"])
    @pytest.mark.parametrize("name", ["daily_credits", "monthly_credits"])
    def test_one_field_sets_a_budget_that_refuses(self, name, value):
        limits: Any = {name: 2000}
        assert read_all(extra={name: value}).budget == Budget("browseract_default", **limits)

    def test_budget_has_both_limits_and_the_action(self):
        extra = {"daily_credits": 100, "monthly_credits": "2000", "budget_action": "warn"}
        assert read_all(conn_id="prod", extra=extra).budget == Budget("prod", 100, 2000, BudgetAction.WARN)

    @pytest.mark.parametrize("value", [0, "0"])
    def test_credits_per_step_can_be_0_to_count_only_reported_credits(self, value):
        assert read_all(extra={"credits_per_step": value}).credits_per_step == 0

    @pytest.mark.parametrize("value", [0, "0", -1, 1.5, True, "abc", "1e3", "2,000", [1], 10**18], ids=str)
    @pytest.mark.parametrize("name", ["daily_credits", "monthly_credits"])
    def test_budget_that_is_no_number_of_credits_raises_error_naming_the_extra_field(self, name, value):
        with pytest.raises(ConnectionFieldError) as caught:
            read_all(extra={name: value})
        assert str(caught.value) == (
            f"Connection 'browseract_default': extra {name!r} is {value!r}. Set it to a positive whole number of "
            "credits."
        )

    @pytest.mark.parametrize("value", [-1, 0.5, True, "abc", 10**6], ids=str)
    def test_cost_of_a_step_that_is_no_number_of_credits_raises_error_naming_the_extra_field(self, value):
        wanted = "a whole number of credits, or 0 to count only the credits that BrowserAct reports"
        with pytest.raises(ConnectionFieldError, match=rf"extra 'credits_per_step' is .*\. Set it to {wanted}\."):
            read_all(extra={"credits_per_step": value})

    @pytest.mark.parametrize("value", ["fail", "Refuse", " warn", 1, True, ["warn"]], ids=str)
    def test_unknown_budget_action_raises_error_with_the_known_ones(self, value):
        with pytest.raises(ConnectionFieldError, match=r"extra 'budget_action' is .*\. Set it to refuse or warn\."):
            read_all(extra={"daily_credits": 1, "budget_action": value})

    def test_form_has_a_choice_and_minimums_and_every_field_can_be_left_empty(self):
        schemas = {name: field["schema"] for name, field in connection_type()["conn-fields"].items()}
        assert schemas["budget_action"] == {"type": ["string", "null"], "enum": ["refuse", "warn"]}
        assert schemas["daily_credits"] == {"type": ["integer", "null"], "minimum": 1}
        assert schemas["credits_per_step"] == {"type": ["integer", "null"], "minimum": 0}

    @pytest.mark.parametrize("nothing", [None, ""], ids=["null", "empty text"])
    def test_empty_field_of_the_form_counts_as_missing(self, nothing):
        fields = ("daily_credits", "monthly_credits", "budget_action", "credits_per_step")
        assert read_all(extra=dict.fromkeys(fields, nothing)) == read_all()


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize(
    ("host", "warned"),
    [
        ("http://api.browseract.com", True),
        ("https://api.browseract.com", False),
        ("http://127.0.0.1:8010", False),
        ("http://gateway.internal", False),
    ],
)
def test_only_public_host_without_tls_gives_unencrypted_warning(caplog, host, warned):
    read_all(host=host)
    assert ("sent unencrypted" in caplog.text) is warned


@pytest.mark.usefixtures("fresh_process")
class TestUnknownExtraKeys:
    def test_unknown_extra_key_warning_suggests_similar_key_and_lists_known_keys(self, caplog):
        read_all(extra={"webhook_url": "https://airflow.example.com"})
        [warning] = logged(caplog)
        assert warning.startswith("Connection 'browseract_default': ")
        assert "'webhook_url' (did you mean 'webhook_base_url'?)" in warning
        assert (
            "Known keys: webhook_base_url, daily_credits, monthly_credits, budget_action, credits_per_step, "
            "connect_timeout, read_timeout, retry_budget, files_timeout, max_file_size, max_run_size." in warning
        )

    def test_unknown_extra_keys_without_similar_key_are_listed_without_suggestion(self, caplog):
        read_all(extra={"colour": 1, "x": 2})
        assert "unknown keys, which are ignored: 'colour', 'x'. Known" in caplog.text

    def test_unknown_extra_key_warning_is_logged_once_per_connection(self, caplog):
        for conn_id in ("one", "one", "two"):
            read_all(conn_id=conn_id, extra={"webhook_url": "x"})
        assert [message.partition(":")[0] for message in logged(caplog)] == ["Connection 'one'", "Connection 'two'"]

    def test_value_of_unknown_extra_key_is_not_in_the_log(self, caplog):
        read_all(extra={"token": "hunter2"})
        assert "'token'" in caplog.text
        assert "hunter2" not in caplog.text

    def test_extra_without_unknown_keys_gives_no_warning(self, caplog):
        numbers = {name: 1 for name, field in extra_fields().items() if field["type"] != "string"}
        read_all(extra=numbers)
        read_all()
        assert logged(caplog) == []


@cases(
    "none",
    {"no extra": None, "empty extra": {}, "null": {"webhook_base_url": None}, "empty text": {"webhook_base_url": ""}},
)
def test_missing_or_empty_webhook_base_url_is_read_as_none(none):
    assert read_all(extra=none).webhook_base_url is None


def test_webhook_base_url_is_read_unchanged_except_for_outer_spaces():
    extra = {"webhook_base_url": " https://airflow.example.com/team-a/ "}
    assert read_all(extra=extra).webhook_base_url == "https://airflow.example.com/team-a/"


def test_webhook_base_url_that_is_not_text_raises_connection_field_error():
    with pytest.raises(ConnectionFieldError, match="'webhook_base_url' is 8080"):
        read_all(extra={"webhook_base_url": 8080})


def test_whitespace_around_api_key_is_removed():
    assert read(password=" app-key\n").api_key == "app-key"


def test_timeouts_are_read_from_number_and_text():
    settings = read(extra={"connect_timeout": 3, "read_timeout": "4.5", "retry_budget": None})
    assert (settings.connect_timeout, settings.read_timeout, settings.retries.budget) == (3, 4.5, 60)


@pytest.mark.parametrize("name", ["read_timeout", "retry_budget"])
@pytest.mark.parametrize("value", [0, -1, "soon", True, [1], 1e9, float("nan")], ids=str)
def test_invalid_number_of_seconds_raises_error_naming_the_extra_field(name, value):
    with pytest.raises(ConnectionFieldError, match=rf"extra '{name}' is .*\. Set it to a positive number of seconds\."):
        read(extra={name: value})


def test_client_settings_contain_the_connection_id():
    assert read(conn_id="browseract_prod").connection == "browseract_prod"


@cases(
    "text",
    {
        "URI": "browseract://:app-key@",
        "URI with timeout": "browseract://:app-key@/?read_timeout=4",
        "URI with host and timeout": "browseract://:app-key@127.0.0.1:8010/http?read_timeout=4",
        "URI with encoded host": "browseract://:app-key@http%3A%2F%2F127.0.0.1%3A8010",
        "JSON": '{"conn_type": "browseract", "password": "app-key"}',
        "JSON with host and timeout": '{"conn_type": "browseract", "password": "app-key", '
        '"host": "http://127.0.0.1:8010", "extra": {"read_timeout": 4}}',
    },
)
def test_worker_and_api_server_read_the_same_settings_from_uri_or_json(text, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", text)
    in_worker = read_settings(Connection.get("browseract_default"), user_agent="test")
    in_server = read_settings(
        ModelConnection.get_connection_from_secrets("browseract_default"),
        user_agent="test",
    )
    assert in_worker == in_server
    assert in_worker.client.api_key == "app-key"
    assert in_worker.client.base_url in ("https://api.browseract.com", "http://127.0.0.1:8010")
    assert in_worker.client.read_timeout == (4 if "read_timeout" in text else 30)

import json
from typing import Any

import pytest
from airflow.models.connection import Connection as ModelConnection
from airflow.sdk import Connection

from airflow_provider_browseract.api.settings import EXTRA_FIELDS, Settings
from airflow_provider_browseract.exceptions import ConnectionFieldError
from airflow_provider_browseract.hooks import connection
from airflow_provider_browseract.hooks.connection import budget_of, read_settings
from airflow_provider_browseract.spending.budget import Budget
from tests.helpers.cases import cases

ADDRESS = "https://airflow.example.com/team-a/"


def read(**fields) -> Settings:
    extra = fields.pop("extra", None)
    stored = Connection(
        conn_type="browseract",
        extra=json.dumps(extra) if extra else None,
        **{"conn_id": "browseract_default", "password": "app-key", **fields},
    )
    return read_settings(stored)


@pytest.mark.parametrize("extra", ["daily_credits=5", "[1]", '"text"', "5"])
def test_extra_that_is_no_json_object_is_refused_because_a_budget_in_it_would_be_none(extra):
    stored = Connection(conn_id="browseract_default", conn_type="browseract", password="app-key", extra=extra)
    with pytest.raises(ConnectionFieldError, match="the extra is not a JSON object"):
        read_settings(stored)


@cases(
    ("key as host", "app-hunter2", "the API address"),
    ("domain", "api.example.com", "https://api.example.com"),
    ("host and port", "emulator:8010", "https://emulator:8010"),
    ("localhost", "localhost", "https://localhost"),
)
def test_message_does_not_show_a_host_that_may_be_the_api_key(host, shown):
    assert read(host=host).shown_url == shown


def test_connection_with_only_an_api_key_which_may_have_spaces_around_it_has_the_defaults():
    settings = read(password=" app-key\n")
    assert (settings.api_key, settings.base_url) == ("app-key", "https://api.browseract.com")
    assert (settings.connect_timeout, settings.read_timeout, settings.retry_budget) == (10, 30, 60)
    assert (budget_of(settings), settings.webhook_base_url) == (None, None)


@cases(
    ("trailing slash", {"host": "https://api.example.com/"}, "https://api.example.com"),
    ("host without scheme", {"host": "api.example.com"}, "https://api.example.com"),
    ("host with port", {"host": "http://127.0.0.1:8010"}, "http://127.0.0.1:8010"),
    ("host, port and schema", {"host": "127.0.0.1", "port": 8010, "schema": "http"}, "http://127.0.0.1:8010"),
    ("path and port", {"host": "https://x.example.com/a", "port": 8443}, "https://x.example.com:8443/a"),
    ("default port", {"port": 443}, "https://api.browseract.com"),
    ("port 0", {"port": 0}, "https://api.browseract.com"),
    ("port in host before port 443", {"host": "http://127.0.0.1:8010", "port": 443}, "http://127.0.0.1:8010"),
    ("http with port 80", {"host": "http://gateway.example.com", "port": 80}, "http://gateway.example.com"),
)
def test_host_port_and_schema_fields_set_the_api_address(fields, url):
    assert read(**fields).base_url == url


@cases(
    *((f"{empty!r} in all", dict.fromkeys(EXTRA_FIELDS, empty), {}) for empty in (None, "")),
    ("timeouts", {"connect_timeout": 3, "read_timeout": "4.5"}, {"connect_timeout": 3.0, "read_timeout": 4.5}),
    ("retry budget", {"retry_budget": "4"}, {"retry_budget": 4.0}),
    ("webhook_base_url with spaces", {"webhook_base_url": f" {ADDRESS} "}, {"webhook_base_url": ADDRESS}),
)
def test_extra_is_read_from_numbers_and_texts(extra, read_as):
    wanted = Settings(api_key="app-key", user_agent=read().user_agent, connection="browseract_prod", **read_as)
    assert read(conn_id="browseract_prod", extra=extra) == wanted


@cases(
    ("none", {}, None),
    *((f"{value!r} a day", {"daily_credits": value}, Budget("prod", 2000)) for value in (2000, "2000")),
    ("a month", {"monthly_credits": "2000"}, Budget("prod", None, 2000)),
    ("both", {"daily_credits": 100, "monthly_credits": "2000"}, Budget("prod", 100, 2000)),
)
def test_budget_has_the_limits_of_the_connection(extra, budget):
    assert budget_of(read(conn_id="prod", extra=extra)) == budget


NO_HOSTS = [
    *("ftp://x.example", "https://", "https://a:b@x.example", "https://:b@x.example", "https://x.example?y=1"),
    *("x example", "http://x:port"),
]


@cases(
    *(
        (host, {"host": host}, r"(?s)the host is not an http or https address.*API address \(host\) field")
        for host in NO_HOSTS
    ),
    *(
        (
            f"key {key!r}",
            {"password": key},
            r"(?s)'browseract_default' has no API key.*Manage API Keys\) into its API key \(password\) field",
        )
        for key in (None, "", "  ")
    ),
    *(
        (f"key {key!r}", {"password": key}, r"API key \(password\) field is not an API key")
        for key in ("Bearer app-key", "app\nkey", "schlüssel")
    ),
)
def test_host_or_key_that_cannot_be_used_is_refused_without_repeating_the_key(fields, words):
    with pytest.raises(ConnectionFieldError, match=words) as caught:
        read(**fields)
    key = (fields.get("password") or "").strip()
    assert not key or key not in str(caught.value)


POSITIVE, WHOLE = "greater than 0.", "a valid integer"
WRONG: dict[tuple[str, ...], dict[str, list[Any]]] = {
    ("read_timeout", "retry_budget"): {
        **{POSITIVE: [0, -1], "a valid number": ["soon", [1]], "be a number.": [True]},
        "less than or equal to 31622400.": [1e9, float("nan")],
    },
    ("daily_credits", "monthly_credits"): {
        **{POSITIVE: [0, "0", -1], WHOLE: [1.5, "abc", "1e3", "2,000", [1]], "be a number.": [True]},
        "less than 1000000000000000000.": [10**18],
    },
    ("webhook_base_url",): {"a valid string.": [8080]},
}


WRONG_VALUES = [
    (name, value, words) for names, all_ in WRONG.items() for name in names for words in all_ for value in all_[words]
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG_VALUES, ids=str)
def test_value_in_the_extra_that_cannot_be_used_is_refused_without_being_shown(name, value, words):
    with pytest.raises(ConnectionFieldError) as caught:
        read(extra={name: value})
    said = str(caught.value)
    assert said.startswith(f"Connection 'browseract_default': extra {name!r}: ")
    assert words in said
    assert not isinstance(value, str) or value == "0" or value not in said


class TestWarnings:
    @pytest.fixture
    def logged(self, caplog):
        """Read connections in a process that has logged no warning, and return the warnings."""
        connection._warn_once.cache_clear()

        def logged(*several) -> list[str]:
            for fields in several:
                read(**fields)
            return [record.getMessage() for record in caplog.records if record.name == connection.__name__]

        return logged

    @cases(
        ("public host without TLS", {"host": "http://api.browseract.com"}, "sent unencrypted"),
        (
            "other keys",
            {"extra": {"token": "hunter2", "x": 2}},
            "The extra has unknown keys: 'token', 'x'. Polls and stops ignore them. New runs are refused until",
        ),
        ("API key as a key", {"extra": {"app-hunter2": ""}}, "unknown keys: one that is not a name. Polls"),
    )
    def test_warning_about_a_connection_names_what_is_probably_wrong_but_no_value(self, logged, caplog, fields, words):
        [warning] = logged(fields)
        assert warning.startswith("Connection 'browseract_default': ")
        assert words in warning
        assert "hunter2" not in caplog.text

    @cases(
        ("nothing else", {}),
        ("this machine", {"host": "http://127.0.0.1:8010"}),
        ("private host", {"host": "http://gateway.internal"}),
        ("every number", {"extra": dict.fromkeys(EXTRA_FIELDS.keys() - {"webhook_base_url"}, 1)}),
    )
    def test_good_connection_gives_no_warning(self, logged, fields):
        assert logged(fields) == []

    def test_warning_is_logged_once_per_connection(self, logged):
        found = logged(*({"conn_id": conn_id, "extra": {"webhook_url": "x"}} for conn_id in ("one", "one", "two")))
        assert [message.partition(":")[0] for message in found] == ["Connection 'one'", "Connection 'two'"]


@cases(
    "text",
    {
        "URI": "browseract://:app-key@",
        "URI with host and timeout": "browseract://:app-key@127.0.0.1:8010/http?read_timeout=4",
        "URI with encoded host": "browseract://:app-key@http%3A%2F%2F127.0.0.1%3A8010",
        "JSON with host and timeout": '{"conn_type": "browseract", "password": "app-key", '
        '"host": "http://127.0.0.1:8010", "extra": {"read_timeout": 4}}',
    },
)
def test_worker_and_api_server_read_the_same_settings_from_uri_or_json(text, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", text)
    stored = Connection.get("browseract_default"), ModelConnection.get_connection_from_secrets("browseract_default")
    in_worker, in_server = (read_settings(each) for each in stored)
    assert in_worker == in_server
    assert in_worker.api_key == "app-key"
    assert in_worker.base_url == ("http://127.0.0.1:8010" if "8010" in text else "https://api.browseract.com")
    assert in_worker.read_timeout == (4 if "read_timeout" in text else 30)


def test_example_for_a_connection_that_cannot_be_read_has_only_what_is_to_be_replaced(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", "x")
    assert """'{"conn_type": "browseract", "password": "app-..."}'""" in connection.no_connection("shop")

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from airflow.models.connection import Connection as ModelConnection
from airflow.sdk import Connection

from airflow_provider_browseract.hooks import connection
from airflow_provider_browseract.hooks.connection import (
    EXTRA_FIELDS,
    ConnectionFieldError,
    no_connection,
    read_settings,
)


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


def test_a_key_alone_is_enough():
    settings = read()
    assert (settings.api_key, settings.base_url) == ("app-key", "https://api.browseract.com")
    assert (settings.connect_timeout, settings.read_timeout, settings.retries.budget) == (10, 30, 60)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "https://api.example.com"}, "https://api.example.com"),
        ({"host": "https://api.example.com/"}, "https://api.example.com"),
        ({"host": "api.example.com"}, "https://api.example.com"),
        ({"host": "http://127.0.0.1:8010"}, "http://127.0.0.1:8010"),
        ({"host": "127.0.0.1", "port": 8010, "schema": "http"}, "http://127.0.0.1:8010"),
        (
            {"host": "https://gateway.example.com/browseract", "port": 8443},
            "https://gateway.example.com:8443/browseract",
        ),
        ({"port": 443}, "https://api.browseract.com"),
        ({"port": 0}, "https://api.browseract.com"),
        ({"port": 8443}, "https://api.browseract.com:8443"),
        ({"host": "http://127.0.0.1:8010", "port": 443}, "http://127.0.0.1:8010"),
        ({"host": "http://gateway.example.com", "port": 80}, "http://gateway.example.com"),
    ],
)
def test_the_host_overrides_the_address(fields, url):
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
def test_a_host_that_is_no_address_is_refused(host):
    with pytest.raises(
        ConnectionFieldError, match=r"(?s)the host is not an http or https address.*API address \(host\) field"
    ):
        read(host=host)


@pytest.mark.parametrize("password", [None, "", "  "])
def test_a_missing_key_is_refused_with_the_place_to_get_one(password):
    expected = r"(?s)'browseract_default' has no API key.*Manage API Keys\) into its API key \(password\) field"
    with pytest.raises(ConnectionFieldError, match=expected):
        read(password=password)


@pytest.mark.parametrize("password", ["Bearer app-key", "app\nkey", "schlüssel"])
def test_a_password_that_cannot_be_a_key_is_refused_without_being_repeated(password):
    with pytest.raises(ConnectionFieldError, match=r"API key \(password\) field holds no API key") as caught:
        read(password=password)
    assert password not in str(caught.value)


def test_a_missing_connection_is_reported_with_the_name_of_the_key_field_in_the_form():
    assert "'nowhere'.\nAdd one of type BrowserAct with the API key in its API key (password) field" in no_connection(
        "nowhere"
    )


@pytest.fixture
def fresh_process(monkeypatch):
    """Forget the warnings that this process has logged."""
    monkeypatch.setattr(connection, "_warned", set())


def logged(caplog):
    return [record.getMessage() for record in caplog.records if record.name == connection.__name__]


@pytest.mark.usefixtures("fresh_process")
class TestLimitsOfSizes:
    def test_are_browseracts_own_by_default(self):
        client = read()
        assert (client.max_file_size, client.max_run_size) == (50 * 1024 * 1024, 100 * 50 * 1024 * 1024)

    @pytest.mark.parametrize("value", [1000, "1000"])
    def test_are_numbers_of_bytes(self, value):
        client = read(extra={"max_file_size": value, "max_run_size": value})
        assert (client.max_file_size, client.max_run_size) == (1000, 1000)

    @pytest.mark.parametrize("value", [0, -1, 1.5, True, "1e3", "50 MB"])
    def test_that_are_none_are_named(self, value):
        with pytest.raises(ConnectionFieldError, match=r"extra 'max_file_size' is .* positive whole number of bytes"):
            read(extra={"max_file_size": value})


@pytest.mark.parametrize(
    ("host", "warned"),
    [
        ("http://api.browseract.com", True),
        ("https://api.browseract.com", False),
        ("http://127.0.0.1:8010", False),
        ("http://gateway.internal", False),
    ],
)
def test_a_public_address_without_tls_is_warned_of(host, warned):
    warning = read_all(host=host).warning
    assert ("sent unencrypted" in (warning or "")) is warned


class TestUnknownKeysOfTheExtra:
    def test_are_named_with_the_key_that_was_meant_and_all_known_keys(self, caplog):
        warning = read_all(extra={"webhook_url": "https://airflow.example.com"}).warning
        assert warning is not None
        assert "'webhook_url' (did you mean 'webhook_base_url'?)" in warning
        assert (
            "Known keys: webhook_base_url, connect_timeout, read_timeout, retry_budget, max_file_size, max_run_size."
            in warning
        )
        assert logged(caplog) == [f"Connection 'browseract_default': {warning}"]

    def test_without_a_resemblance_are_named_alone(self):
        assert "unknown keys, which are ignored: 'colour', 'x'. Known" in read_all(extra={"colour": 1, "x": 2}).warning

    def test_are_logged_once_per_process_and_connection(self, caplog):
        for conn_id in ("one", "one", "two"):
            read_all(conn_id=conn_id, extra={"webhook_url": "x"})
        assert [message.partition(":")[0] for message in logged(caplog)] == ["Connection 'one'", "Connection 'two'"]

    def test_do_not_appear_with_their_values(self, caplog):
        assert "hunter2" not in read_all(extra={"token": "hunter2"}).warning + caplog.text

    def test_are_not_warned_of_where_there_are_none(self, caplog):
        assert read_all(extra={field.name: 1 for field in EXTRA_FIELDS if field.kind != "text"}).warning is None
        assert read_all().warning is None
        assert logged(caplog) == []


@pytest.mark.parametrize("none", [None, {}, {"webhook_base_url": None}, {"webhook_base_url": ""}])
def test_without_a_webhook_base_url_there_are_no_callbacks(none):
    assert read_all(extra=none).webhook_base_url is None


def test_the_webhook_base_url_is_read_as_it_stands():
    extra = {"webhook_base_url": " https://airflow.example.com/team-a/ "}
    assert read_all(extra=extra).webhook_base_url == "https://airflow.example.com/team-a/"


def test_a_webhook_base_url_that_is_no_text_is_refused():
    with pytest.raises(ConnectionFieldError, match="'webhook_base_url' is 8080"):
        read_all(extra={"webhook_base_url": 8080})


def test_space_around_a_pasted_key_does_no_harm():
    assert read(password=" app-key\n").api_key == "app-key"


def test_timeouts_are_read_as_numbers_and_as_text():
    settings = read(extra={"connect_timeout": 3, "read_timeout": "4.5", "retry_budget": None})
    assert (settings.connect_timeout, settings.read_timeout, settings.retries.budget) == (3, 4.5, 60)


@pytest.mark.parametrize("value", [0, -1, "soon", True, [1]])
def test_a_timeout_that_is_none_is_refused_by_its_name(value):
    with pytest.raises(ConnectionFieldError, match="extra 'read_timeout' is"):
        read(extra={"read_timeout": value})


def test_the_client_knows_the_id_of_its_connection_for_error_messages():
    assert read(conn_id="browseract_prod").connection == "browseract_prod"


def test_the_key_is_not_in_the_repr():
    assert "app-key" not in repr(read())


def test_a_secrets_backend_gives_the_connection(tmp_path):
    (tmp_path / "connections.json").write_text('{"browseract_default": "browseract://:app-from-backend@"}')
    code = (
        "from airflow_provider_browseract.hooks.browseract import BrowserActHook\n"
        "assert BrowserActHook().settings.client.api_key == 'app-from-backend'\n"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN")},
        "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_file_path": str(tmp_path / "connections.json")}),
    }
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


@pytest.mark.parametrize(
    "text",
    [
        "browseract://:app-key@",
        "browseract://:app-key@/?read_timeout=4",
        "browseract://:app-key@127.0.0.1:8010/http?read_timeout=4",
        "browseract://:app-key@http%3A%2F%2F127.0.0.1%3A8010",
        '{"conn_type": "browseract", "password": "app-key"}',
        '{"conn_type": "browseract", "password": "app-key", "host": "http://127.0.0.1:8010", '
        '"extra": {"read_timeout": 4}}',
    ],
)
def test_uri_and_json_mean_the_same_in_a_worker_and_in_the_api_server(text, monkeypatch):
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

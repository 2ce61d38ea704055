"""BrowserAct's HTTP API, version 2: calls as values, typed answers, and two thin clients. Knows no Airflow."""

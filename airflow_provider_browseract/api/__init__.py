"""BrowserAct's HTTP API, version 2: calls as values, typed responses, and two thin clients. Does not use Airflow."""

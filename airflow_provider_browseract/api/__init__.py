"""BrowserAct's HTTP API: calls as values, typed responses, and two thin clients. Does not use Airflow."""

"""Apache Airflow provider for BrowserAct: run cloud browser workflows from a DAG."""

__version__ = "0.1.0"

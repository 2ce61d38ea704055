from tests.airflow.rows import deferred

__all__ = ["deferred"]

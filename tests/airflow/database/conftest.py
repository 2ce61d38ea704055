from tests.airflow.rows import components, deferred, queue

__all__ = ["components", "deferred", "queue"]

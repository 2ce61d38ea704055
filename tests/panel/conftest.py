"""The rows of Airflow's database are made as for the callback route."""

from tests.webhook.conftest import deferred, queue

__all__ = ["deferred", "queue"]

from __future__ import annotations

from tests.airflow.rows import deferred

__all__ = ["deferred"]

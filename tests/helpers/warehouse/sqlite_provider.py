"""A provider of connections to SQLite files, so that the tests load rows into a database without a further package.

Airflow finds it by the folder beside this file, if the folder with both is in the path of the interpreter.
"""

from __future__ import annotations

from typing import Any

CONN_TYPE = "sqlite_file"


def get_provider_info() -> dict[str, Any]:
    """Return the provider info. Airflow reads it while it is imported itself."""
    return {
        "package-name": "sqlite-provider",
        "name": "SQLite file",
        "description": "A database for tests.",
        "connection-types": [{"connection-type": CONN_TYPE, "hook-class-name": "sqlite_hook.SQLiteHook"}],
    }

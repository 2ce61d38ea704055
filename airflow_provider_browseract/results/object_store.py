"""Write to a folder in object storage, so that a file with its final name is always complete."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import tenacity
from airflow.sdk import ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.exceptions import InputError, StorageError
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.results.download import FileError
from airflow_provider_browseract.runs import timings

UPLOAD_BLOCK = 5 * 1024 * 1024
"""Bytes that a store's client may collect before it sends them: the smallest part that S3 accepts."""

COPY_CHECKS = 15
"""How many times a copy in the store is checked, with a pause of ``timings.STORE_RETRY_PAUSE`` in between."""

LEFTOVER_AGE = timedelta(hours=1)
"""Age from which an incomplete file counts as left behind."""

TEMPORARY_NAME = re.compile(r"\..+\.[0-9a-f]{8}")
"""Names of incomplete files."""

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "wasb", "wasbs", "r2", "oss"})
"""Stores without folders. Creating a folder there would have no effect, or create a bucket."""

STORE_REMEDY = "Check the store and its Airflow connection, and that the workers reach the store."
"""What to do after an error of the store."""


class Folder:
    """A folder in object storage.

    :param store: the path of the whole store, which also names its connection.
    :param name: the name of a folder in it; "" for the store itself.
    """

    def __init__(self, store: str, name: str = "") -> None:
        self._store, self._name = store, name
        self.path = f"{store}/{name}" if name else store

    def below(self, name: str) -> Folder:
        """Return a folder in this one."""
        return Folder(self._store, name)

    @cached_property
    def _root(self) -> ObjectStoragePath:
        return ObjectStoragePath(self._store)

    @cached_property
    def fs(self) -> Any:
        """The filesystem."""
        return self._root.fs

    @property
    def _base(self) -> str:
        path: str = self._root.path
        return f"{path.rstrip('/')}/{self._name}".rstrip("/")

    def make(self) -> None:
        """Create the folder, and the filesystem, which several threads must not create at once."""
        fs = self.fs
        if (self._root.protocol or "file") not in OBJECT_STORES:
            fs.makedirs(self._base, exist_ok=True)

    def check(self, consequence: str = "") -> None:
        """Write, check and delete a small test file, so that no run is started whose results could not be stored.

        :param consequence: a sentence for the end of a :class:`StorageError`.
        :raises InputError: there is no such store, its filesystem is not installed, or writing is not allowed.
        :raises StorageError: the store does not respond as expected.
        """
        with storage_errors(f"output_path {self.path!r}", consequence):
            self._try_out()

    def _try_out(self) -> None:
        try:
            _ = self.fs
        except AirflowNotFoundException as error:
            raise InputError(
                f"output_path is {self.path!r}: {str(error).rstrip('.')}. Add this connection, or change output_path."
            ) from error
        except (ImportError, ValueError) as error:
            raise InputError(
                f"output_path is {self.path!r}, but the filesystem for {urlsplit(self.path).scheme or 'it'} is not "
                f"available here ({error}). Install the Airflow provider that contains it: for s3 "
                "apache-airflow-providers-amazon[s3fs], for gs apache-airflow-providers-google, for abfs "
                "apache-airflow-providers-microsoft-azure."
            ) from error
        try:
            self.make()
            probe = f"browseract-{uuid.uuid4().hex}"
            self.size_of(probe)
            with self.writing(probe) as write:
                write(b"Test file of airflow-provider-browseract. It can be deleted.")
            self.size_of(probe)
            self.fs.rm_file(f"{self._base}/{probe}")
        except (PermissionError, FileNotFoundError, NotADirectoryError, FileExistsError) as error:
            raise InputError(
                f"output_path is {self.path!r}, but this worker cannot write, check and delete a file there "
                f"({type(error).__name__}: {error}). Allow the worker to do this, or change output_path."
            ) from error

    def size_of(self, name: str) -> int | None:
        """Return the size of a file, or None if there is no file, but for example a folder or a link."""
        try:
            info = self.fs.info(f"{self._base}/{name}")
        except FileNotFoundError:
            return None
        is_file = info.get("type", "file") == "file" and not info.get("islink")
        return info["size"] if is_file and isinstance(info["size"], int) else None

    @contextmanager
    def writing(self, name: str) -> Iterator[Callable[[bytes], object]]:
        """Write a file that gets its final name only when it is complete."""
        temporary = f"{self._base}/.{name}.{uuid.uuid4().hex[:8]}"
        try:
            with self.fs.open(temporary, "wb", block_size=UPLOAD_BLOCK) as file:
                yield file.write
            self._rename(temporary, name)
        except BaseException:
            with tolerate_errors():
                self.fs.rm_file(temporary)
            raise

    def _rename(self, temporary: str, name: str) -> None:
        path = f"{self._base}/{name}"
        if isinstance(self.fs, LocalFileSystem):
            if self.fs.isdir(path):
                # mv would move the file into that folder.
                raise IsADirectoryError(path)
            self.fs.mv(temporary, path)
            return
        # mv would read brackets in the name as a pattern.
        self.fs.cp_file(temporary, path)
        size = self.fs.info(temporary)["size"]
        # Some stores respond before the copy is complete.
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(FileError),
            wait=tenacity.wait_fixed(timings.STORE_RETRY_PAUSE),
            stop=tenacity.stop_after_attempt(COPY_CHECKS),
            reraise=True,
        ):
            with attempt:
                self.fs.invalidate_cache()
                if self.size_of(name) != size:
                    raise FileError("the store did not rename it in time", temporary=True)
        self.fs.rm_file(temporary)

    def tidy(self) -> None:
        """Delete old incomplete files that interrupted tries left here; another try may still be writing."""
        long_ago = datetime.now(timezone.utc) - LEFTOVER_AGE
        with tolerate_errors():
            for path in self.fs.ls(self._base, detail=False):
                if TEMPORARY_NAME.fullmatch(path.rpartition("/")[2]) and self.fs.modified(path) < long_ago:
                    self.fs.rm_file(path)


@contextmanager
def storage_errors(where: str, consequence: str = "") -> Iterator[None]:
    """Name the store and a remedy in every error that comes from it, except in errors of an argument.

    :param consequence: a sentence for the end of the error.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - raised again with the name of the store
        reason = ": ".join(filter(None, (where, type(error).__name__, str(error).rstrip("."))))
        storage_error = StorageError(" ".join(filter(None, (f"{reason}.", STORE_REMEDY, consequence))))
        # The message contains the error, so its traceback is enough, with what caused it.
        raise storage_error.with_traceback(error.__traceback__) from error.__cause__

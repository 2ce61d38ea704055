"""A folder in object storage, in which only whole files have their names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.exceptions import InputError, StorageError
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors

TEST_FILE = "browseract-test-file"
"""Name of the file with which a store is tested. It is always the same, so that a store keeps at most one of them."""

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "wasb", "wasbs", "r2", "oss"})
"""Stores without folders. Creating a folder there would have no effect, or create a bucket."""

STORE_REMEDY = "Check the store and its Airflow connection, and that the workers reach the store."
"""What to do after an error of the store."""


def read_output_path(value: Any) -> str:
    """Check a path in object storage without accessing the store, and return it without a trailing slash.

    :param value: the path, as ``ObjectStoragePath`` takes it.
    :raises InputError: the path is empty, the root of a store, or relative.
    """
    path = str(value).strip()
    scheme, host, below, *_ = urlsplit(path)
    is_local = scheme in ("", "file", "local")
    if not (below.startswith("/") and below.strip("/") if is_local else host):
        raise InputError(f"output_path is {path!r}. Use an absolute path, as /data/results or s3://conn@bucket/path.")
    return path.rstrip("/")


class Folder:
    """A folder in object storage.

    :param path: its path, as ``ObjectStoragePath`` takes it, with the connection of the store.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def fs(self) -> Any:
        """The filesystem."""
        return ObjectStoragePath(self.path).fs

    def _path_of(self, name: str) -> str:
        """Return the path of a file in the filesystem."""
        return f"{ObjectStoragePath(self.path).path.rstrip('/')}/{name}"

    def make(self) -> None:
        """Create the folder, if the store has folders, and the filesystem.

        Creating the filesystem may read a connection from Airflow, which only the main thread of a task may do.
        """
        fs = self.fs
        if urlsplit(self.path).scheme not in OBJECT_STORES:
            fs.makedirs(self._path_of(""), exist_ok=True)

    @property
    def shows_whole_files(self) -> bool:
        """Whether the store shows a file only when all of it has arrived."""
        return isinstance(self.fs, LocalFileSystem) or urlsplit(self.path).scheme in OBJECT_STORES

    def size_of(self, name: str) -> int | None:
        """Return the size of a file, or None if there is no file, but for example a folder or a link."""
        try:
            info = self.fs.info(self._path_of(name))
        except FileNotFoundError:
            return None
        is_file = info.get("type", "file") == "file" and not info.get("islink")
        return info["size"] if is_file and isinstance(info["size"], int) else None

    @contextmanager
    def writing(self, name: str) -> Iterator[Callable[[bytes], int]]:
        """Write a file on this machine, which gets its name in the store when it is complete.

        Object stores show a file only when all of it has arrived. On a local path, a copy could be cut short by the end
        of the process, so the file is written beside its place, and renamed.
        """
        path, local = self._path_of(name), isinstance(self.fs, LocalFileSystem)
        with tempfile.TemporaryDirectory(prefix=".browseract-", dir=self._path_of("") if local else None) as temporary:
            part = f"{temporary}/part"
            with open(part, "wb") as file:
                yield file.write
            if local:
                os.replace(part, path)
                return
            try:
                self.fs.put_file(part, path)
            except FileExistsError:
                # Some stores refuse to overwrite. One that refuses to delete too says so in the second attempt.
                with tolerate_errors():
                    self.fs.rm_file(path)
                self.fs.put_file(part, path)

    def check(self, consequence: str = "") -> None:
        """Write, check and delete a small test file, so that no run is started whose results could not be stored.

        :param consequence: a sentence for the end of a :class:`StorageError`.
        :raises InputError: there is no such store, its filesystem is not installed, or writing is not allowed.
        :raises StorageError: the store does not respond as expected.
        """
        with storage_errors(f"output_path {self.path!r}", consequence):
            try:
                self.make()
                # If a store refuses to replace the test file of another task, that task could write.
                with suppress(FileExistsError), self.writing(TEST_FILE) as write:
                    write(b"Test file of airflow-provider-browseract. It can be deleted.")
                self.size_of(TEST_FILE)
                # The results need no right to delete, so a store may refuse this.
                with tolerate_errors():
                    self.fs.rm_file(self._path_of(TEST_FILE))
                return
            except (AirflowNotFoundException, ImportError, ValueError) as error:
                why = f"the filesystem for {urlsplit(self.path).scheme} is not available here ({error})"
                remedy = "Add its connection, or install the Airflow provider that contains the filesystem."
            except (PermissionError, FileNotFoundError, NotADirectoryError, FileExistsError) as error:
                why = f"this worker cannot write and check a file there ({type(error).__name__}: {error})"
                remedy = "Allow the worker to do this, or change output_path."
            raise InputError(f"output_path is {self.path!r}: {why}. {remedy}")


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
        why = f"{where}: {type(error).__name__}: {str(error).rstrip('.')}. {STORE_REMEDY} {consequence}".rstrip()
        # The message contains the error, so its traceback is enough, with what caused it.
        raise StorageError(why).with_traceback(error.__traceback__) from error.__cause__

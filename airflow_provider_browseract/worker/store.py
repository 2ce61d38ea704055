"""Writing what a run put out into object storage, before BrowserAct deletes it.

Everything is written under a temporary name and moved then: whatever has its own name is whole. That makes it safe to
begin again, by the next try or after a kill, and what is there already is not fetched once more.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import tenacity
from airflow.sdk import ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.hooks.steps import sleep
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.arguments import InputError
from airflow_provider_browseract.runs.outputs import (
    OUTPUT_NAMES,
    FormatError,
    OutputFormat,
    RunFile,
    files_of,
    format_of,
    has_files,
    media_type_of,
    safe_name,
)
from airflow_provider_browseract.runs.report import facts
from airflow_provider_browseract.worker.download import (
    PARALLEL_DOWNLOADS,
    Allowance,
    FileError,
    FileSession,
    Interrupted,
    chunks_of,
    no_addresses_in_debug_logs,
)

if TYPE_CHECKING:
    from airflow_provider_browseract.api.client import ClientSettings
    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.hooks.steps import Log

UPLOAD_BLOCK = 5 * 1024 * 1024
"""Bytes that a store's client may collect before it sends them: the least that S3 takes as a part of a file."""

STORE_ATTEMPTS = 3
"""How many times a file is fetched before it is given up."""

COPY_CHECKS = 15
"""How many times it is looked whether a store has copied something, with ``timings.STORE_RETRY_PAUSE`` between."""

LEFTOVER_AGE = timedelta(hours=1)
"""Age from which on something that is not whole is taken for left behind."""

TEMPORARY_NAME = re.compile(r"\..+\.[0-9a-f]{8}")
"""Names of what is not whole yet."""

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "wasb", "wasbs", "r2", "oss"})
"""Stores without folders, where making one would at most make a bucket."""


class StorageError(Exception):
    """The store cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class StoredFile:
    """Something that lies in the store, whole.

    :param name: its name there.
    :param path: its path, as ``ObjectStoragePath`` takes it.
    :param size: its size in bytes.
    :param media_type: its media type, by its name.
    """

    name: str
    path: str
    size: int
    media_type: str


@dataclass
class Results:
    """What was kept of a run, and what was not.

    :param path: the run's folder in the store.
    :param output: the text, if there is any.
    :param files: the files.
    :param missing: the names of files that are not there, and why.
    :param lost: whether some of those can never come.
    :param format_error: why the text is not in the declared format, if so.
    """

    path: str
    output: StoredFile | None = None
    files: list[StoredFile] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    lost: bool = False
    format_error: str | None = None

    def manifest(self) -> dict[str, Any]:
        """Return paths, sizes and media types as plain JSON values."""
        return {
            "path": self.path,
            "task": f"{self.path}/task.json",
            "output": vars(self.output) if self.output else None,
            "files": [vars(kept) for kept in self.files],
        }


class ResultStore:
    """A place in object storage for the results of runs.

    :param output_path: its path, as :func:`~airflow_provider_browseract.runs.arguments.read_output_path` gives it; each
        run gets a folder in it.
    :param settings: patience with hosts of files, and the address of the API.
    :param log: the task's log.
    """

    def __init__(self, output_path: str, settings: ClientSettings, log: Log) -> None:
        self.output_path = output_path
        self._settings = settings
        self._log = log
        self._stop = threading.Event()
        self._allowance = Allowance(settings.max_run_size)
        self._sources: dict[str, str] = {}

    @cached_property
    def _root(self) -> ObjectStoragePath:
        return ObjectStoragePath(self.output_path)

    @cached_property
    def _fs(self) -> Any:
        return self._root.fs

    def check(self) -> None:
        """Write, look at and delete something small, before money is spent on what could not be kept.

        :raises InputError: there is no such store, its filesystem is not installed, or it may not be written to.
        :raises StorageError: the store does not answer as it should.
        """
        with _storage_errors(f"output_path {self.output_path!r}"):
            self._try_out()

    def _try_out(self) -> None:
        scheme = urlsplit(self.output_path).scheme
        try:
            self._root  # noqa: B018 - parsed and looked up here, so that the errors are of these
            self._fs  # noqa: B018
        except AirflowNotFoundException as error:
            raise InputError(f"output_path is {self.output_path!r}: {error}") from error
        except (ImportError, ValueError) as error:
            raise InputError(
                f"output_path is {self.output_path!r}, and the filesystem for {scheme or 'it'} cannot be used here "
                f"({error}). Install the Airflow provider that brings it: for s3 "
                "apache-airflow-providers-amazon[s3fs], for gs apache-airflow-providers-google, for abfs "
                "apache-airflow-providers-microsoft-azure."
            ) from error
        try:
            self._make_folder(self._base)
            probe = f"{self._base}/browseract-{uuid.uuid4().hex}"
            self._size_of(probe)
            with self._writing(probe) as write:
                write(b"may this be kept?")
            self._size_of(probe)
            self._fs.rm_file(probe)
        except (PermissionError, FileNotFoundError, NotADirectoryError, FileExistsError) as error:
            raise InputError(
                f"output_path is {self.output_path!r}, which cannot be written to, looked at and deleted from "
                f"({type(error).__name__}: {error})."
            ) from error

    def save(
        self,
        task: Task,
        output_format: OutputFormat,
        read_again: Callable[[], Task],
        check: Callable[[], None] = lambda: None,
    ) -> Results:
        """Write a finished run's text, files and facts.

        :param task: the task as ``get-task`` answers it.
        :param output_format: what its text is declared to be.
        :param read_again: reads the task anew, for links that have expired and files that were not ready.
        :param check: called while files in preparation are waited for; what it raises ends that.
        :returns: what was kept and what was not.
        :raises StorageError: the store does not take even the text or the facts.
        """
        if safe_name(task.id) != task.id:
            raise StorageError(f"{task.id!r}, the id of the BrowserAct task, is no name for a folder.")
        results = Results(f"{self.output_path}/{task.id}")
        with _storage_errors(results.path):
            folder = f"{self._base}/{task.id}"
            # Made here, and not by several threads at once.
            self._fs  # noqa: B018
            self._make_folder(folder)
            self._save_text(task, output_format, folder, results)
            self._sources = self._read_sources(f"{folder}/task.json")
        outcomes = self._save_files(task, folder, results, read_again, check)
        results.files = [outcome for outcome in outcomes.values() if isinstance(outcome, StoredFile)]
        failed = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, FileError)}
        results.missing = {name: str(error) for name, error in failed.items()}
        results.lost = bool(failed) and not any(error.temporary or error.expired for error in failed.values())
        steps = [{**vars(step), "screenshots_url": None} for step in task.steps]
        sources = {kept.name: self._sources[kept.name] for kept in results.files if kept.name in self._sources}
        written = {**facts(task), "steps": steps, **results.manifest(), "missing": results.missing, "sources": sources}
        with _storage_errors(results.path), self._writing(f"{folder}/task.json") as write:
            write(json.dumps(written, indent=1).encode())
        if not results.missing:
            self._tidy(folder)
        return results

    def _read_sources(self, path: str) -> dict[str, str]:
        """Read which of the files that an earlier try has written is which, by their names."""
        try:
            sources = json.loads(self._fs.cat_file(path))["sources"]
            return {str(name): str(source) for name, source in sources.items()}
        except Exception:  # noqa: BLE001 - without, files whose names are ambiguous are fetched again
            return {}

    @property
    def _base(self) -> str:
        path: str = self._root.path
        return path.rstrip("/")

    def _make_folder(self, path: str) -> None:
        if (self._root.protocol or "file") not in OBJECT_STORES:
            self._fs.makedirs(path, exist_ok=True)

    def _stored(self, name: str, size: int, results: Results) -> StoredFile:
        return StoredFile(name, f"{results.path}/{name}", size, media_type_of(name))

    def _save_text(self, task: Task, output_format: OutputFormat, folder: str, results: Results) -> None:
        text = task.output.string if task.output else None
        if not text and (output_format in (OutputFormat.AUTO, OutputFormat.TEXT) or has_files(task)):
            return
        found = OutputFormat.TEXT
        try:
            found = format_of(text, output_format)
        except FormatError as error:
            results.format_error = str(error)
        if not text:
            return
        content = text.encode("utf-8", "replace")
        name = OUTPUT_NAMES[found]
        with self._writing(f"{folder}/{name}") as write:
            write(content)
        results.output = self._stored(name, len(content), results)

    def _save_files(
        self,
        task: Task,
        folder: str,
        results: Results,
        read_again: Callable[[], Task],
        check: Callable[[], None],
    ) -> dict[str, StoredFile | FileError]:
        """Fetch what is ready, then what becomes ready within a while, and once more what has expired."""
        files = files_of(task)
        waited_for: set[str] = set()
        outcomes: dict[str, StoredFile | FileError] = {}
        expired: set[str] = set()
        renewed: set[str] = set()
        timeout = self._settings.files_timeout
        until = time.monotonic() + timeout
        while True:
            ready = [file for file in files if file.url and (file.name not in outcomes or file.name in expired)]
            outcomes |= self._fetch_all(ready, folder, results)
            expired = {name for name, of in outcomes.items() if isinstance(of, FileError) and of.expired} - renewed
            waited_for |= {file.name for file in files if file.pending}
            pending = sum(file.pending for file in files)
            if not expired and (not pending or time.monotonic() >= until):
                break
            if expired:
                self._log.log(logging.INFO, "The links of %d files have expired. Reading them anew.", len(expired))
                renewed |= expired
            else:
                self._log.log(logging.INFO, "BrowserAct still prepares %d of %d files. Waiting.", pending, len(files))
                # The worker is what waits: the run is over, so that neither callback nor status tells of the files.
                sleep(min(timings.FILES_LOOK_PAUSE, max(0.0, until - time.monotonic())), check)
            try:
                files = files_of(read_again())
            except BrowserActError as error:
                self._log.log(logging.WARNING, "The files of BrowserAct task %s cannot be read: %s", task.id, error)
        for file in files:
            if file.name not in outcomes:
                why = file.broken or f"BrowserAct did not have it ready within files_timeout={timeout:g} seconds"
                outcomes[file.name] = FileError(_without_urls(why), temporary=file.pending)
        for name in waited_for - outcomes.keys():
            outcomes[name] = FileError("BrowserAct does not list it any more", temporary=True)
        return outcomes

    def _fetch_all(self, files: Sequence[RunFile], folder: str, results: Results) -> dict[str, StoredFile | FileError]:
        if not files:
            return {}
        self._log.log(logging.INFO, "Writing %d files to %s.", len(files), results.path)
        pool = ThreadPoolExecutor(PARALLEL_DOWNLOADS, "browseract-file")
        with closing(FileSession(self._settings)) as session, no_addresses_in_debug_logs():
            try:
                outcomes = pool.map(lambda file: self._fetch(session, file, folder, results), files)
                return {file.name: outcome for file, outcome in zip(files, outcomes, strict=True)}
            except BaseException:
                # Such as Airflow's time limit: what is under way must not hold the task.
                self._stop.set()
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, session: FileSession, file: RunFile, folder: str, results: Results) -> StoredFile | FileError:
        target = f"{folder}/{file.name}"
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, FileError) and error.temporary),
            wait=tenacity.wait_random_exponential(
                multiplier=timings.STORE_RETRY_PAUSE, max=4 * timings.STORE_RETRY_PAUSE
            ),
            stop=tenacity.stop_after_attempt(STORE_ATTEMPTS),
            reraise=True,
        )
        try:
            size = self._size_of(target)
            surely_the_same = not file.ambiguous or self._sources.get(file.name) == file.source
            if size is None or file.size not in (None, size) or not surely_the_same:
                size = retrying(self._fetch_once, session, file, target)
                self._sources[file.name] = file.source
            return self._stored(file.name, size, results)
        except FileError as error:
            return error
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - one file's trouble is not another's
            return FileError(f"{type(error).__name__}: {_without_urls(str(error))}", temporary=True)

    def _fetch_once(self, session: FileSession, file: RunFile, target: str) -> int:
        """Fetch a file and give its size."""
        if self._stop.is_set():
            raise Interrupted
        limit = self._settings.max_file_size
        with session.opened(file) as (response, announced):
            if announced is not None and announced > limit:
                raise FileError(f"it has {announced} bytes, more than max_file_size={limit}")
            received = 0
            try:
                with self._writing(target) as write:
                    for chunk in chunks_of(response, self._stop):
                        received += len(chunk)
                        self._allowance.take(len(chunk))
                        if announced is not None and received > announced:
                            raise FileError(f"it is larger than the {announced} bytes that were announced")
                        if received > limit:
                            raise FileError(f"it has more than max_file_size={limit} bytes")
                        write(chunk)
                    if announced is not None and received < announced:
                        raise FileError(f"only {received} of its {announced} bytes came", temporary=True)
            except FileError:
                # What was written is deleted.
                self._allowance.give_back(received)
                raise
            return received

    def _size_of(self, path: str) -> int | None:
        """Return the size of what is in the store already, or None."""
        try:
            size = self._fs.info(path)["size"]
        except FileNotFoundError:
            return None
        return size if isinstance(size, int) else None

    @contextmanager
    def _writing(self, path: str) -> Iterator[Callable[[bytes], object]]:
        """Write something that has its name only once it is whole."""
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}"
        try:
            with self._fs.open(temporary, "wb", block_size=UPLOAD_BLOCK) as file:
                yield file.write
            self._name(temporary, path)
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(temporary)
            raise

    def _name(self, temporary: str, path: str) -> None:
        """Rename what is complete to its own name."""
        if isinstance(self._fs, LocalFileSystem):
            if self._fs.isdir(path):
                # It would be moved into that folder.
                raise IsADirectoryError(path)
            self._fs.mv(temporary, path)
            return
        # Not mv, which would take brackets in a name for a pattern.
        self._fs.cp_file(temporary, path)
        size = self._fs.info(temporary)["size"]
        # Some stores copy after they have answered.
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(FileError),
            wait=tenacity.wait_fixed(timings.STORE_RETRY_PAUSE),
            stop=tenacity.stop_after_attempt(COPY_CHECKS),
            reraise=True,
        ):
            with attempt:
                self._fs.invalidate_cache()
                if self._size_of(path) != size:
                    raise FileError("the store has not given it its name in time", temporary=True)
        self._fs.rm_file(temporary)

    def _tidy(self, folder: str) -> None:
        """Delete what tries that were broken off have left in the folder; others may be writing there just now."""
        long_ago = datetime.now(timezone.utc) - LEFTOVER_AGE
        with suppress(Exception):
            for path in self._fs.ls(folder, detail=False):
                if TEMPORARY_NAME.fullmatch(path.rpartition("/")[2]) and self._fs.modified(path) < long_ago:
                    self._fs.rm_file(path)


@contextmanager
def _storage_errors(where: str) -> Iterator[None]:
    """Name the store in whatever error comes from it; one that is the user's to mend stays as it is."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise StorageError(f"{where}: {type(error).__name__}: {error}") from error


def _without_urls(text: str) -> str:
    return " ".join("(an address)" if "://" in word else word for word in text.split())

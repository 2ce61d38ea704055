"""Write the results of a run to object storage before BrowserAct deletes them.

A file with its final name is always complete. The next try, also one after a kill, can therefore start again, and
fetches only what is still missing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tenacity

from airflow_provider_browseract.exceptions import BrowserActError, StorageError
from airflow_provider_browseract.loops import CHECK_INTERVAL, sleep
from airflow_provider_browseract.results.download import (
    CHUNK_SIZE,
    MAX_FILE_SIZE,
    PARALLEL_DOWNLOADS,
    Allowance,
    FileError,
    FileSession,
    Interrupted,
    RunSizeError,
    no_addresses_in_logs,
)
from airflow_provider_browseract.results.files import TEXT_NAMES, RunFile, files_of, has_files, media_type_of, safe_name
from airflow_provider_browseract.results.object_store import Folder, storage_errors
from airflow_provider_browseract.results.outputs import FormatError, format_of, size_of
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import OutputFormat
from airflow_provider_browseract.runs.report import facts, number_of

if TYPE_CHECKING:
    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.api.settings import Settings
    from airflow_provider_browseract.runs.log import Log

STORE_ATTEMPTS = 3
"""How many times a file is fetched before it counts as missing."""

MAX_RUN_SIZE = 5 * 2**30
"""Bytes that all files of a run may have together. BrowserAct itself allows 100 files of 50 MB."""


@dataclass(frozen=True)
class StoredFile:
    """A complete file in the store.

    :param path: its path, as ``ObjectStoragePath`` takes it.
    :param media_type: its media type, guessed from the name.
    """

    name: str
    path: str
    size: int
    media_type: str


@dataclass
class Results:
    """The results of a run in the store, and what is missing.

    :param missing: the names of missing files, each with the reason.
    :param lost: whether none of the missing files can become available any more.
    :param format_error: why the text does not have the declared format, if so.
    """

    path: str
    output: StoredFile | None = None
    files: list[StoredFile] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    lost: bool = False
    format_error: str | None = None

    @property
    def written(self) -> str:
        """The number and the size of the text and the files, for the log."""
        sizes = [kept.size for kept in (self.output, *self.files) if kept]
        if (size := sum(sizes)) < 2**10:
            in_units = number_of(size, "byte")
        else:
            in_units = f"{size / 2**10:.1f} KiB" if size < 2**20 else f"{size / 2**20:.1f} MiB"
        return f"{number_of(len(sizes), 'file')} ({in_units})"

    def manifest(self) -> dict[str, Any]:
        """Return paths, sizes and media types as plain JSON values."""
        return {
            "path": self.path,
            "task": f"{self.path}/task.json",
            "output": vars(self.output) if self.output else None,
            "files": [vars(kept) for kept in self.files],
        }


class ResultStore:
    """A folder in object storage for the results of runs.

    :param output_path: its path, as :func:`~airflow_provider_browseract.runs.addresses.read_output_path` returns it.
        Each run gets a folder in it.
    :param settings: timeouts for the files, and the address of the API.
    """

    def __init__(self, output_path: str, settings: Settings, log: Log) -> None:
        self.folder = Folder(output_path)
        self._settings = settings
        self._log = log
        self._stop = threading.Event()
        self._allowance = Allowance(MAX_RUN_SIZE)

    def save(
        self,
        task: Task,
        output_format: OutputFormat,
        read_again: Callable[[], Task],
        check: Callable[[], None] = lambda: None,
    ) -> Results:
        """Write the text, the files and the facts of a finished run.

        :param read_again: reads the task again, for links that have expired and files that were not ready.
        :param check: called while files are fetched or BrowserAct is still preparing them. Its exception ends both.
        :returns: what was written, and what is missing.
        :raises StorageError: the text or the facts could not be written.
        """
        if safe_name(task.id) != task.id:
            raise StorageError(f"{task.id!r}, the id of the BrowserAct task, cannot be the name of a folder.")
        folder = self.folder.below(task.id)
        results = Results(folder.path)
        with storage_errors(folder.path):
            folder.make()
            self._save_text(task, output_format, folder, results)
        outcomes = self._save_files(task, folder, read_again, check)
        results.files = [outcome for outcome in outcomes.values() if isinstance(outcome, StoredFile)]
        failed = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, FileError)}
        results.missing = {name: str(error) for name, error in failed.items()}
        results.lost = bool(failed) and not any(error.temporary or error.expired for error in failed.values())
        steps = [{**vars(step), "screenshots_url": None} for step in task.steps]
        written = {**facts(task), "steps": steps, **results.manifest(), "missing": results.missing}
        with storage_errors(folder.path), folder.writing("task.json") as write:
            write(json.dumps(written, indent=1).encode())
        if not results.missing:
            folder.tidy()
        return results

    def _save_text(self, task: Task, output_format: OutputFormat, folder: Folder, results: Results) -> None:
        text = task.output.string if task.output else None
        if not text and (output_format in (OutputFormat.AUTO, OutputFormat.TEXT) or has_files(task)):
            return
        found = OutputFormat.TEXT
        try:
            found = format_of(task.output, output_format)
        except FormatError as error:
            results.format_error = str(error)
        if not text:
            return
        name = TEXT_NAMES[found.value]
        with folder.writing(name) as write:
            # In pieces, because a copy of a large text needs much memory.
            for begin in range(0, len(text), CHUNK_SIZE):
                write(text[begin : begin + CHUNK_SIZE].encode("utf-8", "replace"))
        results.output = _stored(folder, name, size_of(text))

    def _save_files(
        self, task: Task, folder: Folder, read_again: Callable[[], Task], check: Callable[[], None]
    ) -> dict[str, StoredFile | FileError]:
        """Fetch all files that are ready or become ready within ``files_timeout``; renew expired links once."""
        files = files_of(task)
        keys: dict[str, str] = {}
        most = 0
        outcomes: dict[str, StoredFile | FileError] = {}
        expired: set[str] = set()
        renewed: set[str] = set()
        until = time.monotonic() + self._settings.files_timeout
        while True:
            keys |= {file.name: file.key for file in files if file.pending}
            most = max(most, len(files))
            ready = [file for file in files if file.url and (file.name not in outcomes or file.name in expired)]
            outcomes |= self._fetch_all(ready, folder, check)
            expired = {name for name, of in outcomes.items() if isinstance(of, FileError) and of.expired} - renewed
            pending = sum(file.pending for file in files)
            if not expired and (not pending or time.monotonic() >= until):
                break
            if expired:
                number = number_of(len(expired), "file")
                self._log.info("The links of %s have expired. Reading new links.", number)
                renewed |= expired
            else:
                number = number_of(len(files), "file")
                self._log.info("BrowserAct is still preparing %d of %s. Waiting.", pending, number)
                # The worker has to wait: the run is over, so neither a callback nor the status reports the files.
                sleep(min(timings.FILES_READ_PAUSE, max(0.0, until - time.monotonic())), check)
            try:
                files = files_of(read_again())
            except BrowserActError as error:
                self._log.warning("The files of BrowserAct task %s cannot be read: %s", task.id, error)
        for name, missing in _missing(files, keys, most, self._settings.files_timeout).items():
            outcomes.setdefault(name, missing)
        return outcomes

    def _fetch_all(
        self, files: Sequence[RunFile], folder: Folder, check: Callable[[], None]
    ) -> dict[str, StoredFile | FileError]:
        if not files:
            return {}
        self._log.info("Writing %s to %s.", number_of(len(files), "file"), folder.path)
        pool = ThreadPoolExecutor(PARALLEL_DOWNLOADS, "browseract-file")
        # One limit for all of them, because content decides how many there are.
        deadline = time.monotonic() + timings.FILES_LIMIT

        def fetched(files: Sequence[RunFile]) -> dict[str, StoredFile | FileError]:
            fetches = {file.name: pool.submit(self._fetch, session, file, folder, deadline) for file in files}
            while wait(fetches.values(), timeout=CHECK_INTERVAL).not_done:
                check()
            return {name: fetch.result() for name, fetch in fetches.items()}

        with closing(FileSession(self._settings, self._stop)) as session, no_addresses_in_logs():
            try:
                outcomes = fetched(files)
                # Files that are fetched at the same time may exceed the limit together although one of them fits.
                for file in [file for file in files if isinstance(outcomes[file.name], RunSizeError)]:
                    outcomes |= fetched([file])
                return outcomes
            except BaseException:
                # For example Airflow's timeout: running downloads must not keep the task from ending.
                self._stop.set()
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, session: FileSession, file: RunFile, folder: Folder, deadline: float) -> StoredFile | FileError:
        def is_worth_a_retry(error: BaseException) -> bool:
            return isinstance(error, FileError) and error.temporary and time.monotonic() < deadline

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_worth_a_retry),
            wait=tenacity.wait_random_exponential(
                multiplier=timings.STORE_RETRY_PAUSE, max=4 * timings.STORE_RETRY_PAUSE
            ),
            stop=tenacity.stop_after_attempt(STORE_ATTEMPTS),
            sleep=tenacity.sleep_using_event(self._stop),
            reraise=True,
        )
        try:
            size = folder.size_of(file.name)
            if size is None or file.size not in (None, size):
                size = retrying(self._fetch_once, session, file, folder, deadline)
            return _stored(folder, file.name, size)
        except FileError as error:
            return error
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - a failing file must not affect the others
            return FileError(f"{type(error).__name__}: {_without_urls(str(error))}", temporary=True)

    def _fetch_once(self, session: FileSession, file: RunFile, folder: Folder, deadline: float) -> int:
        """Fetch a file, and return its size."""
        with session.opened(file, deadline) as (chunks, announced):
            if announced is not None and announced > MAX_FILE_SIZE:
                raise FileError(f"it is {announced} bytes, which exceeds the limit of {MAX_FILE_SIZE} bytes for a file")
            received = 0
            try:
                with folder.writing(file.name) as write:
                    for chunk in chunks:
                        received += len(chunk)
                        self._allowance.take(len(chunk))
                        if announced is not None and received > announced:
                            raise FileError(f"it is larger than the {announced} bytes that were announced")
                        if received > MAX_FILE_SIZE:
                            raise FileError(f"it exceeds the limit of {MAX_FILE_SIZE} bytes for a file")
                        write(chunk)
                    if announced is not None and received < announced:
                        raise FileError(f"only {received} of its {announced} bytes arrived", temporary=True)
            except Exception:
                # What was written is deleted.
                self._allowance.give_back(received)
                raise
            return received


def _missing(files: Sequence[RunFile], keys: Mapping[str, str], most: int, limit: float) -> dict[str, FileError]:
    """Return an error for each file that BrowserAct has not prepared, or no longer lists.

    :param files: the files that it has listed last.
    :param keys: the names of all files that were ever in preparation, each with its key.
    :param most: how many files were ever listed at once.
    """
    listed = {file.key for file in files}
    limited = f"BrowserAct did not prepare it within files_timeout={limit:g} seconds"
    missing = {file.name: FileError(_without_urls(file.broken or limited), temporary=file.pending) for file in files}
    for name, key in keys.items():
        # The name of a file changes if another one with the same name is listed or is not listed any more.
        if key not in listed if key else len(files) < most:
            missing.setdefault(name, FileError("BrowserAct no longer lists it", temporary=True))
    return missing


def _stored(folder: Folder, name: str, size: int) -> StoredFile:
    return StoredFile(name, f"{folder.path}/{name}", size, media_type_of(name))


def _without_urls(text: str) -> str:
    return " ".join("(an address)" if "://" in word else word for word in text.split())

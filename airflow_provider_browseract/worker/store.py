"""Write the results of a run to object storage before BrowserAct deletes them.

Everything is written under a temporary name and renamed when it is complete, so a file with its final name is always
complete. The next try, also one after a kill, can therefore start again, and fetches only what is still missing.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import tenacity
from airflow.sdk import ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.api.bodies import CHUNK_SIZE
from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.loops import CHECK_INTERVAL, sleep
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.files import TEXT_NAMES, RunFile, files_of, has_files, media_type_of, safe_name
from airflow_provider_browseract.runs.outcome import StorageError
from airflow_provider_browseract.runs.outputs import FormatError, OutputFormat, counted, format_of, size_of
from airflow_provider_browseract.runs.report import facts
from airflow_provider_browseract.worker.download import (
    PARALLEL_DOWNLOADS,
    Allowance,
    FileError,
    FileSession,
    Interrupted,
    RunSizeError,
    no_addresses_in_logs,
)

if TYPE_CHECKING:
    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.api.settings import ClientSettings
    from airflow_provider_browseract.loops import Log

UPLOAD_BLOCK = 5 * 1024 * 1024
"""Bytes that a store's client may collect before it sends them: the smallest part that S3 accepts."""

STORE_ATTEMPTS = 3
"""How many times a file is fetched before it counts as missing."""

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
            in_units = counted(size, "byte")
        else:
            in_units = f"{size / 2**10:.1f} KiB" if size < 2**20 else f"{size / 2**20:.1f} MiB"
        return f"{counted(len(sizes), 'file')} ({in_units})"

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
    :param settings: timeouts and limits for the files, and the address of the API.
    """

    def __init__(self, output_path: str, settings: ClientSettings, log: Log) -> None:
        self.output_path = output_path
        self._settings = settings
        self._log = log
        self._stop = threading.Event()
        self._allowance = Allowance(settings.max_run_size)

    @cached_property
    def _root(self) -> ObjectStoragePath:
        return ObjectStoragePath(self.output_path)

    @cached_property
    def _fs(self) -> Any:
        return self._root.fs

    def check(self, consequence: str = "") -> None:
        """Write, check and delete a small test file, so that no run is started whose results could not be stored.

        :param consequence: a sentence for the end of a :class:`StorageError`.
        :raises InputError: there is no such store, its filesystem is not installed, or writing is not allowed.
        :raises StorageError: the store does not respond as expected.
        """
        with _storage_errors(f"output_path {self.output_path!r}", consequence):
            self._try_out()

    def _try_out(self) -> None:
        scheme = urlsplit(self.output_path).scheme
        try:
            self._root  # noqa: B018 - evaluated here, so that the handlers below see the errors
            self._fs  # noqa: B018
        except AirflowNotFoundException as error:
            raise InputError(
                f"output_path is {self.output_path!r}: {str(error).rstrip('.')}. Add this connection, or change "
                "output_path."
            ) from error
        except (ImportError, ValueError) as error:
            raise InputError(
                f"output_path is {self.output_path!r}, but the filesystem for {scheme or 'it'} is not available here "
                f"({error}). Install the Airflow provider that contains it: for s3 "
                "apache-airflow-providers-amazon[s3fs], for gs apache-airflow-providers-google, for abfs "
                "apache-airflow-providers-microsoft-azure."
            ) from error
        try:
            self._make_folder(self._base)
            probe = f"{self._base}/browseract-{uuid.uuid4().hex}"
            self._size_of(probe)
            with self._writing(probe) as write:
                write(b"Test file of airflow-provider-browseract. It can be deleted.")
            self._size_of(probe)
            self._fs.rm_file(probe)
        except (PermissionError, FileNotFoundError, NotADirectoryError, FileExistsError) as error:
            raise InputError(
                f"output_path is {self.output_path!r}, but this worker cannot write, check and delete a file there "
                f"({type(error).__name__}: {error}). Allow the worker to do this, or change output_path."
            ) from error

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
        results = Results(f"{self.output_path}/{task.id}")
        with _storage_errors(results.path):
            folder = f"{self._base}/{task.id}"
            # Created here, because several threads must not create it at once.
            self._fs  # noqa: B018
            self._make_folder(folder)
            self._save_text(task, output_format, folder, results)
        outcomes = self._save_files(task, folder, results, read_again, check)
        results.files = [outcome for outcome in outcomes.values() if isinstance(outcome, StoredFile)]
        failed = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, FileError)}
        results.missing = {name: str(error) for name, error in failed.items()}
        results.lost = bool(failed) and not any(error.temporary or error.expired for error in failed.values())
        steps = [{**vars(step), "screenshots_url": None} for step in task.steps]
        written = {**facts(task), "steps": steps, **results.manifest(), "missing": results.missing}
        with _storage_errors(results.path), self._writing(f"{folder}/task.json") as write:
            write(json.dumps(written, indent=1).encode())
        if not results.missing:
            self._tidy(folder)
        return results

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
        name = TEXT_NAMES[found.value]
        with self._writing(f"{folder}/{name}") as write:
            # In pieces, because a copy of a large text needs much memory.
            for begin in range(0, len(text), CHUNK_SIZE):
                write(text[begin : begin + CHUNK_SIZE].encode("utf-8", "replace"))
        results.output = self._stored(name, size_of(text), results)

    def _save_files(
        self,
        task: Task,
        folder: str,
        results: Results,
        read_again: Callable[[], Task],
        check: Callable[[], None],
    ) -> dict[str, StoredFile | FileError]:
        """Fetch all files that are ready or become ready within ``files_timeout``; renew expired links once."""
        files = files_of(task)
        waited_for: dict[str, str] = {}
        most = 0
        outcomes: dict[str, StoredFile | FileError] = {}
        expired: set[str] = set()
        renewed: set[str] = set()
        timeout = self._settings.files_timeout
        until = time.monotonic() + timeout
        while True:
            ready = [file for file in files if file.url and (file.name not in outcomes or file.name in expired)]
            outcomes |= self._fetch_all(ready, folder, results, check)
            expired = {name for name, of in outcomes.items() if isinstance(of, FileError) and of.expired} - renewed
            waited_for |= {file.name: file.key for file in files if file.pending}
            most = max(most, len(files))
            pending = sum(file.pending for file in files)
            if not expired and (not pending or time.monotonic() >= until):
                break
            if expired:
                number = counted(len(expired), "file")
                self._log.info("The links of %s have expired. Reading new links.", number)
                renewed |= expired
            else:
                number = counted(len(files), "file")
                self._log.info("BrowserAct is still preparing %d of %s. Waiting.", pending, number)
                # The worker has to wait: the run is over, so neither a callback nor the status reports the files.
                sleep(min(timings.FILES_LOOK_PAUSE, max(0.0, until - time.monotonic())), check)
            try:
                files = files_of(read_again())
            except BrowserActError as error:
                self._log.warning("The files of BrowserAct task %s cannot be read: %s", task.id, error)
        outcomes |= _not_ready(files, outcomes, f"files_timeout={timeout:g} seconds")
        listed = {file.key for file in files}
        for name, key in waited_for.items():
            # The name of a file changes if another one with the same name is listed or is not listed any more.
            gone = key not in listed if key else len(files) < most
            if gone and name not in outcomes:
                outcomes[name] = FileError("BrowserAct no longer lists it", temporary=True)
        return outcomes

    def _fetch_all(
        self, files: Sequence[RunFile], folder: str, results: Results, check: Callable[[], None]
    ) -> dict[str, StoredFile | FileError]:
        if not files:
            return {}
        self._log.info("Writing %s to %s.", counted(len(files), "file"), results.path)
        pool = ThreadPoolExecutor(PARALLEL_DOWNLOADS, "browseract-file")

        def fetched(files: Sequence[RunFile]) -> dict[str, StoredFile | FileError]:
            fetches = {file.name: pool.submit(self._fetch, session, file, folder, results) for file in files}
            while wait(fetches.values(), timeout=CHECK_INTERVAL).not_done:
                check()
            return {name: fetch.result() for name, fetch in fetches.items()}

        with closing(FileSession(self._settings, self._stop)) as session, no_addresses_in_logs():
            try:
                outcomes = fetched(files)
                # Files that are fetched at the same time may exceed max_run_size together although one of them fits.
                for file in [file for file in files if isinstance(outcomes[file.name], RunSizeError)]:
                    outcomes |= fetched([file])
                return outcomes
            except BaseException:
                # For example Airflow's timeout: running downloads must not keep the task from ending.
                self._stop.set()
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, session: FileSession, file: RunFile, folder: str, results: Results) -> StoredFile | FileError:
        target = f"{folder}/{file.name}"
        deadline = time.monotonic() + timings.FILE_TIMEOUT

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
            size = self._size_of(target)
            if size is None or file.size not in (None, size):
                size = retrying(self._fetch_once, session, file, target, deadline)
            return self._stored(file.name, size, results)
        except FileError as error:
            return error
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - a failing file must not affect the others
            return FileError(f"{type(error).__name__}: {_without_urls(str(error))}", temporary=True)

    def _fetch_once(self, session: FileSession, file: RunFile, target: str, deadline: float) -> int:
        """Fetch a file, and return its size."""
        limit = self._settings.max_file_size
        with session.opened(file, deadline) as (chunks, announced):
            if announced is not None and announced > limit:
                raise FileError(f"it is {announced} bytes, which exceeds max_file_size={limit}")
            received = 0
            try:
                with self._writing(target) as write:
                    for chunk in chunks:
                        received += len(chunk)
                        self._allowance.take(len(chunk))
                        if announced is not None and received > announced:
                            raise FileError(f"it is larger than the {announced} bytes that were announced")
                        if received > limit:
                            raise FileError(f"it exceeds max_file_size={limit} bytes")
                        write(chunk)
                    if announced is not None and received < announced:
                        raise FileError(f"only {received} of its {announced} bytes arrived", temporary=True)
            except Exception:
                # What was written is deleted.
                self._allowance.give_back(received)
                raise
            return received

    def _size_of(self, path: str) -> int | None:
        """Return the size of a file in the store, or None if there is no file, but for example a folder or a link."""
        try:
            info = self._fs.info(path)
        except FileNotFoundError:
            return None
        is_file = info.get("type", "file") == "file" and not info.get("islink")
        return info["size"] if is_file and isinstance(info["size"], int) else None

    @contextmanager
    def _writing(self, path: str) -> Iterator[Callable[[bytes], object]]:
        """Write a file that gets its final name only when it is complete."""
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
        """Give a complete file its final name."""
        if isinstance(self._fs, LocalFileSystem):
            if self._fs.isdir(path):
                # mv would move the file into that folder.
                raise IsADirectoryError(path)
            self._fs.mv(temporary, path)
            return
        # mv would read brackets in the name as a pattern.
        self._fs.cp_file(temporary, path)
        size = self._fs.info(temporary)["size"]
        # Some stores respond before the copy is complete.
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(FileError),
            wait=tenacity.wait_fixed(timings.STORE_RETRY_PAUSE),
            stop=tenacity.stop_after_attempt(COPY_CHECKS),
            reraise=True,
        ):
            with attempt:
                self._fs.invalidate_cache()
                if self._size_of(path) != size:
                    raise FileError("the store did not rename it in time", temporary=True)
        self._fs.rm_file(temporary)

    def _tidy(self, folder: str) -> None:
        """Delete old incomplete files that interrupted tries left in the folder; another try may still be writing."""
        long_ago = datetime.now(timezone.utc) - LEFTOVER_AGE
        with suppress(Exception):
            for path in self._fs.ls(folder, detail=False):
                if TEMPORARY_NAME.fullmatch(path.rpartition("/")[2]) and self._fs.modified(path) < long_ago:
                    self._fs.rm_file(path)


@contextmanager
def _storage_errors(where: str, consequence: str = "") -> Iterator[None]:
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


def _not_ready(
    files: Iterable[RunFile], outcomes: Mapping[str, object], limit: str
) -> dict[str, StoredFile | FileError]:
    """Return an error for each file that BrowserAct has not prepared."""
    return {
        file.name: FileError(
            _without_urls(file.broken or f"BrowserAct did not prepare it within {limit}"), temporary=file.pending
        )
        for file in files
        if file.name not in outcomes
    }


def _without_urls(text: str) -> str:
    return " ".join("(an address)" if "://" in word else word for word in text.split())

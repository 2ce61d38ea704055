"""Write the results of a run to object storage before BrowserAct deletes them.

A file with its name is complete, except on stores such as ``sftp://``, which show a file before all of it has
arrived. The next try, also one after a kill, can therefore start again, and fetches
only what is still missing. ``task.json`` is written last.
"""

from __future__ import annotations

import json
import mimetypes
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tenacity

from airflow_provider_browseract.api.models import Output, Task
from airflow_provider_browseract.exceptions import BrowserActError, StorageError
from airflow_provider_browseract.loops import CHECK_INTERVAL, sleep
from airflow_provider_browseract.results.download import MAX_RUN_SIZE, THREAD, FileError, FileSession, Stopped
from airflow_provider_browseract.results.files import TEXT_NAMES, RunFile, files_of, has_files, safe_name
from airflow_provider_browseract.results.folder import Folder, storage_errors
from airflow_provider_browseract.results.outputs import FormatError, read_text
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import OutputFormat
from airflow_provider_browseract.runs.report import facts, number_of

if TYPE_CHECKING:
    from airflow_provider_browseract.api.settings import Settings
    from airflow_provider_browseract.runs.log import Log

STORE_ATTEMPTS = 3
"""How many times a file is fetched, after temporary errors, before it counts as missing."""


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
        return f"{number_of(len(sizes), 'file')} ({sum(sizes) / 2**10:.1f} KiB)"

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

    :param output_path: its path, as :func:`~airflow_provider_browseract.results.folder.read_output_path` returns it.
        Each run gets a folder in it.
    :param settings: timeouts for the files, and the address of the API.
    """

    def __init__(self, output_path: str, settings: Settings, log: Log) -> None:
        self.folder = Folder(output_path)
        self._settings = settings
        self._log = log
        self._left = MAX_RUN_SIZE

    def save(
        self, task: Task, output_format: OutputFormat, read_again: Callable[[], Task], check: Callable[[], None]
    ) -> Results:
        """Write the text, the files and the facts of a finished run.

        :param read_again: reads the task again, for links that have expired and files that were not ready.
        :param check: called while files are fetched or BrowserAct is still preparing them. Its exception ends both.
        :returns: what was written, and what is missing.
        :raises StorageError: the text or the facts could not be written.
        """
        if safe_name(task.id) != task.id:
            raise StorageError(f"{task.id!r}, the id of the BrowserAct task, cannot be the name of a folder.")
        folder = Folder(f"{self.folder.path}/{task.id}")
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
        return results

    def _save_text(self, task: Task, output_format: OutputFormat, folder: Folder, results: Results) -> None:
        text = task.output.string if task.output else None
        if not text and (output_format in (OutputFormat.AUTO, OutputFormat.TEXT) or has_files(task)):
            return
        try:
            found = read_text(task.output or Output(), output_format, lambda value: None).format
        except FormatError as error:
            found, results.format_error = OutputFormat.TEXT, str(error)
        if text:
            name = TEXT_NAMES[found.value]
            with folder.writing(name) as write:
                size = write(text.encode("utf-8", "replace"))
            results.output = _stored(folder, name, size)

    def _save_files(
        self, task: Task, folder: Folder, read_again: Callable[[], Task], check: Callable[[], None]
    ) -> dict[str, StoredFile | FileError]:
        """Fetch all files that are ready or become ready within ``files_timeout``; renew expired links once."""
        outcomes: dict[str, StoredFile | FileError] = {}
        in_preparation: dict[str, str] = {}
        expired, renewed = set[str](), set[str]()
        until = time.monotonic() + self._settings.files_timeout
        while True:
            files = files_of(task)
            ready = [file for file in files if file.url and (file.name not in outcomes or file.name in expired)]
            if ready:
                outcomes |= self._fetch_all(ready, folder, check)
            expired = {name for name, of in outcomes.items() if isinstance(of, FileError) and of.expired} - renewed
            pending = {file.listed_as: file.name for file in files if file.pending}
            in_preparation |= pending
            if not expired and (not pending or time.monotonic() >= until):
                break
            renewed |= expired
            self._log.info("Files in preparation: %d, expired links: %d. Reading again.", len(pending), len(expired))
            if not expired:
                # The worker has to wait: the run is over, so neither a callback nor the status reports the files.
                sleep(min(timings.FILES_READ_PAUSE, max(0.0, until - time.monotonic())), check)
            try:
                task = read_again()
            except BrowserActError as error:
                self._log.warning("The files of BrowserAct task %s cannot be read: %s", task.id, error)
        late = f"BrowserAct did not prepare it within files_timeout={self._settings.files_timeout:g} seconds"
        for file in files:
            outcomes.setdefault(file.name, FileError(_without_urls(file.broken or late), temporary=file.pending))
        for gone in sorted(in_preparation.keys() - {file.listed_as for file in files}):
            outcomes.setdefault(in_preparation[gone], FileError("BrowserAct no longer lists it", temporary=True))
        return outcomes

    def _fetch_all(
        self, files: Sequence[RunFile], folder: Folder, check: Callable[[], None]
    ) -> dict[str, StoredFile | FileError]:
        """Fetch files one after the other in another thread, so that a host can block neither a kill nor the limit."""
        self._log.info("Writing %s to %s.", number_of(len(files), "file"), folder.path)
        session = FileSession(self._settings)
        outcomes: dict[str, StoredFile | FileError] = {}

        def fetch() -> None:
            with suppress(Stopped), session:
                for file in files:
                    outcomes[file.name] = self._fetch(session, file, folder)

        thread = threading.Thread(target=fetch, name=THREAD, daemon=True)
        thread.start()
        # One limit for all of them, because content decides how many there are.
        deadline = time.monotonic() + timings.FILES_LIMIT
        try:
            while thread.is_alive() and (left := deadline - time.monotonic()) > 0:
                thread.join(min(left, CHECK_INTERVAL))
                check()
        finally:
            session.stop.set()
        late = FileError(f"all files together took longer than {timings.FILES_LIMIT:g} seconds", temporary=True)
        return {file.name: outcomes.get(file.name, late) for file in files}

    def _fetch(self, session: FileSession, file: RunFile, folder: Folder) -> StoredFile | FileError:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, FileError) and error.temporary),
            wait=tenacity.wait_random_exponential(timings.STORE_RETRY_PAUSE, max=4 * timings.STORE_RETRY_PAUSE),
            stop=tenacity.stop_after_attempt(STORE_ATTEMPTS),
            sleep=tenacity.sleep_using_event(session.stop),
            reraise=True,
        )
        try:
            kept = folder.size_of(file.name)
            # Without an announced size, a file of another store may be a part that an earlier try has left.
            if kept is not None and (kept == file.size or (file.size is None and folder.shows_whole_files)):
                return _stored(folder, file.name, kept)
            for attempt in retrying:
                with attempt, folder.writing(file.name) as write:
                    size = session.fetch(file, write, self._left)
            self._left -= size
            return _stored(folder, file.name, size)
        except FileError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a failing file must not affect the others
            return FileError(f"{type(error).__name__}: {_without_urls(str(error))}", temporary=True)


def _stored(folder: Folder, name: str, size: int) -> StoredFile:
    return StoredFile(name, f"{folder.path}/{name}", size, mimetypes.guess_type(name)[0] or "application/octet-stream")


def _without_urls(text: str) -> str:
    return " ".join("(an address)" if "://" in word else word for word in text.split())

"""A folder in object storage: whether it can be used, and files that are complete or absent."""

from __future__ import annotations

import os
import stat
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.runs.outcome import StorageError
from airflow_provider_browseract.worker.object_store import Folder


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "results"


@contextmanager
def not_root() -> Iterator[None]:
    """Be a user to whom something may be forbidden."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def _fails(*_, **__):
    raise OSError("no space left")


def test_output_path_with_a_missing_connection_is_an_input_error(monkeypatch):
    def missing(_):
        raise AirflowNotFoundException("The conn_id `nowhere` isn't defined")

    # As the stores of Google and Azure look up theirs.
    monkeypatch.setattr(Folder, "fs", property(missing))
    with pytest.raises(InputError, match=r"output_path is 'gs://nowhere@bucket/x': The conn_id `nowhere`"):
        Folder("gs://nowhere@bucket/x").check()


class TestCheckBeforeStart:
    def test_store_check_leaves_nothing_behind(self, root):
        Folder(str(root)).check()
        assert list(root.iterdir()) == []

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("nostore://bucket/x", "the filesystem for nostore is not available here"),
        ],
    )
    def test_store_check_with_unknown_filesystem_raises_input_error(self, path, message):
        with pytest.raises(InputError, match=message):
            Folder(path).check()

    def test_store_check_with_read_only_folder_raises_input_error(self):
        # Not below pytest's own folder, which only its owner may enter.
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
            made = Folder(f"file://{folder}/results")
            with not_root(), pytest.raises(InputError, match="cannot write, check and delete a file there"):
                made.check()

    def test_store_check_with_file_in_place_of_folder_raises_input_error(self, root):
        root.write_text("a file")
        with pytest.raises(InputError, match="cannot write, check and delete a file there"):
            Folder(str(root)).check()

    @pytest.mark.parametrize("forbidden", ["info", "mv", "rm_file"])
    def test_store_check_with_missing_permission_raises_input_error(self, root, monkeypatch, forbidden):
        def denied(*_, **__):
            raise PermissionError("Access Denied")

        made = Folder(str(root))
        monkeypatch.setattr(made.fs, forbidden, denied)
        with pytest.raises(InputError, match="cannot write, check and delete a file there"):
            made.check()

    def test_store_check_on_full_store_raises_storage_error(self, root, monkeypatch):
        made = Folder(str(root))
        monkeypatch.setattr(made.fs, "open", _fails)
        with pytest.raises(StorageError) as caught:
            made.check("No run was started.")
        assert str(caught.value) == (
            f"output_path {made.path!r}: OSError: no space left. Check the store and its Airflow connection, "
            "and that the workers reach the store. No run was started."
        )
        # Python prints only one traceback, which ends where the store failed.
        assert caught.value.__suppress_context__
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "_fails"


def test_writing_waits_for_a_store_that_completes_its_copy_late(root, short_timings, monkeypatch):
    class Late(MemoryFileSystem):  # type: ignore[misc,unused-ignore]
        """A store whose copies have their content only at the second check."""

        store: dict = {}
        pseudo_dirs = [""]
        looks = 0

        def info(self, path, **kwargs):
            found = super().info(path, **kwargs)
            if path.endswith("/output.txt"):
                self.looks += 1
                return {**found, "size": found["size"] if self.looks > 1 else 0}
            return found

    monkeypatch.setattr(Folder, "fs", Late(skip_instance_cache=True))
    folder = Folder(str(root)).below("7")
    folder.make()
    with folder.writing("output.txt") as write:
        write(b"plain")
    assert folder.fs.cat_file(f"{root}/7/output.txt") == b"plain"
    assert [path for path in folder.fs.find(str(root)) if "/." in path] == []

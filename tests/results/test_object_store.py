from __future__ import annotations

import traceback

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.exceptions import InputError, StorageError
from airflow_provider_browseract.results.object_store import Folder
from tests.cases import raising


@pytest.fixture
def root(tmp_path):
    return tmp_path / "results"


def test_store_check_leaves_nothing_behind(root):
    Folder(str(root)).check()
    assert list(root.iterdir()) == []


def test_output_path_with_a_missing_connection_is_an_input_error(monkeypatch):
    # As the stores of Google and Azure look up theirs.
    missing = raising(AirflowNotFoundException("The conn_id `nowhere` isn't defined"))
    monkeypatch.setattr(Folder, "fs", property(missing))
    with pytest.raises(InputError, match=r"output_path is 'gs://nowhere@bucket/x': The conn_id `nowhere`"):
        Folder("gs://nowhere@bucket/x").check()


@pytest.mark.parametrize("call", ["info", "open", "mv", "rm_file", None])
def test_store_check_with_missing_permission_or_file_in_place_of_folder_raises_input_error(root, monkeypatch, call):
    folder = Folder(str(root))
    if call is None:
        root.write_text("a file")
    else:
        monkeypatch.setattr(folder.fs, call, raising(PermissionError("Access Denied")))
    with pytest.raises(InputError, match="cannot write, check and delete a file there"):
        folder.check()


def test_store_check_on_full_store_raises_storage_error(root, monkeypatch):
    folder = Folder(str(root))
    monkeypatch.setattr(folder.fs, "open", raising(OSError("no space left")))
    with pytest.raises(StorageError) as caught:
        folder.check("No run was started.")
    assert str(caught.value) == (
        f"output_path {folder.path!r}: OSError: no space left. Check the store and its Airflow connection, and that "
        "the workers reach the store. No run was started."
    )
    # Python prints only one traceback, which ends where the store failed.
    assert caught.value.__suppress_context__
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"


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

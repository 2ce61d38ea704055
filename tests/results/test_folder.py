"""A file has its name in a store only when it is whole, and a store is tested before a run is started."""

from __future__ import annotations

import traceback

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.exceptions import InputError, StorageError
from airflow_provider_browseract.results.folder import TEST_FILE, Folder, read_output_path
from tests.helpers.cases import raising


@pytest.fixture
def root(tmp_path):
    return tmp_path / "results"


@pytest.mark.parametrize("given", ["s3://aws@bucket/a/b", "s3://aws@bucket/a/b/", "gs://bucket", "file:///x", " /x "])
def test_output_path_is_read_without_trailing_slash_and_spaces(given):
    assert read_output_path(given) == given.strip().removesuffix("/")


@pytest.mark.parametrize("given", ["", None, "None", "/", "file:///", "s3:///x", "results"])
def test_invalid_output_path_is_refused_with_a_remedy(given):
    with pytest.raises(InputError, match="Use an absolute path, as /data/results or s3://conn@bucket/path"):
        read_output_path(given)


class Refusing(MemoryFileSystem):  # type: ignore[misc,unused-ignore]
    """A store that refuses to overwrite, as Azure's does."""

    store: dict = {}
    pseudo_dirs = [""]

    def put_file(self, lpath, rpath, **kwargs):
        if self.exists(rpath):
            raise FileExistsError(rpath)
        super().put_file(lpath, rpath, **kwargs)


class WriteOnly(Refusing):
    """A store in which this worker may not delete. What is written again replaces the old file."""

    store: dict = {}
    put_file = MemoryFileSystem.put_file
    rm_file = raising(PermissionError("Access Denied"))


class WriteOnce(WriteOnly):
    """A store in which nothing may be replaced or deleted."""

    store: dict = {}
    put_file = Refusing.put_file


def test_old_file_goes_first_if_a_store_refuses_to_overwrite(monkeypatch):
    monkeypatch.setattr(Folder, "fs", Refusing(skip_instance_cache=True))
    folder = Folder("memory://x/7")
    for content in (b"old", b"newer"):
        with folder.writing("output.txt") as write:
            write(content)
    assert folder.fs.cat_file("x/7/output.txt") == b"newer"
    assert folder.size_of("output.txt") == len(b"newer")


def test_file_whose_writing_fails_leaves_the_old_file_and_nothing_else(root):
    folder = Folder(str(root))
    folder.make()
    for content, fails in ((b"old", False), (b"new", True)):
        try:
            with folder.writing("a") as write:
                write(content)
                assert not fails
        except AssertionError:
            pass
    assert [path.name for path in root.iterdir()] == ["a"]
    assert (root / "a").read_bytes() == b"old"
    # Others may read it, as any file that the worker creates.
    (root / "b").touch()
    assert (root / "a").stat().st_mode == (root / "b").stat().st_mode


class TestCheck:
    def test_store_check_leaves_nothing_behind(self, root):
        Folder(str(root)).check()
        assert list(root.iterdir()) == []

    @pytest.mark.parametrize("kind", [WriteOnly, WriteOnce])
    def test_store_in_which_nothing_may_be_deleted_passes_each_check_and_keeps_one_test_file(self, monkeypatch, kind):
        monkeypatch.setattr(Folder, "fs", kind(skip_instance_cache=True))
        folder = Folder("memory://x/7")
        for _ in range(2):
            folder.check()
        assert folder.fs.find("x") == [f"/x/7/{TEST_FILE}"]

    def test_output_path_with_a_missing_connection_is_an_input_error(self, monkeypatch):
        # As the stores of Google and Azure look up theirs.
        missing = raising(AirflowNotFoundException("The conn_id `nowhere` isn't defined"))
        monkeypatch.setattr(Folder, "fs", property(missing))
        why = r"output_path is 'gs://nowhere@bucket/x': .*\(The conn_id `nowhere` isn't defined\)\. Add its connection"
        with pytest.raises(InputError, match=why):
            Folder("gs://nowhere@bucket/x").check()

    @pytest.mark.parametrize("call", ["info", "makedirs", None])
    def test_missing_permission_or_file_in_place_of_the_folder_raises_input_error(self, root, monkeypatch, call):
        folder = Folder(str(root))
        if call is None:
            root.write_text("a file")
        else:
            monkeypatch.setattr(folder.fs, call, raising(PermissionError("Access Denied")))
        with pytest.raises(InputError, match="cannot write and check a file there"):
            folder.check()

    def test_full_store_raises_storage_error(self, root, monkeypatch):
        folder = Folder(str(root))
        monkeypatch.setattr(folder.fs, "makedirs", raising(OSError("no space left")))
        with pytest.raises(StorageError) as caught:
            folder.check("No run was started.")
        assert str(caught.value) == (
            f"output_path {folder.path!r}: OSError: no space left. Check the store and its Airflow connection, and "
            "that the workers reach the store. No run was started."
        )
        # Python prints only one traceback, which ends where the store failed.
        assert caught.value.__suppress_context__
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"

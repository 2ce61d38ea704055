"""What ``new-dag`` does: read what the account declares, and write the files."""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib.util
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.models import ApiVersion, one_line
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.commands.new_dag import PROGRAM, option_of
from airflow_provider_browseract.compat import AirflowNotFoundException, conf, is_secret
from airflow_provider_browseract.dag_files.dag_file import DagFile, dag_file
from airflow_provider_browseract.dag_files.pytest_file import dag_test_file, schema_without_secrets
from airflow_provider_browseract.dag_files.runnable import WORDS, Runnable
from airflow_provider_browseract.exceptions import BrowserActError, InputError, NotFoundError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs.hints import did_you_mean
from airflow_provider_browseract.runs.request import without_secrets
from airflow_provider_browseract.runs.schemas import SchemaUnusableError, conform

REQUEST_LIMIT = 20.0
"""Seconds that a request may take, when it is sent again too."""

PAGE_SIZE = 100
MAX_LISTED = 500
"""Sources of each kind that ``--list`` shows."""

MAX_DAG_FILES = 5_000
MAX_DAG_FILE_SIZE = 1024 * 1024
"""Files of the DAGs folder that are searched for a DAG with the same id, and the bytes of the largest one."""


# The list


@dataclass(frozen=True)
class Listed:
    """What an account can run."""

    sources: list[Runnable]
    truncated: list[SourceKind] = field(default_factory=list)

    @property
    def as_json(self) -> Any:
        return [{"kind": option_of(each.kind), "id": each.id, "name": one_line(each.name)} for each in self.sources]

    @property
    def lines(self) -> Iterator[str]:
        if not self.sources:
            yield "The account has nothing to run. Build a workflow in BrowserAct's dashboard, and publish it."
        for each in self.sources:
            yield f"{option_of(each.kind):12}  {each.id}  {one_line(each.name) or ''}".rstrip()
        for kind in self.truncated:
            yield f"There are more {WORDS[kind].one}s. Only {MAX_LISTED} are listed."


def list_sources(conn_id: str, kind: SourceKind | None) -> Listed:
    """Read what the account can run: all kinds, or one."""
    found = Listed([])
    with _client(conn_id) as client:
        for each in [kind] if kind else SourceKind:
            sources = [*islice(_sources(client, each), MAX_LISTED + 1)]
            found.sources.extend(sources[:MAX_LISTED])
            if len(sources) > MAX_LISTED:
                found.truncated.append(each)
    return found


def _sources(client: BrowserActClient, kind: SourceKind) -> Iterator[Runnable]:
    for each in client.iter_items(SOURCES[kind].list(limit=PAGE_SIZE)):
        yield Runnable.of(kind, each)


def _client(conn_id: str) -> contextlib.AbstractContextManager[BrowserActClient]:
    hook = BrowserActHook(conn_id)
    try:
        _ = hook.settings
    except AirflowNotFoundException:
        raise InputError(
            f"There is no connection {conn_id!r}.\nAdd it: airflow connections add {shlex.quote(conn_id)} "
            "--conn-type browseract --conn-password YOUR_API_KEY"
        ) from None
    return hook.client_within(REQUEST_LIMIT)


# The files


@dataclass(frozen=True)
class Written:
    """The files that were written."""

    runnable: Runnable
    file: DagFile
    paths: tuple[Path, Path]
    notes: list[str]

    @property
    def as_json(self) -> Any:
        return {
            "dag_id": self.file.dag_id,
            "dag_file": str(self.paths[0]),
            "test_file": str(self.paths[1]),
            "kind": option_of(self.runnable.kind),
            "id": self.runnable.id,
            "name": one_line(self.runnable.name),
            "params": list(self.file.asked),
            "examples": list(self.file.examples),
            "secrets": dict(self.file.secrets),
            "notes": self.notes,
            "run_command": self._run_command,
            "test_command": self._test_command,
        }

    @property
    def lines(self) -> Iterator[str]:
        named = one_line(self.runnable.name) or self.runnable.id
        yield f"DAG {self.file.dag_id} runs the {WORDS[self.runnable.kind].one} {named!r}. Written:"
        yield from (f"  {_shown(path)}" for path in self.paths)
        for note in self.notes:
            yield ""
            yield note
        if self.file.examples:
            yield ""
            yield f"Replace the example values in the DAG file: {', '.join(map(repr, self.file.examples))}."
        for name, conn_id in self.file.secrets.items():
            yield ""
            yield f"Store the secret {name!r}, which the DAG reads from this connection:"
            yield f"  airflow connections add {conn_id} --conn-type generic --conn-password ..."
        yield ""
        yield f"Run it once, which uses credits{' (with your values instead of ...)' if self.file.asked else ''}:"
        yield f"  {self._run_command}"
        yield ""
        yield "Test it offline, without credits:"
        if importlib.util.find_spec("pytest") is None:
            yield "  pip install pytest"
        yield f"  {self._test_command}"

    @property
    def _run_command(self) -> str:
        words = ["airflow", "dags", "test", self.file.dag_id]
        if self.file.asked:
            words += ["--conf", json.dumps(dict.fromkeys(self.file.asked, "..."))]
        return shlex.join(words)

    @property
    def _test_command(self) -> str:
        return shlex.join(["python", "-m", "pytest", _shown(self.paths[1])])


def write_dag(
    conn_id: str, kind: SourceKind, source_id: str, inputs: Iterable[str], output: str | None, test: str | None
) -> Written:
    """Write a DAG file and its test.

    :param inputs: names and values of inputs, as ``name=value``.
    :param output: the DAG file or its folder. Default: in Airflow's DAGs folder.
    :param test: the test file or its folder. Default: a folder beside that of the DAG file.
    :raises InputError: something cannot be used. No file was written.
    :raises BrowserActError: BrowserAct cannot be asked.
    """
    texts = _read_inputs(inputs)
    dags_folder = Path(conf.get("core", "dags_folder")).expanduser()
    dag_id, folder = _dag_path(output, dags_folder)
    source = _read_source(conn_id, kind, source_id)
    runnable = Runnable.of(kind, source)
    _check_names(runnable, texts)
    values = _values(source, runnable, texts)
    file = dag_file(runnable, conn_id, values=values, dag_id=dag_id)
    path = folder / file.file_name
    test_path = _test_path(test, path, dags_folder)
    if test_path == path:
        raise InputError(f"--test is the DAG file itself, {path}. Give it another name.")
    _check_new(path, test_path)
    _check_dag_id(file.dag_id, dags_folder)
    test_text = dag_test_file(source, runnable, file, _relative(path, test_path.parent), conn_id)
    _write_both({test_path: test_text, path: file.source})
    notes = []
    if runnable.kind is SourceKind.BOT and source.published_at is None:
        notes.append("The bot is not published, so BrowserAct refuses to run it. Publish it in BrowserAct's dashboard.")
    if not path.is_relative_to(dags_folder):
        notes.append(f"Airflow reads DAGs from {dags_folder}. Copy the DAG file there before you run the DAG.")
    return Written(runnable, file, (path, test_path), notes)


def _read_inputs(given: Iterable[str]) -> dict[str, str]:
    """Return the values of ``--input`` by name."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        # Without the value, which may be a secret.
        if not equals or not name:
            raise InputError("--input needs a name and a value, as in --input keyword=laptops.")
        if name in found:
            raise InputError(f"--input has {name!r} twice. Give it once.")
        if is_secret(name):
            raise InputError(
                f"{name!r} is the name of a secret, which must not be in a DAG file.\n"
                "Leave it out of --input. The DAG reads it from a connection, which the command names."
            )
        if without_secrets(value, is_secret, set()) != value:
            raise InputError(
                f"The value of {name!r} contains a secret, which must not be in a DAG file.\n"
                "Leave it out of --input, and put a template such as {{ conn.shop.password }} into the DAG file."
            )
        if not value:
            raise InputError(f"--input {name}= has no value. Give it one, or leave it out.")
        found[name] = value
    return found


def _read_source(conn_id: str, kind: SourceKind, source_id: str) -> Any:
    """Read a workflow, bot or template.

    :raises InputError: there is none with this id. The message says of what else it is the id, or what is similar.
    """
    what = WORDS[kind].one
    with _client(conn_id) as client:
        try:
            return client.send(SOURCES[kind].read(source_id))
        except (NotFoundError, InputError):
            for other in SourceKind:
                if other is not kind and (found := _find(client, other, source_id)) is not None:
                    raise InputError(
                        f"{source_id!r} is not the id of a {what}, but of the {WORDS[other].one} {_name_of(found)!r}.\n"
                        f"Add --kind {option_of(other)}."
                    ) from None
            raise InputError(
                f"There is no {what} with the id {source_id!r}{_similar(client, kind, source_id)}.\n"
                f"List what the account has: {PROGRAM} --list --conn-id {shlex.quote(conn_id)}"
            ) from None


def _find(client: BrowserActClient, kind: SourceKind, source_id: str) -> Any:
    with contextlib.suppress(BrowserActError, InputError):
        return client.send(SOURCES[kind].read(source_id))
    return None


def _similar(client: BrowserActClient, kind: SourceKind, given: str) -> str:
    """Return the id that someone meant who gave a similar one or a name, as an addition to a message."""
    with contextlib.suppress(BrowserActError):
        listed = [*islice(_sources(client, kind), PAGE_SIZE)]
        words = {word.casefold(): each for each in listed for word in (each.name, each.id)}
        near = {words[word].id: words[word] for word in difflib.get_close_matches(given.casefold(), words, cutoff=0.8)}
        if near:
            return f" (did you mean {' or '.join(f'{each.id}, {_name_of(each)!r}' for each in near.values())}?)"
    return ""


def _name_of(source: Any) -> str:
    return one_line(source.name) or source.id


def _check_names(runnable: Runnable, texts: Mapping[str, str]) -> None:
    known = [each.name for each in runnable.inputs]
    unknown = [f"{name!r}{did_you_mean(name, known)}" for name in texts if name not in known]
    if unknown:
        have = f"has the inputs {', '.join(map(repr, known))}" if known else "has no inputs"
        raise InputError(f"--input has unknown names: {', '.join(unknown)}. The {WORDS[runnable.kind].one} {have}.")


def _values(source: Any, runnable: Runnable, texts: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the values of inputs with the types that the bot declares.

    :raises InputError: the bot would refuse them, or the examples for the others.
    """
    if SOURCES[runnable.kind].api_version is ApiVersion.V2:
        return texts
    examples = {each.name: each.example for each in runnable.inputs if each.required}
    what = f"{WORDS[runnable.kind].one} {runnable.id}"
    try:
        conformed = conform({**examples, **texts}, schema_without_secrets(source.input_schema), what).input
    except SchemaUnusableError:
        return texts
    except InputError as error:
        raise InputError(
            f"{error}\nGive values that match with --input NAME=VALUE, lists and objects as JSON."
        ) from None
    return {name: conformed[name] for name in texts}


# Where they are written


def _dag_path(given: str | None, dags_folder: Path) -> tuple[str | None, Path]:
    """Return the id of the DAG, None for the default, and the folder of its file."""
    if given is None:
        return None, dags_folder
    path = Path(given).expanduser().absolute()
    if path.is_dir():
        return None, path
    if path.suffix != ".py" or not re.fullmatch(r"[\w.-]{1,250}", path.stem):
        raise InputError(
            f"--output {given!r} is no name for a DAG file. It has to end with .py. The part before becomes the id of "
            "the DAG, and can have letters, digits, dashes, dots and underscores."
        )
    _check_folder("--output", path.parent)
    return path.stem, path.parent


def _test_path(given: str | None, dag_path: Path, dags_folder: Path) -> Path:
    """Return the path of the test. By default, it is in the folder ``tests`` beside the one with the DAG file."""
    name = f"test_{re.sub('[^A-Za-z0-9_]', '_', dag_path.stem)}.py"
    if given is not None:
        path = Path(given).expanduser().absolute()
        path = path / name if path.is_dir() else path
        if path.suffix != ".py":
            raise InputError(f"--test {given!r} is neither a Python file nor a folder. A file has to end with .py.")
        _check_folder("--test", path.parent)
        return path
    # Beside it and not in it, because the DAG processor imports each file of the DAGs folder.
    if dag_path.is_relative_to(dags_folder):
        return dags_folder.parent / "tests" / name
    # Someone who writes a DAG file into the current directory does not expect a new folder above it.
    root = dag_path.parent if dag_path.parent == Path.cwd() else dag_path.parent.parent
    return root / "tests" / name


def _check_folder(option: str, folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"The folder of {option}, {folder}, does not exist. Create it, or correct the path.")


def _check_new(*paths: Path) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise InputError(
                f"{path} exists, and this command overwrites nothing. No file was written.\n"
                "Remove it, or choose other files with --output and --test."
            )


def _check_dag_id(dag_id: str, dags_folder: Path) -> None:
    """Raise an error if a file in the DAGs folder has a DAG with this id, because Airflow would use one of the two."""
    for path in islice(dags_folder.rglob("*.py"), MAX_DAG_FILES):
        has_it = False
        # A file that is no Python has no DAG.
        with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError):
            # Reading a pipe would wait for a writer.
            is_small_file = path.is_file() and path.stat().st_size <= MAX_DAG_FILE_SIZE
            has_it = is_small_file and _has_dag(path.read_bytes(), dag_id)
        if has_it:
            raise InputError(
                f"{path} already has a DAG with the id {dag_id!r}. No file was written.\n"
                f"Choose another id, which is the name of the file: --output {dags_folder / 'other_name.py'}"
            )


def _has_dag(code: bytes, dag_id: str) -> bool:
    """Return whether Python code calls ``DAG`` or ``dag`` with this id, or makes a function of this name a DAG."""
    if dag_id.encode() not in code:
        return False
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("DAG", "dag"):
            ids = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "dag_id")]
            if any(isinstance(each, ast.Constant) and each.value == dag_id for each in ids):
                return True
        decorators = node.decorator_list if isinstance(node, ast.FunctionDef) and node.name == dag_id else []
        if any(re.match(r"(\w+\.)?dag\b", ast.unparse(each)) for each in decorators):
            return True
    return False


def _relative(path: Path, folder: Path) -> str:
    """Return the path of a file as seen from a folder; the absolute path if they have nothing in common."""
    path, folder = path.parent.resolve() / path.name, folder.resolve()
    if path.parts[:2] != folder.parts[:2]:
        return str(path)
    return Path(os.path.relpath(path, folder)).as_posix()


def _write_both(files: Mapping[Path, str]) -> None:
    """Write all files, or none of them. Folders that do not exist are created."""
    written: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Fails if another process has created the file in the meantime.
            with path.open("x", encoding="utf-8") as stream:
                written.append(path)
                stream.write(text)
    except OSError as error:
        for each in written:
            each.unlink()
        raise InputError(
            f"{path} cannot be written: {error.strerror}. No file was written.\n"
            "Choose other files with --output and --test."
        ) from None


def _shown(path: Path) -> str:
    """Return a path as short as it can be pasted."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

"""What only version 3 of the API has: bots and their templates; and how its responses are read as tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice, starmap
from typing import Annotated, Any

from pydantic import Field, PlainValidator

from airflow_provider_browseract.api.arguments import is_path_id
from airflow_provider_browseract.api.fields import Id, Json, Link, OptionalText, Time, kind_of, optional_id, read_count
from airflow_provider_browseract.api.models import (
    MAX_FILES,
    ApiVersion,
    BotType,
    CreatedTask,
    Model,
    Output,
    OutputFile,
    Task,
    TaskStatus,
    read_nothing,
    read_status,
)
from airflow_provider_browseract.exceptions import UnexpectedResponseError

Schema = Annotated[Any, PlainValidator(lambda value: value)]
"""A JSON Schema as it was sent. It may be anything."""


@dataclass(frozen=True)
class Bot(Model):
    """A bot. Only ``query-bot`` returns when it was created, and its schemas.

    ``input_schema`` is the JSON Schema of the input of a run, and null if the bot is not published. ``output_schema``
    is the JSON Schema of the output, and null if there is none.
    """

    id: Annotated[Id, Field(validation_alias="bot_id")]
    type: Annotated[BotType | None, Field(validation_alias="bot_type"), PlainValidator(BotType.of)] = None
    name: OptionalText = None
    description: OptionalText = None
    created_at: Time = None
    published_at: Time = None
    input_schema: Schema = field(default=None, repr=False, hash=False)
    output_schema: Schema = field(default=None, repr=False, hash=False)


@dataclass(frozen=True)
class BotTemplate(Model):
    """An official template that runs as a bot. Only ``query-template`` returns its schema and its description."""

    id: Annotated[Id, Field(validation_alias="template_id")]
    name: OptionalText = None
    description: OptionalText = None
    recommendation: Annotated[OptionalText, Field(validation_alias="recommend_desc")] = None
    detail_url: Link = None
    input_schema: Schema = field(default=None, repr=False, hash=False)


def read_created(data: Json) -> CreatedTask:
    """Read the response to a start. The vendor's own scripts also accept ``id`` instead of ``task_id``."""
    given = _object(data)
    created = CreatedTask.read({"id": given.get("task_id") or given.get("id")})
    _check_id(created.id)
    return created


def read_status_of(task_id: str) -> Callable[[Json], TaskStatus]:
    """Return a function that reads the status of a task."""

    def read(data: Json) -> TaskStatus:
        _check_task(_object(data).get("task_id"), task_id)
        return read_status(data)

    return read


def read_action_on(task_id: str) -> Callable[[Json], None]:
    """Return a function that reads the response to a stop or a resume: the status, or nothing.

    The document describes only the status. A client of the API takes an empty response for a success.
    """
    status = read_status_of(task_id)

    def read(data: Json) -> None:
        # A resumed task may still be paused, and a stopped one may still be running.
        if isinstance(data, Mapping) and "status" in data:
            status(data)
        else:
            read_nothing(data)

    return read


def read_run_of(task_id: str) -> Callable[[Json], Task]:
    """Return a function that reads a run with its output."""

    def read(data: Json) -> Task:
        run = read_run(data)
        _check_task(run.id, task_id)
        return run

    return read


def read_run(data: Json) -> Task:
    """Read a run.

    The output is read as strictly as that of version 2, but only once the task has ended.
    """
    given = _object(data)
    run = Task.read(_as_task(given))
    output = _output(given.get("output"), given.get("output_files")) if run.status.ended else None
    return _of_version_3(run, output)


def read_run_summary(data: Json) -> Task:
    """Read a run of a list as tolerantly as :meth:`Task.read_summary` reads a task of version 2."""
    return _of_version_3(Task.read_summary(_as_task(_object(data))))


_NOT_IN_VERSION_3 = dict.fromkeys(("output", "workflow_id", "input_parameters", "profile_id", "profileId"))
"""Fields of a task that version 3 does not have, or that mean something else there."""


def _as_task(given: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, **_NOT_IN_VERSION_3, "id": given.get("task_id")}


def _of_version_3(task: Task, output: Output | None = None) -> Task:
    _check_id(task.id)
    return replace(task, output=output, api_version=ApiVersion.V3)


def _check_id(task_id: str) -> None:
    if not is_path_id(task_id):
        raise UnexpectedResponseError("the id of the task has characters that no address of the API can have")


def _check_task(found: Json, wanted: str) -> None:
    if optional_id(found) != wanted:
        raise UnexpectedResponseError("it is about another task" if found is not None else "it does not name the task")


def _output(value: Json, files: Json) -> Output | None:
    """Return the output of a task that has ended: a JSON value, and the same as files of several formats."""
    if value is None and files is None:
        return None
    if not isinstance(files, Mapping | None):
        raise UnexpectedResponseError("the files of an output should be an object with one entry for each format")
    formats = tuple(starmap(_output_file, islice((files or {}).items(), MAX_FILES)))
    if value is None and any(each.url is None for each in formats):
        raise UnexpectedResponseError("the output is only in files, and one of them has no download_url")
    left_out = len(files or {}) - len(formats)
    if isinstance(value, str | None):
        return Output(value, files_left_out=left_out, formats=formats, is_json=None if value is None else False)
    return Output(json.dumps(value, ensure_ascii=False), files_left_out=left_out, formats=formats, is_json=True)


def _output_file(name: str, data: Json) -> OutputFile:
    given = data if isinstance(data, Mapping) else {}
    url, file_name = given.get("download_url"), given.get("file_name")
    return OutputFile(
        name,
        file_name if isinstance(file_name, str) else None,
        read_count(given.get("file_size")),
        url if isinstance(url, str) and url else None,
    )


def _object(data: Json) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise UnexpectedResponseError(f"the response should be an object, but is {kind_of(data)}")
    return data

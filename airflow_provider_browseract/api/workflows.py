"""What only version 2 of the API has: workflows and official templates, with the inputs that they declare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AliasChoices, Field, PlainValidator

from airflow_provider_browseract.api.fields import Flag, Id, Json, Link, OptionalText, Time
from airflow_provider_browseract.api.models import Model, read_items


def _declared(value: Json) -> tuple[InputParameter, ...]:
    """Return the inputs that a workflow declares, or none if one cannot be read, so that no name is refused."""
    found, skipped = read_items(value if isinstance(value, list) else [], InputParameter.read)
    return () if skipped else found


@dataclass(frozen=True)
class InputParameter(Model):
    """An input that a workflow or template declares. If ``default_enabled`` is ``False``, the input is required."""

    name: Id
    default_enabled: Flag = None


Inputs = Annotated[tuple[InputParameter, ...], PlainValidator(_declared)]


@dataclass(frozen=True)
class Workflow(Model):
    """A workflow. Only ``get-workflow`` returns its inputs."""

    id: Id
    name: OptionalText = None
    description: OptionalText = None
    created_at: Annotated[Time, Field(validation_alias="create_at")] = None
    published_at: Annotated[Time, Field(validation_alias="publish_at")] = None
    input_parameters: Inputs = ()


@dataclass(frozen=True)
class Template(Model):
    """An official workflow template. Its id is ``templateId`` in the list, and ``id`` in the single template."""

    id: Annotated[Id, Field(validation_alias=AliasChoices("templateId", "id"))]
    name: OptionalText = None
    description: OptionalText = None
    recommendation: Annotated[OptionalText, Field(validation_alias="recommendDesc")] = None
    detail_url: Annotated[Link, Field(validation_alias="detailUrl")] = None
    input_parameters: Inputs = ()

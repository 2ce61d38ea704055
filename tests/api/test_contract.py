"""Each call of the provider, held against the vendor's document."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest

from airflow_provider_browseract.api.models import TaskStatus

from .test_v2 import EVERY_CALL

DOCUMENT = os.environ.get("BROWSERACT_OPENAPI")

pytestmark = pytest.mark.skipif(not DOCUMENT, reason="BROWSERACT_OPENAPI does not name the vendor's document")


@pytest.fixture(scope="module")
def document():
    assert DOCUMENT
    return json.loads(Path(DOCUMENT).read_text())


def validate(document, schema, value):
    # The schemas refer to each other by their place in the document.
    jsonschema.validate(value, {**schema, "components": document["components"]})


def operation(document, call):
    return document["paths"][call.path][call.method.lower()]


def test_v2_cover_exactly_the_operations_of_the_vendors_document(document):
    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert {(call.method, call.path) for call in EVERY_CALL.values()} == documented


@pytest.mark.parametrize("name", EVERY_CALL)
def test_call_body_and_parameters_are_valid_by_the_vendors_document(document, name):
    call = EVERY_CALL[name]
    described = operation(document, call)
    parameters = {parameter["name"]: parameter for parameter in described.get("parameters", [])}
    assert set(call.params) <= set(parameters)
    assert {name for name, parameter in parameters.items() if parameter.get("required")} <= set(call.params)
    for name, value in call.params.items():
        validate(document, parameters[name]["schema"], value)
    if call.body is None:
        assert "requestBody" not in described
        return
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    validate(document, schema, call.body)
    properties = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]["properties"]
    assert set(call.body) <= set(properties)


def test_task_statuses_are_exactly_those_of_the_vendors_document(document):
    assert {status.value for status in TaskStatus} == set(document["components"]["schemas"]["TaskStatus"]["enum"])

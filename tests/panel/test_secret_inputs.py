"""Secret inputs that an agent may quote are replaced in what a page shows."""

from __future__ import annotations

import time

import pytest

from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.hooks.hiding import without
from airflow_provider_browseract.panel import secret_inputs
from airflow_provider_browseract.panel.secret_inputs import secret_texts, secrets_of
from tests.cases import cases


@cases(
    "inputs, text, shown",
    {
        "one": ("password=hunter2", "Type hunter2", "Type ***"),
        "between others": (
            "user=ada; password=hunter2; x=pens",
            "ada types hunter2 for pens",
            "ada types *** for pens",
        ),
        "with the separator": ("password=hun; ter2=x; keyword=pens", "Type hun; ter2=x", "Type ***"),
        "with an equals sign": ("api_key=a=b=c", "Type a=b=c", "Type ***"),
        "in JSON": ('login={"user": "ada", "password": "hunter2"}', "ada types hunter2", "ada types ***"),
        "in JSON with the separator": ('login={"password": "hun; ter2"}; x=1', "Type hun; ter2", "Type ***"),
        "none": ("keyword=hunter2", "Type hunter2", "Type hunter2"),
        "too short": ("password=abc", "Type abc", "Type abc"),
        "no inputs": ("", "Type hunter2", "Type hunter2"),
    },
)
def test_secret_is_replaced_wherever_the_text_quotes_it(inputs, text, shown):
    secrets = secret_texts(inputs)
    assert secrets is not None
    assert without(secrets, text) == shown


def test_no_secrets_are_looked_for_in_very_long_inputs():
    assert secret_texts("x" * (secret_inputs.MAX_INPUTS + 1)) is None


@pytest.mark.parametrize("unit", ["password=; ", "; ", "a={; ", "password"])
def test_hostile_inputs_take_less_than_a_second(unit):
    inputs = (unit * secret_inputs.MAX_INPUTS)[: secret_inputs.MAX_INPUTS]
    began = time.thread_time()
    secret_texts(inputs)
    assert time.thread_time() - began < 1.0


@cases(
    "given, secrets",
    {
        "secret": ({"user": "ada", "login": {"password": "hunter2"}}, ["hunter2"]),
        "number": ({"pin": 1, "api_key": 123456}, ["123456"]),
        "empty": ({"password": ""}, []),
        "no secret": ({"keyword": "hunter2"}, []),
        "no input": ({}, []),
        "input that is not known": (None, None),
        "input that BrowserAct hides": ({"password": "*" * 8}, None),
        "too many": ({"password": [f"secret-{number}" for number in range(300)]}, None),
    },
)
def test_secrets_of_the_input_of_a_bot(given, secrets):
    task = Task("1", TaskStatus.RUNNING, api_version=ApiVersion.V3, input=given)
    assert secrets_of(task) == secrets

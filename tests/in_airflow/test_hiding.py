"""What is removed from a run before a worker shows anything of it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from airflow_provider_browseract.api.declared import MAX_INPUT
from airflow_provider_browseract.api.models import ApiVersion, Failure, Step, Task, TaskStatus
from airflow_provider_browseract.in_airflow import hiding
from airflow_provider_browseract.in_airflow.hiding import HIDDEN_REASON, NOTHING, Hiding, has_secret_names
from tests.helpers.cases import cases

SECRET = "hunter2ofthisbot"


def run(goal: str, given: dict[str, Any] | None) -> Task:
    steps = (Step(number=1, status="failed", goal=goal, evaluation_previous_goal=goal),)
    failure = Failure(code=9, message=goal)
    return Task(id="7", status=TaskStatus.FAILED, steps=steps, failure=failure, api_version=ApiVersion.V3, input=given)


@cases(
    {
        **{
            name: (f"Type {SECRET} into the field", given, {"Type *** into the field"})
            for name, given in {
                "at the top": {"password": SECRET},
                "nested": {"shop": {"accounts": [{"user": "ada", "api_key": SECRET}]}},
                "list": {"secrets": [SECRET, "other secret"]},
            }.items()
        },
        "number": ("Type 483920", {"password": 483920}, {"Type ***"}),
        "longer one of two": ("Type secret-and-more", {"password": "secret", "token": "secret-and-more"}, {"Type ***"}),
        **{
            f"no secret in {given}": (f"Type {SECRET}: ab, true", given, {f"Type {SECRET}: ab, true"})
            for given in (None, {}, {"user": SECRET}, {"password": None, "secret": True, "token": "ab"})
        },
        "whole text": (SECRET, {"password": SECRET}, {"***", HIDDEN_REASON}),
    },
)
def test_secret_that_only_the_response_has_is_hidden_in_all_texts_of_the_agent(monkeypatch, goal, given, shown):
    monkeypatch.setattr(hiding, "redact", lambda text: text)
    task = Hiding(secrets=True).apply(run(goal, given))
    [step] = task.steps
    assert {step.goal, step.evaluation_previous_goal, task.failure.message} == shown


@pytest.mark.parametrize(
    ("given", "hides"), [({"password": SECRET}, True), ({"keyword": SECRET}, False), (None, True)], ids=str
)
def test_other_processes_hide_texts_of_a_run_whose_input_in_the_response_has_secrets(given, hides):
    assert Hiding().of_run(run("Type", given)).hidden == (("secret_inputs",) if hides else ())


def test_texts_are_hidden_if_the_input_is_too_deep_to_look_for_secrets():
    deep: Any = SECRET
    for _ in range(sys.getrecursionlimit()):
        deep = [deep]
    task = Hiding(secrets=True).apply(run(f"Type {SECRET}", {"lists": deep}))
    assert (task.steps[0].goal, task.failure.message) == ("***", HIDDEN_REASON)
    assert Hiding().of_run(run("Type", {"lists": deep})).hidden == ("secret_inputs",)


def test_hook_of_a_user_hides_nothing():
    task = run(f"Type {SECRET}", {"password": SECRET})
    assert NOTHING.apply(task) is task


V3 = ApiVersion.V3


@cases(
    {
        "no inputs": ({}, False),
        "texts": ({"input_parameters": "keyword=pens; password of the shop=x"}, True),
        "name in JSON text": ({"input_parameters": 'login={"user": "a", "password": "x"}'}, True),
        "texts without secrets": ({"input_parameters": "keyword=password; pages=2"}, False),
        "very long texts": ({"input_parameters": "keyword=" + "x" * MAX_INPUT}, True),
        "names": ({"input": {"api_key": None}, "api_version": V3}, True),
        "names without secrets": ({"input": {"keyword": None}, "api_version": V3}, False),
        "names that are not known": ({"api_version": V3}, True),
    },
)
def test_names_of_inputs_tell_whether_they_are_secret(fields, secret):
    assert has_secret_names(Task(id="7", status=TaskStatus.RUNNING, **fields)) is secret

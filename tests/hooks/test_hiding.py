"""What is removed from a run before a worker shows anything of it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion, Failure, Step, Task, TaskStatus
from airflow_provider_browseract.hooks.hiding import HIDDEN_REASON, MAX_SECRETS, NOTHING, Hiding
from tests.cases import cases

SECRET = "hunter2ofthisbot"


MANY = [f"secret {number}" for number in range(MAX_SECRETS + 1)]
NESTED: Any = {"password": SECRET}
for _ in range(5000):
    NESTED = [NESTED]


def run(goal: str, given: dict[str, Any] | None) -> Task:
    steps = (Step(1, "failed", goal, goal, None),)
    failure = Failure(9, goal)
    return Task("7", TaskStatus.FAILED, steps=steps, failure=failure, api_version=ApiVersion.V3, input=given)


@cases(
    ("goal", "given", "shown"),
    {
        **{
            name: (f"Type {SECRET} into the field", given, {"Type *** into the field"})
            for name, given in {
                "at the top": {"password": SECRET},
                "nested": {"shop": {"accounts": [{"user": "ada", "api_key": SECRET}]}},
                "list": {"secrets": [SECRET, "other secret"]},
                "pairs": {"fields": [{"name": "password", "value": SECRET}]},
                "JSON text": {"form": f'{{"password": "{SECRET}"}}'},
            }.items()
        },
        "number": ("Type 483920", {"password": 483920}, {"Type ***"}),
        "longer one of two": ("Type secret-and-more", {"password": "secret", "token": "secret-and-more"}, {"Type ***"}),
        **{
            f"no secret in {given}": (f"Type {SECRET}: ab, true", given, {f"Type {SECRET}: ab, true"})
            for given in (None, {}, {"user": SECRET}, {"password": None, "secret": True, "token": "ab"})
        },
        # The secrets cannot be found, so the whole texts are hidden.
        "too many": (f"Type {SECRET}", {"passwords": MANY}, {"***", HIDDEN_REASON}),
        "too deep": (f"Type {SECRET}", {"form": NESTED}, {"***", HIDDEN_REASON}),
    },
)
def test_secret_that_only_the_input_in_the_response_has_is_hidden_in_all_texts_of_the_agent(goal, given, shown):
    task = Hiding(secrets=True, redact=lambda text: text).apply(run(goal, given))
    [step] = task.steps
    assert {step.goal, step.evaluation_previous_goal, task.failure.message} == shown


@pytest.mark.parametrize(
    ("given", "hidden"), [({"password": SECRET}, ("secret_inputs",)), ({"password": ""}, ()), (None, ())]
)
def test_other_processes_hide_texts_of_a_run_whose_input_in_the_response_has_secrets(given, hidden):
    assert Hiding().of_run(run("Type", given)).hidden == hidden


def test_hook_of_a_user_hides_nothing():
    task = run(f"Type {SECRET}", {"password": SECRET})
    assert NOTHING.apply(task) is task

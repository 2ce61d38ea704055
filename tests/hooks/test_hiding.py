"""What is removed from a run before a worker shows anything of it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion, Failure, Step, Task, TaskStatus
from airflow_provider_browseract.hooks.hiding import HIDDEN_REASON, MAX_SECRETS, NOTHING, Hiding

SECRET = "hunter2ofthisbot"


def run(goal: str, given: dict[str, Any] | None) -> Task:
    steps = (Step(1, "failed", goal, goal, None),)
    failure = Failure(9, goal)
    return Task("7", TaskStatus.FAILED, steps=steps, failure=failure, api_version=ApiVersion.V3, input=given)


def texts_of(task: Task) -> set[str | None]:
    """Return what an agent has written about a run."""
    assert task.failure
    return {task.failure.message, *(text for step in task.steps for text in (step.goal, step.evaluation_previous_goal))}


def hidden(goal: str, given: dict[str, Any] | None) -> set[str | None]:
    return texts_of(Hiding(secrets=True, redact=lambda text: text).apply(run(goal, given)))


@pytest.mark.parametrize(
    "given",
    [
        {"password": SECRET},
        {"shop": {"accounts": [{"user": "ada", "api_key": SECRET}]}},
        {"secrets": [SECRET, "other secret"]},
        {"fields": [{"name": "password", "value": SECRET}]},
        {"form": f'{{"password": "{SECRET}"}}'},
    ],
    ids=["at the top", "nested", "list", "pairs", "JSON text"],
)
def test_secret_that_only_the_input_in_the_response_has_is_hidden_in_all_texts_of_the_agent(given):
    assert hidden(f"Type {SECRET} into the field", given) == {"Type *** into the field"}


def test_secret_number_of_an_input_is_hidden():
    assert hidden("Type 483920", {"password": 483920}) == {"Type ***"}


def test_longer_one_of_two_secrets_is_hidden_as_a_whole():
    assert hidden("Type secret-and-more", {"password": "secret", "token": "secret-and-more"}) == {"Type ***"}


@pytest.mark.parametrize("given", [None, {}, {"user": SECRET}, {"password": None, "secret": True, "token": "ab"}])
def test_text_without_a_secret_is_unchanged(given):
    assert hidden(f"Type {SECRET}: ab, true", given) == {f"Type {SECRET}: ab, true"}


NESTED: Any = {"password": SECRET}
for _ in range(5000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "given",
    [{"passwords": [f"secret {number}" for number in range(MAX_SECRETS + 1)]}, {"form": NESTED}],
    ids=["too many", "too deep"],
)
def test_whole_texts_are_hidden_if_the_secrets_of_an_input_cannot_be_found(given):
    assert hidden(f"Type {SECRET}", given) == {"***", HIDDEN_REASON}


@pytest.mark.parametrize(
    ("given", "hidden"), [({"password": SECRET}, ("secret_inputs",)), ({"password": ""}, ()), (None, ())]
)
def test_other_processes_hide_texts_of_a_run_whose_input_in_the_response_has_secrets(given, hidden):
    assert Hiding().of_run(run("Type", given)).hidden == hidden


def test_hook_of_a_user_hides_nothing():
    task = run(f"Type {SECRET}", {"password": SECRET})
    assert NOTHING.apply(task) is task

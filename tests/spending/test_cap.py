from airflow_provider_browseract.api.models import Step, Task, TaskStatus
from airflow_provider_browseract.spending.cap import over_cap_text
from tests.helpers.cases import cases

LOOPING = Task(
    id="123",
    status=TaskStatus.CANCELED,
    steps=tuple(Step(number=number, status="succeed", goal="Open the next page.") for number in range(1, 42)),
    log_detail_url="https://browseract.example/123",
)
BARE = Task(id="123", status=TaskStatus.RUNNING)


NOT_STOPPED = "The run could not be stopped."
SHARED = "There is no retry, because the tries of a task instance share max_credits."
USED = "It used 1,205 credits by step 41: Open the next page."
USED_BY_ALL = "The runs of this task instance used 1,205 credits."


@cases(
    ("stopped", LOOPING, None, {}, f"{USED} {SHARED}"),
    ("not stopped", LOOPING, NOT_STOPPED, {}, f"{USED} {NOT_STOPPED} {SHARED}"),
    ("before a retry", LOOPING, NOT_STOPPED, {"retried": True}, f"{USED} {NOT_STOPPED} The next try"),
    ("no shared cap", LOOPING, None, {"shared": False}, f"{USED} There is no retry, because a"),
    ("no steps", BARE, None, {}, f"It used 1,205 credits. {SHARED}"),
    ("with earlier runs", BARE, "Gone.", {"earlier": 5}, f"{USED_BY_ALL} Gone."),
)
def test_error_of_a_run_above_the_cap_names_the_step_and_what_became_of_the_run(run, fate, how, then):
    text = over_cap_text(run, 1205, 1200, fate=fate, **{"earlier": 0, "shared": True, "retried": False, **how})
    over = "ore credits were used than max_credits=1200 allows."
    reason = f"The run was stopped, because m{over}" if fate is None else f"M{over}"
    assert text.startswith(f"{reason}\n{then}")
    _, then, *links, ids = text.splitlines()
    assert then.endswith(" Look for a loop in its last steps, or raise max_credits if the run needs more.")
    assert links == (["Log: https://browseract.example/123"] if run is LOOPING else [])
    assert ids.startswith("BrowserAct task 123")

from airflow_provider_browseract.api.models import Step, Task, TaskStatus
from airflow_provider_browseract.spending.cap import over_cap_text

LOOPING = Task(
    id="123",
    status=TaskStatus.CANCELED,
    steps=tuple(Step(number=number, status="succeed", goal="Open the next page.") for number in range(1, 42)),
    log_detail_url="https://browseract.example/123",
)


def test_error_of_a_run_above_the_cap_names_the_last_step_if_there_is_one():
    for run, step in ((LOOPING, " by step 41: Open the next page"), (Task(id="7", status=TaskStatus.RUNNING), "")):
        text = over_cap_text(run, 1205, 1200, earlier=0, fate=None, shared=True, retried=False)
        reason, then, *links, _ = text.splitlines()
        assert reason == "The run was stopped, because more credits were used than max_credits=1200 allows."
        assert then.startswith(f"It used 1,205 credits{step}. There is no retry, because the tries of a task instance")
        assert then.endswith(" Look for a loop in its last steps, or raise max_credits if the run needs more.")
        assert links == (["Log: https://browseract.example/123"] if step else [])

from typing import Any

import pytest
from tenacity import RetryCallState, Retrying

from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.calls import controls, may_send_again
from airflow_provider_browseract.api.settings import Settings

READ = v2.get_task("7")

NOT_NOW = [errors.ConcurrencyLimitError, errors.RateLimitError]
NOBODY_KNOWS = [errors.ResponseLostError, errors.ServerError]
TEMPORARY = [errors.ConnectionFailedError, *NOT_NOW, *NOBODY_KNOWS]
PERMANENT = [
    *(errors.AuthenticationError, errors.InvalidRequestError, errors.UnknownRefusalError, errors.TaskNotFoundError),
    *(errors.UnexpectedResponseError, KeyError),
]


@pytest.mark.parametrize("call", [READ, v2.stop_task("7")], ids=["read", "stop"])
@pytest.mark.parametrize("kind", [*TEMPORARY, *PERMANENT])
def test_call_that_starts_no_run_is_sent_again_only_after_a_temporary_error(call, kind):
    assert may_send_again(call, kind("x")) is (kind in TEMPORARY)
    assert not may_send_again(call, errors.ConnectionFailedError("x", temporary=False))


@pytest.mark.parametrize("call", [v2.run("70"), v2.run_template("80")], ids=["workflow", "template"])
def test_start_is_sent_again_only_if_it_was_certainly_not_processed(call):
    assert may_send_again(call, errors.ConnectionFailedError("x"))
    # The queue sends a start again that BrowserAct does not accept now.
    assert not any(may_send_again(call, kind("x")) for kind in (*NOBODY_KNOWS, *NOT_NOW, *PERMANENT))


class Tries:
    """Plays an error to a policy again and again, and writes down the pauses, without waiting."""

    def __init__(self, error: errors.BrowserActError, **policy: Any) -> None:
        self.pauses: list[float] = []
        self.count = 0
        self.raised: BaseException | None = None
        how = controls(READ, Settings(api_key="app-key", **policy))
        stop = how.pop("stop")

        def stop_on_our_clock(state: RetryCallState) -> bool:
            # tenacity's clock would show how fast the test is; ours counts the pauses as time.
            state.outcome_timestamp = state.start_time + sum(self.pauses)
            return stop(state)

        def attempt() -> None:
            self.count += 1
            raise error

        try:
            Retrying(**how, stop=stop_on_our_clock, sleep=self.pauses.append)(attempt)
        except errors.BrowserActError as last:
            self.raised = last


def test_pauses_between_attempts_grow_with_full_jitter_up_to_the_longest():
    policy = {"budget": 1000, "first_pause": 0.5, "longest_pause": 8}
    many = [Tries(errors.ServerError("x"), **policy).pauses for _ in range(20)]
    for position, bound in enumerate([0.5, 1, 2, 4, 8, 8, 8]):
        seen = [pauses[position] for pauses in many]
        assert max(seen) <= bound
        assert max(seen) > bound / 2
        assert min(seen) < bound / 2


def test_only_the_first_failed_attempt_is_logged_with_the_time_that_others_may_take():
    lines: list[str] = []
    left = iter([errors.ConnectionFailedError("No connection to http://x", code=7)] * 4)

    def fail() -> None:
        if error := next(left, None):
            raise error

    settings = Settings(api_key="app-key", retry_budget=1000, first_pause=0.0, longest_pause=0.0)
    Retrying(**controls(READ, settings, lambda text, *values: lines.append(text % values)))(fail)
    assert lines == ["No connection to http://x (code 7). Trying again for up to 1000 seconds."]


@pytest.mark.parametrize(
    ("budget", "told", "pauses"), [(100, 40.0, [40.0, 40.0]), (20, 21.0, [])], ids=["within", "beyond the budget"]
)
def test_retry_after_decides_the_pauses_and_ends_the_attempts_beyond_the_budget(budget, told, pauses):
    tries = Tries(errors.RateLimitError("x", retry_after=told), retry_budget=budget)
    assert (tries.pauses, tries.count) == (pauses, len(pauses) + 1)


@pytest.mark.parametrize("told", [0.0, -3.0, 0.01], ids=["zero", "negative", "short"])
def test_retry_after_never_shortens_the_pause_between_attempts(told):
    error = errors.RateLimitError("x", retry_after=told)
    # Without any pause, there would be no end.
    assert max(Tries(error, retry_budget=10, first_pause=1, longest_pause=8).count for _ in range(20)) < 12


def test_budget_bounds_all_attempts_and_the_last_error_is_raised():
    error = errors.ServerError("x")
    tries = Tries(error, retry_budget=20)
    assert tries.raised is error
    assert sum(tries.pauses) <= 20
    assert tries.count == len(tries.pauses) + 1

from __future__ import annotations

import pytest
from tenacity import RetryCallState, Retrying

from airflow_provider_browseract.api import errors, v2
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.retries import RetryPolicy, may_send_again

READ = v2.get_task("7")
START = v2.run_task("70")
STOP = v2.stop_task("7")

NEVER_ARRIVED = [errors.ConnectionFailedError, errors.RateLimitError, errors.ConcurrencyLimitError]
NOBODY_KNOWS = [errors.ResponseLostError, errors.ServerError]
HOPELESS = [
    errors.AuthenticationError,
    errors.InvalidRequestError,
    errors.UnknownRefusalError,
    errors.TaskNotFoundError,
    errors.NotTheApiError,
    errors.UnexpectedResponseError,
]


@pytest.mark.parametrize("call", [READ, STOP], ids=["a read", "a stop"])
@pytest.mark.parametrize("kind", [*NEVER_ARRIVED, *NOBODY_KNOWS])
def test_call_that_starts_no_run_is_sent_again_after_a_temporary_error(call, kind):
    assert may_send_again(call, kind("x"))


@pytest.mark.parametrize("call", [START, v2.run_task_by_template("80")], ids=["workflow", "template"])
def test_start_is_sent_again_only_if_it_was_certainly_not_processed(call):
    assert may_send_again(call, errors.ConnectionFailedError("x"))
    assert not any(may_send_again(call, kind("x")) for kind in NOBODY_KNOWS)


@pytest.mark.parametrize("kind", [errors.ConcurrencyLimitError, errors.RateLimitError])
def test_start_that_browseract_does_not_accept_now_is_not_sent_again_by_the_policy(kind):
    assert not may_send_again(START, kind("x"))


@pytest.mark.parametrize("call", [READ, START, STOP], ids=["read", "start", "stop"])
@pytest.mark.parametrize("kind", HOPELESS)
def test_no_call_is_sent_again_after_a_permanent_error(call, kind):
    assert not may_send_again(call, kind("x"))


def test_call_is_not_sent_again_after_an_unrelated_exception():
    assert not may_send_again(READ, KeyError("x"))


class Tries:
    """Plays errors to a policy and writes down the pauses, without waiting."""

    def __init__(self, policy: RetryPolicy, call: Call, *played: errors.BrowserActError) -> None:
        self.pauses: list[float] = []
        self.played = list(played)
        self.count = 0
        self.raised: BaseException | None = None
        controls = policy.controls(call)
        stop = controls.pop("stop")

        def stop_on_our_clock(state: RetryCallState) -> bool:
            # tenacity's clock would show how fast the test is; ours counts the pauses as time.
            state.outcome_timestamp = state.start_time + sum(self.pauses)
            return stop(state)

        try:
            Retrying(**controls, stop=stop_on_our_clock, sleep=self.pauses.append)(self.attempt)
        except errors.BrowserActError as error:
            self.raised = error

    def attempt(self) -> str:
        self.count += 1
        if self.played:
            raise self.played[0] if len(self.played) == 1 else self.played.pop(0)
        return "done"


def test_pauses_between_attempts_grow_with_full_jitter_up_to_the_longest():
    policy = RetryPolicy(budget=1000, first_pause=0.5, longest_pause=8)
    many = [Tries(policy, READ, errors.ServerError("x")).pauses for _ in range(20)]
    for position, bound in enumerate([0.5, 1, 2, 4, 8, 8, 8]):
        seen = [pauses[position] for pauses in many]
        assert max(seen) <= bound
        assert max(seen) > bound / 2
        assert min(seen) < bound / 2


def test_only_the_first_failed_attempt_is_logged_with_the_time_that_others_may_take():
    lines: list[str] = []
    policy = RetryPolicy(budget=1000, first_pause=0.0, longest_pause=0.0)

    def fail() -> None:
        if len(lines) > 3 or (lines and next(left, None) is None):
            return
        raise errors.ConnectionFailedError("No connection to http://x", code=7)

    left = iter(range(3))
    Retrying(**policy.controls(READ, lambda text, *values: lines.append(text % values)))(fail)
    assert lines == ["No connection to http://x (code 7). Trying again for up to 1000 seconds."]


def test_retry_after_decides_the_pause_between_attempts():
    told = Tries(RetryPolicy(budget=100), READ, errors.RateLimitError("x", retry_after=40.0))
    assert told.pauses == [40.0, 40.0]


@pytest.mark.parametrize("told", [0.0, -3.0, 0.01], ids=["zero", "negative", "short"])
def test_retry_after_never_shortens_the_pause_between_attempts(told):
    policy = RetryPolicy(budget=10, first_pause=1, longest_pause=8)
    counts = [Tries(policy, READ, errors.RateLimitError("x", retry_after=told)).count for _ in range(20)]
    # Without any pause, there would be no end.
    assert max(counts) < 12


def test_budget_bounds_all_attempts_and_the_last_error_is_raised():
    error = errors.ServerError("x")
    tries = Tries(RetryPolicy(budget=20), READ, error)
    assert tries.raised is error
    assert sum(tries.pauses) <= 20
    assert tries.count == len(tries.pauses) + 1


def test_retry_after_beyond_the_budget_ends_the_attempts_at_once():
    tries = Tries(RetryPolicy(budget=20), READ, errors.RateLimitError("x", retry_after=21.0))
    assert (tries.count, tries.pauses) == (1, [])

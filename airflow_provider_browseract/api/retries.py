"""Decide whether and when a call is sent again, with one policy for both clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenacity import RetryCallState, retry_if_exception, stop_before_delay
from tenacity.wait import wait_base, wait_random_exponential

from airflow_provider_browseract.exceptions import BrowserActError, ConcurrencyLimitError, RateLimitError

if TYPE_CHECKING:
    # Every process of Airflow imports this module with the provider info, and most of them need no models.
    from airflow_provider_browseract.api.calls import Call


def may_send_again(call: Call[Any], error: BaseException) -> bool:
    """Return whether a call that ended with an error may be sent again.

    Any call may be sent again after a temporary error, except one that starts a run. A start is sent again only if it
    certainly was not processed, and not if BrowserAct accepts no further start now. After a timeout, a reset or a 5xx,
    it is not known whether it was processed, and a second start would start, and bill, a second run.
    """
    if not isinstance(error, BrowserActError) or not error.temporary:
        return False
    if call.starts_run and isinstance(error, ConcurrencyLimitError | RateLimitError):
        # Many starts may be refused together. The caller decides how long to wait and which start comes next.
        return False
    return not call.starts_run or error.not_processed


@dataclass(frozen=True)
class RetryPolicy:
    """For how long, and with which pauses, a call is tried.

    :param budget: seconds from the first try after which no further try begins. A ``Retry-After`` beyond this limit
        ends the tries at once. Default: 60.
    :param first_pause: upper bound in seconds of the first pause. It doubles with each try. A pause is random within
        its bound, and at least as long as ``Retry-After`` requires. Default: 0.5.
    :param longest_pause: upper bound in seconds of any pause without ``Retry-After``. Default: 15.
    """

    budget: float = 60.0
    first_pause: float = 0.5
    longest_pause: float = 15.0

    def controls(self, call: Call[Any], warn: Callable[..., Any] | None = None) -> dict[str, Any]:
        """Return the arguments for ``tenacity.Retrying`` or ``tenacity.AsyncRetrying`` that apply this policy.

        :param warn: called with the reason, as the arguments of a log call, when the first try has failed.
        """

        def before_sleep(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if warn is not None and state.attempt_number == 1 and isinstance(error, BrowserActError):
                warn("%s. Trying again for up to %g seconds.", error.brief, self.budget)

        return {
            "before_sleep": before_sleep,
            "retry": retry_if_exception(lambda error: may_send_again(call, error)),
            "wait": _AtLeastRetryAfter(wait_random_exponential(multiplier=self.first_pause, max=self.longest_pause)),
            "stop": stop_before_delay(self.budget),
            "reraise": True,
        }


class _AtLeastRetryAfter(wait_base):
    """Our own pause, but at least as long as the response requires with ``Retry-After``."""

    def __init__(self, own: wait_base) -> None:
        self.own = own

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        return max(self.own(retry_state), getattr(error, "retry_after", None) or 0.0)

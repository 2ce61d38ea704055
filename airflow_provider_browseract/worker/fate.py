"""What happens to a run that a try no longer waits for, as a value: a kind for the code, and a sentence for people."""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_browseract.api.models import Word
from airflow_provider_browseract.exceptions import CHECK_NEWEST


class Kind(Word):
    """What happens to the run."""

    STOPPED = "stopped"
    ENDED = "ended"  # before the stop
    LEFT = "left"  # something else waits for it
    RUNS = "runs"  # or may run, and nothing is known to wait for it


class Fate(NamedTuple):
    """What happens to a run.

    :param text: the same as sentences.
    """

    kind: Kind
    text: str


STOPPED = Fate(Kind.STOPPED, "The run was stopped.")
ENDED = Fate(Kind.ENDED, "The run had already ended.")


class Waiter(Word):
    """What waits for a run that this process has left, as a clause about the run."""

    NEXT_TRY = "the next try reattaches to it"
    IF_NEXT_TRY = (
        "the next try reattaches to it if Airflow starts one. If Airflow starts none, nothing waits for the run: stop "
        "it in BrowserAct"
    )
    TRIGGERER = "the triggerer waits for it"
    IF_DEFERRED = "the triggerer waits for it if Airflow has accepted the deferral"


UNKNOWN = "It is not known whether BrowserAct started a run"


def left_to(waiter: Waiter, url: str | None) -> Fate:
    """Return the fate of a run for which something else waits.

    :param url: the page of the run, if it is known.
    """
    where = f" Its page is {url}." if url else ""
    return Fate(Kind.LEFT, f"The run keeps running, and {waiter}.{where}")


def looked_up_by(waiter: Waiter) -> Fate:
    """Return the fate of a start whose outcome is unknown, and which something else looks up."""
    then = f" if Airflow starts one. If not: {CHECK_NEWEST}" if waiter is Waiter.IF_NEXT_TRY else "."
    return Fate(Kind.LEFT, f"{UNKNOWN}. The next try looks for it{then}")

"""Mapped task instances with equal inputs whose responses are lost together, in random order and with random delays."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import CreatedTask, SourceInfo, Task, TaskStatus
from airflow_provider_browseract.exceptions import BrowserActError, ResponseLostError, ServerError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.orphans import Claim, OrphanError, ReadClaims
from airflow_provider_browseract.runs.starting import BeforeStart, StartedRun, begin
from airflow_provider_browseract.runs.steps import Sleep
from tests.cases import cases
from tests.runs.starts import listed_run, page_of, start


@dataclass
class World:
    """BrowserAct, Airflow's XComs, and task instances that start the same run at about the same time.

    Each request takes effect at some moment between its sending and its response.

    :param claims: whether the task instances have map indexes, so that they claim a run before they adopt it.
    :param slow: whether Airflow sometimes takes longer for a request than the pause after a claim.
    :param status: the status of all runs.
    """

    chance: random.Random
    claims: bool = True
    slow: bool = False
    status: TaskStatus = TaskStatus.RUNNING
    now: float = 10_000.0
    runs: list[Task] = field(default_factory=list)
    listed_after: dict[str, float] = field(default_factory=dict)
    claimed: dict[int, str] = field(default_factory=dict)
    followed: dict[int, str] = field(default_factory=dict)
    pushed_at: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def play(self, number: int) -> None:
        """Let the task instances start their runs, up to the end of each."""
        order = itertools.count()
        events: list[tuple[float, int, Any, int]] = []
        for index in range(number):
            steps = begin(start(patience=10.0), None, lambda: self.now)
            moment = self.now + self.chance.choice([0.0, self.chance.uniform(0.0, 6.0)])
            heapq.heappush(events, (moment, next(order), (steps, None, None), index))
        while events:
            self.now, _, (steps, request, reply), index = heapq.heappop(events)
            if request is not None:
                # This is the moment at which the request takes effect.
                step, over = request
                heapq.heappush(events, (over, next(order), (steps, None, self.reply(step, index)), index))
                continue
            try:
                step = steps.throw(reply) if isinstance(reply, Exception) else steps.send(reply)
            except StopIteration as stop:
                started: StartedRun = stop.value
                self.followed[index] = started.task_id
                self.pushed_at.setdefault(started.task_id, self.now + self.seconds(Claim(started.task_id)))
                continue
            except (OrphanError, BrowserActError) as error:
                self.failed.append(str(error))
                continue
            seconds = self.seconds(step)
            effect = self.now + self.chance.uniform(0.0, seconds)
            heapq.heappush(events, (effect, next(order), (steps, (step, self.now + seconds), None), index))

    def seconds(self, step: object) -> float:
        """Return how long a step takes."""
        if isinstance(step, Sleep):
            return step.seconds
        if self.slow and isinstance(step, ReadClaims | Claim) and self.chance.random() < 0.3:
            return self.chance.uniform(3.0, 20.0)
        return self.chance.choice([0.01, self.chance.uniform(0.01, 2.0)])

    def reply(self, step: object, index: int) -> object:
        if isinstance(step, ReadClaims):
            others = sorted((claim for claim in self.claimed.items() if claim[0] != index), reverse=True)
            pushed = [task_id for task_id, moment in self.pushed_at.items() if moment <= self.now]
            return {task_id: other for other, task_id in others} | dict.fromkeys(pushed, -1)
        if isinstance(step, Claim):
            if not self.claims:
                return -1
            self.claimed[index] = step.task_id
            return index
        if isinstance(step, BeforeStart):
            return step.request
        if not isinstance(step, Call):
            return None
        if step.starts_run:
            fate = self.chance.choice(["lost", "lost", "never arrived", "well"])
            if fate == "never arrived":
                return self.chance.choice([ServerError("x", http_status=503), ResponseLostError("x")])
            task_id = str(100 + len(self.runs))
            self.runs.append(listed_run(task_id, int(self.now), self.status))
            self.listed_after[task_id] = self.now + self.chance.uniform(0.0, timings.LISTING_DELAY - 1.0)
            return CreatedTask(id=task_id) if fate == "well" else ResponseLostError("x")
        if step.name == "get-workflow":
            return SourceInfo(id="70")
        if step.name == "get-task":
            return next(run for run in self.runs if run.id == step.params["task_id"])
        assert step.name == "list-tasks"
        return page_of(*(run for run in self.runs if self.listed_after[run.id] <= self.now))

    @property
    def adopted_twice(self) -> bool:
        return len(set(self.followed.values())) < len(self.followed)


def played(seed: int, **world: Any) -> World:
    found = World(random.Random(seed), **world)
    found.play(2 + seed % 2)
    return found


@cases("world", {"": {}, "with a slow Airflow": {"slow": True}, "all have failed": {"status": TaskStatus.FAILED}})
def test_no_run_is_adopted_by_two_mapped_siblings(world):
    assert not [seed for seed in range(1500) if played(seed, **world).adopted_twice]


@pytest.mark.parametrize("slow", [False, True], ids=["", "with a slow Airflow"])
def test_each_run_is_adopted_by_a_sibling_or_named_in_an_error(slow):
    for seed in range(500):
        world = played(seed, slow=slow)
        left = {run.id for run in world.runs} - set(world.followed.values())
        assert not [run for run in left if not any(run in error for error in world.failed)], seed


def test_without_claims_two_siblings_would_adopt_one_run():
    assert [seed for seed in range(300) if played(seed, claims=False).adopted_twice]

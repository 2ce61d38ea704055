"""Replaces Airflow's human-in-the-loop: its Required Actions, and the people who answer them."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID


class People:
    """Stores Required Actions as a module of Airflow does: one per task instance, with its first text."""

    def __init__(self, monkeypatch, airflow) -> None:
        self.questions: dict[str, dict[str, Any]] = {}
        self.asked = 0
        self.looks: list[str] = []
        self.away: Exception | None = None
        self.delay = 0.0
        monkeypatch.setattr(airflow, "upsert_hitl_detail", self._ask)
        monkeypatch.setattr(airflow, "get_hitl_detail_content_detail", self._get)
        monkeypatch.setattr(airflow, "update_hitl_detail_response", self._update)

    @property
    def question(self) -> dict[str, Any]:
        [question] = self.questions.values()
        return question

    def answer(self, option: str, by: str | None = "ada") -> dict[str, Any]:
        """Answer the Required Action, and return the event with which Airflow 3.3 resumes the task."""
        person = None if by is None else {"id": "1", "name": by}
        self.question.update(chosen=[option], by=person, at=datetime.fromtimestamp(time.time(), timezone.utc))
        return {
            "chosen_options": [option],
            "params_input": {},
            "responded_at": "2026-11-25T12:00:00+00:00",
            "responded_by_user": person,
            "timedout": False,
        }

    def _ask(self, ti_id, **asked) -> None:
        self.asked += 1
        self.questions.setdefault(str(ti_id), asked).update(chosen=None, by=None, at=None)

    def _find(self, ti_id: UUID) -> dict[str, Any]:
        assert isinstance(ti_id, UUID)
        self.looks.append("begun")
        # Simulates a slow API server.
        time.sleep(self.delay)
        self.looks.append("ended")
        if self.away:
            raise self.away
        return self.questions[str(ti_id)]

    def _get(self, ti_id) -> SimpleNamespace:
        found = self._find(ti_id)
        return SimpleNamespace(
            response_received=found["chosen"] is not None,
            chosen_options=found["chosen"],
            responded_by_user=found["by"] and SimpleNamespace(**found["by"]),
            responded_at=found["at"],
        )

    def _update(self, ti_id, chosen_options, params_input) -> None:
        found = self._find(ti_id)
        if found["chosen"] is not None:
            raise RuntimeError("409 already answered")
        found.update(chosen=chosen_options, by=None, at=datetime.fromtimestamp(time.time(), timezone.utc))

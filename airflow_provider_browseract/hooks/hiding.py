"""Remove from a run what Airflow must not show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_browseract.api.fields import MAX_LINE_LENGTH
from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.compat import redact

HIDDEN = "***"

LIVE_VIEW, SECRET_INPUTS = "live_view", "secret_inputs"
"""Words of the key ``hidden`` of the XCom ``task``."""

HIDDEN_REASON = "BrowserAct's reason may quote secret inputs, so it is only in BrowserAct's log of the run"


@dataclass(frozen=True)
class Hiding:
    """Remove from each run that is read what may not reach logs, XComs, links, Required Actions and stored facts.

    :param live_view: remove the address of the live view.
    :param secrets: replace the secrets that this process masks in logs, because the agent may quote inputs.
    :param texts: remove everything in which the agent may quote inputs, because this process does not know them.
    :param secret_inputs: the run has secret inputs.
    :param redact: replaces the secrets in a text.
    """

    live_view: bool = False
    secrets: bool = False
    texts: bool = False
    secret_inputs: bool = False
    redact: Callable[[str], str] = redact

    @property
    def hidden(self) -> tuple[str, ...]:
        """What other processes have to hide too if they show the run: ``live_view``, ``secret_inputs``."""
        hidden = {LIVE_VIEW: self.live_view, SECRET_INPUTS: self.secret_inputs or self.texts}
        return tuple(name for name, hide in hidden.items() if hide)

    def apply(self, result: Any) -> Any:
        """Return the result of a call without what is to be hidden."""
        if not isinstance(result, Task):
            return result
        if self.live_view:
            result = replace(result, live_url=None)
        if self.secrets or self.texts:
            steps = tuple(
                replace(
                    step, goal=self._text(step.goal), evaluation_previous_goal=self._text(step.evaluation_previous_goal)
                )
                for step in result.steps
            )
            reason = result.failure and self._text(result.failure.message)
            failure = result.failure and replace(result.failure, message=HIDDEN_REASON if reason == HIDDEN else reason)
            result = replace(result, steps=steps, failure=failure)
        return result

    def _text(self, text: str | None) -> str | None:
        if not text or self.texts:
            return text and HIDDEN
        if len(text) >= MAX_LINE_LENGTH:
            # The end was cut off, perhaps in the middle of a secret.
            text = text.rpartition(" ")[0]
        return self.redact(text) or HIDDEN


NOTHING = Hiding()

"""Remove from a run what Airflow must not show: the live view, and secrets of its input that an agent quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_browseract.api.declared import MAX_INPUT
from airflow_provider_browseract.api.fields import MAX_LINE_LENGTH
from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.compat import is_secret, redact

HIDDEN = "***"

LIVE_VIEW, SECRET_INPUTS = "live_view", "secret_inputs"
"""Words of the key ``hidden`` of the XCom ``task``."""

HIDDEN_REASON = "BrowserAct's reason may quote secret inputs, so it is only in BrowserAct's log of the run"

FEWEST_CHARACTERS = 5
"""Shorter secrets of an input are not replaced, as Airflow's logs do not mask them by default."""

_NAME = re.compile(r"(?:^|; )([^=;]+)=")
_JSON_NAME = re.compile(r'"([^"\\]{1,100})"\s*:')


@dataclass(frozen=True)
class Hiding:
    """What is removed from each run before it reaches logs, XComs, links, Required Actions and stored facts.

    :param live_view: remove the address of the live view.
    :param secrets: replace the secrets that this process masks in logs, and those in the input that the API returns,
        which also has defaults, because the agent may quote inputs.
    :param texts: remove everything in which the agent may quote inputs, because this process does not know them.
    :param secret_inputs: the run has secret inputs.
    """

    live_view: bool = False
    secrets: bool = False
    texts: bool = False
    secret_inputs: bool = False

    @property
    def hidden(self) -> tuple[str, ...]:
        """What other processes have to hide too if they show the run: ``live_view``, ``secret_inputs``."""
        hidden = {LIVE_VIEW: self.live_view, SECRET_INPUTS: self.secret_inputs or self.texts}
        return tuple(name for name, hide in hidden.items() if hide)

    def of_run(self, task: Task) -> Hiding:
        """Return the rules for this run. Defaults of a bot can add secrets to its input."""
        return replace(self, secret_inputs=self.secret_inputs or has_secret_names(task) or _secrets_of(task) != set())

    def apply(self, result: Any) -> Any:
        """Return the result of a call without what is to be hidden."""
        if not isinstance(result, Task):
            return result
        changed: dict[str, Any] = {"live_url": None} if self.live_view else {}
        if self.secrets or self.texts:
            found = _secrets_of(result)
            secrets = sorted(found or (), key=len, reverse=True)

            def shown(text: str | None) -> str | None:
                if not text or self.texts or found is None:
                    return text and HIDDEN
                if len(text) >= MAX_LINE_LENGTH:
                    # The end was cut off, perhaps in the middle of a secret.
                    text = text.rpartition(" ")[0]
                text = redact(text)
                for secret in secrets:
                    text = text.replace(secret, HIDDEN)
                return text or HIDDEN

            names = ("goal", "evaluation_previous_goal")
            changed["steps"] = tuple(
                step.model_copy(update={name: shown(getattr(step, name)) for name in names}) for step in result.steps
            )
            if result.failure is not None:
                reason = shown(result.failure.message)
                reason = HIDDEN_REASON if reason == HIDDEN else reason
                changed["failure"] = result.failure.model_copy(update={"message": reason})
        return result.model_copy(update=changed) if changed else result


def _secrets_of(task: Task) -> set[str] | None:
    """Return the texts under which secrets of the input that the API returns can appear; None if it is too deep."""
    from airflow_provider_browseract.runs.request import without_secrets

    found: set[str] = set()
    try:
        without_secrets(task.input, is_secret, found)
    except RecursionError:
        return None
    return {text for text in found if len(text) >= FEWEST_CHARACTERS}


def has_secret_names(task: Task) -> bool:
    """Return whether a run may have secret inputs, by their names alone. Those of a bot may be unknown."""
    if task.api_version is ApiVersion.V2:
        text = task.input_parameters or ""
        return len(text) > MAX_INPUT or any(map(is_secret, _NAME.findall(text) + _JSON_NAME.findall(text)))
    return task.input is None or any(map(is_secret, task.input))


NOTHING = Hiding()

"""``make live``: find out from the real service what its documents do not describe, and print it as a table.

    BROWSERACT_API_KEY=app-... WORKFLOW_ID=... BOT_ID=... make live

Only what is set is asked about, in this order:

- ``WORKFLOW_ID`` is a workflow, which API v2 runs once to its end. It is started three times more and stopped at once.
- ``BOT_ID`` and ``AGENT_BOT_ID`` are bots, one of each type. API v3 runs each of them once to its end. It is started
  twice more, and up to three times with inputs that do not conform to its schema, and stopped at once.
- ``BOT_TEMPLATE_ID`` is a template of API v3. It is started once and stopped at once.

Only these starts use credits. However it ends, every run is stopped that was started and is still active.

With an account of the free plan, which allows one run, the starts beside an active run cost nothing, and the first one
shows how BrowserAct refuses a start when the plan is full. The table then has the line that the provider needs, and
where to put it. The workflow should have a Private Browser, because a Standard Browser may refuse the start itself.

``INPUT_PARAMETERS`` is a JSON object with the inputs of the workflow. ``BOT_INPUT``, ``AGENT_BOT_INPUT`` and
``BOT_TEMPLATE_INPUT`` are those of the others. ``BROWSERACT_URL`` is another address of the API. For the checks of
callbacks, ``CALLBACK_URL`` is a public address from which requests reach port ``CALLBACK_PORT`` (8765) of this machine.
``LIVE_TIMEOUT`` (900) is the number of seconds that each run may take.

Nothing secret is printed: only the length of texts, the host of addresses and the end of ids. The names of inputs are
printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from airflow_provider_browseract.api.settings import DEFAULT_BASE_URL
from dev import live_bot, live_workflow
from dev.live_session import Live, Receiver, Settings, Version, lines, stop_all


class Source(NamedTuple):
    """Something that is run, and what is asked about it.

    :param inputs: the variable with its inputs.
    """

    what: str
    inputs: str
    version: Version
    ask: Callable[[Live, Receiver | None], None]


SOURCES = {
    "WORKFLOW_ID": Source("workflow", "INPUT_PARAMETERS", live_workflow.V2, live_workflow.ask),
    "BOT_ID": Source("bot", "BOT_INPUT", live_bot.V3, live_bot.ask),
    "AGENT_BOT_ID": Source("agent-built bot", "AGENT_BOT_INPUT", live_bot.V3, live_bot.ask),
    "BOT_TEMPLATE_ID": Source("bot template", "BOT_TEMPLATE_INPUT", live_bot.TEMPLATES, live_bot.ask_template),
}
"""The sources by the variables with their ids."""


def ask(live: Live, questions: Callable[[Live, Receiver | None], None]) -> None:
    """Ask everything about one source, and stop what is still active, however it ends."""
    with contextlib.ExitStack() as stack:
        stack.callback(live.http.close)
        receiver = None
        if live.settings.callback_url is not None:
            receiver = Receiver(live.settings.callback_port)
            stack.callback(receiver.close)
        stack.callback(stop_all, live)
        questions(live, receiver)
        live.tell("Which headers are about limits?", ", ".join(sorted(live.limits)) or "none were seen")


def main() -> int:
    """Run the checks, and print the results."""
    api_key = os.environ.get("BROWSERACT_API_KEY")
    given = {name: source for name, source in SOURCES.items() if os.environ.get(name)}
    if not api_key or not given:
        names = ", ".join(SOURCES)
        print(f"Set BROWSERACT_API_KEY and some of {names}. See dev/live.py for what it costs.", file=sys.stderr)
        return 2
    lost = []
    for name, source in given.items():
        inputs: dict[str, Any] = json.loads(os.environ.get(source.inputs) or "{}")
        if source.version is live_workflow.V2:
            inputs = {key: value if isinstance(value, str) else json.dumps(value) for key, value in inputs.items()}
        live = Live(
            Settings(
                url=os.environ.get("BROWSERACT_URL") or DEFAULT_BASE_URL,
                api_key=api_key,
                source_id=os.environ[name],
                inputs=inputs,
                callback_url=os.environ.get("CALLBACK_URL"),
                callback_port=int(os.environ.get("CALLBACK_PORT") or 8765),
                timeout=float(os.environ.get("LIVE_TIMEOUT") or 900),
            ),
            source.version,
        )
        try:
            ask(live, source.ask)
        finally:
            print("\n".join((f"The {source.what}", "", *lines(live), "")))
            for line in live.lost:
                print(f"{line} and using credits. Stop it in the BrowserAct dashboard.", file=sys.stderr)
        lost += live.lost
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())

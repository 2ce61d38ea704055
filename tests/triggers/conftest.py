import json

import pytest

from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.wait import WaitEvent
from tests.helpers.workers import logs, payloads_of
from tests.helpers.world import emulator, world

__all__ = ["emulator", "logs", "world"]


@pytest.fixture
def wait(world):
    def run(trigger) -> WaitEvent:
        [payload] = world.run(payloads_of(trigger))
        assert json.loads(json.dumps(payload)) == payload
        return from_json(WaitEvent, payload)

    return run

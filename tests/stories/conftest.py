from __future__ import annotations

import pytest

from tests.world import World


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)

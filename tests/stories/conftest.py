from __future__ import annotations

import pytest

from tests.stories.player import Player
from tests.world import World


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


@pytest.fixture
def player(world, capfd):
    """Return a function that makes a player for what is run, ``workflow`` or ``bot``, and a way of waiting."""
    return lambda kind, way: Player(world, kind, way == "deferred", lambda: "".join(capfd.readouterr()))

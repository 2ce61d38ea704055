from __future__ import annotations

import pytest

from tests.stories.player import SHAPES, Player
from tests.world import World


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


@pytest.fixture
def player(world, capfd):
    """Return a function that makes a player for what is run, ``workflow`` or ``bot``, and a way of waiting."""

    def make(kind, way, shapes=SHAPES[0]):
        return Player(world, kind, way == "deferred", shapes, lambda: "".join(capfd.readouterr()))

    return make

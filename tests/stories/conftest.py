import pytest

from tests.stories.player import SHAPES, Player
from tests.world import emulator, world

__all__ = ["emulator", "world"]


@pytest.fixture
def player(world, emulator, capfd):
    def make(kind, way, shapes=SHAPES[0]):
        return Player(world, kind, way == "deferred", shapes, lambda: "".join(capfd.readouterr()))

    return make

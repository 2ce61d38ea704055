import pytest

from tests.helpers.world import emulator, world
from tests.stories.player import SHAPES, Player

__all__ = ["emulator", "world"]


@pytest.fixture
def player(world, emulator, capfd):
    def make(kind, way, shapes=SHAPES[0]):
        return Player(world, kind, way == "deferred", shapes, lambda: "".join(capfd.readouterr()))

    return make

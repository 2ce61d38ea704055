from __future__ import annotations

from tests.workers import store
from tests.world import emulator, worker, world

__all__ = ["emulator", "store", "worker", "world"]

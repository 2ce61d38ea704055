from __future__ import annotations

from tests.world import emulator, worker, world

__all__ = ["emulator", "worker", "world"]

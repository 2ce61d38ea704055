from __future__ import annotations

from tests.workers import logs
from tests.world import emulator, worker, world

__all__ = ["emulator", "logs", "worker", "world"]

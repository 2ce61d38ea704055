from tests.workers import logs, store
from tests.world import emulator, worker, world

__all__ = ["emulator", "logs", "store", "worker", "world"]

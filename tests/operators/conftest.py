from tests.helpers.workers import logs, store
from tests.helpers.world import emulator, worker, world

__all__ = ["emulator", "logs", "store", "worker", "world"]

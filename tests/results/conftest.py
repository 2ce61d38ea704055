from __future__ import annotations

from tests.results.file_host import host
from tests.workers import emulator, logs, store, worker

__all__ = ["emulator", "host", "logs", "store", "worker"]

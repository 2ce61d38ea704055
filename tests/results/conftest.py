from __future__ import annotations

from tests.helpers.workers import emulator, logs, store, worker
from tests.results.file_host import host

__all__ = ["emulator", "host", "logs", "store", "worker"]

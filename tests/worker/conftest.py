from __future__ import annotations

from tests.workers import emulator, logs, store, worker

__all__ = ["emulator", "logs", "store", "worker"]

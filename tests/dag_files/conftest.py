from __future__ import annotations

from tests.workers import emulator, store, worker

__all__ = ["emulator", "store", "worker"]

"""Stub."""

from __future__ import annotations

from typing import Any


def read_input(value: Any) -> dict[str, Any]:
    """Check the input of a bot."""
    return dict(value or {})

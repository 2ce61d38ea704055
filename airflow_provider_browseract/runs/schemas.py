"""Stub."""

from __future__ import annotations

from typing import Any


def read_input(value: Any) -> dict[str, Any]:
    """Check the input of a bot."""
    return dict(value or {})


def declared_defaults(schema: Any) -> dict[str, Any]:
    """Return the defaults of the names at the top of a schema."""
    properties = schema["properties"] if schema else {}
    return {name: member["default"] for name, member in properties.items() if "default" in member}

"""Parametrized tests whose cases have names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest


def cases(names: str | tuple[str, ...], by_id: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Run a test with each of the cases, by their ids."""
    return pytest.mark.parametrize(names, by_id.values(), ids=by_id)

"""Inputs of bots, and schemas made from them: their places and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Lazy(Sequence[str]):
    """Texts, as Airflow returns the results of mapped tasks."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> Any:
        return self.texts[index]

"""How a figure is printed, with its limit."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """What is measured.

    :param limit: the largest value that is good.
    """

    what: str
    limit: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.what} (limit {self.limit:g}{self.unit and f' {self.unit}'})"

    def report(self, value: float, more: str = "") -> None:
        """Print the figure, and more about it."""
        mark = "ABOVE" if value > self.limit else "ok"
        print(f"{mark:5}  {self}: {value:.3g}{more and f'; {more}'}", flush=True)

"""Some consecutive rows of a larger table, held here."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from typing_extensions import override

from closedform.rows.block import Block, Extent, Readable
from closedform.rows.table import Rows

__all__ = ["Shifted"]


@final
class Shifted(Readable):
    """Rows in memory that are those from ``first`` on of a larger table.

    Args:
        rows: They.
        first: Number of the first in the larger table.
    """

    def __init__(self, rows: Rows, first: int) -> None:
        self._rows, self._first = rows, first

    @property
    @override
    def extent(self) -> Extent:
        return self._rows.extent

    @override
    def block(self, start: int, stop: int, *, as_stored: bool = False, unweighted: bool = False) -> Block:
        block = self._rows.block(start, stop, as_stored=as_stored, unweighted=unweighted)
        return replace(block, start=start + self._first)

    @override
    def report(self, label: str, part: float) -> None:
        """Nothing: whoever walks the larger table tells how far it is."""

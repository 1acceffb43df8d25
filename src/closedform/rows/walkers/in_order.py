"""One process reads the rows in order."""

from __future__ import annotations

from typing import final

from typing_extensions import override

from closedform.rows.block import Block, Readable
from closedform.rows.walkers.walker import AnyFold, Walker

__all__ = ["InOrder"]


@final
class InOrder(Walker):
    """Reads the table from its first row to its last, block by block."""

    @override
    def walk(self, table: Readable, fold: AnyFold) -> AnyFold:
        extent = table.extent
        size = fold.rows_at_a_time(extent)
        for start in range(0, extent.n_rows, size):
            stop = min(start + size, extent.n_rows)
            fold.add(table.block(start, stop, as_stored=fold.as_stored, unweighted=fold.unweighted))
            table.report(fold.label, stop / extent.n_rows)
        return fold

    @override
    def gather(self, table: Readable, *, as_stored: bool, unweighted: bool = False) -> Block:
        return table.block(0, table.extent.n_rows, as_stored=as_stored, unweighted=unweighted)

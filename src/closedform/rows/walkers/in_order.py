"""One process reads the rows in order."""

from __future__ import annotations

from typing import final

from typing_extensions import override

from closedform.engine.capacity import available_memory
from closedform.rows.block import Block, Readable
from closedform.rows.walkers.walker import AnyFold, Walker
from closedform.words.errors import InputError

__all__ = ["InOrder"]


@final
class InOrder(Walker):
    """Reads the table from its first row to its last, block by block."""

    @override
    def walk(self, table: Readable, fold: AnyFold) -> AnyFold:
        extent, done = table.extent, 0
        size = fold.rows_at_a_time(extent)
        blocks = table.blocks(size, as_stored=fold.as_stored, unweighted=fold.unweighted)
        try:
            for block in blocks:
                fold.add(block)
                done += block.X.shape[0]
                table.report(fold.label, done / extent.n_rows)
        finally:
            blocks.close()
        return fold

    @override
    def gather(self, table: Readable, *, as_stored: bool, unweighted: bool = False) -> Block:
        extent = table.extent
        if not extent.in_memory:
            # Asking costs more than a small fit: the kernel answers by a dozen files.
            needed, available = 8 * extent.n_rows * (extent.n_features + extent.n_targets), available_memory()
            if needed > available:
                raise InputError(
                    f"all {extent.n_rows:,} rows of the file are needed at once for this fit: {needed / 1e9:.2f} GB in "
                    f"float64, and {available / 1e9:.2f} GB are available. Use fewer rows or a machine with more "
                    "memory."
                )

        return table.block(0, extent.n_rows, as_stored=as_stored, unweighted=unweighted)

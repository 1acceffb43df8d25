"""A second walker: the table cut into parts with states of their own, which travel as tensors and are merged."""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch
from typing_extensions import override

from closedform.rows import Block
from closedform.rows.block import Readable
from closedform.rows.walkers import Walker
from closedform.rows.walkers.walker import AnyFold

__all__ = ["Parts"]


@final
class Parts(Walker):
    """Cuts the rows into parts; rows do not leave their part, only the states of folds do.

    Args:
        count: How many parts; those for which there are no rows stay empty.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    @override
    def walk(self, table: Readable, fold: AnyFold) -> AnyFold:
        extent = table.extent
        size = fold.rows_at_a_time(extent)
        ends = [extent.n_rows * part // self.count for part in range(self.count + 1)]
        for first, last in pairwise(ends):
            part = fold.fresh()
            for start in range(first, last, size):
                stop = min(start + size, last)
                part.add(table.block(start, stop, as_stored=fold.as_stored, unweighted=fold.unweighted))
            if first == last:
                continue
            # As over a network: what arrives are tensors.
            arrived = fold.fresh()
            arrived.load_state(tuple(tensor.clone() for tensor in part.state()))
            fold.merge(arrived)
        return fold

    @override
    def gather(self, table: Readable, *, as_stored: bool, unweighted: bool = False) -> Block:
        extent = table.extent
        ends = sorted({extent.n_rows * part // self.count for part in range(self.count + 1)})
        blocks = [table.block(a, b, as_stored=as_stored, unweighted=unweighted) for a, b in pairwise(ends)]
        weights = [block.weight for block in blocks if block.weight is not None]
        return Block(
            0,
            torch.cat([block.X for block in blocks]),
            torch.cat([block.Y for block in blocks]),
            torch.cat(weights) if weights else None,
            blocks[0].engine,
        )

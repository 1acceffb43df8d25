"""A Dask cluster walks: a task for each partition, and a tree of tasks that merges what they found."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.rows.block import Block, Readable
from closedform.rows.fold import Fold
from closedform.rows.shifted import Shifted
from closedform.rows.table import Rows, as_rows
from closedform.rows.walkers.in_order import InOrder
from closedform.rows.walkers.walker import AnyFold, Walker
from closedform.words.errors import InputError

__all__ = ["OnDask", "import_dask"]

#: States that one task merges: few levels of the tree, and few states in memory at once.
_MERGED_AT_ONCE = 4

#: Features, targets and weights (or None) of a partition, as delayed objects.
Part = tuple[Any, Any, Any]


@final
class OnDask(Walker):
    """Runs a fold on every partition where it is made; only states of folds travel, and only one to the client.

    Args:
        parts: Partitions in order.
        lengths: Rows of each.
    """

    def __init__(self, parts: Sequence[Part], lengths: Sequence[int]) -> None:
        self._parts, self._lengths = list(parts), list(lengths)

    @override
    def walk(self, table: Readable, fold: AnyFold) -> AnyFold:
        dask = import_dask()
        fold_part, merge_parts = dask.delayed(_fold_part, pure=False), dask.delayed(_merge, pure=False)
        empty, start, states = dask.delayed(fold.fresh(), pure=False, traverse=False), 0, []
        for part, length in zip(self._parts, self._lengths, strict=True):
            if length:
                states.append(fold_part(empty, start, length, *part))
            start += length
        while len(states) > 1:
            groups = [states[i : i + _MERGED_AT_ONCE] for i in range(0, len(states), _MERGED_AT_ONCE)]
            states = [merge_parts(empty, group) if len(group) > 1 else group[0] for group in groups]

        (state,) = dask.compute(states[0])
        found = fold.fresh()
        found.load_state(state)
        fold.merge(found)
        table.report(fold.label, 1.0)
        return fold

    @override
    def gather(self, table: Readable, *, as_stored: bool, unweighted: bool = False) -> Block:
        extent = table.extent
        if extent.n_rows > extent.n_features:
            raise InputError(
                f"all {extent.n_rows:,} rows of the Dask collection are needed at once, and they stay on the workers; "
                "compute() it first if it fits in memory."
            )
        parts = [part for part, length in zip(self._parts, self._lengths, strict=True) if length]
        tables = [as_rows(*part) for part in import_dask().compute(parts)[0]]
        blocks = [rows.block(0, rows.n_rows, as_stored=as_stored, unweighted=unweighted) for rows in tables]
        weights = [block.weight for block in blocks if block.weight is not None]
        X, Y = torch.cat([block.X for block in blocks]), torch.cat([block.Y for block in blocks])
        return Block(0, X, Y, torch.cat(weights) if weights else None, blocks[0].engine)


def import_dask() -> Any:
    """Return the package, which is installed where there are collections of it."""
    return import_module("dask")


def _local(length: int, X: Any, Y: Any, weight: Any) -> Rows:
    """Return the rows of a partition.

    Raises:
        InputError: there are others than were counted.
    """
    rows = as_rows(X, Y, weight)
    if rows.n_rows != length:
        raise InputError(
            f"a partition has {rows.n_rows} rows, and {length} before: its passes differ. Persist it first."
        )
    return rows


def _fold_part(empty: Fold, start: int, length: int, X: Any, Y: Any, weight: Any) -> tuple[Tensor, ...]:
    """What a worker does with a partition."""
    part = empty.fresh()
    InOrder().walk(Shifted(_local(length, X, Y, weight), start), part)
    return part.state()


def _merge(empty: Fold, states: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What a worker does with the states of neighbours."""
    first = empty.fresh()
    for state in states:
        other = empty.fresh()
        other.load_state(state)
        first.merge(other)
    return first.state()

"""A Dask cluster walks: a task for each partition, and a tree of tasks that merges what they found."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.rows.block import Block, Readable
from closedform.rows.fold import Fold
from closedform.rows.shifted import Shifted
from closedform.rows.table import Rows, as_rows
from closedform.rows.unnumbered import agreed_names
from closedform.rows.walkers.in_order import InOrder
from closedform.rows.walkers.walker import AnyFold, Walker
from closedform.words.errors import ClosedformError, DataTypeError, InputError
from closedform.words.numbers import plural

__all__ = ["OnDask", "computed", "import_dask"]

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
        first: Some rows of the first one, whose columns all have.
    """

    def __init__(self, parts: Sequence[Part], lengths: Sequence[int], first: Rows) -> None:
        self._parts, self._lengths = list(parts), list(lengths)
        self._columns = _Columns((first.n_features, first.n_targets), first.feature_names, first.target_names)

    @override
    def walk(self, table: Readable, fold: AnyFold) -> AnyFold:
        dask = import_dask()
        fold_part, merge_parts = dask.delayed(_fold_part, pure=False), dask.delayed(_merge, pure=False)
        empty, start, states = dask.delayed(fold.fresh(), pure=False, traverse=False), 0, []
        chosen = None if table.chosen is None else table.chosen.tolist()
        for part, length in zip(self._parts, self._lengths, strict=True):
            if length:
                states.append(fold_part(empty, start, (length, self._columns), chosen, *part))
            start += length
        while len(states) > 1:
            groups = [states[i : i + _MERGED_AT_ONCE] for i in range(0, len(states), _MERGED_AT_ONCE)]
            states = [merge_parts(empty, group) if len(group) > 1 else group[0] for group in groups]

        state = computed(states[0])
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
        lengths = [length for length in self._lengths if length]
        read = zip(lengths, computed(parts), strict=True)
        tables = [_local(length, self._columns, *part).chosen_as(table) for length, part in read]
        blocks = [rows.block(0, rows.n_rows, as_stored=as_stored, unweighted=unweighted) for rows in tables]
        weights = [block.weight for block in blocks if block.weight is not None]
        X, Y = torch.cat([block.X for block in blocks]), torch.cat([block.Y for block in blocks])
        return Block(0, X, Y, torch.cat(weights) if weights else None, blocks[0].engine)


def import_dask() -> Any:
    """Return the package, which is installed where there are collections of it."""
    return import_module("dask")


def computed(delayed: Any) -> Any:
    """Return what delayed objects stand for.

    Raises:
        InputError: computing one failed: in the user's own functions, in Dask's checks, or because workers died.
        ClosedformError: it was raised by a worker, and says already what is wrong.
        MemoryError: likewise; the tables may be fine.
    """
    try:
        return import_dask().compute(delayed)[0]
    except (ClosedformError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"computing a partition failed: {type(error).__name__}: {reason}") from error


@final
class _Columns(NamedTuple):
    """What the columns of every partition have to be.

    Attributes:
        counts: Features and targets.
        names: What the features are called, or None.
        target_names: Likewise.
    """

    counts: tuple[int, int]
    names: tuple[str, ...] | None
    target_names: tuple[str, ...] | None


def _local(length: int, columns: _Columns, X: Any, Y: Any, weight: Any) -> Rows:
    """Return the rows of a partition.

    Raises:
        InputError: there are others than were counted, of other columns, or of indexes that do not agree.
        DataTypeError: they are no numbers.
    """
    try:
        rows = as_rows(X, Y, weight)
    except (InputError, DataTypeError) as error:
        raise type(error)(f"a partition of {length} rows: {error}") from error
    if rows.n_rows != length:
        raise InputError(
            f"a partition has {rows.n_rows} rows, and {length} before: its passes differ. Persist it first."
        )
    agreed_names(columns.names, rows.feature_names, "another partition")
    agreed_names(columns.target_names, rows.target_names, "another partition of Y")
    counts = rows.n_features, rows.n_targets
    if counts != columns.counts:
        raise InputError(
            f"a partition has {plural(counts[0], 'feature')} and {plural(counts[1], 'target')}, and the first one with "
            f"rows {columns.counts[0]} and {columns.counts[1]}; all have the same columns."
        )
    return rows


def _fold_part(
    empty: Fold, start: int, expected: tuple[int, _Columns], chosen: list[int] | None, X: Any, Y: Any, weight: Any
) -> tuple[Tensor, ...]:
    """What a worker does with a partition."""
    part, rows = empty.fresh(), _local(*expected, X, Y, weight)
    if chosen is not None:
        rows = rows.select(torch.tensor(chosen, device=rows.device))
    InOrder().walk(Shifted(rows, start), part)
    return part.state()


def _merge(empty: Fold, states: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What a worker does with the states of neighbours."""
    first = empty.fresh()
    for state in states:
        other = empty.fresh()
        other.load_state(state)
        first.merge(other)
    return first.state()

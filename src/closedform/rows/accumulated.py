"""Rows as they are gathered and folded into a triangle: a fold that keeps all that least squares needs of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.engine.threads import FOLD_BY_ONE, one_thread
from closedform.engine.triangles import append_rows, shortened
from closedform.numerics.scaling import power_of_two_exponents, times_power_of_two
from closedform.numerics.triangle import Triangle
from closedform.rows.block import Block, Extent
from closedform.rows.fold import Fold
from closedform.rows.norms import check_finite, check_weights
from closedform.rows.table import Rows, as_rows
from closedform.rows.tensors import TensorSource
from closedform.words.errors import NonFiniteError

__all__ = ["Accumulated"]

#: Entries of a block of rows that are gathered before they are folded: they stay in the cache of a core.
_CACHED_ENTRIES = 2**17
#: Rows of a block for each column, if they are no more than the next number: more cost the triangle before little.
_ROWS_A_COLUMN = 8
#: Entries that are read at once, and of a block at most.
_BLOCK_ENTRIES = 2**19
#: Rows of a block for each column at least: then what a fold does to the triangle before is a third of its work.
_FEWEST_A_COLUMN = 2
#: Blocks that are folded into a triangle of their own before it joins that of all rows. What a fold rounds adds up with
#: the root of their number: so with that of thousands it is no more than with a hundred.
_RECENT_BLOCKS = 64
#: The floating types narrower than float64, in which rows may be stored, by their unit roundoff.
_NARROW = {torch.finfo(dtype).eps / 2: dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)}
#: Columns of numbers beyond this power of two, or below its inverse, are scaled.
_FAR = 256
#: The same as numbers.
_SMALLEST = 2.0**-_FAR
#: Likewise.
_LARGEST = 2.0**_FAR


@final
class Accumulated(Fold):
    """The triangle of ``[1 | X | Y]`` by Householder QR, in the units of the table; nothing has to be known before.

    There is a column of ones also where there is no bias: it tells the means, and so how much is explained.

    Args:
        n_features: Columns of X.
        n_targets: Columns of Y.
        device: Where the triangle is kept.

    Attributes:
        rows: How many of positive weight were folded.
        roundoff: The largest unit roundoff of the features and targets of all rows, as they were stored; 0 for float64
            and integers. :meth:`heed` sets it.
    """

    unweighted = True
    label = "folding"

    def __init__(self, n_features: int, n_targets: int, device: torch.device | str = "cpu") -> None:
        self._columns, self._targets, self.device = n_features + 1, n_targets, device
        self._block_rows = _block_rows(self._columns, n_targets)
        self.roundoff = (0.0, 0.0)
        self._heeded: tuple[torch.dtype, torch.dtype] | None = None
        self.start(self._empty())

    def start(self, triangle: Triangle) -> None:
        """Go on from a triangle; what was folded here is forgotten."""
        self._triangle, self._recent, self._recent_blocks = triangle, self._empty(), 0
        self.rows, self._weight = triangle.rows, triangle.weight_sum
        self._waiting, self._held = triangle.R.new_empty(0, self._columns + self._targets), 0

    def _empty(self) -> Triangle:
        return Triangle.empty(self._columns, self._targets, has_ones=True, device=self.device)

    def whole(self) -> Triangle:
        """Return the triangle of all rows so far, with a column of ones first."""
        self._flush()
        self._join()
        return replace(self._triangle, rows=self.rows, weight_sum=self._weight)

    def to_rows(self, *, single_target: bool) -> Rows:
        """Return the triangle as a table that knows how many rows it stands for.

        Args:
            single_target: Whether the user's targets were one-dimensional.
        """
        X, Y, weight = self.whole().to_table()
        dtypes = [_NARROW.get(unit, torch.float64) for unit in self.roundoff]
        x, y = TensorSource(X, "X", stored_dtype=dtypes[0]), TensorSource(Y, "Y", stored_dtype=dtypes[1])
        rows = as_rows(x, y, weight)
        return replace(rows, single_target=single_target, triangle_of=self.rows)

    def heed(self, features: torch.dtype, targets: torch.dtype) -> None:
        """Remember how coarsely the numbers of rows that are folded here are stored."""
        if (features, targets) != self._heeded:
            self._take_roundoff(_roundoff(features), _roundoff(targets))
            self._heeded = features, targets

    def _take_roundoff(self, features: float, targets: float) -> None:
        self.roundoff = max(self.roundoff[0], features), max(self.roundoff[1], targets)

    def takes(self, rows: Rows) -> bool:
        """Return whether rows have the columns that are folded here."""
        return (rows.n_features + 1, rows.n_targets) == (self._columns, self._targets)

    def snapshot(self) -> tuple[Any, ...]:
        """Return what :meth:`restore` goes back to."""
        folded = self._triangle, self._recent, self._recent_blocks
        return folded, self.rows, self._weight, self._waiting, self._held, self.roundoff

    def restore(self, before: tuple[Any, ...]) -> None:
        """Go back to a snapshot."""
        folded, self.rows, self._weight, self._waiting, self._held, self.roundoff = before
        self._triangle, self._recent, self._recent_blocks = folded
        self._heeded = None

    def __getstate__(self) -> dict[str, Any]:
        # Whoever saves a view saves all that it is a view of.
        return {**self.__dict__, "_waiting": self._waiting[: self._held].clone()}

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return max(self._block_rows, _BLOCK_ENTRIES // (self._columns + self._targets))

    @override
    def add(self, block: Block) -> None:
        self.add_block(block)

    def add_block(self, block: Block, names: tuple[Any, Any] = (None, None)) -> None:
        """Check a block of rows and put them, times the roots of their weights, with those that wait.

        Args:
            block: The rows.
            names: What the columns of features and targets are called.

        Raises:
            NonFiniteError: NaN or infinities, or a product beyond the range of float64.
        """
        if block.weight is None:
            self.add_rows(block.X, block.Y, start=block.start, names=names)
            return
        p, count = self._columns, block.X.shape[0]
        parts = self._triangle.R.new_empty(count, p + self._targets)
        parts[:, 0] = 1.0
        parts[:, 1:p] = block.X
        parts[:, p:] = block.Y
        if not _is_finite(parts):
            check_finite(block, names)

        total, count = check_weights(block.weight, block.start)
        weight = block.weight.to(parts)
        parts = parts.mul_(weight.sqrt().unsqueeze(1))[weight > 0]
        if not _is_finite(parts) and not bool(torch.isfinite(parts).all()):
            raise NonFiniteError(
                "a row times the root of its weight is beyond the range of float64; scale the weights down."
            )
        self._append(parts, rows=count, weight_sum=total)

    def add_rows(self, X: Tensor, Y: Tensor, *, start: int = 0, names: tuple[Any, Any] = (None, None)) -> None:
        """Check rows that all count once where they wait, and so without a copy of their own.

        Args:
            X: ``(rows, features)``.
            Y: ``(rows, targets)``.
            start: Number of the first row.
            names: What the columns of features and targets are called.

        Raises:
            NonFiniteError: NaN or infinities.
        """
        done, count = 0, X.shape[0]
        while done < count:
            taken = count - done
            if self._held + taken > self._waiting.shape[0]:
                taken = self._make_room(taken)
            # A small batch costs little more than these few calls, so that none is made twice.
            x, y = (X, Y) if taken == count else (X[done : done + taken], Y[done : done + taken])
            finite = append_rows(self._waiting, self._held, x, y)
            if not (finite if finite is not None else self._copy(x, y)):
                check_finite(Block(start, X, Y, None, engine_for(X)), names)
            done += taken
            self._count(taken, rows=taken, weight_sum=taken)

    def _copy(self, X: Tensor, Y: Tensor) -> bool:
        """Write rows behind those that wait, and return whether all are finite; if their sum is not, they may be."""
        rows = self._waiting[self._held : self._held + X.shape[0]]
        torch.cat([rows.new_ones(X.shape[0], 1), X.to(rows.device), Y.to(rows.device)], 1, out=rows)
        return _is_finite(rows)

    @override
    def merge(self, other: Self) -> None:
        # Its rows wait with the others: a thousand small triangles cost few folds, and round as little.
        self._take_roundoff(*other.roundoff)
        triangle = other.whole()
        parts = _rows_of(triangle)
        if bool(torch.isfinite(parts).all()):
            self._append(parts.to(self._triangle.R), rows=triangle.rows, weight_sum=triangle.weight_sum)
        else:
            self.start(self.whole().merge(triangle))

    @override
    def fresh(self) -> Self:
        return type(self)(self._columns - 1, self._targets, self.device)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return tuple(self.whole().padded().state_dict().values())

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        triangle = Triangle.from_state_dict(dict(zip(self._triangle.state_dict(), state, strict=True)))
        self.start(triangle.first_rows(min(triangle.rows, triangle.columns)))

    def _append(self, parts: Tensor, *, rows: int, weight_sum: float) -> None:
        """Put rows of ``[A | B]`` with those that wait."""
        done = 0
        while done < parts.shape[0]:
            taken = self._make_room(parts.shape[0] - done)
            self._waiting[self._held : self._held + taken] = parts[done : done + taken]
            done += taken
            self._count(taken)
        self.rows += rows
        self._weight += weight_sum

    def _make_room(self, count: int) -> int:
        """See that rows can be written behind those that wait, and return how many of ``count``."""
        size, room = self._block_rows, self._waiting.shape[0]
        if self._held + count > room < size:
            # Twice as many as before, so that copying what waits costs no more than writing it did.
            room = size if self._triangle.rows or self._recent_blocks else min(size, max(self._held + count, 2 * room))
            waiting = self._waiting.new_empty(room, self._columns + self._targets)
            waiting[: self._held] = self._waiting[: self._held]
            self._waiting = waiting
        return min(room - self._held, count)

    def _count(self, taken: int, *, rows: int = 0, weight_sum: float = 0.0) -> None:
        """Count rows that were written, and fold where a block is full."""
        self._held += taken
        self.rows += rows
        self._weight += weight_sum
        if self._held == self._block_rows:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            parts = self._waiting[: self._held]
            with one_thread(parts.numel(), parts.device, most=FOLD_BY_ONE):
                self._recent = self._folded(self._recent, parts)
            self._recent_blocks += 1
            if self._recent_blocks == _RECENT_BLOCKS:
                self._join()
        # New memory for each block, so that a call that fails can go back to the one before.
        self._waiting, self._held = self._waiting.new_empty(0, self._columns + self._targets), 0

    def _join(self) -> None:
        """Let the triangle of the blocks folded last join that of all rows before."""
        if self._recent_blocks:
            joined = self._triangle.merge(self._recent) if self._triangle.rows else self._recent
            self._triangle, self._recent, self._recent_blocks = joined, self._empty(), 0

    def _folded(self, triangle: Triangle, parts: Tensor) -> Triangle:
        """Fold rows into a triangle, with a power of two taken out of columns whose squares would leave float64."""
        p = self._columns
        if not bool(triangle.exponents.any()) and not bool(triangle.target_exponents.any()):
            # The triangle of the rows tells of their columns what a look at all rows would, at no cost.
            plain = triangle.fold_joined(shortened(parts), rows=parts.shape[0])
            if _is_near(plain, parts):
                return plain
        largest = torch.maximum(parts.amax(0), -parts.amin(0))
        exponents = power_of_two_exponents(largest).to(torch.int32)
        exponents = torch.where(exponents.abs() > _FAR, exponents, 0)
        if triangle.R.shape[0]:
            exponents = torch.maximum(exponents, torch.cat([triangle.exponents, triangle.target_exponents]))
        if bool(exponents.any()):
            parts = times_power_of_two(parts, -exponents)
        return triangle.rescaled(exponents[:p], exponents[p:]).fold_joined(shortened(parts), rows=parts.shape[0])


def _block_rows(columns: int, targets: int) -> int:
    """Return the rows of a block that is folded."""
    width = columns + targets
    rows = max(_CACHED_ENTRIES // width, min(_ROWS_A_COLUMN * columns, _BLOCK_ENTRIES // width))
    return max(rows, _FEWEST_A_COLUMN * columns)


def _is_near(triangle: Triangle, parts: Tensor) -> bool:
    """Whether all columns are of numbers whose squares stay in the range of float64, by the triangle made of them."""
    rest = triangle.residual_squares.sqrt().unsqueeze(0)
    targets = torch.cat([triangle.C, rest]).abs().amax(0)
    sizes = torch.cat([triangle.R.abs().amax(0), targets]).tolist()
    if all(_SMALLEST < size < _LARGEST for size in sizes):
        return True
    none = [column for column, size in enumerate(sizes) if size == 0]
    near = all(size == 0 or _SMALLEST < size < _LARGEST for size in sizes)
    return near and not bool(parts[:, none].any())


def _roundoff(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2 if dtype in _NARROW.values() else 0.0


def _rows_of(triangle: Triangle) -> Tensor:
    """Return ``[R | C]`` in the units of the table, and under it a row for what no weights can explain."""
    whole = triangle.unscaled()
    parts = torch.cat([whole.R, whole.C], 1)
    if not bool((whole.residual_squares > 0).any()):
        return parts
    rest = torch.cat([whole.R.new_zeros(whole.columns), whole.residual_squares.sqrt()])
    return torch.cat([parts, rest.unsqueeze(0)])


def _is_finite(values: Tensor) -> bool:
    """Whether all values are finite; where their sum overflows it says no, and they have to be looked at."""
    return math.isfinite(values.sum().item())

"""Rows as they are gathered and folded into a triangle: a fold that keeps all that least squares needs of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.threads import FOLD_BY_ONE, one_thread
from closedform.numerics.scaling import power_of_two_exponents, times_power_of_two
from closedform.numerics.triangle import Triangle
from closedform.rows.block import Block, Extent
from closedform.rows.fold import Fold
from closedform.rows.norms import check_finite, check_weights
from closedform.rows.table import Rows, as_rows
from closedform.rows.tensors import TensorSource
from closedform.words.errors import NonFiniteError

__all__ = ["Accumulated"]

#: Entries of a block of rows that are gathered before they are folded: so many that a fold costs little beside them.
_BLOCK_ENTRIES = 2**19
#: Rows of a block for each column: then what a fold does to the triangle before is a third of its work.
_ROWS_A_COLUMN = 2
#: The floating types narrower than float64, in which rows may be stored, by their unit roundoff.
_NARROW = {torch.finfo(dtype).eps / 2: dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)}
#: Columns of numbers beyond this power of two, or below its inverse, are scaled.
_FAR = 256


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
        self.roundoff = (0.0, 0.0)
        self.start(Triangle.empty(self._columns, n_targets, has_ones=True, device=device))

    def start(self, triangle: Triangle) -> None:
        """Go on from a triangle; what was folded here is forgotten."""
        self._triangle = triangle
        self.rows, self._weight = triangle.rows, triangle.weight_sum
        self._waiting: list[Tensor] = []
        self._held = 0

    def whole(self) -> Triangle:
        """Return the triangle of all rows so far, with a column of ones first."""
        self._flush()
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

    def heed(self, rows: Rows) -> None:
        """Remember how coarsely the numbers of rows that are folded here are stored."""
        self._take_roundoff(_roundoff(rows.x.stored_dtype), _roundoff(rows.y.stored_dtype))

    def _take_roundoff(self, features: float, targets: float) -> None:
        self.roundoff = max(self.roundoff[0], features), max(self.roundoff[1], targets)

    def takes(self, rows: Rows) -> bool:
        """Return whether rows have the columns that are folded here."""
        return (rows.n_features + 1, rows.n_targets) == (self._columns, self._targets)

    def snapshot(self) -> tuple[Any, ...]:
        """Return what :meth:`restore` goes back to."""
        return self._triangle, self.rows, self._weight, self._waiting, len(self._waiting), self._held, self.roundoff

    def restore(self, before: tuple[Any, ...]) -> None:
        """Go back to a snapshot."""
        self._triangle, self.rows, self._weight, self._waiting, count, self._held, self.roundoff = before
        del self._waiting[count:]

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return self._block_rows

    @property
    def _block_rows(self) -> int:
        return max(_ROWS_A_COLUMN * self._columns, _BLOCK_ENTRIES // (self._columns + self._targets))

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
        p, count, total = self._columns, block.X.shape[0], float(block.X.shape[0])
        parts = self._triangle.R.new_empty(count, p + self._targets)
        parts[:, 0] = 1.0
        parts[:, 1:p] = block.X
        parts[:, p:] = block.Y
        if not _is_finite(parts):
            check_finite(block, names)

        if block.weight is not None:
            total, count = check_weights(block.weight, block.start)
            weight = block.weight.to(parts)
            parts = parts.mul_(weight.sqrt().unsqueeze(1))[weight > 0]
            if not _is_finite(parts) and not bool(torch.isfinite(parts).all()):
                raise NonFiniteError(
                    "a row times the root of its weight is beyond the range of float64; scale the weights down."
                )
        self._append(parts, rows=count, weight_sum=total)

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
        """Put rows of ``[A | B]`` with those that wait, and fold whenever a block is full."""
        size, done = self._block_rows, 0
        while done < parts.shape[0]:
            count = min(size - self._held, parts.shape[0] - done)
            self._waiting.append(parts[done : done + count])
            done, self._held = done + count, self._held + count
            if self._held == size:
                self._flush()
        self.rows += rows
        self._weight += weight_sum

    def _flush(self) -> None:
        if self._held:
            parts = self._waiting[0] if len(self._waiting) == 1 else torch.cat(self._waiting)
            with one_thread(parts.numel(), parts.device, most=FOLD_BY_ONE):
                self._fold_block(parts)
        # A new list for each block, so that a call that fails can go back to the one before.
        self._waiting, self._held = [], 0

    def _fold_block(self, parts: Tensor) -> None:
        """Fold rows, with a power of two taken out of columns whose squares would leave the range of float64."""
        p, triangle = self._columns, self._triangle
        # torch's own norm of this order takes as long over rows as all the rest here.
        largest = torch.maximum(parts.amax(0), -parts.amin(0))
        exponents = power_of_two_exponents(largest).to(torch.int32)
        exponents = torch.where(exponents.abs() > _FAR, exponents, 0)
        if triangle.R.shape[0]:
            exponents = torch.maximum(exponents, torch.cat([triangle.exponents, triangle.target_exponents]))
        if bool(exponents.any()):
            parts = times_power_of_two(parts, -exponents)
        self._triangle = triangle.rescaled(exponents[:p], exponents[p:]).fold(parts[:, :p], parts[:, p:])


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
    return math.isfinite(float(values.sum()))

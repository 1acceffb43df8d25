"""The Gram matrix of the columns and their products with the targets, in any precision."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.rows.block import Block, Extent
from closedform.rows.columns import Columns
from closedform.rows.fold import SumFold

__all__ = ["NormalEquations", "leaves_float32"]

#: Scales beyond this, or below its inverse, could take a sum out of the range of float32.
_FAR = 1e15
#: Rows for each column of a block in memory: what a call adds up at its end, columns squared, does not count then.
_ROWS_A_COLUMN = 8

#: Rows of a block of which some columns are copied: few enough for the copy to stay in the outer caches.
_COPIED_ROWS = 2048


def leaves_float32(least: float, most: float) -> bool:
    """Whether sums of columns that are not scaled could leave the range of float32.

    Args:
        least: The smallest scale that brings a column to about one.
        most: The largest.

    Example:
        >>> leaves_float32(2.0**-10, 2.0**10), leaves_float32(1.0, 2.0**60)
        (False, True)
    """
    return most > _FAR or least < 1 / _FAR


@final
class NormalEquations(SumFold):
    """Sums for ``A'A`` and ``A'B``, with the scaling of A left to whoever uses them.

    Scaling columns by powers of two changes no digit, so that it can be done at the end, for any ridge strength;
    unless numbers would leave the range of the dtype.

    Args:
        columns: The design matrix.
        dtype: That of the sums, float32 or float64.
        bfloat16: Whether the entries of A and B are rounded to bfloat16 first; then the sums are float32.
        order: The rows that count, ascending, int64, or None for all.
        factor: Upper triangle that ``[1 | X]`` is multiplied by, ``(columns, columns)``, or None.
        chosen: Numbers of the columns that count, ascending, int64, or None for all.
        spread: Whether the squares and sums of the features are wanted from the same read.

    Attributes:
        applied: The scale of the columns that the sums have in them, ``(columns,)``.
        spread: Squares and sums of the features, weighted and not scaled, ``(2, features)``, float64, or None.
        rows: How many rows have been added.
    """

    label = "factoring"

    def __init__(
        self,
        columns: Columns,
        dtype: torch.dtype,
        *,
        bfloat16: bool = False,
        order: Tensor | None = None,
        factor: Tensor | None = None,
        chosen: Tensor | None = None,
        spread: bool = False,
    ) -> None:
        self._whole, self._chosen = columns, chosen
        self._features: Tensor | None = None
        self._room = columns.scale.new_empty(0)
        if chosen is not None:
            columns, self._features = columns.among(chosen)
        self._columns, self._bfloat16, self._order, self._factor = columns, bfloat16, order, factor
        scale = columns.scale
        far = factor is None and leaves_float32(*columns.scale_range)
        self._before = columns.feature_scale if far else None
        self.applied = torch.ones_like(scale)
        if far:
            self.applied[int(columns.bias) :] = columns.feature_scale
        self.gram = torch.zeros(columns.n_columns, columns.n_columns, dtype=dtype, device=scale.device)
        self.cross = torch.zeros(columns.n_columns, columns.n_targets, dtype=dtype, device=scale.device)
        self.spread = scale.new_zeros(2, columns.n_columns - int(columns.bias)) if spread else None
        self.rows = 0

    def going_on(self, order: Tensor | None, *, bfloat16: bool) -> NormalEquations:
        """Return a fold that goes on from these sums with other rows; these stay as they are."""
        more = NormalEquations(self._columns, self.gram.dtype, bfloat16=bfloat16, order=order)
        more.load_state(self.state())
        return more

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        least = _ROWS_A_COLUMN * self._columns.n_columns if extent.in_memory else 0
        return max(extent.pass_rows, least) if self._features is None else _COPIED_ROWS

    @override
    def add(self, block: Block) -> None:
        order = None if self._order is None else block.among(self._order)
        X, engine = block.X, block.engine
        if self._features is not None:
            X = self._selected(X)
            engine = engine_for(X)

        engine.normal_equations_(
            self.gram,
            self.cross,
            X,
            block.Y,
            self._columns.target_scale,
            row_scale=None if block.weight is None else block.weight.sqrt(),
            x_scale=self._before,
            order=order,
            factor=self._factor,
            ones=self._columns.bias,
            bfloat16=self._bfloat16,
            spread=self.spread,
        )
        self.rows += block.X.shape[0] if order is None else order.shape[0]

    def _selected(self, X: Tensor) -> Tensor:
        """Return the features that count, in memory that one block after the other is copied to."""
        assert self._features is not None
        if self._room.shape[0] < X.shape[0] or self._room.dtype != X.dtype:
            self._room = X.new_empty(X.shape[0], self._features.shape[0])
        return torch.index_select(X, 1, self._features, out=self._room[: X.shape[0]])

    @override
    def merge(self, other: Self) -> None:
        self.add_sums(other)
        self.rows += other.rows

    @override
    def fresh(self) -> Self:
        return type(self)(
            self._whole,
            self.gram.dtype,
            bfloat16=self._bfloat16,
            order=self._order,
            factor=self._factor,
            chosen=self._chosen,
            spread=self.spread is not None,
        )

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.gram, self.cross) if self.spread is None else (self.gram, self.cross, self.spread)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return *self.sums(), torch.tensor(self.rows, device="cpu")

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        *sums, rows = state
        super().load_state(tuple(sums))
        self.rows = int(rows)

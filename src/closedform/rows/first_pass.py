"""The scan and the normal equations from one read of the rows, and a sample that says whether that is worth it."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.numerics.host import as_vector
from closedform.rows.block import Block, Extent
from closedform.rows.columns import Columns
from closedform.rows.fold import SumFold
from closedform.rows.folds import NormalEquations
from closedform.rows.folds.normal_equations import leaves_float32
from closedform.rows.norms import Scan, scan_of, weights_of
from closedform.rows.table import Rows

__all__ = ["FirstSums", "sample_gram", "sampled_rows", "scan_and_sum"]

#: Rows of the sample for each column.
_SAMPLE_ROWS = 2
#: Seed by which they are drawn; any serves.
_SAMPLE_SEED = 3


@final
class FirstSums(SumFold):
    """Products of the columns of ``diag(sqrt(weight)) [1 | X]`` with each other and with Y, and the squares of Y.

    The squares and sums of the columns, by which a table is scanned, are among them; where the products are in single
    precision, they are summed beside them.

    Args:
        n_features: Columns of X.
        n_targets: Columns of Y.
        device: Where the sums stand.
        dtype: That of the products, float64 or float32.
    """

    unweighted = True

    def __init__(
        self, n_features: int, n_targets: int, device: torch.device, dtype: torch.dtype = torch.float64
    ) -> None:
        one = torch.ones(n_features + 1, dtype=torch.float64, device=device)
        self._arguments = n_features, n_targets, device, dtype
        self._unit = one.new_ones(n_targets)
        columns = Columns(True, one, self._unit)
        self.products = NormalEquations(columns, dtype, spread=dtype != torch.float64)
        self.targets = one.new_zeros(2, n_targets)
        self.weight_sum, self.positive_rows = 0.0, 0

    @property
    def features(self) -> Tensor:
        """Squares and sums of the features, ``(2, features)``, float64."""
        if self.products.spread is not None:
            return self.products.spread
        gram = self.products.gram
        return torch.stack([gram.diagonal()[1:], gram[0, 1:]])

    def normal_equations(self, columns: Columns) -> NormalEquations | None:
        """Return the sums of a design matrix of these rows; None where its scales are too far apart for plain sums.

        Args:
            columns: The design matrix, with or without the column of ones.
        """
        found, first = NormalEquations(columns, self.products.gram.dtype), 1 - int(columns.bias)
        scales = as_vector(columns.target_scale)
        far = found.gram.dtype == torch.float32 and leaves_float32(float(scales.min()), float(scales.max()))
        if far or bool((found.applied != 1).any()):
            return None
        found.gram.copy_(self.products.gram[first:, first:])
        torch.mul(self.products.cross[first:], columns.target_scale, out=found.cross)
        found.rows = self.products.rows
        return found

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return self.products.rows_at_a_time(extent)

    @override
    def add(self, block: Block) -> None:
        total, positive = weights_of(block)
        self.weight_sum += total
        self.positive_rows += positive
        self.products.add(block)
        shift = torch.zeros_like(self._unit)
        engine_for(block.Y).spread_squares_(self.targets, block.Y, self._unit, shift, block.weight)

    @override
    def merge(self, other: Self) -> None:
        self.products.merge(other.products)
        self.targets += other.targets
        self.weight_sum += other.weight_sum
        self.positive_rows += other.positive_rows

    @override
    def fresh(self) -> Self:
        return type(self)(*self._arguments)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return *self.products.sums(), self.targets

    @override
    def state(self) -> tuple[Tensor, ...]:
        counts = torch.tensor([self.weight_sum, self.positive_rows, self.products.rows], device="cpu")
        return *self.sums(), counts.to(torch.float64)

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        *sums, counts = state
        super().load_state(tuple(sums))
        self.weight_sum, self.positive_rows = float(counts[0]), int(counts[1])
        self.products.rows = int(counts[2])


def scan_and_sum(rows: Rows, dtype: torch.dtype) -> tuple[Scan, FirstSums]:
    """Walk the rows once for what a scan tells, and for the normal equations of a fit with or without a bias.

    Args:
        rows: The rows.
        dtype: That of the normal equations, float64 or float32.

    Raises:
        NonFiniteError: as :func:`closedform.rows.norms.scan`.
        InputError: likewise.
    """
    seen = rows.walk(FirstSums(rows.n_features, rows.n_targets, rows.device, dtype))
    return scan_of(rows, seen.features, seen.targets, (seen.weight_sum, seen.positive_rows)), seen


def sampled_rows(n_rows: int, positive_rows: int, columns: int, device: torch.device) -> Tensor:
    """Draw one of every few rows at random, since tables repeat themselves; about as many of positive weight.

    Args:
        n_rows: Rows of the table.
        positive_rows: How many of all processes together have a positive weight.
        columns: Columns of the design matrix; there are two rows for each.
        device: Where the numbers of the rows are wanted.

    Returns:
        Numbers of rows, ascending, int64.

    Example:
        >>> import torch
        >>> sampled_rows(1000, 1000, 5, torch.device("cpu")) // 100
        tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    generator = torch.Generator().manual_seed(_SAMPLE_SEED)
    stride = max(1, positive_rows // (_SAMPLE_ROWS * columns))
    drawn = torch.arange(n_rows // stride, device="cpu") * stride
    drawn += torch.randint(stride, drawn.shape, device="cpu", generator=generator)
    return drawn.to(device)


def sample_gram(rows: Rows, dtype: torch.dtype, *, bias: bool) -> Tensor:
    """Return the Gram matrix of a sample of the rows before a scan, upper triangle, ``(columns, columns)``, not scaled.

    Nothing is refused: it may hold anything where numbers are not finite, or leave the range.

    Args:
        rows: The rows, without weights.
        dtype: That of the Gram matrix, float64 or float32.
        bias: Whether a column of ones stands first.
    """
    one = torch.ones(rows.n_features + int(bias), dtype=torch.float64, device=rows.device)
    order = sampled_rows(rows.extent.n_rows, rows.n_rows, one.shape[0], rows.device)
    columns = Columns(bias, one, one.new_ones(rows.n_targets))
    return rows.walk(NormalEquations(columns, dtype, order=order)).gram

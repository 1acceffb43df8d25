"""Tables of few columns: the scan and the normal equations from one read of the rows."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.rows.block import Block, Extent
from closedform.rows.columns import Columns
from closedform.rows.fold import SumFold
from closedform.rows.folds import NormalEquations
from closedform.rows.norms import Scan, scan_of, weights_of
from closedform.rows.table import Rows

__all__ = ["FirstSums", "scan_and_sum"]


@final
class FirstSums(SumFold):
    """Products of the columns of ``diag(sqrt(weight)) [1 | X]`` with each other and with Y, and the squares of Y.

    The squares and sums of the columns, by which a table is scanned, are among them.

    Args:
        n_features: Columns of X.
        n_targets: Columns of Y.
        device: Where the sums stand.
    """

    unweighted = True

    def __init__(self, n_features: int, n_targets: int, device: torch.device) -> None:
        one = torch.ones(n_features + 1, dtype=torch.float64, device=device)
        self._size = n_features, n_targets, device
        self._unit = one.new_ones(n_targets)
        self.products = NormalEquations(Columns(True, one, self._unit), torch.float64)
        self.targets = one.new_zeros(2, n_targets)
        self.weight_sum, self.positive_rows = 0.0, 0

    def normal_equations(self, columns: Columns) -> NormalEquations | None:
        """Return the sums of a design matrix of these rows; None where its scales are too far apart for plain sums.

        Args:
            columns: The design matrix, with or without the column of ones.
        """
        found, first = NormalEquations(columns, torch.float64), 1 - int(columns.bias)
        if bool((found.applied != 1).any()):
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
        return type(self)(*self._size)

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


def scan_and_sum(rows: Rows) -> tuple[Scan, FirstSums]:
    """Walk the rows once for what a scan tells, and for the normal equations of a fit with or without a bias.

    Raises:
        NonFiniteError: as :func:`closedform.rows.norms.scan`.
        InputError: likewise.
    """
    seen = rows.walk(FirstSums(rows.n_features, rows.n_targets, rows.device))
    gram, cross = seen.products.sums()
    features = torch.stack([gram.diagonal()[1:], gram[0, 1:]])
    targets = torch.stack([seen.targets[0], cross[0]])
    return scan_of(rows, features, targets, (seen.weight_sum, seen.positive_rows)), seen

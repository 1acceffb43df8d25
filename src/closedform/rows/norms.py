"""The first pass over the rows: finite values, weights, and the norms of the columns."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.numerics.host import as_vector
from closedform.numerics.scaling import power_of_two_exponents
from closedform.rows.block import Block, Extent
from closedform.rows.fold import Fold, SumFold
from closedform.rows.table import Rows
from closedform.words.errors import InputError, NonFiniteError

__all__ = ["Scan", "check_finite", "check_weights", "scan", "scan_of", "weights_of"]

#: Squares of norms above this have lost no digits to underflow.
_SMALLEST_SQUARE = 1e-270
#: Squares of norms below this leave room for the sums that are made of them.
_LARGEST_SQUARE = 1e290


@final
@dataclass(frozen=True, eq=False)
class Scan:
    """What one pass over the rows tells.

    Attributes:
        feature_sums: Weighted sum of each column of X, ``(features,)``, float64.
        feature_norms: Weighted Euclidean norm of each column of X, ``(features,)``, float64.
        target_norms: Weighted Euclidean norm of each column of Y, ``(targets,)``, float64.
        target_means: About the weighted mean of each column of Y, ``(targets,)``, float64; zero where its sum left the
            range of float64.
        weight_sum: Sum of the sample weights (the number of rows where there are none).
        positive_rows: Number of rows with a positive weight.
    """

    feature_sums: Tensor
    feature_norms: Tensor
    target_norms: Tensor
    target_means: Tensor
    weight_sum: float
    positive_rows: int

    def select(self, targets: Tensor) -> Scan:
        """Return what it tells of some of the targets."""
        return replace(self, target_norms=self.target_norms[targets], target_means=self.target_means[targets])


def scan(rows: Rows) -> Scan:
    """Walk the rows once; check that every number is finite and measure the columns.

    Raises:
        NonFiniteError: NaN or an infinity, with the column and the first row it is found in.
        InputError: a negative weight, or no positive weight at all.
    """
    seen = rows.walk(_ColumnSquares(rows.n_features, rows.n_targets, rows.device))
    return scan_of(rows, seen.features, seen.targets, (seen.weight_sum, seen.positive_rows))


def scan_of(rows: Rows, columns: Tensor, outputs: Tensor, counts: tuple[float, int]) -> Scan:
    """Return what sums over the rows tell, with another look at them where squares leave the range of float64.

    Args:
        rows: The rows.
        columns: Weighted squares and sums of the columns of X, ``(2, features)``.
        outputs: Those of Y, ``(2, targets)``.
        counts: The sum of the weights, and how many are positive.

    Raises:
        NonFiniteError: as :func:`scan`.
        InputError: no weight is positive.
    """
    weight_sum, positive_rows = counts
    if positive_rows == 0:
        raise InputError("sample_weight is zero for every row; at least one positive weight is needed.")

    features, targets = as_vector(columns), as_vector(outputs)
    squares = np.concatenate([features[0], targets[0]])
    safe = squares.min() > _SMALLEST_SQUARE and squares.max() < _LARGEST_SQUARE
    # By NumPy, because square roots of torch start threads, which a small problem then waits for.
    norms = torch.from_numpy(np.sqrt(squares)).to(rows.device) if safe else _careful_norms(rows)
    p, means = rows.n_features, targets[1] / weight_sum
    means[~np.isfinite(means)] = 0.0
    return Scan(
        feature_sums=columns[1],
        feature_norms=norms[:p],
        target_norms=norms[p:],
        target_means=torch.from_numpy(means).to(rows.device),
        weight_sum=weight_sum,
        positive_rows=positive_rows,
    )


@final
class _ColumnSquares(SumFold):
    """Weighted squares and sums of each column, and what there is to know of the weights.

    Rows of weight zero must be finite as well: zero times NaN is NaN and is seen in the sums.

    Attributes:
        features: Squares and sums of the features, ``(2, features)``.
        targets: Those of the targets, ``(2, targets)``.
        weight_sum: Sum of the weights.
        positive_rows: Number of rows with a positive weight.
    """

    unweighted = True

    def __init__(self, n_features: int, n_targets: int, device: torch.device) -> None:
        self.features = torch.zeros(2, n_features, dtype=torch.float64, device=device)
        self.targets = torch.zeros(2, n_targets, dtype=torch.float64, device=device)
        widest = max(n_features, n_targets)
        self._scale, self._shift = self.features.new_ones(widest), self.features.new_zeros(widest)
        self.weight_sum, self.positive_rows = 0.0, 0

    @override
    def add(self, block: Block) -> None:
        total, positive = weights_of(block)
        self.weight_sum += total
        self.positive_rows += positive

        for engine, sums, values in (
            (block.engine, self.features, block.X),
            (engine_for(block.Y), self.targets, block.Y),
        ):
            columns = values.shape[1]
            engine.spread_squares_(sums, values, self._scale[:columns], self._shift[:columns], block.weight)

    @override
    def merge(self, other: Self) -> None:
        self.add_sums(other)
        self.weight_sum += other.weight_sum
        self.positive_rows += other.positive_rows

    @override
    def fresh(self) -> Self:
        return type(self)(self.features.shape[1], self.targets.shape[1], self.features.device)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self.features, self.targets

    @override
    def state(self) -> tuple[Tensor, ...]:
        counts = torch.tensor([self.weight_sum, self.positive_rows], dtype=torch.float64, device="cpu")
        return *self.sums(), counts

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        *sums, counts = state
        super().load_state(tuple(sums))
        self.weight_sum, self.positive_rows = float(counts[0]), int(counts[1])


def check_weights(weight: Tensor, start: int) -> tuple[float, int]:
    """Return the sum of the weights, and how many are positive.

    Args:
        weight: ``(rows,)``, float64.
        start: Number of the first row, for the message.

    Raises:
        InputError: one is negative or not finite.
    """
    bad = ~(torch.isfinite(weight) & (weight >= 0))
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise InputError(
            f"sample_weight holds {float(weight[row])} in row {start + row}; weights must be finite and not negative."
        )
    return float(weight.sum()), int((weight > 0).sum())


def weights_of(block: Block) -> tuple[float, int]:
    """Return the sum of the weights of a block, each 1 where it has none, and how many are positive.

    Args:
        block: Rows of a table.
    """
    if block.weight is None:
        return float(block.X.shape[0]), block.X.shape[0]
    return check_weights(block.weight, block.start)


def _careful_norms(rows: Rows) -> Tensor:
    """Norms where squares over- or underflow, or are zero; and the error message where a number is not finite.

    Raises:
        InputError: a column that is not zero has a norm of zero, because of the weights.
    """
    peaks = rows.walk(_Peaks(rows.n_features + rows.n_targets, rows.device, (rows.feature_names, rows.target_names)))
    exponents, heaviest = power_of_two_exponents(peaks.columns), peaks.heaviest
    scaled = rows.walk(_ScaledSquares(exponents, heaviest))
    norms = torch.ldexp(scaled.squares.sqrt() * heaviest, exponents)

    lost = (norms == 0) & (peaks.columns > 0)
    if bool(lost.any()):
        column = int(lost.nonzero()[0])
        name = f"column {column} of X" if column < rows.n_features else f"target {column - rows.n_features}"
        raise InputError(
            f"{name}, at most {float(peaks.columns[column]):.3g}, times the root of sample_weight, at most "
            f"{heaviest:.3g}, is below the range of float64; multiply the weights by a constant."
        )
    return norms


#: What the columns of a table are called, or None.
_Names = tuple[str, ...] | None


class _CarefulFold(Fold, ABC):
    """A fold over blocks of features and targets side by side, in float64."""

    as_stored = False

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return extent.cached_rows()


@final
class _Peaks(_CarefulFold):
    """The largest size in each column, over rows of positive weight, and the root of the largest weight."""

    unweighted = True

    def __init__(self, columns: int, device: torch.device, names: tuple[_Names, _Names] = (None, None)) -> None:
        self.columns = torch.zeros(columns, dtype=torch.float64, device=device)
        self._names = names
        self._heaviest = torch.zeros((), dtype=torch.float64, device=device)

    @property
    def heaviest(self) -> float:
        return float(self._heaviest)

    @override
    def add(self, block: Block) -> None:
        check_finite(block, self._names)
        values, root = _counted(block)
        self.columns = torch.maximum(self.columns, values.abs().amax(0))
        self._heaviest = torch.maximum(self._heaviest, root.max())

    @override
    def merge(self, other: Self) -> None:
        self.columns = torch.maximum(self.columns, other.columns)
        self._heaviest = torch.maximum(self._heaviest, other._heaviest)

    @override
    def fresh(self) -> Self:
        return type(self)(self.columns.shape[0], self.columns.device, self._names)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return self.columns, self._heaviest

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        self.columns, self._heaviest = state


@final
class _ScaledSquares(_CarefulFold, SumFold):
    """Squares of each column, brought to about 1 by powers of two, and of the weights over the largest."""

    def __init__(self, exponents: Tensor, heaviest: float) -> None:
        self._exponents, self._heaviest = exponents, heaviest
        self.squares = torch.zeros(exponents.shape[0], dtype=torch.float64, device=exponents.device)

    @override
    def add(self, block: Block) -> None:
        values, root = _counted(block)
        self.squares += (torch.ldexp(values, -self._exponents) * (root / self._heaviest)).square_().sum(0)

    @override
    def fresh(self) -> Self:
        return type(self)(self._exponents, self._heaviest)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.squares,)


def check_finite(block: Block, names: tuple[_Names, _Names] = (None, None)) -> None:
    """Refuse features and targets that are not all finite.

    Args:
        block: The rows.
        names: What the columns of features and targets are called.

    Raises:
        NonFiniteError: with the column and the row.
    """
    for name, values, columns in (("X", block.X, names[0]), ("Y", block.Y, names[1])):
        finite = torch.isfinite(values)
        if not bool(finite.all()):
            row, column = (int(i) for i in (~finite).nonzero()[0])
            called = "" if columns is None else f" ({columns[column]})"
            raise NonFiniteError(
                f"{name} holds {float(values[row, column])} in column {column}{called}, first in row "
                f"{block.start + row}; drop or repair the rows that are not finite."
            )


def _counted(block: Block) -> tuple[Tensor, Tensor]:
    """Return features and targets, those of weight zero as zeros, and the roots of the weights as a column."""
    values = torch.cat([block.X, block.Y], 1)
    if block.weight is None:
        return values, values.new_ones(values.shape[0], 1)
    root = block.weight.sqrt().unsqueeze(1)
    return values.masked_fill(root == 0, 0.0), root

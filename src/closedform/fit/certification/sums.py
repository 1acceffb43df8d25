"""What the certificate sums over the rows, in one pass."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.rows import Block, Fold
from closedform.rows.columns import Columns
from closedform.rows.folds import ResidualSums

__all__ = ["CertificateSums", "Spread"]

#: Rows from which the mean of the targets is guessed.
_GUESS_ROWS = 4096


@final
class Spread(Fold):
    """Weighted squares of the targets about their means, merged as Chan, Golub and LeVeque (1983) do.

    Squares are summed about a value near the mean, so that nothing cancels.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        k, zeros = columns.n_targets, columns.target_scale.new_zeros
        self._weight = 0.0
        self._about: Tensor | None = None
        self._sums = zeros(2, k)

    @property
    def squares(self) -> Tensor:
        """Weighted squares about the mean, ``(targets,)``."""
        if self._weight == 0.0:
            return self._sums[0]
        return (self._sums[0] - self._sums[1].square() / self._weight).clamp(min=0.0)

    @property
    def mean(self) -> Tensor:
        """Weighted means, ``(targets,)``; zeros where no row counts."""
        if self._about is None:
            return torch.zeros_like(self._sums[0])
        return self._about + self._sums[1] / self._weight

    @override
    def add(self, block: Block) -> None:
        scale, weight = self._columns.target_scale, block.weight
        total = float(block.X.shape[0]) if weight is None else float(weight.sum())
        if total == 0.0:
            return
        if self._about is None:
            self._about = _guess(block) * scale
        engine_for(block.Y).spread_squares_(self._sums, block.Y, scale, self._about, weight)
        self._weight += total

    @override
    def merge(self, other: Self) -> None:
        if other._weight == 0.0:
            return
        both = self._weight + other._weight
        apart, share = other.mean - self.mean, other._weight / both
        squares = self.squares + other.squares
        if self._weight:
            squares = squares + apart.square() * (self._weight * share)
        self._about = self.mean + apart * share
        self._sums = torch.stack([squares, torch.zeros_like(squares)])
        self._weight = both

    @override
    def fresh(self) -> Self:
        return type(self)(self._columns)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return self.squares, self.mean, torch.tensor(self._weight, dtype=torch.float64, device="cpu")

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        squares, mean, weight = state
        self._weight = float(weight)
        self._about = mean if self._weight else None
        self._sums = torch.stack([squares, torch.zeros_like(squares)])


def _guess(block: Block) -> Tensor:
    """Return about the mean of the targets, from the first rows that count."""
    Y = block.Y
    if block.weight is not None and not bool(block.weight[:_GUESS_ROWS].all()):
        Y = Y[(block.weight > 0).nonzero().squeeze(1)[:_GUESS_ROWS]]
    return Y[:_GUESS_ROWS].to(torch.float64).mean(0)


@final
class CertificateSums(Fold):
    """Gradient, residuals and spread of the targets at some weights, and products of probes with the normal matrix.

    Args:
        columns: The design matrix.
        V: Weights as ``(features, targets)`` in the scale of the targets.
        offset: Bias in that scale, ``(targets,)``.
        probes: Coordinates ``(columns, probes)`` whose products with ``A'A`` are wanted.
        groups: Ranges of targets whose residuals are multiplied with each other.
    """

    def __init__(
        self, columns: Columns, V: Tensor, offset: Tensor, probes: Tensor, groups: tuple[range, ...] = ()
    ) -> None:
        self.label = "certifying"
        self._arguments = (columns, V, offset, probes, groups)
        self._k = V.shape[1]
        probe_features, probe_offset = columns.raw(-probes)
        if probe_offset is None:
            probe_offset = offset.new_zeros(probes.shape[1])
        self._residuals = ResidualSums(
            columns,
            torch.cat([V, probe_features], 1),
            torch.cat([offset, probe_offset]),
            targets=True,
            groups=groups,
        )
        self._spread = Spread(columns)

    @property
    def gradient(self) -> Tensor:
        """``A'r``, ``(columns, targets)``."""
        return self._residuals.adjoint[:, : self._k]

    @property
    def probe_products(self) -> Tensor:
        """``A'A`` times the probes, ``(columns, probes)``."""
        return self._residuals.adjoint[:, self._k :]

    @property
    def squares(self) -> Tensor:
        """Squared residual norms, ``(targets,)``."""
        return self._residuals.squares[: self._k]

    @property
    def residual_sums(self) -> Tensor:
        """Weighted sums of the residuals, ``(targets,)``."""
        return self._residuals.residual_sums[: self._k]

    @property
    def grams(self) -> tuple[Tensor, ...]:
        """Products of the residuals of each group of targets."""
        return self._residuals.grams

    @property
    def centred_squares(self) -> Tensor:
        """Squares of the targets about their means, ``(targets,)``."""
        return self._spread.squares

    @override
    def add(self, block: Block) -> None:
        self._residuals.add(block)
        self._spread.add(block)

    @override
    def merge(self, other: Self) -> None:
        self._residuals.merge(other._residuals)
        self._spread.merge(other._spread)

    @override
    def fresh(self) -> Self:
        return type(self)(*self._arguments)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return *self._residuals.state(), *self._spread.state()

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        count = len(self._residuals.state())
        self._residuals.load_state(state[:count])
        self._spread.load_state(state[count:])

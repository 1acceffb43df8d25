"""What the certificate sums over the rows, in one pass."""

from __future__ import annotations

from typing import Self, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.numerics.host import Vector, as_vector
from closedform.rows import Block, Fold, SumFold
from closedform.rows.columns import Columns
from closedform.rows.folds import ResidualSums

__all__ = ["CertificateSums", "Spread"]


@final
class Spread(SumFold):
    """Weighted squares of the targets about their means.

    Squares are summed about a value near the mean, so that nothing cancels.

    Args:
        columns: The design matrix.
        about: About the mean of each target in its scale, ``(targets,)``.
    """

    def __init__(self, columns: Columns, about: Tensor) -> None:
        self._columns, self._about = columns, about
        self._sums = about.new_zeros(2, columns.n_targets)
        self._weight = 0.0

    @property
    def squares(self) -> Vector:
        """Weighted squares about the mean, ``(targets,)``."""
        squares, sums = as_vector(self._sums)
        return np.maximum(squares - sums**2 / (self._weight or 1.0), 0.0)

    @override
    def add(self, block: Block) -> None:
        scale = self._columns.target_scale
        self._weight += float(block.X.shape[0] if block.weight is None else block.weight.sum())
        engine_for(block.Y).spread_squares_(self._sums, block.Y, scale, self._about, block.weight)

    @override
    def merge(self, other: Self) -> None:
        self.add_sums(other)
        self._weight += other._weight

    @override
    def fresh(self) -> Self:
        return type(self)(self._columns, self._about)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self._sums,)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return self._sums, torch.tensor(self._weight, dtype=torch.float64, device="cpu")

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        super().load_state(state[:1])
        self._weight = float(state[1])


@final
class CertificateSums(Fold):
    """Gradient, residuals and spread of the targets at some weights, and products of probes with the normal matrix.

    Args:
        columns: The design matrix.
        V: Weights as ``(features, targets)`` in the scale of the targets.
        offset: Bias in that scale, ``(targets,)``; None where there is none.
        probes: Coordinates ``(columns, probes)`` whose products with ``A'A`` are wanted.
        about: About the mean of each target in that scale, ``(targets,)``.
        groups: Ranges of targets whose residuals are multiplied with each other.
    """

    def __init__(
        self,
        columns: Columns,
        V: Tensor,
        offset: Tensor | None,
        probes: Tensor,
        about: Tensor,
        groups: tuple[range, ...] = (),
    ) -> None:
        self.label = "certifying"
        self._arguments = (columns, V, offset, probes, about, groups)
        self._k = V.shape[1]
        probe_features, probe_offset = columns.raw(-probes)
        if offset is not None and probe_offset is not None:
            offset = torch.cat([offset, probe_offset])
        # Transposed, as the loops take them.
        vectors = torch.cat([V.T, probe_features.T]).T
        self._residuals = ResidualSums(columns, vectors, offset, targets=True, groups=groups)
        self._spread = Spread(columns, about)

    @property
    def products(self) -> tuple[Tensor, Tensor]:
        """``A'r``, ``(columns, targets)``, and ``A'A`` times the probes, ``(columns, probes)``."""
        adjoint = self._residuals.adjoint
        return adjoint[:, : self._k], adjoint[:, self._k :]

    @property
    def totals(self) -> tuple[Vector, Vector]:
        """Weighted sums of the residuals, and of their squares, ``(targets,)`` each."""
        ones, squares = self._residuals.totals
        return ones[: self._k], squares[: self._k]

    @property
    def grams(self) -> tuple[Tensor, ...]:
        """Products of the residuals of each group of targets."""
        return self._residuals.grams

    @property
    def centred_squares(self) -> Vector:
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

"""What the certificate sums over the rows, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
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

__all__ = ["CertificateSums", "Measured", "Spread"]


@final
@dataclass(frozen=True, eq=False)
class Measured:
    """What the rows say of some weights, in the scale of the design matrix, without the ridge.

    Attributes:
        gradient: ``A'R`` with the residuals R, ``(columns, targets)``.
        probes: Vectors by which the factor is held against the rows, ``(columns, probes)``.
        products: ``A'A`` times these.
        residual_sums: Weighted sums of the residuals, ``(targets,)``.
        squares: Their weighted squares, ``(targets,)``.
        centred_squares: Squares of the targets about their means, ``(targets,)``.
        grams: Products of the residuals of each group of targets, or none.
        image: What bounds the lengths of ``S^-T`` times the gradient with the ridge, ``(probes, targets)``, where that
            was measured on the rows by probes and the gradient itself was not; else None.
    """

    gradient: Tensor
    probes: Tensor
    products: Tensor
    residual_sums: Vector
    squares: Vector
    centred_squares: Vector
    grams: tuple[Tensor, ...] = ()
    image: Tensor | None = None


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
    def measured(self) -> Measured:
        """What was found."""
        adjoint, (ones, squares), k = self._residuals.adjoint, self._residuals.totals, self._k
        return Measured(
            gradient=adjoint[:, :k],
            probes=self._arguments[3],
            products=adjoint[:, k:],
            residual_sums=ones[:k],
            squares=squares[:k],
            centred_squares=self._spread.squares,
            grams=self._residuals.grams,
        )

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

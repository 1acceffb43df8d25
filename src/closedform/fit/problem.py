"""The least-squares problem of a fit: a design matrix and a ridge strength."""

from __future__ import annotations

from functools import cached_property
from typing import final

import torch
from torch import Tensor

from closedform.engine.triangles import COMPILED
from closedform.fit.weights import Weights
from closedform.numerics.host import as_vector
from closedform.numerics.scaling import power_of_two_exponents, powers_of_two, times_power_of_two
from closedform.numerics.triangle import Triangle
from closedform.rows import Block, Design
from closedform.rows.columns import Columns
from closedform.rows.folds import ResidualSums

__all__ = ["Problem"]


@final
class Problem:
    r"""The problem :math:`\min_Z \|B - A Z\|^2 + \|P Z\|^2`, with A and B as in :class:`closedform.rows.Design`.

    The columns of A with the ridge rows ``P = sqrt(l2) D`` under it are scaled to norms in [0.5, 1), by exact powers of
    two. Z are coordinates: ``D Z E^-1`` are the weights.

    Attributes:
        design: The rows, their scaling, and what passes over them have found.
        l2: Ridge strength of these targets, as in scikit-learn (sum of squares, bias not penalised).
        columns: The scaled matrices.
        scale: Diagonal of D, ``(columns,)``.
        target_scale: Diagonal of E, ``(targets,)``.
        n_columns: Columns of A.
        n_targets: Columns of B.
        frobenius_norm: Frobenius norm of A with the ridge rows under it.
        penalty: Diagonal of P, ``(columns,)``; zero for the bias.
        column_norms: Norms of the columns of A with the ridge rows under it, ``(columns,)``.
        target_norms: Norms of the columns of B, ``(targets,)``.
        target_sizes: The same on the host.
        target_units: What the targets are multiplied by, on the host.
    """

    def __init__(self, design: Design, l2: float) -> None:
        self.design = design
        self.l2 = l2
        self.rows, self.scanned, self.bias = design.rows, design.scanned, design.bias
        self.columns, self._exponents, norms = design.columns, design.exponents, design.norms
        if l2 > 0:
            first = int(self.bias)
            norms = torch.cat([norms[:first], torch.hypot(norms[first:], torch.full_like(norms[first:], l2**0.5))])
            self._exponents = power_of_two_exponents(norms)
            self.columns = Columns(self.bias, powers_of_two(-self._exponents), design.columns.target_scale)
        self.scale, self.target_scale = self.columns.scale, self.columns.target_scale
        self.n_columns, self.n_targets = self.columns.n_columns, self.columns.n_targets
        self.column_norms = norms * self.scale
        self.frobenius_norm = float(torch.linalg.vector_norm(self.column_norms))
        self.target_norms = self.scanned.target_norms * self.target_scale
        self.target_sizes, self.target_units = as_vector(self.target_norms), as_vector(self.target_scale)
        self.penalty = torch.zeros_like(norms)
        if l2 > 0:
            self.penalty[int(self.bias) :] = self.columns.feature_scale * (l2**0.5)

    @cached_property
    def triangle(self) -> Triangle:
        """The rows compressed by Householder QR, with the ridge rows under them."""
        triangle = self.design.triangle
        return triangle.rescaled(self._exponents).with_ridge(self.penalty) if self.l2 > 0 else triangle

    @cached_property
    def gathered(self) -> Block:
        """All rows at once, in their own dtype, for square and wide systems."""
        return self.rows.gather(as_stored=True)

    @cached_property
    def gathered_targets(self) -> Tensor:
        """B before its rows are weighted, ``(rows, targets)``, float64, for square and wide systems."""
        return self.gathered.Y.to(torch.float64) * self.target_scale

    def normal_product(self, Z: Tensor) -> Tensor:
        """Return ``(A'A + P'P) Z``, shape ``(columns, k)``; each block of rows is read once for both products."""
        V, offset = self.columns.raw(Z)
        sums = self.rows.walk(ResidualSums(self.columns, -V, None if offset is None else -offset, targets=False))
        return sums.adjoint if self.l2 == 0 else sums.adjoint + self.penalty.square().unsqueeze(1) * Z

    def images(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(A'A + P'P) Z`` and the lengths of the columns of A Z with those of P Z under them, in one pass."""
        V, offset = self.columns.raw(Z)
        sums = self.rows.walk(ResidualSums(self.columns, -V, None if offset is None else -offset, targets=False))
        penalised = self.penalty.unsqueeze(1) * Z
        return sums.adjoint + self.penalty.unsqueeze(1) * penalised, (sums.squares + penalised.square().sum(0)).sqrt()

    def gradient(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``A'(B - A Z) - P'P Z``, shape ``(columns, targets)``, and the squared residual norms ``(targets,)``.

        The squared norms count the ridge rows as well.
        """
        V, offset = self.columns.raw(Z)
        sums = self.rows.walk(ResidualSums(self.columns, V, offset, targets=True))
        if self.l2 == 0:
            return sums.adjoint, sums.squares
        penalised = self.penalty.unsqueeze(1) * Z
        return sums.adjoint - self.penalty.unsqueeze(1) * penalised, sums.squares + penalised.square().sum(0)

    def image_norms(self, Z: Tensor) -> Tensor:
        """Return the lengths of the columns of A Z with those of P Z under them, ``(k,)``."""
        V, offset = self.columns.raw(Z)
        sums = self.rows.walk(ResidualSums(self.columns, V, offset, targets=False, label="certifying"))
        return (sums.squares + (self.penalty.unsqueeze(1) * Z).square().sum(0)).sqrt()

    def product(self, Z: Tensor) -> Tensor:
        """Return ``A Z`` as one tensor ``(rows, k)``; for square and wide problems, where it is small."""
        return self._weighted(self._unweighted_product(Z))

    def residual(self, Z: Tensor) -> Tensor:
        """Return ``B - A Z`` as one tensor ``(rows, targets)``; for square and wide problems, where it is small."""
        return self._weighted(self.gathered_targets - self._unweighted_product(Z))

    def _unweighted_product(self, Z: Tensor) -> Tensor:
        V, offset = self.columns.raw(Z)
        X = self.gathered.X
        # In blocks where a dtype is converted as it is multiplied, so that no copy of the whole is made.
        plain = X.dtype == torch.float64 and X.is_contiguous()
        size = max(X.shape[0], 1) if plain else self.rows.extent.cached_rows()
        parts = [COMPILED.product(X[start : start + size].to(torch.float64), V) for start in range(0, X.shape[0], size)]
        whole = torch.cat(parts)
        return whole if offset is None else whole + offset

    def _weighted(self, values: Tensor) -> Tensor:
        weight = self.gathered.weight
        return values if weight is None else values * weight.sqrt().unsqueeze(1)

    def to_weights(self, Z: Tensor) -> Weights:
        """Return the weights of the coordinates Z, ``(columns, targets)``."""
        # One exponent for both scales: neither alone may take the weights out of the range of doubles.
        exponents = self.design.target_exponents - self._exponents.unsqueeze(1)
        return Weights.from_stacked(times_power_of_two(Z, exponents), bias=self.bias)

    def from_weights(self, weights: Weights) -> Tensor:
        """Return the coordinates ``(columns, targets)`` of weights."""
        return weights.stacked().to(self.scale) * self.target_scale / self.columns.column

"""The basis of a table with more rows than columns: from the Gram matrix where that is exact enough, or a triangle."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.fit.path.basis import Basis, kept_values
from closedform.numerics.symmetric import mirror
from closedform.numerics.triangle import Triangle
from closedform.rows import Block, Design, SumFold
from closedform.rows.block import Extent

__all__ = ["CentredSums", "Centring", "Means", "basis_by_gram", "basis_of_triangle", "uniform_exponent"]

_EPS = sys.float_info.epsilon
#: Rows of a block, at least: their product with the columns is bound by arithmetic then.
_FEWEST_ROWS = 1024


@final
@dataclass(frozen=True, eq=False)
class Centring:
    """How rows are brought to coordinates: divided by powers of two, less their means, times the roots of the weights.

    Attributes:
        x_scale: Power of two that X is multiplied by.
        y_scale: Powers of two that the targets are multiplied by, ``(targets,)``.
        mean: ``(features,)`` in that scale, or None.
        target_mean: ``(targets,)`` in that scale, or None.
    """

    x_scale: float
    y_scale: Tensor
    mean: Tensor | None
    target_mean: Tensor | None

    def features(self, block: Block) -> tuple[Tensor, Tensor | None]:
        """Return the centred and weighted features of a block, new, and the roots of the weights or None."""
        A = block.X.to(torch.float64) * self.x_scale
        if self.mean is not None:
            A -= self.mean
        if block.weight is None:
            return A, None
        root = block.weight.sqrt()
        A *= root.unsqueeze(1)
        return A, root

    def targets(self, block: Block, root: Tensor | None) -> Tensor:
        """Return the centred and weighted targets of a block, new."""
        B = block.Y.to(torch.float64) * self.y_scale
        if self.target_mean is not None:
            B -= self.target_mean
        return B if root is None else B.mul_(root.unsqueeze(1))


def block_rows(extent: Extent) -> int:
    """Return how many rows are brought to coordinates at a time."""
    return max(_FEWEST_ROWS, extent.cached_rows())


@final
class Means(SumFold):
    """Weighted sums of the columns of X and Y.

    Args:
        n_features: Columns of X.
        y_scale: Powers of two that the targets are multiplied by, ``(targets,)``.
        x_scale: Power of two that X is multiplied by.
    """

    label = "factoring"

    def __init__(self, n_features: int, x_scale: float, y_scale: Tensor) -> None:
        self._arguments = (n_features, x_scale, y_scale)
        self._x_scale = y_scale.new_full((n_features,), x_scale)
        self._x, self._y = y_scale.new_zeros(2, n_features), y_scale.new_zeros(2, y_scale.shape[0])

    @property
    def features(self) -> Tensor:
        """Sums of the features, ``(features,)``."""
        return self._x[1]

    @property
    def targets(self) -> Tensor:
        """Sums of the targets, ``(targets,)``."""
        return self._y[1]

    @override
    def add(self, block: Block) -> None:
        x_scale, y_scale = self._x_scale, self._arguments[2]
        block.engine.spread_squares_(self._x, block.X, x_scale, torch.zeros_like(x_scale), block.weight)
        engine_for(block.Y).spread_squares_(self._y, block.Y, y_scale, torch.zeros_like(y_scale), block.weight)

    @override
    def fresh(self) -> Self:
        return type(self)(*self._arguments)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self._x, self._y


@final
class CentredSums(SumFold):
    """``A'A``, ``A'B`` and the squares of B for centred rows.

    Args:
        centring: How rows are centred.
        n_features: Columns of X.
    """

    label = "factoring"

    def __init__(self, centring: Centring, n_features: int) -> None:
        self._centring, self._n_features = centring, n_features
        k = centring.y_scale.shape[0]
        self.gram = centring.y_scale.new_zeros(n_features, n_features)
        self.cross = centring.y_scale.new_zeros(n_features, k)
        self.squares = centring.y_scale.new_zeros(k)

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return block_rows(extent)

    @override
    def add(self, block: Block) -> None:
        A, root = self._centring.features(block)
        B = self._centring.targets(block, root)
        ones = torch.ones_like(self.squares)
        engine_for(A).normal_equations_(self.gram, self.cross, A, B, ones)
        self.squares += B.square().sum(0)

    @override
    def fresh(self) -> Self:
        return type(self)(self._centring, self._n_features)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self.gram, self.cross, self.squares


def uniform_exponent(design: Design) -> int:
    """Return the power of two that brings the longest column to about 1."""
    return int(design.exponents[int(design.bias) :].max())


def basis_by_gram(design: Design) -> Basis:
    """Return the basis from the eigenvectors of the centred Gram matrix; its ``error`` grows with the squares."""
    exponent, device = uniform_exponent(design), design.rows.device
    scanned, n = design.scanned, design.rows.n_features
    x_scale, y_scale = 2.0**-exponent, design.columns.target_scale
    centring = Centring(x_scale, y_scale, None, None)
    if design.bias:
        means = design.rows.walk(Means(n, x_scale, y_scale))
        total = scanned.weight_sum
        centring = Centring(x_scale, y_scale, means.features / total, means.targets / total)
    sums = design.rows.walk(CentredSums(centring, n))

    values, vectors = torch.linalg.eigh(mirror(sums.gram))
    values, vectors = values.flip(0), vectors.flip(1)
    kept = kept_values(values, scanned.positive_rows, n)
    values, vectors = values[:kept], vectors[:, :kept]
    map_ = vectors / values.sqrt()
    coordinates = map_.T @ sums.cross
    return Basis(
        squares=values,
        coordinates=coordinates,
        residual_squares=(sums.squares - coordinates.square().sum(0)).clamp(min=0.0),
        rows=scanned.positive_rows,
        weight_sum=scanned.weight_sum,
        bias=design.bias,
        x_exponent=exponent,
        target_exponents=design.target_exponents,
        map=map_,
        mean=centring.mean if centring.mean is not None else torch.zeros(n, dtype=torch.float64, device=device),
        target_mean=centring.target_mean if centring.target_mean is not None else torch.zeros_like(y_scale),
        error=_EPS * float(values[0] / values[-1]) if kept else _EPS,
    )


def basis_of_triangle(triangle: Triangle, exponent: int) -> Basis:
    """Return the basis from the singular vectors of a triangle of the rows.

    Args:
        triangle: That of ``[1 | X]`` or X and the targets.
        exponent: The power of two that X is divided by.
    """
    bias, n = triangle.has_ones, triangle.columns - int(triangle.has_ones)
    mean, target_mean = triangle.R.new_zeros(n), triangle.C.new_zeros(triangle.targets)
    uniform = torch.full_like(triangle.exponents, exponent)
    centred = triangle.rescaled(uniform)
    if bias:
        corner = centred.R[0, 0]
        # The column of ones was scaled as the features are; the targets have a scale of their own.
        mean = centred.R[0, 1:] / torch.ldexp(corner, uniform[0])
        target_mean = centred.C[0] / torch.ldexp(corner, uniform[0])
        centred = centred.centred()

    U, values, vectors = torch.linalg.svd(centred.R, full_matrices=False)
    kept = kept_values(values, triangle.rows, n)
    coordinates = U.T @ centred.C
    left = coordinates[kept:].square().sum(0)
    return Basis(
        squares=values[:kept].square(),
        coordinates=coordinates[:kept],
        residual_squares=triangle.residual_squares + left,
        rows=triangle.rows,
        weight_sum=triangle.weight_sum,
        bias=bias,
        x_exponent=exponent,
        target_exponents=triangle.target_exponents,
        map=vectors[:kept].T / values[:kept],
        mean=mean,
        target_mean=target_mean,
        error=_EPS * float(values[0] / values[kept - 1]) if kept else _EPS,
    )

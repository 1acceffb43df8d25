"""The basis of a table with more rows than columns: from the Gram matrix where that is exact enough, or a triangle."""

from __future__ import annotations

import sys
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.fit.path.basis import Basis, kept_values, more_than_centring, singular_vectors
from closedform.fit.path.centring import Centring, Means, product_rows
from closedform.fit.path.labels import ClassWeights, Coding, LabelMoments
from closedform.numerics.symmetric import mirror
from closedform.numerics.triangle import Triangle
from closedform.rows import Block, Design, OneHotRows, SumFold, labelled
from closedform.rows.block import Extent

__all__ = ["CentredSums", "basis_by_gram", "basis_of_triangle", "centring_by_means", "uniform_exponent"]

_EPS = sys.float_info.epsilon


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
        return product_rows(extent)

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


def centring_by_means(design: Design) -> Centring:
    """Return how rows are brought to coordinates, with means by a pass over the rows where there is a bias."""
    x_scale, y_scale = 2.0 ** -uniform_exponent(design), design.columns.target_scale
    if not design.bias:
        return Centring(x_scale, y_scale, None, None)
    rows, total = design.rows, design.scanned.weight_sum
    if isinstance(rows.y, OneHotRows):
        plain = labelled(rows, rows.y)
        features = plain.walk(Means(rows.n_features, x_scale, y_scale.new_ones(1))).features
        weights = plain.walk(ClassWeights(rows.n_targets, rows.device)).weights
        means = rows.y.off + (1 - rows.y.off) * weights / total
        return Centring(x_scale, y_scale, features / total, means * y_scale)
    sums = rows.walk(Means(rows.n_features, x_scale, y_scale))
    return Centring(x_scale, y_scale, sums.features / total, sums.targets / total)


def _moments(design: Design, centring: Centring) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``A'A``, its upper triangle, ``A'B`` and the squares of B of centred rows."""
    rows = design.rows
    if isinstance(rows.y, OneHotRows):
        coding = Coding.of(rows.y, centring)
        sums = labelled(rows, rows.y).walk(LabelMoments(centring, rows.n_features, rows.n_targets))
        cross = coding.sums(sums.classes.T)
        return sums.gram, cross, coding.squares(sums.weights)
    moments = rows.walk(CentredSums(centring, rows.n_features))
    return moments.gram, moments.cross, moments.squares


def basis_by_gram(design: Design, centring: Centring) -> Basis:
    """Return the basis from the eigenvectors of the centred Gram matrix; its ``error`` grows with the squares.

    Args:
        design: The rows.
        centring: How they are centred.
    """
    scanned, n, device = design.scanned, design.rows.n_features, design.rows.device
    gram, cross, squares = _moments(design, centring)
    design.keep_moments(gram, cross, centring.x_scale, centring.mean, centring.target_mean)

    values, vectors = torch.linalg.eigh(mirror(gram))
    values, vectors = values.flip(0), vectors.flip(1)
    kept = kept_values(values, scanned.positive_rows, n)
    values, vectors = values[:kept], vectors[:, :kept]
    if centring.mean is not None:
        before = (gram.diagonal() + scanned.weight_sum * centring.mean.square()).sqrt()
        more = more_than_centring(values.sqrt(), vectors, before)
        values, vectors = values[more], vectors[:, more]
    map_ = vectors / values.sqrt()
    coordinates = map_.T @ cross

    return Basis(
        squares=values,
        coordinates=coordinates,
        residual_squares=(squares - coordinates.square().sum(0)).clamp(min=0.0),
        rows=scanned.positive_rows,
        weight_sum=scanned.weight_sum,
        bias=design.bias,
        x_exponent=uniform_exponent(design),
        target_exponents=design.target_exponents,
        map=map_,
        mean=centring.mean if centring.mean is not None else torch.zeros(n, dtype=torch.float64, device=device),
        target_mean=centring.target_mean if centring.target_mean is not None else torch.zeros_like(squares),
        error=_EPS * float(values[0] / values[-1]) if values.numel() else _EPS,
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
    before = None
    if bias:
        before = torch.linalg.vector_norm(centred.R[:, 1:], dim=0)
        corner = centred.R[0, 0]
        # The column of ones was scaled as the features are; the targets have a scale of their own.
        mean = centred.R[0, 1:] / torch.ldexp(corner, uniform[0])
        target_mean = centred.C[0] / torch.ldexp(corner, uniform[0])
        centred = centred.centred()

    U, values, map_, error = singular_vectors(centred.R, triangle.rows, before)
    kept = values.shape[0]
    coordinates = U.T @ centred.C
    left = coordinates[kept:].square().sum(0)
    return Basis(
        squares=values.square(),
        coordinates=coordinates[:kept],
        residual_squares=triangle.residual_squares + left,
        rows=triangle.rows,
        weight_sum=triangle.weight_sum,
        bias=bias,
        x_exponent=exponent,
        target_exponents=triangle.target_exponents,
        map=map_,
        mean=mean,
        target_mean=target_mean,
        error=error,
    )

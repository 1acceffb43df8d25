"""Wide systems: the weights of least norm are ``x = B u`` with ``B = A'`` and ``B'B u = b``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from closedform.fit.extended.fixed_point import MAX_SLICES, coefficients, residual
from closedform.fit.extended.operand import SLACK, Block, Operand, U, exactly, rows_per_block
from closedform.fit.extended.preconditioner import from_triangle
from closedform.fit.extended.refinement import refine
from closedform.numerics.expansion import accumulate, renormalise, two_sum
from closedform.numerics.scaling import power_of_two_exponents
from closedform.numerics.slices import cut, exponents_of, scaled
from closedform.rows import Design

__all__ = ["least_norm"]

#: The smallest positive double.
_SMALLEST = 2.0**-1074
#: Parts of the expansions of the weights.
_PARTS = 4


@final
class _Transposed(Operand):
    """The transposed equations ``(features, equations)``, each less the last one where there is a bias.

    A bias that is free makes the equations hold up to a constant: their differences hold without it. A difference of
    doubles is kept as its exact two parts.
    """

    offset: Tensor

    def __init__(self, design: Design) -> None:
        rows = design.rows
        X = rows.x.read(0, rows.n_rows).to(torch.float64)
        Y = rows.y.read(0, rows.n_rows).to(torch.float64)
        if rows.weight is not None:
            kept = rows.weight.read(0, rows.n_rows) > 0
            X, Y = X[kept], Y[kept]
        #: One power of two for a target; that of the design is for weighted rows, and weights are no matter here.
        self.target_unit = torch.ldexp(torch.ones_like(Y[0]), -power_of_two_exponents(Y.abs().amax(0)))
        Y = exactly(Y, self.target_unit)
        #: One power of two for all features; the weights are that much larger.
        self.feature_unit = torch.ldexp(X.new_ones(()), -power_of_two_exponents(X.abs().max()))
        X = exactly(X, self.feature_unit)
        self.last_row, self.last_target = X[-1], Y[-1]
        self.X = X[:-1] if design.bias else X
        self.bias = design.bias
        self.columns, self.targets, self.rows = self.X.shape[0], Y.shape[1], X.shape[1]
        self.graded = True
        self.offset = torch.zeros(2, self.columns, self.targets, dtype=torch.float64, device=X.device)
        self.offset[0] = Y[:-1] if design.bias else Y
        if design.bias:
            self.offset = torch.stack(two_sum(self.offset[0], (-self.last_target).expand_as(self.offset[0])))
        # Equations can be scaled; powers of two put them on a par exactly.
        self.unit = torch.ones(self.columns, dtype=torch.float64, device=X.device)
        peaks = torch.stack([B.abs().amax(0) for B in self.rounded()]).amax(0)
        self.unit = torch.ldexp(self.unit, -power_of_two_exponents(peaks))
        self.offset = exactly(self.offset, self.unit.unsqueeze(1))
        self.peaks = self.offset[0].abs().amax(0)
        self.frobenius_norm = float(torch.stack([B.square().sum() for B in self.rounded()]).sum().sqrt()) * SLACK

    def _parts(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        size = rows_per_block(self.columns)
        for start in range(0, self.rows, size):
            B, low = self.X[:, start : start + size].T, None
            if self.bias:
                B, low = two_sum(B, (-self.last_row[start : start + size]).unsqueeze(1).expand_as(B))
                low = exactly(low, self.unit)
            yield exactly(B, self.unit), low

    def blocks(self, slices: int) -> Iterator[Block]:
        for B, low in self._parts():
            exponents = exponents_of(B.abs().amax(1)).unsqueeze(1)
            values = scaled(B, -exponents)
            left = cut(
                values,
                values.new_empty(values.shape[0], slices, values.shape[1]),
                None if low is None else scaled(low, -exponents),
            )
            ones = torch.ones_like(exponents, dtype=torch.float64)
            yield Block(left, B.new_zeros(B.shape[0], self.targets), exponents, scaled(ones, 2 * exponents))

    def rounded(self) -> Iterator[Tensor]:
        for B, _ in self._parts():
            yield B


def least_norm(design: Design) -> tuple[Tensor, Tensor, float, int]:
    """Return the weights of least norm, with a bias outside the norm, in the coordinates of the design.

    Returns:
        Expansions ``(parts, columns, targets)``, a bound on their error, delta, and the passes over the rows.
    """
    if design.bias and design.scanned.positive_rows == 1:
        return _one_row(design)
    operand = _Transposed(design)
    m = operand.columns
    rounded = torch.cat(list(operand.rounded()))
    preconditioner = from_triangle(operand, torch.geqrf(rounded)[0][:m].triu())
    T, delta = preconditioner.T, preconditioner.delta
    right = operand.offset[0]
    start = T @ (T.T @ right) if bool(torch.isfinite(T).all()) else torch.full_like(right, torch.nan)
    # The bias is what is left of the last equation, so the rest is refined as far as it goes.
    refined = refine(operand, start, T, delta, 0.0, measured=True)
    # x* - x = B T v.
    slack = (m + 5) * U * float(torch.linalg.matrix_norm(T))
    lengths = torch.linalg.vector_norm(rounded @ T, dim=1) + slack * torch.linalg.vector_norm(rounded, dim=1)
    u = coefficients(refined.z, operand.peaks, operand.graded, MAX_SLICES)
    parts, bounds = [], []
    at = 0
    for block in operand.blocks(MAX_SLICES):
        exponents = (0 if block.exponents is None else block.exponents) + u.exponents
        x = _expansion(residual(block, u, block.right))
        rows = slice(at, at + block.right.shape[0])
        at = rows.stop
        parts.append(-scaled(x, exponents))
        missing = scaled(torch.ones_like(block.right), exponents - u.exponents) * u.residual_error
        bounds.append((lengths[rows].unsqueeze(1) * refined.reach + missing) * SLACK)
    x, bound = torch.cat(parts, 1), torch.cat(bounds)
    if design.bias:
        first, first_bound = _offset(operand, x, bound)
        x, bound = torch.cat([first, x], 1), torch.cat([first_bound, bound])
    # Back to the units of the features; a bias has none.
    units = torch.ones(design.n_columns, 1, dtype=torch.float64, device=x.device)
    units[int(design.bias) :] = operand.feature_unit
    units = units / design.scale.unsqueeze(1) * (design.target_scale / operand.target_unit)
    # In the coordinates of the design a number may fall among the smallest doubles, which are that far apart.
    return x * units, bound * units + 2 * _PARTS * _SMALLEST, delta, refined.passes


def _expansion(limbs: Tensor) -> Tensor:
    """Return fixed-point numbers as expansions; beyond the last part nothing is left of the 60 digits of limbs."""
    expansion = limbs.new_zeros(_PARTS, *limbs.shape[1:])
    for limb in limbs:
        accumulate(expansion, limb)
    return renormalise(expansion)


def _one_row(design: Design) -> tuple[Tensor, Tensor, float, int]:
    """A single equation is met by the bias alone, exactly."""
    rows = design.rows
    Y = rows.y.read(0, rows.n_rows).to(torch.float64) * design.target_scale
    if rows.weight is not None:
        Y = Y[rows.weight.read(0, rows.n_rows) > 0]
    high = torch.zeros(1, design.n_columns, design.n_targets, dtype=torch.float64, device=Y.device)
    high[0, 0] = Y[0] / design.scale[0]
    return torch.cat([high, torch.zeros_like(high)]), torch.zeros_like(high[0]), 0.0, 1


def _offset(operand: _Transposed, x: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bias that meets the last equation, as an expansion ``(parts, 1, targets)``, and a bound on it."""
    row, target = operand.last_row.unsqueeze(0), operand.last_target.unsqueeze(0)
    exponents = exponents_of(torch.maximum(row.abs().max(), target.abs().max()).reshape(1, 1))
    values = scaled(row, -exponents)
    left = cut(values, values.new_empty(1, MAX_SLICES, row.shape[1]))
    block = Block(left, scaled(target, -exponents), exponents, None)
    coefficient = coefficients(x, torch.ones_like(operand.peaks), True, MAX_SLICES)
    value = scaled(_expansion(residual(block, coefficient, block.right)), coefficient.exponents + exponents)
    missing = scaled(coefficient.residual_error.unsqueeze(0), exponents)
    return value, (row.abs() @ bound) * SLACK + missing

"""Wide systems: the weights of least norm are ``x = B u`` with ``B = A'`` and ``B'B u = b``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.extended.arithmetic import SLACK, SlicedBlock, U, exactly, rows_per_block
from closedform.fit.extended.fixed_point import MAX_SLICES, Coefficients, coefficients, residual
from closedform.fit.extended.operand import AnyFold, Operand
from closedform.fit.extended.preconditioner import from_triangle
from closedform.fit.extended.refinement import refine
from closedform.fit.problem import Problem
from closedform.numerics.expansion import accumulate_, renormalise, two_sum
from closedform.numerics.scaling import power_of_two_exponents, powers_of_two
from closedform.numerics.slices import cut_, exponents_of, scaled
from closedform.rows import Block

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

    def __init__(self, problem: Problem) -> None:
        rows = problem.gathered
        self._engine = rows.engine
        X, Y = rows.X.to(torch.float64), rows.Y.to(torch.float64)
        if rows.weight is not None:
            X, Y = X[rows.weight > 0], Y[rows.weight > 0]

        #: One power of two for a target; that of the design is for weighted rows, and weights are no matter here.
        self.target_unit = powers_of_two(-power_of_two_exponents(Y.abs().amax(0)))
        Y = exactly(Y, self.target_unit)
        #: One power of two for all features; the weights are that much larger.
        self.feature_unit = torch.ldexp(X.new_ones(()), -power_of_two_exponents(X.abs().max()))
        X = exactly(X, self.feature_unit)
        self.last_row, self.last_target = X[-1], Y[-1]
        self.X = X[:-1] if problem.bias else X
        self.bias = problem.bias
        self.columns, self.targets, self.rows = self.X.shape[0], Y.shape[1], X.shape[1]
        self.graded = True
        self.offset = torch.zeros(2, self.columns, self.targets, dtype=torch.float64, device=X.device)
        self.offset[0] = Y[:-1] if problem.bias else Y
        if problem.bias:
            self.offset = torch.stack(two_sum(self.offset[0], (-self.last_target).expand_as(self.offset[0])))

        # Equations can be scaled; powers of two put them on a par exactly.
        self.unit = torch.ones(self.columns, dtype=torch.float64, device=X.device)
        peaks = torch.stack([block.X.abs().amax(0) for block in self.features()]).amax(0)
        self.unit = torch.ldexp(self.unit, -power_of_two_exponents(peaks))
        self.offset = exactly(self.offset, self.unit.unsqueeze(1))
        self.peaks = self.offset[0].abs().amax(0)
        squares = torch.stack([block.X.square().sum() for block in self.features()])
        self.frobenius_norm = float(squares.sum().sqrt()) * SLACK

    def features(self) -> Iterator[Block]:
        """Walk the features, which are its rows.

        Yields:
            Blocks whose X holds them, and whose Y holds what rounding took from them, or nothing.
        """
        size = rows_per_block(self.columns)
        for start in range(0, self.rows, size):
            B = self.X[:, start : start + size].T
            low = B[:, :0]
            if self.bias:
                B, low = two_sum(B, (-self.last_row[start : start + size]).unsqueeze(1).expand_as(B))
                low = exactly(low, self.unit)
            yield Block(start, exactly(B, self.unit), low, None, self._engine)

    @override
    def walk(self, fold: AnyFold) -> AnyFold:
        for block in self.features():
            fold.add(block)
        return fold

    @override
    def sliced(self, block: Block, room: Tensor) -> SlicedBlock:
        exponents = exponents_of(block.X.abs().amax(1)).unsqueeze(1)
        low = scaled(block.Y, -exponents) if block.Y.shape[1] else None
        left = cut_(scaled(block.X, -exponents), room, low)
        ones = torch.ones_like(exponents, dtype=torch.float64)
        right = block.X.new_zeros(block.X.shape[0], self.targets)
        return SlicedBlock(left, right, exponents, scaled(ones, 2 * exponents))

    @override
    def rounded(self, block: Block) -> Tensor:
        return block.X

    def whole(self) -> Tensor:
        """Return all its rows, rounded."""
        return torch.cat([block.X for block in self.features()])


def least_norm(problem: Problem) -> tuple[Tensor, Tensor, float, int]:
    """Return the weights of least norm, with a bias outside the norm, in the coordinates of the problem.

    Returns:
        Expansions ``(parts, columns, targets)``, a bound on their error, delta, and the passes over the rows.
    """
    if problem.bias and problem.scanned.positive_rows == 1:
        return _one_row(problem)
    operand = _Transposed(problem)
    m = operand.columns
    rounded = operand.whole()
    preconditioner = from_triangle(operand, torch.geqrf(rounded)[0][:m].triu())
    T, delta = preconditioner.T, preconditioner.delta
    right = operand.offset[0]
    start = T @ (T.T @ right) if bool(torch.isfinite(T).all()) else torch.full_like(right, torch.nan)

    # The bias is what is left of the last equation, so the rest is refined as far as it goes.
    refined = refine(operand, start, T, delta, 0.0, measured=True)
    # x* - x = B T v.
    slack = (m + 6) * U * float(torch.linalg.matrix_norm(T))
    lengths = torch.linalg.vector_norm(rounded @ T, dim=1) + slack * torch.linalg.vector_norm(rounded, dim=1)
    u = coefficients(refined.z, operand.peaks, operand.graded, MAX_SLICES)
    x, bound = _weights(operand, u, lengths, refined.reach)

    if problem.bias:
        first, first_bound = _offset(operand, x, bound)
        x, bound = torch.cat([first, x], 1), torch.cat([first_bound, bound])
    # Back to the units of the features; a bias has none.
    units = torch.ones(problem.n_columns, 1, dtype=torch.float64, device=x.device)
    units[int(problem.bias) :] = operand.feature_unit
    units = units / problem.scale.unsqueeze(1) * (problem.target_scale / operand.target_unit)
    # In the coordinates of the design a number may fall among the smallest doubles, which are that far apart.
    return x * units, bound * units + 2 * _PARTS * _SMALLEST, delta, refined.passes


def _weights(operand: _Transposed, u: Coefficients, lengths: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``B u`` as expansions ``(parts, features, targets)``, and bounds on them."""
    parts, bounds, start = [], [], 0
    size = rows_per_block(operand.columns)
    room = u.rounded.new_empty(size, MAX_SLICES, operand.columns)
    for rows in operand.features():
        block = operand.sliced(rows, room[: rows.X.shape[0]])
        exponents = (0 if block.exponents is None else block.exponents) + u.exponents
        parts.append(-scaled(_expansion(residual(block, u, block.right)), exponents))
        missing = scaled(torch.ones_like(block.right), exponents - u.exponents) * u.residual_error
        stop = start + block.right.shape[0]
        bounds.append((lengths[start:stop].unsqueeze(1) * reach + missing) * SLACK)
        start = stop
    return torch.cat(parts, 1), torch.cat(bounds)


def _expansion(limbs: Tensor) -> Tensor:
    """Return fixed-point numbers as expansions; beyond the last part nothing is left of the 60 digits of limbs."""
    expansion = limbs.new_zeros(_PARTS, *limbs.shape[1:])
    for limb in limbs:
        accumulate_(expansion, limb)
    return renormalise(expansion)


def _one_row(problem: Problem) -> tuple[Tensor, Tensor, float, int]:
    """A single equation is met by the bias alone, exactly."""
    Y, weight = problem.gathered_targets, problem.gathered.weight
    if weight is not None:
        Y = Y[weight > 0]
    high = torch.zeros(1, problem.n_columns, problem.n_targets, dtype=torch.float64, device=Y.device)
    high[0, 0] = Y[0] / problem.scale[0]
    return torch.cat([high, torch.zeros_like(high)]), torch.zeros_like(high[0]), 0.0, 1


def _offset(operand: _Transposed, x: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bias that meets the last equation, as an expansion ``(parts, 1, targets)``, and a bound on it."""
    row, target = operand.last_row.unsqueeze(0), operand.last_target.unsqueeze(0)
    exponents = exponents_of(torch.maximum(row.abs().max(), target.abs().max()).reshape(1, 1))
    values = scaled(row, -exponents)
    left = cut_(values, values.new_empty(1, MAX_SLICES, row.shape[1]))
    block = SlicedBlock(left, scaled(target, -exponents), exponents, None)
    coefficient = coefficients(x, torch.ones_like(operand.peaks), True, MAX_SLICES)
    value = scaled(_expansion(residual(block, coefficient, block.right)), coefficient.exponents + exponents)
    missing = scaled(coefficient.residual_error.unsqueeze(0), exponents)
    return value, (row.abs() @ bound) * SLACK + missing

"""Refinement in extended precision, and a bound on the error of every weight that is proven, not estimated.

Let T be the inverse of the R of a factor, rounded: any matrix of doubles will do. With ``M = T'A'A T`` and
``|M - I| <= delta < 1`` the normal matrix is invertible and

    x* - x = T M^-1 T' g,   g = A'(b - A x),   so   |x* - x|_i <= |T_i| |T'g| / (1 - delta)    (Euclidean norms).

So a bound needs three things, each with its rounding accounted for: delta from ``Y = A T``, the gradient g, and T'g.
g is computed from exact products of slices (Ozaki, Ogita, Oishi and Rump 2012), the weights are held as ``high +
low``, and a correction ``T T'g`` brings them closer by a factor delta each time (Demmel, Hida, Riedy and Li 2009 for
refinement in extended precision; Rump 2013 for an approximate inverse as an exact preconditioner). A wide system is the
mirror image: ``x = B u`` with ``B = A'``, and ``g = b - B'B u``. The constants are derived in docs/how-many-digits.md.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from closedform.numerics.expansion import accumulate, multiply, renormalise, two_sum
from closedform.numerics.slices import LENGTH, cut, cut_expansion, exponents_of, scaled, slice_products
from closedform.rows import Design
from closedform.rows.scan import power_of_two_exponents

__all__ = ["Extended", "extend"]

_U = sys.float_info.epsilon / 2
_MAX_PASSES = 60
#: Relative size at which the pair high + low holds all that double-double can.
_GOAL = 2.0**-70

# Slices of the weights and of the residual (160 bits), and the last pair of slices that counts.
_SLICES, _LAST_PAIR = 8, 10
# Parts of the sums of their products. The last part alone is rounded: with N terms that is N**parts * u**parts.
_RESIDUAL_PARTS, _GRADIENT_PARTS = 4, 5
# Relative bounds on what slicing and summing leave out of a product and of the gradient. They are far above what is
# left out (2**-160), so that nothing in their derivation has to be sharp.
_RESIDUAL_ERROR, _GRADIENT_ERROR = 2.0**-140, 2.0**-150
# What rows far below the others may lose at the lower end of the range; all coordinates are of the order of 1.
_UNDERFLOW = 1e-290
# Norms and bounds are themselves computed in double precision: more than their rounding.
_SLACK = 1.0 + 1e-6


@final
@dataclass(frozen=True)
class Extended:
    """Weights as ``high + low`` in the coordinates of the design, and a bound on their error.

    Attributes:
        high: The weights rounded to double, ``(columns, targets)``.
        low: What is missing from ``high``, ``(columns, targets)``.
        bound: Bound on ``|x* - (high + low)|``, ``(columns, targets)``; inf where there is none.
        delta: Bound on ``|T'A'A T - I|``; 1 or more means that nothing could be bounded.
        passes: Passes over the rows.
    """

    high: Tensor
    low: Tensor
    bound: Tensor
    delta: float
    passes: int


def extend(design: Design, start: Tensor) -> Extended:
    """Refine until the pair high + low is as good as it gets, and bound its error.

    Tall and square systems and all with a ridge start from ``start``; wide ones get the weights of least norm, with a
    bias outside the norm.

    Args:
        design: The problem; its rows, weights and ridge strength are taken as exact numbers.
        start: Coordinates, ``(columns, targets)``.
    """
    try:
        if design.scanned.positive_rows < design.n_columns and design.l2 == 0:
            found = _extend_wide(design)
        else:
            z, bound, delta, passes = _refine(_Tall(design), start, _inverse(design.triangle.R), _GOAL)
            found = Extended(z[0], z[1], bound + z[2].abs(), delta, passes)
    except _OutOfRange:
        return Extended(start, torch.zeros_like(start), torch.full_like(start, torch.inf), torch.inf, 0)
    found = replace(found, bound=found.bound.nan_to_num(nan=torch.inf, posinf=torch.inf))
    # Targets that are zero have zero weights, exactly.
    zero = design.target_norms == 0
    if not found.delta < 1 or not bool(zero.any()):
        return found
    return replace(
        found,
        high=torch.where(zero, 0.0, found.high),
        low=torch.where(zero, 0.0, found.low),
        bound=torch.where(zero, 0.0, found.bound),
    )


def _inverse(R: Tensor) -> Tensor:
    if R.shape[0] < R.shape[1] or bool((R.diagonal() == 0).any()):
        return torch.full((R.shape[1], R.shape[1]), torch.inf, dtype=R.dtype, device=R.device)
    return torch.linalg.solve_triangular(R, torch.eye(R.shape[0], dtype=R.dtype, device=R.device), upper=True)


@final
@dataclass(frozen=True)
class _Block:
    """Rows of the operand: ``2**exponents * sum(slices)`` exactly, the same rounded, right-hand sides, weights."""

    slices: list[Tensor]
    exponents: Tensor
    rounded: Tensor
    right: Tensor
    weight: Tensor | None


class _OutOfRange(Exception):
    """A number cannot be scaled or split without losing bits to the ends of the range of doubles."""


def _exactly(values: Tensor, scale: Tensor) -> Tensor:
    """Return ``values * scale`` for powers of two, or raise where that is not exact."""
    result = values * scale
    if not torch.equal(result / scale, values):
        raise _OutOfRange
    return result


class _Operand(ABC):
    """The matrix A of ``g = offset + A'W(b - A z) - penalty z``, by blocks of its rows."""

    columns: int
    targets: int
    device: torch.device
    frobenius_norm: float
    offset: Tensor | None = None
    penalty: Tensor | None = None

    @abstractmethod
    def blocks(self) -> Iterator[_Block]:
        """Walk the rows once."""


@final
class _Tall(_Operand):
    """The design matrix itself."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.columns, self.targets = design.n_columns, design.n_targets
        self.device = design.scale.device
        self.frobenius_norm = design.frobenius_norm
        if design.l2 > 0:
            # The root of l2 is not exact, l2 itself and the powers of two are.
            self.penalty = design.scale * (design.scale * design.l2)
            self.penalty[: int(design.bias)] = 0.0
            _check_splittable(self.penalty)

    def blocks(self) -> Iterator[_Block]:
        design = self.design
        for block in design.blocks(min(LENGTH, max(64, 2**21 // self.columns)), "extending"):
            A = _exactly(block.X, design.scale[1:] if design.bias else design.scale)
            if design.bias:
                A = torch.cat([A.new_full((A.shape[0], 1), float(design.scale[0])), A], 1)
            exponents = exponents_of(A.abs().amax(1)).unsqueeze(1)
            weight = None if block.weight is None else block.weight.unsqueeze(1)
            if weight is not None:
                _check_splittable(weight)
            yield _Block(cut(scaled(A, -exponents)), exponents, A, _exactly(block.Y, design.target_scale), weight)


def _check_splittable(factor: Tensor) -> None:
    """Products by splitting are exact well inside the range of doubles; zero is exact everywhere."""
    size = factor.abs()
    if bool(((size != 0) & ((size < 1e-100) | (size > 1e100))).any()):
        raise _OutOfRange


@final
class _Wide(_Operand):
    """The transposed equations ``(features, equations)``, each less the last one where there is a bias.

    A bias that is free makes the equations hold up to a constant: their differences hold without it. A difference of
    doubles is kept as its exact two parts.
    """

    offset: Tensor

    def __init__(self, design: Design) -> None:
        rows = design.rows
        X = rows.x.read(0, rows.n_rows).to(torch.float64)
        Y = _exactly(rows.y.read(0, rows.n_rows).to(torch.float64), design.target_scale)
        if rows.weight is not None:
            kept = rows.weight.read(0, rows.n_rows) > 0
            X, Y = X[kept], Y[kept]
        #: One power of two for all features; the weights are that much larger.
        self.feature_unit = torch.ldexp(X.new_ones(()), -power_of_two_exponents(X.abs().max()))
        X = _exactly(X, self.feature_unit)
        self.last_row, self.last_target = X[-1], Y[-1]
        self.X = X[:-1] if design.bias else X
        self.bias = design.bias
        self.columns, self.targets, self.device = self.X.shape[0], Y.shape[1], X.device
        self.offset = torch.zeros(_GRADIENT_PARTS, self.columns, self.targets, dtype=torch.float64, device=X.device)
        self.offset[0] = Y[:-1] if design.bias else Y
        if design.bias:
            accumulate(self.offset, (-self.last_target).expand_as(self.offset[0]))
        # Equations can be scaled; powers of two put them on a par exactly.
        self.unit = torch.ones(self.columns, dtype=torch.float64, device=X.device)
        peaks = torch.stack([block.rounded.abs().amax(0) for block in self.blocks()]).amax(0)
        self.unit = torch.ldexp(self.unit, -power_of_two_exponents(peaks))
        self.offset = _exactly(self.offset, self.unit.unsqueeze(1))
        squares = torch.stack([block.rounded.square().sum() for block in self.blocks()])
        self.frobenius_norm = float(squares.sum().sqrt())

    def blocks(self) -> Iterator[_Block]:
        size = min(LENGTH, max(64, 2**21 // max(self.columns, 1)))
        for start in range(0, self.X.shape[1], size):
            B = self.X[:, start : start + size].T
            parts = [B, torch.zeros_like(B)]
            if self.bias:
                parts = list(two_sum(B, (-self.last_row[start : start + size]).unsqueeze(1).expand_as(B)))
            parts = [_exactly(part, self.unit) for part in parts]
            exponents = exponents_of(parts[0].abs().amax(1)).unsqueeze(1)
            slices = cut(*(scaled(part, -exponents) for part in parts))
            yield _Block(slices, exponents, parts[0], B.new_zeros(B.shape[0], self.targets), None)


def _refine(operand: _Operand, start: Tensor, T: Tensor, goal: float) -> tuple[Tensor, Tensor, float, int]:
    """Refine z for ``g(z) = 0``; return it as an expansion of three parts, the bound on it, delta and the passes."""
    z = torch.stack([start, torch.zeros_like(start), torch.zeros_like(start)])
    bound = torch.full_like(start, torch.inf)
    if not bool(torch.isfinite(T).all() & torch.isfinite(start).all()):
        return z, bound, torch.inf, 0
    delta = _orthogonality(operand, T)
    lengths = torch.linalg.vector_norm(T, dim=1).unsqueeze(1) * _SLACK
    best = z.clone()
    least = torch.full((start.shape[1],), torch.inf, dtype=start.dtype, device=start.device)
    for passes in range(1, _MAX_PASSES + 1):
        projected, size = _projected(operand, T, z, delta)
        if not delta < 1:
            return z, bound, delta, passes
        better = size < least
        best = torch.where(better, z, best)
        bound = torch.where(better, lengths * size / (1 - delta) * _SLACK, bound)
        halved = bool((size < 0.5 * least).any())
        least = torch.minimum(size, least)
        if not halved or bool((bound <= goal * best[0].abs()).all()):
            break
        z = z.clone()
        accumulate(z, T @ projected)
        z = renormalise(z)
    return best, bound, delta, passes


@final
@dataclass
class _Gradient:
    """``g`` as expansions, with bounds on what is missing: from g itself, and from the residual behind it."""

    value: Tensor  # (parts, columns, targets)
    error: Tensor  # (targets,), on every entry
    residual_error: Tensor  # (targets,), Euclidean norm over the rows, each times the root of its weight


def _residual(block: _Block, z_slices: list[Tensor], z_exponents: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``b - A z`` of a block as expansions ``(parts, rows, targets)``, and a bound on its error."""
    exponents = block.exponents + z_exponents
    residual = torch.zeros(_RESIDUAL_PARTS, *block.right.shape, dtype=torch.float64, device=block.right.device)
    residual[0] = block.right
    columns = z_slices[0].shape[0]
    for start in range(0, columns, LENGTH):
        part = slice(start, start + LENGTH)
        for product in slice_products([s[:, part] for s in block.slices], [s[part] for s in z_slices], _LAST_PAIR):
            accumulate(residual, -scaled(product, exponents))
    size = columns * scaled(torch.ones_like(block.right), exponents) + block.right.abs()
    return renormalise(residual), _RESIDUAL_ERROR * size


def _slice_weights(z: Tensor) -> tuple[list[Tensor], Tensor]:
    exponents = exponents_of(z[0].abs().amax(0))
    return cut_expansion(scaled(z, -exponents), _SLICES), exponents


def _gradient(operand: _Operand, z: Tensor) -> _Gradient:
    """Return ``offset + A'W(b - A z) - penalty z`` for an expansion z from exact products of slices."""
    z_slices, z_exponents = _slice_weights(z)
    value = torch.zeros(_GRADIENT_PARTS, *z[0].shape, dtype=torch.float64, device=z.device)
    if operand.offset is not None:
        value += operand.offset
    error = _GRADIENT_ERROR * value[0].abs().amax(0)
    residual_squares = torch.zeros_like(error)
    for block in operand.blocks():
        residual, missing = _residual(block, z_slices, z_exponents)
        if block.weight is not None:
            missing = missing * block.weight.sqrt()
            residual = multiply(residual, block.weight)
        residual_squares += missing.square().sum(0)
        values = scaled(residual, block.exponents)
        peaks = exponents_of(values[0].abs().amax(0)) + 1
        r_slices = cut_expansion(scaled(values, -peaks), _SLICES)
        for product in slice_products([s.T for s in block.slices], r_slices, _LAST_PAIR):
            accumulate(value, scaled(product, peaks))
        error += block.right.shape[0] * _GRADIENT_ERROR * scaled(torch.ones_like(error), peaks) + _UNDERFLOW
    if operand.penalty is not None:
        ridge = multiply(torch.cat([z, torch.zeros_like(value[len(z) :])]), operand.penalty.unsqueeze(1))
        for part in ridge:
            accumulate(value, -part)
        error += _GRADIENT_ERROR * ridge[0].abs().amax(0)
    return _Gradient(renormalise(value), error, residual_squares.sqrt())


def _projected(operand: _Operand, T: Tensor, z: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """Return ``T'g`` and a bound on its exact Euclidean norm for each target."""
    gradient = _gradient(operand, z)
    rounded = gradient.value.sum(0)
    projected = T.T @ rounded
    # Rounding of the product, of g to double, and what is missing from g; A'e for an error e of the residual is bounded
    # through |A T| <= sqrt(1 + delta), which keeps the condition number out of it.
    missing = T.abs().T @ ((T.shape[0] + 8) * _U * rounded.abs() + gradient.error)
    size = torch.linalg.vector_norm(projected, dim=0) + torch.linalg.vector_norm(missing, dim=0)
    return projected, (size + (1 + delta) ** 0.5 * gradient.residual_error) * _SLACK


def _orthogonality(operand: _Operand, T: Tensor) -> float:
    """Bound ``|T'(A'A + P'P)T - I|`` (Frobenius norm): in double precision where that is enough, else from slices."""
    p = T.shape[0]
    reach = operand.frobenius_norm * float(torch.linalg.matrix_norm(T)) * _SLACK
    cheap = (p + 5) * _U * reach < 1e-3
    product_error = (p + 5) * _U * reach if cheap else 4 * p * _RESIDUAL_ERROR * reach
    gram = torch.zeros(p, p, dtype=torch.float64, device=T.device)
    squares, rows = 0.0, 0
    for Y in _rounded_products(operand, T) if cheap else _exact_products(operand, T):
        gram.addmm_(Y.T, Y)
        squares += float(Y.square().sum())
        rows += Y.shape[0]
    if operand.penalty is not None:
        Y = operand.penalty.sqrt().unsqueeze(1) * T
        gram.addmm_(Y.T, Y)
        squares += float(Y.square().sum())
        rows += p
    gram.diagonal().sub_(1.0)
    defect = float(torch.linalg.matrix_norm(gram)) + (rows + 10) * _U * squares
    # Rounding of Y itself: of its last addition, of the root of a weight, of the root of the ridge strength.
    change = product_error + 10 * _U * squares**0.5
    return float((defect + 2 * (1 + defect) ** 0.5 * change + change**2) * _SLACK)


def _rounded_products(operand: _Operand, T: Tensor) -> Iterator[Tensor]:
    for block in operand.blocks():
        Y = block.rounded @ T
        yield Y if block.weight is None else Y * block.weight.sqrt()


def _exact_products(operand: _Operand, T: Tensor) -> Iterator[Tensor]:
    """Yield blocks of ``sqrt(weight) A T``, computed from slices and rounded once."""
    exponents = exponents_of(T.abs().amax(0))
    T_slices = cut(scaled(T, -exponents))
    for block in operand.blocks():
        total = torch.zeros(_RESIDUAL_PARTS, block.rounded.shape[0], T.shape[1], dtype=torch.float64, device=T.device)
        for start in range(0, T.shape[0], LENGTH):
            part = slice(start, start + LENGTH)
            for product in slice_products([s[:, part] for s in block.slices], [s[part] for s in T_slices], _LAST_PAIR):
                accumulate(total, product)
        Y = scaled(renormalise(total).sum(0), block.exponents + exponents)
        yield Y if block.weight is None else Y * block.weight.sqrt()


def _extend_wide(design: Design) -> Extended:
    """Least-norm weights of a wide system: ``x = B u``, ``B'B u = b``, with the error of u carried over to x."""
    if design.bias and design.scanned.positive_rows == 1:
        return _one_row(design)
    operand = _Wide(design)
    m = operand.columns
    rounded = torch.cat([block.rounded for block in operand.blocks()])
    T = _inverse(torch.geqrf(rounded)[0][:m].triu())
    right = operand.offset[0]
    start = T @ (T.T @ right) if bool(torch.isfinite(T).all()) else torch.full_like(right, torch.nan)
    # The bias is what is left of the last equation, so the rest is refined as far as it goes.
    u, u_bound, delta, passes = _refine(operand, start, T, goal=0.0)
    # |x* - x|_i <= |(B T)_i| |T'g| / (1 - delta), where the last two are |u* - u|_i over |T_i|.
    reach = torch.linalg.vector_norm(T, dim=1).unsqueeze(1)
    common = (u_bound / reach).amin(0)
    z_slices, z_exponents = _slice_weights(u)
    parts, bounds = [], []
    slack = (m + 5) * _U * float(torch.linalg.matrix_norm(T))
    for block in operand.blocks():
        x, missing = _residual(block, z_slices, z_exponents)
        sizes = torch.linalg.vector_norm(block.rounded, dim=1)
        lengths = torch.linalg.vector_norm(block.rounded @ T, dim=1) + slack * sizes
        parts.append(-x)
        bounds.append((lengths.unsqueeze(1) * common + missing) * _SLACK)
    x, bound = torch.cat(parts, 1), torch.cat(bounds)
    if design.bias:
        first, first_bound = _offset(operand, x, bound)
        x, bound = torch.cat([first, x], 1), torch.cat([first_bound, bound])
    # Back to the units of the features; a bias has none.
    units = torch.ones(design.n_columns, 1, dtype=torch.float64, device=x.device)
    units[int(design.bias) :] = operand.feature_unit
    x, bound = x * units, bound * units
    scale = design.scale.unsqueeze(1)
    return Extended(x[0] / scale, x[1] / scale, (bound + x[2:].abs().sum(0)) / scale, delta, passes)


def _one_row(design: Design) -> Extended:
    """A single equation is met by the bias alone, exactly."""
    rows = design.rows
    Y = rows.y.read(0, rows.n_rows).to(torch.float64) * design.target_scale
    if rows.weight is not None:
        Y = Y[rows.weight.read(0, rows.n_rows) > 0]
    high = torch.zeros(design.n_columns, design.n_targets, dtype=torch.float64, device=Y.device)
    high[0] = Y[0] / design.scale[0]
    return Extended(high, torch.zeros_like(high), torch.zeros_like(high), 0.0, 1)


def _offset(operand: _Wide, x: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bias that meets the last equation, as an expansion ``(parts, 1, targets)``, and a bound on it."""
    row = operand.last_row
    exponent = exponents_of(row.abs().amax().reshape(1, 1))
    block = _Block(cut(scaled(row.unsqueeze(0), -exponent)), exponent, row, operand.last_target.unsqueeze(0), None)
    value, missing = _residual(block, *_slice_weights(x))
    return value, (row.abs().unsqueeze(0) @ bound) * _SLACK + missing

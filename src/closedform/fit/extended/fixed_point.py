"""The gradient in fixed-point arithmetic, with a bound on all that is left out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.extended.arithmetic import SLACK, SlicedBlock, U
from closedform.fit.extended.operand import Operand, OperandFold
from closedform.numerics.slices import (
    LENGTH,
    LIMB_BITS,
    adjoint_product,
    carry_,
    convolve,
    exponents_of,
    levels_for,
    limbs,
    product,
    scaled,
)
from closedform.rows import Block

__all__ = ["MAX_SLICES", "Coefficients", "Gradient", "coefficients", "gradient", "residual", "rounding", "slices_for"]

#: Slices at most: 180 bits, more than a sum of three doubles holds.
MAX_SLICES = 6
#: Targets whose limbs are multiplied at a time.
_GROUP = 128
#: Bits by which the residual of a graded row stays below 1, so that its weight, at most about 4, keeps it there.
_HEADROOM = 3
#: The root of a scaled weight is at most this.
_ROOT = 2.1


@final
@dataclass(frozen=True, eq=False)
class Coefficients:
    """Coefficients z as fixed-point numbers: limbs of ``z * 2**-exponents``, whose absolute values sum to at most 1."""

    limbs: Tensor
    rounded: Tensor
    exponents: Tensor
    slices: int

    def part(self, group: slice) -> Coefficients:
        """Return those of some targets."""
        return Coefficients(self.limbs[..., group], self.rounded[:, group], self.exponents[group], self.slices)

    @property
    def unit(self) -> Tensor:
        """One unit of what is left out, ``2**(exponent - 10 * limbs)``, ``(targets,)``."""
        ones = torch.ones(self.exponents.shape, dtype=self.rounded.dtype, device=self.rounded.device)
        return scaled(ones, self.exponents - LIMB_BITS * levels_for(self.slices))

    @property
    def residual_error(self) -> Tensor:
        """Bound on the error of every residual, over ``2**`` the exponent of its row, ``(targets,)``."""
        return (self.rounded.shape[0] + 3) * (self.slices + 2) * self.unit


def coefficients(z: Tensor, peaks: Tensor, graded: bool, slices: int) -> Coefficients:
    """Cut expansions ``(parts, columns, targets)``, with room for right-hand sides up to ``peaks`` beside them."""
    exponents = exponents_of(z[0].abs().sum(0) * SLACK + peaks) + (_HEADROOM if graded else 0)
    down = scaled(z, -exponents)
    return Coefficients(limbs(down, levels_for(slices)), down[0], exponents, slices)


def residual(block: SlicedBlock, z: Coefficients, right: Tensor) -> Tensor:
    """Return the limbs of ``b - A z`` of a block, ``(limbs, rows, targets)``, on the scale of its rows and of z."""
    count = z.limbs.shape[0]
    levels = -product(block.left, z.limbs, z.rounded)
    levels[:count] += limbs(scaled(right, -z.exponents).unsqueeze(0), count)
    return carry_(levels)[:count]


@final
@dataclass(frozen=True, eq=False)
class Gradient:
    """``g`` in double precision, with bounds on what is missing: from g itself, and from the residual behind it.

    Attributes:
        value: Within 130 U of the sum it was rounded from, ``(columns, targets)``.
        error: On every entry but for that rounding, ``(targets,)``.
        residual_error: Euclidean norm over the rows, each times the root of its weight, ``(targets,)``.
    """

    value: Tensor
    error: Tensor
    residual_error: Tensor


def gradient(operand: Operand, z: Tensor, slices: int) -> Gradient:
    """Return ``offset + A'W(b - A z) - penalty z`` for an expansion z."""
    x = coefficients(z, operand.peaks, operand.graded, slices)
    sums = operand.walk(_FixedPointSums(operand, x))
    value = sums.value
    if operand.offset is not None:
        value += limbs(scaled(operand.offset, -x.exponents), value.shape[0])
    if operand.penalty is not None:
        penalty = limbs(operand.penalty.reshape(1, -1, 1), levels_for(slices))
        value -= carry_(convolve(penalty, x.limbs))[: value.shape[0]]
    error = _gradient_error(sums.absolute, operand, sums.blocks) * x.unit * SLACK
    rows = operand.rows**0.5 * (_ROOT if operand.graded else 1.0)
    return Gradient(scaled(carry_(value).sum(0), x.exponents), error, rows * x.residual_error)


@final
class _FixedPointSums(OperandFold):
    """``A'W(b - A z)`` in levels, and what its error is bounded by.

    Attributes:
        value: Levels, ``(levels, columns, targets)``.
        absolute: Sums of the absolute values of the residuals, ``(targets,)``.
        blocks: How many blocks have been added, or sums merged.
    """

    def __init__(self, operand: Operand, x: Coefficients) -> None:
        super().__init__(operand)
        self._x = x
        self._count = levels_for(x.slices)
        zeros = x.rounded.new_zeros
        self.value = zeros(2 * self._count - 5, operand.columns, operand.targets)
        self.absolute = zeros(operand.targets)
        self.blocks = 0
        # Room for the slices of a block, made once.
        self._room = zeros(0, x.slices, operand.columns)

    @override
    def add(self, block: Block) -> None:
        rows = block.X.shape[0]
        if self._room.shape[0] < rows:
            self._room = self._room.new_empty(rows, *self._room.shape[1:])
        part, count = self.operand.sliced(block, self._room[:rows]), self._count
        weight = None if part.weight is None else limbs(part.weight.unsqueeze(0), count)
        for start in range(0, self.absolute.shape[0], _GROUP):
            group = slice(start, start + _GROUP)
            r = residual(part, self._x.part(group), part.right[:, group])
            if weight is not None:
                r = carry_(convolve(weight, r))[:count]
            rounded = r.sum(0)
            self.absolute[group] += rounded.abs().sum(0)
            self.value[..., group] += adjoint_product(part.left, r, rounded)
        carry_(self.value)
        self.blocks += 1

    @override
    def merge(self, other: Self) -> None:
        # Sums of integers, exact; carried, they stay so.
        self.value += other.value
        carry_(self.value)
        self.absolute += other.absolute
        self.blocks += other.blocks + 1

    @override
    def fresh(self) -> Self:
        return type(self)(self.operand, self._x)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return self.value, self.absolute, torch.tensor(self.blocks, device="cpu")

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        self.value, self.absolute = state[0].clone(), state[1].clone()
        self.blocks = int(state[2])


def _gradient_error(absolute: Tensor, operand: Operand, blocks: int) -> Tensor:
    """Bound what is missing from an entry of the gradient, in units of the coefficients."""
    return (LENGTH + 100) / 16 * absolute + blocks + 2 * operand.rows * operand.graded + 4


def slices_for(operand: Operand, T: Tensor, z: Tensor, goal: Tensor) -> int:
    """Return how many slices leave an error below ``goal``, ``(columns, targets)``, as far as that can be foreseen."""
    lengths = torch.linalg.vector_norm(T, dim=1).unsqueeze(1)
    spread = torch.linalg.vector_norm(T.abs().sum(0))
    for slices in range(1, MAX_SLICES):
        x = coefficients(z[:1], operand.peaks, operand.graded, slices)
        # Residuals of at most 1 in norm.
        absolute = scaled(torch.full_like(x.unit, operand.rows**0.5), -x.exponents)
        error = spread * _gradient_error(absolute, operand, 1 + operand.rows // 64) * x.unit
        error += _ROOT * operand.rows**0.5 * x.residual_error
        if bool((lengths * error <= goal).all()):
            return slices
    return MAX_SLICES


def rounding(columns: int) -> float:
    """Bound on the rounding of a product of ``columns`` terms with a rounded gradient, relative to absolute values."""
    return (columns + 150) * U

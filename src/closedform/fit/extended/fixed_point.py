"""The gradient in fixed-point arithmetic, with a bound on all that is left out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.fit.extended.operand import SLACK, Block, Operand, U
from closedform.numerics.slices import (
    LENGTH,
    LIMB_BITS,
    adjoint_product,
    carry,
    convolve,
    exponents_of,
    levels_for,
    limbs,
    product,
    scaled,
)

__all__ = ["MAX_SLICES", "Coefficients", "Gradient", "coefficients", "gradient", "residual", "rounding", "slices_for"]

MAX_SLICES = 6
#: Targets whose limbs are multiplied at a time.
_GROUP = 128
#: Bits by which the residual of a graded row stays below 1, so that its weight, at most about 4, keeps it there.
_HEADROOM = 3
#: The root of a scaled weight is at most this.
_ROOT = 2.1


@final
@dataclass(frozen=True)
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


def residual(block: Block, z: Coefficients, right: Tensor) -> Tensor:
    """Return the limbs of ``b - A z`` of a block, ``(limbs, rows, targets)``, on the scale of its rows and of z."""
    count = z.limbs.shape[0]
    levels = -product(block.left, z.limbs, z.rounded)
    levels[:count] += limbs(scaled(right, -z.exponents).unsqueeze(0), count)
    return carry(levels)[:count]


@final
@dataclass(frozen=True)
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
    count = levels_for(slices)
    value = z.new_zeros(2 * count - 5, *z.shape[1:])
    if operand.offset is not None:
        value += limbs(scaled(operand.offset, -x.exponents), value.shape[0])
    if operand.penalty is not None:
        penalty = limbs(operand.penalty.reshape(1, -1, 1), count)
        value -= carry(convolve(penalty, x.limbs))[: value.shape[0]]
    absolute, blocks = torch.zeros_like(z[0, 0]), 0
    for block in operand.blocks(slices):
        blocks += 1
        weight = None if block.weight is None else limbs(block.weight.unsqueeze(0), count)
        for start in range(0, z.shape[2], _GROUP):
            group = slice(start, start + _GROUP)
            r = residual(block, x.part(group), block.right[:, group])
            if weight is not None:
                r = carry(convolve(weight, r))[:count]
            rounded = r.sum(0)
            absolute[group] += rounded.abs().sum(0)
            value[..., group] += adjoint_product(block.left, r, rounded)
        carry(value)
    error = _gradient_error(absolute, operand, blocks) * x.unit * SLACK
    rows = operand.rows**0.5 * (_ROOT if operand.graded else 1.0)
    return Gradient(scaled(carry(value).sum(0), x.exponents), error, rows * x.residual_error)


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

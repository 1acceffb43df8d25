"""The refinement itself: steps ``z + T T'g`` until what is left is proven to be small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.fit.extended.arithmetic import SLACK, U
from closedform.fit.extended.fixed_point import MAX_SLICES, Gradient, gradient, rounding, slices_for
from closedform.fit.extended.operand import Operand
from closedform.numerics.expansion import accumulate_, renormalise

__all__ = ["Refined", "refine"]

#: Passes after which a bound that still shrinks is taken as it is.
_MAX_PASSES = 60
#: Passes in a row that do not halve the bound after which no more are made: near 1 / eps the rounding of a step may
#: spoil one of them.
_PATIENCE = 4
#: Relative size of a bound that has begun to shrink.
_FEW = 1e-6
# Relative size of what a pair of doubles cannot hold.
_PAIR = 2.0**-108
# Relative rounding of expansions of three doubles, and far more.
_EXPANSION = 2.0**-140
#: Sums of three doubles are as good as three slices and more.
_BEYOND_EXPANSIONS = 4


@final
@dataclass(frozen=True, eq=False)
class Refined:
    """Coefficients z and what is known of their error.

    Attributes:
        z: Expansions, ``(3, columns, targets)``.
        reach: Bound on ``|v|`` where ``z* - z = T v``, ``(targets,)``; inf where there is none.
        bound: Bound on ``|z* - z|``, ``(columns, targets)``.
        passes: Passes over the rows.
    """

    z: Tensor
    reach: Tensor
    bound: Tensor
    passes: int


def refine(operand: Operand, start: Tensor, T: Tensor, delta: float, goal: float, *, measured: bool) -> Refined:
    """Refine until the bound is below ``goal``, relative to every coefficient, or no longer shrinks.

    Coefficients below eps times the largest of their target count as that large.

    Args:
        operand: The matrix and right-hand sides.
        start: Coefficients to start from, ``(columns, targets)``.
        T: Preconditioner, ``(columns, columns)``.
        delta: Bound on ``|T'A'A T - I|``.
        goal: Bound asked for.
        measured: Bound each z by its own gradient: close to the truth, but one more pass after the last step. Else by
            the gradient before the step and how much of it, at most, a step can leave.
    """
    z = torch.stack([start, torch.zeros_like(start), torch.zeros_like(start)])
    none = torch.full_like(start[0], torch.inf)
    best = Refined(z, none, torch.full_like(start, torch.inf), 0)
    if not delta < 1 or not bool(torch.isfinite(start).all()):
        return best
    lengths = torch.linalg.vector_norm(T, dim=1).unsqueeze(1) * SLACK
    slices = _slices(operand, T, start, goal, measured=measured)
    stalled = 0

    for passes in range(1, _MAX_PASSES + 1):
        projected, missing = _projected(operand, T, z, delta, slices)
        size = torch.linalg.vector_norm(projected, dim=0)
        stepped = z.clone()
        accumulate_(stepped, T @ projected)
        stepped = renormalise(stepped)

        # z* - z is T M^-1 T'g; the step takes T T'g of it away, as far as T'g is known and but for its rounding and
        # the low part of T.
        left = size if measured else size * (delta + (1 - delta) * (T.shape[0] + 4) * U)
        reach = (left + missing) / (1 - delta) * SLACK
        found = z if measured else stepped
        better = reach < best.reach
        halved = bool((reach < 0.5 * best.reach).any())
        bound = lengths * reach * SLACK + (0.0 if measured else _EXPANSION * stepped[0].abs())
        best = Refined(
            torch.where(better, found, best.z),
            torch.where(better, reach, best.reach),
            torch.where(better, bound, best.bound),
            passes,
        )

        if bool((best.bound <= goal * _sizes(best.z[0])).all()):
            break
        stalled = 0 if halved else stalled + 1
        if stalled and slices < MAX_SLICES:
            slices = slices + 1 if slices else _BEYOND_EXPANSIONS
        elif stalled == _PATIENCE or (stalled and bool((best.bound <= _FEW * _sizes(best.z[0])).all())):
            break
        z = stepped
    return best


def _slices(operand: Operand, T: Tensor, start: Tensor, goal: float, *, measured: bool) -> int:
    """Return how many slices will do for the goal, or 0 where sums of three doubles will."""
    z = torch.stack([start, torch.zeros_like(start), torch.zeros_like(start)])
    sizes = _sizes(start)
    if operand.sums_expansions:
        error, residual_error = operand.foreseen_errors(z, torch.ones_like(start[0]))
        lengths = torch.linalg.vector_norm(T, dim=1).unsqueeze(1)
        reach = torch.linalg.vector_norm(T.abs().sum(0)) * error + residual_error
        if bool((lengths * reach <= (0.01 if measured else 0.25) * goal * sizes).all()):
            return 0
    # Where the bound has to be close, what is left out of the gradient must not be what it shows.
    return slices_for(operand, T, z, (min(goal, _PAIR) if measured else 0.25 * goal) * sizes)


def _sizes(z: Tensor) -> Tensor:
    size = z.abs()
    return torch.maximum(size, torch.finfo(z.dtype).eps * size.amax(0))


def _projected(operand: Operand, T: Tensor, z: Tensor, delta: float, slices: int) -> tuple[Tensor, Tensor]:
    """Return ``T'g`` and a bound on the Euclidean norm of its error for each target."""
    g = gradient(operand, z, slices) if slices else Gradient(*operand.gradient_in_expansions(z))
    # Rounding of the product, of g to double, the low part of T, and what is missing from g; A'e for an error e of the
    # residual is bounded through |A T| <= sqrt(1 + delta), which keeps the condition number out of it.
    missing = T.abs().T @ ((rounding(T.shape[0]) + U) * g.value.abs() + (1 + U) * g.error)
    return T.T @ g.value, (torch.linalg.vector_norm(missing, dim=0) + (1 + delta) ** 0.5 * g.residual_error) * SLACK

"""What the package is for: a design in, weights in extended precision and proven bounds out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.extended.arithmetic import SLACK, OutOfRange
from closedform.fit.extended.preconditioner import from_gram, from_root, from_triangle
from closedform.fit.extended.refinement import refine
from closedform.fit.extended.tall import Tall
from closedform.fit.extended.wide import least_norm
from closedform.fit.problem import Problem
from closedform.rows import Block, SumFold

__all__ = ["Extended", "extend"]


@final
@dataclass(frozen=True, eq=False)
class Extended:
    """Weights as ``high + low`` in the coordinates of the design, and a bound on their error.

    Attributes:
        high: The weights rounded to double, ``(columns, targets)``.
        low: What is missing from ``high``, ``(columns, targets)``.
        bound: Bound on ``|x* - (high + low)|``, ``(columns, targets)``; inf where there is none.
        delta: Bound on ``|T'A'A T - I|``; 1 or more means that nothing could be bounded.
        passes: Passes over the rows for the residual.
        R: Inverse of T, ``(columns, columns)``; None for a wide system.
    """

    high: Tensor
    low: Tensor
    bound: Tensor
    delta: float
    passes: int
    R: Tensor | None = None


def extend(problem: Problem, start: Tensor, goal: float, *, measured: bool, root: Tensor | None = None) -> Extended:
    """Refine until the pair high + low is as good as asked, or as it gets, and bound its error.

    Tall and square systems and all with a ridge start from ``start``; wide ones get the weights of least norm, with a
    bias outside the norm.

    Args:
        problem: The problem; its rows, weights and ridge strength are taken as exact numbers.
        start: Coordinates, ``(columns, targets)``.
        goal: Bound asked for, relative to each weight; a wide system is refined as far as it goes.
        measured: Whether the bound has to be close to the true error, which takes one more pass.
        root: A triangle R with ``R'R`` near the normal matrix, where one is at hand.
    """
    try:
        found = _extend(problem, start, goal, measured, root)
    except OutOfRange:
        return Extended(start, torch.zeros_like(start), torch.full_like(start, torch.inf), torch.inf, 0)
    found = replace(found, bound=found.bound.nan_to_num(nan=torch.inf, posinf=torch.inf))
    # Targets that are zero have zero weights, exactly; a norm may be zero because its squares are out of range.
    zero = problem.target_norms == 0
    if not found.delta < 1 or not bool(zero.any()):
        return found
    zero = zero & (problem.rows.walk(_Nonzeros(problem)).counts == 0)
    return replace(
        found,
        high=torch.where(zero, 0.0, found.high),
        low=torch.where(zero, 0.0, found.low),
        bound=torch.where(zero, 0.0, found.bound),
    )


def _extend(problem: Problem, start: Tensor, goal: float, measured: bool, root: Tensor | None) -> Extended:
    if problem.scanned.positive_rows < problem.n_columns and problem.l2 == 0:
        z, bound, delta, passes = least_norm(problem)
        return Extended(z[0], z[1], (bound + z[2:].abs().sum(0)) * SLACK, delta, passes)
    operand = Tall(problem)
    preconditioner = from_gram(operand) if root is None else from_root(operand, root)
    if preconditioner is None:
        preconditioner = from_triangle(operand, problem.triangle.R)
    refined = refine(operand, start, preconditioner.T, preconditioner.delta, goal, measured=measured)
    z = refined.z
    bound = (refined.bound + z[2].abs()) * SLACK
    return Extended(z[0], z[1], bound, preconditioner.delta, refined.passes, preconditioner.R)


@final
class _Nonzeros(SumFold):
    """How many numbers of each target, in rows that count, are not zero."""

    label = "extending"

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.counts = torch.zeros_like(problem.target_norms)

    @override
    def add(self, block: Block) -> None:
        Y = block.Y if block.weight is None else block.Y[block.weight > 0]
        self.counts += (Y != 0).sum(0)

    @override
    def fresh(self) -> Self:
        return type(self)(self._problem)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.counts,)

"""Which of many minimisers the weights are: the ones of least norm, or the ones nearest to given weights."""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from closedform.fit.certification.wide import usual_length
from closedform.fit.claims import Claims
from closedform.fit.problem import Problem

__all__ = ["CHOICE_TOLERANCE", "least_norm_error"]

#: A choice further from the one asked for is refused: the right one is met to rounding, a wrong one misses it by far.
CHOICE_TOLERANCE = math.sqrt(sys.float_info.epsilon)
#: Solutions with a dual factor; each takes away what rounding in the factor left of the one before.
_ROUNDS = 4
#: Below this the choice is beyond doubt, and another round would only cost two passes over the rows.
_SETTLED = 1e-10
#: Seed of the combinations of rows; any serves.
_SEED = 31


def least_norm_error(
    problem: Problem, claims: Claims, Z: Tensor, nearest: Tensor | None, no_combination: float | None = None
) -> float | None:
    """Return how far the weights are from those of least norm among all that fit as well, relative to their norm.

    The weights of least norm have no part in the null space. With orthonormal rows V' of the row space in the
    coordinates of the problem, ``w = D z`` are the shortest if the gradient of ``|D z|^2 / 2``, which is ``D^2 z``, is
    orthogonal to the null space: ``(I - V V') D^2 z = 0``, where D is zero for a bias, which is outside the norm.
    A wide system has the row space of its rows: with multipliers u the weights are of least norm if they are ``X'u``
    (with ``1'u = 0`` where a bias is outside the norm). Where there are none, or none that are accurate, weights and
    random combinations of rows must come back from their own products.

    Args:
        problem: The problem.
        claims: What the factor says of the row space.
        Z: Coordinates of the weights, ``(columns, targets)``.
        nearest: Coordinates that they are to be near to, bias and all, or None for least norm.
        no_combination: How far the weights are from the combination of rows that multipliers say, where there are some.

    Returns:
        The worst of the targets; None where the minimiser is unique, or where the factor says nothing to check it by.
    """
    if claims.rank.full:
        return None
    space = claims.row_space if claims.fixed_space is None else claims.fixed_space
    if space is not None:
        return None if space.shape[0] == space.shape[1] else _outside_row_space(problem, space, Z, nearest)
    if no_combination is not None and no_combination <= CHOICE_TOLERANCE:
        return no_combination
    if claims.least_norm_solve is not None:
        return _not_given_back(problem, claims, Z, nearest)
    return None


def _outside_row_space(problem: Problem, row_space: Tensor, Z: Tensor, nearest: Tensor | None) -> float:
    squares = problem.scale.square().unsqueeze(1)
    if nearest is None and problem.bias:
        squares = squares.clone()
        squares[0] = 0.0
    # In the middle of their range, so that no square is lost.
    squares = squares / squares.max()
    gradient = squares * (Z if nearest is None else Z - nearest)
    size = torch.linalg.vector_norm(squares * Z, dim=0) + usual_length(problem)
    if nearest is not None:
        size = size + torch.linalg.vector_norm(squares * nearest, dim=0)
    rest = gradient - row_space.T @ (row_space @ gradient)
    return _worst(torch.linalg.vector_norm(rest, dim=0), size)


def _not_given_back(problem: Problem, claims: Claims, Z: Tensor, nearest: Tensor | None) -> float:
    generator = torch.Generator().manual_seed(_SEED)
    rows = problem.gathered
    mix = torch.randn(rows.X.shape[0], 1, dtype=torch.float64, device="cpu", generator=generator).to(Z.device)
    if rows.weight is not None:
        mix = mix * (rows.weight > 0).unsqueeze(1)
    if problem.bias and nearest is None:
        # A bias outside the norm leaves the weights those combinations of rows whose coefficients sum to zero.
        counted = torch.ones_like(mix) if rows.weight is None else (rows.weight > 0).unsqueeze(1).to(mix)
        mix = (mix - (mix.sum() / counted.sum())) * counted
    weights = rows.X.T.to(torch.float64) @ mix
    first = mix.sum(0, keepdim=True) if nearest is not None else torch.zeros_like(mix[:1])
    probe = torch.cat([first, weights]) if problem.bias else weights
    probe = probe / problem.scale.unsqueeze(1)

    change = Z if nearest is None else Z - nearest
    rest, unscale = torch.cat([probe, change], 1), problem.scale.unsqueeze(1).clone()
    if problem.bias and nearest is None:
        unscale[0] = 0.0
    size = torch.linalg.vector_norm(unscale * torch.cat([probe, Z], 1), dim=0)
    size[1:] += unscale.max() * usual_length(problem)
    if nearest is not None:
        size = size + torch.linalg.vector_norm(unscale * torch.cat([probe, nearest], 1), dim=0)
    assert claims.least_norm_solve is not None
    worst = math.inf
    for _ in range(_ROUNDS):
        rest = rest - claims.least_norm_solve(problem.product(rest))
        worst = _worst(torch.linalg.vector_norm(unscale * rest, dim=0), size)
        if worst <= _SETTLED:
            break
    return worst


def _worst(rest: Tensor, size: Tensor) -> float:
    return float(torch.where(rest > 0, rest / torch.where(size > 0, size, 1.0), 0.0).max())

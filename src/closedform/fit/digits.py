"""What ``digits=`` adds to a fit: weights in extended precision, held against a proven bound."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from closedform.fit.certification import TOLERANCE, certify
from closedform.fit.claims import Claims
from closedform.fit.extended import Extended, extend
from closedform.fit.factors import Facts
from closedform.fit.problem import Problem
from closedform.fit.solution import Attempt, Fitted, Solution
from closedform.numerics.expansion import two_sum
from closedform.numerics.rank import Rank
from closedform.numerics.root import TriangularRoot
from closedform.words.outcome import Outcome

__all__ = ["extend_best", "with_digits"]

#: What is asked of the bound, as a part of what the user asks.
_MARGIN = 0.1
#: Digits of every weight that are proven where only the rank is in question: rank and weights are then beyond doubt.
_PROVEN_DIGITS = 9
#: Relative size at which a pair of doubles holds what it is asked to hold in a small table.
_ALL = 2.0**-70
#: More than the rounding of the sums that make a bound.
_UPWARDS = 1 + 2.0**-48
#: Entries of a small table.
_SMALL_TABLE = 2**22
#: Four times the spacing of the smallest doubles, which a weight and its low part may each be rounded by.
_GRID = 2e-323
#: Weights below this have low parts near that spacing.
_SMALL = 1e-270


def extend_best(problem: Problem, facts: Facts, best: Fitted, digits: int | None) -> tuple[Extended, Attempt]:
    """Refine the best weights in extended precision; a bound that holds also proves that the rank is full.

    Args:
        problem: The problem.
        facts: Its facts.
        best: What to start from.
        digits: Correct digits asked for in every weight; None where only the rank is in question.
    """
    begun = time.perf_counter()
    certificate = best.certificate
    start = problem.from_weights(best.weights)
    wide = facts.wide and not facts.ridge
    if certificate.rank < certificate.columns and not wide:
        start = _uncut(problem, start)

    # A pass over a small table costs next to nothing: there the pair gets all the digits it can hold.
    small = digits is not None and problem.rows.n_rows * problem.n_columns <= _SMALL_TABLE
    goal = _ALL if small else _MARGIN * 10.0 ** -(_PROVEN_DIGITS if digits is None else digits)
    root = best.factor.claims.root
    triangle = root.R if isinstance(root, TriangularRoot) else None
    if triangle is not None and triangle.shape[0] < triangle.shape[1]:
        triangle = None
    extension = extend(problem, start, goal, measured=small, root=triangle)

    if not extension.delta < 1:
        reason = f"nothing could be proven: |T'A'A T - I| is at most {extension.delta:.1e}, which has to be less than 1"
        return extension, Attempt("extended", time.perf_counter() - begun, extension.passes, reason, None)
    rank = Rank(
        min(facts.n_rows, facts.n_columns) if wide else facts.n_columns, facts.n_columns, facts.rcond, math.inf, False
    )
    root = None if extension.R is None else TriangularRoot(extension.R)
    found = best.factor.claims
    # What a factor says of the rows of a wide system holds for any weights.
    claims = replace(found, rank=rank) if wide and found.rows is not None else Claims(rank, root)
    checked = certify(problem, problem.to_weights(extension.high), claims)
    if wide:
        # That they are those of least norm is proven, where products in double precision could not tell.
        checked = replace(checked, accepted=checked.backward_error <= TOLERANCE, least_norm_error=None)
    checked = replace(checked, forward_bound=_relative_bound(extension))
    asked = "which proves the rank" if digits is None else f"{digits} digits asked"
    reason = f"every weight within {checked.forward_bound:.1e} (relative), {asked}"
    return extension, Attempt("extended", time.perf_counter() - begun, extension.passes, reason, checked)


def _uncut(problem: Problem, start: Tensor) -> Tensor:
    """Return the solution of the triangle without any cut, where it has one."""
    R = problem.triangle.R
    if R.shape[0] < R.shape[1] or bool((R.diagonal() == 0).any()):
        return start
    return torch.linalg.solve_triangular(R, problem.triangle.C, upper=True)


def _relative_bound(extension: Extended) -> float:
    size = extension.high.abs()
    floor = torch.finfo(size.dtype).eps * size.amax(0)
    return float((extension.bound / torch.maximum(size, floor)).nan_to_num(nan=0.0, posinf=math.inf).max())


def with_digits(solution: Solution, problem: Problem, extension: Extended, digits: int) -> Solution:
    """Attach the low parts and the bounds, and hold the bound against the digits asked."""
    high, low, bound_of = (problem.to_weights(part) for part in (extension.high, extension.low, extension.bound))
    weight, bias, weight_low, bias_low = high.weight, high.bias, low.weight, low.bias
    weight_bound, bias_bound = bound_of.weight, bound_of.bias

    lost = bool(((extension.high[int(problem.bias) :] != 0).T & (weight == 0)).any())
    bound = math.inf
    if solution.certificate.forward_bound is not None and not lost:
        bound = solution.certificate.forward_bound + _rounding_of_low_parts(weight, solution.weight.dtype)
        bound *= _UPWARDS

    weight_bound = weight_bound + _GRID
    bias_bound = None if bias_bound is None else bias_bound + _GRID
    weight_low, weight_bound = _low_part(weight, solution.weight, weight_low, weight_bound)
    if bias is not None and bias_low is not None and bias_bound is not None and solution.bias is not None:
        bias_low, bias_bound = _low_part(bias, solution.bias, bias_low, bias_bound)

    outcome = solution.outcome
    if outcome.certified and not bound <= 10.0**-digits:
        outcome = Outcome.NOT_DETERMINED
    return replace(
        solution,
        outcome=outcome,
        certificate=replace(solution.certificate, forward_bound=bound),
        weight_low=weight_low,
        bias_low=bias_low,
        weight_bound=weight_bound,
        bias_bound=bias_bound,
    )


def _rounding_of_low_parts(weight: Tensor, dtype: torch.dtype) -> float:
    """Return what the low parts lose, relative to the weights, because they are doubles themselves."""
    loss = 0.0 if dtype == torch.float64 else torch.finfo(dtype).eps * torch.finfo(torch.float64).eps
    sizes = weight[weight != 0].abs()
    least = float(sizes.min()) if sizes.numel() else 1.0
    return loss + _GRID / least if least < _SMALL else loss


def _low_part(value: Tensor, rounded: Tensor, low: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``value + low - rounded`` in double precision, and the bound with the rounding of that added."""
    total, error = two_sum(value - rounded, low)
    bound = ((bound + error.abs()) * _UPWARDS).nan_to_num(nan=math.inf, posinf=math.inf)
    # Without a bound there is nothing to add that would mean something.
    return torch.where(torch.isfinite(bound), total, 0.0), bound

"""The check that factors for full rank make before they may be used."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import torch
from torch import Tensor

from closedform.engine.threads import spectrum_of
from closedform.fit.factors.base import Facts
from closedform.fit.problem import Problem
from closedform.numerics.extremes import Extremes, extreme_singular_values
from closedform.numerics.rank import Rank, decide_rank
from closedform.numerics.root import Root
from closedform.words.errors import FactorBreakdown
from closedform.words.numbers import plural

__all__ = ["longest_image", "require_full_rank", "rounding_seen"]

# The estimate of the smallest singular value comes from above; this far from the cut it settles the question.
_MARGIN = 30.0
#: Length, relative to the largest singular value, below which the image of a unit vector may be rounding: rows that are
#: alike round alike.
_SEEN = 6e-16


def rounding_seen(problem: Problem, largest: float) -> float:
    """Return how long the image of a unit vector that the matrix maps to zero may be, by rounding of the product.

    A product of p terms rounds by about U times the norm of its row, and so their Euclidean norm by U times the
    Frobenius norm; a shorter image than a few units of the largest singular value is none either.

    Args:
        problem: The problem.
        largest: Largest singular value of the matrix.
    """
    return max(_SEEN * largest, sys.float_info.epsilon / 2 * problem.frobenius_norm)


def longest_image(problem: Problem, null: Tensor, images: tuple[Tensor, Tensor], root: Root, limit: float) -> float:
    """Return the longest image of null vectors: as it is or, beyond a limit, when the rows have corrected the vectors.

    Args:
        problem: The problem.
        null: Unit vectors orthogonal to what a factor says of the row space, ``(columns, k)``.
        images: What :meth:`Problem.images` says of them.
        root: The factor, by which what its rounding left of the row space in them is taken out.
        limit: How long an image may be that is not looked at again.
    """
    products, lengths = images
    if float(lengths.max()) <= limit:
        return float(lengths.max())
    null = null - root.solve(root.adjoint_solve(products))
    return float(problem.image_norms(null / torch.linalg.vector_norm(null, dim=0)).max())


def require_full_rank(root: Root, facts: Facts, reference: float = 0.0, rounding: float = 0.0) -> tuple[Rank, Extremes]:
    """Return the rank and the extreme singular values of a root.

    Args:
        root: The root.
        facts: Facts of the problem, with the cut.
        reference: Size of the matrix before what stands in the root was split off from it; rounding is relative to
            that, so it counts where it is larger than the root's own largest singular value.
        rounding: What the root rounds, relative to its largest singular value, where that is more than a triangle of
            the rows does: below a few times that it says nothing.

    Raises:
        FactorBreakdown: the matrix is numerically rank deficient at the cut.
    """
    columns = root.shape[1]
    if columns == 0:
        return Rank(0, 0, facts.rcond, float("inf"), ambiguous=False), Extremes(1.0, 1.0)
    if not root.is_finite():
        raise FactorBreakdown("numbers left the range of float64 on the way; scale X by a constant")
    extremes = extreme_singular_values(root)
    largest, smallest = extremes.largest, extremes.smallest
    cut = max(facts.rcond, rounding) * (max(1.0, reference / largest) if largest else 1.0)
    if smallest > _MARGIN * cut * largest:
        return Rank(columns, columns, cut, smallest / largest / cut if cut else math.inf, ambiguous=False), extremes
    values, _ = spectrum_of(root)
    rank = decide_rank(values, columns, cut)
    if not rank.full:
        raise FactorBreakdown(
            f"numerical rank {rank.rank} of {columns}: {plural(columns - rank.rank, 'singular value')} "
            f"{'lies' if columns - rank.rank == 1 else 'lie'} at or below {cut:.1e} of the largest",
            condition=1 / cut if cut else math.inf,
        )
    return rank, replace(extremes, largest=float(values[0]), smallest=float(values[-1]))

"""Square systems by LU in single precision, whose solutions are refined in double precision."""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.threads import one_thread
from closedform.engine.triangles import COMPILED, is_symmetric
from closedform.fit.claims import Claims
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost
from closedform.fit.factors.square import not_square
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByResidual
from closedform.numerics.extremes import Extremes, extreme_singular_values
from closedform.numerics.lu import LU
from closedform.numerics.rank import Rank
from closedform.numerics.root import FactoredRoot
from closedform.words.errors import FactorBreakdown

__all__ = ["Square32"]

#: How far, relatively, the factor may be from the matrix in what is probed. Where rounding changes most, a solution
#: that was refined once is off by 1 or more for a singular matrix, and by a hundredth or so for the worst that is
#: served.
_FAR = 0.1
#: Seed of the probe; any serves.
_SEED = 37
#: Bytes of the rows that are scaled and rounded at once: they stay in cache.
_CACHED = 2**21


@final
class Square32(Method):
    """Half the time of ``square`` for large matrices of moderate condition number.

    The factor is in float32, residuals are in float64, and refinement gives all the digits that LU in float64 does
    (Langou, Langou, Luszczek, Kurzak, Buttari and Dongarra 2006; Carson and Higham 2018). Whether the factor holds the
    matrix is measured in the direction in which rounding changes it most, before anything is refined; below what
    float32 rounds nothing is said of rank.
    """

    name = "square32"
    #: Solutions by the factor are right to a few per cent in the worst direction up to here, and refinement is short.
    condition_limit = 1e5

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = not_square(facts)
        if facts.rcond_given:
            reasons.append("an explicit rcond asks for singular values, which single precision need not resolve")
        return tuple(reasons)

    @override
    def cost(self, facts: Facts) -> Cost:
        # Half of what single precision gains is lost by the panels, which wait for memory.
        rate = facts.rates.lu64 * (1 + facts.rates.gram32 / facts.rates.gram64) / 2
        return cost(2 / 3 * facts.n_columns**3, rate, facts, passes=9)

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        with one_thread(problem.n_columns, problem.rows.device):
            matrix = problem.gathered.X.to(torch.float64)
            if bool((matrix.diagonal() > 0).all()) and is_symmetric(matrix):
                raise FactorBreakdown("the matrix is symmetric: Cholesky in double precision costs as little")
            lu = LU(_single(matrix, problem.scale), overwrite=True)
            if lu.zero_pivot:
                raise FactorBreakdown(f"LU in single precision met a zero pivot at column {lu.zero_pivot - 1}")

            root = FactoredRoot(lu, matrix.device)
            extremes = self._extremes(root, matrix, problem.scale.unsqueeze(1))
            p, condition = problem.n_columns, extremes.condition
            rank = Rank(p, p, facts.rcond, 1 / (condition * facts.rcond) if facts.rcond else math.inf, ambiguous=False)
            factor = Factor(
                start=lambda right, nearest: lu.solve(right),
                refinement=ByResidual(lu.solve),
                claims=Claims(rank, root, extremes, measured=True),
            )
            return factor, problem.gathered_targets

    def _extremes(self, root: FactoredRoot, matrix: Tensor, scale: Tensor) -> Extremes:
        """Return the extreme singular values, once the factor has shown that it holds the matrix.

        Raises:
            FactorBreakdown: the condition number is too large, or the factor is too far from the matrix to tell.
        """
        found = extreme_singular_values(root)
        assert found.dominant is not None
        assert found.recessive is not None
        generator = torch.Generator().manual_seed(_SEED)
        probe = torch.randn(root.shape[0], 1, dtype=torch.float64, device="cpu", generator=generator).to(root.device)

        # A left singular vector of the factor: where the matrix is singular, nothing that it maps to is near to that.
        left = root.adjoint_solve(found.recessive / torch.linalg.vector_norm(found.recessive))
        vectors = torch.cat([root.solve(torch.cat([left, probe], 1)), found.dominant], 1)
        image, of_probe, of_dominant = torch.tensor_split(COMPILED.product(matrix, scale * vectors), 3, 1)
        # Rounding has turned the image of the first from what it should be; a step of refinement turns it back.
        right = vectors[:, :1] + root.solve(left - image)
        image = COMPILED.product(matrix, scale * right)
        largest = _length(of_dominant) / _length(found.dominant)
        held = abs(found.largest - largest) <= _FAR * largest
        if not (held and _distance(of_probe, probe) <= _FAR and _distance(image, left) <= _FAR):
            raise FactorBreakdown(
                "rounding of LU in single precision hides the matrix: its condition number is large, or pivots have "
                "grown"
            )

        extremes = Extremes(largest, _length(image) / _length(right), found.dominant, right)
        if not extremes.condition <= self.condition_limit:
            raise FactorBreakdown(
                f"condition number about {extremes.condition:.1e}; LU in single precision serves up to "
                f"{self.condition_limit:.0e}",
                condition=extremes.condition,
            )
        return extremes


def _length(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector))


def _distance(vector: Tensor, wanted: Tensor) -> float:
    """Return how far a vector is from the one that it should be, relative to that."""
    return _length(vector - wanted) / _length(wanted)


def _single(matrix: Tensor, scale: Tensor) -> Tensor:
    """Return ``matrix diag(scale)`` in float32, a few rows at a time."""
    if matrix.device.type == "cpu":
        # NumPy asks for large pages, which the factor then takes less time to find its way in than in small ones.
        single = torch.from_numpy(np.empty(tuple(matrix.shape), np.float32))
    else:
        single = torch.empty(matrix.shape, dtype=torch.float32, device=matrix.device)
    size = max(1, _CACHED // (8 * matrix.shape[1]))
    for start in range(0, matrix.shape[0], size):
        part = slice(start, start + size)
        single[part] = matrix[part] * scale
    return single

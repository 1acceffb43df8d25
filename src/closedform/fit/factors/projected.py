"""Dependent columns in tall tables: independent ones from a sample, and their Gram matrix of all rows, projected."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.threads import PROJECTION_BY_ONE, one_thread
from closedform.engine.triangles import cholesky_of
from closedform.fit.claims import Claims
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost
from closedform.fit.factors.gram import with_ridge
from closedform.fit.factors.rank_check import longest_image, rounding_seen
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByGradient, WithinRowSpace
from closedform.numerics.extremes import Extremes, extreme_singular_values
from closedform.numerics.independence import Independence, independent_columns
from closedform.numerics.rank import CLEAR_GAP, Rank
from closedform.numerics.root import ProjectedRoot
from closedform.numerics.symmetric import mirror
from closedform.rows.folds import Dependence, NormalEquations
from closedform.words.errors import FactorBreakdown

__all__ = ["ProjectedGram64"]

#: Rows for each column from which a sample of two rows a column is much smaller than the table.
_ROWS_A_COLUMN = 4
#: Squares left of columns below this share of the longest may be rounding; they are dependent if the rows agree.
_NULL = 1e-9
#: Units of rounding that may be left in null directions; with more, there are other directions in between.
_ROUNDING = 1e4
#: How many times longer than rounding images of null vectors may be before the rows have corrected them: by as much the
#: row space may be tilted.
_TILT = 100.0
#: Condition number beyond which the projected Gram matrix no longer makes refinement converge at once.
_CONDITION = 1e5
#: Random vectors by which the rows are probed outside the row space.
_PROBES = 4
#: How much smaller than the norm of a matrix its products with them may be, but for one case of a million: the chance
#: that four standard normal numbers are all below 1/30 in size.
_LUCK = 30.0
#: Units of columns that differ by no more than this factor leave the least norm to all of them.
_ALIKE = 8.0
#: Seed of the random rotation and probes; any serves.
_SEED = 11


@final
class ProjectedGram64(Method):
    """``V'A'A V = R'R`` for columns that plainly depend, with V an orthonormal basis of the row space.

    One pivoted factor of a sample's Gram matrix tells the rank, columns C that are independent, and how the others
    follow from them, as in randomized Cholesky-QR with pivots (Melnichenko, Balabanov, Murray et al. 2023); one step
    with the sampled rows makes that precise, and random vectors orthogonal to the row space tell whether all rows lie
    in it, to rounding. Of all rows only C'C is needed then, a quarter of the work at half the rank. Where one of them
    leaves a doubt, the method steps back for those that decide on singular values. The projected Gram matrix is a
    preconditioner for refinement on the true rows, as in ``gram64``. Preferred over ``svd`` where columns depend to
    rounding and the others are well conditioned: it never forms the triangle of all rows.
    """

    name = "projected gram64"

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = []
        if not facts.in_memory:
            reasons.append("rows that are read from a file are not sampled")
        if facts.n_rows < _ROWS_A_COLUMN * facts.n_columns:
            reasons.append(f"{facts.n_rows} rows for {facts.n_columns} columns: no sample would be much smaller")
        if facts.ridge:
            reasons.append("with a ridge all directions are determined")
        if facts.rcond_given:
            reasons.append("an explicit rcond asks for singular values, which a Gram matrix squares")
        return tuple(reasons)

    @override
    def cost(self, facts: Facts) -> Cost:
        # Less where the rank is low, which nothing tells yet; columns that do not depend are left to ``gram64``.
        flops = facts.n_rows * facts.n_columns**2 + 10.0 * facts.n_columns**3
        return cost(flops, facts.rates.gram64, facts, passes=5)

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        with one_thread(problem.n_columns, problem.rows.device, most=PROJECTION_BY_ONE):
            return self._factor(problem, facts)

    def _factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        found = _independent(problem)
        V, U = _row_space(problem, found)
        probes = _probes(V)
        images = problem.images(probes)
        if not float(images[1].max()) <= _TILT * rounding_seen(problem, problem.frobenius_norm):
            raise FactorBreakdown(f"the rows leave the row space of a sample, which has {found.rank} dimensions")

        sums = problem.rows.walk(NormalEquations(problem.columns, torch.float64, chosen=found.chosen))
        scale = (problem.scale[found.chosen] / sums.applied).unsqueeze(1)
        # With the chosen columns C, A = C [I T] = C U'V', so that V'A'A V = U C'C U'.
        W = U * scale.T
        R, info = cholesky_of(W @ mirror(sums.gram) @ W.T)
        if info != 0:
            raise FactorBreakdown(f"Cholesky met a pivot that is not positive in direction {info - 1}")
        root = ProjectedRoot(R.contiguous(), V.T.contiguous())
        extremes = extreme_singular_values(root.inner)
        if not extremes.condition <= _CONDITION:
            raise FactorBreakdown(f"condition number about {extremes.condition:.1e} in the row space of a sample")
        limit = rounding_seen(problem, extremes.largest)
        seen = longest_image(problem, probes, images, root, limit)
        if not seen <= limit:
            raise FactorBreakdown(f"the rows leave the row space of a sample by {seen / extremes.largest:.1e}")

        # The norm of A outside that space is less than this in all but one case of a million.
        dropped = _LUCK * (problem.n_columns - found.rank) ** 0.5 * seen
        assert extremes.dominant is not None
        assert extremes.recessive is not None
        gap = extremes.smallest / max(dropped, sys.float_info.epsilon * extremes.largest)
        contraction = extremes.condition**2 * sys.float_info.epsilon * problem.n_columns**0.5
        factor = Factor(
            start=lambda right, nearest: V @ root.inner.normal_solve(right),
            refinement=WithinRowSpace(ByGradient(root, contraction), root.vectors),
            claims=Claims(
                Rank(found.rank, problem.n_columns, facts.rcond, gap, ambiguous=gap < CLEAR_GAP),
                root,
                Extremes(extremes.largest, extremes.smallest, V @ extremes.dominant, V @ extremes.recessive),
                row_space=root.vectors,
                # The share of each column outside the row space.
                involved=(1 - V.square().sum(1)).clamp(min=0.0).sqrt().unsqueeze(0),
            ),
        )
        return factor, W @ sums.cross


def _independent(problem: Problem) -> Independence:
    """Return columns that a sample of the rows shows to be independent, and how the others follow from them.

    Raises:
        FactorBreakdown: full rank, or a spectrum without a plain gap.
    """
    design = problem.design
    sums = design.sampled_normal_equations(torch.float64)
    sampled, scale = with_ridge(problem, sums)
    gram = sampled * torch.outer(scale, scale)
    largest = float(gram.diagonal().max())
    # All processes of a group have to take the same columns.
    found = problem.rows.walker.each(independent_columns(gram, _NULL * largest))[0]
    if found.rank in (0, problem.n_columns):
        raise FactorBreakdown("the columns of a sample of the rows do not plainly depend on each other")
    if not found.rest <= _ROUNDING * sys.float_info.epsilon * largest:
        raise FactorBreakdown(
            f"the spectrum of a sample of the rows has no plain gap: {found.rest / largest:.1e} is left"
        )

    # What the Gram matrix says of the dependence is rounded by the square of the condition number; what the rows
    # themselves leave of it, by the condition number.
    left = Dependence(problem.columns, found.chosen, found.others, found.dependence, design.sampled_rows)
    return replace(found, dependence=found.dependence + found.normal_solve(problem.rows.walk(left).product))


def _row_space(problem: Problem, found: Independence) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis V of the row space, and U with ``V U = [I; T']``, in the order of the columns."""
    T = found.dependence
    combined = torch.eye(found.rank, dtype=T.dtype, device=T.device)
    least, most = problem.columns.scale_range
    alike = most <= _ALIKE * least
    if not alike:
        # In units that are far apart, the least norm is that of a few entries: no vector of the basis may lack them.
        generator = torch.Generator().manual_seed(_SEED)
        mix = torch.randn(found.rank, found.rank, dtype=T.dtype, device="cpu", generator=generator)
        combined = torch.linalg.qr(mix.to(T.device)).Q

    M = T.new_empty(problem.n_columns, found.rank)
    M[found.chosen] = combined
    M[found.others] = T.T if alike else T.T @ combined
    V, U = torch.linalg.qr(M)
    return V, U if alike else U @ combined.T


def _probes(V: Tensor) -> Tensor:
    """Return a few random unit vectors orthogonal to the space of V."""
    generator = torch.Generator().manual_seed(_SEED)
    p = V.shape[0]
    probes = torch.randn(p, _PROBES, dtype=torch.float64, device="cpu", generator=generator).to(V.device)
    for _ in range(2):
        probes = probes - V @ (V.T @ probes)
    return probes / torch.linalg.vector_norm(probes, dim=0)

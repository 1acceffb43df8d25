"""Dependent columns in tall tables: the row space from a sample, and the Gram matrix of all rows projected on it."""

from __future__ import annotations

import sys
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.threads import PROJECTION_BY_ONE, one_thread
from closedform.engine.triangles import cholesky_of
from closedform.fit.claims import Claims
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost
from closedform.fit.factors.gram import with_ridge
from closedform.fit.factors.rank_check import rounding_seen
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByGradient, WithinRowSpace
from closedform.numerics.extremes import Extremes, extreme_singular_values
from closedform.numerics.rank import CLEAR_GAP, Rank
from closedform.numerics.root import ProjectedRoot
from closedform.numerics.symmetric import mirror
from closedform.rows.folds import RowSpace
from closedform.words.errors import FactorBreakdown

__all__ = ["ProjectedGram64"]

#: Rows for each column from which a sample of two rows a column is much smaller than the table.
_ROWS_A_COLUMN = 4
#: Eigenvalues of a Gram matrix below this share of the largest may be rounding; their directions are null if the rows
#: agree.
_NULL = 1e-9
#: Units of rounding that may be left in null directions; with more, there are other directions in between.
_ROUNDING = 1e4
#: Condition number beyond which the projected Gram matrix no longer makes refinement converge at once.
_CONDITION = 1e5
#: Random vectors by which the rows are probed outside the row space.
_PROBES = 4
#: How much smaller than the norm of a matrix its products with them may be, but for one case of a million: the chance
#: that four standard normal numbers are all below 1/30 in size.
_LUCK = 30.0
#: Seed of the random combinations and probes; any serves.
_SEED = 11


@final
class ProjectedGram64(Method):
    """``V'A'A V = R'R`` for columns that plainly depend, with V an orthonormal basis of the row space.

    The eigenvalues of a sample's Gram matrix tell the rank, random combinations of its columns the space (Halko,
    Martinsson and Tropp 2011), which one step with the sampled rows makes precise, and random vectors orthogonal to it
    whether all rows lie in it, to rounding. Where one of them leaves a doubt, the method steps back for those that
    decide on singular values. The projected Gram matrix is a preconditioner for refinement on the true rows, as in
    ``gram64``. Preferred over ``svd`` where columns depend to rounding and the others are well conditioned: it never
    forms the triangle of all rows.
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
        flops = facts.n_rows * facts.n_columns**2 + 10.0 * facts.n_columns**3
        return cost(flops, facts.rates.gram64, facts, passes=5)

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        with one_thread(problem.n_columns, problem.rows.device, most=PROJECTION_BY_ONE):
            return self._factor(problem, facts)

    def _factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        V, size = _row_space(problem)
        seen = _left_outside(problem, V)
        # The norm of A outside that space is less than this in all but one case of a million.
        dropped = _LUCK * (problem.n_columns - V.shape[1]) ** 0.5 * seen
        if not seen <= rounding_seen(problem, size):
            raise FactorBreakdown(f"the rows leave the row space of a sample, which has {V.shape[1]} dimensions")

        sums, cross = problem.design.normal_equations(torch.float64)
        gram, scale = with_ridge(problem, sums)
        W = V * scale.unsqueeze(1)
        R, info = cholesky_of(W.T @ (mirror(gram) @ W))
        if info != 0:
            raise FactorBreakdown(f"Cholesky met a pivot that is not positive in direction {info - 1}")
        root = ProjectedRoot(R.contiguous(), V.T.contiguous())
        found = extreme_singular_values(root.inner)
        if not found.condition <= _CONDITION:
            raise FactorBreakdown(f"condition number about {found.condition:.1e} in the row space of a sample")
        if not seen <= rounding_seen(problem, found.largest):
            raise FactorBreakdown(f"the rows leave the row space of a sample by {seen / found.largest:.1e}")

        assert found.dominant is not None
        assert found.recessive is not None
        gap = found.smallest / max(dropped, sys.float_info.epsilon * found.largest)
        contraction = found.condition**2 * sys.float_info.epsilon * problem.n_columns**0.5
        factor = Factor(
            start=lambda right, nearest: root.solve(root.adjoint_solve(right)),
            refinement=WithinRowSpace(ByGradient(root, contraction), root.vectors),
            claims=Claims(
                Rank(V.shape[1], problem.n_columns, facts.rcond, gap, ambiguous=gap < CLEAR_GAP),
                root,
                Extremes(found.largest, found.smallest, V @ found.dominant, V @ found.recessive),
                row_space=root.vectors,
                # The share of each column outside the row space.
                involved=(1 - V.square().sum(1)).clamp(min=0.0).sqrt().unsqueeze(0),
            ),
        )
        return factor, cross * scale.unsqueeze(1)


def _row_space(problem: Problem) -> tuple[Tensor, float]:
    """Return an orthonormal basis of the row space of a sample of A, ``(columns, rank)``, and about the norm of A.

    Raises:
        FactorBreakdown: full rank, or a spectrum without a plain gap.
    """
    design, p = problem.design, problem.n_columns
    sums = design.sampled_normal_equations(torch.float64)
    sampled, scale = with_ridge(problem, sums)
    gram = mirror(sampled) * torch.outer(scale, scale)
    values = torch.linalg.eigvalsh(gram)
    largest = float(values[-1])
    rank = int((values > _NULL * largest).sum())
    if rank in (0, p):
        raise FactorBreakdown("the columns of a sample of the rows do not plainly depend on each other")
    rest = float(values[p - rank - 1])
    if not rest <= _ROUNDING * sys.float_info.epsilon * largest:
        raise FactorBreakdown(f"the spectrum of a sample of the rows has no plain gap: {rest / largest:.1e} is left")

    generator = torch.Generator().manual_seed(_SEED)
    mix = torch.randn(p, rank, dtype=torch.float64, device="cpu", generator=generator).to(gram.device)
    W = torch.linalg.qr(gram @ mix).Q
    R, info = cholesky_of(W.T @ (gram @ W))
    if info != 0:
        raise FactorBreakdown("the row space of a sample of the rows is not determined by its Gram matrix")

    # Rounding tilts what the Gram matrix says of the space by the square of the condition number; what the rows
    # themselves say, combined so that no combination is short, by the condition number.
    W = torch.linalg.solve_triangular(R, W, upper=True, left=False)
    seen = problem.rows.walk(RowSpace(problem.columns, W, design.sampled_rows))
    share = sums.rows / problem.rows.n_rows
    return torch.linalg.qr(seen.product).Q, (largest / share) ** 0.5


def _left_outside(problem: Problem, V: Tensor) -> float:
    """Return the longest image of a few random unit vectors orthogonal to the space of V."""
    generator = torch.Generator().manual_seed(_SEED)
    p = V.shape[0]
    probes = torch.randn(p, _PROBES, dtype=torch.float64, device="cpu", generator=generator).to(V.device)
    for _ in range(2):
        probes = probes - V @ (V.T @ probes)
    probes = probes / torch.linalg.vector_norm(probes, dim=0)
    return float(problem.image_norms(probes).max())

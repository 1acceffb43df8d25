"""Dependent columns in tall tables: the row space from a sample, and the Gram matrix of all rows projected on it."""

from __future__ import annotations

import sys
from typing import final

import torch
from torch import Tensor

from closedform.engine.gram import cholesky, mirror
from closedform.engine.threads import one_thread
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost
from closedform.fit.factors.gram import NormalEquations, draw_rows
from closedform.fit.factors.svd import of_least_norm
from closedform.numerics.extremes import Extremes, extreme_singular_values
from closedform.numerics.rank import CLEAR_GAP, Rank
from closedform.numerics.root import ProjectedRoot
from closedform.rows import Design
from closedform.rows.norms import pass_rows
from closedform.words.errors import FactorBreakdown

__all__ = ["ProjectedGram64"]

#: Rows of the sample for each column.
_SAMPLE = 2
#: Eigenvalues of a Gram matrix below this share of the largest may be rounding; their directions are null, if the rows
#: agree. What is left there may be this many units of rounding, or there are other directions between.
_NULL, _ROUNDING = 1e-9, 1e4
#: Beyond, the projected Gram matrix no longer makes refinement converge at once.
_CONDITION = 1e5
#: How much smaller than the matrix its products with so many random vectors may be: 4 times |N(0, 1)| < 1/30.
_PROBES, _LUCK = 4, 30.0
#: Up to this many columns one thread is done before others are awake.
_FOR_ONE = 256
_SEED = 11


@final
class ProjectedGram64(Method):
    """``V'A'A V = R'R`` for columns that plainly depend, with V an orthonormal basis of the row space.

    The eigenvalues of a sample's Gram matrix tell the rank, random combinations of its columns the space (Halko,
    Martinsson and Tropp 2011), which one step with the sampled rows makes precise, and random vectors orthogonal to it
    whether all rows lie in it, to rounding. Where one of them leaves a doubt, the method steps back for those that
    decide on singular values. The projected Gram matrix is a preconditioner for refinement on the true rows, as in
    ``gram64``.
    """

    name = "projected gram64"

    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = []
        if not facts.in_memory:
            reasons.append("rows that are read from a file are not sampled")
        if facts.n_rows < 2 * _SAMPLE * facts.n_columns:
            reasons.append(f"{facts.n_rows} rows for {facts.n_columns} columns: no sample would be much smaller")
        if facts.ridge:
            reasons.append("with a ridge all directions are determined")
        if facts.rcond_given:
            reasons.append("an explicit rcond asks for singular values, which a Gram matrix squares")
        return tuple(reasons)

    def cost(self, facts: Facts) -> Cost:
        flops = facts.n_rows * facts.n_columns**2 + 10.0 * facts.n_columns**3
        return cost(flops, facts.rates.gram64, facts, passes=5)

    def factor(self, design: Design, facts: Facts, nearest: Tensor | None) -> Factor:
        with one_thread(design.n_columns, design.rows.device, most=_FOR_ONE):
            V, size = _row_space(design)
            dropped = _left_outside(design, V)
            if not dropped <= facts.rcond * size:
                raise FactorBreakdown(f"the rows leave the row space of a sample, which has {V.shape[1]} dimensions")
            sums = NormalEquations(design, torch.float64)
            sums.add(None)
            W = V * sums.scale.unsqueeze(1)
            R, info = cholesky(W.T @ (mirror(sums.gram()) @ W))
            if info != 0:
                raise FactorBreakdown(f"Cholesky met a pivot that is not positive in direction {info - 1}")
            root = ProjectedRoot(R.contiguous(), V.T.contiguous())
            found = extreme_singular_values(root.inner)
            if not found.condition <= _CONDITION:
                raise FactorBreakdown(f"condition number about {found.condition:.1e} in the row space of a sample")
            if not dropped <= facts.rcond * found.largest:
                raise FactorBreakdown(f"the rows leave the row space of a sample by {dropped / found.largest:.1e}")
            assert found.dominant is not None
            assert found.recessive is not None
            extremes = Extremes(found.largest, found.smallest, V @ found.dominant, V @ found.recessive)
            gap = found.smallest / max(dropped, sys.float_info.epsilon * found.largest)
            start = root.solve(root.adjoint_solve(sums.cross()))
            # The share of each column outside the row space.
            free = (1 - V.square().sum(1)).clamp(min=0.0).sqrt().unsqueeze(0)
        return Factor(
            start=start,
            rank=Rank(V.shape[1], design.n_columns, facts.rcond, gap, ambiguous=gap < CLEAR_GAP),
            root=root,
            undetermined=free,
            finish=lambda Z: of_least_norm(design, root.vectors, root.vectors @ Z, nearest),
            extremes=extremes,
            contraction=found.condition**2 * sys.float_info.epsilon * design.n_columns**0.5,
        )


def _row_space(design: Design) -> tuple[Tensor, float]:
    """Return an orthonormal basis of the row space of a sample of A, ``(columns, rank)``, and about the norm of A.

    Raises:
        FactorBreakdown: full rank, or a spectrum without a plain gap.
    """
    p = design.n_columns
    drawn = draw_rows(design, _SAMPLE * p)
    sums = NormalEquations(design, torch.float64)
    sums.add(drawn)
    gram = mirror(sums.gram()) * torch.outer(sums.scale, sums.scale)
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
    R, info = cholesky(W.T @ (gram @ W))
    if info != 0:
        raise FactorBreakdown("the row space of a sample of the rows is not determined by its Gram matrix")
    # Rounding tilts what the Gram matrix says of the space by the square of the condition number; what the rows
    # themselves say, combined so that no combination is short, by the condition number.
    W, V = torch.linalg.solve_triangular(R, W, upper=True, left=False), torch.zeros_like(W)
    for A, _ in design.matrix_blocks(pass_rows(design.rows), "factoring", drawn):
        V += A.T @ (A @ W)
    share = drawn.shape[0] / design.rows.n_rows
    return torch.linalg.qr(V).Q, (largest / share) ** 0.5


def _left_outside(design: Design, V: Tensor) -> float:
    """Return a bound on the norm of A outside the space of V that holds in all but one case of a million."""
    generator = torch.Generator().manual_seed(_SEED)
    p, rank = V.shape
    probes = torch.randn(p, _PROBES, dtype=torch.float64, device="cpu", generator=generator).to(V.device)
    for _ in range(2):
        probes = probes - V @ (V.T @ probes)
    probes = probes / torch.linalg.vector_norm(probes, dim=0)
    return _LUCK * (p - rank) ** 0.5 * float(design.image_norms(probes).max())

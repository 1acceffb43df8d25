"""Wide systems by the Gram matrix of their rows: the cheap way to the weights of least norm, repaired by refinement."""

from __future__ import annotations

from abc import ABC
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.threads import one_thread
from closedform.fit.claims import Claims, RowClaims
from closedform.fit.factors.base import Cost, Factor, Facts, cost
from closedform.fit.factors.gram import GramMethod
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByMultipliers
from closedform.fit.row_space import adjoint_product
from closedform.numerics.rank import Rank
from closedform.numerics.root import TriangularRoot
from closedform.numerics.scaling import power_of_two_exponents, powers_of_two

__all__ = ["DualGram32", "DualGram64"]


class _DualGram(GramMethod, ABC):
    """``w = X' u`` with ``X X' u = y``, in float32 or float64, then refined with residuals of the true rows.

    Every correction is again a combination of rows, so the weights stay those of least norm. A bias stands outside the
    norm: with the border ``X X' u + 1 b = y, 1' u = 0``. Source: Bjoerck (1996), 1.4 and 6.5, for the seminormal
    equations of the least-norm problem and their correction.
    """

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = []
        if not facts.wide:
            reasons.append(f"{facts.n_rows} rows are not fewer than {facts.n_columns} columns")
        if facts.ridge:
            reasons.append("with a ridge the equations are no longer met exactly")
        if facts.weighted:
            reasons.append("rows have weights")
        if facts.rcond_given:
            reasons.append("an explicit rcond asks for singular values")
        return tuple(reasons)

    @override
    def cost(self, facts: Facts) -> Cost:
        return cost(facts.n_columns * facts.n_rows**2 + facts.n_rows**3 / 3, self.rate(facts), facts, passes=8)

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        X, p = problem.gathered.X, problem.n_columns
        m = X.shape[0]
        with one_thread(m, X.device, targets=problem.n_targets):
            # Equations that are to be met have no scale of their own: powers of two put them on a par, one for all.
            peaks = torch.linalg.vector_norm(X, dim=1, dtype=torch.float64)
            row_scale = powers_of_two(-power_of_two_exponents(peaks))
            gram = torch.zeros(m, m, dtype=self.dtype, device=X.device)
            engine = problem.gathered.engine
            engine.row_gram_(gram, X, row_scale)
            bordered = problem.bias and not facts.nearest
            if problem.bias and facts.nearest:
                gram += torch.outer(row_scale, row_scale).to(self.dtype)
            root, found = self.root(gram, torch.ones_like(row_scale), "row", "the Gram matrix of the rows")

        equations = _Equations(problem, root, row_scale, bordered=bordered)

        def start(right: Tensor, nearest: Tensor | None) -> Tensor:
            return right.new_zeros(p, right.shape[1]) if nearest is None else nearest

        claims = Claims(
            Rank(m, p, facts.rcond, 1 / (found.condition * facts.rcond), ambiguous=False),
            extremes=found,
            least_norm_solve=lambda right: equations.lift(equations.solve(right)),
            rows=RowClaims(peaks, equations.gram_product, equations.gram_solve, equations.solve),
        )
        return Factor(start, ByMultipliers(equations.solve, equations.lift), claims), problem.gathered_targets


@final
class _Equations:
    """The equations ``X X' u + 1 b = y``, ``1' u = 0`` in a root of the Gram matrix of the rows.

    Args:
        problem: The problem.
        root: S with ``S'S`` near ``F X X' F``, where F scales the rows; near that of ``[1 | X]`` where the bias
            counts as a weight.
        row_scale: Diagonal of F, powers of two.
        bordered: Whether there is a bias outside the norm.
    """

    def __init__(self, problem: Problem, root: TriangularRoot, row_scale: Tensor, *, bordered: bool) -> None:
        self._problem, self._root, self._bordered = problem, root, bordered
        self._scale = row_scale.unsqueeze(1)
        self._border = root.solve(root.adjoint_solve(self._scale))
        self._pivot = self._border.T @ self._scale

    def solve(self, right: Tensor) -> Tensor:
        """Return u, with a bias outside the norm as its last row, ``(rows or rows + 1, k)``."""
        scaled = right * self._scale
        u = self._root.solve(self._root.adjoint_solve(scaled))
        if not self._bordered:
            return u * self._scale
        offset = (self._border.T @ scaled) / self._pivot
        return torch.cat([(u - self._border * offset) * self._scale, offset])

    def lift(self, u: Tensor) -> Tensor:
        """Return the coordinates ``(columns, k)`` of multipliers."""
        X = self._problem.gathered.X
        weights, ones = adjoint_product(self._problem.gathered, u[: X.shape[0]])
        if self._problem.bias:
            weights = torch.cat([u[-1:] if self._bordered else ones.unsqueeze(0), weights])
        return weights / self._problem.scale.unsqueeze(1)

    def gram_product(self, v: Tensor) -> Tensor:
        """Return ``A A' v`` about, for A with its column of ones and without any scaling of columns."""
        product = self._root.adjoint_product(self._root.product(v / self._scale)) / self._scale
        return product + v.sum(0) if self._bordered else product

    def gram_solve(self, v: Tensor) -> Tensor:
        """Return ``(A A')^-1 v`` about; with a border by the formula of Sherman and Morrison (1950)."""
        u = self._root.solve(self._root.adjoint_solve(v * self._scale)) * self._scale
        if not self._bordered:
            return u
        border = self._border * self._scale
        return u - border * (u.sum(0) / (1.0 + border.sum()))


@final
class DualGram32(_DualGram):
    """In float32: half the time of ``dual gram64``, for well-conditioned rows."""

    name = "dual gram32"
    dtype = torch.float32
    condition_limit = 1e3


@final
class DualGram64(_DualGram):
    """In float64: preferred over ``dual gram32`` from a condition number of a thousand on, up to a million or so."""

    name = "dual gram64"
    dtype = torch.float64
    condition_limit = 3e6

"""The lengths of the columns alone: where these are nearly orthogonal, no factor is worth its time."""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.claims import Claims
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByGradient
from closedform.numerics.extremes import Extremes
from closedform.numerics.rank import Rank
from closedform.numerics.root import DiagonalRoot
from closedform.words.errors import FactorBreakdown

__all__ = ["Diagonal"]

#: Condition number, of columns of length one, up to which conjugate gradients need fewer passes than others cost.
_LIMIT = 2.5
#: Rows for each column from which random columns are that well conditioned.
_TALL = 8
#: Targets whose vectors a pass multiplies for no more than it takes to read the rows.
_FEW_TARGETS = 4
#: Steps of the Lanczos process: an eigenvalue that stands apart from the others shows after five or six.
_STEPS = 12
#: Part of a vector below which what a basis leaves of it is rounding.
_LOST = 1e-10
#: Passes, all told, at a condition number of 1.5, that of 25 random rows a column.
_PASSES = 32
#: Seed of the vector from which the process starts beside the targets; any serves.
_SEED = 29


@final
class Diagonal(Method):
    """Conjugate gradients (Hestenes and Stiefel 1952) with the lengths of the columns for a factor, as Jacobi's.

    A block Lanczos process (Golub and Underwood 1977) from a random vector and the targets shows in a few passes over
    the rows how far the columns are from orthogonal, and gives the start. Preferred over a Gram matrix where columns
    are thousands, so that it would take longer than some thirty passes, and nearly orthogonal; where they are not, that
    shows after two or three.
    """

    name = "diagonal"
    condition_limit = _LIMIT

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = []
        if facts.n_rows < _TALL * facts.n_columns:
            reasons.append(
                f"{facts.n_rows} rows for {facts.n_columns} columns: even random columns are far from orthogonal"
            )
        if facts.n_targets > _FEW_TARGETS:
            reasons.append(f"{facts.n_targets} targets: conjugate gradients multiply the rows with each of them")
        if facts.rcond_given:
            reasons.append("an explicit rcond asks for singular values")
        return tuple(reasons)

    @override
    def cost(self, facts: Facts) -> Cost:
        return cost(0.0, facts.rates.gram64, facts, passes=_PASSES)

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        norms = problem.column_norms
        if not bool((norms > 0).all()):
            raise FactorBreakdown("a column is zero", math.inf)
        root = DiagonalRoot(norms)
        right, _ = problem.gradient(torch.zeros_like(norms).unsqueeze(1).expand(-1, problem.n_targets).contiguous())
        Q, images = _lanczos(problem, root, root.adjoint_solve(right))

        projected = _symmetric(Q.T @ images)
        start = root.solve(Q @ torch.linalg.solve(projected, Q.T @ root.adjoint_solve(right)))
        extremes = _extremes(root.solve(Q), projected)
        condition = extremes.condition
        rank = Rank(
            problem.n_columns,
            problem.n_columns,
            facts.rcond,
            1 / (condition * facts.rcond) if facts.rcond else math.inf,
            ambiguous=False,
        )
        factor = Factor(
            start=lambda given, nearest: start if given is right else root.normal_solve(given),
            refinement=ByGradient(root, contraction=1.0),
            claims=Claims(rank, root, extremes),
        )
        return factor, right


def _lanczos(problem: Problem, root: DiagonalRoot, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis of a block Krylov space of ``M = S^-T (A'A + P'P) S^-1``, and M times it.

    Args:
        problem: The problem.
        root: S.
        images: What it starts from beside a random vector, ``(columns, targets)``.

    Raises:
        FactorBreakdown: M has a larger condition number than the method serves.
    """
    generator = torch.Generator().manual_seed(_SEED)
    random = torch.randn(problem.n_columns, 1, dtype=torch.float64, device="cpu", generator=generator)
    basis = images[:, :0]
    products, new = basis, torch.cat([random.to(images.device), images], 1)
    for step in range(_STEPS):
        new = _beside(basis, new)
        if not new.shape[1]:
            break
        basis = torch.cat([basis, new], 1)
        new = root.adjoint_solve(problem.normal_product(root.solve(new)))
        products = torch.cat([products, new], 1)

        values = torch.linalg.eigvalsh(_symmetric(basis.T @ products))
        condition = math.sqrt(float(values[-1] / values[0])) if float(values[0]) > 0 else math.inf
        if not condition <= _LIMIT:
            raise FactorBreakdown(
                f"condition number at least {condition:.1e} after {step + 1} of {_STEPS} steps; conjugate gradients on "
                f"the columns as they are serve up to {_LIMIT:g}",
                condition=condition,
            )
    return basis, products


def _beside(basis: Tensor, vectors: Tensor) -> Tensor:
    """Return orthonormal vectors that with a basis span what vectors add to it, none where that is rounding."""
    size = torch.linalg.vector_norm(vectors, dim=0).max()
    # Twice is enough, of what is more than rounding.
    for _ in range(2):
        vectors = vectors - basis @ (basis.T @ vectors)
        vectors, R = torch.linalg.qr(vectors)
        vectors, size = vectors[:, R.diagonal().abs() > _LOST * size], torch.ones_like(size)
    return vectors


def _extremes(W: Tensor, projected: Tensor) -> Extremes:
    """Return the extreme singular values of A within the space of W, where ``W'(A'A + P'P) W`` is known."""
    from scipy.linalg import eigh

    values, vectors = eigh(projected.cpu().numpy(), _symmetric(W.T @ W).cpu().numpy())
    ends = W @ torch.from_numpy(np.ascontiguousarray(vectors[:, [-1, 0]])).to(W)
    return Extremes(math.sqrt(values[-1]), math.sqrt(max(values[0], 0.0)), ends[:, :1], ends[:, 1:])


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2

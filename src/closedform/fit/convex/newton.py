"""Newton's method with line search: each direction by conjugate gradients, preconditioned by a weighted Gram matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.fit.convex.passes import StartSums
from closedform.fit.convex.problem import ConvexProblem, Evaluation
from closedform.numerics.symmetric import mirror

__all__ = ["Descent", "descend"]

#: Newton steps after which the descent is given up; a convergent one takes five to twenty.
_MOST_STEPS = 200
#: Steps of conjugate gradients for one direction.
_MOST_PRODUCTS = 200
#: Products for one direction from which a new preconditioner is worth its cost.
_SLOW = 12
#: The inner residual that the first directions are solved to, relative, in the norm of the preconditioner.
_LOOSE = 0.1
#: The smallest inner residual that is asked for.
_TIGHT = 1e-3
#: Share of the decrease predicted by the slope that a step has to reach (Armijo 1966).
_SUFFICIENT = 1e-4
#: Halvings of a step before the line search gives up.
_MOST_HALVINGS = 60
#: Squared decrement, relative to the objective, below which only rounding can keep it from falling.
_NEAR = 1e-13
#: Squared decrement, relative to the objective, from which one more step leaves nothing to gain.
_DONE = 1e-20
#: Condition number of the preconditioner up to which directions from float32 products are good.
_SINGLE_LIMIT = 1e6
#: Shift, relative to the mean diagonal, of a preconditioner that is singular. It bends steps and no minimum.
_SHIFT = 1e-12


@final
@dataclass(frozen=True, eq=False)
class Descent:
    """Where a descent ended.

    Attributes:
        best: The last evaluation.
        steps: Newton steps.
        products: Products with the Hessian.
        passes: Reads of the rows in all.
        stopped: Why it ended: ``"converged"``, ``"stalled"``, ``"unbounded"`` or ``"steps"``.
    """

    best: Evaluation
    steps: int
    products: int
    passes: int
    stopped: str


@final
class _Preconditioner:
    """A Cholesky factor of a Gram matrix with the ridge."""

    def __init__(self, gram: Tensor, penalty: Tensor, null: Tensor) -> None:
        H = gram + torch.diag(penalty.mean(1)) + null @ null.T * gram.diagonal().mean()
        shift = 0.0
        while True:
            factor, broken = torch.linalg.cholesky_ex(H + shift * torch.eye(H.shape[0], dtype=H.dtype, device=H.device))
            if not int(broken) or not math.isfinite(shift):
                break
            shift = max(_SHIFT * float(H.diagonal().mean()), 100 * shift) or 1.0
        self._factor = factor
        size = factor.diagonal().abs()
        self.condition = float((size.amax() / size.amin()) ** 2)

    def solve(self, R: Tensor) -> Tensor:
        return torch.cholesky_solve(R, self._factor)


def descend(
    problem: ConvexProblem, gram: Tensor, null: Tensor, start: Tensor | None = None, *, most_steps: int = _MOST_STEPS
) -> Descent:
    """Minimise by Newton steps (Dembo, Eisenstat and Steihaug 1982) until rounding stops them.

    The loss of the rows itself decides every step, so the descent goes down from any start.

    Args:
        problem: What is minimised.
        gram: ``A'A`` of the scaled columns, ``(columns, columns)``.
        null: Orthonormal directions along which no output changes, ``(columns, directions)``.
        start: Coefficients to start from, or None.
        most_steps: Newton steps at most.
    """
    theta = first_coefficients(problem, null) if start is None else start
    at = problem.evaluate(theta)
    if not math.isfinite(at.objective) and start is None:
        at = problem.evaluate(torch.zeros_like(theta))
    products, passes, stopped, last, refresh = 0, 1, "steps", math.inf, start is not None or bool(theta.any())
    solver = None if refresh else _Preconditioner(_uniform(problem, gram), problem.penalty, null)
    first, steps = None, 0
    for _ in range(most_steps):
        if solver is None or refresh:
            solver = _Preconditioner(problem.gram(at.theta), problem.penalty, null)
            passes += 1
        step_to, used, decrement = _direction(problem, at, solver, 1.0 if first is None else _ratio(last, first))
        products, passes = products + used, passes + used
        first = decrement if first is None else first
        size = max(abs(at.objective), torch.finfo(torch.float64).tiny)
        if decrement > 0.25 * last and decrement**2 <= _NEAR * size:
            stopped = "converged"
            break

        taken, trials = _search(problem, at, step_to)
        passes += trials
        if taken is None or decrement**2 <= _DONE * size:
            stopped = "converged" if decrement**2 <= _NEAR * size else "stalled"
            at, steps = (at, steps) if taken is None else (taken, steps + 1)
            break
        at, last, refresh, steps = taken, decrement, used > _SLOW, steps + 1
    return Descent(at, steps, products, passes, stopped)


def _ratio(last: float, first: float) -> float:
    return min(1.0, last / first) if first > 0 else 1.0


def _uniform(problem: ConvexProblem, gram: Tensor) -> Tensor:
    """Return the Gram matrix times the curvature at outputs of zero, which is about the same in every row there."""
    block = problem.rows.block(0, min(problem.rows.n_rows, 256))
    Z = block.Y.new_zeros(block.X.shape[0], problem.n_outputs)
    criterion = problem.criterion
    mean = float(criterion.diagonal(criterion.curvatures(Z, block.Y)).mean())
    return gram * (mean or 1.0)


def first_coefficients(problem: ConvexProblem, null: Tensor) -> Tensor:
    """Return zeros, or the first Newton step from outputs that suit the targets."""
    theta = problem.penalty.new_zeros(problem.n_columns, problem.n_outputs)
    block = problem.rows.block(0, 1)
    if problem.criterion.start(block.Y) is None:
        return theta
    sums = problem.rows.walk(StartSums(problem.criterion, problem.columns, problem.n_outputs))
    for output in range(problem.n_outputs):
        solver = _Preconditioner(mirror(sums.gram[output]), problem.penalty[:, output : output + 1], null)
        theta[:, output] = solver.solve(sums.right[:, output : output + 1])[:, 0]
    return theta if bool(torch.isfinite(theta).all()) else torch.zeros_like(theta)


def _direction(
    problem: ConvexProblem, at: Evaluation, solver: _Preconditioner, ratio: float
) -> tuple[Tensor, int, float]:
    """Return a direction, the products it took, and the length of the gradient in the preconditioner's norm."""
    exactly = solver.condition > _SINGLE_LIMIT
    r = -problem.centred(at.gradient)
    z = solver.solve(r)
    rz = float((r * z).sum())
    decrement = math.sqrt(max(rz, 0.0))
    wanted = max(_TIGHT, min(_LOOSE, ratio)) ** 2 * rz

    D, d, used = torch.zeros_like(r), z.clone(), 0
    while used < _MOST_PRODUCTS and rz > 0:
        Hd = problem.centred(problem.product(at, d, exactly=exactly))
        used += 1
        curvature = float((d * Hd).sum())
        if not curvature > 0:
            D = d if not bool(D.any()) else D
            break
        length = rz / curvature
        D += length * d
        r = r - length * Hd
        z = solver.solve(r)
        new = float((r * z).sum())
        if not new > wanted:
            break
        d, rz = z + (new / rz) * d, new
    return D, used, decrement


def _search(problem: ConvexProblem, at: Evaluation, D: Tensor) -> tuple[Evaluation | None, int]:
    """Halve the step until the objective falls enough; return None where it does not fall at all."""
    slope, length = float((at.gradient * D).sum()), 1.0
    rounding = 4 * torch.finfo(torch.float64).eps * abs(at.objective)
    for tried in range(1, _MOST_HALVINGS + 1):
        trial = problem.evaluate(at.theta + length * D)
        if trial.objective <= at.objective + _SUFFICIENT * length * slope:
            return trial, tried
        if abs(length * slope) <= rounding and trial.objective <= at.objective + rounding:
            # The objective cannot tell any more: the slope along the step does.
            ahead = float((trial.gradient * D).sum())
            return (trial, tried) if abs(ahead) <= abs(slope) else (None, tried)
        length *= 0.5
    return None, _MOST_HALVINGS

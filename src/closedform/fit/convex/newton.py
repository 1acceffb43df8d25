"""Newton's method with line search: directions by a weighted Gram matrix, or conjugate gradients with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.fit.convex.passes import StartSums
from closedform.fit.convex.plan import Stage
from closedform.fit.convex.problem import ConvexProblem, Evaluation
from closedform.numerics.symmetric import mirror

__all__ = ["Descent", "descend", "search"]

#: Newton steps after which the descent is given up; a convergent one takes five to twenty.
_MOST_STEPS = 200
#: Steps of conjugate gradients for one direction.
_MOST_PRODUCTS = 200
#: Products for each decimal of a direction from which a new preconditioner is worth its cost.
_SLOW = 8.0
#: Steps still to go with an old Hessian, each as good as the last one, from which a new one is worth its cost. They get
#: better than that, and a new one costs as much as a few of them.
_STALE = 8
#: The same with the Hessian of a sample, whose steps hardly get better.
_STALE_SAMPLE = 5
#: Changes of the gradient that correct an old Hessian.
_MOST_PAIRS = 10
#: Curvature along a step, relative to the lengths of the step and of the change of the gradient, that may be rounding.
_LEVEL = 1e-12
#: The inner residual that the first directions are solved to, relative, in the norm of the preconditioner.
_LOOSE = 0.1
#: The smallest inner residual that is asked for: products in float32 give little more.
_TIGHT = 2e-5
#: Part of the square of the last decrease of the gradient that the inner residual is (Eisenstat and Walker 1996).
_FORCING = 0.5
#: Share of the decrease predicted by the slope that a step has to reach (Armijo 1966).
_SUFFICIENT = 1e-4
#: Halvings of a step before the line search gives up.
_MOST_HALVINGS = 60
#: Squared decrement, relative to the objective, below which only rounding can keep it from falling.
_NEAR = 1e-13
#: Squared decrement, relative to the objective, that leaves nothing to gain.
_DONE = 1e-20
#: The same where rows are so many that a step is foreseen: below the last bit of the objective, and of the proof.
_DONE_FORESEEN = 1e-17
#: Squared decrement, relative to the objective, below which a whole step is certain to go down.
_WHOLE = 1e-8
#: Products of rows, columns and outputs from which on a look at the rows is worth saving.
_LARGE = 2**20
#: Condition number of the preconditioner up to which directions from float32 products are good.
_SINGLE_LIMIT = 1e6
#: Condition number of a Hessian up to which a Cholesky factor solves with it as well as a step needs.
_DIRECT_LIMIT = 1e10
#: Shift, relative to the mean diagonal, of a preconditioner that is singular. It bends steps and no minimum.
_SHIFT = 1e-12
#: Squared decrement, for each coefficient, at which a sample is solved: the minimiser of all rows is further away.
_SAMPLE_ENOUGH = 1e-2
#: Newton steps for a sample: one that has no minimiser takes more.
_SAMPLE_STEPS = 12
#: Rows of a sample for each coefficient: the minimiser of fewer is no nearer than zero.
_SAMPLE_ROWS = 20
#: The least part of the rows that a sample is, and by how many of them the rows have to exceed it.
_SAMPLE_PART = 16
#: Samples that the rows have to hold for one of them to pay.
_SAMPLES = 4


@final
@dataclass(frozen=True, eq=False)
class Descent:
    """Where a descent ended.

    Attributes:
        theta: The coefficients.
        steps: Newton steps.
        passes: Reads of the rows in all.
        stopped: Why it ended: ``"foreseen"`` (by a last step that nothing has looked at), ``"converged"``,
            ``"stalled"`` or ``"steps"``.
        gram: The weighted Gram matrix last factored, that of the Hessian for one output, without the ridge.
        stages: What was done.
    """

    theta: Tensor
    steps: int
    passes: int
    stopped: str
    gram: Tensor | None
    stages: tuple[Stage, ...] = ()


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
        self._factor, self.shift = factor, shift / (float(H.diagonal().mean()) or 1.0)
        size = factor.diagonal().abs()
        self.condition = math.inf if shift else float((size.amax() / size.amin()) ** 2)

    def solve(self, R: Tensor) -> Tensor:
        return torch.cholesky_solve(R, self._factor)


def descend(
    problem: ConvexProblem,
    null: Tensor,
    start: Tensor | None = None,
    *,
    most_steps: int = _MOST_STEPS,
    most_passes: float = math.inf,
    enough: float = 0.0,
    foresee: bool = True,
) -> Descent:
    """Minimise by Newton steps (Dembo, Eisenstat and Steihaug 1982) until rounding stops them.

    The loss of the rows itself decides every step, so the descent goes down from any start: the minimiser of a sample,
    where the rows are many. One output with few columns has its Hessian factored, at first that of the sample. The
    factor serves, corrected by the changes of the gradient since then (Nocedal 1980), as long as it shrinks the
    gradient fast; else it preconditions conjugate gradients.

    Args:
        problem: What is minimised.
        null: Orthonormal directions along which no output changes, ``(columns, directions)``.
        start: Coefficients to start from, or None.
        most_steps: Newton steps at most.
        most_passes: Reads of the rows after which no further step is begun.
        enough: Squared decrement at which the descent may end.
        foresee: Whether, with many rows, a step that is certain to be the last is taken without looking at them again.
    """
    foresee = foresee and problem.rows.n_rows * problem.n_columns * problem.n_outputs >= _LARGE
    at, passes, gram = _first(problem, null, start)
    hessian = _Hessian(problem, null, gram)
    stopped, last, steps, fresh = "steps", math.inf, 0, not hessian.direct
    for _ in range(most_steps):
        if passes + hessian.passes > most_passes:
            break
        r, z, decrement = hessian.newton(at, fresh=fresh)
        share = min(1.0, decrement / last)
        size = max(abs(at.objective), torch.finfo(torch.float64).tiny)
        target = math.sqrt(max((_DONE_FORESEEN if foresee else _DONE) * size, enough))
        if hessian.direct and not fresh and decrement * share**hessian.stale > target:
            fresh = True
            r, z, decrement = hessian.newton(at, fresh=True)
        if (decrement > 0.25 * last and decrement**2 <= _NEAR * size) or decrement**2 <= enough:
            stopped = "converged"
            break

        # The step that is foreseen as the last need not be solved for more than is left to gain.
        last_step = foresee and share**2 * decrement <= target
        forcing = _FORCING * (target / max(decrement, target) if last_step else share**2)
        forcing = max(_TIGHT, min(_LOOSE, forcing))
        step_to, fresh = hessian.direction(at, r, z, forcing, fresh=fresh)
        left = (share if hessian.direct else max(share**2, forcing)) * decrement
        if foresee and steps and left <= target and decrement**2 <= _WHOLE * size:
            done = hessian.stage(steps + 1, passes + hessian.passes)
            return Descent(at.theta + step_to, done.steps, done.passes, "foreseen", hessian.gram, (done,))
        taken, trials = search(problem, at, step_to)
        passes += trials
        if taken is None or decrement**2 <= _DONE * size:
            stopped = "converged" if decrement**2 <= _NEAR * size else "stalled"
            at, steps = (at, steps) if taken is None else (taken, steps + 1)
            break
        at, last, steps = taken, decrement, steps + 1
    done = hessian.stage(steps, passes + hessian.passes)
    return Descent(at.theta, done.steps, done.passes, stopped, hessian.gram, (done,))


def _first(problem: ConvexProblem, null: Tensor, start: Tensor | None) -> tuple[Evaluation, int, Tensor | None]:
    """Evaluate where the descent starts; return that, how often the rows were read, and what to factor, or None."""
    if start is not None:
        return problem.evaluate(start), 1, None
    sampled, gram = _sampled(problem, null)
    at = problem.evaluate(first_coefficients(problem, null) if sampled is None else sampled)
    if math.isfinite(at.objective):
        return at, 1, gram
    return problem.evaluate(torch.zeros_like(at.theta)), 2, None


def _sampled(problem: ConvexProblem, null: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return the minimiser of a sample of the rows and, where it may be factored, its weighted Gram matrix.

    The minimiser is None where the rows are too few or the sample has none.
    """
    unknowns = problem.n_columns * problem.n_outputs
    count = max(_SAMPLE_ROWS * unknowns, problem.rows.n_rows // _SAMPLE_PART)
    sample = problem.sampled(count) if count * _SAMPLES <= problem.rows.n_rows else None
    if sample is None:
        return None, None
    found = descend(sample, null, most_steps=_SAMPLE_STEPS, enough=_SAMPLE_ENOUGH * unknowns)
    if found.stopped not in ("foreseen", "converged"):
        return None, None
    gram = sample.gram(found.theta) * (problem.rows.n_rows / count) if problem.direct else None
    return found.theta, gram


def first_coefficients(problem: ConvexProblem, null: Tensor) -> Tensor:
    """Return zeros, or the first Newton step from outputs that suit the targets."""
    theta = problem.penalty.new_zeros(problem.n_columns, problem.n_outputs)
    # Rows of loaders and clusters are not read by their numbers: any targets tell whether there is a start.
    if problem.criterion.start(theta.new_zeros(1, problem.rows.n_targets)) is None:
        return theta
    sums = problem.rows.walk(StartSums(problem.criterion, problem.columns, problem.n_outputs))
    for output in range(problem.n_outputs):
        solver = _Preconditioner(mirror(sums.gram[output]), problem.penalty[:, output : output + 1], null)
        theta[:, output] = solver.solve(sums.right[:, output : output + 1])[:, 0]
    return theta if bool(torch.isfinite(theta).all()) else torch.zeros_like(theta)


@final
class _Hessian:
    """Factors of weighted Gram matrices, and directions by them.

    Attributes:
        gram: The matrix of all rows that was last factored, without the ridge.
        passes: Reads of the rows so far.
    """

    def __init__(self, problem: ConvexProblem, null: Tensor, gram: Tensor | None = None) -> None:
        self._problem, self._null = problem, null
        self.gram: Tensor | None = None
        self._solver = None if gram is None else _Preconditioner(gram, problem.penalty, null)
        self._last: Evaluation | None = None
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._patience = _SLOW
        self.passes = 0
        self._shift, self._products = 0.0, set[str]()

    @property
    def stale(self) -> int:
        """Steps still to go, each as good as the last one, from which a new factor is worth its cost."""
        return _STALE_SAMPLE if self.gram is None else _STALE

    @property
    def direct(self) -> bool:
        """Whether the factor solves well enough by itself."""
        solver = self._solver
        return self._problem.direct and solver is not None and solver.condition <= _DIRECT_LIMIT

    def stage(self, steps: int, passes: int) -> Stage:
        """Return what was done in so many steps and reads of the rows."""
        how = "a factor of the Hessian"
        if self._products:
            how = f"conjugate gradients, products in {' and '.join(sorted(self._products))}"
            if "float32" in self._products and self._problem.criterion.of_shares:
                how += ", of curvatures that do not vanish beside others of their row"
        if self._shift:
            how += f"; a singular factor was shifted by {self._shift:.0e} of its diagonal, which bends steps alone"
        return Stage("Newton's method", how, steps, passes)

    def newton(self, at: Evaluation, *, fresh: bool) -> tuple[Tensor, Tensor, float]:
        """Return minus the gradient, the factor's solution with it, and its length in the norm of the factor."""
        if fresh or self._solver is None:
            self.gram, self.passes = self._problem.gram(at.theta), self.passes + 1
            self._solver = _Preconditioner(self.gram, self._problem.penalty, self._null)
            self._shift = max(self._shift, self._solver.shift)
            self._pairs.clear()
        elif self.direct and self._last is not None and self._last is not at:
            self._learn(at.theta - self._last.theta, at.gradient - self._last.gradient)
        self._last = at
        r = -self._problem.centred(at.gradient)
        z = self._corrected(r)
        return r, z, math.sqrt(max(float((r * z).sum()), 0.0))

    def _learn(self, step: Tensor, change: Tensor) -> None:
        """Remember by how much a step changed the gradient, unless that is rounding."""
        if float((step * change).sum()) > _LEVEL * float(step.norm() * change.norm()):
            self._pairs = [*self._pairs[1 - _MOST_PAIRS :], (step, change)]

    def _corrected(self, r: Tensor) -> Tensor:
        """Return the factor's solution, corrected by what steps did (limited-memory BFGS)."""
        assert self._solver is not None
        lengths = []
        for step, change in reversed(self._pairs):
            lengths.append(float((step * r).sum() / (step * change).sum()))
            r = r - lengths[-1] * change
        z = self._solver.solve(r)
        for (step, change), length in zip(self._pairs, reversed(lengths), strict=True):
            z = z + (length - float((change * z).sum() / (step * change).sum())) * step
        return z

    def direction(self, at: Evaluation, r: Tensor, z: Tensor, forcing: float, *, fresh: bool) -> tuple[Tensor, bool]:
        """Return a direction, solved to a residual of ``forcing``, relative, and whether a new factor is due."""
        problem, solver = self._problem, self._solver
        assert solver is not None
        if self.direct:
            return z, False
        exactly = solver.condition > _SINGLE_LIMIT
        self._products.add("float32" if problem.keeps and not exactly else "float64")
        rz = float((r * z).sum())
        wanted = forcing**2 * rz

        D, d, used = torch.zeros_like(r), z.clone(), 0
        with problem.alone(exactly=exactly):
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
        self.passes += used
        pace = used / -math.log10(forcing)
        self._patience = max(_SLOW, 2 * pace) if fresh else self._patience
        return D, pace > self._patience


def search(problem: ConvexProblem, at: Evaluation, D: Tensor) -> tuple[Evaluation | None, int]:
    """Halve a step until the objective falls enough; return None where it does not fall, and how often it was tried.

    Args:
        problem: What is minimised.
        at: Where the step starts.
        D: The step.
    """
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

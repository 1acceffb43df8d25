"""Huber's regression with its scale: coefficients and the scale of the residuals are minimised together."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from closedform.engine.threads import one_thread
from closedform.fit.convex.certificate import GAP_TOLERANCE, GapCertificate
from closedform.fit.convex.coordinates import Coordinates
from closedform.fit.convex.finish import rounded_proof
from closedform.fit.convex.held_rows import HeldRows
from closedform.fit.convex.kinked import MOST_STEPS, minimise_kinked, minimise_rounded, smoothed
from closedform.fit.convex.kinked_rows import KinkedRows
from closedform.fit.convex.passes import counted_rows
from closedform.fit.convex.plan import ConvexPlan, Stage, rounding_to
from closedform.fit.convex.solution import ConvexSolution, unseen_note
from closedform.fit.convex.stored import judged
from closedform.fit.layers import round_to
from closedform.fit.request import check_ridge
from closedform.fit.sharing import open_rows
from closedform.fit.weights import Weights
from closedform.numerics.scaling import unit_of
from closedform.numerics.twofold import residual
from closedform.rows import Design, Rows, scan
from closedform.words.errors import InputError
from closedform.words.outcome import Outcome

__all__ = ["JointScale", "solve_with_scale"]

#: Newton steps at most; a fit takes five to fifteen.
_MOST_STEPS = 200
#: Halvings of a step.
_MOST_HALVINGS = 40
#: Share of the decrease that the slope predicts which a step has to reach (Armijo 1966).
_SUFFICIENT = 1e-4
#: Scales that are tried one after the other, at the least, and by what the next one differs where nothing bounds it.
_MOST_SCALES = 20
_FURTHER = 16.0
#: What moving the scale may still gain, relative to the objective, where it is found.
_LEVEL = 1e-14
#: How much of itself the scale keeps in one step.
_KEEPS = 0.1
#: The smallest scale, in roundings of the largest target: below it residuals are rounding.
_SMALLEST = 10.0
#: Normal: the median of sizes of residuals is this part of their standard deviation.
_MEDIAN = 0.6745
#: How uncertain a Gram matrix may be, relative to itself, for a bound that divides by it.
_MOST_UNCERTAIN = 0.1
#: Smallest part of a diagonal entry that is left of the scale's own curvature.
_LEAST_LEFT = 1e-14
_EPS = torch.finfo(torch.float64).eps


@final
@dataclass(frozen=True, eq=False)
class JointScale:
    """Huber's regression with its scale.

    Attributes:
        solution: Coefficients with their certificate.
        scale: By which residuals are divided, in the units of the targets.
    """

    solution: ConvexSolution
    scale: float


def solve_with_scale(X: Any, Y: Any, *, epsilon: float, bias: bool, l2: float, sample_weight: Any = None) -> JointScale:
    r"""Minimise :math:`\sum_i w_i (s + s H(r_i / s)) + l_2 |w|^2` over coefficients and the scale s > 0 (Huber 1981).

    ``H(z)`` is ``z^2`` up to epsilon and ``2 epsilon |z| - epsilon^2`` beyond: jointly convex, as s H(r / s) is the
    perspective of a convex function.

    Args:
        X: Features, ``(rows, features)``.
        Y: Targets, ``(rows,)``.
        epsilon: From which on, in multiples of the scale, residuals count linearly; at least 1.
        bias: Whether there is a bias.
        l2: Ridge strength, not negative.
        sample_weight: One weight for each row, or None.

    Raises:
        InputError: rows or options that cannot be used.
    """
    started = time.perf_counter()
    if not 1 <= epsilon < math.inf:
        raise InputError(f"epsilon={epsilon!r} must be a finite number of at least 1.")
    rows = open_rows(X, Y, sample_weight)
    (strength,) = check_ridge(l2, 1)

    design = Design(rows, scan(rows), bias=bias)
    columns, (X, T, weight, _) = design.columns, counted_rows(rows.gather())
    A = columns.unweighted(X)

    # Units of targets and weights decide nothing: powers of two, so that nothing is rounded.
    unit, heavy = unit_of(T), unit_of(weight)
    with one_thread(min(A.shape), A.device):
        gram = HeldRows(A).gram() if A.shape[0] >= A.shape[1] else None
        coordinates = Coordinates.of(A, columns.scale, bias=columns.bias, ridge=strength > 0, gram=gram)
        gram = gram if coordinates.lift is None else None
        problem = _Joint(coordinates, T[:, 0] / unit, weight / heavy, epsilon, strength * (unit / heavy), gram)
        at, steps = _descended(problem)
        stages = [Stage("Newton's method", "on coefficients and scale together", steps, 1)]
        unseen = 0 if strength else A.shape[1] - coordinates.rank
        v, certificate = _certificate(problem, at, coordinates, A, unseen=unseen)
        scale, held = at.scale, at.held
        if not certificate.accepted:
            w, without = _without_scale(problem, coordinates, A)
            stages.append(Stage("active rows", "the same without a scale, by sizes of residuals"))
            if held or without.accepted:
                v, certificate, scale, held = w, without, problem.smallest, True
        if not certificate.accepted:
            at, taken = _by_scales(problem, at.scale)
            w, found = _certificate(problem, at, coordinates, A, unseen=unseen)
            steps += taken
            stages.append(Stage("bisection", "of the scale, with the coefficients that are best for each", taken))
            if found.gap < certificate.gap:
                v, certificate, scale, held = w, found, at.scale, at.held
    v, scale, certificate = v * unit, scale * unit, _in_units(certificate, unit * heavy, heavy)
    weights = Weights.from_stacked((v * columns.scale).unsqueeze(1), bias=columns.bias)
    solution = _solution(rows, weights, certificate, held, stages, started)
    if rows.dtype != torch.float64 and certificate.accepted:
        wide = Weights(solution.weight, solution.bias).to(torch.float64).stacked()[:, 0] / columns.scale
        loss, reach = _stored(problem, coordinates, A, wide / unit, scale / unit)
        stored = judged(solution.weight.dtype, loss * unit * heavy, certificate.objective, reach * unit * heavy)
        solution = replace(solution, stored=stored)
    return JointScale(solution, scale)


def _in_units(certificate: GapCertificate, unit: float, slopes: float) -> GapCertificate:
    """Return a certificate in the units of the losses, and the gradient in those of the slopes."""
    return replace(
        certificate,
        gap=certificate.gap * unit,
        excess_loss=certificate.excess_loss * unit,
        loss=certificate.loss * unit,
        objective=certificate.objective * unit,
        gradient_norm=certificate.gradient_norm * slopes,
    )


def _stored(problem: _Joint, coordinates: Coordinates, A: Tensor, v: Tensor, scale: float) -> tuple[float, float]:
    """Return the objective of rounded coefficients, and how far it hangs on the last digits of outputs.

    Args:
        problem: The problem.
        coordinates: Of its rows.
        A: The scaled columns, without sample weights.
        v: Coefficients of these.
        scale: The scale beside them.
    """
    outputs = A @ v
    at = problem.loss(scale, problem.t - outputs) + problem.strength * float((coordinates.free * v * v).sum())
    slopes = (2 * (problem.t - outputs) / scale).clamp(-2 * problem.epsilon, 2 * problem.epsilon)
    return at, float(problem.weight @ (slopes * outputs).abs())


@final
class _Joint:
    """The problem in its coordinates: rows U, targets t, weights, and the penalty ``w' diag(penalty) w / 2``.

    Args:
        coordinates: The coordinates.
        t: Targets.
        weight: Weights of the rows.
        epsilon: Where losses become linear.
        strength: Ridge strength.
        gram: ``U'U``, where it is known.
    """

    def __init__(
        self,
        coordinates: Coordinates,
        t: Tensor,
        weight: Tensor,
        epsilon: float,
        strength: float,
        gram: Tensor | None,
    ) -> None:
        self.rows = HeldRows(coordinates.U)
        self.U, self.t, self.weight, self.epsilon = self.rows.U, t, weight, epsilon
        self.strength, self.penalty = strength, 2 * strength * coordinates.penalised
        self.total = float(weight.sum())
        # Where all weights are the same, the Gram matrices of weighted rows are multiples of that of the rows.
        self._plain = gram if gram is not None and bool((weight == weight[0]).all()) else None
        self.gram = self.rows.gram(weight) if self._plain is None else weight[0] * self._plain
        #: What sums over the rows round, relative to the sizes of their terms.
        self.roundings = self.rows.roundings
        self.smallest = _SMALLEST * _EPS * (float(t.abs().max()) or 1.0)

    @cached_property
    def inverse(self) -> Tensor:
        """The inverse of the triangle of the weighted rows, by which changes of their outputs bound coefficients."""
        plain, weight = self._plain, self.weight
        gram = self.rows.gram(weight.square()) if plain is None else weight[0] ** 2 * plain
        factor, broken = torch.linalg.cholesky_ex(gram, upper=True)
        if not int(broken):
            inverse = _inverse(factor)
            doubt = self.roundings * float(gram.diagonal().sum()) * float(inverse.square().sum())
            if doubt <= _MOST_UNCERTAIN:
                return inverse / math.sqrt(1 - doubt)
        return _inverse(torch.linalg.qr(self.U * self.weight.unsqueeze(1), mode="r").R)

    def at(self, w: Tensor, scale: float) -> _Point:
        return _Point(self, w, max(scale, self.smallest), self.t - self.rows.images(w))

    def objective(self, w: Tensor, scale: float, r: Tensor) -> float:
        return self.loss(scale, r) + 0.5 * float((self.penalty * w * w).sum())

    def loss(self, scale: float, r: Tensor) -> float:
        size = r.abs()
        inner = size.clamp_max(self.epsilon * scale)
        losses = scale + inner * (2 * size - inner) / scale
        return float((self.weight * losses).sum())


@final
class _Point:
    """Coefficients and a scale, with the objective and its slopes there."""

    def __init__(self, problem: _Joint, w: Tensor, scale: float, r: Tensor) -> None:
        self.problem, self.w, self.scale, self.r = problem, w, scale, r
        self.objective = problem.objective(w, scale, r)
        #: Slopes of the losses by the residuals, which are a point of the dual.
        self.u = (2 * r / scale).clamp(-2 * problem.epsilon, 2 * problem.epsilon)
        slopes, self.inside = problem.weight * self.u, r.abs() < problem.epsilon * scale
        sums = problem.rows.adjoint(torch.stack([slopes, slopes * self.inside], 1))
        self.gradient = problem.penalty * w - sums[:, 0]
        #: The mixed second derivatives, times the scale.
        self._mixed = sums[:, 1]
        self.by_scale = float((problem.weight * (1 - self.u.square() / 4)).sum())

    @property
    def held(self) -> bool:
        """Whether the scale is at its smallest, and would go on."""
        return self.scale <= self.problem.smallest and self.by_scale > 0

    def newton(self) -> tuple[Tensor, float]:
        """Return a Newton step of coefficients and scale."""
        problem, inside = self.problem, self.inside
        few = 2 * int(inside.sum()) < len(inside)
        part = problem.rows.gram(problem.weight, (inside if few else ~inside).nonzero().squeeze(1))
        H = 2 / self.scale * (part if few else problem.gram - part) + torch.diag(problem.penalty)
        bent = inside * problem.weight * self.u
        mixed, own = self._mixed / self.scale, float((bent * self.u).sum()) / (2 * self.scale)
        both = torch.stack([-self.gradient, mixed], 1)
        solved = torch.cholesky_solve(both, _factor(H))
        if self.held or own == 0:
            return solved[:, 0], 0.0 if self.held else -math.copysign(self.scale / 2, self.by_scale)
        left = max(own - float(mixed @ solved[:, 1]), _LEAST_LEFT * own)
        change = (-self.by_scale - float(mixed @ solved[:, 0])) / left
        return solved[:, 0] - change * solved[:, 1], change


def _inverse(R: Tensor) -> Tensor:
    """Return the inverse of an upper triangle."""
    return torch.linalg.solve_triangular(R, torch.eye(len(R), dtype=R.dtype, device=R.device), upper=True)


def _factor(H: Tensor) -> Tensor:
    """Return a Cholesky factor, of a shifted matrix where it is singular: a step need not be exact."""
    shift, usual = 0.0, float(H.diagonal().abs().mean()) or 1.0
    while True:
        factor, broken = torch.linalg.cholesky_ex(H + shift * torch.eye(H.shape[0], dtype=H.dtype, device=H.device))
        if not int(broken):
            return factor
        shift = max(_EPS * len(H) * usual, 100 * shift)


def _by_scales(problem: _Joint, start: float) -> tuple[_Point, int]:
    """Return the minimiser by way of those for a fixed scale, of which the best one is looked for, and all steps.

    The smallest objective for a scale is convex in it, and its slope that by the scale (Danskin 1967): it tells on
    which side the minimiser is, however few rows bend the loss.

    Args:
        problem: The problem.
        start: A scale to begin with.
    """
    root = problem.weight.sqrt()
    bound = 2 * problem.epsilon * root
    rows = KinkedRows(problem.U * root.unsqueeze(1), problem.t * root, bound, bound, problem.penalty)
    low, high, scale = problem.smallest, math.inf, max(start, problem.smallest)
    at, steps = problem.at(minimise_rounded(rows, 0.5 * scale), scale), 0
    while steps < _MOST_SCALES * MOST_STEPS:
        if abs(at.by_scale) * scale <= _LEVEL * at.objective or at.held:
            break
        low, high = (low, scale) if at.by_scale > 0 else (scale, high)
        scale = scale * _FURTHER if math.isinf(high) else max(math.sqrt(low * high), high / _FURTHER)
        w, _, taken = smoothed(rows, at.w, rows.t - rows.A @ at.w, 0.5 * scale)
        w = minimise_rounded(rows, 0.5 * scale) if taken == MOST_STEPS else w
        at, steps = problem.at(w, scale), steps + taken
        if not low < scale < high:
            break
    at, taken = _descended(problem, at)
    return at, steps + taken


def _descended(problem: _Joint, start: _Point | None = None) -> tuple[_Point, int]:
    """Return the minimiser up to rounding, and how many Newton steps led there."""
    at = _first(problem) if start is None else start
    for step in range(_MOST_STEPS):
        change, wider = at.newton()
        slope = float(at.gradient @ change) + at.by_scale * wider
        then = _along(at, change, wider, slope) if slope < 0 else None
        if then is None:
            return problem.at(at.w, at.scale), step
        at = then
    return problem.at(at.w, at.scale), _MOST_STEPS


def _first(problem: _Joint) -> _Point:
    """Return least squares, with the scale of its residuals."""
    right = problem.rows.adjoint((problem.weight * problem.t).unsqueeze(1))
    w = torch.cholesky_solve(right, _factor(problem.gram + torch.diag(problem.penalty))).squeeze(1)
    r = problem.t - problem.rows.images(w)
    scale = float(r.abs().median()) / _MEDIAN or float(r.abs().max())
    return _Point(problem, w, max(scale, problem.smallest), r)


def _along(at: _Point, change: Tensor, wider: float, slope: float) -> _Point | None:
    """Halve the step until the objective falls enough; None where rounding lets neither it nor its slope fall."""
    problem, length, image = at.problem, 1.0, at.problem.rows.images(change)
    if wider < 0:
        length = min(1.0, (1 - _KEEPS) * at.scale / -wider)
    rounding = 4 * _EPS * abs(at.objective)
    for _ in range(_MOST_HALVINGS):
        w, scale = at.w + length * change, max(at.scale + length * wider, problem.smallest)
        then_r = at.r - length * image
        now = problem.objective(w, scale, then_r)
        if -length * slope <= rounding and now <= at.objective + rounding:
            then = _Point(problem, w, scale, then_r)
            ahead = float(then.gradient @ change) + then.by_scale * wider
            return then if abs(ahead) < 0.5 * abs(slope) else None
        if now <= at.objective + _SUFFICIENT * length * slope:
            return _Point(problem, w, scale, then_r)
        length *= 0.5
    return None


def _certificate(
    problem: _Joint, at: _Point, coordinates: Coordinates, A: Tensor, *, unseen: int
) -> tuple[Tensor, GapCertificate]:
    r"""Return the coefficients of the columns, and a bound on the excess by duality.

    ``s + s H(r / s)`` is the largest of ``u r + s (1 - u^2 / 4)`` over :math:`|u| \le 2 \epsilon`, so that slopes u of
    the rows give a lower bound, and the excess over it is no more than the gradient times how far the minimiser can be:
    no row's loss is below twice the size of its residual there, and no scale above the objective over the weights.
    """
    v = coordinates.shortest(coordinates.raised(at.w))
    gap, objective = math.inf, at.objective
    if coordinates.lift is None:
        # The sizes of the terms sum to no more than the product of the lengths of a column and of the slopes.
        sizes = problem.gram.diagonal().sqrt() * math.sqrt(float((problem.weight * at.u.square()).sum()))
        rounding = 4 * _EPS * (problem.penalty * at.w).abs()
        gap = _gap(problem, at, at.gradient.abs() + problem.roundings * sizes + rounding)
        if gap > GAP_TOLERANCE * objective:
            exact = (problem.penalty * at.w - problem.rows.exact_adjoint(problem.weight * at.u)).abs()
            gap = min(gap, _gap(problem, at, exact + 4 * _EPS * exact + rounding))
    if gap > GAP_TOLERANCE * objective:
        # The coordinates are computed: what is proven is of the rows as they are.
        slopes = 2 * problem.epsilon * problem.weight
        rows = KinkedRows(A, problem.t, slopes, slopes, 2 * problem.strength * coordinates.free)
        found = _exact_gap(problem, rows, coordinates, v, at.scale)
        gap, objective = found if found[0] < gap else (gap, objective)

    relative = gap / objective if objective else gap
    H = 2 / at.scale * problem.gram + torch.diag(problem.penalty)
    values = torch.linalg.eigvalsh(H)
    return v, GapCertificate(
        accepted=relative <= GAP_TOLERANCE,
        gap=gap,
        relative_gap=relative,
        tolerance=GAP_TOLERANCE,
        excess_loss=gap,
        loss=objective - 0.5 * float((problem.penalty * at.w**2).sum()),
        objective=objective,
        gradient_norm=math.hypot(float(at.gradient.norm()), 0.0 if at.held else at.by_scale),
        condition=float(values[-1] / values[0].clamp_min(_EPS * values[-1])),
        flat_directions=unseen,
        unique=False,
        reason="the duality gap",
    )


def _exact_gap(
    problem: _Joint, rows: KinkedRows, coordinates: Coordinates, v: Tensor, scale: float
) -> tuple[float, float]:
    """Return the gap at coefficients and a scale for the rows in twice the precision, and the objective there.

    At a scale the losses are kinked ones that are rounded. These kinked ones are at most epsilon times the objective.
    """
    weight, total, r = problem.weight, problem.total, residual(rows.t, rows.A, v)
    objective = problem.loss(scale, r) + rows.ridge(v)
    level = problem.epsilon * objective
    free = None if scale <= problem.smallest else weight
    gap, proof = rounded_proof(rows, coordinates, problem.penalty, v, scale / (2 * weight), level=level, weight=free)

    # What moving the scale is worth at this point of the dual.
    sizes = proof.u.square() / (4 * weight)
    slope = float((weight - sizes).sum()) - float((proof.low * (2 * proof.u + proof.low) / (4 * weight)).sum())
    rounding = problem.roundings * float((weight + sizes).sum())
    narrower = max(slope + rounding, 0.0) * scale
    wider = max(rounding - slope, 0.0) * max(objective / total - scale, 0.0)
    return gap + max(narrower, wider), objective


def _gap(problem: _Joint, at: _Point, left: Tensor) -> float:
    """Return the gap where the gradient by the coefficients is at most ``left``."""
    rounding = problem.roundings * float((problem.weight * (1 + at.u.square() / 4)).sum())
    slope = at.by_scale
    by_scale = max(slope + rounding, 0.0) * at.scale
    by_scale = max(by_scale, max(rounding - slope, 0.0) * max(at.objective / problem.total - at.scale, 0.0))
    return by_scale + min(_gap_by_outputs(problem, at, left), _gap_by_ridge(problem, at, left))


def _gap_by_outputs(problem: _Joint, at: _Point, left: Tensor) -> float:
    """Changes of outputs, times the weights, sum to at most the objective: residuals here and at the minimiser."""
    if problem.U.shape[0] < problem.U.shape[1]:
        return math.inf
    gap = float((problem.inverse.abs().T @ left).norm()) * at.objective
    return gap if math.isfinite(gap) else math.inf


def _gap_by_ridge(problem: _Joint, at: _Point, left: Tensor) -> float:
    """The ridge bends by itself; a bias is no further than any row and the weights that the ridge allows let it."""
    free, U = problem.penalty > 0, problem.U
    if not bool(free.any()):
        return math.inf
    gap = 0.5 * float((left[free] ** 2 / problem.penalty[free]).sum())
    if not bool(free.all()):
        lengths = (U[:, free] / problem.penalty[free].sqrt()).norm(dim=1) * math.sqrt(2 * at.objective)
        reach = float((problem.t.abs() + at.objective / (2 * problem.weight) + lengths).min()) / float(U[0, 0])
        gap += float(left[0]) * (reach + abs(float(at.w[0])))
    return gap


def _without_scale(problem: _Joint, coordinates: Coordinates, A: Tensor) -> tuple[Tensor, GapCertificate]:
    """Return the coefficients where the scale is no more than rounding: sizes of residuals are what is left to lose.

    Their dual point is one of the whole problem where the loss would not fall with a wider scale.
    """
    slopes = 2 * problem.epsilon * problem.weight
    rows = KinkedRows(A, problem.t, slopes, slopes, 2 * problem.strength * coordinates.free)
    fit = minimise_kinked(rows, coordinates, 2 * problem.strength)
    least = problem.smallest * problem.total
    squares = (fit.dual / problem.weight).square() / 4
    widens = float((problem.weight * (1 - squares)).sum())
    holds = widens >= -problem.roundings * float((problem.weight * (1 + squares)).sum())

    gap, objective = fit.gap + least if holds else math.inf, fit.objective + least
    relative = gap / max(objective, rows.moved(fit.v) / GAP_TOLERANCE, least / GAP_TOLERANCE)
    return fit.v, GapCertificate(
        accepted=relative <= GAP_TOLERANCE,
        gap=gap,
        relative_gap=relative,
        tolerance=GAP_TOLERANCE,
        excess_loss=gap,
        loss=fit.loss + least,
        objective=objective,
        gradient_norm=math.nan,
        condition=fit.condition,
        flat_directions=fit.flat,
        unique=False,
        reason=fit.reason or "the duality gap",
    )


def _solution(
    rows: Rows, weights: Weights, certificate: GapCertificate, held: bool, stages: list[Stage], started: float
) -> ConvexSolution:
    notes = list(rows.notes)
    if held:
        notes.append("the scale fell to rounding: so many rows are fitted exactly that there is no minimum above zero")
    if certificate.flat_directions:
        notes.append(unseen_note(certificate.flat_directions))
    outcome = Outcome.CERTIFIED_NOT_UNIQUE if certificate.flat_directions else Outcome.CERTIFIED

    return ConvexSolution(
        weight=round_to(weights.weight, rows.dtype),
        bias=None if weights.bias is None else weights.bias.to(rows.dtype),
        criterion="Huber's loss with its scale",
        certificate=certificate,
        outcome=outcome if certificate.accepted else Outcome.NOT_CERTIFIED,
        direction=None,
        steps=sum(stage.steps for stage in stages),
        passes=1,
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
        single_target=True,
        plan=ConvexPlan.of([*stages, *rounding_to(rows.dtype)]),
    )

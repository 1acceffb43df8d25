"""Squared shortfalls of margins whose minimum is a face: where classes are divided from some others, not from all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import final

import torch
from torch import Tensor

from closedform.engine.threads import one_thread
from closedform.fit.convex.certificate import GAP_TOLERANCE, Proof
from closedform.fit.convex.coordinates import Coordinates
from closedform.fit.convex.finish import shared_out
from closedform.fit.convex.kinked_proof import REFINEMENTS
from closedform.fit.convex.passes import counted_rows
from closedform.fit.convex.problem import ConvexProblem, Evaluation
from closedform.losses.multi_margin import MultiMargin
from closedform.losses.squared_hinge import SquaredHinge
from closedform.numerics.rank import default_rcond
from closedform.numerics.rational import solved_exactly
from closedform.numerics.twofold import LOST, twofold_product
from closedform.rows.walkers import InOrder

__all__ = ["face_proof"]

#: Shortfalls, in parts of the margin, from which on a row may hold the minimiser: those of divided rows are rounding.
_HOLDING = (1e-6, 1e-9, 1e-12)
#: Numbers of rows that hold, times unknowns, that are worth the proof.
_MOST_ENTRIES = 20_000_000
#: The same that are worth an elimination in rational arithmetic: a second or so.
_MOST_RATIONAL = 2_500
#: By how much weights are scaled up where the loss is but rounding: then every margin is wide enough.
_WIDER = 2.0**-7
_EPS = torch.finfo(torch.float64).eps


def face_proof(problem: ConvexProblem, theta: Tensor, null: Tensor, proof: Proof) -> tuple[Tensor, Proof]:
    r"""Prove coefficients at a minimum that need not be the only one; return them, and the better proof.

    Each margin is a row a with the loss :math:`\rho \max(0, m - a \theta)^2`, and any :math:`\alpha \ge 0` leaves it
    the duality gap :math:`\rho (d_+ - \alpha / 2 \rho)^2 + \alpha (d_+ - d)` with :math:`d = m - a \theta`
    (Rockafellar 1970, section 31). The slopes of the margins that are too narrow are such a point, moved until their
    sum is exactly what the ridge asks for. No Hessian has to be regular for that: outputs that rows which lose nothing
    alone tell apart are free.

    Args:
        problem: One with ``SquaredHingeLoss`` or ``MultiMarginLoss(p=2)``, its rows in memory.
        theta: Where a descent ended, ``(columns, outputs)``.
        null: Orthonormal directions along which no output changes, ``(columns, directions)``.
        proof: What is proven there so far.
    """
    whole, rows = problem.evaluate(_wider(problem, theta)), problem.rows
    if not whole.objective:
        return whole.theta, _told(problem, proof, whole, 0.0, _open_directions(problem, null), "no loss is below zero")
    if not rows.in_memory or not isinstance(rows.walker, InOrder):
        return theta, proof
    columns, (X, T, weight, _) = problem.columns, counted_rows(rows.gather())
    A = columns.unweighted(X)
    criterion, gap, level = problem.criterion, 0.0, 0
    ridge = min(problem.strengths) > 0
    if not ridge and any(problem.strengths):
        return theta, proof

    with one_thread(min(A.shape), A.device):
        coordinates = Coordinates.of(A, columns.scale, bias=columns.bias, ridge=ridge)
        if isinstance(criterion, MultiMargin):
            parts = [_pairs(criterion, A @ theta, T, weight)]
        else:
            assert isinstance(criterion, SquaredHinge)
            lost = criterion.value(A @ whole.theta, T).mul_(weight.unsqueeze(1)).sum(0)
            theta = torch.where((lost == 0) & (problem.penalty * whole.theta == 0).all(0), whole.theta, theta)
            parts = [_signs(criterion, A @ theta, T, weight, output) for output in range(problem.n_outputs)]
        for part in parts:
            face = _Face(problem, A, coordinates, theta[:, part.outputs], part)
            found = min((face.proven(least) for least in _HOLDING), key=lambda each: each.gap)
            gap, level = gap + found.gap, level + found.level

    reached = problem.evaluate(theta)
    if not gap < proof.gap:
        return theta, proof
    level = min(level, _open_directions(problem, null))
    return theta, _told(problem, proof, reached, gap, level, "the duality gap")


def _told(problem: ConvexProblem, proof: Proof, at: Evaluation, gap: float, level: int, reason: str) -> Proof:
    """Return what is proven at some coefficients; where the minimum is no face a Hessian may still be regular."""
    size = max(at.objective, torch.finfo(torch.float64).tiny)
    return replace(
        proof,
        gap=gap,
        size=size,
        loss=at.loss,
        objective=at.objective,
        gradient=problem.centred(at.gradient),
        condition=math.inf if level else proof.condition,
        reason=reason,
        definite=False,
        level=level if gap <= GAP_TOLERANCE * size else 0,
    )


def _open_directions(problem: ConvexProblem, null: Tensor) -> int:
    """Return how many directions there are that rows see, but for those in which a ridge bends the objective."""
    ridge, bias = min(problem.strengths) > 0, int(problem.columns.bias)
    each = bias if ridge else problem.n_columns - null.shape[1]
    return each * (problem.n_outputs - int(problem.criterion.coupled))


def _wider(problem: ConvexProblem, theta: Tensor) -> Tensor:
    """Return coefficients with which margins are a little wider; where a ridge is paid for them, those of the bias."""
    wider = (1 + _WIDER) * theta
    return torch.where(problem.penalty > 0, torch.zeros_like(wider), wider)


@final
@dataclass(frozen=True, eq=False)
class _Margins:
    """Some outputs, and the margins of rows that are asked of them.

    Attributes:
        outputs: Numbers of the outputs.
        rows: The row of each margin, ``(margins,)``.
        D: How outputs count in it, -1, 0 or 1, ``(margins, outputs)``.
        wanted: How wide they are to be.
        shortfall: What is missing, negative where a margin is wide enough, ``(margins,)``.
        rho: What a square of it costs, positive, ``(margins,)``.
        coupled: Whether a shift of all outputs changes no margin.
    """

    outputs: list[int]
    rows: Tensor
    D: Tensor
    wanted: float
    shortfall: Tensor
    rho: Tensor
    coupled: bool


def _signs(criterion: SquaredHinge, Z: Tensor, T: Tensor, weight: Tensor, output: int) -> _Margins:
    rho = 0.5 * criterion.curvatures(torch.zeros_like(T), T)[:, output] * weight
    rows = (rho > 0).nonzero().squeeze(1)
    sign = T[rows, output]
    return _Margins([output], rows, sign.unsqueeze(1), 1.0, 1 - sign * Z[rows, output], rho[rows], coupled=False)


def _pairs(criterion: MultiMargin, Z: Tensor, T: Tensor, weight: Tensor) -> _Margins:
    k, own = Z.shape[1], T[:, :1].to(torch.int64)
    factors = criterion.curvatures(torch.zeros_like(Z), T).scatter(1, own, 0.0).amax(1) / 2 * weight
    marks = torch.ones_like(Z, dtype=torch.bool).scatter(1, own, value=False) & (factors > 0).unsqueeze(1)
    rows, other = marks.nonzero().unbind(1)
    label = own[rows, 0]
    D = torch.nn.functional.one_hot(label, k).to(Z.dtype) - torch.nn.functional.one_hot(other, k).to(Z.dtype)
    shortfall = criterion.margin - Z[rows, label] + Z[rows, other]
    return _Margins(list(range(k)), rows, D, criterion.margin, shortfall, factors[rows], coupled=True)


@final
@dataclass(frozen=True)
class _Found:
    """A gap, and the dimension of the face of minimisers."""

    gap: float
    level: int


@final
class _Face:
    """Margins at some coefficients."""

    def __init__(
        self, problem: ConvexProblem, A: Tensor, coordinates: Coordinates, theta: Tensor, part: _Margins
    ) -> None:
        self.A, self.coordinates, self.theta, self.part = A, coordinates, theta, part
        self.penalty = problem.penalty[:, part.outputs]
        self.strength, self.bias = problem.strengths[part.outputs[0]], int(problem.columns.bias)
        #: What rounding may hide in a shortfall.
        sizes = (A.abs() @ theta.abs()).sum(1)[part.rows]
        self.hidden = (A.shape[1] + 4) * _EPS * (sizes + part.wanted)

    def proven(self, least: float) -> _Found:
        """Return what margins prove of which at least a part of that width is missing."""
        part, K = self.part, self.theta.shape[1]
        bound = torch.maximum(self.hidden * 4, torch.full_like(self.hidden, least * part.wanted))
        holding = part.shortfall > bound
        x = torch.where(holding, 0.0, part.shortfall.clamp_min(0)) + self.hidden
        over = float((part.rho * x.square())[~holding].sum())
        U = self.coordinates.U
        if int(holding.sum()) * U.shape[1] * K > _MOST_ENTRIES:
            return _Found(math.inf, 0)

        rows, D, rho, d = part.rows[holding], part.D[holding], part.rho[holding], part.shortfall[holding]
        seen = self._seen(D)
        held = _Held(self, rows, D, rho, d, self.hidden[holding], seen)
        near = part.shortfall > -bound
        return _Found(over + held.gap(), self._open(part.rows[near], part.D[near]))

    def _seen(self, D: Tensor) -> Tensor:
        """Return which outputs are held, but for one of those that margins tell apart from each other."""
        touched = (D != 0).any(0)
        if not self.part.coupled:
            return touched
        groups = torch.arange(D.shape[1], device=D.device)
        pairs = torch.unique((D != 0).nonzero()[:, 1].reshape(-1, 2), dim=0).tolist()
        for _ in range(D.shape[1]):
            for one, other in pairs:
                groups[[one, other]] = groups[[one, other]].min()
        first = groups == torch.arange(D.shape[1], device=D.device)
        return touched & ~first

    def _open(self, rows: Tensor, D: Tensor) -> int:
        """Return how many directions these margins leave open: of all coordinates, with a ridge of the biases."""
        seen, U = self._seen(D), self.coordinates.U[rows]
        U = U[:, : self.bias] if self.strength else U
        every = U.shape[1] * (D.shape[1] - int(self.part.coupled))
        if not every or U.shape[0] * every > _MOST_ENTRIES:
            return 0
        E = _products(D[:, seen], U)
        return every - (int(torch.linalg.matrix_rank(E)) if E.numel() else 0)


def _products(D: Tensor, U: Tensor) -> Tensor:
    """Return the rows of margins by coordinates and outputs, ``(margins, coordinates * outputs)``."""
    return (U.unsqueeze(2) * D.unsqueeze(1)).flatten(1)


@final
class _Held:
    """The margins that hold a minimiser, and a point of the dual on them."""

    def __init__(
        self, face: _Face, rows: Tensor, D: Tensor, rho: Tensor, d: Tensor, hidden: Tensor, seen: Tensor
    ) -> None:
        self.face, self.D, self.rho, self.d, self.hidden, self.seen = face, D, rho, d, hidden, seen
        self.A, self.U = face.A[rows], face.coordinates.U[rows]
        self.bent = face.penalty * face.theta
        self.alpha, self.low = 2 * rho * d, torch.zeros_like(d)

    def gap(self) -> float:
        """Return the gap that these margins leave, inf where nothing is proven."""
        face, coordinates = self.face, self.face.coordinates
        if not self.D.shape[0]:
            return 0.5 * float((self.bent * face.theta).sum())
        ridge = face.strength > 0
        # With a ridge every output has weights; without one those of one output of a group are differences.
        columns = torch.ones_like(self.seen) if ridge else self.seen
        E = _products(self.D[:, columns], self.U)
        penalty = (face.strength * coordinates.penalised).unsqueeze(1).expand(-1, int(columns.sum())).reshape(-1)
        for step in range(REFINEMENTS):
            left, _ = self._left()
            wanted = self._lowered(left)[:, columns].reshape(-1)
            change = shared_out(E, 1 / (2 * self.rho), penalty, wanted)
            if step:
                self.low += change
            else:
                self.alpha = (self.alpha + change).clamp_min(0)
        left, error = self._left()
        return self._with_ridge(left.abs() + error) if ridge else self._without_ridge(E, left.abs() + error)

    def _lowered(self, left: Tensor) -> Tensor:
        lift = self.face.coordinates.lift
        return left if lift is None else lift.T @ left

    def _left(self) -> tuple[Tensor, Tensor]:
        """Return the gradient of the ridge less the sum of the dual point, and a bound on what is missed of it."""
        turned, parts, errors = self.A.T.contiguous(), [], []
        for output in range(self.D.shape[1]):
            sign = self.D[:, output]
            high, rest = twofold_product(turned, self.alpha * sign, self.low * sign)
            parts.append((self.bent[:, output] - high) - rest)
            errors.append(LOST * (turned.abs() @ (self.alpha * sign.abs())))
        left = torch.stack(parts, 1)
        return left, torch.stack(errors, 1) + 4 * _EPS * (left.abs() + self.bent.abs())

    def _slack(self, moved: float) -> float:
        """Return the gap of the margins, where the dual point still moves by a vector of that norm; inf if too far."""
        if not bool((self.alpha + self.low > moved).all()):
            return math.inf
        x = (self.d - (self.alpha + self.low) / (2 * self.rho)).abs() + self.hidden
        slack = float((self.rho * x * x).sum()) + moved * float(x.norm()) + moved**2 / (4 * float(self.rho.min()))
        return slack * (1 + (len(x) + 8) * _EPS)

    def _with_ridge(self, left: Tensor) -> float:
        """Return the gap by the ridge, once the dual point has moved so that biases have no gradient."""
        face, moved = self.face, 0.0
        bias, penalty = face.bias, face.penalty
        if bias and bool(self.seen.any()):
            B = self.D[:, self.seen] * self.A[:, :1]
            values = torch.linalg.svdvals(B)
            if B.shape[0] < B.shape[1] or not float(values[-1]) > default_rcond(*B.shape) * float(values[0]):
                return math.inf
            moved = float(left[0, self.seen].norm()) / float(values[-1]) * (1 + 1e-6)
        sizes = torch.stack([(self.A * sign.unsqueeze(1)).norm(dim=0) for sign in self.D.unbind(1)], 1)
        left = left[bias:] + moved * sizes[bias:]
        return self._slack(moved) + 0.5 * float((left * left / penalty[bias:]).sum())

    def _without_ridge(self, E: Tensor, left: Tensor) -> float:
        """Return the gap where the margins determine every coordinate that they see, or else vanish exactly."""
        values, lift = torch.linalg.svdvals(E), self.face.coordinates.lift
        # The coordinates are computed: what they tell of the rows is off by this much.
        lost = _EPS * E.shape[1] * float(values[0])
        if lift is not None:
            lost += _EPS * E.shape[1] * float(self.A.norm()) * float(lift.norm())
        least = float(values[-1]) - lost if E.shape[0] >= E.shape[1] else 0.0
        if least > default_rcond(*E.shape) * float(values[0]):
            missed = left if lift is None else lift.abs().T @ left
            return self._slack(float(missed[:, self.seen].norm()) / least)
        return self._exactly()

    def _exactly(self) -> float:
        """Return the gap once the dual point has moved, in rational arithmetic, to where no gradient is left."""
        if self.A.numel() * self.D.shape[1] > _MOST_RATIONAL:
            return math.inf
        products = _products(self.D, self.A)
        dual = [Fraction(value) for value in self.alpha.tolist()]
        missed = [
            -sum((Fraction(a) * u for a, u in zip(column, dual, strict=True)), Fraction(0))
            for column in products.T.tolist()
        ]
        moved = solved_exactly(products.T.tolist(), missed)
        if moved is None:
            return math.inf
        self.low = torch.zeros_like(self.low)
        return self._slack((1 + 4 * _EPS) * math.hypot(*map(float, moved)))

"""The certificate of a convex fit: a proven bound on how far the loss can still fall, by a pass of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.sums import RowLengths
from closedform.fit.convex.passes import add_gram_, formula_of, outputs_of, pieces, totals_of
from closedform.fit.convex.problem import ConvexProblem
from closedform.losses import Criterion
from closedform.losses.formula import Formula
from closedform.numerics.symmetric import mirror
from closedform.rows import Block, PeakedSumFold
from closedform.rows.block import Extent
from closedform.rows.columns import Columns
from closedform.words.json_values import plain
from closedform.words.numbers import plural

__all__ = ["GAP_TOLERANCE", "GapCertificate", "Proof", "prove"]

#: The largest proven excess, relative to the size of the loss, at which weights are accepted.
GAP_TOLERANCE = 1e-10
#: How uncertain the Hessian may be, relative to itself, for a bound that divides by it.
_MOST_UNCERTAIN = 0.1
#: Rows of a block: sums over more lose more digits, and smaller blocks cost calls.
_PROOF_ROWS = 1024
#: Rows whose curvature is enough for a bound, and how many of them for each column.
_GRAM_ROWS = 8192
_ROWS_A_COLUMN = 64
#: Roundings of a row's slope beyond those of its output: exponentials, logarithms, a few products.
_FEW = 32
#: Outputs up to which each has a Gram matrix of its own; more share the smallest curvature of each row.
_MOST_GRAMS = 32
_EPS = torch.finfo(torch.float64).eps


@final
@dataclass(frozen=True)
class GapCertificate:
    """What a fresh pass over the rows proves of weights, for a convex criterion.

    Attributes:
        accepted: Whether ``relative_gap`` is at most ``tolerance``, so that a minimum is attained and this is it.
        gap: Proven upper bound on the objective less its minimum; inf where nothing could be proven. The objective is
            the sum of the (weighted) row losses and ``l2 / 2 * |weight|^2``.
        relative_gap: The same relative to the sum of the sizes of the row losses and the penalty; for losses with
            kinks relative to the objective, or to 1e10 times what rounding the weights to float64 moves it by where
            that is more, so that an exact fit is accepted where its residuals are that rounding (so it is for Huber's).
        tolerance: What ``relative_gap`` is held against.
        excess_loss: The gap in the units of the criterion: divided by what its mean divides by.
        loss: The criterion at the weights, as torch computes it, without the penalty.
        objective: The objective.
        gradient_norm: Euclidean norm of its gradient, in the user's units; nan for losses with kinks.
        condition: Condition number of the Hessian there in scaled columns, of a lower bound for coupled outputs; inf
            where it is singular.
        flat_directions: Dimension of the directions along which the rows bend the loss of no output; a shift of all
            classes is not counted.
        unique: Whether the minimiser is proven to be the only one (of classes up to that shift).
        reason: What the bound rests on, or why there is none.
    """

    accepted: bool
    gap: float
    relative_gap: float
    tolerance: float
    excess_loss: float
    loss: float
    objective: float
    gradient_norm: float
    condition: float
    flat_directions: int
    unique: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain numbers and strings for JSON; what is not finite becomes None."""
        return plain(self)

    def __str__(self) -> str:
        verdict = "accepted" if self.accepted else "refused"
        flat = f", {plural(self.flat_directions, 'flat direction')}" if self.flat_directions else ""
        bound = (
            f"at most {self.gap:.1e} ({self.relative_gap:.1e} relative)" if math.isfinite(self.gap) else "not bounded"
        )
        slope = "" if math.isnan(self.gradient_norm) else f", gradient norm {self.gradient_norm:.1e}"
        return (
            f"{verdict}: excess of the objective {bound}, {self.reason}\n"
            f"condition of the Hessian {self.condition:.2g}{flat}\n"
            f"loss {self.loss:.6g}{slope}"
        )


@final
@dataclass(frozen=True, eq=False)
class Proof:
    """What could be proven: a bound on the excess, and the numbers it rests on.

    Attributes:
        level: Dimension of a face of minimisers that the coefficients are a point of; 0 where none was found.
    """

    gap: float
    size: float
    loss: float
    objective: float
    gradient: Tensor
    condition: float
    reason: str
    definite: bool
    level: int = 0

    @property
    def relative_gap(self) -> float:
        """The bound relative to the sizes of the row losses and the penalty."""
        return self.gap / max(self.size, torch.finfo(torch.float64).tiny)

    @property
    def accepted(self) -> bool:
        """Whether it is small enough."""
        return self.relative_gap <= GAP_TOLERANCE


@final
class _ProofSums(PeakedSumFold):
    """Loss, sizes, gradient and bounds on its rounding, with lower bounds on the Hessian of each group of outputs.

    Args:
        criterion: The criterion.
        columns: The design matrix.
        theta: Coefficients.
        groups: How many Gram matrices there are.
        every: One block of so many adds to them: fewer rows bend the loss less, so that the bound holds.
    """

    label = "certifying"

    def __init__(self, criterion: Criterion, columns: Columns, theta: Tensor, groups: int, every: int = 1) -> None:
        self._criterion, self._columns, self._theta, self._groups = criterion, columns, theta, groups
        self._every = every
        # Compiled loops take the squares of numbers and scales apart, which have to stay in the range of float64.
        squares = columns.feature_scale.square()
        in_range = bool((torch.isfinite(squares) & (squares > 0)).all())
        self._formula = formula_of(criterion, theta.shape[1]) if in_range else None
        self.as_stored = self._formula is not None  # type: ignore[misc]
        V, offset = columns.raw(theta)
        self._at = V.T.contiguous(), offset
        self._length = torch.linalg.vector_norm(theta, dim=0)
        self.numbers = theta.new_zeros(2)
        self.gradient = torch.zeros_like(theta)
        self.errors = theta.new_zeros(theta.shape[1])
        self.grams = theta.new_zeros(groups, theta.shape[0], theta.shape[0])
        self.peak = theta.new_zeros(1)

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return _PROOF_ROWS if self._formula is None else extent.pass_rows

    @override
    def add(self, block: Block) -> None:
        if self._formula is None:
            bends = block.start // _PROOF_ROWS % self._every == 0
            self._add(block, bends=bends)
        elif block.engine.sums_losses:
            self._add_compiled(block, self._formula)
            for piece in pieces(block, _PROOF_ROWS, self._every):
                self._bend(piece, outputs_of(piece.X, *self._at))
        else:
            for number, piece in enumerate(pieces(block, _PROOF_ROWS)):
                self._add(piece, bends=number % self._every == 0)

    def _add_compiled(self, block: Block, formula: Formula) -> None:
        """Add all but the lower bounds on the Hessian, by compiled loops."""
        columns = self._columns
        own = float(columns.scale[0]) ** 2 if columns.bias else 0.0
        lengths = RowLengths(columns.feature_scale.square(), own, float(self._length), _FEW)
        sums = totals_of(block, formula, self._at, lengths=lengths)
        self.numbers += sums.losses
        self.errors += sums.errors
        self.peak = torch.maximum(self.peak, sums.peak)
        self._add_gradient(sums.features.unsqueeze(0), sums.ones)

    def _add(self, block: Block, *, bends: bool) -> None:
        criterion, T, columns = self._criterion, block.Y, self._columns
        Z = outputs_of(block.X, *self._at)
        values, slopes, curvatures = criterion.evaluate(Z, T)
        lengths = (block.X * columns.feature_scale).square_().sum(1)
        if columns.bias:
            lengths += columns.scale[0].square()

        sizes = slopes.abs() * _FEW
        if criterion.coupled:
            sizes = sizes.sum(1, keepdim=True)
        sizes = sizes + criterion.slope_changes(curvatures, lengths.sqrt().unsqueeze(1) * self._length)
        weight = torch.ones_like(values) if block.weight is None else block.weight
        self.numbers += torch.stack([(values * weight).sum(), (values.abs() * weight).sum()])
        self.errors += (sizes.square() * weight.unsqueeze(1)).sum(0)
        counted = weight > 0
        if bool(counted.any()):
            self.peak = torch.maximum(self.peak, lengths[counted].max().reshape(1))

        slopes = slopes * weight.unsqueeze(1)
        self._add_gradient(slopes.T @ block.X, slopes.sum(0))
        if bends:
            self._bend(block, Z)

    def _add_gradient(self, features: Tensor, ones: Tensor) -> None:
        columns = self._columns
        gradient = features.T * columns.feature_scale.unsqueeze(1)
        if columns.bias:
            gradient = torch.cat([(ones * columns.scale[0]).unsqueeze(0), gradient])
        self.gradient += gradient

    def _bend(self, block: Block, Z: Tensor) -> None:
        """Add the lower bounds on the Hessian of some rows with outputs Z."""
        weight = torch.ones_like(Z[:, 0]) if block.weight is None else block.weight
        least = self._criterion.least_curvature(Z, block.Y)
        if least.shape[1] != self._groups:
            least = least.amin(1, keepdim=True)
        for group in range(self._groups):
            add_gram_(self.grams[group], self._columns, block, least[:, group] * weight)

    @override
    def fresh(self) -> Self:
        return type(self)(self._criterion, self._columns, self._theta, self._groups, self._every)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self.numbers, self.gradient, self.errors, self.grams


def prove(problem: ConvexProblem, theta: Tensor, null: Tensor, norms: Tensor, *, gram: Tensor | None = None) -> Proof:
    r"""Bound the excess of the objective at some coefficients.

    Let H bound the Hessian from below while no output moves by more than a radius r, g be the gradient, and S the
    largest change of an output that a step of length 1 in the norm of H makes. With :math:`\lambda^2 = g' H^{-1} g`,
    and if :math:`2 \lambda S \le r`, the objective is at least its present value on the sphere of radius
    :math:`2 \lambda`, so that by convexity a minimum is attained inside, no lower than by :math:`\lambda^2 / 2`. With
    a ridge on every coefficient :math:`|g|^2 / (2 l_2)` is a bound as well: the duality gap at the slopes as dual.
    Rounding in g is bounded by the sizes of its terms and added to it. Any of the rows bend the loss less than all of
    them, so that where these are many H is summed over some, and over all if that proves too little.

    Args:
        problem: What is minimised.
        theta: Coefficients.
        null: Orthonormal directions in which no output changes, ``(columns, directions)``.
        norms: Norms of the scaled columns with sample weights, ``(columns,)``.
        gram: A weighted Gram matrix of all rows near there, whose condition is told where H is summed over some; None
            for H over all rows.
    """
    every = 1 if gram is None else max(1, problem.rows.n_rows // max(_GRAM_ROWS, _ROWS_A_COLUMN * problem.n_columns))
    proof = _prove(problem, theta, null, norms, every)
    if gram is None or every == 1:
        return proof
    if not proof.accepted:
        return _prove(problem, theta, null, norms, 1)
    values = torch.linalg.eigvalsh(gram + torch.diag(problem.penalty.mean(1)))[null.shape[1] :]
    return replace(proof, condition=float(values[-1] / values[0].clamp_min(_EPS * values[-1])))


def _prove(problem: ConvexProblem, theta: Tensor, null: Tensor, norms: Tensor, every: int) -> Proof:
    """Bound the excess with the curvature of one block of rows of so many."""
    criterion, k = problem.criterion, problem.n_outputs
    groups = 1 if criterion.coupled or k > _MOST_GRAMS else k
    sums = problem.rows.walk(_ProofSums(criterion, problem.columns, theta, groups, every))
    penalty = problem.penalty
    gradient = sums.gradient + penalty * theta
    loss, magnitude = (float(value) for value in sums.numbers)
    paid = 0.5 * float((penalty * theta * theta).sum())
    objective = loss + paid

    blocks = math.ceil(problem.rows.n_rows / min(_PROOF_ROWS, problem.rows.extent.pass_rows))
    roundings = (min(_PROOF_ROWS, problem.rows.n_rows) + blocks + problem.n_columns + _FEW) * _EPS
    error = roundings * norms.unsqueeze(1) * sums.errors.sqrt().unsqueeze(0) + 4 * _EPS * (penalty * theta).abs()
    shift = 0.0
    if criterion.coupled:
        # The shift of all classes bends by the ridge alone, and its gradient is known without cancellation.
        shift = 0.5 * k * float((penalty[:, :1] * theta.mean(1, keepdim=True) ** 2).sum())
        gradient = gradient - gradient.mean(1, keepdim=True)
    free = gradient - null @ (null.T @ gradient)

    gap, reason = math.inf, ""
    if not bool((penalty == 0).any()):
        gap = 0.5 * float(((gradient.abs() + error).square() / penalty).sum()) + shift
        reason = "the duality gap"
    local, condition, why = _local_bound(problem, free, error, sums, null, roundings)
    definite = math.isfinite(local) or not bool((penalty == 0).any())
    if local + shift < gap:
        gap, reason = local + shift, "by the curvature around the weights"
    return Proof(gap, magnitude + paid, loss, objective, gradient, condition, reason or why, definite)


def _local_bound(
    problem: ConvexProblem, gradient: Tensor, error: Tensor, sums: _ProofSums, null: Tensor, roundings: float
) -> tuple[float, float, str]:
    """Return the bound by curvature, the condition of the Hessian, and why there is no bound."""
    k, groups = problem.n_outputs, sums.grams.shape[0]
    least, squared, condition = math.inf, 0.0, 1.0
    for group in range(groups):
        # Outputs that share a bound on the Hessian share its factor.
        shared = slice(group, group + 1) if groups > 1 else slice(0, k)
        H = mirror(sums.grams[group]) + torch.diag(problem.penalty[:, shared].amin(1))
        if not bool(problem.penalty[-1, shared].amin()):
            H += null @ null.T * (float(H.diagonal().mean()) or 1.0)
        factor, broken = torch.linalg.cholesky_ex(H)
        if int(broken):
            return math.inf, math.inf, "the Hessian there is singular up to rounding"

        inverse = torch.linalg.solve_triangular(factor, torch.eye(H.shape[0], dtype=H.dtype, device="cpu"), upper=False)
        size = float(inverse.square().sum())
        doubt = roundings * float(H.diagonal().sum()) * size
        if doubt > _MOST_UNCERTAIN:
            return math.inf, float(H.diagonal().sum()) * size, "the Hessian there is singular up to rounding"
        columns = (inverse @ gradient[:, shared]).abs() + inverse.abs() @ error[:, shared]
        squared += float(columns.square().sum()) / (1 - doubt)
        least = min(least, (1 - doubt) / size)
        values = torch.linalg.eigvalsh(H)
        condition = max(condition, float(values[-1] / values[0].clamp_min(_EPS * values[-1])))

    reach = math.sqrt(float(sums.peak) / least) * (math.sqrt(2) if problem.criterion.coupled else 1.0)
    moved = 2 * math.sqrt(squared) * reach
    if not moved <= problem.criterion.radius:
        return math.inf, condition, f"outputs could move by {moved:.1e}, further than the curvature is known"
    return 0.5 * squared, condition, ""

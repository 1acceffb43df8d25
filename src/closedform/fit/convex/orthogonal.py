"""Newton steps, and a proof, in an orthonormal basis of what the columns span: nothing squares their condition."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.convex.certificate import Proof
from closedform.fit.convex.newton import search
from closedform.fit.convex.problem import ConvexProblem
from closedform.losses import Criterion
from closedform.numerics.rank import decide_rank, default_rcond
from closedform.numerics.twofold import LOST, twofold_product
from closedform.rows import Block, Design, PeakedSumFold
from closedform.rows.block import Extent

__all__ = ["Basis", "fits", "sharpened"]

#: Unknowns up to which the whole Hessian of coupled outputs, and that of one output, is factored.
_MOST_UNKNOWNS = 1536
#: Multiplications for one Hessian up to which it is worth forming: some two seconds.
_MOST_WORK = 4e10
#: Entries of rows times unknowns that are worth products in twice the precision.
_MOST_TWOFOLD = 5e7
#: Condition number of the columns from which outputs need them.
_ILL_CONDITIONED = 1e3
#: Newton steps that a descent which has already ended is given.
_STEPS = 30
#: Squared decrement, relative to the size of the loss, at which a whole step needs no line search.
_WHOLE = 1e-13
#: The same at which there is nothing left to gain.
_DONE = 1e-24
#: Part of the decrement before that is left from which on rounding rules.
_STUCK = 0.5
#: Shift of a singular Hessian, relative to its mean diagonal. It bends steps and no minimum.
_SHIFT = 1e-10
#: How uncertain the Hessian may be, relative to itself.
_MOST_UNCERTAIN = 0.1
#: Parts of its radius that the proof of a loss with kinks in its slope is tried for.
_NARROWER = (1e-3, 1e-6, 1e-9)
#: Rows of a block: sums over more lose more digits.
_BLOCK_ROWS = 1024
#: Roundings of a row's slope beyond those of its output.
_FEW = 32
_EPS = torch.finfo(torch.float64).eps
_TINY = torch.finfo(torch.float64).tiny


@final
@dataclass(frozen=True, eq=False)
class Basis:
    """Coefficients whose outputs are orthonormal columns, up to rounding.

    Attributes:
        lift: ``(columns, coordinates)``: coefficients are ``lift`` times coordinates.
        values: Singular values of the columns (with a ridge: of the root of the Hessian, about), descending,
            ``(coordinates,)``.
        right: Their right singular vectors, ``(columns, coordinates)``.
    """

    lift: Tensor
    values: Tensor
    right: Tensor

    @staticmethod
    def of(design: Design, problem: ConvexProblem, theta: Tensor) -> Basis | None:
        """Return the basis for a design; None where some outputs have a ridge, others none, and columns are dependent.

        Args:
            design: The rows, scanned.
            problem: The problem on them.
            theta: Coefficients at which rows and ridge are weighed against each other.
        """
        R = design.triangle.padded().R
        ridge = min(problem.strengths) > 0
        if ridge:
            bent = float(problem.gram(theta).diagonal().sum()) / max(float(R.square().sum()), _TINY)
            R = torch.cat([R * math.sqrt(bent or 1.0), torch.diag(problem.penalty.mean(1).sqrt())])
        _, values, right = torch.linalg.svd(R, full_matrices=False)
        count = problem.n_columns
        rank = decide_rank(values, count, default_rcond(design.rows.n_rows, count)).rank
        if ridge:
            rank = int((values > 0).sum())
        if not rank or (rank < count and any(problem.strengths)):
            return None
        kept = right[:rank].T
        return Basis(kept / values[:rank], values[:rank], kept)

    @property
    def condition(self) -> float:
        """Ratio of the extreme singular values."""
        return float(self.values[0] / self.values[-1])

    def needs_twofold(self, problem: ConvexProblem) -> bool:
        """Say whether outputs need twice the precision, and rows are few enough for it.

        Args:
            problem: The problem.
        """
        entries = problem.rows.n_rows * problem.n_columns * (problem.n_columns + problem.n_outputs)
        return self.condition > _ILL_CONDITIONED and entries <= _MOST_TWOFOLD

    def arithmetic(self, problem: ConvexProblem) -> str:
        """Return in words which precision outputs are computed in.

        Args:
            problem: The problem.
        """
        return "in twice the precision" if self.needs_twofold(problem) else "in float64"


def fits(problem: ConvexProblem) -> bool:
    """Say whether the whole Hessian is small enough to be formed and factored."""
    k, c = problem.n_outputs, problem.n_columns
    coupled = problem.criterion.coupled
    unknowns, pairs = (k * c, k * (k + 1) // 2) if coupled else (c, k)
    return unknowns <= _MOST_UNKNOWNS and problem.rows.n_rows * c**2 * pairs <= _MOST_WORK


def sharpened(
    problem: ConvexProblem, basis: Basis, theta: Tensor, *, most_steps: int = _STEPS
) -> tuple[Tensor, Proof, int]:
    r"""Take Newton steps with the whole Hessian in orthonormal coordinates; return coefficients, what is proven, steps.

    With coordinates w and outputs ``U w``, the Hessian ``U' C U`` is as well conditioned as the curvatures of the rows
    are alike, whatever the columns are. Where these are far from orthogonal, U and the outputs are computed in twice
    the precision (Ogita, Rump and Oishi 2005). The proof is that of :func:`closedform.fit.convex.certificate.prove`,
    with the Hessian of all outputs together.

    Args:
        problem: What is minimised.
        basis: Of its columns.
        theta: Coefficients to start from, ``(columns, outputs)``.
        most_steps: Newton steps at most.
    """
    exactly = basis.needs_twofold(problem)

    def local(theta: Tensor, *, bound: bool) -> _Local:
        fold = _Sums(problem, problem.criterion, theta, basis.lift, exactly=exactly, bound=bound)
        return _Local(problem, basis, theta, problem.rows.walk(fold))

    def proven(theta: Tensor, criterion: Criterion) -> Proof:
        fold = _Sums(problem, criterion, theta, basis.lift, exactly=exactly, bound=True)
        return _Local(problem, basis, theta, problem.rows.walk(fold)).proof(criterion.radius)

    at, steps, last = local(theta, bound=False), 0, math.inf
    best = at
    for _ in range(most_steps):
        decrement, direction = at.newton()
        if decrement < best.decrement or at is best:
            best = at
        near = decrement**2 <= _WHOLE * at.size
        if decrement**2 <= _DONE * at.size or not math.isfinite(decrement) or (near and decrement > _STUCK * last):
            break
        if near:
            theta = at.theta + direction
        else:
            taken, _ = search(problem, problem.evaluate(at.theta), direction)
            if taken is None:
                break
            theta = taken.theta
        steps, last = steps + 1, decrement if near else math.inf
        at = local(problem.centred(theta), bound=False)
    proof = proven(best.theta, problem.criterion)
    for part in () if problem.criterion.smooth else _NARROWER:
        if proof.accepted:
            break
        # Rows nearer to a kink than the radius count for nothing, and what outputs may move by is far less.
        criterion = copy.copy(problem.criterion)
        criterion.radius *= part
        narrower = proven(best.theta, criterion)
        proof = narrower if narrower.gap < proof.gap else proof
    return best.theta, proof, steps


@final
class _Sums(PeakedSumFold):
    """Loss, gradient and Hessian by coordinates, with the sizes of what rounding may have changed.

    Args:
        problem: What is minimised.
        criterion: Its criterion, perhaps with a smaller radius.
        theta: Coefficients, ``(columns, outputs)``.
        lift: ``(columns, coordinates)``.
        exactly: Whether outputs are computed in twice the precision.
        bound: Whether the Hessian is to be a lower bound nearby, not that at these coefficients.

    Attributes:
        roundings: Of a sum over all rows, in parts of the sum of the sizes.
        numbers: Loss, sizes of losses, and what rounding of the coordinates may take from the Hessian.
        gradient: By the coordinates, ``(coordinates, outputs)``.
        errors: Bounds on its rounding.
        hessian: ``(outputs, r, r)``, of coupled outputs ``(r, outputs, r, outputs)``.
        peak: The largest norm of a row's coordinates.
    """

    as_stored = False
    label = "certifying"

    def __init__(
        self,
        problem: ConvexProblem,
        criterion: Criterion,
        theta: Tensor,
        lift: Tensor,
        *,
        exactly: bool,
        bound: bool,
    ) -> None:
        self._problem, self._criterion, self._theta, self._lift = problem, criterion, theta, lift
        self._exactly, self._bound = exactly, bound
        n_rows = problem.rows.n_rows
        self.roundings = (min(_BLOCK_ROWS, n_rows) + math.ceil(n_rows / _BLOCK_ROWS) + _FEW) * _EPS
        r, k = lift.shape[1], theta.shape[1]
        self.numbers = theta.new_zeros(3)
        self.gradient, self.errors = theta.new_zeros(r, k), theta.new_zeros(r, k)
        self.hessian = theta.new_zeros((r, k, r, k) if criterion.coupled else (k, r, r))
        self.peak = theta.new_zeros(1)

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return _BLOCK_ROWS

    def _product(self, A: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``A V`` and how far, at most, rounding has moved its entries, ``(rows, columns of V)``."""
        sizes = A.norm(dim=1, keepdim=True) * V.norm(dim=0)
        if not self._exactly:
            return A @ V, (A.shape[1] + 4) * _EPS * sizes
        products = torch.stack([twofold_product(A, column)[0] for column in V.T], 1)
        return products, _EPS * products.abs() + LOST * sizes

    @override
    def add(self, block: Block) -> None:
        criterion, columns, T = self._criterion, self._problem.columns, block.Y
        weight = torch.ones_like(T[:, 0]) if block.weight is None else block.weight
        A = columns.unweighted(block.X)
        U, around = self._product(A, self._lift)
        Z, moved = self._product(A, self._theta)
        values, slopes, C = criterion.evaluate(Z, T)
        bends = criterion.diagonal(C)
        doubt = _FEW * _EPS * slopes.abs() + bends.amax(1, keepdim=True) * moved
        if criterion.coupled:
            doubt = doubt.sum(1, keepdim=True).expand_as(slopes)

        weighted, apart = slopes * weight.unsqueeze(1), around.norm(dim=1)
        self.gradient += U.T @ weighted
        rounded = (doubt + self.roundings * slopes.abs()) * weight.unsqueeze(1)
        self.errors += U.abs().T @ rounded + (apart.unsqueeze(1) * weighted.abs()).sum(0)
        most = bends.sum(1) if criterion.coupled else bends.amax(1)
        self.numbers += torch.stack(
            [
                (values * weight).sum(),
                (values.abs() * weight).sum(),
                (most * weight * apart.square()).sum(),
            ]
        )
        counted = weight > 0
        if bool(counted.any()):
            self.peak = torch.maximum(self.peak, (U.norm(dim=1) + apart)[counted].max().reshape(1))
        C = criterion.least_curvatures(Z, T) if self._bound else C
        self._add_hessian(U, C * weight.unsqueeze(1))

    def _add_hessian(self, U: Tensor, C: Tensor) -> None:
        criterion, k = self._criterion, C.shape[1]
        if not criterion.coupled:
            for output in range(k):
                self.hessian[output] += U.T @ (C[:, output : output + 1] * U)
            return
        for output in range(k):
            unit = torch.zeros_like(C)
            unit[:, output] = 1
            bent = criterion.product(C, unit)
            for other in range(output + 1):
                part = U.T @ (bent[:, other : other + 1] * U)
                self.hessian[:, other, :, output] += part
                if other != output:
                    self.hessian[:, output, :, other] += part

    @override
    def fresh(self) -> Self:
        return type(self)(
            self._problem, self._criterion, self._theta, self._lift, exactly=self._exactly, bound=self._bound
        )

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self.numbers, self.gradient, self.errors, self.hessian


@final
class _Local:
    """The objective around some coefficients, in coordinates."""

    def __init__(self, problem: ConvexProblem, basis: Basis, theta: Tensor, sums: _Sums) -> None:
        self._problem, self._basis, self.theta, self._sums = problem, basis, theta, sums
        bent = problem.penalty * theta
        self.loss, magnitude = (float(value) for value in sums.numbers[:2])
        paid = 0.5 * float((bent * theta).sum())
        self.objective, self.size = self.loss + paid, max(magnitude + paid, _TINY)
        self.gradient = self._centred(sums.gradient + basis.lift.T @ bent)
        self.decrement = math.inf

    def _centred(self, g: Tensor) -> Tensor:
        return g - g.mean(1, keepdim=True) if self._problem.criterion.coupled else g

    def _matrices(self) -> Tensor:
        """Return the Hessian with its ridge as symmetric matrices, ``(outputs, r, r)`` or ``(1, r * outputs, ...)``."""
        lift, penalty, H = self._basis.lift, self._problem.penalty, self._sums.hessian
        k, r = penalty.shape[1], lift.shape[1]
        if not self._problem.criterion.coupled:
            H = H + torch.stack([lift.T @ (penalty[:, output : output + 1] * lift) for output in range(k)])
            return 0.5 * (H + H.mT)
        ridge = lift.T @ (penalty[:, :1] * lift)
        whole = H.reshape(r * k, r * k) + torch.kron(ridge, torch.eye(k, dtype=H.dtype, device=H.device))
        # Along a shift of all outputs only the ridge bends, and no step is asked for.
        mean = float(whole.diagonal().mean())
        shifts = torch.kron(torch.eye(r, dtype=H.dtype, device=H.device), H.new_full((k, k), mean / k))
        return (0.5 * (whole + whole.T) + shifts).unsqueeze(0)

    def _split(self, g: Tensor) -> Tensor:
        """Return a gradient ``(r, outputs)`` as one column for each matrix."""
        return g.reshape(1, -1, 1) if self._problem.criterion.coupled else g.T.unsqueeze(2)

    def newton(self) -> tuple[float, Tensor]:
        """Return the decrement and the Newton direction of the coefficients."""
        H, g = self._matrices(), self._split(self.gradient)
        usual, shift = float(H.diagonal(dim1=1, dim2=2).mean()), 0.0
        eye = torch.eye(H.shape[1], dtype=H.dtype, device=H.device)
        while True:
            factor, broken = torch.linalg.cholesky_ex(H + shift * eye)
            if not bool(broken.any()) or not math.isfinite(shift):
                break
            shift = max(_SHIFT * usual, 100 * shift) or 1.0
        step = -torch.cholesky_solve(g, factor)
        self.decrement = math.sqrt(max(-float((step * g).sum()), 0.0))
        r, k = self.gradient.shape
        step = step.reshape(r, k) if self._problem.criterion.coupled else step.squeeze(2).T
        return self.decrement, self._basis.lift @ step

    def proof(self, radius: float) -> Proof:
        """Return what the sums, with a Hessian that is a lower bound within a radius, prove."""
        problem, sums, lift = self._problem, self._sums, self._basis.lift
        coupled, penalty, theta = problem.criterion.coupled, problem.penalty, self.theta
        error = sums.errors + (problem.n_columns + 4) * _EPS * lift.abs().T @ (penalty * theta).abs()
        H, squared, least = self._matrices(), 0.0, math.inf
        bounded = True

        for matrix, g, e in zip(H, self._split(self.gradient), self._split(error), strict=True):
            factor, broken = torch.linalg.cholesky_ex(matrix)
            eye = torch.eye(matrix.shape[0], dtype=matrix.dtype, device=matrix.device)
            inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
            size, trace = float(inverse.square().sum()), float(matrix.diagonal().sum())
            missed = float(sums.numbers[2])
            doubt = (sums.roundings * trace + 2 * math.sqrt(trace * missed) + missed) * size
            if int(broken) or not doubt <= _MOST_UNCERTAIN:
                bounded = False
                break
            column = (inverse @ g).abs() + inverse.abs() @ e
            squared += float(column.square().sum()) / (1 - doubt)
            least = min(least, (1 - doubt) / size)

        gap, reason = math.inf, "the Hessian there is singular up to rounding"
        if bounded:
            reach = float(sums.peak) / math.sqrt(least) * (math.sqrt(2) if coupled else 1.0)
            moved, reason = 2 * math.sqrt(squared) * reach, "by the curvature around the weights"
            if moved <= radius:
                gap = 0.5 * squared
            else:
                reason = f"outputs could move by {moved:.1e}, further than the curvature is known"
        if coupled:
            # The shift of all classes bends by the ridge alone.
            gap += 0.5 * problem.n_outputs * float((penalty[:, :1] * theta.mean(1, keepdim=True) ** 2).sum())
        gradient = problem.centred(problem.evaluate(theta).gradient)
        size = self.size
        return Proof(gap, size, self.loss, self.objective, gradient, self._condition(H), reason, math.isfinite(gap))

    def _condition(self, H: Tensor) -> float:
        """Return the condition number of the Hessian by the coefficients of the scaled columns."""
        values = self._basis.values
        if self._problem.criterion.coupled:
            values = values.repeat_interleave(self._problem.n_outputs)
        spread = torch.linalg.eigvalsh(values.unsqueeze(1) * H * values)
        least, most = spread[:, 0].clamp_min(_EPS * spread[:, -1]), spread[:, -1]
        return float((most / least).max()) if bool((least > 0).all()) else math.inf

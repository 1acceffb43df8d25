"""Many small problems of one shape at once: batched factorization, refinement and check, the hard ones by ``solve``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from closedform.engine.tracing import untraced
from closedform.fit.certification import TOLERANCE
from closedform.fit.layers import round_to
from closedform.fit.orchestrator import solve
from closedform.fit.request import check_bias, check_ridge
from closedform.fit.storage import unsaid_part
from closedform.numerics.scaling import power_of_two_exponents
from closedform.rows.tensors import as_tensor
from closedform.words.errors import InputError, NonFiniteError
from closedform.words.outcome import Outcome

__all__ = ["BatchedSolution", "solve_batched"]

#: Beyond this condition number a Gram matrix in double precision is no longer a factor; ``solve`` takes the problem.
_CONDITION_LIMIT = 1e6
#: Steps of refinement: the first repairs the Gram matrix, the second what rounding left of it.
_ROUNDS = 2
#: Problems are taken together up to this size.
_CHUNK_BYTES = 64 * 2**20


@final
@dataclass(frozen=True, repr=False, eq=False)
class BatchedSolution:
    """The minimisers of a batch of problems, each with its own check.

    Attributes:
        weight: ``(batch, targets, features)``, in the dtype of X.
        bias: ``(batch, targets)`` or None.
        outcomes: What was found about each problem.
        backward_error: Upper bound on the backward error of each problem, ``(batch,)``, as in
            :class:`closedform.Certificate`.
        condition: Condition number of each, with columns scaled, ``(batch,)``.
        rank: Numerical rank of each, ``(batch,)``.
        one_by_one: The problems that :func:`closedform.solve` took, since they are ill-conditioned, of lower rank or
            near the end of the range of float64.
        lost: The problems whose loss as stored, in the dtype of X, is larger than what was certified by more than
            rounding the user's own numbers would make it.
    """

    weight: Tensor
    bias: Tensor | None
    outcomes: tuple[Outcome, ...]
    backward_error: Tensor
    condition: Tensor
    rank: Tensor
    one_by_one: tuple[int, ...]
    lost: tuple[int, ...] = ()

    @property
    def certified(self) -> bool:
        """Whether all of them are, before they were rounded to the dtype of X; :attr:`lost` is about that."""
        return all(outcome.certified for outcome in self.outcomes)

    def __str__(self) -> str:
        counts = {outcome: self.outcomes.count(outcome) for outcome in dict.fromkeys(self.outcomes)}
        lines = [f"{count} of {len(self.outcomes)}: {outcome.value}" for outcome, count in counts.items()]
        if self.lost:
            dtype = str(self.weight.dtype).removeprefix("torch.")
            share = f"{len(self.lost)} of {len(self.outcomes)}"
            lines.insert(0, f"{share} lost by storing: as {dtype} their losses are larger; use .double()")
        lines.append(
            f"backward error at most {float(self.backward_error.max()):.1e}, condition (columns scaled) up to "
            f"{float(self.condition.max()):.2g}; {len(self.one_by_one)} solved one by one"
        )
        return "\n".join(lines)

    __repr__ = __str__


@untraced
def solve_batched(X: Any, Y: Any, *, bias: bool = False, l2: float = 0.0) -> BatchedSolution:
    """Solve many least-squares problems of one shape, as ``torch.linalg.lstsq`` does with a batch.

    ``cf.solve`` takes the leading dimensions of X as rows of one problem, as ``nn.Linear`` does; here the first one
    counts problems. Each is what :func:`closedform.solve` would return, to rounding. Well-conditioned problems are
    factored, refined and checked together (Cholesky of the Gram matrix of the scaled columns with refinement on
    the true rows, and the upper bound of Karlson and Walden (1997) on the backward error); the others go to ``solve``.

    Args:
        X: Features, ``(batch, rows, features)``.
        Y: Targets, ``(batch, rows)`` or ``(batch, rows, targets)``.
        bias: Whether each problem has a bias.
        l2: Ridge strength, as in :func:`closedform.solve`, for all problems.

    Raises:
        InputError: shapes that do not belong together, or a strength that is not a number.
        NonFiniteError: NaN or infinities in the data.
        DataTypeError: complex, object, string, sparse or meta data.

    Example:
        >>> import torch, closedform as cf
        >>> X = torch.tensor([[[1.0], [2.0]], [[1.0], [3.0]]], dtype=torch.float64)
        >>> sol = cf.solve_batched(X, torch.tensor([[2.0, 4.0], [3.0, 9.0]], dtype=torch.float64))
        >>> sol.weight.flatten(), sol.certified
        (tensor([2., 3.], dtype=torch.float64), True)
    """
    x, y = (as_tensor(data, name)[0] for data, name in ((X, "X"), (Y, "Y")))
    if x.dim() != 3:
        raise InputError(f"X has shape {tuple(x.shape)}; a batch of tables is (batch, rows, features).")

    if y.dim() == 2:
        y = y.unsqueeze(2)
    if y.dim() != 3 or y.shape[:2] != x.shape[:2]:
        raise InputError(
            f"X has shape {tuple(x.shape)} and Y has shape {tuple(y.shape)}: Y must be {tuple(x.shape[:2])} or "
            f"({x.shape[0]}, {x.shape[1]}, targets)."
        )
    if 0 in x.shape or 0 in y.shape:
        raise InputError(f"X has shape {tuple(x.shape)} and Y {tuple(y.shape)}; an empty table has no minimiser.")
    if x.device != y.device:
        raise InputError(f"X is on {x.device} but Y is on {y.device}; move both to the same device.")

    has_bias, strength = check_bias(bias), check_ridge(l2, 1)[0]
    size = max(1, _CHUNK_BYTES // (8 * x.shape[1] * (x.shape[2] + y.shape[2])))
    parts = [
        _solve_chunk(x[start : start + size], y[start : start + size], has_bias, strength, start)
        for start in range(0, x.shape[0], size)
    ]

    return BatchedSolution(
        weight=torch.cat([part.weight for part in parts]),
        bias=torch.cat([part.bias for part in parts if part.bias is not None]) if has_bias else None,
        outcomes=tuple(outcome for part in parts for outcome in part.outcomes),
        backward_error=torch.cat([part.backward_error for part in parts]),
        condition=torch.cat([part.condition for part in parts]),
        rank=torch.cat([part.rank for part in parts]),
        one_by_one=tuple(index for part in parts for index in part.one_by_one),
        lost=tuple(index for part in parts for index in part.lost),
    )


def _solve_chunk(x: Tensor, y: Tensor, bias: bool, l2: float, first: int) -> BatchedSolution:
    A, B = x.to(torch.float64), y.to(torch.float64)
    for name, values in (("X", A), ("Y", B)):
        finite = torch.isfinite(values).all(2).all(1)
        if not bool(finite.all()):
            index = first + int((~finite).nonzero()[0])
            raise NonFiniteError(f"{name} holds NaN or infinities in problem {index} of the batch; drop or repair it.")

    if bias:
        A = torch.cat([A.new_ones(*A.shape[:2], 1), A], 2)
    if l2 > 0:
        penalty = torch.eye(A.shape[2], dtype=A.dtype, device=A.device)[int(bias) :] * l2**0.5
        A = torch.cat([A, penalty.expand(A.shape[0], -1, -1)], 1)
        B = torch.cat([B, B.new_zeros(B.shape[0], penalty.shape[0], B.shape[2])], 1)

    columns, targets = torch.linalg.vector_norm(A, dim=1), torch.linalg.vector_norm(B, dim=1)
    exponents, target_exponents = power_of_two_exponents(columns), power_of_two_exponents(targets)
    A = torch.ldexp(A, -exponents.unsqueeze(1))
    B = torch.ldexp(B, -target_exponents.unsqueeze(1))
    Z, error, condition = _refined(A, B)
    good = (error <= TOLERANCE) & (condition <= _CONDITION_LIMIT)
    weights = torch.ldexp(Z, target_exponents.unsqueeze(1) - exponents.unsqueeze(2))
    good &= torch.isfinite(weights).all(2).all(1)
    rank = torch.full_like(exponents[:, 0], A.shape[2], dtype=torch.int64)
    outcomes = [Outcome.CERTIFIED] * x.shape[0]
    alone = [int(index) for index in (~good).nonzero().flatten()]
    for index in alone:
        sol = solve(x[index].to(torch.float64), y[index].to(torch.float64), bias=bias, l2=l2, progress=False)
        parts = [sol.weight.T] if sol.bias is None else [sol.bias.unsqueeze(0), sol.weight.T]
        weights[index] = torch.cat(parts)
        outcomes[index] = sol.outcome
        error[index], condition[index] = sol.certificate.backward_error, sol.certificate.scaled_condition
        rank[index] = sol.certificate.rank

    dtype = x.dtype if x.dtype.is_floating_point else torch.float64
    rounded = round_to(weights, dtype)
    lost: list[int] = []
    if dtype != torch.float64:
        stored = torch.ldexp(rounded.to(torch.float64), exponents.unsqueeze(2) - target_exponents.unsqueeze(1))
        before = torch.ldexp(weights, exponents.unsqueeze(2) - target_exponents.unsqueeze(1))
        losses = [(B - A @ each).square().sum(1) for each in (stored, before)]
        unsaid = unsaid_part(dtype, losses[1], B.square().sum(1), (x.dtype, y.dtype))
        lost = (losses[0] - losses[1] > unsaid).any(1).nonzero().flatten().tolist()

    return BatchedSolution(
        weight=rounded[:, int(bias) :].transpose(1, 2).contiguous(),
        bias=rounded[:, 0].clone() if bias else None,
        outcomes=tuple(outcomes),
        backward_error=error,
        condition=condition,
        rank=rank,
        one_by_one=tuple(first + index for index in alone),
        lost=tuple(first + index for index in lost),
    )


def _refined(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights in scaled columns, a bound on their backward error, and the condition number of each A.

    Where Cholesky fails the bound is infinite.
    """
    R, info = torch.linalg.cholesky_ex(A.mT @ A, upper=True)
    failed = info != 0
    R = torch.where(failed[:, None, None], torch.eye(A.shape[2], dtype=A.dtype, device=A.device), R)

    def solve_normal(G: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(R, torch.linalg.solve_triangular(R.mT, G, upper=False), upper=True)

    Z = solve_normal(A.mT @ B)
    for _ in range(_ROUNDS):
        Z = Z + solve_normal(A.mT @ (B - A @ Z))
    values = torch.linalg.svdvals(R)
    condition = torch.where(failed, torch.inf, values[:, 0] / values[:, -1])
    residual = B - A @ Z
    projected = torch.linalg.solve_triangular(R.mT, A.mT @ residual, upper=False)
    # How far the factor is from the rows, probed where small singular directions count as much as large ones.
    generator = torch.Generator().manual_seed(20)
    image = (
        torch.randn(A.shape[2], 1, dtype=A.dtype, device="cpu", generator=generator)
        .to(A.device)
        .expand(A.shape[0], -1, -1)
    )
    probe = torch.linalg.solve_triangular(R, image, upper=True)
    back = torch.linalg.solve_triangular(R.mT, A.mT @ (A @ probe), upper=False)
    factor_error = torch.linalg.vector_norm(back - image, dim=(1, 2)) / torch.linalg.vector_norm(image, dim=(1, 2))
    size = torch.linalg.matrix_norm(A)
    lengths = torch.linalg.vector_norm(projected, dim=1) / (1 - factor_error).clamp(min=0).sqrt().unsqueeze(1)
    lengths = torch.minimum(lengths, torch.linalg.vector_norm(residual, dim=1))
    weights = torch.hypot(torch.linalg.vector_norm(Z, dim=1), torch.linalg.vector_norm(B, dim=1) / size.unsqueeze(1))
    error = (lengths / torch.where(weights > 0, weights, 1.0)).amax(1) / torch.where(size > 0, size, 1.0)
    bad = failed | ~(factor_error < 0.5) | ~torch.isfinite(error)
    return Z, torch.where(bad, torch.inf, error), condition

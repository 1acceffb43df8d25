"""What the loss becomes when weights that were certified in float64 are stored in the narrower dtype of a layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from closedform.fit.certification import Certificate
from closedform.fit.claims import Claims
from closedform.fit.problem import Problem
from closedform.fit.weights import Weights
from closedform.numerics.scaling import safe_norm
from closedform.rows import Rows, as_rows, scan
from closedform.rows.columns import Columns
from closedform.rows.folds import ResidualSums
from closedform.words.numbers import number

__all__ = ["Stored", "as_stored", "measure_stored", "stored_as", "stored_loss", "unsaid_part"]

#: How far a root may be from the matrix, as probed, to estimate what rounding adds to the loss.
_TRUSTED = 0.5
#: Part of what would be said, from which an estimate is measured on the rows.
_WORTH_MEASURING = 0.1
#: Squares of the unit roundoff, times the mean square of the targets, that rounding the targets themselves or the
#: predictions can add to a loss without anything cancelling.
_OF_TARGETS = 16.0
#: Unit roundoffs of the loss that computing it in that dtype leaves open.
_OF_LOSS = 8.0
#: The least part of the loss that is worth a word, in any dtype.
_LEAST_PART = 1e-4
#: A loss above this multiple of what rounding the data makes is no rounding: the data resolve it.
_RESOLVED = 1e6
#: Part of a loss so resolved that may be added to it without a word.
_OF_RESOLVED = 0.01


@final
@dataclass(frozen=True)
class Stored:
    """Weights as they are stored, beside the ones that were certified.

    Attributes:
        dtype: The dtype they are stored in, ``"float32"``.
        loss: ``MSELoss()`` of the weights as stored, with the penalty ``l2 |W|^2 / (rows targets)`` where l2 > 0; of
            another criterion its own loss, with the penalty over what its mean divides by.
        certified_loss: The same before they were rounded.
        lost: Whether the first is larger by more than rounding the user's own numbers would make it.
    """

    dtype: str
    loss: float
    certified_loss: float
    lost: bool

    def __str__(self) -> str:
        loss, certified = number(self.loss), number(self.certified_loss)
        if loss == certified:
            # The digits that they share tell nothing; where all do, the difference is one of rounding.
            loss, certified = f"{self.loss:.7g}", f"{self.certified_loss:.7g}"
        if loss == certified:
            loss = f"{number(self.loss - self.certified_loss)} above {certified}"
            return f"as {self.dtype} the loss is {loss}: use .double()"
        return f"as {self.dtype} the loss is {loss}, not {certified}: use .double()"


def as_stored(
    dtype: torch.dtype, loss: float, certified_loss: float, target_square: float, data: Iterable[torch.dtype]
) -> Stored:
    """Judge a loss beside the one that was certified.

    Args:
        dtype: That of the weights as stored.
        loss: Of the weights as stored.
        certified_loss: Before they were rounded.
        target_square: Mean square of the targets.
        data: The dtypes in which the rows are stored.

    Example:
        >>> as_stored(torch.float32, 0.485, 7e-16, 2e6, [torch.float32]).lost
        True
        >>> as_stored(torch.float32, 1e-9, 7e-16, 2e6, [torch.float32]).lost
        False
    """
    unsaid = float(unsaid_part(dtype, _scalar(certified_loss), _scalar(target_square), data))
    return Stored(str(dtype).removeprefix("torch."), loss, certified_loss, lost=loss - certified_loss > unsaid)


def _scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device="cpu")


def unsaid_part(
    dtype: torch.dtype, certified_loss: Tensor, target_square: Tensor, data: Iterable[torch.dtype]
) -> Tensor:
    """Return what may be added to losses without a word.

    Args:
        dtype: That of the weights as stored.
        certified_loss: Losses before they were rounded.
        target_square: The squares of the targets, on the same scale and of the same shape.
        data: The dtypes in which the rows are stored.
    """
    roundoff, of_data = _roundoff(dtype), max(map(_roundoff, data))
    resolved = certified_loss > _RESOLVED * of_data**2 * target_square
    of_loss = max(_LEAST_PART, _OF_LOSS * roundoff) * certified_loss
    return torch.where(
        resolved,
        max(_OF_RESOLVED, _OF_LOSS * roundoff) * certified_loss,
        _OF_TARGETS * roundoff**2 * target_square + of_loss,
    )


def _roundoff(dtype: torch.dtype) -> float:
    return torch.finfo(dtype if dtype.is_floating_point else torch.float64).eps / 2


def stored_as(weights: Weights, X: Any, Y: Any, sample_weight: Any, dtype: torch.dtype, *, l2: float = 0.0) -> Stored:
    """Return what becomes of certified weights in another dtype, by one more pass over the rows of their fit.

    Args:
        weights: The weights as certified.
        X: The features of the fit.
        Y: Its targets.
        sample_weight: Its weights of rows, or None.
        dtype: The dtype in question.
        l2: Its ridge strength.
    """
    rows = as_rows(X, Y, sample_weight)
    scanned = scan(rows)
    count = scanned.weight_sum * rows.n_targets
    exact = weights.to(torch.float64)
    losses = [
        stored_loss(rows, each, scanned.weight_sum) + _penalty(l2, each, count)
        for each in (exact.to(dtype).to(torch.float64), exact)
    ]
    return as_stored(dtype, losses[0], losses[1], _mean_square(scanned.target_norms, count), _dtypes(rows))


def measure_stored(
    problem: Problem, weights: Weights, dtype: torch.dtype, claims: Claims, certificate: Certificate
) -> Stored | None:
    """Return what rounding the weights does to the loss; None for float64, and where nothing was certified.

    The rows are read once more only where the factor shows that there may be something to say, or cannot tell.

    Args:
        problem: The problem.
        weights: The weights, float64.
        dtype: What they are stored in.
        claims: What the factor that they came from says of the matrix.
        certificate: What was certified of them.
    """
    if dtype == torch.float64 or not certificate.accepted:
        return None
    rounded = weights.to(dtype).to(torch.float64)
    step = problem.from_weights(rounded.minus(weights))
    count = problem.scanned.weight_sum * problem.n_targets
    target_square = _mean_square(problem.scanned.target_norms, count)
    certified = certificate.loss + _penalty(problem.l2, weights, count)

    unsaid = float(unsaid_part(dtype, _scalar(certified), _scalar(target_square), _dtypes(problem.rows)))

    root = claims.root
    # Where rows are spread over processes, all of them have to decide alike: there they are always read.
    alone = problem.rows.total is None
    if alone and root is not None and not claims.restricted and certificate.factor_error < _TRUSTED:
        # At a minimiser the gradient vanishes: what a step adds to the sum of squares is its own length.
        lengths = torch.linalg.vector_norm(root.product(step), dim=0) / problem.target_scale
        added = _mean_square(lengths, count)
        if added < _WORTH_MEASURING * unsaid:
            return Stored(str(dtype).removeprefix("torch."), certified + added, certified, lost=False)

    loss = stored_loss(problem.rows, rounded, problem.scanned.weight_sum, problem.target_scale)
    loss += _penalty(problem.l2, rounded, count)
    return as_stored(dtype, loss, certified, target_square, _dtypes(problem.rows))


def stored_loss(rows: Rows, weights: Weights, weight_sum: float, target_scale: Tensor | None = None) -> float:
    """Return ``MSELoss()`` of some weights, by one pass over the rows.

    Args:
        rows: The rows.
        weights: The weights, float64.
        weight_sum: Sum of the sample weights, or the number of rows.
        target_scale: Powers of two that bring the targets near 1, ``(targets,)``; none where it is None.
    """
    scale = torch.ones_like(weights.weight[:, 0]) if target_scale is None else target_scale
    columns = Columns(weights.bias is not None, torch.ones_like(weights.stacked()[:, 0]), scale)
    V, offset = columns.raw(weights.stacked() * scale)
    squares = rows.walk(ResidualSums(columns, V, offset, targets=True, label="certifying")).squares
    return _mean_square(squares.sqrt() / scale, weight_sum * rows.n_targets)


def _dtypes(rows: Rows) -> tuple[torch.dtype, torch.dtype]:
    return rows.x.stored_dtype, rows.y.stored_dtype


def _mean_square(norms: Tensor, count: float) -> float:
    size = safe_norm(norms) / math.sqrt(count)
    # A float in Python overflows by an error, a product does not.
    return size * size


def _penalty(l2: float, weights: Weights, count: float) -> float:
    size = safe_norm(weights.weight) * math.sqrt(l2 / count) if l2 else 0.0
    return size * size

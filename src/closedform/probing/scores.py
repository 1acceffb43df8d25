"""What a probe is worth on rows it has not seen: counts for classes, squares for numbers, gathered block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, final

import torch
from torch import Tensor

from closedform.fit.convex import ConvexSolution
from closedform.fit.solution import Solution
from closedform.rows.source import Source

__all__ = ["Calibration", "ClassScores", "NumberScores", "score_classes", "score_numbers", "wilson_interval"]

#: Entries of a block of scores that are held at a time.
_BLOCK = 2**22
#: Places among the best scores in which the right class still counts for ``top5``.
_TOP = 5
#: Intervals of the scores in which calibration is measured.
_BINS = 10


@final
@dataclass(frozen=True)
class Calibration:
    """How often a probe is right where its best score says how often it should be.

    Least-squares scores on one-hot rows estimate probabilities of the classes (Richard and Lippmann 1991); they are
    held to 0 and 1 here. Those of a cross-entropy are its probabilities.

    Attributes:
        rows: Rows in each tenth of the scores.
        score: Mean best score there; nan without rows.
        accuracy: Part of them that is right.
        error: Expected calibration error: mean of ``|accuracy - score|`` weighted by rows.
    """

    rows: tuple[int, ...]
    score: tuple[float, ...]
    accuracy: tuple[float, ...]
    error: float


@final
@dataclass(frozen=True, eq=False)
class ClassScores:
    """A probe for classes, judged.

    Attributes:
        rows: Rows it was judged by.
        accuracy: Part of them whose class has the largest score.
        interval: Confidence interval of it (Wilson 1927).
        balanced_accuracy: Mean over the classes of the part that is right.
        top5: Part whose class is among the five largest scores; None with five classes or fewer.
        confusion: Counts, ``(classes, classes)`` int64: row the true class, column the one that was said.
        calibration: How well the scores say how often they are right.
    """

    rows: int
    accuracy: float
    interval: tuple[float, float]
    balanced_accuracy: float
    top5: float | None
    confusion: Tensor
    calibration: Calibration

    @property
    def recall(self) -> Tensor:
        """Part of each class that is right, ``(classes,)``; nan for a class without rows."""
        return self.confusion.diagonal().double() / self.confusion.sum(1)

    @property
    def precision(self) -> Tensor:
        """Part right of what was said to be each class, ``(classes,)``; nan where it never was."""
        return self.confusion.diagonal().double() / self.confusion.sum(0)


@final
@dataclass(frozen=True)
class NumberScores:
    """A probe for numbers, judged.

    Attributes:
        rows: Rows it was judged by.
        r_squared: Coefficient of determination of each target there, as scikit-learn's ``r2_score``: of a constant
            target 1 if it is met, up to rounding, and else 0.
        mse: Mean squared error of each target.
        mae: Mean absolute error of each target.
    """

    rows: int
    r_squared: tuple[float, ...]
    mse: tuple[float, ...]
    mae: tuple[float, ...]


def wilson_interval(right: int, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of a proportion that was counted; source: Wilson (1927).

    Args:
        right: How many are right.
        rows: Of how many.
        confidence: Probability that such intervals hold the true proportion.

    Example:
        >>> [round(end, 4) for end in wilson_interval(90, 100)]
        [0.8256, 0.9448]
    """
    z = -NormalDist().inv_cdf((1 - confidence) / 2)
    share, spread = right / rows, z * z / rows
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / rows + spread / (4 * rows))
    # All right or none: the end is known, and rounding would leave the proportion out of its interval.
    return 0.0 if right == 0 else middle - half, 1.0 if right == rows else middle + half


def score_classes(solution: Solution | ConvexSolution, X: Source, codes: Tensor, confidence: float) -> ClassScores:
    """Judge a probe for classes.

    Args:
        solution: The fit, a target for each class.
        X: Features, ``(rows, features)``.
        codes: Place of the true class of each row.
        confidence: Of the interval.
    """
    classes = solution.weight.shape[0]
    pairs = torch.zeros(classes * classes, dtype=torch.int64, device="cpu")
    bins = torch.zeros(3, _BINS, dtype=torch.float64, device="cpu")
    among_best = 0
    for start, stop in _blocks(X, classes):
        scores, truth = _predicted(solution, X, start, stop), codes[start:stop]
        if isinstance(solution, ConvexSolution):
            scores = scores.softmax(1)
        best, said = scores.max(1)
        pairs += torch.bincount(truth * classes + said, minlength=classes * classes)
        if classes > _TOP:
            among_best += int((scores.topk(_TOP, 1).indices == truth.unsqueeze(1)).sum())
        held = best.clamp(0, 1)
        place = (held * _BINS).long().clamp(max=_BINS - 1)
        ones = torch.ones_like(held)
        bins += torch.stack([_sums(values, place) for values in (ones, held, (said == truth).to(held))])

    confusion, rows = pairs.view(classes, classes), X.shape[0]
    right, counts = int(confusion.diagonal().sum()), confusion.sum(1)
    # Quotients of integers would be of float32.
    recall = confusion.diagonal()[counts > 0].double() / counts[counts > 0]
    return ClassScores(
        rows=rows,
        accuracy=right / rows,
        interval=wilson_interval(right, rows, confidence),
        balanced_accuracy=float(recall.mean()),
        top5=among_best / rows if classes > _TOP else None,
        confusion=confusion,
        calibration=_calibration(bins, rows),
    )


def _sums(values: Tensor, place: Tensor) -> Tensor:
    return torch.zeros(_BINS, dtype=torch.float64, device="cpu").index_add_(0, place, values)


def _calibration(bins: Tensor, rows: int) -> Calibration:
    counts, held, right = bins
    error = float((right - held).abs().sum()) / rows
    return Calibration(
        rows=tuple(int(count) for count in counts.tolist()),
        score=tuple((held / counts).tolist()),
        accuracy=tuple((right / counts).tolist()),
        error=error,
    )


def score_numbers(solution: Solution | ConvexSolution, X: Source, values: Tensor) -> NumberScores:
    """Judge a probe for numbers.

    Args:
        solution: The fit.
        X: Features, ``(rows, features)``.
        values: The true numbers, ``(rows, targets)``.
    """
    targets = values.shape[1]
    squares, absolute = (torch.zeros(targets, dtype=torch.float64, device="cpu") for _ in range(2))
    for start, stop in _blocks(X, targets):
        errors = _predicted(solution, X, start, stop).reshape(-1, targets) - values[start:stop]
        squares += errors.square().sum(0)
        absolute += errors.abs().sum(0)

    spread = (values - values.mean(0)).square().sum(0)
    rows = X.shape[0]
    floor = rows * (torch.finfo(torch.float64).eps * torch.linalg.vector_norm(values, dim=0)).square()
    explained = torch.where(spread > floor, 1 - squares / spread, (squares <= floor).to(squares))
    return NumberScores(rows, _floats(explained), _floats(squares / rows), _floats(absolute / rows))


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.tolist())


def _blocks(X: Source, targets: int) -> Any:
    rows = X.shape[0]
    step = max(1, _BLOCK // max(X.shape[1], targets))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _predicted(solution: Solution | ConvexSolution, X: Source, start: int, stop: int) -> Tensor:
    return solution.predict(X.read(start, stop)).detach().to(device="cpu", dtype=torch.float64)

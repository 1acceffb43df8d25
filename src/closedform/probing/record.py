"""The record of linear probes: of each layer the certified fit, its ridge path and what it is worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

from closedform.fit.convex import ConvexSolution
from closedform.fit.path import RidgePath
from closedform.fit.solution import Solution
from closedform.probing.scores import ClassScores, NumberScores
from closedform.report.base import ChartReport
from closedform.words.json_values import plain
from closedform.words.metrics import flat_floats
from closedform.words.outcome import Outcome

__all__ = ["LayerProbe", "ProbeRecord"]

#: Classes up to which JSON holds the whole table of confusions.
_FEW_CLASSES = 100


@final
@dataclass(frozen=True, eq=False)
class LayerProbe:
    """The probe of one layer.

    Attributes:
        name: What the layer is called.
        path: Every ridge strength with its leave-one-out error, and the certified fit at the best.
        scores: What it is worth on the test rows.
    """

    name: str
    path: RidgePath
    scores: ClassScores | NumberScores

    @property
    def solution(self) -> Solution | ConvexSolution:
        """The certified fit at the strength chosen."""
        return self.path.solution

    @property
    def left_out_error(self) -> float:
        """What chose the strength: mean squared leave-one-out error, or cross-entropy on folds left out."""
        return float(self.path.error.mean())

    def metrics(self) -> dict[str, float]:
        """Return its numbers as flat floats, for trackers."""
        found = {
            "l2": float(self.path.l2.mean()),
            "left_out_error": self.left_out_error,
            "condition": self.solution.certificate.condition,
            "certified": float(self.solution.certified),
        }
        if isinstance(self.scores, NumberScores):
            found["r_squared"] = sum(self.scores.r_squared) / len(self.scores.r_squared)
            found["mse"] = sum(self.scores.mse) / len(self.scores.mse)
            return flat_floats(found)
        found["accuracy"] = self.scores.accuracy
        found["accuracy_low"], found["accuracy_high"] = self.scores.interval
        found["balanced_accuracy"] = self.scores.balanced_accuracy
        found["calibration_error"] = self.scores.calibration.error
        if self.scores.top5 is not None:
            found["top5"] = self.scores.top5
        return flat_floats(found)

    def to_dict(self) -> dict[str, Any]:
        """Return its numbers as plain values for JSON."""
        scores: dict[str, Any] = {}
        if isinstance(self.scores, NumberScores):
            scores = plain(self.scores)
        else:
            few = self.scores.confusion.shape[0] <= _FEW_CLASSES
            scores = {
                "rows": self.scores.rows,
                "accuracy": self.scores.accuracy,
                "interval": list(self.scores.interval),
                "balanced_accuracy": self.scores.balanced_accuracy,
                "top5": self.scores.top5,
                "recall": plain(self.scores.recall.tolist()),
                "precision": plain(self.scores.precision.tolist()),
                "confusion": self.scores.confusion.tolist() if few else None,
                "calibration": plain(self.scores.calibration),
            }
        return {"name": self.name, **scores, "path": self.path.to_dict()}


@dataclass(frozen=True, repr=False, eq=False)
class ProbeRecord(ChartReport, ABC):
    """What is known of the probes of all layers; how it is shown is another matter.

    Attributes:
        layers: The probe of each layer, in the order given.
        classes: The classes in ascending order, as outputs are numbered; empty for a regression.
        train_rows: Rows it was fitted to.
        confidence: Of the intervals.
        notes: What was read into the data that the user should know.
        seconds: Wall time.
    """

    layers: tuple[LayerProbe, ...]
    classes: tuple[Any, ...]
    train_rows: int
    confidence: float
    notes: tuple[str, ...]
    seconds: float

    @property
    def best(self) -> LayerProbe:
        """The layer with the least error on rows left out."""
        return min(self.layers, key=lambda layer: layer.left_out_error)

    @property
    def path(self) -> RidgePath:
        """The ridge path of the best layer."""
        return self.best.path

    @property
    def solution(self) -> Solution | ConvexSolution:
        """The certified fit of the best layer."""
        return self.best.solution

    @property
    def outcome(self) -> Outcome:
        """How the fits ended: the worst of them."""
        return max((layer.solution.outcome for layer in self.layers), key=lambda outcome: outcome.severity)

    @property
    def certified(self) -> bool:
        """Whether the weights of every fit, as stored, are what was asked for."""
        return all(layer.solution.certified for layer in self.layers)

    @property
    def sentence(self) -> str:
        """The same in words."""
        fits = [layer.solution for layer in self.layers]
        worst = max(fits, key=lambda fit: (fit.outcome.severity, not fit.certified))
        if isinstance(worst, ConvexSolution):
            return worst.sentence
        return worst.headline if worst.outcome.certified and not worst.certified else str(worst.outcome)

    @property
    def test_rows(self) -> int:
        """Rows it was judged by."""
        return self.best.scores.rows

    @property
    def accuracy(self) -> float | None:
        """Part of the test rows that the best layer's probe tells right; None for a regression."""
        scores = self.best.scores
        return scores.accuracy if isinstance(scores, ClassScores) else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Confidence interval of the accuracy; None for a regression."""
        scores = self.best.scores
        return scores.interval if isinstance(scores, ClassScores) else None

    @property
    def r_squared(self) -> tuple[float, ...] | None:
        """Coefficient of determination of each target on the test rows; None for classes."""
        scores = self.best.scores
        return scores.r_squared if isinstance(scores, NumberScores) else None

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as plain values for JSON."""

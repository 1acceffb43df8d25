"""What a comparison found, as data; text, HTML and figures are made of it by the other files of this folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from closedform.words.outcome import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Comparison", "CurvePoint", "MethodResult"]


@final
@dataclass(frozen=True)
class CurvePoint:
    """The training loss of one method after ``steps`` steps and ``seconds`` seconds of training.

    Attributes:
        steps: Evaluations of the loss and its gradient so far.
        seconds: Wall-clock time of training so far; measuring the loss is not billed.
        train_mse: Mean squared error over rows and targets, evaluated in float64.
        excess_loss: ``train_mse`` less the optimal one, computed without cancellation.
    """

    steps: int
    seconds: float
    train_mse: float
    excess_loss: float


@final
@dataclass(frozen=True)
class MethodResult:
    """One row of the comparison.

    Attributes:
        name: ``closed form``, ``sgd``, ``momentum``, ``nesterov``, ``adam``, ``lbfgs``, ...
        settings: What the method was run with, in words.
        seconds: Wall-clock time of solving or training.
        steps: Evaluations of the loss and its gradient (a line search makes several for each of its iterations);
            None for a direct method.
        train_mse: Mean squared error over rows and targets, evaluated in float64.
        excess_loss: ``train_mse`` less the optimal one, never below what float64 can resolve.
        weight_distance: Distance of weights and bias to the minimiser, Frobenius norm relative to the minimiser's.
        test_mae: Mean absolute error on the test rows, or None without test rows.
        stopped_because: Why the method stopped, in words.
        curve: The way there, at geometrically spaced steps; empty for a direct method.
    """

    name: str
    settings: str
    seconds: float
    steps: int | None
    train_mse: float
    excess_loss: float
    weight_distance: float
    test_mae: float | None
    stopped_because: str
    curve: tuple[CurvePoint, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain numbers and strings, the curve as one list per quantity, infinities as None."""
        row = {
            "name": self.name,
            "settings": self.settings,
            "seconds": self.seconds,
            "steps": self.steps,
            "train_mse": self.train_mse,
            "excess_loss": self.excess_loss,
            "weight_distance": self.weight_distance,
            "test_mae": self.test_mae,
            "stopped_because": self.stopped_because,
            "curve": {
                "steps": [point.steps for point in self.curve],
                "seconds": [point.seconds for point in self.curve],
                "train_mse": [point.train_mse for point in self.curve],
                "excess_loss": [point.excess_loss for point in self.curve],
            },
        }
        return _finite(row)


@final
@dataclass(frozen=True)
class Comparison:
    """The closed form beside optimizers that trained the same layer on the same rows.

    Attributes:
        methods: One row per method, the closed form first.
        condition: Condition number of ``[1 | X]`` as the layer sees it (of ``X`` without a bias).
        rank: Its numerical rank, as certified.
        learning_rate_limit: The largest stable step of plain gradient descent on ``MSELoss()``, 2 / lambda_max.
        steps_needed: Steps that gradient descent at 0.9 of that limit needs from zero weights until a millionth of
            the excess loss is left; infinite if it never gets there.
        optimal_loss: The mean squared error at the minimiser.
        excess_floor: An excess loss below this cannot be told from zero in float64.
        rounding_floor: An excess loss below this is rounding of the dtype that was trained in.
        dtype: What the optimizers trained in, such as ``float32``.
        n_rows, n_features, n_targets, bias: The layer and its table.
        budget: Seconds shared by all optimizers.
        outcome: How the closed form ended.
        sentence: The cause, with its numbers.
        notes: What was done with the data on the way in.
        interrupted: Whether training was stopped by Ctrl-C; the rows hold what was there by then.
    """

    methods: tuple[MethodResult, ...]
    condition: float
    rank: int
    learning_rate_limit: float
    steps_needed: float
    optimal_loss: float
    excess_floor: float
    rounding_floor: float
    dtype: str
    n_rows: int
    n_features: int
    n_targets: int
    bias: bool
    budget: float
    outcome: Outcome
    sentence: str
    notes: tuple[str, ...] = ()
    interrupted: bool = False

    def __getitem__(self, name: str) -> MethodResult:
        """Return the row of the method called ``name``; KeyError lists the names there are."""
        for method in self.methods:
            if method.name == name:
                return method
        raise KeyError(f"{name!r}: the methods are {', '.join(method.name for method in self.methods)}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dicts, infinities as None, as JSON has it."""
        data = {
            "sentence": self.sentence,
            "outcome": self.outcome.name.lower(),
            "condition": self.condition,
            "rank": self.rank,
            "learning_rate_limit": self.learning_rate_limit,
            "steps_needed": self.steps_needed,
            "optimal_loss": self.optimal_loss,
            "excess_floor": self.excess_floor,
            "rounding_floor": self.rounding_floor,
            "dtype": self.dtype,
            "n_rows": self.n_rows,
            "n_features": self.n_features,
            "n_targets": self.n_targets,
            "bias": self.bias,
            "budget": self.budget,
            "interrupted": self.interrupted,
            "notes": list(self.notes),
            "methods": [method.to_dict() for method in self.methods],
        }
        return _finite(data)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw excess loss against seconds, both logarithmic, one line per method, and return the axes.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from closedform.report.figure import plot_comparison

        return plot_comparison(self, ax)

    def __str__(self) -> str:
        from closedform.report.sections import comparison_page
        from closedform.report.text import render_text

        return render_text(comparison_page(self))

    def _repr_html_(self) -> str:
        from closedform.report.comparison_page import comparison_fragment

        return comparison_fragment(self)


def _finite(data: dict[str, Any]) -> dict[str, Any]:
    """Replace what JSON has no number for, in a dict of numbers, strings, lists and such dicts."""
    return {key: _plain(value) for key, value in data.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _finite(value) if isinstance(value, dict) else value

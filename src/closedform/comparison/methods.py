"""What each method of a comparison reached, as values."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from closedform.report import ChartReport
from closedform.words.json_values import plain
from closedform.words.numbers import number, plural
from closedform.words.outcome import Outcome

__all__ = ["CurvePoint", "Elapsed", "MethodResult", "MethodsReport"]


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
        train_mse: Mean squared error over rows and targets, evaluated in float64; in a comparison by another criterion
            that criterion, with its penalty.
        excess_loss: ``train_mse`` less the optimal one, never below what float64 can resolve.
        weight_distance: Distance of weights and bias to the minimiser, Frobenius norm relative to the minimiser's.
        test_mae: Mean absolute error on the test rows, or None without test rows; in a comparison by another criterion
            that criterion there.
        stopped_because: Why the method stopped, in words.
        curve: The way there, at geometrically spaced steps; empty for a direct method.
        hyperparameters: Numbers that the optimizer was made with, as ``torch.optim`` calls them.
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
    hyperparameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def train_loss(self) -> float:
        """The loss that was trained, whichever it is: ``train_mse`` under a name that fits other criteria."""
        return self.train_mse

    @property
    def test_loss(self) -> float | None:
        """The criterion on the test rows, in a comparison by another criterion than squared error."""
        return self.test_mae

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain numbers and strings, the curve as one list per quantity, infinities as None."""
        row: dict[str, Any] = plain(self)
        row["curve"] = {
            "steps": [point.steps for point in self.curve],
            "seconds": [point.seconds for point in self.curve],
            "train_mse": plain([point.train_mse for point in self.curve]),
            "excess_loss": plain([point.excess_loss for point in self.curve]),
        }
        return row


@final
@dataclass(frozen=True)
class Elapsed:
    """How long a part of a comparison took.

    Attributes:
        name: The part.
        seconds: Seconds that the user waited for it.
    """

    name: str
    seconds: float


@dataclass(frozen=True, repr=False, kw_only=True)
class MethodsReport(ChartReport, ABC):
    """What methods reached on the same rows, from the same start, within the same budget.

    Attributes:
        methods: One row per method, the exact minimiser first.
        dtype: What the optimizers trained in, such as ``float32``.
        n_rows: Rows.
        n_features: Features.
        bias: Whether the layer has a bias.
        budget: Seconds shared by all optimizers.
        outcome: How the exact fit ended.
        sentence: What came out.
        elapsed: What took how long, training included.
        notes: What was done with the data on the way in.
        interrupted: Whether training was stopped by Ctrl-C; the rows hold what was there by then.
    """

    methods: tuple[MethodResult, ...]
    dtype: str
    n_rows: int
    n_features: int
    bias: bool
    budget: float
    outcome: Outcome
    sentence: str
    elapsed: tuple[Elapsed, ...]
    notes: tuple[str, ...] = ()
    interrupted: bool = False

    def __getitem__(self, name: str) -> MethodResult:
        """Return the row of the method called ``name``.

        Raises:
            KeyError: there is none; the names there are are listed.
        """
        for method in self.methods:
            if method.name == name:
                return method
        raise KeyError(f"{name!r}: the methods are {', '.join(method.name for method in self.methods)}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.methods)} methods: {self.sentence}>"

    def _layer(self, outputs: str) -> str:
        """The layer and its table in words, where it has so many outputs."""
        bias = "with" if self.bias else "without"
        return f"{plural(self.n_rows, 'row')}, {plural(self.n_features, 'feature')}, {outputs}, {bias} a bias"

    @property
    def _spent(self) -> str:
        return f"budget {number(self.budget)} s" + (" (interrupted)" if self.interrupted else "")

    @property
    def _times(self) -> str:
        return ", ".join(f"{number(part.seconds)} s for {part.name}" for part in self.elapsed)

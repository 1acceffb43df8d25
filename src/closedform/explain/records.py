"""A diagnosis as typed, plain values: what documents are laid out from, and what JSON holds.

Everything is numbers and strings, so a record outlives the rows, compares, copies and pickles without surprise.
``docs/report.md`` holds the schema of ``to_dict()``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from closedform.explain.finding import Finding, Verdict
from closedform.words.json_values import plain

__all__ = [
    "SCHEMA_VERSION",
    "AdviceRecord",
    "ConditionRecord",
    "CurveRecord",
    "DiagnosisRecord",
    "EnvironmentRecord",
    "LimitRecord",
    "LossRecord",
    "ProblemRecord",
    "RankRecord",
    "SimulationRecord",
    "SpectrumRecord",
    "StepLimitRecord",
    "TextRecord",
]

#: Counted up when a key of the schema changes its meaning or goes; new keys leave it as it is.
SCHEMA_VERSION = 1


@final
@dataclass(frozen=True)
class ProblemRecord:
    """The table, the layer and the run that were asked about."""

    rows: int
    features: int
    targets: int
    bias: bool
    l2: float
    dtype: str
    weighted: bool
    goal: float
    steps: int | None
    batch_size: int | None
    text: str


@final
@dataclass(frozen=True)
class TextRecord:
    """The two sentences of numbers under the verdict."""

    spectrum: str
    limits: str


@final
@dataclass(frozen=True)
class ConditionRecord:
    """A condition number of the features, as they are or after a transformation."""

    name: str
    value: float


@final
@dataclass(frozen=True)
class RankRecord:
    """The numerical rank, and how it was decided."""

    rank: int
    columns: int
    cut: float
    gap: float
    ambiguous: bool
    complete: bool


@final
@dataclass(frozen=True)
class LossRecord:
    """Losses on ``MSELoss()``.

    Attributes:
        optimal, at_zero, at_start: The smallest one, and those of zero weights and of the start.
        excess_at_start: That of the start above the smallest one.
        measured_floor: Losses below this cannot be told from zero in float64.
        rounding_floor: Losses below this are rounding in a float64 run; None where nothing is forecast.
        precision_floor: The lowest excess loss that the run reaches in the arithmetic it is trained in, likewise.
        dtype: That arithmetic.
    """

    optimal: float
    at_zero: float
    at_start: float
    excess_at_start: float
    measured_floor: float
    rounding_floor: float | None
    precision_floor: float | None
    dtype: str


@final
@dataclass(frozen=True)
class StepLimitRecord:
    """The largest stable learning rate of a method, on ``MSELoss()`` and on its sum."""

    method: str
    momentum: float
    mean: float
    sum: float
    text: str


@final
@dataclass(frozen=True)
class SpectrumRecord:
    """Singular values, and what lies along each direction as a share of the whole."""

    singular_values: tuple[float, ...]
    target_share: tuple[float, ...]
    remaining_share: tuple[float, ...]
    unexplained_share: float
    cut: float
    rank: int
    complete: bool


@final
@dataclass(frozen=True)
class SimulationRecord:
    """What the curve of any settings is computed from: sums of squares and products along each direction.

    Attributes:
        eigenvalues: Of the Hessian of ``MSELoss()``, descending.
        start_excess: Excess loss at the start along each direction.
        start_towards_zero: Mean product of what is left and the target, along each direction.
        zero_excess: Excess loss of zero weights along each direction.
        optimal_loss, excess_at_zero, goal_excess: Losses on ``MSELoss()``.
        lr, momentum, nesterov, weight_decay, dampening, steps: The settings to begin with; lr is None where there are
            none.
    """

    eigenvalues: tuple[float, ...]
    start_excess: tuple[float, ...]
    start_towards_zero: tuple[float, ...]
    zero_excess: tuple[float, ...]
    optimal_loss: float
    excess_at_zero: float
    goal_excess: float
    lr: float | None
    momentum: float
    nesterov: bool
    weight_decay: float
    dampening: float
    steps: int


@final
@dataclass(frozen=True)
class CurveRecord:
    """The forecast of a run: its settings, its excess loss by step, and when it gets to the goal."""

    name: str
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    dampening: float
    steps: tuple[int, ...]
    loss: tuple[float, ...]
    excess: tuple[float, ...]
    steps_to_goal: float
    emphasised: bool
    text: str


@final
@dataclass(frozen=True)
class LimitRecord:
    """A first-order method at its best settings; see :class:`closedform.explain.forecasts.Limit`."""

    name: str
    lr: float | None
    momentum: float | None
    rate: float
    steps: float
    bound: bool
    nesterov: bool
    text: str


@final
@dataclass(frozen=True)
class AdviceRecord:
    """A piece of common advice and its effect; where steps after it are not known they are not ``comparable``."""

    advice: str
    effect: str
    steps_before: float
    steps_after: float | None
    sentence: str
    comparable: bool


@final
@dataclass(frozen=True)
class EnvironmentRecord:
    """The versions that made the record."""

    closedform: str | None
    torch: str
    python: str
    platform: str


@final
@dataclass(frozen=True)
class DiagnosisRecord:
    """Everything that a diagnosis says.

    Attributes:
        schema_version: Of the keys and their meaning.
        verdict: What to read first.
        problem: The table, the layer, the run.
        text: Two sentences of numbers.
        condition: Condition number of the matrix that the layer sees.
        learning_rate_limit: Largest stable step of plain gradient descent on ``MSELoss()``.
        conditions, rank, loss, step_limits, spectrum, simulation: What the rows say.
        forecasts: Curves, the user's own run first where it has one.
        limits: The best that tuning can buy.
        findings, folklore, notes: What was found, common advice, what was done on the way.
        environment, code: How to reproduce it.
    """

    verdict: Verdict
    problem: ProblemRecord
    text: TextRecord
    condition: float
    learning_rate_limit: float
    conditions: tuple[ConditionRecord, ...]
    rank: RankRecord
    loss: LossRecord
    step_limits: tuple[StepLimitRecord, ...]
    spectrum: SpectrumRecord
    simulation: SimulationRecord
    forecasts: tuple[CurveRecord, ...]
    limits: tuple[LimitRecord, ...]
    findings: tuple[Finding, ...]
    folklore: tuple[AdviceRecord, ...]
    notes: tuple[str, ...]
    environment: EnvironmentRecord
    code: str
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; what is not finite becomes None."""
        values: dict[str, Any] = plain(self)
        return values

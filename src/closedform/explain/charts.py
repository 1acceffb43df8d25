"""The charts of a diagnosis: which ranges they cover, and what is drawn in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from closedform.explain.records import CurveRecord, DiagnosisRecord, SimulationRecord, SpectrumRecord
from closedform.report.charts import LEFT, RIGHT, Chart, Mark, Rule, Scale, Series, decades
from closedform.report.palette import ink_name

__all__ = [
    "MARKS",
    "MeasuredCurve",
    "direction_chart",
    "forecast_chart",
    "share_chart",
    "singular_value_chart",
    "spectrum_chart",
]

#: At most so many marks along the directions; beyond it, neighbouring directions share one.
MARKS = 300
#: Decades shown below the largest singular value or share: what is smaller is rounding of the largest.
_DEPTH = 20
#: Steps beyond which no axis goes.
_LAST_STEP = 1e18
#: Decades shown below the goal of the forecast.
_BELOW_GOAL = 2.0
#: Bottom and top of a small plot, in user units.
_SMALL = (230.0, 14.0)
#: Height of the drawing with a small plot, its axis included.
_SMALL_HEIGHT = 272.0
#: Bottom and top of a large plot, in user units.
_LARGE = (330.0, 14.0)
#: Height of the drawing with a large plot, its axis included.
_LARGE_HEIGHT = 372.0
#: How the axis of the directions is called.
_DIRECTIONS = "direction, from the steepest to the flattest"


@final
@dataclass(frozen=True)
class MeasuredCurve:
    """Excess losses that a real run was measured to have."""

    name: str
    steps: Sequence[int]
    excess: Sequence[float]


def singular_value_chart(spectrum: SpectrumRecord) -> Chart:
    """Singular values, descending, with the cut-off below which they count as zero."""
    values = spectrum.singular_values
    # The cut is relative to the largest of them.
    cuts = _positive([spectrum.cut * max(values, default=0.0)])
    low, high = _deep([*values, *cuts])
    places, heads = _grouped(values, max)
    rank = spectrum.rank
    return Chart(
        key="singular-values",
        title="Singular values",
        x_title=_DIRECTIONS,
        y_title="singular value",
        x=_direction_scale(len(values)),
        y=Scale(low, high, *_SMALL),
        height=_SMALL_HEIGHT,
        series=(Series("singular value", "c0", places, heads, marks=True),),
        rules=tuple(Rule(cut, "cut-off", "cut") for cut in cuts),
        marks=(Mark(float(rank), f"rank {rank:,}"),) if 0 < rank < len(values) else (),
    )


def share_chart(spectrum: SpectrumRecord) -> Chart:
    """Share of the target along each direction, and of the excess loss at the start."""
    # Shares of what is beyond float64 are not known.
    target, remaining = (
        [share if math.isfinite(share) else 0.0 for share in shares]
        for shares in (spectrum.target_share, spectrum.remaining_share)
    )
    low, high = _deep([*target, *remaining])
    places, target = _grouped(target, sum)
    return Chart(
        key="shares",
        title="What lies along each direction",
        x_title=_DIRECTIONS,
        y_title="share",
        x=_direction_scale(len(spectrum.singular_values)),
        y=Scale(low, high, *_SMALL),
        height=_SMALL_HEIGHT,
        series=(
            Series("share of the target", "c1", places, target, marks=True, shape="halo"),
            Series("share of the excess loss at the start", "c2", *_grouped(remaining, sum), marks=True),
        ),
    )


def spectrum_chart(record: DiagnosisRecord) -> Chart:
    """Singular values, relative to the largest, and the target's share along each direction: for one figure."""
    spectrum = record.spectrum
    largest = max(spectrum.singular_values, default=1.0) or 1.0
    values = [value / largest for value in spectrum.singular_values]
    low, high = _deep([*values, *spectrum.target_share, spectrum.cut])
    return Chart(
        key="spectrum-figure",
        title=record.problem.text,
        x_title=_DIRECTIONS,
        y_title="relative size",
        x=_direction_scale(len(values)),
        y=Scale(low, high + 1, *_LARGE),
        height=_LARGE_HEIGHT,
        series=(
            Series("singular value, of the largest", "c0", *_grouped(values, max)),
            Series("share of |Y|² along the direction", "c1", *_grouped(spectrum.target_share, sum), marks=True),
        ),
        rules=tuple(Rule(cut, "taken for zero below", "cut") for cut in _positive([spectrum.cut])),
    )


def forecast_chart(record: DiagnosisRecord, measured: Sequence[MeasuredCurve] = (), *, live: bool = True) -> Chart:
    """Excess loss against steps: the forecasts, the measured runs, and room for the curve that the reader moves.

    A chart that is not ``live`` ends where its curves end; else the reader may go on to the goal.
    """
    simulation, forecasts = record.simulation, record.forecasts
    goal = simulation.goal_excess if math.isfinite(simulation.goal_excess) else 0.0
    start = sum(simulation.start_excess)
    reached = [excess for run in measured for excess in run.excess]
    low, high = decades([*_positive([start, simulation.excess_at_zero, goal * 10**-_BELOW_GOAL]), *reached], least=3)
    names = list(dict.fromkeys([*(curve.name for curve in forecasts), *(run.name for run in measured)]))
    ink = {name: ink_name(index) for index, name in enumerate(names)}
    rules = [Rule(value, "goal", "cut") for value in _positive([goal])]
    floors = _positive([record.loss.precision_floor])
    # The floor is that of one run; where another was measured below it, it is no floor of this chart.
    rules += [
        Rule(value, f"{record.loss.dtype} rounds here") for value in floors if value <= min(reached, default=value)
    ]

    return Chart(
        key="forecast",
        title="Excess loss, step by step",
        x_title="steps",
        y_title="excess loss (loss less the optimal loss)",
        x=Scale(0.0, _last_decade(record, measured, live), LEFT, RIGHT),
        # One decade of head room shows where a run that diverges leaves.
        y=Scale(low, high + 1, *_LARGE),
        height=_LARGE_HEIGHT,
        series=(
            *(_forecast_series(curve, ink[curve.name]) for curve in forecasts),
            *(Series(f"{run.name} (measured)", ink[run.name], run.steps, run.excess, marks=True) for run in measured),
        ),
        rules=tuple(rules),
        live=(("the settings below", "live"),) if live else (),
    )


def _forecast_series(curve: CurveRecord, ink: str) -> Series:
    finite = [excess if math.isfinite(excess) else None for excess in curve.excess]
    return Series(f"{curve.name} (forecast)", ink, curve.steps, finite, emphasised=curve.emphasised)


def _last_decade(record: DiagnosisRecord, measured: Sequence[MeasuredCurve], live: bool) -> float:
    ends: list[float] = [curve.steps[-1] for curve in record.forecasts if curve.steps]
    ends += [run.steps[-1] for run in measured if run.steps]
    if live:
        ends += [record.simulation.steps, *(curve.steps_to_goal for curve in record.forecasts)]
        ends += [limit.steps for limit in record.limits]
    last = max((min(end, _LAST_STEP) for end in ends if 0 < end < math.inf), default=100)
    return max(2.0, math.ceil(math.log10(last)))


def direction_chart(simulation: SimulationRecord) -> Chart:
    """Excess loss along each direction at the start, and room for what the reader's settings leave of it."""
    start = simulation.start_excess
    low, high = _deep(start)
    places, sums = _grouped(start, sum)
    return Chart(
        key="left",
        title="Where the excess loss that is left lies",
        x_title=_DIRECTIONS,
        y_title="excess loss",
        x=_direction_scale(len(start)),
        y=Scale(low, high, *_SMALL),
        height=_SMALL_HEIGHT,
        series=(Series("at the start", "rest", places, sums, marks=True, shape="halo"),),
        live=(("left after these steps", "live"),),
    )


def _direction_scale(directions: int) -> Scale:
    return Scale(0.5, max(directions, 1) + 0.5, LEFT, RIGHT, logarithmic=False)


def _grouped(values: Sequence[float], combine: Callable[[Sequence[float]], float]) -> tuple[list[float], list[float]]:
    """Join neighbours until at most ``MARKS`` are left; the places are those of the groups' middles, counted from 1."""
    size = max(1, math.ceil(len(values) / MARKS))
    starts = range(0, len(values), size)
    groups = [values[start : start + size] for start in starts]
    places = [start + (len(group) + 1) / 2 for start, group in zip(starts, groups, strict=True)]
    return places, [combine(group) for group in groups]


def _deep(values: Sequence[float]) -> tuple[float, float]:
    low, high = decades(values)
    return max(low, high - _DEPTH), high


def _positive(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and 0 < value < math.inf]

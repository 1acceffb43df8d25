"""The charts of a diagnosis: which ranges they cover, and what is drawn in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from closedform.report.charts import LEFT, RIGHT, Chart, Mark, Rule, Scale, Series, decades

__all__ = [
    "COLOURS",
    "MARKS",
    "MeasuredCurve",
    "direction_chart",
    "forecast_chart",
    "share_chart",
    "singular_value_chart",
]

#: At most so many marks along the directions; beyond it, neighbouring directions share one.
MARKS = 300
#: Decades shown below the largest singular value or share: what is smaller is rounding of the largest.
_DEPTH = 20
_LAST_STEP = 1e18
#: Decades shown below the goal of the forecast.
_BELOW_GOAL = 2.0
#: Colours that the style knows, as the classes c0, c1, ...
COLOURS = 7


@final
@dataclass(frozen=True)
class MeasuredCurve:
    """Excess losses that a real run was measured to have."""

    name: str
    steps: Sequence[int]
    excess: Sequence[float]


def singular_value_chart(spectrum: Mapping[str, Any]) -> Chart:
    """Singular values, descending, with the cut-off below which they count as zero."""
    values = spectrum["singular_values"]
    # The cut is relative to the largest of them.
    cuts = _positive([spectrum["cut"] * max(values, default=0.0)])
    low, high = _deep([*values, *cuts])
    places, heads = _grouped(values, max)
    rank = spectrum["rank"]
    x = _direction_scale(len(values))
    return Chart(
        key="singular-values",
        title="Singular values",
        x_title="direction, from the steepest to the flattest",
        y_title="singular value",
        x=x,
        y=Scale(low, high, 230.0, 14.0),
        height=272.0,
        series=(Series("singular value", "c0", places, heads, marks=True),),
        rules=tuple(Rule(cut, "cut-off", "cut") for cut in cuts),
        marks=(Mark(float(rank), f"rank {rank:,}"),) if 0 < rank < len(values) else (),
    )


def share_chart(spectrum: Mapping[str, Any]) -> Chart:
    """Share of the target along each direction, and of the excess loss at the start."""
    # Shares of what is beyond float64 are not known.
    target, remaining = ([share or 0.0 for share in spectrum[key]] for key in ("target_share", "remaining_share"))
    low, high = _deep([*target, *remaining])
    places, target = _grouped(target, sum)
    return Chart(
        key="shares",
        title="What lies along each direction",
        x_title="direction, from the steepest to the flattest",
        y_title="share",
        x=_direction_scale(len(spectrum["singular_values"])),
        y=Scale(low, high, 230.0, 14.0),
        height=272.0,
        series=(
            Series("share of the target", "c1 halo", places, target, marks=True),
            Series("share of the excess loss at the start", "c2", *_grouped(remaining, sum), marks=True),
        ),
    )


def forecast_chart(d: Mapping[str, Any], measured: Sequence[MeasuredCurve] = (), *, live: bool = True) -> Chart:
    """Excess loss against steps: the forecasts, the measured runs, and room for the curve that the reader moves.

    A chart that is not ``live`` ends where its curves end; else the reader may go on to the goal.
    """
    simulation, loss, forecasts = d["simulation"], d["loss"], d["forecasts"]
    goal = simulation["goal_excess"] or 0.0
    start = sum(simulation["start_excess"])
    reached = [excess for run in measured for excess in run.excess]
    low, high = decades([*_positive([start, simulation["excess_at_zero"], goal * 10**-_BELOW_GOAL]), *reached], least=3)
    # One decade of head room shows where a run that diverges leaves.
    high += 1
    ends = [curve[-1] for curve in (*(f["steps"] for f in forecasts), *(run.steps for run in measured)) if curve]
    if live:
        ends += [simulation["steps"], *(run["steps_to_goal"] for run in forecasts)]
        ends += [limit["steps"] for limit in d["limits"]]
    last = max((min(end, _LAST_STEP) for end in _positive(ends)), default=100)
    names = list(dict.fromkeys([*(f["name"] for f in forecasts), *(run.name for run in measured)]))
    colour = {name: f"c{index % COLOURS}" for index, name in enumerate(names)}
    floor = loss["precision_floor"]
    rules = [Rule(value, "goal", "cut") for value in _positive([goal])]
    rules += [Rule(value, f"{loss['dtype']} rounds here") for value in _positive([floor])]
    return Chart(
        key="forecast",
        title="Excess loss, step by step",
        x_title="steps",
        y_title="excess loss (loss less the optimal loss)",
        x=Scale(0.0, max(2.0, math.ceil(math.log10(last))), LEFT, RIGHT),
        y=Scale(low, high, 330.0, 14.0),
        height=372.0,
        series=(
            *(Series(f"{f['name']} (forecast)", colour[f["name"]], f["steps"], f["excess"]) for f in forecasts),
            *(Series(f"{m.name} (measured)", colour[m.name], m.steps, m.excess, marks=True) for m in measured),
        ),
        rules=tuple(rules),
        live=(("the settings below", "live"),) if live else (),
    )


def direction_chart(simulation: Mapping[str, Any]) -> Chart:
    """Excess loss along each direction at the start, and room for what the reader's settings leave of it."""
    start = simulation["start_excess"]
    low, high = _deep(start)
    places, sums = _grouped(start, sum)
    return Chart(
        key="left",
        title="Where the excess loss that is left lies",
        x_title="direction, from the steepest to the flattest",
        y_title="excess loss",
        x=_direction_scale(len(start)),
        y=Scale(low, high, 230.0, 14.0),
        height=272.0,
        series=(Series("at the start", "rest halo", places, sums, marks=True),),
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
    return [value for value in values if value is not None and value > 0]

"""The user's own run, by whatever way it is known: forecast, expected, rehearsed to its end, or extrapolated."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from closedform.explain.extrapolation import Outlook, has_settled
from closedform.explain.forecasts import Forecast, MiniBatch, ScheduledBatches, ScheduledRun
from closedform.explain.rehearsal import Rehearsal
from closedform.explain.sampling import DrawnRuns

__all__ = [
    "FEEDBACK",
    "Course",
    "drawn_course",
    "expected_course",
    "extrapolated_course",
    "forecast_course",
    "rehearsed_course",
    "scheduled_batch_course",
    "scheduled_course",
]

#: Share of the last steps that all have to be at the goal for a rehearsed run to count as there.
_WINDOW = 0.02
#: Share of those steps that have to.
_MOSTLY = 0.9
#: Growth of the excess loss from which on rounding decides what is left of it in the end.
_FAR = 1e4
#: Losses of two runs that differ by less than this share are those of any other run of the same settings.
_ALIKE = 0.01
#: Share of the last steps that show what losses runs have whose path rounding decides.
_AROUND = 0.2
#: Times that excess losses which grew out of rounding may be off: roundings of the rows' sums are known to a factor of
#: ten, and an excess loss is a square.
_ROUNDING_DOUBT = 100.0
#: Share of the last losses that a run had fallen below for it to have been at rest, of one target at the least.
_RESTING = 1e-6
#: Times that ends of LBFGS may lie beyond those of two rehearsals which rounding parts, beside how far these are apart.
_LBFGS_DOUBT = 3.0
#: Times the excess loss of the full batch from which on that of mini-batches is noise that feeds on itself.
FEEDBACK = 2.0
#: Share of the steps of a run that still falls which are its end.
_ENDING = 0.003
#: Share of the excess loss below which batches that move evenly are taken to arrive, and to shake from then on.
_ARRIVING = 0.1
#: Times from one step to the next, half of the time, that a run has to move by to count as one that jumps.
_JUMP = 1.5
#: Share of the last steps, of all draws, that show what losses runs on batches end with which have settled or jump;
#: bursts are rare.
_LEVEL = 0.8
#: The same of runs that still fall.
_FALLING = 0.08
#: Points of the curve of mini-batches, spread evenly in the logarithm of the step.
_POINTS = 60


@final
@dataclass(frozen=True, eq=False)
class Course:
    """The user's own run, whatever the optimizer.

    Attributes:
        steps: Steps at which the curve is given, ``(points,)``, int64.
        excess: Excess loss there, ``(points,)``.
        left: Excess loss at the end of the run.
        least, most: What it may be at the least and at the most; equal to ``left`` unless it is extrapolated.
        how: ``forecast``, ``expected`` (over the draws of mini-batches), ``rehearsed``, ``drawn`` (rehearsed on some
            draws of batches) or ``extrapolated``.
        made: Steps that were forecast or made.
        last: Excess losses of the last steps, of both runs where rounding decides the path, ``(points,)``; None where
            there is but one way to end.
    """

    steps: Tensor
    excess: Tensor
    left: float
    least: float
    most: float
    how: str
    made: int
    last: Tensor | None = None

    def share_within(self, goal: float) -> float:
        """Share of the last steps whose excess loss is at most the goal."""
        return float(self.left <= goal) if self.last is None else float((self.last <= goal).double().mean())

    @property
    def known(self) -> str:
        """How it is known, in words."""
        if self.how == "extrapolated":
            return f"extrapolated from step {self.made:,} of a rehearsal on these data"
        known = {"expected": "forecast in expectation", "rehearsed": "rehearsed on these data"}
        return (known | {"drawn": "rehearsed on batches drawn from these data"}).get(self.how, self.how)


def scheduled_course(run: ScheduledRun, exact: ScheduledRun | None, steps: int, start_excess: float) -> Course:
    """Return the course of a run under a schedule.

    Args:
        run: In the user's arithmetic.
        exact: Without rounding.
        steps: Steps of the run.
        start_excess: Excess loss at its start.
    """
    ends = [run.left] if exact is None else [run.left, exact.left]
    # A run that grows that far comes back with rounding of what it was; how much, no forecast knows.
    if run.peak > _FAR * start_excess and run.left < start_excess:
        ends = [0.0, math.inf]
    # Steps above the limit that grow out of rounding alone: a run that has come to rest, to the last digit, stays.
    apart = max(ends) > _FAR * min(ends)
    least, most = (min(ends), _ROUNDING_DOUBT * max(ends)) if apart else (run.left, run.left)
    if apart and max(ends) > start_excess:
        # Grown out of rounding beyond where it started: how early it began to, nobody knows.
        most = math.inf
    return Course(run.steps, run.excess, run.left, least, most, "forecast", steps)


def expected_course(batches: MiniBatch, steps: int) -> Course:
    """Return the course of mini-batches, in expectation over their draws: anew for each, or at the least by epochs.

    Args:
        batches: With rows drawn anew for each batch.
        steps: Steps of the run.
    """
    left = batches.excess_at(steps)
    points = torch.unique(torch.logspace(0, math.log10(steps), _POINTS, device="cpu").round().to(torch.int64))
    points = torch.cat([torch.tensor([0], device="cpu"), points.clamp(max=steps)])
    curve = torch.tensor([batches.excess_at(int(step)) for step in points], dtype=torch.float64, device="cpu")
    full = float(batches.mean.excess_at([steps]))
    on_its_way = left > 2 * batches.noise_floor + batches.mean.decay_excess
    if not batches.stable or (on_its_way and left > FEEDBACK * full):
        # An expectation that noise holds up by feeding on itself is made by few runs, and only of rows drawn anew:
        # batches of one pass make up for each other. Most runs stay below it.
        return Course(points, curve, left, 0.0, left, "expected", steps)
    by_epochs = left + batches.noise_floor_by_epochs - batches.noise_floor
    return Course(points, curve, left, min(left, max(0.0, by_epochs)), max(left, by_epochs), "expected", steps)


def scheduled_batch_course(run: ScheduledBatches, steps: int) -> Course:
    """Return the course of mini-batches under a schedule, in expectation over their draws."""
    # Shuffled passes leave less of the noise than rows drawn anew, at a falling rate nearly none.
    least = run.mean.left if math.isfinite(run.left) else 0.0
    return Course(run.mean.steps, run.excess, run.left, least, run.left, "expected", steps)


def forecast_course(run: Forecast, steps: int) -> Course:
    """Return the course of SGD at a constant learning rate."""
    left = float(run.excess_at([steps]))
    return Course(run.steps, run.excess, left, left, left, "forecast", steps)


def rehearsed_course(run: Rehearsal, excess: Tensor, twin: Tensor | None, rounding: float) -> Course:
    """Return the course of a run that was rehearsed to its end.

    Args:
        run: The rehearsal.
        excess: Its excess losses, ``(points,)``.
        twin: Those of the same run from weights a few roundings away, or None.
        rounding: Excess losses that are rounding.
    """
    left, window = float(excess[-1]), _last(excess, _WINDOW)
    # Adam's late jumps pass; what most of the last steps keep to is what a user will find.
    least, most = left, max(left, float(torch.quantile(window, _MOSTLY))) if math.isfinite(left) else left
    last = None

    if twin is not None and isinstance(run.optimizer, torch.optim.LBFGS):
        # What an iteration leaves comes of the digits that the last one lost, and it is over after a few.
        ends = [float(excess[-1]), float(twin[-1])]
        if _part(excess[-1:], twin[-1:], rounding) and all(map(math.isfinite, ends)):
            doubt = _LBFGS_DOUBT * max(ends) / max(min(ends), 1e-300)
            least, most = min(ends) / doubt, max(ends) * doubt
    elif twin is not None and math.isfinite(left) and _part(_last(excess, _AROUND), _last(twin, _AROUND), rounding):
        # Every run goes its own way, among losses like those of the two.
        last = torch.cat([_last(excess, _AROUND), _last(twin, _AROUND)])
        least, most = min(left, float(last.min()) / _ROUNDING_DOUBT), max(most, float(last.max()))
        # Who has come to rest at the minimum stays there until rounding lets go of it, which no rehearsal can date;
        # targets that do so at different times leave a sum that never rests.
        lowest = min(float(excess.min()), float(twin.min()))
        if lowest <= max(_ROUNDING_DOUBT * rounding, _RESTING * float(last.min())):
            least = 0.0

    return Course(run.steps, excess, left, least, most, "rehearsed", int(run.steps[-1]), last)


def _is_erratic(excess: Tensor) -> bool:
    """Whether runs jump from step to step, ``(steps + 1, runs)``, as LBFGS does that takes batches for one function."""
    late = _last(excess, _LEVEL).clamp_min(torch.finfo(excess.dtype).tiny).log()
    return late.shape[0] > 1 and float(torch.diff(late, dim=0).abs().median()) > math.log(_JUMP)


def drawn_course(runs: DrawnRuns, found: Outlook | None, steps: int) -> Course:
    """Return the course of mini-batches of which some draws were rehearsed.

    Args:
        runs: The draws.
        found: What follows from their mean where they were cut short; else None.
        steps: Steps of the run.
    """
    made, mean = runs.excess.shape[0] - 1, runs.excess.mean(1)
    if found is not None:
        here = float(_last(mean, _WINDOW).mean())
        if found.how == "power law" or (found.how == "evenly" and found.left < _ARRIVING * here):
            # Where it will come to rest is not to be seen from here: between the minimum and this.
            found = replace(found, left=here, least=0.0, most=here)
        points = replace(runs.first, steps=torch.arange(made + 1, device="cpu"))
        return extrapolated_course(points, mean, found, steps)

    # Every run goes its own way; what the last steps of all of them have is what a user will find. Before it has
    # settled only the very last ones have.
    finite = bool(torch.isfinite(mean).all())
    level, erratic = finite and has_settled(mean), finite and _is_erratic(runs.excess)
    last = _last(runs.excess, _LEVEL if level or erratic else _FALLING).reshape(-1)
    # Where it jumps it may be anywhere between at any step, the last one included.
    left = float(last.mean() if erratic else _last(mean, _WINDOW if level else _ENDING).mean())

    least, most = float(last.min()), float(last.max())
    return Course(torch.arange(made + 1, device="cpu"), mean, left, least, most, "drawn", made, last)


def _part(one: Tensor, other: Tensor, rounding: float) -> bool:
    """Whether two runs differ by more than rounding does."""
    if one.shape != other.shape:
        return True
    return bool(((one - other).abs() > _ALIKE * torch.maximum(one, other) + rounding).any())


def _last(excess: Tensor, share: float) -> Tensor:
    return excess[-max(1, int(share * excess.shape[0])) :]


def extrapolated_course(run: Rehearsal, excess: Tensor, found: Outlook, steps: int) -> Course:
    """Return the course of a run whose rehearsal was cut short, and what follows from its end."""
    points = torch.cat([run.steps, torch.tensor([steps], device="cpu")])
    curve = torch.cat([excess, torch.tensor([found.left], dtype=torch.float64, device="cpu")])
    return Course(points, curve, found.left, found.least, found.most, "extrapolated", int(run.steps[-1]))

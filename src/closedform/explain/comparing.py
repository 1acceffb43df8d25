"""A recorded run beside the one that was described: at which of its steps the record fits best, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.rehearsal import Loop

__all__ = ["ENOUGH", "POINTS", "SAME", "Comparison", "compare_with_record", "expected_losses", "fits", "resolution"]

#: Losses that differ by less than this share are the same: the loops of users record in float32, or a mean of batches.
SAME = 1e-3
#: Points that have to fit before a slip is named.
ENOUGH = 4
#: Points of a record that are looked at before all of them.
_FIRST = 2
#: Points of a record that are compared.
POINTS = 200
#: Decimals up to which losses count as rounded for print.
_DECIMALS = 8
#: Steps that a simulation makes for them.
_STEPS = 2_000


@final
@dataclass(frozen=True, eq=False)
class Comparison:
    """A record beside the forecast, both as ``MSELoss()``.

    Attributes:
        recorded: What was recorded, ``(points,)``.
        expected: What the run as given would have, at the steps it fits best, ``(points,)``.
        every: Steps from one point to the next.
        agrees: Whether they are the same.
        differs_at: The first point where they are not.
        starts: Whether the record starts where the run does.
        ends_here: Whether the record ends at the weights that the model has now.
    """

    recorded: Tensor
    expected: Tensor
    every: int
    agrees: bool
    differs_at: int
    starts: bool
    ends_here: bool


def compare_with_record(case: Case) -> Comparison | None:
    """Hold the record against the forecast; None where one of them is missing.

    Args:
        case: The case.
    """
    setting = case.setting
    history, criterion = setting.history, setting.criterion
    if history is None or not setting.squared or not setting.full_batch or setting.broadcasts:
        return None
    if case.training.cannot_step:
        return None

    curve = expected_losses(case)
    if curve is None or curve.numel() < 2 or history.numel() < ENOUGH:
        return None
    sign = -1.0 if criterion is not None and criterion.factor < 0 else 1.0
    recorded = (history / (sign * setting.loss_factor))[:POINTS]
    best: Comparison | None = None

    likely = _stride_by_lengths(case)
    for every in _strides(case, recorded, curve):
        for offset in (*_offsets(every), *_later(recorded, curve)):
            found = _compare(case, recorded, curve, every, offset)
            if found is not None and found.agrees:
                return found
            if found is None or offset not in _offsets(every):
                continue
            if best is None or _merit(found, likely) > _merit(best, likely):
                best = found
    return best


def _merit(found: Comparison, likely: int) -> tuple[int, bool]:
    """Points that agree, beyond the two that some strides are chosen to make agree, and whether lengths say so too."""
    return max(found.differs_at, 2), found.every == likely


def expected_losses(case: Case) -> Tensor | None:
    """Return losses of the run as given, after 0, 1, 2, ... steps, ``(steps + 1,)``; None where they are not known.

    Args:
        case: The case.
    """
    training = case.training
    if training.forecast is not None:
        return training.forecast.excess_at(torch.arange(_STEPS + 1, device="cpu")) + training.forecast.optimal_loss
    if training.rehearsal is not None:
        return training.rehearsal.loss
    run = training.stage.run(min(_STEPS, case.setting.patience))
    return None if run is None else run.loss


def _strides(case: Case, recorded: Tensor, curve: Tensor) -> Iterator[int]:
    """Yield steps between points that are worth trying: one, what the lengths say, what the second point says."""
    yield 1
    points = 0 if case.setting.history is None else case.setting.history.numel()
    if case.setting.steps is not None and points > 1:
        yield from {max(1, round(case.setting.steps / n)) for n in (points, points - 1)} - {1}
    first, second = ((curve <= float(value) * (1 + SAME)).nonzero() for value in recorded[:2])
    if second.numel() and int(second[0]) > 1:
        yield int(second[0])
    if first.numel() and second.numel() and int(second[0]) - int(first[0]) > 1:
        yield int(second[0]) - int(first[0])


def _stride_by_lengths(case: Case) -> int:
    """Steps between two points by the lengths of record and run; 1 where they do not tell."""
    history, steps = case.setting.history, case.setting.steps
    points = 0 if history is None else history.numel()
    if steps is None or not ENOUGH <= points < steps:
        return 1
    every = max(1, round(steps / points))
    return every if -(-steps // every) == points or steps // every in (points, points - 1) else 1


def _later(recorded: Tensor, curve: Tensor) -> tuple[int, ...]:
    """The step at which a record begins that leaves out the first ones: where the run as given has its first loss."""
    same = ((curve - recorded[0]).abs() <= SAME * curve).nonzero()
    return (int(same[0]),) if same.numel() and int(same[0]) > 1 else ()


def _offsets(every: int) -> tuple[int, ...]:
    """Steps of the first point: it is written down before the step or after it, first or when the stride is over."""
    return (0, 1) if every == 1 else (0, 1, every - 1, every)


def resolution(history: Tensor) -> float:
    """Return half a unit of the last decimal that all losses of a record are rounded to; 0 where they are not.

    Args:
        history: The losses, ``(points,)``.
    """
    values = torch.unique(history[torch.isfinite(history)])
    if values.numel() < ENOUGH:
        return 0.0
    for decimals in range(_DECIMALS):
        rounded = torch.round(values, decimals=decimals)
        if bool(((rounded - values).abs() <= 1e-14 * values.abs()).all()):
            return 0.5 * 10.0**-decimals
    return 0.0


def _tolerance(case: Case, expected: Tensor) -> Tensor:
    rounding, history = 100 * case.training.rounding_excess, case.setting.history
    if history is not None:
        rounding += resolution(history[:POINTS]) / case.setting.loss_factor
    return SAME * expected.abs() + rounding


def _compare(case: Case, recorded: Tensor, curve: Tensor, every: int, offset: int) -> Comparison | None:
    at = offset + every * torch.arange(recorded.numel(), device="cpu")
    at = at[at < curve.numel()]
    if at.numel() < min(ENOUGH, recorded.numel()):
        return None
    expected, seen = curve[at], recorded[: at.numel()]
    apart = ~((seen - expected).abs() <= _tolerance(case, expected))
    start = float(curve[0])
    last = float(recorded[-1])
    return Comparison(
        recorded=seen,
        expected=expected,
        every=every,
        agrees=not bool(apart.any()),
        differs_at=int(apart.nonzero()[0]) if bool(apart.any()) else at.numel(),
        starts=abs(float(recorded[0]) - start) <= 10 * SAME * start or not bool(apart[0]),
        ends_here=abs(last - start) <= 10 * SAME * abs(start) or abs(last - float(curve[1])) <= 10 * SAME * abs(last),
    )


def fits(case: Case, found: Comparison, loop: Loop, factor: float = 1.0, rate: float = 1.0) -> bool:
    """Return whether a run with such a loop has the losses that were recorded.

    Args:
        case: The case.
        found: The record beside the run as given.
        loop: What becomes of gradients.
        factor: What the user's loss is multiplied by.
        rate: What the user's learning rates are multiplied by.
    """
    points = found.recorded.numel()
    # A run of a few steps refuses most of what is tried.
    return all(_fits(case, found, some, (loop, factor, rate)) for some in sorted({min(_FIRST, points), points}))


def _fits(case: Case, found: Comparison, points: int, tried: tuple[Loop, float, float]) -> bool:
    """Return whether the first points of the record are those of a run; a run that overflows ends before."""
    loop, factor, rate = tried
    # No further than the run: some schedules end with it.
    steps = min(_STEPS, points * found.every + 1, case.setting.patience)
    run = case.training.stage.run(steps, loop, factor, rate=rate)
    if run is None:
        return False
    losses, enough = run.loss, min(ENOUGH, points)
    for offset in _offsets(found.every):
        other = _compare(case, found.recorded[:points], losses, found.every, offset)
        if other is None:
            if points < found.recorded.numel():
                return True  # it overflows or ends before; all points tell
            continue
        if other.agrees and other.recorded.numel() >= enough:
            return True
        # A run that overflows ends the simulation and the record alike.
        if other.differs_at >= other.recorded.numel() - 1 >= ENOUGH:
            return True
    return False

"""Known slips of training loops, each simulated and held against the losses that the user recorded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.rehearsal import Loop
from closedform.explain.wording import count, short

__all__ = ["Comparison", "Slip", "compare_with_record", "explain_record"]

#: Losses that differ by less than this share are the same: the loops of users record in float32, or a mean of batches.
_SAME = 1e-3
#: Points of a record that are compared.
_POINTS = 200
#: Steps that a simulation makes for them.
_STEPS = 2_000
#: Points that have to fit before a slip is named.
_ENOUGH = 4


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


@final
@dataclass(frozen=True)
class Slip:
    """What explains a record.

    Attributes:
        title: The slip, in a line.
        sentence: What it does.
        remedy: Code that mends it.
    """

    title: str
    sentence: str
    remedy: str


def compare_with_record(case: Case) -> Comparison | None:
    """Hold the record against the forecast; None where one of them is missing."""
    setting = case.setting
    history, criterion = setting.history, setting.criterion
    if history is None or not setting.squared or not setting.full_batch or setting.broadcasts:
        return None
    curve = _expected(case)
    if curve is None or curve.numel() < 2 or history.numel() < _ENOUGH:
        return None
    sign = -1.0 if criterion is not None and criterion.factor < 0 else 1.0
    recorded = (history / (sign * setting.loss_factor))[:_POINTS]
    best: Comparison | None = None
    for every in _strides(case, recorded, curve):
        for offset in _offsets(every):
            found = _compare(case, recorded, curve, every, offset)
            if found is not None and (best is None or found.differs_at > best.differs_at):
                best = found
            if found is not None and found.agrees:
                return found
    return best


def _expected(case: Case) -> Tensor | None:
    """Losses of the run as given, after 0, 1, 2, ... steps, ``(steps + 1,)``."""
    training = case.training
    if training.forecast is not None:
        return training.forecast.excess_at(torch.arange(_STEPS + 1, device="cpu")) + training.forecast.optimal_loss
    if training.rehearsal is not None:
        return training.rehearsal.loss
    run = training.stage.run(_STEPS)
    return None if run is None else run.loss


def _strides(case: Case, recorded: Tensor, curve: Tensor) -> Iterator[int]:
    """Yield steps between points that are worth trying: one, what the lengths say, what the second point says."""
    yield 1
    points = 0 if case.setting.history is None else case.setting.history.numel()
    if case.setting.steps is not None and points > 1:
        yield from {max(1, round(case.setting.steps / n)) for n in (points, points - 1)} - {1}
    first, second = ((curve <= float(value) * (1 + _SAME)).nonzero() for value in recorded[:2])
    if second.numel() and int(second[0]) > 1:
        yield int(second[0])
    if first.numel() and second.numel() and int(second[0]) - int(first[0]) > 1:
        yield int(second[0]) - int(first[0])


def _offsets(every: int) -> tuple[int, ...]:
    """Steps of the first point: it is written down before the step or after it, first or when the stride is over."""
    return (0, 1) if every == 1 else (0, 1, every - 1, every)


def _tolerance(case: Case, expected: Tensor) -> Tensor:
    rounding = 100 * case.training.rounding_excess
    return _SAME * expected.abs() + rounding


def _compare(case: Case, recorded: Tensor, curve: Tensor, every: int, offset: int) -> Comparison | None:
    at = offset + every * torch.arange(recorded.numel(), device="cpu")
    at = at[at < curve.numel()]
    if at.numel() < min(_ENOUGH, recorded.numel()):
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
        starts=abs(float(recorded[0]) - start) <= 10 * _SAME * start or not bool(apart[0]),
        ends_here=abs(last - start) <= 10 * _SAME * abs(start) or abs(last - float(curve[1])) <= 10 * _SAME * abs(last),
    )


def explain_record(case: Case, found: Comparison) -> Slip | None:
    """Return the slip whose simulation fits the record, or None."""
    for slip in _SLIPS:
        explained = slip(case, found)
        if explained is not None:
            return explained
    return None if found.starts else _other_scale(case, found)


def _fits(case: Case, found: Comparison, loop: Loop, factor: float = 1.0) -> bool:
    """Whether a run with such a loop has the losses that were recorded."""
    run = case.training.stage.run(min(_STEPS, found.recorded.numel() * found.every + 1), loop, factor)
    if run is None:
        return False
    losses = run.loss
    for offset in _offsets(found.every):
        other = _compare(case, found.recorded, losses, found.every, offset)
        if other is not None and other.agrees and other.recorded.numel() >= _ENOUGH:
            return True
        # A run that overflows ends the simulation and the record alike.
        if other is not None and other.differs_at >= other.recorded.numel() - 1 >= _ENOUGH:
            return True
    return False


def _nothing_moves(case: Case, found: Comparison) -> Slip | None:
    recorded = found.recorded
    if not bool(((recorded - recorded[0]).abs() <= 1e-6 * recorded[0].abs()).all()):
        return None
    return Slip(
        "Nothing moves: the recorded loss is the same at every point",
        "The optimizer of that run does not step, or holds other parameters than the model that computes the loss.",
        "optimizer = "
        + _optimizer_code(case).removeprefix("optimizer = ")
        + "   # over this model, and step() in the loop",
    )


def _never_zeroed(case: Case, found: Comparison) -> Slip | None:
    if not _fits(case, found, Loop(zeroes=False)):
        return None
    return Slip(
        "Gradients are never zeroed: the record is that of a run whose gradients add up",
        "Added up, they act like momentum 1, which swings around the minimum and never settles.",
        "optimizer.zero_grad()   # before each loss.backward()",
    )


def _uphill(case: Case, found: Comparison) -> Slip | None:
    if not _fits(case, found, Loop(), -1.0):
        return None
    return Slip(
        "The recorded run goes uphill: its gradient has the wrong sign",
        "Every step makes the error larger: the loss that was differentiated is minus this one, or maximize was set.",
        "optimizer.param_groups[0]['maximize'] = False   # and loss.backward() of the loss, not of minus the loss",
    )


def _first_rate(case: Case, found: Comparison) -> float | None:
    """The learning rate of the first recorded step, as a multiple of the one given, for SGD."""
    optimizer, gaps = case.setting.optimizer, case.training.start_gaps
    if optimizer is None or optimizer.kind != "sgd" or optimizer.warm_momentum or found.every != 1:
        return None
    spectrum = case.landscape.spectrum
    # Of a record that starts after the first step, the first point tells of it.
    second = float(found.recorded[1 if found.starts else 0]) - spectrum.optimal_loss
    h = spectrum.eigenvalues[: spectrum.rank]
    square, linear, constant = float((gaps * h * h).sum()), 2 * float((gaps * h).sum()), float(gaps.sum()) - second
    inside = linear**2 - 4 * square * constant
    if square == 0 or inside < 0 or optimizer.lr == 0:
        return None
    # The smaller root: the step that has not yet gone over the minimum.
    root = 2 * constant / (linear + math.sqrt(inside))
    return root / (optimizer.lr * case.setting.loss_factor)


def _other_rate(case: Case, found: Comparison) -> Slip | None:
    ratio, optimizer = _first_rate(case, found), case.setting.optimizer
    if ratio is None or optimizer is None or ratio <= 0 or math.isclose(ratio, 1.0, rel_tol=0.01):
        return None
    if not _fits(case, found, Loop(), ratio):
        return None

    rows, targets = case.setting.table.n_rows, case.setting.table.n_targets
    known: dict[float, str] = {
        rows * targets: "summed over rows and targets where the criterion given takes the mean",
        rows: "summed over rows where the criterion given takes the mean",
        targets: "summed over targets where the criterion given takes the mean",
    }
    known |= {
        1 / size: text.replace("summed", "averaged").replace("takes the mean", "sums") for size, text in known.items()
    }
    known |= {2.0: "twice the one given", 0.5: "half of the one given"}
    for size, text in known.items():
        if size not in (1, 1.0) and math.isclose(ratio, size, rel_tol=0.01):
            return Slip(
                f"The recorded run is one whose loss is {text}",
                f"Its gradients are {short(ratio)} times those of the criterion given, and so is its learning rate.",
                "criterion = torch.nn.MSELoss()   # the one that is differentiated, in diagnose and in the loop",
            )

    return Slip(
        f"The recorded run has a learning rate of {optimizer.lr * ratio:.4g}, not {optimizer.lr:.4g}",
        f"Each of its steps is {short(ratio)} times as long as the optimizer given would make it.",
        _optimizer_code(case, lr=float(f"{optimizer.lr * ratio:.4g}")),
    )


def _clipped(case: Case, found: Comparison) -> Slip | None:
    ratio, triangle = _first_rate(case, found), case.landscape.triangle
    if ratio is None or triangle is None or not 0 < ratio < 1:
        return None
    start = case.setting.start_matrix
    gradient = triangle.R.T @ (triangle.R @ start - triangle.C) * (2 / (triangle.weight_sum * triangle.targets))
    length = float(torch.linalg.vector_norm(gradient)) * case.setting.loss_factor
    if not _fits(case, found, Loop(max_norm=ratio * length)):
        return None
    return Slip(
        f"The recorded run clips its gradients to a length of {ratio * length:.4g}",
        f"At the start they are {short(1 / ratio)} times longer, so its steps are shorter than the forecast's.",
        f"torch.nn.utils.clip_grad_norm_(model.parameters(), {2 * length:.3g})   # or no clipping",
    )


def _scheduled(case: Case, found: Comparison) -> Slip | None:
    """Learning rates that change from step to step, found one after the other; for plain SGD."""
    optimizer, setting = case.setting.optimizer, case.setting
    if optimizer is None or optimizer.kind != "sgd" or optimizer.momentum or optimizer.weight_decay:
        return None
    if setting.schedule is not None or found.every != 1 or not found.starts:
        return None

    spectrum = case.landscape.spectrum
    h, gaps = spectrum.eigenvalues[: spectrum.rank], case.training.start_gaps
    given = optimizer.lr * setting.loss_factor
    rates: list[float] = []
    for before, after in zip(found.recorded[:-1].tolist(), found.recorded[1:].tolist(), strict=True):
        excess = after - spectrum.optimal_loss
        if not math.isfinite(after) or abs(before - after) <= 1e-9 * abs(before):
            break
        square, linear, constant = float((gaps * h * h).sum()), 2 * float((gaps * h).sum()), float(gaps.sum()) - excess
        inside = linear**2 - 4 * square * constant
        if square == 0 or inside < 0:
            return None
        rates.append(2 * constant / (linear + math.sqrt(inside)))
        gaps = gaps * (1 - rates[-1] * h).square()

    shares = [rate / given for rate in rates]
    if len(shares) < _ENOUGH or min(shares) < 0 or max(shares) > 2 or not _mostly_even(shares):
        return None

    changed = next((i for i, share in enumerate(shares) if abs(share - shares[0]) > 0.05 * shares[0]), 0)
    if not changed:
        return None

    return Slip(
        f"The learning rate of the recorded run changes: from {optimizer.lr * shares[0]:.3g} to "
        f"{optimizer.lr * shares[-1]:.3g} by step {len(shares):,}",
        f"Its first {count(float(changed))} steps are as long as the first one and the next are not: a scheduler was "
        "not passed.",
        "scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)   # none; or pass the loop's as scheduler=",
    )


def _mostly_even(shares: list[float]) -> bool:
    """Whether rates change smoothly or in a few jumps, as those of a schedule do; noise jumps all the time."""
    changes = [after - before for before, after in itertools.pairwise(shares)]
    turns = sum(a * b < 0 and min(abs(a), abs(b)) > 0.02 for a, b in itertools.pairwise(changes))
    return turns <= 0.2 * len(shares)


#: Slips in the order of trying; to add one is one function and one line.
_SLIPS: tuple[Callable[[Case, Comparison], Slip | None], ...] = (
    _nothing_moves,
    _never_zeroed,
    _uphill,
    _other_rate,
    _clipped,
    _scheduled,
)


def _other_scale(case: Case, found: Comparison) -> Slip | None:
    """A record of another multiple of the loss, of other rows, or of another start."""
    if found.ends_here:
        return None
    curve = _expected(case)
    first, start = float(found.recorded[0]), float("nan") if curve is None else float(curve[0])
    ratio = first / start if start else math.nan
    rows, targets = case.setting.table.n_rows, case.setting.table.n_targets
    for size, text in ((rows * targets, "rows times targets"), (rows, "rows"), (targets, "targets"), (0.5, "one half")):
        if size != 1 and math.isclose(ratio, size, rel_tol=0.01):
            return Slip(
                f"The record is {text} ({short(size)}) times the criterion given",
                "What was recorded is a sum where the criterion given is a mean, or the other way round; if that is "
                "what was differentiated, its learning rate is as many times larger.",
                "criterion = torch.nn.MSELoss()   # pass the loss that is differentiated and recorded",
            )
    return Slip(
        f"The record starts at {short(first)}; these weights on these rows have {short(start)}",
        "It was recorded on other rows than those given (another scaling, another split), or from other weights.",
        "# pass X and Y as the loop feeds them, and the model as it was before the first recorded step",
    )


def _optimizer_code(case: Case, **changed: object) -> str:
    # The findings import this module, and a package is loaded before what is in it.
    from closedform.explain.findings.remedies import optimizer_code

    return optimizer_code(case, **changed)

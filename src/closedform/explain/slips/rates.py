"""Learning rates other than the one given: another number, another sum, a schedule."""

from __future__ import annotations

import itertools
import math

from closedform.explain.case import Case
from closedform.explain.comparing import ENOUGH, SAME, Comparison, fits
from closedform.explain.rehearsal import Loop
from closedform.explain.slips.slip import Slip, optimizer_code, rates_of, shown_digits
from closedform.explain.wording import count, short

__all__ = ["other_rate", "scheduled"]

#: Steps of a scheduler that a record has to show before it counts as stepped once in so many.
_TURNS = 2
#: Learning rates above this multiple of the one given are no schedule.
_HIGHEST = 1000.0
#: Share by which a constant rate may seem to drift over a record.
_DRIFT = 0.005
#: Share of the steps at which rates that are in levels keep theirs.
_LEVELS = 0.8


def other_rate(case: Case, found: Comparison) -> Slip | None:
    """A constant learning rate that is not the one given, or another sum of the losses of rows."""
    rates, optimizer = rates_of(case, found), case.setting.optimizer
    if not rates and optimizer is not None and optimizer.kind == "sgd":
        return _other_sum_of_strides(case, found)
    if not rates or optimizer is None or rates[0] <= 0 or math.isclose(rates[0], 1.0, rel_tol=0.01):
        return None

    even = [rate for rate in rates if math.isclose(rate, rates[0], rel_tol=0.02)]
    ratio, third = _median(even), max(1, len(rates) // 3)
    # Gradients that are cut off make for steps that are a little longer or shorter each time.
    if abs(_median(rates[:third]) - _median(rates[-third:])) > _DRIFT * ratio:
        return None

    summed = None if optimizer.kind != "sgd" else _other_sum(case, ratio)
    # The gradient alone is larger where the loss is; weight decay tells the two apart.
    if summed is not None and fits(case, found, Loop(), factor=ratio):
        return summed
    if not fits(case, found, Loop(), rate=ratio):
        return None
    return Slip(
        f"The recorded run has a learning rate of {optimizer.lr * ratio:.4g}, not {optimizer.lr:.4g}",
        f"Each of its steps is {short(ratio)} times as long as the optimizer given would make it.",
        optimizer_code(case, lr=float(f"{optimizer.lr * ratio:.4g}")),
    )


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _other_sum(case: Case, ratio: float) -> Slip | None:
    """A loss that is this many times the criterion given, where that is a number of rows or targets."""
    for size, text in _sums(case).items():
        if math.isclose(ratio, size, rel_tol=0.01):
            return Slip(
                f"The recorded run is one whose loss is {text}",
                f"Its gradients are {short(ratio)} times those of the criterion given, and so is its learning rate.",
                "criterion = torch.nn.MSELoss()   # the one that is differentiated, in diagnose and in the loop",
            )
    return None


def _sums(case: Case) -> dict[float, str]:
    """Multiples of the criterion given that are numbers of rows or targets, in words."""
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
    return {size: text for size, text in known.items() if size != 1}


def _other_sum_of_strides(case: Case, found: Comparison) -> Slip | None:
    """The same for a record of every so many steps, or of a run that overflows, from which no rates can be told."""
    for ratio in _sums(case):
        # A closed form first: most of them are nowhere near.
        forecast = case.training.forecast
        if forecast is not None:
            other = case.training.predict(
                lr=forecast.lr * ratio,
                momentum=forecast.momentum,
                nesterov=forecast.nesterov,
                weight_decay=forecast.weight_decay / ratio,
                dampening=forecast.dampening,
                steps=[found.every - 1, found.every, found.every + 1],
            )
            second, low, high = float(found.recorded[1]), float(other.loss.min()), float(other.loss.max())
            if not low * (1 - SAME) <= second <= high * (1 + SAME) + 100 * case.training.rounding_excess:
                continue
        if fits(case, found, Loop(), factor=ratio):
            return _other_sum(case, ratio)
    return None


def scheduled(case: Case, found: Comparison) -> Slip | None:
    """Learning rates that change from step to step, found one after the other."""
    optimizer = case.setting.optimizer
    if optimizer is None:
        return None

    shares = rates_of(case, found)
    seldom = _stepped_seldom(case, shares)
    if seldom is not None:
        return seldom
    if len(shares) < ENOUGH or max(shares) > _HIGHEST or not _mostly_even(shares):
        return None
    # Some rates or other lead through any losses: the first of them has to be that of the run as given, to the last
    # digit where its first step is of another length, which it is on other rows as well.
    first, other = float(found.expected[0]), not math.isclose(shares[0], 1.0, rel_tol=0.01)
    same = shown_digits(case) if other else SAME
    if found.starts and abs(float(found.recorded[0]) - first) > same * first:
        return None
    # Steps that are divided by the gradients are alike on rows of any size: nothing shows that these are the rows.
    if not found.starts and optimizer.kind != "sgd":
        return None
    if not found.starts and max(abs(share / shares[0] - 1) for share in shares[:ENOUGH]) > SAME:
        return None

    if other and not _reaches_the_rate(shares):
        return None

    changed = next((i for i, share in enumerate(shares) if abs(share - shares[0]) > 0.05 * shares[0]), 0)
    if not changed:
        return None

    schedule = case.setting.schedule
    if schedule is not None:
        return Slip(
            f"The learning rate of the recorded run changes otherwise than by the {schedule.name} given",
            f"At its step {changed + 1:,} it is {short(shares[changed])} times that of the scheduler.",
            "# pass the loop's own scheduler as scheduler=, as it was before the first recorded step",
        )
    return Slip(
        f"The learning rate of the recorded run changes: from {optimizer.lr * shares[0]:.3g} to "
        f"{optimizer.lr * shares[-1]:.3g} by step {len(shares):,}",
        f"Its first {count(float(changed))} steps are as long as the first one and the next are not: a scheduler was "
        "not passed.",
        "scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)   # none; or pass the loop's as scheduler=",
    )


def _stepped_seldom(case: Case, shares: list[float]) -> Slip | None:
    """A scheduler that the loop steps once an epoch, where one that is passed is stepped at each step."""
    setting, optimizer = case.setting, case.setting.optimizer
    if setting.schedule is None or optimizer is None or len(shares) < 2:
        return None

    coming = [float(now[0]["lr"]) for now in setting.schedule.follow(min(len(shares), setting.patience))]
    rates = [share * planned for share, planned in zip(shares, coming, strict=False)]
    every = next((i for i, rate in enumerate(rates) if abs(rate - rates[0]) > 0.01 * abs(rates[0])), 0)
    if every < 2:
        return None
    # Against a rate that is nearly zero by now, that of a step is known to few digits.
    follows = [abs(rate - coming[i // every]) <= 0.02 * abs(coming[i // every]) for i, rate in enumerate(rates)]
    if sum(itertools.takewhile(bool, follows)) < _TURNS * every:
        return None
    return Slip(
        f"The scheduler is stepped once in {every:,} steps of the recorded run, not at each",
        f"Its learning rates are those of the {setting.schedule.name} given, each of them for {every:,} steps.",
        "# pass one that is stepped as often as the optimizer: its periods in steps are "
        f"{every:,} times as long as in epochs",
    )


def _reaches_the_rate(shares: list[float]) -> bool:
    """Whether rates that begin elsewhere are those of a schedule: some warm up to the rate given, others are in levels.

    Gradients that are clipped or divided by their length make for rates that change a little at every step.
    """
    levels = sum(abs(after - before) <= SAME * before for before, after in itertools.pairwise(shares))
    return (max(shares) <= 1.01 and shares[-1] >= 0.99) or levels >= _LEVELS * (len(shares) - 1)


def _mostly_even(shares: list[float]) -> bool:
    """Whether rates change smoothly or in a few jumps, as those of a schedule do; noise jumps all the time."""
    changes = [after - before for before, after in itertools.pairwise(shares)]
    turns = sum(a * b < 0 and min(abs(a), abs(b)) > 0.02 for a, b in itertools.pairwise(changes))
    return turns <= 0.2 * len(shares)

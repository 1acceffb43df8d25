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
from closedform.explain.comparing import ENOUGH, SAME, Comparison, expected_losses, fits, resolution
from closedform.explain.pacing import recorded_rates
from closedform.explain.rehearsal import Loop
from closedform.explain.wording import count, short

__all__ = ["Slip", "explain_record"]

#: Steps between two zeroings of gradients that people set, beside one.
_SELDOM = (2, 4, 8, 10, 16)
#: Lengths that gradients are clipped to, as people set them; the longest that fits is said.
_CLIPPED = (10.0, 5.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.01)
#: Steps of a scheduler that a record has to show before it counts as stepped once in so many.
_TURNS = 2
#: Halvings that find a value to as many binary digits.
_BISECTIONS = 20
#: Learning rates above this multiple of the one given are no schedule.
_HIGHEST = 1000.0
#: What batch norm adds to a variance.
_BATCH_NORM_EPS = 1e-5
#: Share of the points at which a loss turns from which on it is called random.
_JUMPY = 0.3
#: Share beyond which it is not: random numbers turn at two points of three, and steps up and down at all of them.
_SWINGS = 0.9
#: Lags at which changes of a loss are looked at, beyond the next one; a swing of any period shows at one of them.
_LAGS = (2, 3, 4, 5)
#: Correlation from which on they are related. By chance that of n points is about the inverse of the root of n.
_RELATED = 0.5
#: Share by which a constant rate may seem to drift over a record.
_DRIFT = 0.005
#: A value cuts gradients off where it is below this share of the largest of them.
_CUTS = 0.99
#: Share of the steps at which rates that are in levels keep theirs.
_LEVELS = 0.8
#: Share of a loss that is rounding at the least: records are kept in float32.
_SHOWN = 1e-6


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


def explain_record(case: Case, found: Comparison) -> Slip | None:
    """Return the slip whose simulation fits the record, or None."""
    for slip in _SLIPS:
        explained = slip(case, found)
        if explained is not None:
            return explained
    return None if found.starts else _other_scale(case, found)


def _nothing_moves(case: Case, found: Comparison) -> Slip | None:
    recorded = found.recorded
    if not bool(((recorded - recorded[0]).abs() <= 1e-6 * recorded[0].abs()).all()):
        return None
    return Slip(
        "Nothing moves: the recorded loss is the same at every point",
        "The optimizer of that run does not step, or holds other parameters than the model that computes the loss, or "
        "its gradients are zeroed between backward() and step().",
        "optimizer = "
        + _optimizer_code(case).removeprefix("optimizer = ")
        + "   # over this model, and step() in the loop",
    )


def _not_a_number(case: Case, found: Comparison) -> Slip | None:
    """A record of the run as given, up to a point that is NaN where that run has a loss."""
    at = found.differs_at
    if at >= found.recorded.numel() or not math.isnan(found.recorded[at]) or not math.isfinite(found.expected[at]):
        return None

    spared = bool(torch.isfinite(found.recorded[at + 1 :]).any())
    return Slip(
        f"The recorded loss is NaN at step {at * found.every:,}, where that of the run as given is a number",
        "Neither the step nor the rows given lead there: a batch of the loop holds NaN or infinity, or its loss "
        "divides by zero, takes a root or a logarithm of it, or overflows in half precision."
        + (" Later losses are finite, so that step did not reach the weights." if spared else ""),
        "# before each step: torch.isfinite(loss), and torch.isfinite(rows).all() of what the loop feeds",
    )


def _never_zeroed(case: Case, found: Comparison) -> Slip | None:
    if not fits(case, found, Loop(zeroed_every=0)):
        return _seldom_zeroed(case, found)
    return Slip(
        "Gradients are never zeroed: the record is that of a run whose gradients add up",
        "Added up, they act like momentum 1, which swings around the minimum and never settles.",
        "optimizer.zero_grad()   # before each loss.backward()",
    )


def _seldom_zeroed(case: Case, found: Comparison) -> Slip | None:
    for steps in _SELDOM:
        if found.recorded.numel() * found.every > steps and fits(case, found, Loop(zeroed_every=steps)):
            return Slip(
                f"Gradients are zeroed every {steps} steps only: in between they add up",
                "The loop steps after each backward(), and zeroes as if it stepped once in so many of them.",
                "optimizer.zero_grad()   # before each loss.backward(), or step() only where it zeroes as well",
            )
    return None


def _uphill(case: Case, found: Comparison) -> Slip | None:
    if not fits(case, found, Loop(), -1.0):
        return None
    return Slip(
        "The recorded run goes uphill: its gradient has the wrong sign",
        "Every step makes the error larger: the loss that was differentiated is minus this one, or maximize was set.",
        "optimizer.param_groups[0]['maximize'] = False   # and loss.backward() of the loss, not of minus the loss",
    )


def _rates(case: Case, found: Comparison) -> list[float]:
    """Learning rates of the recorded steps, as multiples of the one given; empty where they cannot be told."""
    history, steps = case.setting.history, case.setting.steps
    # Fewer points than steps may be those of every so many: one direction that grows alike has another rate then.
    if found.every != 1 or (history is not None and steps is not None and history.numel() < steps):
        return []
    # Of a record that starts after the first step, the first point tells of it.
    return recorded_rates(case, found.recorded[1:] if found.starts else found.recorded)


def _other_rate(case: Case, found: Comparison) -> Slip | None:
    rates, optimizer = _rates(case, found), case.setting.optimizer
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
        _optimizer_code(case, lr=float(f"{optimizer.lr * ratio:.4g}")),
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


def _clipped(case: Case, found: Comparison) -> Slip | None:
    triangle, optimizer = case.landscape.triangle, case.setting.optimizer
    if triangle is None or optimizer is None or optimizer.kind not in ("sgd", "adam"):
        return None

    start = case.setting.start_matrix
    gradient = triangle.R.T @ (triangle.R @ start - triangle.C) * (2 / (triangle.weight_sum * triangle.targets))
    length = float(torch.linalg.vector_norm(gradient)) * case.setting.loss_factor
    rates = _rates(case, found)
    # A step of Adam has its length whatever that of the gradient: which clipping it was, only later steps tell.
    told = optimizer.kind == "sgd" and bool(rates)
    tried = [rates[0] * length] if told else list(_CLIPPED)
    for longest in tried:
        if 0 < longest < length and fits(case, found, Loop(max_norm=longest)):
            return Slip(
                f"The recorded run clips its gradients to a length of {longest:.4g}" + ("" if told else " or less"),
                f"At the start they are {short(length / longest)} times longer, and the optimizer sees them shortened.",
                f"torch.nn.utils.clip_grad_norm_(model.parameters(), {2 * length:.3g})   # or no clipping",
            )
    return _clipped_by_value(case, found, float(gradient.abs().max()) * case.setting.loss_factor)


def _clipped_by_value(case: Case, found: Comparison, largest: float) -> Slip | None:
    """Components of the gradient that are cut off at the values that people set, and at what the first step tells."""
    for value in (*(value for value in _CLIPPED if value < largest), *_value_by_first_step(case, found, largest)):
        if fits(case, found, Loop(max_value=value)):
            return Slip(
                f"The recorded run clips each component of its gradients to {value:.4g}",
                f"At the start the largest is {short(largest)}, and the optimizer sees it cut off.",
                f"torch.nn.utils.clip_grad_value_(model.parameters(), {2 * largest:.3g})   # or no clipping",
            )
    return None


def _value_by_first_step(case: Case, found: Comparison, largest: float) -> Iterator[float]:
    """Yield the value at which a step of SGD leads to the second loss, which falls with the value: by bisection."""
    optimizer = case.setting.optimizer
    if optimizer is None or optimizer.kind != "sgd" or found.every != 1 or not found.starts:
        return
    low, high, second = 0.0, largest, float(found.recorded[1])
    for _ in range(_BISECTIONS):
        value = (low + high) / 2
        run = case.training.stage.run(1, Loop(max_value=value))
        if run is None:
            return
        low, high = (value, high) if float(run.loss[1]) > second else (low, value)
    if high < _CUTS * largest:
        yield high


def _scheduled(case: Case, found: Comparison) -> Slip | None:
    """Learning rates that change from step to step, found one after the other."""
    optimizer = case.setting.optimizer
    if optimizer is None:
        return None

    shares = _rates(case, found)
    seldom = _stepped_seldom(case, shares)
    if seldom is not None:
        return seldom
    if len(shares) < ENOUGH or max(shares) > _HIGHEST or not _mostly_even(shares):
        return None
    # Some rates or other lead through any losses: the first of them has to be that of the run as given, to the last
    # digit where its first step is of another length, which it is on other rows as well.
    first, other = float(found.expected[0]), not math.isclose(shares[0], 1.0, rel_tol=0.01)
    same = _digits(case) if other else SAME
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


def _digits(case: Case) -> float:
    """Relative size of the last digits that a record shows of its first loss."""
    history = case.setting.history
    if history is None or not float(history[0]):
        return _SHOWN
    return max(resolution(history) / abs(float(history[0])), _SHOWN, 100 * case.setting.precision.product_eps)


def _mostly_even(shares: list[float]) -> bool:
    """Whether rates change smoothly or in a few jumps, as those of a schedule do; noise jumps all the time."""
    changes = [after - before for before, after in itertools.pairwise(shares)]
    turns = sum(a * b < 0 and min(abs(a), abs(b)) > 0.02 for a, b in itertools.pairwise(changes))
    return turns <= 0.2 * len(shares)


def _normalised(case: Case, found: Comparison) -> Slip | None:
    """A record that starts where the weights would on features of mean 0 and variance 1."""
    whole, setting = case.landscape.whole, case.setting
    if found.starts or whole is None or not whole.has_ones or setting.l2:
        return None

    R, count = whole.R.clone(), whole.weight_sum
    R[0, 1:] = 0.0
    weight, bias = setting.start
    weights = torch.cat([torch.zeros_like(weight[:, :1]) if bias is None else bias.reshape(-1, 1), weight], dim=1).T

    # Batch norm divides by the variance over all rows, X.std(0) by that over one row less.
    for degrees, eps in ((count, _BATCH_NORM_EPS), (max(1.0, count - 1), 0.0)):
        sizes = (R[:, 1:].square().sum(0) / degrees + eps).sqrt()
        design = torch.cat([R[:, :1], R[:, 1:] / torch.where(sizes > 0, sizes, 1.0)], dim=1)
        squares = float((design @ weights - whole.C).square().sum() + whole.residual_squares.sum())
        # To the digits shown: features of another scale give a first loss that is close by.
        if abs(squares / (count * whole.targets) - float(found.recorded[0])) <= _digits(case) * float(
            found.recorded[0]
        ):
            break
    else:
        return None
    return Slip(
        "The recorded run normalises its features: a batch norm in train mode, or rows standardised in the loop",
        "Its first loss is the one that these weights have on features of mean 0 and variance 1, and the rows given "
        "are not.",
        "X = (X - X.mean(0)) / X.std(0, correction=0)   # pass the rows as the layer gets them",
    )


def _random(case: Case, found: Comparison) -> Slip | None:
    """A record that jumps up and down where the run as given would not."""
    recorded, expected = found.recorded, found.expected
    if recorded.numel() < 3 * ENOUGH or not bool(torch.isfinite(recorded).all()):
        return None
    # On rows of another size momentum swings as well, from a start that is far off.
    if not 0.5 < float(recorded[0] / expected[0]) < 2.0:
        return None
    turns, smooth = _turns(recorded), _turns(expected)
    if not _JUMPY <= turns <= _SWINGS or smooth > turns / 2 or not _unrelated(recorded):
        return None
    return Slip(
        "The recorded losses are random: a layer in train mode (dropout, batch norm), or batches of rows",
        f"They turn up or down at {short(100 * turns)}% of the points, where those of the run as given do at "
        f"{short(100 * smooth)}%.",
        "# pass batch_size=, or the rows as the layer gets them; model.eval() where dropout is not meant",
    )


def _unrelated(losses: Tensor) -> bool:
    """Whether losses go up and down as random numbers do, and not as a swing does.

    Differences of independent numbers are correlated with the next ones, with which they share a number, and with no
    others; those of a swing are with others again, at one lag or another.
    """
    changes = torch.diff(losses.clamp_min(torch.finfo(losses.dtype).tiny).log())
    changes = changes - changes.mean()
    size = float(changes.square().sum())
    return size > 0 and all(abs(float(changes[:-lag] @ changes[lag:])) < _RELATED * size for lag in _LAGS)


def _turns(losses: Tensor) -> float:
    """Share of the points at which losses turn by more than the last digits of a record."""
    changes = torch.diff(losses)
    clear = changes.abs() > SAME * losses[1:].abs()
    turned = (changes[1:] * changes[:-1] < 0) & clear[1:] & clear[:-1]
    return float(turned.double().mean())


#: Slips in the order of trying; to add one is one function and one line.
_SLIPS: tuple[Callable[[Case, Comparison], Slip | None], ...] = (
    _nothing_moves,
    _not_a_number,
    _normalised,
    _never_zeroed,
    _uphill,
    _other_rate,
    _clipped,
    _scheduled,
    _random,
)


def _other_scale(case: Case, found: Comparison) -> Slip | None:
    """A record of another multiple of the loss, of other rows, or of another start."""
    if found.ends_here:
        return None

    curve = expected_losses(case)
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
        "It was recorded on other rows than those given (another scaling, another split), or from other weights; or "
        "the loss recorded has a term beside the criterion given, such as a penalty.",
        "# pass X and Y as the loop feeds them, and the model as it was before the first recorded step",
    )


def _optimizer_code(case: Case, **changed: object) -> str:
    # The findings import this module, and a package is loaded before what is in it.
    from closedform.explain.findings.remedies import optimizer_code

    return optimizer_code(case, **changed)

"""Losses that no run from these weights on these rows has: constant, NaN, of other rows, random."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.comparing import ENOUGH, SAME, Comparison, expected_losses
from closedform.explain.slips.slip import Slip, optimizer_code, shown_digits
from closedform.explain.wording import short

__all__ = ["normalised", "not_a_number", "nothing_moves", "other_scale", "random"]

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


def nothing_moves(case: Case, found: Comparison) -> Slip | None:
    """The same loss at every point."""
    recorded = found.recorded
    if not bool(((recorded - recorded[0]).abs() <= 1e-6 * recorded[0].abs()).all()):
        return None
    return Slip(
        "Nothing moves: the recorded loss is the same at every point",
        "The optimizer of that run does not step, or holds other parameters than the model that computes the loss, or "
        "its gradients are zeroed between backward() and step().",
        "optimizer = "
        + optimizer_code(case).removeprefix("optimizer = ")
        + "   # over this model, and step() in the loop",
    )


def not_a_number(case: Case, found: Comparison) -> Slip | None:
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


def normalised(case: Case, found: Comparison) -> Slip | None:
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
        if abs(squares / (count * whole.targets) - float(found.recorded[0])) <= shown_digits(case) * float(
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


def random(case: Case, found: Comparison) -> Slip | None:
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


def other_scale(case: Case, found: Comparison) -> Slip | None:
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

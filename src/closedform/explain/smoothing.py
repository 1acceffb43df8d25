"""What people do to losses before they keep them: running means, roots, logarithms. The run is as given, then."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.comparing import ENOUGH, POINTS, SAME, expected_losses

__all__ = ["kept_as"]

#: Losses have to change by this factor over the record, so that another form of them can be told.
_TOLD = 1.1


def kept_as(case: Case) -> str:
    """Return what the record is of the losses of the run as given, in words; empty where it is nothing that is known.

    Args:
        case: The case, with a history.
    """
    setting, curve = case.setting, expected_losses(case)
    history, criterion = setting.history, setting.criterion
    if history is None or curve is None or (criterion is not None and criterion.factor < 0):
        return ""

    recorded = history[:POINTS]
    for first in (0, 1):
        losses = (curve * setting.loss_factor)[first : first + recorded.numel()]
        seen = recorded[: losses.numel()]
        if losses.numel() < 2 * ENOUGH or not bool(torch.isfinite(losses).all() & (losses > 0).all()):
            continue

        forms = [*_forms(seen, losses), *_means_of_strides(seen, (curve * setting.loss_factor)[first:])]
        if bool(setting.start_matrix.any()):  # from zero, targets of another size have such losses as well
            forms += _multiples(seen, losses)

        for words, form in forms:
            seen = recorded[: form.numel()]
            if float(form.max() - form.min()) < (_TOLD - 1) * float(form.abs().max()):
                continue
            if bool(((seen - form).abs() <= SAME * form.abs() + SAME * SAME * float(form.abs().max())).all()):
                return words

    return ""


def _forms(seen: Tensor, losses: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield forms of losses, in words and in numbers."""
    counted = torch.arange(1, losses.numel() + 1, device="cpu")
    yield "the mean of all losses so far", torch.cumsum(losses, 0) / counted
    yield "the root of the loss", losses.sqrt()
    yield "the decimal logarithm of the loss", losses.log10()
    yield "the natural logarithm of the loss", losses.log()
    # The second point tells how much of the first is kept.
    first, second, point = float(losses[0]), float(losses[1]), float(seen[1])
    for kept, mean in (
        (_share(point - second, first - second), _running_mean),
        (_share(second - point, point - first), _corrected_mean),
    ):
        if 0 < kept < 1:
            yield f"a running mean of the losses that keeps {kept:.3g} of itself at each point", mean(losses, kept)


def _means_of_strides(seen: Tensor, curve: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield means of every so many losses, of the number that fits the first point best."""
    means = torch.cumsum(curve, 0) / torch.arange(1, curve.numel() + 1, device="cpu")
    every = int((means - seen[0]).abs().argmin()) + 1
    if 1 < every <= curve.numel() // (2 * ENOUGH):
        blocks = curve[: curve.numel() // every * every].reshape(-1, every).mean(1)
        yield f"the mean of every {every} losses", blocks[: seen.numel()]


def _multiples(seen: Tensor, losses: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the multiple of the losses that has the first one recorded."""
    ratio = float(seen[0] / losses[0])
    if ratio > 0 and abs(ratio - 1) > SAME:
        yield f"{ratio:.4g} times the loss", ratio * losses


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _running_mean(losses: Tensor, kept: float) -> Tensor:
    """The exponential mean that starts at the first loss."""
    return _recurrence(losses, kept, float(losses[0]), lambda mean, _: mean)


def _corrected_mean(losses: Tensor, kept: float) -> Tensor:
    """The one that starts at zero and is divided by what it has seen (Kingma and Ba 2015, section 3)."""
    return _recurrence(losses, kept, 0.0, lambda mean, made: mean / (1 - kept**made))


def _recurrence(losses: Tensor, kept: float, mean: float, told: Callable[[float, int], float]) -> Tensor:
    found = []
    for made, loss in enumerate(losses.tolist(), start=1):
        mean = kept * mean + (1 - kept) * loss
        found.append(told(mean, made))
    return torch.tensor(found, dtype=losses.dtype, device="cpu")

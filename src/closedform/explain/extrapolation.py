"""Go on from a rehearsal that was cut short: what its end shows of the steps that were not made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.explain.rehearsal import Rehearsal
from closedform.explain.spectra import Spectrum

__all__ = ["Outlook", "has_settled", "outlook"]

#: Weights count as moving evenly where two equal spans of steps move them alike to this share.
_EVENLY = 0.1
#: Excess losses that fall by less than this factor over the last half have settled.
_SETTLED = 0.8
#: Times its ripples that a loss may fall from one quarter to the next and count as level.
_RIPPLES = 2.0
#: Falls of the logarithm of a loss that are none.
_LEVEL = 1e-6
#: Power laws are taken to hold to within this factor of their exponent.
_DOUBT = 2.0


@final
@dataclass(frozen=True)
class Outlook:
    """What a run comes to.

    Attributes:
        left: Excess loss at the end of the run.
        least: What it is at the least, if it goes on as well as can be expected.
        most: What it is at the most, if it goes on as badly.
        how: ``settled`` where nothing changes any more, ``evenly`` where weights move at an even pace, ``power law``.
        steps_to_arrive: Steps until weights that move evenly arrive, from the start; nan otherwise.
    """

    left: float
    least: float
    most: float
    how: str
    steps_to_arrive: float = math.nan


def outlook(spectrum: Spectrum, run: Rehearsal, excess: Tensor, steps: int) -> Outlook:
    """Continue a rehearsal to the end of the run it is the beginning of.

    Args:
        spectrum: The spectrum of the fit.
        run: The rehearsal.
        excess: Its excess losses, ``(points,)``.
        steps: Steps of the whole run.
    """
    made = excess.numel() - 1
    end = float(excess[-1])
    if made < 8 or not math.isfinite(end):
        return Outlook(end, 0.0, math.inf, "settled" if not math.isfinite(end) else "power law")
    even = _evenly(spectrum, run, steps)
    if even is not None:
        return even
    early, late = _typical(excess[made // 4 : made // 2 + 1]), _typical(excess[made // 2 :])
    last, before = _typical(excess[-max(2, made // 8) :]), _typical(excess[made // 2 : -max(2, made // 4)])
    if late >= _SETTLED * early and last >= _SETTLED * before and has_settled(excess):
        window = excess[made // 2 :]
        return Outlook(last, min(float(window.min()), last), float(window.max()), "settled")
    # On logarithmic axes many slow directions make a straight line; the later of two slopes is the one that goes on.
    slope = math.log(max(late, 1e-300) / max(early, 1e-300)) / math.log(2)
    slope = min(0.0, slope)
    beyond = math.log(steps / made)
    left, least = last * math.exp(slope * beyond), last * math.exp(_DOUBT * slope * beyond)
    return Outlook(left, least, last * math.exp(slope / _DOUBT * beyond), "power law")


def has_settled(excess: Tensor) -> bool:
    """Return whether excess losses no longer fall: from one quarter of them to the next by less than they ripple.

    Args:
        excess: The excess losses, ``(points,)``, finite.
    """
    logs, quarter = excess.clamp(min=1e-300).log(), excess.numel() // 4
    if quarter < 2:
        return False
    third, last = logs[-2 * quarter : -quarter], logs[-quarter:]
    fall = float(third.mean() - last.mean())
    if fall > -math.log(_SETTLED):
        return False
    # Around a line, so that a steady fall is no ripple.
    places = torch.linspace(-1, 1, quarter, dtype=logs.dtype, device=logs.device)
    slope = float((places * last).sum() / places.square().sum())
    ripple = float((last - last.mean() - slope * places).square().mean().sqrt())
    return fall <= max(_LEVEL, _RIPPLES * ripple)


def _typical(values: Tensor) -> float:
    """Geometric mean, so that ripples cancel."""
    return float(values.clamp(min=1e-300).log().mean().exp()) if values.numel() else math.nan


def _evenly(spectrum: Spectrum, run: Rehearsal, steps: int) -> Outlook | None:
    """Weights that move by the same amount in each step, far from where they are going; None where they do not."""
    if len(run.path) < 4:
        return None

    (a, b, c), (first, second, third) = run.path[-3:], run.waypoints[-3:]
    if third <= second or second <= first:
        return None

    earlier, later = (b - a) / (second - first), (c - b) / (third - second)
    rank = spectrum.rank
    wanted = spectrum.directions[:rank].T @ (
        spectrum.target_components[:rank] / spectrum.singular_values[:rank].unsqueeze(1)
    )
    if rank < spectrum.directions.shape[1]:
        return None

    distance = wanted - c
    far = distance.abs() > 4 * (c - a).abs()
    pace = torch.where(far, later, 0.0)
    if not bool(far.any()) or bool(((later - earlier).abs()[far] > _EVENLY * later.abs()[far]).any()):
        return None
    if bool((pace * distance < 0).any()):
        return None

    arrival = torch.where(far, distance.abs() / later.abs().clamp(min=1e-300), 0.0)
    more = steps - third
    # Weights that are near already follow the others; they are taken to be where they belong.
    fraction = (more / arrival.clamp(min=1e-300)).clamp(max=1.0)
    at = torch.where(far, c + fraction * distance, wanted)
    left = float(spectrum.gaps(at).sum())

    return Outlook(left, left / 4, left * 4, "evenly", third + float(arrival.max()))

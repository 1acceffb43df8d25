"""Adam and its kin near the minimum: a loss that rises again, weights that circle where the loss looks converged."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form, optimizer_code
from closedform.explain.wording import short

__all__ = ["adaptive_blow_up", "adaptive_unsettled"]

#: A loss that rises this much above the lowest it was has blown up.
_BLOW_UP = 10.0
#: Weights this much further from the minimiser than rounding explains have not settled.
_UNSETTLED = 100.0
#: Relative errors of the weights that a user would see.
_VISIBLE = 1e-5


def adaptive_blow_up(case: Case) -> Finding | None:
    """Adam's late blow-up: the loss falls, and then rises again by itself."""
    optimizer = case.setting.optimizer
    if optimizer is None or optimizer.kind != "adam":
        return None

    # Batches jump by themselves, and a run that climbs does not fall first.
    if case.setting.climbs or not case.setting.full_batch:
        return None
    if case.setting.history is not None and case.setting.squared:
        recorded = case.setting.history / case.setting.loss_factor
        seen, source = (recorded - case.landscape.spectrum.optimal_loss).clamp(min=0.0), "As recorded"
        certain = True
    else:
        seen, source = case.training.rehearsed_excess, "Rehearsed on these data"
        # From where the user's arithmetic rounds, its path is no longer that of a rehearsal in float64.
        certain = not bool((seen <= case.training.rounding_excess).any())

    # On the way to the goal a jump that is over by the end of the run costs nothing.
    underway = case.setting.history is None and case.training.start_excess > case.training.goal_excess
    passes = underway and case.training.settles
    rise = _rise(case, seen)
    if rise is None:
        return None

    low, at = rise
    if low == 0 and underway:
        # It rises from the start: its steps are too long, and nothing has shrunk.
        return None
    bottom, top = float(seen[low]), float(seen[at])
    but = (
        "" if certain else f" In {case.setting.precision} rounding decides whether and when: some runs do, some do not."
    )

    return Finding(
        name="adaptive_blow_up",
        severity=Severity.WARNING if certain and not passes else Severity.INFO,
        title=f"{optimizer.name} {'blows' if certain else 'may blow'} up after step {low:,}",
        evidence={
            "lowest_step": float(low),
            "lowest_excess_loss": bottom,
            "peak_step": float(at),
            "peak_excess_loss": top,
            "lr": optimizer.lr,
        },
        consequence=(
            f"{source}, the excess loss rises from {short(bottom)} to {short(top)} at step {at:,}: the running mean of "
            f"squared gradients shrinks with the gradient, so steps grow again.{but}"
        ),
        remedy=(
            "# a smaller step blows up later, not never:\n"
            f"{optimizer_code(case, lr=optimizer.lr / 10)}\n"
            "# or at once:\n" + closed_form(case)
        ),
    )


def _rise(case: Case, seen: Tensor) -> tuple[int, int] | None:
    """Where excess losses are lowest before they rise the most, and where they then are; None where they do not."""
    if seen.numel() < 10:
        return None
    # Below the last digits of the loss there is nothing to see.
    floor = max(1e-12 * case.landscape.spectrum.optimal_loss, 1e-20 * case.landscape.reference_excess)
    seen = torch.nan_to_num(seen, nan=float("inf")).clamp(min=floor)
    rise = seen / torch.cummin(seen, 0).values
    at = int(torch.argmax(torch.where(seen > case.training.goal_excess, rise, torch.zeros_like(rise))))
    if float(rise[at]) < _BLOW_UP or not float(seen[at]) > case.training.goal_excess:
        return None
    return int(torch.argmin(seen[: at + 1])), at


def adaptive_unsettled(case: Case) -> Finding | None:
    """A constant step per coordinate that circles the minimiser: the loss looks converged, the weights are not."""
    optimizer, spectrum = case.setting.optimizer, case.landscape.spectrum
    if (
        optimizer is None
        or optimizer.kind != "adam"
        or not case.setting.squared
        or spectrum.rank < spectrum.decision.columns
    ):
        return None

    if case.training.start_excess <= case.training.goal_excess and case.setting.model is not None:
        weights, excess = case.setting.start_matrix, case.training.start_excess
        where, seen = "The model's weights", _VISIBLE
    elif case.training.rehearsed_in_full and case.training.rehearsal is not None and case.setting.full_batch:
        run = case.training.rehearsal
        weights = run.weight.T if run.bias is None else torch.cat([run.bias.unsqueeze(0), run.weight.T])
        excess, where = float(spectrum.gaps(weights).sum()), "In the rehearsal the weights"
        # So far from the minimiser are the weights of any run that is just at the goal, were the curvature even.
        seen = max(_VISIBLE, math.sqrt(case.setting.goal))
    else:
        return None

    distance = case.landscape.weight_distance(weights)
    rounding = case.setting.precision.eps * spectrum.condition
    if excess > case.training.goal_excess or distance < _UNSETTLED * rounding:
        return None

    return Finding(
        name="adaptive_unsettled",
        severity=Severity.WARNING if distance > seen else Severity.INFO,
        title=f"{optimizer.name} has come near the minimiser but not to it",
        evidence={
            "weight_distance": distance,
            "rounding": rounding,
            "excess_loss": excess,
            "lr": optimizer.lr,
            "condition": spectrum.condition,
        },
        consequence=(
            f"{where} are {short(distance)} (relative) from the minimiser, where rounding would allow "
            f"{short(rounding)}, while the excess loss is only {short(excess)}. The loss curve hides it: two runs "
            "agree in "
            "their loss and end at different weights."
        ),
        remedy=closed_form(case),
    )

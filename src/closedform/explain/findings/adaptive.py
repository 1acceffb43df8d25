"""Optimizers without a closed form, by rehearsal on the triangle: LBFGS and the Adam family."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from closedform.explain.facts import Facts
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form
from closedform.explain.wording import plural, short

__all__ = ["adaptive_blow_up", "adaptive_unsettled", "lbfgs_stopped"]

# A loss that rises this much above the lowest it was has blown up.
_BLOW_UP = 10.0
# Weights this much further from the minimiser than rounding explains have not settled.
_UNSETTLED = 100.0
# Relative errors of the weights that a user would see.
_VISIBLE = 1e-5


def lbfgs_stopped(facts: Facts) -> Finding | None:
    """LBFGS that ends by its absolute tolerances or its 20 iterations, short of the goal."""
    o = facts.optimizer
    run = facts.training.rehearsal if o is not None and o.kind == "lbfgs" else None
    if o is None or run is None:
        return None
    left = float(facts.training.rehearsed_excess[-1])
    if left <= max(facts.goal_excess, 1e-14 * facts.spectrum.optimal_loss):
        return None
    group = o.settings
    state: dict[str, Any] = next(iter(run.optimizer.state.values()), {})
    calls = int(run.steps[-1])
    iterations = int(state.get("n_iter", 0)) - o.iterations
    gradient = _largest_gradient(facts, run.weight, run.bias) * facts.loss_factor
    share = left / (facts.reference_excess or 1.0)
    # Calls that were not rehearsed may still bring it there, unless a tolerance ends each of them at once.
    unfinished = False
    if gradient <= group["tolerance_grad"]:
        cause = (
            f"its gradient of {short(gradient)} is below tolerance_grad={group['tolerance_grad']:g}, which is absolute"
        )
    elif iterations >= calls * group["max_iter"]:
        unfinished = facts.steps is not None and not facts.training.rehearsed_in_full
        cause = f"it made {plural(iterations, 'iteration')}, max_iter={group['max_iter']} in each call of step()"
    elif group["line_search_fn"] is None and left > facts.start_excess:
        cause = "without a line search its step of length lr went uphill"
    else:
        cause = (
            f"its last step changed weights or loss by less than tolerance_change={group['tolerance_change']:g}, "
            "which is "
            "absolute"
        )
    return Finding(
        name="lbfgs_stopped",
        severity=Severity.WARNING if unfinished else Severity.ERROR,
        title=f"LBFGS is short of the minimum after {calls:,} of its {facts.steps:,} calls of step()"
        if unfinished
        else "LBFGS stops short of the minimum",
        evidence={
            "excess_loss_left": left,
            "share_left": share,
            "largest_gradient": gradient,
            "tolerance_grad": float(group["tolerance_grad"]),
            "tolerance_change": float(group["tolerance_change"]),
            "iterations": float(iterations),
            "calls": float(calls),
        },
        consequence=(
            f"Rehearsed on these data for {plural(calls, 'call')} of step(), it leaves {short(share)} of the "
            "excess loss: "
            f"{cause}."
        ),
        remedy=(
            "optimizer = torch.optim.LBFGS(\n"
            "    model.parameters(), max_iter=1000, tolerance_grad=0, tolerance_change=0,\n"
            '    line_search_fn="strong_wolfe",\n)\n'
            "# or at once:\n" + closed_form(facts)
        ),
    )


def _largest_gradient(facts: Facts, weight: Tensor, bias: Tensor | None) -> float:
    """Largest component of the gradient of ``MSELoss()``."""
    c = facts.compressed
    if c is None:
        return float("nan")
    V = weight.T if bias is None else torch.cat([bias.unsqueeze(0), weight.T])
    return float((c.R.T @ (c.R @ V - c.C)).abs().max()) * 2 / (c.n_rows * c.n_targets)


def adaptive_blow_up(facts: Facts) -> Finding | None:
    """Adam's late blow-up: the loss falls, and then rises again by itself."""
    o = facts.optimizer
    if o is None or o.kind != "adam":
        return None
    if facts.history is not None and facts.squared:
        seen, source = (facts.history / facts.loss_factor - facts.spectrum.optimal_loss).clamp(min=0.0), "As recorded"
        certain = True
    else:
        seen, source = facts.training.rehearsed_excess, "Rehearsed on these data"
        # From where the user's arithmetic rounds, its path is no longer that of a rehearsal in float64.
        certain = not bool((seen <= facts.rounding_excess).any())
    rise = _rise(facts, seen)
    if rise is None:
        return None
    low, at = rise
    bottom, top = float(seen[low]), float(seen[at])
    but = "" if certain else f" In {facts.precision} rounding decides whether and when: some runs do, some do not."
    return Finding(
        name="adaptive_blow_up",
        severity=Severity.WARNING if certain else Severity.INFO,
        title=f"{o.name} {'blows' if certain else 'may blow'} up after step {low:,}",
        evidence={
            "lowest_step": float(low),
            "lowest_excess_loss": bottom,
            "peak_step": float(at),
            "peak_excess_loss": top,
            "lr": o.lr,
        },
        consequence=(
            f"{source}, the excess loss rises from {short(bottom)} to {short(top)} at step {at:,}: the running mean of "
            f"squared gradients shrinks with the gradient, so steps grow again.{but}"
        ),
        remedy=(
            "# a smaller step blows up later, not never:\n"
            f"optimizer = torch.optim.{o.name}(model.parameters(), lr={o.lr / 10:.3g})\n"
            "# or at once:\n" + closed_form(facts)
        ),
    )


def _rise(facts: Facts, seen: Tensor) -> tuple[int, int] | None:
    """Where excess losses are lowest before they rise the most, and where they then are; None where they do not."""
    if seen.numel() < 10:
        return None
    # Below the last digits of the loss there is nothing to see.
    floor = max(1e-12 * facts.spectrum.optimal_loss, 1e-20 * facts.reference_excess)
    seen = torch.nan_to_num(seen, nan=float("inf")).clamp(min=floor)
    rise = seen / torch.cummin(seen, 0).values
    at = int(torch.argmax(torch.where(seen > facts.goal_excess, rise, torch.zeros_like(rise))))
    if float(rise[at]) < _BLOW_UP or not float(seen[at]) > facts.goal_excess:
        return None
    return int(torch.argmin(seen[: at + 1])), at


def adaptive_unsettled(facts: Facts) -> Finding | None:
    """A constant step per coordinate that circles the minimiser: the loss looks converged, the weights are not."""
    o, s = facts.optimizer, facts.spectrum
    if o is None or o.kind != "adam" or not facts.squared or s.rank < s.decision.columns:
        return None
    if facts.start_excess <= facts.goal_excess and facts.model is not None:
        weights, excess = facts.start_matrix, facts.start_excess
        where = "The model's weights"
    elif facts.training.rehearsed_in_full and facts.training.rehearsal is not None:
        run = facts.training.rehearsal
        weights = run.weight.T if run.bias is None else torch.cat([run.bias.unsqueeze(0), run.weight.T])
        excess, where = float(facts.training.rehearsed_excess[-1]), "In the rehearsal the weights"
    else:
        return None
    distance = facts.weight_distance(weights)
    rounding = facts.precision.eps * s.condition
    if excess > facts.goal_excess or distance < _UNSETTLED * rounding:
        return None
    return Finding(
        name="adaptive_unsettled",
        severity=Severity.WARNING if distance > _VISIBLE else Severity.INFO,
        title=f"{o.name} has come near the minimiser but not to it",
        evidence={
            "weight_distance": distance,
            "rounding": rounding,
            "excess_loss": excess,
            "lr": o.lr,
            "condition": s.condition,
        },
        consequence=(
            f"{where} are {short(distance)} (relative) from the minimiser, where rounding would allow "
            f"{short(rounding)}, while the excess loss is only {short(excess)}. The loss curve hides it: two runs "
            "agree in "
            "their loss and end at different weights."
        ),
        remedy=closed_form(facts),
    )

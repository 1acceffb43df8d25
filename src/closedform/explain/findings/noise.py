"""Noise: of mini-batches, and of targets where there are as many columns as rows."""

from __future__ import annotations

import math

import torch

from closedform.explain.facts import Facts
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form
from closedform.explain.wording import count, short

__all__ = ["interpolation", "mini_batch_noise"]

# Rows per column between which unregularised fits predict worst.
_SPIKE = (0.8, 1.25)
_MANY = 10


def mini_batch_noise(facts: Facts) -> Finding | None:
    """A constant step on mini-batches that stops at a noise floor, or does not even stay bounded."""
    b = facts.training.batches
    if b is None or facts.batch_size is None or (b.stable and b.noise_floor <= facts.goal_excess):
        return None
    share = b.noise_floor / (facts.reference_excess or 1.0)
    evidence = {
        "batch_size": float(b.batch_size),
        "lr": b.lr,
        "lr_limit": b.lr_limit,
        "noise_floor": b.noise_floor,
        "share_of_optimal_loss": b.noise_floor / (facts.spectrum.optimal_loss or math.nan),
        "feedback": b.feedback,
    }
    if not b.stable:
        title = f"lr={short(b.lr)} is too large for batches of {b.batch_size}: limit about {short(b.lr_limit)}"
        consequence = (
            "In expectation the noise of each step puts back more than the step takes away: the loss does not fall."
        )
    else:
        title = f"Batches of {b.batch_size} at a constant lr stop at a noise floor"
        consequence = (
            f"In expectation the excess loss stops at {short(b.noise_floor)}, {short(share)} of that of zero "
            "weights, and the "
            "weights keep jumping. A smaller lr lowers the floor in proportion and costs as many more steps. "
            "That noise is "
            "also why small batches can seem to help: many cheap steps, then an average over noise, not a better "
            "minimum."
        )
    return Finding(
        name="mini_batch_noise",
        severity=Severity.ERROR,
        title=title,
        evidence=evidence,
        consequence=consequence,
        remedy=(
            "# average the iterates, or let lr fall like 1/t:\n"
            "averaged = torch.optim.swa_utils.AveragedModel(model)\n"
            "# or at once:\n" + closed_form(facts)
        ),
    )


def interpolation(facts: Facts) -> Finding | None:
    """About as many rows as columns: the fit is exact or nearly so, and predictions are at their most fragile."""
    c, s = facts.compressed, facts.spectrum
    if c is None or facts.l2 > 0:
        return None
    rows, columns = c.row_count, c.n_columns
    if columns < _MANY or not _SPIKE[0] <= rows / columns <= _SPIKE[1] or s.rank == 0:
        return None
    gain = float((1 / s.singular_values[: s.rank].square()).sum().sqrt())
    size = float(torch.linalg.vector_norm(s.minimiser))
    return Finding(
        name="interpolation",
        severity=Severity.INFO,
        title=f"{count(rows)} rows for {count(columns)} columns: noise in Y is amplified most there",
        evidence={"rows": float(rows), "columns": float(columns), "noise_gain": gain, "weight_norm": size},
        consequence=(
            f"Noise of size 1 in Y moves the weights (of norm {short(size)}) by about {short(gain)}. With noisy "
            "targets a small "
            "training loss says nothing here; a ridge, or fewer or many more columns, predict better."
        ),
        remedy=f"sol = cf.solve(X, Y{', bias=True' if facts.bias else ''}, l2=...)   # l2 by held-out rows",
    )

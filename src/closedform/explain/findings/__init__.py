"""The findings, one small function each, in one ordered list. To add one is one function and one line here.

Each takes the facts and returns a finding or None. They are shown most severe first; among equals the order of this
list holds, which runs from what makes all else pointless to what is merely good to know.
"""

from __future__ import annotations

from collections.abc import Callable

from closedform.explain.facts import Facts
from closedform.explain.finding import Finding
from closedform.explain.findings import adaptive, columns, goals, noise, reference, rounding, step

__all__ = ["FINDINGS", "find"]

FINDINGS: tuple[Callable[[Facts], Finding | None], ...] = (
    goals.not_finite,
    rounding.out_of_range,
    goals.target_broadcast,
    goals.other_loss,
    goals.frozen_parameters,
    step.lr_above_limit,
    noise.mini_batch_noise,
    step.scheduler_starves,
    step.lr_starved,
    adaptive.lbfgs_stopped,
    step.more_steps_needed,
    adaptive.adaptive_blow_up,
    adaptive.adaptive_unsettled,
    goals.penalised_bias,
    goals.weight_decay_is_ridge,
    columns.not_unique,
    columns.uncentred_features,
    columns.unscaled_columns,
    columns.collinear_columns,
    rounding.precision_floor,
    rounding.tf32,
    noise.interpolation,
    reference.reference_truncates,
    reference.partial,
)


# All others compare losses and step sizes, which are squares.
_WITHOUT_SQUARES = (goals.not_finite, rounding.out_of_range, goals.frozen_parameters)


def find(facts: Facts) -> tuple[Finding, ...]:
    """Return all findings, the most severe first."""
    checks = FINDINGS if facts.spectrum.in_range else _WITHOUT_SQUARES
    found = [finding for check in checks if (finding := check(facts)) is not None]
    return tuple(sorted(found, key=lambda finding: finding.severity.rank))

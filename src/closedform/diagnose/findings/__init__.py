"""The findings, one small function each, in one ordered list. To add one is one function and one line here.

Each takes the facts and returns a finding or None. They are shown most severe first; among equals the order of this
list holds, which runs from what makes all else pointless to what is merely good to know.
"""

from __future__ import annotations

from collections.abc import Callable

from closedform.diagnose.facts import Facts
from closedform.diagnose.finding import Finding
from closedform.diagnose.findings import adaptive, columns, goals, noise, reference, step

__all__ = ["FINDINGS", "find"]

FINDINGS: tuple[Callable[[Facts], Finding | None], ...] = (
    goals.not_finite,
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
    noise.precision_floor,
    noise.interpolation,
    reference.reference_truncates,
    reference.partial,
)


def find(facts: Facts) -> tuple[Finding, ...]:
    """Return all findings, the most severe first."""
    found = [finding for check in FINDINGS if (finding := check(facts)) is not None]
    return tuple(sorted(found, key=lambda finding: finding.severity.rank))

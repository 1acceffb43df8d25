"""The findings, one small function each, in one ordered list. To add one is one function and one line here.

Each takes the case and returns a finding or None. They are shown most severe first, among those the one whose repair
leaves the least excess loss; among equals the order of this list holds, which runs from what makes all else pointless
to what is merely good to know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from closedform.explain.case import Case
from closedform.explain.finding import Finding
from closedform.explain.findings import (
    adaptive,
    columns,
    goals,
    lbfgs,
    noise,
    records_of_runs,
    reference,
    rounding,
    step,
    steps_needed,
    unsettled,
)
from closedform.explain.findings.remedies import as_command

__all__ = ["FINDINGS", "find"]

FINDINGS: tuple[Callable[[Case], Finding | None], ...] = (
    goals.not_finite,
    rounding.out_of_range,
    step.climbs,
    goals.target_broadcast,
    goals.other_loss,
    goals.frozen_parameters,
    records_of_runs.history_differs,
    step.lr_above_limit,
    noise.mini_batch_noise,
    step.scheduler_starves,
    step.lr_starved,
    adaptive.cannot_step,
    lbfgs.lbfgs_stopped,
    adaptive.adaptive_short,
    steps_needed.more_steps_needed,
    unsettled.adaptive_blow_up,
    unsettled.adaptive_unsettled,
    goals.penalised_bias,
    goals.weight_decay_is_ridge,
    goals.ridge_on_kernel,
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


def find(case: Case) -> tuple[Finding, ...]:
    """Return all findings: the most severe first, and among those the one whose repair brings the run nearest."""
    spectrum = case.landscape.spectrum
    checks = FINDINGS if spectrum.in_range else _WITHOUT_SQUARES
    found = [finding for check in checks if (finding := check(case)) is not None]
    if case.setting.command is not None:
        found = [replace(finding, remedy=as_command(case, finding.remedy)) for finding in found]
    # Below the goal, and below the loss's own last digits, nearer is not better.
    enough = max(case.training.goal_excess, 1e-12 * spectrum.optimal_loss) if spectrum.in_range else 0.0

    def key(finding: Finding) -> tuple[int, float]:
        left = finding.excess_once_mended
        return finding.severity.rank, enough if math.isnan(left) else max(left, enough)

    return tuple(sorted(found, key=key))

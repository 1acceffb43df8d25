"""The columns: weights that are not unique, features that are not centred or not scaled, true collinearity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from closedform.explain.facts import SAFETY, Facts
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form, standardise
from closedform.explain.forecasts import forecast
from closedform.explain.wording import columns_text, count, plural, short, steps_text
from closedform.numerics.rank import columns_involved

__all__ = ["collinear_columns", "not_unique", "uncentred_features", "unscaled_columns"]

# What counts as an improvement of the condition number worth a line, and as a condition number that needs one.
_BETTER, _LARGE = 4.0, 30.0
# Columns that are collinear after scaling: a condition number this large costs a million steps.
_COLLINEAR = 1e3
# Steps that any run makes: below, the columns are nobody's problem.
_FEW_STEPS = 1000.0


def not_unique(facts: Facts) -> Finding | None:
    """Many weights minimise the loss, or the data do not say whether they do."""
    s, d = facts.spectrum, facts.spectrum.decision
    if not s.complete or facts.compressed is None or (s.rank == d.columns and not d.ambiguous):
        return None
    missing = d.columns - s.rank
    if d.ambiguous:
        return Finding(
            name="ambiguous_rank",
            severity=Severity.WARNING,
            title=f"Rank {s.rank} of {d.columns}, without a clear gap: the weights are not determined",
            evidence={"rank": float(s.rank), "columns": float(d.columns), "cut": d.cut, "gap": d.gap},
            consequence=(
                "Singular values run into rounding without a gap, so very different weights have the same loss "
                "to all digits. "
                "Judge by predictions, not by weights."
            ),
            remedy=f"# a small ridge decides it:\nsol = cf.solve(X, Y{', bias=True' if facts.bias else ''}, l2=1e-10)",
        )
    free = _undetermined(facts)
    columns = [i - int(facts.bias) for i in columns_involved(free)] if free is not None else []
    involved = f" (among {columns_text(columns, facts.names)})" if 0 < len(columns) <= 12 else ""
    least = torch.linalg.vector_norm(s.minimiser)
    fixed = s.directions[: s.rank]
    start = facts.start_matrix
    reached = s.minimiser + start - fixed.T @ (fixed @ start)
    apart = float(torch.linalg.vector_norm(reached - s.minimiser))
    return Finding(
        name="not_unique",
        severity=Severity.WARNING,
        title=f"Many weights are optimal: rank {s.rank} of {d.columns} columns",
        evidence={
            "rank": float(s.rank),
            "columns": float(d.columns),
            "free_directions": float(missing),
            "gap": d.gap,
            "least_norm": float(least),
            "distance_from_start": apart,
        },
        consequence=(
            f"{plural(missing, 'direction')} can be added freely{involved} without changing any prediction on "
            "these rows, so "
            "each optimizer and each start ends at other weights, all of them right. Gradient descent keeps what "
            "its start had "
            "along them."
        ),
        remedy=(
            "# the weights of least norm, the bias outside the norm:\n"
            f"sol = cf.solve(X, Y{', bias=True' if facts.bias else ''})\n"
            "# or those where gradient descent from this model ends:\n"
            "sol = cf.fit_(model, X, Y, nearest_to=model)"
        ),
    )


def _undetermined(facts: Facts) -> Tensor | None:
    """Directions along which the loss does not change, as rows; None where the rows reach too few to list them."""
    s, c = facts.spectrum, facts.compressed
    if c is None or s.directions.shape[0] < s.decision.columns:
        return None
    sizes = s.column_norms
    return s.directions[s.rank :] * torch.where(sizes > 0, sizes, 1.0)


def _steps(facts: Facts) -> tuple[float, float]:
    """Steps of gradient descent at its best, as it is and with the features standardised."""
    before = facts.best_steps
    normal = facts.standardised
    if normal is None or not math.isfinite(normal.learning_rate_limit):
        return before, math.nan
    after = forecast(normal, lr=SAFETY * normal.learning_rate_limit, steps=[0]).steps_to(facts.goal_excess)
    return before, after


def _matters(facts: Facts) -> bool:
    if facts.compressed is None or facts.l2 > 0 or facts.training.reaches_goal is True:
        return False
    return facts.best_steps > max(_FEW_STEPS, 0.01 * facts.patience)


def uncentred_features(facts: Facts) -> Finding | None:
    """Means of the features that make one direction much steeper than the others."""
    if not _matters(facts):
        return None
    raw, centred = facts.conditions["as it is"], facts.conditions["centred"]
    if raw < _LARGE or raw < _BETTER * centred:
        return None
    if facts.bias:
        before, after = _steps(facts)
        effect = (
            f"With the features standardised, gradient descent needs {steps_text(after)} instead of {count(before)}."
        )
        evidence = {"condition": raw, "condition_centred": centred, "steps_before": before, "steps_after": after}
        remedy = standardise(facts)
    else:
        effect = (
            "A layer with a bias on centred features would have that condition number; it is another model, though."
        )
        evidence = {"condition": raw, "condition_centred": centred}
        size = f"{facts.rows.n_features}, {facts.rows.n_targets}"
        remedy = (
            f"mean = X.mean(0)\nmodel = torch.nn.Linear({size}, bias=True, dtype=X.dtype)\n"
            "train(model, X - mean)                  # and predict with model(X_new - mean)"
        )
    return Finding(
        name="uncentred_features",
        severity=Severity.WARNING,
        title=f"The features are not centred: condition {short(raw)}, and {short(centred)} without their means",
        evidence=evidence,
        consequence=f"The mean of the features is the steepest direction and holds the step down. {effect}",
        remedy=remedy,
    )


def unscaled_columns(facts: Facts) -> Finding | None:
    """Columns in very different units."""
    if not _matters(facts):
        return None
    raw, scaled = facts.conditions["as it is"], facts.conditions["columns scaled"]
    centred, both = facts.conditions["centred"], facts.conditions["centred and scaled"]
    by_scaling, after_centring = raw / scaled, centred / both if facts.bias else 1.0
    if raw < _LARGE or max(by_scaling, after_centring) < _BETTER:
        return None
    norms = facts.spectrum.column_norms[int(facts.bias) :]
    smallest, largest = int(torch.argmin(torch.where(norms > 0, norms, math.inf))), int(torch.argmax(norms))
    best = both if facts.bias else scaled
    spread = float(norms[largest] / norms[smallest])
    before, after = _steps(facts)
    repaired = (
        "and scaling repairs it"
        if best < _COLLINEAR
        else "but scaling does not repair all of it: what remains is collinearity"
    )
    return Finding(
        name="unscaled_columns",
        severity=Severity.WARNING,
        title=f"The columns differ in scale by {short(spread)}: condition {short(raw)}, {short(best)} when scaled",
        evidence={
            "condition": raw,
            "condition_scaled": best,
            "largest_column": float(largest),
            "smallest_column": float(smallest),
            "scale_ratio": spread,
            "steps_before": before,
            "steps_after": after,
        },
        consequence=(
            f"One step size cannot suit {columns_text([largest], facts.names)} and "
            f"{columns_text([smallest], facts.names)}, "
            f"{repaired}: gradient descent needs {steps_text(after)} instead of {count(before)}."
        ),
        remedy=standardise(facts),
    )


def collinear_columns(facts: Facts) -> Finding | None:
    """Columns that nearly depend on each other: no scaling helps."""
    normal, s = facts.standardised, facts.spectrum
    if normal is None or not _matters(facts) or s.rank < s.decision.columns:
        return None
    both = facts.conditions["centred and scaled"] if facts.bias else facts.conditions["columns scaled"]
    if both < _COLLINEAR:
        return None
    # The flattest direction of the standardised fit, in which the bias has no part.
    columns = columns_involved(normal.directions[-1:, int(facts.bias) :])
    named = columns_text(columns, facts.names) if len(columns) <= 12 else f"{len(columns)} columns together"
    return Finding(
        name="collinear_columns",
        severity=Severity.WARNING,
        title=f"Nearly dependent columns: condition {short(both)} after all scaling",
        evidence={"condition_scaled": both, "columns_involved": float(len(columns)), "first_column": float(columns[0])},
        consequence=(
            f"A combination of {named} is nearly zero on every row. No scaling changes that; first-order methods "
            "need about "
            f"{short(both)} to {short(both**2)} steps, and noise in Y is amplified along it."
        ),
        remedy=closed_form(facts) + f"\n# or drop one of {named}, or add a ridge: l2=..." * (len(columns) <= 12),
    )

"""The columns: weights that are not unique, features that are not centred or not scaled, true collinearity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form, kernel_ridge, ridge, solve_code, standardise, tensors
from closedform.explain.forecasts import forecast
from closedform.explain.training import SAFETY
from closedform.explain.wording import columns_text, count, plural, short, steps_text
from closedform.numerics.rank import columns_involved

__all__ = ["collinear_columns", "not_unique", "uncentred_features", "unscaled_columns"]

#: What counts as an improvement of the condition number worth a line.
_BETTER = 4.0
#: What counts as a condition number that needs one.
_LARGE = 30.0
#: Columns whose sizes differ by less than this are of one size.
_ALIKE = 2.0
#: Columns that are collinear after scaling: a condition number this large costs a million steps.
_COLLINEAR = 1e3
#: Steps that any run makes: below, the columns are nobody's problem.
_FEW_STEPS = 1000.0


def not_unique(case: Case) -> Finding | None:
    """Many weights minimise the loss, or the data do not say whether they do."""
    spectrum, decision = case.landscape.spectrum, case.landscape.spectrum.decision
    if (
        not spectrum.complete
        or case.landscape.triangle is None
        or (spectrum.rank == decision.columns and not decision.ambiguous)
    ):
        return None

    missing = decision.columns - spectrum.rank
    if decision.ambiguous:
        return Finding(
            name="ambiguous_rank",
            severity=Severity.WARNING,
            title=f"Rank {spectrum.rank} of {decision.columns}, without a clear gap: the weights are not determined",
            evidence={
                "rank": float(spectrum.rank),
                "columns": float(decision.columns),
                "cut": decision.cut,
                "gap": decision.gap,
            },
            consequence=(
                "Singular values run into rounding without a gap, so very different weights have the same loss "
                "to all digits. "
                "Judge by predictions, not by weights."
            ),
            remedy=(
                "# X is a kernel between the rows: kernel ridge decides it:\n" + kernel_ridge(case)
                if case.setting.table.kernel
                else "# a small ridge decides it:\n" + ridge(case, "1e-10")
            ),
        )

    free = _undetermined(case)
    columns = [i - int(case.setting.bias) for i in columns_involved(free)] if free is not None else []
    involved = f" (among {columns_text(columns, case.setting.names)})" if 0 < len(columns) <= 12 else ""
    least = torch.linalg.vector_norm(spectrum.minimiser)
    fixed = spectrum.directions[: spectrum.rank]
    start = case.setting.start_matrix
    reached = spectrum.minimiser + start - fixed.T @ (fixed @ start)
    apart = float(torch.linalg.vector_norm(reached - spectrum.minimiser))

    return Finding(
        name="not_unique",
        severity=Severity.WARNING,
        title=f"Many weights are optimal: rank {spectrum.rank} of {decision.columns} columns",
        evidence={
            "rank": float(spectrum.rank),
            "columns": float(decision.columns),
            "free_directions": float(missing),
            "gap": decision.gap,
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
        remedy=("# the weights of least norm, the bias outside the norm:\n" + solve_code(case) + _nearest(case)),
    )


def _nearest(case: Case) -> str:
    setting = case.setting
    if setting.model is None or setting.command is not None:
        return ""
    layer = setting.model.path
    return (
        f"\n# or those where gradient descent from this model ends:\nsol = cf.fit_({layer}, X, Y, nearest_to={layer})"
    )


def _undetermined(case: Case) -> Tensor | None:
    """Directions along which the loss does not change, as rows; None where the rows reach too few to list them."""
    spectrum = case.landscape.spectrum
    if case.landscape.triangle is None or spectrum.directions.shape[0] < spectrum.decision.columns:
        return None
    sizes = spectrum.column_norms
    return spectrum.directions[spectrum.rank :] * torch.where(sizes > 0, sizes, 1.0)


def _steps(case: Case) -> tuple[float, float]:
    """Steps of gradient descent at its best, as it is and with the features standardised."""
    before = case.training.best_steps
    normal = case.landscape.standardised
    if normal is None or not math.isfinite(normal.learning_rate_limit):
        return before, math.nan
    after = forecast(normal, lr=SAFETY * normal.learning_rate_limit, steps=[0]).steps_to(case.training.goal_excess)
    return before, after


def _standardised_excess(case: Case) -> float:
    """Excess loss after the steps given of gradient descent at its best on standardised features, from zero weights."""
    normal = case.landscape.standardised
    if normal is None or not math.isfinite(normal.learning_rate_limit):
        return math.nan
    return float(forecast(normal, lr=SAFETY * normal.learning_rate_limit, steps=[case.setting.patience]).excess[0])


def _matters(case: Case) -> bool:
    if case.landscape.triangle is None or case.setting.l2 > 0 or case.training.settles:
        return False
    return case.training.best_steps > max(_FEW_STEPS, 0.01 * case.setting.patience)


def uncentred_features(case: Case) -> Finding | None:
    """Means of the features that make one direction much steeper than the others."""
    if not _matters(case):
        return None

    raw, centred = case.landscape.conditions["as it is"], case.landscape.conditions["centred"]
    if raw < _LARGE or raw < _BETTER * centred:
        return None

    if case.setting.bias:
        before, after = _steps(case)
        effect = (
            f"With the features standardised, gradient descent needs {steps_text(after)} instead of {count(before)}."
        )
        evidence = {"condition": raw, "condition_centred": centred, "steps_before": before, "steps_after": after}
        remedy = standardise(case)
    else:
        effect = (
            "A layer with a bias on centred features would have that condition number; it is another model, though."
        )
        evidence = {"condition": raw, "condition_centred": centred}
        size = f"{case.setting.table.n_features}, {case.setting.table.n_targets}"
        remedy = (
            f"{tensors(case)}mean = X.mean(0)\nmodel = torch.nn.Linear({size}, bias=True, dtype=X.dtype)\n"
            "train(model, X - mean)                  # and predict with model(X_new - mean)"
        )

    return Finding(
        name="uncentred_features",
        severity=Severity.WARNING,
        title=f"The features are not centred: condition {short(raw)}, and {short(centred)} without their means",
        evidence=evidence,
        consequence=f"The mean of the features is the steepest direction and holds the step down. {effect}",
        remedy=remedy,
        excess_once_mended=_standardised_excess(case) if case.setting.bias else math.nan,
    )


def unscaled_columns(case: Case) -> Finding | None:
    """Columns in very different units."""
    if not _matters(case):
        return None

    raw, scaled = case.landscape.conditions["as it is"], case.landscape.conditions["columns scaled"]
    centred, both = case.landscape.conditions["centred"], case.landscape.conditions["centred and scaled"]
    by_scaling, after_centring = raw / scaled, centred / both if case.setting.bias else 1.0
    if raw < _LARGE or max(by_scaling, after_centring) < _BETTER:
        return None

    norms = case.landscape.spectrum.column_norms[int(case.setting.bias) :]
    smallest, largest = int(torch.argmin(torch.where(norms > 0, norms, math.inf))), int(torch.argmax(norms))
    best = both if case.setting.bias else scaled
    spread = float(norms[largest] / norms[smallest])
    if largest == smallest or spread < _ALIKE:
        # One column, or columns of one size: it is the column of ones that differs.
        return _beside_the_bias(case, largest, float(norms[largest])) if case.setting.bias else None

    before, after = _steps(case)
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
            f"One step size cannot suit {columns_text([largest], case.setting.names)} and "
            f"{columns_text([smallest], case.setting.names)}, "
            f"{repaired}: gradient descent needs {steps_text(after)} instead of {count(before)}."
        ),
        remedy=standardise(case),
        excess_once_mended=_standardised_excess(case),
    )


def _beside_the_bias(case: Case, column: int, norm: float) -> Finding | None:
    """Columns of one size beside a column of ones of another."""
    landscape = case.landscape
    ones = float(landscape.spectrum.column_norms[0])
    spread = max(norm, ones) / min(norm, ones)
    if spread < _BETTER:
        return None

    raw, best = landscape.conditions["as it is"], landscape.conditions["centred and scaled"]
    before, after = _steps(case)

    return Finding(
        name="unscaled_columns",
        severity=Severity.WARNING,
        title=(
            f"The features are {short(spread)} times {'larger' if norm > ones else 'smaller'} than the bias's column "
            f"of ones: condition {short(raw)}, {short(best)} when scaled"
        ),
        evidence={
            "condition": raw,
            "condition_scaled": best,
            "largest_column": float(column if norm > ones else -1),
            "smallest_column": float(-1 if norm > ones else column),
            "scale_ratio": spread,
            "steps_before": before,
            "steps_after": after,
        },
        consequence=(
            f"One step size cannot suit the bias and {columns_text([column], case.setting.names)}: gradient descent "
            f"needs {count(before)} steps, and {steps_text(after)} with the features standardised."
        ),
        remedy=standardise(case),
        excess_once_mended=_standardised_excess(case),
    )


def collinear_columns(case: Case) -> Finding | None:
    """Columns that nearly depend on each other: no scaling helps."""
    normal, spectrum = case.landscape.standardised, case.landscape.spectrum
    if normal is None or not _matters(case) or spectrum.rank < spectrum.decision.columns:
        return None

    both = (
        case.landscape.conditions["centred and scaled"]
        if case.setting.bias
        else case.landscape.conditions["columns scaled"]
    )
    if both < _COLLINEAR:
        return None

    # The flattest direction of the standardised fit, in which the bias has no part.
    columns = columns_involved(normal.directions[-1:, int(case.setting.bias) :])
    named = columns_text(columns, case.setting.names) if len(columns) <= 12 else f"{len(columns)} columns together"

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
        remedy=closed_form(case) + f"\n# or drop one of {named}, or add a ridge: l2=..." * (len(columns) <= 12),
    )

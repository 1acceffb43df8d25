"""References that mislead: solvers that cut singular values quietly; and what a partial spectrum cannot say."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form
from closedform.explain.wording import count, plural, short

__all__ = ["partial", "reference_truncates"]

#: scikit-learn 1.7 and later hands tol=1e-6 to LAPACK as the relative cut-off of singular values.
_SCIKIT_LEARN = 1e-6
#: An excess loss of this share would be seen in a comparison.
_SEEN = 1e-9


def reference_truncates(case: Case) -> Finding | None:
    """Reference solvers that would drop directions which carry part of the target."""
    triangle, centred, spectrum = case.landscape.triangle, case.landscape.centred, case.landscape.spectrum
    if triangle is None or centred is None or spectrum.rank == 0 or case.setting.l2 > 0:
        return None

    # LinearRegression centres the features first, so its cut is on the centred triangle.
    matrix, target = (centred.R, centred.C) if case.setting.bias else (triangle.R, triangle.C)
    sklearn_count, sklearn_excess = _cut(matrix, target, _SCIKIT_LEARN, case)
    eps = float(torch.finfo(case.setting.table.dtype).eps)
    torch_cut = eps * max(triangle.rows, triangle.columns)
    torch_count, torch_excess = _cut(triangle.R, triangle.C, torch_cut, case)
    worst = max(sklearn_excess, torch_excess)
    if worst <= _SEEN * case.landscape.reference_excess or worst <= _SEEN * spectrum.optimal_loss:
        return None

    who = []
    if sklearn_excess > _SEEN * case.landscape.reference_excess:
        who.append(
            f"scikit-learn's LinearRegression (tol=1e-6) drops {plural(sklearn_count, 'direction')} and ends "
            f"{short(sklearn_excess)} above the smallest loss"
        )

    if torch_excess > _SEEN * case.landscape.reference_excess:
        who.append(
            f"torch.linalg.lstsq (gelsy, in {str(case.setting.table.dtype).removeprefix('torch.')}) drops "
            f"{count(torch_count)} and ends {short(torch_excess)} above it"
        )

    return Finding(
        name="reference_truncates",
        severity=Severity.INFO,
        title="A usual reference would cut singular values that matter here",
        evidence={
            "sklearn_directions_cut": float(sklearn_count),
            "sklearn_excess_loss": sklearn_excess,
            "torch_directions_cut": float(torch_count),
            "torch_excess_loss": torch_excess,
        },
        consequence="; ".join(who) + ". Do not take it for the minimum.",
        remedy="LinearRegression(tol=1e-16)   # scikit-learn\n" + closed_form(case),
    )


def _cut(matrix: Tensor, target: Tensor, cut: float, case: Case) -> tuple[int, float]:
    """How many singular values lie at or below the cut, and the excess loss of dropping those that count."""
    rank = case.landscape.spectrum.rank - (
        int(case.setting.bias) if matrix.shape[1] < case.landscape.spectrum.decision.columns else 0
    )
    if matrix is (case.landscape.triangle.R if case.landscape.triangle is not None else None):
        values, components = case.landscape.spectrum.singular_values, case.landscape.spectrum.target_components
    else:
        values = torch.linalg.svdvals(matrix)
        # One row less its mean leaves nothing.
        if values.numel() == 0 or not bool((values[:rank] <= cut * values[0]).any()):
            return 0, 0.0
        U, values, _ = torch.linalg.svd(matrix, full_matrices=False)
        components = U.T @ target
    dropped = values[:rank] <= cut * values[0]
    lost = components[:rank][dropped].square().sum()
    return int(dropped.sum()), float(lost) / (case.landscape.spectrum.n_rows * case.landscape.spectrum.n_targets)


def partial(case: Case) -> Finding | None:
    """Only the leading part of the spectrum was computed."""
    spectrum = case.landscape.spectrum
    if spectrum.complete:
        return None

    known = spectrum.singular_values.numel()
    return Finding(
        name="partial_spectrum",
        severity=Severity.INFO,
        title=f"Only the {known} largest of {count(spectrum.decision.columns)} singular values were computed",
        evidence={
            "computed": float(known),
            "columns": float(spectrum.decision.columns),
            "condition_at_least": spectrum.condition,
        },
        consequence=(
            f"The learning-rate limits hold. The condition number is at least {short(spectrum.condition)}, step counts "
            "are lower bounds, and what lies along the other directions counts as unexplained."
        ),
        remedy=(
            "import closedform as cf\n\n# all of it, if time and memory allow:\n"
            f"d = cf.diagnose(X, Y, exact_up_to={spectrum.decision.columns})"
        ),
    )

"""References that mislead: solvers that cut singular values quietly; and what a partial spectrum cannot say."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.explain.facts import Facts
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form
from closedform.explain.wording import count, plural, short

__all__ = ["partial", "reference_truncates"]

# scikit-learn 1.7 and later hands tol=1e-6 to LAPACK as the relative cut-off of singular values.
_SCIKIT_LEARN = 1e-6
# An excess loss of this share would be seen in a comparison.
_SEEN = 1e-9


def reference_truncates(facts: Facts) -> Finding | None:
    """Reference solvers that would drop directions which carry part of the target."""
    c, s = facts.compressed, facts.spectrum
    if c is None or s.rank == 0 or facts.l2 > 0:
        return None
    # LinearRegression centres the features first, so its cut is on the centred triangle.
    matrix, target = (c.centred, c.C[1:]) if facts.bias else (c.R, c.C)
    sklearn_count, sklearn_excess = _cut(matrix, target, _SCIKIT_LEARN, facts)
    eps = float(torch.finfo(facts.rows.dtype).eps)
    torch_cut = eps * max(c.row_count, c.n_columns)
    torch_count, torch_excess = _cut(c.R, c.C, torch_cut, facts)
    worst = max(sklearn_excess, torch_excess)
    if worst <= _SEEN * facts.reference_excess or worst <= _SEEN * s.optimal_loss:
        return None
    who = []
    if sklearn_excess > _SEEN * facts.reference_excess:
        who.append(
            f"scikit-learn's LinearRegression (tol=1e-6) drops {plural(sklearn_count, 'direction')} and ends "
            f"{short(sklearn_excess)} above the smallest loss"
        )
    if torch_excess > _SEEN * facts.reference_excess:
        who.append(
            f"torch.linalg.lstsq (gelsy, in {str(facts.rows.dtype).removeprefix('torch.')}) drops "
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
        remedy="LinearRegression(tol=1e-16)   # scikit-learn\n" + closed_form(facts),
    )


def _cut(matrix: Tensor, target: Tensor, cut: float, facts: Facts) -> tuple[int, float]:
    """How many singular values lie at or below the cut, and the excess loss of dropping those that count."""
    rank = facts.spectrum.rank - (int(facts.bias) if matrix.shape[1] < facts.spectrum.decision.columns else 0)
    if matrix is (facts.compressed.R if facts.compressed is not None else None):
        values, components = facts.spectrum.singular_values, facts.spectrum.target_components
    else:
        values = torch.linalg.svdvals(matrix)
        # One row less its mean leaves nothing.
        if values.numel() == 0 or not bool((values[:rank] <= cut * values[0]).any()):
            return 0, 0.0
        U, values, _ = torch.linalg.svd(matrix, full_matrices=False)
        components = U.T @ target
    dropped = values[:rank] <= cut * values[0]
    lost = components[:rank][dropped].square().sum()
    return int(dropped.sum()), float(lost) / (facts.spectrum.n_rows * facts.spectrum.n_targets)


def partial(facts: Facts) -> Finding | None:
    """Only the leading part of the spectrum was computed."""
    s = facts.spectrum
    if s.complete:
        return None
    known = s.singular_values.numel()
    return Finding(
        name="partial_spectrum",
        severity=Severity.INFO,
        title=f"Only the {known} largest of {count(s.decision.columns)} singular values were computed",
        evidence={"computed": float(known), "columns": float(s.decision.columns), "condition_at_least": s.condition},
        consequence=(
            f"The learning-rate limits hold. The condition number is at least {short(s.condition)}, step counts are "
            "lower bounds, and what lies along the other directions counts as unexplained."
        ),
        remedy=f"# all of it, if time and memory allow:\nd = cf.diagnose(X, Y, exact_up_to={s.decision.columns})",
    )

"""The end of a fit: what was found, as the solution that a user gets, with the notes on it."""

from __future__ import annotations

import torch

from closedform.fit.certification import Certificate
from closedform.fit.class_labels import labels_note
from closedform.fit.kernels import KERNEL_NOTE, looks_like_kernel
from closedform.fit.layers import round_to
from closedform.fit.plan import Plan
from closedform.fit.problem import Problem
from closedform.fit.solution import Attempt, Fitted, Solution, involved_text, outcome_of
from closedform.fit.statistics import standard_errors_of
from closedform.fit.storage import measure_stored

__all__ = ["conclude"]


def conclude(problem: Problem, plan: Plan, best: Fitted, attempts: tuple[Attempt, ...], dtype: torch.dtype) -> Solution:
    """Return what a user gets: the weights in the dtype of the layer, what is said of them and of the way there.

    Args:
        problem: What was solved.
        plan: How it was meant to be.
        best: What was found, with its certificate.
        attempts: How it was.
        dtype: What the weights are rounded to.
    """
    certificate, weights = best.certificate, best.weights
    return Solution(
        weight=round_to(weights.weight, dtype),
        bias=None if weights.bias is None else weights.bias.to(dtype),
        certificate=certificate,
        outcome=outcome_of(certificate),
        plan=plan,
        attempts=attempts,
        notes=_notes(problem, certificate, dtype),
        seconds=sum(attempt.seconds for attempt in attempts),
        single_target=problem.rows.single_target,
        rows=problem.rows.triangle_of or problem.scanned.positive_rows,
        _scale=problem.scale,
        stored=measure_stored(problem, weights, dtype, best.factor.claims, certificate),
        _standard_errors=standard_errors_of(
            problem, best.factor.claims, best.factor.accuracy, certificate.residual_std
        ),
    )


def _notes(problem: Problem, certificate: Certificate, dtype: torch.dtype) -> tuple[str, ...]:
    rows = problem.rows
    notes = list(rows.notes)
    if problem.l2 > 0 and not problem.bias and looks_like_kernel(rows):
        notes.append(KERNEL_NOTE)
    labels = labels_note(rows)
    if labels is not None:
        notes.append(labels)
    missing = certificate.columns - certificate.rank
    if missing:
        notes.append(
            f"{missing} of {certificate.columns} directions {'is' if missing == 1 else 'are'} not determined by the "
            f"rows (cut at {certificate.rank_cut:.1e} of the largest singular value, gap {certificate.rank_gap:.1e})"
            + involved_text(certificate.undetermined_columns, rows.feature_names)
        )

    better = certificate.loss_with_bias
    if better is not None and better < certificate.loss / 2:
        notes.append(
            f"the fit has no bias; with one the loss would be about {better:.6g}, less than half of "
            f"{certificate.loss:.6g} (bias=True, or a layer with a bias)"
        )
    if dtype != torch.float64:
        notes.append(f"the weights were computed in float64 and rounded to {str(dtype).removeprefix('torch.')}")
    return tuple(notes)

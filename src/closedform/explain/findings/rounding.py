"""Arithmetic: data beyond its range, a dtype that cannot reach the goal, products that CUDA rounds to TF32."""

from __future__ import annotations

import math

import torch

from closedform.explain.facts import SAFETY, Facts
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form
from closedform.explain.precision import Precision
from closedform.explain.wording import short

__all__ = ["out_of_range", "precision_floor", "tf32"]

_NARROW = (torch.float32, torch.float16, torch.bfloat16)


def out_of_range(facts: Facts) -> Finding | None:
    """Features or targets whose squares are no float64 numbers: no loss, no gradient, no step size."""
    s = facts.spectrum
    if s.in_range:
        return None
    return Finding(
        name="out_of_range",
        severity=Severity.ERROR,
        title="The data are too large or too small for any loss that squares",
        evidence={
            "condition": s.condition,
            "largest_singular_value": float(s.singular_values[0]),
            "smallest_singular_value": float(s.singular_values[max(0, s.rank - 1)]),
        },
        consequence=(
            f"{s.range_text[0].upper()}{s.range_text[1:]}. Squared errors, gradients or step sizes overflow or vanish, "
            "so no optimizer can move to the minimiser, and nothing can be forecast. The closed form does not square."
        ),
        remedy=(
            "X = X / X.abs().max()   # the weights then hold for the scaled features\n"
            "Y = Y / Y.abs().max()\n# or at once, as it is:\n" + closed_form(facts)
        ),
    )


def precision_floor(facts: Facts) -> Finding | None:
    """The dtype that is trained in cannot reach the goal."""
    precision = Precision(facts.precision.dtype, tf32=False)
    lr = _learning_rate(facts)
    if precision.dtype not in _NARROW or lr is None:
        return None
    floor = facts.excess_floor(precision, lr)
    double = facts.excess_floor(Precision(torch.float64, tf32=False), lr)
    share = floor / facts.reference_excess
    if share <= facts.goal:
        return None
    return Finding(
        name="precision_floor",
        severity=Severity.WARNING,
        title=f"{precision} cannot come closer than about {short(share)} of the excess loss",
        evidence={"excess_floor": floor, "share": share, "excess_floor_float64": double, "eps": precision.eps},
        consequence=(
            f"In directions of small eigenvalue the step becomes smaller than the last digit of the weights, and "
            f"the run stops at an excess loss of about {short(floor)}. In float64 that would be {short(double)}."
        ),
        remedy="model, X, Y = model.double(), X.double(), Y.double()\n# or at once, in float64 inside:\n"
        + closed_form(facts),
    )


def tf32(facts: Facts) -> Finding | None:
    """CUDA is set to round what it multiplies to TF32, ten bits: residuals are known to three digits."""
    lr = _learning_rate(facts)
    if not facts.precision.tf32 or lr is None:
        return None
    floor = facts.excess_floor(facts.precision, lr)
    full = facts.excess_floor(Precision(torch.float32, tf32=False), lr)
    share = floor / facts.reference_excess
    matters = share > facts.goal and floor > 2 * full
    return Finding(
        name="tf32",
        severity=Severity.WARNING if matters else Severity.INFO,
        title=f"TF32 is on: products of float32 numbers keep 3 digits, {short(share)} of the excess loss",
        evidence={
            "excess_floor": floor,
            "share": share,
            "excess_floor_float32": full,
            "eps": facts.precision.product_eps,
        },
        consequence=(
            "torch.get_float32_matmul_precision() is not 'highest' (torch.backends.cuda.matmul.allow_tf32), and the "
            f"model is on {facts.device}: what residuals and gradients are made of is rounded to 11 bits, and the run "
            f"stops at an excess loss of about {short(floor)}, where full float32 would stop at {short(full)}."
        ),
        remedy='torch.set_float32_matmul_precision("highest")\n# or at once, in float64 inside:\n' + closed_form(facts),
    )


def _learning_rate(facts: Facts) -> float | None:
    """The learning rate on ``MSELoss()`` that rounding is judged at; None where there is nothing to judge."""
    if not facts.squared or facts.reference_excess == 0:
        return None
    run = facts.training.forecast
    lr = run.lr if run is not None else SAFETY * facts.spectrum.learning_rate_limit
    return lr if 0 < lr < math.inf else None

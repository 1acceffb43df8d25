"""Arithmetic: data beyond its range, a dtype that cannot reach the goal, products that CUDA rounds to TF32."""

from __future__ import annotations

import math

import torch

from closedform.explain.case import Case
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form, tensors
from closedform.explain.precision import Precision
from closedform.explain.training import SAFETY
from closedform.explain.wording import short

__all__ = ["out_of_range", "precision_floor", "tf32"]

#: What rounds so far that a run may feel it.
_NARROW = (torch.float32, torch.float16, torch.bfloat16)


def out_of_range(case: Case) -> Finding | None:
    """Features or targets whose squares the arithmetic does not hold: no loss, no gradient, no step size."""
    spectrum, obstacle = case.landscape.spectrum, case.training.obstacle
    if spectrum.in_range and obstacle is None:
        return None
    said = spectrum.range_text or str(obstacle)

    return Finding(
        name="out_of_range",
        severity=Severity.ERROR,
        title="The data are too large or too small for any loss that squares",
        evidence={
            "condition": spectrum.condition,
            "largest_singular_value": float(spectrum.singular_values[0]),
            "smallest_singular_value": float(spectrum.singular_values[max(0, spectrum.rank - 1)]),
        },
        consequence=(
            f"{said[0].upper()}{said[1:]}. Squared errors, "
            "gradients or step sizes overflow or vanish, so no optimizer can move to the minimiser, and nothing can be "
            "forecast. The closed form does not square."
        ),
        remedy=(
            tensors(case) + "X = X / X.abs().max()   # the weights then hold for the scaled features\n"
            "Y = Y / Y.abs().max()\n# or at once, as it is:\n" + closed_form(case)
        ),
    )


def precision_floor(case: Case) -> Finding | None:
    """The dtype that is trained in cannot reach the goal."""
    precision = Precision(case.setting.precision.dtype, tf32=False)
    lr = _learning_rate(case)
    if precision.dtype not in _NARROW or lr is None:
        return None
    optimizer = case.setting.optimizer
    if precision.dtype == torch.float32 and optimizer is not None and optimizer.kind != "sgd":
        lr = math.inf  # its steps do not shrink as gradients do: what residuals are known to is left

    floor = case.training.excess_floor(precision, lr)
    double = case.training.excess_floor(Precision(torch.float64, tf32=False), lr)
    share = floor / case.landscape.reference_excess
    if share <= case.setting.goal:
        return None

    course = case.training.course
    return Finding(
        name="precision_floor",
        severity=Severity.WARNING,
        # The whole of it is left by weights of zero, which any dtype holds.
        title=f"{precision} cannot come closer than about {short(share)} of the excess loss"
        if share < 1
        else f"{precision} cannot be trained in: the rounding of a step is as large as the excess loss",
        evidence={"excess_floor": floor, "share": share, "excess_floor_float64": double, "eps": precision.eps},
        consequence=(
            f"In directions of small eigenvalue the step becomes smaller than the last digit of the weights, and "
            f"the run stops at an excess loss of about {short(floor)}. In float64 that would be {short(double)}."
        ),
        remedy="model, X, Y = model.double(), X.double(), Y.double()\n# or at once, in float64 inside:\n"
        + closed_form(case),
        # In float64 the run is as long as it was.
        excess_once_mended=double if course is None else max(double, course.left),
    )


def tf32(case: Case) -> Finding | None:
    """CUDA is set to round what it multiplies to TF32, ten bits: residuals are known to three digits."""
    lr = _learning_rate(case)
    if not case.setting.precision.tf32 or lr is None:
        return None

    floor = case.training.excess_floor(case.setting.precision, lr)
    full = case.training.excess_floor(Precision(torch.float32, tf32=False), lr)
    share = floor / case.landscape.reference_excess
    matters = share > case.setting.goal and floor > 2 * full

    return Finding(
        name="tf32",
        severity=Severity.WARNING if matters else Severity.INFO,
        title=f"TF32 is on: products of float32 numbers keep 3 digits, {short(share)} of the excess loss",
        evidence={
            "excess_floor": floor,
            "share": share,
            "excess_floor_float32": full,
            "eps": case.setting.precision.product_eps,
        },
        consequence=(
            "torch.get_float32_matmul_precision() is not 'highest' (torch.backends.cuda.matmul.allow_tf32), and the "
            f"model is on {case.setting.device}: what residuals and gradients are made of is rounded to 11 bits, and "
            f"the run stops at an excess loss of about {short(floor)}, where full float32 would stop at {short(full)}."
        ),
        remedy='torch.set_float32_matmul_precision("highest")\n# or at once, in float64 inside:\n' + closed_form(case),
    )


def _learning_rate(case: Case) -> float | None:
    """The learning rate on ``MSELoss()`` that rounding is judged at; None where there is nothing to judge."""
    if not case.setting.squared or case.landscape.reference_excess == 0:
        return None
    run = case.training.forecast
    lr = run.steady_lr if run is not None else SAFETY * case.landscape.spectrum.learning_rate_limit
    return lr if 0 < lr < math.inf else None

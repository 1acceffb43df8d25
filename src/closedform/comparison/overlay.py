"""The forecasts of the runs that were measured: the same settings, the same start, the same steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from closedform.comparison.methods import MethodResult
from closedform.explain.diagnosis import Diagnosis
from closedform.explain.records import CurveRecord, DiagnosisRecord

__all__ = ["with_measured_runs"]


def with_measured_runs(diagnosis: Diagnosis, methods: Sequence[MethodResult]) -> DiagnosisRecord:
    """Return the record of a diagnosis whose forecasts are those of the measured runs that have a closed form.

    Args:
        diagnosis: Of the same table and from the same starting weights.
        methods: What was measured.
    """
    record = diagnosis.record
    if not record.simulation.eigenvalues:
        return record
    forecasts = (_forecast(diagnosis, method) for method in methods if "momentum" in method.hyperparameters)
    return replace(record, forecasts=tuple(forecasts))


def _forecast(diagnosis: Diagnosis, method: MethodResult) -> CurveRecord:
    lr, momentum = (float(method.hyperparameters[key]) for key in ("lr", "momentum"))
    nesterov = bool(method.hyperparameters["nesterov"])
    steps = [point.steps for point in method.curve]
    curve = diagnosis.forecast("sgd", lr=lr, momentum=momentum, nesterov=nesterov, steps=steps)
    return CurveRecord(
        name=method.name,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=0.0,
        dampening=0.0,
        steps=tuple(steps),
        loss=tuple(curve.loss.tolist()),
        excess=tuple(curve.excess.tolist()),
        steps_to_goal=curve.steps_to(diagnosis.record.simulation.goal_excess),
        emphasised=False,
        text="",
    )

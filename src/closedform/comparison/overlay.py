"""The forecasts of the runs that were measured: the same settings, the same start, the same steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from closedform.comparison.methods import MethodResult
from closedform.explain.forecasts import forecast
from closedform.explain.records import CurveRecord, DiagnosisRecord
from closedform.explain.spectra import Spectrum

__all__ = ["with_measured_runs"]


def with_measured_runs(
    record: DiagnosisRecord, spectrum: Spectrum, start: Any, methods: Sequence[MethodResult]
) -> DiagnosisRecord:
    """Return a record whose forecasts are those of the measured runs that have a closed form.

    Args:
        record: The diagnosis of the same table.
        spectrum: Its spectrum.
        start: The starting weights of the runs, as a forecast takes them.
        methods: What was measured.
    """
    if not record.simulation.eigenvalues:
        return record
    plain = [method for method in methods if "momentum" in method.hyperparameters]
    return replace(record, forecasts=tuple(_forecast(record, spectrum, start, method) for method in plain))


def _forecast(record: DiagnosisRecord, spectrum: Spectrum, start: Any, method: MethodResult) -> CurveRecord:
    lr, momentum = (float(method.hyperparameters[key]) for key in ("lr", "momentum"))
    nesterov = bool(method.hyperparameters["nesterov"])
    steps = [point.steps for point in method.curve]
    curve = forecast(spectrum, "sgd", lr=lr, momentum=momentum, nesterov=nesterov, steps=steps, start=start)
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
        steps_to_goal=curve.steps_to(record.simulation.goal_excess),
        emphasised=False,
        text="",
    )

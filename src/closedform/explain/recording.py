"""From the facts of a diagnosis to its record: what reports, the command line and programs read."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from closedform.explain.facts import SAFETY, Facts
from closedform.explain.finding import Finding, Folklore, Verdict
from closedform.explain.forecasts import Forecast, Limit, step_limit
from closedform.explain.records import (
    AdviceRecord,
    ConditionRecord,
    CurveRecord,
    DiagnosisRecord,
    EnvironmentRecord,
    LimitRecord,
    LossRecord,
    ProblemRecord,
    RankRecord,
    SimulationRecord,
    SpectrumRecord,
    StepLimitRecord,
    TextRecord,
)
from closedform.words.numbers import count, momentum_text, plural, short, steps_text

__all__ = ["curve_record", "record"]

#: Points of a curve, evenly spaced in the logarithm of the step.
_POINTS = 240


def record(
    facts: Facts, verdict: Verdict, findings: Sequence[Finding], folklore: Sequence[Folklore], text: TextRecord
) -> DiagnosisRecord:
    """Return the record of a diagnosis; its keys are documented in docs/report.md."""
    spectrum = facts.spectrum

    return DiagnosisRecord(
        verdict=verdict,
        problem=_problem(facts),
        text=text,
        condition=spectrum.condition,
        learning_rate_limit=spectrum.learning_rate_limit,
        conditions=tuple(ConditionRecord(name, value) for name, value in facts.conditions.items()),
        rank=_rank(facts),
        loss=_loss(facts),
        step_limits=_step_limits(facts),
        spectrum=_spectrum(facts),
        simulation=_simulation(facts),
        forecasts=tuple(curve_record(facts, *entry) for entry in _forecasts(facts)),
        limits=tuple(_limit(facts, limit) for limit in facts.limits),
        findings=tuple(findings),
        folklore=tuple(AdviceRecord(**vars(piece), comparable=piece.comparable) for piece in folklore),
        notes=tuple(_notes(facts)),
        environment=_environment(),
        code=_code(facts),
    )


def _rank(facts: Facts) -> RankRecord:
    decision = facts.spectrum.decision
    return RankRecord(
        rank=facts.spectrum.rank,
        columns=decision.columns,
        cut=decision.cut,
        gap=decision.gap,
        ambiguous=decision.ambiguous,
        complete=facts.spectrum.complete,
    )


def _loss(facts: Facts) -> LossRecord:
    optimal, run = facts.spectrum.optimal_loss, facts.shown
    return LossRecord(
        optimal=optimal,
        at_zero=optimal + facts.spectrum.excess_at_zero,
        at_start=optimal + facts.start_excess,
        excess_at_start=facts.start_excess,
        rounding_floor=None if run is None else run.rounding_floor,
        precision_floor=None if run is None else facts.excess_floor(facts.precision, run.lr),
        dtype=str(facts.precision),
    )


def _problem(facts: Facts) -> ProblemRecord:
    rows = facts.rows
    text = (
        f"{plural(rows.n_rows, 'row')}, {plural(rows.n_features, 'feature')}, {plural(rows.n_targets, 'target')}, "
        f"{'with' if facts.bias else 'no'} bias, {facts.precision}" + (f", ridge l2={facts.l2:g}" if facts.l2 else "")
    )
    return ProblemRecord(
        rows=rows.n_rows,
        features=rows.n_features,
        targets=rows.n_targets,
        bias=facts.bias,
        l2=facts.l2,
        dtype=str(rows.dtype).removeprefix("torch."),
        weighted=rows.weight is not None,
        goal=facts.goal,
        steps=facts.steps,
        batch_size=facts.batch_size,
        text=text,
    )


def _step_limits(facts: Facts) -> tuple[StepLimitRecord, ...]:
    largest = float(facts.spectrum.eigenvalues[0])
    total = facts.spectrum.n_rows * facts.spectrum.n_targets
    own = facts.optimizer.momentum if facts.optimizer is not None and 0 < facts.optimizer.momentum < 1 else 0.9
    found = []
    for method, momentum, nesterov in (("sgd", 0.0, False), ("momentum", own, False), ("nesterov", own, True)):
        mean = step_limit(largest, momentum, nesterov)
        label = method if not momentum else f"{method} {momentum:g}"
        text = f"{label}: lr below {short(mean)} on MSELoss(), {short(mean / total)} on its sum"
        found.append(StepLimitRecord(method, momentum, mean, mean / total, text))
    return tuple(found)


def _spectrum(facts: Facts) -> SpectrumRecord:
    s = facts.spectrum
    along = s.target_components.square().sum(1)
    total = float(along.sum() + s.residual_squares.sum()) or 1.0
    left = facts.start_gaps / (facts.start_excess or 1.0)
    return SpectrumRecord(
        singular_values=tuple(s.singular_values.tolist()),
        target_share=tuple((along / total).tolist()),
        remaining_share=(*left.tolist(), *[0.0] * (s.singular_values.numel() - left.numel())),
        unexplained_share=float(s.residual_squares.sum()) / total,
        cut=s.decision.cut,
        rank=s.rank,
        complete=s.complete,
    )


def _simulation(facts: Facts) -> SimulationRecord:
    s, run = facts.spectrum, facts.shown
    n_terms = s.n_rows * s.n_targets
    # There is nothing to move where squares are beyond float64.
    known = s.rank if s.in_range else 0
    targets, left = s.target_components[:known], s.residuals(facts.start_matrix)[:known]

    return SimulationRecord(
        eigenvalues=tuple(s.eigenvalues[:known].tolist()),
        start_excess=tuple(facts.start_gaps[:known].tolist()),
        # With weight decay the run ends elsewhere, between the minimiser and zero.
        start_towards_zero=tuple(((left * targets).sum(1) / n_terms).tolist()),
        zero_excess=tuple((targets.square().sum(1) / n_terms).tolist()),
        optimal_loss=s.optimal_loss,
        excess_at_zero=s.excess_at_zero,
        goal_excess=facts.goal_excess,
        lr=None if run is None else run.lr,
        momentum=0.0 if run is None else run.momentum,
        nesterov=run is not None and run.nesterov,
        weight_decay=0.0 if run is None else run.weight_decay,
        dampening=0.0 if run is None else run.dampening,
        steps=facts.patience,
    )


def _forecasts(facts: Facts) -> list[tuple[str, Forecast, bool]]:
    """Curves to show, the user's own run first where it has a closed form."""
    if facts.spectrum.rank == 0 or not facts.spectrum.in_range:
        return []
    found = []
    run, best = facts.training.forecast, facts.best_descent
    if run is not None:
        found.append((f"your run: lr {short(run.lr / facts.loss_factor)}", run, True))
    found.append((f"gradient descent, lr {short(best.lr)} (mean)", best, run is None))
    for limit in facts.limits:
        if limit.name in ("heavy ball", "nesterov") and limit.lr is not None and limit.momentum is not None:
            curve = facts.forecast(
                lr=limit.lr, momentum=limit.momentum, nesterov=limit.name == "nesterov", steps=[facts.patience]
            )
            settings = f"lr {short(limit.lr)}, momentum {momentum_text(limit.momentum)}"
            found.append((f"{limit.name} at its best, {settings}", curve, False))
    return found


def curve_record(
    facts: Facts, name: str, forecast: Forecast, emphasised: bool, at: Sequence[int] | None = None
) -> CurveRecord:
    """Return a forecast as values, at the steps given or spread over those that the run has."""
    last = facts.patience
    if at is None:
        places = torch.logspace(0, math.log10(last), _POINTS, dtype=torch.float64).round().to(torch.int64)
        steps = torch.unique(torch.cat([torch.tensor([0, last]), places.clamp(max=last)]))
    else:
        steps = torch.tensor(at, dtype=torch.int64)
    excess = forecast.excess_at(steps)
    needed = forecast.steps_to(facts.goal_excess)
    share = float(excess[-1]) / (facts.reference_excess or 1.0)

    return CurveRecord(
        name=name,
        lr=forecast.lr,
        momentum=forecast.momentum,
        nesterov=forecast.nesterov,
        weight_decay=forecast.weight_decay,
        dampening=forecast.dampening,
        steps=tuple(steps.tolist()),
        loss=tuple((excess + forecast.optimal_loss).tolist()),
        excess=tuple(excess.tolist()),
        steps_to_goal=needed,
        emphasised=emphasised,
        text=f"{name}: {short(share)} of the excess loss is left after {count(int(steps[-1]))} steps; the goal: "
        f"{steps_text(needed)}.",
    )


def _limit(facts: Facts, limit: Limit) -> LimitRecord:
    if limit.bound:
        text = f"{limit.name}, which no method that adds up gradients can beat: at most {steps_text(limit.steps)}"
    else:
        how = f"lr {short(limit.lr or 0.0)}"
        how += f", momentum {momentum_text(limit.momentum)}" if limit.momentum else ""
        text = f"{limit.name} at its best ({how} on MSELoss()): {steps_text(limit.steps)}"
    return LimitRecord(**vars(limit), text=text)


def _notes(facts: Facts) -> list[str]:
    notes = list(facts.rows.notes)
    o = facts.optimizer

    if facts.criterion is not None and facts.criterion.kind == "squared" and facts.loss_factor != 1.0:
        notes.append(
            f"the criterion is {short(facts.loss_factor)} times MSELoss(); forecasts are for the lr times that"
        )
    if facts.training.no_closed_form:
        notes.append(f"the run itself was not forecast: {facts.training.no_closed_form}")
    if facts.training.forecast is not None and o is not None and o.warm_momentum:
        notes.append("the optimizer holds momentum of earlier steps; the forecast starts without")
    if o is not None and o.kind == "adam" and not facts.training.rehearsed_in_full and facts.training.rehearsal:
        made = count(float(facts.training.rehearsal.steps[-1]))
        of = f" of {facts.steps:,}" if facts.steps is not None else ""
        left = short(float(facts.training.rehearsed_excess[-1]) / (facts.reference_excess or 1.0))
        notes.append(f"{o.name} was rehearsed for {made}{of} steps, which leave {left} of the excess loss")
    if o is not None and o.kind == "other":
        notes.append(f"{o.name} has no closed form and was not rehearsed; d.rehearse(...) runs it")
    if facts.l2 > 0:
        notes.append("losses include the ridge term, as rows under the table")
    return notes


def _code(facts: Facts) -> str:
    arguments = "".join(
        f", {name}={value!r}"
        for name, value in (
            ("bias", facts.bias),
            ("l2", facts.l2),
            ("steps", facts.steps),
            ("batch_size", facts.batch_size),
        )
        if value
    )
    given = "".join(
        f", {name}={name}"
        for name in ("model", "optimizer", "criterion", "scheduler")
        if getattr(facts, name) is not None
    )

    return (
        "import closedform as cf\n\n"
        f"d = cf.diagnose(X, Y{arguments}{given})\n"
        "print(d)\n"
        f'print(d.forecast("sgd", lr={SAFETY} * d.learning_rate_limit, steps={facts.patience}).loss[-1])'
    )


def _environment() -> EnvironmentRecord:
    return EnvironmentRecord(
        closedform=_own_version(),
        torch=torch.__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
    )


def _own_version() -> str | None:
    try:
        return version("closedform")
    except PackageNotFoundError:  # a source tree that was not installed
        return None

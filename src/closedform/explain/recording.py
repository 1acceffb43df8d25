"""From the facts of a diagnosis to its record: what reports, the command line and programs read."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from closedform.explain.case import Case
from closedform.explain.finding import Finding, Folklore, Verdict
from closedform.explain.forecasts import FAMILY, Forecast, Limit
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
from closedform.explain.training import SAFETY
from closedform.words.numbers import count, momentum_text, plural, short, steps_text

__all__ = ["curve_record", "record"]

#: Points of a curve, evenly spaced in the logarithm of the step.
_POINTS = 240


def record(
    case: Case, verdict: Verdict, findings: Sequence[Finding], folklore: Sequence[Folklore], text: TextRecord
) -> DiagnosisRecord:
    """Return the record of a diagnosis; its keys are documented in docs/report.md."""
    spectrum = case.landscape.spectrum

    return DiagnosisRecord(
        verdict=verdict,
        problem=_problem(case),
        text=text,
        condition=spectrum.condition,
        learning_rate_limit=spectrum.learning_rate_limit,
        conditions=tuple(ConditionRecord(name, value) for name, value in case.landscape.conditions.items()),
        rank=_rank(case),
        loss=_loss(case),
        step_limits=_step_limits(case),
        spectrum=_spectrum(case),
        simulation=_simulation(case),
        forecasts=(*_own_curve(case), *(curve_record(case, *entry) for entry in _forecasts(case))),
        limits=tuple(_limit(case, limit) for limit in case.training.limits),
        findings=tuple(findings),
        folklore=tuple(_advice(piece) for piece in folklore),
        notes=tuple(_notes(case)),
        environment=_environment(),
        code=_code(case),
    )


def _advice(piece: Folklore) -> AdviceRecord:
    return AdviceRecord(
        advice=piece.advice,
        effect=piece.effect,
        steps_before=piece.steps_before,
        steps_after=piece.steps_after if piece.comparable else None,
        sentence=piece.sentence,
        comparable=piece.comparable,
    )


def _rank(case: Case) -> RankRecord:
    decision = case.landscape.spectrum.decision
    return RankRecord(
        rank=case.landscape.spectrum.rank,
        columns=decision.columns,
        cut=decision.cut,
        gap=decision.gap,
        ambiguous=decision.ambiguous,
        complete=case.landscape.spectrum.complete,
    )


def _loss(case: Case) -> LossRecord:
    optimal, run = case.landscape.spectrum.optimal_loss, case.training.shown
    return LossRecord(
        optimal=optimal,
        at_zero=optimal + case.landscape.spectrum.excess_at_zero,
        at_start=optimal + case.training.start_excess,
        excess_at_start=case.training.start_excess,
        # A residual carries a rounding error of about eps |x| |w|, so nothing below its square is seen in a loss.
        measured_floor=sys.float_info.epsilon**2 * case.landscape.spectrum.magnitude(case.setting.start_matrix),
        rounding_floor=None if run is None else run.rounding_floor,
        precision_floor=None if run is None else case.training.excess_floor(case.setting.precision, run.steady_lr),
        dtype=str(case.setting.precision),
    )


def _problem(case: Case) -> ProblemRecord:
    rows = case.setting.table
    text = (
        f"{plural(rows.n_rows, 'row')}, {plural(rows.n_features, 'feature')}, {plural(rows.n_targets, 'target')}, "
        f"{'with' if case.setting.bias else 'no'} bias, {case.setting.precision}"
        + (f", ridge l2={case.setting.l2:g}" if case.setting.l2 else "")
    )
    return ProblemRecord(
        rows=rows.n_rows,
        features=rows.n_features,
        targets=rows.n_targets,
        bias=case.setting.bias,
        l2=case.setting.l2,
        dtype=str(rows.dtype).removeprefix("torch."),
        weighted=rows.weighted,
        goal=case.setting.goal,
        steps=case.setting.steps,
        batch_size=case.setting.batch_size,
        text=text,
    )


def _step_limits(case: Case) -> tuple[StepLimitRecord, ...]:
    largest = float(case.landscape.spectrum.eigenvalues[0])
    total = case.landscape.spectrum.n_rows * case.landscape.spectrum.n_targets
    own = (
        case.setting.optimizer.momentum
        if case.setting.optimizer is not None and 0 < case.setting.optimizer.momentum < 1
        else 0.9
    )
    found = []
    for kind in FAMILY:
        momentum = 0.0 if kind.takes(0.0, False) else own
        mean, method = kind(0.0, momentum).step_limit(largest), kind.name
        label = method if not momentum else f"{method} {momentum:g}"
        text = f"{label}: lr below {short(mean)} on MSELoss(), {short(mean / total)} on its sum"
        found.append(StepLimitRecord(method, momentum, mean, mean / total, text))
    return tuple(found)


def _spectrum(case: Case) -> SpectrumRecord:
    s = case.landscape.spectrum
    along = s.target_components.square().sum(1)
    total = float(along.sum() + s.residual_squares.sum()) or 1.0
    left = case.training.start_gaps / (case.training.start_excess or 1.0)
    return SpectrumRecord(
        singular_values=tuple(s.singular_values.tolist()),
        target_share=tuple((along / total).tolist()),
        remaining_share=(*left.tolist(), *[0.0] * (s.singular_values.numel() - left.numel())),
        unexplained_share=float(s.residual_squares.sum()) / total,
        cut=s.decision.cut,
        rank=s.rank,
        complete=s.complete,
    )


def _simulation(case: Case) -> SimulationRecord:
    s, run = case.landscape.spectrum, case.training.shown
    n_terms = s.n_rows * s.n_targets
    # There is nothing to move where squares are beyond float64.
    known = s.rank if s.in_range else 0
    targets, left = s.target_components[:known], s.residuals(case.setting.start_matrix)[:known]

    return SimulationRecord(
        eigenvalues=tuple(s.eigenvalues[:known].tolist()),
        start_excess=tuple(case.training.start_gaps[:known].tolist()),
        # With weight decay the run ends elsewhere, between the minimiser and zero.
        start_towards_zero=tuple(((left * targets).sum(1) / n_terms).tolist()),
        zero_excess=tuple((targets.square().sum(1) / n_terms).tolist()),
        optimal_loss=s.optimal_loss,
        excess_at_zero=s.excess_at_zero,
        goal_excess=case.training.goal_excess,
        lr=None if run is None else run.lr,
        momentum=0.0 if run is None else run.momentum,
        nesterov=run is not None and run.nesterov,
        weight_decay=0.0 if run is None else run.weight_decay,
        dampening=0.0 if run is None else run.dampening,
        steps=case.setting.patience,
    )


def _forecasts(case: Case) -> list[tuple[str, Forecast, bool]]:
    """Curves to show, the user's own run first where it has a closed form."""
    if case.landscape.spectrum.rank == 0 or not case.landscape.spectrum.in_range:
        return []
    found = []
    run, best = None if case.training.warm else case.training.forecast, case.training.best_descent
    if run is not None:
        found.append((f"your run: lr {short(run.lr / case.setting.loss_factor)}", run, True))
    found.append((f"gradient descent, lr {short(best.lr)} (mean)", best, run is None and case.training.course is None))
    for limit in case.training.limits:
        # Gradient descent at its best stands above already.
        if limit.lr is not None and limit.momentum:
            curve = case.training.predict(
                lr=limit.lr, momentum=limit.momentum, nesterov=limit.nesterov, steps=[case.setting.patience]
            )
            settings = f"lr {short(limit.lr)}, momentum {momentum_text(limit.momentum)}"
            found.append((f"{limit.name} at its best, {settings}", curve, False))
    return found


def _own_curve(case: Case) -> tuple[CurveRecord, ...]:
    """The user's own run where it has no closed form: under a schedule, of mini-batches, rehearsed or extrapolated."""
    course, optimizer, training = case.training.course, case.setting.optimizer, case.training
    if course is None or optimizer is None or case.landscape.spectrum.rank == 0:
        return ()
    if training.forecast is not None and not training.warm:
        return ()

    points = course.steps.numel()
    kept = torch.unique(torch.linspace(0, points - 1, min(points, _POINTS), device="cpu").round().to(torch.int64))
    steps, excess = course.steps[kept], course.excess[kept]
    reached = (course.excess > training.goal_excess).nonzero()
    last = int(reached[-1]) + 1 if reached.numel() else 0
    needed = float(course.steps[last]) if last < points else math.inf
    name = f"your run: {optimizer.name}, lr {short(optimizer.lr)}, {course.known}"
    share = short(training.share(course.left))

    return (
        CurveRecord(
            name=name,
            lr=optimizer.lr * case.setting.loss_factor,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=optimizer.weight_decay,
            dampening=optimizer.dampening,
            steps=tuple(steps.tolist()),
            loss=tuple((excess + case.landscape.spectrum.optimal_loss).tolist()),
            excess=tuple(excess.tolist()),
            steps_to_goal=needed,
            emphasised=True,
            text=f"{name}: {share} of {training.share_of} is left after {count(float(case.setting.patience))} steps; "
            f"the goal: {steps_text(needed)}.",
        ),
    )


def curve_record(
    case: Case, name: str, forecast: Forecast, emphasised: bool, at: Sequence[int] | None = None
) -> CurveRecord:
    """Return a forecast as values, at the steps given or spread over those that the run has."""
    last = case.setting.patience
    if at is None:
        places = torch.logspace(0, math.log10(last), _POINTS, dtype=torch.float64, device="cpu").round().to(torch.int64)
        steps = torch.unique(torch.cat([torch.tensor([0, last], device="cpu"), places.clamp(max=last)]))
    else:
        steps = torch.tensor(at, dtype=torch.int64, device="cpu")
    excess = forecast.excess_at(steps)
    needed = forecast.steps_to(case.training.goal_excess)
    share = case.training.share(float(excess[-1]))

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
        text=f"{name}: {short(share)} of {case.training.share_of} is left after {count(int(steps[-1]))} steps; "
        f"the goal: {steps_text(needed)}.",
    )


def _limit(case: Case, limit: Limit) -> LimitRecord:
    if limit.bound:
        text = f"{limit.name}, which no method that adds up gradients can beat: at most {steps_text(limit.steps)}"
    else:
        how = f"lr {short(limit.lr or 0.0)}"
        how += f", momentum {momentum_text(limit.momentum)}" if limit.momentum else ""
        text = f"{limit.name} at its best ({how} on MSELoss()): {steps_text(limit.steps)}"
    return LimitRecord(**vars(limit), text=text)


def _notes(case: Case) -> list[str]:
    setting, training = case.setting, case.training
    notes = list(setting.table.notes)
    optimizer, course = setting.optimizer, training.course
    if setting.criterion is not None and setting.criterion.kind == "squared" and setting.loss_factor != 1.0:
        notes.append(
            f"the criterion is {short(setting.loss_factor)} times MSELoss(); forecasts are for the lr times that"
        )

    if training.no_closed_form:
        notes.append(f"the run itself was not forecast: {training.no_closed_form}")
    if training.forecast is not None and not training.warm and optimizer is not None and optimizer.warm_momentum:
        notes.append("the optimizer holds momentum of earlier steps; the forecast starts without")
    if optimizer is not None and course is not None and course.how == "extrapolated":
        made = count(float(course.made))
        of = f" of {setting.steps:,}" if setting.steps is not None else ""
        left = short(training.share(float(training.rehearsed_excess[-1])))
        notes.append(f"{optimizer.name} was rehearsed for {made}{of} steps, which leave {left} of {training.share_of}")

    if optimizer is not None and optimizer.kind == "other":
        notes.append(f"{optimizer.name} has no closed form and was not rehearsed; d.rehearse(...) runs it")
    if setting.l2 > 0:
        notes.append("losses include the ridge term, as rows under the table")

    return notes


def _code(case: Case) -> str:
    arguments = "".join(
        f", {name}={value!r}"
        for name, value in (
            ("bias", case.setting.bias),
            ("l2", case.setting.l2),
            ("steps", case.setting.steps),
            ("batch_size", case.setting.batch_size),
        )
        if value
    )
    setting = case.setting
    passed: dict[str, object] = {"model": setting.model, "optimizer": setting.optimizer, "criterion": setting.criterion}
    passed["scheduler"] = setting.schedule
    given = "".join(f", {name}={name}" for name, value in passed.items() if value is not None)

    return (
        "import closedform as cf\n\n"
        f"d = cf.diagnose(X, Y{arguments}{given})\n"
        "print(d)\n"
        f'print(d.forecast("sgd", lr={SAFETY} * d.learning_rate_limit, steps={case.setting.patience}).loss[-1])'
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

"""A diagnosis as plain values: what reports, the command line and programs read."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from closedform.explain.facts import SAFETY, Facts
from closedform.explain.finding import Finding, Folklore, Verdict
from closedform.explain.forecasts import Forecast, Limit, step_limit
from closedform.explain.wording import count, momentum_text, plural, short, steps_text

__all__ = ["record"]

_POINTS = 240


def record(
    facts: Facts, verdict: Verdict, findings: Sequence[Finding], folklore: Sequence[Folklore], text: dict[str, str]
) -> dict[str, Any]:
    """Return the dictionary of a diagnosis; its keys are documented in docs/forecasts.md."""
    s, c = facts.spectrum, facts.spectrum.decision
    run = facts.shown
    plain: dict[str, Any] = _plain(
        {
            "verdict": verdict.to_dict(),
            "problem": _problem(facts),
            "text": text,
            "condition": s.condition,
            "learning_rate_limit": s.learning_rate_limit,
            "conditions": [{"name": name, "value": value} for name, value in facts.conditions.items()],
            "rank": {
                "rank": s.rank,
                "columns": c.columns,
                "cut": c.cut,
                "gap": c.gap,
                "ambiguous": c.ambiguous,
                "complete": s.complete,
            },
            "loss": {
                "optimal": s.optimal_loss,
                "at_zero": s.optimal_loss + s.excess_at_zero,
                "at_start": s.optimal_loss + facts.start_excess,
                "excess_at_start": facts.start_excess,
                "rounding_floor": None if run is None else run.rounding_floor,
                "precision_floor": None if run is None else facts.excess_floor(facts.precision, run.lr),
                "dtype": str(facts.precision),
            },
            "step_limits": _step_limits(facts),
            "spectrum": _spectrum(facts),
            "simulation": _simulation(facts),
            "forecasts": [_curve(facts, *entry) for entry in _forecasts(facts)],
            "limits": [{**limit.to_dict(), "text": _limit_text(facts, limit)} for limit in facts.limits],
            "findings": [finding.to_dict() for finding in findings],
            "folklore": [entry.to_dict() for entry in folklore],
            "notes": _notes(facts),
            "environment": {
                "closedform": _own_version(),
                "torch": torch.__version__,
                "python": platform.python_version(),
                "platform": f"{platform.system()} {platform.machine()}",
            },
            "code": _code(facts),
        }
    )
    return plain


def _problem(facts: Facts) -> dict[str, Any]:
    rows = facts.rows
    text = (
        f"{plural(rows.n_rows, 'row')}, {plural(rows.n_features, 'feature')}, {plural(rows.n_targets, 'target')}, "
        f"{'with' if facts.bias else 'no'} bias, {facts.precision}" + (f", ridge l2={facts.l2:g}" if facts.l2 else "")
    )
    return {
        "rows": rows.n_rows,
        "features": rows.n_features,
        "targets": rows.n_targets,
        "bias": facts.bias,
        "l2": facts.l2,
        "dtype": str(rows.dtype).removeprefix("torch."),
        "weighted": rows.weight is not None,
        "goal": facts.goal,
        "steps": facts.steps,
        "batch_size": facts.batch_size,
        "text": text,
    }


def _step_limits(facts: Facts) -> list[dict[str, Any]]:
    largest = float(facts.spectrum.eigenvalues[0])
    total = facts.spectrum.n_rows * facts.spectrum.n_targets
    own = facts.optimizer.momentum if facts.optimizer is not None and 0 < facts.optimizer.momentum < 1 else 0.9
    found = []
    for method, momentum, nesterov in (("sgd", 0.0, False), ("momentum", own, False), ("nesterov", own, True)):
        mean = step_limit(largest, momentum, nesterov)
        label = method if not momentum else f"{method} {momentum:g}"
        text = f"{label}: lr below {short(mean)} on MSELoss(), {short(mean / total)} on its sum"
        found.append({"method": method, "momentum": momentum, "mean": mean, "sum": mean / total, "text": text})
    return found


def _spectrum(facts: Facts) -> dict[str, Any]:
    s = facts.spectrum
    along = s.target_components.square().sum(1)
    total = float(along.sum() + s.residual_squares.sum()) or 1.0
    left = facts.start_gaps / (facts.start_excess or 1.0)
    return {
        "singular_values": s.singular_values.tolist(),
        "target_share": (along / total).tolist(),
        "remaining_share": left.tolist() + [0.0] * (s.singular_values.numel() - left.numel()),
        "unexplained_share": float(s.residual_squares.sum()) / total,
        "cut": s.decision.cut,
        "rank": s.rank,
        "complete": s.complete,
    }


def _simulation(facts: Facts) -> dict[str, Any]:
    """What the page needs to compute the curve of any settings: sums of squares and products along each direction."""
    s, run = facts.spectrum, facts.shown
    count = s.n_rows * s.n_targets
    # There is nothing to move where squares are beyond float64.
    known = s.rank if s.in_range else 0
    targets, left = s.target_components[:known], s.residuals(facts.start_matrix)[:known]
    return {
        "eigenvalues": s.eigenvalues[:known].tolist(),
        "start_excess": facts.start_gaps[:known].tolist(),
        # With weight decay the run ends elsewhere, between the minimiser and zero.
        "start_towards_zero": ((left * targets).sum(1) / count).tolist(),
        "zero_excess": (targets.square().sum(1) / count).tolist(),
        "optimal_loss": s.optimal_loss,
        "excess_at_zero": s.excess_at_zero,
        "goal_excess": facts.goal_excess,
        "lr": None if run is None else run.lr,
        "momentum": 0.0 if run is None else run.momentum,
        "nesterov": run is not None and run.nesterov,
        "weight_decay": 0.0 if run is None else run.weight_decay,
        "dampening": 0.0 if run is None else run.dampening,
        "steps": facts.patience,
    }


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


def _curve(facts: Facts, name: str, forecast: Forecast, emphasised: bool) -> dict[str, Any]:
    last = facts.patience
    sampled = torch.logspace(0, math.log10(last), _POINTS, dtype=torch.float64).round().to(torch.int64).clamp(max=last)
    steps = torch.unique(torch.cat([torch.tensor([0, last]), sampled]))
    excess = forecast.excess_at(steps)
    needed = forecast.steps_to(facts.goal_excess)
    share = float(excess[-1]) / (facts.reference_excess or 1.0)
    return {
        "name": name,
        "lr": forecast.lr,
        "momentum": forecast.momentum,
        "nesterov": forecast.nesterov,
        "weight_decay": forecast.weight_decay,
        "dampening": forecast.dampening,
        "steps": steps.tolist(),
        "loss": (excess + forecast.optimal_loss).tolist(),
        "excess": excess.tolist(),
        "steps_to_goal": needed,
        "emphasised": emphasised,
        "text": f"{name}: {short(share)} of the excess loss is left after {count(last)} steps; the goal: "
        f"{steps_text(needed)}.",
    }


def _limit_text(facts: Facts, limit: Limit) -> str:
    if limit.bound:
        return f"{limit.name}, which no method that adds up gradients can beat: at most {steps_text(limit.steps)}"
    how = f"lr {short(limit.lr or 0.0)}" + (f", momentum {momentum_text(limit.momentum)}" if limit.momentum else "")
    return f"{limit.name} at its best ({how} on MSELoss()): {steps_text(limit.steps)}"


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


def _own_version() -> str | None:
    try:
        return version("closedform")
    except PackageNotFoundError:  # a source tree that was not installed
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value

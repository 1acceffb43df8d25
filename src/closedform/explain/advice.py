"""Common advice, and what each piece of it would change on these data. To add one is one function and one line."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from closedform.explain.case import Case
from closedform.explain.finding import Folklore
from closedform.explain.forecasts import forecast
from closedform.explain.precision import Precision
from closedform.explain.training import SAFETY
from closedform.explain.wording import count, momentum_text, short, steps_text

__all__ = ["ADVICE", "folklore"]

# Steps that differ by less than this factor are called the same.
_SAME = 1.25
#: Runs that would take more than this many times longer are no advice.
_MANY_TIMES = 1000
#: Steps of Adam that are tried, which cost less than a tenth of a second.
_ADAM_STEPS = 300
#: Learning rates that people try.
_ADAM_RATES = (1e-3, 1e-2, 1e-1)


def folklore(case: Case) -> tuple[Folklore, ...]:
    """Return every piece of advice with its effect."""
    if (
        case.landscape.spectrum.rank == 0
        or not case.landscape.spectrum.in_range
        or case.landscape.reference_excess == 0
    ):
        return ()
    return tuple(advice(case) for advice in ADVICE)


def _before(case: Case) -> float:
    """Steps of the user's run where it has a closed form, else of gradient descent at its best."""
    run = case.training.forecast
    return case.training.steps_to_goal if run is not None and run.stable else case.training.best_steps


def _compare(case: Case, advice: str, after: float, how: str, unit: tuple[str, str] = ("step", "steps")) -> Folklore:
    before = _before(case)
    takes = f"{count(after)} {unit[after != 1]}" if math.isfinite(after) else "never gets there"
    if before == 0:
        return Folklore(advice, "not needed", before, after, "The weights are at the goal already.")
    if math.isinf(after) and math.isinf(before):
        effect, change = "no change", "never gets there either way"
    elif after * _SAME < before:
        effect = "helps"
        change = f"{takes} instead of {count(before)}" if math.isfinite(before) else takes
    elif after > before * _SAME:
        effect, change = "hurts", f"{takes} instead of {count(before)}"
    else:
        effect, change = "no change", f"{takes}, as before"
    return Folklore(advice, effect, before, after, f"{how}: {change}.")


def _normalise_inputs(case: Case) -> Folklore:
    normal = case.landscape.standardised
    what = "Features standardised" if case.setting.bias else "Columns scaled (centring would need a bias)"
    if normal is None or not math.isfinite(normal.learning_rate_limit):
        return Folklore("normalise the inputs", "no change", _before(case), math.nan, "Not computed here.")
    after = forecast(normal, lr=SAFETY * normal.learning_rate_limit, steps=[0]).steps_to(case.training.goal_excess)
    return _compare(
        case, "normalise the inputs", after, f"{what}, the condition number becomes {short(normal.condition)}"
    )


def _normalise_outputs(case: Case) -> Folklore:
    c = case.landscape.triangle
    advice = "normalise the outputs"
    if c is None or not case.setting.bias or float(c.R[0, 0]) == 0:
        how = "Scaling Y scales loss and weights alike; the steps stay"
        return _compare(case, advice, _before(case), how)

    own = case.training.forecast
    run = own if own is not None and own.stable else case.training.best_descent
    # Targets less their mean from zero weights are the targets themselves from a bias at their mean.
    mean = (c.C[0] / c.R[0, 0]).reshape(-1)
    weight = torch.zeros_like(case.setting.start[0])
    centred = forecast(
        case.landscape.spectrum,
        "momentum" if run.momentum else "sgd",
        lr=run.lr,
        momentum=run.momentum,
        nesterov=run.nesterov,
        weight_decay=run.weight_decay,
        dampening=run.dampening,
        steps=[0],
        start=(weight, mean),
    )
    how = "Scaling Y changes nothing; centring it is a better start for the bias"

    return _compare(case, advice, centred.steps_to(case.training.goal_excess), how)


def _batches(advice: str, size: int) -> Callable[[Case], Folklore]:
    def effect(case: Case) -> Folklore:
        rows = case.setting.table.n_rows
        before = _before(case)
        if rows <= size or not math.isfinite(case.landscape.spectrum.learning_rate_limit):
            return Folklore(advice, "no change", before, math.nan, f"There are only {rows} rows.")

        b = case.training.mini_batch(SAFETY * case.landscape.spectrum.learning_rate_limit, size)
        if b.lr_limit / 2 < b.lr:
            b = case.training.mini_batch(b.lr_limit / 2, size)
        passes = b.steps_to(case.training.goal_excess) * size / rows
        if math.isinf(passes) and b.noise_floor > case.training.goal_excess:
            share = short(b.noise_floor / case.landscape.reference_excess)
            return Folklore(
                advice,
                "hurts",
                before,
                math.inf,
                f"At a constant lr of {short(b.lr)} batches of {size} stop at a noise floor, {share} of the "
                "excess loss.",
            )

        return _compare(
            case,
            advice,
            math.ceil(passes) if math.isfinite(passes) else passes,
            f"Batches of {size}, counted in passes over the rows",
            ("pass", "passes"),
        )

    return effect


def _momentum(case: Case) -> Folklore:
    best = next(limit for limit in case.training.limits if limit.name == "heavy ball")
    how = f"At its best (lr {short(best.lr or 0.0)}, momentum {momentum_text(best.momentum or 0.0)})"
    return _compare(case, "momentum", best.steps, how)


def _higher_lr(case: Case) -> Folklore:
    limit = case.landscape.spectrum.learning_rate_limit / case.setting.loss_factor
    how = f"At {SAFETY:g} of the largest stable lr, {short(limit)}"
    return _compare(case, "a higher learning rate", case.training.best_steps, how)


def _adam(case: Case) -> Folklore:
    before = _before(case)
    c, s = case.landscape.triangle, case.landscape.spectrum
    if c is None:
        return Folklore(
            "Adam", "no change", before, math.nan, "Not tried: the table has too many columns for a triangle."
        )

    # The update of Kingma and Ba (2015), for all learning rates side by side. So few steps come nowhere near where the
    # normal equations lose digits, and a step reads half as much memory.
    tried, k = len(_ADAM_RATES), c.targets
    H = c.R.T @ c.R * (2 / (c.weight_sum * k))
    target_gradient = (c.R.T @ c.C * (2 / (c.weight_sum * k))).repeat(1, tried)
    weights = case.setting.start_matrix.repeat(1, tried)
    lr = torch.tensor(_ADAM_RATES, dtype=H.dtype, device=H.device).repeat_interleave(k)
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    for step in range(1, _ADAM_STEPS + 1):
        gradient = H @ weights - target_gradient
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.square()
        weights = weights - lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)

    values, target = s.singular_values[: s.rank].unsqueeze(1), s.target_components[: s.rank].repeat(1, tried)
    gaps = (values * (s.directions[: s.rank] @ weights) - target).square().sum(0).reshape(tried, k).sum(1)
    best = int(torch.argmin(gaps))
    left = float(gaps[best]) / (s.n_rows * k)
    plain = float(case.training.best_descent.excess_at([_ADAM_STEPS]))
    effect = "helps" if left * 10 < plain else "hurts" if left > 10 * plain else "no change"

    return Folklore(
        "Adam",
        effect,
        before,
        math.nan if left > case.training.goal_excess else float(_ADAM_STEPS),
        f"{_ADAM_STEPS} steps rehearsed at lr {_ADAM_RATES[best]:g}, the best of {tried}, leave "
        f"{short(left / case.landscape.reference_excess)} of the excess "
        "loss; gradient "
        f"descent leaves {short(plain / case.landscape.reference_excess)}.",
    )


def _lbfgs(case: Case) -> Folklore:
    best = next(limit for limit in case.training.limits if limit.name == "conjugate gradients")
    how = "With exact line searches no faster than conjugate gradients, at most"
    return _compare(case, "LBFGS", best.steps, how)


def _double(case: Case) -> Folklore:
    before, lr = _before(case), SAFETY * case.landscape.spectrum.learning_rate_limit
    if not math.isfinite(lr):
        return Folklore("double precision", "no change", before, before, "The features are zero.")
    single, double = (
        case.training.excess_floor(Precision(dtype, tf32=False), lr) / case.landscape.reference_excess
        for dtype in (torch.float32, torch.float64)
    )
    already = case.setting.precision.dtype == torch.float64
    numbers = f"float32 stops at about {short(single)} of the excess loss, float64 at {short(double)}"
    if already or single <= case.setting.goal:
        reason = "It is float64 already" if already else "float32 is not what stops this run"
        return Folklore("double precision", "no change", before, before, f"{reason}: {numbers}.")
    return Folklore("double precision", "helps", before, before, f"{numbers}; the steps stay.")


def _absolute(case: Case) -> Folklore:
    exact = case.landscape.spectrum.optimal_loss <= 1e-20 * case.landscape.reference_excess
    sentence = (
        "All residuals can be zero, so its minimiser is the same; its gradient does not shrink towards it, though."
        if exact
        else "It fits the median instead of the mean: other weights, and a gradient that does not shrink towards them."
    )
    return Folklore("L1 loss", "hurts" if exact else "other minimiser", _before(case), math.nan, sentence)


def _epochs(case: Case) -> Folklore:
    before = _before(case)
    if math.isinf(before):
        return Folklore("more epochs", "no change", before, before, "At these settings it never gets there.")
    if before <= case.setting.patience:
        return Folklore("more epochs", "not needed", before, before, f"{count(before)} steps are enough.")
    effect = "helps" if before <= _MANY_TIMES * case.setting.patience else "no change"
    return Folklore(
        "more epochs",
        effect,
        before,
        before,
        f"It takes {count(before)} full-batch steps, of {case.setting.patience_text}.",
    )


def _regularise(case: Case) -> Folklore:
    s, before = case.landscape.spectrum, _before(case)
    # A decay of a thousandth of the largest eigenvalue makes every error shrink within some thousand steps.
    decay = 1e-3 * float(s.eigenvalues[0])
    ridge = case.training.predict(lr=SAFETY * 2 / (float(s.eigenvalues[0]) + decay), weight_decay=decay, steps=[0])
    l2, left = s.n_rows * s.n_targets * decay / 2, ridge.decay_excess
    steps = ridge.steps_to(left + case.training.goal_excess)
    return Folklore(
        "regularise",
        "other minimiser",
        before,
        steps,
        f"weight_decay={short(decay)} (ridge l2={short(l2)}) settles in {steps_text(steps)}, "
        f"{short(left / case.landscape.reference_excess)} of "
        "the excess loss above the minimum.",
    )


ADVICE: tuple[Callable[[Case], Folklore], ...] = (
    _normalise_inputs,
    _normalise_outputs,
    _batches("a smaller batch (32)", 32),
    _batches("a batch of 1", 1),
    _momentum,
    _higher_lr,
    _adam,
    _lbfgs,
    _double,
    _absolute,
    _epochs,
    _regularise,
)

"""Noise: of mini-batches, and of targets where there are as many columns as rows."""

from __future__ import annotations

import math

import torch

from closedform.explain.case import Case
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form, kernel_ridge, ridge, sgd_code, stable_rate
from closedform.explain.findings.step import VISIBLE
from closedform.explain.forecasts import MiniBatch, ScheduledBatches
from closedform.explain.wording import count, short

__all__ = ["interpolation", "mini_batch_noise"]

#: Rows per column between which unregularised fits predict worst.
_SPIKE = (0.8, 1.25)
#: Fewer columns than this amplify no noise to speak of.
_MANY = 10
#: A ridge to begin a search with, as a share of the largest squared singular value.
_RIDGE = 1e-4


def mini_batch_noise(case: Case) -> Finding | None:
    """A constant step on mini-batches that stops at a noise floor, or does not even stay bounded."""
    batches, setting, training = case.training.batches, case.setting, case.training
    if training.scheduled_batches is not None:
        return _noise_of_schedule(case, training.scheduled_batches)
    if batches is None or setting.batch_size is None:
        return None
    if batches.stable and batches.noise_floor <= training.goal_excess:
        return None
    if training.forecast is not None and not training.forecast.stable:
        # Above the limit of the full batch it diverges without any noise, which is said already.
        return None

    factor = case.setting.batch_factor
    share, by_epochs = training.share(batches.noise_floor), training.share(batches.noise_floor_by_epochs)
    evidence = {
        "batch_size": float(batches.batch_size),
        "lr": batches.lr / factor,
        "lr_limit": batches.lr_limit / factor,
        "noise_floor": batches.noise_floor,
        "lr_limit_by_epochs": batches.lr_limit_by_epochs / factor,
        "noise_floor_by_epochs": batches.noise_floor_by_epochs,
        "share_of_optimal_loss": batches.noise_floor / (case.landscape.spectrum.optimal_loss or math.nan),
        "feedback": batches.feedback,
    }
    if not batches.stable:
        title, consequence, remedy, left = _unbounded(case, batches)
    else:
        title = f"Batches of {batches.batch_size} at a constant lr stop at a noise floor"
        consequence = (
            f"In expectation, with rows drawn anew for each batch, the excess loss stops at "
            f"{short(batches.noise_floor)}, {short(share)} of {training.share_of}; in one shuffled pass over the rows "
            f"after another at {short(batches.noise_floor_by_epochs)}. The weights keep jumping. A smaller lr lowers "
            "the floor in proportion and costs as many more steps. That noise is also why small batches can seem to "
            "help: many cheap steps, then an average over noise, not a better minimum."
        )
        remedy = (
            "# average the iterates, or let lr fall like 1/t:\naveraged = torch.optim.swa_utils.AveragedModel(model)\n"
        )
        # Without the noise the run is as far as its mean has come by then.
        left = float(batches.mean.excess_at([setting.patience]))

    # Nobody says how the rows are drawn: what holds for one way only is no ERROR.
    floor = batches.noise_floor_by_epochs
    seen = by_epochs >= VISIBLE and floor > training.goal_excess
    if not batches.stable:
        seen = batches.lr >= batches.lr_limit_by_epochs or seen
    return Finding(
        name="mini_batch_noise",
        severity=Severity.ERROR if seen else Severity.WARNING,
        title=title,
        evidence=evidence,
        consequence=consequence,
        remedy=remedy + "# or at once:\n" + closed_form(case),
        excess_once_mended=left if math.isfinite(left) else 0.0,
    )


def _unbounded(case: Case, batches: MiniBatch) -> tuple[str, str, str, float]:
    """Title, consequence, remedy and what is left once mended, for batches whose expected loss is not bounded."""
    training, factor = case.training, case.setting.batch_factor
    lr, limit = short(batches.lr / factor), short(batches.lr_limit / factor)
    by_epochs = short(batches.lr_limit_by_epochs / factor)
    consequence = (
        "In expectation the noise of each step puts back more than the step takes away: the loss does not fall. "
        f"That is for rows drawn anew for each batch; one shuffled pass over the rows after another stands up to about "
        f"{by_epochs}."
    )
    safe = stable_rate(case, batches.lr_limit)
    descent, size = batches.descent, batches.batch_size
    remedy = sgd_code(case, safe / factor, descent.momentum, descent.nesterov, descent.dampening)
    remedy += f"   # a quarter of the limit for batches of {size}\n"
    left = training.own_mini_batch(safe).excess_at(case.setting.patience)
    return f"lr={lr} is too large for batches of {size}: limit about {limit}", consequence, remedy, left


def _noise_of_schedule(case: Case, run: ScheduledBatches) -> Finding | None:
    """Noise that a schedule leaves at its end, or that grows on its way."""
    setting, training, batches = case.setting, case.training, run.batches
    noise = float(run.noise[-1])
    if run.left <= training.goal_excess or noise < run.mean.left:
        return None

    factor, descent = case.setting.batch_factor, batches.descent
    grows = not run.left < training.start_excess
    safe = min(stable_rate(case, batches.mean.limit), batches.lr_limit / 4)
    if grows:
        title = (
            f"The schedule takes lr to {short(descent.lr / factor)}; batches of {batches.batch_size} stand about "
            f"{short(batches.lr_limit / factor)}"
        )
        consequence = (
            f"It stays above for {count(run.above)} of {setting.patience_text}. In expectation, with rows drawn anew "
            "for each batch, the noise of a step then puts back more than the step takes away: the excess loss ends at "
            f"{short(run.left) if math.isfinite(run.left) else 'infinity'}."
        )
        remedy = "# a peak that the batches stand, with the same schedule around it:\n"
        remedy += sgd_code(case, safe / factor, descent.momentum, descent.nesterov, descent.dampening) + "\n"
    else:
        title = f"Batches of {batches.batch_size} still shake at the end of the schedule"
        consequence = (
            f"In expectation the run ends {short(run.left)} above the minimum, {short(training.share(run.left))} of "
            f"{training.share_of}, and {short(noise)} of it is noise; less where one shuffled pass over the rows "
            "follows another. A schedule that falls further leaves less."
        )
        remedy = "# average the iterates:\naveraged = torch.optim.swa_utils.AveragedModel(model)\n"
    # One pass after another stands more, and leaves less: what is certain is no more than the mean.
    certain = batches.lr >= batches.lr_limit_by_epochs if grows else training.share(run.mean.left) >= VISIBLE
    return Finding(
        name="mini_batch_noise",
        severity=Severity.ERROR if certain else Severity.WARNING,
        title=title,
        evidence={
            "batch_size": float(batches.batch_size),
            "highest_lr": descent.lr / factor,
            "lr_limit": batches.lr_limit / factor,
            "steps_above": float(run.above),
            "noise": noise,
            "excess_loss_left": run.left,
        },
        consequence=consequence,
        remedy=remedy + "# or at once:\n" + closed_form(case),
        excess_once_mended=run.mean.left if math.isfinite(run.mean.left) else 0.0,
    )


def interpolation(case: Case) -> Finding | None:
    """About as many rows as columns: the fit is exact or nearly so, and predictions are at their most fragile."""
    triangle, spectrum = case.landscape.triangle, case.landscape.spectrum
    if triangle is None or case.setting.l2 > 0:
        return None

    rows, columns = triangle.rows, triangle.columns
    if columns < _MANY or not _SPIKE[0] <= rows / columns <= _SPIKE[1] or spectrum.rank == 0:
        return None

    gain = float((1 / spectrum.singular_values[: spectrum.rank].square()).sum().sqrt())
    size = float(torch.linalg.vector_norm(spectrum.minimiser))
    largest = float(spectrum.singular_values[0])

    return Finding(
        name="interpolation",
        severity=Severity.INFO,
        title=f"{count(rows)} rows for {count(columns)} columns: noise in Y is amplified most there",
        evidence={"rows": float(rows), "columns": float(columns), "noise_gain": gain, "weight_norm": size},
        consequence=(
            f"Noise of size 1 in Y moves the weights (of norm {short(size)}) by about {short(gain)}. With noisy "
            "targets a small "
            "training loss says nothing here; a ridge, or fewer or many more columns, predict better."
        ),
        remedy=(
            "# X is a kernel between the rows: kernel ridge, its strength by leave-one-out:\n" + kernel_ridge(case)
            if case.setting.table.kernel
            else "# a ridge, its strength chosen by held-out rows:\n" + ridge(case, f"{_RIDGE * largest**2:.3g}")
        ),
    )

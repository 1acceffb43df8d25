"""What is being minimised: runs that head for another minimiser than that of the squared error."""

from __future__ import annotations

import math

from closedform.explain.case import Case
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form, kernel_ridge, layer_of, optimizer_code, ridge
from closedform.explain.forecasts import forecast
from closedform.explain.readers.criteria import CriterionReading
from closedform.explain.spectra import spectrum_of
from closedform.explain.wording import short
from closedform.numerics.triangle import Triangle

__all__ = [
    "frozen_parameters",
    "not_finite",
    "other_loss",
    "penalised_bias",
    "ridge_on_kernel",
    "target_broadcast",
    "weight_decay_is_ridge",
]

#: Changes of the loss below this share of it are not worth a warning.
_SMALL = 1e-3
#: Gradients below this share of what is added up in them are rounding of zero.
_ROUNDING = 1e-12


def not_finite(case: Case) -> Finding | None:
    """The model holds NaN or infinities: the run has already diverged."""
    if case.setting.model is None or case.setting.model.finite:
        return None
    limit = case.landscape.spectrum.learning_rate_limit / case.setting.loss_factor
    evidence = {"learning_rate_limit": limit}
    if case.setting.optimizer is not None:
        evidence["lr"] = case.setting.optimizer.lr
    return Finding(
        name="not_finite",
        severity=Severity.ERROR,
        title="The weights are NaN or infinite: the run has diverged",
        evidence=evidence,
        consequence=f"No step brings them back. Plain gradient descent is stable below lr {short(limit)} on this loss.",
        remedy=f"{layer_of(case)}.reset_parameters()   # then a smaller lr, or at once:\n" + closed_form(case),
    )


def target_broadcast(case: Case) -> Finding | None:
    """Outputs and targets whose shapes broadcast: the loss compares every output with every target."""
    setting, landscape = case.setting, case.landscape
    if not setting.broadcasts or landscape.target_variance == 0:
        return None

    rows = setting.table.n_rows
    target, output = (
        f"({', '.join(str(size) for size in (rows, *tail))}{',' * (not tail)})"
        for tail in (setting.pairing.target, setting.pairing.output)
    )
    one_sided = setting.pairing.target == ()
    # The criterion reshapes one of them itself.
    alike = target == output
    repair = (
        "criterion = torch.nn.MSELoss()   # on output and Y as they are"
        if alike
        else "Y = Y.reshape(-1, 1)   # once, before training"
        if one_sided
        else "Y = Y.squeeze(-1)   # once, before training: the shape of the model's output"
    )

    return Finding(
        name="target_broadcast",
        severity=Severity.ERROR,
        title=f"Output and Y are both {target}, but the criterion reshapes one and broadcasts them"
        if alike
        else f"Y is {target} but the output is {output}: the loss broadcasts them",
        evidence={
            "lowest_loss_broadcast": landscape.broadcast_loss,
            "lowest_loss_repaired": landscape.spectrum.optimal_loss,
            "target_variance": landscape.target_variance,
        },
        consequence=(
            f"Every output is compared with every target, so this is regression on mean(Y) and the loss cannot "
            "fall below "
            f"{short(landscape.broadcast_loss)}; with the shapes repaired it can reach "
            f"{short(landscape.spectrum.optimal_loss)}."
        ),
        remedy=repair,
        excess_once_mended=math.nan if case.training.course is None else case.training.course.left,
    )


def other_loss(case: Case) -> Finding | None:
    """A loss that is not a multiple of the mean squared error."""
    criterion, landscape = case.setting.criterion, case.landscape
    if criterion is None or criterion.kind == "squared":
        return None
    if criterion.problem:
        return _no_loss(case, criterion)

    optimal = landscape.spectrum.optimal_loss
    evidence = {"optimal_mse": optimal}
    if landscape.evaluation is not None:
        evidence["loss_at_minimiser"] = landscape.evaluation.loss
        evidence["gradient_at_minimiser"] = landscape.evaluation.gradient

    if criterion.kind == "unsquared norm":
        return _unsquared_norm(case, evidence)

    kind = (
        "mean absolute error"
        if criterion.kind == "absolute"
        else "a squared error whose gradient is another one"
        if criterion.other_gradient
        else "no multiple of the squared error"
    )
    gradient = evidence.get("gradient_at_minimiser")
    exact = optimal <= landscape.reference_excess * 1e-20
    moves = (
        "every residual can be made zero, so the minimiser happens to be the same"
        if exact
        else f"its gradient at the least-squares weights has length {short(gradient)}, so its minimiser is elsewhere"
        if gradient is not None and math.isfinite(gradient) and not _nothing(case, gradient)
        else "its minimiser is in general another one"
    )

    return Finding(
        name="other_loss",
        severity=Severity.INFO if exact else Severity.ERROR,
        title=f"The loss ({criterion.name}) is {'the ' if criterion.kind == 'absolute' else ''}{kind}",
        evidence=evidence,
        consequence=f"On these data {moves}. What is said here of steps and limits holds for the squared error.",
        remedy="# if the least-squares weights are what you want:\ncriterion = torch.nn.MSELoss()\n"
        + closed_form(case),
    )


def _nothing(case: Case, gradient: float) -> bool:
    """Whether a gradient is rounding of zero."""
    return gradient <= _ROUNDING * math.sqrt(case.landscape.spectrum.magnitude(case.landscape.spectrum.minimiser))


def _no_loss(case: Case, criterion: CriterionReading) -> Finding:
    return Finding(
        name="other_loss",
        severity=Severity.ERROR,
        title=f"The loss ({criterion.name}) gives no number for real outputs and targets",
        evidence={"optimal_mse": case.landscape.spectrum.optimal_loss},
        consequence=(
            f"Called as criterion(output, target), {criterion.problem}. What is said here of steps and limits holds "
            "for the squared error."
        ),
        remedy="# if the least-squares weights are what you want:\ncriterion = torch.nn.MSELoss()\n"
        + closed_form(case),
    )


def _unsquared_norm(case: Case, evidence: dict[str, float]) -> Finding:
    spectrum = case.landscape.spectrum
    evidence["norm_at_minimum"] = math.sqrt(spectrum.optimal_loss * spectrum.n_rows * spectrum.n_targets)
    return Finding(
        name="other_loss",
        severity=Severity.ERROR,
        title="The loss is an unsquared norm: its gradient does not shrink towards the minimum",
        evidence=evidence,
        consequence=(
            "It has the minimiser of the squared error, but its gradient is the residual divided by its own "
            "norm. Near a "
            "small residual it keeps its length, so a constant step circles the minimum at a distance set by "
            "lr and "
            "never settles."
        ),
        remedy="# the norm squared has the same minimiser:\ncriterion = torch.nn.MSELoss()\n" + closed_form(case),
    )


def frozen_parameters(case: Case) -> Finding | None:
    """Parameters of the layer that the optimizer does not train."""
    optimizer = case.setting.optimizer
    if optimizer is None or not optimizer.frozen:
        return None
    names = " and ".join(optimizer.frozen)
    return Finding(
        name="frozen_parameters",
        severity=Severity.ERROR,
        title=f"The optimizer does not train the {names}",
        evidence={"parameters_not_trained": float(len(optimizer.frozen))},
        consequence=f"Training leaves the {names} as it is, so the minimiser is out of reach.",
        remedy="model.requires_grad_(True)\n" + optimizer_code(case),
    )


def ridge_on_kernel(case: Case) -> Finding | None:
    """A ridge on the entries of a kernel matrix, which is not kernel ridge."""
    setting = case.setting
    if not setting.table.kernel or setting.l2 == 0:
        return None
    return Finding(
        name="ridge_on_kernel",
        severity=Severity.WARNING,
        title="X is a kernel between the rows, and l2 penalises |a|^2: that is not kernel ridge",
        evidence={"l2": setting.l2, "rows": float(setting.table.n_rows)},
        consequence=(
            "The coefficients a of kernel ridge minimise |y - K a|^2 + l2 a'Ka and solve (K + l2 I) a = y; with "
            "|a|^2 in its place they solve (K K + l2 I) a = K y, which damps other directions, and far more."
        ),
        remedy=kernel_ridge(case),
    )


def weight_decay_is_ridge(case: Case) -> Finding | None:
    """Weight decay moves the minimiser: it is a ridge."""
    optimizer = case.setting.optimizer
    if (
        optimizer is None
        or optimizer.decoupled
        or not max(optimizer.weight_decay, optimizer.bias_decay) > 0
        or not case.setting.squared
    ):
        return None

    spectrum = case.landscape.spectrum
    decay = optimizer.weight_decay / case.setting.loss_factor
    l2 = spectrum.n_rows * spectrum.n_targets * decay / 2
    run = forecast(spectrum, lr=1.0, weight_decay=decay, steps=[0])
    excess = run.decay_excess
    share = excess / (case.landscape.spectrum.excess_at_zero or 1.0)
    matters = share > case.setting.goal and excess > _SMALL * spectrum.optimal_loss

    return Finding(
        name="weight_decay_is_ridge",
        severity=Severity.WARNING if matters else Severity.INFO,
        title=f"weight_decay={optimizer.weight_decay:g} is a ridge of l2={short(l2)}",
        evidence={
            "weight_decay": optimizer.weight_decay,
            "l2": l2,
            "excess_loss_at_its_minimiser": excess,
            "share": share,
        },
        consequence=(
            f"The run heads for the ridge weights, whose squared error lies {short(excess)} above the smallest "
            f"({short(share)} of the way back to zero weights)."
        ),
        remedy=(
            "# where weight_decay leads, the bias left free:\n"
            f"{ridge(case, format(l2, '.6g'))}\n"
            "# or no ridge: weight_decay=0.0"
        ),
        excess_once_mended=_without_decay(case),
    )


def _without_decay(case: Case) -> float:
    """Excess loss that the run leaves without its weight decay, where it has a forecast; else nan."""
    run, steps = case.training.forecast, [case.setting.patience]
    if run is None or not case.setting.full_batch:
        return math.nan
    settings = {"momentum": run.momentum, "nesterov": run.nesterov, "dampening": run.dampening}
    return float(case.training.predict(lr=run.lr, steps=steps, **settings).excess[0])


def penalised_bias(case: Case) -> Finding | None:
    """Weight decay that pulls the bias to zero as well, where that costs something."""
    optimizer, triangle = case.setting.optimizer, case.landscape.triangle
    if (
        optimizer is None
        or triangle is None
        or not case.setting.bias
        or optimizer.decoupled
        or not optimizer.bias_decay > 0
        or not case.setting.squared
        or case.setting.l2
    ):
        return None

    decay = optimizer.bias_decay / case.setting.loss_factor
    penalised = forecast(case.landscape.spectrum, lr=1.0, weight_decay=decay, steps=[0]).decay_excess
    free = _excess_with_free_bias(triangle, decay)
    if penalised < 1.5 * free or penalised < case.training.goal_excess:
        return None

    return Finding(
        name="penalised_bias",
        severity=Severity.WARNING,
        title="weight_decay pulls the bias towards zero as well",
        evidence={"excess_loss": penalised, "excess_loss_with_free_bias": free, "weight_decay": optimizer.bias_decay},
        consequence=(
            f"The targets or features are not centred, so this costs an excess loss of {short(penalised)}; with "
            "the bias left "
            f"out of the decay it would be {short(free)}."
        ),
        remedy=(
            f"optimizer = torch.optim.{optimizer.name}([\n"
            f'    {{"params": [{layer_of(case)}.weight], "weight_decay": {optimizer.weight_decay:g}}},\n'
            f'    {{"params": [{layer_of(case)}.bias], "weight_decay": 0.0}},\n'
            f"], lr={optimizer.lr:g})"
        ),
    )


def _excess_with_free_bias(triangle: Triangle, decay: float) -> float:
    """Excess loss of the ridge weights where the bias is not penalised: a ridge on the centred triangle."""
    return forecast(spectrum_of(triangle.centred()), lr=1.0, weight_decay=decay, steps=[0]).decay_excess

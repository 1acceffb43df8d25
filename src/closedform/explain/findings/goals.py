"""What is being minimised: runs that head for another minimiser than that of the squared error."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from closedform.explain.facts import Facts
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form
from closedform.explain.forecasts import forecast
from closedform.explain.spectra import Compressed, spectrum_of, spectrum_of_rows
from closedform.explain.wording import short
from closedform.rows import TensorSource

__all__ = [
    "frozen_parameters",
    "not_finite",
    "other_loss",
    "penalised_bias",
    "target_broadcast",
    "weight_decay_is_ridge",
]

# Rows times features up to which the user's own loss is evaluated at the minimiser.
_EVALUATE = 5e7
# Changes of the loss below this share of it are not worth a warning.
_SMALL = 1e-3


def not_finite(facts: Facts) -> Finding | None:
    """The model holds NaN or infinities: the run has already diverged."""
    if facts.model is None or facts.model.finite:
        return None
    limit = facts.spectrum.learning_rate_limit / facts.loss_factor
    evidence = {"learning_rate_limit": limit}
    if facts.optimizer is not None:
        evidence["lr"] = facts.optimizer.lr
    return Finding(
        name="not_finite",
        severity=Severity.ERROR,
        title="The weights are NaN or infinite: the run has diverged",
        evidence=evidence,
        consequence=f"No step brings them back. Plain gradient descent is stable below lr {short(limit)} on this loss.",
        remedy="model.reset_parameters()   # then a smaller lr, or at once:\n" + closed_form(facts),
    )


def target_broadcast(facts: Facts) -> Finding | None:
    """A ``(rows,)`` target against a ``(rows, 1)`` output: the loss compares every output with every target."""
    model, rows = facts.model, facts.rows
    if model is None or not rows.single_target or model.output_dimensions != 2 or rows.n_rows == 1:
        return None
    if facts.criterion is not None and facts.criterion.kind == "other":
        return None
    Y = rows.y.read(0, rows.n_rows).to(torch.float64)
    mean = Y.mean()
    variance = float((Y - mean).square().mean())
    # mean_ij (o_i - y_j)^2 = mean_i (o_i - mean y)^2 + var y
    floor = variance + _fit_of_mean(facts, Y, float(mean))
    if variance == 0:
        return None
    return Finding(
        name="target_broadcast",
        severity=Severity.ERROR,
        title=f"Y is ({rows.n_rows},) but the output is ({rows.n_rows}, 1): the loss broadcasts them",
        evidence={
            "lowest_loss_broadcast": floor,
            "lowest_loss_repaired": facts.spectrum.optimal_loss,
            "target_variance": variance,
        },
        consequence=(
            f"Every output is compared with every target, so this is regression on mean(Y) and the loss cannot "
            "fall below "
            f"{short(floor)}; with the shapes repaired it can reach {short(facts.spectrum.optimal_loss)}."
        ),
        remedy="Y = Y.reshape(-1, 1)   # once, before training",
    )


def _fit_of_mean(facts: Facts, Y: Tensor, mean: float) -> float:
    """What regression of the constant mean(Y) on the features leaves over."""
    if facts.bias:
        return 0.0
    constant = TensorSource(torch.full_like(Y, mean), "mean of Y")
    rows = type(facts.rows)(facts.rows.x, constant, facts.rows.weight, single_target=True)
    return spectrum_of_rows(rows, bias=False, l2=0.0).optimal_loss


def other_loss(facts: Facts) -> Finding | None:
    """A loss that is not a multiple of the mean squared error."""
    c = facts.criterion
    if c is None or c.kind == "squared":
        return None
    optimal = facts.spectrum.optimal_loss
    evidence = {"optimal_mse": optimal, **_at_minimiser(facts)}
    if c.kind == "unsquared norm":
        evidence["norm_at_minimum"] = math.sqrt(optimal * facts.spectrum.n_rows * facts.spectrum.n_targets)
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
            remedy="# the norm squared has the same minimiser:\ncriterion = torch.nn.MSELoss()\n" + closed_form(facts),
        )
    kind = "mean absolute error" if c.kind == "absolute" else "no multiple of the squared error"
    gradient = evidence.get("gradient_at_minimiser")
    exact = optimal <= facts.reference_excess * 1e-20
    moves = (
        "every residual can be made zero, so the minimiser happens to be the same"
        if exact
        else f"its gradient at the least-squares weights has length {short(gradient)}, so its minimiser is elsewhere"
        if gradient is not None and math.isfinite(gradient)
        else "its minimiser is in general another one"
    )
    return Finding(
        name="other_loss",
        severity=Severity.INFO if exact else Severity.ERROR,
        title=f"The loss ({c.name}) is {'the ' if c.kind == 'absolute' else ''}{kind}",
        evidence=evidence,
        consequence=f"On these data {moves}. What is said here of steps and limits holds for the squared error.",
        remedy="# if the least-squares weights are what you want:\ncriterion = torch.nn.MSELoss()\n"
        + closed_form(facts),
    )


def _at_minimiser(facts: Facts) -> dict[str, float]:
    """Value and gradient of the user's loss at the least-squares weights, on the user's rows."""
    c, rows = facts.criterion, facts.rows
    if c is None or not rows.in_memory or rows.n_rows * rows.n_features > _EVALUATE or not facts.spectrum.complete:
        return {}
    V = facts.spectrum.minimiser
    weight = nn.Parameter((V[1:] if facts.bias else V).T.clone())
    bias = nn.Parameter(V[0].clone()) if facts.bias else None
    X, Y = rows.x.read(0, rows.n_rows).to(torch.float64), rows.y.read(0, rows.n_rows).to(torch.float64)
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            loss = c.function(nn.functional.linear(X, weight, bias), Y)
            parts = torch.autograd.grad(loss, [weight] if bias is None else [weight, bias])
    except (TypeError, ValueError, RuntimeError):
        # A criterion that cannot be evaluated here leaves no evidence, and the finding says so by its absence.
        return {}
    length = math.sqrt(sum(float(part.square().sum()) for part in parts))
    return {"loss_at_minimiser": float(loss.detach()), "gradient_at_minimiser": length}


def frozen_parameters(facts: Facts) -> Finding | None:
    """Parameters of the layer that the optimizer does not train."""
    o = facts.optimizer
    if o is None or not o.frozen:
        return None
    names = " and ".join(o.frozen)
    return Finding(
        name="frozen_parameters",
        severity=Severity.ERROR,
        title=f"The optimizer does not train the {names}",
        evidence={"parameters_not_trained": float(len(o.frozen))},
        consequence=f"Training leaves the {names} as it is, so the minimiser is out of reach.",
        remedy="model.requires_grad_(True)\noptimizer = torch.optim.SGD(model.parameters(), lr=...)",
    )


def weight_decay_is_ridge(facts: Facts) -> Finding | None:
    """Weight decay moves the minimiser: it is a ridge."""
    o = facts.optimizer
    if o is None or o.decoupled or not max(o.weight_decay, o.bias_decay) > 0 or not facts.squared:
        return None
    s = facts.spectrum
    decay = o.weight_decay / facts.loss_factor
    l2 = s.n_rows * s.n_targets * decay / 2
    run = forecast(s, lr=1.0, weight_decay=decay, steps=[0])
    excess = run.decay_excess
    share = excess / (facts.reference_excess or 1.0)
    matters = share > facts.goal and excess > _SMALL * s.optimal_loss
    bias = ", bias=True" if facts.bias else ""
    return Finding(
        name="weight_decay_is_ridge",
        severity=Severity.WARNING if matters else Severity.INFO,
        title=f"weight_decay={o.weight_decay:g} is a ridge of l2={short(l2)}",
        evidence={"weight_decay": o.weight_decay, "l2": l2, "excess_loss_at_its_minimiser": excess, "share": share},
        consequence=(
            f"The run heads for the ridge weights, whose squared error lies {short(excess)} above the smallest "
            f"({short(share)} of the way back to zero weights)."
        ),
        remedy=(
            "# where weight_decay leads, the bias left free:\n"
            f"sol = cf.solve(X, Y{bias}, l2={l2:.6g})\n"
            "# or no ridge: weight_decay=0.0"
        ),
    )


def penalised_bias(facts: Facts) -> Finding | None:
    """Weight decay that pulls the bias to zero as well, where that costs something."""
    o, c = facts.optimizer, facts.compressed
    if o is None or c is None or not facts.bias or o.decoupled or not o.bias_decay > 0 or not facts.squared or facts.l2:
        return None
    s = facts.spectrum
    decay = o.bias_decay / facts.loss_factor
    penalised = forecast(s, lr=1.0, weight_decay=decay, steps=[0]).decay_excess
    free = _excess_with_free_bias(c, decay)
    if penalised < 1.5 * free or penalised < facts.goal_excess:
        return None
    return Finding(
        name="penalised_bias",
        severity=Severity.WARNING,
        title="weight_decay pulls the bias towards zero as well",
        evidence={"excess_loss": penalised, "excess_loss_with_free_bias": free, "weight_decay": o.bias_decay},
        consequence=(
            f"The targets or features are not centred, so this costs an excess loss of {short(penalised)}; with "
            "the bias left "
            f"out of the decay it would be {short(free)}."
        ),
        remedy=(
            "optimizer = torch.optim.SGD([\n"
            f'    {{"params": [model.weight], "weight_decay": {o.weight_decay:g}}},\n'
            '    {"params": [model.bias], "weight_decay": 0.0},\n'
            f"], lr={o.lr:g})"
        ),
    )


def _excess_with_free_bias(c: Compressed, decay: float) -> float:
    """Excess loss of the ridge weights where the bias is not penalised: a ridge on the centred triangle."""
    centred = Compressed(c.centred, c.C[1:], c.residual_squares, c.n_rows, c.row_count, bias=False, centred=c.centred)
    return forecast(spectrum_of(centred), lr=1.0, weight_decay=decay, steps=[0]).decay_excess

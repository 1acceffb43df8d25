"""Read targets and row weights off the graph of a loss, or say why it is not a squared error.

With output o the loss is ``1/2 sum c_i (o_i - y_i)^2 + const`` exactly if its second derivative is diagonal, positive
and the same everywhere. Then ``c`` is that diagonal and ``y = o - g/c``. The diagonal comes from one product with ones,
a second product with random numbers would differ from it if anything stood off the diagonal, and the derivative of that
product must vanish. All of it runs on the small graph between the layer's output and the loss, never on the body of a
network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from closedform.optim.call import Call, Curvature
from closedform.optim.degree import KINKED, why_not_quadratic, wrong_norm
from closedform.optim.graph import Ways, reaches, ways
from closedform.optim.reductions import marked
from closedform.words.errors import ClosedformError, InputError

__all__ = ["measure"]

#: Roundings that a custom loss may add up before its curvature counts as not constant or not diagonal.
_ROUNDINGS = 1000
#: The same as a share of the curvature, where the output has few digits (bfloat16).
_COARSEST = 0.03


def measure(calls: Sequence[Call], root: Tensor, scale: float) -> list[Curvature | ClosedformError]:
    """Return, for every call, the curvature of ``scale * root`` by its output, or why the loss cannot be used.

    Args:
        calls: Calls of layers that ``root`` depends on, all of them, so that losses which couple them are seen.
        root: The scalar whose gradient just arrived; the graph below it is whole.
        scale: That gradient.
    """
    outputs = [call.output for call in calls]
    parameters = [parameter for call in calls for parameter in call.parameters]
    way = ways(root, outputs, parameters)
    path = " -> ".join(way.names)
    with torch.enable_grad(), torch._C.DisableTorchFunctionSubclass(), torch.autocast(root.device.type, enabled=False):
        try:
            gradients = _grad([root], outputs, None)
            probes = _probes(outputs)
            diagonals = _grad(gradients, outputs, [torch.ones_like(output) for output in outputs])
            mixed = _grad(gradients, outputs, probes)
            third = _grad(mixed, outputs, probes)
            units = _units(calls, root, scale, way, gradients, diagonals)
        except RuntimeError as error:  # a function of the user without a second derivative
            reason = f"the loss ({path}) cannot be differentiated twice, so its scale cannot be measured: {error}"
            return [call.refusal or InputError(reason) for call in calls]

    refusal, curved = _refusal_of_graph(calls, way, path), why_not_quadratic(way, outputs)
    curvatures: list[Curvature] = []
    errors: list[ClosedformError | None] = []
    for call, g, d, m, probe, t, unit in zip(calls, gradients, diagonals, mixed, probes, third, units, strict=True):
        g, d, m, t = (scale * part.detach().to(torch.float64) for part in (g, d, m, t))
        why = _reason(g, d, m / probe, t, torch.finfo(call.output.dtype).eps) or curved
        errors.append(call.refusal or refusal or (_not_squared(path, why) if why else None))
        curvatures.append(Curvature(g, d, unit))
    return _with_units(curvatures, errors, calls, path)


def _refusal_of_graph(calls: Sequence[Call], way: Ways, path: str) -> ClosedformError | None:
    """What the functions in the graph alone say against the loss."""
    if way.beside or any(call.source is not None and reaches(call.source, call.parameters) for call in calls):
        return InputError(
            "the loss uses the layer's weight or bias in another way too (shared with another module, or a penalty on "
            "it), so the solution is not that of least squares; for a penalty use l2=... of the optimizer."
        )
    for name in way.names:
        if name in KINKED:
            return _not_squared(path, f"{name} has a kink, on one side of which it may look like one")
    reason = wrong_norm(way)
    return _not_squared(path, reason) if reason else None


def _units(
    calls: Sequence[Call],
    root: Tensor,
    scale: float,
    way: Ways,
    gradients: Sequence[Tensor],
    diagonals: Sequence[Tensor],
) -> list[float | None]:
    """For each call, what the loss gives to one element of the sum or mean it ends in: of several, the last one.

    A sum whose factor depends on the output (the mean in ``var + mean ** 2``) is not what the loss ends in.
    """
    found = marked(way.nodes)
    outputs = [call.output for call in calls]
    units: list[float | None] = [None] * len(calls)
    for node, reduction in found:
        wanted = [i for i, call in enumerate(calls) if units[i] is None and call.number in reduction.calls]
        if not wanted:
            continue

        if node is root.grad_fn:
            factor = torch.ones((), dtype=torch.float64, device="cpu")
        else:
            (factor,) = _grad([root], [GradientEdge(node, 0)], None)
            changes = _grad([factor], outputs, None)
            steps = zip(changes, gradients, diagonals, strict=True)
            moved = sum(float((c * _newton_step(g, d)).detach().abs().sum()) for c, g, d in steps)
            share = min(_ROUNDINGS * torch.finfo(root.dtype).eps, _COARSEST)
            if not moved <= share * abs(float(factor.detach())):
                continue

        # Its sign is no matter: minus a log-likelihood is a squared error too.
        unit = abs(scale * float(factor.detach())) / reduction.divisor
        for i in wanted if unit > 0 else []:
            units[i] = unit
    return units


def _newton_step(g: Tensor, d: Tensor) -> Tensor:
    """How far the output is from the target."""
    return torch.where(d > 0, g / torch.where(d > 0, d, 1.0), 0.0).detach()


def _with_units(
    curvatures: Sequence[Curvature], errors: Sequence[ClosedformError | None], calls: Sequence[Call], path: str
) -> list[Curvature | ClosedformError]:
    """Settle the calls whose loss ends in no sum or mean that is known.

    A single element is its own sum. Of several, equal weights are the scale of the loss, which means nothing; others
    cannot be told from it.
    """
    open_ones = [c for c, error in zip(curvatures, errors, strict=True) if c.unit is None and error is None]
    diagonal = torch.cat([c.diagonal.flatten() for c in open_ones]) if open_ones else torch.zeros(0, device="cpu")
    outcomes: list[Curvature | ClosedformError] = []

    for curvature, error, call in zip(curvatures, errors, calls, strict=True):
        if error is not None:
            outcomes.append(error)
        elif curvature.unit is not None or diagonal.numel() <= 1:
            outcomes.append(curvature)
        else:
            rounding = min(_ROUNDINGS * torch.finfo(call.output.dtype).eps, _COARSEST)
            if bool((diagonal - diagonal.max()).abs().max() <= rounding * diagonal.max()):
                unit = float(diagonal.max()) / 2 or None
                outcomes.append(Curvature(curvature.gradient, curvature.diagonal, unit))
            else:
                outcomes.append(
                    InputError(
                        f"the loss ({path}) weights its rows, and ends in no sum or mean that could be recognised, so "
                        "their weights cannot be told from its scale; let it end in .sum() or .mean()."
                    )
                )
    return outcomes


def _grad(
    values: Sequence[Tensor], inputs: Sequence[Tensor | GradientEdge], vectors: Sequence[Tensor] | None
) -> list[Tensor]:
    """Derivatives of ``sum <value, vector>``, zero where nothing depends on an input."""
    zeros = [torch.zeros_like(x) if isinstance(x, Tensor) else torch.zeros((), device="cpu") for x in inputs]
    kept = [index for index, value in enumerate(values) if value.requires_grad]
    if not kept:
        return zeros
    found = torch.autograd.grad(
        [values[index] for index in kept],
        inputs,  # type: ignore[arg-type]
        None if vectors is None else [vectors[index] for index in kept],
        create_graph=True,
        allow_unused=True,
    )
    return [zero if g is None else g for zero, g in zip(zeros, found, strict=True)]


def _probes(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Random numbers of both signs between 1 and 2, from a generator of their own.

    A step must not move the user's random numbers; and signs alone would cancel in some patterns of coupling.
    """
    generator = torch.Generator().manual_seed(20)
    draws = [torch.rand(output.shape, dtype=torch.float64, device="cpu", generator=generator) for output in outputs]
    return [
        torch.where(draw < 0.5, draw * 2 - 2, draw * 2).to(output) for draw, output in zip(draws, outputs, strict=True)
    ]


def _reason(g: Tensor, d: Tensor, mixed: Tensor, third: Tensor, eps: float) -> str | None:
    """Why this is not a squared error, or None."""
    if d.numel() == 0:
        return None
    slope, curvature = g.abs(), d.abs()
    share = min(_ROUNDINGS * eps, _COARSEST)
    peak = curvature.max()

    # Read all at once: an accelerator waits for every number that is looked at.
    steepest, size, coupling, change, lowest, newton_step, flat = torch.stack(
        (
            slope.max(),
            peak,
            (mixed - d).abs().max(),
            third.abs().max(),
            d.min(),
            (slope / curvature.clamp(min=share * peak)).max(),
            ((curvature <= eps * peak) & (slope > 0)).any().to(d.dtype),
        )
    ).tolist()
    tolerance = share * size

    if not math.isfinite(steepest):
        return None  # Not a question of the loss: to_batch looks for the numbers that are not finite.
    if not math.isfinite(size + coupling + change):
        return "its curvature is not finite"
    if coupling > tolerance:
        return "it couples different outputs with each other (off-diagonal curvature)"
    if size > 0 and change * newton_step > tolerance:
        return "its curvature changes with the output"
    if lowest < -tolerance:
        return "its curvature is negative: minimising it would run away from the targets"
    if flat:
        return "its curvature is zero where its slope is not, as for an absolute error"
    return None


def _not_squared(path: str, reason: str) -> InputError:
    return InputError(
        f"the loss ({path}) is not a squared error of the layer's output: {reason}. The closed form exists for "
        "squared errors only; use torch.nn.MSELoss(), or another optimizer for this loss."
    )

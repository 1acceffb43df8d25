"""Read targets and row weights off the graph of a loss, or say why it is not a squared error.

With output o the loss is ``1/2 sum c_i (o_i - y_i)^2 + const`` exactly if its second derivative is diagonal, positive
and the same everywhere. Then ``c`` is that diagonal and ``y = o - g/c``. The diagonal comes from one product with ones,
a second product with random signs would differ from it if anything stood off the diagonal, and the derivative of that
product must vanish. All of it runs on the small graph between the layer's output and the loss, never on the body of a
network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from closedform.optim.graph import reaches, ways
from closedform.words.errors import ClosedformError, InputError, NonFiniteError

__all__ = ["Batch", "Curvature", "Measured", "measure", "to_batch"]

#: Roundings that a custom loss may add up before its curvature counts as not constant or not diagonal.
_ROUNDINGS = 1000
_COARSEST = 0.03
#: Functions with a kink: on one side of it they look like a squared error, on the other they are none.
_KINKED = {
    *("Clamp", "Elu", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "HuberLoss", "LeakyRelu", "Maximum"),
    *("Minimum", "PreluKernel", "Relu", "RreluWithNoise", "SmoothL1Loss", "Softshrink", "Threshold"),
}


@dataclass(frozen=True)
class Curvature:
    """Gradient and second derivative of the loss by the output, in float64 and with the output's shape."""

    gradient: Tensor
    diagonal: Tensor


@dataclass(frozen=True)
class Batch:
    """Rows as least squares sees them.

    Attributes:
        A: Design rows ``[1 | x]`` (without the ones where the layer has no bias), ``(rows, columns)``.
        Y: Targets, ``(rows, targets)``.
        weight: Weight of every squared error, ``(rows, targets)``.
        exact: Whether Y are the user's own targets; else they were recovered from gradients, with their rounding.
    """

    A: Tensor
    Y: Tensor
    weight: Tensor
    exact: bool


class Measured(Protocol):
    """What :func:`measure` needs of a call of the layer, and what it leaves there."""

    inputs: Tensor | None
    output: Tensor
    parameters: tuple[Tensor, ...]
    source: Tensor | None
    targets: list[Tensor]
    refusal: ClosedformError | None
    curvature: Curvature | None
    unit: float | None


def measure(calls: Sequence[Measured], root: Tensor, scale: float) -> None:
    """Leave in every call the curvature of ``scale * root`` by its output, or a refusal.

    Args:
        calls: Calls of the layer that ``root`` depends on, all of them, so that losses which couple them are seen.
        root: The scalar whose gradient just arrived; the graph below it is whole.
        scale: That gradient.
    """
    outputs = [call.output for call in calls]
    way = ways(root, outputs, calls[0].parameters)
    path = " -> ".join(way.names)
    refusal: ClosedformError | None = None
    if way.beside or any(call.source is not None and reaches(call.source, call.parameters) for call in calls):
        refusal = InputError(
            "the loss uses the layer's weight or bias in another way too (shared with another module, or a penalty on "
            "it), so the solution is not that of least squares; for a penalty use l2=... of the optimizer."
        )
    kinks = [name for name in way.names if name in _KINKED]
    if kinks:
        refusal = refusal or _not_squared(path, f"{kinks[0]} has a kink, on one side of which it may look like one")
    with torch.enable_grad(), torch._C.DisableTorchFunctionSubclass(), torch.autocast(root.device.type, enabled=False):
        try:
            gradients = _grad([root], outputs, None)
            ones = [torch.ones_like(output) for output in outputs]
            signs = _signs(outputs)
            diagonals = _grad(gradients, outputs, ones)
            mixed = _grad(gradients, outputs, signs)
            third = _grad(mixed, outputs, signs)
        except RuntimeError as error:  # a function of the user without a second derivative
            for call in calls:
                call.refusal = call.refusal or InputError(
                    f"the loss ({path}) cannot be differentiated twice, so its scale cannot be measured: {error}"
                )
            return
    value = scale * float(root.detach())
    wide = [
        [scale * part.detach().to(torch.float64) for part in parts] for parts in (gradients, diagonals, mixed, third)
    ]
    for call, g, d, m, r, t in zip(calls, wide[0], wide[1], wide[2], signs, wide[3], strict=True):
        call.curvature = Curvature(g, d)
        reason = _reason(g, d, m * r, t, torch.finfo(call.output.dtype).eps)
        call.refusal = call.refusal or refusal or (_not_squared(path, reason) if reason else None)
    # An absolute value may be squared at once, or be a penalty of its own: then the value of the loss does not fit.
    if "Abs" in way.names and not _is_sum_of_squares(wide[0], wide[1], value, torch.finfo(outputs[0].dtype).eps):
        for call in calls:
            call.refusal = call.refusal or _not_squared(path, "it has an absolute value in it that is not squared")


def _grad(values: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor] | None) -> list[Tensor]:
    """Derivatives of ``sum <value, vector>``, zero where nothing depends on an input."""
    kept = [index for index, value in enumerate(values) if value.requires_grad]
    if not kept:
        return [torch.zeros_like(tensor) for tensor in inputs]
    found = torch.autograd.grad(
        [values[index] for index in kept],
        inputs,
        None if vectors is None else [vectors[index] for index in kept],
        create_graph=True,
        allow_unused=True,
    )
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def _signs(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Random signs from a generator of their own: a step must not move the user's random numbers."""
    generator = torch.Generator().manual_seed(20)
    bits = [torch.randint(0, 2, output.shape, device="cpu", generator=generator) for output in outputs]
    return [bit.to(output).mul_(2).sub_(1) for bit, output in zip(bits, outputs, strict=True)]


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


def _is_sum_of_squares(g: Sequence[Tensor], d: Sequence[Tensor], value: float, eps: float) -> bool:
    squares = sum(float((gi.square() / di)[di > 0].sum()) for gi, di in zip(g, d, strict=True)) / 2
    return abs(squares - value) <= min(_ROUNDINGS * eps, _COARSEST) * abs(value)


def _not_squared(path: str, reason: str) -> InputError:
    return InputError(
        f"the loss ({path}) is not a squared error of the layer's output: {reason}. The closed form exists for "
        "squared errors only; use torch.nn.MSELoss(), or another optimizer for this loss."
    )


def to_batch(call: Measured, bias: bool, dtype: torch.dtype) -> Batch:
    """Return the rows of a measured call in ``dtype``.

    Raises:
        InputError: no rows.
        NonFiniteError: NaN or infinities in inputs, targets or the layer's output.
    """
    assert call.inputs is not None
    assert call.curvature is not None
    targets, features = call.output.shape[-1], call.inputs.shape[-1]
    X = call.inputs.reshape(-1, features).to(dtype)
    if X.shape[0] == 0:
        raise InputError("the batch has no rows; skip empty batches.")
    _check_finite(X, "the layer's input", "column")
    values = call.output.detach().reshape(-1, targets).to(torch.float64)
    d = call.curvature.diagonal.reshape(-1, targets)
    Y, exact = _targets(call, values, call.curvature.gradient.reshape(-1, targets), d)
    _check_finite(Y, "the target", "column")
    if not bool(torch.isfinite(d).all()):
        raise InputError("the curvature of the loss is not finite; is it scaled by NaN or infinity?")
    weight = d / (2.0 if call.unit is None else 2.0 * call.unit)
    # Weights within rounding of one are one: 2/n, computed in float32, is not quite 2/n.
    rounding = 8 * torch.finfo(call.output.dtype).eps
    if bool(((weight - 1).abs() <= rounding).all()):
        weight = torch.ones_like(weight)
    # New memory in either case: the user may reuse the batch before the step.
    A = torch.cat([X.new_ones(X.shape[0], 1), X], 1) if bias else X.clone()
    return Batch(A, Y.to(dtype), weight.to(dtype), exact)


def _targets(call: Measured, values: Tensor, g: Tensor, d: Tensor) -> tuple[Tensor, bool]:
    """The user's own targets if they were seen; else ``o - g/c``, which carries the rounding of o."""
    counted = d > 0
    implied = values - torch.where(counted, g / torch.where(counted, d, 1.0), 0.0)
    rounding = 64 * torch.finfo(call.output.dtype).eps
    for candidate in call.targets:
        target = candidate.reshape(values.shape).to(torch.float64)
        close = (implied - target).abs() <= rounding * (values - target).abs()
        if bool((close | ~counted).all()):
            return torch.where(counted, target, 0.0), True
    if bool(torch.isnan(values).any()) and not any(bool(torch.isnan(target).any()) for target in call.targets):
        raise NonFiniteError("the layer's output is NaN although its input is finite: its weights are not finite.")
    return implied, False


def _check_finite(values: Tensor, name: str, axis: str) -> None:
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        row, column = (int(i) for i in (~finite).nonzero()[0])
        raise NonFiniteError(
            f"{name} holds {float(values[row, column])} in {axis} {column}, first in row {row} of the batch; drop or "
            "repair such rows. Nothing was changed."
        )

"""Rows, targets and weights as least squares sees them, from a call of the layer whose loss was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.optim.call import Call, Curvature
from closedform.words.errors import InputError, NonFiniteError

__all__ = ["Batch", "separate_weights", "to_batch"]

#: Roundings of the output's dtype in a weight that should be one: 2/n in float32 is not quite 2/n.
_WEIGHT_ROUNDINGS = 8
#: Roundings in which a target recovered from the gradient may differ from the one that was seen.
_TARGET_ROUNDINGS = 64
#: Roundings in which the shares of targets in a row's weight may differ from row to row.
_SHARE_ROUNDINGS = 16


@final
@dataclass(frozen=True, eq=False)
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


def to_batch(call: Call, found: Curvature, bias: bool, dtype: torch.dtype) -> Batch:
    """Return the rows of a measured call.

    Args:
        call: The call, with its inputs.
        found: What was measured of its loss.
        bias: Whether the layer has one.
        dtype: Of what is returned.

    Raises:
        InputError: no rows, or a curvature that is not finite; NonFiniteError where the inputs, the targets or the
            layer's output hold NaN or infinities.
    """
    if call.inputs is None:
        raise InputError("the rows of this call were handed over already.")
    targets, features = call.output.shape[-1], call.inputs.shape[-1]
    X = call.inputs.reshape(-1, features).to(dtype)
    if X.shape[0] == 0:
        raise InputError("the batch has no rows; skip empty batches.")
    _check_finite(X, "the layer's input", "column")

    values = call.output.detach().reshape(-1, targets).to(torch.float64)
    d = found.diagonal.reshape(-1, targets)
    Y, exact = _targets(call, values, found.gradient.reshape(-1, targets), d)
    _check_finite(Y, "the target", "column")
    if not bool(torch.isfinite(d).all()):
        raise InputError("the curvature of the loss is not finite; is it scaled by NaN or infinity?")

    weight = d / (2.0 if found.unit is None else 2.0 * found.unit)
    if bool(((weight - 1).abs() <= _WEIGHT_ROUNDINGS * torch.finfo(call.output.dtype).eps).all()):
        weight = torch.ones_like(weight)
    # New memory in either case: the user may reuse the batch before the step.
    A = torch.cat([X.new_ones(X.shape[0], 1), X], 1) if bias else X.clone()
    return Batch(A, Y.to(dtype), weight.to(dtype), exact)


def _targets(call: Call, values: Tensor, g: Tensor, d: Tensor) -> tuple[Tensor, bool]:
    """The user's own targets if they were seen; else ``o - g/c``, which carries the rounding of o.

    Raises:
        NonFiniteError: the layer's own weights hold NaN.
    """
    counted = d > 0
    implied = values - torch.where(counted, g / torch.where(counted, d, 1.0), 0.0)
    rounding = _TARGET_ROUNDINGS * torch.finfo(call.output.dtype).eps
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


def separate_weights(
    weight: Tensor, before: Tensor | None, l2: float, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """Split weights into those of rows and the shares of the targets in them.

    Args:
        weight: ``(rows, targets)``.
        before: The shares of earlier batches, ``(targets,)``, or None.
        l2: Ridge strength.
        dtype: In which the weights were computed.

    Returns:
        Weights ``(rows,)``, or None where all are zero, and shares ``(targets,)``.

    Raises:
        InputError: they are not rows times targets, or the shares are not those of ``before``: every target would
            need a triangle of its own.

    Example:
        >>> import torch
        >>> separate_weights(torch.tensor([[1.0, 0.5], [4.0, 2.0]]), None, 0.0, torch.float32)
        (tensor([1., 4.]), tensor([1.0000, 0.5000]))
    """
    largest = weight.amax(1)
    counted = largest > 0
    if not bool(counted.any()):
        return None, before
    shares = weight[counted] / largest[counted].unsqueeze(1)
    split = shares[0] if before is None else before
    rounding = _SHARE_ROUNDINGS * torch.finfo(dtype).eps
    if bool(((shares - split).abs() > rounding).any()) or (l2 > 0 and float(split.min()) < 1 - rounding):
        raise InputError(
            "the loss weights the targets of a row differently from row to row (a mask over targets?), or differently "
            "at all together with l2. Weights must be those of rows; fit such targets by layers of their own."
        )
    return largest, split

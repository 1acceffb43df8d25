"""Run any torch optimizer on the triangle instead of the rows: the same trajectory, rows / columns times cheaper."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from closedform.explain.spectra import Compressed
from closedform.words.errors import InputError

__all__ = ["Rehearsal", "TriangleLoss", "rehearse"]


@dataclass(frozen=True)
class Rehearsal:
    """What an optimizer did on the triangle.

    Attributes:
        steps: 0, 1, ... up to the last step that was made, ``(points,)``, int64.
        loss: ``MSELoss()`` of the whole table after so many calls of ``step()``, ``(points,)``, float64.
        weight: The weight at the end, ``(targets, features)``, float64.
        bias: The bias at the end, ``(targets,)``, or None.
        optimizer: The optimizer that ran, with its state.
        stopped: Why it ended before the steps asked for, or an empty string.
    """

    steps: Tensor
    loss: Tensor
    weight: Tensor
    bias: Tensor | None
    optimizer: torch.optim.Optimizer
    stopped: str


class TriangleLoss:
    """``MSELoss()`` of a linear layer on all rows, from their triangle: the same value and the same gradients.

    Args:
        compressed: The rows.
        start: A ``torch.nn.Linear``, a pair ``(weight, bias)`` or None for zeros; copied.
        factor: What the mean is multiplied by: rows x targets for ``reduction="sum"``.
    """

    def __init__(self, compressed: Compressed, weight: Tensor, bias: Tensor | None, factor: float = 1.0) -> None:
        self.features = compressed.R[:, int(compressed.bias) :].contiguous()
        self.ones = compressed.R[:, :1].contiguous() if compressed.bias else None
        self.targets = compressed.C
        self.left = float(compressed.residual_squares.sum())
        self.count = compressed.n_rows * compressed.n_targets
        self.factor = factor
        self.weight = nn.Parameter(weight.detach().clone().contiguous())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Weight and bias, with the shapes that ``nn.Linear`` gives them."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def __call__(self) -> Tensor:
        residual = self.features @ self.weight.T - self.targets
        if self.bias is not None and self.ones is not None:
            residual = residual + self.ones * self.bias
        return (residual.square().sum() + self.left) * (self.factor / self.count)


def rehearse(
    compressed: Compressed,
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    *,
    steps: int,
    weight: Tensor,
    bias: Tensor | None,
    factor: float = 1.0,
    after_step: Callable[[torch.optim.Optimizer], None] | None = None,
) -> Rehearsal:
    """Run an optimizer on the triangle of the rows, full batch, on the mean squared error.

    Since ``|Y - X w|^2 = |C - R w|^2 + what no weights explain``, loss and gradients are those of all rows, to
    rounding; so is the path of every optimizer that looks at nothing else, Adam and LBFGS included.

    Args:
        compressed: The rows; see :func:`closedform.spectrum.compress`.
        make_optimizer: Given the parameters ``[weight]`` or ``[weight, bias]`` (float64), returns the optimizer.
        steps: How many times ``step(closure)`` is called.
        weight: Where it starts, ``(targets, features)``, float64.
        bias: Where it starts, ``(targets,)``, or None.
        factor: What ``MSELoss()`` is multiplied by in training: rows x targets for ``reduction="sum"``. The curve
            returned is the mean in any case.
        after_step: Called with the optimizer after every step, say for a scheduler.

    Raises:
        InputError: what cannot be rehearsed, with the reason.

    Example:
        >>> import torch
        >>> from closedform.rows import as_rows
        >>> from closedform.explain.spectra import compress
        >>> X = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
        >>> rows = compress(as_rows(X, torch.tensor([1.0, 3.0, 5.0])), bias=False, l2=0.0)
        >>> zero = torch.zeros(1, 2, dtype=torch.float64)
        >>> run = rehearse(rows, lambda params: torch.optim.Adam(params, lr=0.1), steps=500, weight=zero, bias=None)
        >>> bool(run.loss[-1] < 1e-6)
        True
    """
    if not (isinstance(steps, int) and steps >= 0):
        raise InputError(f"steps={steps!r} must be a whole number that is not negative.")
    loss = TriangleLoss(compressed, weight, bias, factor)
    # Some optimizers draw random numbers; the user's generator is put back as it was.
    with torch.random.fork_rng(devices=[], enabled=True), torch.enable_grad():
        optimizer = _make(make_optimizer, loss.parameters)
        curve, stopped = _run(loss, optimizer, steps, after_step)
    values = torch.tensor(curve, dtype=torch.float64) / factor
    final_bias = None if loss.bias is None else loss.bias.detach()
    return Rehearsal(torch.arange(len(curve)), values, loss.weight.detach(), final_bias, optimizer, stopped)


def _make(
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer], parameters: list[nn.Parameter]
) -> torch.optim.Optimizer:
    try:
        optimizer = make_optimizer(parameters)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the optimizer could not be made for a weight {tuple(parameters[0].shape)}"
            f"{' and a bias' if len(parameters) > 1 else ''}: {error}"
        ) from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(
            f"rehearse needs a function from parameters to a torch.optim.Optimizer, such as "
            f"lambda params: torch.optim.Adam(params, lr=1e-2); it returned a {type(optimizer).__name__}."
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if held != {id(p) for p in parameters}:
        raise InputError(
            "the optimizer holds other parameters than the ones it was given; a rehearsal trains a copy of the "
            "layer, so "
            "build it as lambda params: torch.optim.Adam(params, lr=1e-2), not over model.parameters()."
        )
    return optimizer


def _run(
    loss: TriangleLoss,
    optimizer: torch.optim.Optimizer,
    steps: int,
    after_step: Callable[[torch.optim.Optimizer], None] | None,
) -> tuple[list[float], str]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    curve: list[float] = []
    for step in range(steps):
        with torch.no_grad():
            curve.append(float(loss()))
        if not math.isfinite(curve[-1]):
            return curve, f"the loss is no longer finite after {step} steps"
        try:
            # mypy: step() is typed for closures that return float, torch's own return tensors.
            step_with: Callable[[Any], Any] = optimizer.step
            step_with(closure)
        except (TypeError, RuntimeError) as error:
            raise InputError(
                f"{type(optimizer).__name__} cannot be rehearsed: step(closure) failed with: {error}"
            ) from error
        if after_step is not None:
            after_step(optimizer)
    with torch.no_grad():
        curve.append(float(loss()))
    return curve, ""

"""Run any torch optimizer on the triangle instead of the rows: the same trajectory, rows / columns times cheaper."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from closedform.numerics.triangle import Triangle
from closedform.words.errors import InputError
from closedform.words.numbers import count
from closedform.words.progress import Progress

__all__ = ["AS_USUAL", "Loop", "Rehearsal", "TriangleLoss", "iterations_of", "rehearse"]

#: Weights are written down so many times, evenly over the steps.
_WAYPOINTS = 16
#: Evaluations of the loss from one word of progress to the next.
_TOLD = 32


@final
@dataclass(frozen=True)
class Loop:
    """What a training loop does with gradients between the loss and the step.

    Attributes:
        zeroed_every: Steps from one zeroing of the gradients to the next, between which they add up; 0 for never.
        max_norm: Length that all gradients together are clipped to, or None.
        max_value: Size that each of their components is clipped to, or None.
    """

    zeroed_every: int = 1
    max_norm: float | None = None
    max_value: float | None = None


#: Gradients zeroed before each step, and nothing else.
AS_USUAL = Loop()


@final
@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What an optimizer did on the triangle.

    Attributes:
        steps: 0, 1, ... up to the last step that was made, ``(points,)``, int64.
        loss: ``MSELoss()`` of the whole table after so many calls of ``step()``, ``(points,)``, float64.
        weight: The weight at the end, ``(targets, features)``, float64.
        bias: The bias at the end, ``(targets,)``, or None.
        optimizer: The optimizer that ran, with its state.
        stopped: Why it ended before the steps asked for, or an empty string.
        waypoints: Steps at which the weights were written down, ascending; the last one is the end.
        path: Weight and bias there as matrices ``(columns, targets)``, the bias first.
        excess: Excess losses without cancellation, ``(points,)``, where they are known; else None.
    """

    steps: Tensor
    loss: Tensor
    weight: Tensor
    bias: Tensor | None
    optimizer: torch.optim.Optimizer
    stopped: str
    waypoints: tuple[int, ...] = ()
    path: tuple[Tensor, ...] = ()
    excess: Tensor | None = None

    @property
    def end(self) -> Tensor:
        """Weight and bias at the end as one matrix, the bias first, ``(columns, targets)``."""
        return self.weight.T if self.bias is None else torch.cat([self.bias.unsqueeze(0), self.weight.T])


def iterations_of(run: Rehearsal) -> int:
    """Return how many iterations LBFGS has made within its calls of ``step()``; 0 for other optimizers."""
    state: dict[str, Any] = next(iter(run.optimizer.state.values()), {})
    return int(state.get("n_iter", 0))


@final
class TriangleLoss:
    """``MSELoss()`` of a linear layer on all rows, from their triangle: the same value and the same gradients.

    Args:
        triangle: The rows.
        weight: ``(targets, features)``; copied.
        bias: ``(targets,)`` or None; copied.
        factor: What the mean is multiplied by: rows x targets for ``reduction="sum"``; negative for a run that climbs.
        dtype: What is computed in.
    """

    def __init__(
        self,
        triangle: Triangle,
        weight: Tensor,
        bias: Tensor | None,
        factor: float = 1.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.features = triangle.R[:, int(triangle.has_ones) :].to(dtype).contiguous()
        self.transposed = self.features.T.contiguous()
        self.ones = triangle.R[:, :1].to(dtype).contiguous() if triangle.has_ones else None
        self.targets = triangle.C.to(dtype)
        self.left = float(triangle.residual_squares.sum())
        self.count = triangle.weight_sum * triangle.targets
        self.factor = factor
        self.weight = nn.Parameter(weight.detach().to(dtype, copy=True).contiguous())
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(dtype, copy=True))

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Weight and bias, with the shapes that ``nn.Linear`` gives them."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def __call__(self) -> Tensor:
        """Return the loss at the present parameters, for ``backward()``."""
        residual = self._residual()
        return (residual.square().sum() + self.left) * (self.factor / self.count)

    def outputs(self, parameters: list[Tensor]) -> Tensor:
        """Return what a layer of such parameters makes of the rows of the triangle.

        Args:
            parameters: Weight, and bias where there is one.
        """
        outputs = self.features @ parameters[0].T
        return outputs if self.ones is None or len(parameters) == 1 else outputs + self.ones * parameters[1]

    def _residual(self) -> Tensor:
        return self.outputs([*self.parameters]) - self.targets

    def add_gradients_(self) -> Tensor:
        """Return the loss, and add its gradients to those that the parameters hold, as ``backward()`` does."""
        with torch.no_grad():
            residual = self._residual()
            scale = 2 * self.factor / self.count
            gradients = [(self.transposed @ residual).T.contiguous() * scale]
            if self.ones is not None:
                gradients.append((self.ones.T @ residual).reshape(-1) * scale)
            for parameter, gradient in zip(self.parameters, gradients, strict=False):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            return (residual.square().sum() + self.left) * (self.factor / self.count)


def rehearse(
    triangle: Triangle,
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    *,
    steps: int,
    weight: Tensor,
    bias: Tensor | None,
    factor: float = 1.0,
    after_step: Callable[[torch.optim.Optimizer], None] | None = None,
    loop: Loop = AS_USUAL,
    evaluations: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Rehearsal:
    """Run an optimizer on the triangle of the rows, full batch, on the mean squared error.

    Since ``|Y - X w|^2 = |C - R w|^2 + what no weights explain``, loss and gradients are those of all rows, to
    rounding; so is the path of every optimizer that looks at nothing else, Adam and LBFGS included.

    Args:
        triangle: The rows; see :func:`closedform.explain.spectra.compress`.
        make_optimizer: Given the parameters ``[weight]`` or ``[weight, bias]`` (float64), returns the optimizer.
        steps: How many times ``step(closure)`` is called.
        weight: Where it starts, ``(targets, features)``, float64.
        bias: Where it starts, ``(targets,)``, or None.
        factor: What ``MSELoss()`` is multiplied by in training: rows x targets for ``reduction="sum"``. The curve
            returned is the mean in any case.
        after_step: Called with the optimizer after every step, say for a scheduler.
        loop: What becomes of gradients before each step.
        evaluations: How often the loss may be evaluated before the run ends where it is; ever so often if None.
        dtype: What is computed in; the curve is float64 in any case.

    Raises:
        InputError: what cannot be rehearsed, with the reason.

    Example:
        >>> import torch
        >>> from closedform.rows import as_rows
        >>> from closedform.explain.spectra import compress
        >>> X = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
        >>> rows = compress(as_rows(X, torch.tensor([1.0, 3.0, 5.0])), l2=0.0).without_ones()
        >>> zero = torch.zeros(1, 2, dtype=torch.float64)
        >>> run = rehearse(rows, lambda params: torch.optim.Adam(params, lr=0.1), steps=500, weight=zero, bias=None)
        >>> bool(run.loss[-1] < 1e-6)
        True
    """
    if not (isinstance(steps, int) and steps >= 0):
        raise InputError(f"steps={steps!r} must be a whole number that is not negative.")
    loss = TriangleLoss(triangle, weight, bias, factor, dtype)
    # Some optimizers draw random numbers; the user's generator is put back as it was.
    with torch.random.fork_rng(devices=[], enabled=True), torch.enable_grad(), Progress(None) as progress:
        optimizer = _make(make_optimizer, loss.parameters)
        course = _Course(loss, optimizer, loop, evaluations, progress)
        stopped = course.run(steps, after_step)
    values = torch.tensor(course.curve, dtype=torch.float64, device="cpu") / factor
    return Rehearsal(
        steps=torch.arange(len(course.curve), device="cpu"),
        loss=values,
        weight=loss.weight.detach().to(torch.float64),
        bias=None if loss.bias is None else loss.bias.detach().to(torch.float64),
        optimizer=optimizer,
        stopped=stopped,
        waypoints=tuple(course.waypoints),
        path=tuple(course.path),
    )


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


class _Ended(Exception):
    """Ends a run from within a step: the loss is no longer finite, or was evaluated often enough."""


@final
class _Course:
    """One run: the loop around the optimizer, and what is written down of it."""

    def __init__(
        self,
        loss: TriangleLoss,
        optimizer: torch.optim.Optimizer,
        loop: Loop,
        evaluations: int | None,
        progress: Progress,
    ) -> None:
        self._loss, self._optimizer, self._loop = loss, optimizer, loop
        self._left = math.inf if evaluations is None else evaluations
        self._progress = progress
        self._fresh = True
        self._part, self._evaluated = 0.0, 0
        self.curve: list[float] = []
        self.waypoints: list[int] = []
        self.path: list[Tensor] = []

    def run(self, steps: int, after_step: Callable[[torch.optim.Optimizer], None] | None) -> str:
        """Make the steps; return why there are fewer, or an empty string.

        Raises:
            InputError: the optimizer fails in ``step(closure)``, or does not call its closure.
        """
        every = max(1, steps // _WAYPOINTS)
        # mypy: step() is typed for closures that return float, torch's own return tensors.
        step_with: Callable[[Any], Any] = self._optimizer.step
        stopped = ""
        for step in range(steps):
            if step % every == 0:
                self._write_down(step)
            if self._left <= 0:
                stopped = "it was rehearsed no further"
                break
            self._fresh, self._part = True, step / steps
            try:
                step_with(self._closure)
            except _Ended as end:
                stopped = str(end)
                break
            except (TypeError, RuntimeError) as error:
                raise InputError(
                    f"{type(self._optimizer).__name__} cannot be rehearsed: step(closure) failed with: {error}"
                ) from error
            if self._fresh:
                raise InputError(
                    f"{type(self._optimizer).__name__} cannot be rehearsed: step(closure) does not call its closure."
                )
            if after_step is not None:
                after_step(self._optimizer)

        if not stopped.startswith("the loss"):
            with torch.no_grad():
                self.curve.append(float(self._loss()))

        self._write_down(len(self.curve) - 1)
        return stopped

    def _write_down(self, step: int) -> None:
        weight, bias = self._loss.weight.detach().to(torch.float64).T, self._loss.bias
        whole = weight.clone() if bias is None else torch.cat([bias.detach().to(weight).unsqueeze(0), weight])
        self.waypoints.append(step)
        self.path.append(whole)

    def _closure(self) -> Tensor:
        if self._loop.zeroed_every and (len(self.curve) - (not self._fresh)) % self._loop.zeroed_every == 0:
            self._optimizer.zero_grad()
        value = self._loss.add_gradients_()
        self._evaluated += 1

        if self._evaluated % _TOLD == 0:
            # A single call of step() may evaluate the loss a thousand times.
            name = type(self._optimizer).__name__
            self._progress(f"rehearsing {name}, {count(float(self._evaluated))} evaluations", self._part)

        if self._fresh:
            self._fresh = False
            self.curve.append(float(value))
            if not math.isfinite(self.curve[-1]):
                raise _Ended(f"the loss is no longer finite after {len(self.curve) - 1} steps")
        elif self._left <= 0:
            # In the midst of a step, of LBFGS say: the weights are where its line search has brought them.
            raise _Ended("it was rehearsed no further")

        self._left -= 1
        if self._loop.max_norm is not None:
            nn.utils.clip_grad_norm_(self._loss.parameters, self._loop.max_norm)
        if self._loop.max_value is not None:
            nn.utils.clip_grad_value_(self._loss.parameters, self._loop.max_value)
        return value

"""Run an optimizer on batches that are drawn from the rows, several draws side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from closedform.explain.moments import RowMoments
from closedform.explain.rehearsal import Rehearsal
from closedform.explain.spectra import Spectrum
from closedform.words.errors import InputError
from closedform.words.progress import Progress

__all__ = ["DrawnRuns", "Draws", "rehearse_batches"]

#: Seconds that a rehearsal of batches may take, about.
_SECONDS = 1.0
#: Seconds of a step of all draws together, as measured on one core.
_STEP = 3.0e-4
#: Seconds of an operation in a product, as measured on one core.
_FLOP = 4e-10
#: Draws that are rehearsed where an optimizer treats every number alike: half by passes, half with rows drawn anew.
_SIDE_BY_SIDE = 4
#: Draws of an optimizer that looks at all of its weights at once: one of each at the least.
_ONE_BY_ONE = 2
#: The same at the most, where steps are few: LBFGS ends orders of magnitude apart on other draws.
_MOST = 16
#: Optimizers whose step of one weight depends on the others.
_TOGETHER = ("LBFGS", "Muon", "Adafactor")
#: From so many times as many rows as a batch has on, it is all the same whether a row can be drawn twice.
_MANY = 20
#: Weights are written down so many times, evenly over the steps.
_WAYPOINTS = 16
#: Steps from one word of progress to the next.
_TOLD = 64


@final
@dataclass(frozen=True, eq=False)
class DrawnRuns:
    """Runs on batches that differ in nothing but the draws.

    Attributes:
        excess: Excess loss of the whole table after 0, 1, ... steps of each run, ``(steps + 1, runs)``.
        first: The first of the stacks that they were made in; its weights are means over the stack.
    """

    excess: Tensor
    first: Rehearsal


@final
@dataclass(frozen=True, eq=False)
class Draws:
    """What batches are drawn from.

    Attributes:
        spectrum: The spectrum of the fit.
        moments: All rows along its directions.
        size: Rows in a batch.
        factor: What the mean squared error of a batch is multiplied by in training.
    """

    spectrum: Spectrum
    moments: RowMoments
    size: int
    factor: float


def rehearse_batches(
    draws: Draws,
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    *,
    name: str,
    steps: int,
    evaluations: int,
    weight: Tensor,
    bias: Tensor | None,
    after_step: Callable[[], Callable[[torch.optim.Optimizer], None] | None],
) -> DrawnRuns:
    """Run an optimizer on drawn batches for as many steps as are cheap.

    An optimizer that treats every number by itself steps several draws at once, stacked in one parameter.

    Args:
        draws: What batches are drawn from.
        make: Given the parameters ``[weight]`` or ``[weight, bias]`` (float64), returns the optimizer.
        name: Name of its class.
        steps: Steps to make, if they are cheap enough.
        evaluations: How often a step evaluates the loss, about.
        weight: Where it starts, ``(targets, features)``, float64.
        bias: Where it starts, ``(targets,)``, or None.
        after_step: Returns what is called with the optimizer after every step, say for a scheduler.

    Raises:
        InputError: an optimizer that fails at a step, with the reason.
    """
    together = name in _TOGETHER
    columns, targets = draws.spectrum.directions.shape[1], draws.spectrum.n_targets
    flops = columns * targets * (4 * draws.size + 2 * draws.spectrum.rank)
    if together:
        most = int(_SECONDS / ((_STEP + _FLOP * flops) * evaluations))
        runs = min(_MOST, max(_ONE_BY_ONE, most // max(1, steps) // 2 * 2))
        steps = max(1, min(steps, most // runs))
    else:
        runs = _SIDE_BY_SIDE
        steps = max(1, min(steps, int(_SECONDS / ((_STEP + _FLOP * runs * flops) * evaluations))))

    parts = [[run] for run in range(runs)] if together else [list(range(runs))]
    found = []
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), Progress(None) as progress:
        for part in parts:
            loop = _Loop(draws, make, part, weight, bias, stacked=not together)
            found.append(loop.run(steps, after_step(), lambda share: progress(f"rehearsing {name} on batches", share)))
    length = min(excess.shape[0] for excess, _ in found)
    return DrawnRuns(torch.cat([excess[:length] for excess, _ in found], dim=1), found[0][1])


@final
class _Loop:
    """The loop of some draws, stacked along the first dimension of each parameter or one alone."""

    def __init__(
        self,
        draws: Draws,
        make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        runs: list[int],
        weight: Tensor,
        bias: Tensor | None,
        *,
        stacked: bool,
    ) -> None:
        spectrum, rank = draws.spectrum, draws.spectrum.rank
        self._draws, self._runs = draws, runs
        directions = spectrum.directions[:rank].cpu()
        rows = draws.moments.rows.cpu() @ directions
        self._targets = rows @ spectrum.minimiser.cpu() - draws.moments.residuals.cpu()
        self._features, self._ones = rows, None
        if bias is not None:
            self._ones, self._features = rows[:, :1].contiguous(), rows[:, 1:].contiguous()
        self._design = spectrum.singular_values[:rank].cpu().unsqueeze(1) * directions
        self._wanted = spectrum.target_components[:rank].cpu()

        count = (len(runs),) if stacked else ()
        whole = [weight] if bias is None else [weight, bias]
        self.parameters = [nn.Parameter(part.detach().cpu().expand(*count, *part.shape).clone()) for part in whole]
        try:
            self._optimizer = make(self.parameters)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"the optimizer could not be made for the layer: {error}") from error
        for parameter, part in zip(self.parameters, whole, strict=True):
            state: dict[str, Any] = self._optimizer.state.get(parameter, {})
            for key, value in state.items():
                # A state of earlier steps is that of all draws.
                if isinstance(value, Tensor) and stacked and value.shape == part.shape:
                    state[key] = value.expand(parameter.shape).clone()

    def run(
        self,
        steps: int,
        after_step: Callable[[torch.optim.Optimizer], None] | None,
        tell: Callable[[float], None],
    ) -> tuple[Tensor, Rehearsal]:
        """Make the steps; return the excess losses, ``(steps + 1, runs)``, and the runs as one, by their means.

        Raises:
            InputError: the optimizer fails at a step, with the reason.
        """
        excess, waypoints, path, stopped = [self._excess()], [], [], ""
        every = max(1, steps // _WAYPOINTS)
        step_with: Callable[[Any], Any] = self._optimizer.step
        for step, picked in zip(range(steps), self._picked(), strict=False):
            if step % _TOLD == 0:
                tell(step / steps)
            if step % every == 0:
                waypoints.append(step)
                path.append(self._whole().mean(0))
            try:
                step_with(lambda picked=picked: self._evaluate(picked))
            except (TypeError, RuntimeError) as error:
                name = type(self._optimizer).__name__
                raise InputError(f"{name} cannot be rehearsed: step(closure) failed with: {error}") from error
            excess.append(self._excess())
            if not bool(torch.isfinite(excess[-1]).all()):
                stopped = f"the loss is no longer finite after {step + 1} steps"
                break
            if after_step is not None:
                after_step(self._optimizer)

        waypoints.append(len(excess) - 1)
        path.append(self._whole().mean(0))
        curves = torch.nan_to_num(torch.stack(excess), nan=math.inf, posinf=math.inf)
        end, biased = path[-1], self._ones is not None
        return curves, Rehearsal(
            steps=torch.arange(len(excess), device="cpu"),
            loss=curves.mean(1) + self._draws.spectrum.optimal_loss,
            weight=(end[1:] if biased else end).T,
            bias=end[0] if biased else None,
            optimizer=self._optimizer,
            stopped=stopped,
            waypoints=tuple(waypoints),
            path=tuple(path),
            excess=curves.mean(1),
        )

    def _whole(self) -> Tensor:
        """Weights of all runs as matrices, the bias first, ``(runs, columns, targets)``."""
        weight = self.parameters[0].detach().reshape(-1, *self.parameters[0].shape[-2:]).mT
        if self._ones is None:
            return weight
        bias = self.parameters[1].detach().reshape(weight.shape[0], 1, -1)
        return torch.cat([bias, weight], dim=1)

    def _excess(self) -> Tensor:
        spectrum = self._draws.spectrum
        gaps = self._design @ self._whole() - self._wanted
        return gaps.square().sum((1, 2)) / (spectrum.n_rows * spectrum.n_targets)

    def _evaluate(self, picked: list[Tensor]) -> Tensor:
        """Put the gradients of the batches into the parameters, and return the sum of their losses."""
        with torch.no_grad():
            weights, total, gradients = self._whole(), torch.zeros((), dtype=torch.float64, device="cpu"), []
            # The last batch of a pass may be smaller than those that are drawn anew.
            groups = [torch.stack(picked)] if len({part.numel() for part in picked}) == 1 else [p[None] for p in picked]
            first = 0

            for rows in groups:
                some, first = weights[first : first + rows.shape[0]], first + rows.shape[0]
                features, targets = self._features[rows], self._targets[rows]
                residual = features @ (some if self._ones is None else some[:, 1:]) - targets
                if self._ones is not None:
                    residual = residual + self._ones[rows] * some[:, :1]

                scale = self._draws.factor / (rows.shape[1] * targets.shape[2])
                parts = [residual.mT @ features * (2 * scale)]
                if self._ones is not None:
                    parts.append((residual * self._ones[rows]).sum(1) * (2 * scale))
                gradients.append(parts)
                total = total + residual.square().sum() * scale

            for place, parameter in enumerate(self.parameters):
                gradient = torch.cat([parts[place] for parts in gradients])
                parameter.grad = gradient.reshape(parameter.shape)
            return total

    def _picked(self) -> Iterator[list[Tensor]]:
        """Yield the rows of the next batch of each run: even runs go through shuffled passes, odd ones draw anew."""
        size, n = self._draws.size, self._features.shape[0]
        generators = [torch.Generator(device="cpu").manual_seed(run) for run in self._runs]
        while True:
            orders = [torch.randperm(n, generator=generator, device="cpu") for generator in generators]
            for start in range(0, n, size):
                yield [
                    order[start : start + size] if run % 2 == 0 else _anew(n, size, generator)
                    for run, order, generator in zip(self._runs, orders, generators, strict=True)
                ]


def _anew(n: int, size: int, generator: torch.Generator) -> Tensor:
    if n >= _MANY * size:
        return torch.randint(n, (size,), generator=generator, device="cpu")
    return torch.randperm(n, generator=generator, device="cpu")[:size]

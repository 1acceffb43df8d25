"""What keeps every optimizer from running at all: numbers beyond the range of the dtype that is trained in."""

from __future__ import annotations

import math

import torch
from torch import nn

from closedform.comparison.problem import Problem
from closedform.explain.spectra import Spectrum

__all__ = ["obstacle"]


def obstacle(problem: Problem, layer: nn.Linear, spectrum: Spectrum) -> str | None:
    """Return why no step can be taken on this problem, and the remedy; None where one can.

    Args:
        problem: What would be trained on.
        layer: A layer with the starting weights; gradients are left on it.
        spectrum: The spectrum of its rows.
    """
    name = str(problem.dtype).removeprefix("torch.")
    for table, given, trained in (("X", problem.given_X, problem.X), ("Y", problem.given_Y, problem.Y)):
        if not bool(torch.isfinite(trained).all()):
            return (
                f"{table} holds numbers as large as {float(given.abs().max()):.1e}, beyond the "
                f"{torch.finfo(problem.dtype).max:.1e} of {name}; scale {table}, or pass X in a wider dtype"
            )

    if spectrum.rank:
        # Half precision keeps its learning rates in float32.
        scalar = torch.finfo(problem.dtype if problem.dtype == torch.float64 else torch.float32)
        if not scalar.tiny < spectrum.learning_rate_limit < scalar.max / 2:
            largest = math.log10(float(spectrum.singular_values[0]))
            count = math.log10(spectrum.n_rows * spectrum.n_targets)
            return (
                f"the largest stable learning rate, about 1e{round(count - 2 * largest)}, is beyond {name}; "
                f"multiply X by about 1e{round(count / 2 - largest)}"
            )

    loss = problem.loss(layer)
    if not math.isfinite(loss.item()):
        return f"MSELoss() of the starting weights is {loss.item()} in {name}; scale X and Y, or use a wider dtype"

    loss.backward()  # type: ignore[no-untyped-call]
    for parameter, value in layer.named_parameters():
        if value.grad is not None and not bool(torch.isfinite(value.grad).all()):
            return f"the gradient of the {parameter} overflows in {name}; scale X and Y, or use a wider dtype"

    return None

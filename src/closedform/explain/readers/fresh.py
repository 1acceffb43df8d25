"""Optimizers that have made no step yet, read from their name and settings alone, as a command line gives them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from closedform.explain.readers.optimizers import OptimizerReading, kind_of, without_compiler

__all__ = ["fresh_optimizer"]


def fresh_optimizer(kind: type[torch.optim.Optimizer], **settings: Any) -> OptimizerReading:
    """Return what an optimizer of ``torch.optim`` over ``model.parameters()`` would be read as.

    Args:
        kind: Its class.
        settings: What it is made with.

    Example:
        >>> import torch
        >>> from closedform.explain.readers.fresh import fresh_optimizer
        >>> fresh_optimizer(torch.optim.SGD, lr=0.1, momentum=0.9).momentum
        0.9
    """
    light = without_compiler(kind)

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return light(parameters, **settings)

    group = make([nn.Parameter(torch.zeros(1, device="cpu"))]).param_groups[0]
    return OptimizerReading(
        name=kind.__name__,
        kind=kind_of(kind),
        settings={key: value for key, value in group.items() if key != "params"},
        bias_decay=float(group.get("weight_decay", 0.0)),
        no_closed_form="",
        frozen=(),
        iterations=0,
        momentum_buffers={},
        groups=(("weight", "bias"),),
        make=make,
    )

"""Optimizers that have made no step yet, read from their name and settings alone, as a command line gives them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from closedform.explain.readers.optimizers import OptimizerReading, kind_of

__all__ = ["fresh_optimizer", "without_compiler"]


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


def without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return a class of ``torch.optim`` whose objects do not load torch's compiler, which takes longer than torch.

    Torch marks parts of its optimizers as not to be compiled, and loads the compiler to do so. Here their bare
    functions are called, so that steps are torch's own to the last bit. It is meant for steps that nobody compiles.

    Args:
        kind: The class.
    """
    bare: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad")}
    if "differentiable" in inspect.signature(kind).parameters:
        bare["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), bare | {"__module__": kind.__module__})

"""The layer whose training is judged where a file is all there is, and what it is trained with: both are fresh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from closedform.rows import Source

__all__ = ["OPTIMIZERS", "as_model", "fresh_layer", "optimizer_class", "optimizer_settings"]

#: The optimizers of the command line, by their names in torch.optim.
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "lbfgs": "LBFGS"}


def fresh_layer(X: Source, Y: Source, bias: bool, seed: int, outputs: int | None = None) -> nn.Linear:
    """Return the layer that ``nn.Linear`` makes after ``torch.manual_seed(seed)``, in the dtype of the features.

    Args:
        X: Features.
        Y: Targets.
        bias: Whether it has a bias.
        seed: The seed.
        outputs: How many outputs it has; as many as Y has columns where it is None.
    """
    import torch
    from torch import nn

    # In float16 and bfloat16 no kernel draws the same numbers on every machine, and integers hold no weights.
    dtype = X.dtype if X.dtype in (torch.float32, torch.float64) else torch.float64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features, targets = (table.shape[1] if len(table.shape) > 1 else 1 for table in (X, Y))
        return nn.Linear(features, targets if outputs is None else outputs, bias=bias, dtype=dtype)


def as_model(layer: nn.Linear, Y: Source) -> nn.Module:
    """Give the layer's output the shape of the targets: a file's ``(rows,)`` is no mistake of a training loop."""
    from torch import nn

    return nn.Sequential(layer, nn.Flatten(0)) if len(Y.shape) == 1 else layer


def optimizer_class(name: str) -> type[Optimizer]:
    """Return the class of an optimizer of the command line."""
    import torch

    kind: type[Optimizer] = getattr(torch.optim, OPTIMIZERS[name])
    return kind


def optimizer_settings(lr: float | None, momentum: float | None, nesterov: bool) -> dict[str, Any]:
    """Return the settings that were given; torch's own defaults hold for the others."""
    given = {"lr": lr, "momentum": momentum, "nesterov": nesterov or None}
    return {name: value for name, value in given.items() if value is not None}

"""The layer whose training is judged where a file is all there is: a fresh one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from closedform.rows import Source

__all__ = ["as_model", "fresh_layer"]


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

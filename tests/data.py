"""Seeded data and small runs of torch that many tests need."""

from __future__ import annotations

import torch
from torch import Tensor, nn

F64 = torch.float64


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64; the same ones each time."""
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def of_condition(decades: float, rows: int, columns: int) -> Tensor:
    """Gaussian rows whose columns fall off over so many powers of ten, rotated so that no unit shows it."""
    rotation = torch.linalg.qr(gaussian(columns, columns, seed=1)).Q
    return gaussian(rows, columns) * torch.logspace(0, -1, columns, dtype=F64) ** decades @ rotation


def zero_layer(features: int, targets: int, bias: bool = True, dtype: torch.dtype = F64) -> nn.Linear:
    """A layer whose weight and bias are zero."""
    layer = nn.Linear(features, targets, bias=bias, dtype=dtype)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def train(X: Tensor, Y: Tensor, layer: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Tensor:
    """Train on all rows at once; return the loss before each of ``steps + 1`` steps."""
    losses = []
    for _ in range(steps + 1):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(layer(X), Y)
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
    return torch.tensor(losses, dtype=F64)

"""Seeded data and small runs of torch that many tests need."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from placement import place

F64 = torch.float64


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64, the same ones each time, on the device that the tests run on."""
    return place(torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed), device="cpu"))


def of_condition(decades: float, rows: int, columns: int) -> Tensor:
    """Gaussian rows whose columns fall off over so many powers of ten, rotated so that no unit shows it."""
    rotation = torch.linalg.qr(gaussian(columns, columns, seed=1)).Q
    lengths = place(torch.logspace(0, -1, columns, dtype=F64, device="cpu")) ** decades
    return gaussian(rows, columns) * lengths @ rotation


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


@torch.no_grad()
def descend(
    X: Tensor,
    Y: Tensor,
    layer: nn.Linear,
    *,
    lr: float,
    steps: int,
    momentum: float = 0.0,
    nesterov: bool = False,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
) -> Tensor:
    """What :func:`train` with ``torch.optim.SGD`` returns and leaves in the layer, without autograd: 20 times as fast.

    The operations and their order are those of torch, in the dtype of the layer; tests/test_data.py holds them to it.
    """
    numel = Y.numel()
    parameters = [layer.weight, *([] if layer.bias is None else [layer.bias])]
    buffers: list[Tensor] = []
    losses = torch.empty(steps + 1, dtype=Y.dtype)

    for step in range(steps + 1):
        error = nn.functional.linear(X, layer.weight, layer.bias).sub_(Y)
        torch.dot(error.reshape(-1), error.reshape(-1), out=losses[step])
        error.mul_(2 / numel)
        gradients = [error.T.mm(X), *([] if layer.bias is None else [error.sum(0)])]
        for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if weight_decay:
                gradient.add_(parameter, alpha=weight_decay)
            if momentum:
                if step:
                    buffers[i].mul_(momentum).add_(gradient, alpha=1 - dampening)
                else:
                    # The first gradient becomes the buffer as it is.
                    buffers.append(gradient.clone())
                gradient = gradient.add_(buffers[i], alpha=momentum) if nesterov else buffers[i]
            parameter.add_(gradient, alpha=-lr)
    return losses.double() / numel

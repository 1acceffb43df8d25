"""Sparse sign embeddings: a random matrix that shrinks the rows and keeps lengths, at the cost of reading them once."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.engine import compiled

__all__ = ["NONZEROS", "sketch_update", "sparse_signs"]

#: Nonzeros of each column of the embedding, as Tropp, Yurtsever, Udell and Cevher (2019) recommend at least.
NONZEROS = 8


def sparse_signs(
    n_rows: int, sketch_rows: int, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return for each row the rows of the sketch it is added to, and with which factors.

    Source: Cohen (2016); Epperly, Meier and Nakatsukasa (2024) for its use in least squares.

    Args:
        n_rows: Rows of the table.
        sketch_rows: Rows of the sketch.
        generator: Where the randomness comes from.
        device: Device of what is returned.

    Returns:
        ``(n_rows, NONZEROS)`` int32, and float64 factors of size ``NONZEROS ** -0.5`` with random signs.
    """
    targets = torch.randint(0, sketch_rows, (n_rows, NONZEROS), dtype=torch.int32, device="cpu", generator=generator)
    signs = torch.randint(0, 2, (n_rows, NONZEROS), dtype=torch.int8, device="cpu", generator=generator)
    return targets.to(device), (signs.to(torch.float64) * 2 - 1).mul_(NONZEROS**-0.5).to(device)


def sketch_update(sketch: Tensor, X: Tensor, targets: Tensor, factors: Tensor) -> None:
    """Add the rows of X, times their factors, to their rows of the sketch, ``(sketch rows, columns)`` float64.

    Example:
        >>> import torch
        >>> sketch = torch.zeros(2, 1, dtype=torch.float64)
        >>> targets, factors = torch.tensor([[0, 1], [1, 1]], dtype=torch.int32), torch.ones(2, 2, dtype=torch.float64)
        >>> sketch_update(sketch, torch.tensor([[3.0], [4.0]]), targets, factors)
        >>> sketch
        tensor([[ 3.],
                [11.]], dtype=torch.float64)
    """
    if compiled.serves(X):
        compiled.sketch_add(X, targets.contiguous(), factors.contiguous(), sketch)
        return
    values = X.to(torch.float64)
    for each in range(targets.shape[1]):
        sketch.index_add_(0, targets[:, each].long(), values * factors[:, each : each + 1])

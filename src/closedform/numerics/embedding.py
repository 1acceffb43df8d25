"""Sparse sign embeddings: a random matrix that shrinks the rows and keeps lengths, at the cost of reading them once."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["NONZEROS", "sparse_signs"]

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

    Example:
        >>> import torch
        >>> targets, factors = sparse_signs(3, 5, torch.Generator().manual_seed(0), torch.device("cpu"))
        >>> targets.shape, round(float(factors.square().sum()), 12)
        (torch.Size([3, 8]), 3.0)
    """
    targets = torch.randint(0, sketch_rows, (n_rows, NONZEROS), dtype=torch.int32, device="cpu", generator=generator)
    signs = torch.randint(0, 2, (n_rows, NONZEROS), dtype=torch.int8, device="cpu", generator=generator)
    return targets.to(device), (signs.to(torch.float64) * 2 - 1).mul_(NONZEROS**-0.5).to(device)

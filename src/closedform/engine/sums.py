"""The sums that a residual pass adds to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = ["PassSums", "pass_sums"]


@final
@dataclass(frozen=True, eq=False)
class PassSums:
    """Sums over rows, all float64, for q vectors with residuals T.

    Attributes:
        flat: All of them, one after the other; the others are views of it.
        features: ``X'T``, ``(features, q)``.
        ones: ``1'T``, ``(q,)``.
        squares: Sums of the squares of T, ``(q,)``.
        groups: Ranges of targets whose products are wanted.
        grams: Products ``T'T`` of these groups of columns of T.
    """

    flat: Tensor
    features: Tensor
    ones: Tensor
    squares: Tensor
    groups: tuple[range, ...]
    grams: tuple[Tensor, ...]


def pass_sums(n_features: int, vectors: int, device: torch.device, groups: tuple[range, ...] = ()) -> PassSums:
    """Return sums of zero.

    Args:
        n_features: Columns of X.
        vectors: How many vectors there are, q.
        device: Where the sums stand.
        groups: The ranges of targets whose products are wanted.

    Example:
        >>> import torch
        >>> pass_sums(3, 2, torch.device("cpu"), (range(0, 2),)).grams[0]
        tensor([[0., 0.],
                [0., 0.]], dtype=torch.float64)
    """
    size = vectors * n_features
    sizes = [len(group) ** 2 for group in groups]
    flat = torch.zeros(size + 2 * vectors + sum(sizes), dtype=torch.float64, device=device)
    parts = torch.split(flat[size + 2 * vectors :], sizes) if sizes else ()
    grams = tuple(part.view(len(group), len(group)) for part, group in zip(parts, groups, strict=True))
    return PassSums(
        flat,
        flat[:size].view(vectors, n_features).T,
        flat[size : size + vectors],
        flat[size + vectors : size + 2 * vectors],
        groups,
        grams,
    )

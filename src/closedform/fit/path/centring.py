"""How rows are brought to coordinates: scaled, centred, weighted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.rows import Block, SumFold
from closedform.rows.block import Extent

__all__ = ["Centring", "Means", "block_rows", "product_rows"]

#: Rows of a block, at least: their product with the columns is bound by arithmetic then.
_FEWEST_ROWS = 1024
#: Numbers of a block that one call multiplies: starting its threads costs little beside, and what such blocks free is
#: kept (see keep_freed_memory).
_BLOCK_ENTRIES = 2**21


@final
@dataclass(frozen=True, eq=False)
class Centring:
    """How rows are brought to coordinates: divided by powers of two, less their means, times the roots of the weights.

    Attributes:
        x_scale: Power of two that X is multiplied by.
        y_scale: Powers of two that the targets are multiplied by, ``(targets,)``.
        mean: ``(features,)`` in that scale, or None.
        target_mean: ``(targets,)`` in that scale, or None.
    """

    x_scale: float
    y_scale: Tensor
    mean: Tensor | None
    target_mean: Tensor | None

    def features(self, block: Block) -> tuple[Tensor, Tensor | None]:
        """Return the centred and weighted features of a block, new, and the roots of the weights or None."""
        A = block.X.to(torch.float64) * self.x_scale
        if self.mean is not None:
            A -= self.mean
        if block.weight is None:
            return A, None
        root = block.weight.sqrt()
        A *= root.unsqueeze(1)
        return A, root

    def targets(self, block: Block, root: Tensor | None) -> Tensor:
        """Return the centred and weighted targets of a block, new."""
        B = block.Y.to(torch.float64) * self.y_scale
        if self.target_mean is not None:
            B -= self.target_mean
        return B if root is None else B.mul_(root.unsqueeze(1))


def block_rows(extent: Extent) -> int:
    """Return how many rows are brought to coordinates at a time."""
    return max(_FEWEST_ROWS, extent.cached_rows())


def product_rows(extent: Extent) -> int:
    """Return how many rows are brought to coordinates at a time where a Gram matrix is made of them."""
    return max(block_rows(extent), _BLOCK_ENTRIES // extent.n_features)


@final
class Means(SumFold):
    """Weighted sums of the columns of X and Y.

    Args:
        n_features: Columns of X.
        y_scale: Powers of two that the targets are multiplied by, ``(targets,)``.
        x_scale: Power of two that X is multiplied by.
    """

    label = "factoring"

    def __init__(self, n_features: int, x_scale: float, y_scale: Tensor) -> None:
        self._arguments = (n_features, x_scale, y_scale)
        self._x_scale = y_scale.new_full((n_features,), x_scale)
        self._x, self._y = y_scale.new_zeros(2, n_features), y_scale.new_zeros(2, y_scale.shape[0])

    @property
    def features(self) -> Tensor:
        """Sums of the features, ``(features,)``."""
        return self._x[1]

    @property
    def targets(self) -> Tensor:
        """Sums of the targets, ``(targets,)``."""
        return self._y[1]

    @override
    def add(self, block: Block) -> None:
        x_scale, y_scale = self._x_scale, self._arguments[2]
        block.engine.spread_squares_(self._x, block.X, x_scale, torch.zeros_like(x_scale), block.weight)
        engine_for(block.Y).spread_squares_(self._y, block.Y, y_scale, torch.zeros_like(y_scale), block.weight)

    @override
    def fresh(self) -> Self:
        return type(self)(*self._arguments)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self._x, self._y

"""The Hessian of a convex criterion at given weights, in the layer's own units, and the steps that are stable there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.convex.measuring import divisor_of
from closedform.fit.convex.solving import targets_of
from closedform.fit.request import check_ridge
from closedform.fit.weights import Weights
from closedform.losses import Criterion, Kinked, read_criterion
from closedform.rows import Block, Rows, SumFold

__all__ = ["Curvature", "HessianSums", "curvature_at"]

#: Weights and biases up to which the whole Hessian is formed: its eigenvalues take a second or two.
_MOST_WEIGHTS = 2048
#: Multiplications up to which it is: some ten seconds.
_MOST_WORK = 3e11


@final
@dataclass(frozen=True)
class Curvature:
    """The second derivatives of a loss, its ridge included, by the weights and the bias as the layer holds them.

    Attributes:
        largest: The largest eigenvalue of the Hessian.
        smallest: The smallest that is not zero up to rounding; a shift of all classes is left out.
        flat_directions: How many are zero up to rounding, that shift left out.
    """

    largest: float
    smallest: float
    flat_directions: int

    @property
    def condition(self) -> float:
        """Ratio of both: about how many steps of gradient descent shrink an error by a factor e."""
        return self.largest / self.smallest if self.smallest > 0 else math.inf

    @property
    def learning_rate_limit(self) -> float:
        """The largest stable step of plain gradient descent near these weights; inf where it is flat."""
        return 2 / self.largest if self.largest > 0 else math.inf


def curvature_at(rows: Rows, criterion: Any, weights: Weights, l2: Any = 0.0) -> Curvature | None:
    """Return how the loss bends at some weights; None where it has kinks, or where there are too many weights to tell.

    The loss is that of the criterion's reduction, with ``l2 / 2 * |weight|^2`` over what its mean divides by.

    Args:
        rows: The rows.
        criterion: The module.
        weights: The weights, ``(outputs, features)``.
        l2: Ridge strength.

    Raises:
        InputError: targets that the criterion is not defined for.
    """
    read = read_criterion(criterion, targets_of(rows))
    wide = weights.to(torch.float64)
    outputs, features = wide.weight.shape
    columns = features + (wide.bias is not None)
    pairs = outputs**2 if not isinstance(read, Kinked) and read.coupled else outputs
    if isinstance(read, Kinked) or columns * outputs > _MOST_WEIGHTS or rows.n_rows * columns**2 * pairs > _MOST_WORK:
        return None

    blocks = rows.walk(HessianSums(read, wide)).blocks
    penalty = blocks.new_tensor(check_ridge(l2, outputs)).unsqueeze(1).expand(outputs, columns).clone()
    if wide.bias is not None:
        penalty[:, 0] = 0
    if not read.coupled:
        matrices = blocks + torch.diag_embed(penalty)
    else:
        contrasts = _contrasts(blocks, outputs)
        whole = blocks + torch.diag(penalty.reshape(-1)).reshape(blocks.shape)
        turned = torch.einsum("ia,icjd,jb->acbd", contrasts, whole, contrasts)
        matrices = turned.reshape(1, (outputs - 1) * columns, -1)
    return _extremes(torch.linalg.eigvalsh(matrices / divisor_of(rows, criterion, outputs)).reshape(-1))


def _contrasts(like: Tensor, outputs: int) -> Tensor:
    """Return orthonormal directions of the outputs that are no shift of all of them, ``(outputs, outputs - 1)``."""
    ones = like.new_ones(outputs, 1)
    return torch.linalg.qr(ones, mode="complete").Q[:, 1:]


def _extremes(values: Tensor) -> Curvature:
    largest = float(values.max()) if values.numel() else 0.0
    seen = values[values > torch.finfo(torch.float64).eps * len(values) * largest]
    smallest = float(seen.min()) if seen.numel() else 0.0
    return Curvature(max(largest, 0.0), smallest, len(values) - len(seen))


@final
class HessianSums(SumFold):
    """The Hessian of the sum of the row losses, by the coefficients of ``[1 | X]``.

    Args:
        criterion: The criterion.
        weights: Where, in float64.

    Attributes:
        blocks: ``(outputs, columns, columns)``; where outputs are coupled ``(outputs, columns, outputs, columns)``.
    """

    as_stored = False
    label = "reading the curvature"

    def __init__(self, criterion: Criterion, weights: Weights) -> None:
        self._criterion, self._weights = criterion, weights
        outputs, columns = weights.stacked().T.shape
        shape = (outputs, columns, outputs, columns) if criterion.coupled else (outputs, columns, columns)
        self.blocks = weights.weight.new_zeros(shape)

    @override
    def add(self, block: Block) -> None:
        criterion, weights = self._criterion, self._weights
        Z = torch.nn.functional.linear(block.X, weights.weight, weights.bias)
        C = criterion.curvatures(Z, block.Y)
        if block.weight is not None:
            C = C * block.weight.unsqueeze(1)
        A = block.X if weights.bias is None else torch.cat([torch.ones_like(block.X[:, :1]), block.X], 1)

        for output in range(Z.shape[1]):
            unit = torch.zeros_like(Z)
            unit[:, output] = 1
            bent = criterion.product(C, unit)
            if not criterion.coupled:
                self.blocks[output] += A.T @ (bent[:, output : output + 1] * A)
                continue
            for other in range(Z.shape[1]):
                self.blocks[other, :, output] += A.T @ (bent[:, other : other + 1] * A)

    @override
    def fresh(self) -> Self:
        return type(self)(self._criterion, self._weights)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.blocks,)

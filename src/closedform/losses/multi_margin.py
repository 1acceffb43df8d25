"""The squared hinge of several classes."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.losses.criterion import Criterion, class_factors, refuse_rows

__all__ = ["MultiMargin"]


@final
class MultiMargin(Criterion):
    r"""``MultiMarginLoss(p=2)``: :math:`v_y / k \sum_{c \ne y} \max(0, m - z_y + z_c)^2` (Crammer and Singer 2001).

    Where :math:`d_c = m - z_y + z_c` is positive it bends by ``2 v / k`` along ``e_c - e_y``. Only where all of them
    are, by more than the radius, is that a lower bound against a shift of all outputs: the Laplacian of a star has no
    eigenvalue below 1 but that of the shift.

    Args:
        margin: m, positive.
        weight: One factor for each class, or None.
        averages: Whether the reduction is the mean.
    """

    name = "MultiMarginLoss"
    coupled = True
    smooth = False

    def __init__(self, *, margin: float, weight: Tensor | None, averages: bool) -> None:
        self.margin, self.weight, self.averages = margin, weight, averages
        self.radius = 1e-3 * margin

    @override
    def n_outputs(self, Y: Tensor) -> int:
        if self.weight is not None:
            return self.weight.shape[0]
        return max(2, int(Y.max()) + 1) if Y.numel() else 2

    @override
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
        refuse_rows((Y < 0) | (n_outputs <= Y), Y, numbers, f"labels must be from 0 to {n_outputs - 1}.")

    @override
    def counts(self, T: Tensor, n_outputs: int) -> Tensor:
        return T.new_ones(T.shape[0])

    def _parts(self, Z: Tensor, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return d with zeros at the labels, the factor of each row, and the labels, ``(rows, 1)``."""
        own = T[:, :1].to(torch.int64)
        d = (self.margin - Z.gather(1, own) + Z).scatter(1, own, 0.0)
        factors = class_factors(self.weight, Z)
        factor = Z.new_ones(own.shape) if factors is None else factors[own]
        return d, factor / Z.shape[1], own

    @override
    def values(self, Z: Tensor, T: Tensor) -> Tensor:
        d, factor, _ = self._parts(Z, T)
        return (factor * d.clamp_min(0).square()).sum(1)

    @override
    def slopes(self, Z: Tensor, T: Tensor) -> Tensor:
        d, factor, own = self._parts(Z, T)
        rising = 2 * factor * d.clamp_min(0)
        return rising.scatter(1, own, -rising.sum(1, keepdim=True))

    @override
    def curvatures(self, Z: Tensor, T: Tensor) -> Tensor:
        d, factor, own = self._parts(Z, T)
        bent = 2 * factor * (d > 0).to(Z.dtype)
        # The label is where it is negative.
        return bent.scatter(1, own, -bent.sum(1, keepdim=True))

    @override
    def product(self, C: Tensor, S: Tensor) -> Tensor:
        own = C.argmin(1, keepdim=True)
        part = C.scatter(1, own, 0.0) * (S - S.gather(1, own))
        return part.scatter(1, own, -part.sum(1, keepdim=True))

    @override
    def diagonal(self, C: Tensor) -> Tensor:
        return C.abs()

    @override
    def least_curvature(self, Z: Tensor, T: Tensor) -> Tensor:
        d, factor, own = self._parts(Z, T)
        bent = (d > self.radius).scatter(1, own, torch.ones_like(own, dtype=torch.bool)).all(1, keepdim=True)
        return 2 * factor * bent.to(Z.dtype)

    @override
    def recession(self, S: Tensor, T: Tensor) -> Tensor:
        own = T[:, :1].to(torch.int64)
        rises = (S.gather(1, own) < S).any(1)
        return torch.where(rises, torch.full_like(S[:, 0], torch.inf), torch.zeros_like(S[:, 0]))

    @override
    def far_slopes(self, T: Tensor, n_outputs: int) -> tuple[Tensor, Tensor]:
        # A minimum is always attained: no direction of the bias alone, and no other, lets the loss fall for ever.
        ones = T.new_ones(T.shape[0], n_outputs)
        return ones, ones

    @override
    def falls(self, S: Tensor, T: Tensor) -> Tensor:
        return torch.zeros(S.shape[0], dtype=torch.bool, device=S.device)

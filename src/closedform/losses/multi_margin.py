"""The hinge of several classes, and its square."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.losses.criterion import Criterion, class_factors, refuse_rows
from closedform.losses.kinked import Kinked
from closedform.words.errors import InputError

__all__ = ["MultiMargin", "MultiMarginHinge"]


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
    of_shortfalls = True

    def __init__(self, *, margin: float, weight: Tensor | None, averages: bool) -> None:
        self.margin, self.weight, self.averages = margin, weight, averages
        self.radius = 1e-3 * margin

    @override
    def n_outputs(self, Y: Tensor) -> int:
        return _classes(Y, self.weight)

    @override
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
        _check_labels(Y, numbers, n_outputs, self.weight)

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
        return self._bent(Z, T, 0.0)

    @override
    def least_curvatures(self, Z: Tensor, T: Tensor) -> Tensor:
        return self._bent(Z, T, self.radius)

    def _bent(self, Z: Tensor, T: Tensor, beyond: float) -> Tensor:
        """Return what bends the loss of each row, of the pairs whose d is above a number."""
        d, factor, own = self._parts(Z, T)
        bent = 2 * factor * (d > beyond).to(Z.dtype)
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
    def slope_changes(self, C: Tensor, changes: Tensor) -> Tensor:
        # Each d changes by two outputs' changes, and as far as its pair bends; the label's slope by those of all.
        own, bent = C.argmin(1, keepdim=True), C.abs()
        each = bent.scatter(1, own, 0.0).amax(1, keepdim=True).expand_as(C)
        return 2 * changes.amax(1, keepdim=True) * each.scatter(1, own, bent.gather(1, own))

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


@final
class MultiMarginHinge(Kinked):
    r"""``MultiMarginLoss(p=1)``: :math:`v_y / k \sum_{c \ne y} \max(0, m - z_y + z_c)` (Crammer and Singer 2001).

    Args:
        margin: m, positive.
        weight: One factor for each class, or None.
        averages: Whether the reduction is the mean.
    """

    name = "MultiMarginLoss"
    coupled = True

    def __init__(self, *, margin: float, weight: Tensor | None, averages: bool) -> None:
        self.margin, self.weight, self.averages = margin, weight, averages

    @override
    def n_outputs(self, T: Tensor) -> int:
        return _classes(T, self.weight)

    @override
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
        _check_labels(Y, numbers, n_outputs, self.weight)

    def factors(self, T: Tensor, n_outputs: int) -> Tensor:
        """Return the slope of each pair of the label and another class, ``(rows,)``."""
        factors = class_factors(self.weight, T)
        each = T.new_ones(T.shape[0]) if factors is None else factors[T[:, 0].to(torch.int64)]
        return each / n_outputs

    @override
    def losses(self, Z: Tensor, T: Tensor) -> Tensor:
        own = T[:, :1].to(torch.int64)
        short = (self.margin - Z.gather(1, own) + Z).clamp_min(0).scatter(1, own, 0.0)
        return self.factors(T, Z.shape[1]) * short.sum(1)

    @override
    def steepness(self, T: Tensor, n_outputs: int) -> Tensor:
        each = self.factors(T, n_outputs).unsqueeze(1)
        return each.expand(-1, n_outputs).scatter(1, T[:, :1].to(torch.int64), (n_outputs - 1) * each)


def _classes(T: Tensor, weight: Tensor | None) -> int:
    if weight is not None:
        return weight.shape[0]
    return max(2, int(T.max()) + 1) if T.numel() else 2


def _check_labels(Y: Tensor, numbers: Tensor, n_outputs: int, weight: Tensor | None) -> None:
    if weight is not None and weight.shape[0] != n_outputs:
        raise InputError(f"the criterion has weights for {weight.shape[0]} classes, but there are {n_outputs}.")
    why = "classes less one" if weight is None else f"the criterion's weight has {n_outputs} entries"
    refuse_rows((Y < 0) | (n_outputs <= Y), Y, numbers, f"labels must be from 0 to {n_outputs - 1} ({why}).")

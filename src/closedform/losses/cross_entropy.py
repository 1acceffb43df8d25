"""Cross-entropy of labels or probabilities."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.losses.criterion import Criterion, class_factors, refuse_rows
from closedform.words.errors import InputError

__all__ = ["CrossEntropy"]

#: How far the probabilities of a row may sum from 1: they may have been computed in float32.
_SUM_TOLERANCE = 1e-5
#: Share of the largest curvature of a row below which others are left out: directions need few digits.
_UNSEEN = 2.0**-20
#: The same beside all but the largest together: where one class is nearly certain they are the curvature of the row.
_UNSEEN_OTHERS = 2.0**-10


@final
class CrossEntropy(Criterion):
    r"""``CrossEntropyLoss``: :math:`\sum_c -v_c q_c \log p_c` with p the softmax of the outputs.

    With ``a = sum_c v_c q_c``, the slope is ``a p - v q`` and the second derivative ``a (diag p - p p')``. Within
    changes of outputs whose range is r no probability falls below ``exp(-r)`` times itself, and the variance under p is
    at least its smallest probability times the sum of squares about the mean: the lower bound on the curvature.
    Along changes u the variance of h under p changes by its third moment, the mean of ``(h - Eh)^2 (u - Eu)``, which is
    no larger than the range of u times that variance: the second derivative as a whole stays above ``exp(-r)`` times
    itself (self-concordance; Bach 2010).

    Args:
        labels: Whether targets are labels; else probabilities.
        weight: One factor for each class, ``(classes,)``, or None.
        smoothing: Label smoothing, from 0 to 1.
        ignore: The label of rows that do not count.
        averages: Whether the reduction is the mean.
    """

    name = "CrossEntropyLoss"
    coupled = True
    of_shares = True

    def __init__(
        self, *, labels: bool, weight: Tensor | None = None, smoothing: float = 0.0, ignore: int = -100, averages: bool
    ) -> None:
        self.labels, self.weight, self.smoothing, self.ignore = labels, weight, smoothing, ignore
        self.averages = averages

    @override
    def n_outputs(self, Y: Tensor) -> int:
        if self.weight is not None:
            return self.weight.shape[0]
        if not self.labels:
            return Y.shape[1]
        counted = Y[self.ignore != Y]
        return max(2, int(counted.max()) + 1) if counted.numel() else 2

    @override
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
        if self.weight is not None and self.weight.shape[0] != n_outputs:
            raise InputError(
                f"the criterion has weights for {self.weight.shape[0]} classes, but there are {n_outputs}."
            )
        if self.labels:
            wrong = (self.ignore != Y) & ((Y < 0) | (n_outputs <= Y))
            why = "classes less one" if self.weight is None else f"the criterion's weight has {n_outputs} entries"
            refuse_rows(wrong, Y, numbers, f"labels must be from 0 to {n_outputs - 1} ({why}).")
            return
        if Y.shape[1] != n_outputs:
            raise InputError(f"Y has probabilities of {Y.shape[1]} classes, but there are {n_outputs}.")
        refuse_rows(Y < 0, Y, numbers, "probabilities must not be negative.")
        sums = Y.sum(1)
        wrong = (sums - 1).abs() > _SUM_TOLERANCE
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise InputError(
                f"the probabilities in row {int(numbers[row])} of Y sum to {float(sums[row]):.6g}; they must sum to 1."
            )

    @override
    def counts(self, T: Tensor, n_outputs: int) -> Tensor:
        if not self.labels:
            return T.new_ones(T.shape[0])
        factors = class_factors(self.weight, T)
        counted = (T[:, 0] != self.ignore).to(T.dtype)
        return counted if factors is None else counted * factors[self._labels(T)]

    @override
    def ignored(self, T: Tensor) -> Tensor | None:
        if not self.labels:
            return None
        marks = T[:, 0] == self.ignore
        if self.weight is not None and not self.smoothing:
            # Labels that are out of range are refused by :meth:`check`.
            for label in (self.weight == 0).nonzero().squeeze(1).tolist():
                marks = marks | (T[:, 0] == label)
        return marks if bool(marks.any()) else None

    def _labels(self, T: Tensor) -> Tensor:
        """Return the labels, those that are ignored as 0."""
        labels = T[:, 0].to(torch.int64)
        return labels.masked_fill(labels == self.ignore, 0)

    def _shares(self, Z: Tensor, T: Tensor) -> Tensor:
        """Return ``v q``: zero in rows that do not count."""
        if self.labels:
            shares = Z.new_full(Z.shape, self.smoothing / Z.shape[1])
            shares.scatter_add_(1, self._labels(T).unsqueeze(1), Z.new_full((Z.shape[0], 1), 1 - self.smoothing))
            ignored = T[:, 0] == self.ignore
            if bool(ignored.any()):
                shares.masked_fill_(ignored.unsqueeze(1), 0)
        else:
            shares = T.to(Z.dtype) * (1 - self.smoothing) + self.smoothing / Z.shape[1]
        factors = class_factors(self.weight, Z)
        return shares if factors is None else shares * factors

    @override
    def values(self, Z: Tensor, T: Tensor) -> Tensor:
        return self._weighted(*_softmax(Z), T)[0]

    @override
    def slopes(self, Z: Tensor, T: Tensor) -> Tensor:
        return self.evaluate(Z, T)[1]

    @override
    def curvatures(self, Z: Tensor, T: Tensor) -> Tensor:
        logs, p = _softmax(Z)
        return self._weighted(logs, p, T)[1]

    def _weighted(self, logs: Tensor, p: Tensor, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses, curvatures (p is overwritten) and where the largest share of each row is, ``(rows, 1)``."""
        if self.labels and not self.smoothing:
            own = self._labels(T).unsqueeze(1)
            values, factors = -logs.gather(1, own), class_factors(self.weight, p)
            mass = None if factors is None else factors[own]
            ignored = T[:, :1] == self.ignore
            if bool(ignored.any()):
                mass = (torch.ones_like(values) if mass is None else mass).masked_fill(ignored, 0)
            if mass is not None:
                values, p = values.mul_(mass), p.mul_(mass)
            return values[:, 0], p, own
        shares = self._shares(p, T)
        # Each term is a positive number times log(1 / p).
        return -(shares * logs).sum(1), p.mul_(shares.sum(1, keepdim=True)), shares.argmax(1, keepdim=True)

    @override
    def evaluate(self, Z: Tensor, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logs, p = _softmax(Z)
        values, curvatures, own = self._weighted(logs, p, T)
        slopes = curvatures.clone() if self.labels and not self.smoothing else curvatures - self._shares(Z, T)
        # Slopes sum to zero: where a class is nearly certain its own is what the others leave, without cancellation.
        slopes.scatter_(1, own, 0.0)
        return values, slopes.scatter_(1, own, -slopes.sum(1, keepdim=True)), curvatures

    @override
    def product(self, C: Tensor, S: Tensor) -> Tensor:
        mass = C.sum(1, keepdim=True).clamp_min_(torch.finfo(C.dtype).tiny)
        if C.dtype != torch.float64:
            part = C * S
            return part.sub_(C * (part.sum(1, keepdim=True) / mass))
        # Against the class that is nearly certain, whose own share is what the others leave.
        own = C.argmax(1, keepdim=True)
        part = C * (S - S.gather(1, own))
        part.sub_(C * (part.sum(1, keepdim=True) / mass)).scatter_(1, own, 0.0)
        return part.scatter_(1, own, -part.sum(1, keepdim=True))

    @override
    def thinned(self, C: Tensor) -> Tensor:
        own = C.argmax(1, keepdim=True)
        others = C.scatter(1, own, 0.0).sum(1, keepdim=True)
        least = torch.minimum(_UNSEEN * C.gather(1, own), _UNSEEN_OTHERS * others)
        # Nor are those kept that float32 only holds with fewer bits, which slows arithmetic down a hundred times.
        return C.masked_fill(least.clamp_min_(torch.finfo(torch.float32).tiny) > C, 0.0)

    @override
    def diagonal(self, C: Tensor) -> Tensor:
        own = C.argmax(1, keepdim=True)
        others = C.scatter(1, own, 0.0).sum(1, keepdim=True)
        mass = (C.gather(1, own) + others).clamp_min_(torch.finfo(C.dtype).tiny)
        return C * (mass - C).scatter_(1, own, others) / mass

    @override
    def slope_changes(self, C: Tensor, changes: Tensor) -> Tensor:
        # p_j changes by p_j (dz_j - sum of p_k dz_k), at most 2 p_j (1 - p_j) times the largest dz.
        most = 2 * self.diagonal(C) * changes.amax(1, keepdim=True)
        # Slopes against shares, other than those against labels, are differences of nearly equal numbers.
        return most if self.labels and not self.smoothing else most + C

    @override
    def least_curvature(self, Z: Tensor, T: Tensor) -> Tensor:
        shrunk = torch.exp(torch.tensor(-self.radius, dtype=Z.dtype, device=Z.device))
        return self.curvatures(Z, T).amin(1, keepdim=True) * shrunk

    @override
    def least_curvatures(self, Z: Tensor, T: Tensor) -> Tensor:
        return self.curvatures(Z, T) * math.exp(-self.radius)

    @override
    def recession(self, S: Tensor, T: Tensor) -> Tensor:
        shares = self._shares(S, T)
        return (shares * (S.amax(1, keepdim=True) - S)).sum(1)

    @override
    def far_slopes(self, T: Tensor, n_outputs: int) -> tuple[Tensor, Tensor]:
        shares = self._shares(T.new_zeros(T.shape[0], n_outputs), T)
        return shares, shares.sum(1, keepdim=True) - shares

    @override
    def falls(self, S: Tensor, T: Tensor) -> Tensor:
        counted = self._shares(S, T).sum(1) > 0
        return counted & (S.amax(1) > S.amin(1))


def _softmax(Z: Tensor) -> tuple[Tensor, Tensor]:
    """Return logarithms of the probabilities, and these, with all their digits where one is nearly certain."""
    top, first = Z.max(1, keepdim=True)
    logs = Z - top
    p = logs.exp().scatter_(1, first, 0.0)
    others = p.sum(1, keepdim=True)
    p.scatter_(1, first, 1.0).div_(others + 1)
    return logs.sub_(others.log1p_()), p

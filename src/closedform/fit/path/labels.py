"""Class labels as targets: what is summed for each class, without a table of rows by classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import weighted_gram_
from closedform.fit.path.centring import Centring, product_rows
from closedform.rows import Block, OneHotRows, Rows, Scan, SumFold, classes_of, labelled, scan
from closedform.rows.block import Extent

__all__ = ["ByClass", "ClassWeights", "Coding", "LabelMoments", "label_scan"]


@final
@dataclass(frozen=True, eq=False)
class Coding:
    """What stands in the columns of labels: ``offsets + step`` in the column of the class, ``offsets`` elsewhere.

    Attributes:
        offsets: In the scale of the targets, less their means, ``(classes,)``.
        step: In the scale of the targets, ``(classes,)``.
    """

    offsets: Tensor
    step: Tensor

    @staticmethod
    def of(labels: OneHotRows, centring: Centring) -> Coding:
        """Return the coding of labels, centred."""
        offsets = labels.off * centring.y_scale
        if centring.target_mean is not None:
            offsets = offsets - centring.target_mean
        return Coding(offsets, (1 - labels.off) * centring.y_scale)

    def sums(self, classes: Tensor) -> Tensor:
        """Return sums of a quantity times the columns, from its sums over each class, ``(..., classes)``."""
        return classes.sum(-1, keepdim=True) * self.offsets + classes * self.step

    def squares(self, weights: Tensor) -> Tensor:
        """Return weighted squares of the columns, from the weights of the rows of each class, ``(..., classes)``."""
        others = weights.sum(-1, keepdim=True) - weights
        return others * self.offsets.square() + weights * (self.offsets + self.step).square()


def label_scan(rows: Rows, labels: OneHotRows) -> Scan:
    """Return what :func:`closedform.rows.scan` does, without the columns of classes.

    Args:
        rows: The rows, whose targets are the columns of classes.
        labels: These columns.

    Raises:
        InputError: as it does.
        NonFiniteError: likewise.
    """
    plain = labelled(rows, labels)
    scanned = scan(plain)
    weights = plain.walk(ClassWeights(labels.shape[1], rows.device)).weights
    squares = labels.off**2 * (scanned.weight_sum - weights) + weights
    means = (labels.off * (scanned.weight_sum - weights) + weights) / scanned.weight_sum
    return replace(scanned, target_norms=squares.clamp(min=0.0).sqrt(), target_means=means)


@final
class ByClass:
    """Sums over the rows of each class.

    Args:
        classes: Labels, ``(rows,)`` int64.
        count: Classes.
    """

    def __init__(self, classes: Tensor, count: int) -> None:
        self._classes, self._count = classes, count
        self._order = classes.argsort(stable=True)
        self._ends = torch.bincount(classes, minlength=count).cumsum(0)

    def sums(self, rows: Tensor, factor: Tensor) -> Tensor:
        """Return the sums of rows times a factor, ``(classes, columns)``."""
        if rows.device.type != "cpu":
            zeros = rows.new_zeros(self._count, rows.shape[1])
            return zeros.index_add_(0, self._classes, rows * factor.unsqueeze(1))
        # A sparse product is many times faster than adding row by row.
        from scipy.sparse import csr_array

        starts = torch.cat([self._ends.new_zeros(1), self._ends])
        parts = (factor[self._order].numpy(), self._order.numpy(), starts.numpy())
        matrix = csr_array(parts, shape=(self._count, rows.shape[0]))
        return torch.from_numpy(matrix @ rows.numpy())


@final
class ClassWeights(SumFold):
    """The weight of each class.

    Args:
        classes: How many there are.
        device: Where the sums are kept.
    """

    label = "factoring"

    def __init__(self, classes: int, device: torch.device) -> None:
        self.weights = torch.zeros(classes, dtype=torch.float64, device=device)

    @override
    def add(self, block: Block) -> None:
        weight = self.weights.new_ones(block.X.shape[0]) if block.weight is None else block.weight
        self.weights.index_add_(0, classes_of(block), weight)

    @override
    def fresh(self) -> Self:
        return type(self)(self.weights.shape[0], self.weights.device)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.weights,)


@final
class LabelMoments(SumFold):
    """``A'A`` of centred features, upper triangle, and for each class the sum and the weight of its rows.

    Args:
        centring: How rows are centred.
        n_features: Columns of X.
        classes: How many there are.
    """

    label = "factoring"

    def __init__(self, centring: Centring, n_features: int, classes: int) -> None:
        self._arguments = (centring, n_features, classes)
        self.gram = centring.y_scale.new_zeros(n_features, n_features)
        self.classes = centring.y_scale.new_zeros(classes, n_features)
        self.weights = centring.y_scale.new_zeros(classes)

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return product_rows(extent)

    @override
    def add(self, block: Block) -> None:
        A, root = self._arguments[0].features(block)
        weighted_gram_(self.gram, A, None)
        ones = self.weights.new_ones(A.shape[0])
        weight = ones if block.weight is None else block.weight
        self.classes += ByClass(classes_of(block), self.classes.shape[0]).sums(A, ones if root is None else root)
        self.weights.index_add_(0, classes_of(block), weight)

    @override
    def fresh(self) -> Self:
        return type(self)(*self._arguments)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self.gram, self.classes, self.weights

"""The sums that a residual pass adds to."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.numerics.host import Vector, as_vector

__all__ = [
    "FewCurvatures",
    "ImageSums",
    "LossTotals",
    "PassSums",
    "RowLengths",
    "image_sums",
    "loss_totals",
    "pass_sums",
]

#: Part of the curvatures up to which they are few: products with all of them cost as much as with a quarter.
_FEW = 0.25


@dataclass(frozen=True, eq=False)
class _VectorSums(ABC):
    """Sums over rows, all float64, for q vectors: X'T, 1'T and the squares of T first.

    Attributes:
        flat: All of them, one after the other; the others are views of it.
        n_features: Columns of X.
        vectors: How many vectors there are, q.
    """

    flat: Tensor
    n_features: int
    vectors: int

    @property
    def features(self) -> Tensor:
        """``X'T``, ``(features, q)``."""
        return self.flat.as_strided((self.n_features, self.vectors), (1, self.n_features))

    @property
    def ones(self) -> Tensor:
        """``1'T``, ``(q,)``."""
        start = self.vectors * self.n_features
        return self.flat[start : start + self.vectors]

    @property
    def squares(self) -> Tensor:
        """Sums of the squares of T, ``(q,)``."""
        start = self.vectors * (self.n_features + 1)
        return self.flat[start : start + self.vectors]


@final
@dataclass(frozen=True, eq=False)
class PassSums(_VectorSums):
    """Sums that a residual pass adds to, for q vectors with residuals T.

    Attributes:
        groups: Ranges of targets whose products are wanted.
    """

    groups: tuple[range, ...]

    @property
    def totals(self) -> Vector:
        """``1'T`` and the sums of the squares, on the host, ``(2, q)``."""
        start = self.vectors * self.n_features
        return as_vector(self.flat[start : start + 2 * self.vectors]).reshape(2, self.vectors)

    @property
    def grams(self) -> tuple[Tensor, ...]:
        """Products ``T'T`` of the groups of columns of T."""
        if not self.groups:
            return ()
        sizes = [len(group) for group in self.groups]
        parts = torch.split(self.flat[self.vectors * (self.n_features + 2) :], [size**2 for size in sizes])
        return tuple(part.view(size, size) for part, size in zip(parts, sizes, strict=True))


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
    size = vectors * (n_features + 2) + sum(len(group) ** 2 for group in groups)
    return PassSums(torch.zeros(size, dtype=torch.float64, device=device), n_features, vectors, groups)


@final
@dataclass(frozen=True, eq=False)
class ImageSums(_VectorSums):
    """Sums that a pass over images T of q vectors adds to.

    Attributes:
        n_targets: Columns of Y.
    """

    n_targets: int

    @property
    def targets(self) -> Tensor:
        """``Y'T``, ``(targets, q)``."""
        return self.flat[self.vectors * (self.n_features + 2) :].view(self.vectors, self.n_targets).T


def image_sums(n_features: int, n_targets: int, vectors: int, device: torch.device) -> ImageSums:
    """Return sums of zero.

    Args:
        n_features: Columns of X.
        n_targets: Columns of Y.
        vectors: How many vectors there are, q.
        device: Where the sums stand.

    Example:
        >>> import torch
        >>> image_sums(3, 2, 1, torch.device("cpu")).targets
        tensor([[0.],
                [0.]], dtype=torch.float64)
    """
    size = vectors * (n_features + 2 + n_targets)
    return ImageSums(torch.zeros(size, dtype=torch.float64, device=device), n_features, vectors, n_targets)


@final
@dataclass(frozen=True, eq=False)
class LossTotals:
    """Sums over rows of a criterion of one output, with slopes S, all float64.

    Attributes:
        flat: All of them, one after the other: ``X'S``, and the four others.
        peak: The largest squared length of a row of positive weight, where lengths are asked for, ``(1,)``.
    """

    flat: Tensor
    peak: Tensor

    @property
    def features(self) -> Tensor:
        """``X'S``, ``(features,)``."""
        return self.flat[:-4]

    @property
    def ones(self) -> Tensor:
        """``1'S``, ``(1,)``."""
        return self.flat[-4:-3]

    @property
    def losses(self) -> Tensor:
        """The losses and their sizes, ``(2,)``."""
        return self.flat[-3:-1]

    @property
    def errors(self) -> Tensor:
        """Squares of bounds on what slopes are off by, where lengths are asked for, ``(1,)``."""
        return self.flat[-1:]


def loss_totals(n_features: int, device: torch.device) -> LossTotals:
    """Return totals of zero.

    Args:
        n_features: Columns of X.
        device: Where they stand.

    Example:
        >>> import torch
        >>> loss_totals(2, torch.device("cpu")).losses
        tensor([0., 0.], dtype=torch.float64)
    """
    flat = torch.zeros(n_features + 4, dtype=torch.float64, device=device)
    return LossTotals(flat, flat.new_zeros(1))


@final
@dataclass(frozen=True, eq=False)
class RowLengths:
    """How long rows are, and by how much their slopes may be off.

    Attributes:
        squares: How often the square of each feature counts in the squared length, ``(features,)``, float64.
        own: What is added to that.
        reach: A slope may be off by its curvature times the length, times this,
        few: and by itself times this.
    """

    squares: Tensor
    own: float
    reach: float
    few: float


@final
@dataclass(frozen=True, eq=False)
class FewCurvatures:
    """The curvatures of some rows that are not zero, row after row.

    Attributes:
        starts: Where those of each row start, and the last ones end, ``(rows + 1,)``, int64.
        outputs: Whose they are, int32.
        values: The curvatures, float32.
    """

    starts: Tensor
    outputs: Tensor
    values: Tensor

    @staticmethod
    def of(C: Tensor) -> FewCurvatures | None:
        """Return those that are not zero, or None where they are not few.

        Args:
            C: Curvatures, ``(rows, outputs)``, float32, contiguous.

        Example:
            >>> import torch
            >>> C = torch.zeros(2, 8)
            >>> C[0, 3], C[1, 5] = 0.5, 0.25
            >>> few = FewCurvatures.of(C)
            >>> few.starts.tolist(), few.outputs.tolist(), few.values.tolist()
            ([0, 1, 2], [3, 5], [0.5, 0.25])
        """
        rows, outputs = C.shape
        if int(C.count_nonzero()) > _FEW * C.numel():
            return None
        flat = C.reshape(-1)
        places = flat.nonzero().squeeze(1)
        firsts = torch.arange(rows + 1, device=C.device) * outputs
        return FewCurvatures(torch.searchsorted(places, firsts), (places % outputs).to(torch.int32), flat[places])

    def rows(self, start: int, count: int) -> FewCurvatures:
        """Return those of some rows.

        Args:
            start: The first row.
            count: How many.
        """
        return FewCurvatures(self.starts[start : start + count + 1], self.outputs, self.values)

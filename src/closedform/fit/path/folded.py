"""Rows that were folded and are gone: what a path needs of them is in their triangles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from closedform.fit.accumulator import Accumulator
from closedform.fit.path.basis import Basis
from closedform.fit.path.tall import basis_of_triangle
from closedform.numerics.scaling import power_of_two_exponents
from closedform.numerics.triangle import Triangle
from closedform.words.errors import InputError

__all__ = ["FoldedTable", "accumulators_in", "merged"]


@final
class FoldedTable:
    """Triangles of rows, one for each fold, or one of all.

    Args:
        parts: The triangles, of the same columns.
    """

    def __init__(self, parts: Sequence[Triangle]) -> None:
        self.parts = tuple(parts)

    @cached_property
    def whole(self) -> Triangle:
        """The triangle of all rows."""
        whole = self.parts[0]
        for part in self.parts[1:]:
            whole = whole.merge(part)
        return whole

    @property
    def device(self) -> torch.device:
        """Where the triangles are."""
        return self.whole.R.device

    @property
    def positive_rows(self) -> int:
        """Rows of positive weight."""
        return self.whole.rows

    @cached_property
    def exponent(self) -> int:
        """The power of two that X is divided by."""
        lengths = power_of_two_exponents(torch.linalg.vector_norm(self.whole.R, dim=0)) + self.whole.exponents
        return int(lengths[int(self.whole.has_ones) :].max())

    @cached_property
    def _basis(self) -> Basis:
        return basis_of_triangle(self.whole, self.exponent)

    def basis(self, least: float | None) -> Basis:
        """Return the basis, which is exact enough for all strengths; ``least`` does not matter."""
        del least
        return self._basis

    def fold_triangles(self, folds: Tensor, *, by_number: bool) -> list[Triangle]:
        """Return the triangle of each fold, each of an accumulator."""
        del folds, by_number
        return list(self.parts)


def accumulators_in(X: Any) -> tuple[Accumulator, ...] | None:
    """Return the accumulators that were passed in place of rows, one or a list; None where rows were.

    Raises:
        InputError: accumulators among other things, or of other columns than the first.
    """
    if isinstance(X, Accumulator):
        return (X,)
    if not isinstance(X, list | tuple) or not any(isinstance(part, Accumulator) for part in X):
        return None
    for place, part in enumerate(X):
        if not isinstance(part, Accumulator):
            raise InputError(f"place {place} of the list holds a {type(part).__name__}, others an Accumulator.")
        sizes = [(one.n_features, one.n_targets, one.bias) for one in (X[0], part)]
        if sizes[0] != sizes[1]:
            raise InputError(f"the accumulator at place {place} is {part}, the first is {X[0]}: their columns differ.")
    return tuple(X)


def merged(parts: Sequence[Accumulator]) -> Accumulator:
    """Return one accumulator of the rows of all; they are left as they are."""
    first = parts[0]
    device = first.triangle.R.device
    whole = Accumulator(first.n_features, first.n_targets, bias=first.bias, device=device)
    for part in parts:
        whole.merge(part)
    return whole

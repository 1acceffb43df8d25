"""Rows that arrived since the layer last moved, on one process or on several that train together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.numerics.triangle import Triangle
from closedform.rows.fold import Mergeable
from closedform.words.errors import ClosedformError

__all__ = ["Arrived", "Waiting", "combined"]

#: Marks are kept to so many bits.
_MARK_BITS = 63


@final
class Arrived(Mergeable):
    """Rows times the roots of their weights: as they came while they are no more than the columns, then a triangle.

    What is sent between processes is so never more than a triangle, however many rows a step has.

    Args:
        A: Design rows, ``(rows, columns)``.
        B: Their targets, ``(rows, targets)``.

    Attributes:
        A: Rows, or R of their triangle, ``(r, columns)``.
        B: Targets, or those of the triangle, ``(r, targets)``.
        squares: What no weights can explain of the targets, beyond A and B, ``(targets,)``.
        rows: How many rows there were.
    """

    def __init__(self, A: Tensor, B: Tensor) -> None:
        self.A, self.B = A, B
        self.squares, self.rows = B.new_zeros(B.shape[1]), A.shape[0]
        self._room = 0

    def compressed(self) -> Arrived:
        """Return the same rows as a triangle, where they are more than the columns."""
        columns, targets = self.A.shape[1], self.B.shape[1]
        if self.A.shape[0] <= columns:
            return self
        empty = Triangle.empty(columns, targets, dtype=self.A.dtype, device=self.A.device)
        triangle = empty.fold(self.A, self.B)
        return self._like(triangle.R, triangle.C, self.squares + triangle.residual_squares, self.rows)

    def discounted(self, factor: float) -> Arrived:
        """Return the rows with their weights multiplied by ``factor``."""
        root = factor**0.5
        return self._like(root * self.A, root * self.B, factor * self.squares, self.rows)

    def joined(self, other: Arrived) -> Arrived:
        """Return these rows and others after them."""
        A, B = torch.cat([self.A, other.A]), torch.cat([self.B, other.B])
        return self._like(A, B, self.squares + other.squares, self.rows + other.rows).compressed()

    def to(self, device: torch.device | str) -> Arrived:
        """Return the same rows on a device."""
        return self._like(self.A.to(device), self.B.to(device), self.squares.to(device), self.rows)

    def with_room(self, rows: int) -> Arrived:
        """Return the same with a state of so many rows."""
        made = self._like(self.A, self.B, self.squares, self.rows)
        made._room = rows
        return made

    def _like(self, A: Tensor, B: Tensor, squares: Tensor, rows: int) -> Arrived:
        made = Arrived(A, B)
        made.squares, made.rows, made._room = squares, rows, self._room
        return made

    @override
    def merge(self, other: Self) -> None:
        both = self.joined(other)
        self.A, self.B, self.squares, self.rows = both.A, both.B, both.squares, both.rows

    @override
    def fresh(self) -> Self:
        made = type(self)(self.A[:0], self.B[:0])
        made._room = self._room
        return made

    @override
    def state(self) -> tuple[Tensor, ...]:
        (used, columns), targets = self.A.shape, self.B.shape[1]
        A, B = self.A.new_zeros(self._room, columns), self.B.new_zeros(self._room, targets)
        A[:used], B[:used] = self.A, self.B
        return A, B, self.squares, torch.tensor([used, self.rows], device="cpu")

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        A, B, self.squares, counts = state
        used, self.rows = counts.tolist()
        self.A, self.B = A[:used], B[:used]


@final
@dataclass(frozen=True, eq=False)
class Waiting:
    """What one process has seen since the layer last moved.

    Attributes:
        arrived: The rows.
        target_weight: The shares of the targets in their weights, ``(targets,)``; None where no row counts.
        exact: Whether the targets are the user's own.
        faded: By what the weight of all earlier rows is multiplied.
        steps: How many steps there were.
        mark: By what the rows are known when they come again.
        failure: What was wrong in one of the steps.
    """

    arrived: Arrived
    target_weight: Tensor | None
    exact: bool
    faded: float
    steps: int
    mark: int
    failure: ClosedformError | None = None

    def then(self, later: Waiting) -> Waiting:
        """Return what both have seen, one after the other."""
        return Waiting(
            self.arrived.discounted(later.faded).joined(later.arrived),
            later.target_weight if self.target_weight is None else self.target_weight,
            self.exact and later.exact,
            self.faded * later.faded,
            self.steps + later.steps,
            combined([self.mark, later.mark]),
        )


def combined(marks: Sequence[int]) -> int:
    """Return one mark for rows that have one for each part; it is never 0.

    Example:
        >>> combined([5]), combined([5, 7]), combined([7, 5])
        (5, 26, 22)
    """
    total = sum((2 * place + 1) * mark for place, mark in enumerate(marks)) % (1 << _MARK_BITS)
    return total if len(marks) > 1 and total else marks[0] if len(marks) == 1 else 1

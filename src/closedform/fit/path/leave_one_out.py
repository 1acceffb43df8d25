r"""Leave-one-out residuals of every strength in one pass, exact, without a refit.

A ridge fit is linear in the targets, so the residual of a row that was left out is ``r / (1 - h)`` with the residual
and the leverage of the row when it was in (Allen 1974; Golub, Heath and Wahba 1979; with the bias and the weights of
rows in both). In the coordinates of a :class:`Basis` both are short sums for every strength:
``1 - h = c + sum_j u_j^2 g_j`` and ``r = y - sum_j u_j b_j (1 - g_j)``, with ``g = strength / (s^2 + strength)`` and c
what no direction explains of the row. Where c is zero, the row is interpolated as the strength goes to zero; what
remains of the quotient is then ``sum_j u_j b_j f_j / sum_j u_j^2 f_j`` with ``f = 1 / (s^2 + strength)``, the limit
included (Rifkin and Lippert 2007).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.memory import keep_freed_memory
from closedform.fit.path.basis import Basis
from closedform.fit.path.centring import Centring, block_rows
from closedform.rows import Block, Fold
from closedform.rows.block import Extent

__all__ = ["ErrorSums", "LeftOut", "LeftOutErrors", "left_out_of"]

_EPS = sys.float_info.epsilon
#: Bytes of the residuals of a block that are held at a time.
_CHUNK_BYTES = 8 * 2**20
#: What a row has left over, in units of the rounding of its coordinates, at or below which it is interpolated.
_INTERPOLATED = 64.0
#: Digits that cancel in the usual quotient before the other one takes over.
_CANCELLED = 1e3
#: Relative size below which singular values of the strengths' functions carry nothing.
_NEGLIGIBLE = 1e-15
#: Fewer functions than this part of the strengths are worth going through them.
_WORTH = 0.6
#: What is left of a row, in units of the rounding of its coordinates, below which its digits are found another way.
_DOUBTFUL = 1e12
#: More than this is always enough of a row, so that few are put apart: leverages add up to the rank.
_ENOUGH = 0.5
#: What is left of a row's coordinates above which a fit to all others would bring back next to nothing.
_WORTH_A_FIT = 0.01
#: Rows above the most that can have so little left, which rounding may add.
_SPARE = 8
#: Interpolated rows that are named at most.
_NAMED = 8


#: Rows as they come.
_ALL = slice(None)


@final
class LeftOut:
    """Leave-one-out residuals for blocks of rows in the coordinates of a basis.

    Args:
        basis: The basis.
        strengths: In the user's units, ``(strengths,)``.
    """

    def __init__(self, basis: Basis, strengths: Tensor) -> None:
        self.basis, self.strengths = basis, strengths
        self._inverses = basis.inverses(strengths)
        self._kept = basis.squares.unsqueeze(1) * self._inverses
        # Not the strength times its inverse: beside tiny rows a strength is beyond the range.
        self._given = 1 / (1 + basis.squares.unsqueeze(1) / basis.scaled(strengths))
        self._smallest = int(strengths.argmin())
        self._tolerance = _INTERPOLATED * max(basis.error, _EPS)
        #: Of a complement the coordinates themselves are known to rounding, not their squares.
        self._least = self._tolerance if basis.leftovers is None else self._tolerance**2
        self._functions, self._expansion = _compressed(self._kept)

    def leftovers(self, U: Tensor, share: Tensor | float, part: slice = _ALL) -> Tensor:
        """Return what no direction explains of each row, ``(rows,)``.

        Args:
            U: Coordinates of the rows, ``(rows, rank)``.
            share: What the mean explains.
            part: Which rows of the basis they are, where it has them.
        """
        if self.basis.leftovers is not None:
            found = self.basis.leftovers[part]
            return torch.where(found <= self._least, 0.0, found)
        if self.basis.interpolates:
            return U.new_zeros(U.shape[0])
        left = 1 - torch.linalg.vector_norm(U, dim=1).square_() - share
        return torch.where(left <= self._tolerance, left.clamp(min=0.0), left)

    def interpolated(self, leftovers: Tensor) -> Tensor:
        """Return which rows are met exactly by a fit without a ridge, ``(rows,)``."""
        return leftovers <= self._least

    def doubtful(self, U: Tensor, leftovers: Tensor) -> Tensor | None:
        """Return of which rows so little is left that rounding shows in it, ``(rows,)``; None for none."""
        if self.basis.U is not None:
            return None
        remaining = leftovers + U.square() @ self._given[:, self._smallest]
        found = remaining < min(_ENOUGH, _DOUBTFUL * max(self.basis.error, _EPS))
        return found if bool(found.any()) else None

    def worth_a_fit(self, U: Tensor, leftovers: Tensor) -> Tensor:
        """Return the rows that so little is left of that a fit to all others knows more digits, the least first, int64.

        Of a row that is interpolated the limit of the quotient has lost digits where its coordinates are small in all
        directions that the strength leaves: where it alone makes directions far longer than the others'.

        Args:
            U: Coordinates of the rows, ``(rows, rank)``.
            leftovers: What :meth:`leftovers` returned for them.
        """
        if not self.basis.rank:
            return torch.zeros(0, dtype=torch.int64, device=U.device)
        squares, inverses = U.square(), self._inverses[:, self._smallest]
        left = leftovers + squares @ self._given[:, self._smallest]
        left = torch.where(self.interpolated(leftovers), squares @ (inverses / inverses.max()), left)
        order = left.argsort()
        return order[left[order] < min(_WORTH_A_FIT, _DOUBTFUL * self.basis.error) ** 2]

    def remaining(self, squares: Tensor, leftovers: Tensor) -> Tensor:
        """Return ``1 - h``, ``(strengths, rows)``.

        Args:
            squares: Squares of the coordinates of the rows, ``(rows, rank)``.
            leftovers: What no direction explains of them, ``(rows,)``.
        """
        return self._given.T @ squares.T + leftovers

    def precisions(self, U: Tensor, leftovers: Tensor) -> Tensor:
        """Return how sharply the other rows predict each row, up to a factor for each strength, ``(strengths, rows)``.

        Args:
            U: Coordinates of the rows, ``(rows, rank)``.
            leftovers: What :meth:`leftovers` returned for them.
        """
        if self.basis.interpolates:
            return self._inverses.T @ U.square().T
        return self.remaining(U.square(), leftovers)

    def residuals(self, U: Tensor, B: Tensor, leftovers: Tensor, rows: slice = _ALL) -> Iterator[tuple[slice, Tensor]]:
        """Yield leave-one-out residuals of some targets at a time, ``(those targets, strengths, rows)``, weighted.

        Args:
            U: Coordinates of the rows, ``(rows, rank)``.
            B: Their centred and weighted targets, ``(rows, targets)``.
            leftovers: What :meth:`leftovers` returned for them.
            rows: Which rows of the basis they are, where it has them.
        """
        rest = None if self.basis.rest is None else self.basis.rest[rows].masked_fill((leftovers == 0).unsqueeze(1), 0)
        squares = U.square()
        remaining = self.remaining(squares, leftovers)
        exact, doubtful = self.interpolated(leftovers), None
        if bool(exact.any()):
            chosen = exact.nonzero().squeeze(1)
            share = self._inverses.T @ squares[chosen].T
            # Where the strength alone leaves enough of the row, the usual quotient is as good or better.
            limit = remaining[:, chosen] <= _CANCELLED * self._tolerance
            limit |= (leftovers[chosen] <= _INTERPOLATED * _EPS) | (rest is not None)
            doubtful = (chosen, share, limit)
        inverse = 1 / remaining

        size = max(1, _CHUNK_BYTES // (8 * U.shape[0] * max(1, self.strengths.shape[0])))
        for start in range(0, self.basis.targets, size):
            part = slice(start, min(start + size, self.basis.targets))
            E = self._usual(U, B[:, part], part) if rest is None else self._summed(U, rest[:, part], part)
            E *= inverse
            if doubtful is not None:
                chosen, share, limit = doubtful
                D = self.basis.coordinates[:, part].T.unsqueeze(2) * self._inverses
                other = torch.einsum("knl,rn->klr", D, U[chosen]) / share
                E[:, :, chosen] = torch.where(limit, other, E[:, :, chosen])
            yield part, E

    def _summed(self, U: Tensor, rest: Tensor, part: slice) -> Tensor:
        """Return residuals of rows that are in, ``(targets, strengths, rows)``, from what no weights explain."""
        D = self.basis.coordinates[:, part].T.unsqueeze(2) * self._given
        P = (D.transpose(1, 2).flatten(0, 1) @ U.T).view(rest.shape[1], -1, U.shape[0])
        return P.add_(rest.T.unsqueeze(1))

    def _usual(self, U: Tensor, B: Tensor, part: slice) -> Tensor:
        """Return residuals of rows that are in, ``(targets, strengths, rows)``."""
        coordinates = self.basis.coordinates[:, part].T
        if self._expansion is None:
            D = (coordinates.unsqueeze(2) * self._kept).transpose(1, 2).flatten(0, 1)
            P = (D @ U.T).view(B.shape[1], -1, U.shape[0])
        else:
            D = (coordinates.unsqueeze(2) * self._functions).transpose(1, 2).flatten(0, 1)
            P = torch.matmul(self._expansion, (D @ U.T).view(B.shape[1], -1, U.shape[0]))
        return torch.sub(B.T.unsqueeze(1), P, out=P)


def _compressed(kept: Tensor) -> tuple[Tensor, Tensor | None]:
    """Write the shrinkage of all strengths as combinations of few functions of the spectrum, to rounding.

    Return the functions, ``(rank, functions)``, and their part in each strength, ``(strengths, functions)``; None where
    there are about as many functions as strengths.
    """
    if min(kept.shape) < 2:
        return kept, None
    left, values, right = torch.linalg.svd(kept, full_matrices=False)
    count = int((values > _NEGLIGIBLE * values[0]).sum())
    if count > _WORTH * kept.shape[1]:
        return kept, None
    return left[:, :count] * values[:count], right[:count].T.contiguous()


@final
@dataclass(frozen=True, eq=False)
class LeftOutErrors:
    """What the leave-one-out residuals sum up to, in the units of the targets.

    Attributes:
        errors: Weighted mean of the squared or absolute residuals, ``(strengths, targets)``.
        standard_errors: Standard errors of those means, ``(strengths, targets)``.
        interpolated: Number of rows with leverage 1.
        named: The first of them.
        density: Where it was asked for: the mean squared residual with each row's weighed by the variance it is
            predicted with, over their geometric mean, ``(strengths, targets)``; least where the predictive density is
            largest.
    """

    errors: Tensor
    standard_errors: Tensor
    interpolated: int
    named: tuple[int, ...]
    density: Tensor | None = None


@final
class ErrorSums(Fold):
    """Sums of leave-one-out residuals of all strengths and targets; of fixed size, whatever the rows.

    Args:
        left_out: What makes the residuals.
        centring: How rows are brought to the coordinates of its basis; None where they are given in them.
        absolute: Whether absolute residuals are summed, not squares.
        density: Whether their predictive density is summed as well.
    """

    label = "leaving rows out"

    def __init__(self, left_out: LeftOut, centring: Centring | None, *, absolute: bool, density: bool = False) -> None:
        keep_freed_memory()
        self._left_out, self._centring, self._absolute, self._density = left_out, centring, absolute, density
        basis, count = left_out.basis, left_out.strengths.shape[0]
        self._sums = basis.squares.new_zeros(3, basis.targets, count)
        self._precise, self._logarithms = torch.zeros_like(self._sums[0]), basis.squares.new_zeros(count)
        self._weights = basis.squares.new_zeros(1)
        self._interpolated, self._named = 0, [-1] * _NAMED
        # Leverages of a half and more are of no more rows than twice the rank, and a few by rounding.
        self._doubtful = torch.full((2 * (basis.rank + 1) + _SPARE,), -1, dtype=torch.int64, device="cpu")

    @property
    def doubtful(self) -> Tensor:
        """Numbers of the rows that were left out of all sums, since rounding shows in what is left of them, int64."""
        return self._doubtful[self._doubtful >= 0]

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return block_rows(extent)

    @override
    def add(self, block: Block) -> None:
        assert self._centring is not None
        basis = self._left_out.basis
        assert basis.map is not None
        A, root = self._centring.features(block)
        self.add_rows(A @ basis.map, self._centring.targets(block, root), block.weight, block.before + block.start)

    def add_rows(
        self,
        U: Tensor,
        B: Tensor,
        weight: Tensor | None,
        start: int,
        numbers: Tensor | None = None,
        among: slice = _ALL,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Add rows in the coordinates of the basis, weighted.

        Args:
            U: ``(rows, rank)``.
            B: ``(rows, targets)``.
            weight: ``(rows,)`` or None.
            start: Number of the first row in the table.
            numbers: Where the rows stand after that one, ``(rows,)``; None where they follow each other.
            among: Which rows of the basis they are, where it has them.
            known: Some of them, ``(some,)`` int64, and their residuals, ``(targets, strengths, some)``, weighted.
        """
        basis, left_out = self._left_out.basis, self._left_out
        ones = U.new_ones(U.shape[0])
        share = (ones if weight is None else weight) / basis.weight_sum if basis.bias else 0.0
        leftovers = left_out.leftovers(U, share, among)
        doubtful = left_out.doubtful(U, leftovers)
        if doubtful is not None and self._put_apart(doubtful, start, numbers):
            left = (~doubtful).nonzero().squeeze(1)
            weight = None if weight is None else weight[left]
            numbers = left if numbers is None else numbers[left]
            U, B, leftovers, ones = U[left], B[left], leftovers[left], ones[left]
        rows = (left_out.interpolated(leftovers) & (True if weight is None else weight > 0)).nonzero().squeeze(1)
        self._note((rows if numbers is None else numbers[rows]) + start)

        precisions = left_out.precisions(U, leftovers) if self._density else None
        if precisions is not None:
            self._logarithms += precisions.log().sum(1)

        for part, E in left_out.residuals(U, B, leftovers, among):
            if known is not None:
                E[:, :, known[0]] = known[1][part]
            if precisions is not None:
                self._precise[part] += torch.einsum("klr,klr,lr->kl", E, E, precisions)
            self._sum(part, E, weight)
        self._weights += (ones if weight is None else weight.square()).sum()

    def add_residuals(self, E: Tensor, weight: Tensor | None, interpolated: Tensor) -> None:
        """Add rows whose residuals are known.

        Args:
            E: Leave-one-out residuals, weighted, ``(targets, strengths, rows)``; they are overwritten.
            weight: ``(rows,)`` or None.
            interpolated: Numbers of those among them that are interpolated.
        """
        self._note(interpolated)
        self._weights += E.shape[2] if weight is None else weight.square().sum()
        self._sum(_ALL, E, weight)

    def _sum(self, part: slice, E: Tensor, weight: Tensor | None) -> None:
        """Sum residuals of some targets, ``(those targets, strengths, rows)``, which are overwritten."""
        losses, ones = self._losses(E, weight), E.new_ones(E.shape[2])
        self._sums[0, part] += losses @ ones
        self._sums[2, part] += losses @ (ones if weight is None else weight)
        self._sums[1, part] += losses.square_() @ ones

    def _put_apart(self, doubtful: Tensor, start: int, numbers: Tensor | None) -> bool:
        """Note rows that are not summed here; return whether there was room for them."""
        rows = doubtful.nonzero().squeeze(1) if numbers is None else numbers[doubtful]
        return self._keep(rows.cpu() + start)

    def _keep(self, rows: Tensor) -> bool:
        free = (self._doubtful < 0).nonzero().squeeze(1)[: rows.shape[0]]
        if free.shape[0] < rows.shape[0]:
            return False
        self._doubtful[free] = rows
        return True

    def _losses(self, E: Tensor, weight: Tensor | None) -> Tensor:
        """Turn weighted residuals into weighted losses."""
        if not self._absolute:
            return E.square_()
        E.abs_()
        return E if weight is None else E.mul_(weight.sqrt())

    def _note(self, rows: Tensor) -> None:
        room = max(0, _NAMED - self._interpolated)
        named = [int(row) for row in rows[:room]]
        self._named[self._interpolated : self._interpolated + len(named)] = named
        self._interpolated += rows.shape[0]

    def result(self) -> LeftOutErrors:
        """Return the errors in the units of the targets."""
        basis = self._left_out.basis
        total, count = basis.weight_sum, basis.rows
        first, second, cross = self._sums
        mean = first / total
        # Each row's loss is w e; about their mean w M they vary, and the mean's variance follows from the rows.
        spread = (second - 2 * mean * cross + mean.square() * self._weights).clamp(min=0.0)
        correction = count / (count - 1) if count > 1 else float("nan")
        deviation = (spread * correction).sqrt() / total
        scale = torch.ldexp(torch.ones_like(basis.residual_squares), basis.target_exponents).unsqueeze(1)
        factor = scale if self._absolute else scale.square()
        named = tuple(self._named[: min(self._interpolated, _NAMED)])
        density = None
        if self._density:
            density = self._precise / count * (-self._logarithms / count).exp() * scale.square()
            density = torch.where(torch.isnan(density), torch.inf, density).T
        return LeftOutErrors((mean * factor).T, (deviation * factor).T, self._interpolated, named, density)

    @override
    def merge(self, other: Self) -> None:
        self._sums += other._sums
        self._precise += other._precise
        self._logarithms += other._logarithms
        self._weights += other._weights
        room = max(0, _NAMED - self._interpolated)
        named = [row for row in other._named if row >= 0][:room]
        self._named[self._interpolated : self._interpolated + len(named)] = named
        self._interpolated += other._interpolated
        if not self._keep(other.doubtful):
            raise ArithmeticError("more rows have a leverage of a half than leverages can add up to")

    @override
    def fresh(self) -> Self:
        return type(self)(self._left_out, self._centring, absolute=self._absolute, density=self._density)

    @override
    def state(self) -> tuple[Tensor, ...]:
        rows = torch.tensor([self._interpolated, *self._named], dtype=torch.float64, device="cpu")
        return self._sums, self._precise, self._logarithms, self._weights, rows, self._doubtful

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        for mine, theirs in zip((self._sums, self._precise, self._logarithms, self._weights), state, strict=False):
            mine.copy_(theirs)
        self._interpolated, *self._named = (int(value) for value in state[4])
        self._doubtful.copy_(state[5])


def left_out_of(left_out: LeftOut, U: Tensor, B: Tensor, weight: Tensor | None) -> Tensor:
    """Return the leave-one-out residuals of rows, ``(strengths, rows, targets)``, in the units of the targets."""
    basis = left_out.basis
    share = (U.new_ones(U.shape[0]) if weight is None else weight) / basis.weight_sum if basis.bias else 0.0
    parts = [E.permute(1, 2, 0) for _, E in left_out.residuals(U, B, left_out.leftovers(U, share))]
    whole = basis.in_units(torch.cat(parts, 2))
    return whole if weight is None else whole / weight.sqrt().unsqueeze(1)

"""The gradient in sums of three doubles by the compiled pass, with a bound on all that is left out of it.

It costs little more than a pass in double precision; products of slices serve other devices, wide systems and what
lies beyond. The errors of this kind of dot product were studied by Ogita, Rump and Oishi (2005).
"""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine import compiled
from closedform.engine.choice import engine_for
from closedform.engine.compiled import depths
from closedform.fit.extended.arithmetic import SLACK, U
from closedform.fit.extended.fixed_point import MAX_SLICES, coefficients
from closedform.fit.problem import Problem
from closedform.numerics.expansion import accumulate_, renormalise, two_sum
from closedform.numerics.slices import carry_, convolve, levels_for, limbs, scaled
from closedform.rows import Block, Fold
from closedform.rows.block import Extent

__all__ = [
    "PASS_ROWS",
    "dot_additions",
    "expansion_errors",
    "gradient_in_expansions",
    "readable_rows",
    "sum_additions",
]

#: Rows that one call of a compiled pass takes here, so that sums stay short.
PASS_ROWS = 2**16
#: Sums of one call, so that those of all its parts do not fill the memory.
_ENTRIES = 2**17
#: More than products and scaling can lose to the ends of the range of doubles while scales stay within 2**300.
_UNDERFLOW = 2.0**-500
#: Additions that a dot product goes through beside those of its lanes: one for a lane that has a column more than
#: others, the target, the offset, and one to spare.
_MERGED = 4
#: Factors by which the first part of an expansion dwarfs it, and those below it.
_DWARFED = (1.0, 2.0**52, 2.0**104)


def readable_rows(X: Tensor) -> Tensor:
    """Return rows as the compiled pass reads them: as they are, or in float64."""
    return X if compiled.serves(X) else X.to(torch.float64).contiguous()


def dot_additions(columns: int) -> float:
    """Return how many additions to a first part a product of so many columns goes through in the compiled pass.

    Each lane of a register adds up its share of the columns, and then the lanes are added up.
    """
    lanes = depths().lanes
    return columns / lanes + lanes + _MERGED


def sum_additions(rows: int) -> int:
    """Return how many additions to a first part an entry of a gradient over so many rows goes through.

    A call takes :data:`PASS_ROWS` of them, or what is left. Rows are added to their group, groups to a part, parts to
    what the call adds up, and that to the sums of all calls.
    """
    split = depths()
    groups = -(-split.part_rows(PASS_ROWS) // split.expansion_group)
    return split.expansion_group + groups + split.parts + _calls(rows)


def _calls(rows: int) -> int:
    return -(-rows // PASS_ROWS)


def _loss(additions: float) -> float:
    """Bound what a sum that goes through so many additions leaves out, relative to the absolute values."""
    return 16 * (additions + 3) ** 3 * U**3 * SLACK


def _sizes(z: Tensor) -> Tensor:
    """Bound expansions, and the parts below the first one by how much it dwarfs them."""
    return torch.stack([part.abs() * factor for part, factor in zip(z, _DWARFED, strict=True)]).amax(0)


def expansion_errors(
    problem: Problem, penalised: bool, z: Tensor, residual_norms: Tensor, additions: float
) -> tuple[Tensor, Tensor]:
    """Bound the error of an entry of the gradient, and the norm of that of the residual, ``(targets,)``.

    Args:
        problem: The problem.
        penalised: Whether there is a ridge.
        z: Expansions ``(3, columns, targets)``.
        residual_norms: ``(targets,)``.
        additions: How many additions to a first part an entry of the gradient went through.
    """
    residuals = (problem.column_norms @ _sizes(z) + problem.target_norms) * SLACK
    lost = _loss(dot_additions(problem.n_columns)) * residuals
    summed = residual_norms + (1.0 if penalised else 0.0) * residuals
    error = _loss(additions) * (summed * SLACK + _UNDERFLOW)
    return error + _UNDERFLOW, lost + _UNDERFLOW


def gradient_in_expansions(
    problem: Problem, penalty: Tensor | None, graded: bool, z: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``A'W(b - A z) - penalty z`` for an expansion z ``(3, columns, targets)``, and bounds on its error.

    Args:
        problem: The problem.
        penalty: ``(columns,)``, at most 1, or None.
        graded: Whether rows have weights.
        z: Where.
    """
    scale = problem.scale.unsqueeze(1)
    V = z * scale
    sums = problem.rows.walk(_ExpansionSums(problem, V))
    g, residual_norms = sums.gradient * scale, sums.squares.sqrt()
    if penalty is not None:
        x = coefficients(z, torch.ones_like(problem.target_scale), graded, MAX_SLICES)
        cut = limbs(penalty.reshape(1, -1, 1), levels_for(MAX_SLICES))
        for level in carry_(convolve(cut, x.limbs)):
            accumulate_(g, -scaled(level, x.exponents))
    error, residual_error = expansion_errors(problem, penalty is not None, z, residual_norms, sums.additions)
    value, rounded = _rounded(renormalise(g))
    error = error + rounded
    # What scaling could not do exactly, or took out of range, is not known at all.
    known = torch.isfinite(value).all(0) & torch.isfinite(error) & (V / scale == z).all(0).all(0)
    return torch.where(known, value, 0.0), torch.where(known, error, torch.inf), residual_error


@final
class _ExpansionSums(Fold):
    """``[1 | X]' T`` for ``T = W (Y - [1 | X] V)`` in sums of three doubles, and squares of the residuals.

    Args:
        problem: The problem.
        V: Expansions ``(3, columns, targets)``, in the units of the features and of the scaled targets.
    """

    label = "extending"

    def __init__(self, problem: Problem, V: Tensor) -> None:
        self._problem, self._V = problem, V
        _, p, k = V.shape
        first, n = int(problem.bias), p - int(problem.bias)
        self._features = n
        self._vectors = V[:, first:].transpose(1, 2)
        self._offset = V[:, 0] if problem.bias else V.new_zeros(3, k)
        width = max(1, _ENTRIES // (n + 1))
        self._groups = [slice(start, min(start + width, k)) for start in range(0, k, width)]
        self._sums = [V.new_zeros((group.stop - group.start) * (3 * (n + 1) + 1)) for group in self._groups]
        self._rows = 0
        self._mergers = 0

    @property
    def additions(self) -> int:
        """How many additions to a first part an entry of the gradient went through."""
        return sum_additions(self._rows) + self._mergers

    @property
    def gradient(self) -> Tensor:
        """``[1 | X]' T``, ``(3, columns, targets)``."""
        n, bias, gradients = self._features, self._problem.bias, []
        for group, total in zip(self._groups, self._sums, strict=True):
            q = group.stop - group.start
            parts = self._expansions(total)
            features, ones = parts[:, : q * n].view(3, q, n).transpose(1, 2), parts[:, q * n :].unsqueeze(1)
            gradients.append(torch.cat([ones, features], 1) if bias else features)
        return torch.cat(gradients, 2)

    @property
    def squares(self) -> Tensor:
        """Weighted squares of the residuals, ``(targets,)``."""
        pairs = zip(self._groups, self._sums, strict=True)
        return torch.cat([total[group.start - group.stop :] for group, total in pairs])

    def _expansions(self, total: Tensor) -> Tensor:
        """Return the part of the sums that are expansions, ``(3, numbers)``."""
        count = total.shape[0] // (3 * (self._features + 1) + 1) * (self._features + 1)
        return total[: 3 * count].view(3, count)

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return PASS_ROWS

    @override
    def add(self, block: Block) -> None:
        X = readable_rows(block.X)
        engine, scale = engine_for(X), self._problem.target_scale
        for group, total in zip(self._groups, self._sums, strict=True):
            engine.expansion_sums_(
                total,
                X,
                block.Y[:, group],
                self._vectors[:, group],
                self._offset[:, group],
                block.weight,
                scale[group],
            )
        self._rows += X.shape[0]

    @override
    def merge(self, other: Self) -> None:
        for mine, theirs in zip(self._sums, other._sums, strict=True):
            parts = self._expansions(mine)
            for part in other._expansions(theirs):
                accumulate_(parts, part)
            mine[parts.numel() :] += theirs[parts.numel() :]
        self._rows += other._rows
        # Three parts are added, and the last call of each may have been a short one.
        self._mergers += other._mergers + 4

    @override
    def fresh(self) -> Self:
        return type(self)(self._problem, self._V)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return *self._sums, torch.tensor([self._rows, self._mergers], device="cpu")

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        *sums, counts = state
        self._sums = [total.clone() for total in sums]
        self._rows, self._mergers = (int(count) for count in counts)


def _rounded(g: Tensor) -> tuple[Tensor, Tensor]:
    """Return expansions as doubles, within 100 U of the truth, and what exceeds that, ``(targets,)``."""
    low, lost = two_sum(g[1], g[2])
    value, missing = two_sum(g[0], low)
    excess = (lost.abs() + missing.abs()) * SLACK - 100 * U * value.abs()
    return value, excess.clamp(min=0.0).amax(0)

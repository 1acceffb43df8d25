"""The passes over the rows that a convex criterion needs: loss and gradient, and products with the Hessian."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.engine.sums import FewCurvatures, LossTotals, RowLengths, loss_totals
from closedform.losses import Criterion
from closedform.losses.formula import Formula
from closedform.rows import Block, SumFold
from closedform.rows.block import Extent
from closedform.rows.columns import Columns

__all__ = [
    "CurvatureGram",
    "HessianProduct",
    "Kept",
    "LossSums",
    "RootGram",
    "StartSums",
    "TargetCounts",
    "add_gram_",
    "counted_rows",
    "formula_of",
    "outputs_of",
    "pieces",
    "totals_of",
]

#: Entries of the outputs of a block: few enough to stay in the caches beside its features.
_OUTPUT_ENTRIES = 2**17


def _block_rows(extent: Extent, n_outputs: int) -> int:
    return max(64, min(extent.cached_rows(), _OUTPUT_ENTRIES // max(n_outputs, 1)))


def counted_rows(block: Block) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return features, targets, weights ``(rows,)`` and numbers ``(rows,)`` of the rows of positive weight.

    Args:
        block: Rows, of which those without weights have weight one.
    """
    X, Y, weight = block.X, block.Y, block.weight
    if weight is None:
        return X, Y, X.new_ones(X.shape[0]), torch.arange(X.shape[0], device=X.device)
    numbers = (weight > 0).nonzero().squeeze(1)
    return X[numbers], Y[numbers], weight[numbers], numbers


def formula_of(criterion: Criterion, n_outputs: int) -> Formula | None:
    """Return what compiled loops compute the losses by, where there is one output and they know its loss."""
    return criterion.formula() if n_outputs == 1 else None


def totals_of(
    block: Block,
    formula: Formula,
    at: tuple[Tensor, Tensor | None],
    *,
    roots: Tensor | None = None,
    lengths: RowLengths | None = None,
) -> LossTotals:
    """Return the sums of a criterion over a block, whose engine sums losses.

    Args:
        block: Rows, in any dtype.
        formula: The criterion.
        at: Weights ``(1, features)``, and the bias ``(1,)`` or None.
        roots: Where the roots of the weighted curvatures of all rows go, or None.
        lengths: How long rows are, where bounds on rounding are wanted.
    """
    V, offset = at
    sums = loss_totals(V.shape[1], V.device)
    here = None if roots is None else roots[block.start : block.start + block.X.shape[0]]
    shift = 0.0 if offset is None else float(offset)
    block.engine.loss_sums_(sums, block.X, block.Y, formula, V[0], shift, block.weight, roots=here, lengths=lengths)
    return sums


def pieces(block: Block, rows: int, every: int = 1) -> Iterator[Block]:
    """Cut a block into blocks of so many rows, in float64, and return one of ``every``.

    Args:
        block: Rows, in any dtype.
        rows: How many rows a piece has.
        every: Of so many pieces the first is returned.

    Yields:
        The pieces.
    """
    for first in range(0, block.X.shape[0], rows * every):
        part = slice(first, first + rows)
        X, Y = block.X[part].to(torch.float64), block.Y[part].to(torch.float64)
        weight = None if block.weight is None else block.weight[part]
        yield replace(block, start=block.start + first, X=X, Y=Y, weight=weight)


def outputs_of(X: Tensor, V: Tensor, offset: Tensor | None) -> Tensor:
    """Return ``X V' + offset``, ``(rows, outputs)``.

    Args:
        X: Features, ``(rows, features)``.
        V: ``(outputs, features)``, so that both factors are read along their rows: three times as fast as ``X V``.
        offset: ``(outputs,)``, or None.
    """
    return torch.nn.functional.linear(X, V, offset)


def _across(columns: Columns, theta: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return coefficients in the units of the table, those of the features as ``(outputs, features)``."""
    V, offset = columns.raw(theta)
    return V.T.contiguous(), offset


def _stacked(columns: Columns, features: Tensor, ones: Tensor) -> Tensor:
    """Return sums ``(outputs, features)`` and those of the bias in the scale of the columns, ``(columns, outputs)``."""
    G = torch.cat([ones.unsqueeze(0), features.T]) if columns.bias else features.T
    return G * columns.scale.unsqueeze(1)


@final
@dataclass(eq=False)
class Kept:
    """What passes over a table in memory leave behind for the next ones: in float32, which is enough for directions.

    Attributes:
        X: The features in the scale of the columns, ``(rows, features)``.
        C: The curvatures at the weights last seen, without those that vanish beside others, ``(rows, outputs)``.
        filled: Whether X has been filled.
        few: Those of C that are not zero, where that is worth a pass of its own.
    """

    X: Tensor
    C: Tensor
    filled: bool = field(default=False)
    few: FewCurvatures | None = field(default=None)

    def settle(self, criterion: Criterion) -> None:
        """Take a whole pass for done."""
        self.filled = True
        self.few = FewCurvatures.of(self.C) if criterion.of_shares and engine_for(self.X).sums_curvatures else None


@final
class TargetCounts(SumFold):
    """What the targets say: how many rows count, how many outputs there are, sums of slopes far out either way.

    Args:
        criterion: The criterion; targets that it is not defined for are refused.
        n_outputs: How many outputs a row has.
        device: Where the numbers are.
    """

    as_stored = False
    label = "reading"

    def __init__(self, criterion: Criterion, n_outputs: int, device: torch.device) -> None:
        self._criterion, self._n_outputs = criterion, n_outputs
        self.totals = torch.zeros(1, dtype=torch.float64, device=device)
        self.down = torch.zeros(n_outputs, dtype=torch.float64, device=device)
        self.up = torch.zeros(n_outputs, dtype=torch.float64, device=device)

    @override
    def add(self, block: Block) -> None:
        T, criterion, weight = block.Y, self._criterion, block.weight
        numbers = torch.arange(block.start, block.start + T.shape[0], device=T.device)
        if weight is not None:
            counted = weight > 0
            T, numbers, weight = T[counted], numbers[counted], weight[counted]
        criterion.check(T, numbers, self._n_outputs)
        counts = criterion.counts(T, self._n_outputs)
        self.totals += counts.sum() if weight is None else (counts * weight).sum()

        for sums, slopes in zip((self.down, self.up), criterion.far_slopes(T, self._n_outputs), strict=True):
            sums += (slopes if weight is None else slopes * weight.unsqueeze(1)).sum(0)

    @property
    def idle(self) -> tuple[int, ...]:
        """Outputs that no row's loss depends on, such as those of weight zero; none where outputs are coupled."""
        if self._criterion.coupled:
            return ()
        unseen = (self.down == 0) & (self.up == 0)
        return tuple(int(output) for output in unseen.nonzero().squeeze(1))

    @override
    def fresh(self) -> Self:
        return type(self)(self._criterion, self._n_outputs, self.totals.device)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self.totals, self.down, self.up


@final
class LossSums(SumFold):
    """Loss, its gradient by the scaled coefficients, and (kept aside) the curvatures, in one read of the rows.

    Args:
        criterion: The criterion.
        columns: The design matrix.
        theta: Coefficients of its scaled columns, ``(columns, outputs)``.
        kept: Where rows and curvatures are kept for products, or None.
        roots: Where the roots of the weighted curvatures of a single output are kept, ``(rows,)``, or None.
    """

    label = "descending"

    def __init__(
        self,
        criterion: Criterion,
        columns: Columns,
        theta: Tensor,
        kept: Kept | None = None,
        roots: Tensor | None = None,
    ) -> None:
        self._criterion, self._columns, self._theta = criterion, columns, theta
        self._kept, self._roots = kept, roots
        self._formula = None if kept else formula_of(criterion, theta.shape[1])
        self.as_stored = self._formula is not None  # type: ignore[misc]
        self._at = _across(columns, theta)
        self.loss = theta.new_zeros(1)
        self._features = torch.zeros_like(self._at[0])
        self._ones = theta.new_zeros(theta.shape[1])

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return _block_rows(extent, self._theta.shape[1]) if self._formula is None else extent.pass_rows

    @property
    def gradient(self) -> Tensor:
        """The gradient by the coefficients of the scaled columns, ``(columns, outputs)``."""
        return _stacked(self._columns, self._features, self._ones)

    @override
    def add(self, block: Block) -> None:
        if self._formula is None:
            self._add(block)
        elif block.engine.sums_losses:
            sums = totals_of(block, self._formula, self._at, roots=self._roots)
            self.loss += sums.losses[:1]
            self._features += sums.features
            if self._columns.bias:
                self._ones += sums.ones
        else:
            rows, features = block.X.shape
            for piece in pieces(block, Extent(rows, features, 1, in_memory=True).cached_rows()):
                self._add(piece)

    def _add(self, block: Block) -> None:
        criterion, T, weight = self._criterion, block.Y, block.weight
        Z = outputs_of(block.X, *self._at)
        values, slopes, curvatures = criterion.evaluate(Z, T)
        if weight is not None:
            values, slopes = values * weight, slopes * weight.unsqueeze(1)
            curvatures = curvatures * weight.unsqueeze(1)
        self.loss += values.sum()
        self._features.addmm_(slopes.T, block.X)
        if self._columns.bias:
            self._ones += slopes.sum(0)

        here = slice(block.start, block.start + Z.shape[0])
        if self._roots is not None:
            self._roots[here] = criterion.diagonal(curvatures)[:, 0].sqrt()
        kept = self._kept
        if kept is not None:
            kept.C[here] = criterion.thinned(curvatures)
            if not kept.filled:
                torch.mul(block.X, self._columns.feature_scale, out=kept.X[here])

    @override
    def fresh(self) -> Self:
        return type(self)(self._criterion, self._columns, self._theta, self._kept, self._roots)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self.loss, self._features, self._ones


@final
class HessianProduct(SumFold):
    """The Hessian of the loss times a change of the coefficients of the scaled columns.

    Args:
        criterion: The criterion.
        columns: The design matrix; of kept rows, with a scale of ones for the features.
        direction: ``(columns, outputs)``, in the dtype of the blocks.
        theta: Where the Hessian is taken; None where the targets of the table are the curvatures there.
        few: Those that are not zero, where these are shares and few; else None.
    """

    label = "descending"

    def __init__(
        self,
        criterion: Criterion,
        columns: Columns,
        direction: Tensor,
        theta: Tensor | None,
        few: FewCurvatures | None = None,
    ) -> None:
        self.as_stored = theta is None  # type: ignore[misc]
        self._criterion, self._columns, self._direction, self._theta = criterion, columns, direction, theta
        self._few = few
        self._D, self._shift = _across(columns, direction)
        self._at = None if theta is None else _across(columns, theta)
        outputs, features = self._D.shape
        self._flat = self._D.new_zeros(outputs * (features + 1), dtype=torch.float64)
        self._features, self._ones = self._flat[:-outputs].view(outputs, features), self._flat[-outputs:]

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        if self._few is not None:
            return extent.pass_rows
        return _block_rows(extent, self._direction.shape[1]) * (2 if self._theta is None else 1)

    @property
    def product(self) -> Tensor:
        """``(columns, outputs)``, float64."""
        return _stacked(self._columns, self._features, self._ones)

    @override
    def add(self, block: Block) -> None:
        criterion = self._criterion
        if self._few is not None:
            few = self._few.rows(block.start, block.X.shape[0])
            block.engine.curvature_sums_(self._flat, block.X, few, self._D, self._shift)
            return
        if self._at is None:
            C = block.Y
        else:
            C = criterion.curvatures(outputs_of(block.X, *self._at), block.Y)
            if block.weight is not None:
                C = C * block.weight.unsqueeze(1)
        S = criterion.product(C, outputs_of(block.X, self._D, self._shift))
        self._features += S.T @ block.X
        if self._columns.bias:
            self._ones += S.sum(0)

    @override
    def fresh(self) -> Self:
        return type(self)(self._criterion, self._columns, self._direction, self._theta, self._few)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self._flat,)


@final
class CurvatureGram(SumFold):
    """``A' diag(c) A`` with c the mean over outputs of the diagonal of each row's curvature: the preconditioner.

    Args:
        criterion: The criterion.
        columns: The design matrix.
        theta: Where the curvature is taken.
    """

    as_stored = False
    label = "factoring"

    def __init__(self, criterion: Criterion, columns: Columns, theta: Tensor) -> None:
        self._criterion, self._columns, self._theta = criterion, columns, theta
        self._at = _across(columns, theta)
        self.gram = theta.new_zeros(theta.shape[0], theta.shape[0])

    @override
    def add(self, block: Block) -> None:
        criterion = self._criterion
        c = criterion.diagonal(criterion.curvatures(outputs_of(block.X, *self._at), block.Y)).mean(1)
        if block.weight is not None:
            c = c * block.weight
        add_gram_(self.gram, self._columns, block, c)

    @override
    def fresh(self) -> Self:
        return type(self)(self._criterion, self._columns, self._theta)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.gram,)


@final
class RootGram(SumFold):
    """:class:`CurvatureGram` of a single output whose curvatures a pass left behind.

    Args:
        columns: The design matrix.
        roots: Roots of the weighted curvatures of all rows of the table, ``(rows,)``, float64.
    """

    label = "factoring"

    def __init__(self, columns: Columns, roots: Tensor) -> None:
        self._columns, self._roots = columns, roots
        self.gram = columns.scale.new_zeros(columns.n_columns, columns.n_columns)

    @override
    def add(self, block: Block) -> None:
        here = self._roots[block.start : block.start + block.X.shape[0]]
        _add_gram_(self.gram, self._columns, block, here)

    @override
    def fresh(self) -> Self:
        return type(self)(self._columns, self._roots)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.gram,)


@final
class StartSums(SumFold):
    """The normal equations of the first Newton step from outputs that no weights need to reach.

    Args:
        criterion: The criterion, with outputs to start from.
        columns: The design matrix.
        n_outputs: How many outputs a row has.
    """

    as_stored = False
    label = "starting"

    def __init__(self, criterion: Criterion, columns: Columns, n_outputs: int) -> None:
        self._criterion, self._columns, self._n_outputs = criterion, columns, n_outputs
        self.gram = columns.scale.new_zeros(n_outputs, columns.n_columns, columns.n_columns)
        self.right = columns.scale.new_zeros(columns.n_columns, n_outputs)

    @override
    def add(self, block: Block) -> None:
        T = block.Y
        Z = self._criterion.start(T)
        assert Z is not None
        C, R = self._criterion.curvatures(Z, T), self._criterion.slopes(Z, T)
        if block.weight is not None:
            C, R = C * block.weight.unsqueeze(1), R * block.weight.unsqueeze(1)
        wanted = C * Z - R
        features = (wanted.T @ block.X).T * self._columns.feature_scale.unsqueeze(1)
        if self._columns.bias:
            features = torch.cat([(wanted.sum(0) * self._columns.scale[0]).unsqueeze(0), features])
        self.right += features
        for output in range(self._n_outputs):
            add_gram_(self.gram[output], self._columns, block, C[:, output])

    @override
    def fresh(self) -> Self:
        return type(self)(self._criterion, self._columns, self._n_outputs)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self.gram, self.right


def add_gram_(gram: Tensor, columns: Columns, block: Block, factors: Tensor) -> None:
    """Add ``A' diag(factors) A`` of a block to the upper triangle of ``gram``, A without sample weights.

    Args:
        gram: ``(columns, columns)``, float64, in the scale of the columns.
        columns: The design matrix.
        block: Rows, float64.
        factors: One for each row, not negative.
    """
    _add_gram_(gram, columns, block, factors.sqrt())


def _add_gram_(gram: Tensor, columns: Columns, block: Block, roots: Tensor) -> None:
    """Do the same with the roots of the factors, for rows in any dtype."""
    part = torch.zeros_like(gram)
    cross = gram.new_zeros(gram.shape[0], 1)
    ones = gram.new_ones(1)
    block.engine.normal_equations_(
        part,
        cross,
        block.X,
        block.Y[:, :1],
        ones,
        row_scale=roots,
        x_scale=columns.feature_scale,
        ones=columns.bias,
    )
    if columns.bias:
        part[0] *= columns.scale[0]
        part[0, 0] *= columns.scale[0]
    gram += part

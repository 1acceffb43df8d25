"""Products with residuals: gradients, products with the normal matrix, and lengths of images, one read of X each."""

from __future__ import annotations

from typing import Self, final

from torch import Tensor
from typing_extensions import override

from closedform.engine.sums import pass_sums
from closedform.numerics.host import Vector
from closedform.rows.block import Block
from closedform.rows.columns import Columns
from closedform.rows.fold import SumFold

__all__ = ["ResidualSums"]


@final
class ResidualSums(SumFold):
    """With ``T = W (Y E - X V - offset)``: the sums X'T, 1'T and those of T^2 / w, for all columns of V at once.

    Args:
        columns: The design matrix.
        V: Coefficients of the features, ``(features, q)``, float64.
        offset: ``(q,)`` or None.
        targets: Whether the first columns of V have the targets of the rows; the others have a target of zero.
        groups: Ranges of targets whose products T'T / w are summed as well.
        label: What the progress line calls the pass.
    """

    def __init__(
        self,
        columns: Columns,
        V: Tensor,
        offset: Tensor | None,
        *,
        targets: bool,
        groups: tuple[range, ...] = (),
        label: str = "refining",
    ) -> None:
        self.label = label
        self._columns, self._V, self._offset, self._targets = columns, V, offset, targets
        self._sums = pass_sums(V.shape[0], V.shape[1], V.device, groups)

    @property
    def squares(self) -> Tensor:
        """Weighted squares of the residuals, ``(q,)``."""
        return self._sums.squares

    @property
    def totals(self) -> Vector:
        """1'T, the weighted sums of the residuals, and their weighted squares, on the host, ``(2, q)``."""
        return self._sums.totals

    @property
    def grams(self) -> tuple[Tensor, ...]:
        """Products of the residuals of each group."""
        return self._sums.grams

    @property
    def adjoint(self) -> Tensor:
        """``D [1 | X]' T``, ``(columns, q)``."""
        return self._columns.adjoint(self._sums.ones, self._sums.features)

    @override
    def add(self, block: Block) -> None:
        Y, scale = (block.Y, self._columns.target_scale) if self._targets else (None, None)
        block.engine.residual_sums_(self._sums, block.X, Y, self._V, self._offset, block.weight, scale)

    @override
    def fresh(self) -> Self:
        return type(self)(
            self._columns,
            self._V,
            self._offset,
            targets=self._targets,
            groups=self._sums.groups,
            label=self.label,
        )

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self._sums.flat,)

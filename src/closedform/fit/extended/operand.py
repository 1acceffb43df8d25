"""The matrix that is refined against, by blocks of its rows, scaled so that fixed-point numbers can hold it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from torch import Tensor
from typing_extensions import override

from closedform.fit.extended.arithmetic import SlicedBlock, rows_per_block
from closedform.rows import Block, Fold
from closedform.rows.block import Extent

__all__ = ["Operand", "OperandFold"]


class OperandFold(Fold, ABC):
    """A fold over the rows of an operand."""

    as_stored = False
    label = "extending"

    def __init__(self, operand: Operand) -> None:
        self.operand = operand

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return rows_per_block(self.operand.columns)


AnyFold = TypeVar("AnyFold", bound=Fold)


class Operand(ABC):
    """The matrix A of ``g = offset + A'W(b - A z) - penalty z``, by blocks of its rows.

    Attributes:
        columns: Columns of A.
        targets: Right-hand sides.
        rows: Rows of A, and of the penalty.
        frobenius_norm: Of ``sqrt(W) A`` with the penalty's rows under it.
        graded: Whether blocks carry exponents.
        peaks: Bound on what the offset and the right-hand sides hold, ``(targets,)``.
        offset: Expansions ``(parts, columns, targets)``, or None for zeros.
        penalty: ``(columns,)``, at most 1, or None for zeros.
    """

    columns: int
    targets: int
    rows: int
    frobenius_norm: float
    graded: bool
    peaks: Tensor
    offset: Tensor | None = None
    penalty: Tensor | None = None

    @abstractmethod
    def walk(self, fold: AnyFold) -> AnyFold:
        """Add all rows to a fold, as blocks that only :meth:`sliced` and :meth:`rounded` understand."""

    @abstractmethod
    def sliced(self, block: Block, room: Tensor) -> SlicedBlock:
        """Return the rows of a block, cut into the slices that ``room`` ``(rows, slices, columns)`` has place for."""

    @abstractmethod
    def rounded(self, block: Block) -> Tensor:
        """Return the rows of ``sqrt(W) A`` of a block in double precision, each entry within 4 U of the true one."""

    @property
    def sums_expansions(self) -> bool:
        """Whether a compiled pass sums the gradient in expansions."""
        return False

    def gradient_in_expansions(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradient at expansions z, ``(3, columns, targets)``, by that pass.

        Returns:
            Value ``(columns, targets)``, the error of every entry, and that of the norm of the residual,
            ``(targets,)``, as :class:`closedform.fit.extended.fixed_point.Gradient` holds them.
        """
        raise NotImplementedError

    def foreseen_errors(self, z: Tensor, residual_norms: Tensor) -> tuple[Tensor, Tensor]:
        """Return what :meth:`gradient_in_expansions` would bound its errors by, ``(targets,)`` each."""
        raise NotImplementedError

    def gram(self, T: Tensor | None) -> tuple[Tensor, int] | None:
        """Return the upper triangle of ``T'A'W A T`` and how many additions its entries went through, at most.

        None where there is no compiled pass for it. An entry of ``sqrt(W) A T`` is a sum in double precision, in any
        order. Without T, that of ``A'W A``.
        """
        return None

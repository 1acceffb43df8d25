"""The matrix that is refined against, by blocks of its rows, scaled so that fixed-point numbers can hold it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.engine import compiled
from closedform.engine.choice import engine_for
from closedform.engine.compiled import depths
from closedform.numerics.slices import LENGTH, Slices, cut, exponents_of, scaled
from closedform.rows import Design

__all__ = [
    "PASS_ROWS",
    "SLACK",
    "Block",
    "Operand",
    "OutOfRange",
    "Tall",
    "U",
    "exactly",
    "gram_additions",
    "readable_rows",
    "rows_per_block",
]

#: Unit roundoff of doubles.
U = 2.0**-53
#: Norms and bounds are themselves computed in double precision: more than their rounding.
SLACK = 1.0 + 1e-6
#: Norm of a column, under which a ridge strength is more than 1e60 times the column's own square.
_VISIBLE = 2.0**-100


#: Rows that one call of a compiled pass takes here, so that sums stay short.
PASS_ROWS = 2**16
#: Scales within 2 to the power of plus or minus this keep compiled passes far from the ends of the range.
_EXPONENTS = 300


class OutOfRange(Exception):
    """A number cannot be scaled without losing bits to the ends of the range of doubles."""


@final
@dataclass(frozen=True)
class Block:
    """Rows of the operand, each ``2**exponent`` times what the slices hold; good until the next block is asked for.

    Attributes:
        left: The rows, with entries of at most 1, ``(rows, columns)``.
        right: Right-hand sides, on the same scale and at most 1, ``(rows, targets)``.
        exponents: ``(rows, 1)``, or None for zeros.
        weight: ``weight * 4**exponent``, at most about 4, ``(rows, 1)``; None for ones.
    """

    left: Slices
    right: Tensor
    exponents: Tensor | None
    weight: Tensor | None


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
    def blocks(self, slices: int) -> Iterator[Block]:
        """Walk the rows once, cut into ``slices`` slices."""

    @abstractmethod
    def rounded(self) -> Iterator[Tensor]:
        """Walk the rows of ``sqrt(W) A`` once in double precision, each entry within 4 U of the true one."""

    def gram(self, T: Tensor | None) -> tuple[Tensor, int] | None:
        """Return the upper triangle of ``T'A'W A T`` and how many additions its entries went through, at most.

        None where there is no compiled pass for it. An entry of ``sqrt(W) A T`` is a sum in double precision, in any
        order. Without T, that of ``A'W A``.
        """
        return None


def readable_rows(X: Tensor) -> Tensor:
    """Return rows as the compiled pass reads them: as they are, or in float64."""
    return X if compiled.serves(X) else X.to(torch.float64).contiguous()


def gram_additions(calls: int) -> int:
    """Return how many additions an entry of a Gram matrix goes through in so many calls of the compiled pass.

    Rows that are packed at once are added up in registers, those sums to the ones of a thread, threads to what the call
    adds up, and that to the sums of all calls. A call takes up to :data:`PASS_ROWS` rows, and may give them all to one
    thread.
    """
    split = depths()
    return split.packed + -(-PASS_ROWS // split.packed) + split.threads + calls


def rows_per_block(columns: int) -> int:
    """Return how many rows are cut at a time: few enough that the slices stay in the outer cache."""
    return min(LENGTH, max(64, 2**19 // max(columns, 1)))


def exactly(values: Tensor, scale: Tensor) -> Tensor:
    """Return ``values * scale`` for powers of two, or raise where that is not exact."""
    result = values * scale
    if not torch.equal(result / scale, values):
        raise OutOfRange
    return result


def _drowned(norms: Tensor) -> Tensor:
    """Return whether a column is so small beside its penalty that fixed-point numbers cannot see it."""
    return ((norms > 0) & (norms < _VISIBLE)).any()


@final
class Tall(Operand):
    """The design matrix itself.

    Its columns have norms of at most 1, so what is lost where scaling underflows is below ``2**-500`` of a column.
    """

    def __init__(self, design: Design) -> None:
        self.design = design
        self.columns, self.targets = design.n_columns, design.n_targets
        self.rows = design.rows.n_rows + (self.columns if design.l2 > 0 else 0)
        self.frobenius_norm = design.frobenius_norm
        self.graded = design.rows.weight is not None
        self.peaks = torch.ones_like(design.target_scale)
        exponents = torch.cat([design.scale, design.target_scale]).log2()
        #: Whether compiled passes serve the rows.
        self.compiled = (
            compiled.available()
            and design.scale.device.type == "cpu"
            and float(exponents.abs().max()) <= _EXPONENTS
            and design.scanned.weight_sum <= 2.0**_EXPONENTS
        )
        if max(float(design.column_norms.max()), float(design.target_norms.max())) > 1 + 1e-9:
            # The power of two that would do is itself out of range.
            raise OutOfRange
        if design.l2 > 0:
            if bool(_drowned(design.scanned.feature_norms * design.scale[int(design.bias) :])):
                raise OutOfRange
            # The root of l2 is not exact, l2 itself and the powers of two are.
            self.penalty = design.scale * (design.scale * design.l2)
            self.penalty[: int(design.bias)] = 0.0

    def blocks(self, slices: int) -> Iterator[Block]:
        design, size = self.design, rows_per_block(self.columns)
        exact = design.scale.new_empty(size, slices, self.columns)
        values = design.scale.new_empty(size, self.columns)
        for block in design.blocks(size, "extending"):
            rows = block.X.shape[0]
            A = values[:rows]
            A[:, : int(design.bias)] = design.scale[: int(design.bias)]
            torch.mul(block.X, design.scale[int(design.bias) :], out=A[:, int(design.bias) :])
            right, exponents, weight = block.Y * design.target_scale, None, None
            if block.weight is not None:
                weight = block.weight.unsqueeze(1)
                # Rows of weight zero are not in the norms that the scale was chosen for.
                A.masked_fill_(weight == 0, 0.0)
                right.masked_fill_(weight == 0, 0.0)
                peaks = torch.maximum(A.abs().amax(1), right.abs().amax(1)).unsqueeze(1)
                exponents = exponents_of(peaks)
                A.copy_(scaled(A, -exponents))
                right = scaled(right, -exponents)
                weight = torch.where(peaks > 0, scaled(weight, 2 * exponents), 0.0)
            yield Block(cut(A, exact[:rows]), right, exponents, weight)

    def rounded(self) -> Iterator[Tensor]:
        for A, _ in self.design.matrix_blocks(rows_per_block(self.columns), "extending"):
            yield A

    def gram(self, T: Tensor | None) -> tuple[Tensor, int] | None:
        if not self.compiled:
            return None
        design, p = self.design, self.columns
        gram, nothing = design.scale.new_zeros(p, p), design.scale.new_zeros(p, 0)
        calls = 0
        for block in design.blocks(PASS_ROWS, "extending", as_stored=True):
            calls += 1
            X = readable_rows(block.X)
            engine_for(X).normal_equations_(
                gram,
                nothing,
                X,
                block.Y[:, :0],
                design.target_scale[:0],
                row_scale=None if block.weight is None else block.weight.sqrt(),
                factor=None if T is None else T * design.scale.unsqueeze(1),
                ones=design.bias,
            )
        return gram if T is not None else gram * torch.outer(design.scale, design.scale), gram_additions(calls)

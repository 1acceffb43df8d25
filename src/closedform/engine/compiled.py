"""The compiled loops over a table in memory, where they were built."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine import threads
from closedform.engine.contract import Engine
from closedform.engine.memory import Table, address, held, resolved, table
from closedform.engine.products import Blas, blas_residual_sums_
from closedform.engine.sums import FewCurvatures, ImageSums, LossTotals, PassSums, RowLengths
from closedform.engine.threads import all_threads, team

library: ModuleType | None
try:
    from closedform.engine import _loops

    library = _loops
except ImportError:  # no C compiler at installation: products.py does the same with matrix products
    library = None

if TYPE_CHECKING:
    from closedform.losses.formula import Formula

__all__ = ["Compiled", "Depths", "available", "depths", "multiplies_bfloat16", "serves", "sources"]

#: Up to this many sums a compiled pass beats two matrix products: beyond, its threads cannot have their own.
_MOST_SUMS = 2**21
#: Products of groups of residuals are formed in panels of so many columns.
_PANEL = 8
#: What stands for the scale and the shift of columns that are summed as they are.
_NO_SHIFT = (0, 0)
#: For no sums of columns beside a Gram matrix.
_NO_SPREAD = (0, 0, 0, 0)
#: For no table, nor scales of its columns.
_NO_TABLE = (None, 0)
#: What the compiled loops read.
_READABLE = frozenset((torch.float32, torch.float64))


@final
@dataclass(frozen=True)
class Depths:
    """How the compiled loops split their sums, as the C code says: what a proof counts additions by.

    Attributes:
        group: Rows whose sums are added up before they join those of a part.
        expansion_group: The same for sums of three doubles.
        packed: Rows that a product of matrices adds up in registers before they join the sums of a thread.
        part_groups: Groups that make a part, before there are ``parts`` of them.
        parts: Most parts of a pass, whose sums are added to one another.
        threads: Most threads of a product of matrices, whose sums are added to one another.
        lanes: Partial sums, in a register, that a dot product is spread over.
    """

    group: int
    expansion_group: int
    packed: int
    part_groups: int
    parts: int
    threads: int
    lanes: int

    def part_rows(self, rows: int) -> int:
        """Return how many rows a part has at most, in any pass over up to so many rows."""
        groups = -(-rows // self.group)
        # Below the most parts there are, `part_groups` groups make one and those left over, fewer, go to the others.
        return self.group * min(groups, max(2 * self.part_groups - 1, -(-groups // self.parts)))


def multiplies_bfloat16() -> bool:
    """Whether the loops multiply bfloat16 numbers on this processor."""
    return library is not None and bool(library.multiplies_bfloat16())


def available() -> bool:
    """Whether the compiled loops were built with this installation."""
    return library is not None


def sources() -> str:
    """Return what the compiled loops were built from, as a number of their sources; nothing where there are none."""
    return "" if library is None else f"{library.SOURCES:x}"


def depths() -> Depths:
    """Return how the compiled loops, which have to be :func:`available`, split their sums on this processor."""
    assert library is not None
    return Depths(
        group=library.GROUP,
        expansion_group=library.EXPANSION_GROUP,
        packed=library.DEPTH,
        part_groups=library.PART_GROUPS,
        parts=library.MAX_PARTS,
        threads=library.MAX_THREADS,
        lanes=library.lanes(),
    )


def serves(X: Tensor) -> bool:
    """Whether the compiled loops can read this table: float32 or float64 rows on a CPU, each row contiguous."""
    if library is None or not X.is_cpu or X.dtype not in _READABLE or X.dim() != 2:
        return False
    columns, (distance, step) = X.shape[1], X.stride()
    return (step == 1 or columns == 1) and distance >= columns


def _targets(Y: Tensor) -> tuple[Tensor, Table]:
    """Return targets as the compiled loops read them: contiguous, in float32 or float64."""
    if not (Y.is_contiguous() and Y.dtype in _READABLE):
        Y = resolved(Y)
        with all_threads():
            Y = (Y if Y.dtype == torch.float32 else Y.to(torch.float64)).contiguous()
    return table(Y)


def _dense(values: Tensor) -> Tensor:
    return held(values.contiguous())


def _dense_if_any(values: Tensor | None) -> Tensor | None:
    return None if values is None else held(values.contiguous())


def _squared(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.square()


def _threads(rows: int, columns: int, vectors: int = 1) -> int:
    worth = rows * (columns + 1) * vectors // threads.NUMBERS_FOR_ONE
    # A small problem does not ask how many there are.
    return 1 if worth <= 1 else max(1, min(team(), worth))


@final
class Compiled(Engine):
    """Rows on a CPU at the speed of memory: each is read once for all that a pass needs of it.

    Serves tables of float32 or float64 whose rows are contiguous, see :func:`serves`; what else is given is made
    readable. The same call gives the same bits with any number of threads; but for products of matrices with more of
    them than the parts that these are split into (up to 32 by their rows, fewer where sums are large).
    """

    @property
    @override
    def multiplies_bfloat16(self) -> bool:
        return multiplies_bfloat16()

    @property
    @override
    def sums_while_multiplying(self) -> bool:
        return True

    @property
    @override
    def sums_expansions(self) -> bool:
        return True

    @property
    @override
    def sums_losses(self) -> bool:
        return True

    @property
    @override
    def sums_curvatures(self) -> bool:
        return True

    @override
    def column_squares_(self, squares: Tensor, X: Tensor, weight: Tensor | None = None) -> None:
        assert library is not None
        (X, x), weight = table(X), _dense_if_any(weight)
        library.column_squares(x, address(weight), _NO_SHIFT, address(squares), _threads(x[2], x[3]))

    @override
    def spread_squares_(
        self, sums: Tensor, X: Tensor, scale: Tensor, shift: Tensor, weight: Tensor | None = None
    ) -> None:
        assert library is not None
        (X, x), scale, shift, weight = table(X), _dense(scale), _dense(shift), _dense_if_any(weight)
        taken = (address(scale), address(shift))
        library.column_squares(x, address(weight), taken, address(sums), _threads(x[2], x[3]))

    @override
    def residual_sums_(
        self,
        sums: PassSums,
        X: Tensor,
        Y: Tensor | None,
        V: Tensor,
        offset: Tensor | None = None,
        weight: Tensor | None = None,
        y_scale: Tensor | None = None,
    ) -> None:
        assert library is not None
        q, group = V.shape[1], len(sums.groups[0]) if sums.groups else 0
        if sums.flat.numel() > _MOST_SUMS or (len(sums.groups) > 1 and group % _PANEL != 0):
            blas_residual_sums_(sums, X, Y, V, offset, weight, y_scale)
            return

        (X, x), vectors, weight, y = table(X), _dense(V.T), _dense_if_any(weight), None
        shift = V.new_zeros(q) if offset is None else _dense(offset)
        if Y is not None:
            Y, y = _targets(Y)
            assert y[3] <= q, "sums of fewer targets than the rows have"
            y_scale = V.new_ones(y[3]) if y_scale is None else _dense(y_scale)
        library.residual_pass(
            x,
            (y, address(y_scale)),
            _NO_TABLE,
            address(weight),
            (address(vectors), address(shift), q),
            (address(sums.flat), group),
            _threads(x[2], x[3], q),
        )

    @override
    def image_sums_(
        self,
        sums: ImageSums,
        X: Tensor,
        Y: Tensor,
        V: Tensor,
        offset: Tensor | None,
        weight: Tensor | None,
        y_scale: Tensor,
    ) -> None:
        assert library is not None
        (X, x), (Y, y), vectors = table(X), _targets(Y), _dense(-V.T)
        weight, y_scale = _dense_if_any(weight), _dense(y_scale)
        shift = V.new_zeros(V.shape[1]) if offset is None else _dense(-offset)
        library.residual_pass(
            x,
            _NO_TABLE,
            (y, address(y_scale)),
            address(weight),
            (address(vectors), address(shift), V.shape[1]),
            (address(sums.flat), 0),
            _threads(x[2], x[3], V.shape[1]),
        )

    @override
    def normal_equations_(
        self,
        gram: Tensor,
        cross: Tensor,
        X: Tensor,
        Y: Tensor,
        y_scale: Tensor,
        *,
        row_scale: Tensor | None = None,
        x_scale: Tensor | None = None,
        order: Tensor | None = None,
        factor: Tensor | None = None,
        ones: bool = False,
        bfloat16: bool = False,
        spread: Tensor | None = None,
    ) -> None:
        assert library is not None
        if bfloat16 and not multiplies_bfloat16():
            by_blas = Blas().normal_equations_
            how = {"row_scale": row_scale, "x_scale": x_scale, "order": order, "factor": factor}
            by_blas(gram, cross, X, Y, y_scale, **how, ones=ones, bfloat16=True)
            return
        if order is not None and not order.shape[0]:
            # An empty tensor has no address, which would stand for all rows.
            return

        (X, x), (Y, y), y_scale = table(X), _targets(Y), _dense(y_scale)
        row_scale, x_scale = _dense_if_any(row_scale), _dense_if_any(x_scale)
        order, factor = _dense_if_any(order), _dense_if_any(factor)
        unit, weight = (None, None) if spread is None else (torch.ones_like(spread[0]), _squared(row_scale))
        shift = None if unit is None else torch.zeros_like(unit)
        library.gram_add(
            x,
            y,
            (address(row_scale), address(x_scale), address(y_scale)),
            (address(order), 0 if order is None else order.shape[0]),
            (address(factor), ones, False),
            (address(gram), address(cross), _bits(gram, bfloat16)),
            (address(weight), address(unit), address(shift), address(spread)),
            _threads(x[2], x[3], max(1, x[3] // threads.COLUMNS_AS_ONE_VECTOR)),
        )

    @override
    def row_gram_(self, gram: Tensor, X: Tensor, row_scale: Tensor) -> None:
        assert library is not None
        (X, x), row_scale = table(X), _dense(row_scale)
        library.gram_add(
            x,
            None,
            (0, address(row_scale), 0),
            (0, 0),
            (0, False, True),
            (address(gram), 0, _bits(gram, False)),
            _NO_SPREAD,
            _threads(x[2], x[3], max(1, x[2] // threads.COLUMNS_AS_ONE_VECTOR)),
        )

    @override
    def expansion_sums_(
        self,
        sums: Tensor,
        X: Tensor,
        Y: Tensor,
        V: Tensor,
        offset: Tensor,
        weight: Tensor | None,
        y_scale: Tensor,
    ) -> None:
        assert library is not None
        (X, x), (Y, y), V, offset = table(X), _targets(Y), _dense(V), _dense(offset)
        weight, y_scale = _dense_if_any(weight), _dense(y_scale)
        library.expansion_pass(
            x,
            y,
            address(y_scale),
            address(weight),
            (address(V), address(offset)),
            address(sums),
            _threads(x[2], x[3], threads.EXPANSION_WORK * y[3]),
        )

    @override
    def loss_sums_(
        self,
        sums: LossTotals,
        X: Tensor,
        Y: Tensor,
        formula: Formula,
        v: Tensor,
        offset: float,
        weight: Tensor | None = None,
        *,
        roots: Tensor | None = None,
        lengths: RowLengths | None = None,
    ) -> None:
        assert library is not None
        assert roots is None or roots.is_contiguous(), "roots are written where they stand"
        (X, x), (Y, y), v, weight = table(X), _targets(Y), _dense(v), _dense_if_any(weight)
        squares = None if lengths is None else _dense(lengths.squares)
        others = (0.0, 0.0, 0.0) if lengths is None else (lengths.own, lengths.reach, lengths.few)
        peak = library.loss_pass(
            x,
            y,
            address(weight),
            (address(v), offset),
            (getattr(library, formula.shape.name), *formula.four),
            (address(squares), *others),
            (address(sums.flat), address(roots)),
            _threads(x[2], x[3]),
        )
        sums.peak.clamp_min_(peak)

    @override
    def curvature_sums_(
        self, sums: Tensor, X: Tensor, curvatures: FewCurvatures, V: Tensor, offset: Tensor | None = None
    ) -> None:
        assert library is not None
        (X, x), vectors, starts = table(X), _dense(V), _dense(curvatures.starts)
        shift = V.new_zeros(V.shape[0]) if offset is None else _dense(offset)
        assert vectors.dtype == shift.dtype == torch.float32, "changes are read as they are"
        outputs, values = _dense(curvatures.outputs), _dense(curvatures.values)
        library.curvature_pass(
            x,
            (address(starts), address(outputs), address(values)),
            (address(vectors), address(shift), V.shape[0]),
            address(sums),
            _threads(x[2], x[3], max(1, len(values) // max(x[2], 1))),
        )

    @override
    def sketch_(self, sketch: Tensor, X: Tensor, targets: Tensor, factors: Tensor) -> None:
        assert library is not None
        (X, x), targets, factors = table(X), _dense(targets), _dense(factors)
        taken = (address(targets), address(factors), targets.shape[1])
        library.sketch_add(x, taken, address(sketch), _threads(x[2], x[3]))


def _bits(gram: Tensor, bfloat16: bool) -> int:
    assert not bfloat16 or gram.dtype == torch.float32
    return 16 if bfloat16 else 8 * gram.dtype.itemsize

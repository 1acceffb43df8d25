"""The compiled loops over a table in memory, where they were built."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine import threads
from closedform.engine.contract import Engine
from closedform.engine.memory import address, held, held_whole, resolved
from closedform.engine.products import Blas, blas_residual_sums_
from closedform.engine.sums import PassSums
from closedform.engine.threads import all_threads, team

library: ModuleType | None
try:
    from closedform.engine import _loops

    library = _loops
except ImportError:  # no C compiler at installation: products.py does the same with matrix products
    library = None

__all__ = ["Compiled", "Depths", "available", "depths", "multiplies_bfloat16", "serves", "sources"]

#: Up to this many sums a compiled pass beats two matrix products: beyond, its threads cannot have their own.
_MOST_SUMS = 2**21
#: Products of groups of residuals are formed in panels of so many columns.
_PANEL = 8
#: How the compiled loops take a table: address, whether it holds float32, rows, columns, numbers from row to row.
_Table = tuple[int, bool, int, int, int]


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
    """Whether the loops multiply bfloat16 numbers on this processor: twice as fast as float32."""
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
    if library is None or not X.is_cpu or X.dtype not in (torch.float32, torch.float64) or X.dim() != 2:
        return False
    columns, (distance, step) = X.shape[1], X.stride()
    return (step == 1 or columns == 1) and distance >= columns


def _readable(Y: Tensor) -> Tensor:
    """Return targets as the compiled loops read them: contiguous, in float32 or float64."""
    if not (Y.is_contiguous() and Y.dtype in (torch.float32, torch.float64)):
        Y = resolved(Y)
        with all_threads():
            Y = (Y if Y.dtype == torch.float32 else Y.to(torch.float64)).contiguous()
    return held_whole(Y)


def _dense(values: Tensor | None) -> Tensor | None:
    return None if values is None else held(values.contiguous())


def _table(X: Tensor) -> _Table:
    """Describe a table that :func:`serves` and was made whole; or contiguous targets."""
    rows, columns = X.shape
    return address(X), X.dtype == torch.float32, rows, columns, X.stride()[0]


def _threads(X: Tensor, vectors: int = 1) -> int:
    rows, columns = X.shape
    return max(1, min(team(), rows * (columns + 1) * vectors // threads.NUMBERS_FOR_ONE))


@final
class Compiled(Engine):
    """Rows on a CPU at the speed of memory: each is read once for all that a pass needs of it.

    Serves tables of float32 or float64 whose rows are contiguous, see :func:`serves`; what else is given is made
    readable. The same call gives the same bits with any number of threads, but for products of matrices, which are
    split by threads.
    """

    @property
    @override
    def multiplies_bfloat16(self) -> bool:
        return multiplies_bfloat16()

    @property
    @override
    def sums_expansions(self) -> bool:
        return True

    @override
    def column_squares_(self, squares: Tensor, X: Tensor, weight: Tensor | None = None) -> None:
        assert library is not None
        X, weight = held_whole(X), _dense(weight)
        library.column_squares(_table(X), address(weight), (0, 0), address(squares), _threads(X))

    @override
    def spread_squares_(
        self, sums: Tensor, X: Tensor, scale: Tensor, shift: Tensor, weight: Tensor | None = None
    ) -> None:
        assert library is not None
        X, scale, shift, weight = held_whole(X), held(scale.contiguous()), held(shift.contiguous()), _dense(weight)
        taken = (address(scale), address(shift))
        library.column_squares(_table(X), address(weight), taken, address(sums), _threads(X))

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

        X, vectors, weight = held_whole(X), held(V.T.contiguous()), _dense(weight)
        shift = V.new_zeros(q) if offset is None else held(offset.contiguous())
        if Y is not None:
            Y = _readable(Y)
            y_scale = V.new_ones(Y.shape[1]) if y_scale is None else held(y_scale.contiguous())
        library.residual_pass(
            _table(X),
            None if Y is None else _table(Y),
            address(y_scale),
            address(weight),
            (address(vectors), address(shift), q),
            (address(sums.flat), group),
            _threads(X, q),
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
    ) -> None:
        assert library is not None
        if bfloat16 and not self.multiplies_bfloat16:
            by_blas = Blas().normal_equations_
            how = {"row_scale": row_scale, "x_scale": x_scale, "order": order, "factor": factor}
            by_blas(gram, cross, X, Y, y_scale, **how, ones=ones, bfloat16=True)
            return

        X, Y, y_scale = held_whole(X), _readable(Y), held(y_scale.contiguous())
        row_scale, x_scale, order, factor = _dense(row_scale), _dense(x_scale), _dense(order), _dense(factor)
        library.gram_add(
            _table(X),
            _table(Y),
            (address(row_scale), address(x_scale), address(y_scale)),
            (address(order), 0 if order is None else order.shape[0]),
            (address(factor), ones, False),
            (address(gram), address(cross), _bits(gram, bfloat16)),
            _threads(X, max(1, X.shape[1] // threads.COLUMNS_AS_ONE_VECTOR)),
        )

    @override
    def row_gram_(self, gram: Tensor, X: Tensor, row_scale: Tensor) -> None:
        assert library is not None
        X, row_scale = held_whole(X), held(row_scale.contiguous())
        library.gram_add(
            _table(X),
            None,
            (0, address(row_scale), 0),
            (0, 0),
            (0, False, True),
            (address(gram), 0, _bits(gram, False)),
            _threads(X, max(1, X.shape[0] // threads.COLUMNS_AS_ONE_VECTOR)),
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
        X, Y, V, offset = held_whole(X), _readable(Y), held(V.contiguous()), held(offset.contiguous())
        weight, y_scale = _dense(weight), held(y_scale.contiguous())
        library.expansion_pass(
            _table(X),
            _table(Y),
            address(y_scale),
            address(weight),
            (address(V), address(offset)),
            address(sums),
            _threads(X, threads.EXPANSION_WORK * V.shape[1]),
        )

    @override
    def sketch_(self, sketch: Tensor, X: Tensor, targets: Tensor, factors: Tensor) -> None:
        assert library is not None
        X, targets, factors = held_whole(X), held(targets.contiguous()), held(factors.contiguous())
        taken = (address(targets), address(factors), targets.shape[1])
        library.sketch_add(_table(X), taken, address(sketch), _threads(X))


def _bits(gram: Tensor, bfloat16: bool) -> int:
    assert not bfloat16 or gram.dtype == torch.float32
    return 16 if bfloat16 else 8 * gram.dtype.itemsize

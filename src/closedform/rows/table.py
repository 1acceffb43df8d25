"""Rows of a regression problem: features, targets and weights, wherever the numbers live."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.engine.contract import Engine
from closedform.engine.threads import all_threads
from closedform.rows.ahead import read_ahead
from closedform.rows.block import Block, Extent, Readable
from closedform.rows.labels import check_alignment, column_names
from closedform.rows.source import Source
from closedform.rows.tensors import FloatSource, TensorSource, as_tensor, names_for
from closedform.rows.walkers import InOrder, Walker
from closedform.rows.walkers.walker import AnyFold
from closedform.words.errors import InputError
from closedform.words.text import printable

__all__ = ["Rows", "as_rows"]

#: Features, targets and weights (or None) of some rows, as they are stored.
_Part = tuple[Tensor, Tensor, Tensor | None]


@final
@dataclass(frozen=True, eq=False)
class Rows(Readable):
    """A table of features and targets that can be walked any number of times.

    Attributes:
        x: Source of the features, ``(rows, features)``.
        y: Source of the targets, ``(rows, targets)``.
        weight: Source of the sample weights, ``(rows,)``, or None.
        single_target: Whether the user's targets were one-dimensional.
        notes: What was done on the way in that the user should know.
        walker: Who runs folds over the rows.
        watcher: Who is told how far a pass has come, or None.
        total: How many rows all processes have together, where each reads its own; else None.
        before: Rows of other processes that come before these.
        chosen: Which targets of the rows that the walker reads, int64, or None for all.
        triangle_of: How many rows this is the triangle of (:meth:`Triangle.to_table`); None for the rows themselves.
    """

    x: Source
    y: Source
    weight: Source | None
    single_target: bool
    notes: tuple[str, ...] = ()
    walker: Walker = field(default_factory=InOrder)
    watcher: Callable[[str, float], None] | None = None
    triangle_of: int | None = None
    total: int | None = None
    before: int = 0
    chosen: Tensor | None = None

    @property
    def n_rows(self) -> int:
        """Rows of the table, those of weight zero included and those of all processes."""
        return self.x.shape[0] if self.total is None else self.total

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return self.x.shape[1]

    @property
    def n_targets(self) -> int:
        """Columns of Y."""
        return self.y.shape[1]

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """What the features are called, where their table has names."""
        return self.x.columns

    @property
    def target_names(self) -> tuple[str, ...] | None:
        """What the targets are called, where their table has names."""
        return self.y.columns

    @property
    def device(self) -> torch.device:
        """The device that the numbers are read to."""
        return self.x.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the weights are returned in: that of X, or float64 where X holds integers."""
        return self.x.dtype if self.x.dtype.is_floating_point else torch.float64

    @property
    def in_memory(self) -> bool:
        """Whether reading costs no I/O."""
        return self.x.in_memory

    @cached_property
    @override
    def extent(self) -> Extent:
        return Extent(self.x.shape[0], self.n_features, self.n_targets, self.in_memory)

    @cached_property
    def engine(self) -> Engine:
        """What multiplies with rows of X in their own dtype: compiled loops, BLAS or torch."""
        return engine_for(self.x.read(0, 1))

    def walk(self, fold: AnyFold) -> AnyFold:
        """Add every row to the fold, once, and return it."""
        return self.walker.walk(self, fold)

    def gather(self, *, as_stored: bool = False) -> Block:
        """Return all rows as one block, for square and wide systems; float64, or in the dtype of the table.

        Raises:
            InputError: the rows are not all to be had in one place.
        """
        return self.walker.gather(self, as_stored=as_stored)

    def loaded(self) -> Rows:
        """Return the same rows in memory, read once, for those who walk them thousands of times.

        Raises:
            InputError: the rows are not all to be had in one place.
        """
        whole = self.walker.gather(self, as_stored=True, unweighted=True)
        weight = None
        if self.weight is not None and whole.weight is not None:
            weight = TensorSource(_own(whole.weight), self.weight.name)
        x = _held(self.x, whole.X)
        y = _held(self.y, whole.Y)
        return replace(self, x=x, y=y, weight=weight)

    def watched(self, watcher: Callable[[str, float], None] | None) -> Rows:
        """Return the same rows, whose passes tell ``watcher`` a label and the part done, from 0 to 1."""
        return self if watcher is self.watcher else replace(self, watcher=watcher)

    def select(self, targets: Tensor) -> Rows:
        """Return the rows with some of the targets, in the order of the index tensor; nothing is read."""
        chosen = targets if self.chosen is None else self.chosen[targets]
        return replace(self, y=_SelectedSource(self.y, targets), chosen=chosen)

    def chosen_as(self, table: Readable) -> Rows:
        """Return some of the rows of ``table``, read elsewhere, with the targets that it has."""
        return self if table.chosen is None else self.select(table.chosen)

    @override
    def report(self, label: str, part: float) -> None:
        if self.watcher is not None:
            with all_threads():
                self.watcher(label, part)

    @override
    def block(self, start: int, stop: int, *, as_stored: bool = False, unweighted: bool = False) -> Block:
        return self._to_block(start, self._read(start, stop), as_stored=as_stored, unweighted=unweighted)

    @override
    def blocks(self, size: int, *, as_stored: bool = False, unweighted: bool = False) -> Generator[Block]:
        if as_stored and self.weight is None and self.in_memory and 0 < self.x.shape[0] <= size:
            return self._one_block()
        if self.in_memory:
            return super().blocks(size, as_stored=as_stored, unweighted=unweighted)
        return self._blocks_ahead(size, as_stored=as_stored, unweighted=unweighted)

    def _one_block(self) -> Generator[Block]:
        """Return all rows of a table that is no larger than a block, put together once for all passes.

        Yields:
            The block.
        """
        yield self._whole

    @cached_property
    def _whole(self) -> Block:
        return self.block(0, self.x.shape[0], as_stored=True)

    def _blocks_ahead(self, size: int, *, as_stored: bool, unweighted: bool) -> Generator[Block]:
        """Return the blocks of a table whose rows cost I/O: the next ones are read while one is worked on.

        Yields:
            The blocks.
        """
        n_rows = self.extent.n_rows
        _ = self.engine  # It reads a row, which must not be while another thread reads.
        starts = range(0, n_rows, size)
        reads = [partial(self._read, start, min(start + size, n_rows)) for start in starts]
        with closing(read_ahead(reads)) as parts:
            for start, part in zip(starts, parts, strict=True):
                yield self._to_block(start, part, as_stored=as_stored, unweighted=unweighted)

    def _read(self, start: int, stop: int) -> _Part:
        """Read rows as they are stored."""
        weight = None if self.weight is None else self.weight.read(start, stop)
        return self.x.read(start, stop), self.y.read(start, stop), weight

    def _to_block(self, start: int, part: _Part, *, as_stored: bool, unweighted: bool) -> Block:
        # Float64 tables in memory are handed out as views, never copied.
        X, Y, weight = part
        if not as_stored and not X.dtype == Y.dtype == torch.float64:
            with all_threads():
                X, Y = X.to(torch.float64), Y.to(torch.float64)

        weight = None if weight is None else weight.to(torch.float64)
        if weight is not None and not unweighted and not bool(weight.all()):
            # Whatever stands in rows of weight zero, scaled by what suits the others, could leave the range of float64.
            with all_threads():
                absent = (weight == 0).unsqueeze(1)
                X, Y = X.masked_fill(absent, 0), Y.masked_fill(absent, 0)
        return Block(start, X, Y, weight, self.engine if as_stored else engine_for(X), self.before)


def as_rows(X: Any, Y: Any, sample_weight: Any = None, *, empty: bool = False) -> Rows:
    """Check shapes and kinds at the public door and return the table.

    Args:
        X: Features, ``(rows, features)`` or ``(..., features)`` as ``nn.Linear`` takes them; anything that
            :func:`closedform.rows.tensors.as_tensor` reads, or a :class:`Source`.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``, or with the leading dimensions of X.
        sample_weight: One non-negative weight per row, or None.
        empty: Whether there may be no rows at all, of ``(0, features)``.

    Raises:
        InputError: empty tables, or shapes or labels of rows that do not belong together.
        DataTypeError: data that are not dense real numbers.
    """
    check_alignment(X=X, Y=Y, sample_weight=sample_weight)
    x = _as_source(X, "X")
    y = _as_source(Y, "Y")
    if len(x.shape) == 1:
        raise InputError(
            f"X has shape {x.shape}, but features come as (rows, features). "
            "Use X.reshape(-1, 1) for one feature, or X.reshape(1, -1) for one row."
        )
    if len(x.shape) == 0 or len(y.shape) == 0:
        raise InputError(f"X has shape {x.shape} and Y has shape {y.shape}; a single number is not a table.")
    leading, n_features = x.shape[:-1], x.shape[-1]
    empty = empty and x.shape[0] == 0 and len(x.shape) == 2
    if 0 in (x.shape[1:] if empty else x.shape):
        raise InputError(f"X is empty: its shape is {x.shape}. At least one row and one feature are needed.")

    single_target = y.shape == leading
    if not single_target and y.shape[:-1] != leading:
        hint = ""
        if len(y.shape) == 2 and y.shape[1] == leading[0]:
            hint = " Y looks transposed: pass Y.T."
        raise InputError(
            f"X has shape {x.shape} and Y has shape {y.shape}: the rows do not match. Y must be "
            f"{leading} or ({', '.join([*map(str, leading), 'targets'])}).{hint}"
        )
    if 0 in (y.shape[1:] if empty else y.shape):
        raise InputError(f"Y is empty: its shape is {y.shape}. At least one target is needed.")

    n_rows = 1
    for size in leading:
        n_rows *= size
    n_targets = 1 if single_target else y.shape[-1]
    weight = None if sample_weight is None else _as_source(sample_weight, "sample_weight")
    if weight is not None and weight.shape not in (leading, (*leading, 1)):
        raise InputError(f"sample_weight has shape {weight.shape}; one weight per row of X is needed: {leading}.")
    sources = [x, y] + ([] if weight is None else [weight])
    for source in sources[1:]:
        if source.device != x.device:
            raise InputError(
                f"X is on {x.device} but {source.name} is on {source.device}; move both to the same device."
            )
    if x.device.type == "mps":
        raise InputError("X is on the mps device, which has no float64; pass X.cpu() and Y.cpu().")

    notes = [note for source in sources for note in source.notes]
    return Rows(
        x=_reshape(x, (n_rows, n_features)),
        y=_reshape(y, (n_rows, n_targets)),
        weight=None if weight is None else _reshape(weight, (n_rows,)),
        single_target=single_target,
        notes=tuple(notes),
    )


def _own(values: Tensor) -> Tensor:
    """Return values that autograd can save: of what was made under ``torch.inference_mode`` a copy."""
    return values.clone() if values.is_inference() else values


def _held(source: Source, values: Tensor) -> TensorSource:
    """Return the values of a source, read, as a source of their own."""
    return TensorSource(_own(values), source.name, stored_dtype=source.stored_dtype, columns=source.columns)


def _as_source(data: Any, name: str) -> Source:
    if isinstance(data, Source):
        source = data
    else:
        tensor, notes = as_tensor(data, name)
        source = TensorSource(tensor, name, notes, columns=_printable_names(data))
    return source if source.dtype.is_floating_point else FloatSource(source)


def _printable_names(data: Any) -> tuple[str, ...] | None:
    names = None if isinstance(data, Tensor) else column_names(data)
    return None if names is None else tuple(map(printable, names))


@final
class _ReshapedSource(Source):
    """A source whose rows are read with other leading dimensions, where reading in place is possible."""

    def __init__(self, source: Source, shape: tuple[int, ...]) -> None:
        self.source = source
        self.name, self.dtype, self.device = source.name, source.dtype, source.device
        self.in_memory, self.notes = source.in_memory, source.notes
        self.shape = shape
        self.columns = names_for(source.columns, shape)
        self.rows_per_outer_row = max(shape[0] // max(source.shape[0], 1), 1)

    @property
    @override
    def stored_dtype(self) -> torch.dtype:
        return self.source.stored_dtype

    @override
    def read(self, start: int, stop: int) -> Tensor:
        inner = self.rows_per_outer_row
        outer_start, outer_stop = start // inner, -(-stop // inner)
        rows = self.source.read(outer_start, outer_stop).reshape(-1, *self.shape[1:])
        return rows[start - outer_start * inner : stop - outer_start * inner]


@final
class _SelectedSource(Source):
    """Some columns of a source."""

    def __init__(self, source: Source, chosen: Tensor) -> None:
        self.source, self._chosen = source, chosen
        self.name, self.dtype, self.device = source.name, source.dtype, source.device
        self.in_memory, self.notes = source.in_memory, source.notes
        self.shape = (source.shape[0], chosen.shape[0])
        names = source.columns
        self.columns = None if names is None else tuple(names[position] for position in chosen.tolist())

    @property
    @override
    def stored_dtype(self) -> torch.dtype:
        return self.source.stored_dtype

    @override
    def read(self, start: int, stop: int) -> Tensor:
        return self.source.read(start, stop)[:, self._chosen]


def _reshape(source: Source, shape: tuple[int, ...]) -> Source:
    if source.shape == shape:
        return source
    viewed = source.viewed(shape) if isinstance(source, TensorSource) else None
    return _ReshapedSource(source, shape) if viewed is None else viewed

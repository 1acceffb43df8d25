"""Rows that come in batches from something that can be read again: a DataLoader, a dataset, a factory of iterators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate
from typing_extensions import override

from closedform.numerics.row_hash import hash_rows
from closedform.rows.block import Block, Readable
from closedform.rows.shifted import Shifted
from closedform.rows.source import Source
from closedform.rows.table import Rows, as_rows
from closedform.rows.tensors import TensorSource
from closedform.rows.unnumbered import UnnumberedSource, agreed_names, whole_numbers_notes
from closedform.rows.walkers import InOrder, Walker
from closedform.rows.walkers.walker import AnyFold
from closedform.words.errors import ClosedformError, DataTypeError, InputError

__all__ = ["Stream", "is_one_shot", "stream_rows"]

#: Rows of small batches that are put together before a pass works on them.
_ROWS_AT_ONCE = 4096
#: Batch size by which a dataset without batches is read.
_BATCH = 1024
#: Dimensions of the features of a batch at least; those of a row have one less.
_BATCH_DIMENSIONS = 2
#: Said of its tables where somebody reads rows of them by number.
_WHAT = "comes in batches"
#: What fields= may name.
_FIELDS = ("X", "Y", "sample_weight")


@final
class Stream:
    """Batches of rows, read anew whenever it is asked for them.

    Args:
        source: A ``DataLoader``, a map-style or iterable dataset, a Hugging Face dataset, any other iterable of
            batches, or a function without arguments that returns an iterator of batches.
        fields: Which part of a batch is what: ``{"X": "embedding", "Y": "score"}``, with keys of a dictionary or
            positions in a tuple, and ``"sample_weight"`` if there is one; None for pairs of features and targets.

    Raises:
        InputError: fields that are not understood.
        DataTypeError: nothing that yields batches.
    """

    def __init__(self, source: Any, fields: Mapping[str, Any] | None = None) -> None:
        named = isinstance(fields, Mapping) and {"X", "Y"} <= set(fields) <= set(_FIELDS)
        if fields is not None and not named:
            raise InputError(
                f"fields={fields!r}: it says which part of a batch is X and which is Y (and sample_weight), "
                "as {'X': 'features', 'Y': 'target'}."
            )
        self._open, self._fields = _opener(source), fields
        self.name = type(source).__name__

    def tables(self) -> Iterator[Rows]:
        """Read all batches once more.

        Yields:
            Their rows, those of small batches together.

        Raises:
            InputError: batches that are not understood, or do not belong together.
        """
        waiting: list[Rows] = []
        held, names = 0, None
        for number, batch in enumerate(self._batches()):
            rows = self._to_rows(batch, number)
            if not rows.n_rows:
                continue
            names = agreed_names(names, rows.feature_names, f"batch {number}")
            if waiting and (rows.n_features, rows.n_targets) != (waiting[0].n_features, waiting[0].n_targets):
                raise InputError(
                    f"batch {number} has {rows.n_features} features and {rows.n_targets} targets, those before have "
                    f"{waiting[0].n_features} and {waiting[0].n_targets}."
                )
            waiting.append(rows)
            held += rows.n_rows
            if held >= _ROWS_AT_ONCE:
                yield _joined(waiting)
                waiting, held = waiting[:0], 0
        if waiting:
            yield _joined(waiting)

    def _batches(self) -> Iterator[Any]:
        """Begin a pass.

        Yields:
            Its batches.

        Raises:
            InputError: reading one failed, in the user's own code or in torch's.
            ClosedformError: it was raised there, and says already what is wrong.
            MemoryError: likewise; the batches may be fine.
        """
        done = 0
        try:
            for batch in self._open():
                yield batch
                done += 1
        except (ClosedformError, MemoryError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(f"the {self.name} failed at batch {done}: {type(error).__name__}: {reason}") from error

    def _to_rows(self, batch: Any, number: int) -> Rows:
        parts = self._parts(batch, number)
        try:
            return as_rows(*parts, empty=True)
        except (InputError, DataTypeError) as error:
            raise type(error)(f"batch {number}: {error}") from error

    def _parts(self, batch: Any, number: int) -> tuple[Any, Any, Any]:
        """Return features, targets and weights of a batch.

        Raises:
            InputError: it is not a pair, and nobody said which part is what.
        """
        fields = self._fields
        if fields is None:
            if isinstance(batch, tuple | list) and len(batch) == 2:
                return batch[0], batch[1], None
            what = f"a {type(batch).__name__}"
            example: dict[str, Any] = {"X": 0, "Y": 1}
            if isinstance(batch, Mapping):
                what, keys = f"a dictionary with {', '.join(map(repr, batch))}", [*batch, "...", "..."]
                example = {"X": keys[0], "Y": keys[1]}
            elif isinstance(batch, tuple | list):
                what = f"{len(batch)} parts"
            raise InputError(
                f"batch {number} is {what}, and pairs (X, Y) are needed; say which part is what, as fields={example!r}."
            )

        try:
            weight = batch[fields["sample_weight"]] if "sample_weight" in fields else None
            return batch[fields["X"]], batch[fields["Y"]], weight
        except (KeyError, IndexError, TypeError) as error:
            held = ", ".join(map(repr, batch)) if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
            raise InputError(f"batch {number} has no part {error}, which fields= names; it holds {held}.") from error


def is_one_shot(source: Any) -> bool:
    """Return whether something yields batches only once: a generator, or another iterator.

    Example:
        >>> is_one_shot(iter([])), is_one_shot([])
        (True, False)
    """
    return hasattr(type(source), "__next__")


def stream_rows(stream: Stream) -> Rows:
    """Read a stream once, to count its rows, and return them as a table that is walked by reading it again.

    Raises:
        InputError: there are no batches, or they are not understood.
    """
    first: Rows | None = None
    weighted, content, dtypes = False, _Content(), [torch.float16, torch.float16]
    for rows in stream.tables():
        _check_columns(first, rows, content.count)
        x, y = rows.x.dtype, rows.y.dtype
        dtypes = [x, y] if first is None else [torch.promote_types(a, b) for a, b in zip(dtypes, (x, y), strict=True)]
        first = rows if first is None else first
        weighted = weighted or rows.weight is not None
        content.add(rows)
    if first is None:
        raise InputError(f"the {stream.name} yielded no rows.")

    count = content.count
    x_source = UnnumberedSource(first.x, dtypes[0], (count, first.n_features), _WHAT)
    y_source = UnnumberedSource(first.y, dtypes[1], (count, first.n_targets), _WHAT)
    notes = [*first.notes, f"X is a {stream.name}: its rows are read again for each pass"]
    notes += whole_numbers_notes(stream.name, first.y.stored_dtype)
    return replace(
        first,
        x=x_source,
        y=y_source,
        weight=UnnumberedSource(first.weight, torch.float64, (count,), _WHAT) if first.weight is not None else None,
        walker=_Again(stream, content),
        notes=tuple(notes),
    )


def _check_columns(first: Rows | None, rows: Rows, start: int) -> None:
    if first is None:
        return
    if (rows.n_features, rows.n_targets) != (first.n_features, first.n_targets):
        raise InputError(
            f"from row {start} on the batches have {rows.n_features} features and {rows.n_targets} targets, those "
            f"before have {first.n_features} and {first.n_targets}."
        )
    if (rows.weight is None) != (first.weight is None):
        raise InputError(f"from row {start} on the batches have a sample_weight or have none, unlike those before.")


@final
class _Again(Walker):
    """Reads the stream once more for each pass, and refuses one whose rows are then others.

    They may come in another order; where a pass goes by the numbers of rows, that is refused as well.
    """

    def __init__(self, stream: Stream, content: _Content) -> None:
        self._stream, self._before = stream, content

    def _tables(self, *, by_number: bool = False) -> Iterator[Rows]:
        before, content = self._before, _Content()
        for rows in self._stream.tables():
            yield rows
            content.add(rows)
        if (content.count, content.mark) != (before.count, before.mark):
            more = content.count != before.count
            what = f"{content.count} rows, and {before.count} before" if more else "other numbers than before"
            raise InputError(
                f"the {self._stream.name} yielded {what}: its passes differ (random augmentation, sampling with "
                "replacement, a sampler that drops rows?). Make them alike, or read once with cf.Accumulator."
            )
        self._before = content
        if by_number and content.order != before.order:
            raise InputError(
                f"the {self._stream.name} yielded its rows in another order than before, and here certain rows are "
                "left out by their number: those of a fold, or those of which a fit keeps next to nothing back. Have "
                "it yield them in one order (shuffle=False), or choose by select='gcv'."
            )

    @override
    def walk(self, table: Readable, fold: AnyFold) -> AnyFold:
        start = 0
        for rows in self._tables(by_number=fold.by_number):
            part = Shifted(rows.chosen_as(table), start)
            InOrder().walk(part, fold)
            start += rows.n_rows
            table.report(fold.label, min(start / self._before.count, 1.0))
        return fold

    @override
    def gather(self, table: Readable, *, as_stored: bool, unweighted: bool = False) -> Block:
        extent = table.extent
        if extent.n_rows > extent.n_features:
            raise InputError(
                f"all {extent.n_rows:,} rows of the {self._stream.name} are needed at once, and it is read in batches; "
                "pass tensors or a file."
            )
        whole = _joined(list(self._tables())).chosen_as(table)
        return whole.block(0, whole.n_rows, as_stored=as_stored, unweighted=unweighted)


def _opener(source: Any) -> Callable[[], Iterable[Any]]:
    """Return a function that begins a pass.

    Raises:
        DataTypeError: nothing that yields batches.
    """
    if hasattr(source, "column_names") and hasattr(type(source), "iter"):
        return lambda: _column_batches(source)
    if isinstance(source, Mapping):
        parts = ", ".join(map(repr, source))
        raise DataTypeError(f"X is a {type(source).__name__} of {parts or 'nothing'}; pass one of its parts, X[...].")
    if isinstance(source, torch.utils.data.IterableDataset):
        return lambda: _in_batches(source)
    if isinstance(source, torch.utils.data.Dataset):
        return lambda: map(_by_rows, torch.utils.data.DataLoader(source, batch_size=_BATCH))
    if getattr(source, "collate_fn", None) is default_collate:
        return lambda: map(_by_rows, source)
    if hasattr(type(source), "__iter__"):
        return lambda: source
    if callable(source):
        return source
    raise DataTypeError(
        f"X is a {type(source).__name__} and there is no Y; pass Y, or something that yields batches (X, Y)."
    )


def _column_batches(source: Any) -> Iterator[dict[str, Any]]:
    """Read a dataset of Hugging Face: columns on disk, of which whole slices are taken.

    Its arrays are of float32 where no type is asked for, also of columns that are stored in float64.

    Yields:
        The columns of some rows, in the types they are stored in.
    """
    features = source.features or {}
    doubles = [name for name, feature in features.items() if _stored_type(feature) == "float64"]
    others = [name for name in features if name not in doubles]
    parts = []
    if doubles or not features:
        # An iterable dataset takes no type for its arrays, and may not know those of its columns: they come as lists.
        form = ("numpy", {"dtype": np.float64}) if hasattr(type(source), "__len__") else (None, {})
        parts.append((source.select_columns(doubles) if others else source).with_format(form[0], **form[1]))
    if others:
        parts.append((source.select_columns(others) if doubles else source).with_format("numpy"))
    for batch in zip(*(part.iter(batch_size=_BATCH) for part in parts), strict=True):
        yield {name: np.asarray(values) for part in batch for name, values in part.items()}


def _stored_type(feature: Any) -> str | None:
    """Return the type of the numbers of a column, also of those in its lists."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return getattr(feature, "dtype", None)


def _in_batches(source: torch.utils.data.IterableDataset[Any]) -> Iterator[Any]:
    """Read an iterable dataset, which yields rows, or batches where it makes them itself."""
    items = iter(source)
    first = next(items, None)
    if first is None:
        return iter(())
    everything = chain([first], items)
    parts = first.values() if isinstance(first, Mapping) else first if isinstance(first, tuple | list) else [first]
    # Of batches each part has at least one dimension, and features two.
    if max((np.ndim(part) for part in parts), default=0) >= _BATCH_DIMENSIONS:
        return everything
    return (_by_rows(default_collate(rows)) for rows in iter(lambda: list(islice(everything, _BATCH)), []))


def _by_rows(batch: Any) -> Any:
    """Return a batch with each part by rows: of rows that are lists of numbers torch's collation makes columns."""
    if isinstance(batch, Mapping):
        return {name: _stacked(part) for name, part in batch.items()}
    return [_stacked(part) for part in batch] if isinstance(batch, list | tuple) else batch


def _stacked(part: Any) -> Any:
    columns = isinstance(part, list | tuple) and all(isinstance(each, Tensor) and each.dim() == 1 for each in part)
    return torch.stack(tuple(part), 1) if columns and part else part


def _joined(tables: list[Rows]) -> Rows:
    """Return small tables as one.

    Raises:
        InputError: some have weights, and others none.
    """
    if len(tables) == 1:
        return tables[0]
    weights = [part.weight.read(0, part.n_rows) for part in tables if part.weight is not None]
    if weights and len(weights) < len(tables):
        raise InputError("some batches have a sample_weight, and others have none.")
    first = tables[0]
    x = torch.cat([part.x.read(0, part.n_rows) for part in tables])
    y = torch.cat([part.y.read(0, part.n_rows) for part in tables])
    features, targets = _as_first(x, [part.x for part in tables]), _as_first(y, [part.y for part in tables])
    whole = as_rows(features, targets, torch.cat(weights) if weights else None)
    return replace(whole, single_target=first.single_target)


def _as_first(joined: Tensor, parts: Sequence[Source]) -> Source:
    """Return the rows of several tables with the names of the first, and the type in which all were stored."""
    first, stored = parts[0], parts[0].stored_dtype
    for part in parts:
        stored = torch.promote_types(stored, part.stored_dtype)
    return TensorSource(joined, first.name, first.notes, stored_dtype=stored, columns=first.columns)


@final
class _Content:
    """What a pass yielded: how many rows, a number of all their bits, and one of their order as well.

    Each row is mixed by itself, so that the first number does not depend on the order.
    """

    def __init__(self) -> None:
        self.count = self.mark = self.order = 0

    def add(self, rows: Rows) -> None:
        """Add rows that come next."""
        hashes = _hashes(rows)
        places = 2 * torch.arange(self.count, self.count + rows.n_rows, device=hashes.device) + 1
        self.count += rows.n_rows
        self.mark = (self.mark + int(hashes.sum())) % 2**64
        self.order = (self.order + int((hashes * places).sum())) % 2**64


def _hashes(rows: Rows) -> Tensor:
    parts = [rows.x.read(0, rows.n_rows), rows.y.read(0, rows.n_rows)]
    if rows.weight is not None:
        parts.append(rows.weight.read(0, rows.n_rows).unsqueeze(1))
    *features, last = (part.to(torch.float64) for part in parts)
    return hash_rows(torch.cat(features, 1), last)

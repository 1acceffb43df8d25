"""One fit of several processes: each opens its own rows, and all must ask for the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.plan import Traffic
from closedform.fit.request import Request
from closedform.fit.weights import Weights
from closedform.rows import Rows, Source, as_rows
from closedform.rows.dask_tables import dask_rows, is_dask
from closedform.rows.walkers.process_group import ProcessGroup
from closedform.words.errors import InputError

__all__ = ["agreed", "agreed_request", "check_agreed", "open_rows", "traffic_of"]

#: What a process asks for.
_Asked = TypeVar("_Asked")

#: What may name files, or columns of a frame.
_NAMES = (str, os.PathLike, list, tuple, int, np.integer)


def open_rows(
    X: Any,
    Y: Any,
    sample_weight: Any,
    *,
    fields: Mapping[str, Any] | None = None,
    group: Any = None,
    check: Callable[[Rows], None] = lambda rows: None,
) -> Rows:
    """Open the rows of a fit: those of this process, which with a group are a part of all.

    Args:
        X: Features, as for :func:`closedform.solve`.
        Y: Targets.
        sample_weight: Weights, or None.
        fields: Which part of a batch is what, where X yields batches.
        group: A group of ``torch.distributed``, or None.
        check: What else is wrong with them; raises.

    Raises:
        InputError: they do not belong together, or on another process; with a group the same is raised on all.
    """

    def read() -> Rows:
        if Y is None or fields is not None:
            rows = _open_stream(X, Y, sample_weight, fields)
        else:
            tables = X, Y, sample_weight
            if any(isinstance(table, _NAMES) for table in tables):
                from closedform.files import open_problem  # loaded only where something may be a path or a column

                opened = open_problem(*tables)
                tables = opened.X, opened.Y, opened.sample_weight
            if is_dask(tables[0]) or is_dask(tables[1]):
                rows = dask_rows(*tables)
            else:
                rows = as_rows(*tables, empty=group is not None)
        check(rows)
        return rows

    if group is not None:
        return _shared(read, ProcessGroup(group))
    rows, size = read(), os.environ.get("WORLD_SIZE", "1")
    if size.isascii() and size.isdigit() and int(size) > 1:
        # torch.distributed.group.WORLD is None until the group is initialised.
        rows = replace(rows, notes=(*rows.notes, f"one of {size} processes, without group=: a fit of its rows alone"))
    return rows


def _open_stream(X: Any, Y: Any, sample_weight: Any, fields: Mapping[str, Any] | None) -> Rows:
    """Open what yields batches; what yields them only once is folded here, and its triangle takes its place.

    Raises:
        InputError: X is a table, or there are weights or targets beside the batches.
    """
    if isinstance(X, str | os.PathLike) or hasattr(X, "dtype") or hasattr(X, "dtypes"):
        raise InputError(f"X is a {type(X).__name__}, and Y is missing: pass the targets, solve(X, Y).")
    if Y is not None or sample_weight is not None:
        raise InputError(
            "X yields batches, and they hold the targets and weights: leave Y and sample_weight out, and say with "
            "fields={'X': ..., 'Y': ..., 'sample_weight': ...} which part of a batch is what."
        )
    from closedform.rows.accumulated import Accumulated  # both loaded only where batches are given
    from closedform.rows.streams import Stream, is_one_shot, stream_rows

    stream = Stream(X, fields)
    if not is_one_shot(X):
        return stream_rows(stream)

    sums: Accumulated | None = None
    single = True
    for rows in stream.tables():
        sums = Accumulated(rows.n_features, rows.n_targets, rows.device) if sums is None else sums
        if not sums.takes(rows):
            raise InputError(
                f"after {sums.rows:,} rows the batches have {rows.n_features} features and {rows.n_targets} targets."
            )
        single = rows.single_target
        sums.heed(rows.x.stored_dtype, rows.y.stored_dtype)
        rows.walk(sums)
    if sums is None or not sums.rows:
        raise InputError(f"the {stream.name} yielded no rows; a generator that was used up already?")
    note = f"X is a {stream.name}, which can be read once: its rows were folded into a triangle, which was solved"
    folded = sums.to_rows(single_target=single)
    return replace(folded, notes=(*folded.notes, note))


def agreed_request(rows: Rows, make: Callable[[], Request]) -> Request:
    """Return the request, which must be the same on all processes that these rows are spread over.

    Args:
        rows: The rows.
        make: Checks the arguments and returns the request of this process.

    Raises:
        InputError: processes ask for different fits.
    """
    request = agreed(rows, make, _asked)
    walker = rows.walker
    if not isinstance(walker, ProcessGroup):
        return request

    if request.kernel:
        raise InputError("kernel=True with group= is not available: a kernel matrix is between all rows.")
    near = request.nearest_to
    if near is not None:
        # Layers that were not synchronised: that of rank 0 counts for all.
        weight, bias = walker.each((near.weight.cpu(), None if near.bias is None else near.bias.cpu()))[0]
        near = Weights(weight.to(rows.device), None if bias is None else bias.to(rows.device))
    return replace(request, nearest_to=near)


def _asked(request: Request) -> list[tuple[str, Any]]:
    return [
        ("bias", request.bias),
        ("l2", request.strengths),
        ("digits", request.digits),
        ("method", request.method),
        ("rcond", request.rcond),
        ("kernel", request.kernel),
        ("dtype", str(request.dtype)),
        ("nearest_to", request.nearest_to is not None),
    ]


def agreed(rows: Rows, make: Callable[[], _Asked], asked: Callable[[_Asked], list[tuple[str, Any]]]) -> _Asked:
    """Return what is asked for, which must be the same on all processes that these rows are spread over.

    Args:
        rows: The rows.
        make: Checks the arguments and returns what this process asks for.
        asked: Returns the names and values in which the processes must agree.

    Raises:
        InputError: they do not agree, or the arguments of one are wrong; raised on all.
    """
    if not isinstance(rows.walker, ProcessGroup):
        return make()
    request = rows.walker.together(make)
    check_agreed(rows.walker, asked(request))
    return request


def check_agreed(walker: ProcessGroup, asked: Sequence[tuple[str, Any]]) -> None:
    """Check that all processes ask for the same.

    Args:
        walker: The processes.
        asked: Names of arguments, and their values on this process.

    Raises:
        InputError: they do not; raised on all.
    """
    every = walker.each(asked)
    for rank, others in enumerate(every):
        for (name, other), (_, first) in zip(others, every[0], strict=True):
            if other != first:
                raise InputError(
                    f"{name} is {first!r} on rank 0 and {other!r} on rank {rank}; ask for the same on all."
                )


def traffic_of(rows: Rows) -> Traffic | None:
    """Return what the processes did together so far, or None where there is only one."""
    walker = rows.walker
    return Traffic(walker.size, rows.n_rows, walker.passes, walker.sent) if isinstance(walker, ProcessGroup) else None


@final
class _Told(NamedTuple):
    """What the processes tell each other of their rows."""

    rows: int
    features: int
    targets: int
    single: bool
    weighted: bool
    x_dtype: torch.dtype
    y_dtype: torch.dtype
    names: tuple[str, ...] | None


def _shared(read: Callable[[], Rows], walker: ProcessGroup) -> Rows:
    rows = walker.together(read)
    walker.inner = rows.walker
    told = walker.each(
        _Told(
            rows.x.shape[0],
            rows.n_features,
            rows.n_targets,
            rows.single_target,
            rows.weight is not None,
            rows.x.dtype,
            rows.y.dtype,
            rows.feature_names,
        )
    )
    filled = [rank for rank, one in enumerate(told) if one.rows]
    if not filled:
        raise InputError("no process of the group has any rows; at least one row and one feature are needed.")
    _check_alike(told, filled)

    # All make the same decisions, so all have the same kind of table.
    x_dtype, y_dtype = told[filled[0]].x_dtype, told[filled[0]].y_dtype
    for rank in filled:
        x_dtype = torch.promote_types(x_dtype, told[rank].x_dtype)
        y_dtype = torch.promote_types(y_dtype, told[rank].y_dtype)
    mixed = any((told[rank].x_dtype, told[rank].y_dtype) != (x_dtype, y_dtype) for rank in filled)
    weighted = told[filled[0]].weighted
    weight = rows.weight if weighted else None
    if weighted and weight is None:
        weight = _Converted(rows.y, torch.float64, (0,))
    notes = rows.notes
    if mixed:
        notes = (*notes, f"the processes hold different dtypes, taken as {x_dtype} and {y_dtype}")
    return replace(
        rows,
        x=_Converted(rows.x, x_dtype) if rows.x.dtype != x_dtype or mixed else rows.x,
        y=_Converted(rows.y, y_dtype, (0, told[filled[0]].targets) if not rows.x.shape[0] else None)
        if rows.y.dtype != y_dtype or mixed or not rows.x.shape[0]
        else rows.y,
        weight=weight,
        single_target=told[filled[0]].single,
        notes=notes,
        walker=walker,
        total=sum(one.rows for one in told),
        before=sum(one.rows for one in told[: walker.rank]),
    )


def _check_alike(told: list[_Told], filled: list[int]) -> None:
    """Refuse tables that are no parts of one.

    Raises:
        InputError: with the first process that differs.
    """
    first = filled[0]
    for rank, one in enumerate(told):
        if one.features != told[first].features:
            raise InputError(
                f"rank {first} has {told[first].features} features and rank {rank} has {one.features}; all processes "
                "need the same columns."
            )
    for rank in filled:
        one, other = told[first], told[rank]
        if (one.targets, one.single) != (other.targets, other.single):
            raise InputError(
                f"rank {first} has {one.targets} targets and rank {rank} has {other.targets}, or one of them a vector; "
                "all processes need the same shape of Y."
            )
        if one.weighted != other.weighted:
            has, lacks = (first, rank) if one.weighted else (rank, first)
            raise InputError(f"rank {has} has sample_weight and rank {lacks} has none; pass it on all or on none.")
        if one.names and other.names and one.names != other.names:
            raise InputError(f"the columns of X have other names on rank {rank} than on rank {first}; use one order.")


@final
class _Converted(Source):
    """A source in the dtype that all processes take; of no rows where it is given another shape."""

    def __init__(self, source: Source, dtype: torch.dtype, shape: tuple[int, ...] | None = None) -> None:
        self.source, self.dtype = source, dtype
        self.name, self.device, self.columns = source.name, source.device, source.columns
        self.in_memory, self.notes = source.in_memory, source.notes
        self.shape = source.shape if shape is None else shape

    @override
    def read(self, start: int, stop: int) -> Tensor:
        if self.shape != self.source.shape:
            return torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        return self.source.read(start, stop).to(self.dtype)

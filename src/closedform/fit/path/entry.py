"""The door: every ridge strength from one factor, exact leave-one-out, and the certified fit at the best one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from closedform.engine.tracing import untraced
from closedform.files import open_problem
from closedform.fit.accumulator import Accumulator
from closedform.fit.orchestrator import solve_rows
from closedform.fit.path.folded import FoldedTable, accumulators_in, merged
from closedform.fit.path.folds import check_folds, is_by_row, numbers_in
from closedform.fit.path.labels import label_scan
from closedform.fit.path.leave_one_out import LeftOut, left_out_of
from closedform.fit.path.result import RidgePath
from closedform.fit.path.search import Found, Search, Selection
from closedform.fit.path.strengths import check_strengths
from closedform.fit.path.table import PathTable
from closedform.fit.request import Request, Watcher, check_bias
from closedform.fit.sharing import agreed_request, check_agreed, open_rows
from closedform.fit.solution import Solution
from closedform.rows import OneHotRows, Rows, as_rows, scan
from closedform.rows.walkers.process_group import ProcessGroup
from closedform.words.arguments import truth_value, whole_number
from closedform.words.errors import InputError, OutOfRangeError
from closedform.words.progress import Progress

__all__ = ["left_out_residuals", "path_of_rows", "ridge_path"]

#: What ``scoring=`` takes.
_SCORINGS = ("mse", "mae", "density")


@untraced
def ridge_path(
    X: Any,
    Y: Any = None,
    *,
    l2: Any = None,
    bias: bool | None = None,
    sample_weight: Any = None,
    select: Any = "loo",
    per_target: bool = True,
    kernel: bool = False,
    scoring: str | None = None,
    group: Any = None,
    progress: Watcher = None,
) -> RidgePath:
    r"""Return the error of every ridge strength on rows it has not seen, from one factor, and the fit at the best one.

    Nothing is refitted: with the residual r and the leverage h of a row that was in, its residual when it is left out
    is ``r / (1 - h)`` (Allen 1974; Golub, Heath and Wahba 1979), and one factor of the rows gives both for all
    strengths. Where a row is interpolated (its leverage is 1 without a ridge) the limit of that quotient is used, which
    is what the fit of least norm to the other rows misses it by. Rows of weight zero do not count. No array of
    rows x strengths x targets is ever held.

    Args:
        X: Features, as for :func:`closedform.solve`; or a kernel matrix between the rows; or, without Y, an
            :class:`Accumulator` with ``select="gcv"``, or a list of them with ``select="gcv"`` or ``select=len(X)``,
            where each is a fold.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``.
        l2: Strengths to try, ``(strengths,)``, as in scikit-learn; zero is the fit without a ridge, of least norm where
            there are many. None makes a grid from the spectrum, and extends it where the best is at its end.
        bias: Whether the layer has a bias; it is not penalised. None is False; of an accumulator it is its own.
        sample_weight: One weight for each row, not negative; errors are weighted by them too.
        select: How errors are found: ``"loo"``, exact leave-one-out; ``"gcv"``, generalized cross-validation; a number
            of folds, a splitter such as scikit-learn's ``KFold``, the pairs of training and test rows that one made, or
            the number of the fold of each row, ``(rows,)``.
        per_target: Whether each target has a strength of its own; else one minimises the mean over the targets.
        kernel: Whether X is a symmetric kernel matrix: ``(K + l2 I) a = y``. Only with ``select="loo"`` or ``"gcv"``.
        scoring: What the choice makes least. ``"mse"``: the mean squared error; with leave-one-out also ``"mae"``, the
            mean absolute error, which ``errors`` then are; and for kernels ``"density"``: the other rows predict a row
            with a variance of its own, and the strength is taken under which the rows are most likely (Sundararajan and
            Keerthi 2001), while ``errors`` stay mean squares. None is ``"density"`` for the leave-one-out of a kernel,
            whose rows differ much in how well others predict them, and else ``"mse"``.
        group: A group of ``torch.distributed`` whose processes all call this, each with rows of its own, as for
            :func:`closedform.solve`; all return the same. A number of folds and a splitter are of the rows of all, in
            the order of the ranks; the fold of each row is given for the rows of each process.
        progress: As for :func:`closedform.solve`.

    Returns:
        A :class:`RidgePath`: ``strengths``, ``errors``, ``l2``, the certified ``solution``, ``plot()``, ``to_frame()``.

    Raises:
        InputError: strengths that are negative, not finite or missing; folds that are no partition of the rows or more
            than there are rows; all that :func:`closedform.solve` raises.
        NonFiniteError: NaN or infinities in the data.
        DataTypeError: data that are not dense real numbers.

    Example:
        >>> import torch, closedform as cf
        >>> generator = torch.Generator().manual_seed(0)
        >>> X = torch.randn(50, 3, dtype=torch.float64, generator=generator)
        >>> y = X[:, 0] + 0.5 * torch.randn(50, dtype=torch.float64, generator=generator)
        >>> path = cf.ridge_path(X, y, l2=[0.1, 1.0, 10.0])
        >>> tuple(path.errors.shape), path.solution.certificate.accepted
        ((3, 1), True)
    """
    started = time.perf_counter()
    kernel, select = _or_itself(truth_value(kernel), kernel), _read_select(select)
    parts = accumulators_in(X)
    if parts is not None:
        if group is not None:
            raise InputError("group= with an Accumulator: merge those of all processes, or pass the rows.")
        _check_folded(parts, Y, sample_weight, bias, select, kernel)
        selection = _checked(len(parts), select, per_target, kernel, scoring)
        path = _path_of_accumulators(parts, check_strengths(l2), selection)
        return replace(path, seconds=time.perf_counter() - started)

    rows = open_rows(X, Y, sample_weight, group=group)
    if rows.triangle_of is not None:
        raise InputError(
            f"X is a {type(X).__name__}, which is read once, and leaving rows out needs them again: pass what can be "
            "read again, or fold the batches into a cf.Accumulator and pass that with select='gcv'."
        )
    strengths, selection = _agreed(
        rows, l2, select, lambda folds: _checked(rows.n_rows, folds, per_target, kernel, scoring)
    )
    request = agreed_request(
        rows, lambda: Request.checked(rows, bias=False if bias is None else bias, kernel=kernel, progress=progress)
    )
    path = path_of_rows(rows, request, strengths, selection)
    return replace(path, seconds=time.perf_counter() - started)


def path_of_rows(rows: Rows, request: Request, strengths: Tensor | None, selection: Selection) -> RidgePath:
    """Return the path of rows that passed the door.

    Args:
        rows: The rows.
        request: What is asked of the fit; its strengths are those that are chosen here.
        strengths: In the user's units and order, or None for a grid from the spectrum.
        selection: How errors are found.

    Raises:
        InputError: as :func:`ridge_path`.
    """
    started = time.perf_counter()
    with Progress(request.progress) as report:
        watched = rows.watched(report.watcher)
        scanned = label_scan(watched, rows.y) if isinstance(rows.y, OneHotRows) else scan(watched)
        table = PathTable(watched, scanned, bias=request.bias, kernel=request.kernel)
        found = Search(table, selection).run(strengths)
        chosen = replace(request, strengths=tuple(found.l2.tolist()), progress=False)
        solution, notes = _solved(table, chosen)
    return _path(replace(found, notes=(*found.notes, *notes)), solution, selection, started)


def _solved(table: PathTable, request: Request) -> tuple[Solution, tuple[str, ...]]:
    """Return the fit at the strengths chosen, in a wider dtype where that of the rows cannot hold it, which is said.

    Raises:
        OutOfRangeError: float64 cannot hold it.
    """
    # What the search has found of the rows, the fit does not look for again.
    design = None if request.kernel else table.design
    try:
        return solve_rows(table.rows, request, table.scanned, design=design), ()
    except OutOfRangeError as error:
        if request.dtype == torch.float64:
            raise
        # Where the rows tell nothing, the strongest ridge is best and leaves weights next to zero.
        narrow, wider = str(request.dtype).removeprefix("torch."), torch.float64
        if request.dtype == torch.float16:
            wider = torch.float32
        said = str(error).split(";")[0]
        note = f"the weights are {str(wider).removeprefix('torch.')} where the features are {narrow}: {said}"
        return solve_rows(table.rows, replace(request, dtype=wider), table.scanned, design=design), (note,)


def _agreed(rows: Rows, l2: Any, select: Any, check: Callable[[Any], Selection]) -> tuple[Tensor | None, Selection]:
    """Return the strengths and how errors are found, which must be the same on all processes of a group.

    Args:
        rows: The rows.
        l2: As the user gave it.
        select: As the user gave it; the fold of each row is that of the rows of this process.
        check: Checks it for all rows.

    Raises:
        InputError: they are wrong, or processes ask for different paths.
    """
    walker = rows.walker
    if not isinstance(walker, ProcessGroup):
        return check_strengths(l2), check(select)

    parts = walker.gathered(lambda: numbers_in(select, rows.x.shape[0]) if is_by_row(select) else None)
    numbers = [part for part in parts if part is not None]
    whole = torch.cat(numbers) if len(numbers) == walker.size else select
    strengths, selection = walker.together(lambda: (check_strengths(l2), check(whole)))
    check_agreed(
        walker,
        [
            ("l2", None if strengths is None else tuple(strengths.tolist())),
            ("select", selection.name),
            ("per_target", selection.per_target),
            ("scoring", selection.scoring),
        ],
    )
    every = walker.each([] if selection.folds is None else selection.folds.tolist())
    if any(folds != every[0] for folds in every):
        raise InputError("select makes other folds on other ranks; give a splitter the same random_state on all.")
    return strengths, selection


def _path_of_accumulators(parts: Sequence[Accumulator], strengths: Tensor | None, selection: Selection) -> RidgePath:
    """Return the path of rows that were folded, each part one fold.

    Raises:
        InputError: fewer than two rows were.
    """
    started = time.perf_counter()
    whole = merged(parts)
    if len(whole) < 2:
        raise InputError(f"{whole}: a strength is chosen by rows that are left out, so at least 2 must count.")
    found = Search(FoldedTable([part.triangle for part in parts if len(part)]), selection).run(strengths)
    return _path(found, whole.solve(found.l2), selection, started)


def _path(found: Found, solution: Solution, selection: Selection, started: float) -> RidgePath:
    return RidgePath(
        strengths=found.strengths,
        errors=found.errors,
        standard_errors=found.standard_errors,
        degrees_of_freedom=found.degrees_of_freedom,
        l2=found.l2,
        solution=solution,
        select=selection.name,
        scoring=selection.scoring,
        interpolated_rows=found.interpolated,
        notes=found.notes,
        seconds=time.perf_counter() - started,
    )


@untraced
def left_out_residuals(
    X: Any, Y: Any, *, l2: Any, bias: bool = False, sample_weight: Any = None, kernel: bool = False
) -> Tensor:
    """Return the leave-one-out residual of every row at every strength, ``(strengths, rows, targets)``, float64.

    That array is as large as it sounds: :func:`ridge_path` sums what it holds without it. Rows of weight zero have nan.

    Args:
        X: Features, or a kernel matrix.
        Y: Targets.
        l2: Strengths.
        bias: Whether the layer has a bias.
        sample_weight: One weight for each row.
        kernel: Whether X is a kernel matrix.

    Raises:
        InputError: as :func:`ridge_path`.

    Example:
        >>> import closedform as cf
        >>> from closedform.fit.path import left_out_residuals
        >>> left_out_residuals([[1.0], [1.0], [1.0]], [1.0, 2.0, 6.0], l2=[0.0])[0, :, 0].round(decimals=12)
        tensor([-3.0000, -1.5000,  4.5000], dtype=torch.float64)
    """
    opened = open_problem(X, Y, sample_weight)
    rows = as_rows(opened.X, opened.Y, opened.sample_weight)
    request = Request.checked(rows, bias=bias, kernel=kernel)
    strengths = check_strengths(l2)
    if strengths is None:
        raise InputError("l2 is None; give the ridge strengths whose residuals are wanted.")
    table = PathTable(rows, scan(rows), bias=request.bias, kernel=request.kernel)
    strengths = strengths.to(rows.device)

    basis = table.basis(float(strengths.min()))
    whole, U, B = table.coordinates(basis)
    weight, counted = whole.weight, torch.ones(rows.n_rows, dtype=torch.bool, device=rows.device)
    if weight is not None:
        counted, weight = weight > 0, weight[weight > 0]
    residuals = _left_out(table, LeftOut(basis, strengths), U, B, weight)
    result = residuals.new_full((strengths.shape[0], rows.n_rows, rows.n_targets), torch.nan)
    result[:, counted] = residuals
    return result


def _left_out(table: PathTable, left_out: LeftOut, U: Tensor, B: Tensor, weight: Tensor | None) -> Tensor:
    """Return the residuals of the rows that count; of those of which rounding would show, from a table of their own."""
    residuals = left_out_of(left_out, U, B, weight)
    share = (U.new_ones(U.shape[0]) if weight is None else weight) / table.scanned.weight_sum if table.bias else 0.0
    doubtful = left_out.doubtful(U, left_out.leftovers(U, share))
    if doubtful is None:
        fitted, E = table.without_each(left_out)
        root = 1.0 if weight is None else weight[fitted].sqrt().unsqueeze(1)
        residuals[:, fitted] = left_out.basis.in_units(E.permute(1, 2, 0) / root)
        return residuals
    chosen = doubtful.nonzero().squeeze(1)
    held = table.held(table.numbers[chosen].cpu())
    for rows, E, _ in held.residuals(left_out.strengths):
        root = 1.0 if held.weight is None else held.weight[rows].sqrt().unsqueeze(1)
        residuals[:, chosen[rows]] = left_out.basis.in_units(E.permute(1, 2, 0) / root)
    return residuals


def _check_folded(
    parts: Sequence[Accumulator], Y: Any, sample_weight: Any, bias: Any, select: Any, kernel: Any
) -> None:
    """Check what goes with accumulators.

    Raises:
        InputError: what belongs to rows, another bias than theirs, or a way that needs the rows.
    """
    for name, value in (("Y", Y), ("sample_weight", sample_weight)):
        if value is not None:
            raise InputError(f"{name} was given with an Accumulator, which holds its targets and weights already.")
    if kernel is not False:
        raise InputError("kernel=True with an Accumulator: a kernel between the rows needs the rows.")
    if bias is not None and check_bias(bias) is not parts[0].bias:
        raise InputError(f"bias={bias!r}, but the accumulator was made with bias={parts[0].bias}.")
    folds = isinstance(select, int) and truth_value(select) is None and select == len(parts) >= 2
    if select != "gcv" and not folds:
        raise InputError(
            f"select={select!r} needs the rows, which an Accumulator does not keep; use select='gcv', or a list of "
            "accumulators, one for each fold, with select=len(list)."
        )


def _or_itself(plain: Any, value: Any) -> Any:
    return value if plain is None else plain


def _read_select(select: Any) -> Any:
    """Return how errors are to be found as it is checked: NumPy's integers as Python's, and of an iterator a list."""
    if hasattr(type(select), "__next__"):
        return list(select)
    return _or_itself(whole_number(select), select)


def _checked(n_rows: int, select: Any, per_target: Any, kernel: Any, scoring: Any) -> Selection:
    """Check how errors are to be found.

    Raises:
        InputError: an unknown way, or one that does not go with another.
    """
    own = truth_value(per_target)
    if own is None:
        raise InputError(f"per_target={per_target!r} must be True or False: whether each target has its own strength.")

    named = isinstance(select, str)
    if scoring is None:
        scoring = "density" if kernel is True and named and select == "loo" else "mse"
    if not isinstance(scoring, str) or scoring not in _SCORINGS:
        raise InputError(f"scoring={scoring!r}; choose from {', '.join(map(repr, _SCORINGS))}.")
    if named and select not in ("loo", "gcv"):
        raise InputError(
            f"select={select!r}; choose 'loo', 'gcv', a number of folds, a splitter such as sklearn's KFold, or give "
            "the number of the fold of each row."
        )
    if scoring != "mse" and not (named and select == "loo"):
        raise InputError(f"scoring={scoring!r} needs the residual of each row: use it with select='loo'.")
    if scoring == "density" and kernel is not True:
        raise InputError("scoring='density' is for kernels: use it with kernel=True.")
    if kernel is True and not named:
        raise InputError("folds of a kernel are not available; use select='loo', which is exact and faster.")

    if named:
        return Selection(select, None, own, scoring)
    return Selection("k-fold", check_folds(select, n_rows), own, scoring, by_number=not isinstance(select, int))

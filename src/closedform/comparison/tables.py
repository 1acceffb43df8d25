"""From what the user passed to tables that can be trained on and measured with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from closedform.comparison.problem import Problem
from closedform.files import open_data
from closedform.fit.solution import Solution
from closedform.fit.weights import Weights
from closedform.rows import Rows, Source, TensorSource, as_rows
from closedform.rows.frame_columns import take_columns
from closedform.rows.labels import check_alignment, check_columns
from closedform.rows.tensors import as_tensor
from closedform.words.errors import InputError, NonFiniteError
from closedform.words.numbers import plural

__all__ = ["casts", "held_out_rows", "held_out_table", "make_problem"]


def held_out_rows(X_test: Any, Y_test: Any, rows: Rows) -> tuple[Tensor, Tensor] | None:
    """Check test rows against the training rows and return them in float64, or None where there are none.

    Args:
        X_test: Their features, or None.
        Y_test: Their targets, or None.
        rows: The training rows.
    """
    test = held_out_table(X_test, Y_test, rows)
    if test is None:
        return None
    block = test.gather()
    return block.X.to(rows.device), block.Y.to(rows.device)


def held_out_table(X_test: Any, Y_test: Any, rows: Rows) -> Rows | None:
    """Check test rows against the training rows and return them as a table in memory, or None where there are none.

    Args:
        X_test: Their features, or None.
        Y_test: Their targets, or None.
        rows: The training rows.

    Raises:
        InputError: only one of the two given, another number of features or targets, or rows or features of other
            labels.
        NonFiniteError: NaN or infinity.
        DataTypeError: data that are not dense real numbers.
    """
    if X_test is None and Y_test is None:
        return None
    if X_test is None or Y_test is None:
        given, missing = ("Y_test", "X_test") if X_test is None else ("X_test", "Y_test")
        raise InputError(f"{given} was given without {missing}; a test needs both.")

    X_test, Y_test = take_columns(X_test, Y_test=Y_test)
    check_alignment(X_test=X_test, Y_test=Y_test)
    check_columns("X_test", X_test, rows.feature_names)
    test = as_rows(_named(X_test, "X_test"), _named(Y_test, "Y_test"))

    seen, trained = (test.n_features, test.n_targets), (rows.n_features, rows.n_targets)
    if seen != trained:
        raise InputError(
            f"X_test and Y_test have {plural(seen[0], 'feature')} and {plural(seen[1], 'target')}, but the training "
            f"rows have {trained[0]} and {trained[1]}."
        )
    held = test.loaded()
    block = held.gather()
    _check_finite(block.X, test.x.name)
    _check_finite(block.Y, test.y.name)
    return held


def _named(data: Any, name: str) -> Source:
    if isinstance(data, Source):
        return data
    if (source := open_data(data)) is not None:
        return source
    tensor, notes = as_tensor(data, name)
    return TensorSource(tensor, name, notes)


def _check_finite(values: Tensor, name: str) -> None:
    """Check test rows; training rows are checked by the solver, these by nobody else.

    Raises:
        NonFiniteError: NaN or infinity.
    """
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise NonFiniteError(
            f"{name} holds {float(values[row, column])} in column {column}, first in row {row}; "
            "drop or repair the rows that are not finite."
        )


def make_problem(rows: Rows, exact: Solution, test: tuple[Tensor, Tensor] | None) -> Problem:
    """Return the problem that is trained on: in the dtype of X, weights scaled to a mean of one."""
    whole = rows.gather(as_stored=True)
    row_weight = None
    if whole.weight is not None:
        row_weight = (whole.weight / whole.weight.mean()).unsqueeze(1)
    return Problem(whole.X, whole.Y, row_weight, rows.dtype, Weights(exact.weight, exact.bias), test)


def casts(rows: Rows) -> tuple[str, ...]:
    """Say which tables are trained on in another dtype than they came in (integers in float64 the rows tell)."""
    trained = str(rows.dtype).removeprefix("torch.")
    return tuple(
        f"the optimizers train in {trained}, the dtype of X, so {source.name} was cast from "
        f"{str(source.stored_dtype).removeprefix('torch.')}; losses are measured in float64 on the numbers as given"
        for source in (rows.x, rows.y)
        if source.dtype != rows.dtype
    )

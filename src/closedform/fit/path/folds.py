"""K-fold cross-validation from triangles: one pass makes a triangle of each fold, and no row is read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.path.basis import Basis
from closedform.fit.path.tall import basis_of_triangle
from closedform.numerics.triangle import Triangle
from closedform.rows import Block, Fold
from closedform.rows.block import Extent
from closedform.rows.columns import Columns
from closedform.words.arguments import truth_value
from closedform.words.errors import InputError

__all__ = ["TrianglesOfFolds", "check_folds", "fold_errors", "is_by_row", "numbers_in"]

#: Entries of a block: enough rows that folding costs little more than the block's own QR.
_BLOCK_ENTRIES = 2**19


def check_folds(select: Any, n_rows: int) -> Tensor:
    """Return the number of the fold of each row, ``(rows,)`` int64, counted from 0.

    Args:
        select: A number of folds (consecutive rows, as scikit-learn's ``KFold(k)``), a splitter of scikit-learn whose
            test sets share no row, what such a splitter makes (pairs of rows to train and to test on, by number or as
            masks, where all that are not tested are trained on), or the number of the fold of each row.
        n_rows: Rows.

    Raises:
        InputError: fewer than two folds, more folds than rows, test sets that are no partition of the rows, or training
            sets that leave out more than the rows tested.
    """
    if truth_value(select) is not None:
        raise InputError(f"select={select!r} is no number of folds.")
    if isinstance(select, int):
        if not 2 <= select <= n_rows:
            raise InputError(
                f"select={select} folds: there must be at least 2, and at most as many as rows ({n_rows})."
            )
        sizes = torch.full((select,), n_rows // select, device="cpu")
        sizes[: n_rows % select] += 1
        return torch.repeat_interleave(torch.arange(select, device="cpu"), sizes)
    if _is_splitter(select):
        return _split(select, n_rows)
    if not is_by_row(select):
        return _numbers_of(select, "select", n_rows)
    names, numbers = torch.unique(numbers_in(select, n_rows), return_inverse=True)
    if names.shape[0] < 2:
        raise InputError("select puts all rows into one fold; at least 2 are needed.")
    return numbers


def is_by_row(select: Any) -> bool:
    """Return whether what says how errors are found is neither a word, a number nor made by a splitter."""
    if isinstance(select, str | int) or _is_splitter(select):
        return False
    pairs = isinstance(select, Sequence) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in select)
    return not pairs or not select


def _is_splitter(select: Any) -> bool:
    return hasattr(select, "split") and not isinstance(select, str | Tensor)


def numbers_in(select: Any, n_rows: int) -> Tensor:
    """Return the fold of each row as the user numbered it, ``(rows,)``.

    Args:
        select: What the user gave.
        n_rows: Rows.

    Raises:
        InputError: it holds something else.
    """
    try:
        values = torch.as_tensor(select if isinstance(select, Tensor) else np.array(select), device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"select={select!r}: use 'loo', 'gcv', a number of folds, a splitter such as sklearn's KFold, or the "
            "number of the fold of each row."
        ) from error
    if values.shape != (n_rows,) or values.is_floating_point() or values.is_complex():
        raise InputError(
            f"select has shape {tuple(values.shape)} and dtype {str(values.dtype).removeprefix('torch.')}; the numbers "
            f"of folds are integers, one for each of {n_rows} rows."
        )
    return values


def _split(splitter: Any, n_rows: int) -> Tensor:
    try:
        pairs = list(splitter.split(np.zeros((n_rows, 1))))
    except (TypeError, ValueError) as error:
        reason = str(error).removesuffix(".")
        raise InputError(
            f"select={splitter!r} cannot split {n_rows} rows ({reason}). A splitter by labels or groups is given as "
            "what it makes: select=list(splitter.split(X, labels, groups))."
        ) from error
    return _numbers_of(pairs, f"select={splitter!r}", n_rows)


def _numbers_of(pairs: Sequence[tuple[Any, Any]], who: str, n_rows: int) -> Tensor:
    """Return the fold of each row, from the rows to train and to test on.

    Raises:
        InputError: the test sets are no partition of the rows, or a training set is not all other rows.
    """
    numbers = torch.full((n_rows,), -1, dtype=torch.int64, device="cpu")
    tested = [_counts(test, f"{who}: test set {fold}", n_rows) for fold, (_, test) in enumerate(pairs)]
    for fold, counts in enumerate(tested):
        if bool((counts > 1).any()) or bool((numbers[counts > 0] >= 0).any()):
            raise InputError(f"{who} tests a row more than once; folds must share no row (KFold does so).")
        numbers[counts > 0] = fold
    if bool((numbers < 0).any()) or len(pairs) < 2:
        raise InputError(f"{who} leaves rows in no fold, or all in one; use a splitter such as KFold.")

    for fold, ((train, _), counts) in enumerate(zip(pairs, tested, strict=True)):
        trained = _counts(train, f"{who}: training set {fold}", n_rows)
        if bool((trained + counts != 1).any()):
            raise InputError(
                f"{who}: training set {fold} is not all rows but those of test set {fold}, and a fold is left out of "
                "the triangle of all rows. Fits to other rows have to be made one by one, with closedform.solve."
            )
    return numbers


def _counts(rows: Any, what: str, n_rows: int) -> Tensor:
    """Return how often each row stands in a list of rows, or whether a mask holds it, ``(rows,)`` int64.

    Raises:
        InputError: it is neither.
    """
    try:
        found = np.asarray(rows)
        # Numbers are looked up as NumPy looks up rows: masks of as many, and negative numbers from the end.
        numbers = found if found.dtype == bool else found.reshape(-1).astype(np.int64, casting="safe")
        return torch.from_numpy(np.bincount(np.arange(n_rows)[numbers], minlength=n_rows))
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"{what} is no list of rows from 0 to {n_rows - 1}.") from error


@final
class TrianglesOfFolds(Fold):
    """A triangle of the rows of each fold.

    Args:
        columns: The design matrix.
        empty: The triangle of no rows, with the powers of two of the columns.
        numbers: The fold of each row, counted over all processes, ``(rows,)``.
        count: Folds.
        by_number: Whether the folds are of certain rows; else any rows in these numbers will do.
    """

    as_stored = False
    label = "factoring"

    def __init__(
        self, columns: Columns, empty: Triangle, numbers: Tensor, count: int, *, by_number: bool = False
    ) -> None:
        self._columns, self._empty, self._numbers, self.by_number = columns, empty, numbers, by_number
        self.triangles = [empty] * count

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        p = self._columns.n_columns
        return max(2 * p * len(self.triangles), _BLOCK_ENTRIES // max(p, self._columns.n_targets))

    @override
    def add(self, block: Block) -> None:
        A, B = self._columns.matrix(block)
        start = block.before + block.start
        numbers = self._numbers[start : start + A.shape[0]]
        for fold in range(int(numbers.min()), int(numbers.max()) + 1):
            rows = (numbers == fold).nonzero().squeeze(1).to(A.device)
            if not rows.shape[0]:
                continue
            count, total = rows.shape[0], float(rows.shape[0])
            if block.weight is not None:
                weight = block.weight[rows]
                count, total = int((weight > 0).sum()), float(weight.sum())
            self.triangles[fold] = self.triangles[fold].fold(A[rows], B[rows], rows=count, weight_sum=total)

    @override
    def merge(self, other: Self) -> None:
        self.triangles = [mine.merge(theirs) for mine, theirs in zip(self.triangles, other.triangles, strict=True)]

    @override
    def fresh(self) -> Self:
        count = len(self.triangles)
        return type(self)(self._columns, self._empty, self._numbers, count, by_number=self.by_number)

    @override
    def state(self) -> tuple[Tensor, ...]:
        used = torch.tensor([triangle.R.shape[0] for triangle in self.triangles], device="cpu")
        states = [triangle.padded().state_dict().values() for triangle in self.triangles]
        return *(torch.stack(parts) for parts in zip(*states, strict=True)), used

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        *parts, used = state
        names = list(self._empty.state_dict())
        for fold, rows in enumerate(used.tolist()):
            whole = Triangle.from_state_dict({name: part[fold] for name, part in zip(names, parts, strict=True)})
            self.triangles[fold] = whole.first_rows(rows)


def fold_errors(triangles: Sequence[Triangle], exponent: int, strengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean squared error on rows of other folds, and its standard error over the folds.

    A fit to the rows of all folds but one has the triangle that those of the others merge to, which is stabler than to
    take the rows of one out again; the residuals of the rows left out are those of their own triangle.

    Args:
        triangles: One for each fold; those without rows of positive weight are left out.
        exponent: The power of two that X is divided by.
        strengths: In the user's units, ``(strengths,)``.

    Returns:
        Two tensors ``(strengths, targets)``, weighted by the weights of the rows.

    Raises:
        InputError: fewer than two folds have rows of positive weight.
    """
    counted = [triangle for triangle in triangles if triangle.rows > 0]
    if len(counted) < 2:
        raise InputError("fewer than 2 folds have a row of positive weight; use fewer folds.")
    before, after = [counted[0]], [counted[-1]]
    for triangle in counted[1:-1]:
        before.append(before[-1].merge(triangle))
    for triangle in reversed(counted[1:-1]):
        after.append(triangle.merge(after[-1]))
    after.reverse()
    training = [after[0], *(one.merge(two) for one, two in zip(before, after[1:], strict=False)), before[-1]]

    squares = torch.stack(
        [
            _left_out_squares(basis_of_triangle(most, exponent), one, strengths)
            for most, one in zip(training, counted, strict=True)
        ]
    )
    weights = squares.new_tensor([triangle.weight_sum for triangle in counted])
    mean = squares.sum(0) / weights.sum()
    # A mean of K means: their spread tells its standard error.
    apart = squares - weights.view(-1, 1, 1) * mean
    count = len(counted)
    deviation = (apart.square().sum(0) * count / (count - 1)).sqrt() / weights.sum()
    return mean, deviation


def _left_out_squares(basis: Basis, left_out: Triangle, strengths: Tensor) -> Tensor:
    """Return the squared residuals of the rows of a triangle at the fits of a basis, ``(strengths, targets)``."""
    assert basis.map is not None
    assert basis.mean is not None
    assert basis.target_mean is not None
    uniform = torch.full_like(left_out.exponents, basis.x_exponent)
    triangle = left_out.rescaled(uniform, basis.target_exponents)
    R, C = triangle.R, triangle.C
    if basis.bias:
        # Features and targets less the means of the rows of the fit.
        ones = torch.ldexp(R[:, :1], uniform[0])
        R, C = R[:, 1:] - ones * basis.mean, C - ones * basis.target_mean
    coordinates = R @ basis.map
    kept = basis.shrinkage(strengths)
    result = [
        triangle.residual_squares + (C - coordinates @ (kept[:, place, None] * basis.coordinates)).square().sum(0)
        for place in range(strengths.shape[0])
    ]
    return basis.unscaled(torch.stack(result))

"""The compiled passes over a table in memory, where they were built; :mod:`closedform.engine.passes` chooses."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from closedform.engine.threads import all_threads, team

library: ModuleType | None
try:
    from closedform.engine import _kernels

    library = _kernels
except ImportError:  # no C compiler at installation: passes.py does the same with matrix products
    library = None

__all__ = [
    "available",
    "column_squares",
    "expansion_pass",
    "gram_add",
    "multiplies_bfloat16",
    "readable",
    "residual_pass",
    "serves",
    "sketch_add",
    "spread_squares",
]

#: Below this many numbers a thread costs more than it saves.
_PER_THREAD = 2**19


def available() -> bool:
    """Whether the compiled passes were built with this installation."""
    return library is not None


def multiplies_bfloat16() -> bool:
    """Whether :func:`gram_add` takes bfloat16: where the processor multiplies it, twice as fast as float32."""
    return library is not None and library.multiplies_bfloat16()


def serves(X: Tensor) -> bool:
    """Whether the compiled passes can read this table: float32 or float64 rows on a CPU, each row contiguous."""
    return (
        library is not None
        and X.device.type == "cpu"
        and X.dtype in (torch.float32, torch.float64)
        and X.dim() == 2
        and (X.stride(1) == 1 or X.shape[1] == 1)
        and X.stride(0) >= X.shape[1]
    )


def readable(Y: Tensor) -> Tensor:
    """Return targets as the compiled passes read them: contiguous, in float32 or float64."""
    if Y.is_contiguous() and Y.dtype in (torch.float32, torch.float64):
        return Y
    with all_threads():
        return (Y if Y.dtype == torch.float32 else Y.to(torch.float64)).contiguous()


def _table(X: Tensor) -> tuple[int, int, int, int, int]:
    return X.data_ptr(), int(X.dtype == torch.float32), X.shape[0], X.shape[1], X.stride(0)


def _threads(X: Tensor, vectors: int = 1) -> int:
    return max(1, min(team(), X.shape[0] * (X.shape[1] + 1) * vectors // _PER_THREAD))


def _address(values: Tensor | None) -> int:
    return 0 if values is None else values.data_ptr()


def residual_pass(
    X: Tensor,
    Y: Tensor | None,
    y_scale: Tensor | None,
    V: Tensor,
    offset: Tensor,
    weight: Tensor | None,
    sums: Tensor,
    *,
    group: int,
) -> None:
    """Add ``X'T``, ``1'T`` and the squares of T to ``sums``; see :func:`closedform.engine.passes.residual_pass`.

    ``V`` is ``(q, features)`` and ``sums`` ``q * (features + 2)`` numbers, then the products ``T'T`` of each ``group``
    targets (a multiple of eight, or all of them; 0 for none); both are float64 and contiguous, as are offset, scale and
    weight. Y is contiguous, float32 or float64.
    """
    q, k = V.shape[0], 0 if Y is None else Y.shape[1]
    assert library is not None
    library.residual_pass(
        *_table(X),
        _address(Y),
        int(Y is not None and Y.dtype == torch.float32),
        k,
        _address(y_scale),
        _address(weight),
        V.data_ptr(),
        offset.data_ptr(),
        q,
        group,
        sums.data_ptr(),
        _threads(X, q),
    )


def expansion_pass(
    X: Tensor, Y: Tensor, y_scale: Tensor, V: Tensor, offset: Tensor, weight: Tensor | None, sums: Tensor
) -> None:
    """Add ``X'T`` and ``1'T`` for ``T = weight (Y * y_scale - X V - offset)``, all as sums of three doubles.

    Args:
        X: ``(rows, features)``, with :func:`serves`.
        Y: ``(rows, q)``, float32 or float64, contiguous like all that follows, which is float64.
        y_scale: Powers of two, ``(q,)``.
        V: ``(3, q, features)``.
        offset: ``(3, q)``.
        weight: ``(rows,)`` or None.
        sums: Three times ``X'T`` (q, features) and ``1'T`` (q,), first parts first, then the weighted squares of the
            residuals (q,), plain; overlapping parts count with all they could stand for.
    """
    assert library is not None
    library.expansion_pass(
        *_table(X),
        _address(Y),
        int(Y.dtype == torch.float32),
        _address(y_scale),
        _address(weight),
        V.data_ptr(),
        offset.data_ptr(),
        V.shape[1],
        sums.data_ptr(),
        _threads(X, 8 * V.shape[1]),
    )


def column_squares(X: Tensor, weight: Tensor | None, squares: Tensor) -> None:
    """Add the weighted squares of each column to ``squares``, float64."""
    assert library is not None
    library.column_squares(*_table(X), _address(weight), 0, 0, squares.data_ptr(), _threads(X))


def spread_squares(X: Tensor, scale: Tensor, shift: Tensor, weight: Tensor | None, sums: Tensor) -> None:
    """Add the weighted squares of ``scale X - shift`` and its weighted sums to ``sums``, ``(2, columns)``, float64."""
    assert library is not None
    library.column_squares(
        *_table(X), _address(weight), scale.data_ptr(), shift.data_ptr(), sums.data_ptr(), _threads(X)
    )


def gram_add(
    gram: Tensor,
    X: Tensor,
    *,
    cross: Tensor | None = None,
    Y: Tensor | None = None,
    y_scale: Tensor | None = None,
    row_scale: Tensor | None = None,
    x_scale: Tensor | None = None,
    order: Tensor | None = None,
    factor: Tensor | None = None,
    ones: bool = False,
    transposed: bool = False,
    bfloat16: bool = False,
) -> None:
    """Add the upper triangle of ``A'A`` to ``gram`` and ``A'B`` to ``cross``, in their dtype.

    ``A = diag(row_scale) [1 | X diag(x_scale)] factor``, the factor an upper triangle, and ``B = diag(row_scale) Y
    diag(y_scale)``; or, transposed, ``A = X' diag(x_scale)`` and nothing else. Where ``order`` (int64) is given, only
    the rows it names count. Scales and factor are float64, Y float32 or float64; all are contiguous. With ``bfloat16``
    the entries of A and B are rounded to that and the sums are float32; there is no factor then.
    """
    assert library is not None
    assert not bfloat16 or (gram.dtype == torch.float32 and factor is None)
    start, single, rows, columns, distance = _table(X)
    library.gram_add(
        start,
        single,
        rows if order is None else order.shape[0],
        columns,
        distance,
        _address(Y),
        int(Y is not None and Y.dtype == torch.float32),
        0 if Y is None else Y.shape[1],
        _address(y_scale),
        _address(row_scale),
        _address(x_scale),
        _address(order),
        _address(factor),
        int(ones),
        int(transposed),
        16 if bfloat16 else 8 * gram.dtype.itemsize,
        gram.data_ptr(),
        _address(cross),
        _threads(X, max(1, X.shape[0 if transposed else 1] // 16)),
    )


def sketch_add(X: Tensor, target: Tensor, factor: Tensor, sketch: Tensor) -> None:
    """Add each row, times its factors ``(rows, nonzeros)``, to the rows ``target`` (int32) of the sketch."""
    assert library is not None
    library.sketch_add(
        *_table(X), target.data_ptr(), factor.data_ptr(), target.shape[1], sketch.data_ptr(), _threads(X)
    )

"""Passes over a block of rows that form several sums at once, each number of X read once where that can be.

On a CPU the compiled kernels do it, or blocks small enough to stay in cache; elsewhere matrix products of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from closedform.engine import compiled
from closedform.engine.threads import all_threads

__all__ = ["PassSums", "column_squares", "pass_sums", "residual_pass", "spread_squares"]

#: Up to this many sums a compiled pass beats two matrix products: beyond, its threads cannot have their own.
_KERNEL_SUMS = 2**21
#: A block of this many bytes stays in the outer caches, so that two products with it cost one read of memory.
_CACHE_BYTES = 2 * 2**20
#: Matrix products with many vectors are bound by arithmetic: larger blocks, fewer calls.
_GEMM_ROWS = 2048


@dataclass(frozen=True)
class PassSums:
    """Sums over rows, all float64: ``features = X'T`` (features, q), ``ones = 1'T`` (q,), ``squares`` of T (q,).

    ``grams`` are products ``T'T`` of groups of columns of T, where they were asked for; they and the others are
    views of ``flat``.
    """

    flat: Tensor
    features: Tensor
    ones: Tensor
    squares: Tensor
    groups: tuple[range, ...]
    grams: tuple[Tensor, ...]


def pass_sums(n_features: int, vectors: int, device: torch.device, groups: tuple[range, ...] = ()) -> PassSums:
    """Return sums of zero; ``groups`` are the ranges of targets whose products are wanted."""
    size = vectors * n_features
    sizes = [len(group) ** 2 for group in groups]
    flat = torch.zeros(size + 2 * vectors + sum(sizes), dtype=torch.float64, device=device)
    parts = torch.split(flat[size + 2 * vectors :], sizes) if sizes else ()
    grams = tuple(part.view(len(group), len(group)) for part, group in zip(parts, groups, strict=True))
    return PassSums(
        flat,
        flat[:size].view(vectors, n_features).T,
        flat[size : size + vectors],
        flat[size + vectors : size + 2 * vectors],
        groups,
        grams,
    )


def residual_pass(
    sums: PassSums,
    X: Tensor,
    Y: Tensor | None,
    V: Tensor,
    offset: Tensor | None = None,
    weight: Tensor | None = None,
    y_scale: Tensor | None = None,
) -> None:
    r"""Add a block of rows to ``sums``: with ``T = w (Y - X V - offset)``, the sums X'T, 1'T and those of T^2 / w.

    Args:
        sums: Where the sums go, for q vectors.
        X: ``(rows, features)``, any floating dtype.
        Y: ``(rows, k)``, any floating dtype, k <= q; further vectors have a target of zero. None for none at all.
        V: ``(features, q)``, float64.
        offset: ``(q,)`` or None.
        weight: ``(rows,)``, float64, or None for ones.
        y_scale: What the columns of Y are multiplied by, ``(k,)`` float64, or None for ones.

    Example:
        >>> import torch
        >>> X = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
        >>> sums = pass_sums(1, 1, X.device)
        >>> residual_pass(sums, X, X + 1, torch.ones(1, 1, dtype=torch.float64))
        >>> sums.features.item(), sums.ones.item(), sums.squares.item()
        (3.0, 2.0, 2.0)
    """
    q = V.shape[1]
    group = len(sums.groups[0]) if sums.groups else 0
    if sums.flat.numel() <= _KERNEL_SUMS and (len(sums.groups) <= 1 or group % 8 == 0) and compiled.serves(X):
        shift = V.new_zeros(q) if offset is None else offset.contiguous()
        if Y is not None:
            Y = compiled.readable(Y)
            y_scale = V.new_ones(Y.shape[1]) if y_scale is None else y_scale.contiguous()
        compiled.residual_pass(
            X,
            Y,
            y_scale,
            V.T.contiguous(),
            shift,
            None if weight is None else weight.contiguous(),
            sums.flat,
            group=group,
        )
        return
    if Y is not None:
        with all_threads():
            Y = Y.to(torch.float64) if y_scale is None else Y.to(torch.float64) * y_scale
    operands: tuple[Any, ...] = (X, Y, V, offset, weight)
    totals: tuple[Any, ...] = (sums.features, sums.ones, sums.squares, *sums.grams)
    if compiled.serves(X):
        # By NumPy's BLAS; nothing of torch runs in between, whose threads would wait on it.
        operands = tuple(None if values is None else values.numpy() for values in operands)
        totals = tuple(total.numpy() for total in totals)
        _product_pass(operands, totals, sums.groups, _GEMM_ROWS, lambda block: block.astype(float, copy=False))
        return
    rows = _block_rows(X) if X.device.type == "cpu" else max(_block_rows(X), _GEMM_ROWS)
    with all_threads():
        _product_pass(operands, totals, sums.groups, rows, lambda block: block.to(torch.float64))


def _product_pass(
    operands: tuple[Any, ...],
    totals: tuple[Any, ...],
    groups: tuple[range, ...],
    rows: int,
    widen: Callable[[Any], Any],
) -> None:
    """The same by matrix products, of NumPy arrays or of torch tensors alike; the totals are added to in place."""
    X, Y, V, offset, weight = operands
    features, ones, squares, *grams = totals
    for start in range(0, X.shape[0], rows):
        part = slice(start, start + rows)
        block = widen(X[part])
        residuals = -(block @ V)
        if Y is not None:
            residuals[:, : Y.shape[1]] += Y[part]
        if offset is not None:
            residuals -= offset
        T = residuals if weight is None else residuals * weight[part, None]
        squares += (residuals * T).sum(0)
        for group, gram in zip(groups, grams, strict=True):
            gram += residuals[:, group.start : group.stop].T @ T[:, group.start : group.stop]
        features += block.T @ T
        ones += T.sum(0)


def _block_rows(X: Tensor) -> int:
    return max(64, _CACHE_BYTES // (8 * max(X.shape[1], 1)))


def column_squares(squares: Tensor, X: Tensor, weight: Tensor | None = None) -> None:
    """Add the (weighted) squares of each column of X to ``squares``, float64; not finite where X is not.

    Example:
        >>> import torch
        >>> squares = torch.zeros(2, dtype=torch.float64)
        >>> column_squares(squares, torch.tensor([[3.0, 1.0], [4.0, 1.0]]))
        >>> squares
        tensor([25.,  2.], dtype=torch.float64)
    """
    if compiled.serves(X):
        compiled.column_squares(X, None if weight is None else weight.contiguous(), squares)
        return
    rows = _block_rows(X)
    for start in range(0, X.shape[0], rows):
        part = X[start : start + rows].to(torch.float64)
        product = part * part
        squares += (product if weight is None else product * weight[start : start + rows].unsqueeze(1)).sum(0)


def spread_squares(sums: Tensor, X: Tensor, scale: Tensor, shift: Tensor, weight: Tensor | None = None) -> None:
    """Add the (weighted) squares of ``scale X - shift`` and its (weighted) sums to ``sums``, column by column.

    Args:
        sums: ``(2, columns)``, float64.
        X: ``(rows, columns)``, any floating dtype.
        scale, shift: ``(columns,)``, float64.
        weight: ``(rows,)``, float64, or None for ones.

    Example:
        >>> import torch
        >>> one, sums = torch.ones(1, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
        >>> spread_squares(sums, torch.tensor([[3.0], [4.0]]), one, one)
        >>> sums.flatten()
        tensor([13.,  5.], dtype=torch.float64)
    """
    if compiled.serves(X):
        weight = None if weight is None else weight.contiguous()
        compiled.spread_squares(X, scale.contiguous(), shift.contiguous(), weight, sums)
        return
    rows = _block_rows(X)
    with all_threads():
        for start in range(0, X.shape[0], rows):
            part = X[start : start + rows].to(torch.float64) * scale - shift
            weighted = part if weight is None else part * weight[start : start + rows].unsqueeze(1)
            sums[0] += (part * weighted).sum(0)
            sums[1] += weighted.sum(0)

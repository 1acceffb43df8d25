"""Kernel matrices in place of features: what is checked, the system they stand for, and what its solution means.

With a kernel matrix K between the rows, ``f = K a`` and the penalty ``l2 a'Ka``, the minimiser solves
``(K + l2 I) a = y`` (Saunders, Gammerman and Vovk 1998). That is a square system, and is solved and certified as one.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from closedform.engine.triangles import cholesky_of, is_symmetric
from closedform.fit.layers import round_to
from closedform.fit.solution import Solution
from closedform.fit.statistics import NoStandardErrors
from closedform.fit.storage import Stored, as_stored
from closedform.rows import Block, Rows, as_rows, scan
from closedform.rows.norms import weights_of
from closedform.words.errors import InputError

__all__ = [
    "KERNEL_NOTE",
    "as_kernel_solution",
    "check_kernel",
    "kernel_stored_as",
    "kernel_system",
    "looks_like_kernel",
    "weighted_kernel",
    "weighted_targets",
]

#: Asymmetry of a kernel, relative to its largest entry and in units of its own rounding, that is rounding.
_ASYMMETRY = 1e3
#: Rounding of a Cholesky factorization, in units of eps times rows, below which an eigenvalue is not seen.
_ROUNDING = 8.0

#: What is said where a ridge is asked for on features that are a kernel matrix.
KERNEL_NOTE = (
    "X is a symmetric positive matrix, as a kernel between the rows is, and l2 penalises |a|^2 of its coefficients "
    "here; kernel ridge, with the penalty l2 * a'Ka, is kernel=True: (K + l2 I) a = y"
)


def check_kernel(rows: Rows, *, bias: bool) -> Block:
    """Return all rows of a kernel matrix at once, in float64.

    Raises:
        InputError: the matrix is not square or not symmetric, a weight is negative, or a bias is asked for.
        NonFiniteError: it holds NaN or infinity.
    """
    if bias:
        raise InputError(
            "kernel=True has no bias: centre the targets, or add a constant to the kernel, which makes a bias with a "
            "penalty."
        )
    if rows.n_features != rows.n_rows:
        raise InputError(
            f"kernel=True, but X has shape {(rows.n_rows, rows.n_features)}; a kernel matrix between the rows is "
            "square."
        )

    # Columns of rows of weight zero are columns of other rows, so nothing is masked.
    whole = rows.walker.gather(rows, as_stored=False, unweighted=True)
    weights_of(whole)
    K = whole.X
    if is_symmetric(K):
        return whole
    if not bool(torch.isfinite(K).all()):
        scan(rows)  # It names the column and the row.

    eps = torch.finfo(rows.x.dtype).eps if rows.x.dtype.is_floating_point else torch.finfo(torch.float64).eps
    apart = float((K - K.T).abs().max())
    if not apart <= _ASYMMETRY * eps * float(K.abs().max()):
        row, column = divmod(int((K - K.T).abs().argmax()), K.shape[0])
        raise InputError(
            f"kernel=True, but X is not symmetric: {float(K[row, column]):.6g} in row {row}, column {column}, and "
            f"{float(K[column, row]):.6g} across the diagonal. A kernel between the rows of the fit is needed."
        )
    return whole


def looks_like_kernel(rows: Rows) -> bool:
    """Return whether the features are a symmetric positive definite matrix, or one up to rounding.

    Distances by way of products, as ``torch.cdist`` has them, are not symmetric to the last digit.
    """
    if rows.n_rows != rows.n_features or rows.n_rows < 2:
        return False
    K = rows.gather(as_stored=True).X.to(torch.float64)
    diagonal = K.diagonal()
    unit = torch.finfo(rows.dtype).eps * float(diagonal.max())
    # The first row and column tell most matrices that are none.
    for one, other in ((K[0], K[:, 0]), (K, K.T)):
        if not float((one - other).abs().max()) <= _ASYMMETRY * unit:
            return False
    if not bool((diagonal > 0).all()) or not bool(K.count_nonzero() > K.shape[0]):
        return False
    shift = max(_ROUNDING * K.shape[0], _ASYMMETRY) * unit
    symmetric = (K + K.T) / 2
    return cholesky_of(symmetric + shift * torch.eye(K.shape[0], dtype=K.dtype, device=K.device))[1] == 0


def weighted_kernel(whole: Block) -> tuple[Tensor, Tensor]:
    """Return the kernel times the roots of the weights on both sides, symmetric, and the targets times them.

    Both may be those of the block.
    """
    K = whole.X if is_symmetric(whole.X) else (whole.X + whole.X.T) / 2
    if whole.weight is None:
        return K, whole.Y
    root = whole.weight.sqrt()
    return root.unsqueeze(1) * K * root, weighted_targets(whole)


def weighted_targets(whole: Block) -> Tensor:
    """Return the targets times the roots of the weights."""
    return whole.Y if whole.weight is None else whole.weight.sqrt().unsqueeze(1) * whole.Y


def kernel_system(rows: Rows, whole: Block, strength: float, targets: Tensor) -> Rows:
    """Return the square system ``(K + l2 I) a = y`` of some targets, in float64.

    With weights it is that of ``a`` over their roots.
    """
    K, Y = weighted_kernel(whole)
    K = K.clone()
    K.diagonal().add_(strength)
    return replace(as_rows(K, Y[:, targets]), notes=(), single_target=rows.single_target, watcher=rows.watcher)


def as_kernel_solution(
    solution: Solution, rows: Rows, whole: Block, strength: float, targets: Tensor, dtype: torch.dtype
) -> Solution:
    """Return a solution of the system with what it says of the fit: its loss is that of ``K a``.

    Args:
        solution: Of :func:`kernel_system`.
        rows: The rows of the kernel.
        whole: All of them.
        strength: The ridge strength.
        targets: Which targets it is of.
        dtype: What the coefficients are rounded to.

    Raises:
        InputError: that dtype cannot hold them.
    """
    a, weight = solution.weight, whole.weight
    if weight is not None:
        a = a * weight.sqrt()

    Y = whole.Y[:, targets]
    residual = Y - whole.X @ a.T
    gradient = whole.X @ (
        strength * a.T - residual if weight is None else strength * a.T - weight.unsqueeze(1) * residual
    )
    ones = residual.new_ones(residual.shape[0]) if weight is None else weight
    squares = ones @ residual.square()
    total, count = float(ones.sum()), float(ones.sum()) * residual.shape[1]
    spread = ones @ (Y - (ones @ Y) / total).square()

    explained = torch.where(spread > 0, 1 - squares / torch.where(spread > 0, spread, 1.0), 1.0)
    certificate = replace(
        solution.certificate,
        loss=float(squares.sum()) / count,
        residual_norm=math.sqrt(float(squares.sum())),
        gradient_norm=2 * float(torch.linalg.vector_norm(gradient)) / count,
        r_squared=tuple(explained.tolist()),
        residual_std=(math.nan,) * residual.shape[1],
    )
    note = "kernel ridge: the weights are the coefficients a of (K + l2 I) a = y; predict takes K(new rows, rows)"
    notes, stored = (*rows.notes, note, *solution.notes), None
    if dtype != torch.float64:
        notes = (*notes, f"the weights were computed in float64 and rounded to {str(dtype).removeprefix('torch.')}")
        stored = _stored(rows, replace(whole, Y=Y), a, strength, dtype) if certificate.accepted else None
    return replace(
        solution,
        weight=round_to(a, dtype),
        certificate=certificate,
        notes=notes,
        stored=stored,
        _standard_errors=NoStandardErrors("standard errors are not defined for the coefficients of a kernel."),
    )


def kernel_stored_as(a: Tensor, X: Any, Y: Any, sample_weight: Any, dtype: torch.dtype, *, l2: float) -> Stored:
    """Return what becomes of certified coefficients in another dtype.

    Args:
        a: The coefficients as certified, ``(targets, rows)``.
        X: The kernel of the fit.
        Y: Its targets.
        sample_weight: Its weights of rows, or None.
        dtype: The dtype in question.
        l2: Its ridge strength.
    """
    rows = as_rows(X, Y, sample_weight)
    return _stored(rows, check_kernel(rows, bias=False), a, l2, dtype)


def _stored(rows: Rows, whole: Block, a: Tensor, strength: float, dtype: torch.dtype) -> Stored:
    loss, certified = (_loss(whole, b.to(torch.float64), strength) for b in (round_to(a, dtype), a))
    target_square = _loss(whole, torch.zeros_like(a), 0.0)
    return as_stored(dtype, loss, certified, target_square, (rows.x.stored_dtype, rows.y.stored_dtype))


def _loss(whole: Block, a: Tensor, strength: float) -> float:
    """Return the mean of the weighted squares, with the penalty ``l2 a'Ka`` over what it divides by."""
    fitted = whole.X @ a.T
    ones = fitted.new_ones(fitted.shape[0]) if whole.weight is None else whole.weight
    total = ones @ (whole.Y - fitted).square() + strength * (a.T * fitted).sum(0)
    return float(total.sum()) / (float(ones.sum()) * whole.Y.shape[1])

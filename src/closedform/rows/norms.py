"""One pass over the rows at the public door: finite values, column norms, weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from closedform.engine.passes import column_squares
from closedform.numerics.scaling import power_of_two_exponents
from closedform.rows.table import Block, Rows
from closedform.words.errors import InputError, NonFiniteError

__all__ = ["BLOCK_BYTES", "Scan", "pass_rows", "rows_per_block", "scan"]

#: A block of rows this large stays in the outer caches, so that two products with it cost one read of memory.
BLOCK_BYTES = 2 * 2**20
#: Blocks read from a file are larger: there the cost is the call.
FILE_BLOCK_BYTES = 64 * 2**20
#: A compiled pass blocks for itself: it takes as many rows as keep threads busy, and few enough to be interrupted.
PASS_BYTES = 128 * 2**20

# Squares of norms inside this range neither overflow nor lose digits to underflow.
_SAFE_SQUARE = (1e-270, 1e290)


@dataclass(frozen=True)
class Scan:
    """What one pass over the rows tells.

    Attributes:
        feature_norms: Weighted Euclidean norm of each column of X, ``(features,)``, float64.
        target_norms: Weighted Euclidean norm of each column of Y, ``(targets,)``, float64.
        weight_sum: Sum of the sample weights (the number of rows where there are none).
        positive_rows: Number of rows with a positive weight.
    """

    feature_norms: Tensor
    target_norms: Tensor
    weight_sum: float
    positive_rows: int


def rows_per_block(rows: Rows, columns: int | None = None) -> int:
    """Return how many rows make a block of about :data:`BLOCK_BYTES` in float64."""
    width = max(rows.n_features, 1) if columns is None else columns
    size = BLOCK_BYTES if rows.in_memory else FILE_BLOCK_BYTES
    return max(64, size // (8 * width))


def pass_rows(rows: Rows) -> int:
    """Return how many rows one call of a pass takes."""
    size = PASS_BYTES if rows.in_memory else FILE_BLOCK_BYTES
    return max(64, size // (8 * (rows.n_features + rows.n_targets)))


def scan(rows: Rows) -> Scan:
    """Walk the rows once; check that every number is finite and measure the columns.

    Raises:
        NonFiniteError: NaN or an infinity, with the column and the first row it is found in.
        InputError: a negative weight, or no positive weight at all.
    """
    size = rows_per_block(rows)
    feature_squares = torch.zeros(rows.n_features, dtype=torch.float64, device=rows.device)
    target_squares = torch.zeros(rows.n_targets, dtype=torch.float64, device=rows.device)
    weight_sum, positive_rows = float(rows.n_rows), rows.n_rows
    if rows.weight is not None:
        weight_sum, positive_rows = _check_weights(rows, size)
    for block in rows.blocks(pass_rows(rows), as_stored=True, unweighted=True):
        # Rows of weight zero must be finite as well: zero times NaN is NaN and is seen below.
        column_squares(feature_squares, block.X, block.weight)
        column_squares(target_squares, block.Y, block.weight)
    squares = torch.cat([feature_squares, target_squares])
    safe = ((squares > _SAFE_SQUARE[0]) & (squares < _SAFE_SQUARE[1])).all()
    norms = _roots(squares) if bool(safe) else _careful_norms(rows, size)
    return Scan(norms[: rows.n_features], norms[rows.n_features :], weight_sum, positive_rows)


def _check_weights(rows: Rows, size: int) -> tuple[float, int]:
    total, positive = 0.0, 0
    for block in rows.blocks(size):
        assert block.weight is not None
        bad = ~(torch.isfinite(block.weight) & (block.weight >= 0))
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise InputError(
                f"sample_weight holds {float(block.weight[row])} in row {block.start + row}; "
                "weights must be finite and not negative."
            )
        total += float(block.weight.sum())
        positive += int((block.weight > 0).sum())
    if positive == 0:
        raise InputError("sample_weight is zero for every row; at least one positive weight is needed.")
    return total, positive


def _roots(squares: Tensor) -> Tensor:
    """Square roots; on a CPU by NumPy, because those of torch start threads, which a small problem then waits for."""
    return torch.from_numpy(np.sqrt(squares.numpy())) if squares.device.type == "cpu" else squares.sqrt()


def _careful_norms(rows: Rows, size: int) -> Tensor:
    """Norms where squares over- or underflow, or are zero; and the error message where a number is not finite."""
    peaks = torch.zeros(rows.n_features + rows.n_targets, dtype=torch.float64, device=rows.device)
    heaviest = 0.0
    for block in rows.blocks(size, unweighted=True):
        for name, values in (("X", block.X), ("Y", block.Y)):
            finite = torch.isfinite(values)
            if not bool(finite.all()):
                row, column = (int(i) for i in (~finite).nonzero()[0])
                raise NonFiniteError(
                    f"{name} holds {float(values[row, column])} in column {column}, first in row "
                    f"{block.start + row}; drop or repair the rows that are not finite."
                )
        values, root = _counted(block)
        peaks = torch.maximum(peaks, values.abs().amax(0))
        heaviest = max(heaviest, float(root.max()))
    exponents = power_of_two_exponents(peaks)
    squares = torch.zeros_like(peaks)
    for block in rows.blocks(size):
        values, root = _counted(block)
        squares += (torch.ldexp(values, -exponents) * (root / heaviest)).square_().sum(0)
    return torch.ldexp(squares.sqrt() * heaviest, exponents)


def _counted(block: Block) -> tuple[Tensor, Tensor]:
    """Return features and targets, those of weight zero as zeros, and the roots of the weights as a column."""
    values = torch.cat([block.X, block.Y], 1)
    if block.weight is None:
        return values, values.new_ones(values.shape[0], 1)
    root = block.weight.sqrt().unsqueeze(1)
    return values.masked_fill(root == 0, 0.0), root

"""The leading eigenvalue of a symmetric operator by the process of Lanczos, from what the operator makes of vectors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["GROWTH", "MOST_STEPS", "TOLERANCE", "dominant_pair"]

#: Steps at most; a Gaussian start needs a fraction of them.
MOST_STEPS = 40
#: Relative growth of the value at which it has settled.
GROWTH = 1e-2
#: Rest of its equation, relative to the value, at which it has: a vector whose images count needs two digits.
TOLERANCE = 1e-2


def dominant_pair(
    operator: Callable[[Tensor], Tensor], start: Tensor, tolerance: float = TOLERANCE
) -> tuple[float, Tensor, Tensor]:
    """Return the largest eigenvalue of a symmetric positive operator, from below, or inf; its vector, and its image.

    Lanczos with full reorthogonalisation, stopped when the value no longer grows. The image of the vector is the same
    combination of the images that were computed on the way, so that it costs no further product; the vector again
    where the value is inf. Source: Lanczos (1950).

    Args:
        operator: Maps ``(size, 1)`` to that.
        start: Where to start, ``(size, 1)``.
        tolerance: What may be left of the eigenvalue equation, relative to the value.

    Example:
        >>> values = torch.tensor([[4.0], [1.0], [1.0]], dtype=torch.float64)
        >>> round(dominant_pair(lambda V: values * V, torch.ones_like(values))[0], 9)
        4.0
    """
    length = float(torch.linalg.vector_norm(start))
    if not 0 < length < math.inf:
        return math.inf, start, start

    size, steps = start.shape[0], min(MOST_STEPS, start.shape[0])
    # A vector is a row, so that those found so far are one matrix without copying them.
    basis, images, projected = start.new_empty(steps, size), [], np.zeros((steps, steps))
    torch.div(start[:, 0], length, out=basis[0])
    value, weights, settled = 0.0, np.ones(1), 0
    for step in range(steps):
        image = operator(basis[step].unsqueeze(1))[:, 0]
        V = basis[: step + 1]
        # Once is enough: where it cancels digits, so little is left that this was the last step.
        coefficients = torch.mv(V, image)
        w = torch.addmv(image, V.T, coefficients, alpha=-1)
        projected[step, step] = float(coefficients[-1])
        beta = float(torch.linalg.vector_norm(w))
        if not math.isfinite(beta):
            vector = _combined(basis[: len(weights)], weights)
            return math.inf, vector, vector

        images.append(image)
        previous, (value, weights) = value, _largest(projected[: step + 1, : step + 1])
        settled = settled + 1 if value <= previous * (1 + GROWTH) else 0
        # What is left of the eigenvalue equation, or two steps without growth.
        if beta * abs(float(weights[-1])) <= tolerance * value or settled == 2:
            break
        if step + 1 < steps:
            projected[step + 1, step] = beta
            torch.div(w, beta, out=basis[step + 1])
    return value, _combined(V, weights), _combined(torch.stack(images), weights)


def _combined(rows: Tensor, weights: NDArray[np.float64]) -> Tensor:
    """Return a combination of rows as a column."""
    if len(weights) == 1:
        return rows.T.clone()
    return torch.mv(rows.T, torch.from_numpy(weights).to(rows)).unsqueeze(1)


def _largest(matrix: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the largest eigenvalue of a few numbers, of which the lower triangle is read, and its vector."""
    if len(matrix) == 1:
        return float(matrix[0, 0]), np.ones(1)
    if len(matrix) == 2:
        # Most have settled here, where LAPACK is called in more time than this takes; no sum cancels.
        (high, _), (beside, low) = matrix.tolist()
        half = (high - low) / 2
        radius = math.hypot(half, beside)
        vector = np.array([half + radius, beside] if half >= 0 else [beside, radius - half])
        length = math.hypot(*vector.tolist())
        return low + half + radius, vector / length if length > 0 else np.array([1.0, 0.0])
    values, vectors = np.linalg.eigh(matrix)
    return float(values[-1]), np.ascontiguousarray(vectors[:, -1])

"""The largest and smallest singular values of a root, without its singular value decomposition where that is large."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from closedform.numerics.root import Root

__all__ = ["SMALL", "Extremes", "dominant_pair", "extreme_singular_values"]

#: Up to this many columns all singular values cost less than a few of them.
SMALL = 96
#: Steps of the Lanczos process at most; a Gaussian start needs a fraction of them.
_MAX_STEPS = 40
#: Relative growth of the value, or rest of its equation, at which it has settled: a vector whose images count needs two
#: digits.
_TOLERANCE = 1e-2
#: Such a rest where only the value counts: a condition number needs one digit.
_OF_VALUES = 8e-2


@final
@dataclass(frozen=True, eq=False)
class Extremes:
    """The extreme singular values of a matrix, and where they were found.

    Attributes:
        largest: Largest singular value; where it is estimated, from below.
        smallest: Smallest singular value; where it is estimated, from above.
        dominant: The vector z whose ``diag(scale) z`` is near the leading right singular vector of ``S diag(1/scale)``,
            ``(columns, 1)``, or None.
        recessive: The same for the last one, or None.
    """

    largest: float
    smallest: float
    dominant: Tensor | None = None
    recessive: Tensor | None = None

    @property
    def condition(self) -> float:
        """Their ratio; 1 for the zero matrix."""
        if self.largest == 0.0:
            return 1.0
        return self.largest / self.smallest if self.smallest > 0 else math.inf


def extreme_singular_values(
    root: Root, scale: Tensor | None = None, start: Extremes | None = None, seed: int = 0
) -> Extremes:
    """Return or estimate the extreme singular values of ``S diag(1/scale)``.

    Small matrices are decomposed. Otherwise the Lanczos process on ``S'S`` and on its inverse approaches the largest
    from below and the smallest from above, within a few per cent for a few products with S. Source: Lanczos (1950);
    Kuczynski and Wozniakowski (1992) for what a Gaussian start promises.

    Args:
        root: S, ``(columns, columns)``.
        scale: ``(columns,)`` or None for ones.
        start: What was found for another scale, to start from.
        seed: Seed of the start vectors.

    Example:
        >>> import torch
        >>> from closedform.numerics.root import TriangularRoot
        >>> S = TriangularRoot(torch.diag(torch.tensor([4.0, 2.0, 0.5], dtype=torch.float64)))
        >>> extreme_singular_values(S).condition
        8.0
    """
    rank, columns = root.shape
    if rank == 0 or columns == 0:
        return Extremes(0.0, 0.0)
    if columns <= SMALL:
        try:
            values, vectors = root.spectrum() if scale is None else torch.linalg.svd(root.dense() / scale)[1:]
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # it is documented as exported
            # Numbers left the range of float64 on the way: nothing is known of such a matrix.
            return Extremes(math.inf, 0.0)
        ends = vectors[:1].T, vectors[-1:].T
        if scale is not None:
            unscale = 1 / scale.unsqueeze(1)
            ends = ends[0] * unscale, ends[1] * unscale
        return Extremes(float(values[0]), float(values[-1]), *ends)
    unit, D = 1.0, None
    if scale is not None:
        # In the middle of its range, so that squares stay in that of float64.
        unit = float(torch.sqrt(scale.min()) * torch.sqrt(scale.max()))
        D = scale.unsqueeze(1) / unit
    first, last = (None, None) if start is None else (start.dominant, start.recessive)
    if first is None or last is None:
        generator = torch.Generator().manual_seed(seed)
        gaussian = torch.randn(columns, 1, dtype=torch.float64, device="cpu", generator=generator).to(root.device)
        first, last = gaussian if first is None else first, gaussian if last is None else last

    def squared(V: Tensor) -> Tensor:
        return root.normal_product(V) if D is None else root.normal_product(V / D) / D

    def inverse_squared(V: Tensor) -> Tensor:
        return root.normal_solve(V) if D is None else D * root.normal_solve(D * V)

    largest, dominant, _ = dominant_pair(squared, first if D is None else first * D, _OF_VALUES)
    inverse, recessive, image = dominant_pair(inverse_squared, last if D is None else last * D, _OF_VALUES)
    smallest = 1.0 / math.sqrt(inverse) if inverse > 0 else 0.0
    if 0 < inverse < math.inf:
        # The start vector stands in the Krylov space; what the inverse makes of the vector is rid of what is left of
        # its large directions, in which its image under S would be dominated by them.
        recessive = image / inverse
    if D is not None:
        dominant, recessive = dominant / D, recessive / D
    return Extremes(math.sqrt(largest) / unit, smallest / unit, dominant, recessive)


def dominant_pair(
    operator: Callable[[Tensor], Tensor], start: Tensor, tolerance: float = _TOLERANCE
) -> tuple[float, Tensor, Tensor]:
    """Return the largest eigenvalue of a symmetric positive operator, from below, or inf; its vector, and its image.

    Lanczos with full reorthogonalisation, stopped when the value no longer grows. The image of the vector is the same
    combination of the images that were computed on the way, so that it costs no further product; the vector again
    where the value is inf.

    Args:
        operator: Maps ``(size, 1)`` to that.
        start: Where to start, ``(size, 1)``.
        tolerance: What may be left of the eigenvalue equation, relative to the value.
    """
    length = float(torch.linalg.vector_norm(start))
    if not 0 < length < math.inf:
        return math.inf, start, start

    size, steps = start.shape[0], min(_MAX_STEPS, start.shape[0])
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
        settled = settled + 1 if value <= previous * (1 + _TOLERANCE) else 0
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

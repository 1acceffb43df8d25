"""The largest and smallest singular values of a root, without its singular value decomposition where that is large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.numerics.chain import Chain, Scaling
from closedform.numerics.root import Root

__all__ = ["SMALL", "Extremes", "extreme_singular_values"]

#: Up to this many columns all singular values cost less than a few of them.
SMALL = 96
#: What may be left of the equation of an eigenvalue, relative to it: a condition number needs one digit.
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

    scaled, unscaled = ((), ()) if D is None else ((Scaling(D),), (Scaling(D, inverse=True),))
    squared: Chain = (*unscaled, *root.normal_chain(), *unscaled)
    inverse_squared: Chain = (*scaled, *root.normal_inverse_chain(), *scaled)
    pair = root.arithmetic.dominant_pair
    largest, dominant, _ = pair(squared, first if D is None else first * D, _OF_VALUES)
    inverse, recessive, image = pair(inverse_squared, last if D is None else last * D, _OF_VALUES)
    smallest = 1.0 / math.sqrt(inverse) if inverse > 0 else 0.0
    if 0 < inverse < math.inf:
        # The start vector stands in the Krylov space; what the inverse makes of the vector is rid of what is left of
        # its large directions, in which its image under S would be dominated by them.
        recessive = image / inverse
    if D is not None:
        dominant, recessive = dominant / D, recessive / D
    return Extremes(math.sqrt(largest) / unit, smallest / unit, dominant, recessive)

"""Products and solutions with matrices that are held whole, and the leading eigenvalue of what is made of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.numerics.chain import Applied, Chain, NormalProduct, NormalSolve, Scaling, Step
from closedform.numerics.lanczos import TOLERANCE, dominant_pair
from closedform.numerics.matrix_product import product

__all__ = ["BY_TORCH", "Arithmetic", "ByTorch", "row_parts"]

#: Rows of a triangle that are multiplied at once at least: with fewer, calls cost more than their work.
_PART_ROWS = 256
#: Parts that a large triangle has at most: each leaves the zeros before it out.
_PARTS = 8


class Arithmetic(ABC):
    """How vectors are solved for and multiplied with a square matrix; all of them give the same up to rounding."""

    @abstractmethod
    def solve(self, R: Tensor, V: Tensor, *, adjoint: bool = False) -> Tensor:
        """Return ``R^-1 V`` or, adjoint, ``R^-T V``.

        Args:
            R: Upper triangular, ``(n, n)``, float64.
            V: ``(n, k)``, float64.
            adjoint: Whether R is transposed.
        """

    @abstractmethod
    def normal_solve(self, R: Tensor, V: Tensor) -> Tensor:
        """Return ``(R'R)^-1 V``.

        Args:
            R: Upper triangular, ``(n, n)``, float64.
            V: ``(n, k)``, float64.
        """

    @abstractmethod
    def product(self, M: Tensor, V: Tensor, *, adjoint: bool = False) -> Tensor:
        """Return ``M V`` or, adjoint, ``M'V``.

        Args:
            M: ``(m, n)``, float64.
            V: ``(n, k)``, or ``(m, k)``, float64.
            adjoint: Whether M is transposed.
        """

    @abstractmethod
    def normal_product(self, M: Tensor, V: Tensor, *, upper: bool = False) -> Tensor:
        """Return ``M'M V``.

        Args:
            M: ``(m, n)``, float64.
            V: ``(n, k)``, float64.
            upper: Whether M is square and upper triangular, with zeros below.
        """

    def dominant_pair(self, chain: Chain, start: Tensor, tolerance: float = TOLERANCE) -> tuple[float, Tensor, Tensor]:
        """Return what :func:`closedform.numerics.lanczos.dominant_pair` does for a chain of steps.

        Args:
            chain: Steps that together are symmetric and positive.
            start: Where to start, ``(n, 1)``, float64.
            tolerance: What may be left of the eigenvalue equation, relative to the value.
        """

        def operator(V: Tensor) -> Tensor:
            for step in chain:
                V = self.taken(step, V)
            return V

        return dominant_pair(operator, start, tolerance)

    def taken(self, step: Step, V: Tensor) -> Tensor:
        """Return what a step of a chain makes of vectors.

        Args:
            step: The step.
            V: ``(n, 1)``, float64.
        """
        match step:
            case Scaling(values, inverse):
                return V / values if inverse else values * V
            case NormalProduct(M, upper):
                return self.normal_product(M, V, upper=upper)
            case NormalSolve(R):
                return self.normal_solve(R, V)
            case Applied(function):
                return function(V)


@final
class ByTorch(Arithmetic):
    """On any device.

    Example:
        >>> import torch
        >>> R = torch.tensor([[2.0, 1.0], [0.0, 4.0]], dtype=torch.float64)
        >>> BY_TORCH.solve(R, torch.tensor([[4.0], [8.0]], dtype=torch.float64)).squeeze()
        tensor([1., 2.], dtype=torch.float64)
    """

    @override
    def solve(self, R: Tensor, V: Tensor, *, adjoint: bool = False) -> Tensor:
        return torch.linalg.solve_triangular(R.T if adjoint else R, V, upper=not adjoint)

    @override
    def normal_solve(self, R: Tensor, V: Tensor) -> Tensor:
        return self.solve(R, self.solve(R, V, adjoint=True))

    @override
    def product(self, M: Tensor, V: Tensor, *, adjoint: bool = False) -> Tensor:
        return product(M, V, adjoint=adjoint)

    @override
    def normal_product(self, M: Tensor, V: Tensor, *, upper: bool = False) -> Tensor:
        if not upper:
            return product(M, product(M, V), adjoint=True)
        total = torch.zeros_like(V)
        for part in row_parts(M.shape[0]):
            rows = M[part, part.start :]
            total[part.start :] += rows.T @ (rows @ V[part.start :])
        return total


def row_parts(n: int) -> list[slice]:
    """Return rows of a triangle that are multiplied at once: a large one has a few parts, which leave zeros out.

    Args:
        n: Rows and columns of the triangle.
    """
    size = max(_PART_ROWS, -(-n // _PARTS))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)] or [slice(0, 0)]


#: The only one that is needed: it has no state.
BY_TORCH = ByTorch()

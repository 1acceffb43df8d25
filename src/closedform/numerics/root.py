"""Roots S of the normal matrix, ``S'S ~ A'A``: what a factor offers to refinement and to the certificate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.numerics.arithmetic import BY_TORCH, Arithmetic, row_parts
from closedform.numerics.chain import Applied, Chain, NormalProduct, NormalSolve, Scaling
from closedform.numerics.lu import LU

__all__ = ["DenseRoot", "DiagonalRoot", "FactoredRoot", "ProjectedRoot", "Root", "SpectralRoot", "TriangularRoot"]

#: Rows up to which a triangle is multiplied as a whole, zeros and all.
_WHOLE = 256


class Root(ABC):
    """A matrix S with ``S'S ~ A'A`` that can be applied and inverted, ``(rank, columns)``, in float64.

    ``shape`` is (rank, columns). ``solve`` is the (pseudo-)inverse. ``arithmetic`` computes its products.
    """

    shape: tuple[int, int]
    device: torch.device
    arithmetic: Arithmetic = BY_TORCH

    @abstractmethod
    def product(self, V: Tensor) -> Tensor:
        """Return ``S V``."""

    @abstractmethod
    def adjoint_product(self, V: Tensor) -> Tensor:
        """Return ``S' V``."""

    def normal_product(self, V: Tensor) -> Tensor:
        """Return ``S'S V``."""
        return self.adjoint_product(self.product(V))

    @abstractmethod
    def solve(self, V: Tensor) -> Tensor:
        """Return ``S^-1 V``; for a root of lower rank the solution of least norm."""

    @abstractmethod
    def adjoint_solve(self, V: Tensor) -> Tensor:
        """Return ``S^-T V``."""

    def normal_solve(self, V: Tensor) -> Tensor:
        """Return ``(S'S)^-1 V``, with the pseudo-inverse where the rank is lower."""
        return self.solve(self.adjoint_solve(V))

    def normal_chain(self) -> Chain:
        """Return ``S'S`` as a chain of steps, up to rounding."""
        return (Applied(self.normal_product),)

    def normal_inverse_chain(self) -> Chain:
        """Return ``(S'S)^-1`` as a chain of steps, up to rounding."""
        return (Applied(self.normal_solve),)

    def is_finite(self) -> bool:
        """Whether no number left the range of float64."""
        return bool(torch.isfinite(self.dense()).all())

    @abstractmethod
    def dense(self) -> Tensor:
        """Return S itself, ``(rank, columns)``."""

    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Return the singular values (descending) and the right singular vectors as rows, ``(rank, columns)``."""
        return self._svd

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor]:
        _, values, vectors = torch.linalg.svd(self.dense(), full_matrices=False)
        return values, vectors


@final
class TriangularRoot(Root):
    """An upper triangular root: the R of a QR factorization or the transposed Cholesky factor."""

    def __init__(self, R: Tensor, arithmetic: Arithmetic = BY_TORCH) -> None:
        self.R, self.arithmetic = R, arithmetic
        self.shape = (R.shape[0], R.shape[1])
        self.device = R.device

    @override
    def product(self, V: Tensor) -> Tensor:
        if self.shape[0] <= _WHOLE:
            return self.R @ V
        return torch.cat([self.R[part, part.start :] @ V[part.start :] for part in self._parts])

    @override
    def adjoint_product(self, V: Tensor) -> Tensor:
        if self.shape[0] <= _WHOLE:
            return self.R.T @ V
        return torch.cat([self.R[: part.stop, part].T @ V[: part.stop] for part in self._parts])

    @cached_property
    def _parts(self) -> list[slice]:
        return row_parts(self.shape[0])

    @override
    def solve(self, V: Tensor) -> Tensor:
        return self.arithmetic.solve(self.R, V)

    @override
    def adjoint_solve(self, V: Tensor) -> Tensor:
        return self.arithmetic.solve(self.R, V, adjoint=True)

    @override
    def normal_solve(self, V: Tensor) -> Tensor:
        return self.arithmetic.normal_solve(self.R, V)

    @override
    def normal_chain(self) -> Chain:
        return (NormalProduct(self.R, upper=True),)

    @override
    def normal_inverse_chain(self) -> Chain:
        return (NormalSolve(self.R),)

    @override
    def dense(self) -> Tensor:
        return self.R


@final
class DenseRoot(Root):
    """A square matrix as its own root, ``S = M diag(scale)``.

    Exactly one of ``lu``, that of S, and ``cholesky`` (upper), that of M, is given.
    """

    def __init__(
        self,
        matrix: Tensor,
        scale: Tensor,
        *,
        lu: LU | None = None,
        cholesky: Tensor | None = None,
        arithmetic: Arithmetic = BY_TORCH,
    ) -> None:
        self.matrix = matrix
        self.scale = scale.unsqueeze(1)
        self.lu = lu
        self.cholesky = cholesky
        self.arithmetic = arithmetic
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.device = matrix.device

    @override
    def product(self, V: Tensor) -> Tensor:
        return self.arithmetic.product(self.matrix, self.scale * V)

    @override
    def adjoint_product(self, V: Tensor) -> Tensor:
        return self.scale * self.arithmetic.product(self.matrix, V, adjoint=True)

    def _symmetric_solve(self, V: Tensor) -> Tensor:
        assert self.cholesky is not None
        return self.arithmetic.normal_solve(self.cholesky, V)

    @override
    def solve(self, V: Tensor) -> Tensor:
        return self._symmetric_solve(V) / self.scale if self.lu is None else self.lu.solve(V)

    @override
    def adjoint_solve(self, V: Tensor) -> Tensor:
        return self._symmetric_solve(V / self.scale) if self.lu is None else self.lu.solve(V, adjoint=True)

    @override
    def normal_chain(self) -> Chain:
        scaling = Scaling(self.scale)
        if self.cholesky is None:
            return scaling, NormalProduct(self.matrix), scaling
        # With M = R'R, whose half as many numbers stay in cache from one product, or solution, to the next.
        product = NormalProduct(self.cholesky, upper=True)
        return scaling, product, product, scaling

    @override
    def normal_inverse_chain(self) -> Chain:
        if self.cholesky is None:
            return super().normal_inverse_chain()
        unscaling, solve = Scaling(self.scale, inverse=True), NormalSolve(self.cholesky)
        return unscaling, solve, solve, unscaling

    @override
    def is_finite(self) -> bool:
        # The matrix is the user's, which was checked, and its columns are scaled to lengths of at most one.
        return True

    @override
    def dense(self) -> Tensor:
        return self.matrix * self.scale.T


@final
class FactoredRoot(Root):
    """``S = P L U`` itself, in single precision, as the root of the matrix that it was made of.

    Args:
        lu: Of a matrix whose columns are scaled.
        device: Where it is.
    """

    def __init__(self, lu: LU, device: torch.device) -> None:
        self.lu = lu
        self.shape = (lu.size, lu.size)
        self.device = device

    @override
    def product(self, V: Tensor) -> Tensor:
        return self.lu.product(V)

    @override
    def adjoint_product(self, V: Tensor) -> Tensor:
        return self.lu.product(V, adjoint=True)

    @override
    def solve(self, V: Tensor) -> Tensor:
        return self.lu.solve(V)

    @override
    def adjoint_solve(self, V: Tensor) -> Tensor:
        return self.lu.solve(V, adjoint=True)

    @override
    def dense(self) -> Tensor:
        return self.product(torch.eye(self.shape[0], dtype=torch.float64, device=self.device))


@final
class DiagonalRoot(Root):
    """The lengths of the columns, as the root of a matrix whose columns are nearly orthogonal."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.unsqueeze(1)
        self.shape = (values.shape[0], values.shape[0])
        self.device = values.device

    @override
    def product(self, V: Tensor) -> Tensor:
        return self._values * V

    @override
    def adjoint_product(self, V: Tensor) -> Tensor:
        return self._values * V

    @override
    def solve(self, V: Tensor) -> Tensor:
        return V / self._values

    @override
    def adjoint_solve(self, V: Tensor) -> Tensor:
        return V / self._values

    @override
    def dense(self) -> Tensor:
        return torch.diagflat(self._values)

    @override
    def spectrum(self) -> tuple[Tensor, Tensor]:
        values, order = self._values[:, 0].sort(descending=True)
        return values, torch.eye(self.shape[0], dtype=values.dtype, device=self.device)[order]


@final
class SpectralRoot(Root):
    """The root ``diag(values) vectors`` given by a singular value decomposition cut at some rank."""

    def __init__(self, values: Tensor, vectors: Tensor) -> None:
        self.values = values
        self.vectors = vectors
        self.shape = (vectors.shape[0], vectors.shape[1])
        self.device = values.device

    @override
    def product(self, V: Tensor) -> Tensor:
        return self.values.unsqueeze(1) * (self.vectors @ V)

    @override
    def adjoint_product(self, V: Tensor) -> Tensor:
        return self.vectors.T @ (self.values.unsqueeze(1) * V)

    @override
    def solve(self, V: Tensor) -> Tensor:
        return self.vectors.T @ (V / self.values.unsqueeze(1))

    @override
    def adjoint_solve(self, V: Tensor) -> Tensor:
        return (self.vectors @ V) / self.values.unsqueeze(1)

    @override
    def dense(self) -> Tensor:
        return self.values.unsqueeze(1) * self.vectors

    @override
    def spectrum(self) -> tuple[Tensor, Tensor]:
        return self.values, self.vectors


@final
class ProjectedRoot(Root):
    """The root ``R V'`` with R upper triangular and V' an orthonormal basis of the row space, ``(rank, columns)``."""

    def __init__(self, R: Tensor, vectors: Tensor) -> None:
        self.inner = TriangularRoot(R)
        self.vectors = vectors
        self.shape = (vectors.shape[0], vectors.shape[1])
        self.device = R.device

    @override
    def product(self, V: Tensor) -> Tensor:
        return self.inner.product(self.vectors @ V)

    @override
    def adjoint_product(self, V: Tensor) -> Tensor:
        return self.vectors.T @ self.inner.adjoint_product(V)

    @override
    def solve(self, V: Tensor) -> Tensor:
        return self.vectors.T @ self.inner.solve(V)

    @override
    def adjoint_solve(self, V: Tensor) -> Tensor:
        return self.inner.adjoint_solve(self.vectors @ V)

    @override
    def dense(self) -> Tensor:
        return self.inner.product(self.vectors)

    @cached_property
    @override
    def _svd(self) -> tuple[Tensor, Tensor]:
        values, inner = self.inner.spectrum()
        return values, inner @ self.vectors

"""Coordinates in which outputs are well conditioned: those of the row space, or the columns themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.numerics.least_norm import LeastNorm
from closedform.numerics.rank import default_rcond

__all__ = ["Coordinates"]

#: Condition number of the columns, for each of them, up to which they serve as they are.
_REGULAR = 1e3
#: Singular values, relative to the largest, that no penalty leaves anything of.
_NOTHING = 1e-30


@final
@dataclass(frozen=True, eq=False)
class Coordinates:
    """``A v = U w`` for ``v = lift w``, with as many w as the outputs of all rows can tell apart.

    Attributes:
        U: ``(rows, coordinates)``.
        lift: ``(columns, coordinates)``, or None where w is v.
        penalised: What the penalty is in these coordinates, for a strength of 1, ``(coordinates,)``.
        units: What the coefficients of columns are multiplied by to be weights, ``(columns,)``.
        bias: How many columns, the first ones, are those of a bias.
        rank: Of the columns, up to rounding.
        condition: Condition number of the columns, where it was computed; 1 where they serve as they are.
    """

    U: Tensor
    lift: Tensor | None
    penalised: Tensor
    units: Tensor
    bias: int
    rank: int
    condition: float

    @staticmethod
    def of(A: Tensor, units: Tensor, *, bias: int, ridge: bool, most: int | None = None) -> Coordinates:
        """Return coordinates for some rows.

        Without a ridge, columns that are far from orthogonal are turned into an orthonormal basis of what they span, by
        their singular values, so that nothing squares their condition. With one, the same is done with the columns that
        are penalised, in the units of the penalty, and the minimiser is among the combinations of the rows (and the
        bias): where these are fewer than the columns they are what is searched.

        Args:
            A: ``(rows, columns)``, columns of comparable norms.
            units: ``(columns,)``.
            bias: How many columns, the first ones, are those of a bias.
            ridge: Whether all other coefficients are penalised.
            most: The rank that the penalised columns are known not to exceed, or None.
        """
        free, bias = units.square(), int(bias)
        if bias:
            free = torch.cat([free.new_zeros(bias), free[bias:]])
        m, c = A.shape
        if ridge and m + bias < c:
            return _among_rows(A, units, bias=bias)
        if _regular(A):
            return Coordinates(A, None, free if ridge else torch.zeros_like(free), units, bias, c, 1.0)
        if ridge:
            return _penalised(A, units, bias=bias, most=c if most is None else most)
        return _orthonormal(A, units, bias=bias)

    def raised(self, w: Tensor) -> Tensor:
        """Return the coefficients of the columns, ``(columns,)``."""
        return w if self.lift is None else self.lift @ w

    def lowered(self, g: Tensor) -> Tensor:
        """Return a gradient by the coefficients of columns as one by these coordinates."""
        return g if self.lift is None else self.lift.T @ g

    def nearest(self, r: Tensor) -> Tensor:
        """Return the coordinates of least squares for some residuals, without a ridge."""
        if self.lift is not None:
            return self.U.T @ r
        factor = torch.linalg.cholesky(self.U.T @ self.U)
        return torch.cholesky_solve((self.U.T @ r).unsqueeze(1), factor).squeeze(1)

    def shortest(self, v: Tensor) -> Tensor:
        """Return the coefficients with the same outputs whose weights have least norm, the bias outside it."""
        if self.lift is None or self.rank == v.shape[0] or bool((self.penalised > 0).any()):
            return v
        basis = torch.linalg.qr(self.lift).Q
        weights = LeastNorm(basis / self.units.unsqueeze(1), free_first=bool(self.bias)).solve(
            (basis.T @ v).unsqueeze(1)
        )
        return weights.squeeze(1) / self.units


def _regular(A: Tensor) -> bool:
    if A.shape[0] < A.shape[1]:
        return False
    factor, broken = torch.linalg.cholesky_ex(A.T @ A)
    if int(broken):
        return False
    ones = torch.eye(factor.shape[0], dtype=A.dtype, device=A.device)
    inverse = torch.linalg.solve_triangular(factor, ones, upper=False)
    return float(factor.norm() * inverse.norm()) <= _REGULAR * A.shape[1]


def _orthonormal(A: Tensor, units: Tensor, *, bias: int) -> Coordinates:
    m, c = A.shape
    Q, R = torch.linalg.qr(A) if m > c else (None, A)
    left, values, right = torch.linalg.svd(R, full_matrices=False)
    rank = max(1, int((values > default_rcond(m, c) * values[0]).sum()))
    left = left[:, :rank] if Q is None else Q @ left[:, :rank]
    if not float(values[0]):
        return _still(A, units, penalised=0.0)
    lift = right[:rank].T / values[:rank]
    condition = float(values[0] / values[rank - 1]) if float(values[rank - 1]) else 1.0
    return Coordinates(left, lift, A.new_zeros(rank), units, bias, rank, condition)


def _penalised(A: Tensor, units: Tensor, *, bias: int, most: int) -> Coordinates:
    m, c = A.shape
    Q, R = torch.linalg.qr(A[:, bias:] / units[bias:]) if m > c else (None, A[:, bias:] / units[bias:])
    left, values, right = torch.linalg.svd(R, full_matrices=False)
    kept = values > _NOTHING * values[0]
    kept[most:] = False
    if not bias and not bool(kept.any()):
        return _still(A, units, penalised=1.0)
    left, values, right = left[:, kept] if Q is None else Q @ left[:, kept], values[kept], right[kept]
    lift = A.new_zeros(c, bias + len(values))
    lift[:bias, :bias] = torch.eye(bias, dtype=A.dtype, device=A.device)
    lift[bias:, bias:] = right.T / values / units[bias:].unsqueeze(1)
    penalised = torch.cat([A.new_zeros(bias), values**-2])
    return Coordinates(torch.cat([A[:, :bias], left], 1), lift, penalised, units, bias, c, 1.0)


def _still(A: Tensor, units: Tensor, *, penalised: float) -> Coordinates:
    """Return one coordinate that changes no output: of columns of zeros there is no other."""
    U, lift = A.new_zeros(A.shape[0], 1), A.new_zeros(A.shape[1], 1)
    return Coordinates(U, lift, A.new_full((1,), penalised), units, 0, 0, 1.0)


def _among_rows(A: Tensor, units: Tensor, *, bias: int) -> Coordinates:
    first = bias
    Q, R = torch.linalg.qr((A[:, first:] / units[first:]).T)
    m = A.shape[0]
    U = torch.cat([A[:, :first], R.T], 1)
    lift = A.new_zeros(A.shape[1], first + m)
    lift[:first, :first] = torch.eye(first, dtype=A.dtype, device=A.device)
    lift[first:, first:] = Q / units[first:].unsqueeze(1)
    penalised = torch.cat([A.new_zeros(first), A.new_ones(m)])
    return Coordinates(U, lift, penalised, units, bias, m + first, 1.0)

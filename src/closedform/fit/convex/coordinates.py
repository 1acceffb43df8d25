"""Coordinates in which outputs are well conditioned: those of the row space, or the columns themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.numerics.least_norm import LeastNorm, least_norm_lstsq
from closedform.numerics.rank import default_rcond
from closedform.numerics.scaling import unit_of

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
    def of(
        A: Tensor,
        units: Tensor,
        *,
        bias: int,
        ridge: bool,
        most: int | None = None,
        gram: Tensor | None = None,
    ) -> Coordinates:
        """Return coordinates for some rows.

        Without a ridge, columns that are far from orthogonal are turned into an orthonormal basis of what they span, by
        their singular values, so that nothing squares their condition. With one, the same is done with the columns that
        are penalised, in the units of the penalty and without what a bias can do as well, so that it does not matter
        how far from zero they are. The minimiser is among the combinations of the rows (and the bias): where these are
        fewer than the columns they are what is searched.

        Args:
            A: ``(rows, columns)``, columns of comparable norms.
            units: ``(columns,)``.
            bias: How many columns, the first ones, are those of a bias.
            ridge: Whether all other coefficients are penalised.
            most: The rank that the penalised columns are known not to exceed, or None.
            gram: ``A'A``, where it is known.
        """
        bias = int(bias)
        m, c = A.shape
        if ridge and m + bias < c:
            return _among_rows(A, units, bias=bias)
        if _regular(A, gram):
            free = _free(units, bias)
            return Coordinates(A, None, free if ridge else torch.zeros_like(free), units, bias, c, 1.0)
        if ridge:
            return _penalised(A, units, bias=bias, most=c if most is None else most)
        return _orthonormal(A, units, bias=bias)

    @property
    def free(self) -> Tensor:
        """What the penalty is by the coefficients of the columns, for a strength of 1, ``(columns,)``."""
        return _free(self.units, self.bias)

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


def _free(units: Tensor, bias: int) -> Tensor:
    return torch.cat([units.new_zeros(bias), units[bias:].square()])


def _regular(A: Tensor, gram: Tensor | None) -> bool:
    if A.shape[0] < A.shape[1]:
        return False
    factor, broken = torch.linalg.cholesky_ex(A.T @ A if gram is None else gram)
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
    centred, shifts = _without_bias(A, bias)
    Q, R = torch.linalg.qr(centred / units[bias:]) if m > c else (None, centred / units[bias:])
    left, values, right = torch.linalg.svd(R, full_matrices=False)
    kept = values > _NOTHING * values[0]
    kept[most:] = False
    if not bias and not bool(kept.any()):
        return _still(A, units, penalised=1.0)
    left, values, right = left[:, kept] if Q is None else Q @ left[:, kept], values[kept], right[kept]
    lift = _lifted(right.T / values / units[bias:].unsqueeze(1), shifts)
    penalised = torch.cat([A.new_zeros(bias), values**-2])
    return Coordinates(torch.cat([A[:, :bias], left], 1), lift, penalised, units, bias, c, 1.0)


def _without_bias(A: Tensor, bias: int) -> tuple[Tensor, Tensor]:
    """Return the other columns less multiples of those of the bias, centred by one of ones, and these multiples."""
    B, others = A[:, :bias], A[:, bias:]
    shifts = least_norm_lstsq(B.T @ B, B.T @ others) if bias else A.new_zeros(0, others.shape[1])
    return others - B @ shifts, shifts


def _lifted(features: Tensor, shifts: Tensor) -> Tensor:
    """Return the lift of coordinates of features, ``(features, coordinates)``, beside those of the bias itself."""
    bias = shifts.shape[0]
    lift = features.new_zeros(bias + features.shape[0], bias + features.shape[1])
    lift[:bias, :bias] = torch.eye(bias, dtype=lift.dtype, device=lift.device)
    lift[:bias, bias:], lift[bias:, bias:] = -shifts @ features, features
    return lift


def _still(A: Tensor, units: Tensor, *, penalised: float) -> Coordinates:
    """Return one coordinate that changes no output: of columns of zeros there is no other."""
    U, lift = A.new_zeros(A.shape[0], 1), A.new_zeros(A.shape[1], 1)
    return Coordinates(U, lift, A.new_full((1,), penalised), units, 0, 0, 1.0)


def _among_rows(A: Tensor, units: Tensor, *, bias: int) -> Coordinates:
    centred, shifts = _without_bias(A, bias)
    Q, R = torch.linalg.qr((centred / units[bias:]).T)
    m, unit = A.shape[0], unit_of(R)
    U = torch.cat([A[:, :bias], R.T / unit], 1)
    lift = _lifted(Q / units[bias:].unsqueeze(1) / unit, shifts)
    penalised = torch.cat([A.new_zeros(bias), A.new_full((m,), unit**-2)])
    return Coordinates(U, lift, penalised, units, bias, m + bias, 1.0)

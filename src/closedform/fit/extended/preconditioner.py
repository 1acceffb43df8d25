"""The matrix T that makes ``A T`` nearly orthonormal, and a bound on how nearly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.products import gram_
from closedform.fit.extended.arithmetic import SLACK, SlicedBlock, U
from closedform.fit.extended.operand import Operand, OperandFold
from closedform.numerics.expansion import two_sum
from closedform.numerics.rank import RESOLVED
from closedform.numerics.slices import LENGTH, exponents_of, limbs, scaled
from closedform.numerics.symmetric import mirror
from closedform.rows import Block

__all__ = ["Preconditioner", "from_gram", "from_root", "from_triangle"]

#: A computed Gram matrix will do where its condition number, the square of that of A, leaves digits to it.
_GRAM_REACH = 1e9
#: A preconditioner at least this good is not sought any better.
_GOOD = 0.02
#: Times that T is multiplied by what makes ``A T`` more nearly orthonormal; each costs a pass.
_POLISHES = 4
# A rest is at most half a unit of its slice, and rows may be graded.
_REST = 2.1 * 2.0**-31


@final
@dataclass(frozen=True, eq=False)
class Preconditioner:
    """T, with a bound on ``|T'(A'A + P'P)T - I|``; T here may have a low part, of no more than U of each entry.

    Attributes:
        T: Upper triangular, ``(columns, columns)``, without its low part.
        R: Its inverse, rounded.
        delta: The bound; 1 or more means that T is of no use.
        low: The low part of T, or None for zeros.
    """

    T: Tensor
    R: Tensor
    delta: float
    low: Tensor | None = None


def from_triangle(operand: Operand, R: Tensor) -> Preconditioner:
    """Invert a triangle of A, and repair what rounding in it left: Rump (2009) for inverses as sums of doubles.

    At condition numbers near 1 / eps a triangle in double precision is off by as much as it holds, and so would its
    product with what repairs it be: T is held as two doubles there.
    """
    T = _inverse(R)
    low = torch.zeros_like(T)
    best = Preconditioner(T, R, torch.inf)
    if not bool(torch.isfinite(T).all()):
        return best

    # Beyond, the smallest direction is what rounding of the data leaves of it.
    repairable = float(torch.linalg.matrix_norm(T)) * float(torch.linalg.svdvals(R)[0]) < 1 / RESOLVED
    for _ in range(_POLISHES):
        products = _Products.of(operand, T, low)
        found = Preconditioner(T, R, products.defect(), low)
        if not found.delta < best.delta:
            break
        best = found

        second = None if best.delta < _GOOD or not repairable else _inverse_of_root(products.gram)
        if second is None:
            break

        change = second.T - torch.eye(T.shape[0], dtype=T.dtype, device=T.device)
        T, low = two_sum(T, T @ change + low)
        R = second.R @ R
    return best


def from_gram(operand: Operand) -> Preconditioner | None:
    """Factor the Gram matrix of A in double precision; None where that is hopeless.

    Where the rounding of that matrix says too little, ``Y = A T`` is formed and its Gram matrix factored as well, which
    takes back what the first has lost: CholeskyQR2 (Yamamoto, Nakatsukasa, Yanagisawa and Fukaya
    2015).
    """
    whole = _Products.identity(operand)
    first = _inverse_of_root(whole.gram)
    if first is None or not operand.frobenius_norm * float(torch.linalg.matrix_norm(first.T)) < _GRAM_REACH:
        return None
    delta = whole.defect(first.T)
    if delta < _GOOD:
        return Preconditioner(first.T, first.R, delta)
    return _improved(operand, first)


def from_root(operand: Operand, R: Tensor) -> Preconditioner | None:
    """Start from a triangle with ``R'R`` near ``A'A``, however roughly; None where it does not get good enough.

    It spares the Gram matrix that the condition number spoils; where that is not spoilt, it is what delta comes from.
    """
    T = _inverse(R)
    if not bool(torch.isfinite(T).all()):
        return None
    size = operand.frobenius_norm * float(torch.linalg.matrix_norm(T))
    if LENGTH * U * size**2 < _GOOD:
        return from_gram(operand)
    return _improved(operand, Preconditioner(T, R, torch.nan))


def _improved(operand: Operand, first: Preconditioner) -> Preconditioner | None:
    """Factor the Gram matrix of ``A T``, unless it is the identity already, and multiply the factors."""
    products = _Products.of(operand, first.T)
    delta = products.defect()
    if delta < _GOOD:
        return Preconditioner(first.T, first.R, delta)
    second = _inverse_of_root(products.gram)
    if second is None:
        return None
    delta = products.defect(second.T)
    return Preconditioner(first.T @ second.T, second.R @ first.R, delta) if delta < _GOOD else None


def _inverse_of_root(gram: Tensor) -> Preconditioner | None:
    L, info = torch.linalg.cholesky_ex(gram)
    if int(info) != 0:
        return None
    T = _inverse(L.T)
    return Preconditioner(T, L.T, torch.nan) if bool(torch.isfinite(T).all()) else None


def _inverse(R: Tensor) -> Tensor:
    if R.shape[0] < R.shape[1] or bool((R.diagonal() == 0).any()):
        return torch.full((R.shape[1], R.shape[1]), torch.inf, dtype=R.dtype, device=R.device)
    return torch.linalg.solve_triangular(R, torch.eye(R.shape[0], dtype=R.dtype, device=R.device), upper=True)


@final
@dataclass(frozen=True, eq=False)
class _Products:
    """What is known of ``Y = A T`` (with the rows of the penalty): its Gram matrix, and how far it is off.

    Attributes:
        gram: Computed ``Y'Y``.
        squares: Sum of the squares of Y.
        error: Bound on the Frobenius norm of ``Y - A T``.
        reach: ``|A| |T|`` in Frobenius norms.
        terms: Additions that an entry of the Gram matrix went through, at most.
    """

    gram: Tensor
    squares: float
    error: float
    reach: float
    terms: int

    @staticmethod
    def identity(operand: Operand) -> _Products:
        """Take T for the identity."""
        return _Products._of(operand, None, operand.gram(None) or _summed(_RoundedGram(operand, None)), 0.0, 0.0)

    @staticmethod
    def of(operand: Operand, T: Tensor, low: Tensor | None = None) -> _Products:
        """Multiply in double precision where that is enough, else with the first bits of both exactly."""
        p = T.shape[0]
        reach = operand.frobenius_norm * float(torch.linalg.matrix_norm(T)) * SLACK
        # One more for the low part.
        error = (p + 6) * U * reach
        if error < _GOOD:
            summed = operand.gram(T) or _summed(_RoundedGram(operand, T))
        else:
            careful = _CarefulProducts(operand, T, torch.zeros_like(T) if low is None else low)
            error, summed = careful.error, _summed(_CarefulGram(careful))
        return _Products._of(operand, T, summed, error, reach)

    @staticmethod
    def _of(operand: Operand, T: Tensor | None, summed: tuple[Tensor, int], error: float, reach: float) -> _Products:
        gram, terms = summed
        if operand.penalty is not None:
            root = operand.penalty.sqrt().unsqueeze(1)
            gram_(gram, torch.diagflat(root) if T is None else root * T)
            terms += operand.columns + 1
        # The diagonal of the sum is as good as its entries, which SLACK exceeds by far.
        squares = float(gram.diagonal().sum()) * SLACK
        # Rounding of Y itself: of its last additions, of the root of a weight, of the root of the ridge strength.
        return _Products(mirror(gram), squares, error + 10 * U * squares**0.5, reach, terms)

    def defect(self, S: Tensor | None = None) -> float:
        """Bound ``|(T S)'(A'A + P'P)(T S) - I|``, also where ``T S`` is rounded."""
        gram, size, change, extra = self.gram, 1.0, self.error, 0.0
        if S is not None:
            p = S.shape[0]
            size = float(torch.linalg.matrix_norm(S, 1) * torch.linalg.matrix_norm(S, torch.inf)) ** 0.5 * SLACK
            extra = 2 * (p + 3) * U * size**2 * float(torch.linalg.matrix_norm(gram)) * SLACK
            gram = S.T @ gram @ S
            change = size * (change + (p + 3) * U * self.reach)
        off = gram - torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
        defect = float(torch.linalg.matrix_norm(off)) + extra + size**2 * (self.terms + 10) * U * self.squares
        return (defect + 2 * (1 + defect) ** 0.5 * change + change**2) * SLACK


class _ProductGram(OperandFold, ABC):
    """Sums ``Y'Y`` over blocks Y of ``sqrt(W) A T``, of at most :data:`LENGTH` rows, and counts the additions."""

    def __init__(self, operand: Operand) -> None:
        super().__init__(operand)
        p = operand.columns
        self.gram = operand.peaks.new_zeros(p, p)
        self.terms = LENGTH

    @abstractmethod
    def multiply(self, block: Block) -> Tensor:
        """Return Y for a block."""

    @override
    def add(self, block: Block) -> None:
        gram_(self.gram, self.multiply(block))
        self.terms += 1

    @override
    def merge(self, other: Self) -> None:
        self.gram += other.gram
        self.terms += other.terms + 1

    @override
    def state(self) -> tuple[Tensor, ...]:
        return self.gram, torch.tensor(self.terms, device="cpu")

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        self.gram, self.terms = state[0].clone(), int(state[1])


@final
class _RoundedGram(_ProductGram):
    """Of products in double precision; T is the identity where it is None."""

    def __init__(self, operand: Operand, T: Tensor | None) -> None:
        super().__init__(operand)
        self._T = T

    @override
    def multiply(self, block: Block) -> Tensor:
        A = self.operand.rounded(block)
        return A if self._T is None else A @ self._T

    @override
    def fresh(self) -> Self:
        return type(self)(self.operand, self._T)


@final
class _CarefulGram(_ProductGram):
    """Of products whose leading parts are exact."""

    def __init__(self, products: _CarefulProducts) -> None:
        super().__init__(products.operand)
        self._products = products

    @override
    def multiply(self, block: Block) -> Tensor:
        room = self.gram.new_empty(block.X.shape[0], 1, self.operand.columns)
        return self._products.multiply(self.operand.sliced(block, room))

    @override
    def fresh(self) -> Self:
        return type(self)(self._products)


def _summed(fold: _ProductGram) -> tuple[Tensor, int]:
    """Walk the rows, and return the sum and how many additions its entries went through, at most."""
    walked = fold.operand.walk(fold)
    return walked.gram, walked.terms


@final
class _CarefulProducts:
    """``A T`` whose leading products are exact, so that only what is left of T and A counts in the rounding.

    With a slice ``A = A_1 + rest`` and c limbs ``T = T_1 + .. + T_c + tail``, ``A_1 T_1 + .. + A_1 T_c`` are sums of
    exact products and ``A_1 tail + rest T`` is small. What the sums of the exact products round is measured. The low
    part of T is added to the tail.
    """

    def __init__(self, operand: Operand, T: Tensor, low: Tensor) -> None:
        p = T.shape[0]
        self.operand = operand
        exponents = exponents_of(T.abs().amax(0))
        down = scaled(T, -exponents)
        for count in (1, 3):
            self.limbs = list(limbs(down.unsqueeze(0), count))
            self.tail = (down - sum(self.limbs)) + scaled(low, -exponents)
            self.exponents, self.T = exponents, down
            rest = (operand.rows * p) ** 0.5 * _REST
            tail = float(torch.linalg.matrix_norm(scaled(self.tail, exponents)))
            size = float(torch.linalg.matrix_norm(T))
            left = operand.frobenius_norm + rest
            # Two more for the low part: of the sum that the tail is, and of its product with the rest.
            self.error = (p + 10) * U * (left * tail + rest * size) * SLACK
            # A slice of 30 bits and a limb of 10 leave room for 2**13 terms; sums of several products are rounded.
            sums = (p if p > 4 * LENGTH else 0) * size + (count > 1) * 2.0**-9 * p**0.5 * size
            self.error += 2 * U * left * sums * SLACK
            if self.error < _GOOD:
                return

    def multiply(self, block: SlicedBlock) -> Tensor:
        """Return ``sqrt(W) A T`` for a block."""
        A = block.left.exact[:, 0]
        Y = A @ self.limbs[0]
        for limb in self.limbs[1:]:
            Y += A @ limb
        Y += A @ self.tail + block.left.rest @ self.T
        Y = scaled(Y, self.exponents if block.exponents is None else block.exponents + self.exponents)
        if block.weight is not None and block.exponents is not None:
            Y *= scaled(block.weight, -2 * block.exponents).sqrt()
        return Y

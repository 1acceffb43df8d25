"""An operator as a chain of steps, which compiled loops can take one after the other without coming back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

__all__ = ["Applied", "Chain", "NormalProduct", "NormalSolve", "Scaling", "Step"]


@final
@dataclass(frozen=True, eq=False)
class Scaling:
    """A diagonal matrix, or its inverse.

    Attributes:
        values: The diagonal, ``(n, 1)``.
        inverse: Whether vectors are divided by it.
    """

    values: Tensor
    inverse: bool = False


@final
@dataclass(frozen=True, eq=False)
class NormalProduct:
    """``M'M``.

    Attributes:
        matrix: M, ``(m, n)``.
        upper: Whether it is square and upper triangular, with zeros below.
    """

    matrix: Tensor
    upper: bool = False


@final
@dataclass(frozen=True, eq=False)
class NormalSolve:
    """``(R'R)^-1``.

    Attributes:
        R: Upper triangular, ``(n, n)``.
    """

    R: Tensor


@final
@dataclass(frozen=True, eq=False)
class Applied:
    """Any function of a vector.

    Attributes:
        function: Maps ``(n, 1)`` to that.
    """

    function: Callable[[Tensor], Tensor]


#: A linear map from vectors ``(n, 1)`` to those; :class:`closedform.numerics.arithmetic.Arithmetic` takes it.
Step = Scaling | NormalProduct | NormalSolve | Applied
#: Steps that are taken in this order.
Chain = tuple[Step, ...]

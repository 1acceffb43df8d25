"""An operator as a chain of steps, which compiled loops can take one after the other without coming back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from torch import Tensor
from typing_extensions import override

if TYPE_CHECKING:
    from closedform.numerics.arithmetic import Arithmetic

__all__ = ["Applied", "Chain", "NormalProduct", "NormalSolve", "Scaling", "Step"]


class Step(ABC):
    """A linear map from ``(n, 1)`` to that."""

    @abstractmethod
    def of(self, V: Tensor, arithmetic: Arithmetic) -> Tensor:
        """Return what it makes of vectors ``(n, 1)``, float64."""


#: Steps that are taken in this order.
Chain = tuple[Step, ...]


@final
@dataclass(frozen=True, eq=False)
class Scaling(Step):
    """A diagonal matrix, or its inverse.

    Attributes:
        values: The diagonal, ``(n, 1)``.
        inverse: Whether vectors are divided by it.
    """

    values: Tensor
    inverse: bool = False

    @override
    def of(self, V: Tensor, arithmetic: Arithmetic) -> Tensor:
        return V / self.values if self.inverse else self.values * V


@final
@dataclass(frozen=True, eq=False)
class NormalProduct(Step):
    """``M'M``.

    Attributes:
        matrix: M, ``(m, n)``.
        upper: Whether it is square and upper triangular, with zeros below.
    """

    matrix: Tensor
    upper: bool = False

    @override
    def of(self, V: Tensor, arithmetic: Arithmetic) -> Tensor:
        return arithmetic.normal_product(self.matrix, V, upper=self.upper)


@final
@dataclass(frozen=True, eq=False)
class NormalSolve(Step):
    """``(R'R)^-1``.

    Attributes:
        R: Upper triangular, ``(n, n)``.
    """

    R: Tensor

    @override
    def of(self, V: Tensor, arithmetic: Arithmetic) -> Tensor:
        return arithmetic.normal_solve(self.R, V)


@final
@dataclass(frozen=True, eq=False)
class Applied(Step):
    """Any function of a vector.

    Attributes:
        function: Maps ``(n, 1)`` to that.
    """

    function: Callable[[Tensor], Tensor]

    @override
    def of(self, V: Tensor, arithmetic: Arithmetic) -> Tensor:
        return self.function(V)

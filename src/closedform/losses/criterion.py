"""What a convex criterion is: a loss of each row's outputs, with its slopes and curvatures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from closedform.losses.formula import Formula
from closedform.words.errors import InputError

__all__ = ["AttainedLoss", "Criterion", "Separable", "refuse_rows"]


class Criterion(ABC):
    """A convex function of the outputs ``z = W x + b`` of each row, summed over rows.

    Its functions take outputs ``Z`` ``(rows, outputs)`` and targets ``T`` ``(rows, columns)`` as the table holds them,
    both floating, and return what holds for each row, without sample weights.

    Attributes:
        name: The class in ``torch.nn`` (or here) that it was read from.
        averages: Whether its reduction is the mean; else it is the sum.
        radius: Size of a change of outputs within which :meth:`least_curvature` holds.
        smooth: Whether the curvature itself has derivatives of all orders.
        of_shortfalls: Whether it is zero, and nowhere below, where every margin is wide enough.
        of_residuals: Whether it is a function of targets less outputs that is zero at zero and nowhere below.
        coupled: Whether the curvature couples the outputs of a row; it is flat then along a shift of all of them.
        of_shares: Whether it does so as that of a softmax: the second derivative is ``diag(c) - c c' / sum(c)``.
    """

    name: ClassVar[str]
    coupled: ClassVar[bool] = False
    of_shares: ClassVar[bool] = False
    of_shortfalls: ClassVar[bool] = False
    of_residuals: ClassVar[bool] = False
    smooth: ClassVar[bool] = True
    averages: bool = True
    radius: float = 0.125

    @abstractmethod
    def n_outputs(self, Y: Tensor) -> int:
        """Return how many outputs a row has at least, for some of the targets."""

    @abstractmethod
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
        """Refuse targets that the criterion is not defined for.

        Args:
            Y: Targets of some rows, those of weight zero left out.
            numbers: Numbers of these rows in the table.
            n_outputs: How many outputs a row has.

        Raises:
            InputError: with the row and the value seen.
        """

    @abstractmethod
    def counts(self, T: Tensor, n_outputs: int) -> Tensor:
        """Return what each row adds to the number that the mean divides by, ``(rows,)``."""

    def ignored(self, T: Tensor) -> Tensor | None:
        """Return which rows count for nothing whatever their outputs are, ``(rows,)``, or None where all count."""
        return None

    @abstractmethod
    def values(self, Z: Tensor, T: Tensor) -> Tensor:
        """Return the loss of each row, ``(rows,)``."""

    @abstractmethod
    def slopes(self, Z: Tensor, T: Tensor) -> Tensor:
        """Return the gradient by the outputs, ``(rows, outputs)``."""

    @abstractmethod
    def curvatures(self, Z: Tensor, T: Tensor) -> Tensor:
        """Return what :meth:`product` needs of the second derivative, ``(rows, outputs)``; linear in row weights."""

    def evaluate(self, Z: Tensor, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return :meth:`values`, :meth:`slopes` and :meth:`curvatures` at once, which may share their work."""
        return self.values(Z, T), self.slopes(Z, T), self.curvatures(Z, T)

    @abstractmethod
    def product(self, C: Tensor, S: Tensor) -> Tensor:
        """Return the second derivative, as :meth:`curvatures` gave it, times changes S of the outputs."""

    def thinned(self, C: Tensor) -> Tensor:
        """Return curvatures without those that vanish beside others of their row; of shares alone there are any."""
        return C

    @abstractmethod
    def diagonal(self, C: Tensor) -> Tensor:
        """Return the diagonal of the second derivative, ``(rows, outputs)``."""

    def slope_changes(self, C: Tensor, changes: Tensor) -> Tensor:
        """Bound how far slopes change, to first order, where each output changes by at most so much.

        Args:
            C: What :meth:`curvatures` returned.
            changes: The changes of the outputs, ``(rows, outputs)``.
        """
        most = self.diagonal(C).amax(1, keepdim=True) * changes
        return most.sum(1, keepdim=True).expand_as(most) if self.coupled else most

    @abstractmethod
    def least_curvature(self, Z: Tensor, T: Tensor) -> Tensor:
        """Return a lower bound on the curvature while no outputs move by more than :attr:`radius`.

        ``(rows, outputs)`` for the diagonal; coupled criteria return ``(rows, 1)``: that many times the projection
        against a shift of all outputs, and there the radius is on the range of the changes of a row.
        """

    @abstractmethod
    def least_curvatures(self, Z: Tensor, T: Tensor) -> Tensor:
        """Return, as :meth:`curvatures` does, a second derivative that bounds those within the radius from below.

        Sharper than :meth:`least_curvature` where outputs are coupled, as it keeps how they are.
        """

    @abstractmethod
    def recession(self, S: Tensor, T: Tensor) -> Tensor:
        """Return the slope of each row's loss far along changes S of its outputs, ``(rows,)``; inf where it is none.

        The loss falls for ever along a direction if and only if no row's slope is positive there and the loss of some
        row falls (Rockafellar 1970, section 8).
        """

    @abstractmethod
    def far_slopes(self, T: Tensor, n_outputs: int) -> tuple[Tensor, Tensor]:
        """Return :meth:`recession` where one output alone falls, and where it alone rises, ``(rows, outputs)`` each."""

    def falls(self, S: Tensor, T: Tensor) -> Tensor:
        """Say which rows' losses fall all the way along S, where the slope far out is zero, ``(rows,)``."""
        return S.abs().amax(1) > 0

    def start(self, T: Tensor) -> Tensor | None:
        """Return outputs near which the first step is best taken, or None for zero."""
        return None

    def formula(self) -> Formula | None:
        """Return what compiled loops compute the loss of a single output by, or None where they do not know it."""
        return None


class Separable(Criterion, ABC):
    """A criterion that is a sum over the outputs of a row, each with a target of its own."""

    @abstractmethod
    def value(self, Z: Tensor, T: Tensor) -> Tensor:
        """Return the loss of each output, ``(rows, outputs)``."""

    @override
    def n_outputs(self, Y: Tensor) -> int:
        return Y.shape[1]

    @override
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
        pass

    @override
    def counts(self, T: Tensor, n_outputs: int) -> Tensor:
        return T.new_full((T.shape[0],), float(n_outputs))

    @override
    def values(self, Z: Tensor, T: Tensor) -> Tensor:
        return self.value(Z, T).sum(1)

    @override
    def least_curvatures(self, Z: Tensor, T: Tensor) -> Tensor:
        return self.least_curvature(Z, T)

    @override
    def product(self, C: Tensor, S: Tensor) -> Tensor:
        return C * S

    @override
    def diagonal(self, C: Tensor) -> Tensor:
        return C


class AttainedLoss(Separable, ABC):
    """One that is constant or grows far out in every direction, so that no direction makes it fall for ever."""

    @override
    def far_slopes(self, T: Tensor, n_outputs: int) -> tuple[Tensor, Tensor]:
        # No direction of the bias alone lets the loss fall without attaining a minimum.
        ones = torch.ones_like(T)
        return ones, ones

    @override
    def falls(self, S: Tensor, T: Tensor) -> Tensor:
        return torch.zeros(S.shape[0], dtype=torch.bool, device=S.device)


def refuse_rows(bad: Tensor, values: Tensor, numbers: Tensor, sentence: str) -> None:
    """Refuse the first value that is marked as bad.

    Args:
        bad: Marks, of the shape of ``values``.
        values: Targets.
        numbers: Numbers of these rows in the table.
        sentence: What is needed instead.

    Raises:
        InputError: there is one.
    """
    if bool(bad.any()):
        where = bad.nonzero()[0]
        seen = float(values[tuple(where)])
        raise InputError(f"Y holds {seen:g} in row {int(numbers[where[0]])}; {sentence}")


def class_factors(values: Tensor | None, like: Tensor) -> Tensor | None:
    """Return one factor for each output in the dtype and on the device of other numbers."""
    return None if values is None else values.to(dtype=like.dtype, device=like.device)


def check_factors(values: object, name: str, *, positive: bool = False) -> Tensor | None:
    """Return the factors of outputs that a criterion holds, float64, or None where it holds none.

    Raises:
        InputError: they are not finite, negative, or not one for each output.
    """
    if values is None:
        return None
    factors = torch.as_tensor(values, device="cpu").detach().to(dtype=torch.float64, device="cpu")
    while factors.dim() > 1 and factors.shape[0] == 1:
        factors = factors[0]
    if factors.dim() > 1:
        raise InputError(
            f"{name} has shape {tuple(factors.shape)}, which is one number for each row; give one for each output, and "
            "pass those of rows as sample_weight=."
        )
    bad = ~torch.isfinite(factors) | (factors < 0) | ((factors == 0) if positive else False)
    if bool(bad.any()):
        need = "finite and positive" if positive else "finite and not negative"
        raise InputError(f"{name} holds {float(factors[bad].reshape(-1)[0]):g}; every entry must be {need}.")
    return factors.reshape(-1)

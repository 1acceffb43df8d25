"""What one optimizer does along the directions of a quadratic: the idea that every file of this family fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["Descent", "matrices"]


@dataclass(frozen=True)
class Descent(ABC):
    """A ``torch.optim`` optimizer with its settings, whose course along a direction of a quadratic is known.

    Along a singular direction of eigenvalue h the loss is a parabola, and the error there is multiplied step by step by
    something that depends on ``lr * (h + weight_decay)`` alone, which is called *scaled* below.

    Attributes:
        lr: Learning rate on ``MSELoss()`` (mean).
        momentum: As in ``torch.optim.SGD``.
        dampening: As in ``torch.optim.SGD``, less than 1.
        weight_decay: As in ``torch.optim.SGD``, on ``MSELoss()``.
    """

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0

    #: How ``forecast()`` calls it.
    name: ClassVar[str]
    #: How a page calls it.
    title: ClassVar[str]
    #: Whether the momentum is Nesterov's.
    nesterov: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def takes(cls, momentum: float, nesterov: bool) -> bool:
        """Whether ``torch.optim.SGD`` with such settings is this optimizer."""

    @classmethod
    @abstractmethod
    def best(cls, largest: float, smallest: float) -> tuple[Descent, float]:
        """Return the settings that shrink the error fastest where eigenvalues fill an interval, and by what a step.

        Args:
            largest: Largest eigenvalue.
            smallest: Smallest eigenvalue, positive.
        """

    @abstractmethod
    def step_limit(self, largest: float) -> float:
        """Return the largest stable learning rate, whatever :attr:`lr` is; inf where there is no curvature.

        Args:
            largest: Largest eigenvalue of the Hessian, the weight decay included.
        """

    @abstractmethod
    def factors(self, scaled: Tensor, steps: Tensor) -> Tensor:
        """Return the error after some steps as a multiple of the error at the start, ``(points, directions)``.

        Args:
            scaled: lr times eigenvalue, ``(directions,)``, float64, not negative.
            steps: Numbers of steps, ``(points,)``, int64.
        """

    @abstractmethod
    def envelopes(self, scaled: Tensor, steps: Tensor) -> Tensor:
        """Return bounds on the sizes of :meth:`factors` that do not ripple and fall in the end, of the same shape."""

    @abstractmethod
    def transition(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a step makes of error and momentum buffer, and what it makes of noise in the gradient.

        The buffer is counted in steps, so that everything depends on ``scaled`` alone.

        Args:
            scaled: lr times eigenvalue, ``(directions,)``.

        Returns:
            Matrices on (error, lr times buffer), ``(directions, 2, 2)``, and how lr times the noise enters, ``(2,)``.
        """

    def growth(self, scaled: float) -> float:
        """Return the factor by which an error along a direction grows in a step, in the end."""
        matrix, _ = self.transition(torch.tensor([scaled], dtype=torch.float64, device="cpu"))
        return float(torch.linalg.eigvals(matrix[0]).abs().max())


def matrices(rows: list[list[Tensor]]) -> Tensor:
    """Stack entries ``(directions,)`` into matrices ``(directions, 2, 2)``."""
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)

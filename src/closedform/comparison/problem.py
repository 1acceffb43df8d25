"""The problem every method gets, and the measuring tape held to what it found."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from typing_extensions import override

from closedform.fit.weights import Weights

__all__ = ["Measurement", "Problem", "failure"]

#: Rows per block where a product is summed up block by block instead of held whole.
_BLOCK = 4096
#: Times the excess loss that rounding of residuals alone makes: momentum keeps on jittering there.
_JITTER = 16


def failure(error: Exception) -> str:
    r"""Why a method that raised an exception stopped, on one line.

    Example:
        >>> failure(ValueError("Input y contains infinity\nor a value too large."))
        'it raised ValueError: Input y contains infinity or a value too large'
    """
    return f"it raised {type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"


@final
@dataclass(frozen=True)
class Measurement:
    """What one set of weights is worth; see :class:`closedform.comparison.methods.MethodResult` for the words."""

    train_mse: float
    excess_loss: float
    weight_distance: float
    test_mae: float | None


class TrainingProblem(ABC):
    """What optimizers are trained on, and how what they reach is measured.

    Attributes:
        X: Features in the dtype that is trained in, ``(rows, features)``.
        loss_at_zero: The loss of zero weights.
    """

    X: Tensor
    loss_at_zero: float

    @abstractmethod
    def loss(self, layer: nn.Linear) -> Tensor:
        """The loss that is trained."""

    @abstractmethod
    def train_mse(self, weights: Weights) -> float:
        """The loss at these weights, evaluated in float64."""

    @abstractmethod
    def losses(self, weights: Weights) -> tuple[float, float]:
        """Return the loss, and how far it is above the optimal one, without subtracting one from the other."""

    @abstractmethod
    def measure(self, weights: Weights) -> Measurement:
        """Measure loss, excess loss, distance to the minimiser and test error, all in float64."""

    @abstractmethod
    def rounding_floor(self, weights: Weights) -> float:
        """Return the excess loss that rounding in the dtype trained in alone makes near these weights."""


@final
class Problem(TrainingProblem):
    """Rows in memory with a known minimiser: trained on in the dtype of X, measured in float64 on what was given.

    Args:
        X, Y: ``(rows, features)`` and ``(rows, targets)`` as they were given, in any real dtype.
        row_weight: Float64 ``(rows, 1)`` with mean one, or None.
        dtype: What is trained in.
        minimiser: The float64 minimiser.
        test: X and Y of the test rows in float64, or None.

    Attributes:
        excess_floor: An excess loss below this cannot be measured, whatever was trained.
    """

    def __init__(
        self,
        X: Tensor,
        Y: Tensor,
        row_weight: Tensor | None,
        dtype: torch.dtype,
        minimiser: Weights,
        test: tuple[Tensor, Tensor] | None,
    ) -> None:
        self.given_X, self.given_Y, self._given_weight = X, Y, row_weight
        self.X, self.Y = X.to(dtype), Y.to(dtype)
        self.row_weight = None if row_weight is None else row_weight.to(dtype)
        self.dtype = dtype
        self.minimiser = minimiser
        self.test = test
        self.loss_at_zero = self._mean_square(lambda X, Y: Y)
        self.excess_at_zero = self._mean_square(lambda X, Y: minimiser.predict(X))
        # X @ w carries a rounding error of about eps |X| |w|, so nothing below its square is seen in a loss.
        self.excess_floor = torch.finfo(torch.float64).eps ** 2 * self._magnitude(minimiser)

    def _magnitude(self, weights: Weights) -> float:
        """Mean square of what is added up to a residual, ``|x| |w| + |y|``."""
        size = weights.map(torch.abs)
        return self._mean_square(lambda X, Y: size.predict(X.abs()) + Y.abs())

    @override
    def rounding_floor(self, weights: Weights) -> float:
        """Return the excess loss that rounding in ``dtype`` alone makes near these weights.

        It belongs to the weights that a run is at: those of the minimiser may be larger by many orders of magnitude,
        and a run that never gets there does not feel their rounding.
        """
        eps = torch.finfo(self.dtype).eps
        if self.dtype in (torch.float32, torch.float64):
            return _JITTER * eps**2 * self._magnitude(weights)
        # Products of half precision are summed in float32: what is lost is in the weights, an ulp in each.
        squares = weights.map(torch.square)
        return self._mean_square(lambda X, Y: eps * squares.predict(X.square()).sqrt())

    @override
    def loss(self, layer: nn.Linear) -> Tensor:
        """The loss that is trained: ``MSELoss()``, or its weighted mean."""
        if self.row_weight is None:
            return nn.functional.mse_loss(layer(self.X), self.Y)
        residual: Tensor = layer(self.X) - self.Y
        return (self.row_weight * residual.square()).mean()

    @override
    def train_mse(self, weights: Weights) -> float:
        """The loss at these weights, evaluated in float64."""
        return self._mean_square(lambda X, Y: weights.predict(X) - Y)

    @override
    def losses(self, weights: Weights) -> tuple[float, float]:
        """Return the loss, and how far it is above the optimal one, without subtracting one from the other.

        The residual of the minimiser is orthogonal to the columns, so the difference is exactly the mean square
        of ``X (w - w*) + (b - b*)``. It is never below what float64 can resolve, nor above the loss.
        """
        loss = self.train_mse(weights)
        error = weights.minus(self.minimiser)
        excess = self._mean_square(lambda X, Y: error.predict(X))
        if not (math.isfinite(excess) and math.isfinite(loss)):
            return (loss if math.isfinite(loss) else math.inf), math.inf
        return loss, min(max(excess, self.excess_floor), loss)

    @override
    def measure(self, weights: Weights) -> Measurement:
        """Measure loss, excess loss, distance to the minimiser and test error, all in float64."""
        train_mse, excess_loss = self.losses(weights)
        distance = weights.minus(self.minimiser).norm() / (self.minimiser.norm() or 1.0)
        return Measurement(
            train_mse=train_mse,
            excess_loss=excess_loss,
            weight_distance=distance if math.isfinite(distance) else math.inf,
            test_mae=None if self.test is None else self._test_mae(weights, *self.test),
        )

    def _test_mae(self, weights: Weights, X: Tensor, Y: Tensor) -> float:
        error = float((weights.predict(X) - Y).abs().mean())
        return error if math.isfinite(error) else math.inf

    def _mean_square(self, function: Callable[[Tensor, Tensor], Tensor]) -> float:
        """Weighted mean over rows and targets of the square of a function of the float64 rows."""
        total = 0.0
        for start in range(0, self.given_X.shape[0], _BLOCK):
            block = slice(start, start + _BLOCK)
            square = function(self.given_X[block].double(), self.given_Y[block].double()).square()
            if self._given_weight is not None:
                square = square * self._given_weight[block]
            total += float(square.sum())
        return total / self.given_Y.numel()

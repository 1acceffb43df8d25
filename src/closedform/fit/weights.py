"""Weight and bias of a linear layer as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from closedform.numerics.scaling import safe_norm

__all__ = ["Weights"]


@final
@dataclass(frozen=True, eq=False)
class Weights:
    """What ``nn.Linear`` holds.

    Attributes:
        weight: ``(targets, features)``.
        bias: ``(targets,)`` or None.
    """

    weight: Tensor
    bias: Tensor | None

    @staticmethod
    def of_layer(layer: nn.Linear, device: torch.device | None = None) -> Weights:
        """Return copies of a layer's weight and bias in float64, on its own device if none is given."""
        device = layer.weight.device if device is None else device
        weight = layer.weight.detach().to(dtype=torch.float64, device=device, copy=True)
        bias = None if layer.bias is None else layer.bias.detach().to(dtype=torch.float64, device=device, copy=True)
        return Weights(weight, bias)

    @staticmethod
    def from_stacked(stacked: Tensor, *, bias: bool) -> Weights:
        """Return the weights whose coefficients stand as :meth:`stacked` returns them."""
        return Weights(stacked[int(bias) :].T.contiguous(), stacked[0].clone() if bias else None)

    def stacked(self) -> Tensor:
        """Return the coefficients of ``[1 | X]``, or of X, one column for each target: ``(columns, targets)``."""
        features = self.weight.T
        return features if self.bias is None else torch.cat([self.bias.unsqueeze(0), features])

    def select(self, targets: Tensor) -> Weights:
        """Return the weights of some of the targets."""
        return Weights(self.weight[targets], None if self.bias is None else self.bias[targets])

    def map(self, function: Callable[[Tensor], Tensor]) -> Weights:
        """Return the weights with a function applied to weight and bias, ``torch.abs`` say."""
        return Weights(function(self.weight), None if self.bias is None else function(self.bias))

    def to(self, target: torch.dtype | torch.device) -> Weights:
        """Return the weights in another dtype or on another device."""
        return self.map(lambda part: part.to(target))

    def predict(self, X: Tensor) -> Tensor:
        """Return the outputs of a layer with these weights, ``(rows, targets)``."""
        return nn.functional.linear(X, self.weight, self.bias)

    def minus(self, other: Weights) -> Weights:
        """Return the difference of two weights that both have a bias, or both none."""
        shift = None if self.bias is None or other.bias is None else self.bias - other.bias
        return Weights(self.weight - other.weight, shift)

    def norm(self) -> float:
        """Return the Euclidean norm of all of them, also where squares would leave the range of float64.

        Example:
            >>> import torch
            >>> Weights(torch.tensor([[1e200]], dtype=torch.float64), None).norm()
            1e+200
        """
        return safe_norm(self.stacked())

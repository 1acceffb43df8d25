"""One call of the layer that the optimizer serves: its rows, its output, and what was found of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import final

from torch import Tensor

from closedform.words.errors import ClosedformError

__all__ = ["Call", "Curvature"]

#: By what calls are told apart in the graph of a loss, which must not hold them.
_numbers = count()


@final
@dataclass(frozen=True, eq=False)
class Curvature:
    """Gradient and second derivative of the loss by the output, in float64 and with the output's shape.

    Attributes:
        gradient: First derivative.
        diagonal: The diagonal of the second one; there is nothing beside it.
        unit: What the loss gives to one element of the sum or mean it ends in; None where it is a single element.
    """

    gradient: Tensor
    diagonal: Tensor
    unit: float | None


@final
class Call:
    """One call of the layer, from its forward pass until its gradient arrived.

    Attributes:
        number: By what it is known in the graph.
        inputs: What the layer was given, ``(..., features)``; None once its rows were handed over.
        output: The output as a node of the graph; the user gets a copy of it.
        parameters: The layer's parameters.
        source: Where the inputs came from in the graph, if it is still to be looked at; else None.
        targets: Tensors of the same size that met the output in the loss.
        refusal: What was seen on the way that no closed form allows for, or None.
        found: What was measured when the gradient came back, or why the loss cannot be used; None before that.
        measuring: Whether the loss is being measured, when gradients arrive that are no training's.
    """

    def __init__(self, inputs: Tensor, output: Tensor, parameters: tuple[Tensor, ...], look_below: bool) -> None:
        self.number = next(_numbers)
        self.inputs: Tensor | None = inputs.detach()
        self.output = output
        self.parameters = parameters
        self.source = inputs if look_below and inputs.requires_grad else None
        self.targets: list[Tensor] = []
        self.refusal: ClosedformError | None = None
        self.found: Curvature | ClosedformError | None = None
        self.measuring = False

    def refuse(self, error: ClosedformError) -> None:
        """Note what no closed form allows for; the first reason stays."""
        self.refusal = self.refusal or error

    def close(self) -> None:
        """Let go of the rows, which were handed over."""
        self.inputs = self.source = None

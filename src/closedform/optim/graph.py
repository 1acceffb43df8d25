"""Walk the autograd graph of a loss: what stands between it and a layer's outputs, and what it reaches beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

__all__ = ["Ways", "name_of", "reaches", "ways"]


@final
@dataclass(frozen=True, eq=False)
class Ways:
    """The part of a graph between a scalar and some outputs.

    Attributes:
        nodes: Functions that stand on a way from the scalar to an output, in the order of the forward pass.
        beside: Whether a parameter is reached on a way that does not go through an output.
    """

    nodes: tuple[Any, ...]
    beside: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the functions, without those that only pass on."""
        return tuple(name for name in map(name_of, self.nodes) if name not in ("Alias", "Clone"))


def ways(root: Tensor, outputs: Sequence[Tensor], parameters: Sequence[Tensor]) -> Ways:
    """Return what stands between ``root`` and ``outputs``, and whether it uses ``parameters`` in another way.

    Args:
        root: A scalar with a graph.
        outputs: Where the walk stops.
        parameters: Leaves to look for.

    Example:
        >>> import torch
        >>> weight = torch.ones(2, requires_grad=True)
        >>> output = weight * 3.0
        >>> ways((output - 1.0).square().mean(), [output], [weight]).names
        ('Sub', 'Pow', 'Mean')
        >>> ways(output.sum() + weight.norm(), [output], [weight]).beside
        True
    """
    stops = {output.grad_fn for output in outputs}
    held = {id(parameter) for parameter in parameters}
    order, beside = _postorder(root.grad_fn, stops, held)
    leading: set[Any] = set(stops)
    nodes = []
    for node in order:
        if any(child in leading for child, _ in node.next_functions):
            leading.add(node)
            nodes.append(node)
    return Ways(tuple(nodes), beside)


def name_of(node: Any) -> str:
    """Return the name of a node's function: ``Pow`` for ``PowBackward0``."""
    return re.sub(r"Backward\d*$", "", node.name().split("::")[-1])


def reaches(tensor: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Whether ``tensor`` was computed from one of ``parameters``."""
    return _postorder(tensor.grad_fn, set(), {id(parameter) for parameter in parameters})[1]


def _postorder(root: Any, stops: set[Any], held: set[int]) -> tuple[list[Any], bool]:
    """Nodes below ``root`` down to ``stops``, children first, and whether a held leaf is among them."""
    seen: set[Any] = set(stops)
    order: list[Any] = []
    beside = False
    stack = [(root, False)]
    while stack:
        node, done = stack.pop()
        if node is None or (not done and node in seen):
            continue
        if done:
            order.append(node)
            continue
        seen.add(node)
        beside = beside or id(getattr(node, "variable", None)) in held
        stack.append((node, True))
        stack.extend((child, False) for child, _ in node.next_functions)
    return order, beside

"""Walk the autograd graph of a loss: what stands between it and a layer's outputs, and what it reaches beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Ways", "reaches", "ways"]


@dataclass(frozen=True)
class Ways:
    """The part of a graph between a scalar and some outputs.

    Attributes:
        names: Functions that stand on a way from the scalar to an output, in the order of the forward pass.
        beside: Whether a parameter is reached on a way that does not go through an output.
    """

    names: tuple[str, ...]
    beside: bool


def ways(root: Tensor, outputs: Sequence[Tensor], parameters: Sequence[Tensor]) -> Ways:
    """Return what stands between ``root`` and ``outputs``, and whether it uses ``parameters`` in another way.

    Example:
        >>> import torch
        >>> weight = torch.ones(2, requires_grad=True)
        >>> output = weight * 3.0
        >>> ways((output - 1.0).square().mean(), [output], [weight])
        Ways(names=('Sub', 'Pow', 'Mean'), beside=False)
        >>> ways(output.sum() + weight.norm(), [output], [weight]).beside
        True
    """
    stops = {output.grad_fn for output in outputs}
    held = {id(parameter) for parameter in parameters}
    order, beside = _postorder(root.grad_fn, stops, held)
    leading: set[Any] = set(stops)
    names = []
    for node in order:
        if any(child in leading for child, _ in node.next_functions):
            leading.add(node)
            names.append(re.sub(r"Backward\d*$", "", node.name()))
    return Ways(tuple(name for name in names if name not in ("Alias", "Clone")), beside)


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

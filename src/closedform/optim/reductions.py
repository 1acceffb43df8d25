"""What functions do to the elements of a loss: by how much they divide, and where a sum or mean ends.

The weight of a row is what the loss gives to it, beside what the sum or mean gives to every element. So each followed
tensor carries by what its elements were divided on the way, and the node of a scalar that a sum or mean ended in is
marked with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    *("Reduction", "degree_in_place", "divided_by", "is_norm", "mark", "mark_in_place", "marked", "squares_a_norm"),
    "sums_up",
]

_SUMS = {
    *("dot", "einsum", "inner", "linalg_vecdot", "matmul", "__matmul__", "mm", "mv", "bmm", "nansum", "sum"),
    *("tensordot", "trace", "vdot", "linear"),
}
_MEANS = {"mean", "nanmean"}
_LOSSES = {"mse_loss", "gaussian_nll_loss"}
_NORMS = {"dist", "linalg_matrix_norm", "linalg_norm", "linalg_vector_norm", "norm"}
_PRODUCTS = {"mul", "multiply", "__mul__", "__rmul__", "mul_", "__imul__"}
_POWERS = {"pow", "__pow__", "pow_", "__ipow__", "square", "square_", "float_power"}
#: Functions that take elements out, put them together or lay them out anew, and divide by nothing.
_LAYOUTS = {
    *("__getitem__", "select", "narrow", "index_select", "gather", "take", "take_along_dim", "masked_select", "unbind"),
    *("split", "chunk", "tensor_split", "hsplit", "vsplit", "diagonal", "diag", "linalg_diagonal", "cat", "concat"),
    *("stack", "hstack", "vstack", "column_stack", "expand", "expand_as", "repeat", "tile", "repeat_interleave"),
    *("broadcast_to", "tril", "triu", "unfold", "pad", "as_strided", "concatenate"),
}
#: Functions that write on what they are given and are linear in it, where nothing else is followed.
_LINEAR_IN_PLACE = {
    *("add_", "sub_", "neg_", "mul_", "div_", "true_divide_", "masked_fill_"),
    *("__iadd__", "__isub__", "__imul__", "__itruediv__", "__setitem__"),
}
#: Under this name a node of the graph carries its reduction.
_MARK = "closedform"
#: Under this one, by what degree a function in place raised what it wrote on.
_DEGREE = "closedform in place"


class Reduction(NamedTuple):
    """A scalar that a sum or mean ended in.

    Attributes:
        divisor: By what each of its elements was divided.
        calls: Numbers of the calls of the layer that it came from.
    """

    divisor: float
    calls: frozenset[int]


def divided_by(name: str, source: Tensor, result: Tensor, given: Sequence[Tensor], keywords: Mapping[str, Any]) -> Any:
    """Return by what the function divided the elements it summed or passed on; None where that is not known.

    Args:
        name: Of the function.
        source: The followed tensor that it was given first.
        result: What it returned.
        given: All tensors it was given.
        keywords: Its keyword arguments.
    """
    if name in _LOSSES:
        return _divisor_of_loss(given, keywords)
    if name == "nanmean":
        counted = (~source.detach().isnan()).sum()
        return float(counted) if result.numel() == 1 else None
    if name == "mean":
        return source.numel() / max(result.numel(), 1)
    if name in _SUMS | _NORMS | _LAYOUTS or result.numel() >= max(tensor.numel() for tensor in given):
        return 1.0
    return None


def _divisor_of_loss(given: Sequence[Tensor], keywords: Mapping[str, Any]) -> float | None:
    if keywords.get("size_average") is not None or keywords.get("reduce") is not None:
        return None  # names that torch gave up
    if keywords.get("reduction", "mean") != "mean":
        return 1.0
    elements = max(tensor.numel() for tensor in given[:2])
    weight = keywords.get("weight")
    return float(elements) if weight is None else float(weight.detach().sum()) * elements / weight.numel()


def sums_up(name: str, keywords: Mapping[str, Any]) -> bool:
    """Whether a function ends in the sum or mean of its elements."""
    return name in _SUMS or name in _MEANS or (name in _LOSSES and keywords.get("reduction", "mean") != "none")


def is_norm(name: str) -> bool:
    """Whether a function is a norm: the root of a sum, which its square is."""
    return name in _NORMS


def squares_a_norm(name: str, arguments: Sequence[Any], norms: Sequence[bool]) -> bool:
    """Whether a function squares what is a norm.

    Args:
        name: Of the function.
        arguments: Its positional arguments.
        norms: For each of the followed tensors it was given, whether it is a norm.
    """
    if not norms or not all(norms):
        return False
    if name in _PRODUCTS:
        return len(norms) == 2 and arguments[0] is arguments[1]
    if name not in _POWERS:
        return False
    exponent = arguments[1] if len(arguments) > 1 else 2
    return bool(torch.as_tensor(exponent, device="cpu").numel() == 1 and float(exponent) == 2)


def mark(scalar: Tensor, divisor: float, calls: Iterable[int]) -> None:
    """Note on the node of a scalar that a sum or mean ended in it; the node holds numbers, and nothing alive."""
    node: Any = scalar.grad_fn
    if node is not None and math.isfinite(divisor) and divisor > 0:
        node.metadata[_MARK] = Reduction(divisor, frozenset(calls))


def mark_in_place(result: Tensor, name: str, arguments: Sequence[Any], others: int) -> None:
    """Note on the node that stands for a function that wrote on a followed tensor, by what degree it raised it.

    Such a node does not tell what the function was.

    Args:
        result: What was written on.
        name: Of the function.
        arguments: Its positional arguments.
        others: How many other followed tensors it was given.
    """
    node: Any = result.grad_fn
    if node is not None and "CopySlices" not in node.name() and node.next_functions:
        node = node.next_functions[0][0]  # what was written on is seen through its strides
    if node is None or "CopySlices" not in node.name() or others:
        return
    exponent = arguments[1] if len(arguments) > 1 else 2
    if name in _LINEAR_IN_PLACE:
        node.metadata[_DEGREE] = 1
    elif name in _POWERS and isinstance(exponent, int | float) and exponent == 2:
        node.metadata[_DEGREE] = 2


def degree_in_place(node: Any) -> int | None:
    """Return by what degree a function in place raised what it wrote on; None where that is not known."""
    degree: int | None = node.metadata.get(_DEGREE)
    return degree


def marked(nodes: Iterable[Any]) -> list[tuple[Any, Reduction]]:
    """Return the nodes that are marked, the one that was made last first."""
    found = [(node, node.metadata[_MARK]) for node in nodes if _MARK in node.metadata]
    return sorted(found, key=lambda pair: -pair[0]._sequence_nr())

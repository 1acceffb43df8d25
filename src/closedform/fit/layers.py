"""Checks on a ``torch.nn.Linear`` that several doors make."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from closedform.numerics.host import as_vector
from closedform.numerics.scaling import peak
from closedform.words.errors import DataTypeError, InputError

__all__ = ["check_finite", "check_linear", "check_range", "check_writable", "linear_layers", "round_to", "write"]


def linear_layers(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Return the linear layers in a module, with their names in it; each once, in the order of ``modules()``.

    Example:
        >>> linear_layers(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
        [('1', Linear(in_features=3, out_features=2, bias=True))]
    """
    return [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]


def check_linear(layer: Any, name: str = "layer") -> None:
    """Refuse what is not an ``nn.Linear`` with real weights in storage.

    Raises:
        DataTypeError: another module, a lazy or meta layer, or a dtype that is not real floating.
    """
    if not isinstance(layer, nn.Linear):
        raise DataTypeError(f"{name} is a {type(layer).__name__}; a torch.nn.Linear is needed.")
    if isinstance(layer, nn.LazyLinear):
        raise DataTypeError(f"{name} is lazy and has no weights yet; run one batch through it first.")
    if layer.weight.is_meta:
        raise DataTypeError(f"{name} is on the meta device and has no storage; call to_empty(device=...) on it first.")
    if not layer.weight.dtype.is_floating_point:
        raise DataTypeError(f"{name} has {layer.weight.dtype} weights; a real floating dtype is needed.")


def check_writable(layer: nn.Linear, name: str = "layer") -> None:
    """Refuse a layer whose weights are computed from something else, or cannot be written in place.

    Raises:
        InputError: a weight or bias that is parametrized, normalised or pruned, an inference tensor, or memory that
            several entries share.
    """
    for parameter in ("weight", "bias"):
        value = getattr(layer, parameter)
        if not isinstance(value, Tensor):
            continue
        plain = layer._parameters.get(parameter) is value
        if not plain:
            raise InputError(
                f"the {parameter} of {name} is computed from other parameters (a parametrization, weight_norm or "
                "pruning), so writing it would not last; remove that first."
            )
        if value.is_inference() and not torch.is_inference_mode_enabled():
            raise InputError(f"the {parameter} of {name} was made under torch.inference_mode and cannot be written.")
        if any(stride == 0 and size > 1 for stride, size in zip(value.stride(), value.shape, strict=True)):
            raise InputError(
                f"the {parameter} of {name} is an expanded view whose entries share memory; clone it first."
            )


def write(layer: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Write both or neither."""
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.copy_(weight)
        try:
            if bias is not None:
                layer.bias.copy_(bias)
        except BaseException:
            layer.weight.copy_(before)
            raise


def check_finite(layer: nn.Linear, name: str = "layer") -> None:
    """Refuse a layer that holds NaN or infinities.

    Raises:
        InputError: with the name of the parameter.
    """
    for parameter, value in layer.named_parameters(recurse=False):
        if not bool(torch.isfinite(value).all()):
            bad = float(value.detach()[~torch.isfinite(value)][0])
            raise InputError(f"{name} holds {bad} in its {parameter}; reset it to finite values first.")


def check_range(Z: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Refuse weights that left the range of float64 when they were brought back to the user's units.

    Args:
        Z: The coordinates they came from, ``(columns, targets)``.
        weight: ``(targets, features)``.
        bias: ``(targets,)`` or None.

    Raises:
        InputError: all weights of a target underflow, or one overflows.
    """
    size, wanted = (as_vector(torch.linalg.vector_norm(each, math.inf, dim=0)) for each in (weight.T, Z))
    if bias is not None:
        size = np.maximum(size, np.abs(as_vector(bias)))
    lost = (wanted > 0) & (size < torch.finfo(weight.dtype).tiny)
    if lost.any() or (np.isfinite(wanted).all() and not np.isfinite(size).all()):
        raise InputError(
            "the minimiser has weights beyond the range of float64 (about 1e-308 to 1e308); scale X or Y by a constant."
        )


def _called(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def round_to(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round weights to a narrower dtype.

    Raises:
        InputError: a weight is beyond the range of that dtype.
    """
    rounded = value.to(dtype)
    largest = peak(value)
    if 0 < largest < torch.finfo(dtype).tiny:
        raise InputError(
            f"all weights of the minimiser are below {largest:.1e}, which {_called(dtype)} cannot hold; "
            "use a wider dtype or scale the data."
        )
    if not math.isfinite(largest if rounded is value else peak(rounded)):
        raise InputError(
            f"the minimiser has weights as large as {largest:.3g}, which {_called(dtype)} cannot hold; "
            "use a wider dtype or scale the data."
        )
    return rounded

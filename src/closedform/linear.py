"""Checks on a ``torch.nn.Linear`` that several doors make."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from closedform.errors import DataTypeError, InputError

__all__ = ["check_finite", "check_linear", "round_to"]


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


def check_finite(layer: nn.Linear, name: str = "layer") -> None:
    """Refuse a layer that holds NaN or infinities.

    Raises:
        InputError: with the name of the parameter.
    """
    for parameter, value in layer.named_parameters(recurse=False):
        if not bool(torch.isfinite(value).all()):
            bad = float(value.detach()[~torch.isfinite(value)][0])
            raise InputError(f"{name} holds {bad} in its {parameter}; reset it to finite values first.")


def round_to(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round weights to a narrower dtype.

    Raises:
        InputError: a weight is beyond the range of that dtype.
    """
    rounded = value.to(dtype)
    if not bool(torch.isfinite(rounded).all()):
        raise InputError(
            f"the minimiser has weights as large as {float(value.abs().max()):.3g}, which "
            f"{str(dtype).removeprefix('torch.')} cannot hold; use a wider dtype or scale the data."
        )
    return rounded

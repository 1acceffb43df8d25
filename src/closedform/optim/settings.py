"""The settings of the optimizer: what each may be, in the house's own words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from closedform.words.errors import DataTypeError, InputError

__all__ = ["check_count", "check_group", "check_precision", "check_strength", "to_number"]


def to_number(name: str, value: Any) -> float:
    """Return a setting as a number: an int, a float, one of NumPy, or a tensor of one real entry.

    Raises:
        DataTypeError: it is something else.
        InputError: a tensor of several entries.

    Example:
        >>> import numpy as np, torch
        >>> to_number("lr", np.float32(0.5)), to_number("lr", torch.tensor([1.0]))
        (0.5, 1.0)
    """
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise InputError(f"{name} is a tensor of shape {tuple(value.shape)}; one number is needed.")
        if not value.dtype.is_complex and value.dtype != torch.bool and not value.is_meta:
            return float(value.detach())
    elif isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    kind = f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
    raise DataTypeError(f"{name}={value!r} is a {kind}; a number is needed.")


def check_strength(l2: Any) -> float:
    """Return a ridge strength.

    Raises:
        InputError: it is negative or not finite.
    """
    strength = to_number("l2", l2)
    if not 0 <= strength < math.inf:
        raise InputError(f"l2={l2} must be finite and not negative.")
    return strength


def check_count(name: str, value: Any) -> int:
    """Return a setting that counts something.

    Raises:
        InputError: it is no whole number of at least 1.

    Example:
        >>> check_count("sync_every", 4)
        4
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise InputError(f"{name}={value!r} must be a whole number of at least 1.")
    return int(value.__index__())


def check_precision(dtype: Any) -> torch.dtype:
    """Return the dtype that rows are kept in.

    Raises:
        InputError: another one than float64 or float32.
    """
    if dtype is not torch.float64 and dtype is not torch.float32:
        raise InputError(f"dtype={dtype}: the rows are kept in torch.float64 or torch.float32.")
    found: torch.dtype = dtype
    return found


def check_group(group: Mapping[str, Any], l2: float) -> None:
    """Refuse settings out of range, and a ridge that is not the one the rows hold.

    Raises:
        InputError: with the setting and its value.
    """
    if not 0 <= to_number("lr", group["lr"]) < math.inf:
        raise InputError(f"lr={group['lr']} must be finite and not negative; 1 is the full step.")
    if not 0 < to_number("forgetting", group["forgetting"]) <= 1:
        raise InputError(f"forgetting={group['forgetting']} must be above 0 and at most 1.")
    if to_number("l2", group["l2"]) != l2:
        raise InputError(f"l2 was changed from {l2} to {group['l2']}; rows already seen hold it. Make a new optimizer.")

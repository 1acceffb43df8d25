"""Arguments as plain numbers: what Python, NumPy or torch hold as one number, and nothing else."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

__all__ = ["is_boolean", "plain_number", "share_of_one", "truth_value", "whole_number"]


def plain_number(value: Any) -> float | None:
    """Return one real number as a float, inf where it is beyond the range; None for anything else, booleans too.

    Example:
        >>> import numpy as np
        >>> plain_number(2), plain_number(np.float32(0.5)), plain_number(10**400), plain_number("2"), plain_number(True)
        (2.0, 0.5, inf, None, None)
    """
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:  # of an integer alone
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def is_boolean(value: Any) -> bool:
    """Whether a value that is to be numbers is a truth value, holds one, or is an array or a tensor of them.

    Example:
        >>> import torch
        >>> is_boolean(True), is_boolean([1.0, False]), is_boolean(torch.tensor([True])), is_boolean(1)
        (True, True, True, False)
    """
    if isinstance(value, list | tuple):
        return any(is_boolean(each) for each in value)
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).startswith(("bool", "torch.bool"))


def truth_value(value: Any) -> bool | None:
    """Return one truth value as a bool, Python's, NumPy's or a tensor's; None for anything else, 0 and 1 too.

    Example:
        >>> import numpy as np
        >>> truth_value(np.True_), truth_value(False), truth_value(1), truth_value([True])
        (True, False, None, None)
    """
    value = _plain(value)
    return value if isinstance(value, bool) else None


def share_of_one(value: Any) -> float | None:
    """Return a number between 0 and 1, both excluded, as a float; None for anything else.

    Example:
        >>> import numpy as np
        >>> share_of_one(np.float32(0.5)), share_of_one(1), share_of_one(True)
        (0.5, None, None)
    """
    number = plain_number(value)
    return number if number is not None and 0 < number < 1 else None


def whole_number(value: Any) -> int | None:
    """Return one integer as an int; None for anything else, booleans and floats too.

    Example:
        >>> import numpy as np
        >>> whole_number(np.int64(3)), whole_number(3.0), whole_number(True), whole_number(np.array([3]))
        (3, None, None, None)
    """
    value = _plain(value)
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def _plain(value: Any) -> Any:
    """Return what an array or a tensor without dimensions holds, and anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value

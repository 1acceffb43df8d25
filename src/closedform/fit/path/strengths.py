"""The strengths of a path: those of the user, checked, or a grid from the spectrum."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from closedform.fit.path.basis import Basis
from closedform.words.arguments import is_boolean
from closedform.words.errors import InputError

__all__ = ["check_strengths", "default_grid", "further"]

#: Strengths a decade of the default grid.
_A_DECADE = 4
#: The default grid reaches down to this part of the square of the largest singular value, at least.
_LOWEST = 1e-10
#: What it goes beyond the squares of the smallest and the largest singular value.
_MARGIN = 10.0
#: A grid is extended by so many decades at a time.
_EXTENSION = 4
#: Down to this part of the largest square: what is smaller changes no digit.
_BOTTOM = 1e-17
#: Up to this multiple of the largest square: there the weights are next to zero.
_TOP = 1e6


def check_strengths(l2: Any) -> Tensor | None:
    """Return the strengths of a user, in his order, float64; None where the grid is to be made.

    Raises:
        InputError: none at all, negative ones or ones that are not finite, or what is no list of numbers.
    """
    if l2 is None:
        return None
    if is_boolean(l2):
        raise InputError(f"l2={l2!r} holds truth values; give the ridge strengths to try, or None.")
    try:
        # torch would look for places of a Series among its labels.
        numbers = l2.to_numpy().tolist() if hasattr(l2, "to_numpy") else l2
        # torch would drop the imaginary part.
        real = None if "complex" in str(getattr(numbers, "dtype", "")) else numbers
        values = torch.as_tensor(real, dtype=torch.float64, device="cpu").detach().clone()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"l2={l2!r} is not a list of numbers; give the ridge strengths to try, or None.") from error

    if values.ndim > 1:
        raise InputError(f"l2 has shape {tuple(values.shape)}; give one list of ridge strengths, (strengths,).")
    values = values.reshape(-1)
    if not values.numel():
        raise InputError("l2 is empty; give the ridge strengths to try, or None for a grid from the spectrum.")
    bad = ~(torch.isfinite(values) & (values >= 0))
    if bool(bad.any()):
        place = int(bad.nonzero()[0])
        raise InputError(f"l2 holds {float(values[place])} at place {place}; strengths are finite and not negative.")
    return values


def default_grid(basis: Basis) -> Tensor:
    """Return strengths from below the smallest to above the largest square of a singular value, ascending."""
    if not basis.rank:
        return torch.ones(1, dtype=torch.float64, device="cpu")
    top = basis.largest * _MARGIN
    bottom = max(basis.smallest, basis.largest * _LOWEST) / _MARGIN
    return _between(bottom, top)


def further(basis: Basis, strengths: Tensor, *, up: bool) -> Tensor | None:
    """Return strengths beyond an end of the grid, ascending; None where there is nothing to be found beyond it."""
    if not basis.rank:
        return None
    step = 10.0 ** (1 / _A_DECADE)
    if up:
        start, end = float(strengths.max()) * step, basis.largest * _TOP
        return _between(start, min(end, start * 10.0**_EXTENSION)) if start < end else None
    start, end = float(strengths.min()) / step, basis.largest * _BOTTOM
    return _between(max(end, start / 10.0**_EXTENSION), start) if start > end else None


def _between(low: float, high: float) -> Tensor:
    count = max(2, round(math.log10(high / low) * _A_DECADE) + 1)
    return torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64, device="cpu")

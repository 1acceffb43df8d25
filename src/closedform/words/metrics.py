"""Results as flat floats, which trackers (W&B, MLflow, TensorBoard) take as they are."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

__all__ = ["flat_floats"]

#: What MLflow, the strictest of them, does not take in a name.
_FOREIGN = re.compile(r"[^\w\-./ ]")


def flat_floats(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among some values as floats, those of inner mappings as ``outer/inner``.

    Booleans become 0.0 and 1.0; what is no number (None, nan, text, lists) is left out, and what not every tracker
    takes in a name is an underscore.

    Args:
        values: Names with numbers, mappings, or anything else.

    Example:
        >>> flat_floats({"loss": 1, "accepted": True, "note": "x", "sgd, best": {"steps": 3, "why": None}})
        {'loss': 1.0, 'accepted': 1.0, 'sgd_ best/steps': 3.0}
    """
    found: dict[str, float] = {}
    for key, value in values.items():
        name = _FOREIGN.sub("_", key)
        if isinstance(value, Mapping):
            found |= {f"{name}/{inner}": number for inner, number in flat_floats(value).items()}
        elif isinstance(value, Real) and not math.isnan(value):
            found[name] = float(value)
    return found

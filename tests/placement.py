"""The device on which the cases run: ``pytest --device cuda`` runs those tests that are marked ``device`` there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

#: What ``--device`` says. "cpu" leaves every case as it is, NumPy arrays included; "cpu:0" places it as on any other.
name = "cpu"


def place(value: Any) -> Any:
    """Return data of a case as they are, or on another device the same numbers as a tensor there."""
    if name == "cpu" or value is None:
        return value
    if isinstance(value, np.ndarray):
        # torch takes no negative strides.
        value = torch.from_numpy(np.ascontiguousarray(value))
    return value.to(name) if isinstance(value, torch.Tensor) else value

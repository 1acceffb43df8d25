"""Numbers packed as netCDF packs them: what is stored, times ``scale_factor``, plus ``add_offset``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

__all__ = ["Packing"]


@final
@dataclass(frozen=True)
class Packing:
    """How the numbers of an array are made from what is stored (CF Conventions 1.11, section 8.1).

    Attributes:
        scale: What they are multiplied by.
        offset: What is added then.
    """

    scale: float
    offset: float

    @staticmethod
    def of(attributes: Mapping[str, Any]) -> Packing | None:
        """Return the packing that the attributes of an array name, or None where its numbers are stored as they are.

        Example:
            >>> Packing.of({"scale_factor": 0.5, "units": "K"})
            Packing(scale=0.5, offset=0.0)
            >>> Packing.of({"units": "K"}) is None
            True
        """
        scale, offset = _number(attributes.get("scale_factor")), _number(attributes.get("add_offset"))
        if scale is None and offset is None:
            return None
        return Packing(1.0 if scale is None else scale, 0.0 if offset is None else offset)

    def unpack(self, stored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the numbers, float64."""
        return stored.astype(np.float64) * self.scale + self.offset

    def note(self, name: str) -> str:
        """Return what is said of a table that is packed so."""
        return (
            f"{name} is packed: its numbers are what is stored times {self.scale:g}, plus {self.offset:g}, in float64"
        )


def _number(value: Any) -> float | None:
    array = np.asarray(() if value is None else value)
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiu" else None

"""From results to what JSON holds: the one cleaner of the package."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

__all__ = ["json_text", "plain"]


def plain(value: Any) -> Any:
    """Return a value as JSON has it: dataclasses and mappings as dicts, tuples as lists, what is not finite as None.

    Args:
        value: Numbers, strings, booleans, None, enumerations (by their value), and dataclasses, mappings, lists and
            tuples of such. Fields whose name begins with an underscore are left out. Anything else stays as it is.

    Example:
        >>> plain({"condition": float("inf"), "columns": (1, 2.5)})
        {'condition': None, 'columns': [1, 2.5]}
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if not f.name.startswith("_")}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def json_text(value: Any) -> str:
    r"""Return strict JSON, indented, with a line break at its end: infinities and NaN, which JSON has not, as null.

    Raises:
        TypeError: something in it that JSON cannot hold.

    Example:
        >>> json_text({"condition": float("inf"), "rank": 2})
        '{\n  "condition": null,\n  "rank": 2\n}\n'
    """
    return json.dumps(plain(value), indent=2, allow_nan=False) + "\n"

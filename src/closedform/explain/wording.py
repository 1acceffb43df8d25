"""Numbers in the words of a finding."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["columns_text", "count", "momentum_text", "plural", "short", "steps_text"]


def short(value: float) -> str:
    """Two digits, without the padding of exponents.

    Example:
        >>> [short(value) for value in (6.7e8, 1.2e-7, 0.93, 41.6, 999.7, 1e5, 0.0)]
        ['6.7e8', '1.2e-7', '0.93', '42', '1000', '1e5', '0']
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if 1e-2 <= abs(value) < 9999.5:
        return f"{value:.2g}" if abs(value) < 99.5 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def count(value: float) -> str:
    """A number of steps, rows or columns: exact while it is readable.

    Example:
        >>> count(12345.0), count(3.2e17), count(float("inf"))
        ('12,345', '3.2e17', 'endlessly many')
    """
    if math.isinf(value):
        return "endlessly many"
    return f"{int(value):,}" if value < 100_000 else short(value)


def momentum_text(momentum: float) -> str:
    """A momentum, which says nothing when it is rounded to 1.

    Example:
        >>> momentum_text(0.9), momentum_text(0.99999987)
        ('0.9', '1 - 1.3e-7')
    """
    return f"{momentum:.4g}" if momentum < 0.999 else f"1 - {short(1 - momentum)}"


def plural(value: float, noun: str) -> str:
    """Example:
    >>> plural(1, "row"), plural(600, "row")
    ('1 row', '600 rows')
    """
    return f"{count(value)} {noun}" if value == 1 else f"{count(value)} {noun}s"


def steps_text(steps: float) -> str:
    """Example:
    >>> steps_text(63), steps_text(float("inf"))
    ('63 steps', 'never gets there')
    """
    return plural(steps, "step") if math.isfinite(steps) else "never gets there"


def columns_text(columns: Sequence[int], names: Sequence[str] | None, most: int = 5) -> str:
    """Name columns, -1 for the bias, at most ``most`` of them.

    Example:
        >>> columns_text([-1, 0, 2], None), columns_text([0, 1, 2], ["a", "b", "c"], most=2)
        ('the bias, columns 0, 2', 'columns a, b and 1 more')
    """
    features = [str(names[i]) if names is not None else str(i) for i in columns if i >= 0]
    parts = ["the bias"] if -1 in columns else []
    if features:
        rest = f" and {len(features) - most} more" if len(features) > most else ""
        parts.append(f"column{'s' if len(features) > 1 else ''} {', '.join(features[:most])}{rest}")
    return ", ".join(parts)

"""Numbers in words: the one way in which sentences, tables, pages and messages set a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["below", "count", "duration", "momentum_text", "number", "plural", "short", "steps_text", "value_text"]

#: From this number on a count is set by its leading digits.
_LARGE_COUNT = 100_000
#: Seconds of a year, for times that nobody waits for.
_YEAR = 365.25 * 86400
#: From this momentum on its distance from 1 is set, which is what counts.
_NEXT_TO_ONE = 0.999


def short(value: float) -> str:
    """Return two digits, without the padding of exponents: a number within a sentence.

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


def number(value: float | None) -> str:
    """Return a measured number in few characters, as a cell of a table; ``-`` where there is none.

    Example:
        >>> number(0.0001234), number(12345.0), number(1.5), number(float("inf")), number(None)
        ('1.2e-4', '1.2e4', '1.50', 'inf', '-')
    """
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if 1e-3 <= abs(value) < 999.5:
        return f"{value:#.3g}".rstrip(".")
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def below(value: float | None, floor: float) -> str:
    """Return a number that is known down to a floor: what does not stand above the floor is only said to be below.

    Example:
        >>> below(3.2e-9, 4.9e-13), below(7e-16, 4.9e-13), below(4.9e-13, 4.9e-13), below(0.0, 0.0), below(None, 1.0)
        ('3.2e-9', '< 5e-13', '< 5e-13', '0', '-')
    """
    if value is None or not 0 < floor < math.inf or value > floor:
        return number(value)

    exponent = math.floor(math.log10(floor))
    # One digit, rounded up, so that it is above the floor; 0.7 / 0.1 is a little less than 7.
    digit = math.floor(floor / 10.0**exponent) + 1
    if float(f"{digit}e{exponent}") <= floor:
        digit += 1
    if digit == 10:
        digit, exponent = 1, exponent + 1
    return f"< {digit * 10.0**exponent:.1g}" if abs(exponent) < 3 else f"< {digit}e{exponent}"


def count(value: float) -> str:
    """Return a number of steps, rows or columns: exact while it is readable.

    Example:
        >>> count(64), count(12345.0), count(1234567), count(3.2e17), count(float("inf"))
        ('64', '12,345', '1.2e6', '3.2e17', 'endlessly many')
    """
    if math.isinf(value):
        return "endlessly many"
    return f"{int(value):,}" if value < _LARGE_COUNT else short(value)


def plural(value: float, noun: str) -> str:
    """Return a number and a noun, in the plural but for one.

    Example:
        >>> plural(1, "feature"), plural(0, "row"), plural(12345, "row")
        ('1 feature', '0 rows', '12,345 rows')
    """
    return f"{count(value)} {noun}" if value == 1 else f"{count(value)} {noun}s"


def steps_text(steps: float) -> str:
    """Return a number of steps in words, infinity as what it means.

    Example:
        >>> steps_text(63), steps_text(float("inf"))
        ('63 steps', 'never gets there')
    """
    return plural(steps, "step") if math.isfinite(steps) else "never gets there"


def momentum_text(momentum: float) -> str:
    """Return a momentum, which says nothing when it is rounded to 1.

    Example:
        >>> momentum_text(0.9), momentum_text(0.99999987)
        ('0.9', '1 - 1.3e-7')
    """
    return f"{momentum:.4g}" if momentum < _NEXT_TO_ONE else f"1 - {short(1 - momentum)}"


def duration(seconds: float) -> str:
    """Return a time in the unit that it is thought of in.

    Example:
        >>> duration(30.0), duration(7200.0), duration(1e6), duration(1e12)
        ('30 seconds', '2 hours', '12 days', '3.2e4 years')
    """
    for name, unit in (("years", _YEAR), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * unit:
            return f"{short(seconds / unit)} {name}"
    return f"{short(seconds)} seconds"


def value_text(value: Any) -> str:
    """Return any plain value in few characters: whole numbers whole, truth as yes or no, lists with commas.

    Example:
        >>> value_text(20312), value_text(6.7e8), value_text(None), value_text([1, "a"]), value_text(True)
        ('20,312', '6.7e8', '-', '1, a', 'yes')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < 1e15):
        return count(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {value_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(value_text(item) for item in value)
    return number(value)

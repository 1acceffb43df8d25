"""Numbers printed with the digits that are proven, and no more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal

from closedform.fit.solution import Solution

__all__ = ["certain", "certain_lines"]

#: Significant digits printed at most.
_SHOWN = 17
#: How many of them may be uncertain.
_UNCERTAIN = 2
# high + low has 32 digits or so; 60 hold it and its rounding.
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_UPWARDS = Context(prec=2, rounding=ROUND_CEILING)


def certain(high: float, low: float, bound: float) -> str:
    """Return ``high + low`` with its certain digits; up to two more follow in parentheses.

    A digit is certain where the bound is at most half a unit of its place, so what stands before the parenthesis is
    within one unit of its last digit.

    Args:
        high: The number.
        low: What rounding took from it.
        bound: Bound on the error of ``high + low``; inf where there is none.

    Example:
        >>> certain(1.25, 0.0, 0.0)
        '1.2500000000000000'
        >>> certain(1.23456789, 0.0, 4e-6)
        '1.23456(79)'
        >>> certain(-1234.5678, 0.0, 30.0)
        '-1.2(35)e+03'
        >>> certain(0.5, 0.0, 8.0)
        'not determined, at most 8.5e+0 in size'
    """
    value = _EXACT.add(Decimal(high), Decimal(low))
    if not math.isfinite(bound):
        return "not determined"

    # A weight that is zero has no digits however small its bound is.
    at_most = f"not determined, at most {_UPWARDS.add(value.copy_abs(), Decimal(bound)):.1e} in size"
    if value == 0:
        return "0" if bound == 0 else at_most

    first = value.adjusted()
    place = first - _SHOWN + 1  # of the last digit shown
    if bound > 0:
        doubled = 2 * Decimal(bound)
        last_certain = doubled.adjusted() + (doubled > Decimal(1).scaleb(doubled.adjusted()))
        if last_certain > first:
            return at_most
        place = max(place, last_certain - _UNCERTAIN)
        uncertain = min(max(last_certain - place, 0), _UNCERTAIN)
    else:
        uncertain = 0

    rounded = value.quantize(Decimal(1).scaleb(place), context=_EXACT)
    digits = "".join(map(str, rounded.as_tuple().digits))

    return _layout(value < 0, digits, place, uncertain)


def _layout(negative: bool, digits: str, place: int, uncertain: int) -> str:
    """Write an integer of digits times ``10**place``, its last ``uncertain`` digits in parentheses."""
    plain = digits[: len(digits) - uncertain]
    tail = digits[len(digits) - uncertain :]
    exponent = len(digits) - 1 + place
    suffix = ""
    if -5 <= exponent < _SHOWN and place + uncertain <= 0:
        # Ordinary notation: the decimal point stands among the digits, or before them.
        whole = plain[: exponent + 1] if exponent >= 0 else "0"
        fraction = plain[exponent + 1 :] if exponent >= 0 else "0" * (-exponent - 1) + plain
    else:
        whole, fraction, suffix = plain[:1], plain[1:], f"e{exponent:+03d}"
    mantissa = f"{whole}.{fraction}" if fraction else whole
    if tail:
        mantissa += ("" if fraction else ".") + f"({tail})"
    return ("-" if negative else "") + mantissa + suffix


def certain_lines(solution: Solution) -> Iterator[str]:
    """Yield a line for each number of a layer that was solved with ``digits``: the bias first, target by target."""
    for name, high, low, bound in (
        ("bias", solution.bias, solution.bias_low, solution.bias_bound),
        ("weight", solution.weight, solution.weight_low, solution.weight_bound),
    ):
        if high is None or low is None or bound is None:
            continue
        shape = high.shape
        for flat in range(high.numel()):
            index = flat if len(shape) == 1 else f"{flat // shape[1]}, {flat % shape[1]}"
            called = _called(solution, flat if len(shape) == 1 else flat // shape[1])
            if len(shape) > 1 and solution.feature_names is not None:
                called = f"{solution.feature_names[flat % shape[1]]}{called and ' -> '}{called}"
            numbers = (float(tensor.reshape(-1)[flat]) for tensor in (high, low, bound))
            yield f"{name}[{index}]{called and ' '}{called}  {certain(*numbers)}"


def _called(solution: Solution, target: int) -> str:
    return "" if solution.target_names is None else solution.target_names[target]

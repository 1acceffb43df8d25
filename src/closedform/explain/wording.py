"""Names of columns in sentences; numbers are set by ``closedform.words.numbers``."""

from __future__ import annotations

from collections.abc import Sequence

from closedform.words.numbers import count, momentum_text, plural, short, steps_text

__all__ = ["columns_text", "count", "momentum_text", "plural", "short", "steps_text"]


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

"""What a slip is, and what its search reads from a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from closedform.explain.case import Case
from closedform.explain.comparing import Comparison, resolution
from closedform.explain.pacing import recorded_rates

__all__ = ["Slip", "optimizer_code", "rates_of", "shown_digits"]

#: Share of a loss that is rounding at the least: records are kept in float32.
_SHOWN = 1e-6


@final
@dataclass(frozen=True)
class Slip:
    """What explains a record.

    Attributes:
        title: The slip, in a line.
        sentence: What it does.
        remedy: Code that mends it.
    """

    title: str
    sentence: str
    remedy: str


def rates_of(case: Case, found: Comparison) -> list[float]:
    """Learning rates of the recorded steps, as multiples of the one given; empty where they cannot be told."""
    history, steps = case.setting.history, case.setting.steps
    # Fewer points than steps may be those of every so many: one direction that grows alike has another rate then.
    if found.every != 1 or (history is not None and steps is not None and history.numel() < steps):
        return []
    # Of a record that starts after the first step, the first point tells of it.
    return recorded_rates(case, found.recorded[1:] if found.starts else found.recorded)


def shown_digits(case: Case) -> float:
    """Relative size of the last digits that a record shows of its first loss."""
    history = case.setting.history
    if history is None or not float(history[0]):
        return _SHOWN
    return max(resolution(history) / abs(float(history[0])), _SHOWN, 100 * case.setting.precision.product_eps)


def optimizer_code(case: Case, **changed: object) -> str:
    """Return the line that makes the optimizer given, with some settings changed."""
    # The findings import this module, and a package is loaded before what is in it.
    from closedform.explain.findings.remedies import optimizer_code

    return optimizer_code(case, **changed)

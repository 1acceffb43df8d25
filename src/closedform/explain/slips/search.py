"""The slips in the order of trying."""

from __future__ import annotations

from collections.abc import Callable

from closedform.explain.case import Case
from closedform.explain.comparing import Comparison
from closedform.explain.slips import gradients, losses, rates
from closedform.explain.slips.slip import Slip

__all__ = ["explain_record"]

#: To add one is one function and one line.
_SLIPS: tuple[Callable[[Case, Comparison], Slip | None], ...] = (
    losses.nothing_moves,
    losses.not_a_number,
    losses.normalised,
    gradients.never_zeroed,
    gradients.uphill,
    rates.other_rate,
    gradients.clipped,
    rates.scheduled,
    losses.random,
)


def explain_record(case: Case, found: Comparison) -> Slip | None:
    """Return the slip whose simulation fits the record, or None."""
    for slip in _SLIPS:
        explained = slip(case, found)
        if explained is not None:
            return explained
    return None if found.starts else losses.other_scale(case, found)

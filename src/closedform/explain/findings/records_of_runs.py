"""What the user recorded, held against the forecast: a run that is not the one described, and why."""

from __future__ import annotations

from closedform.explain.case import Case
from closedform.explain.comparing import compare_with_record
from closedform.explain.finding import Finding, Severity
from closedform.explain.slips.search import explain_record
from closedform.explain.smoothing import kept_as
from closedform.explain.wording import short

__all__ = ["history_differs"]


def history_differs(case: Case) -> Finding | None:
    """A record that contradicts the forecast, with the slip that explains it where one does."""
    found = compare_with_record(case)
    if found is None or found.agrees or (not found.starts and found.ends_here):
        return None

    at = min(found.differs_at, found.recorded.numel() - 1)
    step = at * found.every
    form = kept_as(case)
    slip = None if form else explain_record(case, found)
    recorded, expected = float(found.recorded[at]), float(found.expected[at])
    beside = f"At step {step:,} it has {short(recorded)}, and the run as given would have {short(expected)}."

    if form:
        return Finding(
            name="history_smoothed",
            severity=Severity.INFO,
            title=f"The record is {form}, of the run as given",
            evidence={"first_difference": float(step), "recorded_loss": recorded, "forecast_loss": expected},
            consequence=f"{beside} The loop does what was passed; what was kept of it is not the loss itself.",
            remedy="history.append(loss.item())   # the loss of each step as it is",
        )
    return Finding(
        name="history_differs",
        severity=Severity.ERROR if slip is not None else Severity.WARNING,
        title="The record is not of the run that was given" if slip is None else slip.title,
        evidence={"first_difference": float(step), "recorded_loss": recorded, "forecast_loss": expected},
        consequence=(
            f"{beside} It follows the forecast up to there; something in the loop is not what was passed: batches, a "
            "scheduler, rows, or random layers."
            if slip is None
            else f"{beside} {slip.sentence}"
        ),
        remedy="# pass what the loop uses: batch_size=, scheduler=, criterion=, and the rows as they are fed"
        if slip is None
        else slip.remedy,
    )

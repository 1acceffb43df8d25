"""How a fit ended, in the words a user reads."""

from __future__ import annotations

from enum import Enum

__all__ = ["Outcome"]


class Outcome(Enum):
    """How a fit ended. The value is the sentence shown to the user.

    Example:
        >>> from closedform import Outcome
        >>> Outcome.CERTIFIED.certified
        True
        >>> print(Outcome.CERTIFIED)
        certified: the weights minimise the loss, up to rounding
    """

    CERTIFIED = "certified: the weights minimise the loss, up to rounding"
    CERTIFIED_NOT_UNIQUE = (
        "certified, not unique: many weights minimise the loss; these are the ones nearest to the origin or "
        "to the layer given"
    )
    TRUNCATED = (
        "certified for the directions that rcond keeps: the weights minimise the loss among those; what was cut is "
        "more than rounding, and without the cut the loss is lower"
    )
    AMBIGUOUS_RANK = (
        "certified, ambiguous rank: the residual is minimal up to rounding, but the singular values show no "
        "clear gap at the cut-off, so the data do not say which weights are right; a ridge (l2=...) or an "
        "explicit rcond=... decides it"
    )
    NO_MINIMISER = (
        "no minimiser exists: along .direction no row's loss ever rises and some fall for ever, so the weights grow "
        "without end; a ridge (l2=...) on the weights, or data that overlap, give the loss a minimum"
    )
    NOT_DETERMINED = (
        "not certified to the digits asked: the data do not determine every weight to that many digits; "
        "weight_bound says which are, and how well"
    )
    NOT_CERTIFIED = (
        "not certified: no method reached a backward error at rounding level; see the attempts, and do not "
        "trust the weights as the minimiser"
    )

    @property
    def certified(self) -> bool:
        """Whether the weights are what was asked for: at the minimum up to rounding, and to the digits asked."""
        return self not in (Outcome.NOT_CERTIFIED, Outcome.NOT_DETERMINED, Outcome.NO_MINIMISER)

    @property
    def severity(self) -> int:
        """How bad it is beside the other outcomes, from 0; of several fits the worst speaks."""
        return _FROM_BEST_TO_WORST.index(self.name)

    def __str__(self) -> str:
        return self.value


_FROM_BEST_TO_WORST = (
    "CERTIFIED",
    "CERTIFIED_NOT_UNIQUE",
    "AMBIGUOUS_RANK",
    "TRUNCATED",
    "NO_MINIMISER",
    "NOT_DETERMINED",
    "NOT_CERTIFIED",
)

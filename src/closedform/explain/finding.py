"""What diagnosis says, as data: findings, the verdict, and the folklore."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, final

__all__ = ["Finding", "Folklore", "Severity", "Verdict"]


class Severity(Enum):
    """How much a finding matters, the worst first.

    ``ERROR``: as it stands the run does not come to the minimiser of the squared error. ``WARNING``: it costs many
    steps, or the weights are not what they are taken for. ``INFO``: good to know. ``OK``: nothing is wrong.
    """

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    OK = "ok"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)


@final
@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        name: A stable name in snake case, for programs.
        severity: How much it matters.
        title: What it is, in one line.
        evidence: The numbers it rests on, measured or forecast on these data.
        consequence: What follows, in one or two sentences.
        remedy: Code to paste, or a command.
        excess_once_mended: Excess loss at the end of the run if this alone is mended; nan where it is not computed.
    """

    name: str
    severity: Severity
    title: str
    evidence: dict[str, float]
    consequence: str
    remedy: str
    excess_once_mended: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "severity": self.severity.value, "evidence": dict(self.evidence)}


@final
@dataclass(frozen=True)
class Verdict:
    """What to read first: the most severe finding, or that nothing is wrong."""

    name: str
    severity: Severity
    title: str
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "severity": self.severity.value}


@final
@dataclass(frozen=True)
class Folklore:
    """A piece of common advice, and what it would change on these data.

    Attributes:
        advice: The advice.
        effect: ``helps``, ``no change``, ``hurts``, ``other minimiser`` or ``not needed``.
        steps_before: Full-batch steps to the goal as it is; inf where it never gets there.
        steps_after: The same after the advice; nan where steps cannot be compared.
        sentence: The effect in one sentence.
    """

    advice: str
    effect: str
    steps_before: float
    steps_after: float
    sentence: str

    @property
    def comparable(self) -> bool:
        """Whether the steps after the advice are known; JSON, which has neither inf nor nan, needs it said."""
        return not math.isnan(self.steps_after)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**vars(self), "comparable": self.comparable}

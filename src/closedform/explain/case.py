"""A diagnosis in progress: what the user said, what the rows say, what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from closedform.explain.landscape import Landscape
from closedform.explain.setting import Setting
from closedform.explain.spectra import Spectrum
from closedform.explain.training import Training

__all__ = ["Case"]


@final
@dataclass(frozen=True)
class Case:
    """Everything that findings are made from.

    Attributes:
        setting: What the user said, read and copied at the call.
        landscape: What the rows say.
        training: What follows, computed on first use.
    """

    setting: Setting
    landscape: Landscape
    training: Training

    @property
    def spectrum(self) -> Spectrum:
        """The spectrum of the fit."""
        return self.landscape.spectrum

    @property
    def goal_excess(self) -> float:
        """The excess loss that counts as having come to the minimum."""
        return self.training.goal_excess

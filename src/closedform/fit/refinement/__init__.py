"""Refinement on the true rows: what makes any factor good enough. A factor hands over the way that suits it."""

from closedform.fit.refinement.by_gradient import ByGradient
from closedform.fit.refinement.by_multipliers import ByMultipliers
from closedform.fit.refinement.by_residual import ByResidual
from closedform.fit.refinement.refinement import GOAL, Refined, Refinement
from closedform.fit.refinement.unrefined import Unrefined
from closedform.fit.refinement.within_row_space import WithinRowSpace

__all__ = [
    "GOAL",
    "ByGradient",
    "ByMultipliers",
    "ByResidual",
    "Refined",
    "Refinement",
    "Unrefined",
    "WithinRowSpace",
]

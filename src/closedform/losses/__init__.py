"""Convex criteria: what each is worth, how it bends, and what it refuses. Pure functions of outputs and targets."""

from closedform.losses.criterion import Criterion
from closedform.losses.kinked import HingeLoss, Kinked, PinballLoss
from closedform.losses.reading import (
    CRITERIA,
    Targets,
    criterion_by_name,
    is_squared_error,
    read_criterion,
    sums_squares,
)
from closedform.losses.recognition import contradicts, recognised
from closedform.losses.squared_hinge import SquaredHingeLoss

__all__ = [
    "CRITERIA",
    "Criterion",
    "HingeLoss",
    "Kinked",
    "PinballLoss",
    "SquaredHingeLoss",
    "Targets",
    "contradicts",
    "criterion_by_name",
    "is_squared_error",
    "read_criterion",
    "recognised",
    "sums_squares",
]

"""Every ridge strength from one factor of the rows, and what each would err by on rows it has not seen."""

from closedform.fit.path.entry import left_out_residuals, ridge_path
from closedform.fit.path.of_criterion import cross_entropy_path
from closedform.fit.path.result import RidgePath

__all__ = ["RidgePath", "cross_entropy_path", "left_out_residuals", "ridge_path"]

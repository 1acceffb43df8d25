"""Every ridge strength from one factor of the rows, and what each would err by on rows it has not seen."""

from closedform.fit.path.entry import left_out_residuals, ridge_path
from closedform.fit.path.result import RidgePath

__all__ = ["RidgePath", "left_out_residuals", "ridge_path"]

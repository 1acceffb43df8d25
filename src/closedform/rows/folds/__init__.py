"""What is computed from the rows of a design matrix, one pass each."""

from closedform.rows.folds.dependence import Dependence
from closedform.rows.folds.normal_equations import NormalEquations
from closedform.rows.folds.residual_sums import ResidualSums
from closedform.rows.folds.rows_apart import RowsApart
from closedform.rows.folds.sketched_rows import SketchedRows
from closedform.rows.folds.triangle_of_rows import TriangleOfRows

__all__ = ["Dependence", "NormalEquations", "ResidualSums", "RowsApart", "SketchedRows", "TriangleOfRows"]

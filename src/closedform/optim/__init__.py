"""The optimizer that puts a layer at the closed form from within the user's own training loop."""

from closedform.optim.head import fit_head_
from closedform.optim.rls import RecursiveLeastSquares

__all__ = ["RecursiveLeastSquares", "fit_head_"]

"""Who walks: the only ones that know where the rows are."""

from closedform.rows.walkers.in_order import InOrder
from closedform.rows.walkers.walker import Walker

__all__ = ["InOrder", "Walker"]

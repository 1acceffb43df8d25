"""Factors: one small file each. A new one is a file and a line in :data:`METHODS`."""

from closedform.factors.base import Cost, Factor, Facts, Method
from closedform.factors.dual import Dual
from closedform.factors.dual_gram import DualGram32, DualGram64
from closedform.factors.gram import Gram16, Gram32, Gram64
from closedform.factors.householder import Householder
from closedform.factors.projected import ProjectedGram64
from closedform.factors.sketched import Sketched
from closedform.factors.square import Square
from closedform.factors.svd import Svd, SvdAtPrecision

__all__ = ["METHODS", "Cost", "Factor", "Facts", "Method"]

#: From the cheapest to the most robust. The ladder climbs in this order.
METHODS: tuple[Method, ...] = (
    Square(),
    Gram16(),
    Gram32(),
    Gram64(),
    DualGram32(),
    DualGram64(),
    Dual(),
    ProjectedGram64(),
    Sketched(),
    Householder(),
    Svd(),
    SvdAtPrecision(),
)

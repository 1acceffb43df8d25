"""Factors: one small file each. A new one is a file and a line in :data:`METHODS`."""

from closedform.fit.factors.base import Cost, Factor, Facts, Method
from closedform.fit.factors.diagonal import Diagonal
from closedform.fit.factors.dual import Dual
from closedform.fit.factors.dual_gram import DualGram32, DualGram64
from closedform.fit.factors.gram import Gram16, Gram32, Gram64
from closedform.fit.factors.householder import Householder
from closedform.fit.factors.projected import ProjectedGram64
from closedform.fit.factors.sketched import Sketched
from closedform.fit.factors.square import Square
from closedform.fit.factors.square32 import Square32
from closedform.fit.factors.svd import Svd, SvdAtPrecision

__all__ = ["METHODS", "Cost", "Factor", "Facts", "Gram32", "Gram64", "Method"]

#: From the cheapest to the most robust. The ladder climbs in this order.
METHODS: tuple[Method, ...] = (
    Square(),
    Square32(),
    Diagonal(),
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

"""Refinement in extended precision, and a bound on the error of every weight that is proven, not estimated.

Let T be the inverse of the R of a factor, rounded: any matrix of doubles will do. With ``M = T'A'A T`` and
``|M - I| <= delta < 1`` the normal matrix is invertible and, with the gradient ``g = A'(b - A x)``,

    x* - x = T M^-1 T'g,   so a step x + T T'g leaves   |x* - x|_i <= |T_i| |T'g| delta / (1 - delta)

(Euclidean norms). So a bound needs three things, each with its rounding accounted for: delta from ``Y = A T``, the
gradient g, and T'g. g is summed in three doubles by a compiled pass (Ogita, Rump and Oishi 2005), or from exact
products of slices (Ozaki, Ogita, Oishi and Rump 2012); the weights are held as ``high + low`` (Demmel, Hida, Riedy and
Li 2009 for refinement in extended precision; Rump 2013 for an approximate inverse as an exact preconditioner). A wide
system is the mirror image: ``x = B u`` with ``B = A'``, and ``g = b - B'B u``. The constants are derived in
docs/digits-proof.md.
"""

from __future__ import annotations

from closedform.fit.extended.enclosure import Extended, extend

__all__ = ["Extended", "extend"]

"""Convex criteria: Newton's method on the true loss, a proven bound on the excess, and proofs that no minimiser exists."""

from closedform.fit.convex.certificate import GapCertificate
from closedform.fit.convex.solution import ConvexSolution
from closedform.fit.convex.solving import ConvexRequest, solve_criterion

__all__ = ["ConvexRequest", "ConvexSolution", "GapCertificate", "solve_criterion"]

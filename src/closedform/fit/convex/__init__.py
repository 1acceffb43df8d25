"""Convex criteria: Newton's method on the true loss, a proven gap, and proofs that no minimiser exists."""

from closedform.fit.convex.certificate import GapCertificate
from closedform.fit.convex.curvature import Curvature, curvature_at
from closedform.fit.convex.excess import excess_over
from closedform.fit.convex.joint_scale import JointScale, solve_with_scale
from closedform.fit.convex.measuring import divisor_of, loss_at
from closedform.fit.convex.request import ConvexRequest
from closedform.fit.convex.solution import ConvexSolution
from closedform.fit.convex.solving import solve_criterion

__all__ = [
    "ConvexRequest",
    "ConvexSolution",
    "Curvature",
    "GapCertificate",
    "JointScale",
    "curvature_at",
    "divisor_of",
    "excess_over",
    "loss_at",
    "solve_criterion",
    "solve_with_scale",
]

"""The certificate: weights are checked on a fresh pass over the rows. Nothing here imports a factor."""

from closedform.fit.certification.certificate import TOLERANCE, Certificate
from closedform.fit.certification.certifier import certify

__all__ = ["TOLERANCE", "Certificate", "certify"]

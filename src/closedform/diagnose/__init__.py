"""Why an optimizer does not get there: findings, forecasts and rehearsals, measured on the user's own data."""

from closedform.diagnose.diagnosis import Diagnosis
from closedform.diagnose.door import diagnose
from closedform.diagnose.finding import Finding, Folklore, Severity, Verdict

__all__ = ["Diagnosis", "Finding", "Folklore", "Severity", "Verdict", "diagnose"]

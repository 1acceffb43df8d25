"""closedform: linear layers at the exact minimiser, with a certificate, and why an optimizer did not get there."""

import importlib
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version
from types import ModuleType

from closedform.batched import BatchedSolution, solve_batched
from closedform.certify import Certificate
from closedform.compare import compare
from closedform.diagnose import Diagnosis, diagnose
from closedform.errors import ClosedformError
from closedform.layer import Gap, fit_, gap
from closedform.outcome import Outcome
from closedform.report import Comparison
from closedform.solution import Attempt, Solution
from closedform.solve import solve

try:
    __version__ = _version("closedform")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

__all__ = [
    "Attempt",
    "BatchedSolution",
    "Certificate",
    "ClosedformError",
    "Comparison",
    "Diagnosis",
    "Gap",
    "Outcome",
    "Solution",
    "compare",
    "diagnose",
    "fit_",
    "gap",
    "optim",
    "solve",
    "solve_batched",
]


def __getattr__(name: str) -> ModuleType:
    # Optimizers load torch's compiler machinery, which takes as long as torch itself: only who asks pays for it.
    if name == "optim":
        return importlib.import_module("closedform.optim")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

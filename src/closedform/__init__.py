"""closedform: linear layers at the exact minimiser, with a certificate, and why an optimizer did not get there."""

import importlib
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version
from types import ModuleType

from closedform.batched import BatchedSolution, solve_batched
from closedform.comparison.entry import compare
from closedform.comparison.results import Comparison
from closedform.explain.diagnosis import Diagnosis
from closedform.explain.entry import diagnose
from closedform.fit.certification import Certificate
from closedform.fit.orchestrator import solve
from closedform.fit.solution import Attempt, Solution
from closedform.layer import Gap, fit_, gap
from closedform.words.errors import ClosedformError
from closedform.words.outcome import Outcome

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


def __dir__() -> list[str]:
    return sorted(__all__)

"""closedform: linear layers at the exact minimiser, with a certificate, and why an optimizer did not get there."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from closedform import losses, optim
    from closedform.batched import BatchedSolution, solve_batched
    from closedform.comparison.criteria.results import CriterionComparison
    from closedform.comparison.entry import compare
    from closedform.comparison.results import Comparison
    from closedform.explain.criteria import CriterionDiagnosis
    from closedform.explain.diagnosis import Diagnosis
    from closedform.explain.entry import diagnose
    from closedform.fit.accumulator import Accumulator
    from closedform.fit.certification import Certificate
    from closedform.fit.convex import ConvexSolution, GapCertificate
    from closedform.fit.orchestrator import solve
    from closedform.fit.path import RidgePath, ridge_path
    from closedform.fit.solution import Attempt, Solution
    from closedform.layer import Gap, fit_, gap
    from closedform.probing.entry import probe
    from closedform.probing.result import Probe
    from closedform.words.errors import ClosedformError
    from closedform.words.outcome import Outcome

    __version__: str

__all__ = [
    "Accumulator",
    "Attempt",
    "BatchedSolution",
    "Certificate",
    "ClosedformError",
    "Comparison",
    "ConvexSolution",
    "CriterionComparison",
    "CriterionDiagnosis",
    "Diagnosis",
    "Gap",
    "GapCertificate",
    "Outcome",
    "Probe",
    "RidgePath",
    "Solution",
    "compare",
    "diagnose",
    "fit_",
    "gap",
    "losses",
    "optim",
    "probe",
    "ridge_path",
    "solve",
    "solve_batched",
]

#: Where each public name lives. Torch takes seconds to load, so a name is imported when it is first asked for: the
#: command line answers --help and --version without it.
_HOMES = {
    "Accumulator": "fit.accumulator",
    "Attempt": "fit.solution",
    "BatchedSolution": "batched",
    "Certificate": "fit.certification",
    "ClosedformError": "words.errors",
    "Comparison": "comparison.results",
    "ConvexSolution": "fit.convex",
    "CriterionComparison": "comparison.criteria.results",
    "CriterionDiagnosis": "explain.criteria",
    "Diagnosis": "explain.diagnosis",
    "Gap": "layer",
    "GapCertificate": "fit.convex",
    "Outcome": "words.outcome",
    "Probe": "probing.result",
    "RidgePath": "fit.path",
    "Solution": "fit.solution",
    "compare": "comparison.entry",
    "diagnose": "explain.entry",
    "fit_": "layer",
    "gap": "layer",
    "probe": "probing.entry",
    "ridge_path": "fit.path",
    "solve": "fit.orchestrator",
    "solve_batched": "batched",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in {"losses", "optim"}:
        value = importlib.import_module(f"closedform.{name}")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"closedform.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("closedform")
    except PackageNotFoundError:  # a source tree that was not installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)

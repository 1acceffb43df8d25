"""What a fit costs whatever its size: calls of Python functions, which are counted and not timed."""

from __future__ import annotations

import sys
from typing import Any

import torch

import closedform as cf
import fresh
from data import F64, gaussian

#: Calls of Python functions in a fit of 50 rows and 5 columns: some 650, and more with older torch and NumPy.
MOST_CALLS = 680 if torch.__version__ >= "2.7" else 730
#: Modules of this package that are loaded for a plain fit; there are about five fewer.
MOST_MODULES = 125


def calls_of(X: torch.Tensor, y: torch.Tensor) -> int:
    count = 0

    def watch(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        cf.solve(X, y)
    finally:
        sys.setprofile(before)
    return count


def test_a_small_fit_makes_few_calls() -> None:
    X, noise = gaussian(50, 5), gaussian(50, seed=1)
    y = X @ torch.ones(5, dtype=F64) + 0.1 * noise
    cf.solve(X, y)  # What is loaded and kept with the first fit is not counted.
    # A plan is made anew where the load of the machine has changed meanwhile.
    assert 100 < min(calls_of(X, y) for _ in range(5)) <= MOST_CALLS


def test_a_plain_fit_loads_no_files_criteria_reports_or_extended_precision() -> None:
    code = """if True:
        import sys, torch, closedform as cf
        cf.solve(torch.eye(4, 2, dtype=torch.float64), torch.ones(4, dtype=torch.float64))
        print(*[name for name in sys.modules if name.startswith("closedform.")])
    """
    done = fresh.run(code)
    names = done.stdout.split()
    rooms = ("files", "losses", "report", "fit.convex", "fit.extended", "fit.path", "explain")
    assert "closedform.fit.orchestrator" in names, done.stderr
    assert not [name for name in names if name.startswith(tuple(f"closedform.{room}" for room in rooms))]
    assert len(names) <= MOST_MODULES

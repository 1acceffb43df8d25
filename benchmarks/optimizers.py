"""Time to a small excess loss, optimizer beside optimizer: ``python benchmarks/optimizers.py [--budget S] [--json F]``.

Noisy tall problems of 1000 rows and 30 features in float64, one target, at several condition numbers. Every optimizer
runs a full-batch loop until its excess loss is 1e-6 of the optimal loss or its budget is spent; where it has a learning
rate, the best of a small grid counts (each rate with the whole budget), which favours it. Recursive least squares runs
twice: full batch, and in batches of 32. Peers that are not installed (pytorch-minimize, pytorch-optimizer) are named
and left out.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from problems import Problem
from torch import Tensor, nn
from torch.nn import functional as F

from closedform.optim import RecursiveLeastSquares

GOAL = 1e-6
Make = Callable[[nn.Linear, float], torch.optim.Optimizer]


@dataclass(frozen=True)
class Entry:
    """An optimizer of the table: how it is made at a rate, which rates it tries, and the rows it sees at once."""

    name: str
    make: Make
    rates: Callable[[float], tuple[float, ...]] = lambda limit: (1.0,)
    batch: int = 0
    package: str = ""


def _torchmin(method: str) -> Make:
    def make(layer: nn.Linear, rate: float) -> torch.optim.Optimizer:
        from torchmin import Minimizer

        return Minimizer(layer.parameters(), method=method, tol=0, max_iter=200)

    return make


def _peer(name: str) -> Make:
    def make(layer: nn.Linear, rate: float) -> torch.optim.Optimizer:
        import pytorch_optimizer

        return getattr(pytorch_optimizer, name)(layer.parameters(), lr=rate)

    return make


def _grid(limit: float) -> tuple[float, ...]:
    return (1e-3, 1e-2, 1e-1)


ENTRIES = (
    Entry("rls, full batch", lambda layer, rate: RecursiveLeastSquares(layer)),
    Entry("rls, batches of 32", lambda layer, rate: RecursiveLeastSquares(layer), batch=32),
    Entry("sgd", lambda layer, rate: torch.optim.SGD(layer.parameters(), lr=rate), lambda limit: (0.9 * limit,)),
    Entry(
        "momentum 0.99",
        lambda layer, rate: torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.99),
        lambda limit: (0.5 * limit, 1.8 * limit),
    ),
    Entry("adam", lambda layer, rate: torch.optim.Adam(layer.parameters(), lr=rate), _grid),
    Entry("lbfgs", lambda layer, rate: torch.optim.LBFGS(layer.parameters(), max_iter=100)),
    Entry(
        "lbfgs strong wolfe",
        lambda layer, rate: torch.optim.LBFGS(
            layer.parameters(), max_iter=100, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
        ),
    ),
    Entry("newton-exact (pytorch-minimize)", _torchmin("newton-exact"), package="torchmin"),
    Entry("newton-cg (pytorch-minimize)", _torchmin("newton-cg"), package="torchmin"),
    Entry("SOAP (pytorch-optimizer)", _peer("SOAP"), _grid, package="pytorch_optimizer"),
    Entry("PSGD Kron (pytorch-optimizer)", _peer("Kron"), _grid, package="pytorch_optimizer"),
)


def batches(X: Tensor, Y: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    size = size or len(X)
    while True:
        yield from zip(X.split(size), Y.split(size), strict=True)


def run(entry: Entry, rate: float, X: Tensor, Y: Tensor, optimum: Tensor, budget: float) -> tuple[float, int, float]:
    """Return seconds and steps to the goal (inf where it was not reached) and the smallest excess seen."""
    torch.manual_seed(0)
    layer = nn.Linear(X.shape[1], 1, bias=False, dtype=X.dtype)
    nn.init.zeros_(layer.weight)
    opt = entry.make(layer, rate)
    floor = (X @ optimum - Y).square().sum()
    spent, steps, best = 0.0, 0, math.inf
    for x, y in batches(X, Y, entry.batch):

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            opt.zero_grad()
            loss = F.mse_loss(layer(x), y)
            if entry.package != "torchmin":  # its optimizer calls backward itself
                loss.backward()
            return loss

        begun = time.perf_counter()
        opt.step(closure)
        spent, steps = spent + time.perf_counter() - begun, steps + 1
        excess = float((X @ (layer.weight.detach().T - optimum)).square().sum() / floor)
        best = min(best, excess) if math.isfinite(excess) else best
        if excess <= GOAL:
            return spent, steps, best
        if spent > budget or not math.isfinite(excess):
            break
    return math.inf, steps, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for each optimizer, problem and rate")
    parser.add_argument("--json", help="write the numbers to this file")
    arguments = parser.parse_args()
    entries = [entry for entry in ENTRIES if not entry.package or find_spec(entry.package)]
    missing = sorted({entry.package for entry in ENTRIES} - {entry.package for entry in entries})
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    warm = Problem("warm", 64, 30, 1, 10.0).make()
    run(entries[0], 1.0, *warm, torch.linalg.lstsq(*warm).solution, 1.0)
    records: list[dict[str, Any]] = []
    for condition in (1e1, 1e2, 1e4, 1e6, 1e8):
        X, Y = Problem(f"condition {condition:.0e}", 1000, 30, 1, condition).make()
        optimum = torch.linalg.lstsq(X, Y, driver="gelsd").solution
        limit = float(len(X) / torch.linalg.matrix_norm(X, 2) ** 2)
        print(f"\ncondition {condition:.0e}: seconds to an excess of {GOAL:.0e} of the optimal loss")
        for entry in entries:
            runs = [run(entry, rate, X, Y, optimum, arguments.budget) for rate in entry.rates(limit)]
            seconds, steps, best = min(runs, key=lambda found: (found[0], found[2]))
            outcome = f"{seconds:10.4f} s {steps:7d} steps" if math.isfinite(seconds) else "         - not reached"
            print(f"  {entry.name:34s}{outcome}   smallest excess {best:.1e}", flush=True)
            records.append(
                {
                    "condition": condition,
                    "optimizer": entry.name,
                    "seconds": seconds if math.isfinite(seconds) else None,
                    "steps": steps,
                    "smallest_excess": best if math.isfinite(best) else None,
                }
            )
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(records, file, indent=1)


if __name__ == "__main__":
    main()

"""What a device makes of solve and of the optimizer: ``python benchmarks/device.py [--device cuda] [--json F]``.

Each row is one problem with an exact minimiser, made on the CPU and moved: whether the solution is certified there,
what the judge of the benchmarks says of it, the median seconds of ``closedform.solve``, and how many times as long
``torch.linalg.lstsq`` takes on the same device. The last row is a step of the optimizer beside one of
``torch.optim.SGD``. No run is begun after ``--budget`` seconds, and what is left out is said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from judge import Judge
from problems import Problem
from torch import nn

import closedform as cf

#: Those of the speed table that a device is asked about.
PROBLEMS = (
    Problem(100_000, 200, 1),
    Problem(100_000, 200, 1, 1e6),
    Problem(20_000, 2000, 1),
    Problem(600, 600, 1, 1e9, kind="kernel"),
    Problem(50_000, 1000, 100),
)
#: Rows of a batch, features and outputs of the layer that the optimizer steps.
STEP = (256, 512, 10)
REPEATS = 5


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked to."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)


def median_seconds(action: Callable[[], Any], device: torch.device, repeats: int, until: float) -> tuple[float, Any]:
    """Return the median seconds of an action and what it returned; the first run, which warms up, counts alone only."""
    seconds: list[float] = []
    for _ in range(repeats + 1):
        synchronize(device)
        begun = time.perf_counter()
        result = action()
        synchronize(device)
        seconds.append(time.perf_counter() - begun)
        if time.monotonic() > until:
            break
    return statistics.median(seconds[1:] or seconds), result


def solve_row(problem: Problem, device: torch.device, repeats: int, until: float) -> dict[str, Any]:
    """Measure one problem."""
    data = problem.make()
    X, Y = data.X.to(device), data.Y.to(device)
    seconds, solution = median_seconds(lambda: cf.solve(X, Y, progress=False), device, repeats, until)
    verdict = Judge(problem, data)(solution.weight.T.cpu())
    row: dict[str, Any] = {
        "problem": problem.name,
        "certified": solution.outcome.certified,
        "method": solution.attempts[-1].method,
        "verdict": verdict.word,
        "error": verdict.weight_error,
        "seconds": seconds,
    }
    try:
        row["lstsq"], _ = median_seconds(lambda: torch.linalg.lstsq(X, Y).solution, device, repeats, until)
    except RuntimeError as error:
        # A device without the driver, or without the memory that it takes.
        row["lstsq"], row["lstsq_error"] = None, str(error).splitlines()[0]
    row["ratio"] = row["lstsq"] / seconds if row["lstsq"] else None
    return row


def step_row(device: torch.device, repeats: int, until: float) -> dict[str, Any]:
    """Measure steps of the optimizer on one layer, beside those of SGD; certified is whether it ends at the minimum."""
    rows, features, targets = STEP
    generator = torch.Generator().manual_seed(0)
    X, Y = (torch.randn(8 * rows, n, dtype=torch.float64, generator=generator) for n in (features, targets))
    X, Y = X.to(device), Y.to(device)

    def epoch(make: Callable[[nn.Linear], torch.optim.Optimizer]) -> nn.Linear:
        layer = nn.Linear(features, targets, dtype=torch.float64, device=device)
        optimizer = make(layer)
        for x, y in zip(X.split(rows), Y.split(rows), strict=True):
            optimizer.zero_grad()
            nn.functional.mse_loss(layer(x), y).backward()
            optimizer.step()
        return layer

    seconds, layer = median_seconds(lambda: epoch(cf.optim.RecursiveLeastSquares), device, repeats, until)
    sgd, _ = median_seconds(lambda: epoch(lambda part: torch.optim.SGD(part.parameters(), lr=1e-3)), device, 1, until)
    distance = cf.gap(layer, X, Y).weight_distance
    return {
        "problem": f"optimizer step, {rows} rows, {features} to {targets}",
        "certified": distance < 1e-10,
        "verdict": "ok" if distance < 1e-10 else "wrong",
        "error": distance,
        "seconds": seconds / 8,
        "sgd": sgd / 8,
    }


def line(row: dict[str, Any]) -> str:
    """Return a row of the table as it is printed."""
    beside = f"{row['ratio']:.2f} x lstsq" if row.get("ratio") else row.get("lstsq_error", "")
    if "sgd" in row:
        beside = f"{row['seconds'] / row['sgd']:.1f} steps of SGD"
    word = ("certified" if row["certified"] else "NOT CERTIFIED") + (
        "" if row["verdict"] == "ok" else f", {row['verdict'].upper()}"
    )
    return f"{row['problem']:<44} {word:<14} error {row['error']:.1e}  {row['seconds']:9.4f} s  {beside}"


def main() -> int:
    """Measure, print and write; the status is 1 where something is not certified or not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="where to run, e.g. cuda (default: cpu)")
    parser.add_argument("--budget", type=float, default=200.0, help="seconds, after which no run is begun")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--smaller", type=int, default=1, help="divide rows and columns by this, to try the script")
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    until = time.monotonic() + arguments.budget

    problems = [p if arguments.smaller == 1 else p.smaller(arguments.smaller) for p in PROBLEMS]
    actions = [(p.name, lambda p=p: solve_row(p, device, arguments.repeats, until)) for p in problems]
    actions.append(("optimizer step", lambda: step_row(device, arguments.repeats, until)))
    rows, left_out = [], []
    for name, action in actions:
        if time.monotonic() > until:
            left_out.append(name)
            continue
        rows.append(action())
        print(line(rows[-1]), flush=True)

    if left_out:
        print(f"not begun within {arguments.budget:g} s: {'; '.join(left_out)}")
    if arguments.json:
        record = {"device": str(device), "torch": torch.__version__, "rows": rows, "left_out": left_out}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["certified"] and row["verdict"] == "ok" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

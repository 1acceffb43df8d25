"""Measure closedform beside its peers: ``python benchmarks/speed.py [--quick] [--only TEXT] [--json F] [--page F]``.

For each problem all peers get the same data and the same threads and run in turn, so that noise hits all alike.
Printed: median seconds, the ratio to closedform, the backward and the weight error each reached (a fast wrong answer is
shown as wrong), and closedform's ratio to what the machine could do: one read of X, or the flops of the cheapest
factor at the measured speed of matrix products, whichever takes longer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

THREADS = str(os.cpu_count() or 1)
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, THREADS)

import torch  # noqa: E402
from peers import available  # noqa: E402
from problems import FULL, QUICK, Problem  # noqa: E402
from torch import Tensor  # noqa: E402

from closedform.certify import certify  # noqa: E402
from closedform.numerics.rank import Rank, default_rcond  # noqa: E402
from closedform.numerics.root import SpectralRoot  # noqa: E402
from closedform.rows import Design, as_rows, scan  # noqa: E402

#: Drivers that assume full rank give no answer worth timing where there is none.
FULL_RANK_ONLY = ("torch gels", "sklearn Ridge cholesky", "lineax QR", "torch_linear_regression", "dask lstsq")
#: No peer may take longer than this once; it is left out of the repetitions then.
PATIENCE_SECONDS = 60.0


def timed(action: Any) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = action()
    return time.perf_counter() - begun, result


def median_seconds(action: Any, repeats: int = 5) -> float:
    action()
    return statistics.median(timed(action)[0] for _ in range(repeats))


def machine() -> dict[str, float]:
    """Measure what this machine can do, now: bytes a second from memory, operations a second of matrix products."""
    memory = torch.ones(200_000_000 // 8, dtype=torch.float64)
    A = torch.randn(2000, 2000, dtype=torch.float64)
    A32 = A.float()
    return {
        "bytes_per_second": memory.numel() * 8 / median_seconds(lambda: memory.sum()),
        "dgemm": 2 * 2000.0**3 / median_seconds(lambda: A @ A),
        "sgemm": 2 * 2000.0**3 / median_seconds(lambda: A32 @ A32),
    }


def floor_seconds(problem: Problem, speed: dict[str, float]) -> float:
    m, n, k = problem.rows, problem.columns, problem.targets
    read = m * n * (8 if problem.dtype == torch.float64 else 4) / speed["bytes_per_second"]
    if problem.kind in ("square", "kernel"):
        flops = 2 / 3 * n**3 / speed["dgemm"]
    else:
        # A symmetric product in single precision is the cheapest factor there is that refinement can repair.
        flops = max(m, n) * min(m, n) ** 2 / speed["sgemm"]
    return float(max(read, flops + 4 * m * n * k / speed["dgemm"] * (k > 8)))


def errors(X: Tensor, Y: Tensor, weight: Any, reference: Tensor) -> tuple[float, float]:
    """Return the backward error, judged by the certificate's own code, and the relative distance to the reference."""
    W = torch.as_tensor(weight).to(torch.float64).reshape(X.shape[1], Y.shape[1])
    distance = float(torch.linalg.vector_norm(W - reference) / torch.linalg.vector_norm(reference))
    rows = as_rows(X, Y)
    design = Design(rows, scan(rows), bias=False, l2=0.0)
    root = None
    if X.shape[0] > X.shape[1]:
        _, values, vectors = torch.linalg.svd(design.triangle.R, full_matrices=False)
        kept = values > default_rcond(*X.shape) * values[0]
        root = SpectralRoot(values[kept], vectors[kept])
    rank = Rank(min(X.shape), X.shape[1], default_rcond(*X.shape), float("inf"), False)
    return certify(design, W.T.contiguous(), None, rank=rank, root=root).backward_error, distance


def measure(problem: Problem, speed: dict[str, float], repeats: int, judge: bool) -> dict[str, Any]:
    X, Y = problem.make()
    peers, _ = available()
    if problem.kind == "deficient":
        peers = [peer for peer in peers if peer[0] not in FULL_RANK_ONLY]
    if problem.kind in ("wide", "square", "kernel"):
        peers = [peer for peer in peers if "lineax" not in peer[0] and "dask" not in peer[0]]
    seconds: dict[str, list[float]] = {name: [] for name, _ in peers}
    answers: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for turn in range(repeats + 1):
        for name, solver in peers:
            if name in failed or (seconds[name] and seconds[name][-1] > PATIENCE_SECONDS):
                continue
            try:
                spent, answer = timed(lambda solver=solver: solver(X, Y))
            except Exception as error:  # a peer that fails is a result
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:80]
                continue
            if turn or spent > 5:  # the first turn warms up, unless it was long enough to count
                seconds[name].append(spent)
            answers[name] = answer
    import closedform

    reference = torch.as_tensor(answers["closedform"]).to(torch.float64)
    if judge and X.shape[0] >= X.shape[1] and problem.kind != "deficient" and problem.columns <= 500:
        reference = closedform.solve(X, Y, digits=10).weight.to(torch.float64).T
    ours = statistics.median(seconds["closedform"])
    rows = []
    for name, _ in peers:
        if name in failed:
            rows.append({"peer": name, "failed": failed[name]})
            continue
        middle = statistics.median(seconds[name])
        row = {"peer": name, "seconds": middle, "ratio": middle / ours, "runs": len(seconds[name])}
        if judge:
            row["backward_error"], row["weight_error"] = errors(X, Y, answers[name], reference)
        rows.append(row)
    low = floor_seconds(problem, speed)
    sol = closedform.solve(X, Y)
    return {
        "problem": problem.name,
        "rows": problem.rows,
        "columns": problem.columns,
        "targets": problem.targets,
        "bars": problem.bars,
        "method": sol.attempts[-1].method,
        "attempts": [(a.method, round(a.seconds, 5), a.passes) for a in sol.attempts],
        "certified": sol.outcome.certified,
        "floor_seconds": low,
        "ratio_to_floor": ours / low,
        "results": rows,
    }


def show(result: dict[str, Any]) -> None:
    verdict = "certified" if result["certified"] else "NOT CERTIFIED"
    floor = f"{result['ratio_to_floor']:.1f} x the machine's floor of {result['floor_seconds']:.3g} s"
    print(f"\n{result['problem']}: {result['method']}, {verdict}, {floor}   {result['attempts']}")
    print(f"  {'':<26}{'seconds':>10}{'ratio':>8}{'backward':>11}{'weights':>10}")
    for row in result["results"]:
        if "failed" in row:
            print(f"  {row['peer']:<26}{'failed':>10}  {row['failed']}")
            continue
        quality = ""
        if "backward_error" in row:
            wrong = "  wrong" if row["backward_error"] > 1e-12 else ""
            quality = f"{row['backward_error']:>11.0e}{row['weight_error']:>10.0e}{wrong}"
        print(f"  {row['peer']:<26}{row['seconds']:>10.4f}{row['ratio']:>8.2f}{quality}")
    found = {row["peer"]: row["ratio"] for row in result["results"] if "ratio" in row}
    torch_best = min((ratio for name, ratio in found.items() if name.startswith("torch gels")), default=None)
    if result["bars"][0] and torch_best and "sklearn LinearRegression" in found:
        print(
            f"  bars: scikit-learn {found['sklearn LinearRegression']:.1f} of {result['bars'][0]:.1f}, "
            f"torch {torch_best:.1f} of {result['bars'][1]:.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller problems, under three minutes")
    parser.add_argument("--only", default="", help="problems whose name holds this text")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-errors", action="store_true", help="do not judge the answers")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path, help="an HTML page with plots")
    arguments = parser.parse_args()
    torch.set_num_threads(int(THREADS))
    speed = machine()
    print(
        f"{THREADS} threads; memory {speed['bytes_per_second'] / 1e9:.0f} GB/s, "
        f"DGEMM {speed['dgemm'] / 1e9:.0f} GF/s, SGEMM {speed['sgemm'] / 1e9:.0f} GF/s"
    )
    missing = available()[1]
    if missing:
        print("not installed: " + ", ".join(missing))
    results = []
    for problem in QUICK if arguments.quick else FULL:
        if arguments.only in problem.name:
            results.append(measure(problem, speed, arguments.repeats, not arguments.no_errors))
            show(results[-1])
    record = {"threads": THREADS, "machine": speed, "missing": missing, "results": results}
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))
    if arguments.page:
        from page import write_page

        write_page(arguments.page, record)


if __name__ == "__main__":
    main()

"""What every digit costs: ``python benchmarks/digits.py [--quick] [--threads N] [--json F]``.

Against crlin (verified enclosures through the augmented system of order rows + columns) where both can go, and against
plain ``solve`` where only closedform can. The two run in turn on the same data and the same threads; printed are the
medians, their ratio, and how wide each enclosure is, relative to the largest weight. Where crlin does not verify in its
usual mode its extended one is timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARSER = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
PARSER.add_argument("--quick", action="store_true", help="leave out the sizes that take minutes")
PARSER.add_argument("--threads", type=int, default=os.cpu_count() or 1)
PARSER.add_argument("--json", type=Path, help="write the figures as JSON")
ARGUMENTS = PARSER.parse_args() if __name__ == "__main__" else PARSER.parse_args([])
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(ARGUMENTS.threads)

import torch  # noqa: E402
from record import write  # noqa: E402
from torch import Tensor  # noqa: E402

import closedform as cf  # noqa: E402

#: Rows, columns, condition number and repetitions; crlin needs time with the cube of rows + columns.
AGAINST_CRLIN = [(400, 40, 1e6, 5), (1000, 50, 1e6, 5), (8000, 50, 1e6, 1)]
AGAINST_PLAIN = [(10_000, 50, 1e6, 9), (100_000, 200, 1e1, 5), (100_000, 200, 1e6, 5), (100_000, 200, 1e10, 5)]
#: The largest ratio to plain solve that is promised, at 100000 x 200.
PROMISED = 5.0


def problem(m: int, n: int, condition: float) -> tuple[Tensor, Tensor]:
    """Return X with geometric singular values and targets of which a tenth is noise."""
    generator = torch.Generator().manual_seed(m + n)
    U = torch.linalg.qr(torch.randn(m, n, dtype=torch.float64, generator=generator))[0]
    V = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))[0]
    X = (U * torch.logspace(0, -float(torch.tensor(condition).log10()), n, dtype=torch.float64)) @ V
    y = X @ torch.randn(n, dtype=torch.float64, generator=generator)
    noise = torch.randn(m, dtype=torch.float64, generator=generator)
    return X, y + 0.1 * noise * y.norm() / noise.norm()


def in_turn(first: Callable[[], Any], second: Callable[[], Any], repeats: int) -> tuple[float, float, Any, Any]:
    """Return the median seconds of both, and what they returned last; the first run of each is not counted."""
    seconds: tuple[list[float], list[float]] = ([], [])
    results = [first(), second() if repeats > 1 else None]
    for _ in range(repeats):
        for i, action in enumerate((first, second)):
            begun = time.perf_counter()
            results[i] = action()
            seconds[i].append(time.perf_counter() - begun)
    return statistics.median(seconds[0]), statistics.median(seconds[1]), *results


def crlin_enclosure(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    import crlin

    try:
        low, high = crlin.lstsq(X.numpy(), y.numpy())
    except crlin.NotVerified:
        low, high = crlin.lstsq(X.numpy(), y.numpy(), mode="extended")
    return torch.from_numpy(low), torch.from_numpy(high)


def against_crlin(m: int, n: int, condition: float, repeats: int) -> dict[str, Any]:
    X, y = problem(m, n, condition)
    ours, theirs, sol, (low, high) = in_turn(lambda: cf.solve(X, y, digits=15), lambda: crlin_enclosure(X, y), repeats)
    size = sol.weight.abs().max()
    # One unit of the last place on either side covers the rounding of weight itself.
    overlap = bool(((sol.weight[0] >= low) & (sol.weight[0] <= high)).all())
    return {
        "rows": m,
        "columns": n,
        "closedform_seconds": ours,
        "crlin_seconds": theirs,
        "times_faster": theirs / ours,
        "closedform_width": float(2 * sol.weight_bound.max() / size),
        "crlin_width": float((high - low).max() / size),
        "weight_inside_crlin_enclosure": overlap,
    }


def against_plain(m: int, n: int, condition: float, repeats: int) -> dict[str, Any]:
    X, y = problem(m, n, condition)
    plain, digits, _, sol = in_turn(lambda: cf.solve(X, y), lambda: cf.solve(X, y, digits=14), repeats)
    return {
        "rows": m,
        "columns": n,
        "condition": condition,
        "plain_seconds": plain,
        "digits_seconds": digits,
        "ratio": digits / plain,
        "passes": sol.attempts[-1].passes,
        "bound": sol.certificate.forward_bound,
        "outcome": sol.outcome.name,
    }


def main() -> None:
    torch.set_num_threads(ARGUMENTS.threads)
    results: dict[str, list[dict[str, Any]]] = {"crlin": [], "plain": []}
    print(f"{ARGUMENTS.threads} threads, torch {torch.__version__}")
    for m, n, condition, repeats in AGAINST_CRLIN[: 2 if ARGUMENTS.quick else 3]:
        row = against_crlin(m, n, condition, repeats)
        results["crlin"].append(row)
        print(
            f"{m:>7} x {n:<4} closedform {row['closedform_seconds']:.4f} s, crlin {row['crlin_seconds']:.3f} s: "
            f"{row['times_faster']:.0f} times as fast; "
            f"widths {row['closedform_width']:.1e} and {row['crlin_width']:.1e}; "
            f"inside crlin's enclosure: {row['weight_inside_crlin_enclosure']}",
            flush=True,
        )
    for m, n, condition, repeats in AGAINST_PLAIN[: 1 if ARGUMENTS.quick else 4]:
        row = against_plain(m, n, condition, repeats)
        results["plain"].append(row)
        missed = " MISSED" if m == 100_000 and row["ratio"] > PROMISED else ""
        print(
            f"{m:>7} x {n:<4} condition {condition:.0e}: plain {row['plain_seconds']:.3f} s, digits=14 "
            f"{row['digits_seconds']:.3f} s: {row['ratio']:.1f} times{missed}; {row['passes']} passes, "
            f"bound {row['bound']:.1e}, {row['outcome']}",
            flush=True,
        )
    if ARGUMENTS.json is not None:
        write(ARGUMENTS.json, results, ARGUMENTS.threads)


if __name__ == "__main__":
    main()

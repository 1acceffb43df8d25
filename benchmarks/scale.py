"""Rows anywhere: what batches, processes and Dask cost beside one process that holds all rows; ratios of one run.

    python benchmarks/scale.py                       # small, a minute
    python benchmarks/scale.py --rows 400000 --columns 500 --ranks 1 2 4 8
    python benchmarks/scale.py --only dask --rows 10000000 --columns 100

Every part is measured as seconds by the wall, the best of ``--repeats``; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import write

import closedform as cf

#: What each rank does: makes its own part of the rows, and tells the seconds, the bytes and the weights.
RANK = """
import json, sys, time, torch, closedform as cf
from torch import distributed
rank, size, file, rows, columns, repeats = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:7])
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=size)
X, Y = torch.load(file + ".pt", mmap=True)
mine = slice(rows * rank // size, rows * (rank + 1) // size)
X, Y = X[mine].clone(), Y[mine].clone()
best = float("inf")
for _ in range(repeats):
    distributed.barrier()
    begun = time.perf_counter()
    sol = cf.solve(X, Y, bias=True, group=distributed.group.WORLD, progress=False)
    best = min(best, time.perf_counter() - begun)
print(json.dumps({"seconds": best, "weight": sol.weight.tolist(), "note": sol.notes[-1],
                  "certified": sol.certificate.accepted}))
"""


def best_of(repeats: int, act: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of the fastest run, and what it returned."""
    seconds, value = float("inf"), None
    for _ in range(repeats):
        begun = time.perf_counter()
        value = act()
        seconds = min(seconds, time.perf_counter() - begun)
    return seconds, value


def table(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(rows, columns, generator=generator)
    return X, X @ torch.randn(columns, 1, generator=generator) + torch.randn(rows, 1, generator=generator)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).norm() / other.double().norm())


def measure_folding(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Accumulator.fold beside a QR of the same blocks stacked under their triangle."""
    X, Y = (part.double() for part in table(arguments.rows, arguments.columns))
    found = []
    for batch in (32, 1024, 16384):

        def fold(batch: int = batch) -> cf.Accumulator:
            acc = cf.Accumulator(arguments.columns)
            for x, y in zip(X.split(batch), Y.split(batch), strict=True):
                acc.fold(x, y)
            assert acc.triangle.rows == arguments.rows
            return acc

        def stacked(batch: int = batch) -> torch.Tensor:
            R = X.new_zeros(0, arguments.columns)
            for x in X.split(max(batch, 4 * arguments.columns)):
                R = torch.linalg.qr(torch.cat([R, x]), mode="r").R
            return R

        ours, acc = best_of(arguments.repeats, fold)
        theirs, _ = best_of(arguments.repeats, stacked)
        error = relative(acc.solve().weight, cf.solve(X, Y, progress=False).weight)
        what = f"Accumulator.fold, batches of {batch}"
        found.append({"what": what, "seconds": ours, "beside": "QR of stacked blocks", "ratio": ours / theirs})
        found[-1]["error"] = error
    return found


def measure_processes(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Ranks of one thread beside one process with all threads."""
    X, Y = table(arguments.rows, arguments.columns)
    alone, whole = best_of(arguments.repeats, lambda: cf.solve(X, Y, bias=True, progress=False))
    found = [{"what": f"one process, {torch.get_num_threads()} threads", "seconds": alone}]
    for size in arguments.ranks:
        with tempfile.TemporaryDirectory() as folder:
            store = str(Path(folder, "store"))
            torch.save((X, Y), store + ".pt")
            shape = [str(number) for number in (size, store, arguments.rows, arguments.columns, arguments.repeats)]
            command = [sys.executable, "-W", "ignore", "-c", RANK]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            ranks = [
                subprocess.Popen([*command, str(rank), *shape], stdout=subprocess.PIPE, text=True, env=environment)
                for rank in range(size)
            ]
            told = [json.loads(rank.communicate()[0]) for rank in ranks]
        assert all(one["weight"] == told[0]["weight"] for one in told), "the ranks have different bits"
        assert all(one["certified"] for one in told)
        seconds = max(one["seconds"] for one in told)
        weight = torch.tensor(told[0]["weight"], dtype=torch.float64)
        line = {"what": f"{size} ranks, 1 thread each", "seconds": seconds, "beside": "one process"}
        found.append(
            {**line, "ratio": seconds / alone, "error": relative(weight, whole.weight), "note": told[0]["note"]}
        )
    return found


def measure_dask(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Two workers of one thread on rows that are made lazily, beside Dask's own least squares."""
    import dask.array as da
    import distributed

    blocks = (max(arguments.rows // 100, 1000), arguments.columns)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        X = da.random.default_rng(0).standard_normal(
            (arguments.rows, arguments.columns), chunks=blocks, dtype="float32"
        )
        Y = X.sum(axis=1, dtype="float32")
        ours, sol = best_of(1, lambda: cf.solve(X, Y, progress=False))
        assert sol.certificate.accepted
        peaks = client.run(lambda: __import__("resource").getrusage(__import__("resource").RUSAGE_SELF).ru_maxrss)
        theirs, _ = best_of(1, lambda: da.linalg.lstsq(X, Y)[0].compute())
    line = {"what": "Dask, 2 workers", "seconds": ours, "beside": "dask.array.linalg.lstsq", "ratio": ours / theirs}
    return [{**line, "note": f"peak memory of a worker {max(peaks.values()) / 1e3:.0f} MB"}]


PARTS = {"fold": measure_folding, "processes": measure_processes, "dask": measure_dask}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=tuple(PARTS), nargs="+", default=list(PARTS))
    parser.add_argument("--json", help="where to write the figures")
    arguments = parser.parse_args()

    lines = []
    for name in arguments.only:
        for line in PARTS[name](arguments):
            lines.append(line)
            beside = f"{line['ratio']:6.2f} of {line['beside']}" if "ratio" in line else ""
            error = f", weights apart {line['error']:.1e}" if "error" in line else ""
            print(f"{line['what']:<36} {line['seconds']:8.3f} s  {beside}{error}  {line.get('note', '')}", flush=True)
    if arguments.json:
        write(arguments.json, lines, torch.get_num_threads())


if __name__ == "__main__":
    main()

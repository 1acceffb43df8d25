"""Rows anywhere: what batches, processes and Dask cost beside one process that holds all rows; ratios of one run.

    python benchmarks/scale.py                       # small, a minute
    python benchmarks/scale.py --full                # as root: every part at its own size, some twenty minutes
    python benchmarks/scale.py --rows 400000 --columns 500 --ranks 1 2 4 8
    python benchmarks/scale.py --only dask --rows 10000000 --columns 100
    python benchmarks/scale.py --only file --gigabytes 4.5 --memory 1.5        # as root: in a cgroup of its own
    python benchmarks/scale.py --only network --ranks 2 4 --megabits 100       # as root: a host for each rank

Every part is measured as seconds by the wall, the best of ``--repeats``; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import read, write

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

#: What reads a file in a group of processes that has less memory than it: seconds, bytes and what it held at most.
FROM_FILE = """
import json, sys, time, closedform as cf
from pathlib import Path
def read():
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])
def peak():
    # Not what getrusage tells: that begins with what the process held that made this one.
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
cf.solve([[1.0], [2.0]], [1.0, 2.0], progress=False)
before, begun = read(), time.perf_counter()
sol = cf.solve(sys.argv[1], "-1", bias=True, progress=False)
seconds = time.perf_counter() - begun
print(json.dumps({"seconds": seconds, "bytes": read() - before, "certified": sol.certificate.accepted,
                  "method": sol.attempts[-1].method, "peak": peak()}))
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


def measure_long(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Batches of 32 rows beside one solve of all, and a thousand states merged in three orders."""
    X, Y = table(arguments.rows, arguments.columns)
    whole = cf.solve(X.double(), Y.double(), progress=False).weight  # in float64, as that of the states
    acc = cf.Accumulator(arguments.columns)
    begun = time.perf_counter()
    for x, y in zip(X.split(32), Y.split(32), strict=True):
        acc.fold(x, y)
    seconds = time.perf_counter() - begun
    line = {"what": f"{arguments.rows:,} rows in batches of 32", "seconds": seconds}
    found = [{**line, "error": relative(acc.solve().weight, whole), "note": "apart from one solve of all rows"}]

    parts = list(zip(X.tensor_split(1000), Y.tensor_split(1000), strict=True))

    def merged(order: Sequence[int]) -> torch.Tensor:
        acc = cf.Accumulator(arguments.columns)
        for index in order:
            part = cf.Accumulator(arguments.columns)
            part.fold(*parts[index])
            acc.merge(part)
        assert len(acc) == arguments.rows
        return acc.solve().weight

    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(1)).tolist()
    seconds, forward = best_of(1, lambda: merged(range(1000)))
    for order, named in ((range(999, -1, -1), "last first"), (shuffled, "shuffled")):
        apart = relative(merged(order), forward)
        found.append({"what": f"1,000 states merged, {named}", "seconds": seconds, "error": apart})
        found[-1]["note"] = "apart from first first"
    return found


def measure_processes(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Ranks of one thread beside one process with all threads."""
    X, Y = table(arguments.rows, arguments.columns)
    alone, whole = best_of(arguments.repeats, lambda: cf.solve(X, Y, bias=True, progress=False))
    found = [{"what": f"one process, {torch.get_num_threads()} threads", "seconds": alone}]
    for size in arguments.ranks:
        seconds, told = run_ranks(arguments, X, Y, [[]] * size)
        weight = torch.tensor(told[0]["weight"], dtype=torch.float64)
        line = {"what": f"{size} ranks, 1 thread each", "seconds": seconds, "beside": "one process"}
        found.append(
            {**line, "ratio": seconds / alone, "error": relative(weight, whole.weight), "note": told[0]["note"]}
        )
    return found


def run_ranks(
    arguments: argparse.Namespace, X: torch.Tensor, Y: torch.Tensor, within: Sequence[list[str]], **environment: str
) -> tuple[float, list[dict[str, Any]]]:
    """Run a rank for each prefix of a command, and return the seconds of the slowest and what all told."""
    size = len(within)
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder, "store"))
        torch.save((X, Y), store + ".pt")
        shape = [str(number) for number in (size, store, arguments.rows, arguments.columns, arguments.repeats)]
        ranks = [
            subprocess.Popen(
                [*prefix, sys.executable, "-W", "ignore", "-c", RANK, str(rank), *shape],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            )
            for rank, prefix in enumerate(within)
        ]
        told = [json.loads(rank.communicate()[0]) for rank in ranks]
    assert all(one["weight"] == told[0]["weight"] for one in told), "the ranks have different bits"
    assert all(one["certified"] for one in told)
    return max(one["seconds"] for one in told), told


def measure_network(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Ranks that are hosts: each in a network namespace of its own, on a bridge, its link held to so many megabits.

    What the links carried is read off their counters, and stands beside what the plan says was sent.
    """
    X, Y = table(arguments.rows, arguments.columns)
    found = []
    for size, megabits in itertools.product(arguments.ranks, (0, arguments.megabits)):
        with hosts(size, megabits) as names:
            prefixes = [["ip", "netns", "exec", name] for name in names]
            before = sum(map(carried, names))
            seconds, told = run_ranks(arguments, X, Y, prefixes, GLOO_SOCKET_IFNAME="eth0")
            bytes_sent = sum(map(carried, names)) - before
        link = f"{megabits} Mbit/s links" if megabits else "unlimited links"
        line = {"what": f"{size} hosts, {link}", "seconds": seconds, "note": told[0]["note"]}
        found.append({**line, "carried": bytes_sent / arguments.repeats})
        found[-1]["note"] += f"; links carried {bytes_sent / arguments.repeats / 1e6:.2f} MB a fit, frames and all"
    return found


@contextmanager
def hosts(size: int, megabits: int) -> Iterator[list[str]]:
    """Make network namespaces on one bridge, and remove them again."""

    def act(*command: str) -> None:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")

    stem = f"cf{os.getpid() % 10_000}"
    names = [f"{stem}n{rank}" for rank in range(size)]
    made = []
    try:
        act("ip", "link", "add", stem, "type", "bridge")
        made.append(("link", "del", stem))
        act("ip", "link", "set", stem, "up")
        for rank, name in enumerate(names):
            act("ip", "netns", "add", name)
            made.append(("netns", "del", name))
            act("ip", "link", "add", f"{name}o", "type", "veth", "peer", "name", "eth0", "netns", name)
            # A namespace that is removed takes its links with it some time later.
            made.append(("link", "del", f"{name}o"))
            act("ip", "link", "set", f"{name}o", "master", stem, "up")
            inside = ("ip", "netns", "exec", name)
            act(*inside, "ip", "address", "add", f"10.213.{os.getpid() % 200}.{rank + 1}/24", "dev", "eth0")
            act(*inside, "ip", "link", "set", "eth0", "up")
            act(*inside, "ip", "link", "set", "lo", "up")
            if megabits:
                rate = ("rate", f"{megabits}mbit", "burst", "64kb", "latency", "100ms")
                act(*inside, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *rate)
        yield names
    finally:
        for command in reversed(made):
            subprocess.run(["ip", *command], check=False, capture_output=True)


def carried(name: str) -> int:
    """Return the bytes that a host has sent."""
    counter = "/sys/class/net/eth0/statistics/tx_bytes"
    told = subprocess.run(["ip", "netns", "exec", name, "cat", counter], check=True, capture_output=True, text=True)
    return int(told.stdout)


def measure_file(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A file in a group of processes that has a third of its size as memory, beside what ``cat`` reads there."""
    rows = int(arguments.gigabytes * 1e9 / 4 / (arguments.columns + 1))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, memory_group(arguments.memory) as within:
        path = Path(folder, "table.npy")
        write_table(path, rows, arguments.columns)
        size = path.stat().st_size
        forget(path)
        begun = time.perf_counter()
        subprocess.run([*within, "cat", str(path)], stdout=subprocess.DEVNULL, check=True)
        speed = size / (time.perf_counter() - begun)
        forget(path)
        command = [*within, sys.executable, "-W", "ignore", "-c", FROM_FILE, str(path)]
        told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert told["certified"]
    ours = told["bytes"] / told["seconds"]
    line = {
        "what": f"{size / 1e9:.1f} GB in {arguments.memory} GB",
        "seconds": told["seconds"],
        "beside": "cat's speed",
    }
    note = (
        f"{told['method']}, {told['bytes'] / size:.1f} passes at {ours / 1e9:.2f} GB/s, cat {speed / 1e9:.2f}; "
        f"the process held at most {told['peak'] / 1e9:.2f} GB"
    )
    return [{**line, "ratio": ours / speed, "note": note}]


def write_table(path: Path, rows: int, columns: int) -> None:
    """Write features and a target in the last column, float32, a block at a time."""
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(100_000, columns, generator=generator)
    weight = torch.randn(columns, 1, generator=generator)
    Y = block @ weight + 0.1 * torch.randn(100_000, 1, generator=generator)
    block = torch.cat([block, Y], 1).numpy()
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, columns + 1)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, len(block)):
            file.write(block[: rows - start].tobytes())


def forget(path: Path) -> None:
    """See that a file is read from the disk the next time."""
    os.sync()
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def memory_group(gigabytes: float) -> Iterator[list[str]]:
    """Make a cgroup (version 1 or 2) of so much memory, for the commands that the prefix begins, and remove it again.

    Raises:
        SystemExit: none can be made here.
    """
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root, f"closedform-scale-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if not (group / limit).exists():
                continue
            (group / limit).write_text(str(int(gigabytes * 1e9)))
            yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
        finally:
            group.rmdir()
        return
    raise SystemExit(
        "a cgroup with a limit of memory cannot be made here: run as root, or in a container of that size."
    )


def measure_dask(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Two workers of one thread on rows that are made lazily, beside Dask's own least squares."""
    import dask.array as da
    import distributed

    blocks = (max(arguments.rows // 100, 1000), arguments.columns)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        few = da.random.default_rng(1).standard_normal((2 * arguments.columns, arguments.columns), dtype="float32")
        for warm in (lambda x, y: cf.solve(x, y, progress=False), lambda x, y: da.linalg.lstsq(x, y)[0].compute()):
            warm(few, few.sum(axis=1))  # What is imported and measured once in a process is no part of either.
        X = da.random.default_rng(0).standard_normal(
            (arguments.rows, arguments.columns), chunks=blocks, dtype="float32"
        )
        Y = X.sum(axis=1, dtype="float32")
        ours, sol = best_of(1, lambda: cf.solve(X, Y, progress=False))
        assert sol.certificate.accepted
        peaks = client.run(peak_memory)
        theirs, _ = best_of(1, lambda: da.linalg.lstsq(X, Y)[0].compute())
        glm = fit_glm(X, Y)
        hard = measure_hard(arguments.columns)
    line = {"what": "Dask, 2 workers", "seconds": ours, "beside": "dask.array.linalg.lstsq", "ratio": ours / theirs}
    found = [{**line, "note": f"peak memory of a worker {max(peaks.values()) / 1e6:.0f} MB"}]
    if glm is not None:
        seconds, weights = glm
        apart = relative(torch.as_tensor(weights), sol.weight[0])
        note = f"its weights are {apart:.1e} from the minimiser"
        found.append({**line, "beside": "dask_ml.LinearRegression", "ratio": ours / seconds, "note": note})
    return [*found, hard]


def measure_hard(columns: int) -> dict[str, Any]:
    """Columns of condition number 1e8, float64, whose weights are known: how far everybody is from them.

    ``X = Q diag(s) P'`` with Q and P orthogonal, and targets that X gives exactly up to rounding.
    """
    import dask.array as da

    generator = torch.Generator().manual_seed(1)
    Q, P = (torch.linalg.qr(torch.randn(n, columns, generator=generator).double()).Q for n in (40 * columns, columns))
    X = Q * torch.logspace(0, -8, columns, dtype=torch.float64) @ P.T
    truth = P.sum(1)
    Y = X @ truth
    lazy = (da.from_array(X.numpy(), chunks=(10 * columns, columns)), da.from_array(Y.numpy(), chunks=10 * columns))
    seconds, sol = best_of(1, lambda: cf.solve(*lazy, progress=False))
    said = [f"ours {relative(sol.weight[0], truth):.1e} ({sol.attempts[-1].method}, {sol.outcome.name.lower()})"]
    theirs = torch.as_tensor(da.linalg.lstsq(*lazy)[0].compute())
    said.append(f"dask.array.linalg.lstsq {relative(theirs, truth):.1e}")
    glm = fit_glm(*lazy)
    if glm is not None:
        said.append(f"dask_ml {relative(torch.as_tensor(glm[1]), truth):.1e}")
    return {"what": "Dask, condition 1e8", "seconds": seconds, "note": "weights off by: " + ", ".join(said)}


def peak_memory() -> int:
    """Return the most bytes that this process has held.

    Not what getrusage tells: that begins with what the process held that made this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def fit_glm(X: Any, Y: Any) -> tuple[float, Any] | None:
    """Return the seconds and the weights of dask_ml's iterative fit; None where ``pip install dask-ml`` was not run."""
    try:
        from dask_ml.linear_model import LinearRegression
    except ImportError:
        print("dask_ml is not installed (pip install dask-ml), so that it is not measured", file=sys.stderr)
        return None
    model = LinearRegression(fit_intercept=False)
    seconds, _ = best_of(1, lambda: model.fit(X, Y))
    return seconds, model.coef_


PARTS = {
    "fold": measure_folding,
    "long": measure_long,
    "processes": measure_processes,
    "dask": measure_dask,
    "file": measure_file,
    "network": measure_network,
}
#: Those that need no more than this machine and its user.
USUAL = ["fold", "processes", "dask"]
#: The sizes that each part is held to.
FULL: dict[str, dict[str, Any]] = {
    "fold": {"rows": 400_000, "columns": 50},
    "long": {"rows": 10_000_000, "columns": 50},
    "processes": {"rows": 400_000, "columns": 500, "ranks": [1, 2, 4, 8]},
    "dask": {"rows": 10_000_000, "columns": 100},
    "file": {"gigabytes": 4.5, "memory": 1.5, "columns": 99},
    "network": {"rows": 400_000, "columns": 500, "ranks": [2, 4]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=tuple(PARTS), nargs="+")
    parser.add_argument("--full", action="store_true", help="each part at the size it is held to")
    parser.add_argument("--gigabytes", type=float, default=0.3, help="of the file")
    parser.add_argument("--memory", type=float, default=0.6, help="gigabytes that its reader may have")
    parser.add_argument("--megabits", type=int, default=100, help="a second of each host's link")
    parser.add_argument("--folder", help="where the file is written, and removed again")
    parser.add_argument("--json", help="where to write the figures")
    arguments = parser.parse_args()
    # Whoever is told to stop leaves no hosts, no group and no file behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    lines = []
    for name in arguments.only or (FULL if arguments.full else USUAL):
        sizes = FULL[name] if arguments.full else {}
        for line in PARTS[name](argparse.Namespace(**{**vars(arguments), **sizes})):
            lines.append(line)
            beside = f"{line['ratio']:6.2f} of {line['beside']}" if "ratio" in line else ""
            error = f", weights apart {line['error']:.1e}" if "error" in line else ""
            print(f"{line['what']:<36} {line['seconds']:8.3f} s  {beside}{error}  {line.get('note', '')}", flush=True)
    if arguments.json:
        # Parts that are measured again take the place of what was measured before.
        measured = {line["what"] for line in lines}
        kept = [line for line in read(arguments.json) if line["what"] not in measured]
        write(arguments.json, [*kept, *lines], torch.get_num_threads(), resumed=bool(kept))


if __name__ == "__main__":
    main()

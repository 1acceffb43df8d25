"""Measure closedform beside its peers: ``make bench``, ``make bench-quick``, or ``python benchmarks/speed.py --help``.

All methods get the same data and the same threads, each in a process of its own, and run in turn, so that noise hits
all alike. Printed are median seconds, the ratio to closedform, peak memory above the data, and the backward and weight
error against a minimiser that is known exactly (a fast wrong answer is shown as wrong); then the bars.
docs/benchmarks.md says how to read it.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["limit_threads", "main"]

#: Under three minutes, with room for what is under way when they are over.
_QUICK_SECONDS = 150.0


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller problems, under three minutes")
    parser.add_argument("--only", default="", metavar="TEXT", help="problems whose name holds this text")
    parser.add_argument("--skip", default=None, metavar="TEXT", help="leave out problems whose name holds this text")
    parser.add_argument("--peers", default="", metavar="A,B", help="only these peers, by their names in the tables")
    parser.add_argument("--no-sweeps", action="store_true", help="no times against rows, columns and targets")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of every library")
    parser.add_argument("--repeats", type=int, default=None, help="counted runs of each method; 5, with --quick 3")
    parser.add_argument(
        "--pause", type=float, default=None, help="seconds of rest before a run; 0.1, with --quick 0.06"
    )
    parser.add_argument("--busy", action="store_true", help="keep one other process busy on each core meanwhile")
    parser.add_argument("--one-process", action="store_true", help="all methods in one process, to see what that does")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--resume", action="store_true", help="go on where the run that wrote the JSON file stopped")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write an HTML page with plots")
    arguments = parser.parse_args(words)
    if arguments.resume and arguments.json is None:
        parser.error("--resume reads the file that --json names")
    return arguments


def limit_threads(threads: int) -> None:
    """Hold every library to the same threads, before any is loaded; the children inherit it."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        # XLA and Dask ask how many cores they may use, and nothing else.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def main(words: list[str] | None = None) -> None:
    """Run the benchmark that the command line asks for."""
    arguments = _arguments(words)
    limit_threads(arguments.threads)
    # A run that is stopped goes through its exits too, which delete the data and end the children.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Only now may the libraries be loaded.
    import torch
    from bars import bars
    from measure import Settings, measure, measure_sweep, missing
    from problems import FULL, QUICK, SWEEPS, SWEEPS_QUICK
    from record import circumstances
    from show import show, show_bars, show_sweep

    torch.set_num_threads(arguments.threads)
    settings = Settings(
        threads=arguments.threads,
        repeats=arguments.repeats or (3 if arguments.quick else 5),
        pause=arguments.pause if arguments.pause is not None else (0.06 if arguments.quick else 0.1),
        one_process=arguments.one_process,
        only=tuple(name.strip() for name in arguments.peers.split(",") if name.strip()),
        patience=10.0 if arguments.quick else 60.0,
        budget=5.0 if arguments.quick else 300.0,
    )
    record: dict[str, Any] = {
        **circumstances(arguments.threads),
        "quick": arguments.quick,
        "pause": settings.pause,
        "one_process": settings.one_process,
        "busy": arguments.busy,
        "missing": missing(),
        "seconds": 0.0,
        "left_out": [],
        "results": [],
        "sweeps": [],
        "bars": [],
    }
    if arguments.resume and arguments.json.exists():
        stopped = json.loads(arguments.json.read_text(encoding="utf-8"))
        changed = [
            name for name in ("processor", "threads", "quick", "busy") if stopped.get(name, False) != record[name]
        ]
        if changed:
            sys.exit(f"{arguments.json} was measured with another {' and '.join(changed)}; nothing is measured.")
        record |= {name: stopped[name] for name in ("date", "results", "sweeps", "seconds")}
    done = {result["problem"] for result in record["results"]} | {sweep["along"] for sweep in record["sweeps"]}
    print(f"{record['processor']}, {settings.threads} threads, {settings.repeats} runs of each method")
    for peer in record["missing"]:
        print(f"not installed: {peer['peer']:<26} {peer['install']}")
    if arguments.busy:
        _keep_busy(arguments.threads)
    begun = time.perf_counter()
    counted_from = begun - record["seconds"]
    for problem in QUICK if arguments.quick else FULL:
        if arguments.only not in problem.name or (arguments.skip and arguments.skip in problem.name):
            continue
        if problem.name in done:
            continue
        if arguments.quick and time.perf_counter() - begun > _QUICK_SECONDS:
            record["left_out"].append(problem.name)
            continue
        record["results"].append(measure(problem, settings))
        show(record["results"][-1])
        _write(arguments, record, counted_from)
    for sweep in () if arguments.no_sweeps else (SWEEPS_QUICK if arguments.quick else SWEEPS):
        if sweep.along in done:
            continue
        if arguments.quick and time.perf_counter() - begun > _QUICK_SECONDS:
            record["left_out"].append(f"seconds against {sweep.along}")
            continue
        record["sweeps"].append(measure_sweep(sweep, settings))
        show_sweep(record["sweeps"][-1])
        _write(arguments, record, counted_from)
    show_bars(bars(record["results"], record["sweeps"]))
    for name in record["left_out"]:
        print(f"left out, because the time was over: {name}")
    _write(arguments, record, counted_from)
    print(f"\n{record['seconds']:.0f} s in all")


def _keep_busy(processes: int) -> None:
    """Start processes that never rest, each on a core of its own, and end them with this one."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for number in range(processes):
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        atexit.register(busy.kill)
        if cores:
            os.sched_setaffinity(busy.pid, {cores[number % len(cores)]})


def _write(arguments: argparse.Namespace, record: dict[str, Any], begun: float) -> None:
    """Write what there is so far, so that a long run that is stopped leaves its results."""
    from bars import bars

    record["seconds"] = time.perf_counter() - begun
    record["bars"] = bars(record["results"], record["sweeps"])
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(record, indent=1), encoding="utf-8")
    if arguments.page:
        from page import write_page

        arguments.page.parent.mkdir(parents=True, exist_ok=True)
        write_page(arguments.page, record)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Which way of timing is fair: ``python benchmarks/fairness.py``.

Thread pools spin for a while after a call: libgomp under torch, OpenBLAS under NumPy and another OpenBLAS under SciPy,
XLA. The first table says how long: the processor time that a process takes after a call has returned, while it is asked
nothing. The second says what that costs the method that runs next, in one process and in two, after pauses of several
lengths, relative to a process of its own after the longest pause; a way of timing is fair when it gives everybody that
time. All ways are gone through in every round. The fastest runs stand beside the medians: other load reaches them less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

from record import write
from speed import limit_threads

__all__ = ["main"]

_PAUSES = (0.0, 0.03, 0.1, 0.3)
_SPINS = (0.01, 0.03, 0.1, 0.3)
_SPINNERS = ("torch gels", "numpy lstsq", "scipy gelsy", "closedform", "sklearn LinearRegression", "lineax QR")
_METHODS = ("torch gels", "numpy lstsq", "scipy gelsy", "closedform")


def main(words: list[str] | None = None) -> None:
    """Print each method's median under each way of timing, relative to the median alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--json", help="where to write the first table")
    arguments = parser.parse_args(words)
    limit_threads(arguments.threads)
    from measure import Field, Settings, open_field
    from peers import PEERS
    from problems import Problem
    from worker import Run

    def run(field: Field, method: str, pause: float) -> float:
        result = field.run(method, "all", 60.0, pause)
        if not isinstance(result, Run):
            raise RuntimeError(f"no time for {method}: {result.reason}")
        return result.seconds

    problem = {"all": Problem(arguments.rows, arguments.columns, 1)}
    print(f"{problem['all'].name}, {arguments.threads} threads, {arguments.repeats} rounds")
    print("\nprocessor time after a call, ms " + "".join(f"{f'in {1e3 * spin:.0f} ms':>12}" for spin in _SPINS))
    found_of = []
    with open_field(problem, Settings(arguments.threads, 1, 0.0)) as (field, _):
        for method in (peer.name for peer in PEERS if peer.installed and peer.name in _SPINNERS):
            spent: dict[float, list[float]] = {spin: [] for spin in _SPINS}
            for _ in range(arguments.repeats):
                for spin, found in spent.items():
                    run(field, method, max(_PAUSES))
                    before = field.worker(method).cpu_seconds()
                    time.sleep(spin)
                    found.append(field.worker(method).cpu_seconds() - before)
            told = [{"within": spin, "seconds": statistics.median(found)} for spin, found in spent.items()]
            print(f"{method:<32}" + "".join(f"{1e3 * each['seconds']:>12.1f}" for each in told))
            found_of.append({"method": method, "spent": told})
    if arguments.json:
        write(arguments.json, found_of, arguments.threads)

    seconds: dict[tuple[str, float, str], list[float]] = {}
    with (
        open_field(problem, Settings(arguments.threads, 1, 0.0, one_process=True)) as (one, _),
        open_field(problem, Settings(arguments.threads, 1, 0.0)) as (own, _),
    ):
        for turn in range(arguments.repeats + 1):
            for place, field in (("one process", one), ("own processes", own)):
                for pause in _PAUSES:
                    for method in _METHODS:
                        taken = run(field, method, pause)
                        if turn:
                            seconds.setdefault((place, pause, method), []).append(taken)
    for title, middle in (("median", statistics.median), ("fastest", min)):
        reference = {name: middle(seconds["own processes", max(_PAUSES), name]) for name in _METHODS}
        print(f"\n{title + ', relative to the last line':<30}" + "".join(f"{name:>14}" for name in _METHODS))
        for place in ("one process", "own processes"):
            for pause in _PAUSES:
                row = [middle(seconds[place, pause, name]) / reference[name] for name in _METHODS]
                print(f"{f'{place}, pause {1e3 * pause:.0f} ms':<30}" + "".join(f"{value:>14.2f}" for value in row))
        print(f"{'':<30}" + "".join(f"{1e3 * reference[name]:>11.2f} ms" for name in _METHODS))


if __name__ == "__main__":
    main(sys.argv[1:])

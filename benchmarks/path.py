"""Ridge paths beside their peers, in one run: ``python benchmarks/path.py [--scale S] [--only NAME ...] [--json F]``.

Each row is one sweep of strengths: the median seconds of ``closedform.ridge_path`` and of the peer, their ratio and the
bar it is held against, the peak memory that ours adds beside the data, and what the process held at most. Then how the
seconds of a sweep grow with its rows, columns, strengths and targets: the exponent between two sizes. Each row is
measured in a process of its own. ``--scale`` takes that part of the rows.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write

import closedform as cf
from closedform.rows import OneHotRows

REPEATS = 3


def seconds_of(action: Callable[[], Any], repeats: int) -> float:
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        action()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def row(name: str, ours: Callable[[], Any], peer: Callable[[], Any], bar: float, data: int) -> dict[str, Any]:
    before = peak()
    mine = seconds_of(ours, REPEATS)
    held = peak()
    theirs = seconds_of(peer, 1)
    found = {"name": name, "seconds": mine, "peer": theirs, "ratio": theirs / mine, "bar": bar}
    return {**found, "memory": (held - before) / data, "held": held}


def targets(scale: float, strengths: int, peer: str) -> dict[str, Any]:
    m = int(20_000 * scale)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((m, 500)) * np.logspace(0, -3, 500)
    Y = X @ rng.standard_normal((500, 10)) + rng.standard_normal((m, 10))
    l2 = np.logspace(-3, 5, strengths)
    if peer == "sklearn":
        from sklearn.linear_model import RidgeCV

        other: Callable[[], Any] = RidgeCV(l2, fit_intercept=False, alpha_per_target=True).fit
        bar = 30.0
    else:
        from himalaya.ridge import RidgeCV as Himalaya

        other, bar = Himalaya(alphas=l2, cv=5).fit, 3.0
    name = f"{m} x 500, 10 targets, {strengths} strengths beside {peer}"
    return row(name, lambda: cf.ridge_path(X, Y, l2=l2), lambda: other(X, Y), bar, X.nbytes)


def kernel(scale: float) -> dict[str, Any]:
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV

    m = int(5000 * scale)
    rng = np.random.default_rng(1)
    points = rng.standard_normal((m, 5))
    squares = (points**2).sum(1)
    K = np.exp(-(squares[:, None] + squares - 2 * points @ points.T) / 10)
    y, l2 = np.sin(points[:, 0]) + 0.1 * rng.standard_normal(m), np.logspace(-6, 2, 20)
    search = GridSearchCV(KernelRidge(kernel="precomputed"), {"alpha": l2}, cv=5)
    ours = lambda: cf.ridge_path((K + K.T) / 2, y, l2=l2, kernel=True)  # noqa: E731
    return row(f"{m} x {m} kernel, 20 strengths", ours, lambda: search.fit(K, y), 8.0, K.nbytes)


def classes(scale: float) -> dict[str, Any]:
    from sklearn.linear_model import RidgeClassifierCV

    m = int(100_000 * scale)
    rng = np.random.default_rng(2)
    X, labels, l2 = rng.standard_normal((m, 768)), rng.integers(0, 1000, m), np.logspace(-2, 4, 20)
    coded = OneHotRows(torch.from_numpy(labels), 1000, torch.float64, off=-1.0)
    ours = lambda: cf.ridge_path(X, coded, l2=l2, bias=True, per_target=False)  # noqa: E731
    peer = RidgeClassifierCV(l2)
    return row(f"{m} x 768, 1000 classes, 20 strengths", ours, lambda: peer.fit(X, labels), 20.0, X.nbytes)


def growth(scale: float) -> list[dict[str, Any]]:
    """Return how the seconds of a sweep grow with each of its sizes, between the last two of three doublings."""
    least = {"rows": int(20_000 * scale), "columns": 100, "strengths": 20, "targets": 10}
    found = []
    for name, size in least.items():
        sizes = [size * 2**step for step in range(4)]
        seconds = []
        for larger in sizes:
            shape = {**least, name: larger}
            rng = np.random.default_rng(3)
            X = rng.standard_normal((shape["rows"], shape["columns"]))
            Y = X[:, :1] + rng.standard_normal((shape["rows"], shape["targets"]))
            l2 = np.logspace(-3, 5, shape["strengths"])
            seconds.append(seconds_of(lambda X=X, Y=Y, l2=l2: cf.ridge_path(X, Y, l2=l2), REPEATS))  # type: ignore[misc]
        exponents = [float(np.log2(after / before)) for before, after in itertools.pairwise(seconds)]
        beside = ", ".join(f"{value} {other}" for other, value in least.items() if other != name)
        found.append({"name": f"{name}, with {beside}", "sizes": sizes, "times": seconds, "exponents": exponents})
    return found


def apart(job: Callable[[], Any]) -> Any:
    """Return what a job returns in a process of its own, whose peak of memory is not that of the jobs before.

    Raises:
        SystemExit: it died.
    """
    context = multiprocessing.get_context("fork")  # this process never computes, so that it has no threads to lose
    answers, answer = context.Pipe(duplex=False)
    process = context.Process(target=lambda: answer.send(job()))
    process.start()
    answer.close()
    try:
        return answers.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"a measurement ended with status {process.exitcode}; was memory short?") from None
    finally:
        process.join()


def told(found: dict[str, Any]) -> str:
    if "exponents" in found:
        seconds = ", ".join(
            f"{size}: {value:.3g} s" for size, value in zip(found["sizes"], found["times"], strict=True)
        )
        return f"growth with {found['name']}: {seconds}; exponents " + ", ".join(f"{e:.2f}" for e in found["exponents"])
    return (
        f"{found['name']}: {found['seconds']:.3g} s, peer {found['peer']:.3g} s, {found['ratio']:.1f} times "
        f"(bar {found['bar']:.0f}), {found['memory']:.1f} times the data in memory, {found['held'] / 1e9:.2f} GB in all"
    )


def main() -> None:
    jobs: dict[str, Callable[[float], Any]] = {
        "sklearn": lambda scale: targets(scale, 100, "sklearn"),
        "himalaya": lambda scale: targets(scale, 10, "himalaya"),
        "kernel": kernel,
        "classes": classes,
        "growth": growth,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", choices=tuple(jobs), nargs="+", default=list(jobs))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    rows = []
    for name in options.only:
        found = apart(lambda name=name: jobs[name](options.scale))  # type: ignore[misc]
        for line in found if isinstance(found, list) else [found]:
            rows.append(line)
            print(told(line), flush=True)
        # What was measured is kept, whatever becomes of the rest.
        if options.json:
            write(options.json, rows, torch.get_num_threads())


if __name__ == "__main__":
    main()

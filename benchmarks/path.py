"""Ridge paths beside their peers, in one run: ``python benchmarks/path.py [--scale S] [--json F]``.

Each row is one sweep of strengths: the median seconds of ``closedform.ridge_path`` and of the peer, their ratio and the
bar it is held against, and the peak memory that ours adds. ``--scale`` takes that part of the rows.
"""

from __future__ import annotations

import argparse
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
    added = peak() - before
    theirs = seconds_of(peer, 1)
    return {"name": name, "seconds": mine, "peer": theirs, "ratio": theirs / mine, "bar": bar, "memory": added / data}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    jobs: tuple[Callable[[], dict[str, Any]], ...] = (
        lambda: targets(options.scale, 100, "sklearn"),
        lambda: targets(options.scale, 10, "himalaya"),
        lambda: kernel(options.scale),
        lambda: classes(options.scale),
    )
    rows = []
    for job in jobs:
        found = job()
        rows.append(found)
        print(
            f"{found['name']}: {found['seconds']:.3g} s, peer {found['peer']:.3g} s, {found['ratio']:.1f} times "
            f"(bar {found['bar']:.0f}), {found['memory']:.1f} times the data in memory"
        )
    if options.json:
        write(options.json, rows, torch.get_num_threads())


if __name__ == "__main__":
    main()

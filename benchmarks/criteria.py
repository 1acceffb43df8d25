"""Convex criteria beside peers: ``python benchmarks/criteria.py [--scale S] [--repeats N] [--json F] [--resume]``.

Each row is one problem: the seconds of ``closedform.solve`` and its proven relative gap; and for each peer its seconds,
how many times as long it takes, and by how much (relative) its objective is above ours. ``--scale 0.05`` tries it; all
of it takes an hour, most of it in HiGHS, so what was measured is kept and ``--resume`` goes on with the rest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import read, write
from sklearn import linear_model
from torch import Tensor, nn

import closedform as cf
from closedform.estimators import HuberRegressor

Peer = tuple[str, Callable[[], Tensor]]


@dataclass(frozen=True)
class Problem:
    """One row: how it is solved here, what every answer is judged by, and the peers."""

    name: str
    fit: Callable[[], tuple[Tensor, Any]]  # the answer and its certificate
    objective: Callable[[Tensor], float]
    peers: list[Peer]


def convex(name: str, criterion: nn.Module, X: Tensor, y: Tensor, l2: float, peers: list[Peer]) -> Problem:
    """Weights that minimise ``criterion(X w) + l2/2 |w|^2``."""

    def fit() -> tuple[Tensor, Any]:
        solution = cf.solve(X, y, l2=l2, criterion=criterion, progress=False)
        return solution.weight, solution.certificate

    def objective(weight: Tensor) -> float:
        outputs = X @ weight.T
        loss = criterion(outputs[:, 0] if outputs.shape[1] == 1 else outputs, y)
        return float(loss) + l2 / 2 * float(weight.square().sum())

    return Problem(name, fit, objective, peers)


def huber_with_scale(X: Tensor, y: Tensor) -> Problem:
    """Weights and the scale of the residuals at once, as scikit-learn's HuberRegressor has them."""
    options = {"alpha": 0.0, "fit_intercept": False, "tol": 1e-10, "max_iter": 10_000}

    def found(model: Any) -> Tensor:
        return torch.cat([torch.as_tensor(model.coef_), torch.tensor([model.scale_], dtype=X.dtype)])

    def fit() -> tuple[Tensor, Any]:
        model = HuberRegressor(**options).fit(X.numpy(), y.numpy())
        return found(model), model.certificate_

    def objective(answer: Tensor) -> float:
        scale = answer[-1]
        z = (y - X @ answer[:-1]) / scale
        loss = 2 * nn.functional.huber_loss(z, torch.zeros_like(z), delta=1.35, reduction="sum")
        return float(scale * (len(y) + loss))

    theirs = linear_model.HuberRegressor(**options)
    return Problem(
        "Huber with its scale",
        fit,
        objective,
        [("HuberRegressor 1e-10", lambda: found(theirs.fit(X.numpy(), y.numpy())))],
    )


def features(rows: int, columns: int, decades: float = 0.0) -> Tensor:
    """Gaussian rows whose covariance has a spectrum over so many decades, turned at random."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    X *= torch.logspace(0, -decades, columns, dtype=torch.float64)
    return X @ torch.linalg.qr(torch.randn(columns, columns, dtype=torch.float64, generator=generator))[0]


def labels(X: Tensor, classes: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    W = torch.randn(X.shape[1], classes, dtype=torch.float64, generator=generator) * 2 / X.shape[1] ** 0.5
    noise = torch.rand(X.shape[0], classes, dtype=torch.float64, generator=generator).clamp(1e-9, 1 - 1e-9)
    # Of few rows some classes have none, and peers know only those that occur.
    return torch.unique((X @ W - (-noise.log()).log()).argmax(1), return_inverse=True)[1]


def logistic(solver: str, tol: float, X: Tensor, y: Tensor) -> Peer:
    model = linear_model.LogisticRegression(C=1.0, solver=solver, tol=tol, max_iter=10000, fit_intercept=False)
    return f"{solver} {tol:g}", lambda: torch.tensor(model.fit(X.numpy(), y.numpy()).coef_)


def lbfgs_of_torch(criterion: nn.Module, X: Tensor, y: Tensor, outputs: int, l2: float) -> Peer:
    """torch's LBFGS with strong Wolfe, from zero, until its own tolerances or the line search end it."""

    def fit() -> Tensor:
        weight = torch.zeros(outputs, X.shape[1], dtype=X.dtype, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight], max_iter=5000, tolerance_grad=0.0, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            Z = X @ weight.T
            loss = criterion(Z[:, 0] if outputs == 1 else Z, y) + l2 / 2 * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return weight.detach()

    return "torch LBFGS, strong Wolfe", fit


def quantile_regression(quantile: float, X: Tensor, y: Tensor) -> list[Peer]:
    """statsmodels' QuantReg, where it is installed."""
    try:
        from statsmodels.regression.quantile_regression import QuantReg
    except ImportError:
        return []
    model = QuantReg(y.numpy(), X.numpy())
    return [("QuantReg", lambda: torch.tensor(model.fit(q=quantile, max_iter=10000, p_tol=1e-12).params)[None])]


def problems(scale: float) -> Iterator[Problem]:
    """Yield the rows, in the order of the page."""

    def rows(count: int) -> int:
        return max(400, int(count * scale))

    for classes, tols in ((10, (1e-4, 1e-8)), (100, (1e-8,))):
        X = features(rows(20_000), 384, 2.0) * 10
        y = labels(X, classes)
        peers = [logistic("lbfgs", tol, X, y) for tol in tols]
        if classes == 10:
            peers.append(logistic("newton-cholesky", 1e-8, X, y))
            peers.append(lbfgs_of_torch(nn.CrossEntropyLoss(reduction="sum"), X, y, classes, 1.0))
        yield convex(f"cross-entropy, {classes} classes", nn.CrossEntropyLoss(reduction="sum"), X, y, 1.0, peers)
    X = features(rows(100_000), 100)
    y = labels(X, 2)
    peers = [logistic("newton-cholesky", 1e-10, X, y), logistic("lbfgs", 1e-10, X, y)]
    yield convex("binary", nn.BCEWithLogitsLoss(reduction="sum"), X, y.double(), 1.0, peers)
    counts = torch.poisson(torch.exp(0.3 * X[:, 0]), generator=torch.Generator().manual_seed(2))
    model = linear_model.PoissonRegressor(
        alpha=1.0 / X.shape[0], solver="newton-cholesky", tol=1e-10, fit_intercept=False
    )
    peer: Peer = ("newton-cholesky", lambda: torch.tensor(model.fit(X.numpy(), counts.numpy()).coef_)[None])
    yield convex("Poisson", nn.PoissonNLLLoss(reduction="sum"), X, counts, 1.0, [peer])
    for size, columns in ((20_000, 50), (100_000, 20)):
        X = features(rows(size), columns)
        noise = torch.from_numpy(np.random.default_rng(0).standard_t(2, X.shape[0]))
        y = X.sum(1) + noise
        for quantile in (0.1, 0.5, 0.9):
            model = linear_model.QuantileRegressor(quantile=quantile, alpha=0.0, fit_intercept=False, solver="highs")
            peer = ("HiGHS", lambda model=model, X=X, y=y: torch.tensor(model.fit(X.numpy(), y.numpy()).coef_)[None])
            criterion = cf.losses.PinballLoss(quantile, reduction="sum")
            peers = [peer, *quantile_regression(quantile, X, y)]
            yield convex(f"quantile {quantile}, {size}x{columns}", criterion, X, y, 0.0, peers)
        yield convex(f"L1, {size}x{columns}", nn.L1Loss(reduction="sum"), X, y, 0.0, quantile_regression(0.5, X, y))
    X = features(rows(100_000), 100)
    y = X.sum(1) + torch.from_numpy(np.random.default_rng(0).standard_t(2, X.shape[0]))
    huber = nn.HuberLoss(reduction="sum")
    yield convex("Huber", huber, X, y, 0.0, [lbfgs_of_torch(huber, X, y, 1, 0.0)])
    yield huber_with_scale(X, y)


def median_seconds(action: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    seconds, result = [], None
    for _ in range(repeats):
        begun = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds), result


def main() -> int:
    """Run, print a line a peer, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the rows")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="problems whose name holds this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", action="store_true", help="leave out what the file of --json holds")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")

    records: list[dict[str, Any]] = read(arguments.json) if arguments.resume else []
    measured = {record["problem"] for record in records}
    for problem in problems(arguments.scale):
        if arguments.only not in problem.name or problem.name in measured:
            continue

        seconds, (answer, certificate) = median_seconds(problem.fit, arguments.repeats)
        best = problem.objective(answer)
        gap = certificate.relative_gap
        print(f"{problem.name}: {seconds:.3f} s, proven relative gap {gap:.1e}", end=", ")
        print("certified" if certificate.accepted else "NOT certified", flush=True)
        record: dict[str, Any] = {"problem": problem.name, "seconds": seconds, "relative_gap": gap, "peers": []}
        for peer, fit in problem.peers:
            theirs, weight = median_seconds(fit, 1)
            above = (problem.objective(weight) - best) / abs(best)
            print(f"    {peer}: {theirs:.3f} s, {theirs / seconds:.1f} times as long, {above:.1e} above", flush=True)
            record["peers"].append({"name": peer, "seconds": theirs, "ratio": theirs / seconds, "above": above})
        records.append(record)
        if arguments.json:
            write(arguments.json, records, torch.get_num_threads(), resumed=arguments.resume)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the certificate says of rank, conditions and digits, held against exact arithmetic on random problems.

``python benchmarks/ranks.py KIND --count N --seed S`` tries N problems of a kind: ``wide``, ``weighted``, ``ridge``,
``bias`` (small, every number taken as a rational one), or ``rank``: matrices of 10 to 10^7 rows and condition up to
1e15, determined or not by construction. Each line that it prints is a claim that does not hold; the last one counts.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import closedform as cf

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from oracle import minimise

__all__ = ["KINDS", "claims_that_fail", "matrices", "problems"]

Array = NDArray[np.float64]
KINDS = ("wide", "weighted", "ridge", "bias")
#: By what factor a claimed condition number may differ from the exact one.
_FACTOR = 3.0
#: Condition numbers beyond which a dense decomposition in double precision does not tell them.
_MOST = 1e12


def problems(kind: str, count: int, seed: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the arguments of ``cf.solve`` for random problems of a kind, from the one with number ``first`` on.

    Rows, columns and weights are spread over orders, targets stand on offsets, and shapes run from 1 x 1.
    """
    for i in range(first, first + count):
        rng = np.random.default_rng([seed, i])
        n = int(rng.integers(1, 9))
        m = int(rng.integers(1, n + 1)) if kind == "wide" else int(rng.integers(1, 14))
        X = rng.standard_normal((m, n))
        X *= 10.0 ** rng.uniform(-1, 0, (m, 1)) ** rng.integers(1, 3) if rng.random() < 0.5 else 1.0
        if rng.random() < 0.4:
            X *= 10.0 ** rng.uniform(-rng.integers(1, 7), 0, (m, 1))
        if rng.random() < 0.4:
            X *= 10.0 ** rng.uniform(-rng.integers(1, 5), 0, n)
        if rng.random() < 0.3:
            X += 10.0 ** rng.uniform(-1, 4)
        Y = rng.standard_normal((m, int(rng.integers(1, 3)))) * 10.0 ** rng.uniform(-3, 3)
        if rng.random() < 0.4:
            Y += 10.0 ** rng.uniform(-2, 5)
        options: dict[str, Any] = {"bias": kind == "bias" or bool(rng.random() < 0.4)}
        if kind == "weighted":
            weight = 10.0 ** rng.uniform(-rng.integers(1, 9), 0, m)
            weight[rng.random(m) < 0.1 * (m > 2)] = 0.0
            options["sample_weight"] = weight if weight.any() else np.ones(m)
        if kind == "ridge":
            options["l2"] = 10.0 ** rng.uniform(-8, 4)
        yield {"X": X, "Y": Y, **options}


def claims_that_fail(arguments: dict[str, Any]) -> list[str]:
    """Return what the certificate of ``cf.solve(**arguments)`` says that exact arithmetic does not bear out."""
    sol = cf.solve(**arguments, progress=False)
    exact = minimise(**arguments)
    found, true = _stacked(sol.weight.numpy(), sol.bias), _stacked(exact.weight, exact.bias)
    certificate, failures = sol.certificate, []
    if not sol.outcome.certified:
        failures.append(f"outcome {sol.outcome.name}")
    if certificate.rank != exact.rank and not certificate.ambiguous_rank:
        failures.append(f"rank {certificate.rank} for {exact.rank}")

    A = _design(**arguments)
    norms = np.linalg.norm(A, axis=0)
    scale = 2.0 ** -np.where(norms > 0, np.frexp(norms)[1], 0)
    size, first = np.where(norms > 0, 1 / scale, 0.0)[:, None], int(arguments["bias"])
    error = max(_relative(found, true, size), _relative(found[first:], true[first:], size[first:]))
    # The weights are rounded once more when they are brought to the units of the data.
    if certificate.forward_error < 1 and error > 2 * certificate.forward_error:
        failures.append(f"forward error {certificate.forward_error:.1e} for {error:.1e}")
    if certificate.rank == exact.rank:
        for name, matrix in (("scaled_condition", A * scale), ("condition", A)):
            values = np.linalg.svd(matrix, compute_uv=False)[: exact.rank]
            claim, condition = getattr(certificate, name), values[0] / values[-1] if values.size else 1.0
            if condition < _MOST and not condition / _FACTOR <= claim <= condition * _FACTOR:
                failures.append(f"{name} {claim:.2e} for {condition:.2e}")
    return failures


def _stacked(weight: Array, bias: Any) -> Array:
    parts = [weight] if bias is None else [np.asarray(bias)[:, None], weight]
    return np.concatenate(parts, axis=1).T


def _relative(found: Array, true: Array, size: Array) -> float:
    """The largest error of a target relative to its weights, in scaled columns."""
    lengths = np.linalg.norm(true * size, axis=0)
    errors = np.linalg.norm((found - true) * size, axis=0)
    return float(np.max(np.where(lengths > 0, errors / np.where(lengths > 0, lengths, 1.0), 0.0), initial=0.0))


def _design(X: Array, Y: Array, *, bias: bool, l2: float = 0.0, sample_weight: Array | None = None) -> Array:
    A = np.column_stack([np.ones(len(X)), X]) if bias else X
    if sample_weight is not None:
        A = (A * np.sqrt(sample_weight)[:, None])[sample_weight > 0]
    return np.concatenate([A, l2**0.5 * np.eye(A.shape[1])[int(bias) :]]) if l2 else A


def matrices(count: int, seed: int, most_entries: float) -> Iterator[tuple[Array, bool, str]]:
    """Yield tall matrices, whether their columns are independent as exact numbers, and what they are.

    Dependent ones are of integers, so that one column is exactly a combination of others. Independent ones have a
    condition number of up to 1e15, from a spectrum that falls off or has a gap, or are two columns that nearly agree;
    the smallest singular value of the rounded matrix is at least that of the wanted one less the rounding, which is
    random.
    """
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        n = int(rng.choice([2, 3, 5, 10, 20, 50]))
        m = int(max(n, 10 ** rng.uniform(1, min(7, np.log10(most_entries / n)))))
        kind = rng.choice(["gap", "falling", "offset", "dependent", "sum"])
        condition = 10 ** rng.uniform(6, 15)
        if kind in ("gap", "falling"):
            Q, V = np.linalg.qr(rng.standard_normal((m, n)))[0], np.linalg.qr(rng.standard_normal((n, n)))[0]
            values = np.r_[np.ones(n - 1), 1 / condition] if kind == "gap" else np.geomspace(1, 1 / condition, n)
            yield Q * values @ V.T, True, f"{kind} {m} x {n}, condition {condition:.0e}"
        elif kind == "offset":
            # Integers far from zero: their differences are exact.
            X = rng.integers(0, 1000, (m, n)) + np.round(condition / 10 ** rng.uniform(0, 3))
            yield (
                np.column_stack([np.ones(m), X])[:, :n],
                True,
                f"offset {m} x {n}, condition {condition:.0e}",
            )
        else:
            B = rng.integers(-99, 100, (m, n)).astype(np.float64) + (500 if rng.random() < 0.5 else 0)
            mix = rng.integers(-2, 3, n - 1).astype(np.float64)
            mix[0] = 1.0
            B[:, -1] = B[:, :-1] @ mix if kind == "dependent" else B[:, :-1].sum(1)
            yield B * 2.0 ** rng.integers(-20, 20, n), False, f"{kind} {m} x {n}"


def rank_that_fails(X: Array, determined: bool) -> str:
    """Return what ``cf.solve`` says wrongly of whether the answer is determined, or nothing."""
    rng = np.random.default_rng(len(X))
    outcome = cf.solve(X, rng.standard_normal(len(X)), progress=False).outcome
    right = outcome is cf.Outcome.CERTIFIED if determined else outcome is not cf.Outcome.CERTIFIED
    return "" if right else outcome.name


def main() -> None:
    """Try problems of one kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=[*KINDS, "rank"])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--entries", type=float, default=3e7, help="of the largest matrix, for rank")
    options = parser.parse_args()
    failed: Counter[str] = Counter()
    if options.kind == "rank":
        for X, determined, name in matrices(options.count, options.seed, options.entries):
            if wrong := rank_that_fails(X, determined):
                failed[wrong] += 1
                print(f"{name}: {'determined' if determined else 'not determined'}, called {wrong}", flush=True)
    else:
        for i, arguments in enumerate(problems(options.kind, options.count, options.seed)):
            for failure in claims_that_fail(arguments):
                failed[failure.split()[0]] += 1
                print(f"{i}: {arguments['X'].shape}: {failure}", flush=True)
    print(f"{options.count} of kind {options.kind}: {dict(failed) or 'all hold'}")


if __name__ == "__main__":
    main()

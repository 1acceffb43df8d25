"""Least-squares problems of every temper, each from its definition and small enough to be solved in rational numbers.

Sources: Higham, "Accuracy and Stability of Numerical Algorithms" (2002, chapter 28): Hilbert, Pascal, Lotkin, Kahan,
Vandermonde, Laeuchli; Golub, Klema and Stewart (1976); Hansen, "Regularization Tools" (1994): shaw, baart, phillips,
heat; spectra as in LAPACK's test generators (geometric, arithmetic, cliff).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import comb
from typing import Any

import numpy as np

from cases import Array, Problem, hilbert, orthonormal

__all__ = ["Problem", "problems"]


def lotkin(n: int) -> Array:
    A = hilbert(n)
    A[0] = 1.0
    return A


def pascal(n: int) -> Array:
    return np.array([[float(comb(i + j, i)) for j in range(n)] for i in range(n)])


def vandermonde(n: int) -> Array:
    return np.vander(np.arange(2 * n) / (2 * n - 1), n, increasing=True)


def monomials(n: int) -> Array:
    """Powers of whole numbers, as in Wampler's problems: columns over many orders of magnitude."""
    return np.vander(np.arange(2.0 * n), n, increasing=True)


def kahan(n: int) -> Array:
    sine, cosine = np.sin(1.2), np.cos(1.2)
    return np.diag(sine ** np.arange(n)) @ (np.eye(n) - cosine * np.triu(np.ones((n, n)), 1))


def golub_klema_stewart(n: int) -> Array:
    return (np.eye(n) - np.triu(np.ones((n, n)), 1)) / np.sqrt(np.arange(1.0, n + 1))


def laeuchli(n: int) -> Array:
    """``[1 ... 1; mu I]`` with mu down to 1e-13, where the Gram matrix is singular in double precision."""
    return np.vstack([np.ones(n), 10.0 ** (3 - n) * np.eye(n)])


def shaw(n: int) -> Array:
    """Image restoration: ``((cos s + cos t) sin u / u)**2`` with ``u = pi (sin s + sin t)``, midpoint rule."""
    s = -np.pi / 2 + (np.arange(n) + 0.5) * np.pi / n
    u = np.sin(s)[:, None] + np.sin(s)
    return np.asarray(np.pi / n * ((np.cos(s)[:, None] + np.cos(s)) * np.sinc(u)) ** 2)


def baart(n: int) -> Array:
    """``exp(s cos t)`` on ``[0, pi/2] x [0, pi]``, midpoint rule."""
    s, t = ((np.arange(n) + 0.5) * end / n for end in (np.pi / 2, np.pi))
    return np.asarray(np.pi / n * np.exp(s[:, None] * np.cos(t)))


def phillips(n: int) -> Array:
    """``1 + cos(pi (s - t) / 3)`` where ``|s - t| < 3``, else 0, on ``[-6, 6]``, midpoint rule."""
    s = -6 + (np.arange(n) + 0.5) * 12 / n
    d = s[:, None] - s
    return np.asarray(12 / n * np.where(np.abs(d) < 3, 1 + np.cos(np.pi * d / 3), 0.0))


def heat(n: int) -> Array:
    """Inverse heat equation: the Volterra kernel ``t**-1.5 exp(-1 / (4 t)) / (2 sqrt(pi))``, midpoint rule."""
    t = (np.arange(n) + 0.5) / n
    kernel = t**-1.5 * np.exp(-1 / (4 * t)) / (2 * np.sqrt(np.pi)) / n
    return np.array([[kernel[i - j] if i >= j else 0.0 for j in range(n)] for i in range(n)])


def deconv(n: int) -> Array:
    """Deconvolution with a Gaussian."""
    i = np.arange(n)
    return np.asarray(np.exp(-(((i[:, None] - i) / 2.0) ** 2)))


NAMED: dict[str, tuple[Callable[[int], Array], tuple[int, ...]]] = {
    "hilbert": (hilbert, (3, 5, 7, 9, 10, 11, 12, 14)),
    "lotkin": (lotkin, (3, 5, 7, 9, 10, 11, 13)),
    "pascal": (pascal, (3, 5, 8, 10, 12)),
    "vandermonde": (vandermonde, (3, 6, 9, 12, 14)),
    "monomials": (monomials, (3, 5, 7, 9, 11)),
    "kahan": (kahan, (4, 8, 14)),
    "golub-klema-stewart": (golub_klema_stewart, (4, 8, 14)),
    "laeuchli": (laeuchli, (4, 7, 10, 13, 16)),
    "shaw": (shaw, (4, 6, 8, 10, 12)),
    "baart": (baart, (3, 5, 6, 8, 10)),
    "phillips": (phillips, (4, 8, 12)),
    "heat": (heat, (4, 8, 12)),
    "deconv": (deconv, (4, 8, 12)),
}


def spectrum(kind: str, n: int, condition: float) -> Array:
    """Singular values from 1 to ``1 / condition``."""
    if kind == "geometric":
        return np.geomspace(1.0, 1.0 / condition, n)
    if kind == "arithmetic":
        return np.linspace(1.0, 1.0 / condition, n)
    return np.concatenate([np.ones(n - 1), [1.0 / condition]])


def with_spectrum(values: Array, m: int, rng: np.random.Generator) -> Array:
    """Return a matrix ``(m, n)`` of random singular vectors with the singular values given."""
    n = len(values)
    return (orthonormal(rng, m, n) * values) @ orthonormal(rng, n, n).T


def targets(A: Array, residual: float, k: int, rng: np.random.Generator) -> Array:
    """Targets with weights of order 1 and a residual of the size given, relative to them."""
    B = A @ rng.standard_normal((A.shape[1], k))
    noise = rng.standard_normal(B.shape)
    return np.asarray(B + residual * np.linalg.norm(B) / np.linalg.norm(noise) * noise)


def problem(name: str, X: Array, Y: Array, options: Mapping[str, Any] | None = None) -> Problem:
    """Name a problem."""
    return Problem(X, Y, name=name, **options or {})


def problems() -> Iterator[Problem]:
    """Walk the gallery; it is the same every time."""
    rng = np.random.default_rng(6)
    for name, (build, sizes) in NAMED.items():
        for n in sizes:
            A = build(n)
            yield problem(f"{name} {n}, residual 0", A, A.sum(1))
            yield problem(f"{name} {n}, residual 1", A, targets(A, 1.0, 2, rng))
        A = build(sizes[1])
        yield problem(f"{name} bias", A, targets(A, 1e-3, 1, rng), {"bias": True})
        yield problem(f"{name} ridge", A, targets(A, 1e-3, 1, rng), {"l2": 1e-12})
        yield problem(f"{name} top rows", A[: sizes[1] - 2], targets(A[: sizes[1] - 2], 0.0, 1, rng))
    yield from _spectra(rng)
    yield from _scaled(rng)
    yield from _options(rng)


def _spectra(rng: np.random.Generator) -> Iterator[Problem]:
    for kind in ("geometric", "arithmetic", "cliff"):
        for condition in (1e1, 1e5, 1e9, 1e12, 1e13, 1e14, 1e15):
            A = with_spectrum(spectrum(kind, 8, condition), 20, rng)
            name = f"{kind} {condition:.0e}"
            for residual in (1e-10, 1.0, 1e4):
                yield problem(f"{name}, residual {residual:.0e}", A, targets(A, residual, 2, rng))
            yield problem(f"{name}, square", A[:8], targets(A[:8], 0.1, 1, rng))
            yield problem(f"{name}, wide", A.T, targets(A.T, 0.1, 2, rng))
            yield problem(f"{name}, wide, bias", A.T, targets(A.T, 0.1, 1, rng), {"bias": True})


def _scaled(rng: np.random.Generator) -> Iterator[Problem]:
    """Rows and columns over many orders of magnitude."""
    for condition in (1e2, 1e8, 1e13):
        A = with_spectrum(spectrum("geometric", 6, condition), 18, rng)
        B = targets(A, 0.1, 3, rng)
        rows = rng.permutation(np.geomspace(1e-6, 1e6, 18))
        columns = rng.permutation(np.geomspace(1e-10, 1e10, 6))
        name = f"condition {condition:.0e}"
        yield problem(f"rows over 1e12, {name}", A * rows[:, None], B * rows[:, None])
        yield problem(f"rows over 1e12, targets not, {name}", A * rows[:, None], B)
        yield problem(f"columns over 1e20, {name}", A * columns, B)
        yield problem(f"columns over 1e20, bias, {name}", A * columns, B, {"bias": True})
        yield problem(f"columns over 1e20, ridge, {name}", A * columns, B, {"l2": 1e-6})
        yield problem(f"graded, {name}", np.sort(rows)[:, None] * A * np.sort(columns), B)
        yield problem(f"both, {name}", A * rows[:, None] * columns, B * rows[:, None])
        yield problem(f"wide, equations over 1e12, {name}", A.T * np.geomspace(1e-6, 1e6, 6)[:, None], B[:6])


def _options(rng: np.random.Generator) -> Iterator[Problem]:
    for condition in (1e3, 1e10, 1e14):
        A = with_spectrum(spectrum("geometric", 6, condition), 16, rng)
        B = targets(A, 1e-2, 2, rng)
        weight = rng.random(16)
        weight[3] = 0.0
        name = f"condition {condition:.0e}"
        for l2 in (1e-25, 1e-8, 1e3):
            yield problem(f"ridge {l2:.0e}, {name}", A, B, {"l2": l2})
            options = {"l2": l2, "bias": True, "sample_weight": weight}
            yield problem(f"ridge {l2:.0e}, bias, weights, {name}", A, B, options)
            yield problem(f"wide ridge {l2:.0e}, {name}", A.T, B[:6], {"l2": l2})
        yield problem(f"bias, {name}", A + 1e6, B, {"bias": True})
        yield problem(f"weights over 1e20, {name}", A, B, {"sample_weight": np.geomspace(1e-10, 1e10, 16)})
        yield problem(f"weights and bias, {name}", A, B, {"bias": True, "sample_weight": weight})
        yield problem(f"100 targets, {name}", A[:9, :4], targets(A[:9, :4], 0.5, 100, rng))
        yield problem(f"100 targets, wide, {name}", A[:3, :5], targets(A[:3, :5], 0.5, 100, rng))
    for condition in (1e1, 1e6, 1e9):
        A = with_spectrum(spectrum("geometric", 5, condition), 14, rng).astype(np.float32)
        B = targets(A, 0.1, 2, rng).astype(np.float32)
        yield problem(f"float32, condition {condition:.0e}", A, B)
        yield problem(f"float32, bias, condition {condition:.0e}", A, B, {"bias": True})
    yield problem("one row, bias", rng.standard_normal((1, 4)), rng.standard_normal((1, 2)), {"bias": True})
    yield problem("one column", rng.standard_normal((12, 1)), rng.standard_normal((12, 3)))
    yield problem("one number", np.array([[3.0]]), np.array([1.0]))
    yield problem("targets of zeros", rng.standard_normal((9, 3)), np.zeros((9, 2)))

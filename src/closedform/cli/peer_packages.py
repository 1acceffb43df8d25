"""Least-squares solvers to stand beside closedform: whatever of them is installed."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Peer", "peers"]

Array = NDArray[np.float64]
#: Takes X ``(rows, columns)`` and y ``(rows,)``; returns weights ``(columns,)``.
Peer = Callable[[Array, Array], list[float]]


def peers() -> dict[str, Peer]:
    """Return the solvers by name, closedform first; each is given the column of ones and used with its defaults."""
    found: dict[str, Peer] = {
        "closedform digits=15": _closedform(15),
        "closedform": _closedform(None),
        "numpy lstsq": lambda X, y: np.linalg.lstsq(X, y, rcond=None)[0].tolist(),
        "scipy lstsq": _scipy("gelsd"),
        "scipy lstsq gelsy": _scipy("gelsy"),
        **{f"torch lstsq {driver}": _torch(driver) for driver in ("gels", "gelsy", "gelsd")},
        "normal equations": lambda X, y: np.linalg.solve(X.T @ X, X.T @ y).tolist(),
    }
    if find_spec("sklearn"):
        found["scikit-learn"] = _sklearn
    if find_spec("statsmodels"):
        found |= {f"statsmodels {method}": _statsmodels(method) for method in ("pinv", "qr")}
    if find_spec("crlin"):
        found["crlin"] = _crlin
    return found


def _closedform(digits: int | None) -> Peer:
    def solve(X: Array, y: Array) -> list[float]:
        from closedform.fit.orchestrator import solve as closedform_solve

        return closedform_solve(X, y, digits=digits, progress=False).weight[0].tolist()

    return solve


def _scipy(driver: str) -> Peer:
    def solve(X: Array, y: Array) -> list[float]:
        from scipy.linalg import lstsq

        return lstsq(X, y, lapack_driver=driver)[0].tolist()

    return solve


def _torch(driver: str) -> Peer:
    def solve(X: Array, y: Array) -> list[float]:
        A, b = torch.from_numpy(X), torch.from_numpy(y).unsqueeze(1)
        return torch.linalg.lstsq(A, b, driver=driver).solution[:, 0].tolist()

    return solve


def _sklearn(X: Array, y: Array) -> list[float]:
    from sklearn.linear_model import LinearRegression

    # As people use it: the constant column is left out and fit_intercept does its work.
    if bool((X[:, 0] == 1).all()) and X.shape[1] > 1:
        model = LinearRegression().fit(X[:, 1:], y)
        return [float(model.intercept_), *model.coef_.tolist()]
    return LinearRegression(fit_intercept=False).fit(X, y).coef_.tolist()


def _statsmodels(method: str) -> Peer:
    def solve(X: Array, y: Array) -> list[float]:
        from statsmodels.api import OLS

        return OLS(y, X).fit(method=method).params.tolist()

    return solve


def _crlin(X: Array, y: Array) -> list[float]:
    """Midpoint of the enclosure; the mode that goes further where the usual one gives up."""
    import crlin

    try:
        low, high = crlin.lstsq(X, y)
    except crlin.NotVerified:
        low, high = crlin.lstsq(X, y, mode="extended")
    return [float((Fraction(float(a)) + Fraction(float(b))) / 2) for a, b in zip(low, high, strict=True)]

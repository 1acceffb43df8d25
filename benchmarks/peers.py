"""What closedform is measured against: each peer takes X and Y and returns weights ``(features, targets)``.

A peer whose package is not installed is left out of the table and named under it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["PEERS", "available"]

Solver = Callable[[Tensor, Tensor], Any]


def _closedform(X: Tensor, Y: Tensor) -> Any:
    import closedform

    return closedform.solve(X, Y).weight.T


def _numpy(X: Tensor, Y: Tensor) -> Any:
    return np.linalg.lstsq(X.numpy(), Y.numpy(), rcond=None)[0]


def _scipy(driver: str) -> Solver:
    def solve(X: Tensor, Y: Tensor) -> Any:
        from scipy.linalg import lstsq

        return lstsq(X.numpy(), Y.numpy(), lapack_driver=driver)[0]

    return solve


def _torch(driver: str) -> Solver:
    return lambda X, Y: torch.linalg.lstsq(X, Y, driver=driver).solution


def _sklearn_linear(X: Tensor, Y: Tensor) -> Any:
    from sklearn.linear_model import LinearRegression

    return LinearRegression(fit_intercept=False).fit(X.numpy(), Y.numpy()).coef_.T


def _sklearn_ridge(solver: str) -> Solver:
    def solve(X: Tensor, Y: Tensor) -> Any:
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=1e-12, fit_intercept=False, solver=solver)
        return np.reshape(model.fit(X.numpy(), Y.numpy()).coef_, (Y.shape[1], X.shape[1])).T

    return solve


def _statsmodels(method: str) -> Solver:
    def solve(X: Tensor, Y: Tensor) -> Any:
        from statsmodels.regression.linear_model import OLS

        columns = [OLS(Y[:, j].numpy(), X.numpy()).fit(method=method).params for j in range(Y.shape[1])]
        return np.stack(columns, 1)

    return solve


def _lineax(X: Tensor, Y: Tensor) -> Any:
    import jax
    import lineax

    jax.config.update("jax_enable_x64", True)
    global _lineax_jit
    if _lineax_jit is None:
        _lineax_jit = jax.jit(
            lambda a, b: lineax.linear_solve(lineax.MatrixLinearOperator(a), b, solver=lineax.QR()).value
        )
    return np.stack([np.asarray(_lineax_jit(X.numpy(), Y[:, j].numpy())) for j in range(Y.shape[1])], 1)


_lineax_jit: Any = None


def _torch_linear_regression(X: Tensor, Y: Tensor) -> Any:
    from torch_linear_regression import LinearRegression

    return LinearRegression(fit_intercept=False).fit(X, Y).coef_.reshape(Y.shape[1], X.shape[1]).T


def _dask(X: Tensor, Y: Tensor) -> Any:
    import dask.array as da

    a = da.from_array(X.numpy(), chunks=(max(X.shape[1], 10_000), X.shape[1]))
    b = da.from_array(Y[:, 0].numpy(), chunks=max(X.shape[1], 10_000))
    return da.linalg.lstsq(a, b)[0].compute()[:, None]


#: name, package it needs, solver
PEERS: tuple[tuple[str, str, Solver], ...] = (
    ("closedform", "closedform", _closedform),
    ("numpy lstsq", "numpy", _numpy),
    ("scipy gelsd", "scipy", _scipy("gelsd")),
    ("scipy gelsy", "scipy", _scipy("gelsy")),
    ("torch gels", "torch", _torch("gels")),
    ("torch gelsy", "torch", _torch("gelsy")),
    ("torch gelsd", "torch", _torch("gelsd")),
    ("sklearn LinearRegression", "sklearn", _sklearn_linear),
    ("sklearn Ridge cholesky", "sklearn", _sklearn_ridge("cholesky")),
    ("sklearn Ridge svd", "sklearn", _sklearn_ridge("svd")),
    ("sklearn Ridge lsqr", "sklearn", _sklearn_ridge("lsqr")),
    ("statsmodels pinv", "statsmodels", _statsmodels("pinv")),
    ("statsmodels qr", "statsmodels", _statsmodels("qr")),
    ("lineax QR", "lineax", _lineax),
    ("torch_linear_regression", "torch_linear_regression", _torch_linear_regression),
    ("dask lstsq", "dask", _dask),
)


def available() -> tuple[list[tuple[str, Solver]], list[str]]:
    """Return the peers that are installed, and the names of those that are not."""
    here = [(name, solver) for name, package, solver in PEERS if find_spec(package) is not None]
    return here, [name for name, package, _ in PEERS if find_spec(package) is None]

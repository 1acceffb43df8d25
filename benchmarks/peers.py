"""What closedform is measured against. A new peer is one function and one line in :data:`PEERS`.

Each ``bind`` gets X ``(rows, columns)`` and Y ``(rows, targets)``, turns them into the arrays of its library, which is
not timed, and returns the call that is: it fits and returns weights ``(columns, targets)``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

__all__ = ["MODULES", "PEERS", "Peer", "absent", "explain"]

Fit = Callable[[], Any]
Bind = Callable[[Tensor, Tensor], Fit]


@final
@dataclass(frozen=True)
class Peer:
    """A solver that is measured.

    Attributes:
        name: Its name in the tables.
        package: The module it needs.
        install: What pip calls it.
        bind: Takes the data, returns the timed call.
        iterative: Whether its time grows with the entries of X and the number of steps, not with the flops of a
            factorization; a prediction from a smaller problem needs to know.
        full_rank: Whether it assumes independent columns, so that it has no answer to deficient and wide problems.
    """

    name: str
    package: str
    install: str
    bind: Bind
    iterative: bool = False
    full_rank: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can be measured here."""
        return find_spec(self.package) is not None

    @property
    def version(self) -> str:
        """The version that is installed; ``source`` where it is imported from a folder that pip does not know."""
        try:
            return version(self.install.partition("[")[0])
        except PackageNotFoundError:
            return "source"


def absent() -> list[Peer]:
    """Return the peers that are not installed."""
    return [peer for peer in PEERS if not peer.installed]


def _closedform(X: Tensor, Y: Tensor) -> Fit:
    import closedform

    return lambda: closedform.solve(X, Y, progress=False).weight.T


def explain(X: Tensor, Y: Tensor) -> Fit:
    """Bind a solve that returns, as JSON, how closedform went about it."""
    import closedform

    return lambda: json.dumps(closedform.solve(X, Y, progress=False).to_dict())


def _numpy(X: Tensor, Y: Tensor) -> Fit:
    a, b = X.numpy(), Y.numpy()
    return lambda: np.linalg.lstsq(a, b, rcond=None)[0]


def _scipy(driver: str) -> Bind:
    def bind(X: Tensor, Y: Tensor) -> Fit:
        from scipy.linalg import lstsq

        a, b = X.numpy(), Y.numpy()
        return lambda: lstsq(a, b, lapack_driver=driver)[0]

    return bind


def _torch(driver: str) -> Bind:
    return lambda X, Y: lambda: torch.linalg.lstsq(X, Y, driver=driver).solution


def _sklearn_linear(X: Tensor, Y: Tensor) -> Fit:
    from sklearn.linear_model import LinearRegression

    a, b = X.numpy(), Y.numpy()
    return lambda: LinearRegression(fit_intercept=False).fit(a, b).coef_.T


def _sklearn_ridge(solver: str) -> Bind:
    def bind(X: Tensor, Y: Tensor) -> Fit:
        from sklearn.linear_model import Ridge

        a, b = X.numpy(), Y.numpy()
        return lambda: np.atleast_2d(Ridge(alpha=0.0, fit_intercept=False, solver=solver).fit(a, b).coef_).T

    return bind


def _statsmodels(method: str) -> Bind:
    def bind(X: Tensor, Y: Tensor) -> Fit:
        from statsmodels.regression.linear_model import OLS

        a, b = X.numpy(), Y.numpy()
        return lambda: OLS(b, a).fit(method=method).params

    return bind


def _lineax(X: Tensor, Y: Tensor) -> Fit:
    import jax

    jax.config.update("jax_enable_x64", True)
    import lineax

    def solve(a: Any, b: Any) -> Any:
        operator = lineax.MatrixLinearOperator(a)
        # One factorization serves all targets: only the right-hand side is mapped over.
        return jax.vmap(lambda y: lineax.linear_solve(operator, y, solver=lineax.QR()).value, 1, 1)(b)

    a, b = jax.device_put(X.numpy()), jax.device_put(Y.numpy())
    compiled = jax.jit(solve).lower(a, b).compile()
    return lambda: np.asarray(compiled(a, b).block_until_ready())


def _rlaopt(X: Tensor, Y: Tensor) -> Fit:
    from linops import aslinearoperator
    from rlaopt.linalg import LinSys, NystromConfig
    from rlaopt.solvers import PCG, PCGConfig, PCGStoppingCriteria

    # As tight as the precision lets conjugate gradients on the normal equations be.
    stop = PCGStoppingCriteria(tol=1e-13 if X.dtype == torch.float64 else 1e-6, max_iters=1000)
    sketch = NystromConfig(rank_init=min(200, X.shape[1] // 2 or 1), base_damping=0.0, error_tolerance=1e9)

    def fit() -> Tensor:
        operator = aslinearoperator(X)
        system = LinSys(operator.T @ operator, X.T @ Y)
        usual = torch.get_default_dtype()
        torch.set_default_dtype(X.dtype)  # its power method starts from a vector of the default type
        torch.manual_seed(1)  # its sketch is random, and with some it breaks down once a target is solved
        try:
            return PCG(system, PCGConfig(preconditioner_config=sketch)).solve(stopping_criteria=stop).solution
        finally:
            torch.set_default_dtype(usual)

    return fit


def _torch_linear_regression(X: Tensor, Y: Tensor) -> Fit:
    from torch_linear_regression import OLS

    return lambda: OLS(fit_intercept=False).fit(X, Y).coef_


def _dask(X: Tensor, Y: Tensor) -> Fit:
    import dask.array as da

    # Blocks of rows, as its QR of tall matrices wants them: at least as many as columns, and two for each thread.
    rows = max(X.shape[1], -(-X.shape[0] // (2 * torch.get_num_threads())))
    a, b = da.from_array(X.numpy(), chunks=(rows, X.shape[1])), da.from_array(Y.numpy(), chunks=(rows, Y.shape[1]))
    return lambda: da.linalg.lstsq(a, b)[0].compute()


PEERS: tuple[Peer, ...] = (
    Peer("closedform", "closedform", "closedform", _closedform),
    Peer("numpy lstsq", "numpy", "numpy", _numpy),
    Peer("scipy gelsd", "scipy", "scipy", _scipy("gelsd")),
    Peer("scipy gelsy", "scipy", "scipy", _scipy("gelsy")),
    Peer("torch gels", "torch", "torch", _torch("gels"), full_rank=True),
    Peer("torch gelsy", "torch", "torch", _torch("gelsy")),
    Peer("torch gelsd", "torch", "torch", _torch("gelsd")),
    Peer("sklearn LinearRegression", "sklearn", "scikit-learn", _sklearn_linear),
    Peer("sklearn Ridge cholesky", "sklearn", "scikit-learn", _sklearn_ridge("cholesky")),
    Peer("sklearn Ridge svd", "sklearn", "scikit-learn", _sklearn_ridge("svd")),
    Peer("sklearn Ridge lsqr", "sklearn", "scikit-learn", _sklearn_ridge("lsqr"), iterative=True),
    Peer("statsmodels pinv", "statsmodels", "statsmodels", _statsmodels("pinv")),
    Peer("statsmodels qr", "statsmodels", "statsmodels", _statsmodels("qr"), full_rank=True),
    Peer("lineax QR", "lineax", "lineax", _lineax, full_rank=True),
    Peer("rlaopt Nystrom PCG", "rlaopt", "rlaopt", _rlaopt, iterative=True),
    Peer("torch_linear_regression", "torch_linear_regression", "torch_linear_regression", _torch_linear_regression,
         full_rank=True),
    Peer("dask lstsq", "dask", "dask[array]", _dask, full_rank=True),
)  # fmt: skip

#: What every worker needs, loaded once before they are forked.
MODULES = ("torch", "numpy", "scipy.linalg", "threadpoolctl", "closedform", "sklearn.linear_model",
           "statsmodels.regression.linear_model", "dask.array", "rlaopt", "torch_linear_regression")  # fmt: skip

"""The direct methods: the closed form, and scikit-learn's ``LinearRegression`` where it is installed."""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
import warnings

import torch
from torch import Tensor

from closedform.comparison.methods import MethodResult
from closedform.comparison.problem import Measurement, Problem, Weights, failure
from closedform.fit.orchestrator import solve
from closedform.fit.solution import Solution
from closedform.rows import Rows, TensorSource

__all__ = ["direct_row", "exact_solution", "fit_scikit_learn", "timed_solve"]

_SCIKIT_LEARN = "sklearn LinearRegression"
_FAST = 0.5  # seconds; a solve below this is timed three times and the median taken


def timed_solve(rows: Rows, bias: bool) -> tuple[Solution, float]:
    """Solve as the user would, and tell how long that takes."""
    seconds: list[float] = []
    while len(seconds) < 3:
        start = time.perf_counter()
        solution = solve(rows.x, rows.y, bias=bias, sample_weight=rows.weight, progress=False)
        seconds.append(time.perf_counter() - start)
        if seconds[0] > _FAST:
            break
    return solution, statistics.median(seconds)


def exact_solution(rows: Rows, bias: bool) -> Solution:
    """Solve for weights that are not rounded to a layer of lower precision than float64."""
    x, y = (TensorSource(source.read(0, rows.n_rows).double(), source.name) for source in (rows.x, rows.y))
    return solve(x, y, bias=bias, sample_weight=rows.weight, progress=False)


def direct_row(name: str, seconds: float, weights: Weights, problem: Problem, stopped_because: str) -> MethodResult:
    """Measure the weights of a direct method."""
    return _row(name, seconds, problem.measure(weights.to(torch.float64)), stopped_because)


def _row(name: str, seconds: float, measured: Measurement, stopped_because: str) -> MethodResult:
    return MethodResult(
        name=name,
        settings="",
        seconds=seconds,
        steps=None,
        train_mse=measured.train_mse,
        excess_loss=measured.excess_loss,
        weight_distance=measured.weight_distance,
        test_mae=measured.test_mae,
        stopped_because=stopped_because,
    )


def fit_scikit_learn(rows: Rows, bias: bool, problem: Problem) -> tuple[MethodResult, ...]:
    """Return the row of ``LinearRegression()`` with its defaults, or nothing without scikit-learn."""
    if importlib.util.find_spec("sklearn") is None:
        return ()
    from sklearn.linear_model import LinearRegression

    x, y = (_array(table) for table in (problem.given_X, problem.given_Y))
    weight = None if rows.weight is None else rows.weight.read(0, rows.n_rows).double().cpu().numpy()
    model = LinearRegression(fit_intercept=bias)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it would warn of is measured and stands in its row
        try:
            model.fit(x, y, sample_weight=weight)
        except Exception as error:  # whatever a peer raises is its result, not an end to the comparison
            return (_failed_row(time.perf_counter() - start, problem, failure(error)),)
    seconds = time.perf_counter() - start
    found = Weights(
        torch.as_tensor(model.coef_, dtype=torch.float64).reshape(rows.n_targets, rows.n_features),
        torch.as_tensor(model.intercept_, dtype=torch.float64).reshape(rows.n_targets) if bias else None,
    )
    tolerance = model.get_params().get("tol")
    reason = "done" if tolerance is None else f"done; singular values below its tol={tolerance:g} are cut"
    return (direct_row(_SCIKIT_LEARN, seconds, found.on(problem.X.device), problem, reason),)


def _failed_row(seconds: float, problem: Problem, reason: str) -> MethodResult:
    nothing = Measurement(math.inf, math.inf, math.inf, None if problem.test is None else math.inf)
    return _row(_SCIKIT_LEARN, seconds, nothing, reason)


def _array(table: Tensor) -> object:
    # scikit-learn works in float32 and float64; narrower types would only be widened there.
    narrow = table.dtype.is_floating_point and table.dtype not in (torch.float32, torch.float64)
    wide = table.float() if narrow else table
    return wide.cpu().numpy()

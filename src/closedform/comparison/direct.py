"""The direct methods: the closed form, scikit-learn's ``LinearRegression`` where it is installed, and kernel ridge."""

from __future__ import annotations

import importlib.util
import math
import statistics
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from closedform.comparison.methods import MethodResult
from closedform.comparison.problem import Measurement, Problem, failure
from closedform.fit.kernels import looks_like_kernel
from closedform.fit.orchestrator import solve_rows
from closedform.fit.path.entry import path_of_rows
from closedform.fit.path.search import Selection
from closedform.fit.request import Request
from closedform.fit.solution import Solution
from closedform.fit.weights import Weights
from closedform.rows import Rows, Scan
from closedform.words.errors import InputError
from closedform.words.numbers import short

__all__ = ["direct_row", "exact_solution", "fit_kernel_ridge", "fit_scikit_learn", "measured_row", "timed_solve"]

_SCIKIT_LEARN = "sklearn LinearRegression"
_KERNEL_RIDGE = "kernel ridge, l2 by leave-one-out"
#: Seconds below which a solve is timed three times and the median taken.
_FAST = 0.5


def timed_solve(rows: Rows, scanned: Scan, bias: bool, clock: Callable[[], float]) -> tuple[Solution, float]:
    """Solve as the user would, and tell how long that takes after the scan of the rows."""
    seconds: list[float] = []
    while len(seconds) < 3:
        start = clock()
        solution = _solve(rows, scanned, bias, rows.dtype)
        seconds.append(clock() - start)
        if seconds[0] > _FAST:
            break
    return solution, statistics.median(seconds)


def exact_solution(rows: Rows, scanned: Scan, bias: bool) -> Solution:
    """Solve for weights that are not rounded to a layer of lower precision than float64."""
    return _solve(rows, scanned, bias, torch.float64)


def _solve(rows: Rows, scanned: Scan, bias: bool, dtype: torch.dtype) -> Solution:
    return solve_rows(rows, Request.checked(rows, bias=bias, dtype=dtype, progress=False), scanned)


def direct_row(name: str, seconds: float, weights: Weights, problem: Problem, stopped_because: str) -> MethodResult:
    """Measure the weights of a direct method."""
    return measured_row(name, seconds, problem.measure(weights.to(torch.float64)), stopped_because)


def measured_row(name: str, seconds: float, measured: Measurement, stopped_because: str) -> MethodResult:
    """Return the row of a direct method whose weights were measured."""
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


def fit_scikit_learn(rows: Rows, bias: bool, problem: Problem, clock: Callable[[], float]) -> tuple[MethodResult, ...]:
    """Return the row of ``LinearRegression()`` with its defaults, or nothing without scikit-learn."""
    if importlib.util.find_spec("sklearn") is None:
        return ()
    from sklearn.linear_model import LinearRegression

    x, y = (_array(table) for table in (problem.given_X, problem.given_Y))
    weights = rows.gather(as_stored=True).weight
    weight = None if weights is None else weights.cpu().numpy()
    model = LinearRegression(fit_intercept=bias)
    start = clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it would warn of is measured and stands in its row
        try:
            model.fit(x, y, sample_weight=weight)
        except Exception as error:  # whatever a peer raises is its result, not an end to the comparison
            return (_failed_row(clock() - start, problem, failure(error)),)
    seconds = clock() - start
    found = Weights(
        torch.as_tensor(model.coef_, dtype=torch.float64, device="cpu").reshape(rows.n_targets, rows.n_features),
        torch.as_tensor(model.intercept_, dtype=torch.float64, device="cpu").reshape(rows.n_targets) if bias else None,
    )
    tolerance = model.get_params().get("tol")
    reason = "done" if tolerance is None else f"done; singular values below its tol={tolerance:g} are cut"
    return (direct_row(_SCIKIT_LEARN, seconds, found.to(problem.X.device), problem, reason),)


def fit_kernel_ridge(rows: Rows, bias: bool, problem: Problem, clock: Callable[[], float]) -> tuple[MethodResult, ...]:
    """Return the row of kernel ridge where the features are a kernel matrix between the rows, else nothing.

    That is what fits such a matrix with an eye to rows that are not among it.

    Args:
        rows: The rows.
        bias: Whether the layer has one, which a kernel has not.
        problem: Measures the weights.
        clock: Tells the seconds.
    """
    if bias or not looks_like_kernel(rows):
        return ()
    start = clock()
    request = Request.checked(rows, kernel=True, progress=False)
    try:
        path = path_of_rows(rows, request, None, Selection("loo", None, True, "density"))
    except InputError:  # a matrix that only looked like a kernel
        return ()
    chosen = sorted({float(value) for value in path.l2})
    strengths = short(chosen[0]) if len(chosen) == 1 else f"{short(chosen[0])} to {short(chosen[-1])}"
    found = Weights(path.solution.weight, None)
    ending = str(path.solution.outcome).split(":")[0]
    row = direct_row(_KERNEL_RIDGE, clock() - start, found.to(problem.X.device), problem, ending)
    return (replace(row, settings=f"l2 = {strengths}"),)


def _failed_row(seconds: float, problem: Problem, reason: str) -> MethodResult:
    nothing = Measurement(math.inf, math.inf, math.inf, None if problem.test is None else math.inf)
    return measured_row(_SCIKIT_LEARN, seconds, nothing, reason)


def _array(table: Tensor) -> object:
    # scikit-learn works in float32 and float64; narrower types would only be widened there.
    narrow = table.dtype.is_floating_point and table.dtype not in (torch.float32, torch.float64)
    wide = table.float() if narrow else table
    return wide.cpu().numpy()

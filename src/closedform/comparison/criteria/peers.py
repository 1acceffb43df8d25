"""scikit-learn's ``LogisticRegression``, where it minimises the same loss."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable

import torch
from torch import nn

from closedform.comparison.criteria.problem import CriterionProblem
from closedform.comparison.direct import measured_row
from closedform.comparison.methods import MethodResult
from closedform.fit.convex import ConvexRequest
from closedform.fit.convex.solving import targets_of
from closedform.fit.weights import Weights
from closedform.rows import Rows

__all__ = ["fit_peer"]


def fit_peer(
    rows: Rows, request: ConvexRequest, problem: CriterionProblem, clock: Callable[[], float]
) -> tuple[MethodResult, ...]:
    """Return the row of ``LogisticRegression()`` at its default tolerance, or nothing where its loss is another.

    Args:
        rows: The rows.
        request: The criterion and the ridge strength.
        problem: Measures the weights.
        clock: Tells the seconds.
    """
    module = request.criterion
    same = type(module) is nn.CrossEntropyLoss and targets_of(rows).integers and problem.n_outputs > 2
    plain = same and module.weight is None and not module.label_smoothing and rows.dtype.itemsize >= 4
    labels = rows.gather(as_stored=True).Y[:, 0].to(torch.int64) if plain else None
    if labels is None or len(torch.unique(labels)) != problem.n_outputs or importlib.util.find_spec("sklearn") is None:
        return ()
    from sklearn.linear_model import LogisticRegression

    strength = 1 / request.l2 if request.l2 else math.inf
    model = LogisticRegression(C=strength, fit_intercept=request.bias)
    weight = None if problem.row_weight is None else problem.row_weight.cpu().numpy()
    start = clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it would warn of is measured and stands in its row
        model.fit(problem.X.cpu().numpy(), labels.cpu().numpy(), sample_weight=weight)
    seconds = clock() - start
    found = Weights(
        torch.as_tensor(model.coef_, dtype=torch.float64, device=rows.device),
        torch.as_tensor(model.intercept_, dtype=torch.float64, device=rows.device) if request.bias else None,
    )
    reason = f"gradient below its tol={model.tol:g}, or max_iter={model.max_iter}"
    return (measured_row("sklearn LogisticRegression", seconds, problem.measure(found), reason),)

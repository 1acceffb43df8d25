"""The door for ``torch.nn.Linear``: put a layer at the minimiser, or say how far it is from it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final, overload

import torch
from torch import nn

from closedform.engine.tracing import untraced
from closedform.files import open_problem
from closedform.fit.class_labels import labels_hint
from closedform.fit.convex import ConvexRequest, ConvexSolution, excess_over, solve_criterion
from closedform.fit.layers import check_finite, check_linear, check_writable, own_output_note, write
from closedform.fit.orchestrator import solve_rows
from closedform.fit.request import MethodName, Request, Watcher, check_ridge
from closedform.fit.sharing import agreed, agreed_request, open_rows
from closedform.fit.solution import Solution
from closedform.fit.weights import Weights
from closedform.losses import sums_squares
from closedform.rows import Rows, as_rows, scan
from closedform.rows.columns import Columns
from closedform.rows.folds import ResidualSums
from closedform.words.errors import InputError
from closedform.words.metrics import flat_floats
from closedform.words.numbers import plural

__all__ = ["Gap", "fit_", "gap"]


@overload
def fit_(
    layer: nn.Linear,
    X: Any,
    Y: Any = ...,
    *,
    l2: Any = ...,
    sample_weight: Any = ...,
    nearest_to: nn.Linear | None = ...,
    digits: int | None = ...,
    criterion: None = ...,
    fields: Mapping[str, Any] | None = ...,
    group: Any = ...,
    method: MethodName = ...,
    rcond: float | None = ...,
    progress: Watcher = ...,
) -> Solution: ...


@overload
def fit_(
    layer: nn.Linear,
    X: Any,
    Y: Any = ...,
    *,
    l2: Any = ...,
    sample_weight: Any = ...,
    nearest_to: nn.Linear | None = ...,
    digits: int | None = ...,
    criterion: nn.Module | str,
    fields: Mapping[str, Any] | None = ...,
    group: Any = ...,
    method: MethodName = ...,
    rcond: float | None = ...,
    progress: Watcher = ...,
) -> Solution | ConvexSolution: ...


@untraced
def fit_(
    layer: nn.Linear,
    X: Any,
    Y: Any = None,
    *,
    l2: Any = 0.0,
    sample_weight: Any = None,
    nearest_to: nn.Linear | None = None,
    digits: int | None = None,
    criterion: nn.Module | str | None = None,
    fields: Mapping[str, Any] | None = None,
    group: Any = None,
    method: MethodName = "auto",
    rcond: float | None = None,
    progress: Watcher = None,
) -> Solution | ConvexSolution:
    """Put ``layer`` at the exact minimiser, in place, and return the solution with its certificate.

    The layer is written only after everything succeeded; whatever is raised leaves it bit for bit as it was. Its bias
    is fitted if it has one. Weights are written in the layer's dtype and on its device, also where the outcome
    is *not certified*: look at ``.outcome``.

    Args:
        layer: ``torch.nn.Linear`` (in_features = features, out_features = targets).
        X: Features, ``(rows, features)`` or ``(..., features)``, as for :func:`closedform.solve`.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``.
        l2: Ridge strength, as for :func:`closedform.solve`.
        sample_weight: One weight for each row, not negative, ``(rows,)``.
        nearest_to: A layer; where the minimiser is not unique the one nearest to its weights and bias is written.
        digits: Ask for this many correct decimal digits in every weight, 1 to 15.
        criterion: A convex loss, as for :func:`closedform.solve`. Where no minimiser exists the layer stays as it is.
        fields: Which part of a batch is what, where X yields batches, as for :func:`closedform.solve`.
        group: A group of ``torch.distributed``, as for :func:`closedform.solve`: every process passes its own rows and
            its copy of the layer, and all copies are written alike, or none.
        method: ``"auto"``, or the name of a method to use it alone.
        rcond: Singular values of the column-scaled matrix at or below ``rcond`` times the largest are cut.
        progress: ``None``, ``False`` or a function of a label and the part done.

    Raises:
        InputError: the layer does not fit the data, and all that :func:`closedform.solve` raises.

    Example:
        >>> import torch, closedform as cf
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> X = torch.tensor([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
        >>> sol = cf.fit_(layer, X, torch.tensor([1.0, 2.0, 3.0]))
        >>> print(sol.outcome)
        certified: the weights minimise the loss, up to rounding
        >>> bool((layer(X) - torch.tensor([[1.0], [2.0], [3.0]])).abs().max() < 1e-6)
        True
    """
    started = time.perf_counter()

    def settings() -> dict[str, Any]:
        given = {"nearest_to": nearest_to, "digits": digits, "method": method, "rcond": rcond, "progress": progress}
        return {**given, "bias": layer.bias is not None, "l2": l2, "dtype": layer.weight.dtype}

    def by_criterion() -> ConvexRequest | None:
        if criterion is None:
            return None
        return ConvexRequest.checked(criterion, outputs=layer.out_features, **settings())

    def check() -> bool:
        check_linear(layer)
        check_writable(layer)
        return by_criterion() is None

    if group is None:
        # Before files are opened; with a group what is wrong here is told to the others.
        check()
    rows = open_rows(
        X,
        Y,
        sample_weight,
        fields=fields,
        group=group,
        check=lambda rows: _check_layer(layer, rows, columns_are_outputs=check()),
    )
    convex = agreed(rows, by_criterion, ConvexRequest.asked) if criterion is not None else None
    rows = replace(rows, notes=(*rows.notes, *own_output_note(layer)))
    if convex is not None:
        return replace(_fit_convex_(layer, rows, convex), seconds=time.perf_counter() - started)

    request = agreed_request(rows, lambda: Request.checked(rows, **settings()))
    solution = solve_rows(rows, request)
    write(layer, solution.weight, solution.bias)
    return replace(solution, seconds=time.perf_counter() - started)


@final
@dataclass(frozen=True, repr=False)
class Gap:
    """How far a layer is from the minimiser.

    Attributes:
        loss: ``MSELoss()`` of the layer on the rows (with ``l2 * |W|^2 / (rows * targets)`` added where l2 > 0; neither
            is divided for ``MSELoss(reduction="sum")``), or the criterion given (with ``l2 / 2 * |W|^2`` over what its
            mean divides by).
        optimal_loss: The smallest such loss there is; where no minimiser exists, the lowest that was seen.
        excess_loss: The difference, computed without cancellation; a loss curve cannot show it below ``eps * loss``.
        weight_distance: Frobenius distance of weights and bias from the nearest minimiser, relative to its size;
            inf where there is none.
        solution: The minimiser, nearest to the layer where there are many.
    """

    loss: float
    optimal_loss: float
    excess_loss: float
    weight_distance: float
    solution: Solution | ConvexSolution

    def metrics(self) -> dict[str, float]:
        """Return its numbers as flat floats, for trackers; those of the minimiser as ``solution/number``."""
        return flat_floats({**vars(self), "solution": self.solution.metrics()})

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.6g}, optimal {self.optimal_loss:.6g}: excess {self.excess_loss:.3g}; "
            f"weights {self.weight_distance:.3g} (relative) from the minimiser"
        )

    __repr__ = __str__


@untraced
def gap(
    layer: nn.Linear,
    X: Any,
    Y: Any,
    *,
    l2: float = 0.0,
    sample_weight: Any = None,
    criterion: nn.Module | str | None = None,
) -> Gap:
    """Tell how far a trained layer is from the minimiser: in loss, and in weights, which loss curves hide.

    Args:
        layer: ``torch.nn.Linear``; it is not changed.
        X: Features, ``(rows, features)`` or ``(..., features)``.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``.
        l2: Ridge strength, one number, as for :func:`closedform.solve`.
        sample_weight: One weight for each row.
        criterion: A convex loss, as for :func:`closedform.solve`; None for squared error.

    Raises:
        InputError: the layer does not fit the data, and all that :func:`closedform.solve` raises.

    Example:
        >>> import torch, closedform as cf
        >>> X, Y = torch.eye(2, dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> layer = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
        >>> with torch.no_grad():
        ...     _ = layer.weight.copy_(torch.tensor([[1.0, 3.0]]))
        >>> g = cf.gap(layer, X, Y)
        >>> g.loss, round(g.excess_loss, 12)
        (0.5, 0.5)
    """
    check_linear(layer)
    opened = open_problem(X, Y, sample_weight)
    rows = as_rows(opened.X, opened.Y, opened.sample_weight)
    convex = ConvexRequest.checked(
        criterion, bias=layer.bias is not None, l2=l2, outputs=layer.out_features, dtype=torch.float64
    )
    _check_fit(layer, rows, columns_are_outputs=convex is None)
    check_finite(layer)
    rows = replace(rows, notes=(*rows.notes, *own_output_note(layer)))
    if convex is not None:
        return _convex_gap(rows, convex, Weights.of_layer(layer, rows.device))
    strength = check_ridge(l2, 1)[0]
    present = Weights.of_layer(layer, rows.device)
    request = Request.checked(rows, bias=layer.bias is not None, l2=strength, nearest_to=present, dtype=torch.float64)
    scanned = scan(rows)
    solution = solve_rows(rows, request, scanned)
    best = Weights(solution.weight, solution.bias)
    step = present.minus(best)

    # At the minimiser the gradient vanishes, so the excess is the squared length of the step and nothing cancels.
    loss, excess = _squares(rows, present, step)
    loss += strength * float(present.weight.square().sum())
    excess += strength * float(step.weight.square().sum())
    if not math.isfinite(loss):
        raise InputError("the loss is beyond the range of float64; scale the targets and the layer down.")
    count = scanned.weight_sum * rows.n_targets
    optimal = solution.certificate.loss * count + strength * float(best.weight.square().sum())
    divisor = 1.0 if sums_squares(criterion) else count
    return Gap(loss / divisor, optimal / divisor, excess / divisor, step.norm() / (best.norm() or 1.0), solution)


def _convex_gap(rows: Rows, request: ConvexRequest, present: Weights) -> Gap:
    solution = solve_criterion(rows, request)
    measured = excess_over(rows, request, present, solution)
    return Gap(measured.loss, measured.optimal_loss, measured.excess_loss, measured.weight_distance, solution)


def _squares(rows: Rows, weights: Weights, step: Weights) -> tuple[float, float]:
    """Return the weighted squares of the residuals at some weights, and of the change that a step makes."""
    both = torch.cat([weights.stacked(), step.stacked()], 1)
    ones = torch.ones_like(both[:, 0])
    columns = Columns(weights.bias is not None, ones, torch.ones_like(weights.weight[:, 0]))
    sums = rows.walk(ResidualSums(columns, *columns.raw(both), targets=True))
    return float(sums.squares[: rows.n_targets].sum()), float(sums.squares[rows.n_targets :].sum())


def _fit_convex_(layer: nn.Linear, rows: Rows, request: ConvexRequest) -> ConvexSolution:
    found = solve_criterion(rows, request)
    if found.direction is None:
        write(layer, found.weight, found.bias)
    return replace(found, feature_names=rows.feature_names)


def _check_layer(layer: nn.Linear, rows: Rows, *, columns_are_outputs: bool = True) -> None:
    check_linear(layer)
    check_writable(layer)
    # A process without rows does not know their targets.
    _check_fit(layer, rows, columns_are_outputs=columns_are_outputs and bool(rows.x.shape[0]))
    if rows.device != layer.weight.device and layer.weight.device.type != "cpu" and rows.device.type != "cpu":
        raise InputError(f"the layer is on {layer.weight.device} and X on {rows.device}; move one of them.")


def _check_fit(layer: nn.Linear, rows: Rows, *, columns_are_outputs: bool = True) -> None:
    targets = rows.n_targets if columns_are_outputs else layer.out_features
    if layer.in_features != rows.n_features or layer.out_features != targets:
        raise InputError(
            f"the layer maps {plural(layer.in_features, 'feature')} to {plural(layer.out_features, 'target')}, but the "
            f"data have {plural(rows.n_features, 'feature')} and {plural(rows.n_targets, 'target')}."
            + (labels_hint(rows, layer.out_features) if rows.n_features == layer.in_features else "")
        )

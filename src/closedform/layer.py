"""The door for ``torch.nn.Linear``: put a layer at the minimiser, or say how far it is from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from closedform.engine.tracing import untraced
from closedform.fit.layers import check_finite, check_linear, check_writable, write
from closedform.fit.orchestrator import solve_rows
from closedform.fit.request import check_ridge
from closedform.fit.solution import Solution
from closedform.rows import as_rows
from closedform.rows.norms import rows_per_block
from closedform.words.errors import InputError

__all__ = ["Gap", "fit_", "gap"]


@untraced
def fit_(
    layer: nn.Linear,
    X: Any,
    Y: Any,
    *,
    l2: Any = 0.0,
    sample_weight: Any = None,
    nearest_to: nn.Linear | None = None,
    digits: int | None = None,
    method: str = "auto",
    rcond: float | None = None,
    progress: Callable[[str, float], None] | bool | None = None,
) -> Solution:
    """Put ``layer`` at the exact minimiser, in place, and return the solution with its certificate.

    The layer is written only after everything succeeded; whatever is raised leaves it bit for bit as it was. Its bias
    is fitted if it has one. Weights are written in the layer's dtype and on its device, also where the outcome
    is *not certified*: look at ``.outcome``.

    Args:
        layer: ``torch.nn.Linear`` (in_features = features, out_features = targets).
        X: Features, ``(rows, features)`` or ``(..., features)``, as for :func:`closedform.solve`.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``.
        l2: Ridge strength, as for :func:`closedform.solve`; so are the other arguments.

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
    check_linear(layer)
    check_writable(layer)
    rows = as_rows(X, Y, sample_weight)
    _check_fit(layer, rows.n_features, rows.n_targets)
    if rows.device != layer.weight.device and layer.weight.device.type != "cpu" and rows.device.type != "cpu":
        raise InputError(f"the layer is on {layer.weight.device} and X on {rows.device}; move one of them.")
    solution = solve_rows(
        rows,
        bias=layer.bias is not None,
        l2=l2,
        nearest_to=nearest_to,
        digits=digits,
        method=method,
        rcond=rcond,
        progress=progress,
        dtype=layer.weight.dtype,
        started=started,
    )
    write(layer, solution.weight, solution.bias)
    return solution


@dataclass(frozen=True)
class Gap:
    """How far a layer is from the minimiser.

    Attributes:
        loss: ``MSELoss()`` of the layer on the rows (with ``l2 * |W|^2 / (rows * targets)`` added where l2 > 0).
        optimal_loss: The smallest such loss there is.
        excess_loss: The difference, computed without cancellation; a loss curve cannot show it below ``eps * loss``.
        weight_distance: Frobenius distance of weights and bias from the nearest minimiser, relative to its size.
        solution: The minimiser, nearest to the layer where there are many.
    """

    loss: float
    optimal_loss: float
    excess_loss: float
    weight_distance: float
    solution: Solution

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.6g}, optimal {self.optimal_loss:.6g}: excess {self.excess_loss:.3g}; "
            f"weights {self.weight_distance:.3g} (relative) from the minimiser"
        )


@untraced
def gap(layer: nn.Linear, X: Any, Y: Any, *, l2: float = 0.0, sample_weight: Any = None) -> Gap:
    """Tell how far a trained layer is from the minimiser: in loss, and in weights, which loss curves hide.

    Args:
        layer: ``torch.nn.Linear``; it is not changed.
        X: Features, ``(rows, features)`` or ``(..., features)``.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``.
        l2: Ridge strength, one number, as for :func:`closedform.solve`.
        sample_weight: One weight for each row.

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
    rows = as_rows(X, Y, sample_weight)
    _check_fit(layer, rows.n_features, rows.n_targets)
    check_finite(layer)
    strength = check_ridge(l2, 1)[0]
    solution = solve_rows(
        rows,
        bias=layer.bias is not None,
        l2=strength,
        nearest_to=layer,
        digits=None,
        method="auto",
        rcond=None,
        progress=None,
        dtype=torch.float64,
        started=time.perf_counter(),
    )
    weight, bias = _parameters(layer.weight, layer.bias, rows.device)
    best_weight, best_bias = _parameters(solution.weight, solution.bias, rows.device)
    step, shift = weight - best_weight, None if bias is None or best_bias is None else bias - best_bias
    loss = excess = count = 0.0
    for block in rows.blocks(rows_per_block(rows)):
        row_weight = 1.0 if block.weight is None else block.weight.unsqueeze(1)
        residual = torch.nn.functional.linear(block.X, weight, bias) - block.Y
        difference = torch.nn.functional.linear(block.X, step, shift)
        loss += float((row_weight * residual.square()).sum())
        excess += float((row_weight * difference.square()).sum())
        count += block.X.shape[0] if block.weight is None else float(block.weight.sum())
    count *= rows.n_targets
    # At the minimiser the gradient vanishes, so the excess is the squared length of the step and nothing cancels.
    excess += strength * float(step.square().sum())
    loss += strength * float(weight.square().sum())
    optimal = solution.certificate.loss + strength * float(best_weight.square().sum()) / count
    if not math.isfinite(loss):
        raise InputError("the loss is beyond the range of float64; scale the targets and the layer down.")
    distance = _length(step, shift) / (_length(best_weight, best_bias) or 1.0)
    return Gap(loss / count, optimal, excess / count, distance, solution)


def _parameters(weight: Tensor, bias: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor | None]:
    options: dict[str, Any] = {"dtype": torch.float64, "device": device}
    return weight.detach().to(**options), None if bias is None else bias.detach().to(**options)


def _length(weight: Tensor, bias: Tensor | None) -> float:
    return float(torch.hypot(weight.norm(), torch.zeros_like(weight[0, 0]) if bias is None else bias.norm()))


def _check_fit(layer: nn.Linear, n_features: int, n_targets: int) -> None:
    if layer.in_features != n_features or layer.out_features != n_targets:
        raise InputError(
            f"the layer maps {layer.in_features} features to {layer.out_features} targets, but the data have "
            f"{n_features} features and {n_targets} targets."
        )

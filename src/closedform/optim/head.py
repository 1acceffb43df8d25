"""Solve the head of a network exactly in one pass over a loader, with the body frozen."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from closedform.engine.tracing import untraced
from closedform.fit.layers import check_linear, check_writable, linear_layers, round_to, write
from closedform.fit.orchestrator import solve_rows
from closedform.fit.request import Request, check_device, check_ridge
from closedform.fit.solution import Solution
from closedform.fit.statistics import NoStandardErrors
from closedform.fit.storage import as_stored
from closedform.fit.weights import Weights
from closedform.numerics.triangle import Triangle
from closedform.optim.processes import find_peers, merge_triangles
from closedform.rows import as_rows
from closedform.words.errors import DataTypeError, InputError, NonFiniteError

__all__ = ["fit_head_"]


@untraced
def fit_head_(
    net: nn.Module,
    loader: Iterable[Any],
    *,
    head: nn.Linear | None = None,
    l2: float = 0.0,
    device: torch.device | str | None = None,
    group: Any = None,
) -> Solution:
    """Put the head of ``net`` at the least-squares solution of all batches of ``loader``, read once, in place.

    The net runs in evaluation mode without gradients (its mode is restored); what reaches the head is folded, batch by
    batch, into a triangle of columns x columns, so memory does not grow with the rows. Where the rows leave weights
    undetermined the head's present weights decide (nearest minimiser). The head is written only at the end.

    Args:
        net: The network; ``net(inputs)`` is called once per batch and must call the head exactly once.
        loader: Yields ``(inputs, targets)``; targets are ``(rows,)`` or ``(rows, targets)``, with the leading
            dimensions of the head's output.
        head: The layer to fit. Default: the last ``nn.Linear`` of ``net.modules()``.
        l2: Ridge strength as in :func:`closedform.solve`, the bias not penalised.
        device: Where inputs and targets are moved before the call. Default: the device of the head.
        group: A group of ``torch.distributed`` whose processes all call this, each with a loader of its own rows (a
            ``DistributedSampler``, which repeats some rows to make its parts even); all heads are written alike.

    Returns:
        The solution. Its certificate is of the triangle, which has the same minimiser as the rows, and of float64
        weights; ``certificate.loss`` is ``MSELoss()`` over the rows.

    Raises:
        InputError: no head, an empty loader, targets of another shape than the head's output, batches that are not
            pairs, a head that is called more than once or not at all; NonFiniteError for NaN or infinities in targets
            or in what reaches the head, and DataTypeError where the head is not a Linear with storage.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)).double()
        >>> X = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(20, 2)
        >>> loader = [(X[:12], X[:12].sum(1)), (X[12:], X[12:].sum(1))]
        >>> fit_head_(net, loader).certificate.accepted
        True
    """
    started = time.perf_counter()
    layer = _find_head(net, head)
    strength = check_ridge(l2, 1)[0]
    place = layer.weight.device if device is None else check_device(device)

    def fold() -> tuple[Triangle, int]:
        return _fold_loader(net, layer, loader, place)

    peers = None if group is None else find_peers(group)
    if peers is None:
        triangle, rows = fold()
    else:
        triangle, _ = peers.together(fold)
        triangle = merge_triangles(peers, triangle)
        rows = triangle.rows
    has_bias = layer.bias is not None
    penalised = triangle
    if strength > 0:
        penalty = torch.full_like(triangle.R[0], strength**0.5)
        penalty[: int(has_bias)] = 0.0
        penalised = triangle.with_ridge(penalty)

    # The triangle is a table whose first column is the bias, so that its weights stand as coefficients do.
    compressed = as_rows(penalised.R, penalised.C)
    present = Weights.of_layer(layer, triangle.R.device).stacked()
    request = Request.checked(compressed, nearest_to=Weights(present.T, None), progress=False)
    solution = solve_rows(compressed, request)

    loss = _loss(triangle, rows, solution.weight)
    found = Weights.from_stacked(solution.weight.T, bias=has_bias)
    weight = round_to(found.weight, layer.weight.dtype)
    bias = None if found.bias is None else round_to(found.bias, layer.weight.dtype)
    write(layer, weight, bias)
    stored = None
    if layer.weight.dtype != torch.float64 and solution.certificate.accepted:
        rounded = Weights(weight, bias).to(torch.float64).stacked().T
        losses = [
            _loss(triangle, rows, each) + _penalty(each, strength, has_bias, rows)
            for each in (rounded, solution.weight)
        ]
        square = _loss(triangle, rows, torch.zeros_like(rounded))
        stored = as_stored(layer.weight.dtype, losses[0], losses[1], square, [layer.weight.dtype])
    return replace(
        solution,
        rows=rows,
        stored=stored,
        weight=weight,
        bias=bias,
        certificate=replace(solution.certificate, loss=loss),
        notes=(*solution.notes, f"certified on the triangle of {rows} rows, which were read once"),
        seconds=time.perf_counter() - started,
        _standard_errors=NoStandardErrors(
            "standard errors are not available for a head fitted from a loader; use cf.solve on its features."
        ),
    )


def _loss(triangle: Triangle, rows: int, coefficients: Tensor) -> float:
    """Return the mean squared error of coefficients ``(targets, columns)`` on the rows of a triangle."""
    residual = triangle.C - triangle.R @ coefficients.T
    return float(residual.square().sum() + triangle.residual_squares.sum()) / (rows * triangle.targets)


def _penalty(coefficients: Tensor, strength: float, has_bias: bool, rows: int) -> float:
    weights = coefficients[:, int(has_bias) :]
    return strength * float(weights.square().sum()) / (rows * coefficients.shape[0])


def _find_head(net: nn.Module, head: nn.Linear | None) -> nn.Linear:
    if not isinstance(net, nn.Module):
        raise DataTypeError(f"net is a {type(net).__name__}; a torch.nn.Module is needed.")
    layers = [part for _, part in linear_layers(net)]
    if head is None and not layers:
        raise InputError("the net has no nn.Linear; pass head=... with the layer to fit.")
    layer = layers[-1] if head is None else head
    check_linear(layer, "head")
    check_writable(layer, "head")
    if not any(layer is module for module in layers):
        raise InputError("head is not a part of net, so calling net would not reach it.")
    return layer


def _fold_loader(
    net: nn.Module, layer: nn.Linear, loader: Iterable[Any], device: torch.device | str
) -> tuple[Triangle, int]:
    """Run every batch through the net and fold what reaches the layer.

    Raises:
        InputError: no rows, batches that are not pairs, or a head that is not called once.
    """
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    modes = {module: module.training for module in net.modules()}
    n = layer.in_features + int(layer.bias is not None)
    triangle = Triangle.empty(n, layer.out_features, device=layer.weight.device, has_ones=layer.bias is not None)
    waiting: list[tuple[Tensor, Tensor]] = []

    rows = held = 0
    try:
        net.eval()
        with torch.no_grad():
            for number, batch in enumerate(loader):
                if not (isinstance(batch, tuple | list) and len(batch) == 2):
                    raise InputError(f"batch {number} is a {type(batch).__name__}; pairs (inputs, targets) are needed.")
                inputs, targets = (part.to(device) if isinstance(part, Tensor) else part for part in batch)
                seen.clear()
                net(inputs)
                if len(seen) != 1:
                    raise InputError(
                        f"the head was called {len(seen)} times for one batch; exactly one call is needed."
                    )
                A, B = _design(layer, seen[0], targets, number)
                waiting.append((A, B))
                rows, held = rows + A.shape[0], held + A.shape[0]
                if held >= 4 * n:  # larger blocks: a fold costs columns^3 beside its rows
                    triangle, held = _fold_waiting(triangle, waiting), 0
    finally:
        handle.remove()
        for module, mode in modes.items():
            module.training = mode

    if rows == 0:
        raise InputError("the loader yielded no rows; a generator that was used up already?")
    return _fold_waiting(triangle, waiting).padded(), rows


def _fold_waiting(triangle: Triangle, waiting: list[tuple[Tensor, Tensor]]) -> Triangle:
    if waiting:
        triangle = triangle.fold(torch.cat([A for A, _ in waiting]), torch.cat([B for _, B in waiting]))
        waiting.clear()
    return triangle


def _design(layer: nn.Linear, features: Tensor, targets: Any, number: int) -> tuple[Tensor, Tensor]:
    leading = features.shape[:-1]
    if not isinstance(targets, Tensor) or targets.shape not in (leading, (*leading, layer.out_features)):
        shape = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
        raise InputError(
            f"batch {number}: the head gives {(*leading, layer.out_features)} but the targets are {shape}; they must "
            f"agree. For class labels pass one-hot targets: torch.nn.functional.one_hot(labels).double()."
        )
    if targets.shape == leading and layer.out_features != 1:
        raise InputError(
            f"batch {number}: targets of shape {tuple(targets.shape)} for {layer.out_features} outputs; for class "
            "labels pass one-hot targets: torch.nn.functional.one_hot(labels).double()."
        )

    X = features.reshape(-1, layer.in_features).to(torch.float64)
    B = targets.reshape(-1, layer.out_features).to(X)
    for name, values in (("what reaches the head", X), ("the targets", B)):
        if not bool(torch.isfinite(values).all()):
            row, column = (int(i) for i in (~torch.isfinite(values)).nonzero()[0])
            raise NonFiniteError(
                f"batch {number}: {name} hold {float(values[row, column])} in column {column}, first in row {row}."
            )
    return (X if layer.bias is None else torch.cat([X.new_ones(X.shape[0], 1), X], 1)), B

"""Paths of strengths for convex criteria: each fit starts from that of the next stronger ridge."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from closedform.fit.convex import ConvexRequest, ConvexSolution, loss_at, solve_criterion
from closedform.fit.path.result import RidgePath
from closedform.fit.path.strengths import check_strengths
from closedform.fit.request import Watcher, check_bias
from closedform.fit.weights import Weights
from closedform.rows import Rows, TensorSource, as_rows, scan
from closedform.words.errors import InputError

__all__ = ["cross_entropy_path"]

#: Parts of the rows that are left out, one after the other.
_FOLDS = 5
#: Strengths of the default grid, in multiples of the mean curvature of a weight where all classes are as likely.
_GRID = torch.logspace(-5, 2, 8, dtype=torch.float64, device="cpu")


def cross_entropy_path(
    X: Any,
    labels: Tensor,
    *,
    n_classes: int,
    l2: Any = None,
    bias: bool = True,
    sample_weight: Tensor | None = None,
    seed: int = 0,
    progress: Watcher = None,
) -> RidgePath:
    """Return the cross-entropy of every strength on rows left out, in five folds, and the certified fit at the best.

    Each fold has its share of every class; a class of a single row that counts is never left out. Within a fold the
    strongest ridge comes first, and each fit starts where the one before ended. Where there are too few rows for the
    folds, the error of a strength that is given alone is nan.

    Args:
        X: Features, ``(rows, features)``.
        labels: The class of each row, ``(rows,)`` int64.
        n_classes: How many classes there are.
        l2: Strengths to try, or None for eight of them, a decade apart.
        bias: Whether the layer has a bias.
        sample_weight: One weight for each row, or None.
        seed: Of the choice of the folds.
        progress: As for :func:`closedform.solve`.

    Raises:
        InputError: too few rows to choose among several strengths, or strengths that cannot be used.
    """
    started = time.perf_counter()
    rows = as_rows(X, labels, sample_weight)
    given = check_strengths(l2)
    strengths = _grid(rows, n_classes) if given is None else given
    asked = ConvexRequest(
        nn.CrossEntropyLoss(), check_bias(bias), outputs=n_classes, dtype=torch.float64, progress=progress
    )
    weight = torch.ones(rows.n_rows, dtype=torch.float64, device="cpu")
    if sample_weight is not None:
        weight = sample_weight.cpu()
    folds = _folds(torch.where(weight > 0, labels.cpu(), -1), n_classes, seed)
    start, losses = None, torch.full((_FOLDS, 1), torch.nan, dtype=torch.float64, device="cpu")
    if folds is not None:
        found = [_left_out(rows, weight, folds == fold, strengths, asked) for fold in range(_FOLDS)]
        losses = torch.tensor([each[0] for each in found], dtype=torch.float64, device="cpu")
    elif len(strengths) > 1:
        raise InputError(
            f"{int((weight > 0).sum())} rows are too few to leave a part out {_FOLDS} times; give one strength, l2=."
        )
    errors = losses.mean(0).unsqueeze(1)

    best = int(errors[:, 0].argmin())
    if folds is not None:
        start = found[0][1][best]
    chosen = replace(asked, l2=float(strengths[best]), dtype=None, start=start)
    return RidgePath(
        strengths=strengths,
        errors=errors,
        standard_errors=(losses.std(0) / _FOLDS**0.5).unsqueeze(1),
        degrees_of_freedom=torch.full_like(strengths, torch.nan),
        l2=strengths[best].reshape(1),
        solution=solve_criterion(rows, chosen),
        select="k-fold",
        scoring="cross-entropy",
        interpolated_rows=0,
        notes=_notes(strengths, best, given=given is not None),
        seconds=time.perf_counter() - started,
    )


def _grid(rows: Rows, n_classes: int) -> Tensor:
    """Return strengths around the mean second derivative of the loss by a weight, where all weights are zero."""
    squares = float(scan(rows).feature_norms.square().mean()) or 1.0
    return _GRID * squares * (n_classes - 1) / n_classes**2


def _folds(labels: Tensor, n_classes: int, seed: int) -> Tensor | None:
    """Return the fold of each row, -1 for rows that are never left out; None where there are too few for the folds.

    Args:
        labels: The class of each row, -1 for rows that do not count.
        n_classes: How many classes there are.
        seed: Of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    folds = torch.full_like(labels, -1)
    for own in range(n_classes):
        places = (labels == own).nonzero().squeeze(1)
        if len(places) < 2:
            continue
        shuffled = places[torch.randperm(len(places), generator=generator, device="cpu")]
        folds[shuffled] = (torch.arange(len(places), device="cpu") + own) % _FOLDS
    return folds if len(torch.unique(folds[folds >= 0])) == _FOLDS else None


def _left_out(
    rows: Rows, weight: Tensor, left_out: Tensor, strengths: Tensor, asked: ConvexRequest
) -> tuple[list[float], list[Weights]]:
    """Return the loss on the rows left out and the weights, for every strength."""
    device = rows.device
    inner, outer = (
        replace(rows, weight=TensorSource(torch.where(part, weight, 0.0).to(device), "sample_weight"))
        for part in (~left_out, left_out)
    )
    losses, fits = [0.0] * len(strengths), [Weights(weight, None)] * len(strengths)
    start: Weights | None = None
    for place in strengths.argsort(descending=True).tolist():
        solution: ConvexSolution = solve_criterion(inner, replace(asked, l2=float(strengths[place]), start=start))
        start = fits[place] = Weights(solution.weight, solution.bias)
        losses[place] = loss_at(outer, asked.criterion, start)
    return losses, fits


def _notes(strengths: Tensor, best: int, *, given: bool) -> tuple[str, ...]:
    if given or len(strengths) < 2:
        return ()
    if best in (0, len(strengths) - 1):
        end = "weakest" if best == 0 else "strongest"
        return (f"the {end} of the strengths tried is the best one; give others with l2=",)
    return ()

"""Mini-batches of one shuffled pass over the rows after another, followed along the singular directions."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from closedform.explain.forecasts.descent import Descent

__all__ = ["floor_by_epochs", "limit_by_epochs"]

#: Errors that are followed side by side, each over passes of its own.
_PARTICLES = 96
#: Learning rates tried side by side, evenly in the logarithm; twice, the second time between two of the first.
_RATES = 10
#: Passes over the rows: after the first ones the errors lie as passes leave them.
_PASSES = 10
#: Passes that only bring errors there.
_BURNT = 3
#: Operations that may be spent: some tenths of a second.
_OPERATIONS = 1.5e9
#: Batches of a pass below which rows are not left out to save operations.
_FEWEST = 16
#: Passes for a noise floor, at most.
_LONG = 24
#: Steps for a noise floor, at most.
_STEPS = 12_000
#: Rates tried lie between the limit for rows drawn anew and the one of the full batch, times these.
_SPAN = (0.8, 2.5)


def limit_by_epochs(descent: Descent, rows: Tensor, n_targets: int, batch_size: int, anew: float, full: float) -> float:
    """Return the learning rate from which on shuffled passes make the mean square of the error grow.

    In a pass every row is seen once, so that what one batch adds another takes away, and errors can stand larger steps
    than with rows drawn anew (Mishchenko, Khaled and Richtarik 2020). No closed form is known for more columns than
    one: errors along the singular directions are followed through passes over these rows, and after each pass those
    that grew are drawn in proportion to their squares, whose mean growth is that of the second moment (Del Moral 2004).

    Args:
        descent: The optimizer; its learning rate does not matter.
        rows: Each row along each direction, ``(rows, rank)``.
        n_targets: Targets.
        batch_size: Rows in a batch.
        anew: The limit for rows drawn anew.
        full: The limit of the full batch.

    Returns:
        The limit, or ``anew`` where the rows are too many to be followed.
    """
    X = _affordable(rows, batch_size)
    if X is None or batch_size >= rows.shape[0] or not math.isfinite(full):
        return anew
    low, high = _SPAN[0] * min(anew, full), _SPAN[1] * full
    for _ in range(2):
        rates = np.geomspace(low, high, _RATES)
        grows = _growth(descent, X, n_targets, batch_size, rates) > 0
        if grows[0] or not grows.any():
            return float(rates[0] if grows[0] else rates[-1])
        first = int(np.argmax(grows))
        low, high = float(rates[first - 1]), float(rates[first])
    return low


def floor_by_epochs(
    descent: Descent,
    rows: Tensor,
    residuals: Tensor,
    batch_size: int,
    eigenvalues: Tensor,
    variances: Tensor,
) -> float | None:
    """Return the excess loss that noise adds in the end, averaged over a pass; None where that takes too long.

    Args:
        descent: The optimizer with its settings.
        rows: Each row along each direction, ``(rows, rank)``.
        residuals: What is left of each row where the descent leads, ``(rows, targets)``.
        batch_size: Rows in a batch.
        eigenvalues: Of the Hessian, ``(rank,)``.
        variances: About what the squared error along each direction is in the end, where errors begin, ``(rank,)``.
    """
    count, rank = rows.shape
    targets, batches = residuals.shape[1], -(-count // batch_size)
    operations = 4 * rank * targets * _PARTICLES * count
    passes = min(_LONG, int(min(_STEPS / batches, _OPERATIONS / operations)))
    if passes < 2 * _BURNT:
        return None

    rng = np.random.default_rng(0)
    X, r, weights = rows.cpu().numpy(), residuals.cpu().numpy(), eigenvalues.cpu().numpy() / 2
    size = np.sqrt(variances.cpu().numpy() / targets)
    errors = rng.standard_normal((_PARTICLES, rank, targets)) * size[:, None]
    # The mean gradient that is left of the rows is what weight decay holds against.
    pull = -X.T @ r * (2 / (targets * count))
    held, total, seen = None, 0.0, 0
    with np.errstate(all="ignore"):
        for made in range(passes):
            order = np.argsort(rng.random((_PARTICLES, count)), axis=1)
            for first in range(0, count, batch_size):
                picked = order[:, first : first + batch_size]
                batch = X[picked]
                gradient = batch.transpose(0, 2, 1) @ (batch @ errors + r[picked]) * (2 / (targets * batch.shape[1]))
                gradient += pull + descent.weight_decay * errors
                errors, held = _stepped(descent, errors, held, gradient, descent.lr)
                if made >= passes // 3:
                    total += float(weights @ np.square(errors).sum(2).mean(0))
                    seen += 1
    return total / seen if math.isfinite(total) else math.inf


def _stepped(
    descent: Descent, errors: np.ndarray, held: np.ndarray | None, gradient: np.ndarray, lr: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray | None]:
    """A step of ``torch.optim.SGD`` for every error, with the momentum that it holds."""
    kept = descent.momentum
    if not kept:
        return errors - lr * gradient, None
    held = gradient if held is None else kept * held + (1 - descent.dampening) * gradient
    return errors - lr * (gradient + kept * held if descent.nesterov else held), held


def _affordable(rows: Tensor, batch_size: int) -> np.ndarray | None:
    """The rows, or so many of them as can be followed; None where that would leave too few batches."""
    count, rank = rows.shape
    each = 4 * rank * _PARTICLES * _RATES * _PASSES * 2
    kept = min(count, int(_OPERATIONS / max(1, each)))
    if kept < count and kept < _FEWEST * batch_size:
        return None
    return rows[:: -(-count // max(1, kept))].cpu().numpy()


def _growth(descent: Descent, X: np.ndarray, n_targets: int, batch_size: int, rates: np.ndarray) -> np.ndarray:
    """Logarithm of the factor by which the mean square of the error grows in a pass, for each rate."""
    rng = np.random.default_rng(0)
    count, rank = X.shape
    errors, held = rng.standard_normal((_PARTICLES, rank, rates.size)), None
    logs = np.zeros(rates.size)
    with np.errstate(all="ignore"):
        for made in range(_PASSES):
            order = np.argsort(rng.random((_PARTICLES, count)), axis=1)
            for first in range(0, count, batch_size):
                batch = X[order[:, first : first + batch_size]]
                gradient = batch.transpose(0, 2, 1) @ (batch @ errors) * (2 / (n_targets * batch.shape[1]))
                if descent.weight_decay:
                    gradient += descent.weight_decay * errors
                errors, held = _stepped(descent, errors, held, gradient, rates)
            size = np.square(errors).sum(1) + (0 if held is None else np.square(rates * held).sum(1))
            size = np.nan_to_num(size, nan=np.inf, posinf=np.inf)
            if made >= _BURNT:
                logs += np.log(size.mean(0))
            errors, held = _drawn(errors, held, size, rng)
    return logs / (_PASSES - _BURNT)


def _drawn(
    errors: np.ndarray, held: np.ndarray | None, size: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw errors in proportion to their squares, and bring them to length one."""
    lost = ~np.isfinite(size).all(0) | (size.sum(0) == 0)
    shares = np.where(lost, 1.0, size) / np.where(lost, float(len(size)), size.sum(0))
    places = (rng.random(size.shape[1]) + np.arange(len(size))[:, None]) / len(size)
    sums = np.cumsum(shares, axis=0)
    picked = (places[:, None, :] > sums[None]).sum(1).clip(max=len(size) - 1)
    length = np.sqrt(np.where(lost, 1.0, np.take_along_axis(size, picked, 0)))[:, None, :]
    parts = [
        None if part is None else np.take_along_axis(part, picked[:, None, :], 0) / length for part in (errors, held)
    ]
    drawn = [None if part is None else np.where(np.isfinite(part), part, 1.0) for part in parts]
    assert drawn[0] is not None
    return np.where(lost, 1.0, drawn[0]), drawn[1]

"""Read a user's criterion by the numbers it returns, for outputs and targets in the shapes of the user's own call."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from closedform.words.errors import DataTypeError

__all__ = ["CriterionReading", "Pairing", "broadcasts", "read_criterion"]

#: Rows that a criterion is tried on, and twice as many to see whether it sums.
_PROBE_ROWS = 64
#: Relative difference of two values that counts as the same number: criteria may compute in float32.
_SAME = 1e-6
#: The same for gradients, relative to the largest.
_SAME_SLOPE = 1e-3

Criterion = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True)
class Pairing:
    """Shapes of the model's output and of the target, without their first dimension.

    Attributes:
        output: ``(targets,)``, or ``()`` where the model drops a single target's dimension.
        target: The same for Y as given.
    """

    output: tuple[int, ...]
    target: tuple[int, ...]


@final
@dataclass(frozen=True)
class CriterionReading:
    """A loss function, recognised by what it returns.

    Attributes:
        name: Name of its class or function.
        kind: ``squared``, ``unsquared norm``, ``absolute`` or ``other``.
        factor: What ``MSELoss()`` is multiplied by where it is ``squared``: rows x targets for the sum; negative where
            the loss falls as the error grows.
        summed: Whether it grows with the number of rows.
        broadcasts: Whether it compares every output with every target, for the shapes it is called with.
        problem: Why it could not be evaluated, or an empty string.
        other_gradient: Whether it is a multiple of the squared error by its values, and not by its gradients.
        function: The criterion itself.
    """

    name: str
    kind: str
    factor: float
    summed: bool
    broadcasts: bool
    problem: str
    function: Criterion
    other_gradient: bool = False


def broadcasts(pairing: Pairing, rows: int) -> bool:
    """Whether torch broadcasts an output and a target of these shapes against each other: each with each.

    Example:
        >>> broadcasts(Pairing((1,), ()), 5), broadcasts(Pairing((), (1,)), 5), broadcasts(Pairing((3,), (3,)), 5)
        (True, True, False)
    """
    if math.prod(pairing.output) != math.prod(pairing.target):
        return False
    output, target = (rows, *pairing.output), (rows, *pairing.target)
    return math.prod(np.broadcast_shapes(output, target)) > math.prod(output)


def read_criterion(criterion: Any, n_rows: int, n_targets: int, pairing: Pairing | None = None) -> CriterionReading:
    """Recognise a loss by the numbers it returns for a few random residuals.

    Args:
        criterion: Called as ``criterion(output, target)``.
        n_rows: Rows of the table, for a loss that sums.
        n_targets: Targets.
        pairing: Shapes of output and target in the user's call; both ``(rows, targets)`` if None.

    Raises:
        DataTypeError: not callable.

    Example:
        >>> reading = read_criterion(lambda output, target: ((output - target) ** 2).sum() / 2, 100, 3)
        >>> reading.kind, reading.factor
        ('squared', 150.0)
    """
    if not callable(criterion):
        raise DataTypeError(f"criterion is a {type(criterion).__name__}; a function of (output, target) is needed.")

    name = str(getattr(criterion, "__name__", type(criterion).__name__))
    shapes = Pairing((n_targets,), (n_targets,)) if pairing is None else pairing
    if math.prod(shapes.output) != math.prod(shapes.target):
        # A model that flattens leading dimensions; the call itself would say so.
        shapes = Pairing((n_targets,), (n_targets,))

    draws: list[_Draw] = []
    for rows in (_PROBE_ROWS, 2 * _PROBE_ROWS):
        for seed in (0, 1):
            drawn = _try_out(criterion, rows, seed, shapes)
            if isinstance(drawn, str):
                return CriterionReading(name, "other", math.nan, False, False, drawn, criterion)
            draws.append(drawn)

    # Rows of the table that a trial stands for: with more leading dimensions than one it is more of them.
    tried = _PROBE_ROWS * math.prod(shapes.output) / n_targets
    for crossed in (False, True):
        for kind, measure in _MEASURES.items():
            found = _recognise([drawn.value / measure(drawn.residual(crossed)) for drawn in draws], kind)
            if found is not None:
                factor, summed = found
                factor = round(factor * (n_rows / tried if summed else 1.0), 12)
                if kind == "squared" and not crossed and not all(drawn.descends_as_squares() for drawn in draws):
                    return CriterionReading(name, "other", math.nan, False, False, "", criterion, other_gradient=True)
                return CriterionReading(name, kind, factor, summed, crossed, "", criterion)

    return CriterionReading(name, "other", math.nan, False, _crosses(criterion, draws), "", criterion)


@final
@dataclass(frozen=True, eq=False)
class _Draw:
    """One trial: outputs and targets in the user's shapes, and what the criterion returns for them."""

    output: Tensor
    target: Tensor
    value: float
    slope: Tensor

    def descends_as_squares(self) -> bool:
        """Whether the gradient is that of the multiple of the squared error that the value is."""
        residual = self.residual(crossed=False)
        expected = residual * (2 * self.value / float(residual.square().sum()))
        apart = (self.slope.reshape(residual.shape) - expected).abs().max()
        return bool(apart <= _SAME_SLOPE * expected.abs().max())

    def residual(self, crossed: bool) -> Tensor:
        """Return the errors row by row, or of each output with each target."""
        if crossed and self.output.numel() == self.output.shape[0]:
            return self.output.reshape(-1, 1) - self.target.reshape(1, -1)
        if crossed:
            return self.output - self.target
        rows = self.output.shape[0]
        return self.output.reshape(rows, -1) - self.target.reshape(rows, -1)


def _try_out(criterion: Criterion, rows: int, seed: int, shapes: Pairing) -> _Draw | str:
    """Call the criterion on random numbers; where it does not take them, say why."""
    generator = torch.Generator().manual_seed(seed)
    size = math.prod(shapes.output)
    drawn = torch.randn(2, rows * size, dtype=torch.float64, device="cpu", generator=generator) * (1 + 2 * seed)
    output, target = drawn[0].reshape(rows, *shapes.output), drawn[1].reshape(rows, *shapes.target)

    try:
        with warnings.catch_warnings(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            # torch warns of shapes that broadcast, which is what is looked for.
            warnings.simplefilter("ignore")
            # A copy, as a model's output is: what is no leaf may be changed in place.
            leaf = output.clone().requires_grad_()
            value: Any = criterion(leaf.clone(), target)
            if isinstance(value, Tensor) and value.numel() != 1:
                return f"it returns a tensor of shape {tuple(value.shape)} and no number; reduce it, say by mean()"
            if not isinstance(value, Tensor):
                return f"it returns a {type(value).__name__} and no tensor, from which backward() could start"
            if not value.requires_grad:
                return "its number carries no gradient (detach, no_grad, rounding), so backward() raises an error"
            (slope,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
            return _Draw(output, target, float(value.detach()), torch.zeros_like(output) if slope is None else slope)
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, ArithmeticError) as error:
        return f"it cannot be called on real outputs and targets: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    """The first line of an exception's message, or its name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_MEASURES: dict[str, Callable[[Tensor], float]] = {
    "squared": lambda residual: float(residual.square().mean()),
    "unsquared norm": lambda residual: float(torch.linalg.vector_norm(residual)),
    "absolute": lambda residual: float(residual.abs().mean()),
}


def _recognise(ratios: list[float], kind: str) -> tuple[float, bool] | None:
    """Return the factor for the small trial and whether it grows with the rows, where the ratios agree on one."""
    first, second, third, fourth = ratios
    alike = math.isclose(first, second, rel_tol=_SAME) and math.isclose(third, fourth, rel_tol=_SAME)
    if not alike or first == 0 or not math.isfinite(first):
        return None
    summed = math.isclose(third, 2 * first, rel_tol=_SAME)
    if summed or math.isclose(first, third, rel_tol=_SAME) or kind == "unsquared norm":
        return first, summed
    return None


def _crosses(criterion: Criterion, draws: list[_Draw]) -> bool:
    """Whether a loss of some other kind compares each output with each target."""
    drawn = draws[0]
    if drawn.residual(crossed=True).numel() == drawn.output.numel():
        return False
    rows = drawn.output.shape[0]
    if drawn.output.numel() == rows:
        output, target = drawn.output.reshape(-1, 1).expand(rows, rows), drawn.target.reshape(1, -1).expand(rows, rows)
    else:
        shape = np.broadcast_shapes(tuple(drawn.output.shape), tuple(drawn.target.shape))
        output, target = drawn.output.expand(shape), drawn.target.expand(shape)
    crossed = _value(criterion, output, target)
    paired = _value(criterion, drawn.output.reshape(-1), drawn.target.reshape(-1))
    alike = [value is not None and math.isclose(value, drawn.value, rel_tol=_SAME) for value in (crossed, paired)]
    return alike == [True, False]


def _value(criterion: Criterion, output: Tensor, target: Tensor) -> float | None:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return float(criterion(output, target))
    except (TypeError, ValueError, RuntimeError):
        return None

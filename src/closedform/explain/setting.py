"""Read a user's model and criterion, without changing them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from closedform.words.errors import DataTypeError, InputError

__all__ = ["CriterionFacts", "ModelFacts", "read_criterion", "read_model"]

_PROBE_ROWS = 64


@final
@dataclass(frozen=True)
class ModelFacts:
    """The one linear layer of a model, and the shape that the model gives its output.

    Attributes:
        layer: The layer itself; only read.
        output_dimensions: 2 for ``(rows, targets)``, 1 where the model drops a single target's dimension.
        finite: Whether all weights are finite.
    """

    layer: nn.Linear
    output_dimensions: int
    finite: bool


@final
@dataclass(frozen=True)
class CriterionFacts:
    """A loss function, recognised by what it returns.

    Attributes:
        name: Name of its class or function.
        kind: ``squared``, ``unsquared norm``, ``absolute`` or ``other``.
        factor: What ``MSELoss()`` is multiplied by where it is ``squared``: rows x targets for the sum.
        function: The criterion itself.
    """

    name: str
    kind: str
    factor: float
    function: Callable[[Tensor, Tensor], Tensor]


def read_model(model: Any) -> ModelFacts:
    """Find the linear layer of a model and check that the model does nothing else but reshape.

    Raises:
        DataTypeError: not a module, a lazy layer, or one without storage.
        InputError: a model with more than one layer, or that computes something else.
    """
    if not isinstance(model, nn.Module):
        raise DataTypeError(f"model is a {type(model).__name__}; a torch.nn.Linear, or a module around one, is needed.")
    owners = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
    layers = [module for module in owners if isinstance(module, nn.Linear)]
    if len(owners) != 1 or len(layers) != 1:
        found = ", ".join(type(module).__name__ for module in owners) or "no layer with weights"
        raise InputError(
            f"model holds {found}; diagnose supports exactly one nn.Linear, alone or with modules that only "
            "reshape. For "
            "the last layer of a network pass the layer as model= and its inputs as X."
        )
    layer = layers[0]
    if isinstance(layer, nn.LazyLinear):
        raise DataTypeError("the layer is lazy and has no weights yet; run one batch through it first.")
    if layer.weight.is_meta:
        raise DataTypeError("the layer is on the meta device and holds no numbers; call to_empty(device=...) first.")
    finite = all(bool(torch.isfinite(p).all()) for p in layer.parameters())
    return ModelFacts(layer, 2 if model is layer else _output_dimensions(model, layer, finite), finite)


def _output_dimensions(model: nn.Module, layer: nn.Linear, finite: bool) -> int:
    probe = torch.randn(3, layer.in_features, device="cpu", generator=torch.Generator().manual_seed(0)).to(layer.weight)
    # A copy, because a forward pass may change buffers.
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            output = copy.deepcopy(model).eval()(probe)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"model could not be run on rows of {layer.in_features} features: {error}") from error
    expected = layer(probe).detach()
    same = isinstance(output, Tensor) and output.numel() == expected.numel()
    if not same or (finite and not torch.allclose(output.reshape(-1), expected.reshape(-1))):
        raise InputError(
            "model does more than one nn.Linear and a reshape; diagnose supports the linear layer alone. Pass "
            "the layer as "
            "model= and its inputs as X."
        )
    return int(output.ndim)


def read_criterion(criterion: Any, n_rows: int, n_targets: int) -> CriterionFacts:
    """Recognise a loss by the numbers it returns for a few random residuals.

    Args:
        criterion: Called as ``criterion(output, target)``.
        n_rows: Rows of the table, for a loss that sums.
        n_targets: Targets.

    Raises:
        DataTypeError: not callable.

    Example:
        >>> facts = read_criterion(lambda output, target: ((output - target) ** 2).sum() / 2, 100, 3)
        >>> facts.kind, facts.factor
        ('squared', 150.0)
    """
    if not callable(criterion):
        raise DataTypeError(f"criterion is a {type(criterion).__name__}; a function of (output, target) is needed.")
    name = getattr(criterion, "__name__", type(criterion).__name__)
    small, large = _probe(criterion, _PROBE_ROWS, n_targets), _probe(criterion, 2 * _PROBE_ROWS, n_targets)
    if small is None or large is None:
        return CriterionFacts(name, "other", math.nan, criterion)
    for kind, measure in _MEASURES.items():
        ratios = [value / measure(residual) for value, residual in small + large]
        first, last = ratios[0], ratios[-1]
        if all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(ratios[:2], [first] * 2, strict=True)) and math.isclose(
            ratios[2], last, rel_tol=1e-6
        ):
            summed = math.isclose(last, 2 * first, rel_tol=1e-6)
            if first > 0 and (summed or math.isclose(first, last, rel_tol=1e-6) or kind == "unsquared norm"):
                return CriterionFacts(
                    name, kind, round(first * n_rows / _PROBE_ROWS if summed else first, 12), criterion
                )
    return CriterionFacts(name, "other", math.nan, criterion)


_MEASURES: dict[str, Callable[[Tensor], float]] = {
    "squared": lambda residual: float(residual.square().mean()),
    "unsquared norm": lambda residual: float(torch.linalg.vector_norm(residual)),
    "absolute": lambda residual: float(residual.abs().mean()),
}


def _probe(criterion: Callable[[Tensor, Tensor], Tensor], rows: int, targets: int) -> list[tuple[float, Tensor]] | None:
    """Values of the criterion for two draws of residuals; None where it does not take them."""
    found = []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        output, target = torch.randn(2, rows, targets, dtype=torch.float64, device="cpu", generator=generator) * (
            1 + 2 * seed
        )
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                value = float(criterion(output, target))
        except (TypeError, ValueError, RuntimeError):
            return None
        found.append((value, output - target))
    return found

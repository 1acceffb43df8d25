"""Functions and lambdas that are criteria of torch under another name, recognised by the numbers they return."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from closedform.losses.kinked import HingeLoss
from closedform.losses.squared_hinge import SquaredHingeLoss

__all__ = ["contradicts", "recognised"]

#: Relative difference of two values that counts as the same number, in float64.
_SAME = 1e-10
#: Rows and sizes of the outputs that a function is tried on: kinks are passed, and sums told from means.
_TRIALS = ((6, 0.3), (6, 3.0), (11, 1.0), (11, 30.0))
#: Outputs of a row.
_OUTPUTS = 3
#: Classes that are tried as well, each once: a function may leave one of them out.
_CLASSES = 64

#: What a function may be, by the targets that each takes.
_CANDIDATES: dict[str, tuple[type[Any], ...]] = {
    "numbers": (nn.MSELoss, nn.L1Loss, nn.HuberLoss),
    "labels": (nn.CrossEntropyLoss, nn.MultiMarginLoss),
    "zeros and ones": (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss),
    "signs": (nn.SoftMarginLoss, HingeLoss, SquaredHingeLoss),
    "counts": (nn.PoissonNLLLoss,),
}


def recognised(criterion: Any) -> Any:
    """Return the module that a function is, where it returns the same numbers, mean or sum; else what was given.

    Only default options are recognised: what a function does with others cannot be seen for all targets.

    Args:
        criterion: A function of outputs and targets; classes and names are returned as they are, and so are modules,
            or what was compiled in them.

    Example:
        >>> recognised(lambda output, target: nn.functional.cross_entropy(output, target))
        CrossEntropyLoss()
    """
    # A compiled module computes what the module does.
    criterion = getattr(criterion, "_orig_mod", criterion) if isinstance(criterion, nn.Module) else criterion
    if isinstance(criterion, nn.Module | type) or not callable(criterion):
        return criterion
    for targets, kinds in _CANDIDATES.items():
        for kind in kinds:
            for reduction in ("mean", "sum"):
                module = kind(reduction=reduction)
                if all(_same(criterion, module, Z, T) for Z, T in _trials(targets)):
                    return module
    return criterion


def _trials(targets: str) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for rows, size in _TRIALS:
        Z = size * torch.randn(rows, _OUTPUTS, dtype=torch.float64, generator=generator, device="cpu")
        drawn = torch.rand(rows, _OUTPUTS, dtype=torch.float64, generator=generator, device="cpu")
        ones = (drawn > 0.5).to(torch.float64)
        made: dict[str, Tensor] = {
            "numbers": size * (drawn - 0.5),
            "labels": (_OUTPUTS * drawn[:, 0]).long(),
            "zeros and ones": ones,
            "signs": 2 * ones - 1,
            "counts": (5 * drawn).floor(),
        }
        yield Z, made[targets]
    if targets == "labels":
        shape = (_CLASSES, _CLASSES)
        Z = torch.randn(shape, dtype=torch.float64, generator=generator, device="cpu")
        yield Z, torch.arange(_CLASSES, device="cpu")


def contradicts(function: Callable[[Tensor, Tensor], Any], module: nn.Module, T: Tensor, n_outputs: int) -> bool:
    """Say whether a function that was recognised returns another number than the module for some targets.

    Trials cannot show what it does with all of them: it may ignore a label, or round targets between 0 and 1.

    Args:
        function: The function.
        module: What it was taken for.
        T: Targets as they are given to both.
        n_outputs: How many outputs a row has.
    """
    generator = torch.Generator().manual_seed(0)
    T = T.cpu()
    Z = torch.randn(len(T), n_outputs, dtype=torch.float64, generator=generator, device="cpu")
    try:
        return not _equal(function, module, Z if T.dtype == torch.int64 else Z.reshape(T.shape), T)
    except Exception:  # what cannot be called with these targets is told by whoever trains with it
        return False


def _same(criterion: Callable[[Tensor, Tensor], Any], module: nn.Module, Z: Tensor, T: Tensor) -> bool:
    try:
        return _equal(criterion, module, Z, T)
    except Exception:  # whatever a user's function raises on targets of another kind, it is not this criterion
        return False


def _equal(criterion: Callable[[Tensor, Tensor], Any], module: nn.Module, Z: Tensor, T: Tensor) -> bool:
    with torch.no_grad():
        expected, value = float(module(Z, T)), float(criterion(Z.clone(), T.clone()))
    return math.isclose(value, expected, rel_tol=_SAME)

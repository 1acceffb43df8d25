"""Which criterion a module of torch is, with its options; and what is refused, and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, final

from torch import nn

from closedform.losses.bce_with_logits import BCEWithLogits, MultiLabelSoftMargin
from closedform.losses.criterion import Criterion, check_factors
from closedform.losses.cross_entropy import CrossEntropy
from closedform.losses.huber import Huber, SmoothL1
from closedform.losses.kinked import Absolute, Hinge, HingeLoss, Kinked, Pinball, PinballLoss
from closedform.losses.multi_margin import MultiMargin, MultiMarginHinge
from closedform.losses.poisson import Poisson
from closedform.losses.recognition import recognised
from closedform.losses.soft_margin import SoftMargin
from closedform.losses.squared_hinge import SquaredHinge, SquaredHingeLoss
from closedform.words.errors import DataTypeError, InputError

__all__ = ["CRITERIA", "Targets", "criterion_by_name", "is_squared_error", "read_criterion", "sums_squares"]

#: Names of criteria on the command line and for probes, with the module each stands for.
CRITERIA: dict[str, Callable[[], nn.Module]] = {
    "squared": nn.MSELoss,
    "mse": nn.MSELoss,
    "absolute": nn.L1Loss,
    "l1": nn.L1Loss,
    "huber": nn.HuberLoss,
    "smooth-l1": nn.SmoothL1Loss,
    "cross-entropy": nn.CrossEntropyLoss,
    "binary-cross-entropy": nn.BCEWithLogitsLoss,
    "soft-margin": nn.SoftMarginLoss,
    "multilabel-soft-margin": nn.MultiLabelSoftMarginLoss,
    "poisson": nn.PoissonNLLLoss,
    "hinge": HingeLoss,
    "squared-hinge": SquaredHingeLoss,
    "multi-margin": nn.MultiMarginLoss,
    "squared-multi-margin": partial(nn.MultiMarginLoss, p=2),
}

#: Why criteria of torch are refused, with the nearest that is not.
_REFUSED: dict[str, str] = {
    "BCELoss": "takes probabilities, and is not convex in the weights before a sigmoid; use BCEWithLogitsLoss()",
    "NLLLoss": "takes log-probabilities; use CrossEntropyLoss() on the layer's own outputs",
    "KLDivLoss": "takes log-probabilities; use CrossEntropyLoss() with targets that are probabilities",
    "GaussianNLLLoss": "is not convex where the variance is an output; use MSELoss(), or HuberLoss()",
    "CTCLoss": "has no row-wise targets; a layer before it is no convex fit",
    "CosineEmbeddingLoss": "is not convex in the weights; use MSELoss() on outputs of unit length",
    "MultiLabelMarginLoss": "has lists of labels as targets; use MultiLabelSoftMarginLoss() on 0 and 1",
    "HingeEmbeddingLoss": "takes distances, not scores; use closedform.losses.HingeLoss()",
    "MarginRankingLoss": "takes two outputs; use SoftMarginLoss() on the difference of the two feature rows",
    "TripletMarginLoss": "takes three outputs and is not convex in the weights; use SoftMarginLoss() on pairs",
}


@final
@dataclass(frozen=True)
class Targets:
    """What a table of targets is, as far as it decides how a criterion reads it.

    Attributes:
        columns: Columns of Y.
        one_dimensional: Whether Y came as ``(rows,)``.
        integers: Whether it holds integers or booleans.
    """

    columns: int
    one_dimensional: bool
    integers: bool


def criterion_by_name(name: str) -> nn.Module:
    """Return the module that a name stands for: one of :data:`CRITERIA`, or ``quantile:0.9``.

    Raises:
        InputError: no such name.

    Example:
        >>> criterion_by_name("cross-entropy")
        CrossEntropyLoss()
    """
    kind, _, rest = name.partition(":")
    if kind == "quantile" and rest:
        try:
            return PinballLoss(float(rest))
        except ValueError as error:
            raise InputError(
                f"criterion={name!r}: a quantile is a number between 0 and 1, as in 'quantile:0.9'."
            ) from error
    if name not in CRITERIA:
        raise InputError(f"criterion={name!r} is not known; use one of {', '.join(CRITERIA)} or quantile:0.9.")
    return CRITERIA[name]()


def is_squared_error(criterion: Any) -> bool:
    """Say whether a criterion is ``MSELoss`` with a reduction, so that the fit is least squares.

    Raises:
        InputError: it is, with reduction "none".
    """
    if type(criterion) is not nn.MSELoss:
        return False
    _averages(criterion)
    return True


def sums_squares(criterion: Any) -> bool:
    """Say whether a criterion is the sum of the squared errors, not their mean.

    Example:
        >>> sums_squares(nn.MSELoss(reduction="sum")), sums_squares("mse"), sums_squares(None)
        (True, False, False)
    """
    module = recognised(criterion)
    return type(module) is nn.MSELoss and not _averages(module)


def read_criterion(criterion: Any, targets: Targets) -> Criterion | Kinked:
    """Return the convex criterion that a module of torch is.

    Args:
        criterion: A module of ``torch.nn``, with its options, or one of ``closedform.losses``.
        targets: What the targets are.

    Raises:
        DataTypeError: no module.
        InputError: a criterion that is not convex in the weights, or options that cannot be used.
    """
    if isinstance(criterion, type) and issubclass(criterion, nn.Module):
        raise DataTypeError(f"criterion is the class {criterion.__name__}; pass an instance: {criterion.__name__}().")
    if not isinstance(criterion, nn.Module):
        what = getattr(criterion, "__name__", type(criterion).__name__)
        raise DataTypeError(
            f"criterion is {what}, which says nothing of its options; pass the module of torch.nn that it stands for, "
            "such as torch.nn.CrossEntropyLoss()."
        )
    name = type(criterion).__name__
    reader = _READERS.get(type(criterion))
    if reader is None:
        reason = _REFUSED.get(name, "is not a criterion that is known to be convex in the weights of a linear layer")
        raise InputError(f"{name} {reason}; known are {', '.join(sorted(kind.__name__ for kind in _READERS))}.")
    return reader(criterion, targets)


def _averages(criterion: Any) -> bool:
    """Return whether the reduction is the mean.

    Raises:
        InputError: it is neither mean nor sum.
    """
    reduction = criterion.reduction
    if reduction not in ("mean", "sum"):
        raise InputError(
            f'{type(criterion).__name__} has reduction={reduction!r}, which gives no single loss; use "mean" or "sum".'
        )
    return bool(reduction == "mean")


def _cross_entropy(criterion: Any, targets: Targets) -> Criterion:
    # One column of integers is labels, as files have them: there is nothing else that it could be.
    if targets.integers and targets.columns != 1:
        raise InputError(
            f"CrossEntropyLoss takes labels as (rows,), but Y has {targets.columns} columns of integers; pass Y[:, 0] "
            "if they are labels, or Y.double() if they are probabilities."
        )
    if not targets.integers and (targets.one_dimensional or targets.columns == 1):
        raise InputError(
            "CrossEntropyLoss takes integer labels (rows,) or probabilities (rows, classes), but Y is one column of "
            "floating numbers; pass Y.long() if they are labels."
        )
    if not targets.integers and criterion.ignore_index >= 0:
        raise InputError("CrossEntropyLoss with ignore_index >= 0 needs labels; Y holds probabilities.")

    return CrossEntropy(
        labels=targets.integers,
        weight=check_factors(criterion.weight, "the weight of CrossEntropyLoss"),
        smoothing=float(criterion.label_smoothing),
        ignore=criterion.ignore_index,
        averages=_averages(criterion),
    )


def _multi_margin(criterion: Any, targets: Targets) -> Criterion | Kinked:
    if not targets.integers or targets.columns != 1:
        what = "integers" if targets.integers else "floating numbers"
        raise InputError(
            f"MultiMarginLoss takes integer labels (rows,), but Y has {targets.columns} of {what} a row; pass "
            "labels as Y.long()."
        )
    return (MultiMargin if criterion.p == 2 else MultiMarginHinge)(
        margin=_width(criterion.margin, "margin"),
        weight=check_factors(criterion.weight, "the weight of MultiMarginLoss"),
        averages=_averages(criterion),
    )


def _factors(criterion: Any, attribute: str, targets: Targets) -> Any:
    what = f"the {attribute} of {type(criterion).__name__}"
    factors = check_factors(getattr(criterion, attribute), what)
    if factors is not None and factors.shape[0] not in (1, targets.columns):
        raise InputError(f"{what} has {factors.shape[0]} entries, but Y has {targets.columns} columns.")
    return factors


def _bce(criterion: Any, targets: Targets) -> Criterion:
    weight, positive = _factors(criterion, "weight", targets), _factors(criterion, "pos_weight", targets)
    return BCEWithLogits(weight=weight, pos_weight=positive, averages=_averages(criterion))


def _multi_label(criterion: Any, targets: Targets) -> Criterion:
    return MultiLabelSoftMargin(weight=_factors(criterion, "weight", targets), averages=_averages(criterion))


def _poisson(criterion: Any, targets: Targets) -> Criterion:
    if not criterion.log_input:
        raise InputError(
            "PoissonNLLLoss(log_input=False) is not defined for outputs that are not positive, which a linear layer "
            "has; the nearest is PoissonNLLLoss(log_input=True), where the layer's output is the log of the rate."
        )
    return Poisson(full=criterion.full, averages=_averages(criterion))


def _width(value: Any, what: str) -> float:
    width = float(value)
    if not (0 < width < math.inf):
        raise InputError(f"{what}={width:g} must be finite and positive.")
    return width


def _smooth(criterion: Any, targets: Targets) -> Criterion | Kinked:
    if criterion.beta == 0:
        return Absolute("SmoothL1Loss", averages=_averages(criterion))
    return SmoothL1(_width(criterion.beta, "beta"), averages=_averages(criterion))


def _huber(criterion: Any, targets: Targets) -> Criterion:
    return Huber(_width(criterion.delta, "delta"), averages=_averages(criterion))


_READERS: dict[type[nn.Module], Callable[[Any, Targets], Criterion | Kinked]] = {
    nn.CrossEntropyLoss: _cross_entropy,
    nn.BCEWithLogitsLoss: _bce,
    nn.MultiLabelSoftMarginLoss: _multi_label,
    nn.MultiMarginLoss: _multi_margin,
    nn.SoftMarginLoss: lambda criterion, targets: SoftMargin(averages=_averages(criterion)),
    nn.PoissonNLLLoss: _poisson,
    nn.HuberLoss: _huber,
    nn.SmoothL1Loss: _smooth,
    nn.L1Loss: lambda criterion, targets: Absolute("L1Loss", averages=_averages(criterion)),
    PinballLoss: lambda criterion, targets: Pinball(criterion.quantile, averages=_averages(criterion)),
    HingeLoss: lambda criterion, targets: Hinge(
        averages=_averages(criterion), pos_weight=_factors(criterion, "pos_weight", targets)
    ),
    SquaredHingeLoss: lambda criterion, targets: SquaredHinge(
        averages=_averages(criterion), pos_weight=_factors(criterion, "pos_weight", targets)
    ),
}

"""A diagnosis by another criterion than squared error: whether there is a minimiser, how far, how steep."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn
from typing_extensions import override

from closedform.explain.forecasts.family import descent_of
from closedform.explain.readers.models import find_layer, read_model
from closedform.explain.readers.optimizers import OptimizerReading, read_optimizer
from closedform.files import open_problem
from closedform.fit.convex import (
    ConvexRequest,
    ConvexSolution,
    Curvature,
    curvature_at,
    divisor_of,
    excess_over,
    loss_at,
    solve_criterion,
)
from closedform.fit.orchestrator import solve
from closedform.fit.request import check_ridge
from closedform.fit.weights import Weights
from closedform.losses import CRITERIA, HingeLoss, PinballLoss, SquaredHingeLoss
from closedform.report import Document, Report, Section
from closedform.report.document import Paragraph
from closedform.rows import Rows, as_rows
from closedform.words.errors import InputError
from closedform.words.json_values import plain
from closedform.words.numbers import short

__all__ = ["CriterionDiagnosis", "diagnose_criterion", "has_its_own_minimiser"]

#: Excess, relative to the loss, that is rounding.
_NOTHING = 1e-10
#: Wider than residuals are.
_BEYOND_ALL = 1e150
#: Rows that a model is tried on.
_TRIED_ROWS = 64
#: Criteria of residuals, which are explained beside squared error.
_OF_RESIDUALS = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
#: Relative difference of ridge strengths that are the same: weight decays are typed in decimals.
_SAME_RIDGE = 1e-6
#: All criteria that are known.
_KINDS = tuple({type(make()) for make in CRITERIA.values()} | {HingeLoss, PinballLoss, SquaredHingeLoss})


def has_its_own_minimiser(criterion: Any) -> bool:
    """Say whether a criterion is convex, known, and none of residuals, so that squared error says nothing of it.

    Example:
        >>> has_its_own_minimiser(nn.CrossEntropyLoss()), has_its_own_minimiser(nn.MSELoss())
        (True, False)
    """
    return isinstance(criterion, _KINDS) and not isinstance(criterion, _OF_RESIDUALS)


@final
@dataclass(frozen=True, repr=False, eq=False)
class CriterionDiagnosis(Report):
    """What keeps an optimizer from the minimum of a convex criterion. Print it.

    Attributes:
        solution: The exact minimiser, in float64; or the proof that none exists (``solution.direction``).
        loss: The criterion, with its penalty, at the present weights (zero weights without a model).
        excess_loss: A proven bound on how far that is above the minimum; nan where no minimum is proven.
        at_start: How the loss bends at the present weights; None where it has kinks, or too many weights to tell.
        at_minimum: How it bends at the minimum; None likewise, and where there is none.
        sentences: What follows, the most important first.
    """

    solution: ConvexSolution
    loss: float
    excess_loss: float
    at_start: Curvature | None
    at_minimum: Curvature | None
    sentences: tuple[str, ...]

    @property
    def condition(self) -> float:
        """Condition number of the Hessian at the minimum; nan where there is none."""
        return math.nan if self.at_minimum is None else self.at_minimum.condition

    @property
    def learning_rate_limit(self) -> float:
        """The largest stable step of plain gradient descent near the minimum; nan where there is none."""
        return math.nan if self.at_minimum is None else self.at_minimum.learning_rate_limit

    def to_dict(self) -> dict[str, Any]:
        """Return its numbers and sentences as plain values for JSON; what is not finite becomes None."""
        numbers: dict[str, Any] = plain(
            {
                "loss": self.loss,
                "excess_loss": self.excess_loss,
                "condition": self.condition,
                "learning_rate_limit": self.learning_rate_limit,
                "condition_at_start": None if self.at_start is None else self.at_start.condition,
                "learning_rate_limit_at_start": None if self.at_start is None else self.at_start.learning_rate_limit,
            }
        )
        return {**numbers, "sentences": list(self.sentences), "solution": self.solution.to_dict()}

    @override
    def summary(self) -> Document:
        first, *rest = self.sentences
        about = f"{self.solution.criterion}: {self.solution.sentence}"
        return Document(
            title=first,
            about=about,
            lead=(Section(first, (), tone="headline"),),
            sections=(Section("", tuple(Paragraph(text) for text in (*rest, f"{about}."))),),
        )

    @override
    def page(self) -> Document:
        return self.summary()

    __repr__ = Report.__str__


def diagnose_criterion(
    X: Any,
    Y: Any,
    criterion: nn.Module,
    *,
    bias: bool,
    l2: float,
    sample_weight: Any,
    model: Any,
    optimizer: Any,
    function: Callable[..., Any] | None = None,
    **for_squares: Any,
) -> CriterionDiagnosis:
    """As :func:`closedform.diagnose`, for a criterion that has a minimiser of its own.

    Args:
        X: Features.
        Y: Targets as the criterion takes them.
        criterion: The module.
        bias: Whether the layer has a bias; that of the model counts where one is given.
        l2: Ridge strength.
        sample_weight: One weight for each row, or None.
        model: The model, or None for zero weights.
        optimizer: The optimizer, or None.
        function: The function that the criterion was recognised in, or None.
        **for_squares: Arguments that only squared error has, refused where they are set.

    Raises:
        InputError: a model that does not fit the data, or arguments that are for squared error.
    """
    for name, value in for_squares.items():
        if value is not None:
            raise InputError(f"{name}= is for squared error; leave it out with {type(criterion).__name__}().")
    opened = open_problem(X, Y, sample_weight)
    rows = as_rows(opened.X, opened.Y, opened.sample_weight)
    layer = None if model is None else _layer_of(model, rows)
    trained = None if optimizer is None else read_optimizer(optimizer, None if model is None else find_layer(model)[0])
    strength = check_ridge(l2, 1)[0]
    request = ConvexRequest(
        criterion,
        bias if layer is None else layer.bias is not None,
        strength,
        None if layer is None else layer.weight.shape[0],
        torch.float64,
        progress=False,
        function=function,
    )

    solution = solve_criterion(rows, request)
    best = Weights(solution.weight, solution.bias)
    start = best.map(torch.zeros_like) if layer is None else layer
    measured = excess_over(rows, request, start, solution)
    known = solution.outcome.certified
    at_minimum = curvature_at(rows, criterion, best, strength) if known else None
    found = CriterionDiagnosis(
        solution=solution,
        loss=measured.loss,
        excess_loss=max(measured.excess_loss, 0.0) + solution.certificate.excess_loss if known else math.nan,
        at_start=curvature_at(rows, criterion, start, strength),
        at_minimum=at_minimum,
        sentences=(),
    )
    said = (*_existence(found), *_steepness(found), *_steps(found, trained, rows, request))
    if known and isinstance(criterion, _OF_RESIDUALS):
        said = (*said, *_beside_squares(rows, request, sample_weight, solution))
    return CriterionDiagnosis(solution, found.loss, found.excess_loss, found.at_start, at_minimum, said)


def _beside_squares(rows: Rows, request: ConvexRequest, sample_weight: Any, solution: ConvexSolution) -> list[str]:
    """Say whether least squares has the same minimiser, by the losses of both at both."""
    squares = solve(rows.x, rows.y, bias=request.bias, l2=request.l2, sample_weight=sample_weight)
    there, here = Weights(squares.weight, squares.bias).to(torch.float64), Weights(solution.weight, solution.bias)
    excess = excess_over(rows, request, there, solution)
    # Huber's loss is half the squared error where its delta is beyond all residuals.
    errors = [2 * loss_at(rows, nn.HuberLoss(delta=_BEYOND_ALL), weights) for weights in (there, here)]
    name, least = solution.criterion, solution.certificate.loss
    zero = loss_at(rows, request.criterion, here.map(torch.zeros_like))
    if excess.excess_loss <= _NOTHING * zero and solution.certificate.loss <= _NOTHING * zero:
        return [
            f"Least squares has the same minimiser: its weights meet every row up to rounding, so that {name} there is "
            f"{short(excess.loss)}, and no loss is below zero."
        ]
    if excess.excess_loss <= _NOTHING * excess.loss:
        return [f"Least squares has the same minimiser, up to rounding: {name} there is {short(excess.loss)}."]
    return [
        f"Least squares has another minimiser: {name} is {short(excess.loss)} there and {short(least)} at its own, the "
        f"mean squared error {short(errors[0])} there and {short(errors[1])} here; no optimizer and no learning rate "
        "makes them one."
    ]


def _layer_of(model: Any, rows: Rows) -> Weights:
    """Return the weights of a model that is a layer and else only reshapes, in float64.

    Raises:
        InputError: it does not fit the data.
    """
    layer = find_layer(model)[0]
    if layer.in_features != rows.n_features:
        raise InputError(f"the model takes {layer.in_features} features, but X has {rows.n_features}.")
    read_model(model, rows.block(0, min(rows.n_rows, _TRIED_ROWS), as_stored=True).X, 1.0)
    return Weights.of_layer(layer, rows.device)


def _existence(found: CriterionDiagnosis) -> list[str]:
    if found.solution.direction is not None:
        return [
            "No minimiser exists: the weights grow for ever under any optimizer and at any learning rate, as along "
            "solution.direction no row's loss rises and some fall for ever. weight_decay (l2 here) gives it a minimum."
        ]
    if not found.solution.outcome.certified:
        return ["Nothing is proven of the minimum."]
    return [f"The loss is {short(found.loss)}, at most {short(found.excess_loss)} above the minimum."]


def _steepness(found: CriterionDiagnosis) -> list[str]:
    said = []
    for where, bent in (("at the minimum", found.at_minimum), ("at the present weights", found.at_start)):
        if bent is not None:
            flat = f", flat along {bent.flat_directions} directions" if bent.flat_directions else ""
            said.append(
                f"Condition of the Hessian {where}: {short(bent.condition)}{flat}; "
                f"plain gradient descent is stable there below lr {short(bent.learning_rate_limit)}."
            )
    return said


def _steps(
    found: CriterionDiagnosis, optimizer: OptimizerReading | None, rows: Rows, request: ConvexRequest
) -> list[str]:
    """Say what a run of the optimizer heads for, and how one of SGD ends."""
    if optimizer is None:
        return []
    if optimizer.maximizes:
        return [f"maximize=True climbs: every step makes {found.solution.criterion} larger."]
    said = [
        f"The optimizer does not train the layer's {name}: this minimum is not its own." for name in optimizer.frozen
    ]
    elsewhere, sentences = _decay(optimizer, rows, request, found.solution)
    said += sentences
    if optimizer.kind != "sgd" or elsewhere:
        return said

    if found.solution.sharp:
        said.append(
            f"The gradient of {found.solution.criterion} does not shrink towards the minimum: with a constant "
            f"lr {optimizer.lr:g} SGD never comes to rest; let it fall."
        )
    bent = found.at_minimum
    if bent is None or optimizer.no_closed_form or not bent.largest > 0:
        return said
    descent = descent_of(optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.dampening)
    limit = descent.step_limit(bent.largest)
    if optimizer.lr >= limit:
        return [
            *said,
            f"lr {optimizer.lr:g} is not below {short(limit)}: full batches of SGD cannot come to rest at the minimum.",
        ]
    # The slowest of all directions is at one of the ends: the least curved, or, close to the limit, the most.
    slowest = max(descent.growth(optimizer.lr * curvature) for curvature in (bent.smallest, bent.largest))
    if 0 < slowest < 1:
        said.append(
            f"In the end lr {optimizer.lr:g} shrinks the slowest error by a factor e every "
            f"{short(-1 / math.log(slowest))} steps."
        )
    return said


def _decay(
    optimizer: OptimizerReading, rows: Rows, request: ConvexRequest, solution: ConvexSolution
) -> tuple[bool, list[str]]:
    """Say which ridge the weight decay is, and whether its minimiser is another one than that of the ridge given."""
    decay, given = optimizer.weight_decay, float(request.l2)
    if not max(decay, optimizer.bias_decay if request.bias else 0.0) > 0:
        return False, []
    if optimizer.decoupled:
        return True, [
            f"weight_decay={decay:g} of {optimizer.name} acts beside the gradient, as no ridge does: it pulls the "
            "weights away from every minimum of the loss but zero."
        ]

    l2 = decay * divisor_of(rows, request.criterion, solution.weight.shape[0])
    too = " (it decays the bias too)" if request.bias and optimizer.bias_decay else ""
    if not given:
        return True, [f"weight_decay={decay:g} has another minimiser, that of l2={l2:g}{too}."]
    if math.isclose(l2, given, rel_tol=_SAME_RIDGE):
        return bool(too), [
            f"weight_decay={decay:g} is the l2={given:g} given{too}; it is added where the loss that is trained has "
            "that penalty as well."
        ]
    return True, [
        f"weight_decay={decay:g} is a ridge of l2={l2:g}{too}: beside the l2={given:g} given it has another minimiser, "
        f"that of l2={l2 + given:g}."
    ]

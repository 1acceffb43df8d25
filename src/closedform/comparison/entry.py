"""Real optimizers beside the closed form, in the same minutes, on the same rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, overload

import torch
from torch import nn

from closedform.comparison.contenders import CONTENDERS, Contender
from closedform.comparison.contest import Contest, fresh_layer
from closedform.comparison.criteria.contest import CriterionContest, contenders_for
from closedform.comparison.criteria.problem import Tables
from closedform.comparison.criteria.results import CriterionComparison
from closedform.comparison.races import LEAST_SHARE
from closedform.comparison.results import Comparison
from closedform.comparison.tables import held_out_rows, held_out_table
from closedform.engine.tracing import untraced
from closedform.files import open_problem
from closedform.fit.convex import ConvexRequest
from closedform.fit.layers import check_finite, check_linear
from closedform.fit.request import check_ridge
from closedform.rows import Rows, as_rows
from closedform.words.arguments import plain_number, whole_number
from closedform.words.errors import InputError
from closedform.words.numbers import plural
from closedform.words.progress import Progress

__all__ = ["OPTIMIZERS", "compare", "compare_after"]

OPTIMIZERS = tuple(contender.name for contender in CONTENDERS)

#: What torch.manual_seed takes.
_SEEDS = (-(2**63), 2**64 - 1)


@overload
def compare(
    X: Any,
    Y: Any,
    X_test: Any = ...,
    Y_test: Any = ...,
    *,
    bias: bool = ...,
    sample_weight: Any = ...,
    criterion: None = ...,
    l2: float = ...,
    optimizers: Sequence[str] = ...,
    budget: float = ...,
    layer: nn.Linear | None = ...,
    seed: int = ...,
    progress: Callable[[str, float], None] | bool | None = ...,
    clock: Callable[[], float] = ...,
) -> Comparison: ...


@overload
def compare(
    X: Any,
    Y: Any,
    X_test: Any = ...,
    Y_test: Any = ...,
    *,
    bias: bool = ...,
    sample_weight: Any = ...,
    criterion: nn.Module | str | None,
    l2: float = ...,
    optimizers: Sequence[str] = ...,
    budget: float = ...,
    layer: nn.Linear | None = ...,
    seed: int = ...,
    progress: Callable[[str, float], None] | bool | None = ...,
    clock: Callable[[], float] = ...,
) -> Comparison | CriterionComparison: ...


@untraced
def compare(
    X: Any,
    Y: Any,
    X_test: Any = None,
    Y_test: Any = None,
    *,
    bias: bool = False,
    sample_weight: Any = None,
    criterion: nn.Module | str | None = None,
    l2: float = 0.0,
    optimizers: Sequence[str] = OPTIMIZERS,
    budget: float = 30.0,
    layer: nn.Linear | None = None,
    seed: int = 0,
    progress: Callable[[str, float], None] | bool | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison | CriterionComparison:
    """Train ``nn.Linear`` with real optimizers and set what they reach beside the closed form.

    Every optimizer gets its own fresh layer with the same starting weights, the whole table as one batch,
    ``MSELoss()`` and an equal share of the budget. SGD, with and without momentum, runs at the learning rate and
    momentum whose forecast is best for about as many steps as there is time for; Adam's learning rate is the best of
    a short search within its own time. Only training is billed; losses are measured off the clock, in float64, and
    the result says what else took time. Training stops early where nothing more can come: converged to rounding,
    diverged, or stuck. Ctrl-C ends the training and returns what is there, with ``interrupted`` set. Where the numbers
    are beyond the range of the dtype no optimizer is run, and the sentence says so. Neither the arguments nor the
    global random number generator are changed; autocast, ``no_grad`` and inference mode of the caller are switched off
    for the time of the call.

    Args:
        X: Features, ``(rows, features)``; trained on in their own floating dtype, float64 if they are integers.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``; trained on in the dtype of X, measured as they are.
        X_test: Features of test rows, or None.
        Y_test: Their targets, or None.
        bias: Whether the layer has a bias.
        sample_weight: One non-negative weight per row, or None; the loss is then the weighted mean.
        criterion: A convex loss, as for :func:`closedform.solve`: the optimizers are trained on it, and measured
            against its exact minimiser, with a proven bound on the excess. None for squared error.
        l2: Ridge strength beside a criterion, trained as well: ``l2 / 2 * |W|^2`` over what its mean divides by.
        optimizers: Names out of ``sgd``, ``momentum``, ``nesterov``, ``adam``, ``lbfgs``, ``lbfgs strong wolfe``,
            ``rls`` (:class:`closedform.optim.RecursiveLeastSquares`).
        budget: Seconds for the comparison: what the closed form, the diagnosis and the peers leave of them is shared
            by the optimizers, and at least an eighth. Each makes at least one step.
        layer: A layer to take the starting weights from; by default those of a new ``nn.Linear``.
        seed: Seed of a new layer's weights: those of ``nn.Linear`` after ``torch.manual_seed(seed)``.
        progress: ``None`` shows progress on interactive terminals after two seconds; ``False`` never; a function is
            called with a label and the part done, from 0 to 1, about ten times a second.
        clock: Tells the seconds that are billed; one that counts its calls makes a comparison the same every time.

    Returns:
        A :class:`Comparison`: the closed form first, then the optimizers, then scikit-learn's ``LinearRegression`` if
        it is installed. Print it, ``.plot()`` it, or write it with ``.to_html()``. With a criterion a
        :class:`closedform.CriterionComparison`; where no minimiser exists, no optimizer is run.

    Raises:
        InputError: shapes that do not belong together, an unknown optimizer, a budget that is not positive, a seed
            that torch does not take, or weights of the minimiser that the dtype of X cannot hold.
        NonFiniteError: NaN or infinity in the data.
        DataTypeError: data that are not dense real numbers, or a layer that is no ``nn.Linear``.

    Example:
        >>> import torch
        >>> from closedform.comparison.entry import compare
        >>> X = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> result = compare(X, X @ torch.tensor([1.0, 2.0, 3.0]).double(), optimizers=["sgd"], budget=2.0)
        >>> result["sgd"].excess_loss < 1e-20
        True
    """
    return compare_after(
        0.0,
        X,
        Y,
        X_test,
        Y_test,
        bias=bias,
        sample_weight=sample_weight,
        criterion=criterion,
        l2=l2,
        optimizers=optimizers,
        budget=budget,
        layer=layer,
        seed=seed,
        progress=progress,
        clock=clock,
    )


def compare_after(
    waited: float,
    X: Any,
    Y: Any,
    X_test: Any = None,
    Y_test: Any = None,
    *,
    bias: bool = False,
    sample_weight: Any = None,
    criterion: nn.Module | str | None = None,
    l2: float = 0.0,
    optimizers: Sequence[str] = OPTIMIZERS,
    budget: float = 30.0,
    layer: nn.Linear | None = None,
    seed: int = 0,
    progress: Callable[[str, float], None] | bool | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison | CriterionComparison:
    """As :func:`compare`, for a command line, whose user has waited for so many seconds of the budget already.

    Arguments are those of :func:`compare`.

    Raises:
        InputError: as there, and so are the other errors.
    """
    contenders = _choose(optimizers)
    seconds, number = plain_number(budget), whole_number(seed)
    if seconds is None or not 0 < seconds < math.inf:
        raise InputError(f"budget is {budget}; it is the number of seconds to train for and must be positive.")
    if number is None or not _SEEDS[0] <= number <= _SEEDS[1]:
        raise InputError(f"seed is {seed}; torch takes integers from -2**63 to 2**64 - 1.")
    budget, seed = seconds, number

    with torch.inference_mode(False), torch.no_grad():
        opened = open_problem(X, Y, sample_weight)
        rows = as_rows(opened.X, opened.Y, opened.sample_weight).loaded()
        convex = _by_criterion(criterion, l2, bias, layer)
        if convex is not None:
            tables = Tables(rows, held_out_table(X_test, Y_test, rows))
            make_layer = partial(fresh_layer, rows, bias, layer, seed)
            left = max(budget - waited, LEAST_SHARE * budget)
            by_criterion = CriterionContest(tables, convex, contenders_for(contenders), left, make_layer, clock)

            with _plain_training(rows.device), Progress(progress) as report:
                return by_criterion.run(report)
        if layer is not None:
            _check_layer(layer, rows)
        test = held_out_rows(X_test, Y_test, rows)
    make_layer = partial(fresh_layer, rows, bias, layer, seed)
    contest = Contest(rows, test, bias, contenders, budget, make_layer, clock, waited)
    with _plain_training(rows.device), Progress(progress) as report:
        return contest.run(report)


def _by_criterion(
    criterion: nn.Module | str | None, l2: float, bias: bool, layer: nn.Linear | None
) -> ConvexRequest | None:
    """Return what is asked of the exact fit by a criterion, or None for squared error.

    Raises:
        InputError: a ridge without a criterion, which this comparison does not train.
    """
    if layer is not None:
        check_linear(layer)
        check_finite(layer)
    outputs = None if layer is None else layer.out_features
    strength = check_ridge(l2, 1)[0]
    convex = ConvexRequest.checked(
        criterion, bias=bias, l2=strength, outputs=outputs, dtype=torch.float64, progress=False
    )
    if convex is None and strength:
        raise InputError(f"l2={l2!r} is for another criterion than squared error; leave it out.")
    return convex


@contextmanager
def _plain_training(device: torch.device) -> Iterator[None]:
    """Train in the dtype of the layer and with gradients, whatever the caller has switched on."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield


def _choose(names: Sequence[str]) -> list[Contender]:
    try:
        names = [names] if isinstance(names, str) else list(names)
    except TypeError as error:
        raise InputError(f"optimizers={names!r} must be a list of names.") from error
    known = {contender.name: contender for contender in CONTENDERS}
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise InputError(f"unknown optimizer {name!r}; choose from: {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(names)]


def _check_layer(layer: nn.Linear, rows: Rows) -> None:
    check_linear(layer)
    check_finite(layer)
    if (layer.in_features, layer.out_features) != (rows.n_features, rows.n_targets):
        raise InputError(
            f"layer maps {plural(layer.in_features, 'feature')} to {plural(layer.out_features, 'target')}, but the "
            f"data have {rows.n_features} and {rows.n_targets}."
        )

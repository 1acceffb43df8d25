"""The public door of a diagnosis: it checks what the user passed, and changes none of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor, nn

from closedform.engine.tracing import untraced
from closedform.explain.case import Case
from closedform.explain.criteria import CriterionDiagnosis, diagnose_criterion, has_its_own_minimiser
from closedform.explain.diagnosis import Diagnosis
from closedform.explain.landscape import Landscape, survey
from closedform.explain.precision import Precision, tf32_in_use
from closedform.explain.readers.criteria import Pairing, read_criterion
from closedform.explain.readers.models import ModelReading, find_layer, read_model
from closedform.explain.readers.optimizers import read_optimizer
from closedform.explain.readers.schedules import read_schedule
from closedform.explain.setting import GOAL, Command, Setting, Table, describe
from closedform.explain.training import Training
from closedform.explain.wording import plural
from closedform.files import open_problem
from closedform.fit.request import check_bias
from closedform.losses import HingeLoss, PinballLoss, SquaredHingeLoss, recognised
from closedform.rows import Rows, Scan, as_rows
from closedform.words.arguments import plain_number
from closedform.words.errors import InputError

__all__ = ["diagnose", "diagnose_for"]

#: Numbers of X that a model is tried on.
_TRIED = 2**22

#: Criteria that have a minimiser of their own.
OwnMinimiser: TypeAlias = (
    nn.CrossEntropyLoss
    | nn.BCEWithLogitsLoss
    | nn.SoftMarginLoss
    | nn.MultiLabelSoftMarginLoss
    | nn.PoissonNLLLoss
    | HingeLoss
    | PinballLoss
    | SquaredHingeLoss
)


@overload
def diagnose(
    X: Any,
    Y: Any,
    *,
    bias: bool = ...,
    l2: float = ...,
    sample_weight: Any = ...,
    model: Any = ...,
    optimizer: Any = ...,
    criterion: OwnMinimiser,
    scheduler: Any = ...,
    steps: int | None = ...,
    batch_size: int | None = ...,
    history: Any = ...,
    goal: float = ...,
    feature_names: Sequence[str] | None = ...,
    exact_up_to: int = ...,
) -> CriterionDiagnosis: ...


@overload
def diagnose(
    X: Any,
    Y: Any,
    *,
    bias: bool = ...,
    l2: float = ...,
    sample_weight: Any = ...,
    model: Any = ...,
    optimizer: Any = ...,
    criterion: Any = ...,
    scheduler: Any = ...,
    steps: int | None = ...,
    batch_size: int | None = ...,
    history: Any = ...,
    goal: float = ...,
    feature_names: Sequence[str] | None = ...,
    exact_up_to: int = ...,
) -> Diagnosis: ...


@untraced
def diagnose(
    X: Any,
    Y: Any,
    *,
    bias: bool = False,
    l2: float = 0.0,
    sample_weight: Any = None,
    model: Any = None,
    optimizer: Any = None,
    criterion: Any = None,
    scheduler: Any = None,
    steps: int | None = None,
    batch_size: int | None = None,
    history: Any = None,
    goal: float = GOAL,
    feature_names: Sequence[str] | None = None,
    exact_up_to: int = 20_000,
) -> Diagnosis | CriterionDiagnosis:
    """Tell what keeps an optimizer from the least-squares minimiser on these data, in numbers, and what would help.

    Pass what you train with; the more is given, the more can be said. The model, the optimizer, the scheduler and the
    global random number generator are read and never changed.

    Args:
        X: Features, ``(rows, features)`` or ``(..., features)``, as for :func:`closedform.solve`.
        Y: Targets exactly as the criterion gets them: ``(rows,)`` or ``(rows, targets)``.
        bias: Whether the layer has a bias; that of ``model`` counts where one is given.
        l2: Ridge strength as for :func:`closedform.solve`; all losses then include it.
        sample_weight: One weight for each row; the loss is then the weighted mean.
        model: ``torch.nn.Linear``, or a module that holds one and otherwise only reshapes, which is tried in train mode
            on rows of X. Its weights at the call are where forecasts start; without a model that is zero weights.
        optimizer: The ``torch.optim`` optimizer over the model's parameters. SGD is forecast in closed form; Adam and
            its kin and LBFGS are rehearsed on the triangle of the rows, with a copy of their state, and extrapolated
            where they take long.
        criterion: The loss, called as ``criterion(output, target)``; it is recognised by its values for the shapes of
            the model's output and of Y. A criterion of other things than residuals (``CrossEntropyLoss()``,
            ``BCEWithLogitsLoss()``, ``PoissonNLLLoss()``, margins, quantiles) has a minimiser of its own, and a
            :class:`closedform.CriterionDiagnosis` is returned.
        scheduler: The learning-rate scheduler, stepped once per step (a copy of it is).
        steps: Steps that the run has from the model's present weights on; 100,000 where none are given.
        batch_size: Rows in a batch; the full batch if None.
        history: Losses recorded of the run from the model's weights on, one every so many steps; compared with the
            forecast.
        goal: Share of the excess loss of zero weights (with a bias: of the best constant) that may be left, which
            counts as having come to the minimum.
        feature_names: Names for the columns of X; where it is a frame, or a file with named columns, those are used.
        exact_up_to: With more features than this (and many rows) only the leading part of the spectrum is computed.

    Returns:
        A :class:`Diagnosis`: print it, or see ``.verdict``, ``.findings``, ``.forecast(...)``, ``.rehearse(...)``.

    Raises:
        InputError: shapes that do not belong together, an optimizer over other parameters, a model of more than one
            layer, an empty history, numbers out of range.
        NonFiniteError: NaN or infinities in the data.
        DataTypeError: data that are not dense real numbers, or objects of the wrong kind.

    Example:
        >>> import torch
        >>> from closedform.explain.entry import diagnose
        >>> X = torch.tensor([[-249.69, -4.1511], [-4.1511, -0.20755]], dtype=torch.float64)
        >>> d = diagnose(X, torch.tensor([0.0, 10.0]))
        >>> d.verdict.name, round(d.condition, 1)
        ('more_steps_needed', 1803.3)
        >>> round(d.forecast("sgd", lr=3.2e-5, steps=10**6).loss[-1].item(), 3)
        14.645
    """
    named = recognised(criterion)
    if has_its_own_minimiser(named):
        return diagnose_criterion(
            X,
            Y,
            named,
            function=None if named is criterion else criterion,
            bias=bias,
            l2=l2,
            sample_weight=sample_weight,
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            steps=steps,
            batch_size=batch_size,
            history=history,
            feature_names=feature_names,
        )

    return diagnose_for(
        None,
        X,
        Y,
        bias=bias,
        l2=l2,
        sample_weight=sample_weight,
        model=model,
        optimizer=optimizer,
        criterion=criterion,
        scheduler=scheduler,
        steps=steps,
        batch_size=batch_size,
        history=history,
        goal=goal,
        feature_names=feature_names,
        exact_up_to=exact_up_to,
    )


def diagnose_for(
    command: Command | None,
    X: Any,
    Y: Any,
    *,
    bias: bool = False,
    l2: float = 0.0,
    sample_weight: Any = None,
    model: Any = None,
    optimizer: Any = None,
    criterion: Any = None,
    scheduler: Any = None,
    steps: int | None = None,
    batch_size: int | None = None,
    history: Any = None,
    goal: float = GOAL,
    feature_names: Sequence[str] | None = None,
    exact_up_to: int = 20_000,
    scanned: Scan | None = None,
) -> Diagnosis:
    """As :func:`diagnose`, for a command line, whose remedies are commands, and for rows that were scanned before.

    Arguments and errors are those of :func:`diagnose`. ``command`` is the command line that asks, None in Python;
    ``scanned`` is what a scan of these rows has told, where there was one: they are not scanned again then.
    """
    _check_ridge_and_goal(l2, goal)
    bias = check_bias(bias)
    opened = open_problem(X, Y, sample_weight)
    X, Y, sample_weight = opened.X, opened.Y, opened.sample_weight
    rows = as_rows(X, Y, sample_weight)
    _check_counts(rows, steps, batch_size, exact_up_to, feature_names)

    layer = None if model is None else find_layer(model)[0]
    read = None if model is None else read_model(model, _as_given(X, rows), _largest(rows))
    if read is not None:
        _check_fit(read, rows)
        bias = read.bias is not None
    pairing = _pairing(X, rows, read)
    table = describe(rows, X, bias=bias)
    device = rows.device if read is None else read.weight.device

    setting = Setting(
        table=table,
        bias=bias,
        l2=float(l2),
        goal=float(goal),
        steps=steps,
        batch_size=batch_size,
        model=read,
        optimizer=None if optimizer is None else read_optimizer(optimizer, layer),
        criterion=None if criterion is None else read_criterion(criterion, rows.n_rows, rows.n_targets, pairing),
        schedule=None if scheduler is None else read_schedule(scheduler, optimizer),
        history=None if history is None else _check_history(history),
        names=rows.feature_names if feature_names is None else tuple(str(name) for name in feature_names),
        pairing=pairing,
        precision=_precision(table, read, device),
        device=device,
        command=command,
    )
    landscape = _survey(rows, setting, exact_up_to, scanned)
    return Diagnosis(Case(setting, landscape, Training(setting, landscape)))


def _survey(rows: Rows, setting: Setting, exact_up_to: int, scanned: Scan | None) -> Landscape:
    """Read the rows for what this setting asks of them."""
    criterion = setting.criterion
    return survey(
        rows,
        bias=setting.bias,
        l2=setting.l2,
        exact_up_to=exact_up_to,
        batches=not setting.full_batch,
        crosses=setting.broadcasts,
        criterion=None if setting.squared or criterion is None or criterion.problem else criterion.function,
        scanned=scanned,
    )


def _check_ridge_and_goal(l2: Any, goal: float) -> None:
    strength, share = plain_number(l2), plain_number(goal)
    if strength is None or not 0 <= strength < math.inf:
        raise InputError(f"l2={l2!r} must be one finite number that is not negative.")
    if share is None or not 0 < share < 1:
        raise InputError(f"goal={goal} must be between 0 and 1: the share of the excess loss that may be left.")


def _check_counts(
    rows: Rows, steps: Any, batch_size: Any, exact_up_to: Any, feature_names: Sequence[str] | None
) -> None:
    for name, value in (("steps", steps), ("batch_size", batch_size), ("exact_up_to", exact_up_to)):
        needed = name == "exact_up_to" or value is not None
        if needed and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name}={value!r} must be a whole number of at least 1.")
    if batch_size is not None and batch_size > rows.n_rows:
        raise InputError(f"batch_size={batch_size} is more than the {rows.n_rows} rows there are.")
    if feature_names is not None and not (isinstance(feature_names, Iterable) and hasattr(feature_names, "__len__")):
        raise InputError(f"feature_names={feature_names!r} must be a sequence of names, one for each feature.")
    if feature_names is not None and len(feature_names) != rows.n_features:
        named = plural(len(feature_names), "name")
        raise InputError(f"feature_names has {named} for {plural(rows.n_features, 'feature')}.")


def _as_given(X: Any, rows: Rows) -> Tensor:
    """The first rows of X, or all, with the leading dimensions that the user gives them."""
    leading = _leading(X, rows)
    inner = math.prod(leading[1:])
    outer = min(leading[0], max(2, _TRIED // (inner * rows.n_features)))
    return rows.block(0, outer * inner, as_stored=True).X.reshape(outer, *leading[1:], rows.n_features)


def _leading(X: Any, rows: Rows) -> tuple[int, ...]:
    shape = getattr(X, "shape", None)
    known = tuple(shape[:-1]) if shape is not None and len(shape) > 1 else ()
    if not all(isinstance(size, int) for size in known):
        return (rows.n_rows,)  # Dask counts its rows only when they are computed
    return known if known and math.prod(known) == rows.n_rows else (rows.n_rows,)


def _pairing(X: Any, rows: Rows, model: ModelReading | None) -> Pairing:
    """Shapes of output and target as the criterion gets them."""
    leading = _leading(X, rows)
    target = (*leading[1:], *(() if rows.single_target else (rows.n_targets,)))
    if model is None:
        # Without a model its output is taken to have the shape of Y.
        return Pairing(target, target)
    return Pairing(model.output_shape[1:], target)


def _largest(rows: Rows) -> float:
    first = rows.block(0, min(rows.n_rows, max(1, _TRIED // rows.n_targets))).Y
    largest = float(first.abs().max())
    return largest if math.isfinite(largest) else 1.0


def _precision(table: Table, model: ModelReading | None, device: torch.device) -> Precision:
    """The arithmetic that is trained in: the coarser of rows and weights."""
    dtype = table.dtype
    if model is not None and torch.finfo(model.weight.dtype).eps > torch.finfo(dtype).eps:
        dtype = model.weight.dtype
    return Precision(dtype, tf32=dtype == torch.float32 and tf32_in_use(device))


def _check_fit(model: ModelReading, rows: Rows) -> None:
    targets, features = model.weight.shape
    if (features, targets) != (rows.n_features, rows.n_targets):
        raise InputError(
            f"the model maps {plural(features, 'feature')} to {plural(targets, 'target')}, but the "
            f"data have {plural(rows.n_features, 'feature')} and {plural(rows.n_targets, 'target')}."
        )


def _check_history(history: Any) -> Tensor:
    # Frames and series are taken by position: torch would look their items up by the index.
    listed = np.array(history) if hasattr(history, "__array__") and not isinstance(history, Tensor) else history
    try:
        values = torch.as_tensor(listed, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"history is not a sequence of losses: {error}") from error
    if values.numel() == 0:
        raise InputError("history is empty; pass the losses recorded so far, or leave it out.")
    if values.numel() > max(values.shape, default=1):
        raise InputError(
            f"history has shape {tuple(values.shape)}; pass one loss for each point, say the column that holds them."
        )
    return values.reshape(-1).clone()

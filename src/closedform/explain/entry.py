"""The public door of a diagnosis: it checks what the user passed, and changes none of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from closedform.engine.tracing import untraced
from closedform.explain.diagnosis import Diagnosis
from closedform.explain.facts import Facts
from closedform.explain.optimizer import read_optimizer
from closedform.explain.setting import ModelFacts, read_criterion, read_model
from closedform.explain.wording import plural
from closedform.rows import Rows, as_rows
from closedform.words.errors import DataTypeError, InputError

__all__ = ["diagnose"]


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
    goal: float = 1e-6,
    feature_names: Sequence[str] | None = None,
    exact_up_to: int = 20_000,
) -> Diagnosis:
    """Tell what keeps an optimizer from the least-squares minimiser on these data, in numbers, and what would help.

    Pass what you train with; the more is given, the more can be said. The model, the optimizer, the scheduler and the
    global random number generator are read and never changed.

    Args:
        X: Features, ``(rows, features)`` or ``(..., features)``, as for :func:`closedform.solve`.
        Y: Targets exactly as the criterion gets them: ``(rows,)`` or ``(rows, targets)``.
        bias: Whether the layer has a bias; that of ``model`` counts where one is given.
        l2: Ridge strength as for :func:`closedform.solve`; all losses then include it.
        sample_weight: One weight for each row; the loss is then the weighted mean.
        model: ``torch.nn.Linear``, or a module that holds one and otherwise only reshapes. Its present weights are
            where forecasts start; without a model that is zero weights.
        optimizer: The ``torch.optim`` optimizer over the model's parameters. SGD is forecast in closed form; Adam and
            its kin and LBFGS are rehearsed on the triangle of the rows, with a copy of their state.
        criterion: The loss, called as ``criterion(output, target)``; it is recognised by its values.
        scheduler: The learning-rate scheduler, stepped once per step (a copy of it is).
        steps: Steps that the run has from the model's present weights on; 100,000 where none are given.
        batch_size: Rows in a batch; the full batch if None.
        history: Losses recorded so far, one per step or epoch.
        goal: Share of the excess loss of zero weights (with a bias: of the best constant) that may be left, which
            counts as having come to the minimum.
        feature_names: Names for the columns of X.
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
    if isinstance(l2, bool) or not isinstance(l2, int | float) or not (l2 >= 0 and math.isfinite(l2)):
        raise InputError(f"l2={l2!r} must be one finite number that is not negative.")
    if not 0 < goal < 1:
        raise InputError(f"goal={goal} must be between 0 and 1: the share of the excess loss that may be left.")
    rows = as_rows(X, Y, sample_weight)
    for name, value in (("steps", steps), ("batch_size", batch_size), ("exact_up_to", exact_up_to)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name}={value!r} must be a whole number of at least 1.")
    if batch_size is not None and batch_size > rows.n_rows:
        raise InputError(f"batch_size={batch_size} is more than the {rows.n_rows} rows there are.")
    if feature_names is not None and len(feature_names) != rows.n_features:
        named = plural(len(feature_names), "name")
        raise InputError(f"feature_names has {named} for {plural(rows.n_features, 'feature')}.")
    read = None if model is None else read_model(model)
    if read is not None:
        _check_fit(read, rows)
        bias = read.layer.bias is not None
    facts = Facts(
        rows=rows,
        bias=bias,
        l2=float(l2),
        goal=goal,
        steps=steps,
        batch_size=batch_size,
        model=read,
        optimizer=None if optimizer is None else read_optimizer(optimizer, None if read is None else read.layer),
        criterion=None if criterion is None else read_criterion(criterion, rows.n_rows, rows.n_targets),
        scheduler=_check_scheduler(scheduler, optimizer),
        history=None if history is None else _check_history(history),
        names=None if feature_names is None else tuple(str(name) for name in feature_names),
        exact_up_to=exact_up_to,
    )
    return Diagnosis(facts)


def _check_fit(model: ModelFacts, rows: Rows) -> None:
    layer = model.layer
    if (layer.in_features, layer.out_features) != (rows.n_features, rows.n_targets):
        raise InputError(
            f"the model maps {plural(layer.in_features, 'feature')} to {plural(layer.out_features, 'target')}, but the "
            f"data have {plural(rows.n_features, 'feature')} and {plural(rows.n_targets, 'target')}."
        )


def _check_scheduler(scheduler: Any, optimizer: Any) -> Any:
    if scheduler is None:
        return None
    if not isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler):
        raise DataTypeError(f"scheduler is a {type(scheduler).__name__}; a torch.optim.lr_scheduler is needed.")
    if scheduler.optimizer is not optimizer:
        raise InputError("the scheduler belongs to another optimizer than the one given as optimizer=.")
    return scheduler


def _check_history(history: Any) -> Tensor:
    try:
        values = torch.as_tensor(history, dtype=torch.float64).detach().reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"history is not a sequence of losses: {error}") from error
    if values.numel() == 0:
        raise InputError("history is empty; pass the losses recorded so far, or leave it out.")
    return values

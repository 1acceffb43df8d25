"""The door: a linear probe of one layer or of many."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from closedform.engine.tracing import untraced
from closedform.files import open_data, parsed_once, split_table
from closedform.fit.path import RidgePath, cross_entropy_path, ridge_path
from closedform.fit.request import Watcher
from closedform.losses import is_squared_error
from closedform.numerics.balance import balanced_weights
from closedform.probing.labels import Labels, encode, read_labels
from closedform.probing.record import LayerProbe
from closedform.probing.result import Probe
from closedform.probing.scores import score_classes, score_numbers
from closedform.probing.splits import check_seed, check_share, split_rows
from closedform.probing.tables import leading_shape, open_layers, rows_of
from closedform.rows.labels import check_alignment, check_names
from closedform.rows.norms import check_weights
from closedform.rows.one_hot import OneHotRows
from closedform.rows.source import Source
from closedform.rows.tensors import as_tensor
from closedform.words.arguments import plain_number, share_of_one
from closedform.words.errors import InputError
from closedform.words.numbers import plural

__all__ = ["probe"]

#: Classes that a note names before it only counts.
_LISTED = 5
#: The criterion of a logistic regression, by name.
_CROSS_ENTROPY = "cross-entropy"
#: The criteria that a probe takes by name; the first two are least squares.
_CRITERIA = ("squared", "mse", _CROSS_ENTROPY)
#: What ``task=`` takes.
_TASKS = (None, "classification", "regression")


@untraced
def probe(
    features: Any,
    labels: Any,
    *,
    test_features: Any = None,
    test_labels: Any = None,
    task: str | None = None,
    criterion: Any = None,
    l2: Any = None,
    bias: bool = True,
    class_weight: Any = None,
    sample_weight: Any = None,
    test_size: float = 0.25,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Watcher = None,
) -> Probe:
    r"""Fit a linear probe exactly and judge it on rows it has not seen.

    Classes are fitted as one-hot rows by least squares, all ridge strengths from one factor, and the strength with the
    least leave-one-out error is taken (one for all classes; for a regression one for each target). The fit there is
    certified. One-hot rows are made block by block and never all held. With ``criterion="cross-entropy"`` it is a
    logistic regression: its strength is the one with the least cross-entropy on five folds left out in turn, each of
    whose fits starts from that of the next stronger ridge.

    Args:
        features: Frozen features, ``(rows, features)``: a tensor, array, frame or path; a mapping of such by the names
            of layers, which gives one probe each; or a list: layers where each has a row for every label, shards of
            one table where their rows add up to that.
        labels: One for each row: integers, strings, booleans, one-hot rows, or numbers for a regression ``(rows,)`` or
            ``(rows, targets)``; a path, also of a text file with one label a line; or the name of a column, where
            ``features`` is one table that holds it (a frame, CSV, Parquet): the features are its other columns.
        test_features: Features to judge by, as ``features``; None holds some of the rows out.
        test_labels: Their labels.
        task: ``"classification"`` or ``"regression"`` where labels could be either; None finds out.
        criterion: None or ``"squared"`` for least squares, ``"cross-entropy"`` or ``nn.CrossEntropyLoss()``.
        l2: Ridge strengths to try; None makes a grid from the spectrum.
        bias: Whether the layer has a bias.
        class_weight: ``"balanced"`` gives every class the same total weight, or a mapping from classes to weights.
        sample_weight: One weight for each row of ``features``, for the fit.
        test_size: Part of the rows of each class that is held out where no test rows are given.
        seed: Of that choice.
        confidence: Of the interval of the accuracy.
        progress: As for :func:`closedform.solve`.

    Returns:
        A :class:`Probe`: ``accuracy``, ``interval``, ``path``, ``solution``, ``head()``, ``layers``.

    Raises:
        InputError: labels that are missing, of a mixture of kinds or of a single class; test labels that no training
            row has; tables whose rows are not those of the labels; activations with positions, which have to be
            pooled; another criterion, or one for numbers; and all that :func:`closedform.ridge_path` raises.
        SourceError: a file that cannot be read.

    Example:
        >>> import torch, closedform as cf
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = ["cat", "dog"] * 50
        >>> features = torch.randn(100, 3, dtype=torch.float64, generator=generator)
        >>> features[1::2, 0] += 8
        >>> result = cf.probe(features, labels)
        >>> result.accuracy, result.classes, result.solution.certificate.accepted
        (1.0, ('cat', 'dog'), True)
    """
    started = time.perf_counter()
    asked = _Asked(l2, bias, _check_confidence(confidence), progress, _is_cross_entropy(criterion), check_seed(seed))
    _check_task(task)
    held_out = test_features is None and test_labels is None
    with parsed_once():
        features, labels, sample_weight, chosen = split_table(features, labels, sample_weight)
        test_features, test_labels, *_ = split_table(test_features, test_labels)
        if not isinstance(features, Mapping):
            check_alignment(features=features, labels=labels, sample_weight=sample_weight)
        known = read_labels(labels, "labels", task, leading=leading_shape(features))
        layers = open_layers(features, known.count)
        weight = _read_weight(sample_weight, known.count)
        given = None if held_out else _given_test(test_features, test_labels, known, layers, task)

    if given is None:
        rows, kept_out = split_rows(known.count, _codes(known), check_share(test_size), asked.seed)
        train, test = ({name: rows_of(source, part) for name, source in layers.items()} for part in (rows, kept_out))
        truth, known = known.take(kept_out), known.take(rows)
        weight = None if weight is None else weight[rows]
        note = f"{plural(len(kept_out), 'row')} held out to judge by (test_size={test_size:g}, seed={seed})"
    else:
        train, (test, truth), note = layers, given, ""

    targets = _targets(known, truth, class_weight, weight)
    found = tuple(_fit(name, source, test[name], targets, asked) for name, source in train.items())
    return Probe(
        layers=found,
        classes=() if targets.classes is None else tuple(targets.classes.tolist()),
        train_rows=known.count,
        confidence=asked.confidence,
        notes=tuple(filter(None, (note, chosen, *known.notes, *_class_notes(targets)))),
        seconds=time.perf_counter() - started,
    )


@final
@dataclass(frozen=True)
class _Asked:
    """What is asked of every fit: strengths, a bias, the confidence of intervals, who is told, and the criterion."""

    l2: Any
    bias: bool
    confidence: float
    progress: Watcher
    cross_entropy: bool
    seed: int


@final
@dataclass(frozen=True, eq=False)
class _Targets:
    """What the probes of all layers have in common.

    Attributes:
        classes: In ascending order; None for a regression.
        train: Place of the class of each row, or its numbers.
        test: Those of the test rows.
        weight: Weights of the rows of the fit, or None.
    """

    classes: Any
    train: Tensor
    test: Tensor
    weight: Tensor | None


def _fit(name: str, train: Source, test: Source, targets: _Targets, asked: _Asked) -> LayerProbe:
    """Fit the probe of one layer, and judge it."""
    one_hot = targets.classes is not None
    if asked.cross_entropy:
        path = _cross_entropy(train, targets, asked)
        return LayerProbe(name, path, score_classes(path.solution, test, targets.test, asked.confidence))
    Y: Any = targets.train.to(train.device)
    if one_hot:
        Y = OneHotRows(Y, len(targets.classes), train.dtype)
    path = ridge_path(
        train,
        Y,
        l2=asked.l2,
        bias=asked.bias,
        sample_weight=None if targets.weight is None else targets.weight.to(train.device),
        per_target=not one_hot,
        progress=asked.progress,
    )
    if one_hot:
        return LayerProbe(name, path, score_classes(path.solution, test, targets.test, asked.confidence))
    return LayerProbe(name, path, score_numbers(path.solution, test, targets.test))


def _cross_entropy(train: Source, targets: _Targets, asked: _Asked) -> RidgePath:
    """Fit a logistic regression.

    Raises:
        InputError: the labels are numbers.
    """
    if targets.classes is None:
        raise InputError("criterion='cross-entropy' is for classes, and the labels are those of a regression.")
    return cross_entropy_path(
        train,
        targets.train.to(train.device),
        n_classes=len(targets.classes),
        l2=asked.l2,
        bias=asked.bias,
        sample_weight=None if targets.weight is None else targets.weight.to(train.device),
        seed=asked.seed,
        progress=asked.progress,
    )


def _targets(known: Labels, truth: Labels, class_weight: Any, weight: Tensor | None) -> _Targets:
    """Return what is fitted and what is judged by.

    Raises:
        InputError: a single class, classes that no training row has, other targets or columns, or weights of other
            classes.
    """
    if known.values is not None or truth.values is not None:
        if class_weight is not None:
            raise InputError("class_weight is given, and the labels are those of a regression.")
        if known.values is None or truth.values is None or known.values.shape[1] != truth.values.shape[1]:
            raise InputError(
                "labels and test_labels are not alike: give both as classes, or both with the same targets."
            )
        return _Targets(None, known.values, truth.values, weight)

    if None not in (known.width, truth.width) and known.width != truth.width:
        raise InputError(
            f"labels are {known.width} one-hot columns, and test_labels {truth.width}: their places are not the same "
            "classes. Give both the same columns, or frames whose columns have names."
        )
    classes = np.unique(known.names)
    if len(classes) < 2:
        raise InputError(f"all {known.count:,} labels are {classes[0]!s}; a probe needs rows of two classes at least.")
    codes = encode(known, classes, "labels")
    of_classes = _class_weights(classes, codes, weight, class_weight)
    if of_classes is not None:
        weight = of_classes[codes] if weight is None else weight * of_classes[codes]
    return _Targets(classes, codes, encode(truth, classes, "test_labels"), weight)


def _codes(known: Labels) -> Tensor | None:
    return None if known.values is not None else encode(known, np.unique(known.names), "labels")


def _given_test(
    features: Any, labels: Any, known: Labels, layers: Mapping[str, Source], task: str | None
) -> tuple[dict[str, Source], Labels]:
    """Return the test rows that are given, of the layers of the fit.

    Raises:
        InputError: one of both is missing, or they have other layers or other features.
    """
    if features is None or labels is None:
        given, missing = ("test_labels", "test_features") if features is None else ("test_features", "test_labels")
        raise InputError(f"{given} without {missing}: give both, or none of them to hold rows out.")

    classes = known.values is None
    truth = read_labels(
        labels,
        "test_labels",
        "classification" if classes else "regression",
        leading=leading_shape(features),
        settled=f"labels are taken for {'classes' if classes else 'numbers'}" if task is None else None,
    )

    found = open_layers(features, truth.count, "test_features")
    if list(found) != list(layers) and len(found) == len(layers):
        found = dict(zip(layers, found.values(), strict=True)) if not isinstance(features, Mapping) else found
    if set(found) != set(layers):
        raise InputError(f"test_features has the layers {', '.join(found)}, and features {', '.join(layers)}.")
    for name, source in found.items():
        if source.shape[1] != layers[name].shape[1]:
            raise InputError(
                f"{source.name} has {source.shape[1]} features, and {layers[name].name} {layers[name].shape[1]}."
            )
        check_names(source.name, source.columns, layers[name].columns)
    return found, truth


def _class_weights(classes: Any, codes: Tensor, weight: Tensor | None, wanted: Any) -> Tensor | None:
    """Return the weight of each class.

    Raises:
        InputError: no such weights, of other classes, negative ones, or no numbers.
    """
    if wanted is None:
        return None
    if isinstance(wanted, str) and wanted == "balanced":
        return balanced_weights(torch.bincount(codes, weight, minlength=len(classes)))
    if not isinstance(wanted, Mapping):
        raise InputError(f"class_weight={wanted!r} must be None, 'balanced' or a mapping from classes to weights.")
    names = classes.tolist()
    strangers = [name for name in wanted if name not in names]
    if strangers:
        raise InputError(f"class_weight names {strangers[0]!r}, which is none of the classes.")
    weights = {name: plain_number(wanted.get(name, 1.0)) for name in names}
    for name, value in weights.items():
        if value is None or not 0 <= value < float("inf"):
            raise InputError(f"class_weight holds {wanted[name]!r} for {name!r}; weights are finite and not negative.")
    return torch.tensor(list(weights.values()), dtype=torch.float64, device="cpu")


def _class_notes(targets: _Targets) -> list[str]:
    """Say what a user would trip over: outputs that are not the labels, and classes that nothing is judged by."""
    if targets.classes is None:
        return []
    notes, count = [], len(targets.classes)
    if targets.classes.dtype.kind == "i" and not np.array_equal(targets.classes, np.arange(count)):
        notes.append(
            f"the labels are not 0 to {count - 1}: output k of the layer is the class classes[k], such as "
            f"{targets.classes[-1]} for output {count - 1}"
        )

    if targets.weight is not None:
        counted = torch.bincount(targets.train, targets.weight, minlength=count) > 0
        absent = [str(targets.classes[place]) for place in (~counted).nonzero().squeeze(1).tolist()]
        if absent:
            shown = ", ".join(absent[:_LISTED]) + (", ..." if len(absent) > _LISTED else "")
            classes = "1 class" if len(absent) == 1 else f"{len(absent)} classes"
            notes.append(f"{classes} of {count} with rows of weight zero alone ({shown}): nothing was learnt of them")

    unjudged = int((torch.bincount(targets.test, minlength=count) == 0).sum())
    if unjudged:
        classes = "1 class" if unjudged == 1 else f"{unjudged} classes"
        notes.append(f"{classes} of {count} without test rows: nothing is known of how well they are told")
    return notes


def _read_weight(sample_weight: Any, n_rows: int) -> Tensor | None:
    """Return one weight for each row.

    Raises:
        InputError: another shape, or a negative weight.
    """
    if sample_weight is None:
        return None
    opened = open_data(sample_weight)
    weight = as_tensor(sample_weight, "sample_weight")[0] if opened is None else opened.read(0, opened.shape[0])
    weight = weight.to(device="cpu", dtype=torch.float64).reshape(-1)
    if weight.shape != (n_rows,):
        raise InputError(f"sample_weight has {len(weight):,} weights for {n_rows:,} rows; one for each row is needed.")
    check_weights(weight, 0)
    return weight


def _is_cross_entropy(criterion: Any) -> bool:
    """Say whether the criterion is a plain cross-entropy; else it is squared error.

    Raises:
        InputError: it is neither.
    """
    if isinstance(criterion, str) and criterion in _CRITERIA:
        return criterion == _CROSS_ENTROPY
    if criterion is None or is_squared_error(criterion):
        return False
    if type(criterion) is not nn.CrossEntropyLoss or criterion.weight is not None or criterion.label_smoothing:
        raise InputError(
            f"criterion={criterion!r}: a probe is fitted by 'squared' error or by 'cross-entropy', with classes "
            "weighted by class_weight=."
        )
    return True


def _check_task(task: Any) -> None:
    if not isinstance(task, str | None) or task not in _TASKS:
        raise InputError(f"task={task!r} must be 'classification', 'regression' or None to find out.")


def _check_confidence(confidence: Any) -> float:
    share = share_of_one(confidence)
    if share is None:
        raise InputError(f"confidence={confidence!r} must be a probability, more than 0 and less than 1.")
    return share

"""Targets that may be labels of classes: a regression on them is legal, and seldom what was meant."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.rows import Rows
from closedform.rows.walkers import InOrder
from closedform.words.numbers import short

__all__ = ["labels_hint", "labels_note"]

#: Parts of the targets that are looked at, spread over the rows; of a file the first alone.
_PARTS = 8
#: Rows of a part.
_PART_ROWS = 512
#: Targets that are looked at first: most that are no labels show it there, for less than a tensor of them costs.
_GLANCE = 8
#: More different numbers than these are no classes.
_MOST_CLASSES = 100
#: Rows for each different integer, from which they repeat themselves as labels do.
_REPEATED = 2
#: The same for whole numbers that are stored as floating ones, as counts and grades are.
_REPEATED_FLOATS = 10
#: Floating targets of two values are as often contrasts as labels.
_LEAST_FLOATS = 3


def labels_note(rows: Rows) -> str | None:
    """Return a note where the only target looks like labels of classes, else None.

    Example:
        >>> from closedform.rows import as_rows
        >>> labels_note(as_rows([[0.5], [1.5], [2.5], [3.5]], [0, 1, 1, 0])).partition(",")[0]
        'Y holds 2 different whole numbers'
    """
    values = _whole_numbers(rows)
    if values is None or not _look_like_labels(values, integers=not rows.y.stored_dtype.is_floating_point):
        return None
    classes, what = torch.unique(values), rows.y.name
    ends = f"{short(float(classes[0]))} to {short(float(classes[-1]))}"
    return (
        f"{what} holds {len(classes)} different whole numbers, {ends}, which were fitted as numbers; if they are "
        "labels of classes, pass one column for each (torch.nn.functional.one_hot), or "
        "criterion=torch.nn.CrossEntropyLoss(), or call cf.probe, which counts the right answers as well "
        "(closedform probe on a command line)"
    )


def labels_hint(rows: Rows, outputs: int) -> str:
    """Return what to add to a refusal where one target stands against a layer with an output for each class.

    Args:
        rows: The rows.
        outputs: Outputs of the layer.
    """
    values = _whole_numbers(rows)
    if values is None or not (float(values.min()) >= 0 and float(values.max()) <= outputs):
        return ""
    name = rows.y.name
    return (
        f" {name} looks like labels of classes: pass one column for each, torch.nn.functional.one_hot({name}, "
        f"{outputs}), or criterion=torch.nn.CrossEntropyLoss(), or call cf.probe(X, {name})."
    )


def _whole_numbers(rows: Rows) -> Tensor | None:
    """Return a part of the only target, float64, where it is whole numbers; else None.

    Rows that are spread over processes or come in batches are not looked at: what one sees is not what all see.
    """
    here = isinstance(rows.walker, InOrder)
    if rows.n_targets != 1 or rows.triangle_of is not None or not here:
        return None
    glance = rows.y.read(0, min(_GLANCE, rows.n_rows)).tolist()
    if not all(float(value).is_integer() for (value,) in glance):
        return None
    first = rows.y.read(0, min(_PART_ROWS, rows.n_rows)).reshape(-1).to(torch.float64)
    if not bool(((first == first.round()) & torch.isfinite(first)).all()):
        return None
    parts = [first]
    if rows.in_memory:
        for start in range(rows.n_rows // _PARTS, rows.n_rows, max(_PART_ROWS, rows.n_rows // _PARTS)):
            parts.append(rows.y.read(start, min(start + _PART_ROWS, rows.n_rows)).reshape(-1).to(torch.float64))
    values = torch.cat(parts)
    return values if bool(((values == values.round()) & torch.isfinite(values)).all()) else None


def _look_like_labels(values: Tensor, *, integers: bool) -> bool:
    classes = torch.unique(values)
    count, spread = len(classes), float(classes[-1] - classes[0]) + 1
    if not 2 <= count <= _MOST_CLASSES:
        return False
    if integers:
        near_zero = abs(float(classes[0])) <= count  # years and sizes are not
        return near_zero and len(values) >= _REPEATED * count and spread <= 2 * count
    counted = float(classes[0]) in (0.0, 1.0) and spread == count
    return counted and count >= _LEAST_FLOATS and len(values) >= _REPEATED_FLOATS * count

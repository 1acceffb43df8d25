"""What is no table in memory, and what to call for it instead."""

from __future__ import annotations

import os
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import torch

from closedform.words.errors import DataTypeError, InputError

__all__ = ["refuse_other_kinds"]


def refuse_other_kinds(data: Any, name: str) -> None:
    """Refuse what holds no table of numbers, or holds it in a way that is not read here, with the call that helps.

    Args:
        data: Anything that is neither a tensor, an array nor a frame.
        name: What the user calls it, for messages.

    Raises:
        DataTypeError: sparse matrices, linear operators, loaders, data sets, iterators, mappings, modules, classes, and
            what stands for a tensor while a graph is traced.
        InputError: a text or a path.

    Example:
        >>> refuse_other_kinds([[1.0]], "X")
        >>> refuse_other_kinds({"a": [1.0]}, "X")
        Traceback (most recent call last):
            ...
        closedform.words.errors.DataTypeError: X is a dict, whose tables have names: choose one of them, X[key].
    """
    if isinstance(data, (str, os.PathLike)):
        path = os.fspath(data)
        if os.path.exists(path):
            raise InputError(f"{name} is the path {path!r}; open it first: closedform.files.open_source({path!r}).")
        raise InputError(
            f"{name} is the text {reprlib.repr(path)}, and there is no such file; pass a table of numbers."
        )
    if isinstance(data, type):
        raise DataTypeError(f"{name} is the class {data.__qualname__}, and a class holds no numbers; pass an instance.")
    for is_kind, advice in _OTHER_KINDS:
        if is_kind(data):
            raise DataTypeError(f"{name} is a {_called(data)}{advice.format(name=name)}.")


def _called(data: Any) -> str:
    kind = type(data)
    of_scipy = kind.__module__.startswith("scipy.sparse") and hasattr(kind, "nnz")
    return "scipy sparse matrix" if of_scipy else kind.__qualname__


def _has(*methods: str) -> Callable[[Any], bool]:
    """Return a test for a protocol: all these methods, on the class as Python itself looks for them."""
    return lambda data: all(hasattr(type(data), method) for method in methods)


def _is_data_set(data: Any) -> bool:
    package = sys.modules.get("torch.utils.data")
    return package is not None and isinstance(data, package.Dataset)


def _is_loader(data: Any) -> bool:
    package = sys.modules.get("torch.utils.data")
    return package is not None and isinstance(data, package.DataLoader)


#: A test, and what follows "X is a KIND". The first that holds speaks.
_OTHER_KINDS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (
        _has("nnz", "toarray"),
        ". closedform works on dense tables; pass {name}.toarray() if it fits",
    ),
    (
        _has("nnz", "todense"),
        ", a sparse matrix. closedform works on dense tables; pass {name}.todense() if it fits",
    ),
    (
        _has("matvec", "matmat"),
        ", which multiplies without holding a table; pass its entries, {name} @ np.eye({name}.shape[1])",
    ),
    (
        _is_loader,
        ", whose batches hold features and targets together: collect them once, "
        "xs, ys = zip(*loader), and pass torch.cat(xs) and torch.cat(ys); "
        "for the last layer of a network, closedform.optim.fit_head_(net, loader) reads the loader itself",
    ),
    (
        _is_data_set,
        ", whose rows hold features and targets together: pass the tensors it was made of (X, Y = dataset.tensors), "
        "or collect its rows, xs, ys = zip(*dataset), and pass torch.stack(xs) and torch.stack(ys)",
    ),
    (
        lambda data: isinstance(data, torch.nn.Module),
        ", which maps tables to tables; pass the table, as {name}(features).detach()",
    ),
    (
        _has("__torch_function__"),
        ", which stands for a tensor while a graph is traced; call closedform outside of the graph, on the numbers",
    ),
    (
        lambda data: isinstance(data, Mapping),
        ", whose tables have names: choose one of them, {name}[key]",
    ),
    (
        lambda data: isinstance(data, Set),
        ", whose entries have no order; pass a list",
    ),
    (
        lambda data: isinstance(data, Iterable) and not hasattr(type(data), "__getitem__"),
        ", which hands out its items one after the other; collect them once, list({name}), and pass that",
    ),
)

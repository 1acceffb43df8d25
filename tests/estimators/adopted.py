"""scikit-learn's own tests, run on our classes: what it ships for its estimators holds for those that replace them."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import scipy.sparse
from _pytest.mark import ParameterSet

Keep = Callable[[str, Any], bool]


def adopt(module: str, ours: Mapping[str, Any], names: tuple[str, ...], keep: Keep) -> dict[str, Any]:
    """Return tests of a module of scikit-learn's in which names stand for our classes, to be collected here.

    Args:
        module: The module of tests.
        ours: What stands for which name in it.
        names: The tests that are taken.
        keep: Whether a value of a parameter is tried, from its name and the value.
    """
    theirs = importlib.import_module(module)
    names_of = {id(vars(theirs)[name]): name for name in ours if name in vars(theirs)}
    world = {**vars(theirs), **ours}
    for name, value in vars(theirs).items():
        if isinstance(value, types.FunctionType) and value.__module__ == module:
            world[name] = _rebuilt(value, world)

    def turned(value: Any) -> Any:
        if isinstance(value, types.FunctionType) and value.__module__ == module:
            return world.get(value.__name__, value)
        if id(value) in names_of:
            return ours[names_of[id(value)]]
        if type(value).__name__ in ours and type(value).__module__.startswith("sklearn."):
            return ours[type(value).__name__](**value.get_params())
        if isinstance(value, ParameterSet):
            return value._replace(values=tuple(map(turned, value.values)))
        if isinstance(value, tuple | list):
            return type(value)(map(turned, value))
        return value

    found = {}
    for name in names:
        test = world[name]
        if not isinstance(test, types.FunctionType):  # a fixture, which makes tables
            found[name] = test
            continue
        test.pytestmark = [_turned_mark(mark, turned, keep) for mark in getattr(test, "pytestmark", [])]
        found[name] = test
    return found


def _rebuilt(function: types.FunctionType, world: dict[str, Any]) -> types.FunctionType:
    """Return the same function in another world of names; what wraps it is wrapped around it again."""
    copy = types.FunctionType(function.__code__, world, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__dict__.update({key: value for key, value in vars(function).items() if key != "__wrapped__"})
    return copy


def _turned_mark(mark: Any, turned: Callable[[Any], Any], keep: Keep) -> Any:
    if mark.name != "parametrize":
        return mark
    name, values, *rest = mark.args
    wanted = [turned(value) for value in values if keep(str(name), value)]
    ids = {} if len(wanted) < len(values) else mark.kwargs
    return pytest.mark.parametrize(name, wanted, *rest, **ids).mark


def is_sparse(value: Any) -> bool:
    """Whether a value makes sparse tables, which our classes refuse as everything here does."""
    if isinstance(value, ParameterSet):
        return any(map(is_sparse, value.values))
    return isinstance(value, type) and value.__module__.startswith(scipy.sparse.__name__)

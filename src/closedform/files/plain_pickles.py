"""Pickles of texts, numbers, lists and tuples, as PyTables writes names, read without building any object."""

from __future__ import annotations

import pickletools
import re
from typing import Any

__all__ = ["read_plain_pickle"]

#: Where a mark stands on the stack.
_MARK = object()
#: Stands for whatever object a pickle would have built.
_OBJECT = object()
#: Items of the state of a NumPy array: version, shape, dtype, order, and the numbers or objects in it.
_ARRAY_STATE = 5
#: What pushes the value that is its argument.
_VALUES = re.compile(r"(SHORT_)?(BIN)?(STRING|UNICODE|BYTES)8?|(BIN)?INT[12]?|LONG1?|(BIN)?FLOAT")
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_WITHOUT_EFFECT = frozenset({"PROTO", "FRAME", "STOP"})


def read_plain_pickle(content: bytes) -> Any:
    """Return what a pickle holds where that is texts, numbers, None, and lists or tuples of these.

    An array of objects with one axis is the list of them.

    Args:
        content: The pickle, of any protocol.

    Returns:
        The value; None where it is anything else, or no pickle at all.

    Example:
        >>> import pickle
        >>> read_plain_pickle(pickle.dumps([("size", 1), "price"])), read_plain_pickle(pickle.dumps(object()))
        ([('size', 1), 'price'], None)
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(content):
            name = opcode.name
            if name.endswith("PUT") or name == "MEMOIZE":
                memo[len(memo) if argument is None else argument] = stack[-1]
            elif name.endswith("GET"):
                stack.append(memo[argument])
            elif _VALUES.fullmatch(name):
                stack.append(argument)
            elif name not in _WITHOUT_EFFECT:
                _apply(name, stack)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None

    return stack[-1] if len(stack) == 1 and stack[-1] is not _OBJECT else None


def _apply(name: str, stack: list[Any]) -> None:
    """Do on the stack what an operation does.

    Raises:
        LookupError: the operation is for something else than texts, numbers, lists, tuples and arrays.
    """
    if name == "MARK":
        stack.append(_MARK)
    elif name == "EMPTY_LIST":
        stack.append([])
    elif name in ("LIST", "TUPLE"):
        items = _after_mark(stack)
        stack.append(items if name == "LIST" else tuple(items))
    elif name in _TUPLES:
        stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
    elif name in ("APPEND", "APPENDS"):
        items = [stack.pop()] if name == "APPEND" else _after_mark(stack)
        stack[-1].extend(items)

    elif name == "GLOBAL":
        stack.append(_OBJECT)
    elif name in ("STACK_GLOBAL", "REDUCE"):
        stack[-2:] = [_OBJECT]
    elif name == "BUILD":
        state = stack.pop()
        stack[-1] = _array_items(state)

    else:
        stack.append(_CONSTANTS[name])


def _array_items(state: Any) -> Any:
    """Return the objects of an array from the state that it is built with; of another state nothing is known."""
    if isinstance(state, tuple) and len(state) == _ARRAY_STATE and isinstance(state[-1], list):
        return state[-1] if state[1] == (len(state[-1]),) else _OBJECT
    return _OBJECT


def _after_mark(stack: list[Any]) -> list[Any]:
    """Take what stands above the last mark off the stack, and the mark."""
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]

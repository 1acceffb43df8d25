"""Why two tables of a file cannot be the features and the targets of one fit."""

from __future__ import annotations

from closedform.files.formats import Entry

__all__ = ["misfit", "variable_remedy"]


def misfit(x: str, x_entry: Entry, y: str, y_entry: Entry, *, keys: bool = True) -> str | None:
    """Return what is wrong with features called ``x`` and targets called ``y``, and what to do; None if they fit.

    Args:
        x: What the features are called.
        x_entry: What they are.
        y: What the targets are called.
        y_entry: What they are.
        keys: Whether they are called by their keys, which a ``.T`` after them transposes.

    Example:
        >>> misfit("X", Entry((4, 9), "float64", True), "y", Entry((9,), "float64", True))
        'X (4, 9) looks transposed beside y (9,); save X.T, or read it so with --x X.T'
        >>> misfit("X", Entry((9, 4), "complex128", False), "y", Entry((9,), "float64", True))
        'X (9, 4) holds complex128 values; split it into real and imaginary columns'
    """
    for key, entry in ((x, x_entry), (y, y_entry)):
        if not entry.numeric:
            remedy = variable_remedy(key, entry.dtype) or _remedy(entry.dtype)
            return f"{key} {entry.shape} holds {entry.dtype} values; {remedy}"

        if entry.shape == ():
            return f"{key} is a single number, not a table; choose another key"

    if len(x_entry.shape) == 1:
        return f"{x} has shape {x_entry.shape}, but features come as (rows, features); save {x}.reshape(-1, 1)"

    rows, targets = x_entry.shape[:-1], y_entry.shape
    if rows in (targets, targets[:-1]):
        return None

    if len(rows) == 1 and x_entry.shape[1] == targets[0]:
        return f"{x} {x_entry.shape} looks transposed beside {y} {targets}; save {x}.T{_read_so('--x', x, keys)}"

    if len(rows) == 1 and len(targets) == 2 and targets[1] == rows[0]:
        return f"{y} {targets} looks transposed beside {x} {x_entry.shape}; save {y}.T{_read_so('--y', y, keys)}"

    if len(rows) == len(targets) - 1 == 1 and x_entry.shape[1] == targets[1]:
        return (
            f"{x} {x_entry.shape} and {y} {targets} both look transposed, as MATLAB's save -v7.3 leaves them in HDF5; "
            f"read them as they were with --x {x}.T --y {y}.T"
        )

    return f"the rows of {x} {x_entry.shape} and {y} {targets} do not match; save a row of targets for each of features"


def _read_so(option: str, key: str, keys: bool) -> str:
    return f", or read it so with {option} {key}.T" if keys else ""


def _remedy(dtype: str) -> str:
    if dtype.startswith(("complex", "C64", "C128")):
        return "split it into real and imaginary columns"
    if dtype.startswith(("float8", "F8")):
        return "save its float32 values"
    return "save it dense" if dtype.startswith("sparse") else "save real numbers"


def variable_remedy(name: str, kind: str) -> str | None:
    """Return what to do in MATLAB about a variable of a class that is no table; None for other classes.

    Example:
        >>> variable_remedy("data", "struct")
        "save its fields as variables of their own: save('FILE.mat', '-struct', 'data')"
    """
    return {
        "struct": f"save its fields as variables of their own: save('FILE.mat', '-struct', '{name}')",
        "cell": f"save what it holds as one matrix: cell2mat({name})",
        "sparse": f"save full({name})",
    }.get(kind)

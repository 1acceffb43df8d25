"""What the optimizer keeps between steps, as the dictionary of tensors and numbers that torch saves and loads.

Its entries have the same names and shapes from the first step to the last, because ``torch.distributed.checkpoint``
loads in place: a fresh optimizer has room for the state of one that saw many rows. Strings are saved as numbers, which
is all that a flattened state may hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from closedform.numerics.triangle import Triangle
from closedform.optim.few_rows import FewRows
from closedform.optim.memory import Memory
from closedform.words.errors import InputError

__all__ = ["NAMES", "of_memory", "portable", "restored", "to_memory"]

#: In place of the number of rows held one by one, where they are a triangle.
_TRIANGLE = -1
#: Where the targets came from, and the numbers they are saved as.
_ORIGINS = ("from gradients", "exact")
#: All entries of the state.
NAMES = (
    *("weights", "R", "C", "residual_squares", "basis", "held", "rows", "full", "settled", "batch"),
    *("targets", "target_weight", "step"),
)


def of_memory(memory: Memory) -> dict[str, Any]:
    """Return the entries that hold ``memory``.

    Example:
        >>> import torch
        >>> from closedform.optim.memory import init
        >>> memory = init(torch.zeros(3, 1), 0.0, bias=True)
        >>> to_memory(of_memory(memory)).held.rows
        0
    """
    weights, held = memory.weights, memory.held
    n, k = weights.shape
    common = {"weights": weights, "rows": held.rows, "full": memory.full, "settled": memory.settled}
    common["batch"] = memory.batch
    if isinstance(held, FewRows):
        squares = weights.new_zeros(k)
        parts = {"R": held.A, "C": held.B, "residual_squares": squares, "basis": held.basis, "held": held.held}
    else:
        none = weights.new_zeros(()).expand(n, n)  # takes no memory
        parts = {"R": held.R, "C": held.C, "residual_squares": held.residual_squares, "basis": none, "held": _TRIANGLE}
    return {**common, **parts}


def to_memory(state: Mapping[str, Any]) -> Memory:
    """Return the memory that ``state`` holds; it shares its tensors."""
    weights = state["weights"]
    n, k = weights.shape
    held: FewRows | Triangle
    if state["held"] == _TRIANGLE:
        empty = Triangle.empty(n, k, dtype=weights.dtype, device=weights.device)
        held = replace(empty, R=state["R"], C=state["C"], residual_squares=state["residual_squares"])
        held = replace(held, rows=int(state["rows"]), weight_sum=float(state["rows"]))
    else:
        held = FewRows(state["R"], state["C"], state["basis"], int(state["held"]), int(state["rows"]))
    return Memory(weights, held, bool(state["full"]), bool(state["settled"]), int(state["batch"]))


def portable(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy to be saved: tensors and numbers only, and no more than what is held.

    Example:
        >>> portable({"step": 3, "targets": "exact"})
        {'step': 3, 'targets': 1}
    """
    saved = dict(state)
    if "targets" in saved:
        saved["targets"] = _ORIGINS.index(saved["targets"])
    if "held" in saved:
        held = max(int(saved["held"]), 0)
        saved["basis"] = _rows_kept(saved["basis"], held)
        if saved["held"] != _TRIANGLE:  # behind the rows held there may be some that were given up
            saved["R"], saved["C"] = _rows_kept(saved["R"], held), _rows_kept(saved["C"], held)
    return saved


def _rows_kept(buffer: Tensor, held: int) -> Tensor:
    kept = torch.zeros(buffer.shape, dtype=buffer.dtype, device=buffer.device)
    kept[:held] = buffer[:held]
    return kept


def restored(saved: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the state that was saved as ``saved``, in memory of its own on ``device`` and in its own precision.

    Raises:
        InputError: entries are missing, or not of one shape.
    """
    missing = [name for name in NAMES if name not in saved]
    if missing:
        raise InputError(f"the state lacks {', '.join(missing)}; was it saved by another version of closedform?")
    state = {
        name: value.detach().clone(memory_format=torch.contiguous_format).to(device)
        if isinstance(value, Tensor)
        else value
        for name, value in saved.items()
    }
    state["targets"] = _ORIGINS[int(state["targets"])]
    n, k = state["weights"].shape
    shapes = {"R": (n, n), "C": (n, k), "residual_squares": (k,), "basis": (n, n), "target_weight": (k,)}
    wrong = [f"{name} {tuple(state[name].shape)}" for name, shape in shapes.items() if state[name].shape != shape]
    if wrong:
        raise InputError(f"the state is of a layer with {(n, k)} (columns, targets), but has {', '.join(wrong)}.")
    return {**state, **of_memory(to_memory(state))}

"""Rows to fit and rows to judge by: a split with a seed, class by class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from closedform.words.arguments import share_of_one, whole_number
from closedform.words.errors import InputError

__all__ = ["check_seed", "check_share", "split_rows"]


def split_rows(n_rows: int, codes: Tensor | None, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows to fit and those to judge by, ascending, ``int64``.

    Every class gives the same share of its rows, at least one of two or more, and keeps at least one to learn from.

    Args:
        n_rows: How many rows there are.
        codes: Class of each row, ``(rows,)``; None for a regression.
        share: Part of the rows to judge by.
        seed: Of the random choice.

    Raises:
        InputError: no row can be spared.

    Example:
        >>> train, test = split_rows(6, torch.tensor([0, 0, 0, 0, 1, 1]), 0.5, seed=0)
        >>> len(train), len(test), int((test >= 4).sum())
        (3, 3, 1)
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n_rows, generator=generator, device="cpu")
    groups = [order] if codes is None else _by_class(order, codes)
    chosen = [group[: _spared(len(group), share)] for group in groups]
    test = torch.cat(chosen).sort().values
    if not len(test):
        raise InputError(
            "no class has two rows, so none can be held out to judge by; give test_features and test_labels."
            if codes is not None
            else f"{n_rows} row is too few to hold one out; give test_features and test_labels."
        )
    kept = torch.ones(n_rows, dtype=torch.bool, device="cpu")
    kept[test] = False
    return kept.nonzero().squeeze(1), test


def _by_class(order: Tensor, codes: Tensor) -> list[Tensor]:
    """Return the rows of each class in random order."""
    sorted_codes, places = codes[order].sort(stable=True)
    counts = torch.unique_consecutive(sorted_codes, return_counts=True)[1]
    return list(torch.split(order[places], counts.tolist()))


def _spared(rows: int, share: float) -> int:
    return 0 if rows < 2 else min(max(round(share * rows), 1), rows - 1)


def check_share(share: Any) -> float:
    """Return a part of the rows, between 0 and 1.

    Raises:
        InputError: another value.
    """
    part = share_of_one(share)
    if part is None:
        raise InputError(f"test_size={share!r} must be the part of the rows to judge by, more than 0 and less than 1.")
    return part


def check_seed(seed: Any) -> int:
    """Return a seed of torch's generators.

    Raises:
        InputError: another value.
    """
    number = whole_number(seed)
    if number is None or not -(2**63) <= number < 2**64:
        raise InputError(f"seed={seed!r} must be a whole number, as torch.manual_seed takes.")
    return number

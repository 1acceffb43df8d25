"""Classes as rows of a table that is never all held: a thousand classes cost no more than a thousand sums."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.rows.source import Source
from closedform.words.errors import InputError

__all__ = ["OneHotRows"]


@final
class OneHotRows(Source):
    """Classes as rows with a single one, made as they are read.

    Args:
        codes: Place of the class of each row, ``(rows,)`` int64.
        n_classes: Columns.
        dtype: Of the numbers that are read.
        off: What stands in the other places.

    Attributes:
        codes: As given.
        off: As given.

    Raises:
        InputError: the codes are no integers in one dimension, or beyond the classes.

    Example:
        >>> import torch
        >>> OneHotRows(torch.tensor([2, 0]), 3, torch.float32, off=-1.0).read(0, 2)
        tensor([[-1., -1.,  1.],
                [ 1., -1., -1.]])
    """

    in_memory = True

    def __init__(self, codes: Tensor, n_classes: int, dtype: torch.dtype, *, off: float = 0.0) -> None:
        if codes.ndim != 1 or codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
            raise InputError(
                f"the labels have shape {tuple(codes.shape)} and dtype {str(codes.dtype).removeprefix('torch.')}; "
                "labels are integers, (rows,)."
            )
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < n_classes:
            raise InputError(
                f"there are labels from {int(codes.min())} to {int(codes.max())}; with {n_classes} classes they are 0 "
                f"to {n_classes - 1}."
            )
        self.codes, self.off = codes.to(torch.int64), off
        self.name, self.notes = "labels", ()
        self.shape = (codes.shape[0], n_classes)
        self.dtype, self.device = dtype, codes.device

    @override
    def read(self, start: int, stop: int) -> Tensor:
        codes = self.codes[start:stop].unsqueeze(1)
        rows = torch.full((codes.shape[0], self.shape[1]), self.off, dtype=self.dtype, device=self.device)
        return rows.scatter_(1, codes, 1)

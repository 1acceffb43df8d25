"""Classes as rows of a table that is never all held: a thousand classes cost no more than a thousand sums."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.rows.source import Source

__all__ = ["OneHotRows"]


@final
class OneHotRows(Source):
    """Classes as rows with a single one, made as they are read.

    Args:
        codes: Place of the class of each row, ``(rows,)`` int64.
        n_classes: Columns.
        dtype: Of the numbers that are read.
        off: What stands in the other places.

    Example:
        >>> import torch
        >>> OneHotRows(torch.tensor([2, 0]), 3, torch.float32, off=-1.0).read(0, 2)
        tensor([[-1., -1.,  1.],
                [ 1., -1., -1.]])
    """

    in_memory = True

    def __init__(self, codes: Tensor, n_classes: int, dtype: torch.dtype, *, off: float = 0.0) -> None:
        self._codes, self._off = codes, off
        self.name, self.notes = "labels", ()
        self.shape = (codes.shape[0], n_classes)
        self.dtype, self.device = dtype, codes.device

    @override
    def read(self, start: int, stop: int) -> Tensor:
        codes = self._codes[start:stop].unsqueeze(1)
        rows = torch.full((codes.shape[0], self.shape[1]), self._off, dtype=self.dtype, device=self.device)
        return rows.scatter_(1, codes, 1)

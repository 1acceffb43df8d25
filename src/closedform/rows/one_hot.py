"""Classes as rows of a table that is never all held: a thousand classes cost no more than a thousand sums."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.rows.block import Block
from closedform.rows.source import Source
from closedform.rows.table import Rows
from closedform.rows.tensors import TensorSource
from closedform.words.errors import InputError

__all__ = ["OneHotRows", "classes_of", "labelled"]


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

    def centred_squares(self, means: Tensor, weight_sum: float) -> Tensor:
        """Return the weighted squares of the columns about their means, ``(classes,)``.

        Args:
            means: Weighted means of the columns, ``(classes,)``.
            weight_sum: Sum of the weights of the rows.
        """
        share = (means - self.off) / (1 - self.off)
        return weight_sum * (1 - self.off) ** 2 * share * (1 - share)


def labelled(rows: Rows, labels: OneHotRows) -> Rows:
    """Return the rows with the labels themselves, one column, in place of the columns of classes."""
    return replace(rows, y=TensorSource(labels.codes.unsqueeze(1), labels.name))


def classes_of(block: Block) -> Tensor:
    """Return the labels of a block of such rows, ``(rows,)`` int64."""
    return block.Y[:, 0].to(torch.int64)

"""Rows that are held whole, and the sums over them that a descent takes, by the engine that serves them."""

from __future__ import annotations

from functools import cached_property
from typing import final

import torch
from torch import Tensor

from closedform.engine.choice import engine_for
from closedform.engine.compiled import Compiled, depths
from closedform.engine.sums import pass_sums
from closedform.engine.threads import all_threads
from closedform.numerics.symmetric import mirror
from closedform.numerics.twofold import twofold_product

__all__ = ["HeldRows"]

#: Rows whose products are summed by themselves where no compiled loops sum them, so that the sum of all rounds little.
_BLOCK = 1024
#: Additions beyond those of single rows, and roundings of the terms themselves.
_FEW = 64
_EPS = torch.finfo(torch.float64).eps


@final
class HeldRows:
    """Rows in memory, ``(rows, columns)``, float64.

    Args:
        U: The rows.
    """

    def __init__(self, U: Tensor) -> None:
        self.U = U.contiguous()
        self._engine = engine_for(self.U)

    @cached_property
    def roundings(self) -> float:
        """What :meth:`adjoint` and :meth:`gram` round, relative to the sums of the sizes of their terms."""
        rows = self.U.shape[0]
        if not isinstance(self._engine, Compiled):
            return (min(rows, _BLOCK) + _FEW) * _EPS
        split = depths()
        group = max(split.group, split.packed)
        return (min(rows, group) + split.part_rows(rows) / split.group + split.parts + _FEW) * _EPS

    def images(self, v: Tensor) -> Tensor:
        """Return ``U v``, ``(rows,)``."""
        with all_threads():
            return self.U @ v

    def adjoint(self, T: Tensor) -> Tensor:
        """Return ``U'T``, ``(columns, vectors)``.

        Args:
            T: A few vectors, ``(rows, vectors)``.
        """
        if isinstance(self._engine, Compiled):
            columns, vectors = self.U.shape[1], T.shape[1]
            sums = pass_sums(columns, vectors, T.device)
            self._engine.residual_sums_(sums, self.U, T, T.new_zeros(columns, vectors))
            return sums.features
        blocks = zip(torch.split(self.U, _BLOCK), torch.split(T, _BLOCK), strict=True)
        return torch.stack([block.T @ part for block, part in blocks]).sum(0)

    def exact_adjoint(self, t: Tensor) -> Tensor:
        """Return ``U't`` as if computed with more than twice the digits and rounded, ``(columns,)``.

        Args:
            t: ``(rows,)``.
        """
        columns = self.U.shape[1]
        if not self._engine.sums_expansions:
            high, low = twofold_product(self.U.T.contiguous(), t)
            return high + low
        sums, zeros = t.new_zeros(3 * (columns + 1) + 1), t.new_zeros(3, 1, columns)
        self._engine.expansion_sums_(sums, self.U, t.unsqueeze(1), zeros, zeros[:, :, 0], None, t.new_ones(1))
        return sums[:-1].view(3, columns + 1).flip(0).sum(0)[:columns]

    def gram(self, weight: Tensor | None = None, order: Tensor | None = None) -> Tensor:
        """Return ``U' diag(weight) U``.

        Args:
            weight: ``(rows,)``, not negative, or None for ones.
            order: Ascending numbers of the rows that count, or None for all.
        """
        rows, columns = self.U.shape
        gram, cross = self.U.new_zeros(columns, columns), self.U.new_zeros(columns, 1)
        root = None if weight is None else weight.sqrt()
        ones = self.U.new_ones(1)
        self._engine.normal_equations_(gram, cross, self.U, ones.expand(rows, 1), ones, row_scale=root, order=order)
        return mirror(gram)

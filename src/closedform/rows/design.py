"""The design matrix: rows with their weights, bias column and scaling, and what passes over them have found."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from closedform.numerics.scaling import power_of_two_exponents, powers_of_two
from closedform.numerics.triangle import Triangle
from closedform.rows.columns import Columns
from closedform.rows.first_pass import FirstSums, sampled_rows
from closedform.rows.folds import NormalEquations, SketchedRows, TriangleOfRows
from closedform.rows.norms import Scan
from closedform.rows.table import Rows

__all__ = ["Design"]


@final
class Design:
    """The matrices A and B behind a fit, scaled by powers of two to columns of norm in [0.5, 1).

    No ridge strength is part of it. What a pass over the rows has found is kept, so that every method, every strength
    and every group of targets that asks for it again has it without another pass.

    Attributes:
        rows: The table.
        scanned: Its norms and weights.
        bias: Whether a column of ones stands first.
        norms: Norms of the columns of ``diag(sqrt(weight)) [1 | X]``, in the units of the table, ``(columns,)``.
        exponents: The powers of two that the columns are divided by, ``(columns,)``.
        target_exponents: The same for the targets, ``(targets,)``.
        columns: The scaled matrices.
    """

    def __init__(self, rows: Rows, scanned: Scan, *, bias: bool, first: FirstSums | None = None) -> None:
        self.rows = rows
        self.scanned = scanned
        self.bias = bias
        norms = scanned.feature_norms
        if bias:
            norms = torch.cat([norms.new_tensor([scanned.weight_sum**0.5]), norms])
        self.norms = norms
        self.exponents = power_of_two_exponents(norms)
        self.target_exponents = power_of_two_exponents(scanned.target_norms)
        self.columns = Columns(bias, powers_of_two(-self.exponents), powers_of_two(-self.target_exponents))
        self._found = _Found(rows, self.columns, self.exponents, self.target_exponents)
        sums = None if first is None else first.normal_equations(self.columns)
        if sums is not None:
            self._found.keep(sums)
        self._chosen: Tensor | None = None

    @property
    def n_columns(self) -> int:
        """Columns of A, that of ones included."""
        return self.columns.n_columns

    def select(self, targets: Tensor) -> Design:
        """Return the design with some of its targets; passes over the rows are made for all and shared."""
        part = Design(self.rows.select(targets), self.scanned.select(targets), bias=self.bias)
        part._found, part._chosen = self._found, targets
        return part

    def has_sums(self, dtype: torch.dtype) -> bool:
        """Whether the sums for ``A'A`` over all rows are there already, in this dtype."""
        return self._found.has_sums(dtype)

    def keep_moments(
        self, gram: Tensor, cross: Tensor, scale: float, mean: Tensor | None, target_mean: Tensor | None
    ) -> None:
        """Keep weighted sums over all rows that a pass has found, about the means where there is a bias.

        Args:
            gram: Products of the features with each other, upper triangle, ``(features, features)``.
            cross: Products of the features with the targets in their scale, ``(features, targets)``.
            scale: Power of two by which the features were multiplied first.
            mean: With a bias the means of the features, so multiplied, ``(features,)``.
            target_mean: With a bias the means of the targets in their scale, ``(targets,)``.
        """
        sums, total = NormalEquations(self.columns, torch.float64), self.scanned.weight_sum
        if bool((sums.applied != 1).any()):
            return
        first = int(self.bias)
        sums.gram[first:, first:] = gram / scale**2
        sums.cross[first:] = cross / scale
        if mean is not None and target_mean is not None:
            mean = mean / scale
            sums.gram[1:, 1:] += total * torch.outer(mean, mean)
            sums.cross[1:] += total * torch.outer(mean, target_mean)
            sums.gram[0, 1:], sums.cross[0] = total * mean, total * target_mean
            sums.gram[0, 0] = total
        sums.rows = self.rows.n_rows
        self._found.keep(sums)

    @property
    def sampled_rows(self) -> Tensor:
        """Numbers of the rows of the sample, ascending, int64."""
        return self._found.sampled_rows(self.scanned.positive_rows)

    def sampled_normal_equations(self, dtype: torch.dtype) -> NormalEquations:
        """Return the sums for ``A'A`` over the rows of the sample."""
        return self._found.sampled_normal_equations(dtype, self.sampled_rows)

    def normal_equations(
        self, dtype: torch.dtype, *, bfloat16: bool = False, sample_counts: bool = False
    ) -> tuple[NormalEquations, Tensor]:
        """Return the sums for ``A'A`` over all rows, and those for ``A'B``, ``(columns, targets)``, float64.

        Args:
            dtype: That of the sums, float32 or float64.
            bfloat16: Whether the entries of A and B are rounded to bfloat16 first.
            sample_counts: Whether the rows of the sample, which have been added up already, are not read again.
        """
        order = self.sampled_rows if sample_counts else None
        sums = self._found.normal_equations(dtype, bfloat16, order)
        cross = sums.cross if self._chosen is None else sums.cross[:, self._chosen]
        return sums, cross.to(torch.float64)

    @property
    def triangle(self) -> Triangle:
        """The rows compressed by Householder QR, in the scale of the columns."""
        whole = self._found.triangle()
        return whole if self._chosen is None else whole.select(self._chosen)

    def sketch(self, sketch_rows: int, seed: int, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return sketches of ``[1 | X] diag(scale)`` and of the targets, ``(sketch rows, ...)``."""
        A, B = self._found.sketch(sketch_rows, seed).matrix(scale)
        return A, B if self._chosen is None else B[:, self._chosen]


@final
class _Found:
    """What passes over all rows and targets have found."""

    def __init__(self, rows: Rows, columns: Columns, exponents: Tensor, target_exponents: Tensor) -> None:
        self._rows, self._columns = rows, columns
        self._exponents, self._target_exponents = exponents, target_exponents
        self._sample: Tensor | None = None
        self._sampled: dict[torch.dtype, NormalEquations] = {}
        self._sums: dict[tuple[torch.dtype, bool], NormalEquations] = {}
        self._sketches: dict[tuple[int, int], SketchedRows] = {}
        self._triangle: Triangle | None = None

    def sampled_rows(self, positive_rows: int) -> Tensor:
        if self._sample is None:
            columns = self._columns
            n_rows, device = self._rows.extent.n_rows, columns.scale.device
            self._sample = sampled_rows(n_rows, positive_rows, columns.n_columns, device)
        return self._sample

    def sampled_normal_equations(self, dtype: torch.dtype, order: Tensor) -> NormalEquations:
        if dtype not in self._sampled:
            self._sampled[dtype] = self._rows.walk(NormalEquations(self._columns, dtype, order=order))
        return self._sampled[dtype]

    def normal_equations(self, dtype: torch.dtype, bfloat16: bool, sampled: Tensor | None) -> NormalEquations:
        key = (dtype, bfloat16)
        if key not in self._sums:
            sums = NormalEquations(self._columns, dtype, bfloat16=bfloat16)
            if sampled is not None:
                rest = torch.ones(self._rows.extent.n_rows, dtype=torch.bool, device=sampled.device)
                rest[sampled] = False
                others = rest.nonzero().squeeze(1)
                sums = self.sampled_normal_equations(dtype, sampled).going_on(others, bfloat16=bfloat16)
            self._sums[key] = self._rows.walk(sums)
        return self._sums[key]

    def keep(self, sums: NormalEquations) -> None:
        """Keep sums over all rows that a pass has found."""
        self._sums[sums.gram.dtype, False] = sums

    def has_sums(self, dtype: torch.dtype) -> bool:
        return (dtype, False) in self._sums

    def sketch(self, sketch_rows: int, seed: int) -> SketchedRows:
        key = (sketch_rows, seed)
        if key not in self._sketches:
            self._sketches[key] = self._rows.walk(SketchedRows(self._columns, sketch_rows, seed))
        return self._sketches[key]

    def triangle(self) -> Triangle:
        if self._triangle is None:
            empty = Triangle.empty(
                self._columns.n_columns,
                self._columns.n_targets,
                exponents=self._exponents,
                target_exponents=self._target_exponents,
                has_ones=self._columns.bias,
                device=self._columns.scale.device,
            )
            self._triangle = self._rows.walk(TriangleOfRows(self._columns, empty)).triangle
        return self._triangle

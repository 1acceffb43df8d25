"""The rows of a path, and the cheapest basis that is exact enough for its strengths."""

from __future__ import annotations

import math
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from closedform.fit.kernels import check_kernel, weighted_kernel, weighted_targets
from closedform.fit.path.basis import Basis, explicit_basis, kernel_basis
from closedform.fit.path.centring import Centring
from closedform.fit.path.folds import TrianglesOfFolds
from closedform.fit.path.held import HeldRows
from closedform.fit.path.leave_one_out import LeftOut
from closedform.fit.path.tall import basis_by_gram, basis_of_triangle, centring_by_means, uniform_exponent
from closedform.numerics.scaling import power_of_two_exponents, times_power_of_two
from closedform.numerics.triangle import Triangle
from closedform.rows import Block, Design, Rows, Scan
from closedform.rows.folds import RowsApart
from closedform.words.errors import InputError
from closedform.words.numbers import plural

__all__ = ["PathTable"]

#: Multiplications of a triangle, rows times columns squared, up to which it is made without trying a Gram matrix.
_SMALL = 2**26
#: Ratio of squares, largest over smallest with its strength, up to which a Gram matrix is exact enough.
_GRAM_RATIO = 1e7


@final
class PathTable:
    """Rows, brought to coordinates in which every strength is a division.

    Args:
        rows: The rows.
        scanned: Their norms and weights.
        bias: Whether there is a bias.
        kernel: Whether the features are a kernel matrix.

    Raises:
        InputError: fewer than two rows count.
    """

    def __init__(self, rows: Rows, scanned: Scan, *, bias: bool, kernel: bool) -> None:
        if scanned.positive_rows < 2:
            raise InputError(
                f"{plural(scanned.positive_rows, 'row')} of positive weight: a strength is chosen by rows that are "
                "left out, so at least 2 must count. With a strength that you choose, closedform.solve takes one row."
            )
        self.rows, self.scanned, self.bias, self.kernel = rows, scanned, bias, kernel
        self.design = Design(rows, scanned, bias=bias)
        #: Whether all rows are taken at once.
        self.gathered = kernel or scanned.positive_rows <= rows.n_features + int(bias)
        self._bases: list[Basis] = []

    def basis(self, least: float | None) -> Basis:
        """Return a basis that is exact enough for strengths of at least ``least``; None for a look at the spectrum."""
        if not self._bases:
            self._bases.append(self._first())
        basis = self._bases[-1]
        if self.gathered or basis.U is not None or len(self._bases) > 1 or self._small or least is None:
            return basis
        if basis.largest > _GRAM_RATIO * (basis.smallest + least) or basis.rank < self.rows.n_features:
            self._bases.append(basis_of_triangle(self.design.triangle, self.exponent))
        return self._bases[-1]

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.rows.device

    @property
    def positive_rows(self) -> int:
        """Rows of positive weight."""
        return self.scanned.positive_rows

    def fold_triangles(self, folds: Tensor, *, by_number: bool) -> list[Triangle]:
        """Return the triangle of the rows of each fold.

        Args:
            folds: The fold of each row, ``(rows,)``.
            by_number: Whether they are folds of certain rows.
        """
        columns, count = self.design.columns, int(folds.max()) + 1
        fold = TrianglesOfFolds(columns, self.empty_triangle(), folds, count, by_number=by_number)
        return self.rows.walk(fold).triangles

    @cached_property
    def exponent(self) -> int:
        """The power of two that X is divided by."""
        return uniform_exponent(self.design)

    @property
    def _small(self) -> bool:
        return self.rows.n_rows * self.rows.n_features**2 <= _SMALL

    def _first(self) -> Basis:
        if self.kernel:
            return self._kernel()
        if self.gathered:
            return self._wide()
        if self._small:
            return basis_of_triangle(self.design.triangle, self.exponent)
        return basis_by_gram(self.design, self.centring)

    def _empty(self, exponent: int, target_exponents: Tensor) -> Basis:
        zeros = target_exponents.new_zeros(0, dtype=torch.float64)
        return Basis(
            squares=zeros,
            coordinates=zeros.new_zeros(0, target_exponents.shape[0]),
            residual_squares=zeros.new_zeros(target_exponents.shape[0]),
            rows=self.scanned.positive_rows,
            weight_sum=self.scanned.weight_sum,
            bias=self.bias,
            x_exponent=exponent,
            target_exponents=target_exponents,
        )

    @cached_property
    def _counted(self) -> Block:
        """All rows of positive weight."""
        whole = check_kernel(self.rows, bias=self.bias) if self.kernel else self.rows.gather()
        if whole.weight is None or bool(whole.weight.all()):
            return whole
        kept = (whole.weight > 0).nonzero().squeeze(1)
        X = whole.X[kept][:, kept] if self.kernel else whole.X[kept]
        return Block(0, X, whole.Y[kept], whole.weight[kept], whole.engine)

    @cached_property
    def centring(self) -> Centring:
        """How rows are brought to coordinates, where there is a triangle or all rows are at hand."""
        return centring_by_means(self.design)

    def _wide(self) -> Basis:
        A, root = self.centring.features(self._counted)
        B = self.centring.targets(self._counted, root)
        weight = self._counted.weight
        ones = (A.new_ones(A.shape[0]) if weight is None else weight).div(self.scanned.weight_sum).sqrt_()
        basis = self._empty(self.exponent, self.design.target_exponents)
        mean = self.centring.mean
        if mean is None:
            return explicit_basis(A, B, basis, None)
        before = torch.hypot(torch.linalg.vector_norm(A, dim=0), mean.abs() * self.scanned.weight_sum**0.5)
        return explicit_basis(A, B, basis, ones, before)

    def held(self, numbers: Tensor) -> HeldRows:
        """Return a short table that says what all rows say and holds some of them as they are.

        Leverages and residuals of these rows are those they have among all rows: the others come as their triangle.

        Args:
            numbers: Which rows are held, ``(kept,)`` int64.
        """
        found = self.rows.walk(RowsApart(self.design.columns, self.empty_triangle(), numbers))
        others, exponents = found.triangle, self.design.exponents
        A, B = torch.cat([found.A, others.R]), torch.cat([found.B, others.C])
        uniform = torch.full_like(exponents, self.exponent)
        A, ones, before = times_power_of_two(A, exponents - uniform), None, None
        centred, targets = A, B
        if self.bias:
            ones, A = times_power_of_two(A[:, 0], uniform[0]) / self.scanned.weight_sum**0.5, A[:, 1:]
            centred, targets = (part - torch.outer(ones, ones @ part) for part in (A, B))
            before = torch.linalg.vector_norm(A, dim=0)
        basis = explicit_basis(centred, targets, self._empty(self.exponent, self.design.target_exponents), ones, before)
        return HeldRows(numbers, A, B, ones, basis, None if self.rows.weight is None else found.weight)

    def without_each(self, left_out: LeftOut) -> tuple[Tensor, Tensor]:
        """Return the few rows that have to be left out one by one, and their residuals at the fits to all others.

        Args:
            left_out: What makes the residuals of the others.

        Returns:
            Their places among the rows of positive weight, ``(rows,)`` int64; ``(targets, strengths, rows)``, weighted.
        """
        basis, count = left_out.basis, left_out.strengths.shape[0]
        order = torch.zeros(0, dtype=torch.int64, device=self.device)
        if basis.U is not None and not self.kernel:
            order = left_out.worth_a_fit(basis.U, left_out.leftovers(basis.U, 0.0))
        if not order.shape[0]:
            return order, basis.squares.new_zeros(basis.targets, count, 0)
        centring = Centring(math.ldexp(1.0, -basis.x_exponent), self.design.columns.target_scale, None, None)
        A, root = centring.features(self._counted)
        ones = None if not self.bias else (A.new_ones(A.shape[0]) if root is None else root) / basis.weight_sum**0.5
        whole = HeldRows(self.numbers, A, centring.targets(self._counted, root), ones, basis, self.weight)
        order = whole.fitted(order)
        return order, torch.stack([whole.without(row, left_out.strengths) for row in order.tolist()], 2)

    def _kernel(self) -> Basis:
        K, B = weighted_kernel(self._counted)
        # Strengths are to the first power of K: half of an even exponent serves them as that of X does.
        exponent = int(power_of_two_exponents(K.abs().max())) // 2
        dtype = self.rows.x.stored_dtype
        epsilon = torch.finfo(dtype if dtype.is_floating_point else torch.float64).eps
        basis = self._empty(exponent, self.design.target_exponents)
        return kernel_basis(
            torch.ldexp(K, torch.tensor(-2 * exponent, device="cpu")),
            B * self.design.columns.target_scale,
            basis,
            epsilon,
        )

    def centring_of(self, basis: Basis) -> Centring:
        """Return how rows are brought to the coordinates of a basis with a map."""
        x_scale, y_scale = math.ldexp(1.0, -basis.x_exponent), self.design.columns.target_scale
        return Centring(x_scale, y_scale, basis.mean if self.bias else None, basis.target_mean if self.bias else None)

    def coordinates(self, basis: Basis) -> tuple[Block, Tensor, Tensor]:
        """Return all rows, and those of positive weight in the coordinates of a basis with their targets."""
        if basis.U is None:
            assert basis.map is not None
            centring = self.centring_of(basis)
            A, root = centring.features(self._counted)
            return self.rows.gather(), A @ basis.map, centring.targets(self._counted, root)
        if self.kernel:
            B = weighted_targets(self._counted)
            return self.rows.gather(), basis.U, B * self.design.columns.target_scale
        return (
            self.rows.gather(),
            basis.U,
            self.centring.targets(self._counted, None if self._counted.weight is None else self._counted.weight.sqrt()),
        )

    @property
    def numbers(self) -> Tensor:
        """Numbers of the rows of positive weight among all rows, where all are taken at once, int64."""
        weight = self.rows.gather().weight
        if weight is None:
            return torch.arange(self.rows.n_rows, device=self.device)
        return (weight > 0).nonzero().squeeze(1)

    @property
    def weight(self) -> Tensor | None:
        """Weights of the rows of positive weight, where all rows are taken at once."""
        return self._counted.weight

    def empty_triangle(self) -> Triangle:
        """Return the triangle of no rows, with the powers of two of the columns."""
        columns = self.design.columns
        return Triangle.empty(
            columns.n_columns,
            columns.n_targets,
            exponents=self.design.exponents,
            target_exponents=self.design.target_exponents,
            has_ones=columns.bias,
            device=columns.scale.device,
        )

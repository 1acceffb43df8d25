"""The design matrix of a fit: the rows with weights, bias column, ridge rows and column scaling applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from closedform.engine.gram import normal_equations_update
from closedform.engine.passes import PassSums, pass_sums, residual_pass
from closedform.engine.threads import all_threads
from closedform.numerics.matrix_product import product
from closedform.numerics.scaling import power_of_two_exponents
from closedform.numerics.triangle import Triangle
from closedform.rows.norms import Scan, pass_rows, rows_per_block
from closedform.rows.table import Block, Rows

__all__ = ["Design"]


@final
class Design:
    r"""The least-squares problem :math:`\min_Z \|B - A Z\|^2 + \|P Z\|^2` behind a fit.

    ``A = diag(sqrt(weight)) [1 | X] D``, ``B = diag(sqrt(weight)) Y E`` and ``P = sqrt(l2) D`` with no entry for the
    bias. D and E scale columns by exact powers of two to norms in [0.5, 1), so that no unit of measurement
    decides anything. No product with A forms it: scaling is applied to the small side.

    Attributes:
        rows: The table.
        scanned: Its norms and weights.
        bias: Whether a column of ones stands first.
        l2: Ridge strength of these targets, as in scikit-learn (sum of squares, bias not penalised).
        scale: Diagonal of D, ``(columns,)``.
        target_scale: Diagonal of E, ``(targets,)``.
        penalty: Diagonal of P, ``(columns,)``.
    """

    def __init__(
        self,
        rows: Rows,
        scanned: Scan,
        *,
        bias: bool,
        l2: float,
        tick: Callable[[str, float], None] | None = None,
    ) -> None:
        self.rows = rows
        self.scanned = scanned
        self.bias = bias
        self.l2 = l2
        self._tick = tick
        norms = scanned.feature_norms
        if l2 > 0:
            norms = torch.hypot(norms, torch.full_like(norms, l2**0.5))
        if bias:
            norms = torch.cat([norms.new_tensor([scanned.weight_sum**0.5]), norms])
        exponents = power_of_two_exponents(norms)
        one = torch.ones_like(norms)
        self.scale = torch.ldexp(one, -exponents)
        self._exponents = exponents
        #: Norms of the columns of A with the ridge rows under it.
        self.column_norms = norms * self.scale
        target_exponents = power_of_two_exponents(scanned.target_norms)
        self.target_scale = torch.ldexp(torch.ones_like(scanned.target_norms), -target_exponents)
        self._target_exponents = target_exponents
        self.target_norms = scanned.target_norms * self.target_scale
        self.penalty = self.scale * (l2**0.5)
        if bias:
            self.penalty[0] = 0.0

    @property
    def n_columns(self) -> int:
        return self.rows.n_features + int(self.bias)

    @property
    def n_targets(self) -> int:
        return self.rows.n_targets

    @property
    def frobenius_norm(self) -> float:
        """Frobenius norm of A with the ridge rows under it."""
        return float(torch.linalg.vector_norm(self.column_norms))

    def blocks(self, size: int | None = None, label: str = "reading", *, as_stored: bool = False) -> Iterator[Block]:
        """Walk the raw rows, telling the progress hook how far the pass has come."""
        for block in self.rows.blocks(size or rows_per_block(self.rows), as_stored=as_stored):
            yield block
            if self._tick is not None:
                with all_threads():
                    self._tick(label, min(1.0, (block.start + block.X.shape[0]) / self.rows.n_rows))

    def pass_blocks(self, label: str) -> Iterator[Block]:
        """Walk the rows in the large blocks that passes take, X and Y in their own dtype."""
        return self.blocks(pass_rows(self.rows), label, as_stored=True)

    def matrix_blocks(self, size: int, label: str, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield blocks of A and B themselves, as new tensors; of all rows, or those that ``order`` names, ascending."""
        scale = self.scale[1:] if self.bias else self.scale
        for block in self.blocks(size, label, as_stored=order is not None):
            X, Y, weight = block.X, block.Y, block.weight
            if order is not None:
                part = block.among(order)
                X, Y = X[part].to(torch.float64), Y[part].to(torch.float64)
                weight = None if weight is None else weight[part]
            A = X * scale
            if self.bias:
                A = torch.cat([A.new_full((A.shape[0], 1), float(self.scale[0])), A], 1)
            B = Y * self.target_scale
            if weight is not None:
                root = weight.sqrt().unsqueeze(1)
                A.mul_(root)
                B.mul_(root)
            yield A, B

    def add_normal_equations(
        self,
        gram: Tensor,
        cross: Tensor,
        *,
        x_scale: Tensor | None = None,
        order: Tensor | None = None,
        factor: Tensor | None = None,
        bfloat16: bool = False,
    ) -> None:
        """Add the upper triangle of ``A'A`` to ``gram`` and ``A'B`` to ``cross``, of A before its columns are scaled.

        Args:
            gram: ``(columns, columns)``, float32 or float64.
            cross: ``(columns, targets)``, of the same dtype.
            x_scale: What features are multiplied by on the way, ``(features,)``, or None for ones.
            order: The rows that count, ascending, int64, or None for all.
            factor: Upper triangle that A is multiplied by, ``(columns, columns)``, or None for the identity.
            bfloat16: Whether the entries of A and B are rounded to bfloat16 first; then the sums are float32.
        """
        # What a call adds up at the end is columns squared: with that many rows it does not count.
        size = max(pass_rows(self.rows), 8 * self.n_columns if self.rows.in_memory else 0)
        for block in self.blocks(size, "factoring", as_stored=True):
            normal_equations_update(
                gram,
                cross,
                block.X,
                block.Y,
                self.target_scale,
                row_scale=None if block.weight is None else block.weight.sqrt(),
                x_scale=x_scale,
                order=None if order is None else block.among(order),
                factor=factor,
                ones=self.bias,
                bfloat16=bfloat16,
            )

    def raw(self, Z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return D Z split into the features' part ``(features, k)`` and the bias part ``(k,)`` or None."""
        V = Z * self.scale.unsqueeze(1)
        return (V[1:], V[0]) if self.bias else (V, None)

    def _adjoint(self, sums: PassSums) -> Tensor:
        G = torch.cat([sums.ones.unsqueeze(0), sums.features]) if self.bias else sums.features
        return G * self.scale.unsqueeze(1)

    def normal_product(self, Z: Tensor) -> Tensor:
        """Return ``(A'A + P'P) Z``, shape ``(columns, k)``; each block of rows is read once for both products."""
        V, v0 = self.raw(Z)
        sums = pass_sums(V.shape[0], V.shape[1], V.device)
        offset = None if v0 is None else -v0
        for block in self.pass_blocks("refining"):
            residual_pass(sums, block.X, None, -V, offset, block.weight)
        return self._adjoint(sums) + self.penalty.square().unsqueeze(1) * Z

    def gradient(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``A'(B - A Z) - P'P Z``, shape ``(columns, targets)``, and the squared residual norms ``(targets,)``.

        The squared norms count the ridge rows as well.
        """
        V, v0 = self.raw(Z)
        sums = pass_sums(V.shape[0], V.shape[1], V.device)
        for block in self.pass_blocks("refining"):
            residual_pass(sums, block.X, block.Y, V, v0, block.weight, self.target_scale)
        penalised = self.penalty.unsqueeze(1) * Z
        return self._adjoint(sums) - self.penalty.unsqueeze(1) * penalised, sums.squares + penalised.square().sum(0)

    def image_norms(self, Z: Tensor) -> Tensor:
        """Return the lengths of the columns of A Z with those of P Z under them, ``(k,)``."""
        V, v0 = self.raw(Z)
        sums = pass_sums(V.shape[0], V.shape[1], V.device)
        for block in self.pass_blocks("certifying"):
            residual_pass(sums, block.X, None, V, v0, block.weight)
        return (sums.squares + (self.penalty.unsqueeze(1) * Z).square().sum(0)).sqrt()

    def residual(self, Z: Tensor) -> Tensor:
        """Return ``B - A Z`` as one tensor ``(rows, targets)``; for square and wide problems, where it is small."""
        V, v0 = self.raw(Z)
        parts = []
        for block in self.blocks(label="refining"):
            part = block.Y * self.target_scale - product(block.X, V)
            if v0 is not None:
                part -= v0
            if block.weight is not None:
                part *= block.weight.sqrt().unsqueeze(1)
            parts.append(part)
        return torch.cat(parts)

    @cached_property
    def triangle(self) -> Triangle:
        """The rows compressed by Householder QR, folded block by block, with the ridge rows under them."""
        p = self.n_columns
        size = max(2 * p, 2**19 // p)
        triangle = Triangle.empty(
            p,
            self.n_targets,
            exponents=self._exponents,
            target_exponents=self._target_exponents,
            has_ones=self.bias,
            device=self.scale.device,
        )
        for A, B in self.matrix_blocks(size, "factoring"):
            triangle = triangle.fold(A, B)
        triangle = replace(triangle, rows=self.scanned.positive_rows, weight_sum=self.scanned.weight_sum)
        return triangle.with_ridge(self.penalty) if self.l2 > 0 else triangle

    def to_weights(self, Z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the layer's weight ``(targets, features)`` and bias ``(targets,)`` of the coordinates Z."""
        # One exponent for both scales, in halves: neither alone may take the weights out of the range of doubles.
        exponents = self._target_exponents - self._exponents.unsqueeze(1)
        half = exponents // 2
        W = torch.ldexp(torch.ldexp(Z, half), exponents - half)
        return W[int(self.bias) :].T.contiguous(), W[0].clone() if self.bias else None

    def from_weights(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the coordinates Z ``(columns, targets)`` of a layer's weight and bias."""
        V = weight.T if bias is None else torch.cat([bias.unsqueeze(0), weight.T])
        return V.to(self.scale) * self.target_scale / self.scale.unsqueeze(1)

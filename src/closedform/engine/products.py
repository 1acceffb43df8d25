"""The engines that need no compiler of their own: matrix products of BLAS on a CPU, and of torch on any device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.contract import Engine
from closedform.engine.memory import address, held
from closedform.engine.sums import FewCurvatures, ImageSums, LossTotals, PassSums, RowLengths
from closedform.engine.threads import all_threads

if TYPE_CHECKING:
    from closedform.losses.formula import Formula

__all__ = ["Blas", "Torch", "blas_residual_sums_", "gram_", "image", "product_"]

#: Bytes of a block that stays in the outer caches, so that two products with it cost one read of memory.
_CACHE_BYTES = 2 * 2**20
#: Bytes of a block that is rounded and multiplied at once in a Gram matrix, which is bound by arithmetic.
_BUFFER_BYTES = 32 * 2**20
#: Rows of a block where the call costs more than a read: products with many vectors, or on another device.
_GEMM_ROWS = 2048
#: Rows and columns of the smallest block, whatever its bytes.
_LEAST_ROWS = 64
#: Rows whose images are multiplied with them at a time: few, since what is left of sums that cancel is their rounding.
_IMAGE_ROWS = 512


def gram_(gram: Tensor, A: Tensor) -> None:
    """Add the upper triangle of ``A'A`` to that of ``gram``; below the diagonal nothing is promised until mirrored.

    On a CPU the symmetric rank-k update of BLAS takes half the operations; torch does not offer it.

    Args:
        gram: ``(columns, columns)``, float32 or float64, contiguous.
        A: ``(rows, columns)`` of the same dtype; a transposed view is not copied either.

    Example:
        >>> import torch
        >>> gram = torch.zeros(2, 2)
        >>> gram_(gram, torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
        >>> gram.triu()
        tensor([[ 1.,  2.],
                [ 0., 13.]])
    """
    if gram.device.type != "cpu":
        gram.addmm_(A.T, A)
        return

    from scipy.linalg.blas import dsyrk, ssyrk

    update = ssyrk if gram.dtype == torch.float32 else dsyrk
    A = held(A)
    # Seen through Fortran order, the transposed arrays are the same memory: nothing is copied, the update is in place
    # and its lower triangle is our upper one.
    transposed = not A.is_contiguous() and A.T.is_contiguous()
    array = A.T.numpy().T if transposed else A.contiguous().numpy()
    options = {"a": array, "trans": 1} if transposed else {"a": array.T, "trans": 0}
    updated = update(1.0, beta=1.0, c=gram.numpy().T, lower=1, overwrite_c=1, **options)
    if updated.ctypes.data != address(gram):
        gram.copy_(torch.from_numpy(updated).T)


def image(A: Tensor, B: Tensor) -> Tensor:
    """Return ``A B``, by the BLAS that :func:`gram_` uses: with few vectors twice as fast as that of torch on a CPU.

    Args:
        A: ``(rows, columns)``, float32 or float64.
        B: ``(columns, vectors)`` of the same dtype.
    """
    return A @ B if A.device.type != "cpu" else torch.from_numpy(held(A).numpy() @ held(B).numpy())


def product_(product: Tensor, A: Tensor, B: Tensor) -> None:
    """Add ``A'B`` to ``product``, by the BLAS that :func:`gram_` uses.

    Args:
        product: ``(columns, targets)``, float32 or float64.
        A: ``(rows, columns)`` of the same dtype.
        B: ``(rows, targets)`` of the same dtype.
    """
    if product.device.type != "cpu":
        product.addmm_(A.T, B)
        return
    product.numpy()[...] += held(A).numpy().T @ held(B).numpy()


def blas_residual_sums_(
    sums: PassSums,
    X: Tensor,
    Y: Tensor | None,
    V: Tensor,
    offset: Tensor | None,
    weight: Tensor | None,
    y_scale: Tensor | None,
) -> None:
    """Add the sums of :meth:`Engine.residual_sums_` by NumPy's BLAS, for rows that NumPy reads as they are.

    Nothing of torch runs in between, whose threads would wait on it.
    """
    Y = _scaled(Y, y_scale)
    operands = tuple(None if values is None else held(values).numpy() for values in (X, Y, V, offset, weight))
    totals = tuple(total.numpy() for total in (sums.features, sums.ones, sums.squares, *sums.grams))
    _residual_sums_(totals, operands, sums.groups, _GEMM_ROWS, lambda block: block.astype(float, copy=False))


def _scaled(Y: Tensor | None, y_scale: Tensor | None) -> Tensor | None:
    if Y is None:
        return None
    with all_threads():
        return Y.to(torch.float64) if y_scale is None else Y.to(torch.float64) * y_scale


def _residual_sums_(
    totals: tuple[Any, ...],
    operands: tuple[Any, ...],
    groups: tuple[range, ...],
    rows: int,
    widen: Callable[[Any], Any],
) -> None:
    """The same by matrix products, of NumPy arrays or of torch tensors alike; the totals are added to in place."""
    X, Y, V, offset, weight = operands
    features, ones, squares, *grams = totals
    for start in range(0, X.shape[0], rows):
        part = slice(start, start + rows)
        block = widen(X[part])
        residuals = -(block @ V)
        if Y is not None:
            residuals[:, : Y.shape[1]] += Y[part]
        if offset is not None:
            residuals -= offset

        T = residuals if weight is None else residuals * weight[part, None]
        squares += (residuals * T).sum(0)
        for group, gram in zip(groups, grams, strict=True):
            gram += residuals[:, group.start : group.stop].T @ T[:, group.start : group.stop]
        features += block.T @ T
        ones += T.sum(0)


class _Products(Engine, ABC):
    """All verbs by matrix products of blocks of rows, which are turned into float64 one after the other."""

    @property
    @override
    def multiplies_bfloat16(self) -> bool:
        return False

    @property
    @override
    def sums_while_multiplying(self) -> bool:
        return False

    @property
    @override
    def sums_expansions(self) -> bool:
        return False

    @property
    @override
    def sums_losses(self) -> bool:
        return False

    @property
    @override
    def sums_curvatures(self) -> bool:
        return False

    @abstractmethod
    def _block_rows(self, X: Tensor) -> int:
        """Return how many rows are multiplied at a time where a product takes them twice."""

    @override
    def column_squares_(self, squares: Tensor, X: Tensor, weight: Tensor | None = None) -> None:
        rows = _cached_rows(X)
        for start in range(0, X.shape[0], rows):
            part = X[start : start + rows].to(torch.float64)
            product = part * part
            squares += (product if weight is None else product * weight[start : start + rows].unsqueeze(1)).sum(0)

    @override
    def spread_squares_(
        self, sums: Tensor, X: Tensor, scale: Tensor, shift: Tensor, weight: Tensor | None = None
    ) -> None:
        rows = _cached_rows(X)
        with all_threads():
            for start in range(0, X.shape[0], rows):
                part = X[start : start + rows].to(torch.float64) * scale - shift
                weighted = part if weight is None else part * weight[start : start + rows].unsqueeze(1)
                sums[0] += (part * weighted).sum(0)
                sums[1] += weighted.sum(0)

    @override
    def residual_sums_(
        self,
        sums: PassSums,
        X: Tensor,
        Y: Tensor | None,
        V: Tensor,
        offset: Tensor | None = None,
        weight: Tensor | None = None,
        y_scale: Tensor | None = None,
    ) -> None:
        operands = (X, _scaled(Y, y_scale), V, offset, weight)
        totals = (sums.features, sums.ones, sums.squares, *sums.grams)
        with all_threads():
            _residual_sums_(totals, operands, sums.groups, self._block_rows(X), lambda block: block.to(torch.float64))

    @override
    def image_sums_(
        self,
        sums: ImageSums,
        X: Tensor,
        Y: Tensor,
        V: Tensor,
        offset: Tensor | None,
        weight: Tensor | None,
        y_scale: Tensor,
    ) -> None:
        with all_threads():
            for start in range(0, X.shape[0], _IMAGE_ROWS):
                part = slice(start, start + _IMAGE_ROWS)
                block = X[part].to(torch.float64)
                T = image(block, V)
                if offset is not None:
                    T += offset

                weighted = T if weight is None else T * weight[part].unsqueeze(1)
                sums.ones.add_(weighted.sum(0))
                sums.squares.add_((T * weighted).sum(0))
                product_(sums.features, block, weighted)
                product_(sums.targets, Y[part].to(torch.float64) * y_scale, weighted)

    @override
    def normal_equations_(
        self,
        gram: Tensor,
        cross: Tensor,
        X: Tensor,
        Y: Tensor,
        y_scale: Tensor,
        *,
        row_scale: Tensor | None = None,
        x_scale: Tensor | None = None,
        order: Tensor | None = None,
        factor: Tensor | None = None,
        ones: bool = False,
        bfloat16: bool = False,
        spread: Tensor | None = None,
    ) -> None:
        if order is not None:
            X, Y, row_scale = X[order], Y[order], None if row_scale is None else row_scale[order]
        if spread is not None:
            unit, weight = torch.ones_like(spread[0]), None if row_scale is None else row_scale.square()
            self.spread_squares_(spread, X, unit, torch.zeros_like(unit), weight)
        rows = max(_LEAST_ROWS, _BUFFER_BYTES // (gram.dtype.itemsize * gram.shape[0]))

        with all_threads():
            for start in range(0, X.shape[0], rows):
                part = slice(start, start + rows)
                A, B = X[part].to(torch.float64), Y[part].to(torch.float64) * y_scale
                if x_scale is not None:
                    A = A * x_scale
                if ones:
                    A = torch.cat([A.new_ones(A.shape[0], 1), A], 1)
                if factor is not None:
                    A = A @ factor
                if row_scale is not None:
                    A, B = A * row_scale[part].unsqueeze(1), B * row_scale[part].unsqueeze(1)

                A, B = A.to(gram.dtype), B.to(gram.dtype)
                if bfloat16:
                    A, B = A.to(torch.bfloat16).to(gram.dtype), B.to(torch.bfloat16).to(gram.dtype)
                gram_(gram, A)
                product_(cross, A, B)

    @override
    def row_gram_(self, gram: Tensor, X: Tensor, row_scale: Tensor) -> None:
        width = max(_LEAST_ROWS, _BUFFER_BYTES // (gram.dtype.itemsize * X.shape[0]))
        for start in range(0, X.shape[1], width):
            block = X[:, start : start + width].to(torch.float64) * row_scale.unsqueeze(1)
            gram_(gram, block.to(gram.dtype).T)

    @override
    def expansion_sums_(
        self,
        sums: Tensor,
        X: Tensor,
        Y: Tensor,
        V: Tensor,
        offset: Tensor,
        weight: Tensor | None,
        y_scale: Tensor,
    ) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no sums of three doubles; ask sums_expansions first")

    @override
    def loss_sums_(
        self,
        sums: LossTotals,
        X: Tensor,
        Y: Tensor,
        formula: Formula,
        v: Tensor,
        offset: float,
        weight: Tensor | None = None,
        *,
        roots: Tensor | None = None,
        lengths: RowLengths | None = None,
    ) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no sums of losses; ask sums_losses first")

    @override
    def curvature_sums_(
        self, sums: Tensor, X: Tensor, curvatures: FewCurvatures, V: Tensor, offset: Tensor | None = None
    ) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no sums of curvatures; ask sums_curvatures first")

    @override
    def sketch_(self, sketch: Tensor, X: Tensor, targets: Tensor, factors: Tensor) -> None:
        values = X.to(torch.float64)
        for each in range(targets.shape[1]):
            sketch.index_add_(0, targets[:, each].long(), values * factors[:, each : each + 1])


def _cached_rows(X: Tensor) -> int:
    return max(_LEAST_ROWS, _CACHE_BYTES // (8 * max(X.shape[1], 1)))


@final
class Blas(_Products):
    """Rows on a CPU that no compiled loop reads: half precision, other layouts, or where nothing was compiled.

    Blocks stay in the caches between the two products that a pass takes of them.
    """

    @override
    def _block_rows(self, X: Tensor) -> int:
        return _cached_rows(X)


@final
class Torch(_Products):
    """Rows on another device: larger blocks, because there a call costs more than a read of memory."""

    @override
    def _block_rows(self, X: Tensor) -> int:
        return max(_cached_rows(X), _GEMM_ROWS)

"""The triangle of a table: all that least squares needs to know of its rows, in a size that does not depend on them.

The R of ``[A | B]`` is kept as the R of A, the matching rows ``C = Q'B`` and the squared norms of what is left of B.
For many targets this is smaller than one triangle and answers the same questions: solution, residual norm, every ridge
strength, spectrum. Source: Golub (1965); folding by blocks of rows as in Demmel, Grigori, Hoemmen and Langou (2012).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from closedform.numerics.scaling import times_power_of_two

__all__ = ["Triangle", "leaf_rows"]

#: Rows that LAPACK's update of a triangle takes at a time, so that what it copies stays in cache.
_UPDATE_ROWS = 1024
#: Columns of a panel of that update, as LAPACK's own default.
_PANEL = 16
#: Rows that are factored at once at least: sums of fewer terms round less, and calls of LAPACK cost something.
_LEAF_ROWS = 256
#: Parts into which it is worth cutting rows at least.
_FEWEST_LEAVES = 4
#: Entries of a table that are cut into such parts at a time, so that what LAPACK copies stays in the cache of a core.
_CACHED_ENTRIES = 2**17
#: Rows for each column of such a part at least, so that factoring their triangles costs little beside.
_LEAF_RATIO = 8


@final
@dataclass(frozen=True, eq=False)
class Triangle:
    """A compressed least-squares problem: ``min ||B - A Z||^2`` equals ``min ||C - R Z||^2`` plus ``residual_squares``.

    Attributes:
        R: Upper triangular, or upper trapezoidal while there were fewer rows than columns, ``(r, columns)``.
        C: Coordinates of the targets, ``(r, targets)``.
        residual_squares: Squared norm of what no weights can explain, ``(targets,)``.
        rows: Rows of the table with a positive weight.
        weight_sum: Sum of their weights; as many as rows where they have none.
        exponents: Column j of the table is ``2 ** exponents[j]`` times that of A, ``(columns,)`` int32.
        target_exponents: The same for B, ``(targets,)`` int32.
        has_ones: Whether column 0 stands for the bias, a column of ones.
    """

    R: Tensor
    C: Tensor
    residual_squares: Tensor
    rows: int
    weight_sum: float
    exponents: Tensor
    target_exponents: Tensor
    has_ones: bool = False

    @staticmethod
    def empty(
        columns: int,
        targets: int,
        *,
        exponents: Tensor | None = None,
        target_exponents: Tensor | None = None,
        has_ones: bool = False,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Triangle:
        """Return the triangle of no rows.

        Args:
            columns: Columns of A, that of ones included.
            targets: Columns of B.
            exponents: Powers of two that were taken out of the columns, ``(columns,)``, or None for zeros.
            target_exponents: The same for the targets, ``(targets,)``, or None for zeros.
            has_ones: Whether column 0 is one of ones.
            dtype: float32 or float64.
            device: Where it is kept.
        """
        zeros = torch.zeros(0, dtype=dtype, device=device).new_zeros
        if exponents is None:
            exponents = zeros(columns, dtype=torch.int32)
        if target_exponents is None:
            target_exponents = zeros(targets, dtype=torch.int32)

        return Triangle(
            R=zeros(0, columns),
            C=zeros(0, targets),
            residual_squares=zeros(targets),
            rows=0,
            weight_sum=0.0,
            exponents=exponents.to(torch.int32),
            target_exponents=target_exponents.to(torch.int32),
            has_ones=has_ones,
        )

    @property
    def columns(self) -> int:
        """Columns of A, that of ones included."""
        return self.R.shape[1]

    @property
    def targets(self) -> int:
        """Columns of B."""
        return self.C.shape[1]

    def fold(self, A: Tensor, B: Tensor, *, rows: int | None = None, weight_sum: float | None = None) -> Triangle:
        """Return the triangle of its rows and new ones.

        Args:
            A: ``(new rows, columns)``, in the scale of this triangle, times the roots of the weights.
            B: ``(new rows, targets)``, likewise.
            rows: How many of them count, those of A by default; 0 for the rows of a ridge.
            weight_sum: Sum of their weights, that of ``rows`` by default.

        Example:
            >>> import torch
            >>> A, B = torch.eye(3, 2, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
            >>> folded = Triangle.empty(2, 1).fold(A[:1], B[:1]).fold(A[1:], B[1:])
            >>> folded.R.abs()
            tensor([[1., 0.],
                    [0., 1.]], dtype=torch.float64)
            >>> folded.residual_squares, folded.rows
            (tensor([1.], dtype=torch.float64), 3)
        """
        counted = A.shape[0] if rows is None else rows
        total = self.weight_sum + (float(counted) if weight_sum is None else weight_sum)
        # LAPACK's update uses that R is a triangle already: for few new rows it costs columns^2 a row.
        few = A.device.type == "cpu" and self.R.shape[0] == self.columns and A.shape[0] <= self.columns
        parts = (_updated if few else _refactored)(self.R, self.C, A, B)
        return self._with(*parts, rows=self.rows + counted, weight_sum=total)

    def fold_joined(self, joined: Tensor, *, rows: int | None = None) -> Triangle:
        """Return what :meth:`fold` does of rows that stand beside their targets, ``[A | B]``, ``(rows, columns)``.

        Many rows are so folded without another copy of them.

        Args:
            joined: The rows.
            rows: How many there were, each of which counts once, before others with the same products stood for them;
                those of ``joined`` by default.

        Example:
            >>> import torch
            >>> rows = torch.tensor([[3.0, 6.0], [4.0, 8.0]], dtype=torch.float64)
            >>> Triangle.empty(1, 1).fold_joined(rows).R.abs()
            tensor([[5.]], dtype=torch.float64)
        """
        p, m = self.columns, joined.shape[0]
        count = m if rows is None else rows
        if self.targets > p or m <= p:
            return self.fold(joined[:, :p], joined[:, p:], rows=count)
        parts = _joined(self.R, self.C, joined)
        return self._with(*parts, rows=self.rows + count, weight_sum=self.weight_sum + count)

    def _with(self, R: Tensor, C: Tensor, squares: Tensor, *, rows: int, weight_sum: float) -> Triangle:
        """The triangle of more rows, which left ``squares`` of the targets."""
        squares = self.residual_squares + squares
        return replace(self, R=R, C=C, residual_squares=squares, rows=rows, weight_sum=weight_sum)

    def merge(self, other: Triangle) -> Triangle:
        """Return the triangle of the rows of both, as if they had been folded one after the other.

        Where their scales differ, the larger of both holds; bringing a column to it is exact.

        Raises:
            ValueError: they are not of the same columns and targets.

        Example:
            >>> import torch
            >>> one = Triangle.empty(1, 1).fold(torch.full((1, 1), 3.0).double(), torch.full((1, 1), 6.0).double())
            >>> two = Triangle.empty(1, 1).fold(torch.full((1, 1), 4.0).double(), torch.full((1, 1), 8.0).double())
            >>> both = one.merge(two)
            >>> both.R.abs().item(), both.rows
            (5.0, 2)
        """
        if (self.columns, self.targets, self.has_ones) != (other.columns, other.targets, other.has_ones):
            raise ValueError(
                f"triangles of {self.columns} columns and {self.targets} targets and of {other.columns} and "
                f"{other.targets} cannot be merged"
            )
        exponents = torch.maximum(self.exponents, other.exponents)
        target_exponents = torch.maximum(self.target_exponents, other.target_exponents)
        first = self if self.R.shape[0] else replace(self, exponents=exponents, target_exponents=target_exponents)
        first, second = first.rescaled(exponents, target_exponents), other.rescaled(exponents, target_exponents)
        merged = first.fold(second.R, second.C, rows=other.rows, weight_sum=other.weight_sum)
        return replace(merged, residual_squares=merged.residual_squares + second.residual_squares)

    def rescaled(self, exponents: Tensor, target_exponents: Tensor | None = None) -> Triangle:
        """Return the same triangle with other powers of two taken out of its columns, which is exact.

        Args:
            exponents: ``(columns,)``, integers.
            target_exponents: ``(targets,)``, integers; None leaves the targets as they are.
        """
        if target_exponents is None:
            target_exponents = self.target_exponents
        if torch.equal(exponents, self.exponents) and torch.equal(target_exponents, self.target_exponents):
            return self
        columns, targets = self.exponents - exponents, self.target_exponents - target_exponents
        return replace(
            self,
            R=times_power_of_two(self.R, columns),
            C=times_power_of_two(self.C, targets),
            residual_squares=times_power_of_two(self.residual_squares, 2 * targets),
            exponents=exponents.to(torch.int32),
            target_exponents=target_exponents.to(torch.int32),
        )

    def unscaled(self) -> Triangle:
        """Return the triangle in the units of the table."""
        return self.rescaled(torch.zeros_like(self.exponents), torch.zeros_like(self.target_exponents))

    def padded(self) -> Triangle:
        """Return the triangle with R filled up with rows of zeros to ``(columns, columns)``."""
        missing = self.columns - self.R.shape[0]
        if missing <= 0:
            return self
        R = torch.cat([self.R, self.R.new_zeros(missing, self.columns)])
        return replace(self, R=R, C=torch.cat([self.C, self.C.new_zeros(missing, self.targets)]))

    def first_rows(self, count: int) -> Triangle:
        """Return the triangle without the rows of R after the first ``count``, which are zeros."""
        return replace(self, R=self.R[:count], C=self.C[:count])

    def with_ridge(self, penalty: Tensor) -> Triangle:
        """Return the triangle with the rows ``diag(penalty)`` of a ridge under it; their targets are zero.

        Args:
            penalty: ``(columns,)``, in the scale of this triangle; columns that it leaves free (the bias) have zeros.
        """
        ridge = torch.diag(penalty.to(self.R))[penalty > 0]
        return self.fold(ridge, ridge.new_zeros(ridge.shape[0], self.targets), rows=0, weight_sum=0.0)

    def without_ones(self) -> Triangle:
        """Return the triangle of the same rows without their column of ones.

        That column stood first, so dropping it leaves an upper Hessenberg matrix, and a short QR makes it a triangle.
        """
        if not self.has_ones:
            return self
        none = replace(
            self, R=self.R[:0, 1:], C=self.C[:0], exponents=self.exponents[1:], has_ones=False, rows=0, weight_sum=0.0
        )
        return none.fold(self.R[:, 1:], self.C, rows=self.rows, weight_sum=self.weight_sum)

    def centred(self) -> Triangle:
        """Return the triangle of features and targets less their (weighted) means: what is left under the first row.

        Raises:
            ValueError: there is no column of ones.
        """
        if not self.has_ones:
            raise ValueError("a triangle without a column of ones knows no means")
        return replace(self, R=self.R[1:, 1:], C=self.C[1:], exponents=self.exponents[1:], has_ones=False)

    def to_table(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return few rows that say of least squares what all rows say, in the units of the table.

        They are R and what no weights can explain, one row for that. Where there is a column of ones, a reflection of
        Householder (1958) turns that of R into a constant, so that it is a column of ones again, for rows that all
        have the same weight.

        Returns:
            Features ``(r, features)``, targets ``(r, targets)``, and weights ``(r,)`` or None for ones.

        Raises:
            ValueError: there are no rows.

        Example:
            >>> import torch
            >>> A = torch.tensor([[1.0, 2.0], [1.0, 4.0], [1.0, 9.0]]).double()
            >>> X, Y, weight = Triangle.empty(2, 1, has_ones=True).fold(A, A[:, 1:]).to_table()
            >>> mean = (weight * X[:, 0]).sum() / weight.sum()
            >>> tuple(X.shape), round(float(mean), 12), round(float(weight.sum()), 12)
            ((3, 1), 5.0, 3.0)
        """
        if not self.R.shape[0]:
            raise ValueError("a triangle of no rows is no table")
        A, B = self.R, self.C
        if bool((self.residual_squares > 0).any()):
            A = torch.cat([A, A.new_zeros(1, A.shape[1])])
            B = torch.cat([B, self.residual_squares.sqrt().unsqueeze(0)])
        if not self.has_ones:
            return times_power_of_two(A, self.exponents), times_power_of_two(B, self.target_exponents), None

        # Of both signs the one by which nothing cancels.
        level = -torch.sign(A[0, 0]) * A[0, 0].abs() / A.shape[0] ** 0.5
        mirror = torch.full_like(A[:, 0], -float(level))
        mirror[0] += A[0, 0]
        mirror /= torch.linalg.vector_norm(mirror)
        A, B = ((part - 2 * torch.outer(mirror, mirror @ part)) / level for part in (A[:, 1:], B))
        # The units come last: entries are of the size of the table's, columns may be longer than float64 reaches.
        ones = self.exponents[0]
        X = times_power_of_two(A, self.exponents[1:] - ones)
        Y = times_power_of_two(B, self.target_exponents - ones)
        return X, Y, times_power_of_two(level, ones).square().expand(A.shape[0])

    def discounted(self, factor: float) -> Triangle:
        """Return the triangle with the weights of all rows multiplied by ``factor``."""
        root = factor**0.5
        return replace(
            self,
            R=root * self.R,
            C=root * self.C,
            residual_squares=factor * self.residual_squares,
            weight_sum=factor * self.weight_sum,
        )

    def select(self, chosen: Tensor) -> Triangle:
        """Return the triangle of some of the targets, ``chosen`` an index tensor or a mask."""
        return replace(
            self,
            C=self.C[:, chosen],
            residual_squares=self.residual_squares[chosen],
            target_exponents=self.target_exponents[chosen],
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return all fields as tensors, to be saved without pickle.

        Example:
            >>> Triangle.from_state_dict(Triangle.empty(3, 2).state_dict()).columns
            3
        """
        counts = torch.tensor(
            [float(self.rows), self.weight_sum, float(self.has_ones)], dtype=torch.float64, device="cpu"
        )
        return {
            "R": self.R,
            "C": self.C,
            "residual_squares": self.residual_squares,
            "exponents": self.exponents,
            "target_exponents": self.target_exponents,
            "rows_weight_ones": counts,
        }

    @staticmethod
    def from_state_dict(state: Mapping[str, Tensor]) -> Triangle:
        """Return the triangle that :meth:`state_dict` was called on.

        Raises:
            ValueError: entries are missing or do not fit each other.
        """
        names = ("R", "C", "residual_squares", "exponents", "target_exponents", "rows_weight_ones")
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(f"the state of a triangle lacks {', '.join(missing)}")
        R, C, squares, exponents, target_exponents, counts = (state[name] for name in names)
        fits = (
            R.dim() == C.dim() == 2
            and R.shape[0] == C.shape[0] <= R.shape[1]
            and squares.shape == target_exponents.shape == C.shape[1:]
            and exponents.shape == R.shape[1:]
            and counts.shape == (3,)
        )
        if not fits:
            shapes = ", ".join(f"{name} {tuple(state[name].shape)}" for name in names)
            raise ValueError(f"the parts of a triangle's state do not fit each other: {shapes}")
        rows, weight_sum, has_ones = counts.tolist()
        return Triangle(R, C, squares, int(rows), weight_sum, exponents, target_exponents, bool(has_ones))


def _refactored(R: Tensor, C: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return R and C of the stacked rows, and what is left of the targets, by a tree of ordinary QRs.

    LAPACK adds up a column from its first row to its last, and what that rounds grows with the rows; in a tree of short
    parts it grows with their logarithm (Demmel, Grigori, Hoemmen and Langou 2012).
    """
    if B.shape[1] <= A.shape[1]:
        return _joined(R, C, torch.cat([A, B], 1))
    A, B, squares = _leaves(A, B)
    if R.shape[0]:
        A, B = torch.cat([R, A]), torch.cat([C, B])
    R, C, rest = _factored(A, B, min(A.shape))
    return R, C, squares + rest


def _joined(R: Tensor, C: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of ``[A | B]``: few targets are columns of the same factorization."""
    (r, p), k = R.shape, C.shape[1]
    leaf, squares = leaf_rows(p), C.new_zeros(k)
    while p and rows.shape[0] >= _FEWEST_LEAVES * leaf:
        count = max(1, _CACHED_ENTRIES // (leaf * (p + k))) * leaf
        cut = rows.shape[0] // leaf * leaf
        triangles = []
        for start in range(0, cut, count):
            parts = rows[start : min(start + count, cut)].reshape(-1, leaf, p + k)
            factored = torch.geqrf(parts)[0][:, : p + k].triu()
            squares += factored[:, p:, p:].square().sum((0, 1))
            triangles.append(factored[:, :p].reshape(-1, p + k))
        rows = torch.cat([*triangles, rows[cut:]])

    # Laid out as LAPACK wants it.
    whole = rows.new_empty(p + k, r + rows.shape[0]).T
    whole[:r, :p], whole[:r, p:], whole[r:] = R, C, rows
    triangle = torch.geqrf(whole)[0][: p + k].triu()
    size = min(p, whole.shape[0])
    rest = triangle[size:, p:].square().sum(0)
    return triangle[:size, :p].contiguous(), triangle[:size, p:].contiguous(), squares + rest


def leaf_rows(columns: int) -> int:
    """Return how many rows of a long table are made a triangle at a time, before their triangles are.

    Args:
        columns: Columns of the rows.
    """
    return max(_LEAF_RATIO * columns, _LEAF_ROWS)


def _leaves(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Factor many rows of many targets in parts, and the triangles of those again until few are left."""
    p, squares = A.shape[1], B.new_zeros(B.shape[1])
    leaf = leaf_rows(p)
    while p and A.shape[0] >= _FEWEST_LEAVES * leaf:
        count = A.shape[0] // leaf
        whole = count * leaf
        R, C, rest = _factored(A[:whole].reshape(count, leaf, p), B[:whole].reshape(count, leaf, -1), p)
        squares = squares + rest.sum(0)
        A, B = torch.cat([R.reshape(-1, p), A[whole:]]), torch.cat([C.reshape(count * p, -1), B[whole:]])
    return A, B, squares


def _factored(A: Tensor, B: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return R and C of a matrix or a batch of them, and the squares of what is left of the targets."""
    reflectors, tau = torch.geqrf(A)
    rotated = torch.ormqr(reflectors, tau, B, left=True, transpose=True) if size else B
    return reflectors[..., :size, :].triu(), rotated[..., :size, :].clone(), rotated[..., size:, :].square().sum(-2)


def _updated(R: Tensor, C: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same by LAPACK's ``tpqrt`` where R is square; R and C are not changed."""
    from scipy.linalg import lapack

    double = A.dtype == torch.float64
    tpqrt, tpmqrt = (lapack.dtpqrt, lapack.dtpmqrt) if double else (lapack.stpqrt, lapack.stpmqrt)
    squares = B.new_zeros(B.shape[1])
    for start in range(0, A.shape[0], _UPDATE_ROWS):
        part = slice(start, start + _UPDATE_ROWS)
        # Only the upper triangle is written; what LAPACK leaves below it is what was there: zeros.
        upper, V, T, _ = tpqrt(0, min(_PANEL, A.shape[1]), R.numpy(), A[part].numpy())
        top, rest, _ = tpmqrt(0, V, T, C.numpy(), B[part].numpy(), side="L", trans="T")
        R, C = torch.from_numpy(upper), torch.from_numpy(top)
        squares += torch.from_numpy(rest).square().sum(0)
    return R, C, squares

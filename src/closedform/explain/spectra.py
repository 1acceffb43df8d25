"""The spectrum of a fit: singular values of the design matrix, and how much of the target lies along each direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from closedform.files import open_problem
from closedform.fit.problem import Problem
from closedform.numerics.rank import Rank, decide_rank, default_rcond
from closedform.numerics.scaling import power_of_two_exponents
from closedform.numerics.triangle import Triangle
from closedform.rows import Design, Rows, Scan, as_rows, scan

__all__ = ["Spectrum", "compress", "spectrum", "spectrum_of", "spectrum_of_rows"]

#: Squares below this leave no room in float64 for what is made of them.
_SMALLEST_SQUARE = 1e-300
#: Squares above this leave none either.
_LARGEST_SQUARE = 1e300
#: From this ratio on the smallest singular value is taken from the inverse, where it is the largest.
_ILL_CONDITIONED = 1e-8


@final
@dataclass(frozen=True, eq=False)
class Spectrum:
    """What decides how a first-order optimizer moves on a squared error, in the user's own units.

    Attributes:
        singular_values: Of ``[1 | X]`` (weighted, with ridge rows where l2 > 0), descending, ``(columns,)``.
        directions: Right singular vectors as rows, ``(columns, columns)``; with a bias, column 0 is the bias. Only the
            directions that the rows reach where there are fewer rows than columns.
        target_components: Coordinates of the targets along the left singular vectors, ``(columns, targets)``.
        residual_squares: Squared norm of each target that no weights can explain, ``(targets,)``.
        n_rows: Rows over which the mean is taken (the sum of the weights).
        n_targets: Targets.
        bias: Whether column 0 is the bias.
        rank: Numerical rank of the matrix with its columns scaled.
        decision: How that rank was decided: the cut, the gap at it, and whether it is ambiguous.
        complete: False where only the leading singular values were computed; what lies along the others then counts as
            unexplained, and ``condition`` is a lower bound.
        known_condition: The condition number, where the singular values are beyond float64.
        range_note: What is beyond float64, where singular values cannot tell.
    """

    singular_values: Tensor
    directions: Tensor
    target_components: Tensor
    residual_squares: Tensor
    n_rows: float
    n_targets: int
    bias: bool
    rank: int
    decision: Rank
    complete: bool = True
    known_condition: float | None = None
    range_note: str = ""

    @property
    def condition(self) -> float:
        """Ratio of the largest to the smallest of the ``rank`` leading singular values."""
        if self.known_condition is not None:
            return self.known_condition
        if self.rank == 0:
            return 1.0
        return float(self.singular_values[0] / self.singular_values[self.rank - 1])

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of the Hessian of ``MSELoss()``, ``2 s^2 / (rows * targets)``, descending."""
        return 2 * self.singular_values.square() / (self.n_rows * self.n_targets)

    @property
    def in_range(self) -> bool:
        """Whether losses and eigenvalues, which are squares, can be told in float64."""
        return self.range_text == ""

    @property
    def range_text(self) -> str:
        """What is too large or too small to be squared in float64, and by how much; empty where nothing is."""
        if self.range_note:
            return self.range_note
        squares = self.eigenvalues[: self.rank]
        too_large = self.rank > 0 and not float(squares[0]) < _LARGEST_SQUARE
        if too_large or (self.rank > 0 and not float(squares[-1]) > _SMALLEST_SQUARE):
            size = float(self.singular_values[0 if too_large else self.rank - 1]) / math.sqrt(self.n_rows)
            return f"X holds numbers of about {size:.0e}, whose squares are beyond float64; scale X to about 1"
        total = float(self.target_components.square().sum() + self.residual_squares.sum())
        size = float(self.target_components.abs().max()) / math.sqrt(self.n_rows)
        if size > 0 and not _SMALLEST_SQUARE < total < _LARGEST_SQUARE:
            return f"Y holds numbers of about {size:.0e}, whose squares are beyond float64; scale Y to about 1"
        return ""

    @property
    def learning_rate_limit(self) -> float:
        """Largest stable step of plain gradient descent on ``MSELoss()``: 2 over the largest eigenvalue.

        For ``MSELoss(reduction="sum")`` it is smaller by ``rows * targets``.
        """
        largest = float(self.eigenvalues[0])
        return 2 / largest if largest > 0 else float("inf")

    @property
    def optimal_loss(self) -> float:
        """The smallest ``MSELoss()`` there is (with the ridge term where l2 > 0)."""
        return float(self.residual_squares.sum() + self.target_components[self.rank :].square().sum()) / (
            self.n_rows * self.n_targets
        )

    @property
    def excess_at_zero(self) -> float:
        """How far ``MSELoss()`` of zero weights lies above the optimal one."""
        return float(self.target_components[: self.rank].square().sum()) / (self.n_rows * self.n_targets)

    @property
    def minimiser(self) -> Tensor:
        """The weights of least Euclidean norm (the bias counted in), ``(columns, targets)``."""
        r = self.rank
        return self.directions[:r].T @ (self.target_components[:r] / self.singular_values[:r].unsqueeze(1))

    @property
    def column_norms(self) -> Tensor:
        """Euclidean norm of each column of the matrix, ``(columns,)``."""
        reached = self.singular_values[: self.directions.shape[0]].unsqueeze(1)
        return torch.linalg.vector_norm(reached * self.directions, dim=0)

    def residuals(self, weights: Tensor) -> Tensor:
        """Residuals along the first ``rank`` directions at some weights ``(columns, targets)``, ``(rank, targets)``."""
        r = self.rank
        return self.singular_values[:r].unsqueeze(1) * (self.directions[:r] @ weights) - self.target_components[:r]

    def gaps(self, weights: Tensor) -> Tensor:
        """Excess loss along each of these directions at some weights ``(columns, targets)``, ``(rank,)``."""
        return self.residuals(weights).square().sum(1) / (self.n_rows * self.n_targets)

    def magnitude(self, *weights: Tensor) -> float:
        """Bound the mean square of what is added up to a residual: ``(|x| |w| + |y|)^2`` over rows and targets.

        A residual is known to eps times its square root, so ``eps^2 * magnitude`` is where losses are rounding only.
        """
        norms = self.column_norms.unsqueeze(1)
        sizes = [torch.zeros(self.n_targets, dtype=norms.dtype, device=norms.device)]
        sizes += [(norms * w.abs()).sum(0) for w in (*weights, self.minimiser)]
        targets = (self.target_components.square().sum(0) + self.residual_squares).sqrt()
        return float((torch.stack(sizes).amax(0) + targets).square().sum()) / (self.n_rows * self.n_targets)


def spectrum(X: Any, Y: Any, *, bias: bool = False, l2: float = 0.0, sample_weight: Any = None) -> Spectrum:
    """Measure the spectrum of a fit from the triangle of its rows.

    Args:
        X: Features, ``(rows, features)`` or ``(..., features)``.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``.
        bias: Whether the layer has a bias.
        l2: Ridge strength, one number.
        sample_weight: One weight for each row.

    Raises:
        InputError, NonFiniteError, DataTypeError: as :func:`closedform.solve`.

    Example:
        >>> import torch
        >>> s = spectrum(torch.diag(torch.tensor([3.0, 1.0])), torch.tensor([3.0, 1.0]))
        >>> round(s.condition, 12), round(s.learning_rate_limit, 12)
        (3.0, 0.222222222222)
    """
    opened = open_problem(X, Y, sample_weight)
    return spectrum_of_rows(as_rows(opened.X, opened.Y, opened.sample_weight), bias=bias, l2=l2)


def spectrum_of_rows(rows: Rows, *, bias: bool, l2: float) -> Spectrum:
    """As :func:`spectrum`, for rows that passed the door."""
    whole = compress(rows, l2=l2)
    return spectrum_of(whole if bias else whole.without_ones())


def compress(rows: Rows, *, l2: float, scanned: Scan | None = None) -> Triangle:
    """Return the triangle of the rows with a column of ones, and ridge rows where l2 > 0, in the user's own units.

    A layer without a bias has the triangle without the ones.

    Args:
        rows: The rows.
        l2: Ridge strength.
        scanned: What a scan of these rows has told, where there was one; they are not scanned again then.
    """
    scanned = scan(rows) if scanned is None else scanned
    return Problem(Design(rows, scanned, bias=True), l2).triangle.unscaled()


def spectrum_of(triangle: Triangle) -> Spectrum:
    """Return the spectrum of a fit from its triangle in the user's own units."""
    R, p = triangle.R, triangle.columns
    U, values, directions = torch.linalg.svd(R, full_matrices=False)
    exponents = _column_exponents(R)
    # Where one power of two scales all columns, it scales the singular values as well.
    alike = bool((exponents == exponents[0]).all())
    scaled = torch.ldexp(values, -exponents[0]) if alike else torch.linalg.svdvals(torch.ldexp(R, -exponents))
    rank = decide_rank(scaled, p, default_rcond(triangle.rows, min(triangle.rows, p)))

    components = U.T @ triangle.C
    if rank.full and float(values[-1]) < _ILL_CONDITIONED * float(values[0]):
        values[-1] = min(float(values[-2]) if p > 1 else math.inf, _smallest_singular_value(R))
    if values.numel() < p:
        # Fewer rows than columns: the directions no row reaches have singular value zero.
        values = torch.cat([values, values.new_zeros(p - values.numel())])
        components = torch.cat([components, components.new_zeros(p - components.shape[0], components.shape[1])])

    return Spectrum(
        singular_values=values,
        directions=directions,
        target_components=components,
        residual_squares=triangle.residual_squares,
        n_rows=triangle.weight_sum,
        n_targets=triangle.targets,
        bias=triangle.has_ones,
        rank=rank.rank,
        decision=rank,
    )


def _column_exponents(R: Tensor) -> Tensor:
    """Integers e for which ``2**-e`` brings the norm of each column to [0.5, 1)."""
    # Columns are brought to about 1 first, because squares of very large or small numbers are none.
    first = power_of_two_exponents(R.abs().amax(0))
    return first + power_of_two_exponents(torch.linalg.vector_norm(torch.ldexp(R, -first), dim=0))


def _smallest_singular_value(R: Tensor) -> float:
    """Smallest singular value of a square triangle, right even where bad scaling buries it under rounding."""
    identity = torch.eye(R.shape[0], dtype=R.dtype, device=R.device)
    # Triangular inverses are accurate row by row, whatever the scale of the columns (Higham 2002, 8.2 and 14.2).
    inverse = torch.linalg.solve_triangular(R, identity, upper=True)
    largest = float(torch.linalg.matrix_norm(inverse, 2)) if bool(torch.isfinite(inverse).all()) else math.inf
    return 1 / largest if largest > 0 else math.inf

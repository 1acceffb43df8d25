"""What an engine does: all sums over the rows of a table that a fit is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from closedform.engine.sums import FewCurvatures, ImageSums, LossTotals, PassSums, RowLengths

if TYPE_CHECKING:
    from closedform.losses.formula import Formula

__all__ = ["Engine"]


class Engine(ABC):
    """Products with the rows of a table, each added to sums that the caller holds.

    Which engine serves a table depends on its dtype, its layout and its device, so it is chosen once for each, by
    :func:`closedform.engine.choice.engine_for`; all blocks of rows of that table are then given to it. An engine has no
    state. What it is given may be any tensor; what it adds to has to be plain and contiguous.
    """

    @property
    @abstractmethod
    def multiplies_bfloat16(self) -> bool:
        """Whether :meth:`normal_equations_` is faster in bfloat16 than in float32, and does not only round to it."""

    @property
    @abstractmethod
    def sums_while_multiplying(self) -> bool:
        """Whether :meth:`normal_equations_` sums columns up in the read that multiplies them, and not in another."""

    @property
    @abstractmethod
    def sums_expansions(self) -> bool:
        """Whether there are :meth:`expansion_sums_`."""

    @property
    @abstractmethod
    def sums_losses(self) -> bool:
        """Whether there are :meth:`loss_sums_`."""

    @property
    @abstractmethod
    def sums_curvatures(self) -> bool:
        """Whether there are :meth:`curvature_sums_`."""

    @abstractmethod
    def column_squares_(self, squares: Tensor, X: Tensor, weight: Tensor | None = None) -> None:
        """Add the (weighted) squares of each column to ``squares``; not finite where X is not.

        Args:
            squares: ``(columns,)``, float64.
            X: ``(rows, columns)``, any real dtype.
            weight: ``(rows,)``, float64, or None for ones.
        """

    @abstractmethod
    def spread_squares_(
        self, sums: Tensor, X: Tensor, scale: Tensor, shift: Tensor, weight: Tensor | None = None
    ) -> None:
        """Add the (weighted) squares of ``scale X - shift`` and its (weighted) sums to ``sums``, column by column.

        Args:
            sums: ``(2, columns)``, float64.
            X: ``(rows, columns)``, any real dtype.
            scale: ``(columns,)``, float64.
            shift: ``(columns,)``, float64.
            weight: ``(rows,)``, float64, or None for ones.
        """

    @abstractmethod
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
        """Add X'T, 1'T and the sums of T^2 / w to ``sums``, with ``T = w (Y - X V - offset)``.

        Args:
            sums: Where the sums go, for q vectors.
            X: ``(rows, features)``, any real dtype.
            Y: ``(rows, k)``, any real dtype, k <= q; further vectors have a target of zero. None for none at all.
            V: ``(features, q)``, float64.
            offset: ``(q,)``, float64, or None for zeros.
            weight: ``(rows,)``, float64, or None for ones.
            y_scale: What the columns of Y are multiplied by, ``(k,)`` float64, or None for ones.
        """

    @abstractmethod
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
        """Add X'T, 1'T, Y'T and the sums of T^2 / w to ``sums``, with ``T = w (X V + offset)``.

        Args:
            sums: Where the sums go, for q vectors.
            X: ``(rows, features)``, any real dtype.
            Y: ``(rows, targets)``, any real dtype.
            V: ``(features, q)``, float64.
            offset: ``(q,)``, float64, or None for zeros.
            weight: ``(rows,)``, float64, or None for ones.
            y_scale: What the columns of Y are multiplied by, ``(targets,)`` float64.
        """

    @abstractmethod
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
        """Add the upper triangle of ``A'A`` to ``gram`` and ``A'B`` to ``cross``, in their dtype.

        ``A = diag(row_scale) [1 | X diag(x_scale)] factor``, the ones only where asked for, and ``B = diag(row_scale) Y
        diag(y_scale)``.

        Args:
            gram: ``(columns, columns)``, float32 or float64; nothing is promised below the diagonal.
            cross: ``(columns, targets)``, of the same dtype.
            X: ``(rows, features)``, any real dtype.
            Y: ``(rows, targets)``, any real dtype.
            y_scale: ``(targets,)``, float64.
            row_scale: ``(rows,)``, float64, or None for ones.
            x_scale: ``(features,)``, float64, or None for ones.
            order: The rows that count, int64, or None for all.
            factor: Upper triangle, ``(columns, columns)``, float64, or None for the identity.
            ones: Whether a column of ones stands first.
            bfloat16: Whether the entries of A and B are rounded to bfloat16 first; the sums are float32 then, and there
                is no factor.
            spread: Where the squares and the sums of the columns of X go, ``(2, features)``, float64, with the squares
                of ``row_scale`` as weights: what :meth:`spread_squares_` adds, not scaled. None for nowhere. Only for
                all rows, and not in bfloat16.
        """

    @abstractmethod
    def row_gram_(self, gram: Tensor, X: Tensor, row_scale: Tensor) -> None:
        """Add the upper triangle of ``A A'`` to ``gram`` in its dtype, ``A = diag(row_scale) X``.

        Args:
            gram: ``(rows, rows)``, float32 or float64; nothing is promised below the diagonal.
            X: ``(rows, features)``, any real dtype.
            row_scale: ``(rows,)``, float64.
        """

    @abstractmethod
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
        """Add ``X'T`` and ``1'T`` for ``T = weight (Y * y_scale - X V - offset)``, all as sums of three doubles.

        Only where :attr:`sums_expansions` says so.

        Args:
            sums: Three times ``X'T`` (q, features) and ``1'T`` (q,), first parts first, then the weighted squares of
                the residuals (q,), plain; overlapping parts count with all they could stand for. float64.
            X: ``(rows, features)``.
            Y: ``(rows, q)``, any real dtype.
            V: ``(3, q, features)``, float64: each vector in three parts.
            offset: ``(3, q)``, float64.
            weight: ``(rows,)``, float64, or None for ones.
            y_scale: Powers of two, ``(q,)``, float64.

        Raises:
            NotImplementedError: the engine has no such sums.
        """

    @abstractmethod
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
        """Add the (weighted) sums of a criterion at the outputs ``X v + offset``; only where :attr:`sums_losses` is.

        Args:
            sums: Where the sums go.
            X: ``(rows, features)``, any real dtype.
            Y: ``(rows, 1)``, any real dtype.
            formula: The criterion.
            v: ``(features,)``, float64.
            offset: Added to each output.
            weight: ``(rows,)``, float64, or None for ones.
            roots: Where the roots of the weighted curvatures go, ``(rows,)``, float64, or None for nowhere.
            lengths: How long rows are, or None where errors and the peak are not wanted.

        Raises:
            NotImplementedError: the engine has no such sums.
        """

    @abstractmethod
    def curvature_sums_(
        self, sums: Tensor, X: Tensor, curvatures: FewCurvatures, V: Tensor, offset: Tensor | None = None
    ) -> None:
        """Add X'S and 1'S for what changes ``Z = X V' + offset`` do to slopes that are shares of a row.

        ``S = C (Z - m)`` with the mean m of Z in a row, weighted by its curvatures C. Numbers are rounded to float32,
        as sums of some thousand rows are. Only where :attr:`sums_curvatures` says so.

        Args:
            sums: ``(outputs, features)`` and then ``(outputs,)``, float64, plain.
            X: ``(rows, features)``, float32.
            curvatures: Those of these rows that count.
            V: ``(outputs, features)``, float32.
            offset: ``(outputs,)``, float32, or None for zeros.

        Raises:
            NotImplementedError: the engine has no such sums.
        """

    @abstractmethod
    def sketch_(self, sketch: Tensor, X: Tensor, targets: Tensor, factors: Tensor) -> None:
        """Add the rows of X, times their factors, to their rows of the sketch.

        Args:
            sketch: ``(sketch rows, columns)``, float64.
            X: ``(rows, columns)``, any real dtype.
            targets: Rows of the sketch that a row is added to, ``(rows, nonzeros)``, int32.
            factors: With which factors, ``(rows, nonzeros)``, float64.
        """

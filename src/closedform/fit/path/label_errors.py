r"""Leave-one-out errors of class labels, without residuals of rows by classes.

The error of a class at one strength is a weighted sum of squares ``sum_i v_i (y_i - u_i'p)^2`` with
``v = 1 / (1 - h)^2``, so that all classes share one weighted Gram matrix ``sum_i v_i u_i u_i'``, and what each has of
its own is a sum over the rows of the class. As functions of the strength the weights v are few: those of a few
strengths, the nodes, and ones make all the others, to rounding. Rows of which that is not true are summed one by one.

Ones make the identity, so that Gram matrices are only of what the weights are beside it. That falls fast from one
function to the next, and where it is small enough, float32 rounds it to less than the errors can show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import weighted_gram_
from closedform.fit.path.basis import Basis
from closedform.fit.path.centring import Centring, product_rows
from closedform.fit.path.labels import ByClass, Coding
from closedform.fit.path.leave_one_out import ErrorSums, LeftOut
from closedform.numerics.symmetric import mirror
from closedform.rows import Block, Fold, classes_of
from closedform.rows.block import Extent

__all__ = ["LabelErrors", "WeightBasis"]

#: Rows that stand for all others where the nodes are chosen.
_MODEL_ROWS = 192
#: Seed of these rows; any serves.
_SEED = 11
#: Relative size of what the nodes may leave of a weight of the model, and ten times that of a weight of the rows.
_TOLERANCE = 1e-12
#: How much larger than for the rows of the model a function may be before a row is summed beside the others.
_MARGIN = 2.0
#: Largest values of a function, beside ones, whose Gram matrix may be rounded to float32: what that leaves is below
#: 1e-11 of the squares of a class.
_COARSE = 2.0**-18
#: What is left of a square once its parts have cancelled, at least, for the rounding of float32 to be nothing beside.
_CANCELLED_COARSE = 0.03
#: What is left of a square once its parts have cancelled, at least: below, the digits are gone with them.
_CANCELLED = 1e-6


@final
@dataclass(frozen=True, eq=False)
class WeightBasis:
    """Few functions of the rows that make the weights of all strengths, to rounding, each much smaller than the last.

    Attributes:
        nodes: Places of the strengths whose weights they are made of, ``(q,)``.
        combine: What ones and the weights of the nodes are multiplied by to make them, ``(1 + q, q)``.
        parts: What ones and the functions are multiplied by to make the weights of all strengths, ``(1 + q,
            strengths)``.
        bounds: About how large each is at most, ``(q,)``.
    """

    nodes: Tensor
    combine: Tensor
    parts: Tensor
    bounds: Tensor

    @staticmethod
    def of(basis: Basis, left_out: LeftOut) -> WeightBasis:
        """Return the functions for rows drawn at random, by a QR factorization with pivoting.

        The source is Cheng, Gimbutas, Martinsson and Rokhlin (2005).

        Args:
            basis: The basis.
            left_out: What makes the leverages.
        """
        from scipy.linalg import qr, solve_triangular

        model = _model_weights(basis, left_out)
        mean = model.mean(0)
        Q, R, order = qr((model - mean).numpy(), mode="economic", pivoting=True)
        sizes = np.abs(R.diagonal())
        count = int((sizes > _TOLERANCE * float(torch.linalg.vector_norm(model))).sum())
        nodes, R = order[:count], R[:count, :count]

        # Of the centred weights of the nodes K = Q R the functions are Q diag(R).
        from_nodes = solve_triangular(R, np.diag(R.diagonal()))
        combine = torch.from_numpy(np.concatenate([-(mean.numpy()[nodes] @ from_nodes)[None], from_nodes]))
        functions = torch.from_numpy(Q[:, :count] * R.diagonal())
        known = torch.cat([functions.new_ones(_MODEL_ROWS, 1), functions], 1)
        parts = torch.linalg.lstsq(known, model, driver="gelsd").solution
        bounds = _MARGIN * functions.abs().amax(0) if count else functions.new_zeros(0)
        device = basis.squares.device
        return WeightBasis(
            torch.from_numpy(nodes.astype("int64")).to(device), combine.to(device), parts.to(device), bounds.to(device)
        )

    def functions(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return ones and the functions, ``(1 + q, rows)``, and for which rows they do not serve, ``(rows,)``.

        Args:
            weights: Those of all strengths, ``(strengths, rows)``.
        """
        ones = weights.new_ones(1, weights.shape[1])
        known = torch.cat([ones, self.combine.T @ torch.cat([ones, weights[self.nodes]])])
        misfit = (self.parts.T @ known - weights).abs() > 10 * _TOLERANCE * weights.amax(0)
        return known, misfit.any(0)


def _model_weights(basis: Basis, left_out: LeftOut) -> Tensor:
    """Return the weights of rows drawn at random, ``(rows, strengths)``, on the host."""
    generator = torch.Generator().manual_seed(_SEED)
    draw = torch.randn(_MODEL_ROWS, basis.rank, dtype=torch.float64, device="cpu", generator=generator).square_()
    size = torch.rand(_MODEL_ROWS, 1, dtype=torch.float64, device="cpu", generator=generator) * 3 / basis.rows
    squares = (draw * size).to(basis.squares)
    share = torch.rand(_MODEL_ROWS, dtype=torch.float64, device="cpu", generator=generator).to(squares) * 3 / basis.rows
    return left_out.remaining(squares, 1 - squares.sum(1) - share * int(basis.bias)).reciprocal().square_().T.cpu()


@final
class LabelErrors(Fold):
    """Sums of squared leave-one-out residuals of all classes and strengths.

    Gram matrices of functions so small that the rounding of float32 is nothing beside the errors are formed in float32.

    Args:
        left_out: What makes the leverages.
        centring: How rows are brought to the coordinates of its basis.
        coding: What stands in the columns.
        functions: What makes the weights.
        double: Whether all Gram matrices are formed in float64.
    """

    label = "leaving rows out"

    def __init__(
        self, left_out: LeftOut, centring: Centring, coding: Coding, functions: WeightBasis, *, double: bool
    ) -> None:
        self._arguments, self._double = (left_out, centring, coding, functions), double
        zeros, basis = left_out.basis.squares.new_zeros, left_out.basis
        count, r, k = functions.bounds.shape[0] + 1, basis.rank, basis.targets
        self._coarse = [not double and float(bound) <= _COARSE for bound in functions.bounds]
        self._grams = zeros(count, r, r)
        self._rows = zeros(count, k, r)
        self._weights = zeros(count, k)
        self._others = ErrorSums(left_out, None, absolute=False)

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return product_rows(extent)

    @override
    def add(self, block: Block) -> None:
        left_out, centring, _, functions = self._arguments
        basis = left_out.basis
        assert basis.map is not None
        A, root = centring.features(block)
        U, classes = A @ basis.map, classes_of(block)
        weight = U.new_ones(U.shape[0]) if block.weight is None else block.weight
        leftovers = left_out.leftovers(U, weight / basis.weight_sum if basis.bias else 0.0)

        known, apart = functions.functions(left_out.remaining(U.square(), leftovers).reciprocal_().square_())
        apart |= left_out.interpolated(leftovers)
        if bool(apart.any()):
            self._add_apart(U, classes, root, block, apart.nonzero().squeeze(1))
            known = known.masked_fill(apart, 0.0)

        # Of ones the Gram matrix is the identity, less the rows that were taken apart.
        self._grams[0] -= U[apart].T @ U[apart]
        for place, bound in enumerate(functions.bounds.tolist(), start=1):
            self._add_gram(place, U, known[place], bound, apart)
        by_class = ByClass(classes, basis.targets)
        for place in range(known.shape[0]):
            self._rows[place] += by_class.sums(U, known[place] if root is None else known[place] * root)
            self._weights[place].index_add_(0, classes, known[place] * weight)

    def _add_gram(self, place: int, U: Tensor, values: Tensor, bound: float, apart: Tensor) -> None:
        """Add ``U' diag(values + bound) U`` to a Gram matrix, without the rows that are taken apart."""
        gram, factors = self._grams[place], values + bound
        beyond = values.abs() > bound
        factors = factors.masked_fill(beyond | apart, 0.0)
        if self._coarse[place - 1]:
            coarse = torch.zeros_like(gram, dtype=torch.float32)
            weighted_gram_(coarse, U, factors)
            gram += coarse
        else:
            weighted_gram_(gram, U, factors)

        # Few rows, if any; their factors have any sign and size.
        if bool(beyond.any()):
            chosen = U[beyond]
            gram += chosen.T @ (chosen * (values[beyond] + bound).unsqueeze(1))

    def _add_apart(self, U: Tensor, classes: Tensor, root: Tensor | None, block: Block, chosen: Tensor) -> None:
        """Add rows one by one."""
        coding = self._arguments[2]
        B = coding.offsets.repeat(chosen.shape[0], 1)
        B[torch.arange(chosen.shape[0], device=B.device), classes[chosen]] += coding.step[classes[chosen]]
        if root is not None:
            B *= root[chosen].unsqueeze(1)
        weight = None if block.weight is None else block.weight[chosen]
        self._others.add_rows(U[chosen], B, weight, block.before + block.start, numbers=chosen)

    def errors(self) -> tuple[Tensor, bool]:
        """Return the mean squared errors in the units of the targets, and whether too much has cancelled in one.

        They are ``(strengths, classes)``. Gram matrices in float64 bear more.
        """
        left_out, _, coding, functions = self._arguments
        basis, parts = left_out.basis, functions.parts
        kept = basis.shrinkage(left_out.strengths)
        of_ones = torch.eye(basis.rank, dtype=kept.dtype, device=kept.device) + self._grams[0]
        shifted = zip(self._grams[1:], functions.bounds, strict=True)
        grams = torch.stack([of_ones, *(mirror(gram) - bound * of_ones for gram, bound in shifted)])
        cross, squares = coding.sums(self._rows.transpose(1, 2)), coding.squares(self._weights)

        result, worst = [], 1.0
        for place in range(left_out.strengths.shape[0]):
            part, p = parts[:, place], kept[:, place].unsqueeze(1) * basis.coordinates
            gram = torch.tensordot(part, grams, 1)
            whole = part @ squares
            rest = whole - 2 * (torch.tensordot(part, cross, 1) * p).sum(0) + ((gram @ p) * p).sum(0)
            # The column of a class without rows is constant, and beside a bias nothing: there is nothing to cancel.
            worst = min(worst, float(torch.where(whole > 0, rest / whole, 1.0).min()))
            result.append(rest.clamp(min=0.0))
        apart = self._others.result()
        means = torch.stack(result) / basis.weight_sum
        return basis.unscaled(means) + apart.errors, worst < (_CANCELLED_COARSE if any(self._coarse) else _CANCELLED)

    @property
    def apart(self) -> ErrorSums:
        """What was summed row by row."""
        return self._others

    @override
    def merge(self, other: Self) -> None:
        self._grams += other._grams
        self._rows += other._rows
        self._weights += other._weights
        self._others.merge(other._others)

    @override
    def fresh(self) -> Self:
        return type(self)(*self._arguments, double=self._double)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return self._grams, self._rows, self._weights, *self._others.state()

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        self._grams.copy_(state[0])
        self._rows.copy_(state[1])
        self._weights.copy_(state[2])
        self._others.load_state(state[3:])

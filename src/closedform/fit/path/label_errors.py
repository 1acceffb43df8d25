r"""Leave-one-out errors of class labels, without residuals of rows by classes.

The error of a class at one strength is a weighted sum of squares ``sum_i v_i (y_i - u_i'p)^2`` with
``v = 1 / (1 - h)^2``, so that all classes share one weighted Gram matrix ``sum_i v_i u_i u_i'``, and what each has of
its own is a sum over the rows of the class. As functions of the strength the weights v are few: those of a few
strengths, the nodes, and ones make all the others, to rounding. Rows of which that is not true are summed one by one.
"""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.products import gram_
from closedform.fit.path.basis import Basis
from closedform.fit.path.centring import Centring, block_rows
from closedform.fit.path.labels import ByClass, Coding, classes_of
from closedform.fit.path.leave_one_out import ErrorSums, LeftOut
from closedform.numerics.symmetric import mirror
from closedform.rows import Block, Fold
from closedform.rows.block import Extent

__all__ = ["LabelErrors", "nodes_of"]

#: Rows that stand for all others where the nodes are chosen.
_MODEL_ROWS = 192
#: Seed of these rows; any serves.
_SEED = 11
#: Relative size of what the nodes may leave of a weight of the model, and ten times that of a weight of the rows.
_TOLERANCE = 1e-12
#: What is left of a square once its parts have cancelled, at least: below, the digits are gone with them.
_CANCELLED = 1e-6


def nodes_of(basis: Basis, left_out: LeftOut) -> tuple[Tensor, Tensor]:
    """Return strengths whose weights, beside ones, make those of all strengths, and how, to rounding.

    They are chosen for rows drawn at random, by a QR factorization with pivoting (Cheng, Gimbutas, Martinsson and
    Rokhlin 2005).

    Args:
        basis: The basis.
        left_out: What makes the leverages.

    Returns:
        Places of the nodes, ``(nodes,)``, and what to multiply ones and their weights by, ``(1 + nodes, strengths)``.
    """
    from scipy.linalg import qr

    generator = torch.Generator().manual_seed(_SEED)
    draw = torch.randn(_MODEL_ROWS, basis.rank, dtype=torch.float64, device="cpu", generator=generator).square_()
    size = torch.rand(_MODEL_ROWS, 1, dtype=torch.float64, device="cpu", generator=generator) * 3 / basis.rows
    squares = (draw * size).to(basis.squares)
    share = torch.rand(_MODEL_ROWS, dtype=torch.float64, device="cpu", generator=generator).to(squares) * 3 / basis.rows
    model = left_out.remaining(squares, 1 - squares.sum(1) - share * int(basis.bias)).reciprocal().square_().T.cpu()

    centred = model - model.mean(0)
    R, order = qr(centred.numpy(), mode="r", pivoting=True)
    sizes = torch.from_numpy(R).diagonal().abs()
    count = int((sizes > _TOLERANCE * torch.linalg.vector_norm(model)).sum())
    nodes = torch.from_numpy(order[:count].astype("int64"))
    known = torch.cat([torch.ones(_MODEL_ROWS, 1, dtype=torch.float64, device="cpu"), model[:, nodes]], 1)
    parts = torch.linalg.lstsq(known, model, driver="gelsd").solution
    return nodes.to(basis.squares.device), parts.to(basis.squares)


@final
class LabelErrors(Fold):
    """Sums of squared leave-one-out residuals of all classes and strengths.

    Args:
        left_out: What makes the leverages.
        centring: How rows are brought to the coordinates of its basis.
        coding: What stands in the columns.
        nodes: Of :func:`nodes_of`.
    """

    label = "leaving rows out"

    def __init__(self, left_out: LeftOut, centring: Centring, coding: Coding, nodes: tuple[Tensor, Tensor]) -> None:
        self._arguments = (left_out, centring, coding, nodes)
        zeros, basis = left_out.basis.squares.new_zeros, left_out.basis
        count, r, k = nodes[0].shape[0] + 1, basis.rank, basis.targets
        self._grams = zeros(count, r, r)
        self._rows = zeros(count, k, r)
        self._weights = zeros(count, k)
        self._others = ErrorSums(left_out, None, absolute=False)

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return block_rows(extent)

    @override
    def add(self, block: Block) -> None:
        left_out, centring, _, (nodes, parts) = self._arguments
        basis = left_out.basis
        assert basis.map is not None
        A, root = centring.features(block)
        U, classes = A @ basis.map, classes_of(block)
        ones = U.new_ones(U.shape[0])
        weight = ones if block.weight is None else block.weight
        leftovers = left_out.leftovers(U, weight / basis.weight_sum if basis.bias else 0.0)

        weights = left_out.remaining(U.square(), leftovers).reciprocal_().square_()
        known = torch.cat([ones.unsqueeze(0), weights[nodes]])
        misfit = (parts.T @ known - weights).abs() > 10 * _TOLERANCE * weights.amax(0)
        apart = misfit.any(0) | left_out.interpolated(leftovers)
        if bool(apart.any()):
            self._add_apart(U, classes, root, block, apart.nonzero().squeeze(1))
            known = known.masked_fill(apart, 0.0)

        # Of ones the Gram matrix is the identity, less the rows that were taken apart.
        self._grams[0] -= U[apart].T @ U[apart]
        by_class = ByClass(classes, basis.targets)
        for place in range(known.shape[0]):
            if place:
                gram_(self._grams[place], U * known[place].sqrt().unsqueeze(1))
            factor = known[place] if root is None else known[place] * root
            self._rows[place] += by_class.sums(U, factor)
            self._weights[place].index_add_(0, classes, known[place] * weight)

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

        They are ``(strengths, classes)``.
        """
        left_out, _, coding, (_, parts) = self._arguments
        basis = left_out.basis
        kept = basis.shrinkage(left_out.strengths)
        identity = torch.eye(basis.rank, dtype=kept.dtype, device=kept.device)
        grams = torch.stack([identity + self._grams[0], *(mirror(gram) for gram in self._grams[1:])])
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
        return basis.unscaled(means) + apart.errors, worst < _CANCELLED

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
        return type(self)(*self._arguments)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return self._grams, self._rows, self._weights, *self._others.state()

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        self._grams.copy_(state[0])
        self._rows.copy_(state[1])
        self._weights.copy_(state[2])
        self._others.load_state(state[3:])

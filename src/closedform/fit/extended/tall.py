"""The design matrix as an operand."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine import compiled
from closedform.engine.choice import engine_for
from closedform.engine.compiled import depths
from closedform.fit.extended.arithmetic import OutOfRange, SlicedBlock
from closedform.fit.extended.expansions import (
    PASS_ROWS,
    expansion_errors,
    gradient_in_expansions,
    readable_rows,
    sum_additions,
)
from closedform.fit.extended.operand import AnyFold, Operand
from closedform.fit.problem import Problem
from closedform.numerics.slices import cut_, exponents_of, scaled
from closedform.rows import Block, SumFold
from closedform.rows.block import Extent

__all__ = ["Tall", "gram_additions"]

#: Norm of a column, relative to 1, under which fixed-point numbers do not see it beside a ridge that is more than 1e60
#: times the column's own square.
_VISIBLE = 2.0**-100
#: Scales within 2 to the power of plus or minus this keep compiled passes far from the ends of the range.
_EXPONENTS = 300


@final
class Tall(Operand):
    """The design matrix itself.

    Its columns have norms of at most 1, so what is lost where scaling underflows is below ``2**-500`` of a column.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.columns, self.targets = problem.n_columns, problem.n_targets
        self.rows = problem.rows.n_rows + (self.columns if problem.l2 > 0 else 0)
        self.frobenius_norm = problem.frobenius_norm
        self.graded = problem.rows.weight is not None
        self.peaks = torch.ones_like(problem.target_scale)

        exponents = torch.cat([problem.scale, problem.target_scale]).log2()
        #: Whether compiled passes serve the rows.
        self.compiled = (
            compiled.available()
            and problem.scale.device.type == "cpu"
            and float(exponents.abs().max()) <= _EXPONENTS
            and problem.scanned.weight_sum <= 2.0**_EXPONENTS
        )

        if max(float(problem.column_norms.max()), float(problem.target_norms.max())) > 1 + 1e-9:
            # The power of two that would do is itself out of range.
            raise OutOfRange
        if problem.l2 > 0:
            norms = problem.scanned.feature_norms * problem.columns.feature_scale
            if bool(((norms > 0) & (norms < _VISIBLE)).any()):
                raise OutOfRange
            # The root of l2 is not exact, l2 itself and the powers of two are.
            self.penalty = problem.scale * (problem.scale * problem.l2)
            self.penalty[: int(problem.bias)] = 0.0

    @override
    def walk(self, fold: AnyFold) -> AnyFold:
        return self.problem.rows.walk(fold)

    @override
    def sliced(self, block: Block, room: Tensor) -> SlicedBlock:
        problem, first = self.problem, int(self.problem.bias)
        A = torch.empty_like(room[:, 0])
        A[:, :first] = problem.scale[:first]
        torch.mul(block.X, problem.columns.feature_scale, out=A[:, first:])
        right, exponents, weight = block.Y * problem.target_scale, None, None
        if block.weight is not None:
            weight = block.weight.unsqueeze(1)
            # Rows of weight zero are not in the norms that the scale was chosen for.
            A.masked_fill_(weight == 0, 0.0)
            right.masked_fill_(weight == 0, 0.0)
            peaks = torch.maximum(A.abs().amax(1), right.abs().amax(1)).unsqueeze(1)
            exponents = exponents_of(peaks)
            A.copy_(scaled(A, -exponents))
            right = scaled(right, -exponents)
            weight = torch.where(peaks > 0, scaled(weight, 2 * exponents), 0.0)
        return SlicedBlock(cut_(A, room), right, exponents, weight)

    @override
    def rounded(self, block: Block) -> Tensor:
        return self.problem.columns.matrix(block)[0]

    @property
    @override
    def sums_expansions(self) -> bool:
        return self.compiled

    @override
    def gradient_in_expansions(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return gradient_in_expansions(self.problem, self.penalty, self.graded, z)

    @override
    def foreseen_errors(self, z: Tensor, residual_norms: Tensor) -> tuple[Tensor, Tensor]:
        additions = sum_additions(self.problem.rows.n_rows)
        return expansion_errors(self.problem, self.penalty is not None, z, residual_norms, additions)

    @override
    def gram(self, T: Tensor | None) -> tuple[Tensor, int] | None:
        if not self.compiled:
            return None
        scale = self.problem.scale
        factor = None if T is None else T * scale.unsqueeze(1)
        sums = self.problem.rows.walk(_CompiledGram(self.problem, factor))
        gram = sums.gram if T is not None else sums.gram * torch.outer(scale, scale)
        return gram, gram_additions(sums.calls)


@final
class _CompiledGram(SumFold):
    """The Gram matrix of ``sqrt(W) [1 | X] T`` by the compiled pass, with its calls counted.

    Args:
        problem: The problem.
        factor: T, upper triangular, or None for the identity.
    """

    label = "extending"

    def __init__(self, problem: Problem, factor: Tensor | None) -> None:
        self._problem, self._factor = problem, factor
        self.gram = problem.scale.new_zeros(problem.n_columns, problem.n_columns)
        self._cross = problem.scale.new_zeros(problem.n_columns, 0)
        self.calls = 0

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return PASS_ROWS

    @override
    def add(self, block: Block) -> None:
        X = readable_rows(block.X)
        engine_for(X).normal_equations_(
            self.gram,
            self._cross,
            X,
            block.Y[:, :0],
            self._problem.target_scale[:0],
            row_scale=None if block.weight is None else block.weight.sqrt(),
            factor=self._factor,
            ones=self._problem.bias,
        )
        self.calls += 1

    @override
    def merge(self, other: Self) -> None:
        self.add_sums(other)
        # The merger is one more addition.
        self.calls += other.calls + 1

    @override
    def fresh(self) -> Self:
        return type(self)(self._problem, self._factor)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.gram,)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return self.gram, torch.tensor(self.calls, device="cpu")

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        super().load_state(state[:1])
        self.calls = int(state[1])


def gram_additions(calls: int) -> int:
    """Return how many additions an entry of a Gram matrix goes through in so many calls of the compiled pass.

    Rows that are packed at once are added up in registers, those sums to the ones of a part, parts to what the call
    adds up, and that to the sums of all calls. A call takes up to :data:`PASS_ROWS` rows, and may make them all one
    part.
    """
    split = depths()
    return split.packed + -(-PASS_ROWS // split.packed) + max(split.threads, split.parts) + calls

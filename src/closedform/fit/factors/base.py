"""What a factor is: facts it decides by, its predicted cost, how it starts and refines, and what it claims."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import Tensor

from closedform.engine.processors import Processors, known_processors
from closedform.engine.rates import Rates
from closedform.fit.claims import Claims
from closedform.fit.problem import Problem
from closedform.fit.refinement import Refinement
from closedform.numerics.extremes import SMALL, Extremes

__all__ = ["Cost", "Factor", "Facts", "Method"]

#: How often a factor of more columns than :data:`SMALL` is read to estimate its extremes: 12 to 22 times were counted.
_ROOT_READS = 16
#: Targets from which sums of the rows tell their residuals for less than the rows.
_MANY_TARGETS = 64
#: Rows for each column from which what follows from such sums costs little beside them.
_TALL = 4
#: Numbers of a table, times its targets, from which their residuals are worth sparing.
_WORTH_SPARING = 2**22
#: Bytes a second at which rows come from a file, about: whoever passes over them often waits for the disk.
_FROM_FILE = 1e9


@final
@dataclass(frozen=True)
class Facts:
    """The facts about a problem by which a method is chosen.

    Attributes:
        n_rows: Rows with a positive weight.
        n_columns: Columns of the design matrix, the bias included.
        n_targets: Targets.
        bias: Whether a column of ones stands first.
        ridge: Whether l2 is positive.
        weighted: Whether rows have weights.
        rcond: The cut on relative singular values.
        rcond_given: Whether the user asked for that cut.
        nearest: Whether the minimiser nearest to a given layer is wanted where there are many.
        row_bytes: Bytes of one row as it is stored.
        in_memory: Whether rows can be taken in any order.
        bfloat16: Whether there are compiled products of bfloat16 numbers for this processor and this layout of rows.
        rates: How fast this machine is.
        condition: What earlier attempts say that the condition number is at least.
        dependent: Whether these say that columns plainly depend.
        compiled: Whether the compiled passes over the rows are part of this installation.
        summed: In which precisions the Gram matrix of the columns is there already, as the pass that scanned them may
            have made it: ``"float64"``, ``"float32"``.
        threads: How many threads a pass over the rows takes.
        processors: What there is for them to run on.
    """

    n_rows: int
    n_columns: int
    n_targets: int
    bias: bool
    ridge: bool
    weighted: bool
    rcond: float
    rcond_given: bool
    nearest: bool
    row_bytes: float
    in_memory: bool
    bfloat16: bool
    rates: Rates
    condition: float = 1.0
    dependent: bool = False
    compiled: bool = True
    summed: tuple[str, ...] = ()
    threads: int = 1
    processors: Processors = field(default_factory=known_processors)

    @property
    def memory(self) -> float:
        """Bytes a second at which a pass reads the rows."""
        return self.rates.memory if self.in_memory else min(self.rates.memory, _FROM_FILE)

    @property
    def smaller(self) -> int:
        """The smaller dimension of the design matrix."""
        return min(self.n_rows, self.n_columns)

    @property
    def many_targets(self) -> bool:
        """Whether targets are so many that sums of the rows are to tell of them, where these are exact enough."""
        large = self.n_rows * self.n_columns * self.n_targets >= _WORTH_SPARING
        return large and self.n_targets >= _MANY_TARGETS and self.n_rows >= _TALL * self.n_columns

    @property
    def wide(self) -> bool:
        """Whether there are fewer equations than unknowns, so that residuals vanish and least norm decides."""
        return self.n_rows < self.n_columns


@final
@dataclass(frozen=True)
class Cost:
    """Predicted work of one attempt.

    Attributes:
        flops: Floating point operations.
        bytes: Bytes read from the rows.
        seconds: Predicted time: the factor's flops at the rate of their kind, and the passes over the rows.
        passes: How often the rows are read.
    """

    flops: float
    bytes: float
    seconds: float
    passes: float


@final
@dataclass(frozen=True, eq=False)
class Factor:
    """A computed factor: of the matrix alone, so that it serves any right-hand side.

    Attributes:
        start: Maps a right-hand side in the factor's own coordinates, and coordinates to be near to or None, to first
            coordinates ``(columns, targets)``.
        refinement: The way to refine them that suits this factor.
        claims: What it says of the matrix, to be checked.
        accuracy: How far, about and relatively, ``(A'A)^-1`` is from what the root says; rounding level where the
            factor is backward stable.
    """

    start: Callable[[Tensor, Tensor | None], Tensor]
    refinement: Refinement
    claims: Claims
    accuracy: float = math.inf


class Method(ABC):
    """A way to factor a problem. Subclasses are final, hold no state, and stand in one ordered list."""

    name: ClassVar[str]
    #: The method is not tried on a matrix that is known to have a larger condition number.
    condition_limit: ClassVar[float] = math.inf

    @abstractmethod
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        """Return the reasons why this method cannot take the problem; empty where it can."""

    @abstractmethod
    def cost(self, facts: Facts) -> Cost:
        """Predict the cost."""

    @abstractmethod
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        """Compute the factor of the matrix, and the right-hand side of these targets in its coordinates.

        One pass over the rows often gives both. The factor's ``start`` takes that right-hand side, or any other.

        Args:
            problem: The problem.
            facts: Its facts.

        Raises:
            FactorBreakdown: the matrix does not allow this factor; the message says why.
        """


def rounding_contraction(extremes: Extremes, columns: int) -> float:
    """By what factor a step with a backward stable triangle shrinks the error: rounding over the smallest direction."""
    return 10 * sys.float_info.epsilon * columns**0.5 * extremes.condition


def cost(flops: float, rate: float, facts: Facts, passes: float) -> Cost:
    """Return the cost of ``flops`` at ``rate`` with ``passes`` over the rows, and the arithmetic on targets there."""
    read = facts.row_bytes * facts.n_rows * passes
    # A pass forms two products with as many vectors as there are targets; few of them hide behind the reading.
    products = 4.0 * facts.n_rows * facts.n_columns * facts.n_targets * passes
    # The extremes of the factor cost a square or wide table about as much as reading it for the fit does.
    numbers = _ROOT_READS * facts.smaller**2 if facts.smaller > SMALL else 0
    seconds = flops / rate + max(read / facts.memory, products / facts.rates.gram64) + 8 * numbers / facts.rates.memory
    return Cost(flops=flops + products + 2 * numbers, bytes=read, seconds=seconds, passes=passes)

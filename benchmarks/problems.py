"""The problems of the speed table, seeded, with a minimiser that is known exactly and not by solving.

No solver is asked for the truth. The entries of X are rounded to a grid, coarse enough that X W is exact in float64 for
weights W that are small integers, whatever the order of summation:

- tall: the rows come twice, ``X = [A; A]`` and ``Y = [A W + E; A W - E]``. All sums are exact, so ``X'(Y - X W)`` is
  zero in exact arithmetic and W is the minimiser, however large the noise E.
- deficient: the same with ``A = B C`` of integers; ``W = C'v`` lies in the row space, so it is the one of least norm.
- wide: ``W = X'v`` with integers v is the solution of least norm of ``Y = X W``.
- square, kernel: ``Y = X W``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["FULL", "QUICK", "SWEEPS", "SWEEPS_QUICK", "Data", "Problem", "Sweep"]

#: Bits of a float64 significand: integers below 2^53 times the grid add without rounding.
_EXACT_BITS = 53
#: Noise relative to the signal.
_NOISE = 0.1


@dataclass(frozen=True)
class Data:
    """X ``(rows, columns)``, Y ``(rows, targets)`` in the dtype of the problem, and the exact minimiser in float64."""

    X: Tensor
    Y: Tensor
    truth: Tensor


@dataclass(frozen=True)
class Problem:
    """A regression problem.

    Attributes:
        rows, columns, targets: Its shape.
        condition: Condition number of tall problems: 1 means Gaussian columns, else a geometric spectrum; of kernels
            about what comes out.
        kind: ``tall``, ``square``, ``kernel``, ``wide`` or ``deficient`` (half the rank).
        bars: The ratios to reach against scikit-learn's LinearRegression and the best torch driver; 0 where none is.
        dtype: Of the data.
    """

    rows: int
    columns: int
    targets: int
    condition: float = 1.0
    kind: str = "tall"
    bars: tuple[float, float] = (0.0, 0.0)
    dtype: torch.dtype = torch.float64

    @property
    def name(self) -> str:
        """Its name in the tables."""
        parts = [f"{self.rows}x{self.columns}, {self.targets}"]
        if self.kind == "deficient":
            parts.append(f"rank {self.rank}")
        elif self.kind != "tall":
            parts.append(self.kind)
        if self.condition > 1:
            parts.append(f"condition {self.condition:.0e}".replace("e+0", "e"))
        if self.dtype != torch.float64:
            parts.append(str(self.dtype).removeprefix("torch."))
        return ", ".join(parts)

    @property
    def rank(self) -> int:
        """The rank of X."""
        return self.columns // 2 if self.kind == "deficient" else min(self.rows, self.columns)

    @property
    def flops(self) -> float:
        """What a dense factorization takes, up to a constant."""
        return float(self.rows) * self.columns * min(self.rows, self.columns)

    @property
    def nbytes(self) -> int:
        """Size of X in bytes."""
        return self.rows * self.columns * self.dtype.itemsize

    def smaller(self, factor: int = 4) -> Problem:
        """Return the same problem with fewer rows and columns, to predict the time of the large one from."""
        rows, columns = max(8, self.rows // factor), max(2, self.columns // factor)
        if self.kind in ("square", "kernel"):
            rows = columns
        elif self.kind != "wide":
            rows -= rows % 2
        return replace(self, rows=rows, columns=columns, bars=(0.0, 0.0))

    def make(self, seed: int = 0) -> Data:
        """Return the data and the exact minimiser.

        Raises:
            ValueError: the shape does not fit the kind, or the numbers need more bits than the dtype has.
        """
        if self.kind in ("tall", "deficient") and (self.rows % 2 or self.rows < 2 * self.columns):
            raise ValueError(f"{self.name}: the rows of a {self.kind} problem come twice, so they must be even and "
                             f"at least twice the columns.")  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        makers = {"tall": _tall, "deficient": _deficient, "wide": _wide, "square": _square, "kernel": _square}
        data = makers[self.kind](self, generator)
        for name, exact in (("X", data.X), ("Y", data.Y)):
            if not torch.equal(exact, exact.to(self.dtype).to(torch.float64)):
                raise ValueError(f"{self.name}: {name} does not fit into {self.dtype}.")
        return Data(data.X.to(self.dtype), data.Y.to(self.dtype), data.truth)


def _gaussian(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _integers(generator: torch.Generator, most: int, *shape: int) -> Tensor:
    """Integers from 1 to ``most`` with random signs."""
    signs = 2 * torch.randint(0, 2, shape, generator=generator) - 1
    return (signs * torch.randint(1, most + 1, shape, generator=generator)).to(torch.float64)


def _weights(problem: Problem, generator: torch.Generator) -> Tensor:
    """Integers from -4 to 4. In single precision eight of -1 and 1 and the rest 0, so that X can keep more bits."""
    if problem.dtype == torch.float64:
        return _integers(generator, 4, problem.columns, problem.targets)
    W = torch.zeros(problem.columns, problem.targets, dtype=torch.float64)
    for target in range(problem.targets):
        chosen = torch.randperm(problem.columns, generator=generator)[:8]
        W[chosen, target] = _integers(generator, 1, len(chosen))
    return W


def _round(X: Tensor, W: Tensor, dtype: torch.dtype) -> Tensor:
    """Round X in place to the finest grid on which ``X W`` plus noise is exact in ``dtype``."""
    bits = _EXACT_BITS if dtype == torch.float64 else 24
    # No cancellation is counted on, so the bound holds for every partial sum; one bit is for the noise.
    largest = float(X.abs().amax()) * float(W.abs().sum(0).amax())
    grid = 2.0 ** (math.ceil(math.log2(largest)) + 1 - bits)
    return X.div_(grid).round_().mul_(grid)


def _with_noise(A: Tensor, W: Tensor, grid: float, generator: torch.Generator) -> Data:
    signal = A @ W
    size = _NOISE * float(signal.square().mean().sqrt())
    E = (_gaussian(generator, *signal.shape) * (size / grid)).round_() * grid
    # E is orthogonal to nothing; what cancels is its sum with itself, row by row.
    return Data(torch.cat([A, A]), torch.cat([signal + E, signal - E]), W)


def _tall(problem: Problem, generator: torch.Generator) -> Data:
    n = problem.columns
    A = _gaussian(generator, problem.rows // 2, n)
    if problem.condition > 1:
        # Gaussian columns are nearly orthogonal; a spectrum and a rotation give the condition number.
        rotation = torch.linalg.qr(_gaussian(generator, n, n)).Q
        A = A.mul_(torch.logspace(0, -math.log10(problem.condition), n, dtype=torch.float64)) @ rotation
    W = _weights(problem, generator)
    A = _round(A, W, problem.dtype)
    # Noise with few bits is as good as any other.
    grid = 2.0 ** (math.ceil(math.log2(float((A @ W).abs().amax()))) - 18)
    return _with_noise(A, W, grid, generator)


def _deficient(problem: Problem, generator: torch.Generator) -> Data:
    B = (2 * _gaussian(generator, problem.rows // 2, problem.rank)).round_()
    C = (2 * _gaussian(generator, problem.rank, problem.columns)).round_()
    W = C.T @ _integers(generator, 1, problem.rank, problem.targets)
    return _with_noise(B @ C, W, 1.0, generator)


def _wide(problem: Problem, generator: torch.Generator) -> Data:
    X = (_gaussian(generator, problem.rows, problem.columns) * 2**8).round_() / 2**8
    W = X.T @ _integers(generator, 4, problem.rows, problem.targets)
    return Data(X, X @ W, W)


def _square(problem: Problem, generator: torch.Generator) -> Data:
    n = problem.rows
    if problem.kind == "kernel":
        points = torch.rand(n, 5, dtype=torch.float64, generator=generator)
        X = torch.exp(-torch.cdist(points, points).square() / 2)
        # Symmetric to the last bit, as kernels in files are, and with eigenvalues that do not end in rounding.
        X = (X + X.T) / 2
        X += float(torch.linalg.eigvalsh(X)[-1]) / problem.condition * torch.eye(n, dtype=torch.float64)
    else:
        X = _gaussian(generator, n, n)
    W = _weights(problem, generator)
    X = _round(X, W, problem.dtype)
    return Data(X, X @ W, W)


@dataclass(frozen=True)
class Sweep:
    """One dimension grows while the others stand still."""

    along: str
    problems: tuple[Problem, ...]

    @property
    def sizes(self) -> list[int]:
        """The sizes along the dimension that grows."""
        return [int(getattr(problem, self.along)) for problem in self.problems]


def _sweep(along: str, rows: int, columns: int, sizes: tuple[int, ...]) -> Sweep:
    return Sweep(along, tuple(replace(Problem(rows, columns, 1), **{along: size}) for size in sizes))


_F32 = torch.float32
FULL = (
    Problem(50, 5, 1, bars=(1, 0.4)),
    Problem(1000, 20, 1, bars=(10, 1.5)),
    Problem(100_000, 200, 1, bars=(30, 8)),
    Problem(100_000, 200, 1, 1e6, bars=(8 * 2 / 3, 3.5 * 2 / 3)),
    Problem(100_000, 200, 1, dtype=_F32),
    Problem(100_000, 200, 1, 1e6, dtype=_F32),
    Problem(100_000, 1000, 1, bars=(9, 6)),
    Problem(100_000, 1000, 1, 1e6, bars=(6, 4)),
    Problem(100_000, 1000, 1, dtype=_F32),
    Problem(20_000, 2000, 1, bars=(7, 3.5)),
    Problem(20_000, 2000, 1, 1e6, bars=(7 * 2 / 3, 3.5 * 2 / 3)),
    Problem(4000, 4000, 1, kind="square", bars=(14, 2.5)),
    Problem(600, 600, 1, 1e9, kind="kernel", bars=(10, 1.5)),
    Problem(50_000, 1000, 100, bars=(8, 4)),
    Problem(50_000, 1000, 100, 1e6, bars=(6, 3)),
    Problem(50_000, 1000, 100, dtype=_F32),
    Problem(20_000, 200, 1024, bars=(3, 1.3)),
    Problem(1_000_000, 50, 10, bars=(25, 7)),
    Problem(1_000_000, 50, 10, 1e6, bars=(8 * 2 / 3, 4 * 2 / 3)),
    Problem(1_000_000, 50, 10, dtype=_F32),
    Problem(2000, 20_000, 1, kind="wide", bars=(5, 2)),
    Problem(20_000, 1000, 1, kind="deficient", bars=(4, 2)),
    Problem(100_000, 4000, 1, bars=(20, 11)),
    Problem(100_000, 4000, 1, 1e6, bars=(13, 6)),
)

QUICK = (
    Problem(50, 5, 1),
    Problem(20_000, 200, 1),
    Problem(20_000, 200, 1, 1e6),
    Problem(20_000, 200, 1, dtype=_F32),
    Problem(1000, 1000, 1, kind="square"),
    Problem(600, 600, 1, 1e9, kind="kernel", bars=(10, 1.5)),
    Problem(10_000, 300, 100),
    Problem(100_000, 50, 10),
    Problem(500, 4000, 1, kind="wide"),
    Problem(5000, 400, 1, kind="deficient"),
)

SWEEPS = (
    _sweep("rows", 0, 200, (5000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000)),
    _sweep("columns", 20_000, 0, (25, 50, 100, 200, 400, 800, 1600)),
    _sweep("targets", 20_000, 200, (1, 4, 16, 64, 256, 1024)),
)

SWEEPS_QUICK = (
    _sweep("rows", 0, 100, (2000, 4000, 8000, 16_000, 32_000, 64_000)),
    _sweep("columns", 8000, 0, (20, 40, 80, 160, 320)),
    _sweep("targets", 8000, 100, (1, 4, 16, 64, 256)),
)

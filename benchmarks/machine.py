"""What the machine can do, measured in the same runs as the solvers, and the least time a problem can take on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from problems import Problem
from torch import Tensor

__all__ = ["MEASURES", "Floor", "Speed", "floor"]

_ORDER = 1500
#: The largest condition number for which a Gram matrix in single precision is a factor that refinement can repair.
_SINGLE_REACH = 1e3
_SINGLE_SQUARE_REACH = 1e6


def _read_sum(X: Tensor, Y: Tensor) -> Callable[[], Any]:
    return lambda: X.sum()


def _read_dot(X: Tensor, Y: Tensor) -> Callable[[], Any]:
    flat = X.reshape(-1)
    return lambda: torch.dot(flat, flat)


def _gemm(dtype: torch.dtype, library: str) -> Callable[[Tensor, Tensor], Callable[[], Any]]:
    def bind(X: Tensor, Y: Tensor) -> Callable[[], Any]:
        A = torch.randn(_ORDER, _ORDER, dtype=dtype)
        if library == "torch":
            return lambda: (A @ A)[0, 0]
        a = A.numpy()
        return lambda: (a @ a)[0, 0]

    return bind


#: Run by the workers as if they were peers. Of two ways to do the same the faster one counts.
MEASURES: dict[str, Callable[[Tensor, Tensor], Callable[[], Any]]] = {
    "read of X: torch sum": _read_sum,
    "read of X: torch dot": _read_dot,
    **{
        f"{name}: {library}": _gemm(dtype, library)
        for name, dtype in (("dgemm", torch.float64), ("sgemm", torch.float32))
        for library in ("torch", "numpy")
    },
}


@final
@dataclass(frozen=True)
class Speed:
    """What the machine did while a problem was measured: seconds for one read of X, flops a second of products."""

    read_seconds: float
    dgemm: float
    sgemm: float

    @classmethod
    def of(cls, seconds: dict[str, float]) -> Speed:
        """Take the faster of each two from the median seconds of :data:`MEASURES`."""

        def fastest(prefix: str) -> float:
            return min(value for name, value in seconds.items() if name.startswith(prefix))

        return cls(fastest("read"), 2 * _ORDER**3 / fastest("dgemm"), 2 * _ORDER**3 / fastest("sgemm"))


@final
@dataclass(frozen=True)
class Floor:
    """The least time: the larger of reading X once and the flops of the cheapest factor."""

    seconds: float
    read_seconds: float
    flop_seconds: float
    factor: str


def floor(problem: Problem, speed: Speed) -> Floor:
    """Return the least time in which a problem can be solved.

    The cheapest factor is the one that takes the fewest flops of those that refinement can repair within a few more
    reads: half of a symmetric product, in single precision up to condition 1e3, else in double; for square matrices
    elimination. A sketch takes fewer flops where the rows are many, and then some fifty reads to repair, which is more.
    With many targets X'Y and one residual are due as well, in double precision.
    """
    m, n, k = problem.rows, problem.columns, problem.targets
    if problem.kind in ("square", "kernel"):
        single = problem.condition <= _SINGLE_SQUARE_REACH
        flops, factor = 2 / 3 * n**3, "elimination"
    else:
        single = problem.condition <= _SINGLE_REACH
        flops, factor = float(max(m, n)) * min(m, n) ** 2, "Gram matrix"
    precision = "single" if single else "double"
    due = 4.0 * m * n * k / speed.dgemm
    seconds = flops / (speed.sgemm if single else speed.dgemm) + due
    return Floor(max(speed.read_seconds, seconds), speed.read_seconds, seconds, f"{factor} in {precision} precision")

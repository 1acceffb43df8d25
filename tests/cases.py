"""The one table of problems that feeds the solver's tests.

Every case is small and seeded. Rank-deficient cases hold small integers (times powers of two), so that
their rank is a fact and not a rounding.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from placement import place

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """What a user passes to ``closedform.solve``."""

    X: Any
    Y: Any
    bias: bool = False
    l2: Any = 0.0
    sample_weight: Any = None
    name: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of ``closedform.solve``."""
        return {"bias": self.bias, "l2": self.l2, "sample_weight": self.sample_weight}


@dataclass(frozen=True)
class Case:
    """A named problem.

    Tags: ``low`` X is narrower than float64; ``ambiguous`` singular values run through the cut-off without
    a gap, so the rank is nobody's fact; ``in doubt`` no factor in double precision can tell the rank; ``deficient``
    the minimiser is not unique; ``raw`` badly scaled columns; ``overflow`` the loss itself is beyond float64.
    """

    name: str
    build: Callable[[np.random.Generator], Problem]
    tags: frozenset[str] = field(default_factory=frozenset)

    def make(self) -> Problem:
        """Return the problem, the same one each time, on the device that the tests run on."""
        with torch.device("cpu"):
            problem = self.build(np.random.default_rng(zlib.crc32(self.name.encode())))
        return replace(problem, X=place(problem.X), Y=place(problem.Y), sample_weight=place(problem.sample_weight))


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Return (rows, columns) with orthonormal columns."""
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


def geometric(rng: np.random.Generator, m: int, n: int, condition: float) -> Array:
    """Return an (m, n) matrix whose singular values fall evenly in logarithm from 1 to 1/condition."""
    r = min(m, n)
    return (orthonormal(rng, m, r) * np.geomspace(1, 1 / condition, r)) @ orthonormal(rng, n, r).T


def gaussian_kernel(points: Array, width: float) -> Array:
    """Return exp(-|p_i - p_j|^2 / (2 width^2)), exactly symmetric."""
    squared = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    return np.exp(-squared / (2 * width**2))


def hilbert(n: int) -> Array:
    """Return the n by n Hilbert matrix, rounded to float64."""
    i = np.arange(1, n + 1)
    return 1.0 / (i[:, None] + i[None] - 1)


def _dense(m: int, n: int, k: int = 1, **options: Any) -> Callable[[np.random.Generator], Problem]:
    def build(rng: np.random.Generator) -> Problem:
        return Problem(rng.standard_normal((m, n)), rng.standard_normal((m, k)), **options)

    return build


def _spectrum(m: int, n: int, condition: float, noise: float, k: int = 1) -> Callable[..., Problem]:
    def build(rng: np.random.Generator) -> Problem:
        X = geometric(rng, m, n, condition)
        return Problem(X, X @ rng.standard_normal((n, k)) + noise * rng.standard_normal((m, k)))

    return build


def _integer(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-9, 10, shape).astype(np.float64)


def _low_rank(m: int, n: int, r: int, k: int = 1, bias: bool = False) -> Callable[..., Problem]:
    def build(rng: np.random.Generator) -> Problem:
        return Problem(_integer(rng, m, r) @ _integer(rng, r, n), _integer(rng, m, k), bias)

    return build


def _duplicate_columns(rng: np.random.Generator) -> Problem:
    X = _integer(rng, 30, 4)
    return Problem(np.column_stack([X, X[:, 1], X[:, 0] - X[:, 2]]), _integer(rng, 30, 2))


def _zero_columns(rng: np.random.Generator) -> Problem:
    X = rng.standard_normal((25, 6))
    X[:, [1, 4]] = 0.0
    return Problem(X, rng.standard_normal((25, 3)), bias=True)


def _wide_inconsistent(rng: np.random.Generator) -> Problem:
    X = _integer(rng, 5, 11)
    return Problem(np.vstack([X, X[:3]]), _integer(rng, 8, 2))


def _identical_rows(m: int, row: list[float]) -> Callable[..., Problem]:
    def build(rng: np.random.Generator) -> Problem:
        return Problem(np.tile(row, (m, 1)), _integer(rng, m, 2), bias=True)

    return build


def _rows_scaled(rng: np.random.Generator) -> Problem:
    scale = 10.0 ** rng.permutation(np.linspace(-6, 6, 40))[:, None]
    X = rng.standard_normal((40, 7))
    return Problem(X * scale, (X @ rng.standard_normal((7, 2)) + rng.standard_normal((40, 2))) * scale)


def _columns_scaled(m: int, n: int, noise: float, bias: bool = False) -> Callable[..., Problem]:
    def build(rng: np.random.Generator) -> Problem:
        X = rng.standard_normal((m, n))
        Y = X @ rng.standard_normal((n, 2)) + noise * rng.standard_normal((m, 2))
        return Problem(X * 10.0 ** rng.permutation(np.linspace(-10, 10, n)), Y, bias)

    return build


def _columns_scaled_deficient(rng: np.random.Generator) -> Problem:
    X = _integer(rng, 30, 4) @ _integer(rng, 4, 7)
    return Problem(X * 2.0 ** np.linspace(-33, 33, 7).round(), _integer(rng, 30, 2))


def _ones_column_and_bias(value: float) -> Callable[..., Problem]:
    def build(rng: np.random.Generator) -> Problem:
        X = rng.standard_normal((30, 3))
        return Problem(np.column_stack([X, np.full(30, value)]), rng.standard_normal((30, 1)), bias=True)

    return build


def _kernel(n: int, width: float) -> Callable[..., Problem]:
    def build(rng: np.random.Generator) -> Problem:
        points = rng.uniform(-1, 1, (n, 2))
        return Problem(gaussian_kernel(points, width), np.sin(3 * points[:, 0]) + points[:, 1])

    return build


def _indefinite(rng: np.random.Generator) -> Problem:
    Q = orthonormal(rng, 15, 15)
    X = (Q * (np.geomspace(1, 1e-3, 15) * (-1.0) ** np.arange(15))) @ Q.T
    return Problem((X + X.T) / 2, rng.standard_normal((15, 2)))


def _hilbert(rng: np.random.Generator) -> Problem:
    return Problem(hilbert(7), hilbert(7) @ np.ones((7, 1)))


def _laeuchli(size: float) -> Callable[..., Problem]:
    def build(rng: np.random.Generator) -> Problem:
        return Problem(np.vstack([np.ones((1, 5)), size * np.eye(5)]), rng.standard_normal((6, 2)))

    return build


def _vandermonde(rng: np.random.Generator) -> Problem:
    t = np.linspace(0, 1, 21)
    return Problem(np.vander(t, 9), np.exp(t))


def _offset(rng: np.random.Generator) -> Problem:
    X = rng.standard_normal((40, 3))
    return Problem(X + 1e8, X @ rng.standard_normal((3, 2)) + 5e8 + rng.standard_normal((40, 2)), bias=True)


def _scaled(x_scale: float, y_scale: float, bias: bool = False) -> Callable[..., Problem]:
    def build(rng: np.random.Generator) -> Problem:
        return Problem(rng.standard_normal((20, 4)) * x_scale, rng.standard_normal((20, 2)) * y_scale, bias)

    return build


def _from_1e_minus_150_to_1e150(rng: np.random.Generator) -> Problem:
    scale = 10.0 ** np.array([-150, 0, 40, 150])
    return Problem(rng.standard_normal((20, 4)) * scale, rng.standard_normal((20, 1)))


def _weights_with_zeros(bias: bool, positive: int) -> Callable[..., Problem]:
    def build(rng: np.random.Generator) -> Problem:
        weight = np.where(np.arange(30) < positive, rng.uniform(0.1, 3, 30), 0.0)
        return Problem(_integer(rng, 30, 5), _integer(rng, 30, 2), bias, sample_weight=weight)

    return build


def _weights_over_12_orders(rng: np.random.Generator) -> Problem:
    weight = 10.0 ** rng.permutation(np.linspace(-6, 6, 40))
    return Problem(rng.standard_normal((40, 5)), rng.standard_normal((40, 2)), True, 0.0, torch.as_tensor(weight))


def _per_target_ridge(rng: np.random.Generator) -> Problem:
    strengths = np.array([0.0, 1e-6, 0.5, 40.0])
    return Problem(rng.standard_normal((30, 5)), rng.standard_normal((30, 4)), True, strengths)


def _ridge_saves_duplicates(rng: np.random.Generator) -> Problem:
    X = _integer(rng, 20, 3)
    return Problem(np.column_stack([X, X]), _integer(rng, 20, 2), bias=True, l2=0.25)


def _dtype(dtype: torch.dtype, bias: bool) -> Callable[..., Problem]:
    def build(rng: np.random.Generator) -> Problem:
        X = torch.as_tensor(rng.standard_normal((40, 4))).to(dtype)
        Y = torch.as_tensor(X.double().numpy() @ rng.standard_normal((4, 2)) + rng.standard_normal((40, 2)))
        return Problem(X, Y.to(dtype), bias)

    return build


def _integers(dtype: Any, low: int) -> Callable[..., Problem]:
    def build(rng: np.random.Generator) -> Problem:
        return Problem(rng.integers(low, 9, (25, 4)).astype(dtype), rng.integers(low, 9, 25).astype(dtype))

    return build


def _leading_dimensions(rng: np.random.Generator) -> Problem:
    return Problem(torch.as_tensor(rng.standard_normal((4, 10, 5))), rng.standard_normal((4, 10, 2)), bias=True)


def _leading_dimensions_single_target(rng: np.random.Generator) -> Problem:
    return Problem(rng.standard_normal((4, 10, 5)), rng.standard_normal((4, 10)))


def _transposed(rng: np.random.Generator) -> Problem:
    return Problem(torch.as_tensor(rng.standard_normal((6, 30))).T, torch.as_tensor(rng.standard_normal((2, 30))).T)


def _strided(rng: np.random.Generator) -> Problem:
    X = torch.as_tensor(rng.standard_normal((60, 12)))[::2, 1::2]
    return Problem(X, torch.as_tensor(rng.standard_normal(90))[::3], bias=True)


def _fortran_reversed(rng: np.random.Generator) -> Problem:
    return Problem(np.asfortranarray(rng.standard_normal((30, 5)))[::-1], rng.standard_normal((30, 2))[::-1])


def _case(name: str, build: Callable[..., Problem], *tags: str) -> Case:
    return Case(name, build, frozenset(tags))


CONDITIONS = (1.0, 1e3, 1e6, 1e9, 1e12, 1e15)
SHAPES = {"tall": (40, 16), "square": (20, 20), "wide": (12, 25)}

CASES: tuple[Case, ...] = (
    _case("tall", _dense(40, 6)),
    _case("tall with bias", _dense(40, 6, 3, bias=True)),
    _case("wide", _dense(6, 20, 2), "deficient"),
    _case("wide with bias", _dense(6, 20, 2, bias=True), "deficient"),
    _case("square", _dense(15, 15, 2)),
    _case("square with bias", _dense(15, 15, 2, bias=True), "deficient"),
    _case("square less one with bias", _dense(15, 14, 2, bias=True)),
    _case("3 targets", _dense(30, 8, 3)),
    _case("40 targets", _dense(30, 5, 40, bias=True)),
    _case("1000 targets", _dense(25, 4, 1000)),
    _case("one column", _dense(20, 1)),
    _case("one column with bias", _dense(20, 1, 2, bias=True)),
    _case("one row", _dense(1, 5, 2), "deficient"),
    _case("one row with bias", _dense(1, 5, 2, bias=True), "deficient"),
    _case("one row, one column", _dense(1, 1)),
    _case("one row, one column, bias", _dense(1, 1, bias=True), "deficient"),
    *(
        _case(
            f"{shape} condition {condition:.0e} {residual} residual",
            _spectrum(*SHAPES[shape], condition, noise, k=2),
            *(["deficient"] if shape == "wide" else []),
            *(["in doubt"] if condition > 1e14 else []),
        )
        for shape in SHAPES
        for condition in CONDITIONS
        for residual, noise in (("small", 1e-10), ("large", 1.0))
    ),
    _case("kernel", _kernel(20, 0.7)),
    _case("kernel, condition near the limit", _kernel(24, 3.0), "in doubt"),
    _case("symmetric indefinite", _indefinite),
    _case("duplicate columns", _duplicate_columns, "deficient"),
    _case("zero columns", _zero_columns, "deficient"),
    _case("low rank tall", _low_rank(30, 8, 3, 2), "deficient"),
    _case("low rank tall with bias", _low_rank(30, 8, 3, 2, bias=True), "deficient"),
    _case("low rank square", _low_rank(12, 12, 5, 2), "deficient"),
    _case("low rank wide", _low_rank(8, 20, 4, 2), "deficient"),
    _case("wide, inconsistent duplicate rows", _wide_inconsistent, "deficient"),
    _case("two identical rows, wide, bias", _identical_rows(2, [2.0, 1.0]), "deficient"),
    _case("three identical rows, wide, bias", _identical_rows(3, [2.0, 1.0, 0.1, 7.0]), "deficient"),
    _case("identical rows, tall, bias", _identical_rows(20, [0.1, 0.7]), "deficient"),
    _case(
        "identical rows, same targets, wide, bias",
        lambda rng: Problem(np.tile([2.0, 1.0], (2, 1)), np.tile([0.0, -1.0], (2, 1)), bias=True),
        "deficient",
    ),
    _case("constant column 1 and bias", _ones_column_and_bias(1.0), "deficient"),
    _case("constant column 0.1 and bias", _ones_column_and_bias(0.1), "deficient"),
    _case("rows scaled over 12 orders", _rows_scaled),
    _case("columns scaled over 20 orders", _columns_scaled(40, 7, 1.0), "raw"),
    _case("columns scaled over 20 orders, bias", _columns_scaled(40, 7, 1e-9, bias=True), "raw"),
    _case("columns scaled over 20 orders, square", _columns_scaled(9, 9, 0.0), "raw"),
    _case("columns scaled over 20 orders, deficient", _columns_scaled_deficient, "raw", "deficient"),
    _case("hilbert 7", _hilbert),
    _case("laeuchli 1e-7", _laeuchli(1e-7)),
    _case("laeuchli 1e-9", _laeuchli(1e-9)),
    _case("vandermonde", _vandermonde),
    _case("offset of 1e8", _offset),
    _case("X = 0", lambda rng: Problem(np.zeros((9, 3)), rng.standard_normal((9, 2))), "deficient"),
    _case(
        "X = 0 with bias",
        lambda rng: Problem(np.zeros((9, 3)), rng.standard_normal((9, 2)), bias=True),
        "deficient",
    ),
    _case("Y = 0", lambda rng: Problem(rng.standard_normal((9, 3)), np.zeros(9))),
    _case("Y = 0, wide", lambda rng: Problem(rng.standard_normal((3, 9)), np.zeros(3)), "deficient"),
    _case(
        "one target of three is 0",
        lambda rng: Problem(rng.standard_normal((20, 3)), rng.standard_normal((20, 3)) * [1.0, 0.0, 1e-9]),
    ),
    _case("huge X", _scaled(1e200, 1.0)),
    _case("huge Y", _scaled(1.0, 1e150)),
    _case("huge X and Y", _scaled(1e200, 1e200), "overflow"),
    _case("tiny X", _scaled(1e-200, 1.0)),
    _case("tiny Y", _scaled(1.0, 1e-150)),
    _case("tiny X and Y", _scaled(1e-200, 1e-200), "overflow"),
    _case("huge X with bias", _scaled(1e200, 1.0, bias=True)),
    _case("columns from 1e-150 to 1e150", _from_1e_minus_150_to_1e150, "raw"),
    _case("weights with zeros", _weights_with_zeros(False, 20)),
    _case("weights with zeros and bias", _weights_with_zeros(True, 20)),
    _case("fewer positive weights than columns", _weights_with_zeros(True, 3), "deficient"),
    _case("weights over 12 orders", _weights_over_12_orders),
    _case("ridge", _dense(30, 6, 2, l2=0.7)),
    _case("ridge with bias", _dense(30, 6, 2, bias=True, l2=3.0)),
    _case("ridge, wide", _dense(6, 15, 2, bias=True, l2=0.1)),
    _case("ridge, tiny", _dense(20, 5, 2, l2=1e-15)),
    _case("ridge, huge", _dense(20, 5, 2, bias=True, l2=1e12)),
    _case("ridge per target", _per_target_ridge),
    _case("ridge saves duplicates", _ridge_saves_duplicates),
    _case("integers", _integers(np.int64, -9)),
    _case("bytes", _integers(np.uint8, 0)),
    _case("float32", _dtype(torch.float32, True), "low"),
    _case("float16", _dtype(torch.float16, False), "low"),
    _case("bfloat16", _dtype(torch.bfloat16, True), "low"),
    _case("leading dimensions", _leading_dimensions),
    _case("leading dimensions, single target", _leading_dimensions_single_target),
    _case("transposed", _transposed),
    _case("strided", _strided),
    _case("Fortran order, reversed", _fortran_reversed),
)

BY_NAME: dict[str, Case] = {case.name: case for case in CASES}

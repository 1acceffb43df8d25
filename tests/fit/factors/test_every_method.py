"""Every method of the ladder alone on every case: what refuses which is a table, and what is not refused is right.

The table is exact: a method that begins to refuse a case or to take one, or that gives another reason, fails here, and
a new method has to be entered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch

import closedform as cf
from cases import BY_NAME, CASES, Case
from closedform.engine import compiled
from closedform.fit.plan import METHOD_NAMES
from closedform.words.errors import InputError, MethodRefusedError
from oracle import as_tables, backward_error_each, to_numpy
from placement import place
from solved import assert_weights, exact_of, per_strength, problem_of, solve_case, unit_roundoff

pytestmark = pytest.mark.device


@dataclass(frozen=True)
class Shape:
    """What a method may refuse by before anything is computed; rows of weight 0 do not count, a bias is a column."""

    rows: int
    columns: int
    bias: bool
    ridge: bool
    weighted: bool
    targets: int
    in_rows: bool


@cache
def shape_of(case: Case) -> Shape:
    problem = problem_of(case)
    x, y = as_tables(problem.X, problem.Y)
    weighted = problem.sample_weight is not None
    rows = int((to_numpy(problem.sample_weight) > 0).sum()) if weighted else len(x)
    # The strengths of several targets are fitted one after the other: the first decides what is refused.
    ridge = to_numpy(problem.l2).flat[0] > 0
    targets = 1 if to_numpy(problem.l2).ndim else y.shape[1]
    return Shape(rows, x.shape[1] + problem.bias, problem.bias, bool(ridge), weighted, targets, in_rows(problem.X))


def in_rows(X: object) -> bool:
    """Whether X has rows of float32 or float64, whose numbers stand one after the other, or integers, made float64."""
    backwards = isinstance(X, np.ndarray) and min(X.strides) < 0  # torch has no such tensors: a copy is made
    stored = torch.as_tensor(np.ascontiguousarray(X) if backwards else X)
    readable = stored.dtype in (torch.float32, torch.float64) and stored.stride(-1) == 1
    return readable or not stored.is_floating_point()


Refuses = dict[str, Callable[[Shape], bool]]

NOT_WIDE: Refuses = {r"\d+ rows are not fewer than \d+ columns": lambda s: s.rows >= s.columns}
SINGULAR: Refuses = {
    r"\d+ rows cannot determine \d+ columns, so the Gram matrix is singular": (
        lambda s: s.rows < s.columns and not s.ridge
    ),
    "the matrix is square: elimination costs less than its Gram matrix and does not square it": (
        lambda s: s.rows == s.columns and not s.ridge
    ),
}
NO_SAMPLE: Refuses = {
    r"\d+ rows for \d+ columns: no sample would be much smaller": lambda s: s.rows < 4 * s.columns,
}
NOT_EXACT: Refuses = {
    "with a ridge the equations are no longer met exactly": lambda s: s.ridge,
    "rows have weights": lambda s: s.weighted,
}

NOT_SQUARE: Refuses = {
    r"the matrix is not square: \d+ rows, \d+ columns": lambda s: s.rows != s.columns,
    "with a bias there is one column more than the table has": lambda s: s.bias,
    **NOT_EXACT,
}

#: What a method refuses by the shape: patterns of its reasons, in the order in which they are given.
REFUSES: dict[str, Refuses] = {
    "square": NOT_SQUARE,
    "square32": NOT_SQUARE,
    "diagonal": {
        r"\d+ rows for \d+ columns: even random columns are far from orthogonal": lambda s: s.rows < 8 * s.columns,
        r"\d+ targets: conjugate gradients multiply the rows with each of them": lambda s: s.targets > 4,
    },
    "gram16": {
        **SINGULAR,
        "bfloat16 numbers are not multiplied by this processor, or not in this layout of rows": (
            lambda s: not (compiled.multiplies_bfloat16() and s.in_rows)
        ),
        **NO_SAMPLE,
    },
    "gram32": SINGULAR,
    "gram64": SINGULAR,
    "dual gram32": {**NOT_WIDE, **NOT_EXACT},
    "dual gram64": {**NOT_WIDE, **NOT_EXACT},
    "dual": NOT_WIDE,
    "projected gram64": {**NO_SAMPLE, "with a ridge all directions are determined": lambda s: s.ridge},
    "sketched": {
        r"\d+ rows for \d+ columns: a sketch of \d+ rows a column would not be much smaller": (
            lambda s: s.rows < 6 * s.columns
        )
    },
    "householder": {
        r"\d+ rows cannot determine \d+ columns": lambda s: s.rows < s.columns and not s.ridge,
    },
    "svd": {},
    "svd at precision": {},
}

#: Patterns of the reasons for which a factor breaks down.
PIVOT = r"Cholesky met a pivot that is not positive at (column|row) \d+( in a sample of the rows)?"
NO_GRAM = rf"({PIVOT}: the condition number|condition number) .*"
RANK = r"numerical rank \d+ of \d+: .* singular values? (lie|lies) at or below \S+ of the largest"
SYMMETRIC = "the matrix is symmetric: Cholesky in double precision costs as little"
DEPENDS = "a column depends exactly on those before it: the triangle has a zero pivot"
CONTRADICT = "a row depends exactly on the others: the equations may contradict each other"
NOT_DEPENDENT = "the columns of a sample of the rows do not plainly depend on each other"
LEAVES = r"the rows leave the row space of a sample, which has \d+ dimensions"


def spectra(shape: str, *conditions: str) -> set[str]:
    """The cases of a given condition number, with a small and a large residual."""
    return {f"{shape} condition {c} {size} residual" for c in conditions for size in ("small", "large")}


DEPENDENT = {
    *("duplicate columns", "zero columns", "low rank tall", "low rank tall with bias", "identical rows, tall, bias"),
    *("columns scaled over 20 orders, deficient", "X = 0", "X = 0 with bias"),
    *("constant column 1 and bias", "constant column 0.1 and bias"),
}
DEPENDENT_ROWS = {
    *("low rank wide", "wide, inconsistent duplicate rows", "two identical rows, wide, bias"),
    *("three identical rows, wide, bias", "identical rows, same targets, wide, bias"),
}
ZERO_PIVOT = {"zero columns", "X = 0", "X = 0 with bias"}
# Whether what is left of the column is zero or rounding depends on the order of sums, which is the processor's.
NO_PIVOT = {"constant column 1 and bias", "constant column 0.1 and bias"}
TOO_NEAR_FOR_SINGLE = {
    *DEPENDENT,
    *spectra("tall", "1e+06", "1e+09", "1e+12", "1e+15"),
    *("laeuchli 1e-7", "laeuchli 1e-9", "offset of 1e8", "vandermonde"),
}
LEAVE_THE_SAMPLE = {"offset of 1e8"}

#: What breaks down when the numbers are seen: a pattern of the reason, and the cases.
BREAKS: dict[str, dict[str, set[str]]] = {
    "diagonal": {r"condition number at least .*": {"offset of 1e8"}},
    "square": {RANK: {"low rank square", *spectra("square", "1e+15")}},
    "square32": {
        SYMMETRIC: {"one row, one column", "kernel", "kernel, condition near the limit", "hilbert 7"},
        r"(rounding of LU in single precision hides the matrix: .*|condition number about .*)": {
            "low rank square",
            *spectra("square", "1e+06", "1e+09", "1e+12", "1e+15"),
        },
    },
    # A sample of rows of very different lengths is as good as one of a few rows.
    "gram16": {NO_GRAM: {*TOO_NEAR_FOR_SINGLE, "rows scaled over 12 orders"}},
    "gram32": {NO_GRAM: TOO_NEAR_FOR_SINGLE},
    "gram64": {
        NO_GRAM: {
            *DEPENDENT,
            *spectra("tall", "1e+09", "1e+12", "1e+15"),
            *("laeuchli 1e-7", "laeuchli 1e-9", "offset of 1e8"),
        }
    },
    "dual gram32": {
        NO_GRAM: {
            *DEPENDENT_ROWS,
            "wide condition 1e+03 large residual",
            *spectra("wide", "1e+06", "1e+09", "1e+12", "1e+15"),
        }
    },
    "dual gram64": {NO_GRAM: {*DEPENDENT_ROWS, *spectra("wide", "1e+09", "1e+12", "1e+15")}},
    "dual": {
        RANK: {*DEPENDENT_ROWS - {"three identical rows, wide, bias"}, *spectra("wide", "1e+15")},
        CONTRADICT: {"three identical rows, wide, bias"},
    },
    "projected gram64": {
        LEAVES: LEAVE_THE_SAMPLE,
        # Whatever has independent columns and enough rows.
        NOT_DEPENDENT: {
            case.name
            for case in CASES
            if not any(refuses(shape_of(case)) for refuses in REFUSES["projected gram64"].values())
            and case.name not in DEPENDENT | LEAVE_THE_SAMPLE
        },
    },
    "householder": {
        RANK: {
            *DEPENDENT - ZERO_PIVOT - NO_PIVOT,
            "low rank square",
            *spectra("tall", "1e+15"),
            *spectra("square", "1e+15"),
        },
        DEPENDS: ZERO_PIVOT,
        f"({DEPENDS}|{RANK})": NO_PIVOT,
    },
}


def refusals(method: str, case: Case) -> list[str]:
    """The patterns of the reasons for which the table says that a method refuses a case by its shape."""
    return [pattern for pattern, refuses in REFUSES.get(method, {}).items() if refuses(shape_of(case))]


def breakdown(method: str, case: Case) -> str | None:
    """The pattern of the reason for which the table says that a factor breaks down, or None."""
    found = [pattern for pattern, names in BREAKS.get(method, {}).items() if case.name in names]
    assert len(found) <= 1
    return found[0] if found else None


#: Methods that are in no table yet: they are tried on every case all the same, and one that is in it, as a control.
UNTABLED = [*(method for method in METHOD_NAMES if method not in REFUSES), "svd"]
TABLED = [method for method in METHOD_NAMES if method in REFUSES]


def test_the_table_names_methods_and_cases_only() -> None:
    assert REFUSES.keys() <= set(METHOD_NAMES)
    assert {name for parts in BREAKS.values() for names in parts.values() for name in names} <= BY_NAME.keys()


REFUSED = [(method, case) for method in TABLED for case in CASES if refusals(method, case)]
BROKEN = [
    (method, case) for method in TABLED for case in CASES if not refusals(method, case) and breakdown(method, case)
]
ACCEPTED = [
    (method, case)
    for method in TABLED
    for case in CASES
    if (method, case) not in REFUSED and (method, case) not in BROKEN
]


@pytest.mark.needs_cpu("what is refused on the CPU is in the table")
@pytest.mark.parametrize("method", TABLED)
def test_a_method_refuses_by_the_shape_with_every_reason(method: str) -> None:
    for each, case in REFUSED:
        if each == method:
            with pytest.raises(MethodRefusedError) as caught:
                solve_case(case, method=method)
            expected = "; ".join(refusals(method, case))
            text = f"method='{method}' cannot take this problem: {expected}\\. Use 'auto' or .*"
            assert re.fullmatch(text, str(caught.value)), f"{case.name}: {caught.value}"


@pytest.mark.needs_cpu("where a pivot is no longer positive depends on the order of sums, which is the device's")
@pytest.mark.parametrize("method", TABLED)
def test_a_factor_breaks_down_with_the_reason(method: str) -> None:
    for each, case in BROKEN:
        if each == method:
            with pytest.raises(InputError) as caught:
                solve_case(case, method=method)
            text = rf"no method could factor this problem \({method}: {breakdown(method, case)}\)\."
            assert re.fullmatch(text, str(caught.value)), f"{case.name}: {caught.value}"


@pytest.mark.parametrize(("method", "case"), ACCEPTED, ids=[f"{method}: {case.name}" for method, case in ACCEPTED])
def test_what_a_method_takes_it_gets_right(method: str, case: Case) -> None:
    problem, exact = problem_of(case), exact_of(case)
    sol = solve_case(case, method=method)
    assert [attempt.method for attempt in sol.attempts][-1] == method
    assert sol.certificate.accepted
    limit = 1e-14 if sol.weight.dtype is torch.float64 else 4 * unit_roundoff(sol)
    for part, weight, bias in per_strength(problem, sol.weight, sol.bias):
        assert backward_error_each(part, weight, bias).max() <= limit
    if not {"ambiguous", "in doubt"} & case.tags:
        assert sol.outcome is not cf.Outcome.AMBIGUOUS_RANK
        assert sol.certificate.rank == exact.rank
        assert_weights(case, sol)


@pytest.mark.parametrize("method", UNTABLED)
def test_a_method_that_is_in_no_table_says_why_not_or_is_right(method: str) -> None:
    taken, reasons = 0, []
    for case in CASES:
        try:
            sol = solve_case(case, method=method)
        except InputError as error:
            reasons.append(str(error))
            continue
        taken += 1
        if sol.certificate.accepted and not {"ambiguous", "in doubt"} & case.tags:
            assert sol.certificate.rank == exact_of(case).rank, case.name
            assert_weights(case, sol)
    assert taken > 0
    assert all(method in reason for reason in reasons)


#: What an explicit ``rcond`` makes of the methods: those that find no singular values refuse.
BY_RCOND = {
    **dict.fromkeys(("gram32", "gram64", "projected gram64"), "asks for singular values, which a Gram matrix squares"),
    "sketched": "asks for singular values, which a sketch only estimates",
    "square32": "asks for singular values, which single precision need not resolve",
    **dict.fromkeys(("diagonal", "dual gram32", "dual gram64", "dual"), "an explicit rcond asks for singular values"),
}


@pytest.mark.parametrize("method", BY_RCOND)
def test_an_explicit_rcond_is_refused_by_what_finds_no_singular_values(method: str) -> None:
    rng = np.random.default_rng(0)
    shape = {"dual": (5, 40), "square": (5, 5)}.get(re.match("[a-z]+", method)[0], (400, 5))
    X = place(rng.standard_normal(shape))
    with pytest.raises(MethodRefusedError, match=BY_RCOND[method]):
        cf.solve(X, place(rng.standard_normal(len(X))), method=method, rcond=1e-6)

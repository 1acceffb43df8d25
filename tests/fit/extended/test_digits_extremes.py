"""``digits=`` at the ends of the range of doubles: right or refused, and never a bound that does not hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import closedform as cf
from closedform.words.errors import InputError
from exact import errors, minimiser

RNG = np.random.default_rng(1)
A = RNG.standard_normal((12, 4))
B = RNG.standard_normal(12)
LIMITS = np.finfo(np.float64)
ROWS = np.geomspace(1e300, 1e-300, 12)

SCALES = [1e300, 1e200, 1e150, 1e-150, 1e-200, 1e-300, 1e-310, 1e-320]
TARGET_SCALES = [1e300, 1e200, 1.0, 1e-115, 1e-200, 1e-300, 1e-320]
WIDE_SCALES = [1e200, 1e160, 1e150, 1e-150, 1e-160, 1e-165, 1e-170, 1e-200, 1e-320]

CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    **{f"X {x:.0e}, Y {y:.0e}": (A * x, B * y, {}) for x in SCALES for y in TARGET_SCALES},
    **{f"wide {x:.0e}": (A.T * x, B[:4], {}) for x in WIDE_SCALES},
    **{f"wide, bias, {x:.0e}": (A.T * x, B[:4], {"bias": True}) for x in WIDE_SCALES},
    "wide, equations over 1e300": (A.T * np.array([[1e150], [1], [1e-150], [1]]), B[:4], {}),
    "wide, equations over 1e300, bias": (A.T * np.array([[1e150], [1], [1e-150], [1]]), B[:4], {"bias": True}),
    "wide, one equation, features from 1e56 to 1e-97": (
        np.array([[-3.4e-31, -1.56e49, -3.1e56, -4.58e-97, 1.6e-68, -1.6e-80, 2e-30]]),
        np.array([[1.84, 1.53]]),
        {},
    ),
    "wide once the rows of weight zero are gone": (A[:4], B[:4], {"sample_weight": [1, 0, 1e-12, 3]}),
    "wide, one weight 1e300": (A.T, B[:4], {"sample_weight": [1, 3, 1e-12, 1e300]}),
    "wide, bias, one weight 1e300": (A.T, B[:4], {"bias": True, "sample_weight": [1, 3, 1e-12, 1e300]}),
    "wide, weight zero on the only large row": (
        A[:3] * [[1e156], [1e-164], [1e-304]],
        B[:3] * [1e156, 1e-164, 1e-304],
        {"bias": True, "sample_weight": [0, 1, 1]},
    ),
    "wide, one equation 1e-170": (A.T * np.array([[1e-170], [1], [1], [1]]), B[:4], {}),
    "wide, only the largest equation not zero": (A.T * np.array([[1e150], [1], [1], [1]]), np.eye(4)[0], {}),
    "columns 1e300, 1e-300 and subnormal": (A * [1e300, 1e-300, 1, 1e-310], B * 1e-290, {}),
    "columns 1e300 and 1e-300, bias": (A * [1e300, 1e-300, 1, 1], B, {"bias": True}),
    "rows 1e300 to 1e-300": (A * ROWS[:, None], B, {}),
    "rows and targets 1e150 to 1e-150": (A * np.sqrt(ROWS)[:, None], B * np.sqrt(ROWS), {}),
    **{f"weights {w:.0e}": (A, B, {"sample_weight": np.full(12, w)}) for w in (1e305, 1e300, 1e-300, 1e-310)},
    **{
        f"half the weights {w:.0e}": (A, B, {"sample_weight": np.repeat([w, 1.0], 6)})
        for w in (1e305, 1e300, 1e-300, 1e-310)
    },
    "weights 1e-300 to 1e300": (A, B, {"sample_weight": ROWS}),
    "weight zero on a huge row": (
        np.vstack([A * 1e-300, A[:1] * 1e300]),
        np.r_[B, 1],
        {"sample_weight": [1] * 12 + [0]},
    ),
    **{f"ridge 1e308, X {x:.0e}": (A * x, B * x, {"l2": 1e308}) for x in (1e160, 1e162, 1e164, 1e165)},
    **{f"ridge {l2:.0e}, X 1e-155": (A * 1e-155, B, {"l2": l2}) for l2 in (1e-300, 1e-310, 1e-320, 1e300)},
    **{f"ridge {l2:.0e}, bias": (A, B, {"l2": l2, "bias": True}) for l2 in (1e-310, 1e300)},
    "ridge, columns over 1e400": (A * [1e-200, 1, 1e200, 1], B, {"l2": 1.0}),
    "a row that underflows when scaled": (np.array([[1e200], [1e-200]]), np.array([1.0, 1.0]), {}),
    "a residual in that row only": (np.array([[1e200, 0], [1e-200, 1]]), np.array([0.0, 1.0]), {}),
    "targets orthogonal to X": (np.array([[1.0], [1.0]]), np.array([1.0, -1.0]), {}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_right_or_refused(case: tuple[Any, Any, dict[str, Any]]) -> None:
    X, Y, options = case
    exact = minimiser(X, Y, **options)
    sizes = [abs(w) for row in exact.weights for w in row]
    try:
        sol = cf.solve(X, Y, digits=12, **options)
    except InputError:
        # An error is right only where the weights, or all of X, are at the ends of the range of doubles.
        assert max(sizes) > LIMITS.max or min(sizes) < LIMITS.smallest_normal or np.abs(X).max() < 1e-300
        return
    found = errors(sol, exact)
    assert found.bound_holds
    if sol.outcome.certified:
        assert sol.certificate.forward_bound is not None
        assert found.relative <= sol.certificate.forward_bound <= 1e-12


@pytest.mark.parametrize("scale", [1e200, 1e-200])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_units_alone_are_no_reason_to_refuse(scale: float, bias: bool, wide: bool) -> None:
    X, Y = (A.T, B[:4]) if wide else (A, B)
    sol = cf.solve(X * scale, Y, bias=bias, digits=14)
    assert sol.outcome.certified
    assert errors(sol, minimiser(X * scale, Y, bias=bias)).relative <= 1e-14


@pytest.mark.parametrize("scale", [1e-310, 1e300])
def test_weights_out_of_range_are_an_error_that_says_so(scale: float) -> None:
    with pytest.raises(InputError, match="float64"):
        cf.solve(A * scale, B / scale if scale > 1 else B, digits=12)


def test_a_bound_of_less_than_one_digit_is_no_claim() -> None:
    """Where a bound is as large as the weight itself, its relative size has to say so."""
    X = np.vander(np.linspace(0, 1, 30), 14, increasing=True)
    for digits in (1, 14):
        sol = cf.solve(X, np.cos(30 * X[:, 1]), digits=digits)
        found = errors(sol, minimiser(X, np.cos(30 * X[:, 1])))
        assert found.bound_holds
        assert not sol.outcome.certified or found.relative <= 10.0**-digits

"""SciPy's own tests of ``linalg.lstsq``, with ``cf.solve`` in its place and tables in every layout; they come with it.

Complex and empty tables are refused here; then SciPy's answer goes on, so that the rest of the test is seen.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import closedform as cf
from closedform.words.errors import ClosedformError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what SciPy's tests warn of on import
    scipy_tests = pytest.importorskip("scipy.linalg.tests.test_basic", reason="this SciPy came without its tests")

Array = np.ndarray[Any, Any]


def spaced(table: Array) -> Array:
    """Every second number of every second row of a larger table."""
    wide = np.full(tuple(2 * size for size in table.shape), 7, table.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in table.shape)]
    view[...] = table
    return view


#: The same numbers in other places.
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "columns first": lambda table: np.array(table, order="F"),
    "backwards": lambda table: np.array(table[::-1])[::-1],
    "backwards across": lambda table: np.flip(np.array(np.flip(table))),
    "spaced": spaced,
    "other byte order": lambda table: table.astype(table.dtype.newbyteorder()),
    "unaligned": lambda table: (
        np.frombuffer(b"x" + table.tobytes(), np.uint8)[1:].view(table.dtype).reshape(table.shape)
    ),
    "read only": lambda table: np.broadcast_to(table, table.shape),
}
NEXT = itertools.cycle(LAYOUTS)


def solved(a: Any, b: Any, *others: Any, **options: Any) -> tuple[Any, ...]:
    """Answer as ``scipy.linalg.lstsq`` does: its residuals, rank and singular values beside our weights."""
    A, B = np.asarray(a), np.asarray(b)
    expected = scipy.linalg.lstsq(A.copy(), B.copy(), *others, **options)
    if np.iscomplexobj(A) or np.iscomplexobj(B) or not A.size or not B.size:
        with pytest.raises(ClosedformError):
            cf.solve(A, B)
        return tuple(expected)

    turn = LAYOUTS[next(NEXT)]
    x, y = turn(A), turn(B)
    before = x.copy(), y.copy()
    found = [cf.solve(*tables) for tables in ((A, B), (x, y))]
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])
    assert all(sol.outcome.certified for sol in found)
    weights = [sol.weight.numpy().T.reshape(expected[0].shape).astype(expected[0].dtype) for sol in found]
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-9 if weights[0].dtype == np.float64 else 1e-5)
    return weights[0], *expected[1:]


@pytest.fixture(autouse=True)
def _in_place_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scipy_tests, "lstsq", solved)


class TestLstsq(scipy_tests.TestLstsq):  # type: ignore[misc]
    """Its tests as they are."""

    def test_check_finite(self) -> None:
        """What is not finite is always refused."""
        with pytest.raises(ClosedformError):
            cf.solve(np.array([[1.0, np.nan], [3.0, 4.0]]), np.ones(2))

"""NumPy's own cases of ``linalg.lstsq``, with the strides it tries, at the door; they come with NumPy.

Of the cases with strides one in thirteen, and all where ``CLOSEDFORM_FUZZ`` is set.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pytest

import closedform as cf
from closedform.words.errors import DataTypeError, InputError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what NumPy's tests warn of on import
    numpy_tests = pytest.importorskip("numpy.linalg.tests.test_linalg", reason="this NumPy came without its tests")

EVERY = 1 if "CLOSEDFORM_FUZZ" in os.environ else 13
TABLES = [case for case in numpy_tests.CASES if np.ndim(case.a) == 2 and case.b is not None]
STRIDED = [case for case in TABLES if "strided" in case.tags][::EVERY]
CHOSEN = [case for case in TABLES if "strided" not in case.tags] + STRIDED
CASES = [case for case in CHOSEN if "size-0" not in case.tags]
EMPTY = [case for case in CHOSEN if "size-0" in case.tags]


def is_complex(case: Any) -> bool:
    return np.iscomplexobj(case.a) or np.iscomplexobj(case.b)


def name_of(case: Any) -> str:
    return str(case.name)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_answer_is_that_of_lapack(case: Any) -> None:
    if is_complex(case):
        with pytest.raises(DataTypeError, match="complex"):
            cf.solve(case.a, case.b)
        return

    a, b = np.asarray(case.a), np.asarray(case.b)
    before = a.copy(), b.copy()
    sol = cf.solve(case.a, case.b)
    expected = np.linalg.lstsq(a.astype(np.float64), b.astype(np.float64), rcond=None)[0]
    tolerance = 1e-10 if sol.weight.numpy().dtype == np.float64 else 1e-5
    np.testing.assert_allclose(sol.weight.numpy().T.reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])


@pytest.mark.parametrize("case", EMPTY, ids=name_of)
def test_an_empty_table_has_no_answer(case: Any) -> None:
    with pytest.raises(InputError if not is_complex(case) else (InputError, DataTypeError)):
        cf.solve(case.a, case.b)


def test_there_are_cases_and_strides() -> None:
    assert len([case for case in STRIDED if not is_complex(case)]) > 20
    assert EMPTY

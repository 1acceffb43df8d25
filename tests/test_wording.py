"""Sentences that once read badly: one of a thing is not plural, what is unknown is no number, and shapes are shapes."""

from __future__ import annotations

import re
from typing import get_args

import numpy as np
import pytest
import torch

import closedform as cf
from closedform.fit.plan import METHOD_NAMES
from closedform.fit.request import MethodName
from closedform.words.errors import InputError

RNG = np.random.default_rng(0)


def test_a_bound_that_does_not_exist_is_not_infinite() -> None:
    sol = cf.solve(np.ones((5, 2)), np.arange(5.0), digits=8)
    assert "inf" not in str(sol)
    assert "no error bound could be proven" in str(sol)


def test_one_is_singular() -> None:
    X = RNG.standard_normal((20, 3))
    X[:, 2] = X[:, 1]
    text = str(cf.solve(X, X[:, 0] + RNG.standard_normal(20)))
    assert "1 singular value lies at or below" in text
    assert "1 of 3 directions is not determined" in text
    with pytest.raises(InputError, match="maps 2 features to 1 target, but the data have 1 feature and 1 target"):
        cf.fit_(torch.nn.Linear(2, 1), X[:, :1], X[:, 1])
    with pytest.raises(InputError, match="2 values for 1 target;"):
        cf.solve(X, X[:, 0], l2=[1.0, 2.0])
    with pytest.raises(InputError, match="fitted to 1 feature"):
        cf.solve(X[:, :1], X[:, 0]).predict(X)
    for text in (str(cf.solve(X[:, :1], X[:, 1])), str(cf.solve_batched(X[None, :, :1], X[None, :, 1]))):
        assert not re.search(r"\b1 (rows|features|targets|singular values|problems|digits)\b", text), text


@pytest.mark.parametrize("door", [cf.solve, cf.solve_batched])
def test_a_shape_that_is_asked_for_has_no_quotes(door: object) -> None:
    shape = (2, 6, 3) if door is cf.solve_batched else (6, 3)
    wanted = "(2, 6, targets)" if door is cf.solve_batched else "(6, targets)"
    with pytest.raises(InputError, match=re.escape(wanted)):
        door(torch.ones(shape), torch.ones(7))  # type: ignore[operator]


def test_a_plan_predicts_no_microseconds() -> None:
    text = str(cf.solve(RNG.standard_normal((40, 3)), RNG.standard_normal(40)).plan)
    assert "e-0" not in text
    assert "less than 0.001 s of work" in text


@pytest.mark.parametrize("bias", [None, "no", torch.zeros(3), 2, [True]])
def test_a_bias_that_is_no_boolean_is_refused_in_words(bias: object) -> None:
    with pytest.raises(InputError, match="True or False"):
        cf.solve(np.ones((3, 1)), np.ones(3), bias=bias)  # type: ignore[arg-type]


def test_what_an_interpreter_shows_is_what_print_shows() -> None:
    X = RNG.standard_normal((40, 3))
    y = X.sum(1) + RNG.standard_normal(40)
    sol = cf.solve(X, y)
    layer = torch.nn.Linear(3, 1).double()
    batched = cf.solve_batched(X.reshape(2, 20, 3), y.reshape(2, 20))
    for result in (sol, sol.certificate, sol.plan, sol.attempts[0], sol.summary(), cf.gap(layer, X, y), batched):
        assert repr(result) == str(result)
        assert "tensor(" not in repr(result)


def test_methods_are_typed_by_their_names() -> None:
    assert get_args(MethodName) == ("auto", *METHOD_NAMES)


@pytest.mark.parametrize("method", [None, [], 3, "cholesky", b"svd", ""])
def test_a_method_that_is_none_is_refused_with_the_names(method: object) -> None:
    with pytest.raises(InputError, match="is not known; use 'auto' or one of square, square32, diagonal, gram16"):
        cf.solve(np.ones((3, 1)), np.ones(3), method=method)  # type: ignore[call-overload]
